//! What goes on by the clock: periodic authorization, expiry, heartbeats (section 4).

use std::time::Duration;

use serde_json::{Value, json};
use socketshark::message::Hook;
use socketshark::time::Instant;

use super::events::Stage;
use super::subscriptions::{Expiry, Phase, Reads, Sub};
use super::{Expected, Model, Outcome, Owner, Seen, SessionKey, Stamps, SubKey};
use crate::marks::{Fields, same};

/// The periodic authorization of a subscription.
#[derive(Default)]
pub(super) struct Renewal {
    state: State,
    /// Since when no answer has come.
    failing_since: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Off,
    /// The next call comes within these times.
    Within(Instant, Instant),
    Authorizing,
    Changing,
}

/// The heartbeat of a subscription.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// The next one comes within these times.
    within: Option<(Instant, Instant)>,
    under_way: bool,
    /// When the last one was last seen under way: one that is due then is skipped.
    busy_until: Option<Instant>,
}

impl Sub {
    fn is_watched(&self) -> bool {
        matches!(self.phase, Phase::Confirmed) && self.reads == Reads::Yes
    }
}

impl Model {
    pub(super) fn plan_watch(&mut self, key: SubKey) {
        let now = self.now;
        let Some(sub) = self.subs.get_mut(&key).filter(|sub| sub.is_watched()) else { return };
        if let (Some((period, jitter, _)), State::Off) = (sub.service.renewal, sub.renewal.state) {
            let earliest = now.after(period.saturating_sub(jitter));
            sub.renewal.state = State::Within(earliest, now.after(period));
        }
        if let (Some(period), None) = (sub.service.heartbeat, sub.heartbeat.within) {
            sub.heartbeat.within = Some((now, now.after(period)));
        }
    }

    /// Renewals and heartbeats begin at random moments, but within their times.
    pub(super) fn watches_due(&mut self, seen: &Seen) {
        let keys: Vec<SubKey> =
            self.subs.iter().filter(|(_, sub)| sub.is_watched()).map(|(key, _)| *key).collect();
        for key in keys {
            self.renewal_due(key, seen);
            self.heartbeat_due(key, seen);
        }
        self.last_tick = self.now;
    }

    /// Whether its session has been silent for too long just now. What was due in the same moment
    /// has come before that or not.
    fn ends_now(&self, key: SubKey) -> bool {
        let session = self.sessions.get(&self.subs[&key].session);
        session.is_some_and(|session| session.pings.due(self.now) == Some(false))
    }

    fn has_begun(&self, seen: &Seen, hook: Hook, body: &Value) -> bool {
        let is_it = |(_, begun, what): &(_, Hook, Value)| *begun == hook && what == body;
        seen.begun.iter().any(is_it)
    }

    /// When a renewal must have begun at the latest.
    pub(super) fn renewals_due(&self) -> impl Iterator<Item = Instant> {
        let watched = self.subs.values().filter(|sub| sub.is_watched());
        watched.filter_map(|sub| match sub.renewal.state {
            State::Within(_, until) => Some(until),
            _ => None,
        })
    }

    fn renewal_due(&mut self, key: SubKey, seen: &Seen) {
        let State::Within(from, until) = self.subs[&key].renewal.state else { return };
        let body = self.body(key, None);
        let has_begun = self.has_begun(seen, Hook::Authorizer, &body);
        assert!(!has_begun || from <= self.now, "a renewal comes before its time");
        if has_begun || (until <= self.now && !self.ends_now(key)) {
            self.subs.get_mut(&key).expect("listed").renewal.state = State::Authorizing;
            self.wish(Hook::Authorizer, body, Owner::Renewal(key));
        }
    }

