//! An archive that is open, and how it is used: how many chunks at a time, how fast, and who is told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::error::ArchiveError;
use super::names::{CONDEMNED, ChunkKey};
use super::store::{Objects, StoreError};
use crate::deadline::{Deadline, Moment};
use crate::host::Host;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the volume that are to be gone through; zeros that are known are none.
    pub total: u64,
    /// Of these, how many are done.
    pub done: u64,
    /// Bytes of objects that were sent or fetched.
    pub moved: u64,
}

/// An archive and the means to use it.
pub struct OpenArchive<'a> {
    /// Where its objects are.
    pub objects: &'a dyn Objects,
    /// How long a chunk is.
    pub chunk_bytes: u64,
    /// How many chunks are under way at a time.
    pub transfers: usize,
    /// What holds them back.
    pub pace: Option<Pace>,
    /// Who is told of each chunk.
    pub notice: &'a (dyn Fn(Progress) + Sync),
}

impl OpenArchive<'_> {
    /// Does `each` for all of `items`, at most [`Self::transfers`] at a time on threads of their own; after a first error no more is begun.
    pub(super) fn for_each<T: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        each: impl Fn(T) -> Result<(), ArchiveError> + Sync,
    ) -> Result<(), ArchiveError> {
        let items = Mutex::new(items);
        let (is_over, failed) = (AtomicBool::new(false), Mutex::new(None));
        let work = || {
            while !is_over.load(Ordering::Relaxed) {
                let next = lock(&items).next();
                let Some(item) = next else { break };
                if let Err(error) = each(item) {
                    is_over.store(true, Ordering::Relaxed);
                    lock(&failed).get_or_insert(error);
                }
            }
        };
        if self.transfers <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..self.transfers {
                    scope.spawn(work);
                }
            });
        }
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    /// Waits until `bytes` may go.
    pub(super) fn wait_for_turn(&self, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.wait(bytes);
        }
    }

    /// The chunks that are to go, and since when.
    pub(super) fn condemned(&self) -> Result<BTreeMap<ChunkKey, SystemTime>, StoreError> {
        let mut condemned = BTreeMap::new();
        self.objects.list(CONDEMNED, &mut |listed| {
            if let Some(key) = ChunkKey::find_condemned(&listed.name) {
                condemned.insert(key, listed.modified);
            }
        })?;
        Ok(condemned)
    }
}

/// What was counted so far.
pub(super) struct Tally<'a> {
    progress: Mutex<Progress>,
    notice: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Tally<'a> {
    pub(super) fn new(total: u64, notice: &'a (dyn Fn(Progress) + Sync)) -> Self {
        let progress = Progress {
            total,
            ..Progress::default()
        };
        Self {
            progress: Mutex::new(progress),
            notice,
        }
    }

    /// `done` bytes more of the volume are done, for which `moved` bytes went.
    pub(super) fn add(&self, done: u64, moved: usize) {
        let mut progress = lock(&self.progress);
        progress.done += done;
        progress.moved += moved as u64;
        let now = *progress;
        drop(progress);
        (self.notice)(now);
    }

    pub(super) fn now(&self) -> Progress {
        *lock(&self.progress)
    }
}

/// A limit on bytes in a second, for all threads together.
pub struct Pace {
    host: Host,
    bytes_per_second: u64,
    /// When the next may go.
    next: Mutex<Moment>,
}

impl Pace {
    /// At most so many bytes in a second, from now on.
    #[must_use]
    pub fn new(host: &Host, bytes_per_second: u64) -> Self {
        Self {
            next: Mutex::new(host.now()),
            host: host.clone(),
            bytes_per_second: bytes_per_second.max(1),
        }
    }

    fn wait(&self, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        let mut next = lock(&self.next);
        let turn = (*next).max(self.host.now());
        *next = turn.after(Duration::from_micros(micros));
        drop(next);
        // Nothing can be found: it is the time alone that is waited for.
        let waited: Result<Option<()>, std::convert::Infallible> =
            self.host.wait_for(Deadline::at(turn), || Ok(None));
        let Ok(_) = waited;
    }
}

/// A lock whose holder panicked holds nothing half done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
