//! The conversation over one connection to Redis: what was sent, and which answer belongs to what.
//!
//! Redis answers in the order of the commands, so a queue of what was sent says what each answer
//! is for; published messages may come between any two answers. This file knows no time, no
//! sockets and nothing of reconnecting.
//!
//! Commands for one channel can cross: SUBSCRIBE, UNSUBSCRIBE and SUBSCRIBE again may be under way
//! at once, when the first answer still tells of a subscription that is to end. Only the answer to
//! the latest command of a channel says how things stand (`Answered::is_latest`).

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use crate::config::RedisConfig;
use crate::limits::RESP_LINE_BYTES_MAX;
use crate::wire::resp::{self, Items, Parser, Value};

/// What a channel command is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Subscribe,
    Unsubscribe,
}

impl Verb {
    pub fn command(self) -> &'static str {
        match self {
            Verb::Subscribe => "SUBSCRIBE",
            Verb::Unsubscribe => "UNSUBSCRIBE",
        }
    }

    /// The first element of the confirmation.
    fn kind(self) -> &'static [u8] {
        match self {
            Verb::Subscribe => b"subscribe",
            Verb::Unsubscribe => b"unsubscribe",
        }
    }
}

/// A command under way.
enum Sent {
    Auth,
    Name,
    Select,
    Ping,
    Channel { verb: Verb, channel: Rc<str>, sequence: u64 },
}

/// What became of a channel command.
pub struct Answered {
    pub verb: Verb,
    /// Without the prefix.
    pub channel: Rc<str>,
    /// No later command for this channel is under way.
    pub is_latest: bool,
    /// The number of channels that this connection is subscribed to, or the server's refusal.
    pub outcome: Result<u64, String>,
}

/// What the server says that concerns the link.
pub enum Heard<'a> {
    /// The answer to a PING. The first one follows the answers to AUTH and SELECT, so these were
    /// accepted.
    Pong,
    Answered(Answered),
    /// A message on a channel with our prefix, which is taken off.
    Message {
        channel: Cow<'a, str>,
        payload: Cow<'a, [u8]>,
    },
}

/// Why this connection cannot go on.
#[derive(PartialEq, Eq, Debug)]
pub enum Breach {
    /// The bytes are not RESP2, or over its bounds.
    Fault(resp::Fault),
    /// A reply without a command.
    Unasked,
    /// A reply that does not answer the command whose turn it is.
    OutOfStep,
    /// A message over `max_message_bytes`.
    MessageTooBig,
    /// The server refuses a command without which there is no link.
    Refused { command: &'static str, error: String },
}

impl From<resp::Fault> for Breach {
    fn from(fault: resp::Fault) -> Breach {
        match fault {
            resp::Fault::BulkTooLong => Breach::MessageTooBig,
            fault => Breach::Fault(fault),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Breach::Fault(fault) => write!(f, "protocol error: {fault}"),
            Breach::Unasked => f.write_str("protocol error: reply without a command"),
            Breach::OutOfStep => f.write_str("protocol error: reply to another command"),
            Breach::MessageTooBig => f.write_str("message over max_message_bytes"),
            Breach::Refused { command, error } => write!(f, "{command} refused: {error}"),
        }
    }
}

/// One connection's conversation.
pub struct Talk {
    config: Rc<RedisConfig>,
    parser: Parser,
    sent: VecDeque<Sent>,
    /// The latest command under way for each channel. The keys are in the hands of clients: the
    /// standard hasher is keyed.
    latest: HashMap<Rc<str>, u64>,
    sequence: u64,
}

impl Talk {
    pub fn new(config: Rc<RedisConfig>) -> Talk {
        let parser = Parser::new(bulk_bytes_max(&config));
        Talk { config, parser, sent: VecDeque::new(), latest: HashMap::new(), sequence: 0 }
    }

