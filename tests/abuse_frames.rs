//! Clients that were let in and misbehave: frames and JSON of every malformed kind, and sessions
//! that change their mind thousands of times a second.
//!
//! - malformed frames, by hand and by chance
//! - JSON that is deep, long or crowded, from clients, services and publishers
//! - subscribing and unsubscribing without end
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write;
use std::thread;

use serde_json::json;
use support::client::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, header};
use support::innocent::{Innocent, calm, raise_descriptors};
use support::random::Random;
use support::service::Reply;
use support::{Client, Redis, Router, Service, subscribe, unsubscribe};

const FIN: u8 = 0x80;

/// What breaks a rule, and the code that says which.
fn violations() -> Vec<(Vec<u8>, u16)> {
    let claim = |first: u8, length: usize| [header(first, 0x80, length), vec![0; 4]].concat();
    let mut all = vec![
        ([header(FIN | TEXT, 0, 2), b"{}".to_vec()].concat(), 1002),
        (frame(FIN | CONTINUATION, b"{}"), 1002),
        (frame(PING, b""), 1002),
        (frame(FIN | PING, &[0; 126]), 1002),
        (frame(FIN | CLOSE, b"x"), 1002),
        (frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        (frame(FIN | CLOSE, b"\x03\xe8\xff\xfe"), 1007),
        ([frame(TEXT, b"{"), frame(FIN | BINARY, b"}")].concat(), 1002),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ([frame(TEXT, b"\xf0\x9f"), frame(FIN | CONTINUATION, b"\xff\xff")].concat(), 1007),
        (claim(FIN | TEXT, 1_048_577), 1009),
        (claim(FIN | BINARY, usize::MAX >> 1), 1009),
        (claim(FIN | TEXT, 1 << 63 | 1), 1009),
        ([frame(TEXT, &[b' '; 600_000]), claim(FIN | CONTINUATION, 600_000)].concat(), 1009),
    ];
    all.extend((1..8_u8).map(|bits| (frame(FIN | bits << 4 | TEXT, b"{}"), 1002)));
    all.extend([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|opcode| (frame(FIN | opcode, b""), 1002)));
    all
}

#[test]
fn every_violation_is_told_and_nobody_else_notices() {
    raise_descriptors();
    let redis = Redis::start();
    let service = Service::start();
    let books = service.hooks(&["on_unsubscribe"]);
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "books": books } })));
    let innocent = Innocent::start(&router, &redis);
    let violations = violations();
    let count = violations.len();
    thread::scope(|scope| {
        for (bytes, code) in violations {
            let mut client = router.client();
            scope.spawn(move || {
                client.subscribe("books.1");
                client.send_raw(&bytes);
                // What follows a violation counts no more.
                let _ = client.stream.write_all(&frame(FIN | TEXT, b"{}"));
                client.expect_close(code);
            });
        }
    });
    service.wait("/on_unsubscribe", count);
    redis.wait_channels(&["calm.1"]);
    innocent.finish();
}

/// A conversation that is in order, as it goes over the wire.
fn conversation(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..8 {
        let text = match random.below(5) {
            0 => subscribe("calm.chance").to_string(),
            1 => unsubscribe("calm.chance").to_string(),
            2 => json!({ "event": "message", "subscription": "calm.chance" }).to_string(),
            3 => json!({ "event": "ping", "data": "x".repeat(random.below(300)) }).to_string(),
            _ => json!({ "event": "auth", "ticket": "x" }).to_string(),
        };
        let (first, rest) = text.as_bytes().split_at(random.below(text.len()));
        bytes.extend(match random.below(4) {
            0 => [frame(TEXT, first), frame(FIN | PING, b"x"), frame(FIN | CONTINUATION, rest)]
                .concat(),
            1 => frame(FIN | BINARY, text.as_bytes()),
            2 => frame(FIN | PONG, b"unasked"),
            _ => frame(FIN | TEXT, text.as_bytes()),
        });
    }
    bytes
}

#[test]
fn conversations_spoilt_by_chance_end_properly_or_go_on() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    thread::scope(|scope| {
        for seed in 0..8 {
            let router = &router;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..25 {
                    let mut bytes = conversation(&mut random);
                    for _ in 0..=random.below(3) {
                        random.spoil(&mut bytes);
                    }
                    let mut client = router.client();
                    let _ = client.stream.write_all(&bytes);
                    client.finish();
                    // A Close of ours or, if all was understood, just the end.
                    while let Some(frame) = client.try_frame() {
                        let code =
                            frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        let fits = matches!(code, None | Some(1000..=1009 | 3000..=4999));
                        assert!(frame.opcode != CLOSE || fits, "seed {seed}: {code:?}");
                    }
                }
            });
        }
    });
    redis.wait_channels(&["calm.1"]);
    router.wait_metric("socketshark_connection_count", 1.0);
    innocent.finish();
}

