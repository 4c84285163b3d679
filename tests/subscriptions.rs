//! Subscriptions from their first callback to their last.
//!
//! - the callbacks of a whole life, in their order; what the answers carry
//! - messages that come while a subscribe is under way
//! - services that refuse: nothing stays behind
//! - several sessions on one channel
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::{Value, json};
use support::service::Reply;
use support::{SESSION_HOOKS, World, answer, subscribe, unsubscribe};

// A whole life.

#[test]
fn the_callbacks_of_a_whole_life() {
    let world = World::all_hooks();
    let data = |text: &str| Reply::json(&json!({ "status": "ok", "data": text }));
    for hook in SESSION_HOOKS {
        world.service.answer(&format!("/{hook}"), data(hook));
    }
    let mut client = world.client();
    client.send(&subscribe("books.1"));
    let ok = |data: &str| json!({ "status": "ok", "data": data });
    client.expect(&answer("subscribe", "books.1", ok("before_subscribe")));
    let message = json!({ "event": "message", "subscription": "books.1", "data": { "a": [1] } });
    client.send(&message);
    client.expect(&answer("message", "books.1", ok("on_message")));
    client.send(&unsubscribe("books.1"));
    client.expect(&answer("unsubscribe", "books.1", ok("before_unsubscribe")));
    client.expect_quiet();
    let made: Vec<(String, Value)> =
        world.service.all().iter().map(|r| (r.path[1..].to_owned(), r.json())).collect();
    let plain = json!({ "subscription": "books.1" });
    let with_data = json!({ "subscription": "books.1", "data": { "a": [1] } });
    let body = |hook: &str| if hook == "on_message" { &with_data } else { &plain };
    assert_eq!(made, SESSION_HOOKS.map(|hook| (hook.to_owned(), body(hook).clone())));
    world.redis.wait_channels(&[]);
    client.close(1000);
    world.router.wait_metric("socketshark_connection_count", 0.0);
    assert_eq!(world.service.calls().len(), SESSION_HOOKS.len());
}

#[test]
fn on_subscribe_and_on_unsubscribe_come_behind_the_answer_and_hold_the_next_event() {
    let world = World::all_hooks();
    let on_subscribe = world.service.hold("/on_subscribe");
    let on_unsubscribe = world.service.hold("/on_unsubscribe");
    let mut client = world.client();
    client.subscribe("books.1");
    world.service.wait("/on_subscribe", 1);
    client.send(&unsubscribe("books.1"));
    // Messages do not wait.
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
    client.expect_still();
    assert!(world.service.requests("/before_unsubscribe").is_empty());
    on_subscribe.open();
    client.expect(&answer("unsubscribe", "books.1", json!({ "status": "ok" })));
    world.service.wait("/on_unsubscribe", 1);
    client.send(&subscribe("books.1"));
    client.expect_still();
    assert_eq!(world.service.requests("/authorizer").len(), 1);
    on_unsubscribe.open();
    client.expect(&answer("subscribe", "books.1", json!({ "status": "ok" })));
}

#[test]
fn results_of_on_subscribe_and_on_unsubscribe_do_not_matter() {
    let world = World::all_hooks();
    world.service.answer_json("/on_subscribe", &json!({ "status": "error", "error": "no" }));
    world.service.answer("/on_unsubscribe", Reply::Status(500));
    let mut client = world.client();
    client.subscribe("books.1");
    client.expect_quiet();
    client.unsubscribe("books.1");
    client.expect_quiet();
    assert_eq!(world.service.requests("/on_subscribe").len(), 1);
    assert_eq!(world.service.requests("/on_unsubscribe").len(), 2);
}

#[test]
fn an_ok_carries_data_unless_it_is_null() {
    let world = World::all_hooks();
    let mut client = world.client();
    for data in [json!({}), json!([]), json!(0), json!(false), json!(""), json!({ "a": null })] {
        let ok = json!({ "status": "ok", "data": data });
        for hook in ["before_subscribe", "on_message", "before_unsubscribe"] {
            world.service.answer_json(&format!("/{hook}"), &ok);
        }
        for event in ["subscribe", "message", "unsubscribe"] {
            let request = json!({ "event": event, "subscription": "books.1" });
            assert_eq!(client.ask(&request), answer(event, "books.1", ok.clone()));
        }
    }
    let null = json!({ "status": "ok", "data": null });
    for hook in ["before_subscribe", "on_message", "before_unsubscribe"] {
        world.service.answer_json(&format!("/{hook}"), &null);
    }
    for event in ["subscribe", "message", "unsubscribe"] {
        let request = json!({ "event": event, "subscription": "books.1" });
        assert_eq!(client.ask(&request), answer(event, "books.1", json!({ "status": "ok" })));
    }
}

