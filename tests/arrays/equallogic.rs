//! The simulated EqualLogic group under the last public program that drove real ones, and our family on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sanpath::fault::{Fault, Faulted};
use sanpath::host::Host;
use sanpath::san::{
    ArraySettings, Fleet, LoginFolder, NewSnapshot, Rules, San, SanError, Settings,
};
use sanpath::volume::Family;
use serde_json::{Value, json};

use crate::conformance;
use crate::foreign::{run, told};
use crate::simulators::equallogic::{ADDRESS, Group, Mishap, Server, Trap, is_change};
use crate::story::{
    ALONE, ALONE_IN_ITS_LIFE, Breakable, GIB, Losses, SHARED, Subject, lose_any_change, node,
    repeated, until, wanted,
};

/// A group, and our way to it.
pub struct Rig {
    pub server: Server,
    fleet: Fleet,
}

impl Rig {
    pub fn new() -> Self {
        Self::over(Server::new(1).with_one_connection())
    }

    fn over(server: Server) -> Self {
        let settings = settings(server.addresses(), &server.folder());
        let fleet = Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings)]));
        Self { server, fleet }
    }

    pub fn san(&self) -> Arc<San> {
        self.fleet.find(&"a".parse().unwrap()).unwrap()
    }

    pub fn is_empty(&self) {
        let group = self.server.group();
        assert!(group.volumes.is_empty(), "{:?}", group.volumes);
    }
}

impl Breakable for Rig {
    type Mishap = Mishap;

    fn fail_at(&self, number: usize, mishap: Mishap) {
        self.server.set(Trap::change(number, mishap));
    }

    fn all_came(&self) -> bool {
        self.server.clear_traps() == 0
    }

    fn take_changes(&self) -> usize {
        let seen = self.server.take_seen();
        seen.iter().filter(|it| is_change(it)).count()
    }
}

pub fn settings(addresses: Vec<String>, folder: &Path) -> Settings {
    let host = Host::real(Path::new("/"));
    Settings {
        family: Family::Equallogic,
        sanhost: addresses,
        papers: None,
        san_uuid: None,
        array: Some(ArraySettings {
            trust: None,
            login: LoginFolder::new(&host, folder),
            program: None,
            svm: None,
            own_flexvols: false,
            nodes: None,
            pools: Vec::new(),
        }),
        rules: Rules::default(),
    }
}

pub fn subject(san: &San) -> Subject<'_> {
    Subject { san }
}

fn foreign(server: &Server) -> Vec<Value> {
    let (address, folder) = (server.addresses().remove(0), server.folder());
    let (host, port) = address.split_once(':').unwrap();
    let user = std::fs::read_to_string(folder.join("username")).unwrap();
    let key = folder.join("ssh-privatekey");
    let words = [host, port, user.trim(), key.to_str().unwrap()];
    run("SANPATH_CINDER", "equallogic.py", &words)
}

