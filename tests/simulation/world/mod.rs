//! The world around one `Engine`, in the place of the shell: a virtual clock, connections, and
//! everybody at their other ends. Nothing in it is real but the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use socketshark::arena::ConnId;
use socketshark::conn::calls::CallId;
use socketshark::engine::{Engine, Setup};
use socketshark::message::Hook;
use socketshark::ports::{Core, Input, Output};
use socketshark::time::{Instant, Now, Wall};

use crate::dice::Dice;
use crate::marks::{check_digits, without_digits};
use crate::model::{Cause, Model, Seen};
use crate::peers::client::Client;
use crate::peers::redis::Server;
use crate::swarm::{Fault, Params, REDIS_PASSWORD, Rules};
use crate::trace::{Trace, shown};
use crate::wire::http::Requests;

pub mod addresses;
mod chaos;
mod deeds;
mod mirror;
mod obey;
pub mod pipe;
mod rest;
mod services;
mod turn;

use mirror::Mirror;
use pipe::{Chunk, Peer, Pipe, PipeId};

/// The wall clock's beginning: in the year 2027.
const EPOCH: i64 = 1_800_000_000_000_000;

/// What happens outside the program at a moment.
#[derive(Debug)]
enum Happening {
    /// What was sent first arrives.
    Arrive(PipeId),
    /// The peer reads what was written.
    Deliver(PipeId),
    /// A dial succeeds or fails.
    Dialled(PipeId, bool),
    Resolved(Rc<str>, bool),
    /// A service answers.
    Answer(PipeId, Vec<Chunk>),
    /// A peer reads on.
    Unstall(PipeId),
    RedisUp(usize),
    RedisWakes(usize),
}

/// A callback as the services have seen it.
#[derive(Default)]
struct Tried {
    /// Requests that reached a service.
    requests: usize,
    /// Requests that may be repeated without counting: redirects, and those on a connection that
    /// had served before and died.
    free: usize,
    /// When the next try may come, if the last one is known to have failed.
    not_before: Option<Instant>,
}

pub struct World<'t> {
    params: Params,
    rules: Rc<Rules>,
    dice: Dice,
    trace: &'t mut Trace,
    now: Now,
    engine: Engine,
    model: Model,
    mirror: Mirror,
    pipes: BTreeMap<PipeId, Pipe>,
    by_conn: BTreeMap<ConnId, PipeId>,
    pipes_made: usize,
    agenda: BTreeMap<(Instant, usize), Happening>,
    happenings: usize,
    /// What the engine has asked for and the world has not done yet.
    asked: VecDeque<Output>,
    readable: BTreeSet<PipeId>,
    listening: bool,
    exited: Option<i32>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    requests: BTreeMap<PipeId, Requests>,
    tried: BTreeMap<CallId, Tried>,
    /// Services that had no room for more calls: until when, and whether it is so now.
    full: BTreeMap<String, (Instant, bool)>,
    /// Callbacks that have been made at some time.
    known: BTreeSet<(Hook, String)>,
    published: usize,
    /// Faults are over.
    healed: bool,
    digest: Digest,
}

/// All that the program gives out, in one number (FNV-1a).
struct Digest(u64);

impl Digest {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub digest: u64,
    pub tally: crate::model::Tally,
}

/// Lives through a world.
///
/// # Panics
/// Where the program does something that it must not.
pub fn run(params: &Params, trace: &mut Trace) -> Outcome {
    let mut world = World::new(params.clone(), trace);
    world.begin();
    world.chaos();
    world.rest();
    Outcome { digest: world.digest.0, tally: world.model.tally }
}

