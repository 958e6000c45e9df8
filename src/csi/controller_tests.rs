//! The Controller service called through its wire trait: every code that CSI asks for, and what a lost caller leaves behind.

use std::collections::HashMap;

use tonic::{Code, Request, Status};

use super::controller::ControllerService;
use super::proto::controller_server::Controller as _;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use super::proto::{self, CapacityRange, VolumeCapability};
use super::topology::TopologyKeys;
use crate::controller::bench::Bench;

const GIB: i64 = 1 << 30;
pub(super) const NODE: &str = "n1/iqn.1993-08.org.debian:n1";
pub(super) const OTHER_NODE: &str = "n2/iqn.1993-08.org.debian:n2";
const NEVER_ISSUED: &str = "fake-vol-id";

pub(super) async fn service() -> (ControllerService, Bench) {
    let bench = Bench::new(&["cluster-a"]).await;
    let keys = TopologyKeys::new("csi.sanpath.dev");
    (
        ControllerService::new(bench.controller.clone(), keys),
        bench,
    )
}

pub(super) fn capability(access: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub(super) fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

fn shared_mount() -> VolumeCapability {
    let mount = AccessType::Mount(MountVolume::default());
    capability(mount, Mode::MultiNodeMultiWriter)
}

pub(super) fn map(entries: &[(&str, &str)]) -> HashMap<String, String> {
    entries
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub(super) fn create() -> proto::CreateVolumeRequest {
    proto::CreateVolumeRequest {
        name: "v".to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: GIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![block()],
        ..Default::default()
    }
}

pub(super) fn publish(id: &str) -> proto::ControllerPublishVolumeRequest {
    proto::ControllerPublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: NODE.to_owned(),
        volume_capability: Some(block()),
        ..Default::default()
    }
}

pub(super) fn unpublish(id: &str, node: &str) -> proto::ControllerUnpublishVolumeRequest {
    proto::ControllerUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

fn validate(id: &str) -> proto::ValidateVolumeCapabilitiesRequest {
    proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_capabilities: vec![block()],
        ..Default::default()
    }
}

pub(super) fn delete(id: &str) -> proto::DeleteVolumeRequest {
    proto::DeleteVolumeRequest {
        volume_id: id.to_owned(),
        ..Default::default()
    }
}

pub(super) async fn made(service: &ControllerService) -> proto::Volume {
    let reply = service.create_volume(Request::new(create())).await;
    reply.unwrap().into_inner().volume.unwrap()
}

/// The code and the message; every message must say something and no detail may be attached.
pub(super) fn refused<T: std::fmt::Debug>(reply: Result<T, Status>) -> (Code, String) {
    let status = reply.unwrap_err();
    assert!(!status.message().is_empty() && status.details().is_empty());
    (status.code(), status.message().to_owned())
}

/// Each change of a good request, with the code and a word of the message that it must bring.
type Rule<R> = (fn(&mut R), Code, &'static str);

const BAD: Code = Code::InvalidArgument;

const CREATE_RULES: &[Rule<proto::CreateVolumeRequest>] = &[
    (|r| r.name.clear(), BAD, "name is required"),
    (|r| r.name = "n".repeat(129), BAD, "name has 129 bytes"),
    (|r| r.name = "n\u{0}".to_owned(), BAD, "name holds"),
    (|r| r.name = "n\u{9f}".to_owned(), BAD, "name holds"),
    (
        |r| r.volume_capabilities.clear(),
        BAD,
        "volume_capabilities is required",
    ),
    (
        |r| r.volume_capabilities[0].access_type = None,
        BAD,
        "access_type",
    ),
    (
        |r| r.volume_capabilities[0].access_mode = None,
        BAD,
        "access_mode",
    ),
    (
        |r| r.volume_capabilities.push(shared_mount()),
        BAD,
        "access_mode",
    ),
    (
        |r| r.capacity_range = Some(CapacityRange::default()),
        BAD,
        "required_bytes",
    ),
    (|r| range(r, -1, 0), BAD, "required_bytes is negative"),
    (|r| range(r, 0, -1), BAD, "limit_bytes is negative"),
    (|r| range(r, 2, 1), BAD, "limit_bytes (1) is less"),
    (|r| range(r, 1, 5), Code::OutOfRange, "between 1 and 5"),
    (
        |r| range(r, i64::MAX, 0),
        Code::OutOfRange,
        "required_bytes",
    ),
    (|r| r.parameters = map(&[("raid", "5")]), BAD, "\"raid\""),
    (
        |r| r.parameters = map(&[("partition", "b")]),
        BAD,
        "parameters.partition",
    ),
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
        |r| r.mutable_parameters = map(&[("k", "v")]),
        BAD,
        "mutable_parameters: \"k\"",
    ),
    (
        |r| r.mutable_parameters = map(&[("qosPolicy", "gold")]),
        BAD,
        "mutable_parameters.qosPolicy: a SAN of the kind",
    ),
    (
        |r| r.volume_content_source = Some(Default::default()),
        BAD,
        "volume_content_source.type",
    ),
];

#[tokio::test]
async fn create_refuses_what_csi_says() {
    let (service, bench) = service().await;
    for (spoil, code, word) in CREATE_RULES {
        let mut request = create();
        spoil(&mut request);
        let (got, message) = refused(service.create_volume(Request::new(request)).await);
        assert_eq!(
            (got, message.contains(word)),
            (*code, true),
            "{word}: {message}"
        );
    }
    assert!(bench.san().volumes().is_empty());
}

fn range(request: &mut proto::CreateVolumeRequest, required_bytes: i64, limit_bytes: i64) {
    request.capacity_range = Some(CapacityRange {
        required_bytes,
        limit_bytes,
    });
}

#[tokio::test]
async fn create_takes_what_csi_allows() {
    let (service, bench) = service().await;
    let allowed: &[fn(&mut proto::CreateVolumeRequest)] = &[
        |r| r.name = "n".repeat(128),
        |r| r.name = "Ünïcødé / \t \u{1f4be}".to_owned(),
        |r| r.capacity_range = None,
        |r| range(r, 0, 3 * (GIB / 2)),
        |r| r.parameters = map(&[("csi.storage.k8s.io/pv/name", "pv")]),
        |r| r.volume_capabilities = vec![block(), block()],
    ];
    for (number, change) in allowed.iter().enumerate() {
        let mut request = create();
        request.name = format!("v{number}");
        change(&mut request);
        let reply = service.create_volume(Request::new(request)).await;
        let volume = reply.unwrap().into_inner().volume.unwrap();
        assert!(volume.volume_id.len() <= 128 && volume.capacity_bytes > 0);
        assert_eq!(volume.volume_context, map(&[("partition", "cluster-a")]));
    }
    assert_eq!(bench.san().volumes().len(), allowed.len());
}

#[tokio::test]
async fn a_name_means_one_volume() {
    let (service, _bench) = service().await;
    let first = made(&service).await;
    assert_eq!(made(&service).await, first);
    let mut other = create();
    range(&mut other, 2 * GIB, 2 * GIB);
    let (code, message) = refused(service.create_volume(Request::new(other)).await);
    assert_eq!(code, Code::AlreadyExists);
    assert!(message.contains("\"v\""), "{message}");
}

const PUBLISH_RULES: &[Rule<proto::ControllerPublishVolumeRequest>] = &[
    (|r| r.volume_id.clear(), BAD, "volume_id is required"),
    (|r| r.node_id.clear(), BAD, "node_id is required"),
    (
        |r| r.volume_capability = None,
        BAD,
        "volume_capability is required",
    ),
    (
        |r| r.volume_capability = Some(shared_mount()),
        BAD,
        "access_mode",
    ),
    (|r| r.node_id = "n".repeat(257), BAD, "node_id has 257"),
    (
        |r| r.volume_context = map(&[("k", &"v".repeat(4096))]),
        BAD,
        "volume_context",
    ),
    (
        |r| r.secrets = map(&[("k", &"v".repeat(4096))]),
        BAD,
        "secrets",
    ),
    (
        |r| r.volume_id = NEVER_ISSUED.to_owned(),
        Code::NotFound,
        NEVER_ISSUED,
    ),
    (
        |r| r.volume_id = "v".repeat(2000),
        Code::NotFound,
        "volume_id",
    ),
    (|r| r.volume_id.push('0'), Code::NotFound, "volume_id"),
    (
        |r| r.node_id = "fake-node-id".to_owned(),
        Code::NotFound,
        "fake-node-id",
    ),
    // What is missing is told before what is unknown.
    (
        |r| {
            r.volume_id = NEVER_ISSUED.to_owned();
            r.volume_capability = None;
        },
        BAD,
        "volume_capability is required",
    ),
];

#[tokio::test]
async fn publish_refuses_what_csi_says() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    for (spoil, code, word) in PUBLISH_RULES {
        let mut request = publish(&id);
        spoil(&mut request);
        let reply = service.controller_publish_volume(Request::new(request));
        let (got, message) = refused(reply.await);
        assert_eq!(
            (got, message.contains(word)),
            (*code, true),
            "{word}: {message}"
        );
    }
}