/// What the simulator prints is what the driver in cinder reads; and what it was told, it did.
#[test]
fn cinders_driver_finds_a_group() {
    let server = Server::new(1);
    let all = foreign(&server);
    let of = |did| told(&all, did);
    let location = |did| of(did)["location"].as_str().unwrap().to_owned();
    assert_eq!(of("set up")["address"], ADDRESS);
    assert_eq!(of("capacity")["total"], 4096.0);
    assert_eq!(of("capacity")["free"], 4096.0);
    let target = location("create");
    assert!(
        target.starts_with("10.100.1.1:3260,1 iqn.2001-05.com.equallogic:0-8a0906-"),
        "{target}"
    );
    assert!(target.ends_with("-volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7 0"));
    assert!(of("create again")["refused"].is_string());
    assert_eq!(of("show")["size"], 2.0);
    assert!(of("show what is not there")["refused"].is_string());
    assert_eq!(of("expand")["size"], 5.0);
    for did in ["map 1", "map 2"] {
        let mapped = of(did);
        assert_eq!(mapped["portal"], "10.100.1.1:3260");
        assert!(target.contains(mapped["target"].as_str().unwrap()));
        assert_eq!(
            (&mapped["lun"], &mapped["again"]),
            (&json!(0), &json!(true))
        );
    }
    assert!(of("map with CHAP")["record"].is_string());
    assert_eq!(of("unmap")["records"], json!([true, false, true]));
    assert_eq!(of("volume from snapshot, larger")["size"], 8.0);
    let targets = ["create", "volume from snapshot, larger", "clone"].map(location);
    assert!(targets[0] != targets[1] && targets[1] != targets[2]);
    assert_eq!(
        location("rename and describe"),
        location("clone"),
        "the target's name stays"
    );
    assert_eq!(of("delete")["left"].as_array().unwrap().len(), 3);
    assert!(of("delete")["left"][0].is_string());
    let group = server.group();
    assert!(group.volumes.is_empty(), "{:?}", group.volumes);
    drop(group);
    let seen = server.take_seen();
    let was_sent = |text: &str| seen.iter().any(|command| command.contains(text));
    for command in [
        "thin-provision",
        "multihost-access enable",
        "no-snap",
        "snapshot create-now",
        "snapshot rename",
        "authmethod chap username nodes",
        "description \"OpenStack Managed\"",
        "cli-settings events off",
    ] {
        assert!(was_sent(command), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_kind_of_san_must() {
    let rig = Rig::new();
    conformance::all(&conformance::Subject {
        san: rig.san(),
        has: conformance::Capabilities {
            snapshots_depend: true,
            one_portal: true,
            whole_gib: true,
            ..conformance::Capabilities::default()
        },
        prefix: "suite-".to_owned(),
    })
    .await;
    rig.is_empty();
    assert!(
        rig.server.most_sessions() <= 2,
        "one for commands, one that asks who is there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_as_an_orchestrator_wants_it() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    subject.life("whole").await;
    subject.room().await;
    rig.is_empty();
}

/// Without the commands printed, and with events and prompts where nobody waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_prints_besides_makes_no_difference() {
    for is_silent in [true, false] {
        let rig = Rig::new();
        let manners = rig.server.manners();
        manners.is_silent.store(is_silent, Ordering::SeqCst);
        manners.has_events.store(!is_silent, Ordering::SeqCst);
        let san = rig.san();
        subject(&san).life("noise").await;
        rig.is_empty();
    }
}

/// Leads lives in which sessions end at their changes: before one, after it, or whole, with all that was done and nothing heard. One thing of each name, and nothing
/// left at the end.
async fn lose_sessions(apart: usize) {
    let rig = Rig::new();
    let losses = Losses {
        mishaps: &[
            Mishap::DropsBefore,
            Mishap::DropsAfter,
            Mishap::DropsAllWords,
        ],
        apart,
        least: 20,
    };
    let led = async |rig: &Rig, name: &str| subject(&rig.san()).life(name).await;
    lose_any_change(|| &rig, losses, led, |rig, _| rig.is_empty()).await;
}

/// At every fourth change of a life, from each of the first four on.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_lost_at_any_change_leaves_one_of_each() {
    lose_sessions(4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "each change in a life of its own: minutes; make deaths, and so make test-full"]
async fn a_session_lost_at_each_change_alone_leaves_one_of_each() {
    lose_sessions(ALONE_IN_ITS_LIFE).await;
}

/// The session ends between the cut and its name, wherever exactly: there is one snapshot, and it has the name and the moment of the first attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_whose_session_was_lost_before_its_name_is_named_and_not_cut_again() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("origin", GIB, None)).await;
    type Of = fn(&str) -> bool;
    let cut: Of = |command| command.contains("create-now");
    let rename: Of = |command| command.contains("snapshot rename");
    let cases = [
        (cut, Mishap::DropsBefore),
        (cut, Mishap::DropsAfter),
        (rename, Mishap::DropsBefore),
        (rename, Mishap::DropsAfter),
    ];
    for (number, (of, mishap)) in cases.into_iter().enumerate() {
        rig.server.set(Trap {
            of,
            after: 0,
            mishap,
        });
        rig.server.take_seen();
        let made = subject.cut(&format!("cut-{number}"), &volume).await;
        assert_eq!(rig.server.clear_traps(), 0);
        let seen = rig.server.take_seen();
        let cuts = seen.iter().filter(|it| cut(it)).count();
        let expected = if (of, mishap) == (cut, Mishap::DropsBefore) {
            2
        } else {
            1
        };
        assert_eq!(cuts, expected, "{mishap:?}");
        let snapshots = rig.server.group().volumes["origin"].snapshots.clone();
        assert_eq!(snapshots.len(), 1, "{snapshots:?}");
        subject.remove_cut(&made).await;
    }
    // A call that was given up half way does not keep the volume.
    rig.server.set(Trap {
        of: rename,
        after: 0,
        mishap: Mishap::DropsBefore,
    });
    let wanted = [NewSnapshot {
        name: "given-up".to_owned(),
        volume: volume.key.clone(),
        metadata: BTreeMap::new(),
        decisive: &[],
    }];
    rig.server.set(Trap {
        of: |command| command == "volume show",
        after: 1,
        mishap: Mishap::Takes(Duration::from_secs(6)),
    });
    let soon = sanpath::san::Until::now() + Duration::from_secs(4);
    let lost = san.ensure_snapshots(&wanted, soon).await.unwrap_err();
    assert_eq!(lost.fault(), Fault::MaybeDone, "{lost}");
    assert_eq!(rig.server.group().volumes["origin"].snapshots.len(), 1);
    subject.remove(&volume).await;
    rig.is_empty();
}

/// What somebody else cut keeps the volume, for it would go with it.
#[tokio::test(flavor = "multi_thread")]
async fn another_programs_snapshot_keeps_its_volume() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("kept", GIB, None)).await;
    let said = rig
        .server
        .group()
        .run("volume select kept snapshot create-now");
    assert!(said.contains("Snapshot name is kept-"), "{said}");
    let refused = san.remove_volume(&volume.key, &volume.wwid, until()).await;
    assert_eq!(refused.unwrap_err().fault(), Fault::Precondition);
    let page = san.list_snapshots("", 10, None, until()).await.unwrap();
    assert_eq!(page.snapshots, []);
    assert!(rig.server.group().volumes["kept"].is_online);
}

