//! Tickets, what they are checked into, and what a session's authentication is used for.

use super::*;

fn with_tickets(fields: &str, services: &str) -> Bench {
    Bench::new(&format!(
        r#"{{"AUTHENTICATION": {{"ticket": {{"validation_url": "http://s/auth",
            "auth_fields": {fields}}}}}, "SERVICES": {{{services}}}}}"#
    ))
}

const AUTH: &str = r#"{"event":"auth","method":"ticket","ticket":"t"}"#;
const AUTH_OK: &str = r#"{"event":"auth","status":"ok"}"#;
fn required() -> String {
    refused("subscribe", "locked.a", "Authentication required.")
}

#[track_caller]
fn authenticate(bench: &mut Bench, client: Client, answer: &str) -> String {
    bench.send(client, AUTH);
    assert_eq!(bench.answer(answer), Hook::Validation);
    let heard = bench.hear(client);
    assert_eq!(heard.len(), 1);
    heard[0].clone()
}

#[test]
fn any_truthy_ticket_is_passed_on_as_it_is() {
    let mut bench = with_tickets(r#"["user"]"#, "");
    let client = bench.connect();
    for ticket in ["\"t\"", "1.50", "true", "[0]", r#"{"a":"\ud800"}"#] {
        bench.send(client, &format!("{{\"event\":\"auth\",\"ticket\":{ticket}}}"));
        bench.asks(&[&format!("validation_url {{\"ticket\":{ticket}}}")]);
        bench.answer(r#"{"status":"ok","user":1}"#);
        bench.hears(client, &[AUTH_OK]);
    }
    assert_eq!(bench.counted(EventLabel::Auth), [5, 0]);
    bench.depart(client, true);
}

#[test]
fn a_no_is_passed_on_without_its_data() {
    let mut bench = with_tickets(r#"["user"]"#, "");
    let client = bench.connect();
    let error = |raw: &str| format!(r#"{{"event":"auth","status":"error","error":{raw}}}"#);
    for (answer, expected) in [
        (r#"{"status":"error","user":1,"data":"secret"}"#, r#""Authentication failed.""#),
        (r#"{"status":"error","error":"Expired."}"#, r#""Expired.""#),
        (r#"{"status":"error","error":null}"#, "null"),
        (r#"{"status":"error","error":""}"#, "\"\""),
        (r#"{"status":"ok"}"#, r#""Authentication failed.""#),
        (r#"{"user":1}"#, r#""Authentication failed.""#),
    ] {
        assert_eq!(authenticate(&mut bench, client, answer), error(expected), "{answer}");
    }
    bench.send(client, AUTH);
    bench.fail();
    bench.hears(client, &[&error(r#""Service unavailable.""#)]);
    bench.depart(client, true);
}

#[test]
fn all_configured_fields_must_be_there_and_null_is_a_value() {
    let mut bench = with_tickets(r#"["user", "org"]"#, r#""locked": {}"#);
    let client = bench.connect();
    let answer = authenticate(&mut bench, client, r#"{"status":"ok","user":1}"#);
    assert!(answer.contains("Authentication failed."));
    bench.send(client, &on("subscribe", "locked.a"));
    bench.hears(client, &[&required()]);
    let answer = authenticate(&mut bench, client, r#"{"status":"ok","user":null,"org":null}"#);
    assert_eq!(answer, AUTH_OK);
    bench.subscribe(client, "locked.a");
    bench.depart(client, true);
}

#[test]
fn without_fields_nobody_counts_as_authenticated() {
    let mut bench = with_tickets("[]", r#""locked": {}"#);
    let client = bench.connect();
    assert_eq!(authenticate(&mut bench, client, OK), AUTH_OK);
    bench.send(client, &on("subscribe", "locked.a"));
    bench.hears(client, &[&required()]);
    bench.depart(client, true);
}

#[test]
fn authenticating_again_replaces_the_fields_of_subscriptions_too() {
    let services = service(
        "s",
        "on_message authorizer",
        r#""filter_fields": ["user"], "authorization_renewal_period": 10"#,
    );
    let mut bench = with_tickets(r#"["user"]"#, &services);
    let client = bench.connect();
    assert_eq!(authenticate(&mut bench, client, r#"{"status":"ok","user":"ann"}"#), AUTH_OK);
    bench.subscribe(client, "s.a");
    bench.message("s.a", "1", r#""user":"ann""#);
    bench.message("s.a", "2", r#""user":"bob""#);
    assert_eq!(bench.data(client), ["1"]);
    // A failed one changes nothing.
    assert!(authenticate(&mut bench, client, NO).contains("Authentication failed."));
    bench.send(client, &on("message", "s.a"));
    bench.asks(&[r#"on_message {"subscription":"s.a","user":"ann","data":null}"#]);
    bench.answer(OK);
    assert_eq!(authenticate(&mut bench, client, r#"{"status":"ok","user":"bob"}"#), AUTH_OK);
    bench.message("s.a", "1", r#""user":"ann""#);
    bench.message("s.a", "2", r#""user":"bob""#);
    assert_eq!(bench.data(client), ["2"]);
    bench.pass(10.0);
    bench.asks(&[r#"authorizer {"subscription":"s.a","user":"bob"}"#]);
    bench.settle();
    bench.depart(client, true);
}

#[test]
fn events_sent_behind_a_ticket_wait_for_it() {
    let mut bench = with_tickets(r#"["user"]"#, r#""locked": {}"#);
    let client = bench.connect();
    bench.send(client, AUTH);
    bench.send(client, &on("subscribe", "locked.a"));
    bench.answer(r#"{"status":"ok","user":1}"#);
    bench.confirm("locked.a");
    bench.hears(client, &[AUTH_OK, &ok("subscribe", "locked.a")]);
    bench.depart(client, true);
}

#[test]
fn a_client_that_goes_while_its_ticket_is_checked_leaves_nothing() {
    let mut bench = with_tickets(r#"["user"]"#, "");
    let client = bench.connect();
    bench.send(client, AUTH);
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 1);
    bench.answer(r#"{"status":"ok","user":1}"#);
    assert_eq!(bench.router.sessions(), 0);
}
