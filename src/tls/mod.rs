//! TLS (RFC 5246, RFC 8446): what is between a socket's bytes and a connection's. In builds with
//! the cargo feature `tls` alone.
//!
//! - `keys` makes certificates, keys and roots what sessions begin with, or says what is wrong
//! - `verify` checks a server's certificate, and names the one that is refused
//! - `session` is one connection's machine: bytes of TLS in, bytes of the connection out, and back
//!
//! No I/O: `shell` reads the files and the sockets. Nothing here knows what the bytes mean.

mod der;
mod keys;
mod session;
mod verify;

pub use keys::{Files, Keys};
pub use session::{Fault, Session};
