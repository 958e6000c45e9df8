//! `sanpath`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use sanpath::{cli, daemon};

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that may have no log yet"
)]
fn main() -> ExitCode {
    let outcome = match cli::Arguments::parse() {
        cli::Arguments {
            role:
                cli::Role::Node(cli::NodeArguments {
                    command: Some(command),
                    ..
                }),
            ..
        } => cli::run_node_command(command),
        arguments => daemon::run(arguments).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sanpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
