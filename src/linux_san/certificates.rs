//! The certificates of this SAN and of those who call it: made, exchanged and retired in the state directory, by commands of the operator that the
//! running daemon takes note of at the next connection.
//!
//! ```text
//! STATE/ca/ca.pem                       the authority that signs, with its key; may be kept elsewhere between two uses
//! STATE/ca/next.pem                     the one that follows it, while a rotation is being made
//! STATE/tls/ca.crt  tls.crt  tls.key    what the daemon shows and trusts
//! ```
//!
//! Every command may be cut off at any step and repeated. The invariants: the daemon trusts an authority before that one signs anything, and at every
//! step the certificate has its key beside it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::format::FormatError;
use super::state_file::StateFile;
use crate::host::{Host, LockGuard};
use crate::tls::{
    Authority, AuthorityError, Bearer, CA_FILE, CERTIFICATE_FILE, Caller, KEY_FILE, Lifetime, Made,
    PapersError, certificates_in, san_named_in,
};

/// X.520 allows a common name as many.
const LONGEST_NAME: usize = 64;
/// Another command takes a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why certificates are not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// They are there.
    #[error("{} is there already: this SAN has its certificates; exchange them with sanpath san renew or rotate", .0.display())]
    Made(PathBuf),
    /// They are not there.
    #[error("{} is not there: run sanpath san init first", .0.display())]
    NotMade(PathBuf),
    /// Nothing is overwritten.
    #[error("{} is there already and is not overwritten; name another folder with --out", .0.display())]
    Exists(PathBuf),
    /// In logs it must be one word.
    #[error("{0:?} is not a name: write 1 to {LONGEST_NAME} of A-Z, a-z, 0-9, '.', '_' and '-'")]
    Name(String),
    /// One exchange after the other.
    #[error(
        "this SAN trusts {0} authorities: end the rotation that is under way with sanpath san retire"
    )]
    Rotating(usize),
    /// Callers that have forgotten the old authority could not call any more.
    #[error("the certificate of the SAN is still of an old authority: run sanpath san renew first")]
    StillOld,
    /// There is only one.
    #[error("this SAN trusts one authority only, and it is the one that signs: nothing to retire")]
    NothingOld,
    /// Another command is at work.
    #[error("another command makes certificates here: it holds {}", .0.display())]
    Busy(PathBuf),
    /// The system refused.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The authority.
    #[error("{}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        #[source]
        source: AuthorityError,
    },
    /// What is there already.
    #[error("the certificates that are there")]
    Papers(#[from] PapersError),
    /// It knows who the SAN is.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Where: `ca.crt`, `tls.crt` and `tls.key`.
    pub folder: PathBuf,
    /// For whom.
    pub bearer: Bearer,
    /// Until which day.
    pub last_day: String,
    /// Who signed.
    pub authority: String,
    /// How many authorities are trusted beside it, itself included.
    pub authorities: usize,
}

/// The certificates of one SAN.
pub struct Certificates {
    host: Host,
    state_dir: PathBuf,
}

impl Certificates {
    /// Those in this state directory.
    #[must_use]
    pub fn new(host: &Host, state_dir: &Path) -> Self {
        Self {
            host: host.clone(),
            state_dir: state_dir.to_owned(),
        }
    }

    /// What the daemon shows and trusts.
    #[must_use]
    pub fn folder_in(state_dir: &Path) -> PathBuf {
        state_dir.join("tls")
    }

