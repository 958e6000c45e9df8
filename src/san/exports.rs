//! Who reaches a volume, as loops that may be repeated: let a node in, take it back, and never two where one is to be alone.

use super::Until;
use super::ensure::{ROUNDS, San, absent_is_fine, is_lost};
use super::error::SanError;
use super::nouns::{Access, Exported, SanVolume};
use crate::fabric::{Export, Iqn, Wwid};
use crate::volume::NodeId;

impl San {
    /// Lets `node` reach the volume on every portal; the same answer when repeated. `volume` is as just found; a SAN that can compare
    /// and export at once does so again, and one that cannot is looked at again afterwards.
    ///
    /// # Errors
    /// [`SanError::Elsewhere`], [`SanError::OtherAccess`] or [`SanError::OtherName`] when this use does not go with the ones there are; else as the SAN or the way to it failed.
    pub async fn ensure_export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Export, SanError> {
        let mut known = volume.clone();
        let mut round = 1;
        let given = loop {
            refuse_other_use(&known, node, access)?;
            match self.family.export(&known, node, access, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => {
                    known = self.look_again(volume, lost, until).await?;
                    round += 1;
                }
                outcome => break outcome?,
            }
        };
        if given.export.wwid != volume.wwid {
            return Err(SanError::WrongVolume {
                wanted: volume.wwid.clone(),
                got: given.export.wwid,
            });
        }
        if let Some(after) = &given.after {
            self.keep_alone((volume, after), node, access, until)
                .await?;
        }
        Ok(given.export)
    }

    /// Another controller may have let its own node in between our look and our change: then neither keeps what it has just got. A node that had the volume
    /// before keeps it and is told no all the same.
    async fn keep_alone(
        &self,
        (before, after): (&SanVolume, &SanVolume),
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<(), SanError> {
        let nodes = unwelcome(after, node, access);
        if nodes.is_empty() {
            return Ok(());
        }
        let is_node = |to: &&Exported| to.initiator == node.initiator;
        let had_it = before.exported_to.iter().filter(is_node);
        if !had_it.clone().any(|to| to.is_named()) {
            let initiator = Some(&node.initiator);
            self.family.unexport(after, initiator, until).await?;
        }
        Err(SanError::Elsewhere { nodes })
    }

    /// Takes the volume back from one node, or from all; not exported, or not there at all, is fine. When this answers OK no write
    /// of that node can land any more.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn remove_export(
        &self,
        key: &str,
        wwid: &Wwid,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let mut round = 1;
        loop {
            // Asked even when no export shows: the SAN may still be draining one.
            let Some(volume) = self.find_volume(key, wwid, until).await? else {
                return Ok(());
            };
            match self.family.unexport(&volume, initiator, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => round += 1,
                outcome => return absent_is_fine(outcome),
            }
        }
    }
}

/// Whether `node` may have the volume beside those that have it, which it may be itself: that it has the volume is no leave, for two nodes may have been let in by
/// controllers that died before they saw it. A record of its initiator without a name is no use yet: the call that wrote it did not come to its end.
pub(super) fn refuse_other_use(
    volume: &SanVolume,
    node: &NodeId,
    access: Access,
) -> Result<(), SanError> {
    let is_here = |to: &&Exported| to.initiator == node.initiator && to.is_named();
    match volume.exported_to.iter().find(is_here) {
        Some(clone) if clone.node_name != node.name => Err(SanError::OtherName {
            initiator: node.initiator.clone(),
            known: clone.node_name.clone(),
            asked: node.name.clone(),
        }),
        Some(other) if other.read_only != access.read_only => Err(SanError::OtherAccess {
            node: other.node_name.clone(),
            read_only: other.read_only,
        }),
        _ => match unwelcome(volume, node, access) {
            nodes if nodes.is_empty() => Ok(()),
            nodes => Err(SanError::Elsewhere { nodes }),
        },
    }
}

/// The names of the other nodes that have the volume and should not, by this access.
fn unwelcome(volume: &SanVolume, node: &NodeId, access: Access) -> Vec<String> {
    let others = volume.exported_to.iter();
    let others = others.filter(|to| to.initiator != node.initiator);
    let unwelcome = others.filter(|to| !access.others.allow(to));
    unwelcome.map(|to| to.node_name.clone()).collect()
}
