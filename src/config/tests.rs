//! The loader as a whole: what each key does, and what is said about each kind of mistake.

use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::limits::CONFIG_ERRORS_MAX;
use crate::random::Random;

mod tls;

const SECRET: &str = "s3cret";

fn environment(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("9001".to_owned()),
        "SECRET" => Some(SECRET.to_owned()),
        "BROKEN_URL" => Some(format!("http://u:{SECRET}@h:x/")),
        _ => None,
    }
}

#[track_caller]
fn read(text: &str) -> Config {
    parse(text, &environment).unwrap_or_else(|errors| panic!("{text}\n{}", lines(&errors)))
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// The error lines of a configuration.
#[track_caller]
fn refused(text: &str) -> Vec<String> {
    let errors = parse(text, &environment).expect_err(text);
    let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    for line in &lines {
        assert!(!line.contains(SECRET), "a secret in: {line}");
        assert!(!line.contains(|c: char| c.is_control()), "no single line: {line:?}");
    }
    lines
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn of_very_many_errors_the_rest_is_counted() {
    let list = |n: usize| format!("{{\"WS_ALLOWED_ORIGINS\":[{}1]}}", "1,".repeat(n - 1));
    let told = refused(&list(CONFIG_ERRORS_MAX));
    assert_eq!(told.len(), CONFIG_ERRORS_MAX);
    assert_eq!(told[99], "WS_ALLOWED_ORIGINS[99]: must be a string");
    let counted = refused(&list(CONFIG_ERRORS_MAX + 20_000));
    assert_eq!(counted[..CONFIG_ERRORS_MAX], told);
    assert_eq!(counted[CONFIG_ERRORS_MAX..], ["the configuration: 20000 further errors"]);
}

#[test]
fn a_key_is_shown_no_longer_than_it_is_readable() {
    let key = |text: &str| refused(&format!("{{{}:1}}", serde_json::to_string(text).unwrap()));
    assert!(key(&"a".repeat(64))[0].starts_with(&format!("{}: ", "a".repeat(64))));
    assert!(key(&"a".repeat(65))[0].starts_with(&format!("[\"{}\"...]: ", "a".repeat(64))));
    assert!(key(&"\u{1}".repeat(12))[0].starts_with(&format!("[\"{}\"]: ", "\\u{1}".repeat(12))));
    let wide = key(&"\u{10ffff}".repeat(64)).remove(0);
    assert!(
        wide.starts_with(&format!("[\"{}", "\\u{10ffff}".repeat(6))) && wide.contains("\"...]")
    );
}

#[test]
fn an_empty_object_gives_the_defaults() {
    assert_eq!(read("{}"), Config::default());
    assert_eq!(read("// nothing\n{ /* yet */ }\n"), Config::default());
    let defaults = r#"{"BACKEND": "websockets", "WS_HOST": "127.0.0.1", "WS_PORT": 9000,
        "WS_SSL": {}, "WS_PING": {"interval": 15, "timeout": 15}, "WS_PONG_IMMEDIATE": false,
        "WS_ALLOWED_ORIGINS": null, "WS_REUSE_PORT": false, "WS_TRUSTED_PROXIES": [],
        "LOG": {"level": "INFO", "trace_level": "INFO", "logger_name": "socketshark",
            "trace_logger_prefix": "trace", "style": "auto"},
        "METRICS": {},
        "HTTP": {"timeout": 15, "tries": 3, "wait": 3, "ssl_cafile": null,
            "rate_limit_reset_header_name": "X-Rate-Limit-Reset",
            "rate_limit_reset_header_names": [], "max_connections_per_host": 64,
            "max_queued_per_host": 100000, "max_response_bytes": 16777216,
            "keepalive_timeout": 4, "dns_ttl": 30},
        "REDIS": {"host": "localhost", "port": 6379, "channel_prefix": "", "db": 0,
            "ping_interval": 10, "ping_timeout": 5, "username": null, "password": null,
            "connect_timeout": 5, "on_disconnect": "reconnect", "reconnect_max_delay": 5,
            "max_message_bytes": 16777216},
        "REDIS_ALT": null, "AUTHENTICATION": {}, "SERVICES": {}, "MESSAGE_METADATA": false,
        "LIMITS": {"max_connections": 0, "max_connections_per_ip": 0,
            "max_message_bytes": 1048576, "max_subscriptions_per_session": 1000,
            "max_keys_per_subscription": 1000, "max_queued_events_per_session": 32,
            "send_queue_bytes": 1048576, "handshake_timeout": 10, "close_timeout": 5,
            "max_header_bytes": 16384, "shutdown_timeout": 30},
        "BROKER": null}"#;
    assert_eq!(read(defaults), Config::default());
    assert_eq!(read(r#"{"BACKEND": "another"}"#), Config::default());
}

/// Reads the text and checks that it did to the defaults what `change` does.
#[track_caller]
fn changes(text: &str, change: impl FnOnce(&mut Config)) {
    let mut expected = Config::default();
    change(&mut expected);
    assert_ne!(expected, Config::default(), "no change in the test of {text}");
    assert_eq!(read(text), expected, "{text}");
}

#[test]
fn each_key_of_the_client_side_is_taken() {
    changes(r#"{"WS_HOST": "::1"}"#, |c| c.ws_host = "::1".to_owned());
    changes(r#"{"WS_PORT": 0}"#, |c| c.ws_port = 0);
    changes(r#"{"WS_PORT": "65535"}"#, |c| c.ws_port = 65535);
    changes(r#"{"WS_PORT": "${PORT}"}"#, |c| c.ws_port = 9001);
    changes(r#"{"WS_PING": {"interval": null}}"#, |c| c.ws_ping.interval = None);
    changes(r#"{"WS_PING": {"interval": 2.5}}"#, |c| c.ws_ping.interval = Some(seconds(2.5)));
    changes(r#"{"WS_PING": {"timeout": 1e1}}"#, |c| c.ws_ping.timeout = seconds(10.0));
    changes(r#"{"WS_PONG_IMMEDIATE": true}"#, |c| c.ws_pong_immediate = true);
    changes(r#"{"WS_REUSE_PORT": true}"#, |c| c.ws_reuse_port = true);
    changes(r#"{"WS_ALLOWED_ORIGINS": []}"#, |c| c.ws_allowed_origins = Some(Vec::new()));
    changes(r#"{"WS_ALLOWED_ORIGINS": ["https://A.com", "http://*.b.org:8080"]}"#, |c| {
        let patterns = ["https://a.com", "http://*.b.org:8080"];
        c.ws_allowed_origins = Some(patterns.map(|text| OriginPattern(text.to_owned())).into());
    });
    changes(r#"{"WS_TRUSTED_PROXIES": ["10.0.0.0/8", "::1"]}"#, |c| {
        c.ws_trusted_proxies = vec![
            AddressBlock { network: "10.0.0.0".parse().unwrap(), prefix_bits: 8 },
            AddressBlock { network: "::1".parse().unwrap(), prefix_bits: 128 },
        ];
    });
    changes(r#"{"MESSAGE_METADATA": true}"#, |c| c.message_metadata = true);
}

#[test]
fn each_key_of_log_and_metrics_is_taken() {
    changes(r#"{"LOG": {"level": null}}"#, |c| c.log.level = None);
    changes(r#"{"LOG": {"level": "debug"}}"#, |c| c.log.level = Some(Level::Debug));
    changes(r#"{"LOG": {"level": "WARNING"}}"#, |c| c.log.level = Some(Level::Warning));
    changes(r#"{"LOG": {"level": "WARN"}}"#, |c| c.log.level = Some(Level::Warning));
    changes(r#"{"LOG": {"trace_level": "ERROR"}}"#, |c| c.log.trace_level = Level::Error);
    changes(r#"{"LOG": {"trace_level": "CRITICAL"}}"#, |c| c.log.trace_level = Level::Critical);
    changes(r#"{"LOG": {"logger_name": "x"}}"#, |c| c.log.logger_name = "x".to_owned());
    changes(r#"{"LOG": {"trace_logger_prefix": "x"}}"#, |c| {
        c.log.trace_logger_prefix = "x".to_owned();
    });
    changes(
        r#"{"LOG": {"style": "json", "format": "%(message)s", "setup_structlog": true}}"#,
        |c| {
            c.log.style = LogStyle::Json;
        },
    );
    changes(r#"{"LOG": {"style": "console"}}"#, |c| c.log.style = LogStyle::Console);
    changes(r#"{"METRICS": {"log": {}}}"#, |c| c.metrics.log = true);
    changes(r#"{"METRICS": {"prometheus": {"port": 9100}}}"#, |c| {
        c.metrics.prometheus = Some(Prometheus { host: String::new(), port: 9100 });
    });
    changes(r#"{"METRICS": {"prometheus": {"host": "127.0.0.1", "port": 0}}}"#, |c| {
        c.metrics.prometheus = Some(Prometheus { host: "127.0.0.1".to_owned(), port: 0 });
    });
}

#[test]
fn each_key_of_http_is_taken() {
    changes(r#"{"HTTP": {"ssl_cafile": "/x.pem", "timeout": 0.5}}"#, |c| {
        c.http.timeout = seconds(0.5);
        c.http.ssl_cafile = Some("/x.pem".to_owned());
    });
    changes(r#"{"HTTP": {"tries": 1}}"#, |c| c.http.tries = 1);
    changes(r#"{"HTTP": {"wait": 0}}"#, |c| c.http.wait = Duration::ZERO);
    changes(r#"{"HTTP": {"max_connections_per_host": 1}}"#, |c| {
        c.http.max_connections_per_host = 1;
    });
    changes(r#"{"HTTP": {"max_queued_per_host": 0}}"#, |c| c.http.max_queued_per_host = 0);
    changes(r#"{"HTTP": {"max_response_bytes": 1}}"#, |c| c.http.max_response_bytes = 1);
    changes(r#"{"HTTP": {"keepalive_timeout": 9}}"#, |c| c.http.keepalive_timeout = seconds(9.0));
    changes(r#"{"HTTP": {"dns_ttl": 0}}"#, |c| c.http.dns_ttl = Duration::ZERO);
}

#[test]
fn the_list_of_header_names_goes_before_the_single_one() {
    let headers = |keys: &str| read(&format!(r#"{{"HTTP": {{{keys}}}}}"#)).http.rate_limit_headers;
    assert_eq!(headers(""), ["X-Rate-Limit-Reset"]);
    assert_eq!(headers(r#""rate_limit_reset_header_name": "A""#), ["A"]);
    assert!(headers(r#""rate_limit_reset_header_name": null"#).is_empty());
    assert_eq!(headers(r#""rate_limit_reset_header_names": ["B", "C"]"#), ["B", "C"]);
    let both = r#""rate_limit_reset_header_names": ["B"], "rate_limit_reset_header_name": "A""#;
    assert_eq!(headers(both), ["B"]);
    let empty = r#""rate_limit_reset_header_names": [], "rate_limit_reset_header_name": "A""#;
    assert_eq!(headers(empty), ["A"]);
}

#[test]
fn each_key_of_broker_is_taken() {
    let check = |keys: &str, change: fn(&mut BrokerConfig)| {
        changes(&format!(r#"{{"BROKER": {{{keys}}}}}"#), |c| {
            change(c.broker.insert(BrokerConfig::default()));
        });
    };
    check("", |_| {});
    check(r#""host": """#, |b| b.host = String::new());
    check(r#""port": 0"#, |b| b.port = 0);
    check(r#""password": null"#, |_| {});
    check(r#""password": "p""#, |b| b.password = Some("p".to_owned()));
}

#[test]
fn each_key_of_redis_is_taken() {
    let check = |keys: &str, change: fn(&mut RedisConfig)| {
        changes(&format!(r#"{{"REDIS": {{{keys}}}}}"#), |c| change(&mut c.redis));
        changes(&format!(r#"{{"REDIS_ALT": {{{keys}}}}}"#), |c| {
            change(c.redis_alt.insert(RedisConfig::default()));
        });
    };
    check(r#""host": "h""#, |r| r.host = "h".to_owned());
    check(r#""port": 1"#, |r| r.port = 1);
    check(r#""channel_prefix": "p:""#, |r| r.channel_prefix = "p:".to_owned());
    check(r#""db": 3"#, |r| r.db = 3);
    check(r#""ping_interval": null"#, |r| r.ping_interval = None);
    check(r#""ping_interval": 1"#, |r| r.ping_interval = Some(seconds(1.0)));
    check(r#""ping_timeout": 1"#, |r| r.ping_timeout = seconds(1.0));
    check(r#""username": "u""#, |r| r.username = Some("u".to_owned()));
    check(r#""password": "${SECRET}!""#, |r| r.password = Some("s3cret!".to_owned()));
    check(r#""connect_timeout": 1"#, |r| r.connect_timeout = seconds(1.0));
    check(r#""on_disconnect": "shutdown""#, |r| r.on_disconnect = OnDisconnect::Shutdown);
    check(r#""reconnect_max_delay": 0"#, |r| r.reconnect_max_delay = Duration::ZERO);
    check(r#""max_message_bytes": 1"#, |r| r.max_message_bytes = 1);
    changes(r#"{"REDIS_ALT": {}}"#, |c| c.redis_alt = Some(RedisConfig::default()));
}

#[test]
fn each_key_of_limits_is_taken() {
    let check = |keys: &str, change: fn(&mut Limits)| {
        changes(&format!(r#"{{"LIMITS": {{{keys}}}}}"#), |c| change(&mut c.limits));
    };
    check(r#""max_connections": 5"#, |l| l.max_connections = 5);
    check(r#""max_connections_per_ip": 5"#, |l| l.max_connections_per_ip = 5);
    check(r#""max_message_bytes": 5"#, |l| l.max_message_bytes = 5);
    check(r#""max_subscriptions_per_session": 5"#, |l| l.max_subscriptions_per_session = 5);
    check(r#""max_keys_per_subscription": 5"#, |l| l.max_keys_per_subscription = 5);
    check(r#""max_queued_events_per_session": 5"#, |l| l.max_queued_events_per_session = 5);
    check(r#""send_queue_bytes": 5"#, |l| l.send_queue_bytes = 5);
    check(r#""handshake_timeout": 0.5"#, |l| l.handshake_timeout = seconds(0.5));
    check(r#""close_timeout": 0.5"#, |l| l.close_timeout = seconds(0.5));
    check(r#""max_header_bytes": 5"#, |l| l.max_header_bytes = 5);
    check(r#""shutdown_timeout": 0.5"#, |l| l.shutdown_timeout = seconds(0.5));
}

#[test]
fn a_service_takes_all_its_keys_and_null_for_each() {
    let text = r#"{
        "AUTHENTICATION": {"ticket": {
            "validation_url": "http://u:p@auth/${PORT}", "auth_fields": ["user", "${PORT}"]}},
        "SERVICES": {
            "zoo": {"require_authentication": false, "authorizer": "http://a/1",
                "authorizer_fields": ["f"], "authorization_renewal_period": 60,
                "authorization_renewal_jitter": 90, "authorization_grace": 1.5,
                "extra_fields": ["e"], "filter_fields": ["g"],
                "before_subscribe": "http://a/2", "on_subscribe": "http://a/3",
                "on_message": "http://a/4", "before_unsubscribe": "http://a/5",
                "on_unsubscribe": "http://a/6", "on_authorization_change": "http://a/7",
                "heartbeat_period": 10, "on_heartbeat": "http://a/8"},
            "bare": {},
            "nulls": {"require_authentication": null, "authorizer": null,
                "authorizer_fields": null, "authorization_renewal_period": null,
                "authorization_renewal_jitter": null, "authorization_grace": null,
                "extra_fields": null, "filter_fields": null, "before_subscribe": null,
                "on_subscribe": null, "on_message": null, "before_unsubscribe": null,
                "on_unsubscribe": null, "on_authorization_change": null,
                "heartbeat_period": null, "on_heartbeat": null}}}"#;
    let config = read(text);
    let ticket = config.ticket.as_ref().unwrap();
    assert_eq!(ticket.validation_url.target, "/9001");
    assert_eq!(ticket.auth_fields, ["user", "9001"]);
    let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["bare", "nulls", "zoo"]);

    let url = |text| Some(Rc::new(Url::parse(text).unwrap()));
    let mut expected = Service {
        name: "zoo".into(),
        authorizer_fields: vec!["f".to_owned()],
        authorization_renewal_period: Some(seconds(60.0)),
        authorization_renewal_jitter: seconds(90.0),
        authorization_grace: seconds(1.5),
        extra_fields: vec!["e".to_owned()],
        filter_fields: vec!["g".to_owned()],
        heartbeat_period: Some(seconds(10.0)),
        ..Service::default()
    };
    expected.hooks[Hook::Authorizer as usize] = url("http://a/1");
    expected.hooks[Hook::BeforeSubscribe as usize] = url("http://a/2");
    expected.hooks[Hook::OnSubscribe as usize] = url("http://a/3");
    expected.hooks[Hook::OnMessage as usize] = url("http://a/4");
    expected.hooks[Hook::BeforeUnsubscribe as usize] = url("http://a/5");
    expected.hooks[Hook::OnUnsubscribe as usize] = url("http://a/6");
    expected.hooks[Hook::OnAuthorizationChange as usize] = url("http://a/7");
    expected.hooks[Hook::OnHeartbeat as usize] = url("http://a/8");
    assert_eq!(**config.service("zoo").unwrap(), expected);
    for name in ["bare", "nulls"] {
        let plain =
            Service { name: name.into(), require_authentication: true, ..Service::default() };
        assert_eq!(**config.service(name).unwrap(), plain);
    }
}

#[test]
fn durations_too_short_to_keep_are_rounded_up() {
    let ping = |interval: &str| {
        read(&format!(r#"{{"WS_PING": {{"interval": {interval}}}}}"#)).ws_ping.interval
    };
    assert_eq!(ping("1e-300"), Some(Duration::from_millis(1)));
    assert_eq!(ping("1000000000"), Some(Duration::from_secs(1_000_000_000)));
    assert_eq!(read(r#"{"HTTP": {"wait": -0}}"#).http.wait, Duration::ZERO);
}

/// Configurations with one mistake each, and what is said about it.
const MISTAKES: &[(&str, &str)] = &[
    // Text that is no JSON.
    ("", "line 1, column 1: the file is empty; the smallest configuration is {}"),
    (" // {}\n", "line 1, column 1: the file is empty; the smallest configuration is {}"),
    ("{", "line 1, column 2: the file ends too early; is a bracket or quote missing?"),
    ("{\"A", "line 1, column 4: the file ends too early; is a bracket or quote missing?"),
    ("{\n  \"WS_PORT\": 1,\n}", "line 3, column 1: trailing comma; take it out"),
    ("{\"SERVICES\": [1, /* 2 */ ]}", "line 1, column 26: trailing comma; take it out"),
    ("{} /* x", "line 1, column 4: this comment is never closed by */"),
    ("{\"WS_HOST\": 'h'}", "line 1, column 13: strings take double quotes"),
    ("{} # x", "line 1, column 4: comments begin with //"),
    (
        "/* é */ {\"WS_REUSE_PORT\": True}",
        "line 1, column 27: expected a value; true, false and null are in lower case",
    ),
    (
        "{\"WS_PORT\": NaN}",
        "line 1, column 13: expected a value; true, false and null are in lower case",
    ),
    ("{\"WS_PORT\" 1}", "line 1, column 12: expected `:`"),
    ("{\"a\": 1 \"b\": 2}", "line 1, column 9: expected `,` or `}`"),
    ("{WS_PORT: 1}", "line 1, column 2: key must be a string"),
    ("{} {}", "line 1, column 4: trailing characters"),
    ("{\"WS_PORT\": 01}", "line 1, column 14: invalid number"),
    ("{\"WS_PORT\": -Infinity}", "line 1, column 14: invalid number"),
    ("[]", "the configuration: must be an object, {...}"),
    ("null", "the configuration: must be an object, {...}"),
    // Keys.
    (
        r#"{"SERVICES": {"books": {"before_subscrbe": "http://h"}}}"#,
        "SERVICES.books.before_subscrbe: unknown key; did you mean before_subscribe?",
    ),
    (r#"{"ws_port": 1}"#, "ws_port: unknown key; did you mean WS_PORT?"),
    (r#"{"PORT": 1}"#, "PORT: unknown key; did you mean WS_PORT?"),
    (r#"{"WS_PING": {"colour": 1}}"#, "WS_PING.colour: unknown key; known here: interval, timeout"),
    (r#"{"METRICS": {"log": {"x": 1}}}"#, "METRICS.log.x: unknown key; none is known here"),
    (
        r#"{"AUTHENTICATION": {"Ticket": {}}}"#,
        "AUTHENTICATION.Ticket: unknown key; did you mean ticket?",
    ),
    (
        "{\"METRICS\": {\"a\\n\\u001b\\\"b\": 1}}",
        r#"METRICS["a\n\u{1b}\"b"]: unknown key; known here: prometheus, log"#,
    ),
    (r#"{"WS_PORT": 1, "WS_PORT": 2}"#, "WS_PORT: key given twice; leave one of them out"),
    (
        r#"{"SERVICES": {"a": {}, "\u0061": {}}}"#,
        "SERVICES.a: key given twice; leave one of them out",
    ),
    (r#"{"METRICS": {"\ud800": 1}}"#, "METRICS: has a key with half of a surrogate pair"),
    (
        r#"{"METRICS": {"prometheus": {}}}"#,
        "METRICS.prometheus.port: missing; this key is required here",
    ),
    (
        r#"{"AUTHENTICATION": {"ticket": {"auth_fields": []}}}"#,
        "AUTHENTICATION.ticket.validation_url: missing; this key is required here",
    ),
    (
        r#"{"AUTHENTICATION": {"ticket": {"validation_url": "http://h"}}}"#,
        "AUTHENTICATION.ticket.auth_fields: missing; this key is required here",
    ),
    // Types and ranges.
    (r#"{"BACKEND": 1}"#, "BACKEND: must be a string"),
    (r#"{"WS_HOST": 1}"#, "WS_HOST: must be a string"),
    (r#"{"WS_HOST": null}"#, "WS_HOST: must be a string"),
    (r#"{"WS_HOST": "\ud800"}"#, "WS_HOST: has a \\u escape that is half of a surrogate pair"),
    (r#"{"WS_PORT": 65536}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": -1}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": 80.0}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": "+80"}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": ""}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": true}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"WS_PORT": null}"#, "WS_PORT: must be a port number, 0 to 65535"),
    (r#"{"REDIS": {"port": "1"}}"#, "REDIS.port: must be a port number, 0 to 65535"),
    (r#"{"WS_REUSE_PORT": 1}"#, "WS_REUSE_PORT: must be true or false"),
    (r#"{"WS_PING": null}"#, "WS_PING: must be an object, {...}"),
    (r#"{"HTTP": {"tries": 0}}"#, "HTTP.tries: must be a whole number, 1 or more"),
    (r#"{"HTTP": {"tries": 1.5}}"#, "HTTP.tries: must be a whole number, 1 or more"),
    (r#"{"HTTP": {"tries": true}}"#, "HTTP.tries: must be a whole number, 1 or more"),
    (r#"{"HTTP": {"tries": 4294967296}}"#, "HTTP.tries: must be at most 4294967295"),
    (
        r#"{"LIMITS": {"max_connections": -1}}"#,
        "LIMITS.max_connections: must be a whole number, 0 or more",
    ),
    (
        r#"{"LIMITS": {"send_queue_bytes": 0}}"#,
        "LIMITS.send_queue_bytes: must be a whole number, 1 or more",
    ),
    (r#"{"HTTP": {"wait": -1}}"#, "HTTP.wait: must be a number of seconds, 0 or more"),
    (r#"{"HTTP": {"wait": "1"}}"#, "HTTP.wait: must be a number of seconds, 0 or more"),
    (r#"{"HTTP": {"wait": false}}"#, "HTTP.wait: must be a number of seconds, 0 or more"),
    (r#"{"HTTP": {"wait": 1e400}}"#, "HTTP.wait: must be at most 1000000000 seconds"),
    (r#"{"HTTP": {"timeout": 1e300}}"#, "HTTP.timeout: must be at most 1000000000 seconds"),
    (r#"{"HTTP": {"timeout": 0}}"#, "HTTP.timeout: must be a number of seconds, above 0"),
    (r#"{"HTTP": {"timeout": 1e-999}}"#, "HTTP.timeout: must be a number of seconds, above 0"),
    (r#"{"HTTP": {"timeout": -1e999}}"#, "HTTP.timeout: must be a number of seconds, above 0"),
    (r#"{"HTTP": {"timeout": null}}"#, "HTTP.timeout: must be a number of seconds, above 0"),
    (r#"{"WS_PING": {"interval": 0}}"#, "WS_PING.interval: must be a number of seconds, above 0"),
    (r#"{"WS_PING": {"timeout": null}}"#, "WS_PING.timeout: must be a number of seconds, above 0"),
    (r#"{"LOG": {"style": "pretty"}}"#, r#"LOG.style: must be "auto" or "json" or "console""#),
    (r#"{"LOG": {"level": 20}}"#, "LOG.level: must be a string"),
    (
        r#"{"LOG": {"trace_level": "LOUD"}}"#,
        "LOG.trace_level: must be \"DEBUG\" or \"INFO\" or \"WARNING\" or \"WARN\" or \"ERROR\" or \
             \"CRITICAL\" or \"FATAL\"",
    ),
    (r#"{"METRICS": {"log": true}}"#, "METRICS.log: must be an object, {...}"),
    (
        r#"{"HTTP": {"rate_limit_reset_header_names": ["A", "b c"]}}"#,
        "HTTP.rate_limit_reset_header_names[1]: must be the name of a header, such as \
             Retry-After",
    ),
    (
        r#"{"HTTP": {"rate_limit_reset_header_name": "A\r\nB"}}"#,
        "HTTP.rate_limit_reset_header_name: must be the name of a header, such as Retry-After",
    ),
    (
        r#"{"REDIS": {"on_disconnect": "exit"}}"#,
        r#"REDIS.on_disconnect: must be "reconnect" or "shutdown""#,
    ),
    (r#"{"REDIS": {"password": 1}}"#, "REDIS.password: must be a string"),
    (r#"{"REDIS_ALT": 0}"#, "REDIS_ALT: must be an object, {...}"),
    (r#"{"WS_ALLOWED_ORIGINS": "https://a.com"}"#, "WS_ALLOWED_ORIGINS: must be a list, [...]"),
    (
        r#"{"WS_ALLOWED_ORIGINS": ["https://a.com", "b.com"]}"#,
        "WS_ALLOWED_ORIGINS[1]: must be an origin without path, such as https://example.com \
             or https://*.example.com",
    ),
    (
        r#"{"WS_ALLOWED_ORIGINS": ["*"]}"#,
        "WS_ALLOWED_ORIGINS[0]: to let all origins in, set WS_ALLOWED_ORIGINS to null",
    ),
    (
        r#"{"WS_TRUSTED_PROXIES": ["10.0.0.0/99"]}"#,
        "WS_TRUSTED_PROXIES[0]: must be an address or a block, such as 10.0.0.1 or 10.0.0.0/8",
    ),
    // Services.
    (r#"{"SERVICES": []}"#, "SERVICES: must be an object, {...}"),
    (r#"{"SERVICES": {"a": null}}"#, "SERVICES.a: must be an object, {...}"),
    (r#"{"SERVICES": {"": {}}}"#, r#"SERVICES[""]: a service needs a name"#),
    (
        r#"{"SERVICES": {"a.b": {}}}"#,
        "SERVICES[\"a.b\"]: no client can reach a service whose name has a period; the name \
             ends at the first period of a subscription",
    ),
    (
        r#"{"SERVICES": {"a": {"extra_fields": ["x", 1]}}}"#,
        "SERVICES.a.extra_fields[1]: must be a string",
    ),
    (
        r#"{"SERVICES": {"a": {"on_message": "h/x"}}}"#,
        "SERVICES.a.on_message: must be a URL that begins with http://",
    ),
    (r#"{"BROKER": {"password": ""}}"#, "BROKER.password: must not be empty; null means none"),
    // The environment.
    (r#"{"WS_HOST": "${NONE}"}"#, "WS_HOST: the environment variable NONE is not set"),
    (
        r#"{"REDIS": {"password": "s3cret${"}}"#,
        "REDIS.password: a ${ without a variable's name and a }; a literal ${ is written $${",
    ),
    (
        r#"{"SERVICES": {"a": {"on_message": "${BROKEN_URL}"}}}"#,
        "SERVICES.a.on_message: the port must be 1 to 65535 (in a user name or password, \
             write / ? # as %2F %3F %23)",
    ),
    (r#"{"LOG": {"style": "${SECRET}"}}"#, r#"LOG.style: must be "auto" or "json" or "console""#),
    (r#"{"WS_PORT": "${SECRET}"}"#, "WS_PORT: must be a port number, 0 to 65535"),
];

#[test]
fn one_mistake_one_line() {
    for (text, expected) in MISTAKES {
        assert_eq!(refused(text), [*expected], "{text}");
    }
}

#[test]
fn all_mistakes_come_out_in_the_order_of_the_file() {
    let text = r#"{
        "SERVICES": {
            "b": {"on_heartbeat": 1, "x": 1, "authorizer": "ftp://h", "extra_fields": [1, "", 2]},
            "a": {"heartbeat_period": 0}
        },
        "AUTHENTICATION": {"ticket": {}},
        "LIMITS": {"max_mesage_bytes": 1, "close_timeout": -1},
        "WS_PORT": "x",
        "WS_PORT": 1,
        "BROKER": {"port": "6379"}
    }"#;
    let expected = "\
SERVICES.b.on_heartbeat: must be a string
SERVICES.b.x: unknown key; known here: require_authentication, authorizer_fields, \
authorization_renewal_period, authorization_renewal_jitter, authorization_grace, extra_fields, \
filter_fields, heartbeat_period, authorizer, before_subscribe, on_subscribe, on_message, \
before_unsubscribe, on_unsubscribe, on_authorization_change, on_heartbeat
SERVICES.b.authorizer: must be a URL that begins with http://
SERVICES.b.extra_fields[0]: must be a string
SERVICES.b.extra_fields[2]: must be a string
SERVICES.a.heartbeat_period: must be a number of seconds, above 0
AUTHENTICATION.ticket.validation_url: missing; this key is required here
AUTHENTICATION.ticket.auth_fields: missing; this key is required here
LIMITS.max_mesage_bytes: unknown key; did you mean max_message_bytes?
LIMITS.close_timeout: must be a number of seconds, above 0
WS_PORT: must be a port number, 0 to 65535
WS_PORT: key given twice; leave one of them out
BROKER.port: must be a port number, 0 to 65535";
    assert_eq!(refused(text), expected.lines().collect::<Vec<_>>());
}

#[test]
fn a_reload_names_what_only_a_restart_changes() {
    let old = Config::default();
    let changed = read(
        r#"{"WS_HOST": "::", "WS_PORT": 1, "WS_PING": {"timeout": 1}, "WS_PONG_IMMEDIATE": true,
            "WS_ALLOWED_ORIGINS": [], "WS_REUSE_PORT": true, "WS_TRUSTED_PROXIES": ["::1"],
            "LOG": {"level": null}, "METRICS": {"log": {}}, "HTTP": {"tries": 1},
            "REDIS": {"db": 1}, "REDIS_ALT": {}, "BROKER": {}, "MESSAGE_METADATA": true,
            "AUTHENTICATION": {"ticket": {"validation_url": "http://h", "auth_fields": []}},
            "SERVICES": {"a": {}}, "LIMITS": {"close_timeout": 1}}"#,
    );
    let restart = [
        "WS_HOST",
        "WS_PORT",
        "WS_PING",
        "WS_PONG_IMMEDIATE",
        "WS_REUSE_PORT",
        "WS_TRUSTED_PROXIES",
        "METRICS",
        "REDIS",
        "REDIS_ALT",
        "BROKER",
        "MESSAGE_METADATA",
    ];
    assert_eq!(changes_needing_restart(&old, &changed), restart);
    assert!(changes_needing_restart(&changed, &changed).is_empty());
    let reloadable = read(r#"{"SERVICES": {"a": {}}, "HTTP": {"tries": 1}, "LIMITS": {}}"#);
    assert!(changes_needing_restart(&old, &reloadable).is_empty());
}

const GOOD: &str = r#"// A bit of everything.
{
    "WS_PORT": "${PORT}", /* é */ "WS_PING": {"interval": null, "timeout": 1.5e1},
    "WS_ALLOWED_ORIGINS": ["https://*.example.com", "null"], "WS_TRUSTED_PROXIES": ["10.0.0.0/8"],
    "METRICS": {"prometheus": {"host": "", "port": 9100}, "log": {}},
    "REDIS": {"password": "${SECRET}", "ping_interval": 10}, "REDIS_ALT": {},
    "AUTHENTICATION": {"ticket": {"validation_url": "http://u:%40@[::1]:80/",
        "auth_fields": ["a"]}},
    "SERVICES": {"books": {"authorizer": "http://h/x?y", "authorization_renewal_period": 60,
        "authorization_renewal_jitter": 0.5, "extra_fields": ["é", "\ud83d\ude00"]}},
    "LIMITS": {"max_connections": 0, "close_timeout": 5}
}
"#;

#[test]
fn no_text_makes_it_panic_or_tell_a_secret() {
    read(GOOD);
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "//",
        "/*",
        "*/",
        "\n",
        "\\",
        "${",
        "$${",
        "}",
        "null",
        "true",
        "-",
        "1e999",
        "9999999999999999999999",
        "0.0",
        "\\ud800",
        "é",
        "\u{feff}",
        "@",
        "%",
        "%4",
        "https://",
        ".",
        "*.",
        "/99",
        "::",
        "\u{0}",
        "\r",
        "${SECRET}",
        "\"WS_PORT\":1,",
    ];
    let mut random = Random::seeded(48);
    let mut below = |bound: usize| (random.number() % bound as u64) as usize;
    for _ in 0..5_000 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..=below(3) {
            let start = below(text.len() + 1);
            let end = (start + below(8)).min(text.len());
            let piece = pieces[below(pieces.len())].chars();
            // Mostly an exchange, sometimes a cut end.
            match below(8) {
                0 => text.truncate(start),
                _ => drop(text.splice(start..end, piece)),
            }
        }
        let text: String = text.into_iter().collect();
        if parse(&text, &environment).is_err() {
            refused(&text);
        }
    }
}

#[test]
fn nesting_costs_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_eq!(refused(&deep), ["the configuration: must be an object, {...}"]);
    let within = format!(r#"{{"WS_HOST": {deep}, "LOG": {{"format": {deep}}}}}"#);
    assert_eq!(refused(&within), ["WS_HOST: must be a string"]);
}
