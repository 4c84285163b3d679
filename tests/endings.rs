//! Ends of sessions, and what becomes of their subscriptions.
//!
//! - by Close, end of stream, violation or reset; the last subscription first
//! - events that wait when the client leaves
//! - a subscribe or unsubscribe under way when the client leaves
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::json;
use support::client::{CLOSE, TEXT, frame};
use support::service::Reply;
use support::wait::until_true;
use support::{Client, World, answer, subscribe, unsubscribe};

const NOTHING_MORE: &str = "the last of all";

/// Waits for the callbacks; more of them would be seen because a whole new session's come after.
#[track_caller]
fn expect_calls(world: &World, expected: &[&str]) {
    support::wait::until(&format!("{expected:?}, came {:?}", world.service.calls()), || {
        (world.service.all().len() >= expected.len()).then_some(())
    });
    let mut last = world.client();
    let last_name = format!("books.{NOTHING_MORE}");
    last.subscribe(&last_name);
    last.unsubscribe(&last_name);
    last.expect_quiet();
    let mut made = world.service.calls();
    made.retain(|call| !call.ends_with(NOTHING_MORE));
    assert_eq!(made, expected);
}

// Ends of sessions.

fn end_by_close(client: Client) {
    client.close(1000);
}

fn end_by_stream(mut client: Client) {
    client.finish();
    client.expect_end_or_close();
}

fn end_by_violation(mut client: Client) {
    client.send_raw(&[0xff, 0x80, 0, 0, 0, 0]);
    assert_eq!(client.close_code(), 1002);
}

#[test]
fn however_a_session_ends_its_subscriptions_are_left_once_each_the_last_first() {
    for end in [end_by_close, end_by_stream, end_by_violation, Client::reset] {
        let world = World::books(&["before_unsubscribe", "on_unsubscribe"]);
        let mut client = world.client();
        for name in ["books.1", "books.2", "books.3"] {
            client.subscribe(name);
        }
        client.unsubscribe("books.2");
        client.expect_quiet();
        world.service.forget();
        let gate = world.service.hold("/on_unsubscribe");
        end(client);
        // One at a time.
        world.service.wait_paths(&["/before_unsubscribe", "/on_unsubscribe"]);
        gate.open();
        let left = [
            "before_unsubscribe books.3",
            "on_unsubscribe books.3",
            "before_unsubscribe books.1",
            "on_unsubscribe books.1",
        ];
        world.redis.wait_channels(&[]);
        expect_calls(&world, &left);
    }
}

#[test]
fn failing_unsubscribe_callbacks_do_not_stop_the_others() {
    let world = World::books(&["before_unsubscribe", "on_unsubscribe"]);
    let mut client = world.client();
    client.subscribe("books.1");
    client.subscribe("books.2");
    world.service.answer_json("/before_unsubscribe", &json!({ "status": "error" }));
    world.service.answer("/on_unsubscribe", Reply::Status(500));
    client.reset();
    let left = [
        "before_unsubscribe books.2",
        "on_unsubscribe books.2",
        "on_unsubscribe books.2",
        "before_unsubscribe books.1",
        "on_unsubscribe books.1",
        "on_unsubscribe books.1",
    ];
    until_true("the callbacks", || world.service.all().len() >= left.len());
    assert_eq!(world.service.calls(), left);
    world.redis.wait_channels(&[]);
}

#[test]
fn what_came_before_the_close_is_still_handled() {
    for (by_close, by_stream) in [(true, false), (false, true), (true, true)] {
        let world = World::all_hooks();
        let mut client = world.client();
        let message = json!({ "event": "message", "subscription": "books.1", "data": 1 });
        let mut bytes = Vec::new();
        for event in [subscribe("books.1"), message, subscribe("books.2")] {
            bytes.extend(frame(0x80 | TEXT, event.to_string().as_bytes()));
        }
        if by_close {
            bytes.extend(frame(0x80 | CLOSE, &1000_u16.to_be_bytes()));
        }
        client.send_raw(&bytes);
        if by_stream {
            client.finish();
        }
        let made = [
            "authorizer books.1",
            "before_subscribe books.1",
            "on_subscribe books.1",
            "on_message books.1",
            "authorizer books.2",
            "before_subscribe books.2",
            "on_subscribe books.2",
            "before_unsubscribe books.2",
            "on_unsubscribe books.2",
            "before_unsubscribe books.1",
            "on_unsubscribe books.1",
        ];
        let what = format!("the callbacks; Close {by_close}, end of stream {by_stream}");
        until_true(&what, || world.service.all().len() >= made.len());
        world.redis.wait_channels(&[]);
        assert_eq!(world.service.calls(), made);
    }
}

