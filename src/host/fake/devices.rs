//! Block devices by path and number, who uses them, and an open one.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::FakeWorld;
use super::disks::{Trouble, page_80, page_83};
use super::multipathd::DM;
use super::san::{Disk, DiskId};
use super::state::State;
use super::tree::Node;
use crate::host::{Block, Image, ImageAccess};

/// A block device for as long as it lives; numbers and names are used again, this is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Sd(u64),
    Map(u64),
    Crypt(u64),
}

impl State {
    /// The device at `path`: its node, a link to it, or a file that it is bound to.
    pub(super) fn device_at(&self, path: &Path) -> io::Result<Device> {
        let at = self.tree.resolve(path, true)?;
        if let Some(mount) = self.mounts.at(&at)
            && mount.is_node
        {
            return mount.device.ok_or_else(|| Errno::ENXIO.into());
        }
        match self.tree.get(&at)? {
            Node::Device(major, minor) => self.device_numbered((*major, *minor)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a block device",
            )),
        }
    }

    fn device_numbered(&self, numbers: (u32, u32)) -> io::Result<Device> {
        let map = self.maps.values().find(|map| (DM, map.minor) == numbers);
        let sd = self.sds.values().find(|sd| sd.numbers() == numbers);
        let mut crypts = self.crypts.iter();
        if let Some((id, _)) = crypts.find(|(_, crypt)| (DM, crypt.minor) == numbers) {
            return Ok(Device::Crypt(*id));
        }
        match (map, sd) {
            (Some(map), _) => Ok(Device::Map(map.id)),
            (None, Some(sd)) => Ok(Device::Sd(sd.id)),
            (None, None) => Err(Errno::ENXIO.into()),
        }
    }

    pub(super) fn numbers_of(&self, device: Device) -> (u32, u32) {
        match device {
            Device::Map(id) => self.maps.get(&id).map_or((0, 0), |map| (DM, map.minor)),
            Device::Sd(id) => self.sds.get(&id).map_or((0, 0), super::disks::Sd::numbers),
            Device::Crypt(id) => self
                .crypts
                .get(&id)
                .map_or((0, 0), |crypt| (DM, crypt.minor)),
        }
    }

    pub(super) fn size_of(&self, device: Device) -> Option<u64> {
        match device {
            Device::Map(id) => self.maps.get(&id).map(|map| map.size),
            Device::Sd(id) => self.sds.get(&id).map(|sd| sd.size),
            Device::Crypt(id) => self.crypts.get(&id).map(|crypt| crypt.size),
        }
    }

    pub(super) fn disk_under(&mut self, device: Device) -> Result<DiskId, Trouble> {
        match device {
            Device::Sd(id) => self.disk_behind(id),
            Device::Map(id) => self.disk_behind_map(id),
            Device::Crypt(id) => match self.crypts.get(&id).map(|crypt| crypt.under) {
                Some(under) => self.disk_under(under),
                None => Err(Trouble::Failed(Errno::ENXIO)),
            },
        }
    }

    /// The disk as it is seen through `device`, which it lies behind.
    pub(super) fn seen_through<T>(
        &self,
        device: Device,
        disk: DiskId,
        look: impl FnOnce(&Disk) -> T,
    ) -> T {
        match device {
            Device::Crypt(_) => look(&self.san.disk(disk).unsealed()),
            Device::Sd(_) | Device::Map(_) => look(self.san.disk(disk)),
        }
    }

    /// The same, to be changed.
    pub(super) fn change_through<T>(
        &mut self,
        device: Device,
        disk: DiskId,
        change: impl FnOnce(&mut Disk) -> T,
    ) -> T {
        let disk = self.san.disk_mut(disk);
        let Device::Crypt(_) = device else {
            return change(disk);
        };
        let mut inside = disk.unsealed();
        let changed = change(&mut inside);
        disk.reseal(&inside);
        changed
    }

    /// Notes a use of a device that no careful driver makes: of a bare path, or of a map with a path that leads elsewhere.
    pub(super) fn check_use(&mut self, device: Device, what: &str) {
        let id = match device {
            Device::Map(id) => id,
            Device::Sd(id) => {
                let name = self.sds.get(&id).map(super::disks::Sd::name);
                self.violation(format!("{what} of the bare path {name:?}"));
                return;
            }
            Device::Crypt(id) => {
                let under = self.crypts.get(&id).map(|crypt| crypt.under);
                return under.map_or((), |under| self.check_use(under, what));
            }
        };
        let Some(map) = self.maps.get(&id).cloned() else {
            return;
        };
        for &path in &map.paths {
            let Ok(disk) = self.disk_behind(path) else {
                continue;
            };
            let found = self.san.disk(disk).wwid.clone();
            if found != map.wwid {
                self.violation(format!("{what} of map {} which reaches {found}", map.name));
            }
        }
    }

    fn opens_of(&mut self, device: Device) -> Option<&mut u32> {
        match device {
            Device::Map(id) => Some(&mut self.maps.get_mut(&id)?.opens),
            Device::Crypt(id) => Some(&mut self.crypts.get_mut(&id)?.opens),
            Device::Sd(_) => None,
        }
    }

    /// Who keeps a map from being removed.
    pub(super) fn users_of_map(&self, id: u64) -> Vec<String> {
        let device = Device::Map(id);
        let mounts = self.mounts.of_device(device);
        let mut users: Vec<String> = mounts.map(|m| m.target.display().to_string()).collect();
        let Some(map) = self.maps.get(&id) else {
            return users;
        };
        let on_it = self.crypts.values().filter(|crypt| crypt.under == device);
        users.extend(on_it.map(|crypt| crypt.name.clone()));
        if map.opens > 0 {
            users.push(format!("{} open descriptors", map.opens));
        }
        users.extend(self.openers.get(&map.node()).cloned());
        users
    }
}