    /// Appends the opening commands, to be sent together. The answer to the last one is a `Pong`.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        if let Some(password) = &self.config.password {
            match &self.config.username {
                Some(name) => {
                    resp::push_command(out, &[b"AUTH", name.as_bytes(), password.as_bytes()]);
                }
                None => resp::push_command(out, &[b"AUTH", password.as_bytes()]),
            }
            self.sent.push_back(Sent::Auth);
        }
        resp::push_command(out, &[b"CLIENT", b"SETNAME", b"socketshark"]);
        self.sent.push_back(Sent::Name);
        resp::push_command(out, &[b"SELECT", self.config.db.to_string().as_bytes()]);
        self.sent.push_back(Sent::Select);
        self.ping(out);
    }

    pub fn ping(&mut self, out: &mut Vec<u8>) {
        resp::push_command(out, &[b"PING"]);
        self.sent.push_back(Sent::Ping);
    }

    /// Whether the channel's confirmation would be within the parser's bounds.
    pub fn takes(&self, channel: &str) -> bool {
        self.config.channel_prefix.len() + channel.len() <= bulk_bytes_max(&self.config)
    }

    /// Appends a command for a channel, given without the prefix.
    pub fn command(&mut self, verb: Verb, channel: &str, out: &mut Vec<u8>) {
        let name = [self.config.channel_prefix.as_str(), channel].concat();
        resp::push_command(out, &[verb.command().as_bytes(), name.as_bytes()]);
        let channel: Rc<str> = channel.into();
        self.sequence += 1;
        self.latest.insert(channel.clone(), self.sequence);
        self.sent.push_back(Sent::Channel { verb, channel, sequence: self.sequence });
    }

    /// What the input says next; `None` when it is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Heard<'a>>, Breach> {
        loop {
            if let Some((name, payload)) = self.take_message(input) {
                let Some((channel, payload)) = self.ours(name, payload)? else { continue };
                let (channel, payload) = (Cow::Borrowed(channel), Cow::Borrowed(payload));
                return Ok(Some(Heard::Message { channel, payload }));
            }
            let Some(whole) = self.parser.next(input)? else { return Ok(None) };
            let heard = match Value::read(&whole) {
                Some(Value::Array(items)) if is_message(&items) => self.message(whole)?,
                Some(value) => self.answer(value)?,
                None => None,
            };
            if heard.is_some() {
                return Ok(heard);
            }
        }
    }

    /// The payload of the next message, where it is there as a whole, on this channel, and of at
    /// most `bytes_max`.
    pub fn next_on<'a>(
        &self,
        channel: &str,
        bytes_max: usize,
        input: &mut &'a [u8],
    ) -> Option<&'a [u8]> {
        let mut bytes = *input;
        let (name, payload) = self.take_message(&mut bytes)?;
        let is_same = name.strip_prefix(self.config.channel_prefix.as_bytes())
            == Some(channel.as_bytes())
            && payload.len() <= self.config.max_message_bytes.min(bytes_max);
        is_same.then(|| {
            *input = bytes;
            payload
        })
    }

    /// Mostly it is messages that come, and mostly whole ones.
    fn take_message<'a>(&self, input: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let mut bytes = *input;
        let message = resp::take_message(&mut bytes).filter(|_| self.parser.is_between())?;
        // What is over a bound is for the parser to refuse.
        let bytes_max = bulk_bytes_max(&self.config);
        if message.0.len() > bytes_max || message.1.len() > bytes_max {
            return None;
        }
        *input = bytes;
        Some(message)
    }

    /// A message that did not come as a whole.
    fn message<'a>(&self, whole: Cow<'a, [u8]>) -> Result<Option<Heard<'a>>, Breach> {
        match whole {
            Cow::Borrowed(bytes) => {
                let Some((channel, payload)) = self.our_message(bytes)? else { return Ok(None) };
                let (channel, payload) = (Cow::Borrowed(channel), Cow::Borrowed(payload));
                Ok(Some(Heard::Message { channel, payload }))
            }
            Cow::Owned(mut bytes) => {
                let Some((channel, payload)) = self.our_message(&bytes)? else { return Ok(None) };
                let (channel, payload_bytes) = (channel.to_owned(), payload.len());
                // The payload stands before the last CRLF; it stays in the buffer it came in.
                let end = bytes.len() - 2;
                bytes.truncate(end);
                bytes.drain(..end - payload_bytes);
                let (channel, payload) = (Cow::Owned(channel), Cow::Owned(bytes));
                Ok(Some(Heard::Message { channel, payload }))
            }
        }
    }

    /// Channel without prefix and payload, or `None` for messages that are none of ours.
    fn our_message<'b>(&self, whole: &'b [u8]) -> Result<Option<(&'b str, &'b [u8])>, Breach> {
        let Some(Value::Array(mut items)) = Value::read(whole) else { return Ok(None) };
        let parts = (items.nth(1), items.next(), items.next());
        let (Some(Value::Bulk(name)), Some(Value::Bulk(payload)), None) = parts else {
            return Ok(None);
        };
        self.ours(name, payload)
    }

    fn ours<'b>(
        &self,
        name: &'b [u8],
        payload: &'b [u8],
    ) -> Result<Option<(&'b str, &'b [u8])>, Breach> {
        if payload.len() > self.config.max_message_bytes {
            return Err(Breach::MessageTooBig);
        }
        let channel = name.strip_prefix(self.config.channel_prefix.as_bytes());
        let channel = channel.and_then(|channel| std::str::from_utf8(channel).ok());
        Ok(channel.map(|channel| (channel, payload)))
    }

    /// Takes a reply for the oldest command under way.
    fn answer(&mut self, value: Value<'_>) -> Result<Option<Heard<'static>>, Breach> {
        let sent = self.sent.pop_front().ok_or(Breach::Unasked)?;
        let (verb, channel, sequence) = match sent {
            Sent::Auth => return accepted("AUTH", value),
            // The name is for people who look at the server's client list.
            Sent::Name if matches!(value, Value::Error(_)) => return Ok(None),
            Sent::Name => return accepted("CLIENT SETNAME", value),
            Sent::Select => return accepted("SELECT", value),
            Sent::Ping => return pong(value),
            Sent::Channel { verb, channel, sequence } => (verb, channel, sequence),
        };
        let outcome = match value {
            Value::Error(error) => Err(error_text(error)),
            Value::Array(items) => Ok(self.confirmed(verb, &channel, items)?),
            _ => return Err(Breach::OutOfStep),
        };
        let is_latest = self.latest.get(&channel) == Some(&sequence);
        if is_latest {
            self.latest.remove(&channel);
        }
        Ok(Some(Heard::Answered(Answered { verb, channel, is_latest, outcome })))
    }

    /// Checks a confirmation and returns its number of channels.
    fn confirmed(&self, verb: Verb, channel: &str, mut items: Items<'_>) -> Result<u64, Breach> {
        let parts = (items.next(), items.next(), items.next(), items.next());
        let (Some(Value::Bulk(kind)), Some(Value::Bulk(name)), Some(Value::Integer(count)), None) =
            parts
        else {
            return Err(Breach::OutOfStep);
        };
        let ours = name.strip_prefix(self.config.channel_prefix.as_bytes());
        if kind != verb.kind() || ours != Some(channel.as_bytes()) {
            return Err(Breach::OutOfStep);
        }
        u64::try_from(count).map_err(|_| Breach::OutOfStep)
    }
}

