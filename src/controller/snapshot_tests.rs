//! Snapshots, groups of them and copies, over SANs in memory.

use std::collections::BTreeSet;

use super::bench::Bench;
use super::tests::{fault, wanted};
use super::{
    Claim, ControllerError, Group, Origin, Snapshot, SnapshotFilter, Verdict, Volume, Wanted,
    WantedGroup, WantedSnapshot,
};
use crate::fault::{Fault, Faulted, chain};
use crate::san::Rules;
use crate::volume::{AnySnapshotId, SizeRange, VolumeId};

const GIB: i64 = 1 << 30;

async fn made(bench: &Bench, name: &str, partition: &str) -> Volume {
    let wanted = wanted(name, partition);
    bench.controller.create(&wanted).await.unwrap()
}

fn of(name: &str, source: &VolumeId) -> WantedSnapshot {
    WantedSnapshot {
        name: name.to_owned(),
        source: source.clone(),
        parameters: [].into(),
    }
}

async fn cut(bench: &Bench, name: &str, source: &VolumeId) -> Snapshot {
    let wanted = of(name, source);
    bench.controller.create_snapshot(&wanted).await.unwrap()
}

fn copy(name: &str, origin: Origin) -> Wanted {
    Wanted {
        range: SizeRange::default(),
        origin: Some(origin),
        ..wanted(name, "")
    }
}

fn together(name: &str, sources: &[&VolumeId]) -> WantedGroup {
    WantedGroup {
        name: name.to_owned(),
        sources: sources.iter().copied().cloned().collect(),
        parameters: [].into(),
    }
}

fn ids(group: &Group) -> BTreeSet<String> {
    let members = group.snapshots.iter();
    members.map(|it| it.id.to_string()).collect()
}

fn told<T: std::fmt::Debug>(outcome: Result<T, ControllerError>) -> (Fault, String) {
    let error = outcome.unwrap_err();
    (error.fault(), chain(&error))
}

#[tokio::test]
async fn a_name_means_one_snapshot_of_one_volume() {
    let rules = Rules {
        prefix: "prod-".to_owned(),
        ..Rules::default()
    };
    let bench = Bench::under(&["a"], &rules).await;
    let (one, two) = (made(&bench, "1", "").await, made(&bench, "2", "").await);
    let first = cut(&bench, "s", &one.id).await;
    assert_eq!(first.source.as_ref(), Some(&one.id));
    assert_eq!((first.size, first.is_ready), (one.size, true));
    assert_eq!(cut(&bench, "s", &one.id).await, first);
    let other = bench.controller.create_snapshot(&of("s", &two.id)).await;
    assert_eq!(fault(other), Fault::Conflict);
    // Its volume may go, and the repeated call still finds it; a new one is not cut of what is gone.
    bench.controller.delete(&one.id).await.unwrap();
    assert_eq!(cut(&bench, "s", &one.id).await, first);
    let absent = bench.controller.create_snapshot(&of("t", &one.id)).await;
    assert_eq!(fault(absent), Fault::NotFound);
    let get = async || bench.controller.get_snapshot(&first.id).await;
    assert_eq!(get().await.unwrap(), first);
    for _ in 0..2 {
        bench.controller.delete_snapshot(&first.id).await.unwrap();
    }
    assert_eq!(fault(get().await), Fault::NotFound);
}

#[tokio::test]
async fn a_lost_reply_cuts_no_second_snapshot() {
    let bench = Bench::new(&["a"]).await;
    let volume = made(&bench, "v", "").await.id;
    for call in ["CreateSnapshot", "DeleteSnapshot"] {
        use crate::san::Mishap;
        for mishap in [Mishap::LosesReply(call), Mishap::LosesRequest(call)] {
            bench.san().suffer(mishap);
            let snapshot = cut(&bench, "s", &volume).await;
            assert_eq!(bench.san().snapshots(), 1);
            bench
                .controller
                .delete_snapshot(&snapshot.id)
                .await
                .unwrap();
            assert_eq!(bench.san().snapshots(), 0);
        }
    }
}

#[tokio::test]
async fn a_snapshot_takes_no_parameters() {
    let bench = Bench::new(&["a"]).await;
    let volume = made(&bench, "v", "").await.id;
    let mut asked = of("s", &volume);
    let pvc = "csi.storage.k8s.io/volumesnapshot/name".to_owned();
    asked.parameters.insert(pvc, "s".to_owned());
    bench.controller.create_snapshot(&asked).await.unwrap();
    asked.parameters.insert("full".to_owned(), "yes".to_owned());
    let (fault, text) = told(bench.controller.create_snapshot(&asked).await);
    assert_eq!(fault, Fault::Invalid);
    assert!(text.contains("\"full\""), "{text}");
    assert_eq!(bench.san().snapshots(), 1);
}

