//! The requests of the Node service, read into the calls that `node/` understands.

use std::collections::HashMap;
use std::path::PathBuf;

use super::parse::{
    ParseError, absolute_path, accepted_capability, bounded_map, known_volume, required,
};
use super::proto;
use crate::fabric::{Export, NoPathRetry, Wwid};
use crate::node::{ExpandCall, PublishCall, StageCall, StatsCall, UnpublishCall, UnstageCall};
use crate::volume::{
    AccessType, Capability, ContextError, ENCRYPTION, ENCRYPTION_HEADER, Encryption, MKFS_OPTIONS,
    MkfsOptions, NO_PATH_RETRY, Passphrase, Passphrases, PublishContext, SizeRange, VolumeId,
    export_by_hand,
};

/// What opens an encrypted volume.
const PASSPHRASE: &str = "passphrase";
/// What opened it so far, while the passphrase is being changed.
const PASSPHRASE_OLD: &str = "passphrase-old";

/// NodeStageVolume.
///
/// # Errors
/// See [`ParseError`].
pub fn stage(request: &proto::NodeStageVolumeRequest) -> Result<StageCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let path = required("staging_target_path", &request.staging_target_path)?;
    let capability = accepted_capability(request.volume_capability.as_ref())?;
    let staging_path = absolute_path("staging_target_path", path)?;
    bounded_map("publish_context", &request.publish_context)?;
    bounded_map("volume_context", &request.volume_context)?;
    bounded_map("secrets", &request.secrets)?;
    let volume = known_volume(id)?;
    let export = if volume.is_by_hand() && request.publish_context.is_empty() {
        export_by_hand(&volume, &request.volume_context).map_err(ParseError::ByHand)?
    } else {
        own_export(&volume, &request.publish_context)?
    };
    Ok(StageCall {
        mkfs: mkfs_options(&capability, &request.volume_context)?,
        encryption: encryption(&request.volume_context, &request.secrets)?,
        header: header(&request.volume_context)?,
        no_path_retry: no_path_retry(&request.volume_context)?,
        volume,
        staging_path,
        capability,
        export,
    })
}

/// What CreateVolume was told, or whoever wrote the volume down by hand.
fn mkfs_options(
    capability: &Capability,
    context: &HashMap<String, String>,
) -> Result<MkfsOptions, ParseError> {
    match (&capability.access, context.get(MKFS_OPTIONS)) {
        (AccessType::Mount { kind, .. }, Some(text)) => {
            MkfsOptions::parse(*kind, text).map_err(ParseError::MkfsOptions)
        }
        _ => Ok(MkfsOptions::default()),
    }
}

/// What opens the volume, if its context says that it is encrypted. Secrets of a volume in the clear are nobody's business.
fn encryption(
    context: &HashMap<String, String>,
    secrets: &HashMap<String, String>,
) -> Result<Option<Passphrases>, ParseError> {
    let Some(word) = context.get(ENCRYPTION) else {
        return Ok(None);
    };
    let Encryption::Luks2 = word.parse().map_err(ParseError::Encryption)?;
    let find = |key| match secrets.get(key) {
        None => Ok(None),
        Some(text) => Passphrase::parse(text)
            .map(Some)
            .map_err(|source| ParseError::Passphrase { key, source }),
    };
    let current = find(PASSPHRASE)?.ok_or(ParseError::NoPassphrase)?;
    Ok(Some(Passphrases::new(current, find(PASSPHRASE_OLD)?)))
}

/// Whose LUKS header a copy bears.
fn header(context: &HashMap<String, String>) -> Result<Option<Wwid>, ParseError> {
    let Some(text) = context.get(ENCRYPTION_HEADER) else {
        return Ok(None);
    };
    if !context.contains_key(ENCRYPTION) {
        return Err(ParseError::HeaderInTheClear);
    }
    let wwid = text.parse().map_err(ParseError::EncryptionHeader)?;
    Ok(Some(wwid))
}

fn no_path_retry(context: &HashMap<String, String>) -> Result<Option<NoPathRetry>, ParseError> {
    let word = context.get(NO_PATH_RETRY);
    word.map(|word| word.parse().map_err(ParseError::NoPathRetry))
        .transpose()
}

