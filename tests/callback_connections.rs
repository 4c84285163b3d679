//! The connections to services, and the calls that wait for one.
//!
//! - time-outs
//! - connections kept alive, and lost
//! - the queue of a service
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use support::calling::{JSON_HEADER, OK, calling, head_and, numbered, succeeds};
use support::service::{Reply, Request};
use support::wait::until_true;
use support::{Client, World, subscribe};

// Time-outs.

#[test]
fn a_try_has_a_time() {
    let world = calling(json!({ "tries": 2, "timeout": 0.2, "wait": 0.01 }));
    let slow_body = head_and("Content-Length: 15\r\n\r\n{");
    let Reply::RawThenClose(slow_body) = slow_body else { unreachable!() };
    let mut client = world.client();
    for reply in [Reply::Hang, Reply::Raw(slow_body), Reply::raw("HTTP/1.1 200 OK\r\n")] {
        world.service.forget();
        world.service.answer("/before_subscribe", reply);
        assert!(!succeeds(&mut client, "books.1"));
        let tries = world.service.all();
        assert_eq!(tries.len(), 2);
        assert!(tries[1].at - tries[0].at >= Duration::from_millis(190));
        assert_ne!(tries[0].connection, tries[1].connection, "a late answer would be the next");
    }
}

#[test]
fn waiting_in_the_queue_uses_no_time() {
    let world = calling(json!({ "tries": 1, "timeout": 0.4, "max_connections_per_host": 1 }));
    // Each takes a while; the last waits longer than a try may take.
    world.service.on("/before_subscribe", |_| {
        std::thread::sleep(Duration::from_millis(200));
        Reply::ok()
    });
    let mut clients: Vec<Client> = (0..4).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send(&subscribe("books.1"));
    }
    for client in &mut clients {
        assert_eq!(client.recv()["status"], "ok");
    }
    assert_eq!(world.service.connections(), 1);
}

// Connections.

#[test]
fn connections_are_kept_and_used_again() {
    let world = World::all_hooks();
    world.service.answer("/on_message", Reply::with(500, &[JSON_HEADER], OK));
    let mut client = world.client();
    for _ in 0..5 {
        client.subscribe("books.1");
        let message = json!({ "event": "message", "subscription": "books.1" });
        assert_eq!(client.ask(&message)["error"], "Service unavailable.");
        client.unsubscribe("books.1");
    }
    client.expect_quiet();
    assert_eq!(world.service.connections(), 1);
}

#[test]
fn connections_that_cannot_be_trusted_are_not_used_again() {
    let world = calling(json!({ "tries": 1, "timeout": 3 }));
    let json_head = "Content-Type: application/json\r\n";
    let whole = format!("HTTP/1.1 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}");
    let in_chunks = format!("HTTP/1.1 200 OK\r\n{json_head}Transfer-Encoding: chunked\r\n\r\n");
    let in_chunks = format!("{in_chunks}f\r\n{OK}\r\n0\r\n\r\n");
    let poison = whole.replace(OK, r#"{"status":"no"}"#);
    let replies = vec![
        Reply::raw(&format!("{whole}{poison}")),
        Reply::raw(&format!("{whole}\r\n")),
        Reply::raw(&format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n{json_head}Content-Length: 15\r\n\r\n{OK}"
        )),
        Reply::raw(&format!("HTTP/1.0 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        Reply::raw(&format!("{in_chunks}{poison}")),
        Reply::ok(),
        Reply::ok(),
    ];
    let mut client = world.client();
    let names = numbered(&world.service, replies);
    for name in &names {
        assert!(succeeds(&mut client, name), "{name}");
    }
    let connections: Vec<usize> = world.service.all().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [0, 1, 2, 3, 4, 5, 5]);
}

#[test]
fn a_kept_connection_that_dies_costs_no_try() {
    let world = calling(json!({ "tries": 1 }));
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    // It ends while nobody uses it.
    world.service.drop_connections();
    assert!(succeeds(&mut client, "books.1"));
    // It ends instead of an answer.
    world.service.script("/before_subscribe", vec![Reply::Close, Reply::ok()]);
    assert!(succeeds(&mut client, "books.1"));
    assert_eq!(world.service.all().len(), 4);
    // Once: the fresh one is a try.
    world.service.answer("/before_subscribe", Reply::Close);
    assert!(!succeeds(&mut client, "books.1"));
    assert_eq!(world.service.all().len(), 6);
    // And not behind the first byte of an answer.
    world.service.answer("/before_subscribe", Reply::ok());
    assert!(succeeds(&mut client, "books.1"));
    world.service.forget();
    world.service.answer("/before_subscribe", Reply::raw_then_close("H"));
    assert!(!succeeds(&mut client, "books.1"));
    assert_eq!(world.service.all().len(), 1);
}

#[test]
fn kept_connections_are_given_up_after_a_while() {
    let world = calling(json!({ "keepalive_timeout": 0.1 }));
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    until_true("the connection to be closed", || world.service.ended() == 1);
    assert!(succeeds(&mut client, "books.1"));
    assert_eq!(world.service.connections(), 2);
}

#[test]
fn a_service_that_hangs_up_at_once_is_a_failed_try_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.shutdown(Shutdown::Write);
            // Keeps reading, so that nothing but the end of the stream tells of it.
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()));
        }
    });
    let world = World::new(|_| {
        let url = format!("http://127.0.0.1:{port}/");
        let books = json!({ "require_authentication": false, "before_subscribe": url });
        json!({ "SERVICES": { "books": books }, "HTTP": { "tries": 1, "timeout": 60 } })
    });
    let mut client = world.client();
    for _ in 0..50 {
        assert!(!succeeds(&mut client, "books.1"));
    }
}

