//! Everything that the fake host is, in one place behind one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::clock::Clock;
use super::crypt::Crypt;
use super::disks::Sd;
use super::mounts::Mounts;
use super::multipathd::{Map, Multipathd};
use super::san::San;
use super::sessions::Session;
use super::tree::{Node, Tree};
use crate::host::Address;

/// What goes wrong at the next call of a kind; see `FakeWorld::fail_next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A tool ends with this code, says this on its standard error and does nothing.
    Exit(i32, &'static str),
    /// A tool does its work but takes longer than its caller waits.
    Overdue,
    /// A tool that writes is cut off half-way, together with the whole driver.
    CrashHalfway,
    /// A call fails with this error and does nothing.
    Errno(Errno),
    /// multipathd answers this and does nothing.
    Reply(&'static str),
}

/// How quick the daemons are.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// From the scan to the block device.
    pub disk: Duration,
    /// From the block device to the end of udev's rules.
    pub udev: Duration,
    /// From there to multipathd having dealt with it.
    pub multipathd: Duration,
    /// From a portal's return to its sessions' return.
    pub reconnect: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            disk: Duration::from_millis(1),
            udev: Duration::from_millis(8),
            multipathd: Duration::from_millis(5),
            reconnect: Duration::from_secs(3),
        }
    }
}

/// There while udev has events before it.
const UDEV_QUEUE: &str = "/run/udev/queue";

pub(super) struct State {
    pub(super) clock: Clock,
    pub(super) delays: Delays,
    pub(super) tree: Tree,
    pub(super) san: San,
    pub(super) sessions: BTreeMap<u32, Session>,
    pub(super) sds: BTreeMap<u64, Sd>,
    pub(super) maps: BTreeMap<u64, Map>,
    pub(super) crypts: BTreeMap<u64, Crypt>,
    pub(super) multipathd: Multipathd,
    pub(super) mounts: Mounts,
    /// Canonical paths and maps that some process has open, with its name.
    pub(super) openers: BTreeMap<PathBuf, String>,
    /// Where a file system is mounted that somebody froze.
    pub(super) frozen: BTreeSet<PathBuf>,
    /// Their places in `/proc`.
    pub(super) opener_processes: BTreeMap<PathBuf, PathBuf>,
    /// What the interfaces are called by others.
    pub(super) addresses: Vec<Address>,
    /// The longest packet that arrives at an address.
    pub(super) widths: BTreeMap<Ipv4Addr, u16>,
    /// What else multipathd's configuration says, as it prints it.
    pub(super) multipath_words: String,
    /// Nobody keeps the clock right.
    pub(super) clock_is_loose: bool,
    /// What names mean; with `None` the resolver hangs.
    pub(super) names: BTreeMap<String, Option<Vec<IpAddr>>>,
    /// Lock files that are held, and the process that holds each.
    pub(super) locks: BTreeMap<PathBuf, u64>,
    pub(super) dead: BTreeSet<u64>,
    pub(super) boots: u32,
    /// iscsiadm knows no `node.session.scan`.
    pub(super) iscsi_scans_always: bool,
    /// Disks appear while their LUN is still being made.
    pub(super) notes_are_cut: bool,
    pub(super) violations: Vec<String>,
    /// What processes did to the host, for the message of a failing test.
    pub(super) history: Vec<String>,
    faults: Vec<(String, Fault)>,
    serial: u64,
    /// Events that udev has before it.
    udev_events: usize,
    /// The paths that were there before anybody did anything.
    pub(super) baseline: BTreeSet<PathBuf>,
}

