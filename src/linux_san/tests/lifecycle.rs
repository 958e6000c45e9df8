//! Volumes from their making to their deletion, when nothing goes wrong but the callers.

use super::*;
use crate::fabric::Lun;
use crate::fault::{Fault, Faulted};

#[test]
fn a_volume_is_made_once_and_deleted_once() {
    let san = SanBox::new();
    let engine = san.start();
    let made = engine.create_volume(&wanted("pvc-1")).unwrap();
    assert_eq!(engine.create_volume(&wanted("pvc-1")).unwrap(), made);
    assert_eq!(std::fs::metadata(san.image(&made)).unwrap().len(), 4 * MIB);
    let mut larger = wanted("pvc-1");
    larger.size = 8 * MIB;
    let taken = engine.create_volume(&larger).unwrap_err();
    assert_eq!(taken.fault(), Fault::Conflict);
    let mut other = wanted("pvc-1");
    other.metadata.clear();
    assert_eq!(
        engine.create_volume(&other).unwrap_err().fault(),
        Fault::Conflict
    );

    let foreign = "360014050123456789abcdef012345678".parse().unwrap();
    engine.delete_volume(&made.key, &foreign).unwrap();
    assert_eq!(engine.find_volume(&made.key).unwrap().as_ref(), Some(&made));
    engine.delete_volume(&made.key, &made.wwid).unwrap();
    engine.delete_volume(&made.key, &made.wwid).unwrap();
    assert_eq!(engine.find_volume_named("pvc-1").unwrap(), None);
    assert!(san.pool_files().is_empty());
    let again = engine.create_volume(&wanted("pvc-1")).unwrap();
    assert_ne!(
        again.key, made.key,
        "a name may come back, an identity never"
    );
    assert_ne!(again.wwid, made.wwid);
}

#[test]
fn sizes_and_names_have_bounds() {
    let san = SanBox::new();
    let engine = san.start();
    let capacity = engine.capacity().unwrap();
    let with = |name: &str, size: u64| NewVolume {
        name: name.to_owned(),
        size,
        metadata: BTreeMap::new(),
        source: None,
    };
    for size in [0, 1, MIB + 1, capacity.maximum_volume + MIB, u64::MAX] {
        let refused = engine.create_volume(&with("a", size)).unwrap_err();
        assert_eq!(refused.fault(), Fault::OutOfRange, "{size}");
        assert!(crate::fault::chain(&refused).contains("size_bytes"));
    }
    for name in ["", "a\nb", &"x".repeat(577)] {
        let refused = engine.create_volume(&with(name, MIB)).unwrap_err();
        assert_eq!(refused.fault(), Fault::Invalid, "{name:?}");
    }
    *san.lio.available.lock().unwrap() = Some(MIB - 1);
    let full = engine.create_volume(&with("a", MIB)).unwrap_err();
    assert_eq!(full.fault(), Fault::Exhausted);
    *san.lio.available.lock().unwrap() = None;
    engine
        .create_volume(&with("a", capacity.maximum_volume))
        .unwrap();
    let promised = engine.capacity().unwrap().promised;
    assert_eq!(promised, capacity.maximum_volume);
}

#[test]
fn volumes_are_listed_in_pages() {
    let san = SanBox::new();
    let engine = san.start();
    for n in 0..5 {
        engine.create_volume(&wanted(&format!("pvc-{n}"))).unwrap();
    }
    let all = engine.list_volumes(None, None).unwrap();
    assert_eq!((all.volumes.len(), all.more), (5, false));
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = engine.list_volumes(after.as_ref(), Some(2)).unwrap();
        seen.extend(page.volumes);
        if !page.more {
            break;
        }
        after = seen.last().map(|volume| volume.key.clone());
    }
    assert_eq!(seen, all.volumes);
}

