//! Reads one response as its bytes come, in whatever pieces (RFC 9112, sections 4 to 6).
//!
//! A head is parsed once, when its blank line has come: a server that sends a byte at a time
//! costs a look at each byte and no more.

use std::mem::MaybeUninit;

use super::Fault;
use super::body::Body;
use crate::limits::{HEADERS_MAX, RESPONSE_HEAD_BYTES_MAX};

/// What the configuration says about responses.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The body as sent, chunk framing included.
    pub body_bytes_max: usize,
    /// The headers of a 429 worth keeping, the first one that is present before all others.
    pub rate_limit_headers: &'a [String],
}

/// What a successful response says its content is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// `application/json` or any type that ends in `+json`, not compressed.
    Json,
    /// No Content-Type.
    Untyped,
    /// Another Content-Type.
    Other(Box<str>),
    /// A Content-Encoding that was not offered.
    Encoded(Box<str>),
}

/// What matters of a final response's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    pub status: u16,
    pub content: Content,
    /// `Location` of a 3xx.
    pub location: Option<Box<str>>,
    /// The rate-limit header of a 429.
    pub rate_limit: Option<Box<str>>,
    /// Whether the server means to keep the connection (RFC 9112, section 9.3).
    pub keeps_alive: bool,
}

impl Head {
    /// Whether the body is what the request was made for.
    pub fn is_wanted(&self) -> bool {
        matches!(self.status, 200..=299) && self.status != 204 && self.content == Content::Json
    }
}

/// A complete response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub head: Head,
    /// Empty unless `Head::is_wanted`.
    pub body: Vec<u8>,
    /// Whether the connection can take another request, as far as this response goes.
    pub reusable: bool,
}

/// Reads one response, interim ones (1xx) before it included.
#[derive(Debug, Default)]
pub struct Reader {
    stage: Stage,
    /// Bytes of the heads that are complete.
    head_bytes: usize,
}

#[derive(Debug)]
enum Stage {
    /// The part of a head that has come.
    Head(Vec<u8>),
    Body(Head, Body),
    Complete(Response),
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Head(Vec::new())
    }
}

/// What one complete head leads to.
enum Parsed {
    Interim,
    Final(Head, Framing),
}

enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Reader {
    /// Takes the next bytes: how many belong to this response. The rest, if any, is surplus.
    ///
    /// # Errors
    /// See `Fault`. The reader is of no more use then, but for `head`.
    pub fn push(&mut self, bytes: &[u8], rules: Rules<'_>) -> Result<usize, Fault> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            match &mut self.stage {
                Stage::Complete(_) => return Ok(taken),
                _ if rest.is_empty() => return Ok(taken),
                Stage::Head(_) => taken += self.push_head(rest, rules)?,
                Stage::Body(_, body) => {
                    let (more, done) = body.push(rest)?;
                    taken += more;
                    if done {
                        self.complete();
                    }
                }
            }
        }
    }

    /// The connection has ended, as it should after a response without a length.
    pub fn end(&mut self) -> Result<(), Fault> {
        match &self.stage {
            Stage::Complete(_) => Ok(()),
            Stage::Body(_, body) if body.ends_with_connection() => {
                self.complete();
                Ok(())
            }
            _ if self.is_untouched() => Err(Fault::NoResponse),
            _ => Err(Fault::CutShort),
        }
    }

    /// Whether no byte has come yet.
    pub fn is_untouched(&self) -> bool {
        self.head_bytes == 0 && matches!(&self.stage, Stage::Head(part) if part.is_empty())
    }

    /// The final head, once it has come.
    pub fn head(&self) -> Option<&Head> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(head, _) => Some(head),
            Stage::Complete(response) => Some(&response.head),
        }
    }

    /// The response, once it is complete. The reader begins anew.
    pub fn take(&mut self) -> Option<Response> {
        if !matches!(self.stage, Stage::Complete(_)) {
            return None;
        }
        match std::mem::take(self).stage {
            Stage::Complete(response) => Some(response),
            _ => unreachable!("looked at above"),
        }
    }

    fn complete(&mut self) {
        let stage = std::mem::take(&mut self.stage);
        let Stage::Body(head, body) = stage else {
            unreachable!("a body is completed once, in its own stage");
        };
        let reusable = head.keeps_alive && !body.ends_with_connection();
        self.stage = Stage::Complete(Response { head, body: body.into_content(), reusable });
    }

    fn push_head(&mut self, bytes: &[u8], rules: Rules<'_>) -> Result<usize, Fault> {
        let Stage::Head(part) = &mut self.stage else {
            unreachable!("called in the stage of heads");
        };
        let had = part.len();
        let room = RESPONSE_HEAD_BYTES_MAX - self.head_bytes;
        // One byte over the limit is enough to know.
        let bytes = &bytes[..bytes.len().min(room + 1 - had)];
        // Most heads come in one piece and are parsed where they lie.
        let whole = if had == 0 { bytes } else { append(part, bytes) };
        if !starts_alike(whole, b"HTTP/1.") {
            return Err(Fault::NotHttp);
        }
        let Some(end) = end_of_head(whole, had) else {
            if whole.len() > room {
                return Err(Fault::HeadTooLarge);
            }
            if had == 0 {
                part.extend_from_slice(bytes);
            }
            return Ok(bytes.len());
        };
        if end > room {
            return Err(Fault::HeadTooLarge);
        }
        let parsed = parse(&whole[..end], rules)?;
        self.head_bytes += end;
        self.stage = match parsed {
            Parsed::Interim => Stage::default(),
            Parsed::Final(head, framing) => begin_body(head, framing, rules)?,
        };
        Ok(end - had)
    }
}

