//! The comparison of what must be seen with what is.

use serde_json::Value;
use socketshark::arena::ConnId;
use socketshark::conn::calls::CallId;
use socketshark::message::Hook;
use socketshark::metrics::Metrics;

use super::{Call, Expected, Model, Seen, Serving, Stamps, Wish};
use crate::marks::{check_digits, without_digits};
use crate::peers::client::ACCEPT;
use crate::wire::frames::Said;

impl Model {
    /// Finds the callbacks that had to begin. Those that found no room in their queue have failed
    /// at once; says whether there were any.
    pub(super) fn match_wishes(&mut self, seen: &Seen) -> bool {
        let mut refused = Vec::new();
        for wish in std::mem::take(&mut self.step.wishes) {
            let is_it = |(id, hook, body): &&(_, Hook, Value)| {
                *hook == wish.hook && *body == wish.body && !self.calls.contains_key(id)
            };
            if let Some((id, hook, body)) = seen.begun.iter().find(is_it) {
                let (hook, body, owner) = (*hook, body.clone(), wish.owner);
                self.tally.calls += 1;
                self.calls.insert(*id, Call { hook, body, owner, begun: self.now });
            } else {
                let (hook, body) = (wish.hook, &wish.body);
                assert!(self.has_no_room(&wish, seen), "{hook:?} must begin: {body}");
                refused.push(wish.owner);
            }
        }
        for owner in &refused {
            self.finished(*owner, &super::Outcome::Unavailable);
        }
        !refused.is_empty()
    }

    /// Whether a callback may have found its queue full. Unsubscribe callbacks never do.
    fn has_no_room(&self, wish: &Wish, seen: &Seen) -> bool {
        let most = match wish.hook {
            Hook::BeforeUnsubscribe | Hook::OnUnsubscribe => return false,
            Hook::OnHeartbeat => self.rules.http.queued / 2,
            _ => self.rules.http.queued,
        };
        let lane = lane(wish.hook, &wish.body);
        let known = self.calls.values().filter(|call| call.lane() == lane).count();
        let is_new = |(id, hook, body): &&(CallId, Hook, Value)| {
            !self.calls.contains_key(id) && self::lane(*hook, body) == lane
        };
        known + seen.begun.iter().filter(is_new).count() >= most
    }

    pub(super) fn check(&mut self, seen: &Seen) {
        for (id, hook, body) in &seen.begun {
            assert!(self.calls.contains_key(id), "{hook:?} began without a reason: {body}");
        }
        if let Some(answered) = seen.answered {
            let has_ended = seen.ended.iter().any(|(id, _)| *id == answered);
            assert!(has_ended, "a callback whose answer is complete has ended");
        }
        let nothing = Vec::new();
        let mut conns: Vec<ConnId> = seen.said.keys().copied().collect();
        conns.extend(self.step.texts.keys().chain(self.step.heads.keys()));
        conns.extend(self.step.pongs.keys().chain(&self.step.pings).chain(self.step.closes.keys()));
        conns.sort_unstable();
        conns.dedup();
        for conn in conns {
            let said = seen.said.get(&conn).unwrap_or(&nothing);
            self.check_head(conn, said);
            self.check_texts(conn, said);
            self.check_control(conn, said);
        }
        // What came in the moment of such a close was delivered before it or not.
        let is_cut = |(_, code): (_, &Option<Option<u16>>)| matches!(code, Some(Some(1011..=1013)));
        self.is_blurred |= self.step.closes.iter().any(is_cut);
        self.check_channels();
        self.check_held();
    }

    /// What the program counts is so.
    pub fn check_counts(&self, metrics: &Metrics) {
        let open = self.sessions.values().filter(|session| session.open).count();
        assert_eq!(metrics.connections, open as u64, "sessions that are connected");
        let begun = self.tally.sessions as u64;
        assert_eq!(metrics.connections_total, begun, "sessions since the start");
        let stand = self.subs.values().filter(|sub| sub.stands()).count();
        assert_eq!(metrics.subscriptions, stand as u64, "subscriptions that stand");
        let calls = metrics.callbacks_in_flight + metrics.callbacks_queued;
        assert_eq!(calls, self.calls.len() as u64, "callbacks under way");
        assert_eq!(metrics.slow_consumers, self.tally.slow as u64, "clients that were too slow");
        assert_eq!(metrics.ready, self.serving == Serving::Yes, "readiness");
        for (redis, is_ready) in metrics.redis.iter().zip(self.links.ready()) {
            assert_eq!(redis.connected, is_ready, "Redis is connected");
        }
        if !self.is_blurred {
            let filtered: u64 = metrics.messages_filtered.iter().sum();
            assert_eq!(filtered, self.tally.filtered as u64, "messages that were filtered");
            let delivered = metrics.messages_delivered;
            assert_eq!(delivered, self.tally.delivered as u64, "messages that were delivered");
        }
    }

