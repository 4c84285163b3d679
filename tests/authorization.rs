//! What is repeated while a subscription lasts: authorizations and heartbeats.
//!
//! - renewals, and what their callbacks are given
//! - fields that change
//! - authorizations that end, by a "no" or by a failing service; the grace
//! - heartbeats
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::{Value, json};
use support::service::Reply;
use support::wait::until_true;
use support::{Client, World, merge};

const HOOKS: [&str; 5] = [
    "authorizer",
    "on_authorization_change",
    "before_subscribe",
    "before_unsubscribe",
    "on_unsubscribe",
];

/// `books` with `HOOKS`, authorized anew every 0.1 s, with `more` over its configuration.
fn renewing(more: Value) -> World {
    World::new(|service| {
        let mut books = service.hooks(&HOOKS);
        let fields = json!({
            "authorization_renewal_period": 0.1,
            "authorizer_fields": ["role", "level"],
            "extra_fields": ["color"],
        });
        merge(&mut books, fields);
        merge(&mut books, more);
        json!({ "SERVICES": { "books": books }, "HTTP": { "tries": 1 } })
    })
}

fn reader(world: &World) -> Client {
    let mut client = world.client();
    let request = json!({ "event": "subscribe", "subscription": "books.1", "color": "red" });
    assert_eq!(client.ask(&request)["status"], "ok");
    client
}

fn ok(fields: Value) -> Reply {
    let mut answer = json!({ "status": "ok" });
    merge(&mut answer, fields);
    Reply::json(&answer)
}

/// What the client is told when its authorization ends.
fn ended(error: Value) -> Value {
    json!({ "event": "unsubscribe", "subscription": "books.1", "color": "red", "error": error })
}

/// The subscription is gone on all sides, and its callbacks were made once.
#[track_caller]
fn expect_gone(world: &World, client: &mut Client) {
    world.redis.wait_channels(&[]);
    let message = json!({ "event": "message", "subscription": "books.1" });
    assert_eq!(client.ask(&message)["error"], "Subscription does not exist.");
    let calls = world.service.requests("/authorizer").len();
    let mut last = world.client();
    last.subscribe("books.last");
    world.service.wait("/authorizer", calls + 3);
    last.reset();
    world.service.wait("/on_unsubscribe", 2);
    let of_first = |path: &str| {
        let requests = world.service.requests(path);
        requests.iter().filter(|request| request.subscription() == "books.1").count()
    };
    assert_eq!(of_first("/before_unsubscribe"), 1);
    assert_eq!(of_first("/on_unsubscribe"), 1);
    assert!(of_first("/authorizer") <= calls);
}

// Renewals.

#[test]
fn authorizations_are_renewed_with_the_fields_they_gave() {
    let world = renewing(json!({}));
    world
        .service
        .answer("/authorizer", ok(json!({ "role": "admin", "color": "blue", "other": 1 })));
    let mut client = reader(&world);
    let calls = world.service.wait("/authorizer", 4);
    let first = json!({ "subscription": "books.1", "color": "red" });
    let later = json!({ "subscription": "books.1", "color": "red", "role": "admin" });
    assert_eq!(calls[0].json(), first);
    for call in &calls[1..] {
        assert_eq!(call.json(), later);
    }
    assert!(world.service.requests("/on_authorization_change").is_empty());
    client.expect_quiet();
    client.unsubscribe("books.1");
    // No more of it; another subscription's renewals show that time has passed.
    let calls = world.service.requests("/authorizer").len();
    let mut neighbour = world.client();
    neighbour.subscribe("books.2");
    world.service.wait("/authorizer", calls + 4);
    let late = world.service.requests("/authorizer").split_off(calls);
    let of_first = late.iter().filter(|call| call.subscription() == "books.1").count();
    assert!(of_first <= 1, "{of_first} after the end");
}

#[test]
fn jitter_takes_from_the_period() {
    let more = json!({ "authorization_renewal_period": 60, "authorization_renewal_jitter": 60 });
    let world = renewing(more);
    let mut client = world.client();
    // Each has a chance of one in sixty to be renewed within a second.
    for number in 0..400 {
        client.subscribe(&format!("books.{number}"));
    }
    world.service.wait("/authorizer", 401);
}

