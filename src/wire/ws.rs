//! WebSocket frames (RFC 6455, section 5), server side.
//!
//! tungstenite reads headers, and puts fragmented messages together; it is given one whole frame
//! at a time, from memory. So its buffers are empty between messages, and a connection needs a
//! context of its own only while a fragmented message is open; all share one spare. A message in
//! one frame needs no more than its mask taken off and a look at its UTF-8. Headers are
//! judged here before anything is collected: a frame that breaks a rule is told from its header
//! alone, and no declared length reserves anything. Control frames (at most 125 bytes) are read
//! here too, because tungstenite answers close code 1014 as a violation.

use std::io::{self, Cursor, Read, Write};
use std::iter;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use crate::message::close_code;
use crate::outbox::Frame;

/// Longest payload of a control frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// A frame header with a length of 64 bits and a mask.
const HEADER_BYTES_MAX: usize = 14;

/// Buffer that a context begins with: what most client messages fit into.
const CONTEXT_BYTES: usize = 512;

/// A context whose buffers may have grown past this is not kept for the next message.
const KEPT_BYTES_MAX: usize = 4_096;

/// What the peer did wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A broken rule of the protocol.
    Protocol(&'static str),
    /// Text, or a Close reason, that is not UTF-8.
    NotUtf8,
    /// A message over `max_message_bytes`.
    TooBig,
}

impl Fault {
    /// The close code that tells the peer.
    pub fn code(self) -> u16 {
        match self {
            Fault::Protocol(_) => close_code::PROTOCOL_ERROR,
            Fault::NotUtf8 => close_code::INVALID_PAYLOAD,
            Fault::TooBig => close_code::TOO_BIG,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Fault::Protocol(reason) => reason,
            Fault::NotUtf8 => "text that is not UTF-8",
            Fault::TooBig => "message over max_message_bytes",
        }
    }
}

/// The text of one message. Its buffer may serve the next one (`Contexts::reuse`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The bytes of one binary message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binary(Vec<u8>);

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The payload of a control frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What a client's frames amount to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A whole message of valid UTF-8.
    Text(Text),
    /// A whole message of any bytes.
    Binary(Binary),
    Ping(Box<Payload>),
    Pong(Box<Payload>),
    /// The client's Close with its code; nothing that follows counts.
    Close(Option<u16>),
}

/// The context that connections without an open fragmented message share.
#[derive(Default)]
pub struct Contexts {
    spare: Option<Box<Assembly>>,
    /// For the next message that comes in one frame; empty.
    buffer: Vec<u8>,
}

/// A message in the making.
struct Assembly {
    context: WebSocketContext,
    /// Payload bytes of the message so far.
    collected: usize,
}

impl Contexts {
    fn take(&mut self) -> Box<Assembly> {
        self.spare.take().unwrap_or_else(|| {
            // `max_message_bytes` is checked on headers; a second limit would have to follow
            // every reload of the configuration.
            let config = WebSocketConfig::default()
                .read_buffer_size(CONTEXT_BYTES)
                .write_buffer_size(0)
                .max_message_size(None)
                .max_frame_size(None);
            let context = WebSocketContext::new(Role::Server, Some(config));
            Box::new(Assembly { context, collected: 0 })
        })
    }

    /// Takes back the buffer of a text that is done with.
    pub fn reuse(&mut self, Text(text): Text) {
        if text.capacity() <= KEPT_BYTES_MAX {
            self.buffer = text.into_bytes();
            self.buffer.clear();
        }
    }

    fn put(&mut self, mut assembly: Box<Assembly>) {
        if assembly.collected <= KEPT_BYTES_MAX {
            assembly.collected = 0;
            self.spare = Some(assembly);
        }
    }
}

/// One frame's header, judged already.
#[derive(Clone, Copy)]
struct Header {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of the header itself.
    len: usize,
    /// Bytes of header and payload.
    frame_len: usize,
}

/// The receiving side of one connection. After a `Fault` or `Event::Close` it takes no more.
#[derive(Default)]
pub struct Codec {
    /// A frame that was cut short, as far as it was received.
    partial: Vec<u8>,
    /// The fragmented message that is open.
    open: Option<Box<Assembly>>,
}

