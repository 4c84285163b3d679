//! TLS, in builds that have it: what each side sees, with certificates made here.
//!
//! - clients: versions, kinds of keys, resumption, long messages, the end
//! - files that do not do, and reloads
//! - `https://` callbacks: who is trusted, and what the log says of others
//! - Redis over TLS, with and without certificates of ours
//! - Chromium, OpenSSL and curl as peers
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use support::redis::Resp;
use support::router::{BINARY, run};
use support::tls::{
    Authority, ECDSA, ED25519, HERE, Pair, RSA, Relay, client_config, server_config,
};
use support::wait::{TempDir, free_port};
use support::{Client, Redis, Router, Service, World, merge, subscribe};

/// A router whose clients come over TLS, and a way to it for clients that speak none.
struct Secure {
    authority: Authority,
    router: Router,
    redis: Redis,
    way: Relay,
}

impl Secure {
    fn new(config: Value) -> Secure {
        let authority = Authority::new();
        let pair = authority.here("router");
        Secure::with(authority, &pair, config)
    }

    fn with(authority: Authority, pair: &Pair, mut config: Value) -> Secure {
        let services = json!({ "books": { "require_authentication": false } });
        merge(&mut config, json!({ "WS_SSL": pair.config(), "SERVICES": services }));
        let (router, redis) = Router::alone(config);
        let config = client_config(&authority.cafile(), ALL_VERSIONS);
        let way = Relay::to_tls(router.port, config);
        Secure { authority, router, redis, way }
    }

    fn client(&self) -> Client {
        Client::connect(self.way.port)
    }

    fn publish(&self, data: &Value) {
        let message = json!({ "subscription": "books.1", "data": data });
        self.redis.publish("books.1", &message.to_string());
    }
}

// Clients.

#[test]
fn clients_come_over_both_versions_and_sessions_are_taken_up_again() {
    let secure = Secure::new(json!({}));
    for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let config = client_config(&secure.authority.cafile(), &[version]);
        let way = Relay::to_tls(secure.router.port, config);
        for _ in 0..3 {
            let mut client = Client::connect(way.port);
            client.subscribe("books.1");
            secure.publish(&json!({ "title": "Moby-Dick" }));
            assert_eq!(client.recv_data(), json!({ "title": "Moby-Dick" }));
            client.close(1000);
        }
        assert_eq!(*way.seen.versions.lock().unwrap(), [name; 3]);
        assert_eq!(*way.seen.protocols.lock().unwrap(), ["http/1.1"; 3]);
        assert_eq!(way.seen.resumed.load(Ordering::Relaxed), 2, "{name}");
        assert!(way.seen.errors.lock().unwrap().is_empty());
    }
    assert_eq!(secure.router.wait_event("ready")["secure"], true);
}

#[test]
fn all_usual_kinds_of_keys_do() {
    let authority = Authority::new();
    let rsa = authority.sign("rsa", RSA, HERE, 2);
    let ecdsa = authority.here("ecdsa");
    let ed25519 = authority.sign("ed25519", ED25519, HERE, 2);
    authority.openssl("rsa -in rsa.key -traditional -out pkcs1.key");
    authority.openssl("ec -in ecdsa.key -out sec1.key");
    let at = |name: &str| authority.path(name).display().to_string();
    let pairs = [
        rsa.clone(),
        ecdsa.clone(),
        ed25519,
        Pair { key: at("pkcs1.key"), ..rsa },
        Pair { key: at("sec1.key"), ..ecdsa },
    ];
    for pair in pairs {
        let config = json!({ "WS_SSL": pair.config() });
        let (router, _redis) = Router::alone(config);
        let config = client_config(&authority.cafile(), ALL_VERSIONS);
        Client::connect(Relay::to_tls(router.port, config).port).expect_quiet();
    }
}

