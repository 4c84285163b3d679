//! Commands as a Redis server reads them: arrays of bulk strings, or lines of words ("inline
//! commands", for people at a terminal). Both come out as the bytes of an array.
//!
//! What is read is bounded like any RESP value (`wire::resp`): memory follows the bytes received.

use std::borrow::Cow;
use std::fmt;

use crate::limits::RESP_LINE_BYTES_MAX;
use crate::wire::resp::{Fault, Parser, Value, push_command};

/// Why a peer's bytes are no command. The stream has lost its step; nothing after it counts. The
/// texts are Redis's own, as far as they fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Not an array of bulk strings, or over the bounds.
    Array(Fault),
    /// An array that holds something else than bulk strings, by its type byte.
    NotBulk(u8),
    /// A line of more than `RESP_LINE_BYTES_MAX`.
    LineTooLong,
    /// A quoted word without its closing quote, or with text behind that.
    Quotes,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Array(Fault::Type(kind)) | Malformed::NotBulk(kind) => {
                write!(f, "expected '$', got '{}'", kind.escape_ascii())
            }
            Malformed::Array(Fault::ValueTooLong) => f.write_str("invalid multibulk length"),
            Malformed::Array(_) => f.write_str("invalid bulk length"),
            Malformed::LineTooLong => f.write_str("too big inline request"),
            Malformed::Quotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

enum Reading {
    /// The next byte begins a command.
    Between,
    /// The parser holds the beginning of an array.
    Array,
    /// The beginning of a line.
    Line(Vec<u8>),
}

/// Cuts a stream of bytes into commands.
pub struct Commands {
    parser: Parser,
    reading: Reading,
}

impl Commands {
    /// A reader that takes words of up to `word_bytes_max`, and twice that of a command.
    pub fn new(word_bytes_max: usize) -> Commands {
        Commands { parser: Parser::new(word_bytes_max), reading: Reading::Between }
    }

