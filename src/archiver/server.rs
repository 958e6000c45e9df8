//! The archiver's end of its wire: parse, call on a thread of its own, reply. One call for each volume at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::error::WorkError;
use super::job::{Job, Kind};
use super::shelves::Archived;
use super::works::{Standing, State, Works};
use crate::archiver_wire as pb;
use crate::fabric::{Export, Lun, Offer, Wwid};
use crate::fault::{Fault, Faulted, status};
use crate::inflight::Inflight;
use crate::tls::{Caller, Papers, Role, guard};
use crate::volume::{NodeId, SanName};
use pb::archiver_server::{Archiver, ArchiverServer};

/// How long a call that gives a work up waits for it to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// A list of runs of a very large volume.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Who an archiver is, and what it says it can reach.
#[derive(Clone)]
pub struct Identity {
    /// Under which name and initiator volumes are exported to it.
    pub node: NodeId,
    /// The partitions whose scpaths lead from here.
    pub partitions: Arc<dyn Fn() -> Vec<SanName> + Send + Sync>,
    /// The archives of its config.
    pub archives: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Management {
    /// Controllers by certificate; these are ours.
    Certificates(Papers),
    /// Whoever is on this machine: in clear, on loopback addresses only.
    Plaintext,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nobody could call.
    #[error("no address to listen on is given")]
    None,
    /// Anybody could give it orders.
    #[error(
        "{0} is not a loopback address, and --insecure-plaintext serves no other: leave it out and set --tls"
    )]
    Open(SocketAddr),
    /// Our own files.
    #[error("--tls")]
    Papers(#[from] crate::tls::PapersError),
    /// The system refused.
    #[error("listening on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// gRPC.
    #[error("the server ended")]
    Serve(#[from] tonic::transport::Error),
}

/// Somebody who may not call.
#[derive(Debug, thiserror::Error)]
#[error("{0} may not give an archiver orders: that is for a controller")]
struct WrongRole(String);

impl Faulted for WrongRole {
    fn fault(&self) -> Fault {
        Fault::Denied
    }
}

/// Serves `works` on all of `addresses` until `stop`; `bound` is told where.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    works: Works,
    identity: Identity,
    (addresses, management): (&[SocketAddr], Management),
    stop: CancellationToken,
    bound: impl FnOnce(Vec<SocketAddr>),
) -> Result<(), ServeError> {
    if addresses.is_empty() {
        return Err(ServeError::None);
    }
    let papers = match management {
        Management::Certificates(papers) => {
            papers.check()?;
            Some(papers)
        }
        Management::Plaintext => None,
    };
    let mut listeners = Vec::new();
    for &address in addresses {
        if papers.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ServeError::Open(address));
        }
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|source| ServeError::Bind { address, source })?);
    }
    let here = listeners.iter().filter_map(|it| it.local_addr().ok());
    bound(here.collect());
    let service = Service {
        works,
        identity,
        inflight: Inflight::default(),
        reads: Arc::default(),
        is_guarded: papers.is_some(),
    };
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        let server =
            ArchiverServer::new(service.clone()).max_decoding_message_size(LARGEST_MESSAGE);
        let (papers, stop) = (papers.clone(), stop.clone());
        serving.spawn(async move {
            let router = tonic::transport::Server::builder().add_service(server);
            let stopped = stop.cancelled_owned();
            match papers {
                Some(papers) => {
                    let caught = guard(listener, papers);
                    router.serve_with_incoming_shutdown(caught, stopped).await
                }
                None => {
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    router.serve_with_incoming_shutdown(incoming, stopped).await
                }
            }
        });
    }
    while let Some(ended) = serving.join_next().await {
        if let Ok(ended) = ended {
            ended?;
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Service {
    works: Works,
    identity: Identity,
    inflight: Inflight,
    reads: Arc<AtomicU64>,
    is_guarded: bool,
}

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    /// Whoever gives orders is a controller.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        if self.is_guarded {
            let caller = request.extensions().get::<Caller>();
            let is_controller = |caller: &Caller| caller.role == Role::Controller;
            if !caller.is_some_and(is_controller) {
                let told = caller.map_or_else(|| "nobody known".to_owned(), ToString::to_string);
                return Err(status(&WrongRole(told)));
            }
        }
        Ok(request.into_inner())
    }

    async fn alone<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Works) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, Status> {
        let works = self.works.clone();
        let ended = self.inflight.run_blocking(key, move || work(&works)).await;
        let ended = ended.map_err(|error| status(&error))?;
        ended.map_err(|error| status(&error))
    }

    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Works) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, Status> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        self.alone(&format!("read {number}"), work).await
    }
}

