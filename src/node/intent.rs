//! What the node keeps in the ledger's record of an attachment: what later calls are not told.
//!
//! Written before the side effect that it speaks of. Versioned; what was once written stays readable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Node, NodeError, StageCall};
use crate::fabric::Wwid;
use crate::luks::Identity;
use crate::volume::{AccessType, Capability, Encryption, VolumeId};

const VERSION: u64 = 1;

/// How far the making of a file system, or of a LUKS header, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Formatting {
    /// Not begun by us.
    #[default]
    No,
    /// Begun on a device that was blank. While this stands, nothing on it was ever mounted, so it may be begun again.
    Begun,
    /// Written out.
    Done,
}

impl Formatting {
    // Its form is serde's.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_no(&self) -> bool {
        *self == Self::No
    }
}

/// How a target shows the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetMode {
    /// Reading only.
    ReadOnly,
    /// As the volume is staged.
    ReadWrite,
}

impl TargetMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "for reading and writing",
        }
    }
}

/// The node's part of a record. An unknown field is refused, as in the record itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    version: u64,
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is to be staged, without links on the way.
    pub staging_path: PathBuf,
    /// For what.
    pub capability: Capability,
    /// See there.
    #[serde(default)]
    pub formatting: Formatting,
    /// How it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Whose LUKS header it bears, where that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Wwid>,
    /// How far the making of its LUKS header has come; [`Formatting::No`] again once it is staged, since from then on there may be data inside.
    #[serde(default, skip_serializing_if = "Formatting::is_no")]
    pub sealing: Formatting,
    /// Staging has come to its end once.
    #[serde(default)]
    pub staged: bool,
    /// The targets that were begun and not removed.
    #[serde(default)]
    pub targets: BTreeMap<PathBuf, TargetMode>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Intent {
    /// The intent of `call`, which goes on from what an earlier one left.
    pub fn of(call: &StageCall, staging_path: &Path, before: Option<Self>) -> Self {
        let made = |intent: Self| {
            let making = (intent.formatting, intent.sealing);
            (making, intent.staged, intent.targets)
        };
        let ((formatting, sealing), staged, targets) = before.map(made).unwrap_or_default();
        Self {
            version: VERSION,
            volume: call.volume.clone(),
            staging_path: staging_path.to_owned(),
            capability: call.capability.clone(),
            formatting,
            encryption: call.encryption.as_ref().map(|_| Encryption::Luks2),
            header: call.header.clone(),
            sealing,
            staged,
            targets,
        }
    }

    /// Who the volume is to LUKS.
    pub fn identity(&self) -> Identity {
        let wwid = self.volume.wwid.as_str();
        match &self.header {
            None => Identity::of(wwid),
            Some(header) => Identity::of_copy(wwid, header.as_str()),
        }
    }

    /// Whether something on the volume was begun and is not ready for use. Then nobody but this record can tell that it holds no data.
    pub fn is_unfinished(&self) -> bool {
        let awaits_file_system = self.sealing == Formatting::Done
            && self.formatting == Formatting::No
            && self.capability.access != AccessType::Block;
        self.formatting == Formatting::Begun
            || self.sealing == Formatting::Begun
            || awaits_file_system
    }

    /// Reads what an earlier call wrote.
    pub fn from_value(volume: &VolumeId, value: &Value) -> Result<Self, NodeError> {
        let unread = |source| NodeError::Intent {
            volume: volume.clone(),
            source,
        };
        let Versioned { version } = Versioned::deserialize(value).map_err(unread)?;
        if version == VERSION {
            Self::deserialize(value).map_err(unread)
        } else {
            let volume = volume.clone();
            Err(NodeError::IntentVersion { volume, version })
        }
    }

    /// The form in the ledger.
    pub fn to_value(&self) -> Result<Value, NodeError> {
        serde_json::to_value(self).map_err(|source| NodeError::Intent {
            volume: self.volume.clone(),
            source,
        })
    }
}

impl Node {
    /// What earlier calls left of `volume`. After a reboot, or once its leaving has begun, nothing of it is staged or published, whatever the
    /// notes say; but a mkfs that was interrupted stays interrupted.
    pub(super) fn find_intent(&self, volume: &VolumeId) -> Result<Option<Intent>, NodeError> {
        let Some(record) = self.engine.find_record(&volume.to_string())? else {
            return Ok(None);
        };
        let mut intent = Intent::from_value(volume, &record.payload)?;
        if record.leaving || record.boot_id != self.boot_id()? {
            intent.staged = false;
            intent.targets.clear();
        }
        Ok(Some(intent))
    }

