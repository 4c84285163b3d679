//! The JavaScript client, tested by Node: by itself, against this router, and on the scales.
//!
//! The tests are in `tests/client-js`; `tests/client-js/install`, which `tests/run` calls, brings
//! the packages that they need.

use std::path::Path;
use std::process::Command;

/// Runs one file of tests and shows what it said if it failed.
#[track_caller]
fn node_test(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/client-js");
    let remedy = "run tests/run, or tests/client-js/install alone: it needs node 20 or newer and \
                  npm, and installs the packages ws and terser into target/client-js";
    assert!(modules.join("installed").is_file(), "packages are missing; {remedy}");
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(root.join("tests/client-js").join(name))
        .env("CLIENT_JS_MODULES", &modules)
        .env("SOCKETSHARK", env!("CARGO_BIN_EXE_socketshark"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run node: {error}; {remedy}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    println!("{said}");
}

#[test]
fn alone() {
    node_test("alone.test.mjs");
}

#[test]
fn against_the_router() {
    node_test("router.test.mjs");
}

#[test]
fn size() {
    node_test("size.test.mjs");
}
