//! The plugin dies right after its k-th change of the host, in stage, expand and unstage of one volume after the other; started anew, the repeated
//! call converges, what was written is there, and in the end nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tonic::Status;

use super::expand::ensure_size;
use super::node_faults::{has_ended, restart_node};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, leaves_open, patiently};
use crate::kit::leftovers;
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "crash_loop",
    deadline: Duration::from_secs(900),
    run: some_steps,
}];

pub const LONG: &[Case] = &[Case {
    name: "crash_after_every_step",
    deadline: Duration::from_secs(3600),
    run: every_step,
}];

const BEFORE: i64 = 128 << 20;
const AFTER: i64 = 256 << 20;
const IDLE: Duration = Duration::from_secs(60);
const TEXT: &str = "written before the crash";

/// Steps this far apart, so that about four volumes see all of it; where it begins changes from run to run.
fn some_steps(lab: &mut Lab) -> Result<()> {
    let minutes = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() / 60;
    let from = |stride| 1 + minutes % stride;
    crash_loop(
        lab,
        [
            Point::new("stage", from(6), 6),
            Point::new("expand", from(2), 2),
            Point::new("unstage", from(3), 3),
        ],
    )
}

fn every_step(lab: &mut Lab) -> Result<()> {
    crash_loop(
        lab,
        ["stage", "expand", "unstage"].map(|call| Point::new(call, 1, 1)),
    )
}

/// Where the next crash of one call is.
struct Point {
    call: &'static str,
    next: u64,
    stride: u64,
    crashed_at: Vec<u64>,
    /// The call has passed all its steps.
    is_over: bool,
}

impl Point {
    fn new(call: &'static str, next: u64, stride: u64) -> Self {
        Point {
            call,
            next,
            stride,
            crashed_at: Vec::new(),
            is_over: false,
        }
    }

    /// Makes the call on a plugin that dies in it, and leaves one that does not.
    fn crash<T>(
        &mut self,
        lab: &mut Lab,
        stack: &Stack,
        call: impl FnOnce() -> Result<T, Status>,
    ) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        lab.daemons.stop("node")?;
        let after = ("SANPATH_CRASH_AFTER_STEP".to_owned(), self.next.to_string());
        stack.start_node_with(lab, &[after])?;
        let outcome = call();
        let crashed = outcome.is_err() && has_ended(lab)?;
        if let Err(status) = &outcome {
            let at = format!("{} after step {}", self.call, self.next);
            ensure!(crashed && leaves_open(status), "{at}: {status:?}");
        }
        // In any case: what follows must not run into the crash that was meant for this call.
        restart_node(lab, stack)?;
        if crashed {
            self.crashed_at.push(self.next);
            self.next += self.stride;
        }
        self.is_over = !crashed;
        Ok(())
    }
}

fn crash_loop(lab: &mut Lab, mut points: [Point; 3]) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    for round in 1.. {
        let before = of_volumes(&stack)?;
        let told: Vec<String> = points.iter().map(|at| at.next.to_string()).collect();
        live(lab, &stack, &mut orchestrator, &mut points, round)
            .with_context(|| format!("volume {round}, crashes after {}", told.join(", ")))?;
        let left = &of_volumes(&stack)? - &before;
        ensure!(left.is_empty(), "volume {round} left {left:?}");
        if points.iter().all(|point| point.is_over) {
            break;
        }
    }
    for point in &points {
        let (call, at) = (point.call, &point.crashed_at);
        lab.story(format!("{call}: died after steps {at:?}"));
        ensure!(at.len() > 1, "{call} has too few steps to prove anything");
    }
    stack.stop(lab)
}

/// The life of one volume, with a crash in each call that still has steps to crash after.
fn live(
    lab: &mut Lab,
    stack: &Stack,
    orchestrator: &mut Orchestrator,
    [stage, expand, unstage]: &mut [Point; 3],
    round: u32,
) -> Result<()> {
    // Else the plugin that is to die in a stage would die in logging out what the volume before it left.
    lab.wait_for("idle sessions to end", IDLE, || {
        Ok((leftovers::sessions().is_empty()).then_some(()))
    })?;
    let mut volume =
        orchestrator.create_attached(&format!("round{round}"), BEFORE, Access::Ext4)?;
    stage.crash(lab, stack, || orchestrator.stage(&volume))?;
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    fs::write(volume.target.join("file"), TEXT)?;

    patiently("ControllerExpandVolume", || {
        orchestrator.expand(&mut volume, AFTER)
    })?;
    expand.crash(lab, stack, || orchestrator.expand_on_node(&volume))?;
    patiently("NodeExpandVolume", || orchestrator.expand_on_node(&volume))?;
    ensure_size(lab, &volume)?;
    ensure_written(&volume)?;

    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
    unstage.crash(lab, stack, || orchestrator.unstage(&volume))?;
    orchestrator.bring_down(&volume)
}

fn ensure_written(volume: &Volume) -> Result<()> {
    let found = fs::read_to_string(volume.target.join("file"))?;
    ensure!(found == TEXT, "the file holds {found:?}");
    Ok(())
}

/// What may be left of volumes; their sessions stay a while.
pub(super) fn of_volumes(stack: &Stack) -> Result<BTreeSet<String>> {
    let kinds = ["map ", "disk ", "mount "];
    let mut things = leftovers::count();
    things.retain(|thing| kinds.iter().any(|kind| thing.starts_with(kind)));
    // Made with the first record.
    let records = fs::read_dir(stack.node_state().join("ledger"));
    for record in records.into_iter().flatten() {
        things.insert(format!("ledger record {}", record?.path().display()));
    }
    Ok(things)
}
