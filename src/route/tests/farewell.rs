//! The end of a session: what waits is handled or dropped, what is in flight is finished and
//! undone, and every confirmed subscription gets its two last callbacks once.

use super::*;

fn all_hooks() -> Bench {
    bench(&service("s", LIFE, r#""extra_fields": ["id"]"#))
}

const PAIR: [&str; 2] = ["before_unsubscribe", "on_unsubscribe"];

#[test]
fn subscriptions_are_left_one_at_a_time_the_last_one_first() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a", "s.b", "s.c"]);
    bench.depart(client, false);
    // No more messages from here on, for none of them.
    bench.changes(&["leave s.a", "leave s.b", "leave s.c"]);
    for name in ["s.c", "s.b", "s.a"] {
        for (hook, answer) in [("before_unsubscribe", NO), ("on_unsubscribe", NO)] {
            bench.asks(&[&format!(r#"{hook} {{"subscription":"{name}"}}"#)]);
            bench.answer(answer);
        }
    }
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn failures_do_not_stop_a_farewell() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a", "s.b"]);
    bench.depart(client, false);
    for _ in 0..4 {
        bench.fail();
    }
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_session_without_callbacks_is_gone_at_once() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a", "s.b"]);
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0);
}

/// A client with one subscription whose message is in hand, and three events behind it.
fn busy() -> (Bench, Client) {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("message", "s.a"));
    bench.send(client, r#"{"event":"message","subscription":"s.a","data":2}"#);
    bench.send(client, &on("subscribe", "s.b"));
    bench.send(client, &on("unsubscribe", "s.a"));
    (bench, client)
}

#[test]
fn after_a_clients_own_end_what_waits_is_still_handled() {
    let (mut bench, client) = busy();
    bench.depart(client, true);
    bench.answer(OK);
    bench.asks(&[r#"on_message {"subscription":"s.a","data":2}"#]);
    bench.answer(OK);
    bench.asks(&[r#"authorizer {"subscription":"s.b"}"#]);
    bench.answer(OK);
    bench.confirm("s.b");
    bench.asks(&[r#"before_subscribe {"subscription":"s.b"}"#]);
    bench.answer(OK);
    bench.asks(&[r#"on_subscribe {"subscription":"s.b"}"#]);
    bench.answer(OK);
    for name in ["s.a", "s.b"] {
        for hook in PAIR {
            bench.asks(&[&format!(r#"{hook} {{"subscription":"{name}"}}"#)]);
            bench.answer(OK);
        }
    }
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn after_an_end_from_our_side_what_waits_is_dropped() {
    let (mut bench, client) = busy();
    bench.depart(client, false);
    bench.asks(&[r#"on_message {"subscription":"s.a","data":null}"#]);
    bench.answer(r#"{"status":"ok","data":"nobody is told"}"#);
    assert_eq!(bench.hooks(), PAIR);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_subscribe_in_flight_is_finished_and_then_undone() {
    // In which of its steps the client goes: during a call, or (1) while Redis is asked.
    for step in 0..4 {
        let mut bench = all_hooks();
        let client = bench.connect();
        bench.send(client, &on("subscribe", "s.a"));
        let mut calls = Vec::new();
        for at in 0..4 {
            if at == step {
                bench.depart(client, false);
            }
            match at {
                1 => bench.confirm("s.a"),
                _ => calls.push(bench.answer(OK)),
            }
        }
        assert_eq!(calls, [Hook::Authorizer, Hook::BeforeSubscribe, Hook::OnSubscribe]);
        assert_eq!(bench.hooks(), PAIR, "client gone in step {step}");
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn a_subscribe_in_flight_that_fails_needs_no_undoing() {
    for failing in 0..3 {
        let mut bench = all_hooks();
        let client = bench.connect();
        bench.send(client, &on("subscribe", "s.a"));
        bench.depart(client, true);
        for step in 0..=failing {
            match (step, step == failing) {
                (0 | 2, true) => drop(bench.answer(NO)),
                (1, true) => bench.refuse("s.a"),
                (1, false) => bench.confirm("s.a"),
                _ => drop(bench.answer(OK)),
            }
        }
        bench.asks(&[]);
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn a_provisional_subscription_of_a_gone_client_keeps_no_channel() {
    let mut bench = all_hooks();
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.answer(OK);
    bench.confirm("s.a");
    bench.message("s.a", "1", "");
    bench.changes(&["join s.a"]);
    bench.depart(client, true);
    bench.changes(&["leave s.a"]);
    assert_eq!(
        bench.hooks(),
        ["before_subscribe", "on_subscribe", "before_unsubscribe", "on_unsubscribe"]
    );
}

#[test]
fn an_unsubscribe_in_flight_makes_the_one_pair() {
    for at_on in [false, true] {
        let mut bench = all_hooks();
        let client = bench.subscriber(&["s.a"]);
        bench.send(client, &on("unsubscribe", "s.a"));
        let mut hooks = Vec::new();
        if at_on {
            hooks.push(bench.answer(OK).name());
        }
        bench.depart(client, true);
        hooks.extend(bench.hooks());
        assert_eq!(hooks, PAIR);
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn an_unsubscribe_in_flight_that_is_refused_does_not_count() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.depart(client, true);
    bench.answer(NO);
    assert_eq!(bench.hooks(), PAIR);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_message_that_waited_for_its_throttle_goes_with_the_client() {
    let mut bench = bench(&service("s", "before_unsubscribe", ""));
    let client = bench.subscriber(&["s.a"]);
    for data in ["1", "2"] {
        bench.message("s.a", data, r#""options":{"throttle":1}"#);
    }
    bench.depart(client, true);
    bench.pass(2.0);
    assert_eq!(bench.metrics.messages_delivered, 1);
    bench.settle();
}

#[test]
fn a_lost_redis_fails_those_who_wait_for_it_and_all_go() {
    let mut bench = all_hooks();
    let reader = bench.subscriber(&["s.a"]);
    let (joining, queued) = (bench.connect(), bench.connect());
    for client in [joining, queued] {
        bench.send(client, &on("subscribe", "s.b"));
        bench.answer(OK);
    }
    bench.send(queued, &on("subscribe", "s.c"));
    for client in [reader, joining, queued] {
        bench.depart(client, false);
    }
    bench.unconfirmed.clear();
    bench.lend(|router, desk| router.redis_lost(desk));
    bench.asks(&[r#"before_unsubscribe {"subscription":"s.a"}"#]);
    assert_eq!(bench.hooks(), PAIR);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_client_that_went_before_redis_confirmed_keeps_no_channel() {
    let mut bench = all_hooks();
    let (gone, heir) = (bench.connect(), bench.connect());
    bench.send(gone, &on("subscribe", "s.a"));
    bench.answer(OK);
    bench.depart(gone, true);
    bench.changes(&["join s.a"]);
    bench.confirm("s.a");
    bench.changes(&["leave s.a"]);
    bench.asks(&[r#"before_subscribe {"subscription":"s.a"}"#]);
    // While that callback is under way, Redis is lost and comes back.
    bench.lend(|router, desk| router.redis_lost(desk));
    bench.send(heir, &on("subscribe", "s.a"));
    bench.reply(1, Answer::Object(OK.into()));
    bench.changes(&["join s.a"]);
}

#[test]
fn a_lost_redis_answers_clients_that_are_still_there() {
    let mut bench = all_hooks();
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.b"));
    bench.answer(OK);
    bench.unconfirmed.clear();
    bench.lend(|router, desk| router.redis_lost(desk));
    bench.hears(client, &[&refused("subscribe", "s.b", "Service unavailable.")]);
    bench.depart(client, false);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn answers_to_what_is_gone_are_ignored() {
    let mut bench = bench(&service(
        "s",
        "authorizer on_heartbeat",
        r#""heartbeat_period": 1, "authorization_renewal_period": 1"#,
    ));
    let client = bench.subscriber(&["s.a"]);
    bench.pass(1.0);
    assert!(!bench.asks.calls.is_empty());
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0, "neither renewal nor heartbeat is waited for");
    bench.hooks();
    bench.pass(10.0);
    bench.asks(&[]);
}