/// The export in a publish context, which must be of `volume` itself.
fn own_export(volume: &VolumeId, context: &HashMap<String, String>) -> Result<Export, ParseError> {
    if context.is_empty() {
        return Err(ParseError::Missing("publish_context"));
    }
    let PublishContext(export) = PublishContext::from_map(context).map_err(ParseError::Context)?;
    if export.wwid == volume.wwid {
        Ok(export)
    } else {
        let source = format!(
            "it says {}, but volume_id says {}",
            export.wwid, volume.wwid
        );
        Err(ParseError::Context(ContextError::Value {
            key: "wwid",
            source: source.into(),
        }))
    }
}

/// NodeUnstageVolume.
///
/// # Errors
/// See [`ParseError`].
pub fn unstage(request: &proto::NodeUnstageVolumeRequest) -> Result<UnstageCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let path = required("staging_target_path", &request.staging_target_path)?;
    let staging_path = absolute_path("staging_target_path", path)?;
    Ok(UnstageCall {
        volume: known_volume(id)?,
        staging_path,
    })
}

/// NodePublishVolume.
///
/// # Errors
/// See [`ParseError`].
pub fn publish(request: &proto::NodePublishVolumeRequest) -> Result<PublishCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let target = required("target_path", &request.target_path)?;
    let capability = accepted_capability(request.volume_capability.as_ref())?;
    let target_path = absolute_path("target_path", target)?;
    bounded_map("publish_context", &request.publish_context)?;
    bounded_map("volume_context", &request.volume_context)?;
    bounded_map("secrets", &request.secrets)?;
    let volume = known_volume(id)?;
    let staging = match request.staging_target_path.as_str() {
        "" => return Err(ParseError::NotStaged),
        path => path,
    };
    Ok(PublishCall {
        volume,
        staging_path: absolute_path("staging_target_path", staging)?,
        target_path,
        capability,
        read_only: request.readonly,
    })
}

/// NodeUnpublishVolume.
///
/// # Errors
/// See [`ParseError`].
pub fn unpublish(request: &proto::NodeUnpublishVolumeRequest) -> Result<UnpublishCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let target = required("target_path", &request.target_path)?;
    let target_path = absolute_path("target_path", target)?;
    Ok(UnpublishCall {
        volume: known_volume(id)?,
        target_path,
    })
}

/// NodeGetVolumeStats.
///
/// # Errors
/// See [`ParseError`].
pub fn stats(request: &proto::NodeGetVolumeStatsRequest) -> Result<StatsCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let path = required("volume_path", &request.volume_path)?;
    let volume = known_volume(id)?;
    let path = place_of(&volume, path)?;
    Ok(StatsCall { volume, path })
}

/// NodeGetVolumeHealth. Where the caller tried to use the volume makes no difference to how it stands.
///
/// # Errors
/// See [`ParseError`].
pub fn health(request: &proto::NodeGetVolumeHealthRequest) -> Result<VolumeId, ParseError> {
    known_volume(required("volume_id", &request.volume_id)?)
}

/// NodeGetStorageHealth.
///
/// # Errors
/// See [`ParseError`].
pub fn storage_health(request: &proto::NodeGetStorageHealthRequest) -> Result<(), ParseError> {
    bounded_map("secrets", &request.secrets)
}

/// A path that cannot be one of ours is a place where the volume is not.
fn place_of(volume: &VolumeId, path: &str) -> Result<PathBuf, ParseError> {
    absolute_path("volume_path", path).map_err(|error| match error {
        ParseError::Path { path, .. } => ParseError::NotAt {
            volume: volume.clone(),
            path,
        },
        error => error,
    })
}

/// NodeExpandVolume.
///
/// # Errors
/// See [`ParseError`].
pub fn expand(request: &proto::NodeExpandVolumeRequest) -> Result<ExpandCall, ParseError> {
    let id = required("volume_id", &request.volume_id)?;
    let path = required("volume_path", &request.volume_path)?;
    if request.volume_capability.is_some() {
        accepted_capability(request.volume_capability.as_ref())?;
    }
    bounded_map("secrets", &request.secrets)?;
    let range = match &request.capacity_range {
        None => SizeRange::default(),
        Some(range) => SizeRange::new(range.required_bytes, range.limit_bytes)
            .map_err(ParseError::CapacityRange)?,
    };
    let volume = known_volume(id)?;
    let path = place_of(&volume, path)?;
    Ok(ExpandCall {
        volume,
        path,
        range,
    })
}
