//! How the paths of a volume stand, for people.

use std::io;

use super::Engine;
use super::error::AttachError;
use crate::fabric::WantedPath;
use crate::iscsi::{SessionState, find_session};
use crate::multipath::{self, PathView};
use crate::scsi::{self, Hctl};

/// One wanted path as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRow {
    /// Portal, target and LUN.
    pub path: WantedPath,
    /// The session's state; `None` without one.
    pub session: Option<SessionState>,
    /// `sdX`; `None` without a disk.
    pub disk: Option<String>,
    /// Where it hangs.
    pub hctl: Option<Hctl>,
    /// The map that it is in, by multipathd's word.
    pub map: Option<String>,
    /// What dm does with it: `active`, `failed`.
    pub dm_state: Option<String>,
    /// What the path checker found: `ready`, `faulty`, `ghost`.
    pub checker: Option<String>,
}

impl Engine {
    /// The path table of `key`; empty without a record. Starts no process. A multipathd that does not answer leaves its columns empty.
    ///
    /// # Errors
    /// When the ledger or sysfs cannot be read.
    pub fn paths(&self, key: &str) -> Result<Vec<PathRow>, AttachError> {
        let Some(record) = self.ledger().find(key)? else {
            return Ok(Vec::new());
        };
        let views = multipath::show_paths(&self.host).unwrap_or_default();
        record
            .wanted
            .iter()
            .map(|path| self.row(path, &views).map_err(AttachError::Read))
            .collect()
    }

    fn row(&self, path: &WantedPath, views: &[PathView]) -> io::Result<PathRow> {
        let session = find_session(&self.host, &path.nexus())?;
        let disk = match &session {
            Some(session) => scsi::find_disk(&self.host, session.scsi_host, path.lun)?,
            None => None,
        };
        let view = disk
            .as_ref()
            .and_then(|disk| views.iter().find(|view| view.disk == disk.name));
        Ok(PathRow {
            path: path.clone(),
            session: session.map(|session| session.state),
            hctl: disk.as_ref().map(|disk| disk.hctl),
            map: view.and_then(|view| view.map.clone()),
            dm_state: view.map(|view| view.dm_state.clone()),
            checker: view.map(|view| view.checker.clone()),
            disk: disk.map(|disk| disk.name),
        })
    }
}
