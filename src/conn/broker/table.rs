//! The commands: their names, how many words they take, when they may be said. Names, counts and
//! texts of errors are those of Redis 7.

use std::borrow::Cow;

use super::Peer;
use crate::wire::replies::Version;

/// What a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Publish,
    Subscribe,
    Unsubscribe,
    PatternSubscribe,
    PatternUnsubscribe,
    PubsubChannels,
    PubsubNumsub,
    PubsubNumpat,
    Ping,
    Echo,
    Auth,
    Hello,
    Select,
    Quit,
    Reset,
    Multi,
    Exec,
    Discard,
    Info,
    ClientId,
    ClientGetname,
    ClientSetname,
    ClientSetinfo,
    ClientInfo,
    ClientList,
    /// Promises that cost nothing to give: NO-EVICT, NO-TOUCH.
    ClientPromise,
    Command,
    CommandCount,
    CommandDocs,
    CommandInfo,
    CommandList,
}

pub struct Entry {
    /// In lower case; subcommands behind a bar.
    pub name: &'static str,
    pub verb: Verb,
    /// The number of words, the command's own among them; negative: at least so many.
    words: i8,
}

const fn entry(name: &'static str, verb: Verb, words: i8) -> Entry {
    Entry { name, verb, words }
}

/// The most frequent one first: it is looked up in this order.
const COMMANDS: [Entry; 31] = [
    entry("publish", Verb::Publish, 3),
    entry("subscribe", Verb::Subscribe, -2),
    entry("unsubscribe", Verb::Unsubscribe, -1),
    entry("ping", Verb::Ping, -1),
    entry("psubscribe", Verb::PatternSubscribe, -2),
    entry("punsubscribe", Verb::PatternUnsubscribe, -1),
    entry("pubsub|channels", Verb::PubsubChannels, -2),
    entry("pubsub|numsub", Verb::PubsubNumsub, -2),
    entry("pubsub|numpat", Verb::PubsubNumpat, 2),
    entry("echo", Verb::Echo, 2),
    entry("auth", Verb::Auth, -2),
    entry("hello", Verb::Hello, -1),
    entry("select", Verb::Select, 2),
    entry("quit", Verb::Quit, -1),
    entry("reset", Verb::Reset, 1),
    entry("multi", Verb::Multi, 1),
    entry("exec", Verb::Exec, 1),
    entry("discard", Verb::Discard, 1),
    entry("info", Verb::Info, -1),
    entry("client|id", Verb::ClientId, 2),
    entry("client|getname", Verb::ClientGetname, 2),
    entry("client|setname", Verb::ClientSetname, 3),
    entry("client|setinfo", Verb::ClientSetinfo, 4),
    entry("client|info", Verb::ClientInfo, 2),
    entry("client|list", Verb::ClientList, -2),
    entry("client|no-evict", Verb::ClientPromise, 3),
    entry("client|no-touch", Verb::ClientPromise, 3),
    entry("command|count", Verb::CommandCount, 2),
    entry("command|docs", Verb::CommandDocs, -2),
    entry("command|info", Verb::CommandInfo, -2),
    entry("command|list", Verb::CommandList, -2),
];

/// Said without a subcommand; the others that have some need one.
const COMMAND: Entry = entry("command", Verb::Command, 1);

/// Commands that have subcommands.
const CONTAINERS: [&str; 3] = ["client", "command", "pubsub"];

/// Commands at the top level, those with subcommands counted once.
pub fn count() -> usize {
    let single = COMMANDS.iter().filter(|entry| !entry.name.contains('|')).count();
    single + CONTAINERS.len()
}

/// Finds the command that these words are, or says why they are none.
pub fn look_up(words: &[&[u8]]) -> Result<&'static Entry, String> {
    let (&name, rest) = words.split_first().ok_or_else(|| unknown(b"", &[]))?;
    let entry = match CONTAINERS.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
        Some(&container) => subcommand(container, rest)?,
        None => COMMANDS
            .iter()
            .find(|entry| name.eq_ignore_ascii_case(entry.name.as_bytes()))
            .ok_or_else(|| unknown(name, rest))?,
    };
    let count = i64::try_from(words.len()).unwrap_or(i64::MAX);
    let wanted = i64::from(entry.words);
    let fits = if wanted < 0 { count >= -wanted } else { count == wanted };
    if fits { Ok(entry) } else { Err(wrong_arity(entry.name)) }
}

fn subcommand(container: &'static str, rest: &[&[u8]]) -> Result<&'static Entry, String> {
    let Some(&name) = rest.first() else {
        return if container == COMMAND.name { Ok(&COMMAND) } else { Err(wrong_arity(container)) };
    };
    let found = COMMANDS.iter().find(|entry| match entry.name.split_once('|') {
        Some((of, known)) => of == container && name.eq_ignore_ascii_case(known.as_bytes()),
        None => false,
    });
    found.ok_or_else(|| {
        let container = container.to_ascii_uppercase();
        format!("ERR unknown subcommand '{}'. Try {container} HELP.", shown(name))
    })
}

fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// Quotes the name and as many arguments as 128 bytes hold.
fn unknown(name: &[u8], arguments: &[&[u8]]) -> String {
    let mut quoted = String::new();
    for argument in arguments {
        if quoted.len() >= 128 {
            break;
        }
        let room = (128 - quoted.len()).min(argument.len());
        quoted.push_str(&format!("'{}' ", String::from_utf8_lossy(&argument[..room])));
    }
    format!("ERR unknown command '{}', with args beginning with: {quoted}", shown(name))
}

/// A peer's word as errors quote it.
fn shown(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(128)])
}

/// Gives the command back if the peer may say it now, else why not.
pub fn allow(entry: &'static Entry, peer: &Peer) -> Result<&'static Entry, String> {
    let free = matches!(entry.verb, Verb::Auth | Verb::Hello | Verb::Quit | Verb::Reset);
    if !peer.is_authenticated && !free {
        return Err("NOAUTH Authentication required.".to_owned());
    }
    let listens = peer.replies.version == Version::Resp2 && peer.subscriptions() > 0;
    if listens && !is_for_listeners(entry.verb) {
        return Err(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            entry.name
        ));
    }
    if peer.transaction.is_some() && changes_subscriptions(entry.verb) {
        return Err("ERR Command not allowed inside a transaction".to_owned());
    }
    Ok(entry)
}

/// What may be said in RESP2 while something is subscribed: there, nothing tells a reply from a
/// message.
fn is_for_listeners(verb: Verb) -> bool {
    changes_subscriptions(verb) || matches!(verb, Verb::Ping | Verb::Quit | Verb::Reset)
}

fn changes_subscriptions(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Subscribe | Verb::Unsubscribe | Verb::PatternSubscribe | Verb::PatternUnsubscribe
    )
}
