//! An S3 that we did not write, s3s-fs, inside a guest: made on the host by `make s3s-fs`, reachable at a loopback port of the guest alone, with a switch. A case that runs it
//! has a name starting with [`CASES`]; then the program is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::case::Lab;
use super::command;
use super::daemons::Daemon;

/// Cases whose name starts so find the program at [`PROGRAM`].
pub const CASES: &str = "archive";

/// Inside the guest.
pub const PROGRAM: &str = "/lab/s3s-fs";

const NAME: &str = "object-store";
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 9000;
const BUCKET: &str = "snapshots";
/// It begins so and is no secret of anybody.
const SECRET: &str = "correct-correct-correct";
const START: Duration = Duration::from_secs(90);

/// The program on the host: there, or built once.
pub fn ensure() -> Result<PathBuf> {
    let argv = [
        "make",
        "--silent",
        "-C",
        env!("CARGO_MANIFEST_DIR"),
        "s3s-fs",
    ];
    let said = command::run(&argv, Duration::from_secs(30 * 60))?.success("make s3s-fs")?;
    let path = said.lines().last().context("make s3s-fs says no path")?;
    Ok(PathBuf::from(path))
}

/// The store of one case: its objects are files in the guest's memory.
pub struct ObjectStore {
    folder: PathBuf,
}

impl ObjectStore {
    /// Starts it, with a bucket and somebody who may use it.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        let store = ObjectStore {
            folder: lab.work_folder().join("object-store"),
        };
        fs::create_dir_all(store.bucket())?;
        fs::create_dir_all(store.keys())?;
        fs::write(store.keys().join("AWS_ACCESS_KEY_ID"), "lab")?;
        fs::write(store.keys().join("AWS_SECRET_ACCESS_KEY"), SECRET)?;
        store.up(lab)?;
        Ok(store)
    }

    /// From now on nobody is served: its process is gone in the middle of whatever it does.
    pub fn down(&self, lab: &mut Lab) -> Result<()> {
        lab.daemons.kill(NAME)
    }

    /// Serves again what it holds.
    pub fn up(&self, lab: &mut Lab) -> Result<()> {
        let port = PORT.to_string();
        let root = self.folder.join("root").display().to_string();
        let argv = [PROGRAM, "--host", ADDRESS, "--port", &port];
        let keys = ["--access-key", "lab", "--secret-key", SECRET, &root];
        lab.daemons
            .start(Daemon::new(NAME, argv.into_iter().chain(keys)))?;
        let address = format!("{ADDRESS}:{PORT}");
        lab.daemons.wait_for_port(NAME, &address, START)
    }

    /// What a config file says of it: the archive `away`, with more settings, one a line.
    pub fn config(&self, more: &[&str]) -> String {
        let more = more.iter().map(|line| format!("    {line}\n"));
        format!(
            "archives:\n  away:\n    kind: s3\n    endpoint: http://{ADDRESS}:{PORT}\n    bucket: {BUCKET}\n    credentials: {}\n{}",
            self.keys().display(),
            more.collect::<String>()
        )
    }

    /// How many objects it holds below a folder of the archive.
    pub fn count(&self, folder: &str) -> Result<usize> {
        count(&self.bucket().join(folder))
    }

    /// Where the objects below a folder of the archive are.
    pub fn folder_of(&self, folder: &str) -> PathBuf {
        self.bucket().join(folder)
    }

    fn bucket(&self) -> PathBuf {
        self.folder.join("root").join(BUCKET)
    }

    fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }
}

fn count(folder: &Path) -> Result<usize> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(0);
    };
    let mut found = 0;
    for entry in entries {
        let entry = entry?;
        // Names that begin with a dot are its own.
        let is_own = entry.file_name().to_string_lossy().starts_with('.');
        found += match entry.file_type()?.is_dir() {
            true => count(&entry.path())?,
            false => usize::from(!is_own),
        };
    }
    Ok(found)
}
