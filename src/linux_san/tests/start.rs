//! Starts: the first, one after a kill, one after a reboot, and those that must be refused.

use std::sync::Mutex;

use super::*;
use crate::fabric::Export;
use crate::linux_san::pool::PoolError;

fn two_exported(san: &SanBox) -> (Vec<VolumeView>, Vec<Export>) {
    let engine = san.start();
    let names = ["pvc-1", "pvc-2"];
    let volumes = names.map(|name| engine.create_volume(&wanted(name)).unwrap());
    let exports = [("n1", &volumes[0]), ("n2", &volumes[1])]
        .map(|(node, volume)| engine.ensure_export(&give(volume, node)).unwrap());
    (volumes.to_vec(), exports.to_vec())
}

fn refused(san: &SanBox) -> OpenError {
    Engine::open(&san.host, san.options()).err().unwrap()
}

#[test]
fn after_a_kill_nothing_is_touched() {
    let san = SanBox::new();
    let (volumes, exports) = two_exported(&san);
    let (tree, steps) = (san.lio.tree(), san.host.counts().steps);
    let engine = Engine::open(&san.host, san.options()).unwrap();
    let restored = engine.restore().unwrap();
    assert_eq!((restored.served, restored.nodes), (2, 2));
    assert_eq!(san.host.counts().steps, steps);
    assert_eq!(san.lio.tree(), tree);
    assert_eq!(
        engine.ensure_export(&give(&volumes[0], "n1")).unwrap(),
        exports[0]
    );
}

#[test]
fn after_a_reboot_everything_is_where_it_was() {
    let san = SanBox::new();
    let (_, _) = two_exported(&san);
    let tree = san.lio.tree();
    san.lio.reboot();
    let engine = san.start();
    assert_eq!(san.lio.tree(), tree);
    drop(engine);
    // And after a kill at any point of a restore.
    san.lio.reboot();
    let half = san.path("target/iscsi");
    san.host.ensure_directory(&half).unwrap();
    san.start();
    assert_eq!(san.lio.tree(), tree);
}

#[test]
fn portals_come_last() {
    let san = SanBox::new();
    two_exported(&san);
    san.lio.reboot();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let watched = san.host.with_hook(Arc::new(move |step| {
        seen.lock()
            .unwrap()
            .push(format!("{} {}", step.what, step.on));
    }));
    let engine = Engine::open(&watched, san.options()).unwrap();
    engine.restore().unwrap();
    let steps = steps.lock().unwrap();
    let is_portal = |step: &String| step.contains("/np/") || step.ends_with("tpgt_1/enable");
    let first_portal = steps.iter().position(is_portal).unwrap();
    let last_link = steps.iter().rposition(|step| step.starts_with("symlink"));
    assert!(last_link.unwrap() < first_portal, "{steps:#?}");
}

#[test]
fn without_its_pool_nothing_is_served_and_nothing_made() {
    let san = SanBox::new();
    two_exported(&san);
    san.lio.reboot();
    std::fs::rename(san.path("pool"), san.path("away")).unwrap();
    std::fs::create_dir(san.path("pool")).unwrap();
    let error = refused(&san);
    assert!(matches!(error, OpenError::Pool(PoolError::NotMounted(_))));
    let text = crate::fault::chain(&error);
    assert!(text.contains("may not be mounted"), "{text}");
    assert!(text.contains(&san.path("pool").display().to_string()));
    assert_eq!(std::fs::read_dir(san.path("pool")).unwrap().count(), 0);
    assert!(san.lio.tree().iter().eq(["core/"]));
}

#[test]
fn another_pool_or_a_lost_state_is_refused() {
    let san = SanBox::new();
    two_exported(&san);
    let marker = san.path("pool/pool.json");
    let right = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, r#"{"version":1,"pool_id":"other"}"#).unwrap();
    assert!(matches!(
        refused(&san),
        OpenError::Pool(PoolError::OtherPool { .. })
    ));
    std::fs::write(&marker, right).unwrap();
    std::fs::remove_file(san.path("state/state.json")).unwrap();
    assert!(matches!(
        refused(&san),
        OpenError::Pool(PoolError::StateLost(_))
    ));
    std::fs::remove_file(&marker).unwrap();
    assert!(matches!(
        refused(&san),
        OpenError::Pool(PoolError::StateLost(_))
    ));
}

