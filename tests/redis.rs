//! The link to Redis: starting, losing it, getting it back.
//!
//! - starting: without Redis, late, passwords, what the link says of itself
//! - losing it: every way, and what clients and services see
//! - coming back; or shutting down
//! - a second Redis
//! - Redis refusing a channel, or taking its time, and what clients hear before
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use support::redis::Resp;
use support::router::base_config;
use support::wait::{free_port, until, until_true};
use support::{Client, Redis, Router, Service, World, client, http, merge, subscribe};

const QUICK_PINGS: [f64; 2] = [0.2, 0.3];

/// `books` with unsubscribe callbacks, Redis pinged quickly, and this over the configuration.
fn watched(config: Value) -> World {
    World::new(|service| {
        let [interval, timeout] = QUICK_PINGS;
        let mut whole = json!({
            "SERVICES": { "books": service.hooks(&["before_unsubscribe", "on_unsubscribe"]) },
            "REDIS": { "ping_interval": interval, "ping_timeout": timeout, "connect_timeout": 2 },
        });
        merge(&mut whole, config);
        whole
    })
}

fn config_with(redis: &Redis, over: Value) -> Value {
    let mut config = base_config(redis);
    merge(&mut config, json!({ "SERVICES": { "books": { "require_authentication": false } } }));
    merge(&mut config, over);
    config
}

// Starting.

#[test]
fn without_redis_it_does_not_start() {
    let mut redis = Redis::start();
    redis.stop();
    let mut router =
        Router::launch(config_with(&redis, json!({ "REDIS": { "connect_timeout": 0.5 } })));
    assert_eq!(router.wait_exit(), Some(1));
    let text = router.log_text();
    let lines = router.log_lines();
    let line = lines.last().unwrap();
    assert_eq!(line["event"], "could not connect to redis");
    assert_eq!(line["port"], redis.port, "the line names the place: {text}");
    assert_eq!(line["mend"], "start it, or correct REDIS in the configuration");
}

/// Who has switched the log off still hears why it ended, in one line.
#[test]
fn without_a_log_it_says_why_it_does_not_start() {
    let mut redis = Redis::start();
    redis.stop();
    let over = json!({ "REDIS": { "connect_timeout": 0.5 }, "LOG": { "level": null } });
    let mut router = Router::launch(config_with(&redis, over));
    assert_eq!(router.wait_exit(), Some(1));
    let place = format!("socketshark: cannot reach Redis at 127.0.0.1:{}: ", redis.port);
    let text = router.log_text();
    assert!(text.starts_with(&place) && text.lines().count() == 1, "{text}");
}

#[test]
fn a_redis_that_comes_late_is_waited_for_and_the_metrics_are_there_meanwhile() {
    let mut redis = Redis::start();
    redis.stop();
    let ws_port = free_port();
    let config = json!({ "REDIS": { "connect_timeout": 9 }, "WS_PORT": ws_port });
    let mut router = Router::launch(config_with(&redis, config));
    until_true("the metrics port", || {
        TcpStream::connect(("127.0.0.1", router.metrics_port)).is_ok()
    });
    assert_eq!(router.get("/healthz").0.status(), 200);
    let (head, reason) = router.get("/readyz");
    assert_eq!(head.status(), 503);
    assert!(!reason.trim().is_empty());
    assert_eq!(router.metric("socketshark_service_state"), Some(0.0));
    assert!(TcpStream::connect(("127.0.0.1", ws_port)).is_err(), "clients are not served yet");
    redis.restart();
    assert!(router.wait_ready());
    router.wait_readyz(200);
    router.client().subscribe("books.1");
}

#[test]
fn redis_is_greeted_with_password_database_and_name() {
    let redis = Redis::with_password("s3cr3t pass");
    let config = json!({ "REDIS": { "password": "s3cr3t pass", "db": 3 } });
    let router = Router::start(&redis, config_with(&redis, config));
    let mut client = router.client();
    client.subscribe("books.1");
    let Resp::Bulk(Some(list)) = redis.command(&["CLIENT", "LIST"]) else { panic!("no list") };
    let list = String::from_utf8(list).unwrap();
    let line = list.lines().find(|line| line.contains("sub=1")).expect("a subscribed client");
    assert!(line.contains("name=socketshark"), "{line}");
    assert!(line.contains("db=3"), "{line}");
    assert!(!router.log_text().contains("s3cr3t"));
}

