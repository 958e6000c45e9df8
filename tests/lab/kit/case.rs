//! What a case is, and what it is given. Cases run inside a guest, in a process of their own: a case that hangs or panics
//! takes nothing else down. To write one: a function `fn(&mut Lab) -> anyhow::Result<()>`, an entry in its file's `CASES`, and that
//! list in `cases/mod.rs`.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::command::{self, Finished};
use super::daemons::Daemons;
use super::guest_setup;
use super::wire::JobLine;

/// The program under test, inside every guest.
pub const SANPATH: &str = "/lab/sanpath";

/// One thing to prove. The name is unique and is what the command line selects by.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// After this the case is killed and has failed. Generous: an emulated guest is twenty times slower than a real one. Multiplied by the scale, as
    /// rounds are.
    pub deadline: Duration,
    pub run: fn(&mut Lab) -> Result<()>,
}

/// Something a fleet case has a guest do: it may take arguments and give a value back.
#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub run: fn(&mut Lab, Value) -> Result<Value>,
}

/// What a case works with inside its guest.
pub struct Lab {
    name: String,
    /// 1 in the everyday run; long runs multiply their rounds by it.
    pub scale: u32,
    /// For what a case leaves to chance: `LAB_SEED`, or another one in every run. Never 0.
    pub seed: u64,
    /// Killed when the case ends.
    pub daemons: Daemons,
}

impl Lab {
    pub fn new(name: &str, scale: u32, seed: Option<u64>) -> Result<Self> {
        let any = || RandomState::new().build_hasher().finish();
        let lab = Lab {
            name: name.to_owned(),
            scale,
            seed: seed.unwrap_or_else(any).max(1),
            daemons: Daemons::default(),
        };
        for folder in [lab.work_folder(), lab.pool_folder()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("creating {}", folder.display()))?;
        }
        Ok(lab)
    }

    /// Tells a person what just happened. The demo consists of these lines; other cases show them only when they fail.
    pub fn story(&self, line: impl AsRef<str>) {
        say(&JobLine::Story(line.as_ref().to_owned()));
    }

    /// A folder of this case's own in the guest's memory, empty at its start and removed after it.
    pub fn work_folder(&self) -> PathBuf {
        Path::new("/work").join(&self.name)
    }

    /// A folder of this case's own on the pool's file system, likewise.
    pub fn pool_folder(&self) -> PathBuf {
        Path::new(guest_setup::POOL).join(&self.name)
    }

    /// This node's initiator name.
    pub fn initiator(&self) -> Result<String> {
        let host = nix::unistd::gethostname()?;
        Ok(guest_setup::initiator_name(&host.to_string_lossy()))
    }

    /// Runs a program that must succeed; its standard output.
    pub fn execute(&self, argv: &[&str]) -> Result<String> {
        self.run(argv)?.success(&argv.join(" "))
    }

    /// Runs a program, however it ends.
    pub fn run(&self, argv: &[&str]) -> Result<Finished> {
        command::run(argv, Duration::from_secs(60))
    }

    /// Asks again until `look` finds something, or fails with the last thing that `look` saw.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + deadline;
        loop {
            let seen = look();
            if let Ok(Some(found)) = seen {
                return Ok(found);
            }
            if Instant::now() > until {
                seen.with_context(|| format!("waiting for {what}"))?;
                bail!("{what}: not within {} s", deadline.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes the folders of a finished case.
pub fn remove_folders(name: &str) {
    for parent in [Path::new("/work"), Path::new(guest_setup::POOL)] {
        let _ = fs::remove_dir_all(parent.join(name));
    }
}

/// Writes one line to the agent that started this process.
pub fn say(line: &JobLine) {
    let mut text = serde_json::to_string(line).expect("strings and JSON values always serialise");
    text.push('\n');
    // Without an agent there is nobody to tell.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}
