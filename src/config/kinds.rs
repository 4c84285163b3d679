//! The kinds of values that a configuration has: each function checks one value and makes it what
//! the program works with, or refuses it and says what it must be.

use std::fmt::Display;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::read::{Node, Reader};
use super::url::{is_name, port as port_in_digits};
use super::{AddressBlock, Level, OriginPattern, Url};
use crate::limits::{CONFIG_COUNT_MAX, CONFIG_SECONDS_MAX};

/// The shortest period or time-out. A shorter one is rounded up to it: the loop would do nothing
/// but serve it.
const PERIOD_MIN: Duration = Duration::from_millis(1);

pub fn flag<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<bool> {
    match node.raw() {
        "true" => Some(true),
        "false" => Some(false),
        _ => reader.refuse(node, "must be true or false"),
    }
}

pub fn text<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<String> {
    reader.string(node)
}

/// The path of a file.
pub fn file<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<String> {
    let path = reader.string(node)?;
    if path.is_empty() {
        return reader.refuse(node, "must be the path of a file");
    }
    Some(path)
}

/// A host's name or address, without brackets.
pub fn host<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<String> {
    let host = reader.string(node)?;
    if !is_name(&host) && host.parse::<IpAddr>().is_err() {
        return reader.refuse(node, "must be a host name or an IP address");
    }
    Some(host)
}

/// A text that lets somebody in. An empty one, from an empty variable perhaps, would let in all.
pub fn secret<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<String> {
    let text = reader.string(node)?;
    if text.is_empty() {
        return reader.refuse(node, "must not be empty; null means none");
    }
    Some(text)
}

/// A time-out or a period, in seconds.
pub fn period<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Duration> {
    let seconds = number(node).filter(|&seconds| seconds > 0.0);
    Some(duration(reader, node, seconds, "above 0")?.max(PERIOD_MIN))
}

/// A wait, a jitter or a grace, in seconds.
pub fn wait<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Duration> {
    let seconds = number(node).filter(|&seconds| seconds >= 0.0);
    duration(reader, node, seconds, "0 or more")
}

/// A JSON number as a double; infinite where it is too large for one.
fn number(node: &Node<'_>) -> Option<f64> {
    node.raw().parse().ok()
}

fn duration<'a>(
    reader: &mut Reader<'a>,
    node: &Node<'a>,
    seconds: Option<f64>,
    range: &str,
) -> Option<Duration> {
    let Some(seconds) = seconds else {
        return reader.refuse(node, format!("must be a number of seconds, {range}"));
    };
    let bounded = Some(seconds).filter(|&seconds| seconds <= f64::from(CONFIG_SECONDS_MAX));
    match bounded.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(duration) => Some(duration),
        None => reader.refuse(node, format!("must be at most {CONFIG_SECONDS_MAX} seconds")),
    }
}

/// A size.
pub fn size<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<usize> {
    whole(reader, node, 1, CONFIG_COUNT_MAX)
}

pub fn count<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<usize> {
    whole(reader, node, 0, CONFIG_COUNT_MAX)
}

/// How often something is tried.
pub fn tries<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<u32> {
    whole(reader, node, 1, u32::MAX)
}

/// The number of a Redis database.
pub fn database<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<u32> {
    whole(reader, node, 0, u32::MAX)
}

fn whole<'a, T>(reader: &mut Reader<'a>, node: &Node<'a>, least: T, most: T) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    let digits = node.raw();
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return reader.refuse(node, format!("must be a whole number, {least} or more"));
    }
    match digits.parse::<u64>().ok().and_then(|number| T::try_from(number).ok()) {
        Some(number) if number < least => {
            reader.refuse(node, format!("must be a whole number, {least} or more"))
        }
        Some(number) if number <= most => Some(number),
        _ => reader.refuse(node, format!("must be at most {most}")),
    }
}

pub fn port<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<u16> {
    match port_in_digits(node.raw()) {
        Some(port) => Some(port),
        None => reader.refuse(node, "must be a port number, 0 to 65535"),
    }
}

/// A port as a number or, as the original takes it too, as a string.
pub fn port_or_text<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<u16> {
    if !node.raw().starts_with('"') {
        return port(reader, node);
    }
    match port_in_digits(&reader.string(node)?) {
        Some(port) => Some(port),
        None => reader.refuse(node, "must be a port number, 0 to 65535"),
    }
}

/// One of a few words, case aside.
pub fn choice<'a, T: Copy>(
    words: &[(&str, T)],
) -> impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<T> {
    move |reader, node| {
        let text = reader.string(node)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if let Some(&(_, value)) = found {
            return Some(value);
        }
        let listed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        reader.refuse(node, format!("must be {}", listed.join(" or ")))
    }
}

/// A level, by Python's names; it has two for some.
pub fn level<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Level> {
    choice(&[
        ("DEBUG", Level::Debug),
        ("INFO", Level::Info),
        ("WARNING", Level::Warning),
        ("WARN", Level::Warning),
        ("ERROR", Level::Error),
        ("CRITICAL", Level::Critical),
        ("FATAL", Level::Critical),
    ])(reader, node)
}

/// A list of values of one kind.
pub fn list<'a, T>(
    kind: impl Fn(&mut Reader<'a>, &Node<'a>) -> Option<T>,
) -> impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<Vec<T>> {
    move |reader, node| {
        let elements = reader.elements(node)?;
        // All are looked at, so that all errors come out, before one that is none counts.
        let values: Vec<Option<T>> = elements.map(|node| kind(reader, &node)).collect();
        values.into_iter().collect()
    }
}

/// Any value: for keys whose meaning ended with the original.
pub fn anything<'a>(_: &mut Reader<'a>, _: &Node<'a>) -> Option<()> {
    Some(())
}

/// For keys that another build would take.
pub fn refused<'a>(problem: &str) -> impl FnOnce(&mut Reader<'a>, &Node<'a>) -> Option<()> {
    move |reader, node| reader.refuse(node, problem)
}

pub fn empty_object<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<()> {
    reader.object(node, |_| {});
    Some(())
}

pub fn url<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Rc<Url>> {
    let text = reader.string(node)?;
    Url::parse(&text).map_or_else(|problem| reader.refuse(node, problem), |url| Some(Rc::new(url)))
}

pub fn origin<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<OriginPattern> {
    let text = reader.string(node)?;
    OriginPattern::parse(&text).map_or_else(|problem| reader.refuse(node, problem), Some)
}

pub fn address_block<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<AddressBlock> {
    let text = reader.string(node)?;
    AddressBlock::parse(&text).map_or_else(|problem| reader.refuse(node, problem), Some)
}

/// The name of a header: a token (RFC 9110, section 5.1).
pub fn header_name<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<String> {
    let name = reader.string(node)?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return reader.refuse(node, "must be the name of a header, such as Retry-After");
    }
    Some(name)
}
