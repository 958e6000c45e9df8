//! What a new volume is a copy of: where that is, how large, and what it was made with.

use std::fmt;

use super::parameters::{Kept, Parameters};
use super::place::{Accessibility, Place, named};
use super::{Controller, ControllerError, metadata};
use crate::fabric::Wwid;
use crate::san::{San, SanSnapshot, Source, Until};
use crate::volume::{AnySnapshotId, SanName, SizeRange, VolumeId};

/// What a volume is made of (CSI `VolumeContentSource`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot: a restore.
    Snapshot(AnySnapshotId),
    /// A volume as it is at that moment: a clone.
    Volume(VolumeId),
}

impl Origin {
    /// Reads what is noted on the SAN with a volume.
    pub(super) fn find(text: &str) -> Option<Self> {
        let snapshot = AnySnapshotId::find(text).map(Self::Snapshot);
        snapshot.or_else(|| VolumeId::find(text).map(Self::Volume))
    }

    /// The partition that it is in; its copies are there, too. What is in an archive is in none.
    pub(super) fn partition(&self) -> Option<&SanName> {
        match self {
            Self::Snapshot(id) => id.on_san().map(|id| &id.san),
            Self::Volume(id) => Some(&id.san),
        }
    }

    /// To the SAN.
    pub(super) fn on_san(&self) -> Option<Source> {
        match self {
            Self::Snapshot(id) => id.on_san().map(|id| Source::Snapshot(id.key.clone())),
            Self::Volume(id) => Some(Source::Volume(id.key.clone())),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => id.fmt(out),
            Self::Volume(id) => id.fmt(out),
        }
    }
}

/// What is known of an origin that is there.
pub(super) struct Found {
    /// In bytes.
    pub(super) size: u64,
    /// What it was made with.
    pub(super) kept: Kept,
    /// The WWID that its LUKS header bears, if it has one: that of the first of its line.
    pub(super) header: Option<Wwid>,
}

/// What a copy gets from its origin.
pub(super) struct Inherited {
    /// In bytes.
    pub(super) size: u64,
    /// Whose LUKS header it bears; `None` for a volume in the clear.
    pub(super) header: Option<Wwid>,
}

impl Found {
    /// Of a cut that is there.
    pub(super) fn of_cut(cut: &SanSnapshot) -> Self {
        let notes = &cut.metadata;
        let source = metadata::source(notes).map(|volume| volume.wwid);
        Self {
            size: cut.size,
            kept: metadata::kept(notes),
            header: metadata::header(notes).or(source),
        }
    }

    /// What a copy of this gets whose size is within `range`, for a volume with these parameters.
    pub(super) fn hand_on(
        self,
        origin: &Origin,
        range: SizeRange,
        parameters: &Parameters,
    ) -> Result<Inherited, ControllerError> {
        let is_encrypted = self.kept.encryption.is_some();
        if is_encrypted && !parameters.is_encrypted() {
            return Err(ControllerError::SealedOrigin(origin.clone()));
        }
        if parameters.is_encrypted() && !is_encrypted {
            return Err(ControllerError::ClearOrigin(origin.clone()));
        }
        let chosen = range.choose_at_least(self.size);
        let size = chosen.map_err(|source| ControllerError::OriginSize {
            origin: origin.clone(),
            source,
        })?;
        let header = self.header.filter(|_| is_encrypted);
        Ok(Inherited { size, header })
    }
}

impl Controller {
    /// The one place where a copy can be made: beside its origin.
    pub(super) fn place_of(
        &self,
        origin: &Origin,
        parameters: &Parameters,
        accessibility: &Accessibility,
    ) -> Result<Place, ControllerError> {
        let gone = || ControllerError::NoOrigin(origin.clone());
        let partition = origin.partition().ok_or_else(gone)?;
        if let Some(text) = parameters.partition() {
            let asked = named(text, &self.fleet.names())?;
            if asked != *partition {
                return Err(ControllerError::OriginElsewhere {
                    origin: origin.clone(),
                    asked,
                });
            }
        }
        accessibility.check(partition)?;
        let san = match origin {
            Origin::Snapshot(id) => self.san_of_snapshot(id.on_san().ok_or_else(gone)?)?,
            Origin::Volume(id) => self.san_of(id)?,
        };
        Ok((partition.clone(), san))
    }

    /// What the copy of `origin` called `name` on the SAN is to get from it. One that is there has it, whatever became of the origin since.
    pub(super) async fn inherited(
        &self,
        origin: &Origin,
        (partition, san): &Place,
        (name, range, parameters): (&str, SizeRange, &Parameters),
        until: Until,
    ) -> Result<Inherited, ControllerError> {
        let made = san.find_named(name, until).await;
        if let Some(made) = made.map_err(ControllerError::san(partition))? {
            let header = metadata::header(&made.metadata);
            let size = made.size;
            return Ok(Inherited { size, header });
        }
        match self.find_origin(origin, (partition, san), until).await? {
            Some(found) => found.hand_on(origin, range, parameters),
            None => Err(ControllerError::NoOrigin(origin.clone())),
        }
    }

    /// The origin as it is now; `None` when it is not there.
    async fn find_origin(
        &self,
        origin: &Origin,
        (partition, san): (&SanName, &San),
        until: Until,
    ) -> Result<Option<Found>, ControllerError> {
        let of_san = || ControllerError::san(partition);
        Ok(match origin {
            Origin::Volume(id) => {
                let found = san.find_volume(&id.key, &id.wwid, until).await;
                found.map_err(of_san())?.map(|volume| Found {
                    size: volume.size,
                    kept: metadata::kept(&volume.metadata),
                    header: metadata::header(&volume.metadata).or(Some(volume.wwid)),
                })
            }
            Origin::Snapshot(id) => {
                let Some(id) = id.on_san() else {
                    return Ok(None);
                };
                let found = san.find_snapshot(&id.key, until).await;
                let found = found.map_err(of_san())?;
                let ours = found.filter(|it| metadata::is_in(&it.metadata, &id.san));
                ours.as_ref().map(Found::of_cut)
            }
        })
    }
}
