//! The router on a bench: virtual time, callbacks answered by script, Redis played by hand, what
//! clients hear as JSON texts. After each step the whole router is audited.

use std::collections::BTreeSet;
use std::io::IoSlice;

use super::*;
use crate::arena::ConnTag;
use crate::config::{Level, LogStyle, parse};
use crate::message::Hook;
use crate::metrics::EventLabel;
use crate::time::Wall;
use crate::wire::json::Object;

mod authentication;
mod callbacks;
mod errors;
mod events;
mod expiry;
mod farewell;
mod filters;
mod messages;
mod models;
mod reload;
mod renewal;
mod subscribe;
mod together;
mod turmoil;

const OK: &str = r#"{"status":"ok"}"#;
const NO: &str = r#"{"status":"error"}"#;

/// The hooks of a subscription's life, heartbeats and changes aside.
const LIFE: &str =
    "authorizer before_subscribe on_subscribe on_message before_unsubscribe on_unsubscribe";

/// A connected WebSocket client.
#[derive(Clone, Copy)]
struct Client {
    session: SessionId,
    conn: ConnId,
}

struct Bench {
    router: Router,
    config: Config,
    now: Now,
    mail: Mail,
    timers: Timers,
    random: Random,
    log: Log,
    metrics: Metrics,
    calls: Calls,
    asks: Asks,
    conns: Arena<ConnTag, ()>,
    /// What the router has asked of Redis since somebody looked.
    changes: Vec<String>,
    /// The channels that Redis has been asked for.
    channels: BTreeSet<String>,
    /// Those of them that it has not confirmed.
    unconfirmed: Vec<String>,
}

/// A service without authentication: the names of its hooks, and other keys as JSON.
fn service(name: &str, hooks: &str, more: &str) -> String {
    let hooks = hooks.split_whitespace().map(|hook| format!("\"{hook}\": \"http://s/{hook}\", "));
    let (hooks, comma) = (hooks.collect::<String>(), if more.is_empty() { "" } else { ", " });
    format!("\"{name}\": {{{hooks}\"require_authentication\": false{comma}{more}}}")
}

/// A bench with services; those of `service`, mostly.
fn bench(services: &str) -> Bench {
    Bench::new(&format!("{{\"SERVICES\": {{{services}}}}}"))
}

impl Bench {
    fn new(config: &str) -> Bench {
        let config = read_config(config);
        let log_config = crate::config::LogConfig { style: LogStyle::Json, ..config.log.clone() };
        Bench {
            router: Router::default(),
            config,
            now: Now { mono: Instant(1_000_000), wall: Wall(1_700_000_000_000_000) },
            mail: Mail::default(),
            timers: Timers::default(),
            random: Random::seeded(1),
            log: Log::new(&log_config, 1, false),
            metrics: Metrics::default(),
            calls: Calls::default(),
            asks: Asks::default(),
            conns: Arena::default(),
            changes: Vec::new(),
            channels: BTreeSet::new(),
            unconfirmed: Vec::new(),
        }
    }

