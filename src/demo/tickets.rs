//! Tickets: good for one connection, and for a short time.
//!
//! A real service gives one only to whom it knows, by a cookie for example. This one believes
//! every name.

use std::collections::VecDeque;
use std::time::Duration;

use super::service::{Call, quoted, refuse};
use crate::limits::{DEMO_NAME_CHARS_MAX, DEMO_TICKET_SECONDS_MAX, DEMO_TICKETS_MAX};
use crate::random::Random;
use crate::time::{Instant, Now};

struct Ticket {
    text: String,
    user: String,
    until: Instant,
}

/// Tickets that were not used yet, the oldest one first.
pub struct Tickets {
    random: Random,
    waiting: VecDeque<Ticket>,
}

impl Tickets {
    pub fn new(random: Random) -> Tickets {
        Tickets { random, waiting: VecDeque::new() }
    }

    /// A new ticket for `user`.
    pub fn issue(&mut self, call: &Call<'_>, now: Now) -> String {
        let user = call.text("user").trim().to_owned();
        if user.is_empty()
            || user.chars().count() > DEMO_NAME_CHARS_MAX
            || user.chars().any(char::is_control)
        {
            return refuse(&format!("A name has 1 to {DEMO_NAME_CHARS_MAX} characters."));
        }
        if self.waiting.len() == DEMO_TICKETS_MAX {
            self.waiting.pop_front();
        }
        let text = format!("{:016x}{:016x}", self.random.number(), self.random.number());
        let answer = format!(r#"{{"status":"ok","ticket":"{text}"}}"#);
        let until = now.mono.after(Duration::from_secs(DEMO_TICKET_SECONDS_MAX));
        self.waiting.push_back(Ticket { text, user, until });
        answer
    }

    /// `validation_url`: whose ticket this is. It is used up by that.
    pub fn check(&mut self, call: &Call<'_>, now: Now) -> String {
        self.waiting.retain(|ticket| ticket.until > now.mono);
        let ticket = call.text("ticket");
        let found = self.waiting.iter().position(|waiting| waiting.text == ticket);
        match found.and_then(|position| self.waiting.remove(position)) {
            Some(ticket) => format!(r#"{{"status":"ok","user":{}}}"#, quoted(&ticket.user)),
            None => refuse("This ticket is unknown, used, or too old."),
        }
    }
}
