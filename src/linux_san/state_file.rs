//! The state on disk and in memory: one file, replaced as a whole, and nothing is seen before it is there.
//!
//! Changes that come while the file is being written wait for each other and go with its next writing, all at once: a hundred calls at a time cost a few
//! writings, not a hundred. Looking never waits for the disk. The engine's operations call this.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::format::{self, FormatError};
use super::state::State;
use crate::host::Host;

/// The state file.
pub(super) struct StateFile {
    host: Host,
    path: PathBuf,
    shared: Mutex<Shared>,
    settled: Condvar,
}

struct Shared {
    /// What is on disk, and is seen.
    durable: Arc<State>,
    /// The same with the changes that are on their way there.
    next: Arc<State>,
    /// Whether somebody writes.
    is_writing: bool,
    /// The changes that go with the next writing.
    open: Arc<Batch>,
    /// The changes that `next` ends with: `open`, or those that are being written.
    last: Arc<Batch>,
}

/// Changes that are written together, and what became of them.
#[derive(Default)]
struct Batch(OnceLock<Result<(), Arc<FormatError>>>);

impl StateFile {
    fn path_in(state_dir: &Path) -> PathBuf {
        state_dir.join("state.json")
    }

    fn of(host: &Host, path: PathBuf, state: State) -> Self {
        let state = Arc::new(state);
        Self {
            host: host.clone(),
            path,
            shared: Mutex::new(Shared {
                durable: Arc::clone(&state),
                next: state,
                is_writing: false,
                open: Arc::default(),
                last: Arc::default(),
            }),
            settled: Condvar::new(),
        }
    }

    /// The state of an earlier run.
    pub(super) fn find(host: &Host, state_dir: &Path) -> Result<Option<Self>, FormatError> {
        let path = Self::path_in(state_dir);
        let found: Option<State> = format::find(host, &path)?;
        Ok(found.map(|state| Self::of(host, path, state)))
    }

    /// The state of a first run, on disk.
    pub(super) fn create(host: &Host, state_dir: &Path, state: State) -> Result<Self, FormatError> {
        let path = Self::path_in(state_dir);
        format::replace(host, &path, &state)?;
        Ok(Self::of(host, path, state))
    }

