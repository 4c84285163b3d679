//! What clients and publishers do of their own accord.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use socketshark::message::Hook;

use super::World;
use super::pipe::{Chunk, End};
use crate::peers::asks::{ask, crowd};
use crate::peers::publisher::message;
use crate::swarm::{Fault, Service};

/// So many on one channel, and receivers are looked up.
const LOOKED_UP: usize = 68;

impl World<'_> {
    pub(super) fn client_deed(&mut self) {
        let index = self.dice.below(self.clients.len());
        let Some(pipe) = self.clients[index].pipe else { return self.connect(index) };
        match self.dice.below(100) {
            0..3 if !self.clients[index].silent => {
                let code = *self.dice.pick(&[
                    None,
                    Some(1000),
                    Some(1001),
                    Some(1014),
                    Some(3000),
                    Some(4999),
                ]);
                let chunk = self.clients[index].close(code, &mut self.dice);
                self.send(pipe, vec![chunk]);
            }
            3..5 => {
                self.send(pipe, vec![Chunk::end(End::Fin)]);
                self.clients[index].gone();
            }
            _ if self.clients[index].silent => {}
            5..7 if self.has(Fault::Rude) => self.cut(pipe, End::Reset),
            7..10 => {
                if self.pings_are_safe() {
                    let chunk = self.clients[index].ping(&mut self.dice);
                    self.send(pipe, vec![chunk]);
                }
            }
            10..25 if self.clients[index].mute || self.dice.chance(15) => {
                let chunk = self.clients[index].odd_pong(&mut self.dice);
                self.send(pipe, vec![chunk]);
            }
            _ => self.events(index),
        }
    }

    /// Where queues are small, a pong may be what makes a client too slow, in the middle of what
    /// it sends: what of that still counts is nobody's business.
    fn pings_are_safe(&self) -> bool {
        self.rules.limits.send_queue > 10_000
    }

    /// Everybody comes and subscribes to the same: most, and then the others while messages come.
    pub(super) fn crowd(&mut self) {
        // One whose messages are filtered, and that keeps subscribers waiting, if there is any.
        let suits = |service: &&Rc<Service>| {
            let filters = !service.filter_fields.is_empty();
            (filters, service.has(Hook::BeforeSubscribe), service.filter_fields.len())
        };
        let service = self.rules.services.iter().max_by_key(suits);
        let service = service.expect("there are services").name.clone();
        for index in 0..self.clients.len() {
            self.connect(index);
        }
        self.live_for(Duration::from_secs(1));
        self.join_crowd(0..LOOKED_UP, &service);
        self.live_for(Duration::from_secs(20));
        self.join_crowd(LOOKED_UP..self.clients.len(), &service);
        for _ in 0..60 {
            self.live_for(Duration::from_millis(5));
            self.publish();
        }
        self.live_for(Duration::from_secs(5));
    }

    fn join_crowd(&mut self, clients: Range<usize>, service: &str) {
        for index in clients {
            let client = &mut self.clients[index];
            let Some(pipe) = client.pipe else { continue };
            let mut chunks = Vec::new();
            for (text, ask) in crowd(client, service, &mut self.dice) {
                chunks.extend(client.event(&text, ask, false, &mut self.dice));
            }
            self.send(pipe, chunks);
        }
    }

    fn events(&mut self, index: usize) {
        let many = if self.has(Fault::Storms) && self.dice.chance(20) { 40 } else { 3 };
        for _ in 0..self.dice.between(1, many) {
            self.event(index);
        }
    }

    fn event(&mut self, index: usize) {
        let pings = self.pings_are_safe();
        let client = &mut self.clients[index];
        let Some(pipe) = client.pipe else { return };
        let (text, ask) = ask(client, &self.rules, &mut self.dice);
        let chunks = client.event(&text, ask, pings, &mut self.dice);
        self.send(pipe, chunks);
    }

    /// Somebody publishes something at one of the Redis servers.
    pub(super) fn publish(&mut self) {
        self.published += 1;
        let mut used: Vec<String> = self.engine.channels().into_iter().map(str::to_owned).collect();
        used.sort_unstable();
        let (channel, message) = message(self.published, &used, &self.rules, &mut self.dice);
        let server = self.dice.below(self.servers.len());
        for (pipe, chunk) in self.servers[server].publish(&channel, &message) {
            self.send(pipe, vec![chunk]);
        }
    }
}
