//! Group D of the fault cases: what a volume holds when it comes, and file systems that a crash, a copy or somebody else has left in a state.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tonic::{Code, Status};

use super::node_faults::{find_process, image_of};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, leaves_open, patiently};
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[
    Case {
        name: "ext4_dirty_damaged_or_unchecked",
        deadline: Duration::from_secs(300),
        run: ext4_dirty_damaged_or_unchecked,
    },
    Case {
        name: "frozen_file_system",
        deadline: Duration::from_secs(300),
        run: frozen_file_system,
    },
];

pub const LONG: &[Case] = &[
    Case {
        name: "blkid_gives_no_answer",
        deadline: Duration::from_secs(300),
        run: blkid_gives_no_answer,
    },
    Case {
        name: "something_else_at_the_target_path",
        deadline: Duration::from_secs(300),
        run: something_else_at_the_target,
    },
    Case {
        name: "two_nodes_want_one_blank_volume",
        deadline: Duration::from_secs(240),
        run: two_nodes_want_one_blank_volume,
    },
];

const SIZE: i64 = 64 << 20;
/// xfs makes nothing smaller than 300 MiB.
const LARGE: i64 = 320 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

/// The refusal for good of a stage that must not be.
fn refused(what: &str, staged: Result<(), Status>) -> Result<Status> {
    let Err(status) = staged else {
        bail!("{what}: it was taken for what it is not")
    };
    ensure!(
        status.code() == Code::FailedPrecondition,
        "{what}: expected FAILED_PRECONDITION, got {status:?}"
    );
    Ok(status)
}

