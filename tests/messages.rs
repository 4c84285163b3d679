//! Messages from Redis on their way to clients.
//!
//! - what a client gets: the envelope, the data digit for digit
//! - publications that are none
//! - filter fields
//! - order
//! - throttling
//! - a channel and the subscription that a message names
//! - metadata
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::{Client, World};

const CHANNEL: &str = "books.1";

/// A client with a subscription to `books.1`.
fn reader(world: &World) -> Client {
    let mut client = world.client();
    client.subscribe(CHANNEL);
    client
}

/// A publication to `books.1` with these options.
fn with_options(world: &World, options: Value, data: Value) {
    let message = json!({ "subscription": CHANNEL, "options": options, "data": data });
    world.redis.publish(CHANNEL, &message.to_string());
}

/// Nothing has come since, as the message published now shows.
#[track_caller]
fn expect_nothing_else(world: &World, client: &mut Client) {
    world.publish(CHANNEL, json!("and then"));
    assert_eq!(client.recv_data(), "and then");
}

#[track_caller]
fn expect_data(client: &mut Client, expected: &[Value]) {
    let got: Vec<Value> = expected.iter().map(|_| client.recv_data()).collect();
    assert_eq!(got, expected);
}

// What a client gets.

#[test]
fn messages_have_an_envelope() {
    let world = World::books(&[]);
    let mut client = reader(&world);
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
    let mut client = reader(&world);
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
    let mut clients: Vec<Client> = (0..3).map(|_| reader(&world)).collect();
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
    let mut client = reader(&world);
    let large = "x".repeat(3_000_000);
    world.publish(CHANNEL, json!(large));
    assert_eq!(client.recv_data(), json!(large));
    client.expect_quiet();
}

// Publications that are none.

#[test]
fn publications_that_are_none_end_nothing() {
    let world = World::books(&[]);
    let mut client = reader(&world);
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
    expect_nothing_else(&world, &mut client);
    client.expect_quiet();
    let invalid = world.router.wait_event("invalid service event");
    assert_eq!(invalid["level"], "warning");
    assert!(invalid.get("data").is_some(), "{invalid}");
}

#[test]
fn odd_options_count_as_none() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    let cases = [
        json!(null),
        json!([]),
        json!("order"),
        json!(5),
        json!({}),
        json!({ "order": null }),
        json!({ "order": "x" }),
        json!({ "order": [] }),
        json!({ "order": {} }),
        json!({ "order": "" }),
        json!({ "order": "nan" }),
        json!({ "throttle": null }),
        json!({ "throttle": "x" }),
        json!({ "throttle": [] }),
        json!({ "throttle": "nan" }),
        json!({ "throttle": "1_" }),
    ];
    // Twice each: nothing is filtered.
    for options in cases.iter().chain(&cases) {
        with_options(&world, options.clone(), options.clone());
        assert_eq!(client.recv_data(), *options);
    }
}

// Filter fields.

/// `books` with the filter fields `user` (an auth field), `color` and `shape` (extra fields) and
/// `role` (an authorizer field). The session has `user` as given, and `color`.
fn filtered(user: Value, color: Value) -> (World, Client) {
    let world = World::new(|service| {
        let mut books = service.hooks(&["authorizer"]);
        let fields = json!({
            "extra_fields": ["color", "shape"],
            "authorizer_fields": ["role"],
            "filter_fields": ["user", "color", "shape", "role"],
        });
        support::merge(&mut books, fields);
        json!({ "AUTHENTICATION": service.ticket(&["user"]), "SERVICES": { "books": books } })
    });
    world.service.answer_json("/ticket", &json!({ "status": "ok", "user": user }));
    world.service.answer_json("/authorizer", &json!({ "status": "ok", "role": "admin" }));
    let mut client = world.client();
    client.authenticate("t");
    let request = json!({ "event": "subscribe", "subscription": CHANNEL, "color": color });
    assert_eq!(client.ask(&request)["status"], "ok");
    (world, client)
}

