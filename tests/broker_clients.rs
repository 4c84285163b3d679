//! The embedded broker, as those see it who take it for a Redis.
//!
//! - beside a redis-server: the same words, the same patterns
//! - redis-cli, redis-py, ioredis
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::Redis;
use support::broker::{Broker, Peer};
use support::wait::until;

// Beside a redis-server.

/// What is said, in lines; each is a conversation of its own.
const CONVERSATIONS: &[&[&str]] = &[
    &[
        "PING",
        "ping x",
        "PING a b",
        "PING \"\\x41\\n\" ",
        "PING 'a\\'b'",
        "ECHO",
        "ECHO x",
        "",
        " ",
    ],
    &["nope", "NOPE a b c", "\"x\\r\\ny\" z", "\"\" a"],
    &["PUBLISH a", "PUBLISH a b", "PUBLISH a b c", "SUBSCRIBE", "PSUBSCRIBE"],
    &["SUBSCRIBE a b a", "PING", "PING x", "UNSUBSCRIBE b zz", "PUBLISH a b", "NOPE", "CLIENT ID"],
    &["SUBSCRIBE a", "UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "PUBLISH a b"],
    &["PSUBSCRIBE a* b* a*", "PUNSUBSCRIBE c*", "PUNSUBSCRIBE", "PUBSUB NUMPAT"],
    &["SUBSCRIBE a", "RESET", "PING"],
    &["SUBSCRIBE a", "QUIT"],
    &["SUBSCRIBE a", "PUBSUB", "PUBSUB NUMPAT", "MULTI", "AUTH x"],
    &["HELLO x", "HELLO 1", "HELLO 4", "HELLO 2 AUTH a", "HELLO 3 SETNAME", "HELLO 2 NOPE"],
    &["HELLO 3 SETNAME \"a b\"", "HELLO 3 AUTH a b", "AUTH", "AUTH x", "AUTH default x"],
    &["AUTH a b", "AUTH a b c", "SELECT", "SELECT 1", "SELECT x", "SELECT -1"],
    &["PUBSUB", "PUBSUB x", "PUBSUB CHANNELS a b", "PUBSUB CHANNELS", "PUBSUB NUMSUB"],
    &["PUBSUB NUMSUB a b", "PUBSUB NUMPAT", "PUBSUB NUMPAT x", "CLIENT", "CLIENT NOPE"],
    &["CLIENT GETNAME", "CLIENT GETNAME x", "CLIENT SETNAME x", "CLIENT GETNAME"],
    &["CLIENT SETNAME \"a b\"", "CLIENT SETNAME \"\"", "CLIENT GETNAME", "CLIENT NO-EVICT on"],
    &["COMMAND COUNT x", "COMMAND NOPE", "RESET x", "INFO nothing"],
    &["QUIT x y"],
    &["MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "MULTI x", "MULTI", "DISCARD"],
    &["MULTI", "PUBLISH a b", "PING", "ECHO x", "SELECT x", "EXEC"],
    &["MULTI", "NOPE", "PING", "EXEC"],
    &["MULTI", "PUBLISH a", "EXEC"],
    &["MULTI", "QUIT"],
    &["MULTI", "PING", "RESET", "EXEC"],
    &["HELLO 3", "SUBSCRIBE a", "PUBLISH a x", "PING", "CLIENT GETNAME", "UNSUBSCRIBE", "INFO x"],
    &["HELLO 3", "PSUBSCRIBE a*", "SUBSCRIBE a", "PUBLISH a x", "UNSUBSCRIBE", "UNSUBSCRIBE"],
    &["HELLO 3", "COMMAND DOCS nope", "RESET", "CLIENT GETNAME"],
    &["*0\r\n*-1\r\n*1\r\n$4\r\nPING"],
    &["*1\r\n:5"],
    &["*1\r\n+x"],
    &["*1\r\n$-1"],
    &["*1\r\n$x"],
    &["\"a"],
    &["\"a\"b"],
    &["POST / HTTP/1.1", "PING"],
    &["Host: x", "PING"],
];

/// Holds a whole conversation at once, and gives all that comes back but what tells the servers
/// apart. Both versions of the protocol end with the same words.
fn converse(port: u16, lines: &[&str]) -> String {
    let mut peer = Peer::connect(port);
    peer.stream.write_all((lines.join("\r\n") + "\r\nQUIT\r\n").as_bytes()).unwrap();
    let text = peer.rest();
    match (text.find("$7\r\nversion\r\n"), text.find("$4\r\nmode\r\n")) {
        (Some(from), Some(to)) => text[..from].to_owned() + &text[to..],
        _ => text,
    }
}

#[test]
fn it_says_what_redis_says() {
    let (redis, broker) = (Redis::start(), Broker::start());
    for lines in CONVERSATIONS {
        let expected = converse(redis.port, lines);
        assert_eq!(converse(broker.port, lines), expected, "{lines:?}");
    }
}

#[test]
fn patterns_match_what_they_match_in_redis() {
    let (redis, broker) = (Redis::start(), Broker::start());
    let mut random = socketshark::random::Random::seeded(7);
    let mut word = |letters: &[u8], most: u64| {
        let length = random.number() % most + 1;
        let letter = |_| char::from(letters[random.number() as usize % letters.len()]);
        (0..length).map(letter).collect::<String>()
    };
    let channels: Vec<String> = (0..40).map(|_| word(b"ab-]^\\", 5)).collect();
    let subscribe: Vec<&str> =
        ["SUBSCRIBE"].into_iter().chain(channels.iter().map(String::as_str)).collect();
    let mut peers = [redis.port, broker.port].map(Peer::connect);
    for peer in &mut peers {
        peer.send(&subscribe);
        peer.send(&["PING", "subscribed"]);
        until("all subscriptions", || (peer.line() == "subscribed").then_some(()));
    }
    let mut askers = [redis.port, broker.port].map(Peer::connect);
    for _ in 0..3_000 {
        let pattern = word(b"**??[[]]^-\\\\abab", 8);
        let [expected, found] = askers.each_mut().map(|peer| {
            let first = peer.ask(&["PUBSUB", "CHANNELS", &pattern]);
            let count: usize = first[1..].parse().unwrap();
            let mut names: Vec<String> = (0..count)
                .map(|_| {
                    peer.line();
                    peer.line()
                })
                .collect();
            names.sort();
            names
        });
        assert_eq!(found, expected, "{pattern}");
    }
}

// The clients that publish in the wild.

/// A file below the folder that `tests/run` installs into.
fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path)
}

