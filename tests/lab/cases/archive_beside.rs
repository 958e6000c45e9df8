//! A node plugin and an archiver on one machine, with volumes of one target: to the SAN and to the kernel they are two initiators, and neither touches what is the other's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::archives;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Origin, again, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;
use crate::kit::writer::Writer;

pub const CASES: &[Case] = &[Case {
    name: "archive_beside_node",
    deadline: Duration::from_secs(420),
    run: beside_node,
}];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);
const IN_A: &[(&str, &str)] = &[("partition", "cluster-a")];
const IN_B: &[(&str, &str)] = &[("partition", "cluster-b")];

/// A session: its target, the initiator's name, and the interface record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    target: String,
    initiator: String,
    record: String,
}

type Sessions = BTreeMap<String, Session>;

fn beside_node(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        san_arguments: vec!["--layout".to_owned(), "shared".to_owned()],
        ..archives::plan(lab)?
    };
    let stack = Stack::start(lab, plan)?;
    let patient = stack.with_session_idle("600s");
    patient.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut source = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Ext4, IN_A)
    })?;
    orchestrator.bring_up(&mut source)?;
    let node = lab.initiator()?;
    let archiver = format!("{node}:archive");
    let of_node = lab.wait_for("a session over each path", SOON, || {
        let of_node = of(&sessions()?, &node);
        let all = of_node.len() == topology::paths().count();
        ensure!(all, "{of_node:?}");
        Ok(Some(of_node))
    })?;
    let writer = Writer::start(&source.target.join("data"), 256)?;
    writer.wait_for_more(2, SOON)?;

    let to_here = [("archive", "here"), ("retainOnSan", "false")];
    let snapshot = again(|| orchestrator.cut_until_ready("cut", &source, &to_here))?;
    ensure_apart(lab, (&of_node, &node), &archiver)?;

    // The archiver, started anew, ends what it had, by its notes alone.
    lab.daemons.stop("archiver")?;
    stack.start_archiver(lab)?;
    wait_for_none_of(lab, &archiver)?;
    ensure!(sessions()? == of_node, "{:?}", sessions()?);
    writer.wait_for_more(2, SOON)?;

    // The other way round: the node's volume leaves, and its sessions, while the archiver has its own.
    lab.daemons.stop("archiver")?;
    patient.start_archiver(lab)?;
    let restored = again(|| {
        patiently("CreateVolume", || {
            let origin = Origin::Snapshot(&snapshot);
            orchestrator.copy_with("restored", SIZE, (Access::Ext4, IN_B), origin)
        })
    })?;
    let of_archiver = of(&sessions()?, &archiver);
    ensure!(!of_archiver.is_empty(), "{:?}", sessions()?);
    writer.wait_for_more(2, SOON)?;
    ensure!(of(&sessions()?, &node) == of_node, "{:?}", sessions()?);
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!("{blocks} blocks written beside the archiver"));
    orchestrator.bring_down(&source)?;
    wait_for_none_of(lab, &node)?;
    ensure!(sessions()? == of_archiver, "{:?}", sessions()?);

    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    patiently("DeleteVolume", || orchestrator.delete(&restored))?;
    Stack::wait_for_no_work(lab)?;
    lab.daemons.stop("archiver")?;
    stack.start_archiver(lab)?;
    Stack::wait_for_no_session(lab)?;
    lab.daemons.stop("archiver")?;
    stack.stop(lab)
}

/// At one target each has its sessions, and the node's are those it had.
fn ensure_apart(lab: &Lab, (of_node, node): (&Sessions, &str), archiver: &str) -> Result<()> {
    let both = sessions()?;
    let of_archiver = of(&both, archiver);
    ensure!(of_archiver.len() == of_node.len(), "{both:?}");
    ensure!(of(&both, node) == *of_node, "{both:?}");
    ensure!(both.len() == 2 * of_node.len(), "{both:?}");
    let targets: BTreeSet<_> = both.values().map(|it| &it.target).collect();
    ensure!(targets.len() == 1, "{targets:?}");
    let named = |it: &Session| it.record == "sanpath.archive";
    ensure!(of_archiver.values().all(named), "{of_archiver:?}");
    lab.story(format!(
        "one target, {} sessions of the node and {} of the archiver",
        of_node.len(),
        of_archiver.len()
    ));
    Ok(())
}

/// All sessions of this machine by their names in sysfs.
fn sessions() -> Result<Sessions> {
    let class = Path::new("/sys/class/iscsi_session");
    let mut found = Sessions::new();
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        let read = |attribute: &str| -> Result<String> {
            let text = fs::read_to_string(entry.path().join(attribute))?;
            Ok(text.trim().to_owned())
        };
        let session = Session {
            target: read("targetname")?,
            initiator: read("initiatorname")?,
            record: read("ifacename")?,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(name, session);
    }
    Ok(found)
}

fn of(sessions: &Sessions, initiator: &str) -> Sessions {
    let mut sessions = sessions.clone();
    sessions.retain(|_, session| session.initiator == initiator);
    sessions
}

fn wait_for_none_of(lab: &Lab, initiator: &str) -> Result<()> {
    let what = format!("idle sessions of {initiator} to be logged out");
    // One that goes while it is read is looked at again.
    lab.wait_for(&what, SOON, || {
        let left = of(&sessions()?, initiator);
        Ok(left.is_empty().then_some(()))
    })
}
