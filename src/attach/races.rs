//! Races and rare faults of the engine on the fake host; the plain sequences are in `tests`.

use std::path::Path;
use std::time::Duration;

use super::{Attached, Dirs, Engine, Outcome, Want};
use crate::fabric::{Iqn, LocalView, Lun, PathList, Portal, Wwid, select};
use crate::fault::{Fault, Faulted, chain};
use crate::host::Host;
use crate::host::fake::{Delays, DiskId, FakeWorld, FindMultipaths, Leftovers, PortalState, sweep};

const GIB: u64 = 1 << 30;
const DEADLINE: Duration = Duration::from_secs(90);
const STATE: &str = "/var/lib/sanpath";

struct Rig {
    fake: FakeWorld,
    iqn: Iqn,
    portals: [Portal; 2],
}

struct Volume {
    key: String,
    lun: Lun,
    disk: DiskId,
    wwid: Wwid,
}

impl Rig {
    fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:node1".parse().unwrap();
        let portals: [Portal; 2] = ["10.1.0.1", "10.2.0.1"].map(|text| text.parse().unwrap());
        fake.add_target(&iqn, &portals);
        Self { fake, iqn, portals }
    }

    fn volume(&self, number: u16) -> Volume {
        let wwid = format!("36001405{number:025x}").parse().unwrap();
        let disk = self.fake.add_disk(&wwid, GIB);
        let lun = Lun(number);
        self.fake.map_lun(&self.iqn, lun, disk);
        let key = format!("volume-{number}");
        Volume {
            key,
            lun,
            disk,
            wwid,
        }
    }

    fn engine(&self) -> Engine {
        engine_on(self.fake.new_process().host())
    }

    fn want(&self, host: &Host, volume: &Volume) -> Want {
        let export = self.fake.export(volume.disk);
        Want {
            key: volume.key.clone(),
            wanted: select(&export, &PathList::SanPortals, &LocalView::default()).wanted,
            export,
            no_path_retry: None,
            min_paths: 1,
            deadline: host.deadline_in(DEADLINE),
            grace: Duration::from_secs(2),
            payload: serde_json::json!({}),
        }
    }

    fn attach(&self, engine: &Engine, volume: &Volume) -> Attached {
        let want = self.want(&self.fake.host(), volume);
        engine
            .ensure(&want)
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    fn detach(&self, engine: &Engine, volume: &Volume) -> Outcome {
        let deadline = self.fake.host().deadline_in(DEADLINE);
        let detached = engine.detach(&volume.key, deadline);
        detached.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// What stays beside the sessions and the notes about them.
    fn left(&self) -> Leftovers {
        self.fake.settle();
        let mut left = self.fake.leftovers().of_volumes();
        let notes = Path::new(STATE).join("sessions");
        left.files
            .retain(|file| !Path::new(file).starts_with(&notes));
        left
    }

    fn assert_nothing_left(&self, when: &str) {
        let left = self.left();
        assert!(left.is_empty(), "{when}: {left:#?}");
        assert_eq!(self.fake.violations(), [""; 0], "{when}");
    }
}

fn engine_on(host: Host) -> Engine {
    let dirs = Dirs::under(Path::new("/"), Path::new(STATE), Path::new("/run/sanpath"));
    Engine::new(host, dirs)
}

#[test]
fn a_crash_after_every_step_of_attach_is_undone_by_a_detach() {
    for step in sweep::steps() {
        let rig = Rig::new();
        let volume = rig.volume(5);
        let want = rig.want(&rig.fake.host(), &volume);
        let ended = rig
            .fake
            .crash_after(step, |host| engine_on(host.clone()).ensure(&want).is_ok());
        if ended.is_some() {
            break;
        }
        rig.detach(&rig.engine(), &volume);
        rig.assert_nothing_left(&format!("attach cut after step {step}, then detached"));
    }
}

#[test]
fn one_path_makes_a_map_in_every_mode_of_multipathd() {
    for find in [
        FindMultipaths::Strict,
        FindMultipaths::Yes,
        FindMultipaths::Greedy,
    ] {
        for friendly in [false, true] {
            let rig = Rig::new();
            rig.fake.set_find_multipaths(find);
            rig.fake.set_friendly_names(friendly);
            rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
            let (engine, volume) = (rig.engine(), rig.volume(5));
            assert_eq!(rig.attach(&engine, &volume).map.members, ["sda"]);
            rig.detach(&engine, &volume);
            rig.assert_nothing_left("in every mode");
        }
    }
}

#[test]
fn two_processes_make_one_session_for_each_portal() {
    let rig = Rig::new();
    let volumes = [rig.volume(1), rig.volume(2)];
    std::thread::scope(|scope| {
        for volume in &volumes {
            scope.spawn(|| rig.attach(&rig.engine(), volume));
        }
    });
    assert_eq!(rig.fake.session_count(), 2);
    assert_eq!(rig.fake.violations(), [""; 0]);
}

#[test]
fn an_administrators_session_is_not_ours() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    let iqn: Iqn = "iqn.1999-01.com.example:backup".parse().unwrap();
    rig.fake.add_target(&iqn, &rig.portals);
    let wwid: Wwid = "36001405bbbbbbbbbbbbbbbbbbbbbbbbb".parse().unwrap();
    let disk = rig.fake.add_disk(&wwid, GIB);
    rig.fake.map_lun(&iqn, Lun(5), disk);
    rig.fake.add_foreign_session(&iqn, rig.portals[0]);
    rig.fake.add_foreign_session(&rig.iqn, rig.portals[0]);
    rig.fake.settle();
    let attached = rig.attach(&engine, &volume);
    assert_eq!(attached.missing, []);
    rig.detach(&engine, &volume);
    rig.fake.settle();
    assert_eq!(rig.fake.leftovers().maps, [""; 0]);
}

