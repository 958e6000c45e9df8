//! HTTP to arrays that are managed by REST: one request at one address, and what a failure says about the outcome. What the requests mean is the family's.
//!
//! The invariants: an array is spoken to over TLS that proves who it is, or in clear on this machine alone; a login leaves its files only for
//! the header of a request, and no error, log or `Debug` shows it; a request ends in time; one that may have been carried out is not sent again here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub(super) use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::error::Cause;
use super::sanhost::{Attempt, AttemptError};
use super::{Until, alerts};
use crate::fabric::Secret;
use crate::fault::Fault;
use crate::host::Host;
use crate::tls::{ArrayIdentity, ArrayTrust, CERTIFICATE_FILE, KEY_FILE, trust_nobody};

/// An address that takes longer to be connected is treated as dead, TLS included: arrays are slower at it than a kernel.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is made anew.
const IDLE: Duration = Duration::from_secs(10);
/// No array has more to say at once.
const LONGEST_ANSWER: usize = 32 << 20;
/// An address whose array said who it is so short a time ago is not asked first.
const FRESH: Duration = Duration::from_secs(5);
/// So many requests are under way at a time: arrays have finite queues, and drop what does not fit (Trident holds itself to the same).
const AT_ONCE: usize = 20;
/// As Kubernetes names the parts of a `basic-auth` Secret.
const USER: &str = "username";
const PASSWORD: &str = "password";
/// The kubelet replaces a whole Secret by pointing this link elsewhere.
const GENERATION: &str = "..data";

/// What a management login is read from.
#[derive(Clone)]
pub struct LoginFolder {
    host: Host,
    folder: PathBuf,
}

impl PartialEq for LoginFolder {
    fn eq(&self, other: &Self) -> bool {
        self.folder == other.folder
    }
}

impl Eq for LoginFolder {}

impl std::fmt::Debug for LoginFolder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "LoginFolder({})", self.folder.display())
    }
}

/// Who we are to an array.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
}

/// What proves who we are to an array that takes either.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Password(Login),
    Certificate(ArrayIdentity),
}

/// Why there is no login. Never says what is in a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the login of the SAN: {} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the login of the SAN: {} is not one line of text", path.display())]
    Content { path: PathBuf },
    #[error("the login of the SAN: {} holds neither {USER} and {PASSWORD} nor {CERTIFICATE_FILE} and {KEY_FILE}", folder.display())]
    Neither { folder: PathBuf },
    #[error("the login of the SAN: {} holds {found}: a login by password and one by certificate; leave one of them", folder.display())]
    Both { folder: PathBuf, found: String },
}

