//! The node's promises when something is broken: dead portals, foreign data, a crash in the middle.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;
use crate::kit::{daemons, leftovers, paths};

pub const CASES: &[Case] = &[
    Case {
        name: "one_portal_dead",
        deadline: Duration::from_secs(240),
        run: one_portal_dead,
    },
    Case {
        name: "one_portal_black_holed",
        deadline: Duration::from_secs(240),
        run: one_portal_black_holed,
    },
    Case {
        name: "all_portals_dead",
        deadline: Duration::from_secs(300),
        run: all_portals_dead,
    },
    Case {
        name: "foreign_data_is_never_overwritten",
        deadline: Duration::from_secs(300),
        run: foreign_data,
    },
    Case {
        name: "killed_in_the_middle_of_mkfs",
        deadline: Duration::from_secs(240),
        run: killed_in_mkfs,
    },
];

const SIZE: i64 = 128 << 20;

fn one_portal_dead(lab: &mut Lab) -> Result<()> {
    let victim = topology::paths().next().context("no path")?;
    stage_on_one_path(lab, || paths::cut(victim), || paths::restore(victim))
}

fn one_portal_black_holed(lab: &mut Lab) -> Result<()> {
    let victim = topology::paths().next().context("no path")?;
    stage_on_one_path(lab, || paths::black_hole(victim), || paths::clear(victim))
}

fn stage_on_one_path(
    lab: &mut Lab,
    kill: impl Fn() -> Result<()>,
    revive: impl Fn() -> Result<()>,
) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("one", SIZE, Access::Ext4)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    kill()?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    lab.story(format!(
        "with one of two portals dead NodeStageVolume took {} ms",
        start.elapsed().as_millis()
    ));
    revive()?;
    staged.context("one living portal is enough")?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    fs::write(volume.target.join("file"), "written over one path")?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

fn all_portals_dead(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("none", SIZE, Access::Ext4)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    // Staging directories are the orchestrator's own.
    fs::create_dir_all(&volume.staging)?;
    let before = leftovers::count();
    topology::paths().try_for_each(paths::cut)?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    lab.story(format!(
        "with all portals dead NodeStageVolume took {} ms",
        start.elapsed().as_millis()
    ));
    topology::paths().try_for_each(paths::restore)?;
    let Err(status) = staged else {
        bail!("staged over dead portals")
    };
    ensure!(
        status.code() == Code::Unavailable,
        "expected UNAVAILABLE, got {status:?}"
    );
    let left = leftovers::since(&before);
    ensure!(left.is_empty(), "the failed stage left {left:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Every kind of foreign content, though the SAN's own word was "blank" when the volume was exported: refused with
/// FAILED_PRECONDITION, and not one byte changed.
fn foreign_data(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let kinds: [(&str, &[&str]); 4] = [
        ("xfs", &["mkfs.xfs", "-q", "-K"]),
        (
            "partitions",
            &["sh", "-c", "echo 'label: gpt\n,' | sfdisk -q \"$0\""],
        ),
        (
            "luks",
            &[
                "sh",
                "-c",
                "printf 'LUKS\\272\\276\\0\\2' | dd of=\"$0\" conv=notrunc,fsync status=none",
            ],
        ),
        (
            "unknown",
            &[
                "sh",
                "-c",
                "printf 'x' | dd of=\"$0\" bs=1 seek=3000000 conv=notrunc,fsync status=none",
            ],
        ),
    ];
    for (name, tool) in kinds {
        let mut volume = patiently("CreateVolume", || {
            orchestrator.create(name, 320 << 20, Access::Ext4)
        })?;
        patiently("ControllerPublishVolume", || {
            orchestrator.attach(&mut volume)
        })?;
        ensure!(
            volume.publish_context["blank"] == "true",
            "{name}: a new volume is not called blank"
        );
        // Written behind everybody's back, into the SAN's own image.
        let image = image_of(lab, &volume)?;
        lab.execute(&[tool, &[image.as_str()]].concat())?;
        let before = fingerprint(lab, &image)?;
        let Err(status) = orchestrator.stage(&volume) else {
            bail!("ext4 was made over {name}");
        };
        ensure!(
            status.code() == Code::FailedPrecondition,
            "{name}: expected FAILED_PRECONDITION, got {status:?}"
        );
        lab.story(format!("{name}: {}", status.message()));
        ensure!(
            fingerprint(lab, &image)? == before,
            "{name}: the content changed"
        );
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// Changes with every byte that is written anew and with every change to the first and last 8 MiB. (To hash all of a sparse file takes an
/// emulated guest a minute.)
fn fingerprint(lab: &Lab, image: &str) -> Result<String> {
    let script = "stat -c %b \"$0\"; head -c 8M \"$0\" | sha256sum; tail -c 8M \"$0\" | sha256sum";
    lab.execute(&["sh", "-c", script, image])
}

/// The file behind a volume, in the pool of this case.
pub(super) fn image_of(lab: &Lab, volume: &Volume) -> Result<String> {
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    ensure!(image.is_file(), "{} is not there", image.display());
    Ok(image.display().to_string())
}

/// Whether the plugin ended; an abort takes a moment longer than the breaking of its connections.
pub(super) fn has_ended(lab: &mut Lab) -> Result<bool> {
    let until = Instant::now() + Duration::from_secs(20);
    while lab.daemons.is_running("node") {
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

pub(super) fn restart_node(lab: &mut Lab, stack: &Stack) -> Result<()> {
    // It ended by itself; this only takes it off the list.
    let _ = lab.daemons.stop("node");
    stack.start_node(lab)
}

fn finish(orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    orchestrator.bring_up(volume)?;
    fs::write(volume.target.join("file"), "converged")?;
    orchestrator.bring_down(volume)
}

/// SIGKILL while mkfs runs: the one case in which a half-made file system may be made again.
fn killed_in_mkfs(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("mkfs", 4 << 30, Access::Ext4)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    let node = lab.daemons.process_id("node")?;
    // Stops mkfs as soon as it appears, then kills the plugin, then mkfs: the device is half formatted.
    let killer = std::thread::spawn(move || kill_when_mkfs_runs(node));
    let staged = orchestrator.stage(&volume);
    let met = killer
        .join()
        .map_err(|_| anyhow::anyhow!("the killer panicked"))??;
    ensure!(met, "mkfs was never seen");
    let Err(status) = staged else {
        bail!("the stage outlived its plugin")
    };
    ensure!(leaves_open(&status), "{status:?}");
    restart_node(lab, &stack)?;
    finish(&mut orchestrator, &mut volume)?;
    ensure!(
        fs::read_to_string(daemons::log_of("node"))?.contains("mkfs.ext4"),
        "the log tells of no mkfs"
    );
    stack.stop(lab)
}

fn kill_when_mkfs_runs(node: u32) -> Result<bool> {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        let Some(mkfs) = find_process("mkfs.ext4").or_else(|| find_process("mke2fs")) else {
            continue;
        };
        for process in [node, mkfs] {
            let process = nix::unistd::Pid::from_raw(process.cast_signed());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL)?;
        }
        return Ok(true);
    }
    Ok(false)
}

pub(super) fn find_process(name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids =
        processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.find(|id| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name)
    })
}
