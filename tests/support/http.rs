//! HTTP heads, as client and service need them: the start line, the headers, a body by its length.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::wait::PATIENCE;

/// The start line and headers of a request or an answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Head {
    pub start: String,
    /// As sent.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// `None`: the peer closed before a whole head came.
    pub fn read(from: &mut impl BufRead) -> Option<Head> {
        let start = read_line(from)?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                return Some(Head { start, headers });
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The header's value; of the first, where it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{:?}", self.start))
    }
}

fn read_line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    Some(line.strip_suffix("\r\n")?.to_owned())
}

/// Sends raw bytes to a port and reads the answer: head and body, up to the closing or the length.
/// `None`: closed without a whole head.
#[track_caller]
pub fn exchange(port: u16, request: &[u8]) -> Option<(Head, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The peer may refuse before it has read all.
    let _ = stream.write_all(request);
    read_answer(&mut BufReader::new(stream))
}

/// The same for an answer that has no body, whatever its length says.
#[track_caller]
pub fn exchange_head(port: u16, request: &[u8]) -> Option<(Head, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let mut input = BufReader::new(stream);
    let head = Head::read(&mut input)?;
    let mut rest = Vec::new();
    input.read_to_end(&mut rest).ok()?;
    Some((head, String::from_utf8(rest).unwrap()))
}

pub fn read_answer(from: &mut impl BufRead) -> Option<(Head, String)> {
    let head = Head::read(from)?;
    let mut body = Vec::new();
    match head.header("Content-Length") {
        Some(length) => {
            body.resize(length.parse().unwrap(), 0);
            from.read_exact(&mut body).ok()?;
        }
        None => {
            from.read_to_end(&mut body).ok()?;
        }
    }
    Some((head, String::from_utf8(body).unwrap()))
}

/// `GET path` on a port.
#[track_caller]
pub fn get(port: u16, path: &str) -> (Head, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    exchange(port, request.as_bytes()).unwrap_or_else(|| panic!("GET {path}: no answer"))
}
