//! Which works run beside which: most of them side by side, each lane taking one after the other; those that measure time against an outside bound
//! afterwards, alone on the machine. Used by `runner`; knows nothing of guests.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

/// What has not been begun yet, in the order it is begun.
pub struct Queue<W>(Mutex<VecDeque<W>>);

impl<W> Queue<W> {
    pub fn new(works: impl IntoIterator<Item = W>) -> Self {
        Queue(Mutex::new(works.into_iter().collect()))
    }

    /// The next one is the caller's alone.
    pub fn take(&self) -> Option<W> {
        locked(&self.0).pop_front()
    }
}

/// Each lane takes from `together` until nothing is left; when the last of them is done, the first lane takes from `alone`. An error ends its lane; what that
/// lane had not begun, another takes.
pub fn run<L: Sync, W: Send>(
    lanes: &[L],
    together: &Queue<W>,
    alone: &Queue<W>,
    lane: impl Fn(&L, &Queue<W>) -> Result<()> + Sync,
) -> Result<()> {
    let first = lanes.first().context("no lane to run in")?;
    std::thread::scope(|scope| {
        let running: Vec<_> = lanes
            .iter()
            .map(|ground| scope.spawn(|| lane(ground, together)))
            .collect();
        running
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|_| bail!("a lane panicked")))
            // All are waited for, whatever the first says.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<Vec<()>>>()
    })?;
    lane(first, alone)
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
