//! What services answer: right, no, wrong, or nothing at all.

use serde_json::{Value, json};
use socketshark::message::Hook;

use crate::dice::Dice;
use crate::marks::Mark;
use crate::swarm::{Fault, Params};
use crate::world::pipe::{Chunk, End, SURPLUS};

/// The mood of services.
pub struct Mood {
    pub refuses: bool,
    pub wrong: bool,
    /// They send more than they should.
    pub surplus: bool,
}

impl Mood {
    pub fn of(params: &Params, healed: bool) -> Mood {
        let has = |fault| !healed && params.has(fault);
        Mood { refuses: has(Fault::Refusals), wrong: has(Fault::Wrong), surplus: has(Fault::Cuts) }
    }
}

/// An answer on its way, and whether it fails the try before any byte of it.
pub struct Reply {
    pub chunks: Vec<Chunk>,
    /// Nothing is answered, ever.
    pub silent: bool,
}

/// What is sent for a request.
pub fn reply(hook: Hook, path: &str, body: &Value, mood: &Mood, dice: &mut Dice) -> Reply {
    if mood.wrong && dice.chance(30) {
        return wrong(path, dice);
    }
    let answer = answer(hook, body, mood, dice);
    Reply { chunks: encoded(&answer, mood, dice), silent: false }
}

fn answer(hook: Hook, body: &Value, mood: &Mood, dice: &mut Dice) -> Value {
    if mood.refuses && dice.chance(25) {
        return refusal(dice);
    }
    let mut answer = json!({"status": "ok"});
    match hook {
        Hook::Validation => {
            let ticket = body["ticket"].as_str().expect("a ticket");
            let user = ticket.split('#').next().expect("a user");
            answer["user"] = json!(user);
            if !(mood.refuses && dice.chance(10)) {
                answer["level"] = json!(dice.below(2));
            }
        }
        Hook::Authorizer => {
            let roles = [json!("reader"), json!("writer"), json!(1), json!(1.0), json!(null)];
            // Mostly the same role, so that a change is news.
            let role = if dice.chance(70) { &roles[0] } else { dice.pick(&roles) };
            answer["role"] = role.clone();
            if dice.chance(30) {
                answer["lang"] = json!("from the authorizer");
            }
        }
        Hook::BeforeSubscribe => {
            data(&mut answer, dice);
            if dice.chance(30) {
                answer["options"] = json!({"order": 2, "order_key": "k", "throttle": 0.3});
            }
        }
        Hook::OnMessage | Hook::BeforeUnsubscribe | Hook::OnUnsubscribe => data(&mut answer, dice),
        Hook::OnSubscribe | Hook::OnAuthorizationChange | Hook::OnHeartbeat => {}
    }
    answer
}

fn data(answer: &mut Value, dice: &mut Dice) {
    if dice.chance(60) {
        answer["data"] = dice.pick(&[json!({"a": [1, "ü"]}), json!(0), json!(null)]).clone();
    }
}

fn refusal(dice: &mut Dice) -> Value {
    let mut answer = json!({"status": dice.pick(&["error", "no", "OK"])});
    if dice.chance(70) {
        answer["error"] = dice.pick(&[json!("No."), json!(null), json!({"code": 3})]).clone();
    }
    if dice.chance(40) {
        answer["data"] = dice.pick(&[json!("why"), json!(0), json!([])]).clone();
    }
    answer
}

/// A good answer in one of the ways that HTTP/1.1 has for it.
fn encoded(answer: &Value, mood: &Mood, dice: &mut Dice) -> Vec<Chunk> {
    let body = answer.to_string();
    let mark = Mark::Reply(Some(answer.clone()));
    let kind = "Content-Type: application/json";
    let len = body.len();
    match dice.below(8) {
        0 => {
            let (first, second) = body.split_at(body.find(':').unwrap_or(0));
            let bytes = format!(
                "HTTP/1.1 200 OK\r\n{kind}; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x};a=b\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nT: x\r\n\r\n",
                first.len(),
                second.len()
            );
            vec![Chunk::marked(bytes, mark)]
        }
        1 => {
            let bytes = format!("HTTP/1.1 201 Created\r\n{kind}\r\n\r\n{body}");
            let end = Chunk { mark: Some(mark), ..Chunk::end(End::Fin) };
            vec![Chunk::plain(bytes), end]
        }
        2 => {
            let bytes = format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\
                 Connection: close\r\n{kind}\r\n\r\n{body}"
            );
            vec![Chunk::marked(bytes, mark), Chunk::end(End::Fin)]
        }
        3 if mood.surplus => {
            // Surplus bytes: the connection is of no more use.
            let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n{kind}\r\n\r\n{body}");
            vec![Chunk::marked(bytes, mark), Chunk::plain(SURPLUS)]
        }
        _ => {
            let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n{kind}\r\n\r\n{body}");
            vec![Chunk::marked(bytes, mark)]
        }
    }
}

/// An answer that fails the try, or leads on.
fn wrong(path: &str, dice: &mut Dice) -> Reply {
    let status = |status: &str, more: &str| {
        format!("HTTP/1.1 {status} X\r\n{more}Content-Length: 2\r\n\r\n{{}}")
    };
    let bytes = match dice.below(13) {
        0 => status("500", ""),
        1 => status("404", "Content-Type: application/json\r\n"),
        2 => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        3 => status("429", "X-Rate-Limit-Reset: 1.5\r\n"),
        4 => status("429", "X-Rate-Limit-Reset: never\r\n"),
        5 => status("200", ""),
        6 => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
            .to_owned(),
        7 => "SSH-2.0-x\r\n\r\n".to_owned(),
        8 => status("302", "Location: http://evil.test/\r\n"),
        9 => status("307", &format!("Location: {path}\r\n")),
        10 => {
            // Cut short.
            let bytes = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                         Content-Length: 15\r\n\r\n{\"status\":";
            let chunks = vec![Chunk::plain(bytes), Chunk::end(End::Fin)];
            return Reply { chunks, silent: false };
        }
        11 => {
            return Reply {
                chunks: vec![Chunk::end(*dice.pick(&[End::Fin, End::Reset]))],
                silent: false,
            };
        }
        _ => return Reply { chunks: Vec::new(), silent: true },
    };
    Reply { chunks: vec![Chunk::marked(bytes, Mark::Reply(None))], silent: false }
}
