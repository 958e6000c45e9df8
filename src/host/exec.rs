//! Starting a tool of the host: argument vectors only, a deadline always, a clean environment.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::sys;

/// Where the host's tools are looked for.
const TOOL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// What happens to a tool that outlives its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadline {
    /// It is killed and its end awaited: it must not work on beside the next attempt. For tools that can be cut off at any point.
    Kill,
    /// It is left to end by itself; its outcome is unknown. For iscsiadm, whose killing leaves the database locked for ever (R-0-10).
    Leave,
}

/// A tool to start.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name; found on the host's tool path, unless `place` says more.
    pub program: &'static str,
    /// Where the operator has put it, if that is no place of the tool path.
    pub place: Option<PathBuf>,
    /// Its arguments. Never a secret: arguments are readable by everybody.
    pub arguments: Vec<String>,
    /// What it reads from its standard input. May be a secret.
    pub input: Vec<u8>,
    /// What it finds in its environment beside the tool path.
    pub environment: &'static [(&'static str, &'static str)],
    /// How long it may take.
    pub timeout: Duration,
    /// What happens then.
    pub on_deadline: OnDeadline,
}

impl Command {
    /// `program` with `arguments`, killed after `timeout`.
    #[must_use]
    pub fn new(program: &'static str, arguments: &[&str], timeout: Duration) -> Self {
        Self {
            program,
            place: None,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            input: Vec::new(),
            environment: &[],
            timeout,
            on_deadline: OnDeadline::Kill,
        }
    }

    /// The same, started as the file at `place`.
    #[must_use]
    pub fn at(mut self, place: &Path) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    /// The same, left alone after its deadline.
    #[must_use]
    pub fn never_killed(mut self) -> Self {
        self.on_deadline = OnDeadline::Leave;
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.program, self.arguments.join(" "))
    }
}

impl fmt::Debug for Command {
    /// Leaves out the input.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Command({self})")
    }
}

/// How a tool ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The exit code and the last of what it said, for an error message.
    #[must_use]
    pub fn summary(&self) -> String {
        let said = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        match self.code {
            Some(code) => format!("exit {code}: {last}"),
            None => format!("ended by a signal: {last}"),
        }
    }
}

/// Why a tool gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("{program} could not be started")]
    Start {
        /// Which.
        program: &'static str,
        #[source]
        source: io::Error,
    },
    /// Its input or output broke.
    #[error("the pipes of {program} broke")]
    Pipes {
        /// Which.
        program: &'static str,
        #[source]
        source: io::Error,
    },
    /// It was killed at its deadline.
    #[error("{command} did not end within {seconds} s and was killed")]
    Killed {
        /// Which.
        command: String,
        /// How long it had.
        seconds: u64,
    },
    /// It passed its deadline and still runs.
    #[error("{command} did not end within {seconds} s; process {pid} still runs")]
    StillRunning {
        /// Which.
        command: String,
        /// How long it had.
        seconds: u64,
        /// Its process id.
        pid: u32,
    },
}

/// Starts `command` inside `root` and waits.
pub(super) fn run(root: &Path, command: &Command) -> Result<Output, ExecError> {
    let program = command.program;
    let mut child = start(root, command).map_err(|source| ExecError::Start { program, source })?;
    let pid = child.id();
    let input = command.input.clone();
    let (ended, end) = mpsc::channel();
    // The waiting thread owns the child: should we leave it, somebody still reaps it.
    std::thread::Builder::new()
        .name(format!("wait {program}"))
        .spawn(move || {
            let fed = feed(&mut child, &input);
            let outcome = child.wait_with_output();
            // Nobody listens any more when the child was left alone.
            let _ = ended.send(fed.and(outcome));
        })
        .map_err(|source| ExecError::Start { program, source })?;
    let outcome = match end.recv_timeout(command.timeout) {
        Ok(outcome) => outcome,
        Err(_) => return Err(overdue(command, pid, &end)),
    };
    let output = outcome.map_err(|source| ExecError::Pipes { program, source })?;
    Ok(Output {
        code: exit_code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that starts processes"
)]
fn start(root: &Path, command: &Command) -> io::Result<Child> {
    let program = command.place.as_deref();
    let mut process =
        std::process::Command::new(program.unwrap_or_else(|| Path::new(command.program)));
    process
        .args(&command.arguments)
        .env_clear()
        .env("PATH", TOOL_PATH)
        .env("LC_ALL", "C")
        .envs(command.environment.iter().copied())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if root != Path::new("/") {
        use std::os::unix::ffi::OsStrExt;
        let root = std::ffi::CString::new(root.as_os_str().as_bytes())?;
        sys::enter_root(&mut process, root);
    }
    process.spawn()
}

/// Gives the child its input and closes the pipe. A child that reads none of it is fine.
fn feed(child: &mut Child, input: &[u8]) -> io::Result<()> {
    let Some(mut pipe) = child.stdin.take() else {
        return Ok(());
    };
    match pipe.write_all(input) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn overdue<T>(command: &Command, pid: u32, end: &mpsc::Receiver<T>) -> ExecError {
    let seconds = command.timeout.as_secs();
    let text = command.to_string();
    if command.on_deadline == OnDeadline::Leave {
        return ExecError::StillRunning {
            command: text,
            seconds,
            pid,
        };
    }
    // It may have ended this very moment; then there is nothing to kill.
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    // A tool stuck in the kernel dies only when the kernel lets go; until then this thread waits, as its volume's work must not go on
    // beside it.
    let _ = end.recv();
    ExecError::Killed {
        command: text,
        seconds,
    }
}

fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_here(command: &Command) -> Result<Output, ExecError> {
        run(Path::new("/"), command)
    }

    #[test]
    fn a_tool_gives_its_code_and_words() {
        let ended = run_here(&Command::new(
            "sh",
            &["-c", "cat; echo no >&2; exit 3"],
            Duration::from_secs(5),
        ));
        let output = ended.unwrap();
        assert_eq!((output.code, output.stderr.as_str()), (Some(3), "no\n"));
        assert_eq!(output.summary(), "exit 3: no");
        let mut cat = Command::new("cat", &[], Duration::from_secs(5));
        cat.input = b"by stdin".to_vec();
        assert_eq!(run_here(&cat).unwrap().stdout, "by stdin");
        assert!(
            !format!("{cat:?}").contains("stdin"),
            "input may be a secret"
        );
    }

    #[test]
    fn a_tool_that_is_overdue_is_killed_or_left() {
        let sleep = Command::new("sleep", &["20"], Duration::from_millis(30));
        assert!(matches!(run_here(&sleep), Err(ExecError::Killed { .. })));
        let left = run_here(&sleep.clone().never_killed());
        let Err(ExecError::StillRunning { pid, .. }) = left else {
            panic!("{left:?}")
        };
        let pid = Pid::from_raw(pid.cast_signed());
        kill(pid, None).expect("it lives");
        kill(pid, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_tool_is_started_where_the_operator_has_put_it() {
        let echo = Command::new("no-such-tool", &["here"], Duration::from_secs(5));
        let output = run_here(&echo.at(Path::new("/bin/echo"))).unwrap();
        assert_eq!((output.success(), output.stdout.as_str()), (true, "here\n"));
    }

    #[test]
    fn a_tool_that_is_not_there_is_named() {
        let missing = run_here(&Command::new("no-such-tool", &[], Duration::from_secs(1)));
        assert!(matches!(
            missing,
            Err(ExecError::Start {
                program: "no-such-tool",
                ..
            })
        ));
    }
}
