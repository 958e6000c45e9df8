//! Many volumes staged at once where there is no session yet: one session for each portal, each volume its own map, each call within the orchestrator's time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::crash_loop::of_volumes;
use super::process_budget::counted_processes;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently, patiently_for};
use crate::kit::stack::{Plan, Stack};
use crate::kit::{daemons, leftovers};

/// Both run alone: an emulated guest needs both processors for it. Beside another one it comes near the two minutes, alone it takes a third of them.
pub const CASES: &[Case] = &[Case {
    name: "sixteen_volumes",
    deadline: Duration::from_secs(600),
    run: sixteen_volumes,
}];

pub const LONG: &[Case] = &[Case {
    name: "fifty_volumes",
    deadline: Duration::from_secs(1800),
    run: fifty_volumes,
}];

const SIZE: i64 = 64 << 20;
/// The kubelet gives a call of the node two minutes.
const KUBELET: Duration = Duration::from_secs(120);
/// The kubelet calls again without end. Fifty volumes are a hundred disks, more than udev gets through in two minutes on an emulated machine.
const MANY_CALLS: Duration = Duration::from_secs(720);
/// A stage answers with one verified path, and 5 s later without the others. On an emulated machine udev takes longer for 32 disks at once.
const LATE_PATH: Duration = Duration::from_secs(60);

fn sixteen_volumes(lab: &mut Lab) -> Result<()> {
    let slowest = at_once(lab, 16, KUBELET)?;
    ensure!(slowest <= KUBELET, "one stage took {slowest:?}");
    Ok(())
}

fn fifty_volumes(lab: &mut Lab) -> Result<()> {
    at_once(lab, 50, MANY_CALLS).map(drop)
}

/// Stages so many at once and unstages them at once, calling again for so long; the longest stage.
fn at_once(lab: &mut Lab, count: usize, patience: Duration) -> Result<Duration> {
    let stack = Stack::start(lab, Plan::default())?;
    let before = of_volumes(&stack)?;
    let mut users = Vec::new();
    for number in 0..count {
        let mut orchestrator = stack.orchestrator()?;
        let mut volume = patiently("CreateVolume", || {
            orchestrator.create(&format!("many{number}"), SIZE, Access::Ext4)
        })?;
        patiently("ControllerPublishVolume", || {
            orchestrator.attach(&mut volume)
        })?;
        users.push((orchestrator, volume));
    }
    let sessions = leftovers::sessions();
    ensure!(sessions.is_empty(), "before the first stage: {sessions:?}");
    let spent = processor_seconds()?;
    let staged = all_at_once(&mut users, |orchestrator, volume| {
        patiently_for(patience, "NodeStageVolume", || orchestrator.stage(volume))
    })?;
    let slowest = tell(lab, "staged", &staged)?;
    let told = processor_seconds()?.into_iter().map(|(name, seconds)| {
        let before = spent.get(&name).copied().unwrap_or_default();
        format!("{name} {:.1}", seconds - before)
    });
    lab.story(format!(
        "processor seconds meanwhile: {}",
        told.collect::<Vec<_>>().join(", ")
    ));
    let maps = users
        .iter()
        .map(|(_, volume)| ensure_own(lab, volume))
        .collect::<Result<BTreeSet<_>>>()?;
    ensure!(maps.len() == count, "{count} volumes share {maps:?}");
    let sessions = leftovers::sessions();
    ensure!(sessions.len() == 2, "2 portals: {sessions:?}");
    let unstaged = all_at_once(&mut users, |orchestrator, volume| {
        patiently_for(patience, "NodeUnstageVolume", || {
            orchestrator.unstage(volume)
        })
    })?;
    tell(lab, "unstaged", &unstaged)?;
    let left = &of_volumes(&stack)? - &before;
    ensure!(left.is_empty(), "left: {left:?}");
    for (mut orchestrator, volume) in users {
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)?;
    Ok(slowest)
}

