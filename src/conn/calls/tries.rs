//! The tries of a call: from its slot, over its connections and redirects, to its rest or end.

use std::net::SocketAddr;
use std::time::Duration;

use super::verdict::{Failure, Verdict, judge};
use super::{CallContext, CallId, Calls, Due, Pending};
use crate::arena::ConnId;
use crate::config::Level;
use crate::conn::callback::{Broken, Callback, End, Exchange};
use crate::conn::names::Addresses;
use crate::limits::REDIRECTS_MAX;
use crate::message::{Answer, Call};
use crate::metrics::CallResult;
use crate::outbox::Frame;
use crate::ports::Kind;
use crate::time::Instant;
use crate::wire::http::{Request, Response};

/// Capacity of the encoding buffer that is kept.
const SCRATCH_BYTES_KEPT: usize = 65_536;

impl Calls {
    /// Gives free slots of a lane to the calls that wait in it.
    pub(super) fn pump(&mut self, lane: usize, ctx: &mut CallContext<'_>) {
        while let Some(call) = self.lanes.get_mut(lane).take(ctx.http) {
            ctx.metrics.callbacks_queued -= 1;
            ctx.metrics.callbacks_in_flight += 1;
            let began = ctx.now.mono;
            let exchange = Exchange {
                call,
                lane,
                began,
                deadline: began.after(ctx.http.timeout),
                target: None,
                redirects: 0,
                resent: false,
            };
            self.dispatch(exchange, ctx);
        }
    }

    /// Sends an exchange's request: on an idle connection, unless one was dead already, else on a
    /// new one. Nothing fails here and now: what goes wrong comes as an input.
    fn dispatch(&mut self, exchange: Exchange, ctx: &mut CallContext<'_>) {
        let pool_id = self.lanes.get(exchange.lane).pool;
        while !exchange.resent
            && let Some(conn) = self.pools.get_mut(pool_id).take()
        {
            if self.conns.get(conn).is_some_and(|idle| idle.alarm.at() > ctx.now.mono) {
                return self.send(conn, exchange, true, ctx);
            }
            self.close(conn, ctx);
        }
        let deadline = exchange.deadline;
        let conn = ctx.ports.open(Kind::Callback, usize::MAX);
        self.conns.insert(conn, Callback::resolving(pool_id, exchange));
        self.set_alarm(conn, deadline);
        let host = &self.pools.get(pool_id).origin.host;
        if let Some(addresses) = self.names.ask(ctx.now.mono, host, conn, ctx.ports) {
            self.found(conn, &addresses, ctx);
        }
    }

    /// The addresses for a connection are known.
    pub(super) fn found(&mut self, conn: ConnId, addresses: &Addresses, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        callback.resolved(addresses.clone());
        self.dial(conn, ctx);
    }

    /// Dials a connection's address. An address that stays silent leaves their share of the time
    /// to those behind it.
    fn dial(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get(conn) else { return };
        let Some((exchange, address, left)) = callback.dialling() else { return };
        let time = exchange.deadline.since(ctx.now.mono) / left;
        let port = self.pools.get(callback.pool).origin.port;
        ctx.ports.connect(conn, SocketAddr::new(address, port));
        self.set_alarm(conn, ctx.now.mono.after(time));
    }

    /// An address did not answer: on to the next one, by a connection of its own.
    pub(super) fn redial(&mut self, conn: ConnId, why: Broken, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        let why = callback.whole_reason(why);
        if !callback.has_next_address() {
            return self.break_off(conn, why, ctx);
        }
        let next = self.conns.remove(conn).and_then(|callback| callback.into_next(&why));
        let Some(next) = next else { return };
        ctx.ports.close(conn);
        let conn = ctx.ports.open(Kind::Callback, usize::MAX);
        self.conns.insert(conn, next);
        self.dial(conn, ctx);
    }

