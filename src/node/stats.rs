//! NodeGetVolumeStats (CSI §NodeGetVolumeStats): what a volume holds and what it could, and whether its file system still lives.
//!
//! A look at a file system whose device has lost every path may never come back. It is taken on a thread that is left behind then; whoever
//! asks for the same volume meanwhile joins that thread, so that one volume holds up one thread and no call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::device::Owner;
use super::health::{self, Judgement};
use super::{Node, NodeError, StatsCall, Usage};
use crate::flights::{Flights, Listener, Look};
use crate::mount::{Mount, MountTable};
use crate::volume::{AccessType, VolumeId};

/// Much more than any answer takes, and well under what the kubelet waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// The unit of `/sys/block/*/size`, whatever the device's own blocks are.
const SECTOR: u64 = 512;

/// What a thread found, and where it looked.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    outcome: Result<Usage, Arc<NodeError>>,
}

/// The looks that are being taken, by volume.
pub type Readings = Flights<Reading>;

pub fn stats(node: &Node, call: &StatsCall) -> Result<Usage, NodeError> {
    let deadline = node.host.deadline_in(PATIENCE);
    let late = || NodeError::Late {
        volume: call.volume.clone(),
        seconds: PATIENCE.as_secs(),
    };
    loop {
        let listener = look(node, call)?;
        let landed = node.host.wait_for(deadline, || landed(&listener, call))?;
        let reading = landed.ok_or_else(late)?;
        // Somebody had asked for another place of the volume; the next look is ours.
        if reading.path != call.path {
            continue;
        }
        return reading.outcome.clone().map_err(NodeError::Joined);
    }
}

fn look(node: &Node, call: &StatsCall) -> Result<Listener<Reading>, NodeError> {
    let (worker, asked) = (node.clone(), call.clone());
    let work = move || Reading {
        outcome: read(&worker, &asked).map_err(Arc::new),
        path: asked.path,
    };
    node.readings
        .join(&call.volume.to_string(), work, || {})
        .map_err(NodeError::NoThread)
}

fn landed(
    listener: &Listener<Reading>,
    call: &StatsCall,
) -> Result<Option<Arc<Reading>>, NodeError> {
    match listener.look() {
        Look::Flying => Ok(None),
        Look::Ended(reading) => Ok(Some(reading)),
        Look::Lost => Err(NodeError::LookLost(call.volume.clone())),
    }
}

/// Everything here may block.
fn read(node: &Node, call: &StatsCall) -> Result<Usage, NodeError> {
    let path = node.resolved(&call.path)?;
    let table = MountTable::read(&node.host)?;
    match table.find_top(&path) {
        None if is_staged_raw(node, &call.volume, &path)? => raw(node, &call.volume),
        None => Err(not_at(call)),
        Some(mount) => match node.owner_of(&call.volume, mount)? {
            Owner::Other => Err(not_at(call)),
            Owner::Gone if !is_recorded(node, &call.volume, &path)? => Err(not_at(call)),
            Owner::Gone => Err(NodeError::ShutDown {
                volume: call.volume.clone(),
                path,
                source: io::Error::other("its device is gone"),
            }),
            Owner::Ours if mount.kind == "devtmpfs" => raw(node, &call.volume),
            Owner::Ours => file_system(node, call, mount, &table),
        },
    }
}

fn not_at(call: &StatsCall) -> NodeError {
    NodeError::NotAt {
        volume: call.volume.clone(),
        path: call.path.clone(),
    }
}

/// A raw volume shows nothing at its staging path, but may be asked for there.
fn is_staged_raw(node: &Node, volume: &VolumeId, path: &Path) -> Result<bool, NodeError> {
    let intent = node.find_intent(volume)?;
    Ok(intent.is_some_and(|intent| {
        intent.staged
            && intent.staging_path == path
            && intent.capability.access == AccessType::Block
    }))
}

fn is_recorded(node: &Node, volume: &VolumeId, path: &Path) -> Result<bool, NodeError> {
    let intent = node.find_intent(volume)?;
    Ok(intent
        .is_some_and(|intent| intent.staging_path == path || intent.targets.contains_key(path)))
}

/// From sysfs, which asks no path.
fn raw(node: &Node, volume: &VolumeId) -> Result<Usage, NodeError> {
    let failed = |source| NodeError::Device {
        volume: volume.clone(),
        source,
    };
    // What the pod sees is the topmost.
    let device = match node.find_layer(volume)? {
        Some(layer) => layer,
        None => node.device(volume)?,
    };
    let size = Path::new("/sys/block").join(&device.name).join("size");
    let sectors = node.host.read_attribute(&size).map_err(failed)?;
    let sectors: u64 = sectors
        .parse()
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    Ok(Usage::Block {
        total: sectors.saturating_mul(SECTOR),
    })
}

fn file_system(
    node: &Node,
    call: &StatsCall,
    mount: &Mount,
    table: &MountTable,
) -> Result<Usage, NodeError> {
    match health::judge(&node.host, mount, table) {
        Judgement::Serves(space) => Ok(Usage::FileSystem(space)),
        Judgement::GoneReadOnly(space) => {
            tracing::warn!(volume.id = %call.volume, path = %call.path.display(),
                "the file system has gone read-only after an error; {}", health::what_to_do(&call.volume));
            Ok(Usage::FileSystem(space))
        }
        Judgement::Erred(space) => {
            tracing::warn!(volume.id = %call.volume, path = %call.path.display(),
                "the file system has noted errors and may refuse writes; {}", health::what_to_do(&call.volume));
            Ok(Usage::FileSystem(space))
        }
        Judgement::ShutDown(source) => Err(NodeError::ShutDown {
            volume: call.volume.clone(),
            path: call.path.clone(),
            source,
        }),
        Judgement::Unknown(source) => Err(NodeError::Space {
            path: call.path.clone(),
            source,
        }),
    }
}
