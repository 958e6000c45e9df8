//! What we keep with a LUN, in one of its attributes: a later hand may change its comment, and nothing of ours depends on that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::nouns::{NewSnapshot, NewVolume, Source};
use super::names::{self, Kind};

/// The attribute's name.
pub(super) const ATTRIBUTE: &str = "sanpath";
/// An attribute's name and value have so many bytes together (ONTAP REST, `storage/luns/{uuid}/attributes`).
const MOST: usize = 4092 - ATTRIBUTE.len();
const VERSION: u32 = 1;

/// The attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    version: u32,
    kind: NotedKind,
    /// As the controller calls it.
    pub(super) name: String,
    /// What it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<NotedSource>,
    /// Of a snapshot of a `FlexVol`: how large its LUN was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NotedKind {
    Volume,
    Snapshot,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NotedSource {
    Volume(String),
    Snapshot(String),
}

/// They do not fit.
#[derive(Debug, thiserror::Error)]
#[error("the notes of {name:?} have {bytes} bytes; ONTAP keeps {MOST}")]
pub(super) struct TooLong {
    name: String,
    bytes: usize,
}

impl Notes {
    pub(super) fn of_volume(wanted: &NewVolume) -> Self {
        Self {
            version: VERSION,
            kind: NotedKind::Volume,
            name: wanted.name.clone(),
            source: wanted.source.as_ref().map(|source| match source {
                Source::Volume(key) => NotedSource::Volume(key.clone()),
                Source::Snapshot(key) => NotedSource::Snapshot(key.clone()),
            }),
            size: None,
            metadata: wanted.metadata.clone(),
        }
    }

    pub(super) fn of_snapshot(wanted: &NewSnapshot) -> Self {
        Self {
            version: VERSION,
            kind: NotedKind::Snapshot,
            name: wanted.name.clone(),
            source: Some(NotedSource::Volume(wanted.volume.clone())),
            size: None,
            metadata: wanted.metadata.clone(),
        }
    }

    pub(super) fn write(&self) -> Result<String, TooLong> {
        // A map of texts has no form that JSON could not have.
        let text = serde_json::to_string(self).unwrap_or_default();
        if text.is_empty() || text.len() > MOST {
            return Err(TooLong {
                name: self.name.clone(),
                bytes: text.len(),
            });
        }
        Ok(text)
    }

    /// The notes of the LUN whose path ends with `lun`. What a copy got from its source is not its own: the name is another.
    pub(super) fn find(text: &str, lun: &str) -> Option<Self> {
        let notes: Self = serde_json::from_str(text).ok()?;
        (notes.version == VERSION && names::lun(notes.kind(), &notes.name) == lun).then_some(notes)
    }

    /// The notes of a snapshot of a `FlexVol`.
    pub(super) fn find_cut(text: &str) -> Option<Self> {
        let notes: Self = serde_json::from_str(text).ok()?;
        (notes.version == VERSION && notes.kind() == Kind::Snapshot).then_some(notes)
    }

    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            NotedKind::Volume => Kind::Volume,
            NotedKind::Snapshot => Kind::Snapshot,
        }
    }

    pub(super) fn source(&self) -> Option<Source> {
        self.source.as_ref().map(|source| match source {
            NotedSource::Volume(key) => Source::Volume(key.clone()),
            NotedSource::Snapshot(key) => Source::Snapshot(key.clone()),
        })
    }

    /// The key of the volume that was cut.
    pub(super) fn cut(&self) -> Option<String> {
        match &self.source {
            Some(NotedSource::Volume(key)) if self.kind == NotedKind::Snapshot => Some(key.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_read_for_ever() {
        let golden = r#"{"version":1,"kind":"snapshot","name":"s","source":{"volume":"k"},"metadata":{"csi/name":"s"}}"#;
        let notes = Notes::find(golden, "sanpath-s-s").unwrap();
        assert_eq!(notes.write().unwrap(), golden);
        assert_eq!(notes.cut().as_deref(), Some("k"));
        let plain = r#"{"version":1,"kind":"volume","name":"v"}"#;
        let notes = Notes::find(plain, "sanpath-v-v").unwrap();
        assert_eq!((notes.source(), notes.cut()), (None, None));
        assert_eq!(notes.write().unwrap(), plain);
        // Of another LUN, another version, and no notes.
        for (text, lun) in [(plain, "sanpath-v-w"), ("{}", "sanpath-v-v")] {
            assert_eq!(Notes::find(text, lun), None);
        }
        let of_flexvol = golden.replace(r#","metadata""#, r#","size":8,"metadata""#);
        let notes = Notes::find_cut(&of_flexvol).unwrap();
        assert_eq!(notes.write().unwrap(), of_flexvol);
        assert_eq!(notes.size, Some(8));
        assert_eq!(Notes::find_cut(plain), None);
        let later = plain.replace(":1", ":2");
        assert_eq!(Notes::find(&later, "sanpath-v-v"), None);
    }

    #[test]
    fn what_does_not_fit_is_told_before_anything_is_sent() {
        let notes = Notes {
            version: VERSION,
            kind: NotedKind::Volume,
            name: "v".to_owned(),
            source: None,
            size: None,
            metadata: [("a".to_owned(), "x".repeat(MOST))].into(),
        };
        assert!(
            notes
                .write()
                .unwrap_err()
                .to_string()
                .contains("ONTAP keeps 4085")
        );
    }
}
