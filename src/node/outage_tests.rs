//! Outages on a host that behaves: leaving without paths, giving up, unmounts that hang, and mounting anew.

use std::path::Path;
use std::time::Duration;

use super::rig::{Rig, STAGING};
use super::tests::{ext4, mounted, refused, target};
use super::{Condition, Node, Recovered, Stage};
use crate::attach::Unwritten;
use crate::fault::Fault;
use crate::host::fake::{Broken, PortalState};
use crate::volume::{AccessType, FileSystemKind};

const LIMIT: Duration = Duration::from_secs(5);

impl Rig {
    fn all_portals(&self, state: PortalState) {
        for portal in &self.portals {
            self.fake.set_portal(*portal, state);
        }
        self.fake.settle();
    }

    fn staged(&self, access: AccessType) -> Node {
        let node = self.started();
        node.stage(&self.stage_call(access)).outcome.unwrap();
        node
    }

    fn unstaged(&self, node: &Node) {
        node.unstage(&self.unstage_call()).outcome.unwrap();
        self.assert_clean();
    }

    /// By multipathd's word.
    fn active_paths(&self) -> usize {
        let shown = self
            .fake
            .host()
            .tell_multipathd("show paths raw format %t", LIMIT);
        shown.unwrap().matches("active").count()
    }

    fn condition(&self, node: &Node) -> Condition {
        let healths = node.healths().unwrap();
        assert_eq!(healths.len(), 1);
        healths[0].condition.clone()
    }
}

#[test]
fn a_clean_volume_leaves_a_map_that_queues_for_ever() {
    for access in [ext4(), mounted(FileSystemKind::Xfs), AccessType::Block] {
        let rig = Rig::new();
        rig.fake.set_no_path_retry(None);
        let node = rig.staged(access);
        rig.all_portals(PortalState::BlackHoled);
        let before = node.host.now();
        rig.unstaged(&node);
        let took = node.host.now().since(before);
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}

#[test]
fn unwritten_data_is_given_up_by_an_operators_word_alone() {
    for retry in [None, Some(Duration::from_secs(10))] {
        let rig = Rig::new();
        rig.fake.set_no_path_retry(retry);
        let node = rig.staged(ext4());
        node.publish(&rig.publish_call(ext4(), "p1"))
            .outcome
            .unwrap();
        rig.fake.dirty_map(&rig.wwid);
        rig.all_portals(PortalState::BlackHoled);
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
        let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("about 524288 bytes are unwritten"), "{told}");
        assert!(told.contains("sanpath node release"), "{told}");
        let asked = node.release(&rig.volume(), false).outcome.unwrap_err();
        assert!(asked.to_string().contains("--accept-data-loss"), "{asked}");
        assert_eq!(rig.fake.violations(), [""; 0], "nothing is lost so far");

        let given_up = node.release(&rig.volume(), true).outcome.unwrap();
        assert_eq!(given_up.unwritten, Unwritten::About(512 << 10));
        assert_eq!(given_up.places, [Path::new(STAGING)]);
        assert_eq!(
            rig.fake.violations().len(),
            1,
            "{:?}",
            rig.fake.violations()
        );
        let left = rig.fake.leftovers();
        assert!(
            left.maps.is_empty() && left.disks.is_empty() && left.mounts.is_empty(),
            "{left:#?}"
        );
        assert_eq!(node.healths().unwrap(), []);

        rig.all_portals(PortalState::Up);
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        node.stage(&rig.stage_call(ext4())).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        let left = rig.fake.leftovers().of_volumes();
        assert!(
            left.maps.is_empty() && left.disks.is_empty() && left.mounts.is_empty(),
            "{left:#?}"
        );
    }
}

