//! A SAN in memory, archivers on hosts that behave, and an archive in a directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::archive::{Bucket, Listed, Objects, Put, StoreError};
use crate::archiver::{
    self, Archivers, Identity, Management, Means, OpenStore, Ways, Works, serve,
};
use crate::attach::{Dirs, Engine};
use crate::controller::{
    Accessibility, Controller, ControllerError, Origin, Snapshot, SnapshotFilter, Volume, Wanted,
    WantedSnapshot,
};
use crate::daemon::seats::{Content, Seats};
use crate::fabric::{Iqn, LocalView, PathList, Portal};
use crate::fault::{Fault, Faulted, chain};
use crate::host::Host;
use crate::host::fake::{FakeWorld, PortalState};
use crate::san::{Double, Fleet, Line, PORTALS, Rules, Settings, TARGET};
use crate::volume::{AnySnapshotId, Family, NodeId, SanName, SizeRange, VolumeId};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const SIZE: u64 = 8 * MIB;
/// Of this machine's own time: everything is in memory.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// A machine with an archiver on it.
pub(super) struct Machine {
    pub(super) node: NodeId,
    pub(super) world: FakeWorld,
    pub(super) archive: PathBuf,
    /// What its archive answers instead.
    pub(super) trouble: Arc<Mutex<Option<(Fault, String)>>>,
    /// Where it waits before it puts a manifest.
    pub(super) held: Arc<Mutex<Option<Arc<Held>>>>,
    pub(super) address: Mutex<SocketAddr>,
    pub(super) running: Mutex<Option<Running>>,
    deaths: AtomicU64,
}

/// Where a put of a manifest waits.
#[derive(Default)]
pub(super) struct Held {
    /// Whether one is there, and whether it may go on.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Held {
    pub(super) fn is_reached(&self) -> bool {
        lock(&self.state).0
    }

    pub(super) fn open(&self) {
        lock(&self.state).1 = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = lock(&self.state);
        state.0 = true;
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

struct HeldBucket {
    bucket: Bucket,
    held: Arc<Held>,
}

impl Objects for HeldBucket {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        if name.starts_with("manifests/") {
            self.held.pass();
        }
        self.bucket.put(name, content)
    }
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.bucket.find(name)
    }
    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.bucket.list_while(under, show)
    }
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.bucket.remove(name)
    }
}

pub(super) struct Running {
    pub(super) works: Works,
    pub(super) process: FakeWorld,
    pub(super) stop: CancellationToken,
    pub(super) has_died: Arc<AtomicBool>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    fn new(number: usize, archive: &Path) -> Self {
        let world = FakeWorld::new();
        let portals: [Portal; 2] = PORTALS.map(|portal| portal.parse().unwrap());
        world.add_target(&TARGET.parse::<Iqn>().unwrap(), &portals);
        let initiator = format!("iqn.1993-08.org.debian:01:a{number}:archive");
        Self {
            node: NodeId::new(&format!("a{number}"), initiator.parse().unwrap()).unwrap(),
            world,
            archive: archive.to_owned(),
            trouble: Arc::default(),
            held: Arc::default(),
            address: Mutex::new("127.0.0.1:0".parse().unwrap()),
            running: Mutex::default(),
            deaths: AtomicU64::new(0),
        }
    }

    /// Starts the daemon; it dies right after its step number `last_step`.
    pub(super) async fn start(&self, last_step: u64) {
        let process = self.world.new_process();
        let stop = CancellationToken::new();
        let (steps, has_died) = (AtomicU64::new(0), Arc::<AtomicBool>::default());
        let (killed, end) = (process.clone(), stop.clone());
        let dead = Arc::clone(&has_died);
        let host = process.host().with_hook(Arc::new(move |_| {
            if steps.fetch_add(1, Ordering::SeqCst) + 1 == last_step {
                dead.store(true, Ordering::SeqCst);
                killed.kill();
                end.cancel();
            }
        }));
        let works = self.works(host);
        let (resumed, within) = (works.clone(), process.clone());
        let resumed = spawn_blocking(move || within.until_killed(|| resumed.resume()));
        if let Some(resumed) = resumed.await.unwrap() {
            resumed.unwrap();
        }
        let kept = works.clone();
        let (told, bound) = tokio::sync::oneshot::channel();
        // Another port than before: the one of the dead may not be free yet.
        let address = "127.0.0.1:0".parse().unwrap();
        let (node, ending) = (self.node.clone(), stop.clone());
        tokio::spawn(async move {
            let identity = Identity {
                node,
                partitions: Arc::new(|| ["a", "b"].map(|it| it.parse().unwrap()).to_vec()),
                archives: Arc::new(|| vec!["here".to_owned()]),
            };
            let listen = ([address], Management::Plaintext);
            let tell = |addresses: Vec<SocketAddr>| told.send(addresses[0]).unwrap();
            let listen = (listen.0.as_slice(), listen.1);
            serve(works, identity, listen, ending, tell).await.unwrap();
        });
        *lock(&self.address) = bound.await.unwrap();
        *lock(&self.running) = Some(Running {
            works: kept,
            process,
            stop,
            has_died,
        });
    }

