//! The last failure of each volume's calls, for the operator who asks what became of a volume: one whose stage failed for good has no record any more.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::NodeError;
use crate::attach::Reason;
use crate::deadline::Moment;
use crate::fabric::WantedPath;
use crate::fault::chain;
use crate::volume::VolumeId;

/// So many volumes are kept in mind; then the oldest failure is forgotten.
const MOST: usize = 256;

/// How a volume's last call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose.
    pub volume: VolumeId,
    /// The call, by CSI's name.
    pub call: &'static str,
    /// When.
    pub at: Moment,
    /// Why, with all causes.
    pub error: String,
    /// The paths that it failed for, and why each is missing; none when it failed for something else.
    pub paths: Vec<(WantedPath, Reason)>,
}

/// The failures since this process started that no call of the same volume has mended. The newest is last.
#[derive(Debug, Default)]
pub struct Failures(Mutex<VecDeque<Failure>>);

impl Failures {
    /// Takes in how a call ended. One that went well ends what was before.
    pub(super) fn learn<T>(
        &self,
        call: &'static str,
        volume: &VolumeId,
        outcome: &Result<T, NodeError>,
        now: Moment,
    ) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|failure| failure.volume != *volume);
        let Err(error) = outcome else {
            return;
        };
        if failures.len() == MOST {
            failures.pop_front();
        }
        failures.push_back(Failure {
            volume: volume.clone(),
            call,
            at: now,
            error: chain(error),
            paths: error.missing().to_vec(),
        });
    }

    /// That of the volume with this id, WWID or name on the SAN.
    pub(super) fn find(&self, name: &str) -> Option<Failure> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |id: &VolumeId| id.to_string() == name || id.wwid.as_str() == name || id.key == name;
        failures.iter().find(|it| is_it(&it.volume)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attach::Cause;
    use crate::host::fake::PortalState;
    use crate::node::rig::Rig;
    use crate::volume::AccessType;

    /// Nothing of the volume is on the node then, and still it can be told what kept each path away.
    #[test]
    fn a_stage_that_failed_is_told_of_until_one_goes_well() {
        let rig = Rig::new();
        let node = rig.started();
        let call = rig.stage_call(AccessType::Block);
        let id = rig.volume().to_string();
        assert_eq!(node.failure(&id), None);
        for portal in &rig.portals {
            rig.fake.set_portal(*portal, PortalState::Refusing);
        }
        assert!(node.stage(&call).outcome.is_err());
        assert_eq!(node.healths().unwrap(), []);
        let failure = node.failure(&id).unwrap();
        assert_eq!(failure.call, "NodeStageVolume");
        let portals: Vec<_> = failure.paths.iter().map(|(path, _)| path.portal).collect();
        assert_eq!(portals, rig.portals);
        let dead = |(_, reason): &(WantedPath, Reason)| reason.cause == Cause::NoAnswer;
        assert!(failure.paths.iter().all(dead), "{failure:?}");
        assert_eq!(node.failure(rig.wwid.as_str()), Some(failure));
        rig.set_portal(0, true);
        rig.set_portal(1, true);
        rig.fake.sleep(Duration::from_secs(5));
        node.stage(&call).outcome.unwrap();
        assert_eq!(node.failure(&id), None);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let rig = Rig::new();
        let failures = Failures::default();
        let volume = |number: usize| VolumeId {
            key: format!("k{number}"),
            ..rig.volume()
        };
        let fails = |number| {
            let outcome: Result<(), _> = Err(NodeError::NoPartitions);
            failures.learn("c", &volume(number), &outcome, rig.fake.host().now());
        };
        (0..=MOST).for_each(fails);
        fails(1);
        assert_eq!(failures.find("k0"), None);
        assert!(failures.find("k1").is_some() && failures.find("k256").is_some());
        fails(MOST + 1);
        assert!(failures.find("k1").is_some(), "it failed anew");
        assert_eq!(failures.find("k2"), None);
    }
}
