//! `iscsiadm`: the few calls we make of it and the meaning of its exit codes.
//!
//! It is never killed: a killed one leaves open-iscsi's database locked for ever and a login running in iscsid that nobody owns.

use std::time::Duration;

use super::interfaces::record_name;
use crate::fabric::Nexus;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host, Output};

/// Longer than open-iscsi's own limits together: 30 s for its database lock, then a login that times out. Whoever called us may have
/// given up long before; the portal's lock is held all that time, so that no second login starts beside it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The portal group tag that a record of ours is filed under. Only a label: at login the target's own tag is taken.
const RECORD_TAG: u16 = 1;

/// How `iscsiadm` ended (open-iscsi `include/iscsi_err.h`), as far as it makes a difference to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 2, 21: no such session, record or target.
    NotFound,
    /// 15: the session exists, or the record is in use by one.
    Exists,
    /// 6: its database; most often the lock was not to be had.
    Database,
    /// 4, 8, 11: nobody answers there.
    Unreachable,
    /// 5: the target refused this time.
    Refused,
    /// 19: the target refuses for good: no such target, not for this initiator.
    Fatal,
    /// 24: name or secret are wrong.
    Unauthorized,
    /// 7: an argument or a setting that this version does not know.
    Argument,
    /// 18, 20: iscsid does not answer.
    Daemon,
    /// 28: the session is in use.
    InUse,
    /// 22, 23, 29, 31, 32, 33: it lost a race or its time; the state has to be read again.
    Again,
    /// Any other.
    Other,
}

impl Exit {
    /// The meaning of an exit code; `None` is an end by a signal.
    #[must_use]
    pub fn from_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Done,
            Some(2 | 21) => Self::NotFound,
            Some(4 | 8 | 11) => Self::Unreachable,
            Some(5) => Self::Refused,
            Some(6) => Self::Database,
            Some(7) => Self::Argument,
            Some(15) => Self::Exists,
            Some(18 | 20) => Self::Daemon,
            Some(19) => Self::Fatal,
            Some(22 | 23 | 29 | 31..=33) => Self::Again,
            Some(24) => Self::Unauthorized,
            Some(28) => Self::InUse,
            _ => Self::Other,
        }
    }

    /// Whether the same call may well succeed a moment later.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Database | Self::Again | Self::Daemon)
    }
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IscsiadmError {
    /// It did not run to its end.
    #[error("iscsiadm could not {what}")]
    Run {
        /// The intent, in words.
        what: &'static str,
        #[source]
        source: ExecError,
    },
    /// It ended with an error.
    #[error("iscsiadm could not {what}: {summary}")]
    Failed {
        /// The intent, in words.
        what: &'static str,
        /// What the exit code means.
        exit: Exit,
        /// The code and the last of what it said.
        summary: String,
    },
}

impl IscsiadmError {
    /// The meaning of its exit code, if it had one.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Run { .. } => None,
            Self::Failed { exit, .. } => Some(*exit),
        }
    }
}

impl Faulted for IscsiadmError {
    fn fault(&self) -> Fault {
        match self.exit() {
            Some(Exit::Unauthorized) => Fault::Denied,
            Some(Exit::Argument) => Fault::Bug,
            Some(Exit::InUse) => Fault::Precondition,
            _ => Fault::MaybeDone,
        }
    }
}

/// What every record of ours says (R: no login at boot, no scan but ours, one try, short silence).
const SETTINGS: [(&str, &str); 8] = [
    ("node.startup", "manual"),
    ("node.leading_login", "No"),
    (SCAN, "manual"),
    ("node.session.initial_login_retry_max", "1"),
    ("node.conn[0].timeo.login_timeout", "10"),
    ("node.session.timeo.replacement_timeout", "15"),
    ("node.conn[0].timeo.noop_out_interval", "5"),
    ("node.conn[0].timeo.noop_out_timeout", "5"),
];

/// What every record of ours says, whatever iscsid.conf has.
#[must_use]
pub fn record_settings() -> &'static [(&'static str, &'static str)] {
    &SETTINGS
}

/// Versions before 2.0.874 do not know it.
const SCAN: &str = "node.session.scan";

/// The version of open-iscsi, `2.1.11`.
///
/// # Errors
/// See [`IscsiadmError`].
pub fn version(host: &Host) -> Result<String, IscsiadmError> {
    let what = "tell its version";
    let command = Command::new("iscsiadm", &["--version"], PATIENCE).never_killed();
    let output = host
        .run(&command)
        .map_err(|source| IscsiadmError::Run { what, source })?;
    outcome(what, &output)?;
    let words = output.stdout.split_whitespace();
    Ok(words.last().unwrap_or_default().to_owned())
}

/// What is known to be wrong with a version, and what to do.
#[must_use]
pub fn known_defect(version: &str) -> Option<&'static str> {
    (version == "2.1.10").then_some(
        "open-iscsi 2.1.10 hangs at each login without automatic scan (open-iscsi issue 484); use 2.1.11 or later, or 2.1.9",
    )
}

