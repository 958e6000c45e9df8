//! New LUNs: blank ones in one step, copies in several.
//!
//! A copy is made under a name that follows from what it will be and of what, gets its notes, its size and its thinness there, and its final name last. Whoever is
//! interrupted, or meets another one at the same work, goes on with the same LUN: each step may be repeated.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::Until;
use super::super::error::{Attempts, SanError};
use super::super::http::{Method, Request, encoded};
use super::super::nouns::{NewSnapshot, NewVolume, SanSnapshot, SanVolume, Source};
use super::names::{self, Kind};
use super::notes::{ATTRIBUTE, Notes};
use super::wire::{FlexVol, Lun, Odd, odd};
use super::{Ontap, codes, find, lun_target};
use crate::fault::Fault;

/// What was made may be missing from answers for so long (Trident waits as long).
pub(super) const SETTLING: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// ONTAP's bound on a LUN's comment, in bytes.
const COMMENT: usize = 254;

impl Ontap {
    pub(super) async fn make_volume(
        &self,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let notes = Notes::of_volume(wanted);
        let text = notes.write().map_err(|long| SanError::Unfit(long.into()))?;
        let made = match &wanted.source {
            None => self.blank(wanted, &text, until).await?,
            Some(Source::Volume(key) | Source::Snapshot(key)) => {
                let copy = (Kind::Volume, wanted.name.as_str(), wanted.size);
                self.copy(copy, key, &text, until).await?
            }
        };
        let made = self.find_whole(Some(made), until).await?;
        made.ok_or_else(|| odd("create", "lun")(Odd::Absent))
    }

    pub(super) async fn make_snapshot(
        &self,
        wanted: &NewSnapshot,
        until: Until,
    ) -> Result<SanSnapshot, SanError> {
        let notes = Notes::of_snapshot(wanted);
        let text = notes.write().map_err(|long| SanError::Unfit(long.into()))?;
        let copy = (Kind::Snapshot, wanted.name.as_str(), 0);
        let cut = self.copy(copy, &wanted.volume, &text, until).await?;
        find::snapshot(&cut)?.ok_or_else(|| odd("snapshot", "lun")(Odd::Absent))
    }

    async fn blank(&self, wanted: &NewVolume, text: &str, until: Until) -> Result<Lun, SanError> {
        let flexvol = self.choose(wanted, until).await?;
        let lun = names::lun(Kind::Volume, &wanted.name);
        let path = names::path(&flexvol, &lun);
        let made = self.put_lun(&path, wanted, text, until).await?;
        self.yield_to_an_older(&lun, &made, until).await?;
        Ok(made)
    }

    /// A new LUN at `path`.
    pub(super) async fn put_lun(
        &self,
        path: &str,
        wanted: &NewVolume,
        text: &str,
        until: Until,
    ) -> Result<Lun, SanError> {
        let request = || {
            Request::new(Method::POST, "/api/storage/luns").with_body(json!({
                "svm": {"name": self.svm},
                "name": path,
                "os_type": "linux",
                "comment": comment(&wanted.name),
                "space": {
                    "size": wanted.size,
                    "guarantee": {"requested": false},
                    "scsi_thin_provisioning_support_enabled": true,
                },
                "attributes": [{"name": ATTRIBUTE, "value": text}],
            }))
        };
        let made = self.change("create a LUN", until, request).await?;
        if made.but(&[codes::HALF_DONE])?.is_none() {
            let half = self.wait_for(path, until).await?;
            self.note(&half.uuid, text, until).await?;
        }
        self.wait_for(path, until).await
    }

    /// Another controller may have chosen another `FlexVol` at the same moment. The older LUN stays; of the same second, neither.
    async fn yield_to_an_older(&self, lun: &str, made: &Lun, until: Until) -> Result<(), SanError> {
        let all = self.luns_named(lun, until).await?;
        let is_first =
            |other: &Lun| other.uuid != made.uuid && other.create_time <= made.create_time;
        if !all.iter().any(is_first) {
            return Ok(());
        }
        tracing::warn!(lun, "made twice at one moment; the newer one goes");
        self.delete(&made.uuid, until).await?;
        Err(SanError::Refused {
            address: self.svm.clone(),
            call: "create a LUN",
            fault: Fault::Conflict,
            reason: "somebody else made it in another FlexVol".to_owned(),
        })
    }

    async fn copy(
        &self,
        (kind, name, size): (Kind, &str, u64),
        source: &str,
        text: &str,
        until: Until,
    ) -> Result<Lun, SanError> {
        let original = self.lun(source, until).await?;
        let original = original.ok_or_else(|| self.absent("copy a LUN"))?;
        let (flexvol, _) = names::parts(&original.name)
            .ok_or_else(|| odd("copy a LUN", "name")("it is no path of a LUN in a FlexVol"))?;
        let path = names::path(flexvol, &names::unfinished(kind, name, source));
        let copy = match self.find_at(&path, until).await? {
            Some(begun) => begun,
            None => self.begin_copy(&path, source, until).await?,
        };
        // Done already is not done again: an answer that says so may be lost as well.
        if copy.noted() != Some(text) {
            self.note(&copy.uuid, text, until).await?;
        }
        // A copy is not thin by itself.
        let thin = json!({
            "comment": comment(name),
            "space": {
                "guarantee": {"requested": false},
                "scsi_thin_provisioning_support_enabled": true,
            },
        });
        if !copy.space.thin {
            self.set("set a copy up", &copy.uuid, thin, until).await?;
        }
        if copy.space.size < size {
            let size = json!({"space": {"size": size}});
            self.set("expand a copy", &copy.uuid, size, until).await?;
        }
        let path = names::path(flexvol, &names::lun(kind, name));
        let last = json!({"name": path});
        self.set("name a copy", &copy.uuid, last, until).await?;
        self.wait_for(&path, until).await
    }

