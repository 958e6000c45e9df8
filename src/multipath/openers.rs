//! Who keeps a map open: mounts, devices built on it, processes. Named in errors, so that somebody can act on them.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Map;
use crate::host::Host;

/// The mount tables we can see: the host's, when its process ids are shared with us, and our own.
const MOUNT_TABLES: [&str; 2] = ["/proc/1/mountinfo", OWN_TABLE];
const OWN_TABLE: &str = "/proc/self/mountinfo";

/// One that keeps a map open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opener {
    /// A file system on it is mounted here.
    Mount(String),
    /// A block device is built on it: LVM, LUKS, a partition map.
    Device(String),
    /// A process has it or a file on it open, or sees it mounted in a mount namespace of its own.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        command: String,
        /// What it has open, or where it sees it.
        what: String,
    },
}

impl fmt::Display for Opener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(target) => write!(out, "mounted at {target}"),
            Self::Device(name) => write!(out, "held by {name}"),
            Self::Process { pid, command, what } => {
                write!(out, "process {pid} ({command}) has {what}")
            }
        }
    }
}

/// The mounts of `map` and of its partition maps, and the devices on either. Those maps themselves are none: they go with it. Processes that have it open are told by [`processes_on`].
///
/// # Errors
/// When sysfs cannot be read.
pub fn openers_of(host: &Host, map: &Map) -> io::Result<Vec<Opener>> {
    let mut openers = find_mounts(host, &map.dm)?;
    for holder in holders_of(host, &map.dm)? {
        if is_partition_of(host, &holder, map)? {
            openers.extend(find_mounts(host, &holder)?);
            openers.extend(holders_of(host, &holder)?.into_iter().map(Opener::Device));
        } else {
            openers.insert(Opener::Device(holder));
        }
    }
    Ok(openers.into_iter().collect())
}

fn holders_of(host: &Host, device: &str) -> io::Result<Vec<String>> {
    let holders = Path::new("/sys/block").join(device).join("holders");
    let names = host.list(&holders)?.into_iter();
    Ok(names
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

/// The processes that have `map` open or a file below one of `places`, and those that see it mounted in another mount namespace than ours:
/// containers. As far as process numbers are shared with us; for the words of an error, since it reads all of `/proc`.
#[must_use]
pub fn processes_on(host: &Host, map: &Map, places: &[PathBuf]) -> Vec<Opener> {
    let number = Path::new("/sys/block").join(&map.dm).join("dev");
    let number = host.find_attribute(&number).ok().flatten();
    let own = host.read_attribute(Path::new(OWN_TABLE));
    let search = Search {
        host,
        node: map.node(),
        places,
        number: number.unwrap_or_default(),
        namespace: host.read_link(Path::new("/proc/self/ns/mnt")).ok(),
        table: own.unwrap_or_default(),
    };
    let processes = host.list(Path::new("/proc")).unwrap_or_default();
    let numbers = processes
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok());
    numbers.filter_map(|pid| search.look_at(pid)).collect()
}

/// What is looked for in each process.
struct Search<'s> {
    host: &'s Host,
    node: PathBuf,
    places: &'s [PathBuf],
    /// `253:3`.
    number: String,
    /// Our own mount namespace, and what is mounted in it.
    namespace: Option<PathBuf>,
    table: String,
}

impl Search<'_> {
    fn look_at(&self, pid: u32) -> Option<Opener> {
        let process = Path::new("/proc").join(pid.to_string());
        let what = self.open_in(&process).or_else(|| self.seen_by(&process))?;
        let command = self.host.find_attribute(&process.join("comm"));
        let command = command.ok().flatten().unwrap_or_else(|| "?".to_owned());
        Some(Opener::Process { pid, command, what })
    }

    /// Descriptors, the working directory and the root.
    fn open_in(&self, process: &Path) -> Option<String> {
        let fds = process.join("fd");
        let open = self.host.list(&fds).unwrap_or_default();
        let links = open.into_iter().map(|name| fds.join(name));
        let links = links.chain([process.join("cwd"), process.join("root")]);
        let mut leading = links.filter_map(|link| self.host.read_link(&link).ok());
        let is_ours = |path: &PathBuf| {
            *path == self.node || self.places.iter().any(|place| path.starts_with(place))
        };
        let found = leading.find(is_ours)?;
        Some(format!("{} open", found.display()))
    }

    /// Mounts in another namespace, where our unmounting changes nothing.
    fn seen_by(&self, process: &Path) -> Option<String> {
        let namespace = self.host.read_link(&process.join("ns/mnt")).ok()?;
        if self.namespace.as_ref() == Some(&namespace) {
            return None;
        }
        let table = self.host.read_attribute(&process.join("mountinfo")).ok()?;
        let place = mounts_apart(&self.table, &table, &self.number).next()?;
        Some(format!("it mounted at {place} in its own mount namespace"))
    }
}