    /// Takes bytes from the front of `input` until a command is whole and returns it as the bytes
    /// of an array of bulk strings, at least one, for `words`. `None`: the input is used up. After
    /// an error the reader is of no further use.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
        while let Some(&first) = input.first() {
            match self.reading {
                Reading::Between if first == b'*' => self.reading = Reading::Array,
                Reading::Between => self.reading = Reading::Line(Vec::new()),
                Reading::Array => {
                    let whole = self.parser.next(input).map_err(Malformed::Array)?;
                    let Some(whole) = whole else { return Ok(None) };
                    self.reading = Reading::Between;
                    if check(&whole)? {
                        return Ok(Some(whole));
                    }
                }
                Reading::Line(_) => {
                    let Some(line) = self.line(input)? else { return Ok(None) };
                    let words = split(&line).ok_or(Malformed::Quotes)?;
                    if !words.is_empty() {
                        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                        let mut whole = Vec::new();
                        push_command(&mut whole, &words);
                        return Ok(Some(Cow::Owned(whole)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The line that is being read, without its end, once it is whole.
    fn line(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let Reading::Line(line) = &mut self.reading else { return Ok(None) };
        let end = input.iter().position(|&byte| byte == b'\n');
        let (taken, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        if line.len() + taken.len() > RESP_LINE_BYTES_MAX {
            return Err(Malformed::LineTooLong);
        }
        line.extend_from_slice(taken);
        *input = rest;
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(line);
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
        self.reading = Reading::Between;
        Ok(Some(line))
    }
}

/// The words of a command: bytes as `Commands::next` hands them out.
pub fn words(whole: &[u8]) -> Vec<&[u8]> {
    let Some(Value::Array(items)) = Value::read(whole) else { return Vec::new() };
    let word = |item| if let Value::Bulk(word) = item { Some(word) } else { None };
    items.filter_map(word).collect()
}

/// Whether an array is a command; one without words is passed over.
fn check(whole: &[u8]) -> Result<bool, Malformed> {
    let Some(Value::Array(items)) = Value::read(whole) else { return Ok(false) };
    let mut is_empty = true;
    for item in items {
        is_empty = false;
        match item {
            Value::Bulk(_) => {}
            Value::Simple(_) => return Err(Malformed::NotBulk(b'+')),
            Value::Error(_) => return Err(Malformed::NotBulk(b'-')),
            Value::Integer(_) => return Err(Malformed::NotBulk(b':')),
            Value::Array(_) => return Err(Malformed::NotBulk(b'*')),
            Value::Null => return Err(Malformed::Array(Fault::Number)),
        }
    }
    Ok(!is_empty)
}

/// Splits a line into words as Redis does: at white space, with `"…"` (which knows escapes) and
/// `'…'` (which knows `\'`). `None`: the quotes are not in balance.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let (word, after) = take_word(rest)?;
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// The word at the front of `text`, which begins with none of the white space, and what follows.
fn take_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            byte if is_space(byte) => break,
            b'"' => take_quoted(after, &mut word)?,
            b'\'' => take_literal(after, &mut word)?,
            byte => {
                word.push(byte);
                after
            }
        };
        let closed = matches!(byte, b'"' | b'\'');
        if closed && rest.first().is_some_and(|&byte| !is_space(byte)) {
            return None;
        }
    }
    Some((word, rest))
}

/// What stands between double quotes; gives what follows the closing one.
fn take_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push((hex(*high) << 4) | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// What stands between single quotes; gives what follows the closing one.
fn take_literal<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const WORD_BYTES_MAX: usize = 1_000;

    /// Everything that a stream, given in these pieces, says: commands as text, then an error.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut commands = Commands::new(WORD_BYTES_MAX);
        let mut said = Vec::new();
        for mut piece in pieces {
            loop {
                match commands.next(&mut piece) {
                    Ok(Some(whole)) => {
                        let words = words(&whole);
                        assert!(!words.is_empty(), "a command has a name");
                        let words = words.iter().map(|word| word.escape_ascii().to_string());
                        said.push(words.collect::<Vec<_>>().join("|"));
                    }
                    Ok(None) => break,
                    Err(malformed) => {
                        said.push(format!("! {malformed}"));
                        return said;
                    }
                }
            }
            assert!(piece.is_empty(), "no byte is left behind");
        }
        said
    }

    fn random_cuts<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let cut = (random.number() % 6 + 1).min(bytes.len() as u64) as usize;
            let (piece, rest) = bytes.split_at(cut);
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// Reads the bytes whole, byte by byte and in random cuts; all must say the same.
    fn says(bytes: impl AsRef<[u8]>) -> Vec<String> {
        let bytes = bytes.as_ref();
        let whole = read([bytes]);
        assert_eq!(read(bytes.chunks(1)), whole, "byte by byte: {:?}", bytes.escape_ascii());
        let cuts = random_cuts(bytes, &mut Random::seeded(bytes.len() as u64));
        assert_eq!(read(cuts), whole, "random cuts: {:?}", bytes.escape_ascii());
        whole
    }

    #[test]
    fn arrays_and_lines_are_commands() {
        assert_eq!(says("*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n"), ["ECHO|a\\r\\n"]);
        assert_eq!(says("PING\r\nping  x \n\r\n \r\n*1\r\n$1\r\nQ\r\n"), ["PING", "ping|x", "Q"]);
        assert_eq!(says("*0\r\n*-1\r\nPING\r\n"), ["PING"]);
        assert_eq!(says("$3\r\n+x\r\n"), ["$3", "+x"]);
        assert_eq!(says("*2\r\n$0\r\n\r\n$1\r\nx\r\n"), ["|x"]);
        assert_eq!(says("PING"), [""; 0]);
    }

    #[test]
    fn lines_know_quotes_and_escapes() {
        assert_eq!(says("a \"b c\" 'd e'\r\n"), ["a|b c|d e"]);
        assert_eq!(
            says(r#""\x41\xzz\n\r\t\b\a\"\\" '\n\'' ""  x"y""#.to_owned() + "\n"),
            [r#"Axzz\n\r\t\x08\x07\"\\|\\n\'||xy"#]
        );
        for line in ["\"a", "'a", "\"a\"b", "'a'\"b\"", "x\"", "\"\\"] {
            assert_eq!(says(format!("{line}\r\n")), ["! unbalanced quotes in request"], "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        assert_eq!(says("*1\r\n:5\r\n"), ["! expected '$', got ':'"]);
        assert_eq!(says("*1\r\n+x\r\n"), ["! expected '$', got '+'"]);
        assert_eq!(says("*1\r\n*1\r\n$1\r\nx\r\n"), ["! expected '$', got '*'"]);
        assert_eq!(says("*1\r\n\u{1}"), ["! expected '$', got '\\x01'"]);
        assert_eq!(says("*1\r\n$-1\r\n"), ["! invalid bulk length"]);
        assert_eq!(says("*x\r\n"), ["! invalid bulk length"]);
        assert_eq!(says("*1\r\n$1001\r\n"), ["! invalid bulk length"]);
        let endless = format!("*1000000\r\n{}", "$9\r\n123456789\r\n".repeat(9_000));
        assert_eq!(says(endless), ["! invalid multibulk length"]);
    }

    #[test]
    fn a_line_is_bounded_to_the_byte() {
        let longest = "x".repeat(RESP_LINE_BYTES_MAX - 2) + "\r\n";
        assert_eq!(read([longest.as_bytes()])[0].len(), RESP_LINE_BYTES_MAX - 2);
        let longer = "x".repeat(RESP_LINE_BYTES_MAX - 1) + "\r\n";
        assert_eq!(read([longer.as_bytes()]), ["! too big inline request"]);
        let pieces = vec![&b"xyz"[..]; RESP_LINE_BYTES_MAX / 3 + 1];
        assert_eq!(read(pieces), ["! too big inline request"]);
    }

    #[test]
    fn any_bytes_are_commands_or_an_error_however_they_are_cut() {
        let pieces =
            ["*2\r\n", "$3\r\nabc\r\n", "*0\r\n", "PING\r\n", "\"a b\" ", "'", "\n", "\\x", "*1"];
        let mut random = Random::seeded(6379);
        for _ in 0..3_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.number() % 10 {
                bytes.extend_from_slice(pieces[random.number() as usize % pieces.len()].as_bytes());
            }
            for _ in 0..random.number() % 3 {
                let at = random.number() as usize % (bytes.len() + 1);
                bytes.insert(at, random.number() as u8);
            }
            says(&bytes);
        }
    }
}
