//! `sanpath node volumes`, `recover` and `release`: asked of the daemon that runs on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::answer::print;
use super::duration;
use crate::admin::{Answer, Question, VolumeRow, ask, node_socket};

/// What can be asked of a running node daemon.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the volumes of this node: paths, file system, mounts, and what to do.
    Volumes(VolumesArguments),
    /// Check and mount anew, at all its places, a file system that went read-only or shut down; refused while somebody uses it.
    Recover(RecoverArguments),
    /// Give a volume up of which no path is left. Data that is not written is lost.
    Release(ReleaseArguments),
}

/// How the daemon is reached.
#[derive(Debug, Args)]
pub struct Daemon {
    /// The daemon's own --runtime-dir.
    #[arg(long, default_value = "/run/sanpath")]
    pub(super) runtime_dir: PathBuf,
    /// How long to wait for its answer, for example `90s` or `10m`; what was begun goes on.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(super) patience: Duration,
}

/// Arguments of `sanpath node volumes`.
#[derive(Debug, Args)]
pub struct VolumesArguments {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Arguments of `sanpath node recover`.
#[derive(Debug, Args)]
pub struct RecoverArguments {
    /// Its id, its WWID or its name on the SAN, as `sanpath node volumes` shows them.
    volume: String,
    #[command(flatten)]
    daemon: Daemon,
}

/// Arguments of `sanpath node release`.
#[derive(Debug, Args)]
pub struct ReleaseArguments {
    /// Its id, its WWID or its name on the SAN, as `sanpath node volumes` shows them.
    volume: String,
    /// Do it. Without this, only tell what would be lost.
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Asks, prints the answer, and tells by the exit code whether it was done.
///
/// # Errors
/// When there is no answer.
pub fn run(command: NodeCommand) -> anyhow::Result<ExitCode> {
    let (question, daemon, json) = match command {
        NodeCommand::Volumes(asked) => (Question::Volumes {}, asked.daemon, asked.json),
        NodeCommand::Recover(asked) => {
            let volume = asked.volume;
            (Question::Recover { volume }, asked.daemon, false)
        }
        NodeCommand::Release(asked) => {
            let question = Question::Release {
                volume: asked.volume,
                accept_data_loss: asked.accept_data_loss,
            };
            (question, asked.daemon, false)
        }
    };
    let socket = node_socket(&daemon.runtime_dir);
    match ask(&socket, &question, daemon.patience)? {
        Answer::Volumes(rows) if json => print(&serde_json::to_string_pretty(&rows)?)?,
        Answer::Volumes(rows) => print(&table(&rows))?,
        Answer::Done(lines) => print(&lines.join("\n"))?,
        Answer::Refused(why) => return Err(anyhow::Error::msg(why)),
        Answer::Paths(_)
        | Answer::Failure(_)
        | Answer::Sanhosts(_)
        | Answer::SanVolume(_)
        | Answer::Works(_) => {
            return Err(anyhow::anyhow!("the daemon answered something else"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of columns for each volume, and what is to be done below it.
fn table(rows: &[VolumeRow]) -> String {
    if rows.is_empty() {
        return "no volumes".to_owned();
    }
    let mut cells =
        vec![["VOLUME", "STAGE", "PATHS", "FILE SYSTEM", "MOUNTS", "MAP"].map(str::to_owned)];
    cells.extend(rows.iter().map(columns));
    let mut notes = vec![None];
    notes.extend(rows.iter().map(|row| row.to_do.clone()));
    super::table::table(&cells, &notes)
}

fn columns(row: &VolumeRow) -> [String; 6] {
    let active = row
        .active_paths
        .map_or_else(|| "?".to_owned(), |active| active.to_string());
    [
        row.volume.clone(),
        row.stage.clone(),
        format!("{active}/{}", row.wanted_paths),
        row.file_system.clone(),
        row.places.len().to_string(),
        row.map.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do_below_the_volume() {
        let row = |volume: &str, to_do: Option<&str>| VolumeRow {
            volume: volume.to_owned(),
            stage: "staged".to_owned(),
            map: None,
            active_paths: None,
            wanted_paths: 2,
            queueing: false,
            file_system: "good".to_owned(),
            places: vec!["/a".to_owned()],
            to_do: to_do.map(str::to_owned),
        };
        let text = table(&[row("v1", None), row("volume2", Some("look"))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "v1       staged  ?/2    good         1       -");
        assert_eq!(lines[3], "    -> look");
        assert_eq!(lines.len(), 4);
        assert_eq!(table(&[]), "no volumes");
    }
}
