//! One broker with its peers, without sockets.

use std::collections::HashMap;
use std::io::IoSlice;

use super::*;
use crate::config::LogConfig;
use crate::limits::{
    BROKER_CHANNEL_BYTES_MAX, BROKER_PATTERN_BYTES_MAX, BROKER_PATTERNS_BYTES_MAX,
    BROKER_PATTERNS_MAX,
};
use crate::random::Random;
use crate::wire::resp::push_command;

/// A broker and all that it sees.
struct Bench {
    broker: Broker,
    ports: Ports,
    timers: Timers,
    log: Log,
    metrics: Metrics,
    now: Now,
    /// What was written so far, by connection.
    written: HashMap<ConnId, Vec<u8>>,
    /// What the router got.
    heard: Vec<(String, Vec<u8>)>,
    /// Connections whose socket takes nothing.
    stuck: Vec<ConnId>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Config::default(), BrokerConfig::default())
    }

    fn with_password(password: &str) -> Bench {
        let password = Some(password.to_owned());
        Bench::with(Config::default(), BrokerConfig { password, ..BrokerConfig::default() })
    }

    fn with(config: Config, broker: BrokerConfig) -> Bench {
        Bench {
            broker: Broker::new(&broker, &config, 77),
            ports: Ports::default(),
            timers: Timers::default(),
            log: Log::new(&LogConfig::default(), 77, false),
            metrics: Metrics::default(),
            now: Now { mono: Instant(5_000_000), ..Now::default() },
            written: HashMap::new(),
            heard: Vec::new(),
            stuck: Vec::new(),
        }
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Broker, &mut Context<'_>) -> R) -> R {
        let mut context = Context {
            now: self.now,
            ports: &mut self.ports,
            timers: &mut self.timers,
            log: &mut self.log,
            metrics: &mut self.metrics,
        };
        let result = act(&mut self.broker, &mut context);
        self.broker.audit();
        self.ports.mail.audit();
        result
    }

    fn connect(&mut self) -> ConnId {
        let address = "127.0.0.1:5555".parse().unwrap();
        self.act(|broker, context| broker.accept(address, context)).unwrap()
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(message) = self.act(|broker, ctx| broker.next(conn, &mut input, ctx)) {
            self.heard.push((message.channel, message.payload.into_owned()));
        }
        assert!(input.is_empty() || self.is_closed(conn), "all input is taken");
    }

    /// Writes what waits for those whose sockets take it.
    fn flush(&mut self) {
        while let Some(conn) = self.ports.mail.next_prompt().or_else(|| self.ports.mail.next_bulk())
        {
            if self.stuck.contains(&conn) {
                if self.ports.mail.blocked(conn, 0).is_err() {
                    self.act(|broker, ctx| broker.too_slow(conn, ctx));
                }
                continue;
            }
            let mut slices = [IoSlice::new(&[]); 64];
            let used = self.ports.mail.outbox(conn).unwrap().slices_from(0, &mut slices);
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            self.ports.mail.written(conn, bytes.len());
            self.written.entry(conn).or_default().extend(bytes);
            if let Some(held) = self.act(|broker, ctx| broker.flushed(conn, ctx)) {
                self.receive(conn, &held);
            }
        }
    }

    fn unstick(&mut self, conn: ConnId) {
        self.stuck.retain(|&other| other != conn);
        self.ports.mail.unblocked(conn);
        self.flush();
    }

    /// Takes what was written to a connection.
    fn take(&mut self, conn: ConnId) -> String {
        self.flush();
        let bytes = self.written.remove(&conn).unwrap_or_default();
        String::from_utf8(bytes).unwrap().replace("\r\n", " ")
    }

    /// Sends an inline command and takes the answer.
    fn ask(&mut self, conn: ConnId, line: &str) -> String {
        self.receive(conn, format!("{line}\r\n").as_bytes());
        self.take(conn).trim_end().to_owned()
    }

    fn is_closed(&self, conn: ConnId) -> bool {
        self.ports.kind(conn).is_none()
    }
}

