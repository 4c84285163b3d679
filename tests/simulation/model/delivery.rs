//! Messages from Redis to sessions: fields, order, throttle, in that order (section 5).

use std::rc::Rc;

use serde_json::{Value, json};
use socketshark::time::Instant;

use super::gate::Passage;
use super::subscriptions::{Phase, Reads, Sub};
use super::{Expected, Model, Outcome, Stamps, SubKey};
use crate::marks::{Publication, PublishedAt, same};
use crate::peers::publisher::read_option;

impl Model {
    /// Redis has delivered a message on a channel.
    pub(super) fn publish(&mut self, channel: &str, message: &Rc<Publication>) {
        let Some(name) = message.name.as_deref() else { return };
        let reads = |sub: &Sub| sub.reads == Reads::Yes && sub.name == channel;
        let readers: Vec<SubKey> =
            self.subs.iter().filter(|(_, sub)| reads(sub)).map(|(key, _)| *key).collect();
        for key in readers {
            let sub = self.subs.get_mut(&key).expect("just listed");
            let session = sub.session;
            if let Phase::Held(held) = &mut sub.phase {
                if self.sessions.get(&session).is_some_and(|session| session.open) {
                    held.push(message.clone());
                }
            } else if name == channel {
                self.deliver(key, message, false);
            } else if let Some(named) = self.find(session, name) {
                self.deliver(named, message, false);
            }
        }
    }

    /// Messages that came before the subscription stood.
    pub(super) fn flush(&mut self, key: SubKey, held: Vec<Rc<Publication>>) {
        let (session, own) = (self.subs[&key].session, self.subs[&key].name.clone());
        for message in held {
            let name = message.name.as_deref().expect("only usable ones are held");
            let target = if name == own { Some(key) } else { self.find(session, name) };
            if let Some(target) = target {
                self.deliver(target, &message, true);
            }
        }
    }

    fn deliver(&mut self, key: SubKey, message: &Rc<Publication>, held: bool) {
        let sub = &self.subs[&key];
        if !matches!(sub.phase, Phase::Confirmed) {
            return;
        }
        if !self.matches(sub, message) {
            self.tally.filtered += 1;
            return;
        }
        let (now, keys) = (self.now, self.rules.limits.keys);
        let gate = &mut self.subs.get_mut(&key).expect("looked at").gate;
        let Passage { passes, released } = gate.pass(now, message, keys);
        for early in released {
            self.send(key, &early, Stamps::Throttled);
        }
        if passes {
            let published_at = match &message.published_at {
                Some(PublishedAt::At(text)) => Some(text.clone()),
                Some(PublishedAt::Unreadable) | None => None,
            };
            self.send(key, message, Stamps::Sent { held, published_at });
        } else {
            self.tally.filtered += 1;
        }
    }

    /// Each filter field that the message has equals the session's: an extra field if it is one,
    /// else an authentication field; an absent one is null.
    fn matches(&self, sub: &Sub, message: &Publication) -> bool {
        let auth = self.sessions.get(&sub.session).and_then(|session| session.auth.as_ref());
        sub.service.filter_fields.iter().all(|name| {
            let Some(wanted) = message.fields.get(name) else { return true };
            let is_extra = sub.service.extra_fields.contains(name);
            let fields = if is_extra { Some(&sub.extras) } else { auth };
            same(fields.and_then(|fields| fields.get(name)).unwrap_or(&Value::Null), wanted)
        })
    }

    fn send(&mut self, key: SubKey, message: &Publication, stamps: Stamps) {
        self.tally.delivered += 1;
        let sub = &self.subs[&key];
        let mut value = json!({"event": "message", "subscription": sub.name, "data": message.data});
        for (name, field) in &sub.extras {
            value[name] = field.clone();
        }
        let raw = Some(message.raw_data.clone());
        let session = sub.session;
        self.say(session, Expected { value, raw, stamps });
    }

    /// Throttled messages whose period is over.
    pub(super) fn throttles_due(&mut self) {
        let now = self.now;
        let mut due: Vec<(Instant, SubKey)> = self
            .subs
            .iter()
            .filter_map(|(key, sub)| Some((sub.gate.due().filter(|due| *due <= now)?, *key)))
            .collect();
        due.sort_unstable();
        for (_, key) in due {
            while let Some(message) = self.subs.get_mut(&key).and_then(|sub| sub.gate.take_due(now))
            {
                self.send(key, &message, Stamps::Throttled);
            }
        }
    }

    /// The order and throttle state that a `before_subscribe` answer sets.
    pub(super) fn start_gate(&mut self, key: SubKey, outcome: &Outcome) {
        let Some(options) = outcome.get("options") else { return };
        let start = Publication {
            text: String::new(),
            name: None,
            data: Value::Null,
            raw_data: String::new(),
            fields: Default::default(),
            order: read_option(options, "order"),
            throttle: read_option(options, "throttle"),
            published_at: None,
        };
        let (now, keys) = (self.now, self.rules.limits.keys);
        let gate = &mut self.subs.get_mut(&key).expect("it is being confirmed").gate;
        gate.pass(now, &Rc::new(start), keys);
    }
}
