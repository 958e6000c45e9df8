//! What a SAN holds, in the crate's own words.

use std::collections::BTreeMap;

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
}

impl NewVolume {
    /// Why `found`, which has the same name, is not the volume that is wanted, if it is not.
    #[must_use]
    pub fn difference(&self, found: &SanVolume) -> Option<String> {
        if !self.range.holds(found.size) {
            return Some(format!("it has {} bytes", found.size));
        }
        let other = |key: &&&str| self.metadata.get(**key) != found.metadata.get(**key);
        self.decisive.iter().find(other).map(|key| {
            let show = |metadata: &Metadata| match metadata.get(*key) {
                Some(value) => format!("{value:?}"),
                None => "absent".to_owned(),
            };
            format!(
                "its {key} is {}, not {}",
                show(&found.metadata),
                show(&self.metadata)
            )
        })
    }
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
    /// The node's id, if an orchestrator can have issued it.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        NodeId::new(&self.node_name, self.initiator.clone()).ok()
    }
}

/// What a node may do with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its writes are refused.
    pub read_only: bool,
    /// Other nodes may have the volume at the same time.
    pub shared: bool,
}

/// A part of all volumes, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The volumes.
    pub volumes: Vec<SanVolume>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

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
