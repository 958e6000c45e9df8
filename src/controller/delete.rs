//! DeleteVolume: gone when it answers OK, refused while a node can reach it.

use super::{Controller, ControllerError};
use crate::volume::VolumeId;

impl Controller {
    /// Removes the volume; absent is fine.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn delete(&self, id: &VolumeId) -> Result<(), ControllerError> {
        let until = self.until();
        let san = self.san_of(id)?;
        san.remove_volume(&id.key, &id.wwid, until)
            .await
            .map_err(ControllerError::san(&id.san))?;
        tracing::info!(%id, "volume is gone");
        Ok(())
    }
}
