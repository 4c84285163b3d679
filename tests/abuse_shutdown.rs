//! Signals under load.
//!
//! - the end with a thousand clients, floods and a slow service; the second signal; the time-out
//! - clients that do not let go
//! - reloads by the dozen, also of broken files
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::{TEXT, frame};
use support::innocent::{Innocent, calm, dial, raise_descriptors};
use support::service::Reply;
use support::{Client, Redis, Router, Service, subscribe};

const FIN: u8 = 0x80;

fn crowd(router: &Router, count: usize, subscription: &str) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(&subscribe(subscription));
    }
    for client in &mut clients {
        assert_eq!(client.recv()["status"], "ok");
    }
    clients
}

/// Each of them is told, whatever else it had to read before.
fn expect_told(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.close_code(), 1001);
    }
}

#[test]
fn the_end_is_clean_under_load() {
    raise_descriptors();
    let redis = Redis::start();
    let service = Service::start();
    let hooks = service.hooks(&["on_unsubscribe"]);
    let config = json!({ "SERVICES": { "books": hooks } });
    let mut router = Router::start(&redis, calm(config));
    let count = 1_000;
    let clients = crowd(&router, count, "books.1");
    service.on("/on_unsubscribe", |_| {
        thread::sleep(Duration::from_millis(5)); // a service that takes its time
        Reply::ok()
    });
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut client = router.client();
            let over = &over;
            scope.spawn(move || {
                let block = frame(FIN | TEXT, br#"{"event":"ping"}"#).repeat(100);
                client.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
                while !over.load(Ordering::Relaxed) && client.stream.write_all(&block).is_ok() {}
            });
        }
        let (redis, over) = (&redis, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                redis.publish("books.1", r#"{"subscription":"books.1","data":1}"#);
            }
        });
        router.signal("TERM");
        expect_told(clients);
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(router.wait_exit(), Some(0));
    assert_eq!(service.requests("/on_unsubscribe").len(), count, "once for each");
    assert!(redis.channels().is_empty());
}

#[test]
fn the_second_signal_ends_it_at_once() {
    raise_descriptors();
    let redis = Redis::start();
    let service = Service::start();
    let hooks = service.hooks(&["on_unsubscribe"]);
    let mut router = Router::start(&redis, calm(json!({ "SERVICES": { "books": hooks } })));
    let clients = crowd(&router, 300, "books.1");
    service.answer("/on_unsubscribe", Reply::Hang);
    router.signal("TERM");
    service.wait("/on_unsubscribe", 64);
    let began = Instant::now();
    router.signal("TERM");
    assert_eq!(router.wait_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let line = router.wait_event("stop requested again");
    assert_eq!(line["callbacks"], 300, "it says what was left undone");
    expect_told(clients);
}

#[test]
fn the_end_has_a_time_whoever_holds_on() {
    let redis = Redis::start();
    let service = Service::start();
    let hooks = service.hooks(&["on_unsubscribe"]);
    let config = json!({
        "SERVICES": { "books": hooks },
        "LIMITS": { "shutdown_timeout": 1, "close_timeout": 20 },
    });
    let mut router = Router::start(&redis, calm(config));
    service.answer("/on_unsubscribe", Reply::Hang);
    // These never answer the Close, and some have much unread.
    let clients = crowd(&router, 50, "books.1");
    let data = json!({ "subscription": "books.1", "data": "x".repeat(500_000) }).to_string();
    for _ in 0..2 {
        redis.publish("books.1", &data);
    }
    let silent: Vec<_> = (0..50).map(|_| dial(router.port)).collect();
    let began = Instant::now();
    router.signal("TERM");
    assert_eq!(router.wait_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop((clients, silent));
}

#[test]
fn reloads_under_load_drop_nobody() {
    let redis = Redis::start();
    let service = Service::start();
    let config = json!({ "SERVICES": { "books": service.hooks(&["on_message"]) } });
    let router = Router::start(&redis, calm(config));
    let innocent = Innocent::start(&router, &redis);
    let mut clients = crowd(&router, 100, "books.1");
    let good = std::fs::read_to_string(router.config_path()).unwrap();
    let broken = ["", "{", "[]", "{\"SERVICES\": 1}", "{\"WS_PRT\": 1}", "\u{0}", &good[..50]];
    for round in 0..30 {
        match round % 3 {
            0 => router.overwrite_config(broken[round % broken.len()]),
            1 => router.rewrite_config_from(&good, |config| {
                config["SERVICES"].as_object_mut().unwrap().remove("books");
            }),
            _ => router.rewrite_config_from(&good, |config| {
                config["LIMITS"] = json!({ "max_queued_events_per_session": 1 + round });
                config["HTTP"]["max_connections_per_host"] = json!(1 + round % 7);
            }),
        }
        router.signal("HUP");
        for client in clients.iter_mut().take(10) {
            client.expect_quiet();
        }
    }
    // Signals that come at once may be taken as one, but the last file counts.
    router.overwrite_config(&good);
    for _ in 0..100 {
        router.signal("HUP");
    }
    for client in &mut clients {
        client.expect_quiet();
    }
    router.client().subscribe("books.2");
    let lines = router.log_lines();
    let mut events: HashMap<&str, usize> = HashMap::new();
    for line in &lines {
        *events.entry(line["event"].as_str().unwrap_or_default()).or_default() += 1;
    }
    assert!(events["configuration reloaded"] > 0 && events["configuration not reloaded"] > 0);
    innocent.finish();
}
