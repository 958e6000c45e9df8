//! `sanpath`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use sanpath::{cli, daemon};

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that may have no log yet"
)]
fn main() -> ExitCode {
    match daemon::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sanpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
