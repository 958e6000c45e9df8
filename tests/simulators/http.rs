//! A small HTTP/1.1 server for simulated arrays: JSON in and out, several addresses of one state, in clear or over TLS.
//!
//! Each address can refuse connections, and each request can be cut before or after it was carried out, be put off with 503, or be answered late.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// More than any client of the tests sends at once.
const LONGEST: usize = 16 << 20;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Decoded, without the query.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// `Null` where there is none that is JSON.
    pub body: Value,
    /// At which address it came, counted from 0.
    pub address: usize,
    /// The common name in the certificate that the client has shown and proven.
    pub shown: Option<String>,
}

impl Request {
    /// Whether it may change something.
    pub fn is_mutation(&self) -> bool {
        self.method != "GET"
    }

    /// The value of this name in the query.
    pub fn asked(&self, name: &str) -> Option<&str> {
        let mut query = self.query.iter();
        let found = query.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Option<Value>,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body),
        }
    }
}

/// A simulated array.
pub trait Array: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Reply;
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before anything is done.
    CutsRequest,
    /// It is carried out; then the connection breaks.
    CutsReply,
    /// It is not carried out: 503.
    IsBusy,
    /// The machine behind this address dies, before it is carried out or after; the address refuses from then on.
    Dies { is_done: bool },
    /// It is carried out at once, and answered after this time.
    AnswersAfter(Duration),
}

/// When it goes wrong.
#[derive(Clone, Copy)]
pub struct Trap {
    pub fault: Fault,
    /// Of which requests.
    pub of: fn(&Request) -> bool,
    /// So many of them go well first.
    pub after: usize,
    /// And so many go wrong then.
    pub times: usize,
}

impl Trap {
    /// The mutation number `number`, counted from 0, goes wrong.
    pub fn mutation(number: usize, fault: Fault) -> Self {
        Self {
            fault,
            of: Request::is_mutation,
            after: number,
            times: 1,
        }
    }
}

/// The server. It ends when this is dropped.
pub struct Server<A> {
    pub array: Arc<A>,
    shared: Arc<Shared>,
    addresses: Vec<Address>,
    /// The certificate that it shows, as PEM.
    pub certificate: Option<String>,
    runtime: Option<Runtime>,
}

impl<A> Drop for Server<A> {
    /// Also in a test that is async itself.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Address {
    socket: SocketAddr,
    /// Whether it listens.
    serves: watch::Sender<bool>,
    /// Told after each change of that.
    told: Mutex<mpsc::Receiver<()>>,
}

struct Shared {
    array: Arc<dyn Array>,
    traps: Mutex<Vec<Trap>>,
    seen: Mutex<Vec<Request>>,
    /// Whether each address listens.
    serves: Mutex<Vec<watch::Sender<bool>>>,
    tls: Option<TlsAcceptor>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: Array> Server<A> {
    /// In clear, at so many addresses.
    pub fn clear(array: A, addresses: usize) -> Self {
        Self::start(array, addresses, None)
    }

    /// Over TLS, with a certificate of its own making that names no address.
    pub fn sealed(array: A, addresses: usize) -> Self {
        Self::start(array, addresses, Some(own_certificate(None)))
    }

    /// The same; and clients may show a certificate, which then must be one of this authority's.
    pub fn asking(array: A, addresses: usize, authority: &Authority) -> Self {
        Self::start(array, addresses, Some(own_certificate(Some(authority))))
    }

    fn start(array: A, addresses: usize, sealed: Option<(TlsAcceptor, String)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let array = Arc::new(array);
        let (tls, certificate) = sealed.unzip();
        let shared = Arc::new(Shared {
            array: Arc::clone(&array) as Arc<dyn Array>,
            traps: Mutex::default(),
            seen: Mutex::default(),
            serves: Mutex::default(),
            tls,
        });
        let addresses = (0..addresses)
            .map(|number| Address::open(number, &runtime, &shared))
            .collect();
        Self {
            array,
            shared,
            addresses,
            certificate,
            runtime: Some(runtime),
        }
    }

    /// `host:port` of each address.
    pub fn addresses(&self) -> Vec<String> {
        let sockets = self.addresses.iter().map(|it| it.socket.to_string());
        sockets.collect()
    }

    /// What a partition's config says to reach it over TLS with this login, whose files are written to `folder`.
    pub fn settings(&self, (user, password): (&str, &str), folder: &Path) -> Vec<String> {
        let certificate = self.certificate.as_deref().expect("it shows a certificate");
        for (name, text) in [
            ("username", user),
            ("password", password),
            ("ca.crt", certificate),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let folder = folder.display();
        vec![
            format!("sanhost: {}", self.addresses().join(",")),
            format!("tls: {folder}"),
            format!("sanCredentials: {folder}"),
        ]
    }

    /// From now on connections to this address are refused, and those that are there break.
    pub fn refuse(&self, address: usize) {
        self.addresses[address].set(false);
    }

    /// It listens again.
    pub fn serve(&self, address: usize) {
        self.addresses[address].set(true);
    }

    /// Sets a trap; traps that are there stay.
    pub fn set(&self, trap: Trap) {
        lock(&self.shared.traps).push(trap);
    }

    /// Whether every trap was sprung as often as it was to be.
    pub fn traps_are_sprung(&self) -> bool {
        lock(&self.shared.traps).iter().all(|trap| trap.times == 0)
    }

    /// Takes all traps away; whether every one was sprung as often as it was to be.
    pub fn clear_traps(&self) -> bool {
        let traps = std::mem::take(&mut *lock(&self.shared.traps));
        traps.iter().all(|trap| trap.times == 0)
    }

    /// What came since the last look.
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.shared.seen))
    }
}

