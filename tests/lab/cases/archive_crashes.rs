//! The archiver dies right after its k-th change of its machine, and the controller right after the SAN's k-th change, in archive, restore and delete of one snapshot after the
//! other. Started anew, the repeated call converges, the bytes are those of the cut, and nothing is left on the SAN, on the machine or in the archive.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sanpath::csi::proto as csi;
use serde_json::Value;
use tonic::Status;

use super::archives;
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, leaves_open, patiently};
use crate::kit::dice::Dice;
use crate::kit::leftovers;
use crate::kit::stack::Stack;

pub const LONG: &[Case] = &[
    Case {
        name: "archive_crashes",
        deadline: Duration::from_secs(1500),
        run: some_steps,
    },
    Case {
        name: "archiver_dies_after_every_step",
        deadline: Duration::from_secs(7200),
        run: every_step,
    },
];

const SIZE: i64 = 32 << 20;
/// A sidecar never stops asking; on a busy machine each death costs a minute of what others wait for the dead.
const PATIENCE: Duration = Duration::from_secs(600);
const PHASES: [&str; 3] = ["archive", "restore", "delete"];
const ID: &str = "spa1:here:linux:cluster-a";
const IN_A: &[(&str, &str)] = &[("partition", "cluster-a")];
const IN_B: &[(&str, &str)] = &[("partition", "cluster-b")];
const TO_HERE: &[(&str, &str)] = &[("archive", "here"), ("retainOnSan", "false")];

/// So far apart that some lives see all of it.
fn some_steps(lab: &mut Lab) -> Result<()> {
    crash_loop(lab, 13, 5)
}

fn every_step(lab: &mut Lab) -> Result<()> {
    crash_loop(lab, 1, 1)
}

/// Where one victim dies next in one phase.
#[derive(Debug)]
struct Point {
    next: u64,
    stride: u64,
    died_at: Vec<u64>,
    is_over: bool,
}

impl Point {
    fn new(stride: u64) -> Self {
        Point {
            next: 1,
            stride,
            died_at: Vec::new(),
            is_over: false,
        }
    }

    fn note(&mut self, has_died: bool) {
        if has_died {
            self.died_at.push(self.next);
            self.next += self.stride;
        } else {
            self.is_over = true;
        }
    }
}

/// The deaths of one phase.
struct Deaths {
    archiver: Point,
    controller: Point,
}

fn crash_loop(lab: &mut Lab, of_archiver: u64, of_controller: u64) -> Result<()> {
    let stack = Stack::start(lab, archives::plan(lab)?)?;
    let mut orchestrator = stack.orchestrator()?;
    let source = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Block, IN_A)
    })?;
    let image = only_new(&volumes(lab)?, &BTreeSet::new())?;
    let bytes = fill(&image)?;
    let mut phases = PHASES.map(|_| Deaths {
        archiver: Point::new(of_archiver),
        controller: Point::new(of_controller),
    });
    let before = volumes(lab)?;
    for round in 1.. {
        let told: Vec<[u64; 2]> = phases
            .iter()
            .map(|it| [it.archiver.next, it.controller.next])
            .collect();
        let life = Life {
            stack: &stack,
            source: &source,
            bytes: &bytes,
            before: &before,
            name: format!("s{round}"),
        };
        life.live(lab, &mut orchestrator, &mut phases)
            .with_context(|| {
                format!("snapshot {round}, deaths of archiver and controller after {told:?}")
            })?;
        let is_over = |it: &Deaths| it.archiver.is_over && it.controller.is_over;
        if phases.iter().all(is_over) {
            break;
        }
    }
    for (phase, deaths) in PHASES.iter().zip(&phases) {
        let (archiver, controller) = (&deaths.archiver.died_at, &deaths.controller.died_at);
        lab.story(format!("{phase}: the archiver died after steps {archiver:?}, the controller after the SAN's {controller:?}"));
        ensure!(
            !archiver.is_empty() && !controller.is_empty(),
            "nobody died in {phase}"
        );
    }
    ensure_empties(lab, &stack)?;
    patiently("DeleteVolume", || orchestrator.delete(&source))?;
    Stack::wait_for_no_session(lab)?;
    lab.daemons.stop("archiver")?;
    stack.stop(lab)
}

/// One snapshot's.
struct Life<'l> {
    stack: &'l Stack,
    source: &'l Volume,
    bytes: &'l [u8],
    before: &'l BTreeSet<PathBuf>,
    name: String,
}

