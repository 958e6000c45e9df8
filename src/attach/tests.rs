//! The engine on a host that behaves: whole sequences, faults, and a crash after every single step.

mod chap;
mod heal;
mod interfaces;
mod logins;
mod no_path_retry;
mod reboots;
mod resize;
mod two_initiators;
mod upgrades;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{AttachError, Attached, DetachError, Dirs, Engine, Outcome, Want};
use crate::fabric::{Iqn, LocalView, Lun, PathList, Portal, Wwid, select};
use crate::fault::{Fault, Faulted};
use crate::host::Host;
use crate::host::fake::{self, DiskId, FakeWorld, PortalState};
use crate::multipath;

const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the work on a path takes that can be mended.
const ROUND: Duration = Duration::from_secs(15);

struct Rig {
    fake: FakeWorld,
    iqn: Iqn,
    portals: [Portal; 2],
}

impl Rig {
    fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let portals = ["10.1.0.1", "10.2.0.1"].map(|text| text.parse().unwrap());
        fake.add_target(&iqn, &portals);
        Self { fake, iqn, portals }
    }

    fn engine(&self) -> Engine {
        engine_on(self.fake.host())
    }

    /// A volume under a LUN.
    fn volume(&self, number: u16) -> DiskId {
        let disk = self.fake.add_disk(&wwid(number), GIB);
        self.fake.map_lun(&self.iqn, Lun(number), disk);
        disk
    }

    fn want(&self, engine: &Engine, disk: DiskId) -> Want {
        let export = self.fake.export(disk);
        Want {
            key: format!("volume {}", export.wwid),
            wanted: select(&export, &PathList::SanPortals, &LocalView::default()).wanted,
            export,
            no_path_retry: None,
            min_paths: 1,
            deadline: engine.host.deadline_in(PATIENCE),
            grace: Duration::from_secs(2),
            payload: Value::Null,
        }
    }

    fn ensure(&self, engine: &Engine, disk: DiskId) -> Result<Attached, AttachError> {
        engine.ensure(&self.want(engine, disk))
    }

    fn detach(&self, engine: &Engine, disk: DiskId) -> Result<Outcome, DetachError> {
        let key = self.want(engine, disk).key;
        engine.detach(&key, engine.host.deadline_in(PATIENCE))
    }

    /// Nothing of any volume is left, and nothing was done that no careful driver does.
    #[track_caller]
    fn assert_clean(&self) {
        self.fake.settle();
        let left = self.fake.leftovers();
        let notes = |path: &String| path.starts_with("/var/lib/sanpath/node/sessions");
        assert!(left.files.iter().all(notes), "{:?}", left.files);
        let left = fake::Leftovers {
            files: Vec::new(),
            ..left
        };
        assert!(left.clone().of_volumes().is_empty(), "{left:?}");
        assert_eq!(self.fake.violations(), [""; 0]);
    }
}

fn engine_on(host: Host) -> Engine {
    let dirs = Dirs::under(
        Path::new("/"),
        Path::new("/var/lib/sanpath/node"),
        Path::new("/run/sanpath"),
    );
    Engine::new(host, dirs)
}

fn wwid(number: u16) -> Wwid {
    format!("36001405{number:025x}").parse().unwrap()
}

/// The processes that `work` starts.
fn processes<T>(engine: &Engine, work: impl FnOnce(&Engine) -> T) -> (u64, T) {
    let counted = engine.acting_on(engine.host.tallied());
    let outcome = work(&counted);
    (counted.host.counts().processes, outcome)
}

#[test]
fn a_volume_comes_on_two_paths_and_goes() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let (fresh, attached) = processes(&engine, |engine| rig.ensure(engine, disk).unwrap());
    assert_eq!(fresh, 6, "three for each portal");
    assert_eq!(attached.map.members, ["sda", "sdb"]);
    assert_eq!((attached.map.size, attached.changed), (GIB, true));
    assert!(attached.missing.is_empty(), "{:?}", attached.missing);
    let before = engine.host.counts().steps;
    let again = rig.ensure(&engine, disk).unwrap();
    assert_eq!((again.map, again.changed), (attached.map, false));
    assert_eq!(engine.host.counts().steps, before, "only looks");
    let key = rig.want(&engine, disk).key;
    assert_eq!(engine.verify(&key).unwrap().members.len(), 2);
    let rows = engine.paths(&key).unwrap();
    let disks: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.disk).collect();
    assert_eq!(disks.len(), 2);
    let ready = |row: &super::PathRow| row.checker.as_deref() == Some("ready");
    assert!(rows.iter().all(ready), "{rows:?}");
    let (unstage, outcome) = processes(&engine, |engine| rig.detach(engine, disk).unwrap());
    assert_eq!((unstage, outcome), (1, Outcome::Changed));
    assert_eq!(rig.detach(&engine, disk).unwrap(), Outcome::Already);
    assert_eq!(rig.fake.session_count(), 2, "sessions are the node's");
    rig.assert_clean();
}