#[test]
fn nothing_is_given_up_while_a_path_lives() {
    let rig = Rig::new();
    let node = rig.staged(ext4());
    rig.fake.set_portal(rig.portals[0], PortalState::BlackHoled);
    rig.fake.settle();
    let (fault, told) = refused(node.release(&rig.volume(), true).outcome.map(drop));
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("1 of its 2 paths work"), "{told}");
    let health = node.healths().unwrap().remove(0);
    assert_eq!(
        (health.stage, health.condition),
        (Stage::Staged, Condition::Good)
    );
    assert!(health.to_do.unwrap().contains("1 of 2 paths work"));
    rig.unstaged(&node);
    let (fault, _) = refused(node.release(&rig.volume(), true).outcome.map(drop));
    assert_eq!(fault, Fault::NotFound);
}

/// multipathd sees at its next look that a path is back; until then its word is that of the outage.
#[test]
fn a_path_that_is_back_counts_before_multipathd_has_looked_at_it() {
    back_before_the_next_look("");
    back_before_the_next_look("defaults {\n\tpolling_interval 40\n}\n");
}

fn back_before_the_next_look(multipath_words: &str) {
    let outage_ends = |rig: &Rig| {
        rig.all_portals(PortalState::BlackHoled);
        rig.fake.set_portal(rig.portals[0], PortalState::Up);
        rig.fake.sleep(Duration::from_secs(4));
        assert_eq!(rig.active_paths(), 0, "multipathd has seen it already");
    };
    let rig = Rig::new();
    rig.fake.set_multipath_words(multipath_words);
    let node = rig.staged(ext4());
    rig.fake.dirty_map(&rig.wwid);
    outage_ends(&rig);
    let (fault, told) = refused(node.release(&rig.volume(), true).outcome.map(drop));
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("1 of its 2 paths work"), "{told}");
    outage_ends(&rig);
    rig.unstaged(&node);
    assert_eq!(rig.fake.violations(), [""; 0], "all was written");

    let node = rig.staged(ext4());
    rig.fake.break_file_system(&rig.wwid, Broken::ReadOnly);
    outage_ends(&rig);
    node.recover(&rig.volume()).outcome.unwrap();
    rig.unstaged(&node);
}

/// Its disks answer, and multipathd, who reads from them, still calls them failed: what is unwritten is not for an unmount to lose, and an operator
/// is not held up for ever.
#[test]
fn disks_that_answer_and_are_never_taken_hold_up_no_operator() {
    let rig = Rig::new();
    let node = rig.staged(ext4());
    rig.fake.dirty_map(&rig.wwid);
    for disk in ["sda", "sdb"] {
        let words = format!("fail path {disk}");
        let told = rig.fake.host().tell_multipathd(&words, LIMIT);
        assert_eq!(told.unwrap(), "ok\n");
    }
    let before = node.host.now();
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(told.contains("about 524288 bytes are unwritten"), "{told}");
    let took = node.host.now().since(before);
    assert!(took < Duration::from_secs(30), "{took:?}");
    node.release(&rig.volume(), true).outcome.unwrap();
}

#[test]
fn a_crash_after_every_step_of_giving_up_is_made_good_by_a_repetition() {
    for step in 1.. {
        let rig = Rig::new();
        let node = rig.staged(ext4());
        rig.fake.dirty_map(&rig.wwid);
        rig.all_portals(PortalState::BlackHoled);
        drop(node);
        let ended = rig.fake.crash_after(step, |host| {
            rig.node(host).release(&rig.volume(), true).outcome.is_ok()
        });
        if let Some(ok) = ended {
            assert!(ok && step > 5, "{step}");
            break;
        }
        // The orchestrator does not know of the operator; both may come next.
        let node = rig.started();
        if step % 2 == 0 || node.unstage(&rig.unstage_call()).outcome.is_err() {
            let again = node.release(&rig.volume(), true).outcome;
            assert!(
                again.is_ok() || node.healths().unwrap().is_empty(),
                "step {step}: {again:?}"
            );
        }
        let left = rig.fake.leftovers().of_volumes();
        assert!(
            left.maps.is_empty() && left.mounts.is_empty() && left.disks.is_empty(),
            "step {step}: {left:#?}"
        );
    }
}

