//! ControllerGetVolumeHealth and ControllerListVolumeHealth: what the SANs say is wrong with their volumes.
//!
//! What a node sees of its paths is the node's to tell. As with ListVolumes, a SAN that does not answer fails the listing: silence is not health.

use super::list::{ASKED, Place, bounded, refused};
use super::{Controller, ControllerError, Volume, metadata};
use crate::san::{Checked, San, Trouble, Until};
use crate::volume::{SanName, VolumeId};

/// How one volume stands on its SAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeHealth {
    /// Which.
    pub volume: VolumeId,
    /// What is wrong; nothing with a healthy one.
    pub troubles: Vec<Trouble>,
}

/// A part of the volumes with which something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthListing {
    /// The volumes.
    pub volumes: Vec<VolumeHealth>,
    /// Where to go on, unless these were the last.
    pub next: Option<String>,
}

impl Controller {
    /// How the volume stands.
    ///
    /// # Errors
    /// [`ControllerError::NoVolume`], and as the SAN or the way to it failed.
    pub async fn health(&self, id: &VolumeId) -> Result<VolumeHealth, ControllerError> {
        let san = self.san_of(id)?;
        let found = san.check_volume(&id.key, &id.wwid, self.until()).await;
        let found = found.map_err(ControllerError::san(&id.san))?;
        let found = found.ok_or_else(|| ControllerError::NoVolume(id.clone()))?;
        Ok(VolumeHealth {
            volume: id.clone(),
            troubles: found.troubles,
        })
    }

    /// At most `most` of the volumes with which something is wrong (0: as many as fit), from where `token` says (empty: from the first).
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn list_health(
        &self,
        token: &str,
        most: usize,
    ) -> Result<HealthListing, ControllerError> {
        let until = self.until();
        let most = bounded(most);
        let mut volumes = Vec::new();
        for mut place in self.places_from(token)? {
            // A partition that was taken out of the config file meanwhile has nothing to list.
            let Some(san) = self.fleet.find(&place.san) else {
                continue;
            };
            let end = self.gather(&san, &mut place, (&mut volumes, most), until);
            if end.await? == End::Full {
                let next = Some(place.to_string());
                return Ok(HealthListing { volumes, next });
            }
        }
        Ok(HealthListing {
            volumes,
            next: None,
        })
    }

    /// Adds what there is from `place` on, and leaves `place` behind the last volume that was looked at. Healthy volumes count for nothing, so whole
    /// pages are asked for, whatever the caller wants at most.
    async fn gather(
        &self,
        san: &San,
        place: &mut Place,
        (volumes, most): (&mut Vec<VolumeHealth>, usize),
        until: Until,
    ) -> Result<End, ControllerError> {
        // Fits by far.
        let asked = u32::try_from(ASKED).unwrap_or(u32::MAX);
        loop {
            let page = san.check_volumes(&place.after, asked, until).await;
            let page = page.map_err(|error| refused(place, error))?;
            for checked in page.volumes {
                if volumes.len() == most {
                    return Ok(End::Full);
                }
                place.after.clone_from(&checked.volume.key);
                volumes.extend(adverse(san, &place.san, checked));
            }
            if !page.more {
                return Ok(End::Last);
            }
        }
    }
}

/// Why a walk through a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There are no more volumes.
    Last,
    /// The answer holds as many as it may.
    Full,
}

fn adverse(san: &San, name: &SanName, checked: Checked) -> Option<VolumeHealth> {
    let is_told = metadata::is_of(&checked.volume, name) && !checked.troubles.is_empty();
    is_told.then(|| VolumeHealth {
        volume: Volume::new(san, name, checked.volume).id,
        troubles: checked.troubles,
    })
}
