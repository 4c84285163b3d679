//! One state machine per kind of connection: bytes in, frames out, next deadline.

pub mod access;
pub mod broker;
pub mod callback;
pub mod calls;
pub mod client;
pub mod deadlines;
pub mod names;
pub mod ping_clock;
pub mod redis;
pub mod scrape;
