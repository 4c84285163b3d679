//! Owns all state machines and carries what they say to one another; the only room that knows
//! both `conn` and `route`.
//!
//! One entry for inputs (`handle`), one drain for outputs (`poll`), one deadline
//! (`next_deadline`). It opens no socket and reads no clock: the shell does, or a simulation.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::arena::{ConnId, ConnTag, Table};
use crate::config::Config;
use crate::conn::broker::Broker;
use crate::conn::calls::{CallContext, CallId, Calls};
use crate::conn::redis::Link;
use crate::conn::scrape::Scrape;
use crate::limits::{READ_BYTES_PER_TURN, TIMERS_PER_TURN};
use crate::log::Log;
use crate::message::Hook;
use crate::metrics::{Metrics, ProcessFigures, RedisMetrics};
use crate::outbox::TooSlow;
use crate::ports::{Core, Door, Input, Kind, Ports};
use crate::random::Random;
use crate::route::{Asks, ChannelChange, Desk, Router};
use crate::time::{Instant, Now, soonest};
use crate::timers::{Timer, Timers};
use crate::wire::ws::Contexts;

mod broker;
mod clients;
mod links;
mod service;

use clients::ClientSlot;
use links::Confirmations;
use service::State;

/// What the engine is started with besides its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// For jitter; nothing secret hangs on it.
    pub seed: u64,
    pub pid: u32,
    /// Whether log lines go to a terminal.
    pub terminal: bool,
}

/// A peer at the metrics port.
struct ScrapeSlot {
    scrape: Scrape,
    armed: Option<Instant>,
}

/// The whole program but its system calls.
pub struct Engine {
    config: Rc<Config>,
    setup: Setup,
    state: State,
    /// A signal has asked to stop.
    stop_requested: bool,
    now: Now,
    ports: Ports,
    timers: Timers,
    random: Random,
    log: Log,
    metrics: Metrics,
    clients: Table<ConnTag, ClientSlot>,
    /// Clients by address, where that is limited.
    addresses: HashMap<IpAddr, usize>,
    /// Clients that are being refused since there are too many.
    turned_away: usize,
    contexts: Contexts,
    scrapes: Table<ConnTag, ScrapeSlot>,
    /// None where there is a broker.
    links: Vec<Link>,
    broker: Option<Broker>,
    /// What was read from a Redis, or a peer of the broker, and has to wait for the next turn.
    unread: BTreeMap<ConnId, Vec<u8>>,
    confirmations: Confirmations,
    calls: Calls,
    router: Router,
    asks: Asks,
}

/// Lends the router everything it may touch. A macro, since a method would borrow all of `self`.
macro_rules! desk {
    ($engine:expr) => {
        Desk {
            now: $engine.now,
            config: &$engine.config,
            mail: &mut $engine.ports.mail,
            timers: &mut $engine.timers,
            random: &mut $engine.random,
            log: &mut $engine.log,
            metrics: &mut $engine.metrics,
            calls: &$engine.calls,
            asks: &mut $engine.asks,
        }
    };
}
use desk;

impl Engine {
    pub fn new(config: Rc<Config>, setup: Setup) -> Engine {
        let broker = config.broker.as_ref();
        let broker = broker.map(|broker| Broker::new(broker, &config, setup.pid));
        let redis = std::iter::once(&config.redis).chain(&config.redis_alt);
        let redis = redis.filter(|_| broker.is_none());
        let links: Vec<Link> =
            redis.enumerate().map(|(index, redis)| Link::new(index, redis.clone())).collect();
        let metrics =
            Metrics { redis: vec![RedisMetrics::default(); links.len()], ..Metrics::default() };
        Engine {
            log: Log::new(&config.log, setup.pid, setup.terminal),
            config,
            setup,
            state: State::Starting,
            stop_requested: false,
            now: Now::default(),
            ports: Ports::default(),
            timers: Timers::default(),
            random: Random::seeded(setup.seed),
            metrics,
            clients: Table::default(),
            addresses: HashMap::new(),
            turned_away: 0,
            contexts: Contexts::default(),
            scrapes: Table::default(),
            unread: BTreeMap::new(),
            links,
            broker,
            confirmations: Confirmations::default(),
            calls: Calls::default(),
            router: Router::default(),
            asks: Asks::default(),
        }
    }
}

impl Core for Engine {
    fn start(&mut self, now: Now) {
        self.set_now(now);
        self.begin();
    }

    fn accept(&mut self, now: Now, door: Door, peer: SocketAddr) -> Option<ConnId> {
        self.set_now(now);
        match door {
            // The port is being closed: a handshake would only delay the end.
            Door::Clients if self.is_stopping() => None,
            Door::Clients => self.accept_client(peer),
            Door::Metrics => self.accept_scrape(),
            Door::Broker => self.accept_broker(peer),
            // The demo's own, around this engine.
            Door::Demo => None,
        }
    }

