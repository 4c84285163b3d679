//! `vendor-notes/` says the same as `Cargo.lock`: one page per crate that is compiled for Linux,
//! for the version that is locked; those that only the feature `tls` compiles are in `tls/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Crates that the lock file names and Linux builds never compile. What only they need is left
/// out with them.
const NOT_COMPILED: [(&str, &str); 7] = [
    ("r-efi", "getrandom, for UEFI"),
    ("serde", "serde_json, behind `cfg(any())`, to tie versions together"),
    ("serde_derive", "serde_core and serde, behind `cfg(any())`, to tie versions together"),
    ("schannel", "rustls-native-certs, for Windows"),
    ("security-framework", "rustls-native-certs, for macOS"),
    ("wasi", "mio, for WASI"),
    ("windows-sys", "mio, socket2 and errno, for Windows"),
];

/// Dependencies that are compiled with the feature `tls` alone, and what they bring along. Their
/// pages are in a folder of their own.
const OF_TLS: [&str; 2] = ["rustls", "rustls-native-certs"];

const FOLDERS: [&str; 2] = ["vendor-notes", "vendor-notes/tls"];

/// A package's name and version.
type Id = (String, String);

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The packages of a lock file, each with what it depends on. The format is written by cargo
/// alone, so a line reader does: tables of `[[package]]`, each with `name`, `version` and a list
/// of dependencies, one per line, which carry a version where a name is there twice.
fn packages(lock: &str) -> BTreeMap<Id, Vec<String>> {
    let mut packages = BTreeMap::new();
    for table in lock.split("[[package]]").skip(1) {
        let (mut id, mut dependencies) = (Id::default(), Vec::new());
        for line in table.lines() {
            let quoted = line.split('"').nth(1).unwrap_or_default();
            if line.starts_with("name = ") {
                id.0 = quoted.to_owned();
            } else if line.starts_with("version = ") {
                id.1 = quoted.to_owned();
            } else if line.starts_with(" \"") {
                dependencies.push(quoted.to_owned());
            }
        }
        packages.insert(id, dependencies);
    }
    packages
}

/// All that the root package needs, itself and what goes with `without` apart.
fn compiled(packages: &BTreeMap<Id, Vec<String>>, without: &[&str]) -> BTreeSet<Id> {
    let mut found = BTreeSet::new();
    let mut open = vec![env!("CARGO_PKG_NAME").to_owned()];
    while let Some(dependency) = open.pop() {
        let (name, version) = dependency.split_once(' ').unwrap_or((&dependency, ""));
        if without.contains(&name) || NOT_COMPILED.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let is_meant = |id: &Id| id.0 == name && (version.is_empty() || id.1 == version);
        let (id, dependencies) = packages
            .iter()
            .find(|(id, _)| is_meant(id))
            .unwrap_or_else(|| panic!("Cargo.lock lacks {dependency}"));
        if found.insert(id.clone()) {
            open.extend(dependencies.iter().cloned());
        }
    }
    found.retain(|(name, _)| name != env!("CARGO_PKG_NAME"));
    found
}

/// What the pages of a folder are about: the lines `- version: 1.2.3` of their headers.
fn noted(folder: &str) -> BTreeSet<Id> {
    let mut notes = BTreeSet::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for entry in fs::read_dir(path).expect("the folder is there") {
        let name = entry.expect("the folder can be read").file_name();
        let name = name.to_str().expect("crates have ASCII names");
        let Some(crate_name) = name.strip_suffix(".md").filter(|name| *name != "README") else {
            continue;
        };
        let text = read(&format!("{folder}/{name}"));
        let version = text.lines().find_map(|line| line.strip_prefix("- version: "));
        notes.insert((crate_name.to_owned(), version.unwrap_or_default().to_owned()));
    }
    notes
}

#[test]
fn every_crate_has_a_page_for_its_version() {
    let packages = packages(&read("Cargo.lock"));
    let small = compiled(&packages, &OF_TLS);
    let of_tls: BTreeSet<Id> = compiled(&packages, &[]).difference(&small).cloned().collect();
    let mut wrong = Vec::new();
    for (folder, compiled) in FOLDERS.into_iter().zip([small, of_tls]) {
        let noted = noted(folder);
        for (name, version) in compiled.difference(&noted) {
            wrong.push(format!(
                "{folder}/{name}.md: missing, or about another version; {name} {version} is in \
                 Cargo.lock. Read its source, or what changed in it, and write it down; or drop \
                 the crate"
            ));
        }
        for (name, version) in noted.difference(&compiled) {
            wrong.push(format!(
                "{folder}/{name}.md: is about {version:?}, which is not compiled; remove the page \
                 or bring it up to date"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_page_has_the_whole_header() {
    let keys = [
        "version",
        "features",
        "comes through",
        "runs",
        "kept by",
        "license",
        "unsafe",
        "build script",
        "proc macro",
    ];
    let pages = FOLDERS.iter().flat_map(|folder| {
        noted(folder).into_iter().map(move |(name, _)| format!("{folder}/{name}.md"))
    });
    for page in pages {
        let text = read(&page);
        let mut lines = text.lines().skip(2);
        for key in keys {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(&format!("- {key}: "));
            assert!(
                value.is_some_and(|value| !value.trim().is_empty()),
                "{page}: the header needs `- {key}: ...` where `{line}` stands"
            );
        }
    }
}

#[test]
fn crates_left_out_are_in_the_lock_file() {
    let packages = packages(&read("Cargo.lock"));
    for (name, needed_by) in NOT_COMPILED {
        assert!(
            packages.keys().any(|id| id.0 == name),
            "{name} ({needed_by}) is in Cargo.lock no more; take it off NOT_COMPILED"
        );
    }
}
