//! The plugin, open-iscsi and multipath-tools are replaced while volumes are in use: I/O goes on, and whoever comes after takes over what is there.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::chaos::{drop_connection, wait_until_whole};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::daemons;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;
use crate::kit::writer::{Writer, verify};

pub const LONG: &[Case] = &[
    Case {
        name: "plugin_upgraded",
        deadline: Duration::from_secs(600),
        run: plugin,
    },
    Case {
        name: "host_tools_upgraded",
        deadline: Duration::from_secs(600),
        run: host_tools,
    },
];

const SIZE: i64 = 128 << 20;
/// The writers go round in this many blocks of 64 KiB.
const ROUND: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(90);
/// The plugin that comes after.
const NEWER: &str = "newer";
/// What a plugin says that leaves calls behind when its grace is over.
const LEFT: &str = "some calls did not end within 25 seconds after the word to stop";

/// A volume in use.
struct Busy {
    volume: Volume,
    writer: Writer,
}

impl Busy {
    fn start(orchestrator: &mut Orchestrator, name: &str, access: Access) -> Result<Self> {
        let mut volume = created(orchestrator, name, access)?;
        orchestrator.bring_up(&mut volume)?;
        let writer = Writer::start(&file_of(&volume), ROUND)?;
        writer.wait_for_more(4, PATIENCE)?;
        Ok(Busy { volume, writer })
    }

    fn goes_on(&self, when: &str) -> Result<()> {
        let more = self.writer.wait_for_more(8, PATIENCE);
        more.map(drop).with_context(|| when.to_owned())
    }

    /// No error, no mismatch; then the volume leaves.
    fn end(self, orchestrator: &mut Orchestrator) -> Result<()> {
        let blocks = self.writer.finish()?;
        verify(&file_of(&self.volume), blocks, ROUND)?;
        orchestrator.bring_down(&self.volume)
    }
}

fn created(orchestrator: &mut Orchestrator, name: &str, access: Access) -> Result<Volume> {
    patiently("CreateVolume", || orchestrator.create(name, SIZE, access))
}

fn file_of(volume: &Volume) -> PathBuf {
    match volume.access {
        Access::Block => volume.target.clone(),
        _ => volume.target.join("data"),
    }
}

/// A newer plugin starts while the old one serves, and again while the old one ends in the middle of a stage; then a plugin finds records that it
/// cannot read. What was staged by one leaves by another.
fn plugin(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mounted = Busy::start(&mut orchestrator, "mounted", Access::Ext4)?;
    let raw = Busy::start(&mut orchestrator, "raw", Access::Block)?;

    refused_beside_a_living_one(lab, &stack)?;
    mounted.goes_on("beside a refused plugin")?;
    let late = taken_over_in_a_stage(lab, &stack, &mut orchestrator)?;
    for busy in [&mounted, &raw] {
        busy.goes_on("under the newer plugin")?;
        patiently("NodeStageVolume", || orchestrator.stage(&busy.volume))?;
    }
    orchestrator.bring_down(&late)?;
    lab.daemons.stop(NEWER)?;

    let changes = [
        ("\"version\": 1", "\"version\": 2"),
        ("\"leaving\"", "\"sealed\": true, \"leaving\""),
    ];
    for (from, to) in changes {
        let record = record_of(&stack, &raw.volume)?;
        let old = fs::read_to_string(&record)?;
        let newer = old.replacen(from, to, 1);
        ensure!(newer != old, "no {from} in {old}");
        fs::write(&record, newer)?;
        stack.start_node(lab)?;
        let refused = unread(&mut orchestrator, &raw, &to.replace(['"', ':', ','], "_"));
        lab.daemons.stop("node")?;
        fs::write(&record, old)?;
        refused.with_context(|| format!("a record with {to}"))?;
    }
    stack.start_node(lab)?;
    mounted.end(&mut orchestrator)?;
    raw.end(&mut orchestrator)?;
    stack.stop(lab)
}

