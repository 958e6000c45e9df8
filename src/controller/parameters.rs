//! StorageClass parameters: which there are, and what they choose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ControllerError;
use crate::fabric::NoPathRetry;
use crate::volume::{
    ENCRYPTION, Encryption, FileSystemKind, MKFS_OPTIONS, MkfsOptions, NO_PATH_RETRY, Setting,
};

/// Chooses the partition, and with it the SAN.
pub(super) const PARTITION: &str = "partition";

/// Those of a StorageClass, for the reference.
pub const PARAMETERS: [Setting; 4] = [
    Setting::new(
        PARTITION,
        "by the topology; without one, the only partition that there is",
        "The partition whose SAN has the volume.",
    ),
    Setting::new(
        MKFS_OPTIONS,
        "none",
        "More options for the mkfs of the volume's file system (docs/filesystems.md).",
    ),
    Setting::new(
        ENCRYPTION,
        "none",
        "`luks2`: the node encrypts the volume (docs/encryption.md).",
    ),
    Setting::new(
        NO_PATH_RETRY,
        "multipath's own setting",
        "How long I/O waits while no path works: `fail`, `queue`, or so many looks of multipathd, 1 to 1000000 (docs/recovery.md).",
    )
    .counting("looks"),
];

/// Those of a VolumeSnapshotClass and of a VolumeGroupSnapshotClass.
pub const SNAPSHOT_PARAMETERS: [Setting; 2] = [
    Setting::new(
        ARCHIVE,
        "none",
        "The archive of the config file that the snapshot is carried to (docs/archiver.md). Not of a group.",
    ),
    Setting::new(
        RETAIN,
        "true",
        "Whether the SAN keeps its cut once the archive has the snapshot: `true` or `false`.",
    ),
];

/// Of a snapshot: the archive that it goes to.
const ARCHIVE: &str = "archive";
/// Of one that goes to an archive: whether the SAN keeps its cut.
const RETAIN: &str = "retainOnSan";

/// Kubernetes adds keys of its own under this prefix (`--extra-create-metadata`).
pub(super) const FOREIGN: &str = "csi.storage.k8s.io/";

/// The parameters of a call, each known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    partition: Option<String>,
    kept: Kept,
}

/// What a volume was made with, as it is kept on the SAN: JSON, and `{}` without any. What was once written stays readable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// Normal form, see [`MkfsOptions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mkfs_options: Option<String>,
    /// The word of an [`Encryption`]. A text, so that a word of a later version is handed on and refused by the node, and never lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<String>,
    /// The word of a [`NoPathRetry`]; a text for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) no_path_retry: Option<String>,
}

impl Kept {
    /// Reads what is noted on the SAN. A note that is not ours to read says nothing.
    pub(super) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Parameters {
    /// Reads the map; a key that nobody knows is refused, for it was meant to have an effect.
    pub(super) fn parse(map: &BTreeMap<String, String>) -> Result<Self, ControllerError> {
        let mut parameters = Self::default();
        for (key, value) in map {
            match key.as_str() {
                PARTITION => parameters.partition = Some(value.clone()),
                MKFS_OPTIONS => parameters.kept.mkfs_options = normal(value),
                ENCRYPTION => {
                    let kind: Encryption = value.parse().map_err(ControllerError::Encryption)?;
                    parameters.kept.encryption = Some(kind.as_str().to_owned());
                }
                NO_PATH_RETRY => {
                    let retry: NoPathRetry = value.parse().map_err(ControllerError::NoPathRetry)?;
                    parameters.kept.no_path_retry = Some(retry.to_string());
                }
                key if key.starts_with(FOREIGN) => {}
                key => return Err(ControllerError::UnknownParameter(key.to_owned())),
            }
        }
        Ok(parameters)
    }

    /// The name of the partition, if one is given.
    pub(super) fn partition(&self) -> Option<&str> {
        self.partition.as_deref()
    }

    /// What else the volume was made with, in the form that is kept on the SAN. The partition is not among it: it is the SAN.
    pub(super) fn kept(&self) -> String {
        serde_json::to_string(&self.kept).expect("a struct of texts is JSON")
    }

    /// Whether a volume that was made with `kept` was made with these.
    pub(super) fn made(&self, kept: &Kept) -> bool {
        self.kept == *kept
    }

    /// Whether the volume is to be encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.kept.encryption.is_some()
    }

    /// Refuses options that do not fit the file systems that the volume is for.
    pub(super) fn check_for(&self, kinds: &[FileSystemKind]) -> Result<(), ControllerError> {
        let Some(text) = &self.kept.mkfs_options else {
            return Ok(());
        };
        for kind in kinds {
            MkfsOptions::parse(*kind, text).map_err(ControllerError::MkfsOptions)?;
        }
        Ok(())
    }
}

/// That a snapshot goes to an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchiveChoice {
    /// Which.
    pub(super) archive: String,
    /// Whether the SAN keeps its cut.
    pub(super) is_retained: bool,
}

/// Reads the parameters of a snapshot; a key that nobody knows is refused, for it was meant to have an effect.
pub(super) fn archive_choice(
    map: &BTreeMap<String, String>,
) -> Result<Option<ArchiveChoice>, ControllerError> {
    let (mut archive, mut retained) = (None, None);
    for (key, value) in map {
        match key.as_str() {
            ARCHIVE => archive = Some(value.clone()),
            RETAIN => {
                let word: Result<bool, _> = value.parse();
                let word = word.map_err(|_| ControllerError::Retain(value.clone()))?;
                retained = Some(word);
            }
            key if key.starts_with(FOREIGN) => {}
            key => return Err(ControllerError::SnapshotParameter(key.to_owned())),
        }
    }
    match (archive, retained) {
        (None, Some(_)) => Err(ControllerError::RetainWhat),
        (archive, retained) => Ok(archive.map(|archive| ArchiveChoice {
            archive,
            is_retained: retained.unwrap_or(true),
        })),
    }
}

/// Refuses parameters of a group of snapshots: there are none, and one that is given was meant to have an effect.
pub(super) fn check_for_snapshot(map: &BTreeMap<String, String>) -> Result<(), ControllerError> {
    match map.keys().find(|key| !key.starts_with(FOREIGN)) {
        Some(key) => Err(ControllerError::SnapshotParameter(key.clone())),
        None => Ok(()),
    }
}

/// With one blank between words; `None` without words.
fn normal(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told is read, and what is read is told.
    #[test]
    fn the_reference_has_each_parameter() {
        for (setting, value) in PARAMETERS.iter().zip(["a", "-i 8192", "luks2", "24"]) {
            let map = [(setting.name.to_owned(), value.to_owned())].into();
            let parsed = Parameters::parse(&map).unwrap();
            assert_ne!(parsed, Parameters::default(), "{}", setting.name);
        }
        let refused = Parameters::parse(&[("x".to_owned(), String::new())].into());
        let told = refused.unwrap_err().to_string();
        let known = PARAMETERS.map(|it| it.name).join(", ");
        assert!(told.ends_with(&format!("it knows: {known}")), "{told}");
    }
}
