//! Group A of the fault cases: portals that refuse, and iscsid away or silent. What others do beside us is in `faults_strangers`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::attach::AttachError;
use sanpath::fabric::{Export, Offer, Portal, Wwid};
use sanpath::fault::{Fault, Faulted, chain};
use sanpath::host::Host;
use sanpath::iscsi::list_sessions;

use super::attach::{self, PATIENCE, Rig, ended, offers_of};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::lio::Target;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;

/// What every run proves.
pub const CASES: &[Case] = &[
    Case {
        name: "iscsid_stopped",
        deadline: Duration::from_secs(300),
        run: iscsid_stopped,
    },
    Case {
        name: "iscsid_never_answers",
        deadline: Duration::from_secs(300),
        run: iscsid_never_answers,
    },
];

/// What only the long run proves.
pub const LONG: &[Case] = &[
    Case {
        name: "half_of_four_portals_refuse",
        deadline: Duration::from_secs(300),
        run: half_of_four_portals_refuse,
    },
    Case {
        name: "two_processes_stage_at_once",
        deadline: Duration::from_secs(300),
        run: two_processes,
    },
];

/// A target of somebody else's.
pub(super) const OTHER: &str = "iqn.2026-01.dev.sanpath.lab:other";
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
pub(super) fn end(lab: &mut Lab, stack: &Stack) -> Result<()> {
    lab.daemons.stop("node")?;
    stack.with_session_idle("1s").start_node(lab)?;
    stack.stop(lab)
}

