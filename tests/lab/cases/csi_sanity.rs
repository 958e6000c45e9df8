//! The conformance test of the CSI authors against the real thing: SAN, kernel target, multipath, controller and node, on separate
//! sockets. Its skips must be exactly those of the committed list: each for a capability that is not advertised yet. The same on simulated arrays, every day
//! by its tests of the controller alone.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::array_logins;
use crate::kit::array;
use crate::kit::case::{Case, Lab};
use crate::kit::equallogic as group;
use crate::kit::sanity;
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[
    Case {
        name: "csi_sanity",
        deadline: DEADLINE,
        run: csi_sanity,
    },
    Case {
        name: "csi_sanity_ontap_controller",
        deadline: DEADLINE,
        run: |lab| ontap(lab, Part::Controller),
    },
    Case {
        name: "csi_sanity_unity_controller",
        deadline: DEADLINE,
        run: |lab| unity(lab, Part::Controller),
    },
];

pub const LONG: &[Case] = &[
    Case {
        name: "csi_sanity_block",
        deadline: DEADLINE,
        run: csi_sanity_block,
    },
    Case {
        name: "csi_sanity_ontap_whole",
        deadline: DEADLINE,
        run: |lab| ontap(lab, Part::Whole),
    },
    // Each call starts programs, which under emulation takes most of the time of these.
    Case {
        name: "csi_sanity_vnx_controller",
        deadline: DEADLINE,
        run: |lab| vnx(lab, Part::Controller),
    },
    Case {
        name: "csi_sanity_equallogic_controller",
        deadline: DEADLINE,
        run: |lab| equallogic(lab, Part::Controller),
    },
    Case {
        name: "csi_sanity_vnx_whole",
        deadline: DEADLINE,
        run: |lab| vnx(lab, Part::Whole),
    },
    Case {
        name: "csi_sanity_unity_whole",
        deadline: DEADLINE,
        run: |lab| unity(lab, Part::Whole),
    },
    Case {
        name: "csi_sanity_equallogic_whole",
        deadline: DEADLINE,
        run: |lab| equallogic(lab, Part::Whole),
    },
];

/// Of a volume, unless the SAN has none so small.
const SIZE: u64 = 128 << 20;
const DEADLINE: Duration = Duration::from_secs(1200);

/// How much of csi-sanity runs.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    /// What it has for the controller, by the names of its suites.
    Controller,
}

/// How those names are told.
const OF_CONTROLLER: [&str; 2] = ["[Controller Server]", "[GroupController"];

impl Part {
    fn has(self, test: &str) -> bool {
        match self {
            Part::Whole => true,
            Part::Controller => OF_CONTROLLER.iter().any(|suite| test.contains(suite)),
        }
    }

    fn arguments(self) -> Vec<String> {
        match self {
            Part::Whole => Vec::new(),
            Part::Controller => {
                let names =
                    OF_CONTROLLER.map(|suite| suite.replace('[', "\\[").replace(']', "\\]"));
                vec![format!("--ginkgo.focus={}", names.join("|"))]
            }
        }
    }
}

/// One name to a line; lines that start with `#` say why those below them are skipped.
const SKIPS: &str = include_str!("csi_sanity_skips.txt");
/// The same where the SAN is an array.
const SKIPS_ON_ARRAYS: &str = include_str!("csi_sanity_skips_arrays.txt");

/// What is judged, and how.
struct Trial<'a> {
    stack: &'a Stack,
    part: Part,
    /// `mount` or `block`.
    access_type: &'a str,
    skips: &'a str,
    /// Of the volumes that it makes.
    size: u64,
    /// What csi-sanity sets by a VolumeAttributesClass, where it can.
    mutable: Option<String>,
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
        part: Part::Whole,
        access_type,
        skips: SKIPS,
        size: SIZE,
        mutable: None,
    };
    judge(lab, &trial)?;
    stack.stop(lab)
}

fn on_array(stack: &Stack, part: Part) -> Trial<'_> {
    Trial {
        stack,
        part,
        access_type: "mount",
        skips: SKIPS_ON_ARRAYS,
        size: SIZE,
        mutable: Some(format!("qosPolicy: {}\n", array::POLICY)),
    }
}

/// Whatever csi-sanity made is gone from the array when it ends.
fn ontap(lab: &mut Lab, part: Part) -> Result<()> {
    let credentials = array_logins::mounted(lab)?;
    let rig = array::ontap(lab, &credentials)?;
    judge(lab, &on_array(&rig.stack, part))?;
    array::is_empty_ontap(&rig.server.array)?;
    rig.stop(lab)
}

fn unity(lab: &mut Lab, part: Part) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, array::PLAIN_CHECKER)?;
    let rig = array::unity(lab)?;
    judge(lab, &on_array(&rig.stack, part))?;
    array::is_empty_unity(&rig.server.array)?;
    rig.stop(lab)?;
    set_up.undo()
}

fn vnx(lab: &mut Lab, part: Part) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, array::PLAIN_CHECKER)?;
    let rig = array::vnx(lab)?;
    let trial = Trial {
        skips: SKIPS,
        mutable: None,
        ..on_array(&rig.stack, part)
    };
    judge(lab, &trial)?;
    array::is_empty_vnx(&rig.server)?;
    rig.stop(lab)?;
    set_up.undo()
}

/// Volumes of a group are whole GiB: of less than one it could not be told whether a size is another.
fn equallogic(lab: &mut Lab, part: Part) -> Result<()> {
    let set_up = array::HostSetUp::apply(lab, "")?;
    let rig = group::start(lab)?;
    let trial = Trial {
        skips: SKIPS,
        size: 1 << 30,
        mutable: None,
        ..on_array(&rig.stack, part)
    };
    judge(lab, &trial)?;
    group::is_empty(&rig.server)?;
    group::stop(lab, rig)?;
    set_up.undo()
}

fn judge(lab: &Lab, trial: &Trial<'_>) -> Result<()> {
    let (stack, part) = (trial.stack, trial.part);
    let folder = lab.work_folder();
    let flag = |name: &str, value: &str| format!("--csi.{name}={value}");
    let at = |part: &str| folder.join(part).display().to_string();
    let mut arguments = part.arguments();
    arguments.extend([
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
        flag("testvolumesize", &trial.size.to_string()),
        flag("testvolumeaccesstype", trial.access_type),
    ]);
    if let Some(mutable) = &trial.mutable {
        fs::write(folder.join("mutable.yaml"), mutable)?;
        arguments.push(flag("testvolumemutableparameters", &at("mutable.yaml")));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = sanity::run(lab, &arguments, Duration::from_secs(1100))?;
    lab.story(format!(
        "csi-sanity: {} passed, {} failed, {} skipped",
        report.passed.len(),
        report.failed.len(),
        report.skipped.iter().filter(|test| part.has(test)).count()
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
    compare_skips(trial, &report.skipped)
}

fn compare_skips(trial: &Trial<'_>, skipped: &[String]) -> Result<()> {
    let part = trial.part;
    let expected: BTreeSet<&str> = trial
        .skips
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && part.has(line))
        .collect();
    let found = skipped.iter().map(String::as_str);
    let found: BTreeSet<&str> = found.filter(|test| part.has(test)).collect();
    if expected == found {
        return Ok(());
    }
    bail!(
        "the skips are not those of the list; skipped beyond it: {:#?}; in it but not skipped: {:#?}",
        found.difference(&expected).collect::<Vec<_>>(),
        expected.difference(&found).collect::<Vec<_>>()
    )
}
