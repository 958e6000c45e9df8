//! The CSI Node service (CSI §"Node Service RPC"): parse, let `node/` work on a thread that owns the volume, answer.
//!
//! Cancel-safe: a call whose client went away goes on to its end; until then a repetition is answered ABORTED.

use std::fmt::Display;

use tonic::{Request, Response, Status};

use super::health::{health_on_wire, storage_on_wire};
use super::node_requests;
use super::parse::ParseError;
use super::proto;
use super::proto::node_service_capability::{self, rpc};
use super::server::is_about;
use super::topology::TopologyKeys;
use super::usage::usage_on_wire;
use crate::fault::{Fault, Faulted, chain, status};
use crate::inflight::{Inflight, InflightError};
use crate::node::{Counted, Health, Node, NodeError, StorageAdverse, Usage};
use crate::volume::VolumeId;

/// What is served. The calls beyond these answer UNIMPLEMENTED.
const CAPABILITIES: [rpc::Type; 6] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::ExpandVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::GetVolumeHealth,
    rpc::Type::GetStorageHealth,
];

/// The Node service of this process.
#[derive(Clone, Debug)]
pub struct NodeService {
    node: Node,
    keys: TopologyKeys,
    inflight: Inflight,
}

/// Why a call was not answered with OK.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error(transparent)]
    Inflight(#[from] InflightError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Faulted for CallError {
    fn fault(&self) -> Fault {
        match self {
            Self::Parse(error) => error.fault(),
            Self::Inflight(error) => error.fault(),
            Self::Node(error) => error.fault(),
        }
    }
}

impl NodeService {
    /// The service of `node`; calls for one volume are kept apart by `inflight`, and `keys` are the driver's own.
    #[must_use]
    pub fn new(node: Node, inflight: Inflight, keys: TopologyKeys) -> Self {
        Self {
            node,
            keys,
            inflight,
        }
    }

    /// Runs `work` as the only call for `volume` and tells the log what came of it.
    async fn run<T, W>(
        &self,
        call: &'static str,
        volume: &VolumeId,
        work: W,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: FnOnce(&Node) -> Counted<T> + Send + 'static,
    {
        let key = volume.to_string();
        let node = self.node.clone();
        let log_key = key.clone();
        // The line is written by the thread that worked: it may be the only one left to tell.
        let told = move || {
            let done = work(&node);
            tell(call, &log_key, &done);
            done.outcome
        };
        Ok(self.inflight.run_blocking(&key, told).await??)
    }
}

fn tell<T>(call: &str, volume: &str, done: &Counted<T>) {
    let (steps, processes) = (done.counts.steps, done.counts.processes);
    match &done.outcome {
        Ok(_) => tracing::info!(volume.id = volume, steps, processes, "{call} done"),
        Err(error) => {
            tracing::warn!(volume.id = volume, steps, processes, code = ?error.fault().code(),
            error = chain(error), "{call} failed")
        }
    }
}

/// The answer; refusals that never reached the volume's thread are told here.
fn answer<T>(
    call: &str,
    id: &dyn Display,
    done: Result<T, CallError>,
) -> Result<Response<T>, Status> {
    match done {
        Ok(reply) => Ok(Response::new(reply)),
        Err(error) => {
            if !matches!(error, CallError::Node(_)) {
                tracing::info!(volume.id = %id, code = ?error.fault().code(), error = chain(&error), "{call} refused");
            }
            Err(status(&error))
        }
    }
}

/// Absence is success for a call that takes away: an id that we never issued has nothing here.
fn found<T>(parsed: Result<T, ParseError>) -> Result<Option<T>, ParseError> {
    match parsed {
        Err(ParseError::UnknownVolume(_)) => Ok(None),
        parsed => parsed.map(Some),
    }
}

impl NodeService {
    async fn stage(&self, request: &proto::NodeStageVolumeRequest) -> Result<(), CallError> {
        let call = node_requests::stage(request)?;
        let volume = call.volume.clone();
        self.run("NodeStageVolume", &volume, move |node| node.stage(&call))
            .await
    }

    async fn unstage(&self, request: &proto::NodeUnstageVolumeRequest) -> Result<(), CallError> {
        let Some(call) = found(node_requests::unstage(request))? else {
            return Ok(());
        };
        let volume = call.volume.clone();
        self.run("NodeUnstageVolume", &volume, move |node| {
            node.unstage(&call)
        })
        .await
    }

    async fn publish(&self, request: &proto::NodePublishVolumeRequest) -> Result<(), CallError> {
        let call = node_requests::publish(request)?;
        let volume = call.volume.clone();
        self.run("NodePublishVolume", &volume, move |node| {
            node.publish(&call)
        })
        .await
    }

    async fn expand(&self, request: &proto::NodeExpandVolumeRequest) -> Result<u64, CallError> {
        let call = node_requests::expand(request)?;
        let volume = call.volume.clone();
        self.run("NodeExpandVolume", &volume, move |node| node.expand(&call))
            .await
    }

