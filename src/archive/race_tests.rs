//! Uploads, deletions and prunes at once, in any order of their calls, ended in any of them: nothing that a manifest names is ever gone, and at the end
//! nothing is left that none names.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::memory::{Memory, Volume, opened};
use super::open_archive::lock;
use super::*;
use crate::host::fake::sweep;

/// Hardly any: whatever a clock could protect is not protected here.
const HASTE: Patience = Patience {
    grace: Duration::from_secs(1),
    lease: Duration::from_secs(3),
};

/// What becomes of an actor's next call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    EndsBefore,
    EndsAfter,
}

/// Where actors wait with each call until they are told.
#[derive(Default)]
struct Stage {
    state: Mutex<StageState>,
    changed: Condvar,
}

#[derive(Default)]
struct StageState {
    waiting: BTreeSet<usize>,
    told: Option<(usize, Fate)>,
    running: usize,
}

impl Stage {
    /// The actor waits for its turn.
    fn enter(&self, actor: usize) -> Fate {
        let mut state = lock(&self.state);
        state.waiting.insert(actor);
        state.running -= 1;
        self.changed.notify_all();
        loop {
            if let Some((told, fate)) = state.told
                && told == actor
            {
                state.told = None;
                return fate;
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    fn leave(&self) {
        lock(&self.state).running -= 1;
        self.changed.notify_all();
    }

    /// Those who wait, once nobody runs.
    fn still(&self) -> Vec<usize> {
        let mut state = lock(&self.state);
        while state.running > 0 {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting.iter().copied().collect()
    }

    fn tell(&self, actor: usize, fate: Fate) {
        let mut state = lock(&self.state);
        state.waiting.remove(&actor);
        state.running += 1;
        state.told = Some((actor, fate));
        self.changed.notify_all();
    }
}

/// The store as one actor has it.
struct OnStage {
    memory: Arc<Memory>,
    stage: Arc<Stage>,
    actor: usize,
}

impl OnStage {
    fn call<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.stage.enter(self.actor) {
            Fate::Done => work(),
            Fate::EndsBefore => Err(StoreError::Crashed),
            Fate::EndsAfter => work().and(Err(StoreError::Crashed)),
        }
    }
}

impl Objects for OnStage {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        self.call(|| self.memory.put(name, content))
    }
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|| self.memory.find(name))
    }
    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.call(|| self.memory.list_while(under, show))
    }
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.call(|| self.memory.remove(name))
    }
}

