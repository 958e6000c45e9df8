//! Paths of live volumes, with nobody calling: missing ones join, the config's list is followed as it changes, and what the node says of it meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::attach::Want;
use serde_json::Value;

use super::attach::{PATIENCE, Rig};
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Orchestrator, Volume};
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link, SAN_NAMESPACE};
use crate::kit::writer::{self, Writer};
use crate::kit::{daemons, paths};

pub const CASES: &[Case] = &[
    Case {
        name: "paths_heal_under_a_writer",
        deadline: Duration::from_secs(480),
        run: paths_heal,
    },
    Case {
        name: "three_paths_one_black_holed",
        deadline: Duration::from_secs(360),
        run: three_paths,
    },
];

/// What only the long run proves.
pub const LONG: &[Case] = &[
    Case {
        name: "stuck_scan_of_a_volume_that_leaves",
        deadline: Duration::from_secs(240),
        run: stuck_scan,
    },
    Case {
        name: "path_failed_by_hand_is_left_alone",
        deadline: Duration::from_secs(360),
        run: failed_by_hand,
    },
];

const SIZE: i64 = 128 << 20;
/// Blocks after which the writer starts over.
const ROUND: u64 = 64;
/// A path that is there again, or newly listed, serves by then.
const JOINED: Duration = Duration::from_secs(60);
/// How long one path is blocked at a time.
const BLOCKED: Duration = Duration::from_secs(15);
/// Where the node tells its numbers.
const METRICS: &str = "127.0.0.1:9810";
/// How long all are gone: much less than `no_path_retry` of the lab's multipath.conf.
const ALL_GONE: Duration = Duration::from_secs(10);

