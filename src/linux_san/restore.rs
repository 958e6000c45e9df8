//! Making the kernel agree with the state: at start (after a crash, with objects still there, or after a reboot, with none), and
//! every few seconds for targets that have become idle.
//!
//! The order at start is the one that an initiator that is waiting outside must see: disks, targets, LUNs, and only then portals.
//! One volume or node that cannot be restored is reported loudly and keeps nothing from the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chap::TargetError;
use super::engine::{Engine, OpenError};
use super::names::VolumeKey;
use super::pool::Image;
use super::state::{ExportState, Phase, State};
use crate::fabric::Iqn;
use crate::fault::chain;

/// What a start found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Restored {
    /// Volumes that are served.
    pub served: usize,
    /// Volumes that nodes should have and that are not served; the log says why.
    pub refused: usize,
    /// Nodes whose target listens.
    pub nodes: usize,
    /// Removals that were taken up again.
    pub leaving: usize,
}

impl Engine {
    /// Rebuilds in the kernel what the state says. May be repeated.
    ///
    /// # Errors
    /// When the kernel offers no target at all.
    pub fn restore(self: &Arc<Self>) -> Result<Restored, OpenError> {
        self.lio.ensure_ready()?;
        self.report_strangers()?;
        // Nobody was told of a volume that was being made, and the removal was asked for.
        self.remove_remains(&[Phase::Making, Phase::Removing]);
        self.finish_all_growing();
        self.check_snapshots();
        let restored = {
            let _shared_objects = self.lock_kernel();
            self.restore_exports()
        };
        let leaving = self.resume_drains();
        self.sweep();
        let restored = Restored {
            leaving,
            ..restored
        };
        tracing::info!(
            volumes = restored.served,
            not_served = restored.refused,
            nodes = restored.nodes,
            leaving = restored.leaving,
            "the kernel's target agrees with the state"
        );
        Ok(restored)
    }

    fn restore_exports(&self) -> Restored {
        // What is given when this begins; a removal that is under way is not revived.
        let state = self.state.read(State::clone);
        let wanted = exported_volumes(&state);
        let served: BTreeSet<&VolumeKey> = wanted
            .iter()
            .copied()
            .filter(|key| self.restore_disk(&state, key))
            .collect();
        let initiators = state.nodes.iter().filter(|(_, node)| {
            let mut exports = node.exports.values();
            exports.any(|export| export.state == ExportState::Exported)
        });
        let mut ready = Vec::new();
        for (initiator, node) in initiators {
            let built = self.restore_node(initiator, node, &served);
            match built {
                Ok(()) => ready.push(node),
                Err(error) => {
                    tracing::error!(node = node.name, reason = chain(&error), "NODE NOT SERVED");
                }
            }
        }
        let targets: BTreeSet<&Iqn> = ready.iter().flat_map(|node| node.targets()).collect();
        let listening: BTreeSet<&Iqn> = targets.into_iter().filter(|it| self.listen(it)).collect();
        let ready = ready.iter().map(|node| node.targets());
        Restored {
            served: served.len(),
            refused: wanted.len() - served.len(),
            nodes: ready.filter(|it| it.is_subset(&listening)).count(),
            leaving: 0,
        }
    }

    /// Whether the target listens on every portal now.
    fn listen(&self, target: &Iqn) -> bool {
        let listens = self.lio.ensure_portals(target, &self.options.groups());
        if let Err(error) = &listens {
            let reason = chain(error);
            tracing::error!(%target, reason, "a target does not listen on every portal");
        }
        listens.is_ok()
    }

