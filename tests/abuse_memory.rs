//! Memory follows what was received, and whatever waits has a bound.
//!
//! - lengths that are declared and never come, at each of our sockets
//! - messages that wait: for a `before_subscribe` that hangs, for the end of a throttle's period
//! - events and calls that wait for a stalled service
//! - what subscriptions keep
//! - log lines and metric labels
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use support::client::{TEXT, header};
use support::innocent::{Innocent, calm, raise_descriptors};
use support::service::Reply;
use support::wait::until_true;
use support::{Client, Redis, Router, Service, subscribe};

const FIN: u8 = 0x80;
const MIB: usize = 1 << 20;

/// Memory in use since a moment.
struct Memory<'a> {
    router: &'a Router,
    before: usize,
}

impl<'a> Memory<'a> {
    fn of(router: &'a Router) -> Memory<'a> {
        Memory { router, before: router.resident_bytes() }
    }

    #[track_caller]
    fn grew_at_most(&self, bytes: usize, what: &str) {
        let grown = self.router.resident_bytes().saturating_sub(self.before);
        assert!(grown <= bytes, "{what}: {grown} bytes more, not {bytes}");
    }
}

fn declared(length: usize) -> Vec<u8> {
    [header(FIN | TEXT, 0x80, length), vec![0; 4], vec![b' '; 100]].concat()
}

#[test]
fn declared_lengths_cost_nothing() {
    let (router, redis) = Router::alone(calm(json!({
        "LIMITS": { "max_message_bytes": 1_000_000_000 },
    })));
    let innocent = Innocent::start(&router, &redis);
    let memory = Memory::of(&router);
    let mut clients: Vec<Client> = (0..200).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send_raw(&declared(1_000_000_000));
    }
    let received = "socketshark_received_bytes_total";
    until_true("all to be read", || router.metric(received).unwrap() > 200.0 * 300.0);
    memory.grew_at_most(20 * MIB, "200 headers of a gigabyte");
    innocent.finish();
}

/// A frame that comes piece by piece costs what has come, and is given back with its client.
#[test]
fn what_has_come_is_kept_and_no_more() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    let memory = Memory::of(&router);
    let mut clients: Vec<Client> = (0..100).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send_raw(&[declared(1_000_000), vec![b' '; 99_900]].concat());
    }
    until_true("all to be read", || {
        router.metric("socketshark_received_bytes_total").unwrap() > 10_000_000.0
    });
    memory.grew_at_most(40 * MIB, "100 frames of 100 kB so far");
    drop(clients);
    router.wait_metric("socketshark_connection_count", 1.0);
    innocent.finish();
}

#[test]
fn what_services_declare_costs_nothing() {
    let redis = Redis::start();
    let service = Service::start();
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         F00000\r\n{",
    ];
    let replies = heads.iter().cycle().take(64).map(|head| Reply::raw(head)).collect();
    service.script("/authorizer", replies);
    let hooks = service.hooks(&["authorizer"]);
    let config = json!({ "SERVICES": { "books": hooks }, "HTTP": { "timeout": 60 } });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let memory = Memory::of(&router);
    let mut clients: Vec<Client> = (0..64).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(&subscribe("books.1"));
    }
    service.wait("/authorizer", 64);
    innocent.finish();
    memory.grew_at_most(30 * MIB, "64 bodies of 16 MB that do not come");
}

/// While `before_subscribe` hangs its topic is busy.
#[test]
fn messages_held_for_a_subscribe_have_a_bound() {
    let redis = Redis::start();
    let service = Service::start();
    let hooks = service.hooks(&["before_subscribe"]);
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "books": hooks } })));
    let innocent = Innocent::start(&router, &redis);
    let gate = service.hold("/before_subscribe");
    let memory = Memory::of(&router);
    let mut clients: Vec<Client> = (0..30).map(|_| router.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&subscribe(&format!("books.{}", number % 2)));
    }
    service.wait("/before_subscribe", 30);
    let data = "x".repeat(100_000);
    for _ in 0..50 {
        for topic in ["books.0", "books.1"] {
            let message = json!({ "subscription": topic, "data": data });
            redis.publish(topic, &message.to_string());
        }
    }
    for client in &mut clients {
        client.expect_close(1013);
    }
    memory.grew_at_most(30 * MIB, "messages that were held");
    gate.open();
    redis.wait_channels(&["calm.1"]);
    innocent.finish();
}

