//! Objects as nearly all peers write them, taken apart in one pass.
//!
//! Names and strings without escapes are found by looking for their closing quotes; whatever else
//! is a value is serde_json's to judge. An unusual text (an escape, a line break, a mistake) is
//! none of this: `None` says nothing but that somebody else has to read it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Member, is_shallow};

/// Room for the members of a client's event, and of most answers.
const MEMBERS: usize = 4;

/// Longer strings are searched by serde_json, many bytes at a time.
const SHORT: usize = 100;

/// The members of a plain object.
pub fn members(text: &str) -> Option<Vec<Member<'_>>> {
    let mut members = Vec::with_capacity(MEMBERS);
    let mut is_checked = false;
    let mut rest = text.strip_prefix('{')?;
    loop {
        let (name, behind) = string(rest)?;
        let behind = past_space(behind.strip_prefix(':')?);
        let (value, behind) = match string(behind) {
            Some(found) => found,
            // Once for all values: it looks at the whole text.
            None if !is_checked && !is_shallow(text.as_bytes()) => return None,
            None => {
                is_checked = true;
                value(behind)?
            }
        };
        members.push((Cow::Borrowed(&name.as_bytes()[1..name.len() - 1]), value));
        if behind == "}" {
            return Some(members);
        }
        rest = past_space(behind.strip_prefix(',')?);
    }
}

/// A string that is short and without escapes, quotes included, and what follows it.
fn string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?.as_bytes();
    let first = &inside[..inside.len().min(SHORT)];
    let end = first.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    (inside[end] == b'"').then(|| text.split_at(end + 2))
}

/// Any value and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?.get();
    Some((value, &text[values.byte_offset()..]))
}

/// Some put a space behind each colon and comma.
fn past_space(text: &str) -> &str {
    text.strip_prefix(' ').unwrap_or(text)
}
