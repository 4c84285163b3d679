//! Messages from Redis: who gets them, what they look like, which are dropped.

use super::*;

fn open() -> Bench {
    bench(&format!(
        "{}, {}",
        service("s", "", r#""extra_fields": ["id", "sent_at"]"#),
        service("t", "", "")
    ))
}

#[test]
fn data_arrives_digit_for_digit_and_in_its_order() {
    let mut bench = open();
    let client = bench.subscriber(&["s.a"]);
    for data in [
        "1.50",
        "123456789012345678901234567890",
        "1e400",
        "-0",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\ud800\u0041\/é""#,
        "[ 1 , 2 ]",
        "null",
        "false",
        "\"\"",
    ] {
        bench.message("s.a", data, "");
        let expected = format!(r#"{{"event":"message","subscription":"s.a","data":{data}}}"#);
        bench.hears(client, &[&expected]);
    }
    assert_eq!(bench.metrics.messages_delivered, 10);
    bench.depart(client, true);
}

#[test]
fn everybody_sees_its_own_extra_fields() {
    let mut bench = open();
    let ids = ["1", "2", "1", "null", "2", "1.0"];
    let clients: Vec<Client> = ids
        .iter()
        .map(|id| {
            let client = bench.connect();
            let text = format!(r#"{{"event":"subscribe","subscription":"s.a","id":{id}}}"#);
            bench.send(client, &text);
            bench.settle();
            bench.hear(client);
            client
        })
        .collect();
    let plain = bench.subscriber(&["s.a"]);
    bench.message("s.a", "7", r#""id":"a member of the message is not passed on""#);
    for (client, id) in clients.iter().zip(ids) {
        let expected = format!(r#"{{"event":"message","subscription":"s.a","data":7,"id":{id}}}"#);
        bench.hears(*client, &[&expected]);
    }
    bench.hears(plain, &[r#"{"event":"message","subscription":"s.a","data":7}"#]);
    for client in clients.into_iter().chain([plain]) {
        bench.depart(client, true);
    }
}

#[test]
fn what_is_no_message_is_dropped_and_the_next_one_arrives() {
    let mut bench = open();
    let client = bench.subscriber(&["s.a"]);
    for text in [
        "",
        "{",
        "[]",
        "1",
        "{}",
        r#"{"data":1}"#,
        r#"{"subscription":"s.a"}"#,
        r#"{"subscription":"s.a","data":NaN}"#,
        r#"{"subscription":"s.a","data":Infinity}"#,
        r#"{"subscription":"s.a","data":1} x"#,
        r#"{"subscription":1,"data":1}"#,
        r#"{"subscription":null,"data":1}"#,
        r#"{"subscription":"s.\ud800","data":1}"#,
        r#"{"subscription":"s.other","data":1}"#,
        r#"{"subscription":"nobody","data":1}"#,
    ] {
        bench.publish("s.a", text);
    }
    let bytes = b"{\"subscription\":\"s.a\",\"data\":\"\xff\"}";
    bench.lend(|router, desk| router.publish("s.a", &[bytes.into()], desk));
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    bench.message("s.a", &deep, "");
    let log = bench.logged();
    assert_eq!(log.matches(r#""level":"warning""#).count(), 12);
    assert_eq!(log.matches("publication is not JSON").count(), 7);
    assert_eq!(log.matches("invalid service event").count(), 5);
    assert!(log.contains(r#""data":{"data":1}"#), "{log}");
    assert_eq!(bench.metrics.messages_dropped, [7, 5, 0]);
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(client), ["1"]);
    bench.message("s.unknown", "1", "");
    assert_eq!(bench.metrics.messages_dropped, [7, 5, 1]);
    bench.depart(client, true);
}

#[test]
fn odd_options_count_as_none() {
    let mut bench = open();
    let client = bench.subscriber(&["s.a"]);
    for options in [
        "null",
        "1",
        "[]",
        "\"order\"",
        r#"{"order":null}"#,
        r#"{"order":[1],"order_key":{"a":[]}}"#,
        r#"{"order":"nan","throttle":"nan"}"#,
        r#"{"throttle":{}}"#,
        r#"{"throttle":""}"#,
    ] {
        bench.message("s.a", "1", &format!(r#""options":{options}"#));
    }
    assert_eq!(bench.data(client).len(), 9);
    bench.depart(client, true);
}

#[test]
fn a_message_on_one_channel_naming_another_reaches_those_who_have_both() {
    let mut bench = open();
    let both = bench.subscriber(&["s.a", "t.b"]);
    let (only_a, only_b) = (bench.subscriber(&["s.a"]), bench.subscriber(&["t.b"]));
    bench.publish("s.a", r#"{"subscription":"t.b","data":1}"#);
    bench.hears(both, &[r#"{"event":"message","subscription":"t.b","data":1}"#]);
    bench.hears(only_a, &[]);
    bench.hears(only_b, &[]);
    for client in [both, only_a, only_b] {
        bench.depart(client, true);
    }
}

#[test]
fn a_message_naming_another_subscription_passes_that_ones_filters() {
    let mut bench = bench(&format!(
        "{}, {}",
        service("s", "", ""),
        service("t", "", r#""extra_fields": ["id"], "filter_fields": ["id"]"#)
    ));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, r#"{"event":"subscribe","subscription":"t.b","id":1}"#);
    bench.settle();
    bench.hear(client);
    let text = |data: u32, more: &str| format!(r#"{{"subscription":"t.b","data":{data},{more}}}"#);
    bench.publish("s.a", &text(1, r#""id":2"#));
    bench.publish("s.a", &text(2, r#""id":1,"options":{"order":5}"#));
    bench.publish("t.b", &text(3, r#""options":{"order":5}"#));
    bench.hears(client, &[r#"{"event":"message","subscription":"t.b","data":2,"id":1}"#]);
    // The subscription that the message came by has an order of its own.
    bench.message("s.a", "4", r#""options":{"order":1}"#);
    assert_eq!(bench.data(client), ["4"]);
    bench.depart(client, true);
}

#[test]
fn a_subscription_not_confirmed_yet_gets_nothing_by_way_of_another_channel() {
    let mut bench =
        bench(&format!("{}, {}", service("s", "", ""), service("t", "before_subscribe", "")));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("subscribe", "t.b"));
    bench.confirm("t.b");
    bench.publish("s.a", r#"{"subscription":"t.b","data":1}"#);
    // The other way round it waits with the channel that it came by.
    bench.publish("t.b", r#"{"subscription":"s.a","data":2}"#);
    bench.hears(client, &[]);
    bench.answer(OK);
    bench.hears(
        client,
        &[&ok("subscribe", "t.b"), r#"{"event":"message","subscription":"s.a","data":2}"#],
    );
    bench.depart(client, true);
}

#[test]
fn no_message_follows_an_unsubscribe() {
    let mut bench = bench(&service("s", "before_unsubscribe on_unsubscribe", ""));
    let client = bench.subscriber(&["s.a"]);
    let other = bench.subscriber(&["s.a"]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.message("s.a", "1", "");
    bench.answer(OK);
    bench.message("s.a", "2", "");
    bench.hears(
        client,
        &[r#"{"event":"message","subscription":"s.a","data":1}"#, &ok("unsubscribe", "s.a")],
    );
    assert_eq!(bench.data(other).len(), 2);
    for client in [client, other] {
        bench.depart(client, true);
    }
    bench.settle();
}

#[test]
fn every_reader_of_a_channel_gets_each_message_once_whoever_comes_and_goes() {
    let mut bench = open();
    let mut readers: Vec<Client> = Vec::new();
    let mut random = Random::seeded(5);
    for round in 0..200 {
        if random.number().is_multiple_of(2) || readers.is_empty() {
            readers.push(bench.subscriber(&["s.a"]));
        } else {
            let at = random.number() as usize % readers.len();
            let gone = readers.swap_remove(at);
            bench.depart(gone, false);
        }
        bench.message("s.a", &round.to_string(), "");
        for &reader in &readers {
            assert_eq!(bench.data(reader), [round.to_string()]);
        }
    }
    for reader in readers {
        bench.depart(reader, false);
    }
}

#[test]
fn a_client_that_is_too_slow_is_named_and_nobody_else_notices() {
    let mut bench = Bench::new(&format!(
        r#"{{"LIMITS": {{"send_queue_bytes": 100}}, "SERVICES": {{{}}}}}"#,
        service("s", "", "")
    ));
    let (slow, fast) = (bench.subscriber(&["s.a"]), bench.subscriber(&["s.a"]));
    bench.message("s.a", "1", "");
    let _ = bench.mail.blocked(slow.conn, 0);
    bench.hear(fast);
    bench.message("s.a", "2", "");
    assert_eq!(bench.metrics.messages_delivered, 3);
    assert_eq!(bench.asks.too_slow, [slow.conn]);
    assert_eq!(bench.data(fast), ["2"]);
    for client in [slow, fast] {
        bench.depart(client, false);
    }
}

// ---------------------------------------------------------------------- metadata

fn with_metadata(hooks: &str) -> Bench {
    Bench::new(&format!(
        r#"{{"MESSAGE_METADATA": true, "SERVICES": {{{}}}}}"#,
        service("s", hooks, r#""extra_fields": ["id"]"#)
    ))
}

#[test]
fn metadata_says_when_a_message_came_and_went() {
    let mut bench = with_metadata("");
    let client = bench.connect();
    bench.send(client, r#"{"event":"subscribe","subscription":"s.a","id":1}"#);
    bench.settle();
    bench.hear(client);
    bench.message("s.a", "1", r#""published_at":"2023-11-14T23:13:20+01:00""#);
    let expected = concat!(
        r#"{"event":"message","subscription":"s.a","data":1,"#,
        r#""published_at":"2023-11-14T22:13:20.000000+00:00","#,
        r#""received_at":"2023-11-14T22:13:20.000000+00:00","queue_size":0,"id":1,"#,
        r#""sent_at":"2023-11-14T22:13:20.000000+00:00"}"#
    );
    bench.hears(client, &[expected]);
    bench.depart(client, true);
}

#[test]
fn a_time_that_cannot_be_read_is_left_out_and_logged() {
    let mut bench = with_metadata("");
    let client = bench.subscriber(&["s.a"]);
    for (published_at, logged) in
        [("null", 0), ("\"yesterday\"", 1), ("12", 1), ("[]", 1), ("\"\\ud800\"", 1)]
    {
        bench.message("s.a", "1", &format!("\"published_at\":{published_at}"));
        let heard = bench.hear(client);
        assert!(heard[0].contains("received_at") && !heard[0].contains("published_at"));
        let log = bench.logged();
        assert_eq!(log.matches("invalid published_at format").count(), logged, "{log}");
    }
    bench.depart(client, true);
}

#[test]
fn held_messages_lack_arrival_and_throttled_ones_have_the_sending_only() {
    let mut bench = with_metadata("before_subscribe");
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    bench.confirm("s.a");
    bench.message("s.a", "1", r#""published_at":"2023-11-14""#);
    bench.pass(60.0);
    bench.answer(OK);
    let expected = concat!(
        r#"{"event":"message","subscription":"s.a","data":1,"#,
        r#""published_at":"2023-11-14T00:00:00.000000+00:00","#,
        r#""sent_at":"2023-11-14T22:14:20.000000+00:00"}"#
    );
    assert_eq!(bench.hear(client)[1], expected);
    let options = r#""options":{"throttle":60},"published_at":"2023-11-14""#;
    for data in ["1", "2"] {
        bench.message("s.a", data, options);
    }
    bench.hear(client);
    bench.pass(60.0);
    let expected = concat!(
        r#"{"event":"message","subscription":"s.a","data":2,"#,
        r#""sent_at":"2023-11-14T22:15:20.000000+00:00"}"#
    );
    bench.hears(client, &[expected]);
    bench.depart(client, true);
}