    pub(super) fn boot_id(&self) -> Result<String, NodeError> {
        self.host.boot_id().map_err(NodeError::Boot)
    }

    /// Makes `intent` durable.
    pub(super) fn keep(&self, intent: &Intent) -> Result<(), NodeError> {
        let value = intent.to_value()?;
        self.engine
            .update_payload(&intent.volume.to_string(), value)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> Value {
        serde_json::json!({
            "version": 1,
            "volume": "sp1:linux:cluster-a:0f1e2d3c:360014050123456789abcdef012345678",
            "stagingPath": "/staging/1",
            "capability": {
                "access": {"mount": {"kind": "xfs", "flags": ["noatime"]}},
                "mode": "singleNodeWriter"
            },
            "formatting": "begun",
            "staged": true,
            "targets": {"/pods/1": "readOnly"}
        })
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let id = golden()["volume"].as_str().map(str::to_owned).unwrap();
        let volume = VolumeId::find(&id).unwrap();
        let intent = Intent::from_value(&volume, &golden()).unwrap();
        assert_eq!(intent.formatting, Formatting::Begun);
        assert_eq!(intent.targets[Path::new("/pods/1")], TargetMode::ReadOnly);
        assert_eq!(intent.to_value().unwrap(), golden());
        let mut newer = golden();
        newer["version"] = 2.into();
        let refused = Intent::from_value(&volume, &newer).unwrap_err();
        assert!(refused.to_string().contains("version 2"), "{refused}");
        assert_eq!((intent.encryption, intent.sealing), (None, Formatting::No));
        let mut sealed = golden();
        sealed["encryption"] = "luks2".into();
        sealed["sealing"] = "done".into();
        let intent = Intent::from_value(&volume, &sealed).unwrap();
        assert_eq!(intent.encryption, Some(Encryption::Luks2));
        assert_eq!(intent.sealing, Formatting::Done);
        assert_eq!(intent.to_value().unwrap(), sealed);
        assert_eq!(intent.identity(), Identity::of(volume.wwid.as_str()));
        sealed["header"] = "36001405aaaaaaaaaaaaaaaaaaaaaaaaa".into();
        let intent = Intent::from_value(&volume, &sealed).unwrap();
        assert!(intent.identity().uuid().starts_with("6001405a-aaaa"));
        assert_eq!(intent.identity().name(), format!("sanpath-{}", volume.wwid));
        assert_eq!(intent.to_value().unwrap(), sealed);
        newer["version"] = Value::Null;
        assert!(Intent::from_value(&volume, &newer).is_err());
    }

    proptest! {
        #[test]
        fn every_intent_is_read_as_it_was_written(
            staging in "/[^\0]{0,40}",
            staged in any::<bool>(),
            formatting in prop::sample::select(vec![Formatting::No, Formatting::Begun, Formatting::Done]),
            targets in proptest::collection::btree_map("/[^\0]{0,40}", any::<bool>(), 0..4),
        ) {
            let id = golden()["volume"].as_str().map(str::to_owned).unwrap();
            let volume = VolumeId::find(&id).unwrap();
            let modes = |writable| if writable { TargetMode::ReadWrite } else { TargetMode::ReadOnly };
            let targets = targets.into_iter().map(|(path, writable)| (PathBuf::from(path), modes(writable)));
            let written = Intent {
                staging_path: staging.into(),
                staged,
                formatting,
                targets: targets.collect(),
                ..Intent::from_value(&volume, &golden()).unwrap()
            };
            let value = written.to_value().unwrap();
            prop_assert_eq!(Intent::from_value(&volume, &value).unwrap(), written);
        }

        #[test]
        fn a_spoilt_intent_is_read_or_refused(field in 0..7_usize, word in ".{0,20}", number in any::<i64>()) {
            let id = golden()["volume"].as_str().map(str::to_owned).unwrap();
            let volume = VolumeId::find(&id).unwrap();
            let keys: Vec<String> = golden().as_object().unwrap().keys().cloned().collect();
            for value in [Value::from(word), Value::from(number), Value::Null] {
                let mut spoilt = golden();
                spoilt[&keys[field]] = value;
                let _ = Intent::from_value(&volume, &spoilt);
            }
            let mut unknown = golden();
            unknown["sealed"] = true.into();
            prop_assert!(Intent::from_value(&volume, &unknown).is_err());
        }
    }
}