#[test]
fn messages_reach_those_who_subscribe() {
    let mut bench = Bench::new();
    let [reader, modern, publisher] = [(); 3].map(|()| bench.connect());
    assert_eq!(bench.ask(publisher, "PUBLISH a x"), ":0");
    assert_eq!(
        bench.ask(reader, "SUBSCRIBE a b a"),
        "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2 *3 $9 subscribe $1 a :2"
    );
    assert!(bench.ask(modern, "HELLO 3").starts_with("%7 $6 server $5 redis"));
    assert_eq!(bench.ask(modern, "PSUBSCRIBE [ab]"), ">3 $10 psubscribe $4 [ab] :1");
    assert_eq!(bench.ask(publisher, "PUBLISH a x"), ":2");
    assert_eq!(bench.ask(publisher, "PUBLISH b \"\""), ":2");
    assert_eq!(bench.ask(publisher, "PUBLISH c x"), ":0");
    assert_eq!(bench.take(reader), "*3 $7 message $1 a $1 x *3 $7 message $1 b $0  ");
    assert_eq!(
        bench.take(modern),
        ">4 $8 pmessage $4 [ab] $1 a $1 x >4 $8 pmessage $4 [ab] $1 b $0  "
    );
    assert_eq!(bench.ask(publisher, "PUBSUB CHANNELS"), "*2 $1 a $1 b");
    assert_eq!(bench.ask(publisher, "PUBSUB CHANNELS ?[b]*"), "*0");
    assert_eq!(bench.ask(publisher, "PUBSUB NUMSUB a c"), "*4 $1 a :1 $1 c :0");
    assert_eq!(bench.ask(publisher, "PUBSUB NUMPAT"), ":1");
    assert_eq!(
        bench.ask(reader, "UNSUBSCRIBE b b"),
        "*3 $11 unsubscribe $1 b :1 ".repeat(2).trim()
    );
    assert_eq!(bench.ask(reader, "UNSUBSCRIBE"), "*3 $11 unsubscribe $1 a :0");
    assert_eq!(bench.ask(reader, "UNSUBSCRIBE"), "*3 $11 unsubscribe $-1 :0");
    assert_eq!(bench.ask(modern, "PUNSUBSCRIBE"), ">3 $12 punsubscribe $4 [ab] :0");
    assert_eq!(bench.ask(modern, "PUNSUBSCRIBE"), ">3 $12 punsubscribe _ :0");
    assert_eq!(bench.metrics.broker_published, 4);
}

#[test]
fn readers_of_one_protocol_share_one_frame() {
    let mut bench = Bench::new();
    let readers = [(); 2].map(|()| bench.connect());
    for reader in readers {
        bench.ask(reader, "SUBSCRIBE a");
    }
    let publisher = bench.connect();
    bench.receive(publisher, b"PUBLISH a x\r\n");
    let starts = readers.map(|reader| {
        let mut slices = [IoSlice::new(&[]); 1];
        assert_eq!(bench.ports.mail.outbox(reader).unwrap().slices_from(0, &mut slices), 1);
        slices[0].as_ptr()
    });
    assert_eq!(starts[0], starts[1]);
}

