//! Subscriptions, and messages on their way to them.

use std::borrow::Cow;

use super::table::Verb;
use super::{Broker, Context, Message, Peer};
use crate::arena::ConnId;
use crate::limits::{
    BROKER_BURST_BYTES_MAX, BROKER_CHANNEL_BYTES_MAX, BROKER_PATTERN_BYTES_MAX,
    BROKER_SUBSCRIBED_BYTES_MAX, BROKER_SUBSCRIPTION_COST,
};
use crate::outbox::{Frame, Mail, Outbox, TooSlow};
use crate::wire::commands::words;
use crate::wire::replies::{Version, message, message_head, message_tail};

/// A payload of this size is not copied for each pattern that brings it.
const SHARED_PAYLOAD_BYTES_MIN: usize = 16_384;

/// One message for the readers of one name, encoded at most once for each version of the protocol.
struct Frames<'a> {
    /// `message` or `pmessage`, and the names.
    head: &'a [&'a [u8]],
    payload: &'a [u8],
    /// The payload's own frame, where it is shared beyond these readers.
    tail: Option<Frame>,
    made: [Option<Frame>; Version::COUNT],
}

impl<'a> Frames<'a> {
    fn new(head: &'a [&'a [u8]], payload: &'a [u8], tail: Option<Frame>) -> Frames<'a> {
        Frames { head, payload, tail, made: [const { None }; Version::COUNT] }
    }

    fn post(&mut self, mail: &mut Mail, to: ConnId, version: Version) -> Result<(), TooSlow> {
        let (head, payload, is_split) = (self.head, self.payload, self.tail.is_some());
        let first = self.made[version as usize].get_or_insert_with(|| match is_split {
            true => message_head(version, head, payload.len()),
            false => message(version, head, payload),
        });
        mail.post(to, first)?;
        self.tail.as_ref().map_or(Ok(()), |tail| mail.post(to, tail))?;
        // A burst is judged once the socket had its chance, but memory has an end before that.
        let waiting = mail.outbox(to).map_or(0, Outbox::bytes);
        if waiting > payload.len() + BROKER_BURST_BYTES_MAX { Err(TooSlow) } else { Ok(()) }
    }
}

impl Broker {
    // ------------------------------------------------------------- the router

    /// The router reads this channel from now on. False: no message can ever be on it.
    pub fn join(&mut self, channel: &str) -> bool {
        let name = [self.prefix.as_str(), channel].concat();
        let fits = name.len() <= BROKER_CHANNEL_BYTES_MAX;
        if fits {
            self.subscriptions.join_router(name.as_bytes());
        }
        fits
    }

    /// The router reads this channel no more.
    pub fn leave(&mut self, channel: &str) {
        let name = [self.prefix.as_str(), channel].concat();
        self.subscriptions.leave_router(name.as_bytes());
    }

    // ---------------------------------------------------------------- messages

