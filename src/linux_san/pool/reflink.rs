//! A directory on a file system with reflink: one sparse file for each volume and snapshot.
//!
//! ```text
//! pool.json            which pool this is
//! lock                 held by the process that uses it
//! volumes/KEY.img      the bytes
//! volumes/KEY.json     whose bytes: serial, size, generation
//! snapshots/KEY.*      the same of snapshots; nobody writes to them
//! anything else        an operator's; taken over as a volume when he says so (`strays`)
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::extents::{self, ExtentPage};
use super::strays;
use super::{Backing, Cut, Image, Look, Owner, Pool, PoolError, failed, look};
use crate::host::{FileExtent, FileKind, Host, Space, Stat};
use crate::linux_san::format::{self, VERSION};
use crate::linux_san::names::{Serial, VolumeKey};

const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
pub(super) const FOLDERS: [&str; 2] = [VOLUMES, SNAPSHOTS];
/// What one reflink is tried with: a whole block of any file system.
const PROBE_BYTES: usize = 64 << 10;
/// How many extents of a file are looked at in one go.
const EXTENTS_AT_ONCE: usize = 4096;

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
    key: String,
    serial: Serial,
    size: u64,
    generation: u64,
}

impl Sidecar {
    fn of(image: &Image) -> Self {
        Self {
            version: VERSION,
            key: image.owner.key(),
            serial: image.serial.clone(),
            size: image.size,
            generation: image.generation,
        }
    }
}

/// The pool of one state file.
pub(in crate::linux_san) struct Reflink {
    pub(super) host: Host,
    pub(super) root: PathBuf,
    id: String,
}

impl Reflink {
    /// The pool that the state file knows, and no other.
    pub(in crate::linux_san) fn open(
        host: &Host,
        root: &Path,
        id: &str,
    ) -> Result<Self, PoolError> {
        let pool = Self {
            host: host.clone(),
            root: root.to_owned(),
            id: id.to_owned(),
        };
        pool.prove()?;
        pool.clear_scratch()?;
        Ok(pool)
    }

    /// What there is of the pool that the state file knows; without any, of the directory for a new one. Changes nothing.
    pub(in crate::linux_san) fn look(
        host: &Host,
        root: &Path,
        id: Option<&str>,
    ) -> Result<Space, PoolError> {
        let stat = look(root, host.find_stat(root))?;
        if stat.is_none_or(|stat| stat.kind != FileKind::Directory) {
            return Err(PoolError::NoDirectory(root.to_owned()));
        }
        let pool = |id: &str| Self {
            host: host.clone(),
            root: root.to_owned(),
            id: id.to_owned(),
        };
        match id {
            Some(id) => pool(id).prove()?,
            None => pool("").check_new()?,
        }
        look(root, host.space(root))
    }

    /// A clone tells for certain, and would leave files.
    fn check_new(&self) -> Result<(), PoolError> {
        for folder in FOLDERS {
            let folder = self.root.join(folder);
            if !look(&folder, self.host.list(&folder))?.is_empty() {
                return Err(PoolError::StateLost(self.root.clone()));
            }
        }
        let kind = file_system_of(&self.host, &self.root);
        match kind.as_deref() {
            None | Some("xfs" | "btrfs") => Ok(()),
            Some(kind) => Err(PoolError::NoReflink {
                path: self.root.clone(),
                source: std::io::Error::other(format!("it is {kind}")),
            }),
        }
    }

