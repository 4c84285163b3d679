//! What the program must do, by its specification: the model hears what the program hears, works
//! out what has to follow, and compares it with what did, after every single input.
//!
//! It knows nothing of how the program does it. Of the program's inside it sees only which
//! callbacks are under way (`Engine::callbacks`); when one has ended, and with what, follows from
//! what the service had sent by then.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;
use socketshark::arena::ConnId;
use socketshark::conn::calls::CallId;
use socketshark::message::Hook;
use socketshark::ports::Output;
use socketshark::time::Instant;

use crate::marks::{Heard, Mark, without_digits};
use crate::swarm::Rules;
use crate::wire::frames::Said;

mod check;
mod clients;
mod delivery;
mod events;
mod gate;
mod links;
mod outcome;
mod pings;
mod subscriptions;
mod watch;

use clients::Conn;
pub use clients::Session;
use links::Links;
pub use outcome::Outcome;
use subscriptions::Sub;

pub type SessionKey = usize;
pub type SubKey = usize;

/// What the program was given.
pub enum Cause<'a> {
    /// Bytes of a connection, and what was complete in them.
    Received(ConnId, &'a [Mark]),
    Ended(ConnId),
    Lost(ConnId),
    Accepted(Option<ConnId>, u8),
    Listening,
    Tick,
    Stop,
    /// Something that nothing visible must follow from: a write, a dial.
    Other,
}

/// What was seen of the program afterwards.
#[derive(Default)]
pub struct Seen {
    pub outputs: Vec<Output>,
    /// What it has queued for clients.
    pub said: BTreeMap<ConnId, Vec<Said>>,
    /// Clients that had lost what waited for them, before the last words.
    pub dropped: BTreeSet<ConnId>,
    /// Bytes that wait for a client.
    pub waiting: BTreeMap<ConnId, usize>,
    /// Commands that it has queued for Redis.
    pub commands: Vec<(ConnId, Vec<String>)>,
    /// Callbacks that have begun: hook and body.
    pub begun: Vec<(CallId, Hook, Value)>,
    /// Callbacks that are under way no more, with the service's answer if it was complete just
    /// now.
    pub ended: Vec<(CallId, Option<Value>)>,
    /// A callback's answer was complete just now.
    pub answered: Option<CallId>,
}

/// A callback under way.
pub struct Call {
    pub hook: Hook,
    pub body: Value,
    owner: Owner,
    pub begun: Instant,
}

/// Who waits for a callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Event(SessionKey),
    Renewal(SubKey),
    Expiry(SubKey),
    Heartbeat(SubKey),
}

/// A callback that must begin in this step.
struct Wish {
    hook: Hook,
    body: Value,
    owner: Owner,
}

/// A text frame that must be sent in this step.
struct Expected {
    value: Value,
    /// What the text must contain as it stands.
    raw: Option<String>,
    stamps: Stamps,
}

/// The metadata that a message has, where it is configured.
#[derive(Clone, PartialEq, Eq)]
enum Stamps {
    /// It is no message.
    None,
    /// Delivered as it came; whether it was held before; the time it says it was published at.
    Sent {
        held: bool,
        published_at: Option<String>,
    },
    Throttled,
}

/// What must be seen in the present step.
#[derive(Default)]
struct Step {
    /// Bytes that waited in subscriptions when the step began: some may go out in it, one by one,
    /// and those behind count until they do.
    held: BTreeMap<SessionKey, usize>,
    texts: BTreeMap<ConnId, Vec<Expected>>,
    pongs: BTreeMap<ConnId, Vec<Vec<u8>>>,
    pings: BTreeSet<ConnId>,
    /// The close frames of sessions that have gone; none: it went without any.
    closes: BTreeMap<ConnId, Option<Option<u16>>>,
    heads: BTreeMap<ConnId, u16>,
    wishes: Vec<Wish>,
    /// Channels that the program has subscribed.
    subscribed: BTreeSet<String>,
    /// Answers that say that a service is unavailable.
    unavailable: BTreeMap<ConnId, Vec<Value>>,
    /// Connections that cannot go on.
    spoilt: BTreeSet<ConnId>,
    is_tick: bool,
}

