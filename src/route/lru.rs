//! State by key for the keys used last.
//!
//! Every subscription with ordered or throttled messages owns such a map, and nearly all of them
//! hold one key, the absent one: then it is one allocation of one entry. A few keys are found by
//! looking at each; only past that is there a hash table beside the entries.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::rc::Rc;
use std::sync::LazyLock;

/// A key: the canonical form of a JSON value. It is hashed once, however many maps it is looked up
/// in and however long it is.
#[derive(Clone, Debug)]
pub struct Key {
    hash: u64,
    bytes: Rc<[u8]>,
}

/// Publishers choose the keys: they must not know what collides.
static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Key {
    pub fn new(bytes: &[u8]) -> Key {
        Key { hash: KEYED.hash_one(bytes), bytes: bytes.into() }
    }

    #[cfg(any(test, fuzzing))]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.hash == other.hash
            && (Rc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Up to this many keys are looked through; comparing them is cheaper than hashing one.
const SCANNED_MAX: usize = 8;

/// The end of the chain.
const NONE: u32 = u32::MAX;

struct Entry<V> {
    key: Key,
    value: V,
    /// The neighbours in the order of use, as positions in `entries`.
    older: u32,
    newer: u32,
}

/// A map that forgets the key unused for longest. All operations take constant time.
pub struct Lru<V> {
    /// Without gaps: removing moves the last entry to the free place.
    entries: Vec<Entry<V>>,
    oldest: u32,
    newest: u32,
    /// Positions by key, while there are more keys than are looked through. The hasher is keyed:
    /// publishers choose the keys.
    #[expect(clippy::box_collection, reason = "nearly no map has one: 8 bytes for it, not 48")]
    index: Option<Box<HashMap<Key, u32>>>,
}

impl<V> Default for Lru<V> {
    fn default() -> Self {
        Lru { entries: Vec::new(), oldest: NONE, newest: NONE, index: None }
    }
}

impl<V> Lru<V> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key's value; this counts as its use.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        let at = self.find(key)?;
        if at != self.newest {
            self.unlink(at);
            self.link_newest(at);
        }
        Some(&mut self.entries[at as usize].value)
    }

    /// Sets the key's value; this counts as its use. A new key past `capacity` takes the place of
    /// the one unused for longest, which comes back. With a capacity of 0 it is the new one
    /// itself; a map above a capacity that was lowered meanwhile grows no further.
    pub fn insert(&mut self, key: Key, value: V, capacity: usize) -> Option<(Key, V)> {
        if let Some(known) = self.get_mut(&key) {
            *known = value;
            return None;
        }
        if capacity == 0 {
            return Some((key, value));
        }
        let forgotten = if self.entries.len() >= capacity { self.forget_oldest() } else { None };
        self.push(key, value);
        forgotten
    }

    fn find(&self, key: &Key) -> Option<u32> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.entries.iter().position(|entry| entry.key == *key).map(|at| at as u32),
        }
    }

    fn forget_oldest(&mut self) -> Option<(Key, V)> {
        (self.oldest != NONE).then(|| self.take(self.oldest))
    }

    fn push(&mut self, key: Key, value: V) {
        let at = u32::try_from(self.entries.len()).expect("memory ends before u32");
        if self.entries.is_empty() {
            // `push` would make room for four.
            self.entries.reserve_exact(1);
        }
        if let Some(index) = &mut self.index {
            index.insert(key.clone(), at);
        }
        self.entries.push(Entry { key, value, older: NONE, newer: NONE });
        self.link_newest(at);
        if self.index.is_none() && self.entries.len() > SCANNED_MAX {
            let positions = self.entries.iter().zip(0..);
            let index = positions.map(|(entry, at)| (entry.key.clone(), at)).collect();
            self.index = Some(Box::new(index));
        }
    }

    /// Takes an entry out; the last one moves to its place.
    fn take(&mut self, at: u32) -> (Key, V) {
        self.unlink(at);
        let entry = self.entries.swap_remove(at as usize);
        if let Some(index) = &mut self.index {
            index.remove(&entry.key);
        }
        if let Some(moved) = self.entries.get(at as usize) {
            let (older, newer) = (moved.older, moved.newer);
            if let Some(position) = self.index.as_mut().and_then(|index| index.get_mut(&moved.key))
            {
                *position = at;
            }
            self.set_newer(older, at);
            self.set_older(newer, at);
        }
        self.shrink();
        (entry.key, entry.value)
    }

    /// Gives memory back after a burst of keys, but not at every step around the limit.
    fn shrink(&mut self) {
        if self.entries.len() <= SCANNED_MAX / 2 && self.index.take().is_some() {
            self.entries.shrink_to_fit();
        }
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { older, newer, .. } = self.entries[at as usize];
        self.set_newer(older, newer);
        self.set_older(newer, older);
    }

    fn link_newest(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        (entry.older, entry.newer) = (self.newest, NONE);
        self.set_newer(self.newest, at);
        self.newest = at;
    }

    /// Lets what follows the entry at `of` be `to`; before all entries stands `oldest`.
    fn set_newer(&mut self, of: u32, to: u32) {
        match self.entries.get_mut(of as usize) {
            Some(entry) => entry.newer = to,
            None => self.oldest = to,
        }
    }

    /// Lets what precedes the entry at `of` be `to`; after all entries stands `newest`.
    fn set_older(&mut self, of: u32, to: u32) {
        match self.entries.get_mut(of as usize) {
            Some(entry) => entry.older = to,
            None => self.newest = to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn key(number: u64) -> Key {
        Key::new(number.to_string().as_bytes())
    }

    /// The same with no cleverness: the oldest first.
    #[derive(Default)]
    struct Model(Vec<(Key, u64)>);

    impl Model {
        fn remove(&mut self, key: &Key) -> Option<u64> {
            let at = self.0.iter().position(|(known, _)| known == key)?;
            Some(self.0.remove(at).1)
        }

        fn get(&mut self, key: &Key) -> Option<u64> {
            let value = self.remove(key)?;
            self.0.push((key.clone(), value));
            Some(value)
        }

        fn insert(&mut self, key: Key, value: u64, capacity: usize) -> Option<(Key, u64)> {
            if self.remove(&key).is_some() {
                self.0.push((key, value));
                return None;
            }
            if capacity == 0 {
                return Some((key, value));
            }
            let forgotten = (self.0.len() >= capacity).then(|| self.0.remove(0));
            self.0.push((key, value));
            forgotten
        }
    }

    /// The chain holds every entry once, both ways, in the model's order; the index is right.
    fn audit(lru: &Lru<u64>, model: &Model) {
        let mut chain = Vec::new();
        let (mut at, mut before) = (lru.oldest, NONE);
        while let Some(entry) = lru.entries.get(at as usize) {
            assert_eq!(entry.older, before);
            assert_eq!(lru.find(&entry.key), Some(at));
            chain.push((entry.key.clone(), entry.value));
            assert!(chain.len() <= lru.len());
            (before, at) = (at, entry.newer);
        }
        assert_eq!((at, lru.newest), (NONE, before));
        assert_eq!(chain, model.0);
        assert_eq!(lru.len(), model.0.len());
        match &lru.index {
            Some(index) => assert!(index.len() == lru.len() && lru.len() > SCANNED_MAX / 2),
            None => assert!(lru.len() <= SCANNED_MAX),
        }
    }

    #[test]
    fn it_does_what_the_model_does() {
        for seed in 0..60 {
            let mut random = Random::seeded(seed);
            let mut below = |limit: u64| random.number() % limit;
            // Some runs stay small, some live at the border of the index, some far beyond.
            let keys = [1, 3, 12, 40][below(4) as usize];
            let mut capacity = below(keys + 2) as usize;
            let (mut lru, mut model) = (Lru::default(), Model::default());
            for step in 0..600 {
                let key = key(below(keys));
                match below(8) {
                    3 => assert_eq!(lru.get_mut(&key).copied(), model.get(&key)),
                    4 if step % 50 == 0 => capacity = below(keys + 2) as usize,
                    _ => assert_eq!(
                        lru.insert(key.clone(), step, capacity),
                        model.insert(key, step, capacity)
                    ),
                }
                audit(&lru, &model);
            }
        }
    }

    #[test]
    fn one_key_takes_one_entry_and_none_takes_nothing() {
        let mut lru = Lru::default();
        assert_eq!(lru.entries.capacity(), 0);
        lru.insert(key(0), 1, 1_000);
        assert_eq!((lru.entries.capacity(), lru.index.is_none()), (1, true));
        for number in 0..1_000 {
            lru.insert(key(number), number, 1_000);
        }
        assert!(lru.index.is_some());
        for _ in 1..1_000 {
            lru.forget_oldest();
        }
        assert!(lru.index.is_none() && lru.entries.capacity() <= SCANNED_MAX);
        lru.forget_oldest();
        assert_eq!(lru.entries.capacity(), 0);
    }
}
