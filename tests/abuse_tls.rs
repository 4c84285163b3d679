//! Hostile peers below the handshake of WebSocket: at the TLS layer.
//!
//! - handshakes that never come, or never end, and garbage in their place
//! - garbage, cut records and endless small ones on connections that are open
//! - a storm of handshakes beside somebody who does nothing wrong
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection};
use serde_json::{Value, json};
use support::innocent::{Innocent, calm};
use support::tls::{Authority, RSA, Relay, client_config};
use support::wait::{PATIENCE, until_true};
use support::{Client, Redis, Router};

struct Target {
    router: Router,
    redis: Redis,
    config: Arc<ClientConfig>,
    way: Relay,
    _authority: Authority,
}

impl Target {
    fn new(config: Value) -> Target {
        Target::with_key(support::tls::ECDSA, config)
    }

    fn with_key(kind: &str, mut config: Value) -> Target {
        let authority = Authority::new();
        let pair = authority.sign("router", kind, support::tls::HERE, 2);
        support::merge(&mut config, json!({ "WS_SSL": pair.config() }));
        let (router, redis) = Router::alone(calm(config));
        let config = client_config(&authority.cafile(), ALL_VERSIONS);
        let way = Relay::to_tls(router.port, config.clone());
        Target { router, redis, config: Arc::new(config), way, _authority: authority }
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.router.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(self.config.clone(), name).unwrap()
    }

    fn client_hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        self.session().write_tls(&mut hello).unwrap();
        hello
    }

    /// A connection with its handshake done, and its socket.
    fn open(&self) -> (ClientConnection, TcpStream) {
        let (mut session, mut stream) = (self.session(), self.dial());
        session.complete_io(&mut stream).unwrap();
        (session, stream)
    }

    /// Everybody else is still served.
    fn expect_alive(&self) {
        Client::connect(self.way.port).expect_quiet();
    }
}

/// What comes up to the end, and whether the end was a FIN.
fn read_out(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, false),
        Err(error) => panic!("{error}"),
    }
}

/// A fatal alert in the clear (RFC 8446, section 6).
fn is_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15, 3, _, 0, 2, 2, _])
}

#[test]
fn handshakes_that_do_not_end_are_ended() {
    let target = Target::new(json!({ "LIMITS": { "handshake_timeout": 1, "close_timeout": 30 } }));
    let hello = target.client_hello();
    let pieces: [&[u8]; 4] = [b"", &hello[..3], &hello[..hello.len() - 1], &hello];
    thread::scope(|scope| {
        for piece in pieces {
            let target = &target;
            scope.spawn(move || {
                let began = Instant::now();
                let mut stream = target.dial();
                stream.write_all(piece).unwrap();
                read_out(&mut stream);
                let took = began.elapsed();
                assert!(took >= Duration::from_millis(900), "{took:?}");
                assert!(took < Duration::from_secs(15), "{took:?}");
            });
        }
        // A byte now and then is no progress.
        let (target, hello) = (&target, &hello);
        scope.spawn(move || {
            let (began, mut stream) = (Instant::now(), target.dial());
            for byte in hello.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() || began.elapsed() > PATIENCE {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            assert!(began.elapsed() < Duration::from_secs(15));
        });
    });
    target.expect_alive();
}

#[test]
fn garbage_gets_an_alert_and_a_clean_end() {
    let target = Target::new(json!({}));
    let descriptors = target.router.descriptors();
    let long = [0x16, 3, 1, 0xff, 0xff];
    let endless = [&[0x16, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff][..], &[0; 16_400]].concat();
    let garbage: [&[u8]; 7] = [
        b"\0\0\0\0\0\0\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
        &long,
        &endless,
        &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5],
        &[b'x'; 100_000],
    ];
    for bytes in garbage {
        let mut stream = target.dial();
        stream.write_all(bytes).unwrap();
        let (answer, is_clean) = read_out(&mut stream);
        // rustls has no alert for a message that is said to be too long.
        assert!(is_alert(&answer) || (answer.is_empty() && bytes == endless), "{answer:?}");
        assert!(is_clean, "{answer:?}");
    }
    let mut stream = target.dial();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (answer, is_clean) = read_out(&mut stream);
    assert!(answer.starts_with(b"HTTP/1.1 400 ") && is_clean);
    until_true("their sockets to be closed", || target.router.descriptors() <= descriptors);
    target.expect_alive();
}

