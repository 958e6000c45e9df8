//! The config file is spoilt, and then lost with the last good one, under volumes in use: they stay, they can leave, and a good file is taken at once.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::stack::{Plan, Stack};

/// Of the long run: the node is started three times.
pub const LONG: &[Case] = &[Case {
    name: "config_spoilt_and_lost",
    deadline: Duration::from_secs(300),
    run: spoilt_and_lost,
}];

const SIZE: i64 = 128 << 20;

fn spoilt_and_lost(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let good = fs::read_to_string(stack.config())?;
    let create = || orchestrator.create("files", SIZE, Access::Ext4);
    let mut files = patiently("CreateVolume", create)?;
    orchestrator.bring_up(&mut files)?;
    fs::write(files.target.join("letter"), "dear")?;
    every_address_answers(lab, &stack)?;
    let raw = orchestrator.create_attached("raw", SIZE, Access::Block)?;

    fs::write(stack.config(), "version: 1\npartitions:\n  cluster-a: {}\n")?;
    start_again(lab, &stack)?;
    let mut stage = |volume: &Volume| orchestrator.stage(volume);
    patiently("NodeStageVolume by the last good config", || stage(&raw))?;
    lab.story("With a spoilt file and a restart the last good config served a stage.");

    fs::remove_file(stack.config())?;
    fs::remove_file(stack.node_state().join("last-good-config.yaml"))?;
    start_again(lab, &stack)?;
    let usage = orchestrator.stats(&files, &files.target)?;
    ensure!(
        usage.first().is_some_and(|usage| usage.total > 0),
        "{usage:?}"
    );
    ensure!(fs::read_to_string(files.target.join("letter"))? == "dear");
    patiently("NodeUnstageVolume", || orchestrator.unstage(&raw))?;
    let refused = orchestrator.stage(&raw);
    ensure!(
        refused
            .as_ref()
            .is_err_and(|status| status.code() == Code::FailedPrecondition),
        "{refused:?}"
    );
    lab.story("Without any config a volume left, another stayed, and none came.");

    fs::write(stack.config(), &good)?;
    patiently("NodeStageVolume", || orchestrator.stage(&raw))?;
    ensure!(fs::read_to_string(files.target.join("letter"))? == "dear");
    orchestrator.bring_down(&raw)?;
    orchestrator.bring_down(&files)?;
    stack.stop(lab)
}

fn start_again(lab: &mut Lab, stack: &Stack) -> Result<()> {
    lab.daemons.kill("node")?;
    stack.start_node(lab)
}

/// `sanpath properties check --probe` reaches what the daemons use. Before the first export nothing listens at a data portal.
fn every_address_answers(lab: &Lab, stack: &Stack) -> Result<()> {
    let config = stack.config().display().to_string();
    let words = [
        SANPATH,
        "properties",
        "check",
        "--probe",
        "--config",
        &config,
    ];
    let checked = lab.run(&words)?;
    let answers = checked.stdout.matches("\tanswers after ").count();
    ensure!(checked.code == Some(0) && answers == 3, "{checked:?}");
    Ok(())
}
