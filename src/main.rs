//! `sanpath`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use sanpath::{cli, daemon};

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that may have no log yet"
)]
fn main() -> ExitCode {
    let mut arguments = cli::Arguments::parse();
    let command = match &mut arguments.role {
        cli::Role::Node(node) => node.command.take(),
        _ => None,
    };
    let outcome = match (command, arguments) {
        (Some(command), _) => cli::run_node_command(command),
        (
            None,
            cli::Arguments {
                role: cli::Role::Paths(asked),
                ..
            },
        ) => cli::run_paths(&asked),
        (None, arguments) => daemon::run(arguments).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sanpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
