//! Proves the lab itself with cases made to go wrong. They are not part of the everyday list; `--self-test` runs them and
//! checks what the runner made of each.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

use crate::cases;
use crate::kit::bench::Bench;
use crate::kit::case::{Case, Lab};
use crate::kit::results::{Outcome, Results};
use crate::kit::runner;

/// The cases made to go wrong.
pub fn cases() -> Vec<Case> {
    let case = |name, run| Case {
        name,
        deadline: Duration::from_secs(3),
        run,
    };
    vec![
        case("selftest_fails", fails),
        case("selftest_panics", panics),
        case("selftest_hangs", hangs),
        case("selftest_wedges", wedges),
        case("selftest_leaves_a_mount", leaves_a_mount),
    ]
}

fn fails(_: &mut Lab) -> Result<()> {
    bail!("made to fail")
}

fn panics(_: &mut Lab) -> Result<()> {
    "not a number".parse::<u32>().expect("made to panic");
    Ok(())
}

fn hangs(lab: &mut Lab) -> Result<()> {
    lab.run(&["sleep", "600"]).map(drop)
}

/// Stops the agent, and thereby its own end.
fn wedges(_: &mut Lab) -> Result<()> {
    kill(getppid(), Signal::SIGSTOP)?;
    Ok(())
}

fn leaves_a_mount(_: &mut Lab) -> Result<()> {
    mount(
        Some("left"),
        "/mnt",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}

/// What the runner must make of a case: the failure's words (none for a pass) and the boots counted by then.
struct Expected {
    name: &'static str,
    failure: Option<&'static str>,
    boots: usize,
}

/// In an order that shows which guests were used again: a failure and a hang leave a clean one, the other two do not.
const EXPECTED: &[Expected] = &[
    Expected {
        name: "selftest_fails",
        failure: Some("made to fail"),
        boots: 1,
    },
    Expected {
        name: "selftest_panics",
        failure: Some("made to panic"),
        boots: 1,
    },
    Expected {
        name: "selftest_hangs",
        failure: Some("not done after its 3 s"),
        boots: 1,
    },
    Expected {
        name: "selftest_wedges",
        failure: Some("the guest was given up"),
        boots: 1,
    },
    Expected {
        name: "kit_boots",
        failure: None,
        boots: 2,
    },
    Expected {
        name: "selftest_leaves_a_mount",
        failure: Some("left behind: mount /mnt (tmpfs)"),
        boots: 2,
    },
];

/// Runs them and says whether the lab judged each rightly.
pub fn run() -> Result<bool> {
    let ground = runner::prepare(false)?;
    let mut bench = Bench::new(&ground);
    let mut results = Results::new("selftest.json", &ground);
    for expected in EXPECTED {
        let all = cases().into_iter().chain(cases::all());
        let Some(case) = all.into_iter().find(|case| case.name == expected.name) else {
            bail!("no case is called {}", expected.name);
        };
        let outcome = bench.run(&case, false)?;
        let judged = check(expected, &outcome, bench.boots.len());
        if let (Ok(()), Some(evidence)) = (&judged, &outcome.evidence) {
            fs::remove_dir_all(evidence)?;
        }
        results.add(Outcome {
            case: format!("the lab judges {}", expected.name),
            passed: judged.is_ok(),
            failure: judged.err().map(|error| format!("{error:#}")),
            evidence: None,
            ..outcome
        })?;
    }
    bench.retire();
    results.close()
}

fn check(expected: &Expected, outcome: &Outcome, boots: usize) -> Result<()> {
    ensure!(
        boots == expected.boots,
        "{boots} boots instead of {}",
        expected.boots
    );
    let Some(words) = expected.failure else {
        ensure!(outcome.passed, "it failed: {:?}", outcome.failure);
        return Ok(());
    };
    let said = outcome.failure.as_deref().unwrap_or("nothing");
    ensure!(
        !outcome.passed && said.contains(words),
        "expected {words:?}, it said {said:?}"
    );
    let Some(evidence) = &outcome.evidence else {
        bail!("no evidence was kept")
    };
    for file in ["console.log", "transcript.txt"] {
        ensure!(evidence.join(file).is_file(), "the evidence lacks {file}");
    }
    Ok(())
}
