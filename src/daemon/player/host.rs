//! A node of the player: the fake host, the plugin's process on it, and what goes wrong there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tonic::{Code, Response, Status};

use super::kubelet::Place;
use super::rules::Caller;
use super::world::Refusals;
use crate::attach::{Dirs, Engine};
use crate::csi::{NodeService, TopologyKeys};
use crate::fabric::{Iqn, Portal};
use crate::fault::chain;
use crate::host::fake::{FakeWorld, Fault, PortalState};
use crate::inflight::Inflight;
use crate::node::{Limits, Node, PathSettings};
use crate::san::{Dice, PORTALS, TARGET};
use crate::volume::{NodeId, VolumeId};

const STATE: &str = "/var/lib/sanpath";
/// After this an unused session may go.
const IDLE: Duration = Duration::from_secs(60);

/// What a program or a call of the kernel answers instead.
fn failures() -> [(&'static str, Fault); 11] {
    [
        ("iscsiadm", Fault::Exit(6, "iscsiadm: Could not lock")),
        ("append", Fault::Errno(Errno::EROFS)),
        ("blkid", Fault::Overdue),
        ("mkfs.ext4", Fault::Exit(1, "no space")),
        ("mkfs.ext4", Fault::Overdue),
        ("mkfs.xfs", Fault::Exit(1, "no space")),
        ("mount", Fault::Errno(Errno::EIO)),
        ("umount", Fault::Errno(Errno::EBUSY)),
        ("flush", Fault::Errno(Errno::EIO)),
        ("multipathd", Fault::Reply("fail\ntimeout\n")),
        ("replace", Fault::Errno(Errno::ENOSPC)),
    ]
}

/// See the module.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) world: FakeWorld,
    portals: [Portal; 2],
    dice: Mutex<Dice>,
    plugin: Mutex<Plugin>,
    /// Counts its boots: what the kubelet knew before is history.
    boots: AtomicU64,
    pub(super) refusals: Refusals,
}

struct Plugin {
    process: FakeWorld,
    node: Node,
    service: NodeService,
    /// The steps after which it dies; below zero it lives on.
    fuse: Arc<AtomicI64>,
    has_died: bool,
}

