//! What a configuration file may say: every key, what kind of value it takes, where it goes.
//! The defaults are those of the types.

use std::rc::Rc;

use super::kinds::{
    address_block, anything, choice, count, database, empty_object, file, flag, header_name, host,
    level, list, origin, period, port, port_or_text, refused, secret, size, text, tries, url, wait,
};
use super::read::{ConfigError, Node, Reader, Section};
use super::text::blank_comments;
use super::url::{HAS_TLS, NEEDS_TLS};
use super::{
    BrokerConfig, Config, HttpConfig, KeyPair, Limits, LogConfig, LogStyle, MetricsConfig,
    OnDisconnect, Prometheus, RedisConfig, RedisTls, Service, TicketConfig, WsPing,
};
use crate::message::Hook;

/// Reads a configuration: a JSON object with comments, in which `environment` replaces `${NAME}`.
///
/// The errors are those of the text, in its order, and show no value from it; of text that is
/// no JSON they are the first one alone.
pub fn parse(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<ConfigError>> {
    let in_text = |offset, problem: &str| vec![ConfigError::in_text(text, offset, problem)];
    let json = blank_comments(text)
        .map_err(|offset| in_text(offset, "this comment is never closed by */"))?;
    let (mut reader, root) =
        Reader::new(&json, environment).map_err(|(offset, problem)| in_text(offset, &problem))?;
    let mut config = Config::default();
    reader.object(&root, |top| everything(top, &mut config));
    let errors = reader.into_errors();
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn everything(top: &mut Section<'_, '_>, config: &mut Config) {
    top.get("BACKEND", text);
    top.set("WS_HOST", &mut config.ws_host, text);
    top.set("WS_PORT", &mut config.ws_port, port_or_text);
    top.set("WS_SSL", &mut config.ws_ssl, ws_ssl);
    top.set("WS_PING", &mut config.ws_ping, ws_ping);
    top.set("WS_PONG_IMMEDIATE", &mut config.ws_pong_immediate, flag);
    top.set_or_null("WS_ALLOWED_ORIGINS", &mut config.ws_allowed_origins, list(origin));
    top.set("WS_REUSE_PORT", &mut config.ws_reuse_port, flag);
    top.set("WS_TRUSTED_PROXIES", &mut config.ws_trusted_proxies, list(address_block));
    top.set("LOG", &mut config.log, log);
    top.set("METRICS", &mut config.metrics, metrics);
    top.set("HTTP", &mut config.http, http);
    top.set("REDIS", &mut config.redis, redis);
    top.set_or_null("REDIS_ALT", &mut config.redis_alt, redis);
    top.get("AUTHENTICATION", |reader, node| {
        reader.object(node, |s| config.ticket = s.get("ticket", ticket));
        Some(())
    });
    top.set("SERVICES", &mut config.services, services);
    top.set("MESSAGE_METADATA", &mut config.message_metadata, flag);
    top.set("LIMITS", &mut config.limits, limits);
    top.set_or_null("BROKER", &mut config.broker, broker);
}

fn ws_ssl<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Option<KeyPair>> {
    let mut pair = None;
    reader.object(node, |s| {
        if HAS_TLS {
            pair = key_pair(s, "cert", "key");
        } else {
            s.get("cert", refused(NEEDS_TLS));
            s.get("key", refused(NEEDS_TLS));
        }
    });
    Some(pair)
}

/// A certificate chain and its key: both or neither.
fn key_pair(s: &mut Section<'_, '_>, cert: &'static str, key: &'static str) -> Option<KeyPair> {
    let is_given = s.has(cert) || s.has(key);
    let [cert, key] = [cert, key]
        .map(|name| if is_given { s.require(name, file) } else { s.get(name, anything).and(None) });
    Some(KeyPair { cert: cert?, key: key? })
}

fn ws_ping<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<WsPing> {
    let mut ping = Config::default().ws_ping;
    reader.object(node, |s| {
        s.set_or_null("interval", &mut ping.interval, period);
        s.set("timeout", &mut ping.timeout, period);
    });
    Some(ping)
}

fn log<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<LogConfig> {
    let mut log = LogConfig::default();
    reader.object(node, |s| {
        s.set_or_null("level", &mut log.level, level);
        s.set("trace_level", &mut log.trace_level, level);
        s.set("logger_name", &mut log.logger_name, text);
        s.set("trace_logger_prefix", &mut log.trace_logger_prefix, text);
        let styles = choice(&[
            ("auto", LogStyle::Auto),
            ("json", LogStyle::Json),
            ("console", LogStyle::Console),
        ]);
        s.set("style", &mut log.style, styles);
        s.get("setup_structlog", anything);
        s.get("format", anything);
    });
    Some(log)
}

fn metrics<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<MetricsConfig> {
    let mut metrics = MetricsConfig::default();
    reader.object(node, |s| {
        metrics.prometheus = s.get("prometheus", prometheus);
        metrics.log = s.get("log", empty_object).is_some();
    });
    Some(metrics)
}

fn prometheus<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Prometheus> {
    let (mut host, mut found_port) = (String::new(), None);
    reader.object(node, |s| {
        s.set("host", &mut host, text);
        found_port = s.require("port", port);
    });
    Some(Prometheus { host, port: found_port? })
}

fn http<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<HttpConfig> {
    let mut http = HttpConfig::default();
    let mut single = http.rate_limit_headers.pop();
    let mut names = Vec::new();
    reader.object(node, |s| {
        s.set("timeout", &mut http.timeout, period);
        s.set("tries", &mut http.tries, tries);
        s.set("wait", &mut http.wait, wait);
        // Without an https:// URL there are no certificates that it could vouch for.
        s.set_or_null("ssl_cafile", &mut http.ssl_cafile, text);
        s.set_or_null("rate_limit_reset_header_name", &mut single, header_name);
        s.set("rate_limit_reset_header_names", &mut names, list(header_name));
        // A pool's size: with none, no callback would ever be made.
        s.set("max_connections_per_host", &mut http.max_connections_per_host, size);
        s.set("max_queued_per_host", &mut http.max_queued_per_host, count);
        s.set("max_response_bytes", &mut http.max_response_bytes, size);
        s.set("keepalive_timeout", &mut http.keepalive_timeout, period);
        s.set("dns_ttl", &mut http.dns_ttl, wait);
    });
    http.rate_limit_headers = if names.is_empty() { Vec::from_iter(single) } else { names };
    Some(http)
}

fn redis<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<RedisConfig> {
    let mut redis = RedisConfig::default();
    reader.object(node, |s| {
        s.set("host", &mut redis.host, text);
        s.set("port", &mut redis.port, port);
        s.set("channel_prefix", &mut redis.channel_prefix, text);
        s.set("db", &mut redis.db, database);
        s.set_or_null("ping_interval", &mut redis.ping_interval, period);
        s.set("ping_timeout", &mut redis.ping_timeout, period);
        s.set_or_null("username", &mut redis.username, text);
        s.set_or_null("password", &mut redis.password, text);
        s.set("connect_timeout", &mut redis.connect_timeout, period);
        let reactions =
            choice(&[("reconnect", OnDisconnect::Reconnect), ("shutdown", OnDisconnect::Shutdown)]);
        s.set("on_disconnect", &mut redis.on_disconnect, reactions);
        s.set("reconnect_max_delay", &mut redis.reconnect_max_delay, wait);
        s.set("max_message_bytes", &mut redis.max_message_bytes, size);
        redis.tls = redis_tls(s);
    });
    Some(redis)
}

/// The keys that say how a link to Redis is encrypted, by redis-py's names where it has them.
fn redis_tls(s: &mut Section<'_, '_>) -> Option<RedisTls> {
    let is_decided = s.has("tls");
    let wanted = s.get("tls", |reader, node| {
        let wanted = flag(reader, node)?;
        if wanted && !HAS_TLS { reader.refuse(node, NEEDS_TLS) } else { Some(wanted) }
    });
    for key in ["ssl_cafile", "server_name", "ssl_certfile", "ssl_keyfile"] {
        if !is_decided && s.has(key) {
            // Whoever names certificates does not expect an open connection.
            s.get(key, refused("says nothing without \"tls\": true beside it"));
        }
    }
    let mut tls = RedisTls::default();
    s.set_or_null("ssl_cafile", &mut tls.ssl_cafile, file);
    s.set_or_null("server_name", &mut tls.server_name, host);
    tls.client = key_pair(s, "ssl_certfile", "ssl_keyfile");
    wanted.filter(|&wanted| wanted).map(|_| tls)
}

fn broker<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<BrokerConfig> {
    let mut broker = BrokerConfig::default();
    reader.object(node, |s| {
        s.set("host", &mut broker.host, text);
        s.set("port", &mut broker.port, port);
        s.set_or_null("password", &mut broker.password, secret);
    });
    Some(broker)
}

fn ticket<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Rc<TicketConfig>> {
    let (mut validation_url, mut auth_fields) = (None, None);
    reader.object(node, |s| {
        validation_url = s.require("validation_url", url);
        auth_fields = s.require("auth_fields", list(text));
    });
    Some(Rc::new(TicketConfig { validation_url: validation_url?, auth_fields: auth_fields? }))
}

/// In the order of their names, for `Config::service`.
fn services<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Vec<Rc<Service>>> {
    let mut services = Vec::new();
    for (name, node) in reader.members(node)? {
        if name.is_empty() {
            reader.refuse::<()>(&node, "a service needs a name");
        }
        if name.contains('.') {
            let problem = "no client can reach a service whose name has a period; the name ends at \
                           the first period of a subscription";
            reader.refuse::<()>(&node, problem);
        }
        services.push(Rc::new(service(reader, &node, name)));
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Some(services)
}

fn service<'a>(reader: &mut Reader<'a>, node: &Node<'a>, name: String) -> Service {
    let mut service =
        Service { name: name.into(), require_authentication: true, ..Service::default() };
    reader.object_with_nulls(node, |s| {
        s.set("require_authentication", &mut service.require_authentication, flag);
        s.set("authorizer_fields", &mut service.authorizer_fields, list(text));
        service.authorization_renewal_period = s.get("authorization_renewal_period", period);
        s.set("authorization_renewal_jitter", &mut service.authorization_renewal_jitter, wait);
        s.set("authorization_grace", &mut service.authorization_grace, wait);
        s.set("extra_fields", &mut service.extra_fields, list(text));
        s.set("filter_fields", &mut service.filter_fields, list(text));
        service.heartbeat_period = s.get("heartbeat_period", period);
        for hook in HOOKS {
            service.hooks[hook as usize] = s.get(hook.name(), url);
        }
    });
    service
}

/// The callbacks that belong to a service.
const HOOKS: [Hook; Hook::COUNT - 1] = [
    Hook::Authorizer,
    Hook::BeforeSubscribe,
    Hook::OnSubscribe,
    Hook::OnMessage,
    Hook::BeforeUnsubscribe,
    Hook::OnUnsubscribe,
    Hook::OnAuthorizationChange,
    Hook::OnHeartbeat,
];

fn limits<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Limits> {
    let mut limits = Limits::default();
    reader.object(node, |s| {
        s.set("max_connections", &mut limits.max_connections, count);
        s.set("max_connections_per_ip", &mut limits.max_connections_per_ip, count);
        s.set("max_message_bytes", &mut limits.max_message_bytes, size);
        let subscriptions = &mut limits.max_subscriptions_per_session;
        s.set("max_subscriptions_per_session", subscriptions, count);
        s.set("max_keys_per_subscription", &mut limits.max_keys_per_subscription, count);
        s.set("max_queued_events_per_session", &mut limits.max_queued_events_per_session, count);
        s.set("send_queue_bytes", &mut limits.send_queue_bytes, size);
        s.set("handshake_timeout", &mut limits.handshake_timeout, period);
        s.set("close_timeout", &mut limits.close_timeout, period);
        s.set("max_header_bytes", &mut limits.max_header_bytes, size);
        s.set("shutdown_timeout", &mut limits.shutdown_timeout, period);
    });
    Some(limits)
}
