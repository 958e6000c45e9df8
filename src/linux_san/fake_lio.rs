//! A configfs that behaves, for tests: a plain directory in which making a directory brings its attribute files, a backstore refuses
//! what the kernel refuses, and unlinking a LUN waits for I/O that is in flight. Blocks are shared by copying.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime};

use super::fake_lvm::FakeLvm;
use crate::deadline::Moment;
use crate::fabric::{HostName, Netdev};
use crate::host::{
    Address, Block, Command, ExecError, FileExtent, LockGuard, MountCall, Output, Real, Space,
    Stat, Watch, World,
};

pub(super) struct FakeLio {
    real: Real,
    root: PathBuf,
    /// Where each link in the tree points to.
    links: Mutex<BTreeMap<PathBuf, PathBuf>>,
    in_flight: Mutex<bool>,
    landed: Condvar,
    /// Where each content of a block lies: the same content has one place, as if it were shared.
    places: Mutex<BTreeMap<Vec<u8>, u64>>,
    /// The host's LVM.
    pub(super) lvm: Mutex<FakeLvm>,
    /// Sharing blocks finds no space.
    pub(super) clones_fail: Mutex<bool>,
    /// What the pool has left, if not what the real file system has.
    pub(super) available: Mutex<Option<u64>>,
}

impl FakeLio {
    /// The tree at `root`, which is made.
    pub(super) fn new(root: &Path) -> Self {
        fs::create_dir_all(root.join("core")).unwrap();
        Self {
            real: Real::new(Path::new("/")),
            root: root.to_owned(),
            links: Mutex::default(),
            in_flight: Mutex::new(false),
            landed: Condvar::new(),
            places: Mutex::default(),
            lvm: Mutex::default(),
            clones_fail: Mutex::new(false),
            available: Mutex::new(None),
        }
    }

    /// What a reboot leaves.
    pub(super) fn reboot(&self) {
        self.lvm.lock().unwrap().reboot();
        fs::remove_dir_all(&self.root).unwrap();
        self.links.lock().unwrap().clear();
        fs::create_dir_all(self.root.join("core")).unwrap();
    }

    /// From now on something is in flight to every LUN, or nothing is any more.
    pub(super) fn set_in_flight(&self, in_flight: bool) {
        *self.in_flight.lock().unwrap() = in_flight;
        self.landed.notify_all();
    }

    /// The initiator logs in or out.
    pub(super) fn set_session(&self, target: &str, initiator: &str, live: bool) {
        let entry = format!("iscsi/{target}/tpgt_1/acls/{initiator}/info");
        let no_session = format!("No active iSCSI Session for Initiator Endpoint: {initiator}\n");
        let text = if live {
            "InitiatorName: x\n"
        } else {
            &no_session
        };
        fs::write(self.root.join(entry), text).unwrap();
    }

    /// Every directory, link and attribute, for comparing.
    pub(super) fn tree(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.walk(&self.root, &mut found);
        found
    }

