//! The node's promises on a healthy fabric: calls repeated, neighbours untouched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::writer::{Writer, verify};

pub const CASES: &[Case] = &[
    Case {
        name: "every_call_repeated",
        deadline: Duration::from_secs(240),
        run: every_call_repeated,
    },
    Case {
        name: "raw_block_volume",
        deadline: Duration::from_secs(180),
        run: raw_block_volume,
    },
    Case {
        name: "neighbour_on_the_shared_target",
        deadline: Duration::from_secs(240),
        run: neighbour_on_the_shared_target,
    },
    Case {
        name: "mkfs_options",
        deadline: Duration::from_secs(240),
        run: mkfs_options,
    },
    Case {
        name: "read_only_publish",
        deadline: Duration::from_secs(180),
        run: read_only_publish,
    },
];

const SIZE: i64 = 128 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

fn every_call_repeated(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for access in [Access::Ext4, Access::Xfs, Access::Btrfs, Access::Block] {
        let name = format!("{access:?}").to_lowercase();
        // xfs makes nothing smaller than 300 MiB, btrfs nothing much smaller.
        let size = if matches!(access, Access::Xfs | Access::Btrfs) {
            320 << 20
        } else {
            SIZE
        };
        let mut volume = patiently("CreateVolume", || orchestrator.create(&name, size, access))?;
        let again = orchestrator.create(&name, size, access)?;
        ensure!(
            again.id == volume.id,
            "the second CreateVolume made another volume"
        );
        orchestrator.bring_up(&mut volume)?;
        let first = volume.publish_context.clone();
        orchestrator.attach(&mut volume)?;
        ensure!(
            volume.publish_context == first,
            "the publish context changed on repetition"
        );
        for _ in 0..3 {
            orchestrator.stage(&volume)?;
            orchestrator.publish(&volume, false)?;
        }
        ensure!(
            orchestrator.list()? == [volume.id.clone()],
            "ListVolumes does not show the one volume"
        );
        orchestrator.bring_down(&volume)?;
        orchestrator.unpublish(&volume)?;
        orchestrator.unstage(&volume)?;
        orchestrator.detach(&volume)?;
        orchestrator.delete(&volume)?;
    }
    stack.stop(lab)
}

fn raw_block_volume(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("raw", SIZE, Access::Block)
    })?;
    orchestrator.bring_up(&mut volume)?;
    let device = fs::metadata(&volume.target)?;
    ensure!(
        std::os::unix::fs::FileTypeExt::is_block_device(&device.file_type()),
        "the target is no block device"
    );
    let size = lab.execute(&[
        "blockdev",
        "--getsize64",
        &volume.target.display().to_string(),
    ])?;
    ensure!(
        size.trim() == volume.size.to_string(),
        "the device has {size} bytes, the volume {}",
        volume.size
    );
    let writer = Writer::start(&volume.target, 512)?;
    writer.wait_for_more(64, PATIENCE)?;
    let blocks = writer.finish()?;
    verify(&volume.target, blocks, 512)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Where the Kubernetes reference iSCSI driver logs out the shared target at the first unpublish and cuts the volumes beside it.
fn neighbour_on_the_shared_target(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut first = patiently("CreateVolume", || {
        orchestrator.create("first", SIZE, Access::Ext4)
    })?;
    let mut second = patiently("CreateVolume", || {
        orchestrator.create("second", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut first)?;
    orchestrator.bring_up(&mut second)?;
    // The second may still be on its way when a stage is done.
    let sessions = lab.wait_for("a session over each path", PATIENCE, || {
        let sessions = session_names()?;
        ensure!(
            sessions.len() == 2,
            "two volumes on one target need 2 sessions, not {sessions:?}"
        );
        Ok(Some(sessions))
    })?;

    let file = second.target.join("data");
    let writer = Writer::start(&file, 512)?;
    writer.wait_for_more(32, PATIENCE)?;
    writer.forget_pauses();
    orchestrator.bring_down(&first)?;
    ensure!(
        session_names()? == sessions,
        "a session of the neighbour was touched"
    );
    let progress = writer.wait_for_more(64, PATIENCE)?;
    lab.story(format!(
        "the neighbour's longest pause: {} ms",
        progress.longest_pause.as_millis()
    ));
    let blocks = writer.finish()?;
    verify(&file, blocks, 512)?;
    orchestrator.bring_down(&second)?;
    stack.stop(lab)
}

fn session_names() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/iscsi_session")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn read_only_publish(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("ro", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    fs::write(volume.target.join("kept"), "yes")?;
    orchestrator.unpublish(&volume)?;
    orchestrator.publish(&volume, true)?;
    ensure!(
        fs::read_to_string(volume.target.join("kept"))? == "yes",
        "the file is gone"
    );
    let refused = fs::write(volume.target.join("new"), "no");
    ensure!(refused.is_err(), "a read-only publish could be written to");
    orchestrator.bring_down(&volume)?;
    ensure!(
        !Path::new(&volume.target).exists(),
        "the target path is still there"
    );
    stack.stop(lab)
}

/// The StorageClass's options reach the tools, and the tools take them.
fn mkfs_options(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let refused = orchestrator.create_with(
        "forced",
        SIZE,
        Access::Ext4,
        &[("mkfsOptions", "-F -E discard")],
    );
    ensure!(refused.is_err_and(|status| status.code() == tonic::Code::InvalidArgument));
    for (access, options, inodes) in [
        (
            Access::Ext4,
            "-i 65536 -I 512 -O ^huge_file -E stride=16",
            2048..8192,
        ),
        (Access::Xfs, "-m reflink=0 -i size=1024,maxpct=1", 1..8192),
        (Access::Btrfs, "-m single -n 16k", 0..0),
    ] {
        let name = format!("options-{access:?}").to_lowercase();
        let parameters = [("mkfsOptions", options)];
        let mut volume = patiently("CreateVolume", || {
            orchestrator.create_with(&name, 320 << 20, access, &parameters)
        })?;
        orchestrator.bring_up(&mut volume)?;
        let usage = orchestrator.stats(&volume, &volume.target)?;
        let found = usage.get(1).map_or(0, |usage| usage.total);
        lab.story(format!("{access:?} with {options}: {found} inodes"));
        ensure!(
            inodes.contains(&found) || (inodes.is_empty() && found == 0),
            "{options}: {usage:?}"
        );
        fs::write(volume.target.join("file"), "written")?;
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}
