//! Counters of everything worth counting. Their text form for Prometheus is `metrics::text`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::message::Hook;

/// Why a message from Redis reached no session, or not this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filtered {
    Fields,
    Order,
    Throttle,
}

impl Filtered {
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

#[derive(Clone, Default, Debug)]
pub struct HookMetrics {
    /// By `CallResult as usize`.
    pub results: [u64; 4],
    /// From the call's start to its end, queueing and all tries included.
    pub latency: Histogram,
}

#[derive(Clone, Default, Debug)]
pub struct RedisMetrics {
    pub connected: bool,
    pub reconnects: u64,
    pub ping_latency: Option<Duration>,
    pub channels: u64,
}

/// All counters and gauges of one process.
#[derive(Default, Debug)]
pub struct Metrics {
    pub ready: bool,
    pub connections: u64,
    pub connections_total: u64,
    /// By `EventLabel as usize`, then success and error.
    pub events: [[u64; 2]; 7],
    pub messages_received: u64,
    pub messages_delivered: u64,
    /// By `Filtered as usize`.
    pub messages_filtered: [u64; 3],
    /// By `Dropped as usize`.
    pub messages_dropped: [u64; 3],
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub slow_consumers: u64,
    /// By `Refused as usize`.
    pub refused: [u64; 10],
    pub callbacks: BTreeMap<(Rc<str>, Hook), HookMetrics>,
    pub callbacks_in_flight: u64,
    pub callbacks_queued: u64,
    /// `REDIS`, then `REDIS_ALT` where there is one.
    pub redis: Vec<RedisMetrics>,
    pub subscriptions: u64,
    pub send_queue_bytes: u64,
    /// Order and throttle keys forgotten over `max_keys_per_subscription`.
    pub keys_forgotten: u64,
    pub log_lines_dropped: u64,
    /// The time that turns of the loop took, waiting not included.
    pub turns: Histogram,
}

impl Metrics {
    pub fn callback(&mut self, service: &Rc<str>, hook: Hook, result: CallResult, took: Duration) {
        let entry = self.callbacks.entry((service.clone(), hook)).or_default();
        entry.results[result as usize] += 1;
        entry.latency.observe(took);
    }
}
