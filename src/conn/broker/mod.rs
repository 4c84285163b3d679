//! The embedded broker: what of a Redis server publishers and subscribers need, in the process
//! itself.
//!
//! A peer is a connection to the broker's port: a service that publishes, a person with
//! `redis-cli`, another router that subscribes. This file is about having peers; `table` is what
//! they may say, `execute` says it, `pubsub` carries messages, `greeting` and `info` do the rest.
//! The router reads beside the peers: it is fed by `Broker::next`, without a socket in between.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::arena::{ConnId, ConnTag, Table};
use crate::config::{BrokerConfig, Config, Level};
use crate::limits::{
    BROKER_LINGER_SECONDS, BROKER_PEERS_MAX, BROKER_QUEUE_BYTES_MAX, BROKER_REPLY_BYTES_MAX,
    BROKER_STRANGER_BYTES_MAX, LINGER_BYTES_MAX, RESP_LINE_BYTES_MAX, SCRATCH_BYTES,
};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::ports::{Kind, Output, Ports};
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};
use crate::wire::commands::Commands;
use crate::wire::replies::{Replies, Version};

mod execute;
mod glob;
mod greeting;
mod info;
mod pubsub;
mod subscriptions;
mod table;

use execute::Transaction;
use subscriptions::Subscriptions;

/// What the broker may touch outside itself, lent per call.
pub struct Context<'c> {
    pub now: Now,
    pub ports: &'c mut Ports,
    pub timers: &'c mut Timers,
    pub log: &'c mut Log,
    pub metrics: &'c mut Metrics,
}

/// A message on a channel that the router reads; the channel is without the configured prefix.
#[derive(PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub channel: String,
    pub payload: Cow<'a, [u8]>,
}

/// Where a peer stands.
enum State {
    Open,
    /// The last words are queued; what still comes is thrown away, so that no reset overtakes
    /// them.
    Closing {
        discarded: usize,
        /// The peer's FIN was read.
        ended: bool,
    },
}

/// One connection to the broker's port.
struct Peer {
    /// What `CLIENT ID` tells.
    number: u64,
    address: SocketAddr,
    since: Instant,
    state: State,
    commands: Commands,
    /// Replies that are not queued yet.
    replies: Replies,
    is_authenticated: bool,
    /// A wrong password was given; logged once.
    is_suspect: bool,
    name: Vec<u8>,
    database: i64,
    channels: BTreeSet<Rc<[u8]>>,
    patterns: BTreeSet<Rc<[u8]>>,
    /// What `channels` and `patterns` take.
    subscribed_bytes: usize,
    transaction: Option<Transaction>,
    /// Commands of a transaction that is being carried out.
    executing: VecDeque<Vec<u8>>,
    /// Input behind a command whose replies have to be taken first.
    held: Vec<u8>,
}

/// The broker with all its peers.
pub struct Broker {
    config: BrokerConfig,
    /// `REDIS.channel_prefix`: before the names of the router's channels.
    prefix: String,
    message_bytes_max: usize,
    pid: u32,
    peers: Table<ConnTag, Peer>,
    peers_ever: u64,
    subscriptions: Subscriptions,
}

impl Broker {
    /// `config`: what `Config::broker` holds, which says that there is to be a broker. `pid`: for
    /// `INFO`.
    pub fn new(config: &BrokerConfig, whole: &Config, pid: u32) -> Broker {
        Broker {
            config: config.clone(),
            prefix: whole.redis.channel_prefix.clone(),
            message_bytes_max: whole.redis.max_message_bytes,
            pid,
            peers: Table::default(),
            peers_ever: 0,
            subscriptions: Subscriptions::default(),
        }
    }

    /// Takes a connection that was accepted just now. `None`: there are too many.
    pub fn accept(&mut self, address: SocketAddr, ctx: &mut Context<'_>) -> Option<ConnId> {
        if self.peers.len() >= BROKER_PEERS_MAX {
            return None;
        }
        // A large message may be two frames: one that waits alone is never too much.
        let limit = BROKER_QUEUE_BYTES_MAX.max(self.message_bytes_max.saturating_mul(2));
        let conn = ctx.ports.open(Kind::Broker, limit);
        self.peers_ever += 1;
        let is_authenticated = self.config.password.is_none();
        let peer = Peer {
            number: self.peers_ever,
            address,
            since: ctx.now.mono,
            state: State::Open,
            commands: Commands::new(self.word_bytes_max(is_authenticated)),
            replies: Replies::new(Version::Resp2),
            is_authenticated,
            is_suspect: false,
            name: Vec::new(),
            database: 0,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            subscribed_bytes: 0,
            transaction: None,
            executing: VecDeque::new(),
            held: Vec::new(),
        };
        self.peers.insert(conn, peer);
        ctx.metrics.broker_connections = self.peers.len() as u64;
        Some(conn)
    }

