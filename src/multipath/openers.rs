//! Who keeps a map open: mounts and devices built on it. Named in errors, so that somebody can act on them.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use super::Map;
use crate::host::Host;

/// The mount tables we can see: the host's, when its process ids are shared with us, and our own.
const MOUNT_TABLES: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];

/// One that keeps a map open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opener {
    /// A file system on it is mounted here.
    Mount(String),
    /// A block device is built on it: LVM, LUKS, a partition map.
    Device(String),
}

impl fmt::Display for Opener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(target) => write!(out, "mounted at {target}"),
            Self::Device(name) => write!(out, "held by {name}"),
        }
    }
}

/// The mounts of `map` and the devices on it. An open file descriptor of a process is not among them.
///
/// # Errors
/// When sysfs cannot be read.
pub fn openers_of(host: &Host, map: &Map) -> io::Result<Vec<Opener>> {
    let device = Path::new("/sys/block").join(&map.dm);
    let mut openers = BTreeSet::new();
    for name in host.list(&device.join("holders"))? {
        let name = name.to_string_lossy().into_owned();
        if !is_partition_of(host, &name, map)? {
            openers.insert(Opener::Device(name));
        }
    }
    openers.extend(find_mounts(host, &map.dm)?);
    Ok(openers.into_iter().collect())
}

/// The mounts of a block device, by its name in `/sys/block`.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_mounts(host: &Host, device: &str) -> io::Result<BTreeSet<Opener>> {
    let number = Path::new("/sys/block").join(device).join("dev");
    let Some(number) = host.find_attribute(&number)? else {
        return Ok(BTreeSet::new());
    };
    let mut mounts = BTreeSet::new();
    for table in MOUNT_TABLES {
        // The host's table may be out of our sight; ours alone then has to do.
        if let Ok(text) = host.read_attribute(Path::new(table)) {
            mounts.extend(mounts_of(&text, &number).map(Opener::Mount));
        }
    }
    Ok(mounts)
}

/// Whether a holder is one of the partition maps that multipathd makes and takes away together with the map.
fn is_partition_of(host: &Host, holder: &str, map: &Map) -> io::Result<bool> {
    let uuid = Path::new("/sys/block").join(holder).join("dm/uuid");
    let whole = format!("-{}", map.uuid);
    let uuid = host.find_attribute(&uuid)?.unwrap_or_default();
    Ok(uuid.starts_with("part") && uuid.ends_with(&whole))
}

/// proc(5), mountinfo: id, parent, major:minor, root, mount point …
fn mounts_of<'a>(table: &'a str, number: &'a str) -> impl Iterator<Item = String> + 'a {
    table.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(2);
        let (device, _root, target) = (fields.next()?, fields.next()?, fields.next()?);
        (device == number).then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_device_number() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     99 22 253:3 / /var/lib/kubelet/v1 rw shared:1 - ext4 /dev/dm-3 rw\n\
                     cut short\n\
                     98 22 253:33 / /other rw - xfs /dev/dm-33 rw\n";
        let found: Vec<String> = mounts_of(table, "253:3").collect();
        assert_eq!(found, ["/var/lib/kubelet/v1"]);
    }
}
