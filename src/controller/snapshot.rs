//! CreateSnapshot, DeleteSnapshot, GetSnapshot: one volume as it was at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::metadata::{self, Notes, SnapshotNotes};
use super::parameters;
use super::place::Place;
use super::{Controller, ControllerError};
use crate::archiver::Archived;
use crate::fault::chain;
use crate::san::{NewSnapshot, San, SanSnapshot, Until};
use crate::volume::{AnySnapshotId, ArchivedId, GroupId, SanName, SnapshotId, VolumeId};

/// A snapshot as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSnapshot {
    /// The caller's key for repeats.
    pub name: String,
    /// The volume.
    pub source: VolumeId,
    /// VolumeSnapshotClass parameters.
    pub parameters: BTreeMap<String, String>,
}

/// A snapshot as the orchestrator is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: AnySnapshotId,
    /// The volume that was cut; may be gone, and is not known of an image that was put into an archive.
    pub source: Option<VolumeId>,
    /// The size of that volume then, in bytes: the least that a volume made of it has.
    pub size: u64,
    /// That moment, by the SAN's clock.
    pub created_at: SystemTime,
    /// Those that were cut at the same moment; it goes with them alone.
    pub group: Option<GroupId>,
    /// Whether a volume can be made of it wherever it is to be had: one for an archive is ready when that has it, any other at once.
    pub is_ready: bool,
}

impl Snapshot {
    /// `None` for one that was not made through this partition: two may share a SAN, and a SAN may hold what is not ours. One that goes to an archive is not
    /// called ready here.
    pub(super) fn find(san: &San, partition: &SanName, found: SanSnapshot) -> Option<Self> {
        if !metadata::is_in(&found.metadata, partition) {
            return None;
        }
        let id = |key| (san.kind(), partition.clone(), key);
        let group = metadata::group(&found.metadata).map(|key| {
            let (family, san, key) = id(key);
            GroupId { family, san, key }
        });
        let source = metadata::source(&found.metadata)?;
        let archived = archived_id(san, partition, &found.metadata);
        let is_ready = archived.is_none();
        let created_at = match is_ready {
            true => found.created_at,
            // As the archive tells it: the answer is the same when the SAN's cut is gone.
            false => in_seconds(found.created_at),
        };
        let (family, san, key) = id(found.key);
        let on_san = AnySnapshotId::OnSan(SnapshotId { family, san, key });
        Some(Self {
            id: archived.map_or(on_san, AnySnapshotId::Archived),
            source: Some(source),
            size: found.size,
            created_at,
            group,
            is_ready,
        })
    }

    /// One that an archive has.
    pub(super) fn of_archive(archive: &str, archived: &Archived) -> Self {
        let id = ArchivedId {
            archive: archive.to_owned(),
            name: archived.snapshot.clone(),
        };
        let since = Duration::from_secs(archived.cut_at);
        let created_at = SystemTime::UNIX_EPOCH.checked_add(since);
        Self {
            id: AnySnapshotId::Archived(id),
            source: archived.volume.as_deref().and_then(VolumeId::find),
            size: archived.size,
            created_at: created_at.unwrap_or(SystemTime::UNIX_EPOCH),
            group: None,
            is_ready: true,
        }
    }
}

fn in_seconds(moment: SystemTime) -> SystemTime {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since)
}

/// The id of a cut that goes to an archive.
fn archived_id(san: &San, partition: &SanName, notes: &Notes) -> Option<ArchivedId> {
    let choice = metadata::choice(notes)?;
    ArchivedId::new(
        &choice.archive,
        san.kind(),
        partition,
        metadata::name(notes)?,
    )
}

/// A SAN's cut that is in an archive, or on its way there.
pub(super) struct Cut {
    /// Where.
    pub(super) place: Place,
    /// By the SAN's word.
    pub(super) found: SanSnapshot,
    /// What it is called there.
    pub(super) archived: ArchivedId,
    /// Whether the SAN keeps it.
    pub(super) is_retained: bool,
}

impl Cut {
    /// `None` for one that goes to no archive.
    pub(super) fn find(place: Place, found: SanSnapshot) -> Option<Self> {
        if !metadata::is_in(&found.metadata, &place.0) {
            return None;
        }
        let choice = metadata::choice(&found.metadata)?;
        let archived = archived_id(&place.1, &place.0, &found.metadata)?;
        Some(Self {
            place,
            found,
            archived,
            is_retained: choice.is_retained,
        })
    }
}

