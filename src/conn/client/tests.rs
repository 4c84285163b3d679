//! A client's side of a connection, played against by hand.

use std::io::IoSlice;
use std::time::Duration;

use super::*;
use crate::config::{AddressBlock, LogConfig, OriginPattern};
use crate::ports::Kind;
use crate::random::Random;
use crate::time::Wall;
use crate::wire::ws::tests::masked;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// One client and all that it is lent.
struct World {
    client: Client,
    conn: ConnId,
    now: Now,
    ports: Ports,
    log: Log,
    metrics: Metrics,
    config: Config,
    contexts: Contexts,
}

impl World {
    fn with(config: Config) -> World {
        let mut ports = Ports::default();
        let conn = ports.open(Kind::Client, config.limits.send_queue_bytes);
        let now = Now { mono: Instant(1_000_000_000), wall: Wall(0) };
        let log = LogConfig {
            level: Some(Level::Debug),
            trace_level: Level::Debug,
            ..LogConfig::default()
        };
        World {
            client: Client::new(now, "[::ffff:10.0.0.1]:4000".parse().unwrap(), &config),
            conn,
            now,
            ports,
            log: Log::new(&log, 1, false),
            metrics: Metrics::default(),
            config,
            contexts: Contexts::default(),
        }
    }

    /// Past the handshake.
    fn open() -> World {
        World::open_with(Config::default())
    }

    fn open_with(config: Config) -> World {
        let mut world = World::with(config);
        assert!(world.feed(REQUEST.as_bytes()).is_empty());
        assert!(world.sent().starts_with(b"HTTP/1.1 101 "));
        world
    }

    fn call<T>(&mut self, act: impl FnOnce(&mut Client, &mut ClientContext<'_>) -> T) -> T {
        let mut ctx = ClientContext {
            now: self.now,
            conn: self.conn,
            session: None,
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            config: &self.config,
            contexts: &mut self.contexts,
        };
        let result = act(&mut self.client, &mut ctx);
        self.ports.mail.audit();
        result
    }

    /// Gives input, admits requests, and says what else was heard.
    fn feed(&mut self, mut input: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(next) = self.call(|client, ctx| client.next(&mut input, ctx)) {
            match next {
                Heard::Request { .. } => self.call(Client::admit),
                next => heard.push(next),
            }
        }
        assert!(input.is_empty(), "all input is used up");
        heard
    }

    /// Moves on to the next deadline.
    fn wait(&mut self) -> (Duration, Option<Heard>) {
        let deadline = self.client.deadline().expect("something is due");
        let waited = deadline.since(self.now.mono);
        self.now.mono = deadline;
        (waited, self.call(Client::due))
    }

    /// Takes what waits to be written.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(outbox) = self.ports.mail.outbox(self.conn) {
            let mut slices = [IoSlice::new(&[]); 64];
            let used = outbox.slices_from(0, &mut slices);
            bytes = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        }
        while self.ports.mail.next_prompt().is_some() {}
        self.ports.mail.written(self.conn, bytes.len());
        bytes
    }

    /// Writes only this much: the socket takes no more.
    fn block(&mut self, bytes: usize) {
        while self.ports.mail.next_prompt().is_some() {}
        self.ports.mail.blocked(self.conn, bytes).unwrap();
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.ports.poll()).collect()
    }

    fn status(&mut self) -> String {
        String::from_utf8(self.sent()).unwrap().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// That the last words are said and the socket is half-closed, but not closed.
    fn assert_lingers(&mut self) {
        assert!(self.ports.mail.outbox(self.conn).unwrap().is_sealed());
        assert_eq!(self.outputs(), [Output::HalfClose(self.conn)]);
        assert!(!self.client.is_over());
    }

    fn assert_closed(&mut self) {
        assert!(self.client.is_over());
        assert_eq!(self.outputs().last(), Some(&Output::Close(self.conn)));
        assert_eq!(self.client.deadline(), None);
    }
}

