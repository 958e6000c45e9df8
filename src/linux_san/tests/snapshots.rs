//! Snapshots and clones from their making to their deletion, their extents, and what refuses to be one.

use std::collections::BTreeMap;

use super::*;
use crate::fault::{Fault, Faulted, chain};

pub(super) fn cut(volume: &VolumeView, name: &str) -> NewSnapshot {
    NewSnapshot {
        name: name.to_owned(),
        source: volume.key.clone(),
        metadata: BTreeMap::from([("snapshot".to_owned(), name.to_owned())]),
    }
}

fn cut_one(engine: &Engine, volume: &VolumeView, name: &str) -> SnapshotView {
    let made = engine.create_snapshots(&[cut(volume, name)]);
    made.unwrap().remove(0)
}

pub(super) fn copy(source: Source, name: &str, size: u64) -> NewVolume {
    NewVolume {
        size,
        source: Some(source),
        ..wanted(name)
    }
}

fn first_bytes(path: &Path, many: usize) -> Vec<u8> {
    std::fs::read(path).unwrap()[..many].to_vec()
}

#[test]
fn a_snapshot_is_cut_once_and_keeps_what_was_there() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    write_over(&san.image(&volume), b"before");
    let before = san.host.wall_clock();
    let snapshot = cut_one(&engine, &volume, "s");
    let since = before.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(u128::from(snapshot.created_at_ms) >= since.as_millis());
    write_over(&san.image(&volume), b"behind");
    assert_eq!(cut_one(&engine, &volume, "s"), snapshot, "not cut again");
    assert_eq!(first_bytes(&san.cut_image(&snapshot), 6), b"before");
    assert_eq!(
        (snapshot.size, snapshot.source.clone()),
        (4 * MIB, volume.key.clone())
    );

    let mut other = cut(&volume, "s");
    other.metadata.clear();
    let taken = engine.create_snapshots(&[other]).unwrap_err();
    assert_eq!(taken.fault(), Fault::Conflict);
    let second = engine.create_volume(&wanted("pvc-2")).unwrap();
    let taken = engine.create_snapshots(&[cut(&second, "s")]).unwrap_err();
    assert_eq!(taken.fault(), Fault::Conflict);
    assert!(
        taken.to_string().contains(&volume.key.to_string()),
        "{taken}"
    );

    // It outlives its volume.
    take(&engine, &volume, "n1").unwrap();
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    assert_eq!(
        engine.find_snapshot(&snapshot.key).unwrap(),
        Some(snapshot.clone())
    );
    let gone = engine.create_snapshots(&[cut(&volume, "t")]).unwrap_err();
    assert_eq!(gone.fault(), Fault::NotFound);
    for _ in 0..2 {
        engine.delete_snapshot(&snapshot.key).unwrap();
    }
    assert_eq!(engine.find_snapshot_named("s").unwrap(), None);
    assert!(san.cut_files().is_empty());
}

#[test]
fn a_clone_is_independent_at_once_and_may_be_larger() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    write_over(&san.image(&volume), b"before");
    let snapshot = cut_one(&engine, &volume, "s");
    write_over(&san.image(&volume), b"behind");
    let of_snapshot = copy(Source::Snapshot(snapshot.key.clone()), "c", 8 * MIB);
    let of_volume = copy(Source::Volume(volume.key.clone()), "d", 4 * MIB);
    let clones = [&of_snapshot, &of_volume].map(|one| engine.create_volume(one).unwrap());
    for (clone, one) in clones.iter().zip([&of_snapshot, &of_volume]) {
        assert_eq!(engine.create_volume(one).unwrap(), *clone);
        assert_eq!(clone.source, one.source);
        assert_ne!(clone.wwid, volume.wwid);
    }
    assert_eq!(clones[0].size, 8 * MIB);

    let mut smaller = of_snapshot.clone();
    (smaller.name, smaller.size) = ("e".to_owned(), MIB);
    let refused = engine.create_volume(&smaller).unwrap_err();
    assert_eq!(refused.fault(), Fault::OutOfRange);
    assert!(
        chain(&refused).contains("size_bytes"),
        "{}",
        chain(&refused)
    );
    let refused = engine.create_volume(&copy(Source::Volume(volume.key.clone()), "c", 8 * MIB));
    assert_eq!(
        refused.unwrap_err().fault(),
        Fault::Conflict,
        "another source"
    );

    engine.delete_snapshot(&snapshot.key).unwrap();
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    assert_eq!(engine.create_volume(&of_snapshot).unwrap(), clones[0]);
    for (name, source) in [
        ("e", Source::Snapshot(snapshot.key.clone())),
        ("f", Source::Volume(volume.key.clone())),
    ] {
        let gone = engine
            .create_volume(&copy(source, name, 8 * MIB))
            .unwrap_err();
        assert_eq!(gone.fault(), Fault::NotFound);
    }
    assert_eq!(first_bytes(&san.image(&clones[0]), 6), b"before");
    assert_eq!(first_bytes(&san.image(&clones[1]), 6), b"behind");
    let export = engine.ensure_export(&give(&clones[0], "n1")).unwrap();
    assert!(!export.blank, "a copy is never formatted");
    assert_eq!(export.size, 8 * MIB);
}

