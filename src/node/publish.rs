//! NodePublishVolume (CSI §NodePublishVolume).

use std::io;
use std::path::PathBuf;

use super::device::{Device, beside};
use super::intent::{Intent, TargetMode};
use super::{Node, NodeError, PublishCall};
use crate::fault::{Fault, Faulted};
use crate::host::FileKind;
use crate::mount::{Bind, Mount, MountTable, ensure_bound};
use crate::volume::{AccessMode, AccessType, FileSystemKind};

/// A publish call with all that follows from it and the ledger.
struct Publishing<'c> {
    call: &'c PublishCall,
    /// Without links on the way.
    target: PathBuf,
    mode: TargetMode,
    device: Device,
    /// What is bound: the staged file system or the device node.
    source: PathBuf,
    is_block: bool,
}

pub fn publish(node: &Node, call: &PublishCall) -> Result<(), NodeError> {
    node.refuse_while_unmounting(&call.volume)?;
    let mut intent = find_staged(node, call)?;
    refuse_other_access(&intent, call)?;
    node.engine.verify(&call.volume.to_string())?;
    let publishing = Publishing::of(node, call, &intent)?;
    refuse_other_use(node, &publishing, &intent)?;
    refuse_second_target(node, &publishing, &intent)?;
    ensure_place(node, &publishing)?;
    show(node, &publishing, &mut intent).map_err(|error| match error.fault() {
        Fault::Busy | Fault::MaybeDone | Fault::Timeout => error,
        _ => beside(error, node.remove_target(&call.volume, &publishing.target)),
    })
}

fn find_staged(node: &Node, call: &PublishCall) -> Result<Intent, NodeError> {
    let staging_path = node.resolved(&call.staging_path)?;
    let intent = node.find_intent(&call.volume)?;
    intent
        .filter(|intent| intent.staged && intent.staging_path == staging_path)
        .ok_or_else(|| NodeError::NotStaged {
            volume: call.volume.clone(),
            staging_path,
        })
}

fn refuse_other_access(intent: &Intent, call: &PublishCall) -> Result<(), NodeError> {
    let word = |access: &AccessType| match access {
        AccessType::Block => "as a block device",
        AccessType::Mount { kind, .. } => match kind {
            FileSystemKind::Ext4 => "as ext4",
            FileSystemKind::Xfs => "as xfs",
            FileSystemKind::Btrfs => "as btrfs",
        },
    };
    let staged = word(&intent.capability.access);
    let asked = word(&call.capability.access);
    if staged == asked {
        return Ok(());
    }
    Err(NodeError::OtherAccess {
        volume: call.volume.clone(),
        staged,
        asked,
    })
}

impl<'c> Publishing<'c> {
    fn of(node: &Node, call: &'c PublishCall, intent: &Intent) -> Result<Self, NodeError> {
        let is_block = call.capability.access == AccessType::Block;
        let device = node.device_in_use(&call.volume, intent)?;
        let source = if is_block {
            device.path.clone()
        } else {
            intent.staging_path.clone()
        };
        let mode = if call.read_only || call.capability.mode.is_reader() {
            TargetMode::ReadOnly
        } else {
            TargetMode::ReadWrite
        };
        let publishing = Self {
            call,
            target: node.resolved(&call.target_path)?,
            mode,
            device,
            source,
            is_block,
        };
        publishing.ensure_source_is_mounted(node)?;
        Ok(publishing)
    }

    fn shows_source(&self, mount: &Mount) -> bool {
        if self.is_block {
            mount.binds_node(&self.device.name)
        } else {
            mount.device == self.device.numbers
        }
    }

    /// Binding a staging directory that holds no mount would show the pod an empty directory of the host.
    fn ensure_source_is_mounted(&self, node: &Node) -> Result<(), NodeError> {
        if self.is_block {
            return Ok(());
        }
        let table = MountTable::read(&node.host)?;
        let top = table.find_top(&self.source);
        if top.is_some_and(|mount| self.shows_source(mount)) {
            return Ok(());
        }
        Err(NodeError::NotStaged {
            volume: self.call.volume.clone(),
            staging_path: self.source.clone(),
        })
    }
}