#[test]
fn changed_fields_are_told_to_the_service_with_their_new_values() {
    let world = renewing(json!({}));
    let (old, new) = (json!({ "role": "guest" }), json!({ "role": "admin" }));
    let gone = json!({});
    let script = [&old, &old, &new, &new, &gone, &gone].map(|fields| ok(fields.clone()));
    world.service.script("/authorizer", script.to_vec());
    let mut client = reader(&world);
    let changes = world.service.wait("/on_authorization_change", 2);
    let told = json!({ "subscription": "books.1", "color": "red", "role": "admin" });
    assert_eq!(changes[0].json(), told);
    // A field that vanishes is a change.
    assert_eq!(changes[1].json(), json!({ "subscription": "books.1", "color": "red" }));
    let calls = world.service.wait("/authorizer", 8);
    assert_eq!(calls[3].json()["role"], "admin");
    assert_eq!(world.service.requests("/on_authorization_change").len(), 2);
    // The client is told nothing.
    client.expect_quiet();
}

#[test]
fn the_same_values_written_otherwise_are_no_change() {
    let world = renewing(json!({}));
    let script = [
        r#"{"status":"ok","role":{"a":1,"b":[2]},"level":1}"#,
        r#"{"level":1.0,"role":{"b":[2.0],"a":1},"status":"ok"}"#,
    ];
    let script = script.map(|text| Reply::Json(text.to_owned()));
    world.service.script("/authorizer", script.to_vec());
    let mut client = reader(&world);
    world.service.wait("/authorizer", 4);
    client.expect_quiet();
    assert!(world.service.requests("/on_authorization_change").is_empty());
}

// Ends.

#[test]
fn a_no_ends_the_subscription() {
    let world = renewing(json!({ "authorization_grace": 60 }));
    let no = Reply::json(&json!({ "status": "error", "error": "Expired.", "data": 1 }));
    world.service.script("/authorizer", vec![Reply::ok(), Reply::ok(), no]);
    let leaving = json!({ "status": "error", "error": "ignored", "data": { "bye": true } });
    world.service.answer_json("/before_unsubscribe", &leaving);
    let mut client = reader(&world);
    let mut told = ended(json!("Expired."));
    told["data"] = json!({ "bye": true });
    client.expect(&told);
    world.service.answer("/authorizer", Reply::ok());
    expect_gone(&world, &mut client);
    // It can be taken up again.
    client.subscribe("books.1");
}

#[test]
fn no_messages_come_once_the_authorization_has_ended() {
    let world = renewing(json!({}));
    let no = Reply::json(&json!({ "status": "error" }));
    world.service.script("/authorizer", vec![Reply::ok(), no]);
    let gate = world.service.hold("/before_unsubscribe");
    let mut client = reader(&world);
    world.service.wait("/before_unsubscribe", 1);
    world.redis.wait_channels(&[]);
    world.publish("books.1", json!("too late"));
    client.expect_quiet();
    gate.open();
    client.expect(&ended(json!("Unauthorized.")));
    world.service.answer("/authorizer", Reply::ok());
    expect_gone(&world, &mut client);
}

#[test]
fn a_no_to_the_change_ends_the_subscription() {
    for (reply, error) in [
        (Reply::json(&json!({ "status": "error", "error": "No." })), "No."),
        (Reply::json(&json!({ "status": "error" })), "Unhandled exception."),
        (Reply::Status(500), "Service unavailable."),
    ] {
        let world = renewing(json!({ "authorization_grace": 60 }));
        let script = vec![ok(json!({ "role": 1 })), ok(json!({ "role": 2 }))];
        world.service.script("/authorizer", script);
        world.service.answer("/on_authorization_change", reply);
        let mut client = reader(&world);
        client.expect(&ended(json!(error)));
        let leaving = world.service.wait("/before_unsubscribe", 1);
        assert_eq!(leaving[0].json()["role"], 2, "the new fields are stored first");
        expect_gone(&world, &mut client);
    }
}

