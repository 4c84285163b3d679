//! Sockets by connection: reading, writing, closing, and how many there may be.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use super::ALL;
use super::joined::Joined;
use super::tls::{Buffers, Channel};
use crate::arena::{ConnId, ConnTag, Table};
use crate::limits::{SLICES_PER_WRITE, WRITES_PER_TURN};
use crate::outbox::Outbox;
use crate::ports::Door;
use crate::time::{Instant, soonest};

/// Descriptors that are no connections: standard streams, poll, waker, signals, listeners.
const FIXED_DESCRIPTORS: usize = 24;

/// The reserve for callbacks and Redis: a quarter of the descriptors, at most this.
const RESERVE_MAX: usize = 64;

/// After the system refused a descriptor, nothing is accepted for this long, or until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// After the system refused a descriptor for a dial, it is tried again after this long, or when a
/// descriptor comes free.
const DIAL_PAUSE: Duration = Duration::from_millis(50);

/// Silence after which the system asks whether a peer of the broker is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// Bytes written to one socket in one turn.
const WRITE_BYTES_PER_TURN: usize = 1 << 20;

/// The width of a connection's index in a token; its generation has the rest. On 32-bit machines
/// that is enough for a million connections.
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

struct Socket {
    stream: TcpStream,
    /// What the stream goes through, where it is TLS.
    channel: Option<Channel>,
    /// Whether the connection is still being made.
    dialling: bool,
    /// Edges come once: remembered until a read finds nothing more.
    readable: bool,
    /// In the queue of those to be read.
    queued: bool,
    /// The peer's FIN or reset has come, perhaps behind bytes: it is to be read as well.
    peer_closed: bool,
    /// The peer's FIN was read.
    read_ended: bool,
    /// To be shut down for writing when nothing waits any more.
    closing: bool,
}

/// What a read gave.
pub enum Read {
    /// So many bytes; `true`: there are no more for now.
    Bytes(usize, bool),
    Nothing,
    Ended,
    Failed(String),
}

/// What a write did.
pub enum Flushed {
    /// All of it, or as much as a turn may take.
    Written(usize),
    /// This much; the socket takes no more.
    Blocked(usize),
    Failed(String),
}

pub struct Sockets {
    sockets: Table<ConnTag, Socket>,
    readable: VecDeque<ConnId>,
    dialled: VecDeque<(ConnId, Result<(), String>)>,
    /// Descriptors that the system lends us.
    descriptors: usize,
    /// The system has refused a descriptor: accepting rests until then.
    resting: Option<Instant>,
    paused: bool,
    /// Dials that found no descriptor.
    put_off: Vec<(ConnId, SocketAddr)>,
    /// When they are tried again: at once when a descriptor comes free.
    dial_again: Option<Instant>,
    joined: Joined,
    buffers: Buffers,
}

/// Raises the soft limit of descriptors to the hard one and gives it.
pub fn raise_descriptor_limit() -> usize {
    // Where it cannot be told, the system's refusals are the only limit.
    rlimit::increase_nofile_limit(u64::MAX).map_or(usize::MAX, |limit| limit as usize)
}

