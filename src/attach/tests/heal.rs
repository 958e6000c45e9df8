//! Paths that come and go under an attached volume, with nobody calling.

use std::sync::{Arc, Mutex};

use super::*;
use crate::attach::ledger::Record;
use crate::fabric::Why;

/// How often the daemon looks while something is amiss.
const TICK: Duration = Duration::from_secs(4);

/// The path list of today's config; none is no config.
#[derive(Clone, Default)]
struct Listed(Arc<Mutex<Option<PathList>>>);

impl Listed {
    fn set(&self, list: &str) {
        *self.0.lock().unwrap() = Some(list.parse().unwrap());
    }

    fn engine(&self, host: Host) -> Engine {
        let listed = self.clone();
        engine_on(host).with_desired(Arc::new(move |record| {
            let list = listed.0.lock().unwrap().clone()?;
            Some(select(&record.export, &list, &LocalView::default()))
        }))
    }
}

impl Rig {
    fn third(&self) -> Portal {
        let third = "10.3.0.1".parse().unwrap();
        self.fake.add_target(&self.iqn, &[third]);
        third
    }

    /// What the daemon does, for so long.
    fn tend(&self, engine: &Engine, span: Duration) {
        let end = engine.host.now().after(span);
        while engine.host.now() < end {
            engine.heal(Duration::ZERO).unwrap();
            self.fake.sleep(TICK);
        }
    }

    fn ensure_listed(&self, engine: &Engine, disk: DiskId, list: &str) {
        let mut want = self.want(engine, disk);
        let list: PathList = list.parse().unwrap();
        want.wanted = select(&want.export, &list, &LocalView::default()).wanted;
        engine.ensure(&want).unwrap();
    }

    fn record(&self, engine: &Engine, disk: DiskId) -> Record {
        let key = self.want(engine, disk).key;
        engine.find_record(&key).unwrap().unwrap()
    }

    fn recorded(&self, engine: &Engine, disk: DiskId) -> Vec<Portal> {
        let wanted = self.record(engine, disk).wanted;
        let mut portals: Vec<Portal> = wanted.iter().map(|path| path.portal).collect();
        portals.sort_unstable();
        portals
    }

    /// The portals whose disks the map has, as multipathd shows them.
    fn serving(&self, engine: &Engine, disk: DiskId) -> Vec<Portal> {
        let key = self.want(engine, disk).key;
        let rows = engine.paths(&key).unwrap();
        let serves = |row: &&super::super::PathRow| row.dm_state.as_deref() == Some("active");
        rows.iter()
            .filter(serves)
            .map(|row| row.path.portal)
            .collect()
    }

    fn told(&self, engine: &Engine, disk: DiskId) -> Vec<String> {
        let key = self.want(engine, disk).key;
        let told = engine.healing().told.get(&key).cloned();
        told.unwrap_or_default().into_iter().collect()
    }
}

#[test]
fn a_path_that_was_missing_at_the_stage_joins_within_half_a_minute() {
    for dead in [
        PortalState::Refusing,
        PortalState::BlackHoled,
        PortalState::Mute,
    ] {
        let rig = Rig::new();
        let (engine, disk) = (rig.engine(), rig.volume(5));
        rig.fake.set_portal(rig.portals[1], dead);
        let attached = rig.ensure(&engine, disk).unwrap();
        assert_eq!(attached.map.members.len(), 1);
        rig.tend(&engine, Duration::from_secs(300));
        assert_eq!(rig.fake.paths_of(&wwid(5)), Some(1));
        rig.fake.set_portal(rig.portals[1], PortalState::Up);
        let back = engine.host.now();
        while rig.fake.paths_of(&wwid(5)) != Some(2) {
            rig.tend(&engine, TICK);
            let took = engine.host.now().since(back);
            let most = if dead == PortalState::Mute { 90 } else { 30 };
            assert!(took < Duration::from_secs(most), "{dead:?}: {took:?}");
        }
        rig.fake.settle();
        let steps = engine.host.counts().steps;
        rig.tend(&engine, Duration::from_secs(60));
        assert_eq!(engine.host.counts().steps, steps, "only looks");
        rig.detach(&engine, disk).unwrap();
        rig.tend(&engine, Duration::from_secs(60));
        rig.assert_clean();
    }
}

#[test]
fn a_portal_that_takes_no_login_is_not_stormed_and_many_volumes_share_an_attempt() {
    let rig = Rig::new();
    let engine = rig.engine();
    rig.fake.set_portal(rig.portals[1], PortalState::Mute);
    let disks: Vec<DiskId> = (1..=4).map(|number| rig.volume(number)).collect();
    for disk in &disks {
        rig.ensure(&engine, *disk).unwrap();
    }
    rig.fake.settle();
    let logins = || rig.fake.history().matches("--login").count();
    let before = logins();
    rig.tend(&engine, Duration::from_secs(600));
    let tried = logins() - before;
    assert!((5..=30).contains(&tried), "{tried} logins in ten minutes");
    assert!(engine.threads() <= disks.len());
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    rig.tend(&engine, Duration::from_secs(120));
    for number in 1..=4 {
        assert_eq!(rig.fake.paths_of(&wwid(number)), Some(2));
    }
    assert_eq!(rig.fake.session_count(), 2);
    for disk in disks {
        rig.detach(&engine, disk).unwrap();
    }
    rig.assert_clean();
}

