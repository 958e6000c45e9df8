//! Registering a WWID before its first path appears, so that udev and multipathd take the path for multipath from its first event on; and taking
//! it out again when the volume is gone.
//!
//! Registering is one more line in a file that every stage waits for, so it costs no process. Taking a line out means to write all of the file anew,
//! other people's lines too: that is left to multipath itself.

use std::path::Path;
use std::time::Duration;

use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

const WWIDS: &str = "etc/multipath/wwids";
/// It changes the file under a lock of its own.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who has the file locked writes a few lines.
const LOCKED: Duration = Duration::from_secs(10);

/// A WWID could not be registered or taken out.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The tool did not run to its end.
    #[error("multipath {option} {wwid}")]
    Run {
        /// `-a` or `-w`.
        option: &'static str,
        /// Whose.
        wwid: Wwid,
        #[source]
        source: ExecError,
    },
    /// It refused.
    #[error("multipath {option} {wwid}: {summary}")]
    Refused {
        /// `-a` or `-w`.
        option: &'static str,
        /// Whose.
        wwid: Wwid,
        /// The exit code and the last of what it said.
        summary: String,
    },
    /// multipath is told to leave this WWID alone.
    #[error(
        "multipath's configuration blacklists {wwid} ({said}); take it out of the blacklist or put it into blacklist_exceptions"
    )]
    Blacklisted {
        /// Which.
        wwid: Wwid,
        /// multipath's own words.
        said: String,
    },
}

impl Faulted for ClaimError {
    fn fault(&self) -> Fault {
        match self {
            Self::Blacklisted { .. } => Fault::Precondition,
            Self::Run { .. } | Self::Refused { .. } => Fault::MaybeDone,
        }
    }
}

/// Makes sure that `wwid` stands in multipath's file of known WWIDs, below `root`, the host's root directory as we see it.
///
/// # Errors
/// See [`ClaimError`].
pub fn claim(host: &Host, root: &Path, wwid: &Wwid) -> Result<(), ClaimError> {
    if find_listed(host, root, wwid) == Some(true) {
        return Ok(());
    }
    let line = format!("/{wwid}/");
    match host.add_line(&root.join(WWIDS), &line, host.deadline_in(LOCKED)) {
        Ok(true) => Ok(()),
        // No file yet, or one that we may not write, or that somebody keeps: the tool makes it, or tells what is wrong.
        added => {
            tracing::debug!(%wwid, ?added, "leaving the registration to multipath");
            change(host, "-a", wwid).map_err(|error| explained(host, wwid, error))
        }
    }
}

/// It refuses a blacklisted WWID without a word, and tells the reason only when it is asked to tell everything.
fn explained(host: &Host, wwid: &Wwid, error: ClaimError) -> ClaimError {
    if !matches!(error, ClaimError::Refused { .. }) {
        return error;
    }
    let command = Command::new("multipath", &["-v3", "-a", wwid.as_str()], TIMEOUT);
    let Ok(output) = host.run(&command) else {
        return error;
    };
    let texts = [&output.stdout, &output.stderr];
    let mut lines = texts.into_iter().flat_map(|text| text.lines());
    match lines.find(|line| says_blacklisted(line, wwid)) {
        Some(line) => ClaimError::Blacklisted {
            wwid: wwid.clone(),
            said: line.trim().to_owned(),
        },
        None => error,
    }
}

/// `WWID: wwid WWID blacklisted`, with a time before it (multipath-tools `libmultipath/blacklist.c`, `log_filter`).
fn says_blacklisted(line: &str, wwid: &Wwid) -> bool {
    line.contains("blacklisted") && line.contains(wwid.as_str())
}

/// Takes `wwid` out of the file. The volume is gone, and the file would grow with every one that ever was here.
///
/// # Errors
/// See [`ClaimError`].
pub fn unclaim(host: &Host, root: &Path, wwid: &Wwid) -> Result<(), ClaimError> {
    match find_listed(host, root, wwid) {
        Some(true) => change(host, "-w", wwid),
        _ => Ok(()),
    }
}

/// Whether the WWID stands in the file; `None` when that cannot be told.
fn find_listed(host: &Host, root: &Path, wwid: &Wwid) -> Option<bool> {
    let text = host.find_attribute(&root.join(WWIDS)).ok()??;
    Some(is_listed(&text, wwid))
}

fn change(host: &Host, option: &'static str, wwid: &Wwid) -> Result<(), ClaimError> {
    let command = Command::new("multipath", &[option, wwid.as_str()], TIMEOUT);
    let output = host.run(&command).map_err(|source| ClaimError::Run {
        option,
        wwid: wwid.clone(),
        source,
    })?;
    if output.success() {
        return Ok(());
    }
    Err(ClaimError::Refused {
        option,
        wwid: wwid.clone(),
        summary: output.summary(),
    })
}

/// A line is the WWID between slashes; comments start with `#`.
fn is_listed(text: &str, wwid: &Wwid) -> bool {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('/')?.strip_suffix('/'))
        .any(|listed| listed.eq_ignore_ascii_case(wwid.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_on_this_wwid_is_a_reason() {
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        let said = format!("12.5 | {wwid}: wwid {wwid} blacklisted");
        assert!(says_blacklisted(&said, &wwid));
        assert!(!says_blacklisted(
            "sda: device node name blacklisted",
            &wwid
        ));
        assert!(!says_blacklisted(&format!("{wwid}: ok"), &wwid));
    }

    #[test]
    fn only_a_whole_line_is_a_claim() {
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        let listed = "# Multipath wwids\n/36001405aaaa/\n/360014050123456789abcdef012345678/\n";
        assert!(is_listed(listed, &wwid));
        assert!(!is_listed("#/360014050123456789abcdef012345678/", &wwid));
        assert!(!is_listed("/360014050123456789abcdef0123456789/", &wwid));
        assert!(!is_listed("360014050123456789abcdef012345678", &wwid));
    }
}
