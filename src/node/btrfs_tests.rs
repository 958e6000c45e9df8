//! btrfs, which shows numbers of its own in the mount table and knows file systems by their id alone.

use std::path::Path;

use super::rig::{Rig, STAGING};
use super::tests::mounted;
use crate::fault::{Fault, Faulted};
use crate::volume::FileSystemKind;

const ID_AT: u64 = (64 << 10) + 0x20;
const DIRECTORY: &str = "/sys/fs/btrfs/01020304-0506-0708-090a-0b0c0d0e0f10/devices";

/// A disk with a btrfs of a known id.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.fake.format_disk(rig.disk, "btrfs");
    let id: Vec<u8> = (1..=16).collect();
    rig.fake.write_disk(rig.disk, ID_AT, &id);
    rig
}

#[test]
fn a_clone_beside_its_mounted_source_is_refused_with_the_reason() {
    let rig = rig();
    let before = rig.fake.content(rig.disk);
    rig.fake.make_directory(&Path::new(DIRECTORY).join("dm-17"));
    let node = rig.started();
    let call = rig.stage_call(mounted(FileSystemKind::Btrfs));
    let error = node.stage(&call).outcome.unwrap_err();
    assert_eq!(error.fault(), Fault::Precondition);
    let told = error.to_string();
    assert!(told.contains("dm-17") && told.contains("clone"), "{told}");
    assert_eq!(rig.fake.content(rig.disk), before);
    rig.assert_clean();
}

#[test]
fn a_kernel_that_gives_clones_an_id_of_their_own_is_let_do_it() {
    let rig = rig();
    rig.fake.make_directory(&Path::new(DIRECTORY).join("dm-17"));
    rig.fake
        .write_file(Path::new("/sys/fs/btrfs/features/temp_fsid"), "0");
    let node = rig.started();
    let call = rig.stage_call(mounted(FileSystemKind::Btrfs));
    node.stage(&call).outcome.unwrap();
    let table = crate::mount::MountTable::read(&node.host).unwrap();
    let device = node.device(&rig.volume()).unwrap();
    let staged = table.find_top(Path::new(STAGING)).unwrap();
    assert_eq!(staged.device, device.numbers);
    node.unstage(&rig.unstage_call()).outcome.unwrap();
    rig.assert_clean();
}
