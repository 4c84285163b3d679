//! Where the core meets the shell: what is reported, what is asked for, and the register of the
//! connections that all of it is about.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::arena::{Arena, ConnId, ConnTag};
use crate::config::Config;
use crate::log::Log;
use crate::metrics::{Metrics, ProcessFigures};
use crate::outbox::{Mail, Outbox};
use crate::time::{Instant, Now};

/// What the shell runs: the router's `Engine`, or whatever else is to live on the same loop. The
/// loop is compiled for one core, so that none of these calls is dynamic.
pub trait Core {
    /// The loop begins.
    fn start(&mut self, now: Now);

    /// Registers a connection that was accepted. `None`: close it, there are too many.
    fn accept(&mut self, now: Now, door: Door, peer: SocketAddr) -> Option<ConnId>;

    /// Takes in what has happened.
    fn handle(&mut self, now: Now, input: Input<'_>);

    /// So much of an outbox was written, and the socket may take more.
    fn written(&mut self, now: Now, conn: ConnId, bytes: usize);

    /// So much was written, and the socket takes no more until `unblocked`.
    fn blocked(&mut self, now: Now, conn: ConnId, bytes: usize);

    /// When `Input::Tick` is due, at the latest.
    fn next_deadline(&self) -> Option<Instant>;

    /// False while what a peer sent before has to be dealt with first (back-pressure), and for a
    /// connection that is closed.
    fn wants_read(&self, conn: ConnId) -> bool;

    /// Bytes to be read from a connection in this turn; 0: none, but in a later one.
    fn appetite(&self, conn: ConnId) -> usize;

    /// The name that the certificate of the server at the other end must have: a connection to it
    /// is TLS. `None`: it is not.
    fn tls_name(&self, _conn: ConnId) -> Option<&str> {
        None
    }

    /// The process's own figures, after `Output::Scrape`.
    fn scrape(&mut self, _now: Now, _conn: ConnId, _figures: &ProcessFigures) {}

    fn ports(&self) -> &Ports;
    fn ports_mut(&mut self) -> &mut Ports;
    fn log(&mut self) -> &mut Log;
    fn metrics(&mut self) -> &mut Metrics;

    /// What the shell is to do next.
    fn poll(&mut self) -> Option<Output> {
        self.ports_mut().poll()
    }

    /// What a connection is for.
    fn kind(&self, conn: ConnId) -> Option<Kind> {
        self.ports().kind(conn)
    }

    /// The next connection with replies to be written.
    fn next_prompt(&mut self) -> Option<ConnId> {
        self.ports_mut().mail.next_prompt()
    }

    /// The next connection with a message of a fan-out to be written.
    fn next_bulk(&mut self) -> Option<ConnId> {
        self.ports_mut().mail.next_bulk()
    }

    /// Whether an output waits to be obeyed or a connection to be written.
    fn has_work(&self) -> bool {
        self.ports().has_outputs() || self.ports().mail.has_work()
    }

    /// How many connections wait with messages of fan-outs.
    fn backlog(&self) -> usize {
        self.ports().mail.backlog()
    }

    fn outbox(&self, conn: ConnId) -> Option<&Outbox> {
        self.ports().mail.outbox(conn)
    }

    /// A socket takes bytes again.
    fn unblocked(&mut self, conn: ConnId) {
        self.ports_mut().mail.unblocked(conn);
    }
}

/// What the shell reports.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client port is open at this address.
    Listening(SocketAddr),
    /// A dial has succeeded.
    Connected(ConnId),
    /// Bytes have come.
    Received(ConnId, &'a [u8]),
    /// The peer's FIN or a reset has come, perhaps behind bytes that are not read yet.
    Leaving(ConnId),
    /// The peer will send no more (FIN), and all that it sent was read.
    Ended(ConnId),
    /// A dial has failed, or the connection has broken; in words.
    Lost(ConnId, &'a str),
    /// A dial has found no descriptor: what is not needed should go.
    Shortage,
    /// A name has been looked up.
    Resolved(&'a str, Result<Vec<IpAddr>, String>),
    /// Time has passed.
    Tick,
    /// The first time: end gracefully. The second time: end at once.
    Stop,
    /// The configuration file was read again.
    Reload(Result<Box<Config>, Vec<String>>),
}

/// Where a connection was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    Clients,
    Metrics,
    Broker,
    /// The demo's page and service.
    Demo,
}

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
    /// A peer of the embedded broker.
    Broker,
    /// A browser at the demo's page, or the router itself with a callback to the demo's service.
    Demo,
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
    /// The connection is ready to take input again (`Core::wants_read` was false).
    Resume(ConnId),
    /// Look a name up, then report `Input::Resolved`. Never an address literal.
    Resolve(Rc<str>),
    /// Report the process's own figures by `Core::scrape`.
    Scrape(ConnId),
    /// Write this to standard output.
    Say(Rc<str>),
    /// End the process with this status.
    Exit(i32),
    /// The same with status 1, and what the log does not say: one line for stderr.
    Fail(String),
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
        self.mail.open(id, limit, kind == Kind::Client);
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
            // Closing sends the FIN that shutting down would.
            if self.outputs.back() == Some(&Output::HalfClose(id)) {
                self.outputs.pop_back();
            }
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
