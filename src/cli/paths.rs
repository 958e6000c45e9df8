//! `sanpath paths`: the paths of the volumes of this machine, asked of the node daemon that runs here.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::answer;
use super::node::Daemon;
use super::table::table;
use crate::admin::{Answer, PathShown, PathsShown, Question, VolumePathsRow, ask, node_socket};

/// Arguments of `sanpath paths`.
#[derive(Debug, Args)]
pub struct PathsArguments {
    /// Of one volume alone: its id, its WWID or its name on the SAN.
    volume: Option<String>,
    /// Go on, and print them again at each change.
    #[arg(long)]
    watch: bool,
    /// The form of the answer; with --watch JSON comes one object a line.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
    #[command(flatten)]
    daemon: Daemon,
}

/// The forms of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
}

/// Asks and prints; with --watch until the daemon or the reader of the output is gone.
///
/// # Errors
/// When there is no answer, or nobody reads.
pub fn run(arguments: &PathsArguments) -> anyhow::Result<ExitCode> {
    let socket = node_socket(&arguments.daemon.runtime_dir);
    let mut seen = None;
    loop {
        let question = Question::Paths {
            volume: arguments.volume.clone(),
            seen,
        };
        let shown = match ask(&socket, &question, arguments.daemon.patience)? {
            Answer::Paths(shown) => shown,
            Answer::Refused(why) => return Err(anyhow::Error::msg(why)),
            _ => return Err(anyhow::anyhow!("the daemon answered something else")),
        };
        if seen != Some(shown.mark) {
            print(arguments, &shown)?;
        }
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        seen = Some(shown.mark);
    }
}

fn print(arguments: &PathsArguments, shown: &PathsShown) -> anyhow::Result<()> {
    let text = match (arguments.output, arguments.watch) {
        (Form::Table, false) => tables(shown),
        (Form::Table, true) => tables(shown) + "\n",
        (Form::Json, false) => serde_json::to_string_pretty(&shown.volumes)?,
        (Form::Json, true) => serde_json::to_string(&shown.volumes)?,
    };
    Ok(answer::print(&text)?)
}

fn tables(shown: &PathsShown) -> String {
    if shown.volumes.is_empty() {
        return "no volumes".to_owned();
    }
    let volumes: Vec<String> = shown.volumes.iter().map(volume_table).collect();
    volumes.join("\n\n")
}

/// A line for the volume, one for each path, and what is to be said of a path below it.
fn volume_table(volume: &VolumePathsRow) -> String {
    let mut cells = vec![
        [
            "PATH", "IFACE", "PORTAL", "SESSION", "DISK", "STATE", "DM", "CHECKER", "PRIO",
            "ERRORS", "SINCE",
        ]
        .map(str::to_owned),
    ];
    cells.extend(volume.paths.iter().map(columns));
    let mut notes = vec![None];
    notes.extend(volume.paths.iter().map(|path| path.note.clone()));
    let map = volume.map.as_deref().unwrap_or("no map");
    let degraded = if volume.active < volume.expected {
        "  DEGRADED"
    } else {
        ""
    };
    format!(
        "{}  {map}  {} of {} paths{degraded}\n{}",
        volume.volume,
        volume.active,
        volume.expected,
        table(&cells, &notes)
    )
}

fn columns(path: &PathShown) -> [String; 11] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let counted = |count: Option<String>| or_dash(&count);
    [
        or_dash(&path.element),
        or_dash(&path.iface),
        or_dash(&path.portal),
        or_dash(&path.session),
        or_dash(&path.disk),
        path.state.clone(),
        or_dash(&path.dm),
        or_dash(&path.checker),
        counted(path.priority.map(|priority| priority.to_string())),
        counted(path.errors.map(|errors| errors.to_string())),
        counted(path.portal.as_ref().map(|_| age(path.since))),
    ]
}

/// `42s`, `7m05s`, `3h20m`, `12d04h`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(element: Option<&str>, state: &str) -> PathShown {
        PathShown {
            element: element.map(str::to_owned),
            iface: None,
            portal: Some("10.1.0.1:3260".to_owned()),
            target: None,
            lun: Some(1),
            session: Some("logged in".to_owned()),
            disk: Some("sda".to_owned()),
            state: state.to_owned(),
            dm: Some("active".to_owned()),
            checker: Some("ready".to_owned()),
            priority: Some(50),
            errors: Some(3),
            since: 65,
            note: None,
            cause: None,
        }
    }

    #[test]
    fn a_degraded_volume_says_so_and_what_stands_in_the_way() {
        let missing = PathShown {
            portal: None,
            note: Some("it needs a re-attach".to_owned()),
            ..path(Some("10.9.0.1"), "needs re-attach")
        };
        let shown = PathsShown {
            mark: 1,
            volumes: vec![VolumePathsRow {
                volume: "v1".to_owned(),
                map: Some("m".to_owned()),
                active: 1,
                expected: 2,
                paths: vec![path(Some("10.1.0.1"), "active"), missing],
            }],
        };
        let text = tables(&shown);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "v1  m  1 of 2 paths  DEGRADED");
        assert!(lines[1].starts_with("PATH      IFACE  PORTAL"), "{text}");
        assert!(lines[2].ends_with("50    3       1m05s"), "{text}");
        assert_eq!(lines[4], "    -> it needs a re-attach");
        assert_eq!(lines.len(), 5);
        let none = PathsShown {
            mark: 0,
            volumes: Vec::new(),
        };
        assert_eq!(tables(&none), "no volumes");
    }

    #[test]
    fn ages_are_short() {
        let ages = [5, 65, 12_000, 1_051_200].map(age);
        assert_eq!(ages, ["5s", "1m05s", "3h20m", "12d04h"]);
    }
}
