//! One test of this very program in a process of its own: for what a whole process has only one of, such as its log.

use std::process::Command;

/// Runs the test of this name, which is an ignored one; whether it passed, and all that it wrote, the log first.
#[expect(
    clippy::disallowed_methods,
    reason = "this very program, and no tool of the host"
)]
pub fn run_test_alone(name: &str) -> (bool, String) {
    let mut alone = Command::new(std::env::current_exe().expect("it runs"));
    alone.args(["--exact", name, "--ignored", "--nocapture"]);
    let output = alone.output().expect("it was started before");
    let written = [output.stderr, output.stdout].concat();
    let written = String::from_utf8_lossy(&written).into_owned();
    (output.status.success(), written)
}
