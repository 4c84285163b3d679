//! In place of `tls` where the program is built without it: there are no keys, and no socket has a
//! channel, which the compiler knows.

use mio::net::TcpStream;

use super::sockets::{Flushed, Read};
use crate::config::Config;
use crate::outbox::Outbox;
use crate::ports::Kind;

/// Nothing: the configuration names no certificates.
#[derive(Clone, Default)]
pub struct Keys;

/// There is none.
pub enum Channel {}

#[derive(Default)]
pub struct Buffers {}

impl Keys {
    pub fn load(_config: &Config) -> Result<Keys, Vec<String>> {
        Ok(Keys)
    }

    pub fn renew(&mut self, _new: Keys, _same_redis: bool) {}

    pub fn accept(&self, _may_wait: impl FnOnce() -> bool) -> Option<Channel> {
        None
    }

    pub fn dial(&self, _kind: Option<Kind>, _name: &str) -> Result<Channel, String> {
        Err("TLS is not in this build".to_owned())
    }
}

impl Channel {
    pub fn begin(&mut self, _stream: &mut TcpStream, _buffers: &mut Buffers) {
        match *self {}
    }

    pub fn is_open(&self) -> bool {
        match *self {}
    }

    pub fn take_refusal(&mut self) -> Option<String> {
        match *self {}
    }

    pub fn read(
        &mut self,
        _stream: &mut TcpStream,
        _scratch: &mut [u8],
        _buffers: &mut Buffers,
    ) -> (Read, bool) {
        match *self {}
    }

    pub fn write(
        &mut self,
        _stream: &mut TcpStream,
        _outbox: &Outbox,
        _buffers: &mut Buffers,
    ) -> Flushed {
        match *self {}
    }

    pub fn writable(&mut self, _stream: &mut TcpStream) {
        match *self {}
    }

    pub fn finish(&mut self, _stream: &mut TcpStream, _buffers: &mut Buffers) {
        match *self {}
    }

    pub fn farewell(&mut self, _stream: &mut TcpStream, _buffers: &mut Buffers) {
        match *self {}
    }
}
