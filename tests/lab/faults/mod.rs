//! The table "Fault cases" of `tests/README.md`, written from the list of faults and from what the last run really did. Called by `main`
//! (`--fault-table`). The invariant: a test that did not run, or failed, proves nothing.

mod list;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use list::{FaultCase, Place, Proof};
use serde_json::Value;

use crate::kit::folders;

const BEGIN: &str = "<!-- fault cases: written by `make fault-table` -->\n";
const END: &str = "<!-- end of fault cases -->\n";

/// What is known of each test: the lab's cases by name, unit tests by path.
#[derive(Default)]
struct Outcomes {
    lab: BTreeMap<String, bool>,
    unit: BTreeMap<String, bool>,
}

/// Rewrites the table. `files` are results of the lab, later ones first in doubt; none means those of the last run.
pub fn rewrite(files: &[String]) -> Result<bool> {
    let last = folders::lab().join("results.json");
    let files = match files {
        [] => vec![last],
        named => named.iter().map(PathBuf::from).collect(),
    };
    let mut outcomes = Outcomes::default();
    for file in &files {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        outcomes.add_lab(&serde_json::from_slice(&text)?);
    }
    let log = folders::lab().join("unit.log");
    outcomes.add_units(
        &fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?,
    );
    let cases = list::parse(list::TEXT).map_err(anyhow::Error::msg)?;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md");
    let text = replace(&fs::read_to_string(&readme)?, &table(&cases, &outcomes)?)?;
    fs::write(&readme, text)?;
    println!("{} written", readme.display());
    Ok(true)
}

impl Outcomes {
    fn add_lab(&mut self, results: &Value) {
        for case in results["cases"].as_array().into_iter().flatten() {
            if let (Some(name), Some(passed)) = (case["case"].as_str(), case["passed"].as_bool()) {
                self.lab.insert(name.to_owned(), passed);
            }
        }
    }

    /// Lines like `test attach::tests::friendly_names_make_no_difference ... ok`.
    fn add_units(&mut self, log: &str) {
        for line in log.lines() {
            let told = line
                .strip_prefix("test ")
                .and_then(|rest| rest.split_once(" ... "));
            if let Some((test, ended)) = told {
                self.unit.insert(test.to_owned(), ended.trim() == "ok");
            }
        }
    }

    fn of(&self, proof: &Proof) -> Option<bool> {
        let known = match proof.place {
            Place::Lab => &self.lab,
            Place::Fake => &self.unit,
        };
        known.get(&proof.test).copied()
    }
}

fn table(cases: &[FaultCase], outcomes: &Outcomes) -> Result<String> {
    let proves = |proof: &&Proof| outcomes.of(proof) == Some(true);
    let (proven, open): (Vec<&FaultCase>, Vec<&FaultCase>) = cases
        .iter()
        .partition(|case| case.proofs.iter().any(|proof| proves(&proof)));
    let on_kernel = proven
        .iter()
        .filter(|case| {
            case.proofs
                .iter()
                .filter(proves)
                .any(|proof| proof.place == Place::Lab)
        })
        .count();
    let mut text = String::new();
    writeln!(
        text,
        "{} of {} were injected when their tests ran last, wholly or in part, {on_kernel} of them on the real kernel.\n",
        proven.len(),
        cases.len()
    )?;
    writeln!(text, "| case | injection | where | test | not injected |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for case in proven {
        for proof in case.proofs.iter().filter(proves) {
            let place = match proof.place {
                Place::Lab => "lab",
                Place::Fake => "fake",
            };
            writeln!(
                text,
                "| {} | {} | {place} | `{}` | {} |",
                name_of(case),
                case.injection,
                proof.test,
                case.missing
            )?;
        }
    }
    writeln!(text, "\nNot proven:\n")?;
    writeln!(text, "| case | injection | reason |\n|---|---|---|")?;
    for case in open {
        let reason = reason(case, outcomes);
        writeln!(
            text,
            "| {} | {} | {reason} |",
            name_of(case),
            case.injection
        )?;
    }
    Ok(text)
}

/// The letter of its group and its number.
fn name_of(case: &FaultCase) -> String {
    let (letter, _) = case.group.split_once('.').unwrap_or_default();
    format!("{letter} {}", case.number)
}

/// Why a case is not proven: its tests failed or were not run, or there are none.
fn reason(case: &FaultCase, outcomes: &Outcomes) -> String {
    let told = case.proofs.iter().map(|proof| {
        let word = match outcomes.of(proof) {
            Some(_) => "failed",
            None => "was not run",
        };
        format!("`{}` {word}", proof.test)
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        case.missing.clone()
    } else {
        told.join(", ")
    }
}

/// `readme` with what stands between the marks replaced.
fn replace(readme: &str, table: &str) -> Result<String> {
    let marks = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    ensure!(marks.is_some(), "tests/README.md has lost its marks");
    let (before, after) = marks.unwrap_or_default();
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}
