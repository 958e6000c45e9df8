//! Calls repeated over portals that swallow everything: the plugin has no more threads after many than after few.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::{paths, topology};

pub const LONG: &[Case] = &[Case {
    name: "calls_over_black_holes_do_not_pile_up",
    deadline: Duration::from_secs(1800),
    run: calls_over_black_holes,
}];

const SIZE: i64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// The thread that owns the volume, one for each of two paths, one that waits for a program, and what the runtime adds for a moment.
const OF_ONE_CALL: usize = 8;

fn calls_over_black_holes(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volumes = Vec::new();
    for name in ["warm", "late"] {
        volumes.push(orchestrator.create_attached(name, SIZE, Access::Ext4)?);
    }
    let (late, mut warm) = (volumes.pop().context("two")?, volumes.remove(0));
    // Without a session each call ends by itself; with sessions that died the first goes on, and the others find it at work.
    call_in_vain(lab, &mut orchestrator, &late, 12, Duration::from_secs(30))?;
    orchestrator.bring_up(&mut warm)?;
    let calls = 40 * lab.scale as usize;
    call_in_vain(lab, &mut orchestrator, &late, calls, Duration::from_secs(1))?;
    patiently("NodeStageVolume", || orchestrator.stage(&late))?;
    orchestrator.bring_down(&warm)?;
    orchestrator.bring_down(&late)?;
    stack.stop(lab)
}

fn call_in_vain(
    lab: &mut Lab,
    orchestrator: &mut Orchestrator,
    volume: &Volume,
    calls: usize,
    patience: Duration,
) -> Result<()> {
    let before = threads(lab)?;
    topology::paths().try_for_each(paths::black_hole)?;
    let counted = count_threads(lab, orchestrator, volume, calls, patience);
    topology::paths().try_for_each(paths::clear)?;
    let counted = counted?;
    lab.story(format!(
        "{before} threads before, then after each of {calls} calls in vain {counted:?}"
    ));
    let (early, late) = counted.split_at(calls / 2);
    let most = |counts: &[usize]| counts.iter().copied().max().unwrap_or(0);
    ensure!(most(late) <= most(early).max(before + 1), "{counted:?}");
    ensure!(most(late) <= before + OF_ONE_CALL, "{counted:?}");
    lab.wait_for("the threads to end", PATIENCE, || {
        Ok((threads(lab)? <= before + 2).then_some(()))
    })
}

fn count_threads(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    volume: &Volume,
    calls: usize,
    patience: Duration,
) -> Result<Vec<usize>> {
    let mut counted = Vec::new();
    for _ in 0..calls {
        match orchestrator.stage_within(volume, patience) {
            Ok(()) => bail!("staged through black holes"),
            Err(status) => ensure!(leaves_open(&status), "{status:?}"),
        }
        counted.push(threads(lab)?);
    }
    Ok(counted)
}

fn threads(lab: &Lab) -> Result<usize> {
    let node = lab.daemons.process_id("node")?;
    Ok(fs::read_dir(format!("/proc/{node}/task"))?.count())
}
