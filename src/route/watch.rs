//! What goes on by the clock beside a session's events: periodic authorization, the end of a
//! subscription whose authorization has expired, heartbeats.

use std::rc::Rc;
use std::time::Duration;

use super::fields::{Extras, Fields};
use super::reply::Reply;
use super::session::{Expiry, Phase, Renewal, Watch};
use super::steps::Step;
use super::{Desk, Router};
use crate::arena::{SessionId, SubscriptionId};
use crate::config::{Level, Service};
use crate::message::{Hook, Owner, refusal};
use crate::timers::Timer;
use crate::wire::json::ObjectWriter;

impl Router {
    /// Plans the renewals and heartbeats that the service has and the subscription has not yet.
    pub(super) fn plan_watch(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if !matches!(subscription.phase, Phase::Confirmed) || subscription.seat.is_none() {
            return;
        }
        let service = self.topics.get(subscription.topic).service.clone();
        let (renews, beats) = (renewal_period(&service), heartbeat_period(&service));
        if renews.is_none() && beats.is_none() {
            return;
        }
        let watch = subscription.watch.get_or_insert_default();
        if let Some(period) = renews
            && watch.renewal == Renewal::Off
        {
            let jitter = desk.random.up_to(service.authorization_renewal_jitter);
            plan_renewal(id, watch, period.saturating_sub(jitter), desk);
        }
        if let Some(period) = beats
            && watch.heartbeat_at.is_none()
        {
            // Spread from the start, lest all subscriptions beat together after a deployment.
            let at = desk.now.mono.after(desk.random.up_to(period));
            watch.heartbeat_at = Some(at);
            desk.timers.set(at, Timer::Heartbeat(id));
        }
    }

    pub(super) fn renewal_due(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if !matches!(subscription.phase, Phase::Confirmed) || subscription.seat.is_none() {
            return;
        }
        let Some(watch) = &mut subscription.watch else { return };
        if !matches!(watch.renewal, Renewal::At(at) if at <= desk.now.mono) {
            return;
        }
        if renewal_period(&self.topics.get(subscription.topic).service).is_none() {
            watch.renewal = Renewal::Off;
            watch.failing_since = None;
            return;
        }
        watch.renewal = Renewal::Authorizing;
        let line = desk.log.at(desk.now, Level::Debug, "verifying authorization");
        let name = &self.topics.get(subscription.topic).name;
        drop(line.session(subscription.session).text("subscription", name));
        self.call(id, Hook::Authorizer, None, Owner::Renewal(id), desk);
    }

    pub(super) fn renewal_answered(
        &mut self,
        id: SubscriptionId,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        // Without a seat the session has departed and its farewell is under way.
        if !matches!(subscription.phase, Phase::Confirmed) || subscription.seat.is_none() {
            return;
        }
        let Some(renewal) = subscription.watch.as_ref().map(|watch| watch.renewal) else { return };
        match renewal {
            Renewal::Authorizing if reply.is_yes() => {
                if self.store_authorizer_fields(id, reply) {
                    self.set_renewal(id, Renewal::Changing);
                    let owner = Owner::Renewal(id);
                    if self.call(id, Hook::OnAuthorizationChange, None, owner, desk) {
                        return;
                    }
                }
                self.renewed(id, desk);
            }
            Renewal::Changing if reply.is_yes() => self.renewed(id, desk),
            Renewal::Authorizing if reply.is_unavailable() && self.has_grace(id, desk) => {}
            Renewal::Authorizing => self.expire(id, &reply.error(refusal::UNAUTHORIZED), desk),
            Renewal::Changing => self.expire(id, &reply.error(refusal::UNHANDLED), desk),
            Renewal::Off | Renewal::At(_) => {}
        }
    }

    fn set_renewal(&mut self, id: SubscriptionId, renewal: Renewal) {
        let subscription = self.subscriptions.get_mut(id);
        if let Some(watch) = subscription.and_then(|found| found.watch.as_mut()) {
            watch.renewal = renewal;
        }
    }