/// The mounts in another namespace's `table` that do not go when ours in `own` do. Those that came there by propagation stand at the same place
/// and are of a peer group of ours, or follow one.
fn mounts_apart<'t>(
    own: &'t str,
    table: &'t str,
    number: &'t str,
) -> impl Iterator<Item = String> + 't {
    let follows = move |line: &str| {
        let Some((place, groups)) = place_and_groups(line, number) else {
            return true;
        };
        own.lines().any(|ours| {
            place_and_groups(ours, number).is_some_and(|(there, own)| {
                there == place && own.iter().any(|group| groups.contains(group))
            })
        })
    };
    let apart = table.lines().filter(move |line| !follows(line));
    apart.filter_map(move |line| place_and_groups(line, number).map(|(place, _)| place.to_owned()))
}

/// Where a line's mount of the device stands, and the numbers of the peer groups that it is in or follows. `None` for other devices.
fn place_and_groups<'l>(line: &'l str, number: &str) -> Option<(&'l str, Vec<&'l str>)> {
    let mut fields = line.split(' ').skip(2);
    let (device, _root, place, _options) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let tags = fields.take_while(|field| *field != "-");
    let groups = tags.filter_map(|tag| {
        tag.strip_prefix("shared:")
            .or_else(|| tag.strip_prefix("master:"))
    });
    (device == number).then(|| (place, groups.collect()))
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
    fn a_partition_map_is_no_opener_and_what_is_built_on_it_is() {
        let fake = crate::host::fake::FakeWorld::new();
        let map = Map {
            name: "mpatha".to_owned(),
            dm: "dm-3".to_owned(),
            uuid: "mpath-360014050123456789abcdef012345678".to_owned(),
            size: 1 << 30,
            suspended: false,
            members: Vec::new(),
        };
        let openers = || openers_of(&fake.host(), &map).unwrap();
        fake.make_directory(Path::new("/sys/block/dm-3/holders/dm-4"));
        let uuid = format!("part1-{}", map.uuid);
        fake.write_file(Path::new("/sys/block/dm-4/dm/uuid"), &uuid);
        assert_eq!(openers(), []);
        fake.make_directory(Path::new("/sys/block/dm-4/holders/dm-5"));
        assert_eq!(openers(), [Opener::Device("dm-5".to_owned())]);
    }

    #[test]
    fn mounts_are_found_by_device_number() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     99 22 253:3 / /var/lib/kubelet/v1 rw shared:1 - ext4 /dev/dm-3 rw\n\
                     cut short\n\
                     98 22 253:33 / /other rw - xfs /dev/dm-33 rw\n";
        let found: Vec<String> = mounts_of(table, "253:3").collect();
        assert_eq!(found, ["/var/lib/kubelet/v1"]);
    }

    #[test]
    fn a_mount_that_follows_ours_is_told_from_a_containers_own() {
        let ours = "99 22 253:3 / /pods/p rw shared:7 - ext4 /dev/dm-3 rw\n";
        let host = "41 30 253:3 / /pods/p rw shared:7 - ext4 /dev/dm-3 rw\n";
        let plugin = "42 31 253:3 / /pods/p rw master:7 - ext4 /dev/dm-3 rw\n";
        let container = "43 32 253:3 / /data rw master:7 - ext4 /dev/dm-3 rw\n";
        let copied = "44 33 253:3 / /pods/p rw - ext4 /dev/dm-3 rw\n";
        let other = "45 33 253:33 / /pods/p rw - ext4 /dev/dm-33 rw\n";
        let apart = |table: &str| mounts_apart(ours, table, "253:3").collect::<Vec<_>>();
        for follows in [host, plugin, other, "cut short"] {
            assert_eq!(apart(follows), [""; 0], "{follows}");
        }
        assert_eq!(apart(container), ["/data"]);
        assert_eq!(apart(copied), ["/pods/p"]);
    }
}
