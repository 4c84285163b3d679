//! The body of a response: where it ends, and what it costs on the way (RFC 9112, section 6).

use super::Fault;
use crate::limits::RESPONSE_HEAD_BYTES_MAX;

/// A body in the reading.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    /// Bytes that may still come, chunk framing included, trailers not.
    allowance: usize,
    /// Whether the content is wanted at all.
    keep: bool,
    content: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    /// Content-Length: this much is left.
    Length(usize),
    Chunked(Chunked),
    /// All that comes until the server closes.
    UntilClose,
}

/// Where in a chunked body the next byte belongs (RFC 9112, section 7.1). Line ends are CRLF to
/// the letter: leniency here is what request smuggling lives on.
#[derive(Clone, Copy, Debug)]
enum Chunked {
    /// The first digit of a chunk's size.
    Size,
    /// Further digits, an extension or the end of the line.
    SizeGoesOn(usize),
    Extension(usize),
    /// The line feed of the size line.
    SizeLineFeed(usize),
    Data(usize),
    DataReturn,
    DataLineFeed,
    /// The first byte of a trailer line, or the return of the empty one.
    Trailer {
        taken: usize,
    },
    TrailerGoesOn {
        taken: usize,
    },
    LastLineFeed,
}

impl Body {
    /// A body of declared length; nothing is allocated for a declaration.
    ///
    /// # Errors
    /// `BodyTooLarge` where the declaration itself is over `max`.
    pub fn of_length(length: u64, max: usize, keep: bool) -> Result<Body, Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::BodyTooLarge)?;
        if length > max {
            return Err(Fault::BodyTooLarge);
        }
        Ok(Body::new(Framing::Length(length), max, keep))
    }

    pub fn chunked(max: usize, keep: bool) -> Body {
        Body::new(Framing::Chunked(Chunked::Size), max, keep)
    }

    pub fn until_close(max: usize, keep: bool) -> Body {
        Body::new(Framing::UntilClose, max, keep)
    }

    fn new(framing: Framing, allowance: usize, keep: bool) -> Body {
        Body { framing, allowance, keep, content: Vec::new() }
    }

    pub fn ends_with_connection(&self) -> bool {
        matches!(self.framing, Framing::UntilClose)
    }

    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// Takes what belongs to the body off `bytes`: how much that was, and whether the body is
    /// complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        match self.framing {
            Framing::Length(left) => {
                let taken = left.min(bytes.len());
                self.take(&bytes[..taken])?;
                self.framing = Framing::Length(left - taken);
                Ok((taken, left == taken))
            }
            Framing::UntilClose => {
                self.take(bytes)?;
                Ok((bytes.len(), false))
            }
            Framing::Chunked(state) => self.push_chunked(state, bytes),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.spend(bytes.len())?;
        if self.keep {
            if self.content.is_empty() {
                self.content.reserve_exact(bytes.len()); // most bodies come in one piece
            }
            self.content.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        self.allowance = self.allowance.checked_sub(bytes).ok_or(Fault::BodyTooLarge)?;
        Ok(())
    }

    fn push_chunked(&mut self, state: Chunked, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let mut state = state;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Chunked::Data(left) = state {
                let taken = left.min(bytes.len() - at);
                self.take(&bytes[at..at + taken])?;
                at += taken;
                state =
                    if left == taken { Chunked::DataReturn } else { Chunked::Data(left - taken) };
                continue;
            }
            at += 1;
            if matches!(state, Chunked::LastLineFeed) {
                return if byte == b'\n' { Ok((at, true)) } else { Err(Fault::BadChunk) };
            }
            if !matches!(state, Chunked::Trailer { .. } | Chunked::TrailerGoesOn { .. }) {
                self.spend(1)?;
            }
            state = state.next(byte)?;
            if matches!(state, Chunked::Data(size) if size > self.allowance) {
                return Err(Fault::BodyTooLarge);
            }
        }
        self.framing = Framing::Chunked(state);
        Ok((at, false))
    }
}

impl Chunked {
    /// The state after one byte of framing.
    fn next(self, byte: u8) -> Result<Chunked, Fault> {
        match (self, byte) {
            (Chunked::Size, _) => Ok(Chunked::SizeGoesOn(digit(byte)?)),
            (Chunked::SizeGoesOn(size) | Chunked::Extension(size), b'\r') => {
                Ok(Chunked::SizeLineFeed(size))
            }
            (Chunked::SizeGoesOn(size), b';') => Ok(Chunked::Extension(size)),
            (Chunked::SizeGoesOn(size), _) => {
                let more = size.checked_mul(16).ok_or(Fault::BadChunk)?;
                Ok(Chunked::SizeGoesOn(more + digit(byte)?)) // the low four bits are free
            }
            (Chunked::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                Ok(Chunked::Extension(size))
            }
            (Chunked::SizeLineFeed(0), b'\n') => Ok(Chunked::Trailer { taken: 0 }),
            (Chunked::SizeLineFeed(size), b'\n') => Ok(Chunked::Data(size)),
            (Chunked::DataReturn, b'\r') => Ok(Chunked::DataLineFeed),
            (Chunked::DataLineFeed, b'\n') => Ok(Chunked::Size),
            (Chunked::Trailer { .. }, b'\r') => Ok(Chunked::LastLineFeed),
            (Chunked::Trailer { taken } | Chunked::TrailerGoesOn { taken }, _) => {
                if taken == RESPONSE_HEAD_BYTES_MAX {
                    return Err(Fault::TrailersTooLarge);
                }
                let taken = taken + 1;
                Ok(match byte {
                    b'\n' => Chunked::Trailer { taken },
                    _ => Chunked::TrailerGoesOn { taken },
                })
            }
            _ => Err(Fault::BadChunk),
        }
    }
}

