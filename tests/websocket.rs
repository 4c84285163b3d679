//! The WebSocket protocol: opening handshakes, frames, closes, limits.
//!
//! - handshakes that are accepted, and refused with which status
//! - origins; numbers of connections; the time for a handshake
//! - fragments, control frames
//! - violations and their close codes
//! - closes by clients
//! - protocol pings
//! - slow consumers
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, header, request};
use support::http::Head;
use support::wait::{PATIENCE, until, until_true};
use support::{Client, Redis, Router, World, http};

const FIN: u8 = 0x80;

fn router(config: Value) -> (Router, Redis) {
    let redis = Redis::start();
    (Router::start(&redis, config), redis)
}

/// The answer that refuses a request; the connection ends behind it.
#[track_caller]
fn refusal(port: u16, request: &str) -> Head {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut input = BufReader::new(stream);
    let answer = http::read_answer(&mut input);
    let (head, _) = answer.unwrap_or_else(|| panic!("no answer to {request:?}"));
    let mut rest = Vec::new();
    input.read_to_end(&mut rest).expect("the end of the connection, not a reset");
    assert_eq!(String::from_utf8_lossy(&rest), "", "one answer only");
    head
}

/// A good request without one header.
fn without(name: &str) -> String {
    let whole = request("/", "");
    whole.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect()
}

fn ping_event(data: &str) -> String {
    json!({ "event": "ping", "data": data }).to_string()
}

// Opening handshakes.

