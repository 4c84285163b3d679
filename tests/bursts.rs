//! Things that come together: the router is stopped meanwhile, so that it finds them all in one
//! turn of its loop.
//!
//! - a whole client: connection, handshake, events, end
//! - an answer and the end of its connection; an answer and the end of its client
//! - messages and the loss of Redis; a loss and the recovery
//! - a connection and the signal to stop
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::{CLOSE, TEXT, frame, request};
use support::service::Reply;
use support::wait::until_true;
use support::{Router, World, answer, subscribe, unsubscribe};

#[test]
fn a_whole_client_at_once() {
    let whole = [
        "before_subscribe books.1",
        "on_message books.1",
        "before_unsubscribe books.1",
        "on_unsubscribe books.1",
    ];
    for by_close in [true, false] {
        let hooks = ["before_subscribe", "on_message", "before_unsubscribe", "on_unsubscribe"];
        let world = World::books(&hooks);
        let message = json!({ "event": "message", "subscription": "books.1", "data": 1 });
        let mut bytes = request("/", "").into_bytes();
        for event in [subscribe("books.1"), message] {
            bytes.extend(frame(0x80 | TEXT, event.to_string().as_bytes()));
        }
        if by_close {
            bytes.extend(frame(0x80 | CLOSE, b""));
        }
        world.router.freeze();
        let mut stream = TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        world.router.thaw();
        until_true("the callbacks", || world.service.calls().len() >= whole.len());
        world.redis.wait_channels(&[]);
        world.router.wait_metric("socketshark_connection_count", 0.0);
        assert_eq!(world.service.calls(), whole);
    }
}

#[test]
fn an_answer_and_the_end_of_its_connection() {
    let world = World::books(&["before_subscribe"]);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let to_end = format!("{head}\r\n{{\"status\":\"ok\"}}");
    let sized = format!("{head}Content-Length: 15\r\n\r\n{{\"status\":\"ok\"}}");
    let cut = format!("{head}Content-Length: 16\r\n\r\n{{\"status\":\"ok\"}}");
    for (text, status) in [(to_end, "ok"), (sized, "ok"), (cut, "error")] {
        let reply = Reply::RawThenClose(text.into_bytes());
        let gate = world.service.hold_then("/before_subscribe", reply);
        let ended = world.service.ended();
        let calls = world.service.all().len();
        let mut client = world.client();
        client.send(&subscribe("books.1"));
        world.service.wait("/before_subscribe", calls + 1);
        world.router.freeze();
        gate.open();
        until_true("the service to answer", || world.service.ended() > ended);
        world.router.thaw();
        assert_eq!(client.recv()["status"], status);
    }
}

#[test]
fn an_answer_and_the_end_of_its_client() {
    for (status, undone) in [("ok", true), ("error", false)] {
        let hooks = ["before_subscribe", "on_subscribe", "on_unsubscribe"];
        let world = World::books(&hooks);
        let reply = Reply::json(&json!({ "status": status }));
        let Reply::Json(body) = &reply else { unreachable!() };
        let whole = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let gate =
            world.service.hold_then("/before_subscribe", Reply::RawThenClose(whole.into_bytes()));
        let mut client = world.client();
        client.send(&subscribe("books.1"));
        world.service.wait("/before_subscribe", 1);
        world.router.freeze();
        gate.open();
        until_true("the service to answer", || world.service.ended() == 1);
        client.reset();
        world.router.thaw();
        world.router.wait_event("connection closed");
        let made: &[&str] = if undone { &hooks } else { &hooks[..1] };
        until_true("the callbacks", || world.service.all().len() >= made.len());
        world.redis.wait_channels(&[]);
        let paths: Vec<String> = made.iter().map(|hook| format!("/{hook}")).collect();
        assert_eq!(world.service.paths(), paths);
    }
}

#[test]
fn messages_and_the_loss_of_redis() {
    let mut world = World::books(&["on_unsubscribe"]);
    let mut client = world.reader("books.1");
    world.router.freeze();
    for number in 0..3 {
        world.publish("books.1", json!(number));
    }
    // By its answer the messages are on their way.
    world.redis.command(&["PING"]);
    world.redis.stop();
    world.router.thaw();
    client.expect_data(&[json!(0), json!(1), json!(2)]);
    client.expect_close(1012);
    world.service.wait("/on_unsubscribe", 1);
}

#[test]
fn a_loss_and_the_recovery_of_redis() {
    let mut world = World::books(&["on_unsubscribe"]);
    let mut client = world.reader("books.1");
    world.router.freeze();
    world.redis.restart();
    world.router.thaw();
    client.expect_close(1012);
    world.service.wait("/on_unsubscribe", 1);
    world.router.wait_readyz(200);
    let mut client = world.reader("books.1");
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
}

#[test]
fn a_message_and_an_unsubscribe() {
    let world = World::books(&[]);
    let mut leaving = world.reader("books.1");
    let mut staying = world.reader("books.1");
    world.router.freeze();
    world.publish("books.1", json!(1));
    leaving.send(&unsubscribe("books.1"));
    world.router.thaw();
    assert_eq!(staying.recv_data(), 1);
    // Before the answer or not at all.
    let first = leaving.recv();
    let done = answer("unsubscribe", "books.1", json!({ "status": "ok" }));
    if first["event"] == "message" {
        leaving.expect(&done);
    } else {
        assert_eq!(first, done);
    }
    leaving.expect_quiet();
}

#[test]
fn a_connection_and_the_signal_to_stop() {
    let (mut router, _redis) = Router::alone(json!({ "LIMITS": { "close_timeout": 0.3 } }));
    // A session that does not answer the Close keeps it going for a while.
    let session = router.client();
    router.freeze();
    let silent = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    let mut asking = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    asking.write_all(request("/", "").as_bytes()).unwrap();
    router.signal("TERM");
    router.thaw();
    let began = Instant::now();
    assert_eq!(router.wait_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop((session, silent, asking));
}
