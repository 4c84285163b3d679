//! JSON and the events that are made of it: what clients say, what services publish.
//!
//! The second reading is serde_json's `Value`. It takes less than the program does (no lone
//! surrogates, no numbers out of range, half the depth); where it says nothing, less is asserted.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::limits::{
    COMPARED_BYTES_MAX, EVENT_NAME_CHARS_MAX, JSON_DEPTH_MAX, PONG_DATA_CHARS_MAX,
};
use crate::number::python_float;
use crate::route::{
    ClientEvent, Key, OnSubscription, Publication, Unusable, pong_data, split_name,
};
use crate::wire::json::{self, Object, ObjectWriter};

/// A text is taken apart just when it is a JSON object within the depth limit; its values are
/// values, and written again they are the same.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = value_within_depth(text);
    let parsed = Object::parse(text);
    let expected = value.is_some_and(|value| value.starts_with('{'));
    assert_eq!(parsed.is_ok(), expected, "{parsed:?}");
    assert_eq!(parsed, Object::parse_any(text), "the short way leads to the same");
    if let Some(value) = value {
        canonical(value);
    }
    let Ok(object) = parsed else { return };
    for name in ["event", "subscription", "data", "a", ""] {
        let Some(raw) = object.get(name) else { continue };
        assert!(serde_json::from_str::<&RawValue>(raw).is_ok(), "{raw}");
        let again = object.with_replaced(name, "[1]");
        let again = Object::parse(&again).expect("what was written is an object");
        assert_eq!(again.get(name), Some("[1]"));
        if let Some(text) = json::string(raw) {
            let quoted = json::quoted(&text);
            assert_eq!(json::string(&quoted), Some(text), "{quoted}");
            same_form(&quoted, raw);
        }
    }
}

/// The one value that the text is, without the space around it.
fn value_within_depth(text: &str) -> Option<&str> {
    let value: Option<&RawValue> = serde_json::from_str(text).ok();
    value.map(RawValue::get).filter(|value| depth(value) <= JSON_DEPTH_MAX)
}

/// Equal values that are not long have equal canonical forms: here one and the same value, spaced
/// otherwise.
fn canonical(value: &str) {
    assert!(!json::canonical(value).is_empty());
    same_form(&spaced(value), value);
    assert_eq!(json::is_truthy(&spaced(value)), json::is_truthy(value), "{value}");
}

fn same_form(a: &str, b: &str) {
    if a.len().max(b.len()) <= COMPARED_BYTES_MAX {
        assert_eq!(json::canonical(a), json::canonical(b), "{a} {b}");
    }
}

/// The value with a space wherever one may stand inside of it.
pub fn spaced(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    each_char(value, |index, character, in_string| {
        out.push(character);
        if !in_string && index < last && "[]{},:".contains(character) {
            out.push(' ');
        }
    });
    out
}

fn depth(value: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    each_char(value, |_, character, in_string| match character {
        '[' | '{' if !in_string => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        ']' | '}' if !in_string => depth -= 1,
        _ => {}
    });
    deepest
}

/// Calls back for every character of well-formed JSON, and whether it stands in a string.
fn each_char(value: &str, mut call: impl FnMut(usize, char, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for (index, character) in value.chars().enumerate() {
        call(index, character, in_string);
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
}

/// What a client's text is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    NotJson,
    Invalid,
    Unknown,
    Auth,
    Ping,
    On(OnSubscription),
}

impl Kind {
    fn of(event: &ClientEvent<'_>) -> Kind {
        match event {
            ClientEvent::NotJson => Kind::NotJson,
            ClientEvent::Invalid => Kind::Invalid,
            ClientEvent::Unknown(_) => Kind::Unknown,
            ClientEvent::Auth(_) => Kind::Auth,
            ClientEvent::Ping(_) => Kind::Ping,
            ClientEvent::Subscription(on, _) => Kind::On(*on),
        }
    }

    /// By the second reading.
    fn named(name: &str) -> Kind {
        match name {
            _ if name.chars().count() > EVENT_NAME_CHARS_MAX => Kind::Invalid,
            "auth" => Kind::Auth,
            "ping" => Kind::Ping,
            "subscribe" => Kind::On(OnSubscription::Subscribe),
            "message" => Kind::On(OnSubscription::Message),
            "unsubscribe" => Kind::On(OnSubscription::Unsubscribe),
            _ => Kind::Unknown,
        }
    }
}

/// A client's text is the event that a second reading takes it for, however it is spaced; its
/// members are those of the second reading; written again it is the same event.
pub fn client_event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let event = ClientEvent::parse(text);
    let kind = Kind::of(&event);
    let Some(value) = value_within_depth(text) else { return assert_eq!(kind, Kind::NotJson) };
    assert_eq!(Kind::of(&ClientEvent::parse(&spaced(value))), kind, "{value}");
    let second: Option<Value> = serde_json::from_str(text).ok();
    match &second {
        Some(Value::Object(members)) => {
            let name = members.get("event").and_then(Value::as_str);
            assert_eq!(kind, name.map_or(Kind::Invalid, Kind::named));
        }
        Some(_) => assert_eq!(kind, Kind::Invalid),
        None => assert_ne!(kind, Kind::NotJson),
    }
    if let ClientEvent::Unknown(raw) = event {
        assert!(json::string_bytes(raw).is_some() && text.contains(raw), "{raw}");
    }
    let (ClientEvent::Auth(object)
    | ClientEvent::Ping(object)
    | ClientEvent::Subscription(_, object)) = event
    else {
        return;
    };
    let again = written(&object, &["event", "subscription", "data"]);
    assert_eq!(Kind::of(&ClientEvent::parse(&again)), kind, "{again}");
    if let Some(Value::Object(members)) = second {
        same_members(&object, &members);
        pong(&object, members.get("data"));
    }
    if let Some(name) = object.get("subscription").and_then(json::string) {
        two_parts(&name);
    }
}