impl LoginFolder {
    /// The files `username` and `password` in `folder`, or others where the family knows such. Nothing is read yet.
    #[must_use]
    pub fn new(host: &Host, folder: &Path) -> Self {
        Self {
            host: host.clone(),
            folder: folder.to_owned(),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What they hold now, both of one state of the folder.
    pub(super) fn read(&self) -> Result<Login, LoginError> {
        self.whole(|folder| self.read_in(folder))
    }

    /// The same where the folder may hold `tls.crt` and `tls.key` instead.
    pub(super) fn proof(&self) -> Result<Proof, LoginError> {
        self.whole(|folder| self.proof_in(folder))
    }

    fn whole<T>(&self, read: impl Fn(&Path) -> T) -> T {
        let generation = || self.host.read_link(&self.folder.join(GENERATION)).ok();
        loop {
            let before = generation();
            let inner = before.clone().unwrap_or_default();
            let found = read(&self.folder.join(inner));
            if generation() == before {
                return found;
            }
        }
    }

    /// The name alone, where a key in the same folder proves it.
    pub(super) fn user(&self) -> Result<String, LoginError> {
        self.line(self.folder.join(USER))
    }

    /// Where a file of that name is, and on which host.
    pub(super) fn file(&self, name: &str) -> (&Host, PathBuf) {
        (&self.host, self.folder.join(name))
    }

    fn line(&self, path: PathBuf) -> Result<String, LoginError> {
        let bytes = self.bytes(path.clone())?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.is_empty() || line.contains(char::is_control) {
            return Err(LoginError::Content { path });
        }
        Ok(line.to_owned())
    }

    fn proof_in(&self, folder: &Path) -> Result<Proof, LoginError> {
        let is_there = |file: &&str| {
            let found = self.host.find_stat(&folder.join(file));
            matches!(found, Ok(Some(_)))
        };
        let names = [USER, PASSWORD, CERTIFICATE_FILE, KEY_FILE];
        let found: Vec<&str> = names.into_iter().filter(is_there).collect();
        let (by_password, by_certificate): (Vec<&str>, Vec<&str>) = found
            .iter()
            .partition(|file| [USER, PASSWORD].contains(*file));
        match (by_password.is_empty(), by_certificate.is_empty()) {
            (false, true) => self.read_in(folder).map(Proof::Password),
            (true, false) => {
                let read = |file: &str| self.bytes(folder.join(file));
                let (certificate, key) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
                let identity = ArrayIdentity::new(&self.folder, certificate, key);
                Ok(Proof::Certificate(identity))
            }
            (true, true) => Err(LoginError::Neither {
                folder: self.folder.clone(),
            }),
            (false, false) => Err(LoginError::Both {
                folder: self.folder.clone(),
                found: found.join(", "),
            }),
        }
    }

    fn bytes(&self, path: PathBuf) -> Result<Vec<u8>, LoginError> {
        let read = self.host.read(&path);
        read.map_err(|source| LoginError::Read { path, source })
    }

    fn read_in(&self, folder: &Path) -> Result<Login, LoginError> {
        let line = |name: &str| self.line(folder.join(name));
        Ok(Login {
            user: line(USER)?,
            password: line(PASSWORD)?.into(),
        })
    }
}

/// A request. Headers may hold what proves who we are: no `Debug`.
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query, encoded as they go out.
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, Secret)>,
    /// A password is sent as HTTP's basic authentication, a certificate is shown when the connection is made.
    pub(super) proof: Option<Proof>,
    pub(super) body: Option<Value>,
}

impl Request {
    pub(super) fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            proof: None,
            body: None,
        }
    }

    #[must_use]
    pub(super) fn with_body(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    #[must_use]
    pub(super) fn with_proof(self, proof: Proof) -> Self {
        Self {
            proof: Some(proof),
            ..self
        }
    }

    fn shown(&self) -> Option<&ArrayIdentity> {
        match &self.proof {
            Some(Proof::Certificate(identity)) => Some(identity),
            _ => None,
        }
    }

    #[must_use]
    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Secret::from(value.into())));
        self
    }
}

/// An answer, whatever it says. What says only that nothing was done (busy, denied) or that nothing is known is an [`AttemptError`] already.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `Null` where there is none, or none that is JSON.
    pub(super) body: Value,
}

/// Why an array was not reached or understood.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error("{0} is not this machine, and nothing is sent to it in clear: set tls")]
    Clear(String),
    #[error("a certificate is shown over TLS alone: set tls")]
    Bare,
    #[error("no answer in time")]
    Late,
    #[error("it answered HTTP {0}")]
    Status(StatusCode),
    #[error("the answer has more than {LONGEST_ANSWER} bytes")]
    Long,
    #[error("the header {0} cannot be sent")]
    Header(&'static str),
}

/// The way to one array. Makes its client when it is needed, and anew when `ca.crt` has changed or what it shows.
pub(super) struct Web {
    trust: Option<ArrayTrust>,
    client: Mutex<Option<Made>>,
    room: Semaphore,
}

/// A client with what it was made of.
struct Made {
    trusts: Vec<u8>,
    shows: Option<ArrayIdentity>,
    client: reqwest::Client,
}