#[tokio::test]
async fn a_listing_walks_every_partition_and_its_filters_take_their_own() {
    let mut bench = Bench::new(&["a", "b"]).await;
    let (one, two) = (
        made(&bench, "1", "a").await.id,
        made(&bench, "2", "b").await.id,
    );
    let mut all = Vec::new();
    for (name, of) in [("s1", &one), ("s2", &one), ("s3", &two), ("s4", &two)] {
        all.push(cut(&bench, name, of).await);
    }
    let list = async |filter: SnapshotFilter, token: &str, most| {
        bench.controller.list_snapshots(&filter, token, most).await
    };
    let everything = SnapshotFilter::default();
    for most in 1..6 {
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let page = list(everything.clone(), &token, most).await.unwrap();
            assert!(page.snapshots.len() <= most);
            seen.extend(page.snapshots);
            let Some(next) = page.next else { break };
            token = next;
        }
        assert_eq!(seen, all, "by {most}");
    }
    let of_two = SnapshotFilter {
        id: None,
        source: Some(two.clone()),
    };
    let page = list(of_two.clone(), "", 1).await.unwrap();
    assert_eq!(page.snapshots, all[2..3]);
    let rest = list(of_two.clone(), &page.next.unwrap(), 0).await.unwrap();
    assert_eq!(rest.snapshots, all[3..]);
    let by_id = |source: &VolumeId| SnapshotFilter {
        id: Some(all[0].id.clone()),
        source: Some(source.clone()),
    };
    assert_eq!(list(by_id(&one), "", 0).await.unwrap().snapshots, all[..1]);
    assert_eq!(list(by_id(&two), "", 0).await.unwrap().snapshots, []);
    for token in ["nonsense", "d:key-1", ":", "a:nonsense"] {
        let refused = list(everything.clone(), token, 0).await;
        assert_eq!(fault(refused), Fault::Busy, "{token}");
    }
    bench.sans.pop();
    let list = async |filter: SnapshotFilter| bench.controller.list_snapshots(&filter, "", 0).await;
    assert_eq!(fault(list(everything).await), Fault::MaybeDone);
    assert_eq!(fault(list(of_two).await), Fault::MaybeDone);
    assert_eq!(list(by_id(&one)).await.unwrap().snapshots, all[..1]);
}

#[tokio::test]
async fn what_others_cut_on_the_san_is_not_told() {
    let bench = Bench::new(&["a"]).await;
    let volume = made(&bench, "v", "").await.id;
    let ours = cut(&bench, "s", &volume).await;
    bench.san().put_foreign_snapshot("key-0009", &volume.key);
    let all = SnapshotFilter::default();
    let listing = bench.controller.list_snapshots(&all, "", 0).await.unwrap();
    assert_eq!(listing.snapshots, std::slice::from_ref(&ours));
    let mut foreign = ours.id.on_san().unwrap().clone();
    foreign.key = "key-0009".to_owned();
    let foreign = AnySnapshotId::OnSan(foreign);
    let found = bench.controller.get_snapshot(&foreign).await;
    assert_eq!(fault(found), Fault::NotFound);
    bench.controller.delete_snapshot(&foreign).await.unwrap();
    assert_eq!(bench.san().snapshots(), 2, "it is left alone");
}

#[tokio::test]
async fn a_copy_has_its_origins_size_or_a_larger_one() {
    let bench = Bench::new(&["a"]).await;
    let mut asked = wanted("v", "");
    asked.range = SizeRange::new(2 * GIB, 0).unwrap();
    let source = bench.controller.create(&asked).await.unwrap();
    let snapshot = cut(&bench, "s", &source.id).await;
    for (name, origin) in [
        ("restored", Origin::Snapshot(snapshot.id.clone())),
        ("cloned", Origin::Volume(source.id.clone())),
    ] {
        let create = async |required, limit| {
            let mut asked = copy(name, origin.clone());
            asked.range = SizeRange::new(required, limit).unwrap();
            bench.controller.create(&asked).await
        };
        let (fault, text) = told(create(GIB, GIB).await);
        assert_eq!(fault, Fault::OutOfRange);
        assert!(text.contains(&origin.to_string()), "{text}");
        let volume = create(GIB, 0).await.unwrap();
        assert_eq!(
            (volume.size, volume.origin.as_ref()),
            (source.size, Some(&origin))
        );
        assert_eq!(create(0, 0).await.unwrap(), volume);
        let larger = Wanted {
            range: SizeRange::new(3 * GIB, 0).unwrap(),
            ..copy(&format!("larger {name}"), origin.clone())
        };
        let larger = bench.controller.create(&larger).await.unwrap();
        assert_eq!(larger.size, 3 << 30);
        let listed = bench.controller.list("", 0).await.unwrap().volumes;
        assert!(listed.contains(&volume) && listed.contains(&larger));
    }
}

