//! The Linux family and the ensure loops against the double: dead and half-dead addresses, lost replies, another SAN's address.

use std::time::Duration;

use super::super::double::{Double, Line, Mishap};
use super::super::{
    Access, AddressStanding, NewSnapshot, NewVolume, Others, San, SanError, SanVolume, Source,
    Until,
};
use super::{LinuxSan, Way};
use crate::fault::{Fault, Faulted, chain};
use crate::volume::{Family, NodeId, SizeRange};

const GIB: u64 = 1 << 30;

fn san(addresses: &[&str]) -> San {
    let addresses: Vec<String> = addresses.iter().map(|&text| text.to_owned()).collect();
    San::new(Family::Linux, LinuxSan::new(&addresses, Way::default()))
}

fn soon() -> Until {
    Until::now() + Duration::from_secs(10)
}

fn wanted(name: &str, size: u64) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size,
        range: SizeRange::new(i64::try_from(size).unwrap(), 0).unwrap(),
        metadata: [("csi/name".to_owned(), name.to_owned())].into(),
        decisive: &["csi/name"],
        source: None,
    }
}

fn node(name: &str) -> NodeId {
    NodeId::find(&format!("{name}/iqn.1993-08.org.debian:{name}")).unwrap()
}

const ALONE: Access = Access {
    read_only: false,
    others: Others::Nobody,
};

async fn made(san: &San, name: &str) -> SanVolume {
    san.ensure_volume(&wanted(name, GIB), soon()).await.unwrap()
}

#[tokio::test]
async fn a_volume_lives_its_life() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    let volume = made(&san, "v").await;
    assert_eq!(made(&san, "v").await, volume);
    assert_eq!(double.volumes().len(), 1);
    let export = san
        .ensure_export(&volume, &node("n1"), ALONE, soon())
        .await
        .unwrap();
    assert_eq!((export.offers.len(), export.wwid), (2, volume.wwid.clone()));
    let find = || san.find_volume(&volume.key, &volume.wwid, soon());
    let found = find().await.unwrap().unwrap();
    assert_eq!(found.exported_to[0].node_id(), Some(node("n1")));
    let remove = || san.remove_volume(&volume.key, &volume.wwid, soon());
    assert_eq!(remove().await.unwrap_err().fault(), Fault::Precondition);
    for _ in 0..2 {
        san.remove_export(&volume.key, &volume.wwid, None, soon())
            .await
            .unwrap();
    }
    remove().await.unwrap();
    remove().await.unwrap();
    assert_eq!(find().await.unwrap(), None);
    assert_eq!(san.portals(soon()).await.unwrap().len(), 2);
}

fn cut_of(volume: &SanVolume, name: &str) -> NewSnapshot {
    NewSnapshot {
        name: name.to_owned(),
        volume: volume.key.clone(),
        metadata: [("csi/name".to_owned(), name.to_owned())].into(),
        decisive: &["csi/name"],
    }
}

