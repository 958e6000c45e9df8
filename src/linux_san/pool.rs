//! The pool: a directory on a file system with reflink that holds one sparse image per volume.
//!
//! ```text
//! pool.json            which pool this is
//! volumes/KEY.img      the bytes
//! volumes/KEY.json     whose bytes: serial, size, generation
//! ```
//!
//! Nothing is made, removed or served here before `pool.json` says that this is the pool of the state file: an empty mount point
//! looks like a pool without volumes. The engine calls this; nobody else knows the layout.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::format::{self, FormatError, VERSION};
use super::names::{Serial, VolumeKey};
use super::state::VolumeRecord;
use crate::fault::{Fault, Faulted};
use crate::host::{FileKind, Host, Space, Stat};

/// Sizes are multiples of this.
pub(super) const GRANULE: u64 = 1 << 20;
/// What one reflink is tried with: a whole block of any file system.
const PROBE_BYTES: usize = 64 << 10;

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
    /// The file system is full.
    #[error("the pool {path} is full: {available} bytes are left")]
    Full {
        /// The directory.
        path: PathBuf,
        /// What is left.
        available: u64,
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

impl Faulted for PoolError {
    fn fault(&self) -> Fault {
        match self {
            Self::Size { .. } => Fault::OutOfRange,
            Self::Full { .. } => Fault::Exhausted,
            Self::Io { source, .. } | Self::Record(FormatError::Write { source, .. })
                if is_full(source) =>
            {
                Fault::Exhausted
            }
            Self::Io { .. } | Self::Record(_) => Fault::MaybeDone,
            _ => Fault::Precondition,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    version: u32,
    pool_id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    version: u32,
    key: VolumeKey,
    serial: Serial,
    size: u64,
    generation: u64,
}

impl Sidecar {
    fn of(key: &VolumeKey, volume: &VolumeRecord) -> Self {
        Self {
            version: VERSION,
            key: key.clone(),
            serial: volume.serial.clone(),
            size: volume.size,
            generation: volume.generation,
        }
    }
}

/// The pool of one state file.
pub(super) struct Pool {
    host: Host,
    root: PathBuf,
    id: String,
}

impl Pool {
    /// The pool that the state file knows, and no other.
    pub(super) fn open(host: &Host, root: &Path, id: &str) -> Result<Self, PoolError> {
        let pool = Self {
            host: host.clone(),
            root: root.to_owned(),
            id: id.to_owned(),
        };
        pool.prove()?;
        Ok(pool)
    }

    /// A pool without volumes for a new state file: an empty one that an earlier first start left, or a new one.
    pub(super) fn ensure_empty(host: &Host, root: &Path) -> Result<Self, PoolError> {
        let stat = look(root, host.find_stat(root))?;
        if stat.is_none_or(|stat| stat.kind != FileKind::Directory) {
            return Err(PoolError::NoDirectory(root.to_owned()));
        }
        let volumes = root.join("volumes");
        if !look(&volumes, host.list(&volumes))?.is_empty() {
            return Err(PoolError::StateLost(root.to_owned()));
        }
        let marker: Option<Marker> = format::find(host, &root.join("pool.json"))?;
        let id = match marker {
            Some(marker) => marker.pool_id,
            None => Self::initialise(host, root)?,
        };
        Self::open(host, root, &id)
    }

    fn initialise(host: &Host, root: &Path) -> Result<String, PoolError> {
        ensure_reflink(host, root)?;
        let volumes = root.join("volumes");
        host.ensure_directory(&volumes)
            .map_err(|source| failed("making", &volumes, source))?;
        let id = String::from(VolumeKey::random());
        let marker = Marker {
            version: VERSION,
            pool_id: id.clone(),
        };
        format::replace(host, &root.join("pool.json"), &marker)?;
        Ok(id)
    }

    /// Refuses when the pool is not there, or is another.
    fn prove(&self) -> Result<(), PoolError> {
        let marker: Option<Marker> = format::find(&self.host, &self.root.join("pool.json"))?;
        match marker {
            Some(marker) if marker.pool_id == self.id => Ok(()),
            Some(marker) => Err(PoolError::OtherPool {
                path: self.root.clone(),
                found: marker.pool_id,
                expected: self.id.clone(),
            }),
            None => Err(PoolError::NotMounted(self.root.clone())),
        }
    }

    /// Which pool this is.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The bytes of a volume.
    pub(super) fn image(&self, key: &VolumeKey) -> PathBuf {
        self.root.join("volumes").join(format!("{key}.img"))
    }

    fn sidecar(&self, key: &VolumeKey) -> PathBuf {
        self.root.join("volumes").join(format!("{key}.json"))
    }

    /// The space of the pool's file system.
    pub(super) fn space(&self) -> Result<Space, PoolError> {
        self.prove()?;
        look(&self.root, self.host.space(&self.root))
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
        if space.available < GRANULE {
            return Err(PoolError::Full {
                path: self.root.clone(),
                available: space.available,
            });
        }
        Ok(())
    }

    /// Makes the files of a volume. The image first: a sidecar always speaks of an image that is whole.
    pub(super) fn create(&self, key: &VolumeKey, volume: &VolumeRecord) -> Result<(), PoolError> {
        self.prove()?;
        let image = self.image(key);
        self.host
            .create_sparse(&image, volume.size)
            .map_err(|source| failed("making", &image, source))?;
        let sidecar = Sidecar::of(key, volume);
        Ok(format::replace(&self.host, &self.sidecar(key), &sidecar)?)
    }

    /// Lets the image and its sidecar become what `volume` says, from what they were at the size `before` and one generation earlier,
    /// or from anything in between. Every other image is refused. The image first, as at its making.
    pub(super) fn grow(
        &self,
        key: &VolumeKey,
        volume: &VolumeRecord,
        before: u64,
    ) -> Result<(), PoolError> {
        self.prove()?;
        let image = self.image(key);
        let found = self.find_image(&image)?.size;
        if found != before && found != volume.size {
            return Err(PoolError::ImageSize {
                path: image,
                found,
                expected: before,
            });
        }
        let (path, after) = (self.sidecar(key), Sidecar::of(key, volume));
        let sidecar: Option<Sidecar> = format::find(&self.host, &path)?;
        let earlier = Sidecar {
            size: before,
            generation: volume.generation - 1,
            ..Sidecar::of(key, volume)
        };
        if ![Some(&after), Some(&earlier)].contains(&sidecar.as_ref()) {
            return Err(PoolError::Sidecar { path });
        }
        self.host
            .extend_file(&image, volume.size)
            .map_err(|source| failed("growing", &image, source))?;
        Ok(format::replace(&self.host, &path, &after)?)
    }

    fn find_image(&self, image: &Path) -> Result<Stat, PoolError> {
        let stat = look(image, self.host.find_stat(image))?;
        let stat = stat.filter(|stat| stat.kind == FileKind::File);
        stat.ok_or_else(|| PoolError::ImageAbsent(image.to_owned()))
    }

    /// Removes the files of a volume; absent is fine.
    pub(super) fn remove(&self, key: &VolumeKey) -> Result<(), PoolError> {
        // A pool that is not mounted has no files either, and its volumes would be forgotten.
        self.prove()?;
        for path in [self.sidecar(key), self.image(key)] {
            self.host
                .remove_file(&path)
                .map_err(|source| failed("removing", &path, source))?;
        }
        Ok(())
    }

    /// Proves that the image is there and is the one that the state file knows. Returns its allocated bytes.
    pub(super) fn check(&self, key: &VolumeKey, volume: &VolumeRecord) -> Result<u64, PoolError> {
        self.prove()?;
        let image = self.image(key);
        let stat = self.find_image(&image)?;
        if stat.size != volume.size {
            return Err(PoolError::ImageSize {
                path: image,
                found: stat.size,
                expected: volume.size,
            });
        }
        let path = self.sidecar(key);
        let sidecar: Option<Sidecar> = format::find(&self.host, &path)?;
        if sidecar != Some(Sidecar::of(key, volume)) {
            return Err(PoolError::Sidecar { path });
        }
        Ok(stat.allocated)
    }

    /// The bytes that an image has allocated; 0 when there is none. For people and reports, never for deciding.
    pub(super) fn allocated(&self, key: &VolumeKey) -> Result<u64, PoolError> {
        let image = self.image(key);
        let stat = look(&image, self.host.find_stat(&image))?;
        Ok(stat.map_or(0, |stat| stat.allocated))
    }
}

/// The largest volume: one that an otherwise empty pool could hold. Thin volumes together may promise more.
pub(super) fn largest(space: Space) -> u64 {
    space.total / GRANULE * GRANULE
}

/// Shares one block between two files, for real: mount options and superblock flags would have to be interpreted.
fn ensure_reflink(host: &Host, root: &Path) -> Result<(), PoolError> {
    let (from, to) = (
        root.join(".reflink-probe"),
        root.join(".reflink-probe.copy"),
    );
    let clear = || {
        for path in [&from, &to] {
            host.remove_file(path)
                .map_err(|source| failed("removing", path, source))?;
        }
        Ok::<_, PoolError>(())
    };
    clear()?;
    host.replace_file(&from, &[0x5a; PROBE_BYTES])
        .map_err(|source| failed("writing", &from, source))?;
    let shared = host.clone_file(&from, &to);
    clear()?;
    shared.map_err(|source| PoolError::NoReflink {
        path: root.to_owned(),
        source,
    })
}

fn look<T>(path: &Path, outcome: io::Result<T>) -> Result<T, PoolError> {
    outcome.map_err(|source| failed("looking at", path, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PoolError {
    PoolError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_of_the_records_is_read_for_ever() {
        let marker: Marker = serde_json::from_str(include_str!("golden/pool-v1.json")).unwrap();
        assert_eq!(marker.pool_id, "0f8fad5bd9cb469fa16570867728950e");
        let sidecar: Sidecar =
            serde_json::from_str(include_str!("golden/sidecar-v1.json")).unwrap();
        assert_eq!((sidecar.size, sidecar.generation), (1 << 30, 1));
        let written = serde_json::to_string_pretty(&sidecar).unwrap() + "\n";
        assert_eq!(written, include_str!("golden/sidecar-v1.json"));
        let written = serde_json::to_string_pretty(&marker).unwrap() + "\n";
        assert_eq!(written, include_str!("golden/pool-v1.json"));
    }

    #[test]
    fn a_file_system_without_reflink_is_refused_and_left_clean() {
        let host = Host::real(Path::new("/"));
        // tmpfs knows no FICLONE.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let refused = Pool::ensure_empty(&host, dir.path()).err().unwrap();
        assert!(matches!(refused, PoolError::NoReflink { .. }), "{refused}");
        assert_eq!(refused.fault(), Fault::Precondition);
        assert!(host.list(dir.path()).unwrap().is_empty());
    }
}
