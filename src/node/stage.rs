//! NodeStageVolume (CSI §NodeStageVolume).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::MsFlags;

use super::decide::{Case, Decision, Place, decide};
use super::device::{Device, beside};
use super::encrypted::ensure_layer;
use super::expand::{fill, kind_of};
use super::intent::{Formatting, Intent};
use super::unmount::Before;
use super::{Node, NodeError, StageCall};
use crate::attach::Want;
use crate::fabric::{Export, LeftOut, Selection, WantedPath, select};
use crate::fault::{Fault, Faulted, chain};
use crate::filesystem::{Kind, Plan, make, probe, refuse_twin, repair};
use crate::host::FileKind;
use crate::mount::{MountOptions, MountTable, Mounting, ensure_mounted, is_corrupted};
use crate::volume::{AccessType, FileSystemKind, MkfsOptions, SanName, VolumeId};

/// A stage call with all that follows from it alone.
pub(super) struct Staging<'c> {
    pub(super) call: &'c StageCall,
    /// Without links on the way.
    pub(super) path: PathBuf,
    /// `None` for a raw volume.
    file_system: Option<FileSystem>,
}

/// A file system as it will be mounted.
struct FileSystem {
    kind: Kind,
    options: MountOptions,
}

pub fn stage(node: &Node, call: &StageCall) -> Result<(), NodeError> {
    let staging = Staging::of(node, call)?;
    node.refuse_while_unmounting(&call.volume)?;
    let before = node.find_intent(&call.volume)?;
    if let Some(before) = &before {
        refuse_other_use(before, &staging)?;
        if is_staged(node, before, &staging)? {
            return Ok(());
        }
    }
    ensure_directory_is_there(node, &staging)?;
    let chosen = choose_paths(node, call)?;
    let mut intent = begin(node, &staging, before)?;
    let was_staged = intent.staged;
    // The mark of an mkfs that was cut off is kept: without it nobody could tell from data what it left.
    let keep = was_staged || intent.is_unfinished();
    let (host, key) = (&node.host, call.volume.to_string());
    host.timed("attach", &key, || attach(node, call, chosen, &intent))
        .map_err(|error| undone(node, &staging, error, keep))?;
    let placed = host.timed("place", &key, || place(node, &staging, &mut intent));
    placed.map_err(|error| {
        if !was_staged && intent.is_unfinished() {
            return unfinished(&intent.volume, error);
        }
        undone(node, &staging, error, was_staged)
    })
}

/// Taking back would forget that what is on the volume is ours and no data. So it stays, and the orchestrator has to call again.
fn unfinished(volume: &VolumeId, error: NodeError) -> NodeError {
    match error.fault() {
        Fault::Busy | Fault::MaybeDone | Fault::Timeout => error,
        _ => NodeError::Unfinished(volume.clone(), Box::new(error)),
    }
}

/// A failure for good also ends what calls before this one have begun: the orchestrator forgets the volume and will not call unstage.
fn undone(node: &Node, staging: &Staging<'_>, error: NodeError, keep: bool) -> NodeError {
    match error.fault() {
        Fault::Busy | Fault::MaybeDone | Fault::Timeout => error,
        _ if keep => error,
        _ => beside(error, take_back(node, staging)),
    }
}

impl<'c> Staging<'c> {
    fn of(node: &Node, call: &'c StageCall) -> Result<Self, NodeError> {
        let file_system = match &call.capability.access {
            AccessType::Block => None,
            AccessType::Mount { kind, flags } => Some(FileSystem::of(call, *kind, flags)?),
        };
        Ok(Self {
            call,
            path: node.resolved(&call.staging_path)?,
            file_system,
        })
    }

    /// The SAN takes no writes, or the caller wants none.
    pub(super) fn is_read_only(&self) -> bool {
        self.call.export.read_only || self.call.capability.mode.is_reader()
    }
}

impl FileSystem {
    fn of(call: &StageCall, kind: FileSystemKind, flags: &[String]) -> Result<Self, NodeError> {
        let kind = kind_of(kind);
        let mut options = MountOptions::parse(flags)?;
        if let Some(always) = kind.always() {
            options = options.with(always);
        }
        if call.export.read_only || call.capability.mode.is_reader() {
            // Others may have it mounted, or the SAN refuses writes: even a journal's replay would be one.
            options = options.with(kind.without_recovery()).read_only();
        }
        Ok(Self { kind, options })
    }
}

