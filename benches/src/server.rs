//! The servers under test, each a process of its own: how they are started, and what they cost.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::publisher::{Groups, Publisher};

/// How long a server may take to open its port.
const START_MAX: Duration = Duration::from_secs(20);

/// A kind of server.
#[derive(Clone)]
pub enum Kind {
    Floor,
    /// A shell command; `{port}`, `{redis}`, `{service}` and `{config}` are filled in, and set in
    /// the environment as `BENCH_PORT`, `BENCH_REDIS_PORT`, `BENCH_SERVICE_PORT`, `BENCH_CONFIG`.
    Command(String),
}

/// What servers and load share: the ports of Redis and service, and a place for configurations.
pub struct Bench {
    pub redis_port: u16,
    pub service_port: u16,
    pub directory: PathBuf,
}

/// A server that runs. Dropping it kills it.
pub struct Server {
    child: Child,
    kind: Kind,
    pub port: u16,
    pub publish_port: u16,
    /// From its start to its first connection.
    pub started_in: Duration,
}

impl Bench {
    pub fn start(&self, kind: &Kind) -> Outcome<Server> {
        let port = free_port()?;
        let mut publish_port = self.redis_port;
        let mut command = match kind {
            Kind::Floor => {
                publish_port = free_port()?;
                let mut command = Command::new(std::env::current_exe()?);
                let ports = [port, publish_port, self.service_port];
                command.arg("floor").args(ports.map(|port| port.to_string()));
                command
            }
            Kind::Command(line) => self.shell_command(line, port)?,
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("BENCH_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let start = Instant::now();
        let child = command.spawn()?;
        let mut server =
            Server { child, kind: kind.clone(), port, publish_port, started_in: Duration::ZERO };
        loop {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                break;
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server has ended: {status}").into());
            }
            if start.elapsed() > START_MAX {
                return Err("the server does not open its port".into());
            }
            sleep(Duration::from_micros(100));
        }
        server.started_in = start.elapsed();
        Ok(server)
    }

    fn shell_command(&self, line: &str, port: u16) -> Outcome<Command> {
        let path = self.directory.join(format!("socketshark-{port}.json"));
        fs::write(&path, self.configuration(port))?;
        let variables = [
            ("{port}", "BENCH_PORT", port.to_string()),
            ("{redis}", "BENCH_REDIS_PORT", self.redis_port.to_string()),
            ("{service}", "BENCH_SERVICE_PORT", self.service_port.to_string()),
            ("{config}", "BENCH_CONFIG", path.display().to_string()),
        ];
        let mut line = format!("exec {line}");
        let mut command = Command::new("sh");
        for (placeholder, name, value) in variables {
            line = line.replace(placeholder, &value);
            command.env(name, value);
        }
        command.arg("-c").arg(line);
        Ok(command)
    }

    fn configuration(&self, port: u16) -> String {
        format!(
            r#"{{"WS_HOST": "127.0.0.1", "WS_PORT": {port}, "WS_PING": {{"interval": null}},
"REDIS": {{"host": "127.0.0.1", "port": {redis}, "ping_interval": null}},
"SERVICES": {{
  "news": {{"require_authentication": false}},
  "users": {{"require_authentication": false, "extra_fields": ["user"], "filter_fields": ["user"]}},
  "echo": {{"require_authentication": false, "on_message": "http://127.0.0.1:{service}/"}}
}}}}"#,
            redis = self.redis_port,
            service = self.service_port
        )
    }
}

impl Server {
    pub fn publisher(&self, groups: Groups) -> Outcome<Publisher> {
        match self.kind {
            Kind::Floor => Publisher::to_floor(self.publish_port, groups),
            Kind::Command(_) => Publisher::to_redis(self.publish_port, groups),
        }
    }

    /// Keeps the server on a processor of its own, and the load off it.
    pub fn pin(&self) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if processors > 1 {
            pin(self.child.id(), "0");
            pin(std::process::id(), &format!("1-{}", processors - 1));
        }
    }

    /// Processor time that the process has used up to now, user and system, in nanoseconds. Waits
    /// until it rests: the system counts what runs only when it stops.
    pub fn cpu(&self) -> Outcome<u64> {
        let mut last = self.cpu_now()?;
        for _ in 0..100 {
            sleep(Duration::from_millis(4));
            let now = self.cpu_now()?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }

    fn cpu_now(&self) -> Outcome<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let figures = fs::read_to_string(task?.path().join("schedstat"))?;
            let running = figures.split(' ').next().unwrap_or_default();
            sum += running.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Bytes that are resident, without what is shared with the file it was started from.
    pub fn anonymous_bytes(&self) -> Outcome<u64> {
        self.status("RssAnon:")
    }

    pub fn resident_bytes(&self) -> Outcome<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.ok_or("no such figure")?.trim().trim_end_matches(" kB");
        Ok(kilobytes.parse::<u64>()? * 1024)
    }

    /// The file that runs.
    pub fn file(&self) -> Outcome<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/exe", self.child.id()))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis of the benchmark's own.
pub struct Redis {
    child: Child,
    pub port: u16,
}

impl Redis {
    pub fn start(directory: &Path) -> Outcome<Redis> {
        let port = free_port()?;
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let no_limit = ["--client-output-buffer-limit", "pubsub", "0", "0", "0"];
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(port.to_string()).args(options).args(no_limit);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| format!("redis-server: {error}"))?;
        let redis = Redis { child, port };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if start.elapsed() > START_MAX {
                return Err("redis-server does not open its port".into());
            }
            sleep(Duration::from_millis(5));
        }
        if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
            pin(redis.child.id(), "1");
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without `taskset` the figures are less steady, that is all.
fn pin(process: u32, processors: &str) {
    let arguments = ["-a", "-p", "-c", processors, &process.to_string()];
    let _ = Command::new("taskset").args(arguments).stdout(Stdio::null()).status();
}

/// A port below those that the system gives to connections.
fn free_port() -> Outcome<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + start.wrapping_mul(31).wrapping_add(step) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}
