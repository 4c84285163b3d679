//! Messages from Redis on their way to clients.
//!
//! - what a client gets: the envelope, the data digit for digit
//! - publications that are none
//! - a channel and the subscription that a message names
//! - metadata
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::{Value, json};
use support::{Client, World, subscribe};

const CHANNEL: &str = "books.1";

// What a client gets.

#[test]
fn messages_have_an_envelope() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    for data in [json!({ "a": [1, null] }), json!(null), json!("x"), json!([]), json!(false)] {
        let message = json!({
            "subscription": CHANNEL, "data": data, "event": "other", "further": 1,
            "published_at": "2026-01-31T10:00:00+00:00",
        });
        world.redis.publish(CHANNEL, &message.to_string());
        client.expect(&json!({ "event": "message", "subscription": CHANNEL, "data": data }));
    }
}

#[test]
fn data_arrives_digit_for_digit() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    let cases = [
        "123456789012345678901234567890",
        "-123456789012345678901234567890",
        "1e400",
        "-1E+400",
        "1.0",
        "1.10000000000000000000000000000001",
        "-0",
        "-0.0",
        "1e2",
        r#""\ud800""#,
        r#"{"z":1,"a":2,"m":[{"y":1,"b":2}]}"#,
        r#"{"a":9007199254740993}"#,
        r#""\ud83e\udd88 and \u0000""#,
    ];
    for data in cases {
        let message = format!(r#"{{"subscription":"books.1","data":{data}}}"#);
        world.redis.publish(CHANNEL, &message);
        let text = client.recv_text();
        let compact = text.replace(": ", ":");
        let end = |end: char| compact.contains(&format!(r#""data":{data}{end}"#));
        assert!(end(',') || end('}'), "{text}");
    }
}

#[test]
fn messages_arrive_in_order_and_exactly_once() {
    let world = World::books(&[]);
    let mut clients: Vec<Client> = (0..3).map(|_| world.reader(CHANNEL)).collect();
    for number in 0..2_000 {
        world.publish(CHANNEL, json!(number));
    }
    for client in &mut clients {
        for number in 0..2_000 {
            assert_eq!(client.recv_data(), number);
        }
        client.expect_quiet();
    }
}

#[test]
fn large_messages_pass() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    let large = "x".repeat(3_000_000);
    world.publish(CHANNEL, json!(large));
    assert_eq!(client.recv_data(), json!(large));
    client.expect_quiet();
}

// Publications that are none.

#[test]
fn publications_that_are_none_end_nothing() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"subscription":"books.1","data":{open}{close}}}"#)
    };
    let (too_deep, abyss) = (deep(600), deep(100_000));
    let cases: [&[u8]; 18] = [
        b"",
        b"hello",
        b"{",
        b"5",
        b"null",
        b"[]",
        b"{}",
        br#"{"data":1}"#,
        br#"{"subscription":"books.1"}"#,
        br#"{"subscription":"books.2","data":1}"#,
        br#"{"subscription":["books.1"],"data":1}"#,
        br#"{"subscription":null,"data":1}"#,
        br#"{"subscription":"books.1","data":NaN}"#,
        br#"{"subscription":"books.1","data":1} x"#,
        br#"{"subscription":"books.1","data":Infinity}"#,
        b"{\"subscription\":\"books.1\",\"data\":\"\xff\"}",
        too_deep.as_bytes(),
        abyss.as_bytes(),
    ];
    for case in cases {
        world.redis.publish_bytes(CHANNEL.as_bytes(), case);
    }
    world.expect_no_message(&mut client, CHANNEL);
    client.expect_quiet();
    let invalid = world.router.wait_event("invalid service event");
    assert_eq!(invalid["level"], "warning");
    assert!(invalid.get("data").is_some(), "{invalid}");
}

// Channels and names.

#[test]
fn a_message_goes_to_the_subscription_that_it_names() {
    let world = World::books(&[]);
    let mut both = world.client();
    both.subscribe("books.1");
    both.subscribe("books.2");
    let mut one = world.client();
    one.subscribe("books.1");
    let mut two = world.client();
    two.subscribe("books.2");
    let message = json!({ "subscription": "books.2", "data": "named" });
    world.redis.publish("books.1", &message.to_string());
    both.expect(&json!({ "event": "message", "subscription": "books.2", "data": "named" }));
    world.publish("books.1", json!("end"));
    world.publish("books.2", json!("end"));
    assert_eq!(one.recv_data(), "end");
    assert_eq!(two.recv_data(), "end");
    both.expect_data(&[json!("end"), json!("end")]);
}