fn refuse_other_use(before: &Intent, staging: &Staging<'_>) -> Result<(), NodeError> {
    let difference = if before.encryption.is_some() != staging.call.encryption.is_some() {
        // Also while its making was cut off: what is on it then is half of what was asked for.
        if !before.staged && !before.is_unfinished() {
            return Ok(());
        }
        if before.encryption.is_some() {
            "with encryption, and not in the clear"
        } else {
            "in the clear, and not with encryption"
        }
    } else if !before.staged {
        return Ok(());
    } else if before.staging_path != staging.path {
        "and not at the path asked for"
    } else if !before.capability.stages_like(&staging.call.capability) {
        "with another capability"
    } else {
        return Ok(());
    };
    Err(NodeError::StagedOtherwise {
        volume: before.volume.clone(),
        staging_path: before.staging_path.clone(),
        difference,
    })
}

/// Whether all is as an earlier call left it, and the device still is the volume's.
fn is_staged(node: &Node, before: &Intent, staging: &Staging<'_>) -> Result<bool, NodeError> {
    if !before.staged {
        return Ok(false);
    }
    let key = before.volume.to_string();
    if node.engine.verify(&key).is_err() {
        // Attaching will repair it or tell what is wrong.
        return Ok(false);
    }
    let Ok(device) = node.device_in_use(&before.volume, before) else {
        return Ok(false);
    };
    if staging.file_system.is_none() {
        return Ok(true);
    }
    let table = MountTable::read(&node.host)?;
    let top = table.find_top(&staging.path);
    Ok(top.is_some_and(|mount| mount.device == device.numbers)
        && node.host.find_stat(&staging.path).is_ok())
}

fn ensure_directory_is_there(node: &Node, staging: &Staging<'_>) -> Result<(), NodeError> {
    match node.host.find_stat(&staging.path) {
        Ok(Some(stat)) if stat.kind == FileKind::Directory => Ok(()),
        // A file system that died under its mount; it is dealt with when its device is known.
        Err(error) if is_corrupted(&error) => Ok(()),
        Err(source) => Err(NodeError::Resolve {
            path: staging.path.clone(),
            source,
        }),
        Ok(_) => Err(NodeError::NoStagingDirectory(staging.path.clone())),
    }
}

/// What the partition's settings make of an export.
struct Chosen {
    wanted: Vec<WantedPath>,
    /// How many the volume should have.
    expected: usize,
    min_paths: usize,
    /// How long they may take.
    patience: Duration,
}

/// The paths to have. What is listed and cannot be had is told and does not stop the others.
fn choose_paths(node: &Node, call: &StageCall) -> Result<Chosen, NodeError> {
    let partition = &call.volume.san;
    let settings =
        (node.paths_of)(partition).ok_or_else(|| NodeError::NoPartition(partition.clone()))?;
    let selection = select(&call.export, &settings.list, &settings.local);
    if selection.wanted.len() < settings.min_paths.max(1) {
        return Err(too_few(partition, settings.min_paths, &selection));
    }
    for LeftOut { path, why } in &selection.left_out {
        tracing::warn!(volume.id = %call.volume, %partition, %path, %why, "staging without a listed path");
    }
    Ok(Chosen {
        expected: selection.expected(),
        wanted: selection.wanted,
        min_paths: settings.min_paths,
        patience: settings.deadline.unwrap_or(node.limits.deadline),
    })
}

fn too_few(partition: &SanName, needed: usize, selection: &Selection) -> NodeError {
    let wanted = selection.wanted.len();
    let reason = |it: &LeftOut| format!("{}: {}", it.path, it.why);
    let missing: Vec<String> = selection.left_out.iter().map(reason).collect();
    let (partition, missing) = (partition.clone(), missing.join("; "));
    if wanted == 0 {
        return NodeError::NoPaths { partition, missing };
    }
    NodeError::FewPaths {
        partition,
        needed,
        wanted,
        missing: if missing.is_empty() {
            "the SAN offers no more".to_owned()
        } else {
            missing
        },
    }
}

