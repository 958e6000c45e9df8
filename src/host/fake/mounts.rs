//! The mount table of the fake host, and what mount(2) and umount(2) refuse.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::devices::Device;
use super::disks::Trouble;
use super::filesystems::Super;
use super::state::State;
use super::tree::Node;
use crate::host::MountCall;

/// What an error makes of a mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It refuses writes.
    ReadOnly,
    /// It serves nothing.
    ShutDown,
    /// Its writes fail, and only its count of errors tells of it: ext4 of Linux 6.12.
    Unsaid,
}

#[derive(Clone, Debug)]
pub(super) struct Mount {
    id: u32,
    /// Of the file system, or of the devices' file system for a bound device node.
    numbers: (u32, u32),
    /// Where in that file system.
    root: String,
    pub(super) target: PathBuf,
    read_only: bool,
    flags: String,
    shared: bool,
    kind: String,
    source: String,
    options: String,
    /// What an error has made of the file system.
    pub(super) broken: Option<Broken>,
    /// The device that it keeps open, and whether it is the node itself that is bound.
    pub(super) device: Option<Device>,
    pub(super) is_node: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Mounts {
    pub(super) table: Vec<Mount>,
    serial: u32,
}

impl Mounts {
    pub(super) fn at_boot() -> Self {
        let mut mounts = Self::default();
        for (numbers, target, kind, source) in [
            ((254, 1), "/", "ext4", "/dev/vda1"),
            ((0, 5), "/dev", "devtmpfs", "udev"),
            ((0, 22), "/sys", "sysfs", "sysfs"),
            ((0, 23), "/proc", "proc", "proc"),
            ((0, 24), "/run", "tmpfs", "tmpfs"),
        ] {
            let id = mounts.next_id();
            mounts.table.push(Mount {
                id,
                numbers,
                root: "/".into(),
                target: target.into(),
                read_only: false,
                flags: "relatime".into(),
                shared: true,
                kind: kind.into(),
                source: source.into(),
                options: String::new(),
                broken: None,
                device: None,
                is_node: false,
            });
        }
        mounts
    }

    fn next_id(&mut self) -> u32 {
        self.serial += 1;
        20 + self.serial
    }

    /// The topmost mount at exactly `target`.
    pub(super) fn at(&self, target: &Path) -> Option<&Mount> {
        self.table.iter().rev().find(|mount| mount.target == target)
    }

    /// The mount that `path` lies in.
    pub(super) fn containing(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|place| self.at(place))
    }

    pub(super) fn of_device(&self, device: Device) -> impl Iterator<Item = &Mount> {
        let on_it = move |mount: &&Mount| mount.device == Some(device);
        self.table.iter().filter(on_it)
    }

    /// As `/proc/self/mountinfo` shows it (proc(5)).
    pub(super) fn table_text(&self) -> String {
        self.table.iter().map(|mount| self.line(mount)).collect()
    }

    fn line(&self, mount: &Mount) -> String {
        let above = mount.target.parent().and_then(|dir| self.containing(dir));
        let parent = above.map_or(1, |above| above.id);
        let (major, minor) = mount.numbers;
        let access = if mount.read_only { "ro" } else { "rw" };
        let shared = if mount.shared {
            format!(" shared:{}", mount.id)
        } else {
            String::new()
        };
        let own = match mount.broken {
            Some(Broken::ReadOnly) => "ro",
            _ => access,
        };
        let inner = if mount.options.is_empty() {
            own.to_owned()
        } else {
            format!("{own},{}", mount.options)
        };
        format!(
            "{} {parent} {major}:{minor} {} {} {access},{}{shared} - {} {} {inner}\n",
            mount.id,
            escape(&mount.root),
            escape(&mount.target.display().to_string()),
            mount.flags,
            mount.kind,
            escape(&mount.source),
        )
    }
}

/// The kernel's octal escapes (`fs/proc_namespace.c`, `mangle`).
fn escape(text: &str) -> String {
    text.replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}