#[test]
fn names_are_resolved() {
    let world = World::new(|service| {
        let url = format!("http://localhost:{}/x", service.port);
        let books = json!({ "require_authentication": false, "before_subscribe": url });
        json!({ "SERVICES": { "books": books } })
    });
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    let host = format!("localhost:{}", world.service.port);
    assert_eq!(world.service.all()[0].head.header("Host"), Some(host.as_str()));
}

// The queue.

/// Services `slow` and `quick` at one origin, with little room.
fn slow_and_quick(http: Value) -> World {
    World::new(|service| {
        let open = |path: &str| {
            json!({
                "require_authentication": false, "before_subscribe": service.url(path),
            })
        };
        json!({ "SERVICES": { "slow": open("/slow"), "quick": open("/quick") }, "HTTP": http })
    })
}

#[test]
fn a_stalled_service_delays_no_other_at_the_same_origin() {
    let world = slow_and_quick(json!({ "max_connections_per_host": 2 }));
    let gate = world.service.hold("/slow");
    let mut stalled: Vec<Client> = (0..6).map(|_| world.client()).collect();
    for client in &mut stalled {
        client.send(&subscribe("slow.1"));
    }
    world.service.wait("/slow", 2);
    let mut client = world.client();
    for _ in 0..3 {
        assert!(succeeds(&mut client, "quick.1"));
    }
    assert_eq!(world.service.requests("/slow").len(), 2, "no more at a time");
    gate.open();
    for client in &mut stalled {
        assert_eq!(client.recv()["status"], "ok");
    }
}

#[test]
fn calls_wait_in_order_and_past_the_limit_they_fail() {
    let http = json!({ "max_connections_per_host": 1, "max_queued_per_host": 2, "tries": 2 });
    let world = slow_and_quick(http);
    let gate = world.service.hold("/slow");
    let mut clients: Vec<Client> = (0..3).map(|_| world.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&subscribe(&format!("slow.{number}")));
        // In this order.
        client.expect_still();
        if number == 0 {
            world.service.wait("/slow", 1);
        }
    }
    let mut late = world.client();
    assert_eq!(late.ask(&subscribe("slow.3"))["error"], "Service unavailable.");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.recv()["status"], "ok");
    }
    let order: Vec<String> =
        world.service.requests("/slow").iter().map(Request::subscription).collect();
    assert_eq!(order, ["slow.0", "slow.1", "slow.2"]);
}

#[test]
fn unsubscribe_callbacks_are_queued_past_the_limit() {
    let world = World::new(|service| {
        let hooks = ["before_unsubscribe", "on_unsubscribe"];
        let http = json!({ "max_connections_per_host": 1, "max_queued_per_host": 1 });
        json!({ "SERVICES": { "books": service.hooks(&hooks) }, "HTTP": http })
    });
    let gate = world.service.hold("/before_unsubscribe");
    let mut clients: Vec<Client> = (0..5).map(|_| world.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("books.{number}"));
    }
    for client in clients {
        client.reset();
    }
    world.service.wait("/before_unsubscribe", 1);
    gate.open();
    world.service.wait("/on_unsubscribe", 5);
    assert_eq!(world.service.all().len(), 10);
}

#[test]
fn between_tries_others_are_served() {
    let http = json!({ "max_connections_per_host": 1, "tries": 2, "wait": 0.3 });
    let world = slow_and_quick(http);
    world.service.on("/slow", |request| match request.subscription().as_str() {
        "slow.bad" => Reply::Status(500),
        _ => Reply::ok(),
    });
    let mut bad = world.client();
    bad.send(&subscribe("slow.bad"));
    world.service.wait("/slow", 1);
    let mut good = world.client();
    assert!(succeeds(&mut good, "slow.good"));
    assert_eq!(bad.recv()["error"], "Service unavailable.");
    let order: Vec<String> =
        world.service.requests("/slow").iter().map(Request::subscription).collect();
    assert_eq!(order, ["slow.bad", "slow.good", "slow.bad"]);
}
