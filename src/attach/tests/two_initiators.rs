//! A node plugin and an archiver on one machine, at one target: each has sessions, records, notes and settings of its own, and neither touches the other's.

use super::*;
use crate::fabric::NoPathRetry;

const ARCHIVER: &str = "iqn.1993-08.org.debian:01:fake:archive";

fn archiver_on(host: Host) -> Engine {
    let dirs = Dirs::under(
        Path::new("/"),
        Path::new("/var/lib/sanpath/archiver"),
        Path::new("/run/sanpath"),
    );
    Engine::named(host, dirs, ARCHIVER.parse().unwrap())
}

/// Both of a machine, and a volume for each.
struct Two {
    rig: Rig,
    node: Engine,
    archiver: Engine,
    of_node: DiskId,
    of_archiver: DiskId,
}

impl Two {
    fn new() -> Self {
        let rig = Rig::new();
        Self {
            node: rig.engine(),
            archiver: archiver_on(rig.fake.host()),
            of_node: rig.volume(5),
            of_archiver: rig.volume(6),
            rig,
        }
    }

    fn want(&self, engine: &Engine, disk: DiskId, list: &str) -> Want {
        let local = LocalView {
            interfaces: "iface0=eth0,iface1=eth1".parse().unwrap(),
            ..LocalView::default()
        };
        let selection = select(&self.rig.fake.export(disk), &list.parse().unwrap(), &local);
        assert!(selection.left_out.is_empty(), "{:?}", selection.left_out);
        Want {
            wanted: selection.wanted,
            no_path_retry: Some(NoPathRetry::Checks(7)),
            ..self.rig.want(engine, disk)
        }
    }

    fn ensure_both(&self, list: &str, node_first: bool) {
        let mut both = [
            (&self.node, self.of_node),
            (&self.archiver, self.of_archiver),
        ];
        if !node_first {
            both.reverse();
        }
        for (engine, disk) in both {
            let attached = engine.ensure(&self.want(engine, disk, list)).unwrap();
            assert_eq!(attached.map.members.len(), 2);
            assert!(attached.missing.is_empty(), "{:?}", attached.missing);
        }
    }

    /// The interface records of the sessions there are.
    fn records(&self) -> Vec<String> {
        let bindings = self.rig.fake.bindings().into_iter();
        let mut records: Vec<String> = bindings.map(|(_, record, _)| record).collect();
        records.sort();
        records
    }

    /// A round of each part that goes by itself changes nothing.
    fn assert_steady(&self) {
        let before = self.records();
        for engine in [&self.node, &self.archiver] {
            let healed = engine.heal(ROUND).unwrap();
            assert!(healed.joined.is_empty() && !healed.amiss, "{healed:?}");
            assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended, []);
        }
        assert_eq!(self.records(), before);
        assert_eq!(self.rig.fake.violations(), [""; 0]);
    }

    /// The maps that the host is not to look into.
    fn unseen(&self) -> Vec<String> {
        let marks = self.node.host.list(Path::new("/run/sanpath/unseen"));
        let marks = marks.unwrap_or_default().into_iter();
        marks.map(|mark| mark.into_string().unwrap()).collect()
    }

    fn drop_in(&self, name: &str) -> Option<String> {
        let path = Path::new("/etc/multipath/conf.d").join(name);
        self.node.host.read_attribute(&path).ok()
    }
}

#[test]
fn each_has_sessions_of_its_own_and_ends_only_those() {
    let ways = [
        ("10.1.0.1,10.2.0.1", ["default"; 2], ["sanpath.archive"; 2]),
        (
            "iface0:10.1.0.1,iface1:10.2.0.1",
            ["sanpath-eth0", "sanpath-eth1"],
            ["sanpath.archive-eth0", "sanpath.archive-eth1"],
        ),
    ];
    for (list, of_node, of_archiver) in ways {
        for node_first in [true, false] {
            let two = Two::new();
            two.ensure_both(list, node_first);
            let mut all = [of_node, of_archiver].concat();
            all.sort_unstable();
            assert_eq!(two.records(), all, "{list}");
            let carried = two.rig.fake.export(two.of_archiver).wwid;
            assert_eq!(two.unseen(), [carried.dm_uuid()], "the archiver's alone");
            two.assert_steady();
            let hosts = |engine: &Engine| {
                let tables = engine.path_tables().unwrap();
                assert_eq!(tables.len(), 1, "one knows nothing of the other's volume");
                let rows = tables[0].rows.iter();
                let hosts: Vec<u32> = rows.map(|row| row.hctl.unwrap().host).collect();
                assert!(tables[0].rows.iter().all(|row| row.state == "active"));
                hosts
            };
            let (a, b) = (hosts(&two.node), hosts(&two.archiver));
            assert!(a.iter().all(|host| !b.contains(host)), "{a:?} {b:?}");
            // Who leaves takes his own with him.
            let (leaver, left) = match node_first {
                true => ((&two.archiver, two.of_archiver), of_node),
                false => ((&two.node, two.of_node), of_archiver),
            };
            two.rig.detach(leaver.0, leaver.1).unwrap();
            for engine in [&two.node, &two.archiver] {
                let ended = engine.reap_idle(Duration::ZERO).unwrap().ended;
                let is_leaver = std::ptr::eq(engine, leaver.0);
                assert_eq!(ended.len(), if is_leaver { 2 } else { 0 });
            }
            assert_eq!(two.records(), left, "{list}");
            two.assert_steady();
            for (engine, disk) in [(&two.node, two.of_node), (&two.archiver, two.of_archiver)] {
                two.rig.detach(engine, disk).unwrap();
                engine.reap_idle(Duration::ZERO).unwrap();
            }
            assert_eq!(two.unseen(), [""; 0]);
            two.rig.assert_clean();
            assert!(two.rig.fake.leftovers().is_empty());
        }
    }
}