#[test]
fn throttled_messages_have_a_bound() {
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": { "send_queue_bytes": 200_000 } })));
    let innocent = Innocent::start(&router, &redis);
    let mut client = router.client();
    client.subscribe("calm.busy");
    let publish = |key: usize, data: &Value| {
        let options = json!({ "throttle": 3_600, "throttle_key": key });
        let message = json!({ "subscription": "calm.busy", "data": data, "options": options });
        redis.publish("calm.busy", &message.to_string());
    };
    let memory = Memory::of(&router);
    let long = json!("x".repeat(1_000));
    let keys = 3_000;
    let reader = thread::spawn(move || {
        // Those of the beginning at once; then early, for want of room, nearly all of the others.
        for _ in 0..2 * keys - 300 {
            client.recv_data();
        }
        client
    });
    for key in 0..keys {
        publish(key, &long);
        publish(key, &long);
    }
    memory.grew_at_most(20 * MIB, "messages under thousands of keys");
    let _client = reader.join().unwrap();
    innocent.finish();
}

/// A stalled service, and more sessions than it has slots: memory by the session, others flow.
#[test]
fn sessions_of_a_stalled_service_cost_little_and_stall_no_other() {
    raise_descriptors();
    let redis = Redis::start();
    let (stalled, quick) = (Service::start(), Service::start());
    stalled.answer("/on_message", Reply::Hang);
    let config = json!({
        "SERVICES": {
            "stalled": stalled.hooks(&["on_message"]),
            "quick": quick.hooks(&["authorizer", "before_subscribe", "on_message"]),
        },
        "HTTP": { "timeout": 60 },
    });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let sessions = 1_500;
    let memory = Memory::of(&router);
    let mut clients: Vec<Client> = (0..sessions).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(&subscribe("stalled.1"));
        for number in 0..8 {
            client.send(&json!({
                "event": "message", "subscription": "stalled.1",
                "data": [number, "x".repeat(500)],
            }));
        }
    }
    stalled.wait("/on_message", 64);
    let queued = (sessions - 64) as f64;
    router.wait_metric("socketshark_callbacks_queued", queued);
    memory.grew_at_most(sessions * 30_000, "sessions with 8 events each");
    let mut other = router.client();
    other.subscribe("quick.1");
    quick.answer_json("/on_message", &json!({ "status": "ok", "data": 1 }));
    let message = json!({ "event": "message", "subscription": "quick.1" });
    for _ in 0..50 {
        assert_eq!(other.ask(&message)["data"], 1);
    }
    assert_eq!(stalled.requests("/on_message").len(), 64, "no more than its slots");
    innocent.finish();
}

/// A service is down that has to be told of everybody who leaves, and those who leave come again
/// and again.
#[test]
fn leavings_that_cannot_be_told_have_a_bound() {
    let redis = Redis::start();
    let service = Service::start();
    service.answer("/on_unsubscribe", Reply::Hang);
    let limits = json!({ "max_connections_per_host": 2, "max_queued_per_host": 20, "timeout": 60 });
    let hooks = service.hooks(&["on_unsubscribe"]);
    let config = json!({ "SERVICES": { "books": hooks }, "HTTP": limits });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let (mut allowed, mut refused) = (0, 0);
    for number in 0..200 {
        let mut client = router.client();
        let answer = client.ask(&subscribe("books.1"));
        match answer["error"].as_str() {
            None => allowed += 1,
            Some("Service unavailable.") => refused += 1,
            Some(_) => panic!("{answer}"),
        }
        client.close(1000);
        // Its leaving waits to be told.
        if number < 22 {
            router.wait_metric("socketshark_callbacks_queued", (number as f64 - 1.0).max(0.0));
        }
    }
    assert!(allowed <= 24 && allowed + refused == 200, "{allowed} got in, {refused} did not");
    innocent.finish();
}

#[test]
fn what_subscriptions_keep_has_a_bound() {
    let service = json!({ "require_authentication": false, "extra_fields": ["extra"] });
    let config = json!({ "SERVICES": { "books": service } });
    let (router, redis) = Router::alone(calm(config));
    let innocent = Innocent::start(&router, &redis);
    let memory = Memory::of(&router);
    let mut client = router.client();
    let mut refused = 0;
    for number in 0..12 {
        let mut event = subscribe(&format!("books.{number}{}", "x".repeat(100_000)));
        event["extra"] = json!("y".repeat(300_000));
        if client.ask(&event)["error"] == "Too many subscriptions." {
            refused += 1;
        }
    }
    assert!((9..12).contains(&refused), "{refused} were refused");
    client.subscribe("books.short");
    memory.grew_at_most(15 * MIB, "long names and fields");
    drop(client);
    redis.wait_channels(&["calm.1"]);
    innocent.finish();
}

