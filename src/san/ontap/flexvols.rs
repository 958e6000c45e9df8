//! The layout of a `FlexVol` for each volume: what makes, grows and removes them.
//!
//! Such a `FlexVol` is named after the volume, so whoever makes one a second time meets the first. One that is to go is marked before its LUN goes: a call that is cut off
//! in between leaves something that the next deletion finds, and that nobody puts a LUN into again.

use serde_json::{Value, json};

use super::super::Until;
use super::super::error::SanError;
use super::super::http::{Method, Request, encoded, query};
use super::super::nouns::Capacity;
use super::make::SETTLING;
use super::wire::{Aggregate, Home, Lun, Odd, odd, read};
use super::{LARGEST, Ontap, SMALLEST, codes, names};
use crate::fault::{Fault, Faulted};

const FIELDS: &str = "uuid,name,comment,size";
/// The comment of one that is to go.
const GOING: &str = "sanpath: is being deleted";
/// The least that a `FlexVol` has.
const LEAST: u64 = 20 << 20;
const MIB: u64 = 1 << 20;

impl Home {
    fn is_going(&self) -> bool {
        self.comment.as_deref() == Some(GOING)
    }
}

/// What a `FlexVol` needs for a LUN of this size: ONTAP keeps something for itself.
fn room_for(lun: u64) -> u64 {
    let whole = lun.saturating_add(lun / 10).max(LEAST);
    whole.checked_next_multiple_of(MIB).unwrap_or(whole)
}

impl Ontap {
    /// Room for a LUN of this size on one of the aggregates.
    pub(super) async fn ensure_blank_home(
        &self,
        (flexvol, name, size): (&str, &str, u64),
        until: Until,
    ) -> Result<Home, SanError> {
        let aggregate = self.choose_aggregate(name, size, until).await?;
        let body = json!({
            "svm": {"name": self.svm},
            "name": flexvol,
            "aggregates": [{"name": aggregate}],
            "size": room_for(size),
            "guarantee": {"type": "none"},
            "snapshot_policy": {"name": "none"},
            "space": {"snapshot": {"reserve_percent": 0}},
            "comment": super::make::comment(name),
        });
        self.ensure_home(flexvol, &body, until).await
    }

    /// A clone of the `FlexVol` `parent`, as it is or as it was at one of its snapshots.
    pub(super) async fn ensure_cloned_home(
        &self,
        (flexvol, name): (&str, &str),
        (parent, snapshot): (&str, Option<&str>),
        until: Until,
    ) -> Result<Home, SanError> {
        let mut clone = json!({"is_flexclone": true, "parent_volume": {"name": parent}});
        if let Some(snapshot) = snapshot {
            clone["parent_snapshot"] = json!({"name": snapshot});
        }
        let body = json!({
            "svm": {"name": self.svm},
            "name": flexvol,
            "clone": clone,
            "comment": super::make::comment(name),
        });
        self.ensure_home(flexvol, &body, until).await
    }

    async fn ensure_home(
        &self,
        flexvol: &str,
        body: &Value,
        until: Until,
    ) -> Result<Home, SanError> {
        match self.home(flexvol, until).await? {
            Some(home) if home.is_going() => self.remove_home(&home, until).await?,
            Some(home) => return Ok(home),
            None => {}
        }
        let request = || Request::new(Method::POST, "/api/storage/volumes").with_body(body.clone());
        let made = self.change("make a FlexVol", until, request).await?;
        made.but(&codes::FLEXVOL_EXISTS)?;
        let patience = until.min(Until::now() + SETTLING);
        loop {
            match self.home(flexvol, until).await? {
                Some(found) => return Ok(found),
                None => self.look_again(patience).await?,
            }
        }
    }

    /// The `FlexVol` with this name.
    pub(super) async fn home(&self, flexvol: &str, until: Until) -> Result<Option<Home>, SanError> {
        let target = self.target("storage/volumes", &[("name", flexvol), ("fields", FIELDS)]);
        let found: Vec<Home> = self.records("find a FlexVol", until, &target).await?;
        Ok(found.into_iter().find(|home| home.name == flexvol))
    }

    /// Room for a LUN of this size in a `FlexVol` that is there.
    pub(super) async fn grow_home(
        &self,
        home: &Home,
        size: u64,
        until: Until,
    ) -> Result<(), SanError> {
        if home.size >= room_for(size) {
            return Ok(());
        }
        let body = json!({"size": room_for(size)});
        self.set_home("expand a FlexVol", home, body, until).await
    }

    /// Begins to make a clone independent of what it was made of. The array does that by itself and takes its time.
    pub(super) async fn split(&self, home: &Home, until: Until) -> Result<(), SanError> {
        let body = json!({"clone": {"split_initiated": true}});
        match self.set_home("split a clone", home, body, until).await {
            // Split already, or at it.
            Err(refused) if refused.fault() == Fault::Precondition => Ok(()),
            outcome => outcome,
        }
    }

    async fn set_home(
        &self,
        call: &'static str,
        home: &Home,
        body: Value,
        until: Until,
    ) -> Result<(), SanError> {
        let request =
            || Request::new(Method::PATCH, home_target(&home.uuid)).with_body(body.clone());
        self.change(call, until, request).await?.done().map(drop)
    }

    /// Removes the LUN and its `FlexVol`, and those that calls which were cut off have left. Absent is fine.
    pub(super) async fn delete_with_home(&self, key: &str, until: Until) -> Result<(), SanError> {
        let Some(lun) = self.lun(key, until).await? else {
            return Ok(());
        };
        let flexvol = names::parts(&lun.name).map(|(flexvol, _)| flexvol.to_owned());
        let flexvol = flexvol.ok_or_else(|| odd("delete a LUN", "name")(Odd::Absent))?;
        self.refuse_dependents(&lun, &flexvol, until).await?;
        if let Some(home) = self.home(&flexvol, until).await? {
            let mark = json!({"comment": GOING});
            self.set_home("mark a FlexVol", &home, mark, until).await?;
        }
        self.delete(key, until).await?;
        self.remove_leftovers(until).await
    }