impl<'t> World<'t> {
    fn new(params: Params, trace: &'t mut Trace) -> World<'t> {
        let mut dice = Dice::new(params.seed);
        let rules = Rc::new(Rules::of(&params, &mut dice));
        let setup = Setup { seed: dice.number(), pid: 1, terminal: false };
        let servers = rules.redis.iter();
        let servers = servers.map(|it| Server::new(it.password.clone(), it.prefix.clone()));
        World {
            clients: (0..params.population).map(Client::new).collect(),
            servers: servers.collect(),
            engine: Engine::new(Rc::new(rules.config()), setup),
            model: Model::new(rules.clone()),
            now: Now { mono: Instant::ZERO, wall: Wall(EPOCH) },
            params,
            rules,
            dice,
            trace,
            mirror: Mirror::default(),
            pipes: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            pipes_made: 0,
            agenda: BTreeMap::new(),
            happenings: 0,
            asked: VecDeque::new(),
            readable: BTreeSet::new(),
            listening: false,
            exited: None,
            requests: BTreeMap::new(),
            tried: BTreeMap::new(),
            full: BTreeMap::new(),
            known: BTreeSet::new(),
            published: 0,
            healed: false,
            digest: Digest(0xcbf2_9ce4_8422_2325),
        }
    }

    /// Starts the program; everything is well until it is ready.
    fn begin(&mut self) {
        self.healed = true;
        self.engine.start(self.now);
        self.after(&Cause::Other, None);
        self.live_for(Duration::from_secs(1));
        assert!(self.listening, "the program is ready within a second");
        if self.params.is_crowded() {
            self.crowd();
        }
        self.healed = false;
    }

    /// Whether a kind of fault may strike now.
    fn has(&self, fault: Fault) -> bool {
        !self.healed && self.params.has(fault)
    }

    /// Whether the world has any of these kinds of faults.
    fn has_any(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.params.has(*fault))
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        self.trace.note(self.now.mono, what);
    }

    // ----------------------------------------------------------- the engine

    /// Gives the program an input and looks at what follows.
    fn step(&mut self, cause: &Cause<'_>, input: Input<'_>) {
        self.engine.handle(self.now, input);
        self.after(cause, None);
    }

    /// The model judges what the program has done; `answered`: a service's answer was complete.
    fn after(&mut self, cause: &Cause<'_>, answered: Option<(CallId, serde_json::Value)>) {
        let seen = self.observe(answered);
        self.model.step(self.now.mono, cause, &seen);
        self.model.check_reading(|conn| self.engine.wants_read(conn));
        self.model.check_counts(self.engine.metrics());
        self.check_queues(&seen);
        self.engine.audit();
        for output in seen.outputs {
            if let Output::Close(conn) = output {
                self.mirror.remove(conn);
            }
            self.asked.push_back(output);
        }
    }

    fn observe(&mut self, answered: Option<(CallId, serde_json::Value)>) -> Seen {
        let mut seen = Seen::default();
        while let Some(output) = self.engine.poll() {
            if let Output::Connect { conn, to } = output
                && addresses::redis_at(to).is_some()
            {
                self.mirror.add_redis(conn);
            }
            self.digest.take(format!("{output:?}").as_bytes());
            seen.outputs.push(output);
        }
        let (digest, engine) = (&mut self.digest, &self.engine);
        self.mirror.look(engine, &mut seen, |new| digest.take(new));
        let log = self.engine.log().take();
        check_log(&log);
        self.digest.take(log.as_bytes());
        self.observe_calls(&mut seen, answered);
        self.order_failures(&log, &mut seen.ended);
        self.note_seen(&seen);
        seen
    }

    /// What waits for a client that takes nothing does not grow beyond the limit, but for one
    /// message of any size and the last words.
    fn check_queues(&self, seen: &Seen) {
        for (&conn, &before) in &seen.waiting {
            let pipe = self.by_conn.get(&conn).and_then(|id| self.pipes.get(id));
            let is_blocked = pipe.is_some_and(|pipe| pipe.blocked);
            let waits = self.engine.outbox(conn).map_or(0, |outbox| outbox.bytes());
            if is_blocked && before > 0 && waits > before && self.model.is_open(conn) {
                let most = self.rules.limits.send_queue;
                assert!(waits <= most, "{conn}: {waits} bytes wait for a client that is slow");
            }
        }
    }

