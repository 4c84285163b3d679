//! Requests, of WebSocket clients and of those who ask the demo, and a second, simple reading of
//! them: all bytes at once, by the letter of RFC 9112.

use super::http::{header_simply, is_token};
use super::{BYTES_MAX, assert_is_response, in_all_cuts};
use crate::limits::HEADERS_MAX;
use crate::wire::http::incoming::{self, Bounds, Incoming, Refusal};
use crate::wire::upgrade;

/// Small, so that a fuzzer finds what is past it.
const BODY_BYTES_MAX: usize = 100;

/// The same requests in all cuts, framed and understood as the second reading has them.
pub fn http_request(data: &[u8]) {
    const BOUNDS: Bounds = Bounds { head_bytes: BYTES_MAX, body_bytes: BODY_BYTES_MAX };
    let (requests, refusal) = in_all_cuts(data, |pieces| {
        let (mut reader, mut requests) = (incoming::Reader::new(BOUNDS), Vec::new());
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                match reader.next(&mut piece) {
                    Ok(request) => requests.extend(request),
                    Err(refusal) => return (requests, Some(refusal)),
                }
            }
        }
        (requests, None::<Refusal>)
    });
    let (simply, end) = requests_simply(data);
    assert_eq!(requests, simply, "{}", data.escape_ascii());
    assert_eq!(refusal.is_some(), end == SimpleEnd::Wrong, "{}", data.escape_ascii());
}

/// How the second reading ends.
#[derive(PartialEq, Eq, Debug)]
enum SimpleEnd {
    /// With the bytes, inside a request or between two.
    Open,
    /// At something that no request may hold.
    Wrong,
}

fn requests_simply(data: &[u8]) -> (Vec<Incoming>, SimpleEnd) {
    let (mut rest, mut requests) = (data, Vec::new());
    while !rest.is_empty() {
        match one_simply(&mut rest) {
            Ok(request) => requests.push(request),
            Err(end) => return (requests, end),
        }
    }
    (requests, SimpleEnd::Open)
}

fn one_simply(rest: &mut &[u8]) -> Result<Incoming, SimpleEnd> {
    let head = head_simply(rest, BYTES_MAX)?.ok_or(SimpleEnd::Open)?;
    let request = SimpleRequest::read(head).ok_or(SimpleEnd::Wrong)?;
    let (path, length) = request.demands().ok_or(SimpleEnd::Wrong)?;
    let behind = &rest[head.len()..];
    let (body, behind) = behind.split_at_checked(length).ok_or(SimpleEnd::Open)?;
    *rest = behind;
    let value = |name| request.only(name).unwrap_or_default().map(str::to_owned);
    let media_type = value("content-type").unwrap_or_default();
    Ok(Incoming {
        path,
        host: value("host").unwrap_or_default(),
        origin: value("origin"),
        media_type: media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
        keep_alive: request.is_1_1 && !request.lists("connection", "close"),
        body: body.to_vec(),
        method: request.method,
    })
}

/// The head at the front of the bytes with its blank line; `None`: it goes on behind them.
fn head_simply(data: &[u8], max: usize) -> Result<Option<&[u8]>, SimpleEnd> {
    let end = data.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = &data[..end.unwrap_or(data.len())];
    let is_wrong = |at: usize| match head[at] {
        b'\r' => head.get(at + 1).is_some_and(|&next| next != b'\n'),
        b'\n' => at == 0 || head[at - 1] != b'\r',
        byte => byte.is_ascii_control() && byte != b'\t',
    };
    if head.len() > max || (0..head.len()).any(is_wrong) {
        return Err(SimpleEnd::Wrong);
    }
    Ok(end.map(|_| head))
}

struct SimpleRequest {
    method: String,
    target: String,
    is_1_1: bool,
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
}

impl SimpleRequest {
    /// Reads a whole head.
    fn read(head: &[u8]) -> Option<SimpleRequest> {
        let text = head.strip_suffix(b"\r\n\r\n")?;
        // One blank line before a request is ignored (RFC 9112, section 2.2).
        let text = text.strip_prefix(b"\r\n").unwrap_or(text);
        let mut lines = text.split(|&byte| byte == b'\n');
        let mut lines = lines.by_ref().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let is_target = !target.is_empty() && !target.contains(|c: char| c == '\u{7f}' || c <= ' ');
        if method.is_empty() || !method.bytes().all(is_token) || !is_target {
            return None;
        }
        let is_1_1 = match version {
            "HTTP/1.0" => false,
            "HTTP/1.1" => true,
            _ => return None,
        };
        let headers = lines.map(header_simply).collect::<Option<Vec<_>>>()?;
        let (method, target) = (method.to_owned(), target.to_owned());
        let request = SimpleRequest { method, target, is_1_1, headers };
        (request.headers.len() <= HEADERS_MAX).then_some(request)
    }