#[tokio::test]
async fn a_volume_goes_to_one_node_at_a_time() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    let call = async |request| {
        let reply = service.controller_publish_volume(Request::new(request));
        reply.await.map(|reply| reply.into_inner().publish_context)
    };
    let context = call(publish(&id)).await.unwrap();
    assert_eq!(call(publish(&id)).await.unwrap(), context);
    assert_eq!(context["sizeBytes"], GIB.to_string());
    let mut elsewhere = publish(&id);
    elsewhere.node_id = OTHER_NODE.to_owned();
    let (code, message) = refused(call(elsewhere.clone()).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("n1"), "{message}");
    let mut reading = publish(&id);
    let reader = Mode::SingleNodeReaderOnly;
    reading.volume_capability = Some(capability(AccessType::Block(BlockVolume {}), reader));
    assert_eq!(refused(call(reading).await).0, Code::AlreadyExists);
    let (code, message) = refused(service.delete_volume(Request::new(delete(&id))).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("n1"), "{message}");
    let leave = unpublish(&id, NODE);
    let left = service.controller_unpublish_volume(Request::new(leave));
    left.await.unwrap();
    call(elsewhere).await.unwrap();
}

#[tokio::test]
async fn what_is_gone_or_was_never_there_is_gone() {
    let (service, bench) = service().await;
    let id = made(&service).await.volume_id;
    for id in [
        NEVER_ISSUED,
        "non-existing-volume-id",
        &"v".repeat(2000),
        &id,
        &id,
    ] {
        for node in ["", NODE, "fake-node-id"] {
            let request = Request::new(unpublish(id, node));
            service.controller_unpublish_volume(request).await.unwrap();
        }
        service
            .delete_volume(Request::new(delete(id)))
            .await
            .unwrap();
    }
    assert!(bench.san().volumes().is_empty());
    let request = Request::new(unpublish(&id, NODE));
    service.controller_unpublish_volume(request).await.unwrap();
    let request = Request::new(unpublish("", NODE));
    let (code, _) = refused(service.controller_unpublish_volume(request).await);
    assert_eq!(code, BAD);
    let (code, _) = refused(service.delete_volume(Request::new(delete(""))).await);
    assert_eq!(code, BAD);
}

