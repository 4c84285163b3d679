//! Names, looked up with the system's resolver on a few threads: the loop never waits for one.
//! `localhost` needs neither.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use mio::{Registry, Token, Waker};

/// Look-ups at once. There is one at a time for a name, and hardly a configuration has more names:
/// a name that hangs for half a minute holds up no other.
const THREADS_MAX: usize = 32;

/// What this name always means (RFC 6761, section 6.3), whatever the system's tables have. Servers
/// listen on the first address, some on both.
const LOCALHOST: &str = "localhost";
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

type Addresses = Result<Vec<IpAddr>, String>;

type Found = (String, Addresses);

pub struct Resolver {
    questions: Sender<String>,
    answers: Receiver<Found>,
    /// What threads take part in; started as questions come.
    shared: Shared,
    threads: usize,
    /// Questions without an answer yet.
    open: usize,
}

#[derive(Clone)]
struct Shared {
    questions: Arc<Mutex<Receiver<String>>>,
    answers: Sender<Found>,
    waker: Arc<Waker>,
    look_up: fn(&str) -> Addresses,
}

impl Resolver {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Resolver> {
        Resolver::with(look_up, registry, token)
    }

    fn with(
        look_up: fn(&str) -> Addresses,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Resolver> {
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let shared = Shared {
            questions: Arc::new(Mutex::new(asked)),
            answers: answered,
            waker: Arc::new(Waker::new(registry, token)?),
            look_up,
        };
        Ok(Resolver { questions, answers, shared, threads: 0, open: 0 })
    }

    /// Asks for a name's addresses. The engine asks once for a name at a time.
    pub fn ask(&mut self, host: &str) {
        self.open += 1;
        if host.eq_ignore_ascii_case(LOCALHOST) {
            // We have the other end: it takes the answer.
            self.shared.answer(host.to_owned(), Ok(LOOPBACK.into()));
            return;
        }
        if self.open > self.threads && self.threads < THREADS_MAX {
            let shared = self.shared.clone();
            let spawned = thread::Builder::new()
                .name("resolver".to_owned())
                .stack_size(256 * 1024)
                .spawn(move || shared.serve());
            self.threads += usize::from(spawned.is_ok());
        }
        // Without any thread the question stays unanswered, and the time-outs take care.
        let _ = self.questions.send(host.to_owned());
    }

    /// The next answer.
    pub fn take(&mut self) -> Option<Found> {
        let found = self.answers.try_recv().ok()?;
        self.open -= 1;
        Some(found)
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            let question = match self.questions.lock() {
                Ok(questions) => questions.recv(),
                Err(_) => return,
            };
            let Ok(host) = question else { return };
            let found = (self.look_up)(&host);
            if !self.answer(host, found) {
                return;
            }
        }
    }

    /// Hands an answer to the loop; false: there is none any more.
    fn answer(&self, host: String, found: Addresses) -> bool {
        self.answers.send((host, found)).is_ok() && self.waker.wake().is_ok()
    }
}

/// As the system does it.
fn look_up(host: &str) -> Addresses {
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use mio::{Events, Poll};

    use super::*;

    /// Names that begin with `slow` hang for longer than the test waits.
    fn some_hang(host: &str) -> Addresses {
        if host.starts_with("slow") {
            thread::sleep(Duration::from_secs(60));
        }
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }

    #[test]
    fn names_that_hang_hold_up_no_others() {
        let mut poll = Poll::new().unwrap();
        let mut resolver = Resolver::with(some_hang, poll.registry(), Token(0)).unwrap();
        for number in 0..20 {
            resolver.ask(&format!("slow{number}"));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        for number in 0..100 {
            let name = format!("quick{number}");
            resolver.ask(&name);
            let found = loop {
                if let Some(found) = resolver.take() {
                    break found;
                }
                assert!(Instant::now() < deadline, "{name} waits for the slow ones");
                poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(1))).unwrap();
            };
            assert_eq!(found, (name, Ok(vec![Ipv4Addr::LOCALHOST.into()])));
        }
        assert_eq!(resolver.threads, 21, "a thread is started where none is free");
    }

    #[test]
    fn localhost_needs_no_thread() {
        let mut poll = Poll::new().unwrap();
        let mut resolver = Resolver::with(some_hang, poll.registry(), Token(7)).unwrap();
        resolver.ask("LocalHost");
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().next().map(|event| event.token()), Some(Token(7)));
        assert_eq!(resolver.take(), Some(("LocalHost".to_owned(), Ok(LOOPBACK.into()))));
        assert_eq!((resolver.threads, resolver.open), (0, 0));
    }
}
