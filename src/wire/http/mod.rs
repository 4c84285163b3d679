//! HTTP/1.1 (RFC 9110, RFC 9112) as a client speaks it, requests out and responses in; and requests
//! as a server reads them.

use std::fmt;

pub mod body;
pub mod incoming;
pub mod location;
pub mod request;
pub mod response;

pub use request::Request;
pub use response::{Content, Head, Reader, Response, Rules};

/// What the server did wrong. The connection is of no more use after any of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The first bytes are not those of an HTTP/1.x status line.
    NotHttp,
    /// A status line or header line that RFC 9112 does not allow.
    BadHead,
    /// More than `HEADERS_MAX` header lines.
    TooManyHeaders,
    /// All heads of one answer together are over `RESPONSE_HEAD_BYTES_MAX`.
    HeadTooLarge,
    /// A status below 100.
    BadStatus,
    /// 101: nobody asked for another protocol.
    SwitchedProtocols,
    /// A Content-Length that is no single number below 2^63.
    BadLength,
    /// A Transfer-Encoding other than `chunked` alone, or in an HTTP/1.0 response.
    BadCoding,
    /// Content-Length and Transfer-Encoding together.
    TwoLengths,
    BadChunk,
    /// Trailers over `RESPONSE_HEAD_BYTES_MAX`.
    TrailersTooLarge,
    /// The body as sent, chunk framing included, is over the limit.
    BodyTooLarge,
    /// The connection ended inside a response.
    CutShort,
    /// The connection ended before the first byte of a response.
    NoResponse,
    /// Bytes came before the request had been sent.
    Unasked,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NotHttp => "the answer is not HTTP/1.x",
            Fault::BadHead => "malformed response head",
            Fault::TooManyHeaders => "too many response headers",
            Fault::HeadTooLarge => "response head too large",
            Fault::BadStatus => "invalid status code",
            Fault::SwitchedProtocols => "status 101 without being asked to switch protocols",
            Fault::BadLength => "invalid Content-Length",
            Fault::BadCoding => "unsupported Transfer-Encoding",
            Fault::TwoLengths => "both Content-Length and Transfer-Encoding",
            Fault::BadChunk => "malformed chunk",
            Fault::TrailersTooLarge => "response trailers too large",
            Fault::BodyTooLarge => "response body over max_response_bytes",
            Fault::CutShort => "connection closed in the middle of the answer",
            Fault::NoResponse => "connection closed without an answer",
            Fault::Unasked => "the server spoke before it was asked",
        })
    }
}
