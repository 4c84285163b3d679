//! A WebSocket client for the command line: sends the events it is given and prints every event
//! that it receives, one a line, until the server closes the connection.
//!
//!     cargo run --example client -- ws://127.0.0.1:9000 \
//!         '{"event":"subscribe","subscription":"news.today"}'

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha1::{Digest, Sha1};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Appended to the key before hashing (RFC 6455, section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The head of the server's answer; more than this is no answer to an opening handshake.
const HEAD_BYTES_MAX: usize = 16_384;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(url) = arguments.next() else {
        eprintln!("usage: client ws://HOST:PORT[/PATH] [EVENT]...");
        return ExitCode::from(2);
    };
    match run(&url, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{url}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str, events: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let address = url.strip_prefix("ws://").ok_or("the URL must start with ws://")?;
    let (authority, path) = address.split_once('/').unwrap_or((address, ""));
    let mut stream = TcpStream::connect(authority)?;
    shake_hands(&mut stream, authority, path)?;
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    for event in events {
        socket.send(Message::text(event))?;
    }
    let mut out = io::stdout();
    loop {
        // Pings are answered, and a close is echoed, by `read` itself.
        match socket.read() {
            Ok(Message::Text(event)) => writeln!(out, "{event}")?,
            Ok(Message::Close(Some(frame))) => {
                eprintln!("closed by the server: {} {}", u16::from(frame.code), frame.reason);
            }
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The opening handshake (RFC 6455, section 4.1).
fn shake_hands(stream: &mut TcpStream, authority: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let key = BASE64_STANDARD.encode(nonce());
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let head = read_head(stream)?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101 ") {
        return Err(format!("the server refused: {status}").into());
    }
    let expected = BASE64_STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_GUID}")));
    let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && value.trim() == expected
    });
    if !accepted {
        return Err("the server's Sec-WebSocket-Accept does not match the key".into());
    }
    Ok(())
}

/// Reads up to the empty line and not a byte further: what follows are frames.
fn read_head(stream: &mut TcpStream) -> Result<String, Box<dyn Error>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err("the server's answer has no end".into());
        }
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head)?)
}

/// 16 bytes that differ from one connection to the next; nothing secret hangs on them.
fn nonce() -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(()).to_ne_bytes());
    }
    bytes
}
