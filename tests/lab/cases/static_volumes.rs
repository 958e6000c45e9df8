//! A volume that somebody wrote down by hand: portals, IQN and LUN in its attributes, the WWID in its handle, and no controller that knows it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "written_down_by_hand",
    deadline: Duration::from_secs(240),
    run: written_down_by_hand,
}];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

fn written_down_by_hand(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut managed = patiently("CreateVolume", || {
        orchestrator.create("managed", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut managed)?;
    fs::write(managed.target.join("kept"), "by both")?;
    orchestrator.leave_node(&managed)?;

    // From here on the LUN is what an administrator sees of an array.
    let by_hand = write_down(&managed)?;
    lab.daemons.stop("controller")?;
    for key in ["portals", "iqn", "lun"] {
        let mut lacking = by_hand.clone();
        lacking.volume_context.remove(key);
        let refused = orchestrator.stage(&lacking).err();
        let named = refused.is_some_and(|status| {
            status.code() == Code::InvalidArgument
                && status.message().contains(&format!("volume_context.{key} "))
        });
        ensure!(named, "without {key} it is not told what is missing");
    }
    refuse_another_disk(lab, &mut stack.orchestrator()?, &by_hand)?;

    patiently("NodeStageVolume", || orchestrator.stage(&by_hand))?;
    patiently("NodePublishVolume", || {
        orchestrator.publish(&by_hand, false)
    })?;
    let found = fs::read_to_string(by_hand.target.join("kept"))?;
    ensure!(found == "by both", "{found:?}");
    fs::write(by_hand.target.join("new"), "by hand")?;
    // It is staged with the first path that is ready; the second joins.
    lab.wait_for("both paths to serve", SOON, || {
        let amiss = orchestrator.health(&by_hand)?;
        ensure!(amiss.is_empty(), "{amiss:?}");
        Ok(Some(()))
    })?;
    orchestrator.leave_node(&by_hand)?;
    fs::remove_dir(&by_hand.staging)?;

    // With a controller an attach gives the node what was written down, and takes nothing from anybody.
    stack.start_controller(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut attached = by_hand.clone();
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut attached)
    })?;
    ensure!(attached.wwid() == managed.wwid());
    let refused = orchestrator.delete(&attached).err();
    let code = refused.map(|status| status.code());
    ensure!(code == Some(Code::FailedPrecondition), "{code:?}");
    patiently("ControllerUnpublishVolume", || {
        orchestrator.detach(&attached)
    })?;
    ensure!(orchestrator.published_to(&managed)?.len() == 1);

    patiently("NodeStageVolume", || orchestrator.stage(&managed))?;
    patiently("NodePublishVolume", || {
        orchestrator.publish(&managed, false)
    })?;
    let found = fs::read_to_string(managed.target.join("new"))?;
    ensure!(found == "by hand", "{found:?}");
    orchestrator.bring_down(&managed)?;
    stack.stop(lab)
}

/// What stands in a PersistentVolume for the LUN that `managed` is.
fn write_down(managed: &Volume) -> Result<Volume> {
    let offers = managed.publish_context.get("offers").context("no offers")?;
    let offers: Vec<Vec<&str>> = offers
        .split(',')
        .map(|offer| offer.splitn(3, '=').collect())
        .collect();
    let portals: Vec<&str> = offers.iter().map(|offer| offer[0]).collect();
    let attributes = [
        ("portals", portals.join(",")),
        ("lun", offers[0][1].to_owned()),
        ("iqn", offers[0][2].to_owned()),
    ];
    let attributes = attributes.map(|(key, text)| (key.to_owned(), text));
    Ok(Volume {
        id: format!("sp1:static:cluster-a:database-1:{}", managed.wwid()),
        volume_context: attributes.into(),
        publish_context: HashMap::new(),
        staging: managed.staging.with_file_name("staging-by-hand"),
        target: managed.target.with_file_name("target-by-hand"),
        ..managed.clone()
    })
}

/// The LUN is there and is not the disk that was written down: nothing is mounted and nothing stays.
fn refuse_another_disk(
    lab: &Lab,
    orchestrator: &mut crate::kit::csi::Orchestrator,
    by_hand: &Volume,
) -> Result<()> {
    let last = by_hand.id.chars().last().context("no id")?;
    let other = if last == '0' { '1' } else { '0' };
    let other = Volume {
        id: format!("{}{other}", &by_hand.id[..by_hand.id.len() - 1]),
        ..by_hand.clone()
    };
    let refused = orchestrator.stage(&other).err();
    let refused = refused.context("another disk was taken for the one that was written down")?;
    lab.story(format!("{:?}: {}", refused.code(), refused.message()));
    let shown = by_hand.id.rsplit(':').next().unwrap_or_default();
    ensure!(
        refused.message().contains(shown),
        "it does not tell which disk it found"
    );
    patiently("NodeUnstageVolume", || orchestrator.unstage(&other))?;
    Ok(())
}
