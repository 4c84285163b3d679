//! What happened last, for the report of a failing seed.

use std::collections::VecDeque;
use std::fmt::Display;

use socketshark::time::Instant;

/// Lines kept. The shrunk world of a report is short; its end tells the story.
const LINES: usize = 80;

#[derive(Default)]
pub struct Trace {
    lines: VecDeque<String>,
    dropped: usize,
    /// Everything is printed as it happens.
    echo: bool,
}

impl Trace {
    pub fn new(echo: bool) -> Trace {
        Trace { echo, ..Trace::default() }
    }

    pub fn note(&mut self, now: Instant, what: impl Display) {
        let line = format!("{:>12.6} {what}", now.0 as f64 / 1e6);
        if self.echo {
            println!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    /// All that is kept, a line each.
    pub fn text(&self) -> String {
        let mut text = "What happened (seconds; `<-` is what the program did):\n".to_owned();
        if self.dropped > 0 {
            text.push_str(&format!("  ({} earlier lines)\n", self.dropped));
        }
        for line in &self.lines {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Text for a trace, cut short.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(160).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
