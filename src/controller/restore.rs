//! A volume from an archive. A blank volume (its filler) is shown to an archiver of the partition and filled; only a copy of what is filled and proven, made by the SAN
//! at once, bears the name and the notes of the volume that was asked for. So what is half filled can be handed out to nobody.
//!
//! As in [`super::archive`] nothing is remembered here: the filler's notes say what it is filled with and what becomes of it.

use super::archive::{Seated, class_of, exactly};
use super::create::Wanted;
use super::origin::{Found, Inherited};
use super::parameters::Parameters;
use super::place::Place;
use super::{Controller, ControllerError, Origin, Volume, metadata};
use crate::archiver::{Archived, ArchiverError, State, Told};
use crate::fault::{Fault, chain};
use crate::san::{Access, NewVolume, Others, SanError, SanVolume, Source, Until};
use crate::volume::{AnySnapshotId, ArchivedId, SanName, VolumeId};

impl Controller {
    /// The volume that `wanted` asks for, made of the archived snapshot `id`. The SAN's own cut is used where it still has it.
    pub(super) async fn restore(
        &self,
        wanted: &Wanted,
        parameters: &Parameters,
        (place, id): (&Place, &ArchivedId),
        until: Until,
    ) -> Result<Volume, ControllerError> {
        let (partition, san) = place;
        let of_san = || ControllerError::san(partition);
        let name = self.fleet.rules(partition).name_on_san(&wanted.name);
        let filler = metadata::filler_name(&name);
        let _alone = self.carrying.try_begin(&filling(partition, &filler))?;
        let origin = Origin::Snapshot(AnySnapshotId::Archived(id.clone()));
        let made = san.find_named(&name, until).await.map_err(of_san())?;
        let is_made = made.is_some();
        let (found, source) = match &made {
            Some(made) => (None, made.source.clone()),
            None => self.find_content(id, place, until).await?,
        };
        let inherited = match (made, found) {
            (Some(made), _) => Inherited {
                size: made.size,
                header: metadata::header(&made.metadata),
            },
            (None, Some(found)) => found.hand_on(&origin, wanted.range, parameters)?,
            (None, None) => return Err(ControllerError::NoOrigin(origin)),
        };
        let header = inherited.header.as_ref();
        let new = NewVolume {
            metadata: metadata::notes(&wanted.name, partition, parameters, Some(&origin), header),
            name,
            size: inherited.size,
            range: wanted.range,
            decisive: metadata::DECISIVE,
            source,
        };
        self.check_rules(partition, san, &new, until).await?;
        let volume = if is_made || new.source.is_some() {
            let volume = san.ensure_volume(&new, until).await.map_err(of_san())?;
            self.clear_helper(&filler, place, until).await?;
            volume
        } else {
            let filler = self.ensure_filler(&new, place, id, until).await?;
            let filled = self.fill(&filler, place, until).await?;
            let source = filled.source.clone();
            let difference = NewVolume { source, ..new }.difference(&filled);
            if let Some(difference) = difference {
                let name = filled.name;
                return Err(of_san()(SanError::Taken { name, difference }));
            }
            filled
        };
        tracing::info!(name = wanted.name, wwid = %volume.wwid, size = volume.size, %partition, "volume is there");
        Ok(Volume::new(san, partition, volume))
    }

    /// What is known of the snapshot, and the SAN's own cut of it, should it be there.
    async fn find_content(
        &self,
        id: &ArchivedId,
        (partition, _): &Place,
        until: Until,
    ) -> Result<(Option<Found>, Option<Source>), ControllerError> {
        let cut = self.find_cut(id, until).await?;
        if let Some(cut) = cut.filter(|cut| cut.place.0 == *partition) {
            let source = Some(Source::Snapshot(cut.found.key.clone()));
            return Ok((Some(Found::of_cut(&cut.found)), source));
        }
        let archived = self.find_archived(id, until).await;
        let archived = archived.map_err(|error| unusable(id, error))?;
        Ok((archived.map(found_in_archive), None))
    }

    /// The blank volume that is to be filled.
    async fn ensure_filler(
        &self,
        wanted: &NewVolume,
        (partition, san): &Place,
        id: &ArchivedId,
        until: Until,
    ) -> Result<SanVolume, ControllerError> {
        let new = NewVolume {
            name: metadata::filler_name(&wanted.name),
            range: exactly(wanted.size),
            metadata: metadata::filler_notes(partition, id, &wanted.metadata),
            decisive: metadata::HELPER_DECISIVE,
            ..wanted.clone()
        };
        let made = san.ensure_volume(&new, until).await;
        made.map_err(ControllerError::helper(partition))
    }

    /// A step of what a filler says, by nobody's call: unless one is at it, or was since `filler` was seen.
    pub(super) async fn fill_alone(
        &self,
        filler: &SanVolume,
        place: &Place,
    ) -> Result<(), ControllerError> {
        let (partition, san) = place;
        let Ok(_alone) = self.carrying.try_begin(&filling(partition, &filler.name)) else {
            return Ok(());
        };
        let until = self.until();
        let now = san.find_named(&filler.name, until).await;
        let now = now.map_err(ControllerError::san(partition))?;
        match now.filter(|now| now.wwid == filler.wwid) {
            Some(now) => self.fill(&now, place, until).await.map(drop),
            None => Ok(()),
        }
    }

