//! One attempt at one address of a Linux SAN: reach it, ask who it is, send, and tell what a failure says about the outcome.

use std::future::Future;

use tokio::time::timeout_at;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::super::Until;
use super::super::sanhost::{Attempt, AttemptError, Sanhost};
use crate::fault::Fault;
use crate::linux_san_wire::IdentifyRequest;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;

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

/// A connection to the address, after it has said that it is the SAN we mean. Nothing that changes anything was sent.
pub(super) async fn reach(
    sanhost: &Sanhost,
    attempt: &Attempt,
) -> Result<LinuxSanClient<Channel>, AttemptError> {
    let not_reached = AttemptError::NotReached;
    let endpoint = Endpoint::from_shared(format!("http://{}", attempt.address))
        .map_err(|error| not_reached(error.into()))?;
    let channel = timeout_at(attempt.reached_by, endpoint.connect())
        .await
        .map_err(|_| not_reached(Late::Connect.into()))?
        .map_err(|error| not_reached(error.into()))?;
    let mut client = LinuxSanClient::new(channel);
    let identity = timeout_at(attempt.reached_by, client.identify(IdentifyRequest {}))
        .await
        .map_err(|_| not_reached(Late::Silent.into()))?
        .map_err(|status| not_reached(status.into()))?;
    sanhost
        .recognise(&identity.into_inner().san_uuid)
        .map_err(|stranger| not_reached(stranger.into()))?;
    Ok(client)
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
        Ok(Err(status)) => Err(AttemptError::Refused(
            Fault::from_code(status.code()),
            status.message().to_owned(),
        )),
    }
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