/// Makes the node record. An existing one is reset to defaults, so call it only when there is none, and update afterwards.
pub(super) fn create_record(host: &Host, nexus: &Nexus) -> Result<(), IscsiadmError> {
    let tagged = format!("{},{RECORD_TAG}", nexus.portal);
    let what = "make the node record";
    on_record(host, what, nexus, &tagged, &["-o", "new"])
}

/// Who looks for LUNs after a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// We, for the wanted ones alone.
    ByUs,
    /// iscsid, for all: the only way of versions that know no other.
    ByIscsid,
}

/// Writes all our settings into the node record, or none when one is not known.
pub(super) fn update_record(host: &Host, nexus: &Nexus, scan: Scan) -> Result<(), IscsiadmError> {
    let mut arguments = vec!["--op", "update"];
    let known = |(name, _): &(&str, &str)| scan == Scan::ByUs || *name != SCAN;
    for (name, value) in SETTINGS.into_iter().filter(known) {
        arguments.extend(["-n", name, "-v", value]);
    }
    let at = nexus.portal.to_string();
    on_record(host, "update the node record", nexus, &at, &arguments)
}

/// Logs in. A session that exists already is what was asked for.
pub(super) fn login(host: &Host, nexus: &Nexus) -> Result<(), IscsiadmError> {
    let at = nexus.portal.to_string();
    let ended = on_record(host, "log in", nexus, &at, &["--login"]);
    benign(ended, Exit::Exists)
}

/// Logs one session out. One that is gone is what was asked for.
pub(super) fn logout(host: &Host, sid: u32) -> Result<(), IscsiadmError> {
    let sid = sid.to_string();
    let ended = call(host, "log out", &["-m", "session", "-r", &sid, "--logout"]);
    benign(ended, Exit::NotFound)
}

/// Deletes the node record. One that is gone is what was asked for.
pub(super) fn delete_record(host: &Host, nexus: &Nexus) -> Result<(), IscsiadmError> {
    let at = nexus.portal.to_string();
    let what = "delete the node record";
    let ended = on_record(host, what, nexus, &at, &["-o", "delete"]);
    benign(ended, Exit::NotFound)
}

/// Names the interface in every call: without it all records of the portal are meant, also those that an administrator bound to one of his own.
fn on_record(
    host: &Host,
    what: &'static str,
    nexus: &Nexus,
    at: &str,
    arguments: &[&str],
) -> Result<(), IscsiadmError> {
    let interface = record_name(nexus);
    let record = ["-m", "node", "-T", nexus.iqn.as_str(), "-p", at];
    let last = ["-I", &interface];
    call(host, what, &[&record, arguments, &last].concat())
}

fn benign(ended: Result<(), IscsiadmError>, fine: Exit) -> Result<(), IscsiadmError> {
    match ended {
        Err(error) if error.exit() == Some(fine) => Ok(()),
        ended => ended,
    }
}

fn call(host: &Host, what: &'static str, arguments: &[&str]) -> Result<(), IscsiadmError> {
    let command = Command::new("iscsiadm", arguments, PATIENCE).never_killed();
    let output = host
        .run(&command)
        .map_err(|source| IscsiadmError::Run { what, source })?;
    outcome(what, &output)
}

fn outcome(what: &'static str, output: &Output) -> Result<(), IscsiadmError> {
    match Exit::from_code(output.code) {
        Exit::Done => Ok(()),
        exit => Err(IscsiadmError::Failed {
            what,
            exit,
            summary: output.summary(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_have_their_meaning() {
        assert_eq!(Exit::from_code(Some(15)), Exit::Exists);
        assert_eq!(Exit::from_code(Some(24)), Exit::Unauthorized);
        assert_eq!(Exit::from_code(None), Exit::Other);
        assert_eq!(Exit::from_code(Some(255)), Exit::Other);
        assert!(Exit::from_code(Some(6)).is_passing());
        assert!(!Exit::from_code(Some(19)).is_passing());
    }

    #[test]
    fn one_version_is_known_to_hang() {
        assert!(known_defect("2.1.10").is_some_and(|told| told.contains("2.1.11")));
        for fine in ["2.1.1", "2.1.8", "2.1.9", "2.1.11", "2.1.100", ""] {
            assert_eq!(known_defect(fine), None, "{fine}");
        }
    }

    #[test]
    fn what_is_benign_is_success_and_nothing_else_is() {
        let ended = |code| {
            let output = Output {
                code: Some(code),
                ..Output::default()
            };
            outcome("log in", &output)
        };
        assert!(benign(ended(15), Exit::Exists).is_ok());
        assert!(benign(ended(8), Exit::Exists).is_err());
        assert_eq!(ended(24).unwrap_err().fault(), Fault::Denied);
        assert_eq!(ended(4).unwrap_err().fault(), Fault::MaybeDone);
    }
}