#[test]
fn the_name_is_said_by_the_session() {
    let two = Two::new();
    two.ensure_both("10.1.0.1,10.2.0.1", true);
    let sessions = crate::iscsi::list_sessions(&two.node.host).unwrap();
    let named = sessions
        .iter()
        .filter(|session| session.initiator.as_deref() == Some(ARCHIVER));
    let named: Vec<&str> = named.map(|session| session.interface.as_str()).collect();
    assert_eq!(named, ["sanpath.archive"; 2]);
    assert_eq!(sessions.len(), 4);
}

/// Each file of multipath's settings follows one ledger; a round of the other takes no entry out of it.
#[test]
fn each_has_settings_of_its_own() {
    let two = Two::new();
    two.ensure_both("10.1.0.1,10.2.0.1", true);
    two.assert_steady();
    let texts = ["sanpath.conf", "sanpath-archive.conf"].map(|name| two.drop_in(name).unwrap());
    for (text, disk) in texts.iter().zip([two.of_node, two.of_archiver]) {
        let wwid = two.rig.fake.export(disk).wwid;
        assert_eq!(
            multipath::find_configured_retry(text, &wwid),
            Some("7"),
            "{text}"
        );
        assert_eq!(text.matches("wwid").count(), 1, "{text}");
    }
    two.rig.detach(&two.archiver, two.of_archiver).unwrap();
    assert_eq!(two.drop_in("sanpath-archive.conf"), None);
    assert_eq!(two.drop_in("sanpath.conf").as_ref(), Some(&texts[0]));
    two.rig.detach(&two.node, two.of_node).unwrap();
    assert_eq!(two.drop_in("sanpath.conf"), None);
    assert_eq!(two.rig.fake.violations(), [""; 0]);
}

/// Both lose their sessions; each brings its own back and leaves the other's alone.
#[test]
fn each_heals_its_own() {
    let two = Two::new();
    two.ensure_both("iface0:10.1.0.1,iface1:10.2.0.1", true);
    let lost = two.rig.portals[0];
    for session in crate::iscsi::list_sessions(&two.node.host).unwrap() {
        if session.persistent == Some(lost) {
            two.rig.fake.end_session(session.sid);
        }
    }
    assert_eq!(two.records(), ["sanpath-eth1", "sanpath.archive-eth1"]);
    let healed = two.archiver.heal(ROUND).unwrap();
    assert_eq!(healed.joined.len(), 1, "{healed:?}");
    assert_eq!(
        two.records(),
        [
            "sanpath-eth1",
            "sanpath.archive-eth0",
            "sanpath.archive-eth1"
        ]
    );
    assert_eq!(two.node.heal(ROUND).unwrap().joined.len(), 1);
    two.assert_steady();
}

/// What an archiver of before noted was the machine's own session; it still ends as one.
#[test]
fn a_note_without_a_name_is_of_the_machines_own_session() {
    let two = Two::new();
    let before = {
        let dirs = Dirs::under(
            Path::new("/"),
            Path::new("/var/lib/sanpath/archiver"),
            Path::new("/run/sanpath"),
        );
        Engine::new(two.rig.fake.host(), dirs)
    };
    two.rig.ensure(&before, two.of_archiver).unwrap();
    two.rig.detach(&before, two.of_archiver).unwrap();
    assert_eq!(two.records(), ["default"; 2]);
    let attached = two.rig.ensure(&two.archiver, two.of_archiver).unwrap();
    assert!(attached.missing.is_empty());
    assert_eq!(
        two.archiver.reap_idle(Duration::ZERO).unwrap().ended.len(),
        2
    );
    assert_eq!(two.records(), ["sanpath.archive"; 2]);
    two.rig.detach(&two.archiver, two.of_archiver).unwrap();
    two.archiver.reap_idle(Duration::ZERO).unwrap();
    two.rig.assert_clean();
    assert!(two.rig.fake.leftovers().is_empty());
}
