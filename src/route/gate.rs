//! Order and throttle of one subscription: pure decisions on numbers, keys and the time.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::lru::{Key, Lru};
use super::publication::Options;
use crate::metrics::Filtered;
use crate::time::Instant;

/// The state that publications leave behind in a subscription.
#[derive(Default)]
pub struct Gate {
    /// The highest order so far.
    orders: Lru<f64>,
    throttles: Lru<Throttle>,
    /// Throttled messages by the moment they may go out.
    due: BTreeMap<Slot, Key>,
    /// Bytes of the texts that wait.
    waiting_bytes: usize,
    sequence: u64,
    /// The moment that a timer is set for.
    armed: Option<Instant>,
}

/// A moment, and a number that keeps messages of one moment apart.
type Slot = (Instant, u64);

struct Throttle {
    sent: Instant,
    /// The latest message within the period.
    waiting: Option<(Slot, Rc<str>)>,
}

/// How many keys a subscription may hold, and how many bytes its session.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub keys: usize,
    pub bytes: usize,
    /// Those of the bytes that wait for the session elsewhere.
    pub taken: usize,
}

/// What became of a message at the gate.
#[derive(Debug, PartialEq, Eq)]
pub struct Passage {
    /// `None`: deliver it.
    pub filtered: Option<Filtered>,
    /// Waiting messages that go out early, since there is no room for them to wait on.
    pub released: Vec<Rc<str>>,
    /// Keys forgotten.
    pub forgotten: u64,
}

impl Gate {
    /// Decides on a message. `text` gives the message for waiting.
    pub fn pass(
        &mut self,
        now: Instant,
        options: &Options,
        room: Room,
        text: impl FnOnce() -> Rc<str>,
    ) -> Passage {
        let mut passage = Passage { filtered: None, released: Vec::new(), forgotten: 0 };
        if let Some((order, key)) = &options.order
            && !self.order(*order, key, room, &mut passage)
        {
            passage.filtered = Some(Filtered::Order);
        } else if let Some((seconds, key)) = &options.throttle
            && !self.throttle(now, *seconds, key, room, (text, &mut passage))
        {
            passage.filtered = Some(Filtered::Throttle);
        }
        passage
    }

    /// Whether `order` is above the highest so far of its key.
    fn order(&mut self, order: f64, key: &Key, room: Room, passage: &mut Passage) -> bool {
        if let Some(highest) = self.orders.get_mut(key) {
            if order <= *highest {
                return false;
            }
            *highest = order;
            return true;
        }
        let forgotten = self.orders.insert(key.clone(), order, room.keys);
        passage.forgotten += u64::from(forgotten.is_some());
        true
    }

    /// Whether a message may go out now; if not, it waits in the place of the one before.
    fn throttle(
        &mut self,
        now: Instant,
        seconds: f64,
        key: &Key,
        room: Room,
        (message, passage): (impl FnOnce() -> Rc<str>, &mut Passage),
    ) -> bool {
        // A period beyond what a duration can hold never ends; one of 0 or less never waits.
        let period = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        let Some(state) = self.throttles.get_mut(key) else {
            let state = Throttle { sent: now, waiting: None };
            if let Some((_, oldest)) = self.throttles.insert(key.clone(), state, room.keys) {
                passage.forgotten += 1;
                passage.released.extend(self.forget(oldest));
            }
            return true;
        };
        let text = match &mut state.waiting {
            None if state.sent.after(period) <= now => {
                state.sent = now;
                return true;
            }
            None => {
                self.sequence += 1;
                let slot = (state.sent.after(period), self.sequence);
                self.due.insert(slot, key.clone());
                &mut state.waiting.insert((slot, "".into())).1
            }
            Some((_, text_before)) => text_before,
        };
        let text_before = std::mem::replace(text, message());
        self.waiting_bytes = self.waiting_bytes - text_before.len() + text.len();
        self.release_over(room, passage);
        false
    }

    /// A key was forgotten: what waited under it does not wait on.
    fn forget(&mut self, state: Throttle) -> Option<Rc<str>> {
        let (slot, text) = state.waiting?;
        self.due.remove(&slot);
        self.waiting_bytes -= text.len();
        Some(text)
    }

    /// Lets go what waits longest while too much waits. One message of any size may, alone.
    fn release_over(&mut self, room: Room, passage: &mut Passage) {
        let least = usize::from(room.taken == 0);
        while room.taken.saturating_add(self.waiting_bytes) > room.bytes && self.due.len() > least {
            passage.released.extend(self.take_first(None));
        }
    }

    /// Bytes of the messages that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The moment at which the next throttled message may go out.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The moment to set a timer for, where none is set that would do.
    pub fn arm(&mut self) -> Option<Instant> {
        let next = self.next_due()?;
        if self.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed = Some(next);
        self.armed
    }

    /// A timer has fired. Says whether it is the one that was set last.
    pub fn fired(&mut self, at: Instant) -> bool {
        let is_current = self.armed == Some(at);
        if is_current {
            self.armed = None;
        }
        is_current
    }

    /// A throttled message that is due; it counts as sent now.
    pub fn take_due(&mut self, now: Instant) -> Option<Rc<str>> {
        if self.next_due()? > now {
            return None;
        }
        self.take_first(Some(now))
    }

