//! The gRPC face of the SAN: parse, call the engine on a thread of its own, reply. The daemon runs [`serve`].
//!
//! One call per volume at a time: the second is answered ABORTED. A caller that goes away cuts nothing off.

#[cfg(test)]
mod guarded_tests;
mod life;
mod listen;
mod roles;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::check::{CheckedPage, Trouble};
use super::engine::Engine;
use super::names::VolumeKey;
use super::snapshots::NewSnapshot;
use super::state::Source;
use crate::deadline::Moment;
use crate::fault::{Faulted, status};
use crate::host::Host;
use crate::inflight::{Inflight, InflightError};
use crate::linux_san_wire as pb;
pub use life::{ServeError, serve};
use pb::linux_san_server::LinuxSan;

/// The service; clones share everything.
#[derive(Clone)]
struct Service {
    engine: Arc<Engine>,
    inflight: Inflight,
    san_uuid: String,
    clock: Clock,
    reads: Arc<AtomicU64>,
}

/// What callers are told of our time: the host's monotonic clock.
#[derive(Clone)]
struct Clock(Host);

impl Clock {
    /// Milliseconds.
    fn now_ms(&self) -> u64 {
        let since_zero = self.0.now().since(Moment::from_zero(Duration::ZERO));
        u64::try_from(since_zero.as_millis()).unwrap_or(u64::MAX)
    }
}

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    /// Runs `work` as the only call on `key`.
    async fn alone<T, E, W>(&self, key: &str, work: W) -> Result<T, Status>
    where
        T: Send + 'static,
        E: Faulted + Send + 'static,
        W: FnOnce(&Arc<Engine>) -> Result<T, E> + Send + 'static,
    {
        let engine = Arc::clone(&self.engine);
        let ended = self.inflight.run_blocking(key, move || work(&engine)).await;
        let outcome = ended.map_err(|error| status(&error))?;
        outcome.map_err(|error| status(&error))
    }

    /// The same as the only call on each of `keys`.
    async fn alone_on<T, E, W>(&self, mut keys: Vec<String>, work: W) -> Result<T, Status>
    where
        T: Send + 'static,
        E: Faulted + Send + 'static,
        W: FnOnce(&Arc<Engine>) -> Result<T, E> + Send + 'static,
    {
        let last = keys.pop().unwrap_or_default();
        // Nobody waits for a key, so no order can lock two calls into each other.
        let begun: Result<Vec<_>, _> = keys
            .iter()
            .map(|key| self.inflight.try_begin(key))
            .collect();
        let guards = begun.map_err(|error| status(&error))?;
        let with_guards = move |engine: &Arc<Engine>| {
            let _until_the_end = guards;
            work(engine)
        };
        self.alone(&last, with_guards).await
    }

    async fn cut(
        &self,
        requests: Vec<pb::CreateSnapshotRequest>,
    ) -> Result<Vec<pb::Snapshot>, Status> {
        let wanted = requests.into_iter().map(wire::new_snapshot);
        let wanted: Vec<NewSnapshot> = wanted.collect::<Result<_, _>>()?;
        let keys = wanted.iter().flat_map(|one| {
            let name = format!("snapshot name {}", one.name);
            [name, volume_lock(&one.source)]
        });
        let keys: BTreeSet<String> = keys.collect();
        let cut = self.alone_on(keys.into_iter().collect(), move |engine| {
            engine.create_snapshots(&wanted)
        });
        Ok(cut.await?.into_iter().map(wire::snapshot).collect())
    }

    /// Runs `work`, which only looks, beside anything else.
    async fn beside<T, E, W>(&self, work: W) -> Result<T, Status>
    where
        T: Send + 'static,
        E: Faulted + Send + 'static,
        W: FnOnce(&Arc<Engine>) -> Result<T, E> + Send + 'static,
    {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        self.alone(&format!("read {number}"), work).await
    }
}

impl Service {
    async fn check(&self, request: pb::CheckVolumesRequest) -> Result<CheckedPage, Status> {
        use pb::check_volumes_request::Which;
        let mut page = match request.which {
            Some(Which::Key(text)) => match text.parse::<VolumeKey>() {
                Ok(key) => self.beside(move |engine| engine.check_one(&key)).await?,
                // A key that we never gave out belongs to no volume.
                Err(_) => CheckedPage::default(),
            },
            after => {
                let after = match after {
                    Some(Which::AfterKey(key)) => key,
                    _ => String::new(),
                };
                let (after, limit) = wire::page(&after, request.max_entries)?;
                let check = move |engine: &Arc<Engine>| engine.check_volumes(after.as_ref(), limit);
                self.beside(check).await?
            }
        };
        for checked in &mut page.volumes {
            if !checked.troubles.is_empty() {
                checked.troubles = self.troubles_at_rest(&checked.volume.key).await?;
            }
        }
        Ok(page)
    }

