//! The Redis links: a channel is joined when every Redis has confirmed it, and losing one Redis
//! is losing all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::{Engine, desk};
use crate::arena::ConnId;
use crate::conn::redis::{self, Event, Link};
use crate::limits::{
    BULK_WRITES_PER_TURN, DELIVERIES_PER_MESSAGE, DELIVERIES_PER_TURN, TOGETHER_BYTES_MAX,
};
use crate::ports::{Kind, Output};
use crate::route::Desk;

/// What a client gets of a message is longer than what was published by no more than this, unless
/// there are extra fields.
const FRAME_BYTES: usize = 48;

/// Confirmations of SUBSCRIBE that are still missing, by channel.
#[derive(Default)]
pub(super) struct Confirmations(HashMap<Rc<str>, usize>);

/// Lends a link everything it may touch.
macro_rules! link_context {
    ($engine:expr) => {
        redis::Context {
            now: $engine.now,
            ports: &mut $engine.ports,
            log: &mut $engine.log,
            metrics: &mut $engine.metrics,
            random: &mut $engine.random,
        }
    };
}

impl Engine {
    pub(super) fn start_links(&mut self) {
        self.each_link(|link, context| link.start(context));
    }

    pub(super) fn stop_links(&mut self) {
        for link in &mut self.links {
            link.stop(&mut link_context!(self));
        }
    }

    pub(super) fn links_due(&mut self) {
        for index in 0..self.links.len() {
            // An answer to a ping may stand behind what we have not come to read.
            let is_behind = self.ports.mail.backlog() > BULK_WRITES_PER_TURN
                || self.links[index].conn().is_some_and(|conn| self.unread.contains_key(&conn));
            if !is_behind {
                self.links[index].due(&mut link_context!(self));
                self.drain_link(index, &[]);
            }
        }
    }

    pub(super) fn links_resolved(&mut self, host: &str, result: &Result<Vec<IpAddr>, String>) {
        self.each_link(|link, context| link.resolved(host, result, context));
    }

    pub(super) fn link_connected(&mut self, index: usize, conn: ConnId) {
        self.links[index].connected(conn, &mut link_context!(self));
        self.drain_link(index, &[]);
    }

    pub(super) fn link_lost(&mut self, index: usize, conn: ConnId, why: &str) {
        self.links[index].lost(conn, why, &mut link_context!(self));
        self.drain_link(index, &[]);
    }

    pub(super) fn hear_link(&mut self, index: usize, conn: ConnId, bytes: &[u8]) {
        if self.links[index].conn() == Some(conn) {
            self.drain_link(index, bytes);
        }
    }

    pub(super) fn all_connected(&self) -> bool {
        self.links.iter().all(Link::is_ready)
    }

    fn each_link(&mut self, act: impl Fn(&mut Link, &mut redis::Context<'_>)) {
        for index in 0..self.links.len() {
            act(&mut self.links[index], &mut link_context!(self));
            self.drain_link(index, &[]);
        }
    }

    /// Takes up what a link has to tell.
    fn drain_link(&mut self, index: usize, bytes: &[u8]) {
        let mut input = bytes;
        let mut deliveries = 0;
        let mut payloads = Vec::new();
        while let Some(event) = self.links[index].next(&mut input, &mut link_context!(self)) {
            match event {
                Event::Ready => self.link_ready(),
                Event::Lost { was_ready: true, .. } => self.redis_lost(),
                Event::Lost { was_ready: false, .. } => {}
                Event::Subscribed(channel) => self.confirmed(&channel),
                Event::SubscribeFailed { channel, .. } => self.refused(index, &channel),
                Event::Message { channel, payload } => {
                    payloads.push(payload);
                    self.gather(index, &channel, &mut payloads, &mut input);
                    deliveries += payloads.len() * DELIVERIES_PER_MESSAGE;
                    deliveries += self.router.publish(&channel, &payloads, &mut desk!(self));
                    payloads.clear();
                }
            }
            if deliveries >= DELIVERIES_PER_TURN
                && let Some(conn) = self.links[index].conn()
            {
                self.unread.insert(conn, input.to_vec());
                return;
            }
        }
    }

    /// Takes up what follows on the same channel: messages that go out together are one piece for
    /// each of their readers.
    fn gather<'a>(
        &self,
        index: usize,
        channel: &str,
        payloads: &mut Vec<Cow<'a, [u8]>>,
        input: &mut &'a [u8],
    ) {
        // One message of any size may wait for a client, but several only as far as there is room:
        // one piece of them must not be more.
        let mut room = self.config.limits.send_queue_bytes.min(TOGETHER_BYTES_MAX);
        let mut most = None;
        let mut taken = payloads.last().map_or(0, |payload| payload.len());
        while let Some(left) = room.checked_sub(taken + FRAME_BYTES)
            && let Some(payload) = self.links[index].next_on(channel, left, input)
        {
            room = left;
            taken = payload.len();
            payloads.push(Cow::Borrowed(payload));
            // All of them together are no more than a turn's work.
            let most = most.get_or_insert_with(|| {
                DELIVERIES_PER_TURN / (self.router.readers(channel) + DELIVERIES_PER_MESSAGE)
            });
            if payloads.len() >= *most {
                break;
            }
        }
    }

    /// Takes up what was left over in the turn before.
    pub(super) fn read_on(&mut self) {
        for (conn, bytes) in std::mem::take(&mut self.unread) {
            match self.ports.kind(conn) {
                Some(Kind::Redis(index)) => self.hear_link(index, conn, &bytes),
                Some(Kind::Broker) => self.hear_broker(conn, &bytes),
                _ => continue,
            }
            if !self.unread.contains_key(&conn) {
                self.ports.ask(Output::Resume(conn));
            }
        }
    }

    /// The router wants a channel's messages.
    pub(super) fn join(&mut self, channel: Rc<str>) {
        if let Some(broker) = &mut self.broker {
            return match broker.join(&channel) {
                true => self.router.joined(&channel, &mut desk!(self)),
                false => self.router.join_refused(&channel, &mut desk!(self)),
            };
        }
        if !self.all_connected() {
            return self.router.join_refused(&channel, &mut desk!(self));
        }
        self.confirmations.0.insert(channel.clone(), self.links.len());
        self.each_link(|link, context| link.subscribe(&channel, context));
    }

    pub(super) fn leave(&mut self, channel: &str) {
        self.at_broker(|broker, _| broker.leave(channel));
        self.confirmations.0.remove(channel);
        self.each_link(|link, context| link.unsubscribe(channel, context));
    }

    fn confirmed(&mut self, channel: &str) {
        let Some(missing) = self.confirmations.0.get_mut(channel) else { return };
        *missing -= 1;
        if *missing == 0 {
            self.confirmations.0.remove(channel);
            self.router.joined(channel, &mut desk!(self));
        }
    }

    /// One Redis has refused a channel: it is left at the others.
    fn refused(&mut self, by: usize, channel: &str) {
        if self.confirmations.0.remove(channel).is_none() {
            return;
        }
        for (index, link) in self.links.iter_mut().enumerate() {
            if index != by {
                link.unsubscribe(channel, &mut link_context!(self));
            }
        }
        self.router.join_refused(channel, &mut desk!(self));
    }

    /// No confirmation comes any more.
    pub(super) fn forget_confirmations(&mut self) {
        self.confirmations.0.clear();
        self.router.redis_lost(&mut desk!(self));
    }
}
