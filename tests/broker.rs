//! The embedded broker.
//!
//! - the router, fed without a socket, and another router at the broker
//! - starting and stopping
//! - peers that read slowly, or write before they read
//!
//! The clients that take it for a Redis are in `broker_clients`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener};

use serde_json::json;
use support::broker::{Broker, Peer, command, config};
use support::wait::{free_port, until};
use support::{Client, Router, Service};

// The router.

#[test]
fn the_router_reads_what_it_has_readers_for() {
    let broker = Broker::with(json!({ "REDIS": { "channel_prefix": "p:" } }));
    assert_eq!(broker.publish("books.1", &json!(1)), 0);
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let message = |data: i64| json!({ "subscription": "books.1", "data": data });
    assert_eq!(broker.publish_on("books.1", &message(2)), 0, "without its prefix");
    let mut peer = broker.peer();
    peer.send(&["SUBSCRIBE", "p:books.1"]);
    peer.expect("*3\r\n$9\r\nsubscribe\r\n$9\r\np:books.1\r\n:1\r\n");
    assert_eq!(broker.publish_on("p:books.1", &message(3)), 2, "the router counts as one");
    assert_eq!(client.recv_data(), 3);
    let text = message(3).to_string();
    peer.expect(&format!(
        "*3\r\n$7\r\nmessage\r\n$9\r\np:books.1\r\n${}\r\n{text}\r\n",
        text.len()
    ));
    client.unsubscribe("books.1");
    assert_eq!(broker.publish_on("p:books.1", &message(4)), 1);
    client.expect_quiet();
    assert_eq!(broker.router.metric("socketshark_broker_messages_published_total"), Some(4.0));
    broker.router.wait_metric("socketshark_broker_connections", 1.0);
    assert_eq!(broker.router.metric("socketshark_messages_received_total"), Some(1.0));
}

#[test]
fn messages_that_come_during_a_subscribe_follow_its_answer() {
    let service = Service::start();
    let gate = service.hold("/before_subscribe");
    let books = service.hooks(&["before_subscribe"]);
    let broker = Broker::with(json!({ "SERVICES": { "books": books } }));
    let mut client = broker.router.client();
    client.send(&support::subscribe("books.1"));
    service.wait("/before_subscribe", 1);
    for number in 0..3 {
        assert_eq!(broker.publish("books.1", &json!(number)), 1);
    }
    gate.open();
    client.expect(&support::answer("subscribe", "books.1", json!({ "status": "ok" })));
    for number in 0..3 {
        assert_eq!(client.recv_data(), number);
    }
}

#[test]
fn another_router_reads_from_the_broker() {
    let mut broker = Broker::with(json!({ "BROKER": { "password": "s3cret" } }));
    let redis = |password: &str| {
        json!({
            "host": "127.0.0.1", "port": broker.port, "password": password, "db": 42,
            "reconnect_max_delay": 0.2, "ping_interval": 0.2, "connect_timeout": 0.5,
        })
    };
    let launch = |password: &str| {
        Router::launch(config(json!({ "BROKER": null, "REDIS": redis(password) })))
    };
    let mut second = launch("s3cret");
    assert!(second.wait_ready());
    let mut clients = [broker.router.client(), second.client()];
    for client in &mut clients {
        client.subscribe("books.1");
    }
    for number in 0..100 {
        assert_eq!(broker.publish("books.1", &json!(number)), 2);
    }
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(client.recv_data(), number);
        }
    }
    let [of_first, mut of_second] = clients;
    of_first.close(1000);
    of_second.unsubscribe("books.1");
    until("the channel to be left", || (broker.publish("books.1", &json!(0)) == 0).then_some(()));
    until("a ping to be answered", || {
        second.metric("socketshark_redis_ping_latency_seconds{redis=\"redis\"}")
    });

    let mut refused = launch("wr0ng");
    assert_eq!(refused.wait_exit(), Some(1));
    assert!(refused.log_text().contains("WRONGPASS"), "{}", refused.log_text());

    // The end of the broker is the loss of Redis.
    assert_eq!(broker.router.stop(), Some(0));
    of_second.expect_close(1012);
    second.wait_readyz(503);
}

// Starting and stopping.