    /// Lends the desk for one step, then checks what must always hold.
    #[track_caller]
    fn lend<T>(&mut self, step: impl FnOnce(&mut Router, &mut Desk<'_>) -> T) -> T {
        let given = step(
            &mut self.router,
            &mut Desk {
                now: self.now,
                config: &self.config,
                mail: &mut self.mail,
                timers: &mut self.timers,
                random: &mut self.random,
                log: &mut self.log,
                metrics: &mut self.metrics,
                calls: &self.calls,
                asks: &mut self.asks,
            },
        );
        while let Some(change) = self.asks.channels.pop_front() {
            match change {
                ChannelChange::Join(name) => {
                    assert!(self.channels.insert(name.to_string()), "{name} is subscribed twice");
                    self.unconfirmed.push(name.to_string());
                    self.changes.push(format!("join {name}"));
                }
                ChannelChange::Leave(name) => {
                    assert!(self.channels.remove(&*name), "{name} is left, but was not subscribed");
                    assert!(!self.unconfirmed.contains(&name.to_string()), "{name} is awaited");
                    self.changes.push(format!("leave {name}"));
                }
            }
        }
        self.audit();
        given
    }

    #[track_caller]
    fn audit(&self) {
        self.router.audit();
        self.router.audit_parked(&self.mail);
        self.mail.audit();
        let wanted: BTreeSet<String> = self.router.channels().map(str::to_owned).collect();
        assert_eq!(wanted, self.channels, "Redis is asked for exactly the channels in use");
        if self.router.sessions() == 0 {
            assert_eq!(self.metrics.subscriptions, 0, "all are left");
        }
    }

    // ---------------------------------------------------------------- clients

    fn connect(&mut self) -> Client {
        let conn = self.conns.insert(());
        self.mail.open(conn, self.config.limits.send_queue_bytes, true);
        Client { session: self.router.open(conn), conn }
    }

    /// A client sends an event. Says whether it should not be read for now.
    #[track_caller]
    fn send(&mut self, from: Client, text: &str) -> bool {
        self.lend(|router, desk| router.command(from.session, text, desk))
    }

    /// All that has been sent to a client since it was last looked at.
    fn hear(&mut self, client: Client) -> Vec<String> {
        let mut bytes = Vec::new();
        while let Some(outbox) = self.mail.outbox(client.conn).filter(|outbox| !outbox.is_empty()) {
            let mut slices = [IoSlice::new(&[]); 64];
            let used = outbox.slices_from(0, &mut slices);
            let before = bytes.len();
            bytes.extend(slices[..used].iter().flat_map(|slice| slice.iter().copied()));
            self.mail.written(client.conn, bytes.len() - before);
        }
        texts_of(&bytes)
    }

    #[track_caller]
    fn hears(&mut self, client: Client, expected: &[&str]) {
        assert_eq!(self.hear(client), expected);
    }

    /// The client goes; whether by its own will decides about events that wait.
    #[track_caller]
    fn depart(&mut self, client: Client, by_client: bool) {
        self.mail.close(client.conn);
        self.conns.remove(client.conn);
        self.lend(|router, desk| router.departed(client.session, by_client, desk));
    }

    /// A client that has subscribed to these, whatever callbacks that took.
    #[track_caller]
    fn subscriber(&mut self, names: &[&str]) -> Client {
        let client = self.connect();
        for name in names {
            self.subscribe(client, name);
        }
        client
    }

    /// One more subscription, everything on the way answered ok.
    #[track_caller]
    fn subscribe(&mut self, client: Client, name: &str) {
        self.send(client, &on("subscribe", name));
        self.settle();
        let heard = self.hear(client);
        assert!(heard.iter().any(|text| text.contains("\"status\":\"ok\"")), "{heard:?}");
        self.changes.clear();
    }

    // -------------------------------------------------------------- callbacks

    /// The callbacks under way: hook and body.
    fn calls(&self) -> Vec<String> {
        let text = |call: &Call| {
            let body = std::str::from_utf8(&call.body).expect("bodies are JSON");
            assert!(Object::parse(body).is_ok(), "bodies are objects: {body}");
            format!("{} {body}", call.hook.name())
        };
        self.asks.calls.iter().map(text).collect()
    }

    #[track_caller]
    fn asks(&self, expected: &[&str]) {
        assert_eq!(self.calls(), expected);
    }

    /// Answers the oldest callback under way; gives its hook.
    #[track_caller]
    fn answer(&mut self, answer: &str) -> Hook {
        self.reply(0, Answer::Object(answer.into()))
    }

    /// All tries of the oldest callback have failed.
    #[track_caller]
    fn fail(&mut self) -> Hook {
        self.reply(0, Answer::Unavailable)
    }

    #[track_caller]
    fn reply(&mut self, index: usize, answer: Answer) -> Hook {
        let call = self.asks.calls.remove(index).expect("a callback is under way");
        self.lend(|router, desk| router.answered(call.owner, &answer, desk));
        call.hook
    }

    /// Answers ok to everybody and confirms every channel until nothing is under way.
    #[track_caller]
    fn settle(&mut self) {
        loop {
            if !self.asks.calls.is_empty() {
                self.answer(OK);
            } else if let Some(channel) = self.unconfirmed.first().cloned() {
                self.confirm(&channel);
            } else {
                return;
            }
        }
    }

    /// The hooks called from here on until nothing is under way, all answered ok.
    #[track_caller]
    fn hooks(&mut self) -> Vec<&'static str> {
        let mut hooks = Vec::new();
        while !self.asks.calls.is_empty() {
            hooks.push(self.answer(OK).name());
        }
        hooks
    }

    // ------------------------------------------------------------------ Redis