    /// Sends a message to all its readers; the router's share is given back.
    pub(super) fn publish<'a>(
        &mut self,
        conn: ConnId,
        whole: Cow<'a, [u8]>,
        ctx: &mut Context<'_>,
    ) -> Option<Message<'a>> {
        let [_, name, payload] = words(&whole)[..] else { return None };
        let channel = self.spread(conn, name, payload, ctx)?;
        let payload_bytes = payload.len();
        // The payload stands before the last CRLF; it stays in the buffer it came in.
        let payload = match whole {
            Cow::Borrowed(bytes) => {
                let end = bytes.len() - 2;
                Cow::Borrowed(&bytes[end - payload_bytes..end])
            }
            Cow::Owned(mut bytes) => {
                let end = bytes.len() - 2;
                bytes.truncate(end);
                bytes.drain(..end - payload_bytes);
                Cow::Owned(bytes)
            }
        };
        Some(Message { channel, payload })
    }

    /// Sends a message to all peers that read it and counts the readers. Gives the router's name
    /// of the channel, if the router is one of them.
    fn spread(
        &mut self,
        from: ConnId,
        channel: &[u8],
        payload: &[u8],
        ctx: &mut Context<'_>,
    ) -> Option<String> {
        let peer = self.peers.get_mut(from)?;
        if channel.len() > BROKER_CHANNEL_BYTES_MAX {
            peer.replies.error("ERR channel name too long");
            return None;
        }
        if payload.len() > self.message_bytes_max {
            peer.replies.error("ERR message over max_message_bytes");
            return None;
        }
        if peer.subscriptions() > 0 {
            // Its own message comes behind the replies to what it said before.
            self.send(from, ctx);
        }
        let (count, read) = self.send_to_readers(channel, payload, ctx);
        self.reply(from, |peer| peer.replies.integer(count as i64));
        read
    }

    /// Publishes in the name of this process. Gives the number of readers and, if the router is
    /// one of them, its name of the channel.
    pub fn announce(
        &mut self,
        channel: &str,
        payload: &[u8],
        ctx: &mut Context<'_>,
    ) -> (usize, Option<String>) {
        self.send_to_readers(channel.as_bytes(), payload, ctx)
    }

    fn send_to_readers(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        ctx: &mut Context<'_>,
    ) -> (usize, Option<String>) {
        ctx.metrics.broker_published += 1;
        let mut slow = Vec::new();
        let head: [&[u8]; 2] = [b"message", channel];
        let readers = self.subscriptions.readers(channel);
        let mut count = self.post(readers, Frames::new(&head, payload, None), &mut slow, ctx);
        let shared = payload.len() >= SHARED_PAYLOAD_BYTES_MIN;
        let mut tail = None;
        for (pattern, readers) in self.subscriptions.matching(channel) {
            let tail = shared.then(|| tail.get_or_insert_with(|| message_tail(payload)).clone());
            let head: [&[u8]; 3] = [b"pmessage", pattern, channel];
            count += self.post(readers, Frames::new(&head, payload, tail), &mut slow, ctx);
        }
        let is_read = self.subscriptions.has_router(channel);
        count += usize::from(is_read);
        for conn in slow {
            self.too_slow(conn, ctx);
        }
        let name = channel.strip_prefix(self.prefix.as_bytes()).filter(|_| is_read);
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        (count, name.map(str::to_owned))
    }

    fn post(
        &self,
        readers: &[ConnId],
        mut frames: Frames<'_>,
        slow: &mut Vec<ConnId>,
        ctx: &mut Context<'_>,
    ) -> usize {
        for &reader in readers {
            let Some(peer) = self.peers.get(reader) else { continue };
            if frames.post(&mut ctx.ports.mail, reader, peer.replies.version).is_err() {
                slow.push(reader);
            }
        }
        readers.len()
    }

    // ----------------------------------------------------------- subscriptions

    pub(super) fn subscribe(&mut self, conn: ConnId, channels: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        for &channel in channels {
            if !peer.channels.contains(channel) {
                if channel.len() > BROKER_CHANNEL_BYTES_MAX {
                    peer.replies.error("ERR channel name too long");
                    continue;
                }
                if !peer.has_room_for(channel) {
                    peer.replies.error("ERR too many subscriptions");
                    continue;
                }
                peer.subscribed_bytes += cost(channel);
                peer.channels.insert(self.subscriptions.join(channel, conn));
            }
            peer.confirm("subscribe", Some(channel));
        }
    }

    pub(super) fn subscribe_patterns(&mut self, conn: ConnId, patterns: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        for &pattern in patterns {
            if !peer.patterns.contains(pattern) {
                if pattern.len() > BROKER_PATTERN_BYTES_MAX {
                    peer.replies.error("ERR pattern too long");
                    continue;
                }
                let room = peer.has_room_for(pattern);
                let joined = room.then(|| self.subscriptions.join_pattern(pattern, conn));
                let Some(name) = joined.flatten() else {
                    peer.replies.error("ERR too many subscriptions");
                    continue;
                };
                peer.subscribed_bytes += cost(pattern);
                peer.patterns.insert(name);
            }
            peer.confirm("psubscribe", Some(pattern));
        }
    }

    /// Without channels: from all.
    pub(super) fn unsubscribe(&mut self, conn: ConnId, channels: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let all: Vec<_> = peer.channels.iter().filter(|_| channels.is_empty()).cloned().collect();
        for channel in all.iter().map(|name| &**name).chain(channels.iter().copied()) {
            if peer.channels.remove(channel) {
                peer.subscribed_bytes -= cost(channel);
                self.subscriptions.leave(channel, conn);
            }
            peer.confirm("unsubscribe", Some(channel));
        }
        if channels.is_empty() && all.is_empty() {
            peer.confirm("unsubscribe", None);
        }
    }

    /// Without patterns: from all.
    pub(super) fn unsubscribe_patterns(&mut self, conn: ConnId, patterns: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let all: Vec<_> = peer.patterns.iter().filter(|_| patterns.is_empty()).cloned().collect();
        for pattern in all.iter().map(|name| &**name).chain(patterns.iter().copied()) {
            if peer.patterns.remove(pattern) {
                peer.subscribed_bytes -= cost(pattern);
                self.subscriptions.leave_pattern(pattern, conn);
            }
            peer.confirm("punsubscribe", Some(pattern));
        }
        if patterns.is_empty() && all.is_empty() {
            peer.confirm("punsubscribe", None);
        }
    }

    /// Ends all subscriptions of a peer without a word to it.
    pub(super) fn leave_all(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        for channel in std::mem::take(&mut peer.channels) {
            self.subscriptions.leave(&channel, conn);
        }
        for pattern in std::mem::take(&mut peer.patterns) {
            self.subscriptions.leave_pattern(&pattern, conn);
        }
        peer.subscribed_bytes = 0;
    }

    /// `PUBSUB`, with what stands behind the subcommand.
    pub(super) fn tell_subscriptions(&mut self, conn: ConnId, verb: Verb, words: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let replies = &mut peer.replies;
        match (verb, words) {
            (Verb::PubsubChannels, [pattern]) if pattern.len() > BROKER_PATTERN_BYTES_MAX => {
                replies.error("ERR pattern too long")
            }
            (Verb::PubsubChannels, [] | [_]) => {
                let channels = self.subscriptions.channels(words.first().copied());
                replies.array(channels.len());
                for channel in channels {
                    replies.bulk(channel);
                }
                replies
            }
            (Verb::PubsubChannels, _) => replies.error(
                "ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. \
                 Try PUBSUB HELP.",
            ),
            (Verb::PubsubNumsub, channels) => {
                replies.array(2 * channels.len());
                for channel in channels {
                    let count = self.subscriptions.count(channel);
                    replies.bulk(channel).integer(count as i64);
                }
                replies
            }
            _ => replies.integer(self.subscriptions.pattern_count() as i64),
        };
    }
}

impl Peer {
    fn has_room_for(&self, name: &[u8]) -> bool {
        self.subscribed_bytes + cost(name) <= BROKER_SUBSCRIBED_BYTES_MAX
    }

    /// Says how a subscription stands now; `None`: there was none to end.
    fn confirm(&mut self, kind: &str, name: Option<&[u8]>) {
        let count = self.subscriptions();
        self.replies.push(3).bulk(kind.as_bytes());
        match name {
            Some(name) => self.replies.bulk(name),
            None => self.replies.null(),
        };
        self.replies.integer(count as i64);
    }
}

/// What a subscription takes.
fn cost(name: &[u8]) -> usize {
    name.len() + BROKER_SUBSCRIPTION_COST
}
