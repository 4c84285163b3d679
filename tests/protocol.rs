//! What clients send and what they get back, whatever the services do.
//!
//! - what is no event; unknown events; doubled keys; binary frames
//! - `auth`: methods, tickets, the service's answers
//! - the subscription's format, the services, the order of the checks
//! - `subscribe` twice, `message` and `unsubscribe` without a subscription, too many
//! - `ping`, in order and at once
//! - one event at a time, back-pressure
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde_json::{Value, json};
use support::client::{BINARY, TEXT, frame};
use support::service::Reply;
use support::wait::until_true;
use support::{Client, World};

const INVALID_EVENT: &str = "Messages must be JSON and contain an event field.";

fn invalid_event() -> Value {
    json!({ "status": "error", "error": INVALID_EVENT })
}

/// The error answer to a subscription event.
fn refused(event: &str, subscription: &Value, error: &str) -> Value {
    json!({ "event": event, "status": "error", "subscription": subscription, "error": error })
}

/// Services `open` and `locked`, ticket authentication giving `user`.
fn open_and_locked() -> World {
    World::new(|service| {
        json!({
            "AUTHENTICATION": service.ticket(&["user"]),
            "SERVICES": {
                "open": { "require_authentication": false, "extra_fields": ["color", "size"] },
                "locked": {},
            },
        })
    })
}

// What is no event.

