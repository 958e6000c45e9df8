//! What a SAN holds, in the crate's own words.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::fabric::{Iqn, Wwid};
use crate::volume::{NodeId, SizeRange};

/// Notes that the SAN keeps with a volume and returns as they were given.
pub type Metadata = BTreeMap<String, String>;

/// A volume to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name on the SAN; the same name is the same volume.
    pub name: String,
    /// The bytes to make it of.
    pub size: u64,
    /// Which sizes of a volume that is there already will do.
    pub range: SizeRange,
    /// Kept with it.
    pub metadata: Metadata,
    /// The keys of the metadata that a volume that is there already must carry with the same values.
    pub decisive: &'static [&'static str],
    /// What it begins as a copy of; else as zeros.
    pub source: Option<Source>,
}

/// What a volume is made of, by the SAN's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume as it is at that moment.
    Volume(String),
    /// A snapshot.
    Snapshot(String),
}

impl NewVolume {
    /// Why `found`, which has the same name, is not the volume that is wanted, if it is not.
    #[must_use]
    pub fn difference(&self, found: &SanVolume) -> Option<String> {
        if !self.range.holds(found.size) {
            return Some(format!("it has {} bytes", found.size));
        }
        if self.source != found.source {
            return Some(match &found.source {
                Some(Source::Volume(key)) => format!("it was made of volume {key}"),
                Some(Source::Snapshot(key)) => format!("it was made of snapshot {key}"),
                None => "it was made of nothing".to_owned(),
            });
        }
        other_note(self.decisive, &self.metadata, &found.metadata)
    }
}

/// The first of the `decisive` notes in which `found` differs from `wanted`, told.
fn other_note(decisive: &[&str], wanted: &Metadata, found: &Metadata) -> Option<String> {
    let other = |key: &&&str| wanted.get(**key) != found.get(**key);
    decisive.iter().find(other).map(|key| {
        let show = |metadata: &Metadata| match metadata.get(*key) {
            Some(value) => format!("{value:?}"),
            None => "absent".to_owned(),
        };
        format!("its {key} is {}, not {}", show(found), show(wanted))
    })
}

/// A volume that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanVolume {
    /// The SAN's own key: never used twice.
    pub key: String,
    /// Its name on the SAN.
    pub name: String,
    /// Its identity on every path.
    pub wwid: Wwid,
    /// Its size in bytes.
    pub size: u64,
    /// What was noted when it was made.
    pub metadata: Metadata,
    /// Who may reach it.
    pub exported_to: Vec<Exported>,
    /// What it was made of; may be gone.
    pub source: Option<Source>,
}

/// A snapshot to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name on the SAN; the same name is the same snapshot.
    pub name: String,
    /// The volume's key.
    pub volume: String,
    /// Kept with it.
    pub metadata: Metadata,
    /// The keys of the metadata that a snapshot that is there already must carry with the same values.
    pub decisive: &'static [&'static str],
}

impl NewSnapshot {
    /// Why `found`, which has the same name, is not the snapshot that is wanted, if it is not.
    #[must_use]
    pub fn difference(&self, found: &SanSnapshot) -> Option<String> {
        if found.volume != self.volume {
            return Some(format!("it is of volume {}", found.volume));
        }
        other_note(self.decisive, &self.metadata, &found.metadata)
    }
}

/// A snapshot that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanSnapshot {
    /// The SAN's own key: never used twice.
    pub key: String,
    /// Its name on the SAN.
    pub name: String,
    /// The key of the volume that was cut; it may be gone.
    pub volume: String,
    /// The volume's size at that moment, in bytes.
    pub size: u64,
    /// That moment, by the SAN's clock.
    pub created_at: SystemTime,
    /// What was noted when it was cut.
    pub metadata: Metadata,
}

/// A part of all snapshots, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<SanSnapshot>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

