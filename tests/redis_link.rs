//! The link against a real redis-server: that Redis speaks as the scripted servers of the unit
//! tests do. A blocking driver stands in for the shell. Without a redis-server in the path there
//! is nothing to compare with, and the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a failure in a helper is the failure of its test")]

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use socketshark::arena::ConnId;
use socketshark::config::{LogConfig, LogStyle, RedisConfig};
use socketshark::conn::redis::{Context, Event, Link};
use socketshark::log::Log;
use socketshark::metrics::Metrics;
use socketshark::ports::{Output, Ports};
use socketshark::random::Random;
use socketshark::time::{Instant, Now};

const PATIENCE: Duration = Duration::from_secs(20);

/// A redis-server of our own on loopback; it ends with the value.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// `None`: there is no redis-server here.
    fn start(options: &[&str]) -> Option<Server> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let spawned = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(options)
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("no redis-server: nothing tested");
                return None;
            }
            Err(error) => panic!("redis-server: {error}"),
        };
        Some(Server { process, port })
    }

    fn config(&self) -> RedisConfig {
        RedisConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            channel_prefix: "p:".into(),
            reconnect_max_delay: Duration::from_millis(100),
            ..RedisConfig::default()
        }
    }

    /// A second connection, as a publisher has it; returns the answer's first line.
    fn tell(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A link and the least that a shell must do for it.
struct Driver {
    link: Link,
    ports: Ports,
    log: Log,
    metrics: Metrics,
    random: Random,
    zero: Clock,
    stream: Option<(ConnId, TcpStream)>,
}

impl Driver {
    fn start(config: RedisConfig) -> Driver {
        let log = LogConfig { style: LogStyle::Json, ..LogConfig::default() };
        let mut driver = Driver {
            link: Link::new(0, config),
            ports: Ports::default(),
            log: Log::new(&log, 1, false),
            metrics: Metrics::default(),
            random: Random::seeded(1),
            zero: Clock::now(),
            stream: None,
        };
        driver.act(Link::start);
        driver
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Link, &mut Context<'_>) -> R) -> R {
        let mono = Instant(self.zero.elapsed().as_micros() as u64);
        let mut ctx = Context {
            now: Now { mono, ..Now::default() },
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            random: &mut self.random,
        };
        act(&mut self.link, &mut ctx)
    }

    /// Runs until an event is what is waited for.
    fn run_until(&mut self, mut is_it: impl FnMut(&Event<'_>) -> bool) {
        let limit = Clock::now() + PATIENCE;
        while Clock::now() < limit {
            let mut bytes = Vec::new();
            self.turn(&mut bytes);
            let mut input = &bytes[..];
            while let Some(event) = self.act(|link, ctx| link.next(&mut input, ctx)) {
                if is_it(&event) {
                    assert!(input.is_empty(), "the server waits for us");
                    return;
                }
            }
        }
        panic!("it never came; the log: {}", self.log.take());
    }

    /// Runs until exactly this event comes next.
    fn expect(&mut self, expected: &Event<'_>) {
        self.run_until(|event| {
            assert_eq!(event, expected);
            true
        });
    }

    /// Runs until both channels are confirmed, in this order, with nothing between.
    fn expect_both(&mut self, channels: [&str; 2]) {
        let mut left = channels.into_iter();
        self.run_until(|event| {
            assert_eq!(event, &subscribed(left.next().unwrap()));
            left.len() == 0
        });
    }

    /// What a shell does in a turn of its loop.
    fn turn(&mut self, received: &mut Vec<u8>) {
        self.act(Link::due);
        while let Some(output) = self.ports.poll() {
            match output {
                Output::Connect { conn, to } => match TcpStream::connect(to) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                        self.stream = Some((conn, stream));
                        self.act(|link, ctx| link.connected(conn, ctx));
                    }
                    Err(error) => self.act(|link, ctx| link.lost(conn, &error.to_string(), ctx)),
                },
                Output::Close(_) => self.stream = None,
                other => panic!("unexpected {other:?}"),
            }
        }
        let Some((conn, stream)) = &mut self.stream else {
            // Nothing to read from until the back-off is over.
            let deadline = Duration::from_micros(self.link.next_deadline().unwrap().0);
            return std::thread::sleep(deadline.saturating_sub(self.zero.elapsed()));
        };
        let conn = *conn;
        if let Some(outbox) = self.ports.mail.outbox(conn) {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = outbox.slices_from(0, &mut slices);
            let written = stream.write_vectored(&slices[..used]).unwrap_or(0);
            self.ports.mail.written(conn, written);
        }
        let mut scratch = [0; 4096];
        match stream.read(&mut scratch) {
            Ok(0) => self.act(|link, ctx| link.ended(conn, ctx)),
            Ok(read) => received.extend_from_slice(&scratch[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => self.act(|link, ctx| link.lost(conn, &error.to_string(), ctx)),
        }
    }

    /// Runs until the link is ready, through the failures before the server listens.
    fn run_until_ready(&mut self) {
        self.run_until(|event| *event == Event::Ready);
    }

    fn subscribe(&mut self, channel: &str) {
        self.act(|link, ctx| link.subscribe(channel, ctx));
    }
}

fn subscribed(channel: &str) -> Event<'static> {
    Event::Subscribed(channel.into())
}

fn message(channel: &str, payload: &[u8]) -> Event<'static> {
    Event::Message { channel: channel.to_owned().into(), payload: payload.to_vec().into() }
}

