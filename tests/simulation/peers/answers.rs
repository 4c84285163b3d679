//! What services answer: right, no, wrong, or nothing at all.

use std::time::Duration;

use serde_json::{Value, json};
use socketshark::message::Hook;

use crate::dice::Dice;
use crate::marks::{DIGITS, Mark, with_digits};
use crate::peers::publisher::options;
use crate::swarm::{Fault, Params, Rules};
use crate::world::pipe::{Chunk, End, SURPLUS};

/// So many redirects are followed in one try.
const REDIRECTS_MAX: usize = 5;

/// The mood of services.
pub struct Mood {
    pub refuses: bool,
    pub wrong: bool,
    /// They send more than they should.
    pub surplus: bool,
    /// How long the next try waits, unless the answer says so.
    wait: Duration,
    /// Their messages are throttled.
    throttles: bool,
}

impl Mood {
    pub fn of(params: &Params, rules: &Rules, healed: bool) -> Mood {
        let has = |fault| !healed && params.has(fault);
        Mood {
            refuses: has(Fault::Refusals),
            wrong: has(Fault::Wrong),
            surplus: has(Fault::Cuts),
            wait: rules.http.wait,
            throttles: rules.throttles(),
        }
    }
}

/// An answer on its way, and whether it fails the try before any byte of it.
pub struct Reply {
    pub chunks: Vec<Chunk>,
    /// Nothing is answered, ever.
    pub silent: bool,
    /// Whether nothing may be asked on the connection any more.
    pub is_last: bool,
    /// The request is to be made again elsewhere, at once.
    pub leads_on: bool,
    /// How long the next try waits if this one has failed.
    pub wait: Duration,
}

impl Reply {
    fn of(bytes: impl Into<Vec<u8>>, answer: Option<Value>, mood: &Mood) -> Reply {
        Reply {
            chunks: vec![Chunk::marked(bytes, Mark::Reply(answer))],
            silent: false,
            is_last: false,
            leads_on: false,
            wait: mood.wait,
        }
    }

    fn last(mut self) -> Reply {
        self.is_last = true;
        self
    }
}

/// What is sent for a request.
pub fn reply(hook: Hook, path: &str, body: &Value, mood: &Mood, dice: &mut Dice) -> Reply {
    assert!(!path.contains("never"), "a redirect that must not be followed was");
    let steps = path.split_once("?step=").and_then(|(_, steps)| steps.parse().ok()).unwrap_or(0);
    assert!(steps <= REDIRECTS_MAX, "too many redirects are followed");
    // Whoever was led on once is often led on once more.
    if steps > 0 && mood.wrong && dice.chance(80) {
        return leads_on(path, steps, mood, dice);
    }
    if mood.wrong && dice.chance(30) {
        return wrong(path, steps, mood, dice);
    }
    let answer = answer(hook, body, mood, dice);
    encoded(&answer, mood, dice)
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
                answer["options"] = options(mood.throttles, dice);
            }
        }
        Hook::OnMessage | Hook::BeforeUnsubscribe | Hook::OnUnsubscribe => data(&mut answer, dice),
        Hook::OnSubscribe | Hook::OnAuthorizationChange | Hook::OnHeartbeat => {}
    }
    answer
}