fn append<'a>(part: &'a mut Vec<u8>, bytes: &[u8]) -> &'a [u8] {
    part.extend_from_slice(bytes);
    part
}

/// Whether both are equal as far as the shorter one goes.
fn starts_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// Where the head ends, its blank line included; the first `seen` bytes were searched before.
pub fn end_of_head(bytes: &[u8], seen: usize) -> Option<usize> {
    let mut at = seen.saturating_sub(2);
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn begin_body(head: Head, framing: Framing, rules: Rules<'_>) -> Result<Stage, Fault> {
    let (max, keep) = (rules.body_bytes_max, head.is_wanted());
    let body = match framing {
        Framing::Empty | Framing::Length(0) => {
            let reusable = head.keeps_alive;
            return Ok(Stage::Complete(Response { head, body: Vec::new(), reusable }));
        }
        Framing::Length(length) => Body::of_length(length, max, keep)?,
        Framing::Chunked => Body::chunked(max, keep),
        Framing::UntilClose => Body::until_close(max, keep),
    };
    Ok(Stage::Body(head, body))
}

fn parse(bytes: &[u8], rules: Rules<'_>) -> Result<Parsed, Fault> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyHeaders),
        _ => return Err(Fault::BadHead),
    }
    let status = response.code.ok_or(Fault::BadHead)?;
    match status {
        0..=99 => Err(Fault::BadStatus),
        101 => Err(Fault::SwitchedProtocols),
        100..=199 => Ok(Parsed::Interim),
        _ => judge(status, response.version == Some(1), response.headers, rules),
    }
}

/// Picks out of a final head what matters.
fn judge(
    status: u16,
    is_http_1_1: bool,
    headers: &[httparse::Header<'_>],
    rules: Rules<'_>,
) -> Result<Parsed, Fault> {
    let mut length = None;
    let mut is_chunked = false;
    let (mut closes, mut keeps) = (false, false);
    let (mut kind, mut encoding, mut location) = (None, None, None);
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = header.value.trim_ascii();
        if is("content-length") {
            let previous = length.replace(content_length(value)?);
            if previous.is_some() {
                return Err(Fault::BadLength);
            }
        } else if is("transfer-encoding") {
            if is_chunked || !is_http_1_1 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::BadCoding);
            }
            is_chunked = true;
        } else if is("connection") {
            for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                closes |= token.eq_ignore_ascii_case(b"close");
                keeps |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("content-type") {
            kind.get_or_insert(value);
        } else if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") {
            encoding.get_or_insert(value);
        } else if is("location") {
            location.get_or_insert(value);
        }
    }
    let framing = match (length, is_chunked) {
        (Some(_), true) => return Err(Fault::TwoLengths),
        _ if status == 204 || status == 304 => Framing::Empty,
        (None, true) => Framing::Chunked,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::UntilClose,
    };
    let content = match (encoding, kind) {
        (Some(coding), _) => Content::Encoded(text(coding)),
        (None, None) => Content::Untyped,
        (None, Some(kind)) if is_json(kind) => Content::Json,
        (None, Some(kind)) => Content::Other(text(kind)),
    };
    let head = Head {
        status,
        content,
        location: location.filter(|_| status / 100 == 3).map(text),
        rate_limit: if status == 429 { first_of(rules.rate_limit_headers, headers) } else { None },
        keeps_alive: !closes && (is_http_1_1 || keeps),
    };
    Ok(Parsed::Final(head, framing))
}

