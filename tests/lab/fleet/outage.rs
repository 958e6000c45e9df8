//! The SAN is a machine of its own and loses its power, or comes up without its pool.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::kit::case::{Lab, SANPATH, Step};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::topology::{self, Link};
use crate::kit::writer;

pub const CASES: &[FleetCase] = &[
    FleetCase {
        name: "san_loses_its_power",
        deadline: Duration::from_secs(420),
        run: san_loses_its_power,
    },
    FleetCase {
        name: "san_without_its_pool",
        deadline: Duration::from_secs(240),
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

const SAN: Member = Member::San(1);
const NODE: Member = Member::Node(1);
const SIZE: i64 = 256 << 20;
/// The writer goes round in this many blocks of 64 KiB.
const ROUND: u64 = 512;
const STATUS: &str = "/work/writer.status";
const CONTROLLER: &str = "/work/controller.sock";
const PLUGIN: &str = "/work/node.sock";
const CONFIG: &str = "/work/config.yaml";
/// On the SAN's own disk, beside the pool and not in it, so that both outlive a power cut.
const SAN_STATE: &str = "/pool/state";
const SAN_POOL: &str = "/pool/volumes";

/// Same LUNs, same WWIDs, I/O goes on within no_path_retry, no remount, and every acknowledged block is there.
fn san_loses_its_power(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODE])?;
    fleet
        .guest(SAN)?
        .execute(&["mkdir", "-p", SAN_STATE, SAN_POOL])?;
    start_san(fleet)?;
    start_plugins(fleet)?;
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
    stop_plugins(fleet)
}

/// No LUN is served, the error is loud, and with the pool back everything is as before.
fn san_without_its_pool(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODE])?;
    fleet
        .guest(SAN)?
        .execute(&["mkdir", "-p", SAN_STATE, SAN_POOL, "/pool/empty"])?;
    start_san(fleet)?;
    start_plugins(fleet)?;
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
    stop_plugins(fleet)
}

fn san_command() -> Vec<String> {
    let listen = format!("{}:7420", Link::MANAGEMENT.san_address(1));
    let mut argv = vec![
        SANPATH,
        "san",
        "--pool",
        SAN_POOL,
        "--state-dir",
        SAN_STATE,
        "--insecure",
        "--listen",
        &listen,
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    for path in topology::paths() {
        argv.extend(["--portal".to_owned(), path.san_address(1)]);
    }
    argv
}

fn start_san(fleet: &Fleet) -> Result<()> {
    fleet.guest(SAN)?.start(Daemon::new("san", san_command()))
}

fn start_plugins(fleet: &Fleet) -> Result<()> {
    let node = fleet.guest(NODE)?;
    let paths: Vec<String> = topology::paths().map(|path| path.san_address(1)).collect();
    let config = format!(
        "version: 1\npartitions:\n  cluster-a:\n    blockstoragemanager: linux\n    sanhost: {}:7420\n    ncpaths: {}\n",
        Link::MANAGEMENT.san_address(1),
        paths.join(",")
    );
    node.execute(&[
        "sh",
        "-c",
        &format!("mkdir -p /work && printf '%s' '{config}' > {CONFIG}"),
    ])?;
    let plugin = |role: &str, socket: &str, more: &[&str]| {
        let endpoint = format!("unix://{socket}");
        let words = [SANPATH, role, "--config", CONFIG, "--endpoint", &endpoint];
        Daemon::new(role, words.iter().chain(more).map(|&word| word.to_owned()))
    };
    node.start(plugin("controller", CONTROLLER, &[]))?;
    node.start(plugin(
        "node",
        PLUGIN,
        &["--node-name", "node1", "--session-idle", "1s"],
    ))
}

/// Stops the plugins once the reaper has logged out what no volume needs.
fn stop_plugins(fleet: &Fleet) -> Result<()> {
    let node = fleet.guest(NODE)?;
    until(
        "the idle sessions are logged out",
        Duration::from_secs(60),
        || {
            Ok(node
                .run(&["sh", "-c", "ls /sys/class/iscsi_session"], 20)?
                .stdout
                .trim()
                .is_empty())
        },
    )?;
    let san = fleet.guest(SAN)?;
    until(
        "the empty target is removed",
        Duration::from_secs(60),
        || {
            let targets = san.run(&["sh", "-c", "ls /sys/kernel/config/target/iscsi"], 20)?;
            Ok(!targets.stdout.contains("dev.sanpath"))
        },
    )?;
    for name in ["node", "controller"] {
        node.tell(crate::kit::wire::Request::Stop {
            name: name.to_owned(),
        })?;
    }
    san.tell(crate::kit::wire::Request::Stop {
        name: "san".to_owned(),
    })
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

fn until(what: &str, deadline: Duration, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + deadline;
    while !reached()? {
        if Instant::now() > end {
            bail!("not within {} s: {what}", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

fn orchestrator() -> Result<Orchestrator> {
    let sockets = [CONTROLLER, PLUGIN].map(std::path::Path::new);
    until("both plugins answer", Duration::from_secs(120), || {
        Ok(sockets.iter().all(|socket| socket.exists()))
    })?;
    Orchestrator::connect(
        sockets[0],
        sockets[1],
        std::path::Path::new("/work/kubelet"),
    )
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
