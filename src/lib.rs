//! SocketShark: a WebSocket message router.
//!
//! How a byte travels:
//!
//! - `shell` waits in one poll for all sockets, reads what is ready into one buffer and hands it,
//!   with the time, to the `engine`. It is the only room with system calls.
//! - `engine` gives the bytes to the machine that the connection has: `conn::client` for a
//!   WebSocket client, `conn::redis` for a link to Redis, `conn::calls` for a callback to a
//!   service, `conn::scrape` for a peer at the metrics port, `conn::broker` for a peer of the
//!   embedded broker.
//! - these read them with the codecs of `wire` (handshake, frames, RESP, HTTP/1.1, JSON), and
//!   tell what was heard.
//! - what concerns subscriptions goes to the `route`r: its steps ask for callbacks and channels,
//!   its fan-out posts frames.
//! - what is to be written waits in `outbox`; the shell writes each connection once a turn.
//!
//! Everything but `shell` is free of sockets, clocks and threads: bytes, events and the time come
//! in, frames, outputs and deadlines come out. So the whole program runs in a simulation as it
//! runs in production.

#![forbid(unsafe_code)]

pub mod arena;
pub mod config;
pub mod conn;
pub mod demo;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
pub mod log;
pub mod message;
pub mod metrics;
pub mod number;
pub mod outbox;
pub mod ports;
pub mod random;
pub mod route;
pub mod shell;
pub mod time;
pub mod timers;
#[cfg(feature = "tls")]
pub mod tls;
pub mod wire;
