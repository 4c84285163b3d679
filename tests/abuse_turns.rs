//! Nobody takes the loop for himself: whoever sends or receives as fast as he can, an innocent
//! client beside him goes on.
//!
//! - one client that sends as fast as it can, and reads the answers, or not
//! - one topic that receives as fast as it can
//! - the metrics port under siege
//! - clients that are held back by a slow service
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::broker::Broker;
use support::client::{BINARY, CONTINUATION, PING, PONG, TEXT, frame};
use support::innocent::{Innocent, calm, dial};
use support::wait::{PATIENCE, until_true};
use support::{Client, Redis, Router, Service};

const FIN: u8 = 0x80;

/// Sends it all as fast as it is taken, and reads the answers, up to that to a last event.
fn flood(mut client: Client, bytes: &[u8]) {
    let mut sending = client.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            sending.write_all(bytes).unwrap();
            sending.write_all(&event(r#"{"event":"ping","data":"done"}"#)).unwrap();
        });
        loop {
            let frame = client.try_frame().expect("an answer, not the end of the connection");
            if frame.opcode == TEXT && frame.payload.ends_with(b"\"done\"}") {
                break;
            }
        }
    });
}

/// Sends it again and again without reading anything, until it is not taken any more or the
/// connection ends: both are right.
fn flood_blindly(mut client: Client, bytes: &[u8]) {
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < 8 << 20 && client.stream.write_all(bytes).is_ok() {
        sent += bytes.len();
    }
}