#[test]
fn a_second_volume_on_warm_sessions_costs_no_process() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (first, second) = (rig.volume(5), rig.volume(6));
    rig.ensure(&engine, first).unwrap();
    let (warm, attached) = processes(&engine, |engine| rig.ensure(engine, second).unwrap());
    assert_eq!((warm, attached.map.members.len()), (0, 2));
    rig.detach(&engine, first).unwrap();
    assert_eq!(rig.fake.paths_of(&wwid(6)), Some(2), "the neighbour stays");
    rig.detach(&engine, second).unwrap();
    rig.assert_clean();
}

#[test]
fn one_dead_portal_is_reported_and_joins_later() {
    for dead in [PortalState::Refusing, PortalState::BlackHoled] {
        let rig = Rig::new();
        let engine = rig.engine();
        let disk = rig.volume(5);
        rig.fake.set_portal(rig.portals[1], dead);
        let begun = engine.host.now();
        let attached = rig.ensure(&engine, disk).unwrap();
        assert!(engine.host.now().since(begun) < Duration::from_secs(5));
        assert_eq!(attached.map.members.len(), 1);
        let (path, why) = &attached.missing[0];
        assert_eq!(path.portal, rig.portals[1]);
        assert!(why.contains("does not answer"), "{why}");
        rig.fake.set_portal(rig.portals[1], PortalState::Up);
        let healed = rig.ensure(&engine, disk).unwrap();
        assert_eq!(healed.map.members.len(), 2);
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn without_a_live_portal_nothing_is_left() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.set_portal(rig.portals[0], PortalState::Refusing);
    rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
    let (started, failed) = processes(&engine, |engine| rig.ensure(engine, disk));
    let failed = failed.unwrap_err();
    assert_eq!(failed.fault(), Fault::MaybeDone);
    assert!(failed.to_string().contains("0 of 1"), "{failed}");
    assert_eq!(started, 0, "a dead portal never reaches iscsid");
    rig.assert_clean();
    assert!(rig.fake.leftovers().is_empty());
}

#[test]
fn fewer_paths_than_needed_are_undone() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
    let want = Want {
        min_paths: 2,
        ..rig.want(&engine, disk)
    };
    let failed = engine.ensure(&want).unwrap_err();
    assert!(
        failed.to_string().contains("of 2 needed"),
        "{}",
        crate::fault::chain(&failed)
    );
    rig.assert_clean();
}

#[test]
fn a_lun_that_comes_late_is_found() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.fake.add_disk(&wwid(5), GIB);
    rig.fake.map_lun(&rig.iqn, Lun(5), disk);
    let want = rig.want(&engine, disk);
    rig.fake.unmap_lun(&rig.iqn, Lun(5));
    let iqn = rig.iqn.clone();
    rig.fake.later(Duration::from_secs(5), move |san| {
        san.map_lun(&iqn, Lun(5), disk);
    });
    assert_eq!(engine.ensure(&want).unwrap().map.members.len(), 2);
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_thread_that_comes_back_after_the_detach_leaves_nothing() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    rig.detach(&engine, disk).unwrap();
    // The session of the second path is lost; its thread waits for iscsid while the volume comes and goes on the first.
    rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
    rig.fake.sleep(Duration::from_secs(20));
    let attached = rig.ensure(&engine, disk).unwrap();
    assert_eq!(attached.map.members.len(), 1);
    assert!(attached.missing[0].1.contains("under way"));
    rig.detach(&engine, disk).unwrap();
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    rig.fake.settle();
    rig.assert_clean();
}

#[test]
fn a_stale_disk_in_nobodys_use_is_replaced() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (old, new) = (rig.volume(5), rig.fake.add_disk(&wwid(6), GIB));
    rig.ensure(&engine, old).unwrap();
    let answer = engine
        .host
        .tell_multipathd(&format!("del map {}", wwid(5)), PATIENCE)
        .unwrap();
    assert_eq!(answer.trim(), "ok");
    rig.fake.map_lun(&rig.iqn, Lun(5), new);
    let attached = rig.ensure(&engine, new).unwrap();
    assert_eq!(
        (attached.map.wwid, attached.map.members.len()),
        (wwid(6), 2)
    );
    rig.detach(&engine, new).unwrap();
    rig.detach(&engine, old).unwrap();
    rig.assert_clean();
}

