//! Every refusal to the letter, and which check comes first.

use super::*;

/// The answer of a fresh session to one event.
fn answer(bench: &mut Bench, text: &str) -> String {
    let client = bench.connect();
    bench.send(client, text);
    let heard = bench.hear(client);
    assert_eq!(heard.len(), 1, "{text}");
    bench.depart(client, true);
    heard[0].clone()
}

fn with_tickets() -> Bench {
    Bench::new(&format!(
        r#"{{"AUTHENTICATION": {{"ticket":
                {{"validation_url": "http://s/", "auth_fields": ["user"]}}}},
            "SERVICES": {{"locked": {{}}, {}}}}}"#,
        service("open", "", r#""extra_fields": ["id"]"#)
    ))
}

#[test]
fn what_is_no_event_is_refused_without_an_echo() {
    let mut bench = with_tickets();
    let long = format!("{{\"event\":\"{}\"}}", "é".repeat(41));
    let nested = format!("{{\"event\":\"ping\",\"x\":{}{}}}", "[".repeat(512), "]".repeat(512));
    let texts = [
        "",
        "x",
        "[]",
        "\"ping\"",
        "null",
        "{}",
        "{\"Event\":\"ping\"}",
        "{\"event\":null}",
        "{\"event\":1}",
        "{\"event\":[\"ping\"]}",
        "{\"event\":\"ping\"} x",
        "{\"event\":\"ping\",\"x\":NaN}",
        &long,
        &nested,
    ];
    for text in texts {
        let expected =
            r#"{"status":"error","error":"Messages must be JSON and contain an event field."}"#;
        assert_eq!(answer(&mut bench, text), expected, "{text}");
    }
    // Text that is not JSON is not counted as an event; JSON that is no event is.
    assert_eq!(bench.counted(EventLabel::Invalid), [0, 9]);
}

#[test]
fn an_unknown_event_is_echoed_as_it_was_sent() {
    let mut bench = with_tickets();
    for name in ["\"nothing\"", "\"\"", "\"Ping\"", "\"\\ud800\"", "\"a\\u0041\""] {
        let expected =
            format!("{{\"event\":{name},\"status\":\"error\",\"error\":\"Event not found.\"}}");
        assert_eq!(answer(&mut bench, &format!("{{\"event\":{name}}}")), expected);
    }
    let longest = format!("\"{}\"", "🦈".repeat(40));
    assert!(answer(&mut bench, &format!("{{\"event\":{longest}}}")).contains("Event not found."));
    assert_eq!(bench.counted(EventLabel::Unknown), [0, 6]);
}

