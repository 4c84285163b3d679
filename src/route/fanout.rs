//! One message from Redis to the sessions that are to have it.
//!
//! The message is parsed once, its frame encoded once per distinct set of extra fields and shared
//! by all its receivers.

use std::collections::HashMap;
use std::rc::Rc;

use super::fields::{Extras, same_value};
use super::gate::{Gate, Room};
use super::publication::{Options, Publication, Unusable};
use super::readers::Wanted;
use super::session::{Held, Phase, Subscription};
use super::topics::TopicId;
use super::{Desk, Router};
use crate::arena::SubscriptionId;
use crate::config::{Level, Service};
use crate::metrics::{Dropped, Filtered};
use crate::outbox::{Frame, TooSlow};
use crate::time::{Instant, Wall};
use crate::timers::Timer;
use crate::wire::json::{ObjectWriter, quoted};
use crate::wire::ws::encode_text;

/// What `MESSAGE_METADATA` adds to a message besides `sent_at`.
#[derive(Clone, Copy, Default)]
struct Stamps {
    published_at: Option<Wall>,
    received_at: Option<Wall>,
}

/// Frames of one publication, by the extra fields of those who get them.
struct Frames<'a> {
    publication: &'a Publication<'a>,
    subscription: String,
    stamps: Option<Stamps>,
    sent_at: Wall,
    /// The last one made or asked for: mostly all sessions share it.
    last: Option<(*const Extras, Encoded)>,
    others: HashMap<*const Extras, Encoded>,
}

/// A frame, and its text where the log wants it.
#[derive(Clone)]
struct Encoded {
    frame: Frame,
    json: Option<Rc<str>>,
}

impl<'a> Frames<'a> {
    fn new(publication: &'a Publication<'a>, name: &str, desk: &Desk<'_>) -> Frames<'a> {
        Frames {
            publication,
            subscription: quoted(name),
            stamps: desk.config.message_metadata.then(Stamps::default),
            sent_at: desk.now.wall,
            last: None,
            others: HashMap::new(),
        }
    }

    fn get(&mut self, extras: Option<&Rc<Extras>>, with_text: bool) -> Encoded {
        // Extra fields are pooled: the same address means the same fields. Addresses are only
        // compared, and what is behind them outlives this publication.
        let address = extras.map_or(std::ptr::null(), Rc::as_ptr);
        if let Some((known, encoded)) = &self.last
            && *known == address
        {
            return encoded.clone();
        }
        let encoded = self.others.get(&address).cloned().unwrap_or_else(|| {
            let json = self.encode(extras);
            Encoded { frame: encode_text(&json), json: with_text.then(|| json.into()) }
        });
        if let Some((known, before)) = self.last.replace((address, encoded.clone())) {
            self.others.insert(known, before);
        }
        encoded
    }

    fn encode(&self, extras: Option<&Rc<Extras>>) -> String {
        let data = self.publication.data;
        if extras.is_none() && self.stamps.is_none() {
            let mut json = String::with_capacity(data.len() + self.subscription.len() + 48);
            json.push_str("{\"event\":\"message\",\"subscription\":");
            json.push_str(&self.subscription);
            json.push_str(",\"data\":");
            json.push_str(data);
            json.push('}');
            return json;
        }
        let mut message = ObjectWriter::default();
        message.raw("event", "\"message\"").raw("subscription", &self.subscription);
        message.raw("data", data);
        if let Some(published_at) = self.stamps.and_then(|stamps| stamps.published_at) {
            message.raw("published_at", format!("\"{published_at}\""));
        }
        if let Some(received_at) = self.stamps.and_then(|stamps| stamps.received_at) {
            message.raw("received_at", format!("\"{received_at}\""));
            // The original's queue between its Redis reader and its sessions; here is none.
            message.raw("queue_size", "0");
        }
        if let Some(extras) = extras {
            extras.fields.write(&mut message);
        }
        if self.stamps.is_some() {
            message.raw("sent_at", format!("\"{}\"", self.sent_at));
        }
        message.finish()
    }
}

fn wanted<'a>(service: &'a Service, publication: &Publication<'a>) -> Wanted<'a> {
    let present = |name: &'a String| {
        let is_extra = service.extra_fields.contains(name);
        Some((name.as_str(), publication.get(name)?, is_extra))
    };
    service.filter_fields.iter().filter_map(present).collect()
}

