//! How a command answers: on standard output, and no further than somebody reads.

use std::io::{self, Write};
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