impl Codec {
    /// Takes bytes from `input` up to the end of the next event. `None`: all is taken, nothing is
    /// complete. A message of exactly `message_bytes_max` passes; fragments count together.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        message_bytes_max: usize,
        contexts: &mut Contexts,
    ) -> Result<Option<Event>, Fault> {
        if let Some(text) = self.short_text(input, message_bytes_max, contexts) {
            return text.map(Some);
        }
        loop {
            let cut = !self.partial.is_empty();
            let bytes = if cut { &self.partial } else { *input };
            let wanted = match self.header(bytes, message_bytes_max)? {
                Some(header) if header.frame_len <= bytes.len() => {
                    let event = if cut {
                        let frame = std::mem::take(&mut self.partial);
                        self.frame(header, &frame, contexts)?
                    } else {
                        let (frame, rest) = input.split_at(header.frame_len);
                        *input = rest;
                        self.frame(header, frame, contexts)?
                    };
                    if event.is_some() {
                        return Ok(event);
                    }
                    continue;
                }
                Some(header) => header.frame_len,
                None => bytes.len() + 1,
            };
            if input.is_empty() {
                return Ok(None);
            }
            let (more, rest) = input.split_at(input.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(more);
            *input = rest;
        }
    }

    /// A text in one frame of at most 125 bytes, where it is the next event and has come as a
    /// whole: what nearly all clients send needs no closer look at its header.
    fn short_text(
        &self,
        input: &mut &[u8],
        message_bytes_max: usize,
        contexts: &mut Contexts,
    ) -> Option<Result<Event, Fault>> {
        let [FIN_TEXT, length @ 0x80..=0xfd, a, b, c, d, rest @ ..] = *input else { return None };
        let (payload, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if !self.partial.is_empty() || self.open.is_some() || payload.len() > message_bytes_max {
            return None;
        }
        *input = rest;
        let bytes = unmasked(payload, [*a, *b, *c, *d], contexts);
        Some(text(bytes))
    }

    /// Bytes that a frame that was cut short lacks still; 0 where that is not known yet.
    pub fn missing(&self) -> usize {
        let header = self.header(&self.partial, usize::MAX).ok().flatten();
        header.map_or(0, |header| header.frame_len - self.partial.len())
    }

    /// Bytes held for this connection.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| CONTEXT_BYTES + open.collected);
        self.partial.capacity() + open
    }

    /// Reads and judges the header at the start of `bytes`; `None` where it is cut short.
    fn header(&self, bytes: &[u8], message_bytes_max: usize) -> Result<Option<Header>, Fault> {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return self.first_bytes(bytes, message_bytes_max).map(|()| None),
            Err(_) => return Err(Fault::Protocol("reserved opcode")),
        };
        // First what the first byte says: it may be all that has come.
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Fault::Protocol("reserved bits set"));
        }
        let length_max = match (header.opcode, &self.open) {
            (OpCode::Control(_), _) if !header.is_final => {
                return Err(Fault::Protocol("control frame in fragments"));
            }
            (OpCode::Control(_), _) => CONTROL_BYTES_MAX,
            (OpCode::Data(Data::Continue), None) => {
                return Err(Fault::Protocol("continuation of nothing"));
            }
            (OpCode::Data(Data::Continue), Some(open)) => {
                message_bytes_max.saturating_sub(open.collected)
            }
            (OpCode::Data(_), Some(_)) => {
                return Err(Fault::Protocol("new message inside a fragmented one"));
            }
            (OpCode::Data(_), None) => message_bytes_max,
        };
        let Some(mask) = header.mask else { return Err(Fault::Protocol("frame without mask")) };
        if matches!(header.opcode, OpCode::Control(_)) && length > length_max as u64 {
            return Err(Fault::Protocol("control frame over 125 bytes"));
        }
        let length = usize::try_from(length).map_err(|_| Fault::TooBig)?;
        let len = cursor.position() as usize;
        // A limit near `usize::MAX` is no limit, but it must not overflow either.
        let frame_len = length.checked_add(len).filter(|_| length <= length_max);
        let frame_len = frame_len.ok_or(Fault::TooBig)?;
        let (opcode, is_final) = (header.opcode, header.is_final);
        Ok(Some(Header { opcode, is_final, mask, len, frame_len }))
    }

    /// Judges a header that is cut short: what is wrong already need not be waited for. Of a masked
    /// frame whose missing bytes are all zero, neither kind nor length can be more wrong.
    fn first_bytes(&self, bytes: &[u8], message_bytes_max: usize) -> Result<(), Fault> {
        let mut least = [0; HEADER_BYTES_MAX];
        least[1] = 0x80;
        if let Some(begun) = least.get_mut(..bytes.len()).filter(|begun| !begun.is_empty()) {
            begun.copy_from_slice(bytes);
            self.header(&least, message_bytes_max)?;
        }
        Ok(())
    }

    /// Handles one whole frame.
    fn frame(
        &mut self,
        header: Header,
        frame: &[u8],
        contexts: &mut Contexts,
    ) -> Result<Option<Event>, Fault> {
        let payload = &frame[header.len..];
        let OpCode::Control(kind) = header.opcode else {
            if header.is_final && self.open.is_none() {
                return whole_message(header, payload, contexts).map(Some);
            }
            return self.fragment(frame, payload.len(), contexts);
        };
        let mut control =
            Box::new(Payload { bytes: [0; CONTROL_BYTES_MAX], len: payload.len() as u8 });
        control.bytes[..payload.len()].copy_from_slice(payload);
        unmask(&mut control.bytes[..payload.len()], header.mask);
        match kind {
            Control::Ping => Ok(Some(Event::Ping(control))),
            Control::Pong => Ok(Some(Event::Pong(control))),
            Control::Close => received_close(&control).map(|code| Some(Event::Close(code))),
            Control::Reserved(_) => Err(Fault::Protocol("reserved opcode")),
        }
    }

    /// Handles one frame of a fragmented message, header included.
    fn fragment(
        &mut self,
        frame: &[u8],
        payload_len: usize,
        contexts: &mut Contexts,
    ) -> Result<Option<Event>, Fault> {
        let mut assembly = self.open.take().unwrap_or_else(|| contexts.take());
        assembly.collected += payload_len;
        let mut wire = Wire(frame);
        let event = match assembly.context.read(&mut wire) {
            Ok(Message::Text(text)) => Event::Text(Text(text.as_str().to_owned())),
            Ok(message) => Event::Binary(Binary(message.into_data().into())),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.open = Some(assembly);
                assert!(wire.0.is_empty(), "a fragment is taken as a whole");
                return Ok(None);
            }
            Err(Error::Utf8(_)) => return Err(Fault::NotUtf8),
            Err(_) => return Err(Fault::Protocol("malformed data frame")),
        };
        assert!(wire.0.is_empty(), "a message ends with its last frame");
        contexts.put(assembly);
        Ok(Some(event))
    }
}

