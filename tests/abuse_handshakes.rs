//! Strangers at the door: handshakes that are malformed, slow, cut off or never begun, and clients
//! that vanish in the middle of everything.
//!
//! - malformed, by hand and by chance
//! - slow, silent, half-open, reset
//! - thousands that vanish while they subscribe: nothing is left of them
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::{TEXT, frame, request};
use support::innocent::{Innocent, calm, dial, raise_descriptors};
use support::random::Random;
use support::wait::{PATIENCE, until_true};
use support::{Client, Redis, Router, Service, subscribe};

const FIN: u8 = 0x80;

/// All that comes, up to the end of the connection.
#[track_caller]
fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("waited in vain"),
        // A reset behind the answer, at worst.
        _ => answer,
    }
}

/// An end as when a cable is cut and the peer notices.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One refusal, whole, or nothing.
#[track_caller]
fn assert_refused(request: &[u8], answer: &[u8]) {
    let (sent, got) = (String::from_utf8_lossy(request), String::from_utf8_lossy(answer));
    let shown: String = sent.chars().take(300).collect();
    let refused = got.starts_with("HTTP/1.1 4") && got.matches("\r\n\r\n").count() == 1;
    assert!(got.is_empty() || refused, "{shown:?} gave {got:?}");
}

/// Requests that must not become sessions, each with a second request behind it.
fn malformed() -> Vec<Vec<u8>> {
    let good = request("/", "");
    let with = |line: &str| request("/", &format!("{line}\r\n"));
    let without = |name: &str| {
        let kept = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        kept.collect::<String>()
    };
    let mut texts: Vec<String> =
        ["Host", "Upgrade", "Connection", "Sec-WebSocket-Key"].into_iter().map(without).collect();
    for line in [
        "Host: other",
        "Content-Length: 5",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Origin: a\r\nOrigin: b",
        "no colon",
        ": no name",
        "space : before",
        "na\u{e4}me: x",
    ] {
        texts.push(with(line));
    }
    for (from, to) in [
        ("GET", "POST"),
        ("GET", "get"),
        ("GET", "CONNECT"),
        ("GET / HTTP/1.1", "GET / HTTP/1.0"),
        ("GET / HTTP/1.1", "GET / HTTP/2.0"),
        ("GET / HTTP/1.1", "GET /"),
        ("GET / HTTP/1.1", "GET  HTTP/1.1"),
        ("GET / HTTP/1.1", "GET / / HTTP/1.1"),
        ("GET / HTTP/1.1", "PRI * HTTP/2.0"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ("Version: 13", "Version: 013x"),
        ("\r\n", "\n"),
        ("\r\n", "\r"),
    ] {
        texts.push(good.replace(from, to));
    }
    let mut all: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(b"\0".repeat(1_000));
    all.push(with(&format!("X: {}", "x".repeat(20_000))).into_bytes());
    all.push(with(&"X: y\r\n".repeat(1_000)).into_bytes());
    all
}

#[test]
fn malformed_handshakes_are_refused_once() {
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": { "handshake_timeout": 0.5 } })));
    let innocent = Innocent::start(&router, &redis);
    let smuggled = request("/smuggled", "");
    let port = router.port;
    thread::scope(|scope| {
        for mut bytes in malformed() {
            let smuggled = &smuggled;
            scope.spawn(move || {
                let mut stream = dial(port);
                bytes.extend_from_slice(smuggled.as_bytes());
                let _ = stream.write_all(&bytes);
                assert_refused(&bytes, &read_to_end(stream));
            });
        }
    });
    router.wait_metric("socketshark_connection_total", 1.0);
    innocent.finish();
}

#[test]
fn handshakes_spoilt_by_chance_harm_nobody() {
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": { "handshake_timeout": 0.5 } })));
    let innocent = Innocent::start(&router, &redis);
    let port = router.port;
    let crowd: Vec<_> = (0..8)
        .map(|seed| {
            thread::spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..40 {
                    let mut bytes =
                        request("/", "Origin: http://x\r\nX-Forwarded-For: 1.2.3.4\r\n")
                            .into_bytes();
                    for _ in 0..=random.below(3) {
                        random.spoil(&mut bytes);
                    }
                    let mut stream = dial(port);
                    let _ = stream.write_all(&bytes);
                    let _ = stream.shutdown(Shutdown::Write);
                    let answer = read_to_end(stream);
                    let accepted = answer.starts_with(b"HTTP/1.1 101");
                    if !accepted {
                        assert_refused(&bytes, &answer);
                    }
                }
            })
        })
        .collect();
    for one in crowd {
        one.join().unwrap();
    }
    router.wait_metric("socketshark_connection_count", 1.0);
    innocent.finish();
}