    /// Makes an authority and the SAN's own certificate. Before the first start it also settles who the SAN is.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn init(&self, lifetime: Lifetime) -> Result<Issued, CertificatesError> {
        self.ensure_private(&self.state_dir)?;
        let _alone = self.lock()?;
        let made = self.file(CERTIFICATE_FILE);
        if self.is_there(&made)? {
            return Err(CertificatesError::Made(made));
        }
        self.ensure_private(&self.folder())?;
        self.ensure_private(&self.state_dir.join("ca"))?;
        let authority = self.ensure_authority(&self.signing())?;
        self.ensure_trusted(&authority)?;
        let uuid = self.find_known()?.unwrap_or_else(Uuid::new_v4);
        self.put_own(&authority, uuid, lifetime)
    }

    /// Makes a certificate for somebody who is to call this SAN, in a folder of its own.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn issue(
        &self,
        caller: Caller,
        out: &Path,
        lifetime: Lifetime,
    ) -> Result<Issued, CertificatesError> {
        check_name(&caller.name)?;
        let authority = self.authority()?;
        let trusted = self.trusted()?;
        for name in [CA_FILE, KEY_FILE, CERTIFICATE_FILE] {
            let path = out.join(name);
            if self.is_there(&path)? {
                return Err(CertificatesError::Exists(path));
            }
        }
        let bearer = Bearer::Caller(caller);
        let made = self.certify(&authority, &bearer, lifetime)?;
        self.ensure_private(out)?;
        self.write(&out.join(CA_FILE), trusted.as_bytes())?;
        self.write(&out.join(KEY_FILE), made.key.as_bytes())?;
        self.write(&out.join(CERTIFICATE_FILE), made.certificate.as_bytes())?;
        Ok(Issued {
            folder: out.to_owned(),
            bearer,
            last_day: made.last_day,
            authority: authority.name,
            authorities: count(&trusted),
        })
    }

    /// Makes a new certificate for the SAN itself.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn renew(&self, lifetime: Lifetime) -> Result<Issued, CertificatesError> {
        let _alone = self.lock()?;
        let authority = self.authority()?;
        self.put_own(&authority, self.san_uuid()?, lifetime)
    }

    /// Who this SAN is: by its state, or, before its first start, by its certificate.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn san_uuid(&self) -> Result<Uuid, CertificatesError> {
        match self.find_known()? {
            Some(uuid) => Ok(uuid),
            None => Ok(san_named_in(&self.host, &self.folder())?),
        }
    }

    /// Puts a second authority beside the first: both are trusted, and the new one signs from now on. Returns its name.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn rotate(&self) -> Result<String, CertificatesError> {
        let _alone = self.lock()?;
        self.authority()?;
        let next = self.state_dir.join("ca").join("next.pem");
        let trusted = count(&self.trusted()?);
        if trusted > 1 && !self.is_there(&next)? {
            return Err(CertificatesError::Rotating(trusted));
        }
        let authority = self.ensure_authority(&next)?;
        self.ensure_trusted(&authority)?;
        self.write(&self.signing(), authority.file().as_bytes())?;
        self.host
            .remove_file(&next)
            .map_err(|source| CertificatesError::Write { path: next, source })?;
        Ok(authority.name)
    }

    /// Trusts the authority that signs and no other. Returns how many were trusted before.
    ///
    /// # Errors
    /// See [`CertificatesError`].
    pub fn retire(&self) -> Result<usize, CertificatesError> {
        let _alone = self.lock()?;
        let authority = self.authority()?;
        let before = count(&self.trusted()?);
        if before < 2 {
            return Err(CertificatesError::NothingOld);
        }
        let own = self.file(CERTIFICATE_FILE);
        let own = certificates_in(&self.host, &own)?;
        if !own
            .iter()
            .all(|certificate| authority.signed(certificate, self.host.wall_clock()))
        {
            return Err(CertificatesError::StillOld);
        }
        self.write(&self.file(CA_FILE), authority.pem.as_bytes())?;
        Ok(before)
    }

    fn folder(&self) -> PathBuf {
        Self::folder_in(&self.state_dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn signing(&self) -> PathBuf {
        self.state_dir.join("ca").join("ca.pem")
    }

    fn lock(&self) -> Result<LockGuard, CertificatesError> {
        let path = self.state_dir.join("certificates.lock");
        if !self.is_there(&self.state_dir)? {
            return Err(CertificatesError::NotMade(self.state_dir.clone()));
        }
        let held = self.host.lock(&path, self.host.deadline_in(PATIENCE));
        match held {
            Ok(Some(held)) => Ok(held),
            Ok(None) => Err(CertificatesError::Busy(path)),
            Err(source) => Err(CertificatesError::Write { path, source }),
        }
    }

    /// Who the SAN is, once it was started.
    fn find_known(&self) -> Result<Option<Uuid>, CertificatesError> {
        let state = StateFile::find(&self.host, &self.state_dir)?;
        Ok(state.map(|state| state.read(|state| state.san_uuid.uuid())))
    }

    fn authority(&self) -> Result<Authority, CertificatesError> {
        let path = self.signing();
        if !self.is_there(&path)? {
            return Err(CertificatesError::NotMade(path));
        }
        self.read_authority(&path)
    }

    fn read_authority(&self, path: &Path) -> Result<Authority, CertificatesError> {
        let read = Authority::read(&self.host, path);
        read.map_err(|source| authority_error(path, source))
    }

    /// The authority in this file, made unless a command that was cut off has made it.
    fn ensure_authority(&self, path: &Path) -> Result<Authority, CertificatesError> {
        if self.is_there(path)? {
            return self.read_authority(path);
        }
        let made = Authority::make(self.host.wall_clock());
        let made = made.map_err(|source| authority_error(path, source))?;
        self.write(path, made.file().as_bytes())?;
        Ok(made)
    }

    /// The certificates of the authorities that the daemon trusts.
    fn trusted(&self) -> Result<String, CertificatesError> {
        let path = self.file(CA_FILE);
        if !self.is_there(&path)? {
            return Ok(String::new());
        }
        let read = |source| PapersError::Read {
            path: path.clone(),
            source,
        };
        let bytes = self.host.read(&path).map_err(read)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn ensure_trusted(&self, authority: &Authority) -> Result<(), CertificatesError> {
        let trusted = self.trusted()?;
        if trusted.contains(authority.pem.trim()) {
            return Ok(());
        }
        let both = format!("{trusted}{}", authority.pem);
        self.write(&self.file(CA_FILE), both.as_bytes())
    }

    /// Puts a certificate of the SAN's own in place. The new key stands beside the old one until the certificate has changed.
    fn put_own(
        &self,
        authority: &Authority,
        uuid: Uuid,
        lifetime: Lifetime,
    ) -> Result<Issued, CertificatesError> {
        let bearer = Bearer::San(uuid);
        let made = self.certify(authority, &bearer, lifetime)?;
        let key = self.file(KEY_FILE);
        let mut both = made.key.as_bytes().to_vec();
        if self.is_there(&key)? {
            let read = |source| PapersError::Read {
                path: key.clone(),
                source,
            };
            both.extend(self.host.read(&key).map_err(read)?);
        }
        self.write(&key, &both)?;
        let certificate = self.file(CERTIFICATE_FILE);
        self.write(&certificate, made.certificate.as_bytes())?;
        self.write(&key, made.key.as_bytes())?;
        Ok(Issued {
            folder: self.folder(),
            bearer,
            last_day: made.last_day,
            authority: authority.name.clone(),
            authorities: count(&self.trusted()?),
        })
    }

    fn certify(
        &self,
        authority: &Authority,
        bearer: &Bearer,
        lifetime: Lifetime,
    ) -> Result<Made, CertificatesError> {
        let made = authority.certify(bearer, self.host.wall_clock(), lifetime);
        made.map_err(|source| authority_error(&self.signing(), source))
    }

    fn is_there(&self, path: &Path) -> Result<bool, CertificatesError> {
        let found = self.host.find_stat(path);
        let found = found.map_err(|source| PapersError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(found.is_some())
    }

    fn ensure_private(&self, path: &Path) -> Result<(), CertificatesError> {
        let made = self.host.ensure_private_directory(path);
        made.map_err(|source| CertificatesError::Write {
            path: path.to_owned(),
            source,
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CertificatesError> {
        let written = self.host.replace_file(path, bytes);
        written.map_err(|source| CertificatesError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

fn authority_error(path: &Path, source: AuthorityError) -> CertificatesError {
    CertificatesError::Authority {
        path: path.to_owned(),
        source,
    }
}

fn count(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

fn check_name(name: &str) -> Result<(), CertificatesError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(CertificatesError::Name(name.to_owned()))
    }
}
