//! A controller dies at each of its calls to a SAN or an archiver; another one, that knows nothing, comes in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::life::{Life, Stage};
use super::rig::{Rig, content};
use super::ways::{CHANGES, Doing, Free, Toll};

/// How the call ends at which a controller dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Done, and the answer not heard.
    Unheard,
    /// On its way, and done only before so manieth change that the next controller makes.
    Late(u64),
}

/// Ends its controller in one of its changes.
struct Fuse {
    at: u64,
    end: End,
    changes: AtomicU64,
    is_dead: CancellationToken,
    call: CancellationToken,
    is_done: CancellationToken,
}

impl Fuse {
    fn new(at: u64, end: End) -> Arc<Self> {
        Arc::new(Self {
            at,
            end,
            changes: AtomicU64::new(0),
            is_dead: CancellationToken::new(),
            call: CancellationToken::new(),
            is_done: CancellationToken::new(),
        })
    }

    /// What was on its way arrives.
    async fn arrives(&self) {
        self.call.cancel();
        self.is_done.cancelled().await;
    }
}

impl Toll for Fuse {
    fn pass<'a>(&'a self, call: &'a str, doing: Doing<'a>) -> Doing<'a> {
        Box::pin(async move {
            if !CHANGES.contains(&call) {
                return doing.await;
            }
            let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
            if change != self.at {
                return doing.await;
            }
            if let End::Late(_) = self.end {
                self.is_dead.cancel();
                self.call.cancelled().await;
            }
            let answer = doing.await;
            self.is_done.cancel();
            self.is_dead.cancel();
            // Nobody hears it.
            answer
        })
    }
}

/// The next controller, in the midst of whose changes the last one of the dead arrives.
struct Heir {
    fuse: Arc<Fuse>,
    before: u64,
    changes: AtomicU64,
}

impl Toll for Heir {
    fn pass<'a>(&'a self, call: &'a str, doing: Doing<'a>) -> Doing<'a> {
        Box::pin(async move {
            if CHANGES.contains(&call) {
                let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
                if change == self.before {
                    self.fuse.arrives().await;
                }
            }
            doing.await
        })
    }
}

/// One death: the snapshot's life with it, and what the rounds of the next controller make of it before anybody asks again.
async fn dies(rig: &Rig, life: &mut Life<'_>, (at, end): (u64, End), is_asked: bool) -> bool {
    let fuse = Fuse::new(at, end);
    let first = rig.leader(Arc::clone(&fuse) as _).await;
    let lived = life.go_on(&first.controller, Stage::Delete);
    let died = fuse.is_dead.run_until_cancelled(lived).await.is_none();
    drop(first);
    let toll: Arc<dyn Toll> = match end {
        End::Late(before) if died => Arc::new(Heir {
            fuse: Arc::clone(&fuse),
            before,
            changes: AtomicU64::new(0),
        }),
        _ => Arc::new(Free),
    };
    let next = rig.leader(toll).await;
    if is_asked {
        life.go_on(&next.controller, Stage::Delete).await;
    } else {
        rig.reconciled(&next.controller).await;
    }
    if died {
        fuse.arrives().await;
    }
    rig.reconciled(&next.controller).await;
    life.assert_all_or_nothing(&next.controller).await;
    life.go_on(&next.controller, Stage::Remove).await;
    rig.reconciled(&next.controller).await;
    life.assert_over();
    died
}

/// A death at one change after the other, so many apart, until no life comes to it; how many there were. Whether the SAN keeps its cut, and whether somebody asks before
/// the next controller has looked by itself, goes round. A third of them once more with a call that is on its way, and arrives more or less late.
async fn dies_again_and_again(first: u64, apart: usize) -> u64 {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let (mut deaths, mut lives) = (0, 0);
    for (turn, at) in (0_u64..).zip((first..).step_by(apart)) {
        let mut ends = vec![(End::Unheard, turn.is_multiple_of(2))];
        if turn % 3 == 1 {
            ends.push((End::Late(1 + at % 4), turn % 2 == 1));
        }
        for (end, is_asked) in ends {
            lives += 1;
            let mut life = Life::new(&rig, &source.id, lives, turn % 4 < 2);
            if !dies(&rig, &mut life, (at, end), is_asked).await {
                rig.assert_empties();
                return deaths;
            }
            deaths += 1;
        }
    }
    unreachable!("a life has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_dies_at_a_call_leaves_nothing_and_loses_nothing() {
    let deaths = dies_again_and_again(2, 5).await;
    assert!(deaths > 3, "{deaths} deaths are too few");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "every change: half a minute; make deaths, and so make test-full"]
async fn a_controller_that_dies_at_any_call_leaves_nothing_and_loses_nothing() {
    let deaths = dies_again_and_again(1, 1).await;
    assert!(deaths > 20, "{deaths} deaths are too few to be all");
}

/// What is on its way when its controller dies arrives when all is done, and nobody asks any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_arrives_when_all_is_done_is_undone() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    // It would show the cut to an archiver, and give the archiver a volume to fill.
    for (number, before, stage, at) in [
        (1, None, Stage::Archive, 2),
        (2, Some(Stage::Archive), Stage::Restore, 1),
    ] {
        let mut life = Life::new(&rig, &source.id, number, true);
        let free = rig.leader(Arc::new(Free)).await;
        if let Some(before) = before {
            life.go_on(&free.controller, before).await;
        }
        let fuse = Fuse::new(at, End::Late(0));
        let first = rig.leader(Arc::clone(&fuse) as _).await;
        let mut cut_off = life.clone();
        let lived = cut_off.go_on(&first.controller, stage);
        assert!(fuse.is_dead.run_until_cancelled(lived).await.is_none());
        drop(first);
        // It has seen the end and knows of it.
        life.go_on(&free.controller, stage).await;
        rig.reconciled(&free.controller).await;
        let before = rig.volume_names();
        fuse.arrives().await;
        assert!(rig.volume_names().len() > before.len());
        rig.reconciled(&free.controller).await;
        assert_eq!(rig.volume_names(), before);
        life.assert_ends(&free.controller).await;
    }
}
