//! What the array holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::backing::{Backing, Unbacked};
use super::words::{Asked, invalid};
use super::{Done, hosts, luns, snaps};

pub const GIB: u64 = 1 << 30;
/// So many snapshots of one LUN.
pub const MOST_SNAPS: usize = 256;

#[derive(Clone, Debug)]
pub struct Lun {
    pub name: String,
    pub uid: String,
    pub size: u64,
    pub pool: String,
    pub is_thin: bool,
    /// Of a mount point: the number of the LUN whose snapshots it shows.
    pub primary: Option<u32>,
    /// And the snapshot.
    pub attached: Option<String>,
    /// In so many looks it is being prepared.
    pub preparing: usize,
    pub state: String,
    pub is_faulted: bool,
    /// What nodes wrote to it, in blocks.
    pub written: u64,
}

#[derive(Clone, Debug)]
pub struct Snap {
    pub lun: u32,
    pub description: String,
    /// Seconds from the first one.
    pub cut_at: u64,
    /// That of the snapshot which it is a copy of.
    pub copied_from: Option<u64>,
    pub is_writable: bool,
    pub may_go: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub number: u32,
    pub luns: BTreeMap<u16, u32>,
}

/// An initiator at a port.
#[derive(Clone, Debug)]
pub struct Record {
    pub initiator: String,
    pub sp: char,
    pub port: u32,
    pub vport: u32,
    pub host: String,
}

#[derive(Clone, Debug)]
pub struct Migration {
    pub source: u32,
    pub dest: u32,
    /// Done after so many looks.
    pub left: usize,
    pub state: String,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub sp: char,
    pub port: u32,
    /// The addresses of its virtual ports.
    pub addresses: Vec<String>,
}

impl Port {
    pub fn new(sp: char, port: u32, addresses: &[&str]) -> Self {
        Self {
            sp,
            port,
            addresses: addresses.iter().map(|&it| it.to_owned()).collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct State {
    pub serial: String,
    /// What the second processor says that it is of, if that is another array.
    pub other_serial: Option<String>,
    /// Names and bytes.
    pub pools: Vec<(&'static str, u64)>,
    pub ports: Vec<Port>,
    pub luns: BTreeMap<u32, Lun>,
    pub snaps: BTreeMap<String, Snap>,
    pub groups: BTreeMap<String, Group>,
    pub records: Vec<Record>,
    /// The storage group of each host.
    pub connected: BTreeMap<String, String>,
    pub migrations: Vec<Migration>,
    /// New LUNs are being prepared in so many looks.
    pub preparing: usize,
    /// Migrations last so many looks.
    pub migrating: usize,
    pub longest_description: usize,
    /// Others who add a LUN of theirs, each just before a LUN is added to a group, under the number that is asked for.
    pub rivals: usize,
    pub next_uid: u64,
    pub clock: u64,
    pub(super) backing: Arc<dyn Backing>,
}

impl State {
    pub fn new(serial: &str) -> Self {
        let port = |sp, port, addresses: &[&str]| Port::new(sp, port, addresses);
        Self {
            serial: serial.to_owned(),
            other_serial: None,
            pools: vec![("Pool 0", 8 << 40), ("Archive", 1 << 40)],
            ports: vec![
                port('A', 4, &["10.101.1.1"]),
                port('A', 5, &["10.102.1.2"]),
                port('A', 10, &[]),
                port('B', 4, &["10.101.1.3"]),
                port('B', 5, &["10.102.1.4"]),
            ],
            luns: BTreeMap::new(),
            snaps: BTreeMap::new(),
            groups: BTreeMap::new(),
            records: Vec::new(),
            connected: BTreeMap::new(),
            migrations: Vec::new(),
            preparing: 1,
            migrating: 2,
            longest_description: 1000,
            rivals: 0,
            next_uid: 1,
            clock: 0,
            backing: Arc::new(Unbacked),
        }
    }

    /// The number of the LUN that is called so.
    pub fn named(&self, name: &str) -> Option<u32> {
        let mut luns = self.luns.iter();
        luns.find(|(_, lun)| lun.name == name)
            .map(|(number, _)| *number)
    }

    /// A storage group that somebody else made, with this initiator as that host at every port.
    pub fn put_host(&mut self, group: &str, host: &str, initiator: &str) {
        let number = u32::try_from(self.groups.len()).unwrap();
        let entry = self.groups.entry(group.to_owned());
        entry.or_insert(Group {
            number,
            ..Group::default()
        });
        self.connected.insert(host.to_owned(), group.to_owned());
        self.log_in(host, initiator);
    }

    /// An initiator that has logged in: it is known under that host, which may be in no group.
    pub fn log_in(&mut self, host: &str, initiator: &str) {
        for port in self.ports.iter().filter(|it| !it.addresses.is_empty()) {
            self.records.push(Record {
                initiator: initiator.to_owned(),
                sp: port.sp,
                port: port.port,
                vport: 0,
                host: host.to_owned(),
            });
        }
    }

    /// The groups that show the LUN.
    pub fn groups_with(&self, lun: u32) -> Vec<&str> {
        let groups = self.groups.iter();
        let with = groups.filter(|(_, group)| group.luns.values().any(|it| *it == lun));
        with.map(|(name, _)| name.as_str()).collect()
    }

    pub fn uid(&mut self) -> String {
        self.next_uid += 1;
        let bytes = self.next_uid.to_be_bytes();
        let own: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("60:06:01:60:12:60:3D:00:{}", own.join(":"))
    }
}

pub fn change(state: &mut State, asked: &Asked) -> Done {
    match asked.command() {
        ("lun", "-create") if asked.find("-type") == Some("snap") => luns::mount(state, asked),
        ("lun", "-create") => luns::create(state, asked),
        ("lun", "-attach") => luns::attach(state, asked),
        ("lun", "-detach") => luns::detach(state, asked),
        ("lun", "-destroy") => luns::destroy(state, asked),
        ("lun", "-expand") => luns::expand(state, asked),
        ("lun", "-modify") => luns::modify(state, asked),
        ("migrate", "-start") => luns::migrate(state, asked),
        ("migrate", "-cancel") => luns::cancel(state, asked),
        ("snap", "-create") => snaps::create(state, asked),
        ("snap", "-copy") => snaps::copy(state, asked),
        ("snap", "-modify") => snaps::modify(state, asked),
        ("snap", "-destroy") => snaps::destroy(state, asked),
        ("storagegroup", "-create") => hosts::create(state, asked),
        ("storagegroup", "-destroy") => hosts::destroy(state, asked),
        ("storagegroup", "-setpath") => hosts::set_path(state, asked),
        ("storagegroup", "-connecthost") => hosts::connect(state, asked),
        ("storagegroup", "-disconnecthost") => hosts::disconnect(state, asked),
        ("storagegroup", "-addhlu") => hosts::add(state, asked),
        ("storagegroup", "-removehlu") => hosts::remove(state, asked),
        _ => invalid(),
    }
}