/// Where the service stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serving {
    Starting,
    Yes,
    /// A Redis is lost.
    No,
    Stopping,
}

pub struct Model {
    rules: Rc<Rules>,
    now: Instant,
    last_tick: Instant,
    conns: BTreeMap<ConnId, Conn>,
    pub sessions: BTreeMap<SessionKey, Session>,
    pub subs: BTreeMap<SubKey, Sub>,
    links: Links,
    pub calls: BTreeMap<CallId, Call>,
    pub serving: Serving,
    step: Step,
    keys: usize,
    /// Messages cannot be counted exactly any more.
    is_blurred: bool,
    pub tally: Tally,
}

/// What was checked, to see that something was.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub steps: usize,
    pub sessions: usize,
    pub confirmed: usize,
    /// Pairs of unsubscribe callbacks completed for confirmed subscriptions.
    pub released: usize,
    pub delivered: usize,
    pub filtered: usize,
    pub answers: usize,
    pub calls: usize,
    pub unavailable: usize,
    pub expired: usize,
    pub losses: usize,
    pub slow: usize,
}

impl Model {
    pub fn new(rules: Rc<Rules>) -> Model {
        Model {
            now: Instant::ZERO,
            last_tick: Instant::ZERO,
            conns: BTreeMap::new(),
            sessions: BTreeMap::new(),
            subs: BTreeMap::new(),
            links: Links::new(&rules),
            calls: BTreeMap::new(),
            serving: Serving::Starting,
            step: Step::default(),
            keys: 0,
            is_blurred: false,
            tally: Tally::default(),
            rules,
        }
    }

    /// Takes in what the program was given and compares what followed.
    ///
    /// # Panics
    /// Where the program has done something else than it must.
    pub fn step(&mut self, now: Instant, cause: &Cause<'_>, seen: &Seen) {
        self.now = now;
        self.tally.steps += 1;
        let is_tick = matches!(cause, Cause::Tick);
        let (held, subscribed) = (self.all_held_bytes(), self.links.subscribed(seen));
        self.step = Step { held, subscribed, is_tick, ..Step::default() };
        self.step.unavailable = unavailable(seen);
        self.hear(cause, seen);
        self.links_lost(seen);
        for (id, answer) in &seen.ended {
            self.call_ended(*id, answer.clone());
        }
        self.settle(seen);
        self.closed_as_slow(seen, true);
        self.settle(seen);
        self.links.take_commands(self.now, seen);
        self.check(seen);
        self.forget_conns(seen);
    }

    fn hear(&mut self, cause: &Cause<'_>, seen: &Seen) {
        match *cause {
            Cause::Received(conn, marks) => {
                for mark in marks {
                    match mark {
                        Mark::Client(heard) => self.heard(conn, heard),
                        Mark::Answered(ok) => self.answered_by_redis(conn, *ok),
                        Mark::Message(channel, publication) => {
                            if self.links.is_ready(conn) {
                                self.publish(channel, publication);
                            }
                        }
                        Mark::Garbage => {
                            // What follows it does not count.
                            self.link_must_be_lost(conn, seen);
                            break;
                        }
                        Mark::Reply(_) => {}
                    }
                }
                if let Some(key) = self.session_of(conn) {
                    self.find_fault(key, seen);
                }
            }
            Cause::Ended(conn) => {
                self.heard(conn, &Heard::Fin);
                self.link_must_be_lost(conn, seen);
            }
            Cause::Lost(conn) => {
                self.client_lost(conn);
                self.link_must_be_lost(conn, seen);
            }
            Cause::Accepted(conn, address) => self.accepted(conn, address, seen),
            Cause::Listening => self.serving = Serving::Yes,
            Cause::Tick => {
                self.handshakes_due(seen);
                self.watches_due(seen);
                self.throttles_due();
                self.pings_due();
            }
            Cause::Stop => self.stop(),
            Cause::Other => {}
        }
    }

