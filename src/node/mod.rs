//! The Node service's work: from an export to a path in a pod, and back. The CSI order of steps, and nothing else.
//!
//! Called by `csi/` on a plain thread that owns the volume. The invariant: a call can be entered again after any crash, as each step looks
//! first; what a later call is not told is in the attachment's ledger before the first side effect. An error whose class says "not done"
//! leaves nothing behind that this call made.

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod btrfs_tests;
#[cfg(test)]
mod copied_tests;
mod decide;
mod device;
mod encrypted;
#[cfg(test)]
mod encrypted_tests;
mod error;
mod expand;
mod failures;
mod health;
mod intent;
mod lost;
mod outage;
#[cfg(test)]
mod outage_tests;
mod paths;
#[cfg(test)]
mod paths_tests;
#[cfg(test)]
mod process_tests;
mod publish;
mod recover;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod settings_tests;
mod stage;
mod stats;
#[cfg(test)]
mod stats_tests;
mod storage;
#[cfg(test)]
mod stories;
mod subnets;
mod surroundings;
#[cfg(test)]
mod tests;
mod trim;
#[cfg(test)]
mod trim_tests;
#[cfg(test)]
mod undo_tests;
mod unmount;
mod unpublish;
mod unstage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use error::NodeError;
pub use failures::Failure;
pub use health::{Adverse, Condition, Grade, Health, Stage};
pub use intent::{Formatting, Intent, TargetMode};
pub use outage::GivenUp;
pub use paths::VolumePaths;
pub use recover::Recovered;
pub use storage::StorageAdverse;
pub use subnets::Advice;
pub use surroundings::Surroundings;
pub use trim::Trimmed;

pub use crate::host::Space;

use crate::attach::{DesiredOf, Engine};
use crate::deadline::Moment;
use crate::fabric::{Export, LocalView, NoPathRetry, PathList, Wwid, select};
use crate::host::{Counts, Host};
use crate::volume::{Capability, MkfsOptions, NodeId, Passphrases, SanName, SizeRange, VolumeId};

/// Looks at several volumes within this time go by one answer of the config's and the machine's.
const ONE_LOOK: Duration = Duration::from_secs(1);
/// LIO numbers the LUNs of a target from 0 to 255, and a node has one target on a SAN.
const MAX_VOLUMES: i64 = 255;

/// NodeStageVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageCall {
    /// Which volume.
    pub volume: VolumeId,
    /// A directory that exists, for this volume alone.
    pub staging_path: PathBuf,
    /// How it will be used.
    pub capability: Capability,
    /// Where the SAN offers it.
    pub export: Export,
    /// How a file system is made on it, if one has to be.
    pub mkfs: MkfsOptions,
    /// What opens it, when it is encrypted (LUKS2); `None` for a volume in the clear.
    pub encryption: Option<Passphrases>,
    /// Whose LUKS header it bears, when it is encrypted and a copy of that volume; else it has one of its own.
    pub header: Option<Wwid>,
    /// How long its I/O waits while no path works; `None` leaves that to the host.
    pub no_path_retry: Option<NoPathRetry>,
}

/// NodeUnstageVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnstageCall {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it was staged.
    pub staging_path: PathBuf,
}

/// NodePublishVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishCall {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it was staged.
    pub staging_path: PathBuf,
    /// Where it is to be seen; its parent exists.
    pub target_path: PathBuf,
    /// How it will be used.
    pub capability: Capability,
    /// Writes are refused there.
    pub read_only: bool,
}

/// NodeUnpublishVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpublishCall {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it was seen.
    pub target_path: PathBuf,
}

/// NodeExpandVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandCall {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is staged or published.
    pub path: PathBuf,
    /// The sizes that will do; without a lower bound, whatever the SAN has made of it.
    pub range: SizeRange,
}

/// NodeGetVolumeStats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsCall {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is staged or published.
    pub path: PathBuf,
}

/// How much of a volume is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A raw volume: nobody but its user knows what of it is in use.
    Block {
        /// Its size in bytes.
        total: u64,
    },
    /// A file system.
    FileSystem(Space),
}

/// What this node is called and how much it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The id that the controller gets.
    pub id: NodeId,
    /// How many volumes the orchestrator may put here.
    pub max_volumes: i64,
    /// The partitions that it is in; never empty.
    pub partitions: BTreeSet<SanName>,
}

/// The partitions that this node is in. Asked anew each time.
pub type PartitionsOf = Arc<dyn Fn() -> BTreeSet<SanName> + Send + Sync>;

/// How a SAN's partition is reached from this node; `None` when this node's config has no such partition. Asked anew by each stage.
pub type PathsOf = Arc<dyn Fn(&SanName) -> Option<PathSettings> + Send + Sync>;

