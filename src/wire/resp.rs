//! RESP2, the protocol of Redis: a push parser for values and an encoder for commands.
//!
//! A value whose bytes are all in the input is handed out as a slice of it. One that spans reads is
//! collected in a buffer of its own, which grows by bytes received, never by a declared size, and
//! leaves with the value. Scanning goes on where it stopped, so a value that comes byte by byte
//! costs no more than one that comes whole. Commands to a server are arrays of bulk strings and go
//! through the same parser.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use crate::limits::{RESP_DEPTH_MAX, RESP_LINE_BYTES_MAX};

/// What is wrong with a peer's bytes. The stream has lost its step; nothing after it counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A type byte that RESP2 does not know; RESP3's own are among them.
    Type(u8),
    /// A line feed without its carriage return, or a carriage return inside a line.
    LineEnd,
    /// A line of more than `RESP_LINE_BYTES_MAX`.
    LineTooLong,
    /// A length, count or integer that is no number, or out of range.
    Number,
    /// A bulk string over the limit.
    BulkTooLong,
    /// A bulk string without CRLF behind it.
    BulkEnd,
    /// Aggregates nested over `RESP_DEPTH_MAX`.
    TooDeep,
    /// An aggregate over twice the limit of one bulk string.
    ValueTooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Type(byte) => write!(f, "unknown RESP2 type byte 0x{byte:02x}"),
            Fault::LineEnd => f.write_str("line not ended by CRLF"),
            Fault::LineTooLong => f.write_str("line too long"),
            Fault::Number => f.write_str("bad length or integer"),
            Fault::BulkTooLong => f.write_str("bulk string too long"),
            Fault::BulkEnd => f.write_str("bulk string not ended by CRLF"),
            Fault::TooDeep => f.write_str("arrays nested too deeply"),
            Fault::ValueTooLong => f.write_str("array too long"),
        }
    }
}

/// One RESP2 value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(&'a [u8]),
    /// The null bulk string or the null array.
    Null,
    Array(Items<'a>),
}

impl<'a> Value<'a> {
    /// Reads the value that `whole` is: bytes as `Parser::next` hands them out. `None` for bytes
    /// that are cut short or ill-formed, which those never are.
    pub fn read(whole: &'a [u8]) -> Option<Value<'a>> {
        let mut bytes = whole;
        match take_header(&mut bytes)? {
            // The items are all of the rest: no need to look for their end.
            Header::Array(left) => Some(Value::Array(Items { bytes, left })),
            header => take_body(header, &mut bytes),
        }
    }
}

/// The elements of an array, read as they are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Items<'a> {
    bytes: &'a [u8],
    left: u64,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let header = take_header(&mut self.bytes)?;
        take_body(header, &mut self.bytes)
    }
}

/// What a line says: a whole value, or what follows it.
enum Header<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(usize),
    Array(u64),
    Null,
}

/// Reads a line, given without its CRLF.
fn header(line: &[u8]) -> Result<Header<'_>, Fault> {
    let Some((&kind, text)) = line.split_first() else { return Err(Fault::LineEnd) };
    match kind {
        b'+' | b'-' if text.contains(&b'\r') => Err(Fault::LineEnd),
        b'+' => Ok(Header::Simple(text)),
        b'-' => Ok(Header::Error(text)),
        b':' => integer(text).map(Header::Integer),
        b'$' | b'*' if text == b"-1" => Ok(Header::Null),
        b'$' => usize::try_from(count(text)?).map(Header::Bulk).map_err(|_| Fault::BulkTooLong),
        b'*' => count(text).map(Header::Array),
        other => Err(Fault::Type(other)),
    }
}

/// Digits only.
fn count(text: &[u8]) -> Result<u64, Fault> {
    let digit = |sum: u64, byte: &u8| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    };
    if text.is_empty() {
        return Err(Fault::Number);
    }
    text.iter().try_fold(0, digit).ok_or(Fault::Number)
}

fn integer(text: &[u8]) -> Result<i64, Fault> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Fault::Number)
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    header(line.strip_suffix(b"\r\n")?).ok()
}

fn take_body<'a>(header: Header<'a>, bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    Some(match header {
        Header::Simple(text) => Value::Simple(text),
        Header::Error(text) => Value::Error(text),
        Header::Integer(number) => Value::Integer(number),
        Header::Null => Value::Null,
        Header::Bulk(len) => Value::Bulk(take_bulk(len, bytes)?),
        Header::Array(left) => {
            let items = *bytes;
            skip(left, bytes)?;
            Value::Array(Items { bytes: &items[..items.len() - bytes.len()], left })
        }
    })
}

