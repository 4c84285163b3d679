//! WebSocket clients between their connection and their session, and the peers at the metrics
//! port.

use std::net::{IpAddr, SocketAddr};

use super::{Engine, ScrapeSlot, desk};
use crate::arena::{ConnId, SessionId};
use crate::config::Level;
use crate::conn::access;
use crate::conn::client::{Client, ClientContext, Gone, Heard};
use crate::conn::scrape::{self, Asked, Scrape};
use crate::limits::{SCRAPES_MAX, TURNED_AWAY_MAX};
use crate::message::close_code;
use crate::metrics::{ProcessFigures, Refused, text};
use crate::ports::{Kind, Output};
use crate::route::Desk;
use crate::time::Instant;
use crate::timers::Timer;

/// One client's connection and what goes with it.
pub(super) struct ClientSlot {
    pub client: Client,
    /// Set while the session lives on this connection.
    pub session: Option<SessionId>,
    /// The address that this client counts for, as long as it has a socket; `None` where that is
    /// not limited.
    address: Option<IpAddr>,
    /// It was refused at the door, and is only there to hear so.
    turned_away: bool,
    /// The moment that a timer is set for.
    armed: Option<Instant>,
}

/// Lends a client everything it may touch.
macro_rules! client_context {
    ($engine:expr, $conn:expr, $session:expr) => {
        ClientContext {
            now: $engine.now,
            conn: $conn,
            session: $session,
            ports: &mut $engine.ports,
            log: &mut $engine.log,
            metrics: &mut $engine.metrics,
            config: &$engine.config,
            contexts: &mut $engine.contexts,
        }
    };
}

impl Engine {
    /// `None`: too many are being refused already.
    pub(super) fn accept_client(&mut self, peer: SocketAddr) -> Option<ConnId> {
        let limits = &self.config.limits;
        let inside = self.clients.len() - self.turned_away;
        let full = limits.max_connections > 0 && inside >= limits.max_connections;
        let is_proxy = self.config.ws_trusted_proxies.iter().any(|block| block.contains(peer.ip()));
        let refusal = if full {
            Some(Refused::TooMany)
        } else if !is_proxy && !self.has_room_for(access::counted_address(peer.ip())) {
            Some(Refused::TooManyFromAddress)
        } else {
            None
        };
        if let Some(reason) = refusal
            && self.turned_away >= TURNED_AWAY_MAX
        {
            self.metrics.refused[reason as usize] += 1;
            return None;
        }
        let conn = self.ports.open(Kind::Client, limits.send_queue_bytes);
        let client = Client::new(self.now, peer, &self.config);
        let turned_away = refusal.is_some();
        let slot = ClientSlot { client, session: None, address: None, turned_away, armed: None };
        self.clients.insert(conn, slot);
        if let Some(reason) = refusal {
            self.turned_away += 1;
            self.refuse(conn, reason);
        } else if !is_proxy {
            self.count_address(conn, access::counted_address(peer.ip()));
        }
        self.tend(conn);
        Some(conn)
    }

    /// Whether one more may come from an address.
    fn has_room_for(&self, address: IpAddr) -> bool {
        let most = self.config.limits.max_connections_per_ip;
        most == 0 || self.addresses.get(&address).is_none_or(|&count| count < most)
    }

    fn refuse(&mut self, conn: ConnId, reason: Refused) {
        if let Some(slot) = self.clients.get_mut(conn) {
            slot.client.refuse(reason, &mut client_context!(self, conn, None));
        }
    }

    /// Counts a client for its address, where that is limited.
    fn count_address(&mut self, conn: ConnId, address: IpAddr) {
        if self.config.limits.max_connections_per_ip == 0 {
            return;
        }
        *self.addresses.entry(address).or_default() += 1;
        if let Some(slot) = self.clients.get_mut(conn) {
            slot.address = Some(address);
        }
    }