/// What attached volumes should have, by the same word: for the engine, which knows nothing of partitions.
fn desired_of(host: Host, paths_of: PathsOf) -> DesiredOf {
    // A resolver that does not answer takes seconds: once for a look at many volumes, not for each of them.
    let known: Mutex<BTreeMap<SanName, (Moment, Option<PathSettings>)>> = Mutex::default();
    let settings_of = move |san: &SanName| {
        let fresh = |at: Moment| host.now().since(at) < ONE_LOOK;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, settings)) = known.get(san)
            && fresh(*at)
        {
            return settings.clone();
        }
        let settings = paths_of(san);
        known.insert(san.clone(), (host.now(), settings.clone()));
        settings
    };
    Arc::new(move |record| {
        let volume = VolumeId::find(&record.key)?;
        let settings = settings_of(&volume.san)?;
        Some(select(&record.export, &settings.list, &settings.local))
    })
}

/// How the volumes of one partition are reached from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSettings {
    /// `ncpaths`.
    pub list: PathList,
    /// What this machine makes of it.
    pub local: LocalView,
    /// `minPaths`: with fewer paths a volume is not staged. At least 1.
    pub min_paths: usize,
    /// `loginTimeoutSeconds`: how long attaching may take; else [`Limits::deadline`].
    pub deadline: Option<Duration>,
}

impl Default for PathSettings {
    fn default() -> Self {
        Self {
            list: PathList::SanPortals,
            local: LocalView::default(),
            min_paths: 1,
            deadline: None,
        }
    }
}

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long attaching and detaching may take. Under the two minutes that the kubelet waits, so that it hears of our reason.
    pub deadline: Duration,
    /// After enough paths are there, how long the missing ones are waited for.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(90),
            grace: Duration::from_secs(5),
        }
    }
}

/// One node's work. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Node {
    id: NodeId,
    host: Host,
    engine: Engine,
    paths_of: PathsOf,
    partitions: PartitionsOf,
    limits: Limits,
    readings: Arc<stats::Readings>,
    looks: Arc<health::Looks>,
    unmounts: Arc<unmount::Unmounts>,
    failures: Arc<failures::Failures>,
    losses: Arc<lost::Losses>,
}

/// What a call came to, and what it cost.
pub struct Counted<T> {
    /// Its outcome.
    pub outcome: Result<T, NodeError>,
    /// The processes and changes that it took.
    pub counts: Counts,
}

impl Node {
    /// The node `id` on `host`.
    #[must_use]
    pub fn new(id: NodeId, host: Host, engine: Engine, paths_of: PathsOf, limits: Limits) -> Self {
        let engine = engine.with_desired(desired_of(host.clone(), Arc::clone(&paths_of)));
        Self {
            id,
            host,
            engine,
            paths_of,
            partitions: Arc::new(BTreeSet::new),
            limits,
            readings: Arc::default(),
            looks: Arc::default(),
            unmounts: Arc::default(),
            failures: Arc::default(),
            losses: Arc::default(),
        }
    }

    /// The engine that it works with, which knows from it what paths volumes should have.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The same node, in the partitions that `partitions` tells.
    #[must_use]
    pub fn in_partitions(self, partitions: PartitionsOf) -> Self {
        Self { partitions, ..self }
    }

    /// NodeGetInfo.
    ///
    /// # Errors
    /// [`NodeError::NoPartitions`] while it is in none: what is told here is kept for the node's life, so it is better asked again.
    pub fn info(&self) -> Result<NodeInfo, NodeError> {
        let partitions = (self.partitions)();
        if partitions.is_empty() {
            return Err(NodeError::NoPartitions);
        }
        Ok(NodeInfo {
            id: self.id.clone(),
            max_volumes: MAX_VOLUMES,
            partitions,
        })
    }

    /// NodeStageVolume: attaches the volume and, unless it is raw, mounts it at the staging path, making a file system on a new one.
    #[must_use]
    pub fn stage(&self, call: &StageCall) -> Counted<()> {
        self.noted("NodeStageVolume", &call.volume, |node| {
            stage::stage(node, call).inspect(|()| node.losses.forget(&call.volume))
        })
    }

    /// NodePublishVolume: shows a staged volume at the target path.
    #[must_use]
    pub fn publish(&self, call: &PublishCall) -> Counted<()> {
        self.noted("NodePublishVolume", &call.volume, |node| {
            publish::publish(node, call)
        })
    }

