//! `sanpath archives transfers`: what the archiver daemon that runs here carries, asked of it.

use std::process::ExitCode;

use super::answer;
use super::bar::{bytes, filled};
use super::node::Daemon;
use super::paths::Form;
use super::table::table;
use crate::admin::{Answer, Question, WorkRow, archiver_socket, ask};
use crate::archive::Progress;

/// Asks and prints.
///
/// # Errors
/// When there is no answer.
pub(super) fn run(daemon: &Daemon, output: Form) -> anyhow::Result<ExitCode> {
    let socket = archiver_socket(&daemon.runtime_dir);
    let rows = match ask(&socket, &Question::Works {}, daemon.patience)? {
        Answer::Works(rows) => rows,
        Answer::Refused(why) => return Err(anyhow::Error::msg(why)),
        _ => return Err(anyhow::anyhow!("the daemon answered something else")),
    };
    let text = match output {
        Form::Table => shown(&rows),
        Form::Json => serde_json::to_string_pretty(&rows)?,
    };
    answer::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each, and below it what it waits for or has failed of.
fn shown(rows: &[WorkRow]) -> String {
    if rows.is_empty() {
        return "no transfers".to_owned();
    }
    let head = ["SNAPSHOT", "ARCHIVE", "WAY", "STATE", "PROGRESS", "MOVED"];
    let mut cells = vec![head.map(str::to_owned)];
    let mut notes = vec![None];
    for row in rows {
        cells.push(columns(row));
        notes.push(row.trouble.clone());
    }
    table(&cells, &notes)
}

fn columns(row: &WorkRow) -> [String; 6] {
    let progress = Progress {
        total: row.total_bytes,
        done: row.done_bytes,
        moved: row.moved_bytes,
    };
    // Until it is looked at nobody knows how much it is.
    let far = match (row.state.as_str(), row.total_bytes) {
        ("running", 1..) => format!(
            "{} {} of {}",
            filled(progress),
            bytes(row.done_bytes),
            bytes(row.total_bytes)
        ),
        _ => "-".to_owned(),
    };
    [
        row.snapshot.clone(),
        row.archive.clone(),
        row.way.clone(),
        row.state.clone(),
        far,
        bytes(row.moved_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transfer_says_how_far_it_is_and_what_it_waits_for() {
        let to = WorkRow {
            archive: "away".to_owned(),
            snapshot: "linux:a:s".to_owned(),
            partition: "a".to_owned(),
            way: "to the archive".to_owned(),
            state: "running".to_owned(),
            total_bytes: 10 << 20,
            done_bytes: 5 << 20,
            moved_bytes: 1 << 20,
            trouble: Some("bucket b does not serve".to_owned()),
        };
        let back = WorkRow {
            way: "to a volume".to_owned(),
            state: "done".to_owned(),
            trouble: None,
            ..to.clone()
        };
        let text = shown(&[to, back]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "linux:a:s  away     to the archive  running  [###############---------------] 5.0 MiB of 10.0 MiB  1.0 MiB"
        );
        assert_eq!(lines[2], "    -> bucket b does not serve");
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "linux:a:s",
                "away",
                "to",
                "a",
                "volume",
                "done",
                "-",
                "1.0",
                "MiB"
            ]
        );
        assert_eq!(shown(&[]), "no transfers");
    }
}