/// The SAN shows another volume under the number: that one's disk was refused, and would stay with nobody to take it away.
#[test]
fn a_refused_disk_goes_with_the_volume_that_was_looked_for() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (wanted, shown) = (rig.volume(5), rig.fake.add_disk(&wwid(6), GIB));
    let mut want = rig.want(&engine, wanted);
    rig.fake.map_lun(&rig.iqn, Lun(5), shown);
    let failed = engine.ensure(&want).unwrap_err();
    assert_eq!(failed.fault(), Fault::Precondition, "{failed}");
    rig.assert_clean();
    // A volume of ours under the number is another matter.
    let other = Want {
        key: "other".to_owned(),
        ..rig.want(&engine, shown)
    };
    engine.ensure(&other).unwrap();
    want.deadline = engine.host.deadline_in(PATIENCE);
    let failed = engine.ensure(&want).unwrap_err();
    assert_eq!(failed.fault(), Fault::Precondition, "{failed}");
    assert_eq!(engine.verify("other").unwrap().members.len(), 2);
}

#[test]
fn a_stale_disk_in_use_is_not_touched() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (old, new) = (rig.volume(5), rig.fake.add_disk(&wwid(6), GIB));
    rig.ensure(&engine, old).unwrap();
    rig.fake.map_lun(&rig.iqn, Lun(5), new);
    let failed = rig.ensure(&engine, new).unwrap_err();
    assert_eq!(failed.fault(), Fault::Precondition, "{failed}");
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2));
    let refused = engine.verify(&rig.want(&engine, old).key);
    assert!(
        refused.is_err(),
        "the map of the old one now reaches the new"
    );
}

#[test]
fn a_volume_of_another_size_is_refused() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let mut want = rig.want(&engine, disk);
    want.export.size = 2 * GIB;
    let failed = engine.ensure(&want).unwrap_err();
    assert_eq!(failed.fault(), Fault::Precondition, "{failed}");
    rig.assert_clean();
}

#[test]
fn without_multipathd_there_is_no_volume() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.stop_multipathd();
    let start = rig.fake.host().now();
    let failed = rig.ensure(&engine, disk).unwrap_err();
    assert!(failed.to_string().contains("multipathd"), "{failed}");
    let waited = rig.fake.host().now().since(start);
    assert!(waited < Duration::from_secs(45), "{waited:?}");
    rig.assert_clean();
    rig.fake.start_multipathd();
    rig.ensure(&engine, disk).unwrap();
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_blacklisted_volume_is_told_so() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.blacklist(&wwid(5));
    for listed in [false, true] {
        if listed {
            // multipath's file has it from before; then multipathd is the one who says no.
            let line = format!("/{}/\n", wwid(5));
            let wwids = std::path::Path::new("/etc/multipath/wwids");
            rig.fake.write_file(wwids, &line);
        }
        let failed = rig.ensure(&engine, disk).unwrap_err();
        assert!(failed.to_string().contains("blacklists"), "{failed}");
        assert_eq!(failed.fault(), Fault::Precondition);
        rig.assert_clean();
    }
}

#[test]
fn a_map_in_use_is_not_detached() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    rig.fake.hold_map(&wwid(5), Some("a database"));
    let refused = rig.detach(&engine, disk).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition, "{refused}");
    assert_eq!(rig.fake.paths_of(&wwid(5)), Some(2));
    rig.fake.hold_map(&wwid(5), None);
    assert_eq!(rig.detach(&engine, disk).unwrap(), Outcome::Changed);
    rig.assert_clean();
}

#[test]
fn friendly_names_make_no_difference() {
    let rig = Rig::new();
    let engine = rig.engine();
    rig.fake.set_friendly_names(true);
    let disk = rig.volume(5);
    let name = rig.ensure(&engine, disk).unwrap().map.name;
    assert!(name.starts_with("mpath"), "{name}");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn a_key_is_one_volume_and_keeps_its_notes() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (first, second) = (rig.volume(5), rig.volume(6));
    let want = rig.want(&engine, first);
    engine.ensure(&want).unwrap();
    engine
        .update_payload(&want.key, serde_json::json!({"format": "done"}))
        .unwrap();
    engine.ensure(&want).unwrap();
    let record = engine.find_record(&want.key).unwrap().unwrap();
    assert_eq!(record.payload["format"], "done");
    assert_eq!(record.learned.members.len(), 2);
    let other = Want {
        key: want.key.clone(),
        ..rig.want(&engine, second)
    };
    let refused = engine.ensure(&other).unwrap_err();
    assert_eq!(refused.fault(), Fault::Conflict);
    rig.detach(&engine, first).unwrap();
    rig.assert_clean();
}

