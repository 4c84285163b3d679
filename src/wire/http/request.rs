//! The one kind of request that callbacks make.

use std::io::Write as _;

/// A POST of JSON. The caller vouches for the texts: they come from the checked configuration or
/// from `location::resolve`, so none holds a line break.
pub struct Request<'a> {
    /// The value of `Host`.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The value of `Authorization`.
    pub authorization: Option<&'a str>,
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Appends the request as it goes over the wire (RFC 9112, section 3). Compression is not
    /// offered: answers are small, and what they inflate to would be hard to bound.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Request { authority, target, authorization, body } = self;
        let parts: [&[u8]; 6] = [
            b"POST ",
            target.as_bytes(),
            b" HTTP/1.1\r\nHost: ",
            authority.as_bytes(),
            concat!(
                "\r\nUser-Agent: socketshark/",
                env!("CARGO_PKG_VERSION"),
                "\r\nContent-Type: application/json\r\n"
            )
            .as_bytes(),
            b"Content-Length: ",
        ];
        out.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + 64 + body.len());
        for part in parts {
            out.extend_from_slice(part);
        }
        let _ = write!(out, "{}\r\n", body.len()); // a Vec takes everything
        if let Some(value) = authorization {
            for part in ["Authorization: ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_services_need_and_no_more() {
        let mut out = Vec::new();
        let mut request = Request {
            authority: "books:8000",
            target: "/hook?x=1",
            authorization: Some("Basic dTpw"),
            body: b"{\"a\":1}",
        };
        request.encode(&mut out);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "POST /hook?x=1 HTTP/1.1\r\nHost: books:8000\r\nUser-Agent: socketshark/{version}\r\n\
             Content-Type: application/json\r\nContent-Length: 7\r\n\
             Authorization: Basic dTpw\r\n\r\n{{\"a\":1}}"
        );
        assert_eq!(String::from_utf8_lossy(&out), expected);

        out.clear();
        request.authorization = None;
        request.encode(&mut out);
        assert!(!String::from_utf8_lossy(&out).contains("Authorization"));

        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = parsed.parse(&out).unwrap().unwrap();
        assert_eq!(&out[head..], b"{\"a\":1}");
        assert_eq!(parsed.headers.len(), 4);
    }
}
