//! How much the kernel still has to write to a map: what would be lost if it could never be written.
//!
//! The kernel counts per backing device, in debugfs (`mm/backing-dev.c`, `bdi_debug_stats_show`). Its counters of pages are estimates; its lists of
//! inodes are exact. A journal that waits for its device shows as a kernel thread that cannot be woken. What cannot be read is not "nothing", and what a
//! device built on the map holds back (an encrypted layer, LVM) is counted there and not here.

use std::fmt;
use std::path::Path;

use super::maps::Map;
use crate::host::Host;

const BDI: &str = "/sys/kernel/debug/bdi";

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The kernel holds nothing back for it.
    Nothing,
    /// It holds about so many bytes; 0 when it is a journal or an inode that waits.
    About(u64),
    /// It does not say: debugfs is not mounted, the file system (btrfs) counts elsewhere, or a device is built on the map.
    Unknown,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("nothing is unwritten"),
            Self::About(0) => out.write_str("metadata is unwritten"),
            Self::About(bytes) => write!(out, "about {bytes} bytes are unwritten"),
            Self::Unknown => {
                out.write_str("how much is unwritten is not known (/sys/kernel/debug does not say, or a device is built on the map)")
            }
        }
    }
}

/// What the kernel still has to write to `map`.
#[must_use]
pub fn unwritten(host: &Host, map: &Map) -> Unwritten {
    let number = Path::new("/sys/block").join(&map.dm).join("dev");
    let Ok(Some(number)) = host.find_attribute(&number) else {
        return Unwritten::Unknown;
    };
    let stats = Path::new(BDI).join(&number).join("stats");
    match host.find_attribute(&stats) {
        Ok(Some(text)) => match parse(&text) {
            Unwritten::Nothing if is_waited_for(host, &map.dm, &number) => Unwritten::About(0),
            Unwritten::Nothing if is_built_on(host, &map.dm) => Unwritten::Unknown,
            found => found,
        },
        _ => Unwritten::Unknown,
    }
}

/// `BdiWriteback:          0 kB`, `b_dirty:               0` …
fn parse(text: &str) -> Unwritten {
    let number = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name));
        line.and_then(|(_, value)| value.split_whitespace().next()?.parse::<u64>().ok())
    };
    let (Some(writeback), Some(reclaimable)) = (number("BdiWriteback"), number("BdiReclaimable"))
    else {
        return Unwritten::Unknown;
    };
    let mut inodes = 0;
    for list in ["b_dirty", "b_io", "b_more_io"] {
        let Some(count) = number(list) else {
            return Unwritten::Unknown;
        };
        inodes += count;
    }
    if writeback + reclaimable + inodes + number("b_dirty_time").unwrap_or(0) == 0 {
        Unwritten::Nothing
    } else {
        Unwritten::About((writeback + reclaimable).saturating_mul(1024))
    }
}

/// Whether a device lies on the map; also when that cannot be read.
fn is_built_on(host: &Host, dm: &str) -> bool {
    let holders = Path::new("/sys/block").join(dm).join("holders");
    host.list(&holders).map_or(true, |names| !names.is_empty())
}

/// Whether a kernel thread of the map's file system (`jbd2/dm-3-8`, `xfsaild/dm-3`, `…flush-253:3`) waits for I/O. Threads that cannot be seen
/// wait for nothing that we know of.
fn is_waited_for(host: &Host, dm: &str, number: &str) -> bool {
    let (inner, last, flush) = (
        format!("/{dm}-"),
        format!("/{dm}"),
        format!("flush-{number}"),
    );
    let is_its =
        |name: &str| name.contains(&inner) || name.ends_with(&last) || name.ends_with(&flush);
    let processes = host.list(Path::new("/proc")).unwrap_or_default();
    processes.iter().any(|process| {
        let place = Path::new("/proc").join(process);
        let read = |file: &str| host.find_attribute(&place.join(file)).ok().flatten();
        process.as_encoded_bytes().iter().all(u8::is_ascii_digit)
            && read("comm").is_some_and(|name| is_its(&name))
            && read("stat").is_some_and(|stat| waits(&stat))
    })
}

/// proc(5), stat: `pid (name) state …`; the name may hold anything.
fn waits(stat: &str) -> bool {
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Linux 6.12 prints it.
    const CLEAN: &str = "\
BdiWriteback:                0 kB
BdiReclaimable:              0 kB
BdiDirtyThresh:         157808 kB
DirtyThresh:            157808 kB
BackgroundThresh:        78808 kB
BdiDirtied:               8264 kB
BdiWritten:               8264 kB
BdiWriteBandwidth:      102400 kBps
b_dirty:                     0
b_io:                        0
b_more_io:                   0
b_dirty_time:                0
bdi_list:                    1
state:                       1
";

    #[test]
    fn only_what_is_read_as_nothing_is_nothing() {
        assert_eq!(parse(CLEAN), Unwritten::Nothing);
        let pages = CLEAN.replace(
            "BdiReclaimable:              0",
            "BdiReclaimable:            512",
        );
        assert_eq!(parse(&pages), Unwritten::About(512 << 10));
        let inodes = CLEAN.replace(
            "b_dirty:                     0",
            "b_dirty:                     1",
        );
        assert_eq!(parse(&inodes), Unwritten::About(0));
        for missing in ["BdiWriteback", "b_io", "b_dirty"] {
            let text: String = CLEAN
                .lines()
                .filter(|line| !line.starts_with(missing))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(parse(&text), Unwritten::Unknown, "{missing}");
        }
    }

    #[test]
    fn a_thread_in_uninterruptible_sleep_waits() {
        assert!(waits("71 (jbd2/dm-3-8) D 2 0 0"));
        assert!(!waits("71 (jbd2/dm-3-8) S 2 0 0"));
        assert!(!waits("71 (a) D) S 2 0 0"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = (parse(&text), waits(&text));
        }
    }
}
