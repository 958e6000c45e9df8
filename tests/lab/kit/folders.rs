//! Where the lab keeps its files on the host: under cargo's target folder, so that `cargo clean` takes them all, except for the
//! sockets of running guests, whose paths must be short.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `target/lab`: results and evidence.
pub fn lab() -> PathBuf {
    // target/TRIPLE/tmp, since the build always names its target.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.ancestors()
        .nth(2)
        .expect("cargo's tmp folder lies two levels inside the target folder")
        .join("lab")
}

/// What is slow to make and worth keeping: `LAB_CACHE`, or else `target/lab/cache`.
pub fn cache() -> PathBuf {
    std::env::var_os("LAB_CACHE").map_or_else(|| lab().join("cache"), PathBuf::from)
}

/// One folder per failed case.
pub fn evidence() -> PathBuf {
    lab().join("evidence")
}

/// Where guests keep their files.
#[derive(Debug, Clone)]
pub struct Place {
    /// Disks and binaries: big.
    pub disks: PathBuf,
    /// Sockets: at most 107 bytes of path.
    pub sockets: PathBuf,
}

impl Place {
    /// A place of its own inside this one.
    pub fn inside(&self, name: &str) -> Result<Place> {
        let place = Place {
            disks: self.disks.join(name),
            sockets: self.sockets.join(name),
        };
        for folder in [&place.disks, &place.sockets] {
            fresh(folder)?;
        }
        Ok(place)
    }
}

/// The folders of one run, removed at its end.
#[derive(Debug)]
pub struct RunFolders(Place);

impl RunFolders {
    pub fn create() -> Result<Self> {
        let process = std::process::id();
        let folders = Place {
            disks: lab().join(format!("run-{process}")),
            sockets: std::env::temp_dir().join(format!("sanpath-lab-{process}")),
        };
        remove_abandoned();
        for folder in [&folders.disks, &folders.sockets] {
            fresh(folder)?;
        }
        Ok(RunFolders(folders))
    }
}

impl RunFolders {
    pub fn place(&self) -> Place {
        self.0.clone()
    }
}

impl Drop for RunFolders {
    fn drop(&mut self) {
        for folder in [&self.0.disks, &self.0.sockets] {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Folders of runs that were killed: disks add up.
fn remove_abandoned() {
    for (parent, prefix) in [(lab(), "run-"), (std::env::temp_dir(), "sanpath-lab-")] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name
                .strip_prefix(prefix)
                .and_then(|process| process.parse::<u32>().ok());
            if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// An empty folder, whatever was there before.
pub fn fresh(folder: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}
