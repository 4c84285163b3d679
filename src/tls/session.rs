//! One connection's TLS: what comes from the socket becomes the connection's bytes, and what the
//! connection writes becomes records.
//!
//! An idle session holds no buffer: what is cut short waits in `partial`, which is freed when it
//! is complete; everything else goes through buffers of the caller's.

use std::fmt;
use std::mem;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CertificateError, ClientConfig, Error, ServerConfig};

use crate::limits::TLS_PARTIAL_BYTES_MAX;

const NOT_OPEN: &str = "the session is not open";

/// One connection's state.
pub struct Session {
    side: Side,
    /// Records that are not complete, or hold a handshake message that is not.
    partial: Vec<u8>,
    /// The handshake is over: there is a key to write with.
    is_open: bool,
    peer_closed: bool,
    /// There was a fault: rustls is not to be asked any more.
    is_broken: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// The session is over: what was wrong, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS: {}", self.0)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::InvalidCertificate(CertificateError::Other(why)) => Fault(why.0.to_string()),
            error => Fault(error.to_string()),
        }
    }
}

/// What a step came to.
enum Step {
    Again,
    /// Nothing more to do until something comes.
    Rest,
}

/// Where a step puts what it finds.
struct Sinks<'a> {
    plain: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
    is_open: &'a mut bool,
    peer_closed: &'a mut bool,
}

impl Session {
    /// A client has connected.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn accept(config: &Arc<ServerConfig>) -> Result<Session, Fault> {
        let server = UnbufferedServerConnection::new(config.clone())?;
        Ok(Session::new(Side::Server(Box::new(server))))
    }

    /// We have connected to a server that has to be `name`; `receive` with nothing begins.
    ///
    /// # Errors
    /// The name can be in no certificate.
    pub fn dial(config: &Arc<ClientConfig>, name: &str) -> Result<Session, Fault> {
        let server = ServerName::try_from(name.to_owned());
        let server =
            server.map_err(|_| Fault(format!("{name} is not a name for a certificate")))?;
        let client = UnbufferedClientConnection::new(config.clone(), server)?;
        Ok(Session::new(Side::Client(Box::new(client))))
    }

    fn new(side: Side) -> Session {
        Session { side, partial: Vec::new(), is_open: false, peer_closed: false, is_broken: false }
    }

    /// Whether the handshake is over.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the peer has said that it will send no more.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes in what the socket gave: the connection's bytes go to `plain`, what the handshake or
    /// an alert has to say to `out`. `input` is used as a workplace.
    ///
    /// # Errors
    /// The session is over; `out` has the alert for the peer, and what came before it counts.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if self.peer_closed || self.is_broken {
            return Ok(());
        }
        if self.partial.is_empty() {
            let used = self.advance(input, plain, out)?;
            if used < input.len() {
                self.partial = input[used..].to_vec();
            }
            return Ok(());
        }
        self.partial.extend_from_slice(input);
        let mut whole = mem::take(&mut self.partial);
        let used = self.advance(&mut whole, plain, out)?;
        if used < whole.len() {
            whole.drain(..used);
            self.partial = whole;
        }
        if self.partial.len() > TLS_PARTIAL_BYTES_MAX {
            return Err(Fault("a message of the handshake is too long".to_owned()));
        }
        Ok(())
    }

    /// Goes on as far as `input` reaches; gives how much of it is done with.
    fn advance(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let Session { side, is_open, peer_closed, .. } = self;
            let mut sinks = Sinks { plain, out, is_open, peer_closed };
            let (discard, step) = side.step(&mut input[used..], &mut sinks);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Rest) if self.peer_closed => return Ok(input.len()),
                Ok(Step::Rest) => return Ok(used),
                Err(error) => {
                    self.is_broken = true;
                    // What rustls has to say about it.
                    while self.side.encodes(&mut input[used..], out) {}
                    return Err(error.into());
                }
            }
        }
    }

    /// Makes one record (or a few: at most 16 KiB make one) of the connection's bytes in `out`;
    /// gives its length.
    ///
    /// # Errors
    /// `out` is too small, or the session is not open.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        self.write(Some(plain), out)
    }

    /// Says that nothing more will come from us, in `out`; gives the length. To be said once.
    ///
    /// # Errors
    /// As those of `encrypt`.
    pub fn close(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        self.write(None, out)
    }

    fn write(&mut self, plain: Option<&[u8]>, out: &mut [u8]) -> Result<usize, Fault> {
        if self.is_broken {
            return Err(Fault(NOT_OPEN.to_owned()));
        }
        // What is cut short goes in again: rustls keeps places in it.
        let partial = &mut self.partial;
        match &mut self.side {
            Side::Server(server) => write(server.process_tls_records(partial), plain, out),
            Side::Client(client) => write(client.process_tls_records(partial), plain, out),
        }
    }
}

impl Side {
    /// Does the next thing that there is to do; says how much of `input` is done with.
    fn step(&mut self, input: &mut [u8], sinks: &mut Sinks<'_>) -> (usize, Result<Step, Error>) {
        match self {
            Side::Server(server) => take(server.process_tls_records(input), sinks),
            Side::Client(client) => take(client.process_tls_records(input), sinks),
        }
    }

    /// Whether there was something to be said to the peer; it is in `out` then. Nothing of `rest`
    /// is looked at: what waits to be said comes first.
    fn encodes(&mut self, rest: &mut [u8], out: &mut Vec<u8>) -> bool {
        match self {
            Side::Server(server) if server.wants_write() => {
                encode(server.process_tls_records(rest), out)
            }
            Side::Client(client) if client.wants_write() => {
                encode(client.process_tls_records(rest), out)
            }
            _ => false,
        }
    }
}

fn take<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    sinks: &mut Sinks<'_>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(Ok(record)) = traffic.next_record() {
                discard += record.discard;
                sinks.plain.extend_from_slice(record.payload);
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::EncodeTlsData(data)) => {
            append(data, sinks.out);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(said)) => {
            said.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *sinks.peer_closed = true;
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(_)) => {
            *sinks.is_open = true;
            Ok(Step::Rest)
        }
        // Early data is neither offered nor taken.
        Ok(_) => Ok(Step::Rest),
    };
    (discard, step)
}

fn encode<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> bool {
    match status.state {
        Ok(ConnectionState::EncodeTlsData(data)) => append(data, out),
        _ => false,
    }
}

fn append<Data>(mut data: rustls::unbuffered::EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> bool {
    let Err(EncodeError::InsufficientSize(need)) = data.encode(&mut []) else { return false };
    let start = out.len();
    out.resize(start + need.required_size, 0);
    data.encode(&mut out[start..]).is_ok()
}

fn write<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: Option<&[u8]>,
    out: &mut [u8],
) -> Result<usize, Fault> {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return Err(Fault(NOT_OPEN.to_owned()));
    };
    let written = match plain {
        Some(plain) => traffic.encrypt(plain, out),
        None => traffic.queue_close_notify(out),
    };
    written.map_err(|error| Fault(error.to_string()))
}
