//! Volumes whose I/O waits otherwise than the host's multipath is set up for: their entries in multipath's configuration follow the ledger.
//!
//! The file is made from all records that there are, whatever their state, so that no order of calls, crash or second process can lose an entry that a
//! map still needs. One that is left over says something of a WWID that is not here; the next look at the ledger takes it out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::AttachError;
use super::ledger::Listing;
use super::{Engine, LedgerError, Want};
use crate::deadline::Deadline;
use crate::fabric::{NoPathRetry, Wwid};
use crate::fault::chain;
use crate::host::LockGuard;
use crate::multipath;

/// How errors call what the lock is for.
const FILE: &str = "multipath's configuration";
/// Who leaves waits no longer for the file; without it his entry stays a little.
const LEAVING: Duration = Duration::from_secs(10);

impl Engine {
    /// Before the first path of a volume is looked for, so that its map is made as it should be. Its record is there already. Only looks when all is
    /// in place.
    pub(super) fn ensure_retry(&self, want: &Want) -> Result<(), AttachError> {
        let Some(wanted) = want.no_path_retry else {
            return Ok(());
        };
        {
            let _file = self.lock_drop_in(want.deadline)?;
            self.write_drop_in(None)?;
        }
        // Many at once ask it many times, and it reads once or twice: what it has been asked for already it is not asked again (`schedule_reconfigure`).
        let wwid = &want.export.wwid;
        let drop_in = &self.shared.drop_in;
        drop_in.ensure_retry(&self.host, wwid, wanted, want.deadline)?;
        Ok(())
    }

    /// Once its map is there.
    pub(super) fn verify_retry(&self, want: &Want) -> Result<(), AttachError> {
        if let Some(wanted) = want.no_path_retry {
            let wwid = &want.export.wwid;
            let drop_in = &self.shared.drop_in;
            drop_in.verify_retry(&self.host, wwid, wanted, want.deadline)?;
        }
        Ok(())
    }

    /// Removes the record of a volume that is gone, and before it its entry. An entry that stays does no harm and keeps nobody from leaving.
    pub(super) fn remove_record(
        &self,
        key: &str,
        retry: Option<NoPathRetry>,
        deadline: Deadline,
    ) -> Result<(), LedgerError> {
        // Until the record is gone too: somebody else would write the entry again.
        let mut _file = None;
        if retry.is_some() {
            let deadline = deadline.at_most(self.host.now(), LEAVING);
            match self.lock_drop_in(deadline) {
                Ok(file) => {
                    _file = Some(file);
                    self.follow_ledger(Some(key));
                }
                Err(error) => tell(&error),
            }
        }
        self.ledger().remove(key)
    }

    /// Makes the file follow the ledger, of which `listing` was just read, after a loss of either or a death between the two. For the daemon, now and
    /// then: while all is well it costs one look. Whoever is changing either at this moment makes it right himself.
    pub(super) fn keep_retries(&self, listing: &Listing) {
        let drop_in = &self.shared.drop_in;
        match drop_in.holds(&self.host, &entries_of(listing, None)) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => return tell(&error),
        }
        match self.lock_drop_in(self.host.deadline_in(Duration::ZERO)) {
            Ok(_file) => self.follow_ledger(None),
            // Somebody is at it.
            Err(AttachError::Locked { .. }) => {}
            Err(error) => tell(&error),
        }
    }

    fn follow_ledger(&self, without: Option<&str>) {
        match self.write_drop_in(without) {
            // Somebody had taken an entry away, and multipathd may have read that.
            Ok(true) => {
                if let Err(error) = multipath::reconfigure(&self.host) {
                    tell(&error);
                }
            }
            Ok(false) => {}
            Err(error) => tell(&error),
        }
    }

    /// Whether there is an entry that was not there before.
    fn write_drop_in(&self, without: Option<&str>) -> Result<bool, AttachError> {
        let entries = entries_of(&self.list_ledger()?, without);
        Ok(self.shared.drop_in.ensure(&self.host, &entries)?)
    }

    fn lock_drop_in(&self, deadline: Deadline) -> Result<LockGuard, AttachError> {
        let locks = &self.shared.dirs.locks;
        let locked = self
            .host
            .ensure_directory(locks)
            .and_then(|()| self.host.lock(&locks.join("multipath.lock"), deadline));
        let key = FILE.to_owned();
        match locked {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(AttachError::Locked { key }),
            Err(source) => Err(AttachError::Lock { key, source }),
        }
    }
}

/// What the file is to hold: the records' word, and of those that cannot be read what they seem to say.
fn entries_of(listing: &Listing, without: Option<&str>) -> BTreeMap<Wwid, NoPathRetry> {
    let records = listing.records.iter();
    let records = records
        .filter(|record| Some(record.key.as_str()) != without)
        .filter_map(|record| Some((record.export.wwid.clone(), record.no_path_retry?)));
    let unread = listing.unread.iter();
    let guessed = unread.filter_map(|unread| unread.retry.clone());
    guessed.chain(records).collect()
}

fn tell(error: &dyn std::error::Error) {
    let error = chain(error);
    tracing::warn!(
        error,
        "the volumes' entries in multipath's configuration were not brought up to date"
    );
}