    fn renewed(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let Some(watch) = &mut subscription.watch else { return };
        let topic = self.topics.get(subscription.topic);
        watch.failing_since = None;
        watch.renewal = Renewal::Off;
        let line = desk.log.at(desk.now, Level::Debug, "authorization verified");
        drop(line.session(subscription.session).text("subscription", &topic.name));
        self.plan_watch(id, desk);
    }

    /// Whether a subscription may go on without an answer from the authorizer for now; then the
    /// next try is planned.
    fn has_grace(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return false };
        let service = self.topics.get(subscription.topic).service.clone();
        let Some(watch) = &mut subscription.watch else { return false };
        let now = desk.now.mono;
        let ends = watch.failing_since.get_or_insert(now).after(service.authorization_grace);
        if ends <= now {
            return false;
        }
        let period = service.authorization_renewal_period.unwrap_or(Duration::MAX);
        plan_renewal(id, watch, period.min(ends.since(now)), desk);
        true
    }

    /// Takes over what the authorizer gave. Says whether it changed something.
    pub(super) fn store_authorizer_fields(
        &mut self,
        id: SubscriptionId,
        reply: &Reply<'_>,
    ) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return false };
        let service = &self.topics.get(subscription.topic).service;
        let fields = match reply.object() {
            Some(object) => Fields::pick(&service.authorizer_fields, object),
            None => Fields::default(),
        };
        if fields.is_empty() && subscription.watch.is_none() {
            return false;
        }
        let watch = subscription.watch.get_or_insert_default();
        let changed = !fields.equals(&watch.authorizer_fields);
        watch.authorizer_fields = fields;
        changed
    }

    // ----------------------------------------------------------------- expiry

    /// Ends a subscription whose authorization has expired. No more messages from here on.
    fn expire(&mut self, id: SubscriptionId, error: &str, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        let session = subscription.session;
        let name = &self.topics.get(subscription.topic).name;
        let line = desk.log.at(desk.now, Level::Info, "authorization expired");
        drop(line.session(session).text("subscription", name).raw("error", error));
        if self.is_being_unsubscribed(session, id) {
            // The client's own request makes the callbacks and gets the answer.
            return self.detach(id, Phase::Expired, desk);
        }
        let expiry =
            Expiry { error: error.into(), data: None, called_before: false, adopted: false };
        self.detach(id, Phase::Expiring(Box::new(expiry)), desk);
        if !self.call(id, Hook::BeforeUnsubscribe, None, Owner::Expiry(id), desk) {
            self.expiry_answered(id, Reply::YES, desk);
        }
    }

    fn is_being_unsubscribed(&self, session: SessionId, id: SubscriptionId) -> bool {
        self.sessions.get(session).is_some_and(|session| {
            let current = session.current.as_ref().and_then(|current| current.subscription);
            session.step == Step::BeforeUnsubscribe && current == Some(id)
        })
    }

    pub(super) fn expiry_answered(
        &mut self,
        id: SubscriptionId,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let Phase::Expiring(expiry) = &mut subscription.phase else { return };
        if !expiry.called_before {
            expiry.called_before = true;
            // The original passes on whatever is not null, in a refusal too.
            expiry.data = reply.get("data").filter(|raw| *raw != "null").map(Into::into);
            if self.call(id, Hook::OnUnsubscribe, None, Owner::Expiry(id), desk) {
                return;
            }
        }
        self.expired(id, desk);
    }

    /// Both callbacks are made: the client is told, or gets its own answer.
    fn expired(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let session = subscription.session;
        let phase = std::mem::replace(&mut subscription.phase, Phase::Leaving);
        let extras = subscription.extras.clone();
        let name = self.topics.get(subscription.topic).name.clone();
        let Phase::Expiring(expiry) = phase else { return };
        if let Some(session) = self.sessions.get_mut(session) {
            session.subscriptions.retain(|&other| other != id);
            if expiry.adopted
                && let Some(current) = &mut session.current
            {
                current.data.clone_from(&expiry.data);
            }
        }
        if expiry.adopted {
            self.event_answered(session, Reply::YES, desk);
        } else {
            let mut event = ObjectWriter::default();
            event.raw("event", "\"unsubscribe\"").text("subscription", &name);
            if let Some(data) = &expiry.data {
                event.raw("data", &**data);
            }
            event.raw("error", &*expiry.error);
            if let Some(extras) = &extras {
                extras.fields.write(&mut event);
            }
            self.say(session, &event.finish(), desk);
        }
        self.drop_subscription(id, desk);
        self.advance(session, desk);
    }

    /// Lets a client's `unsubscribe` wait for the end that is under way anyway, if it is. Gives the
    /// extra fields of what ends.
    pub(super) fn adopt_expiring(
        &mut self,
        session: SessionId,
        name: &str,
    ) -> Option<Option<Rc<Extras>>> {
        let topic = self.topics.find(name)?;
        let is_expiring = |phase: &Phase| matches!(phase, Phase::Expiring(_));
        let id = self.find_in_phase(session, topic, is_expiring)?;
        let subscription = self.subscriptions.get_mut(id)?;
        let Phase::Expiring(expiry) = &mut subscription.phase else { return None };
        expiry.adopted = true;
        Some(subscription.extras.clone())
    }

    // -------------------------------------------------------------- heartbeats

    pub(super) fn heartbeat_due(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if !matches!(subscription.phase, Phase::Confirmed) || subscription.seat.is_none() {
            return;
        }
        let Some(watch) = &mut subscription.watch else { return };
        let Some(at) = watch.heartbeat_at.filter(|&at| at <= desk.now.mono) else { return };
        let period = heartbeat_period(&self.topics.get(subscription.topic).service);
        watch.heartbeat_at = period.map(|period| at.after(period).max(desk.now.mono));
        let Some(next) = watch.heartbeat_at else { return };
        desk.timers.set(next, Timer::Heartbeat(id));
        if watch.heartbeat_under_way {
            return;
        }
        watch.heartbeat_under_way = true;
        let session = subscription.session;
        let name = &self.topics.get(subscription.topic).name;
        let line = desk.log.at(desk.now, Level::Debug, "sending heartbeat");
        drop(line.session(session).text("subscription", name));
        self.call(id, Hook::OnHeartbeat, None, Owner::Heartbeat(id), desk);
    }

    pub(super) fn heartbeat_answered(
        &mut self,
        id: SubscriptionId,
        reply: &Reply<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        if let Some(watch) = &mut subscription.watch {
            watch.heartbeat_under_way = false;
        }
        let name = &self.topics.get(subscription.topic).name;
        let line = if reply.is_yes() {
            desk.log.at(desk.now, Level::Debug, "heartbeat sent")
        } else {
            let event = "error sending heartbeat to service";
            let line = desk.log.at(desk.now, Level::Warning, event);
            line.raw("error", &reply.error(refusal::UNHANDLED))
        };
        drop(line.session(subscription.session).text("subscription", name));
    }
}

/// How often a service's subscriptions are authorized again.
fn renewal_period(service: &Service) -> Option<Duration> {
    service.authorization_renewal_period.filter(|_| service.hook(Hook::Authorizer).is_some())
}

/// How often a service is told that a subscription is still there.
fn heartbeat_period(service: &Service) -> Option<Duration> {
    service.heartbeat_period.filter(|_| service.hook(Hook::OnHeartbeat).is_some())
}

fn plan_renewal(id: SubscriptionId, watch: &mut Watch, delay: Duration, desk: &mut Desk<'_>) {
    let at = desk.now.mono.after(delay);
    watch.renewal = Renewal::At(at);
    desk.timers.set(at, Timer::Renewal(id));
}