    async fn begin_copy(&self, path: &str, source: &str, until: Until) -> Result<Lun, SanError> {
        let request = || {
            Request::new(Method::POST, "/api/storage/luns").with_body(json!({
                "svm": {"name": self.svm},
                "name": path,
                "clone": {"source": {"uuid": source}},
            }))
        };
        let begun = self.change("copy a LUN", until, request).await?;
        begun.but(&[codes::LUN_EXISTS, codes::CLONE_EXISTS])?;
        self.wait_for(path, until).await
    }

    pub(super) async fn set(
        &self,
        call: &'static str,
        key: &str,
        body: Value,
        until: Until,
    ) -> Result<(), SanError> {
        let request = || Request::new(Method::PATCH, lun_target(key)).with_body(body.clone());
        let done = self.change(call, until, request).await?;
        done.but(&[codes::SAME_SIZE, codes::SMALLER]).map(drop)
    }

    /// Writes our notes in place of what a copy has from its source.
    pub(super) async fn note(&self, key: &str, text: &str, until: Until) -> Result<(), SanError> {
        self.note_as((key, ATTRIBUTE), text, until).await
    }

    /// Writes one attribute of a LUN.
    pub(super) async fn note_as(
        &self,
        (key, name): (&str, &str),
        text: &str,
        until: Until,
    ) -> Result<(), SanError> {
        let all = format!("{}/attributes", lun_target(key));
        let one = format!("{all}/{}", encoded(name));
        let request =
            || Request::new(Method::PATCH, one.as_str()).with_body(json!({"value": text}));
        let noted = self.change("note", until, request).await?;
        if noted.but(&[codes::NO_ATTRIBUTE, 4])?.is_some() {
            return Ok(());
        }
        let request = || {
            let body = json!({"name": name, "value": text});
            Request::new(Method::POST, all.as_str()).with_body(body)
        };
        self.change("note", until, request).await?.done().map(drop)
    }

    /// Removes the LUN; absent is fine. The array refuses while it is mapped.
    pub(super) async fn delete(&self, key: &str, until: Until) -> Result<(), SanError> {
        let request = || Request::new(Method::DELETE, lun_target(key));
        let deleted = self.change("delete a LUN", until, request).await?;
        deleted.but(&codes::NO_LUN).map(drop)
    }

    async fn find_at(&self, path: &str, until: Until) -> Result<Option<Lun>, SanError> {
        let Some((_, lun)) = names::parts(path) else {
            return Ok(None);
        };
        let found = self.luns_named(lun, until).await?;
        Ok(found.into_iter().find(|found| found.name == path))
    }

    /// The LUN that was just made there.
    pub(super) async fn wait_for(&self, path: &str, until: Until) -> Result<Lun, SanError> {
        let patience = until.min(Until::now() + SETTLING);
        loop {
            match self.find_at(path, until).await? {
                Some(found) => return Ok(found),
                None => self.look_again(patience).await?,
            }
        }
    }

    /// A pause before the next look for what was just made, unless there is no time for one.
    pub(super) async fn look_again(&self, patience: Until) -> Result<(), SanError> {
        if Until::now() + LOOK_AGAIN >= patience {
            return Err(SanError::NoAnswer {
                call: "find what was made",
                attempts: Attempts(vec![(self.svm.clone(), Odd::Absent.into())]),
            });
        }
        sleep(LOOK_AGAIN).await;
        Ok(())
    }

    pub(super) async fn flexvols(&self, until: Until) -> Result<Vec<FlexVol>, SanError> {
        const CALL: &str = "look at the FlexVols";
        let names = self.pools.join("|");
        let pairs = [("name", names.as_str()), ("fields", "name,space.available")];
        let target = self.target("storage/volumes", &pairs);
        let found: Vec<FlexVol> = self.records(CALL, until, &target).await?;
        let missing = |pool: &&String| !found.iter().any(|it| it.name == **pool);
        match self.pools.iter().find(missing) {
            Some(pool) => Err(SanError::Refused {
                address: self.svm.clone(),
                call: CALL,
                fault: Fault::Precondition,
                reason: format!("there is no FlexVol {pool:?}; see pools of the partition"),
            }),
            None => Ok(found),
        }
    }

    /// The `FlexVol` for it: the one of those with room that its name falls to, or else the one with the most. So two who make the same choose the same, most often.
    async fn choose(&self, wanted: &NewVolume, until: Until) -> Result<String, SanError> {
        let all = self.flexvols(until).await?;
        let fits = |it: &&FlexVol| it.space.available >= wanted.size;
        let rank = |it: &&FlexVol| names::rank(&it.name, &wanted.name);
        let chosen = all.iter().filter(fits).max_by_key(rank);
        let chosen = chosen.or_else(|| all.iter().max_by_key(|it| it.space.available));
        let chosen = chosen.ok_or_else(|| odd("create a LUN", "pools")(Odd::Absent))?;
        Ok(chosen.name.clone())
    }

    pub(super) fn absent(&self, call: &'static str) -> SanError {
        SanError::Refused {
            address: self.svm.clone(),
            call,
            fault: Fault::NotFound,
            reason: "the LUN is not there".to_owned(),
        }
    }
}

/// For people who look at the array.
pub(super) fn comment(name: &str) -> &str {
    let mut end = name.len().min(COMMENT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
