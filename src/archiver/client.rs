//! The controller's end of the archiver's wire.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::shelves::Archived;
use crate::archiver_wire as pb;
use crate::fabric::{Export, Iqn};
use crate::fault::{Fault, Faulted};
use crate::tls::{DialError, Papers, dial_archiver};
use crate::volume::{NodeId, SanName};
use pb::archiver_client::ArchiverClient;

/// gRPC wants one; it means nothing.
const URI: &str = "http://archiver.sanpath";
/// A connection that takes longer is not to be had.
const CONNECT: Duration = Duration::from_secs(5);
/// A list of runs of a very large volume.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Why an archiver did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// Nothing was sent.
    #[error("archiver {archiver} at {address} cannot be reached")]
    Unreachable {
        /// Which.
        archiver: String,
        /// Where.
        address: String,
        #[source]
        source: Box<DialError>,
    },
    /// Sent, and no answer came.
    #[error("archiver {archiver} at {address} did not answer in time")]
    Silent {
        /// Which.
        archiver: String,
        /// Where.
        address: String,
    },
    /// It answered, and the answer is no.
    #[error("archiver {archiver}: {reason}")]
    Refused {
        /// Which.
        archiver: String,
        /// What it means.
        fault: Fault,
        /// In its own words.
        reason: String,
    },
    /// Its answer makes no sense.
    #[error("the answer of archiver {archiver} has an unusable {field}")]
    Answer {
        /// Which.
        archiver: String,
        /// Which part of it.
        field: &'static str,
    },
}

impl ArchiverError {
    /// Whether nobody answered there: perhaps nobody is there any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused { .. } | Self::Answer { .. } => false,
        }
    }
}

impl Faulted for ArchiverError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Answer { .. } => {
                Fault::MaybeDone
            }
            Self::Refused { fault, .. } => *fault,
        }
    }
}

/// What an archiver says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// To whom volumes are exported.
    pub node: NodeId,
    /// The partitions that it can reach.
    pub partitions: Vec<SanName>,
    /// The archives that it can reach.
    pub archives: Vec<String>,
    /// How much it has to do.
    pub busy: u32,
}

/// How a work stands, as its archiver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The volume's WWID.
    pub wwid: String,
    /// By whose scpaths.
    pub partition: String,
    /// The archive.
    pub archive: String,
    /// The snapshot's name there.
    pub snapshot: String,
    /// Whether the volume is filled.
    pub is_restore: bool,
    /// How it stands.
    pub state: super::State,
    /// Bytes to go through, and gone through.
    pub total: u64,
    /// Of these, how many are done.
    pub done: u64,
    /// What is in its way.
    pub trouble: Option<(Fault, String)>,
}

/// What is to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// By whose scpaths.
    pub partition: SanName,
    /// What shows it.
    pub export: Export,
    /// Where it goes.
    pub archive: String,
    /// What it is, and what is noted with it.
    pub snapshot: Archived,
    /// Offset and length of what may be other than zero, or than in the base; `None` for everything.
    pub runs: Option<Vec<(u64, u64)>>,
    /// The archived snapshot that it is compared with.
    pub base: Option<String>,
}

/// One archiver.
pub struct Link {
    name: String,
    address: String,
    papers: Option<Papers>,
    open: Mutex<Option<Channel>>,
}

type Client = ArchiverClient<Channel>;