#[tokio::test]
async fn a_snapshot_and_what_is_made_of_it_live_their_lives() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    let volume = made(&san, "v").await;
    let cut = || async { san.ensure_snapshots(&[cut_of(&volume, "s")], soon()).await };
    let snapshot = cut().await.unwrap().remove(0);
    assert_eq!(cut().await.unwrap(), vec![snapshot.clone()]);
    assert_eq!(
        (snapshot.volume.clone(), snapshot.size),
        (volume.key.clone(), GIB)
    );
    let mut clone = wanted("c", 2 * GIB);
    clone.source = Some(Source::Snapshot(snapshot.key.clone()));
    let cloned = san.ensure_volume(&clone, soon()).await.unwrap();
    assert_eq!(san.ensure_volume(&clone, soon()).await.unwrap(), cloned);
    clone.source = Some(Source::Volume(volume.key.clone()));
    let taken = san.ensure_volume(&clone, soon()).await.unwrap_err();
    assert_eq!(taken.fault(), Fault::Conflict);
    assert!(taken.to_string().contains(&snapshot.key), "{taken}");
    let mut gone = wanted("d", GIB);
    gone.source = Some(Source::Snapshot("key-9999".to_owned()));
    let missing = san.ensure_volume(&gone, soon()).await.unwrap_err();
    assert_eq!(missing.fault(), Fault::NotFound);

    let other = made(&san, "w").await;
    let taken = san.ensure_snapshots(&[cut_of(&other, "s")], soon()).await;
    assert!(matches!(taken, Err(SanError::Taken { .. })), "{taken:?}");
    san.ensure_snapshots(&[cut_of(&other, "t")], soon())
        .await
        .unwrap();
    let of = Some(volume.key.as_str());
    let page = san.list_snapshots("", 10, of, soon()).await.unwrap();
    assert_eq!((page.snapshots, page.more), (vec![snapshot.clone()], false));
    let page = san.list_snapshots("", 1, None, soon()).await.unwrap();
    assert!(page.more && page.snapshots.len() == 1);

    double.set_extents(&[(0, 4096), (8192, 4096)]);
    let of = (snapshot.key.as_str(), None);
    let page = san.list_extents(of, 0, 1, soon()).await.unwrap();
    assert_eq!((page.extents, page.next), (vec![(0, 4096)], Some(8192)));
    let page = san.list_extents(of, 8192, 1, soon()).await.unwrap();
    assert_eq!((page.extents, page.next), (vec![(8192, 4096)], None));
    for _ in 0..2 {
        san.remove_snapshot(&snapshot.key, soon()).await.unwrap();
    }
    assert_eq!(
        san.find_snapshot(&snapshot.key, soon()).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn after_a_lost_reply_snapshots_are_looked_for_before_they_are_cut_again() {
    let double = Double::new("one");
    let (first, second) = (double.line().await, double.line().await);
    let san = san(&[first.address(), second.address()]);
    let volumes = [made(&san, "v").await, made(&san, "w").await];
    double.suffer(Mishap::LosesReply("CreateSnapshot"));
    let one = [cut_of(&volumes[0], "s")];
    let cut = san.ensure_snapshots(&one, soon()).await.unwrap();
    let group = [cut_of(&volumes[0], "g/v"), cut_of(&volumes[1], "g/w")];
    double.suffer(Mishap::LosesReply("CreateGroupSnapshot"));
    let together = san.ensure_snapshots(&group, soon()).await.unwrap();
    assert_eq!(together.len(), 2);
    double.suffer(Mishap::LosesRequest("CreateSnapshot"));
    let again = [cut_of(&volumes[0], "u")];
    san.ensure_snapshots(&again, soon()).await.unwrap();
    assert_eq!(double.snapshots(), 4, "none twice");
    let calls = double.calls();
    let cuts: Vec<_> = calls.iter().filter(|c| c.starts_with("Create")).collect();
    assert_eq!(
        cuts[2..],
        [
            &"CreateSnapshot",
            &"CreateGroupSnapshot",
            &"CreateSnapshot",
            &"CreateSnapshot"
        ]
    );
    assert_eq!(san.ensure_snapshots(&one, soon()).await.unwrap(), cut);
    // A part of a group cannot be completed: it was cut at another moment.
    san.remove_snapshot(&together[1].key, soon()).await.unwrap();
    let part = san.ensure_snapshots(&group, soon()).await.unwrap_err();
    assert_eq!(part.fault(), Fault::Conflict);
}

#[tokio::test]
async fn another_wwid_is_another_volume() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    let volume = made(&san, "v").await;
    let other = "360014050123456789abcdef012345678".parse().unwrap();
    let found = san.find_volume(&volume.key, &other, soon()).await.unwrap();
    assert_eq!(found, None);
    san.remove_volume(&volume.key, &other, soon())
        .await
        .unwrap();
    assert_eq!(double.volumes().len(), 1, "left alone");
}

#[tokio::test]
async fn dead_addresses_are_passed_over_and_the_living_one_is_kept() {
    let double = Double::new("one");
    let line = double.line().await;
    let (first, second) = (Line::dead().await, Line::dead().await);
    let san = san(&[&first, &second, line.address()]);
    made(&san, "v").await;
    drop(line);
    // What answered a moment ago would be taken as alive.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = san.capacity(soon()).await.unwrap_err();
    assert!(matches!(error, SanError::Unreachable { .. }), "{error}");
    assert_eq!(error.fault(), Fault::MaybeDone);
    let told = chain(&error);
    assert!(told.contains(&first) && told.contains(&second), "{told}");
}

#[tokio::test]
async fn an_address_that_connects_and_says_nothing_costs_its_share_only() {
    let double = Double::new("one");
    let (silent, line) = (double.line().await, double.line().await);
    silent.fall_silent();
    let san = san(&[silent.address(), line.address()]);
    // A third for each address, and one for what is to be done there on a machine that has much else to do.
    let until = Until::now() + Duration::from_secs(6);
    san.ensure_volume(&wanted("v", GIB), until).await.unwrap();
    assert_eq!(double.calls(), ["FindVolume", "CreateVolume"]);
}

