//! Messages that came together, against the same ones one by one.

use super::*;

const SEEDS: u64 = 60;

/// A bench with readers of all kinds of `s.a`.
fn open(metadata: bool) -> (Bench, Vec<Client>) {
    let services = [
        service("s", "", r#""extra_fields": ["id"], "filter_fields": ["id"]"#),
        service("t", "", ""),
    ];
    let mut bench = Bench::new(&format!(
        r#"{{"MESSAGE_METADATA": {metadata}, "LIMITS": {{"send_queue_bytes": 600}},
        "SERVICES": {{{}}}}}"#,
        services.join(", ")
    ));
    let mut clients = vec![bench.subscriber(&["s.a"]), bench.subscriber(&["s.a", "t.b"])];
    for id in ["1", "2", "null"] {
        let client = bench.connect();
        let text = format!(r#"{{"event":"subscribe","subscription":"s.a","id":{id}}}"#);
        bench.send(client, &text);
        bench.settle();
        clients.push(client);
    }
    // One that takes nothing, and holds something.
    let stuck = bench.subscriber(&["s.a"]);
    bench.message("s.a", "0", "");
    bench.mail.blocked(stuck.conn, 1).unwrap();
    clients.push(stuck);
    clients.iter().take(5).for_each(|&client| drop(bench.hear(client)));
    (bench, clients)
}

fn some_message(random: &mut Random, number: usize) -> String {
    let mut any = |of: &[&str]| of[random.number() as usize % of.len()].to_owned();
    let name = any(&["s.a", "s.a", "s.a", "s.a", "t.b", "s.other"]);
    let plain = any(&["yes", "yes", "no"]) == "yes";
    let more = match plain {
        true => String::new(),
        false => any(&[
            r#","id":1"#,
            r#","options":{"order":3}"#,
            r#","options":{"throttle":1}"#,
            r#","options":{}"#,
            r#","published_at":"2026-01-02T03:04:05Z""#,
        ]),
    };
    match any(&["", "", "", "", "", "", "", "", "", "no JSON"]).as_str() {
        "" => format!(r#"{{"subscription":"{name}","data":{number}{more}}}"#),
        other => other.to_owned(),
    }
}

#[test]
fn messages_that_came_together_are_taken_as_if_each_had_come_alone() {
    for seed in 0..SEEDS {
        let mut random = Random::seeded(seed);
        let (mut alone, clients) = open(seed % 4 == 0);
        let (mut together, same_clients) = open(seed % 4 == 0);
        for round in 0..10 {
            let count = random.number() as usize % 8;
            let texts: Vec<String> =
                (0..count).map(|at| some_message(&mut random, round * 10 + at)).collect();
            texts.iter().for_each(|text| alone.publish("s.a", text));
            let payloads: Vec<_> = texts.iter().map(|text| text.as_bytes().into()).collect();
            together.lend(|router, desk| router.publish("s.a", &payloads, desk));
            for (one, same) in clients.iter().zip(&same_clients).take(5) {
                assert_eq!(alone.hear(*one), together.hear(*same), "seed {seed}: {texts:?}");
            }
            alone.pass(0.3);
            together.pass(0.3);
        }
        // The stuck one is over its limit in both; what it is told after that does not matter.
        assert_eq!(alone.asks.too_slow.is_empty(), together.asks.too_slow.is_empty());
        assert_eq!(alone.metrics.messages_received, together.metrics.messages_received);
        assert_eq!(alone.metrics.messages_dropped, together.metrics.messages_dropped);
        assert_eq!(alone.metrics.messages_filtered, together.metrics.messages_filtered);
    }
}

#[test]
fn one_that_is_not_confirmed_yet_holds_each_message() {
    let mut bench = bench(&service("s", "before_subscribe", ""));
    let reader = bench.subscriber(&["s.a"]);
    let client = bench.connect();
    bench.send(client, &on("subscribe", "s.a"));
    let payloads = [1, 2, 3].map(|data| format!(r#"{{"subscription":"s.a","data":{data}}}"#));
    let payloads = payloads.each_ref().map(|text| text.as_bytes().into());
    bench.lend(|router, desk| router.publish("s.a", &payloads, desk));
    assert_eq!(bench.data(reader), ["1", "2", "3"]);
    bench.hears(client, &[]);
    bench.settle();
    let heard = bench.hear(client);
    assert_eq!(heard.len(), 4, "the answer, then what came meanwhile: {heard:?}");
    assert!(heard[3].ends_with(r#""data":3}"#), "in its order");
}

#[test]
fn plain_messages_that_came_together_are_one_piece() {
    let mut bench = bench(&service("s", "", ""));
    let clients = [bench.subscriber(&["s.a"]), bench.subscriber(&["s.a"])];
    let text = br#"{"subscription":"s.a","data":1}"#;
    let payloads = [text, text, text].map(|text| text.as_slice().into());
    let deliveries = bench.lend(|router, desk| router.publish("s.a", &payloads, desk));
    assert_eq!((deliveries, bench.metrics.messages_delivered), (6, 6));
    for client in clients {
        let outbox = bench.mail.outbox(client.conn).expect("it is connected");
        assert!(outbox.several_frames().is_none());
        assert_eq!(bench.data(client).len(), 3);
    }
}
