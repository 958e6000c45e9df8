//! Processes of two versions on one ledger: what one of them cannot read is left alone, and nothing else is.

use super::*;
use crate::attach::ledger::{LedgerError, file_stem};

impl Rig {
    /// Has a newer plugin write the record of `disk` again.
    fn written_by_a_newer_one(
        &self,
        engine: &Engine,
        disk: DiskId,
        from: &str,
        to: &str,
    ) -> String {
        let key = self.want(engine, disk).key;
        let path = engine.shared.dirs.ledger.join(file_stem(&key));
        let path = path.with_extension("json");
        let old = String::from_utf8(engine.host.read(&path).unwrap()).unwrap();
        let newer = old.replacen(from, to, 1);
        assert_ne!(newer, old);
        self.fake.write_file(&path, &newer);
        old
    }

    fn write_record(&self, engine: &Engine, disk: DiskId, text: &str) {
        let key = self.want(engine, disk).key;
        let path = engine.shared.dirs.ledger.join(file_stem(&key));
        self.fake.write_file(&path.with_extension("json"), text);
    }
}

#[test]
fn a_record_of_a_newer_plugin_is_refused_for_its_own_volume_alone() {
    let changes = [
        ("\"version\": 1", "\"version\": 2"),
        ("\"leaving\"", "\"sealed\": true,\n  \"leaving\""),
        ("{", "{{"),
    ];
    for (from, to) in changes {
        let rig = Rig::new();
        let engine = rig.engine();
        let (mine, theirs) = (rig.volume(5), rig.volume(6));
        rig.ensure(&engine, mine).unwrap();
        rig.ensure(&engine, theirs).unwrap();
        let old = rig.written_by_a_newer_one(&engine, theirs, from, to);

        // A plugin that starts on this ledger.
        let engine = engine_on(rig.fake.new_process().host());
        for refused in [
            rig.ensure(&engine, theirs).unwrap_err().fault(),
            rig.detach(&engine, theirs).unwrap_err().fault(),
        ] {
            assert_eq!(refused, Fault::MaybeDone, "it is asked again");
        }
        assert!(matches!(
            engine.find_record(&rig.want(&engine, theirs).key),
            Err(LedgerError::Form { .. })
        ));
        assert_eq!(rig.fake.paths_of(&wwid(6)), Some(2));

        assert_eq!(engine.list_records().unwrap().len(), 1);
        engine.heal(ROUND).unwrap();
        rig.ensure(&engine, mine).unwrap();
        rig.detach(&engine, mine).unwrap();
        assert_eq!(rig.fake.paths_of(&wwid(5)), None);

        rig.write_record(&engine, theirs, &old);
        rig.detach(&engine, theirs).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn idle_sessions_end_beside_a_record_that_cannot_be_read() {
    let idle = Duration::from_secs(600);
    // The sessions that it names stay; without any, those without disks go.
    let changes = [
        ("\"version\": 1", "\"version\": 2", 0),
        ("\"wanted\"", "\"paths\"", 2),
    ];
    for (from, to, ended) in changes {
        let rig = Rig::new();
        let engine = rig.engine();
        let (gone, theirs) = (rig.volume(5), rig.volume(6));
        let other: Iqn = "iqn.2026-11.dev.sanpath:other".parse().unwrap();
        rig.fake.add_target(&other, &["10.3.0.1".parse().unwrap()]);
        let alone = rig.fake.add_disk(&wwid(7), GIB);
        rig.fake.map_lun(&other, Lun(7), alone);
        for disk in [gone, theirs, alone] {
            rig.ensure(&engine, disk).unwrap();
        }
        let old = rig.written_by_a_newer_one(&engine, theirs, from, to);
        rig.detach(&engine, gone).unwrap();
        rig.detach(&engine, alone).unwrap();
        let look = || engine.reap_idle(idle).unwrap().ended.len();
        assert_eq!(look(), 0);
        rig.fake.sleep(idle);
        assert_eq!(look(), 1, "the session that nothing seems to want");
        assert_eq!(rig.fake.paths_of(&wwid(6)), Some(2), "disks hold theirs");

        // The newer plugin has taken its disks away and not yet its record.
        let record = engine.shared.dirs.ledger.clone();
        let key = rig.want(&engine, theirs).key;
        let newer = engine
            .host
            .read(&record.join(file_stem(&key)).with_extension("json"))
            .unwrap();
        rig.write_record(&engine, theirs, &old);
        rig.detach(&engine, theirs).unwrap();
        rig.write_record(&engine, theirs, std::str::from_utf8(&newer).unwrap());
        look();
        rig.fake.sleep(idle);
        assert_eq!(look(), ended, "{to}");
    }
}
