//! Snapshots of LUNs: cut so that the array never deletes one by itself.

use serde_json::json;

use super::ask::Question;
use super::notes::Notes;
use super::{UnitySan, names, read, wire};
use crate::fault::Fault;
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::family::SnapshotFamily;
use crate::san::http::encoded;
use crate::san::nouns::{ExtentPage, NewSnapshot, SanSnapshot, SnapshotPage};

const SNAP_FIELDS: &str = "id,name,description,state,creationTime,size,lun";

impl UnitySan {
    /// The snapshot with this key, which is to be there.
    pub(super) async fn snap(&self, key: &str, until: Until) -> Result<wire::Snap, SanError> {
        self.thing(&one(&encoded(key)), until).await
    }

    /// The snapshot with this name on the array, to the letter.
    pub(super) async fn find_snap_named(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<wire::Snap>, SanError> {
        let question = one(&format!("name:{}", encoded(name)));
        let found: Option<wire::Snap> = self.thing_if_there(&question, until).await?;
        Ok(found.filter(|snap| snap.name == name))
    }

    /// Those of one LUN, or all, in the order of their keys.
    pub(super) async fn snaps(
        &self,
        lun: Option<&str>,
        until: Until,
    ) -> Result<Vec<wire::Snap>, SanError> {
        let filter = lun.map(|lun| format!("lun eq \"{lun}\""));
        let mut parameters = vec![("fields", SNAP_FIELDS)];
        parameters.extend(filter.as_deref().map(|filter| ("filter", filter)));
        let path = "/api/types/snap/instances";
        let mut snaps: Vec<wire::Snap> =
            self.all("list snapshots", path, &parameters, until).await?;
        snaps.sort_by(|one, other| one.id.cmp(&other.id));
        snaps.dedup_by(|one, other| one.id == other.id);
        Ok(snaps)
    }

    /// Cuts a snapshot of the LUN; its key.
    pub(super) async fn cut(
        &self,
        lun: &str,
        name: &str,
        description: &str,
        until: Until,
    ) -> Result<String, SanError> {
        let body = json!({
            "storageResource": {"id": lun},
            "name": name,
            "description": description,
            "isAutoDelete": false,
        });
        let question = Question::post("cut snapshot", "/api/types/snap/instances", body);
        let made: wire::Made = self.thing(&question, until).await?;
        Ok(made.id)
    }

    /// Removes the snapshot; absent is an error.
    pub(super) async fn remove_snap(&self, key: &str, until: Until) -> Result<(), SanError> {
        let path = format!("/api/instances/snap/{}", encoded(key));
        let question = Question::delete("delete snapshot", &path, None);
        self.ask(&question, until, |_| Ok(())).await
    }

    fn snapshot(&self, snap: &wire::Snap) -> Result<Option<SanSnapshot>, SanError> {
        self.made("find snapshot", read::snapshot(snap))
    }

    fn snapshot_if_there(&self, snap: Option<wire::Snap>) -> Result<Option<SanSnapshot>, SanError> {
        match snap {
            Some(snap) => self.snapshot(&snap),
            None => Ok(None),
        }
    }
}

fn one(which: &str) -> Question {
    let path = format!("/api/instances/snap/{which}");
    Question::get("find snapshot", &path, &[("fields", SNAP_FIELDS)])
}

#[tonic::async_trait]
impl SnapshotFamily for UnitySan {
    async fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        let [wanted] = wanted else {
            let reason = "this family cuts one volume at a time, and no group".to_owned();
            return Err(self.refuse("cut snapshots", Fault::Precondition, reason));
        };
        let name = names::on_array(&wanted.name);
        let notes = Notes {
            name: wanted.name.clone(),
            metadata: wanted.metadata.clone(),
            ..Notes::default()
        };
        let key = self
            .cut(&wanted.volume, &name, &notes.write(&name), until)
            .await?;
        let cut = self.find_snapshot_by_key(&key, until).await?;
        match cut {
            Some(cut) if cut.metadata == wanted.metadata => Ok(vec![cut]),
            found => Err(SanError::Answer {
                call: "cut snapshot",
                field: "description",
                source: format!("of {key} it is not what was noted: {found:?}").into(),
            }),
        }
    }

    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.find_snap_named(&names::on_array(name), until).await?;
        self.snapshot_if_there(found)
    }

    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.thing_if_there(&one(&encoded(key)), until).await?;
        self.snapshot_if_there(found)
    }

    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let found = self.snaps(volume, until).await?;
        let mut snapshots = Vec::new();
        for snap in found.iter().filter(|snap| *snap.id > *after) {
            if !names::is_passing_cut(&snap.name) {
                snapshots.extend(self.snapshot(snap)?);
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = snapshots.len() > most;
        snapshots.truncate(most);
        Ok(SnapshotPage { snapshots, more })
    }

    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        self.remove_snap(key, until).await
    }

    /// The array does not tell: all of it may be other than zero, or than before.
    async fn list_extents(
        &self,
        (key, _): (&str, Option<&str>),
        from: u64,
        _: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        let snap = self.snap(key, until).await?;
        Ok(ExtentPage::untold(snap.size.unwrap_or(0), from))
    }
}
