//! Who gets what; knows no wire format.
//!
//! `steps` is the order in which callbacks are made; `commands` checks what clients ask for, `acts`
//! does what the steps say; `fanout` takes
//! messages from Redis to sessions past the filters of `gate`; `watch` is what goes on by the
//! clock: renewals, expiries, heartbeats.

use std::collections::{BTreeMap, VecDeque};

use crate::arena::{Arena, ConnId, SessionId, SessionTag, SubscriptionId, SubscriptionTag};
use crate::config::Config;
use crate::conn::calls::Calls;
use crate::log::Log;
use crate::message::{Answer, Call, Owner};
use crate::metrics::Metrics;
use crate::outbox::Mail;
use crate::random::Random;
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};

mod acts;
mod commands;
mod event;
mod fanout;
mod fields;
mod frames;
mod gate;
mod index;
mod inline;
mod lru;
mod publication;
mod readers;
mod reply;
mod seats;
mod session;
mod steps;
#[cfg(test)]
mod tests;
mod topics;
mod watch;

use fields::ExtrasPool;
use reply::Reply;
use seats::Reader;
use session::{Session, Subscription};
use steps::Step;
use topics::Topics;

pub use topics::ChannelChange;

/// What comes from outside, for its fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) use {
    event::{ClientEvent, OnSubscription, pong_data, split_name},
    lru::Key,
    publication::{Publication, Unusable},
};

/// What the router asks of others; whoever lends the desk sees to it afterwards.
#[derive(Default)]
pub struct Asks {
    pub calls: VecDeque<Call>,
    pub channels: VecDeque<ChannelChange>,
    /// Clients that read too slowly: to be closed.
    pub too_slow: Vec<ConnId>,
    /// Clients whose events are taken again.
    pub resume: Vec<ConnId>,
}

/// All that the router may touch outside itself, lent per call.
pub struct Desk<'a> {
    pub now: Now,
    pub config: &'a Config,
    pub mail: &'a mut Mail,
    pub timers: &'a mut Timers,
    pub random: &'a mut Random,
    pub log: &'a mut Log,
    pub metrics: &'a mut Metrics,
    /// Only to be looked at: calls are asked for.
    pub calls: &'a Calls,
    pub asks: &'a mut Asks,
}

/// Sessions, their subscriptions, and the channels these read.
#[derive(Default)]
pub struct Router {
    sessions: Arena<SessionTag, Session>,
    subscriptions: Arena<SubscriptionTag, Subscription>,
    topics: Topics,
    extras: ExtrasPool,
    /// Bytes of the events that wait in sessions whose clients have gone.
    orphaned_bytes: usize,
    /// Sessions that have more held messages than a turn may take.
    sending_held: VecDeque<(SessionId, SubscriptionId)>,
    /// What held messages have cost in this turn, in deliveries.
    held_cost: usize,
}

impl Router {
    /// A client's handshake is complete.
    pub fn open(&mut self, conn: ConnId) -> SessionId {
        self.sessions.insert(Session::new(conn))
    }

    /// A callback has been answered, or never will be.
    pub fn answered(&mut self, owner: Owner, answer: &Answer, desk: &mut Desk<'_>) {
        let reply = Reply::of(answer);
        match owner {
            Owner::Event(session) => self.event_answered(session, &reply, desk),
            Owner::Renewal(subscription) => self.renewal_answered(subscription, &reply, desk),
            Owner::Expiry(subscription) => self.expiry_answered(subscription, &reply, desk),
            Owner::Heartbeat(subscription) => self.heartbeat_answered(subscription, &reply, desk),
        }
    }

    /// Every Redis has confirmed the channel.
    pub fn joined(&mut self, channel: &str, desk: &mut Desk<'_>) {
        let seated = self.topics.joined(channel);
        // All sit down before the first goes on: it may leave at once, and then seats move.
        for &(id, seat) in &seated {
            self.sit_down(id, seat);
        }
        for &(id, _) in &seated {
            self.give_up_seat_if_gone(id, desk);
        }
        for (id, _) in seated {
            if let Some(subscription) = self.subscriptions.get(id) {
                self.event_answered(subscription.session, Reply::YES, desk);
            }
        }
    }

    /// A Redis has refused the channel.
    pub fn join_refused(&mut self, channel: &str, desk: &mut Desk<'_>) {
        let waited = self.topics.refused(channel);
        self.fail_joins(&waited, desk);
    }

    /// A Redis was lost: no confirmation comes any more. The sessions depart on their own.
    pub fn redis_lost(&mut self, desk: &mut Desk<'_>) {
        let waited = self.topics.lost(&mut desk.asks.channels);
        self.fail_joins(&waited, desk);
    }