    pub(super) fn works(&self, host: Host) -> Works {
        let (root, state) = (Path::new("/"), Path::new("/var/lib/sanpath/archiver"));
        let dirs = Dirs::under(root, state, Path::new("/run/sanpath"));
        let (trouble, place) = (Arc::clone(&self.trouble), self.archive.clone());
        let held = Arc::clone(&self.held);
        Works::new(Means {
            engine: Engine::named(host.clone(), dirs, self.node.initiator.clone()),
            host,
            dir: state.join("work"),
            ways_of: Arc::new(|_| {
                Some(Ways {
                    list: PathList::SanPortals,
                    local: LocalView::default(),
                    deadline: None,
                })
            }),
            store_of: Arc::new(move |name| {
                if name != "here" {
                    return None;
                }
                if let Some((fault, text)) = lock(&trouble).clone() {
                    return Some(Err((fault, text.into())));
                }
                let bucket = Bucket::directory(&place).unwrap();
                Some(Ok(OpenStore {
                    place: bucket.place().to_owned(),
                    objects: match lock(&held).clone() {
                        Some(held) => Box::new(HeldBucket { bucket, held }),
                        None => Box::new(bucket),
                    },
                    transfers: 1,
                    bytes_per_second: None,
                }))
            }),
            slots: 2,
        })
    }

    pub(super) fn set_portals(&self, state: PortalState) {
        for portal in PORTALS {
            self.world.set_portal(portal.parse().unwrap(), state);
        }
    }

    pub(super) fn kill(&self) {
        if let Some(running) = lock(&self.running).take() {
            running.process.kill();
            running.stop.cancel();
        }
    }

    /// Starts it again if it died.
    pub(super) async fn ensure(&self) -> bool {
        let has_died = {
            let running = lock(&self.running);
            running
                .as_ref()
                .is_none_or(|it| it.has_died.load(Ordering::SeqCst))
        };
        if has_died {
            self.deaths.fetch_add(1, Ordering::SeqCst);
            self.kill();
            self.start(0).await;
        }
        has_died
    }

    /// How often it died by itself.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::SeqCst)
    }

    /// Nothing but notes about sessions.
    #[track_caller]
    pub(super) fn assert_clean(&self) {
        self.world.settle();
        let mut left = self.world.leftovers();
        let notes = |path: &String| path.starts_with("/var/lib/sanpath/archiver/sessions");
        left.files.retain(|path| !notes(path));
        assert_eq!(left.files, [""; 0], "{}", self.node);
        assert!(
            left.clone().of_volumes().is_empty(),
            "{}: {left:?}",
            self.node
        );
        assert_eq!(self.world.violations(), [""; 0], "{}", self.node);
    }
}

pub(super) struct Rig {
    pub(super) double: Double,
    pub(super) lines: [Line; 2],
    pub(super) seats: Arc<Seats>,
    pub(super) machines: Vec<Machine>,
    pub(super) folder: TempDir,
    pub(super) archivers: Archivers,
    pub(super) controller: Controller,
}

impl Rig {
    /// A SAN with two partitions, and so many archivers.
    pub(super) async fn new(machines: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let machines = (0..machines).map(|number| Machine::new(number, folder.path()));
        let machines: Vec<Machine> = machines.collect();
        let double = Double::new("one");
        let worlds = machines.iter();
        let worlds = worlds.map(|it| (it.node.initiator.to_string(), it.world.clone()));
        let seats = Arc::new(Seats::new(worlds.collect()));
        double.show_to(Arc::clone(&seats) as _);
        double.set_extents(&[(0, SIZE)]);
        let lines = [double.line().await, double.line().await];
        let fleet = fleet_of([lines[0].address(), lines[1].address()]);
        for machine in &machines {
            machine.start(0).await;
        }
        let archivers = Archivers::default();
        let rig = Self {
            controller: controller_of(fleet, &archivers),
            double,
            lines,
            seats,
            machines,
            folder,
            archivers,
        };
        rig.introduce();
        rig
    }

    pub(super) fn introduce(&self) {
        let settings = |machine: &Machine| archiver::Settings {
            address: lock(&machine.address).to_string(),
            papers: None,
            partitions: None,
        };
        let all = self.machines.iter();
        let all = all.map(|it| (it.node.name.clone(), settings(it)));
        self.archivers
            .update(all.collect(), ["here".to_owned()].into());
    }

    pub(super) async fn volume(&self, name: &str, content: &Content) -> Volume {
        let made = self
            .controller
            .create(&wanted(name, "a", None))
            .await
            .unwrap();
        self.seats.put(made.id.wwid.as_str(), content.clone());
        made
    }

