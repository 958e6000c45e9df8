//! The operator's limits: how large a volume may be, and how large all of a partition's together.
//!
//! Two controllers that make volumes at the same moment may pass the total by one volume: the SAN knows no such limit, and nothing is kept here.

use super::list::walk_volumes;
use super::{Controller, ControllerError, metadata};
use crate::san::{NewVolume, San, SanError, SanVolume, Until};
use crate::volume::SanName;

impl Controller {
    /// Whether the rules let `new` be made. A volume that is there already is within them, whatever they say today.
    pub(super) async fn check_rules(
        &self,
        partition: &SanName,
        san: &San,
        new: &NewVolume,
        until: Until,
    ) -> Result<(), ControllerError> {
        let rules = self.fleet.rules(partition);
        if rules.max_volume.is_none_or(|most| new.size <= most) && rules.max_total.is_none() {
            return Ok(());
        }
        let found = san.find_named(&new.name, until).await;
        if found.map_err(ControllerError::san(partition))?.is_some() {
            return Ok(());
        }
        self.check_growth(partition, san, (0, new.size), until)
            .await
    }

    /// Whether the rules let a volume grow from `before` to `size` bytes.
    pub(super) async fn check_growth(
        &self,
        partition: &SanName,
        san: &San,
        (before, size): (u64, u64),
        until: Until,
    ) -> Result<(), ControllerError> {
        let rules = self.fleet.rules(partition);
        if size <= before {
            return Ok(());
        }
        if let Some(most) = rules.max_volume.filter(|most| size > *most) {
            let partition = partition.clone();
            return Err(ControllerError::AboveMaximum {
                partition,
                size,
                most,
            });
        }
        let Some(most) = rules.max_total else {
            return Ok(());
        };
        let used = total(san, partition, until).await;
        let used = used.map_err(ControllerError::san(partition))?;
        let more = size - before;
        if used.saturating_add(more) > most {
            return Err(ControllerError::AboveTotal {
                partition: partition.clone(),
                used,
                more,
                most,
            });
        }
        Ok(())
    }
}

/// The bytes of all volumes of a partition together.
pub(super) async fn total(san: &San, partition: &SanName, until: Until) -> Result<u64, SanError> {
    let mut sum = 0_u64;
    let add = |volume: SanVolume| -> Option<()> {
        if metadata::is_of(&volume, partition) {
            sum = sum.saturating_add(volume.size);
        }
        None
    };
    walk_volumes(san, || until, add).await?;
    Ok(sum)
}
