//! Order and throttle of one subscription (section 5).

use std::rc::Rc;
use std::time::Duration;

use socketshark::time::Instant;

use crate::marks::Publication;

/// Keys with their state, the one used last at the end.
struct Keys<T>(Vec<(String, T)>);

impl<T> Keys<T> {
    /// Moves a key to the end, if it is there.
    fn touch(&mut self, key: &str) -> Option<&mut T> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        let entry = self.0.remove(at);
        self.0.push(entry);
        self.0.last_mut().map(|(_, state)| state)
    }

    /// Adds a key; past `most` the one unused for longest is forgotten.
    fn add(&mut self, key: &str, state: T, most: usize) -> Option<T> {
        let forgotten = (self.0.len() >= most).then(|| self.0.remove(0).1);
        self.0.push((key.to_owned(), state));
        forgotten
    }
}

struct Throttle {
    sent: Instant,
    /// When the latest message may go out, and the message.
    waiting: Option<(Instant, Rc<Publication>)>,
}

pub struct Gate {
    orders: Keys<f64>,
    throttles: Keys<Throttle>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { orders: Keys(Vec::new()), throttles: Keys(Vec::new()) }
    }
}

/// What becomes of a message.
pub struct Passage {
    pub passes: bool,
    /// Messages that waited under a key that is forgotten: the last one is never lost.
    pub released: Vec<Rc<Publication>>,
}

impl Gate {
    /// Bytes of the messages that wait.
    pub fn waiting_bytes(&self) -> usize {
        let waiting = self.throttles.0.iter().filter_map(|(_, state)| state.waiting.as_ref());
        waiting.map(|(_, message)| message.text.len()).sum()
    }

    pub fn pass(&mut self, now: Instant, message: &Rc<Publication>, keys: usize) -> Passage {
        let mut released = Vec::new();
        let passes = match &message.order {
            Some((order, key)) => self.orders(*order, key, keys),
            None => true,
        };
        let passes = passes
            && match &message.throttle {
                Some((seconds, key)) => {
                    self.throttles(now, *seconds, key, keys, (message, &mut released))
                }
                None => true,
            };
        Passage { passes, released }
    }

    fn orders(&mut self, order: f64, key: &str, keys: usize) -> bool {
        match self.orders.touch(key) {
            Some(highest) if order <= *highest => false,
            Some(highest) => {
                *highest = order;
                true
            }
            None => {
                self.orders.add(key, order, keys);
                true
            }
        }
    }

    fn throttles(
        &mut self,
        now: Instant,
        seconds: f64,
        key: &str,
        keys: usize,
        (message, released): (&Rc<Publication>, &mut Vec<Rc<Publication>>),
    ) -> bool {
        let Some(state) = self.throttles.touch(key) else {
            let forgotten = self.throttles.add(key, Throttle { sent: now, waiting: None }, keys);
            released.extend(forgotten.and_then(|it| it.waiting).map(|(_, message)| message));
            return true;
        };
        let due = state.sent.after(Duration::from_secs_f64(seconds.max(0.0)));
        match &mut state.waiting {
            Some((_, waiting)) => *waiting = message.clone(),
            None if due <= now => {
                state.sent = now;
                return true;
            }
            waiting => *waiting = Some((due, message.clone())),
        }
        false
    }

    /// When the next message may go out.
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.throttles.0.iter().filter_map(|(_, state)| state.waiting.as_ref());
        waiting.map(|(due, _)| *due).min()
    }

    /// The next message that may go out by now; it counts as sent now.
    pub fn take_due(&mut self, now: Instant) -> Option<Rc<Publication>> {
        let due = self.due().filter(|due| *due <= now)?;
        let is_first =
            |state: &Throttle| state.waiting.as_ref().is_some_and(|waiting| waiting.0 == due);
        let key = self.throttles.0.iter().find(|(_, state)| is_first(state))?.0.clone();
        let state = self.throttles.touch(&key)?;
        state.sent = now;
        state.waiting.take().map(|(_, message)| message)
    }
}
