//! One connection to a service's origin: dialled for a call, kept alive for more.
//!
//! It knows how one exchange goes and how it can end; which call is sent where, and what an
//! answer means, is `calls`'s affair.

use std::fmt;
use std::net::IpAddr;

use super::deadlines::Alarm;
use super::names::Addresses;
use crate::arena::Id;
use crate::time::Instant;
use crate::wire::http::{Fault, Reader, Response, Rules};

/// The tag of calls' ids.
pub enum CallTag {}
/// A call that has not ended; `calls` hands these out.
pub type CallId = Id<CallTag>;

/// One try of a call, on its way.
#[derive(Debug)]
pub struct Exchange {
    pub call: CallId,
    /// The lane whose slot it holds.
    pub lane: usize,
    pub began: Instant,
    /// For all of the try: look-up, dial, redirects.
    pub deadline: Instant,
    /// Where a redirect pointed, in the place of the URL's own target.
    pub target: Option<Box<str>>,
    pub redirects: usize,
    /// It was sent again once because a reused connection had died.
    pub resent: bool,
}

/// A connection.
pub struct Callback {
    /// The pool that it rests in when it is idle.
    pub pool: usize,
    pub alarm: Alarm,
    state: State,
}

enum State {
    Resolving(Exchange),
    Connecting {
        exchange: Exchange,
        addresses: Addresses,
        /// The index of the address that is being dialled.
        at: usize,
        /// Why those before it could not be used.
        earlier: Option<Box<str>>,
    },
    /// The request is queued or sent, the answer has not ended.
    Answering {
        exchange: Exchange,
        reader: Reader,
        reused: bool,
        request_bytes: usize,
    },
    Idle,
}

/// How far a try had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Resolving,
    Connecting,
    Answering,
}

/// Why an exchange ended without a whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The name could not be looked up.
    Unresolved(String),
    /// The last of all addresses did not answer.
    Unconnected(String),
    /// The connection broke.
    Lost(String),
    TimedOut(Phase),
    Fault(Fault),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Unresolved(why) => write!(f, "cannot look the host up: {why}"),
            Broken::Unconnected(why) => write!(f, "cannot connect: {why}"),
            Broken::Lost(why) => write!(f, "connection lost: {why}"),
            Broken::TimedOut(Phase::Resolving) => f.write_str("timed out looking the host up"),
            Broken::TimedOut(Phase::Connecting) => f.write_str("timed out connecting"),
            Broken::TimedOut(Phase::Answering) => f.write_str("timed out waiting for the answer"),
            Broken::Fault(fault) => fault.fmt(f),
        }
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub enum End {
    /// With an answer; `reusable` is the last word on the connection.
    Answered(Response),
    /// The connection, an idle one before, was dead already: the exchange is worth another.
    Stale,
    Broken(Broken),
}

/// What an input led to.
pub enum Heard {
    /// More has to come.
    Nothing,
    /// The connection was idle and is of no more use.
    Spoilt,
    /// The exchange is over.
    Over(Exchange, End),
}

impl Callback {
    /// A new connection, whose host's addresses are not known yet.
    pub fn resolving(pool: usize, exchange: Exchange) -> Callback {
        Callback { pool, alarm: Alarm::default(), state: State::Resolving(exchange) }
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// What it is used for, unless it is idle.
    pub fn exchange(&self) -> Option<(Phase, &Exchange)> {
        match &self.state {
            State::Resolving(exchange) => Some((Phase::Resolving, exchange)),
            State::Connecting { exchange, .. } => Some((Phase::Connecting, exchange)),
            State::Answering { exchange, .. } => Some((Phase::Answering, exchange)),
            State::Idle => None,
        }
    }

    /// The host's addresses, at least one, are known.
    pub fn resolved(&mut self, addresses: Addresses) {
        assert!(!addresses.is_empty(), "there is an address to dial");
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Resolving(exchange) => {
                State::Connecting { exchange, addresses, at: 0, earlier: None }
            }
            state => state,
        };
    }

    /// What is being dialled for: the exchange, the address, and the number of addresses left,
    /// this one included.
    pub fn dialling(&self) -> Option<(&Exchange, IpAddr, u32)> {
        let State::Connecting { exchange, addresses, at, .. } = &self.state else { return None };
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        addresses.get(*at).map(|&address| (exchange, address, left))
    }

