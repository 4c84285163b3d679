//! What a seed decides before anything happens: which kinds of faults its world has, and how the
//! program is configured there.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use socketshark::config::{self, Config};
use socketshark::message::Hook;

use crate::dice::Dice;

/// A kind of fault. Each seed switches whole kinds off: what only shows while others are quiet
/// shows too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Bytes arrive in pieces of any size.
    Splits,
    /// Connections end at any byte.
    Cuts,
    /// Peers stop reading for a while; small windows.
    Stalls,
    /// Services take their time, or never answer.
    Slow,
    /// Services answer wrongly: statuses, garbage, 429, half answers.
    Wrong,
    /// Services say no.
    Refusals,
    /// Dials fail or hang.
    Dials,
    /// Names are not found, or late, or lead to dead addresses.
    Names,
    /// Redis dies and comes back, hangs, or sends garbage.
    Redis,
    /// Redis refuses channels, or answers late.
    Channels,
    /// Time jumps forward.
    Clock,
    /// Clients vanish, break rules, ignore pings and closes.
    Rude,
    /// Clients send many events at once, and publishers many messages.
    Storms,
}

impl Fault {
    pub const ALL: [Fault; 13] = [
        Fault::Splits,
        Fault::Cuts,
        Fault::Stalls,
        Fault::Slow,
        Fault::Wrong,
        Fault::Refusals,
        Fault::Dials,
        Fault::Names,
        Fault::Redis,
        Fault::Channels,
        Fault::Clock,
        Fault::Rude,
        Fault::Storms,
    ];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// What a run is made from; with the same, the same happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Params {
    pub seed: u64,
    /// How many clients the seed has.
    pub population: usize,
    /// Those of them that ever come, by their numbers.
    pub clients: BTreeSet<usize>,
    /// The steps that are made. Each has chances of its own: without one, the others are the same.
    pub steps: BTreeSet<usize>,
    /// The kinds of faults that this world has.
    pub faults: Vec<Fault>,
}

