//! `sanpath trace`: one volume from the pod back to the SAN, asked of the daemons that run here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::answer;
use super::duration;
use super::paths::Form;
use super::table::table;
use crate::admin::{Answer, Question, SanVolumeRow, ask, controller_socket, node_socket};
use crate::doctor::{Hop, NodeSide, SOMETHING_ELSE, Side, State, Trace, look_at_node, trace};
use crate::fault::chain;
use crate::host::Host;

/// Arguments of `sanpath trace`. The exit code is 0 when all that could be looked at is well, 1 for a hop that is degraded, 2 for one that is broken.
#[derive(Debug, Args)]
pub struct TraceArguments {
    /// Its id, its WWID or its name on the SAN.
    volume: String,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Where the host's root is, when we run in a container.
    #[arg(long, default_value = "/")]
    host_root: PathBuf,
    /// The daemons' own --runtime-dir.
    #[arg(long, default_value = "/run/sanpath")]
    runtime_dir: PathBuf,
    /// How long to wait for each daemon, for example `90s`.
    #[arg(long, default_value = "1m", value_parser = duration)]
    patience: Duration,
}

/// Asks both daemons, as far as they run here, judges and prints.
///
/// # Errors
/// When neither answers, or nobody reads.
pub fn run(arguments: &TraceArguments) -> anyhow::Result<ExitCode> {
    let mut node = node_side(arguments, &arguments.volume);
    let known = node.as_ref().ok().and_then(|node| node.volume.as_ref());
    let known = known.map(|row| row.volume.clone());
    let san = san_side(arguments, known.as_ref().unwrap_or(&arguments.volume));
    // Its name is the SAN's; a node knows it by its id.
    if known.is_none()
        && let Ok(row) = &san
    {
        node = node_side(arguments, &row.volume);
    }
    if let (Err(node), Err(san)) = (&node, &san) {
        anyhow::bail!("nobody to ask: of the node: {node}; of the controller: {san}");
    }
    let traced = trace(&arguments.volume, &node, &san);
    answer::print_judged(&match arguments.output {
        Form::Table => text(&traced),
        Form::Json => serde_json::to_string_pretty(&traced)?,
    })?;
    let worst = traced.hops.iter().map(|hop| hop.state).max();
    Ok(match worst {
        Some(State::Broken) => ExitCode::from(2),
        Some(State::Degraded) => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

fn node_side(arguments: &TraceArguments, volume: &str) -> Side<NodeSide> {
    let socket = node_socket(&arguments.runtime_dir);
    let host = Host::real(&arguments.host_root);
    look_at_node(&host, &arguments.host_root, volume, |question| {
        asked(&socket, question, arguments.patience)
    })
}

fn san_side(arguments: &TraceArguments, volume: &str) -> Side<SanVolumeRow> {
    let socket = controller_socket(&arguments.runtime_dir);
    let volume = volume.to_owned();
    match asked(&socket, &Question::SanVolume { volume }, arguments.patience)? {
        Answer::SanVolume(row) => Ok(*row),
        _ => Err(SOMETHING_ELSE.to_owned()),
    }
}

/// A daemon's answer, or why there is none.
fn asked(socket: &Path, question: &Question, patience: Duration) -> Side<Answer> {
    match ask(socket, question, patience) {
        Ok(Answer::Refused(why)) => Err(why),
        Ok(answer) => Ok(answer),
        Err(error) => Err(chain(&error)),
    }
}

fn text(traced: &Trace) -> String {
    let rows: Vec<[String; 3]> = traced.hops.iter().map(columns).collect();
    let notes: Vec<Option<String>> = traced.hops.iter().map(|hop| hop.fix.clone()).collect();
    let verdict = match &traced.breaks_at {
        Some(hop) => format!("it stops being right at: {hop}"),
        None => "nothing is wrong with what could be looked at".to_owned(),
    };
    format!("{}\n{}\n{verdict}", traced.volume, table(&rows, &notes))
}

fn columns(hop: &Hop) -> [String; 3] {
    let state = match hop.state {
        State::Good => "good",
        State::Unknown => "unknown",
        State::Degraded => "DEGRADED",
        State::Broken => "BROKEN",
    };
    [state, &hop.hop, &hop.found].map(str::to_owned)
}
