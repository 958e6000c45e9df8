//! Promises of the controller that csi-sanity does not ask about: who may have a volume beside whom, pages that change while they are turned,
//! tokens that are none, and two callers at once.

use std::collections::BTreeSet;

use tonic::{Code, Request, Response, Status};

use super::controller::ControllerService;
use super::controller_tests::{
    NODE, OTHER_NODE, capability, create, delete, made, map, publish, refused, service, unpublish,
};
use super::proto;
use super::proto::controller_server::Controller as _;
use super::proto::volume_capability::access_mode::Mode::{
    self, MultiNodeMultiWriter, MultiNodeReaderOnly, MultiNodeSingleWriter, SingleNodeMultiWriter,
    SingleNodeReaderOnly, SingleNodeSingleWriter, SingleNodeWriter,
};
use super::proto::volume_capability::{AccessType, BlockVolume, MountVolume};
use super::topology::TopologyKeys;
use crate::controller::bench::Bench;

const MODES: [Mode; 7] = [
    SingleNodeWriter,
    SingleNodeReaderOnly,
    MultiNodeReaderOnly,
    MultiNodeSingleWriter,
    MultiNodeMultiWriter,
    SingleNodeSingleWriter,
    SingleNodeMultiWriter,
];

fn raw(mode: Mode) -> proto::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), mode)
}

async fn give(
    service: &ControllerService,
    id: &str,
    node: &str,
    (mode, readonly): (Mode, bool),
) -> Result<bool, Status> {
    let request = proto::ControllerPublishVolumeRequest {
        node_id: node.to_owned(),
        volume_capability: Some(raw(mode)),
        readonly,
        ..publish(id)
    };
    let reply = service.controller_publish_volume(Request::new(request));
    let context = reply.await?.into_inner().publish_context;
    Ok(context["readOnly"] == "true")
}

async fn take_all(service: &ControllerService, id: &str) {
    let all = Request::new(unpublish(id, ""));
    service.controller_unpublish_volume(all).await.unwrap();
}

fn reads(mode: Mode) -> bool {
    matches!(mode, SingleNodeReaderOnly | MultiNodeReaderOnly)
}

/// CSI's words for each mode: whether a node that asks for it may come beside one that writes, and beside one that reads.
fn may_come_beside(mode: Mode, readonly: bool, first_writes: bool) -> bool {
    match mode {
        MultiNodeMultiWriter => true,
        MultiNodeSingleWriter => readonly || !first_writes,
        MultiNodeReaderOnly => !first_writes,
        _ => false,
    }
}

#[tokio::test]
async fn who_has_a_volume_decides_who_may_have_it_beside() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    for first in [
        (SingleNodeWriter, false),
        (SingleNodeWriter, true),
        (MultiNodeReaderOnly, false),
        (MultiNodeMultiWriter, false),
    ] {
        for second in MODES.map(|mode| [(mode, false), (mode, true)]).concat() {
            let read_only = give(&service, &id, NODE, first).await.unwrap();
            assert_eq!(read_only, first.1 || reads(first.0), "{first:?}");
            let beside = give(&service, &id, OTHER_NODE, second).await;
            let expected = may_come_beside(second.0, second.1, !read_only);
            assert_eq!(beside.is_ok(), expected, "{first:?} {second:?}");
            if !expected {
                let (code, message) = refused(beside);
                assert_eq!(code, Code::FailedPrecondition, "{first:?} {second:?}");
                assert!(message.contains("n1"), "{message}");
            }
            take_all(&service, &id).await;
        }
    }
}

#[tokio::test]
async fn the_same_node_gets_the_same_answer_or_is_told_how_it_has_the_volume() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    for mode in MODES {
        for readonly in [false, true] {
            let first = give(&service, &id, NODE, (mode, readonly)).await.unwrap();
            let again = give(&service, &id, NODE, (mode, readonly)).await.unwrap();
            assert_eq!(first, again, "{mode:?}");
            let other = give(&service, &id, NODE, (mode, !readonly)).await;
            if reads(mode) {
                assert!(other.unwrap(), "{mode:?}: a reader reads either way");
            } else {
                assert_eq!(refused(other).0, Code::AlreadyExists, "{mode:?}");
            }
            take_all(&service, &id).await;
        }
    }
}

