//! What clients ask for, from the check of an event to the beginning of its first step.

use std::rc::Rc;

use super::acts::count;
use super::event::{ClientEvent, OnSubscription, pong_data, split_name};
use super::fields::{Extras, Fields};
use super::reply::Reply;
use super::session::{Current, Phase, Session, Subscription};
use super::steps::{Event, Step};
use super::topics::TopicId;
use super::{Desk, Router, session_of};
use crate::arena::{ConnId, SessionId, SubscriptionId};
use crate::config::{Level, Service};
use crate::limits::{ORPHANED_BYTES_MAX, SUBSCRIPTION_BYTES};
use crate::message::{Hook, refusal};
use crate::metrics::EventLabel;
use crate::wire::json::{self, Object, ObjectWriter};

impl Router {
    /// A client sent a message. Says whether no more should be read from it for now.
    pub fn command(&mut self, id: SessionId, text: &str, desk: &mut Desk<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(id) else { return false };
        if !session.is_busy() {
            self.handle(id, text, desk);
        } else if !(desk.config.ws_pong_immediate && self.pong_at_once(id, text, desk)) {
            session_of(&mut self.sessions, id).push_waiting(text.into());
        }
        let Some(session) = self.sessions.get_mut(id) else { return false };
        session.paused = session.is_full(desk);
        session.paused
    }

    /// The client's connection has gone. Its subscriptions are left, one after the other.
    ///
    /// `handle_waiting`: events that were received before are still handled.
    pub fn departed(&mut self, id: SessionId, handle_waiting: bool, desk: &mut Desk<'_>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.conn = None;
        let is_too_much = self.orphaned_bytes + session.waiting_bytes() > ORPHANED_BYTES_MAX;
        if handle_waiting && is_too_much && session.waiting() > 0 {
            let line = desk.log.at(desk.now, Level::Warning, "events dropped").session(id);
            let line = line.number("events", session.waiting() as u64);
            drop(line.text("reason", "too much waits of clients that have gone"));
        }
        if !handle_waiting || is_too_much {
            session.drop_waiting();
        }
        self.orphaned_bytes += session.waiting_bytes();
        let current = session.current.as_ref().and_then(|current| current.subscription);
        let seated: Vec<_> = session.subscriptions.iter().copied().chain(current).collect();
        for id in seated {
            self.leave_topic(id, desk);
            if let Some(subscription) = self.subscriptions.get_mut(id) {
                subscription.conn = None;
            }
        }
        self.advance(id, desk);
    }

    pub(super) fn event_answered(&mut self, id: SessionId, reply: &Reply<'_>, desk: &mut Desk<'_>) {
        let Some(session) = self.sessions.get(id) else { return };
        let mut event = reply.event();
        if session.step == Step::BeforeUnsubscribe && self.has_expired(session) {
            // No refusal keeps a subscription that its authorization has ended meanwhile.
            event = Event::Yes;
        }
        self.run(id, event, reply, desk);
        self.advance(id, desk);
    }

    fn has_expired(&self, session: &Session) -> bool {
        let current = session.current.as_ref().and_then(|current| current.subscription);
        let subscription = current.and_then(|id| self.subscriptions.get(id));
        subscription.is_some_and(|subscription| matches!(subscription.phase, Phase::Expired))
    }