#[tokio::test]
async fn a_name_means_one_volume_of_one_origin() {
    let bench = Bench::new(&["a"]).await;
    let source = made(&bench, "v", "").await.id;
    let snapshot = Origin::Snapshot(cut(&bench, "s", &source).await.id);
    let other = Origin::Snapshot(cut(&bench, "t", &source).await.id);
    let clone = Origin::Volume(source.clone());
    let create = async |asked: &Wanted| bench.controller.create(asked).await;
    let first = create(&copy("c", snapshot.clone())).await.unwrap();
    for origin in [other, clone] {
        assert_eq!(fault(create(&copy("c", origin)).await), Fault::Conflict);
    }
    assert_eq!(fault(create(&wanted("c", "")).await), Fault::Conflict);
    let taken = create(&copy("v", snapshot.clone())).await;
    assert_eq!(fault(taken), Fault::Conflict, "that was made of nothing");
    // What it was made of may go; the repeated call finds it, and a new one finds nothing to copy.
    let Origin::Snapshot(id) = &snapshot else {
        unreachable!()
    };
    bench.controller.delete_snapshot(id).await.unwrap();
    assert_eq!(create(&copy("c", snapshot.clone())).await.unwrap(), first);
    let (fault, text) = told(create(&copy("d", snapshot)).await);
    assert_eq!(fault, Fault::NotFound, "{text}");
}

#[tokio::test]
async fn a_copy_is_made_beside_its_origin_and_nowhere_else() {
    let bench = Bench::new(&["a", "b"]).await;
    let source = made(&bench, "v", "b").await.id;
    let origin = Origin::Snapshot(cut(&bench, "s", &source).await.id);
    let unnamed = bench.controller.create(&copy("1", origin.clone())).await;
    assert_eq!(unnamed.unwrap().id.san.as_str(), "b", "the origin decides");
    let mut named = copy("2", origin.clone());
    named.parameters = wanted("2", "a").parameters;
    let (fault, text) = told(bench.controller.create(&named).await);
    assert_eq!(fault, Fault::Invalid);
    assert!(text.contains("parameters.partition is a"), "{text}");
    let mut reachable = copy("3", origin);
    let only = |name: &str| [name.parse().unwrap()].into();
    reachable.accessibility.requisite.push(only("a"));
    let (fault, text) = told(bench.controller.create(&reachable).await);
    assert_eq!(fault, Fault::Exhausted);
    assert!(text.contains("may be made in partition b"), "{text}");
    reachable.accessibility.requisite.push(only("b"));
    reachable.accessibility.preferred.push(only("a"));
    let made = bench.controller.create(&reachable).await.unwrap();
    assert_eq!(made.id.san.as_str(), "b");
    assert!(bench.san().volumes().is_empty());
}

fn luks() -> (String, String) {
    ("encryption".to_owned(), "luks2".to_owned())
}

