//! What a controller does with volumes: the order of steps, one file per call, no wire types.
//!
//! `csi/` calls in here with parsed nouns. The invariant: nothing is remembered here. What there is, the SANs say, so any
//! number of controllers may run at once and each call may be repeated.

mod abandoned;
mod adopted;
mod archive;
#[cfg(test)]
pub(crate) mod bench;
mod blocks;
mod capacity;
mod create;
mod delete;
mod error;
mod expand;
mod group;
mod health;
mod limits;
mod list;
mod metadata;
mod modify;
mod origin;
mod parameters;
mod place;
#[cfg(test)]
mod place_tests;
mod publish;
mod reconcile;
mod restore;
mod snapshot;
mod snapshot_list;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;
mod trace;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use adopted::{context_of, notes_of_adopted};
pub use blocks::BlocksOf;
pub use capacity::Room;
pub use create::Wanted;
pub use error::ControllerError;
pub use group::{Group, WantedGroup};
pub use health::{HealthListing, VolumeHealth};
pub use list::Listing;
pub use modify::MUTABLE_PARAMETERS;
pub use origin::Origin;
pub use parameters::{PARAMETERS, SNAPSHOT_PARAMETERS};
pub use place::{Accessibility, Partitions};
pub use snapshot::{Snapshot, WantedSnapshot};
pub use snapshot_list::{SnapshotFilter, SnapshotListing};
pub use validate::{Claim, Verdict};

pub use crate::san::{ExtentPage, Grade, Trouble};

use crate::archiver::Archivers;
use crate::fabric::Wwid;
use crate::inflight::Inflight;
use crate::san::{Fleet, San, SanVolume, Until};
use crate::volume::{
    ENCRYPTION, ENCRYPTION_HEADER, Family, MKFS_OPTIONS, NO_PATH_RETRY, NodeId, SanName, VolumeId,
};

use parameters::{Kept, PARTITION};

/// The controller's workflows over a fleet of SANs.
#[derive(Clone, Debug)]
pub struct Controller {
    fleet: Fleet,
    budget: Duration,
    archivers: Archivers,
    lost_after: Duration,
    /// The archived snapshots that are being carried or deleted.
    carrying: Inflight,
    memory: Arc<Mutex<Memory>>,
}

/// What saves questions and is found out again when it is lost.
#[derive(Debug, Default)]
struct Memory {
    /// Since when nobody could be asked about a volume, by WWID.
    silent_since: BTreeMap<String, Until>,
    /// The snapshots that were seen in their archive.
    standing: BTreeSet<String>,
}

/// A volume as the orchestrator is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its size in bytes.
    pub size: u64,
    /// The nodes that have it.
    pub published_to: Vec<NodeId>,
    /// What it is a copy of, if of anything; may be gone.
    pub origin: Option<Origin>,
    /// What it was made with.
    kept: Kept,
    /// Whose LUKS header it bears, where that is not its own.
    header: Option<Wwid>,
}

impl Volume {
    fn new(san: &San, name: &SanName, found: SanVolume) -> Self {
        let published_to = found.exported_to.iter();
        Self {
            kept: metadata::kept(&found.metadata),
            origin: metadata::origin(&found.metadata),
            header: metadata::header(&found.metadata),
            published_to: published_to.filter_map(|to| to.node_id()).collect(),
            id: VolumeId {
                family: san.kind(),
                san: name.clone(),
                key: found.key,
                wwid: found.wwid,
            },
            size: found.size,
        }
    }

    /// What travels with the volume for all its life.
    #[must_use]
    pub fn context(&self) -> BTreeMap<String, String> {
        context(&self.id.san, &self.kept, self.header.as_ref())
    }
}

fn context(partition: &SanName, kept: &Kept, header: Option<&Wwid>) -> BTreeMap<String, String> {
    let partition = (PARTITION.to_owned(), partition.to_string());
    let kept = [
        (MKFS_OPTIONS, &kept.mkfs_options),
        (ENCRYPTION, &kept.encryption),
        (NO_PATH_RETRY, &kept.no_path_retry),
    ];
    let kept = kept
        .into_iter()
        .filter_map(|(key, text)| Some((key.to_owned(), text.clone()?)));
    let header = header.map(|wwid| (ENCRYPTION_HEADER.to_owned(), wwid.to_string()));
    [partition].into_iter().chain(kept).chain(header).collect()
}

impl Controller {
    /// A controller of `fleet` that gives each call `budget`. The budget must be shorter than the sidecars' timeout, so that they learn
    /// the reason and not only that time ran out.
    #[must_use]
    pub fn new(fleet: Fleet, budget: Duration) -> Self {
        Self {
            fleet,
            budget,
            archivers: Archivers::default(),
            lost_after: archive::LOST_AFTER,
            carrying: Inflight::default(),
            memory: Arc::default(),
        }
    }

    /// The same controller with those who carry snapshots to archives.
    #[must_use]
    pub fn with_archivers(self, archivers: Archivers) -> Self {
        Self { archivers, ..self }
    }

    /// For tests: after what time an archiver that does not answer is lost.
    #[cfg(test)]
    pub(crate) fn losing_after(self, lost_after: Duration) -> Self {
        Self { lost_after, ..self }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self) -> Until {
        Until::now() + self.budget
    }

    /// The volume as it is now.
    ///
    /// # Errors
    /// [`ControllerError::NoVolume`], and as the SAN or the way to it failed.
    pub async fn get(&self, id: &VolumeId) -> Result<Volume, ControllerError> {
        let san = self.san_of(id)?;
        let found = san.find_volume(&id.key, &id.wwid, self.until()).await;
        let found = found.map_err(ControllerError::san(&id.san))?;
        let found = found.ok_or_else(|| ControllerError::NoVolume(id.clone()))?;
        Ok(Volume::new(&san, &id.san, found))
    }

    /// The SAN that issued this id. One that the config file no longer holds is an error, for the volume may still be there.
    fn san_of(&self, id: &VolumeId) -> Result<Arc<San>, ControllerError> {
        if id.is_by_hand() {
            return Err(ControllerError::ByHand(id.clone()));
        }
        self.san_named(id.family, &id.san)
    }

    fn san_named(&self, family: Family, name: &SanName) -> Result<Arc<San>, ControllerError> {
        let found = self.fleet.find(name);
        found
            .filter(|san| san.kind() == family)
            .ok_or_else(|| ControllerError::PartitionGone(name.clone()))
    }
}