impl Sockets {
    pub fn new(descriptors: usize) -> Sockets {
        Sockets {
            sockets: Table::default(),
            readable: VecDeque::new(),
            dialled: VecDeque::new(),
            descriptors,
            resting: None,
            paused: false,
            put_off: Vec::new(),
            dial_again: None,
            joined: Joined::default(),
            buffers: Buffers::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether another connection may be accepted: clients leave a reserve to callbacks and
    /// Redis, the other ports half of it.
    pub fn has_room_for(&self, door: Door) -> bool {
        let reserve = (self.descriptors / 4).min(RESERVE_MAX);
        let kept = match door {
            Door::Clients => reserve,
            Door::Metrics | Door::Broker | Door::Demo => reserve / 2,
        };
        let fixed = FIXED_DESCRIPTORS.min(self.descriptors / 4);
        self.resting.is_none() && self.len() + kept + fixed < self.descriptors
    }

    /// The system has refused a descriptor.
    pub fn out_of_descriptors(&mut self, now: Instant) {
        self.resting = Some(now.after(ACCEPT_PAUSE));
    }

    /// When accepting or dialling may be tried again.
    pub fn next_deadline(&self) -> Option<Instant> {
        soonest(self.resting, self.dial_again)
    }

    pub fn end_rest(&mut self, now: Instant) {
        if self.resting.is_some_and(|until| until <= now) {
            self.resting = None;
        }
    }

    /// Whether accepting has been paused or taken up again since the last call, for the log.
    pub fn pause_changed(&mut self, somebody_waits: bool) -> Option<bool> {
        let paused = somebody_waits && !self.has_room_for(Door::Clients);
        (paused != self.paused).then(|| {
            self.paused = paused;
            paused
        })
    }

    /// Takes an accepted connection.
    pub fn add(
        &mut self,
        conn: ConnId,
        stream: TcpStream,
        channel: Option<Channel>,
        registry: &Registry,
    ) -> io::Result<()> {
        self.register(conn, stream, channel, false, registry)
    }

    /// Begins to connect.
    pub fn dial(
        &mut self,
        conn: ConnId,
        to: SocketAddr,
        channel: Option<Channel>,
        registry: &Registry,
    ) -> io::Result<()> {
        let stream = TcpStream::connect(to)?;
        self.register(conn, stream, channel, true, registry)
    }

    /// Keeps a dial that found no descriptor. Says whether it is the first one.
    pub fn put_off(&mut self, conn: ConnId, to: SocketAddr, now: Instant) -> bool {
        self.put_off.push((conn, to));
        self.dial_again = Some(now.after(DIAL_PAUSE));
        self.put_off.len() == 1
    }

    /// The dials to be tried again by now; those that come too early once more are put off anew.
    pub fn take_put_off(&mut self, now: Instant) -> Vec<(ConnId, SocketAddr)> {
        if self.dial_again.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.dial_again = None;
        std::mem::take(&mut self.put_off)
    }

    fn register(
        &mut self,
        conn: ConnId,
        mut stream: TcpStream,
        channel: Option<Channel>,
        dialling: bool,
        registry: &Registry,
    ) -> io::Result<()> {
        // Small frames must not wait for acknowledgements. On Linux, what is accepted has
        // that from its listener. A socket that cannot be told works.
        if dialling || !cfg!(target_os = "linux") {
            let _ = stream.set_nodelay(true);
        }
        registry.register(&mut stream, token_of(conn), ALL)?;
        let socket = Socket {
            stream,
            channel,
            dialling,
            readable: false,
            queued: false,
            peer_closed: false,
            read_ended: false,
            closing: false,
        };
        self.sockets.insert(conn, socket);
        Ok(())
    }

    /// Notes what has become ready. Gives the connection, once it is connected.
    pub fn note(&mut self, event: &Event, token: Token) -> Option<ConnId> {
        let conn = self.find(token)?;
        let socket = self.sockets.get_mut(conn)?;
        if socket.dialling {
            let result = dialled(&socket.stream)?;
            socket.dialling = false;
            match &mut socket.channel {
                Some(channel) if result.is_ok() => {
                    channel.begin(&mut socket.stream, &mut self.buffers);
                }
                _ => self.dialled.push_back((conn, result)),
            }
        }
        if let Some(channel) = &mut socket.channel
            && event.is_writable()
        {
            channel.writable(&mut socket.stream);
        }
        socket.peer_closed |= event.is_read_closed() || event.is_error();
        if event.is_readable() || socket.peer_closed {
            socket.readable = true;
            self.enqueue(conn);
        }
        Some(conn)
    }

    /// The connection of a token. One of an earlier occupant of the slot finds nothing.
    fn find(&self, token: Token) -> Option<ConnId> {
        let index = token.0 & ((1 << INDEX_BITS) - 1);
        let conn = self.sockets.id_at(index)?;
        (token_of(conn) == token).then_some(conn)
    }

    /// Whether a connection is in the handshake of TLS.
    pub fn is_shaking_hands(&self, conn: ConnId) -> bool {
        let channel = self.sockets.get(conn).and_then(|socket| socket.channel.as_ref());
        channel.is_some_and(|channel| !channel.is_open())
    }

    /// Who is at the other end, for the log.
    pub fn peer(&self, conn: ConnId) -> String {
        let address = self.sockets.get(conn).map(|socket| socket.stream.peer_addr());
        match address {
            Some(Ok(address)) => address.ip().to_canonical().to_string(),
            Some(Err(_)) | None => "gone".to_owned(),
        }
    }

    /// The next dial, or handshake of TLS, that has come to an end.
    pub fn take_dialled(&mut self) -> Option<(ConnId, Result<(), String>)> {
        self.dialled.pop_front()
    }

    // ----------------------------------------------------------------- reading

    fn enqueue(&mut self, conn: ConnId) {
        let Some(socket) = self.sockets.get_mut(conn) else { return };
        if socket.readable && !socket.queued && !socket.read_ended {
            socket.queued = true;
            self.readable.push_back(conn);
        }
    }

    pub fn has_readable(&self) -> bool {
        !self.readable.is_empty()
    }

    pub fn readable_len(&self) -> usize {
        self.readable.len()
    }

    pub fn next_readable(&mut self) -> Option<ConnId> {
        let conn = self.readable.pop_front()?;
        if let Some(socket) = self.sockets.get_mut(conn) {
            socket.queued = false;
        }
        Some(conn)
    }

    /// There is more to read, in the next turn.
    pub fn read_later(&mut self, conn: ConnId) {
        self.enqueue(conn);
    }

    /// The connection takes input again.
    pub fn resume(&mut self, conn: ConnId) {
        self.enqueue(conn);
    }

    pub fn read(&mut self, conn: ConnId, scratch: &mut [u8]) -> Read {
        let Some(socket) = self.sockets.get_mut(conn) else { return Read::Nothing };
        if socket.read_ended || socket.dialling {
            return Read::Nothing;
        }
        if socket.channel.is_some() {
            return self.read_channel(conn, scratch);
        }
        loop {
            return match socket.stream.read(scratch) {
                Ok(0) => {
                    socket.read_ended = true;
                    Read::Ended
                }
                Ok(bytes) => {
                    // A stream that gave less than was asked for has no more (epoll(7), question
                    // 9), and says so with a new edge when it has: one call less per message. A FIN
                    // that was announced with the bytes has no edge of its own.
                    let drained = bytes < scratch.len() && !socket.peer_closed;
                    socket.readable = !drained;
                    Read::Bytes(bytes, drained)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable = false;
                    Read::Nothing
                }
                Err(error) => Read::Failed(error.to_string()),
            };
        }
    }

    /// The same through TLS.
    fn read_channel(&mut self, conn: ConnId, scratch: &mut [u8]) -> Read {
        let Some(socket) = self.sockets.get_mut(conn) else { return Read::Nothing };
        let Some(channel) = &mut socket.channel else { return Read::Nothing };
        let was_open = channel.is_open();
        let (read, more) = channel.read(&mut socket.stream, scratch, &mut self.buffers);
        if !was_open && channel.is_open() {
            self.dialled.push_back((conn, Ok(())));
        } else if !was_open && let Some(why) = channel.take_refusal() {
            self.dialled.push_back((conn, Err(why)));
        }
        // A FIN that was announced with the bytes has no edge of its own.
        socket.readable = more || socket.peer_closed;
        match read {
            Read::Bytes(bytes, drained) => Read::Bytes(bytes, drained && !socket.peer_closed),
            Read::Ended => {
                socket.read_ended = true;
                Read::Ended
            }
            Read::Nothing => {
                self.enqueue(conn);
                Read::Nothing
            }
            Read::Failed(why) => Read::Failed(why),
        }
    }

    /// Sends the acknowledgement of what was read without the usual delay.
    pub fn acknowledge(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.get(conn) {
            quick_acknowledge(&socket.stream);
        }
    }

    // ----------------------------------------------------------------- writing

    /// Writes what waits, within a turn's budget.
    pub fn write(&mut self, conn: ConnId, outbox: &Outbox) -> Flushed {
        let Some(socket) = self.sockets.get_mut(conn) else { return Flushed::Blocked(0) };
        if socket.dialling {
            return Flushed::Blocked(0);
        }
        if let Some(channel) = &mut socket.channel {
            return channel.write(&mut socket.stream, outbox, &mut self.buffers);
        }
        let mut written = 0;
        for _ in 0..WRITES_PER_TURN {
            if written == outbox.bytes() || written >= WRITE_BYTES_PER_TURN {
                break;
            }
            let piece = outbox
                .one_frame_from(written)
                .or_else(|| self.joined.bytes_of(outbox).and_then(|bytes| bytes.get(written..)));
            let result = match piece {
                Some(bytes) => socket.stream.write(bytes),
                None => write_slices(&mut socket.stream, outbox, written),
            };
            match result {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Flushed::Blocked(written);
                }
                Err(error) => return Flushed::Failed(error.to_string()),
            }
        }
        Flushed::Written(written)
    }

    /// The turn's writing is over.
    pub fn end_writing(&mut self) {
        self.joined.clear();
    }

    /// All that waited is written: a connection that was to be shut down then is.
    pub fn emptied(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.get_mut(conn)
            && std::mem::take(&mut socket.closing)
        {
            match &mut socket.channel {
                Some(channel) => channel.finish(&mut socket.stream, &mut self.buffers),
                // A peer that has gone already has no use for our FIN.
                None => drop(socket.stream.shutdown(Shutdown::Write)),
            }
        }
    }

    /// Shuts down for writing as soon as nothing waits any more in this outbox.
    pub fn half_close(&mut self, conn: ConnId, outbox: Option<&Outbox>) {
        if let Some(socket) = self.sockets.get_mut(conn) {
            socket.closing = true;
        }
        if outbox.is_none_or(Outbox::is_empty) {
            self.emptied(conn);
        }
    }

    pub fn close(&mut self, conn: ConnId) {
        // Nobody else has the descriptor: closing it takes it out of the poll.
        if let Some(mut socket) = self.sockets.remove(conn) {
            self.resting = None;
            self.dial_again = self.dial_again.map(|_| Instant(0));
            if let Some(channel) = &mut socket.channel {
                channel.farewell(&mut socket.stream, &mut self.buffers);
            }
        }
    }
}

/// Writes what waits past the first `skip` bytes, as far as one call takes it.
fn write_slices(stream: &mut TcpStream, outbox: &Outbox, skip: usize) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let used = outbox.slices_from(skip, &mut slices);
    match &slices[..used] {
        [one] => stream.write(one),
        several => stream.write_vectored(several),
    }
}

/// Whether the system refuses for want of descriptors: the process has too many, or the system.
pub fn is_shortage(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

#[cfg(target_os = "linux")]
fn quick_acknowledge(stream: &TcpStream) {
    // Where it fails, the kernel takes its time.
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
}

/// Elsewhere there is no such option.
#[cfg(not(target_os = "linux"))]
fn quick_acknowledge(_stream: &TcpStream) {}

/// Has the system look after a peer that may be silent for long, as Redis does, so that one whose
/// machine is gone does not stay for ever.
pub fn keep_alive(stream: &TcpStream) {
    let probes = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE);
    // A socket that cannot be told works.
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&probes);
}

fn token_of(conn: ConnId) -> Token {
    Token(conn.index() | ((conn.generation() as usize) << INDEX_BITS))
}

/// How a dial has ended; `None`: not yet.
fn dialled(stream: &TcpStream) -> Option<Result<(), String>> {
    match stream.take_error() {
        Ok(Some(error)) | Err(error) => return Some(Err(error.to_string())),
        Ok(None) => {}
    }
    match stream.peer_addr() {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error.to_string())),
    }
}
