//! The caller's side of a connection: made, the SAN's certificate checked, and only then given to gRPC, which cannot make another one behind our
//! back. In clear only to this very machine.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::names::NameError;
use super::papers::{Papers, PapersError};
use super::reason::Handshake;
use super::verify::{self, Callee};

/// What is said to the SAN as the name that was dialled; it means nothing to either side.
const DIALLED_NAME: &str = "san.sanpath";

/// A connection over which the SAN's kernel does not answer for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(3);

/// Why there is no connection. Nothing was asked of the SAN.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Our own files.
    #[error("our certificates cannot be used")]
    Papers(#[from] PapersError),
    /// Of rustls.
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
    /// TCP, as a dead link has it.
    #[error("not connected in time")]
    Late,
    /// TCP.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// Anybody on the way could read and change what is asked.
    #[error("{0} is not this machine, and nothing is sent to it in clear: set tls")]
    Clear(std::net::IpAddr),
    /// The other side's certificate, or what it says of ours; or it speaks in clear.
    #[error("this is not the one that is meant")]
    Handshake(#[from] Handshake),
    /// Of the SAN.
    #[error("the SAN's certificate")]
    Names(#[from] NameError),
    /// Of the runtime.
    #[error("reading our certificates was cut off")]
    Cut(#[from] tokio::task::JoinError),
    /// HTTP/2 on top.
    #[error("the connection does not carry gRPC")]
    Http(#[source] tonic::transport::Error),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a SAN that was checked.
pub struct Dialled {
    stream: Box<dyn Stream>,
    san: Option<Uuid>,
}

/// Connects to `address` (`host:port`): with `papers` over TLS, without them in clear and to this machine only. The connection must stand by
/// `connected_by`; how long the handshake may take is the caller's. Cancel-safe.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    address: &str,
    papers: Option<&Papers>,
    connected_by: Instant,
) -> Result<Dialled, DialError> {
    let Some(papers) = papers else {
        return dial_in_clear(address, connected_by).await;
    };
    let stream = greet(address, papers, Callee::San, connected_by).await?;
    let san = verify::san(stream.get_ref().1.peer_certificates())?;
    Ok(Dialled {
        stream: Box::new(stream),
        san: Some(san),
    })
}

/// The same to an archiver.
///
/// # Errors
/// See [`DialError`].
pub async fn dial_archiver(
    address: &str,
    papers: Option<&Papers>,
    connected_by: Instant,
) -> Result<Dialled, DialError> {
    let Some(papers) = papers else {
        return dial_in_clear(address, connected_by).await;
    };
    let stream = greet(address, papers, Callee::Archiver, connected_by).await?;
    Ok(Dialled {
        stream: Box::new(stream),
        san: None,
    })
}

/// A connection whose other end has proven to be what is meant to be reached.
async fn greet(
    address: &str,
    papers: &Papers,
    callee: Callee,
    connected_by: Instant,
) -> Result<TlsStream<TcpStream>, DialError> {
    let papers = papers.clone();
    // It reads files.
    let set = tokio::task::spawn_blocking(move || papers.current()).await;
    let set = set??;
    let config = verify::client_config(&set, callee).map_err(DialError::SetUp)?;
    let stream = connect(address, connected_by).await?;
    let name = ServerName::try_from(DIALLED_NAME).map_err(io::Error::other);
    let name = name.map_err(DialError::Connect)?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(stream.map_err(Handshake::from)?)
}

async fn dial_in_clear(address: &str, connected_by: Instant) -> Result<Dialled, DialError> {
    let stream = connect(address, connected_by).await?;
    let peer = stream.peer_addr().map_err(DialError::Connect)?.ip();
    if !peer.to_canonical().is_loopback() {
        return Err(DialError::Clear(peer));
    }
    Ok(Dialled {
        stream: Box::new(stream),
        san: None,
    })
}

async fn connect(address: &str, by: Instant) -> Result<TcpStream, DialError> {
    let stream = timeout_at(by, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| DialError::Late)?;
    let stream = stream.map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    // Cut off where it ends. Closed politely, a connection over a dead link would be kept by the kernel, with what it holds, and a change that was given
    // up would still arrive when the link is back, after what was done in its place over another address.
    stream.set_zero_linger().map_err(DialError::Connect)?;
    end_when_dead(&stream).map_err(DialError::Connect)?;
    Ok(stream)
}

/// The kernels tell each other that the link lives, however busy the SAN is: it ends when nothing was heard for [`DEAD_AFTER`].
fn end_when_dead(stream: &TcpStream) -> io::Result<()> {
    let millis = u32::try_from(DEAD_AFTER.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &millis)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    // From 1 s of silence on, every second.
    setsockopt(stream, sockopt::TcpKeepIdle, &1)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    Ok(())
}

impl Dialled {
    /// The SAN that the other side has proven to be; `None` in clear.
    #[must_use]
    pub fn san(&self) -> Option<Uuid> {
        self.san
    }

    /// gRPC over this connection and no other; the address of `endpoint` means nothing.
    ///
    /// # Errors
    /// [`DialError::Http`].
    pub async fn into_channel(self, endpoint: &Endpoint) -> Result<Channel, DialError> {
        let connector = Once(Some(TokioIo::new(self.stream)));
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map_err(DialError::Http)
    }
}

/// Gives the one connection that there is.
struct Once(Option<TokioIo<Box<dyn Stream>>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .ok_or_else(|| io::ErrorKind::NotConnected.into()),
        )
    }
}
