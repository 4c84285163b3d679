//! The opening handshake (RFC 6455, section 4.2; RFC 9112), server side: the end of a request's
//! head, whether it is a WebSocket handshake, and what is answered.
//!
//! Syntax is httparse's affair; what it lets pass for leniency's sake (bare LF) is refused before
//! it sees it, so that no proxy in front can read the same bytes in another way.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use httparse::{Header, Status};
use sha1::{Digest, Sha1};

use crate::limits::HEADERS_MAX;
use crate::metrics::Refused;
use crate::outbox::Frame;

/// Why a handshake is refused: the reason by which it is counted and answered, and the sentence
/// that goes into the answer's body and the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: Refused,
    pub detail: &'static str,
}

/// The usual sentence.
impl From<Refused> for Refusal {
    fn from(reason: Refused) -> Refusal {
        let detail = match reason {
            Refused::BadRequest => "not a request that is understood",
            Refused::Method => "the method must be GET",
            Refused::NotUpgrade => "this is a WebSocket server",
            Refused::Version => "Sec-WebSocket-Version must be 13",
            Refused::Origin => "this origin is not allowed",
            Refused::HeaderTooLarge => "request line and headers are too large",
            Refused::Timeout => "the request took too long",
            Refused::TooMany => "too many connections",
            Refused::TooManyFromAddress => "too many connections from this address",
            Refused::NotReady => "not ready, come again",
        };
        Refusal { reason, detail }
    }
}

impl Refusal {
    /// The answer: a whole HTTP/1.1 message after which the connection closes.
    pub fn response(self) -> Frame {
        let (status, extra) = match self.reason {
            Refused::BadRequest => ("400 Bad Request", ""),
            Refused::Method => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Refused::NotUpgrade => ("426 Upgrade Required", "Upgrade: websocket\r\n"),
            Refused::Version => ("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
            Refused::Origin => ("403 Forbidden", ""),
            Refused::HeaderTooLarge => ("431 Request Header Fields Too Large", ""),
            Refused::Timeout => ("408 Request Timeout", ""),
            Refused::TooManyFromAddress => ("429 Too Many Requests", "Retry-After: 5\r\n"),
            Refused::TooMany | Refused::NotReady => {
                ("503 Service Unavailable", "Retry-After: 5\r\n")
            }
        };
        // Whoever sends `Upgrade` has to list it as a connection option (RFC 9110, section 7.8).
        let option = if self.reason == Refused::NotUpgrade { ", Upgrade" } else { "" };
        let detail = self.detail;
        let response = format!(
            "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close{option}\r\n\r\n{detail}\n",
            length = detail.len() + 1,
        );
        response.into_bytes().into()
    }
}

fn bad(detail: &'static str) -> Refusal {
    Refusal { reason: Refused::BadRequest, detail }
}

/// The head of a request (request line and headers) as far as it was received.
#[derive(Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// How much of the CRLF CRLF at its end has been seen.
    ending: u8,
}

impl Head {
    /// Takes bytes from `input` up to the end of the head. True: it is complete, and what follows
    /// is still in `input`. Each byte is looked at once.
    pub fn take(&mut self, input: &mut &[u8], bytes_max: usize) -> Result<bool, Refusal> {
        let mut taken = 0;
        for &byte in *input {
            if self.bytes.len() + taken == bytes_max {
                return Err(Refused::HeaderTooLarge.into());
            }
            self.ending = match (self.ending, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => self.ending + 1,
                (1 | 3, _) | (_, b'\n') => return Err(bad("a line that does not end in CRLF")),
                (_, 0..=8 | 11..=31 | 127) => return Err(bad("a control character")),
                _ => 0,
            };
            taken += 1;
            if self.ending == 4 {
                break;
            }
        }
        let (head, rest) = input.split_at(taken);
        self.bytes.extend_from_slice(head);
        *input = rest;
        Ok(self.ending == 4)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A handshake that is in order.
#[derive(Debug)]
pub struct Request<'a> {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    pub origin: Option<&'a [u8]>,
    /// The values of all `X-Forwarded-For` headers, in their order.
    pub forwarded_for: Vec<&'a [u8]>,
}

/// Checks a complete head.
pub fn check(head: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::HeaderTooLarge.into()),
        Ok(Status::Partial) | Err(_) => return Err(Refused::BadRequest.into()),
    }
    if request.method != Some("GET") {
        return Err(Refused::Method.into());
    }
    if request.version != Some(1) {
        return Err(bad("the version must be 1.1"));
    }
    if !request.path.is_some_and(|target| target.starts_with('/')) {
        return Err(bad("the request target must be a path"));
    }
    let headers: &[Header<'_>] = request.headers;
    check_message(headers)?;
    if !lists(headers, "Upgrade", "websocket") || !lists(headers, "Connection", "upgrade") {
        return Err(Refused::NotUpgrade.into());
    }
    check_version(headers)?;
    let accept = accept_key(headers)?;
    let mut origins = values(headers, "Origin");
    let origin = origins.next();
    if origins.next().is_some() {
        return Err(bad("more than one Origin"));
    }
    let forwarded_for = values(headers, "X-Forwarded-For").collect();
    Ok(Request { accept, origin, forwarded_for })
}

