//! A real object store behind [`Objects`]: an S3 bucket or a directory, by the `object_store` crate. Every call has a deadline; what may pass is tried
//! again with growing pauses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_stream::StreamExt;

use super::cipher::{Cipher, Locked};
use super::names::{CLOCK, FORMAT};
use super::store::{Listed, Objects, Put, StoreError};
use crate::config::{
    Archive, ArchiveKind, ArchiveName, CredentialsError, S3, read_archive_key, read_s3_keys,
};
use crate::fault::{Fault, Faulted};
use crate::host::Host;

/// A connection is made within this time, or the address is not served.
const CONNECT: Duration = Duration::from_secs(10);
/// One request: a chunk of 1 MiB at 20 KiB/s.
const REQUEST: Duration = Duration::from_mins(1);
/// One call with all that is tried again.
const CALL: Duration = Duration::from_mins(3);
/// Before a put that was cut off is sent again.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];
/// The first call fails sooner: somebody waits to hear what is wrong with the config.
const FIRST_TRIES: usize = 1;
const TRIES: usize = 8;
/// Where systems keep the authorities that they trust.
const SYSTEM_CA: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why an archive cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The authority cannot be read.
    #[error("archives.{archive}.ca: {} {reason}", path.display())]
    Ca {
        /// Whose.
        archive: ArchiveName,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What should be its key is none.
    #[error(
        "archives.{archive}.encryptionKey: {} does not hold 64 lower-case hexadecimal digits; `openssl rand -hex 32` makes a key", path.display()
    )]
    Key {
        /// Whose.
        archive: ArchiveName,
        /// Which file.
        path: PathBuf,
    },
    /// The settings do not make a client.
    #[error("archives.{archive}: {reason}")]
    Settings {
        /// Whose.
        archive: ArchiveName,
        /// What is wrong.
        reason: String,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Faulted for OpenError {
    fn fault(&self) -> Fault {
        match self {
            Self::Credentials(error) => error.fault(),
            Self::Ca { .. } | Self::Key { .. } | Self::Settings { .. } => Fault::Precondition,
            Self::Store(error) => error.fault(),
        }
    }
}

/// An open object store. Its calls must not be made from an async runtime's threads.
pub type Bucket = Locked<Store>;

/// An object store as it is, without the archive's key.
pub struct Store {
    /// For people.
    place: String,
    /// Before each name; empty or ending with a slash.
    prefix: String,
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl Bucket {
    /// Opens the store of `archive`, called `name`, and asks it once.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(host: &Host, name: &ArchiveName, archive: &Archive) -> Result<Self, OpenError> {
        let cipher = match &archive.encryption_key {
            Some(path) => Some(read_cipher(host, name, path)?),
            None => None,
        };
        let inner = match &archive.kind {
            ArchiveKind::Directory(path) => Store::directory(path)?,
            ArchiveKind::S3(s3) => Store::open(host, name, s3)?,
        };
        Ok(Self { inner, cipher })
    }

    /// The store in the directory `path`, which must be there; not encrypted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn directory(path: &Path) -> Result<Self, StoreError> {
        let inner = Store::directory(path)?;
        Ok(Self {
            inner,
            cipher: None,
        })
    }

    /// The same with a key.
    #[must_use]
    pub fn with_cipher(self, cipher: Cipher) -> Self {
        Self {
            cipher: Some(cipher),
            ..self
        }
    }

    /// Which store it is, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.inner.place
    }
}

/// The key of the archive `name`, from the file `path`.
///
/// # Errors
/// See [`OpenError`].
pub fn read_cipher(host: &Host, name: &ArchiveName, path: &Path) -> Result<Cipher, OpenError> {
    let key = read_archive_key(host, name, path)?;
    Cipher::find(&key).ok_or_else(|| OpenError::Key {
        archive: name.clone(),
        path: path.to_owned(),
    })
}