/// A description that the group cuts off, or does not take, is found at once.
#[tokio::test(flavor = "multi_thread")]
async fn notes_that_the_group_does_not_keep_are_found() {
    let rig = Rig::new();
    let san = rig.san();
    rig.server.group().longest_description = 20;
    let refused = san
        .ensure_volume(&wanted("short", GIB, None), until())
        .await
        .unwrap_err();
    assert!(matches!(refused, SanError::Answer { .. }), "{refused}");
    rig.server.group().longest_description = 127;
    let volume = subject(&san).make(&wanted("whole", GIB, None)).await;
    rig.server.group().forgets_descriptions = true;
    let wanted = [NewSnapshot {
        name: "cut".to_owned(),
        volume: volume.key.clone(),
        metadata: BTreeMap::new(),
        decisive: &[],
    }];
    let refused = san.ensure_snapshots(&wanted, until()).await.unwrap_err();
    assert!(matches!(refused, SanError::Answer { .. }), "{refused}");
}

/// One target for each volume, at LUN 0 of the group's address. The first export is of a blank volume, and nobody else is let in beside it.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_groups_address_and_the_volumes_target() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("target", GIB, None)).await;
    let export = subject.give(&volume, &node("node-1"), ALONE).await;
    let offer = &export.offers[0];
    let known = rig.server.group().volumes["target"].clone();
    assert_eq!((export.offers.len(), offer.lun.0), (1, 0));
    assert_eq!(offer.portal.to_string(), format!("{ADDRESS}:3260"));
    assert_eq!(offer.iqn.as_str(), known.target);
    assert!(export.blank && export.own_target && known.is_shared);
    rig.server.group().volumes.get_mut("target").unwrap().used = 15 << 20;
    assert!(!subject.give(&volume, &node("node-1"), ALONE).await.blank);
    let by_address = "volume select target access create ipaddress 10.0.0.9";
    rig.server.group().run(by_address);
    subject.take_back(&volume, Some(&node("node-1"))).await;
    let found = subject.find(&volume).await.unwrap();
    let second = node("node-2");
    let refused = san.ensure_export(&found, &second, ALONE, until());
    assert_eq!(refused.await.unwrap_err().fault(), Fault::Precondition);
    let refused = san.remove_volume(&volume.key, &volume.wwid, until()).await;
    assert_eq!(refused.unwrap_err().fault(), Fault::Precondition);
}

