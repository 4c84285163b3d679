//! Periodic authorization and heartbeats.

use super::*;

fn renewed(more: &str) -> Bench {
    bench(&service(
        "s",
        "authorizer before_unsubscribe on_unsubscribe on_authorization_change",
        &format!(r#""authorizer_fields": ["role"], "authorization_renewal_period": 10{more}"#),
    ))
}

const ASKED: &str = r#"authorizer {"subscription":"s.a"}"#;

#[test]
fn the_authorizer_is_called_every_period_after_its_answer() {
    let mut bench = renewed("");
    let client = bench.subscriber(&["s.a"]);
    for _ in 0..3 {
        bench.pass(9.999);
        bench.asks(&[]);
        bench.pass(0.001);
        bench.asks(&[ASKED]);
        // A slow answer moves the next call.
        bench.pass(25.0);
        bench.asks(&[ASKED]);
        bench.answer(OK);
        bench.asks(&[]);
    }
    bench.hears(client, &[]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn jitter_shortens_the_period() {
    let mut bench = renewed(r#", "authorization_renewal_jitter": 4"#);
    let client = bench.subscriber(&["s.a"]);
    let mut delays = Vec::new();
    for _ in 0..40 {
        let before = bench.now.mono;
        while bench.asks.calls.is_empty() {
            bench.pass(0.01);
        }
        delays.push(bench.now.mono.since(before).as_secs_f64());
        bench.answer(OK);
    }
    assert!(delays.iter().all(|&delay| (5.99..=10.02).contains(&delay)), "{delays:?}");
    assert!(delays.iter().any(|&delay| delay < 7.0) && delays.iter().any(|&delay| delay > 9.0));
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn changed_fields_are_stored_first_and_then_told() {
    let mut bench = renewed("");
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.answer(r#"{"status":"ok","role":1,"other":1}"#);
    bench.confirm("s.a");
    bench.hear(client);
    bench.asks(&[]);
    let cases = [
        (r#"{"status":"ok","role":1.0}"#, "1", None),
        (r#"{"status":"ok","role":true}"#, "1.0", Some(r#","role":true"#)),
        (r#"{"status":"ok"}"#, "true", Some("")),
        (r#"{"status":"ok","role":null}"#, "", Some(r#","role":null"#)),
    ];
    for (answer, before, change) in cases {
        bench.pass(10.0);
        let before = if before.is_empty() { String::new() } else { format!(",\"role\":{before}") };
        bench.asks(&[&format!(r#"authorizer {{"subscription":"s.a"{before}}}"#)]);
        bench.answer(answer);
        if let Some(role) = change {
            bench.asks(&[&format!(r#"on_authorization_change {{"subscription":"s.a"{role}}}"#)]);
            // Meanwhile nothing else is asked; the period begins with the answer.
            bench.pass(30.0);
            assert_eq!(bench.answer(OK), Hook::OnAuthorizationChange);
        }
        bench.asks(&[]);
    }
    bench.hears(client, &[]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn without_a_callback_for_it_a_change_is_only_stored() {
    let mut bench = bench(&service(
        "s",
        "authorizer",
        r#""authorizer_fields": ["role"], "authorization_renewal_period": 10"#,
    ));
    let client = bench.subscriber(&["s.a"]);
    bench.pass(10.0);
    bench.answer(r#"{"status":"ok","role":2}"#);
    bench.asks(&[]);
    bench.pass(10.0);
    bench.asks(&[r#"authorizer {"subscription":"s.a","role":2}"#]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn within_the_grace_an_authorizer_without_answer_is_asked_again() {
    let mut bench = renewed(r#", "authorization_grace": 25"#);
    let client = bench.subscriber(&["s.a"]);
    bench.pass(10.0);
    bench.fail();
    // Failing since the first failure: again after 10, after 20, and when the grace is over.
    for delay in [10.0, 10.0] {
        bench.pass(delay - 0.001);
        bench.asks(&[]);
        bench.pass(0.001);
        bench.asks(&[ASKED]);
        bench.fail();
        bench.hears(client, &[]);
    }
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(client), ["1"]);
    bench.pass(5.0);
    bench.asks(&[ASKED]);
    bench.fail();
    bench.asks(&[r#"before_unsubscribe {"subscription":"s.a"}"#]);
    bench.settle();
    bench.hears(
        client,
        &[r#"{"event":"unsubscribe","subscription":"s.a","error":"Service unavailable."}"#],
    );
    bench.depart(client, true);
    bench.asks(&[]);
}

#[test]
fn an_answer_ends_the_grace_and_a_later_failure_has_a_new_one() {
    let mut bench = renewed(r#", "authorization_grace": 15"#);
    let client = bench.subscriber(&["s.a"]);
    for _ in 0..3 {
        bench.pass(10.0);
        bench.fail();
        bench.pass(10.0);
        bench.answer(OK);
    }
    // A no needs no grace.
    bench.pass(10.0);
    bench.answer(NO);
    bench.settle();
    bench.hears(
        client,
        &[r#"{"event":"unsubscribe","subscription":"s.a","error":"Unauthorized."}"#],
    );
    bench.depart(client, true);
}

#[test]
fn a_refused_change_ends_the_subscription_without_grace() {
    for (fails, error) in [(false, "Unhandled exception."), (true, "Service unavailable.")] {
        let mut bench = renewed(r#", "authorization_grace": 1000"#);
        let client = bench.subscriber(&["s.a"]);
        bench.pass(10.0);
        bench.answer(r#"{"status":"ok","role":2}"#);
        let hook = if fails { bench.fail() } else { bench.answer(NO) };
        assert_eq!(hook, Hook::OnAuthorizationChange);
        // The fields had been stored.
        bench.asks(&[r#"before_unsubscribe {"subscription":"s.a","role":2}"#]);
        bench.settle();
        let expected =
            format!(r#"{{"event":"unsubscribe","subscription":"s.a","error":"{error}"}}"#);
        bench.hears(client, &[&expected]);
        bench.depart(client, true);
    }
}

#[test]
fn renewals_do_not_wait_for_events_nor_events_for_them() {
    let mut bench =
        bench(&service("s", "authorizer on_message", r#""authorization_renewal_period": 10"#));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("message", "s.a"));
    bench.pass(10.0);
    bench.asks(&[r#"on_message {"subscription":"s.a","data":null}"#, ASKED]);
    bench.answer(OK);
    bench.send(client, r#"{"event":"ping"}"#);
    bench.hears(client, &[r#"{"event":"pong","data":null}"#]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn a_renewal_answered_after_its_subscription_has_gone_changes_nothing() {
    let mut bench = renewed("");
    let client = bench.subscriber(&["s.a"]);
    bench.pass(10.0);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.asks(&[ASKED, r#"before_unsubscribe {"subscription":"s.a"}"#]);
    bench.reply(1, Answer::Object(OK.into()));
    bench.reply(1, Answer::Object(OK.into()));
    bench.subscribe(client, "s.a");
    bench.hears(client, &[]);
    bench.depart(client, true);
    bench.settle();
}

// -------------------------------------------------------------------- heartbeats

#[test]
fn heartbeats_come_every_period_from_a_random_moment_on() {
    let mut bench = bench(&service("s", "on_heartbeat", r#""heartbeat_period": 10"#));
    let client = bench.subscriber(&["s.a"]);
    let start = bench.now.mono;
    let mut moments = Vec::new();
    while moments.len() < 4 {
        bench.pass(0.01);
        if !bench.asks.calls.is_empty() {
            bench.asks(&[r#"on_heartbeat {"subscription":"s.a"}"#]);
            bench.answer(OK);
            moments.push(bench.now.mono.since(start).as_secs_f64());
        }
    }
    assert!(moments[0] < 10.02, "{moments:?}");
    assert!(moments.windows(2).all(|two| (9.97..10.03).contains(&(two[1] - two[0]))));
    bench.depart(client, true);
}

#[test]
fn a_heartbeat_that_fails_is_logged_only_and_a_slow_one_is_not_doubled() {
    let mut bench = bench(&service("s", "on_heartbeat", r#""heartbeat_period": 10"#));
    let client = bench.subscriber(&["s.a"]);
    bench.pass(50.0);
    assert_eq!(bench.asks.calls.len(), 1);
    bench.fail();
    assert!(bench.logged().contains("error sending heartbeat to service"));
    bench.pass(10.0);
    assert_eq!(bench.asks.calls.len(), 1);
    bench.answer(r#"{"status":"error","error":"x"}"#);
    bench.pass(10.0);
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(client), ["1"]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn there_are_no_heartbeats_before_confirmation_nor_without_a_callback() {
    let mut bench = bench(&format!(
        "{}, {}",
        service("s", "before_subscribe on_heartbeat", r#""heartbeat_period": 1"#),
        service("t", "", r#""heartbeat_period": 1"#)
    ));
    let client = bench.subscriber(&["t.a"]);
    bench.send(client, &on("subscribe", "s.a"));
    bench.confirm("s.a");
    bench.pass(10.0);
    assert_eq!(bench.asks.calls.len(), 1);
    assert_eq!(bench.answer(OK), Hook::BeforeSubscribe);
    bench.pass(1.0);
    assert_eq!(bench.answer(OK), Hook::OnHeartbeat);
    bench.depart(client, true);
}
