//! CreateVolume: choose the SAN and the size, then make the volume unless it is there.

use std::collections::BTreeMap;

use super::metadata;
use super::parameters::Parameters;
use super::{Controller, ControllerError, Volume};
use crate::san::NewVolume;
use crate::volume::{FileSystemKind, SizeRange};

/// A volume as it is asked for. That its uses are offered was checked when the request was read: every volume serves every use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The caller's key for repeats.
    pub name: String,
    /// The sizes that will do.
    pub range: SizeRange,
    /// StorageClass parameters.
    pub parameters: BTreeMap<String, String>,
    /// The file systems that may be made on it; none for a volume that is only used raw.
    pub kinds: Vec<FileSystemKind>,
}

impl Controller {
    /// Makes the volume, or finds the one that an earlier call made.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn create(&self, wanted: &Wanted) -> Result<Volume, ControllerError> {
        let until = self.until();
        let parameters = Parameters::parse(&wanted.parameters)?;
        parameters.check_for(&wanted.kinds)?;
        let (partition, san) = self.choose(&parameters)?;
        let new = NewVolume {
            name: wanted.name.clone(),
            size: wanted.range.choose().map_err(ControllerError::Size)?,
            range: wanted.range,
            metadata: metadata::notes(&wanted.name, &partition, &parameters),
            decisive: metadata::DECISIVE,
        };
        let made = san
            .ensure_volume(&new, until)
            .await
            .map_err(ControllerError::san(&partition))?;
        tracing::info!(name = wanted.name, wwid = %made.wwid, size = made.size, %partition, "volume is there");
        Ok(Volume::new(&san, &partition, made))
    }
}
