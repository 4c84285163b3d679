//! The first phase: everybody does all kinds of things, and the faults of the seed strike.

use std::time::Duration;

use socketshark::ports::{Core, Door, Input};

use super::pipe::{Chunk, End, Peer, Pipe, PipeId};
use super::{Happening, World, addresses};
use crate::dice::Dice;
use crate::marks::Mark;
use crate::model::Cause;
use crate::swarm::{Fault, TOPICS};

impl World<'_> {
    pub(super) fn chaos(&mut self) {
        for step in self.params.steps.clone() {
            if self.exited.is_some() {
                return;
            }
            self.dice = Dice::of_part(self.params.seed, step);
            match self.dice.below(50) {
                0..10 => self.fault(),
                10..25 => self.publish_some(),
                25 => self.reload(),
                _ => self.client_deed(),
            }
            let pause = match self.dice.below(4) {
                0 => Duration::ZERO,
                1 => self.dice.millis(0, 1_000),
                _ => self.dice.millis(0, 100),
            };
            self.live_for(pause);
        }
    }

    /// The configuration is read again, and nothing has changed; or it cannot be read.
    fn reload(&mut self) {
        self.note("reload");
        let result = match self.dice.below(2) {
            0 => Ok(Box::new(self.rules.config())),
            _ => Err(vec!["no JSON".to_owned()]),
        };
        self.step(&Cause::Other, Input::Reload(result));
    }

    fn publish_some(&mut self) {
        let many = if self.has(Fault::Storms) && self.dice.chance(20) { 30 } else { 2 };
        for _ in 0..self.dice.between(1, many) {
            self.publish();
        }
    }

    /// A client connects, from one of a few addresses.
    pub(super) fn connect(&mut self, index: usize) {
        if !self.listening || self.exited.is_some() || !self.params.clients.contains(&index) {
            return;
        }
        let (address, octet) = addresses::of_client(index);
        let conn = self.engine.accept(self.now, Door::Clients, address);
        let Some(conn) = conn else { return };
        self.note(format_args!("client {index} connects: {conn}"));
        self.mirror.add_client(conn);
        let window = self.window();
        let pipe = self.new_pipe(Pipe::new(Peer::Client(index), conn, false, window));
        self.after(&Cause::Accepted(Some(conn), octet), None);
        let rude = self.has(Fault::Rude);
        let (bad, silent) = (rude && self.dice.chance(10), rude && self.dice.chance(5));
        let client = &mut self.clients[index];
        client.mute = rude && self.dice.chance(15);
        client.stubborn = rude && self.dice.chance(15);
        client.silent = bad || silent;
        let request = client.connect(pipe, bad, &mut self.dice);
        if !silent {
            self.send(pipe, request);
        }
    }

    // ----------------------------------------------------------------- faults

    fn fault(&mut self) {
        match self.dice.below(6) {
            0 if self.has(Fault::Cuts) => self.cut_some(),
            1 if self.has(Fault::Stalls) => self.stall_some(),
            2 if self.has(Fault::Redis) => self.hurt_redis(),
            3 if self.has(Fault::Channels) => self.deny_some(),
            4 if self.has(Fault::Rude) => self.break_a_rule(),
            5 if self.has(Fault::Cuts) && self.dice.chance(30) => {
                for _ in 0..5 {
                    self.cut_some();
                }
            }
            _ => {}
        }
    }

    fn some_pipe(&mut self) -> Option<PipeId> {
        let ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        if ids.is_empty() { None } else { Some(*self.dice.pick(&ids)) }
    }

    fn cut_some(&mut self) {
        let Some(id) = self.some_pipe() else { return };
        let end = *self.dice.pick(&[End::Fin, End::Reset]);
        // Losing Redis sends everybody away: seldom, so that there is something to lose.
        let is_redis = matches!(self.pipes[&id].peer, Peer::Redis(_));
        if !is_redis || (self.has(Fault::Redis) && self.dice.chance(20)) {
            self.cut(id, end);
        }
    }

    pub(super) fn cut(&mut self, id: PipeId, end: End) {
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| !pipe.dialling) else { return };
        if !pipe.cut(end, &mut self.dice) {
            return;
        }
        let (peer, conn) = (pipe.peer, pipe.conn);
        if pipe.busy
            && let Some(tried) = pipe.call.and_then(|call| self.tried.get_mut(&call))
        {
            tried.free += 1;
        }
        self.note(format_args!("{peer:?} {conn} is cut: {end:?}"));
        self.readable.insert(id);
        match peer {
            Peer::Client(index) if self.clients[index].pipe == Some(id) => {
                self.clients[index].gone();
            }
            Peer::Redis(index) => self.servers[index].gone(id),
            _ => {}
        }
    }

    /// A peer reads nothing for a while, mostly a client.
    fn stall_some(&mut self) {
        let client = self.dice.below(self.clients.len());
        let client = self.clients[client].pipe.filter(|_| self.dice.chance(70));
        let Some(id) = client.or_else(|| self.some_pipe()) else { return };
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.stalled = true;
            let (peer, conn) = (pipe.peer, pipe.conn);
            self.note(format_args!("{peer:?} {conn} stalls"));
        }
        let delay = self.dice.millis(10, 5_000);
        self.plan(delay, Happening::Unstall(id));
        if client.is_some() && self.dice.chance(40) {
            // What comes meanwhile has to wait.
            for _ in 0..40 {
                self.publish();
            }
        }
    }

    fn hurt_redis(&mut self) {
        if self.dice.chance(50) {
            return;
        }
        let index = self.dice.below(self.servers.len());
        match self.dice.below(3) {
            0 => {
                self.note(format_args!("Redis {index} dies"));
                self.servers[index].down = true;
                for id in self.servers[index].pipes() {
                    let end = *self.dice.pick(&[End::Fin, End::Reset]);
                    self.cut(id, end);
                }
                let delay = self.dice.millis(0, 3_000);
                self.plan(delay, Happening::RedisUp(index));
            }
            1 => {
                self.note(format_args!("Redis {index} hangs"));
                self.servers[index].hangs = true;
                let delay = self.dice.millis(10, 6_000);
                self.plan(delay, Happening::RedisWakes(index));
            }
            _ => {
                for id in self.servers[index].pipes() {
                    // Known by its first byte, or an answer that is none to anything asked.
                    let garbage = *self.dice.pick(&["!", ":5\r\n"]);
                    self.send(id, vec![Chunk::marked(garbage, Mark::Garbage)]);
                }
            }
        }
    }

    pub(super) fn redis_wakes(&mut self, index: usize) {
        self.servers[index].hangs = false;
        for id in self.servers[index].pipes() {
            self.plan(Duration::ZERO, Happening::Deliver(id));
        }
    }

    fn deny_some(&mut self) {
        let index = self.dice.below(self.servers.len());
        let service = &self.rules.services[self.dice.below(self.rules.services.len())].name;
        let name = format!("{service}.{}", self.dice.pick(&TOPICS));
        if !self.servers[index].denied.remove(&name) {
            self.servers[index].denied.insert(name);
        }
    }

    fn break_a_rule(&mut self) {
        let index = self.dice.below(self.clients.len());
        let client = &mut self.clients[index];
        let Some(pipe) = client.pipe.filter(|_| !client.silent) else { return };
        let chunks = client.fault(&mut self.dice);
        self.send(pipe, chunks);
    }
}