/// A volume that the SAN already shows to this node.
pub(super) fn exported(orchestrator: &mut Orchestrator, name: &str) -> Result<Volume> {
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create(name, SIZE, Access::Block)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    Ok(volume)
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

/// One of two controllers of a SAN is down and its host answers RST: two of four portals. They are told at once and asked once each, without a login;
/// the next call takes them in.
fn half_of_four_portals_refuse(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let mut volume = rig.volume(21)?;
    let beside: Vec<Offer> = volume.export.offers.iter().map(at_second_port).collect();
    volume.export.offers.extend(beside.iter().cloned());
    let before = resets(lab)?;
    let (attached, processes) = rig.ensure("half of the portals refuse", &volume)?;
    let answered = resets(lab)? - before;
    ensure!(attached.map.members.len() == 2, "{:?}", attached.map);
    ensure!(attached.missing.len() == 2, "{:?}", attached.missing);
    ensure!(
        matches!(processes, 6 | 7),
        "{processes} processes: 3 for each living portal, and 1 where multipath has no file of WWIDs yet"
    );
    ensure!(
        answered == 2,
        "{answered} connections refused, for two portals"
    );
    for offer in &beside {
        rig.target.open_portal(lab, &offer.portal.to_string())?;
    }
    let (attached, _) = rig.ensure("they listen again", &volume)?;
    ensure!(attached.map.members.len() == 4 && attached.missing.is_empty());
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

fn at_second_port(offer: &Offer) -> Offer {
    Offer {
        portal: Portal::new(offer.portal.address(), 3261),
        ..offer.clone()
    }
}

/// How often the SAN's kernel has answered RST.
fn resets(lab: &Lab) -> Result<u64> {
    let network = format!("--net=/run/netns/{}", topology::SAN_NAMESPACE);
    let text = lab.execute(&["nsenter", &network, "cat", "/proc/net/snmp"])?;
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:"));
    let names = rows.next().unwrap_or_default().split_whitespace();
    let values = rows.next().unwrap_or_default().split_whitespace();
    let (_, value) = names
        .zip(values)
        .find(|(name, _)| *name == "OutRsts")
        .context("no OutRsts")?;
    Ok(value.parse()?)
}

/// While a new plugin takes over from an old one both serve calls: one session for each portal all the same.
fn two_processes(lab: &mut Lab) -> Result<()> {
    let stack = start_warm(lab)?;
    let second = stack.with_second_node()?;
    second.start_node_as(lab, "node2", &[])?;
    let mut orchestrator = stack.orchestrator()?;
    let volumes = ["own-1", "own-2", "shared"].map(|name| exported(&mut orchestrator, name));
    let volumes = volumes.into_iter().collect::<Result<Vec<_>>>()?;
    let stage = |stack: &Stack, own: &Volume| -> Result<()> {
        let mut orchestrator = stack.orchestrator()?;
        for volume in [own, &volumes[2]] {
            patiently("NodeStageVolume", || orchestrator.stage(volume))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let one = scope.spawn(|| stage(&stack, &volumes[0]));
        let two = scope.spawn(|| stage(&second, &volumes[1]));
        ended(one).and(ended(two))
    })?;
    let sessions = list_sessions(&Host::real(Path::new("/")))?;
    ensure!(
        sessions.len() == topology::paths().count(),
        "{sessions:?} for one target"
    );
    lab.story("two plugins staged three volumes over one session for each portal");
    lab.daemons.stop("node2")?;
    for volume in &volumes {
        orchestrator.bring_down(volume)?;
    }
    end(lab, &stack)
}

/// Asks until the volume has both its paths, as an orchestrator repeats a call and a later call takes in what was missing.
fn both_paths(lab: &Lab, rig: &Rig, volume: &attach::Volume) -> Result<()> {
    lab.wait_for("both paths", 2 * PATIENCE, || {
        let attached = rig.engine.ensure(&rig.want(volume));
        let attached = attached.map_err(|error| anyhow::anyhow!(chain(&error)))?;
        Ok((attached.map.members.len() == 2).then_some(()))
    })
}

/// A volume of another target.
fn volume_of(target: &Target, lun: u16) -> Result<attach::Volume> {
    let serial = format!("fedcba98{lun:024x}");
    let disk = target.add_disk(&serial, attach::SIZE)?;
    target.map(lun, &disk)?;
    Ok(attach::Volume {
        lun,
        disk,
        export: Export {
            wwid: Wwid::from_lio_serial(&serial)?,
            size: attach::SIZE,
            offers: offers_of(OTHER, lun)?,
            blank: true,
            read_only: false,
            own_target: false,
        },
    })
}

/// iscsid takes calls and never answers, as one of another version may: the call that needs it ends by its deadline, what needs no login goes on,
/// nobody is killed, and with the answer everything converges.
fn iscsid_never_answers(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let (warm, neighbour) = (rig.volume(27)?, rig.volume(28)?);
    let other = Target::serve_beside(lab, OTHER, 79)?;
    let fresh = volume_of(&other, 9)?;
    rig.ensure("the sessions", &warm)?;
    Service::Iscsid.signal("STOP")?;
    let outcome = thread::scope(|scope| {
        let stuck = scope.spawn(|| {
            let mut want = rig.want(&fresh);
            want.deadline = rig.host.deadline_in(Duration::from_secs(12));
            let start = Instant::now();
            (rig.engine.ensure(&want).err(), start.elapsed())
        });
        let goes_on = rig.ensure("meanwhile, over sessions that are up", &neighbour);
        let leaves = rig.detach("and it leaves", &neighbour);
        let stuck = stuck.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        goes_on?;
        leaves?;
        Ok::<_, anyhow::Error>(stuck)
    });
    let waiting = lab.run(&["pgrep", "-x", "iscsiadm"]);
    Service::Iscsid.signal("CONT")?;
    let (refused, took) = outcome?;
    let refused = refused.context("attached without an answer")?;
    lab.story(format!(
        "stuck, told after {} ms: {}",
        took.as_millis(),
        chain(&refused)
    ));
    ensure!(refused.fault() == Fault::MaybeDone);
    ensure!(
        matches!(refused, AttachError::TooFew { .. }),
        "not for want of an answer: {refused:?}"
    );
    ensure!(took < Duration::from_secs(40), "its deadline was 12 s");
    waiting?.success("an iscsiadm that waits was killed")?;
    both_paths(lab, &rig, &fresh)?;
    let sessions = list_sessions(&rig.host)?;
    ensure!(sessions.len() == 4, "{sessions:?}");
    lab.wait_for("every iscsiadm to end", PATIENCE, || {
        let left = lab.run(&["pgrep", "-x", "iscsiadm"])?;
        Ok(left.success("").is_err().then_some(()))
    })?;
    for volume in [&warm, &fresh] {
        rig.detach("detach", volume)?;
    }
    let reaped = rig.engine.reap_idle(Duration::ZERO)?;
    ensure!(reaped.ended.len() == 4, "{reaped:?}");
    other.unmap(fresh.lun, &fresh.disk)?;
    other.remove(&[fresh.disk])?;
    for volume in [&warm, &neighbour] {
        rig.unmap(volume)?;
    }
    rig.remove()
}