/// What e2fsck mends by itself is mended before the mount. What it does not is left to a person, in its words. A check that is killed is made again.
fn ext4_dirty_damaged_or_unchecked(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("ill", SIZE, Access::Ext4)?;
    let image = image_of(lab, &volume)?;
    orchestrator.bring_up(&mut volume)?;
    fs::write(volume.target.join("kept"), "yes")?;
    orchestrator.leave_node(&volume)?;
    let hurt = |requests: &[&str]| -> Result<()> {
        for request in requests {
            lab.execute(&["debugfs", "-w", "-R", request, &image])?;
        }
        Ok(())
    };
    // "state 2" is what the kernel notes when it meets an error.
    hurt(&["ssv free_blocks_count 7", "ssv state 2"])?;
    orchestrator.bring_up(&mut volume)?;
    ensure!(fs::read_to_string(volume.target.join("kept"))? == "yes");
    orchestrator.leave_node(&volume)?;
    lab.execute(&["e2fsck", "-fn", &image])
        .context("it was mounted without being mended")?;

    hurt(&["ssv state 2"])?;
    let e2fsck = slow_e2fsck(lab)?;
    let killer = std::thread::spawn(|| kill_when_it_runs("e2fsck"));
    let staged = orchestrator.stage(&volume);
    let met = killer.join();
    lab.execute(&["umount", &e2fsck])?;
    ensure!(
        met.map_err(|_| anyhow::anyhow!("the killer panicked"))??,
        "e2fsck was never seen"
    );
    let Err(status) = staged else {
        bail!("staged with a check that did not finish")
    };
    lab.story(format!("killed: {}", status.message()));
    ensure!(leaves_open(&status), "{status:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.leave_node(&volume)?;

    // The root directory's inode.
    hurt(&["clri <2>", "ssv state 2"])?;
    let status = refused("damaged", orchestrator.stage(&volume))?;
    lab.story(format!("damaged: {}", status.message()));
    ensure!(
        status.message().contains("UNEXPECTED INCONSISTENCY"),
        "the words of e2fsck are not told: {status:?}"
    );
    let mended = lab.run(&["e2fsck", "-fy", &image])?;
    ensure!(mended.code == Some(1), "{mended:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Its check of a small file system is over before a busy machine has seen it; from now on it begins some seconds late.
fn slow_e2fsck(lab: &Lab) -> Result<String> {
    let itself = lab.work_folder().join("e2fsck-itself");
    fs::copy("/usr/sbin/e2fsck", &itself)?;
    let words = format!(
        "sleep 5 </dev/null >/dev/null 2>&1\nexec {} \"$@\"",
        itself.display()
    );
    stand_in(lab, "e2fsck", &words)
}

/// A script goes by the name of a program, until what is answered is unmounted.
fn stand_in(lab: &Lab, name: &str, words: &str) -> Result<String> {
    let program = fs::canonicalize(Path::new("/usr/sbin").join(name))?;
    let (program, script) = (program.display().to_string(), lab.work_folder().join(name));
    fs::write(&script, format!("#!/bin/sh\n{words}\n"))?;
    let script = script.display().to_string();
    lab.execute(&["chmod", "755", &script])?;
    lab.execute(&["mount", "--bind", &script, &program])?;
    Ok(program)
}

fn kill_when_it_runs(name: &str) -> Result<bool> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(process) = find_process(name) {
            let process = nix::unistd::Pid::from_raw(process.cast_signed());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Somebody froze the file system and died. Growing waits, and its repetition is told so; it is done once the freeze is over. Unstaging thaws: with
/// its last mount a frozen file system would be out of everybody's reach, and its device with it.
fn frozen_file_system(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for access in [Access::Ext4, Access::Xfs] {
        let name = format!("{access:?}").to_lowercase();
        let mut volume = orchestrator.create_attached(&name, LARGE, access)?;
        orchestrator.bring_up(&mut volume)?;
        fs::write(volume.target.join("kept"), "yes")?;
        let place = volume.staging.display().to_string();
        patiently("ControllerExpandVolume", || {
            orchestrator.expand(&mut volume, 2 * LARGE)
        })?;
        lab.execute(&["fsfreeze", "-f", &place])?;
        let grown = std::thread::scope(|scope| {
            let first = scope.spawn(|| Ok(stack.orchestrator()?.expand_on_node(&volume)?));
            std::thread::sleep(Duration::from_secs(5));
            let waits = !first.is_finished();
            let again = orchestrator.expand_on_node(&volume);
            lab.execute(&["fsfreeze", "-u", &place])?;
            let size: i64 = super::faults_multipath::join(first)?;
            ensure!(waits, "it grew a frozen file system to {size}");
            ensure!(
                again
                    .as_ref()
                    .is_err_and(|status| status.code() == Code::Aborted),
                "{again:?}"
            );
            Ok(size)
        })?;
        ensure!(grown == 2 * LARGE, "{grown} bytes");
        lab.execute(&["fsfreeze", "-f", &place])?;
        let start = Instant::now();
        let left = orchestrator.leave_node(&volume);
        if left.is_err() {
            // So that the guest can be used again.
            lab.run(&["fsfreeze", "-u", &place])?;
        }
        left?;
        lab.story(format!(
            "{name}: grown after the thaw, unstaged while frozen in {} ms",
            start.elapsed().as_millis()
        ));
        orchestrator.bring_up(&mut volume)?;
        ensure!(fs::read_to_string(volume.target.join("kept"))? == "yes");
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// blkid hangs: what the volume holds is not known then, and what is not known is not formatted.
fn blkid_gives_no_answer(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("unknown", SIZE, Access::Ext4)?;
    let image = image_of(lab, &volume)?;
    let blkid = stand_in(lab, "blkid", "exec sleep 600")?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    lab.execute(&["umount", &blkid])?;
    let Err(status) = staged else {
        bail!("formatted though nobody knew what is there")
    };
    lab.story(format!(
        "told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(status.message().contains("blkid"), "{status:?}");
    let blocks = lab.execute(&["stat", "-c", "%b", &image])?;
    ensure!(blocks.trim() == "0", "{blocks} blocks were written");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// What already stands at a target path and is not ours stays as it is, and nothing of it becomes the pod's.
fn something_else_at_the_target(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let elsewhere = lab.work_folder().join("elsewhere");
    fs::create_dir_all(&elsewhere)?;
    for access in [Access::Ext4, Access::Block] {
        let name = format!("{access:?}").to_lowercase();
        let mut volume = orchestrator.create_attached(&name, SIZE, access)?;
        patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
        let target = volume.target.clone();
        fs::create_dir_all(target.parent().context("a target has a parent")?)?;
        let mut refuse = |what: &str| -> Result<()> {
            let status = refused(what, orchestrator.publish(&volume, false))?;
            lab.story(format!("{name}, {what}: {}", status.message()));
            let path = target.display().to_string();
            let told = status.message().contains(&path);
            ensure!(told, "the path is not named: {status:?}");
            Ok(())
        };
        symlink(&elsewhere, &target)?;
        refuse("a link")?;
        ensure!(fs::read_link(&target)? == elsewhere, "the link was changed");
        ensure!(fs::read_dir(&elsewhere)?.count() == 0);
        fs::remove_file(&target)?;
        fs::create_dir(&target)?;
        fs::write(target.join("other"), "stays")?;
        refuse("a directory with something in it")?;
        ensure!(fs::read_to_string(target.join("other"))? == "stays");
        fs::remove_dir_all(&target)?;
        if access == Access::Ext4 {
            fs::write(&target, "stays")?;
            refuse("a file")?;
            ensure!(fs::read_to_string(&target)? == "stays");
            fs::remove_file(&target)?;
        }
        ensure!(!target.exists());
        orchestrator.bring_up(&mut volume)?;
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// A second node asks for a volume that another one has, and both are told that it is blank. The SAN shows it to one of them alone, so one formats.
fn two_nodes_want_one_blank_volume(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let (mut first, mut second) = (stack.orchestrator()?, stack.orchestrator()?);
    second.node_id = "other/iqn.2026-01.dev.sanpath.lab:other".to_owned();
    let mut volume = patiently("CreateVolume", || first.create("one", SIZE, Access::Ext4))?;
    let mut of_second = volume.clone();
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| second.attach(&mut of_second));
        (first.attach(&mut volume), other.join())
    });
    let other = other.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    ensure!(
        one.is_ok() != other.is_ok(),
        "not exactly one node got it: {one:?} and {other:?}"
    );
    let lost = one.and(other).err().context("nobody was refused")?;
    lab.story(format!("the one that came second: {}", lost.message()));
    ensure!(
        lost.code() == Code::FailedPrecondition || leaves_open(&lost),
        "{lost:?}"
    );
    if volume.publish_context.is_empty() {
        patiently("ControllerUnpublishVolume", || second.detach(&of_second))?;
    }
    first.bring_up(&mut volume)?;
    let refusal = second.attach(&mut of_second);
    ensure!(
        refusal
            .as_ref()
            .is_err_and(|status| status.code() == Code::FailedPrecondition),
        "{refusal:?}"
    );
    fs::write(volume.target.join("file"), "of the one that has it")?;
    first.bring_down(&volume)?;
    stack.stop(lab)
}
