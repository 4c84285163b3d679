//! Calls to services: what is asked, how often, and what of the answers is passed on.
//!
//! - what a request looks like; whose fields win
//! - tries; redirects and 429
//! - values that pass unchanged
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::calling::{calling, succeeds};
use support::service::Reply;
use support::wait::free_port;
use support::{Service, World, merge, subscribe};

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

// Tries.

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