impl Address {
    fn open(number: usize, runtime: &Runtime, shared: &Arc<Shared>) -> Self {
        let (serves, mut wanted) = watch::channel(true);
        lock(&shared.serves).push(serves.clone());
        let (tell, told) = mpsc::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        drop(entered);
        let shared = Arc::clone(shared);
        runtime.spawn(async move {
            let mut listener = Some(listener);
            loop {
                let serving = async {
                    match &listener {
                        Some(listener) => listener.accept().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = wanted.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let serves = *wanted.borrow_and_update();
                        listener = match serves {
                            true => Some(TcpListener::bind(socket).await.unwrap()),
                            false => None,
                        };
                        let _ = tell.send(());
                    }
                    accepted = serving => {
                        if let Ok((stream, _)) = accepted {
                            tokio::spawn(connection(number, stream, Arc::clone(&shared), wanted.clone()));
                        }
                    }
                }
            }
        });
        Self {
            socket,
            serves,
            told: Mutex::new(told),
        }
    }

    fn set(&self, serves: bool) {
        if self.serves.send_replace(serves) != serves {
            let told = lock(&self.told).recv_timeout(Duration::from_secs(30));
            told.expect("the address follows");
        }
    }
}

fn own_certificate(asks_for: Option<&Authority>) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec!["array".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = match asks_for {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authority) => authority.verifier(&provider),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// Who signs certificates of accounts.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }
}

impl Authority {
    /// A certificate with this common name and its key, as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Whoever shows none is let in all the same, as somebody who has to say a password.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        verifier.allow_unauthenticated().build().unwrap()
    }
}

/// The common name in the certificate that was shown.
fn shown(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// One connection, until it ends or its address refuses.
async fn connection(
    number: usize,
    stream: TcpStream,
    shared: Arc<Shared>,
    mut wanted: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let served = async {
        match &shared.tls {
            None => requests((number, None), stream, &shared).await,
            Some(tls) => match tls.accept(stream).into_fallible().await {
                Ok(stream) => requests((number, shown(&stream)), stream, &shared).await,
                // What the client has sent on is read, or the kernel would break the connection before it has heard why.
                Err((_, mut stream)) => {
                    let _ = stream.shutdown().await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                    None
                }
            },
        }
    };
    tokio::select! {
        _ = served => {}
        _ = wanted.wait_for(|serves| !serves) => {}
    }
}

/// The requests of one connection; `None` when it ends.
async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
    (number, shown): (usize, Option<String>),
    stream: S,
    shared: &Shared,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = read(number, &mut stream).await?;
        request.shown.clone_from(&shown);
        lock(&shared.seen).push(request.clone());
        let reply = match shared.fault(&request) {
            Some(Fault::CutsRequest) => return None,
            Some(Fault::CutsReply) => {
                shared.array.answer(&request);
                return None;
            }
            Some(Fault::Dies { is_done }) => {
                if is_done {
                    shared.array.answer(&request);
                }
                lock(&shared.serves)[number].send_replace(false);
                return None;
            }
            Some(Fault::IsBusy) => Reply {
                status: 503,
                headers: Vec::new(),
                body: None,
            },
            Some(Fault::AnswersAfter(time)) => {
                let reply = shared.array.answer(&request);
                tokio::time::sleep(time).await;
                reply
            }
            None => shared.array.answer(&request),
        };
        stream.write_all(&written(&reply)).await.ok()?;
        stream.flush().await.ok()?;
    }
}

impl Shared {
    /// What goes wrong with this request: by the first trap that springs.
    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut traps = lock(&self.traps);
        for trap in traps.iter_mut().filter(|trap| (trap.of)(request)) {
            if trap.after > 0 {
                trap.after -= 1;
            } else if trap.times > 0 {
                trap.times -= 1;
                return Some(trap.fault);
            }
        }
        None
    }
}

async fn read<S: AsyncRead + Unpin>(address: usize, stream: &mut BufReader<S>) -> Option<Request> {
    let mut line = String::new();
    let mut head = Vec::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let text = line.trim_end();
        match text {
            "" if head.is_empty() => {}
            "" => break,
            text => head.push(text.to_owned()),
        }
    }
    let mut first = head[0].split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = head[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(Ok(0), |it| it.parse());
    let length: usize = length.ok().filter(|length| *length <= LONGEST)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    };
    Some(Request {
        method,
        path: decoded(path, false),
        query: pairs.map(pair).collect(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        address,
        shown: None,
    })
}

/// Without `%XX`; in a query a plus is a blank.
fn decoded(text: &str, is_query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if is_query && bytes[at] == b'+' {
                    b' '
                } else {
                    bytes[at]
                });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn written(reply: &Reply) -> Vec<u8> {
    let body = reply
        .body
        .as_ref()
        .map(Value::to_string)
        .unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} \r\n", reply.status);
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += "Content-Type: application/json\r\n";
    }
    // A 204 has none by its nature (RFC 9110).
    if reply.status != 204 {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += &body;
    text.into_bytes()
}
