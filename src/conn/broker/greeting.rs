//! How a peer introduces itself: password, version of the protocol, name, database.

use super::{Broker, Context, Peer, State};
use crate::arena::ConnId;
use crate::config::Level;
use crate::limits::BROKER_PATTERN_BYTES_MAX;
use crate::wire::commands::Commands;
use crate::wire::replies::{Replies, Version};

/// The Redis whose commands and texts these are: clients look at it to know what they may use.
pub const REDIS_VERSION: &str = "7.2.0";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
                           default user. Are you sure your configuration is correct?";
const HELLO_NEEDS_AUTH: &str = "NOAUTH HELLO must be called with the client already \
     authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
     authenticate the client and select the RESP protocol version at the same time";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

impl Broker {
    /// `AUTH [user] password`.
    pub(super) fn auth(&mut self, conn: ConnId, words: &[&[u8]], ctx: &mut Context<'_>) {
        let error = match *words {
            [_] if self.config.password.is_none() => Some(NO_PASSWORD),
            [password] => self.authenticate(conn, b"default", password, ctx).err(),
            [user, password] => self.authenticate(conn, user, password, ctx).err(),
            _ => Some("ERR syntax error"),
        };
        self.reply(conn, |peer| match error {
            None => peer.replies.simple("OK"),
            Some(error) => peer.replies.error(error),
        });
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    pub(super) fn hello(&mut self, conn: ConnId, words: &[&[u8]], ctx: &mut Context<'_>) {
        let result = self.hello_result(conn, words, ctx);
        self.reply(conn, |peer| match result {
            Ok(()) => peer.tell_server(),
            Err(error) => peer.replies.error(&error),
        });
    }

    fn hello_result(
        &mut self,
        conn: ConnId,
        words: &[&[u8]],
        ctx: &mut Context<'_>,
    ) -> Result<(), String> {
        let (version, mut options) = match words.split_first() {
            None => (None, words),
            Some((version, options)) => (Some(read_version(version)?), options),
        };
        let mut name = None;
        while let [option, rest @ ..] = options {
            options = match rest {
                [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    self.authenticate(conn, user, password, ctx)?;
                    rest
                }
                [new, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    name = Some(check_name(new)?);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option:.128}'"));
                }
            };
        }
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if !peer.is_authenticated {
            return Err(HELLO_NEEDS_AUTH.to_owned());
        }
        if let Some(name) = name {
            peer.name = name.to_vec();
        }
        if let Some(version) = version {
            peer.replies.version = version;
        }
        Ok(())
    }

    /// There is one user, `default`; without a password it is let in with any.
    fn authenticate(
        &mut self,
        conn: ConnId,
        user: &[u8],
        password: &[u8],
        ctx: &mut Context<'_>,
    ) -> Result<(), &'static str> {
        let known = self.config.password.as_deref();
        let matches = known.is_none_or(|known| is_same(password, known.as_bytes()));
        let word_bytes_max = self.word_bytes_max(true);
        let Some(peer) = self.peers.get_mut(conn) else { return Ok(()) };
        if !matches || user != b"default" {
            if !std::mem::replace(&mut peer.is_suspect, true) {
                let line = ctx.log.at(ctx.now, Level::Warning, "broker password refused");
                drop(line.display("remote", peer.address));
            }
            return Err(WRONG_PASSWORD);
        }
        if !std::mem::replace(&mut peer.is_authenticated, true) {
            // Between two commands: nothing of the next one is read yet.
            peer.commands = Commands::new(word_bytes_max);
        }
        Ok(())
    }

    /// Makes the peer what it was when it came.
    pub(super) fn reset(&mut self, conn: ConnId) {
        self.leave_all(conn);
        let is_authenticated = self.config.password.is_none();
        let commands = Commands::new(self.word_bytes_max(is_authenticated));
        self.reply(conn, |peer| {
            assert!(matches!(peer.state, State::Open), "commands are of open peers");
            peer.commands = commands;
            peer.is_authenticated = is_authenticated;
            peer.transaction = None;
            peer.replies.version = Version::Resp2;
            peer.name = Vec::new();
            peer.database = 0;
            peer.replies.simple("RESET")
        });
    }
}

