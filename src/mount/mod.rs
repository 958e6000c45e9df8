//! The mount table and what we add to it: staged file systems and the binds that publish them.
//!
//! Called by `node/`. The invariant: what is mounted is read from the kernel, never remembered; nothing is unmounted lazily, so "gone" means
//! that the kernel has written out and let go.

mod ensure;
mod options;
mod resolve;
mod table;

pub use ensure::{Bind, Mounting, ensure_bound, ensure_mounted, is_corrupted, remove_mount};
pub use options::{MountOptions, OptionError};
pub use resolve::resolve;
pub use table::{Mount, MountTable, TableError};

use std::io;
use std::path::PathBuf;

use crate::fault::{Fault, Faulted};

/// Why a mount was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount table could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Something of the path could not be looked at.
    #[error("{} cannot be looked at", path.display())]
    Look {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there.
    #[error("{} already holds {held}, not {wanted}", target.display())]
    Taken {
        /// Where.
        target: PathBuf,
        /// What is there.
        held: String,
        /// What should be.
        wanted: String,
    },
    /// mount(2) failed.
    #[error("mounting {} at {}", what.display(), target.display())]
    Mount {
        /// The device, or the path to bind.
        what: PathBuf,
        /// Where.
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    /// umount(2) failed.
    #[error("unmounting {}", target.display())]
    Unmount {
        /// Where.
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    /// After unmounting, something is mounted there still.
    #[error("{} is mounted again as often as it is unmounted", .0.display())]
    Endless(PathBuf),
}

impl Faulted for MountError {
    fn fault(&self) -> Fault {
        match self {
            Self::Taken { .. } => Fault::Conflict,
            Self::Unmount { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Fault::Precondition
            }
            // The device may be held by a tool that outlived us; that passes.
            Self::Mount { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Fault::MaybeDone
            }
            Self::Mount { .. } => Fault::Bug,
            Self::Table(_) | Self::Look { .. } | Self::Unmount { .. } | Self::Endless(_) => {
                Fault::MaybeDone
            }
        }
    }
}