#[test]
fn slow_and_silent_ones_are_sent_away() {
    raise_descriptors();
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": { "handshake_timeout": 1 } })));
    let innocent = Innocent::start(&router, &redis);
    let before = router.descriptors();
    let mut crowd: Vec<TcpStream> = (0..400).map(|_| dial(router.port)).collect();
    let began = Instant::now();
    let whole = request("/", "X: y\r\n").into_bytes();
    // Every other one sends a byte now and then, which prolongs nothing.
    let mut sent = 0;
    while began.elapsed() < Duration::from_millis(1_200) {
        for stream in crowd.iter_mut().step_by(2) {
            let _ = stream.write_all(&whole[sent..=sent]);
        }
        sent += 1;
        thread::yield_now();
        if sent + 10 == whole.len() {
            break;
        }
    }
    for stream in crowd {
        let answer = read_to_end(stream);
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
    until_true("their descriptors", || router.descriptors() <= before);
    innocent.finish();
}

#[test]
fn connections_cut_off_at_any_byte_leave_nothing() {
    let (router, redis) = Router::alone(calm(json!({})));
    let innocent = Innocent::start(&router, &redis);
    let before = router.descriptors();
    let whole = [
        request("/", "").into_bytes(),
        frame(FIN | TEXT, subscribe("calm.2").to_string().as_bytes()),
        frame(FIN | TEXT, b"{}"),
    ]
    .concat();
    for (number, end) in (0..=whole.len()).enumerate() {
        let mut stream = dial(router.port);
        stream.write_all(&whole[..end]).unwrap();
        match number % 3 {
            0 => reset(&stream),
            1 => stream.shutdown(Shutdown::Write).unwrap(),
            _ => {}
        }
    }
    until_true("their descriptors", || router.descriptors() <= before);
    redis.wait_channels(&["calm.1"]);
    router.wait_metric("socketshark_connection_count", 1.0);
    innocent.finish();
}

/// Five thousand clients subscribe and vanish before they are answered: by reset, by FIN, with
/// their answers unread. Every second one is waited for by a service.
#[test]
fn thousands_that_vanish_while_they_subscribe_leave_nothing() {
    raise_descriptors();
    let redis = Redis::start();
    let service = Service::start();
    let books = service.hooks(&["before_subscribe", "on_unsubscribe"]);
    let router = Router::start(&redis, calm(json!({ "SERVICES": { "books": books } })));
    let innocent = Innocent::start(&router, &redis);
    // What the first ones allocate is kept for later ones.
    vanish(&router, 500);
    settle(&router, &redis, &service);
    let (descriptors, memory) = (router.descriptors(), router.resident_bytes());
    for _ in 0..9 {
        vanish(&router, 500);
    }
    settle(&router, &redis, &service);
    assert!(router.descriptors() <= descriptors + 64, "{} descriptors", router.descriptors());
    let grown = router.resident_bytes().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes are left of them");
    innocent.finish();
}

fn vanish(router: &Router, count: usize) {
    let mut crowd: Vec<TcpStream> = (0..count).map(|_| dial(router.port)).collect();
    for (number, stream) in crowd.iter_mut().enumerate() {
        let service = if number % 2 == 0 { "calm" } else { "books" };
        let mut bytes = request("/", "").into_bytes();
        for topic in [format!("{service}.{}", number % 50), format!("calm.{number}-only")] {
            let text = subscribe(&topic).to_string();
            bytes.extend(frame(FIN | TEXT, text.as_bytes()));
        }
        stream.write_all(&bytes).unwrap();
        match number % 3 {
            0 => reset(stream),
            1 => stream.shutdown(Shutdown::Write).unwrap(),
            _ => {}
        }
    }
}

/// Waits until nothing is left of those who have gone.
#[track_caller]
fn settle(router: &Router, redis: &Redis, service: &Service) {
    let count = || router.metric("socketshark_connection_count");
    until_true("the last session to end", || count() == Some(1.0));
    redis.wait_channels(&["calm.1"]);
    router.wait_metric("socketshark_callbacks_in_flight", 0.0);
    let (made, undone) =
        (service.requests("/before_subscribe").len(), service.requests("/on_unsubscribe").len());
    assert_eq!(made, undone, "every subscribe that was allowed is undone, once");
}

#[test]
fn a_crowd_at_the_limits_is_answered() {
    raise_descriptors();
    let limits = json!({ "max_connections": 300, "max_connections_per_ip": 250 });
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": limits })));
    let innocent = Innocent::start(&router, &redis);
    let mut sessions: Vec<Client> = (0..249).map(|_| router.client()).collect();
    let request = request("/", "");
    let mut statuses = Vec::new();
    for _ in 0..100 {
        let mut stream = dial(router.port);
        let _ = stream.write_all(request.as_bytes());
        let answer = read_to_end(stream);
        statuses.push(String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned());
    }
    let known = |status: &String| status == "HTTP/1.1 429" || status == "HTTP/1.1 503";
    assert!(statuses.iter().all(known), "{statuses:?}");
    for session in &mut sessions {
        session.expect_quiet();
    }
    drop(sessions);
    until_true("a free place", || Client::handshake(router.port, &request).is_ok());
    innocent.finish();
}

/// One address comes again and again although it is refused, and does not let go of what it had:
/// it does not get more descriptors by that, and another address gets in.
#[test]
fn one_address_does_not_use_up_the_descriptors() {
    raise_descriptors();
    let limits = json!({ "max_connections_per_ip": 5, "close_timeout": 60 });
    let (router, redis) = Router::alone(calm(json!({ "LIMITS": limits })));
    let innocent = Innocent::start(&router, &redis);
    let before = router.descriptors();
    let crowd: Vec<TcpStream> = (0..1_000).map(|_| dial(router.port)).collect();
    router.wait_metric(
        r#"socketshark_handshakes_refused_total{reason="too_many_from_address"}"#,
        996.0,
    );
    let more = router.descriptors() - before;
    assert!(more <= 300, "{more} descriptors");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    socket.bind(&address("127.0.0.2:0").into()).unwrap();
    socket.connect(&address(&format!("127.0.0.1:{}", router.port)).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request("/", "").as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    drop((crowd, stream));
    until_true("their descriptors", || router.descriptors() <= before + 1);
    innocent.finish();
}
