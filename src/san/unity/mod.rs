//! Dell EMC Unity as one family: its REST API (Unisphere Management REST API, OE 4.2 and newer).
//!
//! One management address, which moves between the two processors and answers 503, or not at all, meanwhile. A description is where the notes of a volume are
//! kept, see [`notes`]. Who reaches a LUN is one list, replaced whole: it is read, changed and written by one caller at a time for each volume, and read again when
//! another writer was first. A copy is a thin clone, which the array keeps dependent on what it was made of.

mod answers;
mod ask;
mod copies;
mod export;
mod hosts;
mod names;
mod notes;
mod policies;
mod read;
#[cfg(test)]
mod recordings;
mod refusal;
mod snapshots;
mod wire;

pub(super) use self::answers::reads;

use serde_json::json;

use self::ask::{Answer, Question, Sessions, refused};
use self::notes::Notes;
use self::read::Hosts;
use super::Until;
use super::error::SanError;
use super::family::{Family, Given, PolicyFamily};
use super::fleet::ArraySettings;
use super::http::{LoginFolder, Web, encoded};
use super::nouns::{Access, Capacity, Checked, CheckedPage, NewVolume, Page, SanVolume, Source};
use super::sanhost::{Attempt, AttemptError, Sanhost};
use super::turns::Turns;
use crate::fabric::{Iqn, Portal};
use crate::fault::Fault;
use crate::volume::NodeId;

/// A size is a multiple of this.
const GRANULE: u64 = 8 << 10;
/// The largest LUN where the array does not say: 256 TiB.
const LARGEST: u64 = 256 << 40;
const LUN_FIELDS: &str =
    "id,name,description,wwn,sizeTotal,sizeAllocated,isThinEnabled,isThinClone,hostAccess,health";
const PORTAL_FIELDS: &str = "ipAddress,iscsiNode.name,ethernetPort";

/// A Unity behind its management addresses.
pub(super) struct UnitySan {
    sanhost: Sanhost,
    web: Web,
    login: LoginFolder,
    pools: Vec<String>,
    sessions: Sessions,
    turns: Turns,
}

impl UnitySan {
    /// The array behind `addresses`.
    pub(super) fn new(addresses: &[String], settings: &ArraySettings) -> Self {
        Self {
            sanhost: Sanhost::new(addresses),
            web: Web::new(settings.trust.clone()),
            login: settings.login.clone(),
            pools: settings.pools.clone(),
            sessions: Sessions::default(),
            turns: Turns::default(),
        }
    }

    /// No, by our own word: nothing was asked of the array.
    fn refuse(&self, call: &'static str, fault: Fault, reason: String) -> SanError {
        let first = self.sanhost.state().addresses.into_iter().next();
        SanError::Refused {
            address: first.map(|it| it.address).unwrap_or_default(),
            call,
            fault,
            reason,
        }
    }

    async fn find_lun(&self, which: &str, until: Until) -> Result<Option<wire::Lun>, SanError> {
        let path = format!("/api/instances/lun/{which}");
        let question = Question::get("find LUN", &path, &[("fields", LUN_FIELDS)]);
        self.thing_if_there(&question, until).await
    }

