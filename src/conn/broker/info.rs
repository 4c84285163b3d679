//! What the broker tells of itself and its peers.

use std::fmt::Write as _;

use super::greeting::REDIS_VERSION;
use super::table::Verb;
use super::{Broker, Context, Peer};
use crate::arena::ConnId;
use crate::time::Instant;

impl Broker {
    /// `INFO [section …]`: as much as clients look at before they trust a server.
    pub(super) fn info(&mut self, conn: ConnId, sections: &[&[u8]], ctx: &mut Context<'_>) {
        let text = self.info_text(sections, ctx);
        self.reply(conn, |peer| peer.replies.verbatim(&text));
    }

    fn info_text(&self, wanted: &[&[u8]], ctx: &Context<'_>) -> String {
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let everything = wanted.is_empty()
            || wanted
                .iter()
                .any(|word| ["default", "all", "everything"].iter().any(|n| is(word, n)));
        let uptime = ctx.now.mono.since(Instant::ZERO).as_secs();
        let readers = self.peers.iter().filter(|(_, peer)| peer.subscriptions() > 0).count();
        let sections = [
            (
                "Server",
                format!(
                    "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n\
                     socketshark_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{uptime}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    self.pid,
                ),
            ),
            (
                "Clients",
                format!("connected_clients:{}\r\npubsub_clients:{readers}\r\n", self.peers.len()),
            ),
            ("Persistence", "loading:0\r\n".to_owned()),
            (
                "Stats",
                format!(
                    "total_connections_received:{}\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\n",
                    self.peers_ever,
                    self.subscriptions.channel_count(),
                    self.subscriptions.pattern_count(),
                ),
            ),
            ("Replication", "role:master\r\nconnected_slaves:0\r\n".to_owned()),
        ];
        let mut text = String::new();
        for (name, lines) in sections {
            if everything || wanted.iter().any(|word| is(word, name)) {
                let gap = if text.is_empty() { "" } else { "\r\n" };
                // Writing to a string cannot fail.
                let _ = write!(text, "{gap}# {name}\r\n{lines}");
            }
        }
        text
    }

    /// `CLIENT INFO` and `CLIENT LIST`.
    pub(super) fn tell_clients(
        &mut self,
        conn: ConnId,
        verb: Verb,
        words: &[&[u8]],
        ctx: &mut Context<'_>,
    ) {
        let mut text = String::new();
        for (id, peer) in self.peers.iter() {
            if verb == Verb::ClientList || id == conn {
                peer.describe(ctx.now.mono, &mut text);
            }
        }
        self.reply(conn, |peer| match words {
            [_, _] => peer.replies.verbatim(&text),
            _ => peer.replies.error("ERR syntax error"),
        });
    }
}

impl Peer {
    fn describe(&self, now: Instant, text: &mut String) {
        let flags = if self.subscriptions() > 0 { "P" } else { "N" };
        let _ = writeln!(
            text,
            "id={} addr={} name={} age={} flags={flags} db={} sub={} psub={} user=default resp={}",
            self.number,
            self.address,
            // Checked to be of printable characters.
            String::from_utf8_lossy(&self.name),
            now.since(self.since).as_secs(),
            self.database,
            self.channels.len(),
            self.patterns.len(),
            self.replies.version.number(),
        );
    }
}
