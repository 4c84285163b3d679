//! What the core asks of the shell, and the register of connections it asks for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::arena::{Arena, ConnId, ConnTag};
use crate::outbox::Mail;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A WebSocket client, from its first byte on.
    Client,
    /// A link to a Redis: `REDIS` is 0, `REDIS_ALT` is 1.
    Redis(usize),
    /// A connection to a service's origin.
    Callback,
    /// A peer at the metrics port.
    Scrape,
}

/// What the shell is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open the client port, then report `Input::Listening`.
    Listen,
    /// Close the client port.
    StopListening,
    /// Dial, then report `Input::Connected` or `Input::Lost`.
    Connect { conn: ConnId, to: SocketAddr },
    /// After all that waits is written, shut the socket down for writing.
    HalfClose(ConnId),
    /// Acknowledge what has come: the peer may wait for that with the rest of what it has to say.
    Acknowledge(ConnId),
    /// Close the socket at once; what waits is dropped and the id is dead already.
    Close(ConnId),
    /// The connection is ready to take input again (`Engine::wants_read` was false).
    Resume(ConnId),
    /// Look a name up, then report `Input::Resolved`. Never an address literal.
    Resolve(Rc<str>),
    /// Report the process's own figures by `Engine::scrape`.
    Scrape(ConnId),
    /// End the process with this status.
    Exit(i32),
}

/// The core's side of all sockets.
#[derive(Default)]
pub struct Ports {
    kinds: Arena<ConnTag, Kind>,
    pub mail: Mail,
    outputs: VecDeque<Output>,
}

impl Ports {
    /// Registers a connection; at most `limit` bytes wait for it while its socket is full.
    pub fn open(&mut self, kind: Kind, limit: usize) -> ConnId {
        let id = self.kinds.insert(kind);
        self.mail.open(id, limit);
        id
    }

    pub fn kind(&self, id: ConnId) -> Option<Kind> {
        self.kinds.get(id).copied()
    }

    /// Asks for an outgoing connection. May be asked again for the same id after
    /// `Input::Lost` (the next address of a name).
    pub fn connect(&mut self, id: ConnId, to: SocketAddr) {
        self.outputs.push_back(Output::Connect { conn: id, to });
    }

    /// Ends a connection at once. The id is dead from here on; doing it twice does no harm.
    pub fn close(&mut self, id: ConnId) {
        if self.kinds.remove(id).is_some() {
            self.mail.close(id);
            self.outputs.push_back(Output::Close(id));
        }
    }

    /// Queues any other output.
    pub fn ask(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Connections of all kinds.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}
