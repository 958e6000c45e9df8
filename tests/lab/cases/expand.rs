//! Volumes that grow: under a writer, with a path cut, and while they are nowhere.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::attach::Rig;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::lio::Target;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;
use crate::kit::writer::{Writer, verify};
use crate::kit::{paths, topology};

pub const CASES: &[Case] = &[
    Case {
        name: "expand_under_a_writer",
        deadline: Duration::from_secs(420),
        run: under_a_writer,
    },
    Case {
        name: "expand_with_one_path_cut",
        deadline: Duration::from_secs(300),
        run: with_one_path_cut,
    },
    Case {
        name: "expand_while_nowhere",
        deadline: Duration::from_secs(240),
        run: while_nowhere,
    },
];

pub const LONG: &[Case] = &[
    Case {
        name: "expand_while_multipathd_restarts",
        deadline: Duration::from_secs(400),
        run: while_multipathd_restarts,
    },
    Case {
        name: "expand_told_late_by_one_controller",
        deadline: Duration::from_secs(300),
        run: told_late_by_one_controller,
    },
    Case {
        name: "expand_told_a_smaller_size",
        deadline: Duration::from_secs(240),
        run: told_a_smaller_size,
    },
];

/// xfs makes nothing smaller than 300 MiB.
const BEFORE: i64 = 320 << 20;
const AFTER: i64 = 640 << 20;
const PATIENCE: Duration = Duration::from_secs(90);
/// What a file system keeps for itself: journal, tables, and what it holds back.
const OVERHEAD: u64 = 128 << 20;

