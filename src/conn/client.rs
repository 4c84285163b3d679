//! One WebSocket client, from its first byte to the end of its TCP connection.
//!
//! Upgrading → Awaiting (the engine's decision) → Open → Closing → Over. The machine reads bytes
//! and tells what was heard; it knows nothing of sessions, services or what a message means. An
//! idle open client holds no buffer: what is needed only in handshake or closing is boxed.
//!
//! After our last words (a refusal or a Close) the socket is half-closed and what still comes is
//! read and thrown away for a while: unread input would make the kernel send a reset, which could
//! overtake the words.

use std::mem;
use std::net::{IpAddr, SocketAddr};

use crate::arena::{ConnId, SessionId};
use crate::config::{Config, Level};
use crate::conn::access;
use crate::conn::ping_clock::{Due, PingClock};
use crate::limits::{CLIENT_READ_BYTES_PER_TURN, LINGER_BYTES_MAX, READ_BYTES_PER_TURN};
use crate::log::{Line, Log};
use crate::message::close_code;
use crate::metrics::{Metrics, Refused};
use crate::outbox::{Frame, Outbox, TooSlow};
use crate::ports::{Output, Ports};
use crate::time::{Instant, Now, soonest};
use crate::wire::upgrade::{self, Head, Refusal};
use crate::wire::ws::{self, Binary, Codec, Contexts, Event, Fault, Text};

/// A Close without a code, and none at all: values that never go over the wire (RFC 6455,
/// section 7.4.1).
const NO_STATUS: u16 = 1005;
const ABNORMAL: u16 = 1006;

/// What a client may touch outside itself, lent per call.
pub struct ClientContext<'a> {
    pub now: Now,
    pub conn: ConnId,
    /// For log lines.
    pub session: Option<SessionId>,
    pub ports: &'a mut Ports,
    pub log: &'a mut Log,
    pub metrics: &'a mut Metrics,
    pub config: &'a Config,
    pub contexts: &'a mut Contexts,
}

/// What was heard from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A handshake in order, from this address: `Client::admit` or `Client::refuse` it before
    /// anything else.
    Request { address: IpAddr },
    /// A text message; copy what outlives the turn.
    Text(Text),
    /// A binary message, likewise.
    Binary(Binary),
    /// The session is over; told once for each admitted client, unless the engine closed it.
    Gone(Gone),
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// The close code: the client's, or ours; 1005 for a Close without one, 1006 for none.
    pub code: u16,
    /// The client's own Close, or the end of its stream: events that were heard before still
    /// count. Otherwise it was us, and those that wait are dropped.
    pub by_client: bool,
    pub reason: &'static str,
}

/// One client's connection.
pub struct Client {
    state: State,
}

enum State {
    /// The request is not complete.
    Upgrading(Box<Upgrading>),
    /// The engine decides about the request.
    Awaiting(Box<Awaiting>),
    Open(Open),
    /// The last words are queued.
    Closing(Box<Closing>),
    /// The connection is closed.
    Over,
}

struct Upgrading {
    peer: IpAddr,
    head: Head,
    deadline: Instant,
}

struct Awaiting {
    address: IpAddr,
    /// The value of `Sec-WebSocket-Accept`.
    accept: String,
}

struct Open {
    codec: Codec,
    pings: PingClock,
    /// Input that waits until the session has room for more events.
    rest: Option<Box<Rest>>,
    paused: bool,
    /// The client's FIN was read; `Heard::Gone` waits for `rest` to be used up.
    ended: bool,
    /// The client's FIN has come, and until then what stands before it may be dealt with.
    leave_by: Option<Instant>,
}

struct Rest {
    bytes: Vec<u8>,
    read: usize,
}

struct Closing {
    until: Instant,
    /// Bytes that may still come.
    left: usize,
    /// To find the client's answer to our Close; none where the stream is out of step.
    codec: Option<Codec>,
    /// Nothing more will come from the client: only the last words have to be written.
    ended: bool,
}

/// Why an open connection ends.
#[derive(Clone, Copy)]
enum End {
    Close(Option<u16>),
    Fault(Fault),
    Eof,
    TooSlow,
    PingTimeout,
}

