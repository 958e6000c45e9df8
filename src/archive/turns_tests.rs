//! Every way in which an upload, a deletion and two prunes can take turns, each stopped before any call that the protocol of deletion rests on. Where
//! `race_tests` throws dice, here nothing in these turns is left out: the few orders among thousands in which a swapped pair of lists loses a chunk are met.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::memory::{Memory, Volume, opened};
use super::open_archive::lock;
use super::race_tests::{assert_clean, assert_whole};
use super::*;
use crate::host::fake::sweep;

const DAY: Duration = Duration::from_hours(24);
/// No upload is given up here: what is looked for needs nobody to be late.
const PATIENCE: Patience = Patience {
    grace: DAY,
    lease: Duration::from_hours(24 * 1000),
};

/// What is carried by whom: both snapshots are of the same chunk.
const CONTENTS: [(&str, &str); 2] = [("old", "p"), ("new", "p")];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    /// Deletes the old snapshot.
    Deletion,
    /// Carries the new one.
    Upload,
    Prune,
    OtherPrune,
}
use Actor::{Deletion, OtherPrune, Prune, Upload};

#[derive(Clone, Copy)]
enum Turn {
    /// Until some call; every one of them in another run.
    Stop(Actor),
    End(Actor),
    /// Longer than the grace.
    Wait,
    /// The store's clock goes back by as much: nothing may rest on it.
    Back,
}
use Turn::{Back, End, Stop, Wait};

/// Who has the turn, and for how many more of the calls that matter; without a number, to the end.
#[derive(Default)]
struct Turnstile {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    turn: Option<(Actor, Option<usize>)>,
    over: BTreeSet<Actor>,
}

impl Turnstile {
    /// An actor before a call.
    fn enter(&self, actor: Actor, matters: bool) {
        let mut state = lock(&self.state);
        loop {
            match &mut state.turn {
                Some((holder, Some(0))) if *holder == actor && matters => {
                    state.turn = None;
                    self.changed.notify_all();
                }
                Some((holder, left)) if *holder == actor => {
                    if let Some(left) = left.as_mut().filter(|_| matters) {
                        *left -= 1;
                    }
                    return;
                }
                _ => state = self.changed.wait(state).unwrap(),
            }
        }
    }

    fn is_over(&self, actor: Actor) {
        let mut state = lock(&self.state);
        state.over.insert(actor);
        state.turn = None;
        self.changed.notify_all();
    }

    /// Gives `actor` the turn and waits for its end. Whether it has more to do.
    fn give(&self, actor: Actor, calls: Option<usize>) -> bool {
        let mut state = lock(&self.state);
        if state.over.contains(&actor) {
            return false;
        }
        state.turn = Some((actor, calls));
        self.changed.notify_all();
        while state.turn.is_some() {
            state = self.changed.wait(state).unwrap();
        }
        !state.over.contains(&actor)
    }
}

/// The store as one actor has it.
struct InTurn<'a> {
    memory: &'a Memory,
    turnstile: &'a Turnstile,
    actor: Actor,
}

impl InTurn<'_> {
    fn enter(&self, name: &str) {
        let root = name.split('/').next().unwrap();
        let matters = ["chunks", "condemned", "pending", "manifests"].contains(&root);
        self.turnstile.enter(self.actor, matters);
    }
}

impl Objects for InTurn<'_> {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        self.enter(name);
        self.memory.put(name, content)
    }
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.enter(name);
        self.memory.find(name)
    }
    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.enter(under);
        self.memory.list_while(under, show)
    }
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.enter(name);
        self.memory.remove(name)
    }
}

fn carry(objects: &dyn Objects, at: usize) -> Result<(), ArchiveError> {
    let (snapshot, letters) = CONTENTS[at];
    let volume = Volume::of(letters);
    let job = Job {
        snapshot: snapshot.parse().unwrap(),
        volume: None,
        cut_at: 0,
        notes: std::collections::BTreeMap::new(),
        runs: Runs::Allocated(volume.all()),
    };
    upload(&opened(objects), &job, &volume).map(drop)
}

fn act(actor: Actor, objects: &dyn Objects) -> Result<(), ArchiveError> {
    match actor {
        Deletion => Ok(remove_snapshot(objects, &"old".parse().unwrap())?),
        Upload => carry(objects, 1),
        Prune | OtherPrune => prune(&opened(objects), PATIENCE).map(drop),
    }
}