/// A record that is gone lets nobody in, and puts nobody out: the volume goes offline for a moment if somebody is still in.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_taken_back_has_no_session_left() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("fenced", GIB, None)).await;
    let connect = |count| {
        rig.server
            .group()
            .volumes
            .get_mut("fenced")
            .unwrap()
            .connections = count;
    };
    subject.give(&volume, &node("node-1"), ALONE).await;
    connect(2);
    for mishap in [Mishap::DropsBefore, Mishap::DropsAfter] {
        rig.server.set(Trap {
            of: |command| command.ends_with(" offline"),
            after: 0,
            mishap,
        });
        subject.take_back(&volume, Some(&node("node-1"))).await;
        assert_eq!(rig.server.clear_traps(), 0);
        assert_eq!(rig.server.group().volumes["fenced"].connections, 0);
        // A volume that a lost session left offline is there again with its next export.
        subject.give(&volume, &node("node-1"), ALONE).await;
        assert!(rig.server.group().volumes["fenced"].is_online);
        connect(1);
    }
    subject.give(&volume, &node("node-2"), SHARED).await;
    subject.take_back(&volume, Some(&node("node-1"))).await;
    assert_eq!(
        rig.server.group().volumes["fenced"].connections,
        1,
        "the other node's are not touched"
    );
}

/// Refused, and the next address is asked; a host whose key is not the pinned one is not spoken to; a wrong login is asked once.
#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_reached_by_its_host_key_and_our_login() {
    let rig = Rig::over(Server::new(2));
    let san = rig.san();
    subject(&san).make(&wanted("first", GIB, None)).await;
    rig.server.refuse(0, true);
    subject(&san).make(&wanted("second", GIB, None)).await;
    rig.server.refuse(1, true);
    let unreached = san
        .ensure_volume(&wanted("third", GIB, None), until())
        .await
        .unwrap_err();
    assert!(
        matches!(unreached, SanError::Unreachable { .. }),
        "{unreached}"
    );
    let strange = Rig::over(Server::new(1));
    let known = strange.server.folder().join("known_hosts");
    let other = rig.server.folder().join("known_hosts");
    let key = std::fs::read_to_string(other).unwrap();
    let key = key
        .split_once(' ')
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let place = strange
        .server
        .addresses()
        .remove(0)
        .replace("127.0.0.1:", "[127.0.0.1]:");
    std::fs::write(&known, format!("{place} {key}\n")).unwrap();
    let refused = strange.san().capacity(until()).await.unwrap_err();
    assert!(matches!(refused, SanError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains("ost key"), "{refused}");
    assert_eq!(strange.server.take_seen(), ["nothing"; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_is_tried_once_and_a_full_group_is_asked_again() {
    let rig = Rig::over(Server::new(2));
    let other = Server::new(1);
    let key = other.folder().join("ssh-privatekey");
    let ours = rig.server.folder().join("ssh-privatekey");
    let good = std::fs::read(&ours).unwrap();
    std::fs::copy(key, &ours).unwrap();
    let san = rig.san();
    let refused = san.capacity(until()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Denied, "{refused}");
    std::fs::write(&ours, good).unwrap();
    rig.server.manners().refusals.store(2, Ordering::SeqCst);
    san.capacity(until()).await.unwrap();
}

/// Another controller of ours at the same moment: a node that is to have the volume alone does not get it, or gives it back.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_do_not_give_one_volume_to_two_nodes() {
    let rig = Rig::new();
    let settings = settings(rig.server.addresses(), &rig.server.folder());
    let fleet = Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings)]));
    let sans = [rig.san(), fleet.find(&"a".parse().unwrap()).unwrap()];
    for round in 0..3 {
        let name = format!("alone-{round}");
        let volume = subject(&sans[0]).make(&wanted(&name, GIB, None)).await;
        let nodes = [node("node-1"), node("node-2")];
        let give = |at: usize| sans[at].ensure_export(&volume, &nodes[at], ALONE, until());
        let (one, two) = tokio::join!(give(0), give(1));
        let given = [&one, &two].into_iter().filter(|it| it.is_ok()).count();
        assert!(given <= 1, "{one:?} {two:?}");
        let group = rig.server.group();
        assert_eq!(
            group.volumes[&name].access.len(),
            given,
            "{:?}",
            group.volumes[&name]
        );
    }
}

