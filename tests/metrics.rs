//! What operators see: the metrics, the probes, the log.
//!
//! - `/metrics`: the names kept from SocketShark, and ours; its format
//! - `/healthz`, `/readyz`, everything else at that port
//! - log lines
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use support::router::base_config;
use support::service::Reply;
use support::wait::{free_port, until_true};
use support::{Redis, Router, World, http, merge};

fn event_series(event: &str, status: &str) -> String {
    format!(r#"socketshark_event_success_counter{{event="{event}",status="{status}"}}"#)
}

// Metrics.

#[test]
fn sessions_are_counted() {
    let world = World::books(&[]);
    let router = &world.router;
    assert_eq!(router.metric("socketshark_service_state"), Some(1.0));
    assert_eq!(router.metric("socketshark_connection_count"), Some(0.0));
    assert_eq!(router.metric("socketshark_connection_total"), Some(0.0));
    let client = world.client();
    let mut other = world.client();
    other.expect_quiet();
    // Sockets without a handshake do not count.
    let _socket = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    assert_eq!(router.metric("socketshark_connection_count"), Some(2.0));
    client.close(1000);
    router.wait_metric("socketshark_connection_count", 1.0);
    assert_eq!(router.metric("socketshark_connection_total"), Some(2.0));
}

#[test]
fn events_are_counted_by_name_and_success() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_message"]) },
            "AUTHENTICATION": service.ticket(&[]),
        })
    });
    world.service.script("/on_message", vec![Reply::ok(), Reply::json(&json!({ "status": "no" }))]);
    let mut client = world.client();
    client.send_text("not JSON, and not counted");
    client.recv();
    for text in ["[]", "{}", r#"{"event":5}"#] {
        client.send_text(text);
        client.recv();
    }
    for name in ["x", "y\"\\\n", "", "PING"] {
        client.ask(&json!({ "event": name }));
    }
    client.authenticate("t");
    client.ask(&json!({ "event": "auth" }));
    client.subscribe("books.1");
    client.ask(&json!({ "event": "subscribe", "subscription": "books.1" }));
    let message = json!({ "event": "message", "subscription": "books.1" });
    client.send(&message);
    client.ask(&message);
    client.unsubscribe("books.1");
    client.ask(&json!({ "event": "unsubscribe", "subscription": "books.1" }));
    client.expect_quiet();
    let (_, text) = world.router.get("/metrics");
    let value = |event: &str, status: &str| {
        support::router::sample(&text, &event_series(event, status)).unwrap_or(0.0)
    };
    for event in ["auth", "subscribe", "unsubscribe", "message"] {
        assert_eq!((value(event, "success"), value(event, "error")), (1.0, 1.0), "{event}");
    }
    assert_eq!((value("ping", "success"), value("ping", "error")), (1.0, 0.0));
    assert_eq!(value("invalid", "error"), 3.0);
    assert_eq!(value("unknown", "error"), 4.0);
    let labels = text.lines().filter(|line| line.starts_with("socketshark_event_success_counter{"));
    assert!(labels.count() <= 14, "the labels are bounded: {text}");
}

