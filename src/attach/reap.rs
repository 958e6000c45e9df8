//! Ending sessions that nobody has used for a while. Only those whose record we made, and never one with a disk under it, whoever's.

use std::collections::BTreeSet;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use super::Engine;
use super::error::DetachError;
use crate::deadline::Deadline;
use crate::fabric::Nexus;
use crate::fault::chain;
use crate::iscsi::{OwnRecord, Session, find_recorded_session};
use crate::scsi;

/// How long one logout may wait for its portal.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a detach waits for its volume's own sessions to end.
const LOGOUT: Duration = Duration::from_secs(15);

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Sessions that were ended, with their records.
    pub ended: Vec<Nexus>,
    /// Those that could not be, and why.
    pub failed: Vec<(Nexus, String)>,
}

impl Engine {
    /// Ends the sessions of ours that have been idle for `idle`: no disk under them, wanted by no record. Call it now and then; the time since when
    /// a session is idle is kept in memory, so a restart begins it anew.
    ///
    /// # Errors
    /// When our notes, the ledger or sysfs cannot be read. A session that does not end is no error of the round.
    pub fn reap_idle(&self, idle: Duration) -> Result<Reaped, DetachError> {
        let initiator = &self.shared.initiator;
        let own = initiator
            .own_records(&self.host)
            .map_err(DetachError::Records)?;
        let mut reaped = Reaped::default();
        for record in self.idle_for(own, idle)? {
            let still = |session: Option<&Session>| {
                self.is_idle(&record, session, &self.wanted_portals().ok())
                    .unwrap_or(false)
            };
            let deadline = self.host.deadline_in(PATIENCE);
            match initiator.remove_session(&self.host, &record, &still, deadline) {
                Ok(true) => reaped.ended.push(record.nexus()),
                Ok(false) => {}
                Err(error) => reaped.failed.push((record.nexus(), chain(&error))),
            }
        }
        self.remove_unused_interfaces();
        Ok(reaped)
    }

    /// Ends those of these sessions that are ours and that nobody wants or uses any more. What does not end now, the reaper ends later.
    pub(super) fn end_sessions(&self, of_volume: &[Nexus], deadline: Deadline) {
        let deadline = deadline.at_most(self.host.now(), LOGOUT);
        let initiator = &self.shared.initiator;
        let own = initiator.own_records(&self.host).unwrap_or_default();
        for record in own.iter().filter(|own| of_volume.contains(&own.nexus())) {
            let still = |session: Option<&Session>| {
                self.is_idle(record, session, &self.wanted_portals().ok())
                    .unwrap_or(false)
            };
            if let Err(error) = initiator.remove_session(&self.host, record, &still, deadline) {
                let (nexus, error) = (record.nexus(), chain(&error));
                tracing::warn!(%nexus, error, "the session to a volume's own target is left to the reaper");
            }
        }
    }

    /// Interface records outlive their last session by no more than a round.
    fn remove_unused_interfaces(&self) {
        let deadline = self.host.deadline_in(PATIENCE);
        let initiator = &self.shared.initiator;
        match initiator.remove_unused_interfaces(&self.host, deadline) {
            Ok(removed) => {
                for record in removed {
                    tracing::info!(
                        record,
                        "no session needs the interface record any more; it is removed"
                    );
                }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "unused interface records could not be looked for");
            }
        }
    }

    /// Those of `own` that are idle now and have been at every look for `idle`.
    fn idle_for(&self, own: Vec<OwnRecord>, idle: Duration) -> Result<Vec<OwnRecord>, DetachError> {
        let wanted = Some(self.wanted_portals()?);
        let now = self.host.now();
        let mut ripe = Vec::new();
        let mut still_idle = BTreeSet::new();
        for record in own {
            let nexus = record.nexus();
            let session = find_recorded_session(&self.host, &nexus);
            let session = session.map_err(DetachError::Read)?;
            let is_idle = self.is_idle(&record, session.as_ref(), &wanted);
            if !is_idle.map_err(DetachError::Read)? {
                continue;
            }
            still_idle.insert(nexus.clone());
            let mut idle_since = self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if now.since(*idle_since.entry(nexus).or_insert(now)) >= idle {
                ripe.push(record);
            }
        }
        let mut idle_since = self
            .shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        idle_since.retain(|nexus, _| still_idle.contains(nexus));
        Ok(ripe)
    }

    /// No disk of anybody under the session, and no volume that wants it. Not knowing counts as wanted.
    fn is_idle(
        &self,
        record: &OwnRecord,
        session: Option<&Session>,
        wanted: &Option<BTreeSet<Nexus>>,
    ) -> io::Result<bool> {
        let Some(wanted) = wanted else {
            return Ok(false);
        };
        if wanted.contains(&record.nexus()) {
            return Ok(false);
        }
        let Some(session) = session else {
            return Ok(true);
        };
        let below = |disk: &scsi::Disk| disk.hctl.host == session.scsi_host;
        Ok(!scsi::list_disks(&self.host)?.iter().any(below))
    }

    /// The portals and targets that a record of this boot wants, be it leaving or not. A record that cannot be read wants what it seems to want; one
    /// that says nothing at all does not keep idle sessions for ever: a session with a disk under it is never ended anyway.
    fn wanted_portals(&self) -> Result<BTreeSet<Nexus>, DetachError> {
        let ledger = self.ledger();
        let boot_id = ledger.boot_id()?;
        let listing = self.list_ledger()?;
        let guessed = listing.unread.into_iter().flat_map(|unread| unread.wanted);
        let guessed = guessed.map(|nexus| Nexus {
            initiator: self.shared.initiator.name.clone(),
            ..nexus
        });
        Ok(listing
            .records
            .into_iter()
            .filter(|record| record.boot_id == boot_id)
            .flat_map(|record| record.wanted)
            .map(|path| self.nexus_of(&path))
            .chain(guessed)
            .collect())
    }
}