    fn check_head(&self, conn: ConnId, said: &[Said]) {
        let expected = self.step.heads.get(&conn).copied();
        let head = said.iter().find_map(|said| match said {
            Said::Head(status, head) => Some((*status, head)),
            _ => None,
        });
        match (expected, head) {
            (None, None) => {}
            (Some(expected), Some((status, head))) if status == expected => {
                let head = head.to_ascii_lowercase();
                let must_say = match status {
                    101 => {
                        &format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase())
                    }
                    405 => "\r\nallow: get\r\n",
                    426 => "\r\nupgrade: websocket\r\n",
                    503 => "\r\nretry-after: ",
                    _ => "",
                };
                let other = "\r\nsec-websocket-version: 13\r\n";
                let says = head.contains(must_say) || (status == 426 && head.contains(other));
                assert!(says, "{head} must say {must_say}");
            }
            (expected, head) => panic!("{conn}: the handshake gets {expected:?}, not {head:?}"),
        }
    }

    fn check_texts(&self, conn: ConnId, said: &[Said]) {
        let texts = said.iter().filter_map(|said| match said {
            Said::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let mut expected: Vec<&Expected> =
            self.step.texts.get(&conn).map_or(Vec::new(), |texts| texts.iter().collect());
        // What was to be sent in the moment of such a close may have gone out before it or not.
        let is_cut = matches!(self.step.closes.get(&conn), Some(Some(Some(1011..=1013))));
        // The order of what is due at the same moment is nobody's business.
        // A subscribe is refused sooner or later where a queue is full.
        let is_any_order = self.step.is_tick || (self.rules.jams() && self.rules.pong_immediate);
        for text in texts {
            check_digits(text);
            let value = without_digits(text);
            let value: Value = serde_json::from_str(&value).expect("what clients get is JSON");
            let mut places = expected.iter();
            let place = if is_cut || is_any_order {
                places.position(|next| self.is_it(next, &value, text))
            } else {
                places.next().filter(|next| self.is_it(next, &value, text)).map(|_| 0)
            };
            let Some(place) = place else {
                let expected = expected.first().map(|next| next.value.to_string());
                panic!("{conn}: got {text}\n  not {}", expected.unwrap_or_default());
            };
            if is_cut && !is_any_order {
                expected.drain(..=place);
            } else {
                expected.remove(place);
            }
        }
        if !is_cut && let Some(missing) = expected.first() {
            panic!("{conn}: did not get {}", missing.value);
        }
    }

    /// Whether a text is the expected one. Times are looked at for their presence alone.
    fn is_it(&self, expected: &Expected, value: &Value, text: &str) -> bool {
        let mut value = value.clone();
        if self.rules.metadata && expected.stamps != Stamps::None {
            let mut taken = |name: &str| value.as_object_mut().and_then(|it| it.remove(name));
            let (published, received) = (taken("published_at"), taken("received_at"));
            let (sent, queue) = (taken("sent_at"), taken("queue_size"));
            let (is_live, published_at) = match &expected.stamps {
                Stamps::Sent { held, published_at } => (!held, published_at.clone()),
                _ => (false, None),
            };
            let is_right = received.is_some() == is_live
                && queue.is_some() == is_live
                && sent.is_some()
                && published == published_at.map(Value::String);
            if !is_right {
                return false;
            }
        }
        value == expected.value && expected.raw.as_ref().is_none_or(|raw| text.contains(raw))
    }

    fn check_control(&mut self, conn: ConnId, said: &[Said]) {
        let close = said.iter().find_map(|said| match said {
            Said::Close(code) => Some(*code),
            _ => None,
        });
        let is_close = |said: &Said| matches!(said, Said::Close(_));
        let is_last = said.iter().position(is_close).is_none_or(|at| at + 1 == said.len());
        assert!(is_last, "{conn}: nothing follows a close frame: {said:?}");
        let expected = self.step.closes.get(&conn).copied();
        assert_eq!(close, expected.flatten(), "{conn}: the close frame");
        let is_cut = matches!(close, Some(Some(1011..=1013)));
        let is_pong = |said: &Said| matches!(said, Said::Pong(_));
        let pongs: Vec<Said> = said.iter().filter(|said| is_pong(said)).cloned().collect();
        let expected = self.step.pongs.remove(&conn).unwrap_or_default();
        let expected: Vec<Said> = expected.into_iter().map(Said::Pong).collect();
        assert!(pongs == expected || is_cut, "{conn}: pongs {pongs:?}, not {expected:?}");
        let pings = said.iter().filter_map(|said| match said {
            Said::Ping(payload) => Some(payload.clone()),
            _ => None,
        });
        let pings: Vec<Vec<u8>> = pings.collect();
        let is_due = self.step.pings.contains(&conn);
        assert!(pings.len() == usize::from(is_due) || is_cut, "{conn}: a ping is due: {is_due}");
        if let (Some(payload), Some(key)) = (pings.first(), self.session_of(conn)) {
            let now = self.now;
            if let Some(session) = self.sessions.get_mut(&key) {
                session.pings.sent(now, payload);
            }
        }
    }
}

impl Call {
    /// The queue that it waits in: its service's, or the authentication method's.
    pub fn lane(&self) -> &str {
        lane(self.hook, &self.body)
    }
}

impl Wish {
    /// The queue that it will wait in.
    pub(super) fn lane(&self) -> &str {
        lane(self.hook, &self.body)
    }
}

fn lane(hook: Hook, body: &Value) -> &str {
    if hook == Hook::Validation {
        return "ticket";
    }
    let name = body["subscription"].as_str().unwrap_or("?");
    name.split_once('.').map_or(name, |(service, _)| service)
}
