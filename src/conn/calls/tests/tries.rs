//! Tries, waits, time-outs, redirects.

use super::*;

#[test]
fn tries_are_counted_and_spaced() {
    let mut world = World::new();
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, ERROR);
    world.advance(2.999);
    assert_eq!(world.sent(), []);
    world.advance(0.001);
    let (again, request) = world.reuse();
    assert_eq!((again, body_of(&request)), (conn, "{\"n\":0}"), "an error keeps the connection");
    world.receive(conn, ERROR);
    world.advance(3.0);
    world.reuse();
    world.receive(conn, ERROR);
    assert_eq!(world.ended_calls(), [(0, false)]);
    assert_eq!(world.results("books", Hook::OnMessage), [0, 0, 1, 0]);
    let log = world.log.take();
    assert_eq!(log.lines().count(), 3);
    for (n, line) in log.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["event"], &line["level"]),
            (&"callback failed".into(), &"warning".into())
        );
        assert_eq!((&line["service"], &line["hook"]), (&"books".into(), &"on_message".into()));
        assert_eq!((&line["try"], &line["tries"]), (&(n + 1).into(), &3.into()));
        assert_eq!(line["reason"], "status 500");
        assert_eq!(line["wait"].is_null(), n == 2);
    }
}

#[test]
fn a_429_says_when_to_come_again() {
    for (header, wait) in [
        ("x-rate-limit-reset: 7.5", 7.5),
        ("X-Rate-Limit-Reset: 1e9", 3600.0),
        ("X-Rate-Limit-Reset: -1", 3.0),
        ("Retry-After: 9", 9.0),
        ("Retry-After: 9\r\nX-Rate-Limit-Reset: nonsense", 3.0),
        ("Other: 9", 3.0),
        ("X-Rate-Limit-Reset: 0", 0.0),
    ] {
        let mut world = World::with(|http| {
            http.rate_limit_headers.push("Retry-After".to_owned());
            http.tries = 2;
            http.keepalive_timeout = seconds(10_000.0);
        });
        world.message(&url());
        let (conn, _) = world.accept();
        let limited = format!("HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n{header}\r\n\r\n");
        world.receive(conn, &limited);
        if wait > 0.0 {
            world.advance(wait - 0.001);
            assert_eq!(world.sent(), [], "{header}");
        }
        world.advance(0.001);
        world.reuse();
        world.receive(conn, &limited);
        assert_eq!(world.ended_calls(), [(0, false)], "a 429 is a try, too");
    }
}

#[test]
fn the_time_out_is_for_one_try_and_not_for_the_queue() {
    let mut world = World::with(|http| {
        http.max_connections_per_host = 1;
        http.tries = 1;
    });
    world.message(&url());
    world.message(&url());
    let (conn, _) = world.accept();
    world.advance(14.0);
    world.receive(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    world.advance(0.999);
    assert_eq!(world.ended_calls(), []);
    world.advance(0.001);
    assert_eq!(world.ended_calls(), [(0, false)]);
    assert!(!world.is_open(conn));
    assert!(world.log.take().contains("timed out waiting for the answer"));
    let silent = world.dial();
    world.advance(14.999);
    assert_eq!(world.ended_calls(), [], "the second one's time began with its slot");
    world.advance(0.001);
    assert_eq!(world.ended_calls(), [(1, false)]);
    assert!(!world.is_open(silent));
    assert!(world.log.take().contains("timed out connecting"));
}

#[test]
fn redirects_stay_within_origin_and_try() {
    let mut world = World::with(|http| http.tries = 1);
    let secret = Url { authorization: Some("Basic eDp5".to_owned()), ..(*url()).clone() };
    let url = Rc::new(secret);
    world.message(&url);
    let (conn, _) = world.accept();
    let to = |status: u16, location: &str| {
        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 1\r\n\r\nx")
    };
    let targets = ["/1", "/a/2", "http://10.0.0.1:8000/a/3", "4", "?5"];
    for (location, target) in targets.iter().zip(["/1", "/a/2", "/a/3", "/a/4", "/a/4?5"]) {
        world.advance(2.0);
        world.receive(conn, &to(307, location));
        let (again, request) = world.reuse();
        assert!(request.starts_with(&format!("POST {target} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains("Authorization: Basic eDp5\r\n"));
        assert_eq!((again, body_of(&request)), (conn, "{\"n\":0}"));
    }
    assert_eq!(world.metrics.callbacks_in_flight, 1);
    world.receive(conn, &to(308, "/6"));
    assert_eq!(world.ended_calls(), [(0, false)]);
    assert!(world.log.take().contains("too many redirects"));

    world.message(&url);
    world.reuse();
    world.advance(10.0);
    world.receive(conn, &to(308, "/slow"));
    world.reuse();
    world.advance(5.0);
    assert_eq!(world.ended_calls(), [(1, false)], "one time-out for the whole try");
    world.log.take();

    world.message(&url);
    let (conn, _) = world.accept();
    world.receive(conn, &to(302, "http://x:pw@evil/there?token=1"));
    assert_eq!(world.ended_calls(), [(2, false)]);
    let log = world.log.take();
    assert!(log.contains("to http://evil/there"), "{log}");
    assert!(!log.contains("pw") && !log.contains("token") && !log.contains("eDp5"), "{log}");
}

#[test]
fn a_redirect_without_keep_alive_takes_a_new_connection() {
    let mut world = World::new();
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, "HTTP/1.0 307 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    assert!(!world.is_open(conn));
    let (_, request) = world.accept();
    assert!(request.starts_with("POST /b "));
}

#[test]
fn an_error_status_outlasts_its_broken_body() {
    let mut world = World::new();
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, "HTTP/1.1 429 Slow\r\nX-Rate-Limit-Reset: 60\r\n\r\nno en");
    world.lose(conn);
    assert!(world.log.take().contains("status 429"));
    assert_eq!(world.calls.next_deadline(), Some(world.now.mono.after(seconds(15.0))));
    world.advance(59.9);
    assert_eq!(world.dialled(), []);
    world.advance(0.1);
    world.accept();
}

#[test]
fn answers_over_the_limit_are_cut_off() {
    let mut world = World::with(|http| {
        http.max_response_bytes = 14;
        http.tries = 1;
    });
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, OK);
    assert_eq!(world.ended_calls(), [(0, false)]);
    assert!(world.log.take().contains("over max_response_bytes"));
    world.http.max_response_bytes = 15;
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, OK);
    assert_eq!(world.ended_calls(), [(1, true)], "the configuration of the moment counts");
}

#[test]
fn credentials_are_in_no_log() {
    let mut world = World::with(|http| http.tries = 1);
    let config = LogConfig { level: Some(crate::config::Level::Debug), ..LogConfig::default() };
    world.log.configure(&config, false);
    let authorization = Some("Basic c2VjcmV0OnNlY3JldA==".to_owned());
    let url = Rc::new(Url { authorization, ..(*url()).clone() });
    for answer in [OK, ERROR] {
        world.start("ticket", Hook::Validation, &url);
        let (conn, _) = world.accept();
        world.receive(conn, answer);
        world.end(conn);
    }
    let log = world.log.take();
    assert!(log.contains("\"event\":\"http request\"") && log.contains("\"status\":500"), "{log}");
    assert!(log.contains("http://*****:*****@10.0.0.1:8000/hook"), "{log}");
    assert!(!log.contains("c2Vj") && !log.contains("\\\"n\\\""), "{log}");
}