    /// ONTAP deletes a `FlexVol` with its snapshots; they are somebody's.
    async fn refuse_dependents(
        &self,
        lun: &Lun,
        flexvol: &str,
        until: Until,
    ) -> Result<(), SanError> {
        let cuts = self.cuts_of(lun, until).await?;
        let pairs = [("clone.parent_volume.name", flexvol), ("fields", FIELDS)];
        let target = self.target("storage/volumes", &pairs);
        let clones: Vec<Home> = self.records("find FlexClones", until, &target).await?;
        let reason = match (cuts.len(), clones.first()) {
            (0, None) => return Ok(()),
            (0, Some(clone)) => format!("{} is a clone that is not split off yet", clone.name),
            (count, _) => format!("it has {count} snapshots"),
        };
        Err(SanError::Refused {
            address: self.svm.clone(),
            call: "delete a LUN",
            fault: Fault::Precondition,
            reason,
        })
    }

    async fn remove_leftovers(&self, until: Until) -> Result<(), SanError> {
        let every = names::every_home();
        let pairs = [("name", every.as_str()), ("fields", FIELDS)];
        let target = self.target("storage/volumes", &pairs);
        let homes: Vec<Home> = self.records("list FlexVols", until, &target).await?;
        for home in homes.iter().filter(|home| home.is_going()) {
            self.remove_home(home, until).await?;
        }
        Ok(())
    }

    /// Removes a marked `FlexVol`, unless a LUN is still in it.
    async fn remove_home(&self, home: &Home, until: Until) -> Result<(), SanError> {
        if !self.luns_in(&home.name, until).await?.is_empty() {
            return Ok(());
        }
        let request = || Request::new(Method::DELETE, home_target(&home.uuid));
        let gone = self.change("delete a FlexVol", until, request).await?;
        gone.but(&codes::NO_FLEXVOL).map(drop)
    }

    /// The aggregate for it: among those with room the one that its name falls to. The account of an SVM cannot see how much room there is.
    async fn choose_aggregate(
        &self,
        name: &str,
        size: u64,
        until: Until,
    ) -> Result<String, SanError> {
        let fits: Vec<String> = match self.aggregates(until).await {
            Ok(all) => {
                let fits = all.iter().filter(|it| it.available() >= size);
                fits.map(|it| it.name.clone()).collect()
            }
            Err(refused) if refused.fault() == Fault::Denied => self.pools.clone(),
            Err(error) => return Err(error),
        };
        let best = fits.iter().max_by_key(|pool| names::rank(pool, name));
        best.cloned().ok_or_else(|| SanError::Refused {
            address: self.svm.clone(),
            call: "make a FlexVol",
            fault: Fault::Exhausted,
            reason: format!("no aggregate of the partition has {size} bytes left"),
        })
    }

    pub(super) async fn room_of_aggregates(&self, until: Until) -> Result<Capacity, SanError> {
        let all = self.aggregates(until).await?;
        Ok(Capacity {
            available: all.iter().map(Aggregate::available).sum(),
            minimum_volume: SMALLEST,
            maximum_volume: LARGEST,
        })
    }

    async fn aggregates(&self, until: Until) -> Result<Vec<Aggregate>, SanError> {
        const CALL: &str = "look at the aggregates";
        let names = self.pools.join("|");
        let fields = "name,space.block_storage.available";
        let pairs = [("name", names.as_str()), ("fields", fields)];
        let target = format!("/api/storage/aggregates?{}", query(pairs));
        let found: Vec<Aggregate> = self.records(CALL, until, &target).await?;
        let missing = |pool: &&String| !found.iter().any(|it| it.name == **pool);
        match self.pools.iter().find(missing) {
            Some(pool) => Err(SanError::Refused {
                address: self.svm.clone(),
                call: CALL,
                fault: Fault::Precondition,
                reason: format!("there is no aggregate {pool:?}; see pools of the partition"),
            }),
            None => Ok(found),
        }
    }

    /// Whatever is in the `FlexVol`.
    pub(super) async fn luns_in(&self, flexvol: &str, until: Until) -> Result<Vec<Lun>, SanError> {
        let path = names::path(flexvol, "*");
        let pairs = [("name", path.as_str()), ("fields", super::wire::LUN_FIELDS)];
        let target = self.target("storage/luns", &pairs);
        self.records("find LUNs", until, &target).await
    }

    /// Something below the `FlexVol` with this uuid; `None` when it or that is not there.
    pub(super) async fn below_home<T: serde::de::DeserializeOwned>(
        &self,
        uuid: &str,
        rest: &str,
        until: Until,
    ) -> Result<Option<T>, SanError> {
        const CALL: &str = "find a snapshot";
        let target = format!("{}/{rest}", home_target(uuid));
        let found = self.look(CALL, until, &target).await?;
        let found = found.but(&codes::NO_FLEXVOL)?;
        found.map(|it| read(CALL, "snapshot", it)).transpose()
    }
}

/// The `FlexVol` with this uuid.
pub(super) fn home_target(uuid: &str) -> String {
    format!("/api/storage/volumes/{}", encoded(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flexvol_has_more_room_than_its_lun_needs() {
        assert_eq!(room_for(MIB), LEAST);
        assert_eq!(room_for(100 * MIB), 110 * MIB);
        assert_eq!(room_for(101 * MIB), 112 * MIB);
        assert!(room_for(u64::MAX) == u64::MAX);
    }
}
