//! The opening handshake: who gets in, and how the others are refused.
//!
//! - handshakes that are accepted, and refused with which status
//! - origins
//! - numbers of connections
//! - the time for a handshake
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::{TEXT, frame, request};
use support::http::Head;
use support::wait::{PATIENCE, until, until_true};
use support::{Client, Router, http};

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

// Opening handshakes.

#[test]
fn good_handshakes_are_accepted() {
    let (router, _redis) = Router::alone(json!({}));
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
    let (router, _redis) = Router::alone(json!({}));
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
    let (router, _redis) = Router::alone(json!({}));
    let mut stream = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = request("/", "").into_bytes();
    bytes.extend(frame(0x80 | TEXT, br#"{"event":"ping","data":"early"}"#));
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
    let (router, _redis) = Router::alone(json!({}));
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
    let (router, _redis) = Router::alone(json!({}));
    let smuggling = format!("{}{}", without("Upgrade"), request("/", ""));
    assert_eq!(refusal(router.port, &smuggling).status(), 426);
    let body = format!("{}{}", without("Upgrade"), "x".repeat(1_000_000));
    assert_eq!(refusal(router.port, &body).status(), 426);
}

#[test]
fn heads_have_a_size() {
    let (router, _redis) = Router::alone(json!({ "LIMITS": { "max_header_bytes": 2_000 } }));
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
    let (router, _redis) = Router::alone(json!({ "WS_ALLOWED_ORIGINS": origins }));
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
    let (router, _redis) = Router::alone(json!({ "LIMITS": { "max_connections": 3 } }));
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

#[test]
fn those_who_were_turned_away_take_no_place() {
    let limits = json!({ "max_connections": 1, "close_timeout": 600 });
    let (router, _redis) = Router::alone(json!({ "LIMITS": limits }));
    let inside = router.client();
    let turned_away: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(("127.0.0.1", router.port)).unwrap()).collect();
    let refused = r#"socketshark_handshakes_refused_total{reason="too_many"}"#;
    router.wait_metric(refused, 3.0);
    inside.close(1000);
    until_true("the place to be free", || !over(&router));
    drop(turned_away);
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
    let (router, _redis) = Router::alone(config);
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
    let (router, _redis) =
        Router::alone(json!({ "LIMITS": { "handshake_timeout": 0.3, "close_timeout": 0.3 } }));
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
    let (router, _redis) = Router::alone(json!({}));
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
