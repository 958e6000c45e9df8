//! Periodic trim: what a thin volume no longer uses goes back to its SAN.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, patiently};
use crate::kit::stack::{Plan, Stack};

/// Of the long run.
pub const CASES: &[Case] = &[Case {
    name: "trim_gives_space_back",
    deadline: Duration::from_secs(480),
    run: trim_gives_space_back,
}];

const SIZE: i64 = 320 << 20;

/// What a file took comes back to the pool after the file is gone, with nobody asking.
fn trim_gives_space_back(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        node_arguments: &["--trim-every", "10s"],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("thin", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    let allocated = || Ok::<_, anyhow::Error>(fs::metadata(&image)?.blocks() * 512);
    let file = volume.target.join("big");
    fs::write(&file, vec![0xa5_u8; 32 << 20])?;
    fs::File::open(&file)?.sync_all()?;
    let full = allocated()?;
    ensure!(full > 32 << 20, "{full}");
    fs::remove_file(&file)?;
    let left = lab.wait_for("the space to come back", Duration::from_secs(90), || {
        let now = allocated()?;
        Ok((now + (30 << 20) < full).then_some(now))
    })?;
    lab.story(format!("{full} bytes at the SAN became {left}"));
    // A trim may have the volume at this moment; the orchestrator repeats its call.
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}
