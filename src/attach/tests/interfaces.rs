//! Paths that are bound to interfaces: each session its own, none for another, and open-iscsi's interface records that come and go with them.

use super::*;
use crate::fabric::Nexus;

/// `iface0` is `eth0`, `iface1` is `eth1`.
fn bound(rig: &Rig, engine: &Engine, disk: DiskId, list: &str) -> Want {
    let local = LocalView {
        interfaces: "iface0=eth0,iface1=eth1,vlan=eth0.100".parse().unwrap(),
        ..LocalView::default()
    };
    let export = rig.fake.export(disk);
    let selection = select(&export, &list.parse().unwrap(), &local);
    assert!(selection.left_out.is_empty(), "{:?}", selection.left_out);
    Want {
        wanted: selection.wanted,
        ..rig.want(engine, disk)
    }
}

fn bindings(rig: &Rig) -> Vec<(String, String, Option<String>)> {
    let bindings = rig.fake.bindings().into_iter();
    bindings
        .map(|(portal, record, netdev)| (portal.address().to_string(), record, netdev))
        .collect()
}

fn binding(portal: &str, record: &str, netdev: Option<&str>) -> (String, String, Option<String>) {
    (
        portal.to_owned(),
        record.to_owned(),
        netdev.map(str::to_owned),
    )
}

const INTERFACE: &str = "/etc/iscsi/ifaces/sanpath-eth0";

#[test]
fn each_path_has_a_session_of_its_interface() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1,iface1:10.2.0.1");
    let (fresh, attached) = processes(&engine, |engine| engine.ensure(&want).unwrap());
    assert_eq!(fresh, 6, "three for each portal, as without an interface");
    assert!(attached.missing.is_empty(), "{:?}", attached.missing);
    let both = [
        binding("10.1.0.1", "sanpath-eth0", Some("eth0")),
        binding("10.2.0.1", "sanpath-eth1", Some("eth1")),
    ];
    assert_eq!(bindings(&rig), both);
    let (warm, again) = processes(&engine, |engine| engine.ensure(&want).unwrap());
    assert_eq!((warm, again.changed), (0, false));
    rig.detach(&engine, disk).unwrap();
    assert_eq!(bindings(&rig), both, "sessions are the node's");
    let reaped = engine.reap_idle(Duration::ZERO).unwrap();
    assert_eq!((reaped.ended.len(), reaped.failed.len()), (2, 0));
    rig.assert_clean();
    assert!(rig.fake.leftovers().is_empty(), "interface records go last");
}

#[test]
fn one_portal_through_two_interfaces_is_two_paths() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    // As EqualLogic does it: one group address, and every login sent on to a port.
    rig.fake.redirect(rig.portals[0], rig.portals[1]);
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1,iface1:10.1.0.1");
    let (fresh, attached) = processes(&engine, |engine| engine.ensure(&want).unwrap());
    assert_eq!((fresh, attached.map.members.len()), (6, 2));
    assert_eq!(
        bindings(&rig),
        [
            binding("10.1.0.1", "sanpath-eth0", Some("eth0")),
            binding("10.1.0.1", "sanpath-eth1", Some("eth1")),
        ]
    );
    let rows = engine.paths(&want.key).unwrap();
    let disks: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.disk).collect();
    assert_eq!(disks.len(), 2, "{rows:?}");
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended.len(), 2);
    rig.assert_clean();
}

