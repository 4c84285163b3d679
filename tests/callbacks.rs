//! Calls to services.
//!
//! - what a request looks like; whose fields win
//! - answers that are none: failed tries
//! - answers in all their framings
//! - redirects and 429
//! - time-outs
//! - connections kept alive, and lost
//! - the queue of a service
//! - values that pass unchanged
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::service::{Reply, Request};
use support::wait::{free_port, until_true};
use support::{Client, Service, World, merge};

const OK: &str = r#"{"status":"ok"}"#;

/// `books` with `before_subscribe`, and these HTTP settings.
fn calling(http: Value) -> World {
    World::new(
        |service| json!({ "SERVICES": { "books": service.hooks(&["before_subscribe"]) }, "HTTP": http }),
    )
}

fn subscribe(name: &str) -> Value {
    json!({ "event": "subscribe", "subscription": name })
}

/// Subscribes, and says whether the service's answer counted. The subscription is left again.
#[track_caller]
fn succeeds(client: &mut Client, name: &str) -> bool {
    let answer = client.ask(&subscribe(name));
    if answer["status"] == "ok" {
        client.unsubscribe(name);
        return true;
    }
    assert_eq!(answer["error"], "Service unavailable.", "{answer}");
    false
}

// Requests.

#[test]
fn requests_are_plain_http_with_a_json_body() {
    let world = World::new(|service| {
        let url = format!("{}?a=b%20c&d", service.url("/deep/path"));
        let books = json!({ "require_authentication": false, "before_subscribe": url });
        json!({ "SERVICES": { "books": books } })
    });
    let mut client = world.client();
    client.subscribe("books.1");
    let all = world.service.all();
    let [request] = &all[..] else { panic!("{all:?}") };
    assert_eq!(request.head.start, "POST /deep/path?a=b%20c&d HTTP/1.1");
    let header = |name: &str| request.head.header(name);
    assert_eq!(header("Content-Type"), Some("application/json"));
    assert_eq!(header("Host"), Some(format!("127.0.0.1:{}", world.service.port).as_str()));
    let agent = format!("socketshark/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(header("User-Agent"), Some(agent.as_str()));
    assert_eq!(header("Content-Length"), Some(request.body.len().to_string().as_str()));
    for absent in ["Accept-Encoding", "Authorization", "Transfer-Encoding"] {
        assert_eq!(header(absent), None);
    }
    assert_eq!(request.json(), json!({ "subscription": "books.1" }));
}

#[test]
fn later_fields_win_over_earlier_ones() {
    let world = World::new(|service| {
        let mut books = service.hooks(&["authorizer", "before_subscribe", "on_message"]);
        let fields = json!({
            "extra_fields": ["e", "ea", "eu", "all", "absent"],
            "authorizer_fields": ["a", "ea", "au", "all", "absent"],
        });
        merge(&mut books, fields);
        json!({
            "AUTHENTICATION": service.ticket(&["u", "eu", "au", "all"]),
            "SERVICES": { "books": books },
        })
    });
    let user = json!({ "status": "ok", "u": 3, "eu": 3, "au": 3, "all": 3, "unknown": 3 });
    world.service.answer_json("/ticket", &user);
    let authorizer = json!({ "status": "ok", "a": 2, "ea": 2, "au": 2, "all": 2, "unknown": 2 });
    world.service.answer_json("/authorizer", &authorizer);
    let mut client = world.client();
    client.authenticate("t");
    let own = json!({ "e": 1, "ea": 1, "eu": 1, "all": 1, "subscription": "books.1" });
    let mut request = own.clone();
    merge(&mut request, json!({ "event": "subscribe", "unknown": 1, "data": 1 }));
    let mut expected = own;
    merge(&mut expected, json!({ "event": "subscribe", "status": "ok" }));
    assert_eq!(client.ask(&request), expected, "the client sees its own values");
    // Extra fields of later events do not matter.
    let message = json!({ "event": "message", "subscription": "books.1", "data": 4, "e": 9 });
    client.send(&message);
    client.expect_quiet();

    let body = |path: &str| world.service.requests(path)[0].json();
    let first = json!({
        "subscription": "books.1", "e": 1, "ea": 1, "eu": 3, "all": 3, "u": 3, "au": 3,
    });
    assert_eq!(body("/authorizer"), first);
    let mut later = first;
    merge(&mut later, json!({ "ea": 2, "a": 2 }));
    assert_eq!(body("/before_subscribe"), later);
    merge(&mut later, json!({ "data": 4 }));
    assert_eq!(body("/on_message"), later);
}

#[test]
fn an_authentication_replaces_the_one_before() {
    let world = World::new(|service| {
        let mut books = service.hooks(&["on_message"]);
        merge(&mut books, json!({ "filter_fields": ["user"] }));
        json!({ "AUTHENTICATION": service.ticket(&["user"]), "SERVICES": { "books": books } })
    });
    world.service.on("/ticket", |request| match request.json()["ticket"].as_str() {
        Some("wrong") => Reply::json(&json!({ "status": "error", "user": "wrong" })),
        ticket => Reply::json(&json!({ "status": "ok", "user": ticket })),
    });
    let mut client = world.client();
    client.authenticate("ann");
    client.subscribe("books.1");
    client.authenticate("bob");
    let message = json!({ "event": "message", "subscription": "books.1" });
    client.send(&message);
    assert_eq!(client.ask(&json!({ "event": "auth", "ticket": "wrong" }))["status"], "error");
    client.send(&message);
    client.expect_quiet();
    let users: Vec<Value> =
        world.service.requests("/on_message").iter().map(|r| r.json()["user"].clone()).collect();
    assert_eq!(users, ["bob", "bob"]);
    for user in ["ann", "wrong", "bob"] {
        let message = json!({ "subscription": "books.1", "data": user, "user": user });
        world.redis.publish("books.1", &message.to_string());
    }
    assert_eq!(client.recv_data(), "bob");
}

#[test]
fn without_auth_fields_nobody_is_ever_authenticated() {
    let world = World::new(
        |service| json!({ "AUTHENTICATION": service.ticket(&[]), "SERVICES": { "books": {} } }),
    );
    let mut client = world.client();
    client.authenticate("t");
    assert_eq!(client.ask(&subscribe("books.1"))["error"], "Authentication required.");
}

#[test]
fn credentials_of_the_url_become_a_header_and_stay_out_of_the_log() {
    let world = World::new(|service| {
        let url =
            |user: &str, path: &str| format!("http://{user}@127.0.0.1:{}{path}", service.port);
        json!({ "SERVICES": { "books": {
            "require_authentication": false,
            "before_subscribe": url("ann:p%40ss%3Aword", "/both"),
            "on_subscribe": url("lonely%20user", "/user"),
        } }, "HTTP": { "tries": 1 } })
    });
    world.service.answer("/both", Reply::Status(500));
    let mut client = world.client();
    assert!(!succeeds(&mut client, "books.1"));
    world.service.answer("/both", Reply::ok());
    client.subscribe("books.1");
    client.expect_quiet();
    let header = |path: &str| {
        let request = world.service.requests(path)[0].clone();
        request.head.header("Authorization").map(str::to_owned)
    };
    // Base64 of `ann:p@ss:word` and of `lonely user:`.
    assert_eq!(header("/both").as_deref(), Some("Basic YW5uOnBAc3M6d29yZA=="));
    assert_eq!(header("/user").as_deref(), Some("Basic bG9uZWx5IHVzZXI6"));
    let log = world.router.log_text();
    for secret in ["p@ss", "p%40ss", "YW5u", "bG9uZWx5"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

// Failed tries.

#[test]
fn a_call_has_a_number_of_tries() {
    let world = calling(json!({ "tries": 3, "wait": 0.1 }));
    let bad = || Reply::Status(500);
    world.service.script("/before_subscribe", vec![bad(), bad(), Reply::ok()]);
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    let times: Vec<Instant> = world.service.all().iter().map(|request| request.at).collect();
    assert_eq!(times.len(), 3);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(95), "{:?}", pair[1] - pair[0]);
    }
    world.service.answer("/before_subscribe", bad());
    world.service.forget();
    assert!(!succeeds(&mut client, "books.1"));
    assert_eq!(world.service.all().len(), 3);
    let names_all = |line: &Value| {
        let text = line.to_string();
        line["level"] == "warning"
            && ["books", "before_subscribe", "500"].iter().all(|word| text.contains(word))
    };
    world.router.wait_log("a failed try with its service, hook and reason", names_all);
}

/// Answers by the topic's number, and the names of the topics.
fn numbered(service: &Service, replies: Vec<Reply>) -> Vec<String> {
    let names = (0..replies.len()).map(|number| format!("books.{number}")).collect();
    service.on("/before_subscribe", move |request: &Request| {
        let number: usize = request.subscription()["books.".len()..].parse().unwrap();
        replies[number].clone()
    });
    names
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.as_bytes().to_vec())
}

