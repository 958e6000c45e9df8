//! How many processes each call of the node may start, counted from the log of a plugin that writes a line for each. The layout is the one that the Linux SAN
//! has: a target for each node, whose sessions stay when a volume goes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Status;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::{daemons, topology};

pub const CASES: &[Case] = &[Case {
    name: "process_budget",
    deadline: Duration::from_secs(360),
    run: process_budget,
}];

const BEFORE: i64 = 128 << 20;
const AFTER: i64 = 192 << 20;

fn process_budget(lab: &mut Lab) -> Result<()> {
    // Sessions stay between one volume and the next, and a stage is done when all of its paths serve: nothing of it is left to do beside later calls.
    let plan = Plan {
        session_idle: "60s",
        settings: vec![format!("minPaths: {}", topology::paths().count())],
        ..Plan::default()
    };
    // On a host that never had a multipath device, one process more makes multipath's file of WWIDs (`attach_and_detach`); this host had one.
    for option in ["-a", "-w"] {
        lab.execute(&["multipath", option, "36001405000000000000000000000000ff"])?;
    }
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let fresh = 3 * topology::paths().count() + 1;
    for access in [Access::Ext4, Access::Block] {
        let name = format!("{access:?}").to_lowercase();
        let mut volumes = Vec::new();
        for place in ["first", "second"] {
            let name = format!("{name}-{place}");
            volumes.push(orchestrator.create_attached(&name, BEFORE, access)?);
        }
        let [mut first, second]: [Volume; 2] = volumes
            .try_into()
            .map_err(|_| anyhow::anyhow!("there are two"))?;
        let spend = |what: &str, most: usize, call: &mut dyn FnMut() -> Result<(), Status>| {
            within(lab, &format!("{name}: {what}"), most, call)
        };
        let most = if access == Access::Ext4 { fresh } else { 1 };
        let what = if access == Access::Ext4 {
            "a fresh stage"
        } else {
            "a warm stage"
        };
        spend(what, most, &mut || orchestrator.stage(&first))?;
        spend("the same stage again", 0, &mut || {
            orchestrator.stage(&first)
        })?;
        spend("a warm stage of a new volume", 1, &mut || {
            orchestrator.stage(&second)
        })?;
        spend("a publish", 0, &mut || orchestrator.publish(&first, false))?;
        patiently("ControllerExpandVolume", || {
            orchestrator.expand(&mut first, AFTER)
        })?;
        spend("an expansion", 0, &mut || {
            orchestrator.expand_on_node(&first).map(drop)
        })?;
        spend("an unpublish", 0, &mut || orchestrator.unpublish(&first))?;
        spend("an unstage", 1, &mut || orchestrator.unstage(&first))?;
        spend("a warm stage of a used volume", 1, &mut || {
            orchestrator.stage(&first)
        })?;
        orchestrator.bring_down(&first)?;
        orchestrator.bring_down(&second)?;
    }
    // The sessions were to be kept; a node with a shorter patience reaps them.
    lab.daemons.stop("node")?;
    stack.with_session_idle("1s").start_node(lab)?;
    stack.stop(lab)
}

/// Makes a call that may start `most` processes beside the tools of file systems. What is counted must be what the plugin itself counted.
pub(super) fn within(
    lab: &Lab,
    what: &str,
    most: usize,
    call: &mut dyn FnMut() -> Result<(), Status>,
) -> Result<()> {
    let before = read_log()?.len();
    call().with_context(|| what.to_owned())?;
    let log = read_log()?.split_off(before);
    let tools = started_tools(&log);
    let counted = log.lines().rev().find_map(counted_processes);
    let (apart, besides): (Vec<&String>, Vec<&String>) =
        tools.iter().partition(|tool| is_file_system_tool(tool));
    lab.story(format!(
        "{what}: {} processes {besides:?} and {apart:?}",
        besides.len()
    ));
    ensure!(
        counted == Some(tools.len()),
        "{what}: the plugin counted {counted:?}, its log tells of {tools:?}"
    );
    ensure!(
        besides.len() <= most,
        "{what} may start {most} processes, not {besides:?}"
    );
    Ok(())
}

fn read_log() -> Result<String> {
    fs::read_to_string(daemons::log_of("node")).context("the node's log")
}

/// The command lines that the node logged, one for each process it started.
fn started_tools(log: &str) -> Vec<String> {
    let runs = log
        .lines()
        .filter(|line| line.contains("sanpath::host") && line.contains("what=\"run\""));
    runs.filter_map(|line| Some(line.split(" on=").nth(1)?.split(" ok=").next()?.to_owned()))
        .collect()
}

/// What the line about the end of a call says.
pub(super) fn counted_processes(line: &str) -> Option<usize> {
    let (_, rest) = line
        .contains(" done ")
        .then(|| line.split_once(" processes="))??;
    rest.split_whitespace().next()?.parse().ok()
}

fn is_file_system_tool(command: &str) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    program.starts_with("mkfs") || program.contains("fsck") || program == "resize2fs"
}
