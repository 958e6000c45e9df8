//! A host of its own for the tests of open-iscsi's database: real files below a folder that goes with the test.

use std::path::{Path, PathBuf};

use super::database::Database;
use crate::host::Host;

pub(super) struct Rig {
    pub(super) root: tempfile::TempDir,
    pub(super) host: Host,
    pub(super) locks: PathBuf,
}

impl Rig {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            locks: root.path().join("run/sanpath"),
            root,
            host: Host::real(Path::new("/")),
        }
    }

    pub(super) fn database(&self) -> Database<'_> {
        Database {
            host: &self.host,
            root: self.root.path(),
            locks: &self.locks,
        }
    }

    /// Puts a file below the root and returns where it is.
    pub(super) fn make(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}
