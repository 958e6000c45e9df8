//! What of a simulated EqualLogic group is on the data path, before a kernel serves it in the lab.

use crate::simulators::equallogic::{ADDRESS, Group, NAME};

const NODE: &str = "iqn.2026-11.dev.sanpath:node";

/// Of a target as it was recorded of a real group.
#[test]
fn a_disk_is_named_by_its_target() {
    let target = "iqn.2001-05.com.equallogic:0-8a0906-ba580060c-fcc002c3743528a8-data";
    let mut group = Group::new(NAME, ADDRESS);
    group.run("volume create data 1G");
    group.volumes.get_mut("data").unwrap().target = target.to_owned();
    let disk = &group.objects()[0];
    assert_eq!(disk.wwid, "36090a0c8600058baa8283574c302c0fc");
    assert_eq!(disk.target.as_deref(), Some(target));
}

/// Records let in whom they name, to what is online; a clone begins with the bytes of what it is made of.
#[test]
fn a_group_tells_what_is_on_the_data_path() {
    let mut group = Group::new(NAME, ADDRESS);
    let lets_in = |volume: &str| format!("volume select {volume} access create initiator {NODE}");
    for command in [
        "volume create data 1G thin-provision",
        &lets_in("data"),
        "volume select data access create ipaddress 10.0.0.9",
        "volume select data snapshot create-now",
        "volume select data clone offline",
        &lets_in("offline"),
        "volume select offline offline",
    ] {
        let said = group.run(command);
        assert!(!said.contains("Error"), "{command}: {said}");
    }
    let objects = group.objects();
    let [data, cut, copy] = &objects[..] else {
        panic!("{objects:?}");
    };
    assert_eq!(data.copy_of, None);
    for made in [cut, copy] {
        assert_eq!(made.copy_of.as_ref(), Some(&data.id));
        assert!(made.shown_to.is_empty() && made.target != data.target);
    }
    assert_eq!(data.shown_to, [(NODE.to_owned(), 0)].into());
    let knows =
        |of: &crate::simulators::backing::Object| group.knows(of.target.as_deref().unwrap());
    assert!(knows(data) && !knows(copy) && !knows(cut));
    for disk in &mut group.volumes.values_mut() {
        for cut in disk.snapshots.values_mut() {
            cut.is_online = true;
        }
    }
    // A snapshot that is online is a target like any other, for whoever has the volume.
    assert!(group.knows(cut.target.as_deref().unwrap()));
    assert_eq!(group.objects()[1].shown_to, data.shown_to);
}
