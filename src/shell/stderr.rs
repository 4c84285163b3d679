//! Log text on its way out. A pipe that nobody reads must not stop the loop: a thread writes, and
//! what it cannot keep up with is dropped and counted.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Turns' worth of text that may wait for the thread.
const WAITING_MAX: usize = 256;

/// How long the end of the process waits for the last lines.
const FINISH_SECONDS_MAX: Duration = Duration::from_secs(1);

pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

pub struct Stderr {
    /// `None`: there is no thread, and the text is written at once.
    lines: Option<SyncSender<String>>,
    done: Receiver<()>,
}

impl Stderr {
    pub fn new() -> Stderr {
        let (lines, taken) = sync_channel::<String>(WAITING_MAX);
        let (finished, done) = sync_channel(1);
        let spawned =
            thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024).spawn(move || {
                for text in taken {
                    write(&text);
                }
                // The other side may have given up waiting.
                let _ = finished.try_send(());
            });
        Stderr { lines: spawned.is_ok().then_some(lines), done }
    }

    /// Hands text to the thread; gives the number of lines that had to be dropped.
    pub fn write(&mut self, text: String) -> u64 {
        let Some(lines) = &self.lines else {
            write(&text);
            return 0;
        };
        match lines.try_send(text) {
            Ok(()) => 0,
            Err(TrySendError::Full(text) | TrySendError::Disconnected(text)) => {
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
