//! The service over real sockets: what a controller sees.

use std::net::SocketAddr;

use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::linux_san::tests::{MIB, SanBox};
use pb::linux_san_client::LinuxSanClient;

/// A SAN that answers on two addresses.
struct Running {
    san: SanBox,
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), ServeError>>,
}

impl Running {
    fn start() -> Self {
        let san = SanBox::new();
        let home = "127.0.0.1:0".parse().unwrap();
        let listeners = listen::bind_all(&[home, home], false).unwrap();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let shutdown = CancellationToken::new();
        let serving = serve_bound(san.options(), san.host.clone(), listeners, shutdown.clone());
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
}

fn new_volume(name: &str, size_bytes: u64) -> pb::CreateVolumeRequest {
    pb::CreateVolumeRequest {
        name: name.to_owned(),
        size_bytes,
        metadata: [("pvc".to_owned(), name.to_owned())].into(),
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
    assert_eq!(first, second, "one SAN behind all its addresses");
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
    let volume = client
        .create_volume(new_volume("pvc-1", MIB))
        .await
        .unwrap()
        .into_inner();
    client.export_volume(give(&volume, "n1")).await.unwrap();
    running.san.lio.set_in_flight(true);
    let mut caller = client.clone();
    let request = take(&volume);
    let first = tokio::spawn(async move { caller.unexport_volume(request).await });
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
        false,
        CancellationToken::new(),
    );
    let error = started.await.unwrap_err();
    let text = crate::fault::chain(&error);
    assert!(text.contains("nowhere is not a directory"), "{text}");
}
