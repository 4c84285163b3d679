//! JSON from outside and to it (RFC 8259), on serde_json.
//!
//! Values are carried as raw text and never decoded unless a decision hangs on them: a 30-digit
//! integer, `1e400` or an escaped lone surrogate arrives as it was sent. Only top-level objects
//! are taken apart, so nothing here recurses. Raw texts handed to the functions below come out
//! of an `Object` and are therefore known to be well-formed.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::JSON_DEPTH_MAX;

pub mod canonical;
mod plain;

pub use canonical::canonical;

/// The text is no JSON, nested too deeply, or no object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotObject {
    NotJson,
    OtherValue,
}

/// A name, decoded, and its raw value.
type Member<'a> = (Cow<'a, [u8]>, &'a str);

/// A top-level JSON object; its values as raw text.
#[derive(PartialEq, Eq, Debug)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Takes a text apart.
    ///
    /// # Errors
    /// `NotJson` for what RFC 8259 does not allow (`NaN`, trailing data, raw control characters)
    /// and for nesting over `JSON_DEPTH_MAX`; `OtherValue` for JSON that is no object.
    pub fn parse(text: &'a str) -> Result<Object<'a>, NotObject> {
        match plain::members(text) {
            Some(members) => Ok(Object { members }),
            None => Object::parse_any(text),
        }
    }

    /// The same without the short way that most texts can go.
    pub(crate) fn parse_any(text: &'a str) -> Result<Object<'a>, NotObject> {
        check_nesting(text)?;
        let start = text.trim_start_matches([' ', '\t', '\n', '\r']);
        if start.starts_with('{') {
            let Members(members) = serde_json::from_str(text).map_err(|_| NotObject::NotJson)?;
            return Ok(Object { members });
        }
        let other: Result<&RawValue, _> = serde_json::from_str(text);
        Err(other.map_or(NotObject::NotJson, |_| NotObject::OtherValue))
    }

    /// The raw value of the last member of that name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.members.iter().rev().find(|(key, _)| **key == *name.as_bytes());
        found.map(|(_, value)| *value)
    }

    /// The same object with one member's value replaced, for logs.
    pub fn with_replaced(&self, name: &str, value: &str) -> String {
        let mut out = String::from("{");
        for (index, (key, raw)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, &String::from_utf8_lossy(key));
            out.push(':');
            out.push_str(if **key == *name.as_bytes() { value } else { raw });
        }
        out.push('}');
        out
    }
}

/// serde_json bounds only values that it decodes, and checks no control characters in keys that
/// it takes as bytes; this looks at both.
fn check_nesting(text: &str) -> Result<(), NotObject> {
    if is_shallow(text.as_bytes()) {
        return Ok(());
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in text.as_bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                0..=0x1f => return Err(NotObject::NotJson),
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(NotObject::NotJson);
                }
            }
            // Too many of these are serde_json's to refuse.
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a text needs no closer look: too few brackets for deep nesting, and no control
/// characters. Nearly all texts are so, and this is told many bytes at a time.
fn is_shallow(text: &[u8]) -> bool {
    let mut opens = 0;
    for chunk in text.chunks(u8::MAX.into()) {
        let (mut controls, mut brackets) = (0, 0);
        for &byte in chunk {
            controls |= u8::from(byte < 0x20);
            // `[` and `{` differ in this one bit.
            brackets += u8::from(byte | 0x20 == b'{');
        }
        opens += usize::from(brackets);
        if controls > 0 || opens > JSON_DEPTH_MAX {
            return false;
        }
    }
    true
}

/// A key as bytes, so that one with a lone surrogate (no UTF-8) does not spoil the whole text.
struct Key<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde_core::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(bytes.to_vec())))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde_core::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    members.push((key, value.get()));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Map)
    }
}

/// The bytes of a raw JSON string: UTF-8, but for lone surrogates (then WTF-8). `None`: not a
/// string.
pub fn string_bytes(raw: &str) -> Option<Cow<'_, [u8]>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    if !inside.contains(&b'\\') {
        return Some(Cow::Borrowed(inside));
    }
    let mut from = serde_json::Deserializer::from_str(raw);
    Key::deserialize(&mut from).ok().map(|Key(bytes)| bytes)
}

/// A raw JSON string, decoded. `None`: not a string, or one with a lone surrogate.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    match string_bytes(raw)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// Whether Python would take the value as true: not null, false, 0, `""`, `[]`, `{}`.
pub fn is_truthy(raw: &str) -> bool {
    match raw.as_bytes() {
        b"null" | b"false" | b"\"\"" => false,
        [b'[' | b'{', inside @ .., _] => !inside.iter().all(u8::is_ascii_whitespace),
        [b'-' | b'0'..=b'9', ..] => !canonical::is_zero(raw),
        _ => true,
    }
}

/// Appends a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(HEX[usize::from(byte >> 4)].into());
                out.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