#[test]
fn good_handshakes_are_accepted() {
    let (router, _redis) = router(json!({}));
    let cookies = format!("Cookie: {}\r\n", "c".repeat(7_000));
    let many: String = (0..60).map(|number| format!("X-Header-{number}: value\r\n")).collect();
    let good = request("/", "");
    let cases = [
        request("/any/path?and=query%20x", ""),
        request("/", &cookies),
        request("/", &many),
        request("/", "Sec-WebSocket-Protocol: chat, superchat\r\n"),
        request("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        request("/", "Content-Length: 0\r\n"),
        good.replace("Upgrade: websocket", "UPGRADE: h2c, WebSocket"),
        good.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
        good.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        good.replace("Host: 127.0.0.1", "hOsT:example.com"),
    ];
    for case in cases {
        match Client::handshake(router.port, &case) {
            Ok(mut client) => client.expect_quiet(),
            Err(head) => panic!("{head:?} to {case}"),
        }
    }
}

#[test]
fn the_answer_has_the_key_and_offers_nothing_else() {
    let (router, _redis) = router(json!({}));
    let offers = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut stream = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request("/", offers).as_bytes()).unwrap();
    let head = Head::read(&mut BufReader::new(stream)).unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(head.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(head.header("Upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(head.header("Connection").unwrap().eq_ignore_ascii_case("upgrade"));
    for absent in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
        assert_eq!(head.header(absent), None);
    }
}

#[test]
fn a_request_may_come_in_pieces_with_frames_behind_it() {
    let (router, _redis) = router(json!({}));
    let mut stream = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = request("/", "").into_bytes();
    bytes.extend(frame(FIN | TEXT, ping_event("early").as_bytes()));
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    let mut input = BufReader::new(stream);
    assert_eq!(Head::read(&mut input).unwrap().status(), 101);
    let answer = br#"{"event":"pong","data":"early"}"#;
    let mut got = vec![0; 2 + answer.len()];
    input.read_exact(&mut got).unwrap();
    let value: Value = serde_json::from_slice(&got[2..]).unwrap();
    assert_eq!(value, serde_json::from_slice::<Value>(answer).unwrap());
}

#[test]
fn bad_handshakes_are_refused() {
    let (router, _redis) = router(json!({}));
    let good = request("/", "");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let cases = [
        ("hello\r\n\r\n".to_owned(), 400),
        (good.replace("GET / ", "GET x "), 400),
        (good.replace("HTTP/1.1", "HTTP/2.0"), 400),
        (without("Host"), 400),
        (good.replace("Host: 127.0.0.1", "Host: a\r\nHost: b"), 400),
        (without("Sec-WebSocket-Key"), 400),
        (good.replace(key, "c2hvcnQ="), 400),
        (good.replace(key, "!!!!!!!!!!!!!!!!!!!!!!!!"), 400),
        (request("/", &format!("Sec-WebSocket-Key: {key}\r\n")), 400),
        (request("/", "Content-Length: 5\r\n"), 400),
        (request("/", "Content-Length: -1\r\n"), 400),
        (request("/", "Transfer-Encoding: chunked\r\n"), 400),
        (request("/", "No colon\r\n"), 400),
        (request("/", "Space : x\r\n"), 400),
        (request("/", ": x\r\n"), 400),
        (good.replace("GET ", "POST "), 405),
        (good.replace("GET ", "get "), 405),
        (good.replace("GET ", "HEAD "), 405),
        (without("Upgrade"), 426),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("Version: 13", "Version: 14"), 426),
    ];
    for (case, status) in &cases {
        let head = refusal(router.port, case);
        let got = head.status();
        // A line that is no request may be refused for either reason.
        let fits = got == *status || (case.starts_with("get") && got == 400);
        assert!(fits, "{got}, not {status}, to {case}");
    }
    let head = refusal(router.port, &without("Upgrade"));
    assert!(head.header("Upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    let head = refusal(router.port, &good.replace("Version: 13", "Version: 7"));
    assert_eq!(head.header("Sec-WebSocket-Version"), Some("13"));
    router.client().expect_quiet();
    assert_eq!(router.metric("socketshark_connection_total"), Some(1.0));
}

#[test]
fn bytes_behind_a_refused_request_are_no_second_request() {
    let (router, _redis) = router(json!({}));
    let smuggling = format!("{}{}", without("Upgrade"), request("/", ""));
    assert_eq!(refusal(router.port, &smuggling).status(), 426);
    let body = format!("{}{}", without("Upgrade"), "x".repeat(1_000_000));
    assert_eq!(refusal(router.port, &body).status(), 426);
}

#[test]
fn heads_have_a_size() {
    let (router, _redis) = router(json!({ "LIMITS": { "max_header_bytes": 2_000 } }));
    let fits = format!("X: {}\r\n", "x".repeat(1_700));
    Client::connect_with(router.port, &fits).expect_quiet();
    let large = format!("X: {}\r\n", "x".repeat(2_000));
    assert_eq!(refusal(router.port, &request("/", &large)).status(), 431);
    let endless = format!("GET /{}", "x".repeat(100_000));
    assert_eq!(refusal(router.port, &endless).status(), 431);
}

#[test]
fn origins_can_be_limited() {
    let origins = json!(["https://good.example", "https://*.wide.example", "http://a.b:81"]);
    let (router, _redis) = router(json!({ "WS_ALLOWED_ORIGINS": origins }));
    let outcome = |headers: &str| match Client::handshake(router.port, &request("/", headers)) {
        Ok(_) => 101,
        Err(head) => head.map_or(0, |head| head.status()),
    };
    let cases = [
        ("https://good.example", 101),
        ("https://a.wide.example", 101),
        ("https://a.b.wide.example", 101),
        ("http://a.b:81", 101),
        ("http://good.example", 403),
        ("https://good.example:444", 403),
        ("https://bad.example", 403),
        ("https://good.example.bad.example", 403),
        ("https://wide.example", 403),
        ("https://badwide.example", 403),
        ("http://a.wide.example", 403),
        ("https://xgood.example", 403),
        ("null", 403),
        ("", 403),
        ("https://bad/.wide.example", 403),
    ];
    for (origin, status) in cases {
        assert_eq!(outcome(&format!("Origin: {origin}\r\n")), status, "{origin}");
    }
    assert_eq!(outcome(""), 101);
    let two = outcome("Origin: https://good.example\r\nOrigin: https://good.example\r\n");
    assert!([400, 403].contains(&two), "{two}");
}

#[test]
fn connections_have_a_number() {
    let (router, _redis) = router(json!({ "LIMITS": { "max_connections": 3 } }));
    let mut first = router.client();
    let second = router.client();
    // Sockets in the handshake count.
    let third = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    assert!(over(&router), "one too many");
    first.expect_quiet();
    drop(third);
    drop(second);
    until_true("places to be free", || {
        Client::handshake(router.port, &request("/", "")).is_ok_and(|mut client| {
            client.expect_quiet();
            true
        })
    });
}

/// Whether the next connection is refused, with 503 or by a bare close.
fn over(router: &Router) -> bool {
    match Client::handshake(router.port, &request("/", "")) {
        Ok(_) => false,
        Err(head) => head.is_none_or(|head| head.status() == 503),
    }
}

#[test]
fn addresses_have_a_number_of_connections() {
    let config = json!({
        "LIMITS": { "max_connections_per_ip": 2 }, "WS_TRUSTED_PROXIES": ["127.0.0.0/8"],
    });
    let (router, _redis) = router(config);
    let from = |addresses: &str| {
        let header = format!("X-Forwarded-For: {addresses}\r\n");
        Client::handshake(router.port, &request("/", &header))
            .map_err(|head| head.map(|h| h.status()))
    };
    let mut kept = vec![from("10.0.0.1").unwrap(), from("6.6.6.6, 10.0.0.1, 127.0.0.9").unwrap()];
    assert_eq!(from("10.0.0.1").err(), Some(Some(429)));
    assert_eq!(from("10.0.0.9, 10.0.0.1").err(), Some(Some(429)));
    kept.push(from("10.0.0.2").unwrap());
    for client in &mut kept {
        client.expect_quiet();
    }
    kept.remove(0).close(1000);
    until("a place to be free", || from("10.0.0.1").ok());
}

#[test]
fn handshakes_have_a_time_that_bytes_do_not_prolong() {
    let (router, _redis) = router(json!({ "LIMITS": { "handshake_timeout": 0.3 } }));
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let began = Instant::now();
    let (silent, slow) = (connect(), connect());
    let trickle = slow.try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        // Until the server closes.
        for byte in request("/", &"x: y\r\n".repeat(1_000)).bytes() {
            if (&trickle).write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    slow.set_nodelay(true).unwrap();
    for stream in [silent, slow] {
        let answer = Head::read(&mut BufReader::new(stream));
        assert!(answer.is_none_or(|head| head.status() == 408));
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    trickling.join().unwrap();
}

#[test]
fn leaving_in_the_handshake_is_no_session() {
    let (router, _redis) = router(json!({}));
    for request in ["", "GET / HTT"] {
        let mut stream = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    assert_eq!(router.metric("socketshark_connection_total"), Some(0.0));
}

// Frames.

#[test]
fn messages_may_come_in_fragments_with_control_frames_between() {
    let (router, _redis) = router(json!({}));
    let mut client = router.client();
    let text = ping_event("🦈");
    let (first, rest) = text.as_bytes().split_at(text.find('🦈').unwrap() + 2);
    client.send_raw(&frame(TEXT, first));
    client.send_frame(PING, b"between");
    client.send_raw(&frame(CONTINUATION, b""));
    client.send_frame(PONG, b"unasked");
    client.send_raw(&frame(FIN | CONTINUATION, rest));
    let pong = client.try_frame().unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, b"between".as_slice()));
    client.expect(&json!({ "event": "pong", "data": "🦈" }));
    let whole = ping_event("bytes");
    client.send_raw(&frame(BINARY, &whole.as_bytes()[..5]));
    client.send_raw(&frame(FIN | CONTINUATION, &whole.as_bytes()[5..]));
    client.expect(&json!({ "event": "pong", "data": "bytes" }));
    let longest = [b'x'; 125];
    client.send_frame(PING, &longest);
    assert_eq!(client.try_frame().unwrap().payload, longest);
}

#[test]
fn frames_may_come_byte_by_byte_or_many_at_once() {
    let (router, _redis) = router(json!({}));
    let mut client = router.client();
    for byte in frame(FIN | TEXT, ping_event("slow").as_bytes()) {
        client.send_raw(&[byte]);
    }
    client.expect(&json!({ "event": "pong", "data": "slow" }));
    let many: Vec<u8> = (0..500)
        .flat_map(|number| frame(FIN | TEXT, ping_event(&number.to_string()).as_bytes()))
        .collect();
    let mut sending = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || sending.write_all(&many));
    for number in 0..500 {
        client.expect(&json!({ "event": "pong", "data": number.to_string() }));
    }
    sender.join().unwrap().unwrap();
}

/// Sends bytes on a session with a subscription and expects this close, while a neighbour goes on.
#[track_caller]
fn expect_violation(world: &World, bytes: &[u8], code: u16) {
    let mut client = world.client();
    client.subscribe("books.1");
    let calls = world.service.all().len();
    client.send_raw(bytes);
    client.expect_close(code);
    world.service.wait("/on_unsubscribe", calls + 1);
}

#[test]
fn violations_are_closed_with_1002() {
    let world = World::books(&["on_unsubscribe"]);
    let mut neighbour = world.client();
    let close = |payload: &[u8]| frame(FIN | CLOSE, payload);
    let mut cases = vec![
        // Not masked.
        [header(FIN | TEXT, 0, 2), b"{}".to_vec()].concat(),
        frame(FIN | 0x40 | TEXT, b"{}"),
        frame(FIN | 0x20 | TEXT, b"{}"),
        frame(FIN | 0x10 | TEXT, b"{}"),
        frame(FIN | 3, b""),
        frame(FIN | 7, b""),
        frame(FIN | 0xb, b""),
        frame(FIN | 0xf, b""),
        frame(PING, b"in pieces"),
        frame(CLOSE, b""),
        frame(FIN | PING, &[0; 126]),
        frame(FIN | CONTINUATION, b"{}"),
        frame(CONTINUATION, b"{}"),
        [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(),
        [frame(TEXT, b"{"), frame(FIN | BINARY, b"}")].concat(),
        close(b"x"),
    ];
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        cases.push(close(&code.to_be_bytes()));
    }
    for case in cases {
        expect_violation(&world, &case, 1002);
    }
    neighbour.expect_quiet();
}

#[test]
fn bad_text_is_closed_with_1007() {
    let world = World::books(&["on_unsubscribe"]);
    let mut neighbour = world.client();
    let cases = [
        frame(FIN | TEXT, b"{\"event\":\"\xff\"}"),
        frame(FIN | TEXT, b"\xed\xa0\x80"),
        frame(FIN | TEXT, b"\xc0\x80"),
        frame(FIN | TEXT, b"cut short \xf0\x9f"),
        [frame(TEXT, b"\xf0\x9f"), frame(FIN | CONTINUATION, b"\xff")].concat(),
        [frame(TEXT, b"\xf0\x9f"), frame(FIN | CONTINUATION, b"\xa6")].concat(),
    ];
    for case in cases {
        expect_violation(&world, &case, 1007);
    }
    neighbour.expect_quiet();
}

/// The header of a frame that does not come.
fn claim(first: u8, length: usize) -> Vec<u8> {
    [header(first, 0x80, length), vec![0; 4]].concat()
}

#[test]
fn messages_have_a_size() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_unsubscribe"]) },
            "LIMITS": { "max_message_bytes": 10_000 },
        })
    });
    let mut client = world.client();
    let padded = |length: usize| {
        let text = ping_event("x");
        text.clone() + &" ".repeat(length - text.len())
    };
    client.send_text(&padded(10_000));
    client.expect(&json!({ "event": "pong", "data": "x" }));
    let whole = padded(10_001);
    let (first, rest) = whole.as_bytes().split_at(9_000);
    let cases = [
        frame(FIN | TEXT, whole.as_bytes()),
        // The header is enough, whatever it claims.
        claim(FIN | TEXT, 10_001),
        claim(FIN | BINARY, 1 << 40),
        [frame(TEXT, first), frame(FIN | CONTINUATION, rest)].concat(),
        [frame(TEXT, first), claim(FIN | CONTINUATION, rest.len())].concat(),
    ];
    for case in cases {
        expect_violation(&world, &case, 1009);
    }
    client.expect_quiet();
}

