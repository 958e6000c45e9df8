//! What a partition's settings change about a stage.

use std::sync::Arc;
use std::time::Duration;

use super::rig::Rig;
use super::tests::{ext4, refused};
use super::{Node, PathSettings};
use crate::fault::Fault;
use crate::host::fake::PortalState;

fn set(node: &Node, settings: PathSettings) -> Node {
    Node {
        paths_of: Arc::new(move |_: &_| Some(settings.clone())),
        ..node.clone()
    }
}

#[test]
fn the_partitions_own_deadline_ends_a_stage_that_lacks_paths() {
    let rig = Rig::new();
    rig.fake.set_portal(rig.portals[1], PortalState::Mute);
    let seconds_until_refused = |seconds: Option<u64>| {
        let settings = PathSettings {
            min_paths: 2,
            deadline: seconds.map(Duration::from_secs),
            ..PathSettings::default()
        };
        let node = set(&rig.started(), settings);
        let begun = node.host.now();
        let (fault, told) = refused(node.stage(&rig.stage_call(ext4())).outcome);
        assert!(matches!(fault, Fault::MaybeDone | Fault::Timeout), "{told}");
        assert!(told.contains("1 of 2 needed paths"), "{told}");
        node.host.now().since(begun).as_secs()
    };
    let own = seconds_until_refused(Some(7));
    assert!((7..10).contains(&own), "{own} s");
    let drivers = seconds_until_refused(None);
    assert!(drivers > own, "{drivers} s");
    rig.assert_clean();
}

#[test]
fn too_few_paths_by_the_settings_alone_are_refused_before_anything_is_touched() {
    for (list, wanted) in [
        ("10.1.0.1,if9:10.2.0.1", "if9 is not in STORAGE_INTERFACES"),
        ("nopath", "offers no more"),
    ] {
        let rig = Rig::new();
        let settings = PathSettings {
            list: list.parse().unwrap(),
            min_paths: 3,
            ..PathSettings::default()
        };
        let node = set(&rig.started(), settings);
        let counted = node.stage(&rig.stage_call(ext4()));
        assert_eq!(counted.counts.steps, 0);
        let (fault, told) = refused(counted.outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(
            told.contains("minPaths of partition cluster-a is 3"),
            "{told}"
        );
        assert!(told.contains(wanted), "{told}");
    }
}