    /// A volume that is just being given, taken or grown looks wrong for a moment. So one that does is looked at again with no call at work on it; while
    /// there is one, nothing is known to be wrong.
    async fn troubles_at_rest(&self, key: &VolumeKey) -> Result<Vec<Trouble>, Status> {
        let engine = Arc::clone(&self.engine);
        let asked = key.clone();
        let look = move || engine.check_one(&asked);
        match self.inflight.run_blocking(&volume_lock(key), look).await {
            Err(InflightError::Busy(_)) => Ok(Vec::new()),
            Err(error) => Err(status(&error)),
            Ok(looked) => {
                let found = looked.map_err(|error| status(&error))?.volumes.pop();
                Ok(found.map(|checked| checked.troubles).unwrap_or_default())
            }
        }
    }
}

fn volume_lock(key: &VolumeKey) -> String {
    format!("volume {key}")
}

#[tonic::async_trait]
impl LinuxSan for Service {
    async fn identify(&self, _: Request<pb::IdentifyRequest>) -> Reply<pb::IdentifyResponse> {
        Ok(Response::new(pb::IdentifyResponse {
            san_uuid: self.san_uuid.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_ms: Some(self.clock.now_ms()),
        }))
    }

    async fn get_capacity(
        &self,
        _: Request<pb::GetCapacityRequest>,
    ) -> Reply<pb::GetCapacityResponse> {
        let capacity = self.beside(|engine| engine.capacity()).await?;
        Ok(Response::new(wire::capacity(capacity)))
    }

    async fn list_portals(
        &self,
        _: Request<pb::ListPortalsRequest>,
    ) -> Reply<pb::ListPortalsResponse> {
        let portals = self.engine.portals();
        let groups = self.engine.portal_groups();
        Ok(Response::new(pb::ListPortalsResponse {
            portals: portals.iter().map(ToString::to_string).collect(),
            groups: groups.into_iter().map(wire::portal_group).collect(),
        }))
    }

    async fn set_portal_group(
        &self,
        request: Request<pb::SetPortalGroupRequest>,
    ) -> Reply<pb::SetPortalGroupResponse> {
        let (group, access) = wire::group_access(&request.into_inner())?;
        let set = self.alone("portal groups", move |engine| {
            engine.set_access(group, access)
        });
        set.await?;
        Ok(Response::new(pb::SetPortalGroupResponse {}))
    }

    async fn create_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Reply<pb::Volume> {
        let wanted = wire::new_volume(request.into_inner())?;
        let mut locks = vec![format!("name {}", wanted.name)];
        // A snapshot never changes, and many volumes may be made of it at once; a volume must not grow meanwhile.
        if let Some(Source::Volume(source)) = &wanted.source {
            locks.push(volume_lock(source));
        }
        let made = self.alone_on(locks, move |engine| engine.create_volume(&wanted));
        Ok(Response::new(wire::volume(made.await?)))
    }

    async fn adopt_volume(&self, request: Request<pb::AdoptVolumeRequest>) -> Reply<pb::Volume> {
        let wanted = wire::adoption(request.into_inner())?;
        let name = format!("name {}", wanted.name);
        let adopted = self.alone(&name, move |engine| engine.adopt(&wanted));
        Ok(Response::new(wire::volume(adopted.await?)))
    }

    async fn find_volume(&self, request: Request<pb::FindVolumeRequest>) -> Reply<pb::Volume> {
        use pb::find_volume_request::By;
        let found = match request.into_inner().by {
            Some(By::Name(name)) => {
                let find = self.beside(move |engine| engine.find_volume_named(&name));
                find.await?
            }
            Some(By::Key(text)) => match text.parse::<VolumeKey>() {
                Ok(key) => self.beside(move |engine| engine.find_volume(&key)).await?,
                // A key that we never gave out belongs to no volume.
                Err(_) => None,
            },
            None => return Err(Status::invalid_argument("name or key must be set")),
        };
        let found = found.ok_or_else(|| Status::not_found("there is no such volume"))?;
        Ok(Response::new(wire::volume(found)))
    }

    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Reply<pb::ListVolumesResponse> {
        let request = request.into_inner();
        let (after, limit) = wire::page(&request.after_key, request.max_entries)?;
        let page = self.beside(move |engine| engine.list_volumes(after.as_ref(), limit));
        let page = page.await?;
        Ok(Response::new(pb::ListVolumesResponse {
            volumes: page.volumes.into_iter().map(wire::volume).collect(),
            more: page.more,
        }))
    }

    async fn check_volumes(
        &self,
        request: Request<pb::CheckVolumesRequest>,
    ) -> Reply<pb::CheckVolumesResponse> {
        let page = self.check(request.into_inner()).await?;
        Ok(Response::new(pb::CheckVolumesResponse {
            volumes: page.volumes.into_iter().map(wire::checked).collect(),
            more: page.more,
        }))
    }