impl Link {
    /// The archiver `name` at this address; nothing is sent yet.
    #[must_use]
    pub fn new(name: &str, address: &str, papers: Option<Papers>) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            papers,
            open: Mutex::default(),
        }
    }

    /// Its name in the config file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<Channel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn channel(&self, until: Instant) -> Result<Channel, ArchiverError> {
        let known = self.open().clone();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let failed = |source: DialError| ArchiverError::Unreachable {
            archiver: self.name.clone(),
            address: self.address.clone(),
            source: Box::new(source),
        };
        let by = until.min(Instant::now() + CONNECT);
        let dialled = timeout_at(
            until,
            dial_archiver(&self.address, self.papers.as_ref(), by),
        );
        let dialled = dialled.await.map_err(|_| self.silent())?.map_err(failed)?;
        let channel = dialled.into_channel(&Endpoint::from_static(URI)).await;
        let channel = channel.map_err(failed)?;
        *self.open() = Some(channel.clone());
        Ok(channel)
    }

    fn silent(&self) -> ArchiverError {
        ArchiverError::Silent {
            archiver: self.name.clone(),
            address: self.address.clone(),
        }
    }

    /// Sends one request. A connection that fails is not used again.
    async fn ask<T, F>(
        &self,
        until: Instant,
        send: impl FnOnce(Client) -> F,
    ) -> Result<T, ArchiverError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channel(until).await?;
        let client = ArchiverClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let answered = timeout_at(until, send(client)).await;
        let Ok(answered) = answered else {
            *self.open() = None;
            return Err(self.silent());
        };
        answered.map(Response::into_inner).map_err(|refusal| {
            // What the transport says has a cause; what the archiver says has none.
            if std::error::Error::source(&refusal).is_some() {
                *self.open() = None;
                return self.silent();
            }
            ArchiverError::Refused {
                archiver: self.name.clone(),
                fault: Fault::from_code(refusal.code()),
                reason: refusal.message().to_owned(),
            }
        })
    }

    fn unusable(&self, field: &'static str) -> ArchiverError {
        ArchiverError::Answer {
            archiver: self.name.clone(),
            field,
        }
    }

    /// Who it is.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn identify(&self, until: Instant) -> Result<Introduced, ArchiverError> {
        let send =
            |mut client: Client| async move { client.identify(pb::IdentifyRequest {}).await };
        let told = self.ask(until, send).await?;
        let initiator: Result<Iqn, _> = told.initiator_iqn.parse();
        let initiator = initiator.map_err(|_| self.unusable("initiator_iqn"))?;
        let node = NodeId::new(&told.name, initiator).map_err(|_| self.unusable("name"))?;
        let partitions = told.partitions.iter().map(|name| name.parse());
        let partitions: Result<Vec<SanName>, _> = partitions.collect();
        Ok(Introduced {
            node,
            partitions: partitions.map_err(|_| self.unusable("partitions"))?,
            archives: told.archives,
            busy: told.busy,
        })
    }

    /// Begins to archive, or joins.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn start_archive(&self, order: Order, until: Instant) -> Result<Told, ArchiverError> {
        let runs = order.runs.map(|runs| pb::Runs {
            runs: runs
                .into_iter()
                .map(|(offset, length)| pb::Run { offset, length })
                .collect(),
            base: order.base.unwrap_or_default(),
        });
        let request = pb::StartArchiveRequest {
            partition: order.partition.to_string(),
            export: Some(export_on_wire(&order.export)),
            archive: order.archive,
            snapshot: Some(pb::Archived {
                snapshot: order.snapshot.snapshot,
                volume: order.snapshot.volume.unwrap_or_default(),
                cut_at: order.snapshot.cut_at,
                size_bytes: order.snapshot.size,
                notes: order.snapshot.notes.into_iter().collect(),
            }),
            runs,
        };
        let send = |mut client: Client| async move { client.start_archive(request).await };
        Ok(told(self.ask(until, send).await?))
    }

    /// Begins to fill a volume, or joins.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn start_restore(
        &self,
        partition: &SanName,
        export: &Export,
        (archive, snapshot): (&str, &str),
        until: Instant,
    ) -> Result<Told, ArchiverError> {
        let request = pb::StartRestoreRequest {
            partition: partition.to_string(),
            export: Some(export_on_wire(export)),
            archive: archive.to_owned(),
            snapshot: snapshot.to_owned(),
        };
        let send = |mut client: Client| async move { client.start_restore(request).await };
        Ok(told(self.ask(until, send).await?))
    }

    /// How the work on this volume stands.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn find_work(
        &self,
        wwid: &str,
        until: Instant,
    ) -> Result<Option<Told>, ArchiverError> {
        let request = pb::FindWorkRequest {
            wwid: wwid.to_owned(),
        };
        let send = |mut client: Client| async move { client.find_work(request).await };
        absent(self.ask(until, send).await.map(told))
    }

    /// How all stand.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn list_work(&self, until: Instant) -> Result<Vec<Told>, ArchiverError> {
        let send =
            |mut client: Client| async move { client.list_work(pb::ListWorkRequest {}).await };
        let all = self.ask(until, send).await?;
        Ok(all.work.into_iter().map(told).collect())
    }

    /// Gives the work up; nothing of it is attached there when this answers.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn forget_work(&self, wwid: &str, until: Instant) -> Result<(), ArchiverError> {
        let request = pb::ForgetWorkRequest {
            wwid: wwid.to_owned(),
        };
        let send = |mut client: Client| async move { client.forget_work(request).await };
        self.ask(until, send).await.map(drop)
    }

    /// What an archive holds of a snapshot.
    ///
    /// # Errors
    /// See [`ArchiverError`]; one that cannot be used is [`Fault::Precondition`].
    pub async fn find_archived(
        &self,
        (archive, snapshot): (&str, &str),
        until: Instant,
    ) -> Result<Option<Archived>, ArchiverError> {
        let request = pb::FindArchivedRequest {
            archive: archive.to_owned(),
            snapshot: snapshot.to_owned(),
        };
        let send = |mut client: Client| async move { client.find_archived(request).await };
        absent(self.ask(until, send).await.map(archived))
    }

    /// What an archive holds after the snapshot `after`, at most `most`; and whether there is more.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn list_archived(
        &self,
        (archive, after): (&str, &str),
        most: u32,
        until: Instant,
    ) -> Result<(Vec<Archived>, bool), ArchiverError> {
        let request = pb::ListArchivedRequest {
            archive: archive.to_owned(),
            after: after.to_owned(),
            max_entries: most,
        };
        let send = |mut client: Client| async move { client.list_archived(request).await };
        let page = self.ask(until, send).await?;
        Ok((
            page.snapshots.into_iter().map(archived).collect(),
            page.more,
        ))
    }

    /// Deletes a snapshot from an archive; absent is fine.
    ///
    /// # Errors
    /// See [`ArchiverError`].
    pub async fn delete_archived(
        &self,
        (archive, snapshot): (&str, &str),
        until: Instant,
    ) -> Result<(), ArchiverError> {
        let request = pb::DeleteArchivedRequest {
            archive: archive.to_owned(),
            snapshot: snapshot.to_owned(),
        };
        let send = |mut client: Client| async move { client.delete_archived(request).await };
        self.ask(until, send).await.map(drop)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Link({} at {})", self.name, self.address)
    }
}