#[test]
fn users_of_redis_are_supported() {
    let redis = Redis::start();
    redis.command(&["ACL", "SETUSER", "reader", "on", ">pw", "allchannels", "allcommands"]);
    redis.command(&["ACL", "SETUSER", "default", "resetchannels"]);
    let config = json!({ "REDIS": { "username": "reader", "password": "pw" } });
    let router = Router::start(&redis, config_with(&redis, config));
    router.client().subscribe("books.1");
}

#[test]
fn a_wrong_password_is_no_connection() {
    let redis = Redis::with_password("right");
    for over in [json!({ "password": "wr0ng" }), json!({})] {
        let mut over = json!({ "REDIS": over });
        merge(&mut over, json!({ "REDIS": { "connect_timeout": 0.5 } }));
        let mut router = Router::launch(config_with(&redis, over));
        assert_eq!(router.wait_exit(), Some(1));
        let text = router.log_text();
        assert!(!text.contains("wr0ng"), "{text}");
        assert!(text.contains("NOAUTH") || text.contains("WRONGPASS"), "what Redis said: {text}");
    }
}

#[test]
fn a_redis_that_does_not_answer_is_no_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = Redis::start();
    let port = silent.local_addr().unwrap().port();
    let config = json!({ "REDIS": { "port": port, "connect_timeout": 0.5 } });
    let mut router = Router::launch(config_with(&redis, config));
    assert_eq!(router.wait_exit(), Some(1));
}

// Losing it.

/// The three clients of `lose` are told, and services too.
#[track_caller]
fn expect_lost(world: &World, clients: Vec<Client>) {
    let count = clients.len();
    for mut client in clients {
        client.expect_close(1012);
    }
    world.service.wait("/on_unsubscribe", count);
    assert_eq!(world.service.requests("/before_unsubscribe").len(), count);
    assert_eq!(world.service.requests("/on_unsubscribe").len(), count);
}

fn three_readers(world: &World) -> Vec<Client> {
    let reader = |number: usize| {
        let mut client = world.client();
        client.subscribe(&format!("books.{number}"));
        client
    };
    (0..3).map(reader).collect()
}

/// Clients are served again, with all that belongs to it.
#[track_caller]
/// Gives the client that was served: while it lives, its channel stays.
fn expect_recovered(world: &World) -> Client {
    world.router.wait_readyz(200);
    let mut client = world.client();
    client.subscribe("books.new");
    world.redis.wait_channels(&["books.new"]);
    world.publish("books.new", json!("back"));
    assert_eq!(client.recv_data(), "back");
    assert_eq!(world.router.metric("socketshark_service_state"), Some(1.0));
    client
}

#[test]
fn a_crash_of_redis_closes_everybody_and_is_recovered_from() {
    let mut world = watched(json!({}));
    let clients = three_readers(&world);
    world.redis.stop();
    expect_lost(&world, clients);
    world.router.wait_readyz(503);
    assert_eq!(world.router.metric("socketshark_service_state"), Some(0.0));
    let refusal = Client::handshake(world.router.port, &client::request("/", ""));
    let head = refusal.err().flatten().expect("an answer");
    assert_eq!(head.status(), 503);
    let retry: Option<u64> = head.header("Retry-After").and_then(|value| value.parse().ok());
    assert!(retry.is_some(), "{head:?}");
    assert_eq!(world.router.get("/healthz").0.status(), 200);
    world.redis.restart();
    expect_recovered(&world);
}

#[test]
fn a_redis_that_stops_answering_is_lost() {
    let world = watched(json!({}));
    let clients = three_readers(&world);
    world.redis.freeze();
    expect_lost(&world, clients);
    world.router.wait_readyz(503);
    world.redis.thaw();
    expect_recovered(&world);
}

