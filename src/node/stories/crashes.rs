//! The plugin dies after every single step of every call, for every use of a volume; the next one makes it good, and nothing is left.

use super::expansion::sizes;
use super::*;
use crate::host::fake::sweep;

/// How a volume is used, and by whom.
#[derive(Clone, Debug)]
struct How {
    used: Use,
    mode: AccessMode,
    /// The SAN takes no writes.
    read_only: bool,
}

fn all_ways() -> Vec<How> {
    let of = |used: Use, mode, read_only| How {
        used,
        mode,
        read_only,
    };
    let (writer, reader) = (AccessMode::SingleNodeWriter, AccessMode::SingleNodeReader);
    let [ext4, xfs] = [FileSystemKind::Ext4, FileSystemKind::Xfs].map(mounted);
    let mut ways: Vec<How> = all_uses()
        .into_iter()
        .map(|used| of(used, writer, false))
        .collect();
    ways.extend([
        of(mounted(FileSystemKind::Btrfs).into(), writer, false),
        of(ext4.clone().into(), reader, false),
        of(xfs.into(), reader, true),
        of(AccessType::Block.into(), reader, false),
        of(sealed(ext4), reader, false),
    ]);
    ways
}

impl How {
    fn reads_only(&self) -> bool {
        self.read_only || self.mode == AccessMode::SingleNodeReader
    }

    /// A volume for this use. What is only read was written before.
    fn volume(&self, rig: &Rig) -> Volume {
        let mut volume = rig.volume(5, self.used.clone());
        if self.reads_only() {
            let node = rig.node();
            must(volume.stage(&node), "the first stage");
            must(volume.unstage(&node), "the first unstage");
        }
        volume.mode = self.mode;
        volume.export.read_only = self.read_only;
        volume
    }

    /// The sizes of map and file system after the volume has grown to `size`.
    fn grown(&self, size: u64) -> (Option<u64>, Option<u64>) {
        let size_now = if self.reads_only() { GIB } else { size };
        let room = size_now - if self.used.sealed { PAYLOAD } else { 0 };
        let inside = (self.used.access != AccessType::Block).then_some(room);
        (Some(size), inside)
    }
}

/// Cuts `act` off after every single step of the sweep; after each, `finish` on a new process must end well and leave nothing. The number of the last step.
fn crash_everywhere(
    how: &How,
    prepare: impl Fn(&Rig, &Volume),
    act: impl Fn(&Volume, &Node),
    finish: impl Fn(&Rig, &Volume, &str),
) -> u64 {
    for step in sweep::steps() {
        let rig = Rig::new();
        let volume = how.volume(&rig);
        prepare(&rig, &volume);
        let ended = rig
            .fake
            .crash_after(step, |host| act(&volume, &node_on(host.clone())));
        let when = format!("{how:?}, cut after step {step}");
        finish(&rig, &volume, &when);
        rig.assert_nothing_left(&when);
        if ended.is_some() {
            return step - 1;
        }
    }
    unreachable!("every sequence ends")
}

fn nothing(_: &Rig, _: &Volume) {}

fn brought_up(rig: &Rig, volume: &Volume) {
    stage_and_publish(volume, &rig.node());
}

fn grows(rig: &Rig, volume: &Volume) {
    rig.fake.resize_disk(volume.disk, 2 * GIB);
}

fn expand(volume: &Volume, node: &Node) {
    must(volume.expand(node, 2 * GIB), "expand");
}

fn leaves(rig: &Rig, volume: &Volume, _: &str) {
    leave(volume, &rig.node());
}

#[test]
fn a_crash_after_every_step_of_stage_and_publish_is_made_good_by_a_retry() {
    for how in all_ways() {
        let crashes = crash_everywhere(&how, nothing, stage_and_publish, |rig, volume, _| {
            let node = rig.node();
            stage_and_publish(volume, &node);
            leave(volume, &node);
        });
        let least = if how.reads_only() { 9 } else { 16 };
        assert!(crashes >= least, "{how:?}: {crashes}");
    }
}

#[test]
fn a_crash_after_every_step_of_stage_and_publish_is_undone_by_leaving() {
    for how in all_ways() {
        crash_everywhere(&how, nothing, stage_and_publish, leaves);
    }
}

#[test]
fn a_crash_after_every_step_of_leaving_is_made_good_by_a_retry() {
    for how in all_ways() {
        let crashes = crash_everywhere(&how, brought_up, leave, leaves);
        assert!(crashes >= 9, "{how:?}: {crashes}");
    }
}

#[test]
fn a_crash_after_every_step_of_leaving_lets_the_volume_come_back() {
    for how in all_ways() {
        crash_everywhere(&how, brought_up, leave, |rig, volume, _| {
            let node = rig.node();
            volume.live(&node);
            leave(volume, &node);
        });
    }
}

#[test]
fn a_crash_after_every_step_of_an_expansion_is_made_good_by_a_retry() {
    let prepare = |rig: &Rig, volume: &Volume| {
        brought_up(rig, volume);
        grows(rig, volume);
    };
    for how in all_ways() {
        let crashes = crash_everywhere(&how, prepare, expand, |rig, volume, when| {
            let node = rig.node();
            // Whatever has been reached is a volume that can be used.
            stage_and_publish(volume, &node);
            expand(volume, &node);
            assert_eq!(sizes(rig, volume), how.grown(2 * GIB), "{when}");
            leave(volume, &node);
        });
        assert!(crashes >= 4, "{how:?}: {crashes}");
    }
}

#[test]
fn a_crash_after_every_step_of_an_expansion_lets_the_volume_leave() {
    let prepare = |rig: &Rig, volume: &Volume| {
        brought_up(rig, volume);
        grows(rig, volume);
    };
    for how in all_ways() {
        crash_everywhere(&how, prepare, expand, leaves);
    }
}

#[test]
fn a_crash_after_every_step_of_a_stage_that_lets_it_grow_is_made_good_by_a_retry() {
    let prepare = |rig: &Rig, volume: &Volume| {
        let node = rig.node();
        must(volume.stage(&node), "stage");
        must(volume.unstage(&node), "unstage");
        grows(rig, volume);
    };
    for how in all_ways() {
        crash_everywhere(&how, prepare, stage_and_publish, |rig, volume, when| {
            let node = rig.node();
            stage_and_publish(volume, &node);
            assert_eq!(sizes(rig, volume), how.grown(2 * GIB), "{when}");
            leave(volume, &node);
        });
    }
}