/// The same target with other arguments is a conflict, as far as it was really made.
fn refuse_other_use(
    node: &Node,
    publishing: &Publishing<'_>,
    intent: &Intent,
) -> Result<(), NodeError> {
    let table = MountTable::read(&node.host)?;
    let Some(there) = table.find_top(&publishing.target) else {
        return Ok(());
    };
    if !publishing.shows_source(there) {
        return Err(NodeError::Foreign {
            target: publishing.target.clone(),
            found: "a mount of something else",
        });
    }
    let shown = if there.is_read_only() {
        TargetMode::ReadOnly
    } else {
        TargetMode::ReadWrite
    };
    // The ledger knows what was meant; a bind becomes read-only in a second step, which a crash may have cut off.
    let held = intent.targets.get(&publishing.target).copied();
    let held = held.unwrap_or(shown);
    let otherwise = |held, asked| {
        Err(NodeError::PublishedOtherwise {
            target: publishing.target.clone(),
            held,
            asked,
        })
    };
    if held != publishing.mode {
        return otherwise(held.word(), publishing.mode.word());
    }
    match (
        places(intent.capability.mode),
        places(publishing.call.capability.mode),
    ) {
        (Some(held), Some(asked)) if held != asked => otherwise(held, asked),
        _ => Ok(()),
    }
}

/// How many places a mode allows, if it says.
fn places(mode: AccessMode) -> Option<&'static str> {
    match mode {
        AccessMode::SingleNodeSingleWriter => Some("for one place on the node"),
        AccessMode::SingleNodeMultiWriter => Some("for many places on the node"),
        _ => None,
    }
}

/// CSI's table for a second target, strict for the modes that count places only: see [`AccessMode::counts_places`].
fn refuse_second_target(
    node: &Node,
    publishing: &Publishing<'_>,
    intent: &Intent,
) -> Result<(), NodeError> {
    let modes = [intent.capability.mode, publishing.call.capability.mode];
    if !modes.contains(&AccessMode::SingleNodeSingleWriter) {
        return Ok(());
    }
    let staging_path = node.resolved(&publishing.call.staging_path)?;
    let places = node.places_besides(&publishing.device, &[&publishing.target, &staging_path])?;
    match places.into_iter().next() {
        None => Ok(()),
        Some(mount) => Err(NodeError::OneTarget {
            volume: publishing.call.volume.clone(),
            held: mount.target,
        }),
    }
}

fn show(node: &Node, publishing: &Publishing<'_>, intent: &mut Intent) -> Result<(), NodeError> {
    let target = &publishing.target;
    if intent.targets.insert(target.clone(), publishing.mode) != Some(publishing.mode) {
        node.keep(intent)?;
    }
    ensure_bound(
        &node.host,
        &Bind {
            source: &publishing.source,
            target,
            read_only: publishing.mode == TargetMode::ReadOnly,
            is_source: &|mount| publishing.shows_source(mount),
        },
    )?;
    Ok(())
}

/// The place for the bind, unless something is mounted there already: an empty directory or an empty file.
fn ensure_place(node: &Node, publishing: &Publishing<'_>) -> Result<(), NodeError> {
    let target = publishing.target.as_path();
    if MountTable::read(&node.host)?.find_top(target).is_some() {
        return Ok(());
    }
    let foreign = |found| NodeError::Foreign {
        target: target.to_owned(),
        found,
    };
    let failed = |source: io::Error| NodeError::Target {
        target: target.to_owned(),
        what: "made",
        source,
    };
    match (
        node.find_stat_of(target)?.map(|stat| stat.kind),
        publishing.is_block,
    ) {
        (None, true) => node.host.ensure_empty_file(target).map_err(failed),
        (None, false) => node.host.ensure_directory(target).map_err(failed),
        (Some(FileKind::File), true) => Ok(()),
        (Some(FileKind::Directory), false)
            if node.host.list(target).map_err(failed)?.is_empty() =>
        {
            Ok(())
        }
        (Some(FileKind::Directory), false) => Err(foreign("a directory that is not empty")),
        (Some(FileKind::Directory), true) => Err(foreign("a directory")),
        (Some(FileKind::Link), _) => Err(foreign("a symbolic link")),
        (Some(_), _) => Err(foreign("no directory")),
    }
}
