//! A controller of its own on the rig, with ways to the SAN and to the archivers on which every call passes a toll.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::{Service as _, http};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use super::rig::{Rig, controller_of, fleet_of, lock};
use crate::archiver::{self, Archivers};
use crate::controller::Controller;

pub(super) type Doing<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

/// The calls by which a controller changes anything. After one that only looks the world is as it was before, and a controller remembers nothing: that it dies
/// there is the same as that it died after the last of these.
pub(super) const CHANGES: [&str; 10] = [
    "CreateVolume",
    "DeleteVolume",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ExportVolume",
    "UnexportVolume",
    "StartArchive",
    "StartRestore",
    "ForgetWork",
    "DeleteArchived",
];

/// Decides when a call is done and whether its answer is heard.
pub(super) trait Toll: Send + Sync {
    /// The answer of `call`; polling `doing` does it.
    fn pass<'a>(&'a self, call: &'a str, doing: Doing<'a>) -> Doing<'a>;
}

/// Everything passes.
pub(super) struct Free;

impl Toll for Free {
    fn pass<'a>(&'a self, _: &'a str, doing: Doing<'a>) -> Doing<'a> {
        doing
    }
}

/// A controller over ways that are there while this lives.
pub(super) struct Leader {
    pub(super) controller: Controller,
    stop: CancellationToken,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    /// One that knows nothing yet.
    pub(super) async fn leader(&self, toll: Arc<dyn Toll>) -> Leader {
        let stop = CancellationToken::new();
        let mut sans = Vec::new();
        for line in &self.lines {
            sans.push(lay(line.address(), &toll, &stop).await);
        }
        let mut known = BTreeMap::new();
        for machine in &self.machines {
            let address = lock(&machine.address).to_string();
            let settings = archiver::Settings {
                address: lay(&address, &toll, &stop).await,
                papers: None,
                partitions: None,
            };
            known.insert(machine.node.name.clone(), settings);
        }
        let archivers = Archivers::default();
        archivers.update(known, ["here".to_owned()].into());
        let controller = controller_of(fleet_of([&sans[0], &sans[1]]), &archivers);
        Leader { controller, stop }
    }
}

/// A way to `behind`; its address.
async fn lay(behind: &str, toll: &Arc<dyn Toll>, stop: &CancellationToken) -> String {
    let endpoint = Endpoint::from_shared(format!("http://{behind}")).unwrap();
    let (channel, toll) = (endpoint.connect_lazy(), Arc::clone(toll));
    let pass = move |request: Request| {
        let passing = pass(request, channel.clone(), Arc::clone(&toll));
        // Who dies after he has sent it takes nothing of it back.
        async move { tokio::spawn(passing).await.unwrap() }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let routes = Routes::from(axum::Router::new().fallback(pass));
    let server = Server::builder().add_routes(routes);
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(server.serve_with_incoming_shutdown(incoming, stopped));
    address
}

async fn pass(request: Request, mut channel: Channel, toll: Arc<dyn Toll>) -> Response {
    let (head, body) = request.into_parts();
    let call = head.uri.path().rsplit('/').next().unwrap().to_owned();
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let doing = async move {
        let body = tonic::body::Body::new(Body::from(whole));
        let sent = match poll_fn(|context| channel.poll_ready(context)).await {
            Ok(()) => channel.call(http::Request::from_parts(head, body)).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(response) => response.map(Body::new),
            Err(error) => Status::unavailable(error.to_string()).into_http(),
        }
    };
    toll.pass(&call, Box::pin(doing)).await
}
