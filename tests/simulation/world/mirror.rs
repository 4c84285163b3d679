//! A copy of what waits in the program's outboxes, so that everything it queues is seen at the
//! moment that it queues it, whether or not it is ever written.

use std::collections::BTreeMap;
use std::io::IoSlice;

use socketshark::arena::ConnId;
use socketshark::engine::Engine;
use socketshark::ports::Core;

use crate::model::Seen;
use crate::wire::frames::Listener;
use crate::wire::resp::Commands;

/// The outboxes of clients and of Redis links.
#[derive(Default)]
pub struct Mirror {
    boxes: BTreeMap<ConnId, Copy>,
}

struct Copy {
    unsent: Vec<u8>,
    reader: Reader,
}

enum Reader {
    Client(Listener),
    Redis(Commands),
}

impl Mirror {
    pub fn add_client(&mut self, conn: ConnId) {
        let reader = Reader::Client(Listener::default());
        self.boxes.insert(conn, Copy { unsent: Vec::new(), reader });
    }

    pub fn add_redis(&mut self, conn: ConnId) {
        let reader = Reader::Redis(Commands::default());
        self.boxes.insert(conn, Copy { unsent: Vec::new(), reader });
    }

    pub fn remove(&mut self, conn: ConnId) {
        self.boxes.remove(&conn);
    }

    /// So much was written.
    pub fn sent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(copy) = self.boxes.get_mut(&conn) {
            copy.unsent.drain(..bytes);
        }
    }

    /// Notes what is new in all outboxes. Gives the new bytes to `each`.
    pub fn look(&mut self, engine: &Engine, seen: &mut Seen, mut each: impl FnMut(&[u8])) {
        for (&conn, copy) in &mut self.boxes {
            let Some(outbox) = engine.outbox(conn) else { continue };
            if let Reader::Client(_) = copy.reader {
                seen.waiting.insert(conn, copy.unsent.len());
            }
            let mut bytes = Vec::with_capacity(outbox.bytes());
            let mut slices = [IoSlice::new(&[]); 64];
            while bytes.len() < outbox.bytes() {
                let used = outbox.slices_from(bytes.len(), &mut slices);
                slices[..used].iter().for_each(|slice| bytes.extend_from_slice(slice));
            }
            let new = match bytes.strip_prefix(copy.unsent.as_slice()) {
                Some(new) => new.to_vec(),
                None => {
                    seen.dropped.insert(conn);
                    last_words(&copy.unsent, &bytes).to_vec()
                }
            };
            copy.unsent = bytes;
            if new.is_empty() {
                continue;
            }
            each(&new);
            match &mut copy.reader {
                Reader::Client(listener) => {
                    seen.said.entry(conn).or_default().extend(listener.push(&new));
                }
                Reader::Redis(commands) => {
                    seen.commands.extend(commands.push(&new).into_iter().map(|it| (conn, it)));
                }
            }
        }
    }
}

/// Something that waited is gone. That may only be what had not begun to be written, before a
/// close frame.
fn last_words<'a>(before: &[u8], now: &'a [u8]) -> &'a [u8] {
    let at = now.len().checked_sub(4).expect("a close frame is left");
    let (begun, words) = now.split_at(at);
    assert_eq!(words[..2], [0x88, 2], "only a close frame follows what was dropped");
    assert!(before.starts_with(begun), "a frame that was begun is finished");
    words
}
