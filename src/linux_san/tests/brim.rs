//! A pool at its brim: who may still write, who is told, and that it ends.

use super::lvm::{on_lvm, write};
use super::snapshots::cut;
use super::*;
use crate::fault::{Fault, Faulted};

/// Whether the kernel refuses the node's writes.
fn is_protected(san: &SanBox, node: &str) -> bool {
    let tree = san.lio.tree();
    let entry = format!("/acls/{}/", initiator(node));
    let mut lines = tree
        .iter()
        .filter(|line| line.contains(&entry) && line.contains("/write_protect = "));
    let line = lines.next().unwrap();
    assert!(lines.next().is_none(), "one LUN for each node here");
    line.ends_with("= 1")
}

fn set_available(san: &SanBox, available: Option<u64>) {
    *san.lio.available.lock().unwrap() = available;
}

fn write_whole(san: &SanBox, volume: &VolumeView) {
    let size = usize::try_from(volume.size).unwrap();
    write_over(&san.image(volume), &vec![7; size]);
}

#[test]
fn only_writes_that_need_new_blocks_are_refused_and_only_while_the_pool_is_full() {
    let san = SanBox::new();
    let engine = san.start();
    let make = |name: &str| engine.create_volume(&wanted(name)).unwrap();
    let [thin, whole, read, late] = ["thin", "whole", "read", "late"].map(make);
    write_whole(&san, &whole);
    let reader = ExportRequest {
        read_only: true,
        ..give(&read, "n3")
    };
    engine.ensure_export(&give(&thin, "n1")).unwrap();
    engine.ensure_export(&give(&whole, "n2")).unwrap();
    engine.ensure_export(&reader).unwrap();
    let protected = || ["n1", "n2", "n3"].map(|node| is_protected(&san, node));
    engine.guard_brim();
    assert_eq!(protected(), [false, false, true], "there is room");

    let capacity = engine.capacity().unwrap();
    let brim = (capacity.total / 50).min(64 << 30) / 4;
    set_available(&san, Some(brim - 1));
    engine.guard_brim();
    assert_eq!(protected(), [true, false, true]);
    let checked = engine.check_one(&thin.key).unwrap().volumes;
    assert!(checked[0].troubles.iter().any(|it| it.reason == "PoolFull"));
    assert_eq!(engine.standing().refused, 1);
    let again = engine.ensure_export(&give(&thin, "n1"));
    assert!(
        again.is_ok() && is_protected(&san, "n1"),
        "it has it already"
    );
    let refused = engine.ensure_export(&give(&late, "n4")).unwrap_err();
    assert_eq!(refused.fault(), Fault::Exhausted, "{refused}");
    engine
        .ensure_export(&ExportRequest {
            read_only: true,
            ..give(&late, "n4")
        })
        .unwrap();

    set_available(&san, Some(brim + 1));
    engine.guard_brim();
    assert_eq!(
        protected(),
        [true, false, true],
        "hardly any more than before"
    );
    set_available(&san, Some(2 * brim));
    engine.guard_brim();
    assert_eq!(protected(), [false, false, true]);
    assert_eq!(engine.standing().refused, 0);
}

/// A volume without blocks, which a node has, and then no room is left.
fn fill_under_a_thin_volume(san: &SanBox, engine: &Arc<Engine>) -> VolumeView {
    let thin = engine.create_volume(&wanted("thin")).unwrap();
    engine.ensure_export(&give(&thin, "n1")).unwrap();
    set_available(san, Some(0));
    engine.guard_brim();
    thin
}

#[test]
fn a_start_finds_the_pool_full_or_has_room_again() {
    let san = SanBox::new();
    let engine = san.start();
    fill_under_a_thin_volume(&san, &engine);
    drop(engine);
    let engine = san.start();
    engine.guard_brim();
    assert!(is_protected(&san, "n1"));
    drop(engine);
    set_available(&san, None);
    let engine = san.start();
    assert!(!is_protected(&san, "n1"));
    drop(engine);
}

#[test]
fn what_is_written_to_its_end_meanwhile_or_taken_away_is_no_trouble() {
    let san = SanBox::new();
    let engine = san.start();
    let thin = fill_under_a_thin_volume(&san, &engine);
    take(&engine, &thin, "n1").unwrap();
    engine.delete_volume(&thin.key, &thin.wwid).unwrap();
    engine.guard_brim();
    set_available(&san, None);
    engine.guard_brim();
    let thin = engine.create_volume(&wanted("thin")).unwrap();
    engine.ensure_export(&give(&thin, "n1")).unwrap();
    assert!(!is_protected(&san, "n1"));
}

#[test]
fn on_lvm_a_volume_that_may_share_blocks_counts_as_one_that_needs_room() {
    let san = SanBox::with(on_lvm);
    let engine = san.start();
    let make = |name: &str| engine.create_volume(&wanted(name)).unwrap();
    let [alone, cut_of, thin] = ["alone", "cut-of", "thin"].map(make);
    for (volume, node) in [(&alone, "n1"), (&cut_of, "n2"), (&thin, "n3")] {
        engine.ensure_export(&give(volume, node)).unwrap();
    }
    for volume in [&alone, &cut_of] {
        (0..64).for_each(|number| write(&san, volume, number));
    }
    engine.create_snapshots(&[cut(&cut_of, "cut")]).unwrap();
    san.lio.lvm.lock().unwrap().data_percent = "100.00";
    engine.guard_brim();
    let protected = ["n1", "n2", "n3"].map(|node| is_protected(&san, node));
    assert_eq!(protected, [false, true, true]);
}