// Closes.

#[test]
fn a_close_is_answered_with_its_own_code() {
    let world = World::books(&["on_unsubscribe"]);
    for code in [1000_u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let mut client = world.client();
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice("Grüße".as_bytes());
        client.send_frame(CLOSE, &payload);
        assert_eq!(client.close_code(), code);
        client.expect_end();
    }
    let mut client = world.client();
    client.send_frame(CLOSE, b"");
    let frame = client.try_frame().unwrap();
    assert_eq!((frame.opcode, frame.payload.len()), (CLOSE, 0));
    client.expect_end();
    let mut client = world.client();
    client.send_frame(CLOSE, b"\x03\xe8\xff");
    assert!([1002, 1007].contains(&client.close_code()));
}

#[test]
fn frames_behind_a_close_are_ignored() {
    let world = World::books(&["on_message"]);
    let mut client = world.client();
    client.subscribe("books.1");
    let mut bytes = frame(TEXT, b"{\"event\"");
    bytes.extend(frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
    bytes.extend(frame(FIN | CONTINUATION, b":\"ping\"}"));
    let message = json!({ "event": "message", "subscription": "books.1" }).to_string();
    bytes.extend(frame(FIN | TEXT, message.as_bytes()));
    client.send_raw(&bytes);
    client.expect_close(1000);
    world.router.wait_metric("socketshark_connection_count", 0.0);
    assert!(world.service.all().is_empty());
}

#[test]
fn a_client_that_never_answers_a_close_is_dropped() {
    let (router, _redis) = router(json!({ "LIMITS": { "close_timeout": 0.3 } }));
    let mut client = router.client();
    client.send_raw(&frame(FIN | 3, b""));
    client.expect_close_frame(1002);
    client.expect_end();
}

// Pings.

#[test]
fn a_session_that_does_not_pong_is_closed_with_1011() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_unsubscribe"]) },
            "WS_PING": { "interval": 0.2, "timeout": 0.3 },
            "LIMITS": { "close_timeout": 0.3 },
        })
    });
    let mut good = world.client();
    let mut client = world.client();
    client.subscribe("books.1");
    client.answers_pings = false;
    // Other traffic does not count, nor does a pong to another ping.
    let began = Instant::now();
    let code = loop {
        client.send_raw(&frame(FIN | TEXT, ping_event("alive").as_bytes()));
        client.send_raw(&frame(FIN | PONG, b"unasked"));
        match client.try_frame() {
            Some(frame) if frame.opcode == CLOSE => break frame.payload,
            Some(frame) => assert_eq!(frame.opcode, TEXT),
            None => panic!("ended without a Close"),
        }
        good.expect_quiet();
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(code[..2], 1011_u16.to_be_bytes());
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    world.service.wait("/on_unsubscribe", 1);
    until_true("some pings", || {
        good.expect_quiet();
        good.pings >= 4
    });
}

