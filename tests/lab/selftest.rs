//! Proves the lab itself with cases made to go wrong. They are not part of the everyday list; `--self-test` runs them and
//! checks what the runner made of each.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

use crate::cases;
use crate::kit::bench::Bench;
use crate::kit::case::{Case, Lab};
use crate::kit::lanes::{self, Queue, locked};
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
        case("selftest_crashes", crashes),
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

/// Its guest's kernel, as one of a SAN that is met by a bug of its own.
fn crashes(_: &mut Lab) -> Result<()> {
    fs::write("/proc/sysrq-trigger", "c")?;
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
    Expected {
        name: "selftest_crashes",
        failure: Some("Kernel panic - not syncing: sysrq triggered crash"),
        boots: 3,
    },
];

/// Runs them and says whether the lab judged each rightly.
pub fn run() -> Result<bool> {
    let ground = runner::prepare(false)?;
    let mut bench = Bench::new(&ground);
    let mut results = Results::new("selftest", &ground);
    let started = Instant::now();
    let judged = those_alone_run_alone();
    results.add(Outcome {
        case: "the lab keeps some cases alone".to_owned(),
        shape: "host",
        passed: judged.is_ok(),
        seconds: started.elapsed().as_secs_f64(),
        accel: ground.accel.name(),
        story: Vec::new(),
        failure: judged.err().map(|error| format!("{error:#}")),
        evidence: None,
    })?;
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

/// Two lanes with works that meet, and works that must meet nobody.
fn those_alone_run_alone() -> Result<()> {
    let running: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let done: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let together = Queue::new(["first", "second", "third"]);
    let alone = Queue::new(["alone", "alone too"]);
    lanes::run(&[1, 2], &together, &alone, |_, queue| {
        while let Some(name) = queue.take() {
            locked(&running).push(name);
            let met = meet(&running);
            locked(&running).retain(|other| *other != name);
            locked(&done).push(name);
            match name {
                "first" | "second" => ensure!(met, "{name} ran beside nothing"),
                "third" => {}
                _ => ensure!(!met, "{name} ran beside another"),
            }
        }
        Ok(())
    })?;
    let mut done = locked(&done).clone();
    ensure!(done.len() == 5, "only {done:?} ran");
    let last = done.split_off(3);
    ensure!(last == ["alone", "alone too"], "{last:?} ran last");
    Ok(())
}

/// Whether two are seen running at once before a while has passed.
fn meet(running: &Mutex<Vec<&str>>) -> bool {
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        if locked(running).len() > 1 {
            // The other one must see it as well.
            std::thread::sleep(Duration::from_millis(100));
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
