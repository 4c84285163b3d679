//! Messages as services publish them, good and bad.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::marks::{Fields, Publication, PublishedAt, key_text};
use crate::swarm::{Rules, TOPICS};

/// Numbers as options may have them, and what they are read as.
const NUMBERS: [(&str, Option<f64>); 10] = [
    ("1", Some(1.0)),
    ("2", Some(2.0)),
    ("3.5", Some(3.5)),
    ("\"4\"", Some(4.0)),
    ("\" 1_0 \"", Some(10.0)),
    ("true", Some(1.0)),
    ("0.2", Some(0.2)),
    ("-1", Some(-1.0)),
    ("\"soon\"", None),
    ("[1]", None),
];

const KEYS: [&str; 6] = ["null", "\"k\"", "1", "1.0", "\"\"", "\"long\""];

/// A random message: the channel it goes to, mostly one of those in use, and itself.
pub fn message(
    number: usize,
    used: &[String],
    rules: &Rules,
    dice: &mut Dice,
) -> (String, Rc<Publication>) {
    let any = |dice: &mut Dice| {
        if used.is_empty() || dice.chance(20) {
            format!("{}.{}", dice.pick(&rules.services).name, dice.pick(&TOPICS))
        } else {
            dice.pick(used).clone()
        }
    };
    let channel = any(dice);
    let name = if dice.chance(8) { any(dice) } else { channel.clone() };
    if dice.chance(5) {
        return (channel, Rc::new(useless(&name, dice)));
    }
    let mut text = String::from("{");
    let raw_data = data(number, dice);
    text.push_str(&format!("\"subscription\":{},\"data\":{raw_data}", json!(name)));
    let mut fields = Fields::new();
    for (field, values) in [
        ("lang", [json!("en"), json!("de"), json!(1.0), json!(null)]),
        ("user", [json!("u0"), json!("u1"), json!("u2"), json!(null)]),
    ] {
        if dice.chance(25) {
            let value = dice.pick(&values).clone();
            text.push_str(&format!(",\"{field}\":{value}"));
            fields.insert(field.to_owned(), value);
        }
    }
    let order = dice.chance(30).then(|| option("order", dice));
    let throttle = dice.chance(30).then(|| option("throttle", dice));
    let throttle = throttle.filter(|_| rules.throttles());
    let options: Vec<&str> = order.iter().chain(&throttle).map(|(text, _)| text.as_str()).collect();
    if !options.is_empty() {
        text.push_str(&format!(",\"options\":{{{}}}", options.join(",")));
    }
    let published_at = published_at(dice, &mut text);
    text.push('}');
    let data: Value = serde_json::from_str(&raw_data).expect("the data is JSON");
    let message = Publication {
        text,
        name: Some(name),
        data,
        raw_data,
        fields,
        order: order.and_then(|(_, order)| order),
        throttle: throttle.and_then(|(_, throttle)| throttle),
        published_at,
    };
    (channel, Rc::new(message))
}

/// Data that must arrive digit for digit, each telling its number.
fn data(number: usize, dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("{{\"n\":{number},\"big\":987654321098765432109876543210}}"),
        1 => format!("{{ \"n\" : {number}, \"f\": 0.10 }}"),
        2 => format!("[{number},\"\\u00fc\",{{\"a\":1,\"a\":2}}]"),
        _ => format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(dice.below(120))),
    }
}

/// Options as `before_subscribe` may give them.
pub fn options(throttles: bool, dice: &mut Dice) -> Value {
    let mut members = Vec::new();
    let names = if throttles { &["order", "throttle"][..] } else { &["order"] };
    for name in names {
        members.extend(dice.chance(60).then(|| option(name, dice).0));
    }
    serde_json::from_str(&format!("{{{}}}", members.join(","))).expect("options are JSON")
}

/// What is read of options: order and throttle, each with its key.
pub fn read_option(options: &Value, name: &str) -> Option<(f64, String)> {
    let value = options.get(name)?;
    let is_it = |(text, _): &&(&str, Option<f64>)| {
        let number: Value = serde_json::from_str(text).expect("numbers are JSON");
        number == *value
    };
    let (_, read) = NUMBERS.iter().find(is_it).expect("options are of these numbers");
    Some(((*read)?, key_text(options.get(format!("{name}_key")))))
}

/// A number with a key, as a member of options, and as it is read.
fn option(name: &str, dice: &mut Dice) -> (String, Option<(f64, String)>) {
    let (number, read) = dice.pick(&NUMBERS);
    let key = dice.pick(&KEYS);
    let value: Value = serde_json::from_str(key).expect("keys are JSON");
    let text = match *key {
        "null" => format!("\"{name}\":{number}"),
        key => format!("\"{name}\":{number},\"{name}_key\":{key}"),
    };
    (text, read.map(|read| (read, key_text(Some(&value)))))
}

fn published_at(dice: &mut Dice, text: &mut String) -> Option<PublishedAt> {
    let (written, published_at) = match dice.below(10) {
        0 => ("yesterday", PublishedAt::Unreadable),
        1 => ("2026-01-02T03:04:05Z", PublishedAt::At("2026-01-02T03:04:05.000000+00:00".into())),
        _ => return None,
    };
    text.push_str(&format!(",\"published_at\":\"{written}\""));
    Some(published_at)
}

/// What must be dropped without harm.
fn useless(name: &str, dice: &mut Dice) -> Publication {
    let text = match dice.below(5) {
        0 => "not JSON".to_owned(),
        1 => json!({"subscription": name}).to_string(),
        2 => json!({"data": 1}).to_string(),
        3 => "[]".to_owned(),
        _ => format!("{{\"subscription\":{},\"data\":NaN}}", json!(name)),
    };
    Publication {
        text,
        name: None,
        data: Value::Null,
        raw_data: String::new(),
        fields: Fields::new(),
        order: None,
        throttle: None,
        published_at: None,
    }
}