impl End {
    fn gone(self) -> Gone {
        match self {
            End::Close(code) => {
                let code = code.unwrap_or(NO_STATUS);
                Gone { code, by_client: true, reason: "closed by client" }
            }
            End::Eof => Gone { code: ABNORMAL, by_client: true, reason: "connection ended" },
            End::Fault(fault) => {
                Gone { code: fault.code(), by_client: false, reason: fault.reason() }
            }
            End::TooSlow => {
                let code = close_code::TRY_AGAIN_LATER;
                Gone { code, by_client: false, reason: "slow consumer" }
            }
            End::PingTimeout => {
                let code = close_code::INTERNAL_ERROR;
                Gone { code, by_client: false, reason: "ping timeout" }
            }
        }
    }
}

impl Client {
    /// A connection that was just accepted. `handshake_timeout` counts from here.
    pub fn new(now: Now, peer: SocketAddr, config: &Config) -> Client {
        let deadline = now.mono.after(config.limits.handshake_timeout);
        let peer = peer.ip().to_canonical();
        let upgrading = Upgrading { peer, head: Head::default(), deadline };
        Client { state: State::Upgrading(Box::new(upgrading)) }
    }

    /// Reads on until something is heard. `None`: all input is used up or kept. After a pause is
    /// over, it is to be called with no input first.
    pub fn next(&mut self, input: &mut &[u8], ctx: &mut ClientContext<'_>) -> Option<Heard> {
        match &mut self.state {
            State::Upgrading(_) => self.next_request(input, ctx),
            State::Awaiting(_) => unreachable!("the engine decides before it reads on"),
            State::Open(open) => match open.hear(input, ctx) {
                Ok(None) if open.ended && !open.paused => Some(self.end(End::Eof, ctx)),
                Ok(heard) => heard,
                Err(end) => Some(self.end(end, ctx)),
            },
            State::Closing(_) => {
                self.discard(input, ctx);
                None
            }
            State::Over => {
                *input = &[];
                None
            }
        }
    }

