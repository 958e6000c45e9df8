//! Why an archive's work was not done.

use std::io;

use super::chunk::ChunkError;
use super::manifest::ManifestError;
use super::names::SnapshotName;
use super::store::StoreError;
use crate::fault::{Fault, Faulted};

/// One variant for each step that can fail. Each says which object it was.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot is not there.
    #[error("the archive holds no snapshot {0}")]
    NoSnapshot(SnapshotName),
    /// It was deleted a while ago.
    #[error(
        "snapshot {0} was deleted from the archive; its name is free again when prune has taken away the rest"
    )]
    Deleted(SnapshotName),
    /// Another snapshot bears the name.
    #[error("the archive holds another snapshot {snapshot}: {found} bytes, not {wanted}")]
    Conflict {
        /// Which.
        snapshot: SnapshotName,
        /// How large the one there is.
        found: u64,
        /// How large ours is.
        wanted: u64,
    },
    /// A manifest cannot be used.
    #[error("object {object}")]
    Manifest {
        /// Its name.
        object: String,
        #[source]
        source: ManifestError,
    },
    /// A manifest that is in another's place.
    #[error("object {object} is the manifest of {found}")]
    Misplaced {
        /// Its name.
        object: String,
        /// Which snapshot it says.
        found: SnapshotName,
    },
    /// A chunk is not there.
    #[error("object {0} is missing")]
    Missing(String),
    /// A chunk is not what it should be.
    #[error("object {object}")]
    Chunk {
        /// Its name.
        object: String,
        #[source]
        source: ChunkError,
    },
    /// A chunk or manifest cannot be packed.
    #[error("what is read cannot be packed")]
    Pack(#[source] io::Error),
    /// The volume cannot be read.
    #[error("{length} bytes at {offset} cannot be read")]
    Read {
        /// Where.
        offset: u64,
        /// How much.
        length: usize,
        #[source]
        source: io::Error,
    },
    /// What is to be filled is too small.
    #[error("the snapshot has {needed} bytes, the target only {found}; nothing was written")]
    TooSmall {
        /// What it must hold.
        needed: u64,
        /// What it can.
        found: u64,
    },
    /// It cannot be written.
    #[error("{length} bytes at {offset} cannot be written; the target is incomplete")]
    Write {
        /// Where.
        offset: u64,
        /// How much.
        length: usize,
        #[source]
        source: io::Error,
    },
    /// It cannot be made durable.
    #[error("the target cannot be written out; it is incomplete")]
    Sync(#[source] io::Error),
    /// Prune gave it up, again and again.
    #[error(
        "prune gave this upload up {0} times, since it took longer than the lease; make that longer"
    )]
    Revoked(u32),
    /// What was put is not there any more, again and again.
    #[error("chunks that were put went away {0} times; is something else deleting in the archive?")]
    Unproven(u32),
}

impl Faulted for ArchiveError {
    fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::NoSnapshot(_) => Fault::NotFound,
            Self::Conflict { .. } => Fault::Conflict,
            Self::TooSmall { .. } => Fault::OutOfRange,
            Self::Deleted(_) => Fault::Precondition,
            Self::Manifest { source, .. } => source.fault(),
            Self::Chunk { source, .. } => source.fault(),
            Self::Misplaced { .. } | Self::Missing(_) => Fault::Precondition,
            Self::Pack(_) => Fault::Bug,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Sync(_)
            | Self::Revoked(_)
            | Self::Unproven(_) => Fault::MaybeDone,
        }
    }
}
