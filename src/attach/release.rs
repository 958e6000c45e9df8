//! Everything of one WWID off this machine: flush, map, disks, in that order, until nothing of it is seen.
//!
//! Detach, the undo of a failed attach and threads that come back late all end here.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::error::DetachError;
use crate::deadline::Deadline;
use crate::fabric::{WantedPath, Wwid};
use crate::flights::{Listener, Look};
use crate::host::Host;
use crate::multipath::{self, Map, RemoveMapError};
use crate::scsi::{self, DiskLife, RemoveDiskError};

/// How long an undo may take. Its caller's deadline has passed already.
pub(super) const UNDO: Duration = Duration::from_secs(30);
/// A thread that came back late waits this long for the volume, then tries again.
const LATE_PATIENCE: Duration = Duration::from_secs(60);
/// Late paths may appear while we remove; more often than this they do not by chance.
const ROUNDS: usize = 6;
/// multipathd is told of a path that is gone when it has not noticed by then.
const FORGET_AFTER: Duration = Duration::from_secs(2);

/// What becomes of data that the page cache holds for a map that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// It is written out, or the map stays.
    Flush,
    /// It is given up: an operator said so.
    GiveUp,
}

/// What became of a step that may block in the kernel.
pub(super) type ChoreOutcome = Result<(), ChoreError>;

/// Why such a step failed; told to all who joined it.
#[derive(Debug)]
pub(super) enum ChoreError {
    Flush(PathBuf, Arc<io::Error>),
    Disk(Arc<RemoveDiskError>),
}

impl Engine {
    /// Removes the map of `wwid` and every disk of it, waits until multipathd has forgotten them, and takes the WWID out of its file. False when
    /// there was no device.
    pub(super) fn release(
        &self,
        wwid: &Wwid,
        deadline: Deadline,
        care: Care,
    ) -> Result<bool, DetachError> {
        let mut seen = Vec::new();
        for round in 0..ROUNDS {
            // A scan may have been cut off a moment ago; what it found would outlive us unseen.
            scsi::remove_nascent(&self.host, wwid, deadline).map_err(DetachError::Read)?;
            let map = multipath::find_map(&self.host, wwid).map_err(DetachError::Read)?;
            let disks = disks_of(&self.host, wwid, map.as_ref()).map_err(DetachError::Read)?;
            if map.is_none() && disks.is_empty() {
                self.wait_until_forgotten(wwid, deadline)?;
                multipath::unclaim(&self.host, &self.shared.dirs.root, wwid)
                    .map_err(DetachError::Claim)?;
                if self.is_unseen() {
                    multipath::forget_unseen(&self.host, &self.shared.dirs.root, wwid)
                        .map_err(DetachError::Unseen)?;
                }
                return Ok(round > 0);
            }
            seen = disks.iter().map(|life| life.disk.name.clone()).collect();
            if let Some(map) = map {
                seen.push(map.name.clone());
                self.remove_map(wwid, &map, deadline, care)?;
            }
            match self.remove_disks(wwid, &disks, deadline) {
                Err(error) if self.is_let_go(wwid, &disks, &error, deadline)? => {}
                removed => removed?,
            }
        }
        Err(DetachError::Reappears {
            wwid: wwid.clone(),
            what: seen,
        })
    }

    /// Flushes, then removes. Who uses the map is asked before anything is done to it.
    fn remove_map(
        &self,
        wwid: &Wwid,
        map: &Map,
        deadline: Deadline,
        care: Care,
    ) -> Result<(), DetachError> {
        let failed = |source| DetachError::Map {
            wwid: wwid.clone(),
            source,
        };
        let openers = multipath::openers_of(&self.host, map).map_err(DetachError::Read)?;
        if !openers.is_empty() {
            let name = map.name.clone();
            return Err(failed(RemoveMapError::Busy { name, openers }));
        }
        if care == Care::GiveUp || self.is_dead_and_clean(map) {
            // Even an empty flush would wait for a path, for ever on a map that queues for ever.
            tracing::warn!(%wwid, map = map.name, "no path is left; the map goes without a flush");
            multipath::disable_queueing(&self.host, map, deadline)
                .map_err(DetachError::Queueing)?;
        } else {
            self.flush(map, deadline)?;
        }
        multipath::remove_map(&self.host, wwid, deadline).map_err(failed)?;
        Ok(())
    }

    /// Writes out what the page cache holds for the map. A raw volume's writer may have left some there.
    fn flush(&self, map: &Map, deadline: Deadline) -> Result<(), DetachError> {
        let (host, device) = (self.host.clone(), map.node());
        let work = move || {
            host.flush_block(&device)
                .map_err(|error| ChoreError::Flush(device, Arc::new(error)))
        };
        let flight = format!("flush {}", map.uuid);
        let listener = self
            .shared
            .chores
            .join(&flight, work, || {})
            .map_err(DetachError::Thread)?;
        self.wait_for_chores(&[(flight, listener)], deadline, |error| match error {
            // The map went away by itself: multipathd removes an unused one with its last path.
            ChoreError::Flush(_, error) if crate::host::is_gone(error) => None,
            ChoreError::Flush(device, error) => Some(DetachError::Flush {
                device: device.clone(),
                source: Arc::clone(error),
            }),
            ChoreError::Disk(_) => None,
        })
    }

