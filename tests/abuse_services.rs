//! Services that fail in every way: each is its own clients' misfortune and nobody else's.
//!
//! - all of them at once: refusing, hanging, dripping, cutting, sending garbage or without end
//! - 429 without end
//! - connections that are closed just as they are used again, or poisoned while they rest
//! - requests that nobody reads
//! - names that cannot be looked up
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::Head;
use support::innocent::{Innocent, calm};
use support::service::Reply;
use support::wait::{free_port, until_true};
use support::{Client, Redis, Router, Service, subscribe};

/// What a rogue does with a connection whose request it has read.
type Act = fn(&mut TcpStream);

/// A server on a port of its own that treats every connection like this.
fn rogue(act: Act) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut input = BufReader::new(stream.try_clone().unwrap());
                let Some(head) = Head::read(&mut input) else { return };
                let length = head.header("Content-Length").unwrap().parse().unwrap();
                let mut body = vec![0; length];
                if input.read_exact(&mut body).is_ok() {
                    act(&mut stream);
                }
            });
        }
    });
    port
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

const BODY: &str = r#"{"status":"ok"}"#;

/// Writes these, and the last one until nobody takes it any more.
fn endlessly(stream: &mut TcpStream, parts: &[&str]) {
    let Some((last, first)) = parts.split_last() else { return };
    for part in first {
        let _ = stream.write_all(part.as_bytes());
    }
    let block = last.repeat(1 + 10_000 / last.len());
    while stream.write_all(block.as_bytes()).is_ok() {}
}

fn answer(stream: &mut TcpStream, parts: &[&str]) {
    // The router may have hung up already, which is right.
    let _ = stream.write_all(parts.concat().as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 1]);
}

/// How a service can fail.
const FAILURES: [(&str, Act); 26] = [
    ("hangs", |stream| drop(stream.read(&mut [0; 1]))),
    ("hangs-in-head", |stream| {
        let _ = stream.write_all(HEAD.as_bytes());
        let _ = stream.read(&mut [0; 1]);
    }),
    ("drips", |stream| {
        for byte in HEAD.bytes().cycle() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }),
    ("closes", |_| {}),
    ("resets", |stream| {
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
    }),
    ("cuts-head", |stream| answer(stream, &[HEAD])),
    ("cuts-body", |stream| answer(stream, &[HEAD, "Content-Length: 20\r\n\r\n", BODY])),
    ("cuts-chunks", |stream| {
        answer(stream, &[HEAD, "Transfer-Encoding: chunked\r\n\r\n10\r\n", BODY]);
    }),
    ("garbage", |stream| answer(stream, &["\x7f\x7fSSH-2.0-nothing\r\n\r\n"])),
    ("binary", |stream| {
        let _ = stream.write_all(&[0xff; 100_000]);
    }),
    ("endless-headers", |stream| endlessly(stream, &[HEAD, "X: y\r\n"])),
    ("endless-header", |stream| endlessly(stream, &[HEAD, "X: ", "y"])),
    ("endless-status", |stream| endlessly(stream, &["HTTP/1.1 200 ", "O"])),
    ("endless-1xx", |stream| endlessly(stream, &["HTTP/1.1 100 Continue\r\n\r\n"])),
    ("endless-body", |stream| endlessly(stream, &[HEAD, "\r\n", "{\"a\":1"])),
    ("endless-chunks", |stream| {
        endlessly(stream, &[HEAD, "Transfer-Encoding: chunked\r\n\r\n", "1\r\n{\r\n"]);
    }),
    ("endless-extension", |stream| {
        endlessly(stream, &[HEAD, "Transfer-Encoding: chunked\r\n\r\n1;", "x"]);
    }),
    ("endless-trailers", |stream| {
        endlessly(stream, &[HEAD, "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"]);
    }),
    ("endless-error", |stream| {
        endlessly(stream, &["HTTP/1.1 500 Oops\r\nContent-Length: 100000000\r\n\r\n", "x"]);
    }),
    ("huge-length", |stream| endlessly(stream, &[HEAD, "Content-Length: 100000000\r\n\r\n", "x"])),
    ("negative-length", |stream| answer(stream, &[HEAD, "Content-Length: -1\r\n\r\n", BODY])),
    ("two-lengths", |stream| {
        answer(stream, &[HEAD, "Content-Length: 15\r\nContent-Length: 16\r\n\r\n", BODY]);
    }),
    ("both-framings", |stream| {
        let framing = "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n";
        answer(stream, &[HEAD, framing, BODY, "\r\n0\r\n\r\n"]);
    }),
    ("bad-chunks", |stream| {
        answer(stream, &[HEAD, "Transfer-Encoding: chunked\r\n\r\n0xf\r\n", BODY]);
    }),
    ("switches", |stream| answer(stream, &["HTTP/1.1 101 Switching Protocols\r\n\r\n", BODY])),
    ("redirects", |stream| {
        let location = "Location: http://127.0.0.1:1/metadata\r\n";
        answer(stream, &["HTTP/1.1 307 Elsewhere\r\n", location, "Content-Length: 0\r\n\r\n"]);
    }),
];

