//! What a handshake failed by, in words that say what to look at.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::names::NameError;

/// Why the other end is not spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Handshake {
    /// Clear text, or something else.
    #[error("it does not speak TLS")]
    Clear,
    /// Of another SAN, mostly.
    #[error("its certificate is signed by no authority of our ca.crt")]
    Stranger,
    /// Too late.
    #[error("its certificate has ended, or the clock of this machine is wrong")]
    Ended,
    /// Too early.
    #[error("its certificate has not begun, or the clock of this machine is wrong")]
    NotBegun,
    /// Nothing was shown.
    #[error("it shows no certificate")]
    Nothing,
    /// A SAN's where a caller's is needed, or the other way round.
    #[error("its certificate is for the other side of such a connection")]
    Purpose,
    /// It speaks for nobody.
    #[error("its certificate is not for this")]
    Names(#[source] NameError),
    /// The other end says so.
    #[error("it does not take our certificate: {0:?}")]
    Refused(AlertDescription),
    /// Whatever else.
    #[error("the TLS handshake failed")]
    Other(#[source] io::Error),
}

impl From<io::Error> for Handshake {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Clear,
            Some(Error::NoCertificatesPresented) => Self::Nothing,
            Some(Error::AlertReceived(alert)) => Self::Refused(*alert),
            Some(Error::InvalidCertificate(certificate)) => {
                Self::of_certificate(certificate).unwrap_or(Self::Other(error))
            }
            _ => Self::Other(error),
        }
    }
}

impl Handshake {
    fn of_certificate(error: &CertificateError) -> Option<Self> {
        match error {
            CertificateError::UnknownIssuer => Some(Self::Stranger),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Some(Self::Ended)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Some(Self::NotBegun)
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Some(Self::Purpose)
            }
            CertificateError::Other(other) => {
                let names = other.0.downcast_ref::<NameError>();
                names.cloned().map(Self::Names)
            }
            _ => None,
        }
    }
}
