//! The files of one end: the authorities that it trusts, its certificate, its key. Looked at whenever a connection is made, so that new ones
//! need no restart. What cannot be used (half written, of another SAN, expired) is told once and changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{self, RootCertStore};
use uuid::Uuid;

use super::names::{Bearer, NameError, Statement};
use crate::fault::chain;
use crate::host::Host;

/// The authorities that the other end's certificate may come from, one after the other.
pub const CA_FILE: &str = "ca.crt";
/// This end's certificate.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// Its private key. While a new one is put in place the old one may stand before it: the one that fits the certificate counts.
pub const KEY_FILE: &str = "tls.key";

/// The kubelet replaces a whole Secret by pointing this link elsewhere.
const GENERATION: &str = "..data";
/// So long before the end of a certificate its renewal is asked for, once a day.
const NOTICE: Duration = Duration::from_hours(30 * 24);
const DAY: u64 = 24 * 60 * 60;

/// Why the files cannot be used. Never says what is in a key.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// It is not there, or the system refused.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Half written, or something else.
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// No authority.
    #[error("{} holds a certificate that is no authority's", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    /// They are not a pair.
    #[error("the key in {} is not that of {}", key.display(), certificate.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// It speaks for nobody.
    #[error("{}", path.display())]
    Names {
        /// The certificate.
        path: PathBuf,
        #[source]
        source: NameError,
    },
    /// It speaks for somebody else.
    #[error("{} is the certificate of {bearer}, and must be that of {wanted}", path.display())]
    Bearer {
        /// The certificate.
        path: PathBuf,
        /// Whose it is.
        bearer: Bearer,
        /// Whose it must be.
        wanted: String,
    },
    /// Too late.
    #[error("{} ended on {day}; a new one is needed", path.display())]
    Ended {
        /// The certificate.
        path: PathBuf,
        /// Its last day.
        day: String,
    },
    /// Too early.
    #[error("{} begins on {day}; is the clock of this machine right?", path.display())]
    NotBegun {
        /// The certificate.
        path: PathBuf,
        /// Its first day.
        day: String,
    },
}

/// Whose papers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    San(Uuid),
    Caller,
}

/// The papers of one end. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub struct Papers(Arc<Inner>);

struct Inner {
    host: Host,
    folder: PathBuf,
    wanted: Wanted,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    good: Option<(Files, Arc<Set>)>,
    /// What was told last of files that cannot be used.
    told: Option<String>,
    /// The day on which the end was told.
    noticed: u64,
}

/// The bytes of the three files. Holds a key: no `Debug`.
#[derive(PartialEq, Eq)]
struct Files {
    authorities: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What a handshake takes. Holds a key: no `Debug`.
pub(super) struct Set {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) pair: Arc<CertifiedKey>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) clock: Arc<dyn TimeProvider>,
    pub(super) statement: Statement,
}

impl PartialEq for Papers {
    fn eq(&self, other: &Self) -> bool {
        self.0.folder == other.0.folder && self.0.wanted == other.0.wanted
    }
}

impl Eq for Papers {}

impl std::fmt::Debug for Papers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Papers({})", self.0.folder.display())
    }
}

impl Papers {
    /// Those of the SAN with this uuid, in `folder`. Nothing is read yet.
    #[must_use]
    pub fn of_san(host: &Host, folder: &Path, uuid: Uuid) -> Self {
        Self::new(host, folder, Wanted::San(uuid))
    }

    /// Those of somebody who calls a SAN, in `folder`. Nothing is read yet.
    #[must_use]
    pub fn of_caller(host: &Host, folder: &Path) -> Self {
        Self::new(host, folder, Wanted::Caller)
    }

    fn new(host: &Host, folder: &Path, wanted: Wanted) -> Self {
        Self(Arc::new(Inner {
            host: host.clone(),
            folder: folder.to_owned(),
            wanted,
            last: Mutex::default(),
        }))
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Whether they can be used as they are now.
    ///
    /// # Errors
    /// See [`PapersError`].
    pub fn check(&self) -> Result<(), PapersError> {
        self.current().map(drop)
    }

    /// When the certificate ends, and its last day for people, if the files can be used as they are now.
    ///
    /// # Errors
    /// See [`PapersError`].
    pub fn end(&self) -> Result<(SystemTime, String), PapersError> {
        let set = self.current()?;
        Ok((set.statement.until, set.statement.last_day.clone()))
    }

    /// What is in force now.
    ///
    /// # Errors
    /// See [`PapersError`]; only while none were ever good.
    pub(super) fn current(&self) -> Result<Arc<Set>, PapersError> {
        let inner = &*self.0;
        let mut last = inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match inner.read() {
            Ok(files) => inner.take(&mut last, files),
            Err(error) => Err(error),
        };
        let set = match (set, &last.good) {
            (Ok(set), _) => set,
            (Err(error), None) => return Err(error),
            (Err(error), Some((_, good))) => {
                let good = Arc::clone(good);
                inner.tell(&mut last, &error);
                good
            }
        };
        inner.notice(&mut last, &set.statement);
        Ok(set)
    }
}

impl Inner {
    /// Makes `files` what is in force, if they can be used.
    fn take(&self, last: &mut Last, files: Files) -> Result<Arc<Set>, PapersError> {
        if let Some((before, good)) = &last.good
            && *before == files
        {
            last.told = None;
            return Ok(Arc::clone(good));
        }
        let set = Arc::new(self.parse(&files)?);
        if last.good.is_some() {
            tracing::info!(
                folder = %self.folder.display(),
                bearer = %set.statement.bearer,
                until = set.statement.last_day,
                authorities = set.roots.len(),
                "new certificates are in force"
            );
        }
        last.told = None;
        last.good = Some((files, Arc::clone(&set)));
        Ok(set)
    }

