//! What a new configuration can change while the program runs.

use super::Config;

/// The top-level keys whose values differ and which only a restart can change. The others
/// (`SERVICES`, `AUTHENTICATION`, `HTTP`, `LIMITS`, `LOG`, `WS_ALLOWED_ORIGINS`, and the files of
/// `WS_SSL`) take effect on a reload.
pub fn changes_needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    // Taken apart, so that a new option cannot be forgotten here.
    let Config {
        ws_host,
        ws_port,
        ws_ssl,
        ws_ping,
        ws_pong_immediate,
        ws_allowed_origins: _,
        ws_reuse_port,
        ws_trusted_proxies,
        log: _,
        metrics,
        http: _,
        redis,
        redis_alt,
        broker,
        ticket: _,
        services: _,
        message_metadata,
        limits: _,
    } = old;
    let differing = [
        ("WS_HOST", *ws_host != new.ws_host),
        ("WS_PORT", *ws_port != new.ws_port),
        ("WS_SSL", ws_ssl.is_some() != new.ws_ssl.is_some()),
        ("WS_PING", *ws_ping != new.ws_ping),
        ("WS_PONG_IMMEDIATE", *ws_pong_immediate != new.ws_pong_immediate),
        ("WS_REUSE_PORT", *ws_reuse_port != new.ws_reuse_port),
        ("WS_TRUSTED_PROXIES", *ws_trusted_proxies != new.ws_trusted_proxies),
        ("METRICS", *metrics != new.metrics),
        ("REDIS", *redis != new.redis),
        ("REDIS_ALT", *redis_alt != new.redis_alt),
        ("BROKER", *broker != new.broker),
        ("MESSAGE_METADATA", *message_metadata != new.message_metadata),
    ];
    differing.into_iter().filter(|&(_, differs)| differs).map(|(key, _)| key).collect()
}
