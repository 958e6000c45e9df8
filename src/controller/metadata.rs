//! What is noted on the SAN with each volume and snapshot, so that no controller has to remember anything.

use std::collections::BTreeMap;

use super::origin::Origin;
use super::parameters::{ArchiveChoice, Kept, Parameters};
use crate::fabric::Wwid;
use crate::san::SanVolume;
use crate::volume::{ArchivedId, SanName, VolumeId};

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

/// With a snapshot: the archive that it goes to.
const ARCHIVE: &str = "sanpath/archive";
/// With one that goes to an archive: whether the SAN keeps its cut.
const RETAIN: &str = "sanpath/retain-on-san";
/// With a volume that nobody asked for: the archived snapshot that it shows to an archiver.
const CARRIES: &str = "sanpath/carries";
/// The same: the archived snapshot that an archiver fills it with.
const FILLS: &str = "sanpath/fills";
/// With both: for whose volumes and snapshots it is there. They are none of its own, so [`PARTITION`] is not theirs.
const HELPS: &str = "sanpath/helps";
/// Before each note of the volume that becomes of what is filled.
const BECOMES: &str = "becomes ";
/// What follows the name of a cut in that of the volume that shows it.
const CARRIER: &str = ".carrier";
/// What follows the name of a volume in that of the one that is filled for it.
const FILLER: &str = ".filler";

/// What must be the same for a repeated call to mean the same helper.
pub(super) const HELPER_DECISIVE: &[&str] = &[HELPS, CARRIES, FILLS];

/// What must be the same for a repeated CreateVolume to mean the same volume.
pub(super) const DECISIVE: &[&str] = &[PARTITION, NAME, PARAMETERS, SOURCE];

/// What must be the same for a repeated CreateSnapshot, or one of a group, to mean the same snapshot. A group's key is not among it: it is made anew for each
/// attempt, and the one that was noted first is the group's.
pub(super) const SNAPSHOT_DECISIVE: &[&str] = &[PARTITION, NAME, SOURCE, MEMBERS, ARCHIVE, RETAIN];

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
    /// Of one that goes to an archive.
    pub(super) archive: Option<&'n ArchiveChoice>,
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
        let archive = self.archive.map(|choice| {
            let retain = (RETAIN, choice.is_retained.to_string());
            [(ARCHIVE, choice.archive.clone()), retain]
        });
        let archive = archive.into_iter().flatten();
        let mut written = written(notes.into_iter().chain(group).chain(archive));
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

/// What the orchestrator calls it.
pub(super) fn name(notes: &Notes) -> Option<&str> {
    notes.get(NAME).map(String::as_str)
}

/// The archive that a snapshot goes to, and whether the SAN keeps its cut.
pub(super) fn choice(notes: &Notes) -> Option<ArchiveChoice> {
    Some(ArchiveChoice {
        archive: notes.get(ARCHIVE)?.clone(),
        is_retained: notes.get(RETAIN).map(String::as_str) != Some("false"),
    })
}

/// What the volume is called that shows the cut of this name.
pub(super) fn carrier_name(cut: &str) -> String {
    format!("{cut}{CARRIER}")
}

/// What the volume is called that is filled for the one of this name.
pub(super) fn filler_name(volume: &str) -> String {
    format!("{volume}{FILLER}")
}

/// For which one it is filled.
pub(super) fn filled_name(filler: &str) -> String {
    filler.strip_suffix(FILLER).unwrap_or(filler).to_owned()
}

/// The notes of a volume that shows a cut.
pub(super) fn carrier_notes(partition: &SanName, id: &ArchivedId) -> Notes {
    let notes = [
        (VERSION, "1".to_owned()),
        (HELPS, partition.to_string()),
        (CARRIES, id.to_string()),
    ];
    written(notes.into_iter())
}

