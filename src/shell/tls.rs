//! Sockets that speak TLS: what is read and written goes through a session, and everything else
//! stays as it is with a plain one.
//!
//! What is encrypted and not yet taken by the socket is one record at most. The last byte in it
//! counts as waiting until the whole record is written, so that to the core "written" means what
//! it means without TLS.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::sockets::{Flushed, Read};
use crate::config::Config;
use crate::limits::{
    LINGER_BYTES_MAX, SLICES_PER_WRITE, TLS_RECORD_BYTES_MAX, TLS_RECORD_COST, TLS_WRITES_PER_TURN,
};
use crate::outbox::Outbox;
use crate::ports::Kind;
use crate::tls::{self, Files, Session};

/// What a plain request at the port gets: an answer in its own language.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 43\r\nConnection: close\r\n\r\nThis port speaks TLS: use wss:// or https.\n";

/// Certificates, keys and roots.
#[derive(Clone, Default)]
pub struct Keys(tls::Keys);

impl Keys {
    /// Loads what a configuration names.
    pub fn load(config: &Config) -> Result<Keys, Vec<String>> {
        let read = |path: &str| std::fs::read(path).map_err(|error| error.to_string());
        let system_roots = || {
            let found = rustls_native_certs::load_native_certs();
            match found.errors.first() {
                Some(error) if found.certs.is_empty() => {
                    Err(format!("the system's root certificates: {error}"))
                }
                _ if found.certs.is_empty() => {
                    Err("this system has no root certificates; set ssl_cafile".to_owned())
                }
                _ => Ok(found.certs),
            }
        };
        tls::Keys::load(config, &Files { read: &read, system_roots: &system_roots }).map(Keys)
    }

    pub fn renew(&mut self, new: Keys, same_redis: bool) {
        self.0.renew(new.0, same_redis);
    }

    /// A channel for a client, if their port is TLS. `may_wait`: there are words for it already,
    /// which wait for the handshake.
    pub fn accept(&self, may_wait: impl FnOnce() -> bool) -> Option<Channel> {
        let session = Session::accept(self.0.clients.as_ref()?);
        // It fails for a configuration alone, which was tried when it was loaded.
        Some(Channel::new(session.ok()?, false, may_wait()))
    }

    /// A channel to a server whose certificate has to be for this name.
    pub fn dial(&self, kind: Option<Kind>, name: &str) -> Result<Channel, String> {
        let config = match kind {
            Some(Kind::Redis(index)) => self.0.redis.get(index).and_then(Option::as_ref),
            _ => self.0.services.as_ref(),
        };
        let config = config.ok_or("no certificates are loaded")?;
        let session = Session::dial(config, name).map_err(|fault| fault.to_string())?;
        Ok(Channel::new(session, true, true))
    }
}

/// One socket's TLS.
pub struct Channel(Box<State>);

struct State {
    session: Session,
    stage: Stage,
    /// We have dialled: a cut without a farewell may be an attack (RFC 9112, section 9.8).
    is_dialled: bool,
    /// What the core has to say waits for the handshake; else it ends it.
    may_wait: bool,
    /// Bytes for the core that it has not taken yet.
    kept: Vec<u8>,
    /// Records that the socket has not taken yet.
    unsent: Vec<u8>,
    /// The last byte of what is in `unsent` still counts as waiting in the outbox.
    owes_byte: bool,
    /// Our farewell is said.
    has_closed: bool,
    /// To be shut down for writing once `unsent` is empty.
    shuts_down: bool,
}

enum Stage {
    Handshake,
    Open,
    /// The handshake has failed: what comes is thrown away, up to so many bytes, so that no reset
    /// overtakes the alert. The text is for the log, once.
    Deaf {
        left: usize,
        why: Option<String>,
    },
}

/// What all channels work in.
pub struct Buffers {
    /// Bytes of a connection: decrypted, or gathered to be encrypted.
    plain: Vec<u8>,
    /// One record.
    record: Box<[u8]>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        let record = vec![0; TLS_RECORD_BYTES_MAX + TLS_RECORD_COST].into_boxed_slice();
        Buffers { plain: Vec::new(), record }
    }
}

