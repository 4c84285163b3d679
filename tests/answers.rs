//! What services answer: which answers count, and which are failed tries.
//!
//! - statuses, content types, bodies
//! - framings
//! - sizes
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::json;
use support::calling::{JSON_HEADER, OK, calling, chunked, head_and, numbered, succeeds};
use support::service::Reply;

#[test]
fn statuses_types_and_bodies_that_are_failed_tries() {
    let world = calling(json!({ "tries": 1, "timeout": 3 }));
    let typed = |kind: &str| Reply::with(200, &[("Content-Type", kind)], OK);
    let body = |body: &str| Reply::with(200, &[JSON_HEADER], body);
    let deep = format!(r#"{{"status":"ok","x":{}{}}}"#, "[".repeat(600), "]".repeat(600));
    let Reply::Raw(mut not_utf8) = body(r#"{"status":"ok","a":"?"}"#) else { unreachable!() };
    let mark = not_utf8.iter().rposition(|byte| *byte == b'?').unwrap();
    not_utf8[mark] = 0xff;
    let mut replies = vec![
        typed("text/html"),
        typed("application/jsonp"),
        typed("text/json"),
        typed("json"),
        Reply::with(200, &[], OK),
        body(""),
        body("[]"),
        body("null"),
        body("\"ok\""),
        body("ok"),
        body("{\"status\":\"ok\""),
        body("{\"status\":\"ok\"}x"),
        body("{\"status\":\"ok\",\"data\":NaN}"),
        body("{\"status\":\"ok\",}"),
        body(&deep),
        Reply::Raw(not_utf8),
        Reply::raw("HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n"),
        Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Reply::Close,
    ];
    for status in [400, 401, 404, 418, 500, 503, 599] {
        replies.push(Reply::with(status, &[JSON_HEADER], OK));
    }
    for status in [300, 301, 302, 303, 304, 305] {
        let location = world.service.url("/elsewhere");
        replies.push(Reply::with(status, &[JSON_HEADER, ("Location", &location)], OK));
    }
    let mut client = world.client();
    for name in numbered(&world.service, replies) {
        assert!(!succeeds(&mut client, &name), "{name}");
    }
    assert!(world.service.requests("/elsewhere").is_empty());
    client.expect_quiet();
}

#[test]
fn framings_that_are_failed_tries() {
    let world = calling(json!({ "tries": 1, "timeout": 3 }));
    let length = |length: &str| head_and(&format!("Content-Length: {length}\r\n\r\n{OK}"));
    let replies = vec![
        length("-15"),
        length("+15"),
        length("fifteen"),
        length(""),
        length("15, 16"),
        length("9223372036854775808"),
        length("18446744073709551631"),
        length("0x0f"),
        length("1 5"),
        length("16"),
        head_and(&format!("Content-Length: 15\r\nContent-Length: 16\r\n\r\n{OK}")),
        chunked(&format!("-f\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("+f\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("0xf\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("1000000000000000f\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("0_f\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("f\r\n{OK}xx0\r\n\r\n")),
        chunked(&format!("f\r\n{OK}")),
        chunked(&format!("f\r\n{OK}\r\n")),
        chunked("0\r\n\r\n"),
        chunked(&format!("f\r\n{OK}\r\n0\r\n")),
        chunked(&format!("ff\r\n{OK}")),
        Reply::raw_then_close("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
        Reply::raw_then_close(&format!(
            "HTTP/2 200 OK\r\nContent-Type: application/json\r\n\r\n{OK}"
        )),
        Reply::raw_then_close(&format!(
            "HTTP/1.1 OK\r\nContent-Type: application/json\r\n\r\n{OK}"
        )),
        Reply::raw_then_close(&format!(
            "HTTP/1.1 20 OK\r\nContent-Type: application/json\r\n\r\n{OK}"
        )),
        Reply::raw_then_close("SSH-2.0-OpenSSH_9.6\r\n"),
        Reply::raw_then_close("\u{0}\u{1}\u{2}\r\n\r\n"),
        // Both lengths at once.
        head_and(&format!("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n\r\n{OK}")),
    ];
    let mut client = world.client();
    for name in numbered(&world.service, replies) {
        assert!(!succeeds(&mut client, &name), "{name}");
    }
    client.expect_quiet();
}

#[test]
fn answers_have_a_size() {
    let world = calling(json!({ "tries": 1, "max_response_bytes": 200_000, "timeout": 3 }));
    let body = |length: usize| format!(r#"{{"status":"ok","x":"{}"}}"#, "x".repeat(length - 22));
    let sized = |length: usize| Reply::with(200, &[JSON_HEADER], &body(length));
    let in_chunks =
        |length: usize| chunked(&format!("{length:x}\r\n{}\r\n0\r\n\r\n", body(length)));
    let endless_head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(100_000));
    let claimed = "Content-Length: 99999999999\r\n\r\n{";
    let replies = vec![
        sized(200_000),
        sized(200_001),
        in_chunks(199_900),
        in_chunks(200_001),
        head_and(claimed),
        Reply::raw_then_close(&endless_head),
        sized(22),
    ];
    let mut client = world.client();
    let names = numbered(&world.service, replies);
    let counted: Vec<bool> = names.iter().map(|name| succeeds(&mut client, name)).collect();
    assert_eq!(counted, [true, false, true, false, false, false, true]);
}

#[test]
fn framings_and_types_that_count() {
    let world = calling(json!({ "tries": 1, "timeout": 3 }));
    let typed = |kind: &str| Reply::with(200, &[("Content-Type", kind)], OK);
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let json_head = "Content-Type: application/json\r\n";
    let replies = vec![
        typed("application/json; charset=utf-8"),
        typed("Application/JSON"),
        typed("application/problem+json"),
        typed("application/vnd.api+json;v=1"),
        Reply::with(201, &[JSON_HEADER], OK),
        Reply::with(299, &[JSON_HEADER], OK),
        Reply::with(200, &[JSON_HEADER], &format!(" \r\n\t{OK}\n")),
        chunked(&format!("f\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("F\r\n{OK}\r\n0\r\n\r\n")),
        chunked(&format!("f;a=b;c=\"d\"\r\n{OK}\r\n0;e\r\nTrailer: x\r\n\r\n")),
        chunked("1\r\n{\r\n00e\r\n\"status\":\"ok\"}\r\n000\r\n\r\n"),
        head_and(&format!("Transfer-Encoding: Chunked\r\n\r\nf\r\n{OK}\r\n0\r\n\r\n")),
        head_and(&format!("\r\n{OK}")),
        Reply::raw_then_close(&format!("HTTP/1.0 200 OK\r\n{json_head}\r\n{OK}")),
        Reply::raw_then_close(&format!(
            "HTTP/1.0 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}"
        )),
        Reply::raw(&format!(
            "{interim}HTTP/1.1 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}"
        )),
        Reply::raw(&format!("HTTP/1.1 200\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        Reply::raw(&format!("HTTP/1.1 200 OK\r\n{json_head}content-length:   015  \r\n\r\n{OK}")),
        head_and(&format!("Connection: close\r\nContent-Length: 15\r\n\r\n{OK}")),
    ];
    let mut client = world.client();
    for name in numbered(&world.service, replies) {
        assert!(succeeds(&mut client, &name), "{name}");
    }
}
