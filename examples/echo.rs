//! A WebSocket echo server on the router's loop and connections, with another core in place of
//! its engine: every message comes back as it came, text as text and binary as binary. It is what
//! the Autobahn test suite talks to (`tests/autobahn/run`), and shows the least that a core needs.
//!
//!     cargo run --release --example echo -- 9001
//!
//! Port 0 picks one. The port that is open is told on standard output.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use socketshark::arena::{ConnId, ConnTag, Table};
use socketshark::config::{Config, Limits, LogConfig, WsPing};
use socketshark::conn::client::{Client, ClientContext, Heard};
use socketshark::log::Log;
use socketshark::message::close_code;
use socketshark::metrics::Metrics;
use socketshark::outbox::{Outbox, TooSlow};
use socketshark::ports::{Core, Door, Input, Kind, Output, Ports};
use socketshark::shell::{self, Beside};
use socketshark::time::{Instant, Now, soonest};
use socketshark::wire::ws::{self, Contexts};

/// The longest message that comes back; a longer one is answered with a Close, 1009.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What may wait for a client that sends without reading; past it, it is closed with 1013.
const SEND_QUEUE_BYTES: usize = 32 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(Ok(port)), None) = (arguments.next().map(|port| port.parse()), arguments.next())
    else {
        eprintln!("usage: echo PORT");
        return ExitCode::from(2);
    };
    let config = Rc::new(config(port));
    match shell::drive(Echo::new(config.clone()), config, Beside::default()) {
        Ok(status) => ExitCode::from(status as u8),
        Err(problem) => {
            eprintln!("echo: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn config(port: u16) -> Config {
    let defaults = Config::default();
    Config {
        ws_port: port,
        ws_ping: WsPing { interval: None, ..defaults.ws_ping },
        log: LogConfig { level: None, ..defaults.log },
        limits: Limits {
            max_message_bytes: MESSAGE_BYTES_MAX,
            send_queue_bytes: SEND_QUEUE_BYTES,
            ..defaults.limits
        },
        ..defaults
    }
}

/// The clients, and what is lent to them.
struct Echo {
    clients: Table<ConnTag, Client>,
    lent: Lent,
}

struct Lent {
    config: Rc<Config>,
    ports: Ports,
    log: Log,
    metrics: Metrics,
    contexts: Contexts,
}

impl Lent {
    fn to(&mut self, conn: ConnId, now: Now) -> ClientContext<'_> {
        ClientContext {
            now,
            conn,
            session: None,
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            config: &self.config,
            contexts: &mut self.contexts,
        }
    }
}

impl Echo {
    fn new(config: Rc<Config>) -> Echo {
        let lent = Lent {
            log: Log::new(&config.log, std::process::id(), false),
            config,
            ports: Ports::default(),
            metrics: Metrics::default(),
            contexts: Contexts::default(),
        };
        Echo { clients: Table::default(), lent }
    }

    /// Lets something be done with a client, and forgets it when that was the last.
    fn with(&mut self, now: Now, conn: ConnId, act: impl FnOnce(&mut Client, ClientContext<'_>)) {
        let Some(client) = self.clients.get_mut(conn) else { return };
        act(client, self.lent.to(conn, now));
        if client.is_over() {
            self.clients.remove(conn);
        }
    }

    /// A connection may wait for nothing but its last words to be written.
    fn flushed(&mut self, now: Now, conn: ConnId) {
        if self.outbox(conn).is_some_and(Outbox::is_empty) {
            self.with(now, conn, |client, mut context| client.flushed(&mut context));
        }
    }
}

/// Sends back every message in `bytes`.
fn hear(client: &mut Client, mut bytes: &[u8], mut context: ClientContext<'_>) {
    while let Some(heard) = client.next(&mut bytes, &mut context) {
        let frame = match heard {
            Heard::Text(text) => ws::encode_text(&text),
            Heard::Binary(bytes) => ws::encode_binary(&bytes),
            Heard::Request { .. } => {
                client.admit(&mut context);
                continue;
            }
            Heard::Gone(_) => continue,
        };
        if context.ports.mail.post_prompt(context.conn, frame).is_err() {
            client.close(close_code::TRY_AGAIN_LATER, &mut context);
        }
    }
}

impl Core for Echo {
    fn start(&mut self, _: Now) {
        self.lent.ports.ask(Output::Listen);
    }

    fn accept(&mut self, now: Now, _: Door, peer: SocketAddr) -> Option<ConnId> {
        let conn = self.lent.ports.open(Kind::Client, self.lent.config.limits.send_queue_bytes);
        self.clients.insert(conn, Client::new(now, peer, &self.lent.config));
        Some(conn)
    }

    fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Listening(address) => {
                self.lent.metrics.ready = true;
                println!("ws://{address}");
            }
            Input::Received(conn, bytes) => {
                self.with(now, conn, |client, context| hear(client, bytes, context));
            }
            // Only a paused client would have to be told; none is.
            Input::Leaving(_) => {}
            Input::Ended(conn) => self.with(now, conn, |client, mut context| {
                client.ended(&mut context);
            }),
            Input::Lost(conn, _) => self.with(now, conn, |client, mut context| {
                client.lost(&mut context);
            }),
            // All are looked at: an example may.
            Input::Tick => {
                for conn in self.clients.ids() {
                    self.with(now, conn, |client, mut context| {
                        client.due(&mut context);
                    });
                }
            }
            Input::Stop => self.lent.ports.ask(Output::Exit(0)),
            // None of these was asked for.
            Input::Connected(_) | Input::Shortage | Input::Resolved(..) | Input::Reload(_) => {}
        }
    }

    fn written(&mut self, now: Now, conn: ConnId, bytes: usize) {
        self.lent.ports.mail.written(conn, bytes);
        self.flushed(now, conn);
    }

    fn blocked(&mut self, now: Now, conn: ConnId, bytes: usize) {
        if self.lent.ports.mail.blocked(conn, bytes) == Err(TooSlow) {
            self.with(now, conn, |client, mut context| {
                client.close(close_code::TRY_AGAIN_LATER, &mut context);
            });
        }
        self.flushed(now, conn);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.clients.iter().map(|(_, client)| client.deadline()).fold(None, soonest)
    }

    fn wants_read(&self, conn: ConnId) -> bool {
        self.clients.get(conn).is_some_and(Client::wants_read)
    }

    fn appetite(&self, conn: ConnId) -> usize {
        self.clients.get(conn).map_or(0, Client::appetite)
    }

    fn ports(&self) -> &Ports {
        &self.lent.ports
    }

    fn ports_mut(&mut self) -> &mut Ports {
        &mut self.lent.ports
    }

    fn log(&mut self) -> &mut Log {
        &mut self.lent.log
    }

    fn metrics(&mut self) -> &mut Metrics {
        &mut self.lent.metrics
    }
}
