//! Logins that are proven by CHAP: set, repaired, refused and changed.

use std::sync::{Arc, Mutex};

use super::*;
use crate::attach::ChapRefused;
use crate::fabric::{Chap, ChapUser};

fn user(name: &str, secret: &str) -> ChapUser {
    ChapUser::new(name.to_owned(), secret.to_owned().into()).unwrap()
}

fn one_way(secret: &str) -> Chap {
    Chap {
        initiator: user("nodes", secret),
        target: None,
    }
}

fn mutual() -> Chap {
    Chap {
        initiator: user("nodes", "hunter2-number-1"),
        target: Some(user("san", "hunter2-the-other")),
    }
}

/// The mounted Secret: what the engine is told when it asks.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Chap>>>);

impl Told {
    fn set(&self, chap: Option<&Chap>) {
        *self.0.lock().unwrap() = chap.cloned();
    }

    fn engine(&self, host: Host) -> Engine {
        let told = self.clone();
        engine_on(host).with_chap(Arc::new(move |_| Ok(told.0.lock().unwrap().clone())))
    }
}

/// A SAN that wants `chap`, and a node that was told the same.
fn rig_with(chap: &Chap) -> (Rig, Told) {
    let (rig, told) = (Rig::new(), Told::default());
    rig.fake.set_chap(&rig.iqn, Some(chap));
    told.set(Some(chap));
    (rig, told)
}

fn records(rig: &Rig) -> [String; 2] {
    rig.portals
        .map(|portal| rig.fake.record_text(&rig.iqn, portal))
}