    pub fn has_next_address(&self) -> bool {
        self.dialling().is_some_and(|(_, _, left)| left > 1)
    }

    /// Why no address can be used, if the present one cannot for this reason: what was wrong with
    /// an earlier one, a certificate perhaps, may say more.
    pub fn whole_reason(&self, why: Broken) -> Broken {
        match (&self.state, why) {
            (State::Connecting { earlier: Some(earlier), .. }, Broken::Unconnected(now))
                if **earlier != *now =>
            {
                Broken::Unconnected(format!("{earlier}; then {now}"))
            }
            (_, why) => why,
        }
    }

    /// In the place of a connection that could not be dialled: one to the next address.
    pub fn into_next(self, why: &Broken) -> Option<Callback> {
        let State::Connecting { exchange, addresses, at, earlier } = self.state else {
            return None;
        };
        assert!(at + 1 < addresses.len(), "there is an address to dial");
        let earlier = match why {
            Broken::Unconnected(why) => Some(why.as_str().into()),
            _ => earlier,
        };
        let state = State::Connecting { exchange, addresses, at: at + 1, earlier };
        Some(Callback { pool: self.pool, alarm: Alarm::default(), state })
    }

    /// The dial has succeeded: the exchange, whose request is to be sent now.
    pub fn connected(&mut self) -> Option<Exchange> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connecting { exchange, .. } => Some(exchange),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// The request has been queued for writing; the connection was connected or idle.
    pub fn asked(&mut self, exchange: Exchange, reused: bool, request_bytes: usize) {
        assert!(self.is_idle(), "one exchange at a time");
        let reader = Reader::default();
        self.state = State::Answering { exchange, reader, reused, request_bytes };
    }

    /// Bytes have come. `unsent`: bytes of the request that are not written yet.
    pub fn received(&mut self, bytes: &[u8], unsent: usize, rules: Rules<'_>) -> Heard {
        let State::Answering { reader, reused, request_bytes, .. } = &mut self.state else {
            return self.broken(Broken::Fault(Fault::Unasked));
        };
        if *reused && unsent == *request_bytes {
            // Surplus of the answer before, which must not count as the answer to this request.
            return self.broken(Broken::Fault(Fault::Unasked));
        }
        match reader.push(bytes, rules) {
            Ok(taken) => self.answered(unsent == 0 && taken == bytes.len()),
            Err(fault) => {
                // Something was answered: the connection was not dead before.
                *reused = false;
                self.broken(Broken::Fault(fault))
            }
        }
    }

    /// The server has closed its side.
    pub fn ended(&mut self) -> Heard {
        let State::Answering { reader, .. } = &mut self.state else {
            return self.broken(Broken::Fault(Fault::NoResponse));
        };
        match reader.end() {
            Ok(()) => self.answered(false),
            Err(fault) => self.broken(Broken::Fault(fault)),
        }
    }

    fn answered(&mut self, clean: bool) -> Heard {
        let State::Answering { reader, .. } = &mut self.state else { return Heard::Nothing };
        let Some(mut response) = reader.take() else { return Heard::Nothing };
        response.reusable &= clean;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Answering { exchange, .. } => Heard::Over(exchange, End::Answered(response)),
            _ => unreachable!("looked at above"),
        }
    }

    /// The exchange ends here, without a whole answer. What the head of an error said counts for
    /// more than how its body ended.
    pub fn broken(&mut self, why: Broken) -> Heard {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Heard::Spoilt,
            State::Resolving(exchange) | State::Connecting { exchange, .. } => {
                Heard::Over(exchange, End::Broken(why))
            }
            State::Answering { exchange, reader, reused, .. } => {
                let is_late = matches!(why, Broken::TimedOut(_));
                let end = match reader.head() {
                    Some(head) if head.status >= 400 => {
                        let head = head.clone();
                        End::Answered(Response { head, body: Vec::new(), reusable: false })
                    }
                    _ if reused && reader.is_untouched() && !exchange.resent && !is_late => {
                        End::Stale
                    }
                    _ => End::Broken(why),
                };
                Heard::Over(exchange, end)
            }
        }
    }
}
