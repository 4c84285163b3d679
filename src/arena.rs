//! Generational slots: an id of something that is gone reaches nothing.
//!
//! `Arena` hands out ids and owns the values; `Table` hangs further values on ids that another
//! arena handed out.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;

/// The name of a slot's occupant. `Tag` keeps ids of different arenas apart.
pub struct Id<Tag> {
    index: u32,
    /// Never 0, so that an `Option` of an id takes no more room: ids stand in long lists.
    generation: NonZeroU32,
    of: PhantomData<fn() -> Tag>,
}

/// Tags of the three families of ids that cross module borders.
pub enum ConnTag {}
pub enum SessionTag {}
pub enum SubscriptionTag {}

/// A connection of any kind: WebSocket client, Redis link, callback, scrape.
pub type ConnId = Id<ConnTag>;
/// A WebSocket session; it outlives its connection until its farewell callbacks are done.
pub type SessionId = Id<SessionTag>;
/// One subscription of one session.
pub type SubscriptionId = Id<SubscriptionTag>;

impl<Tag> Id<Tag> {
    /// The slot's position, small and dense: usable as an array index.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How often the slot had been taken before.
    pub fn generation(self) -> u32 {
        self.generation.get() - 1
    }
}

// Derives would demand the same of `Tag`, which is never a value.
impl<Tag> Clone for Id<Tag> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Tag> Copy for Id<Tag> {}
impl<Tag> PartialEq for Id<Tag> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<Tag> Eq for Id<Tag> {}
impl<Tag> PartialOrd for Id<Tag> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<Tag> Ord for Id<Tag> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}
impl<Tag> Hash for Id<Tag> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<Tag> fmt::Debug for Id<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
/// `index-generation`, as log lines show it.
impl<Tag> fmt::Display for Id<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.generation())
    }
}

struct Slot<T> {
    generation: NonZeroU32,
    value: Option<T>,
}

/// Values in slots that are used again, each time under a new id.
pub struct Arena<Tag, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    of: PhantomData<fn() -> Tag>,
}

impl<Tag, T> Default for Arena<Tag, T> {
    fn default() -> Self {
        Arena { slots: Vec::new(), free: Vec::new(), of: PhantomData }
    }
}

impl<Tag, T> Arena<Tag, T> {
    pub fn insert(&mut self, value: T) -> Id<Tag> {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            assert!(slot.value.is_none(), "a free slot is empty");
            slot.value = Some(value);
            return Id { index, generation: slot.generation, of: PhantomData };
        }
        let index = u32::try_from(self.slots.len()).expect("descriptors and memory end before u32");
        let generation = NonZeroU32::MIN;
        self.slots.push(Slot { generation, value: Some(value) });
        Id { index, generation, of: PhantomData }
    }

    /// Takes the value out; the id is dead from then on.
    pub fn remove(&mut self, id: Id<Tag>) -> Option<T> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.free.push(id.index);
        Some(value)
    }

    pub fn get(&self, id: Id<Tag>) -> Option<&T> {
        let slot = self.slots.get(id.index())?;
        slot.value.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub fn get_mut(&mut self, id: Id<Tag>) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index())?;
        slot.value.as_mut().filter(|_| slot.generation == id.generation)
    }

    pub fn contains(&self, id: Id<Tag>) -> bool {
        self.get(id).is_some()
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All occupants in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id<Tag>, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = Id { index: index as u32, generation: slot.generation, of: PhantomData };
            slot.value.as_ref().map(|value| (id, value))
        })
    }

    /// The ids of all occupants: for loops that change the arena as they go.
    pub fn ids(&self) -> Vec<Id<Tag>> {
        self.iter().map(|(id, _)| id).collect()
    }
}

/// Values hung on the ids of another arena.
pub struct Table<Tag, T> {
    entries: Vec<Option<(NonZeroU32, T)>>,
    len: usize,
    of: PhantomData<fn() -> Tag>,
}

impl<Tag, T> Default for Table<Tag, T> {
    fn default() -> Self {
        Table { entries: Vec::new(), len: 0, of: PhantomData }
    }
}

impl<Tag, T> Table<Tag, T> {
    /// Sets the value of `id`, in the place of whatever its slot held.
    pub fn insert(&mut self, id: Id<Tag>, value: T) {
        if self.entries.len() <= id.index() {
            self.entries.resize_with(id.index() + 1, || None);
        }
        let entry = &mut self.entries[id.index()];
        self.len += usize::from(entry.is_none());
        *entry = Some((id.generation, value));
    }

    pub fn remove(&mut self, id: Id<Tag>) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        if entry.as_ref()?.0 != id.generation {
            return None;
        }
        self.len -= 1;
        entry.take().map(|(_, value)| value)
    }

    pub fn get(&self, id: Id<Tag>) -> Option<&T> {
        let (generation, value) = self.entries.get(id.index())?.as_ref()?;
        (*generation == id.generation).then_some(value)
    }

    pub fn contains(&self, id: Id<Tag>) -> bool {
        self.get(id).is_some()
    }

    pub fn get_mut(&mut self, id: Id<Tag>) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(id.index())?.as_mut()?;
        (*generation == id.generation).then_some(value)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id whose value a slot holds.
    pub fn id_at(&self, index: usize) -> Option<Id<Tag>> {
        let (generation, _) = self.entries.get(index)?.as_ref()?;
        Some(Id { index: index as u32, generation: *generation, of: PhantomData })
    }

    /// All values in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id<Tag>, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let (generation, value) = entry.as_ref()?;
            Some((Id { index: index as u32, generation: *generation, of: PhantomData }, value))
        })
    }

    pub fn ids(&self) -> Vec<Id<Tag>> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_id_reaches_nothing() {
        let mut arena: Arena<ConnTag, &str> = Arena::default();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(first.index(), second.index(), "the slot is used again");
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn a_table_forgets_with_the_generation() {
        let mut arena: Arena<ConnTag, ()> = Arena::default();
        let mut table = Table::default();
        let first = arena.insert(());
        table.insert(first, 1);
        arena.remove(first);
        let second = arena.insert(());
        assert_eq!(table.get(second), None);
        table.insert(second, 2);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.remove(second), Some(2));
        assert!(table.is_empty());
    }
}