#[tokio::test]
async fn what_is_encrypted_is_copied_so_and_what_is_clear_stays_so() {
    let bench = Bench::new(&["a"]).await;
    let mut asked = wanted("v", "");
    asked.parameters.extend([luks()]);
    let source = bench.controller.create(&asked).await.unwrap().id;
    let snapshot = Origin::Snapshot(cut(&bench, "s", &source).await.id);
    let clear = made(&bench, "clear", "").await.id;
    for (origin, encrypt, words) in [
        (snapshot.clone(), false, "is encrypted (luks2)"),
        (Origin::Volume(source), false, "with encryption: luks2"),
        (Origin::Volume(clear), true, "is in the clear"),
    ] {
        let mut asked = copy("c", origin);
        asked.parameters.extend(encrypt.then(luks));
        let (fault, text) = told(bench.controller.create(&asked).await);
        assert_eq!(fault, Fault::Invalid);
        assert!(text.starts_with("parameters.encryption: "), "{text}");
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(bench.san().volumes().len(), 2);
}

/// Through snapshots, copies and copies of copies, whatever of them is gone by then.
#[tokio::test]
async fn the_first_of_a_line_names_the_header_of_all_its_copies() {
    let bench = Bench::new(&["a"]).await;
    let sealed = |mut asked: Wanted| {
        asked.parameters.extend([luks()]);
        asked
    };
    let controller = &bench.controller;
    let source = controller.create(&sealed(wanted("v", ""))).await.unwrap();
    assert!(!source.context().contains_key("encryptionHeader"));
    let first = cut(&bench, "s1", &source.id).await.id;
    controller.delete(&source.id).await.unwrap();
    let asked = sealed(copy("c1", Origin::Snapshot(first.clone())));
    let one = controller.create(&asked).await.unwrap();
    let header = source.id.wwid.to_string();
    assert_eq!(one.context()["encryptionHeader"], header);
    assert_eq!(one.context()["encryption"], "luks2");
    controller.delete_snapshot(&first).await.unwrap();
    // The same answer when repeated, now that its origin is gone.
    assert_eq!(controller.create(&asked).await.unwrap(), one);
    let clone = sealed(copy("c2", Origin::Volume(one.id.clone())));
    let clone = controller.create(&clone).await.unwrap();
    let second = cut(&bench, "s2", &one.id).await.id;
    controller.delete(&one.id).await.unwrap();
    let restored = sealed(copy("c3", Origin::Snapshot(second)));
    let restored = controller.create(&restored).await.unwrap();
    for volume in [clone, restored] {
        assert_eq!(volume.context()["encryptionHeader"], header);
        let claim = Claim {
            context: volume.context(),
            ..Claim::default()
        };
        let verdict = controller.validate(&volume.id, &claim).await.unwrap();
        assert_eq!(verdict, Verdict::Confirmed);
    }
    // One in the clear has none, copied or not.
    let clear = made(&bench, "clear", "").await.id;
    let clear = copy("c4", Origin::Volume(clear));
    let clear = controller.create(&clear).await.unwrap();
    assert!(!clear.context().contains_key("encryptionHeader"));
}

#[tokio::test]
async fn a_group_is_cut_once_and_goes_as_a_whole() {
    let bench = Bench::new(&["a"]).await;
    let mut volumes = Vec::new();
    for name in ["1", "2", "3"] {
        volumes.push(made(&bench, name, "").await.id);
    }
    let [one, two, three] = &volumes[..] else {
        unreachable!()
    };
    let create = async |wanted: WantedGroup| bench.controller.create_group(&wanted).await;
    let group = create(together("g", &[one, two, three])).await.unwrap();
    assert_eq!(
        create(together("g", &[three, one, two])).await.unwrap(),
        group
    );
    for other in [&[one, two][..], &[one], &[two, three], &[three]] {
        let other = create(together("g", other)).await;
        assert_eq!(fault(other), Fault::Conflict);
    }
    let all = ids(&group);
    let controller = &bench.controller;
    assert_eq!(controller.get_group(&group.id, &all).await.unwrap(), group);
    let member = &group.snapshots[1].id;
    let (fault_of_member, text) = told(controller.delete_snapshot(member).await);
    assert_eq!(fault_of_member, Fault::Invalid);
    assert!(text.contains(&group.id.to_string()), "{text}");
    let single = cut(&bench, "s", one).await.id.to_string();
    let fewer: BTreeSet<_> = all.iter().skip(1).cloned().collect();
    let more: BTreeSet<_> = all.iter().cloned().chain([single]).collect();
    for wrong in [BTreeSet::new(), fewer.clone(), more] {
        let got = controller.get_group(&group.id, &wrong).await;
        assert_eq!(fault(got), Fault::Invalid);
        let deleted = controller.delete_group(&group.id, &wrong).await;
        assert_eq!(fault(deleted), Fault::Invalid);
    }
    assert_eq!(bench.san().snapshots(), 4, "nothing was done");
    // A deletion that was cut off: one member is gone already, and the caller names it again.
    let first = group.snapshots[0].id.on_san().unwrap();
    bench.san().drop_snapshot(&first.key);
    for _ in 0..2 {
        controller.delete_group(&group.id, &all).await.unwrap();
    }
    let got = controller.get_group(&group.id, &all).await;
    assert_eq!(fault(got), Fault::NotFound);
    assert_eq!(bench.san().snapshots(), 1);
    let again = create(together("g", &[one, two, three])).await.unwrap();
    assert_ne!(
        again.id, group.id,
        "a name that is used again is another group"
    );
}

#[tokio::test]
async fn a_group_is_of_one_partition() {
    let bench = Bench::new(&["a", "b"]).await;
    let (one, two) = (
        made(&bench, "1", "a").await.id,
        made(&bench, "2", "b").await.id,
    );
    let group = together("g", &[&one, &two]);
    let (fault_of_both, text) = told(bench.controller.create_group(&group).await);
    assert_eq!(fault_of_both, Fault::Precondition);
    assert!(text.contains("(a, b)"), "{text}");
    bench.controller.delete(&one).await.unwrap();
    let absent = bench.controller.create_group(&together("g", &[&one])).await;
    assert_eq!(fault(absent), Fault::NotFound);
    assert_eq!(bench.san().snapshots(), 0);
}
