//! Unexport: a volume taken from a node, answered only when nothing of it is in flight any more.
//!
//! The kernel call that waits for I/O to land cannot be cut off, so it has a thread of its own for each (volume, node); a caller waits
//! for it up to the drain deadline and a repeated call joins it. Until it ends the record says `leaving`, and the volume goes to
//! nobody else. The server calls this, and `restore` for what a crash has cut off.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::engine::Engine;
use super::format::FormatError;
use super::lio::{LioError, MappedLun};
use super::names::VolumeKey;
use super::state::{ExportRecord, ExportState, NodeRecord};
use crate::deadline::Deadline;
use crate::fabric::{Iqn, Wwid};
use crate::fault::{Fault, Faulted, chain};

/// Why a volume is not known to have left a node. Every one of them means: maybe it has, ask again.
#[derive(Debug, thiserror::Error)]
pub enum UnexportError {
    /// The disk below is slow or stuck.
    #[error(
        "node {initiator} had something in flight to volume {key} that has not landed after {after:?}; the volume goes to nobody else until it has"
    )]
    NotDrained {
        /// The volume.
        key: VolumeKey,
        /// From whom.
        initiator: Iqn,
        /// How long was waited.
        after: Duration,
    },
    /// The removal failed.
    #[error("volume {key} could not be taken from node {initiator}")]
    Failed {
        /// The volume.
        key: VolumeKey,
        /// From whom.
        initiator: Iqn,
        #[source]
        source: Arc<DrainError>,
    },
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
}

impl Faulted for UnexportError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// Why a removal failed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The kernel.
    #[error("the kernel's target")]
    Kernel(#[from] LioError),
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The removal that was joined was at its end already, and had begun before the volume was given anew.
    #[error("an earlier removal has ended; this one begins with the next call")]
    Earlier,
    /// A bug, or no thread to be had.
    #[error("the removal ended without an outcome")]
    Lost,
}

type Outcome = Result<(), Arc<DrainError>>;
type Pair = (VolumeKey, Iqn);

/// The removals under way.
#[derive(Default)]
pub(super) struct Drains(Mutex<BTreeMap<Pair, Arc<Drain>>>);

impl Drains {
    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no removal is under way.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.count() == 0
    }
}

/// One removal under way.
#[derive(Default)]
struct Drain {
    outcome: Mutex<Option<Outcome>>,
    ended: Condvar,
}

impl Drain {
    fn end(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ended.notify_all();
    }

    /// The outcome, `None` when there is none within `at_most`.
    fn wait(&self, at_most: Duration) -> Option<Outcome> {
        let slot = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(slot, at_most, |slot| slot.is_none());
        let (slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }
}

/// Held by the thread of a removal: whatever happens to it, those who wait are told.
struct Ending {
    engine: Arc<Engine>,
    pair: Pair,
    drain: Arc<Drain>,
    outcome: Option<Outcome>,
}

impl Ending {
    fn run(&mut self) {
        let outcome = self.engine.drain(&self.pair.0, &self.pair.1);
        self.outcome = Some(outcome.map_err(Arc::new));
    }
}

impl Drop for Ending {
    /// Nobody joins it any more by the time it is told of: whoever was told may give the volume anew and take it again.
    fn drop(&mut self) {
        let drains = &self.engine.drains.0;
        drains
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.pair);
        let outcome = self.outcome.take();
        self.drain
            .end(outcome.unwrap_or_else(|| Err(Arc::new(DrainError::Lost))));
    }
}

impl Engine {
    /// Takes the volume from the node, or from every node; fine when nobody has it.
    ///
    /// # Errors
    /// See [`UnexportError`].
    pub fn remove_export(
        self: &Arc<Self>,
        key: &VolumeKey,
        wwid: &Wwid,
        initiator: Option<&Iqn>,
    ) -> Result<(), UnexportError> {
        let nodes = self.state.change(|state| {
            let known = state.find_identified(key, wwid).is_some();
            let having = state.exports_of(key).map(|(iqn, ..)| iqn.clone());
            let wanted = |iqn: &Iqn| known && initiator.is_none_or(|only| only == iqn);
            let nodes: Vec<Iqn> = having.filter(wanted).collect();
            for node in &nodes {
                state.begin_leaving(key, node);
            }
            Ok::<_, FormatError>(nodes)
        })?;
        let deadline = self.host.deadline_in(self.options.drain_deadline);
        // All at once: the deadline is for the call, not for each node.
        let drains: Vec<_> = nodes
            .iter()
            .map(|node| self.begin_drain(key, node))
            .collect();
        let waited = nodes.iter().zip(drains);
        let outcomes: Vec<_> = waited
            .map(|(node, drain)| self.wait_for_drain(key, node, &drain, deadline))
            .collect();
        outcomes.into_iter().collect()
    }

