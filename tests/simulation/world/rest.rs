//! The second phase: the faults are over, and everything must come to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use socketshark::engine::LeftOver;
use socketshark::ports::{Core, Input};

use super::World;
use super::pipe::{Chunk, End, Peer};
use crate::dice::Dice;
use crate::model::{Cause, Model, Serving};
use crate::swarm::{REDIS_CONNECT_TIMEOUT, REDIS_DELAY_MAX, REDIS_PING_TIMEOUT};

/// The part after all steps.
const LAST_PART: usize = 1 << 20;

/// What services ask to wait for at most, and what a look-up of a name takes at most.
const RATE_LIMIT_MAX: Duration = Duration::from_secs(2);
const LOOK_UP_MAX: Duration = Duration::from_secs(6);

/// One more event or subscription to be dealt with, all its callbacks included.
const EACH: Duration = Duration::from_millis(300);

/// The longest time that anything periodic takes.
const PERIOD: Duration = Duration::from_secs(20);

impl World<'_> {
    pub(super) fn rest(&mut self) {
        self.dice = Dice::of_part(self.params.seed, LAST_PART);
        self.heal();
        match self.dice.below(4) {
            0 => self.stop(),
            1 => {
                self.come_to_rest();
                self.stop();
            }
            _ => {
                self.come_to_rest();
                self.leave();
            }
        }
        self.nothing_is_left();
    }

    fn heal(&mut self) {
        self.note("all faults are over");
        self.healed = true;
        for index in 0..self.servers.len() {
            self.servers[index].down = false;
            self.servers[index].denied.clear();
            self.redis_wakes(index);
        }
        let ids: Vec<_> = self.pipes.keys().copied().collect();
        for id in ids {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                (pipe.stalled, pipe.window) = (false, 1 << 20);
            }
            self.plan(Duration::ZERO, super::Happening::Deliver(id));
        }
        for client in &mut self.clients {
            (client.mute, client.stubborn) = (false, false);
        }
    }

    /// Everything that was under way completes within the configured times, and messages flow.
    fn come_to_rest(&mut self) {
        self.live_until(Model::is_calm);
        if self.exited.is_some() {
            return;
        }
        for index in 0..self.clients.len() {
            if self.clients[index].pipe.is_none() {
                self.connect(index);
            }
        }
        for _ in 0..10 {
            self.live_for(Duration::from_millis(300));
            for _ in 0..4 {
                self.publish();
            }
        }
        self.live_for(self.longest());
        self.check_channels();
    }

    /// Lives on until something is so, or the program ends, which has to be within the time that
    /// what is pending may take.
    fn live_until(&mut self, is_so: impl Fn(&Model) -> bool) {
        let until = self.now.mono.after(self.patience());
        while self.exited.is_none() && !is_so(&self.model) {
            assert!(self.now.mono < until, "what was under way does not complete in time");
            self.live_for(Duration::from_millis(500));
        }
    }

    /// What is pending takes no longer. What was begun while there were faults may last as long as
    /// it is allowed to; what comes after it goes quickly.
    fn patience(&self) -> Duration {
        let (http, limits) = (&self.rules.http, &self.rules.limits);
        let redis = REDIS_PING_TIMEOUT + REDIS_CONNECT_TIMEOUT + REDIS_DELAY_MAX;
        let tries = http.timeout + http.wait.max(RATE_LIMIT_MAX);
        let names = LOOK_UP_MAX + http.wait.max(RATE_LIMIT_MAX);
        let begun = tries.max(names).max(redis) + limits.handshake + limits.close;
        begun + EACH * self.model.pending() as u32
    }

    /// The channels are the same everywhere: at the router, on the links, at the servers.
    fn check_channels(&self) {
        let channels = self.engine.channels();
        let router: BTreeSet<&str> = channels.into_iter().collect();
        self.model.check_router(&router);
        if !self.model.is_joining() {
            for server in &self.servers {
                assert_eq!(server.channels(), router, "channels at Redis and in use");
            }
        }
    }

    /// All clients go.
    fn leave(&mut self) {
        for index in 0..self.clients.len() {
            let Some(pipe) = self.clients[index].pipe else { continue };
            if self.dice.chance(50) && !self.clients[index].silent {
                let chunk = self.clients[index].close(Some(1000), &mut self.dice);
                self.send(pipe, vec![chunk]);
            } else {
                self.send(pipe, vec![Chunk::end(End::Fin)]);
            }
        }
        self.live_until(Model::is_at_rest);
        self.live_for(PERIOD);
    }

    fn stop(&mut self) {
        // A second stop would end it at once, with things undone.
        if self.exited.is_none() && self.model.serving != Serving::Stopping {
            self.note("stop");
            self.step(&Cause::Stop, Input::Stop);
        }
        self.live_until(|_| false);
        assert_eq!(self.exited, Some(0), "a stop comes to its end");
    }

    fn nothing_is_left(&mut self) {
        assert!(self.model.is_at_rest(), "sessions, subscriptions and callbacks have ended");
        assert_eq!(self.engine.left_over(), LeftOver::default(), "nothing is left");
        assert!(self.engine.channels().is_empty(), "no channel is left");
        let metrics = self.engine.metrics();
        let counts = [metrics.connections, metrics.subscriptions];
        let calls = [metrics.callbacks_in_flight, metrics.callbacks_queued];
        assert_eq!((counts, calls), ([0; 2], [0; 2]), "what is counted has gone");
        if let Some(status) = self.exited {
            assert_eq!(status, 0, "the end was in order");
            return;
        }
        for server in &self.servers {
            assert!(server.channels().is_empty(), "no channel is left at Redis");
        }
        for pipe in self.pipes.values() {
            let is_redis = matches!(pipe.peer, Peer::Redis(_));
            assert!(is_redis, "{:?} is connected still", pipe.peer);
        }
        let next = self.engine.next_deadline().map(|at| at.since(self.now.mono));
        let intervals = self.rules.redis.iter().filter_map(|redis| redis.ping_interval);
        let pings = intervals.max().map(|interval| interval.max(REDIS_PING_TIMEOUT));
        assert!(next.is_none_or(|next| Some(next) <= pings), "only Redis pings are planned");
    }
}
