//! The socket of a role: Identity and the services of the role on one Unix socket, until told to stop.
//!
//! `daemon` calls in here with what it built; it need not name a wire type. The listener comes from the host seam.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity as NoLayer, Stack};

use super::controller::ControllerService;
use super::identity::Identity;
use super::proto::controller_server::ControllerServer;
use super::proto::group_controller_server::GroupControllerServer;
use super::proto::identity_server::IdentityServer;
use super::proto::node_server::{Node, NodeServer};
use super::proto::snapshot_metadata_server::SnapshotMetadataServer;
use crate::controller::Controller;
use crate::metrics::{Calls, CountCalls};

/// How long calls may go on after the word to stop; orchestrators kill after 30 seconds.
const GRACE: Duration = Duration::from_secs(25);

type Counted = Router<Stack<CountCalls, NoLayer>>;

/// Whatever is logged from here on for the call, on any thread or task, is of this volume. An id is cut: it is whatever a caller sent.
pub(super) fn is_about(volume: &str) {
    let volume: String = volume.chars().take(128).collect();
    tracing::Span::current().record("volume", volume);
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Not the form that CSI gives to `CSI_ENDPOINT`.
    #[error("{0:?} is not an endpoint; write unix:///absolute/path.sock")]
    Endpoint(String),
    /// The socket cannot be waited on.
    #[error("the socket cannot be served")]
    Listener(#[source] std::io::Error),
    /// The server ended by itself.
    #[error("the server broke down")]
    Server(#[source] tonic::transport::Error),
    /// Calls that did not end.
    #[error("some calls did not end within {} seconds after the word to stop; they were left to themselves", GRACE.as_secs())]
    Grace,
}

/// The path in a `CSI_ENDPOINT`.
///
/// # Errors
/// [`ServeError::Endpoint`] unless it is `unix://` and an absolute path that ends in `.sock`.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, ServeError> {
    let path = endpoint.strip_prefix("unix://").map(Path::new);
    let fits = |path: &&Path| {
        path.is_absolute()
            && path
                .extension()
                .is_some_and(|extension| extension == "sock")
    };
    match path.filter(fits) {
        Some(path) => Ok(path.to_owned()),
        None => Err(ServeError::Endpoint(endpoint.to_owned())),
    }
}

/// Serves Identity, Controller and GroupController until `stop`, then ends the calls that run.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_controller(
    listener: UnixListener,
    identity: Identity,
    controller: Controller,
    calls: Calls,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let keys = identity.topology_keys();
    let service = ControllerService::new(controller, keys);
    let router = with_identity(identity, calls)
        .add_service(GroupControllerServer::new(service.clone()))
        .add_service(SnapshotMetadataServer::new(service.clone()))
        .add_service(ControllerServer::new(service));
    serve(listener, router, stop).await
}

/// Serves Identity and Node until `stop`, then ends the calls that run.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_node(
    listener: UnixListener,
    identity: Identity,
    node: impl Node,
    calls: Calls,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let service = NodeServer::new(node);
    let router = with_identity(identity, calls).add_service(service);
    serve(listener, router, stop).await
}

fn with_identity(identity: Identity, calls: Calls) -> Counted {
    Server::builder()
        .layer(CountCalls(calls))
        .trace_fn(|request| {
            let volume = tracing::field::Empty;
            tracing::info_span!("call", path = request.uri().path(), volume)
        })
        .add_service(IdentityServer::new(identity))
}

async fn serve(
    listener: UnixListener,
    router: Counted,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    listener
        .set_nonblocking(true)
        .map_err(ServeError::Listener)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(ServeError::Listener)?;
    let incoming = UnixListenerStream::new(listener);
    let served = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = served => outcome.map_err(ServeError::Server),
        () = overdue => Err(ServeError::Grace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::bench::Bench;
    use crate::csi::proto::identity_client::IdentityClient;
    use crate::csi::proto::{GetPluginInfoRequest, ProbeRequest};

    #[test]
    fn only_absolute_sockets_are_endpoints() {
        let path = socket_path("unix:///run/csi/csi.sock").unwrap();
        assert_eq!(path, Path::new("/run/csi/csi.sock"));
        for wrong in [
            "",
            "/run/csi.sock",
            "unix://csi.sock",
            "unix:///run/csi",
            "tcp://127.0.0.1:1",
        ] {
            assert!(socket_path(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_role_answers_on_its_socket_until_told_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csi.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let bench = Bench::new(&["a"]).await;
        let identity = Identity::new("csi.sanpath.dev").unwrap();
        let stop = CancellationToken::new();
        let calls = Calls::default();
        let served = serve_controller(listener, identity, bench.controller, calls, stop.clone());
        let served = tokio::spawn(served);
        let address = format!("unix://{}", path.display());
        let mut client = IdentityClient::connect(address).await.unwrap();
        let info = client.get_plugin_info(GetPluginInfoRequest {}).await;
        assert_eq!(info.unwrap().into_inner().name, "csi.sanpath.dev");
        stop.cancel();
        served.await.unwrap().unwrap();
        client.probe(ProbeRequest {}).await.unwrap_err();
    }
}