#[test]
fn patterns_share_a_large_payload_and_a_burst_has_an_end() {
    let mut bench = Bench::new();
    let [reader, publisher] = [(); 2].map(|()| bench.connect());
    bench.ask(reader, "PSUBSCRIBE a* *a");
    let large = "x".repeat(20_000);
    bench.receive(publisher, format!("PUBLISH a {large}\r\n").as_bytes());
    let mut slices = [IoSlice::new(&[]); 4];
    let used = bench.ports.mail.outbox(reader).unwrap().slices_from(0, &mut slices);
    assert_eq!((used, slices[1].as_ptr()), (4, slices[3].as_ptr()));
    let copy = |pattern| format!("*4 $8 pmessage $2 {pattern} $1 a $20000 {large} ");
    assert_eq!(bench.take(reader), copy("*a") + &copy("a*"));

    let all: Vec<String> = (0..300).map(|n| format!("?{}", "*".repeat(n + 1))).collect();
    let words = ["PSUBSCRIBE"].into_iter().chain(all.iter().map(String::as_str));
    let mut command = Vec::new();
    push_command(&mut command, &words.map(str::as_bytes).collect::<Vec<_>>());
    bench.receive(reader, &command);
    bench.take(reader);
    let mut command = Vec::new();
    push_command(&mut command, &[b"PUBLISH", b"b", &vec![b'x'; 1 << 20]]);
    bench.receive(publisher, &command);
    assert!(bench.is_closed(reader), "not after 300 MiB");
    assert!(bench.take(publisher).ends_with(":300 "));
}

#[test]
fn the_router_reads_beside_the_peers() {
    let mut config = Config::default();
    config.redis.channel_prefix = "p:".to_owned();
    let mut bench = Bench::with(config, BrokerConfig::default());
    let peer = bench.connect();
    assert!(bench.broker.join("books.1"));
    assert_eq!(bench.ask(peer, "PUBLISH p:books.1 {}"), ":1");
    assert_eq!(bench.ask(peer, "PUBLISH books.1 {}"), ":0");
    assert_eq!(bench.ask(peer, "PUBSUB NUMSUB p:books.1"), "*2 $9 p:books.1 :1");
    let whole = b"*3\r\n$7\r\nPUBLISH\r\n$9\r\np:books.1\r\n$2\r\n[]\r\n";
    for cut in [whole.len(), 30] {
        whole.chunks(cut).for_each(|piece| bench.receive(peer, piece));
    }
    let heard = ["{}", "[]", "[]"].map(|text| ("books.1".to_owned(), text.as_bytes().to_vec()));
    assert_eq!(bench.heard, heard);
    bench.take(peer);
    bench.broker.leave("books.1");
    assert_eq!(bench.ask(peer, "PUBLISH p:books.1 {}"), ":0");
    assert_eq!(bench.ask(peer, "PUBSUB CHANNELS"), "*0");
    assert!(!bench.broker.join(&"x".repeat(BROKER_CHANNEL_BYTES_MAX)), "with its prefix");
}

#[test]
fn mistakes_are_answered_as_redis_does() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let cases = [
        ("GET a", "-ERR unknown command 'GET', with args beginning with: 'a'"),
        ("\"x\\r\\ny\"", "-ERR unknown command 'x  y', with args beginning with:"),
        ("publish a", "-ERR wrong number of arguments for 'publish' command"),
        ("SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command"),
        ("PUBSUB", "-ERR wrong number of arguments for 'pubsub' command"),
        ("PUBSUB NUMPAT x", "-ERR wrong number of arguments for 'pubsub|numpat' command"),
        (
            "PUBSUB CHANNELS a b",
            "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.",
        ),
        ("PUBSUB Nope", "-ERR unknown subcommand 'Nope'. Try PUBSUB HELP."),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("SELECT x", "-ERR value is not an integer or out of range"),
        ("SELECT -1", "-ERR DB index is out of range"),
        ("CLIENT SETNAME \"a b\"", &format!("-{}", greeting_name_error())),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 2 NOPE", "-ERR Syntax error in HELLO option 'NOPE'"),
        ("HELLO 2 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'"),
        ("EXEC", "-ERR EXEC without MULTI"),
        ("DISCARD", "-ERR DISCARD without MULTI"),
        ("AUTH default x", "+OK"),
        ("AUTH a b c", "-ERR syntax error"),
    ];
    for (line, expected) in cases {
        assert_eq!(bench.ask(peer, line), expected, "{line}");
    }
    bench.ask(peer, "SUBSCRIBE a");
    assert_eq!(
        bench.ask(peer, "PUBLISH a b"),
        "-ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
         RESET are allowed in this context"
    );
    assert_eq!(bench.ask(peer, "PING"), "*2 $4 pong $0");
    assert_eq!(bench.ask(peer, "PING x"), "*2 $4 pong $1 x");
    assert_eq!(bench.ask(peer, "RESET"), "+RESET");
    assert_eq!(bench.ask(peer, "PUBLISH a b"), ":0");
}

