//! Copies of encrypted volumes: their LUKS header bears the identity of the volume that was encrypted once.

use std::path::{Path, PathBuf};

use super::StageCall;
use super::rig::{PODS, Rig, STAGING};
use super::tests::{MIB, ext4, mounted, refused};
use crate::fabric::{Lun, Wwid};
use crate::fault::{Fault, chain};
use crate::host::fake::DiskId;
use crate::luks::Identity;
use crate::volume::{AccessType, FileSystemKind, Passphrase, Passphrases};

const COPY: &str = "36001405aaaaaaaaaaaaaaaaaaaaaaaaa";
/// Header and key area of a LUKS2 device.
const PAYLOAD: u64 = 16 * MIB;
const LARGER: u64 = 96 * MIB;

/// A copy of the rig's volume on the SAN.
struct Copied {
    disk: DiskId,
    call: StageCall,
}

fn passphrases(current: &str, old: Option<&str>) -> Option<Passphrases> {
    let parse = |text: &str| Passphrase::parse(text).unwrap();
    Some(Passphrases::new(parse(current), old.map(parse)))
}

impl Rig {
    /// Cuts and restores the volume as it is; staged as CreateVolume's answer says.
    fn copied(&self, access: AccessType) -> Copied {
        let wwid: Wwid = COPY.parse().unwrap();
        let disk = self.fake.copy_disk(self.disk, &wwid, LARGER);
        self.fake.map_lun(&self.iqn, Lun(6), disk);
        let mut call = self.sealed_call(access);
        call.volume.wwid = wwid;
        call.volume.key = "copy".to_owned();
        call.export = self.fake.export(disk);
        call.staging_path = Path::new(PODS).join("copy");
        call.header = Some(self.wwid.clone());
        self.fake.make_directory(&call.staging_path);
        Copied { disk, call }
    }

    /// The volume was staged, holds something and is staged still.
    fn with_data(&self, access: AccessType) {
        let node = self.started();
        node.stage(&self.sealed_call(access)).outcome.unwrap();
        self.fake.write_disk(self.disk, PAYLOAD + 9 * MIB, b"data");
    }
}

fn unstage(copied: &Copied) -> super::UnstageCall {
    super::UnstageCall {
        volume: copied.call.volume.clone(),
        staging_path: copied.call.staging_path.clone(),
    }
}

#[test]
fn a_copy_is_staged_beside_its_source_and_fills_its_larger_device() {
    for access in [ext4(), mounted(FileSystemKind::Xfs), AccessType::Block] {
        let rig = Rig::new();
        rig.with_data(access.clone());
        let copied = rig.copied(access.clone());
        let before = rig.fake.content(copied.disk);
        let node = rig.started();
        for repeat in 0..3 {
            let staged = node.stage(&copied.call);
            staged.outcome.unwrap();
            assert!(repeat == 0 || staged.counts.processes == 0, "{access:?}");
        }
        let mappings = rig.fake.mappings();
        assert_eq!(mappings[&format!("sanpath-{COPY}")], LARGER - PAYLOAD);
        assert_eq!(mappings.len(), 2, "{access:?}");
        if access == AccessType::Block {
            assert_eq!(rig.fake.content(copied.disk), before);
        } else {
            let inside = rig.fake.filesystem_inside(copied.disk).unwrap();
            assert_eq!(inside.1, LARGER - PAYLOAD, "{access:?}");
        }
        // Each goes by itself, and the other one stays.
        node.unstage(&unstage(&copied)).outcome.unwrap();
        assert_eq!(rig.fake.mappings().len(), 1);
        node.stage(&copied.call).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        assert_eq!(rig.fake.mappings().len(), 1);
        node.unstage(&unstage(&copied)).outcome.unwrap();
        rig.assert_clean();
    }
}

