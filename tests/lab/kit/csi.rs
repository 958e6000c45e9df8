//! Plays the orchestrator: calls controller and node over their sockets in the order and with the patience of kubelet and sidecars.

mod blocks;
mod looks;
mod snapshots;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sanpath::csi::proto as csi;
use sanpath::csi::proto::controller_client::ControllerClient;
use sanpath::csi::proto::node_client::NodeClient;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub use blocks::Told;
pub use snapshots::Origin;

/// The kubelet's deadline for a node call.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    Ext4,
    Xfs,
    Btrfs,
    Block,
}

impl Access {
    /// As a CSI capability for one writing node.
    pub fn capability(self) -> csi::VolumeCapability {
        use csi::volume_capability::{
            AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode,
        };
        let mount = |kind: &str| MountVolume {
            fs_type: kind.to_owned(),
            ..MountVolume::default()
        };
        let access = match self {
            Access::Ext4 => AccessType::Mount(mount("ext4")),
            Access::Xfs => AccessType::Mount(mount("xfs")),
            Access::Btrfs => AccessType::Mount(mount("btrfs")),
            Access::Block => AccessType::Block(BlockVolume {}),
        };
        csi::VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(access),
        }
    }
}

/// A volume on its way from creation to use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub id: String,
    pub size: i64,
    pub access: Access,
    pub volume_context: HashMap<String, String>,
    pub publish_context: HashMap<String, String>,
    /// What NodeStageVolume is given beside.
    #[serde(default)]
    pub secrets: HashMap<String, String>,
    pub staging: PathBuf,
    pub target: PathBuf,
}

impl Volume {
    /// The identity that the controller published.
    pub fn wwid(&self) -> &str {
        self.publish_context.get("wwid").map_or("", String::as_str)
    }
}

/// The orchestrator's side of both sockets.
pub struct Orchestrator {
    runtime: Runtime,
    controller_channel: Channel,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    folder: PathBuf,
    /// The node's id, as it told.
    pub node_id: String,
}

impl Orchestrator {
    /// Connects to both sockets; staging and target paths are made below `folder`.
    pub fn connect(controller: &Path, node: &Path, folder: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let channel = |socket: &Path| -> Result<Channel> {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
            let _inside = runtime.enter();
            Ok(endpoint.connect_lazy())
        };
        let (controller, node) = (channel(controller)?, channel(node)?);
        let mut orchestrator = Orchestrator {
            controller: ControllerClient::new(controller.clone()),
            controller_channel: controller,
            node: NodeClient::new(node),
            runtime,
            folder: folder.to_owned(),
            node_id: String::new(),
        };
        orchestrator.node_id = orchestrator.ask_node_id().context("NodeGetInfo")?;
        Ok(orchestrator)
    }

    fn ask_node_id(&mut self) -> Result<String, Status> {
        let call = self.node.node_get_info(patient(csi::NodeGetInfoRequest {}));
        Ok(self.runtime.block_on(call)?.into_inner().node_id)
    }

    /// CreateVolume.
    pub fn create(&mut self, name: &str, size: i64, access: Access) -> Result<Volume, Status> {
        self.create_with(name, size, access, &[])
    }

