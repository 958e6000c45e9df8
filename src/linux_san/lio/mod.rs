//! The kernel's iSCSI target (LIO), through its file tree in configfs.
//!
//! Making a directory makes a kernel object, writing a file sets it up, a symbolic link connects two. Every `ensure_` looks first, so
//! each can be entered again after any crash. Only objects with names of ours are touched. The engine calls this; volumes, nodes
//! and the state file are unknown here.

mod access;
mod backstore;
mod lun;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use backstore::Backstore;
pub(super) use lun::MappedLun;

use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// Loading a module takes well under a second; the machine may be busy booting.
const MODPROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the kernel's target is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LioError {
    /// No configfs, or no module.
    #[error(
        "the kernel offers no target at {0}: configfs must be mounted and target_core_mod loaded"
    )]
    Absent(PathBuf),
    /// The tool that loads modules.
    #[error("loading the kernel's target modules")]
    Modules(#[source] ExecError),
    /// The system refused.
    #[error("{what} {path}")]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel's log has the reason.
    #[error("writing {value:?} to {path}; the kernel's log may say why it was refused")]
    Write {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        value: String,
        #[source]
        source: io::Error,
    },
    /// The kernel's log has the reason. Says nothing of what was written.
    #[error("writing to {path}")]
    Secret {
        /// The attribute.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An object with our name that we did not make so.
    #[error("{path} is {found:?}, expected {expected:?}")]
    Mismatch {
        /// The object.
        path: PathBuf,
        /// As it is.
        found: String,
        /// As it should be.
        expected: String,
    },
}

impl Faulted for LioError {
    /// The intent is on disk before the kernel is touched, so whatever failed may be done by now or at the next start.
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// The kernel's target on this host.
pub(super) struct Lio {
    host: Host,
    root: PathBuf,
    adapter: String,
    /// The numbers of each target's portal groups.
    tags: Vec<u16>,
}

impl Lio {
    /// The tree at `root`, with our backstores under `adapter` and so many portal groups in each target.
    pub(super) fn new(host: &Host, root: &Path, adapter: String, groups: u16) -> Self {
        Self {
            tags: (1..=groups).collect(),
            host: host.clone(),
            root: root.to_owned(),
            adapter,
        }
    }

    /// Loads what the kernel needs for the tree to exist.
    pub(super) fn ensure_ready(&self) -> Result<(), LioError> {
        if self.find(&self.root)?.is_none() {
            let arguments = [
                "-a",
                "-q",
                "configfs",
                "target_core_mod",
                "iscsi_target_mod",
            ];
            let modprobe = Command::new("modprobe", &arguments, MODPROBE_TIMEOUT);
            // Built-in modules make it complain; the tree is what counts.
            self.host.run(&modprobe).map_err(LioError::Modules)?;
        }
        if self.find(&self.root)?.is_none() {
            return Err(LioError::Absent(self.root.clone()));
        }
        // Making this directory loads the fabric's module.
        self.ensure_directory(&self.root.join("iscsi"))
    }

    fn find(&self, path: &Path) -> Result<Option<()>, LioError> {
        let found = self.host.find_stat(path);
        Ok(found
            .map_err(|source| failed("looking at", path, source))?
            .map(drop))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>, LioError> {
        let names = self.host.list(path);
        let names = names.map_err(|source| failed("listing", path, source))?;
        Ok(names.into_iter().map(|name| path.join(name)).collect())
    }

    fn ensure_directory(&self, path: &Path) -> Result<(), LioError> {
        self.host
            .ensure_directory(path)
            .map_err(|source| failed("making", path, source))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), LioError> {
        self.host
            .remove_directory(path)
            .map_err(|source| failed("removing", path, source))
    }

    fn attribute(&self, path: &Path) -> Result<String, LioError> {
        self.host
            .read_attribute(path)
            .map_err(|source| failed("reading", path, source))
    }

    /// Whether the attribute is there and has this value.
    fn shows(&self, path: &Path, value: &str) -> Result<bool, LioError> {
        let found = self.host.find_attribute(path);
        let found = found.map_err(|source| failed("reading", path, source))?;
        Ok(found.as_deref() == Some(value))
    }

    /// Whether the link is there and its target lies at `tail` under the tree.
    fn leads_to(&self, link: &Path, tail: &Path) -> Result<bool, LioError> {
        match self.host.read_link(link) {
            Ok(found) => Ok(found.ends_with(tail)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed("reading the link", link, source)),
        }
    }

    fn write(&self, path: &Path, value: &str) -> Result<(), LioError> {
        self.host
            .write_attribute(path, value.as_bytes())
            .map_err(|source| LioError::Write {
                path: path.to_owned(),
                value: value.to_owned(),
                source,
            })
    }

    fn ensure_attribute(&self, path: &Path, value: &str) -> Result<(), LioError> {
        if self.attribute(path)? == value {
            Ok(())
        } else {
            self.write(path, value)
        }
    }

    /// Makes a link whose target must lie at `tail` under the tree. The kernel shows targets relative to the link.
    fn ensure_link(&self, tail: &Path, link: &Path) -> Result<(), LioError> {
        match self.host.read_link(link) {
            Ok(found) if found.ends_with(tail) => Ok(()),
            Ok(found) => Err(LioError::Mismatch {
                path: link.to_owned(),
                found: found.display().to_string(),
                expected: tail.display().to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self
                .host
                .symlink(&self.root.join(tail), link)
                .map_err(|source| failed("linking", link, source)),
            Err(source) => Err(failed("reading the link", link, source)),
        }
    }

    /// For a LUN's link this is where the kernel waits until everything in flight has landed.
    fn remove_link(&self, link: &Path) -> Result<(), LioError> {
        self.host
            .remove_file(link)
            .map_err(|source| failed("unlinking", link, source))
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> LioError {
    LioError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