    fn fail_joins(&mut self, waited: &[SubscriptionId], desk: &mut Desk<'_>) {
        for &id in waited {
            let Some(subscription) = self.subscriptions.get(id) else { continue };
            let session = subscription.session;
            self.event_answered(session, Reply::UNAVAILABLE, desk);
        }
    }

    /// A moment that the router had set has come.
    pub fn due(&mut self, at: Instant, timer: Timer, desk: &mut Desk<'_>) {
        match timer {
            Timer::Renewal(id) => self.renewal_due(id, desk),
            Timer::Heartbeat(id) => self.heartbeat_due(id, desk),
            Timer::Throttle(id) => self.throttle_due(at, id, desk),
            Timer::Connection(_) | Timer::Start | Timer::Shutdown => {}
        }
    }

    /// A turn of the loop begins: those go on who have more messages held than one may take.
    pub fn turn(&mut self, desk: &mut Desk<'_>) {
        self.held_cost = 0;
        while let Some(&(session, id)) = self.sending_held.front() {
            if !self.send_held(id, desk) {
                break;
            }
            self.sending_held.pop_front();
            self.event_answered(session, Reply::YES, desk);
        }
    }

    /// Whether the next turn has something to do whatever comes.
    pub fn has_work(&self) -> bool {
        !self.sending_held.is_empty()
    }

    /// Takes over services as a new configuration has them.
    pub fn reconfigure(&mut self, desk: &mut Desk<'_>) {
        self.topics.reconfigure(desk.config);
        for id in self.subscriptions.ids() {
            self.plan_watch(id, desk);
        }
    }

    /// Whether a subscription is there still.
    pub fn knows(&self, id: SubscriptionId) -> bool {
        self.subscriptions.contains(id)
    }

    /// Sessions whose farewell is not complete, connected ones among them.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Checks that what is parked for each connection is counted there; for tests and simulations.
    pub fn audit_parked(&self, mail: &Mail) {
        let mut parked = BTreeMap::new();
        for (_, subscription) in self.subscriptions.iter() {
            *parked.entry(subscription.conn).or_insert(0) += subscription.parked_bytes();
        }
        for (_, session) in self.sessions.iter() {
            let Some(outbox) = session.conn.and_then(|conn| mail.outbox(conn)) else { continue };
            let expected = parked.get(&session.conn).copied().unwrap_or(0);
            assert_eq!(outbox.parked(), expected, "what is parked is counted");
        }
    }

    /// The channels that should be subscribed at Redis now.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.topics.wanted().map(|name| &**name)
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        self.topics.audit();
        let kept = |(_, subscription): (_, &Subscription)| {
            let name = &self.topics.get(subscription.topic).name;
            commands::kept_bytes(name, subscription.extras.as_deref())
        };
        let kept: usize = self.subscriptions.iter().map(kept).sum();
        let counted: usize = self.sessions.iter().map(|(_, session)| session.kept_bytes).sum();
        assert_eq!(counted, kept, "what subscriptions keep is counted");
        let orphans = self.sessions.iter().filter(|(_, session)| session.conn.is_none());
        let orphaned: usize = orphans.map(|(_, session)| session.waiting_bytes()).sum();
        assert_eq!(self.orphaned_bytes, orphaned, "what waits of those who have gone is counted");
        for (id, session) in self.sessions.iter() {
            for &subscription in &session.subscriptions {
                let found = self.subscriptions.get(subscription).expect("sessions list what is");
                assert_eq!(found.session, id, "a subscription belongs to its session");
            }
            let finished = session.conn.is_none() && session.step == Step::Idle;
            assert!(!finished || !session.subscriptions.is_empty(), "finished sessions are gone");
            assert!(session.step != Step::Idle || session.waiting() == 0, "idle handles");
            assert_eq!(session.current.is_some(), session.step != Step::Idle, "in hand");
        }
        for (id, subscription) in self.subscriptions.iter() {
            let session = self.sessions.get(subscription.session).expect("sessions outlive");
            assert_eq!(subscription.conn, session.conn, "both know whether it is connected");
            if let Some(gate) = &subscription.gate {
                gate.audit();
            }
            if let Some(seat) = subscription.seat {
                let topic = self.topics.get(subscription.topic);
                let is_plain = !subscription.is_held() && subscription.extras.is_none();
                let reader = Reader { id, direct: subscription.conn.filter(|_| is_plain) };
                let found = topic.seats.readers().get(seat.index());
                assert_eq!(found, Some(&reader), "seats are right");
            }
        }
        if self.sessions.is_empty() {
            assert!(self.subscriptions.is_empty() && self.topics.is_empty());
            assert!(self.extras.is_empty(), "nothing outlives its reason");
        }
    }
}

/// The session whose event is being handled.
fn session_of(sessions: &mut Arena<SessionTag, Session>, id: SessionId) -> &mut Session {
    sessions.get_mut(id).expect("its event is being handled")
}
