//! The ids of a snapshot and of a group of them: which SAN, and which key there; or which archive, and which name there.

use std::fmt;

use super::id::{Family, SanName, is_key};

/// CSI §"Size limits": an id is at most 128 bytes.
const MAX_BYTES: usize = 128;

/// A snapshot's id, `sps1:FAMILY:SAN:KEY`.
///
/// Keys are random and never used twice, so the id fences a recycled name. A text that we did not issue names no snapshot; it is never "invalid".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The kind of SAN.
    pub family: Family,
    /// The SAN's name in the config file.
    pub san: SanName,
    /// The SAN's own key of the snapshot.
    pub key: String,
}

/// The id of a group of snapshots that were cut at one moment, `spg1:FAMILY:SAN:KEY`. The key is random and noted with each of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The kind of SAN.
    pub family: Family,
    /// The SAN's name in the config file.
    pub san: SanName,
    /// Ours, not the SAN's.
    pub key: String,
}

/// The id of a snapshot in an archive, `spa1:ARCHIVE:NAME`.
///
/// The name is what the archive knows it by; of one that a controller carried there it is `FAMILY:SAN:CSI-NAME`, so that every repeated call means the same
/// object, whatever became of the SAN's own cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchivedId {
    /// The archive's name in the config file.
    pub archive: String,
    /// The snapshot's name there.
    pub name: String,
}

impl ArchivedId {
    /// The id of the snapshot that is called `name` by the orchestrator; `None` when it would be too long, or `name` has characters that no archive's names have.
    #[must_use]
    pub fn new(archive: &str, family: Family, san: &SanName, name: &str) -> Option<Self> {
        Self::find(&format!("spa1:{archive}:{}:{san}:{name}", family.as_str()))
            .filter(|id| !id.name.ends_with(':'))
    }

    /// Reads an id that we issued, any version of it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let (archive, name) = text.strip_prefix("spa1:")?.split_once(':')?;
        let is_archive = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let is_ours = text.len() <= MAX_BYTES
            && !archive.is_empty()
            && archive.bytes().all(is_archive)
            && !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(is_name);
        is_ours.then(|| Self {
            archive: archive.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Where the SAN's own cut is, or was, and what the orchestrator calls it; `None` for what no controller carried there.
    #[must_use]
    pub fn on_san(&self) -> Option<(Family, SanName, &str)> {
        let (family, rest) = self.name.split_once(':')?;
        let (san, name) = rest.split_once(':')?;
        Some((Family::find(family)?, san.parse().ok()?, name))
    }
}

impl fmt::Display for ArchivedId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "spa1:{}:{}", self.archive, self.name)
    }
}

/// The id of any snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnySnapshotId {
    /// One that is a SAN's alone.
    OnSan(SnapshotId),
    /// One that is, or is to be, in an archive.
    Archived(ArchivedId),
}

impl AnySnapshotId {
    /// Reads an id that we issued, any version of it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let archived = ArchivedId::find(text).map(Self::Archived);
        archived.or_else(|| SnapshotId::find(text).map(Self::OnSan))
    }
}

impl AnySnapshotId {
    /// Of one that is a SAN's alone.
    #[must_use]
    pub fn on_san(&self) -> Option<&SnapshotId> {
        match self {
            Self::OnSan(id) => Some(id),
            Self::Archived(_) => None,
        }
    }
}

impl fmt::Display for AnySnapshotId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnSan(id) => id.fmt(out),
            Self::Archived(id) => id.fmt(out),
        }
    }
}

impl SnapshotId {
    /// Reads an id that we issued, any version of it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let (family, san, key) = find("sps1", text)?;
        Some(Self { family, san, key })
    }
}

impl GroupId {
    /// Reads an id that we issued, any version of it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let (family, san, key) = find("spg1", text)?;
        Some(Self { family, san, key })
    }
}

fn find(version: &str, text: &str) -> Option<(Family, SanName, String)> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [found, family, san, key] = parts.as_slice() else {
        return None;
    };
    if *found != version || !is_key(key) {
        return None;
    }
    Some((Family::find(family)?, san.parse().ok()?, (*key).to_owned()))
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "sps1:{}:{}:{}",
            self.family.as_str(),
            self.san,
            self.key
        )
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "spg1:{}:{}:{}",
            self.family.as_str(),
            self.san,
            self.key
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "sps1:linux:cluster-a:0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const GOLDEN_GROUP: &str = "spg1:linux:cluster-a:0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    #[test]
    fn version_1_is_read_for_ever() {
        let id = SnapshotId::find(GOLDEN).unwrap();
        assert_eq!(id.san.as_str(), "cluster-a");
        assert_eq!(id.to_string(), GOLDEN);
        let group = GroupId::find(GOLDEN_GROUP).unwrap();
        assert_eq!(group.key, id.key);
        assert_eq!(group.to_string(), GOLDEN_GROUP);
    }

    #[test]
    fn an_archived_id_of_version_1_is_read_for_ever() {
        let golden = "spa1:away:linux:cluster-a:snapshot-1:2";
        let id = ArchivedId::find(golden).unwrap();
        let a: SanName = "cluster-a".parse().unwrap();
        assert_eq!(id.to_string(), golden);
        assert_eq!(
            id.on_san(),
            Some((Family::Linux, a.clone(), "snapshot-1:2"))
        );
        assert_eq!(
            ArchivedId::new("away", Family::Linux, &a, "snapshot-1:2"),
            Some(id)
        );
        assert_eq!(ArchivedId::find("spa1:away:monday").unwrap().on_san(), None);
        for name in ["", "a/b", "a b", &"x".repeat(MAX_BYTES)] {
            assert_eq!(
                ArchivedId::new("away", Family::Linux, &a, name),
                None,
                "{name}"
            );
        }
        for text in [
            "spa1:away",
            "spa1::monday",
            "spa1:a_b:monday",
            "spa1:a:.m",
            "spa2:a:b",
        ] {
            assert_eq!(AnySnapshotId::find(text), None, "{text}");
        }
        assert!(matches!(
            AnySnapshotId::find(GOLDEN),
            Some(AnySnapshotId::OnSan(_))
        ));
    }

    #[test]
    fn an_id_never_issued_names_nothing() {
        let long = format!("{GOLDEN}{}", "0".repeat(MAX_BYTES));
        for text in [
            "",
            "fake-snapshot-id",
            "sps1:linux:a:",
            "sps1:linux:a:k/k",
            "sps1:static:a:k",
            "sps2:linux:a:k",
            "sps1:linux:a:k:k",
            "sp1:linux:a:k:360014050123456789abcdef012345678",
            &long,
        ] {
            assert_eq!(SnapshotId::find(text), None, "{text}");
        }
        assert_eq!(SnapshotId::find(GOLDEN_GROUP), None);
        assert_eq!(GroupId::find(GOLDEN), None);
    }
}
