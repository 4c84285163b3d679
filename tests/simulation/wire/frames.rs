//! WebSocket frames (RFC 6455, section 5.2) as a client writes and reads them.

/// Opcodes with FIN.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A masked frame with this first byte.
pub fn frame(head: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![head];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// The status of the answer to the handshake, and its head.
    Head(u16, String),
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// Reads what a server sends on one connection: the answer to the handshake, then frames.
#[derive(Default)]
pub struct Listener {
    bytes: Vec<u8>,
    upgraded: bool,
    refused: bool,
}

impl Listener {
    /// Takes bytes and gives what is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.bytes.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(next) = if self.upgraded { self.frame() } else { self.head() } {
            said.push(next);
        }
        said
    }

    fn head(&mut self) -> Option<Said> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        if self.refused {
            return None; // what follows a refusal is its body
        }
        let head = String::from_utf8(self.bytes.drain(..end).collect()).expect("a head is ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok()).expect("a status line");
        self.upgraded = status == 101;
        self.refused = !self.upgraded;
        Some(Said::Head(status, head))
    }

    fn frame(&mut self) -> Option<Said> {
        let (&head, &second) = (self.bytes.first()?, self.bytes.get(1)?);
        assert!(second & 0x80 == 0, "a server masks nothing");
        let long = |bytes: &[u8]| bytes.iter().fold(0usize, |sum, &byte| sum << 8 | byte as usize);
        let (start, len) = match second {
            126 => (4, long(self.bytes.get(2..4)?)),
            127 => (10, long(self.bytes.get(2..10)?)),
            len => (2, len as usize),
        };
        let payload = self.bytes.get(start..start + len)?.to_vec();
        self.bytes.drain(..start + len);
        Some(match head {
            TEXT => Said::Text(String::from_utf8(payload).expect("text frames are UTF-8")),
            PING => Said::Ping(payload),
            PONG => Said::Pong(payload),
            CLOSE if payload.is_empty() => Said::Close(None),
            CLOSE => Said::Close(Some(u16::from_be_bytes([payload[0], payload[1]]))),
            head => panic!("a server sends no frame that begins with {head:#x}"),
        })
    }
}
