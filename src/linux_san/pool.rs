//! The pool: where the bytes of volumes and snapshots are, and the proof that it is the right one.
//!
//! [`Pool`] is what a kind of pool must be able to do, and no more; the order of steps around it is the engine's, who alone calls this. Nothing is
//! made, removed or served before the pool has proved that it is the one of the state file: an empty mount point looks like a pool without volumes.
//!
//! | File | What it holds |
//! |---|---|
//! | `reflink` | files that share blocks, on XFS or btrfs |
//! | `strays` | files in such a pool that are no volume yet |
//! | `lvm`, `lvm_tool` | thin volumes of LVM, and LVM's tools |
//! | `extents` | which bytes differ between two cuts, by where they lie |

mod extents;
mod lvm;
mod lvm_tool;
mod reflink;
mod strays;

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use extents::{Extent, ExtentPage};
pub(super) use lvm::LvmThin;
pub(super) use reflink::Reflink;

use super::format::FormatError;
use super::names::{Serial, SnapshotKey, VolumeKey};
use super::room::{self, Room};
use super::state::{SnapshotRecord, VolumeRecord};
use crate::fault::{Fault, Faulted};
use crate::host::{ExecError, Space};

/// Sizes are multiples of this.
pub(super) const GRANULE: u64 = 1 << 20;
/// Why the pool cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The directory itself.
    #[error("the pool {0} is not a directory")]
    NoDirectory(PathBuf),
    /// An empty mount point looks like this.
    #[error(
        "{0} holds no pool.json: the pool's file system may not be mounted there; nothing is served and nothing was made"
    )]
    NotMounted(PathBuf),
    /// Another pool is mounted there.
    #[error("{path} is the pool {found}; the state file belongs to the pool {expected}")]
    OtherPool {
        /// The directory.
        path: PathBuf,
        /// Which it is.
        found: String,
        /// Which it should be.
        expected: String,
    },
    /// No state file, but volumes.
    #[error(
        "{0} holds volumes, but there is no state file that knows them; restore the state file (or empty the pool, if its data may go)"
    )]
    StateLost(PathBuf),
    /// Not XFS or btrfs.
    #[error(
        "the file system of {path} cannot share blocks between files; a pool needs XFS (reflink=1) or btrfs"
    )]
    NoReflink {
        /// The directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("{what} {path}")]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A marker or sidecar.
    #[error("a record of the pool")]
    Record(#[from] FormatError),
    /// What is left is for the volumes that are there.
    #[error(
        "the pool {path} is full: {available} bytes are left, and nothing new is made of the last {reserve}"
    )]
    Full {
        /// The pool.
        path: PathBuf,
        /// What is left.
        available: u64,
        /// What is kept back.
        reserve: u64,
    },
    /// No volume of this size.
    #[error(
        "size_bytes is {size}; a volume here has {minimum} to {maximum} bytes, a multiple of {GRANULE}"
    )]
    Size {
        /// What was asked for.
        size: u64,
        /// The least.
        minimum: u64,
        /// The most.
        maximum: u64,
    },
    /// A clone begins with all of its source.
    #[error("size_bytes is {size}; a copy of {source_size} bytes cannot be smaller")]
    Smaller {
        /// What was asked for.
        size: u64,
        /// What there is to copy.
        source_size: u64,
    },
    /// XFS and btrfs share the blocks of one file at a moment, not of several.
    #[error(
        "this pool holds its volumes as files, whose blocks are shared one file after the other: it cannot cut {0} volumes at one moment; a group needs a pool on LVM-thin"
    )]
    NotTogether(usize),
    /// A tool of the host.
    #[error("{command} gave no result")]
    Tool {
        /// Its command.
        command: String,
        #[source]
        source: ExecError,
    },
    /// A tool of the host refused.
    #[error("{command}: {said}")]
    ToolFailed {
        /// Its command.
        command: String,
        /// What it said.
        said: String,
    },
    /// A tool of the host said something that we do not know.
    #[error("{command} printed something that is not its report")]
    ToolWords {
        /// Its command.
        command: String,
    },
    /// It is not there for the taking.
    #[error("object: {object:?} in the pool cannot become a volume: {why}; nothing was changed")]
    Stray {
        /// As the caller names it.
        object: String,
        /// Why, and what to do.
        why: String,
    },
    /// Volumes have whole granules.
    #[error(
        "object: {object:?} has {size} bytes, and a volume has a multiple of {GRANULE}; make it longer first (truncate --size={longer} for a file); nothing was changed"
    )]
    StraySize {
        /// As the caller names it.
        object: String,
        /// What it has.
        size: u64,
        /// What it would need.
        longer: u64,
    },
    /// Not there, or not safe to use.
    #[error("the thin pool {pool}: {why}")]
    UnfitThinPool {
        /// `VG/POOL`.
        pool: PathBuf,
        /// Why, and what to do.
        why: &'static str,
    },
    /// LVM's tools could, by a copy of the pool's metadata.
    #[error(
        "a pool on LVM-thin does not tell which bytes of a snapshot are allocated or have changed yet"
    )]
    ExtentsUntold,
    /// The file system does not tell where the blocks are.
    #[error("the file system of {path} does not say which bytes are allocated")]
    NoExtents {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// LIO would make the file and serve zeros.
    #[error("the image {0} is gone; the volume is not served")]
    ImageAbsent(PathBuf),
    /// Cut or foreign.
    #[error("the image {path} has {found} bytes instead of {expected}; the volume is not served")]
    ImageSize {
        /// The image.
        path: PathBuf,
        /// What it has.
        found: u64,
        /// What it should have.
        expected: u64,
    },
    /// An image of another volume, or of another time.
    #[error(
        "{path} says that the image is not the one the state file knows; the volume is not served"
    )]
    Sidecar {
        /// The sidecar.
        path: PathBuf,
    },
}