    fn heartbeat_due(&mut self, key: SubKey, seen: &Seen) {
        let sub = &self.subs[&key];
        let (Some(period), Some((from, until))) = (sub.service.heartbeat, sub.heartbeat.within)
        else {
            return;
        };
        let (now, last_tick) = (self.now, self.last_tick);
        let body = self.body(key, None);
        let has_begun = self.has_begun(seen, Hook::OnHeartbeat, &body);
        let (ends_now, jams) = (self.ends_now(key), self.rules.jams());
        // One that finds no room leaves no trace.
        let may_be_skipped = |heartbeat: &Heartbeat, from| {
            jams || heartbeat.under_way || heartbeat.busy_until.is_some_and(|busy| busy >= from)
        };
        let heartbeat = &mut self.subs.get_mut(&key).expect("listed").heartbeat;
        let mut within = (from, until);
        if has_begun {
            assert!(!heartbeat.under_way, "one heartbeat at a time");
            assert!(from <= now, "a heartbeat comes before its time");
        }
        let must = until <= now && !ends_now && !may_be_skipped(heartbeat, from);
        if has_begun || must {
            // It may be the one after one that was skipped.
            let latest = if may_be_skipped(heartbeat, from) { now } else { until.min(now) };
            within = after_beat((from.max(last_tick), latest), period, now);
            heartbeat.under_way = true;
        }
        while within.1 <= now && may_be_skipped(heartbeat, within.0) {
            within = after_beat(within, period, now);
        }
        heartbeat.within = Some(within);
        if has_begun || must {
            self.wish(Hook::OnHeartbeat, body, Owner::Heartbeat(key));
        }
    }

    pub(super) fn heartbeat_answered(&mut self, key: SubKey) {
        if let Some(sub) = self.subs.get_mut(&key) {
            sub.heartbeat.under_way = false;
            sub.heartbeat.busy_until = Some(self.now);
        }
    }

    pub(super) fn renewal_answered(&mut self, key: SubKey, outcome: &Outcome) {
        let Some(sub) = self.subs.get(&key).filter(|sub| sub.is_watched()) else { return };
        let (state, service) = (sub.renewal.state, sub.service.clone());
        match state {
            State::Authorizing if outcome.is_yes() => {
                let changed = self.store_authorizer_fields(key, outcome);
                if changed && service.has(Hook::OnAuthorizationChange) {
                    self.subs.get_mut(&key).expect("looked at").renewal.state = State::Changing;
                    let body = self.body(key, None);
                    return self.wish(Hook::OnAuthorizationChange, body, Owner::Renewal(key));
                }
                self.renewed(key);
            }
            State::Authorizing => {
                let is_silent = matches!(outcome, Outcome::Unavailable);
                if !(is_silent && self.has_grace(key)) {
                    self.expire(key, outcome.error("Unauthorized."));
                }
            }
            State::Changing if outcome.is_yes() => self.renewed(key),
            State::Changing => self.expire(key, outcome.error("Unhandled exception.")),
            State::Off | State::Within(..) => panic!("no renewal is under way"),
        }
    }

    fn renewed(&mut self, key: SubKey) {
        let sub = self.subs.get_mut(&key).expect("looked at");
        sub.renewal = Renewal::default();
        self.plan_watch(key);
    }

    /// Whether a subscription may go on without an answer for now.
    fn has_grace(&mut self, key: SubKey) -> bool {
        let now = self.now;
        let sub = self.subs.get_mut(&key).expect("looked at");
        let (period, _, grace) = sub.service.renewal.expect("renewals are configured");
        let ends = sub.renewal.failing_since.get_or_insert(now).after(grace);
        if ends <= now {
            return false;
        }
        sub.renewal.state = State::Within(now, now.after(period).min(ends));
        true
    }

    /// Takes over what the authorizer gave. Says whether that is something else than before.
    pub(super) fn store_authorizer_fields(&mut self, key: SubKey, outcome: &Outcome) -> bool {
        let sub = self.subs.get_mut(&key).expect("it is being authorized");
        let given = |name: &String| Some((name.clone(), outcome.get(name)?.clone()));
        let fields: Fields = sub.service.authorizer_fields.iter().filter_map(given).collect();
        let before = std::mem::replace(&mut sub.authorizer, fields);
        let fields = &sub.authorizer;
        let is_kept =
            |(name, value): (&String, &Value)| fields.get(name).is_some_and(|now| same(now, value));
        before.len() != fields.len() || !before.iter().all(is_kept)
    }