impl Web {
    /// Over TLS with `trust`; without it in clear, and to this machine alone.
    pub(super) fn new(trust: Option<ArrayTrust>) -> Self {
        Self {
            trust,
            client: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// Sends the request to the attempt's address; it has until `by`.
    pub(super) async fn send(
        &self,
        attempt: &Attempt,
        request: Request,
        by: Until,
    ) -> Result<Reply, AttemptError> {
        let late = || HttpError::Late.into();
        let _room = timeout_at(by, self.room.acquire())
            .await
            .map_err(|_| AttemptError::NotReached(late()))?;
        let request = self.made(&attempt.address, request)?;
        let answered = timeout_at(by, answer(request)).await;
        answered.unwrap_or_else(|_| Err(AttemptError::NoAnswer(late())))
    }

    /// As `send`, of a question that changes nothing: so it may be looked into why there is no answer.
    pub(super) async fn greet(
        &self,
        attempt: &Attempt,
        request: Request,
        by: Until,
    ) -> Result<Reply, AttemptError> {
        let shown = request.shown().cloned();
        let reply = self.send(attempt, request, by).await;
        let lost = match reply {
            Err(lost @ (AttemptError::NoAnswer(_) | AttemptError::NotReached(_))) => lost,
            reply => return reply,
        };
        let Some(both) = self.trust.as_ref().zip(shown.as_ref()) else {
            return Err(lost);
        };
        let refused = alerts::refusal_at(&attempt.address, both, by).await;
        Err(refused.unwrap_or(lost))
    }

    fn made(
        &self,
        address: &str,
        request: Request,
    ) -> Result<reqwest::RequestBuilder, AttemptError> {
        let client = self
            .client(request.shown())
            .map_err(AttemptError::NotReached)?;
        let scheme = match &self.trust {
            Some(_) => "https",
            None if is_this_machine(address) => "http",
            None => {
                let clear = HttpError::Clear(address.to_owned());
                return Err(AttemptError::NotReached(clear.into()));
            }
        };
        let url = format!("{scheme}://{address}{}", request.target);
        let mut made = client.request(request.method, url);
        for (name, value) in &request.headers {
            let unfit = || AttemptError::NotReached(HttpError::Header(name).into());
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
            made = made.header(name, value);
        }
        if let Some(Proof::Password(login)) = &request.proof {
            made = made.basic_auth(&login.user, Some(login.password.expose()));
        }
        if let Some(body) = &request.body {
            let json = HeaderValue::from_static("application/json");
            made = made
                .header(reqwest::header::CONTENT_TYPE, json)
                .body(body.to_string());
        }
        Ok(made)
    }

    fn client(&self, shown: Option<&ArrayIdentity>) -> Result<reqwest::Client, Cause> {
        let pem = match &self.trust {
            Some(trust) => trust.read()?,
            None => Vec::new(),
        };
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*client
            && (&made.trusts, made.shows.as_ref()) == (&pem, shown)
        {
            return Ok(made.client.clone());
        }
        let config = match &self.trust {
            Some(trust) => trust.client_config(&pem, shown)?,
            None if shown.is_some() => return Err(HttpError::Bare.into()),
            None => trust_nobody()?,
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE);
        let made = builder.build().map_err(reqwest::Error::without_url)?;
        *client = Some(Made {
            trusts: pem,
            shows: shown.cloned(),
            client: made.clone(),
        });
        Ok(made)
    }
}

/// What came of a request (§"Algorithm" of a management failover): never sent, or perhaps carried out, or answered.
async fn answer(request: reqwest::RequestBuilder) -> Result<Reply, AttemptError> {
    let mut answer = request.send().await.map_err(unanswered)?;
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    let mut bytes = Vec::new();
    loop {
        let part = answer.chunk().await;
        let part = part.map_err(|error| AttemptError::NoAnswer(error.without_url().into()))?;
        let Some(part) = part else { break };
        if bytes.len() + part.len() > LONGEST_ANSWER {
            return Err(AttemptError::Answer("body", HttpError::Long.into()));
        }
        bytes.extend_from_slice(&part);
    }
    match status {
        // Somebody between us and the array, who does not know what it did.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            return Err(AttemptError::NoAnswer(HttpError::Status(status).into()));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            return Err(AttemptError::Refused(Fault::Busy, format!("HTTP {status}")));
        }
        _ => {}
    }
    let body = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(error) if status.is_success() && !bytes.is_empty() => {
            return Err(AttemptError::Answer("body", error.into()));
        }
        Err(_) => Value::Null,
    };
    Ok(Reply {
        status,
        headers,
        body,
    })
}

fn unanswered(error: reqwest::Error) -> AttemptError {
    if let Some(refused) = alerts::refusal_in(&error) {
        return refused;
    }
    let is_unsent = error.is_connect() || error.is_builder();
    let cause = error.without_url().into();
    if is_unsent {
        AttemptError::NotReached(cause)
    } else {
        AttemptError::NoAnswer(cause)
    }
}