/// JSON that costs others their stack, their memory or their time.
fn bombs() -> Vec<String> {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
    vec![
        deep(511),
        deep(100_000),
        "[".repeat(100_000),
        objects(500),
        objects(100_000),
        "9".repeat(100_000),
        format!("1e{}", "9".repeat(100_000)),
        format!("-0.{}1", "0".repeat(100_000)),
        format!("\"{}\"", "\\u0000".repeat(15_000)),
        format!("\"{}\"", "\\ud800".repeat(15_000)),
        format!("[{}1]", "1,".repeat(40_000)),
        format!("{{{}\"a\":1}}", "\"a\":1,".repeat(15_000)),
        format!("[{}[]]", "[[]],".repeat(15_000)),
    ]
}

#[test]
fn bombs_of_clients_harm_nobody() {
    let service = json!({
        "require_authentication": false, "extra_fields": ["extra"], "filter_fields": ["extra"],
    });
    let (router, redis) = Router::alone(calm(json!({ "SERVICES": { "books": service } })));
    let innocent = Innocent::start(&router, &redis);
    let mut sessions = Vec::new();
    for (number, bomb) in bombs().into_iter().enumerate() {
        let mut client = router.client();
        for key in ["event", "data", "ticket", "method", "subscription", "other"] {
            client.send_text(&format!(r#"{{"event":"ping","{key}":{bomb}}}"#));
            client.recv_text();
        }
        // As a field that messages are compared by, again and again.
        let name = format!("books.{}", number % 2);
        client.send_text(&format!(
            r#"{{"event":"subscribe","subscription":"{name}","extra":{bomb}}}"#
        ));
        client.recv_text();
        sessions.push(client);
    }
    for number in 0..200 {
        for name in ["books.0", "books.1"] {
            let extra = json!([number, [[]], "a"]);
            let message = json!({ "subscription": name, "data": number, "extra": extra });
            redis.publish(name, &message.to_string());
        }
    }
    for session in &mut sessions {
        session.expect_quiet();
    }
    innocent.finish();
}

#[test]
fn bombs_of_services_and_publishers_harm_nobody() {
    let redis = Redis::start();
    let service = Service::start();
    let mut books = service.hooks(&["before_subscribe"]);
    books["authorizer_fields"] = json!(["field"]);
    let config = json!({ "SERVICES": { "books": books }, "HTTP": { "tries": 1 } });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let mut client = router.client();
    let mut reader = router.client();
    reader.subscribe("calm.busy");
    for bomb in bombs() {
        let body = format!(
            r#"{{"status":"ok","data":{bomb},"field":{bomb},
                "options":{{"order":{bomb},"throttle":{bomb}}}}}"#
        );
        service.answer("/before_subscribe", Reply::Json(body));
        for event in [subscribe("books.1"), unsubscribe("books.1")] {
            client.send(&event);
            client.recv_text();
        }
        for part in ["data", "options", "subscription", "other"] {
            redis.publish("calm.busy", &format!(r#"{{"{part}":{bomb}}}"#));
        }
        redis.publish("calm.busy", &bomb);
        let options = format!(
            r#"{{"order":{bomb},"order_key":{bomb},"throttle":{bomb},"throttle_key":{bomb}}}"#
        );
        redis.publish(
            "calm.busy",
            &format!(r#"{{"subscription":"calm.busy","data":0,"options":{options}}}"#),
        );
    }
    redis.publish("calm.busy", r#"{"subscription":"calm.busy","data":"last"}"#);
    while reader.recv_data() != "last" {}
    client.expect_quiet();
    innocent.finish();
}

#[test]
fn a_client_may_change_its_mind_thousands_of_times() {
    let redis = Redis::start();
    let service = Service::start();
    let beating = json!({
        "require_authentication": false,
        "heartbeat_period": 3_600, "on_heartbeat": service.url("/on_heartbeat"),
        "authorization_renewal_period": 3_600,
    });
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "beating": beating } })));
    let innocent = Innocent::start(&router, &redis);
    let mut staying = router.client();
    staying.subscribe("beating.0");
    let before = router.resident_bytes();
    let pairs = 2_000;
    thread::scope(|scope| {
        let mut client: Client = router.client();
        let mut sending = client.stream.try_clone().unwrap();
        scope.spawn(move || {
            for number in 0..pairs {
                let name = format!("beating.{}", number % 3);
                for event in [subscribe(&name), unsubscribe(&name)] {
                    sending.write_all(&frame(FIN | TEXT, event.to_string().as_bytes())).unwrap();
                }
            }
        });
        for number in 0..pairs {
            for event in ["subscribe", "unsubscribe"] {
                let answer = client.recv();
                let expected = json!({
                    "event": event, "status": "ok",
                    "subscription": format!("beating.{}", number % 3),
                });
                assert_eq!(answer, expected);
            }
        }
    });
    let grown = router.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes are left of {pairs} subscriptions");
    redis.wait_channels(&["beating.0", "calm.1"]);
    redis.publish("beating.0", r#"{"subscription":"beating.0","data":1}"#);
    assert_eq!(staying.recv_data(), 1);
    innocent.finish();
}