#[test]
fn long_messages_go_both_ways() {
    let secure = Secure::new(json!({}));
    let mut client = secure.client();
    client.subscribe("books.1");
    for length in [100, 16_300, 16_384, 16_385, 70_000, 900_000] {
        let text = "x".repeat(length);
        secure.publish(&json!(text));
        assert_eq!(client.recv_data(), json!(text));
        let error = client.ask(&json!({ "event": "no such event", "data": text }));
        assert_eq!(error["status"], "error");
    }
    for number in 0..2_000 {
        secure.publish(&json!(number));
    }
    for number in 0..2_000 {
        assert_eq!(client.recv_data(), json!(number));
    }
    client.close(1000);
}

#[test]
fn whoever_reads_too_slowly_is_closed_in_step() {
    const MESSAGES: usize = 2_000;
    let limits = json!({ "send_queue_bytes": 100_000 });
    let log = json!({ "level": "INFO", "trace_level": "INFO" });
    let secure = Secure::new(json!({ "LIMITS": limits, "LOG": log }));
    let mut client = secure.client();
    client.subscribe("books.1");
    let text = "x".repeat(50_000);
    // More than all sockets on the way can hold.
    for _ in 0..MESSAGES {
        secure.publish(&json!(text));
    }
    let mut whole = 0;
    let code = loop {
        let frame = client.try_frame().expect("a Close at the end");
        if frame.opcode == support::client::CLOSE {
            break u16::from_be_bytes(*frame.payload.first_chunk().unwrap());
        }
        assert!(frame.payload.len() > 50_000, "no frame is cut short");
        whole += 1;
    };
    assert_eq!(code, 1013);
    assert!((1..MESSAGES).contains(&whole), "{whole}");
}

#[test]
fn a_shutdown_says_goodbye_in_both_languages() {
    let mut secure = Secure::new(json!({}));
    let mut client = secure.client();
    client.subscribe("books.1");
    secure.router.signal("TERM");
    client.expect_close(1001);
    assert_eq!(secure.router.wait_exit(), Some(0));
    // A stream without a close_notify is an error to rustls.
    assert!(secure.way.seen.errors.lock().unwrap().is_empty());
}

#[test]
fn those_who_are_turned_away_hear_so() {
    let secure = Secure::new(json!({ "LIMITS": { "max_connections": 1 } }));
    let mut first = secure.client();
    let request = support::client::request("/", "");
    let refusal = Client::handshake(secure.way.port, &request).err().flatten();
    assert_eq!(refusal.expect("an answer").status(), 503);
    first.expect_quiet();
}

// Files.

fn check(config: &Value) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let (status, _, err) = run(&["--check", "-c", path.to_str().unwrap()]);
    (status, err)
}

#[test]
fn files_that_do_not_do_are_configuration_errors() {
    let authority = Authority::new();
    let (one, other) = (authority.here("one"), authority.sign("other", RSA, HERE, 2));
    authority.openssl("rsa -in other.key -aes128 -passout pass:secret -out locked.key");
    fs::write(authority.path("text.pem"), "hello\n").unwrap();
    fs::write(authority.path("broken.pem"), "-----BEGIN CERTIFICATE-----\n!!!\n").unwrap();
    let at = |name: &str| authority.path(name).display().to_string();
    let ws = |cert: &str, key: &str| json!({ "WS_SSL": { "cert": cert, "key": key } });
    let redis = |cert: &str, key: &str| {
        let ca = authority.cafile();
        json!({ "REDIS": { "tls": true, "ssl_cafile": ca, "ssl_certfile": cert,
            "ssl_keyfile": key } })
    };
    let https = json!({ "a": { "on_message": "https://localhost/x" } });
    let cases = [
        (ws(&one.cert, &other.key), "WS_SSL.key: ", &other.key, "is not the key of"),
        (ws(&at("missing"), &one.key), "WS_SSL.cert: ", &at("missing"), "No such file"),
        (ws(&at("text.pem"), &one.key), "WS_SSL.cert: ", &at("text.pem"), "no certificate"),
        (ws(&at("broken.pem"), &one.key), "WS_SSL.cert: ", &at("broken.pem"), "broken"),
        (ws(&one.cert, &one.cert), "WS_SSL.key: ", &one.cert, "no private key"),
        (ws(&other.cert, &at("locked.key")), "WS_SSL.key: ", &at("locked.key"), "not encrypted"),
        (redis(&one.cert, &other.key), "REDIS.ssl_keyfile: ", &other.key, "is not the key of"),
        (
            json!({ "REDIS": { "tls": true, "ssl_cafile": at("text.pem") } }),
            "REDIS.ssl_cafile: ",
            &at("text.pem"),
            "no certificate",
        ),
        (
            json!({ "HTTP": { "ssl_cafile": at("missing") }, "SERVICES": https }),
            "HTTP.ssl_cafile: ",
            &at("missing"),
            "No such file",
        ),
    ];
    for (config, key, path, problem) in cases {
        let (status, err) = check(&config);
        assert_eq!(status, Some(2), "{config}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        for part in [key, path, problem] {
            assert!(err.contains(part), "{part} is not in {err}");
        }
    }
    assert_eq!(check(&ws(&one.cert, &one.key)), (Some(0), String::new()));
    assert_eq!(check(&redis(&one.cert, &one.key)), (Some(0), String::new()));
    // Without an https:// URL nobody needs it.
    assert_eq!(check(&json!({ "HTTP": { "ssl_cafile": at("missing") } })).0, Some(0));
}

