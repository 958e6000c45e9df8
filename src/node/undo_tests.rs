//! What a stage proves right before it writes, and what it takes back when it fails for good.

use super::device::Device;
use super::rig::Rig;
use super::stage::prove_still;
use super::tests::{MIB, ext4, refused};
use crate::fault::Fault;
use crate::host::fake::Fault as Mishap;

#[test]
fn the_number_that_was_looked_at_must_still_be_the_volume() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    let device = node.device(&rig.volume()).unwrap();
    prove_still(&node, &rig.volume(), &device).unwrap();
    let renumbered = Device {
        path: "/dev/dm-77".into(),
        ..device
    };
    let (fault, told) = refused(prove_still(&node, &rig.volume(), &renumbered));
    assert_eq!(fault, Fault::MaybeDone);
    assert!(told.contains("/dev/dm-77"), "{told}");
}

#[test]
fn a_failure_for_good_ends_what_an_earlier_call_began() {
    let rig = Rig::new();
    let node = rig.started();
    rig.fake.fail_next("blkid", Mishap::Overdue);
    let (fault, _) = refused(node.stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone, "the map stays for the next call");
    assert_eq!(rig.fake.paths_of(&rig.wwid), Some(2));
    let mut other_size = rig.stage_call(ext4());
    other_size.export.size += MIB;
    let (fault, told) = refused(node.stage(&other_size).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    rig.assert_clean();
}

#[test]
fn a_mkfs_that_was_cut_off_is_not_forgotten_by_a_failure_for_good() {
    let rig = Rig::new();
    let node = rig.started();
    rig.fake
        .fail_next("mkfs.ext4", Mishap::Exit(1, "no space for a journal"));
    node.stage(&rig.stage_call(ext4())).outcome.unwrap_err();
    let mut other_size = rig.stage_call(ext4());
    other_size.export.size += MIB;
    let (fault, told) = refused(node.stage(&other_size).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}
