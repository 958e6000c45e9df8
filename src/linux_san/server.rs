//! The gRPC face of the SAN: parse, call the engine on a thread of its own, reply. The daemon runs [`serve`].
//!
//! One call per volume at a time: the second is answered ABORTED. A caller that goes away cuts nothing off.

#[cfg(test)]
mod guarded_tests;
mod listen;
mod roles;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::check::{CheckedPage, Trouble};
use super::engine::{Engine, OpenError};
use super::names::VolumeKey;
use super::options::{Management, SanOptions};
use super::snapshots::NewSnapshot;
use super::state::Source;
use crate::fault::{Faulted, chain, status};
use crate::host::Host;
use crate::inflight::{Inflight, InflightError};
use crate::linux_san_wire as pb;
use crate::tls::{Papers, guard};
pub use listen::ListenError;
use pb::linux_san_server::{LinuxSan, LinuxSanServer};
use roles::Gate;

/// How often idle targets and failed removals are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Then a connection must be made anew, so that a certificate that is not trusted any more is out.
const LONGEST_CONNECTION: Duration = Duration::from_mins(5);

/// Why the SAN does not serve, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address to listen on.
    #[error("the management addresses")]
    Listen(#[from] ListenError),
    /// State, pool or kernel.
    #[error("the SAN does not start")]
    Open(#[from] OpenError),
    /// The start itself.
    #[error("the start was cut off")]
    Start(#[from] InflightError),
    /// The transport.
    #[error("serving on {address}")]
    Transport {
        /// Where.
        address: SocketAddr,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Serves the SAN on every address of `listen` until `shutdown`: first the volumes are there again, which `opened` is told, then calls are answered.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    options: SanOptions,
    host: Host,
    listen: Vec<SocketAddr>,
    shutdown: CancellationToken,
    opened: impl FnOnce(&Arc<Engine>),
) -> Result<(), ServeError> {
    // Taken first: a wrong address is to be seen at once, and callers wait in the backlog instead of being refused.
    let listeners = listen::bind_all(&listen, options.management)?;
    serve_bound(options, host, listeners, shutdown, opened).await
}

async fn serve_bound(
    options: SanOptions,
    host: Host,
    listeners: Vec<TcpListener>,
    shutdown: CancellationToken,
    opened: impl FnOnce(&Arc<Engine>),
) -> Result<(), ServeError> {
    let inflight = Inflight::default();
    let seam = host.clone();
    let engine = inflight.run_blocking("start", move || open(&seam, options));
    let engine = engine.await??;
    opened(&engine);
    let door = Door::new(&engine, &host);
    let service = Service {
        san_uuid: engine.san_uuid().to_string(),
        engine: Arc::clone(&engine),
        inflight: inflight.clone(),
        reads: Arc::default(),
    };
    let stopped = CancellationToken::new();
    let guard = tokio::spawn(guard_until(
        Arc::clone(&engine),
        inflight.clone(),
        stopped.clone(),
    ));
    let sweeper = tokio::spawn(sweep_until(engine, inflight, stopped.clone()));
    let served = serve_on(listeners, &door, &service, &shutdown).await;
    stopped.cancel();
    // They end by themselves; their own panics are their only failure.
    let _ = sweeper.await;
    let _ = guard.await;
    served
}

fn open(host: &Host, options: SanOptions) -> Result<Arc<Engine>, OpenError> {
    let engine = Engine::open(host, options)?;
    engine.restore()?;
    Ok(engine)
}

/// How callers come in.
enum Door {
    /// By certificate.
    Guarded(Papers),
    /// From this machine.
    Plain,
}

impl Door {
    /// Bad certificates keep callers out until they are mended; the volumes are served meanwhile.
    fn new(engine: &Engine, host: &Host) -> Self {
        if engine.management() == Management::Plaintext {
            tracing::warn!(
                "management is in clear and without any proof of who calls: every process on this machine can delete volumes"
            );
            return Self::Plain;
        }
        let papers = Papers::of_san(host, &engine.certificates(), engine.san_uuid());
        if let Err(error) = papers.check() {
            tracing::error!(
                reason = chain(&error),
                "nobody can manage this SAN until its certificates are mended; its volumes are served"
            );
        }
        Self::Guarded(papers)
    }

    fn management(&self) -> Management {
        match self {
            Self::Guarded(_) => Management::Certificates,
            Self::Plain => Management::Plaintext,
        }
    }
}

async fn serve_on(
    listeners: Vec<TcpListener>,
    door: &Door,
    service: &Service,
    shutdown: &CancellationToken,
) -> Result<(), ServeError> {
    // When one listener fails the others stop as well: the process is restarted as a whole.
    let stop = shutdown.child_token();
    let mut serving = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr().map_err(|source| ListenError::Bind {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
        })?;
        tracing::info!(%address, "the SAN answers");
        let gate = Gate::new(LinuxSanServer::new(service.clone()), door.management());
        let server = tonic::transport::Server::builder()
            .max_connection_age(LONGEST_CONNECTION)
            .add_service(gate);
        let stop = stop.clone().cancelled_owned();
        let papers = match door {
            Door::Guarded(papers) => Some(papers.clone()),
            Door::Plain => None,
        };
        serving.spawn(async move {
            let ended = match papers {
                Some(papers) => {
                    let incoming = guard(listener, papers);
                    server.serve_with_incoming_shutdown(incoming, stop).await
                }
                None => {
                    let incoming = TcpListenerStream::new(listener);
                    server.serve_with_incoming_shutdown(incoming, stop).await
                }
            };
            ended.map_err(|source| ServeError::Transport { address, source })
        });
    }
    let mut outcome = Ok(());
    while let Some(ended) = serving.join_next().await {
        stop.cancel();
        // A task of tonic's own that panicked has been reported by the panic itself.
        outcome = outcome.and(ended.unwrap_or(Ok(())));
    }
    outcome
}

async fn sweep_until(engine: Arc<Engine>, inflight: Inflight, stopped: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            _ = every.tick() => {}
        }
        let engine = Arc::clone(&engine);
        if let Err(error) = inflight.run_blocking("sweep", move || engine.sweep()).await {
            tracing::warn!(reason = %error, "the sweep did not run");
        }
    }
}

/// Has the pool looked at before it is full, as often as it wants.
async fn guard_until(engine: Arc<Engine>, inflight: Inflight, stopped: CancellationToken) {
    let mut pause = Duration::ZERO;
    while stopped
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        let engine = Arc::clone(&engine);
        let looked = inflight.run_blocking("brim", move || engine.guard_brim());
        pause = looked.await.unwrap_or_else(|error| {
            tracing::warn!(reason = %error, "the pool was not looked at");
            SWEEP_EVERY
        });
    }
}

/// The service; clones share everything.
#[derive(Clone)]
struct Service {
    engine: Arc<Engine>,
    inflight: Inflight,
    san_uuid: String,
    reads: Arc<AtomicU64>,
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
