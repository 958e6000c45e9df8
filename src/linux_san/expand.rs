//! Expansion: a larger size, written down first, then given to the files in the pool, then to the disk in the kernel.
//!
//! The record says from which size it grows until the pool has followed, so a crash after any step is made good by the next call, the
//! next export or the next start. No volume ever becomes smaller. The server calls this; the caller allows one call per volume at a time.

use super::engine::Engine;
use super::format::FormatError;
use super::lio::LioError;
use super::names::VolumeKey;
use super::pool::{Image, PoolError};
use super::state::VolumeRecord;
use super::volumes::{VolumeError, VolumeView};
use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};

/// Why a volume has not grown, or not yet for everybody.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// No such key, or another identity.
    #[error("there is no volume {key} with WWID {wwid}")]
    Unknown {
        /// The key.
        key: VolumeKey,
        /// The identity.
        wwid: Wwid,
    },
    /// The pool refuses the size or cannot follow.
    #[error("the pool of volume {key}")]
    Pool {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: PoolError,
    },
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The kernel still serves the old size.
    #[error("volume {key} is not served with its new size yet")]
    Kernel {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: LioError,
    },
    /// The grown volume could not be looked at.
    #[error("volume {key} has grown and cannot be looked at")]
    Look {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: VolumeError,
    },
}

impl Faulted for ExpandError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } => Fault::NotFound,
            Self::Pool { source, .. } => source.fault(),
            Self::State(_) => Fault::MaybeDone,
            Self::Kernel { source, .. } => source.fault(),
            Self::Look { source, .. } => source.fault(),
        }
    }
}

impl Engine {
    /// Makes the volume at least `size` bytes large, also while nodes have it. One that is larger already stays as it is.
    ///
    /// # Errors
    /// See [`ExpandError`].
    pub fn expand_volume(
        &self,
        key: &VolumeKey,
        wwid: &Wwid,
        size: u64,
    ) -> Result<VolumeView, ExpandError> {
        let unknown = || ExpandError::Unknown {
            key: key.clone(),
            wwid: wwid.clone(),
        };
        let find = |state: &super::state::State| state.find_identified(key, wwid).cloned();
        let found = self.state.read(find).ok_or_else(unknown)?;
        self.finish_growing(key)?;
        if found.size < size {
            let checked = self.pool.check_room(size);
            // An image that is not what it should be is not to be made longer.
            checked
                .and_then(|()| self.pool.check(&Image::of_volume(key, &found)))
                .map_err(of_pool(key))?;
            self.state.change(|state| {
                state.begin_growing(key, size);
                Ok::<_, FormatError>(())
            })?;
            self.finish_growing(key)?;
            tracing::info!(%key, from = found.size, to = size, "volume has grown");
        }
        let grown = self.state.read(find).ok_or_else(unknown)?;
        self.serve_size(key, &grown)?;
        let view = self.find_volume(key).map_err(|source| ExpandError::Look {
            key: key.clone(),
            source,
        })?;
        view.ok_or_else(unknown)
    }

    /// Lets the files in the pool follow what the record says, if a growth has not come to its end.
    pub(super) fn finish_growing(&self, key: &VolumeKey) -> Result<(), ExpandError> {
        let found = self.state.read(|state| state.find_ready(key).cloned());
        let Some((volume, before)) = found.and_then(|volume| {
            let before = volume.growing_from?;
            Some((volume, before))
        }) else {
            return Ok(());
        };
        let grown = self.pool.grow(&Image::of_volume(key, &volume), before);
        grown.map_err(of_pool(key))?;
        Ok(self.state.change(|state| {
            state.end_growing(key);
            Ok::<_, FormatError>(())
        })?)
    }

    /// Keys of volumes whose growth a crash or a failure has cut off.
    pub(super) fn growing(&self) -> Vec<VolumeKey> {
        self.state.read(|state| {
            let volumes = state.volumes.iter();
            let growing = volumes.filter(|(_, record)| record.growing_from.is_some());
            growing.map(|(key, _)| key.clone()).collect()
        })
    }

    /// All nodes reach one disk in the kernel; a volume that nobody has is none.
    fn serve_size(&self, key: &VolumeKey, volume: &VolumeRecord) -> Result<(), ExpandError> {
        let _shared_objects = self.lock_kernel();
        self.as_backstore(key, volume, |disk| self.lio.grow_backstore(disk))
            .map_err(|source| ExpandError::Kernel {
                key: key.clone(),
                source,
            })
    }
}

fn of_pool(key: &VolumeKey) -> impl FnOnce(PoolError) -> ExpandError {
    let key = key.clone();
    move |source| ExpandError::Pool { key, source }
}