    /// Queues an exchange's request on a connection that is connected and free.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        exchange: Exchange,
        reused: bool,
        ctx: &mut CallContext<'_>,
    ) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        let call = self.calls.get(exchange.call).expect("a call does not end before its exchange");
        let request = Request {
            authority: &self.pools.get(callback.pool).authority,
            target: exchange.target.as_deref().unwrap_or(&call.url.target),
            authorization: call.url.authorization.as_deref(),
            body: &call.body,
        };
        self.scratch.clear();
        request.encode(&mut self.scratch);
        let frame = Frame::from(&self.scratch[..]);
        let deadline = exchange.deadline;
        callback.asked(exchange, reused, frame.len());
        let _ = ctx.ports.mail.pen(conn).write(frame); // no limit, so never too slow
        self.set_alarm(conn, deadline);
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
    }

    /// An exchange is over. Its connection rests or is closed, and its call is sent on, ends, or
    /// rests.
    pub(super) fn over(
        &mut self,
        conn: ConnId,
        mut exchange: Exchange,
        end: End,
        ctx: &mut CallContext<'_>,
    ) {
        let lane = exchange.lane;
        match end {
            End::Stale => {
                self.close(conn, ctx);
                exchange.resent = true;
                return self.dispatch(exchange, ctx);
            }
            End::Broken(why) => {
                self.close(conn, ctx);
                self.fail(&exchange, &Failure::Broken(why), ctx);
            }
            End::Answered(response) => {
                self.understood += response.body.len();
                if response.reusable {
                    self.rest(conn, ctx);
                } else {
                    self.close(conn, ctx);
                }
                match self.judge(&exchange, response, ctx) {
                    Verdict::Object(text, is_ok) => {
                        let result = if is_ok { CallResult::Ok } else { CallResult::Error };
                        self.release(lane, ctx);
                        self.finish(exchange.call, Answer::Object(text), result, ctx);
                    }
                    Verdict::Redirect(target) if exchange.redirects < REDIRECTS_MAX => {
                        exchange.redirects += 1;
                        exchange.target = Some(target.into_boxed_str());
                        return self.dispatch(exchange, ctx);
                    }
                    Verdict::Redirect(_) => self.fail(&exchange, &Failure::TooManyRedirects, ctx),
                    Verdict::Failed(failure) => self.fail(&exchange, &failure, ctx),
                }
            }
        }
        self.pump(lane, ctx);
    }

    fn judge(&self, exchange: &Exchange, response: Response, ctx: &mut CallContext<'_>) -> Verdict {
        let call = self.calls.get(exchange.call).expect("a call does not end before its exchange");
        let line = ctx.log.at(ctx.now, Level::Debug, "http request").display("url", &call.url);
        let duration = ctx.now.mono.since(exchange.began).as_secs_f64();
        drop(line.number("status", response.head.status.into()).seconds("duration", duration));
        let target = exchange.target.as_deref().unwrap_or(&call.url.target);
        judge(response, &self.pools.get(self.lanes.get(exchange.lane).pool).origin, target)
    }

    /// A try has failed: the call rests before the next one, or was unavailable.
    fn fail(&mut self, exchange: &Exchange, failure: &Failure, ctx: &mut CallContext<'_>) {
        self.release(exchange.lane, ctx);
        let call =
            self.calls.get_mut(exchange.call).expect("a call does not end before its exchange");
        call.tries += 1;
        let rest = (call.tries < ctx.http.tries).then(|| failure.wait(ctx.http));
        let service = &self.lanes.get(exchange.lane).name;
        let mut line = ctx
            .log
            .at(ctx.now, Level::Warning, "callback failed")
            .text("service", service)
            .text("hook", call.hook.name())
            .display("call", exchange.call)
            .display("url", &call.url)
            .number("try", call.tries.into())
            .number("tries", ctx.http.tries.into())
            .display("reason", failure);
        if let Some(rest) = rest {
            line = line.seconds("wait", rest.as_secs_f64());
        }
        drop(line);
        let Some(rest) = rest else {
            return self.finish(exchange.call, Answer::Unavailable, CallResult::Failed, ctx);
        };
        self.lanes.get_mut(exchange.lane).resting += 1;
        ctx.metrics.callbacks_queued += 1;
        self.deadlines.push(ctx.now.mono.after(rest), Due::Again(exchange.call));
    }

    /// Gives an exchange's slot back.
    fn release(&mut self, lane: usize, ctx: &mut CallContext<'_>) {
        self.lanes.get_mut(lane).under_way -= 1;
        ctx.metrics.callbacks_in_flight -= 1;
    }

    fn finish(
        &mut self,
        call: CallId,
        answer: Answer,
        result: CallResult,
        ctx: &mut CallContext<'_>,
    ) {
        let Pending { owner, hook, lane, began, body, .. } =
            self.calls.remove(call).expect("a call ends once");
        self.lanes.get_mut(lane).bytes -= body.len();
        let took = ctx.now.mono.since(began);
        ctx.metrics.callback(&self.lanes.get(lane).name, hook, result, took);
        self.finished.push_back((owner, answer));
    }

    /// A call finds its queue full. One line says so for all that follow until the jam is over:
    /// whoever is behind with calls should not be behind with a line for each as well.
    pub(super) fn refuse(&mut self, call: Call, is_news: bool, ctx: &mut CallContext<'_>) {
        if is_news {
            let line = ctx.log.at(ctx.now, Level::Warning, "callbacks dropped");
            let line = line.text("service", &call.lane).text("hook", call.hook.name());
            drop(line.display("url", &call.url).text("reason", "too many calls wait already"));
        }
        ctx.metrics.callback(&call.lane, call.hook, CallResult::Dropped, Duration::ZERO);
        self.finished.push_back((call.owner, Answer::Unavailable));
    }

    /// A connection waits for the next call to its origin.
    fn rest(&mut self, conn: ConnId, ctx: &mut CallContext<'_>) {
        let Some(callback) = self.conns.get(conn) else { return };
        self.pools.get_mut(callback.pool).put(conn);
        self.set_alarm(conn, ctx.now.mono.after(ctx.http.keepalive_timeout));
    }

    fn set_alarm(&mut self, conn: ConnId, at: Instant) {
        let Some(callback) = self.conns.get_mut(conn) else { return };
        if !callback.alarm.set(at) {
            return;
        }
        self.deadlines.push(at, Due::Conn(conn));
        // Entries that were overtaken by earlier ones are few, unless time-outs are set oddly.
        if self.deadlines.len() > 4 * (self.conns.len() + self.calls.len()) + 64 {
            let conns = &self.conns;
            self.deadlines.retain(|at, due| match due {
                Due::Again(_) => true,
                Due::Conn(conn) => conns.get(conn).is_some_and(|it| it.alarm.is_armed_at(at)),
            });
        }
    }
}
