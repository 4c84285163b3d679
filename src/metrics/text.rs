//! The metrics in Prometheus' text exposition format 0.0.4.
//!
//! The first four families have the names of the original, which dashboards and alerts use; the
//! naming rules (`_total`, no type in a name) hold for all others.

use std::fmt::{self, Display, Write as _};

use super::{
    BUCKETS, CallResult, Dropped, EventLabel, Filtered, Histogram, Metrics, ProcessFigures, Refused,
};

/// The `Content-Type` of what `render` makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The `redis` label, in the order of `Metrics::redis`.
const REDIS_LABELS: [&str; 2] = ["redis", "redis_alt"];

/// Writes all families, each with its HELP and TYPE lines. `version`: the program's own.
pub fn render(metrics: &Metrics, process: &ProcessFigures, version: &str) -> String {
    let mut page = Page(String::new());
    write_sessions(&mut page, metrics);
    write_messages(&mut page, metrics);
    write_callbacks(&mut page, metrics);
    write_redis(&mut page, metrics);
    write_broker(&mut page, metrics);
    write_process(&mut page, process);
    page.counter("socketshark_log_lines_dropped_total", "Log lines that found no room.")
        .sample(&[], metrics.log_lines_dropped);
    let help = "Time that turns of the event loop took, waiting not included.";
    page.family("socketshark_loop_turn_duration_seconds", "histogram", help)
        .histogram(&[], &metrics.turns);
    page.gauge("socketshark_build_info", "The program's version, as a label; always 1.")
        .sample(&[("version", version)], 1);
    page.0
}

fn write_sessions(page: &mut Page, metrics: &Metrics) {
    page.gauge("socketshark_service_state", "Whether the service is ready: 1, else 0.")
        .sample(&[], u8::from(metrics.ready));
    page.gauge("socketshark_connection_count", "Active WebSocket sessions.")
        .sample(&[], metrics.connections);
    page.counter("socketshark_connection_total", "WebSocket sessions since the start.")
        .sample(&[], metrics.connections_total);
    let mut events =
        page.counter("socketshark_event_success_counter", "Events from clients, by outcome.");
    for (label, [success, error]) in EventLabel::ALL.iter().zip(metrics.events) {
        events.sample(&[("event", label.name()), ("status", "success")], success);
        events.sample(&[("event", label.name()), ("status", "error")], error);
    }
    let mut refused =
        page.counter("socketshark_handshakes_refused_total", "Opening handshakes refused.");
    for (reason, count) in Refused::ALL.iter().zip(metrics.refused) {
        refused.sample(&[("reason", reason.name())], count);
    }
    page.gauge("socketshark_subscriptions", "Confirmed subscriptions of all sessions.")
        .sample(&[], metrics.subscriptions);
    page.counter("socketshark_received_bytes_total", "Bytes read from clients.")
        .sample(&[], metrics.bytes_received);
    page.counter("socketshark_sent_bytes_total", "Bytes written to clients.")
        .sample(&[], metrics.bytes_sent);
    page.gauge("socketshark_send_queue_bytes", "Bytes waiting in user space for clients.")
        .sample(&[], metrics.send_queue_bytes);
    let help = "Clients closed because they read too slowly.";
    page.counter("socketshark_slow_consumers_total", help).sample(&[], metrics.slow_consumers);
}

fn write_messages(page: &mut Page, metrics: &Metrics) {
    page.counter("socketshark_messages_received_total", "Messages received from Redis.")
        .sample(&[], metrics.messages_received);
    let help = "Messages sent to sessions, counted once for each session.";
    page.counter("socketshark_messages_delivered_total", help)
        .sample(&[], metrics.messages_delivered);
    let help = "Messages kept from subscribed sessions, counted once for each session.";
    let mut filtered = page.counter("socketshark_messages_filtered_total", help);
    for (reason, count) in Filtered::ALL.iter().zip(metrics.messages_filtered) {
        filtered.sample(&[("reason", reason.name())], count);
    }
    let mut dropped =
        page.counter("socketshark_messages_dropped_total", "Messages dropped for all sessions.");
    for (reason, count) in Dropped::ALL.iter().zip(metrics.messages_dropped) {
        dropped.sample(&[("reason", reason.name())], count);
    }
    let help = "Order and throttle keys forgotten for want of room.";
    page.counter("socketshark_keys_forgotten_total", help).sample(&[], metrics.keys_forgotten);
}

