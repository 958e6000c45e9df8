//! Encrypted volumes: what is made when, what is refused, the passphrase changed, and mappings that are not what they seem.

use std::path::Path;

use nix::errno::Errno;

use super::rig::{PODS, Rig, STAGING};
use super::tests::{MIB, ext4, mounted, refused, target};
use super::{StageCall, StatsCall, Usage};
use crate::fabric::{Lun, Wwid};
use crate::fault::{Fault, chain};
use crate::host::Host;
use crate::host::fake::Fault as Mishap;
use crate::luks::Identity;
use crate::volume::{AccessMode, AccessType, FileSystemKind, Passphrase, Passphrases};

const FIRST: &str = "correct horse";
const SECOND: &str = "battery staple";
/// Header and key area of a LUKS2 device.
const PAYLOAD: u64 = 16 * MIB;

fn keys(current: &str, old: Option<&str>) -> Option<Passphrases> {
    let parse = |text: &str| Passphrase::parse(text).unwrap();
    Some(Passphrases::new(parse(current), old.map(parse)))
}

impl Rig {
    pub(super) fn sealed_call(&self, access: AccessType) -> StageCall {
        StageCall {
            encryption: keys(FIRST, None),
            ..self.stage_call(access)
        }
    }

    fn call_with(&self, current: &str, old: Option<&str>) -> StageCall {
        StageCall {
            encryption: keys(current, old),
            ..self.stage_call(ext4())
        }
    }

    fn identity(&self) -> Identity {
        Identity::of(self.wwid.as_str())
    }

    /// Staged once and left again: there is a file system inside, and data.
    fn used(&self, access: AccessType) {
        let node = self.started();
        node.stage(&self.sealed_call(access)).outcome.unwrap();
        node.unstage(&self.unstage_call()).outcome.unwrap();
        self.fake.write_disk(self.disk, PAYLOAD + 9 * MIB, b"data");
    }

    /// Another volume's map on this host.
    fn other_map(&self) -> Wwid {
        let wwid: Wwid = "36001405fffffffffffffffffffffffff".parse().unwrap();
        let disk = self.fake.add_disk(&wwid, 64 * MIB);
        self.fake.map_lun(&self.iqn, Lun(6), disk);
        let mut call = self.stage_call(AccessType::Block);
        call.volume.wwid = wwid.clone();
        call.volume.key = "other".to_owned();
        call.export = self.fake.export(disk);
        call.staging_path = Path::new(PODS).join("other");
        self.fake.make_directory(&call.staging_path);
        self.started().stage(&call).outcome.unwrap();
        wwid
    }
}

#[test]
fn an_encrypted_volume_goes_its_way_and_every_call_may_be_repeated() {
    for access in [
        ext4(),
        mounted(FileSystemKind::Xfs),
        mounted(FileSystemKind::Btrfs),
        AccessType::Block,
    ] {
        let rig = Rig::new();
        let node = rig.started();
        for round in 0..2 {
            for repeat in 0..3 {
                let staged = node.stage(&rig.sealed_call(access.clone()));
                staged.outcome.unwrap();
                assert!(repeat == 0 || staged.counts.processes == 0, "{access:?}");
            }
            let name = rig.identity().name().to_owned();
            assert_eq!(rig.fake.mappings()[&name], 64 * MIB - PAYLOAD);
            for _ in 0..2 {
                let publish = rig.publish_call(access.clone(), "p1");
                node.publish(&publish).outcome.unwrap();
            }
            let stats = node.stats(&StatsCall {
                volume: rig.volume(),
                path: target("p1"),
            });
            if access == AccessType::Block {
                let total = 64 * MIB - PAYLOAD;
                assert_eq!(stats.unwrap(), Usage::Block { total });
            } else {
                assert!(matches!(stats.unwrap(), Usage::FileSystem(_)));
                let inside = rig.fake.filesystem_inside(rig.disk).unwrap();
                assert_eq!(inside.1, 64 * MIB - PAYLOAD, "{access:?} {round}");
                assert_eq!(rig.fake.filesystem_on(rig.disk), None, "not in the clear");
            }
            node.unpublish(&rig.unpublish_call("p1")).outcome.unwrap();
            for _ in 0..2 {
                node.unstage(&rig.unstage_call()).outcome.unwrap();
            }
            rig.assert_clean();
        }
        assert!(
            !rig.fake.history().contains("horse"),
            "a passphrase was told"
        );
    }
}

