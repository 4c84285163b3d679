//! When a client is pinged and until when its pong has to be there.

use std::time::Duration;

use crate::config::WsPing;
use crate::time::{Instant, Now};

/// The ping clock of one open connection.
pub struct PingClock {
    beat: Beat,
    /// Since when the clock stands still, because the client is not read.
    held: Option<Instant>,
    /// Pings sent; the last one's number is its payload, so that no other pong counts.
    sent: u32,
}

enum Beat {
    /// No pings.
    Off,
    /// The next ping is due then.
    Due(Instant),
    /// A ping was sent, and its pong is due.
    Sent { at: Instant, until: Instant },
}

/// What is to be done.
#[derive(PartialEq, Eq, Debug)]
pub enum Due {
    /// Send a ping with this payload.
    Ping([u8; 4]),
    /// The pong did not come in time.
    TimedOut,
}

impl PingClock {
    /// Starts with the opening of the connection; the first ping comes an interval later.
    pub fn new(now: Now, config: &WsPing) -> PingClock {
        let beat =
            config.interval.map_or(Beat::Off, |interval| Beat::Due(now.mono.after(interval)));
        PingClock { beat, held: None, sent: 0 }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match (&self.beat, self.held) {
            (Beat::Off, _) | (_, Some(_)) => None,
            (Beat::Due(at), None) => Some(*at),
            (Beat::Sent { until, .. }, None) => Some(*until),
        }
    }

    pub fn due(&mut self, now: Now, config: &WsPing) -> Option<Due> {
        if self.deadline().is_none_or(|deadline| now.mono < deadline) {
            return None;
        }
        if let Beat::Sent { .. } = self.beat {
            return Some(Due::TimedOut);
        }
        self.sent = self.sent.wrapping_add(1);
        self.beat = Beat::Sent { at: now.mono, until: now.mono.after(config.timeout) };
        Some(Due::Ping(self.sent.to_be_bytes()))
    }

    /// A pong has come. If it is the one waited for: how long it took. The next ping goes out an
    /// interval after the last one, or at once where the pong took longer.
    pub fn pong(&mut self, now: Now, payload: &[u8], config: &WsPing) -> Option<Duration> {
        let Beat::Sent { at, .. } = self.beat else { return None };
        if payload != self.sent.to_be_bytes() {
            return None;
        }
        self.beat = match config.interval {
            Some(interval) => Beat::Due(at.after(interval).max(now.mono)),
            None => Beat::Off,
        };
        Some(now.mono.since(at))
    }

    /// Stops the clock.
    pub fn hold(&mut self, now: Now) {
        self.held.get_or_insert(now.mono);
    }

    /// Lets the clock go on from where it was stopped.
    pub fn release(&mut self, now: Now) {
        let Some(since) = self.held.take() else { return };
        let stood_still = now.mono.since(since);
        match &mut self.beat {
            Beat::Off => {}
            Beat::Due(at) => *at = at.after(stood_still),
            Beat::Sent { at, until } => {
                *at = at.after(stood_still);
                *until = until.after(stood_still);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    const CONFIG: WsPing =
        WsPing { interval: Some(Duration::from_secs(15)), timeout: Duration::from_secs(20) };

    fn at(seconds: u64) -> Now {
        Now { mono: Instant(seconds * 1_000_000), wall: Wall(0) }
    }

    fn deadline(clock: &PingClock) -> u64 {
        clock.deadline().unwrap().0 / 1_000_000
    }

    #[test]
    fn pings_are_an_interval_apart_and_only_their_own_pong_counts() {
        let mut clock = PingClock::new(at(100), &CONFIG);
        assert_eq!(clock.pong(at(101), &[0; 4], &CONFIG), None);
        assert_eq!(deadline(&clock), 115);
        assert_eq!(clock.due(at(114), &CONFIG), None);
        let Some(Due::Ping(first)) = clock.due(at(115), &CONFIG) else { panic!("a ping") };
        assert_eq!(deadline(&clock), 135);
        assert_eq!(clock.pong(at(116), b"", &CONFIG), None);
        assert_eq!(clock.pong(at(116), b"else", &CONFIG), None);
        assert_eq!(clock.pong(at(117), &first, &CONFIG), Some(Duration::from_secs(2)));
        assert_eq!(clock.pong(at(118), &first, &CONFIG), None);
        assert_eq!(deadline(&clock), 130);
        let Some(Due::Ping(second)) = clock.due(at(131), &CONFIG) else { panic!("a ping") };
        assert_ne!(first, second);
        assert_eq!(clock.pong(at(132), &first, &CONFIG), None);
        // A pong later than the interval: the next ping goes out at once.
        assert!(clock.pong(at(150), &second, &CONFIG).is_some());
        assert_eq!(deadline(&clock), 150);
        assert!(matches!(clock.due(at(150), &CONFIG), Some(Due::Ping(_))));
        assert_eq!(clock.due(at(169), &CONFIG), None);
        assert_eq!(clock.due(at(170), &CONFIG), Some(Due::TimedOut));
    }

    #[test]
    fn a_held_clock_stands_still() {
        let mut clock = PingClock::new(at(0), &CONFIG);
        clock.hold(at(10));
        clock.hold(at(12));
        assert_eq!(clock.deadline(), None);
        assert_eq!(clock.due(at(99), &CONFIG), None);
        clock.release(at(100));
        clock.release(at(200));
        assert_eq!(deadline(&clock), 105);
        let Some(Due::Ping(payload)) = clock.due(at(105), &CONFIG) else { panic!("a ping") };
        clock.hold(at(106));
        clock.release(at(206));
        assert_eq!(deadline(&clock), 225);
        assert_eq!(clock.pong(at(208), &payload, &CONFIG), Some(Duration::from_secs(3)));
        assert_eq!(deadline(&clock), 220);
    }

    #[test]
    fn no_interval_means_no_pings() {
        let mut clock = PingClock::new(at(0), &WsPing { interval: None, ..CONFIG });
        assert_eq!(clock.deadline(), None);
        assert_eq!(clock.due(at(1_000), &CONFIG), None);
    }
}