    /// Accepts the handshake: the session begins.
    pub fn admit(&mut self, ctx: &mut ClientContext<'_>) {
        let State::Awaiting(awaiting) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("only a request can be admitted");
        };
        // Nothing waits before it, so it cannot be too much.
        let _ =
            ctx.ports.mail.post_prompt(ctx.conn, upgrade::switching_protocols(&awaiting.accept));
        self.state = State::Open(Open {
            codec: Codec::default(),
            pings: PingClock::new(ctx.now, &ctx.config.ws_ping),
            rest: None,
            paused: false,
            ended: false,
            leave_by: None,
        });
    }

    /// Refuses the handshake, whether its request is complete or not.
    pub fn refuse(&mut self, reason: Refused, ctx: &mut ClientContext<'_>) {
        self.refuse_as(reason.into(), ctx);
    }

    /// Closes from our side, for the engine's reasons, and tells it nothing more. A slow consumer
    /// (1013) loses what waits for it, and is counted. A handshake under way is refused.
    pub fn close(&mut self, code: u16, ctx: &mut ClientContext<'_>) {
        match &mut self.state {
            State::Upgrading(_) | State::Awaiting(_) => self.refuse(Refused::NotReady, ctx),
            State::Open(open) => {
                // What waits in `rest` would have to be read first to stay in step.
                let codec = open.rest.is_none().then(|| mem::take(&mut open.codec));
                if code == close_code::TRY_AGAIN_LATER {
                    ctx.metrics.slow_consumers += 1;
                    ctx.ports.mail.drop_unsent(ctx.conn);
                }
                let ended = open.ended;
                self.leave(ws::close(Some(code)), codec, ctx);
                if ended {
                    self.ended(ctx);
                }
            }
            State::Closing(_) | State::Over => {}
        }
    }

    /// The session has no room for more events: `rest` is kept, and nothing more is to be read
    /// (`wants_read`) until `resume`. Meanwhile the ping clock stands still.
    pub fn pause(&mut self, rest: &[u8], ctx: &mut ClientContext<'_>) {
        if let State::Open(open) = &mut self.state {
            open.paused = true;
            open.pings.hold(ctx.now);
            open.keep(rest);
        }
    }

    /// The session has room again: `next` goes on with what was kept, then the socket is read.
    pub fn resume(&mut self, ctx: &mut ClientContext<'_>) {
        if let State::Open(open) = &mut self.state
            && mem::take(&mut open.paused)
        {
            open.pings.release(ctx.now);
            ctx.ports.ask(Output::Resume(ctx.conn));
        }
    }

    /// The client's FIN or a reset has come. While events wait it is not read, and a client that
    /// has gone must not hold its connection for as long as some service takes.
    pub fn leaving(&mut self, now: Now, config: &Config) {
        if let State::Open(open) = &mut self.state {
            open.leave_by.get_or_insert(now.mono.after(config.limits.handshake_timeout));
        }
    }

    /// The client's FIN: no more input will come.
    pub fn ended(&mut self, ctx: &mut ClientContext<'_>) -> Option<Heard> {
        match &mut self.state {
            State::Upgrading(_) | State::Awaiting(_) => self.over(ctx),
            State::Open(open) if open.paused || open.rest.is_some() => open.ended = true,
            State::Open(_) => return Some(self.end(End::Eof, ctx)),
            State::Closing(closing) => {
                closing.ended = true;
                self.close_if_done(ctx);
            }
            State::Over => {}
        }
        None
    }

    /// The connection broke.
    pub fn lost(&mut self, ctx: &mut ClientContext<'_>) -> Option<Heard> {
        let was_open = matches!(self.state, State::Open(_));
        self.over(ctx);
        was_open.then_some(Heard::Gone(End::Eof.gone()))
    }

    /// All that was queued is written: to be called when a sealed outbox has run empty, so that
    /// a closing connection whose peer has ended need not wait for its deadline.
    pub fn flushed(&mut self, ctx: &mut ClientContext<'_>) {
        self.close_if_done(ctx);
    }

    /// Does what is due by now: the time-outs of handshake, pong and closing, and pings.
    pub fn due(&mut self, ctx: &mut ClientContext<'_>) -> Option<Heard> {
        if self.deadline().is_none_or(|deadline| ctx.now.mono < deadline) {
            return None;
        }
        match &mut self.state {
            State::Upgrading(_) => self.refuse(Refused::Timeout, ctx),
            State::Open(open) if open.leave_by.is_some_and(|by| by <= ctx.now.mono) => {
                return Some(self.end(End::Eof, ctx));
            }
            State::Open(open) => {
                if let Err(end) = open.beat(ctx) {
                    return Some(self.end(end, ctx));
                }
            }
            State::Closing(_) => self.over(ctx),
            State::Awaiting(_) | State::Over => {}
        }
        None
    }

    /// When `due` has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Upgrading(upgrading) => Some(upgrading.deadline),
            State::Open(open) => soonest(open.pings.deadline(), open.leave_by),
            State::Closing(closing) => Some(closing.until),
            State::Awaiting(_) | State::Over => None,
        }
    }

    /// False while the session's events wait (back-pressure).
    pub fn wants_read(&self) -> bool {
        !matches!(&self.state, State::Open(open) if open.paused)
    }

    /// Bytes to be read in one turn: so few that the events they hold cost other clients little,
    /// unless they belong to one long frame or are thrown away.
    pub fn appetite(&self) -> usize {
        match &self.state {
            State::Open(open) => {
                open.codec.missing().clamp(CLIENT_READ_BYTES_PER_TURN, READ_BYTES_PER_TURN)
            }
            State::Closing(_) => READ_BYTES_PER_TURN,
            _ => CLIENT_READ_BYTES_PER_TURN,
        }
    }

    /// The connection is closed and its id dead: the engine may forget the client.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn next_request(&mut self, input: &mut &[u8], ctx: &mut ClientContext<'_>) -> Option<Heard> {
        let State::Upgrading(upgrading) = &mut self.state else { return None };
        match upgrading.read(input, ctx.config) {
            Ok(None) => None,
            Ok(Some(awaiting)) => {
                let address = awaiting.address;
                self.state = State::Awaiting(Box::new(awaiting));
                Some(Heard::Request { address })
            }
            Err(refusal) => {
                self.refuse_as(refusal, ctx);
                self.discard(input, ctx);
                None
            }
        }
    }

    fn refuse_as(&mut self, refusal: Refusal, ctx: &mut ClientContext<'_>) {
        let address = match &self.state {
            State::Upgrading(upgrading) => upgrading.peer,
            State::Awaiting(awaiting) => awaiting.address,
            _ => unreachable!("only a handshake can be refused"),
        };
        ctx.metrics.refused[refusal.reason as usize] += 1;
        drop(
            ctx.log
                .at(ctx.now, Level::Debug, "handshake refused")
                .text("reason", refusal.detail)
                .display("address", address),
        );
        self.leave(refusal.response(), None, ctx);
    }

    /// Ends an open connection and says how.
    fn end(&mut self, end: End, ctx: &mut ClientContext<'_>) -> Heard {
        let gone = end.gone();
        match end {
            End::Close(code) => self.leave(ws::close(code), None, ctx),
            End::Fault(fault) => self.leave(ws::close(Some(fault.code())), None, ctx),
            End::TooSlow | End::PingTimeout => self.close(gone.code, ctx),
            End::Eof => {
                self.linger(None, ctx);
                self.ended(ctx);
            }
        }
        Heard::Gone(gone)
    }

    /// Queues the last words, then lingers.
    fn leave(&mut self, words: Frame, codec: Option<Codec>, ctx: &mut ClientContext<'_>) {
        // They are few: no limit may hold them back.
        ctx.ports.mail.set_limit(ctx.conn, usize::MAX);
        let _ = ctx.ports.mail.post_prompt(ctx.conn, words);
        self.linger(codec, ctx);
    }

    /// Lets nothing more be written, and waits for the client to end the connection.
    fn linger(&mut self, codec: Option<Codec>, ctx: &mut ClientContext<'_>) {
        ctx.ports.mail.seal(ctx.conn);
        ctx.ports.ask(Output::HalfClose(ctx.conn));
        if !self.wants_read() {
            ctx.ports.ask(Output::Resume(ctx.conn));
        }
        let until = ctx.now.mono.after(ctx.config.limits.close_timeout);
        let closing = Closing { until, left: LINGER_BYTES_MAX, codec, ended: false };
        self.state = State::Closing(Box::new(closing));
    }

    /// Throws input away that comes after the last words.
    fn discard(&mut self, input: &mut &[u8], ctx: &mut ClientContext<'_>) {
        let State::Closing(closing) = &mut self.state else { return };
        let Some(left) = closing.left.checked_sub(input.len()) else {
            *input = &[];
            return self.over(ctx);
        };
        closing.left = left;
        closing.ended |= closing.finds_close(input, ctx);
        *input = &[];
        self.close_if_done(ctx);
    }

    /// Closes where nothing more will come and nothing waits to be written.
    fn close_if_done(&mut self, ctx: &mut ClientContext<'_>) {
        let ended = matches!(&self.state, State::Closing(closing) if closing.ended);
        if ended && ctx.ports.mail.outbox(ctx.conn).is_none_or(Outbox::is_empty) {
            self.over(ctx);
        }
    }

    fn over(&mut self, ctx: &mut ClientContext<'_>) {
        ctx.ports.close(ctx.conn);
        self.state = State::Over;
    }
}

