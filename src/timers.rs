//! What is to happen later: a heap of moments. Nothing is ever taken out early; whoever a moment
//! belongs to ignores it when it has become pointless.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::arena::{ConnId, SubscriptionId};
use crate::time::Instant;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// A client's or scrape's own deadline.
    Connection(ConnId),
    /// A subscription's authorization is to be renewed.
    Renewal(SubscriptionId),
    Heartbeat(SubscriptionId),
    /// A throttled message may go out.
    Throttle(SubscriptionId),
    /// The router has not connected to every Redis in time at start.
    Start,
    /// The graceful shutdown has taken too long.
    Shutdown,
}

/// Ordered by moment, then by the order of setting: what was set first fires first.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64, Timer)>>,
    sequence: u64,
}

impl Timers {
    /// Sets a timer. One for the far future never fires, nor would it ever be taken out.
    pub fn set(&mut self, at: Instant, timer: Timer) {
        if at == Instant(u64::MAX) {
            return;
        }
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, timer)));
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next timer that is due, with the moment it was set for.
    pub fn take_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next_deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, timer))| (at, timer))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_of_time_then_of_setting() {
        let mut timers = Timers::default();
        timers.set(Instant(5), Timer::Shutdown);
        timers.set(Instant(3), Timer::Start);
        timers.set(Instant(3), Timer::Shutdown);
        assert_eq!(timers.next_deadline(), Some(Instant(3)));
        assert_eq!(timers.take_due(Instant(2)), None);
        assert_eq!(timers.take_due(Instant(4)), Some((Instant(3), Timer::Start)));
        assert_eq!(timers.take_due(Instant(4)), Some((Instant(3), Timer::Shutdown)));
        assert_eq!(timers.take_due(Instant(4)), None);
        assert_eq!(timers.take_due(Instant(9)), Some((Instant(5), Timer::Shutdown)));
        assert!(timers.is_empty());
        timers.set(Instant(u64::MAX), Timer::Start);
        assert!(timers.is_empty(), "never is no moment");
    }
}
