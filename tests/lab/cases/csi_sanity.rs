//! The conformance test of the CSI authors against the real thing: SAN, kernel target, multipath, controller and node, on separate
//! sockets. Its skips must be exactly those of the committed list: each for a capability that is not advertised yet.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::sanity;
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "csi_sanity",
    deadline: Duration::from_secs(1200),
    run: csi_sanity,
}];

pub const LONG: &[Case] = &[Case {
    name: "csi_sanity_block",
    deadline: Duration::from_secs(1200),
    run: csi_sanity_block,
}];

/// One name to a line; lines that start with `#` say why those below them are skipped.
const SKIPS: &str = include_str!("csi_sanity_skips.txt");

/// With volumes that are used as file systems.
fn csi_sanity(lab: &mut Lab) -> Result<()> {
    judge(lab, "mount")
}

/// With raw ones.
fn csi_sanity_block(lab: &mut Lab) -> Result<()> {
    judge(lab, "block")
}

fn judge(lab: &mut Lab, access_type: &str) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let folder = lab.work_folder();
    let flag = |name: &str, value: &str| format!("--csi.{name}={value}");
    let at = |part: &str| folder.join(part).display().to_string();
    let arguments = [
        flag(
            "endpoint",
            &format!("unix://{}", stack.node_socket.display()),
        ),
        flag(
            "controllerendpoint",
            &format!("unix://{}", stack.controller_socket.display()),
        ),
        flag("mountdir", &at("mount")),
        flag("stagingdir", &at("staging")),
        flag("testvolumesize", &(128_u64 << 20).to_string()),
        flag("testvolumeaccesstype", access_type),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = sanity::run(lab, &arguments, Duration::from_secs(1100))?;
    lab.story(format!(
        "csi-sanity: {} passed, {} failed, {} skipped",
        report.passed.len(),
        report.failed.len(),
        report.skipped.len()
    ));
    for (name, said) in &report.failed {
        lab.story(format!("failed: {name}: {said}"));
    }
    ensure!(
        report.failed.is_empty(),
        "csi-sanity failed in {} tests",
        report.failed.len()
    );
    ensure!(
        report.passed.len() > 30,
        "only {} tests ran",
        report.passed.len()
    );
    compare_skips(&report.skipped)?;
    stack.stop(lab)
}

fn compare_skips(skipped: &[String]) -> Result<()> {
    let expected: BTreeSet<&str> = SKIPS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let found: BTreeSet<&str> = skipped.iter().map(String::as_str).collect();
    if expected == found {
        return Ok(());
    }
    bail!(
        "the skips are not those of the list; skipped beyond it: {:#?}; in it but not skipped: {:#?}",
        found.difference(&expected).collect::<Vec<_>>(),
        expected.difference(&found).collect::<Vec<_>>()
    )
}
