//! A WebSocket client: shakes hands, sends masked frames in any fragments, answers pings and
//! closes, unless it is rude.

use std::rc::Rc;

use crate::dice::Dice;
use crate::marks::{Ask, Heard, Mark};
use crate::swarm::{HEADER_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::wire::frames::{BINARY, CLOSE, Listener, PING, PONG, Said, TEXT, frame};
use crate::world::pipe::{Chunk, End, PipeId};

/// The key of RFC 6455, section 1.3, and what it is answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Client {
    pub index: usize,
    pub pipe: Option<PipeId>,
    listener: Listener,
    /// The handshake is answered with 101.
    pub open: bool,
    /// It has sent a Close.
    closing: bool,
    /// It says no word but its request, or not even that.
    pub silent: bool,
    /// It answers no pings.
    pub mute: bool,
    /// It answers no Close and ends nothing.
    pub stubborn: bool,
    /// A number for everything that must be told apart.
    pub numbers: usize,
    /// Subscriptions that it has asked for.
    pub names: Vec<String>,
}

impl Client {
    pub fn new(index: usize) -> Client {
        Client {
            index,
            pipe: None,
            listener: Listener::default(),
            open: false,
            closing: false,
            silent: false,
            mute: false,
            stubborn: false,
            numbers: 0,
            names: Vec::new(),
        }
    }

    /// A new connection: the request.
    pub fn connect(&mut self, pipe: PipeId, bad: bool, dice: &mut Dice) -> Vec<Chunk> {
        self.pipe = Some(pipe);
        self.listener = Listener::default();
        (self.open, self.closing) = (false, false);
        self.names.clear();
        if bad { bad_request(dice) } else { vec![request(&[], dice)] }
    }

    /// The connection is over for it.
    pub fn gone(&mut self) {
        self.pipe = None;
        self.open = false;
    }

    /// What it sends in return for what has come. False at the end: it is done with it.
    pub fn received(&mut self, bytes: &[u8], dice: &mut Dice) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for said in self.listener.push(bytes) {
            match said {
                Said::Head(101, _) => self.open = true,
                Said::Head(..) => chunks.push(Chunk::end(End::Fin)),
                Said::Ping(payload) if !self.mute => {
                    let bytes = frame(PONG, &payload, mask(dice));
                    chunks.push(Chunk::marked(bytes, Mark::Client(Heard::Pong(payload))));
                }
                Said::Close(code) if !self.stubborn => {
                    if !self.closing {
                        chunks.push(self.close(code, dice));
                    }
                    chunks.push(Chunk::end(End::Fin));
                }
                _ => {}
            }
        }
        chunks
    }

    /// The program has ended its direction.
    pub fn ended(&mut self) -> Vec<Chunk> {
        if self.stubborn { Vec::new() } else { vec![Chunk::end(End::Fin)] }
    }

    pub fn close(&mut self, code: Option<u16>, dice: &mut Dice) -> Chunk {
        self.closing = true;
        let mut payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
        if code.is_some() && dice.chance(30) {
            payload.extend("für heute".as_bytes());
        }
        let bytes = frame(CLOSE, &payload, mask(dice));
        Chunk::marked(bytes, Mark::Client(Heard::Close(code)))
    }

    /// An event as text or binary, in one frame or several, with a ping between them perhaps.
    pub fn event(&mut self, text: &str, ask: Ask, pings: bool, dice: &mut Dice) -> Vec<Chunk> {
        let head = if dice.chance(10) { BINARY } else { TEXT };
        let mark = Mark::Client(Heard::Ask(Rc::new(ask)));
        let bytes = text.as_bytes();
        if !dice.chance(15) {
            return vec![Chunk::marked(frame(head, bytes, mask(dice)), mark)];
        }
        let (first, rest) = bytes.split_at(dice.below(bytes.len() + 1));
        let (second, third) = rest.split_at(dice.below(rest.len() + 1));
        let mut chunks = vec![Chunk::plain(frame(head & 0x7f, first, mask(dice)))];
        if pings && dice.chance(50) {
            chunks.push(self.ping(dice));
        }
        chunks.push(Chunk::plain(frame(0, second, mask(dice))));
        chunks.push(Chunk::marked(frame(0x80, third, mask(dice)), mark));
        chunks
    }

    pub fn ping(&mut self, dice: &mut Dice) -> Chunk {
        let payload = vec![b'p'; dice.below(126)];
        let bytes = frame(PING, &payload, mask(dice));
        Chunk::marked(bytes, Mark::Client(Heard::Ping(payload)))
    }

    /// A pong that nobody asked for.
    pub fn odd_pong(&mut self, dice: &mut Dice) -> Chunk {
        let payload = b"odd".to_vec();
        let bytes = frame(PONG, &payload, mask(dice));
        Chunk::marked(bytes, Mark::Client(Heard::Pong(payload)))
    }

    /// Frames that break a rule, the last one of them at least.
    pub fn fault(&mut self, dice: &mut Dice) -> Vec<Chunk> {
        self.closing = true;
        let mut frames = bad_frames(dice);
        let (code, bad) = frames.pop().expect("there is a bad one");
        let begins = Mark::Client(Heard::FaultBegins(code));
        let (first, rest) = bad.split_at(1);
        let mut chunks: Vec<Chunk> = frames.into_iter().map(|(_, it)| Chunk::plain(it)).collect();
        chunks.push(Chunk::marked(first, begins));
        chunks.push(Chunk::marked(rest, Mark::Client(Heard::Fault)));
        chunks
    }
}