    fn handle(&mut self, now: Now, input: Input<'_>) {
        self.set_now(now);
        match input {
            Input::Listening(address) => self.listening(address),
            Input::Connected(conn) => self.connected(conn),
            Input::Received(conn, bytes) => self.received(conn, bytes),
            Input::Leaving(conn) => self.client_leaving(conn),
            Input::Ended(conn) => self.ended(conn),
            Input::Lost(conn, why) => self.lost(conn, why),
            Input::Shortage => {
                let (calls, mut context) = self.lend_calls();
                calls.close_idle(&mut context);
            }
            Input::Resolved(host, result) => self.resolved(host, &result),
            Input::Tick => self.tick(),
            Input::Stop => self.stop_requested(),
            Input::Reload(result) => self.reload(result),
        }
        self.settle();
    }

    fn written(&mut self, now: Now, conn: ConnId, bytes: usize) {
        self.set_now(now);
        self.ports.mail.written(conn, bytes);
        self.flushed(conn);
    }

    fn blocked(&mut self, now: Now, conn: ConnId, bytes: usize) {
        self.set_now(now);
        let result = self.ports.mail.blocked(conn, bytes);
        self.flushed(conn);
        if result == Err(TooSlow) {
            self.too_slow(conn);
            self.settle();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let links = self.links.iter().map(Link::next_deadline).fold(None, soonest);
        soonest(soonest(self.timers.next_deadline(), self.calls.next_deadline()), links)
    }

    fn wants_read(&self, conn: ConnId) -> bool {
        if let Some(slot) = self.clients.get(conn) {
            return slot.client.wants_read();
        }
        match self.ports.kind(conn) {
            _ if self.unread.contains_key(&conn) => false,
            Some(Kind::Broker) => self.broker.as_ref().is_none_or(|broker| broker.wants_read(conn)),
            kind => kind.is_some(),
        }
    }

    fn has_work(&self) -> bool {
        !self.unread.is_empty()
            || self.router.has_work()
            || self.ports.has_outputs()
            || self.ports.mail.has_work()
    }

    fn appetite(&self, conn: ConnId) -> usize {
        if let Some(slot) = self.clients.get(conn) {
            return slot.client.appetite();
        }
        match self.ports.kind(conn) {
            Some(Kind::Callback) => self.calls.appetite(),
            _ => READ_BYTES_PER_TURN,
        }
    }

    fn tls_name(&self, conn: ConnId) -> Option<&str> {
        match self.ports.kind(conn)? {
            Kind::Redis(index) => self.links.get(index)?.tls_name(),
            Kind::Callback => self.calls.tls_name(conn),
            Kind::Client | Kind::Scrape | Kind::Broker | Kind::Demo => None,
        }
    }

    fn scrape(&mut self, now: Now, conn: ConnId, figures: &ProcessFigures) {
        self.set_now(now);
        self.answer_scrape(conn, figures);
        self.settle();
    }

    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn ports_mut(&mut self) -> &mut Ports {
        &mut self.ports
    }

    fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    fn metrics(&mut self) -> &mut Metrics {
        &mut self.metrics
    }
}

impl Engine {
    // ------------------------------------------------------------- dispatching

    fn set_now(&mut self, now: Now) {
        assert!(now.mono >= self.now.mono, "time does not run backwards");
        self.now = now;
    }

