//! An S3 that we did not write, s3s-fs, inside a guest: made on the host by `make s3s-fs`, reachable at a loopback port of the guest alone, with a switch. A case that runs it
//! has a name starting with [`CASES`]; then the program is there.

use std::fs::{self, DirEntry};
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

/// The daemon.
pub const NAME: &str = "object-store";
const ADDRESS: &str = "127.0.0.1";
const PORT: &str = "9000";
/// Where it serves, in clear.
pub const ENDPOINT: &str = "127.0.0.1:9000";
/// The one that it has.
pub const BUCKET: &str = "snapshots";
/// It begins so and is no secret of anybody.
pub const SECRET: &str = "correct-correct-correct";
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
        let store = ObjectStore::at(lab.work_folder().join("object-store"));
        store.prepare()?;
        store.up(lab)?;
        Ok(store)
    }

    /// The one whose things are in this folder of its guest.
    pub fn at(folder: PathBuf) -> Self {
        ObjectStore { folder }
    }

    /// Makes the bucket and somebody who may use it; in the guest.
    pub fn prepare(&self) -> Result<()> {
        fs::create_dir_all(self.bucket())?;
        fs::create_dir_all(self.keys())?;
        fs::write(self.keys().join("AWS_ACCESS_KEY_ID"), "lab")?;
        self.tell_secret(SECRET)
    }

    /// From now on those who read its credentials have this secret, right or wrong.
    pub fn tell_secret(&self, secret: &str) -> Result<()> {
        Ok(fs::write(
            self.keys().join("AWS_SECRET_ACCESS_KEY"),
            secret,
        )?)
    }

    /// From now on nobody is served: its process is gone in the middle of whatever it does.
    pub fn down(&self, lab: &mut Lab) -> Result<()> {
        lab.daemons.kill(NAME)
    }

    /// Serves again what it holds.
    pub fn up(&self, lab: &mut Lab) -> Result<()> {
        lab.daemons.start(self.daemon())?;
        lab.daemons.wait_for_port(NAME, ENDPOINT, START)
    }

    /// How it is started.
    pub fn daemon(&self) -> Daemon {
        let root = self.folder.join("root").display().to_string();
        let argv = [PROGRAM, "--host", ADDRESS, "--port", PORT];
        let keys = ["--access-key", "lab", "--secret-key", SECRET, &root];
        Daemon::new(NAME, argv.into_iter().chain(keys))
    }

    /// What a config file says of it: the archive `away`, with more settings, one a line.
    pub fn config(&self, more: &[&str]) -> String {
        self.config_with(&format!("http://{ENDPOINT}"), BUCKET, more)
    }

    /// The same at another URL and in another bucket.
    pub fn config_with(&self, endpoint: &str, bucket: &str, more: &[&str]) -> String {
        let more = more.iter().map(|line| format!("    {line}\n"));
        format!(
            "archives:\n  away:\n    kind: s3\n    endpoint: {endpoint}\n    bucket: {bucket}\n    credentials: {}\n{}",
            self.keys().display(),
            more.collect::<String>()
        )
    }

    /// How many objects it holds below a folder of the archive.
    pub fn count(&self, folder: &str) -> Result<usize> {
        let mut found = 0;
        each(&self.bucket().join(folder), &mut |_| {
            found += 1;
            Ok(())
        })?;
        Ok(found)
    }

    /// How many bytes all of its objects have.
    pub fn bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        each(&self.bucket(), &mut |file| {
            bytes += file.metadata()?.len();
            Ok(())
        })?;
        Ok(bytes)
    }

    /// One of the objects below a folder of the archive: its file, and its name.
    pub fn any_object(&self, folder: &str) -> Result<(PathBuf, String)> {
        let mut at = self.bucket().join(folder);
        while at.is_dir() {
            let mut entries = fs::read_dir(&at)?.collect::<Result<Vec<_>, _>>()?;
            entries.retain(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
            let entry = entries.first().context("an empty folder in the store")?;
            at = entry.path();
        }
        let name = at.strip_prefix(self.bucket())?.display().to_string();
        Ok((at, name))
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

/// Shows every object below a folder, which may be absent.
fn each(folder: &Path, show: &mut dyn FnMut(&DirEntry) -> Result<()>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        // Names that begin with a dot are its own.
        let is_own = entry.file_name().to_string_lossy().starts_with('.');
        match entry.file_type()?.is_dir() {
            true => each(&entry.path(), show)?,
            false if is_own => {}
            false => show(&entry)?,
        }
    }
    Ok(())
}
