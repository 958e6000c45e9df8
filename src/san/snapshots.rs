//! The ensure loops of snapshots: look, compare, cut, and look again when the outcome is not known.
//!
//! One snapshot is a group of one. Those of a group are cut at one moment or not at all, so a part of a group that is there is no beginning that could be completed.

use super::Until;
use super::ensure::{ROUNDS, San, absent_is_fine, is_lost, is_worth_a_look};
use super::error::SanError;
use super::nouns::{ExtentPage, NewSnapshot, SanSnapshot, SnapshotPage};

impl San {
    /// Cuts the snapshots, all at one moment, unless they are there; in the order of `wanted`. A lost reply is never answered by a second cut before the SAN was
    /// asked by name.
    ///
    /// # Errors
    /// [`SanError::Taken`] when a name belongs to a different snapshot, or some of a group are there and others are not; else as the SAN or the way to it
    /// failed.
    pub async fn ensure_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        let mut round = 1;
        loop {
            if let Some(found) = self.find_cut(wanted, until).await? {
                return Ok(found);
            }
            match self.family.create_snapshots(wanted, until).await {
                Err(error) if round < ROUNDS && is_worth_a_look(&error) => {
                    let names: Vec<_> = wanted.iter().map(|one| one.name.as_str()).collect();
                    tracing::warn!(?names, %error, "looking whether they were cut");
                    round += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// All of them, or none.
    async fn find_cut(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Option<Vec<SanSnapshot>>, SanError> {
        let mut found = Vec::new();
        let mut missing = None;
        for one in wanted {
            match self.family.find_snapshot_by_name(&one.name, until).await? {
                Some(snapshot) => found.push(adopt(one, snapshot)?),
                None => missing = Some(&one.name),
            }
        }
        match (missing, found.first()) {
            (None, _) => Ok(Some(found)),
            (Some(_), None) => Ok(None),
            (Some(missing), Some(there)) => Err(SanError::Taken {
                name: there.name.clone(),
                difference: format!("it was not cut together with {missing}, which is not there"),
            }),
        }
    }

    /// The snapshot with this name on the SAN.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn find_snapshot_named(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        self.family.find_snapshot_by_name(name, until).await
    }

    /// The snapshot with this key.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn find_snapshot(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        self.family.find_snapshot_by_key(key, until).await
    }

    /// At most `most` snapshots after the one with the key `after`, in the order of keys. Empty: from the first. Those of one volume, or all.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        self.family.list_snapshots(after, most, volume, until).await
    }

    /// Removes the snapshot with this key; absent is fine. Volumes that were made of it stay.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn remove_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        let mut round = 1;
        while self.find_snapshot(key, until).await?.is_some() {
            match self.family.delete_snapshot(key, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => round += 1,
                outcome => return absent_is_fine(outcome),
            }
        }
        Ok(())
    }

    /// The bytes from `from` on of the snapshot `key` that may be other than zero, or other than in the snapshot `base` of the same volume. What is not named is
    /// the same for certain.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn list_extents(
        &self,
        (key, base): (&str, Option<&str>),
        from: u64,
        most: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        self.family
            .list_extents((key, base), from, most, until)
            .await
    }
}

fn adopt(wanted: &NewSnapshot, found: SanSnapshot) -> Result<SanSnapshot, SanError> {
    match wanted.difference(&found) {
        None => Ok(found),
        Some(difference) => Err(SanError::Taken {
            name: found.name,
            difference,
        }),
    }
}
