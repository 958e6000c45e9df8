//! ControllerPublishVolume and ControllerUnpublishVolume: who may reach a volume.

use super::{Controller, ControllerError};
use crate::san::{Access, Others};
use crate::volume::{AccessMode, Capability, NodeId, PublishContext, VolumeId};

impl Controller {
    /// Lets the node reach the volume on every portal; the same answer when repeated.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn publish(
        &self,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<PublishContext, ControllerError> {
        let until = self.until();
        let san = self.san_of(id)?;
        let of_san = || ControllerError::san(&id.san);
        let volume = san
            .find_volume(&id.key, &id.wwid, until)
            .await
            .map_err(of_san())?
            .ok_or_else(|| ControllerError::NoVolume(id.clone()))?;
        let access = access(capability.mode, read_only);
        let export = san
            .ensure_export(&volume, node, access, until)
            .await
            .map_err(of_san())?;
        tracing::info!(%id, %node, offers = export.offers.len(), "volume is published");
        Ok(PublishContext(export))
    }

    /// Takes the volume back from the node, or from all; afterwards no write of that node can land. Not published is fine.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn unpublish(
        &self,
        id: &VolumeId,
        node: Option<&NodeId>,
    ) -> Result<(), ControllerError> {
        let until = self.until();
        let san = self.san_of(id)?;
        let initiator = node.map(|node| &node.initiator);
        san.remove_export(&id.key, &id.wwid, initiator, until)
            .await
            .map_err(ControllerError::san(&id.san))?;
        tracing::info!(%id, from = node.map_or("all".to_owned(), ToString::to_string), "volume is unpublished");
        Ok(())
    }
}

/// What the node may do and who may have the volume beside it, by the mode of its use. Whoever reads wants nobody to write beneath him, but where the
/// mode itself names the writer.
fn access(mode: AccessMode, read_only: bool) -> Access {
    let read_only = read_only || mode.is_reader();
    let others = match mode {
        AccessMode::MultiNodeMultiWriter => Others::Anybody,
        AccessMode::MultiNodeSingleWriter if read_only => Others::Anybody,
        AccessMode::MultiNodeSingleWriter | AccessMode::MultiNodeReader => Others::Readers,
        AccessMode::SingleNodeWriter
        | AccessMode::SingleNodeReader
        | AccessMode::SingleNodeSingleWriter
        | AccessMode::SingleNodeMultiWriter => Others::Nobody,
    };
    Access { read_only, others }
}