fn data(answer: &mut Value, dice: &mut Dice) {
    if dice.chance(60) {
        answer["data"] =
            dice.pick(&[json!({"a": [1, "ü"]}), json!(0), json!(null), json!(DIGITS)]).clone();
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

/// A good answer in one of the ways that HTTP has for it.
fn encoded(answer: &Value, mood: &Mood, dice: &mut Dice) -> Reply {
    let body = with_digits(answer.to_string());
    let good = |bytes: String| Reply::of(bytes, Some(answer.clone()), mood);
    let kinds = ["application/json", "application/json; charset=utf-8", "Application/Problem+JSON"];
    let kind = format!("Content-Type: {}", dice.pick(&kinds));
    let len = body.len();
    let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n{kind}\r\n\r\n{body}");
    match dice.below(10) {
        0 => {
            let (first, second) = body.split_at(body.find(':').unwrap_or(0));
            good(format!(
                "HTTP/1.1 200 OK\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x};a=b\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nT: x\r\n\r\n",
                first.len(),
                second.len()
            ))
        }
        1 => {
            let bytes = format!("HTTP/1.1 201 Created\r\n{kind}\r\n\r\n{body}");
            let mark = Mark::Reply(Some(answer.clone()));
            let end = Chunk { mark: Some(mark), ..Chunk::end(End::Fin) };
            let chunks = vec![Chunk::plain(bytes), end];
            Reply { chunks, ..good(String::new()).last() }
        }
        2 => {
            let mut reply = good(format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\
                 Connection: close\r\n{kind}\r\n\r\n{body}"
            ));
            // It closes, or leaves that to the other side.
            reply.chunks.extend(dice.chance(50).then(|| Chunk::end(End::Fin)));
            reply.last()
        }
        3 => good(plain.replacen("HTTP/1.1", "HTTP/1.0", 1)).last(),
        4 if mood.surplus => {
            // Surplus bytes: the connection is of no more use.
            let mut reply = good(plain);
            reply.chunks.push(Chunk::plain(SURPLUS));
            reply
        }
        _ => good(plain),
    }
}

/// An answer that fails the try, or leads on.
fn wrong(path: &str, steps: usize, mood: &Mood, dice: &mut Dice) -> Reply {
    let failed = |bytes: &str| Reply::of(bytes, None, mood);
    let status = |status: &str, more: &str| {
        failed(&format!("HTTP/1.1 {status} X\r\n{more}Content-Length: 2\r\n\r\n{{}}"))
    };
    let ok = |more: &str, body: &str| {
        failed(&format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}\r\n{body}"))
    };
    let yes = "{\"status\":\"ok\"}";
    match dice.below(20) {
        0 => status("500", ""),
        1 => status("404", "Content-Type: application/json\r\n"),
        2 => failed("HTTP/1.1 204 No Content\r\n\r\n"),
        3..6 => {
            let (header, wait) = *dice.pick(&[
                ("X-Rate-Limit-Reset: 1.5\r\n", Some(1_500)),
                ("x-rate-limit-reset: 2\r\n", Some(2_000)),
                ("X-Rate-Limit-Reset: 0\r\n", Some(0)),
                ("X-Rate-Limit-Reset: never\r\n", None),
                ("X-Rate-Limit-Reset: -1\r\n", None),
                ("X-Rate-Limit-Reset: nan\r\n", None),
                ("", None),
            ]);
            let wait = wait.map_or(mood.wait, Duration::from_millis);
            Reply { wait, ..status("429", header) }
        }
        6 => status("200", ""),
        7 => ok("Content-Length: 2\r\n", "[]"),
        8 => failed("SSH-2.0-x\r\n\r\n").last(),
        9 => {
            let code = *dice.pick(&["301", "302", "303"]);
            status(code, &format!("Location: {}?never\r\n", bare(path)))
        }
        10 => status("308", "Location: http://evil.test/never\r\n"),
        11 => status("200", "Content-Type: text/html\r\n"),
        12 => ok("Content-Length: 15\r\nContent-Length: 16\r\n", yes).last(),
        13 => ok("Transfer-Encoding: chunked\r\n", &format!("-f\r\n{yes}\r\n0\r\n\r\n")).last(),
        14..17 => leads_on(path, steps, mood, dice),
        17 => {
            // Cut short.
            let bytes = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                         Content-Length: 15\r\n\r\n{\"status\":";
            let chunks = vec![Chunk::plain(bytes), Chunk::end(End::Fin)];
            Reply { chunks, ..failed("").last() }
        }
        18 => {
            let chunks = vec![Chunk::end(*dice.pick(&[End::Fin, End::Reset]))];
            Reply { chunks, ..failed("").last() }
        }
        _ => Reply { chunks: Vec::new(), silent: true, ..failed("") },
    }
}

/// A redirect within the origin.
fn leads_on(path: &str, steps: usize, mood: &Mood, dice: &mut Dice) -> Reply {
    let (code, path, next) = (*dice.pick(&["307", "308"]), bare(path), steps + 1);
    let bytes = format!(
        "HTTP/1.1 {code} X\r\nLocation: {path}?step={next}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    Reply { leads_on: steps < REDIRECTS_MAX, ..Reply::of(bytes, None, mood) }
}

/// A path without its query.
fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}
