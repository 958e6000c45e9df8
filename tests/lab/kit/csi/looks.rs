//! What the orchestrator is told of volumes and SANs without changing anything.

use tonic::Status;

use super::{Orchestrator, Volume, csi, patient};

/// Reason and message of something that is amiss.
pub type Adverse = (String, String);

impl Orchestrator {
    /// ControllerGetVolume: the nodes that have the volume.
    pub fn published_to(&mut self, volume: &Volume) -> Result<Vec<String>, Status> {
        let request = csi::ControllerGetVolumeRequest {
            volume_id: volume.id.clone(),
        };
        let call = self.controller.controller_get_volume(patient(request));
        let reply = self.runtime.block_on(call)?.into_inner();
        let status = reply.status.unwrap_or_default();
        Ok(status.published_node_ids)
    }

    /// ControllerGetVolumeHealth: what the SAN says is wrong with the volume.
    pub fn health_by_the_san(&mut self, volume: &Volume) -> Result<Vec<Adverse>, Status> {
        let request = csi::ControllerGetVolumeHealthRequest {
            volume_id: volume.id.clone(),
            ..csi::ControllerGetVolumeHealthRequest::default()
        };
        let call = self
            .controller
            .controller_get_volume_health(patient(request));
        let health = self.runtime.block_on(call)?.into_inner().volume_health;
        let entries = health.unwrap_or_default().health_statuses.into_iter();
        Ok(entries.map(|it| (it.reason, it.message)).collect())
    }

    /// ControllerListVolumeHealth: the ids of the volumes with which something is wrong.
    pub fn list_sick(&mut self) -> Result<Vec<String>, Status> {
        let request = csi::ControllerListVolumeHealthRequest::default();
        let call = self
            .controller
            .controller_list_volume_health(patient(request));
        let entries = self.runtime.block_on(call)?.into_inner().entries;
        Ok(entries.into_iter().map(|entry| entry.volume_id).collect())
    }

    /// NodeGetStorageHealth: what is amiss with the SANs as the node sees them.
    pub fn storage_health(&mut self) -> Result<Vec<Adverse>, Status> {
        let request = csi::NodeGetStorageHealthRequest::default();
        let call = self.node.node_get_storage_health(patient(request));
        let found = self.runtime.block_on(call)?.into_inner().backend_health;
        Ok(found
            .into_iter()
            .map(|it| (it.reason, it.message))
            .collect())
    }
}
