//! One state machine per kind of connection: bytes in, frames out, next deadline.

pub mod access;
pub mod redis;
pub mod scrape;
