//! The multipath maps of this machine, read from sysfs.

use std::io;
use std::path::{Path, PathBuf};

use crate::fabric::Wwid;
use crate::host::Host;

const BLOCK: &str = "/sys/block";
/// sysfs gives sizes in these.
const SECTOR: u64 = 512;
const UUID_PREFIX: &str = "mpath-";

/// One map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its dm name: the WWID, or an alias such as `mpatha`.
    pub name: String,
    /// `dm-3`. Means another device once this one is gone.
    pub dm: String,
    /// Its dm uuid, `mpath-` and the WWID.
    pub uuid: String,
    /// Its size in bytes; 0 until its first table is in force.
    pub size: u64,
    /// I/O to it waits.
    pub suspended: bool,
    /// The sdX that its table names.
    pub members: Vec<String>,
}

impl Map {
    /// Its device node. devtmpfs makes it together with the device; the link under `/dev/mapper` comes later, from udev.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.dm)
    }

    /// Whether it is in force: it has a table and lets I/O pass.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.suspended && self.size > 0 && !self.members.is_empty()
    }

    /// The WWID in its uuid, when it is of a kind that we use.
    #[must_use]
    pub fn wwid(&self) -> Option<Wwid> {
        self.uuid.strip_prefix(UUID_PREFIX)?.parse().ok()
    }
}

/// The map of this WWID.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_map(host: &Host, wwid: &Wwid) -> io::Result<Option<Map>> {
    let uuid = wwid.dm_uuid();
    let is_it = |found: &str| found.eq_ignore_ascii_case(&uuid);
    for name in host.list(Path::new(BLOCK))? {
        if let Some(dm) = name.to_str().filter(|name| name.starts_with("dm-"))
            && let Some(map) = read_map(host, dm, &is_it)?
        {
            return Ok(Some(map));
        }
    }
    Ok(None)
}

/// Whether the map of this WWID has the disk. Asks the disk who is built on it: with many volumes coming at once every path looks again and again, and to look
/// through all maps each time would be most of the work.
///
/// # Errors
/// When sysfs cannot be read.
pub fn is_member(host: &Host, wwid: &Wwid, disk: &str) -> io::Result<bool> {
    let uuid = wwid.dm_uuid();
    for holder in host.list(&Path::new(BLOCK).join(disk).join("holders"))? {
        let found = find_dm_attribute(host, &Path::new(BLOCK).join(holder).join("dm/uuid"))?;
        if found.is_some_and(|found| found.eq_ignore_ascii_case(&uuid)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All multipath maps. One that vanishes while it is read is left out.
///
/// # Errors
/// When sysfs cannot be read.
pub fn list_maps(host: &Host) -> io::Result<Vec<Map>> {
    let mut maps = Vec::new();
    for name in host.list(Path::new(BLOCK))? {
        if let Some(dm) = name.to_str().filter(|name| name.starts_with("dm-")) {
            maps.extend(read_map(host, dm, &|uuid| uuid.starts_with(UUID_PREFIX))?);
        }
    }
    Ok(maps)
}

/// The map `dm`, when its uuid is one that is looked for; the uuid is read first.
fn read_map(host: &Host, dm: &str, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<Option<Map>> {
    let device = Path::new(BLOCK).join(dm);
    let read = |attribute: &str| find_dm_attribute(host, &device.join(attribute));
    let Some(uuid) = read("dm/uuid")?.filter(|uuid| is_wanted(uuid)) else {
        return Ok(None);
    };
    let (Some(name), Some(size), Some(suspended)) =
        (read("dm/name")?, read("size")?, read("dm/suspended")?)
    else {
        return Ok(None);
    };
    let members = host.list(&device.join("slaves"))?;
    // Between the reads the minor may have come to mean another map.
    if read("dm/uuid")?.as_ref() != Some(&uuid) {
        return Ok(None);
    }
    Ok(Some(Map {
        name,
        dm: dm.to_owned(),
        uuid,
        size: size.parse::<u64>().unwrap_or(0).saturating_mul(SECTOR),
        suspended: suspended != "0",
        members: members
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect(),
    }))
}

/// A device that is being removed answers EINVAL (`drivers/md/dm-sysfs.c`): it is gone.
fn find_dm_attribute(host: &Host, path: &Path) -> io::Result<Option<String>> {
    match host.find_attribute(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_without_a_table_is_not_live() {
        let map = Map {
            name: "mpatha".to_owned(),
            dm: "dm-3".to_owned(),
            uuid: "mpath-360014050123456789abcdef012345678".to_owned(),
            size: 1 << 30,
            suspended: false,
            members: vec!["sda".to_owned()],
        };
        assert!(map.is_live());
        assert_eq!(
            map.wwid().unwrap().as_str(),
            "360014050123456789abcdef012345678"
        );
        for dead in [
            Map {
                size: 0,
                ..map.clone()
            },
            Map {
                suspended: true,
                ..map.clone()
            },
            Map {
                members: Vec::new(),
                ..map
            },
        ] {
            assert!(!dead.is_live(), "{dead:?}");
        }
    }
}
