//! Whom we take for an array: one that shows the very certificate in `ca.crt`, or one of an authority in it, made out to the address that was
//! dialled. Arrays come with a certificate of their own making, often without the names that webpki wants; so that one can be put there as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::papers::{
    CA_FILE, CERTIFICATE_FILE, HostClock, KEY_FILE, PapersError, certificates, pair, read, roots,
};
use crate::host::Host;

/// What an array proves itself by. Looked at anew for each client that is made.
#[derive(Clone)]
pub struct ArrayTrust {
    host: Host,
    folder: PathBuf,
}

impl PartialEq for ArrayTrust {
    fn eq(&self, other: &Self) -> bool {
        self.folder == other.folder
    }
}

impl Eq for ArrayTrust {}

impl std::fmt::Debug for ArrayTrust {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ArrayTrust({})", self.folder.display())
    }
}

impl ArrayTrust {
    /// That of `ca.crt` in `folder`. Nothing is read yet.
    #[must_use]
    pub fn new(host: &Host, folder: &Path) -> Self {
        Self {
            host: host.clone(),
            folder: folder.to_owned(),
        }
    }

    /// What the file holds now.
    ///
    /// # Errors
    /// [`PapersError::Read`].
    pub fn read(&self) -> Result<Vec<u8>, PapersError> {
        read(&self.host, &self.path())
    }

    /// How a client greets that trusts the certificates in `pem`, which was read here, and shows `shown`.
    ///
    /// # Errors
    /// See [`PapersError`].
    pub fn client_config(
        &self,
        pem: &[u8],
        shown: Option<&ArrayIdentity>,
    ) -> Result<ClientConfig, PapersError> {
        let path = self.path();
        let unusable = |source: Error| PapersError::Authority {
            path: path.clone(),
            source,
        };
        let provider = Arc::new(ring::default_provider());
        let authorities = Arc::new(roots(&path, pem)?);
        let chain = WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider));
        let chain = chain
            .build()
            .map_err(|error| unusable(Error::General(error.to_string())))?;
        let verifier = Arc::new(Pinned {
            pinned: certificates(&path, pem)?,
            chain,
        });
        let clock = Arc::new(HostClock(self.host.clone()));
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), clock);
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let pair = SingleCertAndKey::from(shown.pair(&provider)?);
                builder.with_client_cert_resolver(Arc::new(pair))
            }
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(CA_FILE)
    }
}

/// What an array that knows its accounts by certificates is shown: what stood in `tls.crt` and `tls.key`. Holds a key, which no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct ArrayIdentity {
    folder: PathBuf,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ArrayIdentity {
    /// Of what was read from these files in `folder`. Looked at when it is used.
    #[must_use]
    pub fn new(folder: &Path, certificate: Vec<u8>, key: Vec<u8>) -> Self {
        Self {
            folder: folder.to_owned(),
            certificate,
            key,
        }
    }

    fn pair(&self, provider: &CryptoProvider) -> Result<CertifiedKey, PapersError> {
        let path = self.folder.join(CERTIFICATE_FILE);
        let chain = certificates(&path, &self.certificate)?;
        let key = self.folder.join(KEY_FILE);
        pair((&path, &chain), (&key, &self.key), provider)
    }
}

impl std::fmt::Debug for ArrayIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ArrayIdentity({})", self.folder.display())
    }
}

/// How a client greets that trusts nobody: for one that speaks in clear, and must have a TLS all the same.
///
/// # Errors
/// As rustls has it.
pub fn trust_nobody() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// A certificate that was put there by hand needs no chain, name or date; the handshake proves that its key is on the other end.
#[derive(Debug)]
struct Pinned {
    pinned: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