#[test]
fn files_cannot_be_cut_together_and_one_alone_can() {
    let san = SanBox::new();
    let engine = san.start();
    let volumes = ["a", "b"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let group = [cut(&volumes[0], "g/a"), cut(&volumes[1], "g/b")];
    let refused = engine.create_snapshots(&group).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    assert!(chain(&refused).contains("LVM-thin"), "{}", chain(&refused));
    assert!(san.cut_files().is_empty());
    let state = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    assert!(!state.contains("g/a"), "nothing is left of it");
    engine.create_snapshots(&group[..1]).unwrap();
    for wrong in [
        vec![],
        vec![cut(&volumes[0], "x"), cut(&volumes[0], "y")],
        vec![cut(&volumes[0], "x"), cut(&volumes[1], "x")],
        vec![cut(&volumes[0], "")],
    ] {
        let refused = engine.create_snapshots(&wrong).unwrap_err();
        assert_eq!(refused.fault(), Fault::Invalid, "{wrong:?}");
    }
    let part = engine.create_snapshots(&group).unwrap_err();
    assert_eq!(part.fault(), Fault::Conflict, "{part}");
}

#[test]
fn snapshots_are_listed_in_pages_and_by_volume() {
    let san = SanBox::new();
    let engine = san.start();
    let volumes = ["a", "b"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    for n in 0..5 {
        cut_one(&engine, &volumes[n % 2], &format!("s{n}"));
    }
    let all = engine.list_snapshots(None, None, None).unwrap();
    assert_eq!((all.snapshots.len(), all.more), (5, false));
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = engine
            .list_snapshots(after.as_ref(), Some(2), None)
            .unwrap();
        seen.extend(page.snapshots);
        if !page.more {
            break;
        }
        after = seen.last().map(|one| one.key.clone());
    }
    assert_eq!(seen, all.snapshots);
    let of = Some(&volumes[1].key);
    let page = engine.list_snapshots(None, Some(2), of).unwrap();
    assert_eq!((page.snapshots.len(), page.more), (2, false));
    assert!(
        page.snapshots
            .iter()
            .all(|one| one.source == volumes[1].key)
    );
}

#[test]
fn extents_name_what_is_there_and_what_has_changed() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let write_at = |at: u64, byte: u8| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options()
            .write(true)
            .open(san.image(&volume));
        file.unwrap().write_all_at(&[byte; 4096], at).unwrap();
    };
    write_at(0, b'a');
    write_at(MIB, b'b');
    let base = cut_one(&engine, &volume, "base");
    write_at(MIB, b'c');
    write_at(2 * MIB, b'd');
    engine
        .expand_volume(&volume.key, &volume.wwid, 8 * MIB)
        .unwrap();
    write_at(7 * MIB, b'e');
    let target = cut_one(&engine, &volume, "target");
    let ask = |base: Option<&SnapshotView>, from, most| {
        let request = ExtentsRequest {
            key: target.key.clone(),
            base: base.map(|base| base.key.clone()),
            from,
            most,
        };
        engine.list_extents(&request)
    };
    let at = |page: &ExtentPage| page.extents.iter().map(|e| e.offset).collect::<Vec<_>>();
    let (all, size) = ask(None, 0, None).unwrap();
    assert_eq!((at(&all), size), (vec![0, MIB, 2 * MIB, 7 * MIB], 8 * MIB));
    let (changed, _) = ask(Some(&base), 0, None).unwrap();
    assert_eq!(at(&changed), [MIB, 2 * MIB, 7 * MIB]);
    let (first, _) = ask(Some(&base), 0, Some(2)).unwrap();
    assert_eq!(
        (at(&first), first.next),
        (vec![MIB, 2 * MIB], Some(7 * MIB))
    );
    let (rest, _) = ask(Some(&base), 7 * MIB, Some(2)).unwrap();
    assert_eq!((at(&rest), rest.next), (vec![7 * MIB], None));
    let refused = ask(None, 8 * MIB + 1, None).unwrap_err();
    assert_eq!(refused.fault(), Fault::OutOfRange);

    let other = engine.create_volume(&wanted("pvc-2")).unwrap();
    let other = cut_one(&engine, &other, "other");
    let refused = ask(Some(&other), 0, None).unwrap_err();
    assert_eq!(refused.fault(), Fault::Invalid);
    engine.delete_snapshot(&base.key).unwrap();
    let gone = ask(Some(&base), 0, None).unwrap_err();
    assert_eq!(gone.fault(), Fault::NotFound);
}

