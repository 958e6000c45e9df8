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
    let outcome = match (command, arguments.role) {
        (Some(command), _) => cli::run_node_command(command),
        (None, cli::Role::Paths(asked)) => cli::run_paths(&asked),
        (None, cli::Role::Properties(asked)) => cli::run_properties_command(asked),
        (None, role) => {
            let arguments = cli::Arguments { role, ..arguments };
            daemon::run(arguments).map(|()| ExitCode::SUCCESS)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sanpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