impl Host {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        let world = FakeWorld::new();
        let portals = PORTALS.map(|portal| portal.parse().unwrap());
        world.add_target(&TARGET.parse::<Iqn>().unwrap(), &portals);
        let initiator = format!("iqn.1993-08.org.debian:01:n{number}");
        let id = NodeId::new(&format!("n{number}"), initiator.parse().unwrap()).unwrap();
        Self {
            plugin: Mutex::new(Plugin::start(&world, &id)),
            id,
            world,
            portals,
            dice: Mutex::new(Dice::new(seed ^ (number as u64 + 1) << 40)),
            boots: AtomicU64::new(0),
            refusals: Refusals::default(),
        }
    }

    pub(super) fn throw(&self, sides: usize) -> usize {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.throw(sides)
    }

    pub(super) fn boots(&self) -> u64 {
        self.boots.load(Ordering::SeqCst)
    }

    fn plugin<T>(&self, look: impl FnOnce(&mut Plugin) -> T) -> T {
        let mut plugin = self.plugin.lock().unwrap_or_else(PoisonError::into_inner);
        // The orchestrator starts it again.
        if plugin.has_died || plugin.fuse.load(Ordering::SeqCst) == 0 {
            *plugin = Plugin::start(&self.world, &self.id);
        }
        look(&mut plugin)
    }

    /// A call as the kubelet makes it. Its patience is over by this host's clock, and then it does not hear what came of it.
    pub(super) async fn call<T, F>(
        &self,
        call: impl FnOnce(NodeService) -> F + Send + 'static,
    ) -> Result<T, Code>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let service = self.plugin(|it| it.service.clone());
        let (runtime, world) = (Handle::current(), self.world.new_process());
        let working = spawn_blocking(move || {
            let began = world.host().now();
            let answer = runtime.block_on(call(service));
            (answer, world.host().now().since(began))
        });
        let (answer, took) = working.await.unwrap();
        sleep(took).await;
        match answer {
            _ if took > Caller::Kubelet.deadline() => Err(Code::DeadlineExceeded),
            answer => answer
                .map(Response::into_inner)
                .map_err(|it| self.refusals.code_of(&it)),
        }
    }

    /// `sanpath node release VOLUME --accept-data-loss`; refused while there is no reason for it.
    pub(super) async fn release(&self, volume: &str) {
        let node = self.plugin(|it| it.node.clone());
        let volume = VolumeId::find(volume).unwrap();
        let released = spawn_blocking(move || node.release(&volume, true).outcome);
        // A plugin that is killed meanwhile takes its answer with it.
        if let Ok(Err(error)) = released.await {
            let told = format!("release: {}", chain(&error));
            self.refusals.code_of(&Status::unknown(told));
        }
    }

    /// Time passes for the host and for everybody else.
    pub(super) async fn rest(&self, span: Duration) {
        let world = self.world.new_process();
        spawn_blocking(move || world.sleep(span)).await.unwrap();
        sleep(span).await;
    }

    /// Something that may go wrong during the next call.
    pub(super) fn arm(&self) {
        match self.throw(8) {
            0 => {
                let steps = 1 + self.throw(25);
                self.plugin(|it| it.fuse.store(steps as i64, Ordering::SeqCst));
            }
            1 | 2 => {
                let failures = failures();
                let (what, fault) = failures[self.throw(failures.len())].clone();
                self.world.fail_next(what, fault);
            }
            3 => self.cut_a_portal(),
            _ => {}
        }
    }

    /// A while from now, for a while.
    pub(super) fn cut_a_portal(&self) {
        let states = [
            PortalState::Refusing,
            PortalState::BlackHoled,
            PortalState::Mute,
            PortalState::Stalled,
        ];
        let (portal, state) = (self.portals[self.throw(2)], states[self.throw(4)]);
        let begins = Duration::from_millis(self.throw(20_000) as u64);
        let ends = begins + Duration::from_secs(1 + self.throw(150) as u64);
        self.world
            .later(begins, move |it| it.set_portal(portal, state));
        self.world
            .later(ends, move |it| it.set_portal(portal, PortalState::Up));
    }

    pub(super) fn kill_plugin(&self) {
        self.plugin(|it| {
            it.process.kill();
            it.has_died = true;
        });
    }

    pub(super) fn toggle_multipathd(&self) {
        self.world.stop_multipathd();
        let back = Duration::from_secs(1 + self.throw(60) as u64);
        self.world.later(back, |it| it.start_multipathd());
    }

    /// The power goes, and comes back.
    pub(super) fn reboot(&self) {
        self.plugin(|it| it.has_died = true);
        self.world.reboot();
        // What was to happen later does not any more.
        for portal in self.portals {
            self.world.set_portal(portal, PortalState::Up);
        }
        self.world.start_multipathd();
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) async fn calm_down(&self) {
        self.plugin(|it| it.fuse.store(-1, Ordering::SeqCst));
        self.rest(Duration::from_secs(300)).await;
    }

    /// Only the volumes at these places are here; the sessions go when nobody uses them.
    pub(super) async fn check(&self, places: &[&Place]) {
        let node = self.plugin(|it| it.node.clone());
        let world = self.world.new_process();
        spawn_blocking(move || {
            for _ in 0..3 {
                node.engine().heal(Duration::ZERO).unwrap();
                world.sleep(IDLE * 2);
                node.engine().reap_idle(IDLE).unwrap();
            }
        })
        .await
        .unwrap();
        let mut left = self.world.leftovers();
        if places.is_empty() {
            left.wwids.clear();
            assert!(left.is_empty(), "{}: {left:#?}", self.id);
        } else {
            let sealed = places.iter().filter(|it| it.is_sealed).count();
            let maps = places.len() + sealed;
            assert_eq!(left.maps.len(), maps, "{}: {left:#?}", self.id);
            for place in places {
                assert_eq!(self.world.paths_of(&place.wwid), Some(2), "{}", self.id);
            }
            let ours = |path: &Path| {
                places
                    .iter()
                    .any(|it| path == it.staging || path == it.target)
            };
            let strange: Vec<_> = left
                .mounts
                .iter()
                .map(PathBuf::from)
                .filter(|path| !ours(path))
                .collect();
            assert!(strange.is_empty(), "{}: {strange:?}", self.id);
        }
        assert_eq!(self.world.violations(), [""; 0], "{}", self.id);
    }
}

impl Plugin {
    fn start(world: &FakeWorld, id: &NodeId) -> Self {
        let process = world.new_process();
        let fuse = Arc::new(AtomicI64::new(-1));
        let (killed, burning) = (process.clone(), Arc::clone(&fuse));
        let host = process.host().with_hook(Arc::new(move |_| {
            let burn = |left: i64| (left > 0).then(|| left - 1);
            let before = burning.fetch_update(Ordering::SeqCst, Ordering::SeqCst, burn);
            if before == Ok(1) {
                killed.kill();
            }
        }));
        let dirs = Dirs::under(Path::new("/"), Path::new(STATE), Path::new("/run/sanpath"));
        let engine = Engine::new(host.clone(), dirs);
        let paths_of = Arc::new(|_: &_| Some(PathSettings::default()));
        let limits = Limits {
            grace: Duration::from_secs(2),
            ..Limits::default()
        };
        let node = Node::new(id.clone(), host, engine, paths_of, limits);
        let keys = TopologyKeys::new("csi.sanpath.dev");
        Self {
            service: NodeService::new(node.clone(), Inflight::default(), keys),
            node,
            process,
            fuse,
            has_died: false,
        }
    }
}
