//! Two controllers that both think they lead: at each call to a SAN or an archiver dice say whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::life::{Life, Stage};
use super::rig::{Held, Rig, content, lock};
use super::ways::{Doing, Free, Leader, Toll};
use crate::fault::Fault;
use crate::host::fake::PortalState;

/// Where leaders wait with each call until they are told.
#[derive(Default)]
struct Floor {
    state: Mutex<FloorState>,
    changed: Notify,
    /// Nobody waits any more.
    is_open: AtomicBool,
}

#[derive(Default)]
struct FloorState {
    waiting: BTreeMap<usize, oneshot::Sender<()>>,
    ended: BTreeSet<usize>,
    /// Who made which call, for whoever reads of a failure.
    story: Vec<String>,
}

impl Floor {
    async fn wait(&self, leader: usize, call: &str) {
        if self.is_open.load(Ordering::SeqCst) {
            return;
        }
        let (tell, told) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            state.waiting.insert(leader, tell);
            state.story.push(format!("{leader} {call}"));
        }
        self.changed.notify_one();
        told.await.unwrap();
    }

    fn end(&self, leader: usize) {
        lock(&self.state).ended.insert(leader);
        self.changed.notify_one();
    }

    /// Those who wait, once nobody runs.
    async fn still(&self, leaders: usize) -> Vec<usize> {
        loop {
            {
                let state = lock(&self.state);
                if state.waiting.len() + state.ended.len() == leaders {
                    return state.waiting.keys().copied().collect();
                }
            }
            self.changed.notified().await;
        }
    }

    fn tell(&self, leader: usize) {
        let tell = lock(&self.state).waiting.remove(&leader);
        tell.unwrap().send(()).unwrap();
    }

    /// Lets one leader after the other make some calls.
    async fn direct(&self, leaders: usize, mut dice: Dice) {
        let (mut leader, mut calls) = (0, 0);
        loop {
            let waiting = self.still(leaders).await;
            if waiting.is_empty() {
                return;
            }
            if calls == 0 || !waiting.contains(&leader) {
                leader = waiting[dice.below(waiting.len())];
                // Few, so that they meet; or many, so that one sleeps in the middle of what it does.
                let most = [2, 6, 40][dice.below(3)];
                calls = 1 + dice.below(most);
            }
            calls -= 1;
            self.tell(leader);
        }
    }
}

/// A leader's turns.
struct Ticket(Arc<Floor>, usize);

impl Toll for Ticket {
    fn pass<'a>(&'a self, call: &'a str, doing: Doing<'a>) -> Doing<'a> {
        Box::pin(async move {
            if call != "Identify" {
                self.0.wait(self.1, call).await;
            }
            doing.await
        })
    }
}

/// Numbers that look like chance and are the same for the same seed (xorshift).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.max(1)))
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

/// What a leader does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// What the sidecars ask for, to the end of this stage.
    Asked(Stage),
    /// A snapshot is asked for once, and deleted.
    GivenUp,
    /// So many rounds of what nobody asks for.
    Rounds(u32),
}
use Act::{Asked, GivenUp, Rounds};

/// What came before, and what the two do at once.
type Scene = (Option<Stage>, Act, Act);

const SCENES: [Scene; 10] = [
    (None, Asked(Stage::Archive), Asked(Stage::Archive)),
    (None, Asked(Stage::Archive), Rounds(3)),
    (None, GivenUp, Rounds(4)),
    (
        Some(Stage::Archive),
        Asked(Stage::Restore),
        Asked(Stage::Restore),
    ),
    (Some(Stage::Archive), Asked(Stage::Restore), Rounds(3)),
    (Some(Stage::Archive), Asked(Stage::Remove), Rounds(6)),
    (
        Some(Stage::Restore),
        Asked(Stage::Delete),
        Asked(Stage::Delete),
    ),
    (Some(Stage::Restore), Asked(Stage::Remove), Rounds(3)),
    (None, Asked(Stage::Remove), Rounds(9)),
    (None, Asked(Stage::Restore), Asked(Stage::Restore)),
];

async fn act(life: &mut Life<'_>, leader: &Leader, act: Act) {
    match act {
        Asked(last) => life.go_on(&leader.controller, last).await,
        GivenUp => life.give_up(&leader.controller).await,
        Rounds(rounds) => {
            for _ in 0..rounds {
                leader.controller.reconcile().await;
                life.rig.at_rest().await;
            }
        }
    }
}

async fn play(rig: &Rig, life: &mut Life<'_>, (before, one, other): Scene, dice: Dice) {
    let free = rig.leader(Arc::new(Free)).await;
    if let Some(before) = before {
        life.go_on(&free.controller, before).await;
    }
    let floor = Arc::<Floor>::default();
    let mut lives = [life.clone(), life.clone()];
    let leaders = [
        rig.leader(Arc::new(Ticket(Arc::clone(&floor), 0))).await,
        rig.leader(Arc::new(Ticket(Arc::clone(&floor), 1))).await,
    ];
    let [first, second] = &mut lives;
    let first = async {
        act(first, &leaders[0], one).await;
        floor.end(0);
    };
    let second = async {
        act(second, &leaders[1], other).await;
        floor.end(1);
    };
    tokio::join!(first, second, floor.direct(2, dice));
    let [first, _] = lives;
    *life = first;
    let next = rig.leader(Arc::new(Free)).await;
    // Both have been there long and go on looking.
    floor.is_open.store(true, Ordering::SeqCst);
    for leader in &leaders {
        rig.reconciled(&leader.controller).await;
    }
    life.assert_ends(&next.controller).await;
}

