//! The load: many clients in one thread, on bare sockets, with frames made ahead of time. Each
//! checks that its messages come once and in order; nothing else of them is looked at.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::frames;

/// How long nothing may come before a server counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at all clients, when nothing came.
const NAP: Duration = Duration::from_micros(50);

/// Handshakes under way at once.
const HANDSHAKES: usize = 64;

struct Client {
    stream: TcpStream,
    /// The number of its next message.
    next: u64,
    /// A frame that was cut short.
    cut: Vec<u8>,
}

/// Clients that are connected and subscribed.
pub struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Who got a message in the last turn; once for each.
    heard: Vec<usize>,
    scratch: Vec<u8>,
    /// Where the number was in the last message.
    hint: usize,
    /// Answers to a server that pings.
    pongs: Vec<u8>,
}

impl Crowd {
    /// Connects `count` clients and subscribes each to what `subscribe` says.
    pub fn gather(port: u16, count: usize, subscribe: impl Fn(usize) -> String) -> Outcome<Crowd> {
        let mut crowd = Crowd {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::with_capacity(count),
            heard: Vec::new(),
            scratch: vec![0; 1 << 16],
            hint: 0,
            pongs: Vec::new(),
        };
        while crowd.clients.len() < count {
            let first = crowd.clients.len();
            for stream in handshakes(port, first..count.min(first + HANDSHAKES), &subscribe)? {
                crowd.add(stream)?;
            }
            // A slow server may ping those who have come before all have.
            crowd.look()?;
        }
        Ok(crowd)
    }

    fn add(&mut self, stream: std::net::TcpStream) -> Outcome<()> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.clients.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        self.clients.push(Client { stream, next: 0, cut: Vec::new() });
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// How many messages a client has had.
    pub fn had(&self, client: usize) -> u64 {
        self.clients[client].next
    }

    pub fn send(&mut self, client: usize, bytes: &[u8]) -> Outcome<()> {
        let written = self.clients[client].stream.write(bytes)?;
        if written < bytes.len() {
            return Err("a client's socket is full".into());
        }
        Ok(())
    }

    /// Waits for messages and takes in those that have come; gives the clients that got them.
    pub fn turn(&mut self) -> Outcome<&[usize]> {
        self.heard.clear();
        let start = Instant::now();
        while self.heard.is_empty() {
            if self.look()? {
                continue;
            }
            if start.elapsed() > PATIENCE {
                return Err("the server says nothing more".into());
            }
            sleep(NAP);
        }
        Ok(&self.heard)
    }

    /// Takes in what has come; says whether anything has. Nobody ever waits in the poll: the
    /// server would pay for waking us, the more often the slower it is, and that would drown all
    /// other differences.
    fn look(&mut self) -> Outcome<bool> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
        for event in &self.events {
            let Token(index) = event.token();
            let client = &mut self.clients[index];
            loop {
                let length = match client.stream.read(&mut self.scratch) {
                    Ok(0) => return Err("the server has closed a connection".into()),
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                let before = client.next;
                self.pongs.clear();
                client.take(&self.scratch[..length], &mut self.hint, &mut self.pongs)?;
                client.stream.write_all(&self.pongs)?;
                self.heard.extend((before..client.next).map(|_| index));
                if length < self.scratch.len() {
                    break;
                }
            }
        }
        Ok(!self.events.is_empty())
    }

    /// Waits until `count` messages have come, all clients together.
    pub fn expect(&mut self, count: usize) -> Outcome<()> {
        let mut missing = count;
        while missing > 0 {
            let came = self.turn()?.len();
            missing = missing.checked_sub(came).ok_or("more messages came than were sent")?;
        }
        Ok(())
    }
}

impl Client {
    fn take(&mut self, bytes: &[u8], hint: &mut usize, pongs: &mut Vec<u8>) -> Outcome<()> {
        if self.cut.is_empty() {
            let rest = check(bytes, &mut self.next, hint, pongs)?;
            self.cut.extend_from_slice(rest);
        } else {
            self.cut.extend_from_slice(bytes);
            let rest = check(&self.cut, &mut self.next, hint, pongs)?.len();
            self.cut.drain(..self.cut.len() - rest);
        }
        Ok(())
    }
}

/// Checks whole frames; gives what is left of one that is not.
fn check<'a>(
    bytes: &'a [u8],
    next: &mut u64,
    hint: &mut usize,
    pongs: &mut Vec<u8>,
) -> Outcome<&'a [u8]> {
    let mut rest = bytes;
    while let Some((opcode, payload, behind)) = split_frame(rest)? {
        rest = behind;
        if opcode == frames::PING {
            pongs.extend_from_slice(&frames::client_pong(payload));
            continue;
        }
        if payload.get(*hint) != Some(&frames::MARK) {
            let mark = payload.iter().position(|&byte| byte == frames::MARK);
            *hint = mark.ok_or_else(|| unexpected(payload))?;
        }
        let number = frames::number(&payload[*hint + 1..]).ok_or_else(|| unexpected(payload))?;
        if number != *next {
            return Err(format!("message {number} came where {next} was due").into());
        }
        *next += 1;
    }
    Ok(rest)
}

fn unexpected(payload: &[u8]) -> String {
    format!("the server says: {}", String::from_utf8_lossy(payload))
}

/// A frame's first byte, its payload, what is behind it.
type Split<'a> = (u8, &'a [u8], &'a [u8]);