impl Store {
    fn open(host: &Host, name: &ArchiveName, s3: &S3) -> Result<Self, OpenError> {
        let settings = |reason: String| OpenError::Settings {
            archive: name.clone(),
            reason,
        };
        let runtime = runtime().map_err(|error| settings(error.to_string()))?;
        let client = client(host, name, s3)?;
        let keys = read_s3_keys(host, name, &s3.credentials)?;
        let made = |tries: usize| {
            let mut builder = AmazonS3Builder::new()
                .with_endpoint(&s3.endpoint)
                .with_region(&s3.region)
                .with_bucket_name(&s3.bucket)
                .with_access_key_id(&keys.access_key)
                .with_secret_access_key(keys.secret.expose())
                .with_virtual_hosted_style_request(!s3.path_style)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_disable_bulk_delete(true)
                .with_allow_http(s3.endpoint.starts_with("http://"))
                .with_http_connector(client.clone())
                .with_retry(retry(tries));
            if let Some(token) = &keys.token {
                builder = builder.with_token(token.expose());
            }
            builder.build().map_err(|error| settings(error.to_string()))
        };
        let mut bucket = Self {
            place: format!("bucket {} at {}", s3.bucket, s3.endpoint),
            prefix: s3.prefix.clone(),
            store: Box::new(made(FIRST_TRIES)?),
            runtime,
        };
        // In a bucket that is not there, s3s-fs only misses the object.
        if bucket.find(FORMAT)?.is_none() {
            bucket.list(CLOCK, &mut |_| {})?;
        }
        bucket.store = Box::new(made(TRIES)?);
        Ok(bucket)
    }

    fn directory(path: &Path) -> Result<Self, StoreError> {
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|_| StoreError::NoDirectory(path.display().to_string()))?;
        let runtime = runtime().map_err(|error| StoreError::Unreachable {
            place: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            place: path.display().to_string(),
            prefix: String::new(),
            store: Box::new(store.with_automatic_cleanup(true).with_fsync(true)),
            runtime,
        })
    }

    fn location(&self, name: &str) -> Result<Location, StoreError> {
        Location::parse(format!("{}{name}", self.prefix)).map_err(|error| StoreError::Unreachable {
            place: self.place.clone(),
            reason: error.to_string(),
        })
    }

    fn put_once(&self, location: &Location, payload: PutPayload) -> Result<Put, StoreError> {
        use object_store::Error::{AlreadyExists, Precondition};
        let put = self
            .store
            .put_opts(location, payload, PutMode::Create.into());
        match self.call("a put", put)? {
            Ok(_) => Ok(Put::Made),
            Err(AlreadyExists { .. } | Precondition { .. }) => Ok(Put::WasThere),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    fn call<T>(
        &self,
        what: &str,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Result<T, object_store::Error>, StoreError> {
        let done = self
            .runtime
            .block_on(async { tokio::time::timeout(CALL, work).await });
        done.map_err(|_| StoreError::Timeout {
            place: self.place.clone(),
            what: what.to_owned(),
            seconds: CALL.as_secs(),
        })
    }

    fn wrong(&self, error: &object_store::Error) -> StoreError {
        let place = self.place.clone();
        let told = crate::fault::chain(error);
        let reason = reason_in(error);
        if told.contains("NoSuchBucket") {
            return StoreError::NoBucket { place };
        }
        if told.contains("invalid peer certificate") {
            return StoreError::Certificate { place, reason };
        }
        match error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => StoreError::Denied { place, reason },
            _ => StoreError::Unreachable { place, reason },
        }
    }
}

impl Objects for Store {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        let location = self.location(name)?;
        let payload = PutPayload::from(content);
        let begun = Instant::now();
        for pause in PAUSES {
            match self.put_once(&location, payload.clone()) {
                // Cut off in the middle, which the crate does not try again: it may have been done. Each connection that was kept open fails so once.
                Err(StoreError::Unreachable { .. }) if begun.elapsed() < CALL => {}
                put => return put,
            }
            self.runtime
                .block_on(async { tokio::time::sleep(pause).await });
        }
        self.put_once(&location, payload)
    }

    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let location = self.location(name)?;
        let got = self.call("a get", async {
            self.store.get(&location).await?.bytes().await
        });
        match got? {
            Ok(content) => Ok(Some(content.into())),
            Err(error @ object_store::Error::NotFound { .. }) => match self.wrong(&error) {
                missing @ StoreError::NoBucket { .. } => Err(missing),
                _ => Ok(None),
            },
            Err(error) => Err(self.wrong(&error)),
        }
    }

    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        let location = self.location(under)?;
        let mut found = self.store.list(Some(&location));
        loop {
            // One page at a time has the deadline.
            let next = self.call("a list", async { found.next().await.transpose() })?;
            let Some(meta) = next.map_err(|error| self.wrong(&error))? else {
                return Ok(());
            };
            if let Some(name) = meta.location.as_ref().strip_prefix(&self.prefix) {
                let wants_more = show(Listed {
                    name: name.to_owned(),
                    size: meta.size,
                    modified: meta.last_modified.into(),
                });
                if !wants_more {
                    return Ok(());
                }
            }
        }
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let location = self.location(name)?;
        match self.call("a delete", self.store.delete(&location))? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.wrong(&error)),
        }
    }
}

