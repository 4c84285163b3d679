//! Tells a service manager how the process is, by the protocol of sd_notify(3): one datagram for
//! each thing said, to the socket that `NOTIFY_SOCKET` names. Without it nothing is said.
//!
//! The loop never waits for the manager. Each datagram that changes the state says all of it, so
//! that one that found no room is made up for by saying the present state a little later.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::time::{Instant, soonest};

/// How soon the state is said again that found no room.
const RETRY: Duration = Duration::from_millis(100);

const ALIVE: &str = "WATCHDOG=1";
const RELOADING: &str = "RELOADING=1\nSTATUS=Reading the configuration again";

/// What the manager knows of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The client port is not open yet.
    Starting,
    Serving,
    /// The client port is open, but nobody is served: Redis is away.
    Refusing,
    /// The last one.
    Stopping,
}

impl Phase {
    fn text(self) -> &'static str {
        match self {
            Phase::Starting => "STATUS=Starting",
            Phase::Serving => "READY=1\nSTATUS=Serving",
            Phase::Refusing => "READY=1\nSTATUS=Refusing clients until the service is ready again",
            Phase::Stopping => "STOPPING=1\nSTATUS=Shutting down",
        }
    }
}

/// The manager's end of it.
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// How often the manager wants to hear that the loop turns.
struct Beat {
    period: Duration,
    due: Instant,
}

pub struct Notifier {
    /// `None`: nobody asked to be told.
    manager: Option<Manager>,
    beat: Option<Beat>,
    phase: Phase,
    /// When to say the phase; `None`: it was said.
    unsaid: Option<Instant>,
}

impl Notifier {
    /// The notifier that the process's environment asks for.
    ///
    /// # Errors
    /// The address cannot be used, in words.
    pub fn from_environment() -> Result<Notifier, String> {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
            return Ok(Notifier::silent());
        };
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // The variables may be meant for the process that started this one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        Notifier::new(&address, watchdog.map(Duration::from_micros))
            .map_err(|error| format!("NOTIFY_SOCKET={}: {error}", address.display()))
    }

    pub fn silent() -> Notifier {
        Notifier { manager: None, beat: None, phase: Phase::Starting, unsaid: None }
    }

    /// `watchdog`: the silence after which the manager takes the process for dead.
    fn new(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Notifier> {
        let address = parse_address(address)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Half of it, as sd_watchdog_enabled(3) recommends.
        let beat = watchdog.map(|silence| Beat { period: silence / 2, due: Instant::ZERO });
        let manager = Some(Manager { socket, address });
        Ok(Notifier { manager, beat, phase: Phase::Starting, unsaid: Some(Instant::ZERO) })
    }

    /// When `turn` has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.manager.as_ref()?;
        soonest(self.unsaid, self.beat.as_ref().map(|beat| beat.due))
    }

    /// Says what is new, and that the loop turns. What is said after `Stopping` counts for nothing.
    pub fn turn(&mut self, now: Instant, phase: Phase) {
        if phase != self.phase && self.phase != Phase::Stopping {
            self.phase = phase;
            self.unsaid = Some(now);
        }
        let Some(manager) = &self.manager else { return };
        if self.unsaid.is_some_and(|due| due <= now) {
            let heard = manager.say(self.phase.text());
            self.unsaid = (!heard).then(|| now.after(RETRY));
        }
        if let Some(beat) = self.beat.as_mut().filter(|beat| beat.due <= now) {
            // Where there is no room for it, the manager has others to read.
            manager.say(ALIVE);
            beat.due = now.after(beat.period);
        }
    }

    /// The configuration is about to be read again. The end of it is said in the next `turn`.
    pub fn reloading(&mut self, now: Instant) {
        let Some(manager) = &self.manager else { return };
        // Before READY=1 and after STOPPING=1 a manager would take it amiss.
        if matches!(self.phase, Phase::Serving | Phase::Refusing) {
            manager.say(RELOADING);
            self.unsaid = Some(now);
        }
    }
}

