//! Responses of services, and a second, simple reading of them: all bytes at once, a line at a
//! time, by the letter of RFC 9112.

use super::{BYTES_MAX, LIMITLESS, in_all_cuts};
use crate::limits::{HEADERS_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::wire::http::{Fault, Reader, Response, Rules};

/// The same responses and fault in all cuts; framed as a second reading frames them; no body
/// larger than what came or than allowed; written again they are the same.
pub fn http_response(data: &[u8]) {
    let (responses, end) = in_all_cuts(data, |pieces| read(pieces, BYTES_MAX));
    agree(&responses, end, data, BYTES_MAX);
    let (all, all_end) = read(&[data], LIMITLESS);
    agree(&all, all_end, data, LIMITLESS);
    assert!(responses.iter().map(|response| response.body.len()).sum::<usize>() <= data.len());
    for response in &responses {
        assert!(response.body.len() <= BYTES_MAX);
        // A buffer that grows is at most twice as large as what is in it.
        assert!(response.body.capacity() <= 2 * response.body.len().max(8));
        assert!(response.body.is_empty() || response.head.is_wanted());
        assert!(!response.reusable || response.head.keeps_alive);
        read_again(response);
    }
}

/// The second reading says the same.
fn agree(responses: &[Response], end: Result<(), Fault>, data: &[u8], max: usize) {
    let (simply, simple_end) = read_simply(data, max);
    let framed: Vec<Framed> = responses.iter().map(framed).collect();
    assert_eq!(framed, simply, "{}", data.escape_ascii());
    match (end, simple_end) {
        (Ok(()), SimpleEnd::Closed)
        | (Err(Fault::NoResponse), SimpleEnd::Nothing)
        | (Err(Fault::CutShort), SimpleEnd::Short) => {}
        // What is wrong may be seen before its line, or the bytes that it declares, have come.
        (Err(fault), SimpleEnd::Wrong | SimpleEnd::Short) if !is_early_end(fault) => {}
        ends => panic!("{ends:?}: {}", data.escape_ascii()),
    }
}

fn is_early_end(fault: Fault) -> bool {
    matches!(fault, Fault::CutShort | Fault::NoResponse)
}

/// The response in each framing that its reuse allows.
fn read_again(response: &Response) {
    let Response { head, body, reusable } = response;
    if !head.is_wanted() {
        return;
    }
    let start = format!("HTTP/1.1 {} \r\nContent-Type: application/json\r\n", head.status);
    let start = if *reusable { start } else { start + "connection: close\r\n" };
    let mut texts = vec![[start.as_bytes(), b"\r\n", body.as_slice()].concat()];
    let length = format!("content-length: {}\r\n\r\n", body.len());
    texts.push([start.as_bytes(), length.as_bytes(), body.as_slice()].concat());
    let mut chunked = format!("{start}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(17) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    texts.push(chunked);
    for (index, text) in texts.iter().enumerate() {
        let (again, _) = read(&[text], 2 * BYTES_MAX);
        let expected = Framed { reusable: *reusable && index > 0, ..framed(response) };
        assert_eq!(again.iter().map(framed).collect::<Vec<_>>(), [expected]);
    }
}

/// What framing decides of a response.
#[derive(PartialEq, Eq, Debug)]
struct Framed {
    status: u16,
    /// Empty where nobody wants it.
    body: Vec<u8>,
    reusable: bool,
}

fn framed(response: &Response) -> Framed {
    let Response { head, body, reusable } = response;
    Framed { status: head.status, body: body.clone(), reusable: *reusable }
}

/// Responses as on a connection that is kept: one after the other, then the end of the stream.
fn read(pieces: &[&[u8]], body_bytes_max: usize) -> (Vec<Response>, Result<(), Fault>) {
    let names = ["X-Rate-Limit-Reset".to_owned(), "Retry-After".to_owned()];
    let rules = Rules { body_bytes_max, rate_limit_headers: &names };
    let mut reader = Reader::default();
    let mut responses = Vec::new();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            match reader.push(piece, rules) {
                Ok(taken) => piece = &piece[taken..],
                Err(fault) => return (responses, Err(fault)),
            }
            let complete = reader.take();
            assert!(complete.is_some() || piece.is_empty(), "all is taken, or a response ends");
            responses.extend(complete);
        }
    }
    let end = reader.end();
    responses.extend(reader.take());
    (responses, end)
}

