//! An authority that signs: one file with its key and its certificate, so that both change at once. And the certificates that it makes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::names::{self, Bearer, NameError, Role};
use super::papers::{self, PapersError};
use super::verify;
use crate::host::Host;

const DAY: Duration = Duration::from_hours(24);
/// Of an authority. Two overlap while one is exchanged, whenever the operator wants.
const AUTHORITY_LIFE: Duration = Duration::from_hours(3650 * 24);
/// Certificates begin earlier than they were made: clocks of two machines differ.
const BACKDATED: Duration = DAY;

/// Why an authority cannot be made, read, or sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its file.
    #[error("the authority")]
    File(#[from] PapersError),
    /// It holds no key.
    #[error("{} holds no private key that can sign", .0.display())]
    Key(PathBuf),
    /// Its certificate.
    #[error("the authority's certificate")]
    Names(#[from] NameError),
    /// It has no time left to give.
    #[error("the authority ended on {0}; make another one with sanpath san rotate")]
    Ended(String),
    /// The library refused.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
}

/// How long a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// This many days from now.
    #[must_use]
    pub const fn days(count: u32) -> Self {
        Self(Duration::from_hours(24 * count as u64))
    }
}

/// A key and a certificate that were made, in PEM form. Holds a key: no `Debug`.
pub struct Made {
    /// The private key.
    pub key: String,
    /// The certificate.
    pub certificate: String,
    /// Until which day it is good.
    pub last_day: String,
}

/// One that can sign. Holds a key: no `Debug`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Its certificate in PEM form.
    pub pem: String,
    /// Its name.
    pub name: String,
    ends: SystemTime,
    last_day: String,
    key: String,
}

impl Authority {
    /// A new one, under a name of its own.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn make(now: SystemTime) -> Result<Self, AuthorityError> {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let tag: String = random.chars().take(8).collect();
        let mut params = params(&format!("sanpath CA {tag}"), now, now + AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        Self::new(certificate.der().clone(), certificate.pem(), key)
    }

    /// The one in this file.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn read(host: &Host, path: &Path) -> Result<Self, AuthorityError> {
        let bytes = papers::read(host, path)?;
        let pem = papers::certificates(path, &bytes)?;
        let no_key = || AuthorityError::Key(path.to_owned());
        let text = String::from_utf8(bytes).map_err(|_| no_key())?;
        let (key, certificate) = halves(&text).ok_or_else(no_key)?;
        let key = KeyPair::from_pem(key).map_err(|_| no_key())?;
        let certificate_pem = certificate.to_owned();
        let first = pem.into_iter().next().ok_or(NameError::Unreadable)?;
        Self::new(first, certificate_pem, key)
    }

    fn new(
        certificate: CertificateDer<'static>,
        pem: String,
        key: KeyPair,
    ) -> Result<Self, AuthorityError> {
        let (name, last_day) = names::described(&certificate)?;
        let ends = names::end_of(&certificate)?;
        let key_pem = key.serialize_pem();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Make)?;
        Ok(Self {
            issuer,
            certificate,
            pem,
            name,
            ends,
            last_day,
            key: key_pem,
        })
    }

    /// What its file holds: the key, then the certificate.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}{}", self.key, self.pem)
    }

    /// Whether it has signed this certificate, and that of a SAN.
    #[must_use]
    pub fn signed(&self, certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
        verify::is_signed(certificate, &self.certificate, now)
    }

    /// A key and a certificate for `bearer`; no longer good than the authority itself.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn certify(
        &self,
        bearer: &Bearer,
        now: SystemTime,
        lifetime: Lifetime,
    ) -> Result<Made, AuthorityError> {
        if now >= self.ends {
            return Err(AuthorityError::Ended(self.last_day.clone()));
        }
        let until = (now + lifetime.0).min(self.ends);
        let mut params = match bearer {
            Bearer::San(uuid) => params(&format!("SAN {uuid}"), now, until),
            Bearer::Caller(caller) => params(&caller.name, now, until),
        };
        let (name, usages) = match bearer {
            Bearer::San(uuid) => (san(*uuid)?, vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Bearer::Caller(caller) => (role(caller.role)?, usages(caller.role)),
        };
        params.subject_alt_names = vec![name];
        params.extended_key_usages = usages;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.map_err(AuthorityError::Make)?;
        let (_, last_day) = names::described(certificate.der())?;
        Ok(Made {
            key: key.serialize_pem(),
            certificate: certificate.pem(),
            last_day,
        })
    }
}

/// The key and the certificate of an authority's file; the key comes first.
fn halves(text: &str) -> Option<(&str, &str)> {
    let at = text.find("-----BEGIN CERTIFICATE-----")?;
    Some(text.split_at(at))
}

fn params(name: &str, now: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATED).into();
    params.not_after = until.into();
    params
}

fn san(uuid: uuid::Uuid) -> Result<SanType, AuthorityError> {
    let name = names::san_name(uuid).try_into();
    name.map(SanType::DnsName).map_err(AuthorityError::Make)
}

/// An archiver is called as well.
fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Archiver => vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ],
        Role::Controller | Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn role(role: Role) -> Result<SanType, AuthorityError> {
    let name = names::role_name(role).try_into();
    name.map(SanType::URI).map_err(AuthorityError::Make)
}

#[cfg(test)]
impl Authority {
    /// A certificate of any form.
    pub(super) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}
