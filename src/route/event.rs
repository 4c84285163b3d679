//! What a client says, read from its text.

use std::borrow::Cow;

use crate::limits::{EVENT_NAME_CHARS_MAX, PONG_DATA_CHARS_MAX};
use crate::metrics::EventLabel;
use crate::wire::json::{self, NotObject, Object};

/// The events on a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnSubscription {
    Subscribe,
    Message,
    Unsubscribe,
}

/// A client's event.
pub enum ClientEvent<'a> {
    /// No JSON at all.
    NotJson,
    /// JSON, but no event.
    Invalid,
    /// An event of a name that nobody knows; the name as it was sent, raw.
    Unknown(&'a str),
    Auth(Object<'a>),
    Ping(Object<'a>),
    Subscription(OnSubscription, Object<'a>),
}

impl<'a> ClientEvent<'a> {
    pub fn parse(text: &'a str) -> ClientEvent<'a> {
        let object = match Object::parse(text) {
            Ok(object) => object,
            Err(NotObject::NotJson) => return ClientEvent::NotJson,
            Err(NotObject::OtherValue) => return ClientEvent::Invalid,
        };
        let Some(raw) = object.get("event") else { return ClientEvent::Invalid };
        let Some(name) = json::string_bytes(raw) else { return ClientEvent::Invalid };
        if code_points(&name) > EVENT_NAME_CHARS_MAX {
            return ClientEvent::Invalid;
        }
        match &*name {
            b"auth" => ClientEvent::Auth(object),
            b"ping" => ClientEvent::Ping(object),
            b"subscribe" => ClientEvent::Subscription(OnSubscription::Subscribe, object),
            b"message" => ClientEvent::Subscription(OnSubscription::Message, object),
            b"unsubscribe" => ClientEvent::Subscription(OnSubscription::Unsubscribe, object),
            _ => ClientEvent::Unknown(raw),
        }
    }
}

impl OnSubscription {
    pub fn label(self) -> EventLabel {
        match self {
            OnSubscription::Subscribe => EventLabel::Subscribe,
            OnSubscription::Message => EventLabel::Message,
            OnSubscription::Unsubscribe => EventLabel::Unsubscribe,
        }
    }
}

impl EventLabel {
    /// The event's name, as answers echo it: raw JSON.
    pub fn raw_name(self) -> &'static str {
        match self {
            EventLabel::Auth => "\"auth\"",
            EventLabel::Subscribe => "\"subscribe\"",
            EventLabel::Message => "\"message\"",
            EventLabel::Unsubscribe => "\"unsubscribe\"",
            EventLabel::Ping => "\"ping\"",
            EventLabel::Unknown | EventLabel::Invalid => "null",
        }
    }
}

/// The code points of UTF-8 or WTF-8: bytes that begin one.
fn code_points(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

/// A subscription's name taken apart at its first period.
pub fn split_name(name: &str) -> Option<(&str, &str)> {
    let (service, topic) = name.split_once('.')?;
    (!service.is_empty() && !topic.is_empty()).then_some((service, topic))
}

/// The `data` of a pong: a string's first characters, raw.
pub fn pong_data<'a>(ping: &Object<'a>) -> Cow<'a, str> {
    let Some(raw) = ping.get("data").filter(|raw| raw.starts_with('"')) else {
        return Cow::Borrowed("null");
    };
    // Escapes only make a text longer: this many bytes are never too many characters.
    if raw.len() <= PONG_DATA_CHARS_MAX + 2 {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(cut_string(raw, PONG_DATA_CHARS_MAX))
}

/// The first `most` characters of a raw string, each as it was written: a lone surrogate, which no
/// decoded text could hold, stays what it was.
fn cut_string(raw: &str, most: usize) -> String {
    let inside = &raw[1..raw.len() - 1];
    let mut end = 0;
    for _ in 0..most {
        match character_len(&inside[end..]) {
            0 => break,
            len => end += len,
        }
    }
    format!("\"{}\"", &inside[..end])
}

/// The length of the first character of a string's inside; an escaped surrogate pair is one.
fn character_len(inside: &str) -> usize {
    if !inside.starts_with('\\') {
        return inside.chars().next().map_or(0, char::len_utf8);
    }
    let unit = |from: usize| u16::from_str_radix(inside.get(from + 2..from + 6)?, 16).ok();
    if !inside.starts_with("\\u") {
        return 2;
    }
    let high = unit(0).is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
    let low = inside.get(6..).is_some_and(|rest| rest.starts_with("\\u"))
        && unit(6).is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
    if high && low { 12 } else { 6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        match ClientEvent::parse(text) {
            ClientEvent::NotJson => "not json",
            ClientEvent::Invalid => "invalid",
            ClientEvent::Unknown(_) => "unknown",
            ClientEvent::Auth(_) => "auth",
            ClientEvent::Ping(_) => "ping",
            ClientEvent::Subscription(on, _) => on.label().raw_name(),
        }
    }

    #[test]
    fn events_are_told_apart() {
        let long = |n: usize| format!("{{\"event\":\"{}\"}}", "é".repeat(n));
        assert_eq!(kind("{"), "not json");
        assert_eq!(kind("[]"), "invalid");
        assert_eq!(kind("{}"), "invalid");
        assert_eq!(kind(r#"{"event":1}"#), "invalid");
        assert_eq!(kind(r#"{"event":""}"#), "unknown");
        assert_eq!(kind(r#"{"event":"\ud800"}"#), "unknown");
        assert_eq!(kind(&long(40)), "unknown");
        assert_eq!(kind(&long(41)), "invalid");
        assert_eq!(kind(r#"{"event":"subscribe"}"#), "\"subscribe\"");
        assert_eq!(kind(r#"{"event":"x","event":"p\u0069ng"}"#), "ping");
    }

    #[test]
    fn names_split_at_the_first_period() {
        assert_eq!(split_name("a.b.c"), Some(("a", "b.c")));
        assert_eq!(split_name("svc..a"), Some(("svc", ".a")));
        assert_eq!(split_name("svc.a."), Some(("svc", "a.")));
        for bad in ["", "a", ".", "a.", ".b"] {
            assert_eq!(split_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn pongs_carry_128_characters() {
        let pong = |data: &str| {
            let text = format!("{{\"data\":{data}}}");
            pong_data(&Object::parse(&text).unwrap()).into_owned()
        };
        assert_eq!(pong("1"), "null");
        assert_eq!(pong("\"x\\n\""), "\"x\\n\"");
        let long = |unit: &str, n: usize| format!("\"{}\"", unit.repeat(n));
        for unit in ["a", "é", "🦈", "\\ud83e\\udd88", "\\ud83e", "\\n", "\\u0041"] {
            assert_eq!(pong(&long(unit, 129)), long(unit, 128), "{unit}");
            assert_eq!(pong(&long(unit, 128)), long(unit, 128), "{unit}");
        }
    }
}
