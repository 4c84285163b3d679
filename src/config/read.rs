//! A checked reader over JSON: each value knows its path, and errors are collected, not returned,
//! so that one look at a file finds them all.
//!
//! Objects are opened only where the schema expects them. So a file's nesting costs no stack, and
//! a number keeps its digits until somebody knows what it is for.

use std::collections::BTreeSet;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::suggest;
use super::text::{interpolate, position};
use crate::limits::CONFIG_ERRORS_MAX;

/// Characters of a key that an error shows, escapes spelled out.
const KEY_CHARS_SHOWN_MAX: usize = 64;

/// What is wrong in a configuration and where. Values are never shown: they may be secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// `SERVICES.books.on_message`, `WS_ALLOWED_ORIGINS[2]`; of text that is no JSON, line and
    /// column; empty for the configuration as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl ConfigError {
    /// An error of the text itself, at a byte offset.
    pub fn in_text(text: &str, offset: usize, problem: impl Into<String>) -> ConfigError {
        let (line, column) = position(text, offset);
        ConfigError { path: format!("line {line}, column {column}"), problem: problem.into() }
    }
}

/// One line.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the configuration" } else { &self.path };
        write!(f, "{path}: {}", self.problem)
    }
}

/// A value of the file: its path and its JSON text.
pub struct Node<'a> {
    path: String,
    raw: &'a str,
}

impl<'a> Node<'a> {
    /// The value's JSON text, as the file has it.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    pub fn is_null(&self) -> bool {
        self.raw == "null"
    }

    fn member(&self, key: &str, value: &'a RawValue) -> Node<'a> {
        Node { path: member_path(&self.path, key), raw: value.get() }
    }
}

fn member_path(path: &str, key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut escaped = key.escape_debug();
    let shown: String = escaped.by_ref().take(KEY_CHARS_SHOWN_MAX).collect();
    let is_short = escaped.next().is_none();
    if is_short && !key.is_empty() && key.chars().all(is_plain) {
        let dot = if path.is_empty() { "" } else { "." };
        return format!("{path}{dot}{key}");
    }
    format!("{path}[\"{shown}\"{}]", if is_short { "" } else { "..." })
}

/// An object's members in the order of the file, doubled keys included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Reads one file and keeps its errors.
pub struct Reader<'a> {
    text: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// With the offsets that they will be sorted by.
    errors: Vec<(usize, ConfigError)>,
    /// Past `CONFIG_ERRORS_MAX`.
    further: usize,
}

impl<'a> Reader<'a> {
    /// `text` is without comments. The error is the offset of the first place that is no JSON,
    /// and what is wrong there.
    pub fn new(
        text: &'a str,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<(Reader<'a>, Node<'a>), (usize, String)> {
        let root: &RawValue =
            serde_json::from_str(text).map_err(|error| syntax_error(text, &error))?;
        let reader = Reader { text, environment, errors: Vec::new(), further: 0 };
        Ok((reader, Node { path: String::new(), raw: root.get() }))
    }

    /// All errors found, in the order of the file; of very many, the last one tells the number.
    pub fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|&(offset, _)| offset);
        let mut errors: Vec<_> = self.errors.into_iter().map(|(_, error)| error).collect();
        if self.further > 0 {
            let problem = format!("{} further errors", self.further);
            errors.push(ConfigError { path: String::new(), problem });
        }
        errors
    }

    /// Records what is wrong with a value. Returns `None`, which is what the value then is.
    pub fn refuse<T>(&mut self, node: &Node<'a>, problem: impl Into<String>) -> Option<T> {
        self.refuse_with(node, || problem.into());
        None
    }

    fn refuse_with(&mut self, node: &Node<'a>, problem: impl FnOnce() -> String) {
        if self.errors.len() == CONFIG_ERRORS_MAX {
            self.further += 1;
            return;
        }
        let error = ConfigError { path: node.path.clone(), problem: problem() };
        self.errors.push((self.offset(node), error));
    }

    /// Where the value's text, which is a piece of the file's, begins.
    fn offset(&self, node: &Node<'a>) -> usize {
        (node.raw.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }

    /// A string, with the environment's values in place.
    pub fn string(&mut self, node: &Node<'a>) -> Option<String> {
        if !node.raw.starts_with('"') {
            return self.refuse(node, "must be a string");
        }
        let Ok(text) = serde_json::from_str::<String>(node.raw) else {
            return self.refuse(node, "has a \\u escape that is half of a surrogate pair");
        };
        match interpolate(&text, self.environment) {
            Ok(text) => Some(text),
            Err(problem) => self.refuse(node, problem),
        }
    }

    /// The elements of an array. Each is made when it is asked for: paths are far longer than
    /// many elements.
    pub fn elements(
        &mut self,
        node: &Node<'a>,
    ) -> Option<impl Iterator<Item = Node<'a>> + use<'a>> {
        let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(node.raw) else {
            return self.refuse(node, "must be a list, [...]");
        };
        let path = node.path.clone();
        let element = move |(index, raw): (usize, &'a RawValue)| Node {
            path: format!("{path}[{index}]"),
            raw: raw.get(),
        };
        Some(elements.into_iter().enumerate().map(element))
    }

    /// The members of an object, each key once.
    pub fn members(&mut self, node: &Node<'a>) -> Option<Vec<(String, Node<'a>)>> {
        if !node.raw.starts_with('{') {
            return self.refuse(node, "must be an object, {...}");
        }
        let Ok(Members(all)) = serde_json::from_str(node.raw) else {
            return self.refuse(node, "has a key with half of a surrogate pair");
        };
        let mut names = BTreeSet::new();
        let mut members = Vec::with_capacity(all.len());
        for (key, raw) in all {
            let member = node.member(&key, raw);
            if names.insert(key.clone()) {
                members.push((key, member));
            } else {
                self.refuse::<()>(&member, "key given twice; leave one of them out");
            }
        }
        Some(members)
    }

    /// Opens an object whose keys are known: `read` asks for each of them, and what it did not ask
    /// for is an error.
    pub fn object(&mut self, node: &Node<'a>, read: impl FnOnce(&mut Section<'_, 'a>)) {
        self.open(node, false, read);
    }

    /// The same where a null member is an absent one.
    pub fn object_with_nulls(&mut self, node: &Node<'a>, read: impl FnOnce(&mut Section<'_, 'a>)) {
        self.open(node, true, read);
    }

    fn open(
        &mut self,
        node: &Node<'a>,
        null_is_absent: bool,
        read: impl FnOnce(&mut Section<'_, 'a>),
    ) {
        let Some(members) = self.members(node) else { return };
        let at = Node { path: node.path.clone(), raw: node.raw };
        let mut section = Section { reader: self, at, members, known: Vec::new(), null_is_absent };
        read(&mut section);
        section.finish();
    }
}

