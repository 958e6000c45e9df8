//! The blocks of snapshots through the wire's trait: whole, in parts, from the middle, and what is refused.

use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

use super::controller::ControllerService;
use super::controller_tests::{create, made, map, refused, service};
use super::proto;
use super::proto::controller_server::Controller as _;
use super::proto::snapshot_metadata_server::SnapshotMetadata as _;
use crate::controller::bench::Mishap;

const GIB: i64 = 1 << 30;
const BLOCK: i64 = 4096;

async fn cut(service: &ControllerService, name: &str, volume: &str) -> String {
    let request = proto::CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_id: volume.to_owned(),
        ..Default::default()
    };
    let cut = service.create_snapshot(Request::new(request)).await;
    cut.unwrap().into_inner().snapshot.unwrap().snapshot_id
}

fn allocated(snapshot_id: &str) -> proto::GetMetadataAllocatedRequest {
    proto::GetMetadataAllocatedRequest {
        snapshot_id: snapshot_id.to_owned(),
        ..Default::default()
    }
}

fn delta(base: &str, target: &str) -> proto::GetMetadataDeltaRequest {
    proto::GetMetadataDeltaRequest {
        base_snapshot_id: base.to_owned(),
        target_snapshot_id: target.to_owned(),
        ..Default::default()
    }
}

type Messages = Vec<Vec<(i64, i64)>>;

/// What every message holds; what it must say beside is checked.
async fn told(
    service: &ControllerService,
    request: proto::GetMetadataAllocatedRequest,
) -> Result<(Messages, Option<Status>), Status> {
    let stream = service.get_metadata_allocated(Request::new(request)).await;
    let mut stream = stream?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => {
                let kind = proto::BlockMetadataType::VariableLength;
                assert_eq!(message.block_metadata_type, i32::from(kind));
                assert_eq!(message.volume_capacity_bytes, GIB);
                let blocks = message.block_metadata.iter();
                messages.push(blocks.map(|it| (it.byte_offset, it.size_bytes)).collect());
            }
            Err(status) => return Ok((messages, Some(status))),
        }
    }
    Ok((messages, None))
}

/// Every other block, so that no two are one.
fn extents(count: u64) -> Vec<(u64, u64)> {
    (0..count).map(|number| (number * 8192, 4096)).collect()
}

#[tokio::test]
async fn blocks_come_in_order_in_messages_of_the_wanted_size() {
    let (service, bench) = service().await;
    let volume = made(&service).await.volume_id;
    let id = cut(&service, "s", &volume).await;
    bench.san().set_extents(&extents(10));
    let all: Vec<_> = (0..10).map(|number| (number * 2 * BLOCK, BLOCK)).collect();
    for most in [0, 1, 3, 10, 1_000_000] {
        let request = proto::GetMetadataAllocatedRequest {
            max_results: most,
            ..allocated(&id)
        };
        let (messages, end) = told(&service, request).await.unwrap();
        assert!(end.is_none(), "{end:?}");
        assert_eq!(messages.concat(), all, "{most} to a message");
        let most = usize::try_from(most).unwrap();
        assert!(most == 0 || messages.iter().all(|it| it.len() <= most));
    }
    bench.san().set_extents(&[]);
    let (messages, _) = told(&service, allocated(&id)).await.unwrap();
    assert!(messages.concat().is_empty());
}

