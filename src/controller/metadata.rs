//! What is noted on the SAN with each volume and snapshot, so that no controller has to remember anything.

use std::collections::BTreeMap;

use super::origin::Origin;
use super::parameters::{Kept, Parameters};
use crate::fabric::Wwid;
use crate::san::SanVolume;
use crate::volume::{SanName, VolumeId};

pub(super) type Notes = BTreeMap<String, String>;

const VERSION: &str = "sanpath/version";
const PARTITION: &str = "sanpath/partition";
const NAME: &str = "csi/name";
const PARAMETERS: &str = "csi/parameters";
/// With a copy: what it was made of. With a snapshot: the volume that was cut.
const SOURCE: &str = "csi/source";
/// With a copy of an encrypted volume, and with its snapshots: the WWID that its LUKS header bears.
const HEADER: &str = "sanpath/encryption-header";
/// With each of a group: what they have in common.
const GROUP: &str = "csi/group";
/// How many they are.
const MEMBERS: &str = "csi/group-members";

/// What must be the same for a repeated CreateVolume to mean the same volume.
pub(super) const DECISIVE: &[&str] = &[PARTITION, NAME, PARAMETERS, SOURCE];

/// What must be the same for a repeated CreateSnapshot, or one of a group, to mean the same snapshot. A group's key is not among it: it is made anew for each
/// attempt, and the one that was noted first is the group's.
pub(super) const SNAPSHOT_DECISIVE: &[&str] = &[PARTITION, NAME, SOURCE, MEMBERS];

/// The notes of a new volume.
pub(super) fn notes(
    name: &str,
    partition: &SanName,
    parameters: &Parameters,
    origin: Option<&Origin>,
    header: Option<&Wwid>,
) -> Notes {
    let notes = [
        (VERSION, "1".to_owned()),
        (PARTITION, partition.to_string()),
        (NAME, name.to_owned()),
        (PARAMETERS, parameters.kept()),
    ];
    let source = origin.map(|origin| (SOURCE, origin.to_string()));
    let header = header.map(|wwid| (HEADER, wwid.to_string()));
    written(notes.into_iter().chain(source).chain(header))
}

/// What is noted with a snapshot.
pub(super) struct SnapshotNotes<'n> {
    /// The caller's, of the snapshot or of the whole group.
    pub(super) name: &'n str,
    /// The volume that is cut.
    pub(super) source: &'n VolumeId,
    /// What that volume was made with, see [`made_with`]: a copy of the snapshot has to fit it.
    pub(super) made_with: Notes,
    /// Of one that is cut together with others.
    pub(super) group: Option<GroupNotes<'n>>,
}

/// What the members of a group have in common.
pub(super) struct GroupNotes<'n> {
    /// Random.
    pub(super) key: &'n str,
    /// How many there are.
    pub(super) members: usize,
}

impl SnapshotNotes<'_> {
    /// In the form that the SAN keeps.
    pub(super) fn write(self) -> Notes {
        let notes = [
            (VERSION, "1".to_owned()),
            (PARTITION, self.source.san.to_string()),
            (NAME, self.name.to_owned()),
            (SOURCE, self.source.to_string()),
        ];
        let group = self.group.map(|group| {
            let members = (MEMBERS, group.members.to_string());
            [(GROUP, group.key.to_owned()), members]
        });
        let group = group.into_iter().flatten();
        let mut written = written(notes.into_iter().chain(group));
        written.extend(self.made_with);
        written
    }
}