#[test]
fn a_snapshot_that_fails_its_checks_is_not_used_and_the_rest_is() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |image| std::fs::remove_file(image).unwrap(),
        |image| {
            let file = std::fs::File::options().write(true).open(image);
            file.unwrap().set_len(MIB).unwrap();
        },
        |image| std::fs::remove_file(image.with_extension("json")).unwrap(),
        |image| {
            let sidecar = image.with_extension("json");
            let text = std::fs::read_to_string(&sidecar).unwrap();
            let older = text.replace("\"generation\": 1", "\"generation\": 0");
            std::fs::write(&sidecar, older).unwrap();
        },
    ];
    for damage in damages {
        let san = SanBox::new();
        let engine = san.start();
        let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
        let (bad, good) = (
            cut_one(&engine, &volume, "bad"),
            cut_one(&engine, &volume, "good"),
        );
        drop(engine);
        damage(&san.cut_image(&bad));
        let engine = san.start();
        let of = |snapshot: &SnapshotView| Source::Snapshot(snapshot.key.clone());
        let refused = engine.create_volume(&copy(of(&bad), "c", 4 * MIB));
        assert_eq!(refused.unwrap_err().fault(), Fault::Precondition);
        engine
            .create_volume(&copy(of(&good), "c", 4 * MIB))
            .unwrap();
        engine.ensure_export(&give(&volume, "n1")).unwrap();
        engine.delete_snapshot(&bad.key).unwrap();
        assert_eq!(
            engine.list_snapshots(None, None, None).unwrap().snapshots,
            [good]
        );
    }
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    *san.lio.available.lock().unwrap() = Some(MIB - 1);
    let full = engine.create_snapshots(&[cut(&volume, "s")]).unwrap_err();
    assert_eq!(full.fault(), Fault::Exhausted);
    let clone = copy(Source::Volume(volume.key.clone()), "c", 4 * MIB);
    assert_eq!(
        engine.create_volume(&clone).unwrap_err().fault(),
        Fault::Exhausted
    );
    *san.lio.available.lock().unwrap() = None;
    *san.lio.clones_fail.lock().unwrap() = true;
    let failed = engine.create_snapshots(&[cut(&volume, "s")]).unwrap_err();
    assert_eq!(failed.fault(), Fault::Exhausted);
    assert_eq!(
        engine.create_volume(&clone).unwrap_err().fault(),
        Fault::Exhausted
    );
    assert!(san.cut_files().is_empty());
    assert_eq!(san.pool_files().len(), 2);
    let state = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    assert!(!state.contains("making"), "{state}");
    // What a power cut leaves beside a file that was not finished.
    std::fs::write(san.path("pool/volumes/0.img.new"), b"half").unwrap();
    drop(engine);
    san.start();
    assert_eq!(san.pool_files().len(), 2);
}
