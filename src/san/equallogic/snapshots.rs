//! Snapshots of volumes. The group names a cut itself, and it is renamed afterwards.
//!
//! Between the two a session may end. So our notes, with the name that the cut is to have, are given with the very command that cuts: whoever comes next finds a cut
//! that bears them, and renames it instead of cutting again.

use std::time::UNIX_EPOCH;

use super::names;
use super::notes::{Known, MOST, Notes};
use super::read::{GIB, Snapshot, Volume, rows};
use super::{AT_ONCE, EqualLogic};
use crate::fault::Fault;
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::family::SnapshotFamily;
use crate::san::nouns::{ExtentPage, NewSnapshot, SanSnapshot, SnapshotPage};

const CUT: &str = "cut snapshot";
const FIND: &str = "find snapshot";
/// Before the name that the group gave.
const NAMED: &str = "Snapshot name is";

impl EqualLogic {
    /// Those of `names` that are there.
    pub(super) async fn snapshots_called(
        &self,
        volume: &Volume,
        names: &[String],
        until: Until,
    ) -> Result<Vec<Snapshot>, SanError> {
        let mut found = Vec::new();
        for names in names.chunks(AT_ONCE) {
            let show = |name: &String| {
                format!("volume select {} snapshot select {name} show", volume.name)
            };
            let commands: Vec<String> = names.iter().map(show).collect();
            let said = self.look(FIND, &commands, until).await?;
            for (name, said) in names.iter().zip(said) {
                if self.is_there(FIND, &said)? {
                    found.push(self.made(FIND, Snapshot::read(volume, name, &said))?);
                }
            }
        }
        Ok(found)
    }

    /// What the group calls the snapshots of each of these volumes.
    async fn names_of_snapshots(
        &self,
        volumes: &[Volume],
        until: Until,
    ) -> Result<Vec<Vec<String>>, SanError> {
        let mut names = Vec::new();
        for volumes in volumes.chunks(AT_ONCE) {
            let show = |it: &Volume| format!("volume select {} snapshot show", it.name);
            let commands: Vec<String> = volumes.iter().map(show).collect();
            for said in self.look(FIND, &commands, until).await? {
                // A volume that went meanwhile has none.
                let there = self.is_there(FIND, &said)?;
                let of_one = rows(&said).into_iter().map(|row| row.name);
                names.push(of_one.filter(|_| there).collect());
            }
        }
        Ok(names)
    }

    /// The snapshot with this key, and its volume.
    pub(super) async fn snapshot_with_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<(Volume, Snapshot)>, SanError> {
        let Some((volume, name)) = names::of_snapshot_key(key) else {
            return Ok(None);
        };
        let Some(volume) = self.volume_called(&volume, until).await? else {
            return Ok(None);
        };
        let mut found = self.snapshots_called(&volume, &[name], until).await?;
        found.retain(|cut| cut.key == key && cut.as_snapshot(&volume).is_some());
        Ok(found.pop().map(|cut| (volume, cut)))
    }

