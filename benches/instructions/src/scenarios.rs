//! What is counted. Each scenario brings an engine to its steady state, does its work once to warm
//! up, and a second time within `measured`; it gives the number of operations in one time.

use std::hint::black_box;

use crate::bench::{Bench, confirmation, message};
use crate::frames;

type Scenario = fn() -> usize;

pub const ALL: [(&str, Scenario); 9] = [
    ("fanout", fanout),
    ("burst", burst),
    ("topics", topics),
    ("filter", filter),
    ("ping", ping),
    ("ping-16", ping_16),
    ("callback", callback),
    ("subscribe", subscribe),
    ("visit", visit),
];

/// Clients of a fan-out.
const CLIENTS: usize = 1_000;

/// Messages that are published together.
const BATCH: u64 = 32;

/// The counter is on in here only: the name is what it is switched by.
#[inline(never)]
fn measured(bench: &mut Bench, work: &dyn Fn(&mut Bench)) {
    work(black_box(bench));
}

/// Does the work twice, the second time measured; each time so many writes to clients follow.
fn count(bench: &mut Bench, writes: usize, work: impl Fn(&mut Bench)) {
    work(bench);
    bench.writes = 0;
    measured(bench, &work);
    assert_eq!(bench.writes, writes, "every client gets what is for it");
}

/// A delivery of one message to many.
fn fanout() -> usize {
    const MESSAGES: usize = 20;
    let mut bench = Bench::new();
    bench.gather(CLIENTS, |_| frames::subscribe(&frames::news(0)));
    let bytes = message(&frames::news(0), &frames::publication(0, 0));
    count(&mut bench, CLIENTS * MESSAGES, |bench| {
        for _ in 0..MESSAGES {
            bench.receive(bench.redis(), bytes.as_bytes());
        }
    });
    CLIENTS * MESSAGES
}

/// A delivery of one of several messages that come together.
fn burst() -> usize {
    let mut bench = Bench::new();
    bench.gather(CLIENTS, |_| frames::subscribe(&frames::news(0)));
    let messages = (0..BATCH).map(|n| message(&frames::news(0), &frames::publication(0, n)));
    let bytes: String = messages.collect();
    count(&mut bench, CLIENTS, |bench| bench.receive(bench.redis(), bytes.as_bytes()));
    CLIENTS * BATCH as usize
}

/// A delivery where each client has a topic of its own, and several messages come together.
fn topics() -> usize {
    const BATCHES: u64 = 30;
    let mut bench = Bench::new();
    bench.gather(CLIENTS, |client| frames::subscribe(&frames::news(client as u64)));
    let topic = |n| frames::news(n * 28);
    let batch = |b: u64| {
        let numbers = b..b + BATCH;
        numbers.map(|n| message(&topic(n), &frames::publication(n * 28, 0))).collect::<String>()
    };
    let batches: Vec<String> = (0..BATCHES).map(|b| batch(b % 4)).collect();
    let deliveries = (BATCH * BATCHES) as usize;
    count(&mut bench, deliveries, |bench| {
        batches.iter().for_each(|bytes| bench.receive(bench.redis(), bytes.as_bytes()));
    });
    deliveries
}

/// A message that is for one of many readers of its topic, by a filter field.
fn filter() -> usize {
    const MESSAGES: u64 = 500;
    let mut bench = Bench::new();
    bench.gather(CLIENTS, |client| frames::subscribe_user(client as u64));
    let of_user = |user| message(frames::USERS, &frames::publication_for(user, 0));
    let messages: Vec<String> = (0..MESSAGES).map(|n| of_user(n * 2)).collect();
    count(&mut bench, messages.len(), |bench| {
        messages.iter().for_each(|bytes| bench.receive(bench.redis(), bytes.as_bytes()));
    });
    messages.len()
}

/// A `ping` event and its pong.
fn ping() -> usize {
    pings(1)
}

/// The same with 16 in one read.
fn ping_16() -> usize {
    pings(16)
}

fn pings(depth: usize) -> usize {
    const ROUNDS: usize = 10;
    let mut bench = Bench::new();
    let clients = bench.gather(100, |_| frames::subscribe(&frames::news(0)));
    let bytes = frames::client_frame(&frames::ping()).repeat(depth);
    count(&mut bench, clients.len() * ROUNDS, |bench| {
        for &client in clients.iter().cycle().take(clients.len() * ROUNDS) {
            bench.receive(client, &bytes);
        }
    });
    clients.len() * ROUNDS * depth
}

/// A `message` event, its callback over a kept connection, the answer.
fn callback() -> usize {
    const CALLS: usize = 500;
    let mut bench = Bench::new();
    let client = bench.gather(1, |_| frames::subscribe(frames::ECHO))[0];
    let (event, response) = (frames::client_frame(&frames::echo()), frames::response());
    count(&mut bench, CALLS, |bench| {
        for _ in 0..CALLS {
            bench.receive(client, &event);
            bench.receive(bench.service(), &response);
        }
    });
    CALLS
}

/// To subscribe to a topic that nobody has, and to leave it.
fn subscribe() -> usize {
    const TIMES: usize = 500;
    let mut bench = Bench::new();
    let client = bench.connect();
    let name = frames::news(7);
    let subscribe = frames::client_frame(&frames::subscribe(&name));
    let unsubscribe = frames::subscribe(&name).replace("\"subscribe\"", "\"unsubscribe\"");
    let unsubscribe = frames::client_frame(&unsubscribe);
    let (joined, left) = (confirmation("subscribe", &name), confirmation("unsubscribe", &name));
    count(&mut bench, 2 * TIMES, |bench| {
        for _ in 0..TIMES {
            bench.receive(client, &subscribe);
            bench.receive(bench.redis(), joined.as_bytes());
            bench.receive(client, &unsubscribe);
            bench.receive(bench.redis(), left.as_bytes());
        }
    });
    TIMES
}

/// To connect, subscribe to a topic that others have, and go.
fn visit() -> usize {
    const VISITS: usize = 500;
    let mut bench = Bench::new();
    let subscribe = frames::client_frame(&frames::subscribe(&frames::news(0)));
    bench.gather(1, |_| frames::subscribe(&frames::news(0)));
    count(&mut bench, 2 * VISITS, |bench| {
        for _ in 0..VISITS {
            let conn = bench.connect();
            bench.receive(conn, &subscribe);
            bench.leave(conn);
        }
    });
    VISITS
}
