//! Volumes at one target for all and at targets of their own, through the whole stack: what leaves takes nothing from what stays, sessions follow the layout, and no
//! call starts more processes than it may.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Status;

use super::process_budget::within;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;
use crate::kit::writer::Writer;

/// The default layout is what all other cases run on.
pub const LONG: &[Case] = &[
    Case {
        name: "san_layout_shared",
        deadline: Duration::from_secs(400),
        run: shared,
    },
    Case {
        name: "san_layout_volume",
        deadline: Duration::from_secs(400),
        run: one_for_each_volume,
    },
];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

fn start(lab: &mut Lab, layout: &str) -> Result<Stack> {
    // On a host that never had a multipath device, one process more makes multipath's file of WWIDs; this host had one.
    for option in ["-a", "-w"] {
        lab.execute(&["multipath", option, "36001405000000000000000000000000ff"])?;
    }
    let plan = Plan {
        // What ends before is ended by the call itself.
        session_idle: "600s",
        san_arguments: vec!["--layout".to_owned(), layout.to_owned()],
        ..Plan::default()
    };
    Stack::start(lab, plan)
}

/// Two volumes on their way: the first one up and written to.
fn two(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    warm: usize,
) -> Result<(Volume, Volume, Writer)> {
    let paths = topology::paths().count();
    let first = orchestrator.create_attached("first", SIZE, Access::Ext4)?;
    let second = orchestrator.create_attached("second", SIZE, Access::Ext4)?;
    ensure!(numbers(&first).is_disjoint(&numbers(&second)));
    spend(lab, "a fresh stage", 3 * paths + 1, &mut || {
        orchestrator.stage(&first)
    })?;
    orchestrator.publish(&first, false)?;
    let writer = Writer::start(&first.target.join("data"), 256)?;
    writer.wait_for_more(2, SOON)?;
    spend(lab, "a stage beside it", warm, &mut || {
        orchestrator.stage(&second)
    })?;
    Ok((first, second, writer))
}

fn shared(lab: &mut Lab) -> Result<()> {
    let stack = start(lab, "shared")?;
    let mut orchestrator = stack.orchestrator()?;
    let (first, second, writer) = two(lab, &mut orchestrator, 1)?;
    ensure!(targets(&first) == targets(&second), "two targets");
    let before = sessions()?;
    ensure!(before.len() == topology::paths().count(), "{before:?}");
    spend(lab, "an unstage", 1, &mut || orchestrator.unstage(&second))?;
    down(&mut orchestrator, &second)?;
    writer.wait_for_more(2, SOON)?;
    ensure!(sessions()? == before, "sessions went with a volume");
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!("{blocks} blocks written while its neighbour left"));
    orchestrator.bring_down(&first)?;
    super::faults_sessions::end(lab, &stack)
}

fn one_for_each_volume(lab: &mut Lab) -> Result<()> {
    let paths = topology::paths().count();
    let stack = start(lab, "volume")?;
    let mut orchestrator = stack.orchestrator()?;
    let (first, second, writer) = two(lab, &mut orchestrator, 3 * paths + 1)?;
    ensure!(targets(&first).is_disjoint(&targets(&second)), "one target");
    ensure!(sessions()?.len() == 2 * paths, "{:?}", sessions()?);
    // For each path the logout, and its record's end.
    let most = 1 + 2 * paths;
    spend(lab, "an unstage", most, &mut || {
        orchestrator.unstage(&second)
    })?;
    ensure!(
        sessions()?.len() == paths,
        "sessions stayed: {:?}",
        sessions()?
    );
    down(&mut orchestrator, &second)?;
    writer.wait_for_more(2, SOON)?;
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!("{blocks} blocks written while its neighbour left"));
    orchestrator.bring_down(&first)?;
    ensure!(sessions()?.is_empty(), "sessions stayed: {:?}", sessions()?);
    stack.stop(lab)
}

fn spend(
    lab: &Lab,
    what: &str,
    most: usize,
    call: &mut dyn FnMut() -> Result<(), Status>,
) -> Result<()> {
    within(lab, what, most, call)
}

/// Off the SAN, after it is off the node.
fn down(orchestrator: &mut Orchestrator, volume: &Volume) -> Result<()> {
    patiently("ControllerUnpublishVolume", || orchestrator.detach(volume))?;
    patiently("DeleteVolume", || orchestrator.delete(volume))?;
    Ok(fs::remove_dir(&volume.staging)?)
}

/// The targets in a volume's publish context: `portal=lun=iqn`, one for each path.
fn targets(volume: &Volume) -> BTreeSet<String> {
    part_of_offers(volume, 2)
}

fn numbers(volume: &Volume) -> BTreeSet<String> {
    part_of_offers(volume, 1)
}

fn part_of_offers(volume: &Volume, part: usize) -> BTreeSet<String> {
    let offers = volume.publish_context.get("offers");
    let offers = offers.into_iter().flat_map(|offers| offers.split(','));
    offers
        .filter_map(|offer| offer.splitn(3, '=').nth(part).map(str::to_owned))
        .collect()
}

fn sessions() -> Result<BTreeSet<String>> {
    let names = fs::read_dir("/sys/class/iscsi_session")?.flatten();
    Ok(names
        .map(|name| name.file_name().to_string_lossy().into_owned())
        .collect())
}
