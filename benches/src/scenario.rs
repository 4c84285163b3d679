//! What is measured: each scenario brings one server to its steady state, then counts what the
//! process costs while a fixed amount of work is done.

use std::io::BufRead;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::crowd::{Churn, Crowd};
use crate::frames::{self, ClientFrame};
use crate::publisher::{Groups, Message};
use crate::server::{Bench, Kind, Server};

/// What the clients do.
#[derive(Clone, Copy)]
pub enum Work {
    /// `batch` messages are published together, and the next ones when all have arrived.
    Fanout { clients: usize, topics: usize, batch: usize },
    /// The same with one topic, where each message is for one client.
    Filter { clients: usize, batch: usize },
    /// Each client sends `depth` pings together, and the next ones when all are answered.
    Ping { clients: usize, depth: usize },
    /// Each client sends a message that the service answers, and the next one then.
    Callback { clients: usize },
    /// Clients connect, subscribe and leave; to the same topic, or each to one of its own.
    Churn { parallel: usize, own_topics: bool },
    /// Clients are connected and subscribed.
    Memory { clients: usize },
    /// Nobody has come yet.
    Start,
}

pub struct Scenario {
    pub name: String,
    pub work: Work,
    /// How much work makes a round: deliveries, pings, visits.
    pub operations: usize,
}

/// One round of one server. What is not measured is NaN.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Processor time for an operation in microseconds; bytes; milliseconds.
    pub cost: f64,
    /// Operations a second, by the clock.
    pub rate: f64,
}

impl Scenario {
    /// All scenarios of the table, in its order.
    pub fn all() -> Vec<Scenario> {
        let topics = 10_000;
        let rows = [
            ("fanout-1k", Work::Fanout { clients: 1_000, topics: 1, batch: 1 }, 200_000),
            ("fanout-10k", Work::Fanout { clients: 10_000, topics: 1, batch: 1 }, 200_000),
            ("burst-1k", Work::Fanout { clients: 1_000, topics: 1, batch: 32 }, 640_000),
            ("topics-10k", Work::Fanout { clients: topics, topics, batch: 32 }, 96_000),
            ("topics-10k-single", Work::Fanout { clients: topics, topics, batch: 1 }, 20_000),
            ("filter-10k", Work::Filter { clients: 10_000, batch: 32 }, 3_200),
            ("ping", Work::Ping { clients: 1_000, depth: 1 }, 100_000),
            ("ping-16", Work::Ping { clients: 1_000, depth: 16 }, 480_000),
            ("callback", Work::Callback { clients: 32 }, 30_000),
            ("churn", Work::Churn { parallel: 32, own_topics: false }, 5_000),
            ("churn-own-topics", Work::Churn { parallel: 32, own_topics: true }, 5_000),
            ("memory-10k", Work::Memory { clients: 10_000 }, 0),
            ("memory-18k", Work::Memory { clients: 18_000 }, 0),
            ("start", Work::Start, 0),
        ];
        let scenario = |(name, work, operations): (&str, _, _)| Scenario {
            name: name.into(),
            work,
            operations,
        };
        rows.map(scenario).into()
    }

    /// What a delivery costs by the number of clients, and by the number of their topics.
    pub fn curve() -> Vec<Scenario> {
        let by_clients = [100, 1_000, 5_000, 18_000].map(|clients| (clients, 1, 1));
        let by_topics = [1, 10, 100, 1_000, 10_000].map(|topics| (10_000, topics, 1));
        // With few receivers for each message, most of the cost is to wake up for it.
        let together = [1_000, 10_000].map(|topics| (10_000, topics, 32));
        let scenario = |(clients, topics, batch): (usize, usize, usize)| Scenario {
            name: match batch {
                1 => format!("{clients} clients, {topics} topics"),
                _ => format!("{clients}, {topics}, {batch} together"),
            },
            work: Work::Fanout { clients, topics, batch },
            operations: if topics < 1_000 { 100_000 } else { 20_000 * batch.min(4) },
        };
        by_clients.into_iter().chain(by_topics).chain(together).map(scenario).collect()
    }

