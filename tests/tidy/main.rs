//! Architecture and style as tests, read from the sources.
//!
//! - `imports`: which room may import which; nobody reaches up into the shell
//! - `system_calls`: sockets, clocks, threads, files, environment and output are the shell's
//! - `codecs`: each codec crate is behind one room
//! - `documents`: every file says what it is for
//! - `sizes`: lines of at most 100 characters, files of at most 600 lines without their tests
//! - `names`, `leftovers`, `every_file_is_compiled`, `no_machine_paths`: housekeeping

use std::fs;

mod source;

use source::{Source, blank, files_below, has_word, paths, relative, root, rust_files};

/// Plain values and what waits to be sent: what every room of the core may speak of.
const GROUND: [&str; 12] = [
    "arena", "config", "limits", "log", "message", "metrics", "number", "outbox", "ports",
    "random", "time", "timers",
];

/// What a room may import from the crate beside itself. A path with `::` admits only that module.
/// `*` stands for the ground.
const ROOMS: [(&str, &[&str]); 9] = [
    // Bytes to values and back: no ids, no time, no policy.
    ("wire", &["config", "limits", "message", "metrics::Refused", "number", "outbox"]),
    // One machine per kind of connection; who gets what is not theirs to know.
    ("conn", &["*", "wire"]),
    // The product: no wire format but JSON values and finished frames, callbacks only by their
    // queue.
    (
        "route",
        &["*", "conn::calls", "wire::json", "wire::ws::encode_text", "wire::ws::encode_parts"],
    ),
    // The only room that knows both connections and routing.
    ("engine", &["*", "conn", "route", "wire"]),
    // Sockets and the clock; it sees the engine and plain values.
    ("shell", &["*", "engine", "tls"]),
    // Certificates and sessions: bytes of TLS to bytes and back, whatever they mean.
    ("tls", &["config", "limits", "time"]),
    ("demo", &["*", "conn", "engine", "shell", "wire"]),
    ("lib", &[]),
    ("main", &[]),
];

/// The ground may use itself, and JSON for configuration and log lines.
const GROUND_IMPORTS: [&str; 2] = ["*", "wire::json"];

/// Rooms that may do what the core must not.
const OUTSIDE: [&str; 3] = ["shell", "main", "demo"];

/// Paths below `std` that reach out of the process, or spread it over threads.
const SYSTEM: [&str; 15] = [
    "env",
    "fs",
    "io::stderr",
    "io::stdin",
    "io::stdout",
    "net::TcpListener",
    "net::TcpStream",
    "net::ToSocketAddrs",
    "net::UdpSocket",
    "os",
    "process",
    "thread",
    "time::Instant",
    "time::SystemTime",
    "time::UNIX_EPOCH",
];

/// Crates that make system calls.
const SYSTEM_CRATES: [&str; 7] =
    ["lexopt", "mio", "rlimit", "rustls_native_certs", "signal_hook", "signal_hook_mio", "socket2"];

/// Calls by their last words, however their type was imported.
const SYSTEM_WORDS: [&str; 8] = [
    "Instant::now(",
    "SystemTime::now(",
    "thread::spawn(",
    "thread::sleep(",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
];

/// Crates that know a format, and the rooms that hide them. The configuration reads its own JSON,
/// with the path to every value; the metrics port's side of a connection parses its few request
/// lines itself.
const CODECS: [(&str, &[&str]); 6] = [
    ("httparse", &["wire", "conn"]),
    ("rustls", &["tls"]),
    ("serde_core", &["wire", "config"]),
    ("serde_json", &["wire", "config"]),
    ("sha1", &["wire"]),
    ("tungstenite", &["wire"]),
];

const LINE_CHARS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;