impl Channel {
    fn new(session: Session, is_dialled: bool, may_wait: bool) -> Channel {
        Channel(Box::new(State {
            session,
            stage: Stage::Handshake,
            is_dialled,
            may_wait,
            kept: Vec::new(),
            unsent: Vec::new(),
            owes_byte: false,
            has_closed: false,
            shuts_down: false,
        }))
    }

    /// The connection stands: we begin, as the one who dialled.
    pub fn begin(&mut self, stream: &mut TcpStream, buffers: &mut Buffers) {
        let State { session, unsent, .. } = &mut *self.0;
        // What goes wrong here goes wrong again at the first read.
        let _ = session.receive(&mut [], &mut buffers.plain, unsent);
        let _ = self.0.flush(stream);
    }

    /// Whether the handshake is over.
    pub fn is_open(&self) -> bool {
        matches!(self.0.stage, Stage::Open)
    }

    /// Why the handshake has failed, told once.
    pub fn take_refusal(&mut self) -> Option<String> {
        match &mut self.0.stage {
            Stage::Deaf { why, .. } => why.take(),
            _ => None,
        }
    }

    /// Reads from the socket once, if nothing is kept from before. The flag: there may be more.
    pub fn read(
        &mut self,
        stream: &mut TcpStream,
        scratch: &mut [u8],
        buffers: &mut Buffers,
    ) -> (Read, bool) {
        let state = &mut *self.0;
        if !state.kept.is_empty() {
            let mut bytes = std::mem::take(&mut state.kept);
            return (Read::Bytes(state.give(&mut bytes, scratch), false), true);
        }
        if state.session.peer_has_closed() {
            return (Read::Ended, false);
        }
        let count = match stream.read(scratch) {
            Ok(0) => return (state.cut(), false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return (Read::Nothing, true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return (Read::Nothing, false);
            }
            Err(error) => return (Read::Failed(error.to_string()), false),
        };
        let more = count == scratch.len();
        buffers.plain.clear();
        match state.take(&mut scratch[..count], &mut buffers.plain, stream) {
            Ok(()) => {}
            Err(why) => return (Read::Failed(why), false),
        }
        let opens = matches!(state.stage, Stage::Handshake) && state.session.is_open();
        if opens {
            state.stage = Stage::Open;
        }
        if opens && state.is_dialled {
            // The core is to hear of the connection first.
            state.kept = buffers.plain.clone();
            return (Read::Nothing, true);
        }
        if buffers.plain.is_empty() {
            return (Read::Nothing, more || state.session.peer_has_closed());
        }
        let given = state.give(&mut buffers.plain, scratch);
        let more = more || !state.kept.is_empty() || state.session.peer_has_closed();
        (Read::Bytes(given, !more), more)
    }

    /// Writes what waits, within a turn's budget.
    pub fn write(
        &mut self,
        stream: &mut TcpStream,
        outbox: &Outbox,
        buffers: &mut Buffers,
    ) -> Flushed {
        let state = &mut *self.0;
        match &state.stage {
            Stage::Open => {}
            Stage::Handshake if state.may_wait => return Flushed::Blocked(0),
            Stage::Handshake => return Flushed::Failed("no TLS handshake in time".to_owned()),
            Stage::Deaf { .. } => return Flushed::Failed("the TLS handshake failed".to_owned()),
        }
        match state.flush(stream) {
            Ok(true) => {}
            Ok(false) => return Flushed::Blocked(0),
            Err(error) => return Flushed::Failed(error.to_string()),
        }
        let mut written = usize::from(std::mem::take(&mut state.owes_byte));
        for _ in 0..TLS_WRITES_PER_TURN {
            if written == outbox.bytes() {
                break;
            }
            let piece = piece_from(outbox, written, &mut buffers.plain);
            let length = match state.session.encrypt(piece, &mut buffers.record) {
                Ok(length) => length,
                Err(fault) => return Flushed::Failed(fault.to_string()),
            };
            written += piece.len();
            match state.send(stream, &buffers.record[..length]) {
                Ok(true) => {}
                Ok(false) => {
                    state.owes_byte = true;
                    return Flushed::Blocked(written - 1);
                }
                Err(error) => return Flushed::Failed(error.to_string()),
            }
        }
        Flushed::Written(written)
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, stream: &mut TcpStream) {
        // Who writes next meets the error.
        let _ = self.0.flush(stream);
    }

    /// Says farewell and shuts down for writing, once all is written.
    pub fn finish(&mut self, stream: &mut TcpStream, buffers: &mut Buffers) {
        self.0.shuts_down = true;
        self.0.close(buffers);
        let _ = self.0.flush(stream);
    }

    /// Says farewell before the socket is closed, if the socket takes it.
    pub fn farewell(&mut self, stream: &mut TcpStream, buffers: &mut Buffers) {
        if self.0.unsent.is_empty() {
            self.0.close(buffers);
            let _ = self.0.flush(stream);
        }
    }
}

impl State {
    /// The peer has ended the stream. A client's messages have their own end; what we dialled for
    /// may have been cut short by a stranger, unless it said farewell.
    fn cut(&self) -> Read {
        match (&self.stage, self.is_dialled) {
            (_, false) => Read::Ended,
            (Stage::Open, true) => Read::Failed("TLS: cut off without close_notify".to_owned()),
            (_, true) => Read::Failed("TLS: closed during the handshake".to_owned()),
        }
    }