#[tokio::test]
async fn a_stream_that_broke_goes_on_where_it_was() {
    let (service, bench) = service().await;
    let volume = made(&service).await.volume_id;
    let id = cut(&service, "s", &volume).await;
    bench.san().set_extents(&extents(7));
    let (whole, _) = told(&service, allocated(&id)).await.unwrap();
    let whole = whole.concat();
    for breaks_after in 1..4 {
        // The first page is asked for at once, so the mishap comes with a later one.
        let request = proto::GetMetadataAllocatedRequest {
            max_results: 2,
            ..allocated(&id)
        };
        let mut stream = service
            .get_metadata_allocated(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        let mut heard = Vec::new();
        for _ in 0..breaks_after {
            let message = stream.next().await.unwrap().unwrap();
            let blocks = message.block_metadata.iter();
            heard.extend(blocks.map(|it| (it.byte_offset, it.size_bytes)));
        }
        drop(stream);
        let (offset, length) = *heard.last().unwrap();
        let rest = proto::GetMetadataAllocatedRequest {
            starting_offset: offset + length,
            ..allocated(&id)
        };
        let (rest, end) = told(&service, rest).await.unwrap();
        assert!(end.is_none());
        assert_eq!([heard, rest.concat()].concat(), whole);
    }
    bench
        .san()
        .suffer(Mishap::Refuses("ListExtents", Code::Unavailable));
    let (code, _) = refused(told(&service, allocated(&id)).await);
    assert_eq!(
        code,
        Code::Unavailable,
        "told by the call, not by its stream"
    );
}

#[tokio::test]
async fn only_a_snapshot_of_the_same_volume_is_a_base() {
    let (service, bench) = service().await;
    let volume = made(&service).await.volume_id;
    let other = proto::CreateVolumeRequest {
        name: "other".to_owned(),
        ..create()
    };
    let other = service.create_volume(Request::new(other)).await.unwrap();
    let other = other.into_inner().volume.unwrap().volume_id;
    let first = cut(&service, "first", &volume).await;
    let second = cut(&service, "second", &volume).await;
    let strange = cut(&service, "strange", &other).await;
    bench.san().set_extents(&extents(3));
    let call = async |request| {
        let stream = service.get_metadata_delta(Request::new(request)).await?;
        let mut stream = stream.into_inner();
        let message = stream.next().await.unwrap()?;
        Ok::<_, Status>((message.volume_capacity_bytes, message.block_metadata.len()))
    };
    assert_eq!(call(delta(&first, &second)).await.unwrap(), (GIB, 3));
    let (code, message) = refused(call(delta(&strange, &second)).await);
    assert_eq!(code, Code::InvalidArgument, "{message}");
    assert!(message.starts_with("base_snapshot_id"), "{message}");
    let gone = refused(call(delta("fake-snapshot-id", &second)).await);
    assert_eq!(gone.0, Code::NotFound);
    let gone = refused(call(delta(&first, "fake-snapshot-id")).await);
    assert_eq!(gone.0, Code::NotFound);
}

type Rule = (
    fn(&mut proto::GetMetadataAllocatedRequest),
    Code,
    &'static str,
);

const RULES: &[Rule] = &[
    (
        |r| r.snapshot_id.clear(),
        Code::InvalidArgument,
        "snapshot_id is required",
    ),
    (
        |r| r.snapshot_id = "fake-snapshot-id".to_owned(),
        Code::NotFound,
        "snapshot_id",
    ),
    (
        |r| r.starting_offset = -1,
        Code::OutOfRange,
        "starting_offset",
    ),
    (
        |r| r.starting_offset = GIB + 1,
        Code::OutOfRange,
        "starting_offset",
    ),
    (
        |r| r.max_results = -1,
        Code::InvalidArgument,
        "max_results is negative",
    ),
    (
        |r| r.secrets = map(&[("k", &"v".repeat(4096))]),
        Code::InvalidArgument,
        "secrets has 4097",
    ),
];

#[tokio::test]
async fn what_cannot_be_told_is_refused_before_the_stream_begins() {
    let (service, _bench) = service().await;
    let volume = made(&service).await.volume_id;
    let id = cut(&service, "s", &volume).await;
    for (spoil, code, word) in RULES {
        let mut request = allocated(&id);
        spoil(&mut request);
        let stream = service.get_metadata_allocated(Request::new(request)).await;
        let (got, message) = refused(stream.map(drop));
        assert_eq!(
            (got, message.contains(word)),
            (*code, true),
            "{word}: {message}"
        );
    }
    let at_the_end = proto::GetMetadataAllocatedRequest {
        starting_offset: GIB,
        ..allocated(&id)
    };
    let (messages, _) = told(&service, at_the_end).await.unwrap();
    assert!(messages.concat().is_empty(), "nothing is left to tell");
}