    /// Looks at the state, as it is on disk.
    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let durable = Arc::clone(&self.lock().durable);
        look(&durable)
    }

    /// Changes the state: on disk first, then for all to see. Nothing changes when `change` or the disk refuses. What it rests on may be on its way to the disk:
    /// its outcome is told when both are there.
    pub(super) fn change<T, E: From<FormatError>>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut shared = self.lock();
        let mut next = State::clone(&shared.next);
        let outcome = change(&mut next)?;
        if next != *shared.next {
            shared.next = Arc::new(next);
            shared.last = Arc::clone(&shared.open);
        } else if Arc::ptr_eq(&shared.next, &shared.durable) {
            return Ok(outcome);
        }
        let batch = Arc::clone(&shared.last);
        match self.settle(shared, &batch) {
            Ok(()) => Ok(outcome),
            Err(source) => Err(E::from(FormatError::Together {
                path: self.path.clone(),
                source,
            })),
        }
    }

    /// Waits until the changes are on disk or refused; writes them when nobody else writes.
    fn settle<'f>(
        &'f self,
        mut shared: MutexGuard<'f, Shared>,
        batch: &Batch,
    ) -> Result<(), Arc<FormatError>> {
        loop {
            if let Some(outcome) = batch.0.get() {
                return outcome.clone();
            }
            if shared.is_writing {
                let waited = self.settled.wait(shared);
                shared = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            shared.is_writing = true;
            let mut writing = Writing {
                file: self,
                batch: std::mem::take(&mut shared.open),
                state: Arc::clone(&shared.next),
                outcome: Err(FormatError::Lost(self.path.clone())),
            };
            drop(shared);
            writing.outcome = format::replace(&self.host, &self.path, &*writing.state);
            drop(writing);
            shared = self.lock();
        }
    }

    /// Values under it are replaced whole, so a panic elsewhere leaves them so.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the one who writes: whatever happens to him, those who wait are told.
struct Writing<'f> {
    file: &'f StateFile,
    batch: Arc<Batch>,
    state: Arc<State>,
    outcome: Result<(), FormatError>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut shared = self.file.lock();
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        shared.is_writing = false;
        match outcome.map_err(Arc::new) {
            Ok(()) => {
                shared.durable = Arc::clone(&self.state);
                let _ = self.batch.0.set(Ok(()));
            }
            Err(error) => {
                // What came meanwhile rests on what is refused now, and is refused with it.
                shared.next = Arc::clone(&shared.durable);
                let open = std::mem::take(&mut shared.open);
                for batch in [&self.batch, &open] {
                    let _ = batch.0.set(Err(Arc::clone(&error)));
                }
            }
        }
        drop(shared);
        self.file.settled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::names::SanUuid;
    use super::*;

    fn state() -> State {
        State::new(SanUuid::random(), "pool")
    }

    fn rename(file: &StateFile, name: &str) -> Result<(), FormatError> {
        file.change(|state| {
            state.pool_id.push_str(name);
            Ok(())
        })
    }

    fn on_disk(dir: &Path) -> String {
        let text = std::fs::read_to_string(dir.join("state.json")).unwrap();
        let state: State = serde_json::from_str(&text).unwrap();
        state.pool_id
    }

    #[test]
    fn changes_that_come_while_the_file_is_written_go_together_and_are_seen_when_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let writings = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&writings);
        let host = Host::real(Path::new("/")).with_hook(Arc::new(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                wait.lock().unwrap().recv().unwrap();
            }
        }));
        let file = StateFile::create(&host, dir.path(), state()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| rename(&file, "-first").unwrap());
            while !file.lock().is_writing {
                std::thread::yield_now();
            }
            for _ in 0..20 {
                scope.spawn(|| rename(&file, "+").unwrap());
            }
            while file.lock().next.pool_id.len() < "pool-first".len() + 20 {
                std::thread::yield_now();
            }
            assert_eq!(file.read(|state| state.pool_id.clone()), "pool");
            go.send(()).unwrap();
        });
        assert_eq!(
            writings.load(Ordering::SeqCst),
            3,
            "the first, one, and all the rest"
        );
        let all = format!("pool-first{}", "+".repeat(20));
        assert_eq!(file.read(|state| state.pool_id.clone()), all);
        assert_eq!(on_disk(dir.path()), all);
    }

    #[test]
    fn what_the_disk_refuses_is_nowhere_and_the_next_change_is_free_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("state");
        std::fs::create_dir(&home).unwrap();
        let host = Host::real(Path::new("/"));
        let file = StateFile::create(&host, &home, state()).unwrap();
        std::fs::rename(&home, dir.path().join("away")).unwrap();
        let refused = rename(&file, "-lost").unwrap_err();
        assert!(crate::fault::chain(&refused).contains("state.json"));
        assert_eq!(file.read(|state| state.pool_id.clone()), "pool");
        std::fs::rename(dir.path().join("away"), &home).unwrap();
        rename(&file, "-kept").unwrap();
        assert_eq!(on_disk(&home), "pool-kept");
    }

    #[test]
    fn a_writer_that_dies_leaves_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let deaths = AtomicUsize::new(0);
        let host = Host::real(Path::new("/")).with_hook(Arc::new(move |_| {
            assert!(deaths.fetch_add(1, Ordering::SeqCst) != 1, "crash");
        }));
        let file = StateFile::create(&host, dir.path(), state()).unwrap();
        std::thread::scope(|scope| {
            let died = scope.spawn(|| rename(&file, "-dead")).join();
            assert!(died.is_err());
        });
        assert_eq!(file.read(|state| state.pool_id.clone()), "pool");
        rename(&file, "-alive").unwrap();
        assert_eq!(on_disk(dir.path()), "pool-alive");
    }
}