/// The sum of all series of a metric.
fn total(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if rest.starts_with([' ', '{']) {
            let value: f64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum
}

#[test]
fn the_format_is_that_of_prometheus() {
    let world = World::all_hooks();
    let mut client = world.client();
    client.subscribe("books.1");
    world.publish("books.1", json!(1));
    client.recv_data();
    let (head, text) = world.router.get("/metrics");
    assert_eq!(head.status(), 200);
    let kind = head.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(text.ends_with('\n'));
    let mut typed: Vec<(String, String)> = Vec::new();
    let mut series = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no HELP");
            assert!(typed.iter().all(|(other, _)| other != name), "{name} twice");
            typed.push((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(series.insert(name.to_owned()), "{name} twice");
            let (family, _) = typed.last().unwrap();
            assert!(name.starts_with(family.as_str()), "{name} is not of {family}");
        }
    }
    for (name, kind) in [
        ("socketshark_service_state", "gauge"),
        ("socketshark_connection_count", "gauge"),
        ("socketshark_connection_total", "counter"),
        ("socketshark_build_info", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ] {
        let expected = (name.to_owned(), kind.to_owned());
        assert!(typed.contains(&expected), "{name} {kind} is missing: {text}");
    }
    assert!(typed.iter().any(|(_, kind)| kind == "histogram"));
}

#[test]
fn messages_callbacks_and_the_link_are_counted() {
    let world = World::new(|service| {
        let mut books = service.hooks(&["on_message"]);
        merge(&mut books, json!({ "filter_fields": ["x"] }));
        json!({ "SERVICES": { "books": books }, "HTTP": { "tries": 1 } })
    });
    let mut client = world.client();
    client.subscribe("books.1");
    let (_, before) = world.router.get("/metrics");
    let publish = |text: &str| world.redis.publish("books.1", text);
    publish(r#"{"subscription":"books.1","data":1}"#);
    publish(r#"{"subscription":"books.1","data":2,"x":1}"#);
    publish("not JSON");
    publish(r#"{"subscription":"books.1","data":3}"#);
    assert_eq!(client.recv_data(), 1);
    assert_eq!(client.recv_data(), 3);
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.expect_quiet();
    let (_, after) = world.router.get("/metrics");
    // All counters that grew, and by how much.
    let mut names: Vec<&str> = after
        .lines()
        .filter(|line| line.starts_with("socketshark_"))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    names.dedup();
    let grown = |part: &str| -> Vec<f64> {
        let grown = |name: &&str| {
            let growth = total(&after, name)? - total(&before, name).unwrap_or(0.0);
            Some(growth).filter(|growth| *growth > 0.0)
        };
        let fitting = names.iter().filter(|name| part.split(' ').all(|word| name.contains(word)));
        fitting.filter_map(grown).collect()
    };
    assert_eq!(grown("messages received"), [4.0], "{after}");
    assert_eq!(grown("messages delivered"), [2.0], "{after}");
    assert_eq!(grown("messages filtered"), [1.0], "{after}");
    assert_eq!(grown("messages dropped"), [1.0], "{after}");
    assert!(!grown("bytes").is_empty());
    assert!(!grown("callback").is_empty());
    assert_eq!(total(&after, "socketshark_subscriptions"), Some(1.0));
    let callback = after.lines().find(|line| {
        line.contains(r#"service="books""#)
            && line.contains(r#"hook="on_message""#)
            && line.contains(r#"result="ok""#)
            && line.ends_with(" 1")
    });
    assert!(callback.is_some(), "{after}");
}

// Probes.

#[test]
fn probes_answer() {
    let world = World::books(&[]);
    assert_eq!(world.router.get("/healthz").0.status(), 200);
    assert_eq!(world.router.get("/readyz").0.status(), 200);
    assert_eq!(world.router.get("/nothing").0.status(), 404);
    let port = world.router.metrics_port;
    let post = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = http::exchange(port, post).unwrap();
    assert_eq!(head.status(), 405);
    let head_only = b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    if let Some((head, body)) = http::exchange_head(port, head_only) {
        assert!(body.is_empty(), "{head:?}");
    }
}

#[test]
fn odd_requests_to_the_metrics_port_do_no_harm() {
    let world = World::books(&[]);
    let port = world.router.metrics_port;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    for request in ["\0\0\0\r\n\r\n", "GET\r\n\r\n", "hello\r\n\r\n", &long] {
        if let Some((head, _)) = http::exchange(port, request.as_bytes()) {
            assert!((400..600).contains(&head.status()), "{head:?}");
        }
    }
    // Many that say nothing, and one that says it slowly.
    let idle: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
    slow.write_all(b"GET /metrics HT").unwrap();
    assert_eq!(world.router.get("/healthz").0.status(), 200);
    world.client().subscribe("books.1");
    slow.write_all(b"TP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    slow.set_read_timeout(Some(support::wait::PATIENCE)).unwrap();
    let (head, _) = http::read_answer(&mut std::io::BufReader::new(slow)).unwrap();
    assert_eq!(head.status(), 200);
    drop(idle);
}

// The log.

#[test]
fn every_line_is_a_record() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_message"]) },
            "AUTHENTICATION": service.ticket(&[]),
        })
    });
    let nasty = "a\r\nb\u{1b}[31m\u{0}\u{2028}\"";
    let no = Reply::json(&json!({ "status": "error", "error": nasty }));
    world.service.answer("/on_message", no);
    let mut client = world.client();
    client.authenticate("t0p s3cret");
    let name = format!("books.{nasty}");
    client.subscribe(&name);
    client.ask(&json!({ "event": "message", "subscription": name, "data": nasty }));
    client.ask(&json!({ "event": nasty }));
    world.publish(&name, json!(nasty));
    client.recv_data();
    world.redis.publish(&name, nasty);
    client.expect_quiet();
    client.close(1000);
    world.router.wait_event("connection closed");
    let text = world.router.log_text();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        for key in ["event", "level", "timestamp", "logger"] {
            assert!(value[key].is_string(), "{key}: {line}");
        }
        assert_eq!(value["pid"], world.router.pid());
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let event = value["event"].as_str().unwrap();
        assert!(!event.contains("ready") || value.get("port").is_some(), "{line}");
    }
    assert!(!text.contains(['\u{1b}', '\r', '\u{0}', '\u{2028}']));
    assert!(!text.contains("s3cret"));
}

#[test]
fn events_and_answers_are_logged_with_their_session() {
    let world = World::new(
        |service| json!({ "SERVICES": { "books": {} }, "AUTHENTICATION": service.ticket(&[]) }),
    );
    let mut client = world.client();
    client.authenticate("t");
    client.expect_quiet();
    client.close(1000);
    let closed = world.router.wait_event("connection closed");
    let session = &closed["session"];
    assert!(!session.is_null(), "{closed}");
    let of_session = |event: &str| -> Vec<Value> {
        let lines = world.router.log_lines().into_iter();
        let fitting = lines.filter(|line| line["event"] == event && line["session"] == *session);
        fitting.map(|line| line["data"].clone()).collect()
    };
    let redacted = json!({ "event": "auth", "ticket": "[redacted]" });
    let ping = json!({ "event": "ping", "data": "barrier 1" });
    assert_eq!(of_session("client event"), [redacted, ping]);
    let pong = json!({ "event": "pong", "data": "barrier 1" });
    assert_eq!(of_session("client send"), [json!({ "event": "auth", "status": "ok" }), pong]);
}

#[test]
fn logging_can_be_turned_off() {
    let redis = Redis::start();
    let mut config = base_config(&redis);
    merge(&mut config, json!({ "LOG": { "level": null }, "WS_PORT": free_port() }));
    let mut router = Router::launch(config);
    let port = router.metrics_port;
    until_true("the metrics port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    router.wait_readyz(200);
    assert_eq!(router.stop(), Some(0));
    assert_eq!(router.log_text(), "");
}

#[test]
fn metrics_can_be_logged() {
    let world = World::new(|_| json!({ "METRICS": { "log": {} } }));
    let client = world.client();
    let line = |active: u64| {
        move |line: &Value| {
            line["event"] == "metrics"
                && line["active_connections"] == active
                && line["total_connections"] == 1
        }
    };
    world.router.wait_log("a connection more", line(1));
    client.close(1000);
    until_true("a connection less", || world.router.log_lines().iter().any(line(0)));
}
