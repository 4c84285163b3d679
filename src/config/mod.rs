//! The configuration as the rest of the program meets it: checked once, no option missing.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::message::Hook;

mod address;
mod kinds;
mod origin;
mod read;
mod reload;
mod schema;
mod suggest;
#[cfg(test)]
mod tests;
mod text;
pub mod url;

pub use read::ConfigError;
pub use reload::changes_needing_restart;
pub use schema::parse;
pub use url::Url;

/// Everything that a configuration file can say, with defaults filled in.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub ws_host: String,
    pub ws_port: u16,
    /// Clients come over TLS, with this certificate.
    pub ws_ssl: Option<KeyPair>,
    pub ws_ping: WsPing,
    /// `ping` events are answered as soon as they are read, ahead of waiting events.
    pub ws_pong_immediate: bool,
    /// `None`: any origin.
    pub ws_allowed_origins: Option<Vec<OriginPattern>>,
    pub ws_reuse_port: bool,
    pub ws_trusted_proxies: Vec<AddressBlock>,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    pub http: HttpConfig,
    pub redis: RedisConfig,
    pub redis_alt: Option<RedisConfig>,
    /// The embedded broker: with it, no Redis is connected.
    pub broker: Option<BrokerConfig>,
    /// The `ticket` method of `AUTHENTICATION`.
    pub ticket: Option<Rc<TicketConfig>>,
    /// In the order of their names.
    pub services: Vec<Rc<Service>>,
    pub message_metadata: bool,
    pub limits: Limits,
}

impl Config {
    /// The service of that name (a binary search).
    pub fn service(&self, name: &str) -> Option<&Rc<Service>> {
        let found = self.services.binary_search_by(|service| (*service.name).cmp(name));
        found.ok().map(|index| &self.services[index])
    }
}

/// The paths of a certificate chain and of its private key, both in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPair {
    pub cert: String,
    pub key: String,
}

#[derive(Clone, PartialEq, Debug)]
pub struct WsPing {
    /// `None`: no pings.
    pub interval: Option<Duration>,
    pub timeout: Duration,
}

/// An entry of `WS_ALLOWED_ORIGINS`: `https://example.com`, or `https://*.example.com` for all
/// names below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginPattern(pub String);

/// An address or a CIDR block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressBlock {
    pub network: IpAddr,
    pub prefix_bits: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogStyle {
    /// Console where stderr is a terminal, else JSON.
    Auto,
    Json,
    Console,
}