fn authorized_at(port: u16) -> Value {
    let authorizer = format!("http://127.0.0.1:{port}/authorizer");
    json!({ "require_authentication": false, "authorizer": authorizer })
}

#[test]
fn whatever_services_do_the_others_are_served() {
    let redis = Redis::start();
    let quick = Service::start();
    quick.answer_json("/on_message", &json!({ "status": "ok", "data": 1 }));
    let mut services = json!({ "quick": quick.hooks(&["authorizer", "on_message"]) });
    services["refuses"] = authorized_at(free_port());
    // A name that is reserved for being none (RFC 6761): refused, or not answered in time.
    let unknown = "http://no-such-name.invalid./authorizer";
    services["unknown"] = json!({ "require_authentication": false, "authorizer": unknown });
    for (name, act) in FAILURES {
        services[name] = authorized_at(rogue(act));
    }
    let http = json!({ "timeout": 1, "tries": 2, "wait": 0.05, "max_response_bytes": 2_000_000 });
    let router = Router::start(&redis, calm(json!({ "SERVICES": services, "HTTP": http })));
    let innocent = Innocent::start(&router, &redis);
    let before = router.resident_bytes();
    let names = FAILURES.map(|(name, _)| name).into_iter().chain(["refuses", "unknown"]);
    let mut waiting: Vec<(&str, Client)> = Vec::new();
    for name in names {
        let mut client = router.client();
        client.send(&subscribe(&format!("{name}.1")));
        waiting.push((name, client));
    }
    let mut other = router.client();
    other.subscribe("quick.1");
    let message = json!({ "event": "message", "subscription": "quick.1" });
    for _ in 0..200 {
        assert_eq!(other.ask(&message)["data"], 1);
    }
    for (name, client) in &mut waiting {
        assert_eq!(client.recv()["error"], "Service unavailable.", "{name}");
        client.expect_quiet();
    }
    let grown = router.resident_bytes().saturating_sub(before);
    assert!(grown < 60 << 20, "{grown} bytes more");
    drop(waiting);
    redis.wait_channels(&["calm.1", "quick.1"]);
    router.wait_metric("socketshark_callbacks_in_flight", 0.0);
    router.wait_metric("socketshark_callbacks_queued", 0.0);
    innocent.finish();
}

