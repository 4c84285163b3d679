//! A redis-server of one's own, on a port of its own, and a RESP client just good enough to
//! publish and to ask who is subscribed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use super::router::signal;
use super::wait::{PATIENCE, TempDir, free_port, until};

pub struct Redis {
    pub port: u16,
    process: Child,
    password: Option<String>,
    dir: TempDir,
    /// One connection for all commands, so that they are carried out in order.
    link: Mutex<Option<BufReader<TcpStream>>>,
}

/// A reply, arrays and all.
#[derive(Clone, PartialEq, Debug)]
pub enum Resp {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Resp>),
}

impl Redis {
    pub fn start() -> Redis {
        Redis::launch(None)
    }

    pub fn with_password(password: &str) -> Redis {
        Redis::launch(Some(password.to_owned()))
    }

    fn launch(password: Option<String>) -> Redis {
        // Somebody else may take the port in between; then the next one.
        for _ in 0..10 {
            let port = free_port();
            let dir = TempDir::new();
            let process = spawn(port, password.as_deref(), &dir);
            let mut redis =
                Redis { port, process, password: password.clone(), dir, link: Mutex::new(None) };
            if redis.answers() {
                return redis;
            }
        }
        panic!("no redis-server would start");
    }

    /// Whether the server came up and is ours.
    fn answers(&mut self) -> bool {
        until("redis-server to answer", || {
            if self.process.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let link = self.dial()?;
            *self.link.lock().unwrap() = Some(link);
            let info = self.try_command(&["INFO", "server"])?;
            let Resp::Bulk(Some(text)) = info else { return None };
            let ours = format!("process_id:{}\r\n", self.process.id());
            Some(String::from_utf8_lossy(&text).contains(&ours))
        })
    }

    fn dial(&self) -> Option<BufReader<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut link = BufReader::new(stream);
        if let Some(password) = &self.password {
            exchange(&mut link, &[b"AUTH", password.as_bytes()])?;
        }
        Some(link)
    }

    /// Ends the server at once, as a crash does.
    pub fn stop(&mut self) {
        *self.link.lock().unwrap() = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.stop();
        until("redis-server to restart", || {
            self.process = spawn(self.port, self.password.as_deref(), &self.dir);
            self.answers().then_some(())
        });
    }

    /// The same, with another password.
    pub fn restart_with_password(&mut self, password: &str) {
        self.password = Some(password.to_owned());
        self.restart();
    }

    /// Stops the process without ending it: its sockets stay open, nothing is answered.
    pub fn freeze(&self) {
        signal(self.process.id(), "STOP");
    }

    pub fn thaw(&self) {
        signal(self.process.id(), "CONT");
    }

    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Resp {
        self.try_command(words).expect("redis-server answers")
    }

    fn try_command(&self, words: &[&str]) -> Option<Resp> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.try_bytes(&words)
    }

    fn try_bytes(&self, words: &[&[u8]]) -> Option<Resp> {
        let mut link = self.link.lock().unwrap();
        if link.is_none() {
            *link = self.dial();
        }
        exchange(link.as_mut()?, words)
    }

    /// A connection of one's own for publishing.
    #[track_caller]
    pub fn publisher(&self) -> Publisher {
        Publisher(self.dial().expect("redis-server answers"))
    }

    /// Returns the number of connections that received it.
    #[track_caller]
    pub fn publish(&self, channel: &str, payload: &str) -> i64 {
        self.publish_bytes(channel.as_bytes(), payload.as_bytes())
    }

    #[track_caller]
    pub fn publish_bytes(&self, channel: &[u8], payload: &[u8]) -> i64 {
        match self.try_bytes(&[b"PUBLISH", channel, payload]) {
            Some(Resp::Integer(receivers)) => receivers,
            other => panic!("PUBLISH answered {other:?}"),
        }
    }

    /// The connections that are subscribed to the channel.
    #[track_caller]
    pub fn subscribers(&self, channel: &str) -> i64 {
        match self.command(&["PUBSUB", "NUMSUB", channel]) {
            Resp::Array(items) => match items.get(1) {
                Some(Resp::Integer(count)) => *count,
                other => panic!("NUMSUB answered {other:?}"),
            },
            other => panic!("NUMSUB answered {other:?}"),
        }
    }

    /// All channels that somebody is subscribed to, sorted.
    #[track_caller]
    pub fn channels(&self) -> Vec<String> {
        let Resp::Array(items) = self.command(&["PUBSUB", "CHANNELS"]) else {
            panic!("CHANNELS answered no array")
        };
        let text = |item: &Resp| match item {
            Resp::Bulk(Some(name)) => String::from_utf8_lossy(name).into_owned(),
            other => panic!("{other:?} among the channels"),
        };
        let mut names: Vec<String> = items.iter().map(text).collect();
        names.sort();
        names
    }

    #[track_caller]
    pub fn wait_channels(&self, names: &[&str]) {
        let what = format!("the channels to be {names:?}");
        until(&what, || (self.channels() == names).then_some(()));
    }
}

/// Publishes, from whatever thread.
pub struct Publisher(BufReader<TcpStream>);

impl Publisher {
    #[track_caller]
    pub fn publish(&mut self, channel: &str, message: &Value) {
        let payload = message.to_string();
        let reply = exchange(&mut self.0, &[b"PUBLISH", channel.as_bytes(), payload.as_bytes()]);
        assert!(matches!(reply, Some(Resp::Integer(_))), "PUBLISH answered {reply:?}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(port: u16, password: Option<&str>, dir: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.args(["--appendonly", "no", "--loglevel", "warning", "--dir"]).arg(dir.path());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the tests need a redis-server in the PATH")
}

fn exchange(link: &mut BufReader<TcpStream>, words: &[&[u8]]) -> Option<Resp> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    link.get_mut().write_all(&request).ok()?;
    read_reply(link)
}

fn read_reply(link: &mut BufReader<TcpStream>) -> Option<Resp> {
    let mut line = String::new();
    link.read_line(&mut line).ok()?;
    let line = line.strip_suffix("\r\n")?;
    let (kind, rest) = line.split_at_checked(1)?;
    Some(match kind {
        "+" => Resp::Simple(rest.to_owned()),
        "-" => Resp::Error(rest.to_owned()),
        ":" => Resp::Integer(rest.parse().ok()?),
        "$" if rest == "-1" => Resp::Bulk(None),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().ok()? + 2];
            link.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            Resp::Bulk(Some(bytes))
        }
        "*" => Resp::Array(
            (0..rest.parse::<usize>().ok()?).map(|_| read_reply(link)).collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}
