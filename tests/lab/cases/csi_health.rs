//! What CSI is told of volumes that are not well: by the SAN of its images and its kernel, by the node of its paths.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const CASES: &[Case] = &[Case {
    name: "health_of_volumes_and_sans",
    deadline: Duration::from_secs(240),
    run: health_of_volumes_and_sans,
}];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

fn health_of_volumes_and_sans(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let well = patiently("CreateVolume", || {
        orchestrator.create("well", SIZE, Access::Block)
    })?;
    let volume = orchestrator.create_attached("sick", SIZE, Access::Block)?;
    let node = orchestrator.node_id.clone();
    ensure!(orchestrator.published_to(&volume)? == [node]);
    ensure!(orchestrator.published_to(&well)?.is_empty());
    ensure!(orchestrator.list_sick()?.is_empty());

    // A portal that the kernel lost is told, and a start of the SAN brings it back.
    let portal = find_portal()?;
    fs::remove_dir(&portal).with_context(|| format!("removing {}", portal.display()))?;
    told(lab, &mut orchestrator, &volume, "PortalDown")?;
    lab.daemons.kill("san")?;
    stack.start_san(lab)?;
    ensure!(orchestrator.health_by_the_san(&volume)?.is_empty());

    let (image, away) = (image_of(lab, &volume)?, lab.work_folder().join("away"));
    lab.execute(&["mv", &image, &away.display().to_string()])?;
    told(lab, &mut orchestrator, &volume, "ImageMissing")?;
    lab.execute(&["mv", &away.display().to_string(), &image])?;

    // Silence of the SAN is neither health nor an end of its volumes.
    lab.daemons.stop("san")?;
    let unheard = [
        orchestrator.list().err(),
        orchestrator.list_sick().err(),
        orchestrator.health_by_the_san(&volume).err(),
        orchestrator.published_to(&volume).err(),
    ];
    for status in unheard {
        let code = status.map(|status| status.code());
        ensure!(code == Some(Code::Unavailable), "{code:?}");
    }
    stack.start_san(lab)?;
    ensure!(orchestrator.list_sick()?.is_empty());

    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    lab.wait_for("both paths to serve", SOON, || {
        Ok(orchestrator.storage_health()?.is_empty().then_some(()))
    })?;
    paths::cut(Link(1))?;
    lab.wait_for("the lost path to be told", SOON, || {
        let found = orchestrator.storage_health()?;
        Ok(found.into_iter().find(|(reason, _)| reason == "PathLoss"))
    })?;
    paths::restore(Link(1))?;
    lab.wait_for("the path to be back", SOON, || {
        Ok(orchestrator.storage_health()?.is_empty().then_some(()))
    })?;
    orchestrator.bring_down(&volume)?;
    patiently("DeleteVolume", || orchestrator.delete(&well))?;
    stack.stop(lab)
}

/// Only this volume is listed, and for this reason.
fn told(lab: &Lab, orchestrator: &mut Orchestrator, volume: &Volume, reason: &str) -> Result<()> {
    let found = orchestrator.health_by_the_san(volume)?;
    let [(word, message)] = &found[..] else {
        anyhow::bail!("not the one thing that is wrong: {found:?}")
    };
    ensure!(word == reason, "{found:?}");
    lab.story(format!("{word}: {message}"));
    ensure!(orchestrator.list_sick()? == std::slice::from_ref(&volume.id));
    Ok(())
}

/// A portal of the one target in the kernel.
fn find_portal() -> Result<PathBuf> {
    let targets = fs::read_dir("/sys/kernel/config/target/iscsi")?;
    let target = targets
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("dev.sanpath"))
        .context("the SAN has no target in the kernel")?;
    let portals = fs::read_dir(target.join("tpgt_1/np"))?;
    let portals = portals.flatten().map(|entry| entry.path());
    portals
        .filter(|path| path.is_dir())
        .min()
        .context("no portal")
}

fn image_of(lab: &Lab, volume: &Volume) -> Result<String> {
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    Ok(image.display().to_string())
}