    fn uncount_address(&mut self, conn: ConnId) {
        let slot = self.clients.get_mut(conn);
        let Some(address) = slot.and_then(|slot| slot.address.take()) else { return };
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Takes a client's bytes through its machine to its session.
    pub(super) fn hear_client(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(slot) = self.clients.get_mut(conn) {
            let session = slot.session;
            let heard = slot.client.next(&mut input, &mut client_context!(self, conn, session));
            let text = match &heard {
                None => break,
                Some(Heard::Text(text)) => text,
                // JSON in binary counts. What is not UTF-8 is no JSON: it takes its turn as such.
                Some(Heard::Binary(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
                Some(Heard::Request { address }) => {
                    self.admit(conn, *address);
                    continue;
                }
                Some(Heard::Gone(gone)) => {
                    self.gone(conn, *gone);
                    continue;
                }
            };
            let Some(session) = session else { continue };
            let full = self.router.command(session, text, &mut desk!(self));
            if let Some(Heard::Text(text)) = heard {
                self.contexts.reuse(text);
            }
            if full && let Some(slot) = self.clients.get_mut(conn) {
                slot.client.pause(input, &mut client_context!(self, conn, Some(session)));
                break;
            }
        }
        self.tend(conn);
    }

    /// Decides on a handshake that is in order.
    fn admit(&mut self, conn: ConnId, address: IpAddr) {
        if !self.is_serving() {
            return self.refuse(conn, Refused::NotReady);
        }
        let counted = access::counted_address(address);
        if self.clients.get(conn).and_then(|slot| slot.address) != Some(counted) {
            self.uncount_address(conn);
            if !self.has_room_for(counted) {
                return self.refuse(conn, Refused::TooManyFromAddress);
            }
            self.count_address(conn, counted);
        }
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let session = self.router.open(conn);
        slot.session = Some(session);
        slot.client.admit(&mut client_context!(self, conn, Some(session)));
        self.metrics.connections += 1;
        self.metrics.connections_total += 1;
        let line = self.log.at(self.now, Level::Debug, "new session").session(session);
        drop(line.display("remote", address));
        self.log_connections();
    }

    /// A session's connection is over, or as good as.
    fn gone(&mut self, conn: ConnId, gone: Gone) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let Some(session) = slot.session.take() else { return };
        self.metrics.connections -= 1;
        let line = self.log.at(self.now, Level::Info, "connection closed").session(session);
        drop(line.number("code", gone.code.into()).text("reason", gone.reason));
        self.log_connections();
        self.router.departed(session, gone.by_client, &mut desk!(self));
    }

    fn log_connections(&mut self) {
        if self.config.metrics.log {
            let line = self.log.at(self.now, Level::Debug, "metrics");
            let line = line.number("active_connections", self.metrics.connections);
            drop(line.number("total_connections", self.metrics.connections_total));
        }
    }

    /// Closes a client for a reason of ours.
    pub(super) fn close_client(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let session = slot.session;
        slot.client.close(code, &mut client_context!(self, conn, session));
        self.gone(conn, Gone { code, by_client: false, reason });
        self.tend(conn);
    }

    pub(super) fn close_all_clients(&mut self, code: u16, reason: &'static str) {
        for conn in self.clients.ids() {
            self.close_client(conn, code, reason);
        }
    }

    pub(super) fn too_slow(&mut self, conn: ConnId) {
        self.at_broker(|broker, context| broker.too_slow(conn, context));
        // Asked for more than once in a turn, it is closed once.
        if self.clients.get(conn).is_some_and(|slot| slot.session.is_some()) {
            self.close_client(conn, close_code::TRY_AGAIN_LATER, "slow consumer");
        }
    }

    /// The session has room for events again.
    pub(super) fn resume(&mut self, conn: ConnId) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let session = slot.session;
        slot.client.resume(&mut client_context!(self, conn, session));
        self.hear_client(conn, &[]);
    }

    pub(super) fn client_leaving(&mut self, conn: ConnId) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        slot.client.leaving(self.now, &self.config);
        self.tend(conn);
    }