#[test]
fn subscribing_and_messages() {
    let Some(server) = Server::start(&[]) else { return };
    let mut driver = Driver::start(server.config());
    driver.run_until_ready();
    assert!(server.tell("CLIENT LIST TYPE normal").contains("name=socketshark"));

    driver.subscribe("a");
    driver.subscribe("b");
    driver.expect_both(["a", "b"]);
    assert_eq!(driver.metrics.redis[0].channels, 2);
    assert_eq!(server.tell("PUBLISH p:a one"), ":1");
    driver.expect(&message("a", b"one"));
    assert_eq!(server.tell("PUBLISH a other"), ":0");

    // All commands of a turn cross each other.
    driver.act(|link, ctx| {
        link.unsubscribe("a", ctx);
        link.subscribe("a", ctx);
        link.unsubscribe("b", ctx);
        link.unsubscribe("never", ctx);
        link.subscribe("c", ctx);
    });
    driver.expect_both(["a", "c"]);
    assert_eq!(driver.metrics.redis[0].channels, 2);
    assert_eq!(server.tell("PUBSUB NUMSUB p:b"), "*2\r\n$3\r\np:b\r\n:0");

    let large = "x".repeat(200_000);
    assert_eq!(
        server.tell(&format!("*3\r\n$7\r\nPUBLISH\r\n$3\r\np:c\r\n$200000\r\n{large}")),
        ":1"
    );
    driver.expect(&message("c", large.as_bytes()));
}

#[test]
fn pings_are_answered_before_and_after_subscribing() {
    let Some(server) = Server::start(&[]) else { return };
    let config = RedisConfig { ping_interval: Some(Duration::from_millis(20)), ..server.config() };
    let mut driver = Driver::start(config);
    driver.run_until_ready();
    for channel in [None, Some("a")] {
        if let Some(channel) = channel {
            driver.subscribe(channel);
            driver.expect(&subscribed(channel));
        }
        for _ in 0..3 {
            driver.metrics.redis[0].ping_latency = None;
            while driver.metrics.redis[0].ping_latency.is_none() {
                let mut bytes = Vec::new();
                driver.turn(&mut bytes);
                let events = driver.act(|link, ctx| link.next(&mut &bytes[..], ctx));
                assert_eq!(events, None);
            }
        }
    }
}

#[test]
fn passwords_right_and_wrong() {
    let Some(server) = Server::start(&["--requirepass", "hunter2"]) else { return };
    let right = RedisConfig { password: Some("hunter2".into()), ..server.config() };
    let mut driver = Driver::start(right.clone());
    driver.run_until_ready();
    let by_name = RedisConfig { username: Some("default".into()), ..right.clone() };
    Driver::start(by_name).run_until_ready();

    let wrong = RedisConfig { password: Some("hunter3".into()), ..right.clone() };
    for (config, reason) in [
        (wrong, "AUTH refused: WRONGPASS"),
        (
            RedisConfig { password: None, ..right.clone() },
            "SELECT refused: NOAUTH Authentication required.",
        ),
        (RedisConfig { db: 99, ..right }, "SELECT refused: ERR DB index is out of range"),
    ] {
        let mut driver = Driver::start(config);
        driver.expect(&Event::Lost { was_ready: false, reason: reason.into() });
        assert!(!driver.log.take().contains("hunter"));
    }
}

#[test]
fn a_refused_channel_is_refused_alone() {
    let user = ["--user", "shark", "on", ">pw", "resetchannels", "&p:open.*", "+@all"];
    let Some(server) = Server::start(&user) else { return };
    let config = RedisConfig {
        username: Some("shark".into()),
        password: Some("pw".into()),
        ..server.config()
    };
    let mut driver = Driver::start(config);
    driver.run_until_ready();
    for channel in ["open.1", "secret", "open.2"] {
        driver.subscribe(channel);
    }
    let mut said = Vec::new();
    driver.run_until(|event| {
        said.push(match event {
            Event::Subscribed(channel) => format!("ok {channel}"),
            Event::SubscribeFailed { channel, error } => {
                assert!(error.starts_with("NOPERM"), "{error}");
                format!("no {channel}")
            }
            other => panic!("{other:?}"),
        });
        said.len() == 3
    });
    assert_eq!(said, ["ok open.1", "no secret", "ok open.2"]);
}

#[test]
fn a_killed_connection_comes_back() {
    let Some(server) = Server::start(&[]) else { return };
    let mut driver = Driver::start(server.config());
    driver.run_until_ready();
    driver.subscribe("a");
    driver.expect(&subscribed("a"));
    assert_eq!(server.tell("CLIENT KILL TYPE pubsub"), ":1");
    driver.run_until(|event| matches!(event, Event::Lost { was_ready: true, .. }));
    driver.run_until_ready();
    assert_eq!(driver.metrics.redis[0].reconnects, 1);
    assert_eq!(server.tell("PUBSUB CHANNELS"), "*0");
}