    async fn unpublish(
        &self,
        request: &proto::NodeUnpublishVolumeRequest,
    ) -> Result<(), CallError> {
        let Some(call) = found(node_requests::unpublish(request))? else {
            return Ok(());
        };
        let volume = call.volume.clone();
        self.run("NodeUnpublishVolume", &volume, move |node| {
            node.unpublish(&call)
        })
        .await
    }
}

impl NodeService {
    /// Beside the volume's other calls: a look must neither wait for a long stage nor be a reason to refuse one.
    async fn stats(&self, request: &proto::NodeGetVolumeStatsRequest) -> Result<Usage, CallError> {
        let call = node_requests::stats(request)?;
        let node = self.node.clone();
        let volume = call.volume.to_string();
        // This thread only waits, and not long; what may hang is on another one.
        let looked = in_the_call(move || node.stats(&call)).await;
        let usage = looked.map_err(|_| InflightError::Lost(volume.clone()))?;
        usage.map_err(|error| {
            tracing::warn!(volume.id = volume, code = ?error.fault().code(), error = chain(&error), "NodeGetVolumeStats failed");
            error.into()
        })
    }

    /// Beside the volume's other calls, as above.
    async fn health(
        &self,
        request: &proto::NodeGetVolumeHealthRequest,
    ) -> Result<Health, CallError> {
        let volume = node_requests::health(request)?;
        let (node, asked) = (self.node.clone(), volume.clone());
        let looked = in_the_call(move || node.health(&asked)).await;
        let found = looked.map_err(|_| InflightError::Lost(volume.to_string()))??;
        Ok(found.ok_or_else(|| NodeError::NotHere(volume.to_string()))?)
    }

    async fn storage_health(
        &self,
        request: &proto::NodeGetStorageHealthRequest,
    ) -> Result<Vec<StorageAdverse>, CallError> {
        node_requests::storage_health(request)?;
        let node = self.node.clone();
        let looked = in_the_call(move || node.storage_health()).await;
        Ok(looked.map_err(|_| InflightError::Lost("the SANs".to_owned()))??)
    }
}

#[tonic::async_trait]
impl proto::node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<proto::NodeStageVolumeRequest>,
    ) -> Result<Response<proto::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.stage(&request).await;
        let done = done.map(|()| proto::NodeStageVolumeResponse {});
        answer("NodeStageVolume", &shown(&request.volume_id), done)
    }

    async fn node_unstage_volume(
        &self,
        request: Request<proto::NodeUnstageVolumeRequest>,
    ) -> Result<Response<proto::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.unstage(&request).await;
        let done = done.map(|()| proto::NodeUnstageVolumeResponse {});
        answer("NodeUnstageVolume", &shown(&request.volume_id), done)
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Result<Response<proto::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.publish(&request).await;
        let done = done.map(|()| proto::NodePublishVolumeResponse {});
        answer("NodePublishVolume", &shown(&request.volume_id), done)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<proto::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.unpublish(&request).await;
        let done = done.map(|()| proto::NodeUnpublishVolumeResponse {});
        answer("NodeUnpublishVolume", &shown(&request.volume_id), done)
    }

    async fn node_get_capabilities(
        &self,
        _: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<proto::NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| proto::NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(
                node_service_capability::Rpc {
                    r#type: kind.into(),
                },
            )),
        };
        Ok(Response::new(proto::NodeGetCapabilitiesResponse {
            capabilities: CAPABILITIES.map(capability).into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<proto::NodeGetInfoRequest>,
    ) -> Result<Response<proto::NodeGetInfoResponse>, Status> {
        let info = self.node.info().map_err(|error| status(&error))?;
        Ok(Response::new(proto::NodeGetInfoResponse {
            node_id: info.id.to_string(),
            max_volumes_per_node: info.max_volumes,
            accessible_topology: Some(self.keys.on_wire(&info.partitions)),
        }))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<proto::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<proto::NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.stats(&request).await;
        let done = done.map(|usage| proto::NodeGetVolumeStatsResponse {
            usage: usage_on_wire(&usage),
        });
        answer("NodeGetVolumeStats", &shown(&request.volume_id), done)
    }

    async fn node_expand_volume(
        &self,
        request: Request<proto::NodeExpandVolumeRequest>,
    ) -> Result<Response<proto::NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.expand(&request).await;
        let done = done.map(|size| proto::NodeExpandVolumeResponse {
            capacity_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        });
        answer("NodeExpandVolume", &shown(&request.volume_id), done)
    }

    async fn node_get_volume_health(
        &self,
        request: Request<proto::NodeGetVolumeHealthRequest>,
    ) -> Result<Response<proto::NodeGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        is_about(&request.volume_id);
        let done = self.health(&request).await;
        let done = done.map(|found| proto::NodeGetVolumeHealthResponse {
            volume_health: Some(health_on_wire(&found)),
        });
        answer("NodeGetVolumeHealth", &shown(&request.volume_id), done)
    }

    async fn node_get_storage_health(
        &self,
        request: Request<proto::NodeGetStorageHealthRequest>,
    ) -> Result<Response<proto::NodeGetStorageHealthResponse>, Status> {
        let done = self.storage_health(request.get_ref()).await;
        let done = done.map(|found| proto::NodeGetStorageHealthResponse {
            backend_health: found.into_iter().map(storage_on_wire).collect(),
        });
        answer("NodeGetStorageHealth", &"no volume", done)
    }
}

/// Blocking work of a call on another thread, where its lines are the call's too.
fn in_the_call<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// An id for the log, cut: it is whatever a caller sent.
fn shown(id: &str) -> String {
    id.chars().take(128).collect()
}
