//! What the controller tells of one volume and of those that are not well.

use tonic::{Code, Request, Response};

use super::controller::ControllerService;
use super::controller_tests::{create, made, map, publish, refused, service};
use super::proto;
use super::proto::VolumeHealthErrorType::{Degraded, Inaccessible};
use super::proto::controller_server::Controller as _;
use super::topology::TopologyKeys;
use crate::controller::bench::Bench;

/// The grades of the Linux SAN's wire.
const DEGRADED: i32 = 1;
const INACCESSIBLE: i32 = 2;
const OF_A_LATER_SAN: i32 = 9;

async fn get(
    service: &ControllerService,
    id: &str,
) -> Result<proto::ControllerGetVolumeResponse, tonic::Status> {
    let request = proto::ControllerGetVolumeRequest {
        volume_id: id.to_owned(),
    };
    let reply = service.controller_get_volume(Request::new(request)).await;
    reply.map(Response::into_inner)
}

async fn health(
    service: &ControllerService,
    id: &str,
) -> Result<proto::VolumeHealth, tonic::Status> {
    let request = proto::ControllerGetVolumeHealthRequest {
        volume_id: id.to_owned(),
        ..Default::default()
    };
    let reply = service.controller_get_volume_health(Request::new(request));
    reply
        .await
        .map(|reply| reply.into_inner().volume_health.unwrap())
}

async fn list(
    service: &ControllerService,
    max_entries: i32,
    token: &str,
) -> Result<proto::ControllerListVolumeHealthResponse, tonic::Status> {
    let request = proto::ControllerListVolumeHealthRequest {
        max_entries,
        starting_token: token.to_owned(),
        ..Default::default()
    };
    let reply = service.controller_list_volume_health(Request::new(request));
    reply.await.map(Response::into_inner)
}

async fn named(service: &ControllerService, name: &str) -> proto::Volume {
    let request = proto::CreateVolumeRequest {
        name: name.to_owned(),
        parameters: map(&[("partition", &name[..1])]),
        ..create()
    };
    let reply = service.create_volume(Request::new(request)).await;
    reply.unwrap().into_inner().volume.unwrap()
}

#[tokio::test]
async fn a_volume_is_told_with_the_nodes_that_have_it() {
    let (service, bench) = service().await;
    let volume = made(&service).await;
    let nodes = async || {
        let found = get(&service, &volume.volume_id).await.unwrap();
        assert_eq!(found.volume.unwrap(), volume);
        found.status.unwrap().published_node_ids
    };
    assert_eq!(nodes().await, Vec::<String>::new());
    let give = publish(&volume.volume_id);
    let node = give.node_id.clone();
    let given = service.controller_publish_volume(Request::new(give)).await;
    given.unwrap();
    assert_eq!(nodes().await, [node]);
    assert_eq!(refused(get(&service, "").await).0, Code::InvalidArgument);
    let mut other = volume.volume_id.clone();
    other.replace_range(other.len() - 1.., "e");
    for unknown in ["fake-vol-id", &other] {
        assert_eq!(refused(get(&service, unknown).await).0, Code::NotFound);
    }
    drop(bench);
    let away = refused(get(&service, &volume.volume_id).await);
    assert_eq!(away.0, Code::Unavailable);
}

#[tokio::test]
async fn what_the_san_says_of_a_volume_is_told() {
    let (service, bench) = service().await;
    let volume = made(&service).await;
    let id = &volume.volume_id;
    let well = health(&service, id).await.unwrap();
    assert_eq!(
        (&well.volume_id, well.health_statuses.len()),
        (id, 0),
        "no entry is good health"
    );
    let key = &bench.san().volumes()[0].key;
    bench.san().trouble(key, DEGRADED, "PortalDown");
    bench.san().trouble(key, OF_A_LATER_SAN, &"x".repeat(300));
    let found = health(&service, id).await.unwrap().health_statuses;
    assert_eq!(
        (found[0].status(), found[0].reason.as_str()),
        (Degraded, "PortalDown")
    );
    assert!(found[0].message.contains("in trouble"), "{found:?}");
    assert_eq!(
        (found[1].status(), found[1].reason.len()),
        (Inaccessible, 256),
        "a grade of a later SAN is taken seriously"
    );
    assert_eq!(refused(health(&service, "").await).0, Code::InvalidArgument);
    let unknown = refused(health(&service, "fake-vol-id").await);
    assert_eq!(unknown.0, Code::NotFound);
    drop(bench);
    assert_eq!(refused(health(&service, id).await).0, Code::Unavailable);
}

#[tokio::test]
async fn only_volumes_that_are_not_well_are_listed_and_page_by_page() {
    let bench = Bench::new(&["a", "b"]).await;
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let service = ControllerService::new(bench.controller.clone(), keys);
    let mut sick = Vec::new();
    for name in ["a1", "a2", "a3", "a4", "b1", "b2"] {
        let volume = named(&service, name).await;
        if name != "a2" && name != "b1" {
            sick.push(volume.volume_id);
        }
    }
    for (double, _) in &bench.sans {
        for volume in double.volumes() {
            if volume.name != "a2" && volume.name != "b1" {
                double.trouble(&volume.key, INACCESSIBLE, "ImageMissing");
            }
        }
        double.put_foreign("key-9999");
        double.trouble("key-9999", INACCESSIBLE, "ImageMissing");
    }
    for most in [0, 1, 2, 3, 4, 7] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(&service, most, &token).await.unwrap();
            assert!(most == 0 || page.entries.len() <= usize::try_from(most).unwrap());
            let entries = page.entries.into_iter();
            seen.extend(entries.map(|entry| {
                assert_eq!(entry.health_statuses.len(), 1);
                entry.volume_id
            }));
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, sick, "{most} at a time");
    }
    let calls = bench.sans[0].0.calls();
    let asked = calls.iter().filter(|call| **call == "CheckVolumes");
    assert!(
        asked.count() <= 20,
        "pages are not asked for one volume at a time"
    );
    for token in ["invalid-token", "c:key-0001", "a:no-key"] {
        let answer = refused(list(&service, 0, token).await);
        assert_eq!(answer.0, Code::Aborted, "{token}");
    }
    assert_eq!(
        refused(list(&service, -1, "").await).0,
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_san_that_does_not_answer_makes_no_short_list() {
    let mut bench = Bench::new(&["a", "b"]).await;
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let service = ControllerService::new(bench.controller.clone(), keys);
    named(&service, "a1").await;
    bench.sans.remove(1);
    let (code, message) = refused(list(&service, 0, "").await);
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("partition b"), "{message}");
    let volumes = service.list_volumes(Request::new(proto::ListVolumesRequest::default()));
    assert_eq!(refused(volumes.await).0, Code::Unavailable);
}
