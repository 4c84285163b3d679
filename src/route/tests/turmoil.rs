//! Everything at once, in an order that a seed decides: whatever crosses, the callbacks of every
//! subscription add up, clients hear what they should, and nothing stays behind.

use super::super::session::Phase;
use std::collections::BTreeMap;

use super::*;

/// What one client has been told.
struct Guest {
    client: Client,
    paused: bool,
    /// Subscriptions by name, as the client knows them: those that are ending among them.
    told: BTreeMap<String, u32>,
    /// The last message by the channel that it was published on.
    last: BTreeMap<String, u64>,
}

/// Callbacks made for one name of one session.
#[derive(Default, Debug)]
struct Story {
    confirmed: u32,
    on_subscribe: u32,
    before_unsubscribe: u32,
    refused: u32,
    on_unsubscribe: u32,
}

struct Turmoil {
    bench: Bench,
    random: Random,
    guests: Vec<Guest>,
    stories: BTreeMap<(SessionId, String), Story>,
    published: u64,
}

const NAMES: [&str; 5] = ["s.a", "s.b", "s.c", "t.a", "nobody.a"];

fn config(renewal: &str) -> String {
    let fields = r#""extra_fields": ["id"], "authorizer_fields": ["role"]"#;
    let hooks = format!("{LIFE} on_authorization_change on_heartbeat");
    format!(
        r#"{{"LIMITS": {{"max_queued_events_per_session": 3, "max_subscriptions_per_session": 3}},
            "AUTHENTICATION": {{"ticket": {{"validation_url": "http://s/", "auth_fields": ["u"]}}}},
            "SERVICES": {{{}, {}}}}}"#,
        service("s", &hooks, &format!("{fields}{renewal}")),
        service("t", "on_message", "")
    )
}

const RENEWALS: [&str; 3] = [
    "",
    r#", "authorization_renewal_period": 5, "heartbeat_period": 7"#,
    r#", "authorization_renewal_period": 3, "authorization_renewal_jitter": 2,
       "authorization_grace": 4"#,
];

impl Turmoil {
    fn new(seed: u64) -> Turmoil {
        Turmoil {
            bench: Bench::new(&config(RENEWALS[seed as usize % 3])),
            random: Random::seeded(seed),
            guests: Vec::new(),
            stories: BTreeMap::new(),
            published: 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.number() % limit as u64) as usize
    }

    fn step(&mut self) {
        match self.below(24) {
            0 => self.arrive(),
            1 => self.depart(),
            2 => {
                let seconds = self.below(4_000) as f64 / 1_000.0;
                self.bench.pass(seconds);
            }
            3 if self.below(10) == 0 => {
                let renewal = RENEWALS[self.below(3)];
                self.bench.reload(&config(renewal));
            }
            4 if self.below(40) == 0 => self.lose_redis(),
            3..=5 => self.publish(),
            6..=7 => self.redis_answers(),
            8..=15 => self.service_answers(),
            _ => self.speak(),
        }
        self.listen();
    }

    fn arrive(&mut self) {
        if self.guests.len() < 6 {
            let client = self.bench.connect();
            let (told, last) = (BTreeMap::new(), BTreeMap::new());
            self.guests.push(Guest { client, paused: false, told, last });
        }
    }

    fn depart(&mut self) {
        if !self.guests.is_empty() {
            let at = self.below(self.guests.len());
            let by_client = self.below(2) == 0;
            let guest = self.guests.swap_remove(at);
            self.bench.depart(guest.client, by_client);
        }
    }

    /// Everybody is closed; no confirmation comes any more.
    fn lose_redis(&mut self) {
        for guest in std::mem::take(&mut self.guests) {
            self.bench.depart(guest.client, false);
        }
        self.bench.unconfirmed.clear();
        self.bench.lend(|router, desk| router.redis_lost(desk));
    }