    /// Lets an idle session go on: with the next event, or with its farewell.
    pub(super) fn advance(&mut self, id: SessionId, desk: &mut Desk<'_>) {
        while let Some(session) = self.sessions.get_mut(id) {
            if session.step != Step::Idle {
                break;
            }
            if let Some(text) = session.pop_waiting() {
                if session.conn.is_none() {
                    self.orphaned_bytes -= text.len();
                }
                self.handle(id, &text, desk);
            } else if session.conn.is_some() || !self.leave_next(id, desk) {
                break;
            }
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.paused && !session.is_full(desk) {
            session.paused = false;
            desk.asks.resume.extend(session.conn);
        }
    }

    /// Begins to leave the last subscription of a session whose connection has gone; without any,
    /// the session is over. Says whether anything was done.
    fn leave_next(&mut self, id: SessionId, desk: &mut Desk<'_>) -> bool {
        let session = session_of(&mut self.sessions, id);
        if session.subscriptions.is_empty() {
            self.sessions.remove(id);
            return true;
        }
        // Those that are expiring have their callbacks under way.
        let subscriptions = &self.subscriptions;
        let confirmed = |&at: &SubscriptionId| {
            subscriptions.get(at).is_some_and(|at| matches!(at.phase, Phase::Confirmed))
        };
        let Some(last) = session.subscriptions.iter().copied().rfind(confirmed) else {
            return false;
        };
        self.detach(last, Phase::Leaving, desk);
        let current = Current {
            label: EventLabel::Unsubscribe,
            echo: None,
            extras: None,
            subscription: Some(last),
            data: None,
        };
        self.begin(id, Event::Leave, current, desk);
        true
    }

    fn handle(&mut self, id: SessionId, text: &str, desk: &mut Desk<'_>) {
        let event = ClientEvent::parse(text);
        log_client_event(id, text, &event, desk);
        match event {
            ClientEvent::NotJson => {
                // One that sends nothing else does not fill the disk.
                let session = session_of(&mut self.sessions, id);
                let is_first = !std::mem::replace(&mut session.was_warned_of, true);
                let level = if is_first { Level::Warning } else { Level::Debug };
                drop(desk.log.at(desk.now, level, "received invalid json").session(id));
                self.say_invalid(id, desk);
            }
            ClientEvent::Invalid => {
                count(desk, EventLabel::Invalid, false);
                self.say_invalid(id, desk);
            }
            ClientEvent::Unknown(name) => {
                count(desk, EventLabel::Unknown, false);
                let mut answer = ObjectWriter::default();
                answer.raw("event", name).raw("status", "\"error\"");
                answer.text("error", refusal::EVENT_NOT_FOUND);
                self.say(id, &answer.finish(), desk);
            }
            ClientEvent::Ping(object) => self.pong(id, &object, desk),
            ClientEvent::Auth(object) => self.authenticate(id, &object, desk),
            ClientEvent::Subscription(on, object) => self.on_subscription(id, on, &object, desk),
        }
    }

    fn say_invalid(&mut self, id: SessionId, desk: &mut Desk<'_>) {
        let mut answer = ObjectWriter::default();
        answer.raw("status", "\"error\"").text("error", refusal::INVALID_EVENT);
        self.say(id, &answer.finish(), desk);
    }

    fn pong_at_once(&mut self, id: SessionId, text: &str, desk: &mut Desk<'_>) -> bool {
        let event = ClientEvent::parse(text);
        let ClientEvent::Ping(object) = &event else { return false };
        log_client_event(id, text, &event, desk);
        self.pong(id, object, desk);
        true
    }

    fn pong(&mut self, id: SessionId, ping: &Object<'_>, desk: &mut Desk<'_>) {
        count(desk, EventLabel::Ping, true);
        self.say_parts(id, &["{\"event\":\"pong\",\"data\":", &pong_data(ping), "}"], desk);
    }

    fn authenticate(&mut self, id: SessionId, object: &Object<'_>, desk: &mut Desk<'_>) {
        let method = object.get("method");
        let is_ticket = method.is_none_or(|raw| json::string(raw).as_deref() == Some("ticket"));
        let ticket = object.get("ticket").filter(|raw| json::is_truthy(raw));
        let current = Current {
            label: EventLabel::Auth,
            echo: None,
            extras: None,
            subscription: None,
            data: ticket.map(Into::into),
        };
        let refusal = if !is_ticket || desk.config.ticket.is_none() {
            refusal::AUTH_UNSUPPORTED
        } else if ticket.is_none() {
            refusal::NEEDS_TICKET
        } else {
            return self.begin(id, Event::Auth, current, desk);
        };
        self.refuse(id, &current, &json::quoted(refusal), None, desk);
    }

    fn on_subscription(
        &mut self,
        id: SessionId,
        on: OnSubscription,
        object: &Object<'_>,
        desk: &mut Desk<'_>,
    ) {
        let raw = object.get("subscription").filter(|raw| json::is_truthy(raw));
        let name = raw.and_then(json::string);
        // Extra fields are echoed for a known service even where the topic is empty.
        let service_name = name.as_deref().and_then(|name| Some(name.split_once('.')?.0));
        let configured = service_name.and_then(|name| desk.config.service(name));
        let existing = name.as_deref().and_then(|name| self.find(id, name));
        let (service, extras) = match existing.and_then(|at| self.subscriptions.get(at)) {
            // Its service may be gone from the configuration: it can still be left.
            Some(subscription) => {
                let topic = self.topics.get(subscription.topic);
                (Some(topic.service.clone()), subscription.extras.clone())
            }
            None => {
                (configured.cloned(), configured.and_then(|service| extras_of(service, object)))
            }
        };
        let mut current = Current {
            label: on.label(),
            echo: raw.map(Into::into),
            extras,
            subscription: existing,
            data: (on == OnSubscription::Message)
                .then(|| object.get("data").unwrap_or("null").into()),
        };
        let name = name.as_deref().filter(|name| split_name(name).is_some());
        let event = match (name, service) {
            (None, _) => Err(refusal::INVALID_SUBSCRIPTION),
            (Some(_), None) => Err(refusal::INVALID_SERVICE),
            (Some(name), Some(service)) => match on {
                OnSubscription::Subscribe => {
                    let bytes = kept_bytes(name, current.extras.as_deref());
                    self.may_subscribe(id, &service, existing, bytes, desk).map(|conn| {
                        let new = self.new_subscription(id, conn, name, &service, &mut current);
                        current.subscription = Some(new);
                        Event::Subscribe
                    })
                }
                OnSubscription::Message if existing.is_some() => Ok(Event::Message),
                OnSubscription::Unsubscribe if existing.is_some() => Ok(Event::Unsubscribe),
                OnSubscription::Unsubscribe => match self.adopt_expiring(id, name) {
                    Some(extras) => {
                        current.extras = extras;
                        Ok(Event::UnsubscribeExpiring)
                    }
                    None => Err(refusal::NOT_SUBSCRIBED),
                },
                OnSubscription::Message => Err(refusal::NOT_SUBSCRIBED),
            },
        };
        match event {
            Ok(event) => self.begin(id, event, current, desk),
            Err(refusal) => self.refuse(id, &current, &json::quoted(refusal), None, desk),
        }
    }

    /// Whether a session may subscribe to a service. Gives its connection, or a dead id where that
    /// has gone (an event received before is still handled).
    fn may_subscribe(
        &self,
        id: SessionId,
        service: &Service,
        existing: Option<SubscriptionId>,
        bytes: usize,
        desk: &Desk<'_>,
    ) -> Result<Option<ConnId>, &'static str> {
        let session = self.sessions.get(id).expect("its event is being handled");
        let limits = &desk.config.limits;
        let most = limits.max_subscriptions_per_session;
        let bytes_max = most.saturating_mul(SUBSCRIPTION_BYTES).max(limits.max_message_bytes);
        let is_over = session.kept_bytes + bytes > bytes_max;
        if service.require_authentication && session.auth.is_none() {
            Err(refusal::AUTH_REQUIRED)
        } else if existing.is_some() {
            Err(refusal::ALREADY_SUBSCRIBED)
        } else if session.subscriptions.len() >= most || is_over {
            Err(refusal::TOO_MANY_SUBSCRIPTIONS)
        } else if tells_of_leaving(service) && desk.calls.is_full(&service.name, &desk.config.http)
        {
            // The calls that tell of it wait without a bound, so those who come have one.
            Err(refusal::SERVICE_UNAVAILABLE)
        } else {
            Ok(session.conn)
        }
    }

