//! The cluster of the player: one SAN behind a troubled network, the controllers that come and go, and the hosts, which all see the one SAN.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Response, Status};

use super::claim::Owned;
use super::host::Host;
use super::rules::Caller;
use crate::controller::Controller;
use crate::csi::proto;
use crate::csi::proto::controller_server::Controller as _;
use crate::csi::{ControllerService, TopologyKeys};
use crate::daemon::seats::Seats;
use crate::fabric::Wwid;
use crate::host::fake::DiskId;
use crate::san::{Dice, Double, Mishap, Net, NetTrouble, fleet_over};

pub(super) const PARTITION: &str = "cluster-a";
pub(super) const GIB: i64 = 1 << 30;
/// How long a world is troubled.
const TROUBLED: Duration = Duration::from_secs(300);
/// The controller's own patience with a SAN, under that of the sidecars.
const BUDGET: Duration = Duration::from_secs(8);
const HOSTS: usize = 2;

/// How often each caller got each code.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<(&'static str, String), usize>);

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }
}

impl Clone for Tally {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((call, code), count) in &self.0 {
            writeln!(out, "{call} {code} {count}")?;
        }
        Ok(())
    }
}

/// The last refusals, to be read when a test fails.
#[derive(Default)]
pub(super) struct Refusals(Mutex<VecDeque<String>>);

impl Refusals {
    /// What a caller goes by; the words are kept.
    pub(super) fn code_of(&self, status: &Status) -> Code {
        let mut last = lock(&self.0);
        last.push_back(format!("{:?} {}", status.code(), status.message()));
        if last.len() > 20 {
            last.pop_front();
        }
        status.code()
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        lock(&self.0)
            .iter()
            .try_for_each(|told| writeln!(out, "  {told}"))
    }
}

/// A controller of the deployment, and what it sends over.
struct Process {
    net: Net,
    service: ControllerService,
}