#[tokio::test]
async fn validate_tells_unknown_from_unsupported() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    let call = async |request| {
        let reply = service.validate_volume_capabilities(Request::new(request));
        reply.await.map(tonic::Response::into_inner)
    };
    let confirmed = call(validate(&id)).await.unwrap().confirmed.unwrap();
    assert_eq!(confirmed.volume_capabilities, [block()]);
    let mut unsupported = validate(&id);
    unsupported.volume_capabilities.push(shared_mount());
    let reply = call(unsupported).await.unwrap();
    assert!(reply.confirmed.is_none() && !reply.message.is_empty());
    let mut none = validate(NEVER_ISSUED);
    none.volume_capabilities.clear();
    assert_eq!(refused(call(none).await).0, BAD);
    assert_eq!(refused(call(validate("")).await).0, BAD);
    let unknown = refused(call(validate(NEVER_ISSUED)).await);
    assert_eq!(unknown.0, Code::NotFound);
}

#[tokio::test]
async fn list_pages_and_names_the_nodes() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    let published = service.controller_publish_volume(Request::new(publish(&id)));
    published.await.unwrap();
    for name in ["w", "x"] {
        let mut request = create();
        request.name = name.to_owned();
        service.create_volume(Request::new(request)).await.unwrap();
    }
    let list = async |max_entries, token: &str| {
        let starting_token = token.to_owned();
        let request = proto::ListVolumesRequest {
            max_entries,
            starting_token,
        };
        let reply = service.list_volumes(Request::new(request)).await;
        reply.map(tonic::Response::into_inner)
    };
    let first = list(2, "").await.unwrap();
    assert_eq!(first.entries.len(), 2);
    let status = first.entries[0].status.clone().unwrap();
    assert_eq!(status.published_node_ids, [NODE]);
    let rest = list(0, &first.next_token).await.unwrap();
    assert_eq!((rest.entries.len(), rest.next_token.as_str()), (1, ""));
    assert_eq!(refused(list(0, "invalid-token").await).0, Code::Aborted);
    assert_eq!(refused(list(-1, "").await).0, BAD);
}

#[tokio::test]
async fn capacity_takes_its_filters_into_account() {
    let (service, _bench) = service().await;
    let call = async |request| {
        let reply = service.get_capacity(Request::new(request)).await;
        reply.map(tonic::Response::into_inner)
    };
    let room = call(proto::GetCapacityRequest::default()).await.unwrap();
    assert_eq!(room.available_capacity, 60 << 30);
    assert_eq!(room.maximum_volume_size, Some(16 << 40));
    let unknown = proto::GetCapacityRequest {
        parameters: map(&[("partition", "b")]),
        ..Default::default()
    };
    assert_eq!(refused(call(unknown).await).0, BAD);
    let unsupported = proto::GetCapacityRequest {
        volume_capabilities: vec![shared_mount()],
        ..Default::default()
    };
    assert_eq!(refused(call(unsupported).await).0, BAD);
}

