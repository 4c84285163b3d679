//! HTTP/1.1 requests as a server reads them (RFC 9112): bytes in, whole requests out.
//!
//! For peers that send small bodies with a Content-Length, as browsers and the router do. What is
//! understood by halves is refused: the connection ends, and nothing behind it is read.

use crate::limits::HEADERS_MAX;
use crate::metrics::Refused;
use crate::wire::upgrade::Head;

/// One request.
#[derive(PartialEq, Eq, Debug)]
pub struct Incoming {
    pub method: String,
    /// The path of the target, without its query.
    pub path: String,
    /// `Host`, as sent.
    pub host: String,
    /// `Origin`, as sent: whose page made the request.
    pub origin: Option<String>,
    /// `Content-Type` without its parameters, in lower case; empty if there is none.
    pub media_type: String,
    /// Another request may follow on this connection.
    pub keep_alive: bool,
    pub body: Vec<u8>,
}

/// A request that is answered with this status, after which the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub u16);

/// How large a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub head_bytes: usize,
    pub body_bytes: usize,
}

/// Reads one request after the other.
pub struct Reader {
    bounds: Bounds,
    state: State,
}

enum State {
    Head(Head),
    /// So many bytes of the body are still to come.
    Body(Incoming, usize),
}

impl Reader {
    pub fn new(bounds: Bounds) -> Reader {
        Reader { bounds, state: State::Head(Head::default()) }
    }

    /// Whether a request has begun and is not complete.
    pub fn is_inside(&self) -> bool {
        match &self.state {
            State::Head(head) => !head.bytes().is_empty(),
            State::Body(..) => true,
        }
    }

    /// The next request; what is behind it stays in `input`. `None`: the input is used up.
    ///
    /// # Errors
    /// The status to answer with. The reader is of no more use.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, Refusal> {
        if let State::Head(head) = &mut self.state {
            let complete = head.take(input, self.bounds.head_bytes).map_err(|refusal| {
                Refusal(if refusal.reason == Refused::HeaderTooLarge { 431 } else { 400 })
            })?;
            if !complete {
                return Ok(None);
            }
            let (request, length) = parse(head.bytes())?;
            if length > self.bounds.body_bytes {
                return Err(Refusal(413));
            }
            self.state = State::Body(request, length);
        }
        let State::Body(request, missing) = &mut self.state else { return Ok(None) };
        let (part, rest) = input.split_at(input.len().min(*missing));
        *input = rest;
        *missing -= part.len();
        request.body.extend_from_slice(part);
        if *missing > 0 {
            return Ok(None);
        }
        match std::mem::replace(&mut self.state, State::Head(Head::default())) {
            State::Body(request, _) => Ok(Some(request)),
            State::Head(_) => Ok(None),
        }
    }
}

/// Reads a complete head: the request without its body, and the body's length.
fn parse(head: &[u8]) -> Result<(Incoming, usize), Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal(431)),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal(400)),
    }
    let target = request.path.filter(|target| target.starts_with('/')).ok_or(Refusal(400))?;
    let path = target.split_once('?').map_or(target, |(path, _)| path).to_owned();
    let headers = &*request.headers;
    // A length unlike Content-Length's, and a request to be told to go on: nobody here sends them.
    if only(headers, "Transfer-Encoding")?.is_some() {
        return Err(Refusal(411));
    }
    if only(headers, "Expect")?.is_some() {
        return Err(Refusal(417));
    }
    let length = match only(headers, "Content-Length")? {
        None => 0,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| Refusal(if digits.is_empty() { 400 } else { 413 }))?
        }
        Some(_) => return Err(Refusal(400)),
    };
    let media_type = only(headers, "Content-Type")?.unwrap_or_default();
    let media_type = media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type);
    let incoming = Incoming {
        method: request.method.unwrap_or_default().to_owned(),
        path,
        host: only(headers, "Host")?.ok_or(Refusal(400))?.to_owned(),
        origin: only(headers, "Origin")?.map(str::to_owned),
        media_type: media_type.trim().to_ascii_lowercase(),
        keep_alive: request.version == Some(1) && !says_close(headers),
        body: Vec::new(),
    };
    Ok((incoming, length))
}

/// The value of a header that may be there once.
fn only<'a>(headers: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let Some(header) = found.next() else { return Ok(None) };
    let value = std::str::from_utf8(header.value).map_err(|_| Refusal(400))?;
    if found.next().is_some() { Err(Refusal(400)) } else { Ok(Some(value)) }
}

