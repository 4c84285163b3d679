//! Lanes: each service, and each authentication method, has its own slots and its own queue at
//! each origin, so that one that stalls holds up nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::CallId;
use super::pool::Pools;
use crate::config::HttpConfig;
use crate::config::url::Origin;
use crate::limits::QUEUED_BYTES_MAX;
use crate::message::Hook;

/// All lanes; they are called by their index.
#[derive(Default)]
pub struct Lanes {
    by_key: BTreeMap<Key, usize>,
    lanes: Vec<Lane>,
}

/// An authentication method is no service, whatever it is called.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: Rc<str>,
    is_method: bool,
    origin: Rc<Origin>,
}

/// One lane.
pub struct Lane {
    /// The name of the service or method.
    pub name: Rc<str>,
    /// The connections of its origin.
    pub pool: usize,
    /// Slots in use.
    pub under_way: usize,
    /// Calls between two tries.
    pub resting: usize,
    /// Bytes of the bodies of all its calls that have not ended.
    pub bytes: usize,
    /// Calls that have rested: they go before those that have not been tried.
    again: VecDeque<CallId>,
    fresh: VecDeque<CallId>,
    /// A call was refused since the queue was last empty.
    jammed: bool,
}

impl Lanes {
    /// The lane of this hook's calls to this origin.
    pub fn find(
        &mut self,
        name: &Rc<str>,
        hook: Hook,
        origin: &Rc<Origin>,
        pools: &mut Pools,
    ) -> usize {
        let is_method = hook == Hook::Validation;
        let key = Key { name: name.clone(), is_method, origin: origin.clone() };
        *self.by_key.entry(key).or_insert_with(|| {
            self.lanes.push(Lane {
                name: name.clone(),
                pool: pools.find(origin),
                under_way: 0,
                resting: 0,
                bytes: 0,
                again: VecDeque::new(),
                fresh: VecDeque::new(),
                jammed: false,
            });
            self.lanes.len() - 1
        })
    }

    pub fn get(&self, lane: usize) -> &Lane {
        &self.lanes[lane]
    }

    pub fn get_mut(&mut self, lane: usize) -> &mut Lane {
        &mut self.lanes[lane]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }
}

impl Lane {
    /// Calls that hold no slot: those between tries count, or a service that answers nothing but
    /// 429 could gather them without a bound.
    pub fn waiting(&self) -> usize {
        self.resting + self.again.len() + self.fresh.len()
    }

    /// Whether another call may come, with a body of so many bytes.
    pub fn admits(&self, hook: Hook, bytes: usize, http: &HttpConfig) -> bool {
        let (waiting, most) = (self.waiting(), http.max_queued_per_host);
        let is_long = self.bytes + bytes > QUEUED_BYTES_MAX;
        let has_slot = self.under_way < http.max_connections_per_host.max(1);
        match hook {
            _ if has_slot => true,
            // A service that is not told of a leaving keeps it on its books for good.
            Hook::BeforeUnsubscribe | Hook::OnUnsubscribe => true,
            _ if is_long => false,
            // The next one comes anyway.
            Hook::OnHeartbeat => waiting < most && 2 * waiting < most,
            _ => waiting < most,
        }
    }

    /// A call was refused. True: the first one of this jam.
    pub fn refuse(&mut self) -> bool {
        !std::mem::replace(&mut self.jammed, true)
    }

    /// The calls that wait for nothing but a slot, in their order.
    pub fn queued(&self) -> impl Iterator<Item = CallId> {
        self.again.iter().chain(&self.fresh).copied()
    }

    /// Queues a call that has not been tried.
    pub fn push(&mut self, call: CallId) {
        self.fresh.push_back(call);
    }

    /// Queues a call whose rest is over.
    pub fn push_again(&mut self, call: CallId) {
        self.resting -= 1;
        self.again.push_back(call);
    }

    /// Gives the next call a slot, if there are both.
    pub fn take(&mut self, http: &HttpConfig) -> Option<CallId> {
        if self.under_way >= http.max_connections_per_host.max(1) {
            return None;
        }
        let call = self.again.pop_front().or_else(|| self.fresh.pop_front())?;
        self.under_way += 1;
        self.jammed &= self.waiting() > 0;
        for queue in [&mut self.again, &mut self.fresh] {
            if queue.is_empty() && queue.capacity() > 64 {
                *queue = VecDeque::new(); // a jam is over and leaves no room behind
            }
        }
        Some(call)
    }
}
