//! A Redis server with the real one's semantics of pub/sub: answers in the order of the commands,
//! and a connection gets messages exactly between its SUBSCRIBE and its UNSUBSCRIBE.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::marks::{Mark, Publication};
use crate::wire::resp::{Commands, array};
use crate::world::pipe::{Chunk, PipeId};

pub struct Server {
    password: Option<String>,
    prefix: String,
    /// It refuses dials and has no connections.
    pub down: bool,
    /// It answers nothing for a while.
    pub hangs: bool,
    /// Channels (without prefix) that it refuses.
    pub denied: BTreeSet<String>,
    conns: BTreeMap<PipeId, Conn>,
}

#[derive(Default)]
struct Conn {
    commands: Commands,
    known: bool,
    channels: BTreeSet<String>,
}

impl Server {
    pub fn new(password: Option<String>, prefix: String) -> Server {
        Server {
            password,
            prefix,
            down: false,
            hangs: false,
            denied: BTreeSet::new(),
            conns: BTreeMap::new(),
        }
    }

    pub fn connected(&mut self, pipe: PipeId) {
        self.conns.insert(pipe, Conn::default());
    }

    pub fn gone(&mut self, pipe: PipeId) {
        self.conns.remove(&pipe);
    }

    pub fn pipes(&self) -> Vec<PipeId> {
        self.conns.keys().copied().collect()
    }

    /// What is subscribed on any connection, without the prefix.
    pub fn channels(&self) -> BTreeSet<&str> {
        let all = self.conns.values().flat_map(|conn| &conn.channels);
        all.map(|name| name.strip_prefix(&self.prefix).expect("channels have the prefix")).collect()
    }

    pub fn received(&mut self, pipe: PipeId, bytes: &[u8]) -> Vec<Chunk> {
        let Some(mut conn) = self.conns.remove(&pipe) else { return Vec::new() };
        let commands = conn.commands.push(bytes);
        let answers = commands.iter().map(|command| self.answer(&mut conn, command)).collect();
        self.conns.insert(pipe, conn);
        answers
    }

    fn answer(&self, conn: &mut Conn, command: &[String]) -> Chunk {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        conn.known |= self.password.is_none();
        if let ["AUTH", password] = words[..] {
            assert_eq!(Some(password), self.password.as_deref(), "the right password");
            conn.known = true;
            return Chunk::marked("+OK\r\n", Mark::Answered(true));
        }
        assert!(conn.known, "first the password, then {words:?}");
        let bytes = match words[..] {
            ["CLIENT", "SETNAME", _] | ["SELECT", _] => b"+OK\r\n".to_vec(),
            ["PING"] if conn.channels.is_empty() => b"+PONG\r\n".to_vec(),
            ["PING"] => array(&["pong", ""], None),
            ["SUBSCRIBE", channel] => {
                let name = channel.strip_prefix(&self.prefix).unwrap_or(channel);
                if self.denied.contains(name) {
                    let error = "-NOPERM this user has no permissions to access the channel\r\n";
                    return Chunk::marked(error, Mark::Answered(false));
                }
                conn.channels.insert(channel.to_owned());
                array(&["subscribe", channel], Some(conn.channels.len()))
            }
            ["UNSUBSCRIBE", channel] => {
                conn.channels.remove(channel);
                array(&["unsubscribe", channel], Some(conn.channels.len()))
            }
            _ => panic!("Redis does not know {words:?}"),
        };
        Chunk::marked(bytes, Mark::Answered(true))
    }

    /// A message for everybody who is subscribed.
    pub fn publish(&self, channel: &str, message: &Rc<Publication>) -> Vec<(PipeId, Chunk)> {
        let full = format!("{}{channel}", self.prefix);
        let subscribed = self.conns.iter().filter(|(_, conn)| conn.channels.contains(&full));
        let bytes = array(&["message", &full, &message.text], None);
        let mark = Mark::Message(channel.to_owned(), message.clone());
        subscribed.map(|(pipe, _)| (*pipe, Chunk::marked(bytes.clone(), mark.clone()))).collect()
    }
}