fn write_callbacks(page: &mut Page, metrics: &Metrics) {
    let mut results = page.counter("socketshark_callbacks_total", "Callbacks that have ended.");
    for ((service, hook), of_hook) in &metrics.callbacks {
        for (result, count) in CallResult::ALL.iter().zip(of_hook.results) {
            let hook = hook.name();
            results
                .sample(&[("service", service), ("hook", hook), ("result", result.name())], count);
        }
    }
    let help = "Time that callbacks took, queueing and all tries included.";
    let mut latency = page.family("socketshark_callback_duration_seconds", "histogram", help);
    for ((service, hook), of_hook) in &metrics.callbacks {
        latency.histogram(&[("service", service), ("hook", hook.name())], &of_hook.latency);
    }
    page.gauge("socketshark_callbacks_in_flight", "Tries of callbacks under way.")
        .sample(&[], metrics.callbacks_in_flight);
    page.gauge("socketshark_callbacks_queued", "Callbacks that wait for a slot.")
        .sample(&[], metrics.callbacks_queued);
}

fn write_redis(page: &mut Page, metrics: &Metrics) {
    let links = || REDIS_LABELS.iter().zip(&metrics.redis);
    let mut connected =
        page.gauge("socketshark_redis_connected", "Whether Redis is connected: 1, else 0.");
    for (label, link) in links() {
        connected.sample(&[("redis", label)], u8::from(link.connected));
    }
    let mut reconnects =
        page.counter("socketshark_redis_reconnects_total", "Connections after the first one.");
    for (label, link) in links() {
        reconnects.sample(&[("redis", label)], link.reconnects);
    }
    let help = "Round trip of the last PING answered.";
    let mut latency = page.gauge("socketshark_redis_ping_latency_seconds", help);
    for (label, link) in links() {
        if let Some(took) = link.ping_latency {
            latency.sample(&[("redis", label)], took.as_secs_f64());
        }
    }
    let mut channels = page.gauge("socketshark_redis_channels", "Channels subscribed.");
    for (label, link) in links() {
        channels.sample(&[("redis", label)], link.channels);
    }
}

fn write_broker(page: &mut Page, metrics: &Metrics) {
    page.gauge("socketshark_broker_connections", "Connections to the embedded broker.")
        .sample(&[], metrics.broker_connections);
    let help = "Messages published at the embedded broker, read by anybody or not.";
    page.counter("socketshark_broker_messages_published_total", help)
        .sample(&[], metrics.broker_published);
    let help = "Connections to the embedded broker closed because they read too slowly.";
    page.counter("socketshark_broker_slow_connections_total", help)
        .sample(&[], metrics.broker_slow_peers);
}

/// The names and texts are those of the official client libraries.
fn write_process(page: &mut Page, process: &ProcessFigures) {
    if let Some(seconds) = process.cpu_seconds {
        let help = "Total user and system CPU time spent in seconds.";
        page.counter("process_cpu_seconds_total", help).sample(&[], seconds);
    }
    if let Some(seconds) = process.start_time_seconds {
        let help = "Start time of the process since unix epoch in seconds.";
        page.gauge("process_start_time_seconds", help).sample(&[], seconds);
    }
    let gauges = [
        (
            "process_resident_memory_bytes",
            process.resident_memory_bytes,
            "Resident memory size in bytes.",
        ),
        (
            "process_virtual_memory_bytes",
            process.virtual_memory_bytes,
            "Virtual memory size in bytes.",
        ),
        ("process_open_fds", process.open_fds, "Number of open file descriptors."),
        ("process_max_fds", process.max_fds, "Maximum number of open file descriptors."),
    ];
    for (name, value, help) in gauges {
        if let Some(value) = value {
            page.gauge(name, help).sample(&[], value);
        }
    }
}

