//! A thin pool of LVM: one thin logical volume for each volume and snapshot, served by the kernel as a block device.
//!
//! ```text
//! VG/POOL              tag sanpath.pool=…: which pool this is
//! VG/sanpath_v_KEY     the bytes of a volume; tags sanpath.serial=… and sanpath.generation=…
//! VG/sanpath_s_KEY     the same of a snapshot; never active
//! ```
//!
//! A volume that is served has a plain device (dm-linear) of ours on top, so that several can be held back together while LVM cuts them one after the other.
//! Everything that has not our name is left alone. LVM itself makes each command whole or nothing, over crashes too.

use std::path::{Path, PathBuf};

use super::extents::ExtentPage;
use super::lvm_tool::{LogicalVolume, Lvm};
use super::{Backing, Cut, GRANULE, Image, Look, Owner, Pool, PoolError, unfit};
use crate::host::{Host, Space};
use crate::linux_san::names::VolumeKey;

const OURS: &str = "sanpath_";
const POOL_TAG: &str = "sanpath.pool=";
const SERIAL_TAG: &str = "sanpath.serial=";
const GENERATION_TAG: &str = "sanpath.generation=";
/// A thin pool whose metadata runs out is broken until an operator repairs it, so this much of it is never given away. In percent.
const MOST_METADATA: f64 = 90.0;

/// The pool of one state file.
pub(in crate::linux_san) struct LvmThin {
    lvm: Lvm,
    /// `VG/POOL`.
    shown: PathBuf,
    pool: String,
    id: String,
}

impl LvmThin {
    /// The pool that the state file knows, and no other.
    pub(in crate::linux_san) fn open(
        host: &Host,
        (group, pool): (&str, &str),
        id: &str,
    ) -> Result<Self, PoolError> {
        let opened = Self {
            lvm: Lvm::new(host, group),
            shown: Path::new(group).join(pool),
            pool: pool.to_owned(),
            id: id.to_owned(),
        };
        let found = opened.prove()?;
        if !found.errors_when_full {
            // Else the pool would hold writes back, and with them everything behind it.
            opened.lvm.set_errors_when_full(pool)?;
        }
        opened.resume_all()?;
        Ok(opened)
    }

    /// What there is of the pool that the state file knows; without any, of the one for a new one. Changes nothing.
    pub(in crate::linux_san) fn look(
        host: &Host,
        (group, pool): (&str, &str),
        id: Option<&str>,
    ) -> Result<Space, PoolError> {
        let lvm = Lvm::new(host, group);
        let shown = Path::new(group).join(pool);
        let id = match id {
            Some(id) => id.to_owned(),
            None => {
                let all = lvm.list()?;
                let found = fit_pool(&shown, all.iter().find(|one| one.name == pool))?;
                if all.iter().any(|one| one.name.starts_with(OURS)) {
                    return Err(PoolError::StateLost(shown));
                }
                let Some(id) = found.tag(POOL_TAG) else {
                    return Ok(space_of(found, &shown));
                };
                id.to_owned()
            }
        };
        let pool = pool.to_owned();
        Self {
            lvm,
            shown,
            pool,
            id,
        }
        .space()
    }

    /// A pool without volumes for a new state file: one that an earlier first start marked, or a new one.
    pub(in crate::linux_san) fn ensure_empty(
        host: &Host,
        (group, pool): (&str, &str),
    ) -> Result<Self, PoolError> {
        let lvm = Lvm::new(host, group);
        let shown = Path::new(group).join(pool);
        let all = lvm.list()?;
        let found = fit_pool(&shown, all.iter().find(|one| one.name == pool))?;
        if all.iter().any(|one| one.name.starts_with(OURS)) {
            return Err(PoolError::StateLost(shown));
        }
        if let Some(id) = found.tag(POOL_TAG) {
            return Self::open(host, (group, pool), id);
        }
        let id = String::from(VolumeKey::random());
        lvm.add_tag(pool, &format!("{POOL_TAG}{id}"))?;
        Self::open(host, (group, pool), &id)
    }

