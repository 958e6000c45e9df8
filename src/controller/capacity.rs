//! GetCapacity: the room for new volumes, of one partition or of all.

use std::collections::BTreeMap;

use super::limits::total;
use super::parameters::Parameters;
use super::place::{Partitions, named};
use super::{Controller, ControllerError};
use crate::san::Until;
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
    /// The room in the partition that the parameters name; without a name, in all together. Only those of `reachable` count, if it is given.
    ///
    /// # Errors
    /// See [`ControllerError`]; one SAN that does not answer fails the sum.
    pub async fn capacity(
        &self,
        parameters: &BTreeMap<String, String>,
        reachable: Option<&Partitions>,
    ) -> Result<Room, ControllerError> {
        let until = self.until();
        let parameters = Parameters::parse(parameters)?;
        let known = self.fleet.names();
        let names = match parameters.partition() {
            Some(text) => vec![named(text, &known)?],
            None => known,
        };
        let counts = |name: &SanName| reachable.is_none_or(|it| it.contains(name));
        let mut sum: Option<Room> = None;
        for name in names.into_iter().filter(counts) {
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
        let of_san = || ControllerError::san(name);
        let capacity = san.capacity(until).await.map_err(of_san())?;
        let rules = self.fleet.rules(name);
        let left = match rules.max_total {
            Some(most) => {
                let used = total(&san, name, until).await.map_err(of_san())?;
                most.saturating_sub(used)
            }
            None => u64::MAX,
        };
        let most = rules.max_volume.unwrap_or(u64::MAX).min(left);
        Ok(Some(Room {
            available: capacity.available.min(left),
            minimum_volume: capacity.minimum_volume,
            maximum_volume: capacity.maximum_volume.min(most),
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