/// An open object. Its methods ask for one key each; a `kind` is a function that checks a value
/// and makes it one of ours, or refuses it.
pub struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    at: Node<'a>,
    /// What nobody has asked for yet.
    members: Vec<(String, Node<'a>)>,
    /// What somebody has asked for.
    known: Vec<&'static str>,
    null_is_absent: bool,
}

impl<'a> Section<'_, 'a> {
    /// The value of a key, if it is there and of this kind.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        kind: impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key)?;
        kind(self.reader, &node)
    }

    /// The same for a key that must be there.
    pub fn require<T>(
        &mut self,
        key: &'static str,
        kind: impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<T>,
    ) -> Option<T> {
        if let Some(node) = self.take(key) {
            return kind(self.reader, &node);
        }
        let place = Node { path: member_path(&self.at.path, key), raw: self.at.raw };
        self.reader.refuse(&place, "missing; this key is required here")
    }

    /// Puts the value in the place of the default.
    pub fn set<T>(
        &mut self,
        key: &'static str,
        slot: &mut T,
        kind: impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<T>,
    ) {
        if let Some(value) = self.get(key, kind) {
            *slot = value;
        }
    }

    /// The same for a key that may be null, which means none.
    pub fn set_or_null<T>(
        &mut self,
        key: &'static str,
        slot: &mut Option<T>,
        kind: impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<T>,
    ) {
        if let Some(node) = self.take(key) {
            *slot = if node.is_null() { None } else { kind(self.reader, &node) };
        }
    }

    /// Whether a key is there, with a value other than null, and was not asked for yet.
    pub fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(name, node)| name == key && !node.is_null())
    }

    fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let index = self.members.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.members.swap_remove(index);
        (!self.null_is_absent || !node.is_null()).then_some(node)
    }

    fn finish(self) {
        for (key, node) in &self.members {
            self.reader.refuse_with(node, || match suggest::nearest(key, &self.known) {
                Some(known) => format!("unknown key; did you mean {known}?"),
                None if self.known.is_empty() => "unknown key; none is known here".to_owned(),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            });
        }
    }
}

/// Where the text is no JSON and, for the usual slips, how it would be.
fn syntax_error(text: &str, error: &serde_json::Error) -> (usize, String) {
    // serde_json counts columns in bytes, from 1.
    let lines_before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let offset = if error.is_eof() {
        text.trim_end().len()
    } else {
        lines_before.map(str::len).sum::<usize>() + error.column().saturating_sub(1)
    };
    let (before, behind) = text.split_at_checked(offset).unwrap_or((text, ""));
    let problem = match behind.bytes().next() {
        Some(b'}' | b']') if before.trim_end().ends_with(',') => "trailing comma; take it out",
        Some(b'\'') => "strings take double quotes",
        Some(b'#') => "comments begin with //",
        Some(b'T' | b'F' | b'N') => "expected a value; true, false and null are in lower case",
        _ if text.trim().is_empty() => "the file is empty; the smallest configuration is {}",
        _ if error.is_eof() => "the file ends too early; is a bracket or quote missing?",
        _ => {
            let text = error.to_string();
            return (offset, text.split(" at line ").next().unwrap_or_default().to_owned());
        }
    };
    (offset, problem.to_owned())
}