/// The answer to an accepted request. Extensions and subprotocols that were offered are ignored.
pub fn switching_protocols(accept: &str) -> Frame {
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    response.into_bytes().into()
}

/// What any HTTP/1.1 request needs, and that it has no body: the bytes behind it are frames.
fn check_message(headers: &[Header<'_>]) -> Result<(), Refusal> {
    if single(headers, "Host").is_none() {
        return Err(bad("there must be one Host"));
    }
    let has_length = values(headers, "Content-Length").next().is_some();
    if has_length && single(headers, "Content-Length") != Some(b"0") {
        return Err(bad("a handshake has no body"));
    }
    if values(headers, "Transfer-Encoding").next().is_some() {
        return Err(bad("a handshake has no body"));
    }
    Ok(())
}

fn check_version(headers: &[Header<'_>]) -> Result<(), Refusal> {
    match single(headers, "Sec-WebSocket-Version") {
        Some(b"13") => Ok(()),
        Some(version) if !version.is_empty() && version.iter().all(u8::is_ascii_digit) => {
            Err(Refused::Version.into())
        }
        _ => Err(bad("there must be one Sec-WebSocket-Version, a number")),
    }
}

/// The value of `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
fn accept_key(headers: &[Header<'_>]) -> Result<String, Refusal> {
    // A key is a nonce: nobody minds what its last character's unused bits are.
    const KEY: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let key = single(headers, "Sec-WebSocket-Key")
        .filter(|key| key.len() == 24 && KEY.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let key = key.ok_or(bad("there must be one Sec-WebSocket-Key, 16 bytes in base64"))?;
    let hash = Sha1::new()
        .chain_update(key)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    Ok(STANDARD.encode(hash))
}

/// The values of all headers of that name (any case).
fn values<'h, 'b>(
    headers: &'h [Header<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

/// The value of the header of that name, if there is exactly one.
fn single<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether the comma-separated lists in all headers of that name hold a token (any case).
fn lists(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const GOOD: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    /// The accept key or the reason of the refusal, and how many bytes are left.
    fn feed(
        stream: &[u8],
        bytes_max: usize,
        mut piece: impl FnMut() -> usize,
    ) -> Result<Option<(String, usize)>, Refused> {
        let mut head = Head::default();
        let mut left = stream;
        while !left.is_empty() {
            let (mut input, rest) = left.split_at(piece().clamp(1, left.len()));
            left = rest;
            if head.take(&mut input, bytes_max).map_err(|refusal| refusal.reason)? {
                let request = check(head.bytes()).map_err(|refusal| refusal.reason)?;
                return Ok(Some((request.accept, input.len() + left.len())));
            }
            assert!(input.is_empty());
        }
        Ok(None)
    }

    fn whole(stream: &[u8], bytes_max: usize) -> Result<Option<(String, usize)>, Refused> {
        let result = feed(stream, bytes_max, || usize::MAX);
        assert_eq!(feed(stream, bytes_max, || 1), result);
        let mut random = Random::seeded(stream.len() as u64);
        assert_eq!(feed(stream, bytes_max, || random.number() as usize % 30), result);
        result
    }

    fn judge(request: &str) -> Result<(), Refused> {
        whole(request.as_bytes(), 16_384).map(|accepted| assert!(accepted.is_some(), "{request}"))
    }

    #[test]
    fn the_sample_of_the_rfc_is_accepted_and_frames_behind_it_are_left() {
        let accepted = whole(&[GOOD.as_bytes(), b"\x81\x80"].concat(), 16_384).unwrap();
        assert_eq!(accepted, Some(("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(), 2)));
        assert_eq!(whole(&GOOD.as_bytes()[..GOOD.len() - 1], 16_384), Ok(None));
        let response = switching_protocols("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(response.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(response.ends_with(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
    }

    #[test]
    fn lists_cases_and_many_headers_are_fine() {
        let request = GOOD
            .replace("Upgrade: websocket", "UPGRADE: h2c\r\nupgrade: foo , WebSocket")
            .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE\r\nContent-Length: 0");
        assert_eq!(judge(&request), Ok(()));
        let cookies = format!("Cookie: {}\r\n", "c".repeat(113)).repeat(60);
        assert_eq!(judge(&GOOD.replace("Upgrade:", &format!("{cookies}Upgrade:"))), Ok(()));
        assert_eq!(judge(&GOOD.replace("Host: example.com", "Host:")), Ok(()));
        assert_eq!(judge(&GOOD.replace("/chat?x=1", "/")), Ok(()));
    }

    #[test]
    fn everything_else_is_refused() {
        use Refused::*;
        let cases = [
            ("GET /", "POST /", Method),
            ("GET /", "get /", Method),
            ("GET /", "GET  /", BadRequest),
            ("GET /", "GET http://x/", BadRequest),
            ("GET /", "GET * /", BadRequest),
            ("HTTP/1.1", "HTTP/1.0", BadRequest),
            ("HTTP/1.1", "HTTP/2.0", BadRequest),
            ("HTTP/1.1", "http/1.1", BadRequest),
            ("x=1 HTTP", "x=\u{1} HTTP", BadRequest),
            ("x=1 HTTP", "x= 1 HTTP", BadRequest),
            ("Host: example.com\r\n", "", BadRequest),
            ("Host: ", "Host: a\r\nHost: ", BadRequest),
            ("Upgrade: websocket\r\n", "", NotUpgrade),
            ("websocket\r\n", "websockets\r\n", NotUpgrade),
            ("Connection: Upgrade", "Connection: close", NotUpgrade),
            ("-Version: 13", "-Version: 12", Version),
            ("-Version: 13", "-Version: 8", Version),
            ("-Version: 13", "-Version: 13, 8", BadRequest),
            ("-Version: 13", "-Version: x", BadRequest),
            ("-Version: 13", "-Version:", BadRequest),
            ("Sec-WebSocket-Version: 13\r\n", "", BadRequest),
            ("Host", "Sec-WebSocket-Version: 13\r\nHost", BadRequest),
            ("Host", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost", BadRequest),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", BadRequest),
            ("b25jZQ==", "b25jZQ=", BadRequest),
            ("b25jZQ==", "b25jZWU=", BadRequest),
            ("b25jZQ==", "b25jZ!==", BadRequest),
            ("Host", "Ho st", BadRequest),
            ("Host:", "Host :", BadRequest),
            ("Host: ", ": x\r\nHost: ", BadRequest),
            ("Host: ", "no colon\r\nHost: ", BadRequest),
            ("Host: ", " Host: ", BadRequest),
            ("example.com\r\n", "example.com\r", BadRequest),
            ("example.com\r\n", "example.com\n", BadRequest),
            ("example.com", "exa\0mple.com", BadRequest),
            ("Host", "Content-Length: 5\r\nHost", BadRequest),
            ("Host", "Content-Length: -1\r\nHost", BadRequest),
            ("Host", "Content-Length: no\r\nHost", BadRequest),
            ("Host", "Content-Length: 0\r\nContent-Length: 0\r\nHost", BadRequest),
            ("Host", "Transfer-Encoding: chunked\r\nHost", BadRequest),
            ("Host", "Origin: a\r\nOrigin: a\r\nHost", BadRequest),
        ];
        for (good, wrong, reason) in cases {
            let request = GOOD.replacen(good, wrong, 1);
            assert_ne!(request, GOOD, "{good}");
            assert_eq!(judge(&request), Err(reason), "{wrong}");
        }
        assert_eq!(judge(&GOOD.replace("\r\n", "\r")), Err(BadRequest));
        assert_eq!(judge("\r\n\r\n"), Err(BadRequest));
        let many = "A: b\r\n".repeat(HEADERS_MAX);
        assert_eq!(judge(&GOOD.replace("Host", &format!("{many}Host"))), Err(HeaderTooLarge));
    }

    #[test]
    fn the_limit_counts_the_whole_head_and_nothing_behind_it() {
        let stream = [GOOD.as_bytes(), &[b'x'; 500]].concat();
        assert!(whole(&stream, GOOD.len()).is_ok());
        assert_eq!(whole(&stream, GOOD.len() - 1), Err(Refused::HeaderTooLarge));
    }

    #[test]
    fn a_refusal_is_a_whole_answer() {
        use Refused::*;
        let all = [
            (BadRequest, "400"),
            (Method, "405"),
            (NotUpgrade, "426"),
            (Version, "426"),
            (Origin, "403"),
            (HeaderTooLarge, "431"),
            (Timeout, "408"),
            (TooMany, "503"),
            (TooManyFromAddress, "429"),
            (NotReady, "503"),
        ];
        for (reason, status) in all {
            let response = Refusal::from(reason).response();
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Response::new(&mut headers);
            let Ok(Status::Complete(head)) = parsed.parse(&response) else { panic!("{reason:?}") };
            assert_eq!(parsed.code.unwrap().to_string(), status);
            let body = (response.len() - head).to_string();
            assert_eq!(single(parsed.headers, "content-length"), Some(body.as_bytes()));
            assert!(lists(parsed.headers, "connection", "close"));
            let has = |name| single(parsed.headers, name).is_some();
            assert_eq!(has("Allow"), status == "405");
            assert_eq!(has("Upgrade"), reason == NotUpgrade);
            assert_eq!(has("Sec-WebSocket-Version"), reason == Version);
            assert_eq!(has("Retry-After"), matches!(status, "503" | "429"));
        }
    }

    #[test]
    fn origin_and_forwarded_addresses_are_handed_on() {
        let more = "Origin: https://a.example\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n\
            x-forwarded-for: 3.3.3.3\r\nHost";
        let request = GOOD.replace("Host", more);
        let request = check(request.as_bytes()).unwrap();
        assert_eq!(request.origin, Some(&b"https://a.example"[..]));
        assert_eq!(request.forwarded_for, [&b"1.1.1.1, 2.2.2.2"[..], b"3.3.3.3"]);
    }
}
