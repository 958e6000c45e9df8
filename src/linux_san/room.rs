//! How much room the pool has: what is kept back for the volumes that are there, and the warning before it is needed.

use std::sync::PoisonError;

use super::engine::Engine;
use super::pool::GRANULE;
use crate::fault::chain;
use crate::host::Space;

/// New volumes, snapshots and clones leave this part of the pool to those that are there.
const RESERVE_PART: u64 = 50;
/// And no more than this, however large the pool.
const MOST_RESERVE: u64 = 64 << 30;
/// Below this part of the pool the operator is warned.
const LOW_PART: u64 = 5;

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// More than a fifth.
    #[default]
    Enough,
    /// Time to add some.
    Low,
    /// Nothing new is made.
    Reserved,
}

/// What new ones may not use, in bytes.
pub(super) fn reserve(space: Space) -> u64 {
    (space.total / RESERVE_PART).clamp(GRANULE, MOST_RESERVE)
}

pub(super) fn room(space: Space) -> Room {
    if space.available < reserve(space) {
        Room::Reserved
    } else if space.available < space.total / LOW_PART {
        Room::Low
    } else {
        Room::Enough
    }
}

impl Engine {
    /// Tells the log when the pool gets low on room, and when it has enough again; each once.
    pub(super) fn tell_room(&self) {
        let space = match self.pool.space() {
            Ok(space) => space,
            Err(error) => {
                tracing::error!(reason = chain(&error), "THE POOL CANNOT BE LOOKED AT");
                return;
            }
        };
        let found = room(space);
        let mut told = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if found == *told {
            return;
        }
        *told = found;
        let (pool, available) = (self.pool.root().display(), space.available);
        let total = space.total;
        match found {
            Room::Enough => tracing::info!(%pool, available, total, "the pool has room again"),
            Room::Low => tracing::warn!(%pool, available, total, "THE POOL GETS LOW ON ROOM"),
            Room::Reserved => tracing::error!(
                %pool, available, total,
                "THE POOL IS NEARLY FULL: nothing new is made, and writes that need new blocks are refused when it is full"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_pool_is_for_what_is_there() {
        let of = |total: u64, available: u64| {
            room(Space {
                total,
                free: available,
                available,
                inodes: 0,
                free_inodes: 0,
            })
        };
        const GIB: u64 = 1 << 30;
        assert_eq!(of(100 * GIB, 20 * GIB), Room::Enough);
        assert_eq!(of(100 * GIB, 20 * GIB - 1), Room::Low);
        assert_eq!(of(100 * GIB, 2 * GIB), Room::Low);
        assert_eq!(of(100 * GIB, 2 * GIB - 1), Room::Reserved);
        assert_eq!(of(100 << 40, 64 * GIB), Room::Low, "never more than 64 GiB");
        assert_eq!(of(8 << 20, GRANULE - 1), Room::Reserved);
    }
}
