//! Bytes to values and back: no ids, no time, no policy beyond limits.

pub mod commands;
pub mod http;
pub mod json;
pub mod replies;
pub mod resp;
pub mod upgrade;
pub mod ws;
