//! What is to be done for the paths of one volume: a pure function of what should be and of what is.
//!
//! Level-triggered: it is asked again after whatever came of it, and plans nothing for a volume that is as it should be. The invariant: a path is taken
//! out only while another one that stays serves and has proven, at the same look, that it is the volume.

use std::collections::BTreeMap;

use super::ledger::Record;
use crate::fabric::{LeftOut, PathAddress, Selection, WantedPath};

/// What was seen of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The size of its map in bytes; `None` without a map.
    pub(super) map: Option<u64>,
    /// Its paths: those that should be, and those that the record names.
    pub(super) paths: BTreeMap<WantedPath, Seen>,
}

/// What was seen of one path. The default: nothing is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its session.
    pub(super) session: SessionSeen,
    /// Its disk.
    pub(super) disk: Option<DiskSeen>,
    /// Work on it is under way, or failed so shortly ago that it is not to be tried yet.
    pub(super) rests: bool,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SessionSeen {
    /// There is none.
    #[default]
    Absent,
    /// It has lost its connection, and iscsid is at it.
    Down,
    /// The same, and it cannot come back: its credentials are not accepted any more.
    Outdated,
    /// It is logged in.
    Up,
}

/// How a disk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskSeen {
    /// It takes commands, as far as the kernel knows.
    pub(super) runs: bool,
    /// In bytes.
    pub(super) size: u64,
    /// The volume's map has it.
    pub(super) member: bool,
    /// multipathd lets I/O go over it.
    pub(super) active: bool,
    /// It has said at this look that it is the volume.
    pub(super) proven: bool,
    /// The map does not use it though it answers: somebody failed it by hand.
    pub(super) failed_by_hand: bool,
}

/// One thing to do, or to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Write down that the path is wanted. Before anything is done for it.
    Adopt(WantedPath),
    /// Session, disk, identity, size, place in the map: whatever it lacks of them.
    Ensure(WantedPath),
    /// Ask the disk for its size: it shows less than its map has.
    Reread(WantedPath),
    /// Take the path out of the map and its disk off the machine.
    Prune(WantedPath),
    /// Nothing of it is left: write down that it is not wanted.
    Forget(WantedPath),
    /// Tell.
    Report(Finding),
}

impl Action {
    /// Whether it changes anything.
    pub(super) fn is_deed(&self) -> bool {
        !matches!(self, Self::Report(_))
    }
}

impl Seen {
    /// Whether I/O goes over the path.
    pub(super) fn serves(&self) -> bool {
        let serves = |disk: DiskSeen| disk.member && disk.runs && disk.active;
        self.session == SessionSeen::Up && self.disk.is_some_and(serves)
    }
}

/// What is amiss and not to be mended from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// A listed path that cannot be had.
    LeftOut(LeftOut),
    /// Somebody failed it by hand; it is his to take back.
    FailedByHand(WantedPath),
    /// No longer listed, and kept: no other path serves.
    LastToServe(WantedPath),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeftOut(LeftOut { path, why }) => write!(out, "{path}: {why}"),
            Self::FailedByHand(path) => write!(
                out,
                "{}: its disk answers, but the map has it as failed; somebody failed it by hand (multipathd reinstate path takes that back)",
                path.portal
            ),
            Self::LastToServe(path) => write!(
                out,
                "{}: it is not listed any more, and stays until a listed path serves",
                path.portal
            ),
        }
    }
}

/// What is to be done for the volume of `record` in the boot `boot_id`: nothing for one that leaves or is of an earlier boot, nor without a map, which
/// only a call may make.
pub(super) fn plan(
    record: &Record,
    boot_id: &str,
    selection: &Selection,
    seen: &Observed,
) -> Vec<Action> {
    if record.leaving || record.boot_id != boot_id {
        return Vec::new();
    }
    let Some(map_size) = seen.map else {
        return Vec::new();
    };
    let mut actions = Vec::new();
    for path in &selection.wanted {
        if !record.wanted.contains(path) {
            actions.push(Action::Adopt(path.clone()));
        }
        actions.extend(mend(path, &look_at(seen, path), map_size));
    }
    actions.extend(take_out(record, selection, seen, map_size));
    let left_out = selection.left_out.iter().cloned();
    actions.extend(left_out.map(|it| Action::Report(Finding::LeftOut(it))));
    actions
}

fn look_at(seen: &Observed, path: &WantedPath) -> Seen {
    seen.paths.get(path).cloned().unwrap_or_default()
}

/// What a wanted path needs.
fn mend(path: &WantedPath, seen: &Seen, map_size: u64) -> Option<Action> {
    let disk = match (seen.session, seen.disk) {
        // iscsid brings it back, and multipathd then its disk.
        (SessionSeen::Down, _) => return None,
        (SessionSeen::Absent | SessionSeen::Outdated, _) | (SessionSeen::Up, None) => {
            return (!seen.rests).then(|| Action::Ensure(path.clone()));
        }
        (SessionSeen::Up, Some(disk)) => disk,
    };
    if disk.failed_by_hand {
        return Some(Action::Report(Finding::FailedByHand(path.clone())));
    }
    if seen.rests || !disk.runs {
        return None;
    }
    if !disk.member {
        return Some(Action::Ensure(path.clone()));
    }
    (disk.size < map_size).then(|| Action::Reread(path.clone()))
}

/// What becomes of the paths that the record names and the list does not: one at a time goes.
fn take_out(record: &Record, selection: &Selection, seen: &Observed, map_size: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut is_pruning = false;
    for path in stale(record, selection) {
        let at = look_at(seen, path);
        match at.disk {
            _ if at.rests => {}
            None => actions.push(Action::Forget(path.clone())),
            Some(_) if is_pruning => {}
            Some(disk) if !disk.member || another_serves(selection, seen, map_size) => {
                is_pruning = true;
                actions.push(Action::Prune(path.clone()));
            }
            Some(_) => actions.push(Action::Report(Finding::LastToServe(path.clone()))),
        }
    }
    actions
}

/// The paths that the record names and the list does not have any more. One that a listed element may mean that cannot be made out now is not among them:
/// that a name cannot be resolved, or an interface is missing, takes nothing from anybody.
pub(super) fn stale<'r>(
    record: &'r Record,
    selection: &'r Selection,
) -> impl Iterator<Item = &'r WantedPath> {
    let may_mean = |it: &LeftOut, path: &WantedPath| match &it.path.address {
        PathAddress::Portal(portal) => *portal == path.portal,
        PathAddress::Name(..) => it.why.is_expected(),
    };
    record.wanted.iter().filter(move |path| {
        let meant = selection.left_out.iter().any(|it| may_mean(it, path));
        !meant && !selection.wanted.contains(path)
    })
}

/// Whether a path that stays carries the volume, to its last byte.
fn another_serves(selection: &Selection, seen: &Observed, map_size: u64) -> bool {
    let carries = |disk: DiskSeen| disk.proven && disk.size >= map_size;
    selection.wanted.iter().any(|path| {
        let at = look_at(seen, path);
        at.serves() && at.disk.is_some_and(carries)
    })
}

#[cfg(test)]
mod tests;
