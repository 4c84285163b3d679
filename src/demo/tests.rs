//! The demo without sockets: its configuration, its service, its HTTP server.

use std::io::IoSlice;
use std::time::Duration;

use super::service::Service;
use super::site::Site;
use super::visitor::{Context, Visitor};
use super::*;
use crate::arena::ConnId;
use crate::limits::{
    DEMO_BODY_BYTES_MAX, DEMO_HEAD_BYTES_MAX, DEMO_IDLE_SECONDS_MAX, DEMO_LINE_CHARS_MAX,
    DEMO_NAME_CHARS_MAX, DEMO_PEOPLE_MAX, DEMO_REQUEST_SECONDS_MAX, DEMO_ROOMS_MAX,
    DEMO_TICKET_SECONDS_MAX, DEMO_TICKETS_MAX,
};
use crate::ports::{Kind, Output, Ports};
use crate::time::{Instant, Now};

const PORTS: DemoPorts = DemoPorts { router: 9000, page: 9080, broker: 6379 };

fn service() -> Service {
    Service::new(Random::seeded(1))
}

fn site() -> Site {
    Site::new(PORTS.page, &read(&config_text(PORTS)).unwrap(), service())
}

/// One connection and all that it sees.
struct Bench {
    ports: Ports,
    id: ConnId,
    now: Now,
    visitor: Visitor,
    site: Site,
    published: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let mut ports = Ports::default();
        let id = ports.open(Kind::Demo, usize::MAX);
        let now = Now { mono: Instant(1_000), ..Now::default() };
        let visitor = Visitor::new(now);
        Bench { ports, id, now, visitor, site: site(), published: Vec::new() }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Visitor, &mut Context<'_>) -> R) -> R {
        let mut ctx = Context { now: self.now, id: self.id, ports: &mut self.ports };
        act(&mut self.visitor, &mut ctx)
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(request) = self.with(|visitor, ctx| visitor.next(&mut bytes, ctx)) {
            let published = &mut self.published;
            let mut publish = |channel: &str, message: &str| {
                published.push(format!("{channel} {message}"));
                1
            };
            let answer = self.site.answer(&request, self.now, &mut publish);
            self.with(|visitor, ctx| visitor.answer(answer, ctx));
        }
        assert!(bytes.is_empty(), "all input is taken");
    }

    /// Writes what waits, and all that follows from that.
    fn write(&mut self) -> String {
        let mut text = String::new();
        while let Some(id) = self.ports.mail.next_prompt() {
            let mut slices = [IoSlice::new(&[]); 8];
            let used = self.ports.mail.outbox(id).unwrap().slices_from(0, &mut slices);
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            self.ports.mail.written(id, bytes.len());
            text.push_str(&String::from_utf8(bytes).unwrap());
            if let Some(held) = self.with(|visitor, ctx| visitor.flushed(ctx)) {
                self.receive(&held);
            }
        }
        text
    }

    /// What is answered to these bytes.
    fn ask(&mut self, request: &str) -> String {
        self.receive(request.as_bytes());
        self.write()
    }

    fn wait(&mut self, seconds: u64) {
        self.now.mono = self.now.mono.after(Duration::from_secs(seconds));
        self.with(|visitor, ctx| visitor.due(ctx));
    }

    fn is_closed(&self) -> bool {
        assert_eq!(self.ports.kind(self.id).is_none(), self.visitor.deadline().is_none());
        self.ports.kind(self.id).is_none()
    }
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n{more}\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost:9080\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

// The configuration and the page.

#[test]
fn the_configuration_is_valid_on_all_ports() {
    for port in [1, 8920, 9000, 9080, PORT_MAX] {
        let ports = DemoPorts::usual(port);
        let config = read(&config_text(ports)).unwrap();
        assert_eq!((config.ws_port, config.broker.unwrap().port), (ports.router, ports.broker));
        assert!(ports.page > port);
    }
}

