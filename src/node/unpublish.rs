//! NodeUnpublishVolume (CSI §NodeUnpublishVolume).

use std::path::Path;

use super::unmount::Before;
use super::{Node, NodeError, UnpublishCall};
use crate::fault::Faulted;
use crate::host::FileKind;
use crate::volume::VolumeId;

pub fn unpublish(node: &Node, call: &UnpublishCall) -> Result<(), NodeError> {
    let target = node.resolved(&call.target_path)?;
    node.remove_target(&call.volume, &target)
}

impl Node {
    /// Takes the mounts at `target` away, then the place that was made for them, then the memory of it. Absent is fine.
    pub(super) fn remove_target(&self, volume: &VolumeId, target: &Path) -> Result<(), NodeError> {
        self.remove_own_mount(volume, target, Before::Nothing)?;
        self.remove_place(target)?;
        self.forget_target(volume, target)
    }

    fn remove_place(&self, target: &Path) -> Result<(), NodeError> {
        let foreign = |found| {
            Err(NodeError::Foreign {
                target: target.to_owned(),
                found,
            })
        };
        let stat = self.find_stat_of(target)?;
        let removed = match stat.map(|stat| (stat.kind, stat.size)) {
            None => return Ok(()),
            Some((FileKind::Directory, _)) => self.host.remove_directory(target),
            Some((FileKind::File, 0)) => self.host.remove_file(target),
            Some((FileKind::File, _)) => return foreign("a file with content"),
            Some((FileKind::Link, _)) => return foreign("a symbolic link"),
            Some(_) => return foreign("a device or something else"),
        };
        removed.map_err(|source| NodeError::Target {
            target: target.to_owned(),
            what: "removed",
            source,
        })
    }

    /// The target is gone by now; a record that cannot be read does not bring it back, and unstage will speak of it.
    fn forget_target(&self, volume: &VolumeId, target: &Path) -> Result<(), NodeError> {
        let mut intent = match self.find_intent(volume) {
            Ok(Some(intent)) => intent,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(volume.id = %volume, fault = ?error.fault(), %error, "the ledger still lists a removed target");
                return Ok(());
            }
        };
        if intent.targets.remove(target).is_some() {
            self.keep(&intent)?;
        }
        Ok(())
    }
}