    /// CreateVolume with StorageClass parameters.
    pub fn create_with(
        &mut self,
        name: &str,
        size: i64,
        access: Access,
        parameters: &[(&str, &str)],
    ) -> Result<Volume, Status> {
        let parameters = parameters.iter();
        let request = csi::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: range(size),
            volume_capabilities: vec![access.capability()],
            parameters: parameters
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..csi::CreateVolumeRequest::default()
        };
        let made = self.create_volume(request)?;
        Ok(self.on_its_way(name, made, access))
    }

    fn create_volume(&mut self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
        let call = self.controller.create_volume(patient(request));
        let reply = self.runtime.block_on(call)?.into_inner();
        let none = || Status::internal("CreateVolume answered without a volume");
        reply.volume.ok_or_else(none)
    }

    fn on_its_way(&self, name: &str, made: csi::Volume, access: Access) -> Volume {
        let folder = self.folder.join(name);
        Volume {
            id: made.volume_id,
            size: made.capacity_bytes,
            access,
            volume_context: made.volume_context,
            publish_context: HashMap::new(),
            secrets: HashMap::new(),
            staging: folder.join("staging"),
            target: folder.join("target"),
        }
    }

    /// A new volume, published to this node and not yet staged there.
    pub fn create_attached(&mut self, name: &str, size: i64, access: Access) -> Result<Volume> {
        let mut volume = patiently("CreateVolume", || self.create(name, size, access))?;
        patiently("ControllerPublishVolume", || self.attach(&mut volume))?;
        Ok(volume)
    }

    /// DeleteVolume.
    pub fn delete(&mut self, volume: &Volume) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest {
            volume_id: volume.id.clone(),
            ..csi::DeleteVolumeRequest::default()
        };
        self.runtime
            .block_on(self.controller.delete_volume(patient(request)))?;
        Ok(())
    }

    /// ControllerPublishVolume to this node.
    pub fn attach(&mut self, volume: &mut Volume) -> Result<(), Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node_id.clone(),
            volume_capability: Some(volume.access.capability()),
            volume_context: volume.volume_context.clone(),
            ..csi::ControllerPublishVolumeRequest::default()
        };
        let reply = self
            .runtime
            .block_on(self.controller.controller_publish_volume(patient(request)))?;
        volume.publish_context = reply.into_inner().publish_context;
        Ok(())
    }

    /// ControllerUnpublishVolume from this node.
    pub fn detach(&mut self, volume: &Volume) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node_id.clone(),
            ..csi::ControllerUnpublishVolumeRequest::default()
        };
        self.runtime.block_on(
            self.controller
                .controller_unpublish_volume(patient(request)),
        )?;
        Ok(())
    }

    /// NodeStageVolume, once. The staging directory is made as the kubelet makes it.
    pub fn stage(&mut self, volume: &Volume) -> Result<(), Status> {
        self.stage_within(volume, PATIENCE)
    }

    /// The same by a caller who waits only so long.
    pub fn stage_within(&mut self, volume: &Volume, patience: Duration) -> Result<(), Status> {
        std::fs::create_dir_all(&volume.staging)
            .map_err(|error| Status::internal(error.to_string()))?;
        let request = csi::NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish_context.clone(),
            staging_target_path: volume.staging.display().to_string(),
            volume_capability: Some(volume.access.capability()),
            volume_context: volume.volume_context.clone(),
            secrets: volume.secrets.clone(),
        };
        let mut request = Request::new(request);
        request.set_timeout(patience);
        self.runtime
            .block_on(self.node.node_stage_volume(request))?;
        Ok(())
    }

    /// NodePublishVolume.
    pub fn publish(&mut self, volume: &Volume, read_only: bool) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish_context.clone(),
            staging_target_path: volume.staging.display().to_string(),
            target_path: volume.target.display().to_string(),
            volume_capability: Some(volume.access.capability()),
            readonly: read_only,
            volume_context: volume.volume_context.clone(),
            ..csi::NodePublishVolumeRequest::default()
        };
        self.runtime
            .block_on(self.node.node_publish_volume(patient(request)))?;
        Ok(())
    }

    /// ControllerExpandVolume; the new size, which the volume has from now on.
    pub fn expand(&mut self, volume: &mut Volume, size: i64) -> Result<(), Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: range(size),
            volume_capability: Some(volume.access.capability()),
            ..csi::ControllerExpandVolumeRequest::default()
        };
        let call = self.controller.controller_expand_volume(patient(request));
        let reply = self.runtime.block_on(call)?.into_inner();
        if reply.capacity_bytes != size || !reply.node_expansion_required {
            return Err(Status::internal(format!("it answered {reply:?}")));
        }
        volume.size = size;
        Ok(())
    }

    /// NodeExpandVolume at the target path, to the volume's size; the size that it answers.
    pub fn expand_on_node(&mut self, volume: &Volume) -> Result<i64, Status> {
        let request = csi::NodeExpandVolumeRequest {
            volume_id: volume.id.clone(),
            volume_path: volume.target.display().to_string(),
            capacity_range: range(volume.size),
            staging_target_path: volume.staging.display().to_string(),
            volume_capability: Some(volume.access.capability()),
            ..csi::NodeExpandVolumeRequest::default()
        };
        let call = self.node.node_expand_volume(patient(request));
        Ok(self.runtime.block_on(call)?.into_inner().capacity_bytes)
    }

    /// NodeUnpublishVolume.
    pub fn unpublish(&mut self, volume: &Volume) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.display().to_string(),
        };
        self.runtime
            .block_on(self.node.node_unpublish_volume(patient(request)))?;
        Ok(())
    }

    /// NodeUnstageVolume.
    pub fn unstage(&mut self, volume: &Volume) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: volume.staging.display().to_string(),
        };
        self.runtime
            .block_on(self.node.node_unstage_volume(patient(request)))?;
        Ok(())
    }

    /// NodeGetVolumeStats of a staged or published path.
    pub fn stats(&mut self, volume: &Volume, at: &Path) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.id.clone(),
            volume_path: at.display().to_string(),
            ..csi::NodeGetVolumeStatsRequest::default()
        };
        let reply = self
            .runtime
            .block_on(self.node.node_get_volume_stats(patient(request)))?;
        Ok(reply.into_inner().usage)
    }

    /// NodeGetVolumeHealth: reason and message of everything that is amiss.
    pub fn health(&mut self, volume: &Volume) -> Result<Vec<(String, String)>, Status> {
        let request = csi::NodeGetVolumeHealthRequest {
            volume_id: volume.id.clone(),
            ..csi::NodeGetVolumeHealthRequest::default()
        };
        let call = self.node.node_get_volume_health(patient(request));
        let health = self.runtime.block_on(call)?.into_inner().volume_health;
        let entries = health.unwrap_or_default().health_statuses.into_iter();
        Ok(entries.map(|it| (it.reason, it.message)).collect())
    }

    /// ListVolumes; the ids.
    pub fn list(&mut self) -> Result<Vec<String>, Status> {
        let call = self
            .controller
            .list_volumes(patient(csi::ListVolumesRequest::default()));
        let entries = self.runtime.block_on(call)?.into_inner().entries;
        Ok(entries
            .into_iter()
            .filter_map(|entry| entry.volume)
            .map(|volume| volume.volume_id)
            .collect())
    }

    /// The way up: publish to the node, stage, publish; each repeated while its code says "maybe".
    pub fn bring_up(&mut self, volume: &mut Volume) -> Result<()> {
        patiently("ControllerPublishVolume", || self.attach(volume))?;
        patiently("NodeStageVolume", || self.stage(volume))?;
        patiently("NodePublishVolume", || self.publish(volume, false))
    }

    /// Off the node, which may have it again.
    pub fn leave_node(&mut self, volume: &Volume) -> Result<()> {
        patiently("NodeUnpublishVolume", || self.unpublish(volume))?;
        patiently("NodeUnstageVolume", || self.unstage(volume))
    }

    /// The way down, to the end: nothing of the volume is left on node or SAN.
    pub fn bring_down(&mut self, volume: &Volume) -> Result<()> {
        self.leave_node(volume)?;
        patiently("ControllerUnpublishVolume", || self.detach(volume))?;
        patiently("DeleteVolume", || self.delete(volume))?;
        remove_if_there(&volume.staging)
    }
}