fn greeting_name_error() -> &'static str {
    "ERR Client names cannot contain spaces, newlines or special characters."
}

#[test]
fn what_clients_ask_on_connecting_is_answered() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    assert_eq!(bench.ask(peer, "ping"), "+PONG");
    assert_eq!(bench.ask(peer, "PING x"), "$1 x");
    assert_eq!(bench.ask(peer, "ECHO \"a b\""), "$3 a b");
    assert_eq!(bench.ask(peer, "SELECT 3"), "+OK");
    assert_eq!(bench.ask(peer, "CLIENT GETNAME"), "$-1");
    assert_eq!(bench.ask(peer, "CLIENT SETNAME me"), "+OK");
    assert_eq!(bench.ask(peer, "client getname"), "$2 me");
    assert_eq!(bench.ask(peer, "CLIENT SETINFO LIB-NAME x"), "+OK");
    assert_eq!(bench.ask(peer, "CLIENT SETINFO x x"), "-ERR Unrecognized option 'x'");
    assert_eq!(bench.ask(peer, "CLIENT ID"), ":1");
    assert_eq!(bench.ask(peer, "COMMAND"), "*0");
    assert_eq!(bench.ask(peer, "COMMAND DOCS"), "*0");
    assert_eq!(bench.ask(peer, "COMMAND COUNT"), format!(":{}", table::count()));
    assert!(bench.ask(peer, "INFO").contains("redis_version:7."));
    assert!(bench.ask(peer, "INFO server").contains("process_id:77"));
    assert!(!bench.ask(peer, "INFO clients").contains("redis_version"));
    assert_eq!(bench.ask(peer, "INFO nothing"), "$0");
    let list = bench.ask(peer, "CLIENT LIST");
    assert!(list.contains("id=1 addr=127.0.0.1:5555 name=me age=0 flags=N db=3 "), "{list}");
    let hello = bench.ask(peer, "HELLO 3 SETNAME you");
    assert!(hello.contains("$5 proto :3 $2 id :1 $4 mode $10 standalone"), "{hello}");
    assert_eq!(bench.ask(peer, "CLIENT GETNAME"), "$3 you");
    assert!(bench.ask(peer, "INFO server").starts_with('='));
    assert_eq!(bench.ask(peer, "COMMAND DOCS"), "%0");
    assert_eq!(bench.ask(peer, "QUIT"), "+OK");
}