    /// Refuses when the pool is not there, or is another.
    fn prove(&self) -> Result<LogicalVolume, PoolError> {
        let all = self.list()?;
        let found = all.into_iter().find(|one| one.name == self.pool);
        found.ok_or_else(|| PoolError::NotMounted(self.shown.clone()))
    }

    /// All logical volumes of the group, with the proof that the pool is among them.
    fn list(&self) -> Result<Vec<LogicalVolume>, PoolError> {
        let all = self.lvm.list()?;
        let found = all.iter().find(|one| one.name == self.pool);
        match fit_pool(&self.shown, found)?.tag(POOL_TAG) {
            Some(id) if id == self.id => Ok(all),
            id => Err(PoolError::OtherPool {
                path: self.shown.clone(),
                found: id.unwrap_or("not marked").to_owned(),
                expected: self.id.clone(),
            }),
        }
    }

    /// Lets go on whatever a crash between suspending and resuming has left: its writers wait.
    fn resume_all(&self) -> Result<(), PoolError> {
        for name in self.lvm.suspended()? {
            if name.starts_with(OURS) {
                tracing::warn!(volume = name, "it was left suspended and goes on");
                self.lvm.resume(&name)?;
            }
        }
        Ok(())
    }

    fn find(&self, owner: &Owner) -> Result<Option<LogicalVolume>, PoolError> {
        let name = name_of(owner);
        Ok(self.list()?.into_iter().find(|one| one.name == name))
    }

    fn expect(&self, owner: &Owner) -> Result<LogicalVolume, PoolError> {
        let found = self.find(owner)?;
        found.ok_or_else(|| PoolError::ImageAbsent(self.path(owner)))
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.lvm.device(&name_of(owner))
    }

    /// Suspends every volume, cuts each, and lets them go on whatever happened: nothing is written to any of them between the first cut and the last.
    fn cut_suspended(&self, cuts: &[Cut]) -> Result<(), PoolError> {
        let mut held = Vec::new();
        let cut = cuts
            .iter()
            .try_for_each(|cut| {
                let name = name_of(&cut.volume.owner);
                // Also one whose suspending failed: it may be suspended all the same.
                held.push(name.clone());
                if !self.lvm.suspend(&name)? {
                    held.pop();
                }
                Ok(())
            })
            .and_then(|()| cuts.iter().try_for_each(|cut| self.cut_one(cut)));
        // All of them, and the first failure is told: one that stays suspended is worse than a cut that failed.
        let resumed = held.iter().map(|name| self.lvm.resume(name));
        let resumed = resumed.fold(Ok(()), Result::and);
        cut.and(resumed)
    }

    fn cut_one(&self, cut: &Cut) -> Result<(), PoolError> {
        self.lvm.snapshot(
            &name_of(&cut.volume.owner),
            &name_of(&cut.snapshot.owner),
            &tags_of(&cut.snapshot),
        )
    }
}

/// The thin pool, if it is one that can be used.
fn fit_pool<'a>(
    shown: &Path,
    found: Option<&'a LogicalVolume>,
) -> Result<&'a LogicalVolume, PoolError> {
    let unfit = |why| PoolError::UnfitThinPool {
        pool: shown.to_owned(),
        why,
    };
    let found = found.filter(|found| found.is_thin_pool);
    let found =
        found.ok_or_else(|| unfit("there is no such thin pool; its disks may be missing"))?;
    if !found.zeroes {
        return Err(unfit(
            "it does not zero new blocks, so a volume would show what another one held; run lvchange -Z y",
        ));
    }
    if !GRANULE.is_multiple_of(found.extent) {
        return Err(unfit(
            "its group's extents do not divide a MiB, of which sizes are multiples; run vgchange -s 1m, or make the group with -s 1m",
        ));
    }
    Ok(found)
}

