//! Disks under a leaving volume's LUN that are no volume's.
//!
//! A SAN that gives a LUN from one volume to the next, or shows the wrong one, leaves a disk that carries another WWID than what was looked for. The volume it is noted as has left
//! or never came, so nobody would ever take it away: whoever had the LUN does, once he leaves.

use std::time::Duration;

use super::Engine;
use super::error::DetachError;
use super::path::users_of;
use crate::deadline::Deadline;
use crate::fabric::{WantedPath, Wwid};
use crate::scsi::{DiskLife, DiskState};
use crate::{iscsi, scsi};

/// They are not the volume: its detach does not wait long for them.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Takes away what stands at the LUNs of `paths` and is neither in the ledger nor in use. That it fails fails nothing else: the disk is in nobody's way but that of the next volume under its
    /// LUN, which takes it away itself.
    pub(super) fn remove_strays(&self, paths: &[WantedPath], deadline: Deadline) {
        let until = deadline.at_most(self.host.now(), PATIENCE);
        for path in paths {
            if let Err(error) = self.remove_stray(path, until) {
                let error = crate::fault::chain(&error);
                tracing::warn!(path = %path.nexus(), lun = %path.lun, error, "a disk of no volume stays under this LUN");
            }
        }
    }

    fn remove_stray(&self, path: &WantedPath, until: Deadline) -> Result<(), DetachError> {
        let Some((life, noted)) = self.find_stray(path)? else {
            return Ok(());
        };
        let disk = &life.disk;
        tracing::warn!(disk = disk.name, hctl = %disk.hctl, %noted, "removing a disk that is of no volume here");
        self.have_dropped(&disk.name);
        self.remove_disks(&noted, &[life], until)
    }

    /// The disk there, and whose it is by the kernel's note. One that is blocked would have to be waited for, and one without a note may yet become anybody's.
    fn find_stray(&self, path: &WantedPath) -> Result<Option<(DiskLife, Wwid)>, DetachError> {
        let host = &self.host;
        let session = iscsi::find_session(host, &self.nexus_of(path)).map_err(DetachError::Read)?;
        let Some(session) = session else {
            return Ok(None);
        };
        let disk = scsi::find_disk(host, session.scsi_host, path.lun).map_err(DetachError::Read)?;
        let Some(disk) = disk else {
            return Ok(None);
        };
        let life = disk.life(host).map_err(DetachError::Read)?;
        let Some(noted) = disk.noted_wwid(host).map_err(DetachError::Read)? else {
            return Ok(None);
        };
        let is_blocked = disk.state(host).map_err(DetachError::Read)? == Some(DiskState::Blocked);
        if is_blocked || self.is_anybodys(&noted)? {
            return Ok(None);
        }
        let users = users_of(host, &disk).map_err(DetachError::Read)?;
        Ok(users.is_empty().then_some((life, noted)))
    }

    /// A record that cannot be read may be this volume's.
    fn is_anybodys(&self, wwid: &Wwid) -> Result<bool, DetachError> {
        let listing = self.ledger().list()?;
        let is_its = |record: &super::Record| record.export.wwid == *wwid;
        Ok(!listing.unread.is_empty() || listing.records.iter().any(is_its))
    }
}
