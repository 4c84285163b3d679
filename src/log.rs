//! Log lines as text: one record a line, whatever peers send. Who writes them where is the
//! shell's affair.

use std::fmt::{self, Write as _};

use crate::arena::SessionId;
use crate::config::{Level, LogConfig, LogStyle};
use crate::limits::LOG_BYTES_MAX;
use crate::time::{Now, Wall};

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// Formats records and holds them until the shell takes them.
pub struct Log {
    level: Option<Level>,
    trace_level: Level,
    logger: String,
    trace_logger: String,
    console: bool,
    pid: u32,
    text: String,
    /// Records that found no room.
    dropped: u64,
}

impl Log {
    /// `terminal`: whether stderr is one, for `LogStyle::Auto`.
    pub fn new(config: &LogConfig, pid: u32, terminal: bool) -> Log {
        let mut log = Log {
            level: None,
            trace_level: Level::Info,
            logger: String::new(),
            trace_logger: String::new(),
            console: false,
            pid,
            text: String::new(),
            dropped: 0,
        };
        log.configure(config, terminal);
        log
    }

    /// Takes a new configuration for the records that follow.
    pub fn configure(&mut self, config: &LogConfig, terminal: bool) {
        self.level = config.level;
        self.trace_level = config.trace_level;
        self.logger.clone_from(&config.logger_name);
        self.trace_logger = format!("{}.{}", config.trace_logger_prefix, config.logger_name);
        self.console = match config.style {
            LogStyle::Auto => terminal,
            LogStyle::Json => false,
            LogStyle::Console => true,
        };
    }

    /// Whether records of this level are kept: for those that cost something to make.
    pub fn is_on(&self, level: Level) -> bool {
        self.level.is_some_and(|least| level >= least)
    }

    /// The same for the trace logger. The original's trace logger has a level of its own, whatever
    /// the main logger's.
    pub fn trace_is_on(&self) -> bool {
        self.level.is_some() && self.trace_level <= Level::Debug
    }

    /// Begins a record; it is complete when the returned value is dropped.
    pub fn at(&mut self, now: Now, level: Level, event: &str) -> Line<'_> {
        let on = self.is_on(level);
        self.begin(now, level, event, on, false)
    }

    /// Begins a debug record of the trace logger.
    pub fn trace(&mut self, now: Now, event: &str) -> Line<'_> {
        let on = self.trace_is_on();
        self.begin(now, Level::Debug, event, on, true)
    }

    /// Takes the text that waits: whole lines.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The number of records dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn begin(&mut self, now: Now, level: Level, event: &str, on: bool, trace: bool) -> Line<'_> {
        if !on {
            return Line(None);
        }
        if self.text.len() > LOG_BYTES_MAX {
            self.dropped += 1;
            return Line(None);
        }
        if self.console {
            let _ = write!(self.text, "{} [{:<8}] ", Timestamp(now.wall), level.name());
            write_plain(&mut self.text, event);
            return Line(Some(self));
        }
        self.text.push_str("{\"event\":");
        write_string(&mut self.text, event);
        let _ = write!(self.text, ",\"level\":\"{}\",\"logger\":", level.name());
        let logger = if trace { &self.trace_logger } else { &self.logger };
        write_string(&mut self.text, logger);
        let pid = self.pid;
        let _ = write!(self.text, ",\"pid\":{pid},\"timestamp\":\"{}\"", Timestamp(now.wall));
        Line(Some(self))
    }
}

/// structlog's form of ISO 8601: `2026-01-31T23:59:59.000001Z`.
struct Timestamp(Wall);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        write!(f, "{}Z", text.trim_end_matches("+00:00"))
    }
}

/// A record in the making. A record that is not kept costs nothing to fill.
#[must_use = "a record is complete when it is dropped"]
pub struct Line<'a>(Option<&'a mut Log>);