fn space_of(found: &LogicalVolume, shown: &Path) -> Space {
    let used = found.data_percent.clamp(0.0, 100.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "LVM tells hundredths of a percent; more than that nobody knows"
    )]
    let free = (found.size as f64 * (100.0 - used) / 100.0) as u64;
    let usable = found.metadata_percent < MOST_METADATA;
    if !usable {
        tracing::error!(pool = %shown.display(), percent = found.metadata_percent, "THE METADATA OF THE THIN POOL IS NEARLY FULL; extend it with lvextend --poolmetadatasize");
    }
    let free = if usable { free } else { 0 };
    Space {
        total: found.size,
        free,
        available: free,
        inodes: 0,
        free_inodes: 0,
    }
}

fn name_of(owner: &Owner) -> String {
    match owner {
        Owner::Volume(key) => format!("{OURS}v_{key}"),
        Owner::Snapshot(key) => format!("{OURS}s_{key}"),
    }
}

fn tags_of(image: &Image) -> [String; 2] {
    [
        format!("{SERIAL_TAG}{}", image.serial),
        generation_tag(image.generation),
    ]
}

fn generation_tag(generation: u64) -> String {
    format!("{GENERATION_TAG}{generation}")
}

impl LogicalVolume {
    fn has_serial(&self, image: &Image) -> bool {
        self.tag(SERIAL_TAG) == Some(image.serial.to_string().as_str())
    }

    fn generation(&self) -> Option<u64> {
        self.tag(GENERATION_TAG)?.parse().ok()
    }
}

impl Pool for LvmThin {
    fn id(&self) -> &str {
        &self.id
    }

    fn root(&self) -> &Path {
        &self.shown
    }

    fn space(&self) -> Result<Space, PoolError> {
        let found = self.prove()?;
        Ok(space_of(&found, &self.shown))
    }

    fn create(&self, image: &Image) -> Result<(), PoolError> {
        self.prove()?;
        let name = name_of(&image.owner);
        self.lvm
            .create(&self.pool, &name, image.size, &tags_of(image))
    }

    /// What a node was told is written has passed the thin volume, and a cut waits for what is under way there.
    fn cut(&self, cuts: &[Cut]) -> Result<(), PoolError> {
        self.prove()?;
        match cuts {
            [cut] => self.cut_one(cut),
            _ => self.cut_suspended(cuts),
        }
    }

    fn copy(&self, from: &Image, to: &Image) -> Result<(), PoolError> {
        self.prove()?;
        let name = name_of(&to.owner);
        self.lvm
            .snapshot(&name_of(&from.owner), &name, &tags_of(to))?;
        if from.size < to.size {
            self.lvm.extend(&name, to.size)?;
        }
        Ok(())
    }

    fn grow(&self, image: &Image, before: u64) -> Result<(), PoolError> {
        let found = self.expect(&image.owner)?;
        if found.size != before && found.size != image.size {
            return Err(PoolError::ImageSize {
                path: self.path(&image.owner),
                found: found.size,
                expected: before,
            });
        }
        let generation = found.generation();
        let fits = generation == Some(image.generation) || generation == Some(image.generation - 1);
        if !found.has_serial(image) || !fits {
            return Err(PoolError::Sidecar {
                path: self.path(&image.owner),
            });
        }
        if found.size != image.size {
            self.lvm.extend(&found.name, image.size)?;
        }
        self.lvm.follow_top(&found.name, image.size)?;
        if generation != Some(image.generation) {
            let (old, new) = (image.generation - 1, image.generation);
            self.lvm
                .replace_tag(&found.name, &generation_tag(old), &generation_tag(new))?;
        }
        Ok(())
    }

    fn stray_name(&self, object: &str) -> Result<String, PoolError> {
        let (device, group) = (Path::new("/dev"), self.shown.parent());
        let path = Path::new(object);
        let path = path.strip_prefix(device).unwrap_or(path);
        let name = group.and_then(|group| path.strip_prefix(group).ok());
        let name = name.unwrap_or(path).to_string_lossy();
        if name.is_empty() || name.contains('/') {
            let why = "name a thin volume of the pool's group";
            return Err(unfit(object, why));
        }
        if name.starts_with(OURS) || name == self.pool {
            let why = "it is managed already; a volume gets its PersistentVolume by its name, without --object";
            return Err(unfit(object, why));
        }
        Ok(name.into_owned())
    }

