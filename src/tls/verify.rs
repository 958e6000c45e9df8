//! Whom each end accepts: chain and dates as webpki checks them, and on top that the certificate speaks for the right kind of bearer. On
//! either side a certificate of the other kind is refused though the same authority signed it.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use uuid::Uuid;

use super::PROTOCOL;
use super::names::{Bearer, Caller, NameError, Role, Statement};
use super::papers::Set;

/// How the SAN's side greets.
pub(super) fn server_config(set: &Set) -> Result<Arc<ServerConfig>, Error> {
    let roots = Arc::clone(&set.roots);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&set.provider));
    let chain = chain
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let builder =
        ServerConfig::builder_with_details(Arc::clone(&set.provider), Arc::clone(&set.clock));
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(CallersOnly(chain)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&set.pair))));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A resumed session would be let in on a certificate that may not be trusted any more.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whom a caller means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    San,
    Archiver,
}

/// How the caller's side greets.
pub(super) fn client_config(set: &Set, callee: Callee) -> Result<Arc<ClientConfig>, Error> {
    let builder =
        ClientConfig::builder_with_details(Arc::clone(&set.provider), Arc::clone(&set.clock));
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CalleesOnly {
            callee,
            roots: Arc::clone(&set.roots),
            provider: Arc::clone(&set.provider),
        }))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&set.pair))));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Who called. The handshake has let only callers in.
pub(super) fn caller(chain: Option<&[CertificateDer<'_>]>) -> Result<Caller, NameError> {
    match bearer(chain)? {
        Bearer::Caller(caller) => Ok(caller),
        Bearer::San(_) => Err(NameError::Nobody),
    }
}

/// Which SAN answered. The handshake has let only SANs through.
pub(super) fn san(chain: Option<&[CertificateDer<'_>]>) -> Result<Uuid, NameError> {
    match bearer(chain)? {
        Bearer::San(uuid) => Ok(uuid),
        Bearer::Caller(_) => Err(NameError::Nobody),
    }
}

/// That an archiver answered.
fn archiver(chain: Option<&[CertificateDer<'_>]>) -> Result<(), NameError> {
    match caller(chain)?.role {
        Role::Archiver => Ok(()),
        Role::Controller | Role::Operator => Err(NameError::Nobody),
    }
}

fn bearer(chain: Option<&[CertificateDer<'_>]>) -> Result<Bearer, NameError> {
    let first = chain.and_then(<[_]>::first).ok_or(NameError::Unreadable)?;
    Ok(Statement::read(first)?.bearer)
}

/// Whether `authority` has signed `certificate`, the one of a SAN, and it is good at `now`.
pub(super) fn is_signed(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
    now: SystemTime,
) -> bool {
    let mut roots = RootCertStore::empty();
    let provider = ring::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let (Ok(()), Ok(parsed), Ok(now)) = (
        roots.add(authority.clone()),
        ParsedCertificate::try_from(certificate),
        now.map(UnixTime::since_unix_epoch),
    ) else {
        return false;
    };
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms).is_ok()
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

#[derive(Debug)]
struct CallersOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for CallersOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        caller(Some(std::slice::from_ref(end_entity))).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The name that was dialled is not looked at: addresses come and go. Which SAN it is, is compared by who dialled.
#[derive(Debug)]
struct CalleesOnly {
    callee: Callee,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CalleesOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let chain = Some(std::slice::from_ref(end_entity));
        match self.callee {
            Callee::San => san(chain).map(drop),
            Callee::Archiver => archiver(chain),
        }
        .map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
