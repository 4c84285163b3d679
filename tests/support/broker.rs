//! A router that is its own broker, and connections to it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::wait::PATIENCE;
use super::{Router, merge};

/// A router that is its own broker.
pub struct Broker {
    pub router: Router,
    pub port: u16,
    password: Option<String>,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::with(json!({}))
    }

    #[track_caller]
    pub fn with(over: Value) -> Broker {
        // Somebody else may take the metrics port in between; then the next one.
        for _ in 0..5 {
            let mut router = Router::launch(config(over.clone()));
            if router.wait_ready() {
                let port = router.wait_event("broker listening")["port"].as_u64().unwrap();
                let password = over["BROKER"]["password"].as_str().map(str::to_owned);
                return Broker { router, port: port.try_into().unwrap(), password };
            }
            let text = router.log_text();
            assert!(text.contains("in use"), "not ready: {text}");
        }
        panic!("no free port for the metrics");
    }

    /// A connection, past the password.
    #[track_caller]
    pub fn peer(&self) -> Peer {
        let mut peer = Peer::connect(self.port);
        if let Some(password) = &self.password {
            assert_eq!(peer.ask(&["AUTH", password]), "+OK");
        }
        peer
    }

    /// Publishes as a service does; the number of receivers.
    #[track_caller]
    pub fn publish(&self, subscription: &str, data: &Value) -> i64 {
        let message = json!({ "subscription": subscription, "data": data });
        self.publish_on(subscription, &message)
    }

    #[track_caller]
    pub fn publish_on(&self, channel: &str, message: &Value) -> i64 {
        let answer = self.peer().ask(&["PUBLISH", channel, &message.to_string()]);
        answer.strip_prefix(':').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }
}

/// What these tests start from.
pub fn config(over: Value) -> Value {
    let mut config = json!({
        "WS_PORT": 0,
        "LOG": { "level": "DEBUG", "trace_level": "DEBUG", "style": "json" },
        "HTTP": { "timeout": 5, "tries": 2, "wait": 0.05 },
        "SERVICES": { "books": { "require_authentication": false } },
        "BROKER": { "port": 0 },
    });
    merge(&mut config, over);
    config
}

/// A connection to a broker, or to a Redis.
pub struct Peer {
    pub stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Peer {
    #[track_caller]
    pub fn connect(port: u16) -> Peer {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { input: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn send(&mut self, words: &[&str]) {
        self.stream.write_all(&command(words)).unwrap();
    }

    /// The first line of the answer.
    #[track_caller]
    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.line()
    }

    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.input, &mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line: {line:?}")).to_owned()
    }

    /// The next message of a subscription, as it stands.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.input.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// All that comes up to the end of the connection.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset is an end, too.
        let _ = self.input.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A command as clients send it.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    bytes.into_bytes()
}