/// Publishes with these fields and says whether it arrived.
#[track_caller]
fn arrives(world: &World, client: &mut Client, fields: &str) -> bool {
    let message = format!(r#"{{"subscription":"books.1","data":"sent"{fields}}}"#);
    world.redis.publish(CHANNEL, &message);
    world.publish(CHANNEL, json!("mark"));
    let arrived = client.recv_data() == "sent";
    if arrived {
        assert_eq!(client.recv_data(), "mark");
    }
    arrived
}

#[test]
fn filter_fields_choose_the_sessions() {
    let (world, mut client) = filtered(json!("ann"), json!("red"));
    let cases = [
        (r#""#, true),
        (r#","user":"ann""#, true),
        (r#","user":"bob""#, false),
        (r#","user":null"#, false),
        (r#","user":"ann","color":"red""#, true),
        (r#","user":"ann","color":"blue""#, false),
        (r#","color":"red""#, true),
        // Absent counts as null.
        (r#","shape":null"#, true),
        (r#","shape":"round""#, false),
        // Authorizer fields do not count.
        (r#","role":"admin""#, false),
        (r#","role":null"#, true),
        // What is no filter field does not matter.
        (r#","size":5"#, true),
        (r#","user":"bob","user":"ann""#, true),
        (r#","user":"\u0061nn""#, true),
    ];
    for (fields, expected) in cases {
        assert_eq!(arrives(&world, &mut client, fields), expected, "{fields}");
    }
    let line = world.router.wait_event("message filtered");
    assert_eq!((&line["reason"], &line["level"]), (&json!("fields"), &json!("debug")));
    assert_eq!(line["logger"], "trace.socketshark");
}

#[test]
fn filter_fields_are_compared_as_json_values() {
    let big = "123456789012345678901234567890";
    let user = serde_json::from_str(r#"{"a":[1,2.0],"b":null}"#).unwrap();
    let (world, mut client) = filtered(user, json!(1));
    let cases = [
        (r#","color":1"#, true),
        (r#","color":1.0"#, true),
        (r#","color":1e0"#, true),
        (r#","color":10e-1"#, true),
        (r#","color":true"#, false),
        (r#","color":"1""#, false),
        (r#","color":[1]"#, false),
        (r#","color":1.0000000000000002"#, false),
        (r#","user":{"b":null,"a":[1.0,2]}"#, true),
        (r#","user":{"a":[2.0,1],"b":null}"#, false),
        (r#","user":{"a":[1,2.0]}"#, false),
        (r#","user":{"a":[1,2.0],"b":null,"c":1}"#, false),
    ];
    for (fields, expected) in cases {
        assert_eq!(arrives(&world, &mut client, fields), expected, "{fields}");
    }
    client.unsubscribe(CHANNEL);
    client.send_text(&format!(r#"{{"event":"subscribe","subscription":"books.1","color":{big}}}"#));
    assert!(client.recv_text().contains(big));
    let cases = [
        (format!(r#","color":{big}"#), true),
        (format!(r#","color":{big}1"#), false),
        (r#","color":123456789012345678901234567891"#.to_owned(), false),
    ];
    for (fields, expected) in cases {
        let message = format!(r#"{{"subscription":"books.1","data":"sent"{fields}}}"#);
        world.redis.publish(CHANNEL, &message);
        world.publish(CHANNEL, json!("mark"));
        let arrived = client.recv_text().contains("sent");
        assert_eq!(arrived, expected, "{fields}");
        if arrived {
            assert!(client.recv_text().contains("mark"));
        }
    }
}

// Order.

#[test]
fn only_rising_orders_pass() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    let orders = [
        (json!(1), true),
        (json!(3), true),
        (json!(2), false),
        (json!(3), false),
        (json!(3.5), true),
        (json!("4"), true),
        (json!(" 5.5 \n"), true),
        (json!("5_5"), true),
        (json!("0x7f"), true),
        (json!(54), false),
        (json!(true), false),
        (json!("6e1"), true),
        (json!("infinity"), true),
        (json!(1e300), false),
        (json!("inf"), false),
    ];
    for (order, _) in &orders {
        with_options(&world, json!({ "order": order }), order.clone());
    }
    let passed: Vec<Value> =
        orders.iter().filter(|(_, passes)| *passes).map(|(order, _)| order.clone()).collect();
    expect_data(&mut client, &passed);
    expect_nothing_else(&world, &mut client);
    let line = world.router.wait_event("message filtered");
    assert_eq!(line["reason"], "order");
}

#[test]
fn orders_of_different_keys_do_not_meet() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    let keys = [
        json!("a"),
        json!(""),
        json!(0),
        json!("0"),
        json!([1, 2]),
        json!([2, 1]),
        json!({}),
        json!({ "a": 1, "b": 2 }),
    ];
    with_options(&world, json!({ "order": 5 }), json!("none"));
    assert_eq!(client.recv_data(), "none");
    // A null key is the absent one.
    with_options(&world, json!({ "order": 5, "order_key": null }), json!("none again"));
    for key in &keys {
        with_options(&world, json!({ "order": 5, "order_key": key }), key.clone());
        assert_eq!(client.recv_data(), *key);
    }
    for key in &keys {
        with_options(&world, json!({ "order": 5, "order_key": key }), key.clone());
    }
    // The same values, written otherwise.
    for key in [r#"[ 1,2.0 ]"#, r#"{"b":2,"a":1}"#, r#""\u0061""#, "0.0"] {
        let options = format!(r#"{{"order":5,"order_key":{key}}}"#);
        let message = format!(r#"{{"subscription":"books.1","data":1,"options":{options}}}"#);
        world.redis.publish(CHANNEL, &message);
    }
    expect_nothing_else(&world, &mut client);
}

#[test]
fn each_subscription_has_its_own_orders() {
    let world = World::books(&[]);
    let mut first = reader(&world);
    with_options(&world, json!({ "order": 5 }), json!(5));
    assert_eq!(first.recv_data(), 5);
    let mut second = reader(&world);
    with_options(&world, json!({ "order": 4 }), json!(4));
    assert_eq!(second.recv_data(), 4);
    expect_nothing_else(&world, &mut first);
    assert_eq!(second.recv_data(), "and then");
    first.unsubscribe(CHANNEL);
    first.subscribe(CHANNEL);
    with_options(&world, json!({ "order": 1 }), json!(1));
    assert_eq!(first.recv_data(), 1);
    second.expect_quiet();
}

#[test]
fn messages_stopped_by_their_fields_set_no_order_and_throttled_ones_do() {
    let (world, mut client) = filtered(json!("ann"), json!("red"));
    let publish = |options: Value, user: &str, data: &str| {
        let message = json!({
            "subscription": CHANNEL, "data": data, "options": options, "user": user,
        });
        world.redis.publish(CHANNEL, &message.to_string());
    };
    publish(json!({ "order": 9 }), "bob", "for bob");
    publish(json!({ "order": 1, "throttle": 0.2 }), "ann", "first");
    publish(json!({ "order": 5, "throttle": 0.2 }), "ann", "held");
    publish(json!({ "order": 4 }), "ann", "late");
    publish(json!({ "order": 6 }), "ann", "free");
    expect_data(&mut client, &[json!("first"), json!("free"), json!("held")]);
    expect_nothing_else(&world, &mut client);
}

#[test]
fn keys_unused_for_longest_are_forgotten() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&[]) },
            "LIMITS": { "max_keys_per_subscription": 2 },
        })
    });
    let mut client = reader(&world);
    let publish = |key: &str, order: i32| {
        let options = json!({ "order": order, "order_key": key });
        with_options(&world, options, json!(format!("{key}{order}")));
    };
    for (key, order) in [("a", 5), ("b", 5), ("a", 6), ("c", 5), ("a", 1), ("c", 1), ("b", 1)] {
        publish(key, order);
    }
    // c drove out b; a and c are remembered.
    let passed = ["a5", "b5", "a6", "c5", "b1"].map(|text| json!(text));
    expect_data(&mut client, &passed);
    expect_nothing_else(&world, &mut client);
}

// Throttling.

#[test]
fn of_throttled_messages_the_first_and_the_last_arrive() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    let began = Instant::now();
    for number in 0..10 {
        with_options(&world, json!({ "throttle": 0.3 }), json!(number));
    }
    world.publish(CHANNEL, json!("free"));
    expect_data(&mut client, &[json!(0), json!("free"), json!(9)]);
    assert!(began.elapsed().as_millis() >= 290, "too early: {:?}", began.elapsed());
    // The period starts again with what was sent last.
    with_options(&world, json!({ "throttle": "0.2" }), json!("held"));
    world.publish(CHANNEL, json!("free"));
    expect_data(&mut client, &[json!("free"), json!("held")]);
    let line = world.router.wait_event("message filtered");
    assert_eq!(line["reason"], "throttle");
}

#[test]
fn throttles_of_different_keys_do_not_meet() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    for key in [json!(null), json!("a"), json!(""), json!([1]), json!(1)] {
        let options = json!({ "throttle": 60, "throttle_key": key });
        with_options(&world, options.clone(), key.clone());
        with_options(&world, options, json!("held"));
        assert_eq!(client.recv_data(), key);
    }
    expect_nothing_else(&world, &mut client);
}

#[test]
fn held_messages_are_dropped_with_their_subscription() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    with_options(&world, json!({ "throttle": 0.1 }), json!("first"));
    with_options(&world, json!({ "throttle": 0.1 }), json!("dropped"));
    // What tells that the time is over.
    with_options(&world, json!({ "throttle": 0.1, "throttle_key": "k" }), json!("first of k"));
    expect_data(&mut client, &[json!("first"), json!("first of k")]);
    client.unsubscribe(CHANNEL);
    client.subscribe(CHANNEL);
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("first"));
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("held"));
    expect_data(&mut client, &[json!("first"), json!("held")]);
    client.expect_quiet();
}

#[test]
fn periods_of_nothing_never_wait_but_replace_what_waits() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    for (number, period) in [json!(0), json!(-1), json!("0"), json!(0.0)].iter().enumerate() {
        with_options(&world, json!({ "throttle": period }), json!(number));
        assert_eq!(client.recv_data(), number);
    }
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("first"));
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("replaced"));
    with_options(&world, json!({ "throttle": 0, "throttle_key": "k" }), json!("instead"));
    expect_nothing_else_but(&world, &mut client, &[json!("first")]);
    assert_eq!(client.recv_data(), "instead");
    client.expect_quiet();
}

#[track_caller]
fn expect_nothing_else_but(world: &World, client: &mut Client, expected: &[Value]) {
    expect_data(client, expected);
    expect_nothing_else(world, client);
}

#[test]
fn the_first_period_decides_when_a_held_message_is_due() {
    let world = World::books(&[]);
    let mut client = reader(&world);
    for (period, data) in [(0.1, "first"), (0.1, "replaced"), (60.0, "held")] {
        with_options(&world, json!({ "throttle": period }), json!(data));
    }
    expect_data(&mut client, &[json!("first"), json!("held")]);
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
    expect_data(&mut both, &[json!("end"), json!("end")]);
}

#[test]
fn nothing_comes_after_unsubscribing() {
    let world = World::books(&["before_unsubscribe"]);
    let gate = world.service.hold("/before_unsubscribe");
    let mut client = reader(&world);
    client.send(&json!({ "event": "unsubscribe", "subscription": CHANNEL }));
    world.service.wait("/before_unsubscribe", 1);
    world.publish(CHANNEL, json!("until the end"));
    assert_eq!(client.recv_data(), "until the end");
    gate.open();
    assert_eq!(client.recv()["event"], "unsubscribe");
    let mut neighbour = reader(&world);
    world.publish(CHANNEL, json!(1));
    assert_eq!(neighbour.recv_data(), 1);
    client.expect_quiet();
}

// Metadata.

fn with_metadata(hooks: &[&str]) -> World {
    World::new(
        |service| json!({ "SERVICES": { "books": service.hooks(hooks) }, "MESSAGE_METADATA": true }),
    )
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
    let mut client = reader(&world);
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
    client.send(&json!({ "event": "subscribe", "subscription": CHANNEL }));
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
