//! Connections and sessions of clients: handshake, order of events, back-pressure, departure
//! (sections 3, 7, 8).

use std::collections::VecDeque;
use std::rc::Rc;

use socketshark::arena::ConnId;
use socketshark::ports::Output;
use socketshark::time::Instant;

use super::events::Hand;
use super::pings::Pings;
use super::{Expected, Model, Seen, Serving, SessionKey, SubKey};
use crate::marks::{Ask, Asked, Fields, Heard, with_digits};
use crate::wire::frames::Said;

/// A client's connection.
pub struct Conn {
    state: State,
    /// When it was accepted, or when the last words were said.
    since: Instant,
    /// Where it comes from.
    address: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Upgrading,
    Session(SessionKey),
    /// The last words are said.
    Over,
}

/// A session, until its last subscription is left.
pub struct Session {
    pub conn: ConnId,
    /// Connected.
    pub open: bool,
    /// None: not authenticated.
    pub auth: Option<Fields>,
    /// Confirmed subscriptions in their order, expiring ones among them.
    pub subs: Vec<SubKey>,
    /// The event in hand.
    pub(super) hand: Option<Hand>,
    waiting: VecDeque<Rc<Ask>>,
    /// Not read because of back-pressure; what has come already.
    paused: bool,
    rest: VecDeque<Heard>,
    /// A frame that breaks a rule has begun.
    fault: Option<u16>,
    pub(super) pings: Pings,
}

impl Session {
    fn is_full(&self, events: usize, bytes: usize) -> bool {
        let waiting: usize = self.waiting.iter().map(|ask| ask.bytes).sum();
        self.hand.is_some() && (self.waiting.len() >= events || waiting > bytes)
    }

    /// Events that are not answered.
    pub fn pending(&self) -> usize {
        1 + self.waiting.len() + self.rest.len()
    }

    pub fn is_idle(&self) -> bool {
        self.hand.is_none() && self.waiting.is_empty()
    }
}

impl Model {
    pub(super) fn accepted(&mut self, conn: Option<ConnId>, address: u8, seen: &Seen) {
        let conn = conn.expect("every client gets an answer");
        let said = seen.said.get(&conn).map_or(&[][..], Vec::as_slice);
        let refused = said.iter().find_map(|said| match said {
            Said::Head(status, _) => Some(*status),
            _ => None,
        });
        // One that was refused may count until its connection is closed.
        let is_full = |of: &dyn Fn(&Conn) -> bool, most: usize, status: u16| {
            let counted = self.conns.values().filter(|other| of(other));
            let open = counted.clone().filter(|other| other.state != State::Over).count();
            let must = most > 0 && open >= most;
            must || (most > 0 && counted.count() >= most && refused == Some(status))
        };
        let limits = &self.rules.limits;
        let (all, some) = (limits.connections, limits.per_address);
        let status = if is_full(&|_| true, all, 503) {
            Some(503)
        } else if is_full(&|other| other.address == address, some, 429) {
            Some(429)
        } else {
            None
        };
        self.conns.insert(conn, Conn { state: State::Upgrading, since: self.now, address });
        if let Some(status) = status {
            self.refuse(conn, status);
        }
    }

    fn refuse(&mut self, conn: ConnId, status: u16) {
        self.step.heads.insert(conn, status);
        self.over(conn);
    }

