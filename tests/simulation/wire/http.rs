//! HTTP/1.1 requests as a service reads them, strictly.

/// One callback as it came over the wire.
pub struct Request {
    pub path: String,
    pub body: String,
}

/// Reads the requests of one connection.
#[derive(Default)]
pub struct Requests {
    bytes: Vec<u8>,
}

impl Requests {
    pub fn push(&mut self, bytes: &[u8]) -> Option<Request> {
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.bytes[..end]).expect("a head is ASCII").to_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().expect("a request line").split(' ');
        assert_eq!(first.next(), Some("POST"), "callbacks are POSTs");
        let path = first.next().expect("a target").to_owned();
        assert_eq!(first.next(), Some("HTTP/1.1"));
        let headers: Vec<(&str, &str)> =
            lines.map(|line| line.split_once(": ").expect("a header line")).collect();
        let only = |name: &str| {
            let mut found =
                headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|it| it.1);
            let value = found.next().unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(found.next(), None, "{name} comes once");
            value
        };
        assert!(only("content-type").starts_with("application/json"));
        assert!(only("user-agent").starts_with("socketshark/"));
        assert!(only("host").starts_with(path.split('/').nth(1).unwrap_or("?")), "the right host");
        let len: usize = only("content-length").parse().expect("a length");
        let body = self.bytes.get(end + 4..end + 4 + len)?.to_vec();
        self.bytes.drain(..end + 4 + len);
        let body = String::from_utf8(body).expect("a body is UTF-8");
        Some(Request { path, body })
    }

    /// Whether nothing of a next request has come.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
