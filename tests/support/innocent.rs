//! Somebody who does nothing wrong, while others do: a client that is published to and asks all the
//! time, and notices each message that is lost, late or out of order.

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::redis::Publisher;
use super::{Client, Redis, Router, merge};

/// The longest that one message may take: far more than it takes on a machine that does a dozen
/// other things. Whoever waits that long has been forgotten.
const LONGEST: Duration = Duration::from_secs(20);

/// Between two rounds.
const PACE: Duration = Duration::from_millis(2);

pub struct Innocent {
    stop: Sender<()>,
    rounds: JoinHandle<usize>,
}

/// A configuration with the service that innocents use.
pub fn calm(mut config: Value) -> Value {
    merge(
        &mut config,
        json!({
            "SERVICES": { "calm": { "require_authentication": false } },
            "LOG": { "level": "INFO", "trace_level": "INFO" },
        }),
    );
    config
}

impl Innocent {
    /// Connects, subscribes, and goes on until `finish`.
    #[track_caller]
    pub fn start(router: &Router, redis: &Redis) -> Innocent {
        let client = router.client();
        let publisher = redis.publisher();
        Innocent::with(client, publisher)
    }

    fn with(mut client: Client, mut publisher: Publisher) -> Innocent {
        let (stop, stopped) = channel();
        client.subscribe("calm.1");
        let rounds = std::thread::spawn(move || go(&mut client, &mut publisher, &stopped));
        Innocent { stop, rounds }
    }

    /// All was well to the end.
    #[track_caller]
    pub fn finish(self) {
        let _ = self.stop.send(());
        match self.rounds.join() {
            Ok(rounds) => assert!(rounds > 0, "nothing happened at all"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
                panic!("the innocent one: {text}");
            }
        }
    }
}

fn go(client: &mut Client, publisher: &mut Publisher, stopped: &Receiver<()>) -> usize {
    let mut rounds = 0;
    while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let began = Instant::now();
        publisher.publish("calm.1", &json!({ "subscription": "calm.1", "data": rounds }));
        client.send(&json!({ "event": "ping", "data": rounds.to_string() }));
        let (mut message, mut pong) = (false, false);
        while !(message && pong) {
            let event = client.recv();
            if event["event"] == "pong" {
                assert_eq!(event["data"], rounds.to_string(), "pongs come in order");
                pong = true;
            } else {
                assert_eq!(event["data"], rounds, "messages come in order, and none is lost");
                message = true;
            }
        }
        let took = began.elapsed();
        assert!(took < LONGEST, "round {rounds} took {took:?}");
        rounds += 1;
    }
    rounds
}

/// Many sockets at once need many descriptors.
pub fn raise_descriptors() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
}

/// A connection that was made, whether anybody accepts it or not.
pub fn dial(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("the kernel accepts")
}
