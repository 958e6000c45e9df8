//! Starts clients that we did not write, and reads what they tell: a line of JSON for each operation.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What the script `name` of `tests/arrays/foreign/` told, run by the Python that the environment names in `python`.
pub fn run(python: &str, name: &str, words: &[&str]) -> Vec<Value> {
    let program = std::env::var(python).unwrap_or_else(|_| {
        panic!("{python} is not set; `make arrays` installs the client and sets it")
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arrays/foreign");
    let done = Command::new(program)
        .arg("-B")
        .arg(folder.join(name))
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{name} ended with {}:\n{text}{errors}",
        done.status
    );
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// What was told of one operation.
pub fn told<'t>(all: &'t [Value], did: &str) -> &'t Value {
    let found = all.iter().find(|it| it["did"] == did);
    found.unwrap_or_else(|| panic!("nothing was told of {did:?}: {all:?}"))
}