impl State {
    /// `Err(Held)` when the call hangs for now.
    pub(super) fn mount(&mut self, call: &MountCall) -> Result<(), Trouble> {
        let target = self.canonical(&call.target)?;
        if call.flags.contains(MsFlags::MS_REMOUNT) {
            return self.remount(call, &target);
        }
        let propagation = MsFlags::MS_SHARED | MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE;
        if call.flags.intersects(propagation) {
            let shared = call.flags.contains(MsFlags::MS_SHARED);
            let mount = self.mount_at(&target)?;
            mount.shared = shared;
            return Ok(());
        }
        let mount = if call.flags.contains(MsFlags::MS_BIND) {
            self.bind(call, target)?
        } else {
            self.mount_filesystem(call, target)?
        };
        self.mounts.table.push(mount);
        self.event();
        Ok(())
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, Trouble> {
        let at = self.tree.resolve(path, true).map_err(failed)?;
        self.tree.get(&at).map_err(failed)?;
        Ok(at)
    }

    fn mount_at(&mut self, target: &Path) -> Result<&mut Mount, Trouble> {
        let mut table = self.mounts.table.iter_mut().rev();
        let found = table.find(|mount| mount.target == target);
        found.ok_or(Trouble::Failed(Errno::EINVAL))
    }

    fn remount(&mut self, call: &MountCall, target: &Path) -> Result<(), Trouble> {
        let read_only = call.flags.contains(MsFlags::MS_RDONLY);
        let mount = self.mount_at(target)?;
        mount.read_only = read_only;
        mount.flags = flag_words(call.flags);
        self.event();
        Ok(())
    }

    fn bind(&mut self, call: &MountCall, target: PathBuf) -> Result<Mount, Trouble> {
        let source = self.canonical(&call.source)?;
        let from = self.mounts.containing(&source).expect("the root").clone();
        let inner = source.strip_prefix(&from.target).expect("it contains it");
        let is_directory = *self.tree.get(&source).map_err(failed)? == Node::Directory;
        let onto = *self.tree.get(&target).map_err(failed)? == Node::Directory;
        if is_directory != onto {
            return Err(Trouble::Failed(Errno::ENOTDIR));
        }
        let node = self.device_at(&source).ok();
        if let Some(device) = node {
            self.check_use(device, "bind");
            if let (Device::Crypt(_), Ok(disk)) = (device, self.disk_under(device)) {
                // Whoever sees it may write to it.
                self.san.disk_mut(disk).fresh = false;
            }
        }
        Ok(Mount {
            id: self.mounts.next_id(),
            root: Path::new(&from.root).join(inner).display().to_string(),
            target,
            is_node: node.is_some() || (from.is_node && inner.as_os_str().is_empty()),
            device: node.or(from.device),
            ..from
        })
    }

    fn mount_filesystem(&mut self, call: &MountCall, target: PathBuf) -> Result<Mount, Trouble> {
        let kind = call.kind.ok_or(Trouble::Failed(Errno::ENODEV))?;
        let device = self.device_at(&call.source).map_err(failed)?;
        let disk = self.disk_under(device)?;
        self.check_use(device, "mount");
        let found = self
            .seen_through(device, disk, Super::read)
            .map_err(failed)?;
        let fits = found.as_ref().is_some_and(|found| found.kind == kind);
        let Some(found) = found.filter(|_| fits) else {
            return Err(Trouble::Failed(Errno::EINVAL));
        };
        let mounted = self.mounts.of_device(device).next().is_some();
        let twin = kind == "xfs" && !mounted && self.uuid_is_mounted(found.uuid);
        if twin && !call.options.split(',').any(|option| option == "nouuid") {
            return Err(Trouble::Failed(Errno::EINVAL));
        }
        if kind == "btrfs" && !mounted && self.uuid_is_mounted(found.uuid) {
            return Err(Trouble::Failed(Errno::EEXIST));
        }
        if self
            .mounts
            .at(&target)
            .is_some_and(|top| top.device == Some(device) && top.root == "/")
        {
            return Err(Trouble::Failed(Errno::EBUSY));
        }
        self.san.disk_mut(disk).fresh = false;
        let numbers = if kind == "btrfs" {
            // Its own making, one for each file system (`get_anon_bdev`).
            (0, 60 + self.numbers_of(device).1)
        } else {
            self.numbers_of(device)
        };
        Ok(Mount {
            id: self.mounts.next_id(),
            numbers,
            root: "/".into(),
            target,
            read_only: call.flags.contains(MsFlags::MS_RDONLY),
            flags: flag_words(call.flags),
            shared: true,
            kind: kind.into(),
            source: call.source.display().to_string(),
            options: call.options.clone(),
            broken: None,
            device: Some(device),
            is_node: false,
        })
    }

    /// An error meets the file system that is mounted from a device.
    pub(super) fn break_file_system(&mut self, device: Device, broken: Broken) {
        let all = self.mounts.table.iter_mut();
        for mount in all.filter(|mount| mount.device == Some(device) && !mount.is_node) {
            mount.broken = Some(broken);
        }
        if broken == Broken::Unsaid {
            let (_, minor) = self.numbers_of(device);
            let count = format!("/sys/fs/ext4/dm-{minor}/errors_count");
            self.tree.put_text(count, "1\n");
        }
        self.event();
    }

    /// The error of every look into a file system that has shut down.
    pub(super) fn refuse_shut_down(&self, at: &Path) -> io::Result<()> {
        let holds = self.mounts.containing(at);
        if holds.is_some_and(|mount| mount.broken == Some(Broken::ShutDown)) {
            return Err(Errno::EIO.into());
        }
        Ok(())
    }

    fn uuid_is_mounted(&mut self, uuid: [u8; 16]) -> bool {
        let devices: Vec<Device> = self.mounts.table.iter().filter_map(|m| m.device).collect();
        devices.into_iter().any(|device| {
            let Ok(disk) = self.disk_under(device) else {
                return false;
            };
            let found = self.seen_through(device, disk, Super::read);
            found.is_ok_and(|found| found.is_some_and(|found| found.uuid == uuid))
        })
    }

    pub(super) fn unmount(&mut self, target: &Path) -> Result<(), Trouble> {
        let target = self.tree.resolve(target, false).map_err(failed)?;
        self.tree.get_link(&target).map_err(failed)?;
        let Some(mount) = self.mounts.at(&target).cloned() else {
            return Err(Trouble::Failed(Errno::EINVAL));
        };
        let below = |other: &Mount| other.target != target && other.target.starts_with(&target);
        let open = self.openers.keys().any(|path| path.starts_with(&target));
        if open || self.mounts.table.iter().any(below) {
            return Err(Trouble::Failed(Errno::EBUSY));
        }
        let last = mount
            .device
            .is_some_and(|device| self.mounts.of_device(device).count() == 1);
        if last && !mount.is_node && !mount.read_only && mount.broken.is_none() {
            self.write_out(&mount)?;
        }
        if last && self.frozen.remove(&target) {
            self.violation(format!(
                "{} was unmounted while frozen and holds its device for ever",
                target.display()
            ));
        }
        if last && let Some(device) = mount.device {
            let (_, minor) = self.numbers_of(device);
            self.tree.clear(format!("/sys/fs/ext4/dm-{minor}"));
        }
        self.mounts.table.retain(|other| other.id != mount.id);
        self.event();
        Ok(())
    }

    /// syncfs(2). A write that fails is told here and lost; one of which nobody asks is lost at the last unmount without a word.
    pub(super) fn sync_file_system(&mut self, path: &Path) -> Result<(), Trouble> {
        let target = self.tree.resolve(path, true).map_err(failed)?;
        let Some(mount) = self.mounts.at(&target).cloned() else {
            return Ok(());
        };
        if mount.broken.is_some() {
            return Err(Trouble::Failed(Errno::EIO));
        }
        let Some(id) = mount.device.and_then(|device| self.map_under(device)) else {
            return Ok(());
        };
        if mount.read_only || !self.maps[&id].dirty {
            return Ok(());
        }
        let reached = self.disk_behind_map(id).map(drop);
        if reached != Err(Trouble::Held)
            && let Some(map) = self.maps.get_mut(&id)
        {
            map.dirty = false;
        }
        reached
    }

    /// The last unmount writes the superblock and all that is dirty; it hangs while the map queues. When I/O fails, umount(2) still
    /// succeeds, and what was dirty is lost.
    fn write_out(&mut self, mount: &Mount) -> Result<(), Trouble> {
        let Some(id) = mount.device.and_then(|device| self.map_under(device)) else {
            return Ok(());
        };
        let reached = self.disk_behind_map(id);
        if reached == Err(Trouble::Held) {
            return Err(Trouble::Held);
        }
        if let Some(map) = self.maps.get_mut(&id)
            && std::mem::take(&mut map.dirty)
            && reached.is_err()
        {
            let name = map.name.clone();
            self.violation(format!("unmount of map {name} lost what was dirty"));
        }
        Ok(())
    }
}

fn flag_words(flags: MsFlags) -> String {
    let mut words = Vec::new();
    for (flag, word) in [
        (MsFlags::MS_NOSUID, "nosuid"),
        (MsFlags::MS_NODEV, "nodev"),
        (MsFlags::MS_NOEXEC, "noexec"),
        (MsFlags::MS_NOATIME, "noatime"),
        (MsFlags::MS_NODIRATIME, "nodiratime"),
    ] {
        if flags.contains(flag) {
            words.push(word);
        }
    }
    if !flags.contains(MsFlags::MS_NOATIME) {
        words.push("relatime");
    }
    words.join(",")
}

pub(super) fn failed(error: io::Error) -> Trouble {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Trouble::Failed(errno)
}