#[test]
fn a_password_is_asked_for() {
    let mut bench = Bench::with_password("secret");
    let peer = bench.connect();
    assert_eq!(bench.ask(peer, "PING"), "-NOAUTH Authentication required.");
    assert_eq!(
        bench.ask(peer, "PUBLISH a"),
        "-ERR wrong number of arguments for 'publish' command"
    );
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(bench.ask(peer, "AUTH x"), wrong);
    assert_eq!(bench.ask(peer, "AUTH other secret"), wrong);
    assert!(bench.ask(peer, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert_eq!(bench.ask(peer, "HELLO 3 AUTH default x"), wrong);
    assert_eq!(bench.ask(peer, "AUTH secret"), "+OK");
    assert_eq!(bench.ask(peer, "PING"), "+PONG");
    assert_eq!(bench.ask(peer, "RESET"), "+RESET");
    assert_eq!(bench.ask(peer, "PING"), "-NOAUTH Authentication required.");
    assert!(bench.ask(peer, "HELLO 3 AUTH default secret").starts_with("%7"));
    assert_eq!(bench.ask(peer, "PUBLISH a b"), ":0");
    assert!(!bench.log.take().contains("secret"));
    assert!(Bench::new().with_ask("AUTH x").starts_with("-ERR AUTH <password> called without"));
}

impl Bench {
    fn with_ask(mut self, line: &str) -> String {
        let peer = self.connect();
        self.ask(peer, line)
    }
}

#[test]
fn strangers_may_say_little() {
    let mut bench = Bench::with_password("secret");
    let peer = bench.connect();
    let long = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n", BROKER_STRANGER_BYTES_MAX + 1);
    bench.receive(peer, long.as_bytes());
    assert_eq!(bench.take(peer), "-ERR Protocol error: invalid bulk length ");
    let peer = bench.connect();
    bench.ask(peer, "AUTH secret");
    bench.receive(
        peer,
        format!("*2\r\n$4\r\nECHO\r\n$20000\r\n{}\r\n", "x".repeat(20_000)).as_bytes(),
    );
    assert!(bench.take(peer).starts_with("$20000 "));
}

#[test]
fn transactions_are_carried_out_together() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.broker.join("a");
    assert_eq!(bench.ask(peer, "MULTI"), "+OK");
    assert_eq!(bench.ask(peer, "MULTI"), "-ERR MULTI calls can not be nested");
    assert_eq!(bench.ask(peer, "DISCARD"), "+OK");
    let lines = "MULTI\r\nPUBLISH a 1\r\nPING\r\nPUBLISH a 2\r\nEXEC\r\nPING\r\n";
    bench.receive(peer, lines.as_bytes());
    assert_eq!(bench.take(peer), "+OK +QUEUED +QUEUED +QUEUED *3 :1 +PONG :1 +PONG ");
    assert_eq!(bench.heard.iter().map(|(_, text)| &text[..]).collect::<Vec<_>>(), [b"1", b"2"]);
    bench.receive(peer, b"MULTI\r\nPUBLISH a 1\r\nNOPE\r\nSUBSCRIBE a\r\nEXEC\r\n");
    assert!(bench.take(peer).ends_with(
        "-ERR Command not allowed inside a transaction -EXECABORT Transaction discarded because \
         of previous errors. "
    ));
    assert_eq!(bench.heard.len(), 2);
}

#[test]
fn malformed_bytes_are_answered_and_end_the_connection() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.ask(peer, "SUBSCRIBE a");
    bench.receive(peer, b"PING\r\n*1\r\n:1\r\nPING\r\n");
    assert_eq!(bench.take(peer), "*2 $4 pong $0  -ERR Protocol error: expected '$', got ':' ");
    assert!(std::iter::from_fn(|| bench.ports.poll()).any(|o| o == Output::HalfClose(peer)));
    let other = bench.connect();
    assert_eq!(bench.ask(other, "PUBLISH a x"), ":0", "it reads no more");
    bench.act(|broker, ctx| broker.due(other, ctx));
    assert!(!bench.is_closed(other), "only what is ending has a deadline");
    bench.act(|broker, ctx| broker.due(peer, ctx));
    assert!(bench.is_closed(peer));
    assert_eq!(bench.metrics.broker_connections, 1);
}

#[test]
fn a_peer_that_says_no_more_is_answered_first() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.stuck.push(peer);
    bench.receive(peer, b"PING\r\n");
    bench.flush();
    bench.act(|broker, ctx| broker.ended(peer, ctx));
    assert!(!bench.is_closed(peer));
    bench.unstick(peer);
    assert_eq!(bench.take(peer), "+PONG ");
    assert!(bench.is_closed(peer));
    let idle = bench.connect();
    bench.act(|broker, ctx| broker.ended(idle, ctx));
    assert!(bench.is_closed(idle), "nothing waits for it");
}

