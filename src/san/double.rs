//! A Linux SAN in memory, for tests: it speaks the real wire over loopback TCP and keeps the real rules, and its lines can be half dead.
//!
//! The rules are those of `proto/linux_san.proto`; the server that must keep them is in another room, which this one may not name.

mod line;
mod service;
mod snapshots;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use line::Line;

use tokio::sync::{Notify, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{Request, Response};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;

use crate::linux_san_wire as wire;
use crate::linux_san_wire::linux_san_server::LinuxSanServer;
use crate::san::Until;
use crate::tls::Papers;

/// The target that all nodes log in to, and where it listens.
pub(crate) const TARGET: &str = "iqn.2026-11.dev.sanpath:double";
pub(crate) const PORTALS: [&str; 2] = ["10.101.1.1:3260", "10.102.1.1:3260"];

/// What the SAN does wrong, once, at the next call of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Does the work; then every connection breaks before the answer is out.
    LosesReply(&'static str),
    /// Every connection breaks before the work is done.
    LosesRequest(&'static str),
    /// Refuses with this code.
    Refuses(&'static str, tonic::Code),
    /// Refuses with this code if anything would change by it; what was done before is answered.
    RefusesChange(&'static str, tonic::Code),
}

impl Mishap {
    fn call(self) -> &'static str {
        match self {
            Self::LosesReply(call)
            | Self::LosesRequest(call)
            | Self::Refuses(call, _)
            | Self::RefusesChange(call, _) => call,
        }
    }
}

/// The SAN. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Double {
    inner: Arc<Mutex<Inner>>,
    /// The zero of its clock.
    began: Until,
    /// Counts the moments at which all connections break.
    breaks: Arc<watch::Sender<u64>>,
    /// Counts the calls that were done.
    changes: Arc<watch::Sender<u64>>,
}

/// Keeps out what comes too late.
#[derive(Clone)]
struct InTime(Double);

impl Interceptor for InTime {
    fn call(&mut self, request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        wire::refuse_late(request.metadata().as_ref(), self.0.clock_ms())?;
        Ok(request)
    }
}

/// What answers calls.
type Server = InterceptedService<LinuxSanServer<service::Service>, InTime>;

/// Where a call waits for the test.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Notify, Notify)>);

impl Gate {
    /// Returns once the call is there.
    pub(crate) async fn reached(&self) {
        self.0.0.notified().await;
    }

    /// Lets it go on.
    pub(crate) fn open(&self) {
        self.0.1.notify_one();
    }

    async fn pass(&self) {
        self.0.0.notify_one();
        self.0.1.notified().await;
    }
}

struct Inner {
    uuid: String,
    volumes: BTreeMap<String, wire::Volume>,
    snapshots: BTreeMap<String, wire::Snapshot>,
    extents: Vec<wire::Extent>,
    troubles: BTreeMap<String, Vec<wire::Trouble>>,
    mishaps: VecDeque<Mishap>,
    held: Option<(&'static str, Gate)>,
    calls: Vec<&'static str>,
    made: u32,
    /// What each node was given, by the volume's key and the initiator.
    given: BTreeMap<(String, String), Given>,
    onlooker: Option<Arc<dyn Onlooker>>,
}

/// The number of a volume on a node's target, and whether it was blank when it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Given {
    lun: u32,
    blank: bool,
}

/// A volume as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) initiator: String,
    pub(crate) lun: u32,
    pub(crate) wwid: String,
    pub(crate) size: u64,
}

/// The nodes, who write to what they see.
pub(crate) trait Onlooker: Send + Sync {
    /// Is told after each call, before its answer is out, what all of them see.
    fn see(&self, seen: &[Seen]);
    /// Whether nobody has written to the volume yet.
    fn is_blank(&self, wwid: &str) -> bool;
    /// What is new, a volume by its WWID or a snapshot by its key, holds from now on what the other one holds at this moment.
    fn copy(&self, from: &str, to: &str);
}

impl Double {
    /// An empty SAN.
    pub(crate) fn new(uuid: &str) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                uuid: uuid.to_owned(),
                volumes: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                extents: Vec::new(),
                troubles: BTreeMap::new(),
                mishaps: VecDeque::new(),
                held: None,
                calls: Vec::new(),
                made: 0,
                given: BTreeMap::new(),
                onlooker: None,
            })),
            began: Until::now(),
            breaks: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// Milliseconds.
    fn clock_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// What answers calls that are still meant.
    fn server(&self) -> Server {
        let server = LinuxSanServer::new(service::Service(self.clone()));
        InterceptedService::new(server, InTime(self.clone()))
    }

    /// One more management address that leads here.
    pub(crate) async fn line(&self) -> Line {
        Line::lay(self.server(), self.breaks.subscribe()).await
    }

    /// Answers one request of the wire with no network between.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = self.server().call(request).await;
        response.map(Body::new)
    }

    /// One more management address, over TLS, with the papers that a SAN has.
    pub(crate) async fn guarded_line(&self, papers: Papers) -> Line {
        Line::lay_guarded(self.server(), papers, self.breaks.subscribe()).await
    }

    /// Lets something go wrong once.
    pub(crate) fn suffer(&self, mishap: Mishap) {
        self.inner().mishaps.push_back(mishap);
    }

    /// Has nodes that use what is exported; without, every volume is blank.
    pub(crate) fn show_to(&self, onlooker: Arc<dyn Onlooker>) {
        self.inner().onlooker = Some(onlooker);
    }

    fn show(&self) {
        let (onlooker, seen) = {
            let inner = self.inner();
            (inner.onlooker.clone(), inner.seen())
        };
        if let Some(onlooker) = onlooker {
            onlooker.see(&seen);
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn forgive(&self) {
        self.inner().mishaps.clear();
    }

    /// The calls that arrived so far, without those that ask who it is.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.inner().calls.clone()
    }

    /// The volumes as they are.
    pub(crate) fn volumes(&self) -> Vec<wire::Volume> {
        self.inner().volumes.values().cloned().collect()
    }

    /// The snapshots' names.
    pub(crate) fn snapshot_names(&self) -> Vec<String> {
        let inner = self.inner();
        inner.snapshots.values().map(|it| it.name.clone()).collect()
    }

    /// How many snapshots there are.
    pub(crate) fn snapshots(&self) -> usize {
        self.inner().snapshots.len()
    }

    /// Puts a snapshot there that no controller cut.
    pub(crate) fn put_foreign_snapshot(&self, key: &str, volume: &str) {
        let snapshot = wire::Snapshot {
            key: key.to_owned(),
            name: format!("cut by hand: {key}"),
            source_volume_key: volume.to_owned(),
            size_bytes: 1 << 30,
            ..wire::Snapshot::default()
        };
        self.inner().snapshots.insert(key.to_owned(), snapshot);
    }

    /// Takes a snapshot away behind everybody's back.
    pub(crate) fn drop_snapshot(&self, key: &str) {
        self.inner().snapshots.remove(key);
    }

    /// What every snapshot consists of from now on.
    pub(crate) fn set_extents(&self, extents: &[(u64, u64)]) {
        let extent = |&(offset, length): &(u64, u64)| wire::Extent { offset, length };
        self.inner().extents = extents.iter().map(extent).collect();
    }

    /// Puts a volume there that no controller made.
    pub(crate) fn put_foreign(&self, key: &str) {
        let volume = wire::Volume {
            key: key.to_owned(),
            name: format!("made by hand: {key}"),
            wwid: "36001405fffffffffffffffffffffffff".to_owned(),
            size_bytes: 1 << 30,
            ..wire::Volume::default()
        };
        self.inner().volumes.insert(key.to_owned(), volume);
    }

    /// Lets something be wrong with the volume of this key, as bad as this number of the wire's says.
    pub(crate) fn trouble(&self, key: &str, grade: i32, reason: &str) {
        let trouble = wire::Trouble {
            grade,
            reason: reason.to_owned(),
            message: format!("{key} is in trouble: {reason}"),
        };
        let mut inner = self.inner();
        inner
            .troubles
            .entry(key.to_owned())
            .or_default()
            .push(trouble);
    }

    /// Lets the next call of this name wait before it does anything.
    pub(crate) fn hold(&self, call: &'static str) -> Gate {
        let gate = Gate::default();
        self.inner().held = Some((call, gate.clone()));
        gate
    }

    /// Returns once there are this many volumes.
    pub(crate) async fn wait_for_volumes(&self, count: usize) {
        let mut changes = self.changes.subscribe();
        while self.volumes().len() != count {
            changes.changed().await.unwrap();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn break_all(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }
}