impl Line<'_> {
    pub fn session(self, id: SessionId) -> Self {
        self.display("session", id)
    }

    pub fn text(mut self, key: &str, value: &str) -> Self {
        if let Some(log) = self.key(key) {
            if log.console {
                write_plain(&mut log.text, value)
            } else {
                write_string(&mut log.text, value)
            }
        }
        self
    }

    /// A text made on the spot, and only where the record is kept.
    pub fn display(self, key: &str, value: impl fmt::Display) -> Self {
        if self.0.is_none() {
            return self;
        }
        let text = value.to_string();
        self.text(key, &text)
    }

    pub fn number(mut self, key: &str, value: u64) -> Self {
        if let Some(log) = self.key(key) {
            let _ = write!(log.text, "{value}");
        }
        self
    }

    /// Seconds, to the millisecond.
    pub fn seconds(mut self, key: &str, value: f64) -> Self {
        if let Some(log) = self.key(key) {
            let _ = write!(log.text, "{value:.3}");
        }
        self
    }

    pub fn flag(mut self, key: &str, value: bool) -> Self {
        if let Some(log) = self.key(key) {
            let _ = write!(log.text, "{value}");
        }
        self
    }

    /// A value that is JSON already, from whomever: line breaks between its tokens are taken out
    /// and what a terminal might obey is escaped (only strings can hold such characters).
    pub fn raw(mut self, key: &str, json: &str) -> Self {
        if let Some(log) = self.key(key) {
            for c in json.chars() {
                match c {
                    '\n' | '\r' | '\t' => log.text.push(' '),
                    c => push_escaped_if_control(&mut log.text, c),
                }
            }
        }
        self
    }

    fn key(&mut self, key: &str) -> Option<&mut Log> {
        let log = self.0.as_deref_mut()?;
        if log.console {
            let _ = write!(log.text, " {key}=");
        } else {
            log.text.push(',');
            write_string(&mut log.text, key);
            log.text.push(':');
        }
        Some(log)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.0.as_deref_mut() {
            if !log.console {
                log.text.push('}');
            }
            log.text.push('\n');
        }
    }
}

/// Control characters, and those that break lines or reorder text in some viewers, as `\uXXXX`.
fn push_escaped_if_control(out: &mut String, c: char) {
    let steers = c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers {
        let _ = write!(out, "\\u{:04x}", c as u32);
    } else {
        out.push(c);
    }
}

/// A JSON string.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => push_escaped_if_control(out, c),
        }
    }
    out.push('"');
}

/// Text for people: as it is, but for what a terminal might obey.
fn write_plain(out: &mut String, text: &str) {
    for c in text.chars() {
        push_escaped_if_control(out, c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(style: LogStyle) -> Log {
        Log::new(&LogConfig { style, ..LogConfig::default() }, 7, false)
    }

    #[test]
    fn a_record_is_one_line_of_json_whatever_it_holds() {
        let mut log = log(LogStyle::Json);
        let line = log.at(Now::default(), Level::Info, "client event");
        drop(line.text("a", "x\"\n\u{1b}[31m\u{2028}").raw("data", "{\n\"k\":\t1}").number("n", 3));
        let text = log.take();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["event"], "client event");
        assert_eq!(value["a"], "x\"\n\u{1b}[31m\u{2028}");
        assert_eq!(value["data"]["k"], 1);
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{2028}'));
    }

    #[test]
    fn levels_are_kept_apart() {
        let mut log = log(LogStyle::Json);
        drop(log.at(Now::default(), Level::Debug, "quiet"));
        drop(log.trace(Now::default(), "quiet"));
        assert!(log.is_empty());
        let config = LogConfig { trace_level: Level::Debug, ..LogConfig::default() };
        log.configure(&config, false);
        drop(log.trace(Now::default(), "message filtered"));
        assert!(log.take().contains("\"logger\":\"trace.socketshark\""));
        log.configure(&LogConfig { level: None, ..config }, false);
        drop(log.at(Now::default(), Level::Critical, "quiet"));
        drop(log.trace(Now::default(), "quiet"));
        assert!(log.is_empty());
    }

    #[test]
    fn console_style_obeys_no_peer() {
        let mut log = log(LogStyle::Console);
        drop(log.at(Now::default(), Level::Warning, "odd").text("what", "a\r\nb\u{7}"));
        let text = log.take();
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000000Z [warning ] odd what=a\\u000d\\u000ab\\u0007\n"
        );
    }

    #[test]
    fn lines_past_the_bound_are_counted() {
        let mut log = log(LogStyle::Json);
        let long = "x".repeat(LOG_BYTES_MAX);
        drop(log.at(Now::default(), Level::Info, "long").text("x", &long));
        drop(log.at(Now::default(), Level::Info, "dropped"));
        assert_eq!(log.take_dropped(), 1);
        assert_eq!(log.take().lines().count(), 1);
    }
}
