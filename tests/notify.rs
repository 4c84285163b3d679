//! What a service manager is told, by the protocol of sd_notify(3).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Instant;

use support::router::base_config;
use support::wait::{PATIENCE, TempDir};
use support::{Redis, Router};

const SERVING: &str = "READY=1\nSTATUS=Serving";
const STOPPING: &str = "STOPPING=1\nSTATUS=Shutting down";
const ALIVE: &str = "WATCHDOG=1";

/// A service manager: the receiving end of a notification socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Manager {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    /// A manager on an abstract socket, and the address as the environment has it.
    fn named(name: &str) -> (Manager, String) {
        let name = format!("socketshark-{name}-{}", std::process::id());
        (Manager::at(&SocketAddr::from_abstract_name(&name).unwrap()), format!("@{name}"))
    }

    /// The next datagram.
    #[track_caller]
    fn hear(&self) -> String {
        let mut buffer = [0; 1_024];
        let length = self.0.recv(&mut buffer).expect("the router says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// What is said until `last`, that included.
    #[track_caller]
    fn hear_until(&self, last: &str) -> Vec<String> {
        let mut heard = vec![self.hear()];
        while heard.last().is_some_and(|text| text != last) {
            heard.push(self.hear());
        }
        heard
    }
}

#[test]
fn readiness_reload_and_end_are_told() {
    let dir = TempDir::new();
    let path = dir.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let redis = Redis::start();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut router = Router::launch_with_environment(&variables, base_config(&redis));
    assert_eq!(manager.hear_until(SERVING), ["STATUS=Starting", SERVING]);
    assert!(router.wait_ready());
    let mut client = router.client();
    router.signal("HUP");
    assert!(manager.hear().starts_with("RELOADING=1\n"));
    assert_eq!(manager.hear(), SERVING);
    router.wait_event("configuration reloaded");
    router.overwrite_config("no configuration");
    router.signal("HUP");
    assert!(manager.hear().starts_with("RELOADING=1\n"));
    assert_eq!(manager.hear(), SERVING);
    router.wait_event("configuration not reloaded");
    router.signal("TERM");
    assert_eq!(manager.hear(), STOPPING);
    client.expect_close(1001);
    assert_eq!(router.wait_exit(), Some(0));
}

#[test]
fn the_loss_of_redis_and_its_return_are_told() {
    let (manager, address) = Manager::named("redis");
    let mut redis = Redis::start();
    let variables = [("NOTIFY_SOCKET", address.as_str())];
    let _router = Router::launch_with_environment(&variables, base_config(&redis));
    manager.hear_until(SERVING);
    redis.stop();
    // The client port is still open: the manager must not take the process for one that starts.
    assert!(manager.hear().starts_with("READY=1\nSTATUS=Refusing"));
    redis.restart();
    assert_eq!(manager.hear(), SERVING);
}

#[test]
fn the_watchdog_hears_the_loop_turn_twice_in_its_time() {
    let (manager, address) = Manager::named("watchdog");
    let redis = Redis::start();
    let variables = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "200000")];
    let mut router = Router::launch_with_environment(&variables, base_config(&redis));
    manager.hear_until(ALIVE);
    let before = Instant::now();
    for _ in 0..3 {
        manager.hear_until(ALIVE);
    }
    // Three periods of 100 ms, less what the first beat was late to be read.
    assert!(before.elapsed().as_millis() > 200, "beats every {:?}", before.elapsed() / 3);
    router.signal("TERM");
    manager.hear_until(STOPPING);
    assert_eq!(router.wait_exit(), Some(0));
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_left_alone() {
    let (manager, address) = Manager::named("other");
    let redis = Redis::start();
    let address = ("NOTIFY_SOCKET", address.as_str());
    let variables = [address, ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let router = Router::launch_with_environment(&variables, base_config(&redis));
    manager.hear_until(SERVING);
    router.signal("TERM");
    assert_eq!(manager.hear_until(STOPPING), [STOPPING]);
}

#[test]
fn without_a_manager_that_can_be_told_the_router_runs_all_the_same() {
    let redis = Redis::start();
    for (address, is_named) in [("nonsense", true), ("/no/such/socket", false)] {
        let variables = [("NOTIFY_SOCKET", address)];
        let mut router = Router::launch_with_environment(&variables, base_config(&redis));
        assert!(router.wait_ready());
        let warned = router.log_text().contains("cannot notify the service manager");
        assert_eq!(warned, is_named, "{address}");
        assert_eq!(router.stop(), Some(0));
    }
}
