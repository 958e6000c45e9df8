//! The Controller service: parse, do the work as its owner, answer.
//!
//! Work that changes something runs in a task of its own under the volume's key: a caller that goes away cuts nothing off, and a second
//! call meanwhile is told ABORTED. `daemon` builds it, `server` serves it.

use std::future::Future;

use tonic::{Request, Response, Status};

use super::controller_parse as parse;
use super::health::troubles_on_wire;
use super::proto;
use super::proto::controller_server;
use super::proto::controller_service_capability::rpc::Type;
use super::server::is_about;
use super::snapshots::{self, snapshot_on_wire};
use super::topology::TopologyKeys;
use crate::controller::{Controller, ControllerError, Room, Verdict, Volume};
use crate::fault::{Faulted, status};
use crate::inflight::Inflight;
use crate::volume::PublishContext;

/// What is served, in the order of its numbers, and MODIFY_VOLUME where a SAN has something to modify. The calls beyond these answer UNIMPLEMENTED.
const CAPABILITIES: [Type; 15] = [
    Type::CreateDeleteVolume,
    Type::PublishUnpublishVolume,
    Type::ListVolumes,
    Type::GetCapacity,
    Type::CreateDeleteSnapshot,
    Type::ListSnapshots,
    Type::CloneVolume,
    Type::PublishReadonly,
    Type::ExpandVolume,
    Type::ListVolumesPublishedNodes,
    Type::GetVolume,
    Type::SingleNodeMultiWriter,
    Type::GetSnapshot,
    Type::GetVolumeHealth,
    Type::ListVolumeHealth,
];

/// The Controller service over the workflows.
#[derive(Clone, Debug)]
pub struct ControllerService {
    pub(super) controller: Controller,
    keys: TopologyKeys,
    inflight: Inflight,
}

pub(super) type Reply<T> = Result<Response<T>, Status>;

impl ControllerService {
    /// Serves `controller`; `keys` are the driver's own.
    #[must_use]
    pub fn new(controller: Controller, keys: TopologyKeys) -> Self {
        Self {
            controller,
            keys,
            inflight: Inflight::default(),
        }
    }

    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Does `work` to its end, whether or not the caller waits for it.
    pub(super) async fn own<T, W, F>(&self, key: &str, work: W) -> Result<T, Status>
    where
        T: Send + 'static,
        W: FnOnce(Controller) -> F,
        F: Future<Output = Result<T, ControllerError>> + Send + 'static,
    {
        is_about(key);
        let work = work(self.controller.clone());
        let outcome = self.inflight.run(key, work).await.map_err(refused)?;
        outcome.map_err(refused)
    }

    fn volume_on_wire(&self, volume: &Volume) -> proto::Volume {
        proto::Volume {
            capacity_bytes: bytes(volume.size),
            volume_id: volume.id.to_string(),
            volume_context: volume.context().into_iter().collect(),
            content_source: volume.origin.as_ref().map(snapshots::origin_on_wire),
            accessible_topology: vec![self.keys.on_wire([&volume.id.san])],
        }
    }

    fn entry_on_wire(&self, volume: &Volume) -> proto::list_volumes_response::Entry {
        proto::list_volumes_response::Entry {
            volume: Some(self.volume_on_wire(volume)),
            status: Some(proto::list_volumes_response::VolumeStatus {
                published_node_ids: published(volume),
            }),
        }
    }
}

fn published(volume: &Volume) -> Vec<String> {
    let nodes = volume.published_to.iter();
    nodes.map(ToString::to_string).collect()
}

pub(super) fn refused<E: Faulted + 'static>(error: E) -> Status {
    let status = status(&error);
    tracing::warn!(code = ?status.code(), message = status.message(), "call failed");
    status
}

fn unimplemented<T>(call: &str) -> Reply<T> {
    Err(Status::unimplemented(format!(
        "{call} is not offered by this driver"
    )))
}

