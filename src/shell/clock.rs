//! The two clocks, read once a turn.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, Wall};

pub struct Clock {
    zero: std::time::Instant,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { zero: std::time::Instant::now() }
    }

    /// Both clocks now. The standard library's monotonic clock does not run backwards.
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Now { mono: Instant(mono), wall: Wall(wall) }
    }

    /// How long to wait for a deadline; `None`: forever.
    pub fn until(&self, deadline: Option<Instant>) -> Option<Duration> {
        // A wait that ends a little early would find nothing due and wait again.
        deadline.map(|at| at.since(self.now().mono) + Duration::from_micros(1))
    }
}

/// A seed from the system's randomness, by way of the standard library's hasher keys.
pub fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