    /// Carries out what a peer has sent, up to the next message for the router. `None`: the input
    /// is used up.
    pub fn next<'a>(
        &mut self,
        conn: ConnId,
        input: &mut &'a [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Message<'a>> {
        loop {
            let waiting = ctx.ports.mail.outbox(conn).map_or(0, |outbox| outbox.bytes());
            let peer = self.peers.get_mut(conn)?;
            if matches!(peer.state, State::Closing { .. }) {
                self.discard(conn, std::mem::take(input).len(), ctx);
                return None;
            }
            if waiting + peer.replies.len() > BROKER_REPLY_BYTES_MAX {
                peer.held.extend_from_slice(std::mem::take(input));
                self.send(conn, ctx);
                return None;
            }
            if peer.replies.len() > SCRATCH_BYTES {
                self.send(conn, ctx);
                continue;
            }
            let command = match peer.executing.pop_front() {
                Some(whole) => Ok(Some(Cow::Owned(whole))),
                None => peer.commands.next(input),
            };
            match command {
                Ok(Some(whole)) => {
                    let message = self.command(conn, whole, ctx);
                    if message.is_some() {
                        return message;
                    }
                }
                Ok(None) => {
                    self.send(conn, ctx);
                    return None;
                }
                Err(malformed) => {
                    peer.replies.error(&format!("ERR Protocol error: {malformed}"));
                    self.finish(conn, ctx);
                }
            }
        }
    }

    /// False while replies have to be taken first.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        self.peers.get(conn).is_none_or(|peer| !peer.is_paused())
    }

    /// Something was written. Gives the input that waited for it, to be handed to `next`.
    pub fn flushed(&mut self, conn: ConnId, ctx: &mut Context<'_>) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(conn)?;
        let waiting = ctx.ports.mail.outbox(conn).map_or(0, |outbox| outbox.bytes());
        if let State::Closing { ended: true, .. } = peer.state
            && waiting == 0
        {
            self.close(conn, ctx);
            return None;
        }
        if !peer.is_paused() || waiting > BROKER_REPLY_BYTES_MAX / 2 {
            return None;
        }
        ctx.ports.ask(Output::Resume(conn));
        Some(std::mem::take(&mut peer.held))
    }

    /// The peer sent its FIN: what it asked for before is still answered.
    pub fn ended(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.finish(conn, ctx);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if let State::Closing { ended, .. } = &mut peer.state {
            *ended = true;
        }
        self.flushed(conn, ctx);
    }

    /// The socket failed.
    pub fn lost(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.close(conn, ctx);
    }

    /// The peer takes its bytes more slowly than they come.
    pub fn too_slow(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(peer) = self.peers.get(conn) else { return };
        ctx.metrics.broker_slow_peers += 1;
        let line = ctx.log.at(ctx.now, Level::Warning, "broker connection too slow");
        drop(line.display("remote", peer.address));
        self.close(conn, ctx);
    }

    /// The time for the last words is over.
    pub fn due(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let peer = self.peers.get(conn);
        if peer.is_some_and(|peer| matches!(peer.state, State::Closing { .. })) {
            self.close(conn, ctx);
        }
    }

    fn discard(&mut self, conn: ConnId, bytes: usize, ctx: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if let State::Closing { discarded, .. } = &mut peer.state {
            *discarded = discarded.saturating_add(bytes);
            if *discarded > LINGER_BYTES_MAX {
                self.close(conn, ctx);
            }
        }
    }

    /// Queues the replies so far.
    fn send(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if !peer.replies.is_empty()
            && ctx.ports.mail.post_prompt(conn, peer.replies.take()).is_err()
        {
            self.too_slow(conn, ctx);
        }
    }

    /// Lets the peer have the replies so far, and ends the connection.
    fn finish(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.send(conn, ctx);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if matches!(peer.state, State::Closing { .. }) {
            return;
        }
        peer.state = State::Closing { discarded: 0, ended: false };
        peer.held = Vec::new();
        peer.executing = VecDeque::new();
        self.leave_all(conn);
        ctx.ports.mail.seal(conn);
        ctx.ports.ask(Output::HalfClose(conn));
        let linger = Duration::from_secs(BROKER_LINGER_SECONDS);
        ctx.timers.set(ctx.now.mono.after(linger), Timer::Connection(conn));
    }

    fn close(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.leave_all(conn);
        self.peers.remove(conn);
        ctx.ports.close(conn);
        ctx.metrics.broker_connections = self.peers.len() as u64;
    }

    /// The bound of one word of a command. A small `max_message_bytes` is for messages only.
    fn word_bytes_max(&self, is_authenticated: bool) -> usize {
        match is_authenticated {
            true => self.message_bytes_max.max(RESP_LINE_BYTES_MAX),
            false => BROKER_STRANGER_BYTES_MAX,
        }
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        self.subscriptions.audit();
        for (conn, peer) in self.peers.iter() {
            let open = matches!(peer.state, State::Open);
            assert!(open || peer.subscribed_bytes == 0, "who leaves reads nothing");
            for name in &peer.channels {
                assert!(self.subscriptions.readers(name).contains(&conn), "both sides know");
            }
            for pattern in &peer.patterns {
                assert!(self.subscriptions.pattern_readers(pattern).contains(&conn));
            }
        }
        let ours = |peer: &Peer| peer.channels.len() + peer.patterns.len();
        let held: usize = self.peers.iter().map(|(_, peer)| ours(peer)).sum();
        assert_eq!(held, self.subscriptions.len(), "no reader is left over");
    }
}

impl Peer {
    /// Commands wait until replies are taken.
    fn is_paused(&self) -> bool {
        !self.held.is_empty() || !self.executing.is_empty()
    }

    /// The number of subscriptions, as confirmations tell it.
    fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}

#[cfg(test)]
mod tests;
