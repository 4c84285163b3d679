//! Fields, order and throttle, and which of them comes first.

use super::*;
use std::time::Duration;

#[test]
fn an_extra_field_is_compared_before_an_authentication_field() {
    let mut bench = Bench::new(&format!(
        r#"{{"AUTHENTICATION": {{"ticket": {{"validation_url": "http://s/auth",
            "auth_fields": ["id", "user"]}}}}, "SERVICES": {{{}}}}}"#,
        service(
            "s",
            "authorizer",
            r#""extra_fields": ["id"], "authorizer_fields": ["role"],
               "filter_fields": ["id", "user", "role"]"#
        )
    ));
    let client = bench.connect();
    bench.send(client, r#"{"event":"auth","ticket":"t"}"#);
    bench.answer(r#"{"status":"ok","id":"auth","user":1}"#);
    for (subscribed, passes) in [(r#","id":"own""#, r#""own""#), ("", "null")] {
        let text = format!(r#"{{"event":"subscribe","subscription":"s.a"{subscribed}}}"#);
        bench.send(client, &text);
        bench.answer(r#"{"status":"ok","role":"admin"}"#);
        bench.confirm("s.a");
        bench.hear(client);
        for id in [r#""own""#, r#""auth""#, "null"] {
            bench.message("s.a", id, &format!(r#""id":{id}"#));
        }
        assert_eq!(bench.data(client), [passes]);
        // Authorizer fields are not looked at: absent counts as null.
        bench.message("s.a", "1", r#""role":"admin""#);
        bench.message("s.a", "2", r#""role":null"#);
        bench.message("s.a", "3", r#""role":null,"user":2"#);
        bench.message("s.a", "4", &format!(r#""user":1.0,"id":{passes}"#));
        assert_eq!(bench.data(client), ["2", "4"]);
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.hear(client);
    }
    assert_eq!(bench.metrics.messages_filtered, [8, 0, 0]);
    bench.depart(client, true);
}

#[test]
fn values_are_compared_as_json() {
    let fields = r#""extra_fields": ["x"], "filter_fields": ["x"]"#;
    let cases = [
        ("1", "1.0", true),
        ("1", "1e0", true),
        ("1", "true", false),
        ("0", "false", false),
        ("1", "\"1\"", false),
        ("0", "-0", true),
        ("12", "13", false),
        ("9007199254740993", "9007199254740992", false),
        ("123456789012345678901234567890", "123456789012345678901234567890.0", true),
        ("\"A\"", "\"\\u0041\"", true),
        ("{\"a\":1,\"b\":[2]}", "{\"b\":[2.0],\"a\":1}", true),
        ("[1,2]", "[2,1]", false),
        ("[]", "{}", false),
        ("null", "null", true),
        ("null", "0", false),
    ];
    for (own, named, same) in cases {
        let mut bench = bench(&service("s", "", fields));
        let client = bench.connect();
        bench.send(client, &format!(r#"{{"event":"subscribe","subscription":"s.a","x":{own}}}"#));
        bench.confirm("s.a");
        bench.hear(client);
        bench.message("s.a", "1", &format!(r#""x":{named}"#));
        assert_eq!(!bench.data(client).is_empty(), same, "{own} {named}");
        bench.depart(client, true);
    }
}

#[test]
fn only_what_is_above_the_highest_order_of_its_key_passes() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    let messages = [
        ("1", "null", true),
        ("1", "null", false),
        ("\"1.5\"", "null", true),
        ("true", "null", false),
        ("0", "\"\"", true),
        ("0", "0", true),
        ("-1", "[1]", true),
        ("-1", "[1.0]", false),
        ("\" 1_0 \"", "[1.0]", true),
        ("1e400", "null", true),
        ("\"inf\"", "null", false),
        ("\"ten\"", "null", true),
    ];
    for (order, key, passes) in messages {
        let options = format!(r#""options":{{"order":{order},"order_key":{key}}}"#);
        bench.message("s.a", "1", &options);
        assert_eq!(!bench.data(client).is_empty(), passes, "{options}");
    }
    // An absent key is the null key.
    bench.message("s.a", "1", r#""options":{"order":99}"#);
    assert_eq!(bench.data(client).len(), 0);
    bench.depart(client, true);
}

#[test]
fn each_subscription_has_a_state_of_its_own() {
    let mut bench = bench(&service("s", "", ""));
    let first = bench.subscriber(&["s.a"]);
    bench.message("s.a", "5", r#""options":{"order":5}"#);
    let second = bench.subscriber(&["s.a"]);
    bench.message("s.a", "3", r#""options":{"order":3}"#);
    assert_eq!((bench.data(first), bench.data(second)), (vec!["5".into()], vec!["3".into()]));
    // Subscribing again begins anew.
    bench.send(first, &on("unsubscribe", "s.a"));
    bench.hear(first);
    bench.subscribe(first, "s.a");
    bench.message("s.a", "4", r#""options":{"order":4}"#);
    assert_eq!(bench.data(first), ["4"]);
    for client in [first, second] {
        bench.depart(client, true);
    }
}

#[test]
fn of_a_throttled_burst_the_first_and_the_last_arrive() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    let throttled = |bench: &mut Bench, data: &str, seconds: &str| {
        bench.message("s.a", data, &format!(r#""options":{{"throttle":{seconds}}}"#));
    };
    throttled(&mut bench, "1", "1");
    bench.pass(0.25);
    throttled(&mut bench, "2", "1");
    // Later ones replace the data only, whatever their own period.
    throttled(&mut bench, "3", "0");
    throttled(&mut bench, "4", "100");
    bench.message("s.a", "\"unthrottled\"", "");
    bench.message("s.a", "\"other\"", r#""options":{"throttle":1,"throttle_key":"other"}"#);
    assert_eq!(bench.data(client), ["1", "\"unthrottled\"", "\"other\""]);
    bench.pass(0.749);
    bench.hears(client, &[]);
    bench.pass(0.001);
    assert_eq!(bench.data(client), ["4"]);
    // The one that went out begins the next period.
    throttled(&mut bench, "5", "1");
    bench.pass(0.999);
    bench.hears(client, &[]);
    bench.pass(0.001);
    assert_eq!(bench.data(client), ["5"]);
    bench.pass(1.0);
    throttled(&mut bench, "6", "1");
    assert_eq!(bench.data(client), ["6"]);
    assert_eq!(bench.metrics.messages_filtered, [0, 0, 4]);
    bench.depart(client, true);
}

#[test]
fn unsubscribing_drops_what_waits() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    for data in ["1", "2"] {
        bench.message("s.a", data, r#""options":{"throttle":1}"#);
    }
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.hear(client);
    bench.subscribe(client, "s.a");
    bench.pass(5.0);
    bench.hears(client, &[]);
    bench.depart(client, true);
}

#[test]
fn an_endless_throttle_leaves_no_timer_behind() {
    let mut bench = bench(&service("s", "", ""));
    for _ in 0..10 {
        let client = bench.subscriber(&["s.a"]);
        for data in ["1", "2"] {
            bench.message("s.a", data, r#""options":{"throttle":"inf"}"#);
        }
        assert_eq!(bench.data(client), ["1"]);
        bench.depart(client, true);
    }
    assert!(bench.timers.is_empty(), "nothing would ever take them out");
}

#[test]
fn a_message_stopped_by_one_filter_does_not_reach_the_next() {
    let fields = r#""extra_fields": ["x"], "filter_fields": ["x"]"#;
    let mut bench = bench(&service("s", "", fields));
    let client = bench.subscriber(&["s.a"]);
    // Stopped by its fields: it sets neither order nor throttle.
    bench.message("s.a", "1", r#""x":1,"options":{"order":10,"throttle":10}"#);
    bench.message("s.a", "2", r#""options":{"order":5,"throttle":10}"#);
    assert_eq!(bench.data(client), ["2"]);
    // Held back by throttling: it has set the order.
    bench.message("s.a", "3", r#""options":{"order":7,"throttle":10}"#);
    // Stopped by its order: it does not replace what waits.
    bench.message("s.a", "4", r#""options":{"order":6,"throttle":10}"#);
    bench.pass(10.0);
    assert_eq!(bench.data(client), ["3"]);
    assert_eq!(bench.metrics.messages_filtered, [1, 1, 1]);
    bench.depart(client, true);
}

#[test]
fn every_message_that_is_not_delivered_is_traced_with_its_reason() {
    let mut bench = Bench::new(&format!(
        r#"{{"LOG": {{"trace_level": "DEBUG"}}, "SERVICES": {{{}}}}}"#,
        service("s", "", r#""extra_fields": ["x"], "filter_fields": ["x"]"#)
    ));
    let client = bench.subscriber(&["s.a"]);
    bench.message("s.a", "1", r#""options":{"order":1,"throttle":9}"#);
    bench.logged();
    for more in [r#""x":1"#, r#""options":{"order":1}"#, r#""options":{"throttle":9}"#] {
        bench.message("s.a", "2", more);
    }
    let log = bench.logged();
    let filtered: Vec<&str> =
        log.lines().filter(|line| line.contains("\"message filtered\"")).collect();
    assert_eq!(filtered.len(), 3);
    for (line, reason) in filtered.iter().zip(["fields", "order", "throttle"]) {
        assert!(line.contains(&format!(r#""reason":"{reason}""#)), "{line}");
        assert!(line.contains(&format!(r#""session":"{}""#, client.session)), "{line}");
    }
    bench.depart(client, true);
}

#[test]
fn the_key_unused_for_longest_is_forgotten_and_counted() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"max_keys_per_subscription": 2}}, "SERVICES": {{{}}}}}"#,
        service("s", "", "")
    ));
    let client = bench.subscriber(&["s.a"]);
    let order = |bench: &mut Bench, key: &str, order: u32| {
        let options = format!(r#""options":{{"order":{order},"order_key":"{key}"}}"#);
        bench.message("s.a", "1", &options);
        !bench.data(client).is_empty()
    };
    assert!(order(&mut bench, "a", 5) && order(&mut bench, "b", 5));
    assert!(!order(&mut bench, "a", 5), "that was a use");
    assert!(order(&mut bench, "c", 5));
    assert_eq!(bench.metrics.keys_forgotten, 1);
    assert!(!order(&mut bench, "a", 4));
    assert!(order(&mut bench, "b", 1), "it was forgotten");
    assert_eq!(bench.metrics.keys_forgotten, 2);
    bench.depart(client, true);
}

#[test]
fn many_that_are_due_at_once_go_out_one_at_a_time() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    let keys = 10;
    for round in 0..2 {
        for key in 0..keys {
            let options = format!(r#""options":{{"throttle":1,"throttle_key":{key}}}"#);
            bench.message("s.a", &(round * keys + key).to_string(), &options);
        }
    }
    assert_eq!(bench.data(client).len(), keys);
    bench.set_time(bench.now.mono.after(Duration::from_secs(1)));
    let mut heard = Vec::new();
    while let Some((at, timer)) = bench.timers.take_due(bench.now.mono) {
        bench.lend(|router, desk| router.due(at, timer, desk));
        let data = bench.data(client);
        assert!(data.len() <= 1);
        heard.extend(data);
    }
    assert_eq!(heard, (keys..2 * keys).map(|number| number.to_string()).collect::<Vec<_>>());
    bench.depart(client, true);
}

/// A session has one bound for all that waits for it, wherever it waits.
#[test]
fn what_is_throttled_counts_with_what_waits_in_other_subscriptions_and_in_the_queue() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 1000}}, "SERVICES": {{{}}}}}"#,
        service("s", "", "")
    ));
    let client = bench.subscriber(&["s.a", "s.b", "s.c"]);
    let long = format!("\"{}\"", "x".repeat(400));
    let throttle = r#""options":{"throttle":5}"#;
    for name in ["s.a", "s.b", "s.c"] {
        bench.message(name, "1", throttle);
    }
    assert_eq!(bench.hear(client).len(), 3);
    for name in ["s.a", "s.b"] {
        bench.message(name, &long, throttle);
        bench.hears(client, &[]);
    }
    // There is no room for a third one to wait: it goes out early.
    bench.message("s.c", &long, throttle);
    assert_eq!(bench.data(client), [long.as_str()]);
    // Nor is there for two that the socket does not take.
    bench.message("s.c", "2", "");
    assert_eq!(bench.mail.blocked(client.conn, 0), Ok(()));
    bench.message("s.c", &long, "");
    assert_eq!(bench.asks.too_slow, [client.conn]);
    bench.depart(client, false);
    bench.settle();
}

/// A client that does not read is closed; its throttled messages never go out before their time.
#[test]
fn what_is_throttled_for_a_client_that_does_not_read_makes_it_too_slow() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 1000}}, "SERVICES": {{{}}}}}"#,
        service("s", "", "")
    ));
    let client = bench.subscriber(&["s.a", "s.b"]);
    let long = format!("\"{}\"", "x".repeat(400));
    let throttle = r#""options":{"throttle":5}"#;
    bench.message("s.a", "1", throttle);
    bench.message("s.a", &long, throttle);
    assert_eq!(bench.hear(client).len(), 1);
    bench.message("s.b", &long, throttle);
    assert_eq!(bench.mail.blocked(client.conn, 0), Ok(()));
    assert_eq!(bench.asks.too_slow, []);
    bench.message("s.b", &long, throttle);
    assert_eq!(bench.asks.too_slow, [client.conn]);
    bench.depart(client, false);
    bench.settle();
}
