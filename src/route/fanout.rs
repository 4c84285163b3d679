//! One message from Redis to the sessions that are to have it.
//!
//! The message is parsed once, its frame encoded once per distinct set of extra fields and shared
//! by all its receivers.

use std::borrow::Cow;
use std::rc::Rc;
use std::slice;

use super::fields::same_value;
use super::frames::{Frames, Stamps};
use super::gate::{Gate, Room};
use super::publication::{Options, Publication, Unusable};
use super::readers::Wanted;
use super::session::{HeldMessage, Phase, Subscription};
use super::topics::TopicId;
use super::{Desk, Router};
use crate::arena::{Arena, ConnId, SubscriptionId, SubscriptionTag};
use crate::config::{Level, Service};
use crate::limits::{
    BYTES_PER_DELIVERY, DELIVERIES_PER_GATE, DELIVERIES_PER_MESSAGE, DELIVERIES_PER_TURN,
};
use crate::metrics::{Dropped, Filtered};
use crate::outbox::{Frame, Mail, Outbox, TooSlow};
use crate::time::{Instant, Wall};
use crate::timers::Timer;

fn wanted<'a>(service: &'a Service, publication: &Publication<'a>) -> Wanted<'a> {
    let present = |name: &'a String| {
        let is_extra = service.extra_fields.contains(name);
        Some((name.as_str(), publication.get(name)?, is_extra))
    };
    service.filter_fields.iter().filter_map(present).collect()
}

/// Whether a message is for all readers of its channel as it is. (The log names each receiver.)
fn is_plain(
    publication: &Publication<'_>,
    channel: &str,
    service: &Service,
    desk: &Desk<'_>,
) -> bool {
    let options = &publication.options;
    let mut fields = service.filter_fields.iter();
    publication.subscription.as_deref() == Some(channel)
        && options.is_empty()
        && !fields.any(|name| publication.get(name).is_some())
        && !desk.log.is_on(Level::Debug)
}

impl Router {
    /// How many readers a channel has.
    pub fn readers(&self, channel: &str) -> usize {
        self.topics.find(channel).map_or(0, |topic| self.topics.get(topic).seats.readers().len())
    }

