//! CreateVolume: choose the SAN and the size, then make the volume unless it is there.

use std::collections::BTreeMap;

use super::modify::Attributes;
use super::origin::Inherited;
use super::parameters::Parameters;
use super::place::{Accessibility, Place};
use super::{Controller, ControllerError, Origin, Volume, metadata};
use crate::fault::{Fault, Faulted, chain};
use crate::san::{NewVolume, SanVolume, Until};
use crate::volume::{AnySnapshotId, FileSystemKind, SizeRange};

/// A volume as it is asked for. That its uses are offered was checked when the request was read: every volume serves every use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The caller's key for repeats.
    pub name: String,
    /// The sizes that will do.
    pub range: SizeRange,
    /// StorageClass parameters.
    pub parameters: BTreeMap<String, String>,
    /// VolumeAttributesClass parameters.
    pub attributes: BTreeMap<String, String>,
    /// The file systems that may be made on it; none for a volume that is only used raw.
    pub kinds: Vec<FileSystemKind>,
    /// From where it must be reachable.
    pub accessibility: Accessibility,
    /// What it begins as a copy of; else it begins blank.
    pub origin: Option<Origin>,
}

impl Controller {
    /// Makes the volume, or finds the one that an earlier call made. Where several partitions will do, one without room is passed over.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn create(&self, wanted: &Wanted) -> Result<Volume, ControllerError> {
        let until = self.until();
        let parameters = Parameters::parse(&wanted.parameters)?;
        parameters.check_for(&wanted.kinds)?;
        let attributes = Attributes::parse(&wanted.attributes)?;
        let mut places = match &wanted.origin {
            Some(Origin::Snapshot(AnySnapshotId::Archived(_))) | None => {
                self.places(&parameters, &wanted.accessibility)?
            }
            Some(origin) => vec![self.place_of(origin, &parameters, &wanted.accessibility)?],
        };
        self.put_made_first(&mut places, wanted).await;
        loop {
            let place = places.remove(0);
            let asked = (&parameters, &attributes);
            match self.make_limited(wanted, asked, &place, until).await {
                Err(error) if is_of_this_place(&error) && !places.is_empty() => {
                    let error = chain(&error);
                    tracing::info!(name = wanted.name, partition = %place.0, error, "not here; trying the next partition");
                }
                outcome => return outcome,
            }
        }
    }

    async fn make_limited(
        &self,
        wanted: &Wanted,
        (parameters, attributes): (&Parameters, &Attributes),
        place: &Place,
        until: Until,
    ) -> Result<Volume, ControllerError> {
        let limit = self.find_limit(attributes, place, until).await?;
        let made = self.make(wanted, parameters, place, until).await?;
        self.ensure_limit(&made.id.key, limit.as_ref(), place, until)
            .await?;
        Ok(made)
    }

    /// A repeated call may prefer another partition than the one in which the volume was made. A SAN that does not say is passed over: its word
    /// is asked for again if it comes first, and the others are not to wait for it.
    async fn put_made_first(&self, places: &mut [Place], wanted: &Wanted) {
        if places.len() < 2 {
            return;
        }
        let until = Until::now() + self.budget / 3;
        for index in 0..places.len() {
            let (partition, san) = &places[index];
            let name = self.fleet.rules(partition).name_on_san(&wanted.name);
            let made = match san.find_named(&name, until).await {
                Ok(None) if wanted.origin.is_some() => {
                    san.find_named(&metadata::filler_name(&name), until).await
                }
                made => made,
            };
            let is_ours = |found: &SanVolume| {
                metadata::is_of(found, partition)
                    || metadata::is_helper_in(&found.metadata, partition)
            };
            match made {
                Ok(Some(found)) if is_ours(&found) => {
                    places[..=index].rotate_right(1);
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%partition, error, "not known whether the volume was made here before");
                }
            }
        }
    }

    async fn make(
        &self,
        wanted: &Wanted,
        parameters: &Parameters,
        place: &Place,
        until: Until,
    ) -> Result<Volume, ControllerError> {
        let (partition, san) = place;
        if let Some(Origin::Snapshot(AnySnapshotId::Archived(id))) = &wanted.origin {
            return self.restore(wanted, parameters, (place, id), until).await;
        }
        let name = self.fleet.rules(partition).name_on_san(&wanted.name);
        let origin = wanted.origin.as_ref();
        let Inherited { size, header } = match origin {
            None => Inherited {
                size: wanted.range.choose().map_err(ControllerError::Size)?,
                header: None,
            },
            Some(origin) => {
                let asked = (&*name, wanted.range, parameters);
                self.inherited(origin, place, asked, until).await?
            }
        };
        let new = NewVolume {
            name,
            size,
            range: wanted.range,
            metadata: metadata::notes(&wanted.name, partition, parameters, origin, header.as_ref()),
            decisive: metadata::DECISIVE,
            source: origin.and_then(Origin::on_san),
        };
        self.check_rules(partition, san, &new, until).await?;
        let made = san
            .ensure_volume(&new, until)
            .await
            .map_err(ControllerError::san(partition))?;
        tracing::info!(name = wanted.name, wwid = %made.wwid, size = made.size, %partition, "volume is there");
        Ok(Volume::new(san, partition, made))
    }
}

/// Whether another partition may do what this one cannot.
fn is_of_this_place(error: &ControllerError) -> bool {
    let lacks_policy = matches!(
        error,
        ControllerError::UnknownPolicy { .. } | ControllerError::PolicyNotOffered { .. }
    );
    lacks_policy || error.fault() == Fault::Exhausted
}
