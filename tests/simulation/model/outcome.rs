//! What became of a callback, and what its answer means (sections 3 and 11).

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub enum Outcome {
    /// The callback is not configured, or Redis has confirmed.
    Yes,
    /// The service's answer.
    Object(Value),
    /// All tries have failed, or Redis has refused.
    Unavailable,
}

impl Outcome {
    pub fn is_yes(&self) -> bool {
        match self {
            Outcome::Yes => true,
            Outcome::Object(answer) => answer["status"] == "ok",
            Outcome::Unavailable => false,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Outcome::Object(answer) => answer.get(name),
            _ => None,
        }
    }

    /// The error that a client gets: the service's as it is, only an absent one is replaced.
    pub fn error(&self, default: &str) -> Value {
        match self {
            Outcome::Unavailable => json!("Service unavailable."),
            _ => self.get("error").cloned().unwrap_or_else(|| json!(default)),
        }
    }

    /// The data that a client gets: of a yes unless null, of a no only if truthy.
    pub fn data(&self) -> Option<Value> {
        let data = self.get("data")?;
        let given = if self.is_yes() { !data.is_null() } else { is_truthy(data) };
        given.then(|| data.clone())
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
