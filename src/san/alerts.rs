//! What an array has against a certificate that it was shown. A client takes the handshake for done before it can hear that, so it comes as the failure of something else.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription};

use super::Until;
use super::sanhost::AttemptError;
use crate::fault::Fault;
use crate::tls::{ArrayIdentity, ArrayTrust};

/// Whoever has something against it says so at once.
const SOON: Duration = Duration::from_secs(1);

/// The refusal in an error, if there is one. Nothing that was sent was read then.
pub(super) fn refusal_in(error: &(dyn Error + 'static)) -> Option<AttemptError> {
    let alert = alert_in(error).filter(is_about_us)?;
    let reason = format!(
        "the array does not accept the certificate in sanCredentials (TLS alert {alert:?})"
    );
    Some(AttemptError::Refused(Fault::Denied, reason))
}

/// The refusal that a connection alone meets, for an error that has lost it: what was to be sent may end before its connection has said why.
pub(super) async fn refusal_at(
    address: &str,
    (trust, shown): (&ArrayTrust, &ArrayIdentity),
    by: Until,
) -> Option<AttemptError> {
    let config = trust.client_config(&trust.read().ok()?, Some(shown)).ok()?;
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::from(ip),
        Err(_) => ServerName::try_from(host.to_owned()).ok()?,
    };
    let greeting = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let greeted = TlsConnector::from(Arc::new(config)).connect(name, stream);
        match greeted.await {
            Err(error) => refusal_in(&error),
            Ok(mut stream) => refusal_in(&stream.read_u8().await.err()?),
        }
    };
    let by = by.min(Until::now() + SOON);
    timeout_at(by, greeting).await.ok().flatten()
}

fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let mut next = Some(error);
    while let Some(error) = next {
        // The source of an I/O error is that of its inner one, which it does not name itself.
        let inner = error.downcast_ref::<std::io::Error>();
        let inner = inner.and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let found = inner.or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = found {
            return Some(*alert);
        }
        next = error.source();
    }
    None
}

fn is_about_us(alert: &AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // The signature is not that of the authority whose name it has.
            | AlertDescription::DecryptError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("sending")]
        struct Sending(#[source] std::io::Error);
        let wrapped = |alert| {
            let alert = rustls::Error::AlertReceived(alert);
            Sending(std::io::Error::other(alert))
        };
        let refused = refusal_in(&wrapped(AlertDescription::CertificateExpired));
        let Some(AttemptError::Refused(Fault::Denied, reason)) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains("CertificateExpired"), "{reason}");
        for harmless in [
            AlertDescription::CloseNotify,
            AlertDescription::InternalError,
        ] {
            assert!(refusal_in(&wrapped(harmless)).is_none());
        }
        assert!(refusal_in(&Sending(std::io::Error::other("reset"))).is_none());
    }
}
