//! Volumes that grow while they are staged, published, cut off, or nowhere at all.

use super::*;
use crate::fault::{Fault as Class, Faulted};

/// The size that the volume's map has, and that of its file system, if it has one.
pub(super) fn sizes(rig: &Rig, volume: &Volume) -> (Option<u64>, Option<u64>) {
    let map = rig.fake.map_size(&volume.id.wwid);
    let inside = if volume.sealed {
        let layer = rig.fake.mappings().values().copied().next();
        assert_eq!(
            layer,
            map.map(|size| size - PAYLOAD),
            "the layer fills its map"
        );
        rig.fake.filesystem_inside(volume.disk)
    } else {
        rig.fake.filesystem_on(volume.disk)
    };
    (map, inside.map(|(_, size)| size))
}

fn grown(used: &Use, size: u64) -> (Option<u64>, Option<u64>) {
    let room = if used.sealed { size - PAYLOAD } else { size };
    let inside = (used.access != AccessType::Block).then_some(room);
    (Some(size), inside)
}

#[test]
fn a_volume_grows_under_its_pods() {
    for access in all_uses() {
        let rig = Rig::new();
        let (node, volume) = (rig.node(), rig.volume(5, access.clone()));
        stage_and_publish(&volume, &node);
        for (size, asked) in [(2 * GIB, 2 * GIB), (3 * GIB, 0)] {
            rig.fake.resize_disk(volume.disk, size);
            must(volume.expand(&node, asked), "expand");
            assert_eq!(sizes(&rig, &volume), grown(&access, size), "{access:?}");
        }
        let before = node.host.counts().steps;
        must(volume.expand(&node, 3 * GIB), "expand");
        assert_eq!(node.host.counts().steps, before, "only looks");
        for pod in [0, 1] {
            let call = ExpandCall {
                volume: volume.id.clone(),
                path: volume.target(pod),
                range: SizeRange::default(),
            };
            assert_eq!(node.expand(&call).outcome.unwrap(), 3 * GIB);
        }
        leave(&volume, &node);
        rig.assert_nothing_left(&format!("{access:?}"));
    }
}

#[test]
fn a_place_where_the_volume_is_not_is_not_found() {
    let rig = Rig::new();
    let (node, volume) = (rig.node(), rig.volume(5, mounted(FileSystemKind::Ext4)));
    assert_eq!(
        volume.expand(&node, 0).unwrap_err().fault(),
        Class::NotFound
    );
    must(volume.stage(&node), "stage");
    let call = ExpandCall {
        volume: volume.id.clone(),
        path: volume.target(0),
        range: SizeRange::default(),
    };
    let elsewhere = node.expand(&call).outcome.unwrap_err();
    assert_eq!(elsewhere.fault(), Class::NotFound);
    let above = ExpandCall {
        path: volume.staging.clone(),
        range: SizeRange::new(0, 1 << 20).unwrap(),
        ..call
    };
    let above = node.expand(&above).outcome.unwrap_err();
    assert_eq!(above.fault(), Class::OutOfRange);
    leave(&volume, &node);
    rig.assert_nothing_left("not found");
}

#[test]
fn what_grew_while_it_was_nowhere_grows_at_stage() {
    for access in all_uses() {
        let rig = Rig::new();
        let (node, volume) = (rig.node(), rig.volume(5, access.clone()));
        must(volume.stage(&node), "stage");
        must(volume.unstage(&node), "unstage");
        // The export is the one from before: the orchestrator may not have published it anew.
        rig.fake.resize_disk(volume.disk, 2 * GIB);
        must(volume.stage(&node), "stage");
        assert_eq!(sizes(&rig, &volume), grown(&access, 2 * GIB), "{access:?}");
        must(volume.unstage(&node), "unstage");
        rig.assert_nothing_left(&format!("{access:?}"));
    }
}

#[test]
fn a_file_system_that_does_not_grow_is_staged_all_the_same() {
    for (kind, tool) in [
        (FileSystemKind::Ext4, "resize2fs"),
        (FileSystemKind::Xfs, "xfs_growfs"),
    ] {
        let rig = Rig::new();
        let (node, volume) = (rig.node(), rig.volume(5, mounted(kind)));
        must(volume.stage(&node), "stage");
        must(volume.unstage(&node), "unstage");
        rig.fake.resize_disk(volume.disk, 2 * GIB);
        rig.fake.fail_next(tool, Fault::Exit(1, "damaged"));
        must(volume.stage(&node), "stage");
        assert_eq!(sizes(&rig, &volume), (Some(2 * GIB), Some(GIB)));
        rig.fake.fail_next(tool, Fault::Exit(1, "damaged"));
        let told = volume.expand(&node, 2 * GIB).unwrap_err();
        assert!(chain(&told).contains("damaged"), "{}", chain(&told));
        must(volume.expand(&node, 2 * GIB), "expand");
        assert_eq!(sizes(&rig, &volume), (Some(2 * GIB), Some(2 * GIB)));
        // A tool that says that all is well and does nothing is not believed.
        rig.fake.resize_disk(volume.disk, 3 * GIB);
        rig.fake.fail_next(tool, Fault::Exit(0, ""));
        let told = volume.expand(&node, 3 * GIB).unwrap_err();
        assert_eq!(told.fault(), Class::MaybeDone, "{}", chain(&told));
        must(volume.expand(&node, 3 * GIB), "expand");
        must(volume.unstage(&node), "unstage");
        rig.assert_nothing_left(tool);
    }
}

#[test]
fn what_is_staged_for_reading_grows_without_its_file_system() {
    let rig = Rig::new();
    let (node, mut volume) = (rig.node(), rig.volume(5, mounted(FileSystemKind::Ext4)));
    must(volume.stage(&node), "stage");
    must(volume.unstage(&node), "unstage");
    volume.mode = AccessMode::SingleNodeReader;
    must(volume.stage(&node), "stage");
    rig.fake.resize_disk(volume.disk, 2 * GIB);
    must(volume.expand(&node, 2 * GIB), "expand");
    assert_eq!(sizes(&rig, &volume), (Some(2 * GIB), Some(GIB)));
    must(volume.unstage(&node), "unstage");
    rig.assert_nothing_left("read-only");
}
