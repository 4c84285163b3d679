//! Rooms with people in them: each callback of a subscription's life, used once.
//!
//! In the order of a subscription's life: `authorize`, `before_subscribe`, `on_subscribe`,
//! `on_message`, `before_unsubscribe`, `on_unsubscribe`. The router makes the last two exactly
//! once for each subscription that came about, however its connection ended; so whoever is counted
//! in by `on_subscribe` is counted out.

use std::collections::{BTreeMap, VecDeque};

use super::service::{Call, Publish, message, ok, quoted, quoted_all, refuse};
use crate::limits::{
    DEMO_LINE_CHARS_MAX, DEMO_LINES_KEPT, DEMO_NAME_CHARS_MAX, DEMO_PEOPLE_MAX, DEMO_ROOMS_MAX,
};
use crate::time::Now;

/// A room that somebody is in.
#[derive(Default)]
struct Room {
    /// Each name with the number of its subscriptions: one for each window, say.
    people: BTreeMap<String, usize>,
    /// The last things said, in JSON.
    lines: VecDeque<String>,
    /// Things said since the room was opened.
    said: u64,
}

/// All rooms, by their topics.
#[derive(Default)]
pub struct Chat {
    rooms: BTreeMap<String, Room>,
}

impl Chat {
    /// May this user come in? `user` is what the ticket was for; the router adds it.
    pub fn authorize(&self, call: &Call<'_>) -> String {
        if call.topic() == "secret" && call.text("user") != "shark" {
            return refuse("Only shark may dive into chat.secret.");
        }
        ok(None)
    }

    /// Answers with the room's state. The channel is open already: nothing that is said from now
    /// on is missed.
    pub fn before_subscribe(&self, call: &Call<'_>) -> String {
        match self.rooms.get(&call.topic()) {
            _ if !self.admits(call) => refuse("There is no place in this room."),
            Some(room) => ok(Some(&state(room))),
            None => ok(Some(&state(&Room::default()))),
        }
    }

    /// Everything that is remembered has a bound.
    fn admits(&self, call: &Call<'_>) -> bool {
        let (topic, user) = (call.topic(), call.text("user"));
        let short = |text: &str| text.chars().count() <= DEMO_NAME_CHARS_MAX;
        let has_place = match self.rooms.get(&topic) {
            Some(room) => room.people.len() < DEMO_PEOPLE_MAX || room.people.contains_key(&*user),
            None => self.rooms.len() < DEMO_ROOMS_MAX,
        };
        has_place && [&topic, &*user, &*call.text("color")].into_iter().all(short)
    }

    /// The subscription stands: counts its user in, and tells the others.
    pub fn on_subscribe(&mut self, call: &Call<'_>, now: Now, publish: &mut Publish<'_>) -> String {
        if !self.admits(call) {
            return refuse("There is no place in this room.");
        }
        let room = self.rooms.entry(call.topic()).or_default();
        let windows = room.people.entry(call.text("user").into_owned()).or_default();
        *windows += 1;
        if *windows == 1 {
            tell_presence("joined", room, call, now, publish);
        }
        ok(None)
    }

    /// Publishes what was said. The `data` of the answer goes to the speaker alone.
    pub fn on_message(&mut self, call: &Call<'_>, now: Now, publish: &mut Publish<'_>) -> String {
        if !self.admits(call) {
            return refuse("There is no place in this room.");
        }
        let Some(text) = said(call.raw("data")) else {
            return refuse(r#"Say something: {"text": "..."}"#);
        };
        if text.chars().count() > DEMO_LINE_CHARS_MAX {
            return refuse(&format!("At most {DEMO_LINE_CHARS_MAX} characters at a time."));
        }
        let Some(room) = self.rooms.get_mut(&call.topic()) else {
            return refuse("There is nobody in this room.");
        };
        room.said += 1;
        let line = format!(
            r#"{{"kind":"said","from":{},"color":{},"text":{}}}"#,
            quoted(&call.text("user")),
            quoted(&call.text("color")),
            quoted(&text),
        );
        let subscription = call.text("subscription");
        publish(&subscription, &message(&subscription, &line, "{}", now));
        if room.lines.len() == DEMO_LINES_KEPT {
            room.lines.pop_front();
        }
        room.lines.push_back(line);
        ok(Some(&format!(r#"{{"number":{}}}"#, room.said)))
    }

    /// Could refuse: then the subscription stays. The `data` comes with the client's answer.
    pub fn before_unsubscribe(&self, call: &Call<'_>) -> String {
        let said = self.rooms.get(&call.topic()).map_or(0, |room| room.said);
        ok(Some(&format!(r#"{{"said_here":{said}}}"#)))
    }

    /// The subscription is over: counts its user out, and tells the others. The last one closes
    /// the room.
    pub fn on_unsubscribe(
        &mut self,
        call: &Call<'_>,
        now: Now,
        publish: &mut Publish<'_>,
    ) -> String {
        let (topic, user) = (call.topic(), call.text("user"));
        let Some(room) = self.rooms.get_mut(&topic) else { return ok(None) };
        let Some(windows) = room.people.get_mut(&*user) else { return ok(None) };
        *windows -= 1;
        if *windows == 0 {
            room.people.remove(&*user);
            tell_presence("left", room, call, now, publish);
        }
        if room.people.is_empty() {
            self.rooms.remove(&topic);
        }
        ok(None)
    }
}

/// What somebody new gets to know, in JSON.
fn state(room: &Room) -> String {
    let people = quoted_all(room.people.keys().map(String::as_str));
    let lines = Vec::from_iter(room.lines.iter().map(String::as_str)).join(",");
    format!(r#"{{"people":{people},"lines":[{lines}]}}"#)
}

/// The text of a client's `data`, in JSON: `{"text": "..."}`.
fn said(data: &str) -> Option<String> {
    let text = Call::parse(data)?.text("text").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn tell_presence(kind: &str, room: &Room, call: &Call<'_>, now: Now, publish: &mut Publish<'_>) {
    let subscription = call.text("subscription");
    let data = format!(
        r#"{{"kind":"{kind}","who":{},"people":{}}}"#,
        quoted(&call.text("user")),
        quoted_all(room.people.keys().map(String::as_str)),
    );
    publish(&subscription, &message(&subscription, &data, "{}", now));
}
