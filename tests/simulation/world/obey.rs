//! What the engine asks of the shell, done by the world.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use socketshark::arena::ConnId;

use socketshark::ports::{Input, Output};

use super::pipe::{Peer, Pipe, PipeId};
use super::{Happening, World, addresses};
use crate::model::Cause;
use crate::swarm::Fault;

impl World<'_> {
    pub(super) fn obey(&mut self) {
        while let Some(output) = self.asked.pop_front() {
            match output {
                Output::Listen => {
                    self.listening = true;
                    let address = SocketAddr::from(([127, 0, 0, 1], 9000));
                    self.step(&Cause::Listening, Input::Listening(address));
                }
                Output::StopListening => self.listening = false,
                Output::Connect { conn, to } => self.dial(conn, to),
                Output::HalfClose(conn) => {
                    let pipe = self.by_conn.get(&conn).and_then(|id| self.pipes.get_mut(id));
                    if let Some(pipe) = pipe {
                        pipe.half_closing = true;
                        self.emptied(conn);
                    }
                }
                Output::Close(conn) => self.close(conn),
                Output::Resume(conn) => self.readable.extend(self.by_conn.get(&conn)),
                Output::Resolve(host) => self.resolve(host),
                Output::Scrape(_) | Output::Acknowledge(_) | Output::Say(_) => {}
                Output::Exit(status) => {
                    self.note(format_args!("exit {status}"));
                    self.exited = Some(status);
                }
                Output::Fail(problem) => {
                    self.note(format_args!("exit 1: {problem}"));
                    self.exited = Some(1);
                    return;
                }
            }
        }
    }

    /// The program has closed a connection: what it wrote still arrives.
    fn close(&mut self, conn: ConnId) {
        let Some(id) = self.by_conn.remove(&conn) else { return };
        let Some(pipe) = self.pipes.remove(&id) else { return };
        self.check_given_up(&pipe);
        self.requests.remove(&id);
        match pipe.peer {
            Peer::Client(index) => {
                let client = &mut self.clients[index];
                if client.pipe == Some(id) {
                    client.gone();
                }
            }
            Peer::Redis(index) => self.servers[index].gone(id),
            Peer::Service(_) | Peer::Nobody => {}
        }
    }

    // ---------------------------------------------------------------- dialling

    fn dial(&mut self, conn: ConnId, to: SocketAddr) {
        let peer = match (addresses::redis_at(to), addresses::service_at(to)) {
            (Some(index), _) => Peer::Redis(index),
            (_, Some(index)) => Peer::Service(index),
            _ => Peer::Nobody,
        };
        let window = self.window();
        let id = self.new_pipe(Pipe::new(peer, conn, true, window));
        let fault = self.has(Fault::Dials) && self.dice.chance(30);
        let down = match peer {
            Peer::Redis(index) => self.servers[index].down,
            Peer::Nobody => true,
            _ => false,
        };
        match self.dice.below(4) {
            0 if fault || down => {} // silence
            1 if fault => {
                // Refused on the spot.
                self.step(&Cause::Lost(conn), Input::Lost(conn, "unreachable"));
            }
            _ => {
                let delay = self.delay();
                self.plan(delay, Happening::Dialled(id, !fault && !down));
            }
        }
    }

    pub(super) fn dialled(&mut self, id: PipeId, ok: bool) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let conn = pipe.conn;
        let ok = ok
            && match pipe.peer {
                Peer::Redis(index) => !self.servers[index].down,
                _ => true,
            };
        if !ok {
            return self.step(&Cause::Lost(conn), Input::Lost(conn, "refused"));
        }
        pipe.dialling = false;
        if let Peer::Redis(index) = pipe.peer {
            self.servers[index].connected(id);
        }
        self.step(&Cause::Other, Input::Connected(conn));
    }

    fn resolve(&mut self, host: Rc<str>) {
        let fault = self.has(Fault::Names) && self.dice.chance(40);
        let delay = match self.dice.below(3) {
            0 if fault => self.dice.millis(0, 6_000),
            _ => self.delay(),
        };
        let ok = !(fault && self.dice.chance(50));
        self.plan(delay, Happening::Resolved(host, ok));
    }

    pub(super) fn resolved(&mut self, host: &str, ok: bool) {
        let mut found: Vec<IpAddr> = vec![addresses::of_host(host)];
        if self.has(Fault::Names) && self.dice.chance(40) {
            found.insert(self.dice.below(2), addresses::DEAD);
        }
        let result = if ok { Ok(found) } else { Err("no such host".to_owned()) };
        self.note(format_args!("{host} is {result:?}"));
        self.step(&Cause::Other, Input::Resolved(host, result));
    }

    /// A time that nothing takes longer than, faults aside.
    pub(super) fn longest(&self) -> Duration {
        let http = &self.rules.http;
        let one = http.timeout.max(Duration::from_secs(6)) + http.wait + Duration::from_secs(2);
        one * http.tries as u32
    }
}
