//! Counters of everything worth counting. Their text form for Prometheus is `metrics::text`.
//!
//! Every label but a service's name comes from an enum here: peers cannot make new series.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::message::Hook;

pub mod text;

/// Why a message from Redis was not delivered to a session that is subscribed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filtered {
    Fields,
    Order,
    Throttle,
}

impl Filtered {
    pub const ALL: [Filtered; 3] = [Filtered::Fields, Filtered::Order, Filtered::Throttle];

    /// The `reason` label, in log lines too.
    pub fn name(self) -> &'static str {
        match self {
            Filtered::Fields => "fields",
            Filtered::Order => "order",
            Filtered::Throttle => "throttle",
        }
    }
}

/// Why a publication was dropped as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Not JSON, or nested too deeply.
    NotJson,
    /// No `subscription` or no `data`.
    Invalid,
    /// On a channel that nobody reads (any more).
    NoReader,
}

impl Dropped {
    pub const ALL: [Dropped; 3] = [Dropped::NotJson, Dropped::Invalid, Dropped::NoReader];

    /// The `reason` label.
    pub fn name(self) -> &'static str {
        match self {
            Dropped::NotJson => "not_json",
            Dropped::Invalid => "invalid",
            Dropped::NoReader => "no_reader",
        }
    }
}

/// Why a handshake was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    BadRequest,
    Method,
    NotUpgrade,
    Version,
    Origin,
    HeaderTooLarge,
    Timeout,
    TooMany,
    TooManyFromAddress,
    NotReady,
}

impl Refused {
    pub const ALL: [Refused; 10] = [
        Refused::BadRequest,
        Refused::Method,
        Refused::NotUpgrade,
        Refused::Version,
        Refused::Origin,
        Refused::HeaderTooLarge,
        Refused::Timeout,
        Refused::TooMany,
        Refused::TooManyFromAddress,
        Refused::NotReady,
    ];

    /// The `reason` label.
    pub fn name(self) -> &'static str {
        match self {
            Refused::BadRequest => "bad_request",
            Refused::Method => "method",
            Refused::NotUpgrade => "not_upgrade",
            Refused::Version => "version",
            Refused::Origin => "origin",
            Refused::HeaderTooLarge => "header_too_large",
            Refused::Timeout => "timeout",
            Refused::TooMany => "too_many",
            Refused::TooManyFromAddress => "too_many_from_address",
            Refused::NotReady => "not_ready",
        }
    }
}

/// What became of a callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallResult {
    /// `"status":"ok"`.
    Ok,
    /// Another object.
    Error,
    /// All tries failed.
    Failed,
    /// The queue was full.
    Dropped,
}

impl CallResult {
    pub const ALL: [CallResult; 4] =
        [CallResult::Ok, CallResult::Error, CallResult::Failed, CallResult::Dropped];

    /// The `result` label.
    pub fn name(self) -> &'static str {
        match self {
            CallResult::Ok => "ok",
            CallResult::Error => "error",
            CallResult::Failed => "failed",
            CallResult::Dropped => "dropped",
        }
    }
}

/// Event names as metric labels: the five and two for everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventLabel {
    Auth,
    Subscribe,
    Message,
    Unsubscribe,
    Ping,
    Unknown,
    Invalid,
}

impl EventLabel {
    pub const ALL: [EventLabel; 7] = [
        EventLabel::Auth,
        EventLabel::Subscribe,
        EventLabel::Message,
        EventLabel::Unsubscribe,
        EventLabel::Ping,
        EventLabel::Unknown,
        EventLabel::Invalid,
    ];

    /// The `event` label.
    pub fn name(self) -> &'static str {
        match self {
            EventLabel::Auth => "auth",
            EventLabel::Subscribe => "subscribe",
            EventLabel::Message => "message",
            EventLabel::Unsubscribe => "unsubscribe",
            EventLabel::Ping => "ping",
            EventLabel::Unknown => "unknown",
            EventLabel::Invalid => "invalid",
        }
    }
}

/// Upper bounds of a latency histogram's buckets, in microseconds; the last one is open.
pub const BUCKETS: [u64; 12] = [
    100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 15_000_000,
    60_000_000,
];

