//! One state machine per kind of connection: bytes in, frames out, next deadline.

pub mod redis;
pub mod scrape;