    fn stray_size(&self, stray: &str) -> Result<u64, PoolError> {
        let all = self.list()?;
        let found = all.into_iter().find(|one| one.name == stray);
        let found = found.ok_or_else(|| unfit(stray, "there is nothing of this name"))?;
        if found.thin_pool != self.pool {
            return Err(unfit(stray, "it is no thin volume of this pool"));
        }
        if found.is_active {
            let why = "it is active, so somebody may use it; end that, then run lvchange -an";
            return Err(unfit(stray, why));
        }
        Ok(found.size)
    }

    fn take(&self, stray: &str, image: &Image) -> Result<(), PoolError> {
        if self.stray_size(stray)? != image.size {
            return Err(unfit(stray, "its size is changing"));
        }
        let name = name_of(&image.owner);
        self.lvm.rename(stray, &name)?;
        self.lvm.add_tags(&name, &tags_of(image))
    }

    fn give_back(&self, owner: &Owner, stray: &str) -> Result<(), PoolError> {
        let Some(found) = self.find(owner)? else {
            return Ok(());
        };
        let ours = [SERIAL_TAG, GENERATION_TAG].into_iter();
        let ours = ours.filter_map(|kind| Some(format!("{kind}{}", found.tag(kind)?)));
        self.lvm
            .remove_tags(&found.name, &ours.collect::<Vec<_>>())?;
        self.lvm.rename(&found.name, stray)
    }

    fn remove(&self, owner: &Owner) -> Result<(), PoolError> {
        // A pool whose disks are missing has no volumes either, and they would be forgotten: the look proves the pool.
        match self.find(owner)? {
            Some(found) => {
                self.lvm.remove_top(&found.name)?;
                self.lvm.remove(&found.name)
            }
            None => Ok(()),
        }
    }

    fn check(&self, image: &Image) -> Result<u64, PoolError> {
        let found = self.expect(&image.owner)?;
        let path = self.path(&image.owner);
        if found.size != image.size {
            return Err(PoolError::ImageSize {
                path,
                found: found.size,
                expected: image.size,
            });
        }
        if !found.has_serial(image) || found.generation() != Some(image.generation) {
            return Err(PoolError::Sidecar { path });
        }
        let Owner::Volume(_) = image.owner else {
            return Ok(0);
        };
        if !found.is_active {
            self.lvm.activate(&found.name)?;
        }
        self.lvm.ensure_top(&found.name, found.size)?;
        // The percentage that LVM tells is 0.00 when a volume of a terabyte holds a file system.
        let mapped = self.lvm.mapped()?;
        let mapped = mapped.get(&found.name).copied();
        mapped.ok_or(PoolError::ImageAbsent(path))
    }

    fn allocated(&self, owners: &[Owner]) -> Result<Vec<u64>, PoolError> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let mapped = self.lvm.mapped()?;
        let of = |owner| mapped.get(&name_of(owner)).copied().unwrap_or(0);
        Ok(owners.iter().map(of).collect())
    }

    /// LVM does not say which blocks are shared.
    fn needs_room(&self, image: &Image, has_relatives: bool) -> Result<bool, PoolError> {
        let mapped = self.lvm.mapped()?;
        let mapped = mapped.get(&name_of(&image.owner)).copied();
        Ok(has_relatives || mapped.unwrap_or(0) < image.size)
    }

    fn is_dear_to_look_at(&self) -> bool {
        true
    }

    fn backing(&self, key: &VolumeKey) -> Backing {
        Backing::Device(self.path(&Owner::Volume(key.clone())))
    }

    fn extents(&self, _: &Image, _: Option<&Image>, _: Look) -> Result<ExtentPage, PoolError> {
        Err(PoolError::ExtentsUntold)
    }
}