/// RFC 9110, section 8.6: digits only, and below 2^63.
fn content_length(value: &[u8]) -> Result<u64, Fault> {
    let digits = std::str::from_utf8(value).map_err(|_| Fault::BadLength)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::BadLength); // `parse` would take a plus sign
    }
    digits.parse().ok().filter(|&length| length < 1 << 63).ok_or(Fault::BadLength)
}

/// `application/json` or `…+json` (RFC 6839), with any parameters.
fn is_json(kind: &[u8]) -> bool {
    let essence = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let suffix = essence.get(essence.len().saturating_sub(5)..).unwrap_or_default();
    essence.eq_ignore_ascii_case(b"application/json") || suffix.eq_ignore_ascii_case(b"+json")
}

fn first_of(names: &[String], headers: &[httparse::Header<'_>]) -> Option<Box<str>> {
    let value_of =
        |name: &String| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    names.iter().find_map(value_of).map(|header| text(header.value.trim_ascii()))
}

fn text(value: &[u8]) -> Box<str> {
    String::from_utf8_lossy(value).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn names() -> Vec<String> {
        vec!["X-First".to_owned(), "Retry-After".to_owned()]
    }

    /// The response and the number of its bytes.
    type Read = Result<Option<(Response, usize)>, Fault>;

    fn feed(bytes: &[u8], cuts: &mut dyn FnMut() -> usize, closed: bool) -> Read {
        let names = names();
        let rules = Rules { body_bytes_max: 200_000, rate_limit_headers: &names };
        let mut reader = Reader::default();
        let mut taken = 0;
        while taken < bytes.len() {
            let piece = &bytes[taken..bytes.len().min(taken + cuts().max(1))];
            let used = reader.push(piece, rules)?;
            taken += used;
            if used < piece.len() || matches!(reader.stage, Stage::Complete(_)) {
                return Ok(reader.take().map(|response| (response, taken)));
            }
        }
        if closed {
            reader.end()?;
        }
        Ok(reader.take().map(|response| (response, taken)))
    }

    fn read_all(bytes: &[u8], closed: bool) -> Read {
        let whole = feed(bytes, &mut || usize::MAX / 2, closed);
        assert_eq!(feed(bytes, &mut || 1, closed), whole, "byte by byte");
        let mut random = Random::seeded(bytes.len() as u64);
        for _ in 0..20 {
            let mut cut = || (random.number() % 40) as usize;
            assert_eq!(feed(bytes, &mut cut, closed), whole, "random cuts");
        }
        whole
    }

    fn read(text: &str) -> Read {
        read_all(text.as_bytes(), false)
    }

    fn response(text: &str) -> Response {
        let (response, taken) = read(text).unwrap().unwrap();
        assert_eq!(taken, text.len());
        response
    }

    const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

    #[test]
    fn reads_every_framing() {
        let with = |rest: &str| format!("{JSON}{rest}");
        let sized = response(&with("Content-Length: 7\r\n\r\n{\"a\":1}"));
        assert_eq!((sized.head.status, sized.reusable), (200, true));
        assert_eq!(sized.body, b"{\"a\":1}");
        assert_eq!(sized.body.capacity(), 7, "memory follows what came");
        let chunked = response(&with("Transfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"));
        assert_eq!((&chunked.body[..], chunked.reusable), (&b"{}"[..], true));
        let open = with("\r\n{}");
        assert_eq!(read(&open), Ok(None));
        let (closed, _) = read_all(open.as_bytes(), true).unwrap().unwrap();
        assert_eq!((&closed.body[..], closed.reusable), (&b"{}"[..], false));
        assert!(response(&with("Content-Length: 000\r\n\r\n")).body.is_empty());
        assert!(response("HTTP/1.1 204\r\n\r\n").reusable);
    }

    #[test]
    fn surplus_bytes_are_left_alone() {
        let text = format!("{JSON}Content-Length: 2\r\n\r\n{{}}HTTP/1.1 200 OK\r\n");
        let (response, taken) = read(&text).unwrap().unwrap();
        assert_eq!(response.body, b"{}");
        assert_eq!(&text[taken..], "HTTP/1.1 200 OK\r\n");
    }

    #[test]
    fn interim_responses_are_skipped() {
        let text = format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n{JSON}\
             Content-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(response(&text).head.status, 200);
        let switched = read("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
        assert_eq!(switched, Err(Fault::SwitchedProtocols));
    }

    #[test]
    fn asking_too_early_changes_nothing() {
        let names = names();
        let rules = Rules { body_bytes_max: 10, rate_limit_headers: &names };
        let mut reader = Reader::default();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut total = 0;
        let fault = loop {
            match reader.push(interim, rules) {
                Ok(taken) => total += taken,
                Err(fault) => break fault,
            }
            assert_eq!(reader.take(), None);
            assert_eq!(reader.end(), Err(Fault::CutShort), "an interim response has come");
        };
        assert_eq!(fault, Fault::HeadTooLarge);
        assert!(
            total <= RESPONSE_HEAD_BYTES_MAX && total + interim.len() > RESPONSE_HEAD_BYTES_MAX
        );
    }

    #[test]
    fn all_heads_share_one_limit() {
        let head = |bytes: usize| {
            let frame = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n".len();
            let filler = "x".repeat(bytes - frame);
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {filler}\r\n\r\n")
        };
        let once = |text: &str| feed(text.as_bytes(), &mut || 1_000_000, false);
        assert!(once(&head(RESPONSE_HEAD_BYTES_MAX)).unwrap().is_some());
        assert_eq!(once(&head(RESPONSE_HEAD_BYTES_MAX + 1)), Err(Fault::HeadTooLarge));
        assert!(feed(head(RESPONSE_HEAD_BYTES_MAX).as_bytes(), &mut || 1, false).is_ok());
        let slow = feed(head(RESPONSE_HEAD_BYTES_MAX + 1).as_bytes(), &mut || 1, false);
        assert_eq!(slow, Err(Fault::HeadTooLarge));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(read(&interim.repeat(3_000)), Err(Fault::HeadTooLarge));
        let after = format!("{interim}{}", head(RESPONSE_HEAD_BYTES_MAX - interim.len()));
        assert!(once(&after).unwrap().is_some());
        let over = format!("{interim}{}", head(RESPONSE_HEAD_BYTES_MAX - interim.len() + 1));
        assert_eq!(once(&over), Err(Fault::HeadTooLarge));
        let endless = format!("HTTP/1.1 200 {}", "x".repeat(RESPONSE_HEAD_BYTES_MAX));
        assert_eq!(once(&endless), Err(Fault::HeadTooLarge));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(read(&many), Err(Fault::TooManyHeaders));
    }

    #[test]
    fn lengths_are_numbers_or_faults() {
        for value in [
            "-1",
            "+1",
            "x",
            "",
            "1 2",
            "1,1",
            "1, 2",
            "0x1",
            "1_0",
            "9223372036854775808",
            "18446744073709551617",
            "1.0",
            "\u{664}",
        ] {
            let text = format!("{JSON}Content-Length: {value}\r\n\r\n");
            assert_eq!(read(&text), Err(Fault::BadLength), "{value:?}");
        }
        let doubled = format!("{JSON}Content-Length: 2\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(read(&doubled), Err(Fault::BadLength));
        let huge = format!("{JSON}Content-Length: 9223372036854775807\r\n\r\n");
        assert_eq!(read(&huge), Err(Fault::BodyTooLarge));
        let both = format!("{JSON}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(read(&both), Err(Fault::TwoLengths));
        for coding in ["gzip", "gzip, chunked", "identity", "chunked\r\nTransfer-Encoding: chunked"]
        {
            let text = format!("{JSON}Transfer-Encoding: {coding}\r\n\r\n");
            assert_eq!(read(&text), Err(Fault::BadCoding), "{coding}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old), Err(Fault::BadCoding));
    }

    #[test]
    fn what_is_no_response_is_a_fault_at_once() {
        for text in
            ["SSH-2.0", "{}", "HTTP/2", "\r\nHTTP/1.1 200 OK\r\n\r\n", " HTTP/1.1", "HTTP/x"]
        {
            assert_eq!(read(text), Err(Fault::NotHttp), "{text:?}");
        }
        for text in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 -20 OK\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.7 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        ] {
            assert_eq!(read(text), Err(Fault::BadHead), "{text:?}");
        }
        assert_eq!(read("HTTP/1.1 099 Low\r\n\r\n"), Err(Fault::BadStatus));
        assert_eq!(read("HTTP/1."), Ok(None));
    }

    #[test]
    fn an_early_end_is_a_fault() {
        assert_eq!(read_all(b"", true), Err(Fault::NoResponse));
        for rest in [
            "",
            "Content-Length: 3\r\n\r\n{}",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        ] {
            let text = format!("{JSON}{rest}");
            assert_eq!(read_all(text.as_bytes(), true), Err(Fault::CutShort), "{rest:?}");
        }
        assert_eq!(read_all(b"HTTP/1.1 100 C\r\n\r\n", true), Err(Fault::CutShort));
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        let keeps = |version: &str, connection: &str| {
            response(&format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{connection}\r\n"))
                .reusable
        };
        assert!(keeps("1.1", ""));
        assert!(keeps("1.1", "Connection: x, Keep-Alive\r\n"));
        assert!(!keeps("1.1", "Connection: keep-alive,  CLOSE\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "connection: keep-alive\r\n"));
        assert!(!keeps("1.0", "Connection: keep-alive\r\nConnection: close\r\n"));
    }

    #[test]
    fn content_is_named() {
        let content = |headers: &str| {
            response(&format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{headers}\r\n")).head.content
        };
        for kind in [
            "application/json",
            "APPLICATION/JSON ; charset=utf-8",
            "application/problem+json",
            "application/vnd.x+JSON;v=1",
        ] {
            assert_eq!(content(&format!("Content-Type: {kind}\r\n")), Content::Json, "{kind}");
        }
        assert_eq!(content(""), Content::Untyped);
        for kind in ["text/html", "application/jsonp", "text/json", "json", "+jso", ""] {
            let named = content(&format!("Content-Type: {kind}\r\n"));
            assert_eq!(named, Content::Other(kind.into()), "{kind}");
        }
        let encoded = content("Content-Type: application/json\r\nContent-Encoding: gzip\r\n");
        assert_eq!(encoded, Content::Encoded("gzip".into()));
        let plain = content("Content-Type: application/json\r\nContent-Encoding: Identity\r\n");
        assert_eq!(plain, Content::Json);
    }

    #[test]
    fn location_and_rate_limit_are_kept_where_they_count() {
        let moved = response("HTTP/1.1 308 M\r\nlocation: /x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(moved.head.location.as_deref(), Some("/x"));
        let limited = |headers: &str| {
            response(&format!("HTTP/1.1 429 T\r\nContent-Length: 0\r\n{headers}\r\n"))
                .head
                .rate_limit
        };
        let both = limited("retry-after: 7\r\nx-first:  bad \r\n");
        assert_eq!(both.as_deref(), Some("bad"), "the first configured one decides");
        assert_eq!(limited("RETRY-AFTER: 7\r\n").as_deref(), Some("7"));
        assert_eq!(limited("X-First: \r\n").as_deref(), Some(""));
        assert_eq!(limited("X-Other: 1\r\n"), None);
    }

    #[test]
    fn an_unwanted_body_is_read_but_not_kept() {
        let failed = response(
            "HTTP/1.1 500 E\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
        assert!(failed.body.is_empty() && failed.reusable);
    }

    #[test]
    fn any_bytes_give_a_value_or_a_fault() {
        let seeds = [
            format!("{JSON}Content-Length: 12\r\n\r\n{{\"abc\":1234}}"),
            format!("{JSON}Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{{}}\r\n0\r\nT: u\r\n\r\n"),
            format!("HTTP/1.1 100 C\r\n\r\n{JSON}Connection: close\r\n\r\n{{}}"),
        ];
        let mut random = Random::seeded(29);
        for round in 0..300 {
            let mut bytes = seeds[round % seeds.len()].clone().into_bytes();
            for _ in 0..1 + random.number() % 3 {
                let at = (random.number() as usize) % bytes.len();
                bytes[at] = random.number() as u8;
            }
            let _ = read_all(&bytes, round % 2 == 0); // asserts that all cuts agree
        }
    }
}
