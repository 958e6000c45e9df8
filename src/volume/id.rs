//! The volume id: which SAN, which volume there, and which WWID it must have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fabric::Wwid;

/// CSI §"Size limits": an id is at most 128 bytes.
const MAX_BYTES: usize = 128;

/// In the id of a volume that was written down by hand.
const STATIC: &str = "static";

/// The kinds of SANs that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `sanpath san` on a Linux box.
    Linux,
    /// NetApp ONTAP.
    Ontap,
    /// Dell EMC Unity.
    Unity,
    /// EMC VNX.
    Vnx,
    /// Dell EqualLogic PS.
    Equallogic,
    /// None of ours: the volume was written down by hand, see [`super::export_by_hand`].
    Static,
}

impl Family {
    /// Those that a partition can be of.
    pub const SANS: [Self; 5] = [
        Self::Linux,
        Self::Ontap,
        Self::Unity,
        Self::Vnx,
        Self::Equallogic,
    ];

    /// The word for it in ids and in the config file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Ontap => "ontap",
            Self::Unity => "unity",
            Self::Vnx => "vnx",
            Self::Equallogic => "equallogic",
            Self::Static => STATIC,
        }
    }

    /// The family of SANs that is called `word`.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        Self::SANS
            .into_iter()
            .find(|family| family.as_str() == word)
    }

    fn find_in_id(word: &str) -> Option<Self> {
        Self::find(word).or_else(|| (word == STATIC).then_some(Self::Static))
    }
}

/// The name of a SAN in the config file: 1 to 32 of `A-Z a-z 0-9 -`. Eucalyptus' own first one is `PARTI00`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SanName(String);

/// Why a text is not the name of a SAN or partition.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a name: use 1 to 32 of A-Z, a-z, 0-9 and -, without - at the end")]
pub struct SanNameError(pub String);

impl SanName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SanName {
    type Err = SanNameError;

    fn from_str(text: &str) -> Result<Self, SanNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        // It ends a topology key, and those end with a letter or digit (CSI §"Topology").
        let ends = !text.ends_with('-');
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(allowed) && ends;
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(SanNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for SanName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<SanName> for String {
    fn from(name: SanName) -> Self {
        name.0
    }
}

impl TryFrom<String> for SanName {
    type Error = SanNameError;

    fn try_from(text: String) -> Result<Self, SanNameError> {
        text.parse()
    }
}

/// Whether a SAN may call something so: a Linux SAN by hexadecimal digits, ONTAP by a uuid, Unity as `sv_1`.
pub(super) fn is_key(text: &str) -> bool {
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    !text.is_empty() && text.bytes().all(may_stand)
}

/// A volume's id, `sp1:FAMILY:SAN:KEY:WWID`.
///
/// The WWID is random, so the id fences a recycled key or LUN: a hit with another WWID is not this volume. A text that we did not issue
/// names no volume; it is never "invalid" (CSI: unknown ids are NOT_FOUND, or OK where absence is success).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VolumeId {
    /// The kind of SAN.
    pub family: Family,
    /// The SAN's name in the config file.
    pub san: SanName,
    /// The SAN's own key of the volume.
    pub key: String,
    /// The identity that its LUN must have.
    pub wwid: Wwid,
}

impl VolumeId {
    /// Reads an id that we issued, any version of it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let parts: Vec<&str> = text.split(':').collect();
        let ["sp1", family, san, key, wwid] = parts.as_slice() else {
            return None;
        };
        if !is_key(key) {
            return None;
        }
        Some(Self {
            family: Family::find_in_id(family)?,
            san: san.parse().ok()?,
            key: (*key).to_owned(),
            wwid: wwid.parse().ok()?,
        })
    }
}

impl VolumeId {
    /// Whether somebody wrote it down by hand: then no SAN of ours knows it.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.family == Family::Static
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "sp1:{}:{}:{}:{}",
            self.family.as_str(),
            self.san,
            self.key,
            self.wwid
        )
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for VolumeId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::find(&text).ok_or_else(|| format!("{text:?} is not a volume id of this driver"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str =
        "sp1:linux:cluster-a:0f1e2d3c4b5a69788796a5b4c3d2e1f0:360014050123456789abcdef012345678";

    #[test]
    fn version_1_is_read_for_ever() {
        let id = VolumeId::find(GOLDEN).unwrap();
        assert_eq!(id.san.as_str(), "cluster-a");
        assert_eq!(id.to_string(), GOLDEN);
    }

    /// A key that the id would not take is a volume that nobody could use.
    #[test]
    fn the_keys_of_every_family_come_back() {
        let uuid = "454021de-755d-453b-8000-00000000000f";
        let hex = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        for (family, key) in [
            (Family::Linux, hex),
            (Family::Ontap, uuid),
            (Family::Unity, "sv_3"),
        ] {
            let id = VolumeId {
                family,
                san: "s".repeat(32).parse().unwrap(),
                key: key.to_owned(),
                wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            };
            assert!(id.to_string().len() <= MAX_BYTES);
            assert_eq!(VolumeId::find(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn the_longest_id_fits() {
        let id = VolumeId {
            family: Family::Linux,
            san: "s".repeat(32).parse().unwrap(),
            key: "k".repeat(32),
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
        };
        assert!(id.to_string().len() <= MAX_BYTES);
    }

    #[test]
    fn an_id_never_issued_names_no_volume() {
        for text in [
            "",
            "fake-vol-id",
            "sp1:linux:a:b:c",
            "sp2:linux:a:k:360014050123456789abcdef012345678",
        ] {
            assert_eq!(VolumeId::find(text), None, "{text}");
        }
    }
}
