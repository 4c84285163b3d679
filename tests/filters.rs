//! Which messages from Redis reach a session, and when.
//!
//! - filter fields
//! - options that count as none; order
//! - throttling
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::{Client, World};

const CHANNEL: &str = "books.1";

/// A publication to `books.1` with these options.
fn with_options(world: &World, options: Value, data: Value) {
    let message = json!({ "subscription": CHANNEL, "options": options, "data": data });
    world.redis.publish(CHANNEL, &message.to_string());
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
fn odd_options_count_as_none() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
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

#[test]
fn only_rising_orders_pass() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
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
    client.expect_data(&passed);
    world.expect_no_message(&mut client, CHANNEL);
    let line = world.router.wait_event("message filtered");
    assert_eq!(line["reason"], "order");
}

#[test]
fn orders_of_different_keys_do_not_meet() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
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
    world.expect_no_message(&mut client, CHANNEL);
}

#[test]
fn each_subscription_has_its_own_orders() {
    let world = World::books(&[]);
    let mut first = world.reader(CHANNEL);
    with_options(&world, json!({ "order": 5 }), json!(5));
    assert_eq!(first.recv_data(), 5);
    let mut second = world.reader(CHANNEL);
    with_options(&world, json!({ "order": 4 }), json!(4));
    assert_eq!(second.recv_data(), 4);
    world.expect_no_message(&mut first, CHANNEL);
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
    client.expect_data(&[json!("first"), json!("free"), json!("held")]);
    world.expect_no_message(&mut client, CHANNEL);
}

#[test]
fn keys_unused_for_longest_are_forgotten() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&[]) },
            "LIMITS": { "max_keys_per_subscription": 2 },
        })
    });
    let mut client = world.reader(CHANNEL);
    let publish = |key: &str, order: i32| {
        let options = json!({ "order": order, "order_key": key });
        with_options(&world, options, json!(format!("{key}{order}")));
    };
    for (key, order) in [("a", 5), ("b", 5), ("a", 6), ("c", 5), ("a", 1), ("c", 1), ("b", 1)] {
        publish(key, order);
    }
    // c drove out b; a and c are remembered.
    let passed = ["a5", "b5", "a6", "c5", "b1"].map(|text| json!(text));
    client.expect_data(&passed);
    world.expect_no_message(&mut client, CHANNEL);
}

// Throttling.

#[test]
fn of_throttled_messages_the_first_and_the_last_arrive() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    let began = Instant::now();
    for number in 0..10 {
        with_options(&world, json!({ "throttle": 0.3 }), json!(number));
    }
    world.publish(CHANNEL, json!("free"));
    client.expect_data(&[json!(0), json!("free"), json!(9)]);
    assert!(began.elapsed().as_millis() >= 290, "too early: {:?}", began.elapsed());
    // The period starts again with what was sent last.
    with_options(&world, json!({ "throttle": "0.2" }), json!("held"));
    world.publish(CHANNEL, json!("free"));
    client.expect_data(&[json!("free"), json!("held")]);
    let line = world.router.wait_event("message filtered");
    assert_eq!(line["reason"], "throttle");
}

#[test]
fn throttles_of_different_keys_do_not_meet() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    for key in [json!(null), json!("a"), json!(""), json!([1]), json!(1)] {
        let options = json!({ "throttle": 60, "throttle_key": key });
        with_options(&world, options.clone(), key.clone());
        with_options(&world, options, json!("held"));
        assert_eq!(client.recv_data(), key);
    }
    world.expect_no_message(&mut client, CHANNEL);
}

#[test]
fn held_messages_are_dropped_with_their_subscription() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    with_options(&world, json!({ "throttle": 0.1 }), json!("first"));
    with_options(&world, json!({ "throttle": 0.1 }), json!("dropped"));
    // What tells that the time is over.
    with_options(&world, json!({ "throttle": 0.1, "throttle_key": "k" }), json!("first of k"));
    client.expect_data(&[json!("first"), json!("first of k")]);
    client.unsubscribe(CHANNEL);
    client.subscribe(CHANNEL);
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("first"));
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("held"));
    client.expect_data(&[json!("first"), json!("held")]);
    client.expect_quiet();
}

#[test]
fn periods_of_nothing_never_wait_but_replace_what_waits() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    for (number, period) in [json!(0), json!(-1), json!("0"), json!(0.0)].iter().enumerate() {
        with_options(&world, json!({ "throttle": period }), json!(number));
        assert_eq!(client.recv_data(), number);
    }
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("first"));
    with_options(&world, json!({ "throttle": 0.2, "throttle_key": "k" }), json!("replaced"));
    with_options(&world, json!({ "throttle": 0, "throttle_key": "k" }), json!("instead"));
    client.expect_data(&[json!("first")]);
    world.expect_no_message(&mut client, CHANNEL);
    assert_eq!(client.recv_data(), "instead");
    client.expect_quiet();
}

#[test]
fn the_first_period_decides_when_a_held_message_is_due() {
    let world = World::books(&[]);
    let mut client = world.reader(CHANNEL);
    for (period, data) in [(0.1, "first"), (0.1, "replaced"), (60.0, "held")] {
        with_options(&world, json!({ "throttle": period }), json!(data));
    }
    client.expect_data(&[json!("first"), json!("held")]);
}