#[test]
fn a_record_of_an_earlier_boot_is_history() {
    let rig = Rig::new();
    let disk = rig.volume(5);
    let before = rig.engine();
    rig.ensure(&before, disk).unwrap();
    let other = rig.volume(6);
    rig.ensure(&before, other).unwrap();
    rig.fake.reboot();
    let engine = engine_on(rig.fake.new_process().host());
    assert_eq!(engine.list_records().unwrap().len(), 2);
    let (started, outcome) = processes(&engine, |engine| rig.detach(engine, disk).unwrap());
    assert_eq!(outcome, Outcome::Changed);
    assert!(started <= 1, "only the WWID is taken out of the file");
    assert_eq!(rig.fake.session_count(), 0);
    rig.ensure(&engine, other).unwrap();
    rig.detach(&engine, other).unwrap();
    rig.assert_clean();
}

#[test]
fn a_lost_ledger_does_not_keep_a_volume() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.ensure(&engine, disk).unwrap();
    engine
        .ledger()
        .remove(&rig.want(&engine, disk).key)
        .unwrap();
    assert_eq!(rig.detach(&engine, disk).unwrap(), Outcome::Already);
    let deadline = engine.host.deadline_in(PATIENCE);
    let outcome = engine.detach_unrecorded(&wwid(5), deadline).unwrap();
    assert_eq!(outcome, Outcome::Changed);
    rig.assert_clean();
}

#[test]
fn idle_sessions_of_ours_end_and_others_do_not() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let foreign: Iqn = "iqn.2026-11.dev.sanpath:foreign".parse().unwrap();
    let portal: Portal = "10.9.0.1".parse().unwrap();
    rig.fake.add_target(&foreign, &[portal]);
    rig.fake.add_foreign_session(&foreign, portal);
    let idle = Duration::from_secs(600);
    rig.ensure(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(idle).unwrap().ended.len(), 0);
    rig.fake.sleep(idle);
    assert_eq!(engine.reap_idle(idle).unwrap().ended.len(), 0, "in use");
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(idle).unwrap().ended.len(), 0, "just idle");
    rig.fake.sleep(idle);
    let reaped = engine.reap_idle(idle).unwrap();
    assert_eq!((reaped.ended.len(), reaped.failed.len()), (2, 0));
    assert!(
        rig.fake.leftovers().is_empty(),
        "{:?}",
        rig.fake.leftovers()
    );
    assert_eq!(rig.fake.violations(), [""; 0]);
}

#[test]
fn a_crash_after_any_step_of_an_attach_converges() {
    for step in 1.. {
        let rig = Rig::new();
        let disk = rig.volume(5);
        let ended = rig
            .fake
            .crash_after(step, |host| rig.ensure(&engine_on(host.clone()), disk));
        let engine = engine_on(rig.fake.new_process().host());
        let attached = rig.ensure(&engine, disk).unwrap();
        assert_eq!(attached.map.members.len(), 2, "after step {step}");
        assert_eq!(rig.fake.session_count(), 2, "after step {step}");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            return;
        }
    }
}

#[test]
fn a_crash_after_any_step_of_a_detach_converges() {
    for step in 1.. {
        let rig = Rig::new();
        let disk = rig.volume(5);
        rig.ensure(&rig.engine(), disk).unwrap();
        let ended = rig
            .fake
            .crash_after(step, |host| rig.detach(&engine_on(host.clone()), disk));
        let engine = engine_on(rig.fake.new_process().host());
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            return;
        }
    }
}

#[test]
fn many_volumes_at_once_share_two_sessions() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disks: Vec<DiskId> = (1..=8).map(|number| rig.volume(number)).collect();
    std::thread::scope(|scope| {
        for disk in &disks {
            scope.spawn(|| {
                let attached = rig.ensure(&engine, *disk).unwrap();
                assert_eq!(attached.map.members.len(), 2);
            });
        }
    });
    assert_eq!(rig.fake.session_count(), 2);
    std::thread::scope(|scope| {
        for disk in &disks {
            scope.spawn(|| rig.detach(&engine, *disk).unwrap());
        }
    });
    rig.assert_clean();
}

#[test]
fn a_map_that_goes_while_it_is_read_is_nobodys_failure() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (going, other) = (rig.volume(5), rig.volume(6));
    let dm = rig.ensure(&engine, going).unwrap().map.dm;
    let going_now = |attribute: &str| {
        let read = format!("read /sys/block/{dm}/dm/{attribute}");
        let einval = fake::Fault::Errno(nix::errno::Errno::EINVAL);
        rig.fake.fail_next(&read, einval);
    };
    // Who looks for one map reads no more than the uuid of the others.
    going_now("uuid");
    rig.ensure(&engine, other).unwrap();
    for attribute in ["uuid", "name", "suspended"] {
        going_now(attribute);
        let left = multipath::list_maps(&rig.fake.host()).unwrap();
        assert!(left.iter().all(|map| map.dm != dm), "{attribute}");
        assert_eq!(left.len(), 1, "{attribute}");
    }
    rig.detach(&engine, going).unwrap();
    rig.detach(&engine, other).unwrap();
    rig.assert_clean();
}
