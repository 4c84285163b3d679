//! What the table of steps asks: callbacks, joins, confirmations, and the answers to clients.

use std::rc::Rc;

use super::commands::kept_bytes;
use super::fields::Fields;
use super::publication::Options;
use super::reply::Reply;
use super::session::{Current, Phase};
use super::steps::{self, Act, Event, Step};
use super::topics::Joining;
use super::{Desk, Router, session_of};
use crate::arena::{SessionId, SubscriptionId};
use crate::config::Level;
use crate::message::{Call, Hook, Owner, refusal};
use crate::metrics::EventLabel;
use crate::wire::json::{self, ObjectWriter};
use crate::wire::ws::encode_parts;

impl Router {
    pub(super) fn begin(
        &mut self,
        id: SessionId,
        event: Event,
        current: Current,
        desk: &mut Desk<'_>,
    ) {
        session_of(&mut self.sessions, id).current = Some(Box::new(current));
        self.run(id, event, Reply::YES, desk);
    }

    /// Takes a session through the table until it has to wait.
    pub(super) fn run(
        &mut self,
        id: SessionId,
        event: Event,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) {
        let (mut event, mut reply) = (event, reply);
        while let Some(session) = self.sessions.get_mut(id) {
            let (step, act) = steps::next(session.step, event).expect("steps await their events");
            session.step = step;
            match self.perform(id, act, reply, desk) {
                Some(next) => event = next,
                None => return,
            }
            reply = Reply::YES;
        }
    }

    /// Does what a step asks; gives the next event where it is known already.
    fn perform(
        &mut self,
        id: SessionId,
        act: Act,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) -> Option<Event> {
        let current = session_of(&mut self.sessions, id).current.take();
        let current = current.expect("a session in a step has an event in hand");
        let next = match act {
            Act::Call(hook) => self.call_for_event(id, hook, &current, desk),
            Act::Authenticate => self.authenticated(id, &current, reply, desk),
            Act::Join => self.join(&current, reply, desk),
            Act::Confirm => self.confirm(id, &current, reply, desk),
            Act::Open => {
                let opened = current.subscription.expect("there is one to open");
                self.become_reader(opened);
                self.plan_watch(opened, desk);
                self.call_for_event(id, Hook::OnSubscribe, &current, desk)
            }
            Act::RollBack => {
                let error = reply.error(self.default_refusal(&current));
                self.refuse(id, &current, &error, reply.data(), desk);
                self.forget(&current, desk)
            }
            Act::Refuse => {
                let (default, data) = match current.label {
                    EventLabel::Auth => (refusal::AUTH_FAILED, None),
                    _ => (refusal::UNHANDLED, reply.data()),
                };
                self.refuse(id, &current, &reply.error(default), data, desk);
                None
            }
            Act::AnswerData => {
                count(desk, current.label, true);
                if reply.get("data").is_some() {
                    self.accept(id, &current, reply.data(), desk);
                }
                None
            }
            Act::Unsubscribe => {
                let left = current.subscription.expect("there is one to unsubscribe");
                self.detach(left, Phase::Leaving, desk);
                count(desk, current.label, true);
                self.accept(id, &current, reply.data(), desk);
                self.call_for_event(id, Hook::OnUnsubscribe, &current, desk)
            }
            Act::AnswerEnded => {
                count(desk, current.label, true);
                self.accept(id, &current, current.data.as_deref(), desk);
                None
            }
            Act::Forget => self.forget(&current, desk),
            Act::Finish => None,
        };
        let session = session_of(&mut self.sessions, id);
        // An event that is over leaves nothing behind.
        session.current = (session.step != Step::Idle).then_some(current);
        next
    }

