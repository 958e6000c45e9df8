//! Taking a volume away. Its owner has unmounted it before.

use super::error::DetachError;
use super::release::Care;
use super::{Engine, Record};
use crate::deadline::Deadline;
use crate::fabric::Wwid;
use crate::host::LockGuard;

/// Whether a call had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was so already.
    Already,
    /// It was made so.
    Changed,
}

impl Engine {
    /// Makes sure that nothing of `key` is on this machine: `leaving` is made durable first, so that whoever comes late removes what he finds; the
    /// record goes last. Sessions stay, but those to a target of its own. Can be repeated after a crash at any point.
    ///
    /// # Errors
    /// See [`DetachError`]. A failed flush is one: its data would be lost.
    pub fn detach(&self, key: &str, deadline: Deadline) -> Result<Outcome, DetachError> {
        let _volume = self.take_volume(key, deadline)?;
        self.leave(key, deadline, Care::Flush)
    }

    /// The detach itself, for one who has the volume's lock.
    pub(super) fn leave(
        &self,
        key: &str,
        deadline: Deadline,
        care: Care,
    ) -> Result<Outcome, DetachError> {
        let ledger = self.ledger();
        let Some(record) = ledger.find(key)? else {
            return Ok(Outcome::Already);
        };
        let (wwid, retry) = (record.export.wwid.clone(), record.no_path_retry);
        let own_target = record.export.own_target;
        let paths = record.wanted.clone();
        if !record.leaving {
            ledger.write(&Record {
                leaving: true,
                ..record
            })?;
        }
        self.release(&wwid, deadline, care)?;
        self.remove_strays(&paths, deadline);
        self.remove_record(key, retry, deadline)?;
        if own_target {
            let sessions: Vec<_> = paths.iter().map(|path| self.nexus_of(path)).collect();
            self.end_sessions(&sessions, deadline);
        }
        Ok(Outcome::Changed)
    }

    /// The same for a volume of which no record is left; only what carries its WWID is removed.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub fn detach_unrecorded(
        &self,
        wwid: &Wwid,
        deadline: Deadline,
    ) -> Result<Outcome, DetachError> {
        let _volume = self.take_volume(wwid.as_str(), deadline)?;
        if self.release(wwid, deadline, Care::Flush)? {
            Ok(Outcome::Changed)
        } else {
            Ok(Outcome::Already)
        }
    }

    pub(super) fn take_volume(
        &self,
        key: &str,
        deadline: Deadline,
    ) -> Result<LockGuard, DetachError> {
        self.lock_volume(key, deadline)
            .map_err(|source| DetachError::Lock {
                key: key.to_owned(),
                source,
            })?
            .ok_or_else(|| DetachError::Locked {
                key: key.to_owned(),
            })
    }
}
