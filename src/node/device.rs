//! The kernel's view of a volume's devices, its map and the encrypted layer on it, and where they are mounted.

use std::io;
use std::path::{Path, PathBuf};

use super::unmount::Before;
use super::{Node, NodeError};
use crate::fabric::Wwid;
use crate::fault::chain;
use crate::host::{Host, Stat};
use crate::luks::Identity;
use crate::mount::{Mount, MountTable, resolve};
use crate::volume::VolumeId;

/// A device of this moment; its number may be another's tomorrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `dm-3`.
    pub name: String,
    /// Major and minor number.
    pub numbers: (u64, u64),
    /// `/dev/dm-3`.
    pub path: PathBuf,
}

/// Whose device a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The volume's.
    Ours,
    /// Another one's.
    Other,
    /// A device that is gone.
    Gone,
}

/// Whether this is the dm uuid of the encrypted layer of the volume with `wwid`.
fn is_layer(wwid: &Wwid, uuid: &str) -> bool {
    Identity::of(wwid.as_str()).may_be(uuid)
}

/// The device whose dm uuid is the one looked for.
fn find_device(host: &Host, is_it: impl Fn(&str) -> bool) -> io::Result<Option<Device>> {
    for name in host.list(Path::new("/sys/block"))? {
        let Some(name) = name.to_str().filter(|name| name.starts_with("dm-")) else {
            continue;
        };
        let attributes = Path::new("/sys/block").join(name);
        let uuid = host.find_attribute(&attributes.join("dm/uuid"))?;
        if !uuid.is_some_and(|uuid| is_it(&uuid)) {
            continue;
        }
        let numbers = host.find_attribute(&attributes.join("dev"))?;
        if let Some(numbers) = numbers.as_deref().and_then(parse_numbers) {
            return Ok(Some(Device {
                name: name.to_owned(),
                numbers,
                path: Path::new("/dev").join(name),
            }));
        }
    }
    Ok(None)
}

fn parse_numbers(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether `mount` shows the volume with `wwid`.
fn owner(host: &Host, mount: &Mount, wwid: &Wwid) -> io::Result<Owner> {
    let attributes = if mount.kind == "devtmpfs" {
        let Some(node) = mount.root.components().nth(1) else {
            return Ok(Owner::Other);
        };
        Path::new("/sys/block").join(node)
    } else {
        let (major, minor) = mount.device;
        Path::new("/sys/dev/block").join(format!("{major}:{minor}"))
    };
    // Only block devices have a place there; a tmpfs has none and shows major number 0.
    if mount.kind != "devtmpfs" && mount.device.0 == 0 {
        return Ok(Owner::Other);
    }
    if host.find_stat(&attributes)?.is_none() {
        return Ok(Owner::Gone);
    }
    let uuid = host.find_attribute(&attributes.join("dm/uuid"))?;
    let is_ours = |uuid: String| uuid == wwid.dm_uuid() || is_layer(wwid, &uuid);
    Ok(if uuid.is_some_and(is_ours) {
        Owner::Ours
    } else {
        Owner::Other
    })
}

impl Node {
    /// The orchestrator's path as the mount table shows it.
    pub(super) fn resolved(&self, path: &Path) -> Result<PathBuf, NodeError> {
        resolve(&self.host, path).map_err(|source| NodeError::Resolve {
            path: path.to_owned(),
            source,
        })
    }

    /// The map of `volume`, if there is one.
    pub(super) fn find_device(&self, volume: &VolumeId) -> Result<Option<Device>, NodeError> {
        let wanted = volume.wwid.dm_uuid();
        self.find_by_uuid(volume, |uuid| uuid == wanted)
    }

    /// The encrypted layer of `volume`, wherever it lies, if there is one.
    pub(super) fn find_layer(&self, volume: &VolumeId) -> Result<Option<Device>, NodeError> {
        self.find_by_uuid(volume, |uuid| is_layer(&volume.wwid, uuid))
    }

    fn find_by_uuid(
        &self,
        volume: &VolumeId,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<Option<Device>, NodeError> {
        find_device(&self.host, is_it).map_err(|source| NodeError::Device {
            volume: volume.clone(),
            source,
        })
    }

    /// All devices of `volume`, the map first.
    pub(super) fn devices(&self, volume: &VolumeId) -> Result<Vec<Device>, NodeError> {
        let both = [self.find_device(volume)?, self.find_layer(volume)?];
        Ok(both.into_iter().flatten().collect())
    }

    /// The map of `volume`, which the attachment has just verified.
    pub(super) fn device(&self, volume: &VolumeId) -> Result<Device, NodeError> {
        self.find_device(volume)?.ok_or_else(|| NodeError::Device {
            volume: volume.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "its map is gone again"),
        })
    }

    /// Every place where `device` is mounted or bound.
    pub(super) fn places_of(&self, device: &Device) -> Result<Vec<Mount>, NodeError> {
        let table = MountTable::read(&self.host)?;
        let places = table.of_device(device.numbers, &device.name);
        Ok(places.cloned().collect())
    }

    /// Those of them that are not at one of `targets`, nor such a mount seen a second time.
    pub(super) fn places_besides(
        &self,
        device: &Device,
        targets: &[&Path],
    ) -> Result<Vec<Mount>, NodeError> {
        let table = MountTable::read(&self.host)?;
        let places = table.of_device_elsewhere(device.numbers, &device.name, targets);
        Ok(places.into_iter().cloned().collect())
    }

    /// Every place where one of the devices of `volume` is mounted or bound.
    pub(super) fn all_places_of(&self, volume: &VolumeId) -> Result<Vec<Mount>, NodeError> {
        let mut places = Vec::new();
        for device in self.devices(volume)? {
            places.extend(self.places_of(&device)?);
        }
        Ok(places)
    }

    /// Whose device `mount` shows, seen from `volume`.
    pub(super) fn owner_of(&self, volume: &VolumeId, mount: &Mount) -> Result<Owner, NodeError> {
        owner(&self.host, mount, &volume.wwid).map_err(|source| NodeError::Device {
            volume: volume.clone(),
            source,
        })
    }

    /// Unmounts all layers at `target`, if they show `volume`. False when there were none.
    pub(super) fn remove_own_mount(
        &self,
        volume: &VolumeId,
        target: &Path,
        before: Before,
    ) -> Result<bool, NodeError> {
        let table = MountTable::read(&self.host)?;
        if table.find_top(target).is_none() {
            // The kernel takes a mount out of the table before it has written everything out.
            return self.wait_for_unmount(volume, target);
        }
        for mount in table.at(target) {
            if self.owner_of(volume, mount)? == Owner::Other {
                return Err(NodeError::Foreign {
                    target: target.to_owned(),
                    found: "a mount of something else",
                });
            }
        }
        self.unmount(volume, target, before)?;
        Ok(true)
    }

    /// What stands at a path of ours, `None` when nothing does.
    pub(super) fn find_stat_of(&self, target: &Path) -> Result<Option<Stat>, NodeError> {
        self.host
            .find_stat(target)
            .map_err(|source| NodeError::Target {
                target: target.to_owned(),
                what: "looked at",
                source,
            })
    }
}

/// `error`, and beside it that the clean-up after it failed too, if it did. A failure "for good" must leave nothing; where something stays,
/// the outcome is open and the orchestrator has to call again.
pub fn beside(error: NodeError, cleanup: Result<(), NodeError>) -> NodeError {
    match cleanup {
        Ok(()) => error,
        Err(failed) => NodeError::LeftBehind {
            cleanup: chain(&failed),
            source: Box::new(error),
        },
    }
}