#[test]
fn an_unmount_that_hangs_holds_up_no_call_and_the_next_ones_join_it() {
    let rig = Rig::new();
    rig.fake.set_no_path_retry(None);
    let node = rig.staged(ext4());
    // Nobody tells that the paths are dead.
    rig.fake.stop_multipathd();
    rig.fake.dirty_map(&rig.wwid);
    rig.all_portals(PortalState::BlackHoled);
    for _ in 0..2 {
        let before = node.host.now();
        let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
        assert_eq!(fault, Fault::Timeout, "{told}");
        let took = node.host.now().since(before);
        assert!(took < Duration::from_secs(100), "{took:?}");
    }
    let key = rig.volume().to_string();
    let next = node
        .unmounts
        .join(&key, || panic!("a second thread"), || {});
    assert!(next.unwrap().joined, "the first unmount still hangs");
    let (fault, told) = refused(node.stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::Busy, "{told}");
    rig.fake.start_multipathd();
    rig.all_portals(PortalState::Up);
    rig.unstaged(&node);
}

/// The paths die unseen, I/O waits for its time and fails then, and the kernel throws away what it has not written.
#[test]
fn writes_that_are_lost_at_the_last_unmount_are_told_once() {
    for access in [ext4(), mounted(FileSystemKind::Xfs)] {
        for wait in [Duration::from_secs(10), Duration::from_secs(120)] {
            let rig = Rig::new();
            rig.fake.set_no_path_retry(Some(wait));
            let node = rig.staged(access.clone());
            rig.fake.dirty_map(&rig.wwid);
            rig.fake.stop_multipathd();
            rig.all_portals(PortalState::BlackHoled);
            let mut told = refused(node.unstage(&rig.unstage_call()).outcome);
            if told.0 == Fault::Timeout {
                // It is found when nobody waits for it any more.
                rig.fake.sleep(wait);
                told = refused(node.unstage(&rig.unstage_call()).outcome);
            }
            assert_eq!(told.0, Fault::MaybeDone, "{told:?}");
            assert!(told.1.contains("tells of writes that failed"), "{told:?}");
            assert_eq!(rig.fake.leftovers().mounts.len(), 1, "it stays mounted");
            rig.fake.start_multipathd();
            rig.all_portals(PortalState::Up);
            rig.unstaged(&node);
            assert_eq!(rig.fake.violations(), [""; 0], "lost without a word");
        }
    }
}

/// Used again after it was told, the volume has new writes to lose.
#[test]
fn a_volume_that_is_staged_again_after_a_loss_tells_the_next_one() {
    let rig = Rig::new();
    let node = rig.staged(ext4());
    for _ in 0..2 {
        rig.fake.break_file_system(&rig.wwid, Broken::ReadOnly);
        let (_, told) = refused(node.unstage(&rig.unstage_call()).outcome);
        assert!(told.contains("tells of writes that failed"), "{told}");
        node.recover(&rig.volume()).outcome.unwrap();
        node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    }
    rig.unstaged(&node);
}

#[test]
fn who_keeps_a_place_busy_is_named() {
    let rig = Rig::new();
    let node = rig.staged(ext4());
    let file = Path::new(STAGING).join("data");
    rig.fake.hold_path(&file, Some("postgres"));
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("(postgres) has"), "{told}");
    rig.fake.hold_path(&file, None);
    rig.unstaged(&node);
}