    /// As a sidecar does: until it is ready.
    pub(super) async fn archived(&self, name: &str, source: &VolumeId, retain: bool) -> Snapshot {
        let wanted = snapshot_of(name, source, retain);
        self.until(
            async || match self.controller.create_snapshot(&wanted).await {
                Ok(snapshot) if snapshot.is_ready => Some(snapshot),
                Ok(_) => None,
                Err(error) => open(&error),
            },
        )
        .await
    }

    pub(super) async fn restored(&self, wanted: &Wanted) -> Volume {
        self.until(async || match self.controller.create(wanted).await {
            Ok(volume) => Some(volume),
            Err(error) => open(&error),
        })
        .await
    }

    pub(super) async fn deleted(&self, id: &AnySnapshotId, controller: &Controller) {
        self.until(async || match controller.delete_snapshot(id).await {
            Ok(()) => Some(()),
            Err(error) => open(&error),
        })
        .await;
    }

    /// Calls again and again, with archivers that are started again when they die.
    pub(super) async fn until<T>(&self, call: impl AsyncFn() -> Option<T>) -> T {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(done) = call().await {
                return done;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            // The hosts' clocks stand while we call.
            tokio::time::sleep(Duration::from_millis(20)).await;
            for machine in &self.machines {
                let is_on = lock(&machine.running).is_some();
                if is_on && machine.ensure().await {
                    self.introduce();
                }
            }
        }
    }

    pub(super) async fn listed(&self) -> Vec<(String, bool)> {
        let all = SnapshotFilter::default();
        let listing = self.controller.list_snapshots(&all, "", 0).await.unwrap();
        let listed = listing.snapshots.iter();
        listed.map(|it| (it.id.to_string(), it.is_ready)).collect()
    }

    /// The SAN has these volumes and snapshots, nobody has any of them, and no machine has anything.
    pub(super) async fn assert_at_rest(&self, volumes: &[&str], cuts: &[&str]) {
        // What is under way comes to its end, and what nobody needs is forgotten.
        self.until(async || {
            self.controller.reconcile().await;
            let machines = self.machines.iter();
            let mut files = machines.flat_map(|it| it.world.leftovers().files);
            (!files.any(|path| path.contains("/work/"))).then_some(())
        })
        .await;
        self.controller.reconcile().await;
        let there = self.double.volumes();
        let mut names: Vec<&str> = there.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, volumes);
        assert!(there.iter().all(|it| it.exported_to.is_empty()));
        let mut snapshots = self.double.snapshot_names();
        snapshots.sort_unstable();
        assert_eq!(snapshots, cuts);
        for machine in &self.machines {
            machine.assert_clean();
        }
    }

    pub(super) fn objects(&self, under: &str) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().join(under)]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path),
                }
            }
        }
        files.sort();
        files
    }
}

/// The SAN's two partitions, at these addresses.
pub(super) fn fleet_of(addresses: [&str; 2]) -> Fleet {
    let settings = |address: &str| Settings {
        family: Family::Linux,
        sanhost: vec![address.to_owned()],
        papers: None,
        array: None,
        san_uuid: None,
        rules: Rules::default(),
    };
    let [a, b] = addresses.map(settings);
    let name = |name: &str| name.parse::<SanName>().unwrap();
    Fleet::new([(name("a"), a), (name("b"), b)].into())
}

pub(super) fn controller_of(fleet: Fleet, archivers: &Archivers) -> Controller {
    Controller::new(fleet, Duration::from_secs(20))
        .with_archivers(archivers.clone())
        .losing_after(Duration::from_millis(300))
}

/// What may be asked again; anything else fails the test.
pub(super) fn open<T>(error: &ControllerError) -> Option<T> {
    let fault = error.fault();
    let is_open = matches!(fault, Fault::Busy | Fault::MaybeDone | Fault::Timeout);
    assert!(is_open, "{fault:?}: {}", chain(error));
    None
}

pub(super) fn wanted(name: &str, partition: &str, origin: Option<&Snapshot>) -> Wanted {
    Wanted {
        name: name.to_owned(),
        range: SizeRange::new(SIZE.try_into().unwrap(), 0).unwrap(),
        parameters: [("partition".to_owned(), partition.to_owned())].into(),
        attributes: Default::default(),
        kinds: Vec::new(),
        accessibility: Accessibility::default(),
        origin: origin.map(|it| Origin::Snapshot(it.id.clone())),
    }
}

pub(super) fn snapshot_of(name: &str, source: &VolumeId, retain: bool) -> WantedSnapshot {
    let parameters = [
        ("archive", "here"),
        ("retainOnSan", if retain { "true" } else { "false" }),
    ];
    WantedSnapshot {
        name: name.to_owned(),
        source: source.clone(),
        parameters: parameters
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}

pub(super) fn content(seed: u8) -> Content {
    let low = |at: u64| u8::try_from(at % 251).unwrap();
    let block = |at: u64| (at, vec![seed.wrapping_add(low(at)) | 1; 4096]);
    [0, 1, 700, 2047].map(block).into()
}
