//! The end of a subscription by its authorization, and its crossing of the client's own wishes.

use super::*;

fn expiring() -> Bench {
    bench(&service("s", LIFE, r#""extra_fields": ["id"], "authorization_renewal_period": 10"#))
}

/// A client whose authorization for `s.a` has just been called for.
fn asked() -> (Bench, Client) {
    let mut bench = expiring();
    let client = bench.connect();
    bench.send(client, r#"{"event":"subscribe","subscription":"s.a","id":1}"#);
    bench.settle();
    bench.hear(client);
    bench.changes.clear();
    bench.pass(10.0);
    bench.asks(&[r#"authorizer {"subscription":"s.a","id":1}"#]);
    (bench, client)
}

const BEFORE: &str = r#"before_unsubscribe {"subscription":"s.a","id":1}"#;
const ON: &str = r#"on_unsubscribe {"subscription":"s.a","id":1}"#;

#[test]
fn messages_end_at_once_and_the_client_is_told_after_both_callbacks() {
    let (mut bench, client) = asked();
    bench.answer(r#"{"status":"error","error":{"code":7},"data":"of the authorizer"}"#);
    bench.changes(&["leave s.a"]);
    bench.message("s.a", "1", "");
    bench.asks(&[BEFORE]);
    bench.hears(client, &[]);
    bench.answer(r#"{"status":"ok","data":[1]}"#);
    bench.asks(&[ON]);
    bench.hears(client, &[]);
    bench.answer(NO);
    let expected =
        r#"{"event":"unsubscribe","subscription":"s.a","data":[1],"error":{"code":7},"id":1}"#;
    bench.hears(client, &[expected]);
    bench.send(client, &on("message", "s.a"));
    bench.hears(client, &[&refused("message", "s.a", "Subscription does not exist.")]);
    bench.depart(client, true);
    bench.asks(&[]);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_no_of_before_unsubscribe_does_not_stop_an_expiry() {
    for answer in [Answer::Object(NO.into()), Answer::Unavailable] {
        let (mut bench, client) = asked();
        bench.answer(NO);
        bench.reply(0, answer);
        bench.asks(&[ON]);
        bench.fail();
        let expected =
            r#"{"event":"unsubscribe","subscription":"s.a","error":"Unauthorized.","id":1}"#;
        bench.hears(client, &[expected]);
        bench.depart(client, true);
        bench.asks(&[]);
    }
}

#[test]
fn without_callbacks_the_client_is_told_at_once() {
    let mut bench = bench(&service("s", "authorizer", r#""authorization_renewal_period": 10"#));
    let client = bench.subscriber(&["s.a"]);
    bench.pass(10.0);
    bench.answer(r#"{"status":"error","error":"Gone."}"#);
    bench.hears(client, &[r#"{"event":"unsubscribe","subscription":"s.a","error":"Gone."}"#]);
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn an_unsubscribe_while_the_expiry_is_under_way_gets_the_only_answer() {
    // Sent during before_unsubscribe, or during on_unsubscribe.
    for late in [false, true] {
        let (mut bench, client) = asked();
        bench.answer(NO);
        if late {
            bench.answer(r#"{"status":"ok","data":5}"#);
        }
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.hears(client, &[]);
        if !late {
            bench.answer(r#"{"status":"ok","data":5}"#);
        }
        bench.asks(&[ON]);
        bench.answer(OK);
        bench.asks(&[]);
        let answer =
            r#"{"event":"unsubscribe","status":"ok","id":1,"data":5,"subscription":"s.a"}"#;
        let again = refused("unsubscribe", "s.a", "Subscription does not exist.");
        bench.hears(client, &[answer, &again]);
        assert_eq!(bench.counted(EventLabel::Unsubscribe), [1, 1]);
        bench.depart(client, true);
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn an_expiry_while_an_unsubscribe_is_under_way_leaves_the_answer_to_that() {
    // Whatever before_unsubscribe says: no refusal keeps what has expired.
    for answer in [Answer::Object(OK.into()), Answer::Object(NO.into()), Answer::Unavailable] {
        let (mut bench, client) = asked();
        bench.send(client, &on("unsubscribe", "s.a"));
        bench.answer(NO);
        bench.changes(&["leave s.a"]);
        bench.message("s.a", "1", "");
        bench.asks(&[BEFORE]);
        bench.reply(0, answer);
        bench.asks(&[ON]);
        let expected = r#"{"event":"unsubscribe","status":"ok","id":1,"subscription":"s.a"}"#;
        bench.hears(client, &[expected]);
        bench.answer(OK);
        bench.asks(&[]);
        bench.hears(client, &[]);
        bench.depart(client, true);
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn an_expiry_during_on_unsubscribe_comes_too_late() {
    let (mut bench, client) = asked();
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.reply(1, Answer::Object(OK.into()));
    bench.reply(0, Answer::Object(NO.into()));
    bench.asks(&[ON]);
    bench.answer(OK);
    assert_eq!(bench.hear(client).len(), 1);
    bench.depart(client, true);
    bench.asks(&[]);
}

#[test]
fn a_departure_during_an_expiry_adds_no_callbacks() {
    for late in [false, true] {
        let (mut bench, client) = asked();
        bench.answer(NO);
        let mut hooks = Vec::new();
        if late {
            hooks.push(bench.answer(OK).name());
        }
        bench.depart(client, true);
        hooks.extend(bench.hooks());
        assert_eq!(hooks, ["before_unsubscribe", "on_unsubscribe"]);
        assert_eq!(bench.router.sessions(), 0);
    }
}

#[test]
fn an_expiry_after_the_departure_adds_no_callbacks() {
    let (mut bench, client) = asked();
    bench.depart(client, true);
    bench.answer(NO);
    assert_eq!(bench.hooks(), ["before_unsubscribe", "on_unsubscribe"]);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn a_departure_with_all_three_crossing_makes_one_pair() {
    let (mut bench, client) = asked();
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.answer(NO);
    bench.depart(client, true);
    assert_eq!(bench.answer(NO), Hook::BeforeUnsubscribe);
    assert_eq!(bench.hooks(), ["on_unsubscribe"]);
    assert_eq!(bench.router.sessions(), 0);

    let (mut bench, client) = asked();
    bench.answer(NO);
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.depart(client, false);
    assert_eq!(bench.hooks(), ["before_unsubscribe", "on_unsubscribe"]);
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn the_others_are_left_beside_one_that_expires() {
    let (mut bench, client) = asked();
    bench.answer(NO);
    bench.subscribe_beside(client, "s.b");
    bench.depart(client, true);
    bench.asks(&[BEFORE, r#"before_unsubscribe {"subscription":"s.b"}"#]);
    bench.settle();
    assert_eq!(bench.router.sessions(), 0);
}

#[test]
fn what_has_expired_can_be_subscribed_again_even_while_it_ends() {
    let (mut bench, client) = asked();
    bench.answer(NO);
    bench.subscribe_beside(client, "s.a");
    bench.message("s.a", "1", "");
    assert_eq!(bench.data(client), ["1"]);
    // An unsubscribe means the new one.
    bench.send(client, &on("unsubscribe", "s.a"));
    bench.asks(&[BEFORE, r#"before_unsubscribe {"subscription":"s.a"}"#]);
    bench.reply(1, Answer::Object(OK.into()));
    bench.hears(client, &[&ok("unsubscribe", "s.a")]);
    bench.settle();
    let expected = r#"{"event":"unsubscribe","subscription":"s.a","error":"Unauthorized.","id":1}"#;
    bench.hears(client, &[expected]);
    bench.depart(client, true);
    bench.asks(&[]);
}

#[test]
fn an_expiry_during_on_message_or_on_subscribe_ends_the_subscription_only() {
    let (mut bench, client) = asked();
    bench.send(client, &on("message", "s.a"));
    bench.answer(NO);
    assert_eq!(bench.answer(r#"{"status":"ok","data":1}"#), Hook::OnMessage);
    let expected = r#"{"event":"message","status":"ok","id":1,"data":1,"subscription":"s.a"}"#;
    bench.hears(client, &[expected]);
    bench.settle();
    assert_eq!(bench.hear(client).len(), 1);
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0);

    let mut bench = expiring();
    let client = bench.connect();
    bench.send(client, r#"{"event":"subscribe","subscription":"s.a","id":1}"#);
    bench.answer(OK);
    bench.confirm("s.a");
    bench.answer(OK);
    bench.pass(10.0);
    bench.reply(1, Answer::Object(NO.into()));
    bench.reply(1, Answer::Object(OK.into()));
    bench.reply(1, Answer::Object(OK.into()));
    assert_eq!(bench.hear(client).len(), 2, "subscribed, and ended");
    assert_eq!(bench.answer(OK), Hook::OnSubscribe);
    bench.depart(client, true);
    assert_eq!(bench.router.sessions(), 0);
}

impl Bench {
    /// Subscribes while the oldest callback stays under way.
    #[track_caller]
    fn subscribe_beside(&mut self, client: Client, name: &str) {
        let before = self.asks.calls.len();
        self.send(client, &on("subscribe", name));
        self.reply(before, Answer::Object(OK.into()));
        if let Some(channel) = self.unconfirmed.first().cloned() {
            self.confirm(&channel);
        }
        self.reply(before, Answer::Object(OK.into()));
        self.reply(before, Answer::Object(OK.into()));
        self.hears(client, &[&ok("subscribe", name)]);
    }
}