impl Life<'_> {
    fn live(
        &self,
        lab: &mut Lab,
        orchestrator: &mut Orchestrator,
        [archive, restore, delete]: &mut [Deaths; 3],
    ) -> Result<()> {
        let snapshot = self.phase(lab, archive, || {
            orchestrator.cut_once(&self.name, self.source, TO_HERE)
        })?;
        let volume_name = format!("of-{}", self.name);
        let restored = self.phase(lab, restore, || {
            let origin = Origin::Snapshot(&snapshot);
            orchestrator.copy_with(&volume_name, SIZE, (Access::Block, IN_B), origin)
        })?;
        self.rests(lab, 1)?;
        let image = only_new(&volumes(lab)?, self.before)?;
        ensure!(fs::read(&image)? == self.bytes, "other bytes came back");
        patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
        patiently("DeleteVolume", || orchestrator.delete(&restored))?;
        self.phase(lab, delete, self.given_up(orchestrator))?;
        self.rests(lab, 0)?;
        let manifests = files_below(&archive_folder(lab).join("manifests"))?;
        ensure!(manifests.is_empty(), "{manifests:?} are left");
        Ok(())
    }

    /// Another snapshot, asked for once and deleted while it is on its way: of one that is in the archive alone neither machine nor SAN has anything to change.
    fn given_up(&self, orchestrator: &mut Orchestrator) -> impl FnMut() -> Result<(), Status> {
        let name = format!("{}-given-up", self.name);
        let snapshot = csi::Snapshot {
            snapshot_id: format!("{ID}:{name}"),
            ..csi::Snapshot::default()
        };
        let mut is_asked = false;
        move || {
            if !is_asked {
                match orchestrator.cut_once(&name, self.source, TO_HERE) {
                    Err(status) if !status.message().contains("not ready") => return Err(status),
                    _ => is_asked = true,
                }
            }
            orchestrator.delete_snapshot(&snapshot)
        }
    }

    /// Asks until it is done, with an archiver and a controller that die in it.
    fn phase<T>(
        &self,
        lab: &mut Lab,
        deaths: &mut Deaths,
        mut call: impl FnMut() -> Result<T, Status>,
    ) -> Result<T> {
        let armed = match deaths.archiver.is_over {
            true => Vec::new(),
            false => vec![(
                "SANPATH_CRASH_AFTER_STEP".to_owned(),
                deaths.archiver.next.to_string(),
            )],
        };
        if lab.daemons.is_running("archiver") {
            lab.daemons.stop("archiver")?;
        }
        let mut archiver_died = self.stack.start_archiver_with(lab, &armed).is_err();
        ensure!(!archiver_died || !armed.is_empty(), "it does not start");
        let killer = (!deaths.controller.is_over)
            .then(|| Killer::start(lab, self.stack, deaths.controller.next))
            .transpose()?;
        let until = Instant::now() + PATIENCE;
        let done = loop {
            if !lab.daemons.is_running("archiver") {
                archiver_died = true;
                self.stack.start_archiver_with(lab, &[])?;
            }
            if !lab.daemons.is_running("controller") {
                self.stack.start_controller(lab)?;
            }
            match call() {
                Ok(done) => break done,
                Err(status) if leaves_open(&status) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(300));
                }
                Err(status) => bail!("{:?}: {}", status.code(), status.message()),
            }
        };
        if let Some(killer) = killer {
            deaths.controller.note(killer.stop()?);
            if !lab.daemons.is_running("controller") {
                self.stack.start_controller(lab)?;
            }
        }
        if !armed.is_empty() {
            // What follows must not run into the death that was meant for this phase.
            archiver_died |= !lab.daemons.is_running("archiver");
            if !archiver_died {
                // Its last steps may be those of its end.
                archiver_died = lab.daemons.stop("archiver").is_err();
            }
            if !lab.daemons.is_running("archiver") {
                self.stack.start_archiver_with(lab, &[])?;
            }
            deaths.archiver.note(archiver_died);
        }
        Ok(done)
    }

    /// Waits until nothing is under way any more: so many volumes more than before on the SAN, no cut, no export; and on the machine nothing of a volume.
    fn rests(&self, lab: &Lab, more: usize) -> Result<()> {
        Stack::wait_for_no_work(lab)?;
        lab.wait_for("the SAN to be at rest", PATIENCE, || {
            let cuts = fs::read_dir(lab.pool_folder().join("snapshots"))?.count();
            let there = volumes(lab)?.len();
            let exports = exports(self.stack)?;
            ensure!(
                there == self.before.len() + more && cuts == 0 && exports == 0,
                "{there} volumes, {cuts} cuts, {exports} exports"
            );
            Ok(Some(()))
        })?;
        lab.wait_for("the machine to be at rest", Duration::from_secs(60), || {
            let kinds = ["map ", "disk ", "ledger record "];
            let mut left = leftovers::count();
            left.retain(|thing| kinds.iter().any(|kind| thing.starts_with(kind)));
            let records = fs::read_dir(lab.work_folder().join("archiver-state/ledger"));
            let records = records.map_or(0, Iterator::count);
            ensure!(
                left.is_empty() && records == 0,
                "{left:?}, {records} records"
            );
            Ok(Some(()))
        })
    }
}

