//! Subscriptions: who reads which channel, and how far each has come.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};
use socketshark::message::Hook;

use super::gate::Gate;
use super::watch::{Heartbeat, Renewal};
use super::{Model, Outcome, SessionKey, SubKey};
use crate::marks::{Fields, Publication};
use crate::swarm::Service;

/// One subscription of one session.
pub struct Sub {
    pub session: SessionKey,
    pub name: String,
    pub service: Rc<Service>,
    pub extras: Fields,
    pub(super) phase: Phase,
    /// Whether it reads its channel.
    pub(super) reads: Reads,
    pub(super) authorizer: Fields,
    pub(super) gate: Gate,
    pub(super) renewal: Renewal,
    pub(super) heartbeat: Heartbeat,
    pub(super) calls: CallCounts,
}

/// What a frame has more than the message that it tells of, extra fields aside.
const FRAME_BYTES: usize = 40;

/// How far it has come.
pub(super) enum Phase {
    /// Authorizing or joining.
    Pending,
    /// `before_subscribe` is under way; messages wait.
    Held(Vec<Rc<Publication>>),
    Confirmed,
    Expiring(Expiry),
    /// Expired while the client's own unsubscribe was under way.
    Expired,
    Leaving,
}

pub(super) struct Expiry {
    pub error: Value,
    pub data: Option<Value>,
    pub asked_before: bool,
    /// The client's unsubscribe waits for it.
    pub adopted: bool,
}

/// Whether a subscription uses its channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reads {
    No,
    Joining,
    Yes,
}

/// Callbacks made for a subscription.
#[derive(Default)]
pub(super) struct CallCounts {
    on_subscribe: usize,
    before_unsubscribe: usize,
    on_unsubscribe: usize,
    confirmed: bool,
}

impl Sub {
    /// Whether it is confirmed and nothing ends it yet.
    pub fn stands(&self) -> bool {
        matches!(self.phase, Phase::Confirmed)
    }

    fn held_bytes(&self) -> usize {
        match &self.phase {
            // What is kept is the message, or the frame that will go out.
            Phase::Held(held) if held.is_empty() => 0,
            Phase::Held(held) => {
                let besides = json!(self.extras).to_string().len() + FRAME_BYTES;
                held.iter().map(|message| message.text.len() + besides).sum()
            }
            _ => self.gate.waiting_bytes(),
        }
    }

    pub fn is_joining(&self) -> bool {
        self.reads == Reads::Joining
    }
}

impl Model {
    pub(super) fn new_sub(
        &mut self,
        session: SessionKey,
        name: &str,
        service: Rc<Service>,
        extras: Fields,
    ) -> SubKey {
        let key = self.new_key();
        let sub = Sub {
            session,
            name: name.to_owned(),
            service,
            extras,
            phase: Phase::Pending,
            reads: Reads::No,
            authorizer: Fields::new(),
            gate: Gate::default(),
            renewal: Renewal::default(),
            heartbeat: Heartbeat::default(),
            calls: CallCounts::default(),
        };
        self.subs.insert(key, sub);
        key
    }

    /// The session's confirmed subscription of that name.
    pub(super) fn find(&self, session: SessionKey, name: &str) -> Option<SubKey> {
        let is_it = |key: &SubKey| {
            let sub = &self.subs[key];
            sub.name == name && matches!(sub.phase, Phase::Confirmed)
        };
        self.sessions.get(&session)?.subs.iter().copied().find(is_it)
    }

    /// The body of a callback: the subscription, then extra fields, authorizer fields,
    /// authentication fields, a later one over an earlier one.
    pub(super) fn body(&self, sub: SubKey, data: Option<&Value>) -> Value {
        let sub = &self.subs[&sub];
        let auth = self.sessions.get(&sub.session).and_then(|session| session.auth.clone());
        let mut body = json!({"subscription": sub.name});
        let auth = auth.unwrap_or_default();
        for (name, value) in sub.extras.iter().chain(&sub.authorizer).chain(&auth) {
            body[name] = value.clone();
        }
        if let Some(data) = data {
            body["data"] = data.clone();
        }
        body
    }

    /// Subscribes to the channel. None: Redis has to confirm first.
    pub(super) fn join(&mut self, key: SubKey) -> Option<Outcome> {
        let name = self.subs[&key].name.clone();
        // Where others leave in the same moment, it is the program that decides who came first.
        let is_joined = self.links.is_joined(&name) && !self.step.subscribed.contains(&name);
        let sub = self.subs.get_mut(&key).expect("it is being subscribed");
        let is_open = self.sessions.get(&sub.session).is_some_and(|session| session.open);
        if is_joined {
            // A client that has gone reads nothing, though its subscribe goes on.
            sub.reads = if is_open { Reads::Yes } else { Reads::No };
            sub.phase = Phase::Held(Vec::new());
            return Some(Outcome::Yes);
        }
        if !self.links.all_ready() {
            return Some(Outcome::Unavailable);
        }
        sub.reads = Reads::Joining;
        None
    }