impl State {
    pub(super) fn new() -> Self {
        let mut state = Self {
            clock: Clock::default(),
            delays: Delays::default(),
            tree: Tree::default(),
            san: San::default(),
            sessions: BTreeMap::new(),
            sds: BTreeMap::new(),
            maps: BTreeMap::new(),
            crypts: BTreeMap::new(),
            multipathd: Multipathd::default(),
            mounts: Mounts::default(),
            openers: BTreeMap::new(),
            frozen: BTreeSet::new(),
            opener_processes: BTreeMap::new(),
            addresses: Vec::new(),
            widths: BTreeMap::new(),
            multipath_words: String::new(),
            clock_is_loose: false,
            names: BTreeMap::new(),
            locks: BTreeMap::new(),
            dead: BTreeSet::new(),
            boots: 0,
            violations: Vec::new(),
            iscsi_scans_always: false,
            notes_are_cut: false,
            history: Vec::new(),
            faults: Vec::new(),
            serial: 0,
            udev_events: 0,
            baseline: BTreeSet::new(),
        };
        state.install();
        state.boot();
        state.baseline = state.tree.below(Path::new("/")).into_iter().collect();
        state
    }

    /// What a fresh installation has on its disk.
    fn install(&mut self) {
        let tree = &mut self.tree;
        for directory in ["/etc/iscsi/nodes", "/etc/multipath", "/var/lib", "/tmp"] {
            tree.put(directory, Node::Directory);
        }
        tree.put_text(
            "/etc/iscsi/initiatorname.iscsi",
            "InitiatorName=iqn.1993-08.org.debian:01:fake\n",
        );
        let head = "# Multipath wwids, Version : 1.0\n# Valid WWIDs:\n";
        tree.put_text("/etc/multipath/wwids", head);
        tree.put("/var/lib/kubelet", Node::Directory);
    }

    /// What the kernel and the daemons make at boot.
    pub(super) fn boot(&mut self) {
        self.boots += 1;
        self.udev_events = 0;
        let tree = &mut self.tree;
        for directory in ["/sys", "/proc", "/dev", "/run"] {
            tree.clear(directory);
        }
        for directory in [
            "/dev/mapper",
            "/dev/disk/by-id",
            "/proc/1",
            "/proc/self",
            "/run/lock/iscsi",
            "/run/udev/data",
            "/sys/block",
            "/sys/bus/scsi/devices",
            "/sys/class/block",
            "/sys/class/iscsi_connection",
            "/sys/class/iscsi_host",
            "/sys/class/iscsi_session",
            "/sys/class/net/eth0",
            "/sys/class/net/eth1",
            "/sys/class/net/lo",
            "/sys/class/scsi_device",
            "/sys/class/scsi_disk",
            "/sys/class/scsi_host",
            "/sys/dev/block",
            "/sys/devices/platform",
            "/sys/devices/virtual/block",
        ] {
            tree.put(directory, Node::Directory);
        }
        let boot = format!("{:08x}-0000-4000-8000-000000000000\n", self.boots);
        tree.put_text("/proc/sys/kernel/random/boot_id", boot);
        tree.put("/dev/mapper/control", Node::Device(10, 236));
        self.mounts = Mounts::at_boot();
        self.multipathd.running = true;
    }

    /// udev has `work` done when it gets to it.
    pub(super) fn udev(&mut self, work: impl FnOnce(&mut Self) + Send + 'static) {
        self.udev_events += 1;
        self.tree.put_text(UDEV_QUEUE, "");
        let boots = self.boots;
        self.later(self.delays.udev, move |state| {
            if state.boots != boots {
                return;
            }
            state.udev_events -= 1;
            if state.udev_events == 0 {
                state.tree.clear(UDEV_QUEUE);
            }
            work(state);
        });
    }

    /// A number that was never used before.
    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn record(&mut self, process: u64, what: impl std::fmt::Display) {
        let milliseconds = self.clock.now.as_millis();
        self.history
            .push(format!("{milliseconds} ms, process {process}: {what}"));
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(super) fn fail_next(&mut self, what: &str, fault: Fault) {
        self.faults.push((what.to_owned(), fault));
    }

    pub(super) fn take_fault(&mut self, what: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(next, _)| next == what)?;
        Some(self.faults.remove(at).1)
    }

    /// The error that the next call of this kind is to fail with.
    pub(super) fn fail_if_told(&mut self, what: &str) -> std::io::Result<()> {
        match self.take_fault(what) {
            Some(Fault::Errno(errno)) => Err(errno.into()),
            Some(other) => {
                self.violation(format!("test: {other:?} makes no sense for {what}"));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
