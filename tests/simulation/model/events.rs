//! What becomes of clients' events, in the order of section 3.

use serde_json::{Value, json};
use socketshark::message::Hook;

use super::subscriptions::Phase;
use super::{Expected, Model, Outcome, Owner, SessionKey, Stamps, SubKey};
use crate::marks::{Ask, Asked, Fields, On};
use crate::swarm::Service;

/// The event that a session is handling.
pub struct Hand {
    pub stage: Stage,
    event: &'static str,
    /// The subscription, as it is echoed.
    echo: Option<String>,
    /// Extra fields of its answers.
    extras: Fields,
    pub sub: Option<SubKey>,
    /// The answer's data, where the end of the subscription was waited for.
    pub data: Option<Value>,
}

/// What it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Validating,
    Authorizing,
    Joining,
    BeforeSubscribe,
    OnSubscribe,
    OnMessage,
    BeforeUnsubscribe,
    OnUnsubscribe,
    /// The end of a subscription whose authorization has expired.
    AwaitingExpiry,
    FarewellBefore,
    FarewellOn,
}

impl Hand {
    fn new(event: &'static str, stage: Stage) -> Hand {
        Hand { stage, event, echo: None, extras: Fields::new(), sub: None, data: None }
    }
}

impl Model {
    /// An event's turn has come.
    pub(super) fn handle(&mut self, key: SessionKey, ask: &Ask) {
        match &ask.what {
            Asked::Bad(answer) => self.say_plain(key, answer.clone()),
            Asked::Ping(data) => self.pong(key, data.clone()),
            Asked::Auth(ticket) => self.authenticate(key, ticket.as_deref()),
            Asked::Subscribe(on) => self.subscribe(key, on),
            Asked::Message(on, data) => self.message(key, on, data),
            Asked::Unsubscribe(on) => self.unsubscribe(key, on),
        }
    }

    pub(super) fn pong(&mut self, key: SessionKey, data: Value) {
        self.say_plain(key, json!({"event": "pong", "data": data}));
    }

    fn say_plain(&mut self, key: SessionKey, value: Value) {
        self.tally.answers += 1;
        self.say(key, Expected { value, raw: None, stamps: Stamps::None });
    }

    fn authenticate(&mut self, key: SessionKey, ticket: Option<&str>) {
        let Some(ticket) = ticket else {
            let error = "Must specify ticket.";
            return self
                .say_plain(key, json!({"event": "auth", "status": "error", "error": error}));
        };
        self.take_in_hand(key, Hand::new("auth", Stage::Validating));
        self.wish(Hook::Validation, json!({"ticket": ticket}), Owner::Event(key));
    }

    fn subscribe(&mut self, key: SessionKey, on: &On) {
        let (service_name, _) = on.name.split_once('.').expect("others are bad events");
        let service = self.rules.service(service_name).expect("others are bad events").clone();
        let existing = self.find(key, &on.name);
        let extras = self.extras(existing, on);
        let session = &self.sessions[&key];
        let refusal = if service.requires_auth && session.auth.is_none() {
            Some("Authentication required.")
        } else if existing.is_some() {
            Some("Already subscribed.")
        } else if session.subs.len() >= self.rules.limits.subscriptions {
            Some("Too many subscriptions.")
        } else if self.is_turned_away(key, &service, on, &extras) {
            Some("Service unavailable.")
        } else {
            None
        };
        if let Some(error) = refusal {
            return self.refuse_event(key, "subscribe", on, extras, error);
        }
        let sub = self.new_sub(key, &on.name, service, extras.clone());
        let echo = Some(on.name.clone());
        let hand = Hand::new("subscribe", Stage::Authorizing);
        self.take_in_hand(key, Hand { echo, extras, sub: Some(sub), ..hand });
        self.call_for(key, Hook::Authorizer, None);
    }

    /// Whether a subscribe was refused because its service has no room for the callbacks that will
    /// tell of its end. That may be so where its queue is full; the answer tells whether it was.
    fn is_turned_away(
        &mut self,
        key: SessionKey,
        service: &Service,
        on: &On,
        extras: &Fields,
    ) -> bool {
        let tells = service.has(Hook::BeforeUnsubscribe) || service.has(Hook::OnUnsubscribe);
        let waiting = self.calls.values().filter(|call| call.lane() == service.name).count();
        let wished = self.step.wishes.iter().filter(|wish| wish.lane() == service.name).count();
        let conn = self.sessions[&key].conn;
        if !tells || waiting + wished < self.rules.http.queued {
            return false;
        }
        let error = json!("Service unavailable.");
        let answer = answer("subscribe", Some(&on.name), extras, Some(error), None);
        let seen = self.step.unavailable.entry(conn).or_default();
        let at = seen.iter().position(|seen| *seen == answer);
        at.map(|at| seen.remove(at)).is_some()
    }

