//! Giving unused space back to the SAN, volume by volume, when the operator wants it (`--trim-every`).

use super::health::{self, Condition};
use super::intent::Intent;
use super::{Node, NodeError};
use crate::filesystem::trim as trim_file_system;
use crate::volume::{AccessType, VolumeId};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// So many bytes were named to the SAN as unused; `None` when the tool did not say.
    Bytes(Option<u64>),
    /// It was left alone, and why: raw, not staged, for reading only, not all paths, not well.
    Skipped(&'static str),
}

/// A discard is a burst of writes: it waits for better times while paths are missing or the file system is not well.
pub fn trim(node: &Node, volume: &VolumeId) -> Result<Trimmed, NodeError> {
    node.refuse_while_unmounting(volume)?;
    let Some(intent) = node.find_intent(volume)?.filter(|intent| intent.staged) else {
        return Ok(Trimmed::Skipped("not staged"));
    };
    if intent.capability.access == AccessType::Block {
        return Ok(Trimmed::Skipped("raw"));
    }
    if node.find_device(volume)?.is_none() {
        return Ok(Trimmed::Skipped("without a map"));
    }
    let device = node.device_in_use(volume, &intent)?;
    let record = node.engine.find_record(&volume.to_string())?;
    let wanted = record.map_or(1, |record| node.engine.desired(&record).expected());
    let standing = node.engine.find_standing(&volume.wwid)?;
    if standing.is_none_or(|standing| standing.reach.active < wanted) {
        return Ok(Trimmed::Skipped("paths are missing"));
    }
    if health::condition(node, &intent, &device)? != Condition::Good {
        return Ok(Trimmed::Skipped("its file system is read-only or not well"));
    }
    let bytes = trim_file_system(&node.host, &intent.staging_path)?;
    Ok(Trimmed::Bytes(bytes))
}

/// The volumes that are staged with a file system.
pub fn candidates(node: &Node) -> Result<Vec<VolumeId>, NodeError> {
    let boot_id = node.boot_id()?;
    let mut volumes = Vec::new();
    for record in node.engine.list_records()? {
        let Some(volume) = VolumeId::find(&record.key) else {
            continue;
        };
        // Of another version: the volume is left alone.
        let Ok(intent) = Intent::from_value(&volume, &record.payload) else {
            continue;
        };
        let here = !record.leaving && record.boot_id == boot_id && intent.staged;
        if here && intent.capability.access != AccessType::Block {
            volumes.push(volume);
        }
    }
    Ok(volumes)
}
