//! Bringing back paths whose disks are there and that the map does not have: taken out so that the map could grow, or refused for a size that was
//! not yet right. multipathd hears of them from nobody else. The daemon calls this now and then.
//!
//! So does a session that cannot come back, for the credentials it was logged in with are refused since they were changed: it is made anew. And
//! multipath's entries for single volumes follow the ledger again, should they not.
//!
//! Only what already hangs on a session of this machine is looked at. Each path goes through all that a stage asks of it: who it is, its size, and
//! then its place in the map.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::AttachError;
use super::ledger::Record;
use super::{Engine, Want};
use crate::deadline::Moment;
use crate::fabric::{Nexus, WantedPath};
use crate::fault::chain;
use crate::flights::Look;
use crate::iscsi::{Login, SessionState, find_session, probe};
use crate::multipath;
use crate::scsi::{self, DiskState};

/// How long the lock of a portal, or of open-iscsi's database, may be waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// A login with new credentials that is refused is not repeated before: some targets lock out who tries too often.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// How long one volume's paths may take; then the round goes on without them.
const PATIENCE: Duration = Duration::from_secs(30);
/// A portal that takes longer to accept a connection is dead, and no login would help.
const PROBE: Duration = Duration::from_secs(1);

impl Engine {
    /// Brings back what can be brought back, volume by volume; one that somebody works on is passed over. Returns the paths that are in their maps
    /// again.
    ///
    /// # Errors
    /// When the ledger cannot be read. A path that does not come back is no error of the round.
    pub fn rejoin(&self) -> Result<Vec<WantedPath>, AttachError> {
        let ledger = self.ledger();
        let boot_id = ledger.boot_id()?;
        self.remove_stale_lock();
        self.keep_retries();
        let mut rejoined = Vec::new();
        for record in self.list_ledger()?.records {
            if record.leaving || record.boot_id != boot_id {
                continue;
            }
            self.keep_records_current(&record);
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

    /// With a lock that a dead process of ours left in open-iscsi's database, nobody on this host can log in.
    fn remove_stale_lock(&self) {
        let deadline = self.host.deadline_in(LOCK_PATIENCE);
        let removed = self
            .shared
            .initiator
            .remove_stale_lock(&self.host, deadline);
        if let Err(error) = removed {
            let error = chain(&error);
            tracing::warn!(error, "open-iscsi's lock could not be looked after");
        }
    }

    /// Changed credentials go into the records of sessions that are up, for their next login.
    fn keep_records_current(&self, record: &Record) {
        let chap = match (self.chap_of)(&record.key) {
            Ok(chap) => chap,
            Err(error) => {
                let error = chain(&*error);
                tracing::warn!(
                    key = record.key,
                    error,
                    "no credentials: what is logged in stays, and cannot log in again"
                );
                return;
            }
        };
        for path in &record.wanted {
            let deadline = self.host.deadline_in(LOCK_PATIENCE);
            let initiator = &self.shared.initiator;
            let login = Login {
                nexus: &path.nexus(),
                chap: chap.as_ref(),
            };
            initiator.keep_record_current(&self.host, login, deadline);
        }
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

    /// Wanted paths with a disk that runs and that the volume's map, which there must be, does not have; and those whose session has to be made anew.
    fn left_out(&self, record: &Record) -> std::io::Result<Vec<WantedPath>> {
        let host = &self.host;
        let Some(map) = multipath::find_map(host, &record.export.wwid)? else {
            return Ok(Vec::new());
        };
        let chap = (self.chap_of)(&record.key).ok();
        let initiator = &self.shared.initiator;
        let mut paths = Vec::new();
        for path in &record.wanted {
            let nexus = path.nexus();
            let Some(session) = find_session(host, &nexus)? else {
                if self.is_due(path) {
                    paths.push(path.clone());
                }
                continue;
            };
            let login = |chap| Login {
                nexus: &nexus,
                chap,
            };
            if let Some(chap) = &chap
                && initiator.is_outdated(host, &session, login(chap.as_ref()))
                && probe(host, &nexus, PROBE).is_ok()
            {
                self.note_renewal(path, Duration::ZERO);
                paths.push(path.clone());
                continue;
            }
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
            no_path_retry: record.no_path_retry,
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
        for path in &paths {
            self.judge_renewal(path)?;
        }
        let is_back = |path: &super::ensure::Path| matches!(path.look(), Look::Ended(outcome) if outcome.is_ok());
        let back = flights
            .iter()
            .zip(paths)
            .filter(|(flight, _)| is_back(flight));
        Ok(back.map(|(_, path)| path).collect())
    }

    // ---- sessions made anew -----------------------------------------------------------------------------------------------

    /// Whether the path's session was ended to be made anew, and it is time to try that again.
    fn is_due(&self, path: &WantedPath) -> bool {
        let renewals = self.renewals();
        let due = renewals.get(&path.nexus());
        due.is_some_and(|due| self.host.now() >= *due)
    }

    fn note_renewal(&self, path: &WantedPath, pause: Duration) {
        let due = self.host.now().after(pause);
        self.renewals().insert(path.nexus(), due);
    }

    /// A session that is up is no longer to be made anew; one that is not there is, later.
    fn judge_renewal(&self, path: &WantedPath) -> Result<(), AttachError> {
        let nexus = path.nexus();
        if !self.renewals().contains_key(&nexus) {
            return Ok(());
        }
        let session = find_session(&self.host, &nexus);
        match session.map_err(AttachError::Read)? {
            Some(session) if session.state == SessionState::LoggedIn => {
                self.renewals().remove(&nexus);
            }
            Some(_) => {}
            None => self.note_renewal(path, RENEW_AGAIN),
        }
        Ok(())
    }

    fn renewals(&self) -> MutexGuard<'_, BTreeMap<Nexus, Moment>> {
        let renewals = self.shared.renewals.lock();
        renewals.unwrap_or_else(PoisonError::into_inner)
    }
}
