//! The SAN's side of a connection: who has no certificate that it accepts, or speaks in clear, is turned away at the handshake, and that is
//! logged with the peer's address. Handshakes run beside each other, so that a slow peer holds nobody up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::names::{Caller, NameError};
use super::papers::{Papers, PapersError};
use super::reason::Handshake;
use super::verify;
use crate::fault::chain;

/// For a handshake. Over a network of milliseconds it takes two round trips; an emulated machine computes for a second.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// So many handshakes are under way at once; who comes then waits to be taken.
const AT_ONCE: usize = 64;
/// After a failure to take a connection: mostly there are too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// Why a connection is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("our own certificates cannot be used")]
    Papers(#[from] PapersError),
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
    #[error("it is no caller of ours")]
    Handshake(#[from] Handshake),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("reading our certificates was cut off")]
    Cut(#[from] tokio::task::JoinError),
    #[error("no handshake within {} s", HANDSHAKE.as_secs())]
    Late,
    #[error("its certificate")]
    Names(#[from] NameError),
}

/// A connection whose peer has shown who it is.
pub struct Caught {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl Caught {
    /// Who called.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Connected for Caught {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// Takes the connections of `listener` and lets those through whose peer is a caller by certificate. Ends when it is dropped.
pub fn guard(listener: TcpListener, papers: Papers) -> impl Stream<Item = io::Result<Caught>> {
    let (pass, passed) = mpsc::channel(AT_ONCE);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            // Never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let taken = tokio::select! {
                taken = listener.accept() => taken,
                () = pass.closed() => return,
            };
            let Ok((stream, peer)) = taken else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let (pass, papers) = (pass.clone(), papers.clone());
            tokio::spawn(async move {
                match greet(stream, papers).await {
                    // Nobody waits for it any more when the SAN stops.
                    Ok(caught) => drop(pass.send(Ok(caught)).await),
                    Err(error) => tell(peer, &error),
                }
                drop(slot);
            });
        }
    });
    ReceiverStream::new(passed)
}

pub(super) async fn greet(stream: TcpStream, papers: Papers) -> Result<Caught, TurnedAway> {
    stream.set_nodelay(true).map_err(TurnedAway::Broken)?;
    // It reads files.
    let set = tokio::task::spawn_blocking(move || papers.current()).await;
    let set = set??;
    let config = verify::server_config(&set).map_err(TurnedAway::SetUp)?;
    let stream = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
    let stream = stream.map_err(|_| TurnedAway::Late)?;
    let stream = stream.map_err(Handshake::from)?;
    let caller = verify::caller(stream.get_ref().1.peer_certificates())?;
    Ok(Caught { stream, caller })
}

fn tell(peer: SocketAddr, error: &TurnedAway) {
    let reason = chain(error);
    match error {
        TurnedAway::Papers(_) | TurnedAway::SetUp(_) => {
            tracing::error!(%peer, reason, "nobody can manage this SAN");
        }
        // A look at the port, as a load balancer or an operator has it.
        TurnedAway::Handshake(Handshake::Other(error))
            if error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            tracing::debug!(%peer, reason, "a connection ended before its handshake");
        }
        _ => tracing::warn!(%peer, reason, "a connection is refused"),
    }
}

impl AsyncRead for Caught {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caught {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
