//! CreateSnapshot, DeleteSnapshot, GetSnapshot: one volume as it was at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::metadata::{self, Notes, SnapshotNotes};
use super::parameters;
use super::{Controller, ControllerError};
use crate::san::{NewSnapshot, San, SanSnapshot, Until};
use crate::volume::{GroupId, SanName, SnapshotId, VolumeId};

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

/// A snapshot as the orchestrator is told of it. It is ready as soon as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The volume that was cut; may be gone.
    pub source: VolumeId,
    /// The size of that volume then, in bytes: the least that a volume made of it has.
    pub size: u64,
    /// That moment, by the SAN's clock.
    pub created_at: SystemTime,
    /// Those that were cut at the same moment; it goes with them alone.
    pub group: Option<GroupId>,
}

impl Snapshot {
    /// `None` for one that was not made through this partition: two may share a SAN, and a SAN may hold what is not ours.
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
        let (family, san, key) = id(found.key);
        Some(Self {
            id: SnapshotId { family, san, key },
            source,
            size: found.size,
            created_at: found.created_at,
            group,
        })
    }
}

impl Controller {
    /// Cuts the volume, or finds the snapshot that an earlier call cut. Every write that a node was told is done before this call is in it.
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn create_snapshot(
        &self,
        wanted: &WantedSnapshot,
    ) -> Result<Snapshot, ControllerError> {
        let until = self.until();
        parameters::check_for_snapshot(&wanted.parameters)?;
        let partition = &wanted.source.san;
        let san = self.san_of(&wanted.source)?;
        let name = self.fleet.rules(partition).name_on_san(&wanted.name);
        let made_with = self.made_with(&san, &wanted.source, &name, until).await?;
        let notes = SnapshotNotes {
            name: &wanted.name,
            source: &wanted.source,
            made_with,
            group: None,
        };
        let new = NewSnapshot {
            name,
            volume: wanted.source.key.clone(),
            metadata: notes.write(),
            decisive: metadata::SNAPSHOT_DECISIVE,
        };
        let cut = san.ensure_snapshots(&[new], until).await;
        let cut = cut.map_err(ControllerError::san(partition))?.pop();
        let snapshot = cut.and_then(|found| Snapshot::find(&san, partition, found));
        let snapshot = snapshot.ok_or(ControllerError::Unnoted)?;
        tracing::info!(name = wanted.name, volume = %wanted.source, snapshot = %snapshot.id, "snapshot is there");
        Ok(snapshot)
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
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), ControllerError> {
        let until = self.until();
        let san = self.san_of_snapshot(id)?;
        let Some(found) = self.find_snapshot(&san, id, until).await? else {
            return Ok(());
        };
        if let Some(group) = found.group {
            let snapshot = id.clone();
            return Err(ControllerError::Member { snapshot, group });
        }
        san.remove_snapshot(&id.key, until)
            .await
            .map_err(ControllerError::san(&id.san))?;
        tracing::info!(%id, "snapshot is gone");
        Ok(())
    }

    /// The snapshot as it is now.
    ///
    /// # Errors
    /// [`ControllerError::NoSnapshot`], and as the SAN or the way to it failed.
    pub async fn get_snapshot(&self, id: &SnapshotId) -> Result<Snapshot, ControllerError> {
        let san = self.san_of_snapshot(id)?;
        let found = self.find_snapshot(&san, id, self.until()).await?;
        found.ok_or_else(|| ControllerError::NoSnapshot(id.clone()))
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