    /// A pool without volumes for a new state file: an empty one that an earlier first start left, or a new one.
    pub(in crate::linux_san) fn ensure_empty(host: &Host, root: &Path) -> Result<Self, PoolError> {
        let stat = look(root, host.find_stat(root))?;
        if stat.is_none_or(|stat| stat.kind != FileKind::Directory) {
            return Err(PoolError::NoDirectory(root.to_owned()));
        }
        for folder in FOLDERS {
            let folder = root.join(folder);
            if !look(&folder, host.list(&folder))?.is_empty() {
                return Err(PoolError::StateLost(root.to_owned()));
            }
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
        let volumes = root.join(VOLUMES);
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

    /// Whether the directory says that it is a pool.
    pub(in crate::linux_san) fn is_marked(host: &Host, root: &Path) -> Result<bool, PoolError> {
        let marker = root.join("pool.json");
        Ok(look(&marker, host.find_stat(&marker))?.is_some())
    }

    /// What the one process that uses the pool at `root` holds locked.
    pub(in crate::linux_san) fn lock_in(root: &Path) -> PathBuf {
        root.join("lock")
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

    /// Removes what a crash has left of a file that was being made or replaced: nobody else writes here.
    fn clear_scratch(&self) -> Result<(), PoolError> {
        for folder in FOLDERS {
            let folder = self.root.join(folder);
            for name in look(&folder, self.host.list(&folder))? {
                if Path::new(&name).extension() == Some("new".as_ref()) {
                    self.remove_file(&folder.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// The bytes.
    pub(super) fn image(&self, owner: &Owner) -> PathBuf {
        self.file(owner, "img")
    }

    /// What they are.
    pub(super) fn sidecar(&self, owner: &Owner) -> PathBuf {
        self.file(owner, "json")
    }

    fn file(&self, owner: &Owner, ending: &str) -> PathBuf {
        let folder = match owner {
            Owner::Volume(_) => VOLUMES,
            Owner::Snapshot(_) => SNAPSHOTS,
        };
        self.root
            .join(folder)
            .join(format!("{}.{ending}", owner.key()))
    }

    pub(super) fn remove_file(&self, path: &Path) -> Result<(), PoolError> {
        self.host
            .remove_file(path)
            .map_err(|source| failed("removing", path, source))
    }

    /// The image, then its sidecar: one that stands there always speaks of an image that is whole.
    pub(super) fn note(&self, image: &Image) -> Result<(), PoolError> {
        let sidecar = Sidecar::of(image);
        Ok(format::replace(
            &self.host,
            &self.sidecar(&image.owner),
            &sidecar,
        )?)
    }

    fn share(&self, from: &Owner, to: &Owner) -> Result<(), PoolError> {
        let (from, to) = (self.image(from), self.image(to));
        self.host
            .clone_file(&from, &to)
            .map_err(|source| failed("sharing the blocks of a file with", &to, source))
    }

    pub(super) fn find_image(&self, image: &Path) -> Result<Stat, PoolError> {
        let stat = look(image, self.host.find_stat(image))?;
        let stat = stat.filter(|stat| stat.kind == FileKind::File);
        stat.ok_or_else(|| PoolError::ImageAbsent(image.to_owned()))
    }

    fn look_at_extents(&self, owner: &Owner, from: u64) -> Result<Vec<FileExtent>, PoolError> {
        let path = self.image(owner);
        let found = self.host.file_extents(&path, from, EXTENTS_AT_ONCE);
        found.map_err(|source| PoolError::NoExtents { path, source })
    }
}

/// The kind of the file system that holds `path`, as /proc/self/mountinfo has it (proc(5)).
fn file_system_of(host: &Host, path: &Path) -> Option<String> {
    let table = host.read(Path::new("/proc/self/mountinfo")).ok()?;
    let table = String::from_utf8_lossy(&table).into_owned();
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let target = Path::new(before.split(' ').nth(4)?);
        let kind = after.split(' ').next()?;
        path.starts_with(target)
            .then(|| (target.components().count(), kind.to_owned()))
    });
    // Of two at one place the later one is on top.
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

impl Pool for Reflink {
    fn id(&self) -> &str {
        &self.id
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn space(&self) -> Result<Space, PoolError> {
        self.prove()?;
        look(&self.root, self.host.space(&self.root))
    }

    fn create(&self, image: &Image) -> Result<(), PoolError> {
        self.prove()?;
        let path = self.image(&image.owner);
        self.host
            .create_sparse(&path, image.size)
            .map_err(|source| failed("making", &path, source))?;
        self.note(image)
    }

    /// The kernel serves volumes with `O_DSYNC`, so what a node was told is written is in the file; and sharing waits for the write that is under way in the
    /// file and keeps the next one out.
    fn cut(&self, cuts: &[Cut]) -> Result<(), PoolError> {
        let [cut] = cuts else {
            return Err(PoolError::NotTogether(cuts.len()));
        };
        self.prove()?;
        let folder = self.root.join(SNAPSHOTS);
        self.host
            .ensure_directory(&folder)
            .map_err(|source| failed("making", &folder, source))?;
        self.share(&cut.volume.owner, &cut.snapshot.owner)?;
        self.note(&cut.snapshot)
    }

    fn copy(&self, from: &Image, to: &Image) -> Result<(), PoolError> {
        self.prove()?;
        self.share(&from.owner, &to.owner)?;
        let path = self.image(&to.owner);
        if from.size < to.size {
            self.host
                .extend_file(&path, to.size)
                .map_err(|source| failed("growing", &path, source))?;
        }
        self.note(to)
    }

    fn grow(&self, image: &Image, before: u64) -> Result<(), PoolError> {
        self.prove()?;
        let file = self.image(&image.owner);
        let found = self.find_image(&file)?.size;
        if found != before && found != image.size {
            return Err(PoolError::ImageSize {
                path: file,
                found,
                expected: before,
            });
        }
        let path = self.sidecar(&image.owner);
        let sidecar: Option<Sidecar> = format::find(&self.host, &path)?;
        let earlier = Sidecar {
            size: before,
            generation: image.generation - 1,
            ..Sidecar::of(image)
        };
        if ![Some(&Sidecar::of(image)), Some(&earlier)].contains(&sidecar.as_ref()) {
            return Err(PoolError::Sidecar { path });
        }
        self.host
            .extend_file(&file, image.size)
            .map_err(|source| failed("growing", &file, source))?;
        self.note(image)
    }

    fn stray_name(&self, object: &str) -> Result<String, PoolError> {
        strays::name_in(&self.root, object)
    }

    fn stray_size(&self, stray: &str) -> Result<u64, PoolError> {
        self.prove()?;
        strays::size_of(&self.host, &self.root, stray)
    }

    fn take(&self, stray: &str, image: &Image) -> Result<(), PoolError> {
        self.prove()?;
        self.take_file(stray, image)
    }

    fn give_back(&self, owner: &Owner, stray: &str) -> Result<(), PoolError> {
        self.prove()?;
        self.give_file_back(owner, stray)
    }

    fn remove(&self, owner: &Owner) -> Result<(), PoolError> {
        // A pool that is not mounted has no files either, and its volumes would be forgotten.
        self.prove()?;
        self.remove_file(&self.sidecar(owner))?;
        self.remove_file(&self.image(owner))
    }

    fn check(&self, image: &Image) -> Result<u64, PoolError> {
        self.prove()?;
        let path = self.image(&image.owner);
        let stat = self.find_image(&path)?;
        if stat.size != image.size {
            return Err(PoolError::ImageSize {
                path,
                found: stat.size,
                expected: image.size,
            });
        }
        let path = self.sidecar(&image.owner);
        let sidecar: Option<Sidecar> = format::find(&self.host, &path)?;
        if sidecar != Some(Sidecar::of(image)) {
            return Err(PoolError::Sidecar { path });
        }
        Ok(stat.allocated)
    }

    fn allocated(&self, owners: &[Owner]) -> Result<Vec<u64>, PoolError> {
        let of = |owner| {
            let image = self.image(owner);
            let stat = look(&image, self.host.find_stat(&image))?;
            Ok(stat.map_or(0, |stat| stat.allocated))
        };
        owners.iter().map(of).collect()
    }

    fn needs_room(&self, image: &Image, _: bool) -> Result<bool, PoolError> {
        self.prove()?;
        let whole =
            extents::is_whole_and_own(image.size, |from| self.look_at_extents(&image.owner, from));
        Ok(!whole?)
    }

    fn is_dear_to_look_at(&self) -> bool {
        false
    }

    fn backing(&self, key: &VolumeKey) -> Backing {
        Backing::File(self.image(&Owner::Volume(key.clone())))
    }

    fn extents(
        &self,
        image: &Image,
        base: Option<&Image>,
        look: Look,
    ) -> Result<ExtentPage, PoolError> {
        self.prove()?;
        let after = |from| self.look_at_extents(&image.owner, from);
        let before = |from| match base {
            Some(base) => self.look_at_extents(&base.owner, from),
            None => Ok(Vec::new()),
        };
        extents::difference(image.size, look, after, before)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Faulted};

    #[test]
    fn version_1_of_the_records_is_read_for_ever() {
        let marker: Marker = serde_json::from_str(include_str!("../golden/pool-v1.json")).unwrap();
        assert_eq!(marker.pool_id, "0f8fad5bd9cb469fa16570867728950e");
        let sidecar: Sidecar =
            serde_json::from_str(include_str!("../golden/sidecar-v1.json")).unwrap();
        assert_eq!((sidecar.size, sidecar.generation), (1 << 30, 1));
        let written = serde_json::to_string_pretty(&sidecar).unwrap() + "\n";
        assert_eq!(written, include_str!("../golden/sidecar-v1.json"));
        let written = serde_json::to_string_pretty(&marker).unwrap() + "\n";
        assert_eq!(written, include_str!("../golden/pool-v1.json"));
    }

    #[test]
    fn a_file_system_without_reflink_is_refused_and_left_clean() {
        let host = Host::real(Path::new("/"));
        // tmpfs knows no FICLONE.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let refused = Reflink::ensure_empty(&host, dir.path()).err().unwrap();
        assert!(matches!(refused, PoolError::NoReflink { .. }), "{refused}");
        assert_eq!(refused.fault(), Fault::Precondition);
        assert!(host.list(dir.path()).unwrap().is_empty());
    }
}
