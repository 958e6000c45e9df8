//! One caller at a time, for each of many things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::timeout_at;

use super::Until;

/// Whose turn it is, by the key of the thing.
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Arc<Turn<()>>>>);

impl Turns {
    /// Waits for the turn; `None` when the time is over, which whatever comes next will say.
    pub(super) async fn of(&self, key: &str, until: Until) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.to_owned()).or_default())
        };
        timeout_at(until, turn.lock_owned()).await.ok()
    }
}