/// What the programs of the host and of the plugin have used so far, with the processes that they have started and seen end.
fn processor_seconds() -> Result<BTreeMap<String, f64>> {
    // USER_HZ is 100 on every architecture that Linux runs on today.
    const TICKS: f64 = 100.0;
    let mut spent = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(text) = fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let Some((head, rest)) = text.rsplit_once(") ") else {
            continue;
        };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let known = [
            "sanpath",
            "multipathd",
            "systemd-udevd",
            "(udev-worker)",
            "iscsid",
        ];
        if !known.contains(&name) {
            continue;
        }
        // utime, stime, cutime and cstime (proc_pid_stat(5)).
        let ticks = rest.split(' ').skip(11).take(4);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        *spent.entry(name.to_owned()).or_default() += ticks / TICKS;
    }
    Ok(spent)
}

/// What each call took. All begin together.
fn all_at_once(
    users: &mut [(Orchestrator, Volume)],
    call: impl Fn(&mut Orchestrator, &Volume) -> Result<()> + Sync,
) -> Result<Vec<Duration>> {
    let start = std::sync::Barrier::new(users.len());
    let (call, start) = (&call, &start);
    std::thread::scope(|scope| {
        let calls: Vec<_> = users
            .iter_mut()
            .map(|(orchestrator, volume)| {
                scope.spawn(move || {
                    start.wait();
                    let begun = Instant::now();
                    call(orchestrator, volume)?;
                    Ok(begun.elapsed())
                })
            })
            .collect();
        let ended = calls.into_iter().map(|call| {
            call.join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))?
        });
        ended.collect()
    })
}

/// Tells the spread of the times and what was started for it; the longest.
fn tell(lab: &Lab, what: &str, times: &[Duration]) -> Result<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let slowest = *sorted.last().context("no volume")?;
    let half = sorted[sorted.len() / 2];
    let log = fs::read_to_string(daemons::log_of("node"))?;
    let call = if what == "staged" {
        "NodeStageVolume done"
    } else {
        "NodeUnstageVolume done"
    };
    let done = log.lines().filter(|line| line.contains(call));
    let processes: Vec<usize> = done.filter_map(counted_processes).collect();
    lab.story(format!(
        "{} {what} at once: p50 {} ms, max {} ms; {} processes in {} calls",
        times.len(),
        half.as_millis(),
        slowest.as_millis(),
        processes.iter().sum::<usize>(),
        processes.len(),
    ));
    ensure!(processes.len() == times.len(), "calls: {processes:?}");
    Ok(slowest)
}

/// What is mounted where the volume is staged is its own map, over two disks that both say that they are the volume. A path that udev was late with joins
/// after the answer. The map's name.
fn ensure_own(lab: &Lab, volume: &Volume) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let staging = volume.staging.to_string_lossy();
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&*staging))
        .with_context(|| format!("nothing is mounted at {staging}"))?;
    let numbers = line.split(' ').nth(2).context("mountinfo")?;
    let device = Path::new("/sys/dev/block").join(numbers);
    let uuid = fs::read_to_string(device.join("dm/uuid"))?;
    let wwid = volume.wwid();
    ensure!(
        uuid.trim() == format!("mpath-{wwid}"),
        "{staging} shows {uuid}, not {wwid}"
    );
    let begun = Instant::now();
    let members = lab.wait_for("both paths in the map", LATE_PATH, || {
        let members: Vec<_> = fs::read_dir(device.join("slaves"))?.collect::<Result<_, _>>()?;
        Ok((members.len() == 2).then_some(members))
    })?;
    if begun.elapsed() > Duration::from_secs(1) {
        let late = begun.elapsed().as_millis();
        lab.story(format!(
            "{wwid}: its second path joined {late} ms after it was looked for"
        ));
    }
    for member in members {
        let told = fs::read_to_string(member.path().join("device/wwid"))?;
        let name = told.trim().trim_start_matches("naa.");
        ensure!(wwid.ends_with(name), "{member:?} of {wwid} is {told}");
    }
    Ok(fs::read_to_string(device.join("dm/name"))?
        .trim()
        .to_owned())
}
