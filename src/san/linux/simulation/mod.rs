//! The San over a network that loses, holds and cuts what it carries, under a SAN that dies: whatever happens, each name ends with exactly what its
//! orchestrator wanted, and no change was sent again before a look.
//!
//! The code is the real one down to the connection; behind that are the double's rules and a network in memory, on tokio's paused clock, so a
//! minute costs a millisecond and a seed always tells the same story. (`turmoil` was considered: it simulates hosts and links, not the single message of
//! a call, and would bring TCP and HTTP/2 into every step.)

mod net;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, sleep_until, timeout};

pub(crate) use self::net::{Dice, Net, Trouble};
use self::net::{FATES, Fate, WORKER};
use super::LinuxSan;
use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};
use crate::san::double::Double;
use crate::san::{Access, Fleet, NewSnapshot, NewVolume, Others, San, SanError, Until};
use crate::volume::{Family, NodeId, SanName, SizeRange};

const GIB: u64 = 1 << 30;
/// A sidecar's patience with one call.
const SIDECAR: Duration = Duration::from_secs(10);
/// The controller's own.
const BUDGET: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
/// Between two wishes an orchestrator does other things; the SAN is then asked anew who it is.
const PAUSE: Duration = Duration::from_millis(1500);
/// How long a world is troubled, and how long it may take to get over it.
const TROUBLED: Duration = Duration::from_secs(90);
const AT_MOST: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Create,
    Expand,
    Export(&'static str),
    Unexport(&'static str),
    Snapshot,
    DropSnapshot,
    Delete,
}

/// What an orchestrator wants of one volume, one after the other.
const LIVES: [&[Wish]; 6] = [
    &[Wish::Create, Wish::Export("n1"), Wish::Expand],
    &[Wish::Create, Wish::Export("n1"), Wish::Unexport("n1")],
    &[
        Wish::Create,
        Wish::Export("n1"),
        Wish::Unexport("n1"),
        Wish::Export("n2"),
    ],
    &[
        Wish::Create,
        Wish::Expand,
        Wish::Export("n1"),
        Wish::Unexport("n1"),
        Wish::Delete,
    ],
    &[Wish::Create, Wish::Delete, Wish::Create],
    &[
        Wish::Create,
        Wish::Snapshot,
        Wish::DropSnapshot,
        Wish::Snapshot,
    ],
];

/// An orchestrator with one volume.
struct Worker {
    number: usize,
    san: Arc<San>,
    volume: Option<(String, Wwid)>,
    snapshot: Option<String>,
    /// What was given up may still be done until then.
    given_up_until: Until,
}

impl Worker {
    fn name(&self) -> String {
        format!("v{}", self.number)
    }

    /// Calls until it is done, as a sidecar does: it stops waiting after a while, and begins again.
    async fn live(&mut self, wishes: &[Wish]) {
        for &wish in wishes {
            sleep(PAUSE).await;
            while !self.wish(wish).await {
                sleep(RETRY).await;
            }
            // What is still on its way is not meant any more, and the next wish may come. Only of a call that its own deadline did not end is more to be expected.
            sleep_until(self.given_up_until).await;
        }
    }

    async fn wish(&mut self, wish: Wish) -> bool {
        let until = Until::now() + BUDGET;
        let Ok(ended) = timeout(SIDECAR, self.call(wish, until)).await else {
            self.given_up_until = until;
            return false;
        };
        match ended {
            Ok(()) => true,
            Err(error) => {
                let is_open = matches!(error.fault(), Fault::MaybeDone | Fault::Busy);
                assert!(is_open, "{wish:?}: a final answer, {error}");
                false
            }
        }
    }

    async fn call(&mut self, wish: Wish, until: Until) -> Result<(), SanError> {
        let name = self.name();
        if wish == Wish::Create {
            let made = self.san.ensure_volume(&wanted(&name), until).await?;
            self.volume = Some((made.key, made.wwid));
            return Ok(());
        }
        let (key, wwid) = self.volume.clone().unwrap();
        let node = |name: &str| NodeId::find(&format!("{name}/iqn.1993-08.org.debian:{name}"));
        match wish {
            Wish::Delete => self.san.remove_volume(&key, &wwid, until).await,
            Wish::Snapshot => {
                let wanted = [snapshot(&name, key)];
                let mut cut = self.san.ensure_snapshots(&wanted, until).await?;
                self.snapshot = cut.pop().map(|one| one.key);
                Ok(())
            }
            Wish::DropSnapshot => {
                let key = self.snapshot.clone().unwrap();
                self.san.remove_snapshot(&key, until).await
            }
            Wish::Unexport(name) => {
                let initiator = node(name).unwrap().initiator;
                let from = Some(&initiator);
                self.san.remove_export(&key, &wwid, from, until).await
            }
            Wish::Create | Wish::Expand | Wish::Export(_) => {
                let volume = self.san.find_volume(&key, &wwid, until).await?.unwrap();
                let alone = Access {
                    read_only: false,
                    others: Others::Nobody,
                };
                if let Wish::Export(name) = wish {
                    let node = node(name).unwrap();
                    let export = self.san.ensure_export(&volume, &node, alone, until);
                    return export.await.map(drop);
                }
                let grown = self.san.ensure_expanded(&volume, 2 * GIB, until).await?;
                assert_eq!(grown.size, 2 * GIB);
                Ok(())
            }
        }
    }
}

fn wanted(name: &str) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size: GIB,
        range: SizeRange::new(i64::try_from(GIB).unwrap(), 0).unwrap(),
        metadata: [("csi/name".to_owned(), name.to_owned())].into(),
        decisive: &["csi/name"],
        source: None,
    }
}

