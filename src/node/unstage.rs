//! NodeUnstageVolume (CSI §NodeUnstageVolume). Works from the ledger alone; the call brings no context.

use std::path::Path;

use super::unmount::Before;
use super::{Node, NodeError, UnstageCall};
use crate::mount::Mount;
use crate::volume::VolumeId;

pub fn unstage(node: &Node, call: &UnstageCall) -> Result<(), NodeError> {
    let staging_path = node.resolved(&call.staging_path)?;
    if node.find_intent(&call.volume)?.is_none() {
        return remove_unrecorded(node, &call.volume, &staging_path);
    }
    // Answering OK lets the orchestrator take the LUN away: a mount anywhere else, be it an earlier staging path, must be gone first.
    node.refuse_other_places(&call.volume, &staging_path)?;
    let before = node.mind_outage(&call.volume)?;
    node.end_freeze(&call.volume, &staging_path)?;
    node.remove_last_mount(&call.volume, &staging_path, before)?;
    node.close_layer(&call.volume)?;
    node.detach(&call.volume)
}

/// Nothing is known of the volume, as after a loss of the ledger. A mount of this very volume at its staging path proves that we staged it;
/// then it goes, and its devices too. Without that proof nothing is touched: the volume was never here.
fn remove_unrecorded(node: &Node, volume: &VolumeId, staging_path: &Path) -> Result<(), NodeError> {
    let places = node.all_places_of(volume)?;
    if !places.iter().any(|mount| mount.target == staging_path) {
        return Ok(());
    }
    tracing::warn!(volume.id = %volume, path = %staging_path.display(),
        "the ledger knows nothing of a volume that is staged here; removing it");
    node.refuse_other_places(volume, staging_path)?;
    let before = node.mind_outage(volume)?;
    node.end_freeze(volume, staging_path)?;
    node.remove_last_mount(volume, staging_path, before)?;
    node.close_layer(volume)?;
    let deadline = node.host.deadline_in(node.limits.deadline);
    node.engine.detach_unrecorded(&volume.wwid, deadline)?;
    Ok(())
}

impl Node {
    /// Refuses when the volume is seen anywhere but at `staging_path`: detaching would pull it from under its users.
    pub(super) fn refuse_other_places(
        &self,
        volume: &VolumeId,
        staging_path: &Path,
    ) -> Result<(), NodeError> {
        let mut places = Vec::new();
        for device in self.devices(volume)? {
            let besides = self.places_besides(&device, &[staging_path])?;
            places.extend(
                besides
                    .iter()
                    .map(|mount| mount.target.display().to_string()),
            );
        }
        if places.is_empty() {
            return Ok(());
        }
        Err(NodeError::InUse {
            volume: volume.clone(),
            places: places.join(", "),
        })
    }

    /// Unmounts the volume where it was staged. Writes that were lost are told first, once; see [`super::lost`].
    fn remove_last_mount(
        &self,
        volume: &VolumeId,
        staging_path: &Path,
        before: Before,
    ) -> Result<(), NodeError> {
        // Found by an unmount whose caller had given up waiting.
        self.losses.tell(volume)?;
        let removed = self.remove_own_mount(volume, staging_path, before);
        self.losses.tell(volume)?;
        removed?;
        self.losses.forget(volume);
        Ok(())
    }

    /// Ends a freeze that somebody left behind (R-FS-3). After its last mount nobody could: the file system would stay in the kernel, frozen, with
    /// its device, and could not even be mounted again.
    pub(super) fn end_freeze(
        &self,
        volume: &VolumeId,
        staging_path: &Path,
    ) -> Result<(), NodeError> {
        let mut is_mounted = false;
        for device in self.devices(volume)? {
            let staged =
                |mount: &Mount| mount.target == staging_path && !mount.binds_node(&device.name);
            is_mounted |= self.places_of(&device)?.iter().any(staged);
        }
        if !is_mounted {
            return Ok(());
        }
        match self.host.thaw(staging_path) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(volume.id = %volume, path = %staging_path.display(),
                    "the staged file system was frozen; it is thawed, for it is to be unmounted");
            }
            // One that has died cannot be asked; unmounting it tells what is amiss.
            Err(error) => {
                tracing::debug!(volume.id = %volume, %error, "whether the staged file system is frozen is not known");
            }
        }
        Ok(())
    }

    /// Takes the volume's map, paths and record from this host.
    pub(super) fn detach(&self, volume: &VolumeId) -> Result<(), NodeError> {
        let deadline = self.host.deadline_in(self.limits.deadline);
        self.engine.detach(&volume.to_string(), deadline)?;
        Ok(())
    }
}