#[test]
fn the_page_knows_its_ports_and_runs_nobody_elses_code() {
    let mut bench = Bench::new();
    let page = bench.ask(&get("/", ""));
    assert_eq!(status(&page), "200");
    assert!(page.contains(r#"content="ws://127.0.0.1:9000""#) && !page.contains("{{"), "{page}");
    assert!(page.contains("script-src 'self'") && page.contains("default-src 'none'"));
    assert!(page.contains("connect-src 'self' ws://127.0.0.1:9000;"));
    for path in ["/page.css", "/page.js", "/socketshark.js", "/icon.svg", "/stream.js?x"] {
        assert_eq!(status(&bench.ask(&get(path, ""))), "200", "{path}");
    }
    assert_eq!(status(&bench.ask(&get("/page.html", ""))), "404");
    let head = bench.ask(&get("/", "").replace("GET", "HEAD"));
    assert!(head.contains("Content-Length: ") && head.ends_with("\r\n\r\n"));
}

#[test]
fn no_file_of_the_page_makes_markup_of_data() {
    for file in [include_str!("page.js"), include_str!("stream.js"), include_str!("trials.js")] {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "http://", "https://"]
        {
            assert!(!file.contains(word), "{word}");
        }
    }
}

// Who is answered.

#[test]
fn only_this_machines_pages_are_answered() {
    let cases = [
        (get("/", ""), "200"),
        (get("/", "").replace("127.0.0.1", "[::1]"), "200"),
        (get("/", "").replace("127.0.0.1", "LOCALHOST"), "200"),
        (get("/", "").replace("127.0.0.1", "evil.example"), "421"),
        (get("/", "").replace(":9080", ""), "421"),
        (get("/", "").replace(":9080", ":9081"), "421"),
        (get("/", "Origin: http://localhost:9080\r\n"), "200"),
        (get("/", "Origin: http://evil.example\r\n"), "403"),
        (get("/", "Origin: https://127.0.0.1:9080\r\n"), "403"),
        (get("/", "Origin: null\r\n"), "403"),
        (post("/tickets", r#"{"user":"a"}"#), "200"),
        (post("/tickets", "").replace("application/json", "text/plain"), "415"),
        (post("/nothing", "{}"), "404"),
        (post("/callbacks/nothing", "{}"), "404"),
        (post("/", "{}"), "404"),
        (get("/", "").replace("GET", "DELETE"), "405"),
    ];
    for (request, expected) in cases {
        assert_eq!(status(&Bench::new().ask(&request)), expected, "{request}");
    }
}

// Connections.

#[test]
fn requests_follow_one_another_on_a_connection() {
    let two = post("/tickets", r#"{"user":"a"}"#) + &get("/icon.svg", "");
    for cut in [1, 2, 3, 50, 1_000] {
        let mut bench = Bench::new();
        let mut answers = String::new();
        for piece in two.as_bytes().chunks(cut) {
            bench.receive(piece);
            answers += &bench.write();
        }
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "by {cut}");
        assert!(answers.ends_with("</svg>\n") && !bench.is_closed());
    }
}

#[test]
fn nothing_is_read_while_an_answer_waits() {
    let mut bench = Bench::new();
    bench.receive(get("/", "").repeat(3).as_bytes());
    assert!(!bench.visitor.wants_read());
    assert_eq!(bench.ports.mail.next_prompt(), Some(bench.id));
    let waiting = bench.ports.mail.outbox(bench.id).unwrap().bytes();
    assert!(waiting < 20_000, "one answer waits, not three: {waiting}");
    bench.wait(DEMO_REQUEST_SECONDS_MAX);
    assert!(bench.is_closed(), "it does not wait for ever");
}

#[test]
fn a_connection_ends_when_it_is_told_to() {
    let mut bench = Bench::new();
    let answer = bench.ask(&get("/icon.svg", "Connection: close\r\n"));
    assert!(answer.contains("Connection: close\r\n"));
    let outputs: Vec<Output> = std::iter::from_fn(|| bench.ports.poll()).collect();
    assert_eq!(outputs, [Output::HalfClose(bench.id)]);
    bench.receive(b"more");
    bench.with(|visitor, ctx| visitor.ended(ctx));
    assert!(bench.is_closed());

    let mut bench = Bench::new();
    bench.receive(get("/", "").as_bytes());
    bench.with(|visitor, ctx| visitor.ended(ctx));
    assert!(!bench.is_closed(), "the answer is still taken");
    assert_eq!(status(&bench.write()), "200");
    assert!(bench.is_closed());
}

#[test]
fn requests_have_a_size_and_a_time() {
    let mut bench = Bench::new();
    let long = get("/", &format!("X: {}\r\n", "x".repeat(DEMO_HEAD_BYTES_MAX)));
    assert_eq!(status(&bench.ask(&long)), "431");
    bench.wait(1);
    assert!(bench.is_closed());

    let mut bench = Bench::new();
    let large = post("/publish", &"x".repeat(DEMO_BODY_BYTES_MAX + 1));
    assert_eq!(status(&bench.ask(&large)), "413");

    let mut bench = Bench::new();
    bench.ask(&get("/", ""));
    bench.wait(DEMO_IDLE_SECONDS_MAX - 1);
    bench.receive(b"GET");
    bench.wait(DEMO_REQUEST_SECONDS_MAX - 1);
    bench.receive(b" /");
    assert!(!bench.is_closed());
    bench.wait(1);
    assert!(bench.is_closed(), "bytes in between win no time");

    let mut bench = Bench::new();
    bench.ask(&get("/", ""));
    bench.wait(DEMO_IDLE_SECONDS_MAX);
    assert!(bench.is_closed());
}

// The service.

/// Asks the service; gives its answer and what it has published, callbacks' traces left out.
fn call(service: &mut Service, path: &str, body: &str, now: Now) -> (String, Vec<String>) {
    let mut published = Vec::new();
    let mut publish = |channel: &str, message: &str| {
        if channel != "calls.all" {
            published.push(format!("{channel} {message}"));
        }
        2
    };
    let answer = service.answer(path, body.as_bytes(), now, &mut publish);
    (answer.unwrap_or_default(), published)
}

fn answer(service: &mut Service, path: &str, body: &str) -> String {
    call(service, path, body, Now::default()).0
}

#[test]
fn a_ticket_is_good_once_and_not_for_long() {
    let mut service = service();
    let mut issue = |user: &str, now| {
        let (told, _) = call(&mut service, "/tickets", &format!(r#"{{"user":"{user}"}}"#), now);
        let ticket = told.split('"').rev().nth(1).unwrap_or_default().to_owned();
        assert_eq!(ticket.len(), 32, "{told}");
        format!(r#"{{"ticket":"{ticket}"}}"#)
    };
    let now = Now::default();
    let late = Now { mono: now.mono.after(Duration::from_secs(DEMO_TICKET_SECONDS_MAX)), ..now };
    let first = issue(" anna ", now);
    let others: Vec<String> = (0..DEMO_TICKETS_MAX).map(|_| issue("bob", now)).collect();
    let mut check = |ticket: &str, now| call(&mut service, "/callbacks/ticket", ticket, now).0;
    assert!(check(&first, now).contains("error"), "the oldest one has given way");
    assert_eq!(check(&others[0], now), r#"{"status":"ok","user":"bob"}"#);
    assert!(check(&others[0], now).contains("error"), "used");
    assert!(check(&others[1], late).contains("error"), "too old");
    for body in ["{}", r#"{"ticket":null}"#, r#"{"ticket":""}"#] {
        assert!(check(body, now).contains("error"), "{body}");
    }
}

#[test]
fn names_have_a_size() {
    let mut service = service();
    let long = "x".repeat(DEMO_NAME_CHARS_MAX + 1);
    for user in [r#""""#, r#""  ""#, r#""a\nb""#, "5", "null", &format!(r#""{long}""#)] {
        let told = answer(&mut service, "/tickets", &format!(r#"{{"user":{user}}}"#));
        assert!(told.contains(r#""status":"error""#), "{user}");
    }
    for body in ["", "[]", "{", "\u{1}"] {
        assert!(answer(&mut service, "/tickets", body).contains("JSON object"), "{body}");
    }
}

#[test]
fn a_subscription_of_the_chat_from_start_to_end() {
    let mut service = service();
    let now = Now::default();
    let anna = r#"{"subscription":"chat.reef","color":"teal","user":"anna"}"#;
    let said = anna.replace('}', r#","data":{"text":" \"Ahoy\" "}}"#);
    let mut at =
        |hook: &str, body: &str| call(&mut service, &format!("/callbacks/chat/{hook}"), body, now);

    assert_eq!(at("authorize", anna).0, r#"{"status":"ok"}"#);
    let empty = r#"{"status":"ok","data":{"people":[],"lines":[]}}"#;
    assert_eq!(at("before_subscribe", anna), (empty.to_owned(), vec![]));
    let (_, published) = at("on_subscribe", anna);
    assert!(published[0].starts_with("chat.reef ") && published[0].contains("joined"));
    assert_eq!(at("on_subscribe", anna).1.len(), 0, "a second window");

    let (told, published) = at("on_message", &said);
    assert_eq!(told, r#"{"status":"ok","data":{"number":1}}"#);
    let line = r#"{"kind":"said","from":"anna","color":"teal","text":"\"Ahoy\""}"#;
    assert!(published[0].contains(&format!(r#""data":{line}"#)), "{published:?}");
    assert!(at("before_subscribe", anna).0.contains(line), "the state of the room");

    assert_eq!(at("before_unsubscribe", anna).0, r#"{"status":"ok","data":{"said_here":1}}"#);
    assert_eq!(at("on_unsubscribe", anna).1.len(), 0, "one window is left");
    assert!(at("on_unsubscribe", anna).1[0].contains(r#""kind":"left","who":"anna","people":[]"#));
    assert_eq!(at("on_unsubscribe", anna).1.len(), 0, "there is nobody any more");
    assert_eq!(at("before_subscribe", anna).0, empty, "the room was closed");
}

#[test]
fn the_chat_refuses() {
    let mut service = service();
    let mut refuses = |hook: &str, body: &str| {
        let told = answer(&mut service, &format!("/callbacks/chat/{hook}"), body);
        told.contains(r#""status":"error""#)
    };
    assert!(refuses("authorize", r#"{"subscription":"chat.secret","user":"anna"}"#));
    assert!(!refuses("authorize", r#"{"subscription":"chat.secret","user":"shark"}"#));
    let anna = r#"{"subscription":"chat.reef","user":"anna"}"#;
    assert!(!refuses("on_subscribe", anna));
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(DEMO_LINE_CHARS_MAX + 1));
    for data in ["null", "5", "{}", r#"{"text":" "}"#, r#"{"text":7}"#, &long] {
        assert!(
            refuses("on_message", &anna.replace('}', &format!(r#","data":{data}}}"#))),
            "{data}"
        );
    }
    let color = format!(r#","color":"{}"}}"#, "x".repeat(DEMO_NAME_CHARS_MAX + 1));
    assert!(refuses("before_subscribe", &anna.replace('}', &color)));
}

#[test]
fn the_sea_can_be_full() {
    let mut service = service();
    let mut told = |hook: &str, room: usize, user: usize| {
        let body = format!(r#"{{"subscription":"chat.{room}","user":"{user}"}}"#);
        answer(&mut service, &format!("/callbacks/chat/{hook}"), &body)
    };
    for user in 0..DEMO_PEOPLE_MAX {
        assert!(told("on_subscribe", 0, user).contains("ok"));
    }
    assert!(told("before_subscribe", 0, DEMO_PEOPLE_MAX).contains("no place"));
    assert!(told("before_subscribe", 0, 0).contains("ok"), "a second window of somebody inside");
    for room in 1..DEMO_ROOMS_MAX {
        told("on_subscribe", room, 0);
    }
    assert!(told("before_subscribe", DEMO_ROOMS_MAX, 0).contains("no place"));
    told("on_subscribe", DEMO_ROOMS_MAX, 0);
    assert!(told("on_message", DEMO_ROOMS_MAX, 0).contains("error"));
}

#[test]
fn the_counter_tells_its_state_and_its_version() {
    let mut service = service();
    let clicks = r#"{"subscription":"counter.clicks"}"#;
    let now = Now::default();
    let (told, published) = call(&mut service, "/callbacks/counter/on_message", clicks, now);
    assert_eq!(told, r#"{"status":"ok"}"#);
    let order = r#""options":{"order":1,"throttle":0.2}"#;
    assert!(published[0].starts_with("counter.clicks ") && published[0].contains(order));
    let state = answer(&mut service, "/callbacks/counter/before_subscribe", clicks);
    assert_eq!(state, format!(r#"{{"status":"ok","data":{{"value":1}},{order}}}"#));
    let other = r#"{"subscription":"counter.else"}"#;
    assert!(answer(&mut service, "/callbacks/counter/before_subscribe", other).contains("error"));
}

#[test]
fn what_the_page_publishes_is_published_as_it_is() {
    let mut service = service();
    let body = r#"{"channel":"news.sea","message":{ "a": 1e400 }}"#;
    let (told, published) = call(&mut service, "/publish", body, Now::default());
    assert_eq!(told, r#"{"status":"ok","data":{"readers":2}}"#);
    assert_eq!(published, [r#"news.sea { "a": 1e400 }"#]);
}

#[test]
fn callbacks_are_shown_to_the_page() {
    let mut bench = Bench::new();
    bench.ask(&post("/callbacks/ticket", r#"{"ticket":"x"}"#));
    let [shown] = &bench.published[..] else { panic!("{:?}", bench.published) };
    assert!(shown.starts_with("calls.all "), "{shown}");
    assert!(shown.contains(r#""hook":"ticket","body":{"ticket":"x"},"answer":{"status":"error""#));
}