/// Durations, counted by size.
#[derive(Clone, Default, Debug)]
pub struct Histogram {
    /// Not cumulative; the last one is beyond all bounds.
    pub counts: [u64; BUCKETS.len() + 1],
    pub sum_micros: u64,
}

impl Histogram {
    pub fn observe(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|&bound| bound < micros);
        self.counts[bucket] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }
}

/// The callbacks of one hook of one service.
#[derive(Clone, Default, Debug)]
pub struct HookMetrics {
    /// By `CallResult as usize`.
    pub results: [u64; CallResult::ALL.len()],
    /// From the call's start to its end, queueing and all tries included.
    pub latency: Histogram,
}

/// One Redis link.
#[derive(Clone, Default, Debug)]
pub struct RedisMetrics {
    pub connected: bool,
    /// Connections made after the first one.
    pub reconnects: u64,
    /// The round trip of the last PING answered; `None` before the first.
    pub ping_latency: Option<Duration>,
    /// Channels subscribed at the moment.
    pub channels: u64,
}

/// What the operating system says about the process; `None` where it does not say.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ProcessFigures {
    /// User and system time.
    pub cpu_seconds: Option<f64>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// Since the Unix epoch.
    pub start_time_seconds: Option<f64>,
}

/// All counters and gauges of one process.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Serving: every Redis connected and not shutting down.
    pub ready: bool,
    /// WebSocket sessions (handshake completed), now and ever.
    pub connections: u64,
    pub connections_total: u64,
    /// By `EventLabel as usize`, then success and error.
    pub events: [[u64; 2]; EventLabel::ALL.len()],
    /// From Redis; counted once, whoever reads them.
    pub messages_received: u64,
    /// To sessions; counted once for each.
    pub messages_delivered: u64,
    /// By `Filtered as usize`; counted once for each session.
    pub messages_filtered: [u64; Filtered::ALL.len()],
    /// By `Dropped as usize`.
    pub messages_dropped: [u64; Dropped::ALL.len()],
    /// From and to the sockets of WebSocket clients, handshakes included.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Clients closed because they read too slowly.
    pub slow_consumers: u64,
    /// By `Refused as usize`.
    pub refused: [u64; Refused::ALL.len()],
    pub callbacks: BTreeMap<(Rc<str>, Hook), HookMetrics>,
    /// Tries under way.
    pub callbacks_in_flight: u64,
    /// Calls that wait for a slot.
    pub callbacks_queued: u64,
    /// `REDIS`, then `REDIS_ALT` where there is one.
    pub redis: Vec<RedisMetrics>,
    /// Peers of the embedded broker, now.
    pub broker_connections: u64,
    /// Messages published at the broker, whoever reads them.
    pub broker_published: u64,
    /// Peers closed because they read too slowly.
    pub broker_slow_peers: u64,
    /// Confirmed subscriptions of all sessions.
    pub subscriptions: u64,
    /// Bytes waiting in user space for WebSocket clients.
    pub send_queue_bytes: u64,
    /// Order and throttle keys forgotten over `max_keys_per_subscription`.
    pub keys_forgotten: u64,
    pub log_lines_dropped: u64,
    /// The time that turns of the loop took, waiting not included.
    pub turns: Histogram,
}

impl Metrics {
    /// Counts a callback that has ended. `took`: from the call's start, queueing included.
    pub fn callback(&mut self, service: &Rc<str>, hook: Hook, result: CallResult, took: Duration) {
        let entry = self.callbacks.entry((service.clone(), hook)).or_default();
        entry.results[result as usize] += 1;
        entry.latency.observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_labels_are_in_the_order_of_the_counters() {
        assert!(Filtered::ALL.iter().enumerate().all(|(i, &label)| label as usize == i));
        assert!(Dropped::ALL.iter().enumerate().all(|(i, &label)| label as usize == i));
        assert!(Refused::ALL.iter().enumerate().all(|(i, &label)| label as usize == i));
        assert!(CallResult::ALL.iter().enumerate().all(|(i, &label)| label as usize == i));
        assert!(EventLabel::ALL.iter().enumerate().all(|(i, &label)| label as usize == i));
    }

    #[test]
    fn a_bucket_holds_what_is_not_above_its_bound() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        assert_eq!(histogram.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum_micros, 120_000_202);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.sum_micros, u64::MAX);
    }
}
