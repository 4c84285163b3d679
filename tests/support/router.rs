//! The program itself, as a process of its own: its configuration file, its log, its end.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::request;
use super::http;
use super::wait::{PATIENCE, TempDir, free_port, until};
use super::{Client, Redis, merge};

pub const BINARY: &str = env!("CARGO_BIN_EXE_socketshark");

/// A running router. It is killed when the value is dropped.
pub struct Router {
    /// Where clients connect.
    pub port: u16,
    pub metrics_port: u16,
    process: Child,
    log: LogLines,
    config: PathBuf,
    _dir: TempDir,
}

/// What the tests start from: quick to fail, everything logged.
pub fn base_config(redis: &Redis) -> Value {
    json!({
        "WS_HOST": "127.0.0.1",
        "WS_PORT": 0,
        "LOG": { "level": "DEBUG", "trace_level": "DEBUG", "style": "json" },
        "HTTP": { "timeout": 5, "tries": 2, "wait": 0.05 },
        "REDIS": { "host": "127.0.0.1", "port": redis.port, "reconnect_max_delay": 0.2 },
    })
}

impl Router {
    /// Starts a router on `base_config` with `config` over it and waits until it is ready.
    #[track_caller]
    pub fn start(redis: &Redis, config: Value) -> Router {
        let mut whole = base_config(redis);
        merge(&mut whole, config);
        // Somebody else may take the metrics port in between; then the next one.
        for _ in 0..5 {
            let mut router = Router::launch(whole.clone());
            if router.wait_ready() {
                return router;
            }
            assert!(router.log.text().contains("in use"), "not ready: {}", router.log.text());
        }
        panic!("no free port for the metrics");
    }

    /// A router with a Redis of its own.
    #[track_caller]
    pub fn alone(config: Value) -> (Router, Redis) {
        let redis = Redis::start();
        (Router::start(&redis, config), redis)
    }

    /// Starts a router on this configuration plus a metrics port, without waiting for anything.
    pub fn launch(config: Value) -> Router {
        Router::launch_by(Command::new(BINARY), config)
    }

    /// With no more than this number of descriptors.
    pub fn launch_with_descriptors(descriptors: usize, config: Value) -> Router {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""), BINARY]);
        Router::launch_by(command, config)
    }

    /// With these variables in its environment.
    pub fn launch_with_environment(variables: &[(&str, &str)], config: Value) -> Router {
        let mut command = Command::new(BINARY);
        command.envs(variables.iter().copied());
        Router::launch_by(command, config)
    }

    fn launch_by(mut command: Command, mut config: Value) -> Router {
        let metrics_port = free_port();
        let metrics = json!({ "prometheus": { "host": "127.0.0.1", "port": metrics_port } });
        merge(&mut config, json!({ "METRICS": metrics }));
        let dir = TempDir::new();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        command.arg("-c").arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let log = LogLines::follow(process.stderr.take().unwrap());
        Router { port: 0, metrics_port, process, log, config: path, _dir: dir }
    }

    /// False: it ended instead.
    #[track_caller]
    pub fn wait_ready(&mut self) -> bool {
        let ready = until("the router to be ready", || {
            if let Some(line) = self.log.find(is_ready) {
                return Some(Some(line));
            }
            self.process.try_wait().unwrap().map(|_| None)
        });
        if let Some(line) = &ready {
            let port = &line["port"];
            let port = port.as_u64().or_else(|| port.as_str().and_then(|text| text.parse().ok()));
            self.port = port.and_then(|port| port.try_into().ok()).expect("ready names the port");
        }
        ready.is_some()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    // What it takes of the machine.

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1_024 * line.split_ascii_whitespace().next().unwrap().parse::<usize>().unwrap()
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap()
    }

    // Its log.

    /// Waits for a line whose `event` is this one.
    #[track_caller]
    pub fn wait_event(&self, event: &str) -> Value {
        self.wait_log(event, |line| line["event"] == event)
    }

    #[track_caller]
    pub fn wait_log(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the log line: {what}"), || self.log.find(&matches))
    }

    /// Lets the pipe fill up that it logs to, or reads on.
    pub fn stall_log(&self, stalled: bool) {
        self.log.stalled.store(stalled, Ordering::Relaxed);
    }

    /// All lines so far that are JSON.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log.lines()
    }

    pub fn log_text(&self) -> String {
        self.log.text()
    }

    // Signals and the end.

    /// `name` without SIG.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Stops the process without ending it: what comes meanwhile, it will find all at once.
    pub fn freeze(&self) {
        self.signal("STOP");
        let path = format!("/proc/{}/stat", self.pid());
        until("the router to stand still", || {
            let stat = std::fs::read_to_string(&path).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T').then_some(())
        });
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for the end and gives the exit status. By then the log is complete.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Option<i32> {
        let status = until("the router to end", || self.process.try_wait().unwrap());
        self.log.wait_end();
        status.code()
    }

    /// SIGTERM, and the exit status.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_exit()
    }

    /// Whether opening handshakes are answered with 503.
    pub fn is_refusing(&self) -> bool {
        let refusal = Client::handshake(self.port, &request("/", "")).err().flatten();
        refusal.is_some_and(|head| head.status() == 503)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Writes the configuration file anew, for SIGHUP.
    pub fn rewrite_config(&self, change: impl FnOnce(&mut Value)) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let mut config = serde_json::from_str(&text).unwrap();
        change(&mut config);
        self.overwrite_config(&config.to_string());
    }

    /// The same, starting from another text.
    pub fn rewrite_config_from(&self, text: &str, change: impl FnOnce(&mut Value)) {
        self.overwrite_config(text);
        self.rewrite_config(change);
    }

    pub fn config_path(&self) -> &std::path::Path {
        &self.config
    }

    pub fn overwrite_config(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    // Its metrics port.

    #[track_caller]
    pub fn get(&self, path: &str) -> (http::Head, String) {
        http::get(self.metrics_port, path)
    }

    /// A metric's value; `series` is the name with its labels as `/metrics` writes them.
    #[track_caller]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        sample(&text, series)
    }

    #[track_caller]
    pub fn wait_metric(&self, series: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.metric(series);
            if found == Some(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{series} is {found:?}, not {value}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn wait_readyz(&self, status: u16) {
        until(&format!("/readyz to answer {status}"), || {
            (self.get("/readyz").0.status() == status).then_some(())
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.stall_log(false);
        if std::thread::panicking() {
            self.log.wait_end();
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the router's last lines:\n{}", last.join("\n"));
        }
    }
}

pub fn is_ready(line: &Value) -> bool {
    line["event"].as_str().is_some_and(|event| event.contains("ready"))
}

/// The value of a series in Prometheus' text format.
pub fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.unwrap().success(), "kill -{name} {pid}");
}

/// Runs the program to its end: exit status, stdout, stderr.
#[track_caller]
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The lines of a process's stderr, read as they come.
struct LogLines {
    lines: Arc<Mutex<Vec<String>>>,
    /// While set, nothing is read.
    stalled: Arc<AtomicBool>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl LogLines {
    fn follow(stderr: impl std::io::Read + Send + 'static) -> LogLines {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        let stalled = Arc::new(AtomicBool::new(false));
        let stalls = stalled.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { return };
                while stalls.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                into.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        LogLines { lines, stalled, reader: Some(reader) }
    }

    fn lines(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn find(&self, matches: impl Fn(&Value) -> bool) -> Option<Value> {
        self.lines().into_iter().find(matches)
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Once the process has ended.
    fn wait_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}
