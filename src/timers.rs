//! What is to happen later: a heap of moments. Nothing is taken out one by one; whoever a moment
//! belongs to ignores it when it has become pointless, and where those that belong to nobody may
//! be many, all of them are swept out together.

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
    /// The number of timers that were left by the last sweep.
    swept: usize,
}

/// Timers that are never too many.
const UNSWEPT_MAX: usize = 4_096;

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

    /// Forgets what belongs to nobody any more: clients that come and go, or subscribe and
    /// unsubscribe, leave a moment behind each time, perhaps for hours. Looks only where there are
    /// twice as many as the last time, so that each timer is looked at about once.
    pub fn sweep(&mut self, is_live: impl Fn(Timer) -> bool) {
        if self.heap.len() > 2 * self.swept + UNSWEPT_MAX {
            self.heap.retain(|Reverse((_, _, timer))| is_live(*timer));
            self.heap.shrink_to(2 * self.heap.len() + UNSWEPT_MAX);
            self.swept = self.heap.len();
        }
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

    #[test]
    fn what_belongs_to_nobody_is_swept_out() {
        let mut timers = Timers::default();
        let mut arena = crate::arena::Arena::<crate::arena::ConnTag, ()>::default();
        let mut most = 0;
        for second in 0..100_000 {
            let id = arena.insert(());
            timers.set(Instant(1_000_000 + second), Timer::Connection(id));
            if second % 100 > 0 {
                arena.remove(id);
            }
            timers.sweep(|timer| match timer {
                Timer::Connection(id) => arena.contains(id),
                _ => true,
            });
            most = most.max(timers.len());
        }
        assert!(most < 4 * UNSWEPT_MAX, "{most} were kept");
        let live = std::iter::from_fn(|| timers.take_due(Instant(u64::MAX)));
        let live =
            live.filter(|(_, timer)| matches!(timer, Timer::Connection(id) if arena.contains(*id)));
        assert_eq!(live.count(), 1_000, "nothing else is lost");
    }
}
