//! The events of one session: one at a time, in order, with back-pressure; pings; the log.

use super::*;
use crate::limits::ORPHANED_BYTES_MAX;

fn slow() -> Bench {
    Bench::new(&format!(
        r#"{{"LIMITS": {{"max_queued_events_per_session": 2, "max_message_bytes": 200}},
            "SERVICES": {{{}}}}}"#,
        service("s", "on_message on_subscribe on_unsubscribe", "")
    ))
}

fn ping(data: u32) -> String {
    format!("{{\"event\":\"ping\",\"data\":\"{data}\"}}")
}

fn pong(data: u32) -> String {
    format!("{{\"event\":\"pong\",\"data\":\"{data}\"}}")
}

#[test]
fn events_wait_for_the_one_in_hand_and_are_answered_in_order() {
    let mut bench = slow();
    let client = bench.subscriber(&["s.a"]);
    assert!(!bench.send(client, r#"{"event":"message","subscription":"s.a","data":1}"#));
    bench.asks(&[r#"on_message {"subscription":"s.a","data":1}"#]);
    assert!(!bench.send(client, r#"{"event":"message","subscription":"s.a","data":2}"#));
    assert!(bench.send(client, &ping(3)), "as many wait as may");
    bench.asks(&[r#"on_message {"subscription":"s.a","data":1}"#]);
    bench.hears(client, &[]);
    bench.answer(r#"{"status":"ok","data":"one"}"#);
    bench
        .hears(client, &[r#"{"event":"message","status":"ok","data":"one","subscription":"s.a"}"#]);
    bench.asks(&[r#"on_message {"subscription":"s.a","data":2}"#]);
    assert_eq!(std::mem::take(&mut bench.asks.resume), [client.conn]);
    bench.answer(r#"{"status":"error"}"#);
    bench.hears(client, &[&refused("message", "s.a", "Unhandled exception."), &pong(3)]);
    assert_eq!(bench.asks.resume, [], "it was read again already");
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn what_was_read_already_is_kept_although_no_more_should_be() {
    let mut bench = slow();
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("message", "s.a"));
    for number in 0..40 {
        assert_eq!(bench.send(client, &ping(number)), number > 0);
    }
    bench.answer(OK);
    let pongs: Vec<String> = (0..40).map(pong).collect();
    assert_eq!(bench.hear(client), pongs);
    assert_eq!(bench.asks.resume, [client.conn]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn waiting_events_are_bounded_in_bytes_too() {
    let mut bench = slow();
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("message", "s.a"));
    assert!(bench.send(client, &format!("{{\"event\":\"{}\"}}", "x".repeat(200))));
    bench.answer(OK);
    assert_eq!(bench.asks.resume, [client.conn]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn with_no_room_to_wait_a_session_is_not_read_while_it_is_busy() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"max_queued_events_per_session": 0}}, "SERVICES": {{{}}}}}"#,
        service("s", "on_message", "")
    ));
    let client = bench.subscriber(&["s.a"]);
    assert!(!bench.send(client, &ping(1)), "done at once");
    assert!(bench.send(client, &on("message", "s.a")));
    bench.asks.resume.clear();
    bench.answer(OK);
    assert_eq!(bench.asks.resume, [client.conn]);
    bench.depart(client, true);
}

#[test]
fn events_wait_for_on_subscribe_and_on_unsubscribe_and_messages_do_not() {
    let mut bench = slow();
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.confirm("s.a");
    bench.hears(client, &[&ok("subscribe", "s.a")]);
    bench.send(client, &ping(1));
    bench.message("s.a", "7", "");
    assert_eq!(bench.data(client), ["7"]);
    assert_eq!(bench.answer(NO), Hook::OnSubscribe);
    bench.hears(client, &[&pong(1)]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.send(client, &ping(2));
    bench.hears(client, &[&ok("unsubscribe", "s.a")]);
    assert_eq!(bench.fail(), Hook::OnUnsubscribe);
    bench.hears(client, &[&pong(2)]);
    bench.depart(client, true);
}

#[test]
fn sessions_do_not_wait_for_each_other() {
    let mut bench = slow();
    let (busy, idle) = (bench.subscriber(&["s.a"]), bench.subscriber(&["s.a"]));
    bench.send(busy, &on("message", "s.a"));
    bench.send(busy, &ping(1));
    bench.send(idle, &ping(2));
    bench.hears(idle, &[&pong(2)]);
    bench.hears(busy, &[]);
    for client in [busy, idle] {
        bench.depart(client, true);
    }
    bench.settle();
}

#[test]
fn a_pong_carries_strings_only_cut_by_characters() {
    let mut bench = Bench::new("{}");
    let client = bench.connect();
    for data in ["1", "null", "true", "[\"x\"]", "{\"x\":1}"] {
        bench.send(client, &format!("{{\"event\":\"ping\",\"data\":{data}}}"));
        bench.hears(client, &[r#"{"event":"pong","data":null}"#]);
    }
    bench.send(client, r#"{"event":"ping"}"#);
    bench.hears(client, &[r#"{"event":"pong","data":null}"#]);
    let shark = |count| format!("\"{}\"", "🦈".repeat(count));
    bench.send(client, &format!("{{\"event\":\"ping\",\"data\":{}}}", shark(129)));
    bench.hears(client, &[&format!("{{\"event\":\"pong\",\"data\":{}}}", shark(128))]);
    bench.send(client, &format!("{{\"event\":\"ping\",\"data\":{}}}", shark(128)));
    bench.hears(client, &[&format!("{{\"event\":\"pong\",\"data\":{}}}", shark(128))]);
    bench.depart(client, true);
}

#[test]
fn pings_overtake_a_slow_callback_only_where_that_is_configured() {
    let mut bench = Bench::new(&format!(
        r#"{{"WS_PONG_IMMEDIATE": true, "SERVICES": {{{}}}}}"#,
        service("s", "on_message", "")
    ));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("message", "s.a"));
    bench.send(client, r#"{"event":"nothing"}"#);
    bench.send(client, &ping(1));
    bench.hears(client, &[&pong(1)]);
    bench.answer(OK);
    bench.hears(client, &[r#"{"event":"nothing","status":"error","error":"Event not found."}"#]);
    assert_eq!(bench.counted(EventLabel::Ping), [1, 0]);
    bench.depart(client, true);
}

#[test]
fn an_event_that_is_over_keeps_nothing() {
    let mut bench = bench(&service("s", "", r#""extra_fields": ["id"]"#));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, r#"{"event":"message","subscription":"s.a","data":"a large one"}"#);
    let (_, session) = bench.router.sessions.iter().next().expect("one session");
    assert!(session.current.is_none());
    bench.depart(client, true);
}

#[test]
fn events_and_answers_are_logged_at_debug_without_tickets() {
    let mut bench = Bench::new(r#"{"LOG": {"level": "DEBUG"}}"#);
    let client = bench.connect();
    bench.send(client, r#"{"event":"auth","ticket":"s3cret","\u0074icket":{"a":"s3cret"}}"#);
    bench.send(client, "s3cret");
    let log = bench.logged();
    assert!(!log.contains("s3cret"), "{log}");
    assert!(log.contains(r#""event":"client event""#) && log.contains("[redacted]"));
    assert!(log.contains(r#""event":"client send""#));
    assert!(bench.log.is_on(Level::Debug));
    bench.depart(client, true);
}

#[test]
fn a_session_that_is_gone_takes_no_events() {
    let mut bench = Bench::new("{}");
    let client = bench.connect();
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0);
    assert!(!bench.send(client, &ping(1)));
    bench.depart(client, true);
}

#[test]
fn what_waits_of_those_who_have_gone_is_bounded() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"max_message_bytes": 50000000}}, "SERVICES": {{{}}}}}"#,
        service("s", "on_message", "")
    ));
    let long = format!("{{\"event\":\"x\",\"a\":\"{}\"}}", "x".repeat(ORPHANED_BYTES_MAX / 3));
    let clients: Vec<_> = (0..4).map(|_| bench.subscriber(&["s.a"])).collect();
    for &client in &clients {
        bench.send(client, &on("message", "s.a"));
        bench.send(client, &long);
        bench.depart(client, true);
    }
    let log = bench.log.take();
    assert_eq!(log.matches("events dropped").count(), 2, "{log}");
    for _ in clients {
        bench.answer(OK);
    }
    bench.settle();
}