type Act = fn(&OpenArchive<'_>) -> Result<(), ArchiveError>;

const CONTENTS: [(&str, &str); 3] = [("a", "pqr."), ("b", "qr.s"), ("c", "pq")];

fn carry(archive: &OpenArchive<'_>, at: usize, base: Option<&str>) -> Result<(), ArchiveError> {
    let (snapshot, letters) = CONTENTS[at];
    let volume = Volume::of(letters);
    let runs = match base {
        None => Runs::Allocated(volume.all()),
        // Everything may have changed but what is the same in both.
        Some(base) => Runs::Changed {
            base: base.parse().unwrap(),
            runs: vec![Run {
                offset: 4096 * 2,
                length: 4096 * 8,
            }],
        },
    };
    let job = Job {
        notes: std::collections::BTreeMap::new(),
        snapshot: snapshot.parse().unwrap(),
        volume: None,
        cut_at: 0,
        runs,
    };
    match upload(archive, &job, &volume) {
        Err(ArchiveError::Deleted(_)) => Ok(()),
        carried => carried.map(drop),
    }
}

fn hasty_prune(archive: &OpenArchive<'_>) -> Result<(), ArchiveError> {
    prune(archive, HASTE).map(drop)
}

/// Two archivers carry the same snapshot; one is deleted, and carried again; prune runs twice at a time.
const ACTORS: [&[Act]; 5] = [
    &[
        |archive| carry(archive, 0, None),
        |archive| carry(archive, 1, None),
    ],
    &[
        |archive| carry(archive, 0, None),
        |archive| carry(archive, 2, Some("a")),
    ],
    &[
        |archive| Ok(remove_snapshot(archive.objects, &"a".parse().unwrap())?),
        |archive| Ok(remove_snapshot(archive.objects, &"b".parse().unwrap())?),
        |archive| carry(archive, 1, None),
    ],
    &[hasty_prune as Act; 5],
    &[hasty_prune as Act; 5],
];

/// One actor: what crashes is begun again, as a process would be.
fn play(on_stage: &OnStage, acts: &[Act]) {
    for act in acts {
        for _ in 0..3 {
            match act(&opened(on_stage)) {
                Err(ArchiveError::Store(StoreError::Crashed)) => {}
                Ok(()) | Err(ArchiveError::Revoked(_) | ArchiveError::Unproven(_)) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// Everything that a manifest names is there, whole.
pub(super) fn assert_whole(memory: &Memory, contents: &[(&str, &str)]) {
    for name in memory.names() {
        if !name.starts_with("manifests/") {
            continue;
        }
        let Some(manifest) = Manifest::read(&memory.get(&name).unwrap()).unwrap() else {
            continue;
        };
        let letters = contents
            .iter()
            .find(|(snapshot, _)| manifest.about.snapshot.as_str() == *snapshot);
        let expected = Volume::of(letters.unwrap().1).content();
        let mut found = vec![0; expected.len()];
        for held in &manifest.chunks {
            let object = memory.get(&held.key.name());
            let object = object.unwrap_or_else(|| panic!("{} of {name} is gone", held.key.name()));
            let at = usize::try_from(held.index).unwrap() * 4096;
            found[at..at + 4096].copy_from_slice(&open(&object, &held.key.digest, 4096).unwrap());
        }
        assert_eq!(found, expected, "{name}");
    }
}

/// Nothing is there that no manifest names; revocations stay.
pub(super) fn assert_clean(memory: &Memory) {
    for root in ["pending", "intents", "condemned", "clock", "deleted"] {
        assert_eq!(memory.count(root), 0, "{root}: {:?}", memory.names());
    }
    let mut named = BTreeSet::new();
    for name in memory.names() {
        if name.starts_with("manifests/")
            && let Some(manifest) = Manifest::read(&memory.get(&name).unwrap()).unwrap()
        {
            named.extend(manifest.chunks.iter().map(|held| held.key.name()));
        }
    }
    let there = memory.names().into_iter();
    let there: BTreeSet<String> = there.filter(|name| name.starts_with("chunks/")).collect();
    assert_eq!(there, named);
}

fn run(schedule: &[u8]) {
    let (memory, stage) = (Arc::new(Memory::default()), Arc::new(Stage::default()));
    lock(&stage.state).running = ACTORS.len();
    std::thread::scope(|scope| {
        for (actor, acts) in ACTORS.iter().enumerate() {
            let on_stage = OnStage {
                memory: Arc::clone(&memory),
                stage: Arc::clone(&stage),
                actor,
            };
            scope.spawn(move || {
                let stage = Arc::clone(&on_stage.stage);
                let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    play(&on_stage, acts);
                }));
                stage.leave();
                played.unwrap();
            });
        }
        direct(&memory, &stage, schedule);
    });
    assert_whole(&memory, &CONTENTS);
    // What was condemned while it was named goes when its last manifest does, so all of them go in the end.
    for _ in 0..3 {
        memory.later(Duration::from_secs(10_000));
        prune(&opened(memory.as_ref()), HASTE).unwrap();
        assert_whole(&memory, &CONTENTS);
    }
    for (snapshot, _) in CONTENTS {
        remove_snapshot(memory.as_ref(), &snapshot.parse().unwrap()).unwrap();
    }
    for _ in 0..3 {
        memory.later(Duration::from_secs(10_000));
        prune(&opened(memory.as_ref()), HASTE).unwrap();
    }
    assert_clean(&memory);
    assert_eq!(memory.count("chunks"), 0);
}

/// Lets one actor after the other make one call, as `schedule` has it; and time goes on.
fn direct(memory: &Memory, stage: &Stage, schedule: &[u8]) {
    let mut schedule = schedule.iter().copied();
    let mut turn = 0_usize;
    loop {
        let waiting = stage.still();
        if waiting.is_empty() {
            return;
        }
        assert_whole(memory, &CONTENTS);
        let word = schedule.next();
        turn += 1;
        let (at, fate) = match word {
            // The rest goes by turns.
            None => (turn, Fate::Done),
            Some(word @ 236..=245) => (usize::from(word), Fate::EndsBefore),
            Some(word @ 246..) => (usize::from(word), Fate::EndsAfter),
            Some(word) => (usize::from(word), Fate::Done),
        };
        match word {
            Some(word) if word % 7 == 0 => memory.later(Duration::from_secs(5)),
            _ if turn.is_multiple_of(8) => memory.later(Duration::from_secs(1)),
            _ => {}
        }
        stage.tell(waiting[at % waiting.len()], fate);
    }
}

/// Words in runs, so that one actor gets far while others sleep in the middle of what they do.
fn schedules() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 1..40_usize).prop_map(|(word, times)| vec![word; times]);
    let single = proptest::collection::vec(any::<u8>(), 1..20);
    proptest::collection::vec(prop_oneof![2 => run, 1 => single], 0..40)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(sweep::cases(48))]
    #[test]
    fn nothing_named_is_ever_removed_and_nothing_else_stays(schedule in schedules()) {
        run(&schedule);
    }
}