impl PoolError {
    /// Whether what failed may still be going on, so that what it makes cannot be cleared away yet.
    pub(super) fn is_under_way(&self) -> bool {
        let Self::Tool { source, .. } = self else {
            return false;
        };
        matches!(source, ExecError::StillRunning { .. })
    }
}

impl Faulted for PoolError {
    fn fault(&self) -> Fault {
        match self {
            Self::Size { .. } | Self::Smaller { .. } => Fault::OutOfRange,
            Self::Full { .. } => Fault::Exhausted,
            Self::Io { source, .. } | Self::Record(FormatError::Write { source, .. })
                if is_full(source) =>
            {
                Fault::Exhausted
            }
            Self::Io { .. }
            | Self::Record(_)
            | Self::Tool { .. }
            | Self::ToolFailed { .. }
            | Self::ToolWords { .. } => Fault::MaybeDone,
            _ => Fault::Precondition,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT))
}

/// Whose bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Volume(VolumeKey),
    Snapshot(SnapshotKey),
}

impl Owner {
    fn key(&self) -> String {
        match self {
            Self::Volume(key) => key.to_string(),
            Self::Snapshot(key) => key.to_string(),
        }
    }
}

/// What the state file knows of the bytes of a volume or snapshot, and the pool has noted beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) owner: Owner,
    pub(super) serial: Serial,
    pub(super) size: u64,
    pub(super) generation: u64,
}

impl Image {
    pub(super) fn of_volume(key: &VolumeKey, volume: &VolumeRecord) -> Self {
        Self {
            owner: Owner::Volume(key.clone()),
            serial: volume.serial.clone(),
            size: volume.size,
            generation: volume.generation,
        }
    }

    pub(super) fn of_snapshot(key: &SnapshotKey, snapshot: &SnapshotRecord) -> Self {
        Self {
            owner: Owner::Snapshot(key.clone()),
            serial: snapshot.serial.clone(),
            size: snapshot.size,
            generation: 1,
        }
    }
}

/// A snapshot to be cut from a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) volume: Image,
    pub(super) snapshot: Image,
}

/// What the kernel serves of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    File(PathBuf),
    Device(PathBuf),
}

/// Which extents to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Nothing before this offset.
    pub(super) from: u64,
    /// At most so many.
    pub(super) most: usize,
}

