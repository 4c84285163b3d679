//! A subscribe from its authorizer to `on_subscribe`, its roll-back at every step, and the
//! messages that come meanwhile.

use super::super::session::Phase;
use super::*;
use crate::limits::DELIVERIES_PER_TURN;

fn all_hooks() -> Bench {
    bench(&service("s", LIFE, r#""extra_fields": ["id"]"#))
}

/// A client whose subscribe waits for `before_subscribe`.
fn provisional(bench: &mut Bench, name: &str) -> Client {
    let client = bench.connect();
    bench.send(client, &on("subscribe", name));
    assert_eq!(bench.answer(OK), Hook::Authorizer);
    if let Some(channel) = bench.unconfirmed.first().cloned() {
        bench.confirm(&channel);
    }
    bench.changes.clear();
    assert_eq!(bench.asks.calls.len(), 1);
    client
}

/// Nothing but its session is left of a client; then not even that.
#[track_caller]
fn leaves_nothing(bench: &mut Bench, client: Client) {
    assert!(bench.router.subscriptions.is_empty() && bench.router.topics.is_empty());
    assert!(bench.router.extras.is_empty());
    bench.depart(client, true);
    bench.asks(&[]);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn each_step_of_a_subscribe_waits_for_the_one_before() {
    let mut bench = all_hooks();
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.asks(&[r#"authorizer {"subscription":"s.a"}"#]);
    bench.changes(&[]);
    bench.answer(OK);
    bench.asks(&[]);
    bench.changes(&["join s.a"]);
    bench.confirm("s.a");
    bench.asks(&[r#"before_subscribe {"subscription":"s.a"}"#]);
    bench.hears(client, &[]);
    bench.answer(r#"{"status":"ok","data":{"x":1.50}}"#);
    bench.hears(
        client,
        &[r#"{"event":"subscribe","status":"ok","data":{"x":1.50},"subscription":"s.a"}"#],
    );
    bench.asks(&[r#"on_subscribe {"subscription":"s.a"}"#]);
    bench.answer(r#"{"status":"error","error":"of no matter"}"#);
    bench.hears(client, &[]);
    assert_eq!(bench.metrics.subscriptions, 1);
    bench.depart(client, true);
    bench.settle();
    bench.changes(&["leave s.a"]);
}

#[test]
fn without_callbacks_only_redis_is_waited_for() {
    let mut bench = bench(&service("s", "", ""));
    let (first, second) = (bench.connect(), bench.connect());
    bench.send(first, &on("subscribe", "s.a"));
    bench.send(second, &on("subscribe", "s.a"));
    bench.changes(&["join s.a"]);
    bench.hears(first, &[]);
    bench.confirm("s.a");
    for client in [first, second] {
        bench.hears(client, &[&ok("subscribe", "s.a")]);
    }
    let third = bench.connect();
    bench.send(third, &on("subscribe", "s.a"));
    bench.hears(third, &[&ok("subscribe", "s.a")]);
    bench.changes(&[]);
    for client in [second, first, third] {
        bench.changes(&[]);
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.hears(client, &[&ok("unsubscribe", "s.a")]);
    }
    bench.changes(&["leave s.a"]);
    for client in [first, second, third] {
        bench.depart(client, true);
    }
}

#[test]
fn subscriptions_are_limited_in_bytes_too() {
    let services = service("s", "", r#""extra_fields": ["x"]"#);
    let limits = r#""max_subscriptions_per_session": 3, "max_message_bytes": 5000"#;
    let mut bench =
        Bench::new(&format!(r#"{{"LIMITS": {{{limits}}}, "SERVICES": {{{services}}}}}"#));
    let client = bench.connect();
    let ask = |bench: &mut Bench, event: &str, name: &str, extra: usize| {
        let extra = "x".repeat(extra);
        let text = format!(r#"{{"event":"{event}","subscription":"s.{name}","x":"{extra}"}}"#);
        bench.send(client, &text);
        if bench.channels.contains(&format!("s.{name}")) && event == "subscribe" {
            bench.confirm(&format!("s.{name}"));
        }
        bench.hear(client).concat().contains(r#""status":"ok""#)
    };
    assert!(ask(&mut bench, "subscribe", "a", 4_000));
    assert!(!ask(&mut bench, "subscribe", "b", 1_000), "together they are too long");
    assert!(ask(&mut bench, "subscribe", "c", 900));
    assert!(ask(&mut bench, "unsubscribe", "a", 0));
    assert!(ask(&mut bench, "subscribe", "b", 1_000));
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn an_authorizers_no_leaves_nothing_behind() {
    let cases = [
        (r#"{"status":"error","error":"Not you."}"#, r#""error":"Not you.""#),
        (r#"{"status":"error"}"#, r#""error":"Unauthorized.""#),
        (r#"{}"#, r#""error":"Unauthorized.""#),
        (r#"{"status":"OK","error":null}"#, r#""error":null"#),
        (r#"{"status":"error","error":"","data":[0]}"#, r#""error":"","data":[0]"#),
        (r#"{"status":"error","error":{"a":1},"data":0}"#, r#""error":{"a":1}"#),
    ];
    for (answer, error) in cases {
        let mut bench = all_hooks();
        let client = bench.connect();
        bench.send(client, &on("subscribe", "s.a"));
        bench.answer(answer);
        let expected =
            format!(r#"{{"event":"subscribe","status":"error",{error},"subscription":"s.a"}}"#);
        bench.hears(client, &[&expected]);
        bench.changes(&[]);
        leaves_nothing(&mut bench, client);
    }
}

#[test]
fn a_failure_at_any_step_is_rolled_back_and_the_next_subscribe_starts_afresh() {
    type Failure = fn(&mut Bench);
    let failures: [(Failure, &str); 4] = [
        (
            |bench| {
                bench.fail();
            },
            "Service unavailable.",
        ),
        (
            |bench| {
                bench.answer(OK);
                bench.refuse("s.a");
            },
            "Service unavailable.",
        ),
        (
            |bench| {
                bench.answer(OK);
                bench.confirm("s.a");
                bench.message("s.a", "\"of the failed one\"", "");
                bench.answer(NO);
            },
            "Unhandled exception.",
        ),
        (
            |bench| {
                bench.answer(OK);
                bench.confirm("s.a");
                bench.fail();
            },
            "Service unavailable.",
        ),
    ];
    for (fail, error) in failures {
        let mut bench = all_hooks();
        let client = bench.connect();
        let text = r#"{"event":"subscribe","subscription":"s.a","id":5}"#;
        bench.send(client, text);
        fail(&mut bench);
        let expected = refused_with("subscribe", "s.a", error, r#","id":5"#);
        bench.hears(client, &[&expected]);
        bench.asks(&[]);
        bench.subscribe(client, "s.a");
        bench.message("s.a", "1", "");
        assert_eq!(bench.data(client), ["1"]);
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.settle();
        bench.hear(client);
        leaves_nothing(&mut bench, client);
    }
}

#[test]
fn a_refused_before_subscribe_leaves_the_channel_of_others_alone() {
    let mut bench = all_hooks();
    let reader = bench.subscriber(&["s.a"]);
    let refused = provisional(&mut bench, "s.a");
    bench.answer(r#"{"status":"error","data":{"why":"full"}}"#);
    bench.hears(
        refused,
        &[&refused_with("subscribe", "s.a", "Unhandled exception.", r#","data":{"why":"full"}"#)],
    );
    bench.changes(&[]);
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(reader), ["1"]);
    bench.hears(refused, &[]);
    for client in [refused, reader] {
        bench.depart(client, true);
    }
    bench.settle();
}

#[test]
fn data_of_before_subscribe_is_passed_on_unless_null() {
    for (data, shown) in [("null", ""), ("0", r#""data":0,"#), ("\"\"", r#""data":"","#)] {
        let mut bench = all_hooks();
        let client = provisional(&mut bench, "s.a");
        bench.answer(&format!(r#"{{"status":"ok","data":{data}}}"#));
        let expected =
            format!(r#"{{"event":"subscribe","status":"ok",{shown}"subscription":"s.a"}}"#);
        bench.hears(client, &[&expected]);
        bench.depart(client, true);
        bench.settle();
    }
}

#[test]
fn a_confirmation_serves_all_who_wait_even_if_the_first_leaves_at_once() {
    let mut bench = bench(&service("s", "", ""));
    let clients: Vec<Client> = (0..4).map(|_| bench.connect()).collect();
    for &client in &clients {
        bench.send(client, &on("subscribe", "s.a"));
    }
    // The first and the third have asked for more than their subscribe meanwhile.
    for index in [0, 2] {
        bench.send(clients[index], &on("unsubscribe", "s.a"));
    }
    bench.confirm("s.a");
    bench.message("s.a", "1", "");
    for index in [1, 3] {
        assert_eq!(bench.hear(clients[index]).len(), 2, "ok and the message");
    }
    for &client in &clients {
        bench.depart(client, true);
    }
    bench.changes(&["join s.a", "leave s.a"]);
}

#[test]
fn a_refusal_of_redis_hits_only_those_who_waited_for_it() {
    let mut bench = bench(&service("s", "", ""));
    let reader = bench.subscriber(&["s.b"]);
    let (first, second) = (bench.connect(), bench.connect());
    for client in [first, second] {
        bench.send(client, &on("subscribe", "s.a"));
        bench.send(client, &on("subscribe", "s.a"));
    }
    bench.refuse("s.a");
    for client in [first, second] {
        bench.hears(client, &[&refused("subscribe", "s.a", "Service unavailable.")]);
    }
    bench.changes(&["join s.a", "join s.a"]);
    bench.confirm("s.a");
    for client in [first, second] {
        bench.hears(client, &[&ok("subscribe", "s.a")]);
    }
    bench.message("s.b", "1", "");
    assert_eq!(bench.data(reader), ["1"]);
    for client in [first, second, reader] {
        bench.depart(client, true);
    }
}

#[test]
fn a_channel_left_and_joined_again_waits_for_a_new_confirmation() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.send(client, &on("subscribe", "s.a"));
    bench.changes(&["leave s.a", "join s.a"]);
    bench.hears(client, &[&ok("unsubscribe", "s.a")]);
    // Redis delivers what it had sent before it saw the UNSUBSCRIBE.
    bench.message("s.a", "\"late\"", "");
    bench.confirm("s.a");
    bench.message("s.a", "1", "");
    let heard = bench.hear(client);
    assert_eq!(heard[0], ok("subscribe", "s.a"));
    assert_eq!(heard[1..], [r#"{"event":"message","subscription":"s.a","data":1}"#]);
    bench.depart(client, true);
}

// ----------------------------------------------------------- provisional messages

#[test]
fn messages_held_meanwhile_follow_the_ok_in_order_and_filtered() {
    let mut bench = bench(&service(
        "s",
        "before_subscribe on_subscribe",
        r#""extra_fields": ["id"], "filter_fields": ["id"]"#,
    ));
    let client = bench.connect();
    bench.send(client, r#"{"event":"subscribe","subscription":"s.a","id":1}"#);
    // Not held: Redis has not confirmed yet.
    bench.message("s.a", "\"early\"", "");
    bench.confirm("s.a");
    bench.message("s.a", "1", "");
    bench.message("s.a", "2", r#""id":2"#);
    bench.message("s.a", "3", r#""id":1,"options":{"order":5}"#);
    bench.message("s.a", "4", r#""options":{"order":4}"#);
    bench.publish("s.a", "no JSON");
    bench.hears(client, &[]);
    bench.answer(OK);
    let heard = bench.hear(client);
    assert_eq!(heard[0], r#"{"event":"subscribe","status":"ok","id":1,"subscription":"s.a"}"#);
    let message =
        |data: u32| format!(r#"{{"event":"message","subscription":"s.a","data":{data},"id":1}}"#);
    assert_eq!(heard[1..], [message(1), message(3)]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn a_channel_in_use_is_not_heard_before_the_own_join() {
    let mut bench = all_hooks();
    let reader = bench.subscriber(&["s.a"]);
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.message("s.a", "\"during the authorizer's call\"", "");
    bench.answer(OK);
    bench.message("s.a", "1", "");
    bench.answer(OK);
    assert_eq!(bench.hear(client).len(), 2, "the ok and one message");
    assert_eq!(bench.data(reader).len(), 2);
    for client in [client, reader] {
        bench.depart(client, true);
    }
    bench.settle();
}

#[test]
fn the_order_of_before_subscribe_holds_for_messages_held_and_later_ones() {
    let mut bench = bench(&service("s", "before_subscribe", ""));
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.confirm("s.a");
    for order in [3, 7, 6] {
        bench.message("s.a", &order.to_string(), &format!(r#""options":{{"order":{order}}}"#));
    }
    bench.answer(r#"{"status":"ok","options":{"order":"5"}}"#);
    assert_eq!(bench.hear(client)[0], ok("subscribe", "s.a"), "the ok is always sent");
    bench.message("s.a", "7.5", r#""options":{"order":7}"#);
    bench.message("s.a", "8", r#""options":{"order":7.5}"#);
    assert_eq!(bench.data(client), ["8"]);
    bench.depart(client, true);
}

#[test]
fn the_throttle_of_before_subscribe_starts_the_period() {
    let mut bench = bench(&service("s", "before_subscribe", ""));
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.confirm("s.a");
    bench.answer(r#"{"status":"ok","options":{"throttle":2}}"#);
    bench.hears(client, &[&ok("subscribe", "s.a")]);
    bench.message("s.a", "1", r#""options":{"throttle":2}"#);
    bench.pass(1.999);
    bench.hears(client, &[]);
    bench.pass(0.001);
    assert_eq!(bench.data(client), ["1"]);
    bench.depart(client, true);
}

/// A client that has as many bytes held as may be, less one message.
fn nearly_full() -> (Bench, Client) {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 1000}}, "SERVICES": {{{}}}}}"#,
        service("s", LIFE, "")
    ));
    let client = provisional(&mut bench, "s.a");
    // With its envelope and header this is 500 bytes on the wire.
    let text = format!(r#"{{"subscription":"s.a","data":"{}"}}"#, "x".repeat(445));
    for _ in 0..2 {
        bench.publish("s.a", &text);
    }
    assert_eq!(bench.asks.too_slow, []);
    (bench, client)
}

#[test]
fn held_messages_count_towards_the_send_queue() {
    let (mut bench, client) = nearly_full();
    bench.message("s.a", "1", "");
    assert_eq!(bench.asks.too_slow, [client.conn]);
    bench.depart(client, false);
    bench.settle();
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn up_to_the_limit_held_messages_are_delivered() {
    let (mut bench, client) = nearly_full();
    bench.answer(OK);
    assert_eq!(bench.hear(client).len(), 3);
    assert_eq!(bench.asks.too_slow, []);
    bench.depart(client, false);
    bench.settle();
}

#[test]
fn one_message_over_the_limit_may_be_held_alone() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 10}}, "SERVICES": {{{}}}}}"#,
        service("s", LIFE, "")
    ));
    let client = provisional(&mut bench, "s.a");
    bench.message("s.a", "\"larger than the limit\"", "");
    assert_eq!(bench.asks.too_slow, []);
    bench.answer(OK);
    assert_eq!(bench.hear(client).len(), 2);
    bench.depart(client, false);
    bench.settle();
}

#[test]
fn what_a_fast_client_has_not_been_written_yet_does_not_count_against_what_is_held() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 200}}, "SERVICES": {{{}, {}}}}}"#,
        service("s", LIFE, ""),
        service("t", "", "")
    ));
    let client = bench.subscriber(&["t.a"]);
    bench.send(client, &on("subscribe", "s.a"));
    bench.answer(OK);
    bench.confirm("s.a");
    // A burst of one turn: the socket has not had its chance.
    for _ in 0..10 {
        bench.message("t.a", "1", "");
    }
    bench.message("s.a", "2", "");
    assert_eq!(bench.asks.too_slow, []);
    // Now it takes no more.
    let _ = bench.mail.blocked(client.conn, 0);
    bench.message("s.a", "3", "");
    assert_eq!(bench.asks.too_slow, [client.conn]);
    bench.depart(client, false);
    bench.settle();
}

#[test]
fn nothing_is_held_for_a_client_that_has_gone() {
    let mut bench = all_hooks();
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.answer(OK);
    bench.depart(client, true);
    bench.confirm("s.a");
    for _ in 0..3 {
        bench.message("s.a", &format!("\"{}\"", "x".repeat(600_000)), "");
    }
    assert_eq!(bench.asks.too_slow, []);
    for (_, subscription) in bench.router.subscriptions.iter() {
        let Phase::Provisional(held) = &subscription.phase else { panic!("it is provisional") };
        assert_eq!(held.bytes(), 0);
    }
    let order = ["before_subscribe", "on_subscribe", "before_unsubscribe", "on_unsubscribe"];
    assert_eq!(bench.hooks(), order);
    assert_eq!(bench.router.sessions(), 0);
}

/// A client whose `before_subscribe` takes while more is published than one turn may send.
fn with_much_held(options: &str) -> (Bench, Client, usize) {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 10000000}}, "SERVICES": {{{}}}}}"#,
        service("s", LIFE, "")
    ));
    let client = provisional(&mut bench, "s.a");
    let count = DELIVERIES_PER_TURN + 2;
    for number in 0..count {
        bench.message("s.a", &number.to_string(), options);
    }
    (bench, client, count)
}

#[test]
fn much_that_was_held_goes_out_over_several_turns_and_in_order() {
    for options in ["", r#""options":{"throttle":0}"#] {
        let (mut bench, client, mut count) = with_much_held(options);
        bench.answer(OK);
        let first = bench.hear(client).len();
        assert!(first <= DELIVERIES_PER_TURN + 1, "the ok and no more than a turn may take");
        assert!(bench.router.has_work());
        bench.asks(&[]);
        bench.message("s.a", &count.to_string(), options);
        count += 1;
        let mut heard = first - 1;
        while bench.router.has_work() {
            bench.turn();
            for data in bench.data(client) {
                assert_eq!(data, heard.to_string());
                heard += 1;
            }
        }
        assert_eq!(heard, count);
        assert_eq!(bench.hooks(), ["on_subscribe"]);
        bench.message("s.a", "\"direct\"", options);
        assert_eq!(bench.data(client), ["\"direct\""]);
        bench.depart(client, true);
        bench.settle();
    }
}

#[test]
fn a_client_that_goes_while_it_is_sent_what_was_held_is_released_like_any_other() {
    let (mut bench, client, _) = with_much_held("");
    bench.answer(OK);
    bench.depart(client, true);
    bench.turn();
    assert!(!bench.router.has_work());
    let order = ["on_subscribe", "before_unsubscribe", "on_unsubscribe"];
    assert_eq!(bench.hooks(), order);
    assert_eq!(bench.router.sessions(), 0);
}
