//! Virtual time: it stands still while anybody works and jumps when everybody waits.
//!
//! A thread that waits names the moment it wants to wake at. The clock moves to the earliest such moment, or to the next scheduled event
//! before it, and only when no other thread of this world is running: a thread that computes, or that a busy machine has not let run
//! yet, costs no virtual time, so deadlines mean the same on every machine. Whether a thread runs is asked of `/proc/self/task`; a thread
//! blocked on a lock, a join or a channel counts as not running.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::state::State;

/// How long a waiting thread rests, in real time, before it looks again whether the others still run: twice as long each time, up to …
const REST: Duration = Duration::from_micros(50);
/// … so long; and so long at once when another one waits for an earlier moment, who wakes it.
const LONGEST_REST: Duration = Duration::from_micros(200);
/// A running thread that never called this world may be ours, just born, or another test's. Once it has had the processor for so many
/// nanoseconds it would have called.
const NEWBORN: u64 = 20_000_000;

/// So many looks must find nobody before the clock moves.
const LOOKS: u32 = 3;

pub(super) type Action = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Default)]
pub(super) struct Clock {
    pub(super) now: Duration,
    /// Counts the kernel's events; a watch wakes when it has moved.
    pub(super) events: u64,
    agenda: BTreeMap<(Duration, u64), Action>,
    ordinal: u64,
    /// Who waits, and until when.
    waiting: BTreeMap<i32, Duration>,
    callers: BTreeSet<i32>,
}

impl Clock {
    pub(super) fn note_caller(&mut self, thread: i32) {
        self.callers.insert(thread);
    }

    pub(super) fn schedule(&mut self, span: Duration, action: Action) {
        self.ordinal += 1;
        self.agenda.insert((self.now + span, self.ordinal), action);
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        self.agenda
            .first_key_value()
            .map(|((moment, _), _)| *moment)
    }

    pub(super) fn forget_agenda(&mut self) {
        self.agenda.clear();
    }

    pub(super) fn wait_begins(&mut self, thread: i32, wake: Duration) {
        self.waiting.insert(thread, wake);
    }

    pub(super) fn wait_ends(&mut self, thread: i32) {
        self.waiting.remove(&thread);
    }

    fn is_first(&self, thread: i32) -> bool {
        let mine = self.waiting.get(&thread);
        self.waiting.values().all(|wake| Some(wake) >= mine)
    }

    /// Whether another thread of this world runs.
    fn others_run(&mut self, me: i32, elders: &BTreeSet<i32>) -> bool {
        // Those that are known first: to list all costs more.
        let unsettled = |it: &&i32| **it != me && !self.waiting.contains_key(*it);
        let known: Vec<i32> = self.callers.iter().filter(unsettled).copied().collect();
        for thread in known {
            match runs(thread) {
                Some(true) => return true,
                Some(false) => {}
                None => _ = self.callers.remove(&thread),
            }
        }
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            return false;
        };
        for task in tasks.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let known = self.callers.contains(&thread) || self.waiting.contains_key(&thread);
            if known || thread == me || elders.contains(&thread) {
                continue;
            }
            if runs(thread) == Some(true) && processor_time(thread) < NEWBORN {
                return true;
            }
        }
        false
    }
}

/// Threads that live now: those of other tests, which do not call the world that is being made.
pub(super) fn threads() -> BTreeSet<i32> {
    std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// `None` when there is no such thread any more.
fn runs(thread: i32) -> Option<bool> {
    // The name is of 15 bytes at most, and the state follows it.
    let mut head = [0; 64];
    let mut stat = std::fs::File::open(format!("/proc/self/task/{thread}/stat")).ok()?;
    let read = stat.read(&mut head).ok()?;
    let state = head[..read].rsplitn(2, |byte| *byte == b')').next();
    Some(matches!(state, Some([b' ', b'R' | b'D', ..])))
}

/// Kernel documentation `scheduler/sched-stats.rst`: the first number.
fn processor_time(thread: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"));
    let first = stat
        .ok()
        .and_then(|stat| stat.split(' ').next()?.parse().ok());
    // Ended meanwhile.
    first.unwrap_or(u64::MAX)
}

impl State {
    /// Something happened that the kernel reports.
    pub(super) fn event(&mut self) {
        self.clock.events += 1;
    }

    pub(super) fn later(
        &mut self,
        span: Duration,
        action: impl FnOnce(&mut State) + Send + 'static,
    ) {
        self.clock.schedule(span, Box::new(action));
    }

    /// Moves to the next event at or before `limit` and lets it happen; without one, to `limit`.
    pub(super) fn advance(&mut self, limit: Duration) {
        let due = self
            .clock
            .next_event()
            .is_some_and(|moment| moment <= limit);
        if due && let Some(((moment, _), action)) = self.clock.agenda.pop_first() {
            self.clock.now = self.clock.now.max(moment);
            action(self);
            return;
        }
        self.clock.now = self.clock.now.max(limit);
    }
}

/// What a waiting thread saw so far.
#[derive(Default)]
pub(super) struct Quiet {
    /// So many looks in a row found nobody who runs …
    looks: u32,
    /// … while this was the number of calls.
    calls: usize,
    /// How often it rested since the clock was moved by it.
    rests: u32,
}

impl Quiet {
    fn rest(&mut self, first: bool) -> Duration {
        self.rests += 1;
        let doubled = REST * 2_u32.pow(self.rests.min(2));
        if first {
            doubled.min(LONGEST_REST)
        } else {
            LONGEST_REST
        }
    }
}

/// The turn of the threads: who may move the clock.
pub(super) struct Turn {
    pub(super) changed: Condvar,
    /// Threads between asking for the state and having it.
    pub(super) entering: AtomicUsize,
    /// How often anybody asked for the state.
    pub(super) calls: AtomicUsize,
    pub(super) elders: BTreeSet<i32>,
}

impl Turn {
    pub(super) fn new() -> Self {
        let me = nix::unistd::gettid().as_raw();
        let mut elders = threads();
        elders.remove(&me);
        Self {
            changed: Condvar::new(),
            entering: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            elders,
        }
    }

    /// One look of a waiting thread: moves the clock when it is this thread's turn, else rests. May give the state back.
    pub(super) fn wait_once<'s>(
        &self,
        mut state: std::sync::MutexGuard<'s, State>,
        me: i32,
        wake: Duration,
        quiet: &mut Quiet,
    ) -> Option<std::sync::MutexGuard<'s, State>> {
        let first = state.clock.is_first(me);
        let alone = first
            && !state.clock.others_run(me, &self.elders)
            && self.entering.load(Ordering::SeqCst) == 0;
        // Who is entering is asked after who runs: one that still ran at the first look may block on the state, which we hold, before the
        // second. And one look is not enough: a thread may rest for a moment on a lock that this world knows nothing of. So the clock
        // moves at the last of several looks in a row that find nobody, with no call between them.
        let calls = self.calls.load(Ordering::SeqCst);
        quiet.looks = if !alone {
            0
        } else if quiet.calls == calls {
            quiet.looks + 1
        } else {
            1
        };
        quiet.calls = calls;
        if quiet.looks >= LOOKS {
            quiet.looks = 0;
            state.advance(wake);
            self.changed.notify_all();
            return Some(state);
        }
        if alone {
            // Cheaper than a rest, and whoever can run does.
            drop(state);
            std::thread::yield_now();
            return None;
        }
        let rested = self.changed.wait_timeout(state, quiet.rest(first));
        Some(rested.unwrap_or_else(std::sync::PoisonError::into_inner).0)
    }
}
