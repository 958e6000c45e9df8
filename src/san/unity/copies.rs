//! Copies: thin clones of snapshots.
//!
//! A copy of a volume needs a snapshot of it that passes: its name follows from the copy's, so that one whose reply was lost is found again, and it goes once the copy
//! is there. What is left of a call that ended between the two goes with the volume. A copy that is to be larger than its origin is made and grown under another
//! name, and gets its own and its notes at once when it is whole: who looks for it never finds a part.

use serde_json::json;

use super::ask::Question;
use super::{UnitySan, names, notes_of, rounded, wire};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::http::encoded;
use crate::san::nouns::NewVolume;
use crate::san::shorthand;

impl UnitySan {
    /// Makes the volume of the snapshot `key`; the key of the new one.
    pub(super) async fn copy_snapshot(
        &self,
        key: &str,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<String, SanError> {
        let snap = self.snap(key, until).await?;
        let (Some(lun), Some(size)) = (&snap.lun, snap.size) else {
            let reason = format!("snapshot {key} is not one of a LUN");
            return Err(self.refuse("copy snapshot", Fault::Precondition, reason));
        };
        if wanted.size <= size {
            let name = names::on_array(&wanted.name);
            let description = notes_of(wanted).write(&name);
            return self
                .clone_lun(&lun.id, key, (&name, &description), until)
                .await;
        }
        self.copy_and_grow(&lun.id, key, wanted, until).await
    }

    /// Makes the volume of what the volume `key` holds now; the key of the new one.
    pub(super) async fn copy_volume(
        &self,
        key: &str,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<String, SanError> {
        let name = names::passing_cut(&wanted.name, key);
        let cut = match self.find_snap_named(&name, until).await? {
            Some(cut) => cut.id,
            None => self.cut(key, &name, "", until).await?,
        };
        let copy = self.copy_snapshot(&cut, wanted, until).await?;
        if let Err(error) = self.remove_snap(&cut, until).await {
            tracing::warn!(cut, %error, "a snapshot that only passes stays until its volume goes");
        }
        Ok(copy)
    }

    /// Snapshots of the volume that were left by copies.
    pub(super) async fn remove_passing_cuts(
        &self,
        key: &str,
        until: Until,
    ) -> Result<(), SanError> {
        let cuts = self.snaps(Some(key), until).await?;
        for cut in cuts.iter().filter(|cut| names::is_passing_cut(&cut.name)) {
            match self.remove_snap(&cut.id, until).await {
                Err(error) if error.fault() != Fault::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn copy_and_grow(
        &self,
        lun: &str,
        snap: &str,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<String, SanError> {
        let origin = wanted
            .source
            .as_ref()
            .map(shorthand::origin)
            .unwrap_or_default();
        let unfinished = names::unfinished(&wanted.name, &origin);
        let key = match self.find_lun_named(&unfinished, until).await? {
            Some(begun) => begun.id,
            None => self.clone_lun(lun, snap, (&unfinished, ""), until).await?,
        };
        let size = json!({"lunParameters": {"size": rounded(wanted.size)}});
        self.modify("expand LUN", &key, size, until).await?;
        let name = names::on_array(&wanted.name);
        let named = json!({"name": name, "description": notes_of(wanted).write(&name)});
        self.modify("rename LUN", &key, named, until).await?;
        Ok(key)
    }

    async fn clone_lun(
        &self,
        lun: &str,
        snap: &str,
        (name, description): (&str, &str),
        until: Until,
    ) -> Result<String, SanError> {
        let path = format!(
            "/api/instances/storageResource/{}/action/createLunThinClone",
            encoded(lun)
        );
        let body = json!({"name": name, "snap": {"id": snap}, "description": description});
        let question = Question::post("clone LUN", &path, body);
        let made: wire::MadeResource = self.thing(&question, until).await?;
        Ok(made.storage_resource.id)
    }
}
