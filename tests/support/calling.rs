//! A world in which every subscribe is one call, and answers of all shapes.

use serde_json::{Value, json};

use super::service::{Reply, Request};
use super::{Client, Service, World, subscribe};

pub const OK: &str = r#"{"status":"ok"}"#;

pub const JSON_HEADER: (&str, &str) = ("Content-Type", "application/json");

/// `books` with `before_subscribe`, and these HTTP settings.
pub fn calling(http: Value) -> World {
    World::new(|service| {
        let books = service.hooks(&["before_subscribe"]);
        json!({ "SERVICES": { "books": books }, "HTTP": http })
    })
}

/// Subscribes, and says whether the service's answer counted. The subscription is left again.
#[track_caller]
pub fn succeeds(client: &mut Client, name: &str) -> bool {
    let answer = client.ask(&subscribe(name));
    if answer["status"] == "ok" {
        client.unsubscribe(name);
        return true;
    }
    assert_eq!(answer["error"], "Service unavailable.", "{answer}");
    false
}

/// Answers by the topic's number, and the names of the topics.
pub fn numbered(service: &Service, replies: Vec<Reply>) -> Vec<String> {
    let names = (0..replies.len()).map(|number| format!("books.{number}")).collect();
    service.on("/before_subscribe", move |request: &Request| {
        let number: usize = request.subscription()["books.".len()..].parse().unwrap();
        replies[number].clone()
    });
    names
}

/// A head that says what `rest` begins with: more headers, an empty line, a body.
pub fn head_and(rest: &str) -> Reply {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    Reply::raw_then_close(&format!("{head}{rest}"))
}

pub fn chunked(chunks: &str) -> Reply {
    head_and(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"))
}
