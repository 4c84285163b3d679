//! The floor: a server that makes the system calls that nobody can do without, and nothing else.
//!
//! It accepts, reads each ready socket once, and writes frames that were ready before. It knows
//! lengths and positions of all that it is sent, so it parses nothing; what it is told by the
//! publisher is ready for the wire. It trusts its peers in everything: any surprise is a panic.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::frames::{self, ClientFrame, DIGITS};

const DOOR: Token = Token(0);
const PUBLISHERS_DOOR: Token = Token(1);
const PUBLISHER: Token = Token(2);
const SERVICE: usize = 3;
const SERVICE_CONNECTIONS: usize = 64;
const CLIENTS: usize = SERVICE + SERVICE_CONNECTIONS;

/// How far a client has come.
enum Stage {
    Connected,
    Upgraded,
    Subscribed,
}

struct Client {
    stream: TcpStream,
    stage: Stage,
}

/// A connection to the service, and the client that its answer is for.
struct Errand {
    stream: TcpStream,
    client: usize,
}

struct Floor {
    poll: Poll,
    clients: Vec<Option<Client>>,
    vacant: Vec<usize>,
    /// Clients by what they subscribed to.
    groups: Vec<Vec<usize>>,
    publisher: Option<TcpStream>,
    /// The publisher's bytes that do not make a record yet.
    cut: Vec<u8>,
    service: SocketAddr,
    errands: Vec<Errand>,
    idle: Vec<usize>,
    waiting: Vec<(usize, [u8; DIGITS])>,
    ping: ClientFrame,
    echo: ClientFrame,
    pongs: Vec<u8>,
    answer: Vec<u8>,
    request: Vec<u8>,
    scratch: Vec<u8>,
}

/// Serves until it is killed.
pub fn run(port: u16, publishers_port: u16, service_port: u16) -> Outcome<()> {
    let poll = Poll::new()?;
    let mut door = listen(port)?;
    let mut publishers_door = listen(publishers_port)?;
    poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
    poll.registry().register(&mut publishers_door, PUBLISHERS_DOOR, Interest::READABLE)?;
    let mut floor = Floor {
        poll,
        clients: Vec::new(),
        vacant: Vec::new(),
        groups: Vec::new(),
        publisher: None,
        cut: Vec::new(),
        service: (Ipv4Addr::LOCALHOST, service_port).into(),
        errands: Vec::new(),
        idle: Vec::new(),
        waiting: Vec::new(),
        ping: ClientFrame::new(&frames::ping()),
        echo: ClientFrame::new(&frames::echo()),
        pongs: Vec::new(),
        answer: frames::server_frame(&frames::echoed()),
        request: frames::request(),
        scratch: vec![0; 1 << 16],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                DOOR => floor.accept(&door)?,
                PUBLISHERS_DOOR => floor.accept_publisher(&publishers_door)?,
                PUBLISHER => floor.hear_publisher()?,
                Token(token) if token < CLIENTS => floor.hear_service(token - SERVICE)?,
                Token(token) => floor.hear_client(token - CLIENTS)?,
            }
        }
    }
}