#[tokio::test]
async fn after_a_lost_reply_the_san_is_asked_before_anything_is_sent_again() {
    let double = Double::new("one");
    let (first, second) = (double.line().await, double.line().await);
    let san = san(&[first.address(), second.address()]);
    double.suffer(Mishap::LosesReply("CreateVolume"));
    made(&san, "v").await;
    assert_eq!(double.calls(), ["FindVolume", "CreateVolume", "FindVolume"]);
    double.suffer(Mishap::LosesRequest("CreateVolume"));
    made(&san, "w").await;
    assert_eq!(
        double.calls()[3..],
        ["FindVolume", "CreateVolume", "FindVolume", "CreateVolume"]
    );
    assert_eq!(double.volumes().len(), 2);
}

/// Even at the only address, and although the Linux SAN would take each of these twice.
#[tokio::test]
async fn no_change_is_sent_again_before_a_look() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    let volume = made(&san, "v").await;
    let seen = std::cell::Cell::new(double.calls().len());
    let sent = || double.calls()[seen.replace(double.calls().len())..].to_vec();
    double.suffer(Mishap::LosesReply("ExportVolume"));
    san.ensure_export(&volume, &node("n1"), ALONE, soon())
        .await
        .unwrap();
    assert_eq!(sent(), ["ExportVolume", "FindVolume", "ExportVolume"]);
    double.suffer(Mishap::LosesReply("ExpandVolume"));
    let grown = san.ensure_expanded(&volume, 2 * GIB, soon()).await.unwrap();
    assert_eq!(grown.size, 2 * GIB);
    assert_eq!(sent(), ["ExpandVolume", "FindVolume", "ExpandVolume"]);
    double.suffer(Mishap::LosesReply("UnexportVolume"));
    san.remove_export(&volume.key, &volume.wwid, None, soon())
        .await
        .unwrap();
    let unexport = ["FindVolume", "UnexportVolume"];
    assert_eq!(sent(), [unexport, unexport].concat());
    double.suffer(Mishap::LosesReply("DeleteVolume"));
    san.remove_volume(&volume.key, &volume.wwid, soon())
        .await
        .unwrap();
    assert_eq!(sent(), ["FindVolume", "DeleteVolume", "FindVolume"]);
    assert!(double.volumes().is_empty());
}

#[tokio::test]
async fn replies_that_are_lost_for_ever_leave_the_outcome_open() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    for _ in 0..3 {
        double.suffer(Mishap::LosesRequest("CreateVolume"));
    }
    let error = san
        .ensure_volume(&wanted("v", GIB), soon())
        .await
        .unwrap_err();
    assert!(matches!(error, SanError::NoAnswer { .. }), "{error}");
}

/// Neither is spoken to: which of the two is meant only the operator knows.
#[tokio::test]
async fn a_list_of_two_sans_is_refused_by_name_before_anything_is_sent() {
    let (one, two) = (Double::new("one"), Double::new("two"));
    let (first, second) = (one.line().await, two.line().await);
    let san = san(&[first.address(), second.address()]);
    let refused = san.ensure_volume(&wanted("v", GIB), soon()).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, SanError::TwoSans { .. }), "{error}");
    assert_eq!(error.fault(), Fault::MaybeDone);
    let told = chain(&error);
    for line in [&first, &second] {
        let san = if line.address() == first.address() {
            "one"
        } else {
            "two"
        };
        let said = format!("{} is SAN {san}", line.address());
        assert!(told.contains(&said), "{told}");
    }
    assert!(one.calls().is_empty() && two.calls().is_empty());
    san.relist(&[second.address().to_owned()]);
    made(&san, "v").await;
    assert!(one.calls().is_empty());
}

