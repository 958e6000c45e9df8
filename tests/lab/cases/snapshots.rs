//! Snapshots over CSI, cut while a pod writes: what is restored holds every record that was acknowledged before the call, and no gap.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::writer::{self, Writer};

pub const CASES: &[Case] = &[Case {
    name: "snapshot_under_load",
    deadline: Duration::from_secs(420),
    run: everyday,
}];

pub const LONG: &[Case] = &[Case {
    name: "snapshots_again_and_again",
    deadline: Duration::from_secs(1200),
    run: again_and_again,
}];

/// The least that an xfs takes, and a little more.
const SIZE: i64 = 320 << 20;
const LARGER: i64 = 384 << 20;
/// So many blocks of 64 KiB never come together in one round.
const NEVER: u64 = 3000;
const SOON: Duration = Duration::from_secs(90);

/// With xfs, whose copy bears its source's id; ext4 is cut under a writer in `san_snapshots`.
fn everyday(lab: &mut Lab) -> Result<()> {
    rounds(lab, &[(Access::Xfs, 1)])
}

/// Every second copy is a clone of the volume itself.
fn again_and_again(lab: &mut Lab) -> Result<()> {
    rounds(lab, &[(Access::Ext4, 8), (Access::Xfs, 4)])
}

fn rounds(lab: &mut Lab, plan: &[(Access, u32)]) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for (access, rounds) in plan {
        let name = format!("{access:?}").to_lowercase();
        let mut source = orchestrator.create_attached(&name, SIZE, *access)?;
        orchestrator.bring_up(&mut source)?;
        for number in 0..*rounds {
            round(lab, &mut orchestrator, &source, number)?;
        }
        orchestrator.bring_down(&source)?;
    }
    for folder in ["volumes", "snapshots"] {
        let left = std::fs::read_dir(lab.pool_folder().join(folder))?.count();
        ensure!(left == 0, "{left} files are left in {folder}");
    }
    stack.stop(lab)
}

fn round(lab: &Lab, orchestrator: &mut Orchestrator, source: &Volume, number: u32) -> Result<()> {
    let name = format!("{:?}-{number}", source.access).to_lowercase();
    let file = format!("numbers-{number}");
    let writer = Writer::start(&source.target.join(&file), NEVER)?;
    let before = writer.wait_for_more(15, SOON)?.blocks;
    let begun = Instant::now();
    let snapshot = orchestrator.cut(&name, source)?;
    let took = begun.elapsed();
    let after = writer.progress().blocks;
    writer.wait_for_more(5, SOON)?;
    let written = writer.finish()?;
    ensure!(written < NEVER, "the writer came round");

    // A clone is of the volume as it is when it is asked for.
    let (origin, before, after) = match number % 2 {
        0 => (Origin::Snapshot(&snapshot), before, after + 1),
        _ => (Origin::Volume(source), written, written),
    };
    let copied = || orchestrator.copy(&format!("restored-{name}"), LARGER, source.access, origin);
    let mut restored = patiently("CreateVolume", copied)?;
    let blank = |volume: &Volume| volume.publish_context.get("blank").cloned();
    orchestrator.bring_up(&mut restored)?;
    ensure!(
        blank(&restored).as_deref() == Some("false"),
        "a copy is not blank"
    );
    let whole = writer::count_whole(&restored.target.join(&file))?;
    lab.story(format!(
        "{name}: cut in {} ms; a copy of between {before} and {after} records has {whole}",
        took.as_millis()
    ));
    ensure!(
        whole >= before,
        "{before} were acknowledged, {whole} are there"
    );
    ensure!(whole <= after, "{whole} are there, from after the cut");
    let (room, before) = (room_in(&restored)?, room_in(source)?);
    ensure!(room > before, "{room} bytes of {before}: it did not grow");
    // The source goes on as if nothing had been.
    writer::verify(&source.target.join(&file), written, NEVER)?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    if number == 0 {
        groups_of_files(orchestrator, &[source, &restored])?;
    }
    orchestrator.bring_down(&restored)
}

/// What the volume's file system has for files.
fn room_in(volume: &Volume) -> Result<u64> {
    let room = nix::sys::statvfs::statvfs(&volume.target)?;
    Ok(room.blocks() * room.fragment_size())
}

/// A pool of files cuts one volume at a moment: a group of more is refused, and leaves nothing.
fn groups_of_files(orchestrator: &mut Orchestrator, sources: &[&Volume]) -> Result<()> {
    let refused = orchestrator.cut_together("both", sources);
    let refused = refused.map(drop).map_err(|status| status.code());
    ensure!(refused == Err(Code::FailedPrecondition), "{refused:?}");
    let group = patiently("CreateVolumeGroupSnapshot", || {
        orchestrator.cut_together("alone", &sources[..1])
    })?;
    let member = orchestrator.delete_snapshot(&group.snapshots[0]);
    let refused = member.map_err(|status| status.code());
    ensure!(refused == Err(Code::InvalidArgument), "{refused:?}");
    patiently("DeleteVolumeGroupSnapshot", || {
        orchestrator.delete_together(&group)
    })
}