fn snapshot(name: &str, volume: String) -> NewSnapshot {
    NewSnapshot {
        name: format!("{name} snapshot"),
        volume,
        metadata: [("csi/name".to_owned(), name.to_owned())].into(),
        decisive: &["csi/name"],
    }
}

/// The SAN of this name behind so many addresses of the network, as one process sees it: for those above that are to live through the same.
pub(crate) fn fleet_over(net: &Net, name: SanName, addresses: usize, seed: u64) -> Fleet {
    let addresses: Vec<String> = (0..addresses)
        .map(|number| format!("a{number}:1"))
        .collect();
    let family = LinuxSan::dialled(&addresses, seed, net.clone());
    Fleet::of(name, San::new(Family::Linux, family))
}

/// A world that may be troubled, and those who live in it.
struct World {
    double: Double,
    net: Net,
    san: Arc<San>,
}

impl World {
    fn new(addresses: usize, trouble: Trouble, seed: u64) -> Self {
        let addresses: Vec<String> = (0..addresses)
            .map(|number| format!("a{number}:1"))
            .collect();
        let double = Double::new("one");
        let net = Net::new(double.clone(), trouble, seed);
        let family = LinuxSan::dialled(&addresses, seed, net.clone());
        Self {
            double,
            net,
            san: Arc::new(San::new(Family::Linux, family)),
        }
    }

    async fn live(&self, lives: &[&'static [Wish]]) {
        let mut workers = tokio::task::JoinSet::new();
        for (number, &wishes) in lives.iter().enumerate() {
            let mut worker = Worker {
                number,
                san: Arc::clone(&self.san),
                volume: None,
                snapshot: None,
                given_up_until: Until::now(),
            };
            workers.spawn(WORKER.scope(number, async move { worker.live(wishes).await }));
        }
        let together = timeout(AT_MOST, workers.join_all());
        together.await.expect("it never comes to an end");
        // What arrives at last changes nothing any more.
        self.net.wait_until_all_landed().await;
    }

    /// Exactly what was wanted, and nothing beside it.
    fn check(&self, lives: &[&[Wish]]) {
        let volumes = self.double.volumes();
        for (number, wishes) in lives.iter().enumerate() {
            let named = volumes.iter().filter(|it| it.name == format!("v{number}"));
            let named: Vec<_> = named.collect();
            let is_kept = wishes.last() != Some(&Wish::Delete);
            assert_eq!(named.len(), usize::from(is_kept), "v{number}: {named:?}");
            let nodes = |volume: &&crate::linux_san_wire::Volume| {
                let nodes = volume.exported_to.iter().map(|to| to.node_name.clone());
                nodes.collect::<Vec<_>>()
            };
            let exported = wishes.iter().fold(Vec::new(), |now, wish| match wish {
                Wish::Export(node) => vec![(*node).to_owned()],
                Wish::Unexport(_) => Vec::new(),
                _ => now,
            });
            for volume in &named {
                assert_eq!(nodes(volume), exported);
                let size = if wishes.contains(&Wish::Expand) {
                    2 * GIB
                } else {
                    GIB
                };
                assert_eq!(volume.size_bytes, size);
            }
        }
        let wanted = lives.iter().filter(|it| it.last() != Some(&Wish::Delete));
        assert_eq!(volumes.len(), wanted.count());
        let snapshots = lives.iter().filter(|it| it.last() == Some(&Wish::Snapshot));
        assert_eq!(self.double.snapshots(), snapshots.count());
        self.check_looks(lives.len());
    }

    /// After a change whose outcome nobody knows comes a look, before any change of the same worker.
    fn check_looks(&self, workers: usize) {
        for worker in 0..workers {
            let sent = self.net.sent();
            let ours = sent
                .iter()
                .filter(|it| it.worker == Some(worker) && it.call != "Identify");
            let mut is_open = false;
            for message in ours {
                if message.call.starts_with("Find") {
                    is_open &= message.answered != Some(true);
                    continue;
                }
                assert!(!is_open, "{} is sent before a look: {sent:?}", message.call);
                is_open = message.answered != Some(true);
            }
        }
    }
}

fn run<T>(world: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world)
}