/// Fails with all findings, one per line.
fn settle(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn admits(allowed: &[&str], path: &str) -> bool {
    allowed.iter().any(|entry| match *entry {
        "*" => GROUND.iter().any(|ground| admits(&[ground], path)),
        entry => path == entry || path.starts_with(&format!("{entry}::")),
    })
}

/// What is wrong with a file's imports from its own crate.
fn import_findings(file: &Source) -> Vec<String> {
    let room = file.room();
    let ground = GROUND.contains(&room);
    let known = ROOMS.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed);
    let Some(allowed) = known.or(ground.then_some(&GROUND_IMPORTS[..])) else {
        let path = &file.path;
        return vec![format!("{path}:1: a new room; say in tests/tidy/main.rs what it may import")];
    };
    let code = file.code_without_tests();
    let mut findings = Vec::new();
    for (line, path) in paths(&code, "crate") {
        let own = path == room || path.starts_with(&format!("{room}::"));
        if !own && !admits(allowed, &path) {
            findings.push(format!(
                "{}:{line}: imports crate::{path}; `{room}` may import {}. Move what is needed \
                 to where both may see it, or pass it in",
                file.path,
                if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") },
            ));
        }
    }
    for (index, line) in code.lines().enumerate() {
        // From a room's own folder one `super` stays inside; a file in src/ has none.
        let in_folder = file.path.matches('/').count() > 1;
        let up = if in_folder { "super::super::" } else { "super::" };
        if line.contains(up) {
            let number = index + 1;
            findings.push(format!("{}:{number}: `{up}`; write `crate::` and the room", file.path));
        }
    }
    findings
}

/// What a file of the core does that only the shell may do.
fn system_findings(file: &Source) -> Vec<String> {
    let code = file.code_without_tests();
    let mut findings = Vec::new();
    let mut report = |line: usize, what: &str| {
        findings.push(format!(
            "{}:{line}: uses {what}; only {} may. Take it as an argument, or give an output to \
             the shell",
            file.path,
            OUTSIDE.map(|room| format!("`{room}`")).join(", "),
        ));
    };
    for (line, path) in paths(&code, "std") {
        if admits(&SYSTEM, &path) {
            report(line, &format!("std::{path}"));
        }
    }
    for name in SYSTEM_CRATES {
        for (line, _) in paths(&code, name) {
            report(line, name);
        }
    }
    for (index, line) in code.lines().enumerate() {
        for words in SYSTEM_WORDS {
            let found = line.match_indices(words).any(|(position, _)| {
                !line[..position].chars().next_back().is_some_and(source::is_word)
            });
            if found {
                report(index + 1, words.trim_end_matches('('));
            }
        }
    }
    findings
}

fn core_files() -> Vec<Source> {
    let mut files = rust_files("src");
    assert!(!files.is_empty(), "src/ is there");
    files.retain(|file| !file.is_test_only());
    files
}

#[test]
fn imports() {
    settle(core_files().iter().flat_map(import_findings).collect());
}

#[test]
fn system_calls() {
    let files = core_files();
    let core = files.iter().filter(|file| !OUTSIDE.contains(&file.room()));
    settle(core.flat_map(system_findings).collect());
}

#[test]
fn codecs() {
    let mut findings = Vec::new();
    for file in core_files() {
        for (name, rooms) in CODECS {
            if rooms.contains(&file.room()) {
                continue;
            }
            for (line, _) in paths(&file.code_without_tests(), name) {
                findings.push(format!(
                    "{}:{line}: uses {name}; put what is needed of it into `{}`",
                    file.path,
                    rooms.join("` or `"),
                ));
            }
        }
    }
    settle(findings);
}

#[test]
fn documents() {
    let files = rust_files("src");
    let lacking = files.iter().filter(|file| !file.text.starts_with("//! "));
    let text = "begin the file with `//!`: what it is for and what it must not know";
    settle(lacking.map(|file| format!("{}:1: {text}", file.path)).collect());
}

#[test]
fn sizes() {
    let mut findings = Vec::new();
    for folder in ["src", "tests", "fuzz", "examples"] {
        for file in rust_files(folder) {
            for (index, line) in file.text.lines().enumerate() {
                let chars = line.chars().count();
                if chars > LINE_CHARS_MAX {
                    let place = format!("{}:{}", file.path, index + 1);
                    findings.push(format!(
                        "{place}: {chars} characters; break the line at {LINE_CHARS_MAX}"
                    ));
                }
            }
            if file.lines_without_tests > FILE_LINES_MAX && !file.is_test_only() {
                findings.push(format!(
                    "{}:1: {} lines without tests, more than {FILE_LINES_MAX}; split it by ideas",
                    file.path, file.lines_without_tests
                ));
            }
        }
    }
    settle(findings);
}

