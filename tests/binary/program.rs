//! The program itself, started as a user would.

use std::process::Command;

/// `sanpath`, still without arguments.
#[allow(
    clippy::disallowed_methods,
    reason = "the program under test is a process, and no tool of the host"
)]
pub fn sanpath() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sanpath"))
}
