//! What the node daemon answers an operator.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::admin::{
    Answer, Desk, FailedPath, FailureRow, PathShown, PathsShown, Question, VolumePathsRow,
    VolumeRow,
};
use crate::attach::{Cause, PathRow, Reason};
use crate::fabric::{LeftOut, WantedPath, Why};
use crate::fault::chain;
use crate::host::Host;
use crate::inflight::Inflight;
use crate::iscsi::SessionState;
use crate::node::{
    Advice, Counted, Failure, GivenUp, Health, Node, NodeError, Recovered, Surroundings,
    VolumePaths,
};
use crate::volume::VolumeId;

/// The node behind the socket. An operator's command takes the volume as the orchestrator's calls do, and is refused while one of them has it.
pub(super) struct NodeDesk {
    pub(super) node: Node,
    pub(super) host: Host,
    pub(super) inflight: Inflight,
    pub(super) surroundings: Surroundings,
}

impl Desk for NodeDesk {
    fn answer(&self, question: Question) -> Answer {
        tracing::debug!(?question, "an operator asks");
        match question {
            Question::Volumes {} => match self.node.healths() {
                Ok(healths) => {
                    let advice = self.surroundings.advice();
                    let rows = healths.iter().map(|health| row(health, &advice));
                    Answer::Volumes(rows.collect())
                }
                Err(error) => Answer::Refused(chain(&error)),
            },
            Question::Paths { volume, seen } => self.paths(volume.as_deref(), seen),
            Question::Failure { volume } => {
                let failure = self.node.failure(&volume);
                Answer::Failure(failure.map(|failure| self.failure_row(failure)))
            }
            Question::Sanhosts { .. } | Question::SanVolume { .. } => Answer::Refused(
                "this is the node; ask the controller daemon, which manages the SANs".to_owned(),
            ),
            Question::Works {} => Answer::Refused(
                "this is the node; ask the archiver daemon of the machine where it runs".to_owned(),
            ),
            Question::Recover { volume } => {
                self.work("recover", &volume, Node::recover, recovered_lines)
            }
            Question::Release {
                volume,
                accept_data_loss,
            } => self.work(
                "release",
                &volume,
                |node, volume| node.release(volume, accept_data_loss),
                |given_up| given_up_lines(&given_up),
            ),
        }
    }
}

impl NodeDesk {
    /// The paths of now, or of a little later when those of now were `seen`.
    fn paths(&self, volume: Option<&str>, seen: Option<u64>) -> Answer {
        let look = || -> Result<PathsShown, NodeError> {
            let only = volume.map(|name| self.node.named(name)).transpose()?;
            Ok(paths_shown(&self.node.paths(only.as_ref())?))
        };
        let deadline = self.host.deadline_in(WATCH);
        loop {
            match look() {
                Ok(shown) if seen == Some(shown.mark) && !self.host.is_past(deadline) => {}
                Ok(shown) => return Answer::Paths(shown),
                Err(error) => return Answer::Refused(chain(&error)),
            }
            self.host.wait_for_event(LOOK_AGAIN);
        }
    }

    fn failure_row(&self, failure: Failure) -> FailureRow {
        let path = |(path, reason): (WantedPath, Reason)| FailedPath {
            portal: path.portal.to_string(),
            iface: path.iface.as_ref().map(ToString::to_string),
            cause: cause_word(reason.cause),
            why: reason.words,
        };
        FailureRow {
            volume: failure.volume.to_string(),
            call: failure.call.to_owned(),
            age: self.host.now().since(failure.at).as_secs(),
            error: failure.error,
            paths: failure.paths.into_iter().map(path).collect(),
        }
    }

    fn work<T>(
        &self,
        command: &str,
        name: &str,
        work: impl FnOnce(&Node, &VolumeId) -> Counted<T>,
        lines: impl FnOnce(T) -> Vec<String>,
    ) -> Answer {
        let volume = match self.node.named(name) {
            Ok(volume) => volume,
            Err(error) => return Answer::Refused(chain(&error)),
        };
        let _own = match self.inflight.try_begin(&volume.to_string()) {
            Ok(guard) => guard,
            Err(error) => return Answer::Refused(chain(&error)),
        };
        let done = work(&self.node, &volume);
        let steps = done.counts.steps;
        match done.outcome {
            Ok(value) => {
                tracing::warn!(volume.id = %volume, steps, "an operator's {command} done");
                Answer::Done(lines(value))
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(volume.id = %volume, steps, error, "an operator's {command} failed");
                Answer::Refused(error)
            }
        }
    }
}

