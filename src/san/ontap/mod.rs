//! NetApp ONTAP over REST (9.10.1 or later, for attributes of LUNs) as one family: LUNs in the `FlexVol`s of the config file, copies of LUNs
//! as snapshots, an igroup for each node.
//!
//! | File | What it holds |
//! |---|---|
//! | `ask` | one request on its way through the addresses, and jobs |
//! | `codes` | the array's error codes |
//! | `names`, `notes` | what things of ours are called there, and what is kept with them |
//! | `wire` | the array's answers |
//! | `find` | LUNs as volumes and snapshots |
//! | `make` | new LUNs, blank or copies |
//! | `access` | igroups, maps, portals |
//! | `logins` | what initiators prove their logins with |
//! | `policies` | QoS policies |
//! | `own`, `flexvols`, `cuts` | the other layout: a `FlexVol` for each volume, its copies and its snapshots |
//!
//! The invariants: a LUN under a final name is complete (a copy gets that name last); one object for a name, whoever else is at it; every
//! request names the SVM, so that a cluster's account needs no tunnel; a mapped LUN is never deleted.

mod access;
mod answers;
mod ask;
mod codes;
mod cuts;
mod find;
mod flexvols;
mod logins;
mod make;
mod names;
mod notes;
mod own;
mod policies;
mod wire;

pub(super) use self::answers::reads;

use serde_json::json;

use super::Until;
use super::error::SanError;
use super::family::{Family, Given, PolicyFamily, SnapshotFamily};
use super::fleet::ArraySettings;
use super::http::{LoginFolder, Met, Method, Request, Web, encoded, query};
use super::nouns::{
    Access, Capacity, Checked, CheckedPage, ExtentPage, Grade, NewSnapshot, NewVolume, Page,
    SanSnapshot, SanVolume, SnapshotPage, Trouble,
};
use super::sanhost::{Attempt, AttemptError, Sanhost};
use crate::fabric::{Iqn, Portal};
use crate::volume::NodeId;
use names::Kind;
use uuid::Uuid;

/// The least that a LUN is made of: what the crate counts in.
const SMALLEST: u64 = crate::volume::GRANULE;
/// The most on every platform; some take more (16 TiB and 128 TiB).
const LARGEST: u64 = 16 << 40;

/// An SVM behind its management addresses.
pub(super) struct Ontap {
    sanhost: Sanhost,
    web: Web,
    met: Met,
    login: LoginFolder,
    svm: String,
    pools: Vec<String>,
    /// Each volume has a `FlexVol` of its own, on the aggregates `pools`; else the LUNs of all stand in the `FlexVol`s `pools`.
    own_flexvols: bool,
    expected: Option<Uuid>,
    logins: logins::Logins,
}

impl Ontap {
    /// The SVM of these settings behind `addresses`; `expected` is its uuid, if it must have a certain one.
    pub(super) fn new(addresses: &[String], array: &ArraySettings, expected: Option<Uuid>) -> Self {
        Self {
            sanhost: Sanhost::new(addresses),
            web: Web::new(array.trust.clone()),
            met: Met::default(),
            login: array.login.clone(),
            svm: array.svm.clone().unwrap_or_default(),
            pools: array.pools.clone(),
            own_flexvols: array.own_flexvols,
            expected,
            logins: logins::Logins::new(array.nodes.clone()),
        }
    }

    /// The path `of`, asked for what the pairs say, in our SVM.
    fn target(&self, of: &str, pairs: &[(&str, &str)]) -> String {
        let svm = ("svm.name", self.svm.as_str());
        let pairs = [svm].into_iter().chain(pairs.iter().copied());
        format!("/api/{of}?{}", query(pairs))
    }
}