async fn with_seed(seed: u64) -> World {
    let mut dice = Dice::new(!seed);
    let trouble = Trouble::OneIn(2 + dice.throw(12), Until::now() + TROUBLED);
    let world = World::new(1 + dice.throw(3), trouble, seed);
    let lives: Vec<&'static [Wish]> = (0..1 + dice.throw(3))
        .map(|_| LIVES[dice.throw(LIVES.len())])
        .collect();
    world.live(&lives).await;
    world.check(&lives);
    world
}

/// Some hundred seeds, 10,000 in the long run.
#[test]
fn whatever_the_network_does_each_name_ends_with_what_was_wanted() {
    let scale = std::env::var("LAB_SCALE").map_or(1.0, |it| it.parse::<f64>().unwrap());
    let seeds = if scale > 1.0 { 10_000 } else { 300 };
    let (mut messages, mut lost) = (0, 0);
    for seed in 0..seeds {
        let world = std::panic::catch_unwind(|| run(with_seed(seed)));
        let world = world.unwrap_or_else(|_| panic!("seed {seed}"));
        let sent = world.net.sent();
        messages += sent.len();
        lost += sent.iter().filter(|it| it.answered != Some(true)).count();
    }
    println!("{seeds} seeds, {messages} messages, {lost} of them without an answer");
    assert!(lost * 20 > messages, "hardly anything went wrong");
}

#[test]
fn a_seed_always_tells_the_same_story() {
    let story = |seed| run(async move { with_seed(seed).await.net.sent() });
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}

/// Each single message of each life, and each thing that can become of it.
#[test]
fn one_trouble_at_any_message_of_any_call_changes_nothing() {
    let mut worlds = 0;
    for wishes in LIVES {
        let live = |trouble: Trouble| {
            run(async move {
                let world = World::new(2, trouble, 1);
                world.live(&[wishes]).await;
                world.check(&[wishes]);
                world.net.count()
            })
        };
        let messages = live(Trouble::At(usize::MAX, Fate::Arrives));
        // Who it is, a look, and the change.
        assert!(messages >= 3 * wishes.len(), "{messages}");
        for at in 0..messages {
            for fate in FATES {
                let trouble = Trouble::At(at, fate);
                let told = format!("{wishes:?} {trouble:?}");
                let ended = std::panic::catch_unwind(|| live(trouble));
                ended.unwrap_or_else(|_| panic!("{told}"));
                worlds += 1;
            }
        }
    }
    println!("{worlds} worlds with one trouble each");
}

#[test]
fn of_thirty_calls_at_once_one_asks_who_is_there_and_none_of_those_just_after() {
    run(async {
        let world = World::new(2, Trouble::At(usize::MAX, Fate::Arrives), 1);
        world.live(&[&[Wish::Create]]).await;
        let asked = || {
            let sent = world.net.sent();
            let asked = sent.iter().filter(|it| it.call == "Identify");
            asked.filter(|it| it.worker.is_some()).count()
        };
        let before = asked();
        sleep(PAUSE).await;
        for _ in 0..2 {
            let calls = (0..30).map(|_| {
                let san = Arc::clone(&world.san);
                let until = Until::now() + BUDGET;
                WORKER.scope(0, async move { san.find_named("v0", until).await })
            });
            let mut together: tokio::task::JoinSet<_> = calls.collect();
            while let Some(found) = together.join_next().await {
                assert!(found.unwrap().unwrap().is_some());
            }
            assert_eq!(asked(), before + 1);
        }
    });
}