async fn play_all(scenes: impl Iterator<Item = Scene>) {
    let rig = Rig::new(2).await;
    let source = rig.volume("v", &content(7)).await;
    for (number, scene) in (1..).zip(scenes) {
        let mut life = Life::new(&rig, &source.id, number, number.is_multiple_of(2));
        play(&rig, &mut life, scene, Dice::new(number)).await;
    }
    rig.assert_empties();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_at_once_leave_nothing_and_lose_nothing() {
    play_all(SCENES.into_iter().step_by(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "every scene: half a minute; make deaths, and so make test-full"]
async fn two_controllers_in_every_scene_leave_nothing_and_lose_nothing() {
    play_all(SCENES.into_iter()).await;
}

/// Waits before its first call of one name.
struct Hold {
    call: &'static str,
    is_reached: CancellationToken,
    may_go: CancellationToken,
}

impl Hold {
    fn new(call: &'static str) -> Arc<Self> {
        Arc::new(Self {
            call,
            is_reached: CancellationToken::new(),
            may_go: CancellationToken::new(),
        })
    }
}

impl Toll for Hold {
    fn pass<'a>(&'a self, call: &'a str, doing: Doing<'a>) -> Doing<'a> {
        Box::pin(async move {
            if call == self.call {
                self.is_reached.cancel();
                self.may_go.cancelled().await;
            }
            doing.await
        })
    }
}

/// One controller deletes what another one has just begun to carry: it looked for a carrier before there was one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_deleted_while_another_controller_finds_it_stays_deleted() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let mut life = Life::new(&rig, &source.id, 1, true);
    // It goes no further.
    *lock(&rig.machines[0].trouble) = Some((Fault::MaybeDone, "not now".to_owned()));
    let free = rig.leader(Arc::new(Free)).await;
    life.ask_once(&free.controller).await;
    assert_eq!(rig.volume_names(), ["v"]);
    let (deletes, carries) = (Hold::new("DeleteSnapshot"), Hold::new("StartArchive"));
    let one = rig.leader(Arc::clone(&deletes) as _).await;
    let other = rig.leader(Arc::clone(&carries) as _).await;
    let deleted = life.delete(&one.controller);
    let carried = other.controller.reconcile();
    let told = async {
        deletes.is_reached.cancelled().await;
        *lock(&rig.machines[0].trouble) = None;
        carries.is_reached.cancelled().await;
        deletes.may_go.cancel();
    };
    let deleted = async {
        deleted.await;
        carries.may_go.cancel();
    };
    let carried = async {
        deletes.is_reached.cancelled().await;
        carried.await;
    };
    tokio::join!(deleted, carried, told);
    rig.at_rest().await;
    rig.reconciled(&free.controller).await;
    life.assert_ends(&free.controller).await;
}

/// A work that another controller has begun again, after it was given up and before its volume was taken back, has read all and puts its last object late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_last_object_is_late_is_not_deleted_before_it() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let mut life = Life::new(&rig, &source.id, 1, true);
    let (machine, held) = (&rig.machines[0], Arc::<Held>::default());
    machine.set_portals(PortalState::BlackHoled);
    let free = rig.leader(Arc::new(Free)).await;
    life.ask_once(&free.controller).await;
    assert_eq!(rig.volume_names().len(), 2);
    let takes_back = Hold::new("UnexportVolume");
    let one = rig.leader(Arc::clone(&takes_back) as _).await;
    let is_deleted = AtomicBool::new(false);
    let deleted = async {
        life.delete(&one.controller).await;
        is_deleted.store(true, Ordering::SeqCst);
    };
    let told = async {
        takes_back.is_reached.cancelled().await;
        machine.set_portals(PortalState::Up);
        *lock(&machine.held) = Some(Arc::clone(&held));
        free.controller.reconcile().await;
        while !held.is_reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        takes_back.may_go.cancel();
        // As long as a deletion takes that waits for nobody, and longer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!is_deleted.load(Ordering::SeqCst), "it may come back");
        held.open();
    };
    tokio::join!(deleted, told);
    rig.at_rest().await;
    rig.reconciled(&free.controller).await;
    life.assert_ends(&free.controller).await;
}

/// One controller restores all of it while the other one is about to show the same filler to an archiver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_controller_took_away_is_asked_for_again() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let mut life = Life::new(&rig, &source.id, 1, false);
    let free = rig.leader(Arc::new(Free)).await;
    life.go_on(&free.controller, Stage::Archive).await;
    let hold = Hold::new("ExportVolume");
    let late = rig.leader(Arc::clone(&hold) as _).await;
    let mut same = life.clone();
    let other = async {
        hold.is_reached.cancelled().await;
        life.go_on(&free.controller, Stage::Restore).await;
        hold.may_go.cancel();
    };
    tokio::join!(same.go_on(&late.controller, Stage::Restore), other);
    assert_eq!(same.restored, life.restored);
    rig.reconciled(&free.controller).await;
    life.assert_ends(&free.controller).await;
}