    /// Every Redis has confirmed a channel, or one has refused it.
    pub(super) fn channel_answered(&mut self, name: &str, ok: bool) {
        let waits = |sub: &Sub| sub.reads == Reads::Joining && sub.name == name;
        let waiting: Vec<SubKey> =
            self.subs.iter().filter(|(_, sub)| waits(sub)).map(|(key, _)| *key).collect();
        // They are readers from the same moment on, whatever follows for each.
        for key in &waiting {
            let sub = self.subs.get_mut(key).expect("just listed");
            let is_open = self.sessions.get(&sub.session).is_some_and(|session| session.open);
            sub.reads = if ok && is_open { Reads::Yes } else { Reads::No };
            if ok {
                sub.phase = Phase::Held(Vec::new());
            }
        }
        for key in waiting {
            let session = self.subs[&key].session;
            let outcome = if ok { Outcome::Yes } else { Outcome::Unavailable };
            self.event_answered(session, &outcome);
        }
    }

    /// No Redis will confirm anything any more.
    pub(super) fn joins_failed(&mut self) {
        let waits = |sub: &Sub| sub.reads == Reads::Joining;
        let names: BTreeSet<String> =
            self.subs.values().filter(|sub| waits(sub)).map(|sub| sub.name.clone()).collect();
        for name in names {
            self.channel_answered(&name, false);
        }
    }

    /// The subscription stands.
    pub(super) fn confirm(&mut self, key: SubKey, outcome: &Outcome) {
        self.tally.confirmed += 1;
        let sub = self.subs.get_mut(&key).expect("it is being subscribed");
        let phase = std::mem::replace(&mut sub.phase, Phase::Confirmed);
        sub.calls.confirmed = true;
        let session = self.sessions.get_mut(&sub.session).expect("it is being subscribed");
        session.subs.push(key);
        if !session.open {
            return;
        }
        self.start_gate(key, outcome);
        if let Phase::Held(held) = phase {
            self.flush(key, held);
        }
        self.plan_watch(key);
    }

    /// It gets no more messages.
    pub(super) fn leave(&mut self, key: SubKey) {
        let Some(sub) = self.subs.get_mut(&key) else { return };
        // Whoever still waits for Redis is let in first and undone afterwards.
        if sub.reads == Reads::Yes {
            sub.reads = Reads::No;
            sub.gate = Gate::default();
            if let Phase::Held(held) = &mut sub.phase {
                held.clear();
            }
        }
    }

    /// Takes a subscription out of its session.
    pub(super) fn detach(&mut self, key: SubKey) {
        self.leave(key);
        let sub = self.subs.get_mut(&key).expect("it is being left");
        sub.phase = Phase::Leaving;
        if let Some(session) = self.sessions.get_mut(&sub.session) {
            session.subs.retain(|other| *other != key);
        }
    }

    /// Nothing of it stays behind; every confirmed one has had its pair of callbacks.
    pub(super) fn drop_sub(&mut self, key: SubKey) {
        let Some(sub) = self.subs.remove(&key) else { return };
        let CallCounts { on_subscribe, before_unsubscribe, on_unsubscribe, confirmed } = sub.calls;
        let once = |hook| usize::from(confirmed && sub.service.has(hook));
        assert_eq!(on_subscribe, once(Hook::OnSubscribe), "on_subscribe of {}", sub.name);
        assert_eq!(on_unsubscribe, once(Hook::OnUnsubscribe), "on_unsubscribe of {}", sub.name);
        let least = once(Hook::BeforeUnsubscribe);
        assert!(before_unsubscribe >= least, "before_unsubscribe of {}", sub.name);
        if !confirmed {
            assert_eq!(before_unsubscribe, 0, "what never stood is not left");
        }
    }

    pub(super) fn count_call(&mut self, key: SubKey, hook: Hook) {
        let Some(sub) = self.subs.get_mut(&key) else { return };
        match hook {
            Hook::OnSubscribe => sub.calls.on_subscribe += 1,
            Hook::BeforeUnsubscribe => sub.calls.before_unsubscribe += 1,
            Hook::OnUnsubscribe => sub.calls.on_unsubscribe += 1,
            _ => {}
        }
    }

    /// Channels that must be subscribed now, and those that may be besides: a subscribe whose
    /// client has gone waits for Redis still.
    pub(super) fn channels(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for sub in self.subs.values().filter(|sub| sub.reads != Reads::No) {
            let is_open = self.sessions.get(&sub.session).is_some_and(|session| session.open);
            let set = if is_open { &mut must } else { &mut may };
            set.insert(sub.name.clone());
        }
        (must, may)
    }

    /// What waits for a confirmation does not grow beyond the limit, but for one message.
    pub(super) fn check_held(&self) {
        for sub in self.subs.values() {
            let Phase::Held(held) = &sub.phase else { continue };
            // One that names another subscription may be of no use to anybody.
            let own = held.iter().filter(|message| message.name.as_ref() == Some(&sub.name));
            let bytes: usize = own.map(|message| message.raw_data.len()).sum();
            let is_few = held.len() <= 1 || bytes <= self.rules.limits.send_queue;
            assert!(is_few, "{bytes} bytes wait for {} to be confirmed", sub.name);
        }
    }

    /// Bytes of messages that wait for confirmations of a session and for ends of throttles: at
    /// most, for some wait as the frames that they will be.
    pub(super) fn held_bytes(&self, session: SessionKey) -> usize {
        let own = self.subs.values().filter(|sub| sub.session == session);
        own.map(Sub::held_bytes).sum()
    }

    /// The same of all sessions that have any.
    pub(super) fn all_held_bytes(&self) -> BTreeMap<SessionKey, usize> {
        let mut all = BTreeMap::new();
        for sub in self.subs.values() {
            match sub.held_bytes() {
                0 => {}
                bytes => *all.entry(sub.session).or_default() += bytes,
            }
        }
        all
    }
}
