//! The kernel's mount table, `/proc/self/mountinfo` (kernel documentation `filesystems/proc.rst` §3.5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::host::{FileKind, Host};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Kernels before 5.8 can leave out a line while the table changes; a table that reads the same twice is whole.
const READS: usize = 6;
/// `/dev/mapper/mpatha` is one link.
const MAX_LINKS: usize = 8;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of the file system's device.
    pub device: (u64, u64),
    /// Which part of the file system is mounted; for a bound device node, the node in its own file system.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The options of this mount, `rw,noatime`.
    pub options: String,
    /// The file system's type.
    pub kind: String,
    /// What was mounted, as the caller wrote it then.
    pub source: PathBuf,
    /// The options of the file system, which all its mounts share.
    pub super_options: String,
    id: u64,
    parent: u64,
    /// Mounts of one group are told of everything that is mounted in one of them.
    group: Option<u64>,
}

/// A directory of a group of mounts: what is mounted there is seen, as one mount each, through every mount of the group, and goes from all at once.
type Spot = (u64, PathBuf);

impl Mount {
    /// Whether this mount refuses writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }

    /// Whether the file system refuses writes although this mount was made for them: it met an error and went read-only by itself.
    #[must_use]
    pub fn has_gone_read_only(&self) -> bool {
        !self.is_read_only() && (self.has_super("ro") || self.has_super("emergency_ro"))
    }

    /// Whether the file system says that it has shut down. Not every kernel lets it say so.
    #[must_use]
    pub fn has_shut_down(&self) -> bool {
        self.has_super("shutdown")
    }

    fn has_super(&self, option: &str) -> bool {
        self.super_options.split(',').any(|own| own == option)
    }

    /// Whether this is the device node of kernel device `name` (`dm-3`), bound to a file.
    #[must_use]
    pub fn binds_node(&self, name: &str) -> bool {
        // A removed node shows as `/dm-3//deleted`.
        let mut parts = self.root.components().skip(1);
        self.kind == "devtmpfs" && parts.next().is_some_and(|part| part.as_os_str() == name)
    }
}

/// All mounts of our mount namespace, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable(Vec<Mount>);

/// Why there is no mount table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file could not be read.
    #[error("{MOUNTINFO} cannot be read")]
    Read(#[source] io::Error),
    /// A line is not as the kernel documents it.
    #[error("{MOUNTINFO} has a line that does not parse: {0}")]
    Line(String),
    /// It never read the same twice.
    #[error("{MOUNTINFO} keeps changing")]
    Unsteady,
}

impl MountTable {
    /// The mounts of this moment.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn read(host: &Host) -> Result<Self, TableError> {
        let once = || host.read(Path::new(MOUNTINFO)).map_err(TableError::Read);
        let mut last = once()?;
        for _ in 1..READS {
            let next = once()?;
            if next == last {
                let mut table = Self::parse(&last)?;
                table.name_devices(host);
                return Ok(table);
            }
            last = next;
        }
        Err(TableError::Unsteady)
    }

    /// Reads the kernel's form.
    ///
    /// # Errors
    /// [`TableError::Line`].
    pub fn parse(text: &[u8]) -> Result<Self, TableError> {
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                parse_line(line)
                    .ok_or_else(|| TableError::Line(String::from_utf8_lossy(line).into_owned()))
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }

    /// btrfs shows a number of its own making instead of its device's; what it was mounted from leads to that.
    fn name_devices(&mut self, host: &Host) {
        let anonymous = |mount: &&mut Mount| mount.kind == "btrfs" && mount.device.0 == 0;
        for mount in self.0.iter_mut().filter(anonymous) {
            if let Some(numbers) = find_numbers(host, &mount.source) {
                mount.device = numbers;
            }
        }
    }

    /// The layers at `target`, the lowest first; the last one is what a visitor sees.
    pub fn at<'t>(&'t self, target: &Path) -> impl DoubleEndedIterator<Item = &'t Mount> {
        self.0.iter().filter(move |mount| mount.target == target)
    }

    /// The topmost mount at `target`.
    #[must_use]
    pub fn find_top(&self, target: &Path) -> Option<&Mount> {
        self.at(target).next_back()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Every mount of the block device `device`, also known as `name` (`dm-3`): its file system, and its node bound to a file.
    pub fn of_device<'t>(
        &'t self,
        device: (u64, u64),
        name: &str,
    ) -> impl Iterator<Item = &'t Mount> {
        self.0
            .iter()
            .filter(move |mount| mount.device == device || mount.binds_node(name))
    }

    /// Those of them that are not at one of `targets`. A mount at a target is seen again wherever the file system around it is: where the
    /// kubelet's folder is bound from another place, say. Such a copy comes and goes with it and is not elsewhere.
    #[must_use]
    pub fn of_device_elsewhere(
        &self,
        device: (u64, u64),
        name: &str,
        targets: &[&Path],
    ) -> Vec<&Mount> {
        let is_here = |mount: &Mount| targets.contains(&mount.target.as_path());
        let here: Vec<Spot> = self
            .of_device(device, name)
            .filter(|mount| is_here(mount))
            .filter_map(|mount| self.find_spot(mount))
            .collect();
        let is_copy = |mount: &Mount| self.find_spot(mount).is_some_and(|at| here.contains(&at));
        self.of_device(device, name)
            .filter(|mount| !is_here(mount) && !is_copy(mount))
            .collect()
    }

    /// `None` when nobody else is told what is mounted around it.
    fn find_spot(&self, mount: &Mount) -> Option<Spot> {
        let around = self.0.iter().find(|other| other.id == mount.parent)?;
        let within = mount.target.strip_prefix(&around.target).ok()?;
        Some((around.group?, around.root.join(within)))
    }
}