#[test]
fn a_link_that_redis_closes_is_lost_and_made_anew() {
    let world = watched(json!({}));
    let clients = three_readers(&world);
    world.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    expect_lost(&world, clients);
    expect_recovered(&world);
}

#[test]
fn a_message_over_the_limit_loses_the_link() {
    let world = watched(json!({ "REDIS": { "max_message_bytes": 10_000 } }));
    let mut clients = three_readers(&world);
    world.publish("books.0", json!("x".repeat(9_000)));
    assert_eq!(clients[0].recv_data(), json!("x".repeat(9_000)));
    world.publish("books.0", json!("x".repeat(10_001)));
    expect_lost(&world, clients);
    expect_recovered(&world);
}

#[test]
fn a_subscribe_under_way_when_redis_is_lost_is_undone() {
    let mut world = World::books(&["before_subscribe", "on_subscribe", "on_unsubscribe"]);
    let gate = world.service.hold("/before_subscribe");
    let mut client = world.client();
    client.send(&json!({ "event": "subscribe", "subscription": "books.1" }));
    world.service.wait("/before_subscribe", 1);
    world.redis.stop();
    client.expect_close(1012);
    gate.open();
    world.service.wait_paths(&["/before_subscribe", "/on_subscribe", "/on_unsubscribe"]);
    world.redis.restart();
    world.router.wait_readyz(200);
    assert!(world.redis.channels().is_empty());
}

#[test]
fn a_loss_can_be_the_end() {
    let mut world = watched(json!({ "REDIS": { "on_disconnect": "shutdown" } }));
    let clients = three_readers(&world);
    world.redis.stop();
    expect_lost(&world, clients);
    assert_eq!(world.router.wait_exit(), Some(0));
    let events = world.router.log_lines();
    assert!(events.iter().any(|line| line["event"] == "done"));
}

/// The shutdown that the loss began is under way: the first signal does not cut it short.
#[test]
fn a_signal_in_the_shutdown_of_a_loss_is_the_first() {
    let mut world = watched(json!({ "REDIS": { "on_disconnect": "shutdown" } }));
    let gate = world.service.hold("/before_unsubscribe");
    let mut client = world.reader("books.1");
    world.redis.stop();
    client.expect_close(1012);
    world.service.wait("/before_unsubscribe", 1);
    world.router.signal("TERM");
    world.router.wait_event("stop requested");
    gate.open();
    assert_eq!(world.router.wait_exit(), Some(0));
    assert_eq!(world.service.requests("/on_unsubscribe").len(), 1);
    assert_eq!(world.router.log_lines().last().unwrap()["event"], "done");
}

#[test]
fn a_stop_while_redis_is_lost_is_clean() {
    let mut world = watched(json!({}));
    world.redis.stop();
    world.router.wait_readyz(503);
    assert_eq!(world.router.stop(), Some(0));
}

// Redis is not what it seems: a server that says what it is told to.

/// Accepts links, answers what the greeting needs, and says `bytes` once a channel is subscribed.
fn false_redis(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for link in listener.incoming() {
            let Ok(link) = link else { return };
            std::thread::spawn(move || play_redis(&link, bytes));
        }
    });
    port
}

fn play_redis(link: &TcpStream, bytes: &[u8]) -> Option<()> {
    let mut output = link;
    let mut input = BufReader::new(link);
    loop {
        let words = read_command(&mut input)?;
        let reply = match words[0].to_ascii_uppercase().as_str() {
            "PING" => "+PONG\r\n".to_owned(),
            "SUBSCRIBE" => {
                let name = &words[1];
                format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len())
            }
            "INFO" => "$21\r\nredis_version:7.0.15\r\n\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        output.write_all(reply.as_bytes()).ok()?;
        if words[0].eq_ignore_ascii_case("SUBSCRIBE") {
            output.write_all(bytes).ok()?;
        }
    }
}

fn read_command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let mut line = || {
        let mut text = String::new();
        input.read_line(&mut text).ok().filter(|read| *read > 0)?;
        Some(text.trim_end().to_owned())
    };
    let count: usize = line()?.strip_prefix('*')?.parse().ok()?;
    (0..count)
        .map(|_| {
            line()?.strip_prefix('$')?;
            line()
        })
        .collect()
}

