//! A node is given up while it runs and writes: its volume goes to another node, and nothing that it still writes lands.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::parts::{SAN, orchestrator, start_plugins, start_san, stop_plugins, until};
use crate::kit::case::{Lab, Step};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::writer;

pub const CASES: &[FleetCase] = &[FleetCase {
    name: "forced_detach",
    deadline: Duration::from_secs(600),
    run: forced_detach,
}];

pub const STEPS: &[Step] = &[
    Step {
        name: "raw_volume",
        run: raw_volume,
    },
    Step {
        name: "published_to",
        run: published_to,
    },
    Step {
        name: "verify_raw",
        run: verify_raw,
    },
    Step {
        name: "leave_at_last",
        run: leave_at_last,
    },
];

const LOST: Member = Member::Node(1);
const HEIR: Member = Member::Node(2);
const MIB: i64 = 128;
/// The writer does not come round: what was acknowledged before the cut is still there after it.
const ROUND: u64 = MIB as u64 * 16;
const STATUS: &str = "/work/writer.status";
/// Longer than a write that was in flight could take, and than many rounds of the path checker.
const LONG_AFTER: Duration = Duration::from_secs(15);

/// A writes, is unpublished without unstage while its session lives, B stages and writes. What A was told is written before the cut is there, what it
/// writes after the cut never lands, and what it has left of the volume goes when its kubelet comes round to it.
fn forced_detach(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, LOST, HEIR])?;
    start_san(fleet)?;
    for member in [LOST, HEIR] {
        start_plugins(fleet, member)?;
    }
    let id_of = |member| fleet.step(member, "node_id", Value::Null);
    let (lost_id, heir_id) = (id_of(LOST)?, id_of(HEIR)?);
    let volume: Volume = serde_json::from_value(fleet.step(LOST, "raw_volume", Value::Null)?)?;
    start_writer(fleet, &volume)?;
    until("the writer is at work", Duration::from_secs(90), || {
        Ok(acknowledged(fleet)? >= 64)
    })?;

    let before = acknowledged(fleet)?;
    let cut = Instant::now();
    let arguments = json!({ "volume": volume, "node_id": lost_id });
    fleet.step(HEIR, "unexport_from", arguments)?;
    let cut = cut.elapsed();
    let heir = fleet.step(HEIR, "bring_up", json!(volume))?;
    let heir: Volume = serde_json::from_value(heir)?;
    let nodes = fleet.step(HEIR, "published_to", json!(volume))?;
    ensure!(nodes == json!([heir_id]), "published to {nodes}");
    let after = acknowledged(fleet)?;
    let arguments = json!({ "path": heir.target, "blocks": before });
    fleet.step(HEIR, "verify_raw", arguments)?;
    println!(
        "    the cut took {} ms under a writer; {before} blocks acknowledged before it are there, {after} when it was done",
        cut.as_millis()
    );

    // Whatever the lost node still has to write is not zero.
    clear(fleet, &heir)?;
    std::thread::sleep(LONG_AFTER);
    expect_clear(fleet, &heir)?;
    ensure!(
        acknowledged(fleet)? == after,
        "the lost node was told of a write that the SAN did not take"
    );
    let sessions = fleet
        .guest(LOST)?
        .execute(&["ls", "/sys/class/iscsi_session"])?;
    ensure!(
        !sessions.trim().is_empty(),
        "the lost node has no session: it was not fenced while it lives"
    );

    // The writer ends by the error that it meets once its I/O has waited long enough.
    let answers = fleet.step(LOST, "leave_at_last", json!(volume))?;
    println!("    the lost node let go of it after {answers}");
    let left = "cat /sys/block/*/device/wwid /sys/block/dm-*/dm/uuid 2>/dev/null";
    let left = fleet.guest(LOST)?.run(&["sh", "-c", left], 20)?.stdout;
    let naa = volume.wwid().trim_start_matches('3').to_owned();
    ensure!(
        !naa.is_empty() && !left.contains(&naa),
        "the lost node still has {naa}: {left}"
    );
    expect_clear(fleet, &heir)?;
    fleet.step(HEIR, "volume_down", json!(heir))?;
    stop_plugins(fleet, &[LOST, HEIR])
}

fn start_writer(fleet: &Fleet, volume: &Volume) -> Result<()> {
    let (path, round) = (volume.target.display().to_string(), ROUND.to_string());
    let writer = format!("/lab/lab --write {path} --status {STATUS} --round {round}");
    let writer = Daemon::new("writer", writer.split(' '));
    fleet.guest(LOST)?.start(writer)
}

fn acknowledged(fleet: &Fleet) -> Result<u64> {
    let text = fleet.guest(LOST)?.run(&["cat", STATUS], 20)?.stdout;
    Ok(text.trim().parse().unwrap_or(0))
}

/// Writes zeros all over the volume, past the cache.
fn clear(fleet: &Fleet, volume: &Volume) -> Result<()> {
    let to = format!("of={}", volume.target.display());
    let count = format!("count={MIB}");
    let argv = ["dd", "if=/dev/zero", &to, "bs=1M", &count, "oflag=direct"];
    let ended = fleet.guest(HEIR)?.run(&argv, 120)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

/// Reads the whole volume past the cache: nothing but zeros.
fn expect_clear(fleet: &Fleet, volume: &Volume) -> Result<()> {
    let count = format!(
        "dd if={} bs=1M iflag=direct | tr -d '\\000' | wc -c",
        volume.target.display()
    );
    let ended = fleet.guest(HEIR)?.run(&["sh", "-c", &count], 120)?;
    let copied = ended.stderr.contains(&format!("{MIB}+0 records in"));
    ensure!(
        copied && ended.stdout.trim() == "0",
        "bytes of the lost node landed after the cut: {ended:?}"
    );
    Ok(())
}

/// A raw volume in use on this node; without a path its I/O waits a few rounds of the checker and then fails.
fn raw_volume(_: &mut Lab, _: Value) -> Result<Value> {
    let mut orchestrator = orchestrator()?;
    let parameters = [("noPathRetry", "5")];
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create_with("fenced", MIB << 20, Access::Block, &parameters)
    })?;
    orchestrator.bring_up(&mut volume)?;
    Ok(json!(volume))
}

fn published_to(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    Ok(json!(orchestrator()?.published_to(&volume)?))
}

fn verify_raw(_: &mut Lab, given: Value) -> Result<Value> {
    let path: PathBuf = serde_json::from_value(given["path"].clone())?;
    let blocks = given["blocks"].as_u64().context("no blocks")?;
    writer::verify(&path, blocks, ROUND)?;
    Ok(Value::Null)
}

/// Unpublishes and unstages as a kubelet does, that is again and again, whatever the answer; the answers on the way.
fn leave_at_last(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    let mut orchestrator = orchestrator()?;
    let mut answers = Vec::new();
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let left = orchestrator
            .unpublish(&volume)
            .and_then(|()| orchestrator.unstage(&volume));
        let Err(status) = left else {
            std::fs::remove_dir(&volume.staging)?;
            return Ok(json!(answers));
        };
        let answer = format!("{:?}: {}", status.code(), status.message());
        if answers.last() != Some(&answer) {
            answers.push(answer);
        }
        if Instant::now() > end {
            bail!("the volume does not leave: {answers:#?}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
