//! Dell EqualLogic PS as one family: the command line of a group, over SSH.
//!
//! A group is one address that moves between its members. Each volume is a target of its own, at LUN 0, behind that one address, which sends a login on to a member;
//! so a node has as many paths as it has interfaces. A description is where the notes of a volume are kept, see [`notes`]; what a group prints is read in [`read`].
//! Snapshots belong to their volume and go with it; so a volume that has any is not removed.

mod answers;
mod ask;
mod export;
mod make;
mod names;
mod notes;
mod read;
mod refusal;
mod shell;
mod snapshots;
mod words;

pub(super) use self::answers::reads;

use tokio::sync::Mutex as Turn;

use self::ask::Sessions;
use self::read::{GIB, Shown, Unusable, Volume};
use self::shell::Said;
use super::Until;
use super::abandoned::Unfinished;
use super::error::SanError;
use super::family::{Family, Given};
use super::fleet::ArraySettings;
use super::http::LoginFolder;
use super::nouns::{Access, Capacity, Checked, CheckedPage, NewVolume, Page, SanVolume};
use super::sanhost::{Attempt, AttemptError, Repeat, Sanhost};
use crate::fabric::{Iqn, Portal};
use crate::fault::Fault;
use crate::volume::NodeId;

/// Where a group that was told nothing else has its space.
const DEFAULT_POOL: &str = "default";
/// The largest volume: 15 TiB.
const LARGEST: u64 = 15 << 40;
const ISCSI_PORT: u16 = 3260;
/// So many volumes are asked for in one session.
const AT_ONCE: usize = 100;

/// A group behind its management addresses.
pub(super) struct EqualLogic {
    sanhost: Sanhost,
    login: LoginFolder,
    pools: Vec<String>,
    sessions: Sessions,
    /// Whose turn it is to change who reaches a volume: its description is read, changed and written.
    access: Turn<()>,
}

impl EqualLogic {
    /// The group behind `addresses`.
    pub(super) fn new(addresses: &[String], settings: &ArraySettings) -> Self {
        Self {
            sanhost: Sanhost::new(addresses),
            login: settings.login.clone(),
            pools: settings.pools.clone(),
            sessions: Sessions::default(),
            access: Turn::default(),
        }
    }

    /// No, by our own word or that of an answer.
    fn refuse(&self, call: &'static str, fault: Fault, reason: String) -> SanError {
        let addresses = self.sanhost.state().addresses;
        let used = addresses.iter().find(|it| it.in_use).or(addresses.first());
        SanError::Refused {
            address: used.map(|it| it.address.clone()).unwrap_or_default(),
            call,
            fault,
            reason,
        }
    }

    /// What was made of an answer to `call`.
    fn made<T>(&self, call: &'static str, made: Result<T, Unusable>) -> Result<T, SanError> {
        made.map_err(|unusable| SanError::Answer {
            call,
            field: unusable.field,
            source: unusable.source,
        })
    }

    /// That it is not there is an answer, too; any other refusal is an error.
    fn is_there(&self, call: &'static str, said: &Said) -> Result<bool, SanError> {
        match said.refusal() {
            None => Ok(true),
            Some(refusal) if refusal::fault(refusal) == Fault::NotFound => Ok(false),
            Some(refusal) => {
                Err(self.refuse(call, refusal::fault(refusal), refusal::said(refusal)))
            }
        }
    }

    /// The volume that the group calls `name`.
    async fn volume_called(&self, name: &str, until: Until) -> Result<Option<Volume>, SanError> {
        Ok(self.volumes_called(&[name.to_owned()], until).await?.pop())
    }

    /// Those of `names` that are there, in order.
    async fn volumes_called(
        &self,
        names: &[String],
        until: Until,
    ) -> Result<Vec<Volume>, SanError> {
        const CALL: &str = "find volume";
        let mut volumes = Vec::new();
        for names in names.chunks(AT_ONCE) {
            let both = |name: &String| {
                let show = format!("volume select {name} show");
                [show, format!("volume select {name} access show")]
            };
            let commands: Vec<String> = names.iter().flat_map(both).collect();
            let said = self.look(CALL, &commands, until).await?;
            for pair in said.chunks_exact(2) {
                if self.is_there(CALL, &pair[0])? && self.is_there(CALL, &pair[1])? {
                    volumes.push(self.made(CALL, Volume::read(&pair[0], &pair[1]))?);
                }
            }
        }
        Ok(volumes)
    }

