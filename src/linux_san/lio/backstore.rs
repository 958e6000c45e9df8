//! Backstores: an image file or a block device as a disk in the kernel, not yet offered to anybody.

use std::path::{Path, PathBuf};

use super::{Lio, LioError};
use crate::linux_san::access::Access;
use crate::linux_san::pool::Backing;

/// What the kernel puts before the serial when it is read back (`target_wwn_vpd_unit_serial_show`).
const SERIAL_LABEL: &str = "T10 VPD Unit Serial Number:";

/// How the kernel shows a disk whose writes are in the image when they are answered (`fd_show_configfs_dev_params`).
const WRITE_THROUGH: &str = "Mode: O_DSYNC Async: 0";
/// What each disk must say of itself: no cache that a flush would be needed for, and discards are taken.
const ATTRIBUTES: [(&str, &str); 2] = [("emulate_write_cache", "0"), ("emulate_tpu", "1")];

/// One disk. The caller has proved that the image is there and right: LIO makes a missing one and serves zeros.
pub(in crate::linux_san) struct Backstore<'a> {
    /// Its name under our adapter.
    pub(in crate::linux_san) name: &'a str,
    /// What is served.
    pub(in crate::linux_san) backing: &'a Backing,
    /// Its length.
    pub(in crate::linux_san) size: u64,
    /// What initiators know it by.
    pub(in crate::linux_san) serial: &'a str,
    /// What it tells of each portal group; nothing where there is one.
    pub(in crate::linux_san) access: &'a [(u16, Access)],
}

impl Backstore<'_> {
    fn path(&self) -> &Path {
        match self.backing {
            Backing::File(path) | Backing::Device(path) => path,
        }
    }

    /// What the kernel is told before the disk is enabled.
    fn control(&self) -> String {
        match self.backing {
            Backing::File(path) => {
                format!("fd_dev_name={},fd_dev_size={}", path.display(), self.size)
            }
            Backing::Device(path) => format!("udev_path={},readonly=0", path.display()),
        }
    }

    /// What the kernel shows of the disk when it is this one. Of a block device it shows no size: it follows the device.
    fn info(&self) -> String {
        match self.backing {
            Backing::File(path) => {
                let size = self.size;
                format!("File: {}  Size: {size}  {WRITE_THROUGH}", path.display())
            }
            Backing::Device(path) => format!("UDEV PATH: {}  readonly: 0", path.display()),
        }
    }
}

/// The size that the kernel shows of the disk, if it is made of this image.
fn size_in(info: &str, image: &Path) -> Option<u64> {
    let label = format!("File: {}  Size: ", image.display());
    let (_, rest) = info.split_once(&label)?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Lio {
    /// The backstore's place in the tree.
    pub(super) fn backstore_tail(&self, name: &str) -> PathBuf {
        Path::new("core").join(&self.adapter).join(name)
    }

    /// Makes the disk. Writes go through to a file (`O_DSYNC`): what an initiator was told is written survives the box. A block device tells of its own
    /// cache, and initiators flush it.
    pub(in crate::linux_san) fn ensure_backstore(
        &self,
        wanted: &Backstore<'_>,
    ) -> Result<(), LioError> {
        let dir = self.root.join(self.backstore_tail(wanted.name));
        self.ensure_directory(&dir)?;
        if self.attribute(&dir.join("enable"))? != "1" {
            self.write(&dir.join("control"), &wanted.control())?;
            // For people and tools only; the kernel opens what `control` said.
            self.ensure_attribute(&dir.join("udev_path"), &wanted.path().display().to_string())?;
            self.write(&dir.join("enable"), "1")?;
        }
        self.ensure_size(&dir, wanted)?;
        self.ensure_serial(&dir, wanted.serial)?;
        for (name, value) in ATTRIBUTES {
            self.ensure_attribute(&dir.join("attrib").join(name), value)?;
        }
        let mut access = wanted.access.iter();
        access.try_for_each(|(tag, access)| self.ensure_access(&dir, *tag, *access))
    }

    /// The kernel takes a larger size while initiators use the disk. They are told nothing and have to ask. Never a smaller one.
    fn ensure_size(&self, dir: &Path, wanted: &Backstore<'_>) -> Result<(), LioError> {
        let found = self.attribute(&dir.join("info"))?;
        if size_in(&found, wanted.path()).is_some_and(|size| size < wanted.size) {
            self.write(
                &dir.join("control"),
                &format!("fd_dev_size={}", wanted.size),
            )?;
        }
        self.check_backstore(dir, wanted)
    }

    /// Lets a disk that is in the kernel have its new size; one that is not there needs nothing.
    pub(in crate::linux_san) fn grow_backstore(
        &self,
        wanted: &Backstore<'_>,
    ) -> Result<(), LioError> {
        let dir = self.root.join(self.backstore_tail(wanted.name));
        if !self.shows(&dir.join("enable"), "1")? {
            return Ok(());
        }
        self.ensure_size(&dir, wanted)
    }

    /// A disk that is set up already must be this one.
    fn check_backstore(&self, dir: &Path, wanted: &Backstore<'_>) -> Result<(), LioError> {
        let path = dir.join("info");
        let found = self.attribute(&path)?;
        let expected = wanted.info();
        if found.contains(&expected) {
            Ok(())
        } else {
            Err(LioError::Mismatch {
                path,
                found,
                expected,
            })
        }
    }

    /// Whether the disk is in the kernel, made of its image in its size.
    pub(in crate::linux_san) fn serves_backstore(
        &self,
        wanted: &Backstore<'_>,
    ) -> Result<bool, LioError> {
        let dir = self.root.join(self.backstore_tail(wanted.name));
        if !self.shows(&dir.join("enable"), "1")? {
            return Ok(false);
        }
        self.check_backstore(&dir, wanted).map(|()| true)
    }

    /// The kernel takes a serial only while nobody is offered the disk, so this comes before any LUN.
    fn ensure_serial(&self, dir: &Path, serial: &str) -> Result<(), LioError> {
        let path = dir.join("wwn/vpd_unit_serial");
        let shown = self.attribute(&path)?;
        if shown.strip_prefix(SERIAL_LABEL).map(str::trim) == Some(serial) {
            Ok(())
        } else {
            self.write(&path, serial)
        }
    }

    /// Removes the disk, and our adapter with the last one; the image stays.
    pub(in crate::linux_san) fn remove_backstore(&self, name: &str) -> Result<(), LioError> {
        let adapter = self.root.join("core").join(&self.adapter);
        self.remove_access(&adapter.join(name))?;
        self.remove_directory(&adapter.join(name))?;
        let attributes = ["hba_info", "hba_mode"];
        let is_disk = |path: &PathBuf| attributes.iter().all(|name| !path.ends_with(name));
        if self.list(&adapter)?.iter().any(is_disk) {
            return Ok(());
        }
        self.remove_directory(&adapter)
    }
}
