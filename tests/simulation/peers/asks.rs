//! What clients ask for: events in order, and events that are none.

use std::rc::Rc;

use serde_json::{Value, json};

use super::client::Client;
use crate::dice::Dice;
use crate::marks::{Ask, Asked, DIGITS, Fields, On, with_digits};
use crate::swarm::{MESSAGE_BYTES_MAX, Rules, TOPICS};

/// A random event of a client: its text and its meaning.
pub fn ask(client: &mut Client, rules: &Rc<Rules>, dice: &mut Dice) -> (String, Ask) {
    client.numbers += 1;
    let (value, what) = match dice.below(100) {
        0..14 => auth(client, dice),
        14..50 => subscribe(client, rules, dice),
        50..66 => message(client, rules, dice),
        66..82 => unsubscribe(client, rules, dice),
        82..92 => ping(client),
        _ => bad(dice),
    };
    let text = match value {
        Some(value) => with_digits(value.to_string()),
        None => "{\"event\": nonsense".to_owned(),
    };
    let text = match dice.below(40) {
        // As long as it may be.
        0 => text.clone() + &" ".repeat(MESSAGE_BYTES_MAX - text.len()),
        _ => text,
    };
    let bytes = text.len();
    (text, Ask { bytes, what })
}

/// What a client of a crowd asks for first.
pub fn crowd(client: &mut Client, service: &str, dice: &mut Dice) -> Vec<(String, Ask)> {
    let name = format!("{service}.{}", TOPICS[0]);
    client.numbers += 1;
    client.names.push(name.clone());
    let on = on(client, name, dice);
    let ticket = format!("u{}#{}.{}", dice.below(3), client.index, client.numbers);
    let auth = json!({"event": "auth", "ticket": ticket}).to_string();
    let auth = (auth, Asked::Auth(Some(ticket)));
    let subscribe = (event("subscribe", &on).to_string(), Asked::Subscribe(on));
    let asks = [auth, subscribe].into_iter();
    asks.map(|(text, what)| (text.clone(), Ask { bytes: text.len(), what })).collect()
}

fn auth(client: &Client, dice: &mut Dice) -> (Option<Value>, Asked) {
    if dice.chance(10) {
        let empty = dice.pick(&[json!(null), json!(0), json!(""), json!([])]).clone();
        return (Some(json!({"event": "auth", "ticket": empty})), Asked::Auth(None));
    }
    // A few clients are the same user; each ticket is good once.
    let ticket = format!("u{}#{}.{}", dice.below(3), client.index, client.numbers);
    (Some(json!({"event": "auth", "ticket": ticket})), Asked::Auth(Some(ticket)))
}

fn subscribe(client: &mut Client, rules: &Rc<Rules>, dice: &mut Dice) -> (Option<Value>, Asked) {
    let service = dice.pick(&rules.services).name.clone();
    let name = format!("{service}.{}", dice.pick(&TOPICS));
    client.names.push(name.clone());
    let on = on(client, name, dice);
    (Some(event("subscribe", &on)), Asked::Subscribe(on))
}

fn message(client: &mut Client, rules: &Rc<Rules>, dice: &mut Dice) -> (Option<Value>, Asked) {
    let name = known(client, rules, dice);
    let on = on(client, name, dice);
    let mut value = event("message", &on);
    let data = json!({"from": client.index, "n": client.numbers});
    let data = dice.pick(&[data, json!(null), json!("ü\u{0}"), json!(DIGITS)]).clone();
    value["data"] = data.clone();
    (Some(value), Asked::Message(on, data))
}

fn unsubscribe(client: &mut Client, rules: &Rc<Rules>, dice: &mut Dice) -> (Option<Value>, Asked) {
    let name = known(client, rules, dice);
    let on = on(client, name, dice);
    (Some(event("unsubscribe", &on)), Asked::Unsubscribe(on))
}

fn ping(client: &Client) -> (Option<Value>, Asked) {
    if client.numbers.is_multiple_of(3) {
        return (Some(json!({"event": "ping", "data": 7})), Asked::Ping(Value::Null));
    }
    let long = "é".repeat(140);
    let cut: String = long.chars().take(128).collect();
    (Some(json!({"event": "ping", "data": long})), Asked::Ping(json!(cut)))
}

/// A subscription that the client has asked for, or another one.
fn known(client: &Client, rules: &Rc<Rules>, dice: &mut Dice) -> String {
    if client.names.is_empty() || dice.chance(10) {
        return format!("{}.{}", dice.pick(&rules.services).name, dice.pick(&TOPICS));
    }
    dice.pick(&client.names).clone()
}

/// A subscription with extra fields; the tag is never used twice.
fn on(client: &Client, name: String, dice: &mut Dice) -> On {
    let mut fields = Fields::new();
    fields.insert("tag".to_owned(), json!(format!("c{}.{}", client.index, client.numbers)));
    if dice.chance(60) {
        let lang = dice.pick(&[json!("en"), json!("de"), json!(1), json!(null)]).clone();
        fields.insert("lang".to_owned(), lang);
    }
    if dice.chance(50) {
        fields.insert("team".to_owned(), json!(dice.below(2)));
    }
    On { name, fields }
}

fn event(event: &str, on: &On) -> Value {
    let mut value = json!({"event": event, "subscription": on.name});
    for (name, field) in &on.fields {
        value[name] = field.clone();
    }
    value
}

/// An event that is refused whenever it comes. None: no JSON.
fn bad(dice: &mut Dice) -> (Option<Value>, Asked) {
    let invalid =
        json!({"status": "error", "error": "Messages must be JSON and contain an event field."});
    let format = "Invalid subscription format.";
    let answer =
        |event: &str, error: &str| json!({"event": event, "status": "error", "error": error});
    let echoed = |event: &str, name: &str, error: &str| {
        let mut answer = answer(event, error);
        answer["subscription"] = json!(name);
        answer
    };
    let (value, answer) = match dice.below(8) {
        0 => return (None, Asked::Bad(invalid)),
        1 => (json!(["event"]), invalid),
        2 => (json!({"event": "x".repeat(41)}), invalid),
        3 => (json!({"event": "dance"}), answer("dance", "Event not found.")),
        4 => (json!({"event": "subscribe"}), answer("subscribe", format)),
        5 => (
            json!({"event": "unsubscribe", "subscription": "full"}),
            echoed("unsubscribe", "full", format),
        ),
        6 => (
            json!({"event": "message", "subscription": "none.a", "data": 1}),
            echoed("message", "none.a", "Invalid service."),
        ),
        _ => (
            json!({"event": "auth", "method": "oath", "ticket": "t"}),
            answer("auth", "Authentication method unsupported."),
        ),
    };
    (Some(value), Asked::Bad(answer))
}