/// How the second reading ends.
#[derive(Debug)]
enum SimpleEnd {
    /// With the connection, as the last response said.
    Closed,
    /// Before the first byte of a response.
    Nothing,
    /// Inside a response.
    Short,
    Wrong,
}

type Simply<T> = Result<T, SimpleEnd>;

fn read_simply(data: &[u8], max: usize) -> (Vec<Framed>, SimpleEnd) {
    let (mut rest, mut responses) = (data, Vec::new());
    loop {
        match one_simply(&mut rest, max) {
            Ok((response, true)) => responses.push(response),
            Ok((response, false)) => {
                responses.push(response);
                return (responses, SimpleEnd::Closed);
            }
            Err(end) => return (responses, end),
        }
    }
}

/// One response, and whether it ended before its connection.
fn one_simply(rest: &mut &[u8], max: usize) -> Simply<(Framed, bool)> {
    if rest.is_empty() {
        return Err(SimpleEnd::Nothing);
    }
    let mut head_bytes = 0;
    let head = loop {
        let before = rest.len();
        let head = head_simply(rest)?;
        head_bytes += before - rest.len();
        match head.status {
            _ if head_bytes > RESPONSE_HEAD_BYTES_MAX => return Err(SimpleEnd::Wrong),
            0..=99 | 101 => return Err(SimpleEnd::Wrong),
            100..=199 => {}
            _ => break head,
        }
    };
    let length = head.length()?;
    let (body, has_end) = match (length, head.is_chunked()?) {
        (Some(_), true) => return Err(SimpleEnd::Wrong),
        _ if matches!(head.status, 204 | 304) => (Vec::new(), true),
        (None, true) => (chunks_simply(rest, max)?, true),
        (Some(length), false) if length > max as u64 => return Err(SimpleEnd::Wrong),
        (Some(length), false) => (take(rest, length as usize)?.to_vec(), true),
        (None, false) if rest.len() > max => return Err(SimpleEnd::Wrong),
        (None, false) => (std::mem::take(rest).to_vec(), false),
    };
    let body = if head.is_wanted() { body } else { Vec::new() };
    Ok((Framed { status: head.status, body, reusable: has_end && head.keeps_alive() }, has_end))
}

struct SimpleHead {
    is_1_1: bool,
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
}

fn head_simply(rest: &mut &[u8]) -> Simply<SimpleHead> {
    let start: &[u8] = b"HTTP/1.";
    if !rest.starts_with(start) && !start.starts_with(rest) {
        return Err(SimpleEnd::Wrong);
    }
    let mut lines = Vec::new();
    loop {
        // A line feed alone ends a line as well (RFC 9112, section 2.2).
        let line = line(rest)?;
        match line.strip_suffix(b"\r").unwrap_or(line) {
            b"" => break,
            line => lines.push(line),
        }
    }
    let (first, lines) = lines.split_first().ok_or(SimpleEnd::Wrong)?;
    let (is_1_1, status) = status_simply(first).ok_or(SimpleEnd::Wrong)?;
    let headers: Option<Vec<_>> = lines.iter().map(|line| header_simply(line)).collect();
    let headers = headers.filter(|headers| headers.len() <= HEADERS_MAX);
    Ok(SimpleHead { is_1_1, status, headers: headers.ok_or(SimpleEnd::Wrong)? })
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn status_simply(line: &[u8]) -> Option<(bool, u16)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_at_checked(2)?;
    let is_1_1 = match minor {
        b"0 " => false,
        b"1 " => true,
        _ => return None,
    };
    let (digits, reason) = rest.split_at_checked(3)?;
    let has_reason = reason.first().is_none_or(|&byte| byte == b' ');
    if !digits.iter().all(u8::is_ascii_digit) || !has_reason || !reason.iter().all(|&b| is_text(b))
    {
        return None;
    }
    Some((is_1_1, std::str::from_utf8(digits).ok()?.parse().ok()?))
}

pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A header line: the name in lower case, the value without space around it.
pub fn header_simply(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) || !value.iter().all(|&b| is_text(b)) {
        return None;
    }
    Some((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

impl SimpleHead {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
    }

    fn length(&self) -> Simply<Option<u64>> {
        let values: Vec<String> = self.values("content-length").collect();
        let [value] = values.as_slice() else {
            return if values.is_empty() { Ok(None) } else { Err(SimpleEnd::Wrong) };
        };
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let length = value.trim_start_matches('0').parse().unwrap_or(0);
        let is_short = value.trim_start_matches('0').len() < 19 || length > 0;
        if !is_number || !is_short || length >= 1 << 63 {
            return Err(SimpleEnd::Wrong);
        }
        Ok(Some(length))
    }

    fn is_chunked(&self) -> Simply<bool> {
        let values: Vec<String> = self.values("transfer-encoding").collect();
        match values.as_slice() {
            [] => Ok(false),
            [value] if value == "chunked" && self.is_1_1 => Ok(true),
            _ => Err(SimpleEnd::Wrong),
        }
    }

    fn keeps_alive(&self) -> bool {
        let all: Vec<String> = self.values("connection").collect();
        let all = all.join(",");
        let has = |token: &str| all.split(',').any(|option| option.trim() == token);
        !has("close") && (self.is_1_1 || has("keep-alive"))
    }

    fn is_wanted(&self) -> bool {
        let Some(kind) = self.values("content-type").next() else { return false };
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let is_plain = self.values("content-encoding").all(|coding| coding == "identity");
        let is_json = kind == "application/json" || kind.ends_with("+json");
        is_json && is_plain && matches!(self.status, 200..=203 | 205..=299)
    }
}

/// What comes before the next line feed, which is taken with it.
fn line<'a>(rest: &mut &'a [u8]) -> Simply<&'a [u8]> {
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or(SimpleEnd::Short)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Simply<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count).ok_or(SimpleEnd::Short)?;
    *rest = behind;
    Ok(taken)
}

/// The content of a chunked body that is at most `max` bytes with all but its trailers.
fn chunks_simply(rest: &mut &[u8], max: usize) -> Simply<Vec<u8>> {
    let (mut content, mut spent) = (Vec::new(), 0);
    loop {
        let line = line(rest)?;
        let line = line.strip_suffix(b"\r").ok_or(SimpleEnd::Wrong)?;
        let size = size_simply(line).ok_or(SimpleEnd::Wrong)?;
        spent += line.len() + 2;
        if spent > max || size > (max - spent) as u128 {
            return Err(SimpleEnd::Wrong);
        }
        if size == 0 {
            break;
        }
        content.extend_from_slice(take(rest, size as usize)?);
        spent += size as usize + 2;
        if take(rest, 2)? != b"\r\n" || spent > max {
            return Err(SimpleEnd::Wrong);
        }
    }
    let mut trailers = 0;
    loop {
        let line = line(rest)?;
        if line == b"\r" {
            return Ok(content);
        }
        trailers += line.len() + 1;
        if line.starts_with(b"\r") || trailers > RESPONSE_HEAD_BYTES_MAX {
            return Err(SimpleEnd::Wrong);
        }
    }
}

/// `1F` or `1f;name=value`.
fn size_simply(line: &[u8]) -> Option<u128> {
    let end = line.iter().position(|&byte| byte == b';').unwrap_or(line.len());
    let (size, extension) = line.split_at(end);
    let digits = std::str::from_utf8(size).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > 16 || !extension.iter().all(|&byte| is_text(byte)) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().or(Some(0))
}
