//! Descriptors used up: 64 of them and 500 clients.
//!
//! - who is in is served, who is not waits, and no time is burnt; recovery when some leave
//! - the reserve of callbacks, Redis and the metrics port
//! - a service that takes all of the reserve
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::innocent::{Innocent, calm, dial, raise_descriptors};
use support::router::base_config;
use support::service::Reply;
use support::wait::{until, until_true};
use support::{Client, Redis, Router, Service, merge, subscribe};

const DESCRIPTORS: usize = 64;

fn start(redis: &Redis, config: Value) -> Router {
    raise_descriptors();
    let mut whole = base_config(redis);
    merge(&mut whole, calm(config));
    let mut router = Router::launch_with_descriptors(DESCRIPTORS, whole);
    assert!(router.wait_ready());
    router
}

/// Connections that are made, accepted or not.
fn crowd(router: &Router) -> Vec<TcpStream> {
    let crowd = (0..500).map(|_| dial(router.port)).collect();
    router.wait_event("accepting paused");
    crowd
}

#[test]
fn who_is_in_is_served_and_no_time_is_burnt() {
    let redis = Redis::start();
    let router = start(&redis, json!({ "LIMITS": { "handshake_timeout": 60 } }));
    let innocent = Innocent::start(&router, &redis);
    let crowd = crowd(&router);
    let (began, before) = (Instant::now(), router.cpu_time());
    let mut client = None;
    until("half a second to pass", || {
        // Nobody is accepted, and it is not tried again and again.
        client = client.take().or_else(|| Some(dial(router.port)));
        (began.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let spent = router.cpu_time() - before;
    assert!(spent < began.elapsed() / 2 + Duration::from_millis(100), "{spent:?} of CPU time");
    assert!(router.descriptors() <= DESCRIPTORS);
    assert_eq!(router.get("/healthz").0.status(), 200, "the metrics port has its own reserve");
    innocent.finish();
    drop(crowd);
    router.wait_event("accepting again");
    router.client().expect_quiet();
    let lines = router.log_lines().len();
    assert!(lines < 600, "{lines} lines in the log");
}

#[test]
fn sessions_that_leave_make_room_for_those_who_wait() {
    let redis = Redis::start();
    let router = start(&redis, json!({}));
    let mut sessions = Vec::new();
    let request = support::client::request("/", "");
    // The kernel accepts all of them, the router as many as it can.
    let mut waiting: Vec<TcpStream> = (0..200).map(|_| dial(router.port)).collect();
    for stream in &mut waiting {
        use std::io::Write;
        stream.write_all(request.as_bytes()).unwrap();
    }
    router.wait_event("accepting paused");
    while let Some(stream) = waiting.pop() {
        sessions.push(stream);
    }
    // Each that leaves lets another one in, until all have been served.
    sessions.reverse();
    for mut stream in sessions {
        use std::io::Read;
        let mut answer = [0; 12];
        stream.set_read_timeout(Some(support::wait::PATIENCE)).unwrap();
        stream.read_exact(&mut answer).expect("its turn comes");
        assert_eq!(&answer, b"HTTP/1.1 101");
    }
    router.client().expect_quiet();
}

#[test]
fn callbacks_and_redis_have_a_reserve() {
    let mut redis = Redis::start();
    let service = Service::start();
    let hooks = service.hooks(&["before_subscribe", "on_unsubscribe"]);
    let router = start(&redis, json!({ "SERVICES": { "books": hooks } }));
    let mut clients: Vec<Client> = (0..10).map(|_| router.client()).collect();
    let crowd = crowd(&router);
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("books.{number}"));
    }
    redis.restart();
    for client in &mut clients {
        client.expect_close(1012);
    }
    service.wait("/on_unsubscribe", 10);
    router.wait_readyz(200);
    drop(crowd);
    router.client().subscribe("books.1");
}

/// What rests between two calls makes room for calls to somebody else.
#[test]
fn kept_connections_give_way() {
    let redis = Redis::start();
    let (first, second) = (Service::start(), Service::start());
    let config = json!({
        "SERVICES": {
            "first": first.hooks(&["authorizer"]),
            "second": second.hooks(&["authorizer"]),
        },
        "HTTP": { "keepalive_timeout": 60, "tries": 5, "wait": 0.02 },
    });
    let router = start(&redis, config);
    let mut clients: Vec<Client> = (0..28).map(|_| router.client()).collect();
    let gate = first.hold("/authorizer");
    let (some, others) = clients.split_at_mut(18);
    for client in &mut *some {
        client.send(&subscribe("first.1"));
    }
    first.wait("/authorizer", 10);
    gate.open();
    for client in some {
        assert_eq!(client.recv()["status"], "ok");
    }
    let gate = second.hold("/authorizer");
    for client in &mut *others {
        client.send(&subscribe("second.1"));
    }
    second.wait("/authorizer", others.len());
    gate.open();
    for client in others {
        assert_eq!(client.recv()["status"], "ok");
    }
}

/// Calls that find no descriptor wait for one: their service has done nothing wrong.
#[test]
fn more_calls_than_descriptors_wait_for_one_another() {
    let redis = Redis::start();
    let service = Service::start();
    let config = json!({
        "SERVICES": { "books": service.hooks(&["authorizer"]) },
        "HTTP": { "tries": 1 },
    });
    let router = start(&redis, config);
    let mut clients: Vec<Client> = (0..28).map(|_| router.client()).collect();
    let _crowd = crowd(&router);
    let gate = service.hold("/authorizer");
    for client in &mut clients {
        client.send(&subscribe("books.1"));
    }
    router.wait_event("connecting paused");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.recv()["status"], "ok");
    }
    service.wait("/authorizer", clients.len());
}

/// All of the reserve is in the hands of a service that does not answer.
#[test]
fn a_stalled_service_does_not_take_the_descriptors_of_the_others() {
    let redis = Redis::start();
    let (stalled, quick) = (Service::start(), Service::start());
    stalled.answer("/authorizer", Reply::Hang);
    let router = start(
        &redis,
        json!({
            "SERVICES": {
                "stalled": stalled.hooks(&["authorizer"]),
                "quick": quick.hooks(&["authorizer"]),
            },
            "HTTP": { "timeout": 1, "tries": 2 },
        }),
    );
    let innocent = Innocent::start(&router, &redis);
    let mut other = router.client();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = router.client();
        client.send(&subscribe("stalled.1"));
        clients.push(client);
    }
    let crowd = crowd(&router);
    other.subscribe("quick.1");
    other.unsubscribe("quick.1");
    for client in &mut clients {
        assert_eq!(client.recv()["error"], "Service unavailable.");
    }
    other.subscribe("quick.2");
    drop((clients, crowd));
    until_true("descriptors to come back", || router.descriptors() < DESCRIPTORS / 2);
    innocent.finish();
}
