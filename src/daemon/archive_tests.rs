//! Snapshots to an archive and back, over the real wires: a SAN in memory, archivers on hosts that behave, an archive in a directory; and a crash after every step of
//! an archiver.

mod beside;
mod deaths;
mod life;
mod prunes;
mod races;
mod rig;
mod ways;

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rig::{MIB, Rig, content, lock, snapshot_of, wanted};

use crate::archiver::Look;
use crate::controller::Wanted;
use crate::fault::{Fault, Faulted, chain};
use crate::host::fake::{PortalState, sweep};
use crate::volume::SizeRange;

#[tokio::test]
async fn a_snapshot_goes_to_an_archive_and_comes_back_in_another_partition() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let first = rig.archived("s", &source.id, true).await;
    assert_eq!(first.id.to_string(), "spa1:here:linux:a:s");
    rig.assert_at_rest(&["v"], &["s"]).await;
    let id = ("spa1:here:linux:a:s".to_owned(), true);
    assert_eq!(rig.listed().await, std::slice::from_ref(&id));
    // The SAN's own copy where it is, the archive's elsewhere.
    let beside = rig.restored(&wanted("w", "a", Some(&first))).await;
    let larger = Wanted {
        range: SizeRange::new((12 * MIB).try_into().unwrap(), 0).unwrap(),
        ..wanted("x", "b", Some(&first))
    };
    let away = rig.restored(&larger).await;
    assert_eq!(away.size, 12 * MIB);
    assert_eq!(away.origin, larger.origin);
    for volume in [&beside, &away] {
        assert_eq!(rig.seats.content(volume.id.wwid.as_str()), content(7));
    }
    assert_eq!(rig.restored(&larger).await, away, "the same when repeated");
    // Without the SAN's cut the repeated call finds what the archive has.
    let second = rig.archived("t", &source.id, false).await;
    assert_eq!(rig.archived("t", &source.id, false).await.id, second.id);
    rig.assert_at_rest(&["v", "w", "x"], &["s"]).await;
    let listed = rig.listed().await;
    assert_eq!(listed, [id, ("spa1:here:linux:a:t".to_owned(), true)]);
    let back = rig.restored(&wanted("y", "a", Some(&second))).await;
    assert_eq!(rig.seats.content(back.id.wwid.as_str()), content(7));
    for snapshot in [&first, &second] {
        rig.deleted(&snapshot.id, &rig.controller).await;
        rig.deleted(&snapshot.id, &rig.controller).await;
    }
    assert_eq!(rig.listed().await, []);
    rig.assert_at_rest(&["v", "w", "x", "y"], &[]).await;
    assert_eq!(rig.objects("manifests"), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn what_changed_since_an_archived_snapshot_is_all_that_is_read() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    rig.archived("s", &source.id, true).await;
    rig.seats.put(source.id.wwid.as_str(), content(9));
    // The SAN says that only the second MiB may differ; what it does not say is taken from the first snapshot.
    rig.double.set_extents(&[(2 * MIB, 4096)]);
    let second = rig.archived("t", &source.id, true).await;
    let restored = rig.restored(&wanted("x", "b", Some(&second))).await;
    let mut expected = content(7);
    expected.insert(700, content(9)[&700].clone());
    assert_eq!(rig.seats.content(restored.id.wwid.as_str()), expected);
}

/// Side by side, since a round mostly waits. More of them would wait for each other: a fake host's clock stands while it may be one of its threads that runs.
const LANES: usize = 3;

#[test]
fn an_archiver_that_dies_after_any_step_leaves_nothing_and_loses_nothing() {
    let lane = |lane: usize| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let mut steps = sweep::steps().skip(lane).step_by(LANES);
        steps
            .find(|step| !runtime.block_on(dies_after(*step)))
            .unwrap()
    };
    let ends: Vec<u64> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|it| scope.spawn(move || lane(it))).collect();
        lanes.into_iter().map(|it| it.join().unwrap()).collect()
    });
    // No round comes to the first of these steps, and so to none after it.
    let first = ends.iter().min().unwrap();
    assert!(*first > 20, "{first} steps are too few to be all");
}

