//! All bytes that go over the wires, made ahead of time: what a client says, what the floor
//! answers. Whatever differs from message to message is a number of ten digits behind a `#`, which
//! is patched in place; its position is the same in all messages of a kind.

/// The length of a number on the wire.
pub const DIGITS: usize = 10;

/// Marks a sequence number; no other text on the wire has it.
pub const MARK: u8 = b'#';

/// Every client frame is masked by this key.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First bytes of whole frames.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Bytes of the `data` of a published message.
const DATA_BYTES: usize = 200;

/// The example of RFC 6455, section 1.3: the answer to its key is known.
pub const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

pub const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A number as it stands on the wire.
pub fn digits(number: u64) -> [u8; DIGITS] {
    let mut left = number;
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    digits
}

/// The number that ten digits stand for; `None`: these are none.
pub fn number(digits: &[u8]) -> Option<u64> {
    let digit =
        |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    digits.get(..DIGITS)?.iter().try_fold(0, digit)
}

/// Where the digits of a text's number begin.
pub fn digits_at(text: &[u8]) -> Option<usize> {
    text.iter().position(|&byte| byte == MARK).map(|mark| mark + 1)
}

/// The frame that a server sends: not masked.
pub fn server_frame(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes(), None)
}

/// The frame that a client sends: masked.
pub fn client_frame(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes(), Some(MASK))
}

/// A client's answer to a ping.
pub fn client_pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG, payload, Some(MASK))
}

fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(masked | length as u8),
        length => {
            frame.push(masked | 126);
            let length = u16::try_from(length).expect("texts are short");
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A client's frame whose number can be changed.
#[derive(Clone)]
pub struct ClientFrame {
    pub bytes: Vec<u8>,
    at: usize,
    key: [u8; DIGITS],
}

impl ClientFrame {
    pub fn new(text: &str) -> ClientFrame {
        let in_text = digits_at(text.as_bytes()).expect("the text has a number");
        let bytes = client_frame(text);
        let key = std::array::from_fn(|index| MASK[(in_text + index) % MASK.len()]);
        ClientFrame { at: bytes.len() - text.len() + in_text, bytes, key }
    }

    pub fn set(&mut self, number: u64) {
        let digits = digits(number).into_iter().zip(self.key).map(|(digit, key)| digit ^ key);
        for (byte, digit) in self.bytes[self.at..].iter_mut().zip(digits) {
            *byte = digit;
        }
    }

    /// The digits of another frame of this kind.
    pub fn digits_of(&self, frame: &[u8]) -> [u8; DIGITS] {
        std::array::from_fn(|index| frame[self.at + index] ^ self.key[index])
    }
}

/// The last number of a subscribe frame: its topic's or its user's.
pub fn subscribed_to(frame: &[u8]) -> Option<u64> {
    // Header and key come first: 2 and 4 bytes, or 2 more of length.
    let start = if frame.get(1)? & 0x7f == 126 { 8 } else { 6 };
    let text: Vec<u8> =
        frame.get(start..)?.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    number(text.get(text.len().checked_sub(DIGITS + 2)?..)?)
}

pub fn news(topic: u64) -> String {
    format!("news.{topic:010}")
}

pub fn subscribe(subscription: &str) -> String {
    format!(r#"{{"event":"subscribe","subscription":"{subscription}"}}"#)
}

/// The name of the one topic whose messages are for one user each.
pub const USERS: &str = "users.all";

pub fn subscribe_user(user: u64) -> String {
    format!(r#"{{"event":"subscribe","subscription":"{USERS}","user":"{user:010}"}}"#)
}

pub fn subscribed(subscription: &str) -> String {
    format!(r#"{{"event":"subscribe","status":"ok","subscription":"{subscription}"}}"#)
}

fn data(number: u64) -> String {
    let start = format!(r##"{{"n":"#{number:010}","pad":""##);
    let pad = "x".repeat(DATA_BYTES - start.len() - 2);
    format!(r#"{start}{pad}"}}"#)
}

/// What is published for a topic.
pub fn publication(topic: u64, number: u64) -> String {
    format!(r#"{{"subscription":"{}","data":{}}}"#, news(topic), data(number))
}

/// What is published for one user.
pub fn publication_for(user: u64, number: u64) -> String {
    format!(r#"{{"subscription":"{USERS}","user":"{user:010}","data":{}}}"#, data(number))
}

/// What subscribers get of a publication for a topic.
pub fn message(topic: u64, number: u64) -> String {
    format!(r#"{{"event":"message","subscription":"{}","data":{}}}"#, news(topic), data(number))
}

/// What the user gets of a publication for one.
pub fn message_for(user: u64, number: u64) -> String {
    let data = data(number);
    format!(r#"{{"event":"message","subscription":"{USERS}","data":{data},"user":"{user:010}"}}"#)
}

pub fn ping() -> String {
    r##"{"event":"ping","data":"#0000000000"}"##.to_owned()
}

/// The subscription whose messages go to the service.
pub const ECHO: &str = "echo.0000000000";

pub fn echo() -> String {
    format!(r##"{{"event":"message","subscription":"{ECHO}","data":{{"n":"#0000000000"}}}}"##)
}

pub fn echoed() -> String {
    format!(
        r##"{{"event":"message","status":"ok","subscription":"{ECHO}","data":{{"n":"#0000000000"}}}}"##
    )
}

/// The floor's request to the service.
pub fn request() -> Vec<u8> {
    let body = format!(r##"{{"subscription":"{ECHO}","data":{{"n":"#0000000000"}}}}"##);
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         User-Agent: floor\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The service's answer.
pub fn response() -> Vec<u8> {
    let body = r##"{"status":"ok","data":{"n":"#0000000000"}}"##;
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One publication for the floor: whom it is for, the frame's length, the frame. The floor knows
/// no Redis; its publisher hands it the same messages ready for the wire.
pub fn floor_record(group: u64, frame: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&(group as u32).to_le_bytes());
    into.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    into.extend_from_slice(frame);
}

/// Takes a record apart: its group, its frame, what follows. `None`: it is not all there yet.
pub fn split_record(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (group, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((u32::from_le_bytes(*group) as usize, frame, rest))
}
