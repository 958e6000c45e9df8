//! One volume for an operator: found by whatever he has of it, and how its SAN says it stands.

use super::list::walk_volumes;
use super::{Controller, ControllerError, Volume};
use crate::san::{Checked, San, SanError, SanVolume};
use crate::volume::VolumeId;

impl Controller {
    /// The volume of this id, WWID or name on its SAN, if a SAN of the config file has it.
    ///
    /// # Errors
    /// As a SAN that may have it, or the way to it, failed.
    pub async fn trace(&self, name: &str) -> Result<Option<(VolumeId, Checked)>, ControllerError> {
        let id = match VolumeId::find(name) {
            Some(id) => Some(id),
            None => self.find_called(name).await?,
        };
        let Some(id) = id else {
            return Ok(None);
        };
        let san = self.san_of(&id)?;
        let found = san.check_volume(&id.key, &id.wwid, self.until()).await;
        let found = found.map_err(ControllerError::san(&id.san))?;
        Ok(found.map(|checked| (id, checked)))
    }

    async fn find_called(&self, name: &str) -> Result<Option<VolumeId>, ControllerError> {
        for partition in self.fleet.names() {
            let Some(san) = self.fleet.find(&partition) else {
                continue;
            };
            let found = self.find_on(&san, name).await;
            if let Some(volume) = found.map_err(ControllerError::san(&partition))? {
                return Ok(Some(Volume::new(&san, &partition, volume).id));
            }
        }
        Ok(None)
    }

    async fn find_on(&self, san: &San, name: &str) -> Result<Option<SanVolume>, SanError> {
        let until = self.until();
        if let Some(named) = san.find_named(name, until).await? {
            return Ok(Some(named));
        }
        let is_it = |volume: SanVolume| (volume.wwid.as_str() == name).then_some(volume);
        walk_volumes(san, || until, is_it).await
    }
}
