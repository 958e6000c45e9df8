//! GetCapacity: the room for new volumes, of one partition or of all.

use std::collections::BTreeMap;

use super::parameters::Parameters;
use super::{Controller, ControllerError};
use crate::san::{Capacity, Until};
use crate::volume::SanName;

/// The room for new volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What can still be written, in bytes.
    pub available: u64,
    /// The least a volume can have.
    pub minimum_volume: u64,
    /// The most a volume can have.
    pub maximum_volume: u64,
}

impl Controller {
    /// The room in the partition that the parameters name; without a name, in all together.
    ///
    /// # Errors
    /// See [`ControllerError`]; one SAN that does not answer fails the sum.
    pub async fn capacity(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Room, ControllerError> {
        let until = self.until();
        let parameters = Parameters::parse(parameters)?;
        let names = if parameters.names_partition() {
            vec![self.choose(&parameters)?.0]
        } else {
            self.fleet.names()
        };
        let mut sum: Option<Room> = None;
        for name in names {
            if let Some(room) = self.room(&name, until).await? {
                sum = Some(sum.map_or(room, |sum| sum.and(room)));
            }
        }
        Ok(sum.unwrap_or(Room {
            available: 0,
            minimum_volume: 0,
            maximum_volume: 0,
        }))
    }

    async fn room(&self, name: &SanName, until: Until) -> Result<Option<Room>, ControllerError> {
        let Some(san) = self.fleet.find(name) else {
            return Ok(None);
        };
        let capacity = san.capacity(until).await;
        let Capacity {
            available,
            minimum_volume,
            maximum_volume,
        } = capacity.map_err(ControllerError::san(name))?;
        Ok(Some(Room {
            available,
            minimum_volume,
            maximum_volume,
        }))
    }
}

impl Room {
    fn and(self, other: Self) -> Self {
        Self {
            available: self.available.saturating_add(other.available),
            minimum_volume: self.minimum_volume.min(other.minimum_volume),
            maximum_volume: self.maximum_volume.max(other.maximum_volume),
        }
    }
}
