//! Protocol pings (section 3): every interval, and a pong within the timeout.

use std::time::Duration;

use socketshark::time::Instant;

use super::{Model, SessionKey};

/// The ping clock of a session.
pub struct Pings {
    times: Option<(Duration, Duration)>,
    beat: Beat,
    /// Since when it stands still.
    held: Option<Instant>,
}

enum Beat {
    Due(Instant),
    Sent { at: Instant, until: Instant, payload: Vec<u8> },
}

impl Pings {
    pub fn new(now: Instant, times: Option<(Duration, Duration)>) -> Pings {
        let interval = times.map_or(Duration::ZERO, |(interval, _)| interval);
        Pings { times, beat: Beat::Due(now.after(interval)), held: None }
    }

    /// The ping that was due was sent like this.
    pub fn sent(&mut self, now: Instant, payload: &[u8]) {
        let timeout = self.times.map_or(Duration::ZERO, |(_, timeout)| timeout);
        self.beat = Beat::Sent { at: now, until: now.after(timeout), payload: payload.to_vec() };
    }

    /// Only the ping's own pong counts.
    pub fn pong(&mut self, now: Instant, pong: &[u8]) {
        let interval = self.times.map_or(Duration::ZERO, |(interval, _)| interval);
        if let Beat::Sent { at, payload, .. } = &self.beat
            && payload == pong
        {
            self.beat = Beat::Due(at.after(interval).max(now));
        }
    }

    pub fn hold(&mut self, now: Instant) {
        self.held.get_or_insert(now);
    }

    pub fn release(&mut self, now: Instant) {
        let Some(since) = self.held.take() else { return };
        let later = now.since(since);
        match &mut self.beat {
            Beat::Due(at) => *at = at.after(later),
            Beat::Sent { at, until, .. } => {
                *at = at.after(later);
                *until = until.after(later);
            }
        }
    }

    /// When a ping must go out or be answered.
    pub fn deadline(&self) -> Option<Instant> {
        let at = match self.beat {
            Beat::Due(at) => at,
            Beat::Sent { until, .. } => until,
        };
        (self.times.is_some() && self.held.is_none()).then_some(at)
    }

    /// Whether a ping must go out (true), or the client has been silent for too long (false).
    pub fn due(&self, now: Instant) -> Option<bool> {
        if self.times.is_none() || self.held.is_some() {
            return None;
        }
        match self.beat {
            Beat::Due(at) => (at <= now).then_some(true),
            Beat::Sent { until, .. } => (until <= now).then_some(false),
        }
    }
}

impl Model {
    pub(super) fn pings_due(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.keys().copied().collect();
        for key in keys {
            let Some(session) = self.sessions.get(&key).filter(|session| session.open) else {
                continue;
            };
            match session.pings.due(self.now) {
                None => {}
                Some(true) => {
                    self.step.pings.insert(session.conn);
                }
                Some(false) => self.close(key, 1011),
            }
        }
    }
}
