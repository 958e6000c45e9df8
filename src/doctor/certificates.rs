//! Certificates: whether they can be used, and for how long.

use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::fault::chain;
use crate::host::Host;
use crate::tls::Papers;

const CHECK: &str = "certificate";
/// The daemons' log asks for a new one as long before.
const NOTICE: Duration = Duration::from_hours(30 * 24);

/// How new ones are made.
pub(super) struct Mend<'m> {
    pub(super) fix: &'m str,
    pub(super) command: Option<&'m str>,
}

/// Those in `papers`' folder.
pub(super) fn check_papers(host: &Host, papers: &Papers, mend: &Mend<'_>) -> Finding {
    let folder = papers.folder().display();
    let (until, last_day) = match papers.end() {
        Ok(end) => end,
        Err(error) => {
            let reason = "the SAN and its callers refuse each other: volumes are neither created nor attached, while those that are there serve on";
            return mended(
                Finding::problem(CHECK, chain(&error), reason, mend.fix),
                mend,
            );
        }
    };
    if host.wall_clock() + NOTICE > until {
        let found = format!("{folder}: it ends on {last_day}");
        let reason =
            "with it the SAN's management ends: volumes are then neither created nor attached";
        return mended(Finding::warning(CHECK, found, reason, mend.fix), mend);
    }
    Finding::good(CHECK, format!("{folder}: until {last_day}"))
}

fn mended(finding: Finding, mend: &Mend<'_>) -> Finding {
    match mend.command {
        Some(command) => finding.with_command(command),
        None => finding,
    }
}

/// What others than its owner may do with a file or folder that holds secrets.
pub(super) fn check_privacy(host: &Host, check: &'static str, path: &Path) -> Option<Finding> {
    let stat = host.find_stat(path).ok()??;
    if stat.mode & 0o077 == 0 {
        return None;
    }
    let shown = path.display();
    Some(
        Finding::warning(
            check,
            format!("{shown} is open to others (mode {:o})", stat.mode & 0o7777),
            "whoever reads a private key from it can delete volumes, and whoever writes to it can lose them",
            "let its owner alone in",
        )
        .with_command(format!("chmod go= {shown}")),
    )
}
