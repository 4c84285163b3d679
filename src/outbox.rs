//! What waits in user space to be written: one `Outbox` per connection, all of them in `Mail`.
//!
//! A frame is encoded once and shared by all its receivers; posting it to one more connection
//! is a reference count and a mark. The shell takes marked connections in turn and writes each
//! once. Replies to a peer go before bulk fan-out, so that a broadcast to thousands does not hold
//! up somebody's pong.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::rc::Rc;

use crate::arena::{ConnId, ConnTag, Table};
use crate::limits::{SPARE_QUEUE_FRAMES_MAX, SPARE_QUEUES_MAX};

/// Bytes ready for the wire, shared by all connections that get them.
pub type Frame = Rc<[u8]>;

/// The peer takes its bytes more slowly than they come: over the limit while others wait already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSlow;

/// Where a connection stands with the shell's writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Nothing to write.
    Idle,
    /// In the bulk queue.
    Bulk,
    /// In the prompt queue (and perhaps in the bulk queue as well).
    Prompt,
    /// The socket takes no more; the shell calls `unblocked` when it does.
    Blocked,
}

/// Frames in their order. Mostly there is none or one, and connections are many: only where more
/// than one wait do they need a queue.
#[derive(Default)]
enum Frames {
    #[default]
    None,
    One(Frame),
    Several(VecDeque<Frame>),
}

/// What waits for one connection.
pub struct Outbox {
    frames: Frames,
    /// Bytes of the first frame that are written already.
    head_sent: usize,
    /// Bytes that wait: the sum of all frames less `head_sent`.
    bytes: usize,
    /// `send_queue_bytes`; `usize::MAX` for connections that are bounded otherwise.
    limit: usize,
    turn: Turn,
    /// Bytes that wait elsewhere to be posted here: for a subscribe's end, for a throttle's.
    parked: usize,
    /// No frame may follow: the last words are queued.
    sealed: bool,
    /// A client is at the other end: what is written counts as sent to clients.
    is_client: bool,
}