/// A handshake in order, but for what is replaced in it.
fn request(instead: &[(&str, &str)], dice: &mut Dice) -> Chunk {
    let start = "GET /any?path HTTP/1.1\r\nHost: shark.test\r\n";
    let origin =
        dice.pick(&["", "Origin: https://a.good.test\r\n", "Origin: https://good.test\r\n"]);
    let mut request = format!(
        "{start}Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{origin}\r\n"
    );
    for (from, to) in instead {
        assert!(request.contains(from), "{from} is there to be replaced");
        request = request.replace(from, to);
    }
    if dice.chance(5) {
        // As long as it may be.
        let pad = HEADER_BYTES_MAX - request.len() - "X: \r\n".len();
        request = request.replacen("\r\n", &format!("\r\nX: {}\r\n", "x".repeat(pad)), 1);
    }
    Chunk::marked(request, Mark::Client(Heard::Request))
}

/// A handshake that is refused.
fn bad_request(dice: &mut Dice) -> Vec<Chunk> {
    let instead = [
        (405, "GET ", "POST "),
        (400, "HTTP/1.1", "HTTP/1.0"),
        (400, "Host: shark.test\r\n", ""),
        (400, "/any", "any"),
        (426, "Upgrade: websocket\r\n", ""),
        (426, "keep-alive, Upgrade", "keep-alive"),
        (426, "Version: 13", "Version: 8"),
        (400, KEY, "c2hvcnQ="),
        (400, "Host: ", "Content-Length: 2\r\nHost: "),
        (400, "Host: ", "Host : "),
        (403, "Host: ", "Origin: https://evil.test\r\nHost: "),
        (431, "", ""),
    ];
    let (status, from, to) = *dice.pick(&instead);
    if status == 431 {
        let mut long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEADER_BYTES_MAX));
        let rest = long.split_off(HEADER_BYTES_MAX);
        let (first, rest) = rest.split_at(1);
        let first = Chunk::marked(first, Mark::Client(Heard::BadRequest(431)));
        return vec![Chunk::plain(long), first, Chunk::plain(rest)];
    }
    let mut bad = request(&[(from, to)], &mut Dice::new(0));
    bad.mark = Some(Mark::Client(Heard::BadRequest(status)));
    if status == 403 {
        let text = String::from_utf8(bad.bytes).expect("a request is text");
        let lines = text.split_inclusive("\r\n");
        let kept = lines.filter(|line| !line.contains("good.test"));
        bad.bytes = kept.collect::<String>().into_bytes();
    }
    vec![bad]
}

/// Frames of which the last one breaks a rule, and the code of the close that it gets.
fn bad_frames(dice: &mut Dice) -> Vec<(u16, Vec<u8>)> {
    let mut one = |code: u16, head: u8, payload: &[u8]| (code, frame(head, payload, mask(dice)));
    let (begun, goes_on) = (TEXT & 0x7f, 0);
    let mut all = vec![
        vec![(1002, vec![TEXT, 0x02, b'h', b'i'])], // no mask
        vec![one(1002, 0x83, b"")],                 // a reserved opcode
        vec![one(1002, 0xc1, b"{}")],               // a reserved bit
        vec![one(1007, TEXT, b"\"\xff\"")],
        vec![one(1007, TEXT, b"\"\xc3")],
        vec![one(0, begun, b"\"\xc3"), one(1007, 0x80, b"\"")],
        vec![one(0, begun, b"\"\xe2\x82"), one(0, goes_on, b""), one(1007, 0x80, b"")],
        vec![one(1009, TEXT, &[b' '; MESSAGE_BYTES_MAX + 1])],
        vec![one(1009, BINARY, &[b' '; MESSAGE_BYTES_MAX + 1])],
        vec![one(0, begun, &[b' '; MESSAGE_BYTES_MAX]), one(1009, 0x80, b" ")],
        vec![one(0, begun, &[b' '; 2_000]), one(0, 0, &[b' '; 1_500]), one(1009, 0, &[b' '; 501])],
        vec![one(1002, PING & 0x7f, b"p")],
        vec![one(0, begun, b"{"), one(1002, PONG & 0x7f, b"p")],
        vec![one(1002, PING, &[b'p'; 126])],
        vec![one(1002, 0x80, b"{}")],
        vec![one(1002, goes_on, b"{}")],
        vec![one(0, begun, b"{"), one(1002, TEXT, b"{}")],
        vec![one(1002, CLOSE, &[3])],
    ];
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2_999, 5_000] {
        all.push(vec![one(1002, CLOSE, &code.to_be_bytes())]);
    }
    let at = dice.below(all.len());
    all.swap_remove(at)
}

fn mask(dice: &mut Dice) -> [u8; 4] {
    (dice.number() as u32).to_be_bytes()
}
