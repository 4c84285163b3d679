//! The only room with system calls: one thread, one poll, all sockets.
//!
//! A turn of the loop: (1) wait until something is ready or due; (2) read the clock, once;
//! (3) accept, then read each ready socket within a budget, hand its bytes to the core and write
//! the replies; (4) tell the core the time; (5) obey its outputs; (6) write each connection that
//! has something new, once, and let only a bounded part of a fan-out go before the next turn.
//! What is over a budget stays queued, and the next wait is none.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mio::{Events, Interest, Poll, Token};

use crate::arena::ConnId;
use crate::config::{Config, Level};
use crate::engine::Engine;
use crate::limits::{
    ACCEPTS_PER_TURN, BULK_WRITES_PER_TURN, CLIENT_READ_BYTES_PER_TURN, OTHER_ACCEPTS_PER_TURN,
    SCRAPES_PER_TURN, SCRATCH_BYTES, TLS_HANDSHAKES_PER_TURN,
};
use crate::outbox::Outbox;
use crate::ports::{Core, Door, Input, Kind, Output};
use crate::time::{Now, soonest};

mod clock;
mod joined;
mod listen;
mod load;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod notify;
mod process;
mod resolve;
mod signals;
mod sockets;
mod stderr;
#[cfg(feature = "tls")]
mod tls;

#[cfg(not(feature = "tls"))]
use no_tls as tls;

use clock::Clock;
use listen::{LOOPBACK, Listeners};
pub use listen::{any_free_ports, check_port};
pub use load::{Loaded, load};
use notify::{Notifier, Phase};
pub use process::setup;
use resolve::Resolver;
use signals::{Signal, Signals};
use sockets::{Flushed, Read, Sockets};
use stderr::Stderr;
pub use tls::Keys;

/// Tokens from the far end of the range, where no connection's token comes.
const SIGNALS: Token = Token(usize::MAX - 1);
const RESOLVED: Token = Token(usize::MAX - 2);
const CLIENT_DOOR: usize = usize::MAX - 32;
const METRICS_DOOR: usize = usize::MAX - 64;
const BROKER_DOOR: usize = usize::MAX - 96;
const DEMO_DOOR: usize = usize::MAX - 128;

/// In the order of accepting.
const DOORS: [Door; 4] = [Door::Metrics, Door::Broker, Door::Demo, Door::Clients];

/// Events taken from one poll; more wait for the next.
const EVENTS_PER_TURN: usize = 1024;

/// Runs the router until it ends; gives the exit status.
///
/// # Errors
/// What the system refused: a port that is taken, no poll.
pub fn run(path: &Path, loaded: Loaded) -> Result<i32, String> {
    let config = Rc::new(loaded.config);
    let engine = Engine::new(config.clone(), setup());
    let beside = Beside { path: Some(path), keys: loaded.keys, ..Beside::default() };
    drive(engine, config, beside)
}

/// What a core is driven with besides its configuration.
#[derive(Clone, Default)]
pub struct Beside<'a> {
    /// The configuration's file, read again on SIGHUP.
    pub path: Option<&'a Path>,
    /// The port of the demo's page, on loopback.
    pub demo: Option<u16>,
    /// Certificates, where the configuration names any.
    pub keys: Keys,
}

/// Runs a core until it asks to exit; gives the exit status. The configuration says where clients
/// and metrics come in.
///
/// # Errors
/// What the system refused: a port that is taken, no poll.
pub fn drive(core: impl Core, config: Rc<Config>, beside: Beside<'_>) -> Result<i32, String> {
    let mut shell = Shell::open(core, config, beside)?;
    shell.core.start(shell.now);
    loop {
        let obeyed = shell.obey();
        if !matches!(obeyed, Ok(None)) {
            shell.write_log();
            shell.stderr.finish();
        }
        if let Some(status) = obeyed? {
            return Ok(status);
        }
        shell.flush();
        shell.write_log();
        let phase = shell.phase();
        shell.notifier.turn(shell.now.mono, phase);
        shell.turn()?;
    }
}

/// Why a port cannot be opened, and what to do about it.
fn with_mend(problem: String, keys: &str) -> String {
    format!("{problem}; end what listens there, or correct {keys} in the configuration")
}

