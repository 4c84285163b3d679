//! What bytes mean. Whoever sends bytes towards the program marks where something is complete in
//! them and what it is; the model hears of it when the program has been given that byte, however
//! the stream was cut up. So the model parses nothing that the program parses.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde_json::Value;

pub type Fields = BTreeMap<String, Value>;

/// Stands for a number whose digits no double holds, in what clients and services send.
pub const DIGITS: &str = "@digits";

/// The number.
pub const NUMBER: &str = "31415926535897932384.6264338327950288";

/// A text with the number in it, where it stood for it.
pub fn with_digits(text: String) -> String {
    text.replace(&format!("\"{DIGITS}\""), NUMBER)
}

/// The number has all its digits wherever it is.
pub fn check_digits(text: &str) {
    let begins = text.matches(&NUMBER[..8]).count();
    assert_eq!(begins, text.matches(NUMBER).count(), "a number has lost digits: {text}");
}

/// A text as the model reads it: with the stand-in for the number.
pub fn without_digits(text: &str) -> String {
    text.replace(NUMBER, &format!("\"{DIGITS}\""))
}

/// Something that is complete.
#[derive(Clone, Debug)]
pub enum Mark {
    /// From a client.
    Client(Heard),
    /// From Redis: the answer to the oldest command without one; false: an error.
    Answered(bool),
    /// From Redis: a message on a channel, its name without the prefix.
    Message(String, Rc<Publication>),
    /// From Redis: bytes that end the link.
    Garbage,
    /// From a service: the end of its answer. None: an answer that fails the try.
    Reply(Option<Value>),
}

/// What a client sends.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A handshake in order.
    Request,
    /// A handshake that is refused with this status.
    BadRequest(u16),
    Ask(Rc<Ask>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The first byte of a frame that breaks a rule: from here on, the fault may be found.
    FaultBegins(u16),
    /// Its last byte: the fault is found.
    Fault,
    /// The end of the stream.
    Fin,
}

/// A client's event.
#[derive(Debug)]
pub struct Ask {
    /// Bytes of its text.
    pub bytes: usize,
    pub what: Asked,
}

#[derive(Clone, Debug)]
pub enum Asked {
    /// With a ticket, or without.
    Auth(Option<String>),
    Subscribe(On),
    Message(On, Value),
    Unsubscribe(On),
    /// With what comes back.
    Ping(Value),
    /// Answered like this whenever it comes.
    Bad(Value),
}

/// The subscription that an event is about, and the extra fields that it has.
#[derive(Clone, Debug)]
pub struct On {
    pub name: String,
    pub fields: Fields,
}

/// A message that is published.
#[derive(Debug)]
pub struct Publication {
    pub text: String,
    /// The subscription that it names; none: it is unusable and dropped.
    pub name: Option<String>,
    pub data: Value,
    /// The same as it was written.
    pub raw_data: String,
    /// Members besides.
    pub fields: Fields,
    pub order: Option<(f64, String)>,
    /// Seconds and key.
    pub throttle: Option<(f64, String)>,
    pub published_at: Option<PublishedAt>,
}

/// The time that a message says it was published at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublishedAt {
    Unreadable,
    /// As clients are to get it.
    At(String),
}

/// A key of order or throttle: an absent one is null, numbers count by their value.
pub fn key_text(key: Option<&Value>) -> String {
    match key {
        None => "null".to_owned(),
        Some(Value::Number(number)) => format!("{:?}", number.as_f64()),
        Some(other) => other.to_string(),
    }
}

/// For traces.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Client(Heard::Ask(ask)) => match &ask.what {
                Asked::Subscribe(on) => write!(f, "subscribe {on}"),
                Asked::Message(on, data) => write!(f, "message {on} with {data}"),
                Asked::Unsubscribe(on) => write!(f, "unsubscribe {on}"),
                Asked::Auth(Some(ticket)) => write!(f, "auth with {ticket}"),
                Asked::Auth(None) => f.write_str("auth without ticket"),
                Asked::Ping(_) => f.write_str("ping event"),
                Asked::Bad(answer) => write!(f, "an event to be answered with {answer}"),
            },
            Mark::Client(heard) => write!(f, "{heard:?}"),
            Mark::Answered(true) => f.write_str("an answer"),
            Mark::Answered(false) => f.write_str("an error"),
            Mark::Message(channel, message) => write!(f, "on {channel}: {}", message.text),
            Mark::Garbage => f.write_str("garbage"),
            Mark::Reply(Some(answer)) => write!(f, "the answer {answer}"),
            Mark::Reply(None) => f.write_str("no good answer"),
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Equality as JSON has it: 1 equals 1.0.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