#[test]
fn log_lines_that_nobody_reads_have_a_bound() {
    let (router, redis) = Router::alone(calm(json!({})));
    router.rewrite_config(|config| config["LOG"]["level"] = json!("DEBUG"));
    router.signal("HUP");
    router.wait_event("configuration reloaded");
    router.stall_log(true);
    let innocent = Innocent::start(&router, &redis);
    let memory = Memory::of(&router);
    let mut client = router.client();
    let text = json!({ "event": "ping", "data": "x".repeat(50_000) });
    for _ in 0..300 {
        assert_eq!(client.ask(&text)["event"], "pong");
    }
    let dropped = router.metric("socketshark_log_lines_dropped_total").unwrap();
    assert!(dropped > 0.0, "the pipe was read by somebody");
    memory.grew_at_most(12 * MIB, "15 MB of log lines");
    innocent.finish();
    router.stall_log(false);
}

/// Whatever clients, services and publishers send, no new series appears and no line breaks.
#[test]
fn names_from_outside_make_no_metrics_and_no_lines() {
    let redis = Redis::start();
    let service = Service::start();
    let nasty = "\n{\"event\":\"ready\"}\r\u{1b}[2J\u{2028}\" socketshark_forged 1\n";
    let error = json!({ "status": "error", "error": nasty, "data": nasty });
    service.answer_json("/authorizer", &error);
    let hooks = service.hooks(&["authorizer"]);
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "books": hooks } })));
    router.rewrite_config(|config| {
        config["LOG"] = json!({ "level": "DEBUG", "trace_level": "DEBUG", "style": "json" });
    });
    router.signal("HUP");
    router.wait_event("configuration reloaded");
    let series = |text: String| {
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let names = names.filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name.to_owned()));
        // Those of a hook appear with its first call.
        names.filter(|name| !name.contains("hook=")).collect::<Vec<_>>()
    };
    let mut client = router.client();
    client.subscribe("calm.1");
    let before = series(router.get("/metrics").1);
    for number in 0..200 {
        client.ask(&json!({ "event": format!("event {number}") }));
    }
    let short: String = nasty.chars().take(40).collect();
    for event in [nasty, &short] {
        client.ask(&json!({ "event": event, "ticket": "a secret" }));
        let name = format!("books.{event}");
        client.ask(&json!({ "event": "subscribe", "subscription": name }));
        client.ask(&json!({ "event": "auth", "method": event, "ticket": "a secret" }));
    }
    client.send_frame(TEXT, nasty.as_bytes());
    client.recv();
    redis.publish("calm.1", &json!({ "subscription": nasty, "data": nasty }).to_string());
    redis.publish("calm.1", &json!({ "subscription": nasty }).to_string());
    redis.publish("calm.1", nasty);
    client.recv_until_quiet();
    assert_eq!(series(router.get("/metrics").1), before);
    let text = router.log_text();
    assert!(!text.contains("a secret"), "tickets are not logged");
    assert!(!text.contains(['\u{1b}', '\r', '\u{2028}']), "nothing that a terminal obeys");
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).expect("every line is a record");
        assert!(record["timestamp"].is_string(), "{line}");
    }
    assert_eq!(router.log_lines().iter().filter(|line| line["event"] == "ready").count(), 1);
}

/// A Redis that declares a payload of 16 MB and sends a byte of it now and then.
#[test]
fn what_redis_declares_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stingy = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"+OK\r\n+OK\r\n+PONG\r\n").unwrap();
        stream.write_all(b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$16000000\r\n{").unwrap();
        (stream, listener)
    });
    let redis = json!({ "host": "127.0.0.1", "port": port, "ping_interval": null });
    let mut router = Router::launch(json!({ "WS_PORT": 0, "REDIS": redis }));
    assert!(router.wait_ready());
    let _streams: (TcpStream, TcpListener) = stingy.join().unwrap();
    let memory = Memory::of(&router);
    router.client().expect_quiet();
    memory.grew_at_most(8 * MIB, "a payload that does not come");
}