impl Controller {
    /// Cuts the volume, or finds the snapshot that an earlier call cut. Every write that a node was told is done before this call is in it. One for an archive is
    /// carried a step further by each call.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn create_snapshot(
        &self,
        wanted: &WantedSnapshot,
    ) -> Result<Snapshot, ControllerError> {
        let until = self.until();
        let choice = parameters::archive_choice(&wanted.parameters)?;
        let partition = &wanted.source.san;
        let san = self.san_of(&wanted.source)?;
        let name = self.fleet.rules(partition).name_on_san(&wanted.name);
        if let Some(choice) = &choice {
            let id = self.archived_id(choice, (partition, &san), &wanted.name)?;
            if !choice.is_retained
                && let Some(done) = self
                    .find_given_up(&id, wanted, (&san, &name), until)
                    .await?
            {
                return Ok(done);
            }
        }
        let made_with = self.made_with(&san, &wanted.source, &name, until).await?;
        let notes = SnapshotNotes {
            name: &wanted.name,
            source: &wanted.source,
            made_with,
            group: None,
            archive: choice.as_ref(),
        };
        let new = NewSnapshot {
            name,
            volume: wanted.source.key.clone(),
            metadata: notes.write(),
            decisive: metadata::SNAPSHOT_DECISIVE,
        };
        let cut = san.ensure_snapshots(&[new], until).await;
        let cut = cut.map_err(ControllerError::san(partition))?.pop();
        let cut = cut.ok_or(ControllerError::Unnoted)?;
        let place = (partition.clone(), Arc::clone(&san));
        let carried = Cut::find(place, cut.clone());
        let snapshot = Snapshot::find(&san, partition, cut).ok_or(ControllerError::Unnoted)?;
        tracing::info!(name = wanted.name, volume = %wanted.source, snapshot = %snapshot.id, "snapshot is there");
        let is_ready = match &carried {
            Some(cut) => self.carry_alone(cut, until).await?,
            None => true,
        };
        if let Some(cut) = carried.filter(|cut| is_ready && !cut.is_retained) {
            // What was cut again by a repeated call is not what is archived.
            let archived = self.find_archived(&cut.archived, until).await?;
            let archived = archived.ok_or(ControllerError::Unnoted)?;
            return Ok(Snapshot::of_archive(&cut.archived.archive, &archived));
        }
        Ok(Snapshot {
            is_ready,
            ..snapshot
        })
    }

    /// The snapshot of an earlier call that the archive has and the SAN has given up.
    async fn find_given_up(
        &self,
        id: &ArchivedId,
        wanted: &WantedSnapshot,
        (san, name): (&San, &str),
        until: Until,
    ) -> Result<Option<Snapshot>, ControllerError> {
        let cut = san.find_snapshot_named(name, until).await;
        if cut
            .map_err(ControllerError::san(&wanted.source.san))?
            .is_some()
        {
            return Ok(None);
        }
        let archived = match self.find_archived(id, until).await {
            Ok(archived) => archived,
            // The cut comes first: should this be a repeated call, the archive's word is heard before anything is carried, and the new cut goes again.
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%id, error, "not known whether the archive has it");
                return Ok(None);
            }
        };
        let found = archived.map(|archived| Snapshot::of_archive(&id.archive, &archived));
        match found {
            Some(found) if found.source.as_ref() != Some(&wanted.source) => {
                Err(ControllerError::OtherArchived(id.clone()))
            }
            found => Ok(found),
        }
    }

    /// A step towards the archive, unless somebody is at it.
    async fn carry_alone(&self, cut: &Cut, until: Until) -> Result<bool, ControllerError> {
        let Ok(_alone) = self.carrying.try_begin(&cut.archived.to_string()) else {
            return Ok(false);
        };
        self.carry(cut, until).await
    }

    /// The SAN's own cut of an archived snapshot.
    pub(super) async fn find_cut(
        &self,
        id: &ArchivedId,
        until: Until,
    ) -> Result<Option<Cut>, ControllerError> {
        let Some((place, name)) = self.place_of_cut(id) else {
            return Ok(None);
        };
        let found = place.1.find_snapshot_named(&name, until).await;
        let found = found.map_err(ControllerError::san(&place.0))?;
        let cut = found.and_then(|found| Cut::find(place, found));
        Ok(cut.filter(|cut| cut.archived == *id))
    }

    /// Where it is, or was, and its name there; `None` when that is no partition of ours.
    pub(super) fn place_of_cut(&self, id: &ArchivedId) -> Option<(Place, String)> {
        let (family, partition, name) = id.on_san()?;
        let san = self.fleet.find(&partition)?;
        let name = self.fleet.rules(&partition).name_on_san(name);
        (san.kind() == family).then_some(((partition, san), name))
    }

    /// What the volume that is to be cut was made with, as it is noted on the SAN. Nothing when it is gone and the snapshot is there all the same: then this is a
    /// repeated call.
    pub(super) async fn made_with(
        &self,
        san: &San,
        volume: &VolumeId,
        snapshot: &str,
        until: Until,
    ) -> Result<Notes, ControllerError> {
        let of_san = || ControllerError::san(&volume.san);
        let found = san.find_volume(&volume.key, &volume.wwid, until).await;
        if let Some(found) = found.map_err(of_san())? {
            return Ok(metadata::made_with(&found));
        }
        let cut = san.find_snapshot_named(snapshot, until).await;
        match cut.map_err(of_san())? {
            Some(_) => Ok(Notes::new()),
            None => Err(ControllerError::NoVolume(volume.clone())),
        }
    }

    /// Removes the snapshot; absent is fine. Its volume and what was made of it stay.
    ///
    /// # Errors
    /// [`ControllerError::Member`] for one of a group; see [`ControllerError`].
    pub async fn delete_snapshot(&self, id: &AnySnapshotId) -> Result<(), ControllerError> {
        let until = self.until();
        let id = match id {
            AnySnapshotId::OnSan(id) => id,
            AnySnapshotId::Archived(id) => return self.delete_archived(id, until).await,
        };
        let san = self.san_of_snapshot(id)?;
        let Some(found) = self.find_snapshot(&san, id, until).await? else {
            return Ok(());
        };
        if let Some(group) = found.group {
            let snapshot = id.clone();
            return Err(ControllerError::Member { snapshot, group });
        }
        // What goes to an archive is known by another id.
        if found.id.on_san() != Some(id) {
            return Ok(());
        }
        san.remove_snapshot(&id.key, until)
            .await
            .map_err(ControllerError::san(&id.san))?;
        tracing::info!(%id, "snapshot is gone");
        Ok(())
    }

    /// Takes it off its archiver, off the SAN and out of the archive, in this order: what is cut off is done by the repeated call, and nothing is left that could
    /// put it there again.
    async fn delete_archived(&self, id: &ArchivedId, until: Until) -> Result<(), ControllerError> {
        let _alone = self.carrying.try_begin(&id.to_string())?;
        if let Some((place, name)) = self.place_of_cut(id) {
            self.clear_carrier_of(id, (&place, &name), until).await?;
            if let Some(cut) = self.find_cut(id, until).await? {
                let removed = place.1.remove_snapshot(&cut.found.key, until).await;
                removed.map_err(ControllerError::san(&place.0))?;
                // Another controller may have begun to carry it meanwhile; from now on none can.
                self.clear_carrier_of(id, (&place, &name), until).await?;
            }
        }
        let link = self.any_archiver(&id.archive, until).await?;
        let deleted = link.delete_archived((&id.archive, &id.name), until).await;
        deleted.map_err(ControllerError::Archiver)?;
        self.memory().standing.remove(&id.to_string());
        tracing::info!(%id, "snapshot is gone");
        Ok(())
    }

    async fn clear_carrier_of(
        &self,
        id: &ArchivedId,
        (place, cut): (&Place, &str),
        until: Until,
    ) -> Result<(), ControllerError> {
        let carrier = metadata::carrier_name(cut);
        let there = place.1.find_named(&carrier, until).await;
        let there = there.map_err(ControllerError::san(&place.0))?;
        if there.is_some_and(|it| metadata::carried_by(&it.metadata).as_ref() == Some(id)) {
            self.clear_helper(&carrier, place, until).await?;
        }
        Ok(())
    }

    /// The snapshot as it is now.
    ///
    /// # Errors
    /// [`ControllerError::NoSnapshot`], and as the SAN, the archiver or the way to them failed.
    pub async fn get_snapshot(&self, id: &AnySnapshotId) -> Result<Snapshot, ControllerError> {
        let found = self.find_any(id, self.until()).await?;
        found.ok_or_else(|| ControllerError::NoSnapshot(id.clone()))
    }

    pub(super) async fn find_any(
        &self,
        id: &AnySnapshotId,
        until: Until,
    ) -> Result<Option<Snapshot>, ControllerError> {
        let archived = match id {
            AnySnapshotId::OnSan(on_san) => {
                let san = self.san_of_snapshot(on_san)?;
                let found = self.find_snapshot(&san, on_san, until).await?;
                return Ok(found.filter(|found| found.id == *id));
            }
            AnySnapshotId::Archived(archived) => archived,
        };
        let found = self.find_archived(archived, until).await?;
        if let Some(found) = found {
            return Ok(Some(Snapshot::of_archive(&archived.archive, &found)));
        }
        let cut = self.find_cut(archived, until).await?;
        Ok(cut.and_then(|cut| Snapshot::find(&cut.place.1, &cut.place.0, cut.found)))
    }

    pub(super) async fn find_snapshot(
        &self,
        san: &San,
        id: &SnapshotId,
        until: Until,
    ) -> Result<Option<Snapshot>, ControllerError> {
        let found = san.find_snapshot(&id.key, until).await;
        let found = found.map_err(ControllerError::san(&id.san))?;
        Ok(found.and_then(|found| Snapshot::find(san, &id.san, found)))
    }

    pub(super) fn san_of_snapshot(&self, id: &SnapshotId) -> Result<Arc<San>, ControllerError> {
        self.san_named(id.family, &id.san)
    }
}
