//! What must hold for any bytes from outside: the bodies of the fuzz targets.
//!
//! They live here so that plain `cargo test` compiles them and replays the kept corpora in
//! `fuzz/corpus/`, each folder named like its target. The targets themselves are in
//! `fuzz/fuzz_targets/`, a line each; they measure memory as well. A body panics where a property
//! is broken.

use std::borrow::Cow;
use std::fmt::Debug;

use serde_json::value::RawValue;

use crate::config::{self, ConfigError};
use crate::limits::HEADERS_MAX;
use crate::outbox::Frame;
use crate::random::Random;
use crate::wire::resp::{self, Parser, Value};
use crate::wire::ws::{self, Codec, Contexts, Event};

mod events;
mod http;
mod machines;
mod requests;
#[cfg(feature = "tls")]
mod tls;

pub use events::{client_event, json, service_event};
pub use http::http_response;
pub use machines::{broker, client, redis, scrape};
pub use requests::{http_request, upgrade};
#[cfg(feature = "tls")]
pub use tls::tls;

/// A body: takes any bytes, panics where a property is broken.
pub type Body = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("broker", broker),
    ("client", client),
    ("client_event", client_event),
    ("config", config),
    ("http_request", http_request),
    ("http_response", http_response),
    ("json", json),
    ("redis", redis),
    ("resp", resp),
    ("scrape", scrape),
    ("service_event", service_event),
    #[cfg(feature = "tls")]
    ("tls", tls),
    ("upgrade", upgrade),
    ("ws", ws),
];

/// Small, so that a fuzzer finds what is past it.
const BYTES_MAX: usize = 600;

/// So large that every declared length passes: memory must follow what comes all the same.
const LIMITLESS: usize = usize::MAX / 8;

/// Feeds the same bytes whole, one by one and in random pieces. The outcome must be the same.
fn in_all_cuts<T: PartialEq + Debug>(data: &[u8], run: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = run(&[data]);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte");
    let mut random = Random::seeded(data.len() as u64);
    for _ in 0..2 {
        assert_eq!(run(&random_pieces(data, &mut random)), whole, "in random pieces");
    }
    whole
}

fn random_pieces<'a>(data: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        // Short pieces are likelier, empty ones are possible.
        let most = 1 << (random.number() % 8);
        let (piece, behind) = rest.split_at((random.number() as usize % most).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// A configuration is read alike however often, whatever comment follows it and however it is
/// spaced; what is said about a wrong one is a line per error, without what the environment gave.
pub fn config(data: &[u8]) {
    const SECRET: &str = "of-the-environment";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = |name: &str| (name.len() == 1).then(|| SECRET.to_owned());
    let parsed = config::parse(text, &environment);
    assert_eq!(config::parse(text, &environment), parsed);
    let commented = config::parse(&format!("{text}\n// {{"), &environment);
    if let Ok(value) = serde_json::from_str::<&RawValue>(text) {
        let again = config::parse(&events::spaced(value.get()), &environment);
        assert_eq!(again, parsed);
    }
    match parsed {
        Ok(config) => {
            for service in &config.services {
                assert_eq!(config.service(&service.name), Some(service));
            }
            assert_eq!(commented, Ok(config));
        }
        Err(errors) => {
            assert!(!errors.is_empty() && commented.is_err());
            for line in errors.iter().map(ConfigError::to_string) {
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(!line.contains(SECRET) || text.contains(SECRET), "{line:?}");
            }
        }
    }
}

/// The same values and fault in all cuts; none larger than what came; each can be read and is the
/// same once written again, a command as well.
pub fn resp(data: &[u8]) {
    let (values, _) = in_all_cuts(data, |pieces| resp_values(pieces, BYTES_MAX));
    resp_values(&[data], LIMITLESS);
    assert!(values.iter().map(Vec::len).sum::<usize>() <= data.len());
    for whole in &values {
        let value = Value::read(whole).expect("what the parser hands out is whole");
        let written = written(value.clone());
        assert!(written.len() <= whole.len(), "the shortest form");
        let again = read_again(&written);
        assert_eq!(self::written(Value::read(&again).expect("a value")), written);
        let Value::Array(items) = value else { continue };
        let words: Option<Vec<&[u8]>> = items.map(bulk).collect();
        let Some(words) = words else { continue };
        let mut command = Vec::new();
        resp::push_command(&mut command, &words);
        let again = read_again(&command);
        let Some(Value::Array(items)) = Value::read(&again) else { panic!("a command") };
        assert_eq!(items.map(bulk).collect::<Option<Vec<_>>>(), Some(words));
    }
}

/// The one value that these bytes are.
fn read_again(bytes: &[u8]) -> Vec<u8> {
    let (mut again, fault) = resp_values(&[bytes], BYTES_MAX);
    assert!(fault.is_none() && again.len() == 1, "{again:?} {fault:?}");
    again.remove(0)
}

/// A value as a server writes it. What is being written is a stack: the last item comes first.
fn written(value: Value<'_>) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), vec![value]);
    while let Some(value) = left.pop() {
        match value {
            Value::Simple(text) => out.extend([b"+", text, b"\r\n"].concat()),
            Value::Error(text) => out.extend([b"-", text, b"\r\n"].concat()),
            Value::Integer(number) => out.extend(format!(":{number}\r\n").as_bytes()),
            Value::Null => out.extend(b"$-1\r\n"),
            Value::Bulk(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).as_bytes());
                out.extend([bytes, b"\r\n"].concat());
            }
            Value::Array(items) => {
                let items: Vec<Value<'_>> = items.collect();
                out.extend(format!("*{}\r\n", items.len()).as_bytes());
                left.extend(items.into_iter().rev());
            }
        }
    }
    out
}

