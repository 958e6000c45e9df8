//! A host that behaves: an in-memory kernel with SCSI disks, iSCSI sessions, mounts and device-mapper, the daemons on top of it, and a SAN.
//!
//! Tests of attach, node and archive build a [`Host`] on it and let real sequences run; nothing is expected call by call. What no
//! careful driver does (a wildcard scan, a mkfs over content, the logout of a session that serves others) is noted as a violation, and
//! what is left afterwards can be listed. Invariant: state changes only as a real kernel, daemon or SAN would change it.
//!
//! Time is virtual, see [`clock`]. A driver process is a [`FakeWorld`] handle: it can be killed, which takes its locks and
//! makes every later call of its threads unwind, while the host lives on for the next process.

mod checker;
mod clock;
mod control;
mod crypt;
mod devices;
mod disks;
mod filesystems;
mod iscsiadm;
mod mounts;
mod multipath_conf;
mod multipathd;
mod multipathd_show;
mod report;
mod san;
mod sessions;
mod spoilt;
mod state;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
mod tools;
mod tree;
mod ways;
mod world;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use clock::{Quiet, Turn};
use disks::Trouble;
use state::State;

pub use mounts::Broken;
pub use multipathd::FindMultipaths;
pub use report::Leftovers;
pub use san::{DiskId, PortalState};
pub use spoilt::spoilt;
pub use state::{Delays, Fault};

/// With nobody left to change anything, a call that hangs is given up after this, and noted.
const HUNG: Duration = Duration::from_secs(3600);

/// The payload of the unwinding that ends a killed driver process.
#[derive(Debug)]
pub struct Killed;

/// A driver process on the fake host; clones are the same process.
#[derive(Clone)]
pub struct FakeWorld {
    shared: Arc<Shared>,
    process: u64,
}

struct Shared {
    state: Mutex<State>,
    turn: Turn,
}

impl FakeWorld {
    /// A freshly installed host that has just booted, with a first process on it.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a whole machine is no default value"
    )]
    pub fn new() -> Self {
        let mut state = State::new();
        let process = state.serial();
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                turn: Turn::new(),
            }),
            process,
        }
    }

    /// The state, for the test or for giving something back: no process is asked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.turn.calls.fetch_add(1, Ordering::SeqCst);
        self.look()
    }

    /// The state for one who waits: no call that others would have to wait for.
    fn look(&self) -> MutexGuard<'_, State> {
        let entering = &self.shared.turn.entering;
        entering.fetch_add(1, Ordering::SeqCst);
        let state = self.shared.state.lock();
        entering.fetch_sub(1, Ordering::SeqCst);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a call of this process; unwinds when the process is dead.
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.clock.note_caller(nix::unistd::gettid().as_raw());
        if state.dead.contains(&self.process) {
            drop(state);
            return Err(unwind());
        }
        Ok(state)
    }

    /// The same for a call that changes something.
    fn change(&self, what: &str, on: impl std::fmt::Display) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.enter()?;
        state.record(self.process, format_args!("{what} {on}"));
        Ok(state)
    }

    /// Lets `span` pass, or less when `seen` tells an event that is past.
    fn pass(&self, span: Duration, mut seen: Option<&mut u64>) -> io::Result<()> {
        let me = nix::unistd::gettid().as_raw();
        let mut state = self.enter()?;
        let wake = state.clock.now + span;
        let mut quiet = Quiet::default();
        loop {
            if state.dead.contains(&self.process) {
                state.clock.wait_ends(me);
                drop(state);
                return Err(unwind());
            }
            let events = state.clock.events;
            let news = seen.as_deref_mut().is_some_and(|seen| {
                let news = *seen != events;
                *seen = events;
                news
            });
            if news || state.clock.now >= wake {
                state.clock.wait_ends(me);
                return Ok(());
            }
            state.clock.wait_begins(me, wake);
            let looked = self.shared.turn.wait_once(state, me, wake, &mut quiet);
            state = looked.unwrap_or_else(|| self.look());
        }
    }

    /// Looks until `probe` finds something, `None` after `limit`.
    fn until<T>(
        &self,
        limit: Duration,
        mut probe: impl FnMut(&mut State) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let end = self.enter()?.clock.now + limit;
        loop {
            let mut state = self.enter()?;
            if let Some(found) = probe(&mut state) {
                return Ok(Some(found));
            }
            let now = state.clock.now;
            if now >= end {
                return Ok(None);
            }
            let mut seen = state.clock.events;
            drop(state);
            // Not everything that ends a wait is an event: queueing ends by time alone.
            self.pass((end - now).min(Duration::from_secs(1)), Some(&mut seen))?;
        }
    }

    /// Does a call that may hang.
    fn until_it_ends<T>(
        &self,
        mut call: impl FnMut(&mut State) -> Result<T, Trouble>,
    ) -> io::Result<T> {
        let ended = self.until(HUNG, |state| match call(state) {
            Ok(value) => Some(Ok(value)),
            Err(trouble) => tools::ends(trouble).map(|errno| Err(errno.into())),
        })?;
        ended.unwrap_or_else(|| {
            self.state().violation("a call hung for an hour");
            Err(Errno::EIO.into())
        })
    }
}

/// Ends the calling thread of a killed process. One that unwinds already gets an error instead: a second unwinding would abort.
fn unwind() -> io::Error {
    if !std::thread::panicking() {
        std::panic::resume_unwind(Box::new(Killed));
    }
    Errno::EINTR.into()
}

/// A held lock file of the fake host.
struct Held {
    world: FakeWorld,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.world.state();
        if state.locks.get(&self.path) == Some(&self.world.process) {
            state.locks.remove(&self.path);
            state.event();
        }
    }
}
