//! The embedded broker: the router reads its channels as it would read a Redis's, but each wish is
//! granted at once.

use std::net::SocketAddr;

use super::{Engine, desk};
use crate::arena::ConnId;
use crate::conn::broker::{self, Broker, Message};
use crate::limits::{DELIVERIES_PER_MESSAGE, DELIVERIES_PER_TURN};
use crate::route::Desk;
use crate::time::Now;

/// Lends the broker everything it may touch.
macro_rules! broker_context {
    ($engine:expr) => {
        broker::Context {
            now: $engine.now,
            ports: &mut $engine.ports,
            timers: &mut $engine.timers,
            log: &mut $engine.log,
            metrics: &mut $engine.metrics,
        }
    };
}

impl Engine {
    pub(super) fn accept_broker(&mut self, peer: SocketAddr) -> Option<ConnId> {
        let broker = self.broker.as_mut()?;
        broker.accept(peer, &mut broker_context!(self))
    }

    /// Takes a peer's bytes through the broker; what the router reads goes there.
    pub(super) fn hear_broker(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut input = bytes;
        let mut deliveries = 0;
        while let Some(broker) = &mut self.broker
            && let Some(message) = broker.next(conn, &mut input, &mut broker_context!(self))
        {
            let Message { channel, payload } = message;
            let readers = self.router.publish(&channel, &[payload], &mut desk!(self));
            deliveries += readers + DELIVERIES_PER_MESSAGE;
            if deliveries >= DELIVERIES_PER_TURN {
                self.unread.insert(conn, input.to_vec());
                return;
            }
        }
    }

    /// Publishes at the embedded broker in the name of this process; gives the number of readers.
    pub fn publish(&mut self, now: Now, channel: &str, payload: &[u8]) -> usize {
        self.set_now(now);
        let Some(broker) = &mut self.broker else { return 0 };
        let (count, read) = broker.announce(channel, payload, &mut broker_context!(self));
        if let Some(channel) = read {
            self.router.publish(&channel, &[payload.into()], &mut desk!(self));
        }
        self.settle();
        count
    }

    pub(super) fn at_broker(&mut self, act: impl FnOnce(&mut Broker, &mut broker::Context<'_>)) {
        if let Some(broker) = &mut self.broker {
            act(broker, &mut broker_context!(self));
        }
    }

    /// Something was written: commands may have waited for that.
    pub(super) fn broker_flushed(&mut self, conn: ConnId) {
        let Some(broker) = &mut self.broker else { return };
        if self.unread.contains_key(&conn) {
            return; // what it said before comes first
        }
        if let Some(held) = broker.flushed(conn, &mut broker_context!(self)) {
            self.hear_broker(conn, &held);
            self.settle();
        }
    }
}
