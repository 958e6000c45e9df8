//! TLS before a server of the guest that speaks in clear, as s3s-fs does: with a certificate that is its own authority.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// Serves until it is dropped.
pub struct TlsFront {
    /// Whom to trust to reach it (PEM).
    pub authority: String,
    _runtime: Runtime,
}

impl TlsFront {
    /// Hands every connection to `at`, an address of this machine, on to `behind`.
    pub fn start(at: &str, behind: &'static str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = made.signing_key.serialize_der().try_into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                key.map_err(|wrong| anyhow!("{wrong}"))?,
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(at))?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hand_on(acceptor.clone(), stream, behind));
            }
        });
        Ok(TlsFront {
            authority: made.cert.pem(),
            _runtime: runtime,
        })
    }
}

/// Whoever does not trust us ends the connection, which is his affair.
async fn hand_on(acceptor: TlsAcceptor, stream: TcpStream, behind: &str) {
    if let Ok(mut caller) = acceptor.accept(stream).await
        && let Ok(mut server) = TcpStream::connect(behind).await
    {
        let _ = copy_bidirectional(&mut caller, &mut server).await;
    }
}
