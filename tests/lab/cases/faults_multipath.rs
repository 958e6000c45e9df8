//! Group C of the fault cases: multipathd away.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, leaves_open, patiently};
use crate::kit::leftovers;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "multipathd_stopped_before_stage",
    deadline: Duration::from_secs(300),
    run: multipathd_stopped_before_stage,
}];

const SIZE: i64 = 64 << 20;

/// Without multipathd there is no map, and never a bare disk in its place; with it back the same call succeeds.
fn multipathd_stopped_before_stage(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("alone", SIZE, Access::Ext4)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    fs::create_dir_all(&volume.staging)?;
    let before = leftovers::count();
    Service::Multipathd.hold_down("TERM")?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Service::Multipathd.release()?;
    let Err(status) = staged else {
        bail!("staged without multipathd")
    };
    lab.story(format!(
        "without multipathd, told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(status.message().contains("multipathd"), "{status:?}");
    let staging = volume.staging.display().to_string();
    ensure!(!mounts.contains(&staging), "a bare disk was mounted");
    let left = leftovers::since(&before);
    // Sessions and their records stay for the idle reaper.
    let of_volume = |thing: &&String| thing.starts_with("disk") || thing.starts_with("map");
    let left: Vec<&String> = left.iter().filter(of_volume).collect();
    ensure!(left.is_empty(), "the failed stage left {left:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}