#[test]
fn a_reload_takes_new_files_and_drops_nobody() {
    let secure = Secure::new(json!({}));
    let mut old = secure.client();
    old.subscribe("books.1");
    let pair = secure.authority.pair("router");
    let other = Authority::new();
    let new = other.here("new");
    // A broken pair first: the certificate is new, the key is not.
    fs::copy(&new.cert, &pair.cert).unwrap();
    secure.router.signal("HUP");
    let line = secure.router.wait_event("configuration not reloaded");
    assert!(line["problem"].as_str().unwrap().contains(&pair.key), "{line}");
    secure.client().expect_quiet();
    fs::copy(&new.key, &pair.key).unwrap();
    secure.router.signal("HUP");
    secure.router.wait_event("configuration reloaded");
    let way = Relay::to_tls(secure.router.port, client_config(&other.cafile(), ALL_VERSIONS));
    Client::connect(way.port).expect_quiet();
    secure.publish(&json!(1));
    assert_eq!(old.recv_data(), 1);
    old.close(1000);
}

// Callbacks.

/// A service behind TLS, a router that calls it, and one client.
fn calls(pair: &Pair, cafile: &str, host: &str) -> (World, Relay, Client) {
    let mut relay = None;
    let world = World::new(|service| {
        let secure = relay.insert(Relay::from_tls(service.port, server_config(pair)));
        let url = format!("https://{host}:{}/before_subscribe", secure.port);
        json!({
            "SERVICES": {
                "books": { "require_authentication": false, "before_subscribe": url },
            },
            "HTTP": { "ssl_cafile": cafile, "tries": 2, "wait": 0.01 },
        })
    });
    let client = world.client();
    (world, relay.unwrap(), client)
}

#[test]
fn callbacks_go_over_tls_and_take_sessions_up_again() {
    let authority = Authority::new();
    let (world, relay, mut client) =
        calls(&authority.here("service"), &authority.cafile(), "localhost");
    client.subscribe("books.1");
    client.subscribe("books.2");
    assert_eq!(relay.seen.connections.load(Ordering::Relaxed), 1, "it is kept alive");
    world.service.drop_connections();
    client.subscribe("books.3");
    assert_eq!(world.service.requests("/before_subscribe").len(), 3);
    let port = relay.port;
    let request = &world.service.requests("/before_subscribe")[0];
    assert_eq!(request.head.header("Host"), Some(&*format!("localhost:{port}")));
    assert_eq!(*relay.seen.names.lock().unwrap(), ["localhost"; 2]);
    assert_eq!(*relay.seen.protocols.lock().unwrap(), ["http/1.1"; 2]);
    assert_eq!(relay.seen.resumed.load(Ordering::Relaxed), 1);
    let deputy = authority.deputy(2);
    let below = calls(&deputy.with_chain("below"), &authority.cafile(), "localhost");
    let (_world, _relay, mut client) = below;
    client.subscribe("books.1");
    let by_address = calls(&authority.pair("service"), &authority.cafile(), "127.0.0.1");
    let (_world, _relay, mut client) = by_address;
    client.subscribe("books.1");
}