    async fn expand_volume(&self, request: Request<pb::ExpandVolumeRequest>) -> Reply<pb::Volume> {
        let request = request.into_inner();
        let (key, wwid) = wire::identity(&request.key, &request.wwid)?;
        let lock = volume_lock(&key);
        let size = request.size_bytes;
        let grown = self.alone(&lock, move |engine| engine.expand_volume(&key, &wwid, size));
        Ok(Response::new(wire::volume(grown.await?)))
    }

    async fn delete_volume(
        &self,
        request: Request<pb::DeleteVolumeRequest>,
    ) -> Reply<pb::DeleteVolumeResponse> {
        let request = request.into_inner();
        if let Some((key, wwid)) = wire::find_identity(&request.key, &request.wwid)? {
            self.alone(&volume_lock(&key), move |engine| {
                engine.delete_volume(&key, &wwid)
            })
            .await?;
        }
        Ok(Response::new(pb::DeleteVolumeResponse {}))
    }

    async fn create_snapshot(
        &self,
        request: Request<pb::CreateSnapshotRequest>,
    ) -> Reply<pb::Snapshot> {
        let cut = self.cut(vec![request.into_inner()]).await?;
        let cut = cut.into_iter().next();
        Ok(Response::new(cut.unwrap_or_default()))
    }

    async fn create_group_snapshot(
        &self,
        request: Request<pb::CreateGroupSnapshotRequest>,
    ) -> Reply<pb::CreateGroupSnapshotResponse> {
        let snapshots = self.cut(request.into_inner().snapshots).await?;
        Ok(Response::new(pb::CreateGroupSnapshotResponse { snapshots }))
    }

    async fn find_snapshot(
        &self,
        request: Request<pb::FindSnapshotRequest>,
    ) -> Reply<pb::Snapshot> {
        use pb::find_snapshot_request::By;
        let found = match request.into_inner().by {
            Some(By::Name(name)) => {
                let find = self.beside(move |engine| engine.find_snapshot_named(&name));
                find.await?
            }
            Some(By::Key(text)) => {
                let key = wire::snapshot_key("key", &text)?;
                self.beside(move |engine| engine.find_snapshot(&key))
                    .await?
            }
            None => return Err(Status::invalid_argument("name or key must be set")),
        };
        let found = found.ok_or_else(|| Status::not_found("there is no such snapshot"))?;
        Ok(Response::new(wire::snapshot(found)))
    }

    async fn list_snapshots(
        &self,
        request: Request<pb::ListSnapshotsRequest>,
    ) -> Reply<pb::ListSnapshotsResponse> {
        let Some((after, limit, of)) = wire::snapshots_page(&request.into_inner())? else {
            return Ok(Response::new(pb::ListSnapshotsResponse::default()));
        };
        let page =
            self.beside(move |engine| engine.list_snapshots(after.as_ref(), limit, of.as_ref()));
        let page = page.await?;
        Ok(Response::new(pb::ListSnapshotsResponse {
            snapshots: page.snapshots.into_iter().map(wire::snapshot).collect(),
            more: page.more,
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<pb::DeleteSnapshotRequest>,
    ) -> Reply<pb::DeleteSnapshotResponse> {
        let key = request.into_inner().key;
        match wire::snapshot_key("key", &key) {
            Ok(key) => {
                let lock = format!("snapshot {key}");
                self.alone(&lock, move |engine| engine.delete_snapshot(&key))
                    .await?;
            }
            Err(never) if never.code() == tonic::Code::NotFound => {}
            Err(refused) => return Err(refused),
        }
        Ok(Response::new(pb::DeleteSnapshotResponse {}))
    }

    async fn list_extents(
        &self,
        request: Request<pb::ListExtentsRequest>,
    ) -> Reply<pb::ListExtentsResponse> {
        let wanted = wire::extents_request(&request.into_inner())?;
        let found = self.beside(move |engine| engine.list_extents(&wanted));
        Ok(Response::new(wire::extents(found.await?)))
    }

    async fn export_volume(&self, request: Request<pb::ExportVolumeRequest>) -> Reply<pb::Export> {
        let wanted = wire::export_request(request.into_inner())?;
        let lock = volume_lock(&wanted.key);
        let export = self.alone(&lock, move |engine| engine.ensure_export(&wanted));
        Ok(Response::new(wire::export(export.await?)))
    }

    async fn unexport_volume(
        &self,
        request: Request<pb::UnexportVolumeRequest>,
    ) -> Reply<pb::UnexportVolumeResponse> {
        let request = request.into_inner();
        let initiator = wire::find_initiator(&request.initiator_iqn)?;
        if let Some((key, wwid)) = wire::find_identity(&request.key, &request.wwid)? {
            self.alone(&volume_lock(&key), move |engine| {
                engine.remove_export(&key, &wwid, initiator.as_ref())
            })
            .await?;
        }
        Ok(Response::new(pb::UnexportVolumeResponse {}))
    }
}
