//! What there is to know of a path without opening it; and a file that gets another name.

use std::io;
use std::path::Path;

use super::Host;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A block device.
    BlockDevice,
    /// Anything else.
    Other,
}

/// The result of lstat(2), as far as we use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// The bytes that are allocated for it.
    pub allocated: u64,
    /// Major and minor number, if it is a device.
    pub device: (u64, u64),
    /// What owner, group and others may do with it, as `chmod` has it.
    pub mode: u32,
}

/// The space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total: u64,
    /// What nobody uses, in bytes; some of it may be kept for root.
    pub free: u64,
    /// What an unprivileged writer can still use, in bytes.
    pub available: u64,
    /// The files that it can hold; 0 where the file system makes them as it needs them.
    pub inodes: u64,
    /// The files that it can still take.
    pub free_inodes: u64,
}

/// A run of bytes of a file that the file system keeps somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// Where in the file it begins.
    pub offset: u64,
    /// In bytes; at least 1.
    pub length: u64,
    /// Where it lies below, `None` when the file system does not say it exactly. Two files with one place hold the same bytes there.
    pub place: Option<u64>,
    /// Another file has these blocks too, so that writing here needs new ones.
    pub is_shared: bool,
}

impl FileExtent {
    /// The offset just after it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

impl Host {
    /// Gives the regular file `from` the name `to` on the same file system, durably, and nothing else: nothing may stand at `to`, the file may have no third name, and
    /// nobody may have it open, neither a program nor the kernel (a loop device, a target).
    ///
    /// # Errors
    /// As the system reports it; `EAGAIN` when somebody has it open, `EMLINK` when it has another name as well, `EEXIST` when something stands at `to`.
    pub fn move_unused_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("move", to.display(), || {
            self.world.move_unused_file(from, to)
        })
    }
}
