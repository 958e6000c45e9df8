//! The pages for operators: commands that they tell are commands of the program, and pages that they name are there.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use sanpath::cli::Arguments;

#[test]
fn every_command_that_is_told_is_one() {
    let mut program = Arguments::command();
    program.build();
    let mut told = 0;
    for page in pages() {
        for line in commands(&fs::read_to_string(&page).unwrap()) {
            told += 1;
            if let Err(wrong) = judge(&program, &line) {
                panic!("{}: {line}: {wrong}", page.display());
            }
        }
    }
    assert!(told > 60, "only {told} commands were found");
}

#[test]
fn what_is_no_command_is_found() {
    let mut program = Arguments::command();
    program.build();
    for wrong in [
        "nodes volumes",
        "node volume",
        "node volumes --jason",
        "san --pol /p",
        "paths --watch --verbose",
    ] {
        assert!(judge(&program, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_page_that_is_named_is_there() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let spans = text.split('`').skip(1).step_by(2);
        for name in spans.filter(|it| it.ends_with(".md") && !it.contains([' ', '\n'])) {
            let beside = page.with_file_name(name);
            assert!(
                beside.exists() || root().join(name).exists(),
                "{} names {name}",
                page.display()
            );
        }
    }
}

/// What follows `sanpath` where a page shows a command: between backticks, and on a line of a block. What is not there yet may be named.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let text = text.split("## What does not work yet").next().unwrap();
    let mut found = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        let is_block = index % 2 == 1;
        if is_block {
            found.extend(part.lines().filter_map(typed));
        } else {
            let spans = part.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|it| it.strip_prefix("sanpath ")));
        }
    }
    let clean = |line: &str| line.split(['#', '|', '>', '\n']).next().unwrap().to_owned();
    found.into_iter().map(clean).collect()
}

/// The command of a line that is typed at a prompt, or run in a container.
fn typed(line: &str) -> Option<&str> {
    let begins = ["sanpath ", "$ sanpath ", "nohup sanpath "];
    let begun = begins.iter().find_map(|it| line.strip_prefix(it));
    begun.or_else(|| Some(line.split_once(" -- sanpath ")?.1))
}

/// Goes down the commands as far as the words do, then wants every option to be one of the last.
fn judge(program: &clap::Command, line: &str) -> Result<(), String> {
    let mut command = program;
    let mut words = line.split_whitespace().peekable();
    while let Some(next) = words.peek().and_then(|it| command.find_subcommand(it)) {
        command = next;
        words.next();
    }
    let is_name = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let takes_words = command.get_positionals().next().is_some();
    let word = words.peek();
    let word = word.filter(|it| !takes_words && !it.starts_with('-') && is_name(it));
    if let Some(word) = word {
        return Err(format!("{} has no {word}", command.get_name()));
    }
    let known = |long: &str| {
        command
            .get_arguments()
            .any(|it| it.get_long() == Some(long))
    };
    let options = words.filter_map(|it| it.strip_prefix("--"));
    for option in options.filter(|it| !it.is_empty()) {
        let long = option.split(['=', '.', ',']).next().unwrap();
        if !known(long) && !["help", "version"].contains(&long) {
            return Err(format!("{} has no --{long}", command.get_name()));
        }
    }
    Ok(())
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    docs.chain([root().join("README.md")]).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
