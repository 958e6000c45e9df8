//! CSI's table for the second publish of a volume on one node (CSI §NodePublishVolume).

use super::rig::Rig;
use super::tests::{ext4, target};
use super::{Node, NodeError};
use crate::fault::{Fault, Faulted};
use crate::volume::AccessMode::{
    self, SingleNodeMultiWriter, SingleNodeReader, SingleNodeSingleWriter, SingleNodeWriter,
};

fn staged(rig: &Rig, mode: AccessMode) -> Node {
    let node = rig.started();
    let mut stage = rig.stage_call(ext4());
    stage.capability.mode = mode;
    node.stage(&stage).outcome.unwrap();
    node
}

fn publish(rig: &Rig, node: &Node, mode: AccessMode, pod: &str) -> Result<(), NodeError> {
    let mut publish = rig.publish_call(ext4(), pod);
    publish.capability.mode = mode;
    node.publish(&publish).outcome
}

fn fault(outcome: Result<(), NodeError>) -> Option<Fault> {
    outcome.err().map(|error| error.fault())
}

#[test]
fn a_second_target_is_for_the_mode_to_allow() {
    let refused = Some(Fault::Precondition);
    for (mode, second) in [
        (SingleNodeWriter, None),
        (SingleNodeMultiWriter, None),
        (SingleNodeSingleWriter, refused),
    ] {
        let rig = Rig::new();
        let node = staged(&rig, mode);
        for pod in ["p1", "p1"] {
            publish(&rig, &node, mode, pod).unwrap();
        }
        assert_eq!(fault(publish(&rig, &node, mode, "p2")), second, "{mode:?}");
        let mut other = rig.publish_call(ext4(), "p1");
        other.capability.mode = mode;
        other.read_only = true;
        assert_eq!(
            fault(node.publish(&other).outcome),
            Some(Fault::Conflict),
            "{mode:?}"
        );
        // The place is free again.
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
        if second.is_some() {
            publish(&rig, &node, mode, "p2").unwrap();
        }
        for pod in ["p1", "p2"] {
            node.unpublish(&rig.unpublish_call(pod)).outcome.unwrap();
        }
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

#[test]
fn the_refusal_names_the_place_that_is_taken() {
    let rig = Rig::new();
    let node = staged(&rig, SingleNodeSingleWriter);
    publish(&rig, &node, SingleNodeSingleWriter, "p1").unwrap();
    let told = publish(&rig, &node, SingleNodeSingleWriter, "p2").unwrap_err();
    assert!(told.to_string().contains("pods/p1"), "{told}");
    assert_eq!(node.host.find_stat(&target("p2")).unwrap(), None);
}

#[test]
fn one_place_and_many_places_do_not_mix() {
    for (first, second) in [
        (SingleNodeSingleWriter, SingleNodeMultiWriter),
        (SingleNodeMultiWriter, SingleNodeSingleWriter),
    ] {
        let rig = Rig::new();
        let node = staged(&rig, first);
        publish(&rig, &node, first, "p1").unwrap();
        let again = publish(&rig, &node, second, "p1");
        assert_eq!(fault(again), Some(Fault::Conflict), "{first:?}");
        let elsewhere = publish(&rig, &node, second, "p2");
        assert_eq!(fault(elsewhere), Some(Fault::Precondition), "{first:?}");
    }
}

#[test]
fn a_volume_staged_before_the_finer_modes_were_offered_goes_on() {
    for finer in [SingleNodeMultiWriter, SingleNodeSingleWriter] {
        let rig = Rig::new();
        let node = staged(&rig, SingleNodeWriter);
        publish(&rig, &node, SingleNodeWriter, "p1").unwrap();
        let node = staged(&rig, finer);
        publish(&rig, &node, finer, "p1").unwrap();
        let second = fault(publish(&rig, &node, finer, "p2"));
        let allowed = finer == SingleNodeMultiWriter;
        assert_eq!(second.is_none(), allowed, "{finer:?}");
    }
    let rig = Rig::new();
    let node = staged(&rig, SingleNodeWriter);
    let mut reader = rig.stage_call(ext4());
    reader.capability.mode = SingleNodeReader;
    assert_eq!(fault(node.stage(&reader).outcome), Some(Fault::Conflict));
}