fn text(heard: &Heard) -> &str {
    match heard {
        Heard::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn binary(heard: &Heard) -> &[u8] {
    match heard {
        Heard::Binary(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn gone(heard: &[Heard]) -> (u16, bool) {
    match heard {
        [.., Heard::Gone(gone)] => (gone.code, gone.by_client),
        other => panic!("{other:?}"),
    }
}

fn code(frame: &[u8]) -> u16 {
    match frame {
        [0x88, 2, high, low] => u16::from_be_bytes([*high, *low]),
        other => panic!("no Close: {other:?}"),
    }
}

#[test]
fn an_idle_client_is_small() {
    assert!(size_of::<Client>() <= 112, "{}", size_of::<Client>());
    assert!(size_of::<Heard>() <= 48, "{}", size_of::<Heard>());
}

#[test]
fn frames_may_follow_the_request_at_once_and_in_any_pieces() {
    let stream = [
        REQUEST.as_bytes(),
        &masked(0x81, b"one"),
        &masked(0x89, b"p"),
        &masked(0x01, b"t"),
        &masked(0x89, b"q"),
        &masked(0x80, b"wo"),
        &masked(0x82, b"\xff"),
        &masked(0x82, b""),
        &masked(0x88, &[0x0f, 0xa0, b'!']),
        &masked(0x81, b"ignored"),
    ]
    .concat();
    let run = |mut piece: Box<dyn FnMut() -> usize>| {
        let mut world = World::with(Config::default());
        let mut left = &stream[..];
        let mut heard = Vec::new();
        while !left.is_empty() {
            let (input, rest) = left.split_at(piece().clamp(1, left.len()));
            left = rest;
            heard.extend(world.feed(input));
        }
        (heard, world.sent(), world.outputs())
    };
    let (heard, sent, outputs) = run(Box::new(|| usize::MAX));
    assert_eq!((text(&heard[0]), text(&heard[1])), ("one", "two"));
    assert_eq!((binary(&heard[2]), binary(&heard[3])), (&b"\xff"[..], &b""[..]));
    assert_eq!(gone(&heard), (4000, true));
    assert_eq!(heard.len(), 5);
    assert!(sent.ends_with(&[b"\r\n\r\n", &b"\x8a\x01p\x8a\x01q\x88\x02\x0f\xa0"[..]].concat()));
    assert_eq!(run(Box::new(|| 1)), (heard.clone(), sent.clone(), outputs.clone()));
    for seed in 0..50 {
        let mut random = Random::seeded(seed);
        let cut = run(Box::new(move || random.number() as usize % 60));
        assert_eq!(cut, (heard.clone(), sent.clone(), outputs.clone()), "{seed}");
    }
}

#[test]
fn a_bad_request_is_answered_once_whatever_follows() {
    let mut world = World::with(Config::default());
    let two = [b"POST / HTTP/1.1\r\n\r\n", REQUEST.as_bytes()].concat();
    assert!(world.feed(&two).is_empty());
    assert!(world.feed(REQUEST.as_bytes()).is_empty());
    world.assert_lingers();
    assert_eq!(world.status(), "405");
    assert_eq!(world.metrics.refused[Refused::Method as usize], 1);
    let line = world.log.take();
    assert!(line.contains("\"handshake refused\"") && line.contains("\"address\":\"10.0.0.1\""));
    assert_eq!(world.call(Client::ended), None);
    world.assert_closed();
}

#[test]
fn at_most_so_much_is_read_after_the_last_words() {
    let mut world = World::with(Config::default());
    world.feed(b"\x16\x03\x01");
    assert_eq!(world.status(), "400");
    for _ in 0..LINGER_BYTES_MAX / 65_536 - 1 {
        world.feed(&[0; 65_536]);
    }
    world.assert_lingers();
    world.feed(&[0; 65_536]);
    world.assert_closed();
}

#[test]
fn the_handshake_timeout_is_not_prolonged() {
    let mut world = World::with(Config::default());
    world.now.mono = world.now.mono.after(Duration::from_secs(9));
    assert!(world.feed(b"GET / HTTP/1.1\r\n").is_empty());
    assert_eq!(world.call(Client::due), None);
    assert_eq!(world.wait().0, Duration::from_secs(1));
    assert_eq!(world.status(), "408");
    world.assert_lingers();
    assert_eq!(world.wait(), (Duration::from_secs(5), None));
    world.assert_closed();
}

#[test]
fn origins_and_addresses_are_checked() {
    let config = Config {
        ws_allowed_origins: Some(vec![OriginPattern("https://a.example".to_owned())]),
        ws_trusted_proxies: vec![AddressBlock {
            network: "10.0.0.0".parse().unwrap(),
            prefix_bits: 8,
        }],
        ..Config::default()
    };
    let request = |headers: &str| REQUEST.replace("Host", &format!("{headers}\r\nHost"));
    let mut world = World::with(config.clone());
    world.feed(request("Origin: https://b.example").as_bytes());
    assert_eq!(world.status(), "403");
    let mut world = World::with(config);
    let request = request("Origin: https://a.example\r\nX-Forwarded-For: 1.2.3.4");
    let heard = world.call(|client, ctx| client.next(&mut request.as_bytes(), ctx));
    assert_eq!(heard, Some(Heard::Request { address: "1.2.3.4".parse().unwrap() }));
    world.call(|client, ctx| client.refuse(Refused::NotReady, ctx));
    let answer = String::from_utf8(world.sent()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "));
    world.assert_lingers();
}

#[test]
fn a_client_over_the_limits_is_refused_before_it_has_said_anything() {
    let mut world = World::with(Config::default());
    world.call(|client, ctx| client.refuse(Refused::TooManyFromAddress, ctx));
    assert_eq!(world.status(), "429");
    world.assert_lingers();
    // At shutdown a handshake under way is refused as well.
    let mut world = World::with(Config::default());
    world.call(|client, ctx| client.close(close_code::GOING_AWAY, ctx));
    assert_eq!(world.status(), "503");
}

#[test]
fn violations_are_told_and_drop_what_follows() {
    let cases = [
        (masked(0xc1, b"x"), 1002),
        (masked(0x81, b"\xff"), 1007),
        (masked(0x81, &[b'x'; 1_048_577])[..14].to_vec(), 1009),
        (masked(0x88, b"x"), 1002),
    ];
    for (frame, expected) in cases {
        let mut world = World::open();
        let stream = [masked(0x81, b"first"), frame, masked(0x81, b"later")].concat();
        let heard = world.feed(&stream);
        assert_eq!(text(&heard[0]), "first");
        assert_eq!((heard.len(), gone(&heard)), (2, (expected, false)));
        assert_eq!(code(&world.sent()), expected);
        world.assert_lingers();
        assert!(world.feed(&masked(0x88, b"")).is_empty(), "told once");
        assert_eq!(world.wait(), (Duration::from_secs(5), None));
        world.assert_closed();
    }
}

#[test]
fn a_close_is_echoed_and_the_client_ends_the_connection() {
    let mut world = World::open();
    let heard = world.feed(&[masked(0x01, b"open"), masked(0x88, b"")].concat());
    assert_eq!(gone(&heard), (NO_STATUS, true));
    assert_eq!(world.sent(), [0x88, 0]);
    world.assert_lingers();
    assert!(world.feed(&masked(0x81, b"later")).is_empty());
    assert_eq!(world.call(Client::ended), None, "told once");
    world.assert_closed();
}

#[test]
fn the_echo_is_written_even_if_fin_comes_with_the_close() {
    let mut world = World::open();
    world.feed(&masked(0x88, &1000u16.to_be_bytes()));
    world.call(Client::ended);
    world.assert_lingers();
    assert_eq!(code(&world.sent()), 1000);
    world.call(Client::flushed);
    world.assert_closed();
}

#[test]
fn our_close_waits_for_the_clients() {
    let mut world = World::open();
    world.call(|client, ctx| client.close(close_code::GOING_AWAY, ctx));
    world.call(|client, ctx| client.close(close_code::SERVICE_RESTART, ctx));
    assert_eq!(code(&world.sent()), 1001);
    world.assert_lingers();
    assert!(world.feed(&masked(0x81, b"crossing")).is_empty());
    assert_eq!(world.outputs(), []);
    assert!(world.feed(&masked(0x88, &1001u16.to_be_bytes())).is_empty());
    world.assert_closed();
}

#[test]
fn a_close_that_crosses_ours_does_not_cut_ours_off() {
    let mut world = World::open();
    world.call(|client, ctx| client.close(close_code::GOING_AWAY, ctx));
    world.feed(&masked(0x88, b""));
    world.assert_lingers();
    assert_eq!(code(&world.sent()), 1001);
    world.call(Client::flushed);
    world.assert_closed();
}

#[test]
fn fin_and_reset_end_the_session() {
    let mut world = World::open();
    let heard = world.call(Client::ended);
    assert_eq!(gone(&[heard.unwrap()]), (ABNORMAL, true));
    world.assert_closed();
    // With something left to write.
    let mut world = World::open();
    world.ports.mail.post(world.conn, &ws::encode_text("{}")).unwrap();
    assert!(world.call(Client::ended).is_some());
    assert!(!world.client.is_over());
    assert_eq!(world.sent(), b"\x81\x02{}");
    world.call(Client::flushed);
    world.assert_closed();
    let mut world = World::open();
    let heard = world.call(Client::lost);
    assert_eq!(gone(&[heard.unwrap()]), (ABNORMAL, true));
    world.assert_closed();
    // Before the session there is nothing to tell.
    let mut world = World::with(Config::default());
    world.feed(b"GET /");
    assert_eq!(world.call(Client::ended), None);
    world.assert_closed();
}

#[test]
fn back_pressure_keeps_the_rest_and_loses_nothing() {
    let mut world = World::open();
    let stream: Vec<u8> = (0..5).flat_map(|n| masked(0x81, format!("m{n}").as_bytes())).collect();
    let mut input = &stream[..];
    let first = world.call(|client, ctx| client.next(&mut input, ctx)).unwrap();
    assert_eq!(text(&first), "m0");
    world.call(|client, ctx| client.pause(input, ctx));
    assert!(!world.client.wants_read());
    assert_eq!(world.client.deadline(), None, "the ping clock stands still");
    assert!(world.feed(&masked(0x81, b"m5")).is_empty());
    assert_eq!(world.call(Client::ended), None, "events received before still count");
    world.call(Client::resume);
    assert_eq!(world.outputs(), [Output::Resume(world.conn)]);
    let second = world.call(|client, ctx| client.next(&mut &b""[..], ctx)).unwrap();
    assert_eq!(text(&second), "m1");
    world.call(|client, ctx| client.pause(b"", ctx));
    assert!(world.feed(b"").is_empty());
    world.call(Client::resume);
    let heard = world.feed(b"");
    let texts: Vec<_> = heard[..4].iter().map(text).collect();
    assert_eq!(texts, ["m2", "m3", "m4", "m5"]);
    assert_eq!(gone(&heard), (ABNORMAL, true));
    world.assert_closed();
}

#[test]
fn a_paused_client_can_be_closed() {
    let mut world = World::open();
    world.call(|client, ctx| client.pause(&masked(0x88, b""), ctx));
    world.call(|client, ctx| client.close(close_code::GOING_AWAY, ctx));
    assert!(world.client.wants_read());
    assert_eq!(world.outputs(), [Output::HalfClose(world.conn), Output::Resume(world.conn)]);
    assert_eq!(code(&world.sent()), 1001);
    world.call(Client::ended);
    world.assert_closed();
    // The same after the client's FIN.
    let mut world = World::open();
    world.call(|client, ctx| client.pause(b"", ctx));
    assert_eq!(world.call(Client::ended), None);
    world.call(|client, ctx| client.close(close_code::GOING_AWAY, ctx));
    assert_eq!(code(&world.sent()), 1001);
    world.call(Client::flushed);
    world.assert_closed();
}

#[test]
fn pings_need_their_own_pong() {
    let mut world = World::open();
    for _ in 0..3 {
        assert_eq!(world.wait(), (Duration::from_secs(15), None));
        let ping = world.sent();
        assert_eq!(ping[..2], [0x89, 4]);
        world.feed(&masked(0x8a, b"other"));
        world.feed(&masked(0x81, b"traffic"));
        world.feed(&masked(0x8a, &ping[2..]));
    }
    let trace = world.log.take();
    assert!(trace.contains("\"event\":\"pong\"") && trace.contains("\"latency\":0.000"));
    assert_eq!(world.wait().1, None);
    world.sent();
    let (waited, heard) = world.wait();
    assert_eq!(waited, Duration::from_secs(15));
    assert_eq!(gone(&[heard.unwrap()]), (1011, false));
    assert_eq!(code(&world.sent()), 1011);
    assert!(world.log.take().contains("\"ping timeout\",\"level\":\"warning\""));
    world.assert_lingers();
    assert_eq!(world.wait(), (Duration::from_secs(5), None));
    world.assert_closed();
}

#[test]
fn a_flood_of_pings_is_one_frame_per_read_and_obeys_the_send_queue() {
    let mut config = Config::default();
    config.limits.send_queue_bytes = 1_000;
    let mut world = World::open_with(config);
    let flood = masked(0x89, b"").repeat(600);
    assert!(world.feed(&flood).is_empty());
    assert_eq!(world.ports.mail.outbox(world.conn).unwrap().bytes(), 1_200);
    world.block(10);
    let heard = world.feed(&flood);
    assert_eq!(gone(&heard), (1013, false));
    assert_eq!(world.metrics.slow_consumers, 1);
    // The frame that was begun is finished, then comes the Close.
    let sent = world.sent();
    assert_eq!(sent.len(), 1_190 + 4);
    assert_eq!(code(&sent[1_190..]), 1013);
    world.assert_lingers();
}

#[test]
fn a_slow_consumer_loses_what_waits_and_hears_why() {
    let mut world = World::open();
    for _ in 0..10 {
        world.ports.mail.post(world.conn, &ws::encode_text("{\"event\":1}")).unwrap();
    }
    world.block(0);
    world.call(|client, ctx| client.close(close_code::TRY_AGAIN_LATER, ctx));
    assert_eq!(code(&world.sent()), 1013);
    assert_eq!(world.metrics.slow_consumers, 1);
    world.assert_lingers();
}

#[test]
fn a_turn_takes_little_but_of_a_long_frame() {
    let mut world = World::open();
    assert_eq!(world.client.appetite(), CLIENT_READ_BYTES_PER_TURN);
    let frame = masked(0x81, &[b' '; 500_000]);
    let (first, last) = frame.split_at(frame.len() - 60_000);
    world.feed(&first[..7]);
    assert_eq!(world.client.appetite(), CLIENT_READ_BYTES_PER_TURN);
    world.feed(&first[7..100]);
    assert_eq!(world.client.appetite(), READ_BYTES_PER_TURN);
    world.feed(&first[100..]);
    assert_eq!(world.client.appetite(), last.len(), "the frame, and nothing behind it");
    assert_eq!(world.feed(last).len(), 1);
    assert_eq!(world.client.appetite(), CLIENT_READ_BYTES_PER_TURN);
}

#[test]
fn a_client_that_has_gone_while_it_was_paused_is_given_up_after_a_while() {
    let mut world = World::open();
    world.call(|client, ctx| client.pause(b"", ctx));
    world.call(|client, ctx| client.leaving(ctx.now, ctx.config));
    let by = world.now.mono.after(world.config.limits.handshake_timeout);
    assert_eq!(world.client.deadline(), Some(by));
    // A second sign of it, a reset behind the FIN, prolongs nothing.
    world.now.mono = world.now.mono.after(Duration::from_secs(1));
    world.call(|client, ctx| client.leaving(ctx.now, ctx.config));
    assert_eq!(world.client.deadline(), Some(by));
    assert_eq!(world.call(Client::due), None);
    world.now.mono = by;
    let gone = Gone { code: ABNORMAL, by_client: true, reason: "connection ended" };
    assert_eq!(world.call(Client::due), Some(Heard::Gone(gone)));
    assert!(world.client.is_over());
}