#[test]
fn messages_are_answered_only_where_the_service_has_something_to_say() {
    let world = World::books(&["on_message"]);
    let mut client = world.client();
    client.subscribe("books.1");
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.expect_quiet();
    let body = json!({ "subscription": "books.1", "data": null });
    assert_eq!(world.service.requests("/on_message")[0].json(), body);
    world.service.answer_json("/on_message", &json!({ "status": "error", "error": "full" }));
    let message = json!({ "event": "message", "subscription": "books.1", "data": 1 });
    let full = json!({ "status": "error", "error": "full" });
    assert_eq!(client.ask(&message), answer("message", "books.1", full));

    let without = World::books(&[]);
    let mut client = without.client();
    client.subscribe("books.1");
    client.send(&message);
    client.expect_quiet();
}

// Messages during a subscribe.

#[test]
fn messages_wait_for_the_answer_to_subscribe() {
    let world = World::books(&["before_subscribe"]);
    let gate = world.service.hold("/before_subscribe");
    let mut client = world.client();
    client.send(&subscribe("books.1"));
    world.service.wait("/before_subscribe", 1);
    for number in 0..3 {
        world.publish("books.1", json!(number));
    }
    client.expect_still();
    gate.open();
    client.expect(&answer("subscribe", "books.1", json!({ "status": "ok" })));
    world.publish("books.1", json!(3));
    for number in 0..4 {
        assert_eq!(client.recv_data(), number);
    }
}

#[test]
fn messages_begin_with_the_redis_subscription() {
    let world = World::books(&["authorizer"]);
    let mut neighbour = world.client();
    neighbour.subscribe("books.1");
    let gate = world.service.hold("/authorizer");
    let mut client = world.client();
    client.send(&subscribe("books.1"));
    world.service.wait("/authorizer", 2);
    world.publish("books.1", json!("early"));
    assert_eq!(neighbour.recv_data(), "early");
    gate.open();
    client.expect(&answer("subscribe", "books.1", json!({ "status": "ok" })));
    world.publish("books.1", json!("in time"));
    assert_eq!(client.recv_data(), "in time");
}

#[test]
fn the_order_of_before_subscribe_filters_what_waited() {
    let world = World::books(&["before_subscribe"]);
    let options = json!({ "order": 5, "order_key": "k" });
    let ok = json!({ "status": "ok", "data": "state", "options": options });
    let gate = world.service.hold_then("/before_subscribe", Reply::json(&ok));
    let mut client = world.client();
    client.send(&subscribe("books.1"));
    world.service.wait("/before_subscribe", 1);
    for order in [3, 5, 7, 6, 8] {
        let options = json!({ "order": order, "order_key": "k" });
        let message = json!({ "subscription": "books.1", "data": order, "options": options });
        world.redis.publish("books.1", &message.to_string());
    }
    world.publish("books.1", json!("other key"));
    client.expect_still();
    gate.open();
    client.expect(&answer("subscribe", "books.1", json!({ "status": "ok", "data": "state" })));
    for data in [json!(7), json!(8), json!("other key")] {
        assert_eq!(client.recv_data(), data);
    }
}

#[test]
fn the_throttle_of_before_subscribe_starts_the_period() {
    let world = World::books(&["before_subscribe"]);
    let ok = json!({ "status": "ok", "options": { "throttle": 0.2 } });
    world.service.answer_json("/before_subscribe", &ok);
    let mut client = world.client();
    client.subscribe("books.1");
    for data in ["replaced", "held"] {
        let options = json!({ "throttle": 0.2 });
        let message = json!({ "subscription": "books.1", "data": data, "options": options });
        world.redis.publish("books.1", &message.to_string());
    }
    world.publish("books.1", json!("free"));
    assert_eq!(client.recv_data(), "free");
    assert_eq!(client.recv_data(), "held");
}

// Refusals.

#[test]
fn a_refused_subscribe_leaves_nothing_behind() {
    let world = World::all_hooks();
    let mut client = world.client();
    let no = json!({ "status": "error", "error": "No.", "data": { "why": 1 } });
    for hook in ["authorizer", "before_subscribe"] {
        let path = format!("/{hook}");
        let gate = world.service.hold_then(&path, Reply::json(&no));
        world.service.forget();
        client.send(&subscribe("books.1"));
        world.service.wait(&path, 1);
        world.publish("books.1", json!("unseen"));
        client.expect_still();
        gate.open();
        client.expect(&answer("subscribe", "books.1", no.clone()));
        world.redis.wait_channels(&[]);
        let missing = json!({ "status": "error", "error": "Subscription does not exist." });
        assert_eq!(client.ask(&unsubscribe("books.1")), answer("unsubscribe", "books.1", missing));
        world.service.answer(&path, Reply::ok());
        // Once more, now with success: what came before is not seen.
        client.subscribe("books.1");
        client.expect_quiet();
        client.unsubscribe("books.1");
        client.expect_quiet();
    }
    let made = world.service.calls();
    assert_eq!(made[..2], ["authorizer books.1", "before_subscribe books.1"]);
    assert_eq!(made[2], "authorizer books.1", "no on_subscribe, no unsubscribe callbacks");
}

