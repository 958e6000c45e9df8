//! House rules that a reader relies on and no lint checks: where danger lives, and that a file says why it exists.

use crate::source::{self, SourceFile, Token};

/// The one file with unsafe code.
const UNSAFE_HOME: &str = "host/sys.rs";

/// A longer file is two files.
const MOST_LINES: usize = 600;

#[test]
fn unsafe_code_is_in_one_file() {
    assert_eq!(
        places(|file, tokens| if file.path.as_os_str() == UNSAFE_HOME {
            Vec::new()
        } else {
            unsafe_words(tokens)
        }),
        [""; 0]
    );
}

#[test]
fn programs_are_started_by_the_host_only() {
    assert_eq!(
        places(|file, tokens| if file.path.starts_with("host") {
            Vec::new()
        } else {
            starts(tokens)
        }),
        [""; 0]
    );
}

#[test]
fn every_file_says_why_it_exists_and_is_short_enough() {
    let faults = source::all()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! ") || file.text.lines().count() > MOST_LINES);
    assert_eq!(
        faults
            .map(|file| file.path.display().to_string())
            .collect::<Vec<_>>(),
        [""; 0]
    );
}

#[test]
fn the_scan_sees_what_it_looks_for() {
    let tokens = source::tokens(
        "// unsafe\nunsafe { \"unsafe\" }\nstd::process::Command::new(\"ls\");\nuse std::process::{self, Command};",
    );
    assert_eq!(unsafe_words(&tokens), [2]);
    assert_eq!(starts(&tokens), [3, 4]);
}

/// `FILE:LINE` of what `find` finds in any file.
fn places(find: impl Fn(&SourceFile, &[Token]) -> Vec<usize>) -> Vec<String> {
    let files = source::all();
    let lines = files.iter().flat_map(|file| {
        find(file, &file.tokens())
            .into_iter()
            .map(|line| format!("{}:{line}", file.path.display()))
    });
    lines.collect()
}

fn unsafe_words(tokens: &[Token]) -> Vec<usize> {
    tokens
        .iter()
        .filter(|token| token.text == "unsafe")
        .map(|token| token.line)
        .collect()
}

/// Lines that name `Command` of a `process` module. The host's own `Command` only describes a program.
fn starts(tokens: &[Token]) -> Vec<usize> {
    let mut lines: Vec<usize> = (0..tokens.len())
        .filter(|at| names_command(tokens, *at))
        .map(|at| tokens[at].line)
        .collect();
    lines.dedup();
    lines
}

fn names_command(tokens: &[Token], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    text(at) == "process" && text(at + 1) == "::" && {
        let path = tokens[at..]
            .iter()
            .map(|token| token.text.as_str())
            .take_while(|text| ![";", "}", "("].contains(text));
        path.into_iter().any(|text| text == "Command")
    }
}