/// Kills the controller once the SAN has written its state so often: each change of it is one such write.
struct Killer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Killer {
    fn start(lab: &Lab, stack: &Stack, after: u64) -> Result<Self> {
        let victim = Pid::from_raw(lab.daemons.process_id("controller")?.try_into()?);
        let (file, stop) = (state_file(stack), Arc::<AtomicBool>::default());
        let mut seen = fs::metadata(&file)?.ino();
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut writes = 0;
            while !is_over.load(Ordering::SeqCst) {
                let now = fs::metadata(&file).map_or(seen, |it| it.ino());
                if now != seen {
                    (seen, writes) = (now, writes + 1);
                    if writes == after {
                        return kill(victim, Signal::SIGKILL).is_ok();
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            false
        });
        Ok(Killer { stop, thread })
    }

    /// Whether it killed.
    fn stop(self) -> Result<bool> {
        self.stop.store(true, Ordering::SeqCst);
        let killed = self.thread.join();
        killed.map_err(|_| anyhow::anyhow!("the killer panicked"))
    }
}

fn state_file(stack: &Stack) -> PathBuf {
    stack.san_state().join("state.json")
}

/// How many there are, by the SAN's own word.
fn exports(stack: &Stack) -> Result<usize> {
    let state: Value = serde_json::from_str(&fs::read_to_string(state_file(stack))?)?;
    let nodes = state["nodes"].as_object().into_iter().flatten();
    let of = |node: &Value| node["exports"].as_object().map_or(0, serde_json::Map::len);
    Ok(nodes.map(|(_, node)| of(node)).sum())
}

fn archive_folder(lab: &Lab) -> PathBuf {
    lab.work_folder().join("archive")
}

fn volumes(lab: &Lab) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(lab.pool_folder().join("volumes"))?;
    let paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    let is_image = |path: &PathBuf| path.extension().is_some_and(|it| it == "img");
    Ok(paths.into_iter().filter(is_image).collect())
}

fn only_new(now: &BTreeSet<PathBuf>, before: &BTreeSet<PathBuf>) -> Result<PathBuf> {
    let new: Vec<&PathBuf> = now.difference(before).collect();
    ensure!(new.len() == 1, "{new:?}");
    Ok(new[0].clone())
}

/// Some bytes here and there, on the SAN itself: the volume is nobody's. What is in it now.
fn fill(image: &Path) -> Result<Vec<u8>> {
    let file = fs::OpenOptions::new().write(true).open(image)?;
    let mut dice = Dice::new(11);
    for mebibyte in [0, 9, 30] {
        file.write_all_at(&dice.bytes(1 << 20), mebibyte << 20)?;
    }
    file.sync_all()?;
    Ok(fs::read(image)?)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    Ok(files)
}

/// Nobody's objects go, and then there is none.
fn ensure_empties(lab: &Lab, stack: &Stack) -> Result<()> {
    let config = stack.config().display().to_string();
    let argv = [
        SANPATH, "archives", "prune", "--grace", "1s", "--lease", "1s", "--config", &config,
    ];
    lab.wait_for("the archive to be empty", Duration::from_secs(120), || {
        lab.execute(&argv)?;
        let mut left = Vec::new();
        for folder in ["manifests", "chunks", "pending", "intents", "condemned"] {
            left.extend(files_below(&archive_folder(lab).join(folder))?);
        }
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(Some(()))
    })
}
