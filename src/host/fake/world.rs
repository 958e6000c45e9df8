//! The fake host as a [`World`]: each call with the kernel's errors, on the state behind the lock.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::devices::{FakeBlock, FakeImage};
use super::filesystems::Super;
use super::san::PortalState;
use super::state::State;
use super::tools::Work;
use super::tree::Node;
use super::{FakeWorld, Held};
use crate::deadline::Moment;
use crate::fabric::{HostName, Netdev, Portal};
use crate::host::world::{LockGuard, MountCall, Watch, World};
use crate::host::{
    Address, Block, Command, ExecError, FileExtent, FileKind, Image, ImageAccess, OnDeadline,
    Output, Space, Stat,
};

/// The root file system's.
const ROOT_SPACE: Space = Space {
    total: 100 << 30,
    free: 65 << 30,
    available: 60 << 30,
    inodes: 1 << 20,
    free_inodes: 1 << 19,
};

/// The longest packet that a way takes unless it was told otherwise.
const ETHERNET: u16 = 1500;
const ISCSI: u16 = 3260;
/// So long iscsiadm waits for the lock of its database.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

struct FakeWatch {
    world: FakeWorld,
    seen: u64,
}

impl Watch for FakeWatch {
    fn wait(&mut self, at_most: Duration) {
        let world = self.world.clone();
        // Fails only in a process that ends anyway.
        let _ = world.pass(at_most, Some(&mut self.seen));
    }
}

