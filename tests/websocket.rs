//! The WebSocket protocol behind the handshake.
//!
//! - fragments, control frames
//! - violations and their close codes
//! - closes by clients
//! - protocol pings
//! - slow consumers
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, header};
use support::wait::until_true;
use support::{Redis, Router, World};

const FIN: u8 = 0x80;

fn ping_event(data: &str) -> String {
    json!({ "event": "ping", "data": data }).to_string()
}

// Frames.

#[test]
fn messages_may_come_in_fragments_with_control_frames_between() {
    let (router, _redis) = Router::alone(json!({}));
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
    let (router, _redis) = Router::alone(json!({}));
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

#[test]
fn a_message_may_come_in_very_many_fragments() {
    let (router, _redis) = Router::alone(json!({}));
    let mut client = router.client();
    let mut neighbour = router.client();
    let text = ping_event("x") + &" ".repeat(49_000);
    let (last, parts) = text.as_bytes().split_last().unwrap();
    let mut bytes = Vec::new();
    for (number, byte) in parts.iter().enumerate() {
        bytes.extend(frame(if number == 0 { TEXT } else { CONTINUATION }, &[*byte]));
    }
    bytes.extend(frame(FIN | CONTINUATION, &[*last]));
    client.send_raw(&bytes);
    client.expect(&json!({ "event": "pong", "data": "x" }));
    neighbour.expect_quiet();
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
    let (router, _redis) = Router::alone(json!({ "LIMITS": { "close_timeout": 0.3 } }));
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

#[test]
fn floods_of_pings_that_nobody_reads_the_answers_of_are_bounded() {
    let (router, _redis) = Router::alone(json!({ "LIMITS": { "send_queue_bytes": 100_000 } }));
    let mut neighbour = router.client();
    let mut client = router.client();
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let pings = frame(FIN | PING, &[b'x'; 125]).repeat(500);
    // Until the server closes or reads no more.
    let mut sent = 0;
    let end = loop {
        match client.stream.write_all(&pings) {
            Ok(()) => sent += pings.len(),
            Err(error) => break error,
        }
        neighbour.expect_quiet();
        assert!(sent < 200_000_000, "all is taken");
    };
    let blocked = matches!(end.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    let closed = matches!(end.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    assert!(blocked || closed, "{end}");
    neighbour.expect_quiet();
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
