//! The life of the service: start, readiness, loss of Redis, reload, shutdown.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Engine, desk};
use crate::config::{Config, Level, OnDisconnect, changes_needing_restart};
use crate::message::close_code;
use crate::ports::Output;
use crate::route::Desk;
use crate::timers::Timer;

/// Where the service stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not every Redis has been reached yet; the client port is closed.
    Starting,
    /// The client port is being opened.
    Opening,
    Serving,
    /// A Redis was lost: no client is served until it is back.
    Disconnected,
    /// Farewells are under way.
    Stopping,
    Over,
}

impl Engine {
    /// Begins: connects to every Redis, or serves at once with the embedded broker.
    pub(super) fn begin(&mut self) {
        if self.broker.is_some() {
            return self.link_ready();
        }
        let redis = std::iter::once(&self.config.redis).chain(&self.config.redis_alt);
        let longest = redis.map(|redis| redis.connect_timeout).max().unwrap_or(Duration::ZERO);
        self.timers.set(self.now.mono.after(longest), Timer::Start);
        self.start_links();
        self.settle();
    }

    pub(super) fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping | State::Over)
    }

    /// Why clients are not served; `None`: they are.
    pub(super) fn unready(&self) -> Option<&'static str> {
        match self.state {
            State::Starting | State::Opening => Some("starting: not every Redis is connected"),
            State::Serving => None,
            State::Disconnected => Some("Redis is not connected"),
            State::Stopping | State::Over => Some("shutting down"),
        }
    }

    fn set_ready(&mut self, ready: bool) {
        self.metrics.ready = ready;
        if self.config.metrics.log {
            drop(self.log.at(self.now, Level::Debug, "metrics").flag("ready", ready));
        }
    }

    /// A link has become usable, or none is needed.
    pub(super) fn link_ready(&mut self) {
        if !self.all_connected() {
            return;
        }
        match self.state {
            State::Starting => {
                self.state = State::Opening;
                self.ports.ask(Output::Listen);
            }
            State::Disconnected => {
                self.state = State::Serving;
                self.set_ready(true);
                drop(self.log.at(self.now, Level::Info, "serving again"));
            }
            State::Opening | State::Serving | State::Stopping | State::Over => {}
        }
    }

    pub(super) fn listening(&mut self, address: SocketAddr) {
        if self.state != State::Opening {
            return;
        }
        self.state = if self.all_connected() { State::Serving } else { State::Disconnected };
        let line = self.log.at(self.now, Level::Info, "ready").text("host", &self.config.ws_host);
        drop(
            line.number("port", address.port().into()).flag("secure", self.config.ws_ssl.is_some()),
        );
        self.set_ready(self.is_serving());
    }

    pub(super) fn start_timed_out(&mut self) {
        if self.state == State::Starting {
            self.tell_no_redis();
            self.exit(1);
        }
    }

    /// Says what could not be reached and what to do. Who has switched the log off has to hear of
    /// it all the same.
    fn tell_no_redis(&mut self) {
        let Some(link) = self.links.iter().find(|link| !link.is_ready()) else { return };
        let (host, port) = link.address();
        let (key, reason) = (link.key(), link.failure().unwrap_or("no answer"));
        let mend = format!("start it, or correct {key} in the configuration");
        if !self.log.is_on(Level::Critical) {
            let problem = format!("cannot reach Redis at {host}:{port}: {reason}; {mend}");
            return self.ports.ask(Output::Fail(problem));
        }
        let line = self.log.at(self.now, Level::Critical, "could not connect to redis");
        let line = line.text("host", host).number("port", port.into());
        drop(line.text("reason", reason).text("mend", &mend));
    }

    /// A link that was usable is lost: messages may have been missed, and clients must know.
    pub(super) fn redis_lost(&mut self) {
        if self.state == State::Serving {
            drop(self.log.at(self.now, Level::Error, "redis unexpectedly closed"));
            self.state = State::Disconnected;
            self.set_ready(false);
            self.close_all_clients(close_code::SERVICE_RESTART, "Redis was lost");
            if self.config.redis.on_disconnect == OnDisconnect::Shutdown {
                self.shut_down(close_code::SERVICE_RESTART);
            }
        }
        self.forget_confirmations();
    }

    // ---------------------------------------------------------------- shutdown

    pub(super) fn stop_requested(&mut self) {
        match self.state {
            State::Stopping if self.stop_requested => self.give_up("stop requested again"),
            State::Over => {}
            state => {
                self.stop_requested = true;
                drop(self.log.at(self.now, Level::Info, "stop requested"));
                // A shutdown may be under way already, since Redis was lost.
                if state != State::Stopping {
                    self.shut_down(close_code::GOING_AWAY);
                }
            }
        }
    }

    fn shut_down(&mut self, code: u16) {
        drop(self.log.at(self.now, Level::Info, "shutting down"));
        self.state = State::Stopping;
        self.set_ready(false);
        self.ports.ask(Output::StopListening);
        let timeout = self.config.limits.shutdown_timeout;
        self.timers.set(self.now.mono.after(timeout), Timer::Shutdown);
        self.close_all_clients(code, "shutdown");
    }

    pub(super) fn shutdown_timed_out(&mut self) {
        if self.state == State::Stopping {
            self.give_up("shutdown timed out");
        }
    }

    /// Ends at once and says what was left undone.
    fn give_up(&mut self, event: &str) {
        let line = self.log.at(self.now, Level::Warning, event);
        let line = line.number("sessions", self.router.sessions() as u64);
        let line = line.number("callbacks", self.calls.unfinished() as u64);
        drop(line.number("connections", self.clients.len() as u64));
        self.exit(0);
    }

    /// Ends a shutdown when all farewells are made.
    pub(super) fn finish_if_done(&mut self) {
        let is_stopping = self.state == State::Stopping;
        if is_stopping
            && self.router.sessions() == 0
            && self.clients.is_empty()
            && self.calls.is_idle()
        {
            drop(self.log.at(self.now, Level::Info, "done"));
            self.exit(0);
        }
    }

    fn exit(&mut self, status: i32) {
        self.state = State::Over;
        self.stop_links();
        self.ports.ask(Output::Exit(status));
    }

    // ------------------------------------------------------------------ reload

    /// Takes over a configuration that was read again, as far as that can be done at run time.
    pub(super) fn reload(&mut self, result: Result<Box<Config>, Vec<String>>) {
        let new = match result {
            Ok(new) => new,
            Err(problems) => {
                for problem in problems {
                    let event = "configuration not reloaded";
                    drop(self.log.at(self.now, Level::Error, event).text("problem", &problem));
                }
                return;
            }
        };
        for key in changes_needing_restart(&self.config, &new) {
            let event = "configuration key needs a restart";
            drop(self.log.at(self.now, Level::Warning, event).text("key", key));
        }
        let mut config = Config::clone(&self.config);
        config.services = new.services;
        config.ticket = new.ticket;
        config.http = new.http;
        config.limits = new.limits;
        config.log = new.log;
        config.ws_allowed_origins = new.ws_allowed_origins;
        self.config = Rc::new(config);
        self.log.configure(&self.config.log, self.setup.terminal);
        for conn in self.clients.ids() {
            self.ports.mail.set_limit(conn, self.config.limits.send_queue_bytes);
        }
        self.router.reconfigure(&mut desk!(self));
        drop(self.log.at(self.now, Level::Info, "configuration reloaded"));
    }
}
