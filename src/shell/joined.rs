//! The bytes of several frames in one piece, shared by the connections that wait for the same ones.
//!
//! In a burst on a topic, thousands of connections have the same frames in their outboxes. One
//! buffer that all of them are written from costs the kernel less than a list of frames each, and
//! less than a copy each.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::outbox::{Frame, Outbox};

/// Frames are joined up to here; more go as lists.
const BYTES_MAX: usize = 65_536;

/// The frames that were joined last, and their bytes.
#[derive(Default)]
pub struct Joined {
    frames: Vec<Frame>,
    bytes: Vec<u8>,
}

impl Joined {
    /// The bytes of all that waits in an outbox, where that is several whole frames and not too
    /// much.
    pub fn bytes_of(&mut self, outbox: &Outbox) -> Option<&[u8]> {
        let waiting = outbox.several_frames()?;
        if waiting.len() < 2 || outbox.bytes() > BYTES_MAX {
            return None;
        }
        if !self.holds(waiting) {
            self.clear();
            self.frames.extend(waiting.iter().cloned());
            for frame in waiting {
                self.bytes.extend_from_slice(frame);
            }
        }
        Some(&self.bytes)
    }

    fn holds(&self, waiting: &VecDeque<Frame>) -> bool {
        let mut pairs = self.frames.iter().zip(waiting);
        self.frames.len() == waiting.len() && pairs.all(|(ours, theirs)| Rc::ptr_eq(ours, theirs))
    }

    /// Lets go of the frames; the room stays.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, ConnTag};
    use crate::outbox::Mail;

    #[test]
    fn the_same_frames_are_joined_once_and_others_anew() {
        let mut ids = Arena::<ConnTag, ()>::default();
        let mut mail = Mail::default();
        let conns = [ids.insert(()), ids.insert(()), ids.insert(())];
        let (a, b): (Frame, Frame) = (b"one"[..].into(), b"two"[..].into());
        for conn in conns {
            mail.open(conn, 1_000, true);
            mail.post(conn, &a).unwrap();
        }
        let mut joined = Joined::default();
        assert_eq!(joined.bytes_of(mail.outbox(conns[0]).unwrap()), None, "one frame is one piece");
        for conn in &conns[..2] {
            mail.post(*conn, &b).unwrap();
            assert_eq!(joined.bytes_of(mail.outbox(*conn).unwrap()), Some(&b"onetwo"[..]));
        }
        mail.post(conns[2], &a).unwrap();
        assert_eq!(joined.bytes_of(mail.outbox(conns[2]).unwrap()), Some(&b"oneone"[..]));
        mail.blocked(conns[0], 1).unwrap();
        assert_eq!(joined.bytes_of(mail.outbox(conns[0]).unwrap()), None, "one frame is begun");
    }
}