#[test]
fn nothing_comes_after_unsubscribing() {
    let world = World::books(&["before_unsubscribe"]);
    let gate = world.service.hold("/before_unsubscribe");
    let mut client = world.reader(CHANNEL);
    client.send(&json!({ "event": "unsubscribe", "subscription": CHANNEL }));
    world.service.wait("/before_unsubscribe", 1);
    world.publish(CHANNEL, json!("until the end"));
    assert_eq!(client.recv_data(), "until the end");
    gate.open();
    assert_eq!(client.recv()["event"], "unsubscribe");
    let mut neighbour = world.reader(CHANNEL);
    world.publish(CHANNEL, json!(1));
    assert_eq!(neighbour.recv_data(), 1);
    client.expect_quiet();
}

// Metadata.

fn with_metadata(hooks: &[&str]) -> World {
    World::new(|service| {
        let books = service.hooks(hooks);
        json!({ "SERVICES": { "books": books }, "MESSAGE_METADATA": true })
    })
}

/// ISO 8601 in UTC with microseconds.
#[track_caller]
fn expect_time(value: &Value) {
    let text = value.as_str().unwrap();
    let time = text.strip_suffix("+00:00").unwrap_or_else(|| panic!("not UTC: {text}"));
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(form, "9999-99-99T99:99:99.999999", "{text}");
}

#[test]
fn metadata_can_be_asked_for() {
    let world = with_metadata(&[]);
    let mut client = world.reader(CHANNEL);
    let mut publish = |published_at: Value| {
        let mut message = json!({ "subscription": CHANNEL, "data": 1 });
        message["published_at"] = published_at;
        world.redis.publish(CHANNEL, &message.to_string());
        let got = client.recv();
        expect_time(&got["sent_at"]);
        expect_time(&got["received_at"]);
        assert!(got["queue_size"].is_u64(), "{got}");
        got.get("published_at").cloned()
    };
    let given = publish(json!("2026-01-31T10:00:00.000001+00:00")).unwrap();
    assert_eq!(given, "2026-01-31T10:00:00.000001+00:00");
    assert_eq!(publish(json!(null)), None);
    assert_eq!(publish(json!("yesterday")), None);
    let line = world.router.wait_event("invalid published_at format");
    assert_eq!((&line["level"], &line["published_at"]), (&json!("warning"), &json!("yesterday")));
    let keys = ["event", "subscription", "data", "received_at", "sent_at", "queue_size"];
    world.publish(CHANNEL, json!(2));
    let got = client.recv();
    assert_eq!(got.as_object().unwrap().len(), keys.len(), "{got}");
}

#[test]
fn held_messages_have_less_metadata() {
    let world = with_metadata(&["before_subscribe"]);
    let gate = world.service.hold("/before_subscribe");
    let mut client = world.client();
    client.send(&subscribe(CHANNEL));
    world.service.wait("/before_subscribe", 1);
    let at = "2026-01-31T10:00:00.000001+00:00";
    let message = json!({ "subscription": CHANNEL, "data": 1, "published_at": at });
    world.redis.publish(CHANNEL, &message.to_string());
    client.expect_still();
    gate.open();
    assert_eq!(client.recv()["status"], "ok");
    let buffered = client.recv();
    expect_time(&buffered["sent_at"]);
    assert_eq!(buffered["published_at"], at);
    assert_eq!(buffered.as_object().unwrap().len(), 5, "{buffered}");

    for data in ["first", "held"] {
        let options = json!({ "throttle": 0.1 });
        let message = json!({
            "subscription": CHANNEL, "data": data, "published_at": at, "options": options,
        });
        world.redis.publish(CHANNEL, &message.to_string());
    }
    assert_eq!(client.recv_data(), "first");
    let held = client.recv();
    expect_time(&held["sent_at"]);
    assert_eq!(held.as_object().unwrap().len(), 4, "{held}");
}
