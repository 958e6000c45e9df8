//! `sanpath host-setup`: files of our own on a node, shown before they are written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::answer;
use crate::doctor::{FileState, HostFile, examine_files, examine_iscsid};
use crate::host::Host;

/// Arguments of `sanpath host-setup`.
#[derive(Debug, Args)]
pub struct HostSetupArguments {
    /// Show what would be written, and what iscsid.conf says otherwise than our records. Ends with 1 when there is something to write.
    #[arg(long, required_unless_present = "apply", conflicts_with = "apply")]
    check: bool,
    /// Show the same and write it. Files of others, and ours that somebody edited, are left alone.
    #[arg(long)]
    apply: bool,
    /// Where the host's root is, when we run in a container.
    #[arg(long, default_value = "/")]
    host_root: PathBuf,
}

/// Looks, prints, writes when asked to. The exit code is 0 when all is as it should be, 1 when something is still to be written, 2 when a file of ours was edited.
///
/// # Errors
/// When the answer cannot be printed, or a file not be written.
pub(super) fn run(asked: &HostSetupArguments) -> anyhow::Result<ExitCode> {
    let host = Host::real(&asked.host_root);
    let files = examine_files(&host, &asked.host_root);
    for file in &files {
        answer::print(&shown(file))?;
    }
    answer::print(&iscsid(&host, &asked.host_root))?;
    let to_write: Vec<&HostFile> = files.iter().filter(|file| file.is_to_write()).collect();
    if asked.apply {
        for file in &to_write {
            let written = file.apply(&host);
            written.map_err(|error| {
                anyhow::anyhow!(
                    "{} cannot be written: {error}; on a host whose /etc is read-only put it into the machine's own configuration (docs/host-setup.md)",
                    file.shown.display()
                )
            })?;
            let path = file.shown.display();
            answer::print(&format!("{path}: written; in force after: {}", file.then))?;
        }
    }
    let is_left =
        |file: &HostFile| matches!(file.state, FileState::Edited | FileState::Unreadable(_));
    Ok(if files.iter().any(is_left) {
        ExitCode::from(2)
    } else if asked.apply || to_write.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn shown(file: &HostFile) -> String {
    let (path, purpose) = (file.shown.display(), file.purpose);
    let word = match &file.state {
        FileState::Good => return format!("{path}: as it should be ({purpose})"),
        FileState::Missing => "is not there",
        FileState::Old => "is an earlier version's",
        FileState::Edited => {
            "was edited by hand or is not ours, and is left alone; to have it written anew take it away"
        }
        FileState::Unreadable(why) => return format!("{path}: cannot be read: {why}"),
    };
    format!("{path}: {word} ({purpose})\n{}", file.diff.trim_end())
}

fn iscsid(host: &Host, root: &Path) -> String {
    let remarks = match examine_iscsid(host, root) {
        Ok(remarks) => remarks,
        Err(error) => {
            return format!(
                "/etc/iscsi/iscsid.conf: cannot be read: {error}; is open-iscsi installed? (RHEL: iscsi-initiator-utils)"
            );
        }
    };
    if remarks.is_empty() {
        return "/etc/iscsi/iscsid.conf: says what our records say".to_owned();
    }
    let mut text = String::from(
        "/etc/iscsi/iscsid.conf: nothing has to be changed: our records carry these settings themselves. For records that others make it says otherwise; to have them alike:",
    );
    for remark in remarks {
        let found = remark.found.as_deref().unwrap_or("not set");
        text.push_str(&format!(
            "\n    {} = {}    # now: {found}",
            remark.name, remark.ours
        ));
    }
    text
}
