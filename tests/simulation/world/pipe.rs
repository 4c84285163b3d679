//! One TCP connection: bytes on their way in both directions.

use std::collections::VecDeque;
use std::time::Duration;

use socketshark::arena::ConnId;
use socketshark::conn::calls::CallId;

use socketshark::time::Instant;

use crate::dice::Dice;
use crate::marks::Mark;

pub type PipeId = usize;

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Client(usize),
    Redis(usize),
    /// The host of services.
    Service(usize),
    /// An address where nobody is.
    Nobody,
}

/// What is sent where nothing is expected.
pub const SURPLUS: &[u8] = b"?";

/// How a direction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Fin,
    Reset,
}

/// What is sent in one go, with what it completes.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub mark: Option<Mark>,
    /// Not bytes but the end of the stream.
    pub end: Option<End>,
}

impl Chunk {
    pub fn marked(bytes: impl Into<Vec<u8>>, mark: Mark) -> Chunk {
        Chunk { bytes: bytes.into(), mark: Some(mark), end: None }
    }

    pub fn plain(bytes: impl Into<Vec<u8>>) -> Chunk {
        Chunk { bytes: bytes.into(), mark: None, end: None }
    }

    pub fn end(end: End) -> Chunk {
        Chunk { bytes: Vec::new(), mark: None, end: Some(end) }
    }
}

/// What the program reads next.
pub enum Next {
    Nothing,
    Bytes(Vec<u8>, Vec<Mark>),
    End(End, Option<Mark>),
}

pub struct Pipe {
    pub peer: Peer,
    pub conn: ConnId,
    pub dialling: bool,
    /// The callback whose request came over it last.
    pub call: Option<CallId>,
    /// Requests that came over it.
    pub requests: usize,
    /// Whether the program waits for an answer on it.
    pub busy: bool,
    /// When the last request was complete.
    pub asked_at: Instant,
    /// Something was sent since the last request.
    pub touched: bool,
    /// After the answer to the last request nothing more may be asked on it.
    pub spent: bool,
    /// How long the next try must wait, if the answer to the last request fails this one; none:
    /// the answer leads on to another request at once.
    pub wait: Option<Duration>,
    /// Sent towards the program, on the way.
    on_way: VecDeque<Chunk>,
    /// Arrived there, not read.
    arrived: VecDeque<Chunk>,
    /// Bytes that nobody asked for were sent.
    spoilt: bool,
    /// Nothing more is sent towards the program.
    up_ended: bool,
    /// Written by the program, not read by the peer.
    pub down: VecDeque<u8>,
    /// The program has ended its direction.
    pub down_end: Option<End>,
    /// Bytes that `down` holds at most.
    pub window: usize,
    /// The program was told that it takes no more.
    pub blocked: bool,
    /// To be ended when the program's outbox is empty.
    pub half_closing: bool,
    /// The peer reads nothing.
    pub stalled: bool,
    /// The peer has gone: what the program writes fails.
    pub broken: bool,
}

impl Pipe {
    pub fn new(peer: Peer, conn: ConnId, dialling: bool, window: usize) -> Pipe {
        Pipe {
            peer,
            conn,
            dialling,
            call: None,
            requests: 0,
            busy: false,
            asked_at: Instant::ZERO,
            touched: false,
            spent: false,
            wait: None,
            on_way: VecDeque::new(),
            arrived: VecDeque::new(),
            spoilt: false,
            up_ended: false,
            down: VecDeque::new(),
            down_end: None,
            window,
            blocked: false,
            half_closing: false,
            stalled: false,
            broken: false,
        }
    }

    /// Sends towards the program. Says whether anything will arrive.
    pub fn send(&mut self, chunk: Chunk) -> bool {
        if self.up_ended {
            return false;
        }
        self.touched = true;
        self.up_ended = chunk.end.is_some();
        self.spoilt |= chunk.bytes == SURPLUS;
        self.on_way.push_back(chunk);
        true
    }

    /// The peer has ended its direction.
    pub fn has_ended(&self) -> bool {
        self.up_ended
    }

    /// The peer has sent surplus bytes.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// The next of what is on the way arrives.
    pub fn arrive(&mut self) {
        self.arrived.extend(self.on_way.pop_front());
    }

    pub fn is_readable(&self) -> bool {
        !self.arrived.is_empty() && !self.dialling
    }

    /// The connection ends at any byte of what is on the way. Everything behind that is lost.
    pub fn cut(&mut self, end: End, dice: &mut Dice) -> bool {
        if self.up_ended && self.on_way.is_empty() {
            return false;
        }
        let bytes: usize = self.on_way.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut kept = dice.below(bytes + 1);
        // A FIN behind the last byte is what was to come anyway.
        let last = self.on_way.back_mut().filter(|last| last.end.is_some());
        let mark = last.and_then(|last| last.mark.take());
        let mark = mark.filter(|_| kept == bytes && end == End::Fin);
        for chunk in &mut self.on_way {
            if kept < chunk.bytes.len() {
                chunk.bytes.truncate(kept);
                chunk.mark = None;
            }
            kept = kept.saturating_sub(chunk.bytes.len().max(1));
            chunk.end = None;
        }
        self.on_way.retain(|chunk| !chunk.bytes.is_empty());
        self.up_ended = true;
        self.broken |= end == End::Reset;
        // What is on the way has its arrivals planned; the end comes at once behind it.
        self.arrived.extend(self.on_way.drain(..));
        self.arrived.push_back(Chunk { mark, ..Chunk::end(end) });
        true
    }

    /// The program reads at most so many bytes.
    pub fn read(&mut self, most: usize) -> Next {
        let mut bytes = Vec::new();
        let mut marks = Vec::new();
        while let Some(chunk) = self.arrived.front_mut() {
            if let Some(end) = chunk.end {
                if !bytes.is_empty() {
                    break;
                }
                let mark = chunk.mark.take();
                self.arrived.clear();
                return Next::End(end, mark);
            }
            if bytes.len() == most {
                break;
            }
            self.spent |= chunk.bytes == SURPLUS;
            let n = chunk.bytes.len().min(most - bytes.len());
            bytes.extend(chunk.bytes.drain(..n));
            if chunk.bytes.is_empty() {
                marks.extend(chunk.mark.take());
                self.arrived.pop_front();
            }
        }
        if bytes.is_empty() { Next::Nothing } else { Next::Bytes(bytes, marks) }
    }

    /// Bytes that the program can write now.
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.down.len())
    }
}
