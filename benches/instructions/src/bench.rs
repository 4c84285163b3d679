//! An engine, and in the place of the shell as little as can be: what comes in was made ahead of
//! time, what goes out is counted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socketshark::arena::ConnId;
use socketshark::config;
use socketshark::engine::{Engine, Setup};
use socketshark::ports::{Core, Door, Input, Kind, Output};
use socketshark::time::{Now, Wall};

use crate::frames;

/// The same as the other benchmarks', but for the ports.
const CONFIG: &str = r#"{"WS_PING": {"interval": null},
"REDIS": {"host": "127.0.0.1", "ping_interval": null},
"SERVICES": {
  "news": {"require_authentication": false},
  "users": {"require_authentication": false, "extra_fields": ["user"], "filter_fields": ["user"]},
  "echo": {"require_authentication": false, "on_message": "http://127.0.0.1:8000/"}
}}"#;

/// In the year 2027.
const EPOCH: i64 = 1_800_000_000_000_000;

pub struct Bench {
    engine: Engine,
    now: Now,
    /// Where clients come from: each from a port of its own.
    port: u16,
    redis: Option<ConnId>,
    service: Option<ConnId>,
    /// What was last written to Redis.
    commands: Vec<u8>,
    /// Bytes written to clients, and writes of them.
    pub sent: usize,
    pub writes: usize,
}

impl Bench {
    /// An engine that serves.
    pub fn new() -> Bench {
        let config = config::parse(CONFIG, &|_| None).expect("the configuration is in order");
        let setup = Setup { seed: 1, pid: 1, terminal: false };
        let mut bench = Bench {
            engine: Engine::new(Rc::new(config), setup),
            now: Now { wall: Wall(EPOCH), ..Now::default() },
            port: 1024,
            redis: None,
            service: None,
            commands: Vec::new(),
            sent: 0,
            writes: 0,
        };
        bench.engine.start(bench.now);
        bench.turn();
        bench.answer_redis();
        assert!(bench.engine.metrics().ready, "the engine serves");
        bench
    }

    pub fn redis(&self) -> ConnId {
        self.redis.expect("a link to Redis is asked for at the start")
    }

    pub fn service(&self) -> ConnId {
        self.service.expect("a callback asks for a connection")
    }

    /// A client behind its handshake.
    pub fn connect(&mut self) -> ConnId {
        self.port = self.port.wrapping_add(1).max(1024);
        let peer = SocketAddr::from(([127, 0, 0, 1], self.port));
        let conn = self.engine.accept(self.now, Door::Clients, peer).expect("there is room");
        self.receive(conn, frames::UPGRADE);
        conn
    }

    /// Clients that have subscribed, each to what `subscribe` says.
    pub fn gather(&mut self, count: usize, subscribe: impl Fn(usize) -> String) -> Vec<ConnId> {
        let gather = |client| {
            let conn = self.connect();
            self.receive(conn, &frames::client_frame(&subscribe(client)));
            self.answer_redis();
            conn
        };
        (0..count).map(gather).collect()
    }

    /// A turn of the loop, in which these bytes come.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now.mono = self.now.mono.after(Duration::from_micros(1));
        let room = self.engine.appetite(conn);
        assert!(self.engine.wants_read(conn) && bytes.len() <= room, "they can be read at once");
        self.engine.handle(self.now, Input::Received(conn, bytes));
        self.write_prompt();
        self.turn();
    }

    /// The client goes.
    pub fn leave(&mut self, conn: ConnId) {
        self.engine.handle(self.now, Input::Ended(conn));
        self.turn();
    }

    /// Turns until nothing is left to do.
    fn turn(&mut self) {
        loop {
            self.engine.handle(self.now, Input::Tick);
            self.obey();
            self.write_prompt();
            while let Some(conn) = self.engine.next_bulk() {
                self.write(conn);
            }
            if !self.engine.log().is_empty() {
                drop(self.engine.log().take());
            }
            if !self.engine.has_work() {
                return;
            }
        }
    }

    fn obey(&mut self) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Connect { conn, .. } => {
                    match self.engine.kind(conn) {
                        Some(Kind::Redis(_)) => self.redis = Some(conn),
                        _ => self.service = Some(conn),
                    }
                    self.engine.handle(self.now, Input::Connected(conn));
                }
                Output::Listen => {
                    let address = SocketAddr::from(([127, 0, 0, 1], 9000));
                    self.engine.handle(self.now, Input::Listening(address));
                }
                Output::Exit(status) => panic!("the engine exits with {status}"),
                _ => {}
            }
        }
    }

    fn write_prompt(&mut self) {
        while let Some(conn) = self.engine.next_prompt() {
            self.write(conn);
        }
    }

    /// Writes all that waits for a connection.
    fn write(&mut self, conn: ConnId) {
        let Some(outbox) = self.engine.outbox(conn) else { return };
        let bytes = outbox.bytes();
        if outbox.is_client() {
            self.sent += bytes;
            self.writes += 1;
        } else if self.redis == Some(conn) {
            self.commands.clear();
            self.commands.extend_from_slice(outbox.one_frame_from(0).unwrap_or_default());
        }
        self.engine.written(self.now, conn, bytes);
    }

    /// Redis answers the last commands.
    fn answer_redis(&mut self) {
        let commands = String::from_utf8(std::mem::take(&mut self.commands)).expect("all is text");
        let mut words = commands.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
        while let Some(word) = words.next() {
            let answer = match word {
                "PING" => "+PONG\r\n".to_owned(),
                "CLIENT" | "SELECT" => "+OK\r\n".to_owned(),
                "SUBSCRIBE" => confirmation("subscribe", words.next().unwrap_or_default()),
                _ => continue,
            };
            self.receive(self.redis(), answer.as_bytes());
        }
    }
}

/// What Redis says when a channel is subscribed or left.
pub fn confirmation(verb: &str, channel: &str) -> String {
    let (verb_len, channel_len) = (verb.len(), channel.len());
    format!("*3\r\n${verb_len}\r\n{verb}\r\n${channel_len}\r\n{channel}\r\n:1\r\n")
}

/// What Redis says when somebody publishes.
pub fn message(channel: &str, text: &str) -> String {
    let (channel_len, text_len) = (channel.len(), text.len());
    format!("*3\r\n$7\r\nmessage\r\n${channel_len}\r\n{channel}\r\n${text_len}\r\n{text}\r\n")
}