#[test]
fn what_is_no_resp_loses_the_link() {
    let redis = Redis::start();
    let cases: [&'static [u8]; 7] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$abc\r\n",
        b"*-5\r\n",
        b"*3\r\n$7\r\nmessage\r\n$7\r\nbooks.1xx$1\r\n1\r\n",
        b"*99999999999999999999\r\n",
        b"$1000000000000\r\n",
        b"\x00\x00\x00\x00",
    ];
    for bytes in cases {
        let port = false_redis(bytes);
        let router =
            Router::start(&redis, config_with(&redis, json!({ "REDIS": { "port": port } })));
        let mut client = router.client();
        client.send(&json!({ "event": "subscribe", "subscription": "books.1" }));
        let code = client.close_code();
        assert_eq!(code, 1012, "{}", String::from_utf8_lossy(bytes));
        router.wait_readyz(200);
    }
}

// A second Redis.

fn two_redis(config: Value) -> (World, Redis) {
    let alt = Redis::start();
    let mut whole = json!({ "REDIS_ALT": {
        "host": "127.0.0.1", "port": alt.port, "channel_prefix": "alt:", "connect_timeout": 2,
    } });
    merge(&mut whole, config);
    (watched(whole), alt)
}

#[test]
fn every_topic_is_subscribed_on_both() {
    let (world, alt) = two_redis(json!({}));
    let mut client = world.client();
    client.subscribe("books.1");
    assert_eq!(world.redis.channels(), ["books.1"]);
    assert_eq!(alt.channels(), ["alt:books.1"]);
    let message = |data: &str| json!({ "subscription": "books.1", "data": data }).to_string();
    alt.publish("alt:books.1", &message("from the second"));
    assert_eq!(client.recv_data(), "from the second");
    world.redis.publish("books.1", &message("from the first"));
    assert_eq!(client.recv_data(), "from the first");
    client.unsubscribe("books.1");
    world.redis.wait_channels(&[]);
    alt.wait_channels(&[]);
}

#[test]
fn losing_the_second_is_losing_redis() {
    let (world, mut alt) = two_redis(json!({}));
    let clients = three_readers(&world);
    alt.stop();
    expect_lost(&world, clients);
    world.router.wait_readyz(503);
    assert!(world.router.is_refusing(), "handshakes are refused");
    alt.restart();
    let _reader = expect_recovered(&world);
    assert_eq!(alt.channels(), ["alt:books.new"]);
    assert_eq!(world.redis.channels(), ["books.new"]);
}

#[test]
fn the_first_decides_what_losing_the_second_means() {
    let (mut world, mut alt) = two_redis(json!({ "REDIS": { "on_disconnect": "shutdown" } }));
    let clients = three_readers(&world);
    alt.stop();
    expect_lost(&world, clients);
    assert_eq!(world.router.wait_exit(), Some(0));
}

#[test]
fn both_are_needed_to_start() {
    let redis = Redis::start();
    let mut alt = Redis::start();
    alt.stop();
    let config = json!({
        "REDIS": { "connect_timeout": 0.5 },
        "REDIS_ALT": { "host": "127.0.0.1", "port": alt.port, "connect_timeout": 0.5 },
    });
    let mut router = Router::launch(config_with(&redis, config));
    assert_eq!(router.wait_exit(), Some(1));
}

// Refused channels.