/// Runs a command to its end; what it printed.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}

/// A Python that has redis-py: the one that `tests/run` made, or the machine's.
fn python() -> PathBuf {
    let candidates = [installed("python/bin/python3"), PathBuf::from("python3")];
    let has_redis = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import redis"]).stdin(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().find(has_redis);
    found.expect("no python3 with redis-py: `tests/run` installs it into target/python")
}

#[test]
fn redis_cli_publishes_and_asks() {
    let broker = Broker::with(json!({ "BROKER": { "password": "s3cret" } }));
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let port = broker.port.to_string();
    let cli = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port, "--no-auth-warning", "-a", "s3cret"]).args(arguments);
        output(&mut command).trim_end().to_owned()
    };
    let message = json!({ "subscription": "books.1", "data": "from redis-cli" }).to_string();
    assert_eq!(cli(&["PUBLISH", "books.1", &message]), "1");
    assert_eq!(cli(&["-3", "PUBLISH", "books.1", &message]), "1");
    for _ in 0..2 {
        assert_eq!(client.recv_data(), "from redis-cli");
    }
    assert_eq!(cli(&["PUBSUB", "CHANNELS"]), "books.1");
    assert_eq!(cli(&["-3", "PING"]), "PONG");
    assert!(cli(&["INFO"]).contains("redis_version:"));
    assert!(cli(&["CLIENT", "LIST"]).contains("addr=127.0.0.1:"));
    let mut stranger = Command::new("redis-cli");
    assert!(output(stranger.args(["-p", &port, "PING"])).starts_with("NOAUTH"));
    assert!(!broker.router.log_text().contains("s3cret"));
}