/// See the module.
pub(super) struct World {
    pub(super) net: Net,
    pub(super) double: Double,
    pub(super) hosts: Vec<Arc<Host>>,
    /// The SAN refuses now and then for good, and what is asked of it may be more than it has.
    refuses: bool,
    leader: Mutex<Process>,
    dice: Mutex<Dice>,
    seats: Arc<Seats>,
    calm_at: Instant,
    /// Until then a leader that was replaced and does not know it may go on with what it began, and what a dead one has sent may be done.
    former_until: Mutex<Instant>,
    tally: Mutex<Tally>,
    refusals: Refusals,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let mut dice = Dice::new(!seed);
        let calm_at = Instant::now() + TROUBLED;
        let double = Double::new("one");
        let trouble = NetTrouble::OneIn(3 + dice.throw(20), calm_at);
        let net = Net::new(double.clone(), trouble, seed);
        let hosts = (0..HOSTS).map(|number| Arc::new(Host::new(number, seed)));
        let hosts: Vec<_> = hosts.collect();
        let worlds = hosts.iter();
        let worlds = worlds.map(|it| (it.id.initiator.to_string(), it.world.clone()));
        let seats = Arc::new(Seats::new(worlds.collect()));
        double.show_to(Arc::clone(&seats) as _);
        Arc::new(Self {
            leader: Mutex::new(process(&net, seed)),
            net,
            double,
            hosts,
            refuses: dice.throw(2) == 0,
            dice: Mutex::new(dice),
            seats,
            calm_at,
            former_until: Mutex::new(Instant::now()),
            tally: Mutex::default(),
            refusals: Refusals::default(),
        })
    }

    pub(super) fn throw(&self, sides: usize) -> usize {
        lock(&self.dice).throw(sides)
    }

    pub(super) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    pub(super) fn count(&self, call: &'static str, code: Code) {
        let key = (call, format!("{code:?}"));
        *lock(&self.tally).0.entry(key).or_default() += 1;
    }

    pub(super) fn is_troubled(&self) -> bool {
        Instant::now() < self.calm_at
    }

    pub(super) fn refuses(&self) -> bool {
        self.refuses && self.is_troubled()
    }

    /// A call as a sidecar makes it: it stops waiting at its deadline. One that was restarted meanwhile sends the same again beside its first call,
    /// and hears the second answer only.
    pub(super) async fn sidecar<T, F>(
        &self,
        name: &'static str,
        caller: Caller,
        call: impl Fn(ControllerService) -> F,
    ) -> Result<T, Code>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let once = || {
            let service = lock(&self.leader).service.clone();
            timeout(caller.deadline(), call(service))
        };
        let heard = if self.is_troubled() && self.throw(10) == 0 {
            tokio::join!(once(), once()).1
        } else {
            once().await
        };
        let answer = match heard {
            Err(_) => Err(Code::DeadlineExceeded),
            Ok(answer) => answer
                .map(Response::into_inner)
                .map_err(|it| self.refusals.code_of(&it)),
        };
        self.count(
            name,
            answer.as_ref().map_or_else(|code| *code, |_| Code::Ok),
        );
        // What a dead leader has sent may still be done, whatever this one answers.
        if answer.is_err() && self.refuses {
            self.net.wait_until_all_landed().await;
        }
        answer
    }

    /// Another controller leads. The one before is dead, or does not know yet and goes on with what it has.
    fn restart_controller(&self) {
        let seed = self.throw(1 << 30) as u64;
        let before = std::mem::replace(&mut *lock(&self.leader), process(&self.net, seed));
        if self.throw(2) == 0 {
            before.net.kill_process();
        }
        *lock(&self.former_until) = Instant::now() + BUDGET;
    }

    /// Waits until only one leads; whether that took time.
    pub(super) async fn outlast_former_leader(&self) -> bool {
        let until = *lock(&self.former_until);
        let left = until.checked_duration_since(Instant::now());
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            sleep(left).await;
            return true;
        }
        false
    }

    /// What was refused last, and by whom: for a test that fails.
    pub(super) fn refusals(&self) -> String {
        let hosts = self.hosts.iter();
        let of_hosts = hosts.map(|host| format!("{}:\n{}", host.id, host.refusals));
        format!(
            "controller:\n{}{}",
            self.refusals,
            of_hosts.collect::<String>()
        )
    }

    pub(super) async fn calm_down(&self) {
        if let Some(left) = self.calm_at.checked_duration_since(Instant::now()) {
            sleep(left).await;
        }
        self.net.wait_until_all_landed().await;
        for host in &self.hosts {
            host.calm_down().await;
        }
    }

    /// The node that the volume of this name is given to by the SAN, and its size. No volume, nothing.
    pub(super) fn on_san(&self, name: &str) -> Option<(Vec<String>, i64)> {
        let volumes = self.double.volumes();
        let found = volumes.iter().find(|it| it.name == name)?;
        let nodes = found.exported_to.iter().map(|it| it.node_name.clone());
        let size = i64::try_from(found.size_bytes).unwrap();
        Some((nodes.collect(), size))
    }

    /// The nodes that the SAN gives this volume to.
    pub(super) fn nodes_of(&self, wwid: &Wwid) -> Vec<String> {
        let volumes = self.double.volumes().into_iter();
        let its = volumes.filter(|it| it.wwid == wwid.as_str());
        its.flat_map(|it| it.exported_to.into_iter().map(|to| to.node_name))
            .collect()
    }

    pub(super) fn has_snapshot(&self, name: &str) -> bool {
        self.double.snapshot_names().iter().any(|it| it == name)
    }

    /// The disk as this host sees it.
    pub(super) fn disk(&self, host: &Host, wwid: &Wwid) -> DiskId {
        self.seats
            .disk(&host.id.initiator.to_string(), wwid.as_str())
    }

    /// There is what the player owns, and nothing beside it: on the SAN, by the controller's word, and on the hosts.
    pub(super) async fn check(&self, owned: &[Owned]) {
        let of_san: BTreeMap<_, _> = self
            .double
            .volumes()
            .into_iter()
            .map(|it| {
                let nodes = it.exported_to.iter().map(|to| to.node_name.clone());
                (it.name, nodes.collect::<Vec<_>>())
            })
            .collect();
        let ours: BTreeMap<_, _> = owned.iter().filter_map(Owned::volume).collect();
        assert_eq!(of_san, ours, "on the SAN, and what is owned");
        let of_san: BTreeSet<_> = self.double.snapshot_names().into_iter().collect();
        let ours = owned.iter().flat_map(Owned::snapshots);
        let ours: BTreeSet<_> = ours.map(str::to_owned).collect();
        assert_eq!(of_san, ours, "snapshots on the SAN, and what is owned");
        let published: BTreeSet<_> = owned.iter().flat_map(Owned::published).collect();
        assert_eq!(
            self.published().await,
            published,
            "what the attacher reconciles by"
        );
        for host in &self.hosts {
            let here = owned.iter().filter_map(|it| it.seat_on(host));
            host.check(&here.collect::<Vec<_>>()).await;
        }
    }

    async fn published(&self) -> BTreeSet<(String, String)> {
        let service = lock(&self.leader).service.clone();
        let all = service.list_volumes(Request::new(proto::ListVolumesRequest::default()));
        let all = all.await.unwrap().into_inner().entries.into_iter();
        all.flat_map(|entry| {
            let id = entry.volume.unwrap().volume_id;
            let nodes = entry.status.unwrap().published_node_ids.into_iter();
            nodes.map(move |node| (id.clone(), node))
        })
        .collect()
    }
}

fn process(net: &Net, seed: u64) -> Process {
    let net = net.of_new_process();
    let fleet = fleet_over(&net, PARTITION.parse().unwrap(), 2, seed);
    let controller = Controller::new(fleet, BUDGET);
    let keys = TopologyKeys::new("csi.sanpath.dev");
    Process {
        net,
        service: ControllerService::new(controller, keys),
    }
}

/// What happens between calls, until the world is calm.
pub(super) async fn trouble(world: Arc<World>) {
    while world.is_troubled() {
        sleep(Duration::from_secs(1 + world.throw(15) as u64)).await;
        let host = &world.hosts[world.throw(HOSTS)];
        match world.throw(12) {
            0..3 => world.restart_controller(),
            3..6 => host.cut_a_portal(),
            6..8 => host.kill_plugin(),
            8 => host.reboot(),
            9 => host.toggle_multipathd(),
            _ if world.refuses() => {
                let calls = [
                    "CreateVolume",
                    "ExportVolume",
                    "ExpandVolume",
                    "DeleteVolume",
                    "CreateSnapshot",
                    "DeleteSnapshot",
                ];
                let code = [Code::ResourceExhausted, Code::FailedPrecondition][world.throw(2)];
                let mishap = Mishap::RefusesChange(calls[world.throw(calls.len())], code);
                world.double.suffer(mishap);
            }
            _ => {}
        }
    }
    world.double.forgive();
}
