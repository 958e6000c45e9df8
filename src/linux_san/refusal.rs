//! Why the rules of giving out say no. The state says it; callers are told.

use super::names::VolumeKey;
use crate::fabric::Iqn;
use crate::fault::{Fault, Faulted};

/// Why a volume is not given to a node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// Cloned machines, or one that was renamed while it had volumes.
    #[error(
        "the initiator {initiator} belongs to node {known}, which has volumes; {asked} must have a name of its own in /etc/iscsi/initiatorname.iscsi"
    )]
    OtherName {
        /// The initiator.
        initiator: Iqn,
        /// Whose it is.
        known: String,
        /// Who asks.
        asked: String,
    },
    /// Published once, and not to be shared.
    #[error("volume {key} is exported to node {node}")]
    Elsewhere {
        /// The volume.
        key: VolumeKey,
        /// Who has it.
        node: String,
    },
    /// The other way of access was given before.
    #[error("volume {key} is exported to node {node} with read_only {read_only}")]
    OtherAccess {
        /// The volume.
        key: VolumeKey,
        /// Who has it.
        node: String,
        /// How.
        read_only: bool,
    },
    /// The last unexport has not ended.
    #[error("volume {key} is still being taken away from node {node}")]
    StillLeaving {
        /// The volume.
        key: VolumeKey,
        /// From whom.
        node: String,
    },
    /// All numbers are taken.
    #[error("node {0} has no free LUN number")]
    NoLun(String),
    /// The same at a target.
    #[error("the target {0} has no free LUN number")]
    NoSlot(Iqn),
}

impl Faulted for Refusal {
    fn fault(&self) -> Fault {
        match self {
            Self::OtherName { .. } | Self::Elsewhere { .. } => Fault::Precondition,
            Self::OtherAccess { .. } => Fault::Conflict,
            Self::StillLeaving { .. } => Fault::Busy,
            Self::NoLun(_) | Self::NoSlot(_) => Fault::Exhausted,
        }
    }
}