    /// Lets sessions whose reading was paused go on, and calls that found no room fail, until
    /// nothing more follows.
    fn settle(&mut self, seen: &Seen) {
        loop {
            let refused = self.match_wishes(seen);
            // Who is too slow already is not read any more.
            self.closed_as_slow(seen, false);
            let resumed = self.resume(seen);
            if !refused && !resumed {
                break;
            }
        }
    }

    fn new_key(&mut self) -> usize {
        self.keys += 1;
        self.keys
    }

    /// A callback has to begin.
    fn wish(&mut self, hook: Hook, body: Value, owner: Owner) {
        self.step.wishes.push(Wish { hook, body, owner });
    }

    fn call_ended(&mut self, id: CallId, answer: Option<Value>) {
        let call = self.calls.remove(&id).expect("what has ended had begun");
        let outcome = answer.map_or(Outcome::Unavailable, Outcome::Object);
        self.tally.unavailable += usize::from(matches!(outcome, Outcome::Unavailable));
        self.finished(call.owner, &outcome);
    }

    fn finished(&mut self, owner: Owner, outcome: &Outcome) {
        match owner {
            Owner::Event(session) => self.event_answered(session, outcome),
            Owner::Renewal(sub) => self.renewal_answered(sub, outcome),
            Owner::Expiry(sub) => self.expiry_answered(sub, outcome),
            Owner::Heartbeat(sub) => self.heartbeat_answered(sub),
        }
    }

    /// Sends a session something, while it is connected.
    fn say(&mut self, key: SessionKey, expected: Expected) {
        if let Some(session) = self.sessions.get(&key).filter(|session| session.open) {
            self.step.texts.entry(session.conn).or_default().push(expected);
        }
    }

    /// Whether everything has come to its end.
    pub fn is_at_rest(&self) -> bool {
        self.sessions.is_empty() && self.subs.is_empty() && self.calls.is_empty()
    }
}

impl Model {
    /// Whether no event is in hand and none waits.
    pub fn is_calm(&self) -> bool {
        self.serving == Serving::Yes
            && self.sessions.values().all(|session| session.open && session.is_idle())
    }

    /// How much is under way or waits to be dealt with.
    pub fn pending(&self) -> usize {
        let events: usize = self.sessions.values().map(Session::pending).sum();
        events + self.subs.len() + self.calls.len()
    }

    /// When the program has to do something next, by the model's own reckoning.
    pub fn next_deadline(&self) -> Option<Instant> {
        let throttles = self.subs.values().filter_map(|sub| sub.gate.due());
        let pings = self.sessions.values().filter(|session| session.open);
        let pings = pings.filter_map(|session| session.pings.deadline());
        let all = throttles.chain(pings).chain(self.conns_due()).chain(self.links.due());
        all.chain(self.renewals_due()).filter(|at| *at > self.now).min()
    }

    /// Whether somebody waits for Redis to confirm a channel.
    pub fn is_joining(&self) -> bool {
        self.subs.values().any(Sub::is_joining)
    }
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        let Tally { steps, sessions, confirmed, released, delivered, filtered, .. } = *other;
        self.steps += steps;
        self.sessions += sessions;
        self.confirmed += confirmed;
        self.released += released;
        self.delivered += delivered;
        self.filtered += filtered;
        self.answers += other.answers;
        self.calls += other.calls;
        self.unavailable += other.unavailable;
        self.expired += other.expired;
        self.losses += other.losses;
        self.slow += other.slow;
    }
}

/// What clients were told of services that are unavailable.
fn unavailable(seen: &Seen) -> BTreeMap<ConnId, Vec<Value>> {
    let text = |said: &Said| match said {
        Said::Text(text) => serde_json::from_str::<Value>(&without_digits(text)).ok(),
        _ => None,
    };
    let of = |said: &Vec<Said>| {
        let all = said.iter().filter_map(text);
        all.filter(|value| value["error"] == "Service unavailable.").collect()
    };
    seen.said.iter().map(|(conn, said)| (*conn, of(said))).collect()
}
