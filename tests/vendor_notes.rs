//! `vendor-notes/` says the same as `Cargo.lock`: one page per crate that is compiled for Linux,
//! for the version that is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Crates that the lock file names and Linux builds never compile. What only they need is left
/// out with them.
const NOT_COMPILED: [(&str, &str); 5] = [
    ("r-efi", "getrandom, for UEFI"),
    ("serde", "serde_json, behind `cfg(any())`, to tie versions together"),
    ("serde_derive", "serde_core and serde, behind `cfg(any())`, to tie versions together"),
    ("wasi", "mio, for WASI"),
    ("windows-sys", "mio, socket2 and errno, for Windows"),
];

/// A package of the lock file.
#[derive(Default)]
struct Package {
    version: String,
    dependencies: Vec<String>,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The packages of a lock file by name. The format is written by cargo alone, so a line reader
/// does: tables of `[[package]]`, each with `name`, `version` and a list of dependencies, one per
/// line, which carry a version where a name is there twice.
fn packages(lock: &str) -> BTreeMap<String, Vec<Package>> {
    let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    for table in lock.split("[[package]]").skip(1) {
        let mut name = String::new();
        let mut package = Package::default();
        for line in table.lines() {
            let quoted = line.split('"').nth(1).unwrap_or_default();
            if line.starts_with("name = ") {
                name = quoted.to_owned();
            } else if line.starts_with("version = ") {
                package.version = quoted.to_owned();
            } else if line.starts_with(" \"") {
                let dependency = quoted.split(' ').next().unwrap_or_default();
                package.dependencies.push(dependency.to_owned());
            }
        }
        packages.entry(name).or_default().push(package);
    }
    packages
}

/// Names and versions of all that the root package needs, itself apart.
fn compiled(packages: &BTreeMap<String, Vec<Package>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut open = vec![env!("CARGO_PKG_NAME").to_owned()];
    while let Some(name) = open.pop() {
        let left_out = NOT_COMPILED.iter().any(|(other, _)| *other == name);
        if left_out || found.contains_key(&name) {
            continue;
        }
        let known = packages.get(&name).unwrap_or_else(|| panic!("Cargo.lock lacks {name}"));
        open.extend(known.iter().flat_map(|package| package.dependencies.iter().cloned()));
        found.insert(name, known.iter().map(|package| package.version.clone()).collect());
    }
    found.remove(env!("CARGO_PKG_NAME"));
    found
}

/// The versions that the pages are about: the lines `- version: 1.2.3` of their headers.
fn noted() -> BTreeMap<String, BTreeSet<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor-notes");
    let mut notes = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("vendor-notes/ is there") {
        let name = entry.expect("the folder can be read").file_name();
        let name = name.to_str().expect("crates have ASCII names");
        if name == "README.md" {
            continue;
        }
        let text = read(&format!("vendor-notes/{name}"));
        let versions = text.lines().filter_map(|line| line.strip_prefix("- version: "));
        let name = name.strip_suffix(".md").unwrap_or(name);
        notes.insert(name.to_owned(), versions.map(str::to_owned).collect());
    }
    notes
}

#[test]
fn every_crate_has_a_page_for_its_version() {
    let compiled = compiled(&packages(&read("Cargo.lock")));
    let noted = noted();
    let mut wrong = Vec::new();
    for (name, locked) in &compiled {
        match noted.get(name) {
            None => wrong.push(format!(
                "vendor-notes/{name}.md: missing; {name} {locked:?} is in Cargo.lock. Read its \
                 source and write the page, or drop the crate"
            )),
            Some(versions) if versions != locked => wrong.push(format!(
                "vendor-notes/{name}.md: is about {versions:?}, Cargo.lock has {locked:?}. Read \
                 what changed and bring the page up to date"
            )),
            Some(_) => {}
        }
    }
    for name in noted.keys().filter(|name| !compiled.contains_key(*name)) {
        wrong.push(format!("vendor-notes/{name}.md: no such crate is compiled; remove the page"));
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
    for name in noted().keys() {
        let text = read(&format!("vendor-notes/{name}.md"));
        let mut lines = text.lines().skip(2);
        for key in keys {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(&format!("- {key}: "));
            assert!(
                value.is_some_and(|value| !value.trim().is_empty()),
                "vendor-notes/{name}.md: the header needs `- {key}: ...` where `{line}` stands"
            );
        }
    }
}

#[test]
fn crates_left_out_are_in_the_lock_file() {
    let packages = packages(&read("Cargo.lock"));
    for (name, needed_by) in NOT_COMPILED {
        assert!(
            packages.contains_key(name),
            "{name} ({needed_by}) is in Cargo.lock no more; take it off NOT_COMPILED"
        );
    }
}