/// One run with these stops. The number of the first stop before which its actor had ended, so that a later one is none.
fn run(turns: &[Turn], stops: &[usize]) -> Option<usize> {
    let memory = Arc::new(Memory::default());
    memory.later(DAY * 100);
    carry(memory.as_ref(), 0).unwrap();
    memory.later(DAY * 2);
    let turnstile = Turnstile::default();
    let mut beyond = None;
    std::thread::scope(|scope| {
        for actor in [Deletion, Upload, Prune, OtherPrune] {
            let (memory, turnstile) = (&memory, &turnstile);
            scope.spawn(move || {
                let in_turn = InTurn {
                    memory,
                    turnstile,
                    actor,
                };
                let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    act(actor, &in_turn).unwrap();
                }));
                turnstile.is_over(actor);
                acted.unwrap();
            });
        }
        let mut number = 0;
        for turn in turns {
            match turn {
                Stop(actor) => {
                    let has_more = turnstile.give(*actor, Some(stops[number]));
                    beyond = beyond.or((!has_more).then_some(number));
                    number += 1;
                }
                End(actor) => drop(turnstile.give(*actor, None)),
                Wait => memory.later(DAY * 2),
                Back => memory.earlier(DAY * 2),
            }
        }
        for actor in [Deletion, Upload, Prune, OtherPrune] {
            turnstile.give(actor, None);
        }
    });
    assert_whole(&memory, &CONTENTS);
    // It takes as long as the turns themselves.
    let stride = if sweep::is_whole() { 4 } else { 16 };
    if stops.iter().sum::<usize>().is_multiple_of(stride) {
        assert_nothing_stays(&memory);
    }
    beyond
}

/// What quiet prunes leave: the new snapshot and what it names, and without it nothing.
fn assert_nothing_stays(memory: &Memory) {
    for is_deleted in [false, true] {
        if is_deleted {
            remove_snapshot(memory, &"new".parse().unwrap()).unwrap();
        }
        for _ in 0..2 {
            memory.later(DAY * 4);
            prune(&opened(memory), PATIENCE).unwrap();
            assert_whole(memory, &CONTENTS);
        }
    }
    assert_clean(memory);
    assert_eq!(memory.count("chunks"), 0);
}

/// Every combination of stops. How many there were.
fn run_all(turns: &[Turn]) -> usize {
    let count = turns.iter().filter(|turn| matches!(turn, Stop(_))).count();
    let (mut stops, mut runs) = (vec![0; count], 0);
    loop {
        let ran = std::panic::catch_unwind(|| run(turns, &stops));
        let beyond = ran.unwrap_or_else(|_| panic!("with stops at {stops:?}"));
        runs += 1;
        let mut at = count;
        // One that ended has no later stop: the one before it moves on.
        if let Some(beyond) = beyond {
            at = beyond;
        }
        if at == 0 {
            return runs;
        }
        stops[at..].fill(0);
        stops[at - 1] += 1;
    }
}

/// A prune condemns, by the word of old lists, what an upload has found meanwhile; the next one sweeps beside the upload's end.
#[test]
fn no_turns_of_an_upload_between_two_prunes_lose_a_chunk() {
    let runs = run_all(&[
        End(Deletion),
        Wait,
        Stop(Prune),
        Stop(Upload),
        End(Prune),
        Wait,
        Stop(OtherPrune),
        Stop(Upload),
        End(OtherPrune),
        End(Upload),
    ]);
    assert!(runs > 1000, "only {runs}");
}

/// The same with a store whose clock says that what was condemned just now was condemned long ago.
#[test]
fn no_turns_lose_a_chunk_when_the_clock_lies() {
    let runs = run_all(&[
        End(Deletion),
        Wait,
        Stop(Prune),
        Stop(OtherPrune),
        Stop(Upload),
        Back,
        End(Prune),
        End(OtherPrune),
        End(Upload),
    ]);
    assert!(runs > 200, "only {runs}");
}

/// A deletion in the middle of an upload that shares all of its chunks.
#[test]
fn no_turns_of_a_deletion_lose_a_chunk() {
    let runs = run_all(&[
        Stop(Upload),
        Stop(Deletion),
        End(Prune),
        End(Deletion),
        Wait,
        Stop(OtherPrune),
        End(Upload),
        End(OtherPrune),
    ]);
    assert!(runs > 100, "only {runs}");
}
