//! Replies as a Redis server writes them, in both versions of the protocol.

use std::io::Write as _;

use crate::outbox::Frame;

/// The version of the protocol that a connection speaks: what `HELLO` settles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Resp2,
    Resp3,
}

impl Version {
    pub const COUNT: usize = 2;

    pub fn number(self) -> i64 {
        match self {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        }
    }
}

/// Replies that are being put together, for one connection. An aggregate is begun with its number
/// of members, which follow.
pub struct Replies {
    bytes: Vec<u8>,
    pub version: Version,
}

impl Replies {
    pub fn new(version: Version) -> Replies {
        Replies { bytes: Vec::new(), version }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All replies so far, as one frame.
    pub fn take(&mut self) -> Frame {
        std::mem::take(&mut self.bytes).into()
    }

    /// A short text of our own, without line breaks.
    pub fn simple(&mut self, text: &str) -> &mut Self {
        self.line('+', text)
    }

    /// An error, beginning with its code. What it quotes may hold line breaks: they become spaces.
    pub fn error(&mut self, text: &str) -> &mut Self {
        self.line('-', &text.replace(['\r', '\n'], " "))
    }

    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.line(':', &number.to_string())
    }

    pub fn bulk(&mut self, bytes: &[u8]) -> &mut Self {
        push_bulk(&mut self.bytes, bytes);
        self
    }

    pub fn null(&mut self) -> &mut Self {
        match self.version {
            Version::Resp2 => self.line('$', "-1"),
            Version::Resp3 => self.line('_', ""),
        }
    }

    /// Text for people.
    pub fn verbatim(&mut self, text: &str) -> &mut Self {
        if self.version == Version::Resp2 {
            return self.bulk(text.as_bytes());
        }
        // The format's name and a colon count.
        self.line('=', &(text.len() + 4).to_string());
        self.bytes.extend_from_slice(b"txt:");
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    pub fn array(&mut self, members: usize) -> &mut Self {
        self.line('*', &members.to_string())
    }

    /// Keys and values take turns.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        match self.version {
            Version::Resp2 => self.array(2 * pairs),
            Version::Resp3 => self.line('%', &pairs.to_string()),
        }
    }

    /// What concerns subscriptions.
    pub fn push(&mut self, members: usize) -> &mut Self {
        self.line(push_kind(self.version), &members.to_string())
    }

    fn line(&mut self, kind: char, text: &str) -> &mut Self {
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, "{kind}{text}\r\n");
        self
    }
}

/// A message as its subscribers get it. `head`: `message` and the channel, or `pmessage`, the
/// pattern and the channel.
pub fn message(version: Version, head: &[&[u8]], payload: &[u8]) -> Frame {
    let mut out = Vec::with_capacity(head_bytes(head) + payload.len() + 2);
    push_head(&mut out, version, head, payload.len());
    push_tail(&mut out, payload);
    out.into()
}

/// The same without the payload, which `message_tail` is: for many heads and one payload.
pub fn message_head(version: Version, head: &[&[u8]], payload_bytes: usize) -> Frame {
    let mut out = Vec::with_capacity(head_bytes(head));
    push_head(&mut out, version, head, payload_bytes);
    out.into()
}

pub fn message_tail(payload: &[u8]) -> Frame {
    let mut out = Vec::with_capacity(payload.len() + 2);
    push_tail(&mut out, payload);
    out.into()
}

/// Enough for the words, the lengths before them, and the payload's.
fn head_bytes(head: &[&[u8]]) -> usize {
    head.iter().map(|word| word.len() + 32).sum::<usize>() + 32
}

fn push_head(out: &mut Vec<u8>, version: Version, head: &[&[u8]], payload_bytes: usize) {
    let _ = write!(out, "{}{}\r\n", push_kind(version), head.len() + 1);
    for word in head {
        push_bulk(out, word);
    }
    let _ = write!(out, "${payload_bytes}\r\n");
}

fn push_tail(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

fn push_kind(version: Version) -> char {
    match version {
        Version::Resp2 => '*',
        Version::Resp3 => '>',
    }
}

fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    let _ = write!(out, "${}\r\n", bytes.len());
    push_tail(out, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl Fn(&mut Replies)) -> String {
        let mut replies = Replies::new(version);
        write(&mut replies);
        let len = replies.len();
        let frame = replies.take();
        assert_eq!(frame.len(), len);
        assert!(replies.is_empty());
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn each_version_has_its_types() {
        let all = |replies: &mut Replies| {
            replies.simple("OK").error("ERR a\r\nb").integer(-5).bulk(b"x\r\n").null();
            replies.verbatim("é").array(0).map(1).bulk(b"k").integer(1).push(1).null();
        };
        assert_eq!(
            written(Version::Resp2, all),
            "+OK\r\n-ERR a  b\r\n:-5\r\n$3\r\nx\r\n\r\n$-1\r\n$2\r\né\r\n*0\r\n*2\r\n$1\r\nk\r\n\
             :1\r\n*1\r\n$-1\r\n"
        );
        assert_eq!(
            written(Version::Resp3, all),
            "+OK\r\n-ERR a  b\r\n:-5\r\n$3\r\nx\r\n\r\n_\r\n=6\r\ntxt:é\r\n*0\r\n%1\r\n$1\r\nk\r\n\
             :1\r\n>1\r\n_\r\n"
        );
    }

    #[test]
    fn messages_are_pushed() {
        let head: [&[u8]; 2] = [b"message", b"a"];
        let frame = message(Version::Resp2, &head, b"x");
        assert_eq!(&*frame, b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
        assert_eq!(&*message(Version::Resp3, &head, b"x"), [b">", &frame[1..]].concat());
        let split = [message_head(Version::Resp2, &head, 1), message_tail(b"x")];
        assert_eq!(split.concat(), *frame);
    }
}