    pub(super) fn client_ended(&mut self, conn: ConnId) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let session = slot.session;
        let heard = slot.client.ended(&mut client_context!(self, conn, session));
        self.heard_end(conn, heard);
    }

    pub(super) fn client_lost(&mut self, conn: ConnId) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        let session = slot.session;
        let heard = slot.client.lost(&mut client_context!(self, conn, session));
        self.heard_end(conn, heard);
    }

    pub(super) fn client_due(&mut self, conn: ConnId, at: Instant) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        // An earlier one was set meanwhile. If this one set another, there would be more and more.
        if slot.armed != Some(at) {
            return;
        }
        let session = slot.session;
        slot.armed = None;
        let heard = slot.client.due(&mut client_context!(self, conn, session));
        self.heard_end(conn, heard);
    }

    fn heard_end(&mut self, conn: ConnId, heard: Option<Heard>) {
        if let Some(Heard::Gone(gone)) = heard {
            self.gone(conn, gone);
        }
        self.tend(conn);
    }

    /// Something was written: a closing connection may be done.
    pub(super) fn flushed(&mut self, conn: ConnId) {
        let Some(outbox) = self.ports.mail.outbox(conn) else { return };
        // In a fan-out this is asked for each receiver: nothing else is looked up for a client.
        if !outbox.is_client() {
            return self.other_flushed(conn);
        }
        let done = outbox.is_sealed() && outbox.is_empty();
        if done && let Some(slot) = self.clients.get_mut(conn) {
            let session = slot.session;
            slot.client.flushed(&mut client_context!(self, conn, session));
            self.tend(conn);
        }
    }

    fn other_flushed(&mut self, conn: ConnId) {
        if self.ports.kind(conn) == Some(Kind::Broker) {
            self.broker_flushed(conn);
        }
    }

    /// After each dealing with a client: forgets it when it is over, else sees to its timer.
    fn tend(&mut self, conn: ConnId) {
        let Some(slot) = self.clients.get_mut(conn) else { return };
        if slot.client.is_over() {
            self.turned_away -= usize::from(slot.turned_away);
            self.uncount_address(conn);
            self.clients.remove(conn);
            return;
        }
        let Some(deadline) = slot.client.deadline() else { return };
        // A timer that comes too early looks at the deadline anew; only an earlier one is needed.
        if slot.armed.is_none_or(|armed| armed > deadline) {
            slot.armed = Some(deadline);
            self.timers.set(deadline, Timer::Connection(conn));
        }
    }

    // ----------------------------------------------------------------- scrapes

    pub(super) fn accept_scrape(&mut self) -> Option<ConnId> {
        if self.scrapes.len() >= SCRAPES_MAX {
            return None;
        }
        let conn = self.ports.open(Kind::Scrape, usize::MAX);
        let scrape = Scrape::new(self.now);
        self.scrapes.insert(conn, ScrapeSlot { scrape, armed: None });
        self.tend_scrape(conn);
        Some(conn)
    }

    pub(super) fn hear_scrape(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        let mut context = scrape::Context { now: self.now, id: conn, ports: &mut self.ports };
        let asked = slot.scrape.next(&mut { bytes }, &mut context);
        match asked {
            None => {}
            Some(Asked::Metrics) => self.ports.ask(Output::Scrape(conn)),
            Some(Asked::Health) => self.answer(conn, 200, "text/plain", "ok\n"),
            Some(Asked::Ready) => match self.unready() {
                None => self.answer(conn, 200, "text/plain", "ready\n"),
                Some(reason) => self.answer(conn, 503, "text/plain", &format!("{reason}\n")),
            },
        }
        self.tend_scrape(conn);
    }

    pub(super) fn answer_scrape(&mut self, conn: ConnId, figures: &ProcessFigures) {
        if self.scrapes.get(conn).is_none() {
            return;
        }
        self.metrics.bytes_sent = self.ports.mail.sent();
        self.metrics.send_queue_bytes = self.ports.mail.bytes() as u64;
        let body = text::render(&self.metrics, figures, env!("CARGO_PKG_VERSION"));
        self.answer(conn, 200, text::CONTENT_TYPE, &body);
        self.tend_scrape(conn);
    }

    fn answer(&mut self, conn: ConnId, status: u16, content_type: &str, body: &str) {
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        let mut context = scrape::Context { now: self.now, id: conn, ports: &mut self.ports };
        slot.scrape.answer(status, content_type, body, &mut context);
    }

    pub(super) fn scrape_ended(&mut self, conn: ConnId) {
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        slot.scrape.ended(&mut scrape::Context { now: self.now, id: conn, ports: &mut self.ports });
        self.tend_scrape(conn);
    }

    pub(super) fn scrape_lost(&mut self, conn: ConnId) {
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        slot.scrape.lost(&mut scrape::Context { now: self.now, id: conn, ports: &mut self.ports });
        self.tend_scrape(conn);
    }

    pub(super) fn scrape_due(&mut self, conn: ConnId, at: Instant) {
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        if slot.armed != Some(at) {
            return;
        }
        slot.armed = None;
        slot.scrape.due(&mut scrape::Context { now: self.now, id: conn, ports: &mut self.ports });
        self.tend_scrape(conn);
    }

    fn tend_scrape(&mut self, conn: ConnId) {
        if self.ports.kind(conn).is_none() {
            self.scrapes.remove(conn);
            return;
        }
        let Some(slot) = self.scrapes.get_mut(conn) else { return };
        let Some(deadline) = slot.scrape.deadline() else { return };
        if slot.armed.is_none_or(|armed| armed > deadline) {
            slot.armed = Some(deadline);
            self.timers.set(deadline, Timer::Connection(conn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use crate::config;
    use crate::engine::{Engine, Setup};
    use crate::ports::{Core, Door, Input};
    use crate::time::{Instant, Now, Wall};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    /// Takes what waits for a connection.
    fn written(engine: &mut Engine, now: Now, conn: crate::arena::ConnId) -> Vec<u8> {
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let used = engine.outbox(conn).map_or(0, |outbox| outbox.slices_from(0, &mut slices));
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|it| it.iter().copied()).collect();
        engine.written(now, conn, bytes.len());
        bytes
    }

    #[test]
    fn a_client_that_answers_pings_gathers_no_timers() {
        let text = r#"{"BROKER": {"port": 0}, "WS_PING": {"interval": 2, "timeout": 3}}"#;
        let config = config::parse(text, &|_| None).expect("the configuration is in order");
        let mut engine = Engine::new(Rc::new(config), Setup { seed: 1, pid: 1, terminal: false });
        let mut now = Now { mono: Instant::ZERO, wall: Wall(0) };
        engine.start(now);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9000));
        engine.handle(now, Input::Listening(address));
        let conn = engine.accept(now, Door::Clients, address).expect("there is room");
        engine.handle(now, Input::Received(conn, REQUEST));
        assert!(written(&mut engine, now, conn).starts_with(b"HTTP/1.1 101"));
        let mut pings = 0;
        while pings < 100 {
            now.mono = engine.next_deadline().expect("a ping is due").max(now.mono);
            engine.handle(now, Input::Tick);
            if let [0x89, 4, payload @ ..] = written(&mut engine, now, conn).as_slice() {
                let pong = [&[0x8a, 0x84, 0, 0, 0, 0], payload].concat();
                engine.handle(now, Input::Received(conn, &pong));
                pings += 1;
            }
            assert!(engine.timers.len() < 5, "{} timers for one client", engine.timers.len());
        }
    }
}
