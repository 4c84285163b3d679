//! All callbacks: which call is sent when, on which connection, and what becomes of it.
//!
//! A call waits in its lane for a slot, is sent by an exchange on a `Callback` connection, rests
//! after a failed try, and ends once: with an answer, or unavailable. `mod` takes the inputs,
//! `tries` makes the tries; neither opens a socket.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;

use self::lanes::{Lane, Lanes};
use self::pool::Pools;
pub use super::callback::CallId;
use super::callback::{Broken, CallTag, Callback, Heard, Phase};
use super::deadlines::Deadlines;
use super::names::Names;
use crate::arena::{Arena, ConnId, ConnTag, Table};
use crate::config::{HttpConfig, Url};
use crate::limits::{ANSWER_BYTES_PER_TURN, ANSWER_READ_BYTES_PER_TURN};
use crate::log::Log;
use crate::message::{Answer, Call, Hook, Owner};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::ports::{Output, Ports};
use crate::time::{Instant, Now};
use crate::wire::http::Rules;

mod audit;
pub mod lanes;
pub mod pool;
mod tries;
pub mod verdict;

/// What calls may touch outside of themselves, lent for one input. The configuration may be
/// another one each time.
pub struct CallContext<'a> {
    pub now: Now,
    pub ports: &'a mut Ports,
    pub log: &'a mut Log,
    pub metrics: &'a mut Metrics,
    pub http: &'a HttpConfig,
}

/// A call that has not ended: what is kept of it while it waits.
struct Pending {
    owner: Owner,
    hook: Hook,
    lane: usize,
    /// Failed tries.
    tries: u32,
    url: Rc<Url>,
    body: Box<[u8]>,
    began: Instant,
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    /// A connection's alarm.
    Conn(ConnId),
    /// The end of a call's rest between two tries.
    Again(CallId),
}

/// All calls and their connections.
#[derive(Default)]
pub struct Calls {
    calls: Arena<CallTag, Pending>,
    lanes: Lanes,
    pools: Pools,
    conns: Table<ConnTag, Callback>,
    names: Names<ConnId>,
    deadlines: Deadlines<Due>,
    finished: VecDeque<(Owner, Answer)>,
    /// Bytes of answers that were understood in this turn.
    understood: usize,
    /// Where requests are encoded.
    scratch: Vec<u8>,
}

impl Calls {
    /// Makes a callback: its answer comes out of `next_finished`, sooner or later, once.
    pub fn start(&mut self, call: Call, ctx: &mut CallContext<'_>) {
        let origin = &call.url.origin;
        let lane_id = self.lanes.find(&call.lane, call.hook, origin, &mut self.pools);
        let lane = self.lanes.get_mut(lane_id);
        if !lane.admits(call.hook, call.body.len(), ctx.http) {
            let is_news = lane.refuse();
            return self.refuse(call, is_news, ctx);
        }
        lane.bytes += call.body.len();
        lane.push(self.calls.insert(Pending {
            owner: call.owner,
            hook: call.hook,
            lane: lane_id,
            tries: 0,
            url: call.url,
            body: call.body.into_boxed_slice(),
            began: ctx.now.mono,
        }));
        ctx.metrics.callbacks_queued += 1;
        self.pump(lane_id, ctx);
    }

    /// The dial that was asked for has succeeded.
    pub fn connected(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        if let Some(exchange) = callback.connected() {
            self.send(conn, exchange, false, ctx);
        }
    }

    /// Bytes have come.
    pub fn received(&mut self, conn: ConnId, bytes: &[u8], ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        let rules = Rules {
            body_bytes_max: ctx.http.max_response_bytes,
            rate_limit_headers: &ctx.http.rate_limit_headers,
        };
        let unsent = ctx.ports.mail.outbox(conn).map_or(0, Outbox::bytes);
        let heard = callback.received(bytes, unsent, rules);
        if matches!(heard, Heard::Nothing) {
            // A service that writes head and body apart holds the body back until the head is
            // acknowledged (Nagle's algorithm), which the kernel would put off by 40 ms.
            ctx.ports.ask(Output::Acknowledge(conn));
        }
        self.heard(conn, heard, ctx);
    }

    /// The server has closed its side.
    pub fn ended(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        let heard = callback.ended();
        self.heard(conn, heard, ctx);
    }

    /// The dial has failed or the connection has broken.
    pub fn lost(&mut self, conn: ConnId, why: &str, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get(conn) else { return };
        if callback.dialling().is_some() {
            return self.redial(conn, Broken::Unconnected(why.to_owned()), ctx);
        }
        self.break_off(conn, Broken::Lost(why.to_owned()), ctx);
    }