fn take_bulk<'a>(len: usize, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bulk, rest) = bytes.split_at_checked(len)?;
    *bytes = rest.strip_prefix(b"\r\n")?;
    Some(bulk)
}

/// Takes channel and payload of a published message from the front of `input`, without a parser.
/// `None`, and nothing is taken: it is something else, or cut short, or ill-formed, or odd.
pub fn take_message<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut bytes = input.strip_prefix(b"*3\r\n$7\r\nmessage\r\n")?;
    let message = (take_string(&mut bytes)?, take_string(&mut bytes)?);
    *input = bytes;
    Some(message)
}

fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    // A length is a few digits.
    let head = bytes.get(..bytes.len().min(24))?;
    let end = head.iter().position(|&byte| byte == b'\r')?;
    let len = count(head[..end].strip_prefix(b"$")?).ok()?;
    *bytes = bytes[end..].strip_prefix(b"\r\n")?;
    take_bulk(usize::try_from(len).ok()?, bytes)
}

/// Passes over `left` values with all that is in them.
fn skip(mut left: u64, bytes: &mut &[u8]) -> Option<()> {
    while left > 0 {
        left -= 1;
        match take_header(bytes)? {
            Header::Bulk(len) => drop(take_bulk(len, bytes)?),
            Header::Array(more) => left = left.checked_add(more)?,
            _ => {}
        }
    }
    Some(())
}

/// Cuts a stream of bytes into values.
pub struct Parser {
    scan: Scan,
    /// The beginning of a value whose end has not come yet.
    held: Vec<u8>,
}

impl Parser {
    /// A parser that takes bulk strings of up to `bulk_bytes_max`, and twice that (with some room
    /// for framing) of an array: a message is a channel name and a payload.
    pub fn new(bulk_bytes_max: usize) -> Parser {
        // A quarter of the address space cannot arrive; sums of positions cannot overflow.
        let bulk_bytes_max = bulk_bytes_max.min(usize::MAX / 4);
        let scan = Scan {
            bulk_bytes_max,
            at: 0,
            searched: 0,
            body: None,
            open: [0; RESP_DEPTH_MAX],
            depth: 0,
        };
        Parser { scan, held: Vec::new() }
    }

    /// Whether the next byte begins a value.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes bytes from the front of `input` until a value is whole and returns the value's bytes,
    /// for `Value::read`. `None`: the input is used up. After a fault the parser is of no further
    /// use.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        if self.held.is_empty() {
            if !self.scan.advance(input)? {
                self.held.extend_from_slice(input);
                *input = &[];
                return Ok(None);
            }
            let (whole, rest) = input.split_at(self.scan.finish());
            *input = rest;
            return Ok(Some(Cow::Borrowed(whole)));
        }
        while !input.is_empty() {
            let (wanted, rest) = input.split_at(self.scan.wanted(self.held.len(), input));
            self.held.extend_from_slice(wanted);
            *input = rest;
            if self.scan.advance(&self.held)? {
                self.scan.finish();
                return Ok(Some(Cow::Owned(std::mem::take(&mut self.held))));
            }
        }
        Ok(None)
    }
}

/// How far a value is understood. Positions count from the value's first byte.
struct Scan {
    bulk_bytes_max: usize,
    /// All before this is understood: a line or a bulk string begins here.
    at: usize,
    /// No line feed stands between `at` and here.
    searched: usize,
    /// A bulk string of this length begins at `at`.
    body: Option<usize>,
    /// Values still to come in each aggregate around `at`, the outermost first.
    open: [u64; RESP_DEPTH_MAX],
    depth: usize,
}

impl Scan {
    /// Goes on over the value's bytes so far. True: the value is whole and ends at `at`.
    fn advance(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        loop {
            if let Some(len) = self.body {
                let end = self.at + len;
                let Some(tail) = bytes.get(end..end + 2) else { return Ok(false) };
                if tail != b"\r\n" {
                    return Err(Fault::BulkEnd);
                }
                self.body = None;
                self.at = end + 2;
            } else {
                let Some(line) = self.line(bytes)? else { return Ok(false) };
                if self.begin(header(line)?)? {
                    continue;
                }
            }
            if self.end_value() {
                return Ok(true);
            }
        }
    }