impl Frames {
    fn len(&self) -> usize {
        match self {
            Frames::None => 0,
            Frames::One(_) => 1,
            Frames::Several(frames) => frames.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Frame> {
        let (one, several) = match self {
            Frames::None => (None, None),
            Frames::One(frame) => (Some(frame), None),
            Frames::Several(frames) => (None, Some(frames.iter())),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    fn push(&mut self, frame: Frame, queues: &mut Queues) {
        match self {
            Frames::None => *self = Frames::One(frame),
            Frames::Several(frames) => frames.push_back(frame),
            Frames::One(_) => {
                let mut frames = queues.take();
                frames.extend(mem::take(self).iter().cloned());
                frames.push_back(frame);
                *self = Frames::Several(frames);
            }
        }
    }

    fn clear(&mut self, queues: &mut Queues) {
        if let Frames::Several(frames) = mem::take(self) {
            queues.give_back(frames);
        }
    }
}

/// Queues that connections borrow while several frames wait for them.
#[derive(Default)]
struct Queues(Vec<VecDeque<Frame>>);

impl Queues {
    fn take(&mut self) -> VecDeque<Frame> {
        self.0.pop().unwrap_or_default()
    }

    fn give_back(&mut self, mut frames: VecDeque<Frame>) {
        if self.0.len() < SPARE_QUEUES_MAX && frames.capacity() <= SPARE_QUEUE_FRAMES_MAX {
            frames.clear();
            self.0.push(frames);
        }
    }
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        matches!(self.frames, Frames::None)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait because the socket takes no more; none while it has not had its chance.
    pub fn blocked_bytes(&self) -> usize {
        if self.turn == Turn::Blocked { self.bytes } else { 0 }
    }

    /// All that waits for the peer: what its socket does not take, and what is parked.
    pub fn waiting_bytes(&self) -> usize {
        self.blocked_bytes() + self.parked
    }

    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whether a client is at the other end.
    pub fn is_client(&self) -> bool {
        self.is_client
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The frames that wait, where they are several and none of them is begun.
    pub fn several_frames(&self) -> Option<&VecDeque<Frame>> {
        match &self.frames {
            Frames::Several(frames) if self.head_sent == 0 => Some(frames),
            _ => None,
        }
    }

    /// What is left of the one frame that waits, past the first `skip` bytes.
    pub fn one_frame_from(&self, skip: usize) -> Option<&[u8]> {
        match &self.frames {
            Frames::One(frame) => frame.get(self.head_sent + skip..),
            _ => None,
        }
    }

    /// Fills `into` with what is to be written next, past the first `skip` bytes, and says how
    /// many slices are used.
    pub fn slices_from<'a>(&'a self, skip: usize, into: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.head_sent + skip;
        let mut used = 0;
        for frame in self.frames.iter() {
            if skip >= frame.len() {
                skip -= frame.len();
                continue;
            }
            let Some(slot) = into.get_mut(used) else { break };
            *slot = IoSlice::new(&frame[skip..]);
            skip = 0;
            used += 1;
        }
        used
    }

    fn push(&mut self, frame: Frame, queues: &mut Queues) {
        self.bytes += frame.len();
        self.frames.push(frame, queues);
    }

    fn consume(&mut self, mut written: usize, queues: &mut Queues) {
        assert!(written <= self.bytes, "no more is written than waits");
        self.bytes -= written;
        if self.bytes == 0 {
            self.head_sent = 0;
            return self.frames.clear(queues);
        }
        let Frames::Several(frames) = &mut self.frames else {
            self.head_sent += written;
            return;
        };
        while let Some(head) = frames.front() {
            let left = head.len() - self.head_sent;
            if written < left {
                self.head_sent += written;
                break;
            }
            written -= left;
            self.head_sent = 0;
            frames.pop_front();
        }
    }

    /// Whether more waits than may. One message of any size may wait alone.
    fn is_over(&self) -> bool {
        self.bytes + self.parked > self.limit && self.frames.len() > 1
    }
}

/// All outboxes and the queues of those with something new to write.
#[derive(Default)]
pub struct Mail {
    boxes: Table<ConnTag, Outbox>,
    prompt: VecDeque<ConnId>,
    bulk: VecDeque<ConnId>,
    /// Bytes waiting in all outboxes.
    bytes: usize,
    /// Bytes that were written to clients.
    sent: u64,
    queues: Queues,
}

impl Mail {
    /// Makes room for a new connection's bytes; `is_client`: they count as sent to clients.
    pub fn open(&mut self, id: ConnId, limit: usize, is_client: bool) {
        let outbox = Outbox {
            frames: Frames::None,
            head_sent: 0,
            bytes: 0,
            limit,
            turn: Turn::Idle,
            parked: 0,
            sealed: false,
            is_client,
        };
        self.boxes.insert(id, outbox);
    }

    /// Forgets a connection with all that waits for it.
    pub fn close(&mut self, id: ConnId) {
        if let Some(outbox) = self.boxes.remove(id) {
            self.bytes -= outbox.bytes;
        }
    }

    pub fn set_limit(&mut self, id: ConnId, limit: usize) {
        if let Some(outbox) = self.boxes.get_mut(id) {
            outbox.limit = limit;
        }
    }

    /// Bytes waiting for all connections together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that have been written to clients.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn outbox(&self, id: ConnId) -> Option<&Outbox> {
        self.boxes.get(id)
    }

    /// Counts bytes that wait elsewhere to be posted to a connection: they have one limit with
    /// those that wait here.
    pub fn park(&mut self, id: ConnId, bytes: usize) {
        if let Some(outbox) = self.boxes.get_mut(id) {
            outbox.parked += bytes;
        }
    }

    /// They wait there no more.
    pub fn unpark(&mut self, id: ConnId, bytes: usize) {
        if let Some(outbox) = self.boxes.get_mut(id) {
            outbox.parked -= bytes;
        }
    }

    /// Queues one receiver's copy of a fan-out.
    ///
    /// The limit counts what waits while the socket takes no more: a burst within one turn of the
    /// loop is judged after the socket had its chance (`blocked`).
    pub fn post(&mut self, to: ConnId, frame: &Frame) -> Result<(), TooSlow> {
        self.queue(to, frame.clone(), Turn::Bulk)
    }

    /// Queues bytes that should go out before any waiting fan-out.
    pub fn post_prompt(&mut self, to: ConnId, frame: Frame) -> Result<(), TooSlow> {
        self.queue(to, frame, Turn::Prompt)
    }

    fn queue(&mut self, to: ConnId, frame: Frame, turn: Turn) -> Result<(), TooSlow> {
        let Some(outbox) = self.boxes.get_mut(to) else { return Ok(()) };
        if outbox.sealed || frame.is_empty() {
            return Ok(());
        }
        let waiting = outbox.bytes.saturating_add(outbox.parked);
        let over = waiting.saturating_add(frame.len()) > outbox.limit;
        if over && !outbox.is_empty() && outbox.turn == Turn::Blocked {
            return Err(TooSlow);
        }
        self.bytes += frame.len();
        outbox.push(frame, &mut self.queues);
        match (outbox.turn, turn) {
            (Turn::Idle, Turn::Bulk) => {
                outbox.turn = Turn::Bulk;
                self.bulk.push_back(to);
            }
            (Turn::Idle | Turn::Bulk, Turn::Prompt) => {
                outbox.turn = Turn::Prompt;
                self.prompt.push_back(to);
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets nothing follow what is queued: a close frame is the last frame.
    pub fn seal(&mut self, id: ConnId) {
        if let Some(outbox) = self.boxes.get_mut(id) {
            outbox.sealed = true;
        }
    }

    /// Drops everything that has not begun to be written, so that last words need not wait behind
    /// what the peer is too slow for.
    pub fn drop_unsent(&mut self, id: ConnId) {
        let Some(outbox) = self.boxes.get_mut(id) else { return };
        let begun = outbox.frames.iter().next().filter(|_| outbox.head_sent > 0).cloned();
        let kept = begun.as_ref().map_or(0, |frame| frame.len() - outbox.head_sent);
        outbox.frames.clear(&mut self.queues);
        outbox.frames = begun.map_or(Frames::None, Frames::One);
        self.bytes -= outbox.bytes - kept;
        outbox.bytes = kept;
    }

    pub fn pen(&mut self, of: ConnId) -> Pen<'_> {
        Pen { mail: self, of }
    }

    /// The next connection whose replies should be written.
    pub fn next_prompt(&mut self) -> Option<ConnId> {
        while let Some(id) = self.prompt.pop_front() {
            if self.boxes.get(id).is_some_and(|outbox| outbox.turn == Turn::Prompt) {
                return Some(id);
            }
        }
        None
    }

    /// The next connection of a fan-out.
    pub fn next_bulk(&mut self) -> Option<ConnId> {
        while let Some(id) = self.bulk.pop_front() {
            // Those that had a reply meanwhile are written already.
            if self.boxes.get(id).is_some_and(|outbox| outbox.turn == Turn::Bulk) {
                return Some(id);
            }
        }
        None
    }

    /// Whether anything waits for the shell to write it.
    pub fn has_work(&self) -> bool {
        !self.prompt.is_empty() || !self.bulk.is_empty()
    }

    /// Connections that wait in the bulk queue, written ones among them.
    pub fn backlog(&self) -> usize {
        self.bulk.len()
    }

    /// The shell wrote this much of a connection's outbox and the socket would take more.
    /// If something is left (a write is bounded), the connection goes to the end of the queue.
    pub fn written(&mut self, id: ConnId, bytes: usize) {
        self.bytes -= bytes;
        let Some(outbox) = self.boxes.get_mut(id) else { return };
        self.sent += if outbox.is_client { bytes as u64 } else { 0 };
        outbox.consume(bytes, &mut self.queues);
        outbox.turn = Turn::Idle;
        if !outbox.is_empty() {
            outbox.turn = Turn::Bulk;
            self.bulk.push_back(id);
        }
    }

    /// The shell wrote this much and the socket takes no more for now.
    pub fn blocked(&mut self, id: ConnId, bytes: usize) -> Result<(), TooSlow> {
        self.bytes -= bytes;
        let Some(outbox) = self.boxes.get_mut(id) else { return Ok(()) };
        self.sent += if outbox.is_client { bytes as u64 } else { 0 };
        outbox.consume(bytes, &mut self.queues);
        outbox.turn = if outbox.is_empty() { Turn::Idle } else { Turn::Blocked };
        if outbox.is_over() && !outbox.sealed { Err(TooSlow) } else { Ok(()) }
    }

    /// The socket takes bytes again.
    pub fn unblocked(&mut self, id: ConnId) {
        let Some(outbox) = self.boxes.get_mut(id) else { return };
        if outbox.turn == Turn::Blocked {
            outbox.turn = Turn::Prompt;
            self.prompt.push_back(id);
        }
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        let mut total = 0;
        for (_, outbox) in self.boxes.iter() {
            let sum: usize = outbox.frames.iter().map(|frame| frame.len()).sum();
            assert_eq!(outbox.bytes, sum - outbox.head_sent, "bytes are counted");
            assert_eq!(outbox.is_empty(), outbox.turn == Turn::Idle, "what waits has its turn");
            total += outbox.bytes;
        }
        assert_eq!(self.bytes, total, "all bytes are counted");
    }
}

/// One connection's outbox, open for writing replies.
pub struct Pen<'a> {
    mail: &'a mut Mail,
    of: ConnId,
}

impl Pen<'_> {
    pub fn write(&mut self, frame: Frame) -> Result<(), TooSlow> {
        self.mail.post_prompt(self.of, frame)
    }

    pub fn seal(&mut self) {
        self.mail.seal(self.of);
    }

    pub fn drop_unsent(&mut self) {
        self.mail.drop_unsent(self.of);
    }

    /// Bytes that wait already.
    pub fn bytes(&self) -> usize {
        self.mail.outbox(self.of).map_or(0, Outbox::bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn frame(len: usize) -> Frame {
        vec![b'x'; len].into()
    }

    fn mail(limit: usize) -> (Mail, ConnId) {
        let id = Arena::<ConnTag, ()>::default().insert(());
        let mut mail = Mail::default();
        mail.open(id, limit, true);
        (mail, id)
    }

    #[test]
    fn one_message_of_any_size_may_wait_alone() {
        let (mut mail, id) = mail(10);
        assert_eq!(mail.post(id, &frame(100)), Ok(()));
        assert_eq!(mail.outbox(id).unwrap().blocked_bytes(), 0);
        assert_eq!(mail.blocked(id, 1), Ok(()));
        assert_eq!(mail.outbox(id).unwrap().blocked_bytes(), 99);
        assert_eq!(mail.post(id, &frame(1)), Err(TooSlow));
        mail.audit();
    }

    #[test]
    fn a_burst_is_judged_after_the_socket_had_its_chance() {
        let (mut mail, id) = mail(10);
        for _ in 0..5 {
            assert_eq!(mail.post(id, &frame(6)), Ok(()));
        }
        assert_eq!(mail.next_bulk(), Some(id));
        mail.written(id, 30);
        assert!(!mail.has_work());
        for _ in 0..5 {
            assert_eq!(mail.post(id, &frame(6)), Ok(()));
        }
        assert_eq!(mail.next_bulk(), Some(id));
        assert_eq!(mail.blocked(id, 7), Err(TooSlow));
        mail.audit();
    }

    #[test]
    fn a_reply_goes_before_fan_out_and_takes_the_fan_out_with_it() {
        let (mut mail, id) = mail(1000);
        mail.post(id, &frame(3)).unwrap();
        mail.pen(id).write(frame(4)).unwrap();
        assert_eq!(mail.next_prompt(), Some(id));
        mail.written(id, 7);
        assert_eq!(mail.next_bulk(), None);
        mail.audit();
    }

    #[test]
    fn a_partial_write_goes_on_in_the_middle_of_a_frame() {
        let (mut mail, id) = mail(1000);
        mail.post(id, &frame(5)).unwrap();
        mail.post(id, &frame(5)).unwrap();
        assert_eq!(mail.next_bulk(), Some(id));
        mail.blocked(id, 7).unwrap();
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(mail.outbox(id).unwrap().slices_from(0, &mut slices), 1);
        assert_eq!(slices[0].len(), 3);
        assert!(!mail.has_work());
        mail.unblocked(id);
        assert_eq!(mail.next_prompt(), Some(id));
        mail.audit();
    }

    #[test]
    fn nothing_follows_the_seal_and_a_begun_frame_is_finished() {
        let (mut mail, id) = mail(1000);
        mail.post(id, &frame(5)).unwrap();
        mail.post(id, &frame(6)).unwrap();
        mail.blocked(id, 2).unwrap();
        let mut pen = mail.pen(id);
        pen.drop_unsent();
        pen.write(frame(4)).unwrap();
        pen.seal();
        pen.write(frame(9)).unwrap();
        assert_eq!(mail.outbox(id).unwrap().bytes(), 3 + 4);
        mail.audit();
        mail.close(id);
        assert_eq!(mail.bytes(), 0);
    }
}