#[test]
fn a_file_system_that_died_is_mounted_anew_at_all_its_places() {
    for kind in [FileSystemKind::Ext4, FileSystemKind::Xfs] {
        for broken in [Broken::ReadOnly, Broken::ShutDown, Broken::Unsaid] {
            let rig = Rig::new();
            let node = rig.staged(mounted(kind));
            for (pod, read_only) in [("p1", false), ("p2", true)] {
                let mut call = rig.publish_call(mounted(kind), pod);
                call.read_only = read_only;
                node.publish(&call).outcome.unwrap();
            }
            assert_eq!(
                node.recover(&rig.volume()).outcome.unwrap(),
                Recovered::Already
            );
            rig.fake.break_file_system(&rig.wwid, broken);
            assert!(rig.condition(&node).is_sick());
            let to_do = node.healths().unwrap().remove(0).to_do.unwrap();
            assert!(to_do.contains("sanpath node recover"), "{to_do}");

            let file = target("p1").join("wal");
            rig.fake.hold_path(&file, Some("postgres"));
            let (fault, told) = refused(node.recover(&rig.volume()).outcome.map(drop));
            assert_eq!(fault, Fault::Precondition);
            assert!(told.contains("(postgres)"), "{told}");
            rig.fake.hold_path(&file, None);

            let Recovered::MountedAt(places) = node.recover(&rig.volume()).outcome.unwrap() else {
                panic!("it was sick")
            };
            assert_eq!(places.len(), 3);
            assert_eq!(rig.condition(&node), Condition::Good);
            // The same calls find what they expect.
            node.publish(&rig.publish_call(mounted(kind), "p1"))
                .outcome
                .unwrap();
            let (fault, _) = refused(node.publish(&rig.publish_call(mounted(kind), "p2")).outcome);
            assert_eq!(fault, Fault::Conflict, "p2 is read-only still");
            for pod in ["p1", "p2"] {
                node.unpublish(&rig.unpublish_call(pod)).outcome.unwrap();
            }
            rig.unstaged(&node);
        }
    }
}

#[test]
fn nothing_is_mounted_anew_without_a_path() {
    let rig = Rig::new();
    let node = rig.staged(ext4());
    rig.fake.break_file_system(&rig.wwid, Broken::ReadOnly);
    rig.all_portals(PortalState::BlackHoled);
    let (fault, told) = refused(node.recover(&rig.volume()).outcome.map(drop));
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("no path works"), "{told}");
    rig.all_portals(PortalState::Up);
    node.recover(&rig.volume()).outcome.unwrap();
    rig.unstaged(&node);
}

#[test]
fn a_crash_after_every_step_of_mounting_anew_is_made_good_by_a_repetition() {
    for step in 1.. {
        let rig = Rig::new();
        let node = rig.staged(ext4());
        node.publish(&rig.publish_call(ext4(), "p1"))
            .outcome
            .unwrap();
        drop(node);
        rig.fake.break_file_system(&rig.wwid, Broken::ReadOnly);
        let ended = rig.fake.crash_after(step, |host| {
            rig.node(host).recover(&rig.volume()).outcome.is_ok()
        });
        if let Some(ok) = ended {
            assert!(ok && step > 4, "{step}");
            break;
        }
        let node = rig.started();
        node.recover(&rig.volume())
            .outcome
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        let health = node.healths().unwrap().remove(0);
        assert_eq!(health.condition, Condition::Good, "step {step}");
        assert_eq!(health.places.len(), 2, "step {step}");
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
        rig.unstaged(&node);
    }
}

/// The kernel counts for the encrypted layer what it holds back, and not for the map.
#[test]
fn an_encrypted_volume_without_a_path_leaves_by_an_operators_word_alone() {
    for (retry, access) in [
        (None, ext4()),
        (Some(Duration::from_secs(10)), ext4()),
        (None, AccessType::Block),
    ] {
        let rig = Rig::new();
        rig.fake.set_no_path_retry(retry);
        let node = rig.started();
        let call = rig.sealed_call(access.clone());
        node.stage(&call).outcome.unwrap();
        rig.all_portals(PortalState::BlackHoled);
        let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("is not known"), "{told}");
        assert_eq!(rig.fake.mappings().len(), 1, "the layer stays");
        let asked = node.release(&rig.volume(), false).outcome.unwrap_err();
        assert!(asked.to_string().contains("--accept-data-loss"), "{asked}");

        let given_up = node.release(&rig.volume(), true).outcome.unwrap();
        assert_eq!(given_up.unwritten, Unwritten::Unknown);
        assert_eq!(
            given_up.places.len(),
            usize::from(access != AccessType::Block)
        );
        rig.assert_clean();

        rig.all_portals(PortalState::Up);
        node.stage(&call).outcome.unwrap();
        rig.unstaged(&node);
    }
}

