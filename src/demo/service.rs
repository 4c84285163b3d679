//! A service as the router knows it: what it is told by callbacks, what it answers, what it
//! publishes. To be read as an example.
//!
//! - `tickets`: who may come in. A page asks for a ticket, the router asks whether it is good.
//! - `chat`: rooms with people in them. Each callback of a subscription's life is used once.
//! - `counter`: one number; its messages are numbered (`order`) and throttled.
//! - `calls`: each callback with its answer, for the page to show.
//! - `publish`: what the page's button does; `redis-cli` does the same.
//!
//! A request is a path and a JSON object; so is an answer. Publishing is a function that is lent:
//! `service.topic` as the channel, and a message.

use std::borrow::Cow;

use super::chat::Chat;
use super::tickets::Tickets;
use crate::random::Random;
use crate::time::Now;
use crate::wire::json::{self, Object, push_string};

/// Publishes a message on a channel.
pub type Publish<'a> = dyn FnMut(&str, &str) + 'a;

/// Publishes a message on a channel; gives the number of its readers.
pub type PublishAndCount<'a> = dyn FnMut(&str, &str) -> usize + 'a;

/// What the counter's messages keep apart: five a second, the last one always among them.
const COUNTER_THROTTLE: &str = "0.2";

/// Where callbacks are shown.
const CALLS: &str = "calls.all";

/// The members of a callback's body.
pub struct Call<'a>(Object<'a>);

impl<'a> Call<'a> {
    /// Reads a JSON object.
    pub fn parse(text: &'a str) -> Option<Call<'a>> {
        Object::parse(text).ok().map(Call)
    }

    /// A text; empty if there is none of that name.
    pub fn text(&self, name: &str) -> Cow<'a, str> {
        self.0.get(name).and_then(json::string).unwrap_or_default()
    }

    /// A value as it was sent, in JSON.
    pub fn raw(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or("null")
    }

    /// What is behind the first period of `subscription`.
    pub fn topic(&self) -> String {
        let subscription = self.text("subscription");
        subscription.split_once('.').map_or("", |(_, topic)| topic).to_owned()
    }
}

/// The sample service with all that it remembers.
pub struct Service {
    tickets: Tickets,
    chat: Chat,
    clicks: u64,
}

impl Service {
    /// `random`: for tickets. Whoever can guess its seed can guess them; a service for others
    /// takes tickets from its system's generator.
    pub fn new(random: Random) -> Service {
        Service { tickets: Tickets::new(random), chat: Chat::default(), clicks: 0 }
    }

    /// Answers a request; `None`: there is nothing at this path.
    pub fn answer(
        &mut self,
        path: &str,
        body: &[u8],
        now: Now,
        publish: &mut PublishAndCount<'_>,
    ) -> Option<String> {
        let text = std::str::from_utf8(body).ok();
        let Some(call) = text.and_then(Call::parse) else {
            return Some(refuse("The body must be a JSON object."));
        };
        match path {
            "/tickets" => Some(self.tickets.issue(&call, now)),
            "/publish" => Some(publish_as_told(&call, publish)),
            _ => {
                let hook = path.strip_prefix("/callbacks/")?;
                // The page is to read of a callback before it reads what came of it.
                let mut published = Vec::new();
                let mut later = |channel: &str, message: &str| {
                    published.push((channel.to_owned(), message.to_owned()));
                };
                let answer = self.callback(hook, &call, now, &mut later)?;
                tell_call(hook, text.unwrap_or_default(), &answer, now, publish);
                for (channel, message) in published {
                    publish(&channel, &message);
                }
                Some(answer)
            }
        }
    }

    /// What the router asks.
    fn callback(
        &mut self,
        hook: &str,
        call: &Call<'_>,
        now: Now,
        publish: &mut Publish<'_>,
    ) -> Option<String> {
        Some(match hook {
            "ticket" => self.tickets.check(call, now),
            "chat/authorize" => self.chat.authorize(call),
            "chat/before_subscribe" => self.chat.before_subscribe(call),
            "chat/on_subscribe" => self.chat.on_subscribe(call, now, publish),
            "chat/on_message" => self.chat.on_message(call, now, publish),
            "chat/before_unsubscribe" => self.chat.before_unsubscribe(call),
            "chat/on_unsubscribe" => self.chat.on_unsubscribe(call, now, publish),
            "counter/before_subscribe" => self.read_counter(call),
            "counter/on_message" => self.count(call, now, publish),
            _ => return None,
        })
    }

    // ---------------------------------------------------------------- counter

    /// The state, and its version as `order`: older messages that are still on their way are then
    /// dropped by the router.
    fn read_counter(&self, call: &Call<'_>) -> String {
        if call.topic() != "clicks" {
            return refuse("There is one counter: counter.clicks.");
        }
        let clicks = self.clicks;
        let options = format!(r#"{{"order":{clicks},"throttle":{COUNTER_THROTTLE}}}"#);
        format!(r#"{{"status":"ok","data":{{"value":{clicks}}},"options":{options}}}"#)
    }

    /// Nothing is answered but `ok`, so the client hears nothing but the message to all.
    fn count(&mut self, call: &Call<'_>, now: Now, publish: &mut Publish<'_>) -> String {
        self.clicks += 1;
        let clicks = self.clicks;
        let options = format!(r#"{{"order":{clicks},"throttle":{COUNTER_THROTTLE}}}"#);
        let data = format!(r#"{{"value":{clicks}}}"#);
        let subscription = call.text("subscription");
        publish(&subscription, &message(&subscription, &data, &options, now));
        ok(None)
    }
}

/// A message on its way to subscribers; `data` and `options` in JSON.
pub fn message(subscription: &str, data: &str, options: &str, now: Now) -> String {
    let name = quoted(subscription);
    let published_at = quoted(&now.wall.to_string());
    let stamp = format!(r#""published_at":{published_at}"#);
    format!(r#"{{"subscription":{name},"data":{data},"options":{options},{stamp}}}"#)
}

/// Shows a callback to the page.
fn tell_call(hook: &str, body: &str, answer: &str, now: Now, publish: &mut PublishAndCount<'_>) {
    let data = format!(r#"{{"hook":{},"body":{body},"answer":{answer}}}"#, quoted(hook));
    publish(CALLS, &message(CALLS, &data, "{}", now));
}

/// Publishes what the page says, as `redis-cli` would.
fn publish_as_told(call: &Call<'_>, publish: &mut PublishAndCount<'_>) -> String {
    let readers = publish(&call.text("channel"), call.raw("message"));
    ok(Some(&format!(r#"{{"readers":{readers}}}"#)))
}

/// A yes, with `data` in JSON for the client, if there is any.
pub fn ok(data: Option<&str>) -> String {
    match data {
        Some(data) => format!(r#"{{"status":"ok","data":{data}}}"#),
        None => r#"{"status":"ok"}"#.to_owned(),
    }
}

/// A no; the client gets to read `error`.
pub fn refuse(error: &str) -> String {
    format!(r#"{{"status":"error","error":{}}}"#, quoted(error))
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::new();
    push_string(&mut out, text);
    out
}

/// Texts as a JSON array of strings.
pub fn quoted_all<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", texts.map(quoted).collect::<Vec<_>>().join(","))
}
