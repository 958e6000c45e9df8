//! Bringing back paths whose disks are there and that the map does not have: taken out so that the map could grow, or refused for a size that was
//! not yet right. multipathd hears of them from nobody else. The daemon calls this now and then.
//!
//! Only what already hangs on a session of this machine is looked at. Each path goes through all that a stage asks of it: who it is, its size, and
//! then its place in the map.

use std::sync::Arc;
use std::time::Duration;

use super::error::AttachError;
use super::ledger::Record;
use super::{Engine, Want};
use crate::fabric::WantedPath;
use crate::fault::chain;
use crate::flights::Look;
use crate::iscsi::find_session;
use crate::multipath;
use crate::scsi::{self, DiskState};

/// How long one volume's paths may take; then the round goes on without them.
const PATIENCE: Duration = Duration::from_secs(20);

impl Engine {
    /// Brings back what can be brought back, volume by volume; one that somebody works on is passed over. Returns the paths that are in their maps
    /// again.
    ///
    /// # Errors
    /// When the ledger cannot be read. A path that does not come back is no error of the round.
    pub fn rejoin(&self) -> Result<Vec<WantedPath>, AttachError> {
        let ledger = self.ledger();
        let boot_id = ledger.boot_id()?;
        let mut rejoined = Vec::new();
        for record in self.list_ledger()?.records {
            if record.leaving || record.boot_id != boot_id {
                continue;
            }
            match self.rejoin_volume(&record) {
                Ok(paths) => rejoined.extend(paths),
                Err(error) => {
                    tracing::debug!(
                        key = record.key,
                        error = chain(&error),
                        "paths were not looked for"
                    );
                }
            }
        }
        Ok(rejoined)
    }

    fn rejoin_volume(&self, seen: &Record) -> Result<Vec<WantedPath>, AttachError> {
        if self.left_out(seen).map_err(AttachError::Read)?.is_empty() {
            return Ok(Vec::new());
        }
        let key = &seen.key;
        let lock = self.lock_volume(key, self.host.deadline_in(Duration::ZERO));
        let Some(_volume) = lock.map_err(|source| AttachError::Lock {
            key: key.clone(),
            source,
        })?
        else {
            return Ok(Vec::new());
        };
        // Without the lock it may have been taken away, or have grown.
        let record = self.find_attached(key)?;
        let paths = self.left_out(&record).map_err(AttachError::Read)?;
        self.bring_back(&record, paths)
    }

    /// Wanted paths with a disk that runs and that the volume's map, which there must be, does not have.
    fn left_out(&self, record: &Record) -> std::io::Result<Vec<WantedPath>> {
        let host = &self.host;
        let Some(map) = multipath::find_map(host, &record.export.wwid)? else {
            return Ok(Vec::new());
        };
        let mut paths = Vec::new();
        for path in &record.wanted {
            let Some(session) = find_session(host, path.portal, &path.iqn)? else {
                continue;
            };
            let Some(disk) = scsi::find_disk(host, session.scsi_host, path.lun)? else {
                continue;
            };
            let runs = disk.state(host)? == Some(DiskState::Running);
            if runs && !map.members.contains(&disk.name) {
                paths.push(path.clone());
            }
        }
        Ok(paths)
    }

    fn bring_back(
        &self,
        record: &Record,
        paths: Vec<WantedPath>,
    ) -> Result<Vec<WantedPath>, AttachError> {
        let want = Want {
            key: record.key.clone(),
            export: record.export.clone(),
            wanted: paths.clone(),
            min_paths: 1,
            deadline: self.host.deadline_in(PATIENCE),
            grace: Duration::ZERO,
            payload: record.payload.clone(),
        };
        let claimed = Arc::default();
        let flights = paths
            .iter()
            .map(|path| self.launch(&want, path, &claimed))
            .collect::<Result<Vec<_>, _>>()?;
        let ended = || {
            let flying = |path: &super::ensure::Path| matches!(path.look(), Look::Flying);
            Ok::<_, AttachError>((!flights.iter().any(flying)).then_some(()))
        };
        self.host.wait_for(want.deadline, ended)?;
        let is_back = |path: &super::ensure::Path| matches!(path.look(), Look::Ended(outcome) if outcome.is_ok());
        let back = flights
            .iter()
            .zip(paths)
            .filter(|(flight, _)| is_back(flight));
        Ok(back.map(|(_, path)| path).collect())
    }
}