    /// What a rolled-back subscribe says where the service gave no error.
    fn default_refusal(&self, current: &Current) -> &'static str {
        let subscription = current.subscription.and_then(|id| self.subscriptions.get(id));
        match subscription.map(|subscription| &subscription.phase) {
            Some(Phase::Pending) => refusal::UNAUTHORIZED,
            _ => refusal::UNHANDLED,
        }
    }

    fn call_for_event(
        &mut self,
        id: SessionId,
        hook: Hook,
        current: &Current,
        desk: &mut Desk<'_>,
    ) -> Option<Event> {
        if hook == Hook::Validation {
            let Some(method) = &desk.config.ticket else { return Some(Event::No) };
            let mut body = ObjectWriter::default();
            body.raw("ticket", current.data.as_deref().unwrap_or("null"));
            let (lane, url) = ("ticket".into(), method.validation_url.clone());
            let (body, owner) = (body.finish().into_bytes(), Owner::Event(id));
            desk.asks.calls.push_back(Call { lane, hook, url, body, owner });
            return None;
        }
        let subscription = current.subscription.expect("its hooks are of a subscription");
        let data = if hook == Hook::OnMessage { current.data.as_deref() } else { None };
        let called = self.call(subscription, hook, data, Owner::Event(id), desk);
        (!called).then_some(Event::Yes)
    }

    /// Makes a callback of a subscription's service. Says whether there is one to make.
    pub(super) fn call(
        &self,
        id: SubscriptionId,
        hook: Hook,
        data: Option<&str>,
        owner: Owner,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(subscription) = self.subscriptions.get(id) else { return false };
        let topic = self.topics.get(subscription.topic);
        let Some(url) = topic.service.hook(hook) else { return false };
        let mut body = ObjectWriter::default();
        body.text("subscription", &topic.name);
        if let Some(extras) = &subscription.extras {
            extras.fields.write(&mut body);
        }
        if let Some(watch) = &subscription.watch {
            watch.authorizer_fields.write(&mut body);
        }
        let session = self.sessions.get(subscription.session);
        if let Some(auth) = session.and_then(|session| session.auth.as_deref()) {
            auth.write(&mut body);
        }
        if let Some(data) = data {
            body.raw("data", data);
        }
        desk.asks.calls.push_back(Call {
            lane: topic.service.name.clone(),
            hook,
            url: url.clone(),
            body: body.finish().into_bytes(),
            owner,
        });
        true
    }

    fn authenticated(
        &mut self,
        id: SessionId,
        current: &Current,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) -> Option<Event> {
        let fields = match (&desk.config.ticket, reply.object()) {
            (Some(method), Some(object)) => {
                let fields = Fields::pick(&method.auth_fields, object);
                // An answer that lacks a field is as good as none.
                (fields.len() == method.auth_fields.len()).then_some(fields)
            }
            _ => None,
        };
        let Some(fields) = fields else {
            let error = json::quoted(refusal::AUTH_FAILED);
            self.refuse(id, current, &error, None, desk);
            return None;
        };
        self.set_auth(id, (!fields.is_empty()).then(|| Rc::new(fields)));
        count(desk, current.label, true);
        self.accept(id, current, None, desk);
        None
    }

    fn join(&mut self, current: &Current, reply: &Reply<'_>, desk: &mut Desk<'_>) -> Option<Event> {
        let id = current.subscription.expect("there is one to join for");
        self.store_authorizer_fields(id, reply);
        let topic = self.subscriptions.get(id).expect("it is being subscribed").topic;
        match self.topics.join(topic, id, &mut desk.asks.channels) {
            Joining::Waiting => None,
            Joining::Seated(seat) => {
                self.sit_down(id, seat);
                self.give_up_seat_if_gone(id, desk);
                Some(Event::Yes)
            }
        }
    }

    /// A client that has gone reads nothing, though its subscribe goes on to its end. A seat that
    /// it kept would count as one when Redis is lost, and for those who come after.
    pub(super) fn give_up_seat_if_gone(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        if self.subscriptions.get(id).is_some_and(|subscription| subscription.conn.is_none()) {
            self.leave_topic(id, desk);
        }
    }

    /// The subscription stands: the answer, then what came meanwhile, as far as this turn allows.
    fn confirm(
        &mut self,
        id: SessionId,
        current: &Current,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) -> Option<Event> {
        let at = current.subscription.expect("there is one to confirm");
        let session = session_of(&mut self.sessions, id);
        // Most sessions have one.
        if session.subscriptions.is_empty() {
            session.subscriptions.reserve_exact(1);
        }
        session.subscriptions.push(at);
        let is_connected = session.conn.is_some();
        desk.metrics.subscriptions += 1;
        count(desk, current.label, true);
        self.accept(id, current, reply.data(), desk);
        if is_connected && let Some(object) = reply.object() {
            self.start_gate(at, &Options::of(object), desk);
        }
        if self.send_held(at, desk) {
            return Some(Event::Yes);
        }
        self.sending_held.push_back((id, at));
        None
    }

    /// Takes a confirmed subscription out of its session's reach: no more messages.
    pub(super) fn detach(&mut self, id: SubscriptionId, phase: Phase, desk: &mut Desk<'_>) {
        self.leave_topic(id, desk);
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let was = std::mem::replace(&mut subscription.phase, phase);
        let session = subscription.session;
        if matches!(was, Phase::Confirmed) {
            desk.metrics.subscriptions -= 1;
            let stays = matches!(subscription.phase, Phase::Expiring(_));
            if !stays && let Some(session) = self.sessions.get_mut(session) {
                session.subscriptions.retain(|&other| other != id);
            }
        }
    }

    /// Nothing of the event's subscription stays behind.
    fn forget(&mut self, current: &Current, desk: &mut Desk<'_>) -> Option<Event> {
        self.drop_subscription(current.subscription?, desk);
        None
    }

    pub(super) fn drop_subscription(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        self.leave_topic(id, desk);
        let Some(subscription) = self.subscriptions.remove(id) else { return };
        if let Some(session) = self.sessions.get_mut(subscription.session) {
            let name = &self.topics.get(subscription.topic).name;
            session.kept_bytes -= kept_bytes(name, subscription.extras.as_deref());
        }
        if let Some(extras) = subscription.extras {
            self.extras.release(&extras);
        }
        self.topics.release(subscription.topic);
    }

    fn accept(
        &mut self,
        id: SessionId,
        current: &Current,
        data: Option<&str>,
        desk: &mut Desk<'_>,
    ) {
        let mut answer = ObjectWriter::default();
        answer.raw("event", current.label.raw_name()).raw("status", "\"ok\"");
        self.answer(id, current, answer, data, desk);
    }

    pub(super) fn refuse(
        &mut self,
        id: SessionId,
        current: &Current,
        error: &str,
        data: Option<&str>,
        desk: &mut Desk<'_>,
    ) {
        count(desk, current.label, false);
        let mut answer = ObjectWriter::default();
        answer.raw("event", current.label.raw_name()).raw("status", "\"error\"");
        answer.raw("error", error);
        self.answer(id, current, answer, data, desk);
    }

    fn answer<'a>(
        &mut self,
        id: SessionId,
        current: &'a Current,
        mut answer: ObjectWriter<'a>,
        data: Option<&'a str>,
        desk: &mut Desk<'_>,
    ) {
        if let Some(extras) = &current.extras {
            extras.fields.write(&mut answer);
        }
        if let Some(data) = data {
            answer.raw("data", data);
        }
        if let Some(echo) = &current.echo {
            answer.raw("subscription", &**echo);
        }
        self.say(id, &answer.finish(), desk);
    }

    /// Sends a session something, if it is still connected.
    pub(super) fn say(&mut self, id: SessionId, json: &str, desk: &mut Desk<'_>) {
        self.say_parts(id, &[json], desk);
    }

    /// The same in parts, so that what is short-lived need not be put together first.
    pub(super) fn say_parts(&mut self, id: SessionId, json: &[&str], desk: &mut Desk<'_>) {
        let Some(conn) = self.sessions.get(id).and_then(|session| session.conn) else { return };
        if desk.log.is_on(Level::Debug) {
            let line = desk.log.at(desk.now, Level::Debug, "client send").session(id);
            drop(line.raw("data", &json.concat()));
        }
        if desk.mail.post_prompt(conn, encode_parts(json)).is_err() {
            desk.asks.too_slow.push(conn);
        }
    }
}

/// Counts an event by its outcome.
pub(super) fn count(desk: &mut Desk<'_>, label: EventLabel, success: bool) {
    desk.metrics.events[label as usize][usize::from(!success)] += 1;
    if desk.config.metrics.log {
        let line = desk.log.at(desk.now, Level::Debug, "metrics");
        drop(line.text("evt", label.name()).flag("success", success));
    }
}
