//! A pool on LVM-thin: the same life of volumes and snapshots, cuts of several at one moment, and what refuses to be a pool.

use super::snapshots::{copy, cut};
use super::*;
use crate::fault::{Fault, Faulted, chain};
use crate::linux_san::fake_lvm::{FakeVolume, GROUP, POOL};
use crate::linux_san::pool::PoolError;

pub(super) fn on_lvm(options: &mut SanOptions) {
    options.pool = PathBuf::from(format!("lvm:{GROUP}/{POOL}"));
}

fn lvm_box() -> SanBox {
    SanBox::with(on_lvm)
}

fn of(volume: &VolumeView) -> String {
    format!("sanpath_v_{}", volume.key)
}

fn of_cut(snapshot: &SnapshotView) -> String {
    format!("sanpath_s_{}", snapshot.key)
}

fn found(san: &SanBox, name: &str) -> FakeVolume {
    san.lio.lvm.lock().unwrap().volumes[name].clone()
}

fn write(san: &SanBox, volume: &VolumeView, number: u64) {
    let mut lvm = san.lio.lvm.lock().unwrap();
    let volume = lvm.volumes.get_mut(&of(volume)).unwrap();
    volume.writes.push(number);
}

#[test]
fn a_volume_on_lvm_lives_its_life() {
    let san = lvm_box();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    assert_eq!(engine.create_volume(&wanted("pvc-1")).unwrap(), volume);
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert!(export.blank);
    let tree = san.lio.tree();
    let path = format!(
        "UDEV PATH: /dev/mapper/san--vg-{}  readonly: 0",
        of(&volume)
    );
    assert!(tree.iter().any(|line| line.contains(&path)), "{tree:#?}");
    assert!(
        tree.iter().all(|line| !line.starts_with("core/fileio")),
        "{tree:#?}"
    );

    write(&san, &volume, 1);
    let shown = engine.find_volume(&volume.key).unwrap().unwrap();
    assert_eq!(shown.allocated, 64 << 10);
    assert_eq!(engine.list_volumes(None, None).unwrap().volumes, [shown]);
    engine
        .expand_volume(&volume.key, &volume.wwid, 8 * MIB)
        .unwrap();
    assert_eq!(found(&san, &of(&volume)).size, 8 * MIB);
    drop(engine);

    // After a reboot it is not active until it is served.
    san.lio.reboot();
    san.lio
        .lvm
        .lock()
        .unwrap()
        .volumes
        .get_mut(&of(&volume))
        .unwrap()
        .is_active = false;
    let engine = Engine::open(&san.host, san.options()).unwrap();
    assert_eq!(engine.restore().unwrap().served, 1);
    assert!(found(&san, &of(&volume)).is_active);
    take(&engine, &volume, "n1").unwrap();
    let again = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert!(!again.blank);
    take(&engine, &volume, "n1").unwrap();
    for _ in 0..2 {
        engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    }
    assert!(san.lio.lvm.lock().unwrap().volumes.is_empty());
}

#[test]
fn snapshots_and_clones_on_lvm() {
    let san = lvm_box();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    write(&san, &volume, 1);
    let snapshot = engine
        .create_snapshots(&[cut(&volume, "s")])
        .unwrap()
        .remove(0);
    write(&san, &volume, 2);
    assert_eq!(found(&san, &of_cut(&snapshot)).writes, [1]);
    assert!(!found(&san, &of_cut(&snapshot)).is_active);
    let clone = copy(Source::Snapshot(snapshot.key.clone()), "c", 8 * MIB);
    let clone = engine.create_volume(&clone).unwrap();
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    engine.delete_snapshot(&snapshot.key).unwrap();
    let copied = found(&san, &of(&clone));
    assert_eq!((copied.writes, copied.size), (vec![1], 8 * MIB));
    let export = engine.ensure_export(&give(&clone, "n1")).unwrap();
    assert!(!export.blank && export.size == 8 * MIB);
}

#[test]
fn a_cut_that_fails_leaves_nothing_behind() {
    let san = lvm_box();
    let engine = san.start();
    let volumes = ["a", "b"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let group = volumes
        .each_ref()
        .map(|one| cut(one, &format!("g/{}", one.name)));
    let refused = engine.create_snapshots(&group).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition, "{}", chain(&refused));
    san.lio.lvm.lock().unwrap().fail_cut = true;
    let failed = engine.create_snapshots(&group[..1]).unwrap_err();
    assert_eq!(failed.fault(), Fault::MaybeDone);
    assert_eq!(san.lio.lvm.lock().unwrap().volumes.len(), 2);
    let state = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    assert!(!state.contains("making"), "{state}");
}

#[test]
fn a_thin_pool_that_cannot_be_used_is_refused() {
    let refused = |san: &SanBox| match Engine::open(&san.host, san.options()).err().unwrap() {
        OpenError::Pool(error) => error,
        other => panic!("{other}"),
    };
    let san = lvm_box();
    san.lio.lvm.lock().unwrap().zero = "";
    assert!(refused(&san).to_string().contains("lvchange -Z y"));
    san.lio.lvm.lock().unwrap().zero = "zero";
    san.lio.lvm.lock().unwrap().extent = 4 << 20;
    assert!(refused(&san).to_string().contains("-s 1m"));
    san.lio.lvm.lock().unwrap().extent = 1 << 20;

    let engine = san.start();
    assert_eq!(san.lio.lvm.lock().unwrap().when_full, "error");
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    drop(engine);
    san.lio.lvm.lock().unwrap().is_missing = true;
    assert!(matches!(refused(&san), PoolError::ToolFailed { .. }));
    san.lio.lvm.lock().unwrap().is_missing = false;
    std::fs::remove_file(san.path("state/state.json")).unwrap();
    assert!(matches!(refused(&san), PoolError::StateLost(_)));
    san.lio.lvm.lock().unwrap().volumes.remove(&of(&volume));
    san.start();
}

#[test]
fn a_volume_of_lvm_that_is_another_is_not_served() {
    let san = lvm_box();
    let engine = san.start();
    let volumes = ["a", "b"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    for volume in &volumes {
        engine.ensure_export(&give(volume, "n1")).unwrap();
    }
    drop(engine);
    san.lio.reboot();
    {
        let mut lvm = san.lio.lvm.lock().unwrap();
        let wrong = lvm.volumes.remove(&of(&volumes[1])).unwrap();
        lvm.volumes.insert(of(&volumes[0]), wrong.clone());
        lvm.volumes.insert(of(&volumes[1]), wrong);
    }
    let engine = Engine::open(&san.host, san.options()).unwrap();
    let restored = engine.restore().unwrap();
    assert_eq!((restored.served, restored.refused), (1, 1));
}

#[test]
fn a_pool_that_is_full_takes_nothing_more() {
    let san = lvm_box();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("a")).unwrap();
    san.lio.lvm.lock().unwrap().data_percent = "50.00";
    let capacity = engine.capacity().unwrap();
    assert_eq!((capacity.total, capacity.available), (1 << 30, 1 << 29));
    for (data, metadata) in [("100.00", "10.00"), ("50.00", "91.00")] {
        {
            let mut lvm = san.lio.lvm.lock().unwrap();
            (lvm.data_percent, lvm.metadata_percent) = (data, metadata);
        }
        let full = engine.create_volume(&wanted("b")).unwrap_err();
        assert_eq!(full.fault(), Fault::Exhausted, "{}", chain(&full));
        let full = engine.create_snapshots(&[cut(&volume, "s")]).unwrap_err();
        assert_eq!(full.fault(), Fault::Exhausted);
    }
}
