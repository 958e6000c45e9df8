//! Volumes of the layout of a `FlexVol` for each: a LUN in a `FlexVol` of its name, copies by cloning the whole `FlexVol`.
//!
//! A clone brings its source's LUN along, with its source's notes and name. So here a LUN is a volume only in the `FlexVol` that is named after it, and a copy is complete
//! when its LUN has got its own name, last of all.

use serde_json::json;

use super::super::Until;
use super::super::error::SanError;
use super::super::http::{Method, Request, encoded};
use super::super::nouns::{NewVolume, SanVolume, Source};
use super::names::{self, Kind};
use super::notes::Notes;
use super::wire::{Home, Lun, Odd, odd};
use super::{Ontap, codes, lun_target};

impl Ontap {
    pub(super) async fn make_own(
        &self,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let notes = Notes::of_volume(wanted);
        let text = notes.write().map_err(|long| SanError::Unfit(long.into()))?;
        let flexvol = names::home(&wanted.name);
        let path = names::path(&flexvol, &names::lun(Kind::Volume, &wanted.name));
        let made = match &wanted.source {
            None => {
                let home = (flexvol.as_str(), wanted.name.as_str(), wanted.size);
                self.ensure_blank_home(home, until).await?;
                self.put_lun(&path, wanted, &text, until).await?
            }
            Some(source) => {
                let (parent, snapshot) = self.parent_of(source, until).await?;
                let home = (flexvol.as_str(), wanted.name.as_str());
                let parent = (parent.as_str(), snapshot.as_deref());
                let home = self.ensure_cloned_home(home, parent, until).await?;
                self.complete(&home, (&path, wanted.size), &text, until)
                    .await?
            }
        };
        let made = self.find_whole(Some(made), until).await?;
        made.ok_or_else(|| odd("create", "lun")(Odd::Absent))
    }

    /// The `FlexVol` of what is copied, and which snapshot of it.
    async fn parent_of(
        &self,
        source: &Source,
        until: Until,
    ) -> Result<(String, Option<String>), SanError> {
        let absent = || self.absent("copy a LUN");
        match source {
            Source::Volume(key) => {
                let lun = self.lun(key, until).await?;
                let lun = lun.filter(|lun| self.notes_of(lun, Kind::Volume).is_some());
                let lun = lun.ok_or_else(absent)?;
                let (flexvol, _) = names::parts(&lun.name).ok_or_else(absent)?;
                Ok((flexvol.to_owned(), None))
            }
            Source::Snapshot(key) => {
                let cut = self.cut(key, until).await?.ok_or_else(absent)?;
                Ok((cut.volume.name, Some(cut.name)))
            }
        }
    }

    /// Makes a volume of what a clone of a `FlexVol` holds. Each step may be repeated.
    async fn complete(
        &self,
        home: &Home,
        (path, size): (&str, u64),
        text: &str,
        until: Until,
    ) -> Result<Lun, SanError> {
        let mut inside = self.luns_in(&home.name, until).await?;
        let copy = match (inside.pop(), inside.is_empty()) {
            (Some(one), true) => one,
            _ => return Err(odd("copy a LUN", "luns")("the clone has not one LUN")),
        };
        if copy.noted() != Some(text) {
            self.note(&copy.uuid, text, until).await?;
        }
        for of_source in copy.cut_notes() {
            self.forget(&copy.uuid, &of_source.name, until).await?;
        }
        if !copy.space.thin {
            let thin = json!({"space": {
                "guarantee": {"requested": false},
                "scsi_thin_provisioning_support_enabled": true,
            }});
            self.set("set a copy up", &copy.uuid, thin, until).await?;
        }
        self.grow_home(home, size.max(copy.space.size), until)
            .await?;
        if copy.space.size < size {
            let size = json!({"space": {"size": size}});
            self.set("expand a copy", &copy.uuid, size, until).await?;
        }
        self.split(home, until).await?;
        let last = json!({"name": path});
        self.set("name a copy", &copy.uuid, last, until).await?;
        self.wait_for(path, until).await
    }

    /// Removes one attribute of a LUN; absent is fine.
    pub(super) async fn forget(&self, key: &str, name: &str, until: Until) -> Result<(), SanError> {
        let target = format!("{}/attributes/{}", lun_target(key), encoded(name));
        let request = || Request::new(Method::DELETE, target.as_str());
        let gone = self.change("forget a note", until, request).await?;
        gone.but(&[codes::NO_ATTRIBUTE, 4]).map(drop)
    }

    /// Room for the LUN with this key to become `size` bytes large.
    pub(super) async fn make_room(
        &self,
        key: &str,
        size: u64,
        until: Until,
    ) -> Result<(), SanError> {
        let lun = self.lun(key, until).await?;
        let lun = lun.ok_or_else(|| self.absent("expand"))?;
        let (flexvol, _) = names::parts(&lun.name).ok_or_else(|| self.absent("expand"))?;
        match self.home(flexvol, until).await? {
            Some(home) => self.grow_home(&home, size, until).await,
            None => Err(self.absent("expand")),
        }
    }
}
