//! `sanpath doctor`: what is wrong with a machine, before a volume finds out. Checks that only look, each telling what it found, why that matters and what mends it.
//!
//! `cli` runs them and prints. A check never fails: what cannot be looked at is a finding too. Nothing here changes the machine but `host_setup`, which writes files of our own when it is
//! told to.

mod certificates;
mod controller;
mod daemons;
mod host_setup;
mod initiator;
mod kernel;
mod machine;
mod mtu;
mod multipathd;
mod network;
mod node;
mod san;
#[cfg(test)]
mod san_tests;
#[cfg(test)]
mod tests;
mod trace;
mod trace_node;

pub use controller::{ControllerSetup, examine_controller};
pub use host_setup::{FileState, HostFile, IscsidRemark, examine_files, examine_iscsid};
pub use node::{NodeSetup, examine_node};
pub use san::{SanSetup, examine_san};
pub use trace::{Hop, NodeSide, Side, State, Trace, trace};
pub use trace_node::{SOMETHING_ELSE, look_at_node};

use serde::Serialize;

/// The form of [`Report`] as JSON.
const VERSION: u32 = 1;

/// How bad it is; the worst is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Volumes are served; something will go wrong some day, or goes less well than it could.
    Warning,
    /// Volumes are not served, or not by all their paths.
    Problem,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a word that stays the same from version to version.
    pub check: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What there is.
    pub found: String,
    /// Why it matters; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What mends it; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The fix as one line for a shell, where it can be said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            grade: Grade::Good,
            found: found.into(),
            reason: None,
            fix: None,
            command: None,
        }
    }

    fn warning(
        check: &'static str,
        found: impl Into<String>,
        reason: &'static str,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            grade: Grade::Warning,
            found: found.into(),
            reason: Some(reason),
            fix: Some(fix.into()),
            command: None,
        }
    }

    fn problem(
        check: &'static str,
        found: impl Into<String>,
        reason: &'static str,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            grade: Grade::Problem,
            ..Self::warning(check, found, reason, fix)
        }
    }

    /// The same, mended by a line for a shell.
    fn with_command(self, command: impl Into<String>) -> Self {
        Self {
            command: Some(command.into()),
            ..self
        }
    }
}

/// Everything that was looked at, in the order in which a volume would meet it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    version: u32,
    /// `node`, `controller` or `san`.
    pub role: &'static str,
    /// The grade of the worst finding.
    pub worst: Grade,
    /// One for each check, or more.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(role: &'static str, findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|it| it.grade).max();
        Self {
            version: VERSION,
            role,
            worst: worst.unwrap_or(Grade::Good),
            findings,
        }
    }
}
