//! Deadlines in order, cheap for those that move at every call.
//!
//! A connection's deadline is set anew twice a call. Only one that is earlier than the
//! connection's entry in the heap needs another entry; a later one is put in when the old entry
//! comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// Entries by time; those of one moment in the order of their coming.
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Instant, u64, K)>>,
    sequence: u64,
}

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    pub fn push(&mut self, at: Instant, key: K) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, key)));
    }

    /// The earliest entry's time; its owner may know better by then.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, key))| (at, key))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Instant, K)> {
        self.heap.iter().map(|Reverse((at, _, key))| (*at, *key))
    }

    /// Drops entries that mean nothing any more.
    pub fn retain(&mut self, is_live: impl Fn(Instant, K) -> bool) {
        self.heap.retain(|Reverse((at, _, key))| is_live(*at, *key));
    }
}

/// One deadline that moves, and the time of its entry in the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    at: Instant,
    armed: Instant,
}

impl Default for Alarm {
    /// Not set.
    fn default() -> Alarm {
        Alarm { at: Instant(u64::MAX), armed: Instant(u64::MAX) }
    }
}

impl Alarm {
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Moves the deadline. True: it needs an entry at that time.
    #[must_use]
    pub fn set(&mut self, at: Instant) -> bool {
        self.at = at;
        let earlier = at < self.armed;
        if earlier {
            self.armed = at;
        }
        earlier
    }

    /// Whether an entry at this time is the one that counts.
    pub fn is_armed_at(&self, entry: Instant) -> bool {
        self.armed == entry
    }

    /// The entry that counts has come up. True: the deadline is over; else it needs an entry at
    /// the time of `at`.
    #[must_use]
    pub fn ring(&mut self, now: Instant) -> bool {
        let over = self.at <= now;
        self.armed = if over { Instant(u64::MAX) } else { self.at };
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_of_time_and_then_of_coming() {
        let mut deadlines = Deadlines::default();
        for (at, key) in [(5, 'c'), (3, 'b'), (5, 'a'), (1, 'd')] {
            deadlines.push(Instant(at), key);
        }
        assert_eq!(deadlines.next(), Some(Instant(1)));
        let due: Vec<char> =
            std::iter::from_fn(|| deadlines.pop_due(Instant(5))).map(|(_, key)| key).collect();
        assert_eq!(due, ['d', 'b', 'c', 'a']);
        deadlines.push(Instant(6), 'e');
        assert_eq!(deadlines.pop_due(Instant(5)), None);
    }

    #[test]
    fn a_later_deadline_needs_no_entry() {
        let mut alarm = Alarm::default();
        assert!(alarm.set(Instant(10)));
        assert!(!alarm.set(Instant(20)));
        assert!(alarm.is_armed_at(Instant(10)));
        assert!(!alarm.ring(Instant(10)), "it has moved");
        assert!(alarm.is_armed_at(Instant(20)));
        assert!(alarm.set(Instant(15)));
        assert!(!alarm.is_armed_at(Instant(20)));
        assert!(alarm.ring(Instant(15)));
    }
}
