//! How a volume is to be used: as a file system or raw, and by whom.

use serde::{Deserialize, Serialize};

/// The file systems that a node can make and mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystemKind {
    /// ext4, the one used when the caller names none.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystemKind {
    /// Its name for the kernel, mkfs and blkid.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The file system that is called `name`; the empty name means ext4.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "" | "ext4" => Some(Self::Ext4),
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }
}

/// What stands at the target path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessType {
    /// A mounted file system.
    Mount {
        /// Which.
        kind: FileSystemKind,
        /// Mount options, one to an element.
        flags: Vec<String>,
    },
    /// The block device itself.
    Block,
}

/// Who may use the volume at the same time (csi.v1 `VolumeCapability.AccessMode`, same numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessMode {
    /// One node, reading and writing.
    SingleNodeWriter,
    /// One node, reading.
    SingleNodeReader,
    /// Many nodes, reading.
    MultiNodeReader,
    /// One node writing, others reading.
    MultiNodeSingleWriter,
    /// Many nodes writing.
    MultiNodeMultiWriter,
    /// One node, one place on it.
    SingleNodeSingleWriter,
    /// One node, many places on it.
    SingleNodeMultiWriter,
}

impl AccessMode {
    /// Whether more than one node may have the volume at a time.
    #[must_use]
    pub fn is_shared(self) -> bool {
        matches!(
            self,
            Self::MultiNodeReader | Self::MultiNodeSingleWriter | Self::MultiNodeMultiWriter
        )
    }

    /// Whether it is one of the two modes that say how many places on the one node may show the volume. `SingleNodeWriter` leaves it open:
    /// orchestrators send it to drivers without these modes, for volumes that several pods of a node share.
    #[must_use]
    pub fn counts_places(self) -> bool {
        matches!(
            self,
            Self::SingleNodeSingleWriter | Self::SingleNodeMultiWriter
        )
    }

    /// Whether a volume staged for `self` is staged as `other` wants it. An orchestrator that learns of the finer modes by an upgrade of ours
    /// names one of them for what it has staged as `SingleNodeWriter`.
    #[must_use]
    pub fn stages_like(self, other: Self) -> bool {
        let coarse = |mode: Self| {
            if mode.counts_places() {
                Self::SingleNodeWriter
            } else {
                mode
            }
        };
        coarse(self) == coarse(other)
    }

    /// Whether nobody writes.
    #[must_use]
    pub fn is_reader(self) -> bool {
        matches!(self, Self::SingleNodeReader | Self::MultiNodeReader)
    }
}

/// One way of using a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// As a file system or raw.
    pub access: AccessType,
    /// By whom.
    pub mode: AccessMode,
}

impl Capability {
    /// Whether a volume staged for `self` is staged as `other` wants it, see [`AccessMode::stages_like`].
    #[must_use]
    pub fn stages_like(&self, other: &Self) -> bool {
        self.access == other.access && self.mode.stages_like(other.mode)
    }

    /// Why this use is not offered, if it is not: a file system that several nodes write would destroy itself.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        let written_by_many = matches!(
            self.mode,
            AccessMode::MultiNodeMultiWriter | AccessMode::MultiNodeSingleWriter
        );
        match self.access {
            AccessType::Mount { .. } if written_by_many => Some(
                "access_mode: a file system cannot be mounted by several nodes while one writes; use a block volume",
            ),
            _ => None,
        }
    }
}