/// Shows no more than the place.
impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Bucket({})", self.place)
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("archive")
        .enable_all()
        .build()
}

fn retry(tries: usize) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(15),
            base: 2.0,
        },
        max_retries: tries,
        retry_timeout: CALL,
    }
}

/// What an S3 error says of itself, else what lies at its bottom.
fn reason_in(error: &object_store::Error) -> String {
    let told = crate::fault::chain(error);
    let element = |name: &str| {
        let (_, rest) = told.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    if let Some(code) = element("Code") {
        return code;
    }
    let mut bottom: &dyn std::error::Error = error;
    while let Some(inner) = bottom.source() {
        bottom = inner;
    }
    bottom.to_string().chars().take(200).collect()
}

/// A client whose TLS is ours: rustls with ring, and the authorities of the config.
#[derive(Clone, Debug)]
struct Client(reqwest::Client);

impl HttpConnector for Client {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn client(host: &Host, name: &ArchiveName, s3: &S3) -> Result<Client, OpenError> {
    let settings = |reason: String| OpenError::Settings {
        archive: name.clone(),
        reason,
    };
    let roots = if s3.endpoint.starts_with("http://") {
        RootCertStore::empty()
    } else {
        roots(host, name, s3)?
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| settings(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .build()
        .map_err(|error| settings(crate::fault::chain(&error)))?;
    Ok(Client(client))
}

fn roots(host: &Host, name: &ArchiveName, s3: &S3) -> Result<RootCertStore, OpenError> {
    let wrong = |path: &Path, reason: String| OpenError::Ca {
        archive: name.clone(),
        path: path.to_owned(),
        reason,
    };
    let (path, pem) = match &s3.ca {
        Some(path) => {
            let pem = host.read(path);
            (path.clone(), pem.map_err(|error| wrong(path, format!("cannot be read: {error}")))?)
        }
        None => SYSTEM_CA
            .iter()
            .find_map(|path| Some((PathBuf::from(path), host.read(Path::new(path)).ok()?)))
            .ok_or_else(|| {
                wrong(
                    Path::new(SYSTEM_CA[0]),
                    "is not on this system; set ca to the file of the authority that the store's certificate is of".to_owned(),
                )
            })?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        // A system's bundle may hold one that rustls does not take; the others serve.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(wrong(&path, "holds no certificate (PEM)".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection};

    /// The port of a server that proves itself by a certificate of its own, and that certificate. It ends every connection after the handshake.
    fn stranger() -> (u16, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let _ = connection.complete_io(&mut stream.unwrap());
            }
        });
        (port, made.cert.pem())
    }

    #[test]
    fn a_store_that_does_not_prove_who_it_is_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        write("AWS_ACCESS_KEY_ID", "key");
        write("AWS_SECRET_ACCESS_KEY", "hunter2");
        let (port, own) = stranger();
        let (_, other) = stranger();
        let opened = |ca: PathBuf| {
            let archive = Archive {
                kind: ArchiveKind::S3(S3 {
                    endpoint: format!("https://127.0.0.1:{port}"),
                    region: "us-east-1".to_owned(),
                    bucket: "snapshots".to_owned(),
                    prefix: String::new(),
                    credentials: folder.path().to_owned(),
                    ca: Some(ca),
                    path_style: true,
                }),
                transfers: 1,
                bytes_per_second: None,
                encryption_key: None,
            };
            let host = Host::real(Path::new("/"));
            Bucket::open(&host, &"away".parse().unwrap(), &archive).unwrap_err()
        };
        let refused = opened(write("other.crt", &other));
        let is_refused = matches!(&refused, OpenError::Store(StoreError::Certificate { .. }));
        assert!(is_refused, "{refused:?}");
        // With the right authority it comes further: to a server that says nothing.
        let silent = opened(write("own.crt", &own));
        let is_silent = matches!(&silent, OpenError::Store(StoreError::Unreachable { .. }));
        assert!(is_silent, "{silent:?}");
        let none = opened(write("none.crt", "no certificate"));
        assert!(none.to_string().contains("holds no certificate"), "{none}");
        let missing = opened(folder.path().join("missing.crt"));
        assert!(
            missing.to_string().contains("archives.away.ca: "),
            "{missing}"
        );
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let refused = Bucket::directory(Path::new("/nonexistent/archive")).unwrap_err();
        assert!(matches!(refused, StoreError::NoDirectory(_)), "{refused}");
    }
}
