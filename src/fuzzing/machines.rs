//! The machines that have a connection: bytes of their peers come in, and they answer.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};

use super::{BYTES_MAX, assert_is_response, in_all_cuts};
use crate::arena::ConnId;
use crate::config::{BrokerConfig, Config, Limits, RedisConfig};
use crate::conn::broker::{self, Broker};
use crate::conn::client::{Client, ClientContext, Heard};
use crate::conn::redis::{self, Link};
use crate::conn::scrape::{self, Asked, Scrape};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::ports::{Kind, Output, Ports};
use crate::random::Random;
use crate::time::Now;
use crate::timers::Timers;
use crate::wire::resp::{Parser, Value};
use crate::wire::ws::Contexts;

/// A client that is admitted hears and says the same in all cuts; what it says is one HTTP
/// response, then whole frames, and nothing after a Close.
pub fn client(data: &[u8]) {
    let played = in_all_cuts(data, play_client);
    let sent = played.sent.as_slice();
    let Some(end) = sent.windows(4).position(|window| window == b"\r\n\r\n") else {
        return assert!(sent.is_empty(), "{}", sent.escape_ascii());
    };
    assert_is_response(sent);
    let mut frames = &sent[end + 4..];
    if !sent.starts_with(b"HTTP/1.1 101 ") {
        return assert!(frames.ends_with(b"\n"), "a refusal has a text");
    }
    while let [first, len @ 0..=125, rest @ ..] = frames {
        frames = rest.get(usize::from(*len)..).expect("frames are whole");
        assert!(matches!(first, 0x88 | 0x8a), "a pong or a Close, not 0x{first:x}");
        assert!(*first == 0x8a || frames.is_empty(), "nothing follows a Close");
    }
    assert!(frames.is_empty(), "{}", frames.escape_ascii());
}

/// What a client was heard to say and what was done about it.
#[derive(PartialEq, Debug)]
struct Played {
    heard: Vec<Heard>,
    outputs: Vec<Output>,
    sent: Vec<u8>,
}

