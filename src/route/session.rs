//! A WebSocket session as the router sees it: what it is doing, what waits, what it has.

use std::collections::VecDeque;
use std::rc::Rc;

use super::fields::{Extras, Fields};
use super::seats::Seat;
use super::steps::Step;
use super::topics::TopicId;
use crate::arena::{ConnId, SessionId, SubscriptionId};
use crate::metrics::EventLabel;
use crate::outbox::Frame;
use crate::time::Instant;

/// One session. It outlives its connection until all its subscriptions are left.
pub struct Session {
    /// `None`: the connection has gone.
    pub conn: Option<ConnId>,
    pub step: Step,
    /// The event in hand, where it has an answer to be given.
    pub current: Option<Box<Current>>,
    /// `None`: not authenticated.
    pub auth: Option<Rc<Fields>>,
    /// In the order of subscribing; those being ended by their authorization among them.
    pub subscriptions: Vec<SubscriptionId>,
    /// Bytes of the names and extra fields of all its subscriptions, in whatever phase.
    pub kept_bytes: usize,
    /// Events that wait for the one in hand; most sessions never have any.
    waiting: Option<Box<Waiting>>,
    /// The connection is not read until less waits.
    pub paused: bool,
    /// It has sent text that is no JSON, and the log has said so.
    pub was_warned_of: bool,
}

/// Texts of events in the order of their coming: at least one.
#[derive(Default)]
struct Waiting {
    texts: VecDeque<Box<str>>,
    bytes: usize,
}

impl Session {
    pub fn new(conn: ConnId) -> Session {
        Session {
            conn: Some(conn),
            step: Step::Idle,
            current: None,
            auth: None,
            subscriptions: Vec::new(),
            kept_bytes: 0,
            waiting: None,
            paused: false,
            was_warned_of: false,
        }
    }

    pub fn is_busy(&self) -> bool {
        self.step != Step::Idle || self.waiting.is_some()
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.texts.len())
    }

    /// Bytes of the events that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub fn push_waiting(&mut self, text: Box<str>) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.bytes += text.len();
        waiting.texts.push_back(text);
    }

    pub fn pop_waiting(&mut self) -> Option<Box<str>> {
        let waiting = self.waiting.as_mut()?;
        let text = waiting.texts.pop_front()?;
        waiting.bytes -= text.len();
        if waiting.texts.is_empty() {
            self.waiting = None;
        }
        Some(text)
    }

    pub fn drop_waiting(&mut self) {
        self.waiting = None;
    }
}

/// The event that a session is handling.
pub struct Current {
    pub label: EventLabel,
    /// The subscription as the client sent it, raw; `None`: not to be echoed.
    pub echo: Option<Box<str>>,
    /// What its answers carry besides.
    pub extras: Option<Rc<Extras>>,
    pub subscription: Option<SubscriptionId>,
    /// What a `message` event carries, raw; or the ticket.
    pub data: Option<Box<str>>,
}

/// One subscription of one session, from the authorizer's call on.
pub struct Subscription {
    pub session: SessionId,
    /// The session's connection, so that a fan-out need not ask for it.
    pub conn: Option<ConnId>,
    pub topic: TopicId,
    pub phase: Phase,
    /// Its place among the topic's readers, while it is one.
    pub seat: Option<Seat>,
    pub extras: Option<Rc<Extras>>,
    pub gate: Option<Box<super::gate::Gate>>,
    /// Authorizer fields, renewal, heartbeat: where the service has them.
    pub watch: Option<Box<Watch>>,
}

impl Subscription {
    /// Whether messages are sent to it.
    pub fn is_confirmed(&self) -> bool {
        matches!(self.phase, Phase::Confirmed)
    }

    /// Bytes of the messages that wait for its confirmation or for the end of a throttle.
    pub fn parked_bytes(&self) -> usize {
        let held = match &self.phase {
            Phase::Provisional(held) => held.bytes(),
            _ => 0,
        };
        held + self.gate.as_ref().map_or(0, |gate| gate.waiting_bytes())
    }

    /// Whether messages are held for it.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Provisional(_))
    }
}

/// How far a subscription has come.
#[derive(Debug)]
pub enum Phase {
    /// Authorizing, or waiting for Redis.
    Pending,
    /// `before_subscribe` is under way, or what came meanwhile is being sent; messages wait.
    Provisional(Box<Held>),
    Confirmed,
    /// Its authorization has expired; its two last callbacks are under way.
    Expiring(Box<Expiry>),
    /// Its authorization has expired while the client's own `unsubscribe` was under way, which
    /// goes on as if it had been a yes.
    Expired,
    /// Out of its session, while its last callback is under way.
    Leaving,
}

/// Messages that came during `before_subscribe`, or before those had all been sent.
#[derive(Default, Debug)]
pub struct Held {
    messages: VecDeque<HeldMessage>,
    bytes: usize,
}

/// One of them: what waits is shared by all who wait with it.
#[derive(Debug)]
pub enum HeldMessage {
    /// No filter has anything to say about it, nor about those behind it: they go out like this.
    Frame { piece: Frame, messages: usize },
    /// The publication, to go past the filters as they are then.
    Text(Rc<str>),
}

impl HeldMessage {
    pub fn len(&self) -> usize {
        match self {
            HeldMessage::Frame { piece, .. } => piece.len(),
            HeldMessage::Text(text) => text.len(),
        }
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, message: HeldMessage) {
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    pub fn pop(&mut self) -> Option<HeldMessage> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

/// The end of a subscription by its authorization.
#[derive(Debug)]
pub struct Expiry {
    /// What the client is told, raw.
    pub error: Box<str>,
    /// The `data` of `before_unsubscribe`, raw.
    pub data: Option<Box<str>>,
    /// Waiting for `on_unsubscribe`; before that for `before_unsubscribe`.
    pub called_before: bool,
    /// The client has asked to unsubscribe meanwhile and waits for that answer instead.
    pub adopted: bool,
}

/// The periodic side of a subscription.
#[derive(Default, Debug)]
pub struct Watch {
    pub authorizer_fields: Fields,
    pub renewal: Renewal,
    /// Since when authorization could not be renewed for want of an answer.
    pub failing_since: Option<Instant>,
    /// The next heartbeat; `None`: none is planned.
    pub heartbeat_at: Option<Instant>,
    pub heartbeat_under_way: bool,
}

/// The periodic authorization of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Renewal {
    /// The service has none.
    #[default]
    Off,
    /// The next call is at this moment.
    At(Instant),
    /// The authorizer is being called.
    Authorizing,
    /// `on_authorization_change` is being called.
    Changing,
}
