//! Snapshots of the layout of a `FlexVol` for each volume: ONTAP's own, of the whole `FlexVol`.
//!
//! A snapshot has no room for what is kept with it, so that stands with the volume's LUN, in an attribute that bears the snapshot's name. It is written before the snapshot
//! is cut and goes after it: a note without a snapshot means nothing, and a snapshot without a note is not ours.

use serde_json::json;

use super::super::Until;
use super::super::error::SanError;
use super::super::http::{Method, Request, encoded};
use super::super::nouns::{NewSnapshot, SanSnapshot, SnapshotPage};
use super::flexvols::home_target;
use super::names::{self, Kind};
use super::notes::Notes;
use super::wire::{self, Attribute, Cut, Lun, Odd, odd};
use super::{Ontap, find};

const FIELDS: &str = "uuid,name,create_time,volume.name,volume.uuid";
/// Between the uuids of a `FlexVol` and of its snapshot, in a key.
const JOINT: char = '_';

impl Lun {
    /// Notes about snapshots, its own and those that a clone brought along.
    pub(super) fn cut_notes(&self) -> impl Iterator<Item = &Attribute> {
        let noted = self.attributes.iter();
        noted.filter(|it| names::is_cut(&it.name))
    }

    /// What is kept with the snapshot of this name on the array.
    fn noted_of(&self, cut: &str) -> Option<Notes> {
        let noted = self.cut_notes().find(|it| it.name == cut)?;
        let notes = Notes::find_cut(&noted.value)?;
        let is_its_own = notes.cut().as_deref() == Some(self.uuid.as_str());
        (is_its_own && names::cut(&notes.name) == cut).then_some(notes)
    }

    fn snapshot(&self, cut: &Cut) -> Result<Option<SanSnapshot>, SanError> {
        let Some(notes) = self.noted_of(&cut.name) else {
            return Ok(None);
        };
        Ok(Some(SanSnapshot {
            key: format!("{}{JOINT}{}", cut.volume.uuid, cut.uuid),
            volume: self.uuid.clone(),
            size: notes.size.unwrap_or(self.space.size),
            created_at: wire::created_at("a snapshot", &cut.create_time)?,
            name: notes.name,
            metadata: notes.metadata,
        }))
    }
}

impl Ontap {
    pub(super) async fn make_cut(
        &self,
        wanted: &NewSnapshot,
        until: Until,
    ) -> Result<SanSnapshot, SanError> {
        const CALL: &str = "cut a snapshot";
        let lun = self.lun(&wanted.volume, until).await?;
        let lun = lun.filter(|lun| self.notes_of(lun, Kind::Volume).is_some());
        let lun = lun.ok_or_else(|| self.absent(CALL))?;
        let (flexvol, _) = names::parts(&lun.name).ok_or_else(|| self.absent(CALL))?;
        let mut notes = Notes::of_snapshot(wanted);
        notes.size = Some(lun.space.size);
        let text = notes.write().map_err(|long| SanError::Unfit(long.into()))?;
        let name = names::cut(&wanted.name);
        self.note_as((&lun.uuid, &name), &text, until).await?;
        let home = self.home(flexvol, until).await?;
        let home = home.ok_or_else(|| self.absent(CALL))?;
        let request = || {
            let target = format!("{}/snapshots", home_target(&home.uuid));
            let body = json!({"name": name, "comment": super::make::comment(&wanted.name)});
            Request::new(Method::POST, target).with_body(body)
        };
        self.change(CALL, until, request).await?.done()?;
        let made = self.find_cut(&wanted.name, until).await?;
        made.ok_or_else(|| odd(CALL, "snapshot")(Odd::Absent))
    }

    pub(super) async fn find_cut(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let name = names::cut(name);
        let pairs = [
            ("attributes.name", name.as_str()),
            ("fields", wire::LUN_FIELDS),
        ];
        let target = self.target("storage/luns", &pairs);
        let luns: Vec<Lun> = self.records("find LUNs", until, &target).await?;
        let is_whole = |lun: &&Lun| self.notes_of(lun, Kind::Volume).is_some();
        for lun in luns.iter().filter(is_whole) {
            let cuts = self.cuts_of(lun, until).await?;
            if let Some(found) = cuts.iter().find(|cut| cut.name == name) {
                return lun.snapshot(found);
            }
        }
        Ok(None)
    }

