//! Named values of a session or subscription: authentication, authorizer and extra fields.

use std::collections::HashMap;
use std::rc::Rc;

use crate::limits::COMPARED_BYTES_MAX;
use crate::wire::json::{Object, ObjectWriter, canonical};

/// Members of an object by the names that the configuration lists; values raw.
#[derive(Default, Debug)]
pub struct Fields {
    members: Vec<(Box<str>, Box<str>)>,
}

impl Fields {
    /// Those of `names` that the object has.
    pub fn pick(names: &[String], object: &Object<'_>) -> Fields {
        let present = |name: &String| {
            let value = object.get(name)?;
            Some((name.as_str().into(), value.into()))
        };
        Fields { members: names.iter().filter_map(present).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.members.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| &**value)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn write<'a>(&'a self, into: &mut ObjectWriter<'a>) {
        for (name, value) in &self.members {
            into.raw(name, &**value);
        }
    }

    /// Whether both hold the same names with equal values.
    pub fn equals(&self, other: &Fields) -> bool {
        let found = |(name, value): &(Box<str>, Box<str>)| {
            other.get(name).is_some_and(|theirs| same_value(value, theirs))
        };
        self.members.len() == other.members.len() && self.members.iter().all(found)
    }
}

/// Whether two raw values are equal as JSON.
pub fn same_value(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let kind = |raw: &str| match raw.bytes().next() {
        Some(b'-' | b'0'..=b'9') => Some(b'0'),
        first => first,
    };
    // Strings without escapes and whole numbers differ where their texts do; most values are
    // such, and a fan-out compares many.
    let plain = |raw: &str| match kind(raw) {
        Some(b'"') => !raw.contains('\\'),
        _ => raw.bytes().all(|byte| byte.is_ascii_digit()),
    };
    let is_long = a.len().max(b.len()) > COMPARED_BYTES_MAX;
    if is_long || kind(a) != kind(b) || (plain(a) && plain(b)) {
        return false;
    }
    canonical(a) == canonical(b)
}

/// Extra fields of subscriptions: equal ones are one object, so that a fan-out encodes a frame
/// once per distinct set and finds it by address.
#[derive(Default)]
pub struct ExtrasPool {
    /// With the number of subscriptions that have them. (An event in hand may hold them longer:
    /// the counts of `Rc` would not do.)
    by_text: HashMap<Box<str>, (Rc<Extras>, usize)>,
}

/// The extra fields that a client gave when subscribing.
#[derive(Default, Debug)]
pub struct Extras {
    pub fields: Fields,
    text: Box<str>,
    /// There are some, and none has the name of a member of messages, which it would replace.
    may_follow: bool,
}

/// The members of a message.
const OWN_NAMES: [&str; 7] =
    ["event", "subscription", "data", "published_at", "received_at", "queue_size", "sent_at"];

impl Extras {
    /// Fields outside the pool: for one answer.
    pub fn new(fields: Fields) -> Rc<Extras> {
        let mut writer = ObjectWriter::default();
        fields.write(&mut writer);
        let text = writer.finish();
        let is_own = |(name, _): &(Box<str>, Box<str>)| OWN_NAMES.contains(&&**name);
        let may_follow = !fields.is_empty() && !fields.members.iter().any(is_own);
        Rc::new(Extras { text: text.into(), fields, may_follow })
    }

    /// All of them as the end of an object, `"name":value}`, where they can just follow the members
    /// of a message.
    pub fn tail(&self) -> Option<&str> {
        self.text.get(1..).filter(|_| self.may_follow)
    }

    /// All of them as one JSON object.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl ExtrasPool {
    /// The shared object equal to `extras` to the letter, for one more subscription.
    pub fn share(&mut self, extras: Rc<Extras>) -> Rc<Extras> {
        if let Some((known, holders)) = self.by_text.get_mut(&extras.text) {
            *holders += 1;
            return known.clone();
        }
        self.by_text.insert(extras.text.clone(), (extras.clone(), 1));
        extras
    }

    /// One subscription less; the last one takes the shared object with it.
    pub fn release(&mut self, extras: &Extras) {
        let (_, holders) = self.by_text.get_mut(&extras.text).expect("what is held is shared");
        *holders -= 1;
        if *holders == 0 {
            self.by_text.remove(&extras.text);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], text: &str) -> Fields {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Fields::pick(&names, &Object::parse(text).unwrap())
    }

    #[test]
    fn fields_are_equal_by_value_and_presence() {
        let a = pick(&["x", "y"], r#"{"x":1,"y":null}"#);
        assert!(a.equals(&pick(&["y", "x"], r#"{"x":1.0,"y":null}"#)));
        assert!(!a.equals(&pick(&["x", "y"], r#"{"x":1}"#)));
        assert!(!pick(&["x"], r#"{"x":1}"#).equals(&a));
    }

    #[test]
    fn values_are_equal_as_json() {
        assert!(same_value("1", "1.0") && same_value("\"\\u0041\"", "\"A\""));
        assert!(same_value("-0", "0") && same_value("10", "1e1"));
        let long = "1".repeat(COMPARED_BYTES_MAX + 1);
        assert!(same_value(&long, &long) && !same_value(&long, &format!("{long}.0")));
        assert_ne!(canonical(&long), canonical(&format!("{long}.0")));
        for (a, b) in
            [("\"1\"", "1"), ("\"a\"", "\"b\""), ("true", "1"), ("12", "13"), ("null", "[]")]
        {
            assert!(!same_value(a, b), "{a} {b}");
        }
    }

    #[test]
    fn fields_follow_the_members_of_a_message_unless_they_replace_one() {
        let tail = |text| Extras::new(pick(&["a", "b", "data"], text)).tail().map(str::to_owned);
        assert_eq!(tail(r#"{"b":[1],"a":"x"}"#).as_deref(), Some(r#""a":"x","b":[1]}"#));
        assert_eq!(tail(r#"{"a":1,"data":2}"#), None);
        assert_eq!(tail("{}"), None);
    }

    #[test]
    fn equal_extras_are_one_object_while_somebody_has_them() {
        let mut pool = ExtrasPool::default();
        let a = pool.share(Extras::new(pick(&["x"], r#"{"x":1}"#)));
        let b = pool.share(Extras::new(pick(&["x"], r#"{"x":1}"#)));
        assert!(Rc::ptr_eq(&a, &b));
        pool.release(&a);
        assert!(!pool.is_empty());
        pool.release(&b);
        assert!(pool.is_empty(), "whoever else still looks at them");
    }
}