    /// Of each volume of the group that has snapshots, or of one: its snapshots, or those that are called so.
    async fn all_snapshots(
        &self,
        of: Option<&str>,
        name: Option<&str>,
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        let volumes = match of {
            Some(key) => self
                .volume_with_key(key, until)
                .await?
                .into_iter()
                .collect(),
            None => {
                let listed = self.listed(until).await?.into_iter();
                let with: Vec<String> = listed
                    .filter(|(_, snapshots)| *snapshots > 0)
                    .map(|(name, _)| name)
                    .collect();
                let mut volumes = Vec::new();
                for names in with.chunks(AT_ONCE) {
                    volumes.append(&mut self.volumes_with_identity(names, until).await?);
                }
                volumes
            }
        };
        let on_group = name.map(names::snapshot);
        let is_meant = |it: &String| match &on_group {
            Some(name) => it == name,
            None => names::is_snapshot(it),
        };
        let mut found = Vec::new();
        let names = self.names_of_snapshots(&volumes, until).await?;
        for (volume, mut names) in volumes.iter().zip(names) {
            names.retain(is_meant);
            let cuts = self.snapshots_called(volume, &names, until).await?;
            let cuts = cuts.into_iter().map(|cut| match name {
                Some(name) => cut.asked_as(name),
                None => cut,
            });
            found.extend(cuts.filter_map(|cut| cut.as_snapshot(volume)));
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    async fn cut(&self, wanted: &NewSnapshot, until: Until) -> Result<SanSnapshot, SanError> {
        let volume = self.volume(&wanted.volume, until).await?;
        let name = names::snapshot(&wanted.name);
        let stray = match self.stray(&volume, &wanted.name, until).await? {
            Some(stray) => {
                tracing::warn!(stray, name, "a snapshot that was cut before gets its name");
                stray
            }
            None => self.cut_anew(&volume, wanted, until).await?,
        };
        let rename = format!(
            "volume select {} snapshot rename {stray} {name}",
            volume.name
        );
        self.change(CUT, &[rename], until).await?;
        let cut = self.snapshots_called(&volume, &[name], until).await?.pop();
        let cut = cut.ok_or_else(|| self.absent(CUT, &wanted.name))?;
        let cut = cut.asked_as(&wanted.name);
        cut.as_snapshot(&volume).ok_or_else(|| SanError::Answer {
            call: CUT,
            field: "Description",
            source: format!("{:?} is not what was noted", cut.description).into(),
        })
    }

    /// What the group calls a cut that is to be called `name`, and is not yet.
    async fn stray(
        &self,
        volume: &Volume,
        name: &str,
        until: Until,
    ) -> Result<Option<String>, SanError> {
        let names = self.names_of_snapshots(std::slice::from_ref(volume), until);
        let mut names: Vec<String> = names.await?.into_iter().flatten().collect();
        names.retain(|name| !names::is_snapshot(name));
        let mut strays = self.snapshots_called(volume, &names, until).await?;
        strays.retain(|cut| cut.notes.as_ref().is_some_and(|it| it.are_of(name)));
        match strays.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.name.clone())),
            many => {
                let names: Vec<&str> = many.iter().map(|cut| cut.name.as_str()).collect();
                let names = names.join(" and ");
                let reason = format!("{names} are both to be {name:?}; delete all but one");
                Err(self.refuse(CUT, Fault::Precondition, reason))
            }
        }
    }

    /// Cuts; what the group calls it.
    async fn cut_anew(
        &self,
        volume: &Volume,
        wanted: &NewSnapshot,
        until: Until,
    ) -> Result<String, SanError> {
        if volume.loses_snapshots() {
            let name = &volume.name;
            tracing::warn!(
                name,
                "the group deletes the oldest snapshot of this volume when its snapshot reserve is full; set it to keep them"
            );
        }
        let (host, _) = self.login.file("");
        let now = host.wall_clock().duration_since(UNIX_EPOCH);
        let notes = Notes {
            name: wanted.name.clone(),
            metadata: wanted.metadata.clone(),
            cut: Some((now.unwrap_or_default().as_secs(), volume.size / GIB)),
            ..Notes::default()
        };
        let known = Known {
            name: "",
            volume: Some((&volume.key, volume.wwid.as_str())),
        };
        let notes = notes.write(known);
        let notes = notes.map_err(|too_long| SanError::Unfit(too_long.into()))?;
        debug_assert!(notes.len() <= MOST);
        let command = format!(
            "volume select {} snapshot create-now description \"{notes}\"",
            volume.name
        );
        let said = self.change(CUT, &[command], until).await?;
        let named = said.iter().find_map(|said| said.after(NAMED));
        let named = named.map(|name| name.trim_end_matches('.').to_owned());
        named.ok_or_else(|| SanError::Answer {
            call: CUT,
            field: "name",
            source: "the group does not say what it calls the snapshot".into(),
        })
    }
}

#[tonic::async_trait]
impl SnapshotFamily for EqualLogic {
    async fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        match wanted {
            [one] => Ok(vec![self.cut(one, until).await?]),
            _ => {
                let reason = "this family cuts one volume at a time, and no group".to_owned();
                Err(self.refuse(CUT, Fault::Precondition, reason))
            }
        }
    }

    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.all_snapshots(None, Some(name), until).await?;
        Ok(found.into_iter().find(|cut| cut.name == name))
    }

    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.snapshot_with_key(key, until).await?;
        Ok(found.and_then(|(volume, cut)| cut.as_snapshot(&volume)))
    }

    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let mut snapshots = self.all_snapshots(volume, None, until).await?;
        snapshots.retain(|cut| *cut.key > *after);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = snapshots.len() > most;
        snapshots.truncate(most);
        Ok(SnapshotPage { snapshots, more })
    }

    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        let Some((volume, cut)) = self.snapshot_with_key(key, until).await? else {
            return Ok(());
        };
        let select = format!("volume select {}", volume.name);
        let delete = format!("{select} snapshot delete {}", cut.name);
        let show = format!("{select} snapshot select {} show", cut.name);
        let commands = [delete, show];
        let gone = self.change_away("delete snapshot", &commands, until);
        gone.await.map(drop)
    }

    async fn list_extents(
        &self,
        (key, _): (&str, Option<&str>),
        from: u64,
        _most: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        let found = self.find_snapshot_by_key(key, until).await?;
        let cut = found.ok_or_else(|| self.absent("list extents", key))?;
        Ok(ExtentPage::untold(cut.size, from))
    }
}
