//! The service over real sockets: what a controller sees.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use super::life::serve_bound;
use super::*;
use crate::linux_san::options::{Management, SanOptions};
use crate::linux_san::tests::{MIB, SanBox};
use pb::linux_san_client::LinuxSanClient;

/// A SAN that answers on two addresses.
struct Running {
    san: SanBox,
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// With what its operator wants different from the usual.
    fn start_with(adjust: fn(&mut SanOptions)) -> Self {
        let san = SanBox::with(adjust);
        let home = "127.0.0.1:0".parse().unwrap();
        let listeners = listen::bind_all(&[home, home], Management::Plaintext).unwrap();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let shutdown = CancellationToken::new();
        let serving = serve_bound(
            san.options(),
            san.host.clone(),
            listeners,
            shutdown.clone(),
            |_| {},
        );
        Self {
            san,
            addresses,
            shutdown,
            server: tokio::spawn(serving),
        }
    }

    async fn client(&self, at: usize) -> LinuxSanClient<Channel> {
        let url = format!("http://{}", self.addresses[at]);
        LinuxSanClient::connect(url).await.unwrap()
    }

    /// A volume, and the call that takes it from its node and waits for what is in flight.
    async fn draining(
        &self,
        client: &mut LinuxSanClient<Channel>,
    ) -> (
        pb::Volume,
        JoinHandle<Result<Response<pb::UnexportVolumeResponse>, Status>>,
    ) {
        let made = client.create_volume(new_volume("pvc-1", MIB)).await;
        let volume = made.unwrap().into_inner();
        client.export_volume(give(&volume, "n1")).await.unwrap();
        self.san.lio.set_in_flight(true);
        let mut caller = client.clone();
        let request = take(&volume);
        // Another call that has the volume at this moment makes it ABORTED: it is asked again, as callers do.
        let taking = tokio::spawn(async move {
            loop {
                match caller.unexport_volume(request.clone()).await {
                    Err(busy) if busy.code() == Code::Aborted => {}
                    ended => return ended,
                }
            }
        });
        (volume, taking)
    }
}

fn new_volume(name: &str, size_bytes: u64) -> pb::CreateVolumeRequest {
    pb::CreateVolumeRequest {
        name: name.to_owned(),
        size_bytes,
        metadata: [("pvc".to_owned(), name.to_owned())].into(),
        source: None,
    }
}

fn give(volume: &pb::Volume, node: &str) -> pb::ExportVolumeRequest {
    pb::ExportVolumeRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
        node_name: node.to_owned(),
        initiator_iqn: format!("iqn.1993-08.org.debian:01:{node}"),
        read_only: false,
        shared: false,
        beside_readers: false,
    }
}

fn take(volume: &pb::Volume) -> pb::UnexportVolumeRequest {
    pb::UnexportVolumeRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
        initiator_iqn: String::new(),
    }
}

fn delete(volume: &pb::Volume) -> pb::DeleteVolumeRequest {
    pb::DeleteVolumeRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
    }
}

/// Seen on real guests: a controller's machine had lost its power, and the SAN waited for its connection instead of ending.
#[tokio::test]
async fn a_caller_without_power_does_not_hold_up_the_end() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let running = Running::start_with(|options| {
        options.caller_silence = Duration::from_millis(200);
    });
    let mut silent = tokio::net::TcpStream::connect(running.addresses[0])
        .await
        .unwrap();
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    silent.write_all(hello).await.unwrap();
    silent.read_u8().await.unwrap();
    running.shutdown.cancel();
    running.server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_san_answers_on_every_address() {
    let running = Running::start();
    let mut one = running.client(0).await;
    let mut two = running.client(1).await;
    let first = one
        .identify(pb::IdentifyRequest {})
        .await
        .unwrap()
        .into_inner();
    let second = two
        .identify(pb::IdentifyRequest {})
        .await
        .unwrap()
        .into_inner();
    let told = |it: &pb::IdentifyResponse| (it.san_uuid.clone(), it.version.clone());
    assert_eq!(
        told(&first),
        told(&second),
        "one SAN behind all its addresses"
    );
    assert!(
        first.clock_ms.unwrap() <= second.clock_ms.unwrap(),
        "one clock"
    );
    let portals = one.list_portals(pb::ListPortalsRequest {}).await.unwrap();
    assert_eq!(
        portals.into_inner().portals,
        ["10.101.1.1:3260", "[fd00::1]:3261"]
    );
    let capacity = two.get_capacity(pb::GetCapacityRequest {}).await.unwrap();
    let capacity = capacity.into_inner();
    assert_eq!((capacity.promised_bytes, capacity.granule_bytes), (0, MIB));

    drop((one, two));
    running.shutdown.cancel();
    running.server.await.unwrap().unwrap();
}

