//! A node loses its power with volumes staged, and meanwhile the SAN gives one of them to another node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::outage::ROUND;
use super::parts::{
    SAN, SAN_STATE, orchestrator, start_node, start_plugins, start_san, stop, stop_plugins,
};
use crate::kit::case::{Lab, Step};
use crate::kit::csi::{Access, Volume, leaves_open, patiently};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::writer::Writer;

pub const CASES: &[FleetCase] = &[FleetCase {
    name: "node_reboots",
    deadline: Duration::from_secs(900),
    run: node_reboots,
}];

pub const STEPS: &[Step] = &[
    Step {
        name: "node_id",
        run: node_id,
    },
    Step {
        name: "write_blocks",
        run: write_blocks,
    },
    Step {
        name: "unpublish",
        run: unpublish,
    },
    Step {
        name: "unstage_cut_off",
        run: unstage_cut_off,
    },
    Step {
        name: "unstage",
        run: unstage,
    },
    Step {
        name: "make_and_export",
        run: export_step,
    },
    Step {
        name: "unexport_from",
        run: unexport_from,
    },
    Step {
        name: "delete",
        run: delete,
    },
    Step {
        name: "bring_up",
        run: bring_up_step,
    },
];

const NODE: Member = Member::Node(1);
const OTHER: Member = Member::Node(2);
const SIZE: i64 = 128 << 20;
const STATUS: &str = "/work/writer.status";
/// Longer than the pause between two rounds of the plugin's path keeper, and many of its reaper's.
const ROUNDS_OF_THE_PLUGIN: Duration = Duration::from_secs(12);
/// The plugin dies after so many changes of the host in an unstage: the mount is gone, `leaving` is durable, the map is flushed and removed, its disks
/// are there.
const IN_THE_DETACH: &str = "4";

/// Three volumes are staged and a fourth is half detached when the power goes. The second is given to another node, the fourth's LUN number to
/// another volume. After the reboot nothing is logged in or scanned on the word of the old ledger and the old node records; what is still ours comes
/// back by stage with its data, the rest is forgotten by unstage, and the other node never notices.
fn node_reboots(fleet: &mut Fleet) -> Result<()> {
    let before = until_the_power_goes(fleet)?;
    let given = give_away(fleet, &before)?;
    let second = write_on(fleet, &given)?;
    let number = lun_of(&before.leaving)?;
    wrap_lun_numbers(fleet, &number)?;

    let records = come_back(fleet)?;
    let heir = make_and_export(fleet, "heir")?;
    ensure!(
        lun_of(&heir)? == number,
        "the new volume has LUN {}, not the {number} of the one that was leaving",
        lun_of(&heir)?
    );
    std::thread::sleep(ROUNDS_OF_THE_PLUGIN);
    expect_devices(fleet, 0, &[])?;

    let kept = bring_up(fleet, NODE, &before.kept)?;
    let later = bring_up(fleet, NODE, &before.later)?;
    std::thread::sleep(ROUNDS_OF_THE_PLUGIN);
    expect_devices(fleet, 2, &[&kept, &later])?;
    for volume in [&kept, &later] {
        verify(fleet, NODE, &volume.target.join("data"), before.blocks)?;
    }
    // What the kubelet finds on its disk after a reboot and no pod wants.
    for volume in [&before.given, &before.leaving] {
        fleet.step(NODE, "unstage", json!(volume))?;
    }
    expect_devices(fleet, 2, &[&kept, &later])?;
    let heir = bring_up(fleet, NODE, &heir)?;
    expect_devices(fleet, 2, &[&kept, &later, &heir])?;
    println!(
        "    {records} records outlived the reboot; no session and no disk came of them, and LUN {number} is another volume"
    );

    stop(fleet, OTHER, "writer")?;
    let written = fleet.guest(OTHER)?.execute(&["cat", STATUS])?;
    let written: u64 = written.trim().parse().context("the writer's last note")?;
    verify(fleet, OTHER, &second, written)?;
    println!("    the other node wrote {written} blocks meanwhile, and all of them are there");
    fleet.step(OTHER, "volume_down", json!(given))?;
    for volume in [&kept, &later, &heir] {
        fleet.step(NODE, "volume_down", json!(volume))?;
    }
    fleet.step(NODE, "delete", json!(before.leaving))?;
    stop_plugins(fleet, &[NODE, OTHER])
}

/// The node's volumes as they are when its power goes.
struct Before {
    kept: Volume,
    given: Volume,
    later: Volume,
    leaving: Volume,
    /// How many blocks each of the first three holds.
    blocks: u64,
    node_id: Value,
}