#[test]
fn refusals_have_their_texts() {
    let world = World::all_hooks();
    let mut client = world.client();
    let default = |hook: &str| match hook {
        "authorizer" => "Unauthorized.",
        _ => "Unhandled exception.",
    };
    let cases = [
        ("authorizer", "subscribe"),
        ("before_subscribe", "subscribe"),
        ("on_message", "message"),
        ("before_unsubscribe", "unsubscribe"),
    ];
    for (hook, event) in cases {
        if event == "message" {
            client.subscribe("books.1");
        }
        let path = format!("/{hook}");
        let request = json!({ "event": event, "subscription": "books.1" });
        let mut refused = |reply: Value, expected: Value| {
            world.service.answer_json(&path, &reply);
            let mut expected = answer(event, "books.1", expected);
            expected["status"] = json!("error");
            assert_eq!(client.ask(&request), expected, "{hook}: {reply}");
        };
        refused(json!({ "status": "error" }), json!({ "error": default(hook) }));
        refused(json!({}), json!({ "error": default(hook) }));
        refused(json!({ "status": "Ok" }), json!({ "error": default(hook) }));
        refused(json!({ "status": true, "error": "e" }), json!({ "error": "e" }));
        for error in [json!(null), json!(""), json!(5), json!({ "a": [] })] {
            let expected = json!({ "error": error });
            refused(json!({ "status": "error", "error": error }), expected);
        }
        for data in [json!(null), json!(0), json!(""), json!([]), json!({}), json!(false)] {
            let expected = json!({ "error": "e" });
            refused(json!({ "status": "no", "error": "e", "data": data }), expected);
        }
        for data in [json!(1), json!("d"), json!([0]), json!({ "a": null }), json!(true)] {
            let expected = json!({ "error": "e", "data": data });
            refused(json!({ "status": "no", "error": "e", "data": data }), expected);
        }
        world.service.answer(&path, Reply::Status(503));
        let unavailable = json!({ "status": "error", "error": "Service unavailable." });
        assert_eq!(client.ask(&request), answer(event, "books.1", unavailable));
        world.service.answer(&path, Reply::ok());
    }
}

#[test]
fn a_refused_unsubscribe_keeps_the_subscription() {
    let world = World::all_hooks();
    let no = json!({ "status": "error", "error": "Stay." });
    world.service.answer_json("/before_unsubscribe", &no);
    let mut client = world.client();
    client.subscribe("books.1");
    assert_eq!(client.ask(&unsubscribe("books.1")), answer("unsubscribe", "books.1", no));
    world.publish("books.1", json!("still here"));
    assert_eq!(client.recv_data(), "still here");
    world.service.wait("/on_subscribe", 1);
    world.service.forget();
    // At the end it is asked again, and its "no" counts no more.
    client.close(1000);
    world.service.wait_paths(&["/before_unsubscribe", "/on_unsubscribe"]);
    world.redis.wait_channels(&[]);
}

// Several sessions.

#[test]
fn sessions_share_a_channel() {
    let world = World::books(&[]);
    let mut first = world.client();
    let mut second = world.client();
    first.subscribe("books.1");
    second.subscribe("books.1");
    assert_eq!(world.redis.subscribers("books.1"), 1);
    world.publish("books.1", json!(1));
    assert_eq!(first.recv_data(), 1);
    assert_eq!(second.recv_data(), 1);
    first.unsubscribe("books.1");
    world.publish("books.1", json!(2));
    assert_eq!(second.recv_data(), 2);
    first.expect_quiet();
    assert_eq!(world.redis.subscribers("books.1"), 1);
    second.close(1000);
    world.redis.wait_channels(&[]);
}

#[test]
fn a_channel_left_and_joined_in_the_same_breath_goes_on() {
    let world = World::books(&[]);
    let mut first = world.client();
    let mut second = world.client();
    first.subscribe("books.1");
    for round in 0..50 {
        first.send(&unsubscribe("books.1"));
        second.send(&subscribe("books.1"));
        assert_eq!(second.recv()["status"], "ok");
        assert_eq!(first.recv()["status"], "ok");
        world.publish("books.1", json!(round));
        assert_eq!(second.recv_data(), round);
        std::mem::swap(&mut first, &mut second);
    }
    first.unsubscribe("books.1");
    second.expect_quiet();
    world.redis.wait_channels(&[]);
}

#[test]
fn one_refusal_does_not_take_the_channel_from_the_others() {
    let world = World::books(&["before_subscribe"]);
    let mut reader = world.client();
    reader.subscribe("books.1");
    world.service.answer_json("/before_subscribe", &json!({ "status": "error" }));
    let mut refused = world.client();
    assert_eq!(refused.ask(&subscribe("books.1"))["status"], "error");
    world.publish("books.1", json!(1));
    assert_eq!(reader.recv_data(), 1);
    refused.expect_quiet();
}

#[test]
fn channels_have_the_configured_prefix() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&[]) },
            "REDIS": { "channel_prefix": "shelf:" },
        })
    });
    let mut client = world.client();
    client.subscribe("books.1");
    world.redis.wait_channels(&["shelf:books.1"]);
    let message = json!({ "subscription": "books.1", "data": 1 });
    assert_eq!(world.redis.publish("books.1", &message.to_string()), 0);
    world.redis.publish("shelf:books.1", &message.to_string());
    assert_eq!(client.recv_data(), 1);
    client.unsubscribe("books.1");
    world.redis.wait_channels(&[]);
}