/// A file system that two nodes have mounted while one writes is lost; none of the calls that carry a capability lets it through.
#[tokio::test]
async fn a_file_system_is_never_written_beside_another_node() {
    let (service, _bench) = service().await;
    let id = made(&service).await.volume_id;
    let mount = |mode| capability(AccessType::Mount(MountVolume::default()), mode);
    for mode in MODES {
        let allowed = !matches!(mode, MultiNodeSingleWriter | MultiNodeMultiWriter);
        let new = proto::CreateVolumeRequest {
            name: format!("{mode:?}"),
            volume_capabilities: vec![mount(mode)],
            ..create()
        };
        let given = proto::ControllerPublishVolumeRequest {
            volume_capability: Some(mount(mode)),
            ..publish(&id)
        };
        let asked = proto::ValidateVolumeCapabilitiesRequest {
            volume_id: id.clone(),
            volume_capabilities: vec![mount(mode)],
            ..Default::default()
        };
        let room = proto::GetCapacityRequest {
            volume_capabilities: vec![mount(mode)],
            ..Default::default()
        };
        let refusals = [
            service.create_volume(Request::new(new)).await.err(),
            service
                .controller_publish_volume(Request::new(given))
                .await
                .err(),
            service.get_capacity(Request::new(room)).await.err(),
        ];
        for refusal in refusals {
            let code = refusal.map(|status| status.code());
            let expected = (!allowed).then_some(Code::InvalidArgument);
            assert_eq!(code, expected, "{mode:?}");
        }
        let verdict = service.validate_volume_capabilities(Request::new(asked));
        let verdict = verdict.await.unwrap().into_inner();
        assert_eq!(verdict.confirmed.is_some(), allowed, "{mode:?}");
        assert_eq!(verdict.message.is_empty(), allowed, "{mode:?}");
        take_all(&service, &id).await;
    }
}

async fn page(
    service: &ControllerService,
    max_entries: i32,
    token: &str,
) -> Result<(Vec<String>, String), Status> {
    let request = proto::ListVolumesRequest {
        max_entries,
        starting_token: token.to_owned(),
    };
    let reply = service.list_volumes(Request::new(request)).await?;
    let reply = reply.into_inner();
    let ids = reply
        .entries
        .into_iter()
        .map(|it| it.volume.unwrap().volume_id);
    Ok((ids.collect(), reply.next_token))
}

async fn named(service: &ControllerService, partition: &str, name: &str) -> String {
    let request = proto::CreateVolumeRequest {
        name: name.to_owned(),
        parameters: map(&[("partition", partition)]),
        ..create()
    };
    let made = service.create_volume(Request::new(request)).await.unwrap();
    made.into_inner().volume.unwrap().volume_id
}

