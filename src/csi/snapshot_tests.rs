//! Snapshots, groups of them and content sources through the wire's traits: every code that CSI asks for.

use tonic::{Code, Request};

use super::controller::ControllerService;
use super::controller_tests::{create, delete, made, map, refused, service};
use super::proto;
use super::proto::controller_server::Controller as _;
use super::proto::group_controller_server::GroupController as _;
use super::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};

const BAD: Code = Code::InvalidArgument;

/// Each change of a good request, with the code and a word of the message that it must bring.
type Rule<R> = (fn(&mut R), Code, &'static str);

fn snapshot_of(id: &str) -> proto::CreateSnapshotRequest {
    proto::CreateSnapshotRequest {
        name: "s".to_owned(),
        source_volume_id: id.to_owned(),
        ..Default::default()
    }
}

async fn cut(service: &ControllerService, name: &str, id: &str) -> proto::Snapshot {
    let request = proto::CreateSnapshotRequest {
        name: name.to_owned(),
        ..snapshot_of(id)
    };
    let cut = service.create_snapshot(Request::new(request)).await;
    cut.unwrap().into_inner().snapshot.unwrap()
}

fn from_snapshot(id: &str) -> Option<proto::VolumeContentSource> {
    let snapshot_id = id.to_owned();
    let r#type = Some(Type::Snapshot(SnapshotSource { snapshot_id }));
    Some(proto::VolumeContentSource { r#type })
}

fn from_volume(id: &str) -> Option<proto::VolumeContentSource> {
    let volume_id = id.to_owned();
    let r#type = Some(Type::Volume(VolumeSource { volume_id }));
    Some(proto::VolumeContentSource { r#type })
}

const SNAPSHOT_RULES: &[Rule<proto::CreateSnapshotRequest>] = &[
    (|r| r.name.clear(), BAD, "name is required"),
    (
        |r| r.source_volume_id.clear(),
        BAD,
        "source_volume_id is required",
    ),
    (|r| r.name = "n".repeat(129), BAD, "name has 129 bytes"),
    (|r| r.name = "n\u{7}".to_owned(), BAD, "name holds"),
    (|r| r.parameters = map(&[("k", "v")]), BAD, "\"k\""),
    (
        |r| r.parameters = map(&[("k", &"v".repeat(4096))]),
        BAD,
        "parameters has 4097",
    ),
    (
        |r| r.secrets = map(&[("k", &"v".repeat(4096))]),
        BAD,
        "secrets has 4097",
    ),
    (
        |r| r.accessibility_requirements = Some(proto::TopologyRequirement::default()),
        BAD,
        "accessibility_requirements",
    ),
    (
        |r| r.source_volume_id = "fake-vol-id".to_owned(),
        Code::NotFound,
        "fake-vol-id",
    ),
];

#[tokio::test]
async fn create_snapshot_refuses_what_csi_says() {
    let (service, bench) = service().await;
    let id = made(&service).await.volume_id;
    for (spoil, code, word) in SNAPSHOT_RULES {
        let mut request = snapshot_of(&id);
        spoil(&mut request);
        let (got, message) = refused(service.create_snapshot(Request::new(request)).await);
        assert_eq!(
            (got, message.contains(word)),
            (*code, true),
            "{word}: {message}"
        );
    }
    assert_eq!(bench.san().snapshots(), 0);
}

#[tokio::test]
async fn a_snapshot_says_all_that_csi_asks_for() {
    let (service, _bench) = service().await;
    let volume = made(&service).await;
    let snapshot = cut(&service, &"n".repeat(128), &volume.volume_id).await;
    assert!(snapshot.snapshot_id.len() <= 128 && snapshot.ready_to_use);
    assert_eq!(snapshot.size_bytes, volume.capacity_bytes);
    assert_eq!(snapshot.source_volume_id, volume.volume_id);
    assert!(snapshot.creation_time.unwrap().seconds > 0);
    assert_eq!(snapshot.group_snapshot_id, "");
    let get = proto::GetSnapshotRequest {
        snapshot_id: snapshot.snapshot_id.clone(),
        ..Default::default()
    };
    let got = service.get_snapshot(Request::new(get)).await.unwrap();
    assert_eq!(got.into_inner().snapshot, Some(snapshot));
}

#[tokio::test]
async fn a_snapshot_never_issued_is_gone_unknown_or_not_in_the_list() {
    let (service, _bench) = service().await;
    let volume = made(&service).await.volume_id;
    let known = cut(&service, "s", &volume).await.snapshot_id;
    let long = "x".repeat(2000);
    for id in ["fake-snapshot-id", &long, &volume] {
        let request = proto::DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        service
            .delete_snapshot(Request::new(request))
            .await
            .unwrap();
        let request = proto::GetSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        let (code, message) = refused(service.get_snapshot(Request::new(request)).await);
        assert_eq!(code, Code::NotFound);
        assert!(message.len() < 300, "{message}");
        assert_eq!(listed(&service, id, "").await, [""; 0]);
    }
    assert_eq!(listed(&service, "", "fake-vol-id").await, [""; 0]);
    for (id, source) in [("", ""), (&*known, ""), ("", &*volume), (&*known, &*volume)] {
        assert_eq!(listed(&service, id, source).await, [&*known]);
    }
    let none = Request::new(proto::DeleteSnapshotRequest::default());
    assert_eq!(refused(service.delete_snapshot(none).await).0, BAD);
    let none = Request::new(proto::GetSnapshotRequest::default());
    assert_eq!(refused(service.get_snapshot(none).await).0, BAD);
    let negative = proto::ListSnapshotsRequest {
        max_entries: -1,
        ..Default::default()
    };
    let negative = service.list_snapshots(Request::new(negative)).await;
    assert_eq!(refused(negative).0, BAD);
    let token = proto::ListSnapshotsRequest {
        starting_token: "invalid-token".to_owned(),
        ..Default::default()
    };
    let refusal = refused(service.list_snapshots(Request::new(token)).await);
    assert_eq!(refusal.0, Code::Aborted);
}

/// Snapshots come and go between the pages; those that stay are each told once.
#[tokio::test]
async fn pages_miss_no_snapshot_that_stays_while_others_come_and_go() {
    let (service, _bench) = service().await;
    let volume = made(&service).await.volume_id;
    for most in 1..4 {
        let (mut staying, mut leaving) = (Vec::new(), Vec::new());
        for number in 0..6 {
            let id = cut(&service, &format!("{most}-{number}"), &volume).await;
            let kept = if number % 2 == 0 {
                &mut leaving
            } else {
                &mut staying
            };
            kept.push(id.snapshot_id);
        }
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListSnapshotsRequest {
                max_entries: most,
                starting_token: token,
                ..Default::default()
            };
            let page = service.list_snapshots(Request::new(request)).await.unwrap();
            let page = page.into_inner();
            let told = page.entries.into_iter();
            seen.extend(told.map(|it| it.snapshot.unwrap().snapshot_id));
            // The last one of the page may be gone when the next is asked for.
            for snapshot_id in std::mem::take(&mut leaving) {
                remove(&service, &snapshot_id).await;
            }
            token = page.next_token;
            if token.is_empty() {
                break;
            }
            if seen.len() < 5 {
                cut(&service, &format!("{most}-new-{}", seen.len()), &volume).await;
            }
        }
        for id in &staying {
            let times = seen.iter().filter(|it| *it == id).count();
            assert_eq!(times, 1, "{id} by {most}");
            remove(&service, id).await;
        }
    }
}

async fn remove(service: &ControllerService, id: &str) {
    let request = proto::DeleteSnapshotRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    };
    let gone = service.delete_snapshot(Request::new(request)).await;
    gone.unwrap();
}

async fn listed(service: &ControllerService, id: &str, source: &str) -> Vec<String> {
    let request = proto::ListSnapshotsRequest {
        snapshot_id: id.to_owned(),
        source_volume_id: source.to_owned(),
        ..Default::default()
    };
    let reply = service.list_snapshots(Request::new(request)).await;
    let entries = reply.unwrap().into_inner().entries.into_iter();
    entries.map(|it| it.snapshot.unwrap().snapshot_id).collect()
}

#[tokio::test]
async fn a_volume_is_made_of_a_snapshot_or_a_volume_and_says_so() {
    let (service, _bench) = service().await;
    let source = made(&service).await.volume_id;
    let snapshot = cut(&service, "s", &source).await.snapshot_id;
    for (name, origin) in [("r", from_snapshot(&snapshot)), ("c", from_volume(&source))] {
        let request = proto::CreateVolumeRequest {
            name: name.to_owned(),
            volume_content_source: origin.clone(),
            ..create()
        };
        for _ in 0..2 {
            let made = service.create_volume(Request::new(request.clone())).await;
            let volume = made.unwrap().into_inner().volume.unwrap();
            assert_eq!(volume.content_source, origin);
            let get = proto::ControllerGetVolumeRequest {
                volume_id: volume.volume_id,
            };
            let got = service.controller_get_volume(Request::new(get)).await;
            let got = got.unwrap().into_inner().volume.unwrap();
            assert_eq!(got.content_source, origin);
        }
    }
    let deleted = service.delete_volume(Request::new(delete(&source))).await;
    deleted.unwrap();
    for (origin, code) in [
        (from_snapshot("fake-snapshot-id"), Code::NotFound),
        (from_volume("fake-vol-id"), Code::NotFound),
        (from_volume(&source), Code::NotFound),
        (from_snapshot(""), BAD),
        (from_volume(""), BAD),
    ] {
        let request = proto::CreateVolumeRequest {
            name: "n".to_owned(),
            volume_content_source: origin,
            ..create()
        };
        let (got, message) = refused(service.create_volume(Request::new(request)).await);
        assert_eq!(got, code, "{message}");
    }
}

#[tokio::test]
async fn the_second_cut_of_a_name_waits_and_a_caller_that_goes_away_cuts_nothing_off() {
    let (service, bench) = service().await;
    let id = made(&service).await.volume_id;
    let gate = bench.san().hold("CreateSnapshot");
    let mut first = Box::pin(service.create_snapshot(Request::new(snapshot_of(&id))));
    tokio::select! {
        _ = &mut first => panic!("it waits for the SAN"),
        () = gate.reached() => {}
    }
    let second = service.create_snapshot(Request::new(snapshot_of(&id)));
    assert_eq!(refused(second.await).0, Code::Aborted);
    drop(first);
    gate.open();
    loop {
        let again = service.create_snapshot(Request::new(snapshot_of(&id)));
        match again.await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::Aborted),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.san().snapshots(), 1);
}

fn pair(name: &str, ids: &[&str]) -> Request<proto::CreateVolumeGroupSnapshotRequest> {
    Request::new(proto::CreateVolumeGroupSnapshotRequest {
        name: name.to_owned(),
        source_volume_ids: ids.iter().map(|&id| id.to_owned()).collect(),
        ..Default::default()
    })
}

async fn two_volumes(service: &ControllerService) -> (String, String) {
    let one = made(service).await.volume_id;
    let request = proto::CreateVolumeRequest {
        name: "w".to_owned(),
        ..create()
    };
    let two = service.create_volume(Request::new(request)).await.unwrap();
    (one, two.into_inner().volume.unwrap().volume_id)
}

#[tokio::test]
async fn create_group_refuses_what_csi_says() {
    let (service, bench) = service().await;
    let (one, two) = two_volumes(&service).await;
    for (name, ids, code) in [
        ("", &[&*one][..], BAD),
        ("g", &[], BAD),
        ("g", &[&one, &one], BAD),
        ("g", &["fake-vol-id"], Code::NotFound),
    ] {
        let refusal = service.create_volume_group_snapshot(pair(name, ids)).await;
        assert_eq!(refused(refusal).0, code, "{ids:?}");
    }
    let mut parameters = pair("g", &[&one]);
    parameters.get_mut().parameters = map(&[("k", "v")]);
    let refusal = service.create_volume_group_snapshot(parameters).await;
    assert_eq!(refused(refusal).0, BAD);
    bench.refuse("CreateGroupSnapshot", Code::FailedPrecondition);
    let both = service.create_volume_group_snapshot(pair("g", &[&one, &two]));
    assert_eq!(refused(both.await).0, Code::FailedPrecondition);
    assert_eq!(bench.san().snapshots(), 0);
}

#[tokio::test]
async fn a_group_says_all_that_csi_asks_for() {
    let (service, _bench) = service().await;
    let (one, two) = two_volumes(&service).await;
    let made = service.create_volume_group_snapshot(pair("g", &[&one, &two]));
    let group = made.await.unwrap().into_inner().group_snapshot.unwrap();
    assert!(group.ready_to_use && group.creation_time.is_some());
    assert!(group.group_snapshot_id.len() <= 128);
    assert_eq!(group.snapshots.len(), 2);
    let mut ids = Vec::new();
    for snapshot in &group.snapshots {
        assert_eq!(snapshot.group_snapshot_id, group.group_snapshot_id);
        ids.push(snapshot.snapshot_id.clone());
    }
    let get = |group: &str, ids: &[String]| {
        Request::new(proto::GetVolumeGroupSnapshotRequest {
            group_snapshot_id: group.to_owned(),
            snapshot_ids: ids.to_vec(),
            ..Default::default()
        })
    };
    let got = service.get_volume_group_snapshot(get(&group.group_snapshot_id, &ids));
    let got = got.await.unwrap().into_inner().group_snapshot;
    assert_eq!(got, Some(group.clone()));
    for (name, ids, code) in [
        ("", &ids[..], BAD),
        ("fake-group", &[], Code::NotFound),
        (&*group.group_snapshot_id, &[], BAD),
        (&*group.group_snapshot_id, &ids[..1], BAD),
    ] {
        let got = service.get_volume_group_snapshot(get(name, ids)).await;
        assert_eq!(refused(got).0, code, "{name} {ids:?}");
    }
}

#[tokio::test]
async fn a_group_is_deleted_whole_and_a_member_not_alone() {
    let (service, bench) = service().await;
    let (one, two) = two_volumes(&service).await;
    let made = service.create_volume_group_snapshot(pair("g", &[&one, &two]));
    let group = made.await.unwrap().into_inner().group_snapshot.unwrap();
    let ids = group.snapshots.iter().map(|it| it.snapshot_id.clone());
    let ids: Vec<String> = ids.collect();
    let member = proto::DeleteSnapshotRequest {
        snapshot_id: ids[0].clone(),
        ..Default::default()
    };
    let (code, _) = refused(service.delete_snapshot(Request::new(member)).await);
    assert_eq!(code, BAD);
    assert_eq!(bench.san().snapshots(), 2);
    let delete = async |group: &str, ids: &[String]| {
        let request = proto::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: group.to_owned(),
            snapshot_ids: ids.to_vec(),
            ..Default::default()
        };
        service
            .delete_volume_group_snapshot(Request::new(request))
            .await
    };
    let id = &*group.group_snapshot_id;
    assert_eq!(refused(delete("", &ids).await).0, BAD);
    assert_eq!(refused(delete(id, &ids[..1]).await).0, BAD);
    delete("fake-group", &[]).await.unwrap();
    assert_eq!(bench.san().snapshots(), 2);
    for _ in 0..2 {
        delete(id, &ids).await.unwrap();
    }
    assert_eq!(bench.san().snapshots(), 0);
}