#[test]
fn redis_is_not_connected() {
    let redis = TcpListener::bind("127.0.0.1:0").unwrap();
    redis.set_nonblocking(true).unwrap();
    let place = json!({ "host": "127.0.0.1", "port": redis.local_addr().unwrap().port() });
    let broker = Broker::with(json!({ "REDIS": place, "REDIS_ALT": place }));
    assert_eq!(broker.router.get("/readyz").0.status(), 200);
    broker.router.client().subscribe("books.1");
    assert_eq!(redis.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut router = Router::launch(config(json!({ "BROKER": { "port": port } })));
    assert_eq!(router.wait_exit(), Some(1));
    let text = router.log_text();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}

#[test]
fn the_broker_serves_to_the_end() {
    let service = Service::start();
    let gate = service.hold("/on_unsubscribe");
    let books = service.hooks(&["on_unsubscribe"]);
    let mut broker = Broker::with(json!({ "SERVICES": { "books": books } }));
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let mut peer = broker.peer();
    assert_eq!(peer.ask(&["SUBSCRIBE", "x"]), "*3");
    broker.router.signal("TERM");
    client.expect_close(1001);
    service.wait("/on_unsubscribe", 1);
    // A farewell may well publish something.
    assert_eq!(broker.publish("x", &json!("bye")), 1);
    gate.open();
    assert_eq!(broker.router.wait_exit(), Some(0));
    assert!(peer.rest().contains("bye"));
}

#[test]
fn a_changed_broker_needs_a_restart() {
    let broker = Broker::start();
    broker.router.rewrite_config(|config| config["BROKER"]["password"] = json!("s3cret"));
    broker.router.signal("HUP");
    let line = broker.router.wait_event("configuration key needs a restart");
    assert_eq!(line["key"], "BROKER");
    assert_eq!(broker.peer().ask(&["PING"]), "+PONG");
}

// Peers that read slowly, or write before they read.

#[test]
fn a_slow_subscriber_is_closed_and_nobody_else_notices() {
    let broker = Broker::start();
    let mut slow = broker.peer();
    assert_eq!(slow.ask(&["SUBSCRIBE", "books.1"]), "*3");
    let mut client = broker.router.client();
    client.subscribe("books.1");
    // A few of them are more than may wait for a subscriber.
    let data = "x".repeat(5_000_000);
    let mut publisher = broker.peer();
    let message = json!({ "subscription": "books.1", "data": data }).to_string();
    let slow_peers = "socketshark_broker_slow_connections_total";
    until("the slow one to be closed", || {
        for _ in 0..2 {
            let receivers = publisher.ask(&["PUBLISH", "books.1", &message]);
            assert!([":1", ":2"].contains(&&*receivers), "{receivers}");
            assert_eq!(client.recv_data(), data.as_str());
        }
        (broker.router.metric(slow_peers) == Some(1.0)).then_some(())
    });
    assert_eq!(publisher.ask(&["PUBLISH", "books.1", &message]), ":1");
    broker.router.wait_event("broker connection too slow");
}

#[test]
fn a_long_pipeline_may_be_written_before_it_is_read() {
    let broker = Broker::start();
    let mut client = broker.router.client();
    client.subscribe("books.1");
    let mut peer = broker.peer();
    let one = command(&["PUBLISH", "other", "x"]);
    peer.stream.write_all(&one.repeat(300_000)).unwrap();
    let message = json!({ "subscription": "books.1", "data": "the last one" }).to_string();
    peer.send(&["PUBLISH", "books.1", &message]);
    assert_eq!(client.recv_data(), "the last one");
    peer.expect(&(":0\r\n".repeat(300_000) + ":1\r\n"));
}

#[test]
fn what_is_said_before_the_end_is_answered() {
    let broker = Broker::start();
    let mut peer = broker.peer();
    peer.stream.write_all(b"PING\r\nPUBLISH a b\r\n").unwrap();
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.rest(), "+PONG\r\n:0\r\n");
    let mut peer = broker.peer();
    peer.stream.write_all(&[&b"PING\r\n*1\r\n!"[..], &[b'x'; 100_000]].concat()).unwrap();
    assert_eq!(peer.rest(), "+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n");
    broker.router.wait_metric("socketshark_broker_connections", 0.0);
}

#[test]
fn many_peers_come_and_go() {
    let broker = Broker::start();
    for round in 0..3 {
        let mut peers: Vec<Peer> = (0..200).map(|_| broker.peer()).collect();
        for peer in &mut peers {
            assert_eq!(peer.ask(&["SUBSCRIBE", "a"]), "*3");
        }
        assert_eq!(broker.publish_on("a", &json!(round)), 200);
        let confirmed = "$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let message = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n{round}\r\n");
        let text = confirmed.to_owned() + &message;
        peers.iter_mut().for_each(|peer| peer.expect(&text));
        drop(peers);
        broker.router.wait_metric("socketshark_broker_connections", 0.0);
        assert_eq!(broker.publish_on("a", &json!(round)), 0);
    }
}

#[test]
fn a_port_in_the_configuration_is_the_broker_s() {
    let port = free_port();
    let broker = Broker::with(json!({ "BROKER": { "host": "localhost", "port": port } }));
    assert_eq!(broker.port, port);
    assert_eq!(
        Client::connect(broker.router.port).ask(&json!({ "event": "ping" }))["event"],
        "pong"
    );
    assert_eq!(broker.peer().ask(&["PING"]), "+PONG");
}
