//! A link against a scripted server, in virtual time.

use std::io::IoSlice;

use super::*;
use crate::config::{LogConfig, LogStyle};

const GREETED: &[u8] = b"+OK\r\n+OK\r\n+PONG\r\n";

/// A link with all that it may touch.
struct Bench {
    link: Link,
    now: Now,
    ports: Ports,
    log: Log,
    metrics: Metrics,
    random: Random,
}

impl Bench {
    fn new(config: RedisConfig) -> Bench {
        let log_config =
            LogConfig { style: LogStyle::Json, level: Some(Level::Debug), ..LogConfig::default() };
        Bench {
            link: Link::new(0, config),
            now: Now::default(),
            ports: Ports::default(),
            log: Log::new(&log_config, 1, false),
            metrics: Metrics::default(),
            random: Random::seeded(1),
        }
    }

    /// A link that has just become ready.
    fn ready(config: RedisConfig) -> Bench {
        let mut bench = Bench::new(config);
        bench.act(Link::start);
        bench.greet();
        bench
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Link, &mut Context<'_>) -> R) -> R {
        let mut ctx = Context {
            now: self.now,
            ports: &mut self.ports,
            log: &mut self.log,
            metrics: &mut self.metrics,
            random: &mut self.random,
        };
        act(&mut self.link, &mut ctx)
    }

    fn receive<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<Event<'a>> {
        let events = self
            .act(|link, ctx| std::iter::from_fn(|| link.next(&mut bytes, ctx)).collect::<Vec<_>>());
        assert!(bytes.is_empty(), "no byte is left behind");
        events
    }

    fn events(&mut self) -> Vec<Event<'static>> {
        self.receive(b"")
    }

    fn connect(&mut self) -> ConnId {
        let conn = self.link.conn().unwrap();
        self.act(|link, ctx| link.connected(conn, ctx));
        conn
    }

    fn greet(&mut self) {
        self.connect();
        self.sent();
        assert_eq!(self.receive(GREETED), [Event::Ready]);
        self.outputs();
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.ports.poll()).collect()
    }

    /// What the link has written since the last time, words by command.
    fn sent(&mut self) -> String {
        let Some(conn) = self.link.conn() else { return String::new() };
        let mut slices = [IoSlice::new(&[]); 256];
        let used = self.ports.mail.outbox(conn).unwrap().slices_from(0, &mut slices);
        let bytes: Vec<u8> =
            slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
        self.ports.mail.written(conn, bytes.len());
        let lines = std::str::from_utf8(&bytes).unwrap().split_terminator("\r\n");
        let mut text = String::new();
        for line in lines.filter(|line| !line.starts_with('$')) {
            let mark = if line.starts_with('*') { "; " } else { " " };
            let word = if line.starts_with('*') { "" } else { line };
            text = if text.is_empty() { word.into() } else { format!("{text}{mark}{word}") };
        }
        text.replace(";  ", "; ").trim().into()
    }

    /// Lets time pass, to the deadline and not a microsecond further.
    fn wait(&mut self) -> Duration {
        let deadline = self.link.next_deadline().unwrap();
        let passed = deadline.since(self.now.mono);
        if passed > Duration::ZERO {
            self.now.mono = Instant(deadline.0 - 1);
            self.act(Link::due);
            assert_eq!(self.link.next_deadline(), Some(deadline), "nothing happens too early");
        }
        self.now.mono = deadline;
        self.act(Link::due);
        passed
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.after(time);
    }

    fn logged(&mut self) -> String {
        self.log.take()
    }
}

fn literal() -> RedisConfig {
    RedisConfig { host: "127.0.0.1".into(), ..RedisConfig::default() }
}

fn named() -> RedisConfig {
    RedisConfig { host: "redis.test".into(), ..RedisConfig::default() }
}

fn with_password() -> RedisConfig {
    RedisConfig { password: Some("hunter2".into()), ..literal() }
}

fn with_prefix() -> RedisConfig {
    RedisConfig { channel_prefix: "p:".into(), ..literal() }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn lost(was_ready: bool, reason: &str) -> Vec<Event<'static>> {
    vec![Event::Lost { was_ready, reason: reason.into() }]
}

fn subscribed(channel: &str) -> Event<'static> {
    Event::Subscribed(channel.into())
}

fn message(channel: &str, payload: &[u8]) -> Event<'static> {
    Event::Message { channel: channel.to_owned().into(), payload: payload.to_vec().into() }
}

