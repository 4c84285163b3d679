//! Requests: of WebSocket clients and of those who ask the demo.

use super::{BYTES_MAX, assert_is_response, in_all_cuts};
use crate::limits::HEADERS_MAX;
use crate::wire::http::incoming::{self, Bounds, Incoming, Refusal};
use crate::wire::upgrade;

/// The same requests in all cuts, none of them over its bounds.
pub fn http_request(data: &[u8]) {
    const BOUNDS: Bounds = Bounds { head_bytes: BYTES_MAX, body_bytes: 100 };
    let (requests, _) = in_all_cuts(data, |pieces| {
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
    for Incoming { path, body, .. } in &requests {
        assert!(path.starts_with('/') && body.len() <= BOUNDS.body_bytes);
    }
}

/// The same head, rest and verdict in all cuts, and when it is written again with other cases and
/// spaces; what is answered is HTTP.
pub fn upgrade(data: &[u8]) {
    let (head, rest) = match in_all_cuts(data, request_head) {
        Ok((head, rest)) => (head, rest),
        Err(refusal) => return assert_is_response(&refusal.response()),
    };
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
    match checked {
        Ok(request) => {
            assert_eq!(request.accept.len(), 28, "20 bytes in base64");
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