/// Whether the archiver came to that step, and so died.
async fn dies_after(step: u64) -> bool {
    let rig = Rig::new(1).await;
    let machine = &rig.machines[0];
    let source = rig.volume("v", &content(7)).await;
    machine.kill();
    machine.start(step).await;
    rig.introduce();
    let snapshot = rig.archived("s", &source.id, false).await;
    let restored = rig.restored(&wanted("x", "b", Some(&snapshot))).await;
    let back = rig.seats.content(restored.id.wwid.as_str());
    assert_eq!(back, content(7), "step {step}");
    rig.deleted(&snapshot.id, &rig.controller).await;
    if machine.ensure().await {
        rig.introduce();
    }
    rig.assert_at_rest(&["v", "x"], &[]).await;
    assert_eq!(rig.listed().await, []);
    machine.deaths() > 0
}

#[tokio::test]
async fn what_a_lost_archiver_has_is_taken_from_it_and_given_to_another() {
    let rig = Rig::new(2).await;
    let source = rig.volume("v", &content(7)).await;
    let snapshot = rig.archived("s", &source.id, false).await;
    let wanted = wanted("x", "b", Some(&snapshot));
    // No portal answers anybody, so that the one that has the volume does not come to an end.
    for machine in &rig.machines {
        machine.set_portals(PortalState::BlackHoled);
    }
    let begun = rig.controller.create(&wanted).await.unwrap_err();
    assert_eq!(begun.fault(), Fault::Busy, "{}", chain(&begun));
    let volumes = rig.double.volumes();
    let filler = volumes.iter().find(|it| it.name == "x.filler").unwrap();
    let holder = filler.exported_to[0].node_name.clone();
    let (lost, other) = match holder == "a0" {
        true => (&rig.machines[0], &rig.machines[1]),
        false => (&rig.machines[1], &rig.machines[0]),
    };
    lost.kill();
    other.set_portals(PortalState::Up);
    let restored = rig.restored(&wanted).await;
    assert_eq!(rig.seats.content(restored.id.wwid.as_str()), content(7));
    // It comes back and finds that nobody wants what it had.
    lost.set_portals(PortalState::Up);
    lost.start(0).await;
    rig.introduce();
    rig.assert_at_rest(&["v", "x"], &[]).await;
}

#[tokio::test]
async fn a_store_that_does_not_serve_costs_time_and_says_why() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let snapshot = snapshot_of("s", &source.id, true);
    for (fault, text) in [
        (Fault::MaybeDone, "bucket b at https://s3 does not serve"),
        (
            Fault::Denied,
            "bucket b at https://s3 refuses us (InvalidAccessKeyId)",
        ),
    ] {
        *lock(&rig.machines[0].trouble) = Some((fault, text.to_owned()));
        let refused = rig.controller.create_snapshot(&snapshot).await.unwrap_err();
        assert!(chain(&refused).contains(text), "{}", chain(&refused));
        assert_eq!(rig.double.snapshot_names(), ["s"], "cut first");
    }
    let given_up = snapshot_of("t", &source.id, false);
    rig.controller.create_snapshot(&given_up).await.unwrap_err();
    assert_eq!(
        rig.double.snapshots(),
        2,
        "cut first, though it is not to stay"
    );
    *lock(&rig.machines[0].trouble) = None;
    rig.archived("t", &source.id, false).await;
    let snapshot = rig.archived("s", &source.id, true).await;
    *lock(&rig.machines[0].trouble) = Some((Fault::MaybeDone, "gone".to_owned()));
    let away = wanted("x", "b", Some(&snapshot));
    let waits = rig.controller.create(&away).await.unwrap_err();
    assert_eq!(waits.fault(), Fault::MaybeDone, "{}", chain(&waits));
    *lock(&rig.machines[0].trouble) = None;
    rig.restored(&away).await;
    rig.assert_at_rest(&["v", "x"], &["s"]).await;
}