struct Shell<C> {
    /// Read again on SIGHUP.
    path: Option<PathBuf>,
    config: Rc<Config>,
    keys: Keys,
    core: C,
    poll: Poll,
    events: Events,
    sockets: Sockets,
    clients: Listeners,
    metrics: Listeners,
    broker: Listeners,
    demo: Listeners,
    signals: Signals,
    resolver: Resolver,
    stderr: Stderr,
    notifier: Notifier,
    /// Peers at the metrics port that wait for their answer.
    scrapes: VecDeque<ConnId>,
    clock: Clock,
    now: Now,
    started: SystemTime,
    /// All sockets are read into this one buffer; it grows with what comes at once.
    scratch: Vec<u8>,
    /// Links to Redis whose commands are to be written.
    commands: Vec<ConnId>,
    /// Bytes of these commands.
    commanded: usize,
    /// Whose replies go after them.
    later: VecDeque<ConnId>,
    /// Whose replies to what was just read are to be written.
    answers: VecDeque<ConnId>,
}

impl<C: Core> Shell<C> {
    fn open(mut core: C, config: Rc<Config>, beside: Beside<'_>) -> Result<Shell<C>, String> {
        let descriptors = sockets::raise_descriptor_limit();
        let poll = Poll::new().map_err(|error| format!("cannot poll: {error}"))?;
        let signals = Signals::new(poll.registry(), SIGNALS)
            .map_err(|error| format!("cannot handle signals: {error}"))?;
        let resolver = Resolver::new(poll.registry(), RESOLVED)
            .map_err(|error| format!("cannot wake the poll: {error}"))?;
        let mut metrics = Listeners::new(METRICS_DOOR);
        if let Some(prometheus) = &config.metrics.prometheus {
            metrics
                .open(&prometheus.host, prometheus.port, false, poll.registry())
                .map_err(|problem| with_mend(problem, "METRICS.prometheus"))?;
        }
        let mut broker = Listeners::new(BROKER_DOOR);
        if let Some(config) = &config.broker {
            broker
                .open(&config.host, config.port, false, poll.registry())
                .map_err(|problem| with_mend(problem, "BROKER"))?;
        }
        let mut demo = Listeners::new(DEMO_DOOR);
        if let Some(port) = beside.demo {
            demo.open(LOOPBACK, port, false, poll.registry())?;
        }
        let clock = Clock::new();
        let now = clock.now();
        if let Some(address) = metrics.address() {
            let line = core.log().at(now, Level::Info, "metrics port open");
            drop(line.display("host", address.ip()).number("port", address.port().into()));
        }
        if let Some(address) = broker.address() {
            let line = core.log().at(now, Level::Info, "broker listening");
            drop(line.display("host", address.ip()).number("port", address.port().into()));
        }
        let notifier = Notifier::from_environment().unwrap_or_else(|error| {
            let line = core.log().at(now, Level::Warning, "cannot notify the service manager");
            drop(line.display("error", error));
            Notifier::silent()
        });
        Ok(Shell {
            path: beside.path.map(Path::to_owned),
            config,
            keys: beside.keys,
            core,
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            sockets: Sockets::new(descriptors),
            clients: Listeners::new(CLIENT_DOOR),
            metrics,
            broker,
            demo,
            signals,
            resolver,
            stderr: Stderr::new(),
            notifier,
            scrapes: VecDeque::new(),
            clock,
            now,
            started: SystemTime::now(),
            scratch: vec![0; CLIENT_READ_BYTES_PER_TURN],
            commands: Vec::new(),
            commanded: 0,
            later: VecDeque::new(),
            answers: VecDeque::new(),
        })
    }