#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// `None`: no logging.
    pub level: Option<Level>,
    pub trace_level: Level,
    pub logger_name: String,
    pub trace_logger_prefix: String,
    pub style: LogStyle,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct MetricsConfig {
    pub prometheus: Option<Prometheus>,
    /// Each metric is logged at debug.
    pub log: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Prometheus {
    /// Empty: all addresses.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, PartialEq, Debug)]
pub struct HttpConfig {
    /// One try, from its connection slot to the end of the body.
    pub timeout: Duration,
    pub tries: u32,
    /// Between tries.
    pub wait: Duration,
    /// The path of the certificates that vouch for services; `None`: the system's.
    pub ssl_cafile: Option<String>,
    /// The headers of a 429 that say when to come again, in order of precedence; none: `wait`.
    pub rate_limit_headers: Vec<String>,
    pub max_connections_per_host: usize,
    pub max_queued_per_host: usize,
    pub max_response_bytes: usize,
    pub keepalive_timeout: Duration,
    pub dns_ttl: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDisconnect {
    Reconnect,
    Shutdown,
}

#[derive(Clone, PartialEq, Debug)]
pub struct RedisConfig {
    pub host: String,
    pub port: u16,
    pub channel_prefix: String,
    pub db: u32,
    /// `None`: no pings.
    pub ping_interval: Option<Duration>,
    pub ping_timeout: Duration,
    pub username: Option<String>,
    pub password: Option<String>,
    pub connect_timeout: Duration,
    pub on_disconnect: OnDisconnect,
    pub reconnect_max_delay: Duration,
    pub max_message_bytes: usize,
    /// `None`: in the clear.
    pub tls: Option<RedisTls>,
}

impl RedisConfig {
    /// The name that the server's certificate must have, where there is to be one.
    pub fn tls_name(&self) -> Option<&str> {
        let tls = self.tls.as_ref()?;
        Some(tls.server_name.as_deref().unwrap_or(&self.host))
    }
}

/// How a link to Redis is encrypted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RedisTls {
    /// The path of the certificates that vouch for the server; `None`: the system's.
    pub ssl_cafile: Option<String>,
    /// `None`: the host.
    pub server_name: Option<String>,
    /// What we show the server if it asks.
    pub client: Option<KeyPair>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct BrokerConfig {
    pub host: String,
    pub port: u16,
    /// What `AUTH` demands; `None`: everybody is let in.
    pub password: Option<String>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TicketConfig {
    pub validation_url: Rc<Url>,
    pub auth_fields: Vec<String>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Service {
    pub name: Rc<str>,
    pub require_authentication: bool,
    pub authorizer_fields: Vec<String>,
    pub authorization_renewal_period: Option<Duration>,
    pub authorization_renewal_jitter: Duration,
    pub authorization_grace: Duration,
    pub extra_fields: Vec<String>,
    pub filter_fields: Vec<String>,
    pub heartbeat_period: Option<Duration>,
    /// By `Hook as usize`; `Hook::Validation` is never set.
    pub hooks: [Option<Rc<Url>>; Hook::COUNT],
}

impl Service {
    pub fn hook(&self, hook: Hook) -> Option<&Rc<Url>> {
        self.hooks[hook as usize].as_ref()
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// 0: as many as the descriptors allow, less a reserve.
    pub max_connections: usize,
    /// 0: no limit.
    pub max_connections_per_ip: usize,
    pub max_message_bytes: usize,
    pub max_subscriptions_per_session: usize,
    pub max_keys_per_subscription: usize,
    pub max_queued_events_per_session: usize,
    pub send_queue_bytes: usize,
    pub handshake_timeout: Duration,
    pub close_timeout: Duration,
    pub max_header_bytes: usize,
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 0,
            max_connections_per_ip: 0,
            max_message_bytes: 1_048_576,
            max_subscriptions_per_session: 1_000,
            max_keys_per_subscription: 1_000,
            max_queued_events_per_session: 32,
            send_queue_bytes: 1_048_576,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            max_header_bytes: 16_384,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            timeout: Duration::from_secs(15),
            tries: 3,
            wait: Duration::from_secs(3),
            ssl_cafile: None,
            rate_limit_headers: vec!["X-Rate-Limit-Reset".to_owned()],
            max_connections_per_host: 64,
            max_queued_per_host: 100_000,
            max_response_bytes: 16_777_216,
            keepalive_timeout: Duration::from_secs(4),
            dns_ttl: Duration::from_secs(30),
        }
    }
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            host: "localhost".to_owned(),
            port: 6379,
            channel_prefix: String::new(),
            db: 0,
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(5),
            username: None,
            password: None,
            connect_timeout: Duration::from_secs(5),
            on_disconnect: OnDisconnect::Reconnect,
            reconnect_max_delay: Duration::from_secs(5),
            max_message_bytes: 16_777_216,
            tls: None,
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig { host: "127.0.0.1".to_owned(), port: 6379, password: None }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            level: Some(Level::Info),
            trace_level: Level::Info,
            logger_name: "socketshark".to_owned(),
            trace_logger_prefix: "trace".to_owned(),
            style: LogStyle::Auto,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ws_host: "127.0.0.1".to_owned(),
            ws_port: 9000,
            ws_ssl: None,
            ws_ping: WsPing {
                interval: Some(Duration::from_secs(15)),
                timeout: Duration::from_secs(15),
            },
            ws_pong_immediate: false,
            ws_allowed_origins: None,
            ws_reuse_port: false,
            ws_trusted_proxies: Vec::new(),
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
            http: HttpConfig::default(),
            redis: RedisConfig::default(),
            redis_alt: None,
            broker: None,
            ticket: None,
            services: Vec::new(),
            message_metadata: false,
            limits: Limits::default(),
        }
    }
}