impl Manager {
    /// False: there was no room, and it may be tried again. A manager that is gone hears nothing
    /// ever.
    fn say(&self, text: &str) -> bool {
        let sent = self.socket.send_to_addr(text.as_bytes(), &self.address);
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A path, or `@` and a name in Linux's abstract namespace.
fn parse_address(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(address),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(io::Error::other("not the address of a local socket")),
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;

    use super::*;

    /// A manager that reads when it is asked to.
    fn manager(name: &str) -> (UnixDatagram, String) {
        let name = format!("socketshark-notify-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, format!("@{name}"))
    }

    /// What waits to be read.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        let datagrams = std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| (n, buffer)));
        datagrams.map(|(n, bytes)| String::from_utf8(bytes[..n].to_vec()).unwrap()).collect()
    }

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000)
    }

    #[test]
    fn every_phase_is_said_once_and_stopping_is_the_last() {
        let (socket, address) = manager("phases");
        let mut notifier = Notifier::new(address.as_ref(), None).unwrap();
        notifier.reloading(at(0));
        for (millis, phase) in (0..).zip([
            Phase::Starting,
            Phase::Starting,
            Phase::Serving,
            Phase::Serving,
            Phase::Refusing,
            Phase::Serving,
        ]) {
            notifier.turn(at(millis), phase);
            assert_eq!(notifier.next_deadline(), None);
        }
        notifier.reloading(at(7));
        assert_eq!(notifier.next_deadline(), Some(at(7)));
        notifier.turn(at(8), Phase::Serving);
        notifier.turn(at(9), Phase::Stopping);
        notifier.turn(at(9), Phase::Refusing);
        notifier.reloading(at(9));
        let phases = [
            Phase::Starting.text(),
            Phase::Serving.text(),
            Phase::Refusing.text(),
            Phase::Serving.text(),
            RELOADING,
            Phase::Serving.text(),
            Phase::Stopping.text(),
        ];
        assert_eq!(heard(&socket), phases);
    }

    #[test]
    fn the_loop_beats_twice_in_the_watchdogs_time() {
        let (socket, address) = manager("beats");
        let watchdog = Some(Duration::from_millis(20));
        let mut notifier = Notifier::new(address.as_ref(), watchdog).unwrap();
        notifier.turn(at(1), Phase::Starting);
        assert_eq!(heard(&socket), [Phase::Starting.text(), ALIVE]);
        assert_eq!(notifier.next_deadline(), Some(at(11)));
        notifier.turn(at(10), Phase::Starting);
        assert!(heard(&socket).is_empty());
        notifier.turn(at(15), Phase::Starting);
        assert_eq!(heard(&socket), [ALIVE]);
        assert_eq!(notifier.next_deadline(), Some(at(25)));
    }

    #[test]
    fn what_found_no_room_is_said_again_as_it_is_by_then() {
        let (socket, address) = manager("room");
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        let to = SocketAddr::from_abstract_name(&address[1..]).unwrap();
        while filler.send_to_addr(b"x", &to).is_ok() {}
        let mut notifier = Notifier::new(address.as_ref(), None).unwrap();
        notifier.turn(at(0), Phase::Starting);
        assert_eq!(notifier.next_deadline(), Some(at(100)));
        notifier.turn(at(50), Phase::Serving);
        assert_eq!(notifier.next_deadline(), Some(at(150)));
        assert!(heard(&socket).iter().all(|text| text == "x"));
        notifier.turn(at(149), Phase::Serving);
        assert!(heard(&socket).is_empty());
        notifier.turn(at(150), Phase::Serving);
        assert_eq!(heard(&socket), [Phase::Serving.text()]);
        assert_eq!(notifier.next_deadline(), None);
    }

    #[test]
    fn a_manager_that_is_gone_is_not_spoken_to_again() {
        let (socket, address) = manager("gone");
        drop(socket);
        let mut notifier = Notifier::new(address.as_ref(), None).unwrap();
        notifier.turn(at(0), Phase::Starting);
        assert_eq!(notifier.next_deadline(), None);
        let mut silent = Notifier::silent();
        silent.turn(at(0), Phase::Serving);
        assert_eq!(silent.next_deadline(), None);
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let parse = |text: &str| parse_address(OsStr::new(text));
        assert_eq!(parse("/run/a").unwrap().as_pathname(), Some("/run/a".as_ref()));
        assert_eq!(parse("@a/b").unwrap().as_abstract_name(), Some(&b"a/b"[..]));
        for wrong in ["", "run/a", "vsock:2:1234", &"/a".repeat(100)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