#[test]
fn a_disk_of_the_same_name_at_another_target_is_no_member() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    let elsewhere: Iqn = "iqn.1999-01.com.example:copy".parse().unwrap();
    rig.fake.add_target(&elsewhere, &rig.portals);
    let twin = rig.fake.add_disk(&volume.wwid, GIB);
    rig.fake.map_lun(&elsewhere, Lun(7), twin);
    rig.attach(&engine, &volume);
    engine.verify(&volume.key).unwrap();
    rig.fake.add_foreign_session(&elsewhere, rig.portals[0]);
    rig.fake.settle();
    assert_eq!(rig.fake.paths_of(&volume.wwid), Some(3), "multipathd's way");
    let want = Want {
        export: engine.find_record(&volume.key).unwrap().unwrap().export,
        ..rig.want(&rig.fake.host(), &volume)
    };
    for refused in [
        engine.verify(&volume.key),
        engine.ensure(&want).map(|it| it.map),
    ] {
        let refused = refused.unwrap_err();
        assert!(
            refused.to_string().contains(elsewhere.as_str()),
            "{refused}"
        );
        assert_eq!(refused.fault(), Fault::Precondition);
    }
}

#[test]
fn a_detach_with_every_path_dead_ends_and_loses_nothing_clean() {
    for wait in [0, 60] {
        let rig = Rig::new();
        let (engine, volume) = (rig.engine(), rig.volume(5));
        rig.attach(&engine, &volume);
        for portal in rig.portals {
            rig.fake.set_portal(portal, PortalState::BlackHoled);
        }
        rig.fake.sleep(Duration::from_secs(wait));
        rig.detach(&engine, &volume);
        rig.assert_nothing_left("with every path dead");
    }
}

#[test]
fn a_detach_with_dirty_pages_and_every_path_dead_is_refused() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    rig.fake.dirty_map(&volume.wwid);
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    let deadline = rig.fake.host().deadline_in(DEADLINE);
    assert!(engine.detach(&volume.key, deadline).is_err());
    assert_eq!(rig.fake.violations(), [""; 0], "nothing was thrown away");
    assert!(rig.fake.paths_of(&volume.wwid).is_some());
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::Up);
    }
    rig.fake.sleep(Duration::from_secs(10));
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after the paths came back");
}

/// However often somebody calls while both portals swallow everything, with sessions that died and without any: one thread for each path, and one for
/// each disk that is asked who it is.
#[test]
fn calls_over_black_holes_do_not_pile_up() {
    for warm in [true, false] {
        let rig = Rig::new();
        let (engine, volumes) = (rig.engine(), [rig.volume(5), rig.volume(6)]);
        if warm {
            rig.attach(&engine, &volumes[0]);
        }
        for portal in rig.portals {
            rig.fake.set_portal(portal, PortalState::BlackHoled);
        }
        let mut most = 0;
        for _ in 0..50 {
            for volume in &volumes {
                let mut want = rig.want(&rig.fake.host(), volume);
                want.deadline = rig.fake.host().deadline_in(Duration::from_secs(3));
                // The one that is attached may well be, over paths that are queued on.
                let _ = engine.ensure(&want);
                most = most.max(engine.threads());
            }
        }
        assert!(most <= 2 * (2 + 2), "{most} threads");
        for portal in rig.portals {
            rig.fake.set_portal(portal, PortalState::Up);
        }
        rig.fake.settle();
        assert_eq!(engine.threads(), 0, "warm: {warm}");
        for volume in &volumes {
            rig.attach(&engine, volume);
            rig.detach(&engine, volume);
        }
        rig.assert_nothing_left("after the black holes");
    }
}