/// The notes of a volume that is filled and becomes one with the notes `becomes`.
pub(super) fn filler_notes(partition: &SanName, id: &ArchivedId, becomes: &Notes) -> Notes {
    let notes = [
        (VERSION, "1".to_owned()),
        (HELPS, partition.to_string()),
        (FILLS, id.to_string()),
    ];
    let becomes = becomes.iter();
    let becomes = becomes.map(|(key, value)| (format!("{BECOMES}{key}"), value.clone()));
    written(notes.into_iter())
        .into_iter()
        .chain(becomes)
        .collect()
}

/// What becomes of it.
pub(super) fn notes_of_filled(filler: &Notes) -> Notes {
    let becomes = |(key, value): (&String, &String)| {
        let key = key.strip_prefix(BECOMES)?;
        Some((key.to_owned(), value.clone()))
    };
    filler.iter().filter_map(becomes).collect()
}

/// The archived snapshot that it is filled with.
pub(super) fn filled_with(notes: &Notes) -> Option<ArchivedId> {
    notes.get(FILLS).and_then(|text| ArchivedId::find(text))
}

/// The archived snapshot that it shows.
pub(super) fn carried_by(notes: &Notes) -> Option<ArchivedId> {
    notes.get(CARRIES).and_then(|text| ArchivedId::find(text))
}

/// Whether nobody asked for this volume, and it is there for a transfer.
pub(super) fn is_helper(notes: &Notes) -> bool {
    notes.contains_key(HELPS)
}

/// The same, and for whom.
pub(super) fn is_helper_in(notes: &Notes, partition: &SanName) -> bool {
    notes.get(HELPS).map(String::as_str) == Some(partition.as_str())
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
            archive: None,
        };
        assert_eq!(notes.write(), golden);
        for key in &SNAPSHOT_DECISIVE[..4] {
            assert!(golden.contains_key(*key), "{key}");
        }
        assert_eq!(choice(&golden), None);
        assert_eq!(source(&golden), Some(volume));
        assert_eq!(group(&golden).as_deref(), Some("c0ffee"));
        assert_eq!(kept(&golden).encryption.as_deref(), Some("luks2"));
        assert_eq!(header(&golden), None, "its source made the header");
        assert!(is_in(&golden, &"cluster-a".parse().unwrap()));
    }

    #[test]
    fn version_1_of_what_is_noted_for_an_archive_is_read_for_ever() {
        let volume = "sp1:linux:cluster-a:0f1e:360014050123456789abcdef012345678";
        let volume = VolumeId::find(volume).unwrap();
        let chosen = ArchiveChoice {
            archive: "away".to_owned(),
            is_retained: false,
        };
        let cut = SnapshotNotes {
            name: "s",
            source: &volume,
            made_with: Notes::new(),
            group: None,
            archive: Some(&chosen),
        };
        let cut = cut.write();
        assert_eq!(cut["sanpath/archive"], "away");
        assert_eq!(cut["sanpath/retain-on-san"], "false");
        assert_eq!(choice(&cut), Some(chosen));
        let (a, id) = ("cluster-a".parse().unwrap(), "spa1:away:linux:cluster-a:s");
        let id = ArchivedId::find(id).unwrap();
        let carrier = carrier_notes(&a, &id);
        assert_eq!(carrier["sanpath/helps"], "cluster-a");
        assert_eq!(carrier["sanpath/carries"], id.to_string());
        let becomes = notes("pvc-1", &a, &Parameters::default(), None, None);
        let filler = filler_notes(&a, &id, &becomes);
        assert_eq!(filler["sanpath/fills"], id.to_string());
        assert_eq!(filler["becomes csi/name"], "pvc-1");
        assert_eq!(filled_with(&filler), Some(id));
        assert_eq!(notes_of_filled(&filler), becomes);
        for helper in [carrier, filler] {
            assert!(is_helper_in(&helper, &a) && !is_in(&helper, &a));
        }
        assert_eq!(filled_name(&filler_name("prod-pvc-1")), "prod-pvc-1");
        assert_eq!(
            (filler_name("v"), carrier_name("s")),
            ("v.filler".to_owned(), "s.carrier".to_owned())
        );
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