fn confirmation(kind: &str, channel: &str, count: i64) -> Vec<u8> {
    format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{channel}\r\n:{count}\r\n", kind.len(), channel.len())
        .into_bytes()
}

fn publication(channel: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::wire::resp::push_command(&mut bytes, &[b"message", channel, payload]);
    bytes
}

#[test]
fn the_greeting_goes_out_at_once_and_its_last_answer_makes_the_link_ready() {
    let mut bench = Bench::new(RedisConfig { db: 3, ..literal() });
    bench.act(Link::start);
    let conn = bench.link.conn().unwrap();
    let to = "127.0.0.1:6379".parse().unwrap();
    assert_eq!(bench.outputs(), [Output::Connect { conn, to }]);
    bench.connect();
    assert_eq!(bench.sent(), "CLIENT SETNAME socketshark; SELECT 3; PING");
    assert_eq!(bench.receive(b"-ERR unknown command\r\n"), [], "a name is not needed");
    assert_eq!(bench.receive(b"+OK\r\n"), []);
    assert!(!bench.link.is_ready() && !bench.metrics.redis[0].connected);
    assert_eq!(bench.receive(b"+PONG\r\n"), [Event::Ready]);
    assert!(bench.link.is_ready() && bench.metrics.redis[0].connected);
    assert_eq!(bench.metrics.redis[0].reconnects, 0);
    let log = bench.logged();
    assert!(log.contains("\"event\":\"redis connected\""));
    assert!(log.contains("\"host\":\"127.0.0.1\"") && log.contains("\"port\":6379"));
}

#[test]
fn auth_is_sent_where_there_is_a_password() {
    let mut bench = Bench::new(with_password());
    bench.act(Link::start);
    bench.connect();
    assert_eq!(bench.sent(), "AUTH hunter2; CLIENT SETNAME socketshark; SELECT 0; PING");
    assert_eq!(bench.receive(b"+OK\r\n+OK\r\n+OK\r\n+PONG\r\n"), [Event::Ready]);

    let config = RedisConfig { username: Some("shark".into()), ..with_password() };
    let mut bench = Bench::new(config);
    bench.act(Link::start);
    bench.connect();
    assert!(bench.sent().starts_with("AUTH shark hunter2; "));
}

