//! Statistics on a host that behaves: in use, out of reach, gone.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::rig::{Rig, SIZE, STAGING};
use super::tests::{ext4, mounted, target};
use super::{Node, NodeError, StatsCall, Usage};
use crate::fault::{Fault, Faulted, chain};
use crate::host::fake::{Fault as Mishap, PortalState};
use crate::volume::{AccessType, FileSystemKind};

impl Rig {
    fn stats(&self, node: &Node, path: &Path) -> Result<Usage, NodeError> {
        node.stats(&StatsCall {
            volume: self.volume(),
            path: path.to_owned(),
        })
    }
}

fn refused(outcome: Result<Usage, NodeError>) -> (Fault, String) {
    let error = outcome.unwrap_err();
    (error.fault(), chain(&error))
}

#[test]
fn a_file_system_tells_its_bytes_and_files_wherever_it_is_seen() {
    for kind in [
        FileSystemKind::Ext4,
        FileSystemKind::Xfs,
        FileSystemKind::Btrfs,
    ] {
        let rig = Rig::new();
        let node = rig.started();
        node.stage(&rig.stage_call(mounted(kind))).outcome.unwrap();
        node.publish(&rig.publish_call(mounted(kind), "p1"))
            .outcome
            .unwrap();
        for path in [Path::new(STAGING), &target("p1")] {
            let Usage::FileSystem(space) = rig.stats(&node, path).unwrap() else {
                panic!("it is a file system")
            };
            assert_eq!(space.total, SIZE);
            assert_eq!(space.inodes > 0, kind != FileSystemKind::Btrfs);
        }
        let (fault, told) = refused(rig.stats(&node, &target("p2")));
        assert_eq!(fault, Fault::NotFound, "{told}");
        assert_eq!(refused(rig.stats(&node, Path::new("/"))).0, Fault::NotFound);
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        let gone = refused(rig.stats(&node, Path::new(STAGING)));
        assert_eq!(gone.0, Fault::NotFound);
        rig.assert_clean();
    }
}

#[test]
fn a_raw_volume_tells_its_size_at_both_paths() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(AccessType::Block))
        .outcome
        .unwrap();
    node.publish(&rig.publish_call(AccessType::Block, "p1"))
        .outcome
        .unwrap();
    for path in [Path::new(STAGING), &target("p1")] {
        let usage = rig.stats(&node, path).unwrap();
        assert_eq!(usage, Usage::Block { total: SIZE });
    }
    assert_eq!(refused(rig.stats(&node, &target("p2"))).0, Fault::NotFound);
}

#[test]
fn a_look_that_hangs_holds_up_no_call_and_the_next_ones_join_it() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    rig.fake.set_no_path_retry(None);
    for portal in &rig.portals {
        rig.fake.set_portal(*portal, PortalState::BlackHoled);
    }
    rig.fake.settle();
    for _ in 0..3 {
        let before = node.host.now();
        let (fault, told) = refused(rig.stats(&node, Path::new(STAGING)));
        assert_eq!(fault, Fault::Timeout, "{told}");
        let took = node.host.now().since(before);
        assert!(took < Duration::from_secs(11), "{took:?}");
    }
    let key = rig.volume().to_string();
    let next = node
        .readings
        .join(&key, || panic!("a second thread"), || {});
    assert!(next.unwrap().joined, "the first look still hangs");
    for portal in &rig.portals {
        rig.fake.set_portal(*portal, PortalState::Up);
    }
    rig.fake.settle();
    rig.stats(&node, Path::new(STAGING)).unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_file_system_that_shut_down_is_reported_with_what_to_do() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    rig.fake.fail_next("statfs", Mishap::Errno(Errno::EIO));
    let (fault, told) = refused(rig.stats(&node, Path::new(STAGING)));
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("sanpath node recover"), "{told}");
    rig.fake.fail_next("statfs", Mishap::Errno(Errno::ENOMEM));
    let (fault, _) = refused(rig.stats(&node, Path::new(STAGING)));
    assert_eq!(fault, Fault::MaybeDone);
    rig.stats(&node, Path::new(STAGING)).unwrap();
}
