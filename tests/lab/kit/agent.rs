//! The lab's side inside a guest. As process 1 it only starts the agent and reaps orphans; the agent sets the guest up, then
//! answers the host's requests, each in a thread of its own, so that a hanging one blocks no other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command;
use super::daemons::Daemons;
use super::leftovers::Things;
use super::running_job::{RunningJob, ToHost};
use super::wire::{Answer, Ask, Job, Message, Request, Verdict};
use super::{case, evidence, guest_setup, leftovers};

/// Process 1: starts the agent and collects every orphan for as long as the guest lives. Without its agent a guest is of no
/// use, so it powers off.
pub fn run_as_first_process() -> Result<()> {
    // Process 1 starts without an environment, and everything it starts inherits that.
    let agent = Command::new("/lab/lab")
        .arg("--agent")
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .spawn()
        .context("starting the agent")?;
    let agent = command::pid_of(&agent);
    loop {
        match nix::sys::wait::wait() {
            Ok(status) if status.pid() == Some(agent) => break,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("lab: the agent is gone, powering off");
    fs::write("/proc/sysrq-trigger", "o")?;
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// The agent proper.
pub fn run() -> Result<()> {
    // A port is opened once only; both directions share the opening.
    let port = File::options()
        .read(true)
        .write(true)
        .open(find_port("control")?)?;
    let guest = Arc::new(Guest {
        to_host: ToHost::new(port.try_clone()?),
        daemons: Mutex::new(Daemons::default()),
        baseline: Mutex::new(Things::new()),
    });
    guest_setup::run().inspect_err(|error| guest.to_host.log(&format!("{error:#}")))?;
    *locked(&guest.baseline) = leftovers::baseline();
    let seconds = fs::read_to_string("/proc/uptime")?
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()?;
    guest.to_host.send(&Message::Ready { seconds });
    for line in BufReader::new(port).lines() {
        let ask: Ask =
            serde_json::from_str(&line?).context("the host sent something unreadable")?;
        let guest = Arc::clone(&guest);
        std::thread::spawn(move || {
            let result = guest
                .answer(ask.request)
                .map_err(|error| format!("{error:#}"));
            guest.to_host.send(&Message::Answer { id: ask.id, result });
        });
    }
    bail!("the host closed the control port")
}

/// Named virtio-serial ports; udev is not yet there to link them.
fn find_port(wanted: &str) -> Result<PathBuf> {
    for port in fs::read_dir("/sys/class/virtio-ports")? {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == wanted) {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
    }
    bail!("this guest has no port called {wanted}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Guest {
    to_host: ToHost,
    daemons: Mutex<Daemons>,
    baseline: Mutex<Things>,
}

impl Guest {
    fn answer(&self, request: Request) -> Result<Answer> {
        match request {
            Request::Exec {
                argv,
                input,
                seconds,
            } => {
                let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
                Ok(Answer::Finished(command::run_with_input(
                    &argv,
                    &input,
                    Duration::from_secs(seconds),
                )?))
            }
            Request::ReadFile { path } => {
                Ok(Answer::Text(fs::read_to_string(&path).context(path)?))
            }
            Request::WriteFile { path, content } => {
                if let Some(folder) = Path::new(&path).parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(&path, content).context(path)?;
                Ok(Answer::Done)
            }
            Request::Job(job) => self.run_job(&job).map(Answer::Verdict),
            Request::Ping => Ok(Answer::Done),
            Request::Leftovers => Ok(Answer::Leftovers(self.leftovers())),
            Request::Gather { folder } => {
                evidence::gather(Path::new(&folder))?;
                Ok(Answer::Done)
            }
            Request::Start(daemon) => locked(&self.daemons).start(daemon).map(|()| Answer::Done),
            Request::Stop { name } => locked(&self.daemons).stop(&name).map(|()| Answer::Done),
            Request::Kill { name } => locked(&self.daemons).kill(&name).map(|()| Answer::Done),
            Request::Shell { rows, columns } => open_shell(rows, columns).map(|()| Answer::Done),
        }
    }

    fn leftovers(&self) -> BTreeSet<String> {
        leftovers::since(&locked(&self.baseline).clone())
    }

    /// A case in a process of its own. What it leaves is counted before its folders are taken away.
    fn run_job(&self, job: &Job) -> Result<Verdict> {
        let mut running = RunningJob::start(job, &self.to_host)?;
        let failed = running.wait(Duration::from_secs(job.seconds))?;
        let verdict = Verdict {
            failed,
            leftovers: if job.is_counted {
                self.leftovers()
            } else {
                BTreeSet::new()
            },
            value: running.value(),
        };
        case::remove_folders(&job.name);
        Ok(verdict)
    }
}

/// A root shell on the second console, until it ends.
fn open_shell(rows: u16, columns: u16) -> Result<()> {
    let console = "/dev/hvc0";
    let size = format!("stty -F {console} sane rows {rows} cols {columns}");
    command::run(&["sh", "-c", &size], Duration::from_secs(10))?
        .success("setting the terminal's size")?;
    let terminal = || File::options().read(true).write(true).open(console);
    Command::new("setsid")
        .args(["--ctty", "--wait", "bash", "-l"])
        .env("TERM", "xterm-256color")
        .env("PS1", "lab \\w # ")
        .current_dir("/root")
        .stdin(terminal()?)
        .stdout(terminal()?)
        .stderr(terminal()?)
        .status()?;
    Ok(())
}