fn absent<T>(answer: Result<T, ArchiverError>) -> Result<Option<T>, ArchiverError> {
    match answer {
        Err(error) if error.fault() == Fault::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

fn export_on_wire(export: &Export) -> pb::Export {
    pb::Export {
        wwid: export.wwid.to_string(),
        size_bytes: export.size,
        offers: export
            .offers
            .iter()
            .map(|offer| pb::Offer {
                portal: offer.portal.to_string(),
                target_iqn: offer.iqn.to_string(),
                lun: u32::from(offer.lun.0),
            })
            .collect(),
        blank: export.blank,
        read_only: export.read_only,
        own_target: export.own_target,
    }
}

/// A state of a later version is taken for one that may change.
fn told(wire: pb::Work) -> Told {
    let state = match wire.state() {
        pb::work::State::Done => super::State::Done,
        pb::work::State::Failed => super::State::Failed,
        pb::work::State::Running | pb::work::State::Unknown => super::State::Running,
    };
    let fault = Fault::from_code(Code::from(wire.code));
    let trouble = (!wire.trouble.is_empty()).then_some((fault, wire.trouble));
    Told {
        wwid: wire.wwid,
        partition: wire.partition,
        archive: wire.archive,
        snapshot: wire.snapshot,
        is_restore: wire.restore,
        state,
        total: wire.total_bytes,
        done: wire.done_bytes,
        trouble,
    }
}

fn archived(wire: pb::Archived) -> Archived {
    Archived {
        snapshot: wire.snapshot,
        volume: Some(wire.volume).filter(|volume| !volume.is_empty()),
        cut_at: wire.cut_at,
        size: wire.size_bytes,
        notes: wire.notes.into_iter().collect(),
    }
}