impl Params {
    pub fn of_seed(seed: u64) -> Params {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let share = *dice.pick(&[0, 30, 60, 60, 90]);
        let mut faults: Vec<Fault> =
            Fault::ALL.into_iter().filter(|_| dice.chance(share)).collect();
        if dice.chance(15) {
            // Only services misbehave: then the order and the times of calls can be told.
            faults = vec![Fault::Slow, Fault::Wrong, Fault::Refusals, Fault::Storms];
        }
        let population = if dice.chance(8) { CROWD } else { *dice.pick(&[2, 4, 8, 12]) };
        let clients = (0..population).collect();
        let steps = (0..dice.between(60, 240)).collect();
        Params { seed, population, clients, steps, faults }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether so many clients come that receivers are looked up and not gone through.
    pub fn is_crowded(&self) -> bool {
        self.population == CROWD
    }
}

/// The number of clients where many are on one channel.
const CROWD: usize = 80;

/// One service, as its rules are written.
#[derive(Debug)]
pub struct Service {
    pub name: String,
    pub host: String,
    pub requires_auth: bool,
    pub hooks: Vec<Hook>,
    pub extra_fields: Vec<String>,
    pub filter_fields: Vec<String>,
    pub authorizer_fields: Vec<String>,
    /// Period, jitter, grace.
    pub renewal: Option<(Duration, Duration, Duration)>,
    pub heartbeat: Option<Duration>,
}

impl Service {
    pub fn has(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }
}

/// The configuration, once for the program (as JSON) and once for the model (as this).
#[derive(Debug)]
pub struct Rules {
    pub services: Vec<Rc<Service>>,
    pub auth_fields: Vec<String>,
    pub http: Http,
    pub redis: Vec<Redis>,
    /// Interval and timeout.
    pub pings: Option<(Duration, Duration)>,
    pub pong_immediate: bool,
    pub metadata: bool,
    pub shuts_down: bool,
    pub limits: Limits,
    /// Levels of the log and of its trace.
    pub log: (&'static str, &'static str),
}

#[derive(Debug)]
pub struct Http {
    pub timeout: Duration,
    pub tries: usize,
    pub wait: Duration,
    pub slots: usize,
    pub queued: usize,
    pub keepalive: Duration,
}

#[derive(Debug)]
pub struct Redis {
    pub prefix: String,
    pub password: Option<String>,
    pub ping_interval: Option<Duration>,
}

/// How soon a Redis ping must be answered.
pub const REDIS_PING_TIMEOUT: Duration = Duration::from_millis(2_000);

/// How long connecting to Redis may take, and how long the program waits before it tries again.
pub const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub const REDIS_DELAY_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Limits {
    pub connections: usize,
    pub per_address: usize,
    pub message_bytes: usize,
    pub subscriptions: usize,
    pub keys: usize,
    pub queued_events: usize,
    pub send_queue: usize,
    pub handshake: Duration,
    pub close: Duration,
}

/// The longest message of a client, and its longest handshake.
pub const MESSAGE_BYTES_MAX: usize = 4_000;
pub const HEADER_BYTES_MAX: usize = 1_000;

/// The password of a Redis that has one.
pub const REDIS_PASSWORD: &str = "hush-hush";

/// The names of topics: few, so that sessions meet.
pub const TOPICS: [&str; 3] = ["a", "b.c", "ü"];

const HOOKS: [Hook; 8] = [
    Hook::Authorizer,
    Hook::BeforeSubscribe,
    Hook::OnSubscribe,
    Hook::OnMessage,
    Hook::BeforeUnsubscribe,
    Hook::OnUnsubscribe,
    Hook::OnAuthorizationChange,
    Hook::OnHeartbeat,
];

impl Rules {
    pub fn of(params: &Params, dice: &mut Dice) -> Rules {
        let (shared, jams) = (dice.chance(30), dice.chance(20));
        let mut services: Vec<Service> = (0..3).map(|index| service(index, shared, dice)).collect();
        if jams {
            // A renewal that finds no room leaves no trace: its moment must be known.
            let renewals = services.iter_mut().filter_map(|service| service.renewal.as_mut());
            renewals.for_each(|renewal| renewal.1 = Duration::ZERO);
        }
        let slow = *dice.pick(&[1, 1, 4, 64]);
        Rules {
            services: services.into_iter().map(Rc::new).collect(),
            auth_fields: fields(&["user", "level"], 1 + dice.below(2)),
            http: Http {
                timeout: dice.millis(500, 3_000),
                tries: dice.between(1, 3),
                wait: dice.millis(0, 1_000),
                slots: if params.has(Fault::Slow) { slow } else { 64 },
                queued: if jams { 3 } else { 100_000 },
                keepalive: dice.millis(200, 4_000),
            },
            redis: (0..1 + dice.below(2)).map(|_| redis(dice)).collect(),
            pings: dice.chance(70).then(|| (dice.millis(1_000, 5_000), dice.millis(500, 4_000))),
            pong_immediate: dice.chance(30),
            metadata: dice.chance(30),
            shuts_down: dice.chance(15) && params.has(Fault::Redis),
            limits: limits(params, dice),
            log: (*dice.pick(&["DEBUG", "WARNING"]), *dice.pick(&["DEBUG", "INFO", "INFO"])),
        }
    }

    /// The rules that a run goes by.
    pub fn of_params(params: &Params) -> Rules {
        Rules::of(params, &mut Dice::new(params.seed))
    }

    /// Whether messages are throttled: what has no room to wait goes out early, and what counts as
    /// room where there is very little is the program's affair.
    pub fn throttles(&self) -> bool {
        self.limits.send_queue > 2_000
    }

    /// Whether callbacks may find their queue full.
    pub fn jams(&self) -> bool {
        self.http.queued < 100
    }

    pub fn service(&self, name: &str) -> Option<&Rc<Service>> {
        self.services.iter().find(|service| service.name == name)
    }

