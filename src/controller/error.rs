//! Why a controller's workflow ended without success.

use crate::archiver::ArchiverError;
use crate::fabric::NoPathRetryError;
use crate::fault::{Fault, Faulted};
use crate::inflight::InflightError;
use crate::san::SanError;
use crate::volume::{
    AnySnapshotId, ArchivedId, EncryptionError, GroupId, MkfsOptionError, SanName, SizeError,
    SnapshotId, VolumeId,
};

use super::Origin;

/// So many letters of a token that is not ours are told.
const SHOWN: usize = 128;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A parameter that there is not.
    #[error(
        "parameters: {0:?} is not a parameter of this driver; it knows: partition, mkfsOptions, encryption, noPathRetry"
    )]
    UnknownParameter(String),
    /// A wish of a VolumeAttributesClass that there is not.
    #[error("mutable_parameters: {0:?} is none of this driver; it knows: qosPolicy")]
    UnknownAttribute(String),
    /// No name.
    #[error("mutable_parameters.qosPolicy is empty; name a policy, or write none")]
    NamelessPolicy,
    /// A policy that its SAN does not have.
    #[error(
        "mutable_parameters.qosPolicy: the SAN of partition {partition} has no policy {name:?}; its administrator makes them"
    )]
    UnknownPolicy {
        /// Where.
        partition: SanName,
        /// What was asked for.
        name: String,
    },
    /// The kind of SAN has no such thing.
    #[error(
        "mutable_parameters.qosPolicy: a SAN of the kind of partition {partition} cannot have a volume under {name:?}"
    )]
    PolicyNotOffered {
        /// Where.
        partition: SanName,
        /// What was asked for.
        name: String,
    },
    /// Options for mkfs that are not offered, or not for the file system that is asked for.
    #[error("parameters.mkfsOptions")]
    MkfsOptions(#[source] MkfsOptionError),
    /// An encryption that is not offered.
    #[error("parameters.encryption")]
    Encryption(#[source] EncryptionError),
    /// A wait for paths that is not offered.
    #[error("parameters.noPathRetry")]
    NoPathRetry(#[source] NoPathRetryError),
    /// A partition that there is not.
    #[error(
        "parameters.partition: there is no partition {name:?}; there are: {}",
        names(known)
    )]
    UnknownPartition {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<SanName>,
    },
    /// The choice is open.
    #[error("parameters.partition is required, for there are several: {}", names(.0))]
    WhichPartition(Vec<SanName>),
    /// The topology and the partitions that there are have nothing in common.
    #[error(
        "accessibility_requirements: the volume is to be reachable from {}, and may be made in {}",
        partitions(asked),
        partitions(offered)
    )]
    NotThere {
        /// The partitions of the topology.
        asked: Vec<SanName>,
        /// Where it could be made.
        offered: Vec<SanName>,
    },
    /// Not one to compare with.
    #[error("base_snapshot_id: {base} is no snapshot of the volume that {target} was cut from")]
    OtherBase {
        /// What was to be compared with.
        base: AnySnapshotId,
        /// What is asked about.
        target: AnySnapshotId,
    },
    /// Beyond the snapshot.
    #[error("starting_offset is {from}, and the snapshot has {size} bytes")]
    Offset {
        /// Where it was to begin.
        from: u64,
        /// The snapshot's size.
        size: u64,
    },
    /// Larger than the operator allows.
    #[error(
        "capacity_range asks for {size} bytes; partition {partition} allows {most} a volume (maxvolumesizeingb)"
    )]
    AboveMaximum {
        /// Whose rule.
        partition: SanName,
        /// Asked for.
        size: u64,
        /// Allowed.
        most: u64,
    },
    /// All volumes together would be larger than the operator allows.
    #[error(
        "partition {partition} allows {most} bytes of volumes together (maxtotalvolumesizeingb); {used} are there, and {more} more do not fit"
    )]
    AboveTotal {
        /// Whose rule.
        partition: SanName,
        /// What there is.
        used: u64,
        /// What is asked for.
        more: u64,
        /// Allowed.
        most: u64,
    },
    /// An id of ours whose SAN is not configured.
    #[error(
        "what the id names belongs to partition {0}, which the config file does not have (as that family)"
    )]
    PartitionGone(SanName),
    /// Written down by hand.
    #[error(
        "volume_id: {0} was written down by hand, and no SAN of this driver knows it; what is to be done on its SAN, its administrator does (set persistentVolumeReclaimPolicy: Retain)"
    )]
    ByHand(VolumeId),
    /// No volume has such a size.
    #[error("capacity_range cannot be met")]
    Size(#[source] SizeError),
    /// The volume is not there.
    #[error("volume_id: there is no volume {0}")]
    NoVolume(VolumeId),
    /// A parameter of a snapshot.
    #[error(
        "parameters: {0:?} is not a parameter of it; a snapshot knows archive and retainOnSan, a group of them none"
    )]
    SnapshotParameter(String),
    /// Neither yes nor no.
    #[error("parameters.retainOnSan: {0:?} is none; write true or false")]
    Retain(String),
    /// Without an archive there is nothing else than the SAN's cut.
    #[error("parameters.retainOnSan is for snapshots that go to an archive; set archive, too")]
    RetainWhat,
    /// An archive that there is not.
    #[error(
        "parameters.archive: there is no archive {name:?}; the config file has: {}",
        known.join(", ")
    )]
    UnknownArchive {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The name cannot be an archived snapshot's.
    #[error(
        "name: {0:?} cannot be archived: it must be of A-Z, a-z, 0-9, '.', '_', ':' and '-', and with the names of archive and partition have no more than 110 characters"
    )]
    NotArchivable(String),
    /// Somebody else's.
    #[error("the archive holds another snapshot as {0}, of another volume")]
    OtherArchived(ArchivedId),
    /// Nobody can do it.
    #[error(
        "no archiver reaches archive {archive}{}: {reasons}",
        of_partition(partition.as_ref())
    )]
    NoArchiver {
        /// By whose scpaths, if that matters.
        partition: Option<SanName>,
        /// Which archive.
        archive: String,
        /// Why not, one by one.
        reasons: String,
    },
    /// It has a volume and does not answer.
    #[error(
        "archiver {0} has the volume and does not answer; another one takes over when it stays silent"
    )]
    Silent(String),
    /// An archiver said no, or nothing.
    #[error(transparent)]
    Archiver(ArchiverError),
    /// The SAN has the cut, the archive does not yet.
    #[error("{id} is cut and not in the archive yet: {reason}")]
    Waits {
        /// Which.
        id: ArchivedId,
        /// What is in the way.
        reason: String,
    },
    /// It takes its time.
    #[error(
        "the volume is being filled with {id}, {done} of {total} bytes; repeat the call{}",
        trouble.as_ref().map(|why| format!(" (it waits: {why})")).unwrap_or_default()
    )]
    Restoring {
        /// With what.
        id: ArchivedId,
        /// Bytes that are in it.
        done: u64,
        /// Bytes that it will have.
        total: u64,
        /// What is in the way.
        trouble: Option<String>,
    },
    /// The archive's content stands against it.
    #[error("no volume can be made of {id}: {reason}")]
    Unrestorable {
        /// Of what.
        id: ArchivedId,
        /// Why not; it names the object.
        reason: String,
        /// What that means.
        fault: Fault,
    },
    /// Another call, or the reconciler, is at it.
    #[error(transparent)]
    Busy(#[from] InflightError),
    /// A copy is made where its origin is.
    #[error(
        "parameters.partition is {asked}, and {origin} is in {}: a copy is made beside what it is made of; leave the parameter out, or copy the data",
        told_place(origin)
    )]
    OriginElsewhere {
        /// What is to be copied.
        origin: Origin,
        /// What was asked for.
        asked: SanName,
    },
    /// There is nothing to copy.
    #[error("volume_content_source: there is no {0}")]
    NoOrigin(Origin),
    /// A copy is never smaller.
    #[error("a copy of {origin} is never smaller than that")]
    OriginSize {
        /// What is to be copied.
        origin: Origin,
        #[source]
        source: SizeError,
    },
    /// What is in the clear is copied as it is.
    #[error(
        "parameters.encryption: {0} is in the clear, and so is a copy of it; use a StorageClass without encryption"
    )]
    ClearOrigin(Origin),
    /// What is encrypted is copied as it is, its LUKS header too.
    #[error(
        "parameters.encryption: {0} is encrypted (luks2), and so is a copy of it; use a StorageClass with encryption: luks2, and a Secret with the passphrase of what is copied"
    )]
    SealedOrigin(Origin),
    /// The snapshot is not there.
    #[error("snapshot_id: there is no snapshot {0}")]
    NoSnapshot(AnySnapshotId),
    /// It goes with the others.
    #[error(
        "snapshot_id: {snapshot} was cut together with others as {group} and is deleted with them (DeleteVolumeGroupSnapshot)"
    )]
    Member {
        /// Which.
        snapshot: SnapshotId,
        /// Its group.
        group: GroupId,
    },
    /// The group is not there.
    #[error("group_snapshot_id: there is no group of snapshots {0}")]
    NoGroup(GroupId),
    /// The caller and the SAN disagree.
    #[error(
        "snapshot_ids must be exactly the members of {group}; this is not so with: {}",
        other.join(", ")
    )]
    OtherMembers {
        /// The group.
        group: GroupId,
        /// Members that are not named, and what is named and is none.
        other: Vec<String>,
    },
    /// No cut goes through several SANs.
    #[error(
        "source_volume_ids: the volumes are in several partitions ({}); a group is cut on one SAN",
        names(.0)
    )]
    SeveralSans(Vec<SanName>),
    /// The SAN gave back a snapshot without what was noted with it.
    #[error("the SAN returned a snapshot without the notes that it was made with")]
    Unnoted,
    /// Not a place in a listing.
    #[error(
        "starting_token: {0:?} is not a token of this driver, or its partition is gone; list from the start"
    )]
    Token(String),
    /// The SAN, or the way to it.
    #[error("partition {partition}")]
    San {
        /// Which.
        partition: SanName,
        #[source]
        source: SanError,
    },
    /// The SAN refuses something with a volume that is on its way to or from an archive. It is ours alone, so most often another controller is at it.
    #[error(
        "partition {partition}: a volume that serves an archive cannot be used now; if it is not another controller that is at it, look for who uses it"
    )]
    Helper {
        /// Which.
        partition: SanName,
        #[source]
        source: SanError,
    },
}

