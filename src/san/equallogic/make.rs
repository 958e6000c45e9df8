//! Volumes come and go: made blank or as a copy, grown, removed.
//!
//! A copy that has to grow gets its name last, so that what bears one is complete. A removal is two commands: a volume that is offline and has no record is one
//! whose removal was begun.

use super::names;
use super::notes::{Known, Notes};
use super::read::{GIB, Volume, rows};
use super::{AT_ONCE, EqualLogic};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::abandoned::Unfinished;
use crate::san::error::SanError;
use crate::san::nouns::{NewVolume, SanVolume, Source};

const CREATE: &str = "create volume";
const DELETE: &str = "delete volume";

/// What is kept with a new volume.
fn notes_of(wanted: &NewVolume) -> Notes {
    Notes {
        name: wanted.name.clone(),
        metadata: wanted.metadata.clone(),
        source: wanted.source.clone(),
        ..Notes::default()
    }
}

/// What is copied, as a command has it, and how large it is.
struct Origin {
    selected: String,
    size: u64,
    key: String,
}

impl EqualLogic {
    /// Makes the volume.
    pub(super) async fn make(
        &self,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let name = names::on_group(&wanted.name);
        let known = Known {
            name: &name,
            volume: None,
        };
        let notes = notes_of(wanted).write(known);
        let notes = notes.map_err(|too_long| SanError::Unfit(too_long.into()))?;
        match &wanted.source {
            None => self.make_blank(&name, &notes, wanted.size, until).await?,
            Some(source) => {
                let origin = self.origin(source, until).await?;
                self.copy(&origin, (&name, &notes), wanted.size, until)
                    .await?;
            }
        }
        let made = self.volume_called(&name, until).await?;
        let made = made.ok_or_else(|| self.absent(CREATE, &name))?;
        if made.description != notes {
            return Err(SanError::Answer {
                call: CREATE,
                field: "Description",
                source: format!("{:?} is not what was noted", made.description).into(),
            });
        }
        Ok(made.asked_as(&wanted.name).as_volume())
    }

    async fn make_blank(
        &self,
        name: &str,
        notes: &str,
        size: u64,
        until: Until,
    ) -> Result<(), SanError> {
        let rooms = self.rooms(until).await?;
        let pool = rooms.into_iter().max_by_key(|(_, free)| *free);
        let (pool, _) =
            pool.ok_or_else(|| self.refuse(CREATE, Fault::Exhausted, "it has no pool".to_owned()))?;
        let size = gib(size);
        let command = format!(
            "volume create {name} {size}G pool {pool} thin-provision description \"{notes}\""
        );
        self.change(CREATE, &[command], until).await?;
        Ok(())
    }

    /// What is to be copied, which is to be there.
    async fn origin(&self, source: &Source, until: Until) -> Result<Origin, SanError> {
        let origin = match source {
            Source::Volume(key) => self.volume_with_key(key, until).await?.map(|it| Origin {
                selected: format!("volume select {}", it.name),
                size: it.size,
                key: key.clone(),
            }),
            Source::Snapshot(key) => {
                let found = self.snapshot_with_key(key, until).await?;
                found.map(|(volume, cut)| Origin {
                    selected: format!("volume select {} snapshot select {}", volume.name, cut.name),
                    size: cut.notes.and_then(|it| it.cut).map_or(0, |it| it.1) * GIB,
                    key: key.clone(),
                })
            }
        };
        let (Source::Volume(key) | Source::Snapshot(key)) = source;
        origin.ok_or_else(|| self.absent(CREATE, key))
    }

    async fn copy(
        &self,
        origin: &Origin,
        (name, notes): (&str, &str),
        size: u64,
        until: Until,
    ) -> Result<(), SanError> {
        let clone = |to: &str| format!("{} clone {to} description \"{notes}\"", origin.selected);
        if origin.size >= size {
            self.change(CREATE, &[clone(name)], until).await?;
            return Ok(());
        }
        let unfinished = names::unfinished(name, &origin.key);
        match self.change(CREATE, &[clone(&unfinished)], until).await {
            // An earlier call came so far.
            Err(SanError::Refused {
                fault: Fault::Conflict,
                ..
            }) => {}
            outcome => {
                outcome?;
            }
        }
        let grown = self.grow(&unfinished, size, until).await;
        grown.map_err(|error| self.taken_away(error))?;
        let rename = format!("volume rename {unfinished} {name}");
        let named = self.change(CREATE, &[rename], until).await;
        named.map_err(|error| self.taken_away(error)).map(drop)
    }

