//! `sanpath doctor` on a real node: silent while all is well, and it finds what is broken, and finds it mended.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::doctor_table::keep_clock;
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, patiently};
use crate::kit::multipath_conf::Configured;
use crate::kit::paths;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const LONG: &[Case] = &[Case {
    name: "doctor_finds_what_is_broken",
    deadline: Duration::from_secs(300),
    run: doctor,
}];

const SIZE: i64 = 64 << 20;
/// noop interval and time-out are 5 s each; the rest is an emulated machine's.
const SOON: Duration = Duration::from_secs(60);
const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";
/// What the exit code says.
const WARNINGS: i32 = 1;
const PROBLEMS: i32 = 2;

fn doctor(lab: &mut Lab) -> Result<()> {
    keep_clock(lab, true)?;
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let volume = orchestrator.create_attached("seen", SIZE, Access::Block)?;
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    wait_until_well(lab, &stack)?;

    let name = fs::read_to_string(INITIATOR)?;
    fs::write(INITIATOR, "GenerateName=yes\n")?;
    let told = self::told(lab, &stack, PROBLEMS, &["initiator-name"]);
    fs::write(INITIATOR, name)?;
    told?;

    Service::Iscsid.hold_down("TERM")?;
    let told = self::told(lab, &stack, PROBLEMS, &["iscsid"]);
    Service::Iscsid.release()?;
    told?;

    Service::Multipathd.hold_down("TERM")?;
    let told = self::told(lab, &stack, PROBLEMS, &["multipathd", "volume"]);
    Service::Multipathd.release()?;
    told?;

    let settings =
        "blacklist {\n    devnode \"^sd[x-z]\"\n}\noverrides {\n    no_path_retry queue\n}\n";
    let configured = Configured::with("strict", "no", settings)?;
    let checks = ["no-path-retry", "multipath-blacklist"];
    self::told(lab, &stack, PROBLEMS, &checks)?;
    drop(configured);

    paths::cut(Link(1))?;
    let checks = ["address", "session", "volume"];
    let told = self::told(lab, &stack, WARNINGS, &checks);
    paths::restore(Link(1))?;
    told?;
    wait_until_well(lab, &stack)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Nothing is amiss, once the daemons that were started anew have taken up what there is.
fn wait_until_well(lab: &Lab, stack: &Stack) -> Result<()> {
    told(lab, stack, 0, &[])
}

/// Exactly these checks find something, soon: what was mended before may take a moment.
fn told(lab: &Lab, stack: &Stack, code: i32, checks: &[&str]) -> Result<()> {
    let mut last = None;
    let told = lab.wait_for(&format!("{checks:?} to be told"), SOON, || {
        let told = complaints(lab, stack)?;
        let is_it = told.0 == code && names(&told) == checks;
        last = Some(told.clone());
        Ok(is_it.then_some(told))
    });
    let told = told.with_context(|| format!("{last:#?}"))?;
    for finding in &told.1 {
        let is_whole = finding["reason"].is_string() && finding["fix"].is_string();
        ensure!(is_whole, "{finding}");
        lab.story(format!("{}: {}", finding["check"], finding["found"]));
    }
    Ok(())
}

/// The exit code and what is not as it should be.
type Told = (i32, Vec<Value>);

fn complaints(lab: &Lab, stack: &Stack) -> Result<Told> {
    let config = stack.config().display().to_string();
    let argv = [
        SANPATH, "doctor", "node", "--config", &config, "--output", "json", "--quiet",
    ];
    let ended = lab.run(&argv)?;
    let report: Value = serde_json::from_str(&ended.stdout)
        .with_context(|| format!("{}: {}", ended.stdout, ended.stderr))?;
    let findings = report["findings"].as_array().context("no findings")?;
    Ok((ended.code.context("it was killed")?, findings.clone()))
}

fn names(told: &Told) -> Vec<&str> {
    let names = told
        .1
        .iter()
        .filter_map(|finding| finding["check"].as_str());
    names.collect()
}
