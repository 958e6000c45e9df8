//! Snapshots of LUNs: cut so that the array never deletes one by itself. A snapshot is found by its name; its key is that and the moment of the cut, for a name may be
//! used again.

use super::ask::Question;
use super::notes::Notes;
use super::text::{self, Lun, Snap};
use super::{Vnx, names, read};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::family::SnapshotFamily;
use crate::san::nouns::{ExtentPage, NewSnapshot, SanSnapshot, SnapshotPage};

fn key(snap: &Snap) -> String {
    format!("{}-{}", snap.name, snap.stamp)
}

/// As one of ours; `None` when nothing of ours is noted with it.
fn ours(snap: &Snap) -> Option<SanSnapshot> {
    let notes = Notes::read(&snap.description, &snap.name)?;
    Some(SanSnapshot {
        key: key(snap),
        name: notes.name,
        volume: notes.volume?,
        size: notes.size?,
        created_at: snap.created_at,
        metadata: notes.metadata,
    })
}

impl Vnx {
    /// The snapshot with this name on the array, to the letter.
    pub(super) async fn find_snap(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<Snap>, SanError> {
        let words = ["snap", "-list", "-id", name, "-detail"];
        let question = Question::look("find snapshot", &words);
        let found = self.find(&question, until, text::snaps).await?;
        let found = found.and_then(|snaps| snaps.into_iter().next());
        Ok(found.filter(|snap| snap.name == name && !snap.is_going))
    }

    /// The snapshot with this key.
    pub(super) async fn find_snap_keyed(
        &self,
        wanted: &str,
        until: Until,
    ) -> Result<Option<Snap>, SanError> {
        let Some((name, _)) = wanted.rsplit_once('-') else {
            return Ok(None);
        };
        let found = self.find_snap(name, until).await?;
        Ok(found.filter(|snap| key(snap) == wanted))
    }

    /// All snapshots.
    pub(super) async fn snaps(&self, until: Until) -> Result<Vec<Snap>, SanError> {
        let question = Question::look("list snapshots", &["snap", "-list", "-detail"]);
        let found = self.find(&question, until, text::snaps).await?;
        let mut snaps = found.unwrap_or_default();
        snaps.retain(|snap| !snap.is_going);
        snaps.sort_by_key(key);
        Ok(snaps)
    }

    /// Cuts a snapshot of the LUN.
    pub(super) async fn cut(
        &self,
        lun: u32,
        (name, description): (&str, &str),
        until: Until,
    ) -> Result<(), SanError> {
        let lun = lun.to_string();
        let mut words = vec!["snap", "-create", "-res", &lun, "-name", name];
        if !description.is_empty() {
            words.extend(["-descr", description]);
        }
        words.extend(["-allowReadWrite", "no", "-allowAutoDelete", "no"]);
        self.change(Question::change("cut snapshot", &words), until)
            .await
    }

    /// Removes the snapshot of this name; absent is fine.
    pub(super) async fn remove_snap(&self, name: &str, until: Until) -> Result<(), SanError> {
        let words = ["snap", "-destroy", "-id", name, "-o"];
        match self
            .change(Question::change("delete snapshot", &words), until)
            .await
        {
            Err(error) if error.fault() != Fault::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Snapshots of the LUN that were left by copies.
    pub(super) async fn remove_passing_cuts(
        &self,
        lun: &Lun,
        until: Until,
    ) -> Result<(), SanError> {
        let number = lun.number.to_string();
        let words = ["snap", "-list", "-res", &number, "-detail"];
        let question = Question::look("list snapshots", &words);
        let found = self.find(&question, until, text::snaps).await?;
        for snap in found.unwrap_or_default() {
            if names::is_passing_cut(&snap.name) {
                match self.remove_snap(&snap.name, until).await {
                    // It is in use, and goes with the copy.
                    Err(error) if error.fault() == Fault::Precondition => {}
                    removed => removed?,
                }
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl SnapshotFamily for Vnx {
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
        let lun = self.lun(&wanted.volume, until).await?;
        let notes = Notes {
            name: wanted.name.clone(),
            metadata: wanted.metadata.clone(),
            volume: Some(read::key(&lun)),
            size: Some(lun.size),
            ..Notes::default()
        };
        let text = notes.write(&name);
        self.cut(lun.number, (&name, &text), until).await?;
        match self.find_snap(&name, until).await? {
            Some(cut) if cut.description == text => Ok(ours(&cut).into_iter().collect()),
            found => Err(SanError::Answer {
                call: "cut snapshot",
                field: "Description",
                source: format!("of {name} it is not what was noted: {found:?}").into(),
            }),
        }
    }

    /// One of that name that is not ours is told as well, so that it is not taken for ours.
    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.find_snap(&names::on_array(name), until).await?;
        Ok(found.map(|snap| {
            ours(&snap).unwrap_or_else(|| SanSnapshot {
                key: key(&snap),
                name: snap.name.clone(),
                volume: snap.primary.map(|it| it.to_string()).unwrap_or_default(),
                size: 0,
                created_at: snap.created_at,
                metadata: Default::default(),
            })
        }))
    }

    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let found = self.find_snap_keyed(key, until).await?;
        Ok(found.as_ref().and_then(ours))
    }

    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let found = self.snaps(until).await?;
        let mut snapshots: Vec<SanSnapshot> = found.iter().filter_map(ours).collect();
        snapshots.retain(|it| *it.key > *after && volume.is_none_or(|of| it.volume == of));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = snapshots.len() > most;
        snapshots.truncate(most);
        Ok(SnapshotPage { snapshots, more })
    }

    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        match self.find_snap_keyed(key, until).await? {
            Some(snap) => self.remove_snap(&snap.name, until).await,
            None => Ok(()),
        }
    }

    /// The array does not tell: all of it may be other than zero, or than before.
    async fn list_extents(
        &self,
        (key, _): (&str, Option<&str>),
        from: u64,
        _: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        let found = self.find_snap_keyed(key, until).await?;
        match found.as_ref().and_then(ours) {
            Some(snapshot) => Ok(ExtentPage::untold(snapshot.size, from)),
            None => {
                let reason = format!("there is no snapshot {key}");
                Err(self.refuse("list extents", Fault::NotFound, reason))
            }
        }
    }
}