fn recovered_lines(recovered: Recovered) -> Vec<String> {
    match recovered {
        Recovered::Already => vec!["nothing was wrong; nothing was done".to_owned()],
        Recovered::MountedAt(places) => {
            let places = places.iter().map(|place| format!("  {}", place.display()));
            let told = "a container that ran meanwhile still sees the old mount; one that starts now sees this one";
            [
                vec!["checked and mounted anew at:".to_owned()],
                places.collect(),
                vec![told.to_owned()],
            ]
            .concat()
        }
    }
}

fn given_up_lines(given_up: &GivenUp) -> Vec<String> {
    let places: Vec<String> = given_up
        .places
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    vec![
        format!("given up: {}", given_up.unwritten),
        format!(
            "unmounted: {}",
            if places.is_empty() {
                "nothing".to_owned()
            } else {
                places.join(", ")
            }
        ),
        "the map, its disks and the record are gone; the SAN has what was written before"
            .to_owned(),
    ]
}

fn row(health: &Health, advice: &[Advice]) -> VolumeRow {
    let concerns = |advice: &&Advice| !advice.netdevs.is_disjoint(&health.netdevs);
    let advised = advice.iter().filter(concerns).map(|it| it.text.clone());
    // It may well be why a path is missing.
    let to_do: Vec<String> = health.to_do.clone().into_iter().chain(advised).collect();
    VolumeRow {
        volume: health.volume.to_string(),
        stage: health.stage.word().to_owned(),
        map: health.map.clone(),
        active_paths: health.reach.map(|reach| reach.active),
        wanted_paths: health.wanted,
        queueing: health.reach.is_some_and(|reach| reach.queueing),
        file_system: health.condition.words(),
        places: health
            .places
            .iter()
            .map(|place| place.display().to_string())
            .collect(),
        to_do: (!to_do.is_empty()).then(|| to_do.join("; ")),
    }
}

/// How long an answer may wait until it says something new.
const WATCH: Duration = Duration::from_secs(5);
/// multipathd's word changes without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn paths_shown(volumes: &[VolumePaths]) -> PathsShown {
    let volumes: Vec<VolumePathsRow> = volumes.iter().map(volume_paths_row).collect();
    let mut hasher = DefaultHasher::new();
    for volume in &volumes {
        let mut lasting = volume.clone();
        lasting.paths.iter_mut().for_each(|path| path.since = 0);
        lasting.hash(&mut hasher);
    }
    PathsShown {
        mark: hasher.finish(),
        volumes,
    }
}

fn volume_paths_row(paths: &VolumePaths) -> VolumePathsRow {
    let table = &paths.table;
    let rows = table.rows.iter().zip(&paths.elements);
    let left_out = table.left_out.iter().map(left_out_shown);
    VolumePathsRow {
        volume: paths.volume.to_string(),
        map: table.map.clone(),
        active: table
            .rows
            .iter()
            .filter(|row| row.state == "active")
            .count(),
        expected: table.expected,
        paths: rows
            .map(|(row, element)| path_shown(row, element.clone()))
            .chain(left_out)
            .collect(),
    }
}

fn path_shown(row: &PathRow, element: Option<String>) -> PathShown {
    let session = row.session.map(|state| match state {
        SessionState::LoggedIn => "logged in",
        SessionState::Failed => "down",
        SessionState::Free => "free",
    });
    let leaves = "not listed any more; it goes once a listed path serves";
    PathShown {
        element,
        iface: row.path.iface.as_ref().map(ToString::to_string),
        portal: Some(row.path.portal.to_string()),
        target: Some(row.path.iqn.to_string()),
        lun: Some(row.path.lun.0),
        session: session.map(str::to_owned),
        disk: row.disk.clone(),
        state: row.state.to_owned(),
        dm: row.dm_state.clone(),
        checker: row.checker.clone(),
        priority: row.priority,
        errors: row.errors,
        since: row.since.as_secs(),
        note: match row.listed {
            true => row.why.as_ref().map(|why| why.words.clone()),
            false => Some(leaves.to_owned()),
        },
        cause: row.why.as_ref().and_then(|why| cause_word(why.cause)),
    }
}