#[test]
fn a_failing_authorizer_ends_the_subscription_at_once_without_grace() {
    let world = renewing(json!({}));
    world.service.script("/authorizer", vec![Reply::ok(), Reply::Status(500)]);
    let mut client = reader(&world);
    client.expect(&ended(json!("Service unavailable.")));
    assert_eq!(world.service.requests("/authorizer").len(), 2);
    world.service.answer("/authorizer", Reply::ok());
    expect_gone(&world, &mut client);
}

#[test]
fn with_grace_a_failing_authorizer_may_recover() {
    let world = renewing(json!({ "authorization_grace": 60 }));
    let bad = || Reply::Status(500);
    world.service.script("/authorizer", vec![Reply::ok(), bad(), bad(), bad(), Reply::ok()]);
    let mut client = reader(&world);
    world.service.wait("/authorizer", 7);
    client.expect_quiet();
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
}

#[test]
fn the_grace_ends() {
    let world = renewing(json!({ "authorization_grace": 0.35 }));
    world.service.script("/authorizer", vec![Reply::ok(), Reply::Status(500)]);
    let mut client = reader(&world);
    client.expect(&ended(json!("Service unavailable.")));
    let calls = world.service.requests("/authorizer");
    let (first, last) = (&calls[1], calls.last().unwrap());
    assert!(last.at - first.at >= std::time::Duration::from_millis(345));
    assert!(calls.len() >= 4, "{} calls", calls.len());
    world.service.answer("/authorizer", Reply::ok());
    expect_gone(&world, &mut client);
}

#[test]
fn an_unsubscribe_under_way_and_an_end_meet() {
    let world = renewing(json!({}));
    let no = Reply::json(&json!({ "status": "error", "error": "Expired." }));
    world.service.script("/authorizer", vec![Reply::ok(), no]);
    let gate = world.service.hold("/before_unsubscribe");
    let mut client = reader(&world);
    client.send(&json!({ "event": "unsubscribe", "subscription": "books.1" }));
    world.service.wait("/before_unsubscribe", 1);
    world.service.wait("/authorizer", 2);
    client.expect_still();
    world.service.answer("/authorizer", Reply::ok());
    gate.open();
    let own = json!({
        "event": "unsubscribe", "subscription": "books.1", "color": "red", "status": "ok",
    });
    client.expect(&own);
    expect_gone(&world, &mut client);
    client.expect_quiet();
}

// Heartbeats.

fn beating(http: Value) -> World {
    World::new(|service| {
        let mut books = service.hooks(&["on_heartbeat"]);
        merge(&mut books, json!({ "heartbeat_period": 0.1, "extra_fields": ["color"] }));
        json!({ "SERVICES": { "books": books }, "HTTP": http })
    })
}

#[test]
fn heartbeats_are_sent_while_the_subscription_lasts() {
    let world = beating(json!({}));
    let mut client = reader(&world);
    let beats = world.service.wait("/on_heartbeat", 4);
    for beat in &beats {
        assert_eq!(beat.json(), json!({ "subscription": "books.1", "color": "red" }));
    }
    client.unsubscribe("books.1");
    client.subscribe("books.2");
    let before = world.service.requests("/on_heartbeat").len();
    world.service.wait("/on_heartbeat", before + 3);
    let after = world.service.requests("/on_heartbeat").split_off(before);
    let late = after.iter().filter(|beat| beat.subscription() == "books.1").count();
    assert!(late <= 1, "{late} heartbeats after the end");
    client.reset();
    world.router.wait_metric("socketshark_connection_count", 0.0);
}

#[test]
fn failing_heartbeats_are_only_logged() {
    let world = beating(json!({ "tries": 1 }));
    let no = Reply::json(&json!({ "status": "error", "error": "no" }));
    world.service.script("/on_heartbeat", vec![no, Reply::Status(500), Reply::Close]);
    let mut client = reader(&world);
    world.service.wait("/on_heartbeat", 4);
    client.expect_quiet();
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
    until_true("a log line", || world.router.log_text().contains("on_heartbeat"));
}
