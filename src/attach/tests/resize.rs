//! Volumes that grow: every path or none, never smaller, and back from a crash after any step.

use super::*;
use crate::attach::Resized;
use crate::host::fake::Fault as Mishap;

impl Rig {
    fn resize(&self, engine: &Engine, disk: DiskId, at_least: u64) -> Result<Resized, AttachError> {
        let key = self.want(engine, disk).key;
        engine.resize(&key, at_least, engine.host.deadline_in(PATIENCE))
    }

    fn recorded_size(&self, engine: &Engine, disk: DiskId) -> u64 {
        let key = self.want(engine, disk).key;
        engine.find_record(&key).unwrap().unwrap().export.size
    }
}

#[test]
fn a_map_grows_with_all_its_paths() {
    for at_least in [0, 2 * GIB] {
        let rig = Rig::new();
        let (engine, disk) = (rig.engine(), rig.volume(5));
        let attached = rig.ensure(&engine, disk).unwrap();
        rig.fake.resize_disk(disk, 2 * GIB);
        let grown = rig.resize(&engine, disk, at_least).unwrap();
        assert_eq!((grown.map.size, grown.map.members.len()), (2 * GIB, 2));
        assert_eq!(grown.map.dm, attached.map.dm, "the same device");
        assert!(grown.left_out.is_empty());
        assert_eq!(rig.recorded_size(&engine, disk), 2 * GIB);
        let key = rig.want(&engine, disk).key;
        assert_eq!(engine.verify(&key).unwrap().size, 2 * GIB);
        let steps = engine.host.counts().steps;
        rig.resize(&engine, disk, 2 * GIB).unwrap();
        assert_eq!(engine.host.counts().steps, steps, "only looks");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_portal_that_learns_late_is_waited_for() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    let early = rig.resize(&engine, disk, 2 * GIB).unwrap_err();
    assert!(matches!(early, AttachError::NotGrown { .. }), "{early}");
    assert_eq!(early.fault(), Fault::MaybeDone);
    rig.fake.later(Duration::from_secs(30), move |later| {
        later.resize_disk(disk, 2 * GIB)
    });
    assert_eq!(
        rig.resize(&engine, disk, 2 * GIB).unwrap().map.size,
        2 * GIB
    );
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_path_that_is_away_is_left_out_and_comes_back_with_the_new_size() {
    for answer in [PortalState::Refusing, PortalState::BlackHoled] {
        let rig = Rig::new();
        let (engine, disk) = (rig.engine(), rig.volume(5));
        rig.ensure(&engine, disk).unwrap();
        rig.fake.set_portal(rig.portals[1], answer);
        rig.fake.settle();
        rig.fake.resize_disk(disk, 2 * GIB);
        let grown = rig.resize(&engine, disk, 2 * GIB).unwrap();
        assert_eq!((grown.map.size, grown.map.members.len()), (2 * GIB, 1));
        assert_eq!(grown.left_out.len(), 1, "{grown:?}");
        rig.fake.set_portal(rig.portals[1], PortalState::Up);
        rig.fake.settle();
        let attached = rig.ensure(&engine, disk).unwrap();
        assert_eq!(
            (attached.map.size, attached.map.members.len()),
            (2 * GIB, 2)
        );
        assert!(attached.missing.is_empty(), "{attached:?}");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_path_that_is_away_for_a_moment_is_waited_for() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    let portal = rig.portals[1];
    rig.fake.set_portal(portal, PortalState::Refusing);
    rig.fake.resize_disk(disk, 2 * GIB);
    rig.fake.later(Duration::from_secs(5), move |later| {
        later.set_portal(portal, PortalState::Up);
    });
    let grown = rig.resize(&engine, disk, 2 * GIB).unwrap();
    assert_eq!((grown.map.size, grown.map.members.len()), (2 * GIB, 2));
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn without_any_path_nothing_grows() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    rig.fake.resize_disk(disk, 2 * GIB);
    let stuck = rig.resize(&engine, disk, 2 * GIB).unwrap_err();
    assert_eq!(stuck.fault(), Fault::MaybeDone, "{stuck}");
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2), "none was taken out");
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::Up);
    }
    rig.fake.settle();
    assert_eq!(
        rig.resize(&engine, disk, 2 * GIB)
            .unwrap()
            .map
            .members
            .len(),
        2
    );
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_smaller_volume_is_refused_and_the_map_stays() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    rig.fake.resize_disk(disk, GIB / 2);
    for at_least in [0, 2 * GIB] {
        let refused = rig.resize(&engine, disk, at_least).unwrap_err();
        assert!(matches!(refused, AttachError::Shrunk { .. }), "{refused}");
        assert_eq!(refused.fault(), Fault::Precondition);
    }
    rig.fake.resize_disk(disk, GIB);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn another_volume_under_the_lun_is_never_taken_for_growth() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    let other = rig.fake.add_disk(&wwid(6), 2 * GIB);
    rig.fake.map_lun(&rig.iqn, Lun(5), other);
    let mut want = rig.want(&engine, disk);
    want.export.wwid = wwid(5);
    let key = want.key;
    let refused = engine.resize(&key, 2 * GIB, engine.host.deadline_in(PATIENCE));
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, AttachError::WrongMember { .. }),
        "{refused}"
    );
}