    /// Messages came on a channel, one behind the other. Gives what that has cost, in deliveries:
    /// each message counts for each reader that it was taken to, and more where gates were asked.
    pub fn publish(
        &mut self,
        channel: &str,
        payloads: &[Cow<'_, [u8]>],
        desk: &mut Desk<'_>,
    ) -> usize {
        let count = payloads.len() as u64;
        desk.metrics.messages_received += count;
        let Some(topic) = self.topics.find(channel) else {
            desk.metrics.messages_dropped[Dropped::NoReader as usize] += count;
            return 0;
        };
        if let [payload] = payloads {
            let publication = read(channel, payload, desk);
            return self.spread(channel, topic, publication.as_slice(), desk);
        }
        let mut publications = Vec::with_capacity(payloads.len());
        for payload in payloads {
            publications.extend(read(channel, payload, desk));
        }
        self.spread(channel, topic, &publications, desk)
    }

    /// Takes messages to their readers: as many together as can be.
    fn spread(
        &mut self,
        channel: &str,
        topic: TopicId,
        publications: &[Publication<'_>],
        desk: &mut Desk<'_>,
    ) -> usize {
        let mut rest = publications;
        let mut readers = 0;
        while let Some((first, behind)) = rest.split_first() {
            let service = &self.topics.get(topic).service;
            let is_plain = |one: &&Publication<'_>| is_plain(one, channel, service, desk);
            let plain = rest.iter().take_while(is_plain).count();
            if plain > 0 {
                let (together, behind) = rest.split_at(plain);
                readers += self.spread_plain(topic, together, desk);
                rest = behind;
            } else {
                readers += self.spread_one(channel, topic, first, desk);
                rest = behind;
            }
        }
        readers
    }

    /// Messages that no filter can keep from a reader: all of them are one piece for each.
    fn spread_plain(
        &mut self,
        topic: TopicId,
        publications: &[Publication<'_>],
        desk: &mut Desk<'_>,
    ) -> usize {
        let mut frames = Frames::new(publications, stamps(publications, desk), desk);
        let mut direct: Option<Frame> = None;
        let readers = self.topics.get(topic).seats.readers();
        for reader in readers {
            if let Some(conn) = reader.direct {
                let frame = direct.get_or_insert_with(|| frames.get(None, false).frame.clone());
                post(conn, frame, publications.len(), desk);
                continue;
            }
            let Some(subscription) = self.subscriptions.get_mut(reader.id) else { continue };
            if subscription.is_held() {
                hold_plain(subscription, publications, &mut frames, desk);
            } else if subscription.is_confirmed() {
                send(subscription, &mut frames, desk);
            }
        }
        readers.len() * publications.len()
    }

    fn spread_one(
        &mut self,
        channel: &str,
        topic: TopicId,
        publication: &Publication<'_>,
        desk: &mut Desk<'_>,
    ) -> usize {
        let Some(name) = publication.subscription.as_deref() else { return 0 };
        // Mostly a message names the subscription of its channel; else it reaches those who have
        // both.
        let is_own = name == channel;
        let named = if is_own { Some(topic) } else { self.topics.find(name) };
        let Some(named) = named else { return 0 };
        let service = self.topics.get(named).service.clone();
        let wanted = wanted(&service, publication);
        let publications = slice::from_ref(publication);
        let mut frames = Frames::new(publications, stamps(publications, desk), desk);
        let asks_gates = !publication.options.is_empty();
        let cost = if asks_gates { DELIVERIES_PER_GATE } else { 1 };
        // A trace wants the reason for each session that a message does not reach.
        let may_look_up = is_own && !desk.log.trace_is_on();
        if may_look_up && let Some((found, others)) = self.candidates(topic, &wanted) {
            desk.metrics.messages_filtered[Filtered::Fields as usize] += others;
            let held = self.hold_for_provisional(topic, publication, desk);
            // Who is found by the one field that counts need not be asked for it again.
            let unasked = if wanted.len() == 1 { Vec::new() } else { wanted };
            for &id in &found {
                self.deliver(id, publication, &unasked, &mut frames, desk);
            }
            return held + cost * found.len();
        }
        let readers = self.topics.get(topic).seats.readers().len();
        for index in 0..readers {
            let reader = self.topics.get(topic).seats.readers()[index].id;
            if hold(&mut self.subscriptions, reader, publication, desk) {
                continue;
            }
            if let Some(id) = self.target(reader, named, is_own)
                && !(id != reader && hold(&mut self.subscriptions, id, publication, desk))
            {
                self.deliver(id, publication, &wanted, &mut frames, desk);
            }
        }
        cost * readers
    }

    /// Keeps a message for all of an indexed topic's readers that are not confirmed yet: for how
    /// many.
    fn hold_for_provisional(
        &mut self,
        topic: TopicId,
        publication: &Publication<'_>,
        desk: &mut Desk<'_>,
    ) -> usize {
        let index = self.topics.get(topic).index.as_ref();
        let readers: Vec<_> =
            index.map(|index| index.provisional().iter().copied().collect()).unwrap_or_default();
        for &reader in &readers {
            hold(&mut self.subscriptions, reader, publication, desk);
        }
        readers.len()
    }

    /// The subscription that a message reaches by way of a channel's reader. It has its ok, though
    /// what was held for it may still be going out.
    fn target(
        &self,
        reader: SubscriptionId,
        named: TopicId,
        is_own: bool,
    ) -> Option<SubscriptionId> {
        if is_own {
            return Some(reader);
        }
        let session = self.subscriptions.get(reader)?.session;
        let reads = |phase: &Phase| matches!(phase, Phase::Confirmed | Phase::Provisional(_));
        self.find_in_phase(session, named, reads)
    }

    /// Takes a message past the filters of one subscription and sends it.
    fn deliver(
        &mut self,
        id: SubscriptionId,
        publication: &Publication<'_>,
        wanted: &Wanted<'_>,
        frames: &mut Frames<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        if !subscription.is_confirmed() && !subscription.is_held() {
            return;
        }
        if !self.matches_fields(subscription, wanted) {
            return filtered(subscription, publication, Filtered::Fields, desk);
        }
        let options = &publication.options;
        if !options.is_empty() {
            let reason = self.pass_gate(id, options, || publication.keep(), desk);
            let Some(subscription) = self.subscriptions.get(id) else { return };
            if let Some(reason) = reason {
                return filtered(subscription, publication, reason, desk);
            }
        }
        let Some(subscription) = self.subscriptions.get(id) else { return };
        send(subscription, frames, desk);
    }

    fn matches_fields(&self, subscription: &Subscription, wanted: &Wanted<'_>) -> bool {
        wanted.iter().all(|(name, value, is_extra)| {
            same_value(self.field_of(subscription, name, *is_extra).unwrap_or("null"), value)
        })
    }

    /// Asks a subscription's gate; gives the reason where the message does not pass.
    fn pass_gate(
        &mut self,
        id: SubscriptionId,
        options: &Options,
        text: impl FnOnce() -> Rc<str>,
        desk: &mut Desk<'_>,
    ) -> Option<Filtered> {
        let limits = &desk.config.limits;
        let subscription = self.subscriptions.get_mut(id)?;
        let conn = subscription.conn?;
        let gate = subscription.gate.get_or_insert_default();
        let before = gate.waiting_bytes();
        let room = Room {
            keys: limits.max_keys_per_subscription,
            bytes: limits.send_queue_bytes,
            // What its socket does not take is no reason to send more before its time.
            taken: desk.mail.outbox(conn).map_or(0, Outbox::parked).saturating_sub(before),
        };
        let passage = gate.pass(desk.now.mono, options, room, text);
        let after = gate.waiting_bytes();
        recount(desk.mail, conn, before, after);
        let outbox = desk.mail.outbox(conn);
        let is_blocked = outbox.is_some_and(|outbox| outbox.blocked_bytes() > 0);
        if after > before && is_blocked && waiting_for(conn, desk.mail) > limits.send_queue_bytes {
            desk.asks.too_slow.push(conn);
        }
        if let Some(at) = gate.arm() {
            desk.timers.set(at, Timer::Throttle(id));
        }
        desk.metrics.keys_forgotten += passage.forgotten;
        for text in passage.released {
            self.send_throttled(id, &text, desk);
        }
        passage.filtered
    }

    /// The order and throttle state that a `before_subscribe` answer sets.
    pub(super) fn start_gate(
        &mut self,
        id: SubscriptionId,
        options: &Options,
        desk: &mut Desk<'_>,
    ) {
        if !options.is_empty() {
            // On a fresh gate everything passes: nothing will wait, so no text is asked for.
            let _ = self.pass_gate(id, options, || "".into(), desk);
        }
    }

    /// Sends what is held for a subscription, as far as the turn allows. Says whether that was all.
    pub(super) fn send_held(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) -> bool {
        loop {
            let Some(subscription) = self.subscriptions.get_mut(id) else { return true };
            let Phase::Provisional(held) = &mut subscription.phase else { return true };
            if self.held_cost >= DELIVERIES_PER_TURN {
                return held.bytes() == 0;
            }
            let Some(message) = held.pop() else { return true };
            let Some(conn) = subscription.conn else { continue };
            desk.mail.unpark(conn, message.len());
            match message {
                HeldMessage::Frame { piece, messages } => {
                    self.held_cost += messages;
                    post(conn, &piece, messages, desk);
                }
                HeldMessage::Text(text) => {
                    self.held_cost += DELIVERIES_PER_MESSAGE + text.len() / BYTES_PER_DELIVERY;
                    self.send_held_text(id, &text, desk);
                }
            }
        }
    }

    /// A held message goes past the filters as if it came now.
    fn send_held_text(&mut self, id: SubscriptionId, text: &str, desk: &mut Desk<'_>) {
        let Ok(publication) = Publication::parse(text) else { return };
        let Some(name) = publication.subscription.as_deref() else { return };
        let Some(named) = self.topics.find(name) else { return };
        let is_own = self.subscriptions.get(id).is_some_and(|own| own.topic == named);
        let Some(target) = self.target(id, named, is_own) else { return };
        let service = self.topics.get(named).service.clone();
        let wanted = wanted(&service, &publication);
        let publications = slice::from_ref(&publication);
        let mut stamps = stamps(publications, desk);
        stamps.iter_mut().for_each(|stamps| stamps.received_at = None);
        let mut frames = Frames::new(publications, stamps, desk);
        self.deliver(target, &publication, &wanted, &mut frames, desk);
    }

    /// The time of a throttled message has come.
    pub(super) fn throttle_due(&mut self, at: Instant, id: SubscriptionId, desk: &mut Desk<'_>) {
        let now = desk.now.mono;
        let gate = |router: &mut Router, next: &mut dyn FnMut(&mut Gate)| {
            let subscription = router.subscriptions.get_mut(id);
            if let Some(gate) = subscription.and_then(|found| found.gate.as_deref_mut()) {
                next(gate);
            }
        };
        let mut is_current = false;
        gate(self, &mut |gate| is_current = gate.fired(at));
        if !is_current {
            return;
        }
        // One: thousands of keys may be due at once, and the next has its own timer.
        let mut due = None;
        gate(self, &mut |gate| due = gate.take_due(now));
        if let Some(text) = due {
            if let Some(conn) = self.subscriptions.get(id).and_then(|found| found.conn) {
                desk.mail.unpark(conn, text.len());
            }
            self.send_throttled(id, &text, desk);
        }
        gate(self, &mut |gate| {
            if let Some(at) = gate.arm() {
                desk.timers.set(at, Timer::Throttle(id));
            }
        });
    }

    fn send_throttled(&self, id: SubscriptionId, text: &str, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        let Ok(publication) = Publication::parse(text) else { return };
        let name = &self.topics.get(subscription.topic).name;
        let line = desk.log.trace(desk.now, "sending throttled message");
        drop(line.session(subscription.session).text("subscription", name));
        let stamps = if desk.config.message_metadata { vec![Stamps::default()] } else { vec![] };
        let mut frames = Frames::new(slice::from_ref(&publication), stamps, desk);
        send(subscription, &mut frames, desk);
    }
}

fn send(subscription: &Subscription, frames: &mut Frames<'_>, desk: &mut Desk<'_>) {
    let Some(conn) = subscription.conn else { return };
    let with_text = desk.log.is_on(Level::Debug);
    let messages = frames.messages();
    let encoded = frames.get(subscription.extras.as_ref(), with_text);
    if let Some(json) = &encoded.json {
        let line = desk.log.at(desk.now, Level::Debug, "client send");
        drop(line.session(subscription.session).raw("data", json));
    }
    post(conn, &encoded.frame, messages, desk);
}

/// Sends a connection so many messages in one piece.
fn post(conn: ConnId, frame: &Frame, messages: usize, desk: &mut Desk<'_>) {
    match desk.mail.post(conn, frame) {
        Ok(()) => desk.metrics.messages_delivered += messages as u64,
        Err(TooSlow) => desk.asks.too_slow.push(conn),
    }
}

/// Keeps messages that no filter can stop: in one piece, where that has room.
fn hold_plain(
    subscription: &mut Subscription,
    publications: &[Publication<'_>],
    frames: &mut Frames<'_>,
    desk: &mut Desk<'_>,
) {
    let waiting = subscription.conn.map_or(0, |conn| waiting_for(conn, desk.mail));
    if !frames.are_stamped() {
        let piece = frames.get(subscription.extras.as_ref(), false).frame.clone();
        let has_room = waiting + piece.len() <= desk.config.limits.send_queue_bytes;
        if publications.len() == 1 || has_room {
            let messages = publications.len();
            return keep(subscription, HeldMessage::Frame { piece, messages }, desk);
        }
    }
    for publication in publications {
        keep(subscription, HeldMessage::Text(publication.keep()), desk);
    }
}

/// Keeps a message for a subscription that is not confirmed yet. Says whether it was for one.
fn hold(
    subscriptions: &mut Arena<SubscriptionTag, Subscription>,
    id: SubscriptionId,
    publication: &Publication<'_>,
    desk: &mut Desk<'_>,
) -> bool {
    let Some(subscription) = subscriptions.get_mut(id) else { return false };
    if !subscription.is_held() {
        return false;
    }
    keep(subscription, HeldMessage::Text(publication.keep()), desk);
    true
}

fn keep(subscription: &mut Subscription, message: HeldMessage, desk: &mut Desk<'_>) {
    let Some(conn) = subscription.conn else { return };
    let before = waiting_for(conn, desk.mail);
    if before + message.len() > desk.config.limits.send_queue_bytes && before > 0 {
        desk.asks.too_slow.push(conn);
    } else if let Phase::Provisional(held) = &mut subscription.phase {
        desk.mail.park(conn, message.len());
        held.push(message);
    }
}

/// Bytes that wait for a session already.
fn waiting_for(conn: ConnId, mail: &Mail) -> usize {
    mail.outbox(conn).map_or(0, Outbox::waiting_bytes)
}

/// What waits at a gate has become more or less.
fn recount(mail: &mut Mail, conn: ConnId, before: usize, after: usize) {
    match after.checked_sub(before) {
        Some(more) => mail.park(conn, more),
        None => mail.unpark(conn, before - after),
    }
}

/// What the configuration has messages say of their times: one for each, or none at all.
fn stamps(publications: &[Publication<'_>], desk: &mut Desk<'_>) -> Vec<Stamps> {
    if !desk.config.message_metadata {
        return Vec::new();
    }
    let received_at = Some(desk.now.wall);
    let stamps = |one| Stamps { published_at: published_at(one, desk), received_at };
    publications.iter().map(stamps).collect()
}

fn filtered(
    subscription: &Subscription,
    publication: &Publication<'_>,
    reason: Filtered,
    desk: &mut Desk<'_>,
) {
    desk.metrics.messages_filtered[reason as usize] += 1;
    let line = desk.log.trace(desk.now, "message filtered").session(subscription.session);
    drop(line.text("reason", reason.name()).raw("data", publication.text()));
}

/// Reads a payload; what is no publication is logged and counted.
fn read<'a>(channel: &str, payload: &'a [u8], desk: &mut Desk<'_>) -> Option<Publication<'a>> {
    let text = std::str::from_utf8(payload).map_err(|_| Unusable::NotJson);
    let error = match text.and_then(Publication::parse) {
        Ok(publication) => {
            let line = desk.log.trace(desk.now, "service event");
            drop(line.raw("data", publication.text()));
            return Some(publication);
        }
        Err(error) => error,
    };
    let (dropped, line) = match error {
        Unusable::NotJson => {
            let line = desk.log.at(desk.now, Level::Warning, "publication is not JSON");
            (Dropped::NotJson, line.number("bytes", payload.len() as u64))
        }
        Unusable::Invalid => {
            let line = desk.log.at(desk.now, Level::Warning, "invalid service event");
            (Dropped::Invalid, line.raw("data", &String::from_utf8_lossy(payload)))
        }
    };
    drop(line.text("channel", channel));
    desk.metrics.messages_dropped[dropped as usize] += 1;
    None
}

fn published_at(publication: &Publication<'_>, desk: &mut Desk<'_>) -> Option<Wall> {
    let raw = publication.get("published_at").filter(|raw| *raw != "null")?;
    let read = crate::wire::json::string(raw).and_then(|text| Wall::parse(&text));
    if read.is_none() {
        let line = desk.log.at(desk.now, Level::Warning, "invalid published_at format");
        drop(line.raw("published_at", raw));
    }
    read
}