fn listen(port: u16) -> Outcome<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Linux hands this on to what is accepted.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn register(registry: &Registry, stream: &mut TcpStream, token: usize) -> Outcome<()> {
    Ok(registry.register(stream, Token(token), Interest::READABLE)?)
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> Outcome<()> {
    let written = stream.write(bytes)?;
    assert_eq!(written, bytes.len(), "a socket's buffer holds all that is under way");
    Ok(())
}

impl Floor {
    fn accept(&mut self, door: &TcpListener) -> Outcome<()> {
        loop {
            let mut stream = match door.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let slot = self.vacant.pop().unwrap_or(self.clients.len());
            if slot == self.clients.len() {
                self.clients.push(None);
            }
            register(self.poll.registry(), &mut stream, CLIENTS + slot)?;
            self.clients[slot] = Some(Client { stream, stage: Stage::Connected });
        }
    }

    fn accept_publisher(&mut self, door: &TcpListener) -> Outcome<()> {
        let (mut stream, _) = door.accept()?;
        register(self.poll.registry(), &mut stream, PUBLISHER.0)?;
        self.publisher = Some(stream);
        Ok(())
    }

    fn hear_client(&mut self, slot: usize) -> Outcome<()> {
        let Some(client) = &mut self.clients[slot] else { return Ok(()) };
        let length = client.stream.read(&mut self.scratch)?;
        let bytes = &self.scratch[..length];
        if bytes.is_empty() {
            self.clients[slot] = None;
            self.vacant.push(slot);
            return Ok(());
        }
        match client.stage {
            Stage::Connected => {
                client.stage = Stage::Upgraded;
                write(&mut client.stream, frames::UPGRADED)
            }
            Stage::Upgraded => {
                client.stage = Stage::Subscribed;
                let group = frames::subscribed_to(bytes).ok_or("no subscribe frame")? as usize;
                let answer = frames::server_frame(&frames::subscribed(&frames::news(0)));
                write(&mut client.stream, &answer)?;
                // Groups are for those who stay: a slot is in one at most once.
                if self.groups.len() <= group {
                    self.groups.resize(group + 1, Vec::new());
                }
                if self.groups[group].last() != Some(&slot) {
                    self.groups[group].push(slot);
                }
                Ok(())
            }
            Stage::Subscribed if length % self.echo.bytes.len() == 0 => {
                let digits = self.echo.digits_of(bytes);
                self.send_errand(slot, digits)
            }
            Stage::Subscribed => {
                self.pongs.clear();
                for frame in bytes.chunks_exact(self.ping.bytes.len()) {
                    pong(&mut self.pongs, self.ping.digits_of(frame));
                }
                write(&mut client.stream, &self.pongs)
            }
        }
    }

    /// Writes each message to its receivers; those to the same ones that came together as one.
    fn hear_publisher(&mut self) -> Outcome<()> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        let length = publisher.read(&mut self.scratch)?;
        if length == 0 {
            self.publisher = None;
            return Ok(());
        }
        self.cut.extend_from_slice(&self.scratch[..length]);
        let mut rest = self.cut.as_slice();
        let mut joined = Vec::new();
        while let Some((group, frame, behind)) = frames::split_record(rest) {
            rest = behind;
            joined.clear();
            joined.extend_from_slice(frame);
            while let Some((next, frame, behind)) = frames::split_record(rest)
                && next == group
            {
                rest = behind;
                joined.extend_from_slice(frame);
            }
            for &slot in &self.groups[group] {
                if let Some(client) = &mut self.clients[slot] {
                    write(&mut client.stream, &joined)?;
                }
            }
        }
        self.cut.drain(..self.cut.len() - rest.len());
        if length == self.scratch.len() {
            return self.hear_publisher();
        }
        Ok(())
    }

    fn send_errand(&mut self, client: usize, digits: [u8; DIGITS]) -> Outcome<()> {
        let errand = match self.idle.pop() {
            Some(errand) => errand,
            None if self.errands.len() < SERVICE_CONNECTIONS => {
                let stream = std::net::TcpStream::connect(self.service)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                register(self.poll.registry(), &mut stream, SERVICE + self.errands.len())?;
                self.errands.push(Errand { stream, client });
                self.errands.len() - 1
            }
            None => {
                self.waiting.push((client, digits));
                return Ok(());
            }
        };
        let errand = &mut self.errands[errand];
        errand.client = client;
        let end = self.request.len() - 3;
        self.request[end - DIGITS..end].copy_from_slice(&digits);
        write(&mut errand.stream, &self.request)
    }

    fn hear_service(&mut self, index: usize) -> Outcome<()> {
        let errand = &mut self.errands[index];
        let length = errand.stream.read(&mut self.scratch)?;
        assert!(length > DIGITS, "an answer comes whole");
        let number = &self.scratch[length - 3 - DIGITS..length - 3];
        let end = self.answer.len() - 3;
        self.answer[end - DIGITS..end].copy_from_slice(number);
        if let Some(client) = &mut self.clients[errand.client] {
            write(&mut client.stream, &self.answer)?;
        }
        self.idle.push(index);
        match self.waiting.pop() {
            Some((client, digits)) => self.send_errand(client, digits),
            None => Ok(()),
        }
    }
}

/// Adds the answer to a ping.
fn pong(pongs: &mut Vec<u8>, digits: [u8; DIGITS]) {
    const START: &[u8] = b"\x81\x25{\"event\":\"pong\",\"data\":\"#";
    pongs.extend_from_slice(START);
    pongs.extend_from_slice(&digits);
    pongs.extend_from_slice(b"\"}");
}
