//! A pool at its brim: writes that would need new blocks are refused before there are none left, so that whoever writes is told.
//!
//! Without it he would wait for as long. The kernel's target answers a write that found no space, in a file or on a thin volume, as if the disk were not ready; multipath takes
//! that for a dead path, whose checker, which reads, finds it alive again (seen with Linux 6.12). A write-protected LUN answers DATA PROTECT instead, which no host takes for a path's failure: the writer has
//! an error at once. Volumes whose blocks are all there and their own go on. The daemon calls [`Engine::guard_brim`] all the time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::engine::Engine;
use super::lio::{LioError, MappedLun};
use super::names::VolumeKey;
use super::pool::{Image, PoolError};
use super::room;
use super::state::{ExportState, Source, State};
use crate::fault::chain;
use crate::host::Space;

/// The brim is this part of what is kept back from new volumes.
const PART: u64 = 4;
/// Writes are taken again when there is so much more than the brim.
const CLEAR: u64 = 2;
/// Until the next look where a look costs a process, and there is no cause for worry.
const SELDOM: Duration = Duration::from_secs(10);
/// The same when there is.
const SOMETIMES: Duration = Duration::from_secs(5);
/// Where it costs nothing.
const OFTEN: Duration = Duration::from_secs(1);

/// What is known since the brim was reached.
#[derive(Default)]
pub(super) struct Brim {
    is_reached: bool,
    /// The volumes that were looked at, and whether writes to them are refused.
    looked_at: BTreeMap<VolumeKey, bool>,
}

/// What may be left when writes are refused, in bytes.
fn brim(space: Space) -> u64 {
    (room::reserve(space) / PART).max(super::pool::GRANULE)
}

impl Engine {
    /// Refuses writes that would need new blocks while the pool is at its brim, and takes them again afterwards. Returns when to look again.
    pub fn guard_brim(&self) -> Duration {
        let Ok(space) = self.pool.space() else {
            // The sweep tells the log of it.
            return SELDOM;
        };
        let was_reached = self.lock_brim().is_reached;
        let least = brim(space) * if was_reached { CLEAR } else { 1 };
        let is_reached = space.available < least;
        self.lock_brim().is_reached = is_reached;
        if is_reached {
            self.refuse_needy();
        } else {
            self.take_writes_again();
        }
        match (is_reached, was_reached) {
            (true, false) => tracing::error!(
                pool = %self.pool.root().display(), available = space.available,
                "THE POOL IS FULL: writes that would need new blocks are refused until it has room"
            ),
            (false, true) => tracing::warn!(
                pool = %self.pool.root().display(), available = space.available,
                "the pool has room: writes are taken again"
            ),
            _ => {}
        }
        match self.pool.is_dear_to_look_at() {
            false => OFTEN,
            true if room::room(space) == room::Room::Reserved => SOMETIMES,
            true => SELDOM,
        }
    }

    /// Whether writes to the volume are refused now.
    pub(super) fn refuses_writes(&self, key: &VolumeKey) -> bool {
        self.lock_brim().looked_at.get(key) == Some(&true)
    }

    /// To how many volumes writes are refused now.
    pub(super) fn refused_count(&self) -> usize {
        let brim = self.lock_brim();
        brim.looked_at.values().filter(|refused| **refused).count()
    }

    /// Refuses to give a volume out that could not be written to: its node would take it for a read-only disk, and not learn that it is none any more.
    pub(super) fn check_brim(&self, image: &Image, key: &VolumeKey) -> Result<(), PoolError> {
        if !self.lock_brim().is_reached || !self.needs_room(image, key)? {
            return Ok(());
        }
        let space = self.pool.space()?;
        Err(PoolError::Full {
            path: self.pool.root().to_owned(),
            available: space.available,
            reserve: room::reserve(space),
        })
    }

    fn needs_room(&self, image: &Image, key: &VolumeKey) -> Result<bool, PoolError> {
        let has_relatives = self.state.read(|state| has_relatives(state, key));
        self.pool.needs_room(image, has_relatives)
    }

    fn refuse_needy(&self) {
        for (key, image) in self.written_to() {
            if self.lock_brim().looked_at.contains_key(&key) {
                continue;
            }
            let refused = self.needs_room(&image, &key).map(|needy| {
                let _shared_objects = self.lock_kernel();
                // Before the kernel's: what is mapped meanwhile is mapped so.
                self.lock_brim().looked_at.insert(key.clone(), needy);
                if needy {
                    self.tell_kernel(&key)
                } else {
                    Ok(())
                }
            });
            self.note_failure(&key, refused);
        }
    }

    fn take_writes_again(&self) {
        let all = std::mem::take(&mut self.lock_brim().looked_at);
        for (key, refused) in all {
            if refused {
                let _shared_objects = self.lock_kernel();
                let told = self.tell_kernel(&key);
                if told.is_err() {
                    // Asked again at the next look.
                    self.lock_brim().looked_at.insert(key.clone(), true);
                }
                self.note_failure(&key, Ok(told));
            }
        }
    }

    fn note_failure(&self, key: &VolumeKey, outcome: Result<Result<(), LioError>, PoolError>) {
        let reason = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        tracing::error!(%key, reason, "writes to the volume could not be refused or taken again yet");
    }

    /// Volumes that a node may write to.
    fn written_to(&self) -> BTreeMap<VolumeKey, Image> {
        self.state.read(|state| {
            let exports = state.nodes.values().flat_map(|node| &node.exports);
            let written = exports
                .filter(|(_, export)| export.state == ExportState::Exported && !export.read_only);
            let images = written.filter_map(|(key, _)| {
                Some((key.clone(), Image::of_volume(key, state.find_ready(key)?)))
            });
            images.collect()
        })
    }

    /// Has the kernel refuse or take writes to a volume, wherever it is shown, as is known of it now. The caller holds the kernel lock.
    fn tell_kernel(&self, key: &VolumeKey) -> Result<(), LioError> {
        let refused = self.refuses_writes(key);
        let exports: Vec<_> = self.state.read(|state| {
            let exports = state.exports_of(key);
            let own =
                exports.map(|(iqn, node, export)| (iqn.clone(), node.clone(), export.clone()));
            own.collect()
        });
        exports.iter().try_for_each(|(initiator, node, export)| {
            let at = MappedLun {
                target: export.target(node),
                initiator,
                lun: export.lun,
                slot: export.slot(),
            };
            self.lio.protect_lun(&at, refused || export.read_only)
        })
    }
}

/// Whether other images may share blocks with those of the volume, by what the state knows.
fn has_relatives(state: &State, key: &VolumeKey) -> bool {
    let is_parent =
        |source: &Option<Source>| matches!(source, Some(Source::Volume(of)) if of == key);
    let has_source = state.volumes.get(key).is_some_and(|it| it.source.is_some());
    has_source
        || state.snapshots.values().any(|cut| cut.source == *key)
        || state.volumes.values().any(|it| is_parent(&it.source))
}