    fn walk(&self, dir: &Path, found: &mut BTreeSet<String>) {
        // Another thread may be removing what is looked at.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let shown = path.strip_prefix(&self.root).unwrap().display();
            if let Ok(target) = fs::read_link(&path) {
                let target = target.strip_prefix(&self.root).unwrap();
                found.insert(format!("{shown} -> {}", target.display()));
            } else if path.is_dir() {
                found.insert(format!("{shown}/"));
                self.walk(&path, found);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.insert(format!("{shown} = {}", text.trim()));
            }
        }
    }

    fn inside<'a>(&self, path: &'a Path) -> Option<Vec<&'a str>> {
        let inside = path.strip_prefix(&self.root).ok()?;
        Some(inside.iter().map(|part| part.to_str().unwrap()).collect())
    }

    /// Whether a link in the tree points to `path`.
    fn is_linked(&self, path: &Path) -> bool {
        let links = self.links.lock().unwrap();
        // As bytes: comparing paths part by part would be most of what a test with a thousand volumes does.
        let path = path.as_os_str();
        links.values().any(|target| target.as_os_str() == path)
    }

    fn set_attribute(&self, path: &Path, parts: &[&str], text: &str) -> io::Result<()> {
        let dir = path.parent().unwrap();
        match parts {
            ["core", _, _, "enable"] => enable_backstore(dir)?,
            ["core", _, _, "control"] if fs::read_to_string(dir.join("enable"))?.trim() == "1" => {
                return resize_backstore(dir, text);
            }
            ["core", _, _, "alua", _, "alua_access_type"] => {
                assert_eq!(text, "1");
                return fs::write(path, "Implicit\n");
            }
            ["core", _, _, "alua", _, "alua_access_state"] => {
                let id = fs::read_to_string(dir.join("tg_pt_gp_id"))?;
                if id.trim().is_empty() {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
            ["iscsi", _, _, "lun", _, "alua_tg_pt_gp"] => {
                return fs::write(path, format!("TG Port Alias: {text}\n"));
            }
            ["core", _, name, "wwn", "vpd_unit_serial"] => {
                let backstore = dir.parent().unwrap();
                assert!(backstore.ends_with(name));
                if self.is_linked(backstore) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                return fs::write(path, format!("T10 VPD Unit Serial Number: {text}\n"));
            }
            _ => {}
        }
        fs::write(path, format!("{text}\n"))
    }
}

/// As LIO does: without a size it refuses, and a missing file is made.
fn enable_backstore(dir: &Path) -> io::Result<()> {
    let control = fs::read_to_string(dir.join("control"))?;
    if let Some(device) = control.trim().strip_prefix("udev_path=") {
        let (device, _) = device.split_once(',').unwrap();
        let info = format!(
            "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 128\n        iBlock device: dm-0  UDEV PATH: {device}  readonly: 0\n        Major: 254 Minor: 0  CLAIMED: IBLOCK\n"
        );
        return fs::write(dir.join("info"), info);
    }
    let (name, size) = control
        .trim()
        .split_once(',')
        .ok_or(io::ErrorKind::InvalidInput)?;
    let image = name.strip_prefix("fd_dev_name=").unwrap();
    let size = size.strip_prefix("fd_dev_size=").unwrap();
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(image)?;
    show_backstore(dir, image, size)
}

fn show_backstore(dir: &Path, image: &str, size: &str) -> io::Result<()> {
    let info = format!(
        "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384\n        TCM FILEIO ID: 0        File: {image}  Size: {size}  Mode: O_DSYNC Async: 0\n"
    );
    fs::write(dir.join("info"), info)
}

/// The kernel takes a new size of a disk that is in use, whatever it is; so the image must have it before.
fn resize_backstore(dir: &Path, control: &str) -> io::Result<()> {
    let size = control.strip_prefix("fd_dev_size=").unwrap();
    let info = fs::read_to_string(dir.join("info"))?;
    let (_, rest) = info.split_once("File: ").unwrap();
    let (image, rest) = rest.split_once("  Size: ").unwrap();
    let (before, _) = rest.split_once(' ').unwrap();
    let bytes: u64 = size.parse().unwrap();
    assert!(bytes > before.parse().unwrap(), "a disk in use shrinks");
    assert_eq!(fs::metadata(image)?.len(), bytes, "reads past the image");
    show_backstore(dir, image, size)
}

/// The files and directories that the kernel puts into a directory that is made.
fn populate(path: &Path, parts: &[&str]) -> io::Result<()> {
    let dir = |name: &str| fs::create_dir(path.join(name));
    let file = |name: &str, text: &str| fs::write(path.join(name), text);
    match parts {
        ["core", _] => {
            file("hba_info", "HBA Index: 1 plugin: fileio\n")?;
            file("hba_mode", "0\n")
        }
        ["core", _, _] => {
            for name in ["control", "udev_path", "info"] {
                file(name, "")?;
            }
            dir("attrib")?;
            dir("wwn")?;
            dir("alua")?;
            dir("alua/default_tg_pt_gp")?;
            file("enable", "0\n")?;
            file("attrib/emulate_tpu", "0\n")?;
            file("attrib/emulate_write_cache", "0\n")?;
            file("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: \n")
        }
        ["core", _, _, "alua", _] => {
            file("tg_pt_gp_id", "")?;
            file("alua_access_type", "Implicit and Explicit\n")?;
            file("alua_access_state", "0\n")?;
            file("nonop_delay_msecs", "100\n")
        }
        ["iscsi"] => dir("discovery_auth"),
        ["iscsi", _, group, "lun", _] if group.starts_with("tpgt_") => file("alua_tg_pt_gp", "\n"),
        ["iscsi", _, group] if group.starts_with("tpgt_") => {
            for name in ["attrib", "np", "lun", "acls", "auth", "param"] {
                dir(name)?;
            }
            file("enable", "0\n")?;
            for (name, text) in [
                ("generate_node_acls", "0\n"),
                ("demo_mode_write_protect", "1\n"),
                ("cache_dynamic_acls", "0\n"),
                ("authentication", "1\n"),
            ] {
                file(&format!("attrib/{name}"), text)?;
            }
            Ok(())
        }
        ["iscsi", _, _, "acls", initiator] => {
            dir("attrib")?;
            dir("auth")?;
            for name in ["userid", "password", "userid_mutual", "password_mutual"] {
                file(&format!("auth/{name}"), "\n")?;
            }
            let text = format!("No active iSCSI Session for Initiator Endpoint: {initiator}\n");
            file("info", &text)
        }
        ["iscsi", _, _, "acls", _, _] => file("write_protect", "0\n"),
        _ => Ok(()),
    }
}

/// What the kernel itself put there goes with its directory; what was made by hand keeps it.
fn is_made_by_hand(parts: &[&str]) -> bool {
    let brought = [
        "attrib",
        "wwn",
        "alua",
        "default_tg_pt_gp",
        "discovery_auth",
        "np",
        "lun",
        "acls",
        "auth",
        "param",
    ];
    parts.last().is_some_and(|name| !brought.contains(name))
}

impl World for FakeLio {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let Some(parts) = self.inside(path) else {
            return self.real.make_directory(path);
        };
        let mut made = self.root.clone();
        for (depth, part) in parts.iter().enumerate() {
            made.push(part);
            if !made.exists() {
                fs::create_dir(&made)?;
                populate(&made, &parts[..=depth])?;
            }
        }
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        if self.inside(path).is_none() {
            return self.real.remove_directory(path);
        }
        fs::metadata(path)?;
        let mut inside = BTreeSet::new();
        self.walk(path, &mut inside);
        let busy = inside.iter().any(|line| {
            let made = line.strip_suffix('/').map(|dir| dir.split('/').collect());
            line.contains(" -> ") || made.is_some_and(|parts: Vec<_>| is_made_by_hand(&parts))
        });
        if busy || self.is_linked(path) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        fs::remove_dir_all(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let parts = self.inside(path).unwrap_or_default();
        if let ["iscsi", _, _, "lun", ..] = parts[..]
            && path.is_symlink()
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            while *in_flight {
                in_flight = self.landed.wait(in_flight).unwrap();
            }
        }
        self.real.remove_file(path)?;
        self.links.lock().unwrap().remove(path);
        Ok(())
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.real.hard_link(existing, link)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        if self.inside(link).is_some() {
            fs::metadata(target)?;
            let mut links = self.links.lock().unwrap();
            links.insert(link.to_owned(), target.to_owned());
        }
        self.real.symlink(target, link)
    }

    fn write_attribute(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some(parts) = self.inside(path) else {
            return self.real.write_attribute(path, bytes);
        };
        fs::metadata(path)?;
        self.set_attribute(path, &parts, std::str::from_utf8(bytes).unwrap())
    }

    fn extend_file(&self, path: &Path, size: u64) -> io::Result<()> {
        self.real.extend_file(path, size)
    }

    fn move_unused_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.move_unused_file(from, to)
    }

    fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        if *self.clones_fail.lock().unwrap() && !from.ends_with(".reflink-probe") {
            // The copy is there and empty.
            fs::write(to, b"")?;
            return Err(nix::errno::Errno::ENOSPC.into());
        }
        fs::copy(from, to).map(drop)
    }

    fn file_extents(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<FileExtent>> {
        const BLOCK: usize = 4096;
        let bytes = fs::read(path)?;
        let mut places = self.places.lock().unwrap();
        let mut found = Vec::new();
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            let offset = (number * BLOCK) as u64;
            if offset + BLOCK as u64 > from && block.iter().any(|&byte| byte != 0) {
                let next = (places.len() * BLOCK) as u64;
                found.push(FileExtent {
                    offset,
                    length: BLOCK as u64,
                    place: Some(*places.entry(block.to_vec()).or_insert(next)),
                    is_shared: false,
                });
            }
        }
        found.truncate(most);
        Ok(found)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut space = self.real.space(path)?;
        // How full the disk of the testing machine is must make no difference.
        let available = *self.available.lock().unwrap();
        space.available = available.unwrap_or(space.total);
        Ok(space)
    }

    fn run(&self, command: &Command) -> Result<Output, ExecError> {
        Ok(self.lvm.lock().unwrap().run(command))
    }

    fn now(&self) -> Moment {
        self.real.now()
    }
    fn wall_clock(&self) -> SystemTime {
        self.real.wall_clock()
    }
    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.real.make_private_directory(path)
    }
    fn watch(&self) -> Box<dyn Watch> {
        self.real.watch()
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.real.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.real.list(path)
    }
    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.real.read_link(path)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.real.stat(path)
    }
    fn open_block(&self, path: &Path) -> io::Result<Box<dyn Block>> {
        self.real.open_block(path)
    }
    fn probe_tcp(
        &self,
        address: SocketAddr,
        through: Option<&Netdev>,
        timeout: Duration,
    ) -> io::Result<()> {
        self.real.probe_tcp(address, through, timeout)
    }

    fn addresses(&self) -> io::Result<Vec<Address>> {
        self.real.addresses()
    }

    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        self.real.resolve(name)
    }
    fn replace_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        self.real.replace_file(path, scratch, bytes)
    }
    fn edit_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        self.real.edit_file(path, scratch, bytes)
    }
    fn add_line(&self, path: &Path, line: &str) -> io::Result<Option<bool>> {
        self.real.add_line(path, line)
    }
    fn create_sparse(&self, path: &Path, size: u64) -> io::Result<()> {
        self.real.create_sparse(path, size)
    }
    fn mount(&self, call: &MountCall) -> io::Result<()> {
        self.real.mount(call)
    }
    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.real.unmount(target)
    }
    fn thaw(&self, path: &Path) -> io::Result<bool> {
        self.real.thaw(path)
    }
    fn ask_multipathd(&self, command: &str, timeout: Duration) -> io::Result<String> {
        self.real.ask_multipathd(command, timeout)
    }
    fn flush_block(&self, path: &Path) -> io::Result<()> {
        self.real.flush_block(path)
    }
    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.real.sync_file_system(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.real.try_lock(path)
    }
}
