//! One target of the kernel, made by hand: for cases that need a SAN's bad behaviour exactly, and none of our own SAN's code.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::case::Lab;
use super::topology::{self, Link, SAN_NAMESPACE};

/// A target with a portal on every path, open to this guest's initiator only.
pub struct Target {
    folder: PathBuf,
    group: PathBuf,
    acl: PathBuf,
    core: PathBuf,
    pool: PathBuf,
}

/// Where backstores of files are made by hand; the number is free for us to choose.
pub const ADAPTER: u16 = 78;

/// A disk that a target can show under a LUN.
#[derive(Clone)]
pub struct Backstore {
    folder: PathBuf,
    pub file: PathBuf,
    /// Its unit serial.
    pub name: String,
}

impl Backstore {
    /// From now on it tells this size; its file gets it when it is shorter.
    pub fn tell_size(&self, size: u64) -> Result<()> {
        let file = fs::File::options().write(true).open(&self.file)?;
        if file.metadata()?.len() < size {
            file.set_len(size)?;
        }
        write(&self.folder.join("control"), &format!("fd_dev_size={size}"))
    }
}

/// How the target group of a disk answers (SPC-4 §5.15.2).
#[derive(Debug, Clone, Copy)]
pub enum AccessState {
    Active = 0,
    /// Says who it is, but is not ready and tells no size.
    Unavailable = 3,
}

impl Backstore {
    /// Its unit serial.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it answers from now on.
    pub fn set_access_state(&self, state: AccessState) -> Result<()> {
        let group = self.folder.join("alua/default_tg_pt_gp");
        write(&group.join("alua_access_state"), &(state as u8).to_string())
    }

    /// The file behind it, in the pool of the case.
    pub fn file_name(&self) -> String {
        format!("{}.img", self.name)
    }
}

impl Target {
    /// A target that shows no LUN yet.
    pub fn serve(lab: &Lab, iqn: &str) -> Result<Target> {
        Target::serve_beside(lab, iqn, ADAPTER)
    }

    /// The same, beside another: each numbers the folder of its disks.
    pub fn serve_beside(lab: &Lab, iqn: &str, adapter: u16) -> Result<Target> {
        let links: Vec<Link> = topology::paths().collect();
        Self::serve_on(lab, iqn, &links, adapter)
    }

    /// The same on these links alone.
    pub fn serve_on(lab: &Lab, iqn: &str, links: &[Link], adapter: u16) -> Result<Target> {
        let folder = Path::new("/sys/kernel/config/target/iscsi").join(iqn);
        let group = folder.join("tpgt_1");
        let core = Path::new("/sys/kernel/config/target/core");
        let target = Target {
            acl: group.join("acls").join(lab.initiator()?),
            core: core.join(format!("fileio_{adapter}")),
            pool: lab.pool_folder(),
            group,
            folder,
        };
        fs::create_dir_all(&target.group)?;
        fs::create_dir_all(&target.acl)?;
        for link in links {
            target.open_portal(lab, &format!("{}:3260", link.san_address(1)))?;
        }
        write(&target.group.join("attrib/authentication"), "0")?;
        write(&target.group.join("enable"), "1")?;
        Ok(target)
    }

    /// Listens at `address:port`.
    pub fn open_portal(&self, lab: &Lab, portal: &str) -> Result<()> {
        // A portal belongs to the network of whoever makes its folder.
        let folder = self.group.join("np").join(portal);
        let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
        let folder = folder.to_string_lossy().into_owned();
        lab.execute(&["nsenter", &network, "mkdir", "-p", &folder])?;
        Ok(())
    }

    /// Listens there no longer: whoever comes is answered RST. Sessions stay.
    pub fn close_portal(&self, portal: &str) -> Result<()> {
        Ok(fs::remove_dir(self.group.join("np").join(portal))?)
    }

    /// A thin disk with this unit serial.
    pub fn add_disk(&self, serial: &str, size: u64) -> Result<Backstore> {
        let file = self.pool.join(format!("{serial}.img"));
        fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)?
            .set_len(size)?;
        self.add_disk_on(&file, serial, size)
    }

    /// The same on a file or block device that is there.
    pub fn add_disk_on(&self, file: &Path, serial: &str, size: u64) -> Result<Backstore> {
        let folder = self.core.join(serial);
        fs::create_dir_all(&folder)?;
        let control = format!("fd_dev_name={},fd_dev_size={size}", file.display());
        write(&folder.join("control"), &control)?;
        // Before a LUN is linked, or its paths have no WWID.
        write(&folder.join("wwn/vpd_unit_serial"), serial)?;
        write(&folder.join("enable"), "1")?;
        Ok(Backstore {
            folder,
            file: file.to_owned(),
            name: serial.to_owned(),
        })
    }

    /// Shows the disk under a LUN.
    pub fn map(&self, lun: u16, disk: &Backstore) -> Result<()> {
        let folder = self.group.join(format!("lun/lun_{lun}"));
        fs::create_dir_all(&folder)?;
        symlink(&disk.folder, folder.join(&disk.name))?;
        let mapped = self.acl.join(format!("lun_{lun}"));
        fs::create_dir_all(&mapped)?;
        symlink(&folder, mapped.join(&disk.name))?;
        Ok(())
    }

    /// Shows it no longer.
    pub fn unmap(&self, lun: u16, disk: &Backstore) -> Result<()> {
        let mapped = self.acl.join(format!("lun_{lun}"));
        fs::remove_file(mapped.join(&disk.name))?;
        fs::remove_dir(mapped)?;
        let folder = self.group.join(format!("lun/lun_{lun}"));
        fs::remove_file(folder.join(&disk.name))?;
        fs::remove_dir(folder)?;
        Ok(())
    }

    /// Serves no longer, or again. Its sessions end, and logins find no such target.
    pub fn set_enabled(&self, enabled: bool) -> Result<()> {
        write(&self.group.join("enable"), if enabled { "1" } else { "0" })
    }

    /// Takes the target away; its LUNs and sessions are gone already.
    pub fn remove(self, disks: &[Backstore]) -> Result<()> {
        let core = self.core.clone();
        self.remove_without_disks()?;
        for disk in disks {
            fs::remove_dir(&disk.folder)?;
        }
        Ok(fs::remove_dir(core)?)
    }

    /// The same for one that showed disks of another.
    pub fn remove_without_disks(self) -> Result<()> {
        self.set_enabled(false)?;
        fs::remove_dir(&self.acl)?;
        for portal in fs::read_dir(self.group.join("np"))? {
            fs::remove_dir(portal?.path())?;
        }
        fs::remove_dir(&self.group)?;
        Ok(fs::remove_dir(&self.folder)?)
    }
}

/// Kernel attributes take one write each, and must exist.
pub(super) fn write(attribute: &Path, value: &str) -> Result<()> {
    let written = fs::File::options()
        .write(true)
        .open(attribute)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.with_context(|| format!("writing {value} to {}", attribute.display()))
}
