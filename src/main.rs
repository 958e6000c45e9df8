//! `sanpath`: arguments in, exit code out.

use std::process::ExitCode;

use sanpath::{cli, daemon};

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that may have no log yet"
)]
fn main() -> ExitCode {
    let arguments = cli::arguments();
    let outcome = match arguments.role.into_command() {
        Ok(command) => cli::run(command),
        Err(role) => {
            let arguments = cli::Arguments {
                role: *role,
                ..arguments
            };
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