#[test]
fn a_map_that_queues_for_ever_holds_up_no_detach() {
    let rig = Rig::new();
    rig.fake.set_no_path_retry(None);
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    rig.fake.settle();
    let before = rig.fake.host().now();
    rig.detach(&engine, &volume);
    let took = rig.fake.host().now().since(before);
    assert!(took < Duration::from_secs(60), "{took:?}");
    rig.assert_nothing_left("with every path dead and endless queueing");
}

#[test]
fn somebody_who_has_the_map_open_for_a_moment_is_waited_for() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    rig.fake.hold_map(&volume.wwid, Some("udev-worker"));
    let wwid = volume.wwid.clone();
    rig.fake.later(Duration::from_secs(3), move |later| {
        later.hold_map(&wwid, None);
    });
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after a moment's opener");
}

#[test]
fn somebody_who_keeps_the_map_open_is_named() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    rig.fake.hold_map(&volume.wwid, Some("qemu"));
    let deadline = rig.fake.host().deadline_in(DEADLINE);
    let refused = engine.detach(&volume.key, deadline).unwrap_err();
    let told = crate::fault::chain(&refused);
    assert!(told.contains("(qemu) has /dev/dm-0 open"), "{told}");
    rig.fake.hold_map(&volume.wwid, None);
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after the opener went");
}

#[test]
fn a_lun_that_the_san_took_away_first_does_not_wedge_the_detach() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    rig.fake.unmap_lun(&rig.iqn, volume.lun);
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after an early unmap");
}

#[test]
fn slow_daemons_are_waited_for() {
    let rig = Rig::new();
    rig.fake.set_delays(Delays {
        disk: Duration::from_millis(300),
        udev: Duration::from_secs(20),
        multipathd: Duration::from_secs(1),
        ..Delays::default()
    });
    let (engine, volume) = (rig.engine(), rig.volume(5));
    let attached = rig.attach(&engine, &volume);
    assert_eq!(attached.map.wwid, volume.wwid);
    let told = rig.fake.history().matches("add path").count();
    assert_eq!(told, 0, "udev and multipathd work; a word only delays them");
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("with slow daemons");
}

/// A disk that appears while its LUN is still being made is noted by the kernel without its port groups, and dm-multipath refuses it until the kernel asks again.
#[test]
fn a_disk_that_was_noted_too_early_is_asked_again() {
    let rig = Rig::new();
    rig.fake.cut_notes();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    let attached = rig.attach(&engine, &volume);
    assert_eq!(attached.map.members, ["sda", "sdb"]);
    let rescans = || rig.fake.history().matches("rescan").count();
    assert_eq!(rescans(), 2);
    rig.attach(&engine, &volume);
    assert_eq!(rescans(), 2, "once is enough");
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after cut notes");
}

/// A host that has more to do than a call has time. What is there stays, and is not asked about by words that give it more to do, so that repeated calls get through.
#[test]
fn disks_that_wait_for_a_busy_udev_stay_for_the_next_call() {
    for repeated in [true, false] {
        let rig = Rig::new();
        rig.fake.set_delays(Delays {
            udev: Duration::from_secs(100),
            ..Delays::default()
        });
        let (engine, volume) = (rig.engine(), rig.volume(5));
        let want = rig.want(&rig.fake.host(), &volume);
        let error = engine.ensure(&want).unwrap_err();
        assert_eq!(error.fault(), Fault::MaybeDone);
        assert!(chain(&error).contains("udev is still at work"), "{error}");
        let scans = || rig.fake.history().matches("/scan").count();
        let before = scans();
        if repeated {
            let attached = rig.attach(&engine, &volume);
            assert_eq!(attached.map.members, ["sda", "sdb"]);
            assert_eq!(scans(), before, "the disks are there");
        }
        assert_eq!(rig.fake.history().matches("add path").count(), 0);
        rig.detach(&engine, &volume);
        rig.assert_nothing_left("after a busy udev");
    }
}

/// What was attached is asked by what it holds: the map and each path under it.
fn assert_reaches(rig: &Rig, attached: &Attached, volume: &Volume, when: &str) {
    let host = rig.fake.host();
    let members = attached.map.members.iter();
    let members = members.map(|disk| Path::new("/dev").join(disk));
    for path in members.chain([attached.map.path.clone()]) {
        let mut block = host.open_block(&path).unwrap();
        let held = block.read(0, 4096).unwrap();
        let is_it = held.starts_with(volume.key.as_bytes());
        assert!(is_it, "{when}: {} is not {}", path.display(), volume.key);
    }
    assert!(!attached.map.members.is_empty(), "{when}");
}

