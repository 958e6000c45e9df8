//! What the node daemon answers an operator.

use std::time::Duration;

use crate::admin::{Answer, Desk, Question, VolumeRow};
use crate::fault::chain;
use crate::inflight::Inflight;
use crate::node::{Counted, GivenUp, Health, Node, Recovered};
use crate::volume::VolumeId;

/// The node behind the socket. An operator's command takes the volume as the orchestrator's calls do, and is refused while one of them has it.
pub(super) struct NodeDesk {
    pub(super) node: Node,
    pub(super) inflight: Inflight,
}

impl Desk for NodeDesk {
    fn answer(&self, question: Question) -> Answer {
        tracing::debug!(?question, "an operator asks");
        match question {
            Question::Volumes {} => match self.node.healths() {
                Ok(healths) => Answer::Volumes(healths.iter().map(row).collect()),
                Err(error) => Answer::Refused(chain(&error)),
            },
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

fn row(health: &Health) -> VolumeRow {
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
        to_do: health.to_do.clone(),
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
