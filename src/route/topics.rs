//! Channels and who reads them. A channel is subscribed at Redis exactly as long as somebody
//! reads it or waits to.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::index::Index;
use super::inline::InlineBytes;
use super::seats::{Seat, Seats};
use crate::arena::{Arena, Id, SubscriptionId};
use crate::config::{Config, Service};

pub enum TopicTag {}
pub type TopicId = Id<TopicTag>;

/// What is asked of the Redis links, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChannelChange {
    Join(Rc<str>),
    Leave(Rc<str>),
}

/// Where a channel stands at Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Left,
    Joining,
    Joined,
}

/// One channel, by the name of the subscription (`service.topic`).
pub struct Topic {
    pub name: Rc<str>,
    pub service: Rc<Service>,
    /// Subscriptions of any state that refer to this topic.
    holders: usize,
    standing: Standing,
    /// Those that get its messages.
    pub seats: Seats,
    /// Those that wait for Redis to confirm.
    joining: Vec<SubscriptionId>,
    /// Readers by the values of filter fields, where that is worth it.
    pub index: Option<Box<Index>>,
}

/// What became of a wish to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joining {
    Seated(Seat),
    Waiting,
}

#[derive(Default)]
pub struct Topics {
    by_name: HashMap<InlineBytes, TopicId>,
    topics: Arena<TopicTag, Topic>,
}

impl Topics {
    /// The topic of that name, for one more subscription.
    pub fn hold(&mut self, name: &str, service: &Rc<Service>) -> TopicId {
        if let Some(&id) = self.by_name.get(name.as_bytes()) {
            self.topics.get_mut(id).expect("names lead to topics").holders += 1;
            return id;
        }
        let id = self.topics.insert(Topic {
            name: name.into(),
            service: service.clone(),
            holders: 1,
            standing: Standing::Left,
            seats: Seats::default(),
            joining: Vec::new(),
            index: None,
        });
        self.by_name.insert(InlineBytes::new(name.as_bytes()), id);
        id
    }

    /// One subscription less; the last one takes the topic with it.
    pub fn release(&mut self, id: TopicId) {
        let topic = self.topics.get_mut(id).expect("a held topic exists");
        topic.holders -= 1;
        if topic.holders == 0 {
            assert!(topic.is_unread() && topic.joining.is_empty(), "readers hold");
            assert_eq!(topic.standing, Standing::Left, "nobody reads, nothing is subscribed");
            let name = topic.name.clone();
            self.by_name.remove(name.as_bytes());
            self.topics.remove(id);
        }
    }

    pub fn get(&self, id: TopicId) -> &Topic {
        self.topics.get(id).expect("a held topic exists")
    }

    pub fn get_mut(&mut self, id: TopicId) -> &mut Topic {
        self.topics.get_mut(id).expect("a held topic exists")
    }

