//! Runs one program with a deadline and brings back what it said. Every process that the lab starts and waits for comes
//! through here, on the host and in the guest; nothing it starts outlives its deadline.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How a program ended. No code means that a signal ended it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The standard output of a success; anything else is an error that quotes what the program said.
    pub fn success(self, what: &str) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let code = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("status {code}"));
        bail!(
            "{what} ended with {code}: {}",
            tail(&self.stderr, &self.stdout)
        );
    }
}

fn tail(stderr: &str, stdout: &str) -> String {
    let said = if stderr.trim().is_empty() {
        stdout
    } else {
        stderr
    };
    let lines: Vec<&str> = said.trim().lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

/// Runs `argv` to its end or its deadline, whichever is first.
pub fn run(argv: &[&str], deadline: Duration) -> Result<Finished> {
    run_with_input(argv, "", deadline)
}

/// As [`run`], with `input` on the program's standard input.
pub fn run_with_input(argv: &[&str], input: &str, deadline: Duration) -> Result<Finished> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, input, deadline).with_context(|| argv.join(" "))
}

/// Runs a prepared command in a process group of its own, so that its deadline reaches its children too.
pub fn finish(mut command: Command, input: &str, deadline: Duration) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("did not start")?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut pipe) = child.stdin.take() {
        // A program that reads nothing closes the pipe; that is its right.
        let _ = pipe.write_all(input.as_bytes());
    }
    let Some(code) = wait_until(&mut child, started + deadline)? else {
        kill_group(&child);
        let _ = child.wait();
        bail!("still running after {} s, killed", deadline.as_secs());
    };
    Ok(Finished {
        code,
        stdout: taken(&stdout),
        stderr: taken(&stderr),
    })
}

/// Kills a child's whole process group; a group that is gone already is fine.
pub fn kill_group(child: &Child) {
    let _ = killpg(pid_of(child), Signal::SIGKILL);
}

/// The child's process id in nix's type.
pub fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("the kernel's process ids fit in 22 bits"))
}

/// The exit code (None inside for a signal), or None when `until` passed first.
pub fn wait_until(child: &mut Child, until: Instant) -> Result<Option<Option<i32>>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code()));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

// A daemon left behind by the program may hold the pipe open for ever: what it says is not waited for.
fn taken(receiver: &mpsc::Receiver<String>) -> String {
    receiver
        .recv_timeout(Duration::from_secs(2))
        .unwrap_or_default()
}