impl Upgrading {
    /// Reads on in the request; what follows it stays in `input`.
    fn read(&mut self, input: &mut &[u8], config: &Config) -> Result<Option<Awaiting>, Refusal> {
        if !self.head.take(input, config.limits.max_header_bytes)? {
            return Ok(None);
        }
        let request = upgrade::check(self.head.bytes())?;
        if !access::origin_is_allowed(request.origin, config.ws_allowed_origins.as_deref()) {
            return Err(Refused::Origin.into());
        }
        let trusted = &config.ws_trusted_proxies;
        let address = access::client_address(self.peer, &request.forwarded_for, trusted);
        Ok(Some(Awaiting { address, accept: request.accept }))
    }
}

impl Open {
    /// Reads on in what was kept, then in `input`.
    fn hear(
        &mut self,
        input: &mut &[u8],
        ctx: &mut ClientContext<'_>,
    ) -> Result<Option<Heard>, End> {
        if self.paused {
            self.keep(mem::take(input));
            return Ok(None);
        }
        if let Some(mut rest) = self.rest.take() {
            let mut bytes = &rest.bytes[rest.read..];
            let heard = self.read(&mut bytes, ctx);
            rest.read = rest.bytes.len() - bytes.len();
            if rest.read < rest.bytes.len() {
                self.rest = Some(rest);
            }
            if !matches!(heard, Ok(None)) {
                return heard;
            }
        }
        self.read(input, ctx)
    }