#[test]
fn servers_that_are_not_trusted_get_no_request_and_the_log_says_why() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.cafile();
    let pair = authority.here("alone");
    let own = "req -x509 -key alone.key -out alone.pem -subj /CN=Alone -addext";
    authority.openssl(&format!("{own} subjectAltName=DNS:localhost"));
    let (deputy, old) = (authority.deputy(2), authority.deputy(-1));
    let cases = [
        (pair, "the certificate of Alone, issued by Alone", "an authority's own"),
        (deputy.here("below"), "of below.example, issued by Deputy", "no root that is trusted"),
        (old.with_chain("late"), "of Deputy, issued by House", "expired"),
        (stranger.here("forger"), "forger.example, issued by House", "no root that is trusted"),
        (authority.sign("old", ECDSA, HERE, -1), "old.example, issued by House", "expired"),
        (authority.sign("other", ECDSA, "DNS:other", 2), "other.example", "not valid for name"),
    ];
    for (pair, whose, why) in cases {
        let (world, _relay, mut client) = calls(&pair, &good, "localhost");
        let answer = client.ask(&subscribe("books.1"));
        assert_eq!(answer["error"], "Service unavailable.", "{answer}");
        assert!(world.service.all().is_empty(), "nothing is said to whom nobody trusts");
        let line = world.router.wait_event("callback failed");
        assert_eq!((&line["try"], &line["tries"]), (&json!(1), &json!(2)));
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.contains(whose) && reason.contains(why), "{reason}");
    }
}

#[test]
fn what_is_no_tls_is_a_failed_try() {
    let authority = Authority::new();
    let plain = Service::start();
    let world = World::new(|_| {
        let url = format!("https://localhost:{}/x", plain.port);
        json!({
            "SERVICES": { "books": { "require_authentication": false, "before_subscribe": url } },
            "HTTP": { "ssl_cafile": authority.cafile(), "tries": 1 },
        })
    });
    let answer = world.client().ask(&subscribe("books.1"));
    assert_eq!(answer["error"], "Service unavailable.");
    let reason = world.router.wait_event("callback failed")["reason"].clone();
    assert!(reason.as_str().unwrap().contains("TLS"), "{reason}");
}

// Redis.

/// Opens a port for TLS at a running Redis; `auth`: whether clients need a certificate.
fn open_tls(redis: &Redis, authority: &Authority, auth: &str) -> u16 {
    let (pair, ca) = (authority.here("redis"), authority.cafile());
    let port = free_port();
    let set = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &pair.cert,
        "tls-key-file",
        &pair.key,
        "tls-ca-cert-file",
        &ca,
        "tls-auth-clients",
        auth,
        "tls-port",
        &port.to_string(),
    ];
    assert_eq!(redis.command(&set), Resp::Simple("OK".to_owned()));
    port
}

#[test]
fn redis_over_tls() {
    let authority = Authority::new();
    let redis = Redis::start();
    let port = open_tls(&redis, &authority, "no");
    let config = json!({
        "REDIS": { "host": "127.0.0.1", "port": port, "tls": true,
            "ssl_cafile": authority.cafile(), "password": null },
        "SERVICES": { "books": { "require_authentication": false } },
    });
    let router = Router::start(&redis, config);
    let mut client = router.client();
    client.subscribe("books.1");
    let long = "x".repeat(300_000);
    redis.publish("books.1", &json!({ "subscription": "books.1", "data": long }).to_string());
    assert_eq!(client.recv_data(), json!(long));
    // It comes back, too.
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    client.expect_close(1012);
    router.wait_event("serving again");
    router.client().subscribe("books.1");
}

