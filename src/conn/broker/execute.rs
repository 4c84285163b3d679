//! From a command's words to what they do, and transactions: commands that are kept from MULTI
//! to EXEC. Clients wrap a batch of PUBLISH in one, redis-py by default.

use std::borrow::Cow;

use super::table::{self, Entry, Verb};
use super::{Broker, Context, Message, Peer};
use crate::arena::ConnId;
use crate::config::Level;
use crate::limits::{BROKER_SUBSCRIPTION_COST, BROKER_TRANSACTION_BYTES_MAX};
use crate::wire::commands::words;
use crate::wire::replies::Replies;

/// Commands since MULTI.
#[derive(Default)]
pub struct Transaction {
    /// As they came.
    commands: Vec<Vec<u8>>,
    bytes: usize,
    /// One of them was refused: EXEC will be.
    is_aborted: bool,
}

impl Broker {
    /// Carries out one command.
    pub(super) fn command<'a>(
        &mut self,
        conn: ConnId,
        whole: Cow<'a, [u8]>,
        ctx: &mut Context<'_>,
    ) -> Option<Message<'a>> {
        let words = words(&whole);
        if words.first().is_some_and(|name| is_http(name)) {
            self.refuse_http(conn, ctx);
            return None;
        }
        let peer = self.peers.get_mut(conn)?;
        let entry = match table::look_up(&words).and_then(|entry| table::allow(entry, peer)) {
            Ok(entry) => entry,
            Err(error) => {
                peer.replies.error(&error);
                if let Some(transaction) = &mut peer.transaction {
                    transaction.is_aborted = true;
                }
                return None;
            }
        };
        if peer.transaction.is_some() && !is_immediate(entry.verb) {
            keep(peer, &whole);
            return None;
        }
        if entry.verb == Verb::Publish {
            return self.publish(conn, whole, ctx);
        }
        self.carry_out(conn, entry, &words, ctx);
        None
    }

    fn carry_out(&mut self, conn: ConnId, entry: &Entry, words: &[&[u8]], ctx: &mut Context<'_>) {
        match entry.verb {
            Verb::Subscribe => self.subscribe(conn, &words[1..]),
            Verb::Unsubscribe => self.unsubscribe(conn, &words[1..]),
            Verb::PatternSubscribe => self.subscribe_patterns(conn, &words[1..]),
            Verb::PatternUnsubscribe => self.unsubscribe_patterns(conn, &words[1..]),
            Verb::PubsubChannels | Verb::PubsubNumsub | Verb::PubsubNumpat => {
                self.tell_subscriptions(conn, entry.verb, &words[2..]);
            }
            Verb::Auth => self.auth(conn, &words[1..], ctx),
            Verb::Hello => self.hello(conn, &words[1..], ctx),
            Verb::Reset => self.reset(conn),
            Verb::Quit => {
                self.reply(conn, |peer| peer.replies.simple("OK"));
                self.finish(conn, ctx);
            }
            Verb::Info => self.info(conn, &words[1..], ctx),
            Verb::ClientInfo | Verb::ClientList => self.tell_clients(conn, entry.verb, words, ctx),
            _ => self.reply(conn, |peer| answer(peer, entry, words)),
        }
    }

    pub(super) fn reply(&mut self, conn: ConnId, write: impl FnOnce(&mut Peer) -> &mut Replies) {
        if let Some(peer) = self.peers.get_mut(conn) {
            write(peer);
        }
    }

    /// A browser that was told to send a form here: the body could hold commands.
    fn refuse_http(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        if let Some(peer) = self.peers.get(conn) {
            let event = "HTTP at the broker's port: connection closed";
            drop(ctx.log.at(ctx.now, Level::Warning, event).display("remote", peer.address));
        }
        self.finish(conn, ctx);
    }
}

/// What only concerns the peer itself.
fn answer<'p>(peer: &'p mut Peer, entry: &Entry, words: &[&[u8]]) -> &'p mut Replies {
    let argument = |at: usize| words.get(at).copied().unwrap_or_default();
    match entry.verb {
        Verb::Ping => peer.ping(&words[1..]),
        Verb::Echo => peer.replies.bulk(argument(1)),
        Verb::Select => peer.select(argument(1)),
        Verb::Multi => begin(peer),
        Verb::Exec => execute(peer),
        Verb::Discard => discard(peer),
        Verb::ClientId => peer.replies.integer(peer.number as i64),
        Verb::ClientGetname => peer.tell_name(),
        Verb::ClientSetname => peer.set_name(argument(2)),
        Verb::ClientSetinfo => peer.set_info(argument(2), argument(3)),
        Verb::CommandCount => peer.replies.integer(table::count() as i64),
        Verb::CommandDocs => peer.replies.map(0),
        Verb::Command | Verb::CommandInfo | Verb::CommandList => peer.replies.array(0),
        // All others are dealt with where more than the peer is at hand.
        _ => peer.replies.simple("OK"),
    }
}

/// The first words of requests in HTTP, which a line of ours never begins with.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Commands that a transaction does not keep.
fn is_immediate(verb: Verb) -> bool {
    matches!(verb, Verb::Multi | Verb::Exec | Verb::Discard | Verb::Quit | Verb::Reset)
}

fn keep(peer: &mut Peer, whole: &[u8]) {
    let Some(transaction) = &mut peer.transaction else { return };
    let bytes = transaction.bytes.saturating_add(whole.len() + BROKER_SUBSCRIPTION_COST);
    if bytes > BROKER_TRANSACTION_BYTES_MAX {
        transaction.is_aborted = true;
        transaction.commands = Vec::new();
        peer.replies.error("ERR transaction too large");
        return;
    }
    transaction.bytes = bytes;
    if !transaction.is_aborted {
        transaction.commands.push(whole.to_vec());
    }
    peer.replies.simple("QUEUED");
}

fn begin(peer: &mut Peer) -> &mut Replies {
    if peer.transaction.is_some() {
        return peer.replies.error("ERR MULTI calls can not be nested");
    }
    peer.transaction = Some(Transaction::default());
    peer.replies.simple("OK")
}

fn execute(peer: &mut Peer) -> &mut Replies {
    match peer.transaction.take() {
        None => peer.replies.error("ERR EXEC without MULTI"),
        Some(transaction) if transaction.is_aborted => {
            let error = "EXECABORT Transaction discarded because of previous errors.";
            peer.replies.error(error)
        }
        Some(transaction) => {
            peer.executing = transaction.commands.into();
            peer.replies.array(peer.executing.len())
        }
    }
}

fn discard(peer: &mut Peer) -> &mut Replies {
    match peer.transaction.take() {
        None => peer.replies.error("ERR DISCARD without MULTI"),
        Some(_) => peer.replies.simple("OK"),
    }
}
