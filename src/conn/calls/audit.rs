//! What must always hold; for tests and simulations.

use super::{CallId, Calls, Due};
use crate::conn::callback::Phase;
use crate::message::Hook;
use crate::time::Instant;

impl Calls {
    /// The calls that have not ended: the hook and the body of each.
    pub fn under_way(&self) -> impl Iterator<Item = (CallId, Hook, &[u8])> {
        self.calls.iter().map(|(id, call)| (id, call.hook, &*call.body))
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    /// Where something does not hold.
    pub fn audit(&self) {
        self.audit_connections();
        self.audit_lanes();
    }

    fn audit_connections(&self) {
        let mut idle = 0;
        for (conn, callback) in self.conns.iter() {
            let pool = self.pools.get(callback.pool);
            let in_pool = pool.idle().filter(|&idle| idle == conn).count();
            assert_eq!(in_pool, usize::from(callback.is_idle()), "the idle ones are in their pool");
            idle += in_pool;
            if let Some((phase, exchange)) = callback.exchange() {
                let call = self.calls.get(exchange.call).expect("an exchange's call has not ended");
                assert_eq!(call.lane, exchange.lane, "the slot is the call's own lane's");
                assert_eq!(self.lanes.get(call.lane).pool, callback.pool, "to its own origin");
                let waits = self.names.is_awaited(&pool.origin.host, &conn);
                assert_eq!(waits, phase == Phase::Resolving, "a name is on its way");
            }
            let is_armed = |entry: (Instant, Due)| {
                entry.1 == Due::Conn(conn) && callback.alarm.is_armed_at(entry.0)
            };
            assert!(self.deadlines.iter().any(is_armed), "every connection has its deadline");
        }
        let pooled: usize = self.pools.iter().map(|pool| pool.idle().count()).sum();
        assert_eq!(idle, pooled, "pools hold what is idle and nothing else");
    }

    fn audit_lanes(&self) {
        let mut calls = 0;
        for (id, lane) in self.lanes.iter().enumerate() {
            let under_way = self
                .conns
                .iter()
                .filter(|(_, callback)| callback.exchange().is_some_and(|(_, it)| it.lane == id));
            assert_eq!(lane.under_way, under_way.count(), "slots are exchanges");
            let is_resting = |due| match due {
                Due::Again(call) => self.calls.get(call).is_some_and(|call| call.lane == id),
                Due::Conn(_) => false,
            };
            let resting = self.deadlines.iter().filter(|&(_, due)| is_resting(due)).count();
            assert_eq!(lane.resting, resting, "rests end");
            let ours = self.calls.iter().filter(|(_, call)| call.lane == id);
            let bytes: usize = ours.map(|(_, call)| call.body.len()).sum();
            assert_eq!(lane.bytes, bytes, "bytes are counted");
            for call in lane.queued() {
                let call = self.calls.get(call).expect("a queued call has not ended");
                assert_eq!(call.lane, id, "calls keep to their lane");
            }
            calls += lane.under_way + lane.waiting();
        }
        assert_eq!(calls, self.calls.len(), "every call is somewhere, once");
    }
}