/// Takes the first frame off; `None`: it is not all there.
fn split_frame(bytes: &[u8]) -> Outcome<Option<Split<'_>>> {
    let (opcode, length, rest) = match bytes {
        [opcode, length @ 0..=125, rest @ ..] => (*opcode, usize::from(*length), rest),
        [opcode, 126, high, low, rest @ ..] => {
            (*opcode, usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        [] | [_] | [_, 126] | [_, 126, _] => return Ok(None),
        _ => return Err("a frame of more than 65,535 bytes".into()),
    };
    let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    match (opcode, payload) {
        (frames::TEXT | frames::PING, _) => Ok(Some((opcode, payload, rest))),
        (frames::CLOSE, [high, low, ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            Err(format!("the server closes a connection, code {code}").into())
        }
        _ => Err(format!("the server sends a frame of type {opcode:#04x}").into()),
    }
}

// ---------------------------------------------------------------- handshakes

/// Connects and subscribes some clients, all at once.
fn handshakes(
    port: u16,
    clients: Range<usize>,
    subscribe: &impl Fn(usize) -> String,
) -> Outcome<Vec<std::net::TcpStream>> {
    let mut streams = Vec::with_capacity(clients.len());
    for _ in clients.clone() {
        let mut stream = connect(port)?;
        stream.write_all(frames::UPGRADE)?;
        streams.push(stream);
    }
    for (client, stream) in clients.zip(&mut streams) {
        read_upgraded(stream)?;
        stream.write_all(&frames::client_frame(&subscribe(client)))?;
    }
    streams.iter_mut().try_for_each(read_subscribed)?;
    Ok(streams)
}

fn connect(port: u16) -> Outcome<std::net::TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source().into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    let stream = std::net::TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Where a connection comes from: a new loopback address for every thousand, since ports are few,
/// and searching for a free one among many takes long.
fn source() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = (NEXT.fetch_add(1, Ordering::Relaxed) / 1000).to_be_bytes();
    let process = std::process::id() as u8;
    let address = Ipv4Addr::new(127, 1 + process % 250, high, 1 + low % 250);
    SocketAddr::from((address, 0))
}

/// Reads until the handshake's answer is over. Nothing comes behind it: nobody has asked yet.
fn read_upgraded(stream: &mut std::net::TcpStream) -> Outcome<()> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        read_more(stream, &mut answer)?;
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(unexpected(&answer).into());
    }
    Ok(())
}

fn read_subscribed(stream: &mut std::net::TcpStream) -> Outcome<()> {
    let mut answer = Vec::new();
    loop {
        read_more(stream, &mut answer)?;
        let Some((_, payload, rest)) = split_frame(&answer)? else { continue };
        let text = String::from_utf8_lossy(payload);
        if !text.contains(r#""ok""#) || !rest.is_empty() {
            return Err(unexpected(payload).into());
        }
        return Ok(());
    }
}

fn read_more(stream: &mut std::net::TcpStream, into: &mut Vec<u8>) -> Outcome<()> {
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer)? {
        0 => Err("the server closes during the handshake".into()),
        length => {
            into.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}

// --------------------------------------------------------------------- churn

/// Clients that connect, subscribe and leave, each taking the next one's place.
pub struct Churn {
    port: u16,
    poll: Poll,
    events: Events,
    visitors: Vec<Option<Visitor>>,
}

struct Visitor {
    stream: TcpStream,
    upgraded: bool,
}

impl Churn {
    pub fn new(port: u16) -> Outcome<Churn> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(256));
        Ok(Churn { port, poll, events, visitors: Vec::new() })
    }

    /// Has `count` clients visit, `parallel` of them at a time.
    pub fn visit(
        &mut self,
        count: usize,
        parallel: usize,
        subscribe: impl Fn(usize) -> String,
    ) -> Outcome<()> {
        self.visitors.clear();
        let (mut come, mut gone) = (0, 0);
        while come < parallel.min(count) {
            let visitor = self.enter(come)?;
            self.visitors.push(Some(visitor));
            come += 1;
        }
        let mut buffer = [0; 4096];
        while gone < count {
            self.poll.poll(&mut self.events, Some(PATIENCE))?;
            if self.events.is_empty() {
                return Err("the server says nothing more".into());
            }
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for index in ready {
                let Some(visitor) = &mut self.visitors[index] else { continue };
                let length = match visitor.stream.read(&mut buffer) {
                    Ok(0) => return Err("the server has closed a connection".into()),
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                // On loopback an answer as short as these comes in one piece.
                if !visitor.upgraded {
                    if !buffer[..length].starts_with(b"HTTP/1.1 101 ") {
                        return Err(unexpected(&buffer[..length]).into());
                    }
                    visitor.upgraded = true;
                    let subscription = subscribe(gone + index);
                    visitor.stream.write_all(&frames::client_frame(&subscription))?;
                    continue;
                }
                let (_, payload, _) =
                    split_frame(&buffer[..length])?.ok_or("an answer cut short")?;
                if !String::from_utf8_lossy(payload).contains(r#""ok""#) {
                    return Err(unexpected(payload).into());
                }
                gone += 1;
                self.visitors[index] = None;
                if come < count {
                    self.visitors[index] = Some(self.enter(index)?);
                    come += 1;
                }
            }
        }
        self.visitors.clear();
        Ok(())
    }

    fn enter(&self, index: usize) -> Outcome<Visitor> {
        let mut stream = connect(self.port)?;
        stream.write_all(frames::UPGRADE)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Ok(Visitor { stream, upgraded: false })
    }
}