    /// Reads frames up to the next message. The pongs for all pings among them go out as one
    /// frame, so that a flood of pings costs no more memory than its own bytes.
    fn read(
        &mut self,
        input: &mut &[u8],
        ctx: &mut ClientContext<'_>,
    ) -> Result<Option<Heard>, End> {
        let bytes_max = ctx.config.limits.max_message_bytes;
        let mut pongs = Vec::new();
        let heard = loop {
            match self.codec.next(input, bytes_max, ctx.contexts) {
                Ok(None) => break Ok(None),
                Ok(Some(Event::Text(text))) => break Ok(Some(Heard::Text(text))),
                Ok(Some(Event::Binary(bytes))) => break Ok(Some(Heard::Binary(bytes))),
                Ok(Some(Event::Ping(payload))) => ws::push_pong(&mut pongs, &payload),
                Ok(Some(Event::Pong(payload))) => self.pong(&payload, ctx),
                Ok(Some(Event::Close(code))) => break Err(End::Close(code)),
                Err(fault) => break Err(End::Fault(fault)),
            }
        };
        if !pongs.is_empty() && ctx.ports.mail.post_prompt(ctx.conn, pongs.into()).is_err() {
            return Err(End::TooSlow);
        }
        heard
    }

    fn keep(&mut self, input: &[u8]) {
        if input.is_empty() {
            return;
        }
        let rest = self.rest.get_or_insert_with(|| Box::new(Rest { bytes: Vec::new(), read: 0 }));
        rest.bytes.extend_from_slice(input);
    }

    fn pong(&mut self, payload: &[u8], ctx: &mut ClientContext<'_>) {
        if let Some(latency) = self.pings.pong(ctx.now, payload, &ctx.config.ws_ping) {
            let line = of_session(ctx.log.trace(ctx.now, "pong"), ctx.session);
            drop(line.seconds("latency", latency.as_secs_f64()));
        }
    }

    /// Does what the ping clock says.
    fn beat(&mut self, ctx: &mut ClientContext<'_>) -> Result<(), End> {
        match self.pings.due(ctx.now, &ctx.config.ws_ping) {
            None => Ok(()),
            Some(Due::Ping(payload)) => {
                drop(of_session(ctx.log.trace(ctx.now, "ping"), ctx.session));
                let sent = ctx.ports.mail.post_prompt(ctx.conn, ws::ping(&payload));
                sent.map_err(|TooSlow| End::TooSlow)
            }
            Some(Due::TimedOut) => {
                let line = ctx.log.at(ctx.now, Level::Warning, "ping timeout");
                drop(of_session(line, ctx.session));
                Err(End::PingTimeout)
            }
        }
    }
}

impl Closing {
    /// Whether the client's Close is in `input`.
    fn finds_close(&mut self, input: &mut &[u8], ctx: &mut ClientContext<'_>) -> bool {
        let Some(codec) = &mut self.codec else { return false };
        let bytes_max = ctx.config.limits.max_message_bytes;
        loop {
            match codec.next(input, bytes_max, ctx.contexts) {
                Ok(Some(Event::Close(_))) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => {
                    self.codec = None;
                    return false;
                }
            }
        }
    }
}

/// Adds the session, where there is one, to a log record.
fn of_session(line: Line<'_>, session: Option<SessionId>) -> Line<'_> {
    match session {
        Some(session) => line.session(session),
        None => line,
    }
}

#[cfg(test)]
mod tests;