/// Nobody calls; the probe of the address that was added finds it.
#[tokio::test]
async fn a_stranger_that_is_added_later_is_found_by_a_probe_and_refused_alone() {
    let (ours, other) = (Double::new("one"), Double::new("two"));
    let (line, strange) = (ours.line().await, other.line().await);
    let san = san(&[line.address()]);
    let volume = made(&san, "v").await;
    san.relist(&[strange.address().to_owned(), line.address().to_owned()]);
    let stranger = async || {
        while san.sanhost().addresses[0].standing != AddressStanding::Stranger {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout_at(soon(), stranger()).await.unwrap();
    let state = san.sanhost();
    let (_, why) = state.addresses[0].error.clone().unwrap();
    for name in [strange.address(), "SAN two", "not one"] {
        assert!(why.contains(name), "{why}");
    }
    assert_eq!(state.san_uuid.as_deref(), Some("one"));
    made(&san, "w").await;
    drop(line);
    let error = san
        .find_volume(&volume.key, &volume.wwid, soon())
        .await
        .unwrap_err();
    assert!(chain(&error).contains("two SANs in one"), "{error}");
    assert!(other.calls().is_empty());
}

/// Nothing of them is left when the SAN is gone.
#[tokio::test]
async fn probes_end_with_the_san() {
    let double = Double::new("one");
    let (line, dead) = (double.line().await, Line::dead().await);
    let runtime = tokio::runtime::Handle::current();
    let tasks = || runtime.metrics().num_alive_tasks();
    let before = tasks();
    let san = san(&[line.address(), &dead]);
    made(&san, "v").await;
    assert!(tasks() > before);
    drop(san);
    let gone = async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout_at(soon(), gone).await.unwrap();
}

/// The SAN does not accept us: that is asked of one address and not of the others.
#[tokio::test]
async fn refused_credentials_are_not_sprayed_over_the_addresses() {
    let double = Double::new("one");
    let (first, second) = (double.line().await, double.line().await);
    let san = san(&[first.address(), second.address()]);
    double.suffer(Mishap::Refuses("FindVolume", tonic::Code::Unauthenticated));
    let refused = san.ensure_volume(&wanted("v", GIB), soon()).await;
    assert_eq!(refused.unwrap_err().fault(), Fault::Denied);
    assert_eq!(double.calls(), ["FindVolume"]);
}

#[tokio::test]
async fn a_san_that_is_busy_is_asked_again_where_it_was() {
    let double = Double::new("one");
    let (first, second) = (double.line().await, double.line().await);
    let san = san(&[first.address(), second.address()]);
    for _ in 0..2 {
        double.suffer(Mishap::Refuses("CreateVolume", tonic::Code::Aborted));
    }
    made(&san, "v").await;
    let sent = ["FindVolume", "CreateVolume", "CreateVolume", "CreateVolume"];
    assert_eq!(double.calls(), sent);
    for _ in 0..40 {
        double.suffer(Mishap::Refuses("ListPortals", tonic::Code::Aborted));
    }
    let error = san.portals(soon()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Busy, "{error}");
}

#[tokio::test]
async fn an_answer_is_final_whatever_it_says() {
    let double = Double::new("one");
    let (first, second) = (double.line().await, double.line().await);
    let san = san(&[first.address(), second.address()]);
    for (code, fault) in [
        (tonic::Code::ResourceExhausted, Fault::Exhausted),
        (tonic::Code::OutOfRange, Fault::OutOfRange),
        (tonic::Code::PermissionDenied, Fault::Denied),
        (tonic::Code::Unavailable, Fault::MaybeDone),
    ] {
        double.suffer(Mishap::Refuses("CreateVolume", code));
        let before = double.calls().len();
        let error = san
            .ensure_volume(&wanted("v", GIB), soon())
            .await
            .unwrap_err();
        assert_eq!(error.fault(), fault);
        assert_eq!(double.calls()[before..], ["FindVolume", "CreateVolume"]);
    }
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_with_the_difference() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    made(&san, "v").await;
    let error = san
        .ensure_volume(&wanted("v", 2 * GIB), soon())
        .await
        .unwrap_err();
    assert_eq!(error.fault(), Fault::Conflict);
    assert!(error.to_string().contains("1073741824 bytes"), "{error}");
}

#[tokio::test]
async fn a_use_that_does_not_go_with_another_is_refused_by_name() {
    let double = Double::new("one");
    let line = double.line().await;
    let san = san(&[line.address()]);
    let made = made(&san, "v").await;
    let export = async |name: &str, access| {
        let volume = san.find_volume(&made.key, &made.wwid, soon()).await;
        let volume = volume.unwrap().unwrap();
        san.ensure_export(&volume, &node(name), access, soon())
            .await
            .map_err(|error| (error.fault(), error.to_string()))
    };
    let shared = Access {
        others: Others::Anybody,
        ..ALONE
    };
    let beside_readers = Access {
        others: Others::Readers,
        ..ALONE
    };
    let reading = Access {
        read_only: true,
        ..ALONE
    };
    let first = export("n1", ALONE).await.unwrap();
    assert_eq!(export("n1", ALONE).await.unwrap(), first);
    let clone = NodeId::find("n9/iqn.1993-08.org.debian:n1").unwrap();
    let found = san.find_volume(&made.key, &made.wwid, soon()).await;
    let volume = found.unwrap().unwrap();
    let refused = san.ensure_export(&volume, &clone, ALONE, soon()).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("n9 one of its own"), "{told}");
    let (fault, told) = export("n2", ALONE).await.unwrap_err();
    assert_eq!(fault, Fault::Precondition);
    assert!(told.contains("n1"), "{told}");
    assert_eq!(export("n1", reading).await.unwrap_err().0, Fault::Conflict);
    let (fault, told) = export("n2", beside_readers).await.unwrap_err();
    assert_eq!(fault, Fault::Precondition, "n1 may write");
    assert!(told.contains("n1"), "{told}");
    export("n2", shared).await.unwrap();
}