    fn message(&mut self, key: SessionKey, on: &On, data: &Value) {
        let existing = self.find(key, &on.name);
        let extras = self.extras(existing, on);
        if existing.is_none() {
            let error = "Subscription does not exist.";
            return self.refuse_event(key, "message", on, extras, error);
        }
        let echo = Some(on.name.clone());
        let hand = Hand::new("message", Stage::OnMessage);
        self.take_in_hand(key, Hand { echo, extras, sub: existing, ..hand });
        self.call_for(key, Hook::OnMessage, Some(data));
    }

    fn unsubscribe(&mut self, key: SessionKey, on: &On) {
        let existing = self.find(key, &on.name);
        let extras = self.extras(existing, on);
        let echo = Some(on.name.clone());
        if existing.is_some() {
            let hand = Hand::new("unsubscribe", Stage::BeforeUnsubscribe);
            self.take_in_hand(key, Hand { echo, extras, sub: existing, ..hand });
            self.call_for(key, Hook::BeforeUnsubscribe, None);
        } else if let Some(extras) = self.adopt_expiring(key, &on.name) {
            let hand = Hand::new("unsubscribe", Stage::AwaitingExpiry);
            self.take_in_hand(key, Hand { echo, extras, ..hand });
        } else {
            let error = "Subscription does not exist.";
            self.refuse_event(key, "unsubscribe", on, extras, error);
        }
    }

    /// The extra fields for an event: those given when subscribing, else the request's.
    fn extras(&self, existing: Option<SubKey>, on: &On) -> Fields {
        if let Some(sub) = existing.and_then(|sub| self.subs.get(&sub)) {
            return sub.extras.clone();
        }
        let service = on.name.split_once('.').and_then(|(name, _)| self.rules.service(name));
        let names = service.map_or(&[][..], |service| service.extra_fields.as_slice());
        let given = |name: &String| Some((name.clone(), on.fields.get(name)?.clone()));
        names.iter().filter_map(given).collect()
    }

