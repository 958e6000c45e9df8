//! One attempt at one address of a Linux SAN: reach it, ask who it is, send, and tell what a failure says about the outcome.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout_at;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::super::Until;
use super::super::error::Cause;
use super::super::sanhost::{Attempt, AttemptError};
use super::link::Wire;
use crate::fault::Fault;
use crate::linux_san_wire::IdentifyRequest;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::tls::{Papers, dial};

/// How often the SAN's end of a connection is asked for a sign of life while a call is out: a cut link is told from a SAN that takes its time.
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// And how long the sign may take.
const SIGN_WITHIN: Duration = Duration::from_secs(3);

/// A client of one connection.
pub(super) type Client = LinuxSanClient<Wire>;

/// For handshake and introduction, beyond the connection itself. They take a few milliseconds; the first ones on an emulated machine, seconds.
const GREETING: Duration = Duration::from_secs(5);
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

    /// How much longer than the connection the introduction may take.
    fn greeting(&self) -> Duration {
        Duration::ZERO
    }

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
        let dialled = dial(&attempt.address, papers, attempt.reached_by).await?;
        let san = dialled.san();
        if let Some(proven) = san {
            self.accept(&proven.to_string())?;
        }
        let endpoint = Endpoint::from_static(URI)
            .http2_keep_alive_interval(SIGN_EVERY)
            .keep_alive_timeout(SIGN_WITHIN);
        let channel = dialled.into_channel(&endpoint).await?;
        Ok(Wire::channel(channel).to(san))
    }

    fn greeting(&self) -> Duration {
        if self.papers.is_some() {
            GREETING
        } else {
            Duration::ZERO
        }
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

/// A connection to the address, and who is there. Nothing that changes anything was sent.
pub(super) async fn reach(
    dial: &dyn Dial,
    attempt: &Attempt,
) -> Result<(Client, String), AttemptError> {
    let not_reached = AttemptError::NotReached;
    // Who is connected is there, and may take a moment more for its introduction.
    let by = (attempt.reached_by + dial.greeting()).min(attempt.answered_by);
    let wire = timeout_at(by, dial.open(attempt))
        .await
        .map_err(|_| not_reached(Late::Silent.into()))?
        .map_err(not_reached)?;
    let proven = wire.san();
    let mut client = LinuxSanClient::new(wire);
    let identity = timeout_at(by, client.identify(IdentifyRequest {}))
        .await
        .map_err(|_| not_reached(Late::Silent.into()))?;
    let told = match identity {
        Ok(identity) => identity.into_inner().san_uuid,
        Err(status) if !is_ours(&status) && is_denied(&status) => return Err(refused(&status)),
        Err(status) => return Err(not_reached(status.into())),
    };
    match proven {
        Some(proven) if proven.to_string() != told => {
            return Err(not_reached(Liar { told, proven }.into()));
        }
        _ => dial.accept(&told).map_err(not_reached)?,
    }
    Ok((client, told))
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