    fn tell(&self, last: &mut Last, error: &PapersError) {
        let reason = chain(error);
        if last.told.as_ref() != Some(&reason) {
            tracing::error!(
                folder = %self.folder.display(),
                reason,
                "the certificates cannot be used; the last good ones stay in force"
            );
            last.told = Some(reason);
        }
    }

    fn notice(&self, last: &mut Last, statement: &Statement) {
        let now = self.host.wall_clock();
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let today = since.unwrap_or_default().as_secs() / DAY;
        if now + NOTICE > statement.until && last.noticed != today {
            last.noticed = today;
            tracing::warn!(
                folder = %self.folder.display(),
                until = statement.last_day,
                "the certificate ends soon; without a new one the SAN's management ends with it"
            );
        }
    }

    fn read(&self) -> Result<Files, PapersError> {
        let generation = self.host.read_link(&self.folder.join(GENERATION));
        let folder = match generation {
            Ok(inner) => self.folder.join(inner),
            Err(_) => self.folder.clone(),
        };
        let read = |name| read(&self.host, &folder.join(name));
        Ok(Files {
            authorities: read(CA_FILE)?,
            certificate: read(CERTIFICATE_FILE)?,
            key: read(KEY_FILE)?,
        })
    }

    fn parse(&self, files: &Files) -> Result<Set, PapersError> {
        let path = self.folder.join(CERTIFICATE_FILE);
        let key = self.folder.join(KEY_FILE);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&path, &files.certificate)?;
        let statement = state(&path, &chain)?;
        self.check_bearer(&path, &statement.bearer)?;
        check_dates(&path, &statement, self.host.wall_clock())?;
        Ok(Set {
            roots: Arc::new(roots(&self.folder.join(CA_FILE), &files.authorities)?),
            pair: Arc::new(pair((&path, &chain), (&key, &files.key), &provider)?),
            provider,
            clock: Arc::new(HostClock(self.host.clone())),
            statement,
        })
    }

    fn check_bearer(&self, path: &Path, bearer: &Bearer) -> Result<(), PapersError> {
        let wanted = match (self.wanted, bearer) {
            (Wanted::San(ours), Bearer::San(named)) if ours == *named => return Ok(()),
            (Wanted::Caller, Bearer::Caller(_)) => return Ok(()),
            (Wanted::San(ours), _) => format!("SAN {ours}; make one with sanpath san renew"),
            (Wanted::Caller, _) => "a caller; make one with sanpath san issue".to_owned(),
        };
        Err(PapersError::Bearer {
            path: path.to_owned(),
            bearer: bearer.clone(),
            wanted,
        })
    }
}

/// The certificate in the file `path` with the key that fits it, of those in the other.
pub(super) fn pair(
    (path, chain): (&Path, &[CertificateDer<'static>]),
    (key, keys): (&Path, &[u8]),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, PapersError> {
    let keys = PrivateKeyDer::pem_slice_iter(keys).collect::<Result<Vec<_>, _>>();
    let keys = keys.ok().filter(|keys| !keys.is_empty());
    let keys = keys.ok_or_else(|| PapersError::Pem {
        path: key.to_owned(),
        what: "private key",
    })?;
    let mut pairs = keys
        .into_iter()
        .filter_map(|key| CertifiedKey::from_der(chain.to_vec(), key, provider).ok());
    pairs.next().ok_or_else(|| PapersError::Pair {
        certificate: path.to_owned(),
        key: key.to_owned(),
    })
}

/// The SAN that the certificate in `folder` names.
///
/// # Errors
/// See [`PapersError`].
pub fn san_named_in(host: &Host, folder: &Path) -> Result<Uuid, PapersError> {
    let path = folder.join(CERTIFICATE_FILE);
    let statement = state(&path, &certificates(&path, &read(host, &path)?)?)?;
    match statement.bearer {
        Bearer::San(uuid) => Ok(uuid),
        bearer @ Bearer::Caller(_) => Err(PapersError::Bearer {
            path,
            bearer,
            wanted: "a SAN; make one with sanpath san init".to_owned(),
        }),
    }
}

/// All certificates in this file; at least one.
///
/// # Errors
/// See [`PapersError`].
pub fn certificates_in(
    host: &Host,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, PapersError> {
    certificates(path, &read(host, path)?)
}

/// The same of what was read.
pub(super) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PapersError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| PapersError::Pem {
        path: path.to_owned(),
        what: "certificate",
    })
}

pub(super) fn read(host: &Host, path: &Path) -> Result<Vec<u8>, PapersError> {
    host.read(path).map_err(|source| PapersError::Read {
        path: path.to_owned(),
        source,
    })
}

fn state(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Statement, PapersError> {
    let first = chain.first().ok_or(NameError::Unreadable);
    let statement = first.and_then(Statement::read);
    statement.map_err(|source| PapersError::Names {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, PapersError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, pem)? {
        roots
            .add(authority)
            .map_err(|source| PapersError::Authority {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}

fn check_dates(path: &Path, statement: &Statement, now: SystemTime) -> Result<(), PapersError> {
    let path = || path.to_owned();
    if now > statement.until {
        return Err(PapersError::Ended {
            path: path(),
            day: statement.last_day.clone(),
        });
    }
    if now < statement.from {
        return Err(PapersError::NotBegun {
            path: path(),
            day: statement.first_day.clone(),
        });
    }
    Ok(())
}

/// The host's clock as TLS asks for it.
#[derive(Clone)]
pub(super) struct HostClock(pub(super) Host);

impl std::fmt::Debug for HostClock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("HostClock")
    }
}

impl TimeProvider for HostClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.0.wall_clock();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