    fn new_subscription(
        &mut self,
        session: SessionId,
        conn: Option<ConnId>,
        name: &str,
        service: &Rc<Service>,
        current: &mut Current,
    ) -> SubscriptionId {
        let bytes = kept_bytes(name, current.extras.as_deref());
        session_of(&mut self.sessions, session).kept_bytes += bytes;
        current.extras = current.extras.take().map(|extras| self.extras.share(extras));
        let topic = self.topics.hold(name, service);
        self.subscriptions.insert(Subscription {
            session,
            conn,
            topic,
            phase: Phase::Pending,
            seat: None,
            extras: current.extras.clone(),
            gate: None,
            watch: None,
        })
    }

    /// The session's confirmed subscription of that name.
    pub(super) fn find(&self, id: SessionId, name: &str) -> Option<SubscriptionId> {
        self.find_in_phase(id, self.topics.find(name)?, |phase| matches!(phase, Phase::Confirmed))
    }

    pub(super) fn find_in_phase(
        &self,
        id: SessionId,
        topic: TopicId,
        is_it: impl Fn(&Phase) -> bool,
    ) -> Option<SubscriptionId> {
        let found = |&at: &SubscriptionId| {
            let subscription = self.subscriptions.get(at);
            subscription.is_some_and(|found| found.topic == topic && is_it(&found.phase))
        };
        self.sessions.get(id)?.subscriptions.iter().copied().find(found)
    }
}

impl Session {
    /// Whether as much waits as may.
    fn is_full(&self, desk: &Desk<'_>) -> bool {
        let limits = &desk.config.limits;
        let many = self.waiting() >= limits.max_queued_events_per_session;
        self.step != Step::Idle && (many || self.waiting_bytes() > limits.max_message_bytes)
    }
}

/// Whether a service is called when a subscription ends.
fn tells_of_leaving(service: &Service) -> bool {
    [Hook::BeforeUnsubscribe, Hook::OnUnsubscribe].iter().any(|&hook| service.hook(hook).is_some())
}

/// What a subscription makes us keep.
pub(super) fn kept_bytes(name: &str, extras: Option<&Extras>) -> usize {
    name.len() + extras.map_or(0, |extras| extras.text().len())
}

fn extras_of(service: &Service, object: &Object<'_>) -> Option<Rc<Extras>> {
    let fields = Fields::pick(&service.extra_fields, object);
    (!fields.is_empty()).then(|| Extras::new(fields))
}

/// The original's record of every event; tickets are nobody's business.
fn log_client_event(id: SessionId, text: &str, event: &ClientEvent<'_>, desk: &mut Desk<'_>) {
    if !desk.log.is_on(Level::Debug) || matches!(event, ClientEvent::NotJson) {
        return;
    }
    let line = desk.log.at(desk.now, Level::Debug, "client event").session(id);
    let object = Object::parse(text).ok().filter(|object| object.get("ticket").is_some());
    match object {
        Some(object) => drop(line.raw("data", &object.with_replaced("ticket", "\"[redacted]\""))),
        None => drop(line.raw("data", text)),
    }
}
