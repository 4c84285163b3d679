//! What clients get of publications: frames, encoded once per distinct set of extra fields and
//! shared by all their receivers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use super::Desk;
use super::fields::Extras;
use super::publication::Publication;
use crate::outbox::Frame;
use crate::time::Wall;
use crate::wire::json::ObjectWriter;
use crate::wire::ws::encode_text;

/// What `MESSAGE_METADATA` adds to a message besides `sent_at`.
#[derive(Clone, Copy, Default)]
pub(super) struct Stamps {
    pub published_at: Option<Wall>,
    pub received_at: Option<Wall>,
}

/// Frames of publications that go out together, by the extra fields of those who get them.
pub(super) struct Frames<'a> {
    publications: &'a [Publication<'a>],
    /// The name that all of them have, as a JSON string.
    subscription: Cow<'a, str>,
    /// One for each publication, or none at all.
    stamps: Vec<Stamps>,
    sent_at: Wall,
    /// The last one made or asked for: mostly all sessions share it.
    last: Option<(*const Extras, Encoded)>,
    others: HashMap<*const Extras, Encoded>,
}

/// The frames of all publications in one piece; and the text of a single one, where the log wants
/// it.
pub(super) struct Encoded {
    pub frame: Frame,
    pub json: Option<Rc<str>>,
}

impl<'a> Frames<'a> {
    pub fn new(
        publications: &'a [Publication<'a>],
        stamps: Vec<Stamps>,
        desk: &Desk<'_>,
    ) -> Frames<'a> {
        Frames {
            publications,
            subscription: publications.first().map_or("null".into(), Publication::quoted_name),
            stamps,
            sent_at: desk.now.wall,
            last: None,
            others: HashMap::new(),
        }
    }

    /// Whether they carry times.
    pub fn are_stamped(&self) -> bool {
        !self.stamps.is_empty()
    }

    /// How many messages each of them is.
    pub fn messages(&self) -> usize {
        self.publications.len()
    }

    /// What goes to those who have these extra fields.
    pub fn get(&mut self, extras: Option<&Rc<Extras>>, with_text: bool) -> &Encoded {
        // Extra fields are pooled: the same address means the same fields. Addresses are only
        // compared, and what is behind them outlives these publications.
        let address = extras.map_or(std::ptr::null(), Rc::as_ptr);
        let last = match self.last.take() {
            Some((known, encoded)) if known == address => encoded,
            before => {
                self.others.extend(before);
                let made_before = self.others.remove(&address);
                made_before.unwrap_or_else(|| self.encode(extras, with_text))
            }
        };
        &self.last.insert((address, last)).1
    }

    fn encode(&self, extras: Option<&Rc<Extras>>, with_text: bool) -> Encoded {
        if let [publication] = self.publications {
            let json = self.text(publication, self.stamps.first(), extras);
            return Encoded { frame: encode_text(&json), json: with_text.then(|| json.into()) };
        }
        let publications = self.publications.iter().enumerate();
        let frames: Vec<Frame> = publications
            .map(|(index, one)| encode_text(&self.text(one, self.stamps.get(index), extras)))
            .collect();
        Encoded { frame: frames.concat().into(), json: None }
    }

    fn text(
        &self,
        publication: &Publication<'_>,
        stamps: Option<&Stamps>,
        extras: Option<&Rc<Extras>>,
    ) -> String {
        let data = publication.data;
        let tail = extras.map_or(Some("}"), |extras| extras.tail());
        if let (Some(tail), None) = (tail, stamps) {
            let length = data.len() + self.subscription.len() + tail.len() + 48;
            let mut json = String::with_capacity(length);
            json.push_str("{\"event\":\"message\",\"subscription\":");
            json.push_str(&self.subscription);
            json.push_str(",\"data\":");
            json.push_str(data);
            if extras.is_some() {
                json.push(',');
            }
            json.push_str(tail);
            return json;
        }
        let mut message = ObjectWriter::default();
        message.raw("event", "\"message\"").raw("subscription", &*self.subscription);
        message.raw("data", data);
        if let Some(published_at) = stamps.and_then(|stamps| stamps.published_at) {
            message.raw("published_at", format!("\"{published_at}\""));
        }
        if let Some(received_at) = stamps.and_then(|stamps| stamps.received_at) {
            message.raw("received_at", format!("\"{received_at}\""));
            // The original's queue between its Redis reader and its sessions; here is none.
            message.raw("queue_size", "0");
        }
        if let Some(extras) = extras {
            extras.fields.write(&mut message);
        }
        if stamps.is_some() {
            message.raw("sent_at", format!("\"{}\"", self.sent_at));
        }
        message.finish()
    }
}