    /// The LUN with this name on the array, to the letter.
    async fn find_lun_named(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<wire::Lun>, SanError> {
        let found = self
            .find_lun(&format!("name:{}", encoded(name)), until)
            .await?;
        Ok(found.filter(|lun| lun.name == name))
    }

    /// The LUN with this key, which is to be there.
    async fn lun(&self, key: &str, until: Until) -> Result<wire::Lun, SanError> {
        let path = format!("/api/instances/lun/{}", encoded(key));
        let question = Question::get("find LUN", &path, &[("fields", LUN_FIELDS)]);
        self.thing(&question, until).await
    }

    async fn luns(&self, until: Until) -> Result<Vec<wire::Lun>, SanError> {
        let path = "/api/types/lun/instances";
        let luns = self.all("list LUNs", path, &[("fields", LUN_FIELDS)], until);
        let mut luns: Vec<wire::Lun> = luns.await?;
        luns.sort_by(|one, other| one.id.cmp(&other.id));
        luns.dedup_by(|one, other| one.id == other.id);
        Ok(luns)
    }

    /// At most `most` LUNs after the one with the key `after`, and whether there are more.
    async fn luns_after(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<(Vec<wire::Lun>, bool), SanError> {
        let mut luns = self.luns(until).await?;
        luns.retain(|lun| *lun.id > *after);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = luns.len() > most;
        luns.truncate(most);
        Ok((luns, more))
    }

    async fn volume(&self, lun: &wire::Lun, until: Until) -> Result<SanVolume, SanError> {
        let hosts = self.hosts_of(lun, until).await?;
        self.made("find LUN", read::volume(lun, &hosts))
    }

    async fn volume_if_there(
        &self,
        lun: Option<wire::Lun>,
        until: Until,
    ) -> Result<Option<SanVolume>, SanError> {
        match lun {
            Some(lun) => Ok(Some(self.volume(&lun, until).await?)),
            None => Ok(None),
        }
    }

    /// What was made of an answer to `call`.
    fn made<T>(&self, call: &'static str, made: Result<T, read::Unusable>) -> Result<T, SanError> {
        made.map_err(|unusable| SanError::Answer {
            call,
            field: unusable.field,
            source: unusable.source,
        })
    }

    /// The pools in which volumes are made.
    async fn pools(&self, until: Until) -> Result<Vec<wire::Pool>, SanError> {
        let fields = [("fields", "id,name,sizeFree")];
        let all: Vec<wire::Pool> = self
            .all("list pools", "/api/types/pool/instances", &fields, until)
            .await?;
        if self.pools.is_empty() && all.len() != 1 {
            let names: Vec<&str> = all.iter().map(|pool| pool.name.as_str()).collect();
            let reason = format!(
                "it has {} pools; say in pools which are for volumes: {}",
                all.len(),
                names.join(", ")
            );
            return Err(self.refuse("list pools", Fault::Precondition, reason));
        }
        let is_meant =
            |wanted: &String, pool: &wire::Pool| pool.name == *wanted || pool.id == *wanted;
        let missing = |wanted: &&String| !all.iter().any(|pool| is_meant(wanted, pool));
        if let Some(missing) = self.pools.iter().find(missing) {
            let reason = format!("it has no pool {missing:?}; correct pools");
            return Err(self.refuse("list pools", Fault::Precondition, reason));
        }
        let mut all = all;
        all.retain(|pool| self.pools.is_empty() || self.pools.iter().any(|it| is_meant(it, pool)));
        Ok(all)
    }

    /// Sends a change of a LUN. That it is so already is fine.
    async fn modify(
        &self,
        call: &'static str,
        key: &str,
        body: serde_json::Value,
        until: Until,
    ) -> Result<(), SanError> {
        let path = format!(
            "/api/instances/storageResource/{}/action/modifyLun",
            encoded(key)
        );
        let read = |answer: Answer| match answer {
            Err(refusal) if !refusal::is_nothing_to_change(refusal.error_code) => {
                Err(refused(&refusal))
            }
            _ => Ok(()),
        };
        let question = Question::post(call, &path, body);
        self.ask_whether(&question, until, read).await
    }

    async fn create_blank(&self, wanted: &NewVolume, until: Until) -> Result<String, SanError> {
        let pools = self.pools(until).await?;
        let Some(pool) = pools.into_iter().max_by_key(|pool| pool.size_free) else {
            return Err(self.refuse("create LUN", Fault::Exhausted, "it has no pool".to_owned()));
        };
        let name = names::on_array(&wanted.name);
        let body = json!({
            "name": name,
            "description": notes_of(wanted).write(&name),
            "lunParameters": {
                "pool": {"id": pool.id},
                "size": rounded(wanted.size),
                "isThinEnabled": true,
            },
        });
        let path = "/api/types/storageResource/action/createLun";
        let made: wire::MadeResource = self
            .thing(&Question::post("create LUN", path, body), until)
            .await?;
        Ok(made.storage_resource.id)
    }
}

/// What is kept with a new volume.
fn notes_of(wanted: &NewVolume) -> Notes {
    Notes {
        name: wanted.name.clone(),
        metadata: wanted.metadata.clone(),
        source: wanted.source.clone(),
        ..Notes::default()
    }
}

fn rounded(size: u64) -> u64 {
    size.checked_next_multiple_of(GRANULE).unwrap_or(size)
}

#[tonic::async_trait]
impl Family for UnitySan {
    fn sanhost(&self) -> &Sanhost {
        &self.sanhost
    }

    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError> {
        self.who(&attempt).await
    }

    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError> {
        let key = match &wanted.source {
            None => self.create_blank(wanted, until).await?,
            Some(Source::Snapshot(key)) => self.copy_snapshot(key, wanted, until).await?,
            Some(Source::Volume(key)) => self.copy_volume(key, wanted, until).await?,
        };
        let made = self.lun(&key, until).await?;
        let kept = Notes::read(&made.description, &made.name);
        if kept.metadata != wanted.metadata {
            return Err(SanError::Answer {
                call: "create LUN",
                field: "description",
                source: format!("{} of {key} is not what was noted", made.description).into(),
            });
        }
        self.volume(&made, until).await
    }

    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.find_lun_named(&names::on_array(name), until).await?;
        self.volume_if_there(found, until).await
    }

    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.find_lun(&encoded(key), until).await?;
        self.volume_if_there(found, until).await
    }

    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError> {
        let checked = self.check_many(after, most, until).await?;
        Ok(Page {
            volumes: checked.volumes.into_iter().map(|it| it.volume).collect(),
            more: checked.more,
        })
    }

    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError> {
        let Some(lun) = self.find_lun(&encoded(key), until).await? else {
            return Ok(None);
        };
        let hosts = self.hosts_of(&lun, until).await?;
        self.made("find LUN", read::checked(&lun, &hosts)).map(Some)
    }

    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let (luns, more) = self.luns_after(after, most, until).await?;
        let is_alone = luns.iter().all(|lun| lun.host_access.is_empty());
        let hosts = if is_alone {
            Hosts::new()
        } else {
            self.hosts(until).await?
        };
        let checked = luns.iter().map(|lun| read::checked(lun, &hosts));
        let volumes = self.made("list LUNs", checked.collect())?;
        Ok(CheckedPage { volumes, more })
    }

    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let lun = self.lun(&volume.key, until).await?;
        if lun.size_total < size {
            let body = json!({"lunParameters": {"size": rounded(size)}});
            self.modify("expand LUN", &volume.key, body, until).await?;
        }
        let grown = self.lun(&volume.key, until).await?;
        self.volume(&grown, until).await
    }

    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError> {
        self.remove_passing_cuts(&volume.key, until).await?;
        let path = format!("/api/instances/storageResource/{}", encoded(&volume.key));
        let body = json!({"forceSnapDeletion": false});
        let read = |answer: Answer| match answer {
            Ok(_) => Ok(()),
            // Of a deletion it says so while snapshots of the volume are still going.
            Err(refusal) if refusal::is_nothing_to_change(refusal.error_code) => {
                Err(AttemptError::Refused(Fault::Busy, refusal.text()))
            }
            Err(refusal) => Err(refused(&refusal)),
        };
        let question = Question::delete("delete LUN", &path, Some(body));
        self.ask_whether(&question, until, read).await
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
        let pools = self.pools(until).await?;
        let path = "/api/instances/systemLimit/Limit_MaxLUNSize";
        let question = Question::get("read limit", path, &[("fields", "limitValue")]);
        let limit: Option<wire::SystemLimit> = self.thing_if_there(&question, until).await?;
        let largest = pools.iter().map(|pool| pool.size_free).max().unwrap_or(0);
        Ok(Capacity {
            available: pools.iter().map(|pool| pool.size_free).sum(),
            minimum_volume: GRANULE,
            maximum_volume: limit.map_or(LARGEST, |it| it.limit_value).min(largest),
        })
    }

    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        let portals = self.targets(until).await?;
        Ok(portals.into_iter().map(|(portal, _)| portal).collect())
    }

    fn policies(&self) -> Option<&dyn PolicyFamily> {
        Some(self)
    }
}
