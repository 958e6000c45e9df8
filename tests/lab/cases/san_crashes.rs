//! The SAN dies right after its k-th change of the host, in every call that changes something, on a real kernel; started anew, the repeated call succeeds, and at the end of
//! each life nothing is left in the pool, in the kernel's target or in the state.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::linux_san_wire as pb;

use super::linux_san::{San, Start, has_ended, tree};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::patiently;

pub const LONG: &[Case] = &[Case {
    name: "san_crash_after_every_step",
    deadline: Duration::from_secs(2400),
    run: every_step,
}];

const INITIATOR: &str = "iqn.2026-01.dev.sanpath.lab:crash";

/// What the answers have told so far in one life.
#[derive(Default)]
struct Life {
    volume: pb::Volume,
    snapshot: pb::Snapshot,
    clone: pb::Volume,
}

type Call = fn(&mut San, &mut Life) -> Result<(), tonic::Status>;

/// One life of a volume, of its snapshot and of the clone that is made of that.
const CALLS: [(&str, Call); 9] = [
    ("create", create),
    ("snapshot", snapshot),
    ("clone", clone),
    ("export", export),
    ("expand", expand),
    ("unexport", unexport),
    ("delete of the snapshot", delete_snapshot),
    ("delete of the clone", |san, life| delete(san, &life.clone)),
    ("delete", |san, life| delete(san, &life.volume)),
];

/// Where the next crash of one call is.
#[derive(Default)]
struct Point {
    crashed_at: Vec<u64>,
    /// How many of these were in the start of the SAN.
    in_start: usize,
    is_over: bool,
}

fn every_step(lab: &mut Lab) -> Result<()> {
    let mut points: Vec<Point> = CALLS.iter().map(|_| Point::default()).collect();
    let mut san = San::start(lab)?;
    for round in 1.. {
        let mut life = Life::default();
        for ((name, call), point) in CALLS.iter().zip(&mut points) {
            if !point.is_over {
                drop(san);
                lab.daemons.stop("san")?;
                crash(lab, point, round, *call, &mut life)
                    .with_context(|| format!("{name}, to die after step {round}"))?;
                san = San::start(lab)?;
            }
            // The answer of a call that was done already is that of a call that was not.
            patiently(name, || call(&mut san, &mut life))
                .with_context(|| format!("{name} anew, after the crash at step {round}"))?;
        }
        ensure_nothing_left(lab).with_context(|| format!("after life {round}"))?;
        if points.iter().all(|point| point.is_over) {
            break;
        }
    }
    for ((name, _), point) in CALLS.iter().zip(&points) {
        let (steps, in_start) = (point.crashed_at.len(), point.in_start);
        lab.story(format!(
            "{name}: died after {steps} steps, {in_start} of them in the start"
        ));
        ensure!(steps > in_start, "{name} has no steps of its own");
    }
    drop(san);
    lab.daemons.stop("san")
}

/// Makes the call on a SAN that dies after this step, in its start if not in the call. One that comes through is stopped.
fn crash(lab: &mut Lab, point: &mut Point, step: u64, call: Call, life: &mut Life) -> Result<()> {
    let armed = Start {
        environment: vec![("SANPATH_CRASH_AFTER_STEP".to_owned(), step.to_string())],
        ..Start::usual(lab)
    };
    let started = San::start_as(lab, &armed);
    let in_start = started.is_err();
    let outcome = started.and_then(|mut san| Ok(call(&mut san, life)?));
    if outcome.is_ok() {
        point.is_over = true;
        return lab.daemons.stop("san");
    }
    let died = has_ended(lab);
    // It ended by itself; this only takes it off the list.
    let _ = lab.daemons.stop("san");
    outcome.or_else(|error| if died { Ok(()) } else { Err(error) })?;
    point.crashed_at.push(step);
    point.in_start += usize::from(in_start);
    Ok(())
}

fn ensure_nothing_left(lab: &Lab) -> Result<()> {
    let mut left = Vec::new();
    for folder in ["volumes", "snapshots"] {
        for entry in fs::read_dir(lab.pool_folder().join(folder))? {
            left.push(entry?.path().display().to_string());
        }
    }
    // The tree of a kernel that has served nothing has no name of ours.
    left.extend(tree()?.into_keys().filter(|path| path.contains("sanpath")));
    let state = fs::read_to_string(lab.work_folder().join("san-state/state.json"))?;
    let state: serde_json::Value = serde_json::from_str(&state)?;
    for kind in ["volumes", "snapshots", "nodes", "targets"] {
        let records = state[kind].as_object().into_iter().flatten();
        left.extend(records.map(|(key, _)| format!("{key} of {kind} in the state")));
    }
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn create(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    life.volume = made(san, "pvc-1", None)?;
    Ok(())
}

fn clone(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let of = Some(pb::source::Of::SnapshotKey(life.snapshot.key.clone()));
    life.clone = made(san, "pvc-2", Some(pb::Source { of }))?;
    Ok(())
}

fn made(
    san: &mut San,
    name: &str,
    source: Option<pb::Source>,
) -> Result<pb::Volume, tonic::Status> {
    let request = pb::CreateVolumeRequest {
        name: name.to_owned(),
        size_bytes: 8 << 20,
        metadata: [("made-by".to_owned(), "lab".to_owned())].into(),
        source,
    };
    let made = san.runtime.block_on(san.client.create_volume(request))?;
    Ok(made.into_inner())
}

fn snapshot(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let request = pb::CreateSnapshotRequest {
        name: "snap-1".to_owned(),
        source_volume_key: life.volume.key.clone(),
        metadata: [("made-by".to_owned(), "lab".to_owned())].into(),
    };
    let cut = san.runtime.block_on(san.client.create_snapshot(request))?;
    life.snapshot = cut.into_inner();
    Ok(())
}

fn export(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let request = San::request(&life.volume, "node-1", INITIATOR);
    let given = san.runtime.block_on(san.client.export_volume(request))?;
    let served = tree().unwrap_or_default();
    let links = served
        .iter()
        .filter(|(_, to)| to.contains(&life.volume.key));
    assert!(links.count() > 0, "{:?} is not in the kernel", given);
    Ok(())
}

fn expand(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let request = pb::ExpandVolumeRequest {
        key: life.volume.key.clone(),
        wwid: life.volume.wwid.clone(),
        size_bytes: 16 << 20,
    };
    let grown = san.runtime.block_on(san.client.expand_volume(request))?;
    assert_eq!(grown.into_inner().size_bytes, 16 << 20);
    Ok(())
}

fn unexport(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let request = pb::UnexportVolumeRequest {
        key: life.volume.key.clone(),
        wwid: life.volume.wwid.clone(),
        initiator_iqn: INITIATOR.to_owned(),
    };
    san.runtime.block_on(san.client.unexport_volume(request))?;
    Ok(())
}

fn delete_snapshot(san: &mut San, life: &mut Life) -> Result<(), tonic::Status> {
    let key = life.snapshot.key.clone();
    let request = pb::DeleteSnapshotRequest { key };
    san.runtime.block_on(san.client.delete_snapshot(request))?;
    Ok(())
}

fn delete(san: &mut San, volume: &pb::Volume) -> Result<(), tonic::Status> {
    let request = pb::DeleteVolumeRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
    };
    san.runtime.block_on(san.client.delete_volume(request))?;
    Ok(())
}
