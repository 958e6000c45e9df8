//! Why a controller's workflow ended without success.

use crate::fabric::NoPathRetryError;
use crate::fault::{Fault, Faulted};
use crate::san::SanError;
use crate::volume::{
    EncryptionError, GroupId, MkfsOptionError, SanName, SizeError, SnapshotId, VolumeId,
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
        base: SnapshotId,
        /// What is asked about.
        target: SnapshotId,
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
    #[error("parameters: {0:?} is not a parameter of a snapshot; there are none")]
    SnapshotParameter(String),
    /// A copy is made where its origin is.
    #[error(
        "parameters.partition is {asked}, and {origin} is in {}: a copy is made beside what it is made of; leave the parameter out, or copy the data",
        origin.partition()
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
    NoSnapshot(SnapshotId),
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
}

impl Faulted for ControllerError {
    fn fault(&self) -> Fault {
        match self {
            Self::UnknownParameter(_)
            | Self::MkfsOptions(_)
            | Self::Encryption(_)
            | Self::NoPathRetry(_)
            | Self::UnknownPartition { .. }
            | Self::WhichPartition(_)
            | Self::SnapshotParameter(_)
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
            // It may be cut.
            Self::Unnoted => Fault::MaybeDone,
            // CSI: ABORTED tells the caller to list again without a token.
            Self::Token(_) => Fault::Busy,
            Self::San { source, .. } => source.fault(),
        }
    }
}

/// As [`names`], for a list that may be empty.
fn partitions(list: &[SanName]) -> String {
    if list.is_empty() {
        return "no partition of this driver".to_owned();
    }
    format!("partition {}", names(list))
}

fn names(names: &[SanName]) -> String {
    let names: Vec<&str> = names.iter().map(SanName::as_str).collect();
    names.join(", ")
}
