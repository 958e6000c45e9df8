//! Why a node's call failed, one variant per failing step.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::attach::{AttachError, DetachError, LedgerError, Reason, Unwritten};
use crate::fabric::WantedPath;
use crate::fault::{Fault, Faulted};
use crate::filesystem::{CheckError, GrowError, MakeError, ProbeError, TrimError, TwinError};
use crate::luks::LuksError;
use crate::mount::{MountError, OptionError, TableError};
use crate::volume::{SanName, SizeError, VolumeId};

/// See the variants.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Mount flags that cannot be used.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// A path of the orchestrator's cannot be followed.
    #[error("{} cannot be followed", path.display())]
    Resolve {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The config has no such partition.
    #[error(
        "the config in force on this node has no partition {0}, to which the volume belongs; when its file is refused, this node's log says why"
    )]
    NoPartition(SanName),
    /// There is nothing to tell the orchestrator's scheduler.
    #[error(
        "this node is in no partition: its config file, as far as it could be read, and --partition name none in common"
    )]
    NoPartitions,
    /// The caller made no staging directory.
    #[error("staging_target_path {} is not a directory", .0.display())]
    NoStagingDirectory(PathBuf),
    /// No wanted address is offered.
    #[error("none of the ncpaths of partition {partition} can be used for this volume: {missing}")]
    NoPaths {
        /// Which.
        partition: SanName,
        /// The listed paths and what stands in their way.
        missing: String,
    },
    /// Fewer can be had than the partition demands.
    #[error(
        "minPaths of partition {partition} is {needed}, and this node can have {wanted} to this volume: {missing}"
    )]
    FewPaths {
        /// Which.
        partition: SanName,
        /// `minPaths`.
        needed: usize,
        /// How many are left.
        wanted: usize,
        /// The listed paths that are left out and why, if any.
        missing: String,
    },
    /// The volume is in use here in another way.
    #[error("{volume} is already staged at {} {difference}", staging_path.display())]
    StagedOtherwise {
        /// Which.
        volume: VolumeId,
        /// Where.
        staging_path: PathBuf,
        /// How it differs.
        difference: &'static str,
    },
    /// The attachment failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The detachment failed.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger's record of the volume was not written by us, or by a newer version.
    #[error("the record of {volume} in the ledger cannot be read")]
    Intent {
        /// Which.
        volume: VolumeId,
        #[source]
        source: serde_json::Error,
    },
    /// Its version is not ours.
    #[error(
        "the record of {volume} in the ledger has version {version}; this driver reads version 1"
    )]
    IntentVersion {
        /// Which.
        volume: VolumeId,
        /// The version.
        version: u64,
    },
    /// What the device holds is not known.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// What the device holds must not be overwritten, or is not what was asked for.
    #[error(
        "{device} holds {found} and cannot be staged as {wanted}: {reason}; nothing was written"
    )]
    Content {
        /// Which.
        device: String,
        /// What is there.
        found: String,
        /// What was asked for.
        wanted: &'static str,
        /// Why it stays as it is.
        reason: &'static str,
    },
    /// The layer of encryption failed.
    #[error(transparent)]
    Luks(#[from] LuksError),
    /// Encrypted, and asked for in the clear.
    #[error(
        "{volume} is encrypted (luks2) and is asked for in the clear; nothing was written. Its volume context must hold encryption: luks2, as CreateVolume returned it"
    )]
    Sealed {
        /// Which.
        volume: VolumeId,
    },
    /// Asked for encrypted, and not to be encrypted, or not opened.
    #[error(
        "{device} holds {found} and cannot be staged with encryption: luks2: {reason}; nothing was written"
    )]
    NotSealed {
        /// Which.
        device: String,
        /// What is there.
        found: String,
        /// Why it stays as it is.
        reason: &'static str,
    },
    /// Another mapping bears the volume's name, or lies on something else.
    #[error(
        "the mapping {name} ({uuid}, on {under}) bears the name of this volume's encrypted layer and does not lie on its map; it stays. `dmsetup info {name}` shows it"
    )]
    Mapping {
        /// Its name.
        name: String,
        /// Its dm uuid.
        uuid: String,
        /// The devices under it.
        under: String,
    },
    /// A volume that is being made ready was to be left, which would make it useless.
    #[error(
        "{0} was begun and has no file system yet; this node's ledger keeps that in mind until it is staged or unstaged"
    )]
    Unfinished(VolumeId, #[source] Box<NodeError>),
    /// No file system could be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The file system does not fill its device.
    #[error(transparent)]
    Grow(#[from] GrowError),
    /// The volume is larger than it may be.
    #[error("capacity_range")]
    Capacity(#[source] SizeError),
    /// The kernel would take it for another one.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// The file system is damaged.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Unused space was not given back.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Published before staged, or at another staging path.
    #[error("{volume} is not staged at {}", staging_path.display())]
    NotStaged {
        /// Which.
        volume: VolumeId,
        /// Where it should be.
        staging_path: PathBuf,
    },
    /// Published as something else than it was staged for.
    #[error("{volume} is staged {staged}, not {asked}")]
    OtherAccess {
        /// Which.
        volume: VolumeId,
        /// As what.
        staged: &'static str,
        /// As what it is wanted.
        asked: &'static str,
    },
    /// At the target with other arguments.
    #[error("{} is published already, {held}, not {asked}", target.display())]
    PublishedOtherwise {
        /// Where.
        target: PathBuf,
        /// How.
        held: &'static str,
        /// How it is wanted.
        asked: &'static str,
    },
    /// A second place, which the access mode forbids.
    #[error("{volume} may be at one target path only and is at {}", held.display())]
    OneTarget {
        /// Which.
        volume: VolumeId,
        /// Where it is.
        held: PathBuf,
    },
    /// Something that is not ours stands at the target.
    #[error("{} is {found}; it was not made by this driver and stays", target.display())]
    Foreign {
        /// Where.
        target: PathBuf,
        /// What.
        found: &'static str,
    },
    /// A place could not be made or removed.
    #[error("{} could not be {what}", target.display())]
    Target {
        /// Where.
        target: PathBuf,
        /// Made, removed, looked at.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// Still seen in other places.
    #[error("{volume} is still mounted at {places}; it is unpublished before it is unstaged")]
    InUse {
        /// Which.
        volume: VolumeId,
        /// Where.
        places: String,
    },
    /// The kernel does not say which boot this is.
    #[error("the boot id cannot be read")]
    Boot(#[source] io::Error),
    /// The kernel's view of the device could not be read.
    #[error("the device of {volume} cannot be looked at")]
    Device {
        /// Whose.
        volume: VolumeId,
        #[source]
        source: io::Error,
    },
    /// Not what is asked for stands at that path.
    #[error("{volume} is neither staged nor published at {}", path.display())]
    NotAt {
        /// Which.
        volume: VolumeId,
        /// Where it is not.
        path: PathBuf,
    },
    /// A look at it did not come back.
    #[error(
        "{volume} gave no answer in {seconds} s; its device waits for paths (`multipath -ll` shows them), and the look goes on"
    )]
    Late {
        /// Which.
        volume: VolumeId,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The thread that looked ended without a word.
    #[error("the look at {0} ended without an answer")]
    LookLost(VolumeId),
    /// The operating system gave no thread.
    #[error("no thread could be started")]
    NoThread(#[source] io::Error),
    /// An unmount does not come back.
    #[error(
        "{} is still being unmounted after {seconds} s; its device waits for paths (`multipath -ll` shows them), and the unmount goes on; when no path will come back: `sanpath node release {volume} --accept-data-loss`",
        target.display()
    )]
    Unmounting {
        /// Which.
        volume: VolumeId,
        /// Where.
        target: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An earlier call's unmount is under way.
    #[error("an earlier unmount of {0} has not come back yet")]
    BeingUnmounted(VolumeId),
    /// Somebody keeps it from being unmounted.
    #[error("{} cannot be unmounted: {users}", target.display())]
    Held {
        /// Where.
        target: PathBuf,
        /// By whom.
        users: String,
    },
    /// No path, and data that unmounting or detaching would lose.
    #[error(
        "no path of {volume} works and {unwritten}; it is kept until a path comes back, or until `sanpath node release {volume} --accept-data-loss` gives it up"
    )]
    Stranded {
        /// Which.
        volume: VolumeId,
        /// What would be lost.
        unwritten: Unwritten,
    },
    /// A write that nobody was told of has failed, and the kernel has thrown it away.
    #[error(
        "the file system of {volume} at {} tells of writes that failed; what they held is lost. This is told once, and the next NodeUnstageVolume goes on", path.display()
    )]
    Lost {
        /// Which.
        volume: VolumeId,
        /// Where it is staged.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An operator names what this node does not have.
    #[error("this node has no volume {0:?}; `sanpath node volumes` lists those it has")]
    NotHere(String),
    /// An operator's command that does not fit the volume's state.
    #[error("{volume}: {why}")]
    NotNow {
        /// Which.
        volume: VolumeId,
        /// Why not, and what to do.
        why: String,
    },
    /// The file system serves nothing any more.
    #[error(
        "the file system of {volume} at {} has shut down; {}", path.display(), super::health::what_to_do(volume)
    )]
    ShutDown {
        /// Which.
        volume: VolumeId,
        /// Where.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The space of a file system is not told.
    #[error("the space at {} cannot be asked for", path.display())]
    Space {
        /// Where.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What a look that several wait for came to.
    #[error(transparent)]
    Joined(Arc<NodeError>),
    /// A call failed for good, and what it had made could not be taken away.
    #[error("{cleanup} could not be cleaned up after a failure")]
    LeftBehind {
        /// What went wrong then.
        cleanup: String,
        /// The failure.
        #[source]
        source: Box<NodeError>,
    },
}

impl From<TableError> for NodeError {
    fn from(error: TableError) -> Self {
        Self::Mount(error.into())
    }
}

impl NodeError {
    /// The paths that it failed for, and why each is missing; none when it failed for something else.
    #[must_use]
    pub fn missing(&self) -> &[(WantedPath, Reason)] {
        match self {
            Self::Attach(error) => error.missing(),
            Self::Unfinished(_, source) | Self::LeftBehind { source, .. } => source.missing(),
            Self::Joined(error) => error.missing(),
            _ => &[],
        }
    }
}

impl Faulted for NodeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Options(_) => Fault::Invalid,
            Self::NotAt { .. } | Self::NotHere(_) => Fault::NotFound,
            Self::Late { .. } | Self::Unmounting { .. } => Fault::Timeout,
            Self::BeingUnmounted(_) => Fault::Busy,
            Self::NoThread(_) => Fault::Exhausted,
            Self::NoPartitions => Fault::MaybeDone,
            Self::Joined(error) => error.fault(),
            Self::StagedOtherwise { .. } | Self::PublishedOtherwise { .. } => Fault::Conflict,
            Self::NoPartition(_)
            | Self::NoStagingDirectory(_)
            | Self::NoPaths { .. }
            | Self::FewPaths { .. }
            | Self::Content { .. }
            | Self::Sealed { .. }
            | Self::NotSealed { .. }
            | Self::Mapping { .. }
            | Self::NotStaged { .. }
            | Self::OtherAccess { .. }
            | Self::OneTarget { .. }
            | Self::ShutDown { .. }
            | Self::Foreign { .. }
            | Self::Held { .. }
            | Self::Stranded { .. }
            | Self::NotNow { .. }
            | Self::InUse { .. } => Fault::Precondition,
            Self::Attach(error) => error.fault(),
            Self::Detach(error) => error.fault(),
            Self::Ledger(error) => error.fault(),
            Self::Probe(error) => error.fault(),
            Self::Luks(error) => error.fault(),
            Self::Make(error) => error.fault(),
            Self::Grow(error) => error.fault(),
            Self::Capacity(error) => error.fault(),
            Self::Check(error) => error.fault(),
            Self::Trim(error) => error.fault(),
            Self::Twin(error) => error.fault(),
            Self::Mount(error) => error.fault(),
            Self::Resolve { .. }
            | Self::Unfinished(..)
            | Self::LookLost(_)
            | Self::Lost { .. }
            | Self::Space { .. }
            | Self::Intent { .. }
            | Self::IntentVersion { .. }
            | Self::Target { .. }
            | Self::Boot(_)
            | Self::Device { .. }
            | Self::LeftBehind { .. } => Fault::MaybeDone,
        }
    }
}
