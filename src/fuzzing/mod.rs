//! What must hold for any bytes from outside: the bodies of the fuzz targets.
//!
//! They live here so that plain `cargo test` compiles them and replays the kept corpora in
//! `fuzz/corpus/`, each folder named like its target. The targets themselves are in
//! `fuzz/fuzz_targets/`, a line each. A body panics where a property is broken.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::value::RawValue;

use crate::arena::ConnId;
use crate::config::{self, BrokerConfig, Config, ConfigError, Limits};
use crate::conn::broker::{self, Broker};
use crate::conn::client::{Client, ClientContext, Heard};
use crate::limits::{COMPARED_BYTES_MAX, HEADERS_MAX, JSON_DEPTH_MAX};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::ports::{Kind, Output, Ports};
use crate::random::Random;
use crate::time::Now;
use crate::timers::Timers;
use crate::wire::http::incoming::{self, Bounds, Incoming, Refusal};
use crate::wire::http::{Reader, Response, Rules};
use crate::wire::json::{self, Object};
use crate::wire::resp::{self, Parser, Value};
use crate::wire::upgrade;
use crate::wire::ws::{self, Codec, Contexts, Event};

/// A body: takes any bytes, panics where a property is broken.
pub type Body = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Body); 9] = [
    ("broker", broker),
    ("client", client),
    ("config", config),
    ("http_request", http_request),
    ("http_response", http_response),
    ("json", json),
    ("resp", resp),
    ("upgrade", upgrade),
    ("ws", ws),
];

/// Small, so that a fuzzer finds what is past it.
const BYTES_MAX: usize = 600;

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

/// A text is taken apart just when it is a JSON object within the depth limit; its values are
/// values, and written again they are the same.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value: Option<&RawValue> = serde_json::from_str(text).ok();
    let value = value.map(RawValue::get).filter(|value| depth(value) <= JSON_DEPTH_MAX);
    let parsed = Object::parse(text);
    let expected = value.is_some_and(|value| value.starts_with('{'));
    assert_eq!(parsed.is_ok(), expected, "{parsed:?}");
    if let Some(value) = value {
        canonical(value);
    }
    let Ok(object) = parsed else { return };
    for name in ["event", "subscription", "data", "a", ""] {
        let Some(raw) = object.get(name) else { continue };
        assert!(serde_json::from_str::<&RawValue>(raw).is_ok(), "{raw}");
        let again = object.with_replaced(name, "[1]");
        let again = Object::parse(&again).expect("what was written is an object");
        assert_eq!(again.get(name), Some("[1]"));
        if let Some(text) = json::string(raw) {
            let quoted = json::quoted(&text);
            assert_eq!(json::string(&quoted), Some(text), "{quoted}");
            if quoted.len().max(raw.len()) <= COMPARED_BYTES_MAX {
                assert_eq!(json::canonical(&quoted), json::canonical(raw));
            }
        }
    }
}

/// Equal values that are not long have equal canonical forms: here one and the same value, spaced
/// otherwise.
fn canonical(value: &str) {
    let form = json::canonical(value);
    assert!(!form.is_empty());
    if spaced(value).len() <= COMPARED_BYTES_MAX {
        assert_eq!(json::canonical(&spaced(value)), form, "{value}");
    }
    assert_eq!(json::is_truthy(&spaced(value)), json::is_truthy(value), "{value}");
}

/// The value with a space wherever one may stand inside of it.
fn spaced(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    each_char(value, |index, character, in_string| {
        out.push(character);
        if !in_string && index < last && "[]{},:".contains(character) {
            out.push(' ');
        }
    });
    out
}

fn depth(value: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    each_char(value, |_, character, in_string| match character {
        '[' | '{' if !in_string => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        ']' | '}' if !in_string => depth -= 1,
        _ => {}
    });
    deepest
}