fn cause_word(cause: Cause) -> Option<String> {
    match cause {
        Cause::NoAnswer => Some("no answer"),
        Cause::Refused => Some("login refused"),
        Cause::UnderWay => Some("under way"),
        Cause::Other => None,
    }
    .map(str::to_owned)
}

/// An element that cannot be had.
fn left_out_shown(left_out: &LeftOut) -> PathShown {
    let state = match left_out.why {
        Why::NotOffered => "needs re-attach",
        _ => "disabled",
    };
    PathShown {
        element: Some(left_out.path.to_string()),
        iface: None,
        portal: None,
        target: None,
        lun: None,
        session: None,
        disk: None,
        state: state.to_owned(),
        dm: None,
        checker: None,
        priority: None,
        errors: None,
        since: 0,
        note: Some(left_out.why.to_string()),
        cause: None,
    }
}

/// How often the volumes are looked at without being asked.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Tells the log of each change for the worse or the better, once.
#[derive(Default)]
pub(super) struct Watch {
    told: std::collections::BTreeMap<VolumeId, String>,
}

impl Watch {
    /// Looks at all volumes. A volume that an operation has at the moment is judged at the next look.
    pub(super) fn look(&mut self, node: &Node, inflight: &Inflight) {
        let healths = match node.healths() {
            Ok(healths) => healths,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the volumes could not be looked at");
                return;
            }
        };
        let there: std::collections::BTreeSet<_> =
            healths.iter().map(|health| &health.volume).collect();
        self.told.retain(|volume, _| there.contains(volume));
        for health in &healths {
            if inflight.try_begin(&health.volume.to_string()).is_ok() {
                self.tell(health);
            }
        }
    }

    fn tell(&mut self, health: &Health) {
        let volume = &health.volume;
        let paths = health.reach.map_or(0, |reach| reach.active);
        match &health.to_do {
            Some(to_do) if self.told.get(volume) != Some(to_do) => {
                tracing::warn!(volume.id = %volume, paths, wanted = health.wanted, file_system = health.condition.words(),
                    "{to_do}");
                self.told.insert(volume.clone(), to_do.clone());
            }
            None if self.told.remove(volume).is_some() => {
                tracing::info!(volume.id = %volume, paths, "all is well with the volume again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InterfaceSource;
    use crate::node::rig::Rig;
    use crate::volume::AccessType;

    fn shown(answer: Answer) -> PathsShown {
        match answer {
            Answer::Paths(shown) => shown,
            other => panic!("{other:?}"),
        }
    }

    /// Who has seen an answer is answered again when something has changed, or after a while.
    #[test]
    fn a_watch_hears_of_a_change_and_is_never_kept() {
        let rig = Rig::new();
        let desk = NodeDesk {
            node: rig.started(),
            host: rig.fake.host(),
            inflight: Inflight::default(),
            surroundings: Surroundings::new(rig.fake.host(), InterfaceSource::default()),
        };
        let ask = |volume: Option<String>, seen| desk.answer(Question::Paths { volume, seen });
        assert_eq!(shown(ask(None, None)).volumes, []);
        let call = rig.stage_call(AccessType::Block);
        desk.node.stage(&call).outcome.unwrap();
        let whole = shown(ask(Some(rig.volume().to_string()), None));
        assert_eq!((whole.volumes[0].active, whole.volumes[0].expected), (2, 2));
        assert_eq!(whole.volumes[0].paths[0].state, "active");
        assert!(matches!(
            ask(Some("v9".to_owned()), None),
            Answer::Refused(_)
        ));
        let begun = desk.host.now();
        let same = shown(ask(None, Some(whole.mark)));
        assert_eq!(same.mark, whole.mark, "how long it is so does not count");
        assert!(desk.host.now().since(begun) >= WATCH);
        let portal = rig.portals[1];
        rig.fake.later(Duration::from_secs(2), move |later| {
            later.set_portal(portal, crate::host::fake::PortalState::Refusing);
        });
        let begun = desk.host.now();
        let degraded = shown(ask(None, Some(whole.mark)));
        assert!(desk.host.now().since(begun) < WATCH);
        assert_eq!(degraded.volumes[0].active, 1);
        assert_eq!(degraded.volumes[0].paths[1].state, "session down");
    }
}