    /// The snapshot with this key as the array has it.
    pub(super) async fn cut(&self, key: &str, until: Until) -> Result<Option<Cut>, SanError> {
        let is_uuid = |text: &str| uuid::Uuid::parse_str(text).is_ok();
        let parts = key.split_once(JOINT);
        let Some((home, cut)) = parts.filter(|(home, cut)| is_uuid(home) && is_uuid(cut)) else {
            return Ok(None);
        };
        let rest = format!("snapshots/{}?fields={FIELDS}", encoded(cut));
        self.below_home(home, &rest, until).await
    }

    pub(super) async fn find_cut_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        let Some(cut) = self.cut(key, until).await? else {
            return Ok(None);
        };
        match self.lun_of(&cut, until).await? {
            Some(lun) => lun.snapshot(&cut),
            None => Ok(None),
        }
    }

    /// The volume of which the snapshot is.
    async fn lun_of(&self, cut: &Cut, until: Until) -> Result<Option<Lun>, SanError> {
        let inside = self.luns_in(&cut.volume.name, until).await?;
        let is_whole = |lun: &Lun| self.notes_of(lun, Kind::Volume).is_some();
        Ok(inside.into_iter().find(is_whole))
    }

    /// Those of one volume that are ours.
    pub(super) async fn cuts_of(&self, lun: &Lun, until: Until) -> Result<Vec<Cut>, SanError> {
        let (flexvol, _) = names::parts(&lun.name).ok_or_else(|| self.absent("find snapshots"))?;
        let mut cuts = self.cuts(&[("volume.name", flexvol)], until).await?;
        cuts.retain(|cut| cut.volume.name == flexvol && lun.noted_of(&cut.name).is_some());
        Ok(cuts)
    }

    /// Of every `FlexVol`.
    async fn cuts(&self, of: &[(&str, &str)], until: Until) -> Result<Vec<Cut>, SanError> {
        let every = names::every_cut();
        let mut pairs = vec![("name", every.as_str()), ("fields", FIELDS)];
        pairs.extend(of);
        let target = self.target("storage/volumes/*/snapshots", &pairs);
        self.records("list snapshots", until, &target).await
    }

    pub(super) async fn list_cuts(
        &self,
        after: &str,
        most: u32,
        of: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let (luns, _) = self.luns(Kind::Volume, "", u32::MAX, until).await?;
        let mut found = Vec::new();
        for cut in self.cuts(&[], until).await? {
            let is_its = |lun: &&Lun| {
                names::parts(&lun.name).is_some_and(|(flexvol, _)| flexvol == cut.volume.name)
            };
            if let Some(lun) = luns.iter().find(is_its) {
                found.extend(lun.snapshot(&cut)?);
            }
        }
        found.retain(|it| of.is_none_or(|of| it.volume == of));
        Ok(find::page(found, after, most))
    }

    /// Absent is fine. The array refuses while a clone is not split from it.
    pub(super) async fn delete_cut(&self, key: &str, until: Until) -> Result<(), SanError> {
        let Some(cut) = self.cut(key, until).await? else {
            return Ok(());
        };
        let lun = self.lun_of(&cut, until).await?;
        let lun = lun.filter(|lun| lun.noted_of(&cut.name).is_some());
        // Not ours.
        let Some(lun) = lun else {
            return Ok(());
        };
        let target = format!(
            "{}/snapshots/{}",
            home_target(&cut.volume.uuid),
            encoded(&cut.uuid)
        );
        let request = || Request::new(Method::DELETE, target.as_str());
        let gone = self.change("delete a snapshot", until, request).await?;
        gone.but(&super::codes::NO_FLEXVOL)?;
        self.forget(&lun.uuid, &cut.name, until).await
    }
}