#[test]
fn names() {
    const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];
    let mut findings = Vec::new();
    for file in rust_files("src") {
        for (index, line) in file.code.lines().enumerate() {
            let declared = line.trim_start().trim_start_matches("pub ").strip_prefix("mod ");
            let name = declared.map(|name| name.trim_end_matches([' ', '{', ';']));
            if name.is_some_and(|name| EMPTY_NAMES.contains(&name)) {
                findings.push(format!(
                    "{}:{}: a module's name says what is in it; call it by its idea",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    settle(findings);
}

#[test]
fn leftovers() {
    // Spelt in two halves, so that this file does not find itself.
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut findings = Vec::new();
    for folder in ["src", "tests", "fuzz", "examples"] {
        for file in rust_files(folder) {
            for (index, (code, text)) in file.code.lines().zip(file.text.lines()).enumerate() {
                let left = macros.iter().find(|left| code.contains(**left));
                let left = left.or(notes.iter().find(|note| has_word(text, note)));
                if let Some(left) = left {
                    let place = format!("{}:{}", file.path, index + 1);
                    findings.push(format!("{place}: {left}; finish it or take it out"));
                }
            }
        }
    }
    settle(findings);
}

#[test]
fn every_file_is_compiled() {
    let files = rust_files("src");
    let mut findings = Vec::new();
    for file in &files {
        let (folder, name) = file.path.rsplit_once('/').expect("files are below src/");
        if folder == "src" && ["lib.rs", "main.rs"].contains(&name) {
            continue;
        }
        let (folder, name) = match name {
            "mod.rs" => folder.rsplit_once('/').expect("mod.rs is in a folder below src/"),
            name => (folder, name.trim_end_matches(".rs")),
        };
        let parents =
            [format!("{folder}.rs"), format!("{folder}/mod.rs"), format!("{folder}/lib.rs")];
        let declared = files
            .iter()
            .filter(|other| parents.contains(&other.path))
            .any(|parent| parent.code.lines().any(|line| line.ends_with(&format!("mod {name};"))));
        if !declared {
            let path = &file.path;
            findings.push(format!("{path}:1: no `mod {name};` leads here; declare or remove it"));
        }
    }
    settle(findings);
}

#[test]
fn no_machine_paths() {
    // Spelt in halves, so that this file does not find itself.
    let paths = [concat!("/wo", "rk/"), concat!("/tmp", "/w/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for path in files_below(&root()) {
        // What is no text names no paths.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(found) = paths.iter().find(|path| line.contains(**path)) {
                let place = format!("{}:{}", relative(&path), index + 1);
                findings.push(format!("{place}: names {found}, which is on one machine only"));
            }
        }
    }
    settle(findings);
}

#[test]
fn the_rules_bite() {
    let file = |path: &str, text: &str| Source::new(path, text);
    let imports = |path: &str, text: &str| import_findings(&file(path, text)).len();
    assert_eq!(imports("src/wire/resp.rs", "use crate::{limits::A, conn::{B, C}};\n"), 2);
    assert_eq!(imports("src/wire/resp.rs", "// crate::conn\nlet a = \"crate::conn\";\n"), 0);
    assert_eq!(imports("src/conn/client.rs", "fn f() { crate::shell::run() }\n"), 1);
    assert_eq!(imports("src/conn/client.rs", "use super::super::route::A;\n"), 1);
    assert_eq!(imports("src/time.rs", "use super::engine::Engine;\n"), 1);
    assert_eq!(imports("src/route/steps.rs", "use crate::wire::{json, resp};\n"), 1);
    assert_eq!(imports("src/route/steps.rs", "use crate::wire::json::Object as O;\n"), 0);
    assert_eq!(imports("src/attic.rs", ""), 1);
    assert_eq!(imports("src/conn/a.rs", "#[cfg(test)]\nmod tests {\nuse crate::route::A;\n}\n"), 0);

    let system = |text: &str| system_findings(&file("src/conn/client.rs", text)).len();
    assert_eq!(system("use std::{fs, net::{IpAddr, TcpStream}};\n"), 2);
    assert_eq!(system("let a = std::time::Instant::now();\n"), 2);
    assert_eq!(system("use std::time::Duration;\nuse std::io::IoSlice;\n"), 0);
    assert_eq!(system("eprintln!(\"{a}\");\n"), 1);
    assert_eq!(system("use mio::net::TcpStream;\n"), 1);
    assert_eq!(system("let version = env!(\"CARGO_PKG_VERSION\");\n"), 0);
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "a /* b /* c */ d */ e // f\n'\"' \"g\\\"h\" r#\"i\"j\"# 'k' b'\\'' &'l m r#n\n";
    let code = blank(text);
    let words: Vec<&str> = code.split(|c: char| !source::is_word(c)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(words, ["a", "e", "b", "l", "m", "r", "n"]);
    assert_eq!(code.lines().count(), text.lines().count());
}