    fn observe_calls(&mut self, seen: &mut Seen, answered: Option<(CallId, serde_json::Value)>) {
        let under_way: BTreeSet<CallId> = self.engine.callbacks().map(|(id, ..)| id).collect();
        for (id, hook, body) in self.engine.callbacks() {
            if !self.model.calls.contains_key(&id) {
                let text = String::from_utf8(body.to_vec()).expect("bodies are UTF-8");
                check_digits(&text);
                let value = without_digits(&text);
                let value = serde_json::from_str(&value).expect("bodies are JSON");
                self.known.insert((hook, text));
                self.tried.insert(id, Tried::default());
                seen.begun.push((id, hook, value));
            }
        }
        let ended = self.model.calls.keys().copied().filter(|id| !under_way.contains(id));
        let ended: Vec<CallId> = ended.collect();
        for id in ended {
            let answer = answered.as_ref().filter(|(answered, _)| *answered == id);
            if answer.is_none() {
                self.check_tries(id);
            }
            seen.ended.push((id, answer.map(|(_, value)| value.clone())));
        }
        seen.answered = answered.map(|(id, _)| id).filter(|id| self.model.calls.contains_key(id));
    }

    fn note_seen(&mut self, seen: &Seen) {
        for output in &seen.outputs {
            self.note(format_args!("    <- {output:?}"));
        }
        for (conn, said) in &seen.said {
            for said in said {
                self.note(format_args!("    <- {conn} {}", shown(&format!("{said:?}"))));
            }
        }
        for (conn, command) in &seen.commands {
            self.note(format_args!("    <- redis {conn} {}", command.join(" ")));
        }
        for (id, hook, body) in &seen.begun {
            self.note(format_args!("    <- call {id} {hook:?} {body}"));
        }
        for (id, answer) in &seen.ended {
            let answer = answer.as_ref().map_or("unavailable".to_owned(), ToString::to_string);
            self.note(format_args!("    <- call {id} has ended: {answer}"));
        }
    }

    // ------------------------------------------------------------ the agenda

    fn plan(&mut self, delay: Duration, what: Happening) {
        self.happenings += 1;
        self.agenda.insert((self.now.mono.after(delay), self.happenings), what);
    }

    /// Sends something towards the program.
    fn send(&mut self, pipe: PipeId, chunks: Vec<Chunk>) {
        for chunk in chunks {
            let Some(it) = self.pipes.get_mut(&pipe) else { return };
            if it.send(chunk) {
                // Arrivals take them in their order, whatever their times.
                let delay = self.delay_of(pipe);
                self.plan(delay, Happening::Arrive(pipe));
            }
        }
    }

    /// How long something is on its way to the program.
    fn delay_of(&mut self, pipe: PipeId) -> Duration {
        let is_redis = matches!(self.pipes.get(&pipe).map(|it| it.peer), Some(Peer::Redis(_)));
        if is_redis && self.has(Fault::Channels) && self.dice.chance(20) {
            // Answers that are late let commands for one channel cross.
            return self.dice.millis(0, 400);
        }
        self.delay()
    }

    /// How long something is on its way.
    fn delay(&mut self) -> Duration {
        if self.dice.chance(50) { Duration::ZERO } else { self.dice.millis(0, 30) }
    }

    fn new_pipe(&mut self, pipe: Pipe) -> PipeId {
        self.pipes_made += 1;
        self.by_conn.insert(pipe.conn, self.pipes_made);
        self.pipes.insert(self.pipes_made, pipe);
        self.pipes_made
    }

    fn window(&mut self) -> usize {
        if self.has(Fault::Stalls) && self.dice.chance(60) {
            self.dice.between(1, 1_500)
        } else {
            1 << 20
        }
    }
}

/// Log lines are JSON, one each, and tell no secret.
fn check_log(log: &str) {
    for line in log.lines() {
        let is_object =
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|it| it.is_object());
        assert!(is_object, "a log line is a JSON object: {line}");
        let tells =
            [REDIS_PASSWORD, "u0#", "u1#", "u2#"].iter().any(|secret| line.contains(secret));
        assert!(!tells, "a log line tells a secret: {line}");
    }
}