/// Reads a message that comes in one frame, as nearly all do: it needs no context.
fn whole_message(header: Header, payload: &[u8], contexts: &mut Contexts) -> Result<Event, Fault> {
    let bytes = unmasked(payload, header.mask, contexts);
    if header.opcode == OpCode::Data(Data::Binary) {
        return Ok(Event::Binary(Binary(bytes)));
    }
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<Event, Fault> {
    String::from_utf8(bytes).map(|text| Event::Text(Text(text))).map_err(|_| Fault::NotUtf8)
}

fn unmasked(payload: &[u8], mask: [u8; 4], contexts: &mut Contexts) -> Vec<u8> {
    let mut bytes = mem::take(&mut contexts.buffer);
    bytes.extend_from_slice(payload);
    unmask(&mut bytes, mask);
    bytes
}

/// Takes the mask off (RFC 6455, section 5.3), eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ twice).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Reads the payload of a Close frame (RFC 6455, sections 5.5.1 and 7.4).
fn received_close(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Fault::Protocol("one-byte Close")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol("close code that may not be sent"));
    }
    std::str::from_utf8(reason).map_err(|_| Fault::NotUtf8)?;
    Ok(Some(code))
}

/// A whole frame as the stream that a context reads from. `WouldBlock` ends it: end of file would
/// mean a lost connection.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(into)
    }
}

/// Contexts see data frames only, to which there is nothing to answer.
impl Write for Wire<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first byte of an unfragmented frame.
const FIN_TEXT: u8 = 0x81;
const FIN_BINARY: u8 = 0x82;
const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;
const FIN_PONG: u8 = 0x8a;

/// The header of an unmasked frame and how many of the bytes are used.
fn sent_header(first: u8, payload_len: usize) -> ([u8; 10], usize) {
    let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if payload_len < 126 {
        header[1] = payload_len as u8;
        (header, 2)
    } else if let Ok(length) = u16::try_from(payload_len) {
        header[1] = 126;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        (header, 10)
    }
}

/// A text frame for any number of receivers (frames from a server are not masked): one allocation.
pub fn encode_text(json: &str) -> Frame {
    encode_parts(&[json])
}

/// The same for a text that comes in parts.
pub fn encode_parts(json: &[&str]) -> Frame {
    encode(FIN_TEXT, json)
}

