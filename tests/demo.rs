//! `socketshark demo`: its arguments, its ports, its end, and its page in a browser.
//!
//! The browser is Debian's Chromium, driven by Node; `tests/run` installs both that and what
//! `tests/client-js` needs.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::http;
use support::router::{BINARY, run};
use support::wait::TempDir;
use support::{Client, subscribe};

/// A running demo on ports of its own. It is killed when the value is dropped.
struct Demo {
    process: Child,
    router: u16,
    page: u16,
    broker: u16,
}

impl Demo {
    fn start() -> Demo {
        // Somebody else may be quicker to take a port that was free.
        (0..10).find_map(|_| Demo::try_start()).unwrap()
    }

    fn try_start() -> Option<Demo> {
        let mut command = Command::new(BINARY);
        command.args(["demo", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut demo = Demo { process, router: 0, page: 0, broker: 0 };
        demo.page = port_in(&lines.next()?.unwrap(), "page ", "http://127.0.0.1:");
        demo.router = port_in(&lines.next()?.unwrap(), "router ", "ws://127.0.0.1:");
        demo.broker = port_in(&lines.next()?.unwrap(), "broker ", "127.0.0.1:");
        Some(demo)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (body, port) = (body.to_string(), self.page);
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let (head, answer) = http::exchange(port, request.as_bytes()).unwrap();
        assert_eq!(head.status(), 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// A client with a ticket, which has read what it is told about itself.
    fn client(&self, user: &str) -> Client {
        let ticket = self.post("/tickets", &json!({ "user": user }))["ticket"].clone();
        let mut client = Client::connect(self.router);
        client.authenticate(ticket.as_str().unwrap());
        client
    }

    /// Sends SIGINT, as Ctrl-C does. Gives the exit status and what stood on stderr.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

/// The port that a line of the welcome tells behind `before`.
fn port_in(line: &str, name: &str, before: &str) -> u16 {
    assert!(line.starts_with(name), "{line}");
    let (_, behind) = line.split_once(before).unwrap();
    behind.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_configuration_that_it_prints_is_valid() {
    let (status, text, err) = run(&["demo", "--print-config", "--port", "7000"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    for part in ["// ", "\"WS_PORT\": 7000", "http://127.0.0.1:7080/callbacks/ticket", "6379"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let dir = TempDir::new();
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    let checked = run(&["--check", "-c", path.to_str().unwrap()]);
    assert_eq!(checked, (Some(0), String::new(), String::new()));
}

#[test]
fn wrong_arguments_end_with_2() {
    let cases: [&[&str]; 8] = [
        &["demo", "--port"],
        &["demo", "--port", "x"],
        &["demo", "--port", "-1"],
        &["demo", "--port", "65157"],
        &["demo", "--port", "0", "--print-config"],
        &["demo", "-c", "x"],
        &["demo", "demo"],
        &["--check", "demo"],
    ];
    for arguments in cases {
        let (status, out, err) = run(arguments);
        assert_eq!((status, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{arguments:?}: {err}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_the_mend() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // The last ports have none behind them: there it is the number that is wrong.
    let expected = if port > 65_156 { 2 } else { 1 };
    let (status, out, err) = run(&["demo", "--port", &port.to_string()]);
    assert_eq!((status, out.as_str()), (Some(expected), ""), "{err}");
    assert!(err.contains("--port"), "{err}");
}

#[test]
fn it_serves_its_page_and_ends_cleanly() {
    let demo = Demo::start();
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", demo.page);
    let (head, page) = http::exchange(demo.page, request.as_bytes()).unwrap();
    assert_eq!(head.status(), 200);
    assert!(page.contains(&format!("ws://127.0.0.1:{}", demo.router)));
    let rebound = request.replace("127.0.0.1", "evil.example");
    let (head, _) = http::exchange(demo.page, rebound.as_bytes()).unwrap();
    assert_eq!(head.status(), 421);
    assert_eq!(demo.interrupt(), (Some(0), String::new()));
}

#[test]
fn only_its_page_may_connect() {
    let demo = Demo::start();
    for host in ["127.0.0.1", "localhost"] {
        let origin = format!("Origin: http://{host}:{}\r\n", demo.page);
        Client::connect_with(demo.router, &origin);
    }
    let evil = support::client::request("/", "Origin: http://evil.example\r\n");
    let refused = Client::handshake(demo.router, &evil).err().flatten().unwrap();
    assert_eq!(refused.status(), 403);
}

#[test]
fn a_chat_over_the_routers_own_callbacks() {
    let demo = Demo::start();
    let mut anna = demo.client("anna");
    let mut with_color = subscribe("chat.reef");
    with_color["color"] = json!("teal");
    let answer = anna.ask(&with_color);
    assert_eq!(answer["data"], json!({ "people": [], "lines": [] }));
    assert_eq!(anna.recv()["data"]["kind"], "joined");
    let said = json!({ "event": "message", "subscription": "chat.reef", "data": { "text": "Hi" } });
    anna.send(&said);
    let mut told = [anna.recv(), anna.recv()];
    told.sort_by_key(|event| event["status"] == "ok");
    let [message, answer] = told;
    let line = json!({ "kind": "said", "from": "anna", "color": "teal", "text": "Hi" });
    assert_eq!((&message["data"], &answer["data"]), (&line, &json!({ "number": 1 })));

    let mut bob = demo.client("bob");
    let refused = bob.ask(&subscribe("chat.secret"));
    assert_eq!(refused["error"], "Only shark may dive into chat.secret.");
    let answer = bob.ask(&subscribe("chat.reef"));
    assert_eq!(answer["data"], json!({ "people": ["anna"], "lines": [line] }));
    assert_eq!(anna.recv()["data"]["people"], json!(["anna", "bob"]));
    bob.close(1000);
    let left = json!({ "kind": "left", "who": "bob", "people": ["anna"] });
    assert_eq!(anna.recv()["data"], left);

    // The callbacks of leaving are made on the way out: the service is there to the end.
    assert_eq!(demo.interrupt(), (Some(0), String::new()));
}

#[test]
fn publishing_over_http_and_over_resp() {
    let demo = Demo::start();
    let mut client = Client::connect(demo.router);
    client.ask(&json!({ "event": "subscribe", "subscription": "news.sea", "language": "en" }));
    let message = json!({ "subscription": "news.sea", "data": 1 });
    let told = demo.post("/publish", &json!({ "channel": "news.sea", "message": message }));
    assert_eq!(told["data"], json!({ "readers": 1 }));
    assert_eq!(client.recv()["data"], 1);
    let mut peer = support::broker::Peer::connect(demo.broker);
    let other = json!({ "subscription": "news.sea", "data": 2 }).to_string();
    assert_eq!(peer.ask(&["PUBLISH", "news.sea", &other]), ":1");
    assert_eq!(client.recv()["data"], 2);
}

#[test]
fn in_a_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/client-js");
    let remedy = "run tests/run: it installs Debian's chromium and tests/client-js's packages, \
                  where apt-get, node and npm are there";
    assert!(modules.join("installed").is_file(), "packages are missing; {remedy}");
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(root.join("tests/client-js/demo.test.mjs"))
        .env("CLIENT_JS_MODULES", &modules)
        .env("SOCKETSHARK", BINARY)
        .output()
        .unwrap_or_else(|error| panic!("cannot run node: {error}; {remedy}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    println!("{said}");
}
