//! Whatever a call logs, on whichever thread or task, names its volume; and its steps tell how long they took.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::{Identity, NodeService, TopologyKeys, proto, serve_node};
use crate::inflight::Inflight;
use crate::metrics::Calls;
use crate::node::rig::{Rig, STAGING, run_test_alone};
use crate::volume::PublishContext;

/// The test that is the process of its own: what is logged depends on no other there.
const INSIDE: &str = "csi::span_tests::inside_a_process_of_its_own";

#[test]
fn every_line_of_a_call_names_its_volume_and_its_steps_their_durations() {
    let (passed, log) = run_test_alone(INSIDE);
    assert!(passed, "{log}");
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = |line: &Value| {
        line["target"]
            .as_str()
            .is_some_and(|it| it.starts_with("sanpath"))
    };
    let lines: Vec<Value> = lines.filter(ours).collect();
    let volume = Rig::new().volume().to_string();
    let (mut rooms, mut steps) = (BTreeSet::new(), BTreeSet::new());
    for line in &lines {
        assert_eq!(line["span"]["volume"], volume.as_str(), "{line}");
        let path = line["spans"][0]["path"].as_str().unwrap_or_default();
        assert!(path.starts_with("/csi.v1.Node/Node"), "{line}");
        let target = line["target"].as_str().unwrap_or_default();
        rooms.extend(target.split("::").nth(1).map(str::to_owned));
        if line["fields"]["took_ms"].is_u64() {
            steps.extend(line["span"]["step"].as_str().map(str::to_owned));
        }
    }
    for room in ["csi", "host"] {
        assert!(rooms.contains(room), "no line of {room}: {rooms:?}");
    }
    let wanted = ["attach", "disk", "identity", "map", "place", "session"];
    assert_eq!(steps.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

#[tokio::test]
#[ignore = "run by the test above in a process of its own"]
async fn inside_a_process_of_its_own() {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("sanpath=debug")
        .with_writer(std::io::stderr)
        .init();
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new();
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let service = NodeService::new(rig.started(), Inflight::default(), keys);
    let socket = folder.path().join("node.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let identity = Identity::new("csi.sanpath.dev").unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve_node(
        listener,
        identity,
        service,
        Calls::default(),
        stop,
    ));
    let address = format!("unix://{}", socket.display());
    let channel = Endpoint::from_shared(address).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut node = proto::node_client::NodeClient::new(channel);
    let volume_id = rig.volume().to_string();
    let stage = proto::NodeStageVolumeRequest {
        volume_id: volume_id.clone(),
        publish_context: PublishContext(rig.export.clone()).to_map(),
        staging_target_path: STAGING.to_owned(),
        volume_capability: Some(super::node_tests::capability()),
        ..Default::default()
    };
    node.node_stage_volume(stage).await.unwrap();
    let stats = proto::NodeGetVolumeStatsRequest {
        volume_id: volume_id.clone(),
        volume_path: "/nowhere".to_owned(),
        ..Default::default()
    };
    assert!(node.node_get_volume_stats(stats).await.is_err());
    let unstage = proto::NodeUnstageVolumeRequest {
        volume_id,
        staging_target_path: STAGING.to_owned(),
    };
    node.node_unstage_volume(unstage).await.unwrap();
}