    /// A name has been looked up, perhaps for somebody else.
    pub fn resolved(
        &mut self,
        host: &str,
        result: Result<&[IpAddr], &str>,
        ctx: &mut CallContext<'_>,
    ) {
        let until = ctx.now.mono.after(ctx.http.dns_ttl);
        let (waiters, result) = self.names.resolved(host, result, until);
        for conn in waiters {
            match &result {
                Ok(addresses) => self.found(conn, addresses, ctx),
                Err(why) => self.break_off(conn, Broken::Unresolved(why.clone()), ctx),
            }
        }
    }

    /// The name that the certificate at a connection's other end must have; `None`: it needs none.
    pub fn tls_name(&self, conn: ConnId) -> Option<&str> {
        let origin = &self.pools.get(self.conns.get(conn)?.pool).origin;
        origin.secure.then_some(&*origin.host)
    }

    /// Bytes to be read from a connection in this turn; 0: none.
    pub fn appetite(&self) -> usize {
        let is_full = self.understood > ANSWER_BYTES_PER_TURN;
        if is_full { 0 } else { ANSWER_READ_BYTES_PER_TURN }
    }

    /// Does what is due by now, at the end of a turn.
    pub fn due(&mut self, ctx: &mut CallContext<'_>) {
        self.understood = 0;
        while let Some((at, due)) = self.deadlines.pop_due(ctx.now.mono) {
            match due {
                Due::Again(call) => {
                    let call_of = self.calls.get(call).expect("a resting call has not ended");
                    let lane = call_of.lane;
                    self.lanes.get_mut(lane).push_again(call);
                    self.pump(lane, ctx);
                }
                Due::Conn(conn) => self.rung(conn, at, ctx),
            }
        }
    }

    /// When `due` should be called next, at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The next call that has ended.
    pub fn next_finished(&mut self) -> Option<(Owner, Answer)> {
        self.finished.pop_front()
    }

    /// Whether so many calls of a service wait that another one would be refused, had it not to be
    /// made in any case.
    pub fn is_full(&self, service: &str, http: &HttpConfig) -> bool {
        let is_full =
            |lane: &Lane| &*lane.name == service && !lane.admits(Hook::BeforeSubscribe, 0, http);
        self.lanes.iter().any(is_full)
    }

    /// Whether no call is left and all answers are taken.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.finished.is_empty()
    }

    /// Calls that have not ended.
    pub fn unfinished(&self) -> usize {
        self.calls.len()
    }

    /// Closes the connections that nobody uses, where descriptors are scarce.
    pub fn close_idle(&mut self, ctx: &mut CallContext<'_>) {
        for conn in self.pools.drain() {
            self.close(conn, ctx);
        }
    }

    fn heard(&mut self, conn: ConnId, heard: Heard, ctx: &mut CallContext<'_>) {
        match heard {
            Heard::Nothing => {}
            Heard::Spoilt => self.drop_idle(conn, ctx),
            Heard::Over(exchange, end) => self.over(conn, exchange, end, ctx),
        }
    }

    /// An entry for a connection has come up.
    fn rung(&mut self, conn: ConnId, at: Instant, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        if !callback.alarm.is_armed_at(at) {
            return;
        }
        if !callback.alarm.ring(ctx.now.mono) {
            let later = callback.alarm.at();
            return self.deadlines.push(later, Due::Conn(conn));
        }
        match callback.exchange() {
            None => self.drop_idle(conn, ctx),
            Some((Phase::Connecting, exchange)) if exchange.deadline > ctx.now.mono => {
                self.redial(conn, Broken::TimedOut(Phase::Connecting), ctx);
            }
            Some((phase, _)) => self.break_off(conn, Broken::TimedOut(phase), ctx),
        }
    }

    /// Ends a connection's exchange, or its rest.
    fn break_off(&mut self, conn: ConnId, why: Broken, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        if matches!(callback.exchange(), Some((Phase::Resolving, _))) {
            let host = &self.pools.get(callback.pool).origin.host;
            self.names.forget(host, &conn);
        }
        let heard = callback.broken(why);
        self.heard(conn, heard, ctx);
    }

    fn drop_idle(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        if let Some(callback) = self.conns.get(conn) {
            self.pools.get_mut(callback.pool).remove(conn);
            self.close(conn, ctx);
        }
    }

    fn close(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        self.conns.remove(conn);
        ctx.ports.close(conn);
    }
}

#[cfg(test)]
mod tests;