#[test]
fn http_is_shut_out() {
    for line in ["POST / HTTP/1.1\r\nHost: x\r\n\r\nPUBLISH a b\r\n", "Host: x\r\nPUBLISH a b\r\n"]
    {
        let mut bench = Bench::new();
        let peer = bench.connect();
        bench.broker.join("a");
        bench.receive(peer, line.as_bytes());
        assert!(bench.take(peer).is_empty() && bench.heard.is_empty());
        assert!(std::iter::from_fn(|| bench.ports.poll()).any(|o| o == Output::HalfClose(peer)));
    }
}

#[test]
fn a_slow_reader_is_closed_and_nobody_else_notices() {
    let mut bench = Bench::new();
    let [slow, good, publisher] = [(); 3].map(|()| bench.connect());
    for reader in [slow, good] {
        bench.ask(reader, "SUBSCRIBE a");
    }
    bench.stuck.push(slow);
    let mut command = Vec::new();
    push_command(&mut command, &[b"PUBLISH", b"a", &vec![b'x'; 1 << 20]]);
    let mut received = 0;
    for _ in 0..40 {
        bench.receive(publisher, &command);
        received += bench.take(good).len();
    }
    assert!(bench.is_closed(slow) && received > 40 << 20);
    assert_eq!(bench.metrics.broker_slow_peers, 1);
    assert!(bench.take(publisher).ends_with(":1 "));
    assert_eq!(bench.metrics.broker_connections, 2);
}

#[test]
fn commands_wait_for_a_peer_that_does_not_take_its_replies() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.stuck.push(peer);
    let mut command = Vec::new();
    push_command(&mut command, &[b"ECHO", &vec![b'x'; 1 << 20]]);
    let pipeline = [&command.repeat(30)[..], b"PING\r\n"].concat();
    for chunk in pipeline.chunks(SCRATCH_BYTES) {
        bench.receive(peer, chunk);
        bench.flush();
    }
    assert!(!bench.broker.wants_read(peer));
    let waiting = bench.ports.mail.outbox(peer).unwrap().bytes();
    assert!(waiting < BROKER_REPLY_BYTES_MAX + (2 << 20), "{waiting}");
    bench.unstick(peer);
    assert!(bench.broker.wants_read(peer));
    let text = bench.take(peer);
    assert!(text.len() > 30 << 20 && text.ends_with("x +PONG "));
}

