//! The tests' own tools, tested.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::json;
use support::redis::Resp;
use support::router::sample;
use support::service::{Gate, Reply};
use support::{Redis, Service, client, http, merge};

#[test]
fn redis_starts_answers_and_comes_back() {
    let mut redis = Redis::start();
    assert_eq!(redis.publish("nobody", "hears"), 0);
    assert_eq!(redis.subscribers("nobody"), 0);
    assert!(redis.channels().is_empty());
    redis.restart();
    assert_eq!(redis.command(&["PING"]), Resp::Simple("PONG".to_owned()));
    let locked = Redis::with_password("secret");
    assert_eq!(locked.command(&["PING"]), Resp::Simple("PONG".to_owned()));
}

#[test]
fn services_answer_and_remember() {
    let service = Service::start();
    service.script("/a", vec![Reply::Status(500), Reply::json(&json!({ "n": 1 }))]);
    let post = |path: &str| {
        let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}");
        http::exchange(service.port, request.as_bytes())
    };
    assert_eq!(post("/a").unwrap().0.status(), 500);
    assert_eq!(post("/a").unwrap().1, r#"{"n":1}"#);
    assert_eq!(post("/b").unwrap().1, r#"{"status":"ok"}"#);
    service.answer("/c", Reply::Close);
    assert!(post("/c").is_none());
    assert_eq!(service.paths(), ["/a", "/a", "/b", "/c"]);
    assert_eq!(service.requests("/b")[0].json(), json!({}));
    assert_eq!(service.connections(), 4);
}

#[test]
fn gates_hold_until_they_are_opened() {
    let gate = Gate::default();
    let behind = gate.clone();
    let waiting = std::thread::spawn(move || behind.pass());
    assert!(!waiting.is_finished());
    gate.open();
    waiting.join().unwrap();
}

#[test]
fn client_frames_have_the_three_lengths() {
    assert_eq!(client::header(0x81, 0x80, 125), [0x81, 0xfd]);
    assert_eq!(client::header(0x81, 0, 126), [0x81, 126, 0, 126]);
    assert_eq!(client::header(0x82, 0x80, 65_536), [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    let masked = client::frame(0x81, b"abcde");
    assert_eq!(masked.len(), 2 + 4 + 5);
    assert_eq!(masked[6] ^ masked[2], b'a');
    assert_eq!(masked[10] ^ masked[2], b'e');
}

#[test]
fn configurations_are_laid_over_each_other() {
    let mut base = json!({ "a": { "b": 1, "c": 2 }, "d": 3 });
    merge(&mut base, json!({ "a": { "c": 4 }, "d": { "e": 5 }, "f": 6 }));
    assert_eq!(base, json!({ "a": { "b": 1, "c": 4 }, "d": { "e": 5 }, "f": 6 }));
}

#[test]
fn samples_are_found_by_their_whole_series() {
    let text = "# HELP a b\na_total 3\na{x=\"1\"} 4\na 5\n";
    assert_eq!(sample(text, "a"), Some(5.0));
    assert_eq!(sample(text, "a{x=\"1\"}"), Some(4.0));
    assert_eq!(sample(text, "b"), None);
}