    #[track_caller]
    fn confirm(&mut self, channel: &str) {
        self.unconfirmed.retain(|other| other != channel);
        self.lend(|router, desk| router.joined(channel, desk));
    }

    #[track_caller]
    fn refuse(&mut self, channel: &str) {
        self.unconfirmed.retain(|other| other != channel);
        self.channels.remove(channel);
        self.lend(|router, desk| router.join_refused(channel, desk));
    }

    #[track_caller]
    fn changes(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.changes), expected);
    }

    #[track_caller]
    fn publish(&mut self, channel: &str, text: &str) {
        self.lend(|router, desk| router.publish(channel, &[text.as_bytes().into()], desk));
    }

    /// Publishes on the subscription's own channel.
    #[track_caller]
    fn message(&mut self, name: &str, data: &str, more: &str) {
        let comma = if more.is_empty() { "" } else { "," };
        let text = format!("{{\"subscription\":\"{name}\",\"data\":{data}{comma}{more}}}");
        self.publish(name, &text);
    }

    /// The `data` of all messages to a client since it was last looked at.
    #[track_caller]
    fn data(&mut self, client: Client) -> Vec<String> {
        let data_of = |text: &String| {
            let object = Object::parse(text).expect("clients get objects");
            assert_eq!(object.get("event"), Some("\"message\""), "{text}");
            object.get("data").expect("messages have data").to_owned()
        };
        self.hear(client).iter().map(data_of).collect()
    }

    // ------------------------------------------------------------------- time

    /// Lets time go by; what falls due on the way happens at its moment.
    #[track_caller]
    fn pass(&mut self, seconds: f64) {
        let end = self.now.mono.after(std::time::Duration::from_secs_f64(seconds));
        while let Some(next) = self.timers.next_deadline().filter(|&next| next <= end) {
            self.set_time(next.max(self.now.mono));
            while let Some((at, timer)) = self.timers.take_due(self.now.mono) {
                self.lend(|router, desk| router.due(at, timer, desk));
            }
        }
        self.set_time(end);
    }

    /// A turn of the loop, in which no time passes.
    #[track_caller]
    fn turn(&mut self) {
        self.lend(Router::turn);
    }

    fn set_time(&mut self, mono: Instant) {
        self.now.wall.0 += mono.since(self.now.mono).as_micros() as i64;
        self.now.mono = mono;
    }

    // ------------------------------------------------------------------ other

    /// A new configuration file.
    #[track_caller]
    fn reload(&mut self, config: &str) {
        self.config = read_config(config);
        self.lend(|router, desk| router.reconfigure(desk));
    }

    /// How often an event succeeded and failed.
    fn counted(&self, label: EventLabel) -> [u64; 2] {
        self.metrics.events[label as usize]
    }

    /// The log lines since somebody looked.
    fn logged(&mut self) -> String {
        self.log.take()
    }
}

#[track_caller]
fn read_config(text: &str) -> Config {
    parse(text, &|_| None).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// A client's event on a subscription.
fn on(event: &str, name: &str) -> String {
    format!("{{\"event\":\"{event}\",\"subscription\":\"{name}\"}}")
}

/// The answer to an event on a subscription, where all went well.
fn ok(event: &str, name: &str) -> String {
    format!("{{\"event\":\"{event}\",\"status\":\"ok\",\"subscription\":\"{name}\"}}")
}

/// The answer to an event on a subscription that was refused.
fn refused(event: &str, name: &str, error: &str) -> String {
    refused_with(event, name, error, "")
}

/// The same with further members, each behind a comma.
fn refused_with(event: &str, name: &str, error: &str, more: &str) -> String {
    let result = format!(r#""status":"error","error":"{error}"{more}"#);
    format!(r#"{{"event":"{event}",{result},"subscription":"{name}"}}"#)
}

/// Takes a server's text frames apart (RFC 6455, section 5.2).
fn texts_of(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(*first, 0x81, "one whole text frame");
        let extended = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let (length, rest) = rest.split_at(extended);
        let length = match extended {
            0 => usize::from(*second),
            _ => length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        };
        let (text, rest) = rest.split_at(length);
        let text = std::str::from_utf8(text).expect("text is UTF-8");
        assert!(Object::parse(text).is_ok(), "what clients get is JSON: {text}");
        texts.push(text.to_owned());
        bytes = rest;
    }
    texts
}
