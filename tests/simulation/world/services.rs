//! Services: each request is looked up among the callbacks under way, and answered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use socketshark::conn::calls::CallId;
use socketshark::message::Hook;
use socketshark::time::Instant;

use super::pipe::{End, Peer, Pipe, PipeId};
use super::{Happening, World};
use crate::marks::{Mark, check_digits, without_digits};
use crate::peers::answers::{Mood, reply};
use crate::swarm::Fault;
use crate::trace::shown;
use crate::wire::http::Request;

/// Looking a name up, dialling and sending take no longer, where nothing is slow.
const WAY_MAX: Duration = Duration::from_millis(150);

const HOOKS: [Hook; 9] = [
    Hook::Validation,
    Hook::Authorizer,
    Hook::BeforeSubscribe,
    Hook::OnSubscribe,
    Hook::OnMessage,
    Hook::BeforeUnsubscribe,
    Hook::OnUnsubscribe,
    Hook::OnAuthorizationChange,
    Hook::OnHeartbeat,
];

impl World<'_> {
    /// Bytes of a request have come to a service.
    pub(super) fn request_bytes(&mut self, id: PipeId, bytes: &[u8]) {
        let requests = self.requests.entry(id).or_default();
        let Some(request) = requests.push(bytes) else { return };
        assert!(requests.is_empty(), "one request at a time");
        self.request(id, &request);
    }

    fn request(&mut self, id: PipeId, request: &Request) {
        let (hook, lane) = hook_and_lane(&request.path);
        let is_known = self.known.contains(&(hook, request.body.clone()));
        assert!(is_known, "{hook:?} was not to be called with {}", request.body);
        check_digits(&request.body);
        let body = without_digits(&request.body);
        let body: Value = serde_json::from_str(&body).expect("a body is JSON");
        let is_it =
            |(_, call): &(&CallId, &crate::model::Call)| call.hook == hook && call.body == body;
        let call = self.model.calls.iter().find(is_it).map(|(call, _)| *call);
        self.note(format_args!("service gets {} {}: {call:?}", request.path, shown(&request.body)));
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        assert!(!pipe.busy, "one request at a time on a connection");
        assert!(!pipe.spent, "the answer before was the last on this connection");
        (pipe.busy, pipe.call, pipe.asked_at) = (true, call, self.now.mono);
        pipe.touched = false;
        pipe.requests += 1;
        let (is_first, has_ended, is_spoilt) =
            (pipe.requests == 1, pipe.has_ended(), pipe.is_spoilt());
        self.check_slots(&lane);
        self.check_turn(call, &lane);
        self.check_wait(call);
        let mood = Mood::of(&self.params, &self.rules, self.healed);
        let mut reply = reply(hook, &request.path, &body, &mood, &mut self.dice);
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.spent = reply.is_last;
            pipe.wait = (!reply.leads_on).then_some(reply.wait);
        }
        if let Some(tried) = call.and_then(|call| self.tried.get_mut(&call)) {
            tried.requests += 1;
            let dies = !is_first && reply.chunks.first().is_some_and(|it| it.end.is_some());
            tried.free += usize::from(reply.leads_on || dies || has_ended);
        }
        if has_ended || is_spoilt {
            // Nothing on this connection will be taken for an answer.
            return;
        }
        let slow = self.has(Fault::Slow) && self.dice.chance(40);
        if reply.silent || (slow && self.dice.chance(15)) {
            self.note("service says nothing");
            return;
        }
        let delay = if slow { self.dice.millis(0, 4_000) } else { self.delay() };
        if self.dice.chance(10) {
            // The service has no use for the connection afterwards.
            reply.chunks.push(super::Chunk::end(End::Fin));
        }
        self.plan(delay, Happening::Answer(id, reply.chunks));
    }

    /// Calls are made in the order in which they came, each service's by itself. With one slot
    /// and nothing in between that can be seen from here.
    fn check_turn(&self, call: Option<CallId>, lane: &str) {
        let blurred = [Fault::Cuts, Fault::Dials, Fault::Names, Fault::Stalls, Fault::Clock];
        if self.rules.http.slots > 1 || self.has_any(&blurred) {
            return;
        }
        let begun = |id: &CallId| self.model.calls.get(id).map(|call| call.begun);
        let Some(since) = call.as_ref().and_then(begun) else { return };
        if call.is_some_and(|call| self.tried[&call].requests > 0) {
            return;
        }
        for (id, other) in self.model.calls.iter().filter(|(_, other)| other.lane() == lane) {
            let is_before = other.begun < since && self.tried[id].requests == 0;
            assert!(!is_before, "{:?} has waited longer: {}", other.hook, other.body);
            let again = self.tried[id].not_before;
            let is_due = again.is_some_and(|again| again.after(WAY_MAX) < self.now.mono);
            assert!(!is_due, "{:?} is to be tried again first: {}", other.hook, other.body);
        }
    }

    /// The next try comes when its wait is over, and not long after.
    fn check_wait(&mut self, call: Option<CallId>) {
        let is_free = self.rules.http.slots >= 64;
        let blurred = [Fault::Cuts, Fault::Dials, Fault::Names, Fault::Stalls, Fault::Clock];
        let is_clear = is_free && !self.has_any(&blurred);
        let Some(tried) = call.and_then(|call| self.tried.get_mut(&call)) else { return };
        let Some(due) = tried.not_before.take() else { return };
        let now = self.now.mono;
        assert!(due <= now, "the next try comes {:?} too soon", due.since(now));
        assert!(
            !is_clear || now.since(due) <= WAY_MAX,
            "the next try comes {:?} late",
            now.since(due)
        );
    }

    /// No call waits while its service has room, whatever others at the same host do.
    pub(super) fn check_rooms(&mut self) {
        let blurred = [Fault::Cuts, Fault::Dials, Fault::Names, Fault::Stalls, Fault::Clock];
        if self.has_any(&blurred) {
            return;
        }
        let now = self.now.mono;
        let mut used: BTreeMap<String, usize> = BTreeMap::new();
        for (id, call) in &self.model.calls {
            let tried = &self.tried[id];
            let is_on = |pipe: &Pipe| pipe.busy && pipe.call == Some(*id);
            let is_busy = self.pipes.values().any(is_on);
            let is_due = tried.not_before.is_some_and(|at| at <= now);
            if is_busy || is_due || tried.requests == 0 {
                *used.entry(call.lane().to_owned()).or_default() += 1;
            }
        }
        for (lane, used) in &used {
            let is_full = *used > self.rules.http.slots;
            let full = self.full.entry(lane.clone()).or_insert((Instant::ZERO, false));
            // What was full before was so until now.
            *full = (if is_full || full.1 { now } else { full.0 }, is_full);
        }
        for (id, call) in self.model.calls.iter().filter(|(id, _)| self.tried[*id].requests == 0) {
            let since = call.begun.max(self.full[call.lane()].0);
            let (hook, waits) = (call.hook, now.since(since));
            assert!(waits <= WAY_MAX, "{id} {hook:?} waits for {waits:?} though there is room");
        }
    }

    /// A try lasts as long as it may and no longer.
    pub(super) fn check_time_outs(&self) {
        let timeout = self.rules.http.timeout;
        for pipe in self.pipes.values().filter(|pipe| pipe.busy) {
            let age = self.now.mono.since(pipe.asked_at);
            assert!(age < timeout, "{} waits for an answer for {age:?}", pipe.conn);
        }
    }

    /// The program has closed a connection on which it waited for an answer, and nothing was to be
    /// said against it.
    pub(super) fn check_given_up(&self, pipe: &super::Pipe) {
        let call = pipe.call.and_then(|call| self.model.calls.get(&call));
        if !pipe.busy || pipe.touched || pipe.is_spoilt() || pipe.broken || pipe.has_ended() {
            return;
        }
        if let Some(call) = call {
            let age = self.now.mono.since(call.begun);
            let timeout = self.rules.http.timeout;
            assert!(age >= timeout, "{:?} is given up after {age:?}", call.hook);
        }
    }

    /// No service has more calls under way than it may.
    fn check_slots(&self, lane: &str) {
        let in_lane = |pipe: &&super::Pipe| {
            let call = pipe.call.filter(|_| pipe.busy);
            let call = call.and_then(|call| self.model.calls.get(&call));
            call.is_some_and(|call| call.lane() == lane)
        };
        let services = self.pipes.values().filter(|pipe| matches!(pipe.peer, Peer::Service(_)));
        let under_way = services.filter(in_lane).count();
        assert!(under_way <= self.rules.http.slots, "{under_way} calls to {lane} at once");
    }

    /// If an answer is complete with this mark: which callback it answers, and how. Whatever it
    /// is, the connection is free again.
    pub(super) fn answer_of(&mut self, id: PipeId, mark: &Mark) -> Option<(CallId, Value)> {
        let Mark::Reply(answer) = mark else { return None };
        let pipe = self.pipes.get_mut(&id)?;
        pipe.busy = false;
        let (call, wait) = (pipe.call.take()?, pipe.wait);
        let Some(answer) = answer.clone() else {
            if let (Some(wait), Some(tried)) = (wait, self.tried.get_mut(&call)) {
                tried.not_before = Some(self.now.mono.after(wait));
            }
            return None;
        };
        self.model.calls.contains_key(&call).then_some((call, answer))
    }

    /// Puts callbacks that have failed in the order in which they did. Each has its log line.
    pub(super) fn order_failures(&self, log: &str, ended: &mut Vec<(CallId, Option<Value>)>) {
        let lines = log.lines().filter(|line| line.contains("callback failed"));
        let mut ordered = Vec::new();
        for call in lines.filter_map(last_try) {
            let is_it =
                |(id, answer): &(CallId, Option<Value>)| answer.is_none() && id.to_string() == call;
            let at = ended.iter().position(is_it);
            ordered.push(ended.remove(at.expect("a callback that has failed has ended")));
        }
        let is_answered = ended.iter().all(|(_, answer)| answer.is_some());
        assert!(is_answered, "a callback that has failed has its log line");
        ended.splice(0..0, ordered);
    }

    /// A callback is given up: it was tried often enough.
    pub(super) fn check_tries(&self, id: CallId) {
        let Some(tried) = self.tried.get(&id) else { return };
        let (call, tries) = (&self.model.calls[&id], self.rules.http.tries);
        assert!(
            tried.requests <= tries + tried.free,
            "{:?} was tried {} times",
            call.hook,
            tried.requests
        );
        let blurred = [Fault::Cuts, Fault::Dials, Fault::Names, Fault::Stalls, Fault::Clock];
        if !self.has_any(&blurred) {
            let (hook, seen) = (call.hook, tried.requests);
            assert!(seen >= tries, "{hook:?} was given up after {seen} tries of {tries}");
        }
    }
}

/// The call of a log line for a callback's last failed try.
fn last_try(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).expect("a log line is JSON");
    let is_last = line["event"] == "callback failed" && line["try"] == line["tries"];
    is_last.then(|| line["call"].as_str().expect("it names its call").to_owned())
}

/// What a path is for, and the queue of its calls.
fn hook_and_lane(path: &str) -> (Hook, String) {
    let path = path.split('?').next().unwrap_or(path);
    let mut parts = path.split('/').skip(2);
    let lane = parts.next().unwrap_or_default().to_owned();
    let name = parts.next().unwrap_or_default();
    let hook = HOOKS.into_iter().find(|hook| hook.name() == name);
    (hook.unwrap_or_else(|| panic!("nobody is at {path}")), lane)
}
