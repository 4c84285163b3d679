//! The program as a process: its arguments, its signals, its exit status.
//!
//! - arguments: help, version, `--check`, what is wrong with a configuration
//! - a start that fails
//! - stopping: clients, callbacks, the second signal, the time-out
//! - descriptors used up
//! - SIGHUP
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::{self, PING};
use support::router::{base_config, run};
use support::service::Reply;
use support::wait::{TempDir, until_true};
use support::{Client, Redis, Router, Service, World, merge, subscribe, unsubscribe};

// Arguments.

#[test]
fn help_and_version_go_to_stdout() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out.trim(), format!("socketshark {}", env!("CARGO_PKG_VERSION")));
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for word in ["-c", "--check", "--version"] {
        assert!(out.contains(word), "{word} is missing: {out}");
    }
}

#[test]
fn wrong_arguments_are_told_and_end_with_2() {
    let cases: [&[&str]; 10] = [
        &[],
        &["-c"],
        &["--check"],
        &["--nonsense"],
        &["-x"],
        &["nonsense"],
        &["-c", "a", "b"],
        &["--check", "-c"],
        &["demo", "nonsense"],
        &["client-js", "nonsense"],
    ];
    for arguments in cases {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert_eq!(out, "", "{arguments:?}");
        assert!(!err.trim().is_empty() && !err.contains("panicked"), "{arguments:?}: {err}");
    }
}