    /// The volume with this key, which fences a name that was used again.
    async fn volume_with_key(&self, key: &str, until: Until) -> Result<Option<Volume>, SanError> {
        let Some(name) = names::of_key(key) else {
            return Ok(None);
        };
        let found = self.volume_called(name, until).await?;
        Ok(found.filter(|volume| volume.key == key))
    }

    /// The same, which is to be there.
    async fn volume(&self, key: &str, until: Until) -> Result<Volume, SanError> {
        let found = self.volume_with_key(key, until).await?;
        found.ok_or_else(|| self.absent("find volume", key))
    }

    fn absent(&self, call: &'static str, key: &str) -> SanError {
        self.refuse(call, Fault::NotFound, format!("it has no {key}"))
    }

    /// Names of volumes that can have keys, and how many snapshots each has; in order.
    async fn listed(&self, until: Until) -> Result<Vec<(String, u64)>, SanError> {
        const CALL: &str = "list volumes";
        let said = self.change_nothing(CALL, "volume show", until).await?;
        let rows = read::rows(&said).into_iter();
        let mut listed: Vec<(String, u64)> = rows
            .filter(|row| names::has_key(&row.name))
            .map(|row| {
                // A table without that column says nothing: then each is asked.
                let snapshots = row.rest.get(1).and_then(|it| it.parse().ok());
                (row.name, snapshots.unwrap_or(1))
            })
            .collect();
        listed.sort();
        listed.dedup();
        Ok(listed)
    }

    /// One command that only looks, and is not to be refused.
    async fn change_nothing(
        &self,
        call: &'static str,
        command: &str,
        until: Until,
    ) -> Result<Said, SanError> {
        let said = self.look(call, &[command.to_owned()], until).await?;
        let said = said.into_iter().next();
        let said = said.unwrap_or_else(|| Said(Vec::new()));
        match said.refusal() {
            Some(refusal) => {
                Err(self.refuse(call, refusal::fault(refusal), refusal::said(refusal)))
            }
            None => Ok(said),
        }
    }

    /// At most `most` volumes after the one with the key `after`, in the order of their keys, and whether there are more.
    async fn volumes_after(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<(Vec<Volume>, bool), SanError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let listed = self.listed(until).await?.into_iter().map(|(name, _)| name);
        // A key is its name and a mark: where a name begins with another, the mark alone says whose key comes first.
        let first = names::of_key(after).unwrap_or_default();
        let mut names: Vec<String> = listed
            .filter(|name| **name >= *first || first.starts_with(name.as_str()))
            .filter(|name| !names::is_unfinished(name))
            .collect();
        names.sort_by(|one, other| format!("{one}-").cmp(&format!("{other}-")));
        let (mut volumes, mut rest) = (Vec::new(), names.as_slice());
        // One more than is wanted says that there are more.
        while volumes.len() <= most && !rest.is_empty() {
            let (part, later) = rest.split_at(part_of(rest, most));
            let mut found = self.volumes_with_identity(part, until).await?;
            found.retain(|volume| *volume.key > *after);
            volumes.append(&mut found);
            rest = later;
        }
        volumes.sort_by(|one, other| one.key.cmp(&other.key));
        let more = volumes.len() > most;
        volumes.truncate(most);
        Ok((volumes, more))
    }

    /// Those of `names` that are there and have a target as groups make them now: others are none of ours.
    async fn volumes_with_identity(
        &self,
        names: &[String],
        until: Until,
    ) -> Result<Vec<Volume>, SanError> {
        const CALL: &str = "list volumes";
        let both = |name: &String| {
            let show = format!("volume select {name} show");
            [show, format!("volume select {name} access show")]
        };
        let commands: Vec<String> = names.iter().flat_map(both).collect();
        let mut volumes = Vec::new();
        for pair in self.look(CALL, &commands, until).await?.chunks_exact(2) {
            if !self.is_there(CALL, &pair[0])? || !self.is_there(CALL, &pair[1])? {
                continue;
            }
            let target = Shown::read(&pair[0]);
            let target = target.find("iSCSI Name").unwrap_or_default();
            if read::identity(target).is_some() {
                volumes.push(self.made(CALL, Volume::read(&pair[0], &pair[1]))?);
            }
        }
        Ok(volumes)
    }