fn bulk(value: Value<'_>) -> Option<&[u8]> {
    if let Value::Bulk(bytes) = value { Some(bytes) } else { None }
}

fn resp_values(pieces: &[&[u8]], bytes_max: usize) -> (Vec<Vec<u8>>, Option<resp::Fault>) {
    let mut parser = Parser::new(bytes_max);
    let mut values = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match parser.next(&mut piece) {
                Ok(Some(value)) => values.push(value.into_owned()),
                Ok(None) => break,
                Err(fault) => return (values, Some(fault)),
            }
        }
        assert!(piece.is_empty(), "all is taken");
    }
    (values, None)
}

fn assert_is_response(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = httparse::Response::new(&mut headers).parse(bytes);
    assert!(parsed.is_ok_and(|parsed| parsed.is_complete()), "{}", bytes.escape_ascii());
}

/// The same events and fault in all cuts; no more in messages than came; the events, sent once
/// more, are the same; a text that is written and sent back arrives as it was.
pub fn ws(data: &[u8]) {
    let (events, _) = in_all_cuts(data, |pieces| ws_events(pieces, BYTES_MAX));
    ws_events(&[data], LIMITLESS);
    assert!(events.iter().map(message_len).sum::<usize>() <= data.len());
    let again: Vec<u8> = events.iter().flat_map(|event| masked(&frame(event), *b"mask")).collect();
    assert_eq!(ws_events(&[&again], BYTES_MAX), (events, None));
    let lossy: Cow<'_, str> = String::from_utf8_lossy(data);
    let sent = ws::encode_text(&lossy);
    let (echoed, fault) = ws_events(&[&masked(&sent, [0; 4])], BYTES_MAX);
    if lossy.len() > BYTES_MAX {
        assert_eq!(fault, Some(ws::Fault::TooBig));
    } else {
        assert_eq!(echoed.iter().map(text).collect::<Vec<_>>(), [Some(&*lossy)]);
    }
}

/// The event as one frame of ours.
fn frame(event: &Event) -> Frame {
    match event {
        Event::Text(text) => ws::encode_text(text),
        Event::Binary(bytes) => ws::encode_binary(bytes),
        Event::Ping(payload) => ws::ping(payload),
        Event::Pong(payload) => {
            let mut frame = Vec::new();
            ws::push_pong(&mut frame, payload);
            frame.into()
        }
        Event::Close(code) => ws::close(*code),
    }
}

fn text(event: &Event) -> Option<&str> {
    if let Event::Text(text) = event { Some(text) } else { None }
}

fn message_len(event: &Event) -> usize {
    match event {
        Event::Text(text) => text.len(),
        Event::Binary(bytes) => bytes.len(),
        Event::Ping(_) | Event::Pong(_) | Event::Close(_) => 0,
    }
}