fn digit(byte: u8) -> Result<usize, Fault> {
    let digit = char::from(byte).to_digit(16).ok_or(Fault::BadChunk)?;
    Ok(digit as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and number of bytes taken; `None`: it would go on.
    fn chunked(bytes: &[u8], max: usize) -> Result<Option<(Vec<u8>, usize)>, Fault> {
        let whole = {
            let mut body = Body::chunked(max, true);
            body.push(bytes).map(|(taken, done)| done.then(|| (body.into_content(), taken)))
        };
        let mut body = Body::chunked(max, true);
        let mut single = Ok(None);
        for (at, byte) in bytes.iter().enumerate() {
            match body.push(std::slice::from_ref(byte)) {
                Ok((1, true)) => {
                    single = Ok(Some((body.into_content(), at + 1)));
                    break;
                }
                Ok(progress) => assert_eq!(progress, (1, false)),
                Err(fault) => {
                    single = Err(fault);
                    break;
                }
            }
        }
        assert_eq!(whole, single, "whole and byte by byte agree");
        whole
    }

    #[test]
    fn reads_chunks_with_extensions_and_trailers() {
        for (sent, content) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("00A;x=\"y z\";w\r\n0123456789\r\n1\r\n!\r\n000;last\r\n\r\n", "0123456789!"),
            ("1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n", "a"),
            ("0\r\nX: bare\n\r\n", ""),
        ] {
            let behind = format!("{sent}HTTP/1.1 200");
            let read = chunked(behind.as_bytes(), 1000);
            assert_eq!(read, Ok(Some((content.as_bytes().to_vec(), sent.len()))), "{sent:?}");
        }
    }

    #[test]
    fn refuses_what_others_might_read_differently() {
        for sent in [
            "-1\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            "\r\n",
            ";x\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1_0\r\n",
            "1\0\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na\r0\r\n",
            "1;x\n\r\n",
            "1;\0\r\n",
            "1\r\r\n",
            "0\r\n\r\r",
            "g\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
        ] {
            assert_eq!(chunked(sent.as_bytes(), 1000), Err(Fault::BadChunk), "{sent:?}");
        }
    }

    #[test]
    fn counts_the_framing_but_not_the_trailers() {
        let sent = b"3\r\nabc\r\n0\r\nTrailer: long\r\n\r\n";
        let framed = b"3\r\nabc\r\n0\r\n".len();
        assert!(chunked(sent, framed).is_ok());
        assert_eq!(chunked(sent, framed - 1), Err(Fault::BodyTooLarge));
        let overhead = format!("1;{}\r\na\r\n", "x".repeat(200));
        assert_eq!(chunked(overhead.as_bytes(), 100), Err(Fault::BodyTooLarge));
        assert_eq!(chunked(b"ffffffffffffffff\r\n", 1000), Err(Fault::BodyTooLarge));
        assert_eq!(chunked(b"7\r\n", 10), Ok(None));
        assert_eq!(chunked(b"8\r\n", 10), Err(Fault::BodyTooLarge));
    }

    #[test]
    fn trailers_have_a_limit_of_their_own() {
        let trailers = |bytes: usize| {
            let line = "x".repeat(bytes - 2);
            chunked(format!("0\r\n{line}\r\n\r\n").as_bytes(), 1000).map(|read| read.is_some())
        };
        assert_eq!(trailers(RESPONSE_HEAD_BYTES_MAX), Ok(true));
        assert_eq!(trailers(RESPONSE_HEAD_BYTES_MAX + 1), Err(Fault::TrailersTooLarge));
    }

    #[test]
    fn a_declared_length_is_judged_before_it_comes() {
        assert_eq!(Body::of_length(11, 10, true).err(), Some(Fault::BodyTooLarge));
        assert_eq!(Body::of_length(u64::MAX, 10, true).err(), Some(Fault::BodyTooLarge));
        let mut body = Body::of_length(10, 10, true).unwrap();
        assert_eq!(body.content.capacity(), 0);
        assert_eq!(body.push(b"01234"), Ok((5, false)));
        assert_eq!(body.push(b"56789surplus"), Ok((5, true)));
        assert_eq!(body.into_content(), b"0123456789");
    }

    #[test]
    fn what_is_not_wanted_is_counted_but_not_kept() {
        let mut body = Body::until_close(10, false);
        assert_eq!(body.push(b"0123456789"), Ok((10, false)));
        assert_eq!(body.content.capacity(), 0);
        assert_eq!(body.push(b"!"), Err(Fault::BodyTooLarge));
    }
}