    fn speak(&mut self) {
        let event =
            ["auth", "subscribe", "subscribe", "subscribe", "message", "unsubscribe", "ping"]
                [self.below(7)];
        let (name, id) = (NAMES[self.below(NAMES.len())], self.below(2));
        let at = self.below(self.guests.len().max(1));
        let Some(guest) = self.guests.get_mut(at).filter(|guest| !guest.paused) else { return };
        let text =
            format!(r#"{{"event":"{event}","subscription":"{name}","id":{id},"ticket":"t"}}"#);
        guest.paused = self.bench.send(guest.client, &text);
    }

    fn redis_answers(&mut self) {
        if self.bench.unconfirmed.is_empty() {
            return;
        }
        let at = self.below(self.bench.unconfirmed.len());
        let channel = self.bench.unconfirmed[at].clone();
        if self.below(5) == 0 {
            self.bench.refuse(&channel);
        } else {
            self.bench.confirm(&channel);
        }
    }

    fn service_answers(&mut self) {
        if self.bench.asks.calls.is_empty() {
            return;
        }
        let at = self.below(self.bench.asks.calls.len());
        let role = self.below(3);
        let answer = match self.below(8) {
            0 => Answer::Object(NO.into()),
            1 => Answer::Unavailable,
            _ => Answer::Object(format!(r#"{{"status":"ok","u":1,"role":{role}}}"#).into()),
        };
        self.reply(at, answer);
    }

    /// Answers a callback and notes what that says about its subscription.
    fn reply(&mut self, at: usize, answer: Answer) {
        let call = &self.bench.asks.calls[at];
        let body = std::str::from_utf8(&call.body).expect("JSON");
        let object = Object::parse(body).expect("an object");
        let subscriptions = &self.bench.router.subscriptions;
        let session = match call.owner {
            Owner::Event(session) => Some(session),
            Owner::Renewal(id) | Owner::Expiry(id) | Owner::Heartbeat(id) => {
                subscriptions.get(id).map(|found| found.session)
            }
        };
        if let (Some(session), Some(name)) = (session, object.get("subscription")) {
            let story = self.stories.entry((session, name.to_owned())).or_default();
            let yes = matches!(&answer, Answer::Object(text) if text.contains("\"ok\""));
            match call.hook {
                Hook::BeforeSubscribe => story.confirmed += u32::from(yes),
                Hook::OnSubscribe => story.on_subscribe += 1,
                Hook::BeforeUnsubscribe => {
                    story.before_unsubscribe += 1;
                    story.refused += u32::from(!yes);
                }
                Hook::OnUnsubscribe => story.on_unsubscribe += 1,
                _ => {}
            }
        }
        self.bench.reply(at, answer);
    }

    /// Publishes on some channel, mostly for its own subscription; who is subscribed gets it.
    fn publish(&mut self) {
        let channel = NAMES[self.below(4)];
        let named = if self.below(4) == 0 { NAMES[self.below(4)] } else { channel };
        self.published += 1;
        let number = self.published;
        let text = format!(
            r#"{{"subscription":"{named}","data":["{channel}",{number}],"id":"unfiltered"}}"#
        );
        self.listen();
        let delivered = self.bench.metrics.messages_delivered;
        self.bench.publish(channel, &text);
        let readers = self.guests.iter().filter(|guest| {
            let find = |name| self.bench.router.find(guest.client.session, name);
            // Being read from the channel takes a confirmed subscription to it.
            find(channel).is_some() && find(named).is_some()
        });
        let delivered = self.bench.metrics.messages_delivered - delivered;
        assert_eq!(delivered, readers.count() as u64, "{channel} {named}");
    }

    /// Clients read all they have been sent, and check it.
    fn listen(&mut self) {
        let resumed = std::mem::take(&mut self.bench.asks.resume);
        for guest in &mut self.guests {
            guest.paused &= !resumed.contains(&guest.client.conn);
            for text in self.bench.hear(guest.client) {
                guest.told(&text);
            }
        }
        assert_eq!(self.bench.asks.too_slow, []);
    }

    /// The rare states that something is in.
    fn crossings(&self) -> Vec<&'static str> {
        let sessions = self.bench.router.sessions.iter().map(|(_, session)| {
            let gone = session.conn.is_none();
            match session.step {
                Step::AwaitingExpiry if gone => "gone while its unsubscribe waits for an expiry",
                Step::AwaitingExpiry => "an unsubscribe waits for an expiry",
                Step::Joining if gone => "gone while Redis is asked",
                _ => "",
            }
        });
        let subscriptions =
            self.bench.router.subscriptions.iter().map(|(_, subscription)| {
                match (&subscription.phase, subscription.conn) {
                    (Phase::Expired, _) => "expired while its unsubscribe is under way",
                    (Phase::Expiring(_), None) => "gone while a subscription expires",
                    _ => "",
                }
            });
        sessions.chain(subscriptions).filter(|mark| !mark.is_empty()).collect()
    }

    /// Everybody goes and every answer comes.
    fn end(mut self) {
        for _ in 0..3 {
            self.answer_all();
        }
        assert!(self.guests.iter().all(|guest| !guest.paused), "all are read again");
        while !self.guests.is_empty() {
            self.depart();
        }
        self.answer_all();
        assert_eq!(self.bench.router.sessions(), 0);
        self.bench.pass(1_000.0);
        self.bench.asks(&[]);
        assert!(self.bench.timers.is_empty() && self.bench.mail.bytes() == 0);
        for (whose, story) in &self.stories {
            assert_eq!(story.on_subscribe, story.confirmed, "{whose:?} {story:?}");
            assert_eq!(story.on_unsubscribe, story.confirmed, "{whose:?} {story:?}");
            let surplus = story.before_unsubscribe.checked_sub(story.on_unsubscribe);
            assert!(surplus.is_some_and(|more| more <= story.refused), "{whose:?} {story:?}");
        }
    }

    fn answer_all(&mut self) {
        while !self.bench.asks.calls.is_empty() || !self.bench.unconfirmed.is_empty() {
            self.redis_answers();
            if !self.bench.asks.calls.is_empty() {
                self.reply(0, Answer::Object(r#"{"status":"ok","u":1,"role":0}"#.into()));
            }
        }
        self.listen();
    }
}

impl Guest {
    fn told(&mut self, text: &str) {
        let object = Object::parse(text).expect("an object");
        let of = |name: &str| object.get(name).map(|raw| raw.trim_matches('"').to_owned());
        let (event, name) = (of("event").expect("all have one"), of("subscription"));
        let count = self.told.entry(name.unwrap_or_default()).or_default();
        match (&*event, of("status").as_deref()) {
            ("subscribe", Some("ok")) => *count += 1,
            ("unsubscribe", Some("ok") | None) => {
                *count = count.checked_sub(1).expect("nothing ends twice");
            }
            ("message", None) => {
                assert!(*count > 0, "no messages but for subscribers: {text}");
                let data = object.get("data").expect("messages have data");
                let (channel, number) =
                    data.trim_matches(['[', ']']).split_once(',').expect("two elements");
                let number = number.parse().expect("a number");
                let before = self.last.insert(channel.to_owned(), number);
                assert!(before < Some(number), "each once and in order: {text}");
            }
            _ => {}
        }
    }
}

#[test]
fn whatever_crosses_everything_adds_up() {
    let mut reached = BTreeSet::new();
    for seed in 0..40 {
        let mut turmoil = Turmoil::new(seed);
        for _ in 0..1_500 {
            turmoil.step();
            reached.extend(turmoil.crossings());
        }
        turmoil.end();
    }
    assert_eq!(reached.len(), 5, "the rare cases happen: {reached:?}");
}