    pub fn find(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name.as_bytes()).copied()
    }

    /// Wants the channel's messages for `reader`.
    pub fn join(
        &mut self,
        id: TopicId,
        reader: SubscriptionId,
        changes: &mut VecDeque<ChannelChange>,
    ) -> Joining {
        let topic = self.topics.get_mut(id).expect("a held topic exists");
        if topic.standing == Standing::Joined {
            return Joining::Seated(topic.seats.sit_down(reader));
        }
        topic.joining.push(reader);
        if topic.standing == Standing::Left {
            topic.standing = Standing::Joining;
            changes.push_back(ChannelChange::Join(topic.name.clone()));
        }
        Joining::Waiting
    }

    /// Redis has confirmed: those who waited are readers now, in the order of their coming.
    pub fn joined(&mut self, name: &str) -> Vec<(SubscriptionId, Seat)> {
        let Some(id) = self.find(name) else { return Vec::new() };
        let topic = self.topics.get_mut(id).expect("names lead to topics");
        if topic.standing != Standing::Joining {
            return Vec::new();
        }
        topic.standing = Standing::Joined;
        let waited = std::mem::take(&mut topic.joining);
        waited.into_iter().map(|reader| (reader, topic.seats.sit_down(reader))).collect()
    }

    /// Redis has refused: gives those who waited.
    pub fn refused(&mut self, name: &str) -> Vec<SubscriptionId> {
        let Some(id) = self.find(name) else { return Vec::new() };
        let topic = self.topics.get_mut(id).expect("names lead to topics");
        if topic.standing != Standing::Joining {
            return Vec::new();
        }
        topic.standing = Standing::Left;
        std::mem::take(&mut topic.joining)
    }

    /// Wants no more messages for `reader`. Gives the reader that took over its seat, if any.
    pub fn leave(
        &mut self,
        id: TopicId,
        reader: SubscriptionId,
        seat: Option<Seat>,
        changes: &mut VecDeque<ChannelChange>,
    ) -> Option<SubscriptionId> {
        let topic = self.topics.get_mut(id).expect("a held topic exists");
        let mut moved = None;
        match seat {
            Some(seat) => moved = topic.seats.leave(seat, reader),
            None => topic.joining.retain(|&other| other != reader),
        }
        let unused = topic.is_unread() && topic.joining.is_empty();
        if unused && topic.standing != Standing::Left {
            topic.standing = Standing::Left;
            topic.index = None;
            changes.push_back(ChannelChange::Leave(topic.name.clone()));
        }
        moved
    }

    /// Redis was lost: gives those who waited for it. Readers leave with their sessions. (Another
    /// Redis, that was not lost, may have subscribed already.)
    pub fn lost(&mut self, changes: &mut VecDeque<ChannelChange>) -> Vec<SubscriptionId> {
        let mut waited = Vec::new();
        for id in self.topics.ids() {
            let topic = self.topics.get_mut(id).expect("just listed");
            if topic.standing == Standing::Joining {
                topic.standing = Standing::Left;
                waited.append(&mut topic.joining);
                changes.push_back(ChannelChange::Leave(topic.name.clone()));
            }
        }
        waited
    }

    /// Services as a new configuration has them; one that it lacks stays what it was for those
    /// who are subscribed still.
    pub fn reconfigure(&mut self, config: &Config) {
        for id in self.topics.ids() {
            let topic = self.topics.get_mut(id).expect("just listed");
            if let Some(service) = config.service(&topic.service.name) {
                topic.service = service.clone();
            }
            // Its fields may be others now; it is made anew when a message asks for it.
            topic.index = None;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The names of the channels that should be subscribed at Redis now.
    pub fn wanted(&self) -> impl Iterator<Item = &Rc<str>> {
        let wanted = self.topics.iter().filter(|(_, topic)| topic.standing != Standing::Left);
        wanted.map(|(_, topic)| &topic.name)
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        assert_eq!(self.by_name.len(), self.topics.len(), "each topic has one name");
        for (id, topic) in self.topics.iter() {
            assert_eq!(self.by_name.get(topic.name.as_bytes()), Some(&id));
            let used = topic.seats.readers().len() + topic.joining.len();
            assert!(used <= topic.holders, "readers hold their topic");
            assert_eq!(used > 0, topic.standing != Standing::Left, "used means subscribed");
            assert!(topic.joining.is_empty() || topic.standing == Standing::Joining);
            if let Some(index) = &topic.index {
                let confirmed = topic.seats.readers().len() - index.provisional().len();
                for field in 0..index.fields().len() {
                    assert_eq!(index.len_of(field), confirmed, "every reader is indexed");
                }
            }
            assert!(topic.is_unread() || topic.standing == Standing::Joined);
        }
    }
}

impl Topic {
    fn is_unread(&self) -> bool {
        self.seats.readers().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::SubscriptionTag;

    struct Bench {
        topics: Topics,
        changes: VecDeque<ChannelChange>,
        ids: Arena<SubscriptionTag, ()>,
    }

    fn bench() -> Bench {
        Bench { topics: Topics::default(), changes: VecDeque::new(), ids: Arena::default() }
    }

    #[test]
    fn the_first_reader_joins_and_the_last_one_leaves() {
        let Bench { mut topics, mut changes, mut ids } = bench();
        let (a, b) = (ids.insert(()), ids.insert(()));
        let service = Rc::default();
        let id = topics.hold("s.t", &service);
        assert_eq!(topics.join(id, a, &mut changes), Joining::Waiting);
        assert_eq!(topics.hold("s.t", &service), id);
        assert_eq!(topics.join(id, b, &mut changes), Joining::Waiting);
        assert_eq!(changes, [ChannelChange::Join("s.t".into())]);
        topics.audit();
        let seats = topics.joined("s.t");
        assert_eq!(seats.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [a, b]);
        assert_eq!(topics.joined("s.t"), [], "a second confirmation says nothing new");
        assert_eq!(topics.leave(id, a, Some(seats[0].1), &mut changes), Some(b));
        topics.release(id);
        assert_eq!(changes.len(), 1);
        assert_eq!(topics.leave(id, b, Some(seats[0].1), &mut changes), None);
        topics.release(id);
        assert_eq!(changes[1], ChannelChange::Leave("s.t".into()));
        topics.audit();
        assert!(topics.is_empty());
    }

    #[test]
    fn a_refusal_hits_those_who_waited() {
        let Bench { mut topics, mut changes, mut ids } = bench();
        let a = ids.insert(());
        let id = topics.hold("s.t", &Rc::default());
        topics.join(id, a, &mut changes);
        assert_eq!(topics.refused("s.t"), [a]);
        assert_eq!(topics.leave(id, a, None, &mut changes), None);
        assert_eq!(changes.len(), 1, "what was refused need not be left");
        topics.release(id);
        topics.audit();
    }
}