fn until_the_power_goes(fleet: &mut Fleet) -> Result<Before> {
    fleet.give_disk(NODE);
    fleet.boot(&[SAN, NODE])?;
    start_san(fleet)?;
    start_plugins(fleet, NODE)?;
    let up = |name: &str| -> Result<Volume> {
        let volume = fleet.step(NODE, "volume_up", json!({ "name": name }))?;
        Ok(serde_json::from_value(volume)?)
    };
    let (kept, given, later) = (up("kept")?, up("given")?, up("later")?);
    let before = Before {
        leaving: up("leaving")?,
        blocks: fill(fleet, &[&kept, &given, &later])?,
        node_id: fleet.step(NODE, "node_id", Value::Null)?,
        kept,
        given,
        later,
    };
    // iscsiadm does not wait for the disk when it writes a record; after half a minute the kernel would have written it by itself.
    fleet.guest(NODE)?.execute(&["sync"])?;
    cut_off_in_the_detach(fleet, &before.leaving)?;
    fleet.cut_power(NODE)?;
    Ok(before)
}

/// The orchestrator has given the node up: two of its volumes are taken from it, and one of them is used on another node.
fn give_away(fleet: &mut Fleet, before: &Before) -> Result<Volume> {
    fleet.boot(&[OTHER])?;
    start_plugins(fleet, OTHER)?;
    for volume in [&before.given, &before.leaving] {
        let arguments = json!({ "volume": volume, "node_id": before.node_id });
        fleet.step(OTHER, "unexport_from", arguments)?;
    }
    let given = bring_up(fleet, OTHER, &before.given)?;
    verify(fleet, OTHER, &given.target.join("data"), before.blocks)?;
    Ok(given)
}

/// Starts a writer on the other node; the file it writes.
fn write_on(fleet: &Fleet, given: &Volume) -> Result<PathBuf> {
    let file = given.target.join("second");
    let (path, round) = (file.display().to_string(), ROUND.to_string());
    let writer = format!("/lab/lab --write {path} --status {STATUS} --round {round}");
    let writer = writer.split(' ');
    fleet.guest(OTHER)?.start(Daemon::new("writer", writer))?;
    Ok(file)
}

/// The node boots, with its disk of before; how many records are on it.
fn come_back(fleet: &mut Fleet) -> Result<u32> {
    fleet.boot_again(NODE)?;
    let records = records_on_disk(fleet)?;
    // Four of ours, and one of open-iscsi for each portal.
    ensure!(
        records >= 6,
        "only {records} ledger and node records outlived the reboot: it proves nothing"
    );
    start_plugins(fleet, NODE)?;
    Ok(records)
}

/// Writes to each volume; how many blocks all of them have.
fn fill(fleet: &Fleet, volumes: &[&Volume]) -> Result<u64> {
    let mut least = u64::MAX;
    for volume in volumes {
        let blocks = fleet.step(NODE, "write_blocks", json!(volume.target.join("data")))?;
        least = least.min(blocks.as_u64().context("no number of blocks")?);
    }
    Ok(least)
}

/// Has the plugin die in the middle of an unstage. The ledger tells how far it came.
fn cut_off_in_the_detach(fleet: &Fleet, volume: &Volume) -> Result<()> {
    fleet.step(NODE, "unpublish", json!(volume))?;
    stop(fleet, NODE, "node")?;
    let crash = [("SANPATH_CRASH_AFTER_STEP", IN_THE_DETACH)];
    start_node(fleet, NODE, &crash)?;
    fleet.step(NODE, "unstage_cut_off", json!(volume))?;
    let count = "grep -l '\"leaving\": true' /var/lib/sanpath/node/ledger/*.json | wc -l";
    let leaving = fleet.guest(NODE)?.execute(&["sh", "-c", count])?;
    ensure!(
        leaving.trim() == "1",
        "{leaving} records are leaving: the plugin did not die in the middle of a detach"
    );
    Ok(())
}

/// As if the SAN had given every number once: the next export on the node's target gets `lun`. A SAN that takes the lowest free number does so at
/// once.
fn wrap_lun_numbers(fleet: &Fleet, lun: &str) -> Result<()> {
    stop(fleet, SAN, "san")?;
    let edit = format!("s/\"next_lun\": *[0-9]*/\"next_lun\": {lun}/");
    let state = format!("{SAN_STATE}/state.json");
    fleet.guest(SAN)?.execute(&["sed", "-i", &edit, &state])?;
    start_san(fleet)
}

