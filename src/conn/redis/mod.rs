//! The link to one Redis: finds it, greets it, watches it, and finds it again when it is lost.
//!
//! What is said over a connection is `talk`'s; this file is about having one. After every call
//! that takes a `Context`, the caller drains `Link::next` (with the input received, or with none):
//! all events come out there, in order.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::arena::ConnId;
use crate::config::{Level, RedisConfig};
use crate::log::Log;
use crate::metrics::{Metrics, RedisMetrics};
use crate::ports::{Kind, Output, Ports};
use crate::random::Random;
use crate::time::{Instant, Now};

mod talk;

use talk::{Answered, Breach, Heard, Talk, Verb};

/// The most that is waited after the first failure; it doubles with every further one.
const BACKOFF_START: Duration = Duration::from_millis(100);

/// Between the starts of two attempts, whatever the jitter: twenty a second.
const ATTEMPT_SPACING: Duration = Duration::from_millis(50);

/// Characters of a reason or of a server's error that are shown.
const REASON_CHARS_MAX: usize = 256;

/// What a link may touch outside itself, lent per call.
pub struct Context<'c> {
    pub now: Now,
    pub ports: &'c mut Ports,
    pub log: &'c mut Log,
    pub metrics: &'c mut Metrics,
    pub random: &'c mut Random,
}

/// What happens on a link. Channels are without the configured prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// AUTH and SELECT are accepted and a PING is answered. Nothing is subscribed.
    Ready,
    /// The link was lost (`was_ready`), or an attempt to connect has failed at every address. All
    /// subscriptions and everything under way are gone; the next attempt follows by itself. The
    /// reason never holds the password.
    Lost { was_ready: bool, reason: String },
    /// The server has confirmed SUBSCRIBE. Reported only where no later `subscribe` or
    /// `unsubscribe` of the channel is under way, so a caller that has changed its mind meanwhile
    /// hears of its last wish alone.
    Subscribed(Rc<str>),
    /// The server has refused SUBSCRIBE (or the name is longer than it could confirm); reported
    /// like `Subscribed`.
    SubscribeFailed { channel: Rc<str>, error: String },
    /// Messages of a channel come in the server's order, also between `subscribe` and
    /// `Subscribed`, or after `unsubscribe`, where commands cross.
    Message { channel: Cow<'a, str>, payload: Cow<'a, [u8]> },
}

/// The addresses of one attempt to connect.
struct Dial {
    /// Not tried yet.
    rest: std::vec::IntoIter<IpAddr>,
    /// The end of the attempt.
    deadline: Instant,
    /// The end of the present address's share of it.
    turn_ends: Instant,
}

enum Ping {
    Off,
    Due(Instant),
    Sent(Instant),
}

enum State {
    Stopped,
    Waiting { until: Instant },
    Resolving { deadline: Instant },
    Connecting { conn: ConnId, dial: Dial },
    Greeting { conn: ConnId, dial: Dial, talk: Box<Talk> },
    Ready { conn: ConnId, talk: Box<Talk>, ping: Ping },
}

/// A configured Redis and our connection to it.
pub struct Link {
    /// `REDIS` is 0, `REDIS_ALT` is 1.
    index: usize,
    config: Rc<RedisConfig>,
    host: Rc<str>,
    state: State,
    /// The start of the present or last attempt.
    started: Instant,
    /// Attempts that failed since the link was last ready.
    failures: u32,
    was_ever_ready: bool,
    /// Why the last attempt failed, or the link was lost.
    failure: Option<String>,
    events: VecDeque<Event<'static>>,
}

impl Link {
    pub fn new(index: usize, config: RedisConfig) -> Link {
        Link {
            index,
            host: config.host.as_str().into(),
            config: Rc::new(config),
            state: State::Stopped,
            started: Instant::ZERO,
            failures: 0,
            was_ever_ready: false,
            failure: None,
            events: VecDeque::new(),
        }
    }

    /// Begins the first attempt to connect.
    pub fn start(&mut self, ctx: &mut Context<'_>) {
        if matches!(self.state, State::Stopped) {
            self.gauges(ctx).connected = false;
            self.attempt(ctx);
        }
    }