    /// Waits, and takes in what has happened.
    fn turn(&mut self) -> Result<(), String> {
        let busy = self.core.has_work()
            || !self.scrapes.is_empty()
            || self.sockets.has_readable()
            || DOORS.iter().any(|&door| self.may_accept(door));
        let shells = soonest(self.sockets.next_deadline(), self.notifier.next_deadline());
        let deadline = soonest(self.core.next_deadline(), shells);
        let timeout = if busy { Some(Duration::ZERO) } else { self.clock.until(deadline) };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(format!("cannot poll: {error}")),
        }
        self.now = self.clock.now();
        self.sockets.end_rest(self.now.mono);
        self.dial_again();
        self.take_events();
        self.accept();
        self.read()?;
        self.tell_dialled();
        self.core.handle(self.now, Input::Tick);
        self.answer_scrapes();
        let took = self.clock.now().mono.since(self.now.mono);
        self.core.metrics().turns.observe(took);
        Ok(())
    }

    fn take_events(&mut self) {
        let (mut woken, mut signalled) = (false, false);
        for event in &self.events {
            match event.token() {
                SIGNALS => signalled = true,
                RESOLVED => woken = true,
                token if self.clients.owns(token) => self.clients.set_ready(),
                token if self.metrics.owns(token) => self.metrics.set_ready(),
                token if self.broker.owns(token) => self.broker.set_ready(),
                token if self.demo.owns(token) => self.demo.set_ready(),
                token => {
                    let Some(conn) = self.sockets.note(event, token) else { continue };
                    if event.is_writable() {
                        self.core.unblocked(conn);
                    }
                    if event.is_read_closed() || event.is_error() {
                        self.core.handle(self.now, Input::Leaving(conn));
                    }
                }
            }
        }
        if woken {
            while let Some((host, result)) = self.resolver.take() {
                self.core.handle(self.now, Input::Resolved(&host, result));
            }
        }
        if signalled {
            for signal in self.signals.take() {
                let input = match (signal, &self.path) {
                    (Signal::Stop, _) => Input::Stop,
                    (Signal::Reload, Some(path)) => {
                        self.notifier.reloading(self.now.mono);
                        Input::Reload(load(path).map(|loaded| {
                            let same_redis = loaded.config.redis == self.config.redis
                                && loaded.config.redis_alt == self.config.redis_alt;
                            self.keys.renew(loaded.keys, same_redis);
                            Box::new(loaded.config)
                        }))
                    }
                    (Signal::Reload, None) => continue,
                };
                self.core.handle(self.now, input);
            }
        }
        self.tell_dialled();
    }

    /// Says how dials, and handshakes of TLS, have ended.
    fn tell_dialled(&mut self) {
        while let Some((conn, result)) = self.sockets.take_dialled() {
            match (result, self.core.kind(conn)) {
                // What a client is to hear may have waited for its handshake.
                (Ok(()), Some(Kind::Client)) => self.core.unblocked(conn),
                (Ok(()), _) => self.core.handle(self.now, Input::Connected(conn)),
                (Err(why), Some(Kind::Client)) => {
                    let line = self.core.log().at(self.now, Level::Debug, "handshake refused");
                    drop(line.text("reason", &why).text("address", &self.sockets.peer(conn)));
                }
                (Err(why), _) => self.core.handle(self.now, Input::Lost(conn, &why)),
            }
        }
    }

    /// Whether somebody may wait at a port that there is room for.
    fn may_accept(&self, door: Door) -> bool {
        let listeners = match door {
            Door::Clients => &self.clients,
            Door::Metrics => &self.metrics,
            Door::Broker => &self.broker,
            Door::Demo => &self.demo,
        };
        listeners.is_ready() && self.sockets.has_room_for(door)
    }

    fn accept(&mut self) {
        for door in DOORS {
            let most =
                if door == Door::Clients { ACCEPTS_PER_TURN } else { OTHER_ACCEPTS_PER_TURN };
            for _ in 0..most {
                if !self.may_accept(door) {
                    break;
                }
                let listeners = match door {
                    Door::Clients => &mut self.clients,
                    Door::Metrics => &mut self.metrics,
                    Door::Broker => &mut self.broker,
                    Door::Demo => &mut self.demo,
                };
                match listeners.accept() {
                    None => break,
                    Some(Ok((stream, peer))) => {
                        let Some(conn) = self.core.accept(self.now, door, peer) else { continue };
                        if door == Door::Broker {
                            sockets::keep_alive(&stream);
                        }
                        let registry = self.poll.registry();
                        let channel = match door {
                            Door::Clients => self.keys.accept(|| {
                                self.core.outbox(conn).is_some_and(|words| !words.is_empty())
                            }),
                            Door::Metrics | Door::Broker | Door::Demo => None,
                        };
                        if let Err(error) = self.sockets.add(conn, stream, channel, registry) {
                            self.core.handle(self.now, Input::Lost(conn, &error.to_string()));
                        }
                    }
                    Some(Err(error)) => {
                        self.sockets.out_of_descriptors(self.now.mono);
                        let line = self.core.log().at(self.now, Level::Error, "cannot accept");
                        drop(line.display("error", error));
                        break;
                    }
                }
            }
        }
        if let Some(paused) = self.sockets.pause_changed(self.clients.is_ready()) {
            let event = if paused { "accepting paused" } else { "accepting again" };
            let line = self.core.log().at(self.now, Level::Warning, event);
            drop(line.number("sockets", self.sockets.len() as u64));
        }
    }

    /// Reads each ready socket once round, within its budget.
    fn read(&mut self) -> Result<(), String> {
        let mut shaken = Duration::ZERO;
        for _ in 0..self.sockets.readable_len() {
            let Some(conn) = self.sockets.next_readable() else { break };
            if self.sockets.is_shaking_hands(conn) {
                // Others are not to wait behind a crowd of handshakes.
                if shaken >= TLS_HANDSHAKES_PER_TURN {
                    self.sockets.read_later(conn);
                    continue;
                }
                let began = self.clock.now().mono;
                self.read_socket(conn)?;
                shaken += self.clock.now().mono.since(began);
                self.reply();
                continue;
            }
            // Messages are not taken in faster than fan-outs go out: others have their turn.
            if self.core.backlog() > BULK_WRITES_PER_TURN
                && matches!(self.core.kind(conn), Some(Kind::Redis(_) | Kind::Broker))
            {
                self.sockets.read_later(conn);
                continue;
            }
            self.read_socket(conn)?;
            self.reply();
        }
        Ok(())
    }

    /// Writes the replies to what was just read, while all that they touch is at hand. Commands to
    /// Redis wait: those of a turn go together. Replies that came with some go after them: who
    /// hears that a subscription has ended may look for it at Redis.
    fn reply(&mut self) {
        self.collect_prompts();
        let outboxes = self.commands.iter().filter_map(|&conn| self.core.outbox(conn));
        let commanded = outboxes.map(Outbox::bytes).sum();
        if std::mem::replace(&mut self.commanded, commanded) != commanded {
            return self.later.append(&mut self.answers);
        }
        while let Some(conn) = self.answers.pop_front() {
            self.flush_socket(conn);
            self.collect_prompts();
        }
    }

    fn collect_prompts(&mut self) {
        while let Some(conn) = self.core.next_prompt() {
            let is_client = self.core.outbox(conn).is_some_and(Outbox::is_client);
            let is_redis = !is_client && matches!(self.core.kind(conn), Some(Kind::Redis(_)));
            if is_redis { self.commands.push(conn) } else { self.answers.push_back(conn) }
        }
    }

    fn read_socket(&mut self, conn: ConnId) -> Result<(), String> {
        let mut budget = self.core.appetite(conn);
        if budget == 0 {
            self.sockets.read_later(conn);
            return Ok(());
        }
        while self.core.wants_read(conn) {
            let room = budget.min(self.scratch.len());
            let input = match self.sockets.read(conn, &mut self.scratch[..room]) {
                Read::Bytes(bytes, drained) => {
                    let input = Input::Received(conn, &self.scratch[..bytes]);
                    self.core.handle(self.now, input);
                    budget = budget.saturating_sub(bytes);
                    if bytes == self.scratch.len() && bytes < SCRATCH_BYTES {
                        self.scratch.resize(2 * bytes, 0);
                    }
                    if drained {
                        return Ok(());
                    }
                    if budget == 0 {
                        self.sockets.read_later(conn);
                        return Ok(());
                    }
                    continue;
                }
                Read::Nothing => return Ok(()),
                Read::Ended => Input::Ended(conn),
                Read::Failed(why) => {
                    self.core.handle(self.now, Input::Lost(conn, &why));
                    return Ok(());
                }
            };
            self.core.handle(self.now, input);
            return Ok(());
        }
        Ok(())
    }

    /// Does what the core asks; gives the status to exit with.
    fn obey(&mut self) -> Result<Option<i32>, String> {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Listen => self.listen()?,
                Output::StopListening => {
                    self.clients.close(self.poll.registry());
                    self.notifier.turn(self.now.mono, Phase::Stopping);
                }
                Output::Connect { conn, to } => self.dial(conn, to),
                Output::HalfClose(conn) => self.sockets.half_close(conn, self.core.outbox(conn)),
                Output::Acknowledge(conn) => self.sockets.acknowledge(conn),
                Output::Close(conn) => self.sockets.close(conn),
                Output::Resume(conn) => self.sockets.resume(conn),
                Output::Resolve(host) => self.resolver.ask(&host),
                Output::Scrape(conn) => self.scrapes.push_back(conn),
                // Whoever started this may have stopped listening.
                Output::Say(text) => drop(io::stdout().lock().write_all(text.as_bytes())),
                Output::Exit(status) => return Ok(Some(status)),
                Output::Fail(problem) => return Err(problem),
            }
        }
        Ok(None)
    }

    fn dial(&mut self, conn: ConnId, to: SocketAddr) {
        let name = self.core.tls_name(conn);
        let channel = name.map(|name| self.keys.dial(self.core.kind(conn), name)).transpose();
        let registry = self.poll.registry();
        let dialled = channel
            .map_err(io::Error::other)
            .and_then(|channel| self.sockets.dial(conn, to, channel, registry));
        match dialled {
            Ok(()) => {}
            Err(error) if sockets::is_shortage(&error) => {
                // The peer has done nothing wrong: its time runs, but the dial is not lost yet.
                if self.sockets.put_off(conn, to, self.now.mono) {
                    let line = self.core.log().at(self.now, Level::Warning, "connecting paused");
                    drop(line.display("error", error));
                }
                self.core.handle(self.now, Input::Shortage);
            }
            Err(error) => self.core.handle(self.now, Input::Lost(conn, &error.to_string())),
        }
    }

    /// Dials once more where there was no descriptor, once some may be free.
    fn dial_again(&mut self) {
        for (conn, to) in self.sockets.take_put_off(self.now.mono) {
            if self.core.kind(conn).is_some() {
                self.dial(conn, to);
            }
        }
    }

    /// Answers some of those who want to see the metrics.
    fn answer_scrapes(&mut self) {
        let mut figures = None;
        for _ in 0..SCRAPES_PER_TURN {
            let Some(conn) = self.scrapes.pop_front() else { break };
            let figures = figures.get_or_insert_with(|| process::figures(self.started));
            self.core.scrape(self.now, conn, figures);
        }
    }

    fn listen(&mut self) -> Result<(), String> {
        let config = self.config.clone();
        let registry = self.poll.registry();
        self.clients
            .open(&config.ws_host, config.ws_port, config.ws_reuse_port, registry)
            .map_err(|problem| with_mend(problem, "WS_HOST and WS_PORT"))?;
        if let Some(address) = self.clients.address() {
            self.core.handle(self.now, Input::Listening(address));
        }
        Ok(())
    }

    /// How the process is; `Phase::Stopping` is told where it begins.
    fn phase(&mut self) -> Phase {
        match (self.clients.is_open(), self.core.metrics().ready) {
            (false, _) => Phase::Starting,
            (true, true) => Phase::Serving,
            (true, false) => Phase::Refusing,
        }
    }

    /// Writes what waits: all replies, and of fan-outs as much as a turn may take.
    fn flush(&mut self) {
        loop {
            self.collect_prompts();
            let next = self.commands.pop().or_else(|| self.later.pop_front());
            let Some(conn) = next.or_else(|| self.answers.pop_front()) else { break };
            self.flush_socket(conn);
        }
        self.commanded = 0;
        for _ in 0..BULK_WRITES_PER_TURN {
            let Some(conn) = self.core.next_bulk() else { break };
            self.flush_socket(conn);
        }
        self.sockets.end_writing();
    }

    fn flush_socket(&mut self, conn: ConnId) {
        let Some(outbox) = self.core.outbox(conn) else { return };
        match self.sockets.write(conn, outbox) {
            Flushed::Written(bytes) => self.core.written(self.now, conn, bytes),
            Flushed::Blocked(bytes) => self.core.blocked(self.now, conn, bytes),
            Flushed::Failed(why) => {
                self.core.handle(self.now, Input::Lost(conn, &why));
                return;
            }
        }
        if self.core.outbox(conn).is_some_and(|outbox| outbox.is_empty()) {
            self.sockets.emptied(conn);
        }
    }

    fn write_log(&mut self) {
        let log = self.core.log();
        if log.is_empty() {
            return;
        }
        let text = log.take();
        let mut dropped = log.take_dropped();
        dropped += self.stderr.write(text);
        self.core.metrics().log_lines_dropped += dropped;
    }
}

/// What sockets are registered for, once and for all: readiness comes as edges.
const ALL: Interest = Interest::READABLE.add(Interest::WRITABLE);
