//! Idle connections, by origin: whoever calls there may use them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::arena::ConnId;
use crate::config::url::Origin;

/// All pools; they are called by their index.
#[derive(Default)]
pub struct Pools {
    by_origin: BTreeMap<Rc<Origin>, usize>,
    pools: Vec<Pool>,
}

/// The idle connections of one origin.
pub struct Pool {
    pub origin: Rc<Origin>,
    /// The `Host` of requests.
    pub authority: String,
    /// The longest idle one first.
    idle: VecDeque<ConnId>,
}

impl Pools {
    pub fn find(&mut self, origin: &Rc<Origin>) -> usize {
        *self.by_origin.entry(origin.clone()).or_insert_with(|| {
            let (origin, authority) = (origin.clone(), origin.authority());
            self.pools.push(Pool { origin, authority, idle: VecDeque::new() });
            self.pools.len() - 1
        })
    }

    pub fn get(&self, pool: usize) -> &Pool {
        &self.pools[pool]
    }

    pub fn get_mut(&mut self, pool: usize) -> &mut Pool {
        &mut self.pools[pool]
    }

    /// All idle connections, which are idle here no more.
    pub fn drain(&mut self) -> Vec<ConnId> {
        self.pools.iter_mut().flat_map(|pool| pool.idle.drain(..)).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }
}

impl Pool {
    pub fn put(&mut self, conn: ConnId) {
        self.idle.push_back(conn);
    }

    /// The most recently used connection: the least likely to be closed by the server, and the
    /// others get their chance to expire.
    pub fn take(&mut self) -> Option<ConnId> {
        self.idle.pop_back()
    }

    /// A connection has expired (the first one, then) or died.
    pub fn remove(&mut self, conn: ConnId) {
        if let Some(at) = self.idle.iter().position(|&idle| idle == conn) {
            self.idle.remove(at);
        }
    }

    pub fn idle(&self) -> impl Iterator<Item = ConnId> {
        self.idle.iter().copied()
    }
}