/// The whole life of one volume whose paths come and go, in one go since each part needs what the one before it has made.
fn paths_heal(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        node_arguments: &["--metrics", METRICS],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("heals", SIZE, Access::Ext4)?;
    paths::cut(Link(1))?;
    let degraded = staged_degraded(lab, &mut orchestrator, &mut volume);
    paths::restore(Link(1))?;
    let restored = Instant::now();
    degraded?;
    let file = volume.target.join("written");
    let writer = Writer::start(&file, ROUND)?;
    joined(
        lab,
        &volume,
        "the path that was missing at the stage",
        restored,
    )?;
    lab.wait_for("it to be whole", PATIENCE, || {
        let health = orchestrator.health(&volume)?;
        ensure!(health.is_empty(), "{health:?}");
        Ok(Some(()))
    })?;

    follows_the_list(lab, &stack, &volume)?;
    writer.wait_for_more(5, PATIENCE)?;
    each_path_is_blocked(lab, &volume, &writer)?;
    topology::paths().try_for_each(paths::cut)?;
    sleep(ALL_GONE);
    topology::paths().try_for_each(paths::restore)?;
    let back = writer.wait_for_more(5, PATIENCE);
    back.context("after all paths were gone")?;
    wait_for_paths(lab, &volume, 2, 2)?;

    let pause = writer.progress().longest_pause;
    let blocks = writer.finish()?;
    writer::verify(&file, blocks, ROUND)?;
    lab.story(format!(
        "{blocks} blocks without an error, the longest pause {} ms",
        pause.as_millis()
    ));
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// With one path cut a stage succeeds and every place tells what is missing.
fn staged_degraded(lab: &Lab, orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    let start = Instant::now();
    orchestrator.bring_up(volume)?;
    let took = start.elapsed().as_millis();
    let log = fs::read_to_string(daemons::log_of("node"))?;
    ensure!(log.contains("staged degraded"), "the log says nothing");
    // A multipathd that is busy says nothing of paths for once.
    let message = lab.wait_for("the loss to be told", PATIENCE, || {
        let health = orchestrator.health(volume)?;
        let [(reason, message)] = &health[..] else {
            anyhow::bail!("{health:?}")
        };
        ensure!(reason == "PathLoss", "{health:?}");
        Ok(Some(message.clone()))
    })?;
    let shown = wait_for_paths(lab, volume, 1, 2)?;
    let missing = &shown["paths"][0];
    let (state, note) = (&missing["state"], &missing["note"]);
    lab.story(format!(
        "staged on one of two paths in {took} ms: {message}; {} is {state}: {note}",
        missing["element"]
    ));
    ensure!(missing["portal"] == "10.101.1.1:3260", "{shown:#}");
    lab.wait_for("the table to tell", PATIENCE, || {
        let table = lab.execute(&[SANPATH, "paths"])?;
        ensure!(table.contains("1 of 2 paths  DEGRADED"), "{table}");
        Ok(Some(()))
    })?;
    lab.wait_for("the numbers to tell", PATIENCE, || {
        let numbers = scrape()?;
        for told in [
            r#"sanpath_calls_total{service="Node",method="NodeStageVolume",code="OK"} 1"#,
            r#"reason="PathLoss"} 1"#,
            r#"portal="10.101.1.1:3260",iface=""} 0"#,
            "sanpath_look_complete{} 1",
        ] {
            ensure!(numbers.contains(told), "{told} is not in {numbers}");
        }
        Ok(Some(()))
    })
}

/// The node's numbers, as Prometheus reads them.
fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// A path that the list has no longer leaves, an address at which the volume was not offered is told, and what is listed anew joins.
fn follows_the_list(lab: &Lab, stack: &Stack, volume: &Volume) -> Result<()> {
    let both: Vec<String> = topology::paths().map(|path| path.san_address(1)).collect();
    stack.set_paths(&format!("{},10.109.1.9", both[1]))?;
    let start = Instant::now();
    let shown = wait_for_paths(lab, volume, 1, 1)?;
    let of = |element: &str| -> Option<&Value> {
        let mut rows = shown["paths"].as_array()?.iter();
        rows.find(|row| row["element"] == element)
    };
    let unoffered = of("10.109.1.9").context("the address is not shown")?;
    ensure!(unoffered["state"] == "needs re-attach", "{shown:#}");
    let left = lab.wait_for("the removed path to be forgotten", PATIENCE, || {
        let shown = paths_of(lab, volume)?;
        let rows = shown["paths"].as_array().map_or(0, Vec::len);
        let disks = fs::read_dir("/sys/block")?.flatten();
        let disks = disks.filter(|it| it.file_name().to_string_lossy().starts_with("sd"));
        Ok((rows == 2 && disks.count() == 1).then(|| start.elapsed()))
    })?;
    lab.story(format!(
        "a path that is listed no more was gone after {} ms; {}",
        left.as_millis(),
        unoffered["note"]
    ));
    stack.set_paths(&both.join(","))?;
    joined(lab, volume, "a path that is listed anew", Instant::now())
}

/// Every path in turn is a black hole for a while and comes back; writing goes on over the other.
fn each_path_is_blocked(lab: &Lab, volume: &Volume, writer: &Writer) -> Result<()> {
    for link in topology::paths() {
        writer.forget_pauses();
        paths::black_hole(link)?;
        let begun = Instant::now();
        let portal = format!("portal=\"{}:3260\"", link.san_address(1));
        let is_lost = |line: &str| {
            let names_it = line.starts_with("sanpath_path_active") && line.contains(&portal);
            names_it && line.ends_with("} 0")
        };
        let told = lab.wait_for("the loss to be in the numbers", 2 * BLOCKED, || {
            Ok(scrape()?.lines().any(is_lost).then(|| begun.elapsed()))
        });
        sleep(BLOCKED.saturating_sub(begun.elapsed()));
        let wrote = writer.wait_for_more(1, PATIENCE);
        paths::clear(link)?;
        wrote.context("over the other path")?;
        let told = told?.as_millis();
        let cleared = Instant::now();
        wait_for_paths(lab, volume, 2, 2)?;
        lab.story(format!(
            "path {} blocked for {} s, in the numbers after {told} ms: a pause of {} ms; it served again {} ms after",
            link.0,
            BLOCKED.as_secs(),
            writer.progress().longest_pause.as_millis(),
            cleared.elapsed().as_millis()
        ));
    }
    Ok(())
}

/// One of three paths swallows everything: without a session to it, and with one that nobody has found dead yet.
fn three_paths(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        more_portals: &["10.102.1.11"],
        ..Plan::default()
    };
    let device = Link(2).san_name();
    let address = |lab: &Lab, verb: &str| -> Result<()> {
        let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
        let words = ["nsenter", &network, "ip", "address", verb, "10.102.1.11/24"];
        lab.execute(&[&words[..], &["dev", &device]].concat())?;
        Ok(())
    };
    address(lab, "add")?;
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volumes = Vec::new();
    for name in ["cold", "healthy", "warm"] {
        let volume = orchestrator.create_attached(name, SIZE, Access::Block)?;
        volumes.push((name, volume));
    }
    let mut times = Vec::new();
    // Each stays, so that the sessions of the first are there for the others.
    for (name, volume) in &volumes {
        let is_dead = *name != "healthy";
        let took = staged_over_three(lab, &mut orchestrator, volume, is_dead)?;
        times.push(format!("{name} {} ms", took.as_millis()));
        if *name != "warm" {
            wait_for_paths(lab, volume, 3, 3)?;
        }
    }
    lab.story(format!(
        "three paths, one of them a black hole unless healthy: {}",
        times.join(", ")
    ));
    for (_, volume) in &volumes {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)?;
    address(lab, "del")
}

/// How long the stage took; the dead path was told.
fn staged_over_three(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    volume: &Volume,
    is_dead: bool,
) -> Result<Duration> {
    if is_dead {
        paths::black_hole(Link(1))?;
        // Dropped a moment before, so that a session over it still counts as good.
        sleep(Duration::from_secs(1));
    }
    let start = Instant::now();
    let staged = orchestrator.stage(volume);
    let took = start.elapsed();
    // Another living path may be on its way still.
    let found = wait_for_paths(lab, volume, if is_dead { 2 } else { 3 }, 3);
    let health = lab.wait_for("what is told of it", PATIENCE, || {
        let health = orchestrator.health(volume)?;
        ensure!(health.is_empty() != is_dead, "{health:?}");
        Ok(Some(()))
    });
    if is_dead {
        paths::clear(Link(1))?;
    }
    staged.context("two living paths are enough")?;
    found.and(health)?;
    Ok(took)
}

