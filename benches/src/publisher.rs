//! Who publishes: to a real Redis, or straight to the floor.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Outcome;
use crate::frames;

/// One message: its topic or user, and its number there.
#[derive(Clone, Copy)]
pub struct Message {
    pub group: u64,
    pub number: u64,
}

/// Whom the numbers of messages stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    Topics,
    Users,
}

enum Way {
    /// Replies that are still to come.
    Redis {
        replies: usize,
    },
    Floor,
}

pub struct Publisher {
    stream: TcpStream,
    way: Way,
    groups: Groups,
    bytes: Vec<u8>,
}

impl Publisher {
    pub fn to_redis(port: u16, groups: Groups) -> Outcome<Publisher> {
        Publisher::new(port, Way::Redis { replies: 0 }, groups)
    }

    pub fn to_floor(port: u16, groups: Groups) -> Outcome<Publisher> {
        Publisher::new(port, Way::Floor, groups)
    }

    fn new(port: u16, way: Way, groups: Groups) -> Outcome<Publisher> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Publisher { stream, way, groups, bytes: Vec::new() })
    }

    /// Publishes messages in one write.
    pub fn publish(&mut self, messages: &[Message]) -> Outcome<()> {
        self.take_replies()?;
        self.bytes.clear();
        for &Message { group, number } in messages {
            match &mut self.way {
                Way::Floor => {
                    let text = match self.groups {
                        Groups::Topics => frames::message(group, number),
                        Groups::Users => frames::message_for(group, number),
                    };
                    frames::floor_record(group, &frames::server_frame(&text), &mut self.bytes);
                }
                Way::Redis { replies } => {
                    let (channel, text) = match self.groups {
                        Groups::Topics => (frames::news(group), frames::publication(group, number)),
                        Groups::Users => {
                            (frames::USERS.to_owned(), frames::publication_for(group, number))
                        }
                    };
                    *replies += 1;
                    for part in ["PUBLISH", &channel, &text] {
                        let head = if part == "PUBLISH" { "*3\r\n" } else { "" };
                        write!(self.bytes, "{head}${}\r\n{part}\r\n", part.len())?;
                    }
                }
            }
        }
        Ok(self.stream.write_all(&self.bytes)?)
    }

    /// Reads what Redis said to the messages before.
    fn take_replies(&mut self) -> Outcome<()> {
        let Way::Redis { replies } = &mut self.way else { return Ok(()) };
        let mut buffer = [0; 4096];
        while *replies > 0 {
            let length = self.stream.read(&mut buffer)?;
            if length == 0 || buffer[..length].contains(&b'-') {
                return Err("Redis does not publish".into());
            }
            let lines = buffer[..length].iter().filter(|&&byte| byte == b'\n').count();
            *replies = replies.checked_sub(lines).ok_or("Redis says more than it was asked")?;
        }
        Ok(())
    }
}