    /// NodeExpandVolume: lets a staged volume have the size that the SAN has given it. Returns that size in bytes.
    #[must_use]
    pub fn expand(&self, call: &ExpandCall) -> Counted<u64> {
        self.noted("NodeExpandVolume", &call.volume, |node| {
            expand::expand(node, call)
        })
    }

    /// NodeUnpublishVolume: takes the target path away.
    #[must_use]
    pub fn unpublish(&self, call: &UnpublishCall) -> Counted<()> {
        self.noted("NodeUnpublishVolume", &call.volume, |node| {
            unpublish::unpublish(node, call)
        })
    }

    /// NodeUnstageVolume: unmounts and detaches the volume.
    #[must_use]
    pub fn unstage(&self, call: &UnstageCall) -> Counted<()> {
        self.noted("NodeUnstageVolume", &call.volume, |node| {
            unstage::unstage(node, call)
        })
    }

    /// NodeGetVolumeStats: what is used and free at a path. Answers in time whatever the device does.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn stats(&self, call: &StatsCall) -> Result<Usage, NodeError> {
        stats::stats(self, call)
    }

    /// Every volume that the ledger knows, and how it stands. Answers in time whatever the devices do.
    ///
    /// # Errors
    /// When the ledger, the mount table or sysfs cannot be read.
    pub fn healths(&self) -> Result<Vec<Health>, NodeError> {
        health::healths(self)
    }

    /// How one volume stands; `None` when this node does not know it. Answers in time whatever its device does.
    ///
    /// # Errors
    /// When the ledger, the mount table or sysfs cannot be read.
    pub fn health(&self, volume: &VolumeId) -> Result<Option<Health>, NodeError> {
        health::health(self, volume)
    }

    /// What is amiss with the SANs of this node's staged volumes, as their paths tell; each grade and reason once.
    ///
    /// # Errors
    /// When the ledger or sysfs cannot be read.
    pub fn storage_health(&self) -> Result<Vec<StorageAdverse>, NodeError> {
        storage::storage_health(self)
    }

    /// The paths of all volumes of this boot, or of `only` one.
    ///
    /// # Errors
    /// When the ledger or sysfs cannot be read.
    pub fn paths(&self, only: Option<&VolumeId>) -> Result<Vec<VolumePaths>, NodeError> {
        paths::paths(self, only)
    }

    /// The volume that an operator calls by its id, its WWID or its name on the SAN.
    ///
    /// # Errors
    /// [`NodeError::NotHere`] when the ledger has no such volume.
    pub fn named(&self, name: &str) -> Result<VolumeId, NodeError> {
        health::named(self, name)
    }

    /// Mounts the file system of a staged volume anew that went read-only, shut down or lost its mounts, at all its places. For the operator's
    /// command; the caller has the volume to itself.
    #[must_use]
    pub fn recover(&self, volume: &VolumeId) -> Counted<Recovered> {
        self.counted(|node| recover::recover(node, volume))
    }

    /// Gives up a volume of which no path is left, with all that is not written. For the operator's command; the caller has the volume to itself.
    /// Without `accept_data_loss` it only tells what would be lost, as an error.
    #[must_use]
    pub fn release(&self, volume: &VolumeId, accept_data_loss: bool) -> Counted<GivenUp> {
        self.counted(|node| outage::release(node, volume, accept_data_loss))
    }

    /// The staged volumes that have a file system.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn staged_volumes(&self) -> Result<Vec<VolumeId>, NodeError> {
        trim::candidates(self)
    }

    /// Gives the unused space of a staged file system back to the SAN. The caller has the volume to itself.
    #[must_use]
    pub fn trim(&self, volume: &VolumeId) -> Counted<Trimmed> {
        self.counted(|node| trim::trim(node, volume))
    }

    /// How the last call of the volume with this id, WWID or name on the SAN failed, if it did since this process started.
    #[must_use]
    pub fn failure(&self, name: &str) -> Option<Failure> {
        self.failures.find(name)
    }

    /// The orchestrator's calls: a failure is kept in mind for the operator who asks.
    fn noted<T>(
        &self,
        call: &'static str,
        volume: &VolumeId,
        work: impl FnOnce(&Self) -> Result<T, NodeError>,
    ) -> Counted<T> {
        let done = self.counted(work);
        self.failures
            .learn(call, volume, &done.outcome, self.host.now());
        done
    }

    fn counted<T>(&self, work: impl FnOnce(&Self) -> Result<T, NodeError>) -> Counted<T> {
        let host = self.host.tallied();
        let node = Self {
            engine: self.engine.acting_on(host.clone()),
            host: host.clone(),
            ..self.clone()
        };
        let outcome = work(&node);
        Counted {
            outcome,
            counts: host.counts(),
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Node")
            .field("id", &self.id)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
