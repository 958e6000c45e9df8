//! Which target a volume is shown at: the node's own one, one for all nodes, or the volume's.
//!
//! A node's own target stands in its record; the others, and under which number a volume is at them, here. Every export has a LUN of its own at its target, also
//! where others have the same volume there: taking it away waits for that node's I/O and no other's. The state, `exports` and `drain` call this.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::drain::DrainError;
use super::engine::Engine;
use super::format::FormatError;
use super::names::VolumeKey;
use super::refusal::Refusal;
use super::state::{ExportRecord, NodeRecord, State};
use crate::fabric::Iqn;

/// Numbers of LUNs at a target that is not one node's own; initiators see others.
const SLOTS: std::ops::RangeInclusive<u16> = 1..=u16::MAX - 1;

/// Which target a volume is shown at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One for each node.
    #[default]
    Node,
    /// One for all nodes and volumes.
    Shared,
    /// One for each volume.
    Volume,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "node" => Ok(Self::Node),
            "shared" => Ok(Self::Shared),
            "volume" => Ok(Self::Volume),
            _ => Err(format!(
                "{text:?} is no layout; write node, shared or volume"
            )),
        }
    }
}

/// A target that is not one node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetRecord {
    /// The one volume that it is for; without it, it is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<VolumeKey>,
    /// The number to try first for the next LUN.
    next_slot: u16,
}

/// Where an export is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// The target.
    target: Iqn,
    /// The LUN's number there. The initiator sees it under the export's own number.
    slot: u16,
}

/// The first number that is not taken, from `next` on and around; `next` is the one after it then.
pub(super) fn next_in_round(
    numbers: std::ops::RangeInclusive<u16>,
    next: &mut u16,
    taken: impl Fn(u16) -> bool,
) -> Option<u16> {
    let mut round = (*next..=*numbers.end()).chain(*numbers.start()..*next);
    let free = round.find(|number| !taken(*number))?;
    *next = if free == *numbers.end() {
        *numbers.start()
    } else {
        free + 1
    };
    Some(free)
}

impl Place {
    /// The target.
    pub(super) fn target(&self) -> &Iqn {
        &self.target
    }
}

impl ExportRecord {
    /// The target that shows it to `node`.
    pub(super) fn target<'a>(&'a self, node: &'a NodeRecord) -> &'a Iqn {
        self.place.as_ref().map_or(&node.target, |at| &at.target)
    }

    /// Its number there.
    pub(super) fn slot(&self) -> u16 {
        self.place.as_ref().map_or(self.lun.0, |at| at.slot)
    }
}

impl NodeRecord {
    /// The targets that show something to the node.
    pub(super) fn targets(&self) -> BTreeSet<&Iqn> {
        let exports = self.exports.values();
        exports.map(|export| export.target(self)).collect()
    }
}

impl State {
    /// Where a new export of the volume goes; `None` is the node's own target.
    pub(super) fn allot_place(
        &mut self,
        layout: Layout,
        key: &VolumeKey,
        new_target: impl Fn() -> Iqn,
    ) -> Result<Option<Place>, Refusal> {
        let volume = match layout {
            Layout::Node => return Ok(None),
            Layout::Shared => None,
            Layout::Volume => Some(key.clone()),
        };
        let found = self.targets.iter().find(|(_, at)| at.volume == volume);
        let target = found.map_or_else(new_target, |(target, _)| target.clone());
        let taken = self.slots_at(&target);
        let record = self.targets.entry(target.clone());
        let record = record.or_insert(TargetRecord {
            volume,
            next_slot: *SLOTS.start(),
        });
        let slot = next_in_round(SLOTS, &mut record.next_slot, |slot| taken.contains(&slot));
        let slot = slot.ok_or_else(|| Refusal::NoSlot(target.clone()))?;
        Ok(Some(Place { target, slot }))
    }

    fn slots_at(&self, target: &Iqn) -> BTreeSet<u16> {
        let exports = self.nodes.values().flat_map(|node| node.exports.values());
        let places = exports.filter_map(|export| export.place.as_ref());
        let here = places.filter(|place| place.target == *target);
        here.map(|place| place.slot).collect()
    }

    /// Who has something at a target that is not his own.
    fn guests_of(&self, target: &Iqn) -> BTreeSet<Iqn> {
        let guest = |node: &NodeRecord| node.targets().contains(target);
        let nodes = self.nodes.iter().filter(|(_, node)| guest(node));
        nodes.map(|(initiator, _)| initiator.clone()).collect()
    }

    /// Whether the target is for one volume.
    pub(super) fn is_volumes_own(&self, target: &Iqn) -> bool {
        let found = self.targets.get(target);
        found.is_some_and(|record| record.volume.is_some())
    }

    /// Whether we made this target.
    pub(super) fn knows_target(&self, target: &str) -> bool {
        let own = self.nodes.values().map(|node| &node.target);
        own.chain(self.targets.keys())
            .any(|known| known.as_str() == target)
    }
}

impl Engine {
    /// Removes from every target that is not one node's own who has nothing there and no session, and those that nobody uses then.
    pub(super) fn remove_idle_places(&self) -> Result<(), DrainError> {
        let targets: Vec<Iqn> = self
            .state
            .read(|state| state.targets.keys().cloned().collect());
        targets.iter().try_for_each(|target| {
            let _shared_objects = self.lock_kernel();
            self.remove_idle_place(target)
        })
    }

    /// The same for one of them. The caller holds the kernel lock.
    pub(super) fn remove_idle_place(&self, target: &Iqn) -> Result<(), DrainError> {
        let guests = self.state.read(|state| state.guests_of(target));
        let mut is_used = !guests.is_empty();
        for initiator in self.lio.entries(target)? {
            if guests.contains(&initiator) {
                continue;
            }
            if self.lio.has_session(target, &initiator)? {
                is_used = true;
            } else {
                self.lio.remove_entry(target, &initiator)?;
            }
        }
        if is_used {
            return Ok(());
        }
        self.lio.remove_target(target)?;
        self.state.change(|state| {
            state.targets.remove(target);
            Ok::<_, FormatError>(())
        })?;
        tracing::info!(%target, "idle target removed");
        Ok(())
    }

    /// Whether the initiator is logged in at a target that is not its own.
    pub(super) fn is_guest(&self, initiator: &Iqn) -> Result<bool, DrainError> {
        let targets: Vec<Iqn> = self
            .state
            .read(|state| state.targets.keys().cloned().collect());
        for target in targets {
            if self.lio.has_session(&target, initiator)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