    /// Closes the link for good.
    pub fn stop(&mut self, ctx: &mut Context<'_>) {
        self.disconnect(ctx);
        self.events.clear();
        self.state = State::Stopped;
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// The configuration key that says where this Redis is.
    pub fn key(&self) -> &'static str {
        if self.index == 0 { "REDIS" } else { "REDIS_ALT" }
    }

    /// Host and port.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.config.port)
    }

    /// Why the last attempt failed, or the link was lost; never with the password.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The present connection, from its dialling on.
    pub fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Stopped | State::Waiting { .. } | State::Resolving { .. } => None,
            State::Connecting { conn, .. }
            | State::Greeting { conn, .. }
            | State::Ready { conn, .. } => Some(*conn),
        }
    }

    /// The name that the server's certificate must have; `None`: it needs none.
    pub fn tls_name(&self) -> Option<&str> {
        self.config.tls_name()
    }

    /// When `due` has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Stopped => None,
            State::Waiting { until } => Some(*until),
            State::Resolving { deadline } => Some(*deadline),
            State::Connecting { dial, .. } | State::Greeting { dial, .. } => Some(dial.turn_ends),
            State::Ready { ping, .. } => match ping {
                Ping::Off => None,
                Ping::Due(at) => Some(*at),
                Ping::Sent(at) => Some(at.after(self.config.ping_timeout)),
            },
        }
    }

    /// Does what the clock demands.
    pub fn due(&mut self, ctx: &mut Context<'_>) {
        if self.next_deadline().is_none_or(|deadline| deadline > ctx.now.mono) {
            return;
        }
        match &mut self.state {
            State::Stopped => {}
            State::Waiting { .. } => self.attempt(ctx),
            State::Resolving { .. } => self.fail(&"name look-up timed out", ctx),
            State::Connecting { .. } => self.give_up(&"connecting timed out", ctx),
            State::Greeting { .. } => self.give_up(&"no answer to the greeting", ctx),
            State::Ready { ping: Ping::Sent(_), .. } => self.fail(&"ping timed out", ctx),
            State::Ready { conn, talk, ping } => {
                let mut out = Vec::new();
                talk.ping(&mut out);
                post(ctx.ports, *conn, &out);
                *ping = Ping::Sent(ctx.now.mono);
            }
        }
    }

    /// A name was looked up, perhaps for somebody else.
    pub fn resolved(
        &mut self,
        host: &str,
        found: &Result<Vec<IpAddr>, String>,
        ctx: &mut Context<'_>,
    ) {
        let State::Resolving { deadline } = self.state else { return };
        if host != &*self.host {
            return;
        }
        match found {
            Ok(addresses) => self.dial(addresses.clone().into_iter(), deadline, ctx),
            Err(why) => self.fail(&format_args!("name look-up failed: {why}"), ctx),
        }
    }

    /// The socket is connected.
    pub fn connected(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Connecting { conn: dialled, dial } if dialled == conn => {
                let mut talk = Box::new(Talk::new(self.config.clone()));
                let mut out = Vec::new();
                talk.greet(&mut out);
                post(ctx.ports, conn, &out);
                State::Greeting { conn, dial, talk }
            }
            state => state,
        };
    }

    /// The server has sent its FIN.
    pub fn ended(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.lost(conn, "closed by the server", ctx);
    }

    /// The connection has failed, or could not be made.
    pub fn lost(&mut self, conn: ConnId, why: &str, ctx: &mut Context<'_>) {
        if self.conn() == Some(conn) {
            self.give_up(&why, ctx);
        }
    }

    /// Asks for the channel's messages; answered by `Subscribed` or `SubscribeFailed`. Ignored
    /// while the link is not ready.
    pub fn subscribe(&mut self, channel: &str, ctx: &mut Context<'_>) {
        let State::Ready { conn, talk, .. } = &mut self.state else { return };
        if !talk.takes(channel) {
            let error = "channel name too long".to_owned();
            self.events.push_back(Event::SubscribeFailed { channel: channel.into(), error });
            return;
        }
        let mut out = Vec::new();
        talk.command(Verb::Subscribe, channel, &mut out);
        post(ctx.ports, *conn, &out);
    }

    /// Takes the wish for the channel's messages back. Ignored while the link is not ready.
    pub fn unsubscribe(&mut self, channel: &str, ctx: &mut Context<'_>) {
        let State::Ready { conn, talk, .. } = &mut self.state else { return };
        if talk.takes(channel) {
            let mut out = Vec::new();
            talk.command(Verb::Unsubscribe, channel, &mut out);
            post(ctx.ports, *conn, &out);
        }
    }

    /// The next event: one that waits, or the next in what `conn()` has received. `None`: there is
    /// no event left, and the input is used up. Never to be called with what another connection
    /// than `conn()` received.
    pub fn next<'a>(&mut self, input: &mut &'a [u8], ctx: &mut Context<'_>) -> Option<Event<'a>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let (State::Greeting { talk, .. } | State::Ready { talk, .. }) = &mut self.state else {
                return None;
            };
            match talk.next(input) {
                Ok(None) => return None,
                Ok(Some(Heard::Message { channel, payload })) => {
                    // Before anything is subscribed, a message is on an unknown channel.
                    if self.is_ready() {
                        return Some(Event::Message { channel, payload });
                    }
                }
                Ok(Some(Heard::Pong)) => self.pong(ctx),
                Ok(Some(Heard::Answered(answered))) => self.answered(answered, ctx),
                Err(breach) => {
                    // What follows on a connection that is given up does not count.
                    *input = &[];
                    match breach {
                        // The server would say the same at its other addresses.
                        Breach::Refused { .. } => self.fail(&breach, ctx),
                        _ => self.give_up(&breach, ctx),
                    }
                }
            }
        }
    }

    /// The payload of the next message in what `conn()` has received, where it is all there, on
    /// the same channel as the one before, and of at most `bytes_max`.
    pub fn next_on<'a>(
        &self,
        channel: &str,
        bytes_max: usize,
        input: &mut &'a [u8],
    ) -> Option<&'a [u8]> {
        match &self.state {
            State::Ready { talk, .. } if self.events.is_empty() => {
                talk.next_on(channel, bytes_max, input)
            }
            _ => None,
        }
    }

    fn attempt(&mut self, ctx: &mut Context<'_>) {
        self.started = ctx.now.mono;
        let deadline = self.started.after(self.config.connect_timeout);
        match self.host.parse::<IpAddr>() {
            Ok(address) => self.dial(vec![address].into_iter(), deadline, ctx),
            Err(_) => {
                ctx.ports.ask(Output::Resolve(self.host.clone()));
                self.state = State::Resolving { deadline };
            }
        }
    }

    /// Connects to the next address; each gets an equal share of the time that is left.
    fn dial(
        &mut self,
        mut rest: std::vec::IntoIter<IpAddr>,
        deadline: Instant,
        ctx: &mut Context<'_>,
    ) {
        let shares = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let Some(address) = rest.next() else { return self.fail(&"the name has no address", ctx) };
        let turn_ends = ctx.now.mono.after(deadline.since(ctx.now.mono) / shares);
        // Not bounded by bytes: what waits is one command for each event that a client waits for.
        let conn = ctx.ports.open(Kind::Redis(self.index), usize::MAX);
        ctx.ports.connect(conn, SocketAddr::new(address, self.config.port));
        self.state = State::Connecting { conn, dial: Dial { rest, deadline, turn_ends } };
    }

    /// The present connection is no good. There may be another address to try.
    fn give_up(&mut self, reason: &dyn fmt::Display, ctx: &mut Context<'_>) {
        let (State::Connecting { dial, .. } | State::Greeting { dial, .. }) = &mut self.state
        else {
            return self.fail(reason, ctx);
        };
        if dial.rest.len() == 0 || dial.deadline <= ctx.now.mono {
            return self.fail(reason, ctx);
        }
        let (rest, deadline) = (std::mem::take(&mut dial.rest), dial.deadline);
        self.log_failure(false, &self.presentable(reason), ctx);
        self.disconnect(ctx);
        self.dial(rest, deadline, ctx);
    }

    /// The link is lost, or the attempt has failed; the next one comes after the back-off.
    fn fail(&mut self, reason: &dyn fmt::Display, ctx: &mut Context<'_>) {
        let (was_ready, reason) = (self.is_ready(), self.presentable(reason));
        self.log_failure(was_ready, &reason, ctx);
        self.failure = Some(reason.clone());
        self.disconnect(ctx);
        let doubled = BACKOFF_START.saturating_mul(1 << self.failures.min(16));
        let wait = ctx.random.up_to(doubled.min(self.config.reconnect_max_delay));
        let until = ctx.now.mono.after(wait).max(self.started.after(ATTEMPT_SPACING));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until };
        self.events.push_back(Event::Lost { was_ready, reason });
    }

    fn disconnect(&mut self, ctx: &mut Context<'_>) {
        if let Some(conn) = self.conn() {
            ctx.ports.close(conn);
        }
        let gauges = self.gauges(ctx);
        gauges.connected = false;
        gauges.channels = 0;
    }

    fn pong(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let interval = self.config.ping_interval;
        let due = |from: Instant| interval.map_or(Ping::Off, |wait| Ping::Due(from.after(wait)));
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Greeting { conn, talk, .. } => {
                self.greeted(ctx);
                State::Ready { conn, talk, ping: due(now) }
            }
            State::Ready { conn, talk, ping: Ping::Sent(at) } => {
                self.gauges(ctx).ping_latency = Some(now.since(at));
                State::Ready { conn, talk, ping: due(at) }
            }
            state => state,
        };
    }

    fn greeted(&mut self, ctx: &mut Context<'_>) {
        self.failures = 0;
        let again = std::mem::replace(&mut self.was_ever_ready, true);
        let gauges = self.gauges(ctx);
        gauges.connected = true;
        gauges.reconnects += u64::from(again);
        let line = ctx.log.at(ctx.now, Level::Info, "redis connected");
        drop(line.text("host", &self.host).number("port", self.config.port.into()));
        self.events.push_back(Event::Ready);
    }

    fn answered(&mut self, answered: Answered, ctx: &mut Context<'_>) {
        let Answered { verb, channel, is_latest, outcome } = answered;
        let reported = is_latest && verb == Verb::Subscribe;
        match outcome {
            Ok(channels) => {
                self.gauges(ctx).channels = channels;
                if reported {
                    self.events.push_back(Event::Subscribed(channel));
                }
            }
            Err(error) => {
                let error = self.presentable(&error);
                let line = ctx.log.at(ctx.now, Level::Warning, "redis command refused");
                let line = line.text("command", verb.command()).text("channel", &channel);
                drop(line.text("error", &error));
                if reported {
                    self.events.push_back(Event::SubscribeFailed { channel, error });
                }
            }
        }
    }

    fn log_failure(&self, was_ready: bool, reason: &str, ctx: &mut Context<'_>) {
        let line = if was_ready {
            ctx.log.at(ctx.now, Level::Error, "redis connection lost")
        } else {
            ctx.log.at(ctx.now, Level::Warning, "redis connection failed")
        };
        let line = line.text("host", &self.host).number("port", self.config.port.into());
        drop(line.text("reason", reason));
    }

    /// The text without the password (servers quote what they do not understand) and cut short.
    fn presentable(&self, text: &dyn fmt::Display) -> String {
        let text = text.to_string();
        let text = match self.config.password.as_deref() {
            None | Some("") => text,
            Some(password) => text.replace(password, "[redacted]"),
        };
        text.chars().take(REASON_CHARS_MAX).collect()
    }

    fn gauges<'m>(&self, ctx: &'m mut Context<'_>) -> &'m mut RedisMetrics {
        let all = &mut ctx.metrics.redis;
        if all.len() <= self.index {
            all.resize_with(self.index + 1, RedisMetrics::default);
        }
        &mut all[self.index]
    }
}

/// Queues a command.
fn post(ports: &mut Ports, conn: ConnId, bytes: &[u8]) {
    // An outbox without a limit is never too slow.
    let _ = ports.mail.post_prompt(conn, bytes.into());
}

#[cfg(test)]
mod tests;
