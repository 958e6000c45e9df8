//! How the SAN stands, in numbers: for the page of metrics. Only looks.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::lio::LioError;
use super::room;
use super::state::{ExportState, Phase};
use crate::fabric::Iqn;

/// The numbers of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `None` when the pool cannot be looked at.
    pub pool: Option<PoolStanding>,
    /// What volumes were promised together, in bytes.
    pub promised: u64,
    /// Volumes that are there.
    pub volumes: usize,
    /// Snapshots that are there.
    pub snapshots: usize,
    /// Volumes at nodes: one for each pair.
    pub exports: usize,
    /// Pairs from which the volume is being taken.
    pub leaving: usize,
    /// Removals under way that wait for the kernel now.
    pub drains: usize,
    /// Volumes to which writes are refused, since the pool is full.
    pub refused: usize,
    /// Sessions of initiators at our targets; `None` when the kernel does not say.
    pub sessions: Option<u64>,
}

/// The room of the pool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStanding {
    /// All of it.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
    /// What nothing new is made of.
    pub reserved: u64,
}

impl Engine {
    /// How the SAN stands now. May block while the pool's disk does.
    pub fn standing(&self) -> Standing {
        let pool = self.pool.space().ok().map(|space| PoolStanding {
            total: space.total,
            available: space.available,
            reserved: room::reserve(space),
        });
        let sessions = self.sessions().ok().flatten();
        let (drains, refused) = (self.drains.count(), self.refused_count());
        self.state.read(|state| {
            let exports = || state.nodes.values().flat_map(|node| node.exports.values());
            let ready = |phase| phase == Phase::Ready;
            Standing {
                pool,
                promised: state.volumes.values().map(|volume| volume.size).sum(),
                volumes: state.volumes.values().filter(|it| ready(it.phase)).count(),
                snapshots: state
                    .snapshots
                    .values()
                    .filter(|it| ready(it.phase))
                    .count(),
                exports: exports().count(),
                leaving: exports()
                    .filter(|export| export.state == ExportState::Leaving)
                    .count(),
                drains,
                refused,
                sessions,
            }
        })
    }

    /// `None` when the kernel does not count them.
    fn sessions(&self) -> Result<Option<u64>, LioError> {
        let targets: BTreeSet<Iqn> = self.state.read(|state| {
            let own = state.nodes.values().map(|node| &node.target);
            own.chain(state.targets.keys()).cloned().collect()
        });
        let counted = targets.iter().map(|target| self.lio.sessions_at(target));
        counted.sum()
    }
}