/// Each call is told to come again at once, or in an hour.
#[test]
fn storms_of_429_are_waited_out() {
    let redis = Redis::start();
    let (stormy, quick) = (Service::start(), Service::start());
    let config = json!({
        "SERVICES": {
            "stormy": stormy.hooks(&["authorizer"]),
            "quick": quick.hooks(&["authorizer"]),
        },
        "HTTP": { "tries": 50, "wait": 0.01, "max_connections_per_host": 4 },
    });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let resets = ["0", "0.01", "-1", "soon", "1e9"];
    let count = AtomicUsize::new(0);
    stormy.on("/authorizer", move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Reply::with(429, &[("X-Rate-Limit-Reset", resets[number % resets.len()])], "")
    });
    let mut clients: Vec<Client> = (0..100).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(&subscribe("stormy.1"));
    }
    stormy.wait("/authorizer", 300);
    let mut other = router.client();
    for number in 0..50 {
        other.subscribe(&format!("quick.{number}"));
    }
    // Those who were told an hour wait without a slot.
    router.wait_metric("socketshark_callbacks_in_flight", 0.0);
    assert!(router.metric("socketshark_callbacks_queued").unwrap() <= 100.0);
    drop(clients);
    innocent.finish();
}

/// The server closes after each answer without saying so, at whatever moment.
#[test]
fn connections_that_close_as_they_are_used_again_cost_no_try() {
    let redis = Redis::start();
    let service = Service::start();
    let config = json!({
        "SERVICES": { "books": service.hooks(&["on_message"]) },
        "HTTP": { "tries": 1 },
    });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let answer = r#"{"status":"ok","data":1}"#;
    let whole = format!("{HEAD}Content-Length: {}\r\n\r\n{answer}", answer.len());
    service.answer("/on_message", Reply::RawThenClose(whole.into_bytes()));
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = router.client();
            scope.spawn(move || {
                client.subscribe("books.1");
                let message = json!({ "event": "message", "subscription": "books.1" });
                for _ in 0..100 {
                    assert_eq!(client.ask(&message)["data"], 1);
                }
            });
        }
    });
    innocent.finish();
}

/// What a server says while a connection rests is no answer to the next request.
#[test]
fn resting_connections_cannot_be_poisoned() {
    let forged = format!("{HEAD}Content-Length: 15\r\n\r\n{BODY}");
    let honest = r#"{"status":"error","error":"honest"}"#;
    let honest = format!("{HEAD}Content-Length: {}\r\n\r\n{honest}", honest.len());
    let redis = Redis::start();
    let service = Service::start();
    let config = json!({ "SERVICES": { "books": service.hooks(&["authorizer"]) } });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    service.answer("/authorizer", Reply::Raw(format!("{honest}{forged}").into_bytes()));
    let mut client = router.client();
    for _ in 0..50 {
        assert_eq!(client.ask(&subscribe("books.1"))["error"], "honest");
    }
    innocent.finish();
}

/// A server that accepts and reads nothing, with requests larger than the kernel's buffers.
#[test]
fn requests_that_nobody_reads_cost_their_own_bytes() {
    let redis = Redis::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    thread::spawn(move || {
        let mut streams = Vec::new();
        for stream in listener.incoming() {
            streams.push(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let deaf = json!({
        "require_authentication": false, "on_message": format!("http://127.0.0.1:{port}/"),
    });
    let limits = json!({ "max_message_bytes": 8_000_000 });
    let config = json!({
        "SERVICES": { "deaf": deaf }, "HTTP": { "timeout": 1, "tries": 1 }, "LIMITS": limits,
    });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let before = router.resident_bytes();
    let mut clients: Vec<Client> = (0..2).map(|_| router.client()).collect();
    let data = "x".repeat(6_000_000);
    let message = json!({ "event": "message", "subscription": "deaf.1", "data": data }).to_string();
    for client in &mut clients {
        client.subscribe("deaf.1");
        client.send_text(&message);
    }
    until_true("the calls", || accepted.load(Ordering::Relaxed) == clients.len());
    for client in &mut clients {
        assert_eq!(client.recv()["error"], "Service unavailable.");
    }
    let grown = router.resident_bytes().saturating_sub(before);
    // Event, body, request and what the allocator keeps of each.
    assert!(grown < 2 * 6 * 6_000_000, "{grown} bytes more");
    innocent.finish();
}