#[test]
fn the_ledger_knows_no_passphrase() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
    let ledger = Path::new("/var/lib/sanpath/ledger");
    let names = node.host.list(ledger).unwrap();
    assert_eq!(names.len(), 1);
    for name in names {
        let text = node.host.read(&ledger.join(name)).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("luks2") && !text.contains("horse"), "{text}");
    }
}

#[test]
fn a_wrong_passphrase_changes_nothing_and_leaves_nothing() {
    let rig = Rig::new();
    rig.used(ext4());
    let before = rig.fake.content(rig.disk);
    for (current, old, named) in [
        (SECOND, None, "secrets.passphrase"),
        (SECOND, Some("neither"), "secrets.passphrase-old"),
    ] {
        let outcome = rig.started().stage(&rig.call_with(current, old)).outcome;
        let (fault, told) = refused(outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains(named) && !told.contains("staple"), "{told}");
        assert_eq!(rig.fake.content(rig.disk), before);
        rig.assert_clean();
    }
}

#[test]
fn encrypted_and_in_the_clear_are_never_taken_for_each_other() {
    for access in [ext4(), AccessType::Block] {
        let rig = Rig::new();
        rig.used(access.clone());
        let before = rig.fake.content(rig.disk);
        // The export is as it was when the volume was blank.
        let (fault, told) = refused(rig.started().stage(&rig.stage_call(access.clone())).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("encrypted (luks2)"), "{told}");
        assert!(told.contains("in the clear"), "{told}");
        assert_eq!(rig.fake.content(rig.disk), before);
        rig.assert_clean();
    }
    for spoil in ["ext4", "luks", "data"] {
        let rig = Rig::new();
        match spoil {
            "ext4" => rig.fake.format_disk(rig.disk, "ext4"),
            // Somebody's own LUKS, in a raw volume.
            "luks" => rig.fake.write_disk(rig.disk, 0, b"LUKS\xba\xbe\0\x02"),
            _ => rig.fake.write_disk(rig.disk, 3 * MIB, b"x"),
        }
        let before = rig.fake.content(rig.disk);
        let (fault, told) = refused(rig.started().stage(&rig.sealed_call(ext4())).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("encryption: luks2"), "{told}");
        assert_eq!(rig.fake.content(rig.disk), before, "{spoil}");
        rig.assert_clean();
    }
}

