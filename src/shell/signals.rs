//! Signals as events of the poll. SIGPIPE is ignored by Rust's runtime from the start.

use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    Stop,
    Reload,
}

pub struct Signals {
    pending: signal_hook_mio::v1_0::Signals,
}

impl Signals {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Signals> {
        let mut pending = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        registry.register(&mut pending, token, Interest::READABLE)?;
        Ok(Signals { pending })
    }

    /// The signals that have come.
    pub fn take(&mut self) -> Vec<Signal> {
        let signal = |number| if number == SIGHUP { Signal::Reload } else { Signal::Stop };
        self.pending.pending().map(signal).collect()
    }
}
