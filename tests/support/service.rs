//! HTTP services with scripted answers that remember what they were asked.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::http::Head;
use super::wait::{PATIENCE, until};

/// What a service answers to one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status 200, `application/json`.
    Json(String),
    Status(u16),
    /// A whole answer as bytes; the connection stays open.
    Raw(Vec<u8>),
    /// Bytes, then the end of the connection.
    RawThenClose(Vec<u8>),
    /// The end of the connection without an answer.
    Close,
    /// Nothing, for as long as the caller waits.
    Hang,
}

impl Reply {
    pub fn ok() -> Reply {
        Reply::Json(r#"{"status":"ok"}"#.to_owned())
    }

    pub fn json(value: &Value) -> Reply {
        Reply::Json(value.to_string())
    }

    pub fn raw(text: &str) -> Reply {
        Reply::Raw(text.as_bytes().to_vec())
    }

    pub fn raw_then_close(text: &str) -> Reply {
        Reply::RawThenClose(text.as_bytes().to_vec())
    }

    /// An answer with headers of one's own; Content-Length is added.
    pub fn with(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut text = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        Reply::Raw(format!("{text}\r\n{body}").into_bytes())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub path: String,
    pub body: String,
    /// Counted from 0 in the order of accepting.
    pub connection: usize,
    pub at: Instant,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn subscription(&self) -> String {
        self.json()["subscription"].as_str().unwrap_or_default().to_owned()
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    handlers: Mutex<HashMap<String, Handler>>,
    /// Of all connections that were ever accepted.
    streams: Mutex<Vec<TcpStream>>,
    /// How many of them have ended.
    ended: AtomicUsize,
    stopped: AtomicBool,
}

/// Answers `{"status":"ok"}` where nothing else is said.
pub struct Service {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Service {
    pub fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Service { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The configuration of a service that is open to everybody, each hook at the path of its
    /// name.
    pub fn hooks(&self, hooks: &[&str]) -> Value {
        let mut config = json!({ "require_authentication": false });
        for hook in hooks {
            config[*hook] = json!(self.url(&format!("/{hook}")));
        }
        config
    }

    /// The configuration of ticket authentication at `/ticket`.
    pub fn ticket(&self, auth_fields: &[&str]) -> Value {
        json!({ "ticket": { "validation_url": self.url("/ticket"), "auth_fields": auth_fields } })
    }

    /// The handler runs on the connection's thread: it may wait for something.
    pub fn on(&self, path: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.shared.handlers.lock().unwrap().insert(path.to_owned(), Arc::new(handler));
    }

    pub fn answer(&self, path: &str, reply: Reply) {
        self.on(path, move |_| reply.clone());
    }

    pub fn answer_json(&self, path: &str, value: &Value) {
        self.answer(path, Reply::json(value));
    }

    /// One reply per request, the last one again and again.
    pub fn script(&self, path: &str, replies: Vec<Reply>) {
        let replies = Mutex::new(VecDeque::from(replies));
        self.on(path, move |_| {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() }
        });
    }

    /// Holds every request to the path until the gate is opened, then answers ok.
    pub fn hold(&self, path: &str) -> Gate {
        self.hold_then(path, Reply::ok())
    }

    pub fn hold_then(&self, path: &str, reply: Reply) -> Gate {
        let gate = Gate::default();
        let held = gate.clone();
        self.on(path, move |_| {
            held.pass();
            reply.clone()
        });
        gate
    }

    pub fn all(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn requests(&self, path: &str) -> Vec<Request> {
        self.all().into_iter().filter(|request| request.path == path).collect()
    }

    /// The paths in the order of arrival.
    pub fn paths(&self) -> Vec<String> {
        self.all().into_iter().map(|request| request.path).collect()
    }

    /// The callbacks in the order of arrival, as `hook subscription`.
    pub fn calls(&self) -> Vec<String> {
        let call = |request: Request| format!("{} {}", &request.path[1..], request.subscription());
        self.all().into_iter().map(call).collect()
    }

    /// Waits until `count` requests or more have come to the path.
    #[track_caller]
    pub fn wait(&self, path: &str, count: usize) -> Vec<Request> {
        let what = format!("{count} requests to {path}; came: {:?}", self.paths());
        until(&what, || Some(self.requests(path)).filter(|found| found.len() >= count))
    }

    /// Waits until the paths in the order of arrival are these; more may have come since.
    #[track_caller]
    pub fn wait_paths(&self, paths: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let came = self.paths();
            if came.len() >= paths.len() || Instant::now() > deadline {
                assert_eq!(came, paths, "the order of callbacks");
                return;
            }
            thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// The number of connections that were accepted.
    pub fn connections(&self) -> usize {
        self.shared.streams.lock().unwrap().len()
    }

    /// The number of connections that have ended, by whomever.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    /// Closes all connections, those under way included.
    pub fn drop_connections(&self) {
        for stream in self.shared.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.drop_connections();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let number = {
            let mut streams = shared.streams.lock().unwrap();
            streams.push(stream.try_clone().unwrap());
            streams.len() - 1
        };
        let shared = shared.clone();
        thread::spawn(move || {
            let _ = serve(&stream, number, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            shared.ended.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// Answers one connection's requests until somebody ends it. `None` is such an end.
fn serve(stream: &TcpStream, connection: usize, shared: &Shared) -> Option<()> {
    let mut input = BufReader::new(stream);
    loop {
        let head = Head::read(&mut input)?;
        let length = head.header("Content-Length").and_then(|value| value.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        input.read_exact(&mut body).ok()?;
        let request = Request {
            path: head.start.split(' ').nth(1)?.to_owned(),
            body: String::from_utf8(body).ok()?,
            head,
            connection,
            at: Instant::now(),
        };
        let handler = shared.handlers.lock().unwrap().get(&request.path).cloned();
        shared.requests.lock().unwrap().push(request.clone());
        let reply = handler.map_or_else(Reply::ok, |handler| handler(&request));
        answer(stream, &mut input, &reply)?;
    }
}

fn answer(mut stream: &TcpStream, input: &mut impl BufRead, reply: &Reply) -> Option<()> {
    match reply {
        Reply::Json(body) => {
            let headers = [("Content-Type", "application/json")];
            answer(stream, input, &Reply::with(200, &headers, body))
        }
        Reply::Status(status) => answer(stream, input, &Reply::with(*status, &[], "")),
        Reply::Raw(bytes) => stream.write_all(bytes).ok(),
        Reply::RawThenClose(bytes) => {
            let _ = stream.write_all(bytes);
            None
        }
        Reply::Close => None,
        Reply::Hang => {
            let _ = input.fill_buf();
            None
        }
    }
}

/// A door that a test holds shut; whoever comes waits before it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// From now on everybody passes.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for the opening; not for ever, since a failed test opens nothing.
    pub fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(shut, 3 * PATIENCE, |open| !*open);
    }
}