/// Admits whoever asks and takes everything that is said, on a socket that takes everything.
fn play_client(pieces: &[&[u8]]) -> Played {
    let config = Config {
        limits: Limits {
            max_message_bytes: BYTES_MAX,
            max_header_bytes: BYTES_MAX,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut ports = Ports::default();
    let conn = ports.open(Kind::Client, config.limits.send_queue_bytes);
    let now = Now::default();
    let mut client = Client::new(now, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), &config);
    let mut log = Log::new(&config.log, 1, false);
    let mut ctx = ClientContext {
        now,
        conn,
        session: None,
        ports: &mut ports,
        log: &mut log,
        metrics: &mut Metrics::default(),
        config: &config,
        contexts: &mut Contexts::default(),
    };
    let (mut heard, mut sent) = (Vec::new(), Vec::new());
    for mut piece in pieces.iter().copied() {
        while let Some(next) = client.next(&mut piece, &mut ctx) {
            if let Heard::Request { .. } = next {
                client.admit(&mut ctx);
            }
            heard.push(next);
        }
        assert!(piece.is_empty(), "all is taken");
        ctx.ports.mail.audit();
        write_out(ctx.ports, conn, &mut sent);
    }
    let outputs = std::iter::from_fn(|| ports.poll()).collect();
    Played { heard, outputs, sent }
}

/// A peer of the broker is answered the same in all cuts, and the router gets the same messages.
/// One that never says a 3 is answered in RESP2.
pub fn broker(data: &[u8]) {
    let is_resp2 = !data.contains(&b'3');
    let (said, _) = in_all_cuts(data, |pieces| play_broker(pieces, is_resp2));
    assert!(said.is_whole, "replies are whole: {}", said.beginning.escape_ascii());
}

/// What was written, and what the router got.
type Conversation = (Said, Vec<(String, Vec<u8>)>);

/// What a peer was told: the beginning, and the length and a checksum of all. Listings, again and
/// again, are far longer than what asks for them.
#[derive(PartialEq, Debug, Default)]
struct Said {
    beginning: Vec<u8>,
    len: usize,
    sum: u64,
    is_whole: bool,
}

impl Said {
    /// More is said; of RESP2, the parser knows where replies end.
    fn add(&mut self, bytes: &[u8], resp2: Option<&mut Parser>) {
        let room = BYTES_MAX.saturating_sub(self.len).min(bytes.len());
        self.beginning.extend_from_slice(&bytes[..room]);
        self.len += bytes.len();
        for &byte in bytes {
            // FNV-1a
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let Some(parser) = resp2 else { return };
        let mut rest = bytes;
        while !rest.is_empty() {
            self.is_whole = parser.next(&mut rest).expect("replies are RESP").is_some();
        }
    }
}

/// One peer, on a socket that takes everything, beside a router that reads `a`.
fn play_broker(pieces: &[&[u8]], is_resp2: bool) -> Conversation {
    let settings = BrokerConfig { password: Some("p".to_owned()), ..BrokerConfig::default() };
    let mut config = Config::default();
    config.redis.max_message_bytes = BYTES_MAX;
    let mut broker = Broker::new(&settings, &config, 1);
    broker.join("a");
    let mut ports = Ports::default();
    let mut ctx = broker::Context {
        now: Now::default(),
        ports: &mut ports,
        timers: &mut Timers::default(),
        log: &mut Log::new(&config.log, 1, false),
        metrics: &mut Metrics::default(),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let conn = broker.accept(address, &mut ctx).expect("there is room for one");
    let mut said = Said { sum: 0xcbf2_9ce4_8422_2325, is_whole: true, ..Said::default() };
    let mut parser = is_resp2.then(|| Parser::new(usize::MAX));
    let mut heard = Vec::new();
    for (index, piece) in pieces.iter().copied().enumerate() {
        // Input that has to wait until replies are taken comes back.
        let mut held = Some(piece.to_vec());
        while let Some(bytes) = held {
            let mut rest = bytes.as_slice();
            while let Some(message) = broker.next(conn, &mut rest, &mut ctx) {
                heard.push((message.channel, message.payload.into_owned()));
            }
            assert!(rest.is_empty(), "all is taken");
            ctx.ports.mail.audit();
            each_written(ctx.ports, conn, |bytes| said.add(bytes, parser.as_mut()));
            held = broker.flushed(conn, &mut ctx);
        }
        // A look at all subscriptions after each byte would be most of the work.
        if index.is_power_of_two() || index + 1 == pieces.len() {
            broker.audit();
        }
    }
    (said, heard)
}

/// A link to Redis hears and says the same in all cuts. It is ready before anything else happens,
/// says nothing after it is lost, and hands out no message that is too large.
pub fn redis(data: &[u8]) {
    let (sent, heard) = in_all_cuts(data, play_redis);
    let mut rest = sent.as_slice();
    let mut parser = Parser::new(usize::MAX);
    while !rest.is_empty() {
        let command = parser.next(&mut rest).expect("commands are RESP");
        let command = command.expect("commands are whole");
        assert!(matches!(Value::read(&command), Some(Value::Array(_))), "a command is an array");
    }
    let mut payloads = 0;
    for (index, event) in heard.iter().enumerate() {
        match event {
            redis::Event::Ready => assert_eq!(index, 0),
            redis::Event::Lost { was_ready, reason } => {
                assert_eq!((*was_ready, index + 1), (index > 0, heard.len()));
                assert!(!reason.contains(PASSWORD) && reason.chars().count() <= 256, "{reason}");
            }
            redis::Event::Message { channel, payload } => {
                assert!(payload.len() <= BYTES_MAX);
                payloads += channel.len() + payload.len();
            }
            redis::Event::Subscribed(channel) => assert!(["a", "b"].contains(&&**channel)),
            redis::Event::SubscribeFailed { channel, error } => {
                assert!(["a", "b"].contains(&&**channel) && !error.contains(PASSWORD), "{error}");
            }
        }
        assert!(index == 0 || heard[0] == redis::Event::Ready, "nothing before the greeting");
    }
    assert!(payloads <= data.len());
}

const PASSWORD: &str = "of-the-link";

/// Bytes of a server to a link that subscribes to `a` and `b`, and changes its mind about `a` at
/// every message: what was written, unless the link was lost, and what happened.
fn play_redis(pieces: &[&[u8]]) -> (Vec<u8>, Vec<redis::Event<'static>>) {
    let settings = RedisConfig {
        host: "127.0.0.1".to_owned(),
        password: Some(PASSWORD.to_owned()),
        channel_prefix: "p:".to_owned(),
        max_message_bytes: BYTES_MAX,
        ..RedisConfig::default()
    };
    let mut link = Link::new(0, settings);
    let mut ports = Ports::default();
    let mut ctx = redis::Context {
        now: Now::default(),
        ports: &mut ports,
        log: &mut Log::new(&Config::default().log, 1, false),
        metrics: &mut Metrics::default(),
        random: &mut Random::seeded(1),
    };
    link.start(&mut ctx);
    let conn = link.conn().expect("an address needs no look-up");
    link.connected(conn, &mut ctx);
    let (mut sent, mut heard, mut wants_a) = (Vec::new(), Vec::new(), true);
    write_out(ctx.ports, conn, &mut sent);
    for mut piece in pieces.iter().copied() {
        if link.conn() != Some(conn) {
            break;
        }
        while let Some(event) = link.next(&mut piece, &mut ctx).map(kept) {
            let mut next = Some(event);
            // Messages on the same channel as the one before may be taken without a look.
            while let Some(event) = next {
                change_mind(&mut link, &event, &mut wants_a, &mut ctx);
                next = match &event {
                    redis::Event::Message { channel, .. } => {
                        let payload = link.next_on(channel, BYTES_MAX / 2, &mut piece);
                        payload.map(|payload| redis::Event::Message {
                            channel: channel.clone(),
                            payload: payload.to_vec().into(),
                        })
                    }
                    _ => None,
                };
                heard.push(event);
            }
        }
        assert!(piece.is_empty(), "all is taken");
        write_out(ctx.ports, conn, &mut sent);
    }
    if link.conn() != Some(conn) {
        // What had not left by then is gone with the connection.
        sent.clear();
    }
    (sent, heard)
}

/// Subscribes to both channels, then to `a` and not by turns.
fn change_mind(
    link: &mut Link,
    event: &redis::Event<'_>,
    wants_a: &mut bool,
    ctx: &mut redis::Context<'_>,
) {
    match event {
        redis::Event::Ready => {
            link.subscribe("a", ctx);
            link.subscribe("b", ctx);
        }
        redis::Event::Message { .. } if *wants_a => {
            link.unsubscribe("a", ctx);
            *wants_a = false;
        }
        redis::Event::Message { .. } => {
            link.subscribe("a", ctx);
            *wants_a = true;
        }
        _ => {}
    }
}

fn kept(event: redis::Event<'_>) -> redis::Event<'static> {
    match event {
        redis::Event::Message { channel, payload } => redis::Event::Message {
            channel: channel.into_owned().into(),
            payload: payload.into_owned().into(),
        },
        redis::Event::Ready => redis::Event::Ready,
        redis::Event::Lost { was_ready, reason } => redis::Event::Lost { was_ready, reason },
        redis::Event::Subscribed(channel) => redis::Event::Subscribed(channel),
        redis::Event::SubscribeFailed { channel, error } => {
            redis::Event::SubscribeFailed { channel, error }
        }
    }
}

/// A peer at the metrics port asks and gets the same in all cuts: at most one answer, one whole
/// response. What it asks for stands in its first line.
pub fn scrape(data: &[u8]) {
    let (asked, sent, outputs) = in_all_cuts(data, play_scrape);
    assert_eq!(sent.is_empty(), outputs.is_empty());
    if let Some(asked) = asked {
        let path = match asked {
            Asked::Metrics => "/metrics",
            Asked::Health => "/healthz",
            Asked::Ready => "/readyz",
        };
        let mut lines = data.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
        let [method, target, _] = line.split(|&byte| byte == b' ').collect::<Vec<_>>()[..] else {
            panic!("{}", line.escape_ascii());
        };
        let target = target.split(|&byte| byte == b'?').next();
        assert_eq!(target, Some(path.as_bytes()));
        assert_eq!(method == b"GET", sent.ends_with(SCRAPED.as_bytes()), "a HEAD gets no body");
    }
    if !sent.is_empty() {
        assert_is_response(&sent);
        assert_eq!(sent.starts_with(b"HTTP/1.1 200 "), asked.is_some());
    }
}

/// What every question is answered with.
const SCRAPED: &str = "metric 1\n";

/// What was asked, what was written and what is done about the connection.
fn play_scrape(pieces: &[&[u8]]) -> (Option<Asked>, Vec<u8>, Vec<Output>) {
    let mut ports = Ports::default();
    let id = ports.open(Kind::Scrape, usize::MAX);
    let now = Now::default();
    let mut scrape = Scrape::new(now);
    let (mut asked, mut sent) = (None, Vec::new());
    for mut piece in pieces.iter().copied() {
        let mut ctx = scrape::Context { now, id, ports: &mut ports };
        if let Some(question) = scrape.next(&mut piece, &mut ctx) {
            assert_eq!(asked.replace(question), None, "asked once");
            scrape.answer(200, "text/plain", SCRAPED, &mut ctx);
        }
        assert!(piece.is_empty(), "all is taken");
        write_out(&mut ports, id, &mut sent);
    }
    (asked, sent, std::iter::from_fn(|| ports.poll()).collect())
}

fn write_out(ports: &mut Ports, conn: ConnId, into: &mut Vec<u8>) {
    each_written(ports, conn, |bytes| into.extend_from_slice(bytes));
}

/// Writes all that waits, piece by piece.
fn each_written(ports: &mut Ports, conn: ConnId, mut write: impl FnMut(&[u8])) {
    while let Some(id) = ports.mail.next_prompt().or_else(|| ports.mail.next_bulk()) {
        assert_eq!(id, conn);
        let mut slices = [IoSlice::new(&[]); 64];
        let Some(outbox) = ports.mail.outbox(conn) else { return };
        let used = outbox.slices_from(0, &mut slices);
        slices[..used].iter().for_each(|slice| write(slice));
        let bytes = slices[..used].iter().map(|slice| slice.len()).sum();
        ports.mail.written(conn, bytes);
    }
}