/// The block device at `path`, which udev may have renamed to one of its links. One that is gone has no numbers.
fn find_numbers(host: &Host, path: &Path) -> Option<(u64, u64)> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let stat = host.find_stat(&path).ok()??;
        match stat.kind {
            FileKind::BlockDevice => return Some(stat.device),
            FileKind::Link => path = path.parent()?.join(host.read_link(&path).ok()?),
            _ => return None,
        }
    }
    None
}

/// `36 35 98:0 /root /target rw,noatime master:1 - ext4 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, parent) = (fields.next()?, fields.next()?);
    let device = fields.next()?;
    let root = path(fields.next()?);
    let target = path(fields.next()?);
    let options = text(fields.next()?);
    // Optional fields, as many as there are, end at a lone hyphen.
    let mut group = None;
    loop {
        match fields.next()? {
            b"-" => break,
            field => group = group.or_else(|| number(field.strip_prefix(b"shared:")?)),
        }
    }
    let kind = text(fields.next()?);
    let source = path(fields.next()?);
    // A source without a name leaves two blanks; the super options come last in any case.
    let super_options = text(fields.next_back()?);
    Some(Mount {
        device: parse_device(device)?,
        root,
        target,
        options,
        kind,
        source,
        super_options,
        id: number(id)?,
        parent: number(parent)?,
        group,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn parse_device(field: &[u8]) -> Option<(u64, u64)> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescaped(field)))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescaped(field)).into_owned()
}

/// The kernel writes blank, tab, newline and backslash as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match after.get(..3).filter(|_| first == b'\\').and_then(octal) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let mut value = 0_u32;
    for digit in digits {
        value = value * 8 + char::from(*digit).to_digit(8)?;
    }
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    use crate::host::fake::spoilt;
    use proptest::prelude::*;

    /// As Linux 6.12 prints them; the paths are those of an orchestrator.
    const TABLE: &str = "\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro
26 30 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k,mode=755
90 30 253:3 / /plugins/v\\0401/globalmount rw,noatime shared:50 - xfs /dev/mapper/mpatha rw,nouuid
91 30 253:3 / /pods/p/mount ro,noatime shared:50 master:3 - xfs /dev/mapper/mpatha rw,nouuid
92 30 0:5 /dm-3 /block/p\\134\\011 rw,nosuid shared:2 - devtmpfs udev rw
93 30 0:40 / /empty rw - tmpfs  rw
94 93 253:4 / /empty rw - ext4 /dev/dm-4 rw
";

    #[test]
    fn a_table_is_read() {
        let table = MountTable::parse(TABLE.as_bytes()).unwrap();
        let staged = table
            .find_top(Path::new("/plugins/v 1/globalmount"))
            .unwrap();
        assert_eq!((staged.device, staged.kind.as_str()), ((253, 3), "xfs"));
        assert_eq!(staged.super_options, "rw,nouuid");
        assert!(!staged.is_read_only());
        assert!(
            table
                .find_top(Path::new("/pods/p/mount"))
                .unwrap()
                .is_read_only()
        );
        let all: Vec<&Path> = table
            .of_device((253, 3), "dm-3")
            .map(|mount| mount.target.as_path())
            .collect();
        let expected = ["/plugins/v 1/globalmount", "/pods/p/mount", "/block/p\\\t"];
        assert_eq!(all, expected.map(Path::new));
        let layers: Vec<&str> = table
            .at(Path::new("/empty"))
            .map(|mount| mount.kind.as_str())
            .collect();
        assert_eq!(layers, ["tmpfs", "ext4"]);
    }

    #[test]
    fn a_file_system_that_gave_up_is_told_from_one_mounted_read_only() {
        let states = |mount: &str, own: &str| {
            let line = format!("1 2 253:3 / /a {mount},noatime - ext4 /dev/dm-3 {own},stripe=4\n");
            let table = MountTable::parse(line.as_bytes()).unwrap();
            let mount = table.find_top(Path::new("/a")).unwrap();
            (mount.has_gone_read_only(), mount.has_shut_down())
        };
        assert_eq!(states("rw", "rw"), (false, false));
        assert_eq!(states("ro", "ro"), (false, false));
        assert_eq!(states("rw", "ro"), (true, false));
        assert_eq!(states("rw", "rw,emergency_ro"), (true, false));
        assert_eq!(states("rw", "rw,shutdown"), (false, true));
    }

    #[test]
    fn a_mount_seen_again_through_a_bound_folder_is_not_elsewhere() {
        let table = |group: &str| {
            let text = format!(
                "\
30 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
40 30 254:2 / /data rw shared:4 - xfs /dev/vdb rw
41 30 254:2 /kubelet /var/lib/kubelet rw {group} - xfs /dev/vdb rw
50 41 253:3 / /var/lib/kubelet/staging rw shared:9 - ext4 /dev/dm-3 rw
51 40 253:3 / /data/kubelet/staging rw shared:9 - ext4 /dev/dm-3 rw
52 41 253:3 / /var/lib/kubelet/pod rw shared:9 - ext4 /dev/dm-3 rw
53 40 253:3 / /data/kubelet/pod rw shared:9 - ext4 /dev/dm-3 rw
"
            );
            MountTable::parse(text.as_bytes()).unwrap()
        };
        let (staging, pod) = ("/var/lib/kubelet/staging", "/var/lib/kubelet/pod");
        let elsewhere = |table: &MountTable, targets: &[&str]| {
            let targets: Vec<&Path> = targets.iter().map(Path::new).collect();
            let found = table.of_device_elsewhere((253, 3), "dm-3", &targets);
            found.iter().map(|mount| mount.id).collect::<Vec<_>>()
        };
        let bound = table("shared:4");
        assert_eq!(elsewhere(&bound, &[staging, pod]), [0; 0]);
        assert_eq!(elsewhere(&bound, &[staging]), [52, 53], "a pod's own");
        // Nobody tells the other folder: what is there stays when the staging path's is taken away.
        for apart in ["shared:5", "master:4", ""] {
            let apart = table(apart);
            assert_eq!(elsewhere(&apart, &[staging, pod]), [51, 53]);
        }
    }

    #[test]
    fn a_broken_line_is_an_error_and_not_a_gap() {
        for line in [
            "1 2 3",
            "1 2 8:0 / /a rw shared:1 ext4 /dev/sda rw",
            "1 2 x:y / /a rw - ext4 s rw",
            "1 - 8:0 / /a rw - ext4 s rw",
            "1 2 8:0 / /a rw shared:1",
        ] {
            assert!(MountTable::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert_eq!(MountTable::parse(b"").unwrap(), MountTable::default());
    }

    #[test]
    fn this_machine_has_a_table() {
        let table = MountTable::read(&Host::real(Path::new("/"))).unwrap();
        assert!(table.find_top(Path::new("/proc")).is_some());
    }

    /// The kernel's form of a path.
    fn escaped(path: &Path) -> String {
        let mut text = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => text.extend(format!("\\{byte:03o}").into_bytes()),
                byte => text.push(byte),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    proptest! {
        #[test]
        fn any_path_comes_back(target in "/[ -~\t\n\\\\]{0,40}", tags in 0..4_usize) {
            let optional = " shared:1".repeat(tags);
            let written = escaped(Path::new(&target));
            let line = format!("36 35 253:7 / {written} rw{optional} - ext4 /dev/dm-7 rw\n");
            let table = MountTable::parse(line.as_bytes()).unwrap();
            prop_assert!(table.find_top(Path::new(&target)).is_some());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MountTable::parse(&bytes);
        }

        #[test]
        fn a_spoilt_table_is_read_or_refused(bytes in spoilt(TABLE.as_bytes())) {
            if let Ok(table) = MountTable::parse(&bytes) {
                let all: Vec<_> = table.all().collect();
                prop_assert!(table.of_device_elsewhere((253, 3), "dm-3", &[]).len() <= all.len());
            }
        }
    }
}
