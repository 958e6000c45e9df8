//! Daemons inside a guest: started with a log file, stopped, killed, waited for. A case owns those it starts; whatever still
//! runs when it ends is killed with it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};

use super::command;

/// Where every daemon's log goes; part of the evidence.
pub const LOGS: &str = "/var/log/sanpath";

/// How to start a daemon. The name is its log's name and how it is stopped.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Daemon {
    pub name: String,
    pub argv: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub network: Option<String>,
}

impl Daemon {
    pub fn new<S: Into<String>>(name: &str, argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Daemon {
            name: name.to_owned(),
            argv,
            ..Daemon::default()
        }
    }

    pub fn with_environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Start it in this network namespace. Only the network changes: its mounts, configfs with them, stay the guest's own.
    pub fn in_network(mut self, namespace: &str) -> Self {
        self.network = Some(namespace.to_owned());
        self
    }

    pub(super) fn command(&self) -> Result<Command> {
        let mut argv = self.argv.clone();
        if let Some(network) = &self.network {
            argv.splice(
                0..0,
                [
                    "nsenter".to_owned(),
                    format!("--net=/run/netns/{network}"),
                    "--".to_owned(),
                ],
            );
        }
        let (program, arguments) = argv.split_first().context("a daemon without a command")?;
        fs::create_dir_all(LOGS)?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(log_of(&self.name))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }
}

/// The log file of a daemon.
pub fn log_of(name: &str) -> PathBuf {
    Path::new(LOGS).join(format!("{name}.log"))
}

struct Running {
    daemon: Daemon,
    child: Child,
}

/// The daemons of one owner.
#[derive(Default)]
pub struct Daemons {
    running: BTreeMap<String, Running>,
}

impl Daemons {
    /// Starts a daemon; one of that name must not be running.
    pub fn start(&mut self, daemon: Daemon) -> Result<()> {
        if self.is_running(&daemon.name) {
            bail!("{} is running already", daemon.name);
        }
        let child = daemon
            .command()?
            .spawn()
            .with_context(|| format!("starting {}", daemon.name))?;
        self.running
            .insert(daemon.name.clone(), Running { daemon, child });
        Ok(())
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self, name: &str) -> bool {
        self.running
            .get_mut(name)
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// Its process id, to signal or inspect it.
    pub fn process_id(&self, name: &str) -> Result<u32> {
        Ok(self
            .running
            .get(name)
            .with_context(|| format!("{name} was never started"))?
            .child
            .id())
    }

    /// SIGTERM, then the exit status by deadline; SIGKILL and an error after it.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let mut running = self
            .running
            .remove(name)
            .with_context(|| format!("{name} was never started"))?;
        let _ = kill(command::pid_of(&running.child), Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(20);
        match command::wait_until(&mut running.child, until)? {
            Some(Some(0)) => Ok(()),
            Some(None) => bail!("{name} was ended by a signal instead of stopping in its own way"),
            Some(Some(code)) => bail!("{name} stopped with status {code}"),
            None => {
                end(&mut running.child);
                bail!("{name} did not stop within 20 s");
            }
        }
    }

    /// SIGKILL to the daemon alone: programs it started live on, as they would after a crash.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut running = self
            .running
            .remove(name)
            .with_context(|| format!("{name} was never started"))?;
        running.child.kill()?;
        running.child.wait()?;
        Ok(())
    }

    /// Stops it in its own way and starts it again as it was started.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let daemon = self
            .running
            .get(name)
            .with_context(|| format!("{name} was never started"))?
            .daemon
            .clone();
        self.stop(name)?;
        self.start(daemon)
    }

    /// Kills everything that still runs, with all it started.
    pub fn end_all(&mut self) {
        for running in self.running.values_mut() {
            end(&mut running.child);
        }
        self.running.clear();
    }

    /// Waits until the daemon's Unix socket accepts a connection.
    pub fn wait_for_socket(&mut self, name: &str, socket: &Path, deadline: Duration) -> Result<()> {
        self.wait_for_answer(name, deadline, || UnixStream::connect(socket).is_ok())
            .with_context(|| format!("waiting for {}", socket.display()))
    }

    /// Waits until the daemon's TCP port (`address:port`) accepts a connection.
    pub fn wait_for_port(&mut self, name: &str, address: &str, deadline: Duration) -> Result<()> {
        let address = address
            .parse()
            .with_context(|| format!("{address} is not an address and a port"))?;
        let patience = Duration::from_secs(1);
        self.wait_for_answer(name, deadline, || {
            TcpStream::connect_timeout(&address, patience).is_ok()
        })
        .with_context(|| format!("waiting for {address}"))
    }

    fn wait_for_answer(
        &mut self,
        name: &str,
        deadline: Duration,
        answers: impl Fn() -> bool,
    ) -> Result<()> {
        let until = Instant::now() + deadline;
        while !answers() {
            if !self.is_running(name) {
                bail!(
                    "{name} ended before it answered; its log ends with: {}",
                    log_tail(name)
                );
            }
            if Instant::now() > until {
                bail!(
                    "{name} did not answer within {} s; its log ends with: {}",
                    deadline.as_secs(),
                    log_tail(name)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        self.end_all();
    }
}

fn end(child: &mut Child) {
    command::kill_group(child);
    let _ = child.wait();
}

fn log_tail(name: &str) -> String {
    let log = fs::read_to_string(log_of(name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