#[test]
fn the_method_is_checked_before_the_ticket() {
    let error = |text: &str| format!(r#"{{"event":"auth","status":"error","error":"{text}"}}"#);
    let mut bench = with_tickets();
    for method in ["null", "\"\"", "\"Ticket\"", "1", "[\"ticket\"]", "{}"] {
        let text = format!("{{\"event\":\"auth\",\"method\":{method}}}");
        assert_eq!(answer(&mut bench, &text), error("Authentication method unsupported."));
    }
    for ticket in ["null", "false", "0", "0.0", "-0e1", "\"\"", "[]", "{ }"] {
        let text = format!("{{\"event\":\"auth\",\"method\":\"ticket\",\"ticket\":{ticket}}}");
        assert_eq!(answer(&mut bench, &text), error("Must specify ticket."));
    }
    assert_eq!(answer(&mut bench, r#"{"event":"auth"}"#), error("Must specify ticket."));
    let ticket = r#"{"event":"auth","ticket":"t"}"#;
    assert_eq!(answer(&mut Bench::new("{}"), ticket), error("Authentication method unsupported."));
    assert_eq!(bench.counted(EventLabel::Auth), [0, 15]);
}

#[test]
fn a_subscription_is_checked_for_its_format_first() {
    let mut bench = with_tickets();
    for event in ["subscribe", "message", "unsubscribe"] {
        let error = format!(
            r#"{{"event":"{event}","status":"error","error":"Invalid subscription format.""#
        );
        for falsy in ["null", "false", "0", "\"\"", "[]", "{}"] {
            let text = format!("{{\"event\":\"{event}\",\"subscription\":{falsy}}}");
            assert_eq!(answer(&mut bench, &text), format!("{error}}}"), "nothing to echo");
        }
        let missing = format!("{{\"event\":\"{event}\"}}");
        assert_eq!(answer(&mut bench, &missing), format!("{error}}}"));
        for raw in [
            "\"open\"",
            "\".\"",
            "\".x\"",
            "\"open.\"",
            "\"nobody\"",
            "1",
            "true",
            "[\"open.x\"]",
            "{\"a\":1}",
            "\"open.\\ud800\"",
        ] {
            let text = format!("{{\"event\":\"{event}\",\"subscription\":{raw}}}");
            let expected = format!("{error},\"subscription\":{raw}}}");
            assert_eq!(answer(&mut bench, &text), expected);
        }
    }
}

#[test]
fn then_come_the_service_authentication_and_what_the_session_has() {
    let mut bench = with_tickets();
    for event in ["subscribe", "message", "unsubscribe"] {
        let invalid = refused(event, "nobody.x", "Invalid service.");
        assert_eq!(answer(&mut bench, &on(event, "nobody.x")), invalid);
    }
    let required = refused("subscribe", "locked.x", "Authentication required.");
    assert_eq!(answer(&mut bench, &on("subscribe", "locked.x")), required);
    // These do not ask for authentication.
    for event in ["message", "unsubscribe"] {
        for name in ["locked.x", "open.x"] {
            let missing = refused(event, name, "Subscription does not exist.");
            assert_eq!(answer(&mut bench, &on(event, name)), missing);
        }
    }
    let client = bench.subscriber(&["open.x"]);
    bench.send(client, &on("subscribe", "open.x"));
    bench.hears(client, &[&refused("subscribe", "open.x", "Already subscribed.")]);
    bench.asks(&[]);
    assert_eq!(bench.counted(EventLabel::Subscribe), [1, 3]);
}

#[test]
fn periods_beyond_the_first_belong_to_the_topic() {
    let mut bench = with_tickets();
    for name in ["open..a", "open.a.", "open.a.b"] {
        let client = bench.subscriber(&[name]);
        bench.message(name, "1", "");
        assert_eq!(bench.data(client), ["1"]);
        bench.depart(client, true);
    }
}

#[test]
fn an_error_echoes_extra_fields_of_the_request() {
    let mut bench = with_tickets();
    let text = r#"{"event":"message","subscription":"open.x","id":null,"other":1}"#;
    let expected =
        refused_with("message", "open.x", "Subscription does not exist.", r#","id":null"#);
    assert_eq!(answer(&mut bench, text), expected);
    let text = r#"{"event":"subscribe","subscription":"open.","id":[1e400]}"#;
    let expected =
        refused_with("subscribe", "open.", "Invalid subscription format.", r#","id":[1e400]"#);
    assert_eq!(answer(&mut bench, text), expected);
}

#[test]
fn on_a_subscription_that_exists_the_first_extra_fields_are_echoed() {
    let mut bench = with_tickets();
    let client = bench.connect();
    bench.send(client, r#"{"event":"subscribe","subscription":"open.x","id":1}"#);
    bench.settle();
    bench.hear(client);
    bench.send(client, r#"{"event":"subscribe","subscription":"open.x","id":2}"#);
    let expected = refused_with("subscribe", "open.x", "Already subscribed.", r#","id":1"#);
    bench.hears(client, &[&expected]);
    bench.send(client, r#"{"event":"unsubscribe","subscription":"open.x","id":2}"#);
    let expected = r#"{"event":"unsubscribe","status":"ok","id":1,"subscription":"open.x"}"#;
    bench.hears(client, &[expected]);
    bench.depart(client, true);
}

#[test]
fn a_session_has_a_limited_number_of_subscriptions() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"max_subscriptions_per_session": 2}}, "SERVICES": {{{}}}}}"#,
        service("s", "", r#""extra_fields": ["id"]"#)
    ));
    let client = bench.subscriber(&["s.a", "s.b"]);
    bench.send(client, r#"{"event":"subscribe","subscription":"s.c","id":7}"#);
    let expected = refused_with("subscribe", "s.c", "Too many subscriptions.", r#","id":7"#);
    bench.hears(client, &[&expected]);
    bench.send(client, &on("subscribe", "s.a"));
    bench.hears(client, &[&refused("subscribe", "s.a", "Already subscribed.")]);
    bench.send(client, &on("unsubscribe", "s.b"));
    bench.hear(client);
    bench.subscribe(client, "s.c");
    bench.depart(client, false);
}

#[test]
fn the_last_of_doubled_keys_counts() {
    let mut bench = with_tickets();
    let text = r#"{"event":"x","event":"ping","data":1,"data":"y"}"#;
    assert_eq!(answer(&mut bench, text), r#"{"event":"pong","data":"y"}"#);
}

#[test]
fn a_session_that_sends_nonsense_is_reported_once() {
    let mut bench = Bench::new("{}");
    let clients = [bench.connect(), bench.connect()];
    bench.log.take();
    for _ in 0..100 {
        for client in clients {
            bench.send(client, "nonsense");
        }
    }
    let log = bench.log.take();
    assert_eq!(log.matches("received invalid json").count(), 2, "{log}");
}
