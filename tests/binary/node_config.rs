//! The node plugin, started with a config file that is bad or absent: volumes can leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use sanpath::csi::proto as csi;
use sanpath::csi::proto::node_client::NodeClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::program::sanpath;

const START: Duration = Duration::from_secs(60);
const VOLUME: &str =
    "sp1:linux:a:0f1e2d3c4b5a69788796a5b4c3d2e1f0:360014050123456789abcdef012345678";
const GOOD: &str = "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: 10.0.0.1\n    ncpaths: 192.0.2.7\n";
const BAD: &str = "version: 1\npartitions:\n  a: {}\n";

/// A node plugin of this machine, with a root, a state and sockets of its own.
struct Plugin {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Plugin {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let iscsi = folder.path().join("root/etc/iscsi");
        fs::create_dir_all(&iscsi).unwrap();
        let name = "InitiatorName=iqn.2026-01.dev.sanpath.test:node\n";
        fs::write(iscsi.join("initiatorname.iscsi"), name).unwrap();
        Self {
            folder,
            child: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    /// Ends the one that runs, by force, and starts another.
    async fn restart(&mut self) -> NodeClient<Channel> {
        self.stop();
        let endpoint = format!("unix://{}", self.file("csi.sock").display());
        let child = sanpath()
            .args(["node", "--endpoint", &endpoint, "--node-name", "n1"])
            .arg("--config")
            .arg(self.file("config.yaml"))
            .arg("--host-root")
            .arg(self.file("root"))
            .arg("--state-dir")
            .arg(self.file("state"))
            .arg("--runtime-dir")
            .arg(self.file("run"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.file("log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let served = async {
            loop {
                let endpoint = Endpoint::from_shared(endpoint.clone()).unwrap();
                if let Ok(channel) = endpoint.connect().await {
                    return NodeClient::new(channel);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let served = tokio::time::timeout(START, served).await;
        assert!(served.is_ok(), "it does not serve: {}", self.log());
        served.unwrap()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    async fn stage(&self, node: &mut NodeClient<Channel>) -> Status {
        use csi::volume_capability::{AccessMode, AccessType, BlockVolume, access_mode::Mode};
        let staging = self.file("staging");
        fs::create_dir_all(&staging).unwrap();
        let context = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/publish_context/golden-1"),
        );
        let context = context.unwrap();
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let request = csi::NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            publish_context: context.lines().map(pair).collect(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(csi::VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeWriter.into(),
                }),
                access_type: Some(AccessType::Block(BlockVolume {})),
            }),
            ..csi::NodeStageVolumeRequest::default()
        };
        node.node_stage_volume(request).await.unwrap_err()
    }

    /// A volume that was never here leaves, and so would any other: what is known of it is in the ledger.
    async fn assert_volumes_leave(&self, node: &mut NodeClient<Channel>) {
        let path = self.file("pod").display().to_string();
        let unpublish = csi::NodeUnpublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            target_path: path.clone(),
        };
        node.node_unpublish_volume(unpublish).await.unwrap();
        let unstage = csi::NodeUnstageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.file("staging").display().to_string(),
        };
        node.node_unstage_volume(unstage).await.unwrap();
        let stats = csi::NodeGetVolumeStatsRequest {
            volume_id: VOLUME.to_owned(),
            volume_path: path,
            ..csi::NodeGetVolumeStatsRequest::default()
        };
        let refused = node.node_get_volume_stats(stats).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn a_node_serves_without_a_good_config_and_keeps_the_last_one() {
    let mut plugin = Plugin::new();
    let config = plugin.file("config.yaml");
    for text in [None, Some(BAD)] {
        if let Some(text) = text {
            fs::write(&config, text).unwrap();
        }
        let mut node = plugin.restart().await;
        plugin.assert_volumes_leave(&mut node).await;
        let refused = plugin.stage(&mut node).await;
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(
            refused.message().contains("has no partition a"),
            "{refused}"
        );
        assert!(plugin.log().contains("no config was ever good here"));
    }
    assert!(plugin.log().contains("missing field"), "{}", plugin.log());

    // A good one is taken without a restart, and stays in force over one.
    let mut node = plugin.restart().await;
    fs::write(&config, GOOD).unwrap();
    let chosen = |refused: &Status| {
        refused.code() == Code::FailedPrecondition && refused.message().contains("192.0.2.7")
    };
    let refused = plugin.stage(&mut node).await;
    assert!(chosen(&refused), "{refused}");
    for spoil in [
        |path: &Path| fs::write(path, BAD),
        |path: &Path| fs::remove_file(path),
    ] {
        spoil(&config).unwrap();
        let mut node = plugin.restart().await;
        let refused = plugin.stage(&mut node).await;
        assert!(chosen(&refused), "{refused}");
        plugin.assert_volumes_leave(&mut node).await;
        assert!(plugin.log().contains("the last good config stays in force"));
    }
}
