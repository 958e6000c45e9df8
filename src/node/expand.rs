//! NodeExpandVolume (CSI §NodeExpandVolume): first the map, on all its paths, then the encrypted layer, if there is one, then the file system.
//!
//! Each layer is looked at by itself: one that has its size already is passed over, and the next one is looked at all the same.

use super::device::Device;
use super::encrypted::identity_of;
use super::intent::Intent;
use super::{ExpandCall, Node, NodeError};
use crate::filesystem::{Kind, Mounted, grow};
use crate::luks;
use crate::mount::MountTable;
use crate::volume::{AccessType, Encryption, FileSystemKind};

/// Returns the size that the volume has on this node.
pub fn expand(node: &Node, call: &ExpandCall) -> Result<u64, NodeError> {
    node.refuse_while_unmounting(&call.volume)?;
    let (intent, kind) = find_staged(node, call)?;
    let deadline = node.host.deadline_in(node.limits.deadline);
    let key = call.volume.to_string();
    let resized = node.engine.resize(&key, call.range.required(), deadline)?;
    let size = resized.map.size;
    call.range
        .choose_at_least(size)
        .map_err(NodeError::Capacity)?;
    if !resized.left_out.is_empty() {
        tracing::warn!(
            volume.id = key,
            disks = resized.left_out.join(", "),
            "the volume has grown without its paths that do not run"
        );
    }
    if intent.encryption.is_some() && luks::grow(&node.host, &identity_of(&call.volume))? {
        tracing::info!(volume.id = key, "the encrypted layer fills its map again");
    }
    if let Some(kind) = kind {
        let device = node.device_in_use(&call.volume, &intent)?;
        fill(node, &intent, &device, kind)?;
    }
    Ok(size)
}

/// The notes of a volume that is staged, or published at the path asked for; and its file system, unless it is raw.
fn find_staged(node: &Node, call: &ExpandCall) -> Result<(Intent, Option<Kind>), NodeError> {
    let not_at = || NodeError::NotAt {
        volume: call.volume.clone(),
        path: call.path.clone(),
    };
    let intent = node.find_intent(&call.volume)?;
    let intent = intent.filter(|intent| intent.staged).ok_or_else(not_at)?;
    let kind = match intent.capability.access {
        AccessType::Block => None,
        AccessType::Mount { kind, .. } => Some(kind_of(kind)),
    };
    let device = match intent.encryption {
        None => node.find_device(&call.volume)?,
        Some(Encryption::Luks2) => node.find_layer(&call.volume)?,
    };
    let device = device.ok_or_else(not_at)?;
    let path = node.resolved(&call.path)?;
    let table = MountTable::read(&node.host)?;
    let is_there = match table.find_top(&path) {
        Some(mount) => mount.device == device.numbers || mount.binds_node(&device.name),
        // A raw volume shows nothing at its staging path.
        None => kind.is_none() && path == intent.staging_path,
    };
    if is_there {
        Ok((intent, kind))
    } else {
        Err(not_at())
    }
}

/// The file system that a kind of the caller's means.
pub fn kind_of(kind: FileSystemKind) -> Kind {
    match kind {
        FileSystemKind::Ext4 => Kind::Ext4,
        FileSystemKind::Xfs => Kind::Xfs,
        FileSystemKind::Btrfs => Kind::Btrfs,
    }
}

/// Lets the staged file system fill its device. One that is mounted for reading only stays as it is: growing writes.
pub fn fill(node: &Node, intent: &Intent, device: &Device, kind: Kind) -> Result<(), NodeError> {
    let table = MountTable::read(&node.host)?;
    let staged = table.find_top(&intent.staging_path);
    if staged.is_some_and(|mount| mount.is_read_only()) {
        tracing::info!(volume.id = %intent.volume,
            "the volume is staged for reading only: its file system keeps its size, and grows when it is staged for writing");
        return Ok(());
    }
    let has_grown = grow(
        &node.host,
        &Mounted {
            kind,
            device: &device.path,
            target: &intent.staging_path,
        },
    )?;
    if has_grown {
        tracing::info!(volume.id = %intent.volume, kind = kind.name(), "the file system fills its device again");
    }
    Ok(())
}
