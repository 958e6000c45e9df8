//! Why a controller's workflow ended without success.

use crate::fabric::NoPathRetryError;
use crate::fault::{Fault, Faulted};
use crate::san::SanError;
use crate::volume::{EncryptionError, MkfsOptionError, SanName, SizeError, VolumeId};

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
        "the volume belongs to partition {0}, which the config file does not have (as that family)"
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
            | Self::WhichPartition(_) => Fault::Invalid,
            Self::PartitionGone(_) | Self::ByHand(_) => Fault::Precondition,
            Self::AboveMaximum { .. } => Fault::OutOfRange,
            Self::NotThere { .. } | Self::AboveTotal { .. } => Fault::Exhausted,
            Self::Size(size) => size.fault(),
            Self::NoVolume(_) => Fault::NotFound,
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