    /// The path, and the length of the body, of a request that the demo takes.
    fn demands(&self) -> Option<(String, usize)> {
        for name in ["content-type", "origin"] {
            self.only(name)?;
        }
        self.only("host")??;
        if self.values("transfer-encoding").next().or(self.values("expect").next()).is_some() {
            return None;
        }
        let length = match self.only("content-length")? {
            None => 0,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                return None;
            }
            Some(digits) => digits.trim_start_matches('0').chars().try_fold(0, |sum, digit| {
                Some(10 * sum + digit.to_digit(10)? as usize).filter(|&sum| sum <= BODY_BYTES_MAX)
            })?,
        };
        let path = self.target.split('?').next().filter(|path| path.starts_with('/'))?;
        Some((path.to_owned(), length))
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_slice())
    }

    /// The text of a header that may be there once; the outer `None`: it is no such header.
    fn only(&self, name: &'static str) -> Option<Option<&str>> {
        let values: Vec<&[u8]> = self.values(name).collect();
        match values[..] {
            [] => Some(None),
            [value] => std::str::from_utf8(value).ok().map(Some),
            _ => None,
        }
    }

    fn lists(&self, name: &'static str, option: &str) -> bool {
        let all = self.values(name).collect::<Vec<_>>().join(&b',');
        let mut all = all.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        all.any(|listed| listed.eq_ignore_ascii_case(option.as_bytes()))
    }

    /// Whether this is the handshake of RFC 6455, section 4.2.1, to the letter.
    fn is_handshake(&self) -> bool {
        let is = |name, value: &str| self.values(name).eq([value.as_bytes()]);
        let key: Vec<&[u8]> = self.values("sec-websocket-key").collect();
        let is_base64 = |&byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
        let is_nonce = |key: &[u8]| key.len() == 24 && key[..22].iter().all(is_base64);
        self.method == "GET"
            && self.is_1_1
            && self.target.starts_with('/')
            && self.values("host").count() == 1
            && self.values("transfer-encoding").count() == 0
            && (self.values("content-length").count() == 0 || is("content-length", "0"))
            && self.lists("upgrade", "websocket")
            && self.lists("connection", "upgrade")
            && is("sec-websocket-version", "13")
            && self.values("origin").count() <= 1
            && matches!(key[..], [key] if is_nonce(key) && key.ends_with(b"=="))
    }
}

/// The same head, rest and verdict in all cuts, and when it is written again with other cases and
/// spaces; the second reading finds the same head and verdict; what is answered is HTTP.
pub fn upgrade(data: &[u8]) {
    let simply = head_simply(data, BYTES_MAX);
    let (head, rest) = match in_all_cuts(data, request_head) {
        Ok((head, rest)) => (head, rest),
        Err(refusal) => {
            assert_eq!(simply, Err(SimpleEnd::Wrong), "{}", data.escape_ascii());
            return assert_is_response(&refusal.response());
        }
    };
    assert_eq!(simply, Ok(rest.as_ref().map(|_| head.as_slice())), "{}", data.escape_ascii());
    assert!(head.len() <= BYTES_MAX.min(data.len()));
    let Some(rest) = rest else { return };
    assert_eq!([head.as_slice(), rest.as_slice()].concat(), data);
    let checked = upgrade::check(&head);
    if let Some(again) = request_again(&head) {
        let again = upgrade::check(&again);
        let told = |request: &upgrade::Request<'_>| {
            let owned = |value: &[u8]| value.to_vec();
            let origin = request.origin.map(owned);
            let forwarded: Vec<_> = request.forwarded_for.iter().copied().map(owned).collect();
            (request.accept.clone(), origin, forwarded)
        };
        let again = again.as_ref().map(told);
        assert_eq!(again, checked.as_ref().map(told), "{}", head.escape_ascii());
    }
    let simple = SimpleRequest::read(&head).filter(SimpleRequest::is_handshake);
    assert_eq!(checked.is_ok(), simple.is_some(), "{}", head.escape_ascii());
    match checked {
        Ok(request) => {
            assert_eq!(request.accept.len(), 28, "20 bytes in base64");
            let simple = simple.expect("both take it");
            assert_eq!(request.origin, simple.values("origin").next());
            assert!(request.forwarded_for.iter().copied().eq(simple.values("x-forwarded-for")));
            assert_is_response(&upgrade::switching_protocols(&request.accept));
        }
        Err(refusal) => assert_is_response(&refusal.response()),
    }
}

/// A request's head that says the same with its names in capitals and other space around values.
fn request_again(head: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok().filter(httparse::Status::is_complete)?;
    let (method, path, version) = (request.method?, request.path?, request.version?);
    let mut again = format!("{method} {path} HTTP/1.{version}\r\n").into_bytes();
    for header in &*request.headers {
        again.extend_from_slice(header.name.to_ascii_uppercase().as_bytes());
        again.extend_from_slice(b":\t ");
        again.extend_from_slice(header.value.trim_ascii());
        again.extend_from_slice(b" \t\r\n");
    }
    again.extend_from_slice(b"\r\n");
    Some(again)
}

/// The head as far as it came and, once it is complete, what follows it.
type HeadAndRest = (Vec<u8>, Option<Vec<u8>>);

fn request_head(pieces: &[&[u8]]) -> Result<HeadAndRest, upgrade::Refusal> {
    let mut head = upgrade::Head::default();
    for (index, piece) in pieces.iter().enumerate() {
        let mut rest = *piece;
        if head.take(&mut rest, BYTES_MAX)? {
            let rest = [rest, &pieces[index + 1..].concat()].concat();
            return Ok((head.bytes().to_vec(), Some(rest)));
        }
        assert!(rest.is_empty(), "all is taken");
    }
    Ok((head.bytes().to_vec(), None))
}
