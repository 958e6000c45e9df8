//! The file systems that we make, and what is particular to each.

/// A file system that can be made, repaired and mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs, on one device.
    Btrfs,
}

impl Kind {
    /// Its name for the kernel and for blkid.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// An option that every mount of it has. A clone of an XFS bears its origin's UUID, and the kernel mounts no UUID twice (R-FS-1).
    #[must_use]
    pub fn always(self) -> Option<&'static str> {
        match self {
            Self::Ext4 | Self::Btrfs => None,
            Self::Xfs => Some("nouuid"),
        }
    }

    /// The option that keeps a mount from replaying the journal, which writes (R-FS-2).
    #[must_use]
    pub fn without_recovery(self) -> &'static str {
        match self {
            Self::Ext4 => "noload",
            Self::Xfs => "norecovery",
            Self::Btrfs => "rescue=nologreplay",
        }
    }
}