#[tonic::async_trait]
impl controller_server::Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<proto::CreateVolumeRequest>,
    ) -> Reply<proto::CreateVolumeResponse> {
        let wanted = parse::create(request.get_ref(), &self.keys).map_err(refused)?;
        let key = format!("the volume named {:?}", wanted.name);
        let work = |controller: Controller| async move { controller.create(&wanted).await };
        let volume = self.own(&key, work).await?;
        Ok(Response::new(proto::CreateVolumeResponse {
            volume: Some(self.volume_on_wire(&volume)),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<proto::DeleteVolumeRequest>,
    ) -> Reply<proto::DeleteVolumeResponse> {
        if let Some(id) = parse::delete(request.get_ref()).map_err(refused)? {
            let work = |controller: Controller| async move { controller.delete(&id).await };
            self.own(&request.get_ref().volume_id, work).await?;
        }
        Ok(Response::new(proto::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Reply<proto::ControllerPublishVolumeResponse> {
        let mut asked = parse::publish(request.get_ref()).map_err(refused)?;
        if let Some(export) = asked.by_hand.take() {
            return Ok(Response::new(proto::ControllerPublishVolumeResponse {
                publish_context: PublishContext(export).to_map(),
            }));
        }
        let work = |controller: Controller| async move {
            controller
                .publish(&asked.id, &asked.node, &asked.capability, asked.read_only)
                .await
        };
        let context = self.own(&request.get_ref().volume_id, work).await?;
        Ok(Response::new(proto::ControllerPublishVolumeResponse {
            publish_context: context.to_map(),
        }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Reply<proto::ControllerUnpublishVolumeResponse> {
        if let Some((id, node)) = parse::unpublish(request.get_ref()).map_err(refused)? {
            let work = |controller: Controller| async move {
                controller.unpublish(&id, node.as_ref()).await
            };
            self.own(&request.get_ref().volume_id, work).await?;
        }
        Ok(Response::new(proto::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Reply<proto::ValidateVolumeCapabilitiesResponse> {
        let (id, claim) = parse::validate(request.get_ref()).map_err(refused)?;
        let verdict = self.controller.validate(&id, &claim).await;
        let asked = request.into_inner();
        let (confirmed, message) = match verdict.map_err(refused)? {
            Verdict::Refused(reason) => (None, reason),
            Verdict::Confirmed => {
                let confirmed = proto::validate_volume_capabilities_response::Confirmed {
                    volume_context: asked.volume_context,
                    volume_capabilities: asked.volume_capabilities,
                    parameters: asked.parameters,
                    mutable_parameters: asked.mutable_parameters,
                };
                (Some(confirmed), String::new())
            }
        };
        Ok(Response::new(proto::ValidateVolumeCapabilitiesResponse {
            confirmed,
            message,
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<proto::ListVolumesRequest>,
    ) -> Reply<proto::ListVolumesResponse> {
        let most = parse::list(request.get_ref()).map_err(refused)?;
        let token = &request.get_ref().starting_token;
        let listing = self.controller.list(token, most).await.map_err(refused)?;
        Ok(Response::new(proto::ListVolumesResponse {
            entries: listing
                .volumes
                .iter()
                .map(|it| self.entry_on_wire(it))
                .collect(),
            next_token: listing.next.unwrap_or_default(),
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<proto::GetCapacityRequest>,
    ) -> Reply<proto::GetCapacityResponse> {
        let asked = parse::capacity(request.get_ref(), &self.keys);
        let (parameters, reachable) = asked.map_err(refused)?;
        let room = self.controller.capacity(&parameters, reachable.as_ref());
        let room = room.await;
        Ok(Response::new(room_on_wire(room.map_err(refused)?)))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Reply<proto::ControllerGetCapabilitiesResponse> {
        let on_wire = |rpc: Type| proto::ControllerServiceCapability {
            r#type: Some(proto::controller_service_capability::Type::Rpc(
                proto::controller_service_capability::Rpc { r#type: rpc.into() },
            )),
        };
        Ok(Response::new(proto::ControllerGetCapabilitiesResponse {
            capabilities: CAPABILITIES
                .into_iter()
                .chain(self.controller.can_modify().then_some(Type::ModifyVolume))
                .map(on_wire)
                .collect(),
        }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<proto::ControllerListVolumeHealthRequest>,
    ) -> Reply<proto::ControllerListVolumeHealthResponse> {
        let most = parse::list_health(request.get_ref()).map_err(refused)?;
        let token = &request.get_ref().starting_token;
        let listing = self.controller.list_health(token, most).await;
        let listing = listing.map_err(refused)?;
        Ok(Response::new(proto::ControllerListVolumeHealthResponse {
            entries: listing.volumes.into_iter().map(troubles_on_wire).collect(),
            next_token: listing.next.unwrap_or_default(),
        }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<proto::ControllerGetVolumeHealthRequest>,
    ) -> Reply<proto::ControllerGetVolumeHealthResponse> {
        let id = parse::get_health(request.get_ref()).map_err(refused)?;
        let health = self.controller.health(&id).await.map_err(refused)?;
        Ok(Response::new(proto::ControllerGetVolumeHealthResponse {
            volume_health: Some(troubles_on_wire(health)),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Reply<proto::CreateSnapshotResponse> {
        let wanted = snapshots::create(request.get_ref()).map_err(refused)?;
        let key = format!("the snapshot named {:?}", wanted.name);
        let work =
            |controller: Controller| async move { controller.create_snapshot(&wanted).await };
        let snapshot = self.own(&key, work).await?;
        Ok(Response::new(proto::CreateSnapshotResponse {
            snapshot: Some(snapshot_on_wire(&snapshot)),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Reply<proto::DeleteSnapshotResponse> {
        if let Some(id) = snapshots::delete(request.get_ref()).map_err(refused)? {
            let work =
                |controller: Controller| async move { controller.delete_snapshot(&id).await };
            self.own(&request.get_ref().snapshot_id, work).await?;
        }
        Ok(Response::new(proto::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Reply<proto::ListSnapshotsResponse> {
        let asked = snapshots::list(request.get_ref()).map_err(refused)?;
        let Some((filter, most)) = asked else {
            return Ok(Response::new(proto::ListSnapshotsResponse::default()));
        };
        let token = &request.get_ref().starting_token;
        let listing = self.controller.list_snapshots(&filter, token, most).await;
        let listing = listing.map_err(refused)?;
        let entry = |snapshot| proto::list_snapshots_response::Entry {
            snapshot: Some(snapshot_on_wire(snapshot)),
        };
        Ok(Response::new(proto::ListSnapshotsResponse {
            entries: listing.snapshots.iter().map(entry).collect(),
            next_token: listing.next.unwrap_or_default(),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<proto::GetSnapshotRequest>,
    ) -> Reply<proto::GetSnapshotResponse> {
        let id = snapshots::get(request.get_ref()).map_err(refused)?;
        let snapshot = self.controller.get_snapshot(&id).await.map_err(refused)?;
        Ok(Response::new(proto::GetSnapshotResponse {
            snapshot: Some(snapshot_on_wire(&snapshot)),
        }))
    }

    /// The node is always to follow: only it can let the file system or the raw device have the new size.
    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Reply<proto::ControllerExpandVolumeResponse> {
        let (id, range) = parse::expand(request.get_ref()).map_err(refused)?;
        let work = |controller: Controller| async move { controller.expand(&id, range).await };
        let size = self.own(&request.get_ref().volume_id, work).await?;
        Ok(Response::new(proto::ControllerExpandVolumeResponse {
            capacity_bytes: bytes(size),
            node_expansion_required: true,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<proto::ControllerGetVolumeRequest>,
    ) -> Reply<proto::ControllerGetVolumeResponse> {
        let id = parse::get(request.get_ref()).map_err(refused)?;
        let volume = self.controller.get(&id).await.map_err(refused)?;
        Ok(Response::new(proto::ControllerGetVolumeResponse {
            volume: Some(self.volume_on_wire(&volume)),
            status: Some(proto::controller_get_volume_response::VolumeStatus {
                published_node_ids: published(&volume),
            }),
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<proto::ControllerModifyVolumeRequest>,
    ) -> Reply<proto::ControllerModifyVolumeResponse> {
        if !self.controller.can_modify() {
            return unimplemented("ControllerModifyVolume");
        }
        let (id, attributes) = parse::modify(request.get_ref()).map_err(refused)?;
        let work =
            |controller: Controller| async move { controller.modify(&id, &attributes).await };
        self.own(&request.get_ref().volume_id, work).await?;
        Ok(Response::new(proto::ControllerModifyVolumeResponse {}))
    }
}

/// CSI counts bytes in signed numbers; no volume comes near the bound.
fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn room_on_wire(room: Room) -> proto::GetCapacityResponse {
    proto::GetCapacityResponse {
        available_capacity: bytes(room.available),
        maximum_volume_size: Some(bytes(room.maximum_volume)),
        minimum_volume_size: Some(bytes(room.minimum_volume)),
    }
}