#[tonic::async_trait]
impl Family for Ontap {
    fn sanhost(&self) -> &Sanhost {
        &self.sanhost
    }

    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError> {
        self.who(&attempt).await
    }

    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError> {
        if self.own_flexvols {
            return self.make_own(wanted, until).await;
        }
        self.make_volume(wanted, until).await
    }

    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.first_named(Kind::Volume, name, until).await?;
        self.find_whole(found, until).await
    }

    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.lun(key, until).await?;
        self.find_whole(found, until).await
    }

    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError> {
        let (luns, more) = self.luns(Kind::Volume, after, most, until).await?;
        let volumes = self.volumes(&luns, until).await?;
        Ok(Page { volumes, more })
    }

    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError> {
        let Some(lun) = self.lun(key, until).await? else {
            return Ok(None);
        };
        let troubles = troubles(&lun);
        let volume = self.find_whole(Some(lun), until).await?;
        Ok(volume.map(|volume| Checked { volume, troubles }))
    }

    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let (luns, more) = self.luns(Kind::Volume, after, most, until).await?;
        let volumes = self.volumes(&luns, until).await?;
        let of = |volume: SanVolume| {
            let lun = luns.iter().find(|lun| lun.uuid == volume.key);
            Checked {
                troubles: lun.map(troubles).unwrap_or_default(),
                volume,
            }
        };
        let volumes = volumes.into_iter().map(of).collect();
        Ok(CheckedPage { volumes, more })
    }

    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        const CALL: &str = "expand";
        // As the caller has just found it; the array has one answer for all its nodes.
        if volume.size >= size {
            return Ok(volume.clone());
        }
        if self.own_flexvols {
            self.make_room(&volume.key, size, until).await?;
        }
        let request = || {
            let body = json!({"space": {"size": size}});
            Request::new(Method::PATCH, lun_target(&volume.key)).with_body(body)
        };
        let grown = self.change(CALL, until, request).await?;
        grown.but(&[codes::SAME_SIZE, codes::SMALLER])?;
        let found = self.find_by_key(&volume.key, until).await?;
        found.ok_or_else(|| wire::odd(CALL, "lun")(wire::Odd::Absent))
    }

    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError> {
        if self.own_flexvols {
            return self.delete_with_home(&volume.key, until).await;
        }
        self.delete(&volume.key, until).await
    }

    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        self.let_in(volume, node, access, until).await
    }

    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        self.shut_out(volume, initiator, until).await
    }

    async fn capacity(&self, until: Until) -> Result<Capacity, SanError> {
        if self.own_flexvols {
            return self.room_of_aggregates(until).await;
        }
        let flexvols = self.flexvols(until).await?;
        Ok(Capacity {
            available: flexvols.iter().map(|it| it.space.available).sum(),
            minimum_volume: SMALLEST,
            maximum_volume: LARGEST,
        })
    }

    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        let portals = self.interfaces(until).await?;
        Ok(portals.into_iter().map(|(portal, _)| portal).collect())
    }

    fn policies(&self) -> Option<&dyn PolicyFamily> {
        Some(self)
    }
}

#[tonic::async_trait]
impl SnapshotFamily for Ontap {
    async fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        match wanted {
            [one] if self.own_flexvols => Ok(vec![self.make_cut(one, until).await?]),
            [one] => Ok(vec![self.make_snapshot(one, until).await?]),
            _ => Err(SanError::NotOffered(
                "snapshots of several volumes at one moment",
            )),
        }
    }

    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        if self.own_flexvols {
            return self.find_cut(name, until).await;
        }
        let found = self.first_named(Kind::Snapshot, name, until).await?;
        found.as_ref().map_or(Ok(None), find::snapshot)
    }

    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        if self.own_flexvols {
            return self.find_cut_by_key(key, until).await;
        }
        let found = self.lun(key, until).await?;
        found.as_ref().map_or(Ok(None), find::snapshot)
    }

    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        if self.own_flexvols {
            return self.list_cuts(after, most, volume, until).await;
        }
        self.snapshots(after, most, volume, until).await
    }

    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        if self.own_flexvols {
            return self.delete_cut(key, until).await;
        }
        self.delete(key, until).await
    }

    /// ONTAP does not say which blocks of a LUN hold something, so all of them may.
    async fn list_extents(
        &self,
        (key, _base): (&str, Option<&str>),
        from: u64,
        _most: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        let found = self.find_snapshot_by_key(key, until).await?;
        let found = found.ok_or_else(|| wire::odd("extents", "lun")(wire::Odd::Absent))?;
        Ok(ExtentPage::untold(found.size, from))
    }
}

/// The LUN with this key.
fn lun_target(key: &str) -> String {
    format!("/api/storage/luns/{}", encoded(key))
}

fn troubles(lun: &wire::Lun) -> Vec<Trouble> {
    let states = [
        ("LunNotOnline", "the LUN", &lun.status.state),
        (
            "FlexVolNotOnline",
            "the FlexVol of the LUN",
            &lun.status.container_state,
        ),
    ];
    let odd = states.into_iter().filter_map(|(reason, what, state)| {
        let state = state.as_ref().filter(|state| *state != "online")?;
        Some(Trouble {
            grade: Grade::Inaccessible,
            reason: reason.to_owned(),
            message: format!("{what} is {state}, says the array"),
        })
    });
    odd.collect()
}
