//! Why a work was not begun, or does not come to its end.

use std::io;
use std::path::PathBuf;

use crate::archive::{ArchiveError, StoreError};
use crate::attach::{AttachError, DetachError, LedgerError};
use crate::fault::{Fault, Faulted};
use crate::volume::SanName;

/// Why the owner of the stores does not open one.
pub type NotOpen = Box<dyn std::error::Error + Send + Sync>;

/// One variant for each step that can fail.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// A record could not be kept, read or removed.
    #[error("could not {what} {}", path.display())]
    Record {
        /// `read`, `write`, `remove`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A record holds something else.
    #[error(
        "{} is not a record of a work of version 1; if a newer sanpath wrote it, run that one here again",
        path.display()
    )]
    Form {
        /// Which file.
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The export is worked on for something else.
    #[error("volume {wwid} is worked on here for something else: {found}")]
    Other {
        /// Which.
        wwid: String,
        /// What.
        found: String,
    },
    /// It is being given up.
    #[error("the work on volume {0} is being given up here; repeat the call")]
    Leaving(String),
    /// It is not given up yet.
    #[error("the work on volume {0} still runs, and ends at its next look; repeat the call")]
    Running(String),
    /// No such archive.
    #[error("this archiver's config has no archive {0:?}")]
    NoArchive(String),
    /// What the archive is, or how it is reached.
    #[error("archive {archive}")]
    Open {
        /// Which.
        archive: String,
        /// What it means.
        fault: Fault,
        #[source]
        source: NotOpen,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transfer.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// No partition of this name.
    #[error("this archiver's config has no partition {0}")]
    NoPartition(SanName),
    /// Nothing to attach by.
    #[error("scpaths of partition {partition} lead to no portal that offers the volume: {reasons}")]
    NoPath {
        /// Whose.
        partition: SanName,
        /// Why not, path by path.
        reasons: String,
    },
    /// Attaching.
    #[error("the volume cannot be attached")]
    Attach(#[from] AttachError),
    /// The map.
    #[error("{} cannot be opened", path.display())]
    Image {
        /// Which device.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Detaching.
    #[error("the volume cannot be detached")]
    Detach(#[from] DetachError),
    /// The ledger.
    #[error("the ledger")]
    Ledger(#[from] LedgerError),
    /// No thread.
    #[error("no thread can be had")]
    Thread(#[source] io::Error),
}

impl WorkError {
    /// Whether trying again cannot help: the archive's own content stands against it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Archive(error) => matches!(
                error,
                ArchiveError::NoSnapshot(_)
                    | ArchiveError::Deleted(_)
                    | ArchiveError::Conflict { .. }
                    | ArchiveError::Manifest { .. }
                    | ArchiveError::Misplaced { .. }
                    | ArchiveError::Missing(_)
                    | ArchiveError::Chunk { .. }
                    | ArchiveError::TooSmall { .. }
            ),
            _ => false,
        }
    }
}

impl Faulted for WorkError {
    fn fault(&self) -> Fault {
        match self {
            Self::Other { .. } => Fault::Conflict,
            Self::Leaving(_) | Self::Running(_) => Fault::Busy,
            Self::NoArchive(_) => Fault::NotFound,
            Self::Open { fault, .. } => *fault,
            Self::Store(error) => error.fault(),
            Self::Archive(error) => error.fault(),
            Self::NoPartition(_) | Self::NoPath { .. } => Fault::Precondition,
            Self::Attach(error) => error.fault(),
            Self::Detach(error) => error.fault(),
            Self::Ledger(error) => error.fault(),
            Self::Record { .. } | Self::Form { .. } | Self::Image { .. } | Self::Thread(_) => {
                Fault::MaybeDone
            }
        }
    }
}
