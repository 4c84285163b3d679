//! Services: each request is looked up among the callbacks under way, and answered.

use std::time::Duration;

use serde_json::Value;
use socketshark::conn::calls::CallId;
use socketshark::message::Hook;

use super::pipe::{End, Peer, PipeId};
use super::{Happening, World};
use crate::marks::Mark;
use crate::peers::answers::{Mood, reply};
use crate::swarm::Fault;
use crate::trace::shown;
use crate::wire::http::Request;

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
        let body: Value = serde_json::from_str(&request.body).expect("a body is JSON");
        let is_it =
            |(_, call): &(&CallId, &crate::model::Call)| call.hook == hook && call.body == body;
        let call = self.model.calls.iter().find(is_it).map(|(call, _)| *call);
        self.note(format_args!("service gets {} {}: {call:?}", request.path, shown(&request.body)));
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        assert!(!pipe.busy, "one request at a time on a connection");
        (pipe.busy, pipe.call) = (true, call);
        pipe.requests += 1;
        let (is_first, has_ended, is_spoilt) =
            (pipe.requests == 1, pipe.has_ended(), pipe.is_spoilt());
        self.check_slots(&lane);
        let mood = Mood::of(&self.params, self.healed);
        let mut reply = reply(hook, &request.path, &body, &mood, &mut self.dice);
        if let Some(tried) = call.and_then(|call| self.tried.get_mut(&call)) {
            tried.requests += 1;
            let leads_on = reply.chunks.iter().any(|it| it.bytes.starts_with(b"HTTP/1.1 307"));
            let dies = !is_first && reply.chunks.first().is_some_and(|it| it.end.is_some());
            tried.free += usize::from(leads_on || dies || has_ended);
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
        let (call, answer) = (pipe.call.take()?, answer.clone()?);
        self.model.calls.contains_key(&call).then_some((call, answer))
    }

    /// Puts callbacks that have failed in the order in which they did. Each has its log line.
    pub(super) fn order_failures(&self, log: &str, ended: &mut Vec<(CallId, Option<Value>)>) {
        let lines = log.lines().filter(|line| line.contains("callback failed"));
        let mut ordered = Vec::new();
        for (service, hook) in lines.filter_map(last_try) {
            let is_it = |(id, answer): &(CallId, Option<Value>)| {
                let call = &self.model.calls[id];
                answer.is_none() && call.hook.name() == hook && call.lane() == service
            };
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
        if !blurred.iter().any(|fault| self.params.has(*fault)) {
            let (hook, seen) = (call.hook, tried.requests);
            assert!(seen >= tries, "{hook:?} was given up after {seen} tries of {tries}");
        }
        let waited = self.now.mono.since(call.begun);
        let least = self.rules.http.wait.min(Duration::from_millis(1_500)) * (tries as u32 - 1);
        assert!(waited >= least, "{:?} was given up after {waited:?}", call.hook);
    }
}

/// The service and the hook of a log line for a callback's last failed try.
fn last_try(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).expect("a log line is JSON");
    let is_last = line["event"] == "callback failed" && line["try"] == line["tries"];
    let name = |key: &str| line[key].as_str().map(str::to_owned);
    is_last.then(|| Some((name("service")?, name("hook")?)))?
}

/// What a path is for, and the queue of its calls.
fn hook_and_lane(path: &str) -> (Hook, String) {
    let mut parts = path.split('/').skip(2);
    let lane = parts.next().unwrap_or_default().to_owned();
    let name = parts.next().unwrap_or_default();
    let hook = HOOKS.into_iter().find(|hook| hook.name() == name);
    (hook.unwrap_or_else(|| panic!("nobody is at {path}")), lane)
}
