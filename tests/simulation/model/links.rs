//! The Redis links as their commands and answers show them (section 6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use socketshark::arena::ConnId;
use socketshark::ports::Output;

use super::{Model, Seen, Serving};
use crate::swarm::Rules;
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
        let link = |prefix: &String| Link { prefix: prefix.clone(), ..Link::default() };
        Links(rules.redis.iter().map(|redis| link(&redis.prefix)).collect())
    }

    fn find(&self, conn: ConnId) -> Option<usize> {
        self.0.iter().position(|link| link.conn == Some(conn))
    }

    pub fn is_ready(&self, conn: ConnId) -> bool {
        self.find(conn).is_some_and(|index| self.0[index].ready)
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
    pub fn must_be_lost(&self, conn: ConnId, seen: &Seen) {
        if self.find(conn).is_some() {
            let is_closed = seen.outputs.contains(&Output::Close(conn));
            assert!(is_closed, "{conn}: the Redis link is given up");
        }
    }

    /// Takes up the commands that were queued in this step.
    pub fn take_commands(&mut self, seen: &Seen) {
        for (conn, command) in &seen.commands {
            let index = self.find(*conn).expect("commands go to a link");
            let link = &mut self.0[index];
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let sent = match words[..] {
                ["PING"] => Sent::Ping,
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

impl Model {
    /// The oldest command has its answer.
    pub(super) fn answered_by_redis(&mut self, conn: ConnId, ok: bool) {
        let Some(index) = self.links.find(conn) else { return };
        let link = &mut self.links.0[index];
        match link.sent.pop_front().expect("Redis answers what was asked") {
            Sent::Other => {}
            Sent::Ping => {
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
        for output in &seen.outputs {
            match *output {
                Output::Close(conn) => {
                    let Some(index) = self.links.find(conn) else { continue };
                    let link = &mut self.links.0[index];
                    let was_ready = link.ready;
                    *link = Link { prefix: std::mem::take(&mut link.prefix), ..Link::default() };
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