    pub fn config(&self) -> Config {
        config::parse(&self.json(), &|_| None).expect("the rules are in order")
    }

    /// The configuration file.
    fn json(&self) -> String {
        let services: serde_json::Map<String, Value> =
            self.services.iter().map(|it| (it.name.clone(), service_json(it))).collect();
        let pings = match self.pings {
            Some((interval, timeout)) => {
                json!({"interval": seconds(interval), "timeout": seconds(timeout)})
            }
            None => json!({"interval": null}),
        };
        let mut config = json!({
            "WS_PING": pings,
            "WS_ALLOWED_ORIGINS": ["https://good.test", "https://*.good.test"],
            "WS_PONG_IMMEDIATE": self.pong_immediate,
            "LOG": {"level": self.log.0, "trace_level": self.log.1, "style": "json"},
            "HTTP": {
                "timeout": seconds(self.http.timeout),
                "tries": self.http.tries,
                "wait": seconds(self.http.wait),
                "max_connections_per_host": self.http.slots,
                "max_queued_per_host": self.http.queued,
                "keepalive_timeout": seconds(self.http.keepalive),
                "dns_ttl": 5,
            },
            "AUTHENTICATION": {"ticket": {
                "validation_url": url("door", "ticket", Hook::Validation),
                "auth_fields": self.auth_fields,
            }},
            "SERVICES": services,
            "MESSAGE_METADATA": self.metadata,
            "LIMITS": self.limits.json(),
        });
        for (redis, key) in self.redis.iter().zip(["REDIS", "REDIS_ALT"]) {
            config[key] = redis_json(redis, key, self.shuts_down);
        }
        config.to_string()
    }
}

impl Limits {
    fn json(&self) -> Value {
        json!({
            "max_connections": self.connections,
            "max_connections_per_ip": self.per_address,
            "max_message_bytes": self.message_bytes,
            "max_header_bytes": HEADER_BYTES_MAX,
            "max_subscriptions_per_session": self.subscriptions,
            "max_keys_per_subscription": self.keys,
            "max_queued_events_per_session": self.queued_events,
            "send_queue_bytes": self.send_queue,
            "handshake_timeout": seconds(self.handshake),
            "close_timeout": seconds(self.close),
            "shutdown_timeout": 600,
        })
    }
}

fn limits(params: &Params, dice: &mut Dice) -> Limits {
    let small = *dice.pick(&[None, Some(500), Some(1_000), Some(3_000)]);
    let small = small.filter(|_| params.has(Fault::Stalls));
    Limits {
        connections: if dice.chance(10) && !params.is_crowded() { 5 } else { 0 },
        per_address: if dice.chance(20) && !params.is_crowded() { 3 } else { 0 },
        message_bytes: MESSAGE_BYTES_MAX,
        subscriptions: if dice.chance(20) { 3 } else { 1_000 },
        keys: if dice.chance(20) { 2 } else { 1_000 },
        queued_events: *dice.pick(&[1, 2, 4, 32]),
        send_queue: small.unwrap_or(1_048_576),
        handshake: dice.millis(1_000, 4_000),
        close: dice.millis(500, 3_000),
    }
}

fn redis(dice: &mut Dice) -> Redis {
    Redis {
        prefix: (*dice.pick(&["", "p:", "ws."])).to_owned(),
        password: dice.chance(30).then(|| REDIS_PASSWORD.to_owned()),
        ping_interval: dice.chance(80).then(|| dice.millis(1_000, 5_000)),
    }
}

fn redis_json(redis: &Redis, host: &str, shuts_down: bool) -> Value {
    json!({
        "host": format!("{}.test", host.to_lowercase().replace('_', "-")),
        "channel_prefix": redis.prefix,
        "password": redis.password,
        "ping_interval": redis.ping_interval.map(seconds),
        "ping_timeout": seconds(REDIS_PING_TIMEOUT),
        "connect_timeout": seconds(REDIS_CONNECT_TIMEOUT),
        "reconnect_max_delay": seconds(REDIS_DELAY_MAX),
        "on_disconnect": if shuts_down { "shutdown" } else { "reconnect" },
    })
}

/// A service with hooks, with some, or with none.
fn service(index: usize, shared: bool, dice: &mut Dice) -> Service {
    let share = *dice.pick(&[[100, 60, 0], [100, 80, 40]]);
    let hooks: Vec<Hook> = HOOKS.into_iter().filter(|_| dice.chance(share[index])).collect();
    let period = dice.millis(1_000, 4_000);
    let has_renewal = hooks.contains(&Hook::Authorizer) && dice.chance(70);
    let jitter = if dice.chance(50) { dice.millis(0, 900) } else { Duration::ZERO };
    let grace = if dice.chance(50) { dice.millis(500, 6_000) } else { Duration::ZERO };
    Service {
        name: ["full", "some", "bare"][index].to_owned(),
        host: if shared { "all" } else { ["full", "some", "bare"][index] }.to_owned(),
        requires_auth: dice.chance([80, 40, 20][index]),
        // The tag tells whose callback it is; without callbacks none is needed, and sessions share
        // their frames.
        extra_fields: if hooks.is_empty() {
            fields(&["lang", "team"], dice.below(3))
        } else {
            fields(&["tag", "lang", "team"], 1 + dice.below(3))
        },
        filter_fields: fields(&["lang", "user", "tag"], dice.below(4)),
        authorizer_fields: fields(&["role", "lang"], dice.below(3)),
        renewal: has_renewal.then_some((period, jitter, grace)),
        heartbeat: hooks.contains(&Hook::OnHeartbeat).then(|| dice.millis(1_000, 5_000)),
        hooks,
    }
}

fn service_json(service: &Service) -> Value {
    let mut json = json!({
        "require_authentication": service.requires_auth,
        "extra_fields": service.extra_fields,
        "filter_fields": service.filter_fields,
        "authorizer_fields": service.authorizer_fields,
        "heartbeat_period": service.heartbeat.map(seconds),
    });
    if let Some((period, jitter, grace)) = service.renewal {
        json["authorization_renewal_period"] = json!(seconds(period));
        json["authorization_renewal_jitter"] = json!(seconds(jitter));
        json["authorization_grace"] = json!(seconds(grace));
    }
    for &hook in &service.hooks {
        json[hook.name()] = json!(url(&service.host, &service.name, hook));
    }
    json
}

/// The host stands in the path too, so that a request can be seen to have gone astray.
fn url(host: &str, service: &str, hook: Hook) -> String {
    format!("http://{host}.test/{host}/{service}/{}", hook.name())
}

fn fields(names: &[&str], count: usize) -> Vec<String> {
    names.iter().take(count).map(|&name| name.to_owned()).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// For the report of a failing seed: what its end must be judged by.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Services (what is not named they do not have):")?;
        for service in &self.services {
            let hooks: Vec<&str> = service.hooks.iter().map(|hook| hook.name()).collect();
            let auth = if service.requires_auth { ", needs authentication" } else { "" };
            writeln!(f, "  {} at {}{auth}: {}", service.name, service.host, hooks.join(", "))?;
            let (extra, filter) = (&service.extra_fields, &service.filter_fields);
            write!(f, "    extra {extra:?}, filter {filter:?}")?;
            write!(f, ", authorizer fields {:?}", service.authorizer_fields)?;
            if let Some((period, jitter, grace)) = service.renewal {
                write!(f, ", renewed every {period:?} less {jitter:?}, grace {grace:?}")?;
            }
            if let Some(period) = service.heartbeat {
                write!(f, ", heartbeat every {period:?}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "Authentication fields {:?}; pings {:?}", self.auth_fields, self.pings)?;
        writeln!(f, "{:?}\n{:?}", self.http, self.limits)?;
        self.redis.iter().try_for_each(|redis| writeln!(f, "{redis:?}"))
    }
}
