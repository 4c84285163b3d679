//! A Redis that fails in every way: everybody is told, nothing is burnt, and once it is back,
//! service is back, without help.
//!
//! - killed, stopped, given another password, cut in the middle of a message, speaking nonsense
//! - a thousand clients that all return at once
//! - nonsense by chance
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::request;
use support::innocent::{Innocent, calm, raise_descriptors};
use support::random::Random;
use support::wait::{PATIENCE, until, until_true};
use support::{Client, Redis, Router, merge};

/// `reconnect_max_delay` of these tests.
const DELAY: Duration = Duration::from_millis(500);

/// What recovery may take more than that.
const GRACE: Duration = Duration::from_secs(1);

/// Between the router and its Redis: passes all on, and does harm when told.
struct Middleman {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The router's sides of the connections that are up.
    links: Mutex<Vec<TcpStream>>,
    /// Whether new connections are dropped.
    shut: AtomicBool,
}

impl Middleman {
    fn before(redis: &Redis) -> Middleman {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (accepting, redis_port) = (shared.clone(), redis.port);
        thread::spawn(move || {
            for link in listener.incoming().flatten() {
                if accepting.shut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", redis_port)) else { continue };
                accepting.links.lock().unwrap().push(link.try_clone().unwrap());
                pass_on(link.try_clone().unwrap(), upstream.try_clone().unwrap());
                pass_on(upstream, link);
            }
        });
        Middleman { port, shared }
    }

    /// Says something in Redis's place.
    fn inject(&self, bytes: &[u8]) {
        for mut link in &*self.shared.links.lock().unwrap() {
            let _ = link.write_all(bytes);
        }
    }