/// The number under which the volume was exported: the middle one of `PORTAL=LUN=IQN`.
fn lun_of(volume: &Volume) -> Result<String> {
    let offers = volume.publish_context.get("offers").context("no offers")?;
    let lun = offers.split('=').nth(1);
    let number: u16 = lun
        .and_then(|lun| lun.parse().ok())
        .with_context(|| format!("no LUN in {offers}"))?;
    Ok(number.to_string())
}

/// How many records of ours and of open-iscsi the node's disk holds.
fn records_on_disk(fleet: &Fleet) -> Result<u32> {
    let count = "find /var/lib/sanpath/node/ledger /var/lib/iscsi/nodes /etc/iscsi/nodes -type f -size +0 2>/dev/null | wc -l";
    let records = fleet.guest(NODE)?.execute(&["sh", "-c", count])?;
    records.trim().parse().context("the number of records")
}

/// The node has exactly these sessions, and under them a disk for each of these volumes on each path and no other.
fn expect_devices(fleet: &Fleet, sessions: usize, volumes: &[&Volume]) -> Result<()> {
    let look = "ls /sys/class/iscsi_session; cat /sys/block/sd*/device/wwid";
    let seen = fleet.guest(NODE)?.run(&["sh", "-c", look], 20)?.stdout;
    let mut found: Vec<String> = Vec::new();
    let mut logged_in = 0;
    for line in seen.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("naa.") {
            Some(naa) => found.push(format!("3{naa}")),
            None => logged_in += 1,
        }
    }
    let mut expected: Vec<String> = volumes
        .iter()
        .flat_map(|volume| [volume.wwid().to_owned(), volume.wwid().to_owned()])
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(
        logged_in == sessions && found == expected,
        "expected {sessions} sessions and the disks {expected:?}, there is: {seen}"
    );
    Ok(())
}

fn make_and_export(fleet: &Fleet, name: &str) -> Result<Volume> {
    let made = fleet.step(NODE, "make_and_export", json!({ "name": name }))?;
    Ok(serde_json::from_value(made)?)
}

fn bring_up(fleet: &Fleet, member: Member, volume: &Volume) -> Result<Volume> {
    let staged = fleet.step(member, "bring_up", json!(volume))?;
    Ok(serde_json::from_value(staged)?)
}

fn verify(fleet: &Fleet, member: Member, file: &Path, blocks: u64) -> Result<()> {
    let arguments = json!({ "path": file, "blocks": blocks });
    fleet.step(member, "verify", arguments).map(drop)
}

fn node_id(_: &mut Lab, _: Value) -> Result<Value> {
    Ok(json!(orchestrator()?.node_id))
}

/// Writes a few blocks, each on disk before the next, and tells how many.
fn write_blocks(_: &mut Lab, path: Value) -> Result<Value> {
    let path: PathBuf = serde_json::from_value(path)?;
    let writer = Writer::start(&path, ROUND)?;
    writer.wait_for_more(32, Duration::from_secs(60))?;
    Ok(json!(writer.finish()?))
}

fn unpublish(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    let mut orchestrator = orchestrator()?;
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
    Ok(Value::Null)
}

/// An unstage that is not answered, since the plugin dies in it.
fn unstage_cut_off(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    match orchestrator()?.unstage(&volume) {
        Err(status) if leaves_open(&status) => Ok(Value::Null),
        other => bail!("the plugin was to die in the unstage: {other:?}"),
    }
}

fn unstage(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    let mut orchestrator = orchestrator()?;
    orchestrator.leave_node(&volume)?;
    std::fs::remove_dir(&volume.staging)?;
    Ok(Value::Null)
}

fn export_step(_: &mut Lab, given: Value) -> Result<Value> {
    let name = given["name"].as_str().context("no name")?;
    let mut orchestrator = orchestrator()?;
    let volume = orchestrator.create_attached(name, SIZE, Access::Ext4)?;
    Ok(json!(volume))
}

/// Takes a volume away from a node that is not there to be asked.
fn unexport_from(_: &mut Lab, given: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(given["volume"].clone())?;
    let mut orchestrator = orchestrator()?;
    orchestrator.node_id = serde_json::from_value(given["node_id"].clone())?;
    patiently("ControllerUnpublishVolume", || orchestrator.detach(&volume))?;
    Ok(Value::Null)
}

fn delete(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    let mut orchestrator = orchestrator()?;
    patiently("DeleteVolume", || orchestrator.delete(&volume))?;
    Ok(Value::Null)
}

/// The way up for a volume that is there; what it was exported as.
fn bring_up_step(_: &mut Lab, volume: Value) -> Result<Value> {
    let mut volume: Volume = serde_json::from_value(volume)?;
    orchestrator()?.bring_up(&mut volume)?;
    Ok(json!(volume))
}
