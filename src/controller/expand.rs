//! ControllerExpandVolume: a larger size, chosen by the same rules as a new volume's. The nodes learn of it by themselves afterwards.

use super::{Controller, ControllerError};
use crate::volume::{SizeRange, VolumeId};

impl Controller {
    /// Makes the volume large enough for `range` and returns its size in bytes. One that is large enough stays as it is.
    ///
    /// # Errors
    /// [`ControllerError::Size`] when it is larger than the range allows, for no volume shrinks; see [`ControllerError`].
    pub async fn expand(&self, id: &VolumeId, range: SizeRange) -> Result<u64, ControllerError> {
        let until = self.until();
        let san = self.san_of(id)?;
        let of_san = || ControllerError::san(&id.san);
        let found = san
            .find_volume(&id.key, &id.wwid, until)
            .await
            .map_err(of_san())?
            .ok_or_else(|| ControllerError::NoVolume(id.clone()))?;
        let size = range
            .choose_at_least(found.size)
            .map_err(ControllerError::Size)?;
        self.check_growth(&id.san, &san, (found.size, size), until)
            .await?;
        let grown = san
            .ensure_expanded(&found, size, until)
            .await
            .map_err(of_san())?;
        tracing::info!(%id, from = found.size, to = grown.size, "volume has its size");
        Ok(grown.size)
    }
}
