//! Whole sequences on a host that behaves: what the orchestrator may do, and what may go wrong meanwhile.

use std::path::{Path, PathBuf};

use super::rig::{PODS, Rig, STAGING, writer};
use super::{NodeError, PublishCall, UnpublishCall, UnstageCall};
use crate::fabric::{Lun, Wwid};
use crate::fault::{Fault, Faulted, chain};
use crate::host::fake::{Fault as Mishap, PortalState};
use crate::host::{FileKind, Host};
use crate::mount::MountTable;
use crate::volume::{AccessType, FileSystemKind};

pub(super) const MIB: u64 = 1 << 20;

impl Rig {
    pub(super) fn publish_call(&self, access: AccessType, pod: &str) -> PublishCall {
        PublishCall {
            volume: self.volume(),
            staging_path: STAGING.into(),
            target_path: target(pod),
            capability: writer(access),
            read_only: false,
        }
    }

    pub(super) fn unpublish_call(&self, pod: &str) -> UnpublishCall {
        UnpublishCall {
            volume: self.volume(),
            target_path: target(pod),
        }
    }

    pub(super) fn unstage_call(&self) -> UnstageCall {
        UnstageCall {
            volume: self.volume(),
            staging_path: STAGING.into(),
        }
    }

    fn ext4_on_disk(&self) {
        self.fake.format_disk(self.disk, "ext4");
    }

    /// Nothing of the volume is left, and nothing was done that no careful driver does.
    pub(super) fn assert_clean(&self) {
        let left = self.fake.leftovers().of_volumes();
        let left = crate::host::fake::Leftovers {
            wwids: Vec::new(),
            files: left
                .files
                .iter()
                .filter(|file| !file.starts_with("/var/lib/sanpath/sessions"))
                .cloned()
                .collect(),
            ..left
        };
        assert!(left.is_empty(), "{left:#?}");
        assert_eq!(self.fake.violations(), Vec::<String>::new());
    }
}

pub(super) fn ext4() -> AccessType {
    mounted(FileSystemKind::Ext4)
}

pub(super) fn mounted(kind: FileSystemKind) -> AccessType {
    AccessType::Mount {
        kind,
        flags: Vec::new(),
    }
}

pub(super) fn target(pod: &str) -> PathBuf {
    Path::new(PODS).join(pod)
}

pub(super) fn refused(outcome: Result<(), NodeError>) -> (Fault, String) {
    let error = outcome.unwrap_err();
    (error.fault(), chain(&error))
}

fn mounts_at(host: &Host, path: &Path) -> usize {
    MountTable::read(host).unwrap().at(path).count()
}

#[test]
fn a_volume_goes_its_way_and_every_call_may_be_repeated() {
    for access in [
        ext4(),
        mounted(FileSystemKind::Xfs),
        mounted(FileSystemKind::Btrfs),
        AccessType::Block,
    ] {
        let rig = Rig::new();
        let node = rig.started();
        let stage = rig.stage_call(access.clone());
        let publish = rig.publish_call(access.clone(), "p1");
        for round in 0..3 {
            let staged = node.stage(&stage);
            staged.outcome.unwrap();
            if round > 0 {
                assert_eq!(staged.counts.processes, 0, "{access:?}");
            }
        }
        assert_eq!(rig.fake.paths_of(&rig.wwid), Some(2));
        for _ in 0..3 {
            let published = node.publish(&publish);
            published.outcome.unwrap();
            assert_eq!(published.counts.processes, 0);
            assert_eq!(mounts_at(&node.host, &target("p1")), 1);
        }
        node.publish(&rig.publish_call(access, "p2"))
            .outcome
            .unwrap();
        for pod in ["p1", "p2", "p1"] {
            node.unpublish(&rig.unpublish_call(pod)).outcome.unwrap();
            assert_eq!(node.host.find_stat(&target(pod)).unwrap(), None);
        }
        for _ in 0..2 {
            node.unstage(&rig.unstage_call()).outcome.unwrap();
        }
        rig.assert_clean();
    }
}

