//! Names, looked up with the system's resolver on a few threads: the loop never waits for one.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use mio::{Registry, Token, Waker};

/// Look-ups at once; a resolver that hangs holds up the others only when all do.
const THREADS_MAX: usize = 4;

type Found = (String, Result<Vec<IpAddr>, String>);

pub struct Resolver {
    questions: Sender<String>,
    answers: Receiver<Found>,
    /// What threads take part in; started as questions come.
    shared: Shared,
    threads: usize,
}

#[derive(Clone)]
struct Shared {
    questions: Arc<Mutex<Receiver<String>>>,
    answers: Sender<Found>,
    waker: Arc<Waker>,
}

impl Resolver {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Resolver> {
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let shared = Shared {
            questions: Arc::new(Mutex::new(asked)),
            answers: answered,
            waker: Arc::new(Waker::new(registry, token)?),
        };
        Ok(Resolver { questions, answers, shared, threads: 0 })
    }

    /// Asks for a name's addresses. The engine asks once for a name at a time.
    pub fn ask(&mut self, host: &str) {
        if self.threads < THREADS_MAX {
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
        self.answers.try_recv().ok()
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
            let found = (host.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
            let found = found.map(|all| all.map(|address| address.ip()).collect());
            if self.answers.send((host, found)).is_err() || self.waker.wake().is_err() {
                return;
            }
        }
    }
}
