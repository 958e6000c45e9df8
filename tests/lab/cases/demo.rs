//! The main job, told as it happens: from CreateVolume over two real paths, one of which dies, to nothing left.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::leftovers;
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link};
use crate::kit::writer::{Writer, verify};

pub const CASES: &[Case] = &[Case {
    name: "demo",
    deadline: Duration::from_secs(300),
    run: demo,
}];

const SIZE: i64 = 256 << 20;
/// The writer goes round in this many blocks of 64 KiB: 64 MiB.
const ROUND: u64 = 1024;
const PATIENCE: Duration = Duration::from_secs(90);

fn demo(lab: &mut Lab) -> Result<()> {
    let before = leftovers::count();
    lab.story("Three daemons start, as an operator would start them: san, controller, node.");
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    lab.story(format!("The node registers as {}", orchestrator.node_id));

    let mut volume = make_and_mount(lab, &mut orchestrator)?;
    write_through_a_cut(lab, &volume)?;
    take_away(lab, &mut orchestrator, &mut volume)?;

    stack.stop(lab)?;
    let left = leftovers::since(&before);
    ensure!(left.is_empty(), "left behind: {left:?}");
    lab.story("Nothing left: 0 sessions, 0 node records, 0 maps, 0 disks, 0 mounts, 0 exports, 0 ledger records.");
    Ok(())
}

fn make_and_mount(lab: &Lab, orchestrator: &mut Orchestrator) -> Result<Volume> {
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("demo", SIZE, Access::Ext4)
    })?;
    lab.story(format!(
        "CreateVolume: {} MiB, thin. Its id: {}",
        volume.size >> 20,
        volume.id
    ));
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    lab.story(format!(
        "Exported to this node alone, WWID {}",
        volume.wwid()
    ));
    for offer in volume.publish_context["offers"].split(',') {
        lab.story(format!(
            "    offered at {}",
            offer.replacen('=', "  LUN ", 1).replacen('=', "  ", 1)
        ));
    }
    let start = Instant::now();
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    lab.story(format!(
        "NodeStageVolume took {} ms: sessions, identity, map, mkfs, mount.",
        start.elapsed().as_millis()
    ));
    tell_paths(lab, 2)?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    let mount = lab.execute(&[
        "findmnt",
        "-n",
        "-o",
        "SOURCE,FSTYPE,SIZE",
        &volume.target.display().to_string(),
    ])?;
    lab.story(format!(
        "Mounted where the pod looks: {}",
        mount.split_whitespace().collect::<Vec<_>>().join("  ")
    ));
    Ok(volume)
}

/// Prints the path table and demands that so many paths serve.
fn tell_paths(lab: &Lab, ready: usize) -> Result<()> {
    let table = lab.wait_for("the paths' states", PATIENCE, || {
        let text = lab.execute(&[
            "multipathd",
            "show",
            "paths",
            "raw",
            "format",
            "%d %i %t %T %o",
        ])?;
        let rows: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("sd"))
            .map(str::to_owned)
            .collect();
        let serving = rows
            .iter()
            .filter(|row| row.contains("active ready"))
            .count();
        Ok((serving == ready).then_some(rows))
    })?;
    lab.story(format!(
        "The map has {} paths, {ready} of them serving:",
        table.len()
    ));
    for row in table {
        let words: Vec<&str> = row.split_whitespace().collect();
        lab.story(format!("    {}", words.join("  ")));
    }
    Ok(())
}

fn write_through_a_cut(lab: &Lab, volume: &Volume) -> Result<()> {
    let file = volume.target.join("data");
    let writer = Writer::start(&file, ROUND)?;
    let progress = writer.wait_for_more(100, PATIENCE)?;
    lab.story(format!(
        "A writer runs, every block on disk before the next: {} MiB so far.",
        progress.mebibytes()
    ));

    let victim = topology::paths().next().unwrap_or(Link::MANAGEMENT);
    writer.forget_pauses();
    paths::cut(victim)?;
    lab.story(format!(
        "Path 1 is cut: the link to {} goes dead in the middle of a write.",
        victim.san_address(1)
    ));
    writer.wait_for_more(100, PATIENCE)?;
    let progress = writer.progress();
    lab.story(format!(
        "Writing goes on over path 2; the longest pause was {} ms.",
        progress.longest_pause.as_millis()
    ));
    tell_paths(lab, 1)?;

    paths::restore(victim)?;
    lab.story("The link is whole again; nobody is told.");
    tell_paths(lab, 2)?;
    writer.wait_for_more(50, PATIENCE)?;
    let blocks = writer.finish()?;
    let sums = verify(&file, blocks, ROUND)?;
    ensure!(sums.written == sums.read, "the checksums differ: {sums:x?}");
    lab.story(format!("{} MiB written, no error; checksum written {:016x}, read back from the SAN {:016x}: equal.", blocks / 16, sums.written, sums.read));
    Ok(())
}

fn take_away(lab: &Lab, orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(volume))?;
    lab.story("NodeUnpublishVolume: the pod's mount is gone.");
    let start = Instant::now();
    patiently("NodeUnstageVolume", || orchestrator.unstage(volume))?;
    lab.story(format!(
        "NodeUnstageVolume took {} ms: unmounted, flushed, map and disks removed.",
        start.elapsed().as_millis()
    ));
    patiently("ControllerUnpublishVolume", || orchestrator.detach(volume))?;
    lab.story("ControllerUnpublishVolume: the SAN no longer offers it.");
    patiently("DeleteVolume", || orchestrator.delete(volume))?;
    lab.story("DeleteVolume: the space is back in the pool.");
    std::fs::remove_dir(&volume.staging)?;
    Ok(())
}
