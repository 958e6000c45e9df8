//! What the calls of a volume's life cost in processes.

use super::rig::{Rig, SIZE, STAGING};
use super::tests::ext4;
use super::{Counted, ExpandCall};
use crate::volume::{AccessType, SizeRange};

/// The budget for targets whose sessions stay: at most 3 processes for each portal and 1 for a fresh stage, 1 for a warm one, 1 for an unstage, and
/// beside those mkfs, e2fsck and resize2fs.
#[test]
fn every_call_keeps_to_its_processes() {
    let (portals, blkid, mkfs, fsck, resize, unclaim) = (2 * 3, 1, 1, 1, 1, 1);
    for (access, fresh, warm, expand) in [
        (ext4(), portals + blkid + mkfs, blkid + fsck, resize),
        (AccessType::Block, portals, 0, 0),
    ] {
        let rig = Rig::new();
        let node = rig.started();
        let mut spent = Vec::new();
        for _ in 0..2 {
            spent.push(processes(node.stage(&rig.stage_call(access.clone()))));
            spent.push(processes(node.stage(&rig.stage_call(access.clone()))));
            let publish = rig.publish_call(access.clone(), "p1");
            spent.push(processes(node.publish(&publish)));
            rig.fake.grow_disk(rig.disk, SIZE);
            let expand = ExpandCall {
                volume: rig.volume(),
                path: STAGING.into(),
                range: SizeRange::default(),
            };
            spent.push(processes(node.expand(&expand)));
            spent.push(processes(node.unpublish(&rig.unpublish_call("p1"))));
            spent.push(processes(node.unstage(&rig.unstage_call())));
        }
        println!("{access:?}: {spent:?}");
        let life = |stage| [stage, 0, 0, expand, 0, unclaim];
        assert_eq!(spent, [life(fresh), life(warm)].concat(), "{access:?}");
    }
}

fn processes<T>(done: Counted<T>) -> u64 {
    done.outcome.unwrap();
    done.counts.processes
}