/// The staged one is refused too, and stays.
#[test]
fn a_staged_volume_keeps_its_encryption() {
    for sealed in [true, false] {
        let rig = Rig::new();
        let node = rig.started();
        let calls = [rig.sealed_call(ext4()), rig.stage_call(ext4())];
        let [first, second] = if sealed { [0, 1] } else { [1, 0] };
        node.stage(&calls[first]).outcome.unwrap();
        let (fault, told) = refused(node.stage(&calls[second]).outcome);
        assert_eq!(fault, Fault::Conflict, "{told}");
        assert!(told.contains("encryption"), "{told}");
        node.stage(&calls[first]).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_volume_that_the_san_calls_used_is_not_encrypted_however_blank_it_reads() {
    let mut rig = Rig::new();
    rig.export.blank = false;
    let (fault, told) = refused(rig.started().stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(rig.fake.content(rig.disk).is_empty());
    rig.assert_clean();
}

/// Raw first: what is inside is noise to everybody but its user. A stale publish context still calls the volume blank.
#[test]
fn what_is_inside_is_never_formatted_for_reading_as_noise() {
    for reboot in [false, true] {
        let rig = Rig::new();
        let node = rig.started();
        node.stage(&rig.sealed_call(AccessType::Block))
            .outcome
            .unwrap();
        rig.fake.write_disk(rig.disk, PAYLOAD + 9 * MIB, b"data");
        let before = rig.fake.content(rig.disk);
        if reboot {
            // Its record stays.
            rig.fake.reboot();
        } else {
            node.unstage(&rig.unstage_call()).outcome.unwrap();
        }
        let node = rig.node(&rig.fake.new_process().host());
        let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert_eq!(rig.fake.content(rig.disk), before);
        rig.assert_clean();
    }
}

#[test]
fn a_luks_format_that_was_cut_off_is_done_again() {
    for access in [ext4(), AccessType::Block] {
        let rig = Rig::new();
        rig.fake.fail_next("cryptsetup", Mishap::CrashHalfway);
        let first = rig.fake.new_process();
        let died = first.until_killed(|| {
            let node = rig.node(&first.host());
            node.stage(&rig.sealed_call(access.clone())).outcome.is_ok()
        });
        assert_eq!(died, None, "the process was killed");
        assert_eq!(rig.fake.passphrases_of(rig.disk, FIRST), (0, false));
        let node = rig.node(&rig.fake.new_process().host());
        // Another use than the one that was begun is no reason to overwrite anything.
        let (fault, told) = refused(node.stage(&rig.stage_call(access.clone())).outcome);
        assert_eq!(fault, Fault::Conflict, "{told}");
        node.stage(&rig.sealed_call(access.clone()))
            .outcome
            .unwrap();
        assert_eq!(rig.fake.passphrases_of(rig.disk, FIRST), (1, true));
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

/// Without its record nobody can tell a half-made header from a whole one that holds data.
#[test]
fn a_luks_format_that_was_cut_off_and_forgotten_is_left_alone() {
    let rig = Rig::new();
    rig.fake.fail_next("cryptsetup", Mishap::CrashHalfway);
    let first = rig.fake.new_process();
    first.until_killed(|| {
        let node = rig.node(&first.host());
        node.stage(&rig.sealed_call(ext4())).outcome.is_ok()
    });
    let node = rig.node(&rig.fake.new_process().host());
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
    let before = rig.fake.content(rig.disk);
    let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert_eq!(rig.fake.content(rig.disk), before);
    rig.assert_clean();
}

#[test]
fn a_mkfs_inside_that_was_cut_off_is_done_again() {
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
            node.stage(&rig.sealed_call(mounted(kind))).outcome.is_ok()
        });
        assert_eq!(died, None, "the process was killed");
        let node = rig.node(&rig.fake.new_process().host());
        node.stage(&rig.sealed_call(mounted(kind))).outcome.unwrap();
        let made = rig.fake.filesystem_inside(rig.disk).unwrap();
        assert_eq!(made.0, kind.as_str());
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}

/// Between header and file system the volume is useless to all but this node's record, so nothing is taken back and the outcome stays open.
#[test]
fn a_volume_without_its_file_system_is_not_given_up() {
    let rig = Rig::new();
    let node = rig.started();
    // The header is made and does not open.
    rig.fake.fail_next("flush", Mishap::Errno(Errno::EIO));
    let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone, "{told}");
    // A call with another passphrase begins again; a third one, with the first, is refused, and the volume stays where it is.
    rig.fake.fail_next("mkfs.ext4", Mishap::Exit(1, "no"));
    let (fault, told) = refused(node.stage(&rig.call_with(SECOND, None)).outcome);
    assert_eq!(fault, Fault::MaybeDone, "{told}");
    node.close_layer(&rig.volume()).unwrap();
    let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::MaybeDone, "{told}");
    assert!(told.contains("secrets.passphrase"), "{told}");
    node.stage(&rig.call_with(SECOND, None)).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_passphrase_is_changed_whatever_step_is_the_last() {
    let mut step = 0;
    loop {
        step += 1;
        let rig = Rig::new();
        rig.used(ext4());
        let inside = rig.fake.content(rig.disk).split_off(&(PAYLOAD / 4096));
        let change = |host: &Host| {
            let node = rig.node(host);
            node.stage(&rig.call_with(SECOND, Some(FIRST))).outcome
        };
        let ended = rig.fake.crash_after(step, change);
        let works = |key| rig.fake.passphrases_of(rig.disk, key).1;
        assert!(works(FIRST) || works(SECOND), "after step {step}");
        rig.fake.settle();
        let host = rig.fake.new_process().host();
        change(&host).unwrap_or_else(|error| panic!("after step {step}: {}", chain(&error)));
        rig.node(&host)
            .unstage(&rig.unstage_call())
            .outcome
            .unwrap();
        if let Some(outcome) = ended {
            outcome.unwrap();
            assert!(step > 12, "{step} steps");
            break;
        }
        // Whatever was left at the crash: one more stage ends it.
        change(&host).unwrap();
        assert_eq!(rig.fake.passphrases_of(rig.disk, SECOND), (1, true));
        let node = rig.node(&host);
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        let (fault, told) = refused(node.stage(&rig.call_with(FIRST, None)).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        let after = rig.fake.content(rig.disk).split_off(&(PAYLOAD / 4096));
        assert_eq!(after, inside, "the data is as it was");
        rig.assert_clean();
    }
}

#[test]
fn a_reader_changes_no_passphrase() {
    let rig = Rig::new();
    rig.used(ext4());
    let before = rig.fake.content(rig.disk);
    let mut call = rig.call_with(SECOND, Some(FIRST));
    call.capability.mode = AccessMode::SingleNodeReader;
    let node = rig.started();
    node.stage(&call).outcome.unwrap();
    assert_eq!(rig.fake.content(rig.disk), before);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    // For writing it needs a mapping of its own.
    node.stage(&rig.call_with(SECOND, Some(FIRST)))
        .outcome
        .unwrap();
    assert_eq!(rig.fake.passphrases_of(rig.disk, SECOND), (1, true));
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn an_old_mapping_of_the_volume_on_another_device_is_closed_unless_it_is_in_use() {
    let rig = Rig::new();
    rig.used(ext4());
    let other = rig.other_map();
    let identity = rig.identity();
    rig.fake
        .open_mapping(identity.name(), identity.uuid(), &other);
    rig.fake.hold_mapping(identity.name(), Some("a shell"));
    let node = rig.started();
    let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(told.contains("in use"), "{told}");
    assert_eq!(rig.fake.paths_of(&rig.wwid), None, "the rest is taken back");
    rig.fake.hold_mapping(identity.name(), None);
    node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
    assert_eq!(rig.fake.mappings().len(), 1);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    assert!(rig.fake.mappings().is_empty());
    assert_eq!(rig.fake.violations(), [""; 0]);
}

#[test]
fn a_mapping_of_another_header_that_bears_the_volumes_name_stays() {
    let rig = Rig::new();
    rig.used(ext4());
    let before = rig.fake.content(rig.disk);
    let other = rig.other_map();
    let identity = rig.identity();
    let foreign = "11111111-2222-3333-4444-555555555555";
    rig.fake.open_mapping(identity.name(), foreign, &other);
    let node = rig.started();
    let (fault, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(told.contains("CRYPT-LUKS2-1111"), "{told}");
    assert_eq!(rig.fake.mappings().len(), 1, "it stays");
    assert_eq!(rig.fake.content(rig.disk), before);
    assert_eq!(rig.fake.violations(), [""; 0]);
}

#[test]
fn a_mapping_that_is_in_use_is_not_pulled_away() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.sealed_call(AccessType::Block))
        .outcome
        .unwrap();
    let name = rig.identity().name().to_owned();
    rig.fake.hold_mapping(&name, Some("dd"));
    let (fault, told) = refused(node.unstage(&rig.unstage_call()).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(told.contains(&name), "{told}");
    rig.fake.hold_mapping(&name, None);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_lost_ledger_does_not_keep_an_encrypted_volume() {
    let rig = Rig::new();
    let node = rig.started();
    node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
    let ledger = Path::new("/var/lib/sanpath/ledger");
    for name in node.host.list(ledger).unwrap() {
        node.host.remove_file(&ledger.join(name)).unwrap();
    }
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
    assert!(node.host.list(Path::new(STAGING)).unwrap().is_empty());
}

#[test]
fn failures_of_cryptsetup_leave_a_volume_that_can_be_staged_later() {
    for (used, fault) in [
        (false, Mishap::Exit(4, "Device is too small.")),
        (false, Mishap::Overdue),
        (true, Mishap::Exit(3, "Not enough available memory.")),
        (true, Mishap::Overdue),
    ] {
        let rig = Rig::new();
        if used {
            rig.used(ext4());
        }
        rig.fake.fail_next("cryptsetup", fault.clone());
        let node = rig.started();
        let (class, told) = refused(node.stage(&rig.sealed_call(ext4())).outcome);
        assert_eq!(class, Fault::MaybeDone, "{told}");
        node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
        // Closing that says that it failed, or is late, and closing that did fail.
        for fault in [Mishap::Overdue, Mishap::Exit(1, "failed")] {
            rig.fake.fail_next("cryptsetup", fault);
            let _ = node.unstage(&rig.unstage_call()).outcome;
        }
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
    }
}
