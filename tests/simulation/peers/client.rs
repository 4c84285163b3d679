//! A WebSocket client: shakes hands, sends masked frames in any fragments, answers pings and
//! closes, unless it is rude.

use std::rc::Rc;

use crate::dice::Dice;
use crate::marks::{Ask, Heard, Mark};
use crate::wire::frames::{BINARY, CLOSE, Listener, PING, PONG, Said, TEXT, frame};
use crate::world::pipe::{Chunk, End, PipeId};

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
    pub fn connect(&mut self, pipe: PipeId, bad: bool) -> Chunk {
        self.pipe = Some(pipe);
        self.listener = Listener::default();
        (self.open, self.closing) = (false, false);
        self.names.clear();
        let start = "GET /any?path HTTP/1.1\r\nHost: shark.test\r\n";
        if bad {
            return Chunk::marked(format!("{start}\r\n"), Mark::Client(Heard::BadRequest));
        }
        let request = format!(
            "{start}Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Chunk::marked(request, Mark::Client(Heard::Request))
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
        let payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
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

    /// A frame that breaks a rule.
    pub fn fault(&mut self, dice: &mut Dice) -> Vec<Chunk> {
        self.closing = true;
        let (code, bytes): (u16, Vec<u8>) = match dice.below(5) {
            0 => (1002, vec![TEXT, 0x02, b'h', b'i']),   // no mask
            1 => (1002, frame(0x83, b"", mask(dice))),   // a reserved opcode
            2 => (1002, frame(0xc1, b"{}", mask(dice))), // a reserved bit
            3 => (1007, frame(TEXT, b"\"\xff\"", mask(dice))),
            _ => (1009, frame(TEXT, &[b' '; 5_000], mask(dice))),
        };
        let begins = Mark::Client(Heard::FaultBegins(code));
        let (first, rest) = bytes.split_at(1);
        vec![Chunk::marked(first, begins), Chunk::marked(rest, Mark::Client(Heard::Fault))]
    }
}

fn mask(dice: &mut Dice) -> [u8; 4] {
    (dice.number() as u32).to_be_bytes()
}
