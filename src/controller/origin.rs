//! What a new volume is a copy of: where that is, how large, and what it was made with.

use std::fmt;

use super::parameters::{Kept, Parameters};
use super::place::{Accessibility, Place, named};
use super::{Controller, ControllerError, metadata};
use crate::fabric::Wwid;
use crate::san::{San, Source, Until};
use crate::volume::{SanName, SizeRange, SnapshotId, VolumeId};

/// What a volume is made of (CSI `VolumeContentSource`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot: a restore.
    Snapshot(SnapshotId),
    /// A volume as it is at that moment: a clone.
    Volume(VolumeId),
}

impl Origin {
    /// Reads what is noted on the SAN with a volume.
    pub(super) fn find(text: &str) -> Option<Self> {
        let snapshot = SnapshotId::find(text).map(Self::Snapshot);
        snapshot.or_else(|| VolumeId::find(text).map(Self::Volume))
    }

    /// The partition that it is in; its copies are there, too.
    pub(super) fn partition(&self) -> &SanName {
        match self {
            Self::Snapshot(id) => &id.san,
            Self::Volume(id) => &id.san,
        }
    }

    /// To the SAN.
    pub(super) fn on_san(&self) -> Source {
        match self {
            Self::Snapshot(id) => Source::Snapshot(id.key.clone()),
            Self::Volume(id) => Source::Volume(id.key.clone()),
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
struct Found {
    /// In bytes.
    size: u64,
    /// What it was made with.
    kept: Kept,
    /// The WWID that its LUKS header bears, if it has one: that of the first of its line.
    header: Option<Wwid>,
}

/// What a copy gets from its origin.
pub(super) struct Inherited {
    /// In bytes.
    pub(super) size: u64,
    /// Whose LUKS header it bears; `None` for a volume in the clear.
    pub(super) header: Option<Wwid>,
}

impl Found {
    /// What a copy of this gets whose size is within `range`, for a volume with these parameters.
    fn hand_on(
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
        let partition = origin.partition();
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
            Origin::Snapshot(id) => self.san_of_snapshot(id)?,
            Origin::Volume(id) => self.san_of(id)?,
        };
        Ok((partition.clone(), san))
    }

    /// What the copy of `origin` called `name` on the SAN is to get from it. One that is there has it, whatever became of the origin since.
    pub(super) async fn inherited(
        &self,
        origin: &Origin,
        san: &San,
        (name, range, parameters): (&str, SizeRange, &Parameters),
        until: Until,
    ) -> Result<Inherited, ControllerError> {
        let made = san.find_named(name, until).await;
        if let Some(made) = made.map_err(ControllerError::san(origin.partition()))? {
            let header = metadata::header(&made.metadata);
            let size = made.size;
            return Ok(Inherited { size, header });
        }
        match self.find_origin(origin, san, until).await? {
            Some(found) => found.hand_on(origin, range, parameters),
            None => Err(ControllerError::NoOrigin(origin.clone())),
        }
    }

    /// The origin as it is now; `None` when it is not there.
    async fn find_origin(
        &self,
        origin: &Origin,
        san: &San,
        until: Until,
    ) -> Result<Option<Found>, ControllerError> {
        let of_san = || ControllerError::san(origin.partition());
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
                let found = san.find_snapshot(&id.key, until).await;
                let found = found.map_err(of_san())?;
                let ours = found.filter(|it| metadata::is_in(&it.metadata, &id.san));
                ours.map(|snapshot| {
                    let notes = &snapshot.metadata;
                    let source = metadata::source(notes).map(|volume| volume.wwid);
                    Found {
                        size: snapshot.size,
                        kept: metadata::kept(notes),
                        header: metadata::header(notes).or(source),
                    }
                })
            }
        })
    }
}
