//! The keys of TLS: what they mean in a build that has it, and what the other one says.

use super::*;
use crate::config::url::{HAS_TLS, NEEDS_TLS};

#[test]
fn without_the_feature_whatever_needs_it_is_an_error() {
    for (text, path) in [
        (r#"{"WS_SSL": {"cert": "x.pem", "key": "y.pem"}}"#, "WS_SSL.cert WS_SSL.key"),
        (r#"{"WS_SSL": {"cert": "x.pem"}}"#, "WS_SSL.cert"),
        (r#"{"REDIS": {"tls": true}}"#, "REDIS.tls"),
        (r#"{"REDIS_ALT": {"tls": true, "ssl_cafile": "x.pem"}}"#, "REDIS_ALT.tls"),
        (r#"{"SERVICES": {"a": {"on_message": "https://u:s3cret@h/x"}}}"#, "SERVICES.a.on_message"),
    ] {
        if !HAS_TLS {
            let expected: Vec<String> =
                path.split(' ').map(|path| format!("{path}: {NEEDS_TLS}")).collect();
            assert_eq!(refused(text), expected);
        }
    }
    assert!(NEEDS_TLS.contains("the cargo feature `tls`"));
}

#[test]
fn what_asks_for_no_tls_is_taken_by_every_build() {
    for text in [
        r#"{"WS_SSL": {}}"#,
        r#"{"REDIS": {"tls": false}}"#,
        r#"{"REDIS": {"tls": false, "ssl_cafile": "x", "server_name": "h"}}"#,
        r#"{"REDIS": {"ssl_cafile": null, "ssl_certfile": null, "server_name": null}}"#,
    ] {
        assert_eq!(read(text), Config::default(), "{text}");
    }
}

#[test]
fn with_the_feature_the_keys_are_taken() {
    if !HAS_TLS {
        return;
    }
    let pair = || KeyPair { cert: "c.pem".to_owned(), key: "k.pem".to_owned() };
    changes(r#"{"WS_SSL": {"cert": "c.pem", "key": "k.pem"}}"#, |c| c.ws_ssl = Some(pair()));
    changes(r#"{"REDIS": {"tls": true}}"#, |c| c.redis.tls = Some(RedisTls::default()));
    let text = r#"{"REDIS": {"host": "10.0.0.1", "tls": true, "ssl_cafile": "a.pem",
        "server_name": "redis.example", "ssl_certfile": "c.pem", "ssl_keyfile": "k.pem"}}"#;
    changes(text, |c| {
        c.redis.host = "10.0.0.1".to_owned();
        c.redis.tls = Some(RedisTls {
            ssl_cafile: Some("a.pem".to_owned()),
            server_name: Some("redis.example".to_owned()),
            client: Some(pair()),
        });
    });
    assert_eq!(read(text).redis.tls_name(), Some("redis.example"));
    assert_eq!(read(r#"{"REDIS": {"tls": true}}"#).redis.tls_name(), Some("localhost"));
    let service = read(r#"{"SERVICES": {"a": {"on_message": "https://h/x"}}}"#).services[0].clone();
    assert!(service.hook(Hook::OnMessage).unwrap().origin.secure);
}

#[test]
fn halves_of_pairs_and_odd_values_are_refused() {
    let needs = |key: &str| format!("{key}: says nothing without \"tls\": true beside it");
    for (text, error) in [
        (r#"{"REDIS": {"tls": 1}}"#, "REDIS.tls: must be true or false".to_owned()),
        (r#"{"REDIS": {"ssl_cafile": "x"}}"#, needs("REDIS.ssl_cafile")),
        (r#"{"REDIS": {"server_name": "x"}}"#, needs("REDIS.server_name")),
        (
            r#"{"REDIS": {"tls": false, "ssl_certfile": "x"}}"#,
            "REDIS.ssl_keyfile: missing; this key is required here".to_owned(),
        ),
        (
            r#"{"REDIS": {"tls": false, "ssl_cafile": ""}}"#,
            "REDIS.ssl_cafile: must be the path of a file".to_owned(),
        ),
        (
            r#"{"REDIS": {"tls": false, "server_name": "a b"}}"#,
            "REDIS.server_name: must be a host name or an IP address".to_owned(),
        ),
        (r#"{"WS_SSL": {"crt": "x"}}"#, "WS_SSL.crt: unknown key; did you mean cert?".to_owned()),
    ] {
        assert_eq!(refused(text), [error]);
    }
    if HAS_TLS {
        let missing = "WS_SSL.key: missing; this key is required here";
        assert_eq!(refused(r#"{"WS_SSL": {"cert": "x"}}"#), [missing]);
    }
}

#[test]
fn a_reload_takes_other_files_and_a_restart_tls_itself() {
    let pair = |cert: &str| Some(KeyPair { cert: cert.to_owned(), key: "k".to_owned() });
    let old = Config { ws_ssl: pair("a"), ..Config::default() };
    let other = Config { ws_ssl: pair("b"), ..Config::default() };
    assert!(changes_needing_restart(&old, &other).is_empty());
    assert_eq!(changes_needing_restart(&old, &Config::default()), ["WS_SSL"]);
}
