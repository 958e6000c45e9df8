//! The outcome of a run, for machines (`target/lab/results.json` and its like) and for people. The file is rewritten after every case, so a
//! run that dies leaves what it knew.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::folders;
use super::guest::Ground;
use super::image;

/// One case's outcome.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub case: String,
    /// `guest` or `fleet`.
    pub shape: &'static str,
    pub passed: bool,
    pub seconds: f64,
    pub accel: &'static str,
    /// What it told: measurements, and what happened.
    pub story: Vec<String>,
    /// Why it failed: its own error and what it left behind, in words.
    pub failure: Option<String>,
    pub evidence: Option<PathBuf>,
}

/// All outcomes of a run.
#[derive(Debug, Serialize)]
pub struct Results {
    pub release: String,
    pub accel: &'static str,
    pub scale: u32,
    #[serde(skip)]
    file: String,
    /// How long each boot took.
    pub boots: Vec<f64>,
    pub passed: usize,
    pub failed: usize,
    pub cases: Vec<Outcome>,
}

impl Results {
    /// No outcomes yet; they go to `NAME.json` in `target/lab`, or to `NAME-RELEASE.json` when the guests run another release than usual.
    pub fn new(name: &str, ground: &Ground) -> Self {
        let file = match image::release() {
            usual if usual == image::USUAL_RELEASE => format!("{name}.json"),
            other => format!("{name}-{other}.json"),
        };
        // Nothing of an earlier run may pass for this one's.
        let _ = fs::remove_file(folders::lab().join(&file));
        Results {
            release: image::release(),
            accel: ground.accel.name(),
            scale: ground.scale,
            file,
            boots: Vec::new(),
            passed: 0,
            failed: 0,
            cases: Vec::new(),
        }
    }

    /// Prints one line about the outcome, and keeps it.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        let word = if outcome.passed { "PASS" } else { "FAIL" };
        println!("{word} {:40} {:7.1} s", outcome.case, outcome.seconds);
        for line in &outcome.story {
            println!("     | {line}");
        }
        if let Some(failure) = &outcome.failure {
            println!("     {}", failure.replace('\n', "\n     "));
        }
        if let Some(evidence) = &outcome.evidence {
            println!("     evidence: {}", evidence.display());
        }
        if outcome.passed {
            self.passed += 1
        } else {
            self.failed += 1
        }
        self.cases.push(outcome);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let file = folders::lab().join(&self.file);
        fs::create_dir_all(folders::lab())?;
        fs::write(&file, serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// The last line, and whether all is well. Nothing run is not well.
    pub fn close(&self) -> Result<bool> {
        self.write()?;
        println!("{} passed, {} failed", self.passed, self.failed);
        Ok(self.failed == 0 && self.passed > 0)
    }
}