#[test]
fn the_callbacks_do_not_wait_for_the_closing_handshake() {
    let world = World::books(&["on_unsubscribe"]);
    let mut client = world.client();
    client.subscribe("books.1");
    // A violation; the server's Close is not answered.
    client.send_raw(&[0x83, 0x80, 0, 0, 0, 0]);
    world.service.wait("/on_unsubscribe", 1);
    client.expect_close_frame(1002);
}

// Events under way when the client leaves.

#[test]
fn a_subscribe_under_way_is_finished_and_undone() {
    let whole = [
        "authorizer books.1",
        "before_subscribe books.1",
        "on_subscribe books.1",
        "before_unsubscribe books.1",
        "on_unsubscribe books.1",
    ];
    for end in [end_by_close, end_by_stream, Client::reset] {
        for held in ["authorizer", "before_subscribe", "on_subscribe"] {
            let world = World::all_hooks();
            let path = format!("/{held}");
            let gate = world.service.hold(&path);
            let mut client = world.client();
            client.send(&subscribe("books.1"));
            if held == "on_subscribe" {
                client.expect(&answer("subscribe", "books.1", json!({ "status": "ok" })));
            }
            world.service.wait(&path, 1);
            end(client);
            world.router.wait_event("connection closed");
            gate.open();
            expect_calls(&world, &whole);
            world.redis.wait_channels(&[]);
        }
    }
}

#[test]
fn a_subscribe_refused_after_its_client_has_left_is_not_undone() {
    for held in ["authorizer", "before_subscribe"] {
        let world = World::all_hooks();
        let path = format!("/{held}");
        let gate = world.service.hold_then(&path, Reply::json(&json!({ "status": "error" })));
        let mut client = world.client();
        client.send(&subscribe("books.1"));
        world.service.wait(&path, 1);
        client.reset();
        world.router.wait_event("connection closed");
        gate.open();
        world.redis.wait_channels(&[]);
        world.service.answer(&path, Reply::ok());
        let made: &[&str] = match held {
            "authorizer" => &["authorizer books.1"],
            _ => &["authorizer books.1", "before_subscribe books.1"],
        };
        expect_calls(&world, made);
    }
}

#[test]
fn an_unsubscribe_under_way_is_finished_and_not_repeated() {
    for held in ["before_unsubscribe", "on_unsubscribe"] {
        let world = World::books(&["before_unsubscribe", "on_unsubscribe"]);
        let path = format!("/{held}");
        let gate = world.service.hold(&path);
        let mut client = world.client();
        client.subscribe("books.1");
        client.send(&unsubscribe("books.1"));
        world.service.wait(&path, 1);
        client.reset();
        world.router.wait_event("connection closed");
        gate.open();
        expect_calls(&world, &["before_unsubscribe books.1", "on_unsubscribe books.1"]);
        world.redis.wait_channels(&[]);
    }
}

#[test]
fn an_unsubscribe_refused_after_its_client_has_left_is_made_again() {
    let world = World::books(&["before_unsubscribe", "on_unsubscribe"]);
    let no = Reply::json(&json!({ "status": "error" }));
    let gate = world.service.hold_then("/before_unsubscribe", no);
    let mut client = world.client();
    client.subscribe("books.1");
    client.send(&unsubscribe("books.1"));
    world.service.wait("/before_unsubscribe", 1);
    client.reset();
    world.router.wait_event("connection closed");
    gate.open();
    world.service.wait_paths(&["/before_unsubscribe", "/before_unsubscribe", "/on_unsubscribe"]);
    world.redis.wait_channels(&[]);
}

#[test]
fn a_violation_drops_the_events_that_wait() {
    let world = World::all_hooks();
    let gate = world.service.hold("/on_subscribe");
    let mut client = world.client();
    client.subscribe("books.1");
    world.service.wait("/on_subscribe", 1);
    client.send(&json!({ "event": "message", "subscription": "books.1", "data": 1 }));
    client.send(&subscribe("books.2"));
    client.send_raw(&[0x83, 0x80, 0, 0, 0, 0]);
    client.expect_close_frame(1002);
    gate.open();
    let made = [
        "authorizer books.1",
        "before_subscribe books.1",
        "on_subscribe books.1",
        "before_unsubscribe books.1",
        "on_unsubscribe books.1",
    ];
    expect_calls(&world, &made);
}