#[tokio::test]
async fn pages_miss_no_volume_that_stays_while_others_come_and_go() {
    for most in 1..5 {
        let bench = Bench::new(&["a", "b"]).await;
        let keys = TopologyKeys::new("csi.sanpath.dev");
        let service = ControllerService::new(bench.controller.clone(), keys);
        let mut staying = BTreeSet::new();
        let mut leaving = Vec::new();
        for number in 0..6 {
            let partition = if number < 3 { "a" } else { "b" };
            let id = named(&service, partition, &format!("v{number}")).await;
            if number % 2 == 0 {
                leaving.push(id);
            } else {
                staying.insert(id);
            }
        }
        let (mut seen, mut token, mut turns) = (Vec::new(), String::new(), 0);
        loop {
            let (ids, next) = page(&service, most, &token).await.unwrap();
            assert!(ids.len() <= usize::try_from(most).unwrap());
            seen.extend(ids);
            // The last one of the page may be gone when the next is asked for.
            for id in std::mem::take(&mut leaving) {
                let gone = Request::new(delete(&id));
                service.delete_volume(gone).await.unwrap();
            }
            if turns < 3 {
                named(&service, "a", &format!("new{turns}")).await;
            }
            turns += 1;
            token = next;
            if token.is_empty() {
                break;
            }
        }
        let told: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(told.len(), seen.len(), "none is told twice");
        let missed: Vec<_> = staying.difference(&told).collect();
        assert!(missed.is_empty(), "{most} at a time: {missed:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_none_makes_the_caller_start_anew() {
    let bench = Bench::new(&["a", "b"]).await;
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let service = ControllerService::new(bench.controller.clone(), keys);
    for number in 0..3 {
        named(&service, "a", &format!("v{number}")).await;
    }
    let (_, good) = page(&service, 1, "").await.unwrap();
    page(&service, 1, &good).await.unwrap();
    let long = "t".repeat(5000);
    let foreign = good.replacen("a:", "c:", 1);
    let spoilt = good.replacen("key-", "yek-", 1);
    for token in [
        "invalid-token",
        "0",
        " ",
        ":",
        "\0",
        &long,
        &foreign,
        &spoilt,
    ] {
        let (code, message) = refused(page(&service, 0, token).await);
        assert_eq!(code, Code::Aborted, "{token}");
        assert!(message.contains("starting_token"), "{message}");
        assert!(message.len() < 1000, "{} bytes", message.len());
    }
}

/// The second caller is told to come again, for the same volume alone, and the first one's work goes on.
#[tokio::test]
async fn two_callers_at_once_are_kept_apart_by_volume() {
    let (service, bench) = service().await;
    let id = made(&service).await.volume_id;
    for call in ["ExportVolume", "UnexportVolume", "ExpandVolume"] {
        let gate = bench.san().hold(call);
        let (owner, key) = (service.clone(), id.clone());
        let first = tokio::spawn(async move {
            match call {
                "ExportVolume" => {
                    let request = Request::new(publish(&key));
                    owner.controller_publish_volume(request).await.map(drop)
                }
                "UnexportVolume" => {
                    let request = Request::new(unpublish(&key, NODE));
                    owner.controller_unpublish_volume(request).await.map(drop)
                }
                _ => owner
                    .controller_expand_volume(Request::new(grow(&key)))
                    .await
                    .map(drop),
            }
        });
        gate.reached().await;
        let seconds = [
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
            refused(
                service
                    .controller_expand_volume(Request::new(grow(&id)))
                    .await,
            ),
        ];
        for (code, message) in seconds {
            assert_eq!(code, Code::Aborted, "beside {call}: {message}");
        }
        let (ids, _) = page(&service, 0, "").await.unwrap();
        assert!(ids.contains(&id), "a look waits for nobody");
        let other = proto::CreateVolumeRequest {
            name: format!("beside {call}"),
            ..create()
        };
        let made: Result<Response<_>, _> = service.create_volume(Request::new(other)).await;
        made.unwrap();
        gate.open();
        first.await.unwrap().unwrap();
    }
    service
        .delete_volume(Request::new(delete(&id)))
        .await
        .unwrap();
}

fn grow(id: &str) -> proto::ControllerExpandVolumeRequest {
    proto::ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: Some(proto::CapacityRange {
            required_bytes: 2 << 30,
            limit_bytes: 0,
        }),
        ..Default::default()
    }
}

/// A volume that was written down by hand: the controller hands on what is written and answers for nothing else.
#[tokio::test]
async fn what_was_written_down_by_hand_is_handed_on() {
    let (service, bench) = service().await;
    let id = "sp1:static:cluster-a:db-1:360014050123456789abcdef012345678";
    let give = async |attributes: &[(&str, &str)], readonly| {
        let request = proto::ControllerPublishVolumeRequest {
            volume_context: map(attributes),
            readonly,
            ..publish(id)
        };
        let reply = service.controller_publish_volume(Request::new(request));
        let reply = reply.await.map(Response::into_inner);
        reply.map(|reply| reply.publish_context)
    };
    let written = [
        ("portals", "10.0.1.1,10.0.2.1"),
        ("iqn", "iqn.2001-05.com.example:array"),
        ("lun", "5"),
    ];
    let context = give(&written, false).await.unwrap();
    assert_eq!(context["wwid"], "360014050123456789abcdef012345678");
    assert_eq!(
        (&*context["blank"], &*context["readOnly"]),
        ("false", "false")
    );
    assert_eq!(give(&written, true).await.unwrap()["readOnly"], "true");
    let (code, message) = refused(give(&written[..2], false).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.starts_with("volume_context.lun is missing"),
        "{message}"
    );
    take_all(&service, id).await;
    let (code, message) = refused(service.delete_volume(Request::new(delete(id))).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("Retain"), "{message}");
    assert!(bench.san().calls().is_empty(), "no SAN is asked");
}