#[test]
fn an_export_is_built_once_and_as_the_kernel_needs_it() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert!(export.blank);
    assert_eq!((&export.wwid, export.size), (&volume.wwid, volume.size));
    let portals: Vec<_> = export.offers.iter().map(|o| o.portal.to_string()).collect();
    assert_eq!(portals, ["10.101.1.1:3260", "[fd00::1]:3261"]);
    assert!(export.offers.iter().all(|offer| offer.lun == Lun(1)));

    let tree = san.lio.tree();
    let target = format!("iscsi/{}", export.offers[0].iqn);
    let group = format!("{target}/tpgt_1");
    let entry = format!("{group}/acls/{}", initiator("n1"));
    for line in [
        format!("{group}/attrib/authentication = 0"),
        format!("{group}/attrib/generate_node_acls = 0"),
        format!("{group}/enable = 1"),
        format!("{group}/np/10.101.1.1:3260/"),
        format!("{group}/np/[fd00::1]:3261/"),
        format!("{entry}/lun_1/volume -> {group}/lun/lun_1"),
        format!("{entry}/lun_1/write_protect = 0"),
    ] {
        assert!(tree.contains(&line), "{line} is not in {tree:#?}");
    }
    let ends = |end: &str| tree.iter().any(|line| line.ends_with(end));
    assert!(ends("/attrib/emulate_tpu = 1"));
    assert!(ends("Size: 4194304  Mode: O_DSYNC Async: 0"));

    // What the node writes later changes nothing of what it was told.
    write_over(&san.image(&volume), b"a file system");
    let steps = san.host.counts().steps;
    assert_eq!(engine.ensure_export(&give(&volume, "n1")).unwrap(), export);
    assert_eq!(san.host.counts().steps, steps, "nothing to do");
    let mut read_only = give(&volume, "n1");
    read_only.read_only = true;
    let refused = engine.ensure_export(&read_only).unwrap_err();
    assert_eq!(refused.fault(), Fault::Conflict);
}

#[test]
fn an_export_is_taken_away_without_a_trace() {
    let san = SanBox::new();
    let engine = san.start();
    let first = engine.create_volume(&wanted("pvc-1")).unwrap();
    let second = engine.create_volume(&wanted("pvc-2")).unwrap();
    engine.ensure_export(&give(&first, "n1")).unwrap();
    engine.ensure_export(&give(&second, "n1")).unwrap();
    let refused = engine.delete_volume(&first.key, &first.wwid).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    assert!(refused.to_string().contains("n1"));

    take(&engine, &first, "n1").unwrap();
    take(&engine, &first, "n1").unwrap();
    let listed = engine.find_volume(&second.key).unwrap().unwrap();
    assert_eq!(listed.exported_to.len(), 1, "its neighbour is untouched");
    engine.delete_volume(&first.key, &first.wwid).unwrap();
    engine
        .remove_export(&second.key, &second.wwid, None)
        .unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
    // Never issued, or deleted: not exported.
    take(&engine, &first, "n1").unwrap();
}

#[test]
fn a_written_volume_is_not_blank_for_the_next_node() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    write_over(&san.image(&volume), &[7; 4096]);
    take(&engine, &volume, "n1").unwrap();
    assert!(!engine.ensure_export(&give(&volume, "n2")).unwrap().blank);
}

#[test]
fn a_target_stays_while_its_session_lives() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    let target = export.offers[0].iqn.to_string();
    san.lio.set_session(&target, initiator("n1").as_str(), true);
    take(&engine, &volume, "n1").unwrap();
    engine.sweep();
    let entry = format!("iscsi/{target}/tpgt_1/acls/{}/", initiator("n1"));
    assert!(san.lio.tree().contains(&entry));
    let again = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(again.offers[0].lun, Lun(2), "not the number it had");
    take(&engine, &volume, "n1").unwrap();
    san.lio
        .set_session(&target, initiator("n1").as_str(), false);
    engine.sweep();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

/// A host that was cut off keeps its session and its disks, and logs in again when it can: to the target's name, for the old numbers.
#[test]
fn a_removed_target_never_comes_back_with_other_disks() {
    let san = SanBox::new();
    let engine = san.start();
    let volumes = ["pvc-1", "pvc-2"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let before = engine.ensure_export(&give(&volumes[0], "n1")).unwrap();
    take(&engine, &volumes[0], "n1").unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
    let after = engine.ensure_export(&give(&volumes[1], "n1")).unwrap();
    let at = |export: &crate::fabric::Export| (export.offers[0].iqn.clone(), export.offers[0].lun);
    assert_ne!(at(&before), at(&after));
}

/// The thread that took the volume away is told of when nobody can join it any more: the next call is for the next export.
#[test]
fn a_volume_comes_and_goes_as_often_as_it_is_asked_for() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    for _ in 0..100 {
        engine.ensure_export(&give(&volume, "n1")).unwrap();
        take(&engine, &volume, "n1").unwrap();
    }
}