/// These members, and no other, in an object of their own.
fn written(object: &Object<'_>, names: &[&str]) -> String {
    let mut writer = ObjectWriter::default();
    for name in names {
        if let Some(raw) = object.get(name) {
            writer.raw(name, raw);
        }
    }
    writer.finish()
}

fn same_members(object: &Object<'_>, members: &Map<String, Value>) {
    // Some are enough: each is searched for among all.
    for (name, value) in members.iter().take(100) {
        let raw = object.get(name).expect("a member of the second reading");
        assert_eq!(serde_json::from_str::<Value>(raw).ok().as_ref(), Some(value), "{name}");
    }
    for name in ["event", "subscription", "data", "method", "ticket", "options", ""] {
        assert_eq!(object.get(name).is_some(), members.contains_key(name), "{name}");
    }
}

/// What a ping brings back: the first characters of a string, else null.
fn pong(object: &Object<'_>, data: Option<&Value>) {
    let expected = match data {
        Some(Value::String(text)) => {
            Value::String(text.chars().take(PONG_DATA_CHARS_MAX).collect())
        }
        _ => Value::Null,
    };
    let data = pong_data(object);
    assert_eq!(serde_json::from_str::<Value>(&data).ok(), Some(expected), "{data}");
}

fn two_parts(name: &str) {
    let parts = split_name(name);
    assert_eq!(parts.is_some(), name.find('.').is_some_and(|at| at > 0 && at + 1 < name.len()));
    if let Some((service, topic)) = parts {
        assert_eq!([service, topic].join("."), name);
        assert!(!service.contains('.'), "{name}");
    }
}

/// A service's text is the publication that a second reading takes it for, however it is spaced;
/// order and throttle are read alike; written again it is the same publication.
pub fn service_event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = Publication::parse(text);
    let Some(value) = value_within_depth(text) else {
        return assert_eq!(parsed.err(), Some(Unusable::NotJson));
    };
    let second: Option<Value> = serde_json::from_str(text).ok();
    if let Some(second) = &second {
        let expected = second.get("subscription").is_some() && second.get("data").is_some();
        assert_eq!(parsed.is_ok(), expected, "{text}");
    }
    let publication = match parsed {
        Ok(publication) => publication,
        Err(why) => return assert_eq!(why, Unusable::Invalid),
    };
    assert_eq!((publication.text(), &*publication.keep()), (text, text));
    let object = Object::parse(text).expect("a publication is an object");
    let written = written(&object, &["options", "data", "subscription"]);
    for again in [spaced(value), written] {
        let again = Publication::parse(&again).expect("the same publication");
        assert_eq!(again.subscription, publication.subscription);
        same_form(again.data, publication.data);
        // Keys are canonical forms.
        if again.text().len().max(text.len()) <= COMPARED_BYTES_MAX {
            assert_eq!(again.options.order, publication.options.order);
            assert_eq!(again.options.throttle, publication.options.throttle);
        }
    }
    let Some(second) = second else { return };
    assert_eq!(publication.subscription.as_deref(), second["subscription"].as_str());
    assert_eq!(serde_json::from_str::<Value>(publication.data).ok().as_ref(), second.get("data"));
    if text.len() > COMPARED_BYTES_MAX {
        return;
    }
    let options = &second["options"];
    same_option(publication.options.order.as_ref(), &options["order"], &options["order_key"]);
    let (value, key) = (&options["throttle"], &options["throttle_key"]);
    same_option(publication.options.throttle.as_ref(), value, key);
}

/// An absent key is null, as it is to `Value`'s index.
fn same_option(option: Option<&(f64, Key)>, value: &Value, key: &Value) {
    let expected = match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => python_float(text).filter(|number| !number.is_nan()),
        _ => None,
    };
    let Some((number, found)) = option else { return assert_eq!(expected, None, "{value}") };
    let expected = expected.expect("no more than the second reading finds");
    // The second reading is off in the last digit now and then.
    let is_near = (number - expected).abs() <= expected.abs() * 1e-12;
    assert!(is_near || *number == expected, "{number} {expected}");
    if is_exact(key) {
        assert_eq!(found.bytes(), json::canonical(&key.to_string()), "{key}");
    }
}

/// Whether `Value` holds this as it was written: integers, but no other numbers.
fn is_exact(value: &Value) -> bool {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Number(number) if number.is_f64() => return false,
            Value::Array(items) => left.extend(items),
            Value::Object(members) => left.extend(members.values()),
            _ => {}
        }
    }
    true
}
