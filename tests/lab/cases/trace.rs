//! `sanpath trace` on a real node beside a real SAN: a volume is broken in one place at a time, and the place is named.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::faults_chap::{FIRST, SECOND, demanding, mount_secret};
use super::faults_multipath::map_of;
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const LONG: &[Case] = &[
    Case {
        name: "trace_names_the_broken_hop",
        deadline: Duration::from_secs(600),
        run: trace,
    },
    Case {
        name: "trace_names_what_a_stage_failed_for",
        deadline: Duration::from_secs(600),
        run: failed_stages,
    },
];

const SIZE: i64 = 64 << 20;
/// noop interval and time-out are 5 s each, and the config file is looked at every 15 s; the rest is an emulated machine's.
const SOON: Duration = Duration::from_secs(90);
const BROKEN: i32 = 2;

fn trace(lab: &mut Lab) -> Result<()> {
    let [first, second] = [Link(1), Link(2)].map(|link| link.san_address(1));
    let listed = format!("{first},{second}");
    let stack = Stack::start(lab, Plan::default())?;
    stack.set_paths(&listed)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create("seen", SIZE, Access::Ext4)?;
    orchestrator.bring_up(&mut volume)?;
    let case = Traced { volume: &volume };
    case.is_well(lab)?;
    let named = told(lab, "seen")?;
    let is_mount = |hop: &Value| hop["hop"] == "mount" && hop["state"] == "good";
    ensure!(named.hops.iter().any(is_mount), "by its name: {named:#?}");

    case.paths(lab, &stack, [&first, &second], &listed)?;
    case.management(lab, &stack)?;
    case.record(lab, &stack)?;
    case.file_system(lab)?;
    case.export(lab, &mut orchestrator)?;
    give_up(lab, &volume)?;
    orchestrator.unpublish(&volume)?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    orchestrator.delete(&volume)?;
    let gone = told(lab, &volume.id)?;
    ensure!(gone.breaks_at.as_deref() == Some("volume"), "{gone:#?}");
    stack.stop(lab)
}

/// Nothing of the volume is on the node after a stage that failed for good: what kept it away is told all the same.
fn failed_stages(lab: &mut Lab) -> Result<()> {
    let mut plan = demanding(lab)?;
    plan.settings.push("minPaths: 2".to_owned());
    mount_secret(lab, SECOND)?;
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("kept-out", SIZE, Access::Ext4)?;
    let case = Traced { volume: &volume };
    ensure!(orchestrator.stage(&volume).is_err(), "a wrong secret");
    let is_path = |hop: &str| hop.starts_with("path ");
    let fix = case.breaks_within(lab, "a wrong CHAP secret", &is_path)?;
    ensure!(fix.contains("CHAP secret"), "{fix}");

    mount_secret(lab, FIRST)?;
    paths::cut(Link(1))?;
    let staged = orchestrator.stage(&volume);
    let portal = format!("{}:3260", Link(1).san_address(1));
    let fix = case.breaks(lab, "a portal that is dead", &format!("path {portal}"));
    paths::restore(Link(1))?;
    ensure!(staged.is_err(), "one path is less than minPaths");
    let wanted = format!("bring the portal {portal} back");
    ensure!(fix?.contains(&wanted), "no {wanted}");

    orchestrator.bring_up(&mut volume)?;
    Traced { volume: &volume }.is_well(lab)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// The file system notes its end on a disk that is not there any more: that is lost, and only an operator says so, once no path works.
fn give_up(lab: &Lab, volume: &Volume) -> Result<()> {
    let argv = [SANPATH, "node", "release", &volume.id, "--accept-data-loss"];
    lab.wait_for("no path to work any more", SOON, || {
        Ok((lab.run(&argv)?.code == Some(0)).then_some(()))
    })
}

struct Traced<'v> {
    volume: &'v Volume,
}

