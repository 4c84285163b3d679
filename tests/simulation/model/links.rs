//! The Redis links as their commands and answers show them (section 6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use socketshark::arena::ConnId;
use socketshark::ports::Output;
use socketshark::time::Instant;

use super::{Model, Seen, Serving};
use crate::swarm::{REDIS_CONNECT_TIMEOUT, REDIS_DELAY_MAX, REDIS_PING_TIMEOUT, Redis, Rules};
use crate::world::addresses;

pub(super) struct Links(Vec<Link>);

#[derive(Default)]
struct Link {
    prefix: String,
    conn: Option<ConnId>,
    /// The greeting is answered.
    ready: bool,
    /// Commands without an answer.
    sent: VecDeque<Sent>,
    channels: BTreeMap<String, Channel>,
    /// The interval of its pings.
    interval: Option<Duration>,
    beat: Beat,
    /// When it was dialled, or its name looked up, or it was lost: the last thing that happened
    /// before it was ready.
    since: Instant,
    /// When that was seen to have taken too long.
    late: Option<Instant>,
}

/// The pings of a link that is ready.
#[derive(Clone, Copy, Default)]
enum Beat {
    #[default]
    Off,
    Due(Instant),
    Sent(Instant),
}

enum Sent {
    Ping,
    Subscribe(String),
    Unsubscribe(String),
    Other,
}

/// A channel at one Redis.
#[derive(Default)]
struct Channel {
    /// Commands without an answer.
    under_way: usize,
    /// What the last command wanted.
    wanted: bool,
    /// What the last answer said.
    on: bool,
}

impl Links {
    pub fn new(rules: &Rules) -> Links {
        let link = |redis: &Redis| {
            let (prefix, interval) = (redis.prefix.clone(), redis.ping_interval);
            Link { prefix, interval, ..Link::default() }
        };
        Links(rules.redis.iter().map(link).collect())
    }

    fn find(&self, conn: ConnId) -> Option<usize> {
        self.0.iter().position(|link| link.conn == Some(conn))
    }

    pub fn is_ready(&self, conn: ConnId) -> bool {
        self.find(conn).is_some_and(|index| self.0[index].ready)
    }

    /// Which of them are ready.
    pub fn ready(&self) -> impl Iterator<Item = bool> {
        self.0.iter().map(|link| link.ready)
    }

    pub fn all_ready(&self) -> bool {
        self.0.iter().all(|link| link.ready)
    }

    /// Whether every Redis has confirmed a channel and nothing else is under way for it.
    pub fn is_joined(&self, name: &str) -> bool {
        let is_on = |channel: &Channel| channel.on && channel.under_way == 0;
        self.0.iter().all(|link| link.ready && link.channels.get(name).is_some_and(is_on))
    }

    /// Channels that the program subscribes in this step.
    pub fn subscribed(&self, seen: &Seen) -> BTreeSet<String> {
        let mut subscribed = BTreeSet::new();
        for (conn, command) in &seen.commands {
            if let (Some(index), [verb, channel]) = (self.find(*conn), command.as_slice())
                && verb == "SUBSCRIBE"
            {
                subscribed.extend(channel.strip_prefix(&self.0[index].prefix).map(str::to_owned));
            }
        }
        subscribed
    }

    /// The link cannot go on after this.
    fn must_be_lost(&self, conn: ConnId, seen: &Seen) {
        if self.find(conn).is_some() {
            let is_closed = seen.outputs.contains(&Output::Close(conn));
            assert!(is_closed, "{conn}: the Redis link is given up");
        }
    }