#[test]
fn without_an_interval_there_are_no_pings() {
    let redis = Redis::start();
    let pinging = Router::start(&redis, json!({ "WS_PING": { "interval": 0.1, "timeout": 0.1 } }));
    let quiet = Router::start(&redis, json!({ "WS_PING": { "interval": null, "timeout": 0.1 } }));
    let (mut pinged, mut client) = (pinging.client(), quiet.client());
    until_true("pings to the other", || {
        pinged.expect_quiet();
        pinged.pings >= 4
    });
    client.expect_quiet();
    assert_eq!(client.pings, 0);
}

// Slow consumers.

#[test]
fn a_slow_consumer_is_closed_with_1013_and_nobody_else_notices() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_unsubscribe"]) },
            "LIMITS": { "send_queue_bytes": 100_000 },
        })
    });
    let mut slow = world.client();
    slow.subscribe("books.1");
    let mut good = world.client();
    good.subscribe("books.1");
    let padding = "x".repeat(50_000);
    let mut published = 0;
    // Until the kernel's buffers are full and the router's queue too.
    until_true("the slow one to be given up", || {
        for _ in 0..20 {
            world.publish("books.1", json!([published, padding]));
            assert_eq!(good.recv_data()[0], published);
            published += 1;
        }
        !world.service.all().is_empty()
    });
    assert_eq!(world.service.all().len(), 1);
    // It gets what had been sent, in order, and then the code or the end.
    let mut number = 0;
    while let Some(frame) = slow.try_frame() {
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload[..2], 1013_u16.to_be_bytes());
            break;
        }
        let message: Value = serde_json::from_slice(&frame.payload).unwrap();
        assert_eq!(message["data"][0], number);
        number += 1;
    }
    good.expect_quiet();
}

#[test]
fn one_message_over_the_limit_passes_on_an_empty_queue() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&[]) },
            "LIMITS": { "send_queue_bytes": 1_000 },
        })
    });
    let mut client = world.client();
    client.subscribe("books.1");
    for _ in 0..3 {
        world.publish("books.1", json!("x".repeat(100_000)));
        client.recv_data();
    }
    client.expect_quiet();
}

#[test]
fn messages_held_during_a_subscribe_count_towards_the_limit() {
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["before_subscribe", "on_unsubscribe"]) },
            "LIMITS": { "send_queue_bytes": 10_000 },
        })
    });
    let gate = world.service.hold("/before_subscribe");
    let mut client = world.client();
    client.send(&json!({ "event": "subscribe", "subscription": "books.1" }));
    world.service.wait("/before_subscribe", 1);
    for _ in 0..4 {
        world.publish("books.1", json!("x".repeat(4_000)));
    }
    client.expect_close(1013);
    gate.open();
    world.service.wait("/on_unsubscribe", 1);
    world.redis.wait_channels(&[]);
}