/// One pool of any kind. Whatever is made here is on disk when the call answers OK; whatever fails leaves at most what `remove` takes away.
pub(super) trait Pool: Send + Sync {
    /// Which pool this is.
    fn id(&self) -> &str;
    /// What people know it by.
    fn root(&self) -> &Path;
    /// All of it, and what can still be written.
    fn space(&self) -> Result<Space, PoolError>;
    /// Makes an image of zeros.
    fn create(&self, image: &Image) -> Result<(), PoolError>;
    /// Makes images of volumes as they are at one moment, all or none of them to be kept. Writes that nodes were told are done are in them.
    fn cut(&self, cuts: &[Cut]) -> Result<(), PoolError>;
    /// Makes a volume's image as a copy, as long as the volume is to be.
    fn copy(&self, from: &Image, to: &Image) -> Result<(), PoolError>;
    /// Lets an image become what `image` says, from what it was at the size `before` and one generation earlier, or from anything in between. Every other
    /// one is refused.
    fn grow(&self, image: &Image, before: u64) -> Result<(), PoolError>;
    /// What in the pool belongs to nobody and is called `object`, by the name that [`Pool::take`] knows it by. Looks at nothing.
    fn stray_name(&self, object: &str) -> Result<String, PoolError>;
    /// The bytes that it has. Refuses what cannot be taken.
    fn stray_size(&self, stray: &str) -> Result<u64, PoolError>;
    /// Lets it be an image from now on, as it is. Refused while anybody uses it.
    fn take(&self, stray: &str, image: &Image) -> Result<(), PoolError>;
    /// Lets an image that was taken only half, or not at all, be what it was.
    fn give_back(&self, owner: &Owner, stray: &str) -> Result<(), PoolError>;
    /// Removes an image; absent is fine.
    fn remove(&self, owner: &Owner) -> Result<(), PoolError>;
    /// Proves that the image is there and is the one that the state file knows. Returns its allocated bytes.
    fn check(&self, image: &Image) -> Result<u64, PoolError>;
    /// The bytes that each image has allocated; 0 when there is none. For people and reports, never for deciding.
    fn allocated(&self, owners: &[Owner]) -> Result<Vec<u64>, PoolError>;
    /// Whether some write to the image may need blocks that it does not have yet: it has holes, or blocks that others have too. `has_relatives` says whether, by what the state
    /// knows, others may have some.
    fn needs_room(&self, image: &Image, has_relatives: bool) -> Result<bool, PoolError>;
    /// Whether a look at the space costs a process.
    fn is_dear_to_look_at(&self) -> bool;
    /// What the kernel serves of a volume.
    fn backing(&self, key: &VolumeKey) -> Backing;
    /// The bytes of `image` that may be other than zero, or than those of `base`.
    fn extents(
        &self,
        image: &Image,
        base: Option<&Image>,
        look: Look,
    ) -> Result<ExtentPage, PoolError>;
}

impl dyn Pool {
    /// The same of one.
    pub(super) fn allocated_of(&self, owner: &Owner) -> Result<u64, PoolError> {
        let allocated = self.allocated(std::slice::from_ref(owner))?;
        Ok(allocated.first().copied().unwrap_or(0))
    }

    /// Refuses a size that no volume can have here, and anything once the pool is full.
    pub(super) fn check_room(&self, size: u64) -> Result<(), PoolError> {
        let space = self.space()?;
        let maximum = largest(space);
        if !(GRANULE..=maximum).contains(&size) || !size.is_multiple_of(GRANULE) {
            return Err(PoolError::Size {
                size,
                minimum: GRANULE,
                maximum,
            });
        }
        self.check_space()
    }

    /// The size of what belongs to nobody, if that is one that a volume can have.
    pub(super) fn weigh(&self, stray: &str) -> Result<u64, PoolError> {
        let size = self.stray_size(stray)?;
        if size != 0 && size.is_multiple_of(GRANULE) {
            return Ok(size);
        }
        Err(PoolError::StraySize {
            object: stray.to_owned(),
            size,
            longer: size.max(1).next_multiple_of(GRANULE),
        })
    }

    /// Refuses anything new once the pool is down to its reserve.
    pub(super) fn check_space(&self) -> Result<(), PoolError> {
        let space = self.space()?;
        if room::room(space) == Room::Reserved {
            return Err(PoolError::Full {
                path: self.root().to_owned(),
                available: space.available,
                reserve: room::reserve(space),
            });
        }
        Ok(())
    }
}

/// The largest volume: one that an otherwise empty pool could hold. Thin volumes together may promise more.
pub(super) fn largest(space: Space) -> u64 {
    space.total / GRANULE * GRANULE
}

fn look<T>(path: &Path, outcome: io::Result<T>) -> Result<T, PoolError> {
    outcome.map_err(|source| failed("looking at", path, source))
}

fn unfit(object: &str, why: &str) -> PoolError {
    PoolError::Stray {
        object: object.to_owned(),
        why: why.to_owned(),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PoolError {
    PoolError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