/// A binary frame, likewise.
pub fn encode_binary(bytes: &[u8]) -> Frame {
    encode(FIN_BINARY, &[bytes])
}

fn encode(first: u8, parts: &[impl AsRef<[u8]>]) -> Frame {
    let len = parts.iter().map(|part| part.as_ref().len()).sum();
    let (header, used) = sent_header(first, len);
    // Zeroing first is the one way to a single allocation in safe code, and at memory speed still
    // twice as fast as a `Vec` that is copied.
    let mut frame: Frame = iter::repeat_n(0, used + len).collect();
    let mut rest = Rc::get_mut(&mut frame).expect("a new frame has one owner");
    for part in iter::once(&header[..used]).chain(parts.iter().map(AsRef::as_ref)) {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    frame
}

/// Appends a text frame to `out`.
pub fn push_text(out: &mut Vec<u8>, json: &str) {
    push_frame(out, FIN_TEXT, json.as_bytes());
}

/// Appends the answer to a ping.
pub fn push_pong(out: &mut Vec<u8>, payload: &Payload) {
    push_frame(out, FIN_PONG, payload);
}

/// A ping with a payload of ours, of at most `CONTROL_BYTES_MAX` bytes.
pub fn ping(payload: &[u8]) -> Frame {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a ping is a control frame");
    let mut frame = Vec::with_capacity(2 + payload.len());
    push_frame(&mut frame, FIN_PING, payload);
    frame.into()
}

/// A Close, with or without a code.
pub fn close(code: Option<u16>) -> Frame {
    match code.map(u16::to_be_bytes) {
        Some([high, low]) => [FIN_CLOSE, 2, high, low].into(),
        None => [FIN_CLOSE, 0].into(),
    }
}

fn push_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let (header, used) = sent_header(first, payload.len());
    out.extend_from_slice(&header[..used]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::random::Random;

    const MAX: usize = 1_000;

    /// A frame as clients send it: masked, with the shortest length.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x5a, 0, 0xff, 0x81];
        let (mut header, used) = sent_header(first, payload.len());
        header[1] |= 0x80;
        let mut frame = [&header[..used], &mask].concat();
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// All events of a stream that comes in pieces of the given sizes, and its fault.
    fn feed(stream: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<Event>, Option<Fault>) {
        let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
        let mut events = Vec::new();
        let mut left = stream;
        while !left.is_empty() {
            let (mut input, rest) = left.split_at(piece().clamp(1, left.len()));
            left = rest;
            loop {
                match codec.next(&mut input, MAX, &mut contexts) {
                    Ok(Some(event)) => {
                        let closed = matches!(event, Event::Close(_));
                        events.push(event);
                        if closed {
                            return (events, None);
                        }
                    }
                    Ok(None) => break,
                    Err(fault) => return (events, Some(fault)),
                }
            }
            assert!(input.is_empty(), "no byte is left behind");
        }
        (events, None)
    }

    fn whole(stream: &[u8]) -> (Vec<Event>, Option<Fault>) {
        let result = feed(stream, || usize::MAX);
        assert_eq!(feed(stream, || 1), result, "byte by byte");
        for seed in 0..8 {
            let mut random = Random::seeded(seed);
            assert_eq!(feed(stream, || random.number() as usize % 40), result, "cut by {seed}");
        }
        result
    }

    fn text(text: &str) -> Event {
        Event::Text(Text(text.into()))
    }

    fn binary(bytes: &[u8]) -> Event {
        Event::Binary(Binary(bytes.to_vec()))
    }

    fn fault_of(stream: &[u8]) -> u16 {
        whole(stream).1.map_or(0, Fault::code)
    }

    #[test]
    fn messages_of_all_lengths_arrive() {
        for len in [0, 1, 125, 126, 127, 500, MAX] {
            let json = "x".repeat(len);
            let frames = [masked(0x81, json.as_bytes()), masked(0x82, json.as_bytes())].concat();
            let events = vec![text(&json), binary(json.as_bytes())];
            assert_eq!(whole(&frames), (events, None));
        }
        let fragments = [masked(0x02, b"\xff"), masked(0x80, b"\xc0")].concat();
        assert_eq!(whole(&fragments), (vec![binary(b"\xff\xc0")], None));
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let euro = "€".as_bytes();
        let stream = [
            masked(0x01, &euro[..1]),
            masked(0x89, b"ping"),
            masked(0x00, &[]),
            masked(0x00, &euro[1..2]),
            masked(0x8a, &[7; 125]),
            masked(0x80, &euro[2..]),
            masked(0x81, b"next"),
            masked(0x88, &[0x03, 0xe8]),
            masked(0x81, b"ignored"),
        ]
        .concat();
        let (events, fault) = whole(&stream);
        assert_eq!(fault, None);
        let [Event::Ping(ping), Event::Pong(pong), first, second, Event::Close(Some(1000))] =
            &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!((&***ping, &***pong), (&b"ping"[..], &[7; 125][..]));
        assert_eq!((first, second), (&text("€"), &text("next")));
    }

    #[test]
    fn broken_rules_are_told_by_code() {
        let mut unmasked = masked(0x81, b"");
        unmasked[1] = 0;
        assert_eq!(fault_of(&unmasked), 1002);
        for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f, 0x09, 0x08, 0x80, 0x00] {
            assert_eq!(fault_of(&masked(first, b"")), 1002, "{first:x}");
        }
        for control in [0x88, 0x89, 0x8a] {
            assert_eq!(fault_of(&masked(control, &[b'x'; 126])), 1002);
        }
        for begun in [&b"\xc1"[..], b"\x83", b"\x09", b"\x80", b"\x81\x00", b"\x89\xfe\x01"] {
            assert_eq!(fault_of(begun), 1002, "{begun:x?}");
        }
        for begun in [&b"\x81\xff\x80"[..], b"\x81\xff\x00\x01"] {
            assert_eq!(fault_of(begun), 1009, "{begun:x?}");
        }
        for begun in [&b""[..], b"\x81", b"\x89\x80", b"\x81\xfe", b"\x81\xff\x00\x00\x00"] {
            assert_eq!(fault_of(begun), 0, "{begun:x?}");
        }
        let nested = [masked(0x01, b"a"), masked(0x81, b"b")].concat();
        assert_eq!(fault_of(&nested), 1002);
        assert_eq!(fault_of(&masked(0x81, b"\xed\xa0\x80")), 1007);
        let cut = [masked(0x01, b"\xe2\x82"), masked(0x80, b"")].concat();
        assert_eq!(fault_of(&cut), 1007);
        let across = [masked(0x01, b"\xe2"), masked(0x00, b"\x28")].concat();
        assert_eq!(fault_of(&across), 1007);
    }

    #[test]
    fn close_codes_are_judged() {
        let code_of = |code: u16| whole(&masked(0x88, &code.to_be_bytes()));
        let good = [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        for code in good {
            assert_eq!(code_of(code), (vec![Event::Close(Some(code))], None));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
            assert_eq!(code_of(code).1.map(Fault::code), Some(1002), "{code}");
        }
        assert_eq!(whole(&masked(0x88, b"")), (vec![Event::Close(None)], None));
        assert_eq!(fault_of(&masked(0x88, b"\x03")), 1002);
        assert_eq!(fault_of(&masked(0x88, b"\x03\xe8\xff")), 1007);
    }

    #[test]
    fn the_limit_is_judged_from_the_header_and_counts_fragments_together() {
        let over = masked(0x81, &[b'x'; MAX + 1]);
        assert_eq!(fault_of(&over[..8]), 1009);
        let declared = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(fault_of(&declared(1 << 63)), 1009);
        assert_eq!(fault_of(&declared(u64::MAX)), 1009);
        let exact = [masked(0x01, &[b'x'; MAX - 1]), masked(0x80, b"x")].concat();
        assert_eq!(whole(&exact), (vec![text(&"x".repeat(MAX))], None));
        let more = [masked(0x01, &[b'x'; MAX - 1]), masked(0x80, b"xx")[..6].to_vec()].concat();
        assert_eq!(fault_of(&more), 1009);
    }

    #[test]
    fn memory_follows_the_bytes_received() {
        let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
        let declared = [&[0x81, 0xff][..], &(1u64 << 30).to_be_bytes(), &[0; 4], b"abc"].concat();
        assert_eq!(codec.next(&mut &declared[..], 1 << 30, &mut contexts), Ok(None));
        assert!(codec.held_bytes() < 100, "{}", codec.held_bytes());
        // Given back with the last byte.
        let mut codec = Codec::default();
        let long = masked(0x81, &[b'x'; 100_000]);
        assert_eq!(codec.next(&mut &long[..99_999], 1 << 30, &mut contexts), Ok(None));
        assert!((99_999..=200_000).contains(&codec.held_bytes()));
        assert!(matches!(codec.next(&mut &long[99_999..], 1 << 30, &mut contexts), Ok(Some(_))));
        assert_eq!(codec.held_bytes(), 0);
        assert!(contexts.spare.is_none(), "a grown context is not kept");
        // Empty fragments without end.
        assert_eq!(codec.next(&mut &masked(0x01, b"")[..], 10, &mut contexts), Ok(None));
        for _ in 0..100_000 {
            assert_eq!(codec.next(&mut &masked(0x00, b"")[..], 10, &mut contexts), Ok(None));
        }
        assert!(codec.held_bytes() <= CONTEXT_BYTES);
    }

    #[test]
    fn an_idle_connection_owns_no_context() {
        let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
        codec.next(&mut &masked(0x81, b"one")[..], MAX, &mut contexts).unwrap();
        assert!(codec.open.is_none() && contexts.spare.is_none(), "one frame needs none");
        codec.next(&mut &masked(0x01, b"two")[..], MAX, &mut contexts).unwrap();
        assert!(codec.open.is_some() && contexts.spare.is_none());
        let other = Codec::default().next(&mut &masked(0x81, b"other")[..], MAX, &mut contexts);
        assert_eq!(other, Ok(Some(text("other"))));
        let end = codec.next(&mut &masked(0x80, b"!")[..], MAX, &mut contexts);
        assert_eq!(end, Ok(Some(text("two!"))));
        assert!(codec.open.is_none() && contexts.spare.is_some());
    }

    #[test]
    fn a_buffer_is_used_again_unless_it_has_grown() {
        let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
        let mut read = |len: usize, contexts: &mut Contexts| {
            let frame = masked(0x81, &vec![b'x'; len]);
            let Ok(Some(Event::Text(read))) = codec.next(&mut &frame[..], 1 << 20, contexts) else {
                panic!("a text is read")
            };
            assert_eq!(*read, *"x".repeat(len));
            contexts.reuse(read);
            contexts.buffer.capacity()
        };
        let kept = read(100, &mut contexts);
        assert!(kept >= 100);
        assert_eq!(read(20, &mut contexts), kept);
        assert_eq!(read(100_000, &mut contexts), 0);
    }

    #[test]
    fn a_message_in_fifty_thousand_fragments_arrives() {
        let (mut codec, mut contexts) = (Codec::default(), Contexts::default());
        let mut stream = masked(0x01, b"x");
        for _ in 0..50_000 {
            stream.extend(masked(0x00, b"x"));
        }
        stream.extend(masked(0x80, b"x"));
        let event = codec.next(&mut &stream[..], 1 << 20, &mut contexts);
        assert_eq!(event, Ok(Some(text(&"x".repeat(50_002)))));
    }

    #[test]
    fn random_bytes_give_the_same_however_they_are_cut() {
        for seed in 0..300 {
            let mut random = Random::seeded(seed);
            let mut stream = Vec::new();
            for _ in 0..random.number() % 12 {
                let first = [0x81, 0x01, 0x00, 0x80, 0x82, 0x89, 0x8a, 0x88];
                let first = first[random.number() as usize % first.len()];
                let payload = vec![b'p'; random.number() as usize % 140];
                stream.extend(masked(first, &payload));
            }
            if seed % 2 == 1 && !stream.is_empty() {
                let index = random.number() as usize % stream.len();
                stream[index] ^= 1 << (random.number() % 8);
            }
            whole(&stream);
        }
    }

    #[test]
    fn frames_that_are_sent_can_be_read_by_a_client() {
        struct Sent<'a>(&'a [u8]);
        impl Read for Sent<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0.read(into)
            }
        }
        impl Write for Sent<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut client = WebSocketContext::new(Role::Client, None);
        for len in [0, 125, 126, 65_535, 65_536] {
            let json = "j".repeat(len);
            let frame = encode_text(&json);
            let mut pushed = Vec::new();
            push_text(&mut pushed, &json);
            assert_eq!(*frame, pushed);
            let read = client.read(&mut Sent(&frame)).unwrap();
            assert_eq!(read, Message::text(json.clone()));
            let read = client.read(&mut Sent(&encode_binary(json.as_bytes()))).unwrap();
            assert_eq!(read, Message::binary(json));
        }
        let read = client.read(&mut Sent(&ping(b"1234"))).unwrap();
        assert_eq!(read, Message::Ping("1234".into()));
        let Message::Close(Some(read)) = client.read(&mut Sent(&close(Some(1013)))).unwrap() else {
            panic!("a Close");
        };
        assert_eq!(u16::from(read.code), 1013);
        assert_eq!(*close(None), [0x88, 0]);
    }
}