    fn take_in_hand(&mut self, key: SessionKey, hand: Hand) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.hand = Some(hand);
        }
    }

    /// Begins to leave the last confirmed subscription of a session that has gone; without any,
    /// the session is over. Says whether something was done.
    pub(super) fn leave_next(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(&key) else { return false };
        if session.subs.is_empty() {
            self.sessions.remove(&key);
            return true;
        }
        let subs = &self.subs;
        let is_confirmed = |sub: &SubKey| matches!(subs[sub].phase, Phase::Confirmed);
        let Some(sub) = session.subs.iter().copied().rfind(is_confirmed) else { return false };
        self.detach(sub);
        let hand = Hand::new("unsubscribe", Stage::FarewellBefore);
        self.take_in_hand(key, Hand { sub: Some(sub), ..hand });
        self.call_for(key, Hook::BeforeUnsubscribe, None);
        true
    }

    /// Makes a callback of the event in hand. Where there is none to make, that is a yes.
    fn call_for(&mut self, key: SessionKey, hook: Hook, data: Option<&Value>) {
        let sub = self.sessions[&key].hand.as_ref().and_then(|hand| hand.sub);
        let sub = sub.expect("the event in hand has a subscription");
        if self.subs[&sub].service.has(hook) {
            self.count_call(sub, hook);
            self.wish(hook, self.body(sub, data), Owner::Event(key));
        } else {
            self.run(key, &Outcome::Yes);
        }
    }

    /// What the event in hand waited for has come.
    pub(super) fn event_answered(&mut self, key: SessionKey, outcome: &Outcome) {
        self.run(key, outcome);
        self.advance(key);
    }

    fn run(&mut self, key: SessionKey, outcome: &Outcome) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(hand) = session.hand.as_mut() else { return };
        let (stage, sub) = (hand.stage, hand.sub);
        match stage {
            Stage::Validating => self.validated(key, outcome),
            Stage::Authorizing | Stage::Joining | Stage::BeforeSubscribe => {
                self.subscribe_goes_on(key, stage, outcome);
            }
            Stage::OnMessage => {
                if !outcome.is_yes() {
                    self.refuse_in_hand(key, "Unhandled exception.", outcome);
                } else if outcome.get("data").is_some() {
                    self.accept_in_hand(key, outcome.data());
                }
                self.put_down(key);
            }
            Stage::BeforeUnsubscribe => {
                let sub = sub.expect("it has a subscription");
                let has_expired = matches!(self.subs[&sub].phase, Phase::Expired);
                if !outcome.is_yes() && !has_expired {
                    self.refuse_in_hand(key, "Unhandled exception.", outcome);
                    return self.put_down(key);
                }
                self.detach(sub);
                self.accept_in_hand(key, outcome.data());
                self.go_on(key, Stage::OnUnsubscribe);
                self.call_for(key, Hook::OnUnsubscribe, None);
            }
            Stage::FarewellBefore => {
                self.go_on(key, Stage::FarewellOn);
                self.call_for(key, Hook::OnUnsubscribe, None);
            }
            Stage::OnUnsubscribe | Stage::FarewellOn => {
                self.tally.released += 1;
                self.drop_sub(sub.expect("it has a subscription"));
                self.put_down(key);
            }
            Stage::OnSubscribe => self.put_down(key),
            Stage::AwaitingExpiry => {
                let data = hand.data.take();
                self.accept_in_hand(key, data);
                self.put_down(key);
            }
        }
    }

    fn validated(&mut self, key: SessionKey, outcome: &Outcome) {
        if outcome.is_yes() {
            let names = &self.rules.auth_fields;
            let given = |name: &String| Some((name.clone(), outcome.get(name)?.clone()));
            let fields: Fields = names.iter().filter_map(given).collect();
            if fields.len() == names.len() {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.auth = Some(fields);
                }
                self.accept_in_hand(key, None);
            } else {
                let error = json!("Authentication failed.");
                self.answer_in_hand(key, Some(error), None);
            }
        } else {
            self.answer_in_hand(key, Some(outcome.error("Authentication failed.")), None);
        }
        self.put_down(key);
    }

    fn subscribe_goes_on(&mut self, key: SessionKey, stage: Stage, outcome: &Outcome) {
        let hand = self.sessions[&key].hand.as_ref();
        let sub = hand.and_then(|hand| hand.sub).expect("it has a subscription");
        if !outcome.is_yes() {
            let default = match stage {
                Stage::Authorizing => "Unauthorized.",
                _ => "Unhandled exception.",
            };
            self.refuse_in_hand(key, default, outcome);
            self.drop_sub(sub);
            return self.put_down(key);
        }
        match stage {
            Stage::Authorizing => {
                self.store_authorizer_fields(sub, outcome);
                self.go_on(key, Stage::Joining);
                if let Some(outcome) = self.join(sub) {
                    self.run(key, &outcome);
                }
            }
            Stage::Joining => {
                self.go_on(key, Stage::BeforeSubscribe);
                self.call_for(key, Hook::BeforeSubscribe, None);
            }
            _ => {
                self.accept_in_hand(key, outcome.data());
                self.confirm(sub, outcome);
                self.go_on(key, Stage::OnSubscribe);
                self.call_for(key, Hook::OnSubscribe, None);
            }
        }
    }

    fn go_on(&mut self, key: SessionKey, stage: Stage) {
        if let Some(hand) = self.sessions.get_mut(&key).and_then(|session| session.hand.as_mut()) {
            hand.stage = stage;
        }
    }

    fn put_down(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.hand = None;
        }
    }

    fn accept_in_hand(&mut self, key: SessionKey, data: Option<Value>) {
        self.answer_in_hand(key, None, data);
    }

    fn refuse_in_hand(&mut self, key: SessionKey, default: &str, outcome: &Outcome) {
        self.answer_in_hand(key, Some(outcome.error(default)), outcome.data());
    }

    fn answer_in_hand(&mut self, key: SessionKey, error: Option<Value>, data: Option<Value>) {
        let Some(hand) = self.sessions.get(&key).and_then(|session| session.hand.as_ref()) else {
            return;
        };
        let answer = answer(hand.event, hand.echo.as_deref(), &hand.extras, error, data);
        self.say_plain(key, answer);
    }

    fn refuse_event(
        &mut self,
        key: SessionKey,
        event: &'static str,
        on: &On,
        extras: Fields,
        error: &str,
    ) {
        let answer = answer(event, Some(&on.name), &extras, Some(json!(error)), None);
        self.say_plain(key, answer);
    }
}

/// An answer: `event`, `status`, `error`, extra fields, `data`, `subscription`.
fn answer(
    event: &str,
    echo: Option<&str>,
    extras: &Fields,
    error: Option<Value>,
    data: Option<Value>,
) -> Value {
    let mut answer = json!({"event": event});
    answer["status"] = json!(if error.is_some() { "error" } else { "ok" });
    if let Some(error) = error {
        answer["error"] = error;
    }
    for (name, value) in extras {
        answer[name] = value.clone();
    }
    if let Some(data) = data {
        answer["data"] = data;
    }
    if let Some(echo) = echo {
        answer["subscription"] = json!(echo);
    }
    answer
}