#[test]
fn a_block_volume_is_a_device_at_the_target_and_leaves_the_staging_directory_alone() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(AccessType::Block))
        .outcome
        .unwrap();
    assert!(node.host.list(Path::new(STAGING)).unwrap().is_empty());
    node.publish(&rig.publish_call(AccessType::Block, "p1"))
        .outcome
        .unwrap();
    let stat = node.host.find_stat(&target("p1")).unwrap().unwrap();
    assert_eq!(stat.kind, FileKind::BlockDevice);
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("pods/p1"), "{told}");
    node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    assert!(rig.fake.content(rig.disk).is_empty(), "nothing was written");
    rig.assert_clean();
}

#[test]
fn a_file_system_with_data_is_kept() {
    let rig = Rig::new();
    rig.ext4_on_disk();
    rig.fake.write_disk(rig.disk, 8 * MIB, b"letters");
    let before = rig.fake.content(rig.disk);
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    assert_eq!(rig.fake.content(rig.disk), before);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn what_is_not_blank_and_not_asked_for_is_refused_untouched() {
    type Spoil = (&'static str, fn(&Rig));
    let spoils: [Spoil; 6] = [
        ("xfs", |rig| rig.fake.format_disk(rig.disk, "xfs")),
        ("gpt partition table", |rig| {
            rig.fake.write_disk(rig.disk, 512, b"EFI PART")
        }),
        ("unknown", |rig| {
            rig.fake.write_disk(rig.disk, 3 * MIB, b"x")
        }),
        ("unknown", |rig| {
            rig.fake.write_disk(rig.disk, 64 * MIB - 1, b"x")
        }),
        ("several", |rig| {
            rig.fake.format_disk(rig.disk, "xfs");
            rig.fake.write_disk(rig.disk, 512, b"LABELONE");
        }),
        ("cannot be read", |rig| {
            rig.fake.spoil_disk(rig.disk, MIB..MIB + 512)
        }),
    ];
    for (named, spoil) in spoils {
        let rig = Rig::new();
        spoil(&rig);
        let before = rig.fake.content(rig.disk);
        let (fault, told) = refused(rig.started().stage(&rig.stage_call(ext4())).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains(named), "{told}");
        assert_eq!(rig.fake.content(rig.disk), before, "{named}");
        rig.assert_clean();
    }
}

#[test]
fn a_lone_copy_of_a_superblock_is_somebodys_data() {
    // The first backups of ext4 with blocks of 1 and 2 KiB, and the second quarter of an xfs.
    for offset in [8193 << 10, 32 * MIB, 16 * MIB] {
        let rig = Rig::new();
        rig.fake.write_disk(rig.disk, offset + 56, b"S");
        let before = rig.fake.content(rig.disk);
        let (fault, told) = refused(rig.started().stage(&rig.stage_call(ext4())).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert_eq!(rig.fake.content(rig.disk), before);
        rig.assert_clean();
    }
}

#[test]
fn a_frozen_file_system_is_thawed_before_it_leaves() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    rig.fake.freeze(Path::new(STAGING));
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_volume_that_the_san_calls_used_is_not_formatted_however_blank_it_reads() {
    let mut rig = Rig::new();
    rig.export.blank = false;
    let (fault, told) = refused(rig.started().stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    rig.assert_clean();
}

#[test]
fn a_mkfs_that_was_cut_off_is_done_again() {
    for kind in [
        FileSystemKind::Ext4,
        FileSystemKind::Xfs,
        FileSystemKind::Btrfs,
    ] {
        let rig = Rig::new();
        let program = format!("mkfs.{}", kind.as_str());
        rig.fake.fail_next(&program, Mishap::CrashHalfway);
        let first = rig.fake.new_process();
        let died = first.until_killed(|| {
            let node = rig.node(&first.host());
            node.stage(&rig.stage_call(mounted(kind))).outcome.is_ok()
        });
        assert_eq!(died, None, "the process was killed");
        assert!(
            !rig.fake.content(rig.disk).is_empty(),
            "mkfs left something"
        );
        let node = rig.node(&rig.fake.new_process().host());
        node.stage(&rig.stage_call(mounted(kind))).outcome.unwrap();
        let made = rig.fake.filesystem_on(rig.disk).unwrap();
        assert_eq!(made.0, kind.as_str());
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_mkfs_that_fails_leaves_the_outcome_open_and_is_repeated() {
    let rig = Rig::new();
    rig.fake
        .fail_next("mkfs.ext4", Mishap::Exit(1, "no space for a journal"));
    let node = rig.started();
    let (fault, told) = refused(node.stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone);
    assert!(told.contains("journal"), "{told}");
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_damaged_file_system_is_not_mounted_and_leaves_nothing() {
    let rig = Rig::new();
    rig.ext4_on_disk();
    rig.fake
        .fail_next("e2fsck", Mishap::Exit(4, "UNEXPECTED INCONSISTENCY"));
    let (fault, told) = refused(rig.started().stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("INCONSISTENCY"), "{told}");
    rig.assert_clean();
}

#[test]
fn a_tool_that_gives_no_answer_never_means_blank() {
    let rig = Rig::new();
    rig.fake.fail_next("blkid", Mishap::Overdue);
    let node = rig.started();
    let (fault, _) = refused(node.stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone);
    assert!(rig.fake.content(rig.disk).is_empty());
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
}

#[test]
fn one_dead_portal_does_not_hinder_and_two_leave_nothing() {
    let rig = Rig::new();
    rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    assert_eq!(rig.fake.paths_of(&rig.wwid), Some(1));
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();

    let rig = Rig::new();
    for portal in &rig.portals {
        rig.fake.set_portal(*portal, PortalState::Refusing);
    }
    let (fault, told) = refused(rig.started().stage(&rig.stage_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone, "{told}");
    rig.assert_clean();
}

#[test]
fn another_use_of_a_staged_volume_is_a_conflict_and_changes_nothing() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    let other_kind = rig.stage_call(mounted(FileSystemKind::Xfs));
    let mut other_path = rig.stage_call(ext4());
    other_path.staging_path = target("elsewhere");
    for call in [other_kind, rig.stage_call(AccessType::Block), other_path] {
        let (fault, told) = refused(node.stage(&call).outcome);
        assert_eq!(fault, Fault::Conflict, "{told}");
    }
    assert_eq!(mounts_at(&node.host, Path::new(STAGING)), 1);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn publishing_needs_a_staged_volume() {
    let rig = Rig::new();
    let node = rig.started();
    let publish = rig.publish_call(ext4(), "p1");
    let early = || refused(node.publish(&publish).outcome);
    assert_eq!(early().0, Fault::Precondition);
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    let as_block = node.publish(&rig.publish_call(AccessType::Block, "p1"));
    assert_eq!(refused(as_block.outcome).0, Fault::Precondition);
    // Somebody unmounts it: an empty directory of the host is not shown to the pod.
    node.host.unmount(Path::new(STAGING)).unwrap();
    assert_eq!(early().0, Fault::Precondition);
    assert_eq!(node.host.find_stat(&target("p1")).unwrap(), None);
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    node.publish(&publish).outcome.unwrap();
}

#[test]
fn the_same_target_with_other_arguments_is_a_conflict() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    let writing = rig.publish_call(ext4(), "p1");
    let reading = PublishCall {
        read_only: true,
        ..writing.clone()
    };
    let top_is_read_only = || {
        let table = MountTable::read(&node.host).unwrap();
        table.find_top(&target("p1")).unwrap().is_read_only()
    };
    for (first, second, read_only) in [(&writing, &reading, false), (&reading, &writing, true)] {
        node.publish(first).outcome.unwrap();
        let (fault, told) = refused(node.publish(second).outcome);
        assert_eq!(fault, Fault::Conflict, "{told}");
        assert_eq!(top_is_read_only(), read_only);
        node.publish(first).outcome.unwrap();
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
    }
}

#[test]
fn what_is_not_ours_at_a_target_stays() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    rig.fake.write_file(&target("full").join("letter"), "dear");
    rig.fake.write_file(&target("file"), "text");
    node.host
        .symlink(Path::new("/etc"), &target("link"))
        .unwrap();
    for pod in ["full", "file", "link"] {
        let (fault, told) = refused(node.publish(&rig.publish_call(ext4(), pod)).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
    }
    for pod in ["file", "link"] {
        let (fault, told) = refused(node.unpublish(&rig.unpublish_call(pod)).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
    }
    assert_eq!(
        node.host.read(&target("full").join("letter")).unwrap(),
        b"dear"
    );
}

#[test]
fn after_a_reboot_a_volume_is_staged_anew_or_forgotten() {
    for again in [true, false] {
        let rig = Rig::new();
        let node = rig.started();
        node.stage(&rig.stage_call(ext4())).outcome.unwrap();
        node.publish(&rig.publish_call(ext4(), "p1"))
            .outcome
            .unwrap();
        rig.fake.reboot();
        let node = rig.node(&rig.fake.new_process().host());
        if again {
            // The kubelet may have changed its mind about the path meanwhile.
            let mut call = rig.stage_call(ext4());
            call.staging_path = target("other");
            rig.fake.make_directory(&call.staging_path);
            node.stage(&call).outcome.unwrap();
            let mut unstage = rig.unstage_call();
            unstage.staging_path = call.staging_path;
            node.unstage(&unstage).outcome.unwrap();
        }
        node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_volume_never_seen_is_gone_already() {
    let rig = Rig::new();
    let node = rig.started();
    node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_lost_ledger_does_not_keep_a_volume() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    for name in node
        .host
        .list(Path::new("/var/lib/sanpath/ledger"))
        .unwrap()
    {
        let path = Path::new("/var/lib/sanpath/ledger").join(name);
        node.host.remove_file(&path).unwrap();
    }
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn an_unstage_that_is_busy_says_so_and_succeeds_later() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    rig.fake
        .hold_path(&Path::new(STAGING).join("file"), Some("a shell"));
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    rig.fake.hold_path(&Path::new(STAGING).join("file"), None);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

/// The whole life of a volume in one process that dies after each single step; the next one repeats it from the start.
#[test]
fn a_crash_after_any_step_is_made_good_by_repeating() {
    for access in [ext4(), AccessType::Block] {
        let mut step = 0;
        loop {
            step += 1;
            let rig = Rig::new();
            let life = |host: &Host| {
                let node = rig.node(host);
                node.stage(&rig.stage_call(access.clone())).outcome?;
                node.publish(&rig.publish_call(access.clone(), "p1"))
                    .outcome?;
                node.unpublish(&rig.unpublish_call("p1")).outcome?;
                node.unstage(&rig.unstage_call()).outcome
            };
            let ended = rig.fake.crash_after(step, life);
            if let Some(outcome) = ended {
                outcome.unwrap();
                rig.assert_clean();
                break;
            }
            rig.fake.settle();
            let second = rig.fake.new_process().host();
            life(&second).unwrap_or_else(|error| panic!("after step {step}: {}", chain(&error)));
            rig.assert_clean();
        }
        assert!(step > 10, "{step} steps");
        println!("{step} steps");
    }
}

/// Only unpublish and unstage follow: the pod was deleted while the node was down.
#[test]
fn a_crash_after_any_step_can_be_undone() {
    let mut step = 0;
    loop {
        step += 1;
        let rig = Rig::new();
        rig.ext4_on_disk();
        let begin = |host: &Host| {
            let node = rig.node(host);
            node.stage(&rig.stage_call(ext4())).outcome?;
            let mut publish = rig.publish_call(ext4(), "p1");
            publish.read_only = true;
            node.publish(&publish).outcome
        };
        let ended = rig.fake.crash_after(step, begin);
        rig.fake.settle();
        let node = rig.node(&rig.fake.new_process().host());
        let told = |error: NodeError| panic!("after step {step}: {}", chain(&error));
        node.unpublish(&rig.unpublish_call("p1"))
            .outcome
            .unwrap_or_else(told);
        node.unstage(&rig.unstage_call())
            .outcome
            .unwrap_or_else(told);
        rig.assert_clean();
        if let Some(outcome) = ended {
            outcome.unwrap();
            break;
        }
    }
}

#[test]
fn a_lun_that_is_another_volume_is_never_written() {
    let rig = Rig::new();
    let stranger: Wwid = "36001405fffffffffffffffffffffffff".parse().unwrap();
    let other = rig.fake.add_disk(&stranger, 64 * MIB);
    rig.fake.map_lun(&rig.iqn, Lun(5), other);
    let outcome = rig.started().stage(&rig.stage_call(ext4())).outcome;
    let (fault, told) = refused(outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(rig.fake.content(other).is_empty());
    assert_eq!(rig.fake.violations(), Vec::<String>::new());
    let node = rig.started();
    assert!(
        node.engine
            .find_record(&rig.volume().to_string())
            .unwrap()
            .is_none()
    );
}
