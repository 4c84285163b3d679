//! Log text on its way out. A pipe that nobody reads must not stop the loop: a thread writes, and
//! what it cannot keep up with is dropped and counted.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::limits::LOG_BYTES_MAX;

/// Turns' worth of text that may wait for the thread.
const WAITING_MAX: usize = 256;

/// How long the end of the process waits for the last lines.
const FINISH_SECONDS_MAX: Duration = Duration::from_secs(1);

pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

pub struct Stderr {
    /// Bytes that wait for the thread: it alone says when they are written.
    waiting: Arc<AtomicUsize>,
    /// `None`: there is no thread, and the text is written at once.
    lines: Option<SyncSender<String>>,
    done: Receiver<()>,
}

impl Stderr {
    pub fn new() -> Stderr {
        let (lines, taken) = sync_channel::<String>(WAITING_MAX);
        let (finished, done) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = waiting.clone();
        let spawned =
            thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024).spawn(move || {
                for text in taken {
                    write(&text);
                    written.fetch_sub(text.len(), Ordering::Relaxed);
                }
                // The other side may have given up waiting.
                let _ = finished.try_send(());
            });
        Stderr { waiting, lines: spawned.is_ok().then_some(lines), done }
    }

    /// Hands text to the thread; gives the number of lines that had to be dropped.
    pub fn write(&mut self, text: String) -> u64 {
        let Some(lines) = &self.lines else {
            write(&text);
            return 0;
        };
        let bytes = text.len();
        if self.waiting.load(Ordering::Relaxed) > LOG_BYTES_MAX {
            return text.lines().count() as u64;
        }
        // Before the thread can take it off again.
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        match lines.try_send(text) {
            Ok(()) => 0,
            Err(TrySendError::Full(text) | TrySendError::Disconnected(text)) => {
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                text.lines().count() as u64
            }
        }
    }

    /// Lets the last lines out.
    pub fn finish(&mut self) {
        if self.lines.take().is_some() {
            // Whether they got out or not, this is the end.
            let _ = self.done.recv_timeout(FINISH_SECONDS_MAX);
        }
    }
}

fn write(text: &str) {
    // There is nowhere to say that stderr is broken.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
