//! The router's engine with the demo's port around it: what comes from there goes to the site,
//! everything else to the engine.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::arena::{ConnId, ConnTag, Table};
use crate::demo::site::Site;
use crate::demo::visitor::{Context, Visitor};
use crate::engine::Engine;
use crate::limits::DEMO_CONNECTIONS_MAX;
use crate::log::Log;
use crate::metrics::{Metrics, ProcessFigures};
use crate::ports::{Core, Door, Input, Kind, Output, Ports};
use crate::time::{Instant, Now, soonest};

/// Router, broker, service and page.
pub struct Demo {
    engine: Engine,
    site: Site,
    visitors: Table<ConnTag, Visitor>,
    /// Said once clients are welcome.
    welcome: Option<Rc<str>>,
}

impl Demo {
    pub fn new(engine: Engine, site: Site, welcome: &str) -> Demo {
        Demo { engine, site, visitors: Table::default(), welcome: Some(welcome.into()) }
    }

    /// Lets something be done with a visitor, and forgets it when that was the last.
    fn with<R>(
        &mut self,
        now: Now,
        id: ConnId,
        act: impl FnOnce(&mut Visitor, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let visitor = self.visitors.get_mut(id)?;
        let result = act(visitor, &mut Context { now, id, ports: self.engine.ports_mut() });
        if visitor.deadline().is_none() {
            self.visitors.remove(id);
        }
        Some(result)
    }

    /// Takes a visitor's bytes, answers its requests.
    fn hear(&mut self, now: Now, id: ConnId, mut input: &[u8]) {
        while let Some(Some(request)) =
            self.with(now, id, |visitor, context| visitor.next(&mut input, context))
        {
            let engine = &mut self.engine;
            let mut publish =
                |channel: &str, text: &str| engine.publish(now, channel, text.as_bytes());
            let answer = self.site.answer(&request, now, &mut publish);
            self.with(now, id, |visitor, context| visitor.answer(answer, context));
        }
    }

    /// Something was written to a visitor.
    fn flushed(&mut self, now: Now, id: ConnId) {
        let is_written = self.outbox(id).is_some_and(|outbox| outbox.is_empty());
        if is_written
            && let Some(Some(held)) =
                self.with(now, id, |visitor, context| visitor.flushed(context))
        {
            self.hear(now, id, &held);
        }
    }

    fn tick(&mut self, now: Now) {
        for id in self.visitors.ids() {
            self.with(now, id, |visitor, context| visitor.due(context));
        }
    }

    fn is_visitor(&self, id: ConnId) -> bool {
        self.engine.ports().kind(id) == Some(Kind::Demo)
    }
}

impl Core for Demo {
    fn start(&mut self, now: Now) {
        self.engine.start(now);
    }

    fn accept(&mut self, now: Now, door: Door, peer: SocketAddr) -> Option<ConnId> {
        if door != Door::Demo {
            return self.engine.accept(now, door, peer);
        }
        if self.visitors.len() >= DEMO_CONNECTIONS_MAX {
            return None;
        }
        let id = self.engine.ports_mut().open(Kind::Demo, usize::MAX);
        self.visitors.insert(id, Visitor::new(now));
        Some(id)
    }

    fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Received(id, bytes) if self.is_visitor(id) => self.hear(now, id, bytes),
            Input::Ended(id) if self.is_visitor(id) => {
                self.with(now, id, |visitor, context| visitor.ended(context));
            }
            Input::Lost(id, _) if self.is_visitor(id) => {
                self.with(now, id, |visitor, context| visitor.lost(context));
            }
            Input::Tick => {
                self.tick(now);
                self.engine.handle(now, Input::Tick);
            }
            Input::Listening(address) => {
                self.engine.handle(now, Input::Listening(address));
                if let Some(welcome) = self.welcome.take() {
                    self.engine.ports_mut().ask(Output::Say(welcome));
                }
            }
            input => self.engine.handle(now, input),
        }
    }

    fn written(&mut self, now: Now, conn: ConnId, bytes: usize) {
        self.engine.written(now, conn, bytes);
        self.flushed(now, conn);
    }

    fn blocked(&mut self, now: Now, conn: ConnId, bytes: usize) {
        self.engine.blocked(now, conn, bytes);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let visitors = self.visitors.iter().map(|(_, visitor)| visitor.deadline());
        soonest(self.engine.next_deadline(), visitors.fold(None, soonest))
    }

    fn wants_read(&self, conn: ConnId) -> bool {
        match self.visitors.get(conn) {
            Some(visitor) => visitor.wants_read(),
            None => self.engine.wants_read(conn),
        }
    }

    fn appetite(&self, conn: ConnId) -> usize {
        self.engine.appetite(conn)
    }

    fn tls_name(&self, conn: ConnId) -> Option<&str> {
        self.engine.tls_name(conn)
    }

    fn scrape(&mut self, now: Now, conn: ConnId, figures: &ProcessFigures) {
        self.engine.scrape(now, conn, figures);
    }

    fn ports(&self) -> &Ports {
        self.engine.ports()
    }

    fn ports_mut(&mut self) -> &mut Ports {
        self.engine.ports_mut()
    }

    fn log(&mut self) -> &mut Log {
        self.engine.log()
    }

    fn metrics(&mut self) -> &mut Metrics {
        self.engine.metrics()
    }
}