#[test]
fn a_volume_goes_nowhere_else_before_it_is_drained() {
    let san = SanBox::new();
    let mut options = san.options();
    options.drain_deadline = Duration::from_millis(50);
    let engine = Engine::open(&san.host, options).unwrap();
    engine.restore().unwrap();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    san.lio.set_in_flight(true);
    let open = take(&engine, &volume, "n1").unwrap_err();
    assert!(matches!(open, UnexportError::NotDrained { .. }), "{open}");
    assert_eq!(open.fault(), Fault::MaybeDone);
    let refused = engine.ensure_export(&give(&volume, "n2")).unwrap_err();
    assert_eq!(refused.fault(), Fault::Busy, "{refused}");
    let refused = engine.ensure_export(&give(&volume, "n1")).unwrap_err();
    assert_eq!(refused.fault(), Fault::Busy, "it is not revived");
    let refused = engine.delete_volume(&volume.key, &volume.wwid).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    // Other volumes of the node, and the sweep, are not held up.
    let other = engine.create_volume(&wanted("pvc-2")).unwrap();
    engine.ensure_export(&give(&other, "n1")).unwrap();
    engine.sweep();
    san.lio.set_in_flight(false);
    // The repeated call joins the removal that is under way.
    take_patiently(&san, &engine, &volume);
    engine.ensure_export(&give(&volume, "n2")).unwrap();
}

#[test]
fn a_shared_volume_is_one_disk_for_all_its_nodes() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let shared = |node| ExportRequest {
        shared: true,
        ..give(&volume, node)
    };
    let first = engine.ensure_export(&shared("n1")).unwrap();
    let second = engine.ensure_export(&shared("n2")).unwrap();
    assert_ne!(first.offers[0].iqn, second.offers[0].iqn, "a target each");
    assert!(first.blank && !second.blank);
    take(&engine, &volume, "n1").unwrap();
    let tree = san.lio.tree();
    let backstores = tree.iter().filter(|line| line.contains("/enable = 1"));
    assert_eq!(backstores.count(), 2, "the disk and the target of n2");
    engine
        .remove_export(&volume.key, &volume.wwid, None)
        .unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn a_writer_beside_readers_is_the_only_one() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let beside = |node: &str, read_only| ExportRequest {
        read_only,
        shared: true,
        beside_readers: true,
        ..give(&volume, node)
    };
    engine.ensure_export(&beside("r1", true)).unwrap();
    for _ in 0..2 {
        engine.ensure_export(&beside("w1", false)).unwrap();
    }
    for second in [beside("w2", false), beside("r2", true)] {
        let refused = engine.ensure_export(&second).unwrap_err();
        assert_eq!(refused.fault(), Fault::Precondition);
        assert!(crate::fault::chain(&refused).contains("w1"), "{refused}");
    }
    let beside_anybody = ExportRequest {
        beside_readers: false,
        ..beside("r2", true)
    };
    engine.ensure_export(&beside_anybody).unwrap();
}

#[test]
fn what_cannot_be_exported_is_refused_with_nothing_done() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let mut fenced = give(&volume, "n1");
    fenced.wwid = "360014050123456789abcdef012345678".parse().unwrap();
    let refused = engine.ensure_export(&fenced).unwrap_err();
    assert_eq!(refused.fault(), Fault::NotFound);
    let mut nameless = give(&volume, "n1");
    nameless.node = "a b".to_owned();
    let refused = engine.ensure_export(&nameless).unwrap_err();
    assert_eq!(refused.fault(), Fault::Invalid);
    std::fs::remove_file(san.image(&volume)).unwrap();
    let refused = engine.ensure_export(&give(&volume, "n1")).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    assert!(crate::fault::chain(&refused).contains("is gone"));
    assert!(!san.image(&volume).exists(), "LIO would have made it");
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn a_volume_that_the_pool_did_not_let_go_is_removed_later() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let sidecar = san.image(&volume).with_extension("json");
    std::fs::remove_file(&sidecar).unwrap();
    std::fs::create_dir(&sidecar).unwrap();
    let open = engine.delete_volume(&volume.key, &volume.wwid).unwrap_err();
    assert_eq!(open.fault(), Fault::MaybeDone, "{open}");
    // The next call finds no volume and is content; its bytes are still there.
    assert_eq!(engine.find_volume(&volume.key).unwrap(), None);
    assert!(san.image(&volume).exists());
    std::fs::remove_dir(&sidecar).unwrap();
    engine.sweep();
    assert!(san.pool_files().is_empty());
    assert_eq!(engine.capacity().unwrap().promised, 0);
}
