//! Logins that go unanswered or elsewhere, and an open-iscsi that knows less than it should.

use super::*;

#[test]
fn a_portal_that_never_answers_the_login_holds_nobody_up() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (disk, neighbour) = (rig.volume(5), rig.volume(6));
    rig.fake.set_portal(rig.portals[1], PortalState::Mute);
    for volume in [disk, neighbour] {
        let begun = engine.host.now();
        let attached = rig.ensure(&engine, volume).unwrap();
        assert!(engine.host.now().since(begun) < Duration::from_secs(5));
        assert_eq!(attached.map.members.len(), 1);
        let (path, why) = &attached.missing[0];
        assert_eq!(path.portal, rig.portals[1]);
        assert!(why.contains("still under way"), "{why}");
    }
    // iscsid gives up after one timeout of 10 s.
    rig.fake.sleep(Duration::from_secs(30));
    assert_eq!(rig.fake.session_count(), 1);
    let patient = Want {
        grace: Duration::from_secs(30),
        ..rig.want(&engine, disk)
    };
    let begun = engine.host.now();
    let attached = engine.ensure(&patient).unwrap();
    assert!(engine.host.now().since(begun) < Duration::from_secs(20));
    let why = &attached.missing[0].1;
    assert!(why.contains("iscsiadm could not log in"), "{why}");
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    assert!(rig.ensure(&engine, disk).unwrap().missing.is_empty());
    rig.detach(&engine, disk).unwrap();
    rig.detach(&engine, neighbour).unwrap();
    rig.assert_clean();
}

#[test]
fn a_login_that_the_target_sends_elsewhere_is_known_again() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let elsewhere = "10.3.0.1".parse().unwrap();
    for portal in rig.portals {
        rig.fake.redirect(portal, elsewhere);
    }
    assert!(rig.ensure(&engine, disk).unwrap().missing.is_empty());
    assert!(!rig.ensure(&engine, disk).unwrap().changed);
    assert_eq!(rig.fake.session_count(), 2);
    rig.detach(&engine, disk).unwrap();
    let reaped = engine.reap_idle(Duration::ZERO).unwrap();
    assert_eq!((reaped.ended.len(), reaped.failed.len()), (2, 0));
    assert_eq!(rig.fake.session_count(), 0);
    rig.assert_clean();
}

#[test]
fn an_iscsiadm_that_knows_no_manual_scan_serves_all_the_same() {
    let rig = Rig::new();
    rig.fake.set_old_iscsi();
    let engine = rig.engine();
    let (disk, other) = (rig.volume(5), rig.volume(6));
    let attached = rig.ensure(&engine, disk).unwrap();
    assert_eq!(attached.map.members.len(), 2);
    for portal in rig.portals {
        let record = rig.fake.record_text(&rig.iqn, portal);
        assert!(record.contains("initial_login_retry_max = 1\n"), "{record}");
    }
    let scanned = |text: &String| text.contains("node.session.scan = auto");
    assert!(rig.fake.violations().iter().all(scanned));
    // What iscsid has shown unasked is taken when it is wanted.
    assert_eq!(rig.ensure(&engine, other).unwrap().map.members.len(), 2);
    rig.detach(&engine, disk).unwrap();
    rig.detach(&engine, other).unwrap();
    rig.fake.settle();
    assert!(rig.fake.leftovers().of_volumes().disks.is_empty());
}

#[test]
fn sessions_to_a_volumes_own_target_end_with_it_and_others_stay() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (disk, neighbour) = (rig.volume(5), rig.volume(6));
    let own = |engine: &Engine| {
        let mut want = rig.want(engine, disk);
        want.export.own_target = true;
        want
    };
    rig.ensure(&engine, neighbour).unwrap();
    engine.ensure(&own(&engine)).unwrap();
    rig.detach(&engine, disk).unwrap();
    // The array of this rig shows all at one target: what somebody else uses stays, whatever the export says.
    assert_eq!(rig.fake.session_count(), 2);
    engine.ensure(&own(&engine)).unwrap();
    rig.detach(&engine, neighbour).unwrap();
    assert_eq!(rig.fake.session_count(), 2);
    rig.detach(&engine, disk).unwrap();
    assert_eq!(rig.fake.session_count(), 0);
    assert!(
        rig.fake.leftovers().is_empty(),
        "{:?}",
        rig.fake.leftovers()
    );
    rig.assert_clean();
}
