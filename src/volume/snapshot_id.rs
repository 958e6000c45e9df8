//! The ids of a snapshot and of a group of them: which SAN, and which key there.

use std::fmt;

use super::id::{Family, SanName};

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
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if *found != version || !is_key {
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