    /// The next line without its CRLF, once it is whole.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let line = &bytes[self.at..];
        match line.first() {
            None => return Ok(None),
            Some(b'+' | b'-' | b':' | b'$' | b'*') => {}
            // At once: whatever this is, it may never send a line feed.
            Some(&other) => return Err(Fault::Type(other)),
        }
        let unseen = self.searched.max(self.at);
        let Some(end) = bytes[unseen..].iter().position(|&byte| byte == b'\n') else {
            self.searched = bytes.len();
            let full = line.len() >= RESP_LINE_BYTES_MAX;
            return if full { Err(Fault::LineTooLong) } else { Ok(None) };
        };
        let line = &bytes[self.at..=unseen + end];
        if line.len() > RESP_LINE_BYTES_MAX {
            return Err(Fault::LineTooLong);
        }
        self.at += line.len();
        line.strip_suffix(b"\r\n").map(Some).ok_or(Fault::LineEnd)
    }

    /// Takes a line into account. True: more belongs to the value that it begins.
    fn begin(&mut self, header: Header<'_>) -> Result<bool, Fault> {
        let value_bytes_max = 2 * self.bulk_bytes_max + RESP_LINE_BYTES_MAX;
        match header {
            Header::Bulk(len) if len > self.bulk_bytes_max => Err(Fault::BulkTooLong),
            Header::Bulk(len) if self.at + len > value_bytes_max => Err(Fault::ValueTooLong),
            _ if self.at > value_bytes_max => Err(Fault::ValueTooLong),
            Header::Bulk(len) => {
                self.body = Some(len);
                Ok(true)
            }
            Header::Array(0) => Ok(false),
            Header::Array(items) => {
                let level = self.open.get_mut(self.depth).ok_or(Fault::TooDeep)?;
                *level = items;
                self.depth += 1;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A value has ended, and with it perhaps aggregates around it. True: the outermost has.
    fn end_value(&mut self) -> bool {
        while let Some(inner) = self.depth.checked_sub(1) {
            self.open[inner] -= 1;
            if self.open[inner] > 0 {
                return false;
            }
            self.depth = inner;
        }
        true
    }

    /// Makes ready for the next value and says how long this one was.
    fn finish(&mut self) -> usize {
        self.searched = 0;
        std::mem::take(&mut self.at)
    }

    /// How much of the input surely belongs to the value of which `held` bytes are there.
    fn wanted(&self, held: usize, input: &[u8]) -> usize {
        match self.body {
            Some(len) => (self.at + len + 2 - held).min(input.len()),
            None => {
                let line_feed = input.iter().position(|&byte| byte == b'\n');
                line_feed.map_or(input.len(), |position| position + 1)
            }
        }
    }
}

/// Appends a command: an array of bulk strings.
pub fn push_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const BULK_BYTES_MAX: usize = 1_000;

    /// Everything that a stream, given in these pieces, says: values as text, then a fault if any.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut parser = Parser::new(BULK_BYTES_MAX);
        let mut said = Vec::new();
        for mut piece in pieces {
            loop {
                match parser.next(&mut piece) {
                    Ok(Some(whole)) => said.push(print(&Value::read(&whole).unwrap())),
                    Ok(None) => break,
                    Err(fault) => {
                        said.push(format!("{fault:?}"));
                        return said;
                    }
                }
            }
            assert!(piece.is_empty(), "no byte is left behind");
        }
        said
    }

    fn print(value: &Value<'_>) -> String {
        match value {
            Value::Array(items) => {
                let all: Vec<String> = items.clone().map(|item| print(&item)).collect();
                assert_eq!(all.len() as u64, items.left, "all items can be read");
                format!("[{}]", all.join(" "))
            }
            Value::Simple(text) => format!("+{}", String::from_utf8_lossy(text)),
            Value::Error(text) => format!("-{}", String::from_utf8_lossy(text)),
            Value::Integer(number) => number.to_string(),
            Value::Bulk(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            Value::Null => "null".to_owned(),
        }
    }

    #[test]
    fn a_message_is_taken_only_as_the_parser_would_take_it() {
        let whole = b"*3\r\n$7\r\nmessage\r\n$3\r\ns.a\r\n$2\r\n{}\r\n+OK\r\n";
        let end = whole.len() - 5;
        let taken = |mut bytes: &[u8]| {
            let before = bytes.len();
            let message = take_message(&mut bytes)
                .map(|(channel, payload)| (channel.to_vec(), payload.to_vec()));
            (message, before - bytes.len())
        };
        assert_eq!(taken(whole), (Some((b"s.a".to_vec(), b"{}".to_vec())), end));
        for cut in 0..end {
            assert_eq!(taken(&whole[..cut]), (None, 0), "cut at {cut}");
        }
        // Whatever one byte is instead: the parser says the same, where anything is taken.
        for at in 0..end {
            for byte in 0..=u8::MAX {
                let mut changed = whole.to_vec();
                changed[at] = byte;
                let (Some((channel, payload)), length) = taken(&changed) else { continue };
                let mut parser = Parser::new(BULK_BYTES_MAX);
                let mut input = changed.as_slice();
                let value = parser.next(&mut input).unwrap().expect("the same is whole here");
                assert_eq!(value.len(), length);
                let Some(Value::Array(items)) = Value::read(&value) else { panic!("an array") };
                let expected: [&[u8]; 3] = [b"message", &channel, &payload];
                assert!(items.eq(expected.map(Value::Bulk)), "byte {at} is {byte}");
            }
        }
    }

    fn random_cuts<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let most = if random.number().is_multiple_of(2) { 4 } else { bytes.len() as u64 };
            let cut = (random.number() % most + 1).min(bytes.len() as u64) as usize;
            let (piece, rest) = bytes.split_at(cut);
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// Reads the bytes whole, byte by byte and in random cuts; all must say the same.
    fn read_all_ways(bytes: &[u8], random: &mut Random) -> Vec<String> {
        let whole = read([bytes]);
        assert_eq!(read(bytes.chunks(1)), whole, "byte by byte: {:?}", bytes.escape_ascii());
        let cuts = random_cuts(bytes, random);
        assert_eq!(read(cuts), whole, "random cuts: {:?}", bytes.escape_ascii());
        whole
    }

    fn says(bytes: impl AsRef<[u8]>) -> Vec<String> {
        read_all_ways(bytes.as_ref(), &mut Random::seeded(1))
    }

    #[test]
    fn values_of_all_types() {
        assert_eq!(says("+OK\r\n-ERR no\r\n:-12\r\n:+7\r\n"), ["+OK", "-ERR no", "-12", "7"]);
        assert_eq!(says("$2\r\n\r\n\r\n$0\r\n\r\n"), [r#""\r\n""#, r#""""#]);
        assert_eq!(says("$-1\r\n*-1\r\n*0\r\n+\r\n"), ["null", "null", "[]", "+"]);
        assert_eq!(
            says("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+x\r\n"),
            [r#"["subscribe" "a" 1]"#, "+x"]
        );
        assert_eq!(
            says("*3\r\n*2\r\n:1\r\n*1\r\n$-1\r\n*0\r\n$1\r\nx\r\n:5\r\n"),
            [r#"[[1 [null]] [] "x"]"#, "5"]
        );
    }

    #[test]
    fn what_is_no_resp2_is_a_fault() {
        for kind in "_#,(!=%~>|HX\r\n\0".bytes() {
            assert_eq!(says([kind]), [format!("{:?}", Fault::Type(kind))]);
            assert_eq!(
                says([b"*1\r\n", &[kind][..]].concat()),
                [format!("{:?}", Fault::Type(kind))]
            );
        }
        let numbers = [
            "$",
            "$+1",
            "$-2",
            "$ 1",
            "$1 ",
            "$0x1",
            "$1_0",
            "*-2",
            "*x",
            "*+1",
            "$\0",
            ":",
            ":1.0",
            ":--1",
            ":9223372036854775808",
            "*18446744073709551616",
            "$99999999999999999999",
        ];
        for number in numbers {
            assert_eq!(says(format!("{number}\r\n")), ["Number"], "{number}");
        }
        assert_eq!(says("+OK\n"), ["LineEnd"]);
        assert_eq!(says("+O\rK\r\n"), ["LineEnd"]);
        assert_eq!(says("$1\r\nxyz"), ["BulkEnd"]);
        assert_eq!(says("$1\r\nx\n\n"), ["BulkEnd"]);
    }

    #[test]
    fn bounds_hold_to_the_byte() {
        let bulk = |len: usize| format!("${len}\r\n{}\r\n", "x".repeat(len));
        assert_eq!(says(bulk(BULK_BYTES_MAX)).len(), 1);
        assert_eq!(says(bulk(BULK_BYTES_MAX + 1)), ["BulkTooLong"]);
        assert_eq!(says("$18446744073709551615\r\n"), ["BulkTooLong"]);

        let line = |len: usize| format!("+{}\r\n", "x".repeat(len - 3));
        assert_eq!(says(line(RESP_LINE_BYTES_MAX))[0].len(), RESP_LINE_BYTES_MAX - 2);
        assert_eq!(says(line(RESP_LINE_BYTES_MAX + 1)), ["LineTooLong"]);
        assert_eq!(says("+".repeat(RESP_LINE_BYTES_MAX)), ["LineTooLong"]);

        let nested = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
        assert!(says(nested(RESP_DEPTH_MAX))[0].starts_with("[[["));
        assert_eq!(says(nested(RESP_DEPTH_MAX + 1)), ["TooDeep"]);

        let three = [bulk(7), bulk(BULK_BYTES_MAX), bulk(BULK_BYTES_MAX)].concat();
        assert_eq!(says(format!("*3\r\n{three}")).len(), 1);
        let endless = format!("*9223372036854775807\r\n{}", ":1\r\n".repeat(20_000));
        assert_eq!(says(&endless), ["ValueTooLong"]);
        let endless = format!("*1000000\r\n{}", bulk(900).repeat(100));
        assert_eq!(says(&endless), ["ValueTooLong"]);
    }

    #[test]
    fn a_whole_value_is_borrowed_and_one_in_pieces_takes_its_buffer_with_it() {
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
        let mut parser = Parser::new(BULK_BYTES_MAX);
        let mut input = [&message[..], &message[..9]].concat();
        input.shrink_to_fit();
        let mut rest = &input[..];
        let first = parser.next(&mut rest).unwrap().unwrap();
        assert!(matches!(&first, Cow::Borrowed(bytes) if bytes.as_ptr() == input.as_ptr()));
        assert_eq!(parser.next(&mut rest), Ok(None));
        assert!((9..=18).contains(&parser.held.capacity()));

        let mut rest = &[&message[9..], b"+OK\r\n"].concat()[..];
        let second = parser.next(&mut rest).unwrap().unwrap();
        assert!(matches!(&second, Cow::Owned(bytes) if bytes == message));
        assert_eq!(parser.held.capacity(), 0);
        assert_eq!(rest, b"+OK\r\n");
    }

    #[test]
    fn memory_follows_bytes_received() {
        let declarations = [
            "$1000000000\r\n",
            "*9223372036854775807\r\n",
            "*9223372036854775807\r\n*9223372036854775807\r\n$1000000000\r\n",
        ];
        for declared in declarations {
            let mut parser = Parser::new(1_000_000_000);
            assert_eq!(parser.next(&mut declared.as_bytes()), Ok(None));
            assert!(parser.held.capacity() <= 64, "{declared}");
        }
        let mut parser = Parser::new(100_000);
        let endless = [&b"*9223372036854775807\r\n"[..], &b":1\r\n".repeat(100_000)].concat();
        let ended = endless.chunks(1_000).try_for_each(|mut chunk| {
            let next = parser.next(&mut chunk);
            assert!(parser.held.capacity() < 1_000_000);
            next.map(|_| ())
        });
        assert_eq!(ended, Err(Fault::ValueTooLong));
    }

    #[test]
    fn any_bytes_give_values_or_a_fault_however_they_are_cut() {
        let alphabet = b"+-:$**$$0123999\r\n\r\n\r\nx_";
        let pieces =
            ["*2\r\n", "$3\r\nabc\r\n", ":5\r\n", "*0\r\n", "$-1\r\n", "+ok\r\n", "-no\r\n"];
        let mut random = Random::seeded(2);
        for _ in 0..5_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.number() % 12 {
                bytes.extend_from_slice(pieces[random.number() as usize % pieces.len()].as_bytes());
            }
            for _ in 0..random.number() % 3 {
                let noise = alphabet[random.number() as usize % alphabet.len()];
                bytes.insert(random.number() as usize % (bytes.len() + 1), noise);
            }
            read_all_ways(&bytes, &mut random);
            // Not only what the parser lets through may be handed to `read`.
            if let Some(Value::Array(items)) = Value::read(&bytes) {
                items.for_each(drop);
            }
        }
    }

    #[test]
    fn commands_come_back_as_they_were_written() {
        let mut random = Random::seeded(3);
        for _ in 0..200 {
            let words: Vec<Vec<u8>> = (0..random.number() % 5)
                .map(|_| (0..random.number() % 40).map(|_| random.number() as u8).collect())
                .collect();
            let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
            let mut bytes = Vec::new();
            push_command(&mut bytes, &words);
            let mut parser = Parser::new(BULK_BYTES_MAX);
            let whole = parser.next(&mut &bytes[..]).unwrap().unwrap();
            let Some(Value::Array(items)) = Value::read(&whole) else { panic!("no array") };
            assert!(items.eq(words.iter().map(|word| Value::Bulk(word))));
        }
        let mut bytes = Vec::new();
        push_command(&mut bytes, &[b"SUBSCRIBE", b"a"]);
        assert_eq!(bytes, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n");
    }
}