/// Eucalyptus let the interface of one path leak into the next.
#[test]
fn a_path_without_an_interface_has_a_session_of_its_own() {
    for list in [
        "iface0:10.1.0.1,10.1.0.1,10.2.0.1",
        "10.2.0.1,10.1.0.1,iface0:10.1.0.1",
    ] {
        let rig = Rig::new();
        let engine = rig.engine();
        let disk = rig.volume(5);
        let want = bound(&rig, &engine, disk, list);
        assert_eq!(engine.ensure(&want).unwrap().map.members.len(), 3);
        let mut expected = [
            binding("10.1.0.1", "default", None),
            binding("10.1.0.1", "sanpath-eth0", Some("eth0")),
            binding("10.2.0.1", "default", None),
        ];
        expected.sort();
        assert_eq!(bindings(&rig), expected);
        // The other volume wants only one of the two sessions to that portal.
        let neighbour = rig.volume(6);
        let unbound = bound(&rig, &engine, neighbour, "10.1.0.1");
        engine.ensure(&unbound).unwrap();
        rig.detach(&engine, disk).unwrap();
        let reaped = engine.reap_idle(Duration::ZERO).unwrap();
        assert_eq!(reaped.ended.len(), 2, "{reaped:?}");
        assert_eq!(bindings(&rig), [binding("10.1.0.1", "default", None)]);
        rig.detach(&engine, neighbour).unwrap();
        engine.reap_idle(Duration::ZERO).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn the_portal_is_asked_through_the_interface() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.set_ways(rig.portals[0], &["eth1"]);
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1,iface1:10.1.0.1");
    let (started, attached) = processes(&engine, |engine| engine.ensure(&want).unwrap());
    assert_eq!(started, 3, "iscsid never hears of the other");
    assert_eq!(attached.map.members.len(), 1);
    let why = &attached.missing[0].1;
    assert!(
        why.contains("10.1.0.1:3260 through eth0 does not answer"),
        "{why}"
    );
    rig.fake.set_ways(rig.portals[0], &["eth0", "eth1"]);
    assert!(engine.ensure(&want).unwrap().missing.is_empty());
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn an_interface_that_goes_takes_its_path_and_brings_it_back() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let want = bound(&rig, &engine, disk, "vlan:10.1.0.1,iface1:10.2.0.1");
    let attached = engine.ensure(&want).unwrap();
    assert_eq!(attached.map.members.len(), 1);
    let why = &attached.missing[0].1;
    assert!(why.contains("through eth0.100"), "{why}");
    rig.fake.set_netdev("eth0.100", true);
    assert!(engine.ensure(&want).unwrap().missing.is_empty());
    rig.fake.set_netdev("eth0.100", false);
    rig.fake.sleep(Duration::from_secs(20));
    rig.fake.set_netdev("eth0.100", true);
    rig.fake.sleep(Duration::from_secs(20));
    assert_eq!(engine.ensure(&want).unwrap().map.members.len(), 2);
    assert_eq!(rig.fake.session_count(), 2, "the same came back");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn an_interface_record_that_somebody_changed_or_removed_is_put_right() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake.write_file(
        Path::new(INTERFACE),
        "iface.iscsi_ifacename = sanpath-eth0\niface.net_ifacename = eth1\n",
    );
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1");
    engine.ensure(&want).unwrap();
    let eth0 = [binding("10.1.0.1", "sanpath-eth0", Some("eth0"))];
    assert_eq!(bindings(&rig), eth0);
    rig.detach(&engine, disk).unwrap();
    // Without it iscsiadm would not log out.
    engine.host.remove_file(Path::new(INTERFACE)).unwrap();
    assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended.len(), 1);
    assert!(rig.fake.leftovers().is_empty());
    rig.assert_clean();
}

/// The node record holds a copy, and that is what iscsid goes by.
#[test]
fn a_node_record_that_is_bound_elsewhere_is_put_right_before_its_login() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1");
    engine.ensure(&want).unwrap();
    rig.detach(&engine, disk).unwrap();
    rig.fake.reboot();
    let record = format!("/etc/iscsi/nodes/{}/10.1.0.1,3260,1/sanpath-eth0", rig.iqn);
    let engine = engine_on(rig.fake.new_process().host());
    let text = engine.host.read_attribute(Path::new(&record)).unwrap();
    assert!(text.contains("iface.net_ifacename = eth0"), "{text}");
    rig.fake.write_file(
        Path::new(&record),
        &text.replace("net_ifacename = eth0", "net_ifacename = eth1"),
    );
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1");
    engine.ensure(&want).unwrap();
    let eth0 = [binding("10.1.0.1", "sanpath-eth0", Some("eth0"))];
    assert_eq!(bindings(&rig), eth0);
    rig.detach(&engine, disk).unwrap();
}