/// The intent of this call. Attaching writes it with a new record and leaves an old record's notes alone, so those are renewed here.
fn begin(node: &Node, staging: &Staging<'_>, before: Option<Intent>) -> Result<Intent, NodeError> {
    let has_record = before.is_some();
    let intent = Intent::of(staging.call, &staging.path, before);
    if has_record {
        node.keep(&intent)?;
    }
    Ok(intent)
}

fn attach(node: &Node, call: &StageCall, chosen: Chosen, intent: &Intent) -> Result<(), NodeError> {
    let wanted = chosen.wanted.len();
    let attached = node.engine.ensure(&Want {
        key: call.volume.to_string(),
        export: call.export.clone(),
        wanted: chosen.wanted,
        no_path_retry: call.no_path_retry,
        min_paths: chosen.min_paths,
        deadline: node.host.deadline_in(chosen.patience),
        grace: node.limits.grace,
        payload: intent.to_value()?,
    })?;
    for (path, why) in &attached.missing {
        tracing::warn!(volume.id = %call.volume, portal = %path.portal, why, "staged without this path");
    }
    let paths = wanted.saturating_sub(attached.missing.len());
    if paths < chosen.expected {
        tracing::warn!(volume.id = %call.volume, paths, expected = chosen.expected,
            "staged degraded; missing paths are tried on");
    }
    Ok(())
}

/// From a verified map to a staged volume.
fn place(node: &Node, staging: &Staging<'_>, intent: &mut Intent) -> Result<(), NodeError> {
    let map = node.device(&staging.call.volume)?;
    if staging.file_system.is_some() {
        remove_corrupted(node, staging)?;
        if !intent.staged {
            // Nothing of this boot explains a mount elsewhere; a second one would hide it.
            node.refuse_other_places(&intent.volume, &staging.path)?;
        }
    }
    let device = ensure_layer(node, staging, &map, intent)?;
    if let Some(file_system) = &staging.file_system {
        if node.places_of(&device)?.is_empty() {
            let devices = Devices {
                map: &map,
                used: &device,
            };
            prepare(node, staging, file_system, devices, intent)?;
        }
        ensure_mounted(
            &node.host,
            &Mounting {
                device_path: &device.path,
                device: device.numbers,
                target: &staging.path,
                kind: file_system.kind.name(),
                options: &file_system.options,
            },
        )?;
        ensure_filled(node, file_system, &device, intent);
    }
    intent.staged = true;
    // From now on there may be data in it.
    intent.sealing = Formatting::No;
    node.keep(intent)
}

/// The devices of a volume that is being staged.
#[derive(Clone, Copy)]
struct Devices<'d> {
    map: &'d Device,
    /// The encrypted layer, or the map itself.
    used: &'d Device,
}

/// Mounts the volume of `intent` anew where it is staged, checked as at any stage. It is never formatted: it held a file system a moment ago.
pub(super) fn mount_again(
    node: &Node,
    intent: &mut Intent,
    export: &Export,
) -> Result<(), NodeError> {
    let call = StageCall {
        volume: intent.volume.clone(),
        staging_path: intent.staging_path.clone(),
        capability: intent.capability.clone(),
        export: Export {
            blank: false,
            ..export.clone()
        },
        mkfs: MkfsOptions::default(),
        encryption: None,
        header: None,
        no_path_retry: None,
    };
    let staging = Staging::of(node, &call)?;
    place(node, &staging, intent)
}

/// A volume that grew while it was nowhere, or of which a smaller one was the source. What it holds can be used as it is: that it did not grow is no
/// reason to keep it from anybody, and the orchestrator's own call to expand will say so.
fn ensure_filled(node: &Node, file_system: &FileSystem, device: &Device, intent: &Intent) {
    if let Err(error) = fill(node, intent, device, file_system.kind) {
        tracing::warn!(volume.id = %intent.volume, error = chain(&error), "the staged file system does not fill its device");
    }
}