/// A configuration file.
struct File {
    path: PathBuf,
    _dir: TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let dir = TempDir::new();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        File { path, _dir: dir }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

#[test]
fn check_says_nothing_about_a_right_configuration() {
    for text in
        ["{}", "// nothing\n{ /* at all */ }", r#"{"SERVICES":{"a":{"on_message":"http://b/"}}}"#]
    {
        let file = File::new(text);
        for arguments in [["--check", "-c", file.path()], ["-c", file.path(), "--check"]] {
            assert_eq!(run(&arguments), (Some(0), String::new(), String::new()), "{text}");
        }
    }
}

#[test]
fn all_errors_of_a_configuration_are_told_at_once() {
    let file = File::new(
        r#"{
        "WS_PORT": 70000,
        "SERVICES": { "books": { "before_subscrbe": "http://x/", "on_message": 5 } },
        "REDIS": { "password": 12345678 },
        "HTTP": { "tries": 0 }
    }"#,
    );
    for arguments in [vec!["--check", "-c", file.path()], vec!["-c", file.path()]] {
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        let spelling =
            "SERVICES.books.before_subscrbe: unknown key; did you mean before_subscribe?";
        let places =
            ["WS_PORT", spelling, "SERVICES.books.on_message", "REDIS.password", "HTTP.tries"];
        for place in places {
            let lines = err.lines().filter(|line| line.contains(place)).count();
            assert_eq!(lines, 1, "{place}: {err}");
        }
        assert_eq!(err.lines().count(), places.len(), "{err}");
        assert!(!err.contains("12345678"), "a secret: {err}");
    }
}

#[test]
fn unusable_configurations_end_with_2() {
    let cases = [
        "",
        "[]",
        "null",
        "{",
        "{}x",
        r#"{"WS_PORT":1,}"#,
        r#"{"LIMITS":{"max_connections":-1}}"#,
        r#"{"WS_HOST":"${NO_SUCH_NAME_IN_THE_ENVIRONMENT}"}"#,
        r#"{"WS_SSL":{"cert":"x"}}"#,
    ];
    let needs_tls = r#"{"SERVICES":{"a":{"on_message":"https://b/"}}}"#;
    let lacking = Some(needs_tls).filter(|_| cfg!(not(feature = "tls")));
    for text in cases.into_iter().chain(lacking) {
        let file = File::new(text);
        let (code, out, err) = run(&["-c", file.path()]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{text}: {err}");
        assert_eq!(err.lines().count(), 1, "{text}: {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    let dir = TempDir::new();
    let missing = dir.path().join("missing.json");
    for path in [missing.to_str().unwrap(), dir.path().to_str().unwrap()] {
        let (code, _, err) = run(&["-c", path]);
        assert_eq!(code, Some(2));
        assert!(err.contains(path), "{err}");
    }
}

// A start that fails.

#[test]
fn a_port_that_is_taken_ends_with_1() {
    let redis = Redis::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut config = base_config(&redis);
    merge(&mut config, json!({ "WS_PORT": port }));
    let mut router = Router::launch(config);
    assert_eq!(router.wait_exit(), Some(1));
    let text = router.log_text();
    assert!(text.contains(&port.to_string()) && text.contains("in use"), "{text}");
    assert!(text.contains("correct WS_HOST and WS_PORT"), "{text}");
    assert!(!text.contains("panicked"));
}

#[test]
fn the_port_may_be_text() {
    let redis = Redis::start();
    let router = Router::start(&redis, json!({ "WS_PORT": "0" }));
    router.client().expect_quiet();
    let line = router.wait_log("ready", support::router::is_ready);
    assert_eq!(line["host"], "127.0.0.1");
    assert_eq!(line["secure"], false);
}

#[test]
fn ports_can_be_shared() {
    let redis = Redis::start();
    let shared = json!({ "WS_REUSE_PORT": true });
    let first = Router::start(&redis, shared.clone());
    let mut config = shared;
    merge(&mut config, json!({ "WS_PORT": first.port }));
    let second = Router::start(&redis, config);
    assert_eq!(second.port, first.port);
    // Sooner or later both get clients.
    until_true("a client for each", || {
        first.client().expect_quiet();
        [&first, &second].iter().all(|r| r.metric("socketshark_connection_total") > Some(0.0))
    });
}

// Stopping.

#[test]
fn both_signals_stop_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let mut world = World::books(&["before_unsubscribe", "on_unsubscribe"]);
        let mut client = world.client();
        client.subscribe("books.1");
        client.subscribe("books.2");
        world.router.signal(signal);
        client.expect_close(1001);
        assert_eq!(world.router.wait_exit(), Some(0), "{signal}");
        let calls: Vec<String> = world.service.all().iter().map(|r| r.subscription()).collect();
        assert_eq!(calls, ["books.2", "books.2", "books.1", "books.1"]);
        let lines = world.router.log_lines();
        let at = |event: &str| lines.iter().position(|line| line["event"] == event);
        let order = ["stop requested", "shutting down", "done"].map(at);
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?}");
    }
}

#[test]
fn while_stopping_nobody_is_served_and_readiness_is_gone() {
    let mut world = World::books(&["on_unsubscribe"]);
    let gate = world.service.hold("/on_unsubscribe");
    let mut client = world.client();
    client.subscribe("books.1");
    world.router.signal("TERM");
    world.service.wait("/on_unsubscribe", 1);
    client.expect_close(1001);
    until_true("the listener to close", || {
        TcpStream::connect(("127.0.0.1", world.router.port)).is_err() || world.router.is_refusing()
    });
    assert_eq!(world.router.get("/readyz").0.status(), 503);
    assert_eq!(world.router.metric("socketshark_service_state"), Some(0.0));
    assert!(world.router.is_running());
    gate.open();
    assert_eq!(world.router.wait_exit(), Some(0));
}

#[test]
fn failing_callbacks_are_tried_again_while_stopping() {
    let mut world = World::books(&["on_unsubscribe"]);
    world.service.script("/on_unsubscribe", vec![Reply::Status(500), Reply::ok()]);
    let mut client = world.client();
    client.subscribe("books.1");
    world.router.signal("TERM");
    client.expect_close(1001);
    assert_eq!(world.router.wait_exit(), Some(0));
    assert_eq!(world.service.all().len(), 2);
}

#[test]
fn the_event_under_way_is_finished_unanswered_and_waiting_ones_are_ignored() {
    let mut world = World::books(&["on_message", "before_subscribe", "before_unsubscribe"]);
    let gate = world.service.hold_then("/on_message", Reply::json(&json!({ "status": "no" })));
    let mut client = world.client();
    client.subscribe("books.1");
    world.service.forget();
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.send(&json!({ "event": "subscribe", "subscription": "books.2" }));
    world.service.wait("/on_message", 1);
    client.expect_still();
    world.router.signal("TERM");
    client.expect_close(1001);
    assert!(world.router.is_running());
    gate.open();
    assert_eq!(world.router.wait_exit(), Some(0));
    assert_eq!(world.service.paths(), ["/on_message", "/before_unsubscribe"]);
}

#[test]
fn a_subscribe_under_way_is_finished_and_undone_before_the_end() {
    let hooks = ["before_subscribe", "on_subscribe", "before_unsubscribe", "on_unsubscribe"];
    let mut world = World::books(&hooks);
    let gate = world.service.hold("/before_subscribe");
    let mut client = world.client();
    client.send(&json!({ "event": "subscribe", "subscription": "books.1" }));
    world.service.wait("/before_subscribe", 1);
    world.router.signal("TERM");
    client.expect_close(1001);
    gate.open();
    assert_eq!(world.router.wait_exit(), Some(0));
    assert_eq!(world.service.paths(), hooks.map(|hook| format!("/{hook}")));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut world = World::books(&["on_unsubscribe"]);
    world.service.answer("/on_unsubscribe", Reply::Hang);
    let mut client = world.client();
    client.subscribe("books.1");
    world.router.signal("TERM");
    world.service.wait("/on_unsubscribe", 1);
    let began = Instant::now();
    world.router.signal("TERM");
    assert_eq!(world.router.wait_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3));
    expect_undone(&world.router);
}