/// An object in the making. Setting a name again replaces its value in place, as in a Python
/// dict: that decides which of several fields of one name a peer sees.
#[derive(Default)]
pub struct ObjectWriter<'a> {
    members: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> ObjectWriter<'a> {
    /// Sets a member to a raw value.
    pub fn raw(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> &mut Self {
        let value = value.into();
        // There are a handful of members: those that the configuration names and ours.
        match self.members.iter_mut().find(|(known, _)| *known == name) {
            Some(member) => member.1 = value,
            None => self.members.push((name, value)),
        }
        self
    }

    /// Sets a member to a string.
    pub fn text(&mut self, name: &'a str, value: &str) -> &mut Self {
        self.raw(name, quoted(value))
    }

    pub fn finish(&self) -> String {
        let len: usize = self.members.iter().map(|(name, raw)| name.len() + raw.len() + 4).sum();
        let mut out = String::with_capacity(len + 2);
        out.push('{');
        for (index, (name, raw)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, name);
            out.push(':');
            out.push_str(raw);
        }
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_pass_untouched_and_the_last_of_a_name_counts() {
        let text = r#" {"a":1e400,"b":123456789012345678901234567890,"a":"\ud800","\udc00":0} "#;
        let object = Object::parse(text).unwrap();
        assert_eq!(object.get("a"), Some(r#""\ud800""#));
        assert_eq!(object.get("b"), Some("123456789012345678901234567890"));
        assert_eq!(object.get("c"), None);
        assert_eq!(string(object.get("a").unwrap()), None);
    }

    #[test]
    fn the_short_way_leads_to_the_same() {
        let names = ["\"a\"", "\"\"", "\"\\u0061\"", "\"\u{e9}\"", "a"];
        let colons = [":", ": ", " : ", ":\t", ""];
        let values =
            ["\"x\"", "\"\"", "\"\\n\"", "1", "-0.5e7", "null", "tru", "[{}, 1]", "[}", "01"];
        let commas = [",", ", ", " ,", "\n,", ",,"];
        let damages = ["\"", "\\", "{", "}", "[", ",", " ", "\u{1}", "\u{7f}"];
        let mut random = crate::random::Random::seeded(1);
        let mut plain = 0;
        for _ in 0..20_000 {
            // What comes first in a list comes most often.
            let mut one = |of: &[&'static str]| {
                let most = 1 + random.number() as usize % of.len();
                of[random.number() as usize % most]
            };
            let mut text = String::from("{");
            for _ in 0..one(&["12", "1", "123"]).len() {
                text += &[one(&names), one(&colons), one(&values), one(&commas)].concat();
            }
            text.pop();
            text.push('}');
            let damage = one(&damages);
            if random.number().is_multiple_of(2) {
                let at = random.number() as usize % text.len();
                text.insert_str(text.floor_char_boundary(at), damage);
            }
            plain += usize::from(plain::members(&text).is_some());
            assert_eq!(Object::parse(&text), Object::parse_any(&text), "{text}");
        }
        assert!(plain > 1_000, "{plain} could go the short way");
        let long = format!("{{\"a\":\"{}\",\"b\":[{}]}}", "x".repeat(300), "[".repeat(512));
        assert_eq!(Object::parse(&long), Object::parse_any(&long));
    }

    #[test]
    fn keys_are_compared_decoded() {
        let object = Object::parse(r#"{"\u0065vent":"x"}"#).unwrap();
        assert_eq!(object.get("event"), Some("\"x\""));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let bad = [
            "",
            "{",
            "{}x",
            "{} {}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\nb\":1}",
            "{\"a\":\"\\x\"}",
            "nul",
            "/**/{}",
            "{\"a\":[1}",
            "{\"a\"}",
            "{a:1}",
            "\u{feff}{}",
        ];
        for text in bad {
            assert_eq!(Object::parse(text).err(), Some(NotObject::NotJson), "{text:?}");
        }
        for text in ["[]", "1", "\"x\"", "null", " [1] "] {
            assert_eq!(Object::parse(text).err(), Some(NotObject::OtherValue), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_at_512_levels() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(Object::parse(&nested(512)).is_ok());
        assert_eq!(Object::parse(&nested(513)).err(), Some(NotObject::NotJson));
        assert_eq!(Object::parse(&nested(100_000)).err(), Some(NotObject::NotJson));
        let brackets_in_a_string = format!("{{\"a\":\"{}\"}}", "[".repeat(1000));
        assert!(Object::parse(&brackets_in_a_string).is_ok());
    }

    #[test]
    fn truth_is_pythons() {
        for raw in ["null", "false", "0", "-0", "0.0", "0e5", "\"\"", "[]", "{ }", "-0.00E+3"] {
            assert!(!is_truthy(raw), "{raw}");
        }
        for raw in ["true", "1", "0.1", "\" \"", "[0]", "{\"a\":0}", "\"0\"", "1e-999"] {
            assert!(is_truthy(raw), "{raw}");
        }
    }

    #[test]
    fn written_strings_read_back() {
        let text = "a\"\\\n\t\u{0}\u{1f}é\u{1F988}";
        assert_eq!(string(&quoted(text)).as_deref(), Some(text));
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one_in_place() {
        let mut writer = ObjectWriter::default();
        writer.text("a", "x").raw("b", "1").raw("a", "[2]");
        assert_eq!(writer.finish(), r#"{"a":[2],"b":1}"#);
    }

    #[test]
    fn a_member_can_be_hidden() {
        let object = Object::parse(r#"{"event":"auth","ticket":"secret"}"#).unwrap();
        let shown = object.with_replaced("ticket", "\"[redacted]\"");
        assert_eq!(shown, r#"{"event":"auth","ticket":"[redacted]"}"#);
    }
}