impl Router {
    /// A message came on a channel. Gives the number of readers that it was taken to.
    pub fn publish(&mut self, channel: &str, payload: &[u8], desk: &mut Desk<'_>) -> usize {
        desk.metrics.messages_received += 1;
        let Some(topic) = self.topics.find(channel) else {
            desk.metrics.messages_dropped[Dropped::NoReader as usize] += 1;
            return 0;
        };
        let Some(publication) = read(channel, payload, desk) else { return 0 };
        let Some(name) = publication.subscription.as_deref() else { return 0 };
        // Mostly a message names the subscription of its channel; else it reaches those who have
        // both.
        let is_own = *self.topics.get(topic).name == *name;
        let named = if is_own { Some(topic) } else { self.topics.find(name) };
        let Some(named) = named else { return 0 };
        let service = self.topics.get(named).service.clone();
        let wanted = wanted(&service, &publication);
        let mut frames = Frames::new(&publication, name, desk);
        if frames.stamps.is_some() {
            let published_at = published_at(&publication, desk);
            frames.stamps = Some(Stamps { published_at, received_at: Some(desk.now.wall) });
        }
        let is_own = topic == named;
        // A trace wants the reason for each session that a message does not reach.
        let may_look_up = is_own && !desk.log.trace_is_on();
        if may_look_up && let Some((found, others)) = self.candidates(topic, &wanted) {
            desk.metrics.messages_filtered[Filtered::Fields as usize] += others;
            let held = self.hold_for_provisional(topic, &publication, desk);
            for &id in &found {
                self.deliver(id, &wanted, &mut frames, desk);
            }
            return held + found.len();
        }
        let readers = self.topics.get(topic).readers().len();
        for index in 0..readers {
            let reader = self.topics.get(topic).readers()[index];
            if self.hold(reader, &publication, desk) {
                continue;
            }
            if let Some(id) = self.target(reader, named, is_own) {
                self.deliver(id, &wanted, &mut frames, desk);
            }
        }
        readers
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
            self.hold(reader, publication, desk);
        }
        readers.len()
    }

    /// Keeps a message for a subscription that is not confirmed yet. Says whether it was for one.
    fn hold(
        &mut self,
        id: SubscriptionId,
        publication: &Publication<'_>,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return false };
        let Phase::Provisional(held) = &mut subscription.phase else { return false };
        let Some(conn) = subscription.conn else { return true };
        let text = publication.keep();
        let queued = desk.mail.outbox(conn).map_or(0, |outbox| outbox.blocked_bytes());
        let bytes = queued + held.bytes + text.len();
        if bytes > desk.config.limits.send_queue_bytes && queued + held.bytes > 0 {
            desk.asks.too_slow.push(conn);
            return true;
        }
        held.bytes += text.len();
        held.texts.push(text);
        true
    }

    /// The subscription that a message reaches by way of a channel's reader.
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
        self.find_in_phase(session, named, |phase| matches!(phase, Phase::Confirmed))
    }

    /// Takes a message past the filters of one subscription and sends it.
    fn deliver(
        &mut self,
        id: SubscriptionId,
        wanted: &Wanted<'_>,
        frames: &mut Frames<'_>,
        desk: &mut Desk<'_>,
    ) {
        let publication = frames.publication;
        let Some(subscription) = self.subscriptions.get(id) else { return };
        if !matches!(subscription.phase, Phase::Confirmed) {
            return;
        }
        if !self.matches_fields(subscription, wanted) {
            return filtered(subscription, publication, Filtered::Fields, desk);
        }
        let options = &publication.options;
        if options.order.is_some() || options.throttle.is_some() {
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
        let room = Room { keys: limits.max_keys_per_subscription, bytes: limits.send_queue_bytes };
        let gate = self.subscriptions.get_mut(id)?.gate.get_or_insert_default();
        let passage = gate.pass(desk.now.mono, options, room, text);
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
        if options.order.is_some() || options.throttle.is_some() {
            // On a fresh gate everything passes: nothing will wait, so no text is asked for.
            let _ = self.pass_gate(id, options, || "".into(), desk);
        }
    }

    /// Messages that came during `before_subscribe` go past the filters as if they came now.
    pub(super) fn flush_held(&mut self, id: SubscriptionId, held: &Held, desk: &mut Desk<'_>) {
        for text in &held.texts {
            let Ok(publication) = Publication::parse(text) else { continue };
            let Some(name) = publication.subscription.as_deref() else { continue };
            let Some(named) = self.topics.find(name) else { continue };
            let is_own = self.subscriptions.get(id).is_some_and(|own| own.topic == named);
            let Some(target) = self.target(id, named, is_own) else { continue };
            let service = self.topics.get(named).service.clone();
            let wanted = wanted(&service, &publication);
            let mut frames = Frames::new(&publication, name, desk);
            if frames.stamps.is_some() {
                let published_at = published_at(&publication, desk);
                frames.stamps = Some(Stamps { published_at, received_at: None });
            }
            self.deliver(target, &wanted, &mut frames, desk);
        }
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
        loop {
            let mut due = None;
            gate(self, &mut |gate| due = gate.take_due(now));
            let Some(text) = due else { break };
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
        let mut frames = Frames::new(&publication, name, desk);
        send(subscription, &mut frames, desk);
    }
}

fn send(subscription: &Subscription, frames: &mut Frames<'_>, desk: &mut Desk<'_>) {
    let Some(conn) = subscription.conn else { return };
    let with_text = desk.log.is_on(Level::Debug);
    let encoded = frames.get(subscription.extras.as_ref(), with_text);
    if let Some(json) = &encoded.json {
        let line = desk.log.at(desk.now, Level::Debug, "client send");
        drop(line.session(subscription.session).raw("data", json));
    }
    match desk.mail.post(conn, &encoded.frame) {
        Ok(()) => desk.metrics.messages_delivered += 1,
        Err(TooSlow) => desk.asks.too_slow.push(conn),
    }
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