#[test]
fn a_stop_has_a_time() {
    let mut world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["on_unsubscribe"]) },
            "LIMITS": { "shutdown_timeout": 0.3 },
        })
    });
    world.service.answer("/on_unsubscribe", Reply::Hang);
    let mut client = world.client();
    client.subscribe("books.1");
    let began = Instant::now();
    assert_eq!(world.router.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "the callback's own time is 5 s");
    expect_undone(&world.router);
}

/// The log's end says that something was left.
#[track_caller]
fn expect_undone(router: &Router) {
    let lines = router.log_lines();
    let telling =
        |line: &&Value| matches!(line["level"].as_str(), Some("warning" | "error" | "critical"));
    assert!(lines.iter().any(|line| telling(&line)), "{}", router.log_text());
}

#[test]
fn clients_that_do_not_answer_cost_a_limited_time() {
    let redis = Redis::start();
    let mut router = Router::start(&redis, json!({ "LIMITS": { "close_timeout": 0.3 } }));
    let _silent = router.client();
    let _in_handshake = TcpStream::connect(("127.0.0.1", router.port)).unwrap();
    let began = Instant::now();
    assert_eq!(router.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_closed_stderr_and_sigpipe_end_nothing() {
    let redis = Redis::start();
    let mut router = Router::start(&redis, json!({}));
    router.signal("PIPE");
    let mut client = router.client();
    client.expect_quiet();
    assert!(router.is_running());
}

// Descriptors.

#[test]
fn without_descriptors_accepting_rests_and_what_is_there_goes_on() {
    let redis = Redis::start();
    let service = Service::start();
    let mut config = base_config(&redis);
    let books = service.hooks(&["before_subscribe"]);
    merge(&mut config, json!({ "SERVICES": { "books": books }, "LOG": { "level": "INFO" } }));
    let mut router = Router::launch_with_descriptors(64, config);
    assert!(router.wait_ready());
    let mut client = router.client();
    let crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(("127.0.0.1", router.port)).unwrap()).collect();
    router.wait_event("accepting paused");
    // Callbacks and Redis have a reserve, and so has the metrics port.
    client.subscribe("books.1");
    redis.publish("books.1", r#"{"subscription":"books.1","data":1}"#);
    assert_eq!(client.recv_data(), 1);
    let cpu = |router: &Router| router.metric("process_cpu_seconds_total").unwrap();
    let (began, before) = (Instant::now(), cpu(&router));
    for _ in 0..50 {
        client.expect_quiet();
    }
    let spent = cpu(&router) - before;
    assert!(spent < 0.5 * began.elapsed().as_secs_f64() + 0.1, "{spent} s: it spins");
    drop(crowd);
    router.wait_event("accepting again");
    router.client().subscribe("books.2");
    assert!(router.log_lines().len() < 1_000, "a flood of lines");
}

// SIGHUP

/// Sends SIGHUP and waits for a log line of this level that has come since.
#[track_caller]
fn reload(router: &Router, level: &str) -> String {
    let before = router.log_lines().len();
    router.signal("HUP");
    let mut found = String::new();
    until_true("a log line about the configuration", || {
        let lines = router.log_lines();
        let line = lines[before..].iter().find(|line| {
            line["level"] == level && line.to_string().to_lowercase().contains("config")
        });
        found = line.map(Value::to_string).unwrap_or_default();
        line.is_some()
    });
    found
}

#[test]
fn a_good_configuration_takes_effect_for_what_happens_next() {
    let world = World::books(&["on_message"]);
    let mut client = world.client();
    client.subscribe("books.1");
    let new_url = world.service.url("/moved");
    world.router.rewrite_config(|config| {
        config["SERVICES"]["books"]["on_message"] = json!(new_url);
        config["SERVICES"]["films"] = json!({ "require_authentication": false });
        config["WS_ALLOWED_ORIGINS"] = json!(["https://good.example"]);
        config["LIMITS"] = json!({ "max_subscriptions_per_session": 2 });
        config["AUTHENTICATION"] = json!({ "ticket": {
            "validation_url": world.service.url("/ticket"), "auth_fields": [],
        } });
    });
    reload(&world.router, "info");
    // The session goes on.
    client.expect_quiet();
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
    client.subscribe("films.1");
    let third = client.ask(&json!({ "event": "subscribe", "subscription": "films.2" }));
    assert_eq!(third["error"], "Too many subscriptions.");
    client.authenticate("t");
    client.unsubscribe("books.1");
    client.subscribe("books.1");
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.expect_quiet();
    assert_eq!(world.service.requests("/moved").len(), 1);
    assert!(world.service.requests("/on_message").is_empty());
    let bad = client::request("/", "Origin: https://bad.example\r\n");
    let refusal = Client::handshake(world.router.port, &bad).err().flatten();
    assert_eq!(refusal.unwrap().status(), 403);
    Client::connect_with(world.router.port, "Origin: https://good.example\r\n").expect_quiet();
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let world = World::books(&["on_message"]);
    let mut client = world.client();
    client.subscribe("books.1");
    for text in [r#"{"SERVICES":{"books":{"on_mesage":"http://x/"}}}"#, "{", ""] {
        world.router.overwrite_config(text);
        reload(&world.router, "error");
    }
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.expect_quiet();
    assert_eq!(world.service.requests("/on_message").len(), 1);
    world.client().subscribe("books.2");
}

#[test]
fn subscriptions_outlive_their_service() {
    let world = World::books(&["on_message", "on_unsubscribe"]);
    let mut client = world.reader("books.1");
    world.router.rewrite_config(|config| config["SERVICES"] = json!({}));
    reload(&world.router, "info");
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
    client.send(&json!({ "event": "message", "subscription": "books.1" }));
    client.recv_until_quiet();
    client.send(&unsubscribe("books.1"));
    client.recv_until_quiet();
    let second = client.ask(&subscribe("books.2"));
    assert_eq!(second["error"], "Invalid service.");
    client.close(1000);
    world.router.wait_metric("socketshark_connection_count", 0.0);
    world.redis.wait_channels(&[]);
}

#[test]
fn keys_that_cannot_change_are_named() {
    let world = World::books(&[]);
    world.router.rewrite_config(|config| {
        config["WS_PORT"] = json!(1);
        config["REDIS"]["port"] = json!(2);
    });
    world.router.signal("HUP");
    for key in ["WS_PORT", "REDIS"] {
        world.router.wait_log(key, |line| {
            line["event"] != "client event" && line.to_string().contains(key)
        });
    }
    let mut client = world.client();
    client.subscribe("books.1");
    client.send_frame(PING, b"");
    world.publish("books.1", json!(1));
}

#[test]
fn the_log_level_can_change() {
    let world = World::books(&[]);
    world.router.rewrite_config(|config| config["LOG"]["level"] = json!("WARNING"));
    let mut client = world.client();
    client.expect_quiet();
    world.router.wait_event("client event");
    world.router.signal("HUP");
    until_true("a session that is not logged", || {
        let before = world.router.log_lines().len();
        client.expect_quiet();
        // What is logged about it is there before the answer, give or take the pipe.
        std::thread::yield_now();
        world.router.log_lines().len() == before
    });
}