#[test]
fn the_dirty_pages_of_an_encrypted_volume_go_with_it_when_it_is_given_up() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.sealed_call(AccessType::Block))
        .outcome
        .unwrap();
    rig.fake.dirty_map(&rig.wwid);
    rig.all_portals(PortalState::BlackHoled);
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(rig.fake.violations().is_empty());
    node.release(&rig.volume(), true).outcome.unwrap();
    assert_eq!(rig.fake.mappings().len(), 0);
    let left = rig.fake.leftovers();
    assert!(left.maps.is_empty() && left.disks.is_empty(), "{left:#?}");
}

#[test]
fn an_encrypted_volume_with_a_path_leaves_as_ever() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
    rig.fake.dirty_map(&rig.wwid);
    rig.fake.set_portal(rig.portals[0], PortalState::BlackHoled);
    rig.fake.settle();
    let (fault, told) = refused(node.release(&rig.volume(), true).outcome.map(drop));
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert_eq!(rig.fake.mappings().len(), 1);
    rig.unstaged(&node);
}

#[test]
fn a_crash_after_every_step_of_giving_up_an_encrypted_volume_is_made_good_by_a_repetition() {
    for step in 1.. {
        let rig = Rig::new();
        let node = rig.started();
        node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
        rig.all_portals(PortalState::BlackHoled);
        drop(node);
        let ended = rig.fake.crash_after(step, |host| {
            rig.node(host).release(&rig.volume(), true).outcome.is_ok()
        });
        if let Some(ok) = ended {
            assert!(ok && step > 6, "{step}");
            break;
        }
        let node = rig.started();
        if step % 2 == 0 || node.unstage(&rig.unstage_call()).outcome.is_err() {
            let again = node.release(&rig.volume(), true).outcome;
            assert!(
                again.is_ok() || node.healths().unwrap().is_empty(),
                "step {step}: {again:?}"
            );
        }
        rig.assert_clean();
    }
}

#[test]
fn an_encrypted_file_system_that_died_is_mounted_anew_by_its_next_stage_alone() {
    for broken in [Broken::ReadOnly, Broken::ShutDown] {
        let rig = Rig::new();
        let node = rig.started();
        let call = rig.sealed_call(ext4());
        node.stage(&call).outcome.unwrap();
        let health = node.healths().unwrap().remove(0);
        assert_eq!(health.condition, Condition::Good);
        assert_eq!(health.places, [Path::new(STAGING)]);
        assert_eq!(health.to_do, None);
        rig.fake.break_layer(&rig.wwid, broken);
        let health = node.healths().unwrap().remove(0);
        assert!(health.condition.is_sick(), "{:?}", health.condition);
        let to_do = health.to_do.unwrap();
        assert!(to_do.contains("delete its pods"), "{to_do}");
        let (fault, told) = refused(node.recover(&rig.volume()).outcome.map(drop));
        assert_eq!(fault, Fault::Precondition);
        assert!(told.contains("it is encrypted"), "{told}");
        assert_eq!(rig.condition(&node), health.condition, "nothing was done");
        let (_, told) = refused(node.unstage(&rig.unstage_call()).outcome);
        assert!(told.contains("tells of writes that failed"), "{told}");
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        node.stage(&call).outcome.unwrap();
        assert_eq!(rig.condition(&node), Condition::Good);
        rig.unstaged(&node);
    }
}