    fn take_first(&mut self, sent: Option<Instant>) -> Option<Rc<str>> {
        let (_, key) = self.due.pop_first()?;
        let state = self.throttles.get_mut(&key)?;
        let (_, text) = state.waiting.take()?;
        state.sent = sent.unwrap_or(state.sent);
        self.waiting_bytes -= text.len();
        Some(text)
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        assert!(self.due.len() <= self.throttles.len(), "every waiting message has its key");
        assert!(self.due.is_empty() || self.armed.is_some(), "what waits has its timer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { keys: 2, bytes: 100, taken: 0 };

    fn order(order: f64, key: &str) -> Options {
        Options { order: Some((order, Key::new(key.as_bytes()))), throttle: None }
    }

    fn throttle(seconds: f64) -> Options {
        Options { order: None, throttle: Some((seconds, Key::new(b"n"))) }
    }

    fn pass(gate: &mut Gate, at: u64, options: &Options, text: &str) -> Option<Filtered> {
        let passage = gate.pass(Instant(at), options, ROOM, || text.into());
        gate.arm();
        gate.audit();
        passage.filtered
    }

    #[test]
    fn only_a_higher_order_of_the_same_key_passes() {
        let mut gate = Gate::default();
        assert_eq!(pass(&mut gate, 0, &order(1.0, "a"), ""), None);
        assert_eq!(pass(&mut gate, 0, &order(1.0, "a"), ""), Some(Filtered::Order));
        assert_eq!(pass(&mut gate, 0, &order(0.5, "b"), ""), None);
        assert_eq!(pass(&mut gate, 0, &order(f64::INFINITY, "a"), ""), None);
        assert_eq!(pass(&mut gate, 0, &order(f64::INFINITY, "a"), ""), Some(Filtered::Order));
    }

    #[test]
    fn the_key_unused_for_longest_is_forgotten() {
        let mut gate = Gate::default();
        for (key, value) in [("a", 5.0), ("b", 5.0), ("a", 6.0), ("c", 5.0)] {
            assert_eq!(pass(&mut gate, 0, &order(value, key), ""), None);
        }
        assert_eq!(pass(&mut gate, 0, &order(1.0, "a"), ""), Some(Filtered::Order));
        assert_eq!(pass(&mut gate, 0, &order(1.0, "b"), ""), None, "b was forgotten");
    }

    #[test]
    fn the_latest_of_a_period_goes_out_at_its_end() {
        let mut gate = Gate::default();
        let second = 1_000_000;
        assert_eq!(pass(&mut gate, 0, &throttle(1.0), "1"), None);
        assert_eq!(pass(&mut gate, second / 2, &throttle(1.0), "2"), Some(Filtered::Throttle));
        assert_eq!(gate.next_due(), Some(Instant(second)));
        // A later one replaces the data only, whatever its own period.
        assert_eq!(pass(&mut gate, second / 2, &throttle(9.0), "3"), Some(Filtered::Throttle));
        assert_eq!(pass(&mut gate, second / 2, &throttle(0.0), "4"), Some(Filtered::Throttle));
        assert_eq!(gate.take_due(Instant(second - 1)), None);
        assert_eq!(gate.take_due(Instant(second)).as_deref(), Some("4"));
        assert_eq!(gate.next_due(), None);
        // The one that went out starts a new period.
        assert_eq!(pass(&mut gate, second + 1, &throttle(1.0), "5"), Some(Filtered::Throttle));
        assert_eq!(gate.next_due(), Some(Instant(2 * second)));
    }

    #[test]
    fn a_period_of_zero_or_less_never_waits() {
        let mut gate = Gate::default();
        for seconds in [0.0, -1.0, f64::NEG_INFINITY] {
            assert_eq!(pass(&mut gate, 7, &throttle(seconds), ""), None);
        }
    }

    #[test]
    fn an_endless_period_waits_forever_and_does_not_overflow() {
        let mut gate = Gate::default();
        assert_eq!(pass(&mut gate, 1, &throttle(f64::INFINITY), "1"), None);
        assert_eq!(pass(&mut gate, 2, &throttle(f64::INFINITY), "2"), Some(Filtered::Throttle));
        assert_eq!(gate.take_due(Instant(u64::MAX - 1)), None);
    }

    #[test]
    fn what_has_no_room_to_wait_goes_out_early() {
        let mut gate = Gate::default();
        let keyed =
            |key: &str| Options { order: None, throttle: Some((1.0, Key::new(key.as_bytes()))) };
        for key in ["a", "b"] {
            assert_eq!(pass(&mut gate, 0, &keyed(key), ""), None);
            assert_eq!(pass(&mut gate, 0, &keyed(key), key), Some(Filtered::Throttle));
        }
        let passage = gate.pass(Instant(0), &keyed("c"), ROOM, || "".into());
        assert_eq!(passage.released, [Rc::from("a")]);
        assert_eq!(passage.forgotten, 1);
        let long = "x".repeat(101);
        let passage = gate.pass(Instant(0), &keyed("c"), ROOM, || long.as_str().into());
        assert_eq!(passage.released, [Rc::from("b")]);
    }
}