fn under_a_writer(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for access in [Access::Ext4, Access::Xfs, Access::Block, Access::Btrfs] {
        let name = format!("{access:?}").to_lowercase();
        let mut volume = created(&mut orchestrator, &name, access)?;
        orchestrator.bring_up(&mut volume)?;
        let file = place_to_write(&volume);
        let writer = Writer::start(&file, 512)?;
        writer.wait_for_more(16, PATIENCE)?;
        writer.forget_pauses();
        let start = Instant::now();
        grow(&mut orchestrator, &mut volume)?;
        let took = start.elapsed();
        let progress = writer.wait_for_more(16, PATIENCE)?;
        lab.story(format!(
            "{name}: grown in {} ms; the writer's longest pause: {} ms",
            took.as_millis(),
            progress.longest_pause.as_millis()
        ));
        let blocks = writer.finish()?;
        ensure_size(lab, &volume)?;
        // Each call may be repeated, and a smaller wish is met already.
        grow(&mut orchestrator, &mut volume)?;
        ensure_size(lab, &volume)?;
        verify(&file, blocks, 512)?;
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// The path is down when the volume grows: it is never left in the map with its old size, and comes back to the map by itself with the new one.
fn with_one_path_cut(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = created(&mut orchestrator, "cut", Access::Ext4)?;
    orchestrator.bring_up(&mut volume)?;
    let file = place_to_write(&volume);
    let writer = Writer::start(&file, 512)?;
    writer.wait_for_more(16, PATIENCE)?;
    lab.wait_for("both paths in the map", PATIENCE, || {
        Ok((member_sizes(&volume)?.len() == 2).then_some(()))
    })?;
    let victim = topology::paths().next().context("no path")?;
    paths::cut(victim)?;
    let grown = grow(&mut orchestrator, &mut volume);
    paths::restore(victim)?;
    grown?;
    ensure_size(lab, &volume)?;
    writer.wait_for_more(16, PATIENCE)?;
    let blocks = writer.finish()?;
    verify(&file, blocks, 512)?;
    for (disk, size) in member_sizes(&volume)? {
        ensure!(size == volume.size, "{disk} in the map has {size} bytes");
    }
    let start = Instant::now();
    while member_sizes(&volume)?.len() != 2 {
        ensure!(start.elapsed() < PATIENCE, "the path did not come back");
        std::thread::sleep(Duration::from_millis(200));
    }
    lab.story(format!(
        "both paths were in the map {} ms after the cut was over",
        start.elapsed().as_millis()
    ));
    for (disk, size) in member_sizes(&volume)? {
        ensure!(size == volume.size, "{disk} came back with {size} bytes");
    }
    ensure_size(lab, &volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Grown at the SAN alone. The next stage is told of the old size, as by an orchestrator that has not published anew; then of the new one.
fn while_nowhere(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for access in [Access::Ext4, Access::Xfs] {
        let name = format!("{access:?}").to_lowercase();
        let mut volume = created(&mut orchestrator, &name, access)?;
        orchestrator.bring_up(&mut volume)?;
        fs::write(volume.target.join("kept"), "yes")?;
        orchestrator.leave_node(&volume)?;
        patiently("ControllerExpandVolume", || {
            orchestrator.expand(&mut volume, AFTER)
        })?;
        patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
        patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
        ensure_size(lab, &volume)?;
        ensure!(fs::read_to_string(volume.target.join("kept"))? == "yes");
        orchestrator.leave_node(&volume)?;
        patiently("ControllerUnpublishVolume", || orchestrator.detach(&volume))?;
        patiently("ControllerExpandVolume", || {
            orchestrator.expand(&mut volume, AFTER + (64 << 20))
        })?;
        orchestrator.bring_up(&mut volume)?;
        ensure_size(lab, &volume)?;
        ensure!(fs::read_to_string(volume.target.join("kept"))? == "yes");
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// multipathd dies again and again while the volume grows under a writer.
fn while_multipathd_restarts(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = created(&mut orchestrator, "disturbed", Access::Xfs)?;
    orchestrator.bring_up(&mut volume)?;
    let file = place_to_write(&volume);
    let writer = Writer::start(&file, 512)?;
    writer.wait_for_more(16, PATIENCE)?;
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(&mut volume, AFTER)
    })?;
    Service::Multipathd.signal("KILL")?;
    let (disturbed, grown) = std::thread::scope(|scope| {
        let disturber = scope.spawn(|| -> Result<()> {
            for _ in 0..4 {
                Service::Multipathd.wait_until(true)?;
                std::thread::sleep(Duration::from_millis(700));
                Service::Multipathd.signal("KILL")?;
            }
            Service::Multipathd.wait_until(true)
        });
        let grown = patiently("NodeExpandVolume", || orchestrator.expand_on_node(&volume));
        (super::faults_multipath::join(disturber), grown)
    });
    disturbed?;
    let size = grown?;
    ensure!(size == AFTER, "NodeExpandVolume answered {size}");
    ensure_size(lab, &volume)?;
    writer.wait_for_more(16, PATIENCE)?;
    let blocks = writer.finish()?;
    verify(&file, blocks, 512)?;
    for (disk, size) in member_sizes(&volume)? {
        ensure!(size == volume.size, "{disk} in the map has {size} bytes");
    }
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Two controllers of one SAN, each with a target of its own; one tells the new size seconds before the other. The map grows when both do, at once
/// to the whole size.
fn told_late_by_one_controller(lab: &mut Lab) -> Result<()> {
    const OTHER: &str = "iqn.2026-01.dev.sanpath.lab:controller-b";
    const LATE: Duration = Duration::from_secs(8);
    let mut rig = Rig::on(lab, &[Link(1)])?;
    let mut volume = rig.volume(21)?;
    let before = volume.export.size;
    let second = Target::serve_on(lab, OTHER, &[Link(2)], 79)?;
    let disk = volume.disk.clone();
    let twin = second.add_disk_on(&disk.file, &disk.name, before)?;
    second.map(21, &twin)?;
    volume.export.offers[1].iqn = OTHER.parse()?;
    let (attached, _) = rig.ensure("over two controllers", &volume)?;
    ensure!(attached.map.members.len() == 2, "{attached:?}");
    let size_of = |dm: &str| -> Result<u64> {
        let sectors = fs::read_to_string(Path::new("/sys/block").join(dm).join("size"))?;
        Ok(sectors.trim().parse::<u64>()? * 512)
    };
    disk.tell_size(2 * before)?;
    let start = Instant::now();
    let key = volume.export.wwid.as_str();
    let (resized, early) = std::thread::scope(|scope| {
        let resizing = scope.spawn(|| {
            let deadline = rig.host.deadline_in(PATIENCE);
            let resized = rig.engine.resize(key, 2 * before, deadline);
            resized.map_err(|error| anyhow::anyhow!(sanpath::fault::chain(&error)))
        });
        let mut early = Vec::new();
        while start.elapsed() < LATE {
            early.push(size_of(&attached.map.dm)?);
            std::thread::sleep(Duration::from_millis(200));
        }
        twin.tell_size(2 * before)?;
        Ok::<_, anyhow::Error>((super::faults_multipath::join(resizing), early))
    })?;
    let resized = resized?;
    lab.story(format!(
        "the map has {} bytes {} ms after the first controller told them",
        resized.map.size,
        start.elapsed().as_millis()
    ));
    ensure!(
        early.iter().all(|size| *size == before),
        "it grew early: {early:?}"
    );
    ensure!(
        resized.map.size == 2 * before && resized.left_out.is_empty(),
        "{resized:?}"
    );
    ensure!(size_of(&attached.map.dm)? == 2 * before);
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    second.unmap(21, &twin)?;
    rig.remove()?;
    second.remove(&[twin])
}

/// The SAN shows less than before. Nothing is made smaller, and the error says what is amiss; with the right size back all is as it was.
fn told_a_smaller_size(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(22)?;
    let before = volume.export.size;
    let (attached, _) = rig.ensure("fresh", &volume)?;
    let key = volume.export.wwid.as_str();
    volume.disk.tell_size(before / 2)?;
    let resize = |at_least: u64| {
        let resized = rig
            .engine
            .resize(key, at_least, rig.host.deadline_in(PATIENCE));
        resized.map_err(|error| anyhow::anyhow!(sanpath::fault::chain(&error)))
    };
    for wanted in [0, 2 * before] {
        let refused = resize(wanted).err().context("a volume has shrunk")?;
        lab.story(format!("at least {wanted}: {refused}"));
        ensure!(refused.to_string().contains("must not shrink"), "{refused}");
    }
    let sectors = Path::new("/sys/block").join(&attached.map.dm).join("size");
    let sectors: u64 = fs::read_to_string(sectors)?.trim().parse()?;
    ensure!(sectors * 512 == before, "the map has {sectors} sectors");
    volume.disk.tell_size(2 * before)?;
    let resized = resize(2 * before)?;
    ensure!(resized.map.size == 2 * before, "{resized:?}");
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

fn created(orchestrator: &mut Orchestrator, name: &str, access: Access) -> Result<Volume> {
    patiently("CreateVolume", || orchestrator.create(name, BEFORE, access))
}

fn grow(orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(volume, AFTER)
    })?;
    let size = patiently("NodeExpandVolume", || orchestrator.expand_on_node(volume))?;
    ensure!(size == AFTER, "NodeExpandVolume answered {size}");
    Ok(())
}

fn place_to_write(volume: &Volume) -> std::path::PathBuf {
    match volume.access {
        Access::Block => volume.target.clone(),
        _ => volume.target.join("written"),
    }
}

/// Asked of the kernel, not of us.
pub(super) fn ensure_size(lab: &mut Lab, volume: &Volume) -> Result<()> {
    let wanted = u64::try_from(volume.size)?;
    let target = volume.target.display().to_string();
    let told = if volume.access == Access::Block {
        lab.execute(&["blockdev", "--getsize64", &target])?
    } else {
        let blocks = lab.execute(&["stat", "-f", "-c", "%b %S", &target])?;
        let (count, size) = blocks.trim().split_once(' ').context("stat -f")?;
        (count.parse::<u64>()? * size.parse::<u64>()?).to_string()
    };
    let found: u64 = told.trim().parse()?;
    let least = match volume.access {
        Access::Block => wanted,
        _ => wanted - OVERHEAD,
    };
    ensure!(
        (least..=wanted).contains(&found),
        "{:?} shows {found} of {wanted} bytes",
        volume.access
    );
    Ok(())
}

/// The disks under the volume's map.
fn member_sizes(volume: &Volume) -> Result<Vec<(String, i64)>> {
    let uuid = format!("mpath-{}", volume.wwid());
    for entry in fs::read_dir("/sys/block")? {
        let device = entry?.path();
        let found = fs::read_to_string(device.join("dm/uuid")).unwrap_or_default();
        if found.trim() != uuid {
            continue;
        }
        let members = fs::read_dir(device.join("slaves"))?;
        return members
            .map(|member| {
                let name = member?.file_name().to_string_lossy().into_owned();
                let size = fs::read_to_string(Path::new("/sys/block").join(&name).join("size"))?;
                Ok((name, size.trim().parse::<i64>()? * 512))
            })
            .collect();
    }
    anyhow::bail!("the volume has no map")
}