fn raw_then_close(text: &str) -> Reply {
    Reply::RawThenClose(text.as_bytes().to_vec())
}

const JSON_HEADER: (&str, &str) = ("Content-Type", "application/json");

/// A head that says what `rest` begins with: more headers, an empty line, a body.
fn head_and(rest: &str) -> Reply {
    raw_then_close(&format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{rest}"))
}

fn chunked(chunks: &str) -> Reply {
    head_and(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"))
}

#[test]
fn statuses_types_and_bodies_that_are_failed_tries() {
    let world = calling(json!({ "tries": 1, "timeout": 3 }));
    let typed = |kind: &str| Reply::with(200, &[("Content-Type", kind)], OK);
    let body = |body: &str| Reply::with(200, &[JSON_HEADER], body);
    let deep = format!(r#"{{"status":"ok","x":{}{}}}"#, "[".repeat(600), "]".repeat(600));
    let mut replies = vec![
        typed("text/html"), typed("application/jsonp"), typed("text/json"), typed("json"),
        Reply::with(200, &[], OK),
        body(""), body("[]"), body("null"), body("\"ok\""), body("ok"), body("{\"status\":\"ok\""),
        body("{\"status\":\"ok\"}x"), body("{\"status\":\"ok\",\"data\":NaN}"),
        body("{\"status\":\"ok\",}"), body(&deep),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{\"status\":\"ok\",\"a\":\"\xff\xff\"}".to_vec()),
        raw("HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n"),
        raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
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
        raw_then_close("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
        raw_then_close(&format!("HTTP/2 200 OK\r\nContent-Type: application/json\r\n\r\n{OK}")),
        raw_then_close(&format!("HTTP/1.1 OK\r\nContent-Type: application/json\r\n\r\n{OK}")),
        raw_then_close(&format!("HTTP/1.1 20 OK\r\nContent-Type: application/json\r\n\r\n{OK}")),
        raw_then_close("SSH-2.0-OpenSSH_9.6\r\n"),
        raw_then_close("\u{0}\u{1}\u{2}\r\n\r\n"),
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
        raw_then_close(&endless_head),
        sized(22),
    ];
    let mut client = world.client();
    let names = numbered(&world.service, replies);
    let counted: Vec<bool> = names.iter().map(|name| succeeds(&mut client, name)).collect();
    assert_eq!(counted, [true, false, true, false, false, false, true]);
}

#[test]
fn services_that_are_not_there_are_unavailable() {
    let port = free_port();
    let world = World::new(|_| {
        let url = |host: &str| format!("http://{host}:{port}/");
        let service = |host: &str| {
            json!({
                "require_authentication": false, "before_subscribe": url(host),
            })
        };
        json!({ "SERVICES": {
            "refusing": service("127.0.0.1"), "nameless": service("no-such-name.invalid"),
        } })
    });
    let mut client = world.client();
    assert!(!succeeds(&mut client, "refusing.1"));
    assert!(!succeeds(&mut client, "nameless.1"));
    client.expect_quiet();
}

// Framings that count.

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
        raw_then_close(&format!("HTTP/1.0 200 OK\r\n{json_head}\r\n{OK}")),
        raw_then_close(&format!("HTTP/1.0 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        raw(&format!("{interim}HTTP/1.1 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        raw(&format!("HTTP/1.1 200\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        raw(&format!("HTTP/1.1 200 OK\r\n{json_head}content-length:   015  \r\n\r\n{OK}")),
        head_and(&format!("Connection: close\r\nContent-Length: 15\r\n\r\n{OK}")),
    ];
    let mut client = world.client();
    for name in numbered(&world.service, replies) {
        assert!(succeeds(&mut client, &name), "{name}");
    }
}

// Redirects and 429.

#[test]
fn redirects_within_the_origin_are_followed() {
    let world = calling(json!({ "tries": 1 }));
    let to = |status: u16, location: &str| Reply::with(status, &[("Location", location)], "moved");
    world.service.answer("/before_subscribe", to(307, "/second?x=1"));
    world.service.answer("/second?x=1", to(308, &world.service.url("/third")));
    world.service.answer("/third", to(307, "fourth"));
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    let all = world.service.all();
    assert_eq!(world.service.paths(), ["/before_subscribe", "/second?x=1", "/third", "/fourth"]);
    for request in &all {
        assert!(request.head.start.starts_with("POST "), "{}", request.head.start);
        assert_eq!(request.json(), json!({ "subscription": "books.1" }));
        assert_eq!(request.head.header("Content-Type"), Some("application/json"));
    }
}

#[test]
fn redirects_elsewhere_or_without_end_are_failed_tries() {
    let world = calling(json!({ "tries": 1 }));
    let stranger = Service::start();
    let to = |location: &str| Reply::with(307, &[("Location", location)], "");
    let mut client = world.client();
    let localhost = format!("http://localhost:{}/x", world.service.port);
    let places = [
        stranger.url("/x"),
        localhost,
        format!("//127.0.0.1:{}/x", stranger.port),
        "https://127.0.0.1/x".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        String::new(),
    ];
    for place in &places {
        world.service.answer("/before_subscribe", to(place));
        // An empty location is the same address again: without end.
        assert!(!succeeds(&mut client, "books.1"), "{place}");
    }
    world.service.answer("/before_subscribe", Reply::with(307, &[], ""));
    assert!(!succeeds(&mut client, "books.1"));
    world.service.forget();
    world.service.answer("/before_subscribe", to("/before_subscribe"));
    assert!(!succeeds(&mut client, "books.1"));
    assert_eq!(world.service.all().len(), 6);
    assert!(stranger.all().is_empty());
    assert!(world.service.requests("/x").is_empty());
}

/// The time between the first and the second try where the first is answered with 429.
#[track_caller]
fn wait_after_429(http: Value, headers: &[(&str, &str)]) -> Duration {
    let world = calling(http);
    let limited = Reply::with(429, headers, "");
    world.service.script("/before_subscribe", vec![limited, Reply::ok()]);
    let mut client = world.client();
    assert!(succeeds(&mut client, "books.1"));
    let all = world.service.all();
    all[1].at - all[0].at
}

#[test]
fn a_429_says_when_to_come_again() {
    let patient = || json!({ "wait": 8 });
    let hasty = || json!({ "wait": 0.01 });
    let short = Duration::from_secs(5);
    let long = Duration::from_millis(190);
    assert!(wait_after_429(hasty(), &[("X-Rate-Limit-Reset", "0.2")]) >= long);
    assert!(wait_after_429(patient(), &[("x-rate-limit-reset", "0.01")]) < short);
    assert!(wait_after_429(patient(), &[("X-Rate-Limit-Reset", " 1e-2 ")]) < short);
    assert!(wait_after_429(patient(), &[("X-Rate-Limit-Reset", "0")]) < short);
    let names = json!({ "wait": 8, "rate_limit_reset_header_names": ["A", "B"] });
    let headers = [("X-Rate-Limit-Reset", "9"), ("B", "0.01")];
    assert!(wait_after_429(names, &headers) < short);
    let both = json!({ "wait": 8, "rate_limit_reset_header_names": ["A", "B"] });
    assert!(wait_after_429(both, &[("B", "9"), ("A", "0.01")]) < short);
}

#[test]
fn a_429_that_says_nothing_readable_is_waited_for_as_usual() {
    let hasty = || json!({ "wait": 0.01 });
    let short = Duration::from_secs(5);
    for value in ["", "soon", "-9", "nan", "Wed, 21 Oct 2037 07:28:00 GMT", "9s"] {
        assert!(wait_after_429(hasty(), &[("X-Rate-Limit-Reset", value)]) < short, "{value}");
    }
    assert!(wait_after_429(hasty(), &[("Retry-After", "9")]) < short);
    assert!(wait_after_429(hasty(), &[]) < short);
    let none = json!({ "wait": 0.01, "rate_limit_reset_header_name": null });
    assert!(wait_after_429(none, &[("X-Rate-Limit-Reset", "9")]) < short);
    // The first header that is there decides, bad as it is.
    let names = json!({ "wait": 0.01, "rate_limit_reset_header_names": ["A", "B"] });
    assert!(wait_after_429(names, &[("B", "9"), ("A", "bad")]) < short);
}

// Time-outs.

#[test]
fn a_try_has_a_time() {
    let world = calling(json!({ "tries": 2, "timeout": 0.2, "wait": 0.01 }));
    let slow_body = head_and("Content-Length: 15\r\n\r\n{");
    let Reply::RawThenClose(slow_body) = slow_body else { unreachable!() };
    let mut client = world.client();
    for reply in [Reply::Hang, Reply::Raw(slow_body), raw("HTTP/1.1 200 OK\r\n")] {
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
    let poison = whole.replace(OK, r#"{"status":"no"}"#);
    let replies = vec![
        raw(&format!("{whole}{poison}")),
        raw(&format!("{whole}\r\n")),
        raw(&format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n{json_head}Content-Length: 15\r\n\r\n{OK}"
        )),
        raw(&format!("HTTP/1.0 200 OK\r\n{json_head}Content-Length: 15\r\n\r\n{OK}")),
        raw(&format!(
            "HTTP/1.1 200 OK\r\n{json_head}Transfer-Encoding: chunked\r\n\r\nf\r\n{OK}\r\n0\r\n\r\n{poison}"
        )),
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
    world.service.answer("/before_subscribe", raw_then_close("H"));
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

// Values.

#[test]
fn values_pass_unchanged_in_every_direction() {
    let values = [
        "123456789012345678901234567890",
        "1e400",
        "-0.0",
        "1.50",
        r#""\ud800x""#,
        r#"{"z":1,"a":[2,{"y":null}]}"#,
    ];
    let world = World::new(|service| {
        let mut books = service.hooks(&["before_subscribe", "on_message"]);
        merge(&mut books, json!({ "extra_fields": ["x"] }));
        json!({ "AUTHENTICATION": service.ticket(&["user"]), "SERVICES": { "books": books } })
    });
    let mut client = world.client();
    for value in values {
        let ok = |key: &str| Reply::Json(format!(r#"{{"status":"ok","{key}":{value}}}"#));
        world.service.answer("/ticket", ok("user"));
        world.service.answer("/before_subscribe", ok("data"));
        world
            .service
            .answer("/on_message", Reply::Json(format!(r#"{{"status":"no","error":{value}}}"#)));
        client.authenticate("t");
        let subscribe = format!(r#"{{"event":"subscribe","subscription":"books.1","x":{value}}}"#);
        client.send_text(&subscribe);
        let answer = client.recv_text();
        for key in ["x", "data"] {
            assert!(has(&answer, key, value), "{key} {value}: {answer}");
        }
        let message = format!(r#"{{"event":"message","subscription":"books.1","data":{value}}}"#);
        client.send_text(&message);
        let answer = client.recv_text();
        assert!(has(&answer, "error", value), "{value}: {answer}");
        let body = world.service.requests("/on_message").last().unwrap().body.clone();
        for key in ["user", "x", "data"] {
            assert!(has(&body, key, value), "{key} {value}: {body}");
        }
        client.send(&json!({ "event": "unsubscribe", "subscription": "books.1" }));
        client.recv_text();
    }
}

/// Whether the object's text has this member, spelled so.
fn has(text: &str, key: &str, value: &str) -> bool {
    let member = format!(r#""{key}":{value}"#);
    let text = text.replace("\": ", "\":").replace(", \"", ",\"");
    text.contains(&format!("{member},")) || text.contains(&format!("{member}}}"))
}