#[test]
fn what_is_no_event_is_refused_and_the_session_goes_on() {
    let world = World::books(&[]);
    let mut client = world.client();
    let deep = format!(r#"{{"event":"ping","x":{}1{}}}"#, "[".repeat(600), "]".repeat(600));
    let abyss = "[".repeat(100_000);
    let long = format!(r#"{{"event":"{}"}}"#, "x".repeat(41));
    let long_astral = format!(r#"{{"event":"{}"}}"#, "🦈".repeat(41));
    let cases = [
        "",
        "hello",
        "nul",
        "{",
        "[]",
        "[{\"event\":\"ping\"}]",
        "5",
        "null",
        "\"ping\"",
        "{}",
        r#"{"Event":"ping"}"#,
        r#"{"event":null}"#,
        r#"{"event":5}"#,
        r#"{"event":["ping"]}"#,
        r#"{"event":{"ping":1}}"#,
        r#"{"event":"ping"} x"#,
        r#"{"event":"ping"}{"event":"ping"}"#,
        r#"{"event":"ping",}"#,
        r#"{"event":"ping","data":NaN}"#,
        r#"{"event":"ping","data":-Infinity}"#,
        r#"{"event":"ping"} // note"#,
        r#"{"event":"ping","data":"\x"}"#,
        "{\"event\":\"ping\",\"data\":\"a\nb\"}",
        r#"{'event':'ping'}"#,
        r#"{"event":"ping","data":01}"#,
        &deep,
        &abyss,
        &long,
        &long_astral,
    ];
    for case in cases {
        client.send_text(case);
        assert_eq!(client.recv(), invalid_event(), "{}", &case[..case.len().min(80)]);
    }
    client.expect_quiet();
}

#[test]
fn unknown_events_are_echoed() {
    let world = World::books(&[]);
    let mut client = world.client();
    let names = ["", "Ping", "pong", " ping", "ping\u{0}", &"x".repeat(40), &"🦈".repeat(40)];
    for name in names {
        let answer = client.ask(&json!({ "event": name, "subscription": "books.1" }));
        let error = "Event not found.";
        assert_eq!(answer, json!({ "event": name, "status": "error", "error": error }));
    }
}

#[test]
fn of_doubled_keys_the_last_one_counts() {
    let world = World::books(&[]);
    let mut client = world.client();
    client.send_text(r#"{"event":"nothing","data":"a","event":"ping","data":"b"}"#);
    client.expect(&json!({ "event": "pong", "data": "b" }));
    client.send_text(r#"{"event":"ping","event":5}"#);
    client.expect(&invalid_event());
    client.send_text(r#"{"event":"nothing","\u0065vent":"ping"}"#);
    client.expect(&json!({ "event": "pong", "data": null }));
}

#[test]
fn binary_frames_are_answered_in_text() {
    let world = World::books(&[]);
    let mut client = world.client();
    client.send_frame(BINARY, br#"{"event":"ping","data":"b"}"#);
    client.expect(&json!({ "event": "pong", "data": "b" }));
    client.send_frame(BINARY, b"\xff\xfe");
    client.expect(&invalid_event());
    client.expect_quiet();
}

// Authentication.

#[test]
fn methods_that_are_not_configured_are_unsupported() {
    let unsupported = json!({
        "event": "auth", "status": "error", "error": "Authentication method unsupported.",
    });
    let without = World::books(&[]);
    let mut client = without.client();
    assert_eq!(client.ask(&json!({ "event": "auth", "ticket": "t" })), unsupported);
    let method = json!({ "event": "auth", "method": "ticket", "ticket": "t" });
    assert_eq!(client.ask(&method), unsupported);

    let with = open_and_locked();
    let mut client = with.client();
    for method in [json!(null), json!("password"), json!(""), json!(5), json!({}), json!([])] {
        let answer = client.ask(&json!({ "event": "auth", "method": method, "ticket": "t" }));
        assert_eq!(answer, unsupported, "{method}");
    }
    assert!(with.service.all().is_empty());
}

#[test]
fn a_ticket_is_needed() {
    let world = open_and_locked();
    let mut client = world.client();
    let error = "Must specify ticket.";
    let needed = json!({ "event": "auth", "status": "error", "error": error });
    assert_eq!(client.ask(&json!({ "event": "auth" })), needed);
    for ticket in [json!(null), json!(false), json!(0), json!(""), json!([]), json!({})] {
        let answer = client.ask(&json!({ "event": "auth", "ticket": ticket }));
        assert_eq!(answer, needed, "{ticket}");
    }
    assert!(world.service.all().is_empty());
}

#[test]
fn tickets_of_any_other_kind_are_passed_on() {
    let world = open_and_locked();
    world.service.answer_json("/ticket", &json!({ "status": "ok", "user": 1 }));
    let mut client = world.client();
    let tickets = [json!("t"), json!(5), json!(true), json!([0]), json!({ "a": null })];
    for ticket in &tickets {
        let answer = client.ask(&json!({ "event": "auth", "ticket": ticket, "user": "me" }));
        assert_eq!(answer, json!({ "event": "auth", "status": "ok" }));
    }
    let bodies: Vec<Value> =
        world.service.requests("/ticket").iter().map(|request| request.json()).collect();
    assert_eq!(bodies, tickets.map(|ticket| json!({ "ticket": ticket })));
}

#[test]
fn the_service_decides_on_tickets() {
    let world = open_and_locked();
    let mut client = world.client();
    let cases = [
        (json!({ "status": "error", "error": "Expired." }), json!("Expired.")),
        (json!({ "status": "error" }), json!("Authentication failed.")),
        (json!({ "status": "error", "error": null }), json!(null)),
        (json!({ "status": "error", "error": "" }), json!("")),
        (json!({ "status": "error", "error": { "code": [7] } }), json!({ "code": [7] })),
        (json!({ "status": "error", "error": "No.", "data": { "x": 1 } }), json!("No.")),
        (json!({ "status": "OK", "user": 1 }), json!("Authentication failed.")),
        (json!({ "user": 1 }), json!("Authentication failed.")),
        (json!({ "status": ["ok"], "user": 1 }), json!("Authentication failed.")),
        // A configured field is missing.
        (json!({ "status": "ok" }), json!("Authentication failed.")),
    ];
    for (answer, error) in cases {
        world.service.answer_json("/ticket", &answer);
        let got = client.ask(&json!({ "event": "auth", "ticket": "t" }));
        assert_eq!(got, json!({ "event": "auth", "status": "error", "error": error }), "{answer}");
    }
    let locked = json!("locked.1");
    let answer = client.ask(&json!({ "event": "subscribe", "subscription": locked }));
    assert_eq!(answer, refused("subscribe", &locked, "Authentication required."));

    world.service.answer("/ticket", Reply::Status(500));
    let got = client.ask(&json!({ "event": "auth", "ticket": "t" }));
    let error = "Service unavailable.";
    assert_eq!(got, json!({ "event": "auth", "status": "error", "error": error }));

    // A null is a value like any other.
    world.service.answer_json("/ticket", &json!({ "status": "ok", "user": null }));
    client.authenticate("t");
    client.subscribe("locked.1");
}

// Subscriptions' names.

#[test]
fn subscriptions_have_a_format() {
    let world = open_and_locked();
    let mut client = world.client();
    let error = "Invalid subscription format.";
    for event in ["subscribe", "message", "unsubscribe"] {
        let bare = json!({ "event": event, "status": "error", "error": error });
        assert_eq!(client.ask(&json!({ "event": event })), bare);
        for silent in [json!(null), json!(""), json!(0), json!(false), json!([]), json!({})] {
            let answer = client.ask(&json!({ "event": event, "subscription": silent }));
            assert_eq!(answer, bare, "{silent}");
        }
        let echoed = ["open", "open.", ".topic", ".", "..", "nothing", " "].map(|name| json!(name));
        let others = [json!(5), json!(true), json!(["open.1"]), json!({ "open.1": 1 })];
        for name in echoed.iter().chain(&others) {
            let answer = client.ask(&json!({ "event": event, "subscription": name }));
            assert_eq!(answer, refused(event, name, error));
        }
        client.send_text(&format!(r#"{{"event":"{event}","subscription":"open.\ud800"}}"#));
        let answer = client.recv_text();
        assert!(answer.contains(error) && answer.contains(r#""open.\ud800""#), "{answer}");
    }
}

#[test]
fn services_must_be_configured() {
    let world = open_and_locked();
    let mut client = world.client();
    for event in ["subscribe", "message", "unsubscribe"] {
        for name in ["closed.1", "Open.1", " open.1", "open1.1", "\u{0}.1"] {
            let answer = client.ask(&json!({ "event": event, "subscription": name }));
            assert_eq!(answer, refused(event, &json!(name), "Invalid service."));
        }
    }
}

#[test]
fn topics_may_hold_anything_behind_the_first_period() {
    let world = open_and_locked();
    let mut client = world.client();
    let names =
        ["open..a", "open.a.", "open.a.b", "open. ", "open.\u{0}\r\n", "open.*", "open.\"🦈\""];
    for name in names {
        client.subscribe(name);
        world.publish(name, json!(1));
        let message = json!({ "event": "message", "subscription": name, "data": 1 });
        assert_eq!(client.recv(), message);
        client.unsubscribe(name);
    }
    world.redis.wait_channels(&[]);
}

#[test]
fn the_checks_come_in_their_order() {
    let world = open_and_locked();
    world.service.answer_json("/ticket", &json!({ "status": "ok", "user": 1 }));
    let mut client = world.client();
    let subscribe = |name: &str| json!({ "event": "subscribe", "subscription": name });
    let cases = [
        ("nothing.", "Invalid subscription format."),
        ("nothing.1", "Invalid service."),
        ("locked.", "Invalid subscription format."),
        ("locked.1", "Authentication required."),
    ];
    for (name, error) in cases {
        let answer = client.ask(&subscribe(name));
        assert_eq!(answer, refused("subscribe", &json!(name), error));
    }
    client.authenticate("t");
    client.subscribe("locked.1");
    let answer = client.ask(&subscribe("locked.1"));
    assert_eq!(answer, refused("subscribe", &json!("locked.1"), "Already subscribed."));
}

#[test]
fn only_subscribe_asks_for_authentication() {
    let world = open_and_locked();
    let mut client = world.client();
    for event in ["message", "unsubscribe"] {
        let answer = client.ask(&json!({ "event": event, "subscription": "locked.1" }));
        let error = "Subscription does not exist.";
        assert_eq!(answer, refused(event, &json!("locked.1"), error));
    }
}

// Extra fields and the subscriptions that exist.

#[test]
fn answers_carry_the_extra_fields_of_the_subscription() {
    let world = open_and_locked();
    let mut client = world.client();
    let with = |event: &str, color: Value, further: Value| {
        let mut answer = json!({ "event": event, "subscription": "open.1", "color": color });
        support::merge(&mut answer, further);
        answer
    };
    let request = with("subscribe", json!(null), json!({ "other": 1 }));
    assert_eq!(client.ask(&request), with("subscribe", json!(null), json!({ "status": "ok" })));
    // From here on those given when subscribing, null included.
    let twice = json!({ "status": "error", "error": "Already subscribed." });
    let request = with("subscribe", json!("red"), json!({ "size": 2 }));
    assert_eq!(client.ask(&request), with("subscribe", json!(null), twice));
    world.publish("open.1", json!({}));
    assert_eq!(client.recv(), with("message", json!(null), json!({ "data": {} })));
    let request = with("unsubscribe", json!("red"), json!({}));
    assert_eq!(client.ask(&request), with("unsubscribe", json!(null), json!({ "status": "ok" })));
    // And without a subscription those of the request.
    for event in ["message", "unsubscribe"] {
        let error = json!({ "status": "error", "error": "Subscription does not exist." });
        let request = with(event, json!({ "a": [] }), json!({ "data": 3 }));
        assert_eq!(client.ask(&request), with(event, json!({ "a": [] }), error));
    }
}

#[test]
fn sessions_have_a_number_of_subscriptions() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["authorizer"]) },
            "LIMITS": { "max_subscriptions_per_session": 2 },
        })
    });
    let mut client = world.client();
    client.subscribe("books.1");
    client.subscribe("books.2");
    let third = json!({ "event": "subscribe", "subscription": "books.3" });
    let error = refused("subscribe", &json!("books.3"), "Too many subscriptions.");
    assert_eq!(client.ask(&third), error);
    assert_eq!(world.service.requests("/authorizer").len(), 2);
    client.unsubscribe("books.1");
    client.subscribe("books.3");
    assert_eq!(
        client.ask(&json!({ "event": "subscribe", "subscription": "books.1" }))["error"],
        "Too many subscriptions."
    );
    world.redis.wait_channels(&["books.2", "books.3"]);
}

// ping

#[test]
fn pings_come_back_with_their_data_cut_to_size() {
    let world = World::books(&[]);
    let mut client = world.client();
    let cut = "🦈".repeat(128);
    let cases = [
        (json!("x"), json!("x")),
        (json!(""), json!("")),
        (json!(null), json!(null)),
        (json!(5), json!(null)),
        (json!({ "a": 1 }), json!(null)),
        (json!(["x"]), json!(null)),
        (json!("🦈".repeat(129)), json!(cut)),
        (json!(cut), json!(cut)),
        (json!("\u{0}\r\n\"\\"), json!("\u{0}\r\n\"\\")),
    ];
    for (data, back) in cases {
        let answer = client.ask(&json!({ "event": "ping", "data": data }));
        assert_eq!(answer, json!({ "event": "pong", "data": back }));
    }
    assert_eq!(client.ask(&json!({ "event": "ping" })), json!({ "event": "pong", "data": null }));
    client.send_text(r#"{"event":"ping","data":"a\udfffb"}"#);
    assert!(client.recv_text().to_lowercase().contains(r"a\udfffb"));
}

#[test]
fn events_are_handled_one_at_a_time_while_messages_and_protocol_pings_pass() {
    let world = World::books(&["on_message"]);
    let gate = world.service.hold_then(
        "/on_message",
        Reply::json(&json!({
            "status": "ok", "data": "done",
        })),
    );
    let mut client = world.client();
    client.subscribe("books.1");
    client.send(&json!({ "event": "message", "subscription": "books.1", "data": 1 }));
    client.send(&json!({ "event": "ping", "data": "after" }));
    client.send(&json!({ "event": "message", "subscription": "books.1", "data": 2 }));
    world.service.wait("/on_message", 1);
    client.expect_still();
    world.publish("books.1", json!("meanwhile"));
    assert_eq!(client.recv_data(), "meanwhile");
    assert_eq!(world.service.requests("/on_message").len(), 1);
    gate.open();
    let done = json!({
        "event": "message", "subscription": "books.1", "status": "ok", "data": "done",
    });
    client.expect(&done);
    client.expect(&json!({ "event": "pong", "data": "after" }));
    client.expect(&done);
    let data: Vec<Value> =
        world.service.requests("/on_message").iter().map(|r| r.json()["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(2)]);
}

#[test]
fn pongs_can_be_asked_for_at_once() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_subscribe"]) },
            "WS_PONG_IMMEDIATE": true,
        })
    });
    let gate = world.service.hold("/on_subscribe");
    let mut client = world.client();
    client.subscribe("books.1");
    client.send(&json!({ "event": "unsubscribe", "subscription": "books.1" }));
    // Only ping overtakes.
    client.expect_quiet();
    gate.open();
    assert_eq!(client.recv()["event"], "unsubscribe");
}

// Back-pressure.

/// Sends until the server takes no more, and gives the number of events sent and the bytes of the
/// last one that are still to be sent.
fn fill(client: &mut Client) -> (usize, Vec<u8>) {
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let padding = "x".repeat(60_000);
    for number in 0..10_000 {
        let event = json!({ "event": "ping", "data": number.to_string(), "padding": padding });
        let bytes = frame(0x80 | TEXT, event.to_string().as_bytes());
        let mut sent = 0;
        while sent < bytes.len() {
            match client.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    client.stream.set_write_timeout(None).unwrap();
                    return (number + 1, bytes[sent..].to_vec());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    panic!("600 MB were taken");
}

/// `books` with an `on_subscribe`, and room for one waiting event.
fn one_waiting(ping: Value) -> World {
    World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_subscribe"]) },
            "LIMITS": { "max_queued_events_per_session": 1 },
            "WS_PING": ping,
        })
    })
}

