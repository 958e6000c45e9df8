//! Snapshots of several volumes that are cut at one moment: CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot, GetVolumeGroupSnapshot.
//!
//! The SAN knows no groups, only that snapshots are cut together. What makes them a group is noted with each: a random key, the group's name and how many
//! they are. Members are numbered in the order of their volumes' keys, so the same volumes make the same names in whatever order they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use uuid::Uuid;

use super::metadata::{self, GroupNotes, SnapshotNotes};
use super::parameters;
use super::{Controller, ControllerError, Snapshot};
use crate::san::{NewSnapshot, San, Until};
use crate::volume::{AnySnapshotId, GroupId, SanName, SnapshotId, VolumeId};

/// A group as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedGroup {
    /// The caller's key for repeats.
    pub name: String,
    /// The volumes; at least one.
    pub sources: BTreeSet<VolumeId>,
    /// VolumeGroupSnapshotClass parameters.
    pub parameters: BTreeMap<String, String>,
}

/// A group that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its members; at least one.
    pub snapshots: Vec<Snapshot>,
}

impl Group {
    /// The moment of the cut, by the SAN's clock.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        let moments = self.snapshots.iter().map(|it| it.created_at);
        moments.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn of(snapshots: Vec<Snapshot>) -> Result<Self, ControllerError> {
        let first = snapshots.first().and_then(|it| it.group.clone());
        let id = first.ok_or(ControllerError::Unnoted)?;
        Ok(Self { id, snapshots })
    }
}

impl Controller {
    /// Cuts all volumes at one moment, or finds what an earlier call cut.
    ///
    /// # Errors
    /// [`ControllerError::SeveralSans`]; a precondition also when the SAN's pool cannot cut several volumes at one moment; see [`ControllerError`].
    pub async fn create_group(&self, wanted: &WantedGroup) -> Result<Group, ControllerError> {
        let until = self.until();
        parameters::check_for_snapshot(&wanted.parameters)?;
        let partition = one_partition(&wanted.sources)?;
        let sans = wanted.sources.iter().map(|source| self.san_of(source));
        let sans: Vec<_> = sans.collect::<Result<_, _>>()?;
        let san = &sans[0];
        let wanted = self.members(wanted, partition, san, until).await?;
        let cut = san.ensure_snapshots(&wanted, until).await;
        let cut = cut.map_err(ControllerError::san(partition))?;
        let cut = cut.into_iter();
        let snapshots = cut.filter_map(|found| Snapshot::find(san, partition, found));
        let group = Group::of(snapshots.collect())?;
        tracing::info!(group = %group.id, members = group.snapshots.len(), "group of snapshots is there");
        Ok(group)
    }

    async fn members(
        &self,
        wanted: &WantedGroup,
        partition: &SanName,
        san: &San,
        until: Until,
    ) -> Result<Vec<NewSnapshot>, ControllerError> {
        let rules = self.fleet.rules(partition);
        let key = Uuid::new_v4().simple().to_string();
        let mut sources: Vec<&VolumeId> = wanted.sources.iter().collect();
        sources.sort_by(|one, other| one.key.cmp(&other.key));
        let mut members = Vec::new();
        for (number, source) in sources.into_iter().enumerate() {
            let name = rules.name_on_san(&format!("{}.{number}", wanted.name));
            let notes = SnapshotNotes {
                name: &wanted.name,
                source,
                made_with: self.made_with(san, source, &name, until).await?,
                group: Some(GroupNotes {
                    key: &key,
                    members: wanted.sources.len(),
                }),
                archive: None,
            };
            members.push(NewSnapshot {
                name,
                volume: source.key.clone(),
                metadata: notes.write(),
                decisive: metadata::SNAPSHOT_DECISIVE,
            });
        }
        Ok(members)
    }

    /// Removes the group with all its members; absent is fine. What an earlier call removed of it may be named or not.
    ///
    /// # Errors
    /// [`ControllerError::OtherMembers`] when `named` are not its members; see [`ControllerError`].
    pub async fn delete_group(
        &self,
        id: &GroupId,
        named: &BTreeSet<String>,
    ) -> Result<(), ControllerError> {
        let until = self.until();
        let members = self.members_of(id, until).await?;
        if members.is_empty() {
            return Ok(());
        }
        let san = self.san_named(id.family, &id.san)?;
        let unnamed = members.iter().map(|it| it.id.to_string());
        let mut other: Vec<String> = unnamed.filter(|it| !named.contains(it)).collect();
        for text in named {
            let Some(known) = SnapshotId::find(text).filter(|it| it.san == id.san) else {
                continue;
            };
            let known_id = AnySnapshotId::OnSan(known.clone());
            let is_member = members.iter().any(|it| it.id == known_id);
            if !is_member && self.find_snapshot(&san, &known, until).await?.is_some() {
                other.push(text.clone());
            }
        }
        refuse_others(id, other)?;
        for member in members.iter().filter_map(|it| it.id.on_san()) {
            san.remove_snapshot(&member.key, until)
                .await
                .map_err(ControllerError::san(&id.san))?;
        }
        tracing::info!(%id, members = members.len(), "group of snapshots is gone");
        Ok(())
    }

    /// The group as it is now.
    ///
    /// # Errors
    /// [`ControllerError::NoGroup`]; [`ControllerError::OtherMembers`] when `named` are not its members; see [`ControllerError`].
    pub async fn get_group(
        &self,
        id: &GroupId,
        named: &BTreeSet<String>,
    ) -> Result<Group, ControllerError> {
        let members = self.members_of(id, self.until()).await?;
        if members.is_empty() {
            return Err(ControllerError::NoGroup(id.clone()));
        }
        let known: BTreeSet<String> = members.iter().map(|it| it.id.to_string()).collect();
        refuse_others(id, known.symmetric_difference(named).cloned().collect())?;
        Group::of(members)
    }

    async fn members_of(
        &self,
        id: &GroupId,
        until: Until,
    ) -> Result<Vec<Snapshot>, ControllerError> {
        self.san_named(id.family, &id.san)?;
        let mut all = self.all_snapshots(&id.san, until).await?;
        all.retain(|it| it.group.as_ref() == Some(id));
        Ok(all)
    }
}

fn one_partition(sources: &BTreeSet<VolumeId>) -> Result<&SanName, ControllerError> {
    let partitions: BTreeSet<&SanName> = sources.iter().map(|source| &source.san).collect();
    let mut each = partitions.iter();
    match (each.next(), each.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(ControllerError::SeveralSans(
            partitions.into_iter().cloned().collect(),
        )),
    }
}

fn refuse_others(group: &GroupId, other: Vec<String>) -> Result<(), ControllerError> {
    if other.is_empty() {
        return Ok(());
    }
    Err(ControllerError::OtherMembers {
        group: group.clone(),
        other,
    })
}
