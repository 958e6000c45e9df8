//! One case or step, in the process that the agent started for it: finds it by name, runs it, reports, and gathers the
//! evidence of a failure while everything still stands as the failure left it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use super::case::{self, Lab};
use super::evidence;
use super::running_job::evidence_folder;
use super::wire::JobLine;
use crate::{cases, fleet, selftest};

/// `--job NAME SCALE ARGUMENTS`
pub fn main(arguments: &[String]) -> ExitCode {
    let name = arguments.first().map_or("", String::as_str);
    match run(name, arguments) {
        Ok(value) => {
            case::say(&JobLine::Value(value));
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Once more, for an error that comes before the case.
            case::say(&JobLine::Failed(format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, arguments: &[String]) -> Result<Value> {
    let scale = arguments.get(1).context("no scale")?.parse()?;
    let given: Value = serde_json::from_str(arguments.get(2).context("no arguments")?)?;
    let mut lab = Lab::new(name, scale, given["seed"].as_u64())?;
    let result = perform(name, &mut lab, given);
    if let Err(error) = &result {
        // Said before anything else: from here on the deadline is no longer the case's.
        case::say(&JobLine::Failed(format!("{error:#}")));
        let _ = evidence::gather(&evidence_folder(name));
    }
    result
}

fn perform(name: &str, lab: &mut Lab, given: Value) -> Result<Value> {
    if let Some(case) = cases::all()
        .into_iter()
        .chain(selftest::cases())
        .find(|case| case.name == name)
    {
        return (case.run)(lab).map(|()| Value::Null);
    }
    let step = fleet::steps().into_iter().find(|step| step.name == name);
    let step = step.with_context(|| format!("there is no case or step called {name}"))?;
    (step.run)(lab, given)
}
