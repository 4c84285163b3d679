//! SocketShark: a WebSocket message router.

#![forbid(unsafe_code)]

pub mod arena;
pub mod config;
pub mod conn;
pub mod limits;
pub mod log;
pub mod message;
pub mod metrics;
pub mod number;
pub mod outbox;
pub mod ports;
pub mod random;
pub mod route;
pub mod time;
pub mod timers;
pub mod wire;