/// A map that is open to be read and written as an image.
pub(super) struct FakeImage {
    open: FakeBlock,
    access: ImageAccess,
}

impl FakeImage {
    pub(super) fn open(world: &FakeWorld, path: &Path, access: ImageAccess) -> io::Result<Self> {
        let open = FakeBlock::open(world, path)?;
        world.state().check_use(open.device, "transfer");
        Ok(Self { open, access })
    }

    /// Does `act` with the disk once its I/O ends.
    fn with_disk<T>(
        &self,
        (offset, length): (u64, usize),
        mut act: impl FnMut(&mut State, DiskId) -> io::Result<T>,
    ) -> io::Result<T> {
        let device = self.open.device;
        self.open.world.until_it_ends(|state| {
            let disk = state.disk_under(device)?;
            let end = offset + length as u64;
            if state.size_of(device).is_none_or(|size| end > size) {
                return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(act(state, disk))
        })?
    }
}

impl Image for FakeImage {
    fn size(&self) -> io::Result<u64> {
        let state = self.open.world.enter()?;
        let size = state.size_of(self.open.device);
        size.ok_or_else(|| Errno::ENXIO.into())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let length = into.len();
        let read = self.with_disk((offset, length), |state, disk| {
            state.san.disk(disk).read(offset, length)
        })?;
        into.copy_from_slice(&read);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.access == ImageAccess::Read {
            return Err(Errno::EBADF.into());
        }
        self.with_disk((offset, bytes.len()), |state, disk| {
            state.san.disk_mut(disk).write(offset, bytes);
            Ok(())
        })
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let size = self.size()?;
        Ok((offset < size).then_some((offset, size)))
    }

    fn sync(&self) -> io::Result<()> {
        self.with_disk((0, 0), |_, _| Ok(()))
    }
}

/// An open block device of the fake host.
pub(super) struct FakeBlock {
    world: FakeWorld,
    device: Device,
}

impl FakeBlock {
    pub(super) fn open(world: &FakeWorld, path: &Path) -> io::Result<Self> {
        let mut state = world.enter()?;
        let device = state.device_at(path)?;
        if let Some(opens) = state.opens_of(device) {
            *opens += 1;
        }
        drop(state);
        Ok(Self {
            world: world.clone(),
            device,
        })
    }
}

impl Drop for FakeBlock {
    fn drop(&mut self) {
        let mut state = self.world.state();
        if let Some(opens) = state.opens_of(self.device) {
            *opens = opens.saturating_sub(1);
        }
    }
}

impl Block for FakeBlock {
    fn size(&mut self) -> io::Result<u64> {
        let state = self.world.enter()?;
        state
            .size_of(self.device)
            .ok_or_else(|| Errno::ENXIO.into())
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if !offset.is_multiple_of(4096) || !length.is_multiple_of(4096) {
            return Err(Errno::EINVAL.into());
        }
        let device = self.device;
        self.world.until_it_ends(|state| {
            let disk = state.disk_under(device)?;
            let end = offset + length as u64;
            if state.size_of(device).is_none_or(|size| end > size) {
                return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(state.seen_through(device, disk, |disk| disk.read(offset, length)))
        })?
    }

    fn inquiry(&mut self, page: u8, timeout: Duration) -> io::Result<Vec<u8>> {
        let device = self.device;
        let answered = self.world.until(timeout, |state| {
            let disk = match state.disk_under(device) {
                Err(Trouble::Held) => return None,
                Err(Trouble::Failed(errno)) => return Some(Err(io::Error::from(errno))),
                Ok(disk) => disk,
            };
            let wwid = &state.san.disk(disk).wwid;
            Some(match page {
                0x00 => Ok(vec![0, 0, 0, 3, 0x00, 0x80, 0x83]),
                0x80 => Ok(page_80(wwid)),
                0x83 => Ok(page_83(wwid)),
                _ => Err(io::Error::other("the target knows no such page")),
            })
        })?;
        answered.unwrap_or_else(|| Err(io::Error::other("INQUIRY timed out")))
    }
}
