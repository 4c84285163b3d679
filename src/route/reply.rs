//! A callback's answer, as the router reads it.

use std::borrow::Cow;

use super::steps::Event;
use crate::message::{Answer, refusal};
use crate::wire::json::{self, Object};

enum Outcome {
    Yes,
    No,
    Unavailable,
}

/// What a service said.
pub struct Reply<'a> {
    outcome: Outcome,
    object: Option<Object<'a>>,
}

impl<'a> Reply<'a> {
    /// Of a callback that is not configured, or of Redis.
    pub const YES: &'static Reply<'static> = &Reply { outcome: Outcome::Yes, object: None };
    pub const UNAVAILABLE: &'static Reply<'static> =
        &Reply { outcome: Outcome::Unavailable, object: None };

    /// Only `"status":"ok"` is a yes.
    pub fn of(answer: &'a Answer) -> Reply<'a> {
        let Answer::Object(text) = answer else { return Reply::unavailable() };
        let Ok(object) = Object::parse(text) else { return Reply::unavailable() };
        let status = object.get("status").and_then(json::string);
        let outcome = if status.as_deref() == Some("ok") { Outcome::Yes } else { Outcome::No };
        Reply { outcome, object: Some(object) }
    }

    fn unavailable() -> Reply<'static> {
        Reply { outcome: Outcome::Unavailable, object: None }
    }

    pub fn is_yes(&self) -> bool {
        matches!(self.outcome, Outcome::Yes)
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self.outcome, Outcome::Unavailable)
    }

    pub fn event(&self) -> Event {
        if self.is_yes() { Event::Yes } else { Event::No }
    }

    pub fn object(&self) -> Option<&Object<'a>> {
        self.object.as_ref()
    }

    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.object.as_ref()?.get(name)
    }

    /// The `data` of a yes, unless null; of a no, only if truthy.
    pub fn data(&self) -> Option<&'a str> {
        let data = self.get("data")?;
        let given = if self.is_yes() { data != "null" } else { json::is_truthy(data) };
        given.then_some(data)
    }

    /// What a refusal tells the client, raw: the service's `error` as it is, else `default`.
    pub fn error(&self, default: &str) -> Cow<'a, str> {
        if self.is_unavailable() {
            return json::quoted(refusal::SERVICE_UNAVAILABLE).into();
        }
        self.get("error").map_or_else(|| json::quoted(default).into(), Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(text: &str, look: impl FnOnce(Reply<'_>) -> T) -> T {
        look(Reply::of(&Answer::Object(text.into())))
    }

    #[test]
    fn only_status_ok_is_a_yes() {
        assert!(with(r#"{"status":"\u006fk"}"#, |reply| reply.is_yes()));
        for text in ["{}", r#"{"status":"OK"}"#, r#"{"status":true}"#, r#"{"status":["ok"]}"#] {
            assert!(!with(text, |reply| reply.is_yes()), "{text}");
        }
        assert!(Reply::of(&Answer::Unavailable).is_unavailable());
    }

    #[test]
    fn an_error_passes_as_it_is_and_only_an_absent_one_gives_the_default() {
        let error = |text: &str| with(text, |reply| reply.error("No.").into_owned());
        assert_eq!(error("{}"), "\"No.\"");
        assert_eq!(error(r#"{"error":null}"#), "null");
        assert_eq!(error(r#"{"error":{"a":1e400}}"#), "{\"a\":1e400}");
    }

    #[test]
    fn data_passes_unless_null_or_in_a_refusal_falsy() {
        let data = |text: &str| with(text, |reply| reply.data().map(str::to_owned));
        assert_eq!(data(r#"{"status":"ok","data":null}"#), None);
        assert_eq!(data(r#"{"status":"ok","data":0}"#).as_deref(), Some("0"));
        assert_eq!(data(r#"{"status":"error","data":0}"#), None);
        assert_eq!(data(r#"{"status":"error","data":[0]}"#).as_deref(), Some("[0]"));
    }
}
