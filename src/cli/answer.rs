//! How a command answers: on standard output, and no further than somebody reads.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Prints a command's answer and ends the line.
///
/// # Errors
/// As the output has it.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// The same, with the word that each line begins with in the colour of what it means, on a terminal.
///
/// # Errors
/// As the output has it.
pub(super) fn print_judged(text: &str) -> io::Result<()> {
    match takes_colours(&io::stdout()) {
        true => print(&coloured(text)),
        false => print(text),
    }
}

/// Whether what is written there may have colours: to a terminal, and unless its user said no (<https://no-color.org>).
#[must_use]
pub fn takes_colours(to: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name);
    to.is_terminal() && are_wanted(set("NO_COLOR").as_deref(), set("TERM").as_deref())
}

fn are_wanted(no_color: Option<&OsStr>, terminal: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && terminal.is_none_or(|it| it != "dumb")
}

/// The words by which lines are judged, and the terminal's number of the colour.
const COLOURS: [(&str, u8); 6] = [
    ("good", 32),
    ("unknown", 36),
    ("DEGRADED", 33),
    ("WARNING", 33),
    ("BROKEN", 31),
    ("PROBLEM", 31),
];

fn coloured(text: &str) -> String {
    let line = |line: &str| {
        let begins = |(word, _): &&(&str, u8)| {
            let rest = line.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        match COLOURS.iter().find(begins) {
            Some((word, colour)) => {
                format!("\x1b[{colour}m{word}\x1b[0m{}", &line[word.len()..])
            }
            None => line.to_owned(),
        }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// What becomes of a command whose answer nobody reads to its end (`| head`): nothing is wrong.
///
/// # Errors
/// Every other one that it ended with.
pub(super) fn unless_unread(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let is_closed = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match outcome {
        Err(error) if error.chain().any(is_closed) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_judgement_is_coloured() {
        let text = "sp1:linux:a\ngood      mount  good\nBROKEN    map\n    -> BROKEN is not good\ngoodness";
        let wanted = "sp1:linux:a\n\x1b[32mgood\x1b[0m      mount  good\n\x1b[31mBROKEN\x1b[0m    map\n    -> BROKEN is not good\ngoodness";
        assert_eq!(coloured(text), wanted);
    }

    #[test]
    fn who_says_no_gets_no_colours() {
        let word = |word: &'static str| Some(OsStr::new(word));
        assert!(are_wanted(None, word("xterm")));
        assert!(are_wanted(word(""), None));
        assert!(!are_wanted(word("1"), word("xterm")));
        assert!(!are_wanted(None, word("dumb")));
    }
}
