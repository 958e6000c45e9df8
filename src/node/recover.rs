//! Mounting a file system anew that did not survive an outage, at all its places, without the orchestrator.
//!
//! Never in place: a journal that was given up (ext4) and a file system that has shut down (xfs) cannot be made writable by a remount, and nobody may
//! write to what was not checked. So it is unmounted everywhere, checked, and mounted and bound again as the ledger says. Each step looks first; after
//! a crash the command is given again, or the orchestrator's own calls find what they expect.

use std::path::{Path, PathBuf};

use super::device::Device;
use super::health::{self, Condition};
use super::intent::{Intent, TargetMode};
use super::stage::mount_again;
use super::unmount::{Before, users_text};
use super::{Node, NodeError};
use crate::mount::{Bind, MountTable, ensure_bound};
use crate::volume::{AccessType, VolumeId};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing was wrong.
    Already,
    /// It is mounted anew, at these places.
    MountedAt(Vec<PathBuf>),
}

pub fn recover(node: &Node, volume: &VolumeId) -> Result<Recovered, NodeError> {
    let mut intent = find_staged(node, volume)?;
    node.refuse_while_unmounting(volume)?;
    let device = node.device(volume)?;
    refuse_without_paths(node, volume)?;
    node.engine.verify(&volume.to_string())?;
    let places: Vec<PathBuf> = [intent.staging_path.clone()]
        .into_iter()
        .chain(intent.targets.keys().cloned())
        .collect();
    match health::condition(node, &intent, &device)? {
        Condition::Silent => {
            return Err(not_now(
                volume,
                "it gives no answer although a path works; wait, then repeat",
            ));
        }
        condition if condition.is_sick() => take_down(node, volume, &device, &places)?,
        _ if is_everywhere(node, &device, &places)? => return Ok(Recovered::Already),
        _ => {}
    }
    put_up(node, &mut intent)?;
    tracing::warn!(volume.id = %volume, places = ?places, "the file system was mounted anew");
    Ok(Recovered::MountedAt(places))
}

fn find_staged(node: &Node, volume: &VolumeId) -> Result<Intent, NodeError> {
    let intent = node.find_intent(volume)?;
    let intent = intent.ok_or_else(|| NodeError::NotHere(volume.to_string()))?;
    if !intent.staged {
        return Err(not_now(
            volume,
            "it is not staged here (or was, before a reboot); its next stage checks and mounts it",
        ));
    }
    if intent.capability.access == AccessType::Block {
        return Err(not_now(
            volume,
            "it is a raw volume and has no file system of ours; its paths come back by themselves",
        ));
    }
    if intent.encryption.is_some() {
        return Err(not_now(
            volume,
            "it is encrypted, and its passphrase comes with a stage alone; delete its pods on this node, and the next stage checks and mounts it",
        ));
    }
    Ok(intent)
}

fn refuse_without_paths(node: &Node, volume: &VolumeId) -> Result<(), NodeError> {
    match node.engine.wait_for_standing(&volume.wwid)? {
        Some(standing) if !standing.reach.is_dead() => Ok(()),
        _ => Err(not_now(
            volume,
            "no path works; bring one back first (`sanpath node volumes` shows them), then repeat",
        )),
    }
}

/// Unmounts all places, if nobody uses them. Whoever does would go on with the dead file system, or keep it alive beside the new one.
fn take_down(
    node: &Node,
    volume: &VolumeId,
    device: &Device,
    places: &[PathBuf],
) -> Result<(), NodeError> {
    let own: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    if let Some(other) = node.places_besides(device, &own)?.into_iter().next() {
        return Err(NodeError::InUse {
            volume: volume.clone(),
            places: other.target.display().to_string(),
        });
    }
    let users = node.engine.processes_on(&volume.wwid, places)?;
    if !users.is_empty() {
        return Err(not_now(
            volume,
            &format!(
                "it is in use by {}; end them and repeat (a pod's restarted container then sees the recovered file system), or delete the pods: the next stage recovers it too",
                users_text(&users)
            ),
        ));
    }
    for place in places.iter().rev() {
        node.end_freeze(volume, place)?;
        node.remove_own_mount(volume, place, Before::Nothing)?;
    }
    Ok(())
}

fn is_everywhere(node: &Node, device: &Device, places: &[PathBuf]) -> Result<bool, NodeError> {
    let mounts = node.places_of(device)?;
    let is_there = |place: &PathBuf| mounts.iter().any(|mount| mount.target == *place);
    Ok(places.iter().all(is_there))
}

fn put_up(node: &Node, intent: &mut Intent) -> Result<(), NodeError> {
    let key = intent.volume.to_string();
    let record = node.engine.find_record(&key)?;
    let record = record.ok_or(NodeError::NotHere(key))?;
    mount_again(node, intent, &record.export)?;
    let device = node.device(&intent.volume)?;
    // A target is bound to what the staging path shows; were that nothing, a pod would see the host's directory.
    let table = MountTable::read(&node.host)?;
    let staged = table.find_top(&intent.staging_path);
    if staged.is_none_or(|mount| mount.device != device.numbers) {
        return Err(NodeError::NotStaged {
            volume: intent.volume.clone(),
            staging_path: intent.staging_path.clone(),
        });
    }
    for (target, mode) in &intent.targets {
        ensure_bound(
            &node.host,
            &Bind {
                source: &intent.staging_path,
                target,
                read_only: *mode == TargetMode::ReadOnly,
                is_source: &|mount| mount.device == device.numbers,
            },
        )?;
    }
    Ok(())
}

fn not_now(volume: &VolumeId, why: &str) -> NodeError {
    NodeError::NotNow {
        volume: volume.clone(),
        why: why.to_owned(),
    }
}