fn written<'k>(notes: impl Iterator<Item = (&'k str, String)>) -> Notes {
    notes.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What the volume was made with, or that of which the snapshot is.
pub(super) fn kept(notes: &Notes) -> Kept {
    let text = notes.get(PARAMETERS);
    text.map_or_else(Kept::default, |text| Kept::read(text))
}

/// The same as it is written, for a snapshot of that volume.
pub(super) fn made_with(volume: &SanVolume) -> Notes {
    let handed_on = [PARAMETERS, HEADER].into_iter();
    let handed_on =
        handed_on.filter_map(|key| Some((key.to_owned(), volume.metadata.get(key)?.clone())));
    handed_on.collect()
}

/// Whose LUKS header stands on the volume or snapshot, where that is not the volume's own.
pub(super) fn header(notes: &Notes) -> Option<Wwid> {
    notes.get(HEADER).and_then(|text| text.parse().ok())
}

/// What a volume is a copy of.
pub(super) fn origin(notes: &Notes) -> Option<Origin> {
    notes.get(SOURCE).and_then(|text| Origin::find(text))
}

/// The volume of which a snapshot is.
pub(super) fn source(notes: &Notes) -> Option<VolumeId> {
    notes.get(SOURCE).and_then(|text| VolumeId::find(text))
}

/// The key of the group of which a snapshot is.
pub(super) fn group(notes: &Notes) -> Option<String> {
    notes.get(GROUP).cloned()
}

/// Whether a volume or snapshot with these notes was made through this partition. Two partitions may share a SAN, and a SAN may hold what is not ours.
pub(super) fn is_in(notes: &Notes, partition: &SanName) -> bool {
    notes.get(PARTITION).map(String::as_str) == Some(partition.as_str())
}

/// The same of a volume.
pub(super) fn is_of(volume: &SanVolume, partition: &SanName) -> bool {
    is_in(&volume.metadata, partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_of_a_snapshots_notes_is_read_for_ever() {
        let volume = "sp1:linux:cluster-a:0f1e:360014050123456789abcdef012345678";
        let volume = VolumeId::find(volume).unwrap();
        let golden = [
            ("sanpath/version", "1"),
            ("sanpath/partition", "cluster-a"),
            ("csi/name", "snapshot-1"),
            (
                "csi/source",
                "sp1:linux:cluster-a:0f1e:360014050123456789abcdef012345678",
            ),
            ("csi/parameters", r#"{"encryption":"luks2"}"#),
            ("csi/group", "c0ffee"),
            ("csi/group-members", "3"),
        ];
        let golden = golden.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let golden = Notes::from(golden);
        let notes = SnapshotNotes {
            name: "snapshot-1",
            source: &volume,
            made_with: [("csi/parameters", r#"{"encryption":"luks2"}"#)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            group: Some(GroupNotes {
                key: "c0ffee",
                members: 3,
            }),
        };
        assert_eq!(notes.write(), golden);
        for key in SNAPSHOT_DECISIVE {
            assert!(golden.contains_key(*key), "{key}");
        }
        assert_eq!(source(&golden), Some(volume));
        assert_eq!(group(&golden).as_deref(), Some("c0ffee"));
        assert_eq!(kept(&golden).encryption.as_deref(), Some("luks2"));
        assert_eq!(header(&golden), None, "its source made the header");
        assert!(is_in(&golden, &"cluster-a".parse().unwrap()));
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let partition = "cluster-a".parse().unwrap();
        let golden = [
            ("sanpath/version", "1"),
            ("sanpath/partition", "cluster-a"),
            ("csi/name", "pvc-1"),
            ("csi/parameters", "{}"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let plain = notes("pvc-1", &partition, &Parameters::default(), None, None);
        assert_eq!(plain, golden.into());
        assert_eq!(origin(&plain), None);
        let snapshot = "sps1:linux:cluster-a:0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let copied = Origin::find(snapshot).unwrap();
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        let (none, origin_of) = (Parameters::default(), Some(&copied));
        let copy = notes("pvc-1", &partition, &none, origin_of, Some(&wwid));
        let noted = &copy["sanpath/encryption-header"];
        assert_eq!(noted, "360014050123456789abcdef012345678");
        assert_eq!(header(&copy), Some(wwid));
        assert_eq!(copy["csi/source"], snapshot);
        assert_eq!(origin(&copy), Some(copied));
        for key in DECISIVE {
            assert!(copy.contains_key(*key), "{key}");
        }
        let asked = [("mkfsOptions".to_owned(), " -i  8192 ".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"mkfsOptions":"-i 8192"}"#);
        assert_eq!(Kept::read(&text).mkfs_options.as_deref(), Some("-i 8192"));
        let asked = [("encryption".to_owned(), "luks2".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"encryption":"luks2"}"#);
        assert_eq!(Kept::read(&text).encryption.as_deref(), Some("luks2"));
        let asked = [("noPathRetry".to_owned(), "012".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"noPathRetry":"12"}"#);
        assert_eq!(Kept::read(&text).no_path_retry.as_deref(), Some("12"));
        for other in ["{}", "", r#"{"later":1}"#] {
            assert_eq!(Kept::read(other), Kept::default(), "{other}");
        }
    }
}
