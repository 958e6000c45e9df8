//! Volumes that really exist: what of the group is on the data path. Each is a target of its own, with the disk at LUN 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::backing::{Backing, Object};
use super::NAME;
use super::commands::PAGE;
use super::state::{Group, Volume};

impl Group {
    /// With volumes that are served, and the group's address for initiators.
    pub fn backed(address: &str, backing: Arc<dyn Backing>) -> Self {
        let mut group = Self::new(NAME, address);
        group.backing = backing;
        group
    }

    /// Whether a volume or a snapshot that is online has this target.
    pub fn knows(&self, target: &str) -> bool {
        self.volumes.values().any(|volume| {
            let mut cuts = volume.snapshots.values();
            (volume.is_online && volume.target == target)
                || cuts.any(|cut| cut.is_online && cut.target == target)
        })
    }

    /// Lets the data path follow.
    pub(super) fn followed(&self) -> Result<(), String> {
        self.backing.follow(&self.objects())
    }

    /// What was written is known to whoever serves it. A group gives room by the page.
    pub(super) fn note_used(&mut self) {
        for volume in self.volumes.values_mut() {
            let used = self.backing.used(&id(&volume.target));
            volume.used = used.map_or(volume.used, |bytes| bytes.next_multiple_of(PAGE));
        }
    }

    /// All that is on the data path.
    pub fn objects(&self) -> Vec<Object> {
        self.volumes.values().flat_map(of_volume).collect()
    }
}

/// The volume and its snapshots. Records let in to both.
fn of_volume(volume: &Volume) -> Vec<Object> {
    let object = |target: &str, size, origin: Option<&String>, is_online| Object {
        id: id(target),
        size,
        copy_of: origin.map(|it| id(it)),
        wwid: wwid(target),
        target: Some(target.to_owned()),
        shown_to: match is_online {
            true => shown_to(volume),
            false => BTreeMap::new(),
        },
    };
    let origin = volume.made_of.as_ref();
    let itself = object(&volume.target, volume.size, origin, volume.is_online);
    let cuts = volume.snapshots.values();
    let cuts = cuts.map(|cut| object(&cut.target, cut.size, Some(&volume.target), cut.is_online));
    [itself].into_iter().chain(cuts).collect()
}

/// Whoever a record has by name: nobody is let in here by his address alone.
fn shown_to(volume: &Volume) -> BTreeMap<String, u64> {
    let named = volume.access.values().map(|record| &record.initiator);
    let named = named.filter(|initiator| *initiator != "*");
    named.map(|initiator| (initiator.clone(), 0)).collect()
}

/// Never another's in this group.
fn id(target: &str) -> String {
    wwid(target)
}

/// The name of a target's disk: of `a-b-c-d`, which a target's name begins with, the bytes of `cba` from behind, and those of `d`.
fn wwid(target: &str) -> String {
    let (_, name) = target.split_once(':').unwrap_or_default();
    let parts: Vec<&str> = name.splitn(5, '-').collect();
    let [a, b, c, d, _] = parts[..] else {
        return String::new();
    };
    format!("3{}{}", from_behind(&[c, b, a].concat()), from_behind(d))
}

fn from_behind(digits: &str) -> String {
    let bytes: Vec<char> = digits.chars().collect();
    bytes.chunks(2).rev().flatten().collect()
}