fn range(size: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes: size,
        limit_bytes: 0,
    })
}

/// Repeats a call while its code leaves the outcome open, as every caller of CSI does.
pub fn patiently<T>(what: &str, call: impl FnMut() -> Result<T, Status>) -> Result<T> {
    patiently_for(PATIENCE, what, call)
}

/// The same, and begins no call any more after so long.
pub fn patiently_for<T>(
    patience: Duration,
    what: &str,
    mut call: impl FnMut() -> Result<T, Status>,
) -> Result<T> {
    let until = std::time::Instant::now() + patience;
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(status) if leaves_open(&status) && std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(500));
            }
            Err(status) => {
                return Err(anyhow::anyhow!(
                    "{what}: {:?}: {}",
                    status.code(),
                    status.message()
                ));
            }
        }
    }
}

/// The sidecars' patience is longer than one round of the kit's.
pub fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..4 {
        match call() {
            Err(error) if told_open(&error.to_string()) => {}
            ended => return ended,
        }
    }
    call()
}

fn told_open(error: &str) -> bool {
    ["Unavailable", "Aborted", "DeadlineExceeded"]
        .iter()
        .any(|code| error.contains(code))
}

/// Whether the code says that the work may have been done. A connection that broke says nothing either; tonic calls that UNKNOWN
/// or INTERNAL where other clients say UNAVAILABLE; a code that the server sent has no source.
pub fn leaves_open(status: &Status) -> bool {
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => true,
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn remove_if_there(folder: &Path) -> Result<()> {
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
