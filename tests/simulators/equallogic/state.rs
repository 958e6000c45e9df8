//! What a simulated group holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::backing::{Backing, Unbacked};

pub const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A record of who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub initiator: String,
    pub address: String,
    pub user: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snap {
    pub target: String,
    pub size: u64,
    pub description: String,
    pub is_online: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub target: String,
    /// The target of the volume or snapshot that it is a clone of.
    pub made_of: Option<String>,
    pub size: u64,
    /// Allocated bytes.
    pub used: u64,
    pub pool: String,
    pub is_thin: bool,
    pub is_online: bool,
    pub is_shared: bool,
    pub description: String,
    pub connections: u64,
    /// Deletes the oldest snapshot when there is no room.
    pub loses_snapshots: bool,
    pub access: BTreeMap<u32, Access>,
    pub snapshots: BTreeMap<String, Snap>,
}

impl Volume {
    pub(super) fn new(target: String, pool: &str, size: u64) -> Self {
        Self {
            target,
            made_of: None,
            size,
            used: 0,
            pool: pool.to_owned(),
            is_thin: false,
            is_online: true,
            is_shared: false,
            description: String::new(),
            connections: 0,
            loses_snapshots: true,
            access: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        }
    }
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub address: String,
    pub volumes: BTreeMap<String, Volume>,
    /// By pool: its bytes.
    pub pools: BTreeMap<String, u64>,
    /// A description is cut off behind so many bytes.
    pub longest_description: usize,
    /// Snapshots are cut without the description that was given.
    pub forgets_descriptions: bool,
    pub in_mb: bool,
    pub(super) backing: Arc<dyn Backing>,
    made: u64,
}

/// Whether a command changes a volume or a snapshot.
pub fn is_change(command: &str) -> bool {
    let shows = command.ends_with(" show") || command == "volume show";
    command.starts_with("volume ") && !shows
}

impl Group {
    pub fn new(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            volumes: BTreeMap::new(),
            pools: [
                ("default".to_owned(), 8192 * GIB),
                ("fast".to_owned(), 4096 * GIB),
            ]
            .into(),
            longest_description: 127,
            forgets_descriptions: false,
            in_mb: false,
            backing: Arc::new(Unbacked),
            made: 0,
        }
    }

    /// What is done now has this number, and no other has.
    pub(super) fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// A new target's name.
    pub(super) fn target(&mut self, name: &str) -> String {
        let number = self.next();
        format!(
            "iqn.2001-05.com.equallogic:0-8a0906-{:05x}850c-{:012x}4f3a-{}",
            number * 7919 % 0xf_ffff,
            0x0670_0000_0000_u64 + number * 104_729,
            name.to_lowercase()
        )
    }

    /// A pool's bytes: all, free, and promised to volumes.
    pub(super) fn space(&self, pool: &str) -> Option<(u64, u64, u64)> {
        let total = *self.pools.get(pool)?;
        let inside = self.volumes.values().filter(|it| it.pool == pool);
        let promised: u64 = inside.clone().map(|it| it.size).sum();
        let taken: u64 = inside
            .map(|it| if it.is_thin { it.used } else { it.size })
            .sum();
        Some((total, total.saturating_sub(taken), promised))
    }

    /// As it is printed.
    pub(super) fn printed(&self, bytes: u64) -> String {
        let mb = bytes / MIB;
        if self.in_mb || mb < 1024 {
            return format!("{mb}MB");
        }
        let hundredths = |unit: u64| {
            let value = bytes * 100 / unit;
            let text = format!("{}.{:02}", value / 100, value % 100);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match mb {
            1024..1_048_576 => format!("{}GB", hundredths(GIB)),
            _ => format!("{}TB", hundredths(GIB << 10)),
        }
    }

    pub(super) fn described(&self, text: &str) -> String {
        text.chars().take(self.longest_description).collect()
    }
}
