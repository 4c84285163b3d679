//! Drives `Calls` with a scripted peer: outputs are read, inputs are made up, time is a number.

use std::time::Duration;

use super::*;
use crate::arena::SessionTag;
use crate::config::LogConfig;
use crate::config::url::Origin;
use crate::metrics::CallResult;
use crate::ports::Output;

mod chaos;
mod connections;
mod queues;
mod tries;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n\
                  {\"status\":\"ok\"}";
const OBJECT: &str = "{\"status\":\"ok\"}";
const ERROR: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno";

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// One `Calls` and all that it works with.
struct World {
    calls: Calls,
    ports: Ports,
    log: Log,
    metrics: Metrics,
    http: HttpConfig,
    now: Now,
    sessions: Arena<SessionTag, ()>,
}

impl World {
    fn new() -> World {
        World {
            calls: Calls::default(),
            ports: Ports::default(),
            log: Log::new(&LogConfig::default(), 1, false),
            metrics: Metrics::default(),
            http: HttpConfig::default(),
            now: Now { mono: Instant(1_000_000), ..Now::default() },
            sessions: Arena::default(),
        }
    }

    fn with(change: impl FnOnce(&mut HttpConfig)) -> World {
        let mut world = World::new();
        change(&mut world.http);
        world
    }

    /// One input, after which everything must be in order.
    fn input(&mut self, act: impl FnOnce(&mut Calls, &mut CallContext<'_>)) {
        let mut ctx = CallContext {
            now: self.now,
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            http: &self.http,
        };
        act(&mut self.calls, &mut ctx);
        self.calls.audit();
        self.ports.mail.audit();
        let lanes = || self.calls.lanes.iter();
        let under_way: usize = lanes().map(|lane| lane.under_way).sum();
        let waiting: usize = lanes().map(|lane| lane.waiting()).sum();
        assert_eq!(self.metrics.callbacks_in_flight, under_way as u64);
        assert_eq!(self.metrics.callbacks_queued, waiting as u64);
    }

    /// Starts a call; its number comes back with its answer.
    fn start(&mut self, lane: &str, hook: Hook, url: &Rc<Url>) -> usize {
        let session = self.sessions.insert(());
        let body = format!("{{\"n\":{}}}", session.index()).into_bytes();
        let (lane, url, owner) = (lane.into(), url.clone(), Owner::Event(session));
        self.input(|calls, ctx| calls.start(Call { lane, hook, url, body, owner }, ctx));
        session.index()
    }

    /// A call of `books` with a body of this length; nobody looks at what it says.
    fn long(&mut self, hook: Hook, bytes: usize) -> usize {
        let session = self.sessions.insert(());
        let (lane, url, owner) = ("books".into(), url(), Owner::Event(session));
        let body = vec![0; bytes];
        self.input(|calls, ctx| calls.start(Call { lane, hook, url, body, owner }, ctx));
        session.index()
    }

    fn message(&mut self, url: &Rc<Url>) -> usize {
        self.start("books", Hook::OnMessage, url)
    }

    /// What was asked of the shell, closings apart.
    fn dialled(&mut self) -> Vec<(ConnId, String)> {
        let mut dialled = Vec::new();
        while let Some(output) = self.ports.poll() {
            match output {
                Output::Connect { conn, to } => dialled.push((conn, to.to_string())),
                Output::Close(conn) => dialled.retain(|(dialled, _)| *dialled != conn),
                Output::Acknowledge(_) => {}
                other => panic!("{other:?}"),
            }
        }
        dialled
    }

    fn dial(&mut self) -> ConnId {
        let dialled = self.dialled();
        assert_eq!(dialled.len(), 1, "one dial: {dialled:?}");
        dialled[0].0
    }

    fn looked_up(&mut self) -> Vec<String> {
        let outputs = std::iter::from_fn(|| self.ports.poll());
        let host = |output| match output {
            Output::Resolve(host) => Some(host.to_string()),
            Output::Close(_) => None,
            other => panic!("{other:?}"),
        };
        outputs.filter_map(host).collect()
    }

    /// Dials and gets through; the request that follows.
    fn accept(&mut self) -> (ConnId, String) {
        let conn = self.dial();
        self.input(|calls, ctx| calls.connected(conn, ctx));
        let sent = self.sent();
        assert_eq!((sent.len(), sent[0].0), (1, conn));
        sent.into_iter().next().unwrap()
    }

    /// Writes everything that waits.
    fn sent(&mut self) -> Vec<(ConnId, String)> {
        let mut sent = Vec::new();
        while let Some(conn) = self.ports.mail.next_prompt() {
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let used = self.ports.mail.outbox(conn).unwrap().slices_from(0, &mut slices);
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            self.ports.mail.written(conn, bytes.len());
            sent.push((conn, String::from_utf8(bytes).unwrap()));
        }
        sent
    }

    /// The one request that was queued, on a connection that was open already.
    fn reuse(&mut self) -> (ConnId, String) {
        assert_eq!(self.dialled(), [], "no new connection");
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1);
        sent.remove(0)
    }

    fn receive(&mut self, conn: ConnId, text: &str) {
        self.input(|calls, ctx| calls.received(conn, text.as_bytes(), ctx));
    }

    fn end(&mut self, conn: ConnId) {
        self.input(|calls, ctx| calls.ended(conn, ctx));
    }

    fn lose(&mut self, conn: ConnId) {
        self.input(|calls, ctx| calls.lost(conn, "connection refused", ctx));
    }

    fn advance(&mut self, by: f64) {
        self.now.mono = self.now.mono.after(seconds(by));
        self.input(|calls, ctx| calls.due(ctx));
    }

    /// The number of the call that has ended, and whether with an answer.
    fn ended_calls(&mut self) -> Vec<(usize, bool)> {
        let ended = std::iter::from_fn(|| self.calls.next_finished());
        let mut numbers = Vec::new();
        for (owner, answer) in ended {
            let Owner::Event(session) = owner else { panic!("{owner:?}") };
            numbers.push((session.index(), answer == Answer::Object(OBJECT.into())));
        }
        numbers
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.ports.kind(conn).is_some()
    }

    fn results(&self, lane: &str, hook: Hook) -> [u64; 4] {
        self.metrics.callbacks.get(&(lane.into(), hook)).map_or([0; 4], |it| it.results)
    }
}

fn url_at(host: &str, target: &str) -> Rc<Url> {
    let origin = Rc::new(Origin { host: host.to_owned(), port: 8000, secure: false });
    Rc::new(Url { origin, target: target.to_owned(), authorization: None })
}

fn url() -> Rc<Url> {
    url_at("10.0.0.1", "/hook")
}

fn body_of(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}