#[tokio::test]
async fn a_san_that_is_away_leaves_the_outcome_open() {
    let (service, mut bench) = service().await;
    let id = made(&service).await.volume_id;
    bench.sans.clear();
    let outcomes = [
        refused(service.create_volume(Request::new(create())).await),
        refused(service.delete_volume(Request::new(delete(&id))).await),
        refused(
            service
                .controller_publish_volume(Request::new(publish(&id)))
                .await,
        ),
        refused(
            service
                .controller_unpublish_volume(Request::new(unpublish(&id, "")))
                .await,
        ),
    ];
    for (code, message) in outcomes {
        assert_eq!(code, Code::Unavailable, "{message}");
        assert!(message.contains("127.0.0.1"), "{message}");
    }
}

/// tonic drops the future of a call whose client went away.
#[tokio::test]
async fn a_caller_that_goes_away_cuts_nothing_off_and_the_next_is_told_to_wait() {
    let (service, bench) = service().await;
    let gate = bench.san().hold("CreateVolume");
    let mut first = Box::pin(service.create_volume(Request::new(create())));
    tokio::select! {
        _ = &mut first => panic!("it waits for the SAN"),
        () = gate.reached() => {}
    }
    let second = refused(service.create_volume(Request::new(create())).await);
    assert_eq!(second.0, Code::Aborted);
    drop(first);
    gate.open();
    bench.san().wait_for_volumes(1).await;
}

const EXPAND_RULES: &[Rule<proto::ControllerExpandVolumeRequest>] = &[
    (|r| r.volume_id.clear(), BAD, "volume_id is required"),
    (
        |r| r.capacity_range = None,
        BAD,
        "capacity_range is required",
    ),
    (|r| larger(r, 0, 0), BAD, "required_bytes"),
    (|r| larger(r, -1, 0), BAD, "required_bytes is negative"),
    (|r| larger(r, 2, 1), BAD, "limit_bytes (1) is less"),
    (|r| larger(r, 1, 2), Code::OutOfRange, "no volume shrinks"),
    (
        |r| larger(r, i64::MAX, 0),
        Code::OutOfRange,
        "required_bytes",
    ),
    (
        |r| r.volume_capability = Some(shared_mount()),
        BAD,
        "access_mode",
    ),
    (
        |r| r.secrets = map(&[("k", &"v".repeat(4096))]),
        BAD,
        "secrets has 4097",
    ),
    (
        |r| r.volume_id = "fake-vol-id".to_owned(),
        Code::NotFound,
        "fake-vol-id",
    ),
];

fn larger(request: &mut proto::ControllerExpandVolumeRequest, required: i64, limit: i64) {
    request.capacity_range = Some(CapacityRange {
        required_bytes: required,
        limit_bytes: limit,
    });
}

#[tokio::test]
async fn expand_refuses_what_csi_says() {
    let (service, _bench) = service().await;
    let volume = made(&service).await;
    for (spoil, code, word) in EXPAND_RULES {
        let mut request = proto::ControllerExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            ..Default::default()
        };
        larger(&mut request, 2 << 30, 0);
        spoil(&mut request);
        let answer = service
            .controller_expand_volume(Request::new(request))
            .await;
        let (found, message) = refused(answer);
        assert_eq!(found, *code, "{word}: {message}");
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn a_volume_has_exactly_the_size_that_was_asked_for() {
    let (service, bench) = service().await;
    let volume = made(&service).await;
    for (asked, becomes) in [
        (3 << 30, 3_i64 << 30),
        (3 << 30, 3 << 30),
        (2 << 30, 3 << 30),
    ] {
        let mut request = proto::ControllerExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            ..Default::default()
        };
        larger(&mut request, asked, 0);
        let answer = service
            .controller_expand_volume(Request::new(request))
            .await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.capacity_bytes, becomes);
        assert!(answer.node_expansion_required);
    }
    assert_eq!(bench.san().volumes()[0].size_bytes, 3 << 30);
    let gone = Request::new(delete(&volume.volume_id));
    service.delete_volume(gone).await.unwrap();
    let mut request = proto::ControllerExpandVolumeRequest {
        volume_id: volume.volume_id,
        ..Default::default()
    };
    larger(&mut request, 2 << 30, 0);
    let absent = service.controller_expand_volume(Request::new(request));
    assert_eq!(refused(absent.await).0, Code::NotFound);
}

#[tokio::test]
async fn only_what_is_advertised_is_served() {
    let (service, _bench) = service().await;
    let reply = service
        .controller_get_capabilities(Request::new(proto::ControllerGetCapabilitiesRequest {}))
        .await;
    assert_eq!(reply.unwrap().into_inner().capabilities.len(), 15);
    let modify = proto::ControllerModifyVolumeRequest::default();
    let modified = service.controller_modify_volume(Request::new(modify));
    assert_eq!(refused(modified.await).0, Code::Unimplemented);
}