/// Unmounts a file system that has shut itself down, so that it can be mounted anew and recover.
fn remove_corrupted(node: &Node, staging: &Staging<'_>) -> Result<(), NodeError> {
    let Err(error) = node.host.find_stat(&staging.path) else {
        return Ok(());
    };
    if !is_corrupted(&error) {
        return Ok(());
    }
    tracing::warn!(volume.id = %staging.call.volume, path = %staging.path.display(), %error,
        "the staged file system has shut down; mounting it anew");
    node.refuse_other_places(&staging.call.volume, &staging.path)?;
    node.unmount(&staging.call.volume, &staging.path, Before::Nothing)
}

/// Makes the unmounted device fit to be mounted, or refuses it.
fn prepare(
    node: &Node,
    staging: &Staging<'_>,
    file_system: &FileSystem,
    devices: Devices<'_>,
    intent: &mut Intent,
) -> Result<(), NodeError> {
    let device = devices.used;
    let content = probe(&node.host, &device.path)?;
    let decision = decide(&Case {
        content: &content,
        wanted: file_system.kind,
        place: match (&staging.call.encryption, intent.sealing) {
            (None, _) => Place::Clear,
            (Some(_), Formatting::Done) => Place::NewlySealed,
            (Some(_), Formatting::No | Formatting::Begun) => Place::Sealed,
        },
        read_only: staging.is_read_only() || file_system.options.flags.contains(MsFlags::MS_RDONLY),
        blank_by_san: staging.call.export.blank,
        formatting: intent.formatting,
    });
    // Looking took its time; whose device it is is asked again before anything writes.
    prove_still(node, &staging.call.volume, devices.map)?;
    if staging.call.encryption.is_some() && node.device_in_use(&intent.volume, intent)? != *device {
        return Err(moved(&intent.volume, device));
    }
    if file_system.kind == Kind::Btrfs
        && matches!(decision, Decision::Mount | Decision::RepairAndMount)
    {
        refuse_twin(&node.host, &device.path, &device.name)?;
    }
    match decision {
        Decision::Mount => Ok(()),
        Decision::RepairAndMount => Ok(repair(&node.host, &device.path, file_system.kind)?),
        Decision::Make(protection) => {
            let plan = Plan {
                kind: file_system.kind,
                protection,
                options: staging.call.mkfs.words(),
            };
            make_file_system(node, &device.path, &plan, intent)
        }
        Decision::Refuse(reason) => Err(NodeError::Content {
            device: device.path.display().to_string(),
            found: content.to_string(),
            wanted: file_system.kind.name(),
            reason,
        }),
    }
}

/// Proves that `device` is the volume, now. The map alone is not enough: it may have gone and come back under another number, and the number
/// that was looked at be another volume's.
pub(super) fn prove_still(
    node: &Node,
    volume: &VolumeId,
    device: &Device,
) -> Result<(), NodeError> {
    let map = node.engine.verify(&volume.to_string())?;
    if map.path == device.path {
        return Ok(());
    }
    tracing::warn!(volume.id = %volume, now = %map.path.display(), "the volume's map was made anew");
    Err(moved(volume, device))
}

fn moved(volume: &VolumeId, device: &Device) -> NodeError {
    let was = device.path.display();
    NodeError::Device {
        volume: volume.clone(),
        source: io::Error::other(format!("it was {was} a moment ago and is another one now")),
    }
}

/// The ledger says "begun" before the first byte is written and "done" after the last: in between, and only then, what is there may be
/// overwritten.
fn make_file_system(
    node: &Node,
    path: &Path,
    plan: &Plan<'_>,
    intent: &mut Intent,
) -> Result<(), NodeError> {
    intent.formatting = Formatting::Begun;
    node.keep(intent)?;
    make(&node.host, path, plan)?;
    intent.formatting = Formatting::Done;
    node.keep(intent)
}

/// After a failure for good: removes what this call made. The orchestrator will not call unstage.
fn take_back(node: &Node, staging: &Staging<'_>) -> Result<(), NodeError> {
    let volume = &staging.call.volume;
    node.refuse_other_places(volume, &staging.path)?;
    if !node.all_places_of(volume)?.is_empty() {
        node.unmount(volume, &staging.path, Before::Nothing)?;
    }
    node.close_layer(volume)?;
    node.detach(volume)
}
