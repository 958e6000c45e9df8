//! One attempt at one address of a Linux SAN: reach it, ask who it is, send, and tell what a failure says about the outcome.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout_at;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};

use super::super::Until;
use super::super::error::Cause;
use super::super::sanhost::{Attempt, AttemptError};
use super::link::{Abrupt, Wire};
use crate::fault::Fault;
use crate::linux_san_wire::IdentifyRequest;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;

/// How often the SAN's end of a connection is asked for a sign of life while a call is out: a cut link is told from a SAN that takes its time.
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// And how long the sign may take.
const SIGN_WITHIN: Duration = Duration::from_secs(3);

/// A client of one connection.
pub(super) type Client = LinuxSanClient<Wire>;

/// Time ran out.
#[derive(Debug, thiserror::Error)]
enum Late {
    #[error("not connected in time")]
    Connect,
    #[error("connected, but silent")]
    Silent,
    #[error("no answer in time")]
    Answer,
}

/// Opens connections.
#[tonic::async_trait]
pub(super) trait Dial: Send + Sync {
    /// A connection to the address; who is there is not yet known.
    async fn open(&self, attempt: &Attempt) -> Result<Wire, Cause>;
}

/// TCP, as it is.
pub(super) struct Tcp;

#[tonic::async_trait]
impl Dial for Tcp {
    async fn open(&self, attempt: &Attempt) -> Result<Wire, Cause> {
        let endpoint = Endpoint::from_shared(format!("http://{}", attempt.address))?
            .http2_keep_alive_interval(SIGN_EVERY)
            .keep_alive_timeout(SIGN_WITHIN);
        Ok(Wire::channel(
            endpoint.connect_with_connector(Abrupt).await?,
        ))
    }
}

/// A connection to the address, and who says to be there. Nothing that changes anything was sent.
pub(super) async fn reach(
    dial: &dyn Dial,
    attempt: &Attempt,
) -> Result<(Client, String), AttemptError> {
    let not_reached = AttemptError::NotReached;
    let wire = timeout_at(attempt.reached_by, dial.open(attempt))
        .await
        .map_err(|_| not_reached(Late::Connect.into()))?
        .map_err(not_reached)?;
    let mut client = LinuxSanClient::new(wire);
    let identity = timeout_at(attempt.reached_by, client.identify(IdentifyRequest {}))
        .await
        .map_err(|_| not_reached(Late::Silent.into()))?;
    match identity {
        Ok(identity) => Ok((client, identity.into_inner().san_uuid)),
        Err(status) if !is_ours(&status) && is_denied(&status) => Err(refused(&status)),
        Err(status) => Err(not_reached(status.into())),
    }
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