fn says_close(headers: &[httparse::Header<'_>]) -> bool {
    let lists = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Connection"));
    lists
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const BOUNDS: Bounds = Bounds { head_bytes: 256, body_bytes: 16 };

    /// What comes of these pieces, in words: requests, then a refusal or that more is wanted.
    fn outcome<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut reader, mut told) = (Reader::new(BOUNDS), Vec::new());
        for mut piece in pieces {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(request)) => {
                        let body = String::from_utf8_lossy(&request.body).into_owned();
                        let Incoming { method, path, host, origin, media_type, keep_alive, .. } =
                            request;
                        let origin = origin.unwrap_or_default();
                        let after = if keep_alive { "+" } else { "." };
                        told.push(format!(
                            "{method} {path} {host} {origin} {media_type} {body}{after}"
                        ));
                    }
                    Ok(None) => break,
                    Err(Refusal(status)) => {
                        told.push(status.to_string());
                        return told;
                    }
                }
            }
            assert!(piece.is_empty(), "all input is taken");
        }
        if reader.is_inside() {
            told.push("more".to_owned());
        }
        told
    }

    fn cases() -> Vec<(String, Vec<&'static str>)> {
        let with =
            |more: &str, body: &str| format!("POST /a HTTP/1.1\r\nHost: h\r\n{more}\r\n{body}");
        vec![
            (with("", ""), vec!["POST /a h   +"]),
            (with("Content-Length: 3\r\n", "abc"), vec!["POST /a h   abc+"]),
            (with("Content-Length: 3\r\n", "ab"), vec!["more"]),
            (
                with("Content-Length: 1\r\nOrigin: o\r\n", "a")
                    + &with("Connection: x, CLOSE\r\n", ""),
                vec!["POST /a h o  a+", "POST /a h   ."],
            ),
            (with("Content-Type: Text/JSON ; a=b\r\n", ""), vec!["POST /a h  text/json +"]),
            ("GET /?x HTTP/1.0\r\nHost: h:1\r\n\r\n".to_owned(), vec!["GET / h:1   ."]),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), vec!["400"]),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), vec!["400"]),
            ("GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), vec!["400"]),
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), vec!["400"]),
            ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), vec!["400"]),
            (with("Content-Length: 17\r\n", ""), vec!["413"]),
            (with("Content-Length: 99999999999999999999\r\n", ""), vec!["413"]),
            (with("Content-Length: +1\r\n", "a"), vec!["400"]),
            (with("Content-Length:\r\n", "a"), vec!["400"]),
            (with("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), vec!["400"]),
            (with("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), vec!["411"]),
            (with("Expect: 100-continue\r\nContent-Length: 1\r\n", ""), vec!["417"]),
            (with(&format!("X: {}\r\n", "x".repeat(256)), ""), vec!["431"]),
            ("\u{16}\u{3}\u{1}".to_owned(), vec!["400"]),
            (String::new(), vec![]),
        ]
    }

    #[test]
    fn requests_are_the_same_however_they_are_cut() {
        let mut random = Random::seeded(9112);
        for (text, expected) in cases() {
            let bytes = text.as_bytes();
            assert_eq!(outcome([bytes].into_iter()), expected, "{text}");
            assert_eq!(outcome(bytes.chunks(1)), expected, "{text}");
            for _ in 0..20 {
                let cut = 1 + random.number() as usize % bytes.len().max(1);
                assert_eq!(outcome(bytes.chunks(cut)), expected, "{text} by {cut}");
            }
        }
    }

    #[test]
    fn close_is_found_beside_bytes_that_are_no_text() {
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: \xff, close\r\n\r\n";
        assert_eq!(outcome([&request[..]].into_iter()), ["GET / h   ."]);
    }

    #[test]
    fn any_bytes_give_requests_or_a_refusal() {
        let mut random = Random::seeded(7);
        let seed = b"POST /a?b HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}";
        for _ in 0..2_000 {
            let mut bytes = seed.repeat(2);
            for _ in 0..=random.number() % 3 {
                let at = random.number() as usize % bytes.len();
                bytes[at] = random.number() as u8;
            }
            let whole = outcome([&bytes[..]].into_iter());
            assert_eq!(outcome(bytes.chunks(1)), whole, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