/// A scan that hangs on a portal which swallows everything, of a volume that has left when the portal is back: nothing of it is left.
fn stuck_scan(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let (stays, leaves) = (rig.volume(90)?, rig.volume(91)?);
    rig.ensure("the sessions are up", &stays)?;
    paths::black_hole(Link(2))?;
    let start = Instant::now();
    let ended = std::thread::scope(|scope| -> Result<_> {
        // Before the initiator finds its session dead, so that the scan itself comes back.
        let clears = scope.spawn(|| {
            sleep(Duration::from_secs(7));
            paths::clear(Link(2))
        });
        let want = Want {
            grace: Duration::ZERO,
            ..rig.want(&leaves)
        };
        let attached = rig.engine.ensure(&want);
        let staged = start.elapsed();
        let detached = rig.detach("detach while the scan hangs", &leaves);
        let left = start.elapsed();
        super::attach::ended(clears)?;
        let attached = attached.map_err(|error| anyhow::anyhow!("{error}"))?;
        detached?;
        ensure!(attached.map.members.len() == 1, "{:?}", attached.map);
        Ok((staged, left, attached.missing))
    });
    let (staged, left, missing) = ended?;
    lab.story(format!(
        "on one path after {} ms without {missing:?}, away after {} ms; the portal was back after 7000 ms",
        staged.as_millis(),
        left.as_millis()
    ));
    // The scan's thread takes away what it brings.
    sleep(Duration::from_secs(20));
    let note = format!("naa.{}", &leaves.wwid().as_str()[1..]);
    for block in fs::read_dir("/sys/block")?.flatten() {
        let wwid = fs::read_to_string(block.path().join("device/wwid")).unwrap_or_default();
        ensure!(wwid.trim() != note, "{:?} is left", block.file_name());
    }
    let known = lab.execute(&["multipathd", "show", "paths", "raw", "format", "%w"])?;
    ensure!(!known.contains(leaves.wwid().as_str()), "{known}");
    rig.ensure("the neighbour is whole", &stays)?;
    rig.detach("detach", &stays)?;
    rig.unmap(&stays)?;
    rig.unmap(&leaves)?;
    rig.remove()
}

/// `multipathd fail path`: told after a minute, and not touched.
fn failed_by_hand(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("by-hand", SIZE, Access::Block)?;
    orchestrator.bring_up(&mut volume)?;
    let shown = wait_for_paths(lab, &volume, 2, 2)?;
    let disk = shown["paths"][1]["disk"].as_str().context("no disk")?;
    lab.execute(&["multipathd", "fail", "path", disk])?;
    let format = "%d %t %T %o";
    let log = daemons::log_of("node");
    let told = lab.wait_for("it to be told", Duration::from_secs(150), || {
        let log = fs::read_to_string(&log)?;
        Ok(log.contains("failed it by hand").then_some(()))
    });
    let words = lab.execute(&["multipathd", "show", "paths", "raw", "format", format])?;
    lab.story(format!("multipathd: {}", words.trim().replace('\n', "; ")));
    told?;
    let still = paths_of(lab, &volume)?;
    ensure!(
        still["active"] == 1 && still["paths"][1]["disk"] == disk,
        "{still:#}"
    );
    lab.execute(&["multipathd", "reinstate", "path", disk])?;
    wait_for_paths(lab, &volume, 2, 2)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// What `sanpath paths` shows of the volume.
fn paths_of(lab: &Lab, volume: &Volume) -> Result<Value> {
    let asked = [SANPATH, "paths", volume.wwid(), "--output", "json"];
    let shown: Value = serde_json::from_str(&lab.execute(&asked)?)?;
    Ok(shown[0].clone())
}

/// Waits until so many of so many paths serve.
fn wait_for_paths(lab: &Lab, volume: &Volume, active: usize, expected: usize) -> Result<Value> {
    let mut last = Value::Null;
    let found = lab.wait_for("the paths", 2 * PATIENCE, || {
        last = paths_of(lab, volume)?;
        let fits = last["active"] == active && last["expected"] == expected;
        Ok(fits.then(|| last.clone()))
    });
    found.with_context(|| format!("{active} of {expected} paths: {last:#}"))
}

fn joined(lab: &Lab, volume: &Volume, what: &str, since: Instant) -> Result<()> {
    wait_for_paths(lab, volume, 2, 2)?;
    let took = since.elapsed();
    lab.story(format!("{what} served after {} ms", took.as_millis()));
    ensure!(took <= JOINED, "{what}: {took:?}");
    Ok(())
}
