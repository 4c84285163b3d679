//! The loop, as the shell turns it: what has happened, reading, the clock, outputs, writing.

use std::time::Duration;

use socketshark::arena::ConnId;
use socketshark::ports::{Core, Input, Kind};
use socketshark::time::{Instant, Wall, soonest};

use super::pipe::{End, Next, Peer, PipeId};
use super::{Happening, World};
use crate::marks::Mark;
use crate::model::Cause;
use crate::swarm::Fault;
use crate::trace::shown;

/// No frame that clients get here is longer.
const LONGEST_FRAME: usize = 1_000;

/// Turns without time going on, after which nothing will ever go on.
const TURNS_MAX: usize = 20_000;

impl World<'_> {
    /// Lives on for some time.
    pub(super) fn live_for(&mut self, duration: Duration) {
        let until = self.now.mono.after(duration);
        let mut turns = (self.now.mono, 0);
        loop {
            let busy = self.engine.has_work() || self.has_readable() || !self.asked.is_empty();
            let first = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let next = soonest(first, self.engine.next_deadline());
            let next = soonest(next, self.model.next_deadline());
            let next = if busy { Some(self.now.mono) } else { next };
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.pass_time(next.max(self.now.mono));
            if turns.0 != self.now.mono {
                turns = (self.now.mono, 0);
            }
            turns.1 += 1;
            assert!(turns.1 < TURNS_MAX, "the loop turns without an end");
            self.turn();
            if self.exited.is_some() {
                return;
            }
        }
        self.pass_time(until.max(self.now.mono));
    }

    fn pass_time(&mut self, to: Instant) {
        let passed = to.since(self.now.mono);
        self.now.mono = to;
        self.now.wall = Wall(self.now.wall.0 + passed.as_micros() as i64);
        // With a crowd more would be due at once than one turn takes up.
        let may_jump = self.has(Fault::Clock) && !self.params.is_crowded();
        if may_jump && self.dice.chance(2) {
            // The program was not running for a while, or somebody set the wall clock.
            let jump = self.dice.millis(0, 8_000);
            self.note(format_args!("time jumps by {jump:?}"));
            self.now.mono = self.now.mono.after(jump);
            self.now.wall = Wall(self.now.wall.0 - 1_000_000 * self.dice.below(100) as i64);
        }
    }

    fn turn(&mut self) {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= self.now.mono
        {
            let happening = entry.remove();
            self.happen(happening);
        }
        self.read();
        self.step(&Cause::Tick, Input::Tick);
        self.obey();
        self.check_time_outs();
        self.check_rooms();
        if self.exited.is_none() {
            self.flush();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(id) => {
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    pipe.arrive();
                    self.readable.insert(id);
                }
            }
            Happening::Deliver(id) => self.deliver(id),
            Happening::Dialled(id, ok) => self.dialled(id, ok),
            Happening::Resolved(host, ok) => self.resolved(&host, ok),
            Happening::Answer(id, chunks) => self.send(id, chunks),
            Happening::Unstall(id) => {
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    pipe.stalled = false;
                }
                self.deliver(id);
            }
            Happening::RedisUp(index) => {
                self.note(format_args!("Redis {index} is back"));
                self.servers[index].down = false;
            }
            Happening::RedisWakes(index) => self.redis_wakes(index),
        }
    }

    // --------------------------------------------------------------- reading

    fn has_readable(&self) -> bool {
        self.readable.iter().any(|id| self.is_readable(*id))
    }

    fn is_readable(&self, id: PipeId) -> bool {
        let pipe = self.pipes.get(&id);
        pipe.is_some_and(|pipe| pipe.is_readable() && self.engine.wants_read(pipe.conn))
    }

    /// Reads from some of those that can be read, in any order.
    fn read(&mut self) {
        let mut ids: Vec<PipeId> = self.readable.iter().copied().collect();
        while !ids.is_empty() {
            let id = ids.swap_remove(self.dice.below(ids.len()));
            if !self.is_readable(id) {
                if !self.pipes.get(&id).is_some_and(|pipe| pipe.is_readable()) {
                    self.readable.remove(&id);
                }
                continue;
            }
            self.read_pipe(id);
            if self.has(Fault::Splits) && self.dice.chance(30) {
                break;
            }
        }
    }

    fn read_pipe(&mut self, id: PipeId) {
        for _ in 0..4 {
            if !self.is_readable(id) {
                return;
            }
            let most = match self.dice.below(3) {
                _ if !self.has(Fault::Splits) => usize::MAX,
                0 => self.dice.between(1, 3),
                1 => self.dice.between(1, 200),
                _ => usize::MAX,
            };
            let Some(pipe) = self.pipes.get_mut(&id) else { return };
            let (conn, peer) = (pipe.conn, pipe.peer);
            match pipe.read(most) {
                Next::Nothing => return,
                Next::Bytes(bytes, marks) => self.received(id, conn, &bytes, &marks),
                Next::End(end, mark) => {
                    self.note(format_args!("{peer:?} {conn} ends: {end:?}"));
                    self.read_end(id, conn, end, mark);
                    return;
                }
            }
        }
    }

    fn received(&mut self, id: PipeId, conn: ConnId, bytes: &[u8], marks: &[Mark]) {
        let peer = self.pipes[&id].peer;
        let what: Vec<String> = marks.iter().map(|mark| shown(&mark.to_string())).collect();
        let what = what.join("; ");
        self.note(format_args!("{peer:?} {conn} sends {} bytes: {what}", bytes.len()));
        let answered = marks.iter().find_map(|mark| self.answer_of(id, mark));
        self.engine.handle(self.now, Input::Received(conn, bytes));
        self.after(&Cause::Received(conn, marks), answered);
    }

    fn read_end(&mut self, id: PipeId, conn: ConnId, end: End, mark: Option<Mark>) {
        let answered = mark.and_then(|mark| self.answer_of(id, &mark));
        match end {
            End::Fin => {
                self.engine.handle(self.now, Input::Ended(conn));
                self.after(&Cause::Ended(conn), answered);
            }
            End::Reset => self.step(&Cause::Lost(conn), Input::Lost(conn, "reset")),
        }
    }

    // --------------------------------------------------------------- writing

    /// Writes what waits: all replies, and some of the fan-outs.
    fn flush(&mut self) {
        while let Some(conn) = self.engine.next_prompt() {
            self.write(conn);
        }
        let budget = if self.has(Fault::Stalls) { self.dice.between(1, 4) } else { 512 };
        for _ in 0..budget {
            let Some(conn) = self.engine.next_bulk() else { break };
            self.write(conn);
        }
    }

    fn write(&mut self, conn: ConnId) {
        let Some(outbox) = self.engine.outbox(conn) else { return };
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let used = outbox.slices_from(0, &mut slices);
        let bytes: Vec<u8> =
            slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
        let waits = outbox.bytes();
        let pipe = self.by_conn.get(&conn).and_then(|id| Some((*id, self.pipes.get_mut(id)?)));
        let Some((id, pipe)) = pipe else { panic!("{conn} is not connected") };
        if pipe.broken {
            return self.step(&Cause::Lost(conn), Input::Lost(conn, "broken pipe"));
        }
        let written = bytes.len().min(pipe.room());
        pipe.down.extend(&bytes[..written]);
        pipe.blocked = written < bytes.len();
        let (blocked, stalled) = (pipe.blocked, pipe.stalled);
        self.mirror.sent(conn, written);
        if written > 0 && !stalled {
            let delay = self.delay();
            self.plan(delay, Happening::Deliver(id));
        }
        if blocked {
            self.note(format_args!("{conn} takes {written} bytes of {waits}"));
            self.engine.blocked(self.now, conn, written);
        } else {
            self.engine.written(self.now, conn, written);
        }
        self.after(&Cause::Other, None);
        self.check_queue(conn);
        self.emptied(conn);
    }

    /// A client that takes nothing does not gather more than the limit. One message of any size
    /// may wait. One that is being closed gathers nothing: what it has is of the turn of its close.
    fn check_queue(&self, conn: ConnId) {
        let gathers = self.engine.kind(conn) == Some(Kind::Client);
        let outbox = self.engine.outbox(conn).filter(|outbox| gathers && !outbox.is_sealed());
        if let Some(outbox) = outbox {
            let most = self.rules.limits.send_queue + LONGEST_FRAME;
            assert!(outbox.bytes() <= most, "{conn}: {} bytes wait", outbox.bytes());
        }
    }

    /// Shuts down for writing what was to be when nothing waited any more.
    pub(super) fn emptied(&mut self, conn: ConnId) {
        if self.engine.outbox(conn).is_some_and(|outbox| !outbox.is_empty()) {
            return;
        }
        let Some(&id) = self.by_conn.get(&conn) else { return };
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if std::mem::take(&mut pipe.half_closing) {
            pipe.down_end = Some(End::Fin);
            let delay = self.delay();
            self.plan(delay, Happening::Deliver(id));
        }
    }

    /// The peer reads what was written.
    fn deliver(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| !pipe.stalled) else { return };
        if matches!(pipe.peer, Peer::Redis(index) if self.servers[index].hangs) {
            return;
        }
        let bytes: Vec<u8> = pipe.down.drain(..).collect();
        let (end, peer, conn) = (pipe.down_end.take(), pipe.peer, pipe.conn);
        let was_blocked = std::mem::take(&mut pipe.blocked);
        let mut chunks = Vec::new();
        match peer {
            _ if bytes.is_empty() => {}
            Peer::Client(index) => {
                let client = &mut self.clients[index];
                if client.pipe == Some(id) {
                    chunks = client.received(&bytes, &mut self.dice);
                }
            }
            Peer::Redis(index) => {
                chunks = self.servers[index].received(id, &bytes);
            }
            Peer::Service(_) => self.request_bytes(id, &bytes),
            Peer::Nobody => {}
        }
        self.send(id, chunks);
        if let Some(end) = end {
            self.peer_ended(id, peer, end);
        }
        if was_blocked {
            self.engine.unblocked(conn);
        }
    }

    /// The program has ended its direction, or closed.
    fn peer_ended(&mut self, id: PipeId, peer: Peer, end: End) {
        let chunks = match peer {
            Peer::Client(index) if self.clients[index].pipe == Some(id) => {
                if end == End::Reset {
                    self.clients[index].gone();
                    return;
                }
                self.clients[index].ended()
            }
            Peer::Redis(index) => {
                self.servers[index].gone(id);
                return;
            }
            _ => return,
        };
        self.send(id, chunks);
    }
}
