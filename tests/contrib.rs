//! The files for running the router, as far as they can be judged without the programs that they
//! are for (`contrib/check` asks those): the configurations are valid, every metric and label that
//! an alert or a panel asks for is there, and what several files speak of is the same in all.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socketshark::config::{self, Config};
use socketshark::message::Hook;
use socketshark::metrics::text::render;
use socketshark::metrics::{CallResult, Metrics, ProcessFigures, RedisMetrics};
use support::router::BINARY;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

const CONFIGURATIONS: [&str; 5] = [
    "contrib/socketshark.json",
    "contrib/kubernetes/socketshark.json",
    "examples/full.json",
    "examples/quickstart.json",
    "examples/service.json",
];

fn parsed(name: &str) -> Config {
    let environment = |variable: &str| (variable == "REDIS_PASSWORD").then(|| "x".to_owned());
    config::parse(&read(name), &environment).unwrap()
}

#[test]
fn the_configurations_are_valid() {
    for name in CONFIGURATIONS {
        let mut command = Command::new(BINARY);
        let command = command.arg("--check").arg("-c").arg(path(name));
        let output = command.env("REDIS_PASSWORD", "a password").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

/// A page of metrics on which every family has a sample.
fn page() -> String {
    let mut metrics = Metrics::default();
    let books = "books".into();
    metrics.callback(&books, Hook::Authorizer, CallResult::Ok, Duration::ZERO);
    let latency = Some(Duration::ZERO);
    metrics.redis = vec![RedisMetrics { ping_latency: latency, ..RedisMetrics::default() }];
    let process = ProcessFigures {
        cpu_seconds: Some(0.0),
        resident_memory_bytes: Some(0),
        virtual_memory_bytes: Some(0),
        open_fds: Some(0),
        max_fds: Some(0),
        start_time_seconds: Some(0.0),
    };
    render(&metrics, &process, "0")
}

/// A metric that a query names, and what stands in braces behind it.
struct Selector<'a> {
    metric: &'a str,
    matchers: &'a str,
}

/// The router's and the process's metrics in a text, with their selectors.
fn selectors(text: &str) -> Vec<Selector<'_>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let metric = &word[..end];
        rest = &word[end..];
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = inside.map_or("", |(matchers, _)| matchers);
        if metric.starts_with("socketshark_") || metric.starts_with("process_") {
            found.push(Selector { metric, matchers });
        }
    }
    found
}

/// Checks every query in a text against the page. `where_from`: for the message.
#[track_caller]
fn check_queries(where_from: &str, text: &str, page: &str) -> usize {
    let all = selectors(text);
    for Selector { metric, matchers } in &all {
        let samples: Vec<&str> = page
            .lines()
            .filter(|line| {
                line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .collect();
        assert!(!samples.is_empty(), "{where_from}: there is no metric {metric}");
        for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty()) {
            let (label, values) = matcher.split_once('=').unwrap();
            // Prometheus adds the first two to every sample; services are named as one likes.
            if ["instance", "job", "service"].contains(&label) {
                continue;
            }
            for value in values.trim_start_matches('~').trim_matches('"').split('|') {
                let pair = format!("{label}=\"{value}\"");
                let is_there = samples.iter().any(|sample| sample.contains(&pair));
                assert!(is_there, "{where_from}: {metric} never has {pair}");
            }
        }
    }
    all.len()
}

#[test]
fn alerts_ask_for_metrics_that_are_there() {
    let page = page();
    for name in ["socketshark.rules.yml", "rules_test.yml"] {
        let name = format!("contrib/prometheus/{name}");
        assert!(check_queries(&name, &read(&name), &page) > 5, "{name} has queries");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let name = "contrib/grafana/socketshark.json";
    let dashboard: Value = serde_json::from_str(&read(name)).unwrap();
    let page = page();
    let mut ids = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}: nothing to show");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(check_queries(title, query, &page) > 0, "{title}: asks for nothing of ours");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in variables {
        if let Some(query) = variable["query"]["query"].as_str() {
            check_queries(name, query, &page);
        }
    }
    let shown: BTreeSet<&str> =
        panels.iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    assert_eq!(shown.len(), panels.len(), "titles are unique");
}

#[test]
fn the_judge_of_queries_bites() {
    let page = page();
    let ask = |query: &str| std::panic::catch_unwind(|| check_queries("here", query, &page));
    assert_eq!(ask("rate(process_open_fds[5m]) / up > 1").unwrap(), 1);
    let refused = "socketshark_handshakes_refused_total";
    assert_eq!(ask(&format!("{refused}{{reason=~\"origin|method\", job=\"x\"}}")).unwrap(), 1);
    assert!(ask(&format!("{refused}{{reason=~\"origin|moon\"}}")).is_err());
    assert!(ask(&format!("{refused}{{cause=\"origin\"}}")).is_err());
    assert!(ask("socketshark_connections").is_err());
    assert!(ask("socketshark_connection").is_err());
}

/// The number behind `key` in a text.
#[track_caller]
fn number(text: &str, key: &str) -> u64 {
    let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("no {key}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {key}"))
}

#[test]
fn supervisors_wait_for_longer_than_a_shutdown_takes() {
    let limit = parsed("contrib/socketshark.json").limits.shutdown_timeout.as_secs();
    assert!(number(&read("contrib/systemd/socketshark.service"), "TimeoutStopSec=") > limit);
    assert!(number(&read("contrib/Dockerfile"), "--stop-timeout ") > limit);

    let pod = read("contrib/kubernetes/deployment.yaml");
    let limit = parsed("contrib/kubernetes/socketshark.json").limits.shutdown_timeout.as_secs();
    let pause = number(&pod, "sleep:\n                seconds: ");
    assert!(number(&pod, "terminationGracePeriodSeconds: ") > pause + limit);
}

#[test]
fn everybody_means_the_same_ports() {
    let config = parsed("contrib/socketshark.json");
    let metrics_port = config.metrics.prometheus.as_ref().unwrap().port;
    let (clients, metrics) =
        (format!("127.0.0.1:{}", config.ws_port), format!("127.0.0.1:{metrics_port}"));
    assert!(read("contrib/proxies/nginx.conf").contains(&format!("server {clients};")));
    let haproxy = read("contrib/proxies/haproxy.cfg");
    assert!(haproxy.contains(&format!("server a {clients}\n")));
    assert_eq!(number(&haproxy, "check port "), u64::from(metrics_port));
    assert!(read("contrib/prometheus/prometheus.yml").contains(&metrics));

    let config = parsed("contrib/kubernetes/socketshark.json");
    let metrics_port = config.metrics.prometheus.as_ref().unwrap().port;
    let pod = read("contrib/kubernetes/deployment.yaml");
    assert_eq!(
        number(&pod, "name: websocket\n              containerPort: "),
        u64::from(config.ws_port)
    );
    assert_eq!(
        number(&pod, "name: metrics\n              containerPort: "),
        u64::from(metrics_port)
    );
    assert_eq!(number(&pod, "prometheus.io/port: \""), u64::from(metrics_port));
}

#[test]
fn the_proxies_are_trusted_and_wait_for_longer_than_a_ping() {
    let config = parsed("contrib/socketshark.json");
    let loopback = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    for address in loopback {
        let is_trusted = config.ws_trusted_proxies.iter().any(|block| block.contains(address));
        assert!(is_trusted, "{address}");
    }
    let interval = config.ws_ping.interval.unwrap().as_secs();
    assert!(number(&read("contrib/proxies/nginx.conf"), "proxy_read_timeout ") > interval);
    assert!(number(&read("contrib/proxies/haproxy.cfg"), "timeout tunnel ") > interval);
}
