//! The HTTP service that callbacks go to: it answers every request with the request's number.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::Outcome;
use crate::frames::{self, DIGITS};

const DOOR: Token = Token(usize::MAX);

struct Caller {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Starts the service in a thread of its own; gives its port.
pub fn start() -> Outcome<u16> {
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = door.local_addr()?.port();
    std::thread::spawn(move || {
        if let Err(error) = serve(door) {
            eprintln!("the service has failed: {error}");
        }
    });
    Ok(port)
}

fn serve(mut door: TcpListener) -> Outcome<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
    let mut callers: Vec<Option<Caller>> = Vec::new();
    let mut events = Events::with_capacity(256);
    let mut answer = frames::response();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == DOOR {
                while let Ok((mut stream, _)) = door.accept() {
                    stream.set_nodelay(true)?;
                    let token = Token(callers.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    callers.push(Some(Caller { stream, bytes: Vec::new() }));
                }
                continue;
            }
            let Token(index) = event.token();
            if let Some(caller) = &mut callers[index]
                && !caller.answer(&mut answer).unwrap_or(false)
            {
                callers[index] = None;
            }
        }
    }
}

impl Caller {
    /// Answers what has come; says whether the caller is still there.
    fn answer(&mut self, answer: &mut [u8]) -> Outcome<bool> {
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
            while let Some(length) = request_length(&self.bytes) {
                let digits = frames::digits_at(&self.bytes[..length]).unwrap_or_default();
                let end = answer.len() - 3;
                answer[end - DIGITS..end].copy_from_slice(&self.bytes[digits..digits + DIGITS]);
                self.bytes.drain(..length);
                self.stream.write_all(answer)?;
            }
        }
    }
}

/// The length of the first request, once it is all there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let name = b"content-length:";
    let field =
        bytes[..head].windows(name.len()).position(|some| some.eq_ignore_ascii_case(name))?;
    let value = &bytes[field + name.len()..head];
    let value = value.split(|&byte| byte == b'\r').next()?;
    let body: usize = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (bytes.len() >= head + body).then_some(head + body)
}
