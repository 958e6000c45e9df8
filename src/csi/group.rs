//! The GroupController service, beside the Controller service on its socket and with its keys.
//!
//! It is served and advertised whatever the SANs are, for a plugin's capabilities depend on none: a SAN whose pool cannot cut several volumes at one moment says so
//! when it is asked to (FAILED_PRECONDITION).

use tonic::{Request, Response};

use super::controller::{ControllerService, Reply, refused};
use super::proto;
use super::proto::group_controller_server::GroupController;
use super::proto::group_controller_service_capability as capability;
use super::snapshots as parse;
use super::snapshots::group_on_wire;
use crate::controller::Controller;

#[tonic::async_trait]
impl GroupController for ControllerService {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<proto::GroupControllerGetCapabilitiesRequest>,
    ) -> Reply<proto::GroupControllerGetCapabilitiesResponse> {
        let all = capability::Rpc {
            r#type: capability::rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into(),
        };
        let all = proto::GroupControllerServiceCapability {
            r#type: Some(capability::Type::Rpc(all)),
        };
        Ok(Response::new(
            proto::GroupControllerGetCapabilitiesResponse {
                capabilities: vec![all],
            },
        ))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<proto::CreateVolumeGroupSnapshotRequest>,
    ) -> Reply<proto::CreateVolumeGroupSnapshotResponse> {
        let wanted = parse::create_group(request.get_ref()).map_err(refused)?;
        let key = format!("the group of snapshots named {:?}", wanted.name);
        let work = |controller: Controller| async move { controller.create_group(&wanted).await };
        let group = self.own(&key, work).await?;
        Ok(Response::new(proto::CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(group_on_wire(&group)),
        }))
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<proto::DeleteVolumeGroupSnapshotRequest>,
    ) -> Reply<proto::DeleteVolumeGroupSnapshotResponse> {
        if let Some((id, named)) = parse::delete_group(request.get_ref()).map_err(refused)? {
            let work =
                |controller: Controller| async move { controller.delete_group(&id, &named).await };
            self.own(&request.get_ref().group_snapshot_id, work).await?;
        }
        Ok(Response::new(proto::DeleteVolumeGroupSnapshotResponse {}))
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<proto::GetVolumeGroupSnapshotRequest>,
    ) -> Reply<proto::GetVolumeGroupSnapshotResponse> {
        let (id, named) = parse::get_group(request.get_ref()).map_err(refused)?;
        let group = self.controller.get_group(&id, &named).await;
        Ok(Response::new(proto::GetVolumeGroupSnapshotResponse {
            group_snapshot: Some(group_on_wire(&group.map_err(refused)?)),
        }))
    }
}