/// A living plugin keeps its socket; the newer one ends and says why.
fn refused_beside_a_living_one(lab: &mut Lab, stack: &Stack) -> Result<()> {
    stack.start_node_as(lab, NEWER, &[])?;
    let until = Instant::now() + PATIENCE;
    while lab.daemons.is_running(NEWER) {
        ensure!(Instant::now() < until, "a second plugin serves");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = fs::read_to_string(daemons::log_of(NEWER))?;
    ensure!(told.contains("another process serves"), "it said: {told}");
    ensure!(lab.daemons.is_running("node"), "the first one is gone");
    Ok(())
}

/// The old plugin gets its SIGTERM in a stage, and the newer one is started at once: it takes the socket, waits for the volume's lock, and finds the
/// volume staged or stages it.
fn taken_over_in_a_stage(
    lab: &mut Lab,
    stack: &Stack,
    orchestrator: &mut Orchestrator,
) -> Result<Volume> {
    let mut late = created(orchestrator, "late", Access::Ext4)?;
    patiently("ControllerPublishVolume", || orchestrator.attach(&mut late))?;
    let (mut caller, volume) = (stack.orchestrator()?, late.clone());
    let first = std::thread::spawn(move || caller.stage(&volume));
    lab.wait_for("the stage to begin", PATIENCE, || {
        record_of(stack, &late).map(Some)
    })?;
    let old = nix::unistd::Pid::from_raw(lab.daemons.process_id("node")?.cast_signed());
    nix::sys::signal::kill(old, nix::sys::signal::Signal::SIGTERM)?;
    let start = Instant::now();
    let mut starts = 0;
    // One that comes before the old one has read its signal ends; whoever started it does so again.
    while starts == 0 || !lab.daemons.is_running(NEWER) {
        ensure!(start.elapsed() < PATIENCE, "the newer plugin never serves");
        starts += 1;
        let _ = stack.start_node_as(lab, NEWER, &[]);
        std::thread::sleep(Duration::from_millis(100));
    }
    let together = lab.daemons.is_running("node");
    lab.story(format!(
        "the newer plugin served {} ms after the signal, at start {starts}; the old one still ran: {together}",
        start.elapsed().as_millis()
    ));
    ensure!(together, "the old plugin had ended: this proves nothing");
    patiently("NodeStageVolume by the newer one", || {
        orchestrator.stage(&late)
    })?;
    let answer = first
        .join()
        .map_err(|_| anyhow::anyhow!("the first caller panicked"))?;
    if let Err(status) = answer {
        ensure!(leaves_open(&status), "the old plugin answered {status:?}");
    }
    ends_as_promised(lab)?;
    patiently("NodePublishVolume", || orchestrator.publish(&late, false))?;
    fs::write(late.target.join("file"), "staged by two")?;
    Ok(late)
}

/// The old plugin ends with 0, or, where the stage outlived its grace, with 1 and word of it.
fn ends_as_promised(lab: &mut Lab) -> Result<()> {
    let Err(status) = lab.daemons.stop("node") else {
        lab.story("the old plugin finished its stage within its grace");
        return Ok(());
    };
    let told = fs::read_to_string(daemons::log_of("node"))?;
    let last = told.lines().last().unwrap_or_default();
    ensure!(
        format!("{status:#}").ends_with("stopped with status 1") && last.contains(LEFT),
        "{status:#}; its last words: {last}"
    );
    lab.story("the stage outlived the old plugin's grace, and it said so");
    Ok(())
}

/// The volume whose record cannot be read is refused and not touched; others come and go. A pod's mount would go without it.
fn unread(orchestrator: &mut Orchestrator, raw: &Busy, name: &str) -> Result<()> {
    for (call, outcome) in [
        ("unstage", orchestrator.unstage(&raw.volume)),
        ("stage", orchestrator.stage(&raw.volume)),
    ] {
        let Err(status) = outcome else {
            bail!("{call} of a volume whose record cannot be read")
        };
        ensure!(
            leaves_open(&status) && status.message().contains("newer sanpath"),
            "{call}: {status:?}"
        );
    }
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut other = created(orchestrator, &name, Access::Block)?;
    orchestrator.bring_up(&mut other)?;
    orchestrator.bring_down(&other)?;
    raw.goes_on("with a record that cannot be read")
}

/// Each of the host's daemons gets new programs under its feet and is stopped as its package does it. While it is away I/O goes on, and a volume that comes is staged
/// or the caller told to come again; when it is back it knows what was there before: a session that drops is built anew.
fn host_tools(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let busy = [
        Busy::start(&mut orchestrator, "mounted", Access::Ext4)?,
        Busy::start(&mut orchestrator, "raw", Access::Block)?,
    ];
    for (service, programs) in [
        (Service::Iscsid, ["iscsid", "iscsiadm"]),
        (Service::Multipathd, ["multipathd", "multipath"]),
    ] {
        let name = service.name();
        for program in programs {
            lab.execute(&["sh", "-c", REPLACE, program])?;
        }
        let mut late = created(&mut orchestrator, name, Access::Ext4)?;
        patiently("ControllerPublishVolume", || orchestrator.attach(&mut late))?;
        service.hold_down("TERM")?;
        let begun = Instant::now();
        let asked = orchestrator.stage(&late);
        let took = begun.elapsed().as_millis();
        for busy in &busy {
            busy.goes_on(&format!("without {name}"))?;
        }
        service.release()?;
        match asked {
            Ok(()) => lab.story(format!("without {name} a volume was staged in {took} ms")),
            Err(status) => {
                ensure!(leaves_open(&status), "without {name}: {status:?}");
                let told = status.message();
                lab.story(format!("without {name}, after {took} ms: {told}"));
            }
        }
        orchestrator.bring_up(&mut late)?;
        fs::write(late.target.join("file"), name)?;
        orchestrator.bring_down(&late)?;
        for link in topology::paths() {
            drop_connection(link)?;
            wait_until_whole(lab, busy.len()).with_context(|| format!("after {name}"))?;
        }
    }
    for busy in busy {
        let pause = busy.writer.progress().longest_pause.as_millis();
        busy.end(&mut orchestrator)?;
        lab.story(format!("the longest pause {pause} ms, no error"));
    }
    stack.stop(lab)
}

/// What dpkg does: another file comes under the program's name, and who runs the old one keeps it.
const REPLACE: &str =
    r#"set -e; file=$(command -v "$0"); cp -a "$file" "$file.new"; mv -f "$file.new" "$file""#;

/// The file of the volume's record.
fn record_of(stack: &Stack, volume: &Volume) -> Result<PathBuf> {
    for entry in fs::read_dir(stack.node_state().join("ledger"))? {
        let path = entry?.path();
        if fs::read_to_string(&path)?.contains(&volume.id) {
            return Ok(path);
        }
    }
    bail!("{} has no record", volume.id)
}