    pub fn unit(&self) -> &'static str {
        match self.work {
            Work::Memory { .. } => "B/client",
            Work::Start => "ms",
            _ => "µs CPU",
        }
    }

    /// Whether each round needs a new server.
    pub fn is_one_shot(&self) -> bool {
        matches!(self.work, Work::Memory { .. } | Work::Start)
    }

    /// Starts a server and runs a round each time that a line comes on standard input; `share` of
    /// the work is done. Each sample goes to standard output.
    pub fn drive(&self, bench: &Bench, kind: &Kind, share: f64) -> Outcome<()> {
        let server = bench.start(kind)?;
        if !matches!(self.work, Work::Start) {
            server.pin();
        }
        let operations = ((self.operations as f64 * share) as usize).max(1);
        match self.work {
            Work::Fanout { clients, topics, batch } => {
                fanout(&server, clients, topics, batch, operations)
            }
            Work::Filter { clients, batch } => filter(&server, clients, batch, operations),
            Work::Ping { clients, depth } => ping(&server, clients, depth, operations),
            Work::Callback { clients } => callback(&server, clients, operations),
            Work::Churn { parallel, own_topics } => {
                churn(&server, parallel, own_topics, operations)
            }
            Work::Memory { clients } => {
                await_turn()?;
                memory(&server, clients)
            }
            Work::Start => {
                await_turn()?;
                start(&server)
            }
        }
    }
}

/// Measures what the server spends on `work`, which says how many operations it has done. The
/// first piece is not counted: memory and caches are warm then.
fn measure(server: &Server, mut work: impl FnMut(bool) -> Outcome<usize>) -> Outcome<()> {
    work(true)?;
    while await_turn()? {
        let before = server.cpu()?;
        let start = Instant::now();
        let operations = work(false)? as f64;
        let seconds = start.elapsed().as_secs_f64();
        let used = server.cpu()? - before;
        report(Sample { cost: used as f64 / 1000.0 / operations, rate: operations / seconds });
    }
    Ok(())
}

/// Says that a round may begin, and waits for the word; false: there are no more.
fn await_turn() -> Outcome<bool> {
    println!("ready");
    Ok(std::io::stdin().lock().read_line(&mut String::new())? > 0)
}

fn report(sample: Sample) {
    println!("{} {}", sample.cost, sample.rate);
}

fn fanout(
    server: &Server,
    clients: usize,
    topics: usize,
    batch: usize,
    operations: usize,
) -> Outcome<()> {
    let topic_of = |client: usize| frames::subscribe(&frames::news((client % topics) as u64));
    let mut crowd = Crowd::gather(server.port, clients, topic_of)?;
    let mut publisher = server.publisher(Groups::Topics)?;
    let mut numbers = vec![0; topics];
    let mut random = Random(1);
    let readers = clients / topics;
    let batches = operations.div_ceil(readers * batch);
    measure(server, |warming| {
        let batches = if warming { batches.div_ceil(20) } else { batches };
        for _ in 0..batches {
            let messages: Vec<Message> = (0..batch).map(|_| random.message(&mut numbers)).collect();
            publisher.publish(&messages)?;
            crowd.expect(readers * batch)?;
        }
        Ok(batches * batch * readers)
    })
}

fn filter(server: &Server, clients: usize, batch: usize, operations: usize) -> Outcome<()> {
    let mut crowd =
        Crowd::gather(server.port, clients, |client| frames::subscribe_user(client as u64))?;
    let mut publisher = server.publisher(Groups::Users)?;
    let mut numbers = vec![0; clients];
    let mut random = Random(1);
    let batches = operations.div_ceil(batch);
    measure(server, |warming| {
        let batches = if warming { batches.div_ceil(20) } else { batches };
        for _ in 0..batches {
            let messages: Vec<Message> = (0..batch).map(|_| random.message(&mut numbers)).collect();
            publisher.publish(&messages)?;
            crowd.expect(batch)?;
        }
        Ok(batches * batch)
    })
}

