//! LUNs as volumes and snapshots. What is not ours, or is a copy that is not complete, is neither.

use super::super::Until;
use super::super::error::SanError;
use super::super::nouns::{Exported, SanSnapshot, SanVolume, SnapshotPage};
use super::Ontap;
use super::codes;
use super::lun_target;
use super::names::{self, Kind};
use super::notes::Notes;
use super::wire::{Igroup, LUN_FIELDS, Lun, odd, read};

impl Ontap {
    /// The LUN with this key in our SVM.
    pub(super) async fn lun(&self, key: &str, until: Until) -> Result<Option<Lun>, SanError> {
        if uuid::Uuid::parse_str(key).is_err() {
            return Ok(None);
        }
        let target = format!("{}?fields={LUN_FIELDS}", lun_target(key));
        let found = self.look("find a LUN", until, &target).await?;
        let Some(found) = found.but(&codes::NO_LUN)? else {
            return Ok(None);
        };
        let found: Lun = read("find a LUN", "lun", found)?;
        let is_ours = found.svm.as_ref().is_none_or(|svm| svm.name == self.svm);
        Ok(is_ours.then_some(found))
    }

    /// The LUNs with this name in any `FlexVol`, the oldest first.
    pub(super) async fn luns_named(&self, lun: &str, until: Until) -> Result<Vec<Lun>, SanError> {
        let path = names::path("*", lun);
        let pairs = [("name", path.as_str()), ("fields", LUN_FIELDS)];
        let target = self.target("storage/luns", &pairs);
        let mut found: Vec<Lun> = self.records("find LUNs", until, &target).await?;
        found.sort_by(|one, other| {
            (&one.create_time, &one.uuid).cmp(&(&other.create_time, &other.uuid))
        });
        Ok(found)
    }

    /// The notes of a LUN of ours that is complete. Where each volume has a `FlexVol`, it is in its own.
    pub(super) fn notes_of(&self, lun: &Lun, kind: Kind) -> Option<Notes> {
        let notes = lun.notes(kind)?;
        let (flexvol, _) = names::parts(&lun.name)?;
        let is_home = !self.own_flexvols || flexvol == names::home(&notes.name);
        is_home.then_some(notes)
    }

    /// The one of them that is ours and complete.
    pub(super) async fn first_named(
        &self,
        kind: Kind,
        name: &str,
        until: Until,
    ) -> Result<Option<Lun>, SanError> {
        let found = self.luns_named(&names::lun(kind, name), until).await?;
        let mut found = found.into_iter();
        let is_it = |lun: &Lun| self.notes_of(lun, kind).is_some_and(|it| it.name == name);
        Ok(found.find(is_it))
    }

    /// Those of this kind, in the order of their keys, after `after`; and whether there are more. ONTAP's own pages have another order.
    pub(super) async fn luns(
        &self,
        kind: Kind,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<(Vec<Lun>, bool), SanError> {
        let every = names::every(kind);
        let pairs = [("name", every.as_str()), ("fields", LUN_FIELDS)];
        let target = self.target("storage/luns", &pairs);
        let mut found: Vec<Lun> = self.records("list LUNs", until, &target).await?;
        found.retain(|lun| lun.uuid.as_str() > after && self.notes_of(lun, kind).is_some());
        found.sort_by(|one, other| one.uuid.cmp(&other.uuid));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = found.len() > most;
        found.truncate(most);
        Ok((found, more))
    }

    /// A LUN as a volume, with who may reach it.
    pub(super) async fn find_whole(
        &self,
        lun: Option<Lun>,
        until: Until,
    ) -> Result<Option<SanVolume>, SanError> {
        let Some(lun) = lun else {
            return Ok(None);
        };
        Ok(self.volumes(&[lun], until).await?.pop())
    }

    /// LUNs as volumes; what is none is left out.
    pub(super) async fn volumes(
        &self,
        luns: &[Lun],
        until: Until,
    ) -> Result<Vec<SanVolume>, SanError> {
        let is_mapped = luns.iter().any(|lun| !lun.lun_maps.is_empty());
        let igroups = if is_mapped {
            let pairs = [("fields", "uuid,name,comment,initiators")];
            let target = self.target("protocols/san/igroups", &pairs);
            self.records("list igroups", until, &target).await?
        } else {
            Vec::new()
        };
        let volumes = luns.iter().filter_map(|lun| {
            let notes = self.notes_of(lun, Kind::Volume)?;
            Some(volume(lun, notes, &igroups))
        });
        volumes.collect()
    }

    pub(super) async fn snapshots(
        &self,
        after: &str,
        most: u32,
        of: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let (luns, _) = self.luns(Kind::Snapshot, after, u32::MAX, until).await?;
        let all = luns.iter().filter_map(|lun| snapshot(lun).transpose());
        let mut snapshots: Vec<SanSnapshot> = all.collect::<Result<_, _>>()?;
        snapshots.retain(|it| of.is_none_or(|of| it.volume == of));
        Ok(page(snapshots, after, most))
    }
}

/// At most `most` of them, in the order of their keys, after `after`.
pub(super) fn page(mut snapshots: Vec<SanSnapshot>, after: &str, most: u32) -> SnapshotPage {
    snapshots.retain(|it| it.key.as_str() > after);
    snapshots.sort_by(|one, other| one.key.cmp(&other.key));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let more = snapshots.len() > most;
    snapshots.truncate(most);
    SnapshotPage { snapshots, more }
}

pub(super) fn volume(lun: &Lun, notes: Notes, igroups: &[Igroup]) -> Result<SanVolume, SanError> {
    let mut exported_to = Vec::new();
    for map in &lun.lun_maps {
        let known = igroups.iter().find(|igroup| igroup.uuid == map.igroup.uuid);
        // Made between the two questions, or of another protocol: the caller looks again.
        let known =
            known.ok_or_else(|| odd("find a LUN", "lun_maps")("an igroup is not listed"))?;
        exported_to.extend(nodes_of(known)?);
    }
    Ok(SanVolume {
        wwid: lun.wwid()?,
        key: lun.uuid.clone(),
        size: lun.space.size,
        source: notes.source(),
        name: notes.name,
        metadata: notes.metadata,
        exported_to,
    })
}

/// Who is in an igroup. One that somebody else made counts as well: its hosts reach the volume.
pub(super) fn nodes_of(igroup: &Igroup) -> Result<Vec<Exported>, SanError> {
    let ours = names::is_igroup(&igroup.name);
    let node_name = match (&igroup.comment, ours) {
        (Some(comment), Some(_)) if !comment.is_empty() => comment,
        _ => &igroup.name,
    };
    let each = igroup.initiators.iter().map(|initiator| {
        Ok(Exported {
            node_name: node_name.clone(),
            initiator: initiator
                .name
                .parse()
                .map_err(odd("an igroup", "initiators"))?,
            read_only: ours.unwrap_or(false),
        })
    });
    each.collect()
}

pub(super) fn snapshot(lun: &Lun) -> Result<Option<SanSnapshot>, SanError> {
    let Some(notes) = lun.notes(Kind::Snapshot) else {
        return Ok(None);
    };
    let Some(volume) = notes.cut() else {
        return Ok(None);
    };
    Ok(Some(SanSnapshot {
        created_at: lun.created_at()?,
        key: lun.uuid.clone(),
        size: lun.space.size,
        name: notes.name,
        metadata: notes.metadata,
        volume,
    }))
}
