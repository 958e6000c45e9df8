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

pub(super) fn write(san: &SanBox, volume: &VolumeView, number: u64) {
    let mut lvm = san.lio.lvm.lock().unwrap();
    let volume = lvm.volumes.get_mut(&of(volume)).unwrap();
    assert!(!volume.is_suspended, "its writer would wait");
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
        "UDEV PATH: /dev/mapper/sanpath-san--vg-{}  readonly: 0",
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
    let grown = found(&san, &of(&volume));
    assert_eq!((grown.size, grown.top), (8 * MIB, Some(8 * MIB)));
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
fn several_volumes_are_cut_at_one_moment_or_not_at_all() {
    let san = lvm_box();
    let engine = san.start();
    let volumes = ["a", "b", "c"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let group = volumes
        .each_ref()
        .map(|one| cut(one, &format!("g/{}", one.name)));
    let suspended = |san: &SanBox| {
        let lvm = san.lio.lvm.lock().unwrap();
        lvm.volumes.values().filter(|one| one.is_suspended).count()
    };
    for failing in 0..3 {
        san.lio.lvm.lock().unwrap().fail_cut = Some(failing);
        let failed = engine.create_snapshots(&group).unwrap_err();
        assert_eq!(failed.fault(), Fault::MaybeDone);
        assert_eq!(suspended(&san), 0, "their writers would wait for ever");
        assert_eq!(san.lio.lvm.lock().unwrap().volumes.len(), 3, "none is kept");
    }
    san.lio.lvm.lock().unwrap().fail_cut = None;

    // A writer that writes one number after the other to all of them in order, and waits where one is suspended.
    let seen = Arc::clone(&san.lio);
    let origins = volumes.each_ref().map(of);
    let writer = std::sync::Mutex::new((0_u64, 0_usize));
    let watched = san.host.with_hook(Arc::new(move |_| {
        let mut lvm = seen.lvm.lock().unwrap();
        let mut writer = writer.lock().unwrap();
        for _ in 0..2 {
            let (number, place) = *writer;
            let volume = lvm.volumes.get_mut(&origins[place]).unwrap();
            if volume.is_suspended {
                return;
            }
            volume.writes.push(number);
            *writer = (number + u64::from(place == 2), (place + 1) % 3);
        }
    }));
    drop(engine);
    let engine = Engine::open(&watched, san.options()).unwrap();
    let mut passed = 0;
    for round in 0..12 {
        // At another place of the writer's each time.
        watched.replace_file(&san.path("step"), b"").unwrap();
        let group = volumes
            .each_ref()
            .map(|one| cut(one, &format!("{round}/{}", one.name)));
        let made = engine.create_snapshots(&group).unwrap();
        assert_eq!(engine.create_snapshots(&group).unwrap(), made);
        assert_eq!(suspended(&san), 0);
        let counts = made
            .iter()
            .map(|one| found(&san, &of_cut(one)).writes.len());
        let counts: Vec<_> = counts.collect();
        let in_order = counts.is_sorted_by(|before, after| before >= after);
        assert!(in_order && counts[0] - counts[2] <= 1, "{counts:?}");
        passed = counts[2];
    }
    assert!(passed > 3, "the writer came on between the cuts");
}

#[test]
fn what_was_left_suspended_goes_on_at_the_next_start() {
    let san = lvm_box();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    drop(engine);
    let suspend = |suspended| {
        let mut lvm = san.lio.lvm.lock().unwrap();
        lvm.volumes.get_mut(&of(&volume)).unwrap().is_suspended = suspended;
    };
    suspend(true);
    san.start();
    assert!(!found(&san, &of(&volume)).is_suspended);
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