impl Peer {
    /// The answer to `HELLO`.
    fn tell_server(&mut self) -> &mut Replies {
        let number = self.number as i64;
        let replies = &mut self.replies;
        let version = replies.version.number();
        replies.map(7);
        text(replies, "server", "redis");
        text(replies, "version", REDIS_VERSION);
        replies.bulk(b"proto").integer(version);
        replies.bulk(b"id").integer(number);
        text(replies, "mode", "standalone");
        text(replies, "role", "master");
        replies.bulk(b"modules").array(0)
    }

    /// `PING [text]`. In RESP2 a listener gets what cannot be taken for a message.
    pub(super) fn ping(&mut self, words: &[&[u8]]) -> &mut Replies {
        let listens = self.replies.version == Version::Resp2 && self.subscriptions() > 0;
        match *words {
            [] if listens => self.replies.array(2).bulk(b"pong").bulk(b""),
            [text] if listens => self.replies.array(2).bulk(b"pong").bulk(text),
            [] => self.replies.simple("PONG"),
            [text] => self.replies.bulk(text),
            _ => self.replies.error("ERR wrong number of arguments for 'ping' command"),
        }
    }

    /// Databases are numbers without a meaning here: channels are the same in all of them.
    pub(super) fn select(&mut self, word: &[u8]) -> &mut Replies {
        match number(word) {
            None => self.replies.error("ERR value is not an integer or out of range"),
            Some(number) if !(0..=i64::from(u32::MAX)).contains(&number) => {
                self.replies.error("ERR DB index is out of range")
            }
            Some(number) => {
                self.database = number;
                self.replies.simple("OK")
            }
        }
    }

    pub(super) fn tell_name(&mut self) -> &mut Replies {
        if self.name.is_empty() { self.replies.null() } else { self.replies.bulk(&self.name) }
    }

    pub(super) fn set_name(&mut self, name: &[u8]) -> &mut Replies {
        match check_name(name) {
            Ok(name) => {
                self.name = name.to_vec();
                self.replies.simple("OK")
            }
            Err(error) => self.replies.error(error),
        }
    }

    /// Libraries tell who they are; nobody asks them here.
    pub(super) fn set_info(&mut self, option: &[u8], value: &[u8]) -> &mut Replies {
        let known = [&b"lib-name"[..], b"lib-ver"];
        if !known.iter().any(|known| option.eq_ignore_ascii_case(known)) {
            let option = String::from_utf8_lossy(option);
            self.replies.error(&format!("ERR Unrecognized option '{option:.128}'"))
        } else if check_name(value).is_err() {
            let option = String::from_utf8_lossy(option);
            let what = "cannot contain spaces, newlines or special characters.";
            self.replies.error(&format!("ERR {option} {what}"))
        } else {
            self.replies.simple("OK")
        }
    }
}

fn text(replies: &mut Replies, key: &str, value: &str) {
    replies.bulk(key.as_bytes()).bulk(value.as_bytes());
}

fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn read_version(word: &[u8]) -> Result<Version, &'static str> {
    match number(word) {
        Some(2) => Ok(Version::Resp2),
        Some(3) => Ok(Version::Resp3),
        Some(_) => Err("NOPROTO unsupported protocol version"),
        None => Err("ERR Protocol version is not an integer or out of range"),
    }
}

/// Names stand in lists with spaces between the fields.
fn check_name(name: &[u8]) -> Result<&[u8], &'static str> {
    let fits = name.len() <= BROKER_PATTERN_BYTES_MAX;
    if fits && name.iter().all(u8::is_ascii_graphic) { Ok(name) } else { Err(BAD_NAME) }
}

/// Compares in a time that depends on the length of what was given alone.
fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = given.len() ^ secret.len();
    for (index, byte) in given.iter().enumerate() {
        let other = secret.get(index % secret.len().max(1)).copied().unwrap_or_default();
        // Kept from being cut short where the answer is known already.
        difference = std::hint::black_box(difference | usize::from(byte ^ other));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_the_same_or_not() {
        assert!(is_same(b"secret", b"secret"));
        for other in [&b""[..], b"secre", b"secrets", b"Secret", b"secretsecret"] {
            assert!(!is_same(other, b"secret") && !is_same(b"secret", other));
        }
    }
}