/// Seen on the real kernel: an attach made the next disk under the number while the detach still waited for the end of the last.
#[test]
fn a_disk_under_the_name_and_the_address_of_one_that_went_is_not_it() {
    let rig = Rig::new();
    let engine = rig.engine();
    let host = rig.fake.host();
    let (going, coming) = (rig.volume(1), rig.volume(2));
    // One path: of two, either may get the first name.
    rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
    rig.attach(&engine, &going);
    let disks = crate::scsi::list_disks(&host).unwrap();
    let lives: Vec<_> = disks.iter().map(|disk| disk.life(&host).unwrap()).collect();
    assert_eq!(lives.len(), 1);
    rig.detach(&engine, &going);
    rig.fake.unmap_lun(&rig.iqn, coming.lun);
    rig.fake.map_lun(&rig.iqn, going.lun, coming.disk);
    let next = rig.attach(&engine, &coming);
    assert_eq!(crate::scsi::list_disks(&host).unwrap(), disks);
    for life in &lives {
        assert!(!life.goes_on(&host).unwrap());
        crate::scsi::remove_disk(&host, life, host.deadline_in(Duration::ZERO)).unwrap();
    }
    assert_eq!(next.map.members.len(), 1);
    engine.verify(&coming.key).unwrap();
    assert_eq!(rig.fake.violations(), [""; 0]);
}

/// Seen on the real kernel: the second path joined the moment the map was looked at.
#[test]
fn a_map_that_gets_another_table_just_now_is_waited_for() {
    let rig = Rig::new();
    let engine = rig.engine();
    let volume = rig.volume(1);
    let attached = rig.attach(&engine, &volume);
    let suspended = format!("/sys/block/{}/dm/suspended", attached.map.dm);
    rig.fake.show_attribute(Path::new(&suspended), "1");
    let told = chain(&engine.verify(&volume.key).unwrap_err());
    assert!(told.contains("not in force"), "{told}");
    rig.fake.later(Duration::from_millis(200), move |later| {
        later.show_attribute(Path::new(&suspended), "0");
    });
    engine.verify(&volume.key).unwrap();
}

/// Seen on the real kernel: a disk was held once more when it was about to go.
#[test]
fn a_disk_that_a_mistaken_map_holds_goes_all_the_same() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    let other = rig.volume(6).wwid;
    rig.fake.mistake_path("sdb", &other);
    assert_eq!(rig.fake.paths_of(&other), Some(1), "multipathd's way");
    rig.detach(&engine, &volume);
    assert_eq!(rig.fake.paths_of(&other), None);
    let left = rig.left();
    assert_eq!((left.maps, left.disks), (vec![], vec![]));
}

#[test]
fn a_holder_of_a_moment_does_not_fail_a_detach() {
    let rig = Rig::new();
    let (engine, volume) = (rig.engine(), rig.volume(5));
    rig.attach(&engine, &volume);
    rig.fake.build_on("sdb", "dm-7");
    rig.fake.later(Duration::from_secs(3), |later| {
        later.take_off("sdb", "dm-7");
    });
    rig.detach(&engine, &volume);
    rig.assert_nothing_left("after a moment's holder");
}

/// The SAN gives A's number to B the moment A is off the host, or, in every third race, before; B must never be taken for A nor A for B.
#[test]
fn a_thousand_times_a_goes_and_b_comes_under_one_number() {
    let rig = Rig::new();
    let quick = Duration::from_micros(500);
    rig.fake.set_delays(Delays {
        disk: quick,
        udev: quick,
        multipathd: quick,
        ..Delays::default()
    });
    let engine = rig.engine();
    let volumes: Vec<Volume> = (1..=2).map(|number| rig.volume(number)).collect();
    for volume in &volumes {
        rig.fake.unmap_lun(&rig.iqn, volume.lun);
        rig.fake.write_disk(volume.disk, 0, volume.key.as_bytes());
    }
    let mut won = 0;
    let lun = Lun(7);
    rig.fake.map_lun(&rig.iqn, lun, volumes[0].disk);
    rig.attach(&engine, &volumes[0]);
    for round in 0..sweep::rounds(1000) as usize {
        let (going, coming) = (&volumes[round % 2], &volumes[(round + 1) % 2]);
        let mut want = rig.want(&rig.fake.host(), going);
        want.export.wwid = coming.wwid.clone();
        want.key.clone_from(&coming.key);
        std::thread::scope(|scope| {
            let attaching = scope.spawn(|| engine.ensure(&want));
            if round % 3 == 0 {
                rig.fake.map_lun(&rig.iqn, lun, coming.disk);
            }
            rig.detach(&engine, going);
            rig.fake.map_lun(&rig.iqn, lun, coming.disk);
            if let Ok(attached) = attaching.join().unwrap() {
                assert_reaches(&rig, &attached, coming, &format!("in race {round}"));
                won += 1;
            }
        });
        let attached = rig.attach(&engine, coming);
        assert_reaches(&rig, &attached, coming, &format!("after race {round}"));
        assert_eq!(rig.fake.violations(), [""; 0], "round {round}");
    }
    assert!(won > 10, "in {won} races only the attach came through");
}