    /// Takes in what was read.
    fn take(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        stream: &mut TcpStream,
    ) -> Result<(), String> {
        if let Stage::Deaf { left, .. } = &mut self.stage {
            let rest = left.checked_sub(input.len());
            *left = rest.ok_or("the TLS handshake failed")?;
            return Ok(());
        }
        let is_http = matches!(self.stage, Stage::Handshake) && is_http(input);
        let result = self.session.receive(input, plain, &mut self.unsent);
        let Err(fault) = result else {
            return self.flush(stream).map(drop).map_err(|error| error.to_string());
        };
        if self.is_dialled || matches!(self.stage, Stage::Open) {
            // The alert goes if the socket takes it.
            let _ = self.flush(stream);
            return Err(fault.to_string());
        }
        if is_http && !self.is_dialled {
            self.unsent = PLAIN_HTTP.to_vec();
        }
        self.stage = Stage::Deaf { left: LINGER_BYTES_MAX, why: Some(fault.to_string()) };
        self.shuts_down = true;
        self.flush(stream).map(drop).map_err(|error| error.to_string())
    }

    /// Gives as many of the bytes as there is room for, and keeps the rest.
    fn give(&mut self, bytes: &mut Vec<u8>, room: &mut [u8]) -> usize {
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.kept = bytes[count..].to_vec();
        bytes.clear();
        count
    }

    /// Writes what the socket has not taken yet. Whether it has all now.
    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let waiting = std::mem::take(&mut self.unsent);
            if !self.send(stream, &waiting)? {
                return Ok(false);
            }
        }
        if std::mem::take(&mut self.shuts_down) {
            // A peer that has gone already has no use for our FIN.
            let _ = stream.shutdown(Shutdown::Write);
        }
        Ok(true)
    }

    /// Writes bytes and keeps what the socket does not take. Whether it took all.
    fn send(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<bool> {
        let mut sent = 0;
        while sent < bytes.len() {
            match stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = bytes[sent..].to_vec();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn close(&mut self, buffers: &mut Buffers) {
        if self.has_closed || !matches!(self.stage, Stage::Open) {
            return;
        }
        self.has_closed = true;
        if let Ok(length) = self.session.close(&mut buffers.record) {
            self.unsent.extend_from_slice(&buffers.record[..length]);
        }
    }
}

/// What is to be encrypted next, past the first `skip` bytes of what waits: as many whole frames
/// as fit, or a part of one. Of a frame that is cut at least two bytes are taken, so that it counts
/// as begun while the last of them is owed.
fn piece_from<'a>(outbox: &'a Outbox, skip: usize, room: &'a mut Vec<u8>) -> &'a [u8] {
    if let Some(frame) = outbox.one_frame_from(skip) {
        return &frame[..frame.len().min(TLS_RECORD_BYTES_MAX)];
    }
    room.clear();
    let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let used = outbox.slices_from(skip, &mut slices);
    for slice in &slices[..used] {
        let left = TLS_RECORD_BYTES_MAX - room.len();
        if left < 2 && slice.len() > left {
            break;
        }
        room.extend_from_slice(&slice[..slice.len().min(left)]);
    }
    room
}

/// Whether a stream begins like a request of HTTP/1 in the clear.
fn is_http(input: &[u8]) -> bool {
    const METHODS: [&[u8]; 6] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS "];
    METHODS.iter().any(|method| input.starts_with(method))
}
