//! Rust sources as the rules see them: comments and the text of literals blanked out, tests
//! cut off, `use` trees unfolded. No parser, but enough for sources that rustfmt wrote.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and the inside of literals replaced by spaces, line by line the same.
    pub code: String,
    /// Lines before the test module at the end of the file.
    pub lines_without_tests: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let total = text.lines().count();
        let lines_without_tests = test_module_line(&code).unwrap_or(total);
        Source { path: path.to_owned(), text: text.to_owned(), code, lines_without_tests }
    }

    /// The code without the test module at the end.
    pub fn code_without_tests(&self) -> String {
        let lines: Vec<&str> = self.code.lines().take(self.lines_without_tests).collect();
        lines.join("\n")
    }

    /// The first folder or file below `src/`: `wire` for `src/wire/resp.rs`.
    pub fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = below.split('/').next().unwrap_or(below);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Files that only tests and fuzzing compile.
    pub fn is_test_only(&self) -> bool {
        self.path.starts_with("src/fuzzing/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }
}

/// All Rust files below a folder of the repository, by path.
pub fn rust_files(folder: &str) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for path in files_below(&root.join(folder)) {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            files.push(Source::new(&relative(&path), &text));
        }
    }
    files
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.to_str().expect("our paths are ASCII").replace('\\', "/")
}

/// Files below a folder, sorted; what is built, fetched or version control's is left out.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    const LEFT_OUT: [&str; 5] = ["target", ".git", "artifacts", "corpus", "coverage"];
    let mut files = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if !path.is_dir() {
                files.push(path);
            } else if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                open.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Lines before a `#[cfg(test)]` at the margin that opens a `mod` with a body.
fn test_module_line(code: &str) -> Option<usize> {
    let lines: Vec<&str> = code.lines().collect();
    (1..lines.len())
        .find(|&at| {
            let is_module = has_word(lines[at], "mod") && lines[at].ends_with('{');
            is_module && lines[at - 1].starts_with("#[cfg(test)]")
        })
        .map(|at| at - 1)
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    Text,
    /// A raw string, closed by a quote and that many hashes.
    RawText(usize),
}

/// Replaces comments and the inside of literals by spaces.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut index = 0;
    while index < chars.len() {
        let (after, step) = match inside {
            Inside::Code => begin(&chars, index),
            inside => go_on(&chars, index, inside),
        };
        let is_code = inside == Inside::Code && step == 1;
        for &character in chars.iter().skip(index).take(step) {
            out.push(if is_code || character == '\n' { character } else { ' ' });
        }
        inside = after;
        index += step;
    }
    out
}

/// Inside of a comment or literal: where the scanner is after how many characters.
fn go_on(chars: &[char], index: usize, inside: Inside) -> (Inside, usize) {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\n');
    match (inside, at(index), at(index + 1)) {
        (Inside::LineComment, '\n', _) | (Inside::Text, '"', _) => (Inside::Code, 1),
        (Inside::BlockComment(1), '*', '/') => (Inside::Code, 2),
        (Inside::BlockComment(depth), '*', '/') => (Inside::BlockComment(depth - 1), 2),
        (Inside::BlockComment(depth), '/', '*') => (Inside::BlockComment(depth + 1), 2),
        (Inside::Text, '\\', _) => (Inside::Text, 2),
        (Inside::RawText(hashes), '"', _) if (1..=hashes).all(|ahead| at(index + ahead) == '#') => {
            (Inside::Code, 1 + hashes)
        }
        _ => (inside, 1),
    }
}

/// At a character of code: what begins here and how many characters open it (or are one literal).
fn begin(chars: &[char], index: usize) -> (Inside, usize) {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\n');
    let after_word = index > 0 && is_word(at(index - 1));
    match (at(index), at(index + 1)) {
        ('/', '/') => (Inside::LineComment, 2),
        ('/', '*') => (Inside::BlockComment(1), 2),
        ('"', _) => (Inside::Text, 1),
        ('r', '"' | '#') if !after_word => raw(chars, index + 1),
        ('b', 'r') if !after_word && matches!(at(index + 2), '"' | '#') => raw(chars, index + 2),
        ('\'', '\\') => {
            let close = (index + 3..chars.len()).find(|&ahead| at(ahead) == '\'');
            (Inside::Code, close.map_or(1, |close| close + 1 - index))
        }
        // A character; else a lifetime.
        ('\'', _) if at(index + 2) == '\'' => (Inside::Code, 3),
        _ => (Inside::Code, 1),
    }
}

/// `r"` or `r#"`; a raw identifier is code.
fn raw(chars: &[char], from: usize) -> (Inside, usize) {
    let hashes = chars[from..].iter().take_while(|&&hash| hash == '#').count();
    match chars.get(from + hashes) {
        Some('"') => (Inside::RawText(hashes), 1 + hashes + 1),
        _ => (Inside::Code, 1),
    }
}

pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Paths that begin with `root::`, `use` trees unfolded, with their line numbers:
/// `use crate::{a::B, c}` gives `a::B` and `c`.
pub fn paths(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (position, _) in code.match_indices(root) {
        let before = code[..position].chars().next_back();
        let rest = &code[position + root.len()..];
        let is_root = !before.is_some_and(|before| is_word(before) || before == ':');
        if let Some(tree) = rest.strip_prefix("::").filter(|_| is_root) {
            let line = code[..position].matches('\n').count() + 1;
            let mut leaves = Vec::new();
            unfold(tree, String::new(), &mut leaves);
            found.extend(leaves.into_iter().map(|leaf| (line, leaf)));
        }
    }
    found
}

/// Collects the leaves of a tree and gives back what follows it.
fn unfold<'a>(tree: &'a str, prefix: String, leaves: &mut Vec<String>) -> &'a str {
    let mut rest = tree.trim_start();
    if let Some(items) = rest.strip_prefix('{') {
        rest = items.trim_start();
        while !rest.starts_with('}') && !rest.is_empty() {
            let left = unfold(rest, prefix.clone(), leaves).trim_start();
            let stuck = left.len() == rest.len();
            rest = left.strip_prefix(',').unwrap_or(left).trim_start();
            if stuck {
                break;
            }
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
    let path = if prefix.is_empty() { String::new() } else { prefix + "::" } + &rest[..end];
    match rest[end..].strip_prefix("::") {
        Some(deeper) if !deeper.starts_with('<') => unfold(deeper, path, leaves),
        _ => {
            leaves.push(path);
            // `as` gives a leaf another name.
            let tail = &rest[end..];
            tail.find([',', '}', ';'])
                .filter(|_| tail.starts_with(" as "))
                .map_or(tail, |to| &tail[to..])
        }
    }
}

/// Whether a word stands in a line by itself.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(position, _)| {
        let before = line[..position].chars().next_back();
        let after = line[position + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}