#[test]
fn a_first_start_that_was_cut_off_is_taken_up() {
    let san = SanBox::new();
    drop(san.start());
    let marker = std::fs::read(san.path("pool/pool.json")).unwrap();
    std::fs::remove_file(san.path("state/state.json")).unwrap();
    drop(san.start());
    assert_eq!(std::fs::read(san.path("pool/pool.json")).unwrap(), marker);
    std::fs::remove_dir_all(san.path("pool")).unwrap();
    std::fs::remove_file(san.path("state/state.json")).unwrap();
    assert!(matches!(
        refused(&san),
        OpenError::Pool(PoolError::NoDirectory(_))
    ));
}

#[test]
fn a_volume_that_fails_its_checks_is_not_served_and_the_others_are() {
    type Damage = fn(&SanBox, &VolumeView);
    let damages: [Damage; 4] = [
        |san, volume| std::fs::remove_file(san.image(volume)).unwrap(),
        |san, volume| {
            let file = std::fs::File::options().write(true).open(san.image(volume));
            file.unwrap().set_len(MIB).unwrap();
        },
        |san, volume| std::fs::remove_file(san.image(volume).with_extension("json")).unwrap(),
        |san, volume| {
            let sidecar = san.image(volume).with_extension("json");
            let text = std::fs::read_to_string(&sidecar).unwrap();
            let older = text.replace("\"generation\": 1", "\"generation\": 0");
            std::fs::write(&sidecar, older).unwrap();
        },
    ];
    for damage in damages {
        let san = SanBox::new();
        let (volumes, exports) = two_exported(&san);
        san.lio.reboot();
        damage(&san, &volumes[0]);
        let engine = Engine::open(&san.host, san.options()).unwrap();
        let restored = engine.restore().unwrap();
        assert_eq!((restored.served, restored.refused), (1, 1));
        let disks = san.lio.tree();
        let disks: Vec<_> = disks.iter().filter(|l| l.contains(" File: ")).collect();
        assert_eq!(disks.len(), 1);
        assert!(disks[0].contains(&volumes[1].key.to_string()));
        assert_eq!(
            engine.ensure_export(&give(&volumes[1], "n2")).unwrap(),
            exports[1]
        );
        // It can still be taken away and deleted.
        take(&engine, &volumes[0], "n1").unwrap();
        engine
            .delete_volume(&volumes[0].key, &volumes[0].wwid)
            .unwrap();
    }
}

#[test]
fn what_was_leaving_leaves_and_does_not_come_back() {
    let san = SanBox::new();
    let mut options = san.options();
    options.drain_deadline = Duration::from_millis(10);
    let engine = Engine::open(&san.host, options).unwrap();
    engine.restore().unwrap();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    san.lio.set_in_flight(true);
    take(&engine, &volume, "n1").unwrap_err();
    // The state as a power cut finds it now.
    let state = std::fs::read(san.path("state/state.json")).unwrap();
    san.lio.set_in_flight(false);
    take_patiently(&san, &engine, &volume);
    drop(engine);
    std::fs::write(san.path("state/state.json"), state).unwrap();
    san.lio.reboot();
    let engine = san.start();
    take(&engine, &volume, "n1").unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
}

#[test]
fn portals_follow_the_options() {
    let san = SanBox::new();
    two_exported(&san);
    let mut options = san.options();
    options.portals = vec!["10.102.1.1".parse().unwrap()];
    let engine = Engine::open(&san.host, options).unwrap();
    engine.restore().unwrap();
    let tree = san.lio.tree();
    let portals: Vec<_> = tree.iter().filter(|line| line.contains("/np/1")).collect();
    assert_eq!(portals.len(), 2);
    assert!(
        portals
            .iter()
            .all(|line| line.ends_with("/np/10.102.1.1:3260/"))
    );
    assert!(!tree.iter().any(|line| line.contains("[fd00")));
}