#[test]
fn an_administrators_session_on_the_interface_is_used_and_never_ended() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake
        .add_foreign_session_on(&rig.iqn, rig.portals[0], Some("eth0"));
    rig.fake.settle();
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1");
    let (started, attached) = processes(&engine, |engine| engine.ensure(&want).unwrap());
    assert_eq!((started, attached.map.members.len()), (0, 1));
    // Another interface is another session, and so is none.
    let more = bound(
        &rig,
        &engine,
        disk,
        "iface0:10.1.0.1,iface1:10.1.0.1,10.1.0.1",
    );
    assert_eq!(engine.ensure(&more).unwrap().map.members.len(), 3);
    assert_eq!(rig.fake.session_count(), 2);
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended.len(), 2);
    assert_eq!(bindings(&rig), [binding("10.1.0.1", "admin", Some("eth0"))]);
}

/// Its name is ours and it leads elsewhere: logging in once more would do nothing, and ending it is not ours to decide.
#[test]
fn a_session_of_our_record_that_is_bound_elsewhere_is_told_and_left_alone() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    rig.fake
        .add_session_by(&rig.iqn, rig.portals[0], "sanpath-eth0", Some("eth1"));
    rig.fake.settle();
    let want = bound(&rig, &engine, disk, "iface0:10.1.0.1,iface1:10.2.0.1");
    let attached = engine.ensure(&want).unwrap();
    let why = &attached.missing[0].1;
    for expected in [
        "10.1.0.1:3260 through eth0 is not bound to it but to eth1",
        "the record sanpath-eth0 was changed",
        "--logout",
    ] {
        assert!(why.contains(expected), "{why}");
    }
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended.len(), 1);
    let left = [binding("10.1.0.1", "sanpath-eth0", Some("eth1"))];
    assert_eq!(bindings(&rig), left);
    rig.assert_clean();
}

#[test]
fn a_crash_anywhere_leaves_nothing_that_stays_in_the_way() {
    let mut last_step = 0;
    loop {
        last_step += 1;
        let rig = Rig::new();
        let disk = rig.volume(5);
        let list = "iface0:10.1.0.1,iface1:10.1.0.1";
        let ended = rig.fake.crash_after(last_step, |host| {
            let engine = engine_on(host.clone());
            let want = bound(&rig, &engine, disk, list);
            engine.ensure(&want).unwrap();
            engine
                .detach(&want.key, engine.host.deadline_in(PATIENCE))
                .unwrap();
            engine.reap_idle(Duration::ZERO).unwrap();
        });
        let engine = rig.engine();
        rig.fake.settle();
        let want = bound(&rig, &engine, disk, list);
        let attached = engine.ensure(&want).unwrap();
        assert_eq!(attached.map.members.len(), 2, "after step {last_step}");
        rig.detach(&engine, disk).unwrap();
        engine.reap_idle(Duration::ZERO).unwrap();
        assert!(
            rig.fake.leftovers().is_empty(),
            "after step {last_step}: {:?}",
            rig.fake.leftovers()
        );
        rig.assert_clean();
        if ended.is_some() {
            break;
        }
    }
    assert!(last_step > 20, "{last_step} steps");
}

/// An older plugin's notes and sessions go on as they were.
#[test]
fn the_same_portal_with_and_without_an_interface_keeps_two_notes() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disk = rig.volume(5);
    let want = bound(&rig, &engine, disk, "10.1.0.1,iface0:10.1.0.1");
    engine.ensure(&want).unwrap();
    let initiator = &engine.shared.initiator;
    let own = initiator.own_records(&engine.host).unwrap();
    let mut noted: Vec<Nexus> = own.iter().map(crate::iscsi::OwnRecord::nexus).collect();
    noted.sort();
    let mut wanted: Vec<Nexus> = want.wanted.iter().map(|path| path.nexus()).collect();
    wanted.sort();
    assert_eq!(noted, wanted);
    rig.detach(&engine, disk).unwrap();
    assert_eq!(engine.reap_idle(Duration::ZERO).unwrap().ended.len(), 2);
    rig.assert_clean();
}
