//! Who reads a topic: sitting down, being confirmed, leaving, and being found by a filter field.

use std::rc::Rc;

use super::fields::Fields;
use super::index::{Index, READERS_MIN};
use super::seats::Seat;
use super::session::{Phase, Subscription};
use super::topics::TopicId;
use super::{Desk, Router, session_of};
use crate::arena::{SessionId, SubscriptionId};
use crate::wire::json::canonical;

/// The filter fields that a message has: name, raw value, whether it is an extra field.
pub(super) type Wanted<'a> = Vec<(&'a str, &'a str, bool)>;

impl Router {
    /// Redis has confirmed: messages are held for the subscription from here on.
    pub(super) fn sit_down(&mut self, id: SubscriptionId, seat: Seat) {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.seat = Some(seat);
        subscription.phase = Phase::Provisional(Box::default());
        if let Some(index) = &mut self.topics.get_mut(subscription.topic).index {
            index.add_provisional(id);
        }
    }

    /// Messages go straight to the subscription from here on.
    pub(super) fn become_reader(&mut self, id: SubscriptionId) {
        let subscription = self.subscriptions.get_mut(id).expect("it is being subscribed");
        subscription.phase = Phase::Confirmed;
        if let Some(seat) = subscription.seat {
            let topic = self.topics.get_mut(subscription.topic);
            if let Some(conn) = subscription.conn.filter(|_| subscription.extras.is_none()) {
                topic.seats.set_direct(seat, conn);
            }
            if let Some(index) = &mut topic.index {
                index.remove_provisional(id);
            }
            self.index_reader(id);
        }
    }

    /// The subscription gets no more messages; the last reader takes the channel with it.
    pub(super) fn leave_topic(&mut self, id: SubscriptionId, desk: &mut Desk<'_>) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        if subscription.seat.is_none() {
            return;
        }
        let topic = subscription.topic;
        match subscription.phase {
            Phase::Provisional(_) => {
                if let Some(index) = &mut self.topics.get_mut(topic).index {
                    index.remove_provisional(id);
                }
            }
            _ => self.unindex_reader(id),
        }
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        let seat = subscription.seat.take();
        if let Some(conn) = subscription.conn {
            desk.mail.unpark(conn, subscription.parked_bytes());
        }
        if let Phase::Provisional(held) = &mut subscription.phase {
            **held = Default::default();
        }
        subscription.gate = None;
        let moved = self.topics.leave(topic, id, seat, &mut desk.asks.channels);
        if let Some(moved) = moved.and_then(|moved| self.subscriptions.get_mut(moved)) {
            moved.seat = seat;
        }
    }

    /// Replaces what a session is authenticated as, for its subscriptions too.
    pub(super) fn set_auth(&mut self, id: SessionId, auth: Option<Rc<Fields>>) {
        let readers = session_of(&mut self.sessions, id).subscriptions.clone();
        for &reader in &readers {
            self.unindex_reader(reader);
        }
        session_of(&mut self.sessions, id).auth = auth;
        for &reader in &readers {
            self.index_reader(reader);
        }
    }

    /// The confirmed readers that may match, and the number of those that cannot. `None`: ask each.
    pub(super) fn candidates(
        &mut self,
        topic: TopicId,
        wanted: &Wanted<'_>,
    ) -> Option<(Vec<SubscriptionId>, u64)> {
        let found = self.topics.get(topic);
        if wanted.is_empty() || (found.index.is_none() && found.seats.readers().len() < READERS_MIN)
        {
            return None;
        }
        if found.index.is_none() {
            self.make_index(topic);
        }
        let found = self.topics.get(topic);
        let index = found.index.as_ref()?;
        let wanted = wanted.iter().map(|(name, value, _)| (*name, canonical(value)));
        let candidates = index.candidates(wanted)?;
        let confirmed = found.seats.readers().len() - index.provisional().len();
        let others = (confirmed - candidates.len()) as u64;
        Some((candidates, others))
    }

    fn make_index(&mut self, topic: TopicId) {
        let service = self.topics.get(topic).service.clone();
        let fields = service.filter_fields.iter();
        let fields = fields.map(|name| (name.clone(), service.extra_fields.contains(name)));
        let mut index = Index::new(fields);
        let readers = self.topics.get(topic).seats.readers().to_vec();
        for reader in readers.iter().map(|reader| reader.id) {
            let provisional = self.subscriptions.get(reader).is_some_and(Subscription::is_held);
            if provisional {
                index.add_provisional(reader);
            }
        }
        self.topics.get_mut(topic).index = Some(Box::new(index));
        for reader in readers {
            self.index_reader(reader.id);
        }
    }

    fn index_reader(&mut self, id: SubscriptionId) {
        if let Some((topic, values)) = self.indexed_values(id)
            && let Some(index) = &mut self.topics.get_mut(topic).index
        {
            index.add(id, values);
        }
    }

    fn unindex_reader(&mut self, id: SubscriptionId) {
        if let Some((topic, values)) = self.indexed_values(id)
            && let Some(index) = &mut self.topics.get_mut(topic).index
        {
            index.remove(id, &values);
        }
    }

    /// What a confirmed reader of an indexed topic is found by.
    fn indexed_values(&self, id: SubscriptionId) -> Option<(TopicId, Vec<Vec<u8>>)> {
        let subscription = self.subscriptions.get(id)?;
        let index = self.topics.get(subscription.topic).index.as_ref()?;
        if subscription.seat.is_none() || subscription.is_held() {
            return None;
        }
        let fields = index.fields().iter();
        let values = fields.map(|field| {
            canonical(self.field_of(subscription, &field.name, field.is_extra).unwrap_or("null"))
        });
        Some((subscription.topic, values.collect()))
    }

    /// The raw value that filters compare: an extra field, or an authentication field.
    pub(super) fn field_of<'a>(
        &'a self,
        subscription: &'a Subscription,
        name: &str,
        is_extra: bool,
    ) -> Option<&'a str> {
        if is_extra {
            return subscription.extras.as_deref()?.fields.get(name);
        }
        self.sessions.get(subscription.session)?.auth.as_deref()?.get(name)
    }
}