    fn over(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.state = State::Over;
            conn.since = self.now;
        }
    }

    /// Whether a connection's session is connected.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.session_of(conn).is_some()
    }

    pub(super) fn session_of(&self, conn: ConnId) -> Option<SessionKey> {
        match self.conns.get(&conn)?.state {
            State::Session(key) => Some(key),
            _ => None,
        }
    }

    /// A session is read unless as many events wait as may.
    pub fn check_reading(&self, wants_read: impl Fn(ConnId) -> bool) {
        for session in self.sessions.values().filter(|session| session.open) {
            let (conn, paused) = (session.conn, session.paused);
            assert_eq!(wants_read(conn), !paused, "{conn}: back-pressure");
        }
    }

    /// When the handshake's or the last words' time is up.
    pub(super) fn conns_due(&self) -> impl Iterator<Item = Instant> {
        let limits = &self.rules.limits;
        self.conns.values().filter_map(|conn| match conn.state {
            State::Upgrading => Some(conn.since.after(limits.handshake)),
            State::Over => Some(conn.since.after(limits.close)),
            State::Session(_) => None,
        })
    }

    /// Connections that the handshake's or the last words' time is up for.
    pub(super) fn handshakes_due(&mut self, seen: &Seen) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            let (state, since) = (self.conns[&id].state, self.conns[&id].since);
            let age = self.now.since(since);
            if state == State::Upgrading && age >= self.rules.limits.handshake {
                self.refuse(id, 408);
            }
            if state == State::Over && age >= self.rules.limits.close {
                let closed = seen.outputs.contains(&Output::Close(id));
                assert!(closed, "{id}: a client that does not go is dropped after close_timeout");
            }
        }
    }

    /// Forgets connections that the program has closed.
    pub(super) fn forget_conns(&mut self, seen: &Seen) {
        for output in &seen.outputs {
            if let Output::Close(conn) = output
                && let Some(conn) = self.conns.remove(conn)
            {
                let is_session = matches!(conn.state, State::Session(_));
                assert!(!is_session, "the connection of a live session is not closed");
            }
        }
    }

    pub(super) fn heard(&mut self, conn: ConnId, heard: &Heard) {
        let Some(state) = self.conns.get(&conn).map(|conn| conn.state) else { return };
        match (state, heard) {
            (State::Upgrading, Heard::Request) if self.serving == Serving::Yes => {
                self.open_session(conn);
            }
            (State::Upgrading, Heard::Request) => self.refuse(conn, 503),
            (State::Upgrading, Heard::BadRequest(status)) => self.refuse(conn, *status),
            (State::Upgrading, Heard::Fin) => self.over(conn),
            (State::Session(key), heard) => self.session_heard(key, heard.clone()),
            _ => {}
        }
    }

    fn open_session(&mut self, conn: ConnId) {
        let key = self.new_key();
        let session = Session {
            conn,
            open: true,
            auth: None,
            subs: Vec::new(),
            hand: None,
            waiting: VecDeque::new(),
            paused: false,
            rest: VecDeque::new(),
            fault: None,
            pings: Pings::new(self.now, self.rules.pings),
        };
        self.tally.sessions += 1;
        self.sessions.insert(key, session);
        self.step.heads.insert(conn, 101);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.state = State::Session(key);
        }
    }

    fn session_heard(&mut self, key: SessionKey, heard: Heard) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.open) else {
            return;
        };
        if session.paused {
            session.rest.push_back(heard);
            return;
        }
        match heard {
            Heard::Ask(ask) => self.ask(key, ask),
            Heard::Ping(payload) => {
                self.step.pongs.entry(session.conn).or_default().push(payload);
            }
            Heard::Pong(payload) => session.pings.pong(self.now, &payload),
            Heard::FaultBegins(code) => session.fault = Some(code),
            Heard::Fault => {
                let code = session.fault.expect("a fault has begun");
                self.close(key, code);
            }
            Heard::Close(code) => {
                self.step.closes.insert(session.conn, Some(code));
                self.depart(key, true);
            }
            Heard::Fin => self.depart(key, true),
            Heard::Request | Heard::BadRequest(_) => {}
        }
    }

    /// A fault may be found before the last byte of its frame has come.
    pub(super) fn find_fault(&mut self, key: SessionKey, seen: &Seen) {
        let Some(session) = self.sessions.get(&key).filter(|session| session.open) else { return };
        let Some(code) = session.fault else { return };
        let said = seen.said.get(&session.conn).map_or(&[][..], Vec::as_slice);
        if said.contains(&Said::Close(Some(code))) {
            self.close(key, code);
        }
    }

    /// A session's event: handled, or kept in order.
    fn ask(&mut self, key: SessionKey, ask: Rc<Ask>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.hand.is_none() && session.waiting.is_empty() {
            self.handle(key, &ask);
            self.advance(key);
        } else if let (true, Asked::Ping(data)) = (self.rules.pong_immediate, &ask.what) {
            let data = data.clone();
            self.pong(key, data);
        } else {
            session.waiting.push_back(ask);
        }
        let limits = &self.rules.limits;
        if let Some(session) = self.sessions.get_mut(&key)
            && session.open
            && session.is_full(limits.queued_events, limits.message_bytes)
        {
            session.paused = true;
            session.pings.hold(self.now);
        }
    }

    /// Lets a session without an event in hand take up the next one, or leave.
    pub(super) fn advance(&mut self, key: SessionKey) {
        while let Some(session) = self.sessions.get_mut(&key)
            && session.hand.is_none()
        {
            if let Some(ask) = session.waiting.pop_front() {
                self.handle(key, &ask);
            } else if session.open || !self.leave_next(key) {
                break;
            }
        }
    }

    /// Reads on where there is room again. Says whether there was any.
    pub(super) fn resume(&mut self, seen: &Seen) -> bool {
        let limits = &self.rules.limits;
        let has_room = |session: &Session| {
            session.paused && !session.is_full(limits.queued_events, limits.message_bytes)
        };
        let ready: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, it)| has_room(it)).map(|(key, _)| *key).collect();
        for &key in &ready {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.paused = false;
                session.pings.release(self.now);
            }
            while let Some(session) = self.sessions.get_mut(&key)
                && !session.paused
                && let Some(heard) = session.rest.pop_front()
            {
                self.session_heard(key, heard);
            }
            self.find_fault(key, seen);
        }
        !ready.is_empty()
    }

    /// A close from the program's side.
    pub(super) fn close(&mut self, key: SessionKey, code: u16) {
        if let Some(session) = self.sessions.get(&key).filter(|session| session.open) {
            self.step.closes.insert(session.conn, Some(Some(code)));
            self.depart(key, false);
        }
    }

    pub(super) fn client_lost(&mut self, conn: ConnId) {
        match self.conns.get(&conn).map(|conn| conn.state) {
            Some(State::Session(key)) => self.depart(key, true),
            Some(State::Upgrading) => self.over(conn),
            _ => {}
        }
    }

    /// A session's connection is over: it gets nothing more, and leaves its subscriptions.
    fn depart(&mut self, key: SessionKey, by_client: bool) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.open) else {
            return;
        };
        session.open = false;
        session.paused = false;
        session.rest.clear();
        if !by_client {
            session.waiting.clear();
        }
        let conn = session.conn;
        self.step.closes.entry(conn).or_insert(None);
        let in_hand = session.hand.as_ref().and_then(|hand| hand.sub);
        for sub in session.subs.clone().into_iter().chain(in_hand) {
            self.leave(sub);
        }
        self.over(conn);
        self.advance(key);
    }

    /// All clients are sent away: Redis is lost, or the program ends.
    pub(super) fn send_away(&mut self, code: u16) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            match self.conns[&id].state {
                State::Upgrading => self.refuse(id, 503),
                State::Session(key) => self.close(key, code),
                State::Over => {}
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.serving = Serving::Stopping;
        self.send_away(1001);
    }

    /// Clients that were closed because they read too slowly: that cannot be foreseen here, but
    /// it must have had a reason, which is there by now or, at the end, was there at some time.
    pub(super) fn closed_as_slow(&mut self, seen: &Seen, is_end: bool) {
        for (conn, said) in &seen.said {
            let Some(key) = self.session_of(*conn) else { continue };
            if !said.contains(&Said::Close(Some(1013))) {
                continue;
            }
            let held = self.held_bytes(key).max(self.step.held.get(&key).copied().unwrap_or(0));
            let texts = self.step.texts.get(conn).map_or(&[][..], Vec::as_slice);
            // What metadata a message may have.
            let besides = if self.rules.metadata && is_end { 250 } else { 0 };
            let new: usize = texts.iter().map(|text| text.bytes() + besides).sum();
            let ping = if self.step.pings.contains(conn) { PING_BYTES } else { 0 };
            let waited = seen.waiting.get(conn).copied().unwrap_or(0);
            let has_reason = waited + new + held + ping > self.rules.limits.send_queue;
            assert!(
                has_reason || !is_end,
                "{conn}: closed as too slow with {waited} bytes waiting, {new} new and {held} held"
            );
            if has_reason {
                self.tally.slow += 1;
                self.close(key, 1013);
            }
        }
    }
}

/// The frame of a ping.
const PING_BYTES: usize = 6;

impl Expected {
    /// The length of its frame, metadata aside.
    fn bytes(&self) -> usize {
        let text = with_digits(self.value.to_string()).len();
        let data = self.raw.as_ref().map_or(0, String::len);
        let shown = self.raw.as_ref().map_or(0, |_| self.value["data"].to_string().len());
        let text = text + data - shown;
        text + if text < 126 { 2 } else { 4 }
    }
}
