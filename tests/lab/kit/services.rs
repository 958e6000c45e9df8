//! The guest's own iscsid and multipathd, kept running as an init system would: one that ends is started again, unless a case
//! holds it down. Started by `guest_setup`; cases reach them through `Lab`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::command;
use super::daemons::Daemon;

/// How soon a service that ended is started again.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// Notes of services that are not to run.
const HELD: &str = "/run/lab-held";

/// A host service that the lab keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Iscsid,
    Multipathd,
}

impl Service {
    pub const ALL: [Service; 2] = [Service::Iscsid, Service::Multipathd];

    pub fn name(self) -> &'static str {
        match self {
            Service::Iscsid => "iscsid",
            Service::Multipathd => "multipathd",
        }
    }

    /// Keeps it running from now on; its log is kept like every daemon's.
    pub fn supervise(self) {
        let foreground = match self {
            Service::Iscsid => "-f",
            Service::Multipathd => "-d",
        };
        let daemon = Daemon::new(self.name(), [self.name(), foreground]);
        std::thread::spawn(move || {
            loop {
                if !self.is_held_down()
                    && let Ok(mut child) = daemon
                        .command()
                        .and_then(|mut command| Ok(command.spawn()?))
                {
                    let _ = child.wait();
                }
                std::thread::sleep(RESTART_AFTER);
            }
        });
    }

    /// Ends it with this signal (`KILL`, `TERM`) and does not let it come back before [`Service::release`].
    pub fn hold_down(self, signal: &str) -> Result<()> {
        fs::create_dir_all(HELD)?;
        fs::write(self.note(), "")?;
        self.signal(signal)?;
        self.wait_until(false)
    }

    /// Lets it run again and waits until it answers.
    pub fn release(self) -> Result<()> {
        fs::remove_file(self.note())?;
        self.wait_until(true)
    }

    /// Sends it a signal. Whatever ends it starts it anew.
    pub fn signal(self, signal: &str) -> Result<()> {
        let argv = ["pkill", &format!("-{signal}"), "-x", self.name()];
        command::run(&argv, Duration::from_secs(20))?.success("pkill")?;
        Ok(())
    }

    /// Whether a case holds it down.
    pub fn is_held_down(self) -> bool {
        self.note().exists()
    }

    /// Waits until it answers, or until it no longer does.
    pub fn wait_until(self, answering: bool) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.answers() != answering {
            if Instant::now() > until {
                let wanted = if answering { "answer" } else { "end" };
                bail!("{} did not {wanted} within 60 s", self.name());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    fn note(self) -> PathBuf {
        Path::new(HELD).join(self.name())
    }

    // Looking at sockets costs nothing; a process would cost an emulated guest 50 ms.
    fn answers(self) -> bool {
        let socket = match self {
            Service::Iscsid => "@ISCSIADM_ABSTRACT_NAMESPACE",
            Service::Multipathd => "@/org/kernel/linux/storage/multipathd",
        };
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        sockets
            .lines()
            .any(|line| line.split_whitespace().last() == Some(socket))
    }
}