    fn wait_for_drain(
        &self,
        key: &VolumeKey,
        initiator: &Iqn,
        drain: &Drain,
        deadline: Deadline,
    ) -> Result<(), UnexportError> {
        let left = deadline.remaining(self.host.now()).unwrap_or_default();
        let ended = drain.wait(left).map(|outcome| {
            // The record is the proof that nothing is left; a thread that we joined may have ended an earlier export of the pair.
            let stays = self
                .state
                .read(|state| state.find_export(key, initiator).is_some());
            outcome.and_then(|()| match stays {
                true => Err(Arc::new(DrainError::Earlier)),
                false => Ok(()),
            })
        });
        let (key, initiator) = (key.clone(), initiator.clone());
        match ended {
            Some(Ok(())) => Ok(()),
            Some(Err(source)) => Err(UnexportError::Failed {
                key,
                initiator,
                source,
            }),
            None => Err(UnexportError::NotDrained {
                key,
                initiator,
                after: self.options.drain_deadline,
            }),
        }
    }

    /// Starts the removal, or finds the one under way.
    fn begin_drain(self: &Arc<Self>, key: &VolumeKey, initiator: &Iqn) -> Arc<Drain> {
        let pair = (key.clone(), initiator.clone());
        let drain = Arc::new(Drain::default());
        {
            let mut drains = self.drains.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(under_way) = drains.get(&pair) {
                return Arc::clone(under_way);
            }
            drains.insert(pair.clone(), Arc::clone(&drain));
        }
        let mut ending = Ending {
            engine: Arc::clone(self),
            pair,
            drain: Arc::clone(&drain),
            outcome: None,
        };
        let thread = std::thread::Builder::new().name("drain".to_owned());
        let started = thread.spawn(move || ending.run());
        if let Err(source) = started {
            // The closure was dropped with its `Ending`, which has said `Lost`; this says why.
            tracing::error!(%key, %initiator, reason = %source, "no thread to take a volume away");
        }
        drain
    }

    /// Takes up every removal that a crash or a failure has cut off. Does not wait.
    pub(super) fn resume_drains(self: &Arc<Self>) -> usize {
        let leaving = self.leaving();
        for (key, initiator) in &leaving {
            self.begin_drain(key, initiator);
        }
        leaving.len()
    }

    /// The removal itself.
    fn drain(&self, key: &VolumeKey, initiator: &Iqn) -> Result<(), DrainError> {
        let found = self.state.read(|state| {
            let (node, export) = state.find_export(key, initiator)?;
            Some((node.clone(), export.clone()))
        });
        let Some((node, export)) = found else {
            return Ok(());
        };
        if export.state != ExportState::Leaving {
            return Ok(());
        }
        let outcome = self.take_away(key, initiator, &node, &export);
        if let Err(error) = &outcome {
            tracing::error!(
                %key, node = node.name, reason = chain(error), "a volume could not be taken away; it goes to nobody else until it is"
            );
        }
        outcome
    }

    fn take_away(
        &self,
        key: &VolumeKey,
        initiator: &Iqn,
        node: &NodeRecord,
        export: &ExportRecord,
    ) -> Result<(), DrainError> {
        self.lio.remove_lun(&MappedLun {
            target: export.target(node),
            initiator,
            lun: export.lun,
            slot: export.slot(),
        })?;
        let _shared_objects = self.lock_kernel();
        let holders = self.state.read(|state| state.exports_of(key).count());
        if holders <= 1 {
            self.lio.remove_backstore(&self.backstore_of(key))?;
        }
        self.state.change(|state| {
            state.end_leaving(key, initiator);
            Ok::<_, FormatError>(())
        })?;
        tracing::info!(%key, node = node.name, lun = %export.lun, "volume taken back");
        if let Some(place) = &export.place {
            self.remove_idle_place(place.target())?;
        }
        self.remove_idle_target(initiator)
    }

    /// Removes the target of a node that has no volume and no session. While a session lives the target stays: an initiator whose
    /// access ends under it retries its login for ever. The caller holds the kernel lock.
    pub(super) fn remove_idle_target(&self, initiator: &Iqn) -> Result<(), DrainError> {
        let node = self.state.read(|state| {
            let node = state.nodes.get(initiator);
            node.filter(|node| node.exports.is_empty()).cloned()
        });
        let Some(node) = node else { return Ok(()) };
        // A host that is logged in remembers numbers, wherever: the record stays, so that they go on.
        if self.lio.has_session(&node.target, initiator)? || self.is_guest(initiator)? {
            return Ok(());
        }
        self.lio.remove_target(&node.target)?;
        self.state.change(|state| {
            state.forget_node(initiator);
            Ok::<_, FormatError>(())
        })?;
        tracing::info!(node = node.name, target = %node.target, "idle target removed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SanBox, give, initiator, take, wanted};
    use super::*;

    #[test]
    fn a_thread_that_ended_an_earlier_export_does_not_answer_for_this_one() {
        let san = SanBox::new();
        let engine = san.start();
        let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
        engine.ensure_export(&give(&volume, "n1")).unwrap();
        // One that has done its work and has not yet come to strike itself off.
        let late = Arc::new(Drain::default());
        late.end(Ok(()));
        let pair = (volume.key.clone(), initiator("n1"));
        let drains = &engine.drains.0;
        drains.lock().unwrap().insert(pair.clone(), late);
        let open = take(&engine, &volume, "n1").unwrap_err();
        assert_eq!(open.fault(), Fault::MaybeDone, "{open}");
        drains.lock().unwrap().remove(&pair);
        take(&engine, &volume, "n1").unwrap();
        let found = engine.find_volume(&volume.key).unwrap().unwrap();
        assert!(found.exported_to.is_empty());
    }
}