    /// A copy that is not there any more between two steps is one that another controller has finished, or has taken for given up: the call is worth repeating.
    fn taken_away(&self, error: SanError) -> SanError {
        match error.fault() {
            Fault::NotFound => {
                let reason = "another controller was at the same copy".to_owned();
                self.refuse(CREATE, Fault::Busy, reason)
            }
            _ => error,
        }
    }

    /// Copies that have not got their name yet: by their own and by our notes, and if nobody can reach them.
    pub(super) async fn unfinished(&self, until: Until) -> Result<Vec<Volume>, SanError> {
        let listed = self.listed(until).await?.into_iter().map(|(name, _)| name);
        let names: Vec<String> = listed.filter(|it| names::is_unfinished(it)).collect();
        let mut found = Vec::new();
        for names in names.chunks(AT_ONCE) {
            found.append(&mut self.volumes_with_identity(names, until).await?);
        }
        found.retain(|it| {
            let is_copy = it.notes.as_ref().is_some_and(|it| it.source.is_some());
            is_copy && it.records.is_empty() && it.connections() == 0
        });
        Ok(found)
    }

    /// Removes such a copy by its name, if it is as it was; whether it went.
    pub(super) async fn take_unfinished(
        &self,
        one: &Unfinished,
        until: Until,
    ) -> Result<bool, SanError> {
        let still = self.unfinished(until).await?;
        match still.iter().find(|it| seen(it) == *one) {
            Some(volume) => self.take_away(volume, until).await,
            None => Ok(false),
        }
    }

    /// Removes the volume by its name, unless something is lost with it; whether it was there.
    async fn take_away(&self, volume: &Volume, until: Until) -> Result<bool, SanError> {
        self.refuse_loss(volume, until).await?;
        let name = &volume.name;
        let offline = format!("volume select {name} offline");
        let delete = format!("volume delete {name}");
        let show = format!("volume select {name} show");
        self.change_away(DELETE, &[offline, delete, show], until)
            .await
    }

    /// Makes the volume that the group calls `name` so large; the group cuts no snapshot of its own for that.
    pub(super) async fn grow(&self, name: &str, size: u64, until: Until) -> Result<(), SanError> {
        let size = gib(size);
        let command = format!("volume select {name} size {size}G no-snap");
        self.change("expand volume", &[command], until).await?;
        Ok(())
    }

    /// Removes the volume, unless something is lost with it.
    pub(super) async fn remove(&self, key: &str, until: Until) -> Result<(), SanError> {
        let Some(volume) = self.volume_with_key(key, until).await? else {
            return Ok(());
        };
        self.take_away(&volume, until).await.map(drop)
    }

    /// Snapshots go with their volume, and so would somebody's access.
    async fn refuse_loss(&self, volume: &Volume, until: Until) -> Result<(), SanError> {
        let kept = |reason: String| Err(self.refuse(DELETE, Fault::Precondition, reason));
        if let Some(record) = volume.records.iter().find(|it| it.initiator.is_none()) {
            return kept(format!(
                "its access record {} is nobody's of ours",
                record.id
            ));
        }
        let command = format!("volume select {} snapshot show", volume.name);
        let said = self.change_nothing(DELETE, &command, until).await?;
        let names: Vec<String> = rows(&said).into_iter().map(|row| row.name).collect();
        for cut in self.snapshots_called(volume, &names, until).await? {
            // A cut of ours without its name is one whose call was given up: nobody has its key.
            let is_given_up = cut.notes.is_some() && cut.as_snapshot(volume).is_none();
            if !is_given_up {
                return kept(format!("its snapshot {} would go with it", cut.name));
            }
        }
        Ok(())
    }
}

/// As far as work on it would show.
pub(super) fn seen(volume: &Volume) -> Unfinished {
    Unfinished {
        name: volume.name.clone(),
        key: volume.key.clone(),
        size: volume.size,
    }
}

/// In whole GiB.
fn gib(size: u64) -> u64 {
    size.div_ceil(GIB).max(1)
}
