//! The SAN is a machine of its own and loses its power, or comes up without its pool.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::parts::{
    SAN, SAN_POOL, orchestrator, san_command, start_plugins, start_san, stop_plugins, until,
};
use crate::kit::case::{Lab, Step};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::writer;

pub const CASES: &[FleetCase] = &[
    FleetCase {
        name: "san_loses_its_power",
        deadline: Duration::from_secs(420),
        run: san_loses_its_power,
    },
    FleetCase {
        name: "san_without_its_pool",
        deadline: Duration::from_secs(420),
        run: san_without_its_pool,
    },
];

pub const STEPS: &[Step] = &[
    Step {
        name: "volume_up",
        run: volume_up,
    },
    Step {
        name: "volume_again",
        run: volume_again,
    },
    Step {
        name: "volume_down",
        run: volume_down,
    },
    Step {
        name: "verify",
        run: verify,
    },
];

const NODE: Member = Member::Node(1);
const SIZE: i64 = 256 << 20;
/// The writer goes round in this many blocks of 64 KiB.
pub const ROUND: u64 = 512;
const STATUS: &str = "/work/writer.status";

/// Same LUNs, same WWIDs, I/O goes on within no_path_retry, no remount, and every acknowledged block is there.
fn san_loses_its_power(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODE])?;
    start_san(fleet)?;
    start_plugins(fleet, NODE)?;
    let volume: Volume =
        serde_json::from_value(fleet.step(NODE, "volume_up", json!({ "name": "outage" }))?)?;
    let mounted = mount_of(fleet, &volume)?;
    start_writer(fleet, &volume)?;
    let before = wait_for_blocks(fleet, 32)?;

    let cut = Instant::now();
    fleet.cut_power(SAN)?;
    fleet.boot_again(SAN)?;
    start_san(fleet)?;
    let after = wait_for_blocks(fleet, before + 64)?;
    println!(
        "    I/O went on {} s after the power cut; {before} blocks before it, {after} now",
        cut.elapsed().as_secs()
    );

    stop_writer(fleet)?;
    ensure!(
        mount_of(fleet, &volume)? == mounted,
        "the file system was mounted anew"
    );
    let again: Volume = serde_json::from_value(fleet.step(NODE, "volume_again", json!(volume))?)?;
    ensure!(
        again.publish_context == volume.publish_context,
        "LUNs or WWID changed: {again:?}"
    );
    let blocks = last_block(fleet)?;
    let sums = fleet.step(
        NODE,
        "verify",
        json!({ "path": volume.target.join("data"), "blocks": blocks }),
    )?;
    println!("    {blocks} blocks verified, checksums {sums}");
    fleet.step(NODE, "volume_down", json!(volume))?;
    stop_plugins(fleet, &[NODE])
}

/// No LUN is served, the error is loud, and with the pool back everything is as before.
fn san_without_its_pool(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODE])?;
    fleet.guest(SAN)?.execute(&["mkdir", "-p", "/pool/empty"])?;
    start_san(fleet)?;
    start_plugins(fleet, NODE)?;
    let volume: Volume =
        serde_json::from_value(fleet.step(NODE, "volume_up", json!({ "name": "pool" }))?)?;
    fleet.cut_power(SAN)?;
    fleet.boot_again(SAN)?;
    let san = fleet.guest(SAN)?;
    // An empty directory where the pool belongs is what an administrator sees whose fstab entry failed.
    san.execute(&["mount", "--bind", "/pool/empty", SAN_POOL])?;
    let ended = san.run(
        &san_command().iter().map(String::as_str).collect::<Vec<_>>(),
        20,
    )?;
    ensure!(
        ended.code.is_some_and(|code| code != 0),
        "the SAN started without its pool: {ended:?}"
    );
    ensure!(
        ended.stderr.contains(SAN_POOL),
        "the error does not name the pool: {}",
        ended.stderr
    );
    println!(
        "    it said: {}",
        ended.stderr.lines().last().unwrap_or_default()
    );
    let served = san.run(
        &[
            "sh",
            "-c",
            "ls -d /sys/kernel/config/target/iscsi/*/tpgt_1/lun/lun_*",
        ],
        20,
    )?;
    ensure!(
        served.stdout.is_empty(),
        "a LUN is served without the pool: {}",
        served.stdout
    );
    let made = san.execute(&["ls", "-A", SAN_POOL])?;
    ensure!(
        made.is_empty(),
        "something was made where the pool should be: {made}"
    );
    san.execute(&["umount", SAN_POOL])?;
    start_san(fleet)?;
    fleet.step(NODE, "volume_again", json!(volume))?;
    fleet.step(NODE, "volume_down", json!(volume))?;
    stop_plugins(fleet, &[NODE])
}

fn start_writer(fleet: &Fleet, volume: &Volume) -> Result<()> {
    let file = volume.target.join("data").display().to_string();
    let argv = [
        "/lab/lab",
        "--write",
        &file,
        "--status",
        STATUS,
        "--round",
        &ROUND.to_string(),
    ];
    fleet.guest(NODE)?.start(Daemon::new("writer", argv))
}

fn stop_writer(fleet: &Fleet) -> Result<()> {
    fleet.guest(NODE)?.tell(crate::kit::wire::Request::Stop {
        name: "writer".to_owned(),
    })
}

fn last_block(fleet: &Fleet) -> Result<u64> {
    let text = fleet.guest(NODE)?.run(&["cat", STATUS], 20)?.stdout;
    Ok(text.trim().parse().unwrap_or(0))
}

fn wait_for_blocks(fleet: &Fleet, goal: u64) -> Result<u64> {
    let mut blocks = 0;
    until("the writer goes on", Duration::from_secs(150), || {
        blocks = last_block(fleet)?;
        Ok(blocks >= goal)
    })?;
    Ok(blocks)
}

fn mount_of(fleet: &Fleet, volume: &Volume) -> Result<String> {
    // The mount's own number changes with every new mount.
    let target = volume.target.display().to_string();
    fleet
        .guest(NODE)?
        .execute(&["findmnt", "-n", "-o", "ID,SOURCE,FSTYPE,OPTIONS", &target])
}

fn volume_up(_: &mut Lab, given: Value) -> Result<Value> {
    let name = given["name"].as_str().context("no name")?;
    let mut orchestrator = orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create(name, SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    Ok(serde_json::to_value(volume)?)
}

fn volume_again(_: &mut Lab, given: Value) -> Result<Value> {
    let mut volume: Volume = serde_json::from_value(given)?;
    let mut orchestrator = orchestrator()?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    Ok(serde_json::to_value(volume)?)
}

fn volume_down(_: &mut Lab, given: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(given)?;
    orchestrator()?.bring_down(&volume)?;
    Ok(Value::Null)
}

fn verify(_: &mut Lab, given: Value) -> Result<Value> {
    let path = given["path"].as_str().context("no path")?;
    let blocks = given["blocks"].as_u64().context("no blocks")?;
    let sums = writer::verify(std::path::Path::new(path), blocks, ROUND)?;
    Ok(
        json!({ "written": format!("{:016x}", sums.written), "read": format!("{:016x}", sums.read) }),
    )
}