fn ping(server: &Server, clients: usize, depth: usize, operations: usize) -> Outcome<()> {
    let topic = frames::subscribe(&frames::news(0));
    let mut crowd = Crowd::gather(server.port, clients, |_| topic.clone())?;
    let frame = ClientFrame::new(&frames::ping());
    exchange(server, &mut crowd, &frame, depth, operations)
}

fn callback(server: &Server, clients: usize, operations: usize) -> Outcome<()> {
    let topic = frames::subscribe(frames::ECHO);
    let mut crowd = Crowd::gather(server.port, clients, |_| topic.clone())?;
    let frame = ClientFrame::new(&frames::echo());
    exchange(server, &mut crowd, &frame, 1, operations)
}

/// Every client sends `depth` frames, and again when all are answered.
fn exchange(
    server: &Server,
    crowd: &mut Crowd,
    frame: &ClientFrame,
    depth: usize,
    operations: usize,
) -> Outcome<()> {
    let mut frame = frame.clone();
    let mut together = Vec::new();
    let mut write = |first: u64| {
        together.clear();
        for number in first..first + depth as u64 {
            frame.set(number);
            together.extend_from_slice(&frame.bytes);
        }
        together.clone()
    };
    let clients = crowd.len();
    let rounds = operations.div_ceil(clients * depth);
    measure(server, |warming| {
        let rounds = if warming { rounds.div_ceil(20) } else { rounds };
        let last = crowd.had(0) + (rounds * depth) as u64;
        for client in 0..clients {
            let bytes = write(crowd.had(client));
            crowd.send(client, &bytes)?;
        }
        let mut missing = rounds * depth * clients;
        while missing > 0 {
            let mut heard = crowd.turn()?.to_vec();
            missing -= heard.len();
            heard.dedup();
            for client in heard {
                let had = crowd.had(client);
                if had < last && had.is_multiple_of(depth as u64) {
                    let bytes = write(had);
                    crowd.send(client, &bytes)?;
                }
            }
        }
        Ok(rounds * depth * clients)
    })
}

fn churn(server: &Server, parallel: usize, own_topics: bool, operations: usize) -> Outcome<()> {
    // Somebody stays, so that the server keeps the topic that all share.
    let staying = Crowd::gather(server.port, 1, |_| frames::subscribe(&frames::news(0)))?;
    let mut churn = Churn::new(server.port)?;
    let result = measure(server, |warming| {
        let count = if warming { operations.div_ceil(10) } else { operations };
        churn.visit(count, parallel, |visit| {
            frames::subscribe(&frames::news(if own_topics { visit as u64 + 1 } else { 0 }))
        })?;
        Ok(count)
    });
    drop(staying);
    result
}

fn memory(server: &Server, clients: usize) -> Outcome<()> {
    let before = server.anonymous_bytes()?;
    let start = Instant::now();
    let topic = frames::subscribe(&frames::news(0));
    let crowd = Crowd::gather(server.port, clients, |_| topic.clone())?;
    let rate = clients as f64 / start.elapsed().as_secs_f64();
    sleep(Duration::from_millis(200));
    let grown = server.anonymous_bytes()?.saturating_sub(before);
    drop(crowd);
    report(Sample { cost: grown as f64 / clients as f64, rate });
    Ok(())
}

fn start(server: &Server) -> Outcome<()> {
    report(Sample { cost: server.started_in.as_secs_f64() * 1000.0, rate: f64::NAN });
    Ok(())
}

/// Which topic or user is next: the same in each round of each server.
struct Random(u64);

impl Random {
    fn message(&mut self, numbers: &mut [u64]) -> Message {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let group = (self.0 % numbers.len() as u64) as usize;
        let number = numbers[group];
        numbers[group] += 1;
        Message { group: group as u64, number }
    }
}
