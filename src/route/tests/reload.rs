//! A new configuration while sessions go on.

use super::*;

fn file(services: &str) -> String {
    format!("{{\"SERVICES\": {{{services}}}}}")
}

#[test]
fn new_callbacks_and_fields_count_for_what_happens_next() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    bench.reload(&file(&service("s", "on_message on_unsubscribe", r#""extra_fields": ["id"]"#)));
    bench.send(client, &on("message", "s.a"));
    bench.asks(&[r#"on_message {"subscription":"s.a","data":null}"#]);
    bench.answer(OK);
    bench.send(client, r#"{"event":"subscribe","subscription":"s.b","id":1}"#);
    bench.confirm("s.b");
    assert!(bench.hear(client)[0].contains("\"id\":1"));
    bench.depart(client, true);
    assert_eq!(bench.hooks(), ["on_unsubscribe", "on_unsubscribe"]);
}

#[test]
fn a_service_that_is_gone_can_still_be_left() {
    let mut bench = bench(&service("s", "on_message before_unsubscribe", ""));
    let client = bench.subscriber(&["s.a"]);
    bench.reload("{}");
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(client), ["1"]);
    bench.send(client, &on("message", "s.a"));
    assert_eq!(bench.answer(r#"{"status":"ok","data":1}"#), Hook::OnMessage);
    assert_eq!(bench.hear(client).len(), 1);
    bench.send(client, &on("subscribe", "s.b"));
    bench.hears(client, &[&refused("subscribe", "s.b", "Invalid service.")]);
    bench.send(client, &on("unsubscribe", "s.a"));
    assert_eq!(bench.answer(OK), Hook::BeforeUnsubscribe);
    bench.hears(client, &[&ok("unsubscribe", "s.a")]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.hears(client, &[&refused("unsubscribe", "s.a", "Invalid service.")]);
    bench.depart(client, true);
}

#[test]
fn renewals_and_heartbeats_begin_and_end_with_their_periods() {
    let hooks = "authorizer on_heartbeat";
    let periods = r#""authorization_renewal_period": 10, "heartbeat_period": 10"#;
    let mut bench = bench(&service("s", hooks, ""));
    let client = bench.subscriber(&["s.a"]);
    bench.pass(100.0);
    bench.asks(&[]);
    bench.reload(&file(&service("s", hooks, periods)));
    bench.pass(10.0);
    assert_eq!(bench.asks.calls.len(), 2);
    bench.settle();
    bench.reload(&file(&service("s", hooks, "")));
    bench.pass(100.0);
    bench.asks(&[]);
    // And again: neither is planned twice.
    for _ in 0..3 {
        bench.reload(&file(&service("s", hooks, periods)));
    }
    for _ in 0..5 {
        bench.pass(10.0);
        assert_eq!(bench.asks.calls.len(), 2);
        bench.settle();
    }
    bench.depart(client, true);
}

#[test]
fn without_an_authorizer_nothing_is_renewed() {
    let renewal = r#""authorization_renewal_period": 10"#;
    let mut bench = bench(&service("s", "authorizer", renewal));
    let client = bench.subscriber(&["s.a"]);
    bench.reload(&file(&service("s", "", renewal)));
    bench.pass(100.0);
    bench.asks(&[]);
    assert_eq!(bench.timers.next_deadline(), None);
    bench.reload(&file(&service("s", "authorizer", renewal)));
    bench.pass(10.0);
    assert_eq!(bench.asks.calls.len(), 1);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn a_ticket_in_flight_survives_the_end_of_its_method() {
    let mut bench = Bench::new(
        r#"{"AUTHENTICATION": {"ticket": {"validation_url": "http://s/", "auth_fields": []}}}"#,
    );
    let client = bench.connect();
    bench.send(client, r#"{"event":"auth","ticket":"t"}"#);
    bench.reload("{}");
    bench.answer(OK);
    assert!(bench.hear(client)[0].contains("Authentication failed."));
    bench.depart(client, true);
}