    /// All at once: each delete waits for its own disk.
    pub(super) fn remove_disks(
        &self,
        wwid: &Wwid,
        disks: &[DiskLife],
        deadline: Deadline,
    ) -> Result<(), DetachError> {
        let mut chores = Vec::new();
        for life in disks {
            let (host, going) = (self.host.clone(), life.clone());
            let work = move || {
                scsi::remove_disk(&host, &going, deadline)
                    .map_err(|error| ChoreError::Disk(Arc::new(error)))
            };
            let flight = format!("delete {}", life.label());
            let listener = self
                .shared
                .chores
                .join(&flight, work, || {})
                .map_err(DetachError::Thread)?;
            chores.push((flight, listener));
        }
        self.wait_for_chores(&chores, deadline, |error| match error {
            ChoreError::Disk(error) => Some(DetachError::Disk {
                wwid: wwid.clone(),
                source: Arc::clone(error),
            }),
            ChoreError::Flush(..) => None,
        })
    }

    /// Waits until all have ended; the first failure that `failure` takes for one is returned, after all have had their time.
    fn wait_for_chores(
        &self,
        chores: &[(String, Listener<ChoreOutcome>)],
        deadline: Deadline,
        failure: impl Fn(&ChoreError) -> Option<DetachError>,
    ) -> Result<(), DetachError> {
        self.wait_until_landed(chores.iter().map(|(_, listener)| listener), deadline);
        for (what, listener) in chores {
            match listener.look() {
                Look::Ended(outcome) => {
                    if let Some(error) = outcome.as_ref().as_ref().err().and_then(&failure) {
                        return Err(error);
                    }
                }
                Look::Flying | Look::Lost => {
                    return Err(DetachError::Overdue { what: what.clone() });
                }
            }
        }
        Ok(())
    }

    /// Until multipathd has dropped the paths; a new attach would meet half-removed ones. A daemon that does not run remembers nothing.
    fn wait_until_forgotten(&self, wwid: &Wwid, deadline: Deadline) -> Result<(), DetachError> {
        let begun = self.host.now();
        let forgotten = self.host.wait_for(deadline, || {
            let known = match multipath::show_paths(&self.host) {
                Ok(paths) => paths,
                Err(error) if error.is_absent() => return Ok(Some(())),
                Err(source) if self.host.is_past(deadline) => return Err(source),
                Err(_) => return Ok(None),
            };
            let ours = |path: &&multipath::PathView| path.wwid.eq_ignore_ascii_case(wwid.as_str());
            let remembered: Vec<_> = known.iter().filter(ours).collect();
            if self.host.now().since(begun) >= FORGET_AFTER {
                for path in &remembered {
                    multipath::del_path(&self.host, &path.disk)?;
                }
            }
            Ok(remembered.is_empty().then_some(()))
        });
        let failed = |source| DetachError::Paths {
            wwid: wwid.clone(),
            source,
        };
        forgotten
            .map_err(failed)?
            .ok_or_else(|| DetachError::Overdue {
                what: format!("multipathd's forgetting of the paths of {wwid}"),
            })
    }

    /// For a thread that ended when nobody waited for it any more: what it made stays only if somebody wants it now.
    pub(super) fn settle_late(&self, key: &str, wwid: &Wwid, path: &WantedPath) {
        // What we made is there by now: whoever takes the volume away after this look removes it with the rest.
        if self.ledger().is_wanted(key).unwrap_or(false) {
            return;
        }
        // Whoever holds the volume may join or undo what we made; after him the ledger tells.
        let locked = loop {
            match self.lock_volume(key, self.host.deadline_in(LATE_PATIENCE)) {
                Ok(Some(locked)) => break locked,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(key, %error, "a late path could not be settled");
                    return;
                }
            }
        };
        match self.ledger().is_wanted(key) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(key, %error, "a late path could not be settled");
                return;
            }
        }
        let deadline = self.host.deadline_in(LATE_PATIENCE);
        let released = self.release(wwid, deadline, Care::Flush);
        self.remove_strays(std::slice::from_ref(path), deadline);
        drop(locked);
        match released {
            Ok(true) => tracing::info!(key, %wwid, "removed what came too late"),
            Ok(false) => {}
            Err(error) => {
                let error = crate::fault::chain(&error);
                tracing::warn!(key, %wwid, error, "what came too late could not be removed");
            }
        }
    }
}

/// The disks that carry the volume by the kernel's note, and those in its map of which the kernel noted nothing. One that is noted as another volume
/// is that volume's, even when multipathd mistook it for ours.
fn disks_of(host: &Host, wwid: &Wwid, map: Option<&Map>) -> io::Result<Vec<DiskLife>> {
    let mut disks = Vec::new();
    for disk in scsi::list_disks(host)? {
        let life = disk.life(host)?;
        let is_ours = match disk.noted_wwid(host)? {
            Some(noted) => noted == *wwid,
            None => map.is_some_and(|map| map.members.contains(&disk.name)),
        };
        if is_ours {
            disks.push(life);
        }
    }
    Ok(disks)
}