/// A part of the bytes of a snapshot that may be other than zero, or than in an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentPage {
    /// Offset and length, in the order of their offsets.
    pub extents: Vec<(u64, u64)>,
    /// Where the next part begins; `None` when that was all.
    pub next: Option<u64>,
    /// The size of the snapshot.
    pub size: u64,
}

impl ExtentPage {
    /// Of a snapshot of `size` bytes whose SAN does not tell: all from `from` on may be other.
    #[must_use]
    pub fn untold(size: u64, from: u64) -> Self {
        let left = size.saturating_sub(from);
        Self {
            extents: (left > 0).then_some((from, left)).into_iter().collect(),
            next: None,
            size,
        }
    }
}

/// One node that may reach a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The name under which it was exported.
    pub node_name: String,
    /// The node's initiator.
    pub initiator: Iqn,
    /// Whether its writes are refused.
    pub read_only: bool,
}

impl Exported {
    /// Whether the SAN knows whose initiator it is; if not, it stands for the name too.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.node_name != self.initiator.as_str()
    }

    /// The node's id, if an orchestrator can have issued it.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        NodeId::new(&self.node_name, self.initiator.clone()).ok()
    }
}

/// How far a volume is from well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// It serves, and has less to lose than it should.
    Degraded,
    /// It does not serve.
    Inaccessible,
}

/// One thing that is wrong with a volume, by its SAN's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How bad it is.
    pub grade: Grade,
    /// One CamelCase word for machines; once for a volume and grade.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A volume that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The volume.
    pub volume: SanVolume,
    /// What is wrong with it; nothing for a healthy one.
    pub troubles: Vec<Trouble>,
}

/// A part of all volumes, looked at, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedPage {
    /// The volumes.
    pub volumes: Vec<Checked>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

/// What a node may do with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its writes are refused.
    pub read_only: bool,
    /// Who else may have the volume at the same time.
    pub others: Others,
}

/// Who may have a volume beside the node that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nobody.
    Nobody,
    /// Nodes that only read.
    Readers,
    /// Any node.
    Anybody,
}

impl Others {
    /// Whether that node may be one of them.
    #[must_use]
    pub fn allow(self, node: &Exported) -> bool {
        match self {
            Self::Nobody => false,
            Self::Readers => node.read_only,
            Self::Anybody => true,
        }
    }
}

/// A part of all volumes, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The volumes.
    pub volumes: Vec<SanVolume>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

/// A policy of performance that was found on a SAN, by the SAN's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(pub(super) String);

/// The room that a SAN has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// What can still be written.
    pub available: u64,
    /// The least a volume can have.
    pub minimum_volume: u64,
    /// The most a volume can have.
    pub maximum_volume: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(size: u64, notes: &[(&str, &str)]) -> SanVolume {
        SanVolume {
            key: "k".to_owned(),
            name: "v".to_owned(),
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            size,
            metadata: notes
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            exported_to: Vec::new(),
            source: None,
        }
    }

    #[test]
    fn a_volume_is_the_wanted_one_by_size_and_notes() {
        let wanted = NewVolume {
            name: "v".to_owned(),
            size: 4,
            range: SizeRange::new(4, 8).unwrap(),
            metadata: volume(4, &[("a", "1"), ("written-by", "2")]).metadata,
            decisive: &["a", "b"],
            source: None,
        };
        assert_eq!(wanted.difference(&volume(8, &[("a", "1")])), None);
        let told = |found: &SanVolume| wanted.difference(found).unwrap();
        assert_eq!(told(&volume(9, &[("a", "1")])), "it has 9 bytes");
        assert_eq!(told(&volume(4, &[("a", "2")])), "its a is \"2\", not \"1\"");
        assert_eq!(told(&volume(4, &[])), "its a is absent, not \"1\"");
        let more = volume(4, &[("a", "1"), ("b", "1")]);
        assert_eq!(told(&more), "its b is \"1\", not absent");
    }
}
