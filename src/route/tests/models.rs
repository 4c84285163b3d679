//! The filters against models of a few lines, on random messages.

use std::collections::HashMap;

use super::*;

const SEEDS: u64 = 40;

fn pick<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[random.number() as usize % of.len()]
}

#[test]
fn order_does_what_its_model_does() {
    // Texts of a number, and what they are worth.
    let orders: [(&str, Option<f64>); 12] = [
        ("1", Some(1.0)),
        ("1.0", Some(1.0)),
        ("true", Some(1.0)),
        ("\"2\"", Some(2.0)),
        ("\" 3_0\\n\"", Some(30.0)),
        ("-5", Some(-5.0)),
        ("1e400", Some(f64::INFINITY)),
        ("\"-Infinity\"", Some(f64::NEG_INFINITY)),
        ("\"nan\"", None),
        ("null", None),
        ("[1]", None),
        ("\"x\"", None),
    ];
    let keys = [("", 0), ("null", 0), ("1", 1), ("1.0", 1), ("\"1\"", 2), ("true", 3), ("[]", 4)];
    for seed in 0..SEEDS {
        let mut random = Random::seeded(seed);
        let mut bench = bench(&service("s", "", ""));
        let client = bench.subscriber(&["s.a"]);
        let mut highest: HashMap<u32, f64> = HashMap::new();
        for _ in 0..60 {
            let (order, number) = *pick(&mut random, &orders);
            let (key, class) = *pick(&mut random, &keys);
            let key = if key.is_empty() { "".into() } else { format!(",\"order_key\":{key}") };
            let options = format!(r#""options":{{"order":{order}{key}}}"#);
            bench.message("s.a", "1", &options);
            let passes = match (number, highest.get(&class)) {
                (Some(number), Some(&highest)) => number > highest,
                _ => true,
            };
            if let Some(number) = number.filter(|_| passes) {
                highest.insert(class, number);
            }
            assert_eq!(!bench.data(client).is_empty(), passes, "seed {seed}: {options}");
        }
        bench.depart(client, true);
    }
}

/// One key's throttle; moments in milliseconds.
#[derive(Default)]
struct Throttle {
    sent: Option<u64>,
    waiting: Option<(u64, String)>,
}

#[test]
fn throttle_does_what_its_model_does() {
    for seed in 0..SEEDS {
        let mut random = Random::seeded(seed);
        let mut bench = bench(&service("s", "", ""));
        let client = bench.subscriber(&["s.a"]);
        let mut keys: [Throttle; 2] = Default::default();
        let mut now = 0;
        for number in 0..80 {
            let mut expected: Vec<(u64, String)> = Vec::new();
            let then = now + random.number() % 400;
            // What falls due on the way; a moment that both have in common is tried elsewhere.
            for state in &mut keys {
                if let Some((due, data)) = state.waiting.take_if(|(due, _)| *due <= then) {
                    state.sent = Some(due);
                    expected.push((due, data));
                }
            }
            expected.sort();
            bench.pass((then - now) as f64 / 1_000.0);
            now = then;
            let at = random.number() as usize % 2;
            let period = *pick(&mut random, &[0u64, 100, 250, 300, 1_000]);
            let data = number.to_string();
            let options = format!(
                r#""options":{{"throttle":{:?},"throttle_key":{at}}}"#,
                period as f64 / 1e3
            );
            bench.message("s.a", &data, &options);
            let state = &mut keys[at];
            match (&mut state.waiting, state.sent) {
                (Some((_, waiting)), _) => *waiting = data,
                (None, Some(sent)) if now < sent + period => {
                    state.waiting = Some((sent + period, data));
                }
                (None, _) => {
                    state.sent = Some(now);
                    expected.push((now, data));
                }
            }
            let expected: Vec<String> = expected.into_iter().map(|(_, data)| data).collect();
            assert_eq!(bench.data(client), expected, "seed {seed}, message {number}, at {now} ms");
        }
        bench.depart(client, true);
    }
}

#[test]
fn fields_do_what_their_model_does() {
    // Texts of a value, and a number for each value.
    let values = [
        ("1", 1),
        ("1.0", 1),
        ("10e-1", 1),
        ("2", 2),
        ("true", 3),
        ("\"1\"", 4),
        ("\"\\u0031\"", 4),
        ("null", 0),
        ("[1]", 5),
        ("[ 1.0 ]", 5),
        ("{\"a\":1,\"b\":2}", 6),
        ("{\"b\":2,\"a\":1}", 6),
    ];
    let fields = r#""extra_fields": ["x", "y"], "filter_fields": ["x", "y"]"#;
    for seed in 0..SEEDS {
        let mut random = Random::seeded(seed);
        let mut bench = bench(&service("s", "", fields));
        // Each of the two fields is absent at times.
        let some = |random: &mut Random| {
            (!random.number().is_multiple_of(4)).then(|| *pick(random, &values))
        };
        let members = |two: [Option<(&str, u32)>; 2]| {
            let named = ["x", "y"].into_iter().zip(two);
            let text = |(name, value): (&str, Option<(&str, u32)>)| {
                value.map_or(String::new(), |(raw, _)| format!(",\"{name}\":{raw}"))
            };
            named.map(text).collect::<String>()
        };
        let clients: Vec<_> = (0..5)
            .map(|_| {
                let own = [some(&mut random), some(&mut random)];
                let client = bench.connect();
                let text =
                    format!(r#"{{"event":"subscribe","subscription":"s.a"{}}}"#, members(own));
                bench.send(client, &text);
                bench.settle();
                bench.hear(client);
                (client, own)
            })
            .collect();
        for _ in 0..40 {
            let named = [some(&mut random), some(&mut random)];
            bench
                .publish("s.a", &format!(r#"{{"subscription":"s.a","data":1{}}}"#, members(named)));
            for &(client, own) in &clients {
                let class = |value: Option<(&str, u32)>| value.map_or(0, |(_, class)| class);
                let passes =
                    (0..2).all(|at| named[at].is_none() || class(named[at]) == class(own[at]));
                assert_eq!(!bench.data(client).is_empty(), passes, "{own:?} {named:?}");
            }
        }
        for (client, _) in clients {
            bench.depart(client, true);
        }
    }
}
