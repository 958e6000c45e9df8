//! Giving space back on a host that behaves: what is trimmed and what is left alone.

use super::Trimmed;
use super::rig::Rig;
use super::tests::{ext4, refused};
use crate::fault::Fault;
use crate::host::fake::{Broken, Fault as Mishap, PortalState};
use crate::volume::AccessType;

#[test]
fn a_file_system_that_is_well_is_trimmed_and_others_wait() {
    let rig = Rig::new();
    let node = rig.started();
    let trimmed = || node.trim(&rig.volume()).outcome.unwrap();
    assert_eq!(trimmed(), Trimmed::Skipped("not staged"));
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    assert_eq!(node.staged_volumes().unwrap(), [rig.volume()]);
    assert_eq!(trimmed(), Trimmed::Bytes(Some(4096)));

    rig.fake.set_portal(rig.portals[0], PortalState::Refusing);
    rig.fake.settle();
    assert_eq!(trimmed(), Trimmed::Skipped("paths are missing"));
    rig.fake.set_portal(rig.portals[0], PortalState::Up);
    rig.fake.settle();

    rig.fake.fail_next(
        "fstrim",
        Mishap::Exit(1, "the discard operation is not supported"),
    );
    let (fault, told) = refused(node.trim(&rig.volume()).outcome.map(drop));
    assert_eq!(fault, Fault::MaybeDone);
    assert!(told.contains("not supported"), "{told}");
    rig.fake.break_file_system(&rig.wwid, Broken::ReadOnly);
    assert!(matches!(trimmed(), Trimmed::Skipped(_)));
    let (_, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert!(told.contains("tells of writes that failed"), "{told}");
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_raw_volume_is_its_users_own() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(AccessType::Block))
        .outcome
        .unwrap();
    assert_eq!(node.staged_volumes().unwrap(), []);
    let outcome = node.trim(&rig.volume()).outcome.unwrap();
    assert_eq!(outcome, Trimmed::Skipped("raw"));
    node.unstage(&rig.unstage_call()).outcome.unwrap();
}