#[tokio::test]
async fn what_is_damaged_in_the_archive_becomes_no_volume() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let snapshot = rig.archived("s", &source.id, true).await;
    let away = wanted("x", "b", Some(&snapshot));
    let refused = async |object: &Path| {
        let refused = rig
            .until(async || match rig.controller.create(&away).await {
                Ok(volume) => panic!("{volume:?} was made"),
                Err(error) if matches!(error.fault(), Fault::Busy) => None,
                Err(error) => Some((error.fault(), chain(&error))),
            })
            .await;
        assert_eq!(refused.0, Fault::Precondition, "{}", refused.1);
        let object = object.strip_prefix(rig.folder.path()).unwrap();
        assert!(
            refused.1.contains(object.to_str().unwrap()),
            "{}",
            refused.1
        );
        rig.assert_at_rest(&["v"], &["s"]).await;
    };
    let damages: [fn(&Path); 3] = [
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        |path| std::fs::remove_file(path).unwrap(),
        |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
    ];
    let (chunk, manifest) = (
        rig.objects("chunks").remove(0),
        rig.objects("manifests").remove(0),
    );
    for (object, damage) in [
        (&chunk, damages[0]),
        (&chunk, damages[1]),
        (&manifest, damages[2]),
    ] {
        let whole = std::fs::read(object).unwrap();
        damage(object);
        refused(object).await;
        std::fs::write(object, whole).unwrap();
    }
    rig.restored(&away).await;
}

#[tokio::test]
async fn what_a_sidecar_stopped_asking_for_is_brought_to_its_end() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let asked = snapshot_of("s", &source.id, true);
    let snapshot = rig.controller.create_snapshot(&asked).await.unwrap();
    rig.until(async || {
        rig.controller.reconcile().await;
        let found = rig.controller.get_snapshot(&snapshot.id).await.unwrap();
        found.is_ready.then_some(())
    })
    .await;
    rig.assert_at_rest(&["v"], &["s"]).await;
    let away = wanted("x", "b", Some(&snapshot));
    let begun = rig.controller.create(&away).await;
    assert!(begun.is_ok() || begun.unwrap_err().fault() == Fault::Busy);
    rig.until(async || {
        rig.controller.reconcile().await;
        let volumes = rig.double.volumes();
        (volumes.len() == 2 && volumes.iter().any(|it| it.name == "x")).then_some(())
    })
    .await;
    rig.assert_at_rest(&["v", "x"], &["s"]).await;
}

#[tokio::test]
async fn an_archiver_remembers_what_archives_hold_and_says_which_does_not_answer() {
    let rig = Rig::new(1).await;
    let machine = &rig.machines[0];
    let works = machine.works(machine.world.host());
    // Stores have a runtime of their own.
    let look = async |archive: &str| {
        let (works, archives) = (works.clone(), vec![archive.to_owned()]);
        let look = move || {
            works.look_at(&archives);
            works.looks()
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    };
    let empty = Look {
        good: true,
        ..Look::default()
    };
    assert_eq!(look("here").await["here"], empty);
    let source = rig.volume("v", &content(7)).await;
    let mut newest = 0;
    for name in ["s", "t"] {
        let snapshot = rig.archived(name, &source.id, false).await;
        let cut = snapshot.created_at.duration_since(UNIX_EPOCH).unwrap();
        newest = cut.as_secs();
    }
    let held = Look {
        good: true,
        snapshots: 2,
        newest: [(source.id.to_string(), newest)].into(),
    };
    assert_eq!(look("here").await["here"], held);
    *lock(&machine.trouble) = Some((Fault::MaybeDone, "no route".to_owned()));
    let silent = Look {
        good: false,
        ..held
    };
    assert_eq!(look("here").await["here"], silent);
    let other = look("other").await;
    assert_eq!(other.keys().collect::<Vec<_>>(), ["other"]);
    assert!(!other["other"].good);
}
