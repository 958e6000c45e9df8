//! The conformance test of the CSI authors against the real thing: SAN, kernel target, multipath, controller and node, on separate
//! sockets. Its skips must be exactly those of the committed list: each for a capability that is not advertised yet. The same on simulated arrays, whose disks exist
//! here, in the long run; every day `tests/arrays` runs its tests of the controller on them.

use std::time::Duration;

use anyhow::Result;

use super::array_logins;
use crate::kit::array;
use crate::kit::case::{Case, Lab};
use crate::kit::equallogic as group;
use crate::kit::sanity as program;
use crate::kit::stack::{Plan, Stack};
use crate::sanity::{self, SKIPS, SKIPS_WITH_POLICIES};

pub const CASES: &[Case] = &[Case {
    name: "csi_sanity",
    deadline: DEADLINE,
    run: csi_sanity,
}];

pub const LONG: &[Case] = &[
    Case {
        name: "csi_sanity_block",
        deadline: DEADLINE,
        run: csi_sanity_block,
    },
    Case {
        name: "csi_sanity_ontap_whole",
        deadline: DEADLINE,
        run: ontap,
    },
    // Each call starts programs, which under emulation takes most of the time of these.
    Case {
        name: "csi_sanity_vnx_whole",
        deadline: DEADLINE,
        run: vnx,
    },
    Case {
        name: "csi_sanity_unity_whole",
        deadline: DEADLINE,
        run: unity,
    },
    Case {
        name: "csi_sanity_equallogic_whole",
        deadline: DEADLINE,
        run: equallogic,
    },
];

/// Of a volume, unless the SAN has none so small.
const SIZE: u64 = 128 << 20;
const DEADLINE: Duration = Duration::from_secs(1200);

/// What is judged, and how.
struct Trial<'a> {
    stack: &'a Stack,
    /// `mount` or `block`.
    access_type: &'a str,
    skips: &'a str,
    /// Of the volumes that it makes.
    size: u64,
    /// What volumes are put under, where the SAN has policies.
    policy: Option<&'a str>,
}

/// With volumes that are used as file systems.
fn csi_sanity(lab: &mut Lab) -> Result<()> {
    linux(lab, "mount")
}

/// With raw ones.
fn csi_sanity_block(lab: &mut Lab) -> Result<()> {
    linux(lab, "block")
}

fn linux(lab: &mut Lab, access_type: &str) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let trial = Trial {
        stack: &stack,
        access_type,
        skips: SKIPS,
        size: SIZE,
        policy: None,
    };
    judge(lab, &trial)?;
    stack.stop(lab)
}

fn on_array(stack: &Stack) -> Trial<'_> {
    Trial {
        stack,
        access_type: "mount",
        skips: SKIPS_WITH_POLICIES,
        size: SIZE,
        policy: Some(array::POLICY),
    }
}

/// Whatever csi-sanity made is gone from the array when it ends.
fn ontap(lab: &mut Lab) -> Result<()> {
    let credentials = array_logins::mounted(lab)?;
    let rig = array::ontap(lab, &credentials)?;
    judge(lab, &on_array(&rig.stack))?;
    array::is_empty_ontap(&rig.server.array)?;
    rig.stop(lab)
}

fn unity(lab: &mut Lab) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, array::PLAIN_CHECKER)?;
    let rig = array::unity(lab)?;
    judge(lab, &on_array(&rig.stack))?;
    array::is_empty_unity(&rig.server.array)?;
    rig.stop(lab)?;
    set_up.undo()
}

fn vnx(lab: &mut Lab) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, array::PLAIN_CHECKER)?;
    let rig = array::vnx(lab)?;
    let trial = Trial {
        skips: SKIPS,
        policy: None,
        ..on_array(&rig.stack)
    };
    judge(lab, &trial)?;
    array::is_empty_vnx(&rig.server)?;
    rig.stop(lab)?;
    set_up.undo()
}

/// Volumes of a group are whole GiB: of less than one it could not be told whether a size is another.
fn equallogic(lab: &mut Lab) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, "")?;
    let rig = group::start(lab)?;
    let trial = Trial {
        skips: SKIPS,
        size: 1 << 30,
        policy: None,
        ..on_array(&rig.stack)
    };
    judge(lab, &trial)?;
    group::is_empty(&rig.server)?;
    group::stop(lab, rig)?;
    set_up.undo()
}

fn judge(lab: &Lab, trial: &Trial<'_>) -> Result<()> {
    let told = sanity::Trial {
        node: &trial.stack.node_socket,
        controller: &trial.stack.controller_socket,
        folder: &lab.work_folder(),
        size: trial.size,
        access_type: trial.access_type,
        policy: trial.policy,
    };
    let report = program::run(&told, Duration::from_secs(1100))?;
    lab.story(format!(
        "csi-sanity: {} passed, {} failed, {} skipped",
        report.passed.len(),
        report.failed.len(),
        report.skipped.len()
    ));
    for (name, said) in &report.failed {
        lab.story(format!("failed: {name}: {said}"));
    }
    // All of it runs.
    report.judge(trial.skips, |_| true)
}