#[test]
fn a_list_that_changes_moves_the_live_paths_and_their_record() {
    let rig = Rig::new();
    let third = rig.third();
    let listed = Listed::default();
    let (engine, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    let [first, second] = rig.portals;
    listed.set("10.1.0.1,10.2.0.1");
    rig.ensure_listed(&engine, disk, "10.1.0.1,10.2.0.1");

    listed.set("10.1.0.1,10.2.0.1,10.3.0.1");
    assert_eq!(engine.heal(ROUND).unwrap().joined.len(), 1);
    assert_eq!(rig.serving(&engine, disk), [first, second, third]);

    listed.set("10.3.0.1");
    rig.tend(&engine, Duration::from_secs(30));
    assert_eq!(rig.serving(&engine, disk), [third]);
    assert_eq!(rig.recorded(&engine, disk), [third]);
    assert_eq!(rig.fake.leftovers().disks.len(), 1, "their disks are gone");
    assert_eq!(rig.fake.session_count(), 3, "sessions are the reaper's");
    let key = rig.want(&engine, disk).key;
    assert_eq!(engine.verify(&key).unwrap().members.len(), 1);
    engine.reap_idle(Duration::ZERO).unwrap();
    assert_eq!(rig.fake.session_count(), 1);

    listed.set("10.1.0.1");
    rig.tend(&engine, Duration::from_secs(30));
    assert_eq!(rig.serving(&engine, disk), [first], "all of it was changed");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_path_that_is_listed_no_more_stays_while_it_is_the_last_to_serve() {
    let rig = Rig::new();
    let listed = Listed::default();
    let (engine, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    let [first, second] = rig.portals;
    listed.set("10.1.0.1,10.2.0.1");
    rig.ensure(&engine, disk).unwrap();
    rig.fake.set_portal(first, PortalState::BlackHoled);
    listed.set("10.1.0.1");
    rig.tend(&engine, Duration::from_secs(120));
    assert_eq!(rig.serving(&engine, disk), [second]);
    assert!(rig.told(&engine, disk)[0].contains("until a listed path serves"));
    rig.fake.set_portal(first, PortalState::Up);
    rig.tend(&engine, Duration::from_secs(60));
    assert_eq!(rig.serving(&engine, disk), [first]);
    assert_eq!(rig.recorded(&engine, disk), [first]);
    assert_eq!(rig.told(&engine, disk), [""; 0]);
    // A list that means nothing takes nothing.
    listed.set("10.9.0.1");
    rig.tend(&engine, Duration::from_secs(60));
    assert_eq!(rig.serving(&engine, disk), [first]);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn another_volume_under_the_path_that_stays_vouches_for_nothing() {
    let rig = Rig::new();
    let listed = Listed::default();
    let (engine, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    let other = rig.fake.add_disk(&wwid(6), GIB);
    rig.fake.map_lun(&rig.iqn, Lun(5), other);
    listed.set("10.1.0.1");
    rig.tend(&engine, Duration::from_secs(30));
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2), "nothing was taken");
}

#[test]
fn an_address_that_the_export_does_not_hold_is_told_and_nothing_is_done() {
    let rig = Rig::new();
    let listed = Listed::default();
    let (engine, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    // The SAN serves it by now; the volume was published before.
    rig.third();
    listed.set("10.1.0.1,10.2.0.1,10.3.0.1");
    let steps = engine.host.counts().steps;
    rig.tend(&engine, Duration::from_secs(60));
    assert_eq!(engine.host.counts().steps, steps);
    let told = rig.told(&engine, disk);
    assert!(
        told[0].starts_with("10.3.0.1:") && told[0].contains("re-attach"),
        "{told:?}"
    );
    let left_out = engine.desired(&rig.record(&engine, disk)).left_out;
    assert_eq!(left_out[0].why, Why::NotOffered);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_path_that_somebody_failed_by_hand_is_told_and_left_to_him() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    let tell = |words: &str| {
        let told = rig.fake.host().tell_multipathd(words, PATIENCE);
        assert_eq!(told.unwrap(), "ok\n");
    };
    tell("fail path sdb");
    let steps = engine.host.counts().steps;
    rig.tend(&engine, Duration::from_secs(30));
    assert_eq!(rig.told(&engine, disk), [""; 0], "it may come back");
    rig.tend(&engine, Duration::from_secs(90));
    assert!(rig.told(&engine, disk)[0].contains("by hand"));
    assert_eq!(engine.host.counts().steps, steps, "nothing was touched");
    tell("reinstate path sdb");
    rig.tend(&engine, Duration::from_secs(10));
    assert_eq!(rig.told(&engine, disk), [""; 0]);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_member_that_shows_an_old_size_is_asked_again() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    // Before the map grew; the kernel has forgotten it, as after a format of the disk.
    let size = Path::new("/sys/block/sdb/size");
    let shown = rig.fake.host().read_attribute(size).unwrap();
    rig.fake.show_attribute(size, "2048");
    engine.heal(ROUND).unwrap();
    rig.fake.settle();
    assert_eq!(rig.fake.host().read_attribute(size).unwrap(), shown);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_new_process_takes_over_what_the_old_one_left() {
    let rig = Rig::new();
    rig.third();
    let listed = Listed::default();
    let (old, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
    rig.ensure_listed(&old, disk, "10.1.0.1,10.2.0.1");
    rig.fake.kill();
    let engine = listed.engine(rig.fake.new_process().host());
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    listed.set("10.2.0.1,10.3.0.1");
    rig.tend(&engine, Duration::from_secs(60));
    let serving = rig.serving(&engine, disk);
    assert_eq!(serving.len(), 2);
    assert!(!serving.contains(&rig.portals[0]), "{serving:?}");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn what_a_stage_lists_no_more_is_known_until_it_is_gone() {
    let rig = Rig::new();
    let listed = Listed::default();
    let (engine, disk) = (listed.engine(rig.fake.host()), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    listed.set("10.1.0.1");
    rig.ensure_listed(&engine, disk, "10.1.0.1");
    assert_eq!(rig.recorded(&engine, disk).len(), 2);
    rig.tend(&engine, Duration::from_secs(30));
    assert_eq!(rig.recorded(&engine, disk), [rig.portals[0]]);
    assert_eq!(rig.fake.leftovers().disks.len(), 1);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_volume_that_somebody_works_on_is_passed_over() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
    rig.ensure(&engine, disk).unwrap();
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    rig.fake.settle();
    let key = rig.want(&engine, disk).key;
    let deadline = engine.host.deadline_in(Duration::ZERO);
    let taken = engine.lock_volume(&key, deadline).unwrap().unwrap();
    let before = engine.host.now();
    assert_eq!(engine.heal(ROUND).unwrap().joined, []);
    assert!(engine.host.now().since(before) < Duration::from_secs(1));
    drop(taken);
    assert_eq!(engine.heal(ROUND).unwrap().joined.len(), 1);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

/// The round has begun a path whose login, or whose scan, does not end. The unstage does not wait for it, and what it brings in the end goes.
#[test]
fn an_unstage_wins_over_a_path_that_is_being_healed() {
    for stuck in [PortalState::Mute, PortalState::Stalled] {
        let rig = Rig::new();
        let (engine, disk, other) = (rig.engine(), rig.volume(5), rig.volume(6));
        let portal = rig.portals[1];
        if stuck == PortalState::Stalled {
            // Its session is there for the other volume.
            rig.ensure(&engine, other).unwrap();
        }
        rig.ensure_listed(&engine, disk, "10.1.0.1");
        let mut record = rig.record(&engine, disk);
        record.wanted = rig.want(&engine, disk).wanted;
        engine.ledger().write(&record).unwrap();
        rig.fake.set_portal(portal, stuck);
        engine.heal(Duration::ZERO).unwrap();
        rig.fake.sleep(Duration::from_secs(1));
        assert_eq!(engine.threads(), 1, "{stuck:?}: it is under way");
        let begun = engine.host.now();
        rig.detach(&engine, disk).unwrap();
        let took = engine.host.now().since(begun);
        assert!(took < Duration::from_secs(5), "{stuck:?}: {took:?}");
        rig.fake.sleep(Duration::from_secs(3));
        rig.fake.set_portal(portal, PortalState::Up);
        rig.tend(&engine, Duration::from_secs(60));
        assert_eq!(rig.fake.paths_of(&wwid(5)), None, "{stuck:?}");
        if stuck == PortalState::Stalled {
            assert_eq!(rig.fake.leftovers().disks.len(), 2);
            rig.detach(&engine, other).unwrap();
        }
        rig.assert_clean();
        assert_eq!(engine.threads(), 0);
    }
}

#[test]
fn a_crash_after_any_step_of_a_changed_list_converges() {
    for step in 1.. {
        let rig = Rig::new();
        let third = rig.third();
        let listed = Listed::default();
        let disk = rig.volume(5);
        let engine = listed.engine(rig.fake.host());
        rig.ensure_listed(&engine, disk, "10.1.0.1,10.2.0.1");
        listed.set("10.2.0.1,10.3.0.1");
        let process = rig.fake.new_process();
        let ended = process.crash_after(step, |host| {
            let engine = listed.engine(host.clone());
            for _ in 0..3 {
                engine.heal(ROUND).unwrap();
            }
        });
        let left = rig.fake.paths_of(&wwid(5));
        assert!(left.is_some_and(|paths| paths >= 1), "step {step}");
        let engine = listed.engine(rig.fake.new_process().host());
        if step % 2 == 0 {
            rig.tend(&engine, Duration::from_secs(60));
            let serving = rig.serving(&engine, disk);
            assert_eq!(serving, [rig.portals[1], third], "step {step}");
            assert_eq!(rig.recorded(&engine, disk), serving, "step {step}");
        }
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            assert!(step > 6, "it did little: {step}");
            break;
        }
    }
}