/// Another controller's node is let in after ours has looked and before it has its record: ours gives it back, and does not take its own record for leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_let_in_meanwhile_keeps_the_volume() {
    let rig = Rig::new();
    let san = rig.san();
    let volume = subject(&san).make(&wanted("meanwhile", GIB, None)).await;
    rig.server.set(Trap {
        of: |command| command.contains("access create"),
        after: 0,
        mishap: Mishap::Takes(Duration::from_secs(2)),
    });
    let other = node("node-1");
    let giving = {
        let (san, volume) = (Arc::clone(&san), volume.clone());
        tokio::spawn(async move {
            let ours = node("node-2");
            san.ensure_export(&volume, &ours, ALONE, until()).await
        })
    };
    // The step before it.
    while !rig.server.group().volumes["meanwhile"].is_shared {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let let_in = format!(
        "volume select meanwhile access create initiator {}",
        other.initiator
    );
    rig.server.group().run(&let_in);
    let refused = giving.await.unwrap().unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition, "{refused}");
    let group = rig.server.group();
    let left = group.volumes["meanwhile"].access.values();
    let left: Vec<&str> = left.map(|it| it.initiator.as_str()).collect();
    assert_eq!(left, [other.initiator.as_str()]);
}

/// A long command is waited for; who is there is asked beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_group_is_waited_for_and_a_dead_call_ends() {
    let rig = Rig::new();
    let san = rig.san();
    rig.server
        .set(Trap::change(0, Mishap::Takes(Duration::from_secs(2))));
    let begun = Instant::now();
    let new = wanted("slow", GIB, None);
    let (made, room) = tokio::join!(san.ensure_volume(&new, until()), san.capacity(until()));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    room.unwrap();
    rig.server
        .set(Trap::change(0, Mishap::Takes(Duration::from_secs(6))));
    let soon = sanpath::san::Until::now() + Duration::from_secs(3);
    let late = san.ensure_expanded(&made.unwrap(), 2 * GIB, soon).await;
    assert_eq!(late.unwrap_err().fault(), Fault::MaybeDone);
    let known = repeated(|| san.find_named("slow", until())).await.unwrap();
    let grown = san.ensure_expanded(&known.unwrap(), 2 * GIB, until()).await;
    assert_eq!(grown.unwrap().size, 2 * GIB);
}

/// Two groups in one list are not spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn two_groups_in_one_list_are_refused() {
    let one = Server::new(1);
    let other = Server::of(Group::new("group-1", "10.100.1.2"), 1);
    let (folder, theirs) = (one.folder(), other.folder());
    let known = |folder: &Path| std::fs::read_to_string(folder.join("known_hosts")).unwrap();
    std::fs::write(folder.join("known_hosts"), known(&folder) + &known(&theirs)).unwrap();
    // One key opens both.
    let parent = theirs.parent().unwrap();
    std::fs::copy(
        folder.join("ssh-privatekey.pub"),
        parent.join("authorized_keys"),
    )
    .unwrap();
    let addresses = [one.addresses(), other.addresses()].concat();
    let fleet = Fleet::new(BTreeMap::from([(
        "b".parse().unwrap(),
        settings(addresses, &folder),
    )]));
    let san = fleet.find(&"b".parse().unwrap()).unwrap();
    let mixed = san
        .ensure_volume(&wanted("mixed", GIB, None), until())
        .await
        .unwrap_err();
    assert!(matches!(mixed, SanError::TwoSans { .. }), "{mixed}");
    assert!(one.group().volumes.is_empty() && other.group().volumes.is_empty());
}