#[test]
fn redis_asks_for_our_certificate_and_its_own_name_may_be_another() {
    let authority = Authority::new();
    let redis = Redis::start();
    let port = open_tls(&redis, &authority, "yes");
    let ours = authority.sign("ours", ECDSA, "DNS:router", 2);
    let link = json!({ "host": "127.0.0.1", "port": port, "tls": true, "connect_timeout": 1,
        "ssl_cafile": authority.cafile(), "server_name": "localhost" });
    let mut with_ours = link.clone();
    merge(&mut with_ours, json!({ "ssl_certfile": ours.cert, "ssl_keyfile": ours.key }));
    let services = json!({ "books": { "require_authentication": false } });
    let router = Router::start(&redis, json!({ "REDIS": with_ours, "SERVICES": services }));
    router.client().subscribe("books.1");

    // Without one; with another name; by an authority that nobody knows.
    let mut renamed = with_ours.clone();
    renamed["server_name"] = json!("redis.example");
    let mut untrusting = with_ours.clone();
    let stranger = Authority::new();
    untrusting["ssl_cafile"] = json!(stranger.cafile());
    for (link, reason) in [
        (link, "alert"),
        (renamed, "not valid for name"),
        (untrusting, "the certificate of redis.example, issued by House"),
    ] {
        let mut config = support::router::base_config(&redis);
        merge(&mut config, json!({ "REDIS": link }));
        let mut router = Router::launch(config);
        assert_eq!(router.wait_exit(), Some(1));
        let failures: Vec<Value> = router
            .log_lines()
            .into_iter()
            .filter(|line| line["event"] == "redis connection failed")
            .collect();
        let is_told = |line: &Value| line["reason"].as_str().unwrap_or_default().contains(reason);
        assert!(failures.iter().any(is_told), "{failures:?}");
    }
}

// Others' programs.

#[test]
fn a_browser_gets_along_with_it() {
    let secure = Secure::new(json!({}));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/client-js");
    assert!(modules.join("installed").is_file(), "run tests/run: it installs what this needs");
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(root.join("tests/client-js/tls.test.mjs"))
        .env("CLIENT_JS_MODULES", &modules)
        .env("SOCKETSHARK", BINARY)
        .env("ROUTER", format!("wss://localhost:{}/", secure.router.port))
        .output()
        .expect("the tests need node in the PATH");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
}

#[test]
fn openssl_and_curl_get_along_with_it() {
    let secure = Secure::new(json!({}));
    let (port, ca) = (secure.router.port, secure.authority.cafile());
    let openssl = |arguments: &str, input: &str| {
        let mut process = Command::new("openssl")
            .args(["s_client", "-connect", &format!("localhost:{port}"), "-CAfile", &ca])
            .args(arguments.split_ascii_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = process.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };
    for (version, cipher) in [("-tls1_2", "ECDHE-ECDSA-"), ("-tls1_3", "TLS_AES_256_GCM_SHA384")] {
        let said = openssl(&format!("{version} -alpn http/1.1"), "");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("ALPN protocol: http/1.1") && said.contains(cipher), "{said}");
    }
    for old in ["-tls1_1", "-tls1_2 -cipher AES128-SHA", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA"] {
        let said = openssl(old, "");
        assert!(said.contains("alert") && said.contains("Cipher is (NONE)"), "{old}: {said}");
    }
    let line = secure.router.wait_event("handshake refused");
    assert!(line["reason"].as_str().unwrap().starts_with("TLS: "), "{line}");
    // The system knows no address of a peer that has reset the connection by then.
    let addresses = ["127.0.0.1", "::1", "gone"];
    assert!(addresses.contains(&line["address"].as_str().unwrap()), "{line}");
    // R at the start of a line asks for a renegotiation.
    let said = openssl("-tls1_2", "R\n");
    assert!(said.contains("RENEGOTIATING") && !said.contains("verify return:0"), "{said}");

    let curl = |url: String| {
        let output = Command::new("curl")
            .args(["-sS", "-o", "-", "-w", "%{http_code}", "--cacert", &ca, &url])
            .output()
            .expect("the tests need curl in the PATH");
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = curl(format!("https://localhost:{port}/"));
    assert!(answer.ends_with("426"), "{answer}");
    let answer = curl(format!("http://localhost:{port}/"));
    assert!(answer.ends_with("400") && answer.contains("wss://"), "{answer}");
    secure.client().expect_quiet();
}