/// A SAN that stood still reads what was given up over a connection that others still use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_caller_gave_up_is_not_done_any_more() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let identity = client.identify(pb::IdentifyRequest {}).await.unwrap();
    let clock_ms = identity.into_inner().clock_ms.unwrap();
    let create = |not_after: String| {
        let mut request = Request::new(new_volume("pvc-1", MIB));
        let headers = request.metadata_mut();
        headers.insert("sanpath-not-after", not_after.parse().unwrap());
        request
    };
    let late = create((clock_ms - 1).to_string());
    let refused = client.create_volume(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().contains("gave it up"), "{refused}");
    let odd = client.create_volume(create("soon".to_owned())).await;
    let odd = odd.unwrap_err();
    assert_eq!(odd.code(), Code::InvalidArgument);
    assert!(odd.message().contains("sanpath-not-after"), "{odd}");
    let all = client.list_volumes(pb::ListVolumesRequest::default()).await;
    assert_eq!(all.unwrap().into_inner().volumes, []);

    let in_time = create((clock_ms + 3_600_000).to_string());
    client.create_volume(in_time).await.unwrap();
    drop(client);
    running.shutdown.cancel();
    running.server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_lives_and_dies_over_any_address() {
    let running = Running::start();
    let mut one = running.client(0).await;
    let mut two = running.client(1).await;
    let volume = one
        .create_volume(new_volume("pvc-1", 4 * MIB))
        .await
        .unwrap()
        .into_inner();
    let again = two
        .create_volume(new_volume("pvc-1", 4 * MIB))
        .await
        .unwrap();
    assert_eq!(again.into_inner(), volume);
    let export = one
        .export_volume(give(&volume, "n1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(export.offers.len(), 2);
    assert_eq!(export.wwid, volume.wwid);
    let refused = two.export_volume(give(&volume, "n2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("n1"), "{}", refused.message());
    let refused = one.delete_volume(delete(&volume)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let by = Some(pb::find_volume_request::By::Key(volume.key.clone()));
    let found = two
        .find_volume(pb::FindVolumeRequest { by })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.exported_to[0].node_name, "n1");

    two.unexport_volume(take(&volume)).await.unwrap();
    one.delete_volume(delete(&volume)).await.unwrap();
    one.delete_volume(delete(&volume)).await.unwrap();
    let listed = one
        .list_volumes(pb::ListVolumesRequest::default())
        .await
        .unwrap();
    assert!(listed.into_inner().volumes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_the_code_that_it_deserves() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let volume = client
        .create_volume(new_volume("pvc-1", MIB))
        .await
        .unwrap()
        .into_inner();

    let refused = client.create_volume(new_volume("", MIB)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("name"));
    let refused = client.create_volume(new_volume("a", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let refused = client
        .create_volume(new_volume("pvc-1", 2 * MIB))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);

    // Ids that were never issued name nothing.
    let mut unknown = take(&volume);
    unknown.key = "../../etc".to_owned();
    client.unexport_volume(unknown).await.unwrap();
    let mut unknown = delete(&volume);
    unknown.wwid = "no-wwid".to_owned();
    client.delete_volume(unknown).await.unwrap();
    let mut unknown = give(&volume, "n1");
    unknown.key = "0".repeat(32);
    let refused = client.export_volume(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    for by in ["", "x"].map(|name| pb::find_volume_request::By::Name(name.to_owned())) {
        let by = Some(by);
        let refused = client
            .find_volume(pb::FindVolumeRequest { by })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }

    let mut bad = give(&volume, "n1");
    bad.initiator_iqn = "nobody".to_owned();
    let refused = client.export_volume(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("initiator_iqn"));
    let mut bad = delete(&volume);
    bad.key.clear();
    let refused = client.delete_volume(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let bad = pb::FindVolumeRequest { by: None };
    assert_eq!(
        client.find_volume(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unexport_that_is_not_drained_says_maybe_and_holds_the_volume() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let (volume, first) = running.draining(&mut client).await;
    // While it waits, a second call for the volume is refused and another volume is served.
    let refused = loop {
        let refused = client.export_volume(give(&volume, "n2")).await.unwrap_err();
        if refused.code() == Code::Aborted {
            break refused;
        }
    };
    assert!(refused.message().contains(&volume.key));
    client
        .create_volume(new_volume("pvc-2", MIB))
        .await
        .unwrap();
    running.san.lio.set_in_flight(false);
    first.await.unwrap().unwrap();
    client.export_volume(give(&volume, "n2")).await.unwrap();
}

#[tokio::test]
async fn a_san_that_cannot_start_says_why() {
    let san = SanBox::new();
    let mut options = san.options();
    options.pool = san.path("nowhere");
    let home = "127.0.0.1:0".parse().unwrap();
    let started = serve(
        options,
        san.host.clone(),
        vec![home],
        CancellationToken::new(),
        |_| {},
    );
    let error = started.await.unwrap_err();
    let text = crate::fault::chain(&error);
    assert!(text.contains("nowhere is not a directory"), "{text}");
}

fn cut(volume: &pb::Volume, name: &str) -> pb::CreateSnapshotRequest {
    pb::CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_key: volume.key.clone(),
        metadata: [("snapshot".to_owned(), name.to_owned())].into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_clones_over_the_wire() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let volume = client
        .create_volume(new_volume("pvc-1", MIB))
        .await
        .unwrap()
        .into_inner();
    let snapshot = client
        .create_snapshot(cut(&volume, "s"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(snapshot.source_volume_key, volume.key);
    let group = pb::CreateGroupSnapshotRequest {
        snapshots: vec![cut(&volume, "s")],
    };
    let again = client.create_group_snapshot(group).await.unwrap();
    assert_eq!(again.into_inner().snapshots, vec![snapshot.clone()]);
    let mut clone = new_volume("pvc-2", 2 * MIB);
    let of = Some(pb::source::Of::SnapshotKey(snapshot.key.clone()));
    clone.source = Some(pb::Source { of });
    let cloned = client.create_volume(clone.clone()).await.unwrap();
    assert_eq!(cloned.into_inner().source, clone.source);

    for by in [
        pb::find_snapshot_request::By::Name("s".to_owned()),
        pb::find_snapshot_request::By::Key(snapshot.key.clone()),
    ] {
        let by = Some(by);
        let found = client.find_snapshot(pb::FindSnapshotRequest { by }).await;
        assert_eq!(found.unwrap().into_inner(), snapshot);
    }
    let mut request = pb::ListSnapshotsRequest {
        source_volume_key: volume.key.clone(),
        ..Default::default()
    };
    let listed = client.list_snapshots(request.clone()).await.unwrap();
    assert_eq!(listed.into_inner().snapshots, vec![snapshot.clone()]);
    request.source_volume_key = "never".to_owned();
    let listed = client.list_snapshots(request).await.unwrap();
    assert!(listed.into_inner().snapshots.is_empty());
    let mut extents = pb::ListExtentsRequest {
        snapshot_key: snapshot.key.clone(),
        ..Default::default()
    };
    let found = client.list_extents(extents.clone()).await.unwrap();
    let found = found.into_inner();
    assert_eq!(
        (found.extents.len(), found.next_offset, found.size_bytes),
        (0, None, MIB)
    );
    extents.base_snapshot_key = "never".to_owned();
    let refused = client.list_extents(extents).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_nothing_is_refused() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let volume = client
        .create_volume(new_volume("pvc-1", MIB))
        .await
        .unwrap()
        .into_inner();
    let snapshot = client.create_snapshot(cut(&volume, "s")).await;
    let snapshot = snapshot.unwrap().into_inner();
    let mut clone = new_volume("pvc-3", 2 * MIB);
    for wrong in ["never", "00112233445566778899aabbccddeeff"] {
        let of = Some(pb::source::Of::VolumeKey(wrong.to_owned()));
        clone.source = Some(pb::Source { of });
        let refused = client.create_volume(clone.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let mut of_nothing = cut(&volume, "t");
        of_nothing.source_volume_key = wrong.to_owned();
        let refused = client.create_snapshot(of_nothing).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    clone.source = Some(pb::Source { of: None });
    let refused = client.create_volume(clone).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for key in [&snapshot.key, &snapshot.key, &"never".to_owned()] {
        let key = key.clone();
        client
            .delete_snapshot(pb::DeleteSnapshotRequest { key })
            .await
            .unwrap();
    }
    let refused = client.delete_snapshot(pb::DeleteSnapshotRequest::default());
    assert_eq!(refused.await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_being_changed_is_not_cut_meanwhile() {
    let running = Running::start();
    let mut client = running.client(0).await;
    let (volume, first) = running.draining(&mut client).await;
    while let Ok(early) = client.create_snapshot(cut(&volume, "early")).await {
        let key = early.into_inner().key;
        let early = pb::DeleteSnapshotRequest { key };
        client.delete_snapshot(early).await.unwrap();
    }
    let refused = client.create_snapshot(cut(&volume, "s")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    let mut clone = new_volume("pvc-2", MIB);
    let of = Some(pb::source::Of::VolumeKey(volume.key.clone()));
    clone.source = Some(pb::Source { of });
    let refused = client.create_volume(clone.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    running.san.lio.set_in_flight(false);
    first.await.unwrap().unwrap();
    client.create_snapshot(cut(&volume, "s")).await.unwrap();
    client.create_volume(clone).await.unwrap();
}