    /// When each has to be pinged, to have answered, or to be connected.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        self.0.iter().map(|link| match (link.ready, link.beat) {
            (true, Beat::Due(at)) => at,
            (true, Beat::Sent(at)) => at.after(REDIS_PING_TIMEOUT),
            (true, Beat::Off) => Instant(u64::MAX),
            (false, _) => match link.late {
                Some(late) => late.after(REDIS_DELAY_MAX),
                None => link.since.after(REDIS_CONNECT_TIMEOUT),
            },
        })
    }

    /// What is due for a link now has been done.
    fn check_due(&mut self, now: Instant, seen: &Seen) {
        let due: Vec<Instant> = self.due().collect();
        for (index, (link, due)) in self.0.iter_mut().zip(due).enumerate() {
            let Some(conn) = link.conn else {
                // A look-up that takes too long is followed by a wait.
                let is_tried = seen.outputs.iter().any(|it| redis_of(it) == Some(index));
                let is_lazy = due < now && link.late.is_some() && !is_tried;
                assert!(!is_lazy, "Redis is dialled again in time");
                link.late = link.late.or((due <= now).then_some(now));
                continue;
            };
            let is_ping =
                |(to, command): &(ConnId, Vec<String>)| *to == conn && *command == ["PING"];
            let is_pinged = seen.commands.iter().any(is_ping);
            let is_closed = seen.outputs.contains(&Output::Close(conn));
            match link.beat {
                _ if !link.ready || is_closed => {}
                Beat::Due(_) => assert_eq!(is_pinged, due <= now, "{conn}: a ping of Redis"),
                Beat::Sent(_) | Beat::Off => assert!(!is_pinged, "{conn}: a ping that is not due"),
            }
            let is_over = due <= now && (!link.ready || matches!(link.beat, Beat::Sent(_)));
            assert!(!is_over || is_closed, "{conn}: Redis does not answer and is given up");
        }
    }

    /// Takes up the commands that were queued in this step.
    pub fn take_commands(&mut self, now: Instant, seen: &Seen) {
        for (conn, command) in &seen.commands {
            let index = self.find(*conn).expect("commands go to a link");
            let link = &mut self.0[index];
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let sent = match words[..] {
                ["PING"] => {
                    link.beat = Beat::Sent(now);
                    Sent::Ping
                }
                ["AUTH", ..] | ["CLIENT", ..] | ["SELECT", _] => Sent::Other,
                [verb @ ("SUBSCRIBE" | "UNSUBSCRIBE"), channel] => {
                    assert!(link.ready, "channels after the greeting");
                    let name =
                        channel.strip_prefix(&link.prefix).expect("channels have the prefix");
                    let channel = link.channels.entry(name.to_owned()).or_default();
                    let wanted = verb == "SUBSCRIBE";
                    assert!(channel.wanted != wanted || !wanted, "{name} is subscribed already");
                    channel.wanted = wanted;
                    channel.under_way += 1;
                    let sent = if wanted { Sent::Subscribe } else { Sent::Unsubscribe };
                    sent(name.to_owned())
                }
                _ => panic!("an odd command: {words:?}"),
            };
            link.sent.push_back(sent);
        }
    }

    /// Each Redis is asked for exactly the channels in use.
    pub fn check(&self, must: &BTreeSet<String>, may: &BTreeSet<String>) {
        for link in self.0.iter().filter(|link| link.ready) {
            let wanted = link.channels.iter().filter(|(_, channel)| channel.wanted);
            let wanted: BTreeSet<String> = wanted.map(|(name, _)| name.clone()).collect();
            let idle: Vec<&String> =
                wanted.difference(must).filter(|it| !may.contains(*it)).collect();
            assert!(idle.is_empty(), "channels that nobody uses are subscribed: {idle:?}");
            if self.all_ready() {
                let missing: Vec<&String> = must.difference(&wanted).collect();
                assert!(missing.is_empty(), "channels in use are not subscribed: {missing:?}");
            }
        }
    }

    /// The channels that every Redis has confirmed, or that one is asked for.
    pub fn wanted(&self) -> BTreeSet<&str> {
        let channels = self.0.iter().flat_map(|link| &link.channels);
        channels.filter(|(_, it)| it.wanted).map(|(name, _)| name.as_str()).collect()
    }
}