/// The text in the making.
struct Page(String);

impl Page {
    /// Begins a family: all its samples must follow before the next one begins.
    fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text: &mut self.0, name }
    }

    fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "counter", help)
    }

    fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "gauge", help)
    }
}

/// Pairs of a label's name and its value.
type Labels<'a> = &'a [(&'a str, &'a str)];

struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Buckets are cumulative here, and the last one (`+Inf`) equals the count.
    fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let mut total = 0;
        for (index, count) in histogram.counts.iter().enumerate() {
            total += count;
            let bound = match BUCKETS.get(index) {
                Some(&micros) => seconds(micros).to_string(),
                None => "+Inf".to_owned(),
            };
            self.line("_bucket", labels, Some(&bound), total);
        }
        self.line("_sum", labels, None, seconds(histogram.sum_micros));
        self.line("_count", labels, None, total);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(self.text, "{separator}{label}=\"{}\"", Escaped(value));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A label's value: the format escapes backslash, quote and line feed, and nothing else.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::message::Hook;
    use crate::metrics::RedisMetrics;

    /// Metrics with something in every family.
    fn full() -> (Metrics, ProcessFigures) {
        let mut metrics = Metrics { ready: true, connections: 3, ..Metrics::default() };
        metrics.events[EventLabel::Ping as usize] = [5, 6];
        let books: Rc<str> = "books".into();
        let odd: Rc<str> = "o\"d\\d\nä".into();
        metrics.callback(&books, Hook::Authorizer, CallResult::Ok, Duration::from_millis(3));
        metrics.callback(&books, Hook::Authorizer, CallResult::Failed, Duration::from_secs(99));
        metrics.callback(&books, Hook::OnMessage, CallResult::Error, Duration::from_micros(7));
        metrics.callback(&odd, Hook::OnMessage, CallResult::Dropped, Duration::ZERO);
        metrics.turns.observe(Duration::from_micros(150));
        metrics.redis = vec![RedisMetrics::default(); 2];
        metrics.redis[0].connected = true;
        metrics.redis[1].ping_latency = Some(Duration::from_micros(250));
        let process = ProcessFigures {
            cpu_seconds: Some(1.25),
            resident_memory_bytes: Some(4_096),
            virtual_memory_bytes: Some(8_192),
            open_fds: Some(9),
            max_fds: Some(1_024),
            start_time_seconds: Some(1_700_000_000.5),
        };
        (metrics, process)
    }

    /// A sample's name, labels and value; the escapes in its labels are undone.
    type Sample = (String, Vec<(String, String)>, f64);

    fn parse_sample(line: &str) -> Sample {
        let name_end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (label, after) = rest.split_once("=\"").unwrap();
                let (value, after) = parse_value(after);
                labels.push((label.to_owned(), value));
                rest = &after[1..];
                match &after[..1] {
                    "," => continue,
                    "}" => break,
                    other => panic!("{other} after a label in {line}"),
                }
            }
        }
        let value = rest.strip_prefix(' ').unwrap();
        (name.to_owned(), labels, value.parse().unwrap())
    }

    /// Up to the closing quote; what follows it comes back as well.
    fn parse_value(text: &str) -> (String, &str) {
        let mut value = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return (value, &text[at + 1..]),
                '\\' => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("escape {c}"),
                }),
                c => value.push(c),
            }
        }
        panic!("no closing quote")
    }

    /// Reads a whole page and checks what the format demands. Gives back the samples.
    fn check(page: &str) -> Vec<Sample> {
        assert!(page.ends_with('\n') && !page.contains("\n\n") && !page.contains('\r'));
        let mut helped = BTreeSet::new();
        let mut typed = BTreeSet::new();
        let mut family = (String::new(), String::new());
        let mut seen = BTreeSet::new();
        let mut samples = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && !help.contains('\\'));
                assert!(helped.insert(name.to_owned()), "{name} has two HELP lines");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind));
                assert!(helped.contains(name), "HELP comes first: {name}");
                assert!(typed.insert(name.to_owned()), "{name} has two TYPE lines");
                family = (name.to_owned(), kind.to_owned());
            } else {
                let sample = parse_sample(line);
                let suffix = sample.0.strip_prefix(&family.0).expect("a sample of this family");
                match family.1.as_str() {
                    "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
                    _ => assert_eq!(suffix, ""),
                }
                assert!(sample.2.is_finite() && sample.2 >= 0.0);
                assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
                samples.push(sample);
            }
        }
        assert_eq!(helped, typed);
        samples
    }

    fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
        let is =
            |(a, b): &(String, String), other: &(&str, &str)| (a.as_str(), b.as_str()) == *other;
        let found = samples.iter().find(|(n, l, _)| {
            n == name && l.len() == labels.len() && l.iter().zip(labels).all(|(a, b)| is(a, b))
        });
        found.unwrap_or_else(|| panic!("{name} {labels:?}")).2
    }

    #[test]
    fn every_sample_follows_its_help_and_type_and_comes_once() {
        let (metrics, process) = full();
        let samples = check(&render(&metrics, &process, "1.2.3"));
        assert_eq!(value(&samples, "socketshark_service_state", &[]), 1.0);
        assert_eq!(value(&samples, "socketshark_connection_count", &[]), 3.0);
        let events = "socketshark_event_success_counter";
        assert_eq!(value(&samples, events, &[("event", "ping"), ("status", "success")]), 5.0);
        assert_eq!(value(&samples, events, &[("event", "ping"), ("status", "error")]), 6.0);
        assert_eq!(samples.iter().filter(|(name, _, _)| name == events).count(), 14);
        assert_eq!(value(&samples, "socketshark_redis_connected", &[("redis", "redis")]), 1.0);
        let latency = "socketshark_redis_ping_latency_seconds";
        assert_eq!(value(&samples, latency, &[("redis", "redis_alt")]), 0.000_25);
        assert_eq!(value(&samples, "process_cpu_seconds_total", &[]), 1.25);
        assert_eq!(value(&samples, "socketshark_build_info", &[("version", "1.2.3")]), 1.0);
    }

    #[test]
    fn a_new_process_has_a_valid_page_without_unknown_figures() {
        let page = render(&Metrics::default(), &ProcessFigures::default(), "0");
        let samples = check(&page);
        assert_eq!(value(&samples, "socketshark_service_state", &[]), 0.0);
        assert!(!page.contains("process_"));
    }

    #[test]
    fn labels_come_back_as_they_were() {
        let (metrics, process) = full();
        let samples = check(&render(&metrics, &process, "1"));
        let labels = [("service", "o\"d\\d\nä"), ("hook", "on_message"), ("result", "dropped")];
        assert_eq!(value(&samples, "socketshark_callbacks_total", &labels), 1.0);
    }

    #[test]
    fn histograms_are_cumulative_and_agree_with_their_count() {
        let (metrics, process) = full();
        let samples = check(&render(&metrics, &process, "1"));
        // Bounds and counts, by family and labels but `le`.
        let mut series = BTreeMap::<_, Vec<(f64, f64)>>::new();
        for (name, mut labels, count) in samples.clone() {
            let Some(family) = name.strip_suffix("_bucket") else { continue };
            let (label, bound) = labels.pop().unwrap();
            assert_eq!(label, "le");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            series.entry((family.to_owned(), labels)).or_default().push((bound, count));
        }
        assert_eq!(series.len(), 4, "three callbacks and the loop");
        for ((family, labels), buckets) in &series {
            assert_eq!(buckets.len(), BUCKETS.len() + 1);
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
            let (bound, last) = buckets.last().unwrap();
            assert_eq!(*bound, f64::INFINITY);
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
            assert_eq!(value(&samples, &format!("{family}_count"), &labels), *last);
        }
        let labels = [("service", "books"), ("hook", "authorizer")];
        let sum = value(&samples, "socketshark_callback_duration_seconds_sum", &labels);
        assert_eq!(sum, 99.003);
    }
}