#[test]
fn a_session_that_waits_is_not_read_and_nothing_is_lost() {
    let world = one_waiting(json!({ "interval": null }));
    let gate = world.service.hold("/on_subscribe");
    let mut client = world.client();
    client.subscribe("books.1");
    let (events, rest) = fill(&mut client);
    gate.open();
    // The server may wait for our reading before it reads on.
    let mut sending = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || sending.write_all(&rest));
    for number in 0..events {
        client.expect(&json!({ "event": "pong", "data": number.to_string() }));
    }
    sender.join().unwrap().unwrap();
    client.expect_quiet();
}

#[test]
fn the_ping_clock_stands_still_while_a_session_is_not_read() {
    let world = one_waiting(json!({ "interval": 0.1, "timeout": 0.2 }));
    let gate = world.service.hold("/on_subscribe");
    let mut neighbour = world.client();
    let mut client = world.client();
    client.subscribe("books.1");
    for number in 0..4 {
        client.send(&json!({ "event": "ping", "data": number.to_string() }));
    }
    until_true("pings to the neighbour", || {
        neighbour.expect_quiet();
        neighbour.pings >= 8
    });
    gate.open();
    for number in 0..4 {
        client.expect(&json!({ "event": "pong", "data": number.to_string() }));
    }
    until_true("pings to the session", || {
        client.expect_quiet();
        client.pings >= 2
    });
}