/// Events up to a fault or the peer's Close, after which nothing counts.
fn ws_events(pieces: &[&[u8]], bytes_max: usize) -> (Vec<Event>, Option<ws::Fault>) {
    let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
    let mut events = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match codec.next(&mut piece, bytes_max, &mut contexts) {
                Ok(Some(event)) => {
                    let is_last = matches!(event, Event::Close(_));
                    events.push(event);
                    if is_last {
                        return (events, None);
                    }
                }
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
        assert!(piece.is_empty(), "all is taken");
    }
    (events, None)
}

/// A server's frame as a client would send it.
fn masked(frame: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header_len = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let (header, payload) = frame.split_at(header_len);
    let mut out = header.to_vec();
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpora_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let folders = fs::read_dir(&corpora).unwrap().count();
        let left_out = usize::from(cfg!(not(feature = "tls")));
        assert_eq!(folders, TARGETS.len() + left_out, "each corpus has its target");
        for (name, body) in TARGETS {
            let folder = corpora.join(name);
            let files = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display()));
            let mut count = 0;
            for file in files {
                let file = file.unwrap().path();
                // Shown only where the body panics.
                println!("{}", file.display());
                body(&fs::read(&file).unwrap());
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }

    /// Each is a beginning and what follows it again and again.
    const LONG_INPUTS: [(&str, &[u8], &[u8]); 24] = [
        (
            "broker",
            b"HELLO 3 AUTH default p\r\nPSUBSCRIBE *aaaaaaaab\r\n",
            b"PUBLISH aaaaaaaaac x\r\n",
        ),
        ("broker", b"AUTH p\r\nMULTI\r\n", b"PING\r\n"),
        ("client", UPGRADE, b"\x89\x80mask"),
        ("client", UPGRADE, b"\x01\x80mask\x80\x80mask"),
        ("client_event", b"{", b"\"\":0,"),
        ("client_event", b"{\"event\":\"", b"\\ud83e"),
        ("config", b"", b"// \"\n"),
        ("config", b"{\"WS_TRUSTED_PROXIES\":[", b"1,"),
        ("http_request", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("http_response", b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        ("http_response", b"", b"HTTP/1.1 204 \r\n\r\n"),
        ("http_response", b"HTTP/1.1 200 \r\n", b"a:\n"),
        ("json", b"", b"["),
        ("json", b"{\"a\":\"", b"\\\\"),
        ("redis", b"+PONG\r\n", b"*3\r\n$7\r\nmessage\r\n$3\r\np:a\r\n$0\r\n\r\n"),
        ("resp", b"", b"*0\r\n"),
        ("resp", b"*99999\r\n", b"*1\r\n*1\r\n:1\r\n"),
        ("scrape", b"", b"\r\n"),
        ("service_event", b"{\"data\":[", b"{\"\":0},"),
        ("service_event", b"{\"options\":{\"order\":\"", b"1_0"),
        ("upgrade", b"GET / HTTP/1.1\r\nX: ", b"x"),
        ("ws", b"", b"\x81\x80mask"),
        ("ws", b"\x01\x80mask", b"\x00\x80mask"),
        ("ws", b"\x01\x80mask", b"\x00\x81\0\0\0\0\xc3\x00\x81\0\0\0\0\xa9"),
    ];
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// All that the bodies assert holds for these too; what took the square of its input would hang
    /// here for minutes.
    #[test]
    fn long_inputs_hold() {
        for (target, start, unit) in LONG_INPUTS {
            let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
            let input = [start, &unit.repeat(100_000 / unit.len())].concat();
            body(&input);
        }
    }

    #[test]
    fn every_target_is_built() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml: {name}");
            let target = folder.join(format!("fuzz_targets/{name}.rs"));
            let text = fs::read_to_string(&target).unwrap_or_default();
            assert!(text.contains(&format!("fuzzing::{name})")), "{}", target.display());
            assert!(folder.join(format!("dictionaries/{name}.dict")).exists(), "{name}");
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let data: Vec<u8> = (0..200).collect();
        let whole = in_all_cuts(&data, |pieces| pieces.concat());
        assert_eq!(whole, data);
    }
}