impl ControllerError {
    /// Of a token that is not ours there may be any amount: what is told of it is cut.
    pub(super) fn token(text: &str) -> Self {
        Self::Token(text.chars().take(SHOWN).collect())
    }

    pub(super) fn san(partition: &SanName) -> impl FnOnce(SanError) -> Self {
        let partition = partition.clone();
        move |source| Self::San { partition, source }
    }

    /// As [`Self::san`], of a carrier or a filler: that one is gone or in use stands against nothing for good.
    pub(super) fn helper(partition: &SanName) -> impl FnOnce(SanError) -> Self {
        let partition = partition.clone();
        move |source| match source.fault() {
            Fault::NotFound | Fault::Precondition => Self::Helper { partition, source },
            _ => Self::San { partition, source },
        }
    }
}

impl Faulted for ControllerError {
    fn fault(&self) -> Fault {
        match self {
            Self::UnknownParameter(_)
            | Self::UnknownAttribute(_)
            | Self::NamelessPolicy
            | Self::UnknownPolicy { .. }
            | Self::PolicyNotOffered { .. }
            | Self::MkfsOptions(_)
            | Self::Encryption(_)
            | Self::NoPathRetry(_)
            | Self::UnknownPartition { .. }
            | Self::WhichPartition(_)
            | Self::SnapshotParameter(_)
            | Self::Retain(_)
            | Self::RetainWhat
            | Self::UnknownArchive { .. }
            | Self::NotArchivable(_)
            | Self::OriginElsewhere { .. }
            | Self::ClearOrigin(_)
            | Self::SealedOrigin(_)
            | Self::Member { .. }
            | Self::OtherMembers { .. }
            | Self::OtherBase { .. } => Fault::Invalid,
            Self::PartitionGone(_) | Self::ByHand(_) | Self::SeveralSans(_) => Fault::Precondition,
            Self::AboveMaximum { .. } | Self::Offset { .. } => Fault::OutOfRange,
            Self::OriginSize { source, .. } => source.fault(),
            Self::NotThere { .. } | Self::AboveTotal { .. } => Fault::Exhausted,
            Self::Size(size) => size.fault(),
            Self::NoVolume(_) | Self::NoOrigin(_) | Self::NoSnapshot(_) | Self::NoGroup(_) => {
                Fault::NotFound
            }
            Self::OtherArchived(_) => Fault::Conflict,
            // It may be cut.
            Self::Unnoted
            | Self::NoArchiver { .. }
            | Self::Silent(_)
            | Self::Archiver(_)
            | Self::Helper { .. }
            | Self::Waits { .. } => Fault::MaybeDone,
            Self::Restoring { .. } => Fault::Busy,
            Self::Unrestorable { fault, .. } => *fault,
            Self::Busy(error) => error.fault(),
            // CSI: ABORTED tells the caller to list again without a token.
            Self::Token(_) => Fault::Busy,
            Self::San { source, .. } => source.fault(),
        }
    }
}

fn told_place(origin: &Origin) -> String {
    origin
        .partition()
        .map_or_else(|| "an archive".to_owned(), ToString::to_string)
}

/// As [`names`], for a list that may be empty.
fn partitions(list: &[SanName]) -> String {
    if list.is_empty() {
        return "no partition of this driver".to_owned();
    }
    format!("partition {}", names(list))
}

fn of_partition(partition: Option<&SanName>) -> String {
    partition.map_or_else(String::new, |name| {
        format!(" over scpaths of partition {name}")
    })
}

fn names(names: &[SanName]) -> String {
    let names: Vec<&str> = names.iter().map(SanName::as_str).collect();
    names.join(", ")
}