#[test]
fn open_connections_end_at_the_first_byte_that_is_forged() {
    let target = Target::new(json!({}));
    let request = support::client::request("/", "");
    for forgery in 0..4 {
        let (mut session, mut stream) = target.open();
        session.writer().write_all(request.as_bytes()).unwrap();
        session.complete_io(&mut stream).unwrap();
        session.writer().write_all(b"\x89\x80\0\0\0\0").unwrap();
        let mut record = Vec::new();
        session.write_tls(&mut record).unwrap();
        match forgery {
            0 => *record.last_mut().unwrap() ^= 1,
            1 => record = [0x17, 3, 3, 0x48, 1].to_vec(),
            2 => record = [0x17, 3, 3, 0, 0].repeat(1_000),
            _ => record = target.client_hello(),
        }
        let _ = stream.write_all(&record);
        let (answer, _) = read_out(&mut stream);
        assert!(answer.len() < 4_096);
    }
    target.expect_alive();
}

/// What stands at the end of a record that was cut off must not be taken for a message.
#[test]
fn a_record_that_is_cut_short_is_nothing() {
    let target = Target::new(json!({}));
    let (mut session, mut stream) = target.open();
    let request = support::client::request("/", "");
    session.writer().write_all(request.as_bytes()).unwrap();
    let mut record = Vec::new();
    session.write_tls(&mut record).unwrap();
    stream.write_all(&record[..record.len() - 1]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    session.read_tls(&mut stream).unwrap();
    read_out(&mut stream);
    assert!(!target.router.log_text().contains("new session"));
    target.expect_alive();
}

#[test]
fn a_last_message_that_comes_with_the_end_is_heard() {
    let target = Target::new(json!({}));
    let request = support::client::request("/", "");
    for says_farewell in [true, false] {
        let (mut session, mut stream) = target.open();
        session.writer().write_all(request.as_bytes()).unwrap();
        let event = br#"{"event":"ping"}"#;
        session.writer().write_all(&support::client::frame(0x81, event)).unwrap();
        if says_farewell {
            session.send_close_notify();
        }
        // All of it, and the FIN, are there before the router looks.
        target.router.freeze();
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).unwrap();
        }
        stream.write_all(&records).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        target.router.thaw();
        let began = Instant::now();
        let mut answer = Vec::new();
        while session.read_tls(&mut stream).unwrap() > 0 {
            session.process_new_packets().unwrap();
            let _ = session.reader().read_to_end(&mut answer);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 101") && text.contains("pong"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[test]
fn a_storm_of_handshakes_leaves_the_others_their_turn() {
    // The costliest key that is usual.
    let mut target = Target::with_key(RSA, json!({}));
    let port = target.router.port;
    let hello = target.client_hello();
    target.router.port = target.way.port;
    let innocent = Innocent::start(&target.router, &target.redis);
    let stop = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..4)
        .map(|_| {
            let (hello, stop) = (hello.clone(), stop.clone());
            thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Each is worth a signature to the router, and nothing to us.
                    let connect = || TcpStream::connect(("127.0.0.1", port));
                    let streams: Vec<_> = (0..16).filter_map(|_| connect().ok()).collect();
                    for mut stream in &streams {
                        let _ = stream.write_all(&hello);
                    }
                    for mut stream in &streams {
                        let _ = stream.read(&mut [0; 16]);
                        count += 1;
                    }
                }
                count
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let count: usize = storm.into_iter().map(|storm| storm.join().unwrap()).sum();
    assert!(count > 100, "it was no storm: {count}");
    innocent.finish();
}