/// Calls back for every character of well-formed JSON, and whether it stands in a string.
fn each_char(value: &str, mut call: impl FnMut(usize, char, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for (index, character) in value.chars().enumerate() {
        call(index, character, in_string);
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
}

/// A configuration is read alike however often and whatever comment follows it; what is said
/// about a wrong one is a line per error, without what the environment gave.
pub fn config(data: &[u8]) {
    const SECRET: &str = "of-the-environment";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = |name: &str| (name.len() == 1).then(|| SECRET.to_owned());
    let parsed = config::parse(text, &environment);
    assert_eq!(config::parse(text, &environment), parsed);
    let commented = config::parse(&format!("{text}\n// {{"), &environment);
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

/// The same values and fault in all cuts; none larger than what came; each can be read, and the
/// words of a command are read back as they were written.
pub fn resp(data: &[u8]) {
    let (values, _) = in_all_cuts(data, resp_values);
    assert!(values.iter().map(Vec::len).sum::<usize>() <= data.len());
    for whole in &values {
        let value = Value::read(whole).expect("what the parser hands out is whole");
        let Value::Array(items) = value else { continue };
        let words: Option<Vec<&[u8]>> = items.map(bulk).collect();
        let Some(words) = words else { continue };
        let mut command = Vec::new();
        resp::push_command(&mut command, &words);
        let (again, fault) = resp_values(&[&command]);
        assert!(fault.is_none() && again.len() == 1, "{again:?} {fault:?}");
        let Some(Value::Array(items)) = Value::read(&again[0]) else { panic!("a command") };
        assert_eq!(items.map(bulk).collect::<Option<Vec<_>>>(), Some(words));
    }
}

fn bulk(value: Value<'_>) -> Option<&[u8]> {
    if let Value::Bulk(bytes) = value { Some(bytes) } else { None }
}

fn resp_values(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<resp::Fault>) {
    let mut parser = Parser::new(BYTES_MAX);
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

/// The same responses and fault in all cuts, and no body larger than what came or than allowed.
pub fn http_response(data: &[u8]) {
    let (responses, _) = in_all_cuts(data, http_responses);
    assert!(responses.iter().map(|response| response.body.len()).sum::<usize>() <= data.len());
    for response in responses {
        assert!(response.body.len() <= BYTES_MAX);
        assert!(response.body.is_empty() || response.head.is_wanted());
        assert!(!response.reusable || response.head.keeps_alive);
    }
}

/// Responses as on a connection that is kept: one after the other, then the end of the stream.
fn http_responses(pieces: &[&[u8]]) -> (Vec<Response>, Result<(), String>) {
    let names = ["X-Rate-Limit-Reset".to_owned(), "Retry-After".to_owned()];
    let rules = Rules { body_bytes_max: BYTES_MAX, rate_limit_headers: &names };
    let mut reader = Reader::default();
    let mut responses = Vec::new();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            match reader.push(piece, rules) {
                Ok(taken) => piece = &piece[taken..],
                Err(fault) => return (responses, Err(fault.to_string())),
            }
            let complete = reader.take();
            assert!(complete.is_some() || piece.is_empty(), "all is taken, or a response ends");
            responses.extend(complete);
        }
    }
    let end = reader.end().map_err(|fault| fault.to_string());
    responses.extend(reader.take());
    (responses, end)
}

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

/// The same head, rest and verdict in all cuts; what is answered is HTTP.
pub fn upgrade(data: &[u8]) {
    let (head, rest) = match in_all_cuts(data, request_head) {
        Ok((head, rest)) => (head, rest),
        Err(refusal) => return assert_is_response(&refusal.response()),
    };
    let Some(rest) = rest else { return };
    assert_eq!([head.as_slice(), rest.as_slice()].concat(), data);
    match upgrade::check(&head) {
        Ok(request) => {
            assert_eq!(request.accept.len(), 28, "20 bytes in base64");
            assert_is_response(&upgrade::switching_protocols(&request.accept));
        }
        Err(refusal) => assert_is_response(&refusal.response()),
    }
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

fn assert_is_response(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = httparse::Response::new(&mut headers).parse(bytes);
    assert!(parsed.is_ok_and(|parsed| parsed.is_complete()), "{}", bytes.escape_ascii());
}

/// The same events and fault in all cuts; no more in messages than came; a text that is written
/// and sent back arrives as it was.
pub fn ws(data: &[u8]) {
    let (events, _) = in_all_cuts(data, ws_events);
    assert!(events.iter().map(message_len).sum::<usize>() <= data.len());
    let lossy: Cow<'_, str> = String::from_utf8_lossy(data);
    let sent = ws::encode_text(&lossy);
    let (echoed, fault) = ws_events(&[&masked(&sent)]);
    if lossy.len() > BYTES_MAX {
        assert_eq!(fault, Some(ws::Fault::TooBig));
    } else {
        assert_eq!(echoed.iter().map(text).collect::<Vec<_>>(), [Some(&*lossy)]);
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
fn ws_events(pieces: &[&[u8]]) -> (Vec<Event>, Option<ws::Fault>) {
    let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
    let mut events = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match codec.next(&mut piece, BYTES_MAX, &mut contexts) {
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

/// A server's frame as a client would send it, with a mask that changes nothing.
fn masked(frame: &[u8]) -> Vec<u8> {
    let header_len = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let (header, payload) = frame.split_at(header_len);
    let mut out = header.to_vec();
    out[1] |= 0x80;
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// A client that is admitted hears and says the same in all cuts; what it says is one HTTP
/// response, then whole frames, and nothing after a Close.
pub fn client(data: &[u8]) {
    let played = in_all_cuts(data, play_client);
    let sent = played.sent.as_slice();
    let Some(end) = sent.windows(4).position(|window| window == b"\r\n\r\n") else {
        return assert!(sent.is_empty(), "{}", sent.escape_ascii());
    };
    assert_is_response(sent);
    let mut frames = &sent[end + 4..];
    if !sent.starts_with(b"HTTP/1.1 101 ") {
        return assert!(frames.ends_with(b"\n"), "a refusal has a text");
    }
    while let [first, len @ 0..=125, rest @ ..] = frames {
        frames = rest.get(usize::from(*len)..).expect("frames are whole");
        assert!(matches!(first, 0x88 | 0x8a), "a pong or a Close, not 0x{first:x}");
        assert!(*first == 0x8a || frames.is_empty(), "nothing follows a Close");
    }
    assert!(frames.is_empty(), "{}", frames.escape_ascii());
}

/// What a client was heard to say and what was done about it.
#[derive(PartialEq, Debug)]
struct Played {
    heard: Vec<Heard>,
    outputs: Vec<Output>,
    sent: Vec<u8>,
}

/// Admits whoever asks and takes everything that is said, on a socket that takes everything.
fn play_client(pieces: &[&[u8]]) -> Played {
    let config = Config {
        limits: Limits {
            max_message_bytes: BYTES_MAX,
            max_header_bytes: BYTES_MAX,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut ports = Ports::default();
    let conn = ports.open(Kind::Client, config.limits.send_queue_bytes);
    let now = Now::default();
    let mut client = Client::new(now, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), &config);
    let mut log = Log::new(&config.log, 1, false);
    let mut ctx = ClientContext {
        now,
        conn,
        session: None,
        ports: &mut ports,
        log: &mut log,
        metrics: &mut Metrics::default(),
        config: &config,
        contexts: &mut Contexts::default(),
    };
    let (mut heard, mut sent) = (Vec::new(), Vec::new());
    for mut piece in pieces.iter().copied() {
        while let Some(next) = client.next(&mut piece, &mut ctx) {
            if let Heard::Request { .. } = next {
                client.admit(&mut ctx);
            }
            heard.push(next);
        }
        assert!(piece.is_empty(), "all is taken");
        ctx.ports.mail.audit();
        write_out(ctx.ports, conn, &mut sent);
    }
    let outputs = std::iter::from_fn(|| ports.poll()).collect();
    Played { heard, outputs, sent }
}

/// A peer of the broker is answered the same in all cuts, and the router gets the same messages.
/// One that never says a 3 is answered in RESP2.
pub fn broker(data: &[u8]) {
    let (sent, _) = in_all_cuts(data, play_broker);
    let mut parser = Parser::new(usize::MAX);
    let mut rest = sent.as_slice();
    while !data.contains(&b'3') && !rest.is_empty() {
        let value = parser.next(&mut rest).expect("replies are RESP");
        assert!(value.is_some(), "replies are whole: {}", sent.escape_ascii());
    }
}

/// What was written, and what the router got.
type Conversation = (Vec<u8>, Vec<(String, Vec<u8>)>);

/// One peer, on a socket that takes everything, beside a router that reads `a`.
fn play_broker(pieces: &[&[u8]]) -> Conversation {
    let settings = BrokerConfig { password: Some("p".to_owned()), ..BrokerConfig::default() };
    let mut config = Config::default();
    config.redis.max_message_bytes = BYTES_MAX;
    let mut broker = Broker::new(&settings, &config, 1);
    broker.join("a");
    let mut ports = Ports::default();
    let mut ctx = broker::Context {
        now: Now::default(),
        ports: &mut ports,
        timers: &mut Timers::default(),
        log: &mut Log::new(&config.log, 1, false),
        metrics: &mut Metrics::default(),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let conn = broker.accept(address, &mut ctx).expect("there is room for one");
    let (mut sent, mut heard) = (Vec::new(), Vec::new());
    for mut piece in pieces.iter().copied() {
        while let Some(message) = broker.next(conn, &mut piece, &mut ctx) {
            heard.push((message.channel, message.payload.into_owned()));
        }
        broker.audit();
        ctx.ports.mail.audit();
        write_out(ctx.ports, conn, &mut sent);
    }
    (sent, heard)
}

fn write_out(ports: &mut Ports, conn: ConnId, into: &mut Vec<u8>) {
    while let Some(id) = ports.mail.next_prompt().or_else(|| ports.mail.next_bulk()) {
        assert_eq!(id, conn);
        let mut slices = [IoSlice::new(&[]); 64];
        let Some(outbox) = ports.mail.outbox(conn) else { return };
        let used = outbox.slices_from(0, &mut slices);
        let before = into.len();
        into.extend(slices[..used].iter().flat_map(|slice| slice.iter()));
        ports.mail.written(conn, into.len() - before);
    }
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
        assert_eq!(folders, TARGETS.len(), "each corpus has its target");
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

    #[test]
    fn every_target_is_built() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml: {name}");
            let target = folder.join(format!("fuzz_targets/{name}.rs"));
            let text = fs::read_to_string(&target).unwrap_or_default();
            assert!(text.contains(&format!("fuzzing::{name}")), "{}", target.display());
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let data: Vec<u8> = (0..200).collect();
        let whole = in_all_cuts(&data, |pieces| pieces.concat());
        assert_eq!(whole, data);
    }
}