#[tonic::async_trait]
impl Archiver for Service {
    async fn identify(&self, request: Request<pb::IdentifyRequest>) -> Reply<pb::IdentifyResponse> {
        self.admit(request)?;
        let all = self.beside(Works::list).await?;
        let busy = all.iter().filter(|it| it.state == State::Running).count();
        let partitions = (self.identity.partitions)();
        Ok(Response::new(pb::IdentifyResponse {
            name: self.identity.node.name.clone(),
            initiator_iqn: self.identity.node.initiator.to_string(),
            partitions: partitions.iter().map(ToString::to_string).collect(),
            archives: (self.identity.archives)(),
            busy: u32::try_from(busy).unwrap_or(u32::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn start_archive(&self, request: Request<pb::StartArchiveRequest>) -> Reply<pb::Work> {
        let job = archive_job(self.admit(request)?)?;
        let wwid = job.wwid().to_string();
        let standing = self.alone(&wwid, move |works| works.start(&job)).await?;
        Ok(Response::new(work_on_wire(standing)))
    }

    async fn start_restore(&self, request: Request<pb::StartRestoreRequest>) -> Reply<pb::Work> {
        let request = self.admit(request)?;
        let job = Job::new(
            request.partition.parse().map_err(field("partition"))?,
            export(request.export)?,
            (request.archive, request.snapshot),
            Kind::Restore {},
        );
        let wwid = job.wwid().to_string();
        let standing = self.alone(&wwid, move |works| works.start(&job)).await?;
        Ok(Response::new(work_on_wire(standing)))
    }

    async fn find_work(&self, request: Request<pb::FindWorkRequest>) -> Reply<pb::Work> {
        let wwid: Wwid = self.admit(request)?.wwid.parse().map_err(field("wwid"))?;
        let found = self.beside(move |works| works.find(&wwid)).await?;
        let found = found.ok_or_else(|| Status::not_found("there is no such work here"))?;
        Ok(Response::new(work_on_wire(found)))
    }

    async fn list_work(
        &self,
        request: Request<pb::ListWorkRequest>,
    ) -> Reply<pb::ListWorkResponse> {
        self.admit(request)?;
        let all = self.beside(Works::list).await?;
        Ok(Response::new(pb::ListWorkResponse {
            work: all.into_iter().map(work_on_wire).collect(),
        }))
    }

    async fn forget_work(
        &self,
        request: Request<pb::ForgetWorkRequest>,
    ) -> Reply<pb::ForgetWorkResponse> {
        let wwid: Wwid = self.admit(request)?.wwid.parse().map_err(field("wwid"))?;
        let forget = move |works: &Works, wwid: &Wwid| {
            works.forget(wwid, works.means.host.deadline_in(PATIENCE))
        };
        let key = wwid.to_string();
        self.alone(&key, move |works| forget(works, &wwid)).await?;
        Ok(Response::new(pb::ForgetWorkResponse {}))
    }

    async fn find_archived(
        &self,
        request: Request<pb::FindArchivedRequest>,
    ) -> Reply<pb::Archived> {
        let asked = self.admit(request)?;
        let find = move |works: &Works| works.find_archived(&asked.archive, &asked.snapshot);
        let found = self.beside(find).await?;
        let found = found.ok_or_else(|| Status::not_found("the archive holds no such snapshot"))?;
        Ok(Response::new(archived_on_wire(found)))
    }

    async fn list_archived(
        &self,
        request: Request<pb::ListArchivedRequest>,
    ) -> Reply<pb::ListArchivedResponse> {
        let asked = self.admit(request)?;
        let most = usize::try_from(asked.max_entries).unwrap_or(usize::MAX);
        let list = move |works: &Works| works.list_archived(&asked.archive, &asked.after, most);
        let page = self.beside(list).await?;
        Ok(Response::new(pb::ListArchivedResponse {
            snapshots: page.snapshots.into_iter().map(archived_on_wire).collect(),
            more: page.more,
        }))
    }

    async fn delete_archived(
        &self,
        request: Request<pb::DeleteArchivedRequest>,
    ) -> Reply<pb::DeleteArchivedResponse> {
        let asked = self.admit(request)?;
        let key = format!("snapshot {} in {}", asked.snapshot, asked.archive);
        let delete = move |works: &Works| works.delete_archived(&asked.archive, &asked.snapshot);
        self.alone(&key, delete).await?;
        Ok(Response::new(pb::DeleteArchivedResponse {}))
    }
}

fn field<E: std::fmt::Display>(name: &str) -> impl FnOnce(E) -> Status {
    move |error| Status::invalid_argument(format!("{name}: {error}"))
}

fn archive_job(request: pb::StartArchiveRequest) -> Result<Job, Status> {
    let snapshot = request.snapshot.unwrap_or_default();
    let pairs = |runs: Vec<pb::Run>| {
        runs.into_iter()
            .map(|run| (run.offset, run.length))
            .collect()
    };
    let (runs, base) = match request.runs {
        None => (None, None),
        Some(runs) => {
            let base = Some(runs.base).filter(|base| !base.is_empty());
            (Some(pairs(runs.runs)), base)
        }
    };
    let kind = Kind::Archive {
        volume: Some(snapshot.volume).filter(|volume| !volume.is_empty()),
        cut_at: snapshot.cut_at,
        notes: snapshot.notes.into_iter().collect(),
        runs,
        base,
    };
    Ok(Job::new(
        request.partition.parse().map_err(field("partition"))?,
        export(request.export)?,
        (request.archive, snapshot.snapshot),
        kind,
    ))
}

fn export(wire: Option<pb::Export>) -> Result<Export, Status> {
    let wire = wire.unwrap_or_default();
    let offer = |wire: pb::Offer| {
        Ok::<_, Status>(Offer {
            portal: wire.portal.parse().map_err(field("export.offers.portal"))?,
            iqn: wire
                .target_iqn
                .parse()
                .map_err(field("export.offers.target_iqn"))?,
            lun: Lun(u16::try_from(wire.lun).map_err(field("export.offers.lun"))?),
        })
    };
    Ok(Export {
        wwid: wire.wwid.parse().map_err(field("export.wwid"))?,
        size: wire.size_bytes,
        offers: wire
            .offers
            .into_iter()
            .map(offer)
            .collect::<Result<_, _>>()?,
        blank: wire.blank,
        read_only: wire.read_only,
        own_target: wire.own_target,
    })
}

fn work_on_wire(standing: Standing) -> pb::Work {
    let Standing {
        job,
        state,
        progress,
        trouble,
    } = standing;
    let (code, trouble) = match trouble {
        Some((fault, told)) => (fault.code().into(), told),
        None => (0, String::new()),
    };
    let state = match state {
        State::Running => pb::work::State::Running,
        State::Done => pb::work::State::Done,
        State::Failed => pb::work::State::Failed,
    };
    pb::Work {
        wwid: job.wwid().to_string(),
        partition: job.partition.to_string(),
        restore: job.is_restore(),
        archive: job.archive,
        snapshot: job.snapshot,
        state: state.into(),
        total_bytes: progress.total,
        done_bytes: progress.done,
        moved_bytes: progress.moved,
        trouble,
        code,
    }
}

fn archived_on_wire(archived: Archived) -> pb::Archived {
    pb::Archived {
        snapshot: archived.snapshot,
        volume: archived.volume.unwrap_or_default(),
        cut_at: archived.cut_at,
        size_bytes: archived.size,
        notes: archived.notes.into_iter().collect(),
    }
}