fn event(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

/// What one can send fast: each block is a few thousand small things, or a few large ones.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let subscribes = (0..500).flat_map(|number| {
        let name = format!("calm.flood{number}");
        let [one, other] = ["subscribe", "unsubscribe"]
            .map(|verb| event(&json!({ "event": verb, "subscription": name }).to_string()));
        [one, other].concat()
    });
    let fragments = [frame(TEXT, b""), frame(CONTINUATION, b"").repeat(5_000)].concat();
    vec![
        ("empty messages", event("").repeat(5_000)),
        ("empty binary messages", frame(FIN | BINARY, b"").repeat(5_000)),
        ("pings", frame(FIN | PING, b"").repeat(50_000)),
        ("long pings", frame(FIN | PING, &[b'x'; 125]).repeat(10_000)),
        ("pongs", frame(FIN | PONG, b"").repeat(50_000)),
        ("ping events", event(r#"{"event":"ping"}"#).repeat(2_000)),
        ("unknown events", event(r#"{"event":"x"}"#).repeat(2_000)),
        ("empty fragments", [fragments, frame(FIN | CONTINUATION, b"")].concat()),
        ("large messages", event(&format!(r#"{{"event":"{}"}}"#, "x".repeat(900_000))).repeat(4)),
        (
            "many members",
            event(&format!(r#"{{{}"event":"ping"}}"#, r#""a":1,"#.repeat(100_000))).repeat(2),
        ),
        ("deep nesting", event(&"[".repeat(100_000)).repeat(50)),
        ("subscribes", subscribes.collect()),
    ]
}

#[test]
fn a_client_that_sends_as_fast_as_it_can_delays_nobody() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    let before = router.resident_bytes();
    for (what, block) in floods() {
        flood(router.client(), &block);
        let more = router.resident_bytes().saturating_sub(before);
        assert!(more < 100 << 20, "{what}: {more} bytes more");
    }
    innocent.finish();
}

#[test]
fn a_client_that_reads_no_answers_is_stopped() {
    let (router, redis) = Router::alone(calm(json!({ "WS_PONG_IMMEDIATE": true })));
    let innocent = Innocent::start(&router, &redis);
    let before = router.resident_bytes();
    let crowd: Vec<_> = floods()
        .into_iter()
        .map(|(_, block)| {
            let client = router.client();
            thread::spawn(move || flood_blindly(client, &block))
        })
        .collect();
    for one in crowd {
        one.join().unwrap();
    }
    let more = router.resident_bytes().saturating_sub(before);
    // `send_queue_bytes` for each, the kernel's part not counted, and what small frames cost more.
    assert!(more < 150 << 20, "{more} bytes more");
    innocent.finish();
    router.wait_metric("socketshark_connection_count", 0.0);
    router.wait_metric("socketshark_send_queue_bytes", 0.0);
}

#[test]
fn a_topic_that_receives_as_fast_as_it_can_delays_nobody() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    let mut readers: Vec<Client> = (0..100).map(|_| router.client()).collect();
    for reader in &mut readers {
        reader.subscribe("calm.busy");
    }
    let last = 1_500;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            thread::spawn(move || {
                for number in 0..=last {
                    assert_eq!(reader.recv_data(), number);
                }
            })
        })
        .collect();
    for number in 0..=last {
        let message = json!({ "subscription": "calm.busy", "data": number });
        redis.publish("calm.busy", &message.to_string());
    }
    for reader in readers {
        reader.join().unwrap();
    }
    innocent.finish();
}

/// What comes in one turn of the loop is not dealt with in one turn: an answer goes out between.
#[track_caller]
fn expect_reply_within_burst(router: &Router, publish: impl FnOnce(usize)) {
    let mut client = router.client();
    client.subscribe("books.busy");
    for _ in 0..200 {
        let mut reader = router.client();
        reader.subscribe("books.busy");
        thread::spawn(move || while reader.try_frame().is_some() {});
    }
    router.freeze();
    // Those of one channel go out in large pieces, thousands in a turn.
    let count = 8_000;
    publish(count);
    client.send(&json!({ "event": "ping" }));
    router.thaw();
    let mut before = 0;
    while client.recv()["event"] != "pong" {
        before += 1;
    }
    assert!(before < count, "the answer came behind all {before} messages");
}

#[test]
fn a_reply_does_not_wait_for_a_whole_burst() {
    let books = json!({ "books": { "require_authentication": false } });
    let (router, redis) = Router::alone(calm(json!({ "SERVICES": books })));
    expect_reply_within_burst(&router, |count| {
        for number in 0..count {
            let message = json!({ "subscription": "books.busy", "data": number });
            redis.publish("books.busy", &message.to_string());
        }
    });
}

#[test]
fn nor_for_a_burst_of_the_embedded_broker() {
    let broker = Broker::with(calm(json!({})));
    let mut peer = broker.peer();
    expect_reply_within_burst(&broker.router, |count| {
        let message = json!({ "subscription": "books.busy", "data": "x" }).to_string();
        let command = format!(
            "*3\r\n$7\r\nPUBLISH\r\n$10\r\nbooks.busy\r\n${}\r\n{message}\r\n",
            message.len()
        );
        peer.stream.write_all(command.repeat(count).as_bytes()).unwrap();
    });
}

#[test]
fn the_metrics_port_under_siege_delays_nobody() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    let port = router.metrics_port;
    let crowd: Vec<_> = (0..4).map(|_| thread::spawn(move || besiege(port))).collect();
    // Some say nothing, some drip, some send far too much.
    let silent: Vec<TcpStream> = (0..200).map(|_| dial(port)).collect();
    for mut stream in &silent {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
    }
    for one in crowd {
        one.join().unwrap();
    }
    assert_eq!(router.get("/healthz").0.status(), 200);
    for mut stream in &silent {
        let _ = stream.write_all(&[b'x'; 100_000]);
    }
    innocent.finish();
}

fn besiege(port: u16) {
    for _ in 0..10 {
        let streams: Vec<TcpStream> = (0..50).map(|_| dial(port)).collect();
        for mut stream in &streams {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
        for mut stream in streams {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            assert!(read.is_ok() && answer.ends_with(b"\n"), "{read:?}");
        }
    }
}

/// Whoever sends events faster than a service takes them is not read, and nothing is lost.
#[test]
fn clients_behind_a_slow_service_are_held_back() {
    let redis = Redis::start();
    let service = Service::start();
    let slow = service.hooks(&["on_message"]);
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "slow": slow } })));
    let innocent = Innocent::start(&router, &redis);
    let gate = service.hold("/on_message");
    let before = router.resident_bytes();
    let block = event(
        &json!({
            "event": "message", "subscription": "slow.1", "data": "x".repeat(10_000),
        })
        .to_string(),
    );
    let mut clients: Vec<Client> = (0..8).map(|_| router.client()).collect();
    let mut sent = vec![0; clients.len()];
    for (client, sent) in clients.iter_mut().zip(&mut sent) {
        client.subscribe("slow.1");
        client.stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        while client.stream.write_all(&block).is_ok() {
            *sent += block.len();
            assert!(*sent < 200 << 20, "all is taken");
        }
    }
    let more = router.resident_bytes().saturating_sub(before);
    // Each: the event in hand, its call, 32 events that wait, what was read behind them.
    assert!(more < clients.len() * (4 << 20), "{more} bytes more");
    // Those who leave now do not hold their descriptors for long.
    let descriptors = router.descriptors();
    drop(clients);
    gate.open();
    until_true("the connections to end", || router.descriptors() + 8 <= descriptors);
    innocent.finish();
}