/// The header must be exactly the one that the controller names: not the volume's own, and not that of a third volume.
#[test]
fn no_other_header_is_opened() {
    let third: Wwid = "36001405bbbbbbbbbbbbbbbbbbbbbbbbb".parse().unwrap();
    for header in [None, Some(third)] {
        for access in [ext4(), AccessType::Block] {
            let rig = Rig::new();
            rig.with_data(access.clone());
            let mut copied = rig.copied(access);
            copied.call.header.clone_from(&header);
            let before = rig.fake.content(copied.disk);
            let (fault, told) = refused(rig.started().stage(&copied.call).outcome);
            assert_eq!(fault, Fault::Precondition, "{told}");
            assert!(told.contains("its header is not"), "{told}");
            assert_eq!(rig.fake.content(copied.disk), before);
            let node = rig.started();
            node.unstage(&rig.unstage_call()).outcome.unwrap();
            rig.assert_clean();
        }
    }
    // The source's own header is not taken for that of another one either.
    let rig = Rig::new();
    rig.with_data(ext4());
    rig.started().unstage(&rig.unstage_call()).outcome.unwrap();
    let mut call = rig.sealed_call(ext4());
    call.header = Some(COPY.parse().unwrap());
    let (fault, told) = refused(rig.started().stage(&call).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    rig.assert_clean();
}

#[test]
fn a_copy_is_not_shown_in_the_clear() {
    for access in [ext4(), AccessType::Block] {
        let rig = Rig::new();
        rig.with_data(access.clone());
        rig.started().unstage(&rig.unstage_call()).outcome.unwrap();
        let mut copied = rig.copied(access);
        let before = rig.fake.content(copied.disk);
        (copied.call.encryption, copied.call.header) = (None, None);
        let (fault, told) = refused(rig.started().stage(&copied.call).outcome);
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("asked for in the clear"), "{told}");
        assert_eq!(rig.fake.content(copied.disk), before);
        rig.assert_clean();
    }
}

/// It has the passphrase that its source had when it was cut, and from there on its own.
#[test]
fn the_passphrase_of_a_copy_is_that_of_its_source_and_may_be_changed_alone() {
    let rig = Rig::new();
    rig.with_data(ext4());
    let node = rig.started();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    let mut copied = rig.copied(ext4());
    let before = rig.fake.content(copied.disk);
    copied.call.encryption = passphrases("of another Secret", None);
    let (fault, told) = refused(node.stage(&copied.call).outcome);
    assert_eq!(fault, Fault::Precondition, "{told}");
    assert!(told.contains("secrets.passphrase"), "{told}");
    assert_eq!(rig.fake.content(copied.disk), before);
    copied.call.encryption = passphrases("of another Secret", Some("correct horse"));
    node.stage(&copied.call).outcome.unwrap();
    let works = |disk, key| rig.fake.passphrases_of(disk, key);
    assert_eq!(works(copied.disk, "of another Secret"), (1, true));
    assert_eq!(works(rig.disk, "correct horse"), (1, true));
    node.unstage(&unstage(&copied)).outcome.unwrap();
    node.stage(&rig.sealed_call(ext4())).outcome.unwrap();
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}

/// A copy of a volume that was never used is as blank as that. Its new header bears the identity that the controller noted, so a copy of the copy fits as well.
#[test]
fn a_blank_copy_gets_the_header_that_its_own_copies_will_bear() {
    let rig = Rig::new();
    let copied = rig.copied(ext4());
    assert!(copied.call.export.blank);
    let node = rig.started();
    node.stage(&copied.call).outcome.unwrap();
    let start = &rig.fake.content(copied.disk)[&0];
    let uuid = String::from_utf8_lossy(&start[168..204]).into_owned();
    assert_eq!(uuid, Identity::of(rig.wwid.as_str()).uuid());
    node.unstage(&unstage(&copied)).outcome.unwrap();
    rig.assert_clean();
}

#[test]
fn a_lost_ledger_does_not_keep_an_encrypted_copy() {
    for access in [ext4(), mounted(FileSystemKind::Xfs)] {
        let rig = Rig::new();
        rig.with_data(access.clone());
        let copied = rig.copied(access);
        let node = rig.started();
        node.stage(&copied.call).outcome.unwrap();
        let ledger = PathBuf::from("/var/lib/sanpath/ledger");
        for name in node.host.list(&ledger).unwrap() {
            node.host.remove_file(&ledger.join(name)).unwrap();
        }
        node.unstage(&unstage(&copied)).outcome.unwrap();
        assert_eq!(rig.fake.mappings().len(), 1);
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        assert!(node.host.list(Path::new(STAGING)).unwrap().is_empty());
        rig.assert_clean();
    }
}

/// Cut off after any step, a second stage comes to the same end.
#[test]
fn a_copys_stage_that_was_cut_off_is_done_again() {
    let mut step = 0;
    loop {
        step += 1;
        let rig = Rig::new();
        rig.with_data(ext4());
        let copied = rig.copied(ext4());
        let stage = |host: &crate::host::Host| rig.node(host).stage(&copied.call).outcome;
        let ended = rig.fake.crash_after(step, stage);
        rig.fake.settle();
        let host = rig.fake.new_process().host();
        stage(&host).unwrap_or_else(|error| panic!("after step {step}: {}", chain(&error)));
        assert_eq!(rig.fake.mappings().len(), 2);
        let node = rig.node(&host);
        node.unstage(&unstage(&copied)).outcome.unwrap();
        node.unstage(&rig.unstage_call()).outcome.unwrap();
        rig.assert_clean();
        if ended.is_some() {
            assert!(step > 5, "{step} steps");
            break;
        }
    }
}