    /// One step: the volume that was asked for, once the filler is full. Nobody else may be at it here. Where the volume is there already the filler goes: another
    /// controller handed it out, and this one was made for it too late.
    async fn fill(
        &self,
        filler: &SanVolume,
        place: &Place,
        until: Until,
    ) -> Result<SanVolume, ControllerError> {
        let id = metadata::filled_with(&filler.metadata).ok_or(ControllerError::Unnoted)?;
        if let Some(made) = self.handed_out(filler, place, until).await? {
            self.clear_helper(&filler.name, place, until).await?;
            return Ok(made);
        }
        let told = match self.ended(filler, until).await? {
            Some(told) => told,
            None => self.have_filled(filler, place, &id, until).await?,
        };
        match told.state {
            State::Done => self.hand_out(filler, place, until).await,
            State::Running => Err(ControllerError::Restoring {
                id,
                done: told.done,
                total: told.total,
                trouble: told.trouble.map(|(_, reason)| reason),
            }),
            State::Failed => {
                let fault = class_of(told.trouble.as_ref());
                let reason = told.trouble.map(|(_, reason)| reason).unwrap_or_default();
                self.clear_helper(&filler.name, place, until).await?;
                Err(ControllerError::Unrestorable { id, reason, fault })
            }
        }
    }

    /// The volume that was asked for, made of an earlier filler.
    async fn handed_out(
        &self,
        filler: &SanVolume,
        (partition, san): &Place,
        until: Until,
    ) -> Result<Option<SanVolume>, ControllerError> {
        let name = metadata::filled_name(&filler.name);
        let made = san.find_named(&name, until).await;
        let made = made.map_err(ControllerError::san(partition))?;
        let is_of = |it: &SanVolume| it.source == Some(Source::Volume(filler.key.clone()));
        Ok(made.filter(|it| !is_of(it)))
    }

    /// What became of a filler that nobody has any more.
    async fn ended(
        &self,
        filler: &SanVolume,
        until: Until,
    ) -> Result<Option<Told>, ControllerError> {
        if !filler.exported_to.is_empty() {
            return Ok(None);
        }
        for link in self.archivers.all() {
            match link.find_work(filler.wwid.as_str(), until).await {
                Ok(Some(told)) if told.state != State::Running => return Ok(Some(told)),
                Ok(_) => {}
                Err(error) if error.is_lost() => {
                    tracing::debug!(error = chain(&error), "not asked what it has filled");
                }
                Err(error) => return Err(ControllerError::Archiver(error)),
            }
        }
        Ok(None)
    }

    /// Begins to fill it, or asks how far that is.
    async fn have_filled(
        &self,
        filler: &SanVolume,
        place: &Place,
        id: &ArchivedId,
        until: Until,
    ) -> Result<Told, ControllerError> {
        let access = Access {
            read_only: false,
            others: Others::Nobody,
        };
        let seated = self.seat(filler, place, (&id.archive, access), until);
        let Seated::At(seat) = seated.await? else {
            // What the lost one wrote is known to nobody: another one begins with a blank volume.
            self.clear_helper(&filler.name, place, until).await?;
            return Err(ControllerError::Restoring {
                id: id.clone(),
                done: 0,
                total: 0,
                trouble: Some("its archiver is lost; another one begins anew".to_owned()),
            });
        };
        let names = (id.archive.as_str(), id.name.as_str());
        let begun = seat
            .link
            .start_restore(&place.0, &seat.export, names, until);
        begun.await.map_err(ControllerError::Archiver)
    }

    /// Takes the full volume back from its archiver and makes the one that was asked for of it.
    async fn hand_out(
        &self,
        filler: &SanVolume,
        place: &Place,
        until: Until,
    ) -> Result<SanVolume, ControllerError> {
        let (partition, san) = place;
        let of_san = || ControllerError::helper(partition);
        let taken = san.remove_export(&filler.key, &filler.wwid, None, until);
        taken.await.map_err(of_san())?;
        let new = NewVolume {
            name: metadata::filled_name(&filler.name),
            size: filler.size,
            range: exactly(filler.size),
            metadata: metadata::notes_of_filled(&filler.metadata),
            decisive: metadata::DECISIVE,
            source: Some(Source::Volume(filler.key.clone())),
        };
        let made = san.ensure_volume(&new, until).await.map_err(of_san())?;
        self.clear_helper(&filler.name, place, until).await?;
        Ok(made)
    }
}

/// What whoever works on a filler has to himself: another one would begin again what this one has just ended.
fn filling(partition: &SanName, filler: &str) -> String {
    format!("{partition}/{filler}")
}

/// A manifest that cannot be used stands against it for good.
fn unusable(id: &ArchivedId, error: ControllerError) -> ControllerError {
    match error {
        ControllerError::Archiver(ArchiverError::Refused {
            fault: fault @ Fault::Precondition,
            reason,
            ..
        }) => ControllerError::Unrestorable {
            id: id.clone(),
            reason,
            fault,
        },
        other => other,
    }
}

fn found_in_archive(archived: Archived) -> Found {
    let source = archived.volume.as_deref().and_then(VolumeId::find);
    Found {
        size: archived.size,
        kept: metadata::kept(&archived.notes),
        header: metadata::header(&archived.notes).or(source.map(|volume| volume.wwid)),
    }
}