/// What the parser takes of one bulk string. A small `max_message_bytes` is for messages only:
/// a long channel name that a client may choose must not end the link when it is confirmed.
fn bulk_bytes_max(config: &RedisConfig) -> usize {
    config.max_message_bytes.max(RESP_LINE_BYTES_MAX)
}

fn is_message(items: &Items<'_>) -> bool {
    items.clone().next() == Some(Value::Bulk(b"message"))
}

fn accepted(command: &'static str, value: Value<'_>) -> Result<Option<Heard<'static>>, Breach> {
    match value {
        Value::Simple(b"OK") => Ok(None),
        Value::Error(error) => {
            // Some servers quote the arguments of a command that they do not know.
            let error = if command == "AUTH" { error_code(error) } else { error_text(error) };
            Err(Breach::Refused { command, error })
        }
        _ => Err(Breach::OutOfStep),
    }
}

/// Redis answers PING with an array once something is subscribed.
fn pong(value: Value<'_>) -> Result<Option<Heard<'static>>, Breach> {
    match value {
        Value::Simple(b"PONG") => Ok(Some(Heard::Pong)),
        Value::Array(items) if items.clone().eq([Value::Bulk(b"pong"), Value::Bulk(b"")]) => {
            Ok(Some(Heard::Pong))
        }
        Value::Error(error) => Err(Breach::Refused { command: "PING", error: error_text(error) }),
        _ => Err(Breach::OutOfStep),
    }
}

fn error_text(error: &[u8]) -> String {
    String::from_utf8_lossy(error).into_owned()
}

/// The upper-case word that Redis's errors begin with: `WRONGPASS`, `NOAUTH`, `ERR`.
fn error_code(error: &[u8]) -> String {
    let word = error.split(|&byte| byte == b' ').next().unwrap_or_default();
    let is_code = word.len() <= 16 && word.iter().all(u8::is_ascii_uppercase);
    if is_code { error_text(word) } else { "unknown error".to_owned() }
}