#[test]
fn multipathd_is_told_until_the_map_has_its_size() {
    for mishap in [
        Mishap::Reply("fail\ntimeout\n"),
        Mishap::Reply("ok\n"),
        Mishap::Errno(nix::errno::Errno::ECONNREFUSED),
    ] {
        let rig = Rig::new();
        let (engine, disk) = (rig.engine(), rig.volume(5));
        rig.ensure(&engine, disk).unwrap();
        rig.fake.resize_disk(disk, 2 * GIB);
        rig.fake.fail_next("multipathd", mishap);
        assert_eq!(rig.resize(&engine, disk, 0).unwrap().map.size, 2 * GIB);
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn an_export_older_than_the_volume_is_good_enough() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    let old = rig.want(&engine, disk);
    rig.fake.resize_disk(disk, 2 * GIB);
    assert_eq!(engine.ensure(&old).unwrap().map.size, 2 * GIB);
    assert_eq!(rig.recorded_size(&engine, disk), 2 * GIB);
    // What was once seen is the least that is taken for the volume, whatever an old export says.
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.ensure(&old).unwrap().map.size, 2 * GIB);
    rig.fake.reboot();
    rig.fake.resize_disk(disk, GIB);
    let engine = engine_on(rig.fake.new_process().host());
    let shrunk = engine.ensure(&Want {
        deadline: engine.host.deadline_in(PATIENCE),
        ..old
    });
    assert_eq!(shrunk.unwrap_err().fault(), Fault::Precondition);
}

#[test]
fn an_export_newer_than_the_map_lets_it_grow() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    rig.fake.resize_disk(disk, 2 * GIB);
    let attached = rig.ensure(&engine, disk).unwrap();
    assert_eq!(
        (attached.map.size, attached.map.members.len()),
        (2 * GIB, 2)
    );
    assert_eq!(rig.recorded_size(&engine, disk), 2 * GIB);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn what_is_not_attached_does_not_grow() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    let refused = rig.resize(&engine, disk, 0).unwrap_err();
    assert!(matches!(refused, AttachError::NotAttached { .. }));
    rig.ensure(&engine, disk).unwrap();
    rig.fake.reboot();
    let engine = engine_on(rig.fake.new_process().host());
    let refused = rig.resize(&engine, disk, 0).unwrap_err();
    assert!(matches!(refused, AttachError::NotAttached { .. }));
}

#[test]
fn a_crash_after_any_step_of_growing_converges() {
    for at_least in [0, 2 * GIB] {
        for step in 1.. {
            let rig = Rig::new();
            let disk = rig.volume(5);
            rig.ensure(&rig.engine(), disk).unwrap();
            rig.fake.resize_disk(disk, 2 * GIB);
            let process = rig.fake.new_process();
            let ended = process.crash_after(step, |host| {
                rig.resize(&engine_on(host.clone()), disk, at_least)
                    .unwrap();
            });
            let engine = engine_on(rig.fake.new_process().host());
            let key = rig.want(&engine, disk).key;
            engine.verify(&key).unwrap();
            let grown = rig.resize(&engine, disk, at_least).unwrap();
            assert_eq!((grown.map.size, grown.map.members.len()), (2 * GIB, 2));
            rig.resize(&engine, disk, 0).unwrap();
            assert_eq!(rig.recorded_size(&engine, disk), 2 * GIB, "step {step}");
            rig.detach(&engine, disk).unwrap();
            rig.assert_clean();
            if ended.is_some() {
                assert!(step > 3, "{step}");
                break;
            }
        }
    }
}

#[test]
fn a_path_that_was_left_out_is_brought_back() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
    rig.fake.settle();
    rig.fake.resize_disk(disk, 2 * GIB);
    rig.resize(&engine, disk, 2 * GIB).unwrap();
    assert_eq!(engine.heal(ROUND).unwrap().joined, [], "it is still away");
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    rig.fake.settle();
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(1), "not by itself");
    let back = engine.heal(ROUND).unwrap().joined;
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].portal, rig.portals[1]);
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2));
    let steps = engine.host.counts().steps;
    assert_eq!(engine.heal(ROUND).unwrap().joined, []);
    assert_eq!(engine.host.counts().steps, steps, "only looks");
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.heal(ROUND).unwrap().joined, []);
    rig.assert_clean();
}

#[test]
fn a_crash_after_any_step_of_bringing_back_converges() {
    for step in 1.. {
        let rig = Rig::new();
        let (engine, disk) = (rig.engine(), rig.volume(5));
        rig.ensure(&engine, disk).unwrap();
        rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
        rig.fake.settle();
        rig.fake.resize_disk(disk, 2 * GIB);
        rig.resize(&engine, disk, 2 * GIB).unwrap();
        rig.fake.set_portal(rig.portals[1], PortalState::Up);
        rig.fake.settle();
        let process = rig.fake.new_process();
        let ended = process.crash_after(step, |host| {
            engine_on(host.clone()).heal(ROUND).unwrap().joined
        });
        let engine = engine_on(rig.fake.new_process().host());
        engine.heal(ROUND).unwrap();
        assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2), "step {step}");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            assert!(step > 1, "it did nothing");
            break;
        }
    }
}

#[test]
fn a_disk_without_a_size_at_first_is_asked_again() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    let want = rig.want(&engine, disk);
    rig.fake.resize_disk(disk, 0);
    rig.fake.later(Duration::from_secs(10), move |later| {
        later.resize_disk(disk, GIB)
    });
    let begun = engine.host.now();
    let attached = engine.ensure(&want).unwrap();
    assert_eq!((attached.map.size, attached.map.members.len()), (GIB, 2));
    let took = engine.host.now().since(begun);
    assert!(took < Duration::from_secs(20), "{took:?} for ten seconds");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}
