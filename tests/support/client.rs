//! WebSocket clients that can also misbehave.

use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::Head;
use super::wait::PATIENCE;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x11, 0x52, 0x93, 0xd4];

/// A frame from the server.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("text frames are UTF-8")
    }

    /// The code of a Close; 1005 where there is none.
    fn close_code(&self) -> u16 {
        self.payload.first_chunk().map_or(1005, |bytes| u16::from_be_bytes(*bytes))
    }
}

pub struct Client {
    pub stream: TcpStream,
    input: BufReader<TcpStream>,
    /// Whether pings are answered while waiting for something else.
    pub answers_pings: bool,
    /// Pings that came while waiting for something else.
    pub pings: usize,
    /// Frames that were read and put back.
    early: VecDeque<Frame>,
    barriers: usize,
}

impl Client {
    #[track_caller]
    pub fn connect(port: u16) -> Client {
        Client::connect_with(port, "")
    }

    /// With header lines of one's own, each with its line break.
    #[track_caller]
    pub fn connect_with(port: u16, headers: &str) -> Client {
        match Client::handshake(port, &request("/", headers)) {
            Ok(client) => client,
            Err(head) => panic!("handshake refused: {head:?}"),
        }
    }

    /// Sends the request as it is; an answer other than 101 is given back (`None`: closed).
    pub fn handshake(port: u16, request: &str) -> Result<Client, Option<Head>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|_| None)?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).map_err(|_| None)?;
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let head = Head::read(&mut input).ok_or(None)?;
        if head.status() != 101 {
            return Err(Some(head));
        }
        let early = VecDeque::new();
        Ok(Client { stream, input, answers_pings: true, pings: 0, early, barriers: 0 })
    }

    // Sending.

    #[track_caller]
    pub fn send(&mut self, value: &Value) {
        self.send_text(&value.to_string());
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    #[track_caller]
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send_raw(&frame(0x80 | opcode, payload));
    }

    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    // Receiving.

    /// The next frame; pings are answered and skipped. `None`: the end of the connection.
    #[track_caller]
    pub fn try_frame(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.any_frame(deadline)?;
            if frame.opcode != PING {
                return Some(frame);
            }
            self.pings += 1;
            if self.answers_pings {
                // The peer may have closed meanwhile.
                let _ = self.stream.write_all(&super::client::frame(0x80 | PONG, &frame.payload));
            }
        }
    }

    /// The next frame of any kind.
    #[track_caller]
    pub fn any_frame(&mut self, deadline: Instant) -> Option<Frame> {
        if let Some(frame) = self.early.pop_front() {
            return Some(frame);
        }
        let [first, second] = *self.take(2, deadline)?.first_chunk()?;
        assert_eq!(first & 0x70, 0, "no extension was agreed on");
        assert_eq!(first & 0x80, 0x80, "the server does not fragment");
        assert_eq!(second & 0x80, 0, "frames from the server are not masked");
        let length = match second {
            126 => u16::from_be_bytes(*self.take(2, deadline)?.first_chunk()?).into(),
            127 => u64::from_be_bytes(*self.take(8, deadline)?.first_chunk()?) as usize,
            short => short.into(),
        };
        let payload = self.take(length, deadline)?;
        Some(Frame { opcode: first & 0x0f, payload })
    }

    #[track_caller]
    fn take(&mut self, length: usize, deadline: Instant) -> Option<Vec<u8>> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = vec![0; length];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if is_timeout(&error) => panic!("waited in vain for a frame"),
            Err(_) => None,
        }
    }

    #[track_caller]
    pub fn recv_text(&mut self) -> String {
        let frame = self.try_frame().expect("a message, not the end of the connection");
        assert_eq!(frame.opcode, TEXT, "{frame:?}, code {}", frame.close_code());
        frame.text().to_owned()
    }

    #[track_caller]
    pub fn recv(&mut self) -> Value {
        let text = self.recv_text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The next message is this one.
    #[track_caller]
    pub fn expect(&mut self, value: &Value) {
        assert_eq!(self.recv(), *value);
    }

    /// Sends and gives the next message.
    #[track_caller]
    pub fn ask(&mut self, value: &Value) -> Value {
        self.send(value);
        self.recv()
    }

    /// The next frame is a Close with this code, and the connection ends after it.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        self.expect_close_frame(code);
        // Its answer; the peer may be gone.
        let _ = self.stream.write_all(&frame(0x80 | CLOSE, &code.to_be_bytes()));
        self.expect_end();
    }

    #[track_caller]
    pub fn expect_close_frame(&mut self, code: u16) {
        let frame = self.try_frame().expect("a Close frame before the end");
        let text = String::from_utf8_lossy(&frame.payload);
        assert_eq!(frame.opcode, CLOSE, "{text}");
        assert_eq!(frame.close_code(), code, "{text}");
    }

    /// The connection ends, nothing coming before that.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        assert_eq!(self.any_frame(deadline), None);
    }

    /// The connection ends, with or without a Close before it.
    #[track_caller]
    pub fn expect_end_or_close(&mut self) {
        while self.try_frame().is_some_and(|frame| frame.opcode != CLOSE) {}
    }

    /// Reads up to the Close, past all messages, and gives its code.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        loop {
            let frame = self.try_frame().expect("a Close frame before the end");
            if frame.opcode == CLOSE {
                return frame.close_code();
            }
        }
    }

    /// All events so far are answered and nothing else is on its way: the next message is the
    /// answer to a ping event sent now.
    #[track_caller]
    pub fn expect_quiet(&mut self) {
        self.barriers += 1;
        let data = format!("barrier {}", self.barriers);
        self.send(&json!({ "event": "ping", "data": data }));
        self.expect(&json!({ "event": "pong", "data": data }));
    }

    /// Reads past whatever is on its way.
    #[track_caller]
    pub fn recv_until_quiet(&mut self) {
        self.barriers += 1;
        let data = format!("barrier {}", self.barriers);
        self.send(&json!({ "event": "ping", "data": data }));
        while self.recv()["data"] != json!(data) {}
    }

    /// Nothing else is on its way, shown by a protocol ping, which is answered while an event waits
    /// for its callback.
    #[track_caller]
    pub fn expect_still(&mut self) {
        self.barriers += 1;
        let data = format!("still {}", self.barriers);
        self.send_frame(PING, data.as_bytes());
        let frame = self.try_frame().expect("a pong, not the end of the connection");
        assert_eq!(frame.opcode, PONG, "{}", String::from_utf8_lossy(&frame.payload));
        assert_eq!(frame.text(), data);
    }

    // Shorthand for events that must succeed.

    #[track_caller]
    pub fn subscribe(&mut self, subscription: &str) {
        let answer = self.ask(&json!({ "event": "subscribe", "subscription": subscription }));
        assert_eq!(answer["status"], "ok", "{answer}");
    }

    #[track_caller]
    pub fn unsubscribe(&mut self, subscription: &str) {
        let answer = self.ask(&json!({ "event": "unsubscribe", "subscription": subscription }));
        assert_eq!(answer["status"], "ok", "{answer}");
    }

    #[track_caller]
    pub fn authenticate(&mut self, ticket: &str) {
        let answer = self.ask(&json!({ "event": "auth", "ticket": ticket }));
        assert_eq!(answer, json!({ "event": "auth", "status": "ok" }));
    }

    /// Only the `data` of the next message, which is a publication.
    #[track_caller]
    pub fn recv_data(&mut self) -> Value {
        let message = self.recv();
        assert_eq!(message["event"], "message", "{message}");
        message["data"].clone()
    }

    /// The next messages are publications with these `data`.
    #[track_caller]
    pub fn expect_data(&mut self, expected: &[Value]) {
        let got: Vec<Value> = expected.iter().map(|_| self.recv_data()).collect();
        assert_eq!(got, expected);
    }

    // Leaving.

    /// A closing handshake.
    #[track_caller]
    pub fn close(mut self, code: u16) {
        self.send_frame(CLOSE, &code.to_be_bytes());
        assert_eq!(self.close_code(), code);
        self.expect_end();
    }

    /// The end of sending; reading goes on.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// An end without any farewell, as when a cable is cut and the peer notices.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// A whole frame as a client sends it. `first` is FIN, RSV and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, 0x80, payload.len());
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame's first bytes, up to the length. `mask_bit`: 0x80 or 0.
pub fn header(first: u8, mask_bit: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(mask_bit | short),
        (_, Ok(length)) => {
            bytes.push(mask_bit | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes
}

/// A good opening handshake, with further header lines.
pub fn request(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}
