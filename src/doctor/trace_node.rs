//! What `sanpath trace` learns on a node: the daemon's word, and the two things that are seen without it.

use std::path::Path;

use super::trace::{NodeSide, Side};
use crate::admin::{Answer, FailureRow, Question, VolumePathsRow, VolumeRow};
use crate::fabric::Wwid;
use crate::fault::chain;
use crate::host::Host;
use crate::{iscsi, multipath};

/// What is said of an answer to another question.
pub const SOMETHING_ELSE: &str = "the daemon answered something else";

/// Asks the node's daemon, through `ask`, about the volume that the operator named.
///
/// # Errors
/// Why nothing can be told: the daemon does not answer.
pub fn look_at_node(
    host: &Host,
    root: &Path,
    named: &str,
    ask: impl Fn(&Question) -> Side<Answer>,
) -> Side<NodeSide> {
    let volume = match ask(&Question::Volumes {})? {
        Answer::Volumes(rows) => rows.into_iter().find(|row| is_named(row, named)),
        _ => return Err(SOMETHING_ELSE.to_owned()),
    };
    let failure = failure_of(volume.as_ref().map_or(named, |row| &row.volume), &ask);
    let failed = failure.as_ref().map(|row| &*row.volume);
    let id = volume.as_ref().map(|row| &*row.volume).or(failed);
    let id = id.unwrap_or(named);
    let wwid = id.rsplit(':').next();
    let wwid = wwid.and_then(|text| text.parse::<Wwid>().ok());
    let map = wwid.and_then(|wwid| multipath::find_map(host, &wwid).ok().flatten());
    let paths = match &volume {
        Some(row) => paths_of(&row.volume, ask)?,
        None => None,
    };
    Ok(NodeSide {
        volume,
        paths,
        initiator: match iscsi::find_initiator_name(host, root) {
            Ok(name) => Some(name.to_string()),
            Err(error) => {
                tracing::debug!(reason = chain(&error), "no initiator name");
                None
            }
        },
        map: map.map(|map| map.name),
        failure,
    })
}

/// A daemon of an earlier version does not know the question; what it answered to the others is told all the same.
fn failure_of(named: &str, ask: impl Fn(&Question) -> Side<Answer>) -> Option<FailureRow> {
    let volume = named.to_owned();
    match ask(&Question::Failure { volume }) {
        Ok(Answer::Failure(row)) => row,
        _ => None,
    }
}

fn paths_of(id: &str, ask: impl Fn(&Question) -> Side<Answer>) -> Side<Option<VolumePathsRow>> {
    let volume = Some(id.to_owned());
    match ask(&Question::Paths { volume, seen: None })? {
        Answer::Paths(shown) => Ok(shown.volumes.into_iter().next()),
        _ => Err(SOMETHING_ELSE.to_owned()),
    }
}

/// By its whole id, or by the SAN's key or the WWID in it.
fn is_named(row: &VolumeRow, named: &str) -> bool {
    let mut last = row.volume.rsplit(':').take(2);
    row.volume == named || last.any(|part| part == named)
}