/// Which Redis an output dials or looks up.
fn redis_of(output: &Output) -> Option<usize> {
    match output {
        Output::Connect { to, .. } => addresses::redis_at(*to),
        Output::Resolve(host) => addresses::redis_named(host),
        _ => None,
    }
}

impl Model {
    /// The link of a connection cannot go on.
    pub(super) fn link_must_be_lost(&mut self, conn: ConnId, seen: &Seen) {
        self.links.must_be_lost(conn, seen);
        self.step.spoilt.insert(conn);
    }

    /// The oldest command has its answer.
    pub(super) fn answered_by_redis(&mut self, conn: ConnId, ok: bool) {
        let Some(index) = self.links.find(conn) else { return };
        let link = &mut self.links.0[index];
        match link.sent.pop_front().expect("Redis answers what was asked") {
            Sent::Other => {}
            Sent::Ping => {
                link.beat = match (link.interval, link.beat, link.ready) {
                    (Some(interval), Beat::Sent(at), true) => Beat::Due(at.after(interval)),
                    (Some(interval), _, _) => Beat::Due(self.now.after(interval)),
                    (None, ..) => Beat::Off,
                };
                if !std::mem::replace(&mut link.ready, true)
                    && self.links.all_ready()
                    && self.serving == Serving::No
                {
                    self.serving = Serving::Yes;
                }
            }
            Sent::Unsubscribe(name) => {
                let channel = link.channels.get_mut(&name).expect("it was asked for");
                channel.under_way -= 1;
                channel.on = false;
            }
            Sent::Subscribe(name) => {
                let channel = link.channels.get_mut(&name).expect("it was asked for");
                channel.under_way -= 1;
                channel.on = ok;
                if channel.under_way > 0 {
                    return;
                }
                channel.wanted = ok;
                if !ok || self.links.is_joined(&name) {
                    self.channel_answered(&name, ok);
                }
            }
        }
    }

    /// Notices which links the program has given up, and which it dials.
    pub(super) fn links_lost(&mut self, seen: &Seen) {
        if self.step.is_tick {
            self.links.check_due(self.now, seen);
        }
        for output in &seen.outputs {
            if let Some(index) = redis_of(output) {
                self.links.0[index].since = self.now;
                self.links.0[index].late = None;
            }
            match *output {
                Output::Close(conn) => {
                    let Some(index) = self.links.find(conn) else { continue };
                    let link = &mut self.links.0[index];
                    let was_ready = link.ready;
                    let (prefix, interval) = (std::mem::take(&mut link.prefix), link.interval);
                    *link = Link { prefix, interval, since: self.now, ..Link::default() };
                    let has_reason = self.step.spoilt.contains(&conn)
                        || self.serving == Serving::Stopping
                        || self.step.is_tick;
                    assert!(has_reason, "{conn}: the Redis link is given up without a reason");
                    if was_ready {
                        self.redis_lost();
                    }
                }
                Output::Connect { conn, to } => {
                    if let Some(index) = addresses::redis_at(to) {
                        self.links.0[index].conn = Some(conn);
                    }
                }
                _ => {}
            }
        }
    }

    /// Messages may have been missed, and clients must know.
    fn redis_lost(&mut self) {
        self.tally.losses += 1;
        if self.serving == Serving::Yes {
            self.serving = if self.rules.shuts_down { Serving::Stopping } else { Serving::No };
            self.send_away(1012);
        }
        self.joins_failed();
    }

    /// Each Redis is asked for exactly the channels in use.
    pub(super) fn check_channels(&self) {
        let (must, may) = self.channels();
        self.links.check(&must, &may);
    }

    /// Whether the program and the links agree on the channels.
    pub fn check_router(&self, channels: &BTreeSet<&str>) {
        if self.links.all_ready() {
            assert_eq!(*channels, self.links.wanted(), "the router's channels are the links'");
        }
    }
}