    // ----------------------------------------------------------------- expiry

    /// The authorization has ended: no more messages from here on.
    fn expire(&mut self, key: SubKey, error: Value) {
        self.tally.expired += 1;
        self.leave(key);
        let sub = self.subs.get_mut(&key).expect("looked at");
        let session = self.sessions.get_mut(&sub.session).expect("sessions outlive");
        let is_being_left = session
            .hand
            .as_ref()
            .is_some_and(|hand| hand.stage == Stage::BeforeUnsubscribe && hand.sub == Some(key));
        if is_being_left {
            sub.phase = Phase::Expired;
            return session.subs.retain(|other| *other != key);
        }
        let expiry = Expiry { error, data: None, asked_before: false, adopted: false };
        sub.phase = Phase::Expiring(expiry);
        if sub.service.has(Hook::BeforeUnsubscribe) {
            self.call_of_expiry(key, Hook::BeforeUnsubscribe);
        } else {
            self.expiry_answered(key, &Outcome::Yes);
        }
    }

    fn call_of_expiry(&mut self, key: SubKey, hook: Hook) {
        self.count_call(key, hook);
        let body = self.body(key, None);
        self.wish(hook, body, Owner::Expiry(key));
    }

    pub(super) fn expiry_answered(&mut self, key: SubKey, outcome: &Outcome) {
        let sub = self.subs.get_mut(&key).expect("it is being ended");
        let Phase::Expiring(expiry) = &mut sub.phase else { panic!("it is expiring") };
        if !expiry.asked_before {
            expiry.asked_before = true;
            expiry.data = outcome.get("data").filter(|data| !data.is_null()).cloned();
            if sub.service.has(Hook::OnUnsubscribe) {
                return self.call_of_expiry(key, Hook::OnUnsubscribe);
            }
        }
        self.expired(key);
    }

    /// Both callbacks are made.
    fn expired(&mut self, key: SubKey) {
        let sub = self.subs.get_mut(&key).expect("it is being ended");
        let session = sub.session;
        let phase = std::mem::replace(&mut sub.phase, Phase::Leaving);
        let Phase::Expiring(expiry) = phase else { panic!("it is expiring") };
        self.tally.released += 1;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.subs.retain(|other| *other != key);
            if let (true, Some(hand)) = (expiry.adopted, &mut session.hand) {
                hand.data.clone_from(&expiry.data);
            }
        }
        if expiry.adopted {
            self.event_answered(session, &Outcome::Yes);
        } else {
            let sub = &self.subs[&key];
            let mut value =
                json!({"event": "unsubscribe", "subscription": sub.name, "error": expiry.error});
            if let Some(data) = expiry.data {
                value["data"] = data;
            }
            for (name, field) in &sub.extras {
                value[name] = field.clone();
            }
            self.say(session, Expected { value, raw: None, stamps: Stamps::None });
        }
        self.drop_sub(key);
        self.advance(session);
    }

    /// Lets a client's unsubscribe wait for an end that is under way. Gives the extra fields of
    /// the subscription.
    pub(super) fn adopt_expiring(&mut self, session: SessionKey, name: &str) -> Option<Fields> {
        let session = self.sessions.get(&session)?;
        let subs = &self.subs;
        let is_it =
            |key: &SubKey| subs[key].name == name && matches!(subs[key].phase, Phase::Expiring(_));
        let key = session.subs.iter().copied().find(is_it)?;
        let sub = self.subs.get_mut(&key)?;
        if let Phase::Expiring(expiry) = &mut sub.phase {
            expiry.adopted = true;
        }
        Some(sub.extras.clone())
    }
}

/// When the next heartbeat comes, after one that was due within these times was dealt with now.
/// One that comes very late does not draw others after it: they are counted from it.
fn after_beat(within: (Instant, Instant), period: Duration, now: Instant) -> (Instant, Instant) {
    let (from, until) = (within.0.after(period), within.1.after(period));
    (from, if from <= now { until.max(now.after(period)) } else { until })
}
