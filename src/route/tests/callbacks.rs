//! What callbacks carry, and what their answers become: `message` and `unsubscribe`.

use super::*;

fn all_hooks() -> Bench {
    bench(&service("s", LIFE, r#""extra_fields": ["id", "data"]"#))
}

#[test]
fn a_later_field_wins_over_an_earlier_one_of_the_same_name() {
    let names = r#"["subscription", "a", "b", "c", "data"]"#;
    let mut bench = Bench::new(&format!(
        r#"{{"AUTHENTICATION": {{"ticket": {{"validation_url": "http://s/auth",
            "auth_fields": ["c", "user"]}}}}, "SERVICES": {{{}}}}}"#,
        service(
            "s",
            LIFE,
            &format!(r#""extra_fields": {names}, "authorizer_fields": ["b", "c", "role"]"#)
        )
    ));
    let client = bench.connect();
    bench.send(client, r#"{"event":"auth","ticket":"t"}"#);
    bench.answer(r#"{"status":"ok","user":3,"c":3}"#);
    let text = r#"{"event":"subscribe","subscription":"s.a","a":1,"b":1,"c":1,"data":1,"other":1}"#;
    bench.send(client, text);
    let subscription = r#""subscription":"s.a""#;
    bench.asks(&[&format!(r#"authorizer {{{subscription},"a":1,"b":1,"c":3,"data":1,"user":3}}"#)]);
    bench.answer(r#"{"status":"ok","role":2,"c":2,"b":2,"user":2}"#);
    bench.confirm("s.a");
    let body = format!(r#"{{{subscription},"a":1,"b":2,"c":3,"data":1,"role":2,"user":3}}"#);
    bench.asks(&[&format!("before_subscribe {body}")]);
    bench.answer(OK);
    bench.asks(&[&format!("on_subscribe {body}")]);
    bench.answer(OK);
    bench.hear(client);
    bench.send(client, r#"{"event":"message","subscription":"s.a","data":{"x":[]},"a":9}"#);
    let with_data = body.replace(r#""data":1"#, r#""data":{"x":[]}"#);
    bench.asks(&[&format!("on_message {with_data}")]);
    // The client always sees its own values.
    bench.answer(r#"{"status":"ok","data":"y"}"#);
    bench.hears(
        client,
        &[r#"{"event":"message","status":"ok","subscription":"s.a","a":1,"b":1,"c":1,"data":"y"}"#],
    );
    bench.depart(client, true);
    bench.asks(&[&format!("before_unsubscribe {body}")]);
    bench.answer(OK);
    bench.asks(&[&format!("on_unsubscribe {body}")]);
    bench.answer(OK);
}

#[test]
fn a_message_carries_its_data_or_null() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    for (more, data) in [
        ("", "null"),
        (",\"data\":null", "null"),
        (",\"data\":1e400", "1e400"),
        (",\"id\":1", "null"),
    ] {
        bench.send(client, &format!(r#"{{"event":"message","subscription":"s.a"{more}}}"#));
        bench.asks(&[&format!(r#"on_message {{"subscription":"s.a","data":{data}}}"#)]);
        bench.answer(OK);
        bench.hears(client, &[]);
    }
    assert_eq!(bench.counted(EventLabel::Message), [4, 0]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn a_message_is_answered_where_the_service_gave_data_or_said_no() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    for (answer, shown) in [
        (r#"{"status":"ok","data":null}"#, r#""status":"ok""#),
        (r#"{"status":"ok","data":0}"#, r#""status":"ok","data":0"#),
        (r#"{"status":"ok","data":""}"#, r#""status":"ok","data":"""#),
        (r#"{"status":"ok","data":[1.50]}"#, r#""status":"ok","data":[1.50]"#),
        (NO, r#""status":"error","error":"Unhandled exception.""#),
        (r#"{"error":1,"data":{}}"#, r#""status":"error","error":1"#),
        (r#"{"error":1,"data":{"a":0}}"#, r#""status":"error","error":1,"data":{"a":0}"#),
        (r#"{"status":"error","data":null}"#, r#""status":"error","error":"Unhandled exception.""#),
    ] {
        bench.send(client, &on("message", "s.a"));
        bench.answer(answer);
        let expected = format!(r#"{{"event":"message",{shown},"subscription":"s.a"}}"#);
        bench.hears(client, &[&expected]);
    }
    bench.send(client, &on("message", "s.a"));
    bench.fail();
    bench.hears(client, &[&refused("message", "s.a", "Service unavailable.")]);
    assert_eq!(bench.counted(EventLabel::Message), [4, 5]);
    bench.depart(client, true);
    bench.settle();
}

#[test]
fn without_a_callback_a_message_is_accepted_silently() {
    let mut bench = bench(&service("s", "", ""));
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, r#"{"event":"message","subscription":"s.a","data":1}"#);
    bench.hears(client, &[]);
    assert_eq!(bench.counted(EventLabel::Message), [1, 0]);
    bench.depart(client, true);
}

#[test]
fn an_unsubscribe_that_is_refused_keeps_the_subscription() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    for (answer, error) in [
        (Answer::Object(r#"{"status":"error","error":"Stay."}"#.into()), "Stay."),
        (Answer::Object(NO.into()), "Unhandled exception."),
        (Answer::Unavailable, "Service unavailable."),
    ] {
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.asks(&[r#"before_unsubscribe {"subscription":"s.a"}"#]);
        bench.reply(0, answer);
        bench.hears(client, &[&refused("unsubscribe", "s.a", error)]);
        bench.asks(&[]);
        bench.message("s.a", "1", "");
        assert_eq!(bench.data(client), ["1"]);
    }
    bench.changes(&[]);
    bench.depart(client, true);
    // The pair of the farewell is made again, whatever had been refused.
    assert_eq!(bench.hooks(), ["before_unsubscribe", "on_unsubscribe"]);
}

#[test]
fn an_unsubscribe_is_answered_between_its_callbacks() {
    let mut bench = all_hooks();
    let client = bench.subscriber(&["s.a"]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.changes(&[]);
    bench.answer(r#"{"status":"ok","data":{"left":1}}"#);
    bench.changes(&["leave s.a"]);
    bench.hears(
        client,
        &[r#"{"event":"unsubscribe","status":"ok","data":{"left":1},"subscription":"s.a"}"#],
    );
    bench.asks(&[r#"on_unsubscribe {"subscription":"s.a"}"#]);
    bench.answer(NO);
    bench.hears(client, &[]);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.hears(client, &[&refused("unsubscribe", "s.a", "Subscription does not exist.")]);
    bench.depart(client, true);
    bench.asks(&[]);
}

#[test]
fn a_call_says_whose_slot_it_takes() {
    let mut bench = Bench::new(&format!(
        r#"{{"AUTHENTICATION": {{"ticket": {{"validation_url": "http://s/auth",
            "auth_fields": []}}}}, "SERVICES": {{{}}}}}"#,
        service("s", LIFE, "")
    ));
    let client = bench.connect();
    bench.send(client, r#"{"event":"auth","ticket":"t"}"#);
    assert_eq!(&*bench.asks.calls[0].lane, "ticket");
    bench.answer(OK);
    bench.send(client, &on("subscribe", "s.a"));
    assert_eq!(&*bench.asks.calls[0].lane, "s");
    bench.settle();
    bench.depart(client, true);
    bench.settle();
}
