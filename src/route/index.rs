//! Finding the readers that a message is for by the value of a filter field, without asking each.
//!
//! Where everybody is subscribed to the same topic and each message is for one user, the cost of a
//! message must grow with those who match, not with those who read. An index is made when a topic
//! with many readers gets its first message with a filter field, and kept up from then on.

use std::collections::{BTreeSet, HashMap};

use super::inline::InlineBytes;
use crate::arena::SubscriptionId;

/// Below this many readers, asking each is as quick. (Tests have few readers and want an index.)
pub const READERS_MIN: usize = if cfg!(test) { 3 } else { 64 };

/// Subscriptions that have one value. Mostly there is one of them.
enum Bucket {
    One(SubscriptionId),
    Many(BTreeSet<SubscriptionId>),
}

/// One filter field of the topic's service.
pub struct Field {
    pub name: String,
    /// Its value is an extra field of the subscription; else an authentication field of its
    /// session.
    pub is_extra: bool,
    by_value: HashMap<InlineBytes, Bucket>,
}

/// The readers of one topic.
pub struct Index {
    fields: Vec<Field>,
    /// Readers that are not confirmed yet: they hold every message, whatever its fields.
    provisional: BTreeSet<SubscriptionId>,
}

impl Index {
    /// An empty index over these fields.
    pub fn new(fields: impl Iterator<Item = (String, bool)>) -> Index {
        let field = |(name, is_extra)| Field { name, is_extra, by_value: HashMap::new() };
        Index { fields: fields.map(field).collect(), provisional: BTreeSet::new() }
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Takes up a confirmed reader; `values` are canonical forms, in the order of the fields.
    pub fn add(&mut self, id: SubscriptionId, values: Vec<Vec<u8>>) {
        for (field, value) in self.fields.iter_mut().zip(values) {
            match field.by_value.entry(InlineBytes::new(&value)) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(Bucket::One(id));
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().add(id),
            }
        }
    }

    /// Drops a confirmed reader; `values` must be those that it was added with.
    pub fn remove(&mut self, id: SubscriptionId, values: &[Vec<u8>]) {
        for (field, value) in self.fields.iter_mut().zip(values) {
            let bucket =
                field.by_value.get_mut(value.as_slice()).expect("it was added with this value");
            if bucket.remove(id) {
                field.by_value.remove(value.as_slice());
            }
        }
    }

    pub fn add_provisional(&mut self, id: SubscriptionId) {
        self.provisional.insert(id);
    }

    pub fn remove_provisional(&mut self, id: SubscriptionId) {
        self.provisional.remove(&id);
    }

    pub fn provisional(&self) -> &BTreeSet<SubscriptionId> {
        &self.provisional
    }

    /// The confirmed readers that have a value: of several fields the one with the fewest. `None`:
    /// none of the fields is indexed.
    pub fn candidates<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a str, Vec<u8>)>,
    ) -> Option<Vec<SubscriptionId>> {
        let found = wanted.filter_map(|(name, value)| {
            let field = self.fields.iter().find(|field| field.name == name)?;
            Some(field.by_value.get(value.as_slice()))
        });
        let least = found.min_by_key(|bucket| bucket.map_or(0, Bucket::len))?;
        Some(least.map_or_else(Vec::new, Bucket::ids))
    }

    /// How many entries a field has; for audits.
    pub fn len_of(&self, field: usize) -> usize {
        self.fields[field].by_value.values().map(Bucket::len).sum()
    }
}

impl Bucket {
    fn len(&self) -> usize {
        match self {
            Bucket::One(_) => 1,
            Bucket::Many(ids) => ids.len(),
        }
    }

    fn ids(&self) -> Vec<SubscriptionId> {
        match self {
            Bucket::One(id) => vec![*id],
            Bucket::Many(ids) => ids.iter().copied().collect(),
        }
    }

    fn add(&mut self, id: SubscriptionId) {
        match self {
            Bucket::One(one) => *self = Bucket::Many(BTreeSet::from([*one, id])),
            Bucket::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Says whether nobody is left.
    fn remove(&mut self, id: SubscriptionId) -> bool {
        match self {
            Bucket::One(one) => {
                assert_eq!(*one, id, "it was added with this value");
                true
            }
            Bucket::Many(ids) => {
                assert!(ids.remove(&id), "it was added with this value");
                ids.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, SubscriptionTag};

    #[test]
    fn readers_are_found_by_the_field_with_the_fewest() {
        let mut ids = Arena::<SubscriptionTag, ()>::default();
        let readers: Vec<SubscriptionId> = (0..10).map(|_| ids.insert(())).collect();
        let fields = [("room".to_owned(), true), ("user".to_owned(), false)];
        let mut index = Index::new(fields.into_iter());
        let values = |n: usize| vec![vec![(n % 2) as u8], vec![n as u8]];
        for (n, &id) in readers.iter().enumerate() {
            index.add(id, values(n));
        }
        let room = |n: u8| ("room", vec![n]);
        let user = |n: u8| ("user", vec![n]);
        let found = |wanted: Vec<(&'static str, Vec<u8>)>| index.candidates(wanted.into_iter());
        assert_eq!(found(vec![room(0)]).unwrap().len(), 5);
        assert_eq!(found(vec![room(0), user(4)]), Some(vec![readers[4]]));
        assert_eq!(found(vec![user(99), room(0)]), Some(vec![]));
        assert_eq!(found(vec![("other", vec![])]), None);
        for (n, &id) in readers.iter().enumerate() {
            index.remove(id, &values(n));
        }
        assert_eq!((index.len_of(0), index.len_of(1)), (0, 0));
        assert!(index.fields.iter().all(|field| field.by_value.is_empty()));
    }
}
