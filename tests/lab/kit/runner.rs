//! The lab's commands on the host: run, list, demo, shell. Cases run in lanes, each with a guest of its own, so that one lane works
//! while another waits; those that need the machine to themselves come last. The exit code tells the truth.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

use super::accel;
use super::bench::{self, Bench};
use super::case::Case;
use super::fleet::FleetCase;
use super::folders::{self, RunFolders};
use super::guest::{Ground, Guest};
use super::lanes::{self, Queue, locked};
use super::results::Results;
use super::{image, object_store, sanity, shell, tools};
use crate::{cases, fleet as fleet_cases};

/// Something that a lane can run.
enum Work {
    Guest(Case),
    Fleet(FleetCase),
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Work::Guest(case) => case.name,
            Work::Fleet(case) => case.name,
        }
    }

    fn is_alone(&self) -> bool {
        matches!(self, Work::Guest(case) if cases::is_alone(case))
    }
}

/// Everything whose name contains one of `names`; without any what a run of this `scale` proves, in the order it is begun.
fn select(names: &[String], scale: u32) -> Vec<Work> {
    let (guest, fleet) = if names.is_empty() && scale <= 1 {
        (cases::everyday(), fleet_cases::everyday())
    } else {
        (cases::all(), fleet_cases::all())
    };
    let guest = guest.into_iter().map(Work::Guest);
    let matches = |name: &str| names.iter().any(|wanted| name.contains(wanted.as_str()));
    guest
        .chain(fleet.into_iter().map(Work::Fleet))
        .filter(|work| names.is_empty() || matches(work.name()))
        .collect()
}

/// Runs what `names` select and says whether all of it passed.
pub fn run(names: &[String], keep: bool) -> Result<bool> {
    let chosen = select(names, scale()?);
    if chosen.is_empty() {
        bail!("no case matches {}; --list names them all", names.join(" "));
    }
    let ground = prepare(false)?;
    if chosen
        .iter()
        .any(|work| work.name().starts_with(sanity::CASES))
    {
        stage(&sanity::ensure()?, &ground.programs.join("csi-sanity"))?;
    }
    if chosen
        .iter()
        .any(|work| work.name().starts_with(object_store::CASES))
    {
        stage(&object_store::ensure()?, &ground.programs.join("s3s-fs"))?;
    }
    let results = Results::new("results", &ground);
    let lanes = if keep { 1 } else { lanes()?.min(chosen.len()) };
    let count = chosen.len();
    println!(
        "{count} cases, Debian {}, {}, {lanes} at a time",
        results.release,
        describe(&ground)
    );
    let results = Mutex::new(results);
    let grounds: Vec<Ground> = (1..=lanes)
        .map(|lane| ground.lane(lane))
        .collect::<Result<_>>()?;
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(Work::is_alone);
    let (together, alone) = (Queue::new(together), Queue::new(alone));
    lanes::run(&grounds, &together, &alone, |ground, queue| {
        run_lane(ground, queue, &results, keep)
    })?;
    locked(&results).close()
}

/// Takes one case after the other; with `keep` none after the first failure.
fn run_lane(
    ground: &Ground,
    queue: &Queue<Work>,
    results: &Mutex<Results>,
    keep: bool,
) -> Result<()> {
    let mut bench = Bench::new(ground);
    while let Some(work) = queue.take() {
        if keep && locked(results).failed > 0 {
            break;
        }
        let outcome = match work {
            Work::Guest(case) => bench.run(&case, keep),
            Work::Fleet(case) => {
                bench.retire();
                bench::run_fleet(ground, &case, keep)
            }
        }?;
        let mut results = locked(results);
        results.boots.append(&mut bench.boots);
        results.add(outcome)?;
    }
    bench.retire();
    Ok(())
}

/// How many cases run side by side: `LAB_LANES`, or as many as there are processors, up to four. Most of a case is waiting, for
/// udev and for deadlines, so two share two processors well.
fn lanes() -> Result<usize> {
    match std::env::var("LAB_LANES") {
        Ok(lanes) => lanes
            .parse()
            .with_context(|| format!("LAB_LANES is {lanes}, not a number")),
        Err(_) => Ok(
            std::thread::available_parallelism().map_or(1, |processors| processors.get().min(4))
        ),
    }
}

/// Prints the names that `names` select.
pub fn list(names: &[String]) -> Result<()> {
    for work in select(names, scale()?) {
        let shape = if matches!(work, Work::Fleet(_)) {
            "fleet"
        } else {
            "one guest"
        };
        println!("{} ({shape})", work.name());
    }
    Ok(())
}

/// Makes what is made once, so that later runs start at once.
pub fn prepare_only() -> Result<bool> {
    let ground = prepare(false)?;
    let sanity = sanity::ensure()?;
    println!("guests run {}", describe(&ground));
    println!("image: {}", ground.image.root.display());
    println!("csi-sanity: {}", sanity.display());
    println!("s3s-fs: {}", object_store::ensure()?.display());
    Ok(true)
}

/// A fresh guest and a root shell in it.
pub fn open_shell() -> Result<bool> {
    let ground = prepare(false)?;
    eprintln!("lab: booting a guest, {} …", describe(&ground));
    let guest = Guest::boot(&ground, &bench::both_plan())?;
    eprintln!(
        "lab: a node, with a SAN in the network namespace `san`; the pool is /pool, sanpath is /lab/sanpath"
    );
    shell::open(&guest)?;
    Ok(true)
}

/// The case called `demo`, told aloud.
pub fn demo() -> Result<bool> {
    let case = cases::all()
        .into_iter()
        .find(|case| case.name == "demo")
        .context("no case is called demo")?;
    let ground = prepare(true)?;
    eprintln!("lab: booting a guest, {} …", describe(&ground));
    let mut results = Results::new("demo", &ground);
    let outcome = Bench::new(&ground).run(&case, false)?;
    results.add(outcome)?;
    results.close()
}

fn describe(ground: &Ground) -> &'static str {
    match ground.accel {
        accel::Accel::Kvm => "under KVM",
        accel::Accel::Tcg => "emulated, since KVM boots nothing here",
    }
}

/// Tools, image, accelerator and binaries: all that a guest needs.
pub fn prepare(aloud: bool) -> Result<Ground> {
    tools::ensure()?;
    let image = image::ensure(&image::release())?;
    let run = Arc::new(RunFolders::create()?);
    let place = run.place();
    let programs = place.disks.join("programs");
    folders::fresh(&programs)?;
    stage(&std::env::current_exe()?, &programs.join("lab"))?;
    stage(
        Path::new(env!("CARGO_BIN_EXE_sanpath")),
        &programs.join("sanpath"),
    )?;
    let accel = accel::choose(&image, &place.disks)?;
    Ok(Ground {
        image,
        accel,
        programs,
        place,
        _run: run,
        aloud,
        scale: scale()?,
    })
}

/// How much longer the long forms run: `LAB_SCALE`, 1 unless said otherwise.
fn scale() -> Result<u32> {
    let Ok(scale) = std::env::var("LAB_SCALE") else {
        return Ok(1);
    };
    scale
        .parse()
        .with_context(|| format!("LAB_SCALE is {scale}, not a number"))
}

/// A copy for the guests, so that a build during the run does not pull it from under them; without debug information, because
/// an emulated guest reads it slowly.
fn stage(program: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(to)
        .arg(program)
        .status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program, to).with_context(|| format!("copying {}", program.display()))?;
    }
    Ok(())
}
