//! What a service publishes: a message for the subscribers of a channel.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

use super::lru::Key;
use crate::number::python_float;
use crate::wire::json::{self, NotObject, Object};

/// What a publication or a `before_subscribe` answer asks of order and throttle.
#[derive(Default, Debug)]
pub struct Options {
    pub order: Option<(f64, Key)>,
    /// Seconds.
    pub throttle: Option<(f64, Key)>,
}

impl Options {
    pub fn is_empty(&self) -> bool {
        self.order.is_none() && self.throttle.is_none()
    }

    /// Reads the `options` of an object; what is no object, or cannot be read, counts as absent.
    pub fn of(object: &Object<'_>) -> Options {
        let Some(raw) = object.get("options") else { return Options::default() };
        let Ok(options) = Object::parse(raw) else { return Options::default() };
        let read = |value: &str, key: &str| {
            let number = read_float(options.get(value)?)?;
            // The absent key is null.
            let key = json::canonical(options.get(key).unwrap_or("null"));
            Some((number, Key::new(&key)))
        };
        Options { order: read("order", "order_key"), throttle: read("throttle", "throttle_key") }
    }
}

/// A number, boolean or string as Python's `float()` reads it; NaN counts as unreadable, and so
/// does a whole number beyond all doubles (`1e400` has an exponent and is infinite).
fn read_float(raw: &str) -> Option<f64> {
    let number = match raw {
        "true" => 1.0,
        "false" => 0.0,
        _ if raw.starts_with('"') => python_float(&json::string(raw)?)?,
        _ => raw.parse().ok()?,
    };
    let is_beyond = number.is_infinite() && is_whole(raw);
    (!number.is_nan() && !is_beyond).then_some(number)
}

/// Whether this is a number of digits alone.
fn is_whole(raw: &str) -> bool {
    raw.strip_prefix('-').unwrap_or(raw).bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a text from Redis is no publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    NotJson,
    /// JSON, but no object with `subscription` and `data`.
    Invalid,
}

/// One message from Redis, parsed once for all its receivers.
pub struct Publication<'a> {
    text: &'a str,
    object: Object<'a>,
    /// The subscription that it names; `None`: no name that a subscription can have.
    pub subscription: Option<Cow<'a, str>>,
    /// Raw JSON.
    pub data: &'a str,
    pub options: Options,
    /// The text for those who must keep it, made once.
    kept: OnceCell<Rc<str>>,
}

impl<'a> Publication<'a> {
    pub fn parse(text: &'a str) -> Result<Publication<'a>, Unusable> {
        let object = Object::parse(text).map_err(|error| match error {
            NotObject::NotJson => Unusable::NotJson,
            NotObject::OtherValue => Unusable::Invalid,
        })?;
        let (Some(name), Some(data)) = (object.get("subscription"), object.get("data")) else {
            return Err(Unusable::Invalid);
        };
        let options = Options::of(&object);
        Ok(Publication {
            text,
            subscription: json::string(name),
            data,
            options,
            object,
            kept: OnceCell::new(),
        })
    }

    /// The name as a JSON string.
    pub fn quoted_name(&self) -> Cow<'a, str> {
        match &self.subscription {
            // As it was published: without escapes there is one way to write it.
            Some(Cow::Borrowed(_)) => Cow::Borrowed(self.get("subscription").unwrap_or_default()),
            Some(Cow::Owned(name)) => Cow::Owned(json::quoted(name)),
            None => Cow::Borrowed("null"),
        }
    }

    /// Any other member, raw.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.object.get(name)
    }

    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The whole text, for those who have to wait with it; shared among them.
    pub fn keep(&self) -> Rc<str> {
        self.kept.get_or_init(|| self.text.into()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_needs_subscription_and_data() {
        let parsed = |text| Publication::parse(text).err();
        assert_eq!(parsed(r#"{"subscription":"a.b","data":null}"#), None);
        assert_eq!(parsed(r#"{"subscription":"a.b"}"#), Some(Unusable::Invalid));
        assert_eq!(parsed(r#"{"data":1}"#), Some(Unusable::Invalid));
        assert_eq!(parsed("[1]"), Some(Unusable::Invalid));
        assert_eq!(parsed("{"), Some(Unusable::NotJson));
    }

    #[test]
    fn a_name_is_quoted_in_one_way_however_it_was_published() {
        for raw in [r#""s.a""#, r#""s.\u0061""#, r#""s.\"\\\n\u001fé""#, r#""s.\u00e9\/""#] {
            let text = format!(r#"{{"subscription":{raw},"data":1}}"#);
            let publication = Publication::parse(&text).unwrap();
            let name = json::string(raw).unwrap();
            assert_eq!(publication.quoted_name(), json::quoted(&name));
        }
    }

    #[test]
    fn options_are_read_as_python_reads_them() {
        let options = |text: &str| {
            let text = format!("{{\"options\":{text}}}");
            let options = Options::of(&Object::parse(&text).unwrap());
            (
                options.order.map(|(n, key)| (n, key.bytes().to_vec())),
                options.throttle.map(|(n, _)| n),
            )
        };
        assert_eq!(options("3"), (None, None));
        assert_eq!(options("{}"), (None, None));
        assert_eq!(options(r#"{"order":1}"#).0, Some((1.0, b"n".to_vec())));
        assert_eq!(options(r#"{"order":" 1_0 ","order_key":null}"#).0, Some((10.0, b"n".to_vec())));
        assert_eq!(options(r#"{"order":true,"order_key":""}"#).0, Some((1.0, b"\"0:".to_vec())));
        assert_eq!(options(r#"{"order":"nan"}"#).0, None);
        assert_eq!(options(r#"{"order":null}"#).0, None);
        assert_eq!(options(r#"{"order":[1]}"#).0, None);
        assert_eq!(options(r#"{"order":1e400}"#).0.map(|(n, _)| n), Some(f64::INFINITY));
        let digits = "9".repeat(400);
        for beyond in [digits.clone(), format!("-{digits}")] {
            assert_eq!(
                options(&format!("{{\"order\":{beyond},\"throttle\":{beyond}}}")),
                (None, None)
            );
        }
        let text = options(&format!("{{\"order\":\"{digits}\"}}"));
        assert_eq!(text.0.map(|(n, _)| n), Some(f64::INFINITY));
        assert_eq!(options(r#"{"throttle":"0.5"}"#).1, Some(0.5));
    }
}
