//! Statistics that cannot hang: with every path cut and I/O queueing, each call is answered, and no threads pile up.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::csi::proto::volume_usage::Unit;
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, patiently};
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;

pub const CASES: &[Case] = &[Case {
    name: "stats_with_all_paths_cut",
    deadline: Duration::from_secs(300),
    run: stats_with_all_paths_cut,
}];

const SIZE: i64 = 128 << 20;
/// The node answers within 10 s; the rest is for a machine without KVM.
const ANSWERED: Duration = Duration::from_secs(20);
const CALLS: usize = 4;
/// The runtime's own threads come and go.
const SLACK: usize = 4;

fn stats_with_all_paths_cut(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volumes = Vec::new();
    for (name, access) in [("files", Access::Ext4), ("raw", Access::Block)] {
        let mut volume = patiently("CreateVolume", || orchestrator.create(name, SIZE, access))?;
        orchestrator.bring_up(&mut volume)?;
        volumes.push(volume);
    }
    let (files, raw) = (&volumes[0], &volumes[1]);
    fs::write(files.target.join("file"), vec![7_u8; 8 << 20])?;
    let usage = orchestrator.stats(files, &files.target)?;
    let bytes = usage.first().context("no usage")?;
    ensure!(bytes.used >= 8 << 20, "{bytes:?}");
    ensure!(bytes.total > SIZE / 2 && bytes.total <= SIZE, "{bytes:?}");
    ensure!(usage.iter().any(|usage| usage.unit() == Unit::Inodes));
    for path in [&raw.staging, &raw.target] {
        let usage = orchestrator.stats(raw, path)?;
        ensure!(usage.len() == 1 && usage[0].total == SIZE, "{usage:?}");
    }
    let elsewhere = orchestrator.stats(files, "some/path".as_ref());
    ensure!(elsewhere.is_err_and(|status| status.code() == Code::NotFound));

    let node = lab.daemons.process_id("node")?;
    let before = threads(node)?;
    topology::paths().try_for_each(paths::cut)?;
    let mut slowest = Duration::ZERO;
    let mut codes = Vec::new();
    for call in 0..CALLS {
        // Something dirty, so that the file system has business with its device.
        if call == 0 {
            fs::write(files.target.join("dirty"), vec![9_u8; 1 << 20])?;
        }
        for volume in &volumes {
            let start = Instant::now();
            let answer = orchestrator.stats(volume, &volume.target);
            slowest = slowest.max(start.elapsed());
            codes.push(answer.map_or_else(|status| status.code(), |_| Code::Ok));
        }
    }
    let after = threads(node)?;
    topology::paths().try_for_each(paths::restore)?;
    lab.story(format!(
        "with all paths cut {} statistics were answered {codes:?}, the slowest in {} ms; threads {before} before, {after} after",
        codes.len(),
        slowest.as_millis()
    ));
    ensure!(slowest < ANSWERED, "an answer took {slowest:?}");
    ensure!(after <= before + SLACK, "{before} threads became {after}");
    ensure!(
        codes
            .iter()
            .all(|code| matches!(code, Code::Ok | Code::DeadlineExceeded)),
        "{codes:?}"
    );
    patiently("NodeGetVolumeStats", || {
        orchestrator.stats(files, &files.target)
    })?;
    ensure!(fs::read(files.target.join("dirty"))? == vec![9_u8; 1 << 20]);
    for volume in &volumes {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)
}

fn threads(process: u32) -> Result<usize> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    Ok(tasks.count())
}
