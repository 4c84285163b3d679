//! Any order of events, by seed.

use super::*;
use crate::random::Random;

/// A peer that does all kinds of things in any order.
struct Chaos {
    world: World,
    random: Random,
    dialled: Vec<ConnId>,
    open: Vec<ConnId>,
    started: usize,
}

impl Chaos {
    fn pick(&mut self, most: usize) -> usize {
        (self.random.number() % most as u64) as usize
    }

    fn obey(&mut self) {
        while let Some(output) = self.world.ports.poll() {
            match output {
                Output::Connect { conn, .. } => self.dialled.push(conn),
                Output::Close(conn) => {
                    self.dialled.retain(|it| *it != conn);
                    self.open.retain(|it| *it != conn);
                }
                _ => {}
            }
        }
    }

    fn start(&mut self) {
        let hook = [Hook::OnMessage, Hook::OnHeartbeat, Hook::OnUnsubscribe][self.pick(3)];
        let lane = ["books", "films"][self.pick(2)];
        let urls = [url(), url_at("books", "/"), url_at("films", "/x")];
        let url = &urls[self.pick(3)];
        self.world.start(lane, hook, url);
        self.started += 1;
    }

    fn answer_dial(&mut self) {
        let at = self.pick(self.dialled.len());
        let conn = self.dialled.swap_remove(at);
        if self.pick(4) == 0 {
            return self.world.lose(conn);
        }
        self.world.input(|calls, ctx| calls.connected(conn, ctx));
        self.open.push(conn);
    }

    fn answer(&mut self) {
        let answers = [
            OK,
            ERROR,
            &OK[..30],
            "garbage",
            "HTTP/1.1 204 None\r\n\r\n",
            "HTTP/1.1 307 M\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 429 S\r\nX-Rate-Limit-Reset: 2\r\nContent-Length: 0\r\n\r\n",
        ];
        let (at, answer) = (self.pick(self.open.len()), answers[self.pick(answers.len())]);
        self.world.receive(self.open[at], answer);
    }

    fn cut(&mut self) {
        let at = self.pick(self.open.len());
        let conn = self.open.swap_remove(at);
        if self.pick(2) == 0 { self.world.end(conn) } else { self.world.lose(conn) }
    }

    fn resolve(&mut self) {
        let host = ["books", "films"][self.pick(2)];
        let addresses = ["10.0.0.5", "10.0.0.6"].map(|address| address.parse().unwrap());
        let result = if self.pick(3) > 0 { Ok(&addresses[..]) } else { Err("no such host") };
        self.world.input(|calls, ctx| calls.resolved(host, result, ctx));
    }

    fn step(&mut self, starts: bool) {
        self.obey();
        match self.pick(10) {
            0..=2 if starts => self.start(),
            3 | 4 if !self.dialled.is_empty() => self.answer_dial(),
            5 | 6 if !self.open.is_empty() => self.answer(),
            7 if !self.open.is_empty() => self.cut(),
            8 => self.resolve(),
            _ => {
                let by = self.pick(100) as f64 / if starts { 100.0 } else { 5.0 };
                self.world.advance(by);
            }
        }
        if self.pick(3) > 0 {
            self.world.sent();
        }
    }
}

#[test]
fn every_call_ends_once_whatever_happens() {
    for seed in 0..40 {
        let world = World::with(|http| {
            http.max_connections_per_host = 3;
            http.max_queued_per_host = 20;
        });
        let random = Random::seeded(seed);
        let mut chaos = Chaos { world, random, dialled: vec![], open: vec![], started: 0 };
        let mut ended = 0;
        for step in 0..2_000 {
            chaos.step(step < 1_000);
            ended += chaos.world.ended_calls().len();
        }
        // Nobody answers any more: whatever is left runs into its time-outs.
        let Chaos { mut world, started, .. } = chaos;
        while let Some(deadline) = world.calls.next_deadline() {
            world.now.mono = world.now.mono.max(deadline);
            world.input(|calls, ctx| calls.due(ctx));
        }
        ended += world.ended_calls().len();
        assert_eq!(started, ended, "seed {seed}");
        assert!(world.calls.is_idle() && world.ports.is_empty(), "seed {seed}");
        let results = world.metrics.callbacks.values().map(|it| it.results.iter().sum::<u64>());
        assert_eq!(results.sum::<u64>(), started as u64, "seed {seed}");
    }
}