impl Traced<'_> {
    fn paths(&self, lab: &Lab, stack: &Stack, at: [&str; 2], listed: &str) -> Result<()> {
        let path = |address: &str| format!("path {address}");
        paths::cut(Link(2))?;
        self.breaks(lab, "a link that is cut", &path(at[1]))?;
        paths::restore(Link(2))?;
        self.is_well(lab)?;

        let disk = self.first_disk()?;
        let state = format!("/sys/block/{disk}/device/state");
        fs::write(&state, "offline\n")?;
        self.breaks_within(lab, "a disk that was set offline", &|hop| {
            hop.starts_with("path ")
        })?;
        fs::write(&state, "running\n")?;
        self.is_well(lab)?;

        stack.set_paths(&format!("{listed},nosuch:{}", at[0]))?;
        let disabled = path(&format!("nosuch:{}", at[0]));
        self.breaks(lab, "an interface that nobody has", &disabled)?;
        stack.set_paths(&format!("{listed},10.250.0.9"))?;
        self.breaks(lab, "an address that was not offered", &path("10.250.0.9"))?;
        stack.set_paths(listed)?;
        self.is_well(lab)
    }

    fn management(&self, lab: &mut Lab, stack: &Stack) -> Result<()> {
        lab.daemons.stop("san")?;
        let told = self.breaks(lab, "a SAN that cannot be managed", "sanhost");
        stack.start_san(lab)?;
        told?;
        self.is_well(lab)
    }

    /// The daemon reads its ledger for each question.
    fn record(&self, lab: &Lab, stack: &Stack) -> Result<()> {
        let ledger = stack.node_state().join("ledger");
        let entry = fs::read_dir(&ledger)?.next().context("no record")??.path();
        let aside = lab.work_folder().join("record");
        fs::rename(&entry, &aside)?;
        let told = self.breaks(lab, "a map without a record", "map");
        fs::rename(&aside, &entry)?;
        told?;
        self.is_well(lab)
    }

    fn file_system(&self, lab: &Lab) -> Result<()> {
        let map = map_of(self.volume)?;
        let dm = map.file_name().context("a map")?;
        let trigger = PathBuf::from("/sys/fs/ext4")
            .join(dm)
            .join("trigger_fs_error");
        fs::write(trigger, "1")?;
        self.breaks(lab, "a file system that met an error", "file system")?;
        lab.execute(&[SANPATH, "node", "recover", &self.volume.id])?;
        self.is_well(lab)
    }

    fn export(&self, lab: &Lab, orchestrator: &mut Orchestrator) -> Result<()> {
        patiently("ControllerUnpublishVolume", || {
            orchestrator.detach(self.volume)
        })?;
        self.breaks(lab, "a volume that the SAN took back", "export")?;
        Ok(())
    }

    fn first_disk(&self) -> Result<String> {
        let slaves = map_of(self.volume)?.join("slaves");
        let disk = fs::read_dir(slaves)?.next().context("no disk")??;
        Ok(disk.file_name().to_string_lossy().into_owned())
    }

    fn breaks(&self, lab: &Lab, what: &str, hop: &str) -> Result<String> {
        self.breaks_within(lab, what, &|found| found == hop)
            .with_context(|| format!("wanted {hop}"))
    }

    /// Soon the trace says that it stops being right there, and what to do, which is returned.
    fn breaks_within(&self, lab: &Lab, what: &str, is_it: &dyn Fn(&str) -> bool) -> Result<String> {
        let mut last = None;
        let told = lab.wait_for(&format!("{what} to be named"), SOON, || {
            let told = told(lab, &self.volume.id)?;
            let named = told.breaks_at.as_deref().is_some_and(is_it);
            last = Some(told);
            Ok((named && last.as_ref().is_some_and(|it| it.code == BROKEN)).then_some(()))
        });
        told.with_context(|| format!("{last:#?}"))?;
        let told = last.context("no trace")?;
        let hop = told.breaks_at.as_deref().unwrap_or_default();
        let named = told.hops.iter().find(|it| it["hop"] == hop);
        let fix = named.and_then(|it| it["fix"].as_str()).context("no fix")?;
        lab.story(format!("{what}: {hop} -> {fix}"));
        Ok(fix.to_owned())
    }

    fn is_well(&self, lab: &Lab) -> Result<()> {
        let mut last = None;
        let told = lab.wait_for("nothing to be wrong", SOON, || {
            let told = told(lab, &self.volume.id)?;
            let is_well = told.code == 0 && told.breaks_at.is_none();
            last = Some(told);
            Ok(is_well.then_some(()))
        });
        told.with_context(|| format!("{last:#?}"))
    }
}

#[derive(Debug)]
pub(super) struct Told {
    code: i32,
    pub(super) breaks_at: Option<String>,
    hops: Vec<Value>,
}

/// What `sanpath trace` says of a volume.
pub(super) fn told(lab: &Lab, volume: &str) -> Result<Told> {
    let ended = lab.run(&[SANPATH, "trace", volume, "--output", "json"])?;
    let report: Value = serde_json::from_str(&ended.stdout)
        .with_context(|| format!("{}: {}", ended.stdout, ended.stderr))?;
    Ok(Told {
        code: ended.code.context("it was killed")?,
        breaks_at: report["breaksAt"].as_str().map(str::to_owned),
        hops: report["hops"].as_array().context("no hops")?.clone(),
    })
}
