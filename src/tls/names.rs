//! What a certificate says of its bearer. Every certificate of ours says one thing: `UUID.san.sanpath`, a DNS name, in that of a SAN, or
//! `sanpath:role/ROLE`, a URI, in that of a caller. Other names beside it mean nothing here.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// What follows the uuid in the DNS name of a SAN.
const SAN_DOMAIN: &str = ".san.sanpath";
/// What stands before the role in the URI of a caller.
const ROLE_SCHEME: &str = "sanpath:role/";

/// What a caller may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Makes, exports and deletes volumes.
    Controller,
    /// Carries the content of volumes away; the controller gives it what it reads.
    Archiver,
    /// A person who looks.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Controller, Self::Archiver, Self::Operator];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Archiver => "archiver",
            Self::Operator => "operator",
        }
    }

    /// The role of this word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Somebody who calls a SAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As what.
    pub role: Role,
    /// Its own name, for people.
    pub name: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:?}", self.role, self.name)
    }
}

/// Whom a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A SAN.
    San(Uuid),
    /// Somebody who calls one.
    Caller(Caller),
}

impl fmt::Display for Bearer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::San(uuid) => write!(out, "SAN {uuid}"),
            Self::Caller(caller) => caller.fmt(out),
        }
    }
}

/// Why a certificate speaks for nobody that we know.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// No certificate at all.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// Made for something else.
    #[error("the certificate names neither a SAN nor a role of a caller")]
    Nobody,
    /// A role that a later version may know.
    #[error(
        "the certificate names the role {0:?}; this version knows controller, archiver and operator"
    )]
    UnknownRole(String),
    /// Which one counts would be a guess.
    #[error("the certificate names more than one SAN or role")]
    Several,
}

/// What we read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) bearer: Bearer,
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
    /// The days of both, in UTC, for people.
    pub(super) first_day: String,
    pub(super) last_day: String,
}

impl Statement {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| NameError::Unreadable)?;
        let validity = parsed.validity();
        Ok(Self {
            bearer: bearer(&parsed)?,
            from: moment(&validity.not_before),
            until: moment(&validity.not_after),
            first_day: day(&validity.not_before),
            last_day: day(&validity.not_after),
        })
    }
}

/// Common name and last day of any certificate.
pub(super) fn described(certificate: &CertificateDer<'_>) -> Result<(String, String), NameError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Unreadable)?;
    Ok((common_name(&parsed), day(&parsed.validity().not_after)))
}

/// When a certificate ends.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> Result<SystemTime, NameError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Unreadable)?;
    Ok(moment(&parsed.validity().not_after))
}

/// The DNS name in the certificate of a SAN.
pub(super) fn san_name(uuid: Uuid) -> String {
    format!("{uuid}{SAN_DOMAIN}")
}

/// The URI in the certificate of a caller.
pub(super) fn role_name(role: Role) -> String {
    format!("{ROLE_SCHEME}{role}")
}

fn bearer(certificate: &X509Certificate<'_>) -> Result<Bearer, NameError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| NameError::Unreadable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut found = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => san_in(name).map(|uuid| Ok(Bearer::San(uuid))),
        GeneralName::URI(uri) => {
            let word = uri.strip_prefix(ROLE_SCHEME)?;
            let caller = |role| {
                Bearer::Caller(Caller {
                    role,
                    name: common_name(certificate),
                })
            };
            let unknown = || NameError::UnknownRole(word.to_owned());
            Some(Role::find(word).map(caller).ok_or_else(unknown))
        }
        _ => None,
    });
    match (found.next(), found.next()) {
        (None, _) => Err(NameError::Nobody),
        (Some(one), None) => one,
        (Some(_), Some(_)) => Err(NameError::Several),
    }
}

fn san_in(name: &str) -> Option<Uuid> {
    let uuid = Uuid::parse_str(name.strip_suffix(SAN_DOMAIN)?).ok()?;
    // Of the ways to write a uuid only ours.
    (san_name(uuid) == name).then_some(uuid)
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

fn moment(time: &ASN1Time) -> SystemTime {
    let since = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(since)
}

fn day(time: &ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    fn golden(pem: &str) -> Statement {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Statement::read(&certificate).unwrap()
    }

    /// They were made once by `sanpath san init` and `issue`; callers and SANs have such ones for years.
    #[test]
    fn certificates_of_the_first_version_are_read_for_ever() {
        let san = golden(include_str!("golden/san-1.crt"));
        let uuid = Uuid::parse_str("6ba7b810-9dad-41d1-80b4-00c04fd430c8").unwrap();
        assert_eq!(san.bearer, Bearer::San(uuid));
        for (pem, role) in [
            (include_str!("golden/controller-1.crt"), Role::Controller),
            (include_str!("golden/archiver-1.crt"), Role::Archiver),
            (include_str!("golden/operator-1.crt"), Role::Operator),
        ] {
            let name = format!("{role}-of-old");
            let caller = golden(pem);
            assert_eq!(caller.bearer, Bearer::Caller(Caller { role, name }));
            assert!(caller.first_day < caller.last_day);
        }
    }

    proptest! {
        #[test]
        fn a_spoilt_certificate_is_read_or_refused(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let pem = include_str!("golden/controller-1.crt");
            let good = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let mut bytes = good.to_vec();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Statement::read(&CertificateDer::from(&bytes[..cut.index(bytes.len())]));
            let _ = Statement::read(&CertificateDer::from(bytes));
        }
    }

    #[test]
    fn only_our_way_of_writing_a_uuid_names_a_san() {
        let uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        assert!(san_in(&format!("{uuid}.san.sanpath")).is_some());
        for wrong in [
            uuid.to_owned(),
            format!("{}.san.sanpath", uuid.replace('-', "")),
            format!("{}.san.sanpath", uuid.to_uppercase()),
            format!("{uuid}.san.sanpath.example"),
            "san.sanpath".to_owned(),
            "*.san.sanpath".to_owned(),
        ] {
            assert_eq!(san_in(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(Role::find(role.as_str()), Some(role));
        }
        assert_eq!(Role::find("root"), None);
    }
}