#[test]
fn a_refused_greeting_ends_the_attempt_and_no_log_holds_the_password() {
    let replies: [(&[u8], &str); 7] = [
        (b"-WRONGPASS invalid username-password pair\r\n", "AUTH refused: WRONGPASS"),
        (
            b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n",
            "AUTH refused: ERR",
        ),
        (b"-hunter2 is wrong\r\n", "AUTH refused: unknown error"),
        (
            b"+OK\r\n+OK\r\n-ERR DB index hunter2 is out of range\r\n",
            "SELECT refused: ERR DB index [redacted] is out of range",
        ),
        (
            b"+OK\r\n-ERR\r\n+OK\r\n-LOADING Redis is loading\r\n",
            "PING refused: LOADING Redis is loading",
        ),
        (b"+hunter2\r\n", "protocol error: reply to another command"),
        (b"HTTP/1.1 400 Bad Request\r\n", "protocol error: unknown RESP2 type byte 0x48"),
    ];
    for (reply, reason) in replies {
        let mut bench = Bench::new(with_password());
        bench.act(Link::start);
        bench.connect();
        assert_eq!(bench.receive(reply), lost(false, reason));
        assert_eq!(bench.link.conn(), None);
        assert!(bench.ports.is_empty());
        let log = bench.logged();
        assert!(log.contains("\"event\":\"redis connection failed\""), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn names_are_resolved_and_other_peoples_answers_ignored() {
    let mut bench = Bench::new(named());
    bench.act(Link::start);
    assert_eq!(bench.outputs(), [Output::Resolve("redis.test".into())]);
    bench.act(|link, ctx| link.resolved("service.test", &Ok(vec![address(9)]), ctx));
    assert_eq!(bench.outputs(), []);
    bench.act(|link, ctx| link.resolved("redis.test", &Ok(vec![address(1)]), ctx));
    let conn = bench.link.conn().unwrap();
    assert_eq!(bench.outputs(), [Output::Connect { conn, to: (address(1), 6379).into() }]);
    bench.act(|link, ctx| link.resolved("redis.test", &Ok(vec![address(2)]), ctx));
    assert_eq!(bench.outputs(), [], "the question is answered");

    let answers = [Ok(Vec::new()), Err("no such host".to_owned())];
    let reasons = ["the name has no address", "name look-up failed: no such host"];
    for (answer, reason) in answers.iter().zip(reasons) {
        let mut bench = Bench::new(named());
        bench.act(Link::start);
        bench.act(|link, ctx| link.resolved("redis.test", answer, ctx));
        assert_eq!(bench.events(), lost(false, reason));
    }
    let mut bench = Bench::new(named());
    bench.act(Link::start);
    assert_eq!(bench.wait(), Duration::from_secs(5));
    assert_eq!(bench.events(), lost(false, "name look-up timed out"));
}

#[test]
fn every_address_is_tried_within_the_one_timeout() {
    let mut bench = Bench::new(named());
    bench.act(Link::start);
    bench.outputs();
    bench.pass(Duration::from_secs(1));
    let found = Ok((1..=4).map(address).collect());
    bench.act(|link, ctx| link.resolved("redis.test", &found, ctx));
    // The first is silent for its quarter of the 4 s left, the second refuses, the third breaks
    // off in the greeting, the fourth has all the rest and is slow.
    let first = bench.link.conn().unwrap();
    assert_eq!(bench.wait(), Duration::from_secs(1));
    let second = bench.link.conn().unwrap();
    let third_to = Output::Connect { conn: second, to: (address(2), 6379).into() };
    assert!(bench.outputs().contains(&third_to));
    bench.act(|link, ctx| link.lost(first, "stale", ctx));
    assert_eq!(bench.link.conn(), Some(second));
    bench.act(|link, ctx| link.lost(second, "refused", ctx));
    let third = bench.connect();
    bench.receive(b"+OK\r\n");
    bench.act(|link, ctx| link.ended(third, ctx));
    assert_eq!(bench.events(), []);
    bench.connect();
    assert!(bench.sent().starts_with("CLIENT"), "each gets the whole greeting");
    assert_eq!(bench.wait(), Duration::from_secs(3));
    assert_eq!(bench.events(), lost(false, "no answer to the greeting"));
    assert_eq!(bench.now.mono, Instant(5_000_000));
    assert!(bench.ports.is_empty());
    assert_eq!(bench.logged().lines().count(), 4);
}

#[test]
fn a_refusal_is_final_for_all_addresses() {
    let mut bench = Bench::new(RedisConfig { host: "redis.test".into(), ..with_password() });
    bench.act(Link::start);
    let found = Ok(vec![address(1), address(2)]);
    bench.act(|link, ctx| link.resolved("redis.test", &found, ctx));
    bench.connect();
    assert_eq!(bench.receive(b"-WRONGPASS\r\n+OK\r\n"), lost(false, "AUTH refused: WRONGPASS"));
    assert_eq!(bench.link.conn(), None);
}

#[test]
fn back_off_grows_to_its_bound_and_starts_anew_after_a_good_connection() {
    let mut longest = [Duration::ZERO; 10];
    for seed in 0..200 {
        let mut bench = Bench::new(literal());
        bench.random = Random::seeded(seed);
        bench.act(Link::start);
        for (failures, longest) in longest.iter_mut().enumerate() {
            let conn = bench.link.conn().unwrap();
            bench.act(|link, ctx| link.lost(conn, "refused", ctx));
            assert_eq!(bench.events(), lost(false, "refused"));
            let waited = bench.wait();
            assert!(waited >= ATTEMPT_SPACING, "twenty attempts a second");
            let most = BACKOFF_START * (1 << failures);
            assert!(waited <= most.min(Duration::from_secs(5)));
            *longest = waited.max(*longest);
        }
        bench.greet();
        let conn = bench.link.conn().unwrap();
        // Lost after a long time: nothing is left of the spacing.
        bench.pass(Duration::from_secs(1));
        bench.act(|link, ctx| link.lost(conn, "reset", ctx));
        assert_eq!(bench.events(), lost(true, "reset"));
        assert!(bench.wait() <= BACKOFF_START);
        bench.greet();
        let conn = bench.link.conn().unwrap();
        bench.act(|link, ctx| link.lost(conn, "reset", ctx));
        bench.events();
        assert!(bench.wait() <= BACKOFF_START, "the flapping link");
    }
    assert!(longest[9] > Duration::from_millis(4_500));

    let mut bench =
        Bench::new(RedisConfig { reconnect_max_delay: Duration::from_millis(1), ..literal() });
    bench.act(Link::start);
    for _ in 0..20 {
        let conn = bench.link.conn().unwrap();
        bench.act(|link, ctx| link.lost(conn, "refused", ctx));
        bench.wait();
    }
    assert!(bench.now.mono >= Instant(1_000_000));
}

#[test]
fn pings_go_out_every_interval_and_need_their_answer() {
    let mut bench = Bench::ready(literal());
    assert_eq!(bench.wait(), Duration::from_secs(10));
    assert_eq!(bench.sent(), "PING");
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.receive(b"+PONG\r\n"), []);
    assert_eq!(bench.metrics.redis[0].ping_latency, Some(Duration::from_millis(200)));
    assert_eq!(bench.wait(), Duration::from_millis(9_800));
    assert_eq!(bench.receive(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"), [], "as a subscriber's");
    assert_eq!(bench.wait(), Duration::from_secs(10));
    bench.act(|link, ctx| link.subscribe("a", ctx));
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.receive(&publication(b"a", b"1")), [message("a", b"1")]);
    assert_eq!(bench.wait(), Duration::from_secs(1), "other traffic does not count");
    assert_eq!(bench.events(), lost(true, "ping timed out"));
    assert!(!bench.metrics.redis[0].connected);
    assert!(bench.logged().contains("\"event\":\"redis connection lost\""));

    let mut bench = Bench::ready(RedisConfig { ping_interval: None, ..literal() });
    assert_eq!(bench.link.next_deadline(), None);
    assert_eq!(bench.sent(), "");
    assert_eq!(bench.receive(b"+PONG\r\n").len(), 1, "unasked");
}

#[test]
fn channels_are_subscribed_one_by_one_under_the_prefix() {
    let mut bench = Bench::ready(with_prefix());
    bench.act(|link, ctx| {
        link.subscribe("a", ctx);
        link.subscribe("b", ctx);
        link.unsubscribe("c", ctx);
    });
    assert_eq!(bench.sent(), "SUBSCRIBE p:a; SUBSCRIBE p:b; UNSUBSCRIBE p:c");
    let replies = [
        confirmation("subscribe", "p:a", 1),
        publication(b"p:a", b"{}"),
        b"-NOPERM no permissions\r\n".to_vec(),
        publication(b"p:a", b"{1}"),
        confirmation("unsubscribe", "p:c", 1),
    ]
    .concat();
    let error = "NOPERM no permissions".to_owned();
    assert_eq!(
        bench.receive(&replies),
        [
            subscribed("a"),
            message("a", b"{}"),
            Event::SubscribeFailed { channel: "b".into(), error },
            message("a", b"{1}"),
        ]
    );
    assert_eq!(bench.metrics.redis[0].channels, 1);
    assert!(bench.logged().contains("\"event\":\"redis command refused\""));

    bench.act(|link, ctx| link.unsubscribe("a", ctx));
    assert_eq!(bench.receive(b"-NOPERM no permissions\r\n"), [], "nobody waits for it");
    assert!(bench.link.is_ready());
}

#[test]
fn crossing_commands_are_answered_by_the_last_one() {
    let mut bench = Bench::ready(literal());
    bench.act(|link, ctx| {
        link.subscribe("a", ctx);
        link.unsubscribe("a", ctx);
        link.subscribe("a", ctx);
        link.subscribe("b", ctx);
        link.unsubscribe("b", ctx);
    });
    assert_eq!(bench.receive(&confirmation("subscribe", "a", 1)), [], "to be undone");
    assert_eq!(bench.receive(&confirmation("unsubscribe", "a", 0)), []);
    assert_eq!(bench.receive(&confirmation("subscribe", "a", 1)), [subscribed("a")]);
    assert_eq!(bench.receive(b"-NOPERM\r\n"), [], "nobody wants b any more");
    assert_eq!(bench.receive(&confirmation("unsubscribe", "b", 1)), []);

    bench.act(|link, ctx| {
        link.unsubscribe("a", ctx);
        link.subscribe("a", ctx);
    });
    assert_eq!(bench.receive(&confirmation("unsubscribe", "a", 0)), []);
    let failed = Event::SubscribeFailed { channel: "a".into(), error: "NOPERM".into() };
    assert_eq!(bench.receive(b"-NOPERM\r\n"), [failed]);
}

#[test]
fn a_reply_that_is_out_of_step_ends_the_link() {
    let replies = [
        confirmation("subscribe", "p:b", 1),
        confirmation("subscribe", "a", 1),
        confirmation("unsubscribe", "p:a", 1),
        confirmation("subscribe", "p:a", -1),
        confirmation("psubscribe", "p:a", 1),
        b"+OK\r\n".to_vec(),
        b":1\r\n".to_vec(),
        b"$-1\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
        b"*3\r\n$9\r\nsubscribe\r\n*1\r\n$3\r\np:a\r\n:1\r\n".to_vec(),
        [confirmation("subscribe", "p:a", 1), b"+PONG\r\n".to_vec()].concat(),
        [confirmation("subscribe", "p:a", 1), confirmation("subscribe", "p:a", 1)].concat(),
        b">3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$1\r\nx\r\n".to_vec(),
        b"_\r\n".to_vec(),
    ];
    for reply in replies {
        let mut bench = Bench::ready(with_prefix());
        bench.act(|link, ctx| link.subscribe("a", ctx));
        // What follows on a connection that is given up does not count.
        let input = [&reply[..], &publication(b"p:a", b"late")].concat();
        let events = bench.receive(&input);
        let Some(Event::Lost { was_ready: true, reason }) = events.last() else {
            panic!("{} gives {events:?}", reply.escape_ascii())
        };
        assert!(reason.starts_with("protocol error: "), "{reason}");
        assert!(bench.ports.is_empty());
    }
}

#[test]
fn messages_that_are_none_of_ours_end_nothing() {
    let mut bench = Bench::ready(with_prefix());
    let odd = [
        publication(b"other", b"{}"),
        publication(b"p:\xff", b"{}"),
        publication(b"", b""),
        b"*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n:5\r\n".to_vec(),
        b"*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$-1\r\n".to_vec(),
        b"*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n*2\r\n:1\r\n*1\r\n:2\r\n".to_vec(),
        b"*2\r\n$7\r\nmessage\r\n$3\r\np:a\r\n".to_vec(),
        b"*1\r\n$7\r\nmessage\r\n".to_vec(),
        b"*4\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$1\r\nx\r\n$1\r\ny\r\n".to_vec(),
    ];
    for bytes in odd {
        assert_eq!(bench.receive(&bytes), [], "{}", bytes.escape_ascii());
    }
    let payload = b"\xff\r\n*3\r\n\0";
    assert_eq!(bench.receive(&publication(b"p:a", payload)), [message("a", payload)]);

    let mut bench = Bench::new(literal());
    bench.act(Link::start);
    bench.connect();
    let early = [&publication(b"a", b"1")[..], GREETED].concat();
    assert_eq!(bench.receive(&early), [Event::Ready], "nothing is subscribed yet");
}

#[test]
fn messages_are_borrowed_where_they_came_whole() {
    let mut bench = Bench::ready(with_prefix());
    let bytes = publication(b"p:a", b"payload");
    let events = bench.receive(&bytes);
    let [Event::Message { channel: Cow::Borrowed("a"), payload: Cow::Borrowed(b"payload") }] =
        events[..]
    else {
        panic!("{events:?}")
    };
    for cut in 1..bytes.len() {
        assert_eq!(bench.receive(&bytes[..cut]), []);
        assert_eq!(bench.receive(&bytes[cut..]), [message("a", b"payload")]);
    }
}

#[test]
fn a_stream_means_the_same_however_it_is_cut() {
    let stream = [
        publication(b"p:a", b""),
        confirmation("subscribe", "p:a", 1),
        publication(b"p:a", b"one"),
        publication(b"p:b", b"two"),
        b"-NOPERM\r\n".to_vec(),
        publication(b"p:a", &[b'x'; 300]),
        b"+what\r\n".to_vec(),
    ]
    .concat();
    let mut random = Random::seeded(5);
    let mut run = |most: usize| {
        let mut bench = Bench::ready(with_prefix());
        bench.act(|link, ctx| {
            link.subscribe("a", ctx);
            link.subscribe("b", ctx);
        });
        let mut rest = &stream[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let cut = (random.number() as usize % most + 1).min(rest.len());
            events.extend(bench.receive(&rest[..cut]));
            rest = &rest[cut..];
        }
        events
    };
    let bytewise = run(1);
    assert_eq!(bytewise.len(), 7);
    for most in [2, 10, 100, 1_000] {
        for _ in 0..50 {
            assert_eq!(run(most), bytewise);
        }
    }
}

#[test]
fn messages_over_the_limit_end_the_link() {
    for limit in [10, 100_000] {
        let mut bench = Bench::ready(RedisConfig { max_message_bytes: limit, ..literal() });
        let whole = publication(b"a", &vec![b'x'; limit]);
        assert_eq!(bench.receive(&whole).len(), 1, "a small limit is no bar to the protocol");
        let over = publication(b"a", &vec![b'x'; limit + 1]);
        assert_eq!(bench.receive(&over), lost(true, "message over max_message_bytes"));
    }
    // From the declared length alone.
    let mut bench = Bench::ready(literal());
    let declared = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$16777217\r\n";
    assert_eq!(bench.receive(declared), lost(true, "message over max_message_bytes"));
}

#[test]
fn a_channel_too_long_to_be_confirmed_is_refused_here() {
    let mut bench = Bench::ready(RedisConfig { max_message_bytes: 10, ..with_prefix() });
    let most = crate::limits::RESP_LINE_BYTES_MAX - 2;
    let (fits, over) = ("x".repeat(most), "x".repeat(most + 1));
    bench.act(|link, ctx| {
        link.subscribe(&over, ctx);
        link.unsubscribe(&over, ctx);
    });
    assert_eq!(bench.sent(), "");
    assert!(matches!(&bench.events()[..], [Event::SubscribeFailed { .. }]));
    bench.act(|link, ctx| link.subscribe(&fits, ctx));
    let confirmed = confirmation("subscribe", &format!("p:{fits}"), 1);
    assert_eq!(bench.receive(&confirmed), [subscribed(&fits)]);
    let whole = publication(format!("p:{fits}").as_bytes(), b"0123456789");
    assert_eq!(bench.receive(&whole), [message(&fits, b"0123456789")]);
}

#[test]
fn a_lost_link_forgets_everything_and_comes_back_by_itself() {
    let mut bench = Bench::ready(literal());
    bench.act(|link, ctx| link.subscribe("a", ctx));
    bench.receive(&confirmation("subscribe", "a", 1));
    bench.act(|link, ctx| link.subscribe("b", ctx));
    assert_eq!(bench.receive(b"*3\r\n$7\r\nmess"), []);
    assert_eq!(bench.metrics.redis[0].channels, 1);
    let conn = bench.link.conn().unwrap();
    bench.act(|link, ctx| link.ended(conn, ctx));
    assert_eq!(bench.outputs(), [Output::Close(conn)]);
    assert_eq!(bench.events(), lost(true, "closed by the server"));
    assert!(!bench.metrics.redis[0].connected);
    assert_eq!(bench.metrics.redis[0].channels, 0);
    bench.act(|link, ctx| {
        link.subscribe("c", ctx);
        link.unsubscribe("a", ctx);
        link.ended(conn, ctx);
        link.connected(conn, ctx);
    });
    assert_eq!(bench.events(), [], "there is no link");

    bench.wait();
    bench.greet();
    assert_eq!(bench.sent(), "");
    assert_eq!(bench.metrics.redis[0].reconnects, 1);
    bench.act(|link, ctx| link.subscribe("b", ctx));
    assert_eq!(bench.receive(&confirmation("subscribe", "b", 1)), [subscribed("b")]);
}

#[test]
fn a_stopped_link_stays_stopped() {
    let mut bench = Bench::ready(literal());
    let conn = bench.link.conn().unwrap();
    bench.act(Link::stop);
    assert_eq!(bench.outputs(), [Output::Close(conn)]);
    bench.act(|link, ctx| link.lost(conn, "late", ctx));
    assert_eq!(bench.events(), []);
    assert_eq!(bench.link.next_deadline(), None);
    assert!(!bench.link.is_ready() && !bench.metrics.redis[0].connected);

    for config in [literal(), named()] {
        let mut bench = Bench::new(config);
        bench.act(Link::start);
        bench.act(Link::stop);
        bench.act(|link, ctx| link.resolved("redis.test", &Ok(vec![address(1)]), ctx));
        assert_eq!((bench.link.conn(), bench.link.next_deadline()), (None, None));
        assert!(bench.ports.is_empty());
    }
}

#[test]
fn no_log_line_but_one_says_that_all_is_ready() {
    let mut bench = Bench::ready(literal());
    bench.act(|link, ctx| link.subscribe("a", ctx));
    bench.receive(b"-NOPERM\r\n+x\r\n");
    bench.wait();
    bench.wait();
    for line in bench.logged().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(!value["event"].as_str().unwrap().contains("ready"), "{line}");
    }
}