#[test]
fn a_portal_that_cannot_be_had_takes_none_of_the_others_away() {
    let san = SanBox::new();
    let (_, exports) = two_exported(&san);
    san.lio.reboot();
    let group = format!("iscsi/{}/tpgt_1", exports[0].offers[0].iqn);
    let np = san.path("target").join(&group).join("np");
    san.host.ensure_directory(np.parent().unwrap()).unwrap();
    std::fs::create_dir_all(&np).unwrap();
    let in_the_way = np.join("10.101.1.1:3260");
    std::os::unix::fs::symlink(san.path("target/nowhere"), in_the_way).unwrap();
    let engine = Engine::open(&san.host, san.options()).unwrap();
    assert_eq!(engine.restore().unwrap().nodes, 1, "the loss is told");
    let tree = san.lio.tree();
    for line in [
        format!("{group}/np/[fd00::1]:3261/"),
        format!("{group}/enable = 1"),
    ] {
        assert!(tree.contains(&line), "{line} is not in {tree:#?}");
    }
}

#[test]
fn foreign_objects_are_left_alone() {
    let san = SanBox::new();
    let foreign = [
        "core/fileio_0/disk",
        "iscsi/iqn.2003-01.org.linux-iscsi:box/tpgt_1/acls/iqn.x/lun_1",
    ];
    for path in foreign {
        let path = san.path("target").join(path);
        san.host.ensure_directory(&path).unwrap();
    }
    let before = san.lio.tree();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    take(&engine, &volume, "n1").unwrap();
    engine.sweep();
    assert_eq!(san.lio.tree(), before);
}

#[test]
fn a_disk_that_is_not_written_through_is_not_served_so() {
    let san = SanBox::new();
    let (volumes, _) = two_exported(&san);
    let disk = |engine: &Engine, volume: &VolumeView| {
        let adapter = engine.state.read(|state| {
            state
                .san_uuid
                .adapter(crate::linux_san::names::Plugin::FileIo)
        });
        let core = san.path("target/core").join(adapter);
        core.join(engine.backstore_of(&volume.key))
    };
    let engine = san.start();
    let (cached, buffered) = (disk(&engine, &volumes[0]), disk(&engine, &volumes[1]));
    drop(engine);
    std::fs::write(cached.join("attrib/emulate_write_cache"), "1\n").unwrap();
    let info = std::fs::read_to_string(buffered.join("info")).unwrap();
    let info = info.replace("O_DSYNC", "Buffered-WCE");
    std::fs::write(buffered.join("info"), info).unwrap();
    let engine = Engine::open(&san.host, san.options()).unwrap();
    let restored = engine.restore().unwrap();
    assert_eq!((restored.served, restored.refused), (1, 1));
    let mended = std::fs::read_to_string(cached.join("attrib/emulate_write_cache"));
    assert_eq!(mended.unwrap().trim(), "0");
}

#[test]
fn a_pool_has_one_process_whatever_state_it_is_given() {
    let san = SanBox::new();
    let first = san.start();
    let other = SanOptions {
        state_dir: san.path("other-state"),
        ..san.options()
    };
    // What `open` of another process waits for, for a while.
    let second = san
        .host
        .lock(&san.path("pool/lock"), san.host.deadline_in(Duration::ZERO));
    assert!(second.unwrap().is_none(), "the pool is not held");
    let volume = first.create_volume(&wanted("pvc-1")).unwrap();
    drop(first);
    let lost = Engine::open(&san.host, other).err().unwrap();
    assert!(matches!(lost, OpenError::Pool(PoolError::StateLost(_))));
    assert!(san.start().find_volume(&volume.key).unwrap().is_some());
}
