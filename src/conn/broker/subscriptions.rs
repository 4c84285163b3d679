//! Who reads which channels and patterns. In the order of their names, so that listings are
//! the same every time, and no name makes look-ups slow.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::glob;
use crate::arena::ConnId;
use crate::limits::{BROKER_PATTERNS_BYTES_MAX, BROKER_PATTERNS_MAX};

/// The readers of one channel: at least one.
#[derive(Default)]
struct Readers {
    /// The router of this process.
    router: bool,
    peers: Vec<ConnId>,
}

impl Readers {
    fn count(&self) -> usize {
        self.peers.len() + usize::from(self.router)
    }
}

#[derive(Default)]
pub struct Subscriptions {
    channels: BTreeMap<Rc<[u8]>, Readers>,
    patterns: BTreeMap<Rc<[u8]>, Vec<ConnId>>,
    /// The length of all patterns.
    pattern_bytes: usize,
}

impl Subscriptions {
    pub fn join_router(&mut self, channel: &[u8]) {
        self.channels.entry(channel.into()).or_default().router = true;
    }

    pub fn leave_router(&mut self, channel: &[u8]) {
        let Some(readers) = self.channels.get_mut(channel) else { return };
        readers.router = false;
        if readers.count() == 0 {
            self.channels.remove(channel);
        }
    }

    /// One more reader; must not be one already. Gives the name to keep, shared.
    pub fn join(&mut self, channel: &[u8], reader: ConnId) -> Rc<[u8]> {
        let name = match self.channels.get_key_value(channel) {
            Some((name, _)) => name.clone(),
            None => channel.into(),
        };
        self.channels.entry(name.clone()).or_default().peers.push(reader);
        name
    }

    pub fn leave(&mut self, channel: &[u8], reader: ConnId) {
        let Some(readers) = self.channels.get_mut(channel) else { return };
        take_out(&mut readers.peers, reader);
        if readers.count() == 0 {
            self.channels.remove(channel);
        }
    }

    /// The same for a pattern. `None`: there are too many.
    pub fn join_pattern(&mut self, pattern: &[u8], reader: ConnId) -> Option<Rc<[u8]>> {
        let name = match self.patterns.get_key_value(pattern) {
            Some((name, _)) => name.clone(),
            None => {
                let bytes = self.pattern_bytes + pattern.len();
                if self.patterns.len() >= BROKER_PATTERNS_MAX || bytes > BROKER_PATTERNS_BYTES_MAX {
                    return None;
                }
                self.pattern_bytes = bytes;
                pattern.into()
            }
        };
        self.patterns.entry(name.clone()).or_default().push(reader);
        Some(name)
    }

    pub fn leave_pattern(&mut self, pattern: &[u8], reader: ConnId) {
        let Some(readers) = self.patterns.get_mut(pattern) else { return };
        take_out(readers, reader);
        if readers.is_empty() {
            self.patterns.remove(pattern);
            self.pattern_bytes -= pattern.len();
        }
    }

    /// Whether the router reads the channel.
    pub fn has_router(&self, channel: &[u8]) -> bool {
        self.channels.get(channel).is_some_and(|readers| readers.router)
    }

    /// The peers that read the channel by its name.
    pub fn readers(&self, channel: &[u8]) -> &[ConnId] {
        self.channels.get(channel).map_or(&[], |readers| &readers.peers)
    }

    pub fn pattern_readers(&self, pattern: &[u8]) -> &[ConnId] {
        self.patterns.get(pattern).map_or(&[], Vec::as_slice)
    }

    /// The patterns that match the channel, with their readers.
    pub fn matching(&self, channel: &[u8]) -> impl Iterator<Item = (&[u8], &[ConnId])> {
        let matching = self.patterns.iter().filter(|(name, _)| glob::matches(name, channel));
        matching.map(|(name, readers)| (&**name, &readers[..]))
    }

    /// How many read the channel by its name, the router included.
    pub fn count(&self, channel: &[u8]) -> usize {
        self.channels.get(channel).map_or(0, Readers::count)
    }

    /// The channels that are read, those that match `pattern` if there is one.
    pub fn channels(&self, pattern: Option<&[u8]>) -> Vec<&[u8]> {
        let names = self.channels.keys().map(|name| &**name);
        names.filter(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name))).collect()
    }

    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// Subscriptions of all peers.
    pub fn len(&self) -> usize {
        let of_channels: usize = self.channels.values().map(|readers| readers.peers.len()).sum();
        let of_patterns: usize = self.patterns.values().map(Vec::len).sum();
        of_channels + of_patterns
    }

    /// Checks what must always hold; for tests and simulations.
    pub fn audit(&self) {
        assert!(self.channels.values().all(|readers| readers.count() > 0), "a channel is read");
        assert!(self.patterns.values().all(|readers| !readers.is_empty()), "a pattern is read");
        let bytes: usize = self.patterns.keys().map(|pattern| pattern.len()).sum();
        assert_eq!(bytes, self.pattern_bytes, "every pattern counts");
    }
}

fn take_out(readers: &mut Vec<ConnId>, reader: ConnId) {
    if let Some(at) = readers.iter().position(|&other| other == reader) {
        readers.swap_remove(at);
    }
}