    /// The pools in which volumes are made, each with its free bytes.
    async fn rooms(&self, until: Until) -> Result<Vec<(String, u64)>, SanError> {
        const CALL: &str = "show pools";
        let names = match self.pools.as_slice() {
            [] => vec![DEFAULT_POOL.to_owned()],
            named => named.to_vec(),
        };
        let commands: Vec<String> = names
            .iter()
            .map(|name| format!("pool select {name} show"))
            .collect();
        let said = self.look(CALL, &commands, until).await?;
        let mut rooms = Vec::new();
        for (name, said) in names.into_iter().zip(said) {
            if !self.is_there(CALL, &said)? {
                let reason = format!("it has no pool {name:?}; correct pools");
                return Err(self.refuse(CALL, Fault::Precondition, reason));
            }
            let free = Shown::read(&said).find("FreeSpace").and_then(read::size);
            let free = free.ok_or_else(|| SanError::Answer {
                call: CALL,
                field: "FreeSpace",
                source: format!("pool {name} shows none").into(),
            })?;
            rooms.push((name, free));
        }
        Ok(rooms)
    }

    /// Where every target is.
    async fn portal(&self, until: Until) -> Result<Portal, SanError> {
        let asked = self.ask("find portal", Repeat::Freely, &[], until).await;
        let (group, _) = asked?;
        Ok(Portal::new(group.address, ISCSI_PORT))
    }
}

/// How many of `names` are asked at once, so that no key of a later one comes before theirs.
fn part_of(names: &[String], most: usize) -> usize {
    let mut part = names.len().min(most.saturating_add(1)).min(AT_ONCE);
    while let Some(next) = names.get(part)
        && names[..part]
            .iter()
            .any(|name| next.starts_with(&format!("{name}-")))
    {
        part += 1;
    }
    part
}

#[tonic::async_trait]
impl Family for EqualLogic {
    fn sanhost(&self) -> &Sanhost {
        &self.sanhost
    }

    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError> {
        self.identity(&attempt).await
    }

    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError> {
        self.make(wanted, until).await
    }

    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.volume_called(&names::on_group(name), until).await?;
        Ok(found.map(|volume| volume.asked_as(name).as_volume()))
    }

    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.volume_with_key(key, until).await?;
        Ok(found.map(|volume| volume.as_volume()))
    }

    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError> {
        let (volumes, more) = self.volumes_after(after, most, until).await?;
        Ok(Page {
            volumes: volumes.iter().map(Volume::as_volume).collect(),
            more,
        })
    }

    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError> {
        let found = self.volume_with_key(key, until).await?;
        Ok(found.map(|volume| volume.as_checked()))
    }

    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let (volumes, more) = self.volumes_after(after, most, until).await?;
        Ok(CheckedPage {
            volumes: volumes.iter().map(Volume::as_checked).collect(),
            more,
        })
    }

    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let known = self.volume(&volume.key, until).await?;
        if known.size >= size {
            return Ok(known.as_volume());
        }
        self.grow(&known.name, size, until).await?;
        Ok(self.volume(&volume.key, until).await?.as_volume())
    }

    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError> {
        self.remove(&volume.key, until).await
    }

    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        self.give(volume, node, access, until).await
    }

    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        self.take_back(volume, initiator, until).await
    }

    async fn capacity(&self, until: Until) -> Result<Capacity, SanError> {
        let rooms = self.rooms(until).await?;
        let largest = rooms.iter().map(|(_, free)| *free).max().unwrap_or(0);
        Ok(Capacity {
            available: rooms.iter().map(|(_, free)| *free).sum(),
            minimum_volume: GIB,
            maximum_volume: LARGEST.min(largest),
        })
    }

    async fn find_unfinished(&self, until: Until) -> Result<Vec<Unfinished>, SanError> {
        let found = self.unfinished(until).await?;
        Ok(found.iter().map(make::seen).collect())
    }

    async fn remove_unfinished(&self, one: &Unfinished, until: Until) -> Result<bool, SanError> {
        self.take_unfinished(one, until).await
    }

    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        Ok(vec![self.portal(until).await?])
    }
}