#[test]
fn names_patterns_and_messages_are_bounded() {
    let mut config = Config::default();
    config.redis.max_message_bytes = 10;
    let mut bench = Bench::with(config, BrokerConfig::default());
    let peer = bench.connect();
    assert_eq!(bench.ask(peer, "PUBLISH a 1234567890"), ":0");
    assert_eq!(bench.ask(peer, "PUBLISH a 12345678901"), "-ERR message over max_message_bytes");
    let long = "x".repeat(BROKER_PATTERN_BYTES_MAX + 1);
    assert_eq!(bench.ask(peer, &format!("PSUBSCRIBE {long}")), "-ERR pattern too long");
    assert!(bench.ask(peer, &format!("CLIENT SETNAME {long}")).starts_with("-ERR Client names"));
    let all: String = (0..BROKER_PATTERNS_MAX).map(|n| format!("PSUBSCRIBE {n}\r\n")).collect();
    bench.receive(peer, all.as_bytes());
    assert_eq!(bench.take(peer).matches(" psubscribe ").count(), BROKER_PATTERNS_MAX);
    assert_eq!(bench.ask(peer, "PSUBSCRIBE x"), "-ERR too many subscriptions");
    assert!(bench.ask(peer, "PSUBSCRIBE 7").ends_with(&format!(":{BROKER_PATTERNS_MAX}")));
    bench.ask(peer, "PUNSUBSCRIBE");
    assert_eq!(bench.ask(peer, &format!("PUBSUB CHANNELS {long}")), "-ERR pattern too long");
    let longest = |n: usize| format!("PSUBSCRIBE {n:02}{}\r\n", &long[3..]);
    let fits = BROKER_PATTERNS_BYTES_MAX / BROKER_PATTERN_BYTES_MAX;
    bench.receive(peer, (0..fits).map(longest).collect::<String>().as_bytes());
    assert_eq!(bench.take(peer).matches(" psubscribe ").count(), fits);
    assert_eq!(bench.ask(peer, "PSUBSCRIBE x"), "-ERR too many subscriptions");
    bench.ask(peer, "PUNSUBSCRIBE");
    assert!(bench.ask(peer, "PSUBSCRIBE x").ends_with(":1"));

    let other = bench.connect();
    let wide = |number: usize| format!("{number:05}{}", "x".repeat(59_995));
    let fits = (64 << 20) / (60_000 + 128);
    let pipeline: String = (0..fits + 3).map(|n| format!("SUBSCRIBE {}\r\n", wide(n))).collect();
    bench.receive(other, pipeline.as_bytes());
    let text = bench.take(other);
    assert_eq!(text.matches(" subscribe ").count(), fits);
    assert_eq!(text.matches("-ERR too many subscriptions").count(), 3);
    assert!(bench.ask(other, "UNSUBSCRIBE").ends_with(":0"));
    assert!(bench.ask(other, &format!("SUBSCRIBE {}", wide(0))).ends_with(":1"));
}

/// All that a conversation gives, with its input cut in pieces.
fn conversation<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (String, Vec<(String, Vec<u8>)>) {
    let mut bench = Bench::new();
    bench.broker.join("a");
    let peer = bench.connect();
    for piece in pieces {
        if !bench.is_closed(peer) {
            bench.receive(peer, piece);
        }
    }
    (bench.take(peer), bench.heard)
}

#[test]
fn conversations_are_the_same_however_they_are_cut() {
    let says = [
        "PING\r\n",
        "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$4\r\n{\r\n}\r\n",
        "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n",
        "HELLO 3\r\n",
        "UNSUBSCRIBE\r\n",
        "PSUBSCRIBE *\r\n",
        "MULTI\r\n",
        "EXEC\r\n",
        "RESET\r\n",
        "PUBSUB CHANNELS *\r\n",
        "\"x\r\n",
        "*1\r\n+x\r\n",
        "QUIT\r\n",
        "AUTH x\r\n",
    ];
    let mut random = Random::seeded(10);
    for _ in 0..500 {
        let mut bytes = Vec::new();
        for _ in 0..random.number() % 20 {
            // The last ones, which end all, seldom.
            let most = if random.number().is_multiple_of(8) { says.len() } else { 10 };
            bytes.extend_from_slice(says[random.number() as usize % most].as_bytes());
        }
        let whole = conversation([&bytes[..]].into_iter());
        assert_eq!(conversation(bytes.chunks(1)), whole, "{:?}", bytes.escape_ascii());
        let cut = 1 + random.number() as usize % 40;
        assert_eq!(conversation(bytes.chunks(cut)), whole, "{:?}", bytes.escape_ascii());
    }
}

#[test]
fn there_may_be_too_many_peers() {
    let mut bench = Bench::new();
    let first = bench.connect();
    for _ in 1..BROKER_PEERS_MAX {
        let address = "127.0.0.1:5555".parse().unwrap();
        let Bench { broker, ports, timers, log, metrics, now, .. } = &mut bench;
        let mut context = Context { now: *now, ports, timers, log, metrics };
        assert!(broker.accept(address, &mut context).is_some());
    }
    let address = "127.0.0.1:5555".parse().unwrap();
    assert_eq!(bench.act(|broker, ctx| broker.accept(address, ctx)), None);
    bench.act(|broker, ctx| broker.lost(first, ctx));
    bench.connect();
}
