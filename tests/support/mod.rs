//! What the tests over real sockets share: the router's process, a Redis, an HTTP service and a
//! WebSocket client that can also misbehave.
//!
//! - `wait`: waiting for conditions, free ports, folders that vanish
//! - `redis`: a redis-server of one's own
//! - `service`: HTTP services with scripted answers that remember what they were asked
//! - `http`: HTTP heads, as client and service need them
//! - `client`: WebSocket clients
//! - `router`: the program itself
//! - `random`: chance that can be repeated
//! - `broker`: the program as its own broker
//! - `calling`: a world in which every subscribe is one call
//! - `tls`: certificates made on the spot, and relays to and from TLS
//! - `innocent`: a client that does nothing wrong while others do
//!
//! No test sleeps for a fixed time: it waits for what must happen, with a deadline. That something
//! does not happen is shown by what would have come after it.
#![allow(dead_code, reason = "every test file compiles all of this and uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

pub mod broker;
pub mod calling;
pub mod client;
pub mod http;
pub mod innocent;
pub mod random;
pub mod redis;
pub mod router;
pub mod service;
#[cfg(feature = "tls")]
pub mod tls;
pub mod wait;

pub use client::Client;
pub use redis::Redis;
pub use router::Router;
pub use service::Service;

use serde_json::{Value, json};

/// A Redis, a service and a router between them.
pub struct World {
    pub router: Router,
    pub service: Service,
    pub redis: Redis,
}

impl World {
    /// `config` is laid over `router::base_config`; it is made once the service's port is known.
    pub fn new(config: impl FnOnce(&Service) -> Value) -> World {
        let redis = Redis::start();
        let service = Service::start();
        let router = Router::start(&redis, config(&service));
        World { router, service, redis }
    }

    /// One service `books` with these hooks, open to everybody.
    pub fn books(hooks: &[&str]) -> World {
        World::new(|service| json!({ "SERVICES": { "books": service.hooks(hooks) } }))
    }

    /// `books` with all of the hooks that a session without renewals can meet.
    pub fn all_hooks() -> World {
        World::books(&SESSION_HOOKS)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.router.port)
    }

    /// A client with a subscription.
    pub fn reader(&self, subscription: &str) -> Client {
        let mut client = self.client();
        client.subscribe(subscription);
        client
    }

    /// No message has come since, as one published now shows.
    #[track_caller]
    pub fn expect_no_message(&self, client: &mut Client, subscription: &str) {
        self.publish(subscription, json!("and then"));
        assert_eq!(client.recv_data(), "and then");
    }

    /// Publishes `data` as a service does: on the channel of the subscription that it names.
    pub fn publish(&self, subscription: &str, data: Value) {
        let message = json!({ "subscription": subscription, "data": data });
        self.redis.publish(subscription, &message.to_string());
    }
}

/// The hooks in the order in which a session's life calls them.
pub const SESSION_HOOKS: [&str; 6] = [
    "authorizer",
    "before_subscribe",
    "on_subscribe",
    "on_message",
    "before_unsubscribe",
    "on_unsubscribe",
];

// Events and their answers.

pub fn subscribe(subscription: &str) -> Value {
    json!({ "event": "subscribe", "subscription": subscription })
}

pub fn unsubscribe(subscription: &str) -> Value {
    json!({ "event": "unsubscribe", "subscription": subscription })
}

/// An answer to a subscription event.
pub fn answer(event: &str, subscription: &str, further: Value) -> Value {
    let mut answer = json!({ "event": event, "subscription": subscription });
    merge(&mut answer, further);
    answer
}

/// Lays `over` on `base`: objects are merged, everything else is replaced.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}
