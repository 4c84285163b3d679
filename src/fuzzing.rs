//! What must hold for any bytes from outside: the bodies of the fuzz targets.
//!
//! They live here so that plain `cargo test` compiles them and replays the kept corpora in
//! `fuzz/corpus/`, each folder named like its target. The targets themselves are in
//! `fuzz/fuzz_targets/`, a line each. A body panics where a property is broken.

use std::fmt::Debug;

use serde_json::value::RawValue;

use crate::limits::JSON_DEPTH_MAX;
use crate::random::Random;
use crate::wire::json::{self, Object};

/// A body: takes any bytes, panics where a property is broken.
pub type Body = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Body); 1] = [("json", json)];

/// Feeds the same bytes whole, one by one and in random pieces. The outcome must be the same.
#[allow(dead_code)]
fn in_all_cuts<T: PartialEq + Debug>(data: &[u8], run: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = run(&[data]);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte");
    let mut random = Random::seeded(data.len() as u64);
    for _ in 0..2 {
        assert_eq!(run(&random_pieces(data, &mut random)), whole, "in random pieces");
    }
    whole
}

#[allow(dead_code)]
fn random_pieces<'a>(data: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        // Short pieces are likelier, empty ones are possible.
        let most = 1 << (random.number() % 8);
        let (piece, behind) = rest.split_at((random.number() as usize % most).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// A text is taken apart just when it is a JSON object within the depth limit; its values are
/// values, and written again they are the same.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value: Option<&RawValue> = serde_json::from_str(text).ok();
    let value = value.map(RawValue::get).filter(|value| depth(value) <= JSON_DEPTH_MAX);
    let parsed = Object::parse(text);
    let expected = value.is_some_and(|value| value.starts_with('{'));
    assert_eq!(parsed.is_ok(), expected, "{parsed:?}");
    if let Some(value) = value {
        canonical(value);
    }
    let Ok(object) = parsed else { return };
    for name in ["event", "subscription", "data", "a", ""] {
        let Some(raw) = object.get(name) else { continue };
        assert!(serde_json::from_str::<&RawValue>(raw).is_ok(), "{raw}");
        let again = object.with_replaced(name, "[1]");
        let again = Object::parse(&again).expect("what was written is an object");
        assert_eq!(again.get(name), Some("[1]"));
        if let Some(text) = json::string(raw) {
            let quoted = json::quoted(&text);
            assert_eq!(json::string(&quoted), Some(text), "{quoted}");
            assert_eq!(json::canonical(&quoted), json::canonical(raw));
        }
    }
}

/// Equal values have equal canonical forms: here one and the same value, spaced otherwise.
fn canonical(value: &str) {
    let form = json::canonical(value);
    assert!(!form.is_empty());
    assert_eq!(json::canonical(&spaced(value)), form, "{value}");
    assert_eq!(json::is_truthy(&spaced(value)), json::is_truthy(value), "{value}");
}

/// The value with a space wherever one may stand inside of it.
fn spaced(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    each_char(value, |index, character, in_string| {
        out.push(character);
        if !in_string && index < last && "[]{},:".contains(character) {
            out.push(' ');
        }
    });
    out
}

fn depth(value: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    each_char(value, |_, character, in_string| match character {
        '[' | '{' if !in_string => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        ']' | '}' if !in_string => depth -= 1,
        _ => {}
    });
    deepest
}

/// Calls back for every character of well-formed JSON, and whether it stands in a string.
fn each_char(value: &str, mut call: impl FnMut(usize, char, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for (index, character) in value.chars().enumerate() {
        call(index, character, in_string);
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpora_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, body) in TARGETS {
            let folder = corpora.join(name);
            let files = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display()));
            let mut count = 0;
            for file in files {
                let file = file.unwrap().path();
                // Shown only where the body panics.
                println!("{}", file.display());
                body(&fs::read(&file).unwrap());
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }

    #[test]
    fn every_target_is_built() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml: {name}");
            let target = folder.join(format!("fuzz_targets/{name}.rs"));
            let text = fs::read_to_string(&target).unwrap_or_default();
            assert!(text.contains(&format!("fuzzing::{name}")), "{}", target.display());
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let data: Vec<u8> = (0..200).collect();
        let whole = in_all_cuts(&data, |pieces| pieces.concat());
        assert_eq!(whole, data);
    }
}
