//! Group A of the fault cases: iscsid away, and records that an administrator made before us.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;

pub const CASES: &[Case] = &[
    Case {
        name: "iscsid_stopped",
        deadline: Duration::from_secs(300),
        run: iscsid_stopped,
    },
    Case {
        name: "automatic_record_is_repaired",
        deadline: Duration::from_secs(300),
        run: automatic_record,
    },
];

const SIZE: i64 = 64 << 20;

/// A node whose sessions stay until [`end`] lets them go.
fn start_warm(lab: &mut Lab) -> Result<Stack> {
    let plan = Plan {
        session_idle: "600s",
        ..Plan::default()
    };
    Stack::start(lab, plan)
}

/// Starts the node with no patience for idle sessions, then stops everything.
fn end(lab: &mut Lab, stack: &Stack) -> Result<()> {
    lab.daemons.stop("node")?;
    stack.with_session_idle("1s").start_node(lab)?;
    stack.stop(lab)
}

/// A volume that the SAN already shows to this node.
fn exported(orchestrator: &mut Orchestrator, name: &str) -> Result<Volume> {
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create(name, SIZE, Access::Block)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    Ok(volume)
}

/// The target of this node, as its volumes are published.
pub(super) fn target_of(volume: &Volume) -> Result<String> {
    let offers = volume.publish_context.get("offers").context("no offers")?;
    let mut parts = offers.split(',').next().unwrap_or_default().split('=');
    let iqn = parts.find(|part| part.starts_with("iqn."));
    Ok(iqn
        .with_context(|| format!("no target in {offers}"))?
        .to_owned())
}

/// No login without iscsid, and the reason is told; sessions that are up serve new volumes and old ones leave without it.
fn iscsid_stopped(lab: &mut Lab) -> Result<()> {
    let stack = start_warm(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let (first, second) = (
        exported(&mut orchestrator, "first")?,
        exported(&mut orchestrator, "second")?,
    );
    Service::Iscsid.hold_down("TERM")?;
    let start = Instant::now();
    let fresh = orchestrator.stage(&first);
    Service::Iscsid.release()?;
    let Err(status) = fresh else {
        bail!("staged without a session and without iscsid")
    };
    lab.story(format!(
        "fresh, told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(status.message().contains("iscsi"), "{status:?}");
    patiently("NodeStageVolume", || orchestrator.stage(&first))?;

    Service::Iscsid.hold_down("TERM")?;
    let start = Instant::now();
    let warm = orchestrator.stage(&second);
    lab.story(format!(
        "warm, staged after {} ms",
        start.elapsed().as_millis()
    ));
    let unstaged = orchestrator.unstage(&second);
    Service::Iscsid.release()?;
    warm.context("sessions that are up need no iscsid")?;
    unstaged.context("a volume leaves without iscsid")?;
    orchestrator.bring_down(&second)?;
    orchestrator.bring_down(&first)?;
    end(lab, &stack)
}

/// Records that would log in at boot and scan everything lose these two settings and keep the others; only the wanted LUN appears.
fn automatic_record(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let (mut wanted, other) = (
        exported(&mut orchestrator, "wanted")?,
        exported(&mut orchestrator, "other")?,
    );
    let iqn = target_of(&wanted)?;
    let settings = [
        ("node.startup", "automatic", "manual"),
        ("node.session.scan", "auto", "manual"),
        // None of our business, so it stays.
        ("node.session.iscsi.FirstBurstLength", "131072", "131072"),
    ];
    for link in topology::paths() {
        let portal = link.san_address(1);
        let node = ["iscsiadm", "-m", "node", "-T", &iqn, "-p", &portal];
        lab.execute(&[&node[..], &["-o", "new"]].concat())?;
        for (name, value, _) in settings {
            lab.execute(&[&node[..], &["-o", "update", "-n", name, "-v", value]].concat())?;
        }
    }
    orchestrator.bring_up(&mut wanted)?;
    let disks = lab.execute(&["sh", "-c", "ls /sys/block | grep -c ^sd"])?;
    ensure!(
        disks.trim() == "2",
        "{disks} disks for one volume on two paths"
    );
    for link in topology::paths() {
        let portal = link.san_address(1);
        let record = lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-p", &portal])?;
        for (name, _, after) in settings {
            let line = format!("{name} = {after}");
            ensure!(record.lines().any(|it| it == line), "not {line}: {record}");
        }
    }
    lab.story("no login at boot, no scan of its own, and the administrator's burst length kept");
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&wanted))?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&wanted))?;
    // Records that we did not make are not ours to end.
    lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-u"])?;
    lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-o", "delete"])?;
    orchestrator.bring_down(&wanted)?;
    orchestrator.bring_down(&other)?;
    stack.stop(lab)
}