/// Whether `host:port` can only be this machine.
fn is_this_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Names and values as a query, everything encoded but letters, digits and `-._~`.
pub(super) fn query<'t>(pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> String {
    let pairs = pairs.into_iter();
    let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The text as a part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = text.bytes().map(|byte| match byte {
        plain_one if plain(plain_one) => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

/// Who answered at which address a moment ago, so that not every request is preceded by the question.
#[derive(Default)]
pub(super) struct Met(Mutex<BTreeMap<String, (String, Until)>>);

impl Met {
    /// The array that said who it is at this address just now.
    pub(super) fn find(&self, address: &str) -> Option<String> {
        let met = self.met();
        let (array, at) = met.get(address)?;
        (Until::now() < *at + FRESH).then(|| array.clone())
    }

    /// Takes note of who said that it is there.
    pub(super) fn note(&self, address: &str, array: &str) {
        let now = Until::now();
        let mut met = self.met();
        met.retain(|_, (_, at)| now < *at + FRESH);
        met.insert(address.to_owned(), (array.to_owned(), now));
    }

    /// The address has to say anew who it is.
    pub(super) fn forget(&self, address: &str) {
        self.met().remove(address);
    }

    fn met(&self) -> MutexGuard<'_, BTreeMap<String, (String, Until)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_it_was_given() {
        let made = query([("name", "/vol/*/a b"), ("fields", "uuid,space.size")]);
        assert_eq!(made, "name=%2Fvol%2F%2A%2Fa%20b&fields=uuid%2Cspace.size");
        assert_eq!(encoded("ä#?"), "%C3%A4%23%3F");
    }

    #[test]
    fn only_this_machine_is_asked_in_clear() {
        for near in ["127.0.0.1:80", "[::1]:80", "localhost:80"] {
            assert!(is_this_machine(near), "{near}");
        }
        for far in ["10.0.0.1:80", "[fd00::1]:80", "localhost.example:80"] {
            assert!(!is_this_machine(far), "{far}");
        }
    }

    #[test]
    fn a_login_is_read_whole_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let login = LoginFolder::new(&Host::real(Path::new("/")), folder.path());
        assert!(matches!(login.read(), Err(LoginError::Read { .. })));
        std::fs::write(folder.path().join(USER), "vsadmin\n").unwrap();
        std::fs::write(folder.path().join(PASSWORD), "hunter2").unwrap();
        let read = login.read().unwrap();
        assert_eq!(
            (&*read.user, read.password.expose()),
            ("vsadmin", "hunter2")
        );
        assert!(!format!("{login:?} {read:?}").contains("hunter2"));
        std::fs::write(folder.path().join(PASSWORD), "hunter2\nhunter2").unwrap();
        let refused = crate::fault::chain(&login.read().unwrap_err());
        assert!(refused.contains("password is not one line"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_folder_holds_a_password_or_a_certificate_and_never_both() {
        let folder = tempfile::tempdir().unwrap();
        let login = LoginFolder::new(&Host::real(Path::new("/")), folder.path());
        let write = |name: &str| std::fs::write(folder.path().join(name), "hunter2").unwrap();
        let refused = || crate::fault::chain(&login.proof().unwrap_err());
        let both = "neither username and password nor tls.crt and tls.key";
        assert!(refused().contains(both), "{}", refused());
        write(CERTIFICATE_FILE);
        assert!(
            refused().contains("tls.key cannot be read"),
            "{}",
            refused()
        );
        write(KEY_FILE);
        let proof = login.proof().unwrap();
        assert!(matches!(proof, Proof::Certificate(_)));
        assert!(!format!("{proof:?}").contains("hunter2"));
        write(USER);
        let told = refused();
        let named = "holds username, tls.crt, tls.key: ";
        assert!(told.contains(named) && !told.contains("hunter2"), "{told}");
        for name in [CERTIFICATE_FILE, KEY_FILE] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert!(
            refused().contains("password cannot be read"),
            "{}",
            refused()
        );
        write(PASSWORD);
        assert!(matches!(login.proof(), Ok(Proof::Password(_))));
    }
}