    /// Resets all connections.
    fn reset(&self) {
        for link in self.shared.links.lock().unwrap().drain(..) {
            socket2::SockRef::from(&link).set_linger(Some(Duration::ZERO)).unwrap();
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    fn shut(&self, shut: bool) {
        self.shared.shut.store(shut, Ordering::Relaxed);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut block = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut block) {
            if to.write_all(&block[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

fn config(port: u16) -> Value {
    calm(json!({
        "REDIS": {
            "port": port, "reconnect_max_delay": DELAY.as_secs_f64(), "connect_timeout": 1,
            "ping_interval": 0.5, "ping_timeout": 1.5,
        },
    }))
}

/// Everybody is told, and nobody gets in.
#[track_caller]
fn expect_lost(router: &Router, clients: &mut Vec<Client>) {
    for client in clients.drain(..) {
        let mut client = client;
        assert_eq!(client.close_code(), 1012);
    }
    router.wait_readyz(503);
    let refusal = Client::handshake(router.port, &request("/", "")).err().flatten();
    let refusal = refusal.expect("an answer");
    assert_eq!((refusal.status(), refusal.header("Retry-After").is_some()), (503, true));
}

/// It is back from now on: so is service.
#[track_caller]
fn expect_back(router: &Router, redis: &Redis) -> Vec<Client> {
    let began = Instant::now();
    until_true("readiness", || router.get("/readyz").0.status() == 200);
    let took = began.elapsed();
    // Twice, since the machine may be busy with other things.
    assert!(took < 2 * (DELAY + GRACE), "{took:?}");
    let mut clients: Vec<Client> = (0..3).map(|_| router.client()).collect();
    for client in &mut clients {
        client.subscribe("calm.2");
    }
    redis.publish("calm.2", r#"{"subscription":"calm.2","data":1}"#);
    for client in &mut clients {
        assert_eq!(client.recv_data(), 1);
    }
    clients
}

#[test]
fn every_loss_is_recovered_from() {
    let mut redis = Redis::start();
    let middleman = Middleman::before(&redis);
    let router = Router::start(&redis, config(middleman.port));
    let mut clients = expect_back(&router, &redis);
    let message = "*3\r\n$7\r\nmessage\r\n$6\r\ncalm.2\r\n$100\r\n{\"subscription\":\"calm.2\",";

    // A crash, and a while without it.
    redis.stop();
    expect_lost(&router, &mut clients);
    let before = router.cpu_time();
    let began = Instant::now();
    until_true("a second", || began.elapsed() > Duration::from_secs(1));
    let spent = router.cpu_time() - before;
    assert!(spent < Duration::from_millis(500), "{spent:?} of CPU time without Redis");
    redis.restart();
    clients = expect_back(&router, &redis);

    // It stands still, its sockets open.
    redis.freeze();
    expect_lost(&router, &mut clients);
    redis.thaw();
    clients = expect_back(&router, &redis);

    // A message is cut in the middle: nobody gets a part of it.
    middleman.inject(message.as_bytes());
    middleman.reset();
    middleman.shut(true);
    expect_lost(&router, &mut clients);
    middleman.shut(false);
    clients = expect_back(&router, &redis);

    for nonsense in
        ["+OK\r\n", ":1\r\n", "-ERR what\r\n", "$5\r\nhello\r\n", "%1\r\n+a\r\n+b\r\n", "HTTP/1.1"]
    {
        middleman.shut(true);
        middleman.inject(nonsense.as_bytes());
        expect_lost(&router, &mut clients);
        middleman.shut(false);
        clients = expect_back(&router, &redis);
    }
    assert_eq!(router.metric("socketshark_subscriptions"), Some(3.0));
}

#[test]
fn another_password_is_waited_out() {
    let mut redis = Redis::with_password("first");
    let mut whole = config(redis.port);
    merge(&mut whole, json!({ "REDIS": { "password": "first" } }));
    let router = Router::start(&redis, whole);
    let mut clients = expect_back(&router, &redis);
    redis.restart_with_password("second");
    expect_lost(&router, &mut clients);
    let attempts = || {
        let lines = router.log_lines();
        lines.iter().filter(|line| line.to_string().contains("AUTH refused")).count()
    };
    let (before, began) = (attempts(), Instant::now());
    until_true("a second", || began.elapsed() > Duration::from_secs(1));
    assert!(attempts() - before <= 25, "{} attempts in a second", attempts() - before);
    redis.restart_with_password("first");
    expect_back(&router, &redis);
    let log = router.log_text();
    assert!(!log.contains("\"first\"") && !log.contains("second\""), "passwords are not logged");
}

#[test]
fn a_thousand_clients_that_return_at_once_are_served() {
    raise_descriptors();
    let mut redis = Redis::start();
    let router = Router::start(&redis, config(redis.port));
    let (threads, each) = (8, 125);
    let port = router.port;
    let crowds: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                let mut clients: Vec<Client> = (0..each).map(|_| Client::connect(port)).collect();
                for client in &mut clients {
                    client.subscribe("calm.crowd");
                }
                clients
            })
        })
        .collect();
    let crowds: Vec<_> = crowds.into_iter().map(|crowd| crowd.join().unwrap()).collect();
    redis.restart();
    let crowds: Vec<_> = crowds
        .into_iter()
        .map(|clients| thread::spawn(move || clients.into_iter().map(back).collect::<Vec<_>>()))
        .collect();
    let mut clients: Vec<Client> =
        crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect();
    let innocent = Innocent::start(&router, &redis);
    redis.publish("calm.crowd", r#"{"subscription":"calm.crowd","data":"again"}"#);
    for client in &mut clients {
        assert_eq!(client.recv_data(), "again");
    }
    assert_eq!(redis.channels(), ["calm.1", "calm.crowd"]);
    assert_eq!(router.metric("socketshark_subscriptions"), Some((threads * each + 1) as f64));
    innocent.finish();
}

/// Is told to go, and comes again until it is let in.
fn back(mut client: Client) -> Client {
    assert_eq!(client.close_code(), 1012);
    let port = client.stream.peer_addr().unwrap().port();
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut client) = Client::handshake(port, &request("/", "")) {
            client.subscribe("calm.crowd");
            return client;
        }
        assert!(Instant::now() < deadline, "never let in again");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nonsense_by_chance_is_survived() {
    let redis = Redis::start();
    let middleman = Middleman::before(&redis);
    let router = Router::start(&redis, config(middleman.port));
    let replies = "*3\r\n$7\r\nmessage\r\n$6\r\ncalm.2\r\n$34\r\n\
                   {\"subscription\":\"calm.2\",\"data\":12}\r\n\
                   *3\r\n$9\r\nsubscribe\r\n$6\r\ncalm.9\r\n:1\r\n+PONG\r\n";
    let mut random = Random::new(7);
    for _ in 0..40 {
        let mut bytes = replies.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            random.spoil(&mut bytes);
        }
        until("readiness", || (router.get("/readyz").0.status() == 200).then_some(()));
        middleman.inject(&bytes);
    }
    // Whatever the last one was: it ends by a reset, and all is well again.
    middleman.reset();
    let began = Instant::now();
    until("a client to be served", || {
        let mut client = Client::handshake(router.port, &request("/", "")).ok()?;
        client.send(&support::subscribe("calm.3"));
        let frame = client.try_frame()?;
        String::from_utf8_lossy(&frame.payload).contains("\"ok\"").then_some(())
    });
    assert!(began.elapsed() < PATIENCE);
}
