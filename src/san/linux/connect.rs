//! One attempt at one address of a Linux SAN: reach it, ask who it is, send, and tell what a failure says about the outcome.

use std::future::Future;

use tokio::time::timeout_at;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::super::Until;
use super::super::error::Cause;
use super::super::sanhost::{Attempt, AttemptError};
use super::link::Wire;
use super::pool::Pool;
use crate::fault::Fault;
use crate::linux_san_wire::IdentifyRequest;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::tls::{Papers, dial};

/// A client of one connection.
pub(super) type Client = LinuxSanClient<Wire>;

/// gRPC wants one; it means nothing.
const URI: &str = "http://san.sanpath";

/// Time ran out.
#[derive(Debug, thiserror::Error)]
enum Late {
    #[error("connected, but silent")]
    Silent,
    #[error("no answer in time")]
    Answer,
}

/// One that says it is another SAN than its certificate.
#[derive(Debug, thiserror::Error)]
#[error("it says that it is SAN {told}, and its certificate is that of {proven}")]
struct Liar {
    told: String,
    proven: Uuid,
}

/// One that the operator does not mean.
#[derive(Debug, thiserror::Error)]
#[error("this is SAN {theirs}, and sanUuid of the partition is {ours}")]
struct Unexpected {
    theirs: String,
    ours: Uuid,
}

/// Opens connections.
#[tonic::async_trait]
pub(super) trait Dial: Send + Sync {
    /// A connection to the address; who is there is not yet known, or proven by certificate.
    async fn open(&self, attempt: &Attempt) -> Result<Wire, Cause>;

    /// Whether this SAN may be the one that is meant.
    fn accept(&self, _san_uuid: &str) -> Result<(), Cause> {
        Ok(())
    }
}

/// TCP: with papers over TLS, without them in clear and to this machine alone.
#[derive(Clone, Debug, Default)]
pub(in crate::san) struct Way {
    /// What we show the SAN.
    pub(in crate::san) papers: Option<Papers>,
    /// The one that may answer; else any.
    pub(in crate::san) expected: Option<Uuid>,
}

#[tonic::async_trait]
impl Dial for Way {
    async fn open(&self, attempt: &Attempt) -> Result<Wire, Cause> {
        let papers = self.papers.as_ref();
        let dialled = dial(&attempt.address, papers, attempt.connected_by).await?;
        let san = dialled.san();
        if let Some(proven) = san {
            self.accept(&proven.to_string())?;
        }
        let channel = dialled.into_channel(&Endpoint::from_static(URI)).await?;
        Ok(Wire::channel(channel).to(san))
    }

    fn accept(&self, san_uuid: &str) -> Result<(), Cause> {
        match self.expected {
            Some(ours) if ours.to_string() != san_uuid => Err(Unexpected {
                theirs: san_uuid.to_owned(),
                ours,
            }
            .into()),
            _ => Ok(()),
        }
    }
}

/// A SAN that has said who it is.
pub(super) struct Reached {
    pub(super) wire: Wire,
    pub(super) san_uuid: String,
}

impl Reached {
    fn over(wire: Wire, san_uuid: String) -> Self {
        Self { wire, san_uuid }
    }

    /// For a request that is given up at `moment`, and is not done after that either.
    pub(super) fn client_until(&self, moment: Until) -> Client {
        LinuxSanClient::new(self.wire.until(moment))
    }
}

/// A connection to the address, and who is there: asked anew of one that is there already, too, unless it answered just now. Nothing that changes anything was
/// sent.
pub(super) async fn reach(
    pool: &Pool,
    dial: &dyn Dial,
    attempt: &Attempt,
) -> Result<Reached, AttemptError> {
    let by = attempt.reached_by;
    let mut is_last = false;
    loop {
        let found = timeout_at(by, pool.wire(dial, attempt))
            .await
            .map_err(|_| AttemptError::NotReached(Late::Silent.into()))?;
        let (wire, is_old) = found.map_err(AttemptError::NotReached)?;
        match greeted(dial, &wire, by).await {
            Err(AttemptError::NotReached(cause)) => {
                pool.forget(&attempt.address, &wire);
                // One that was there before says nothing about the address. Once.
                if !is_old || is_last || Until::now() >= by {
                    return Err(AttemptError::NotReached(cause));
                }
                is_last = true;
            }
            ended => return ended,
        }
    }
}

/// Who is there: by what was heard just now, or asked, by one caller for all.
async fn greeted(dial: &dyn Dial, wire: &Wire, by: Until) -> Result<Reached, AttemptError> {
    if let Some(san_uuid) = wire.who_just_answered() {
        return Ok(Reached::over(wire.clone(), san_uuid));
    }
    let _turn = timeout_at(by, wire.turn())
        .await
        .map_err(|_| AttemptError::NotReached(Late::Silent.into()))?;
    if let Some(san_uuid) = wire.who_just_answered() {
        return Ok(Reached::over(wire.clone(), san_uuid));
    }
    introduced(dial, wire.clone(), by).await
}

async fn introduced(dial: &dyn Dial, wire: Wire, by: Until) -> Result<Reached, AttemptError> {
    let not_reached = AttemptError::NotReached;
    let proven = wire.san();
    let mut client = LinuxSanClient::new(wire.clone());
    let identity = timeout_at(by, client.identify(IdentifyRequest {}))
        .await
        .map_err(|_| not_reached(Late::Silent.into()))?;
    let identity = match identity {
        Ok(identity) => identity.into_inner(),
        Err(status) if !is_ours(&status) && is_denied(&status) => return Err(refused(&status)),
        Err(status) => return Err(not_reached(status.into())),
    };
    let told = &identity.san_uuid;
    match proven {
        Some(proven) if proven.to_string() != *told => {
            let told = told.clone();
            return Err(not_reached(Liar { told, proven }.into()));
        }
        _ => dial.accept(told).map_err(not_reached)?,
    }
    wire.introduced(&identity);
    Ok(Reached::over(wire, identity.san_uuid))
}

/// The answer to a request. No answer leaves open whether it was done.
pub(super) async fn answered<W>(
    request: impl Future<Output = Result<Response<W>, Status>>,
    by: Until,
) -> Result<W, AttemptError> {
    match timeout_at(by, request).await {
        Err(_) => Err(AttemptError::NoAnswer(Late::Answer.into())),
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if is_ours(&status) => Err(AttemptError::NoAnswer(status.into())),
        Ok(Err(status)) => Err(refused(&status)),
    }
}

fn refused(status: &Status) -> AttemptError {
    AttemptError::Refused(Fault::from_code(status.code()), status.message().to_owned())
}

/// Who we are is not accepted. That is asked of one address only.
fn is_denied(status: &Status) -> bool {
    Fault::from_code(status.code()) == Fault::Denied
}

/// Whether the status was made on this side of the wire, for a connection that broke: it then has a source, or a code that the SAN
/// never sends.
fn is_ours(status: &Status) -> bool {
    let never_sent = matches!(
        status.code(),
        Code::Unknown | Code::Internal | Code::Cancelled | Code::DataLoss
    );
    never_sent || std::error::Error::source(status).is_some()
}