    fn connected(&mut self, conn: ConnId) {
        match self.ports.kind(conn) {
            Some(Kind::Redis(index)) => self.link_connected(index, conn),
            Some(Kind::Callback) => {
                let (calls, mut context) = self.lend_calls();
                calls.connected(conn, &mut context);
            }
            Some(Kind::Client | Kind::Scrape | Kind::Broker | Kind::Demo) | None => {}
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        // Nearly all connections are clients: these are not asked for in two registers.
        if self.clients.contains(conn) {
            self.metrics.bytes_received += bytes.len() as u64;
            return self.hear_client(conn, bytes);
        }
        match self.ports.kind(conn) {
            Some(Kind::Redis(index)) => self.hear_link(index, conn, bytes),
            Some(Kind::Callback) => {
                let (calls, mut context) = self.lend_calls();
                calls.received(conn, bytes, &mut context);
            }
            Some(Kind::Scrape) => self.hear_scrape(conn, bytes),
            Some(Kind::Broker) => self.hear_broker(conn, bytes),
            Some(Kind::Client | Kind::Demo) | None => {}
        }
    }

    fn ended(&mut self, conn: ConnId) {
        match self.ports.kind(conn) {
            Some(Kind::Client) => self.client_ended(conn),
            Some(Kind::Redis(index)) => self.link_lost(index, conn, "closed by the server"),
            Some(Kind::Callback) => {
                let (calls, mut context) = self.lend_calls();
                calls.ended(conn, &mut context);
            }
            Some(Kind::Scrape) => self.scrape_ended(conn),
            Some(Kind::Broker) => self.at_broker(|broker, context| broker.ended(conn, context)),
            Some(Kind::Demo) | None => {}
        }
    }

    fn lost(&mut self, conn: ConnId, why: &str) {
        match self.ports.kind(conn) {
            Some(Kind::Client) => self.client_lost(conn),
            Some(Kind::Redis(index)) => self.link_lost(index, conn, why),
            Some(Kind::Callback) => {
                let (calls, mut context) = self.lend_calls();
                calls.lost(conn, why, &mut context);
            }
            Some(Kind::Scrape) => self.scrape_lost(conn),
            Some(Kind::Broker) => self.at_broker(|broker, context| broker.lost(conn, context)),
            Some(Kind::Demo) | None => {}
        }
    }

    fn resolved(&mut self, host: &str, result: &Result<Vec<IpAddr>, String>) {
        let (calls, mut context) = self.lend_calls();
        let addresses = result.as_ref().map(Vec::as_slice).map_err(String::as_str);
        calls.resolved(host, addresses, &mut context);
        self.links_resolved(host, result);
    }

    fn tick(&mut self) {
        self.router.turn(&mut desk!(self));
        for _ in 0..TIMERS_PER_TURN {
            let Some((at, timer)) = self.timers.take_due(self.now.mono) else { break };
            match timer {
                Timer::Connection(conn) => self.connection_due(conn, at),
                Timer::Start => self.start_timed_out(),
                Timer::Shutdown => self.shutdown_timed_out(),
                Timer::Renewal(_) | Timer::Heartbeat(_) | Timer::Throttle(_) => {
                    self.router.due(at, timer, &mut desk!(self));
                }
            }
        }
        let (ports, router) = (&self.ports, &self.router);
        self.timers.sweep(|timer| match timer {
            Timer::Connection(conn) => ports.kind(conn).is_some(),
            Timer::Renewal(id) | Timer::Heartbeat(id) | Timer::Throttle(id) => router.knows(id),
            Timer::Start | Timer::Shutdown => true,
        });
        let (calls, mut context) = self.lend_calls();
        calls.due(&mut context);
        self.links_due();
        self.read_on();
    }

    fn connection_due(&mut self, conn: ConnId, at: Instant) {
        match self.ports.kind(conn) {
            Some(Kind::Client) => self.client_due(conn, at),
            Some(Kind::Scrape) => self.scrape_due(conn, at),
            Some(Kind::Broker) => self.at_broker(|broker, context| broker.due(conn, context)),
            Some(Kind::Redis(_) | Kind::Callback | Kind::Demo) | None => {}
        }
    }

    /// Carries around what the machines ask of each other until nobody asks any more.
    fn settle(&mut self) {
        loop {
            if let Some(call) = self.asks.calls.pop_front() {
                let (calls, mut context) = self.lend_calls();
                calls.start(call, &mut context);
            } else if let Some((owner, answer)) = self.calls.next_finished() {
                self.router.answered(owner, &answer, &mut desk!(self));
            } else if let Some(change) = self.asks.channels.pop_front() {
                match change {
                    ChannelChange::Join(channel) => self.join(channel),
                    ChannelChange::Leave(channel) => self.leave(&channel),
                }
            } else if let Some(conn) = self.asks.too_slow.pop() {
                self.too_slow(conn);
            } else if let Some(conn) = self.asks.resume.pop() {
                self.resume(conn);
            } else {
                break;
            }
        }
        self.finish_if_done();
    }

    fn lend_calls(&mut self) -> (&mut Calls, CallContext<'_>) {
        let context = CallContext {
            now: self.now,
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            http: &self.config.http,
        };
        (&mut self.calls, context)
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        self.ports.mail.audit();
        self.calls.audit();
        self.router.audit();
        self.router.audit_parked(&self.ports.mail);
        self.broker.iter().for_each(Broker::audit);
        let sessions = self.clients.iter().filter(|(_, slot)| slot.session.is_some()).count();
        assert!(sessions <= self.router.sessions(), "a client's session is known");
        assert_eq!(sessions as u64, self.metrics.connections, "connections are counted");
    }

    /// What is left of anything: zero all over once everybody has gone.
    pub fn left_over(&self) -> LeftOver {
        LeftOver {
            clients: self.clients.len(),
            sessions: self.router.sessions(),
            calls: self.calls.unfinished(),
            addresses: self.addresses.len(),
            bytes: self.ports.mail.bytes(),
        }
    }

    /// The channels that the router reads at Redis.
    pub fn channels(&self) -> Vec<&str> {
        self.router.channels().collect()
    }

    /// The callbacks that have not ended: the hook and the body of each.
    pub fn callbacks(&self) -> impl Iterator<Item = (CallId, Hook, &[u8])> {
        self.calls.under_way()
    }
}

/// What a process that should be at rest still holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LeftOver {
    pub clients: usize,
    pub sessions: usize,
    pub calls: usize,
    pub addresses: usize,
    pub bytes: usize,
}
