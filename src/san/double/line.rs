//! One management address of the double: a TCP listener whose traffic passes a valve.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::Server;
use crate::tls::{Papers, guard};

/// An address that leads to the double while it lives.
pub(crate) struct Line {
    address: String,
    silent: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Line {
    pub(super) async fn lay(server: Server, breaks: watch::Receiver<u64>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(server)
                .serve_with_incoming_shutdown(
                    TcpIncoming::from(socket).with_nodelay(Some(true)),
                    stop.clone().cancelled_owned(),
                ),
        );
        Self::lead_to(behind, stop, breaks).await
    }

    pub(super) async fn lay_guarded(
        server: Server,
        papers: Papers,
        breaks: watch::Receiver<u64>,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(server)
                .serve_with_incoming_shutdown(
                    guard(socket, papers),
                    stop.clone().cancelled_owned(),
                ),
        );
        Self::lead_to(behind, stop, breaks).await
    }

    /// The valve before `behind`.
    async fn lead_to(
        behind: SocketAddr,
        stop: CancellationToken,
        breaks: watch::Receiver<u64>,
    ) -> Self {
        let valve = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            address: valve.local_addr().unwrap().to_string(),
            silent: Arc::default(),
            stop: stop.clone(),
        };
        let (silent, end) = (Arc::clone(&line.silent), stop.clone());
        let pass = async move {
            while let Ok((near, _)) = valve.accept().await {
                let far = TcpStream::connect(behind).await.unwrap();
                // Else what is said waits for the other end to have acknowledged what was said before.
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let forward = forward(near, far, breaks.clone(), Arc::clone(&silent));
                let end = end.clone();
                // A line that is gone breaks what goes over it.
                tokio::spawn(async move { end.run_until_cancelled(forward).await });
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(pass).await });
        line
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on connections are taken and nothing is ever said.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// An address at which nobody listens.
    pub(crate) async fn dead() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn forward(
    mut near: TcpStream,
    mut far: TcpStream,
    mut breaks: watch::Receiver<u64>,
    silent: Arc<AtomicBool>,
) {
    breaks.mark_unchanged();
    if silent.load(Ordering::SeqCst) {
        let _ = breaks.changed().await;
        return;
    }
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = breaks.changed() => {}
    }
}
