//! Runs one case and judges it: by its own word, by what it leaves behind, by whether its guest still answers. A guest that a case
//! left wedged or dirty is condemned, its evidence kept. Used by `runner`, one bench for each of its lanes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use super::case::Case;
use super::fleet::{Fleet, FleetCase};
use super::guest::{Ground, Guest, Plan};
use super::results::Outcome;
use super::wire::{Identity, Job, Role};
use super::{folders, shell};

/// A node and its SAN in one guest.
pub fn both_plan() -> Plan {
    Plan {
        identity: Identity {
            name: "node1".to_owned(),
            role: Role::Both,
            links: Vec::new(),
        },
        memory_megabytes: 1536,
        processors: 2,
        with_pool: true,
        cards: Vec::new(),
    }
}

/// Where in-guest cases run: at most one guest at a time, booted when it is needed.
pub struct Bench<'a> {
    ground: &'a Ground,
    guest: Option<Guest>,
    pub boots: Vec<f64>,
}

impl<'a> Bench<'a> {
    pub fn new(ground: &'a Ground) -> Self {
        Bench {
            ground,
            guest: None,
            boots: Vec::new(),
        }
    }

    /// Runs one case. An error here is the lab's own; a failing case is an outcome.
    pub fn run(&mut self, case: &Case, keep: bool) -> Result<Outcome> {
        let guest = self.usable_guest()?;
        let started = Instant::now();
        let job = Job {
            name: case.name.to_owned(),
            arguments: json!({ "seed": seed()? }),
            seconds: case.deadline.as_secs() * u64::from(self.ground.scale.max(1)),
            scale: self.ground.scale,
            is_counted: true,
        };
        let verdict = guest.job(job);
        let seconds = started.elapsed().as_secs_f64();
        let (failure, usable) = match &verdict {
            Ok(verdict) => (
                judge(verdict.failed.as_deref(), &verdict.leftovers),
                verdict.leftovers.is_empty(),
            ),
            Err(error) => {
                let given_up = format!("the guest was given up: {error:#}");
                (Some(with_crashes(given_up, &[&guest])), false)
            }
        };
        let story = guest.take_story();
        let mut evidence = None;
        if failure.is_some() {
            evidence = Some(keep_evidence(&[&guest], case.name, verdict.is_ok())?);
            if keep {
                eprintln!(
                    "lab: {} failed: {}",
                    case.name,
                    failure.as_deref().unwrap_or_default()
                );
                shell::open(&guest)?;
            }
        }
        if usable {
            self.guest = Some(guest);
        } else {
            self.condemn(guest);
        }
        let accel = self.ground.accel.name();
        let passed = failure.is_none();
        Ok(Outcome {
            case: case.name.to_owned(),
            shape: "guest",
            passed,
            seconds,
            accel,
            story,
            failure,
            evidence,
        })
    }

    fn usable_guest(&mut self) -> Result<Guest> {
        if let Some(guest) = self.guest.take() {
            return Ok(guest);
        }
        let plan = both_plan();
        // Once more, because a busy machine may stall a boot; whatever is really broken fails twice.
        let guest = Guest::boot(self.ground, &plan).or_else(|error| {
            eprintln!("lab: {error:#}\nlab: booting once more …");
            Guest::boot(self.ground, &plan)
        })?;
        self.boots.push(guest.boot_seconds);
        Ok(guest)
    }

    /// Nothing of a condemned guest is used again, its disk least of all.
    fn condemn(&self, guest: Guest) {
        let folder = self.ground.place.disks.join(guest.name());
        guest.cut_power();
        let _ = fs::remove_dir_all(folder);
    }

    /// No more cases for this guest.
    pub fn retire(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.condemn(guest);
        }
    }
}

/// What chance is to begin with, when somebody said.
fn seed() -> Result<Option<u64>> {
    let Ok(seed) = std::env::var("LAB_SEED") else {
        return Ok(None);
    };
    let number = seed
        .parse()
        .with_context(|| format!("LAB_SEED is {seed}, not a number"))?;
    Ok(Some(number))
}

/// A case fails by its own word, or by what it leaves behind.
fn judge(failed: Option<&str>, leftovers: &BTreeSet<String>) -> Option<String> {
    let mut lines: Vec<String> = failed.map(str::to_owned).into_iter().collect();
    lines.extend(
        leftovers
            .iter()
            .map(|thing| format!("left behind: {thing}")),
    );
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// A guest whose kernel crashed is a cause that the case itself cannot see.
fn with_crashes(failure: String, guests: &[&Guest]) -> String {
    let crashes = guests.iter().filter_map(|guest| guest.crash());
    std::iter::once(failure)
        .chain(crashes)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One folder for the case, with one more inside for each of several guests.
fn keep_evidence(guests: &[&Guest], case: &str, answering: bool) -> Result<PathBuf> {
    let folder = folders::evidence().join(case);
    folders::fresh(&folder)?;
    for guest in guests {
        let inside = if guests.len() == 1 {
            folder.clone()
        } else {
            folder.join(guest.name())
        };
        guest.gather(case, &inside, answering)?;
    }
    Ok(folder)
}

/// Runs a case that drives guests of its own.
pub fn run_fleet(ground: &Ground, case: &FleetCase, keep: bool) -> Result<Outcome> {
    let started = Instant::now();
    let mut fleet = Fleet::new(ground, case.deadline * ground.scale.max(1), seed()?)?;
    let failed = (case.run)(&mut fleet)
        .err()
        .map(|error| format!("{error:#}"));
    let leftovers = if failed.is_none() {
        fleet.leftovers()
    } else {
        BTreeSet::new()
    };
    let failure = judge(failed.as_deref(), &leftovers);
    let failure = failure.map(|failure| with_crashes(failure, &fleet.guests()));
    let evidence = failure
        .is_some()
        .then(|| keep_evidence(&fleet.guests(), case.name, true))
        .transpose()?;
    if let (Some(failure), true) = (&failure, keep) {
        eprintln!("lab: {} failed: {failure}", case.name);
        fleet.stay();
        fleet.guests().into_iter().try_for_each(shell::open)?;
    }
    fleet.end();
    let seconds = started.elapsed().as_secs_f64();
    let passed = failure.is_none();
    Ok(Outcome {
        case: case.name.to_owned(),
        shape: "fleet",
        passed,
        seconds,
        accel: ground.accel.name(),
        story: Vec::new(),
        failure,
        evidence,
    })
}