#[test]
fn redis_py_publishes_and_subscribes() {
    const SCRIPT: &str = r#"
import asyncio, sys, redis, redis.asyncio
port, message = int(sys.argv[1]), sys.argv[2]
for options in ({}, {"protocol": 2}, {"protocol": 3}):
    r = redis.Redis(port=port, password="s3cret", db=3, client_name="me", **options)
    assert r.ping() and r.info()["loading"] == 0 and r.client_getname() in ("me", b"me")
    assert r.publish("books.1", message) == 1
    p = r.pubsub()
    p.subscribe("news")
    p.psubscribe("n*")
    kinds = [p.get_message(timeout=9)["type"] for _ in range(2)]
    assert kinds == ["subscribe", "psubscribe"], kinds
    assert r.publish("news", b"\xff\r\n") == 2
    got = [p.get_message(timeout=9) for _ in range(2)]
    assert [m["type"] for m in got] == ["message", "pmessage"], got
    assert all(m["data"] == b"\xff\r\n" for m in got), got
    for transaction in (True, False):
        batch = r.pipeline(transaction=transaction)
        for number in range(3):
            batch.publish("news", number)
        assert batch.execute() == [2, 2, 2]
    assert r.pubsub_numsub("news", "none") == [(b"news", 1), (b"none", 0)]
    try:
        r.get("key")
        assert False
    except redis.ResponseError as error:
        assert "unknown command" in str(error)
    p.close()
    r.close()
async def main():
    r = redis.asyncio.Redis(port=port, password="s3cret")
    assert await r.publish("books.1", message) == 1
    await r.aclose()
asyncio.run(main())
try:
    redis.Redis(port=port, password="wrong").ping()
    assert False
except redis.AuthenticationError:
    pass
print("done")
"#;
    let broker = Broker::with(json!({ "BROKER": { "password": "s3cret" } }));
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let message = json!({ "subscription": "books.1", "data": "from redis-py" }).to_string();
    let mut command = Command::new(python());
    command.args(["-c", SCRIPT, &broker.port.to_string(), &message]);
    assert_eq!(output(&mut command).trim(), "done");
    for _ in 0..4 {
        assert_eq!(client.recv_data(), "from redis-py");
    }
    client.expect_quiet();
}

#[test]
fn ioredis_publishes_and_subscribes() {
    const SCRIPT: &str = r#"
const assert = require('assert');
const Redis = require('ioredis');
const [port, message] = [+process.argv[1], process.argv[2]];
(async () => {
    const options = { port, password: 's3cret', db: 3, connectionName: 'me' };
    const [writer, reader] = [new Redis(options), new Redis(options)];
    for (const each of [writer, reader]) {
        each.on('error', (error) => { console.error(error); process.exit(1); });
    }
    const got = [];
    const both = new Promise((resolve) => {
        const add = (...parts) => { if (got.push(parts) === 2) resolve(); };
        reader.on('message', add);
        reader.on('pmessage', add);
    });
    assert.equal(await reader.subscribe('news'), 1);
    assert.equal(await reader.psubscribe('n*'), 2);
    assert.equal(await writer.publish('books.1', message), 1);
    assert.equal(await writer.publish('news', 'x'), 2);
    await both;
    assert.deepEqual(got, [['news', 'x'], ['n*', 'news', 'x']]);
    const batch = [[null, 2], [null, 2]];
    assert.deepEqual(await writer.multi().publish('news', 1).publish('news', 2).exec(), batch);
    assert.deepEqual(await writer.pipeline().publish('news', 1).publish('news', 2).exec(), batch);
    assert.equal(await writer.client('GETNAME'), 'me');
    assert.equal(await reader.ping(), 'PONG');
    await reader.quit();
    await writer.quit();
    console.log('done');
})();
"#;
    let modules = installed("node/node_modules");
    assert!(modules.join("ioredis").exists(), "no ioredis: `tests/run` installs it in target/node");
    let broker = Broker::with(json!({ "BROKER": { "password": "s3cret" } }));
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let message = json!({ "subscription": "books.1", "data": "from ioredis" }).to_string();
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    command.args(["-e", SCRIPT, &broker.port.to_string(), &message]);
    assert_eq!(output(&mut command).trim(), "done");
    assert_eq!(client.recv_data(), "from ioredis");
}