#[test]
fn a_channel_that_redis_refuses_hits_nobody_else() {
    let redis = Redis::start();
    redis.command(&[
        "ACL",
        "SETUSER",
        "picky",
        "on",
        ">pw",
        "allcommands",
        "resetchannels",
        "&books.*",
    ]);
    let service = Service::start();
    let hooks = ["authorizer", "before_subscribe", "on_unsubscribe"];
    let config = json!({
        "REDIS": { "username": "picky", "password": "pw" },
        "SERVICES": { "books": service.hooks(&[]), "films": service.hooks(&hooks) },
    });
    let router = Router::start(&redis, config);
    let mut client = router.client();
    client.subscribe("books.1");
    let mut neighbour = router.client();
    neighbour.send(&json!({ "event": "subscribe", "subscription": "books.2" }));
    let answer = client.ask(&json!({ "event": "subscribe", "subscription": "films.1" }));
    let refused = json!({
        "event": "subscribe", "subscription": "films.1", "status": "error",
        "error": "Service unavailable.",
    });
    assert_eq!(answer, refused);
    assert_eq!(neighbour.recv()["status"], "ok");
    assert_eq!(service.paths(), ["/authorizer"]);
    redis.publish("books.1", r#"{"subscription":"books.1","data":1}"#);
    assert_eq!(client.recv_data(), 1);
    let named =
        |line: &Value| line.to_string().contains("films.1") && line.to_string().contains("NOPERM");
    until("a log line with Redis' reason", || router.log_lines().into_iter().find(named));
    assert_eq!(http::get(router.metrics_port, "/readyz").0.status(), 200);
}

#[test]
fn a_channel_that_only_one_redis_refuses_is_left_at_the_other() {
    let alt = Redis::start();
    alt.command(&["ACL", "SETUSER", "picky", "on", ">pw", "allcommands", "resetchannels"]);
    let world = World::new(|service| {
        json!({
            "SERVICES": { "books": service.hooks(&["before_subscribe"]) },
            "REDIS_ALT": {
                "host": "127.0.0.1", "port": alt.port, "username": "picky", "password": "pw",
            },
        })
    });
    // Two at once, and then one more.
    let mut clients = [world.client(), world.client()];
    for client in &mut clients {
        client.send(&subscribe("books.1"));
    }
    for client in &mut clients {
        assert_eq!(client.recv()["error"], "Service unavailable.");
    }
    assert_eq!(clients[0].ask(&subscribe("books.1"))["error"], "Service unavailable.");
    world.redis.wait_channels(&[]);
    assert!(world.service.all().is_empty());
    alt.command(&["ACL", "SETUSER", "picky", "allchannels"]);
    clients[0].subscribe("books.1");
}

// What clients hear, and when.

/// Who hears that a subscription has ended does not find it at Redis any more.
#[test]
fn redis_is_told_of_an_unsubscribe_before_the_client() {
    let world = World::books(&[]);
    let mut client = world.client();
    let mut redis = TcpStream::connect(("127.0.0.1", world.redis.port)).unwrap();
    let left = b"*2\r\n$7\r\nbooks.1\r\n:0\r\n";
    for _ in 0..500 {
        client.subscribe("books.1");
        client.unsubscribe("books.1");
        redis.write_all(b"PUBSUB NUMSUB books.1\r\n").unwrap();
        let mut answer = vec![0; left.len()];
        redis.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(left));
    }
}

// Slow confirmations.

#[test]
fn a_subscribe_waits_for_redis() {
    let world = World::books(&["authorizer", "before_subscribe"]);
    let mut client = world.client();
    let mut other = world.client();
    world.redis.freeze();
    client.send(&subscribe("books.1"));
    other.send(&subscribe("books.1"));
    world.service.wait("/authorizer", 2);
    client.expect_still();
    assert!(world.service.requests("/before_subscribe").is_empty());
    world.redis.thaw();
    for client in [&mut client, &mut other] {
        assert_eq!(client.recv()["status"], "ok");
    }
    world.publish("books.1", json!(1));
    assert_eq!(client.recv_data(), 1);
    assert_eq!(other.recv_data(), 1);
}

#[test]
fn clients_that_leave_while_redis_is_waited_for_leave_nothing() {
    let hooks = ["authorizer", "before_subscribe", "on_subscribe", "on_unsubscribe"];
    let world = World::books(&hooks);
    let mut client = world.client();
    world.redis.freeze();
    client.send(&subscribe("books.1"));
    world.service.wait("/authorizer", 1);
    client.expect_still();
    client.reset();
    world.router.wait_event("connection closed");
    world.redis.thaw();
    world.service.wait_paths(&hooks.map(|hook| format!("/{hook}")).each_ref().map(|path| &**path));
    world.redis.wait_channels(&[]);
}