impl World for FakeWorld {
    fn now(&self) -> Moment {
        Moment::from_zero(self.state().clock.now)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.state().clock.now
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(FakeWatch {
            seen: self.state().clock.events,
            world: self.clone(),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.enter()?;
        state.fail_if_told(&format!("read {}", path.display()))?;
        state.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.enter()?.tree.list(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        match self.enter()?.tree.get_link(path)? {
            Node::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.enter()?.stat(path)
    }

    fn file_extents(&self, _: &Path, _: u64, _: usize) -> io::Result<Vec<FileExtent>> {
        Err(Errno::EOPNOTSUPP.into())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.enter()?.fail_if_told("statfs")?;
        self.until_it_ends(|state| {
            let at = state
                .tree
                .resolve(path, true)
                .map_err(super::mounts::failed)?;
            state.refuse_shut_down(&at).map_err(super::mounts::failed)?;
            let device = state.mounts.containing(&at).filter(|mount| !mount.is_node);
            let Some(device) = device.and_then(|mount| mount.device) else {
                return Ok(ROOT_SPACE);
            };
            let disk = state.disk_under(device)?;
            let found = state.seen_through(device, disk, Super::read);
            let found = found.map_err(super::mounts::failed)?;
            let total = found.as_ref().map_or(0, |found| found.size);
            let counts_files = found.is_some_and(|found| found.kind != "btrfs");
            let inodes = if counts_files { total / 16384 } else { 0 };
            Ok(Space {
                total,
                free: total / 10 * 9,
                available: total / 10 * 9,
                inodes,
                free_inodes: inodes.saturating_sub(11),
            })
        })
    }

    fn open_block(&self, path: &Path) -> io::Result<Box<dyn Block>> {
        Ok(Box::new(FakeBlock::open(self, path)?))
    }

    fn open_image(&self, path: &Path, access: ImageAccess) -> io::Result<Box<dyn Image>> {
        Ok(Box::new(FakeImage::open(self, path, access)?))
    }

    fn probe_tcp(
        &self,
        address: SocketAddr,
        through: Option<&Netdev>,
        timeout: Duration,
    ) -> io::Result<()> {
        let portal = Portal::new(address.ip(), address.port());
        let netdev = through.map(Netdev::as_str);
        let state = self.enter()?;
        if netdev.is_some_and(|netdev| !state.has_netdev(netdev)) {
            return Err(Errno::ENODEV.into());
        }
        let answer = state.answer(portal, netdev);
        drop(state);
        match answer {
            PortalState::Up | PortalState::Mute => Ok(()),
            PortalState::Refusing => Err(Errno::ECONNREFUSED.into()),
            PortalState::BlackHoled | PortalState::Stalled => {
                self.pass(timeout, None)?;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn echo(
        &self,
        address: Ipv4Addr,
        through: Option<&Netdev>,
        bytes: u16,
        timeout: Duration,
    ) -> io::Result<()> {
        let state = self.enter()?;
        let netdev = through.map(Netdev::as_str);
        let mtu = netdev.map(|it| Path::new("/sys/class/net").join(it).join("mtu"));
        let mtu = mtu.and_then(|path| state.tree.text(&path)?.trim().parse().ok());
        if bytes > mtu.unwrap_or(ETHERNET) {
            return Err(Errno::EMSGSIZE.into());
        }
        let portal = Portal::new(address.into(), ISCSI);
        let way = state.widths.get(&address).copied().unwrap_or(ETHERNET);
        let arrives = bytes <= way && state.answer(portal, netdev) == PortalState::Up;
        drop(state);
        if !arrives {
            self.pass(timeout, None)?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn is_clock_kept(&self) -> io::Result<bool> {
        Ok(!self.enter()?.clock_is_loose)
    }

    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(self.enter()?.addresses.clone())
    }

    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let found = self.enter()?.names.get(name.as_str()).cloned();
        match found {
            None => Err(io::Error::other("Name or service not known")),
            Some(Some(addresses)) => Ok(addresses),
            Some(None) => {
                self.pass(super::HUNG, None)?;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn write_attribute(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.enter()?.is_stalled_scan(path) {
            self.until(super::HUNG, |state| {
                (!state.is_stalled_scan(path)).then_some(())
            })?;
        }
        let held = self.enter()?.blocked_delete(path);
        if let Some(sd) = held {
            // The kernel's SYNCHRONIZE CACHE waits for the device to unblock.
            self.until(super::HUNG, |state| {
                let state = state.sds.get(&sd).map(|sd| sd.state.clone());
                state.is_none_or(|state| state != "blocked").then_some(())
            })?;
        }
        self.change("write", path.display())?
            .write_attribute(path, bytes)
    }

    fn replace_file(&self, path: &Path, _scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.change("replace", path.display())?;
        state.fail_if_told("replace")?;
        state.tree.write_file(path, bytes)
    }

    fn edit_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        self.stat(path)?;
        self.replace_file(path, scratch, bytes)
    }

    fn add_line(&self, path: &Path, line: &str) -> io::Result<Option<bool>> {
        let mut state = self.change("append", path.display())?;
        state.fail_if_told("append")?;
        let mut text = String::from_utf8(state.read(path)?).map_err(io::Error::other)?;
        if text.lines().any(|found| found == line) {
            return Ok(Some(false));
        }
        text.push_str(&format!("{line}\n"));
        state.tree.write_file(path, text.as_bytes())?;
        Ok(Some(true))
    }

    fn create_sparse(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut state = self.enter()?;
        let node = if size == 0 {
            Node::File(Vec::new())
        } else {
            Node::Sparse(size)
        };
        state.tree.create(path, node)
    }

    fn extend_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut state = self.enter()?;
        let at = state.tree.resolve(path, true)?;
        match state.tree.get(&at)? {
            Node::Sparse(length) if *length >= size => {}
            Node::Sparse(_) => state.tree.put(at, Node::Sparse(size)),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        Ok(())
    }

    fn move_unused_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let node = state.tree.get(from)?.clone();
        state.tree.create(to, node)?;
        state.tree.remove_file(from)
    }

    fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let node = state.tree.get(from)?.clone();
        state.tree.create(to, node)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.enter()?.tree.make_directories(path)
    }

    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        World::make_directory(self, path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change("rmdir", path.display())?;
        state.refuse_mount_point(path)?;
        state.tree.remove_directory(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change("unlink", path.display())?;
        state.refuse_mount_point(path)?;
        state.fail_if_told("unlink")?;
        state.tree.remove_file(path)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        let mut state = self.change("link", link.display())?;
        // Nobody writes to a file with two names here.
        let node = state.tree.get(existing)?.clone();
        state.tree.create(link, node)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        state.tree.create(link, Node::Link(target.to_owned()))
    }

    fn run(&self, command: &Command) -> Result<Output, ExecError> {
        let program = command.program;
        let start = |source| ExecError::Start { program, source };
        let waits = command.program == "iscsiadm";
        drop(self.change("run", command).map_err(start)?);
        let started = self.until(LOCK_PATIENCE, |state| {
            let waits = waits && state.iscsi_is_locked();
            (!waits).then(|| state.start_tool(command, self.process))
        });
        let work = match started.map_err(start)? {
            Some(work) => work,
            None => return Ok(super::iscsiadm::lock_not_taken()),
        };
        let (span, then) = match work {
            Work::Missing => return Err(start(Errno::ENOENT.into())),
            Work::Done(output) => {
                // Killed half-way: the process ends here.
                drop(self.enter().map_err(start)?);
                return Ok(output);
            }
            Work::Busy { span, then } => (span, then),
        };
        if span <= command.timeout {
            self.pass(span, None).map_err(start)?;
            return Ok(then(&mut *self.enter().map_err(start)?));
        }
        Err(self.overdue(command, span, then).unwrap_or_else(start))
    }

    fn mount(&self, call: &MountCall) -> io::Result<()> {
        self.change("mount", call.target.display())?
            .fail_if_told("mount")?;
        self.until_it_ends(|state| state.mount(call))
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.change("umount", target.display())?
            .fail_if_told("umount")?;
        self.until_it_ends(|state| state.unmount(target))
    }

    fn thaw(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.enter()?;
        let at = state.tree.resolve(path, true)?;
        Ok(state.frozen.remove(&at))
    }

    fn ask_multipathd(&self, command: &str, _timeout: Duration) -> io::Result<String> {
        self.change("multipathd", command)?.ask_multipathd(command)
    }

    fn flush_block(&self, path: &Path) -> io::Result<()> {
        self.change("flush", path.display())?
            .fail_if_told("flush")?;
        self.until_it_ends(|state| state.flush(path))
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.change("syncfs", path.display())?
            .fail_if_told("syncfs")?;
        self.until_it_ends(|state| state.sync_file_system(path))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let mut state = self.enter()?;
        let at = state.tree.resolve(path, true)?;
        if state.tree.find(&at).is_none() {
            state.tree.create(&at, Node::File(Vec::new()))?;
        }
        if state.locks.contains_key(&at) {
            return Ok(None);
        }
        state.locks.insert(at.clone(), self.process);
        Ok(Some(LockGuard(Box::new(Held {
            world: self.clone(),
            path: at,
        }))))
    }
}

type Ending = Box<dyn FnOnce(&mut State) -> Output + Send>;

impl FakeWorld {
    /// The caller's deadline comes before the tool's end.
    fn overdue(&self, command: &Command, span: Duration, then: Ending) -> io::Result<ExecError> {
        let seconds = command.timeout.as_secs();
        let text = command.to_string();
        if command.on_deadline == OnDeadline::Leave {
            let finish = move |state: &mut State| {
                then(state);
            };
            self.enter()?.later(span, finish);
            self.pass(command.timeout, None)?;
            return Ok(ExecError::StillRunning {
                command: text,
                seconds,
                pid: 4712,
            });
        }
        self.pass(command.timeout, None)?;
        let mut state = self.enter()?;
        if command.program == "iscsiadm" {
            state.violation("iscsiadm killed");
            state.put_file("/run/lock/iscsi/lock.write");
        }
        Ok(ExecError::Killed {
            command: text,
            seconds,
        })
    }
}

impl State {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Some(map) = self.map_of_stats(path) {
            return Ok(map.unwritten_text().into_bytes());
        }
        let at = self.tree.resolve(path, true)?;
        if matches!(
            at.to_str(),
            Some("/proc/self/mountinfo" | "/proc/1/mountinfo")
        ) {
            return Ok(self.mounts.table_text().into_bytes());
        }
        match self.tree.get(&at)? {
            Node::File(bytes) => Ok(bytes.clone()),
            Node::Sparse(size) => Ok(vec![0; usize::try_from(*size).unwrap_or(0)]),
            Node::Directory => Err(Errno::EISDIR.into()),
            Node::Device(..) | Node::Link(_) => Err(Errno::EINVAL.into()),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let at = self.tree.resolve(path, false)?;
        let node = self.tree.get_link(&at)?;
        self.refuse_shut_down(&at)?;
        let bound = self.mounts.at(&at).filter(|mount| mount.is_node);
        let mut stat = Stat {
            kind: FileKind::Directory,
            size: 0,
            allocated: 0,
            device: (0, 0),
            mode: 0o600,
        };
        let numbers = match (node, bound.and_then(|mount| mount.device)) {
            (_, Some(device)) => Some(self.numbers_of(device)),
            (Node::Device(major, minor), None) => Some((*major, *minor)),
            _ => None,
        };
        if let Some((major, minor)) = numbers {
            stat.kind = FileKind::BlockDevice;
            stat.device = (major.into(), minor.into());
            return Ok(stat);
        }
        match node {
            Node::File(bytes) => {
                stat.kind = FileKind::File;
                stat.size = bytes.len() as u64;
                stat.allocated = stat.size.next_multiple_of(4096);
            }
            Node::Sparse(size) => {
                stat.kind = FileKind::File;
                stat.size = *size;
            }
            Node::Link(_) => stat.kind = FileKind::Link,
            Node::Directory | Node::Device(..) => {}
        }
        Ok(stat)
    }

    fn refuse_mount_point(&self, path: &Path) -> io::Result<()> {
        let at = self.tree.resolve(path, false)?;
        if self.mounts.at(&at).is_some() {
            return Err(Errno::EBUSY.into());
        }
        Ok(())
    }

    /// The disk whose deletion would wait now.
    fn blocked_delete(&self, path: &Path) -> Option<u64> {
        let at = self.tree.resolve(path, true).ok()?;
        let device = at.parent().filter(|_| at.ends_with("delete"))?;
        let is = |sd: &&super::disks::Sd| sd.device() == device && sd.state == "blocked";
        self.sds.values().find(is).map(|sd| sd.id)
    }

    fn write_attribute(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let at = self.tree.resolve(path, true)?;
        self.tree.get(&at)?;
        self.fail_if_told("write")?;
        let text = String::from_utf8_lossy(bytes).trim().to_owned();
        let name = at
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let parent = at.parent().unwrap_or(Path::new("/"));
        if name == "scan" {
            let host = parent
                .file_name()
                .and_then(|host| host.to_str()?.strip_prefix("host"));
            let host = host.and_then(|host| host.parse().ok());
            return self.scan(host.ok_or(Errno::EINVAL)?, &text);
        }
        let sd = self
            .sds
            .values()
            .find(|sd| sd.device() == parent)
            .map(|sd| sd.id);
        match (name, sd) {
            ("delete", Some(sd)) => self.delete_disk(sd),
            ("rescan", Some(sd)) => return self.rescan_disk(sd),
            ("state", Some(sd)) => self.set_disk_state(sd, &text),
            ("recovery_tmo", None) => {
                let seconds = text.parse().map_err(|_| Errno::EINVAL)?;
                let session = parent
                    .file_name()
                    .and_then(|s| s.to_str()?.strip_prefix("session"));
                let id: Option<u32> = session.and_then(|session| session.parse().ok());
                let session = id.and_then(|id| self.sessions.get_mut(&id));
                session.ok_or(Errno::ENODEV)?.recovery = Duration::from_secs(seconds);
                self.tree.put_text(at, format!("{seconds}\n"));
            }
            ("uevent", _) => self.event(),
            _ if at.starts_with("/sys") => return Err(Errno::EACCES.into()),
            _ => return self.tree.write_file(&at, bytes),
        }
        Ok(())
    }
}