    /// Whether the volume is a disk in the kernel now. Checked first: LIO makes a missing image and serves zeros.
    fn restore_disk(&self, state: &State, key: &VolumeKey) -> bool {
        let Some(volume) = state.find_ready(key) else {
            tracing::error!(%key, "VOLUME NOT SERVED: a node should have it, but the state file does not know it");
            return false;
        };
        if let Err(error) = self.pool.check(&Image::of_volume(key, volume)) {
            tracing::error!(%key, name = volume.name, reason = chain(&error), "VOLUME NOT SERVED");
            return false;
        }
        match self.ensure_disk(key, volume) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%key, name = volume.name, reason = chain(&error), "VOLUME NOT SERVED");
                false
            }
        }
    }

    fn restore_node(
        &self,
        initiator: &Iqn,
        node: &super::state::NodeRecord,
        served: &BTreeSet<&VolumeKey>,
    ) -> Result<(), TargetError> {
        let given = node
            .exports
            .iter()
            .filter(|(key, export)| export.state == ExportState::Exported && served.contains(key));
        for target in node.targets() {
            self.ensure_target(target, initiator)?;
        }
        for (key, export) in given {
            self.ensure_mapped(key, initiator, node, export)?;
        }
        Ok(())
    }

    /// Volumes whose growing was cut off grow to the end, before they are served.
    fn finish_all_growing(&self) {
        for key in self.growing() {
            if let Err(error) = self.finish_growing(&key) {
                tracing::error!(%key, reason = chain(&error), "a volume could not be grown to its end");
            }
        }
    }

    fn remove_remains(&self, phases: &[Phase]) {
        for key in self.volumes_in(phases) {
            if let Err(error) = self.finish_removal(&key) {
                tracing::error!(%key, reason = chain(&error), "the remains of a volume could not be removed");
            }
        }
        for key in self.snapshots_in(phases) {
            if let Err(error) = self.finish_snapshot_removal(&key) {
                tracing::error!(%key, reason = chain(&error), "the remains of a snapshot could not be removed");
            }
        }
    }

    /// A snapshot that is not what it should be is found before somebody needs it. Its use is refused then, too.
    fn check_snapshots(&self) {
        for (key, name, image) in self.ready_snapshots() {
            if let Err(error) = self.pool.check(&image) {
                tracing::error!(%key, name, reason = chain(&error), "SNAPSHOT CANNOT BE USED");
            }
        }
    }

    /// Targets that carry our name and that the state does not know are left alone, but not silently.
    fn report_strangers(&self) -> Result<(), OpenError> {
        let prefix = self
            .state
            .read(|state| state.san_uuid.target_prefix(&self.options.target_prefix));
        for target in self.lio.targets_under(&prefix)? {
            if !self.state.read(|state| state.knows_target(&target)) {
                tracing::error!(
                    target,
                    "A TARGET WITH OUR NAME IS SERVED THAT THE STATE FILE DOES NOT KNOW"
                );
            }
        }
        Ok(())
    }

    /// Takes up removals of exports and volumes that failed, and removes the targets of nodes that have neither volumes nor a session. The daemon calls it
    /// every few seconds.
    pub fn sweep(self: &Arc<Self>) {
        self.tell_room();
        self.resume_drains();
        self.refresh_secrets();
        // Nobody sees such a volume any more, so no repeated call would come back to it. One that is being made belongs to its call.
        self.remove_remains(&[Phase::Removing]);
        if let Err(error) = self.remove_idle_places() {
            let reason = chain(&error);
            tracing::warn!(
                reason,
                "targets that are not one node's own could not be looked through"
            );
        }
        let idle: Vec<_> = self.state.read(|state| {
            let nodes = state.nodes.iter();
            let idle = nodes.filter(|(_, node)| node.exports.is_empty());
            idle.map(|(initiator, _)| initiator.clone()).collect()
        });
        for initiator in idle {
            let _shared_objects = self.lock_kernel();
            if let Err(error) = self.remove_idle_target(&initiator) {
                tracing::warn!(%initiator, reason = chain(&error), "an idle target could not be removed");
            }
        }
    }
}

fn exported_volumes(state: &State) -> BTreeSet<&VolumeKey> {
    let exports = state.nodes.values().flat_map(|node| &node.exports);
    exports
        .filter(|(_, export)| export.state == ExportState::Exported)
        .map(|(key, _)| key)
        .collect()
}
