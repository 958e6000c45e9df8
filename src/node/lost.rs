//! Writes that were lost, as an unstage finds when it has the file system written out before the last unmount: umount(2) succeeds all the same.
//!
//! The kernel tells such a loss once and holds nothing back for it. So do we: one unstage fails with it, also when the call under which it was found had given up
//! waiting, and the next one goes on, since to keep the volume would bring nothing back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::NodeError;
use crate::volume::VolumeId;

/// A loss, and whether a caller has heard of it.
#[derive(Debug)]
struct Loss {
    error: Arc<NodeError>,
    told: bool,
}

/// The losses of volumes that have not left since.
#[derive(Debug, Default)]
pub struct Losses(Mutex<BTreeMap<VolumeId, Loss>>);

impl Losses {
    /// Whether one of this volume was found already.
    pub(super) fn is_known(&self, volume: &VolumeId) -> bool {
        self.all().contains_key(volume)
    }

    /// Takes in one that was found.
    pub(super) fn note(&self, volume: &VolumeId, error: &Arc<NodeError>) {
        let loss = Loss {
            error: Arc::clone(error),
            told: false,
        };
        self.all().insert(volume.clone(), loss);
    }

    /// What is still to be told of this volume; it is told with that.
    ///
    /// # Errors
    /// The loss.
    pub(super) fn tell(&self, volume: &VolumeId) -> Result<(), NodeError> {
        match self.all().get_mut(volume) {
            Some(loss) if !loss.told => {
                loss.told = true;
                Err(NodeError::Joined(Arc::clone(&loss.error)))
            }
            _ => Ok(()),
        }
    }

    /// The volume has left, or is used anew: what was told is over.
    pub(super) fn forget(&self, volume: &VolumeId) {
        self.all()
            .retain(|known, loss| known != volume || !loss.told);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<VolumeId, Loss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