#[test]
fn logins_are_proven_one_way_and_both() {
    for chap in [one_way("hunter2-number-1"), mutual()] {
        let (rig, told) = rig_with(&chap);
        let engine = told.engine(rig.fake.host());
        let disk = rig.volume(5);
        let (fresh, attached) = processes(&engine, |engine| rig.ensure(engine, disk).unwrap());
        assert_eq!(fresh, 6, "no process more than without CHAP");
        assert_eq!(attached.map.members.len(), 2);
        for record in records(&rig) {
            assert!(record.contains("authmethod = CHAP\n"), "{record}");
            assert!(record.contains("password = hunter2-number-1\n"), "{record}");
            let mutual = record.contains("password_in = hunter2-the-other\n");
            assert_eq!(mutual, chap.target.is_some(), "{record}");
        }
        let steps = engine.host.counts().steps;
        assert!(!rig.ensure(&engine, disk).unwrap().changed);
        assert_eq!(engine.host.counts().steps, steps, "only looks");
        assert!(!rig.fake.history().contains("hunter2"));
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_wrong_secret_everywhere_fails_at_once_and_leaves_nothing() {
    let right = mutual();
    let wrong_target = Chap {
        target: Some(user("san", "hunter2-not-this")),
        ..mutual()
    };
    let unproven = (Fault::MaybeDone, "password_in");
    let denied = (Fault::Denied, "authentication failed");
    for (told_chap, (fault, words)) in [
        (None, denied),
        (Some(one_way("hunter2-number-2")), denied),
        (Some(wrong_target), unproven),
    ] {
        let (rig, told) = rig_with(&right);
        told.set(told_chap.as_ref());
        let engine = told.engine(rig.fake.host());
        let disk = rig.volume(5);
        let begun = engine.host.now();
        let refused = rig.ensure(&engine, disk).unwrap_err();
        assert!(engine.host.now().since(begun) < Duration::from_secs(5));
        assert_eq!(refused.fault(), fault);
        let text = refused.to_string();
        assert!(text.contains(words), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        for portal in rig.portals {
            assert_eq!(rig.fake.refused_logins(&rig.iqn, portal), 1, "{portal}");
        }
        assert_eq!(rig.fake.session_count(), 0);
        rig.assert_clean();
        // The operator mends it.
        told.set(Some(&right));
        assert!(rig.ensure(&engine, disk).unwrap().missing.is_empty());
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn a_wrong_secret_at_one_portal_is_reported_and_the_other_serves() {
    let right = one_way("hunter2-number-1");
    let (rig, told) = rig_with(&right);
    let other = one_way("hunter2-number-2");
    rig.fake.set_chap_at(&rig.iqn, rig.portals[1], Some(&other));
    let engine = told.engine(rig.fake.host());
    let disk = rig.volume(5);
    let attached = rig.ensure(&engine, disk).unwrap();
    assert_eq!(attached.map.members.len(), 1);
    let (path, why) = &attached.missing[0];
    assert_eq!(path.portal, rig.portals[1]);
    assert!(why.contains("authentication failed"), "{why}");
    assert!(why.contains("CHAP as \"nodes\""), "{why}");
    assert_eq!(rig.fake.refused_logins(&rig.iqn, rig.portals[1]), 1);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn old_settings_of_a_record_are_put_right() {
    let right = one_way("hunter2-number-1");
    let (rig, told) = rig_with(&right);
    let host = rig.fake.host();
    // An administrator's record, with what was right once, and a setting of its own.
    for portal in rig.portals {
        let address = format!("{},{},1", portal.address(), portal.port());
        let path = format!("/etc/iscsi/nodes/{}/{address}/default", rig.iqn);
        let text = "# BEGIN RECORD 2.1.11\nnode.startup = automatic\nnode.session.auth.authmethod = CHAP\nnode.session.auth.username = old\nnode.session.auth.password = old-secret-old\nnode.session.auth.username_in = old\nnode.session.auth.password_in = old-secret-san\nnode.session.iscsi.FirstBurstLength = 131072\n# END RECORD\n";
        rig.fake.write_file(Path::new(&path), text);
    }
    let engine = told.engine(host);
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    for record in records(&rig) {
        assert!(record.contains("password = hunter2-number-1\n"), "{record}");
        assert!(record.contains("FirstBurstLength = 131072\n"), "{record}");
        assert!(!record.contains("old"), "{record}");
        assert!(!record.contains("_in ="), "{record}");
    }
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn what_we_set_we_take_away_and_nothing_else() {
    let right = one_way("hunter2-number-1");
    let (rig, told) = rig_with(&right);
    let engine = told.engine(rig.fake.host());
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    // The SAN and the partition do without CHAP from now on.
    rig.fake.set_chap(&rig.iqn, None);
    told.set(None);
    rig.ensure(&engine, disk).unwrap();
    for record in records(&rig) {
        assert!(record.contains("authmethod = None\n"), "{record}");
        assert!(!record.contains("hunter2"), "{record}");
    }
    // What comes now is the administrator's.
    for portal in rig.portals {
        let address = format!("{},{},1", portal.address(), portal.port());
        let path = format!("/etc/iscsi/nodes/{}/{address}/default", rig.iqn);
        let text = rig.fake.record_text(&rig.iqn, portal);
        let set = "node.session.auth.authmethod = CHAP\nnode.session.auth.password = admin";
        let text = text.replace("node.session.auth.authmethod = None", set);
        rig.fake.write_file(Path::new(&path), &text);
    }
    rig.ensure(&engine, disk).unwrap();
    for record in records(&rig) {
        assert!(record.contains("password = admin\n"), "{record}");
    }
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn without_credentials_to_be_had_nothing_is_touched() {
    let rig = Rig::new();
    let refuse = |_: &str| Err(ChapRefused::from("partition a: the file is empty"));
    let engine = rig.engine().with_chap(Arc::new(refuse));
    let disk = rig.volume(5);
    let refused = rig.ensure(&engine, disk).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    let text = crate::fault::chain(&refused);
    assert!(text.contains("partition a: the file is empty"), "{text}");
    let steps = engine.host.counts();
    assert_eq!(steps.processes, 0);
    rig.assert_clean();
}

#[test]
fn a_crash_after_any_step_of_a_proven_attach_converges() {
    let chap = mutual();
    let mut crashes = 0;
    for step in 1.. {
        let (rig, told) = rig_with(&chap);
        let disk = rig.volume(5);
        let survived = rig.fake.crash_after(step, |host| {
            let engine = told.engine(host.clone());
            rig.ensure(&engine, disk).unwrap();
        });
        let engine = told.engine(rig.fake.new_process().host());
        let begun = engine.host.now();
        let attached = rig.ensure(&engine, disk).unwrap();
        assert_eq!(attached.map.members.len(), 2, "step {step}");
        let took = engine.host.now().since(begun);
        assert!(took < Duration::from_secs(20), "step {step}: {took:?}");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if survived.is_some() {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 20, "{crashes}");
}

/// A SAN and a node that both have another secret since the volume was attached; the node's rounds have seen it.
fn rotated() -> (Rig, Told, Engine, DiskId) {
    let (rig, told) = rig_with(&one_way("hunter2-number-1"));
    let engine = told.engine(rig.fake.host());
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    let new = one_way("hunter2-number-2");
    rig.fake.set_chap(&rig.iqn, Some(&new));
    told.set(Some(&new));
    assert!(engine.heal(ROUND).unwrap().joined.is_empty());
    (rig, told, engine, disk)
}

fn drop_connection(rig: &Rig, portal: Portal) {
    rig.fake.set_portal(portal, PortalState::Refusing);
    rig.fake.sleep(Duration::from_secs(20));
    rig.fake.set_portal(portal, PortalState::Up);
    rig.fake.sleep(Duration::from_secs(10));
}

#[test]
fn a_changed_secret_waits_in_the_records_and_serves_when_a_session_drops() {
    let (rig, _told, engine, disk) = rotated();
    for record in records(&rig) {
        assert!(record.contains("password = hunter2-number-2\n"), "{record}");
    }
    assert!(!rig.fake.history().contains("--logout"), "sessions go on");
    for portal in rig.portals {
        drop_connection(&rig, portal);
        assert!(rig.fake.refused_logins(&rig.iqn, portal) > 0);
        let back = engine.heal(ROUND).unwrap().joined;
        assert_eq!(back.len(), 1, "{portal}");
        assert_eq!(back[0].portal, portal);
        let verified = engine.verify(&rig.want(&engine, disk).key).unwrap();
        assert_eq!(verified.members.len(), 2);
        drop_connection(&rig, portal);
        assert!(
            engine.heal(ROUND).unwrap().joined.is_empty(),
            "it holds the new one"
        );
        assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2));
    }
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_session_that_the_san_still_accepts_is_not_ended() {
    let (rig, told) = rig_with(&one_way("hunter2-number-1"));
    let engine = told.engine(rig.fake.host());
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    // The Secret was changed before the SAN.
    told.set(Some(&one_way("hunter2-number-2")));
    engine.heal(ROUND).unwrap();
    drop_connection(&rig, rig.portals[0]);
    engine.heal(ROUND).unwrap();
    assert!(!rig.fake.history().contains("--logout"));
    // Nor is one whose portal is dead: no login would help.
    rig.fake.set_portal(rig.portals[0], PortalState::BlackHoled);
    rig.fake.sleep(Duration::from_secs(20));
    let begun = engine.host.now();
    engine.heal(ROUND).unwrap();
    assert!(engine.host.now().since(begun) < Duration::from_secs(3));
    assert!(!rig.fake.history().contains("--logout"));
    rig.fake.set_portal(rig.portals[0], PortalState::Up);
    rig.fake.sleep(Duration::from_secs(10));
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_secret_that_is_refused_is_not_tried_again_and_again() {
    let (rig, told, engine, disk) = rotated();
    let portal = rig.portals[0];
    told.set(Some(&one_way("hunter2-mistyped")));
    drop_connection(&rig, portal);
    let before = rig.fake.refused_logins(&rig.iqn, portal);
    for _ in 0..5 {
        assert!(engine.heal(ROUND).unwrap().joined.is_empty());
        rig.fake.sleep(Duration::from_secs(5));
    }
    assert_eq!(rig.fake.refused_logins(&rig.iqn, portal), before + 1);
    assert_eq!(rig.fake.session_count(), 1, "the working one stays");
    told.set(Some(&one_way("hunter2-number-2")));
    rig.fake.sleep(Duration::from_secs(60));
    assert_eq!(engine.heal(ROUND).unwrap().joined.len(), 1);
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2));
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}
