//! A snapshot into an archive: the SAN's cut comes first, a volume of it is shown to an archiver, read only, and the snapshot is ready when its manifest stands.
//!
//! Nothing is remembered here. That a cut is to be archived is noted with it; the volume that shows it (its carrier) is found by its name; which archiver has it, the
//! SAN's exports say. So each call, and each round of [`super::reconcile`], goes on where the one before ended, whoever made it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::parameters::ArchiveChoice;
use super::place::Place;
use super::snapshot::Cut;
use super::{Controller, ControllerError, metadata};
use crate::archiver::{Archived, Link, Order, State, Told};
use crate::fabric::Export;
use crate::fault::{Fault, chain};
use crate::san::{Access, NewVolume, Others, SanError, SanVolume, Source, Until};
use crate::volume::{ArchivedId, SanName, SizeRange};

/// An archiver that nobody could ask for so long is lost: what it has is taken from it and given to another.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(60);
/// Runs are told no finer than this: archives have chunks of it.
const GRAIN: u64 = 1 << 20;
/// So many extents are asked for at once.
const EXTENTS: u32 = 4096;

/// A volume at an archiver.
pub(super) struct Seat {
    pub(super) link: Arc<Link>,
    pub(super) export: Export,
}

/// Where a helper is.
pub(super) enum Seated {
    At(Seat),
    /// It was taken back from an archiver that is lost.
    TakenBack,
}

impl Controller {
    /// What is chosen for a snapshot, and the id that it has there.
    pub(super) fn archived_id(
        &self,
        choice: &ArchiveChoice,
        (partition, san): (&SanName, &crate::san::San),
        name: &str,
    ) -> Result<ArchivedId, ControllerError> {
        let known = self.archivers.archives();
        if !known.contains(&choice.archive) {
            return Err(ControllerError::UnknownArchive {
                name: choice.archive.clone(),
                known: known.into_iter().collect(),
            });
        }
        let id = ArchivedId::new(&choice.archive, san.kind(), partition, name);
        id.ok_or_else(|| ControllerError::NotArchivable(name.to_owned()))
    }

    /// What the archive holds under this id.
    pub(super) async fn find_archived(
        &self,
        id: &ArchivedId,
        until: Until,
    ) -> Result<Option<Archived>, ControllerError> {
        let link = self.any_archiver(&id.archive, until).await?;
        let found = link.find_archived((&id.archive, &id.name), until).await;
        found.map_err(ControllerError::Archiver)
    }

    /// Any that reaches the archive.
    pub(super) async fn any_archiver(
        &self,
        archive: &str,
        until: Until,
    ) -> Result<Arc<Link>, ControllerError> {
        let (able, lost) = self.archivers.able(None, archive, until).await;
        let first = able.into_iter().next().map(|(link, _)| link);
        first.ok_or_else(|| no_archiver(None, archive, &lost))
    }

    /// One step towards the archive; whether the snapshot is there. What stands there is shown by no SAN any more, and is on its own SAN only if that is wanted.
    pub(super) async fn carry(&self, cut: &Cut, until: Until) -> Result<bool, ControllerError> {
        let (id, (partition, san)) = (&cut.archived, &cut.place);
        if self.stands(cut, until).await? {
            self.clear_carrier(cut, until).await?;
            if !cut.is_retained {
                let removed = san.remove_snapshot(&cut.found.key, until).await;
                removed.map_err(ControllerError::san(partition))?;
                tracing::info!(%id, "the SAN's own cut is gone; the archive has the snapshot");
            }
            return Ok(true);
        }
        let carrier = self.ensure_carrier(cut, until).await?;
        let access = Access {
            read_only: true,
            others: Others::Nobody,
        };
        let seated = self.seat(&carrier, &cut.place, (&id.archive, access), until);
        let Seated::At(seat) = seated.await? else {
            return Ok(false);
        };
        let told = self.order(cut, &carrier, &seat, until).await?;
        match (told.state, told.trouble) {
            (State::Running, Some((_, reason))) => Err(ControllerError::Waits {
                id: id.clone(),
                reason,
            }),
            (State::Running, None) => Ok(false),
            (State::Done, _) => {
                // Looked at again at the next step, for the archive itself must say so.
                self.clear_carrier(cut, until).await?;
                self.stands(cut, until).await
            }
            (State::Failed, trouble) => {
                self.clear_carrier(cut, until).await?;
                let reason = trouble.map(|(_, reason)| reason).unwrap_or_default();
                Err(ControllerError::Waits {
                    id: id.clone(),
                    reason,
                })
            }
        }
    }

    /// Whether the archive has it; a stranger's of the same name is told.
    async fn stands(&self, cut: &Cut, until: Until) -> Result<bool, ControllerError> {
        let Some(archived) = self.find_archived(&cut.archived, until).await? else {
            return Ok(false);
        };
        let source = metadata::source(&cut.found.metadata).map(|id| id.to_string());
        if archived.volume != source || archived.size != cut.found.size {
            return Err(ControllerError::OtherArchived(cut.archived.clone()));
        }
        Ok(true)
    }

    /// The volume that shows the cut.
    async fn ensure_carrier(&self, cut: &Cut, until: Until) -> Result<SanVolume, ControllerError> {
        let (partition, san) = &cut.place;
        let size = cut.found.size;
        let new = NewVolume {
            name: metadata::carrier_name(&cut.found.name),
            size,
            range: exactly(size),
            metadata: metadata::carrier_notes(partition, &cut.archived),
            decisive: metadata::HELPER_DECISIVE,
            source: Some(Source::Snapshot(cut.found.key.clone())),
        };
        let made = san.ensure_volume(&new, until).await;
        made.map_err(ControllerError::helper(partition))
    }

    /// Begins the work, or asks how far it is.
    async fn order(
        &self,
        cut: &Cut,
        carrier: &SanVolume,
        seat: &Seat,
        until: Until,
    ) -> Result<Told, ControllerError> {
        let known = seat.link.find_work(carrier.wwid.as_str(), until).await;
        if let Some(known) = known.map_err(ControllerError::Archiver)? {
            return Ok(known);
        }
        let (runs, base) = self.runs(cut, until).await;
        let since = cut.found.created_at.duration_since(SystemTime::UNIX_EPOCH);
        let order = Order {
            partition: cut.place.0.clone(),
            export: seat.export.clone(),
            archive: cut.archived.archive.clone(),
            snapshot: Archived {
                snapshot: cut.archived.name.clone(),
                volume: metadata::source(&cut.found.metadata).map(|id| id.to_string()),
                cut_at: since.unwrap_or_default().as_secs(),
                size: cut.found.size,
                notes: cut.found.metadata.clone(),
            },
            runs,
            base,
        };
        let begun = seat.link.start_archive(order, until).await;
        let begun = begun.map_err(ControllerError::Archiver)?;
        tracing::info!(id = %cut.archived, archiver = seat.link.name(), "the snapshot is on its way to the archive");
        Ok(begun)
    }

    /// What is to be read, as the SAN tells: what changed since the newest snapshot of the same volume that it has and the archive too, or what is allocated. A SAN that
    /// cannot tell has all read.
    async fn runs(&self, cut: &Cut, until: Until) -> (Option<Vec<(u64, u64)>>, Option<String>) {
        if let Some((key, base)) = self.base_of(cut, until).await
            && let Ok(runs) = self.extents(cut, Some(&key), until).await
        {
            return (Some(runs), Some(base));
        }
        match self.extents(cut, None, until).await {
            Ok(runs) => (Some(runs), None),
            Err(error) => {
                let error = chain(&error);
                tracing::info!(id = %cut.archived, error, "the SAN does not tell what is allocated; all is read");
                (None, None)
            }
        }
    }

    async fn base_of(&self, cut: &Cut, until: Until) -> Option<(String, String)> {
        let (partition, san) = &cut.place;
        let volume = Some(cut.found.volume.as_str());
        let page = san.list_snapshots("", EXTENTS, volume, until).await.ok()?;
        let mut earlier = page.snapshots;
        earlier.retain(|it| it.key != cut.found.key && it.created_at <= cut.found.created_at);
        earlier.sort_by_key(|it| std::cmp::Reverse(it.created_at));
        for found in earlier {
            let place = (partition.clone(), Arc::clone(san));
            let Some(base) = Cut::find(place, found) else {
                continue;
            };
            let same = base.archived.archive == cut.archived.archive;
            if same && self.stands(&base, until).await.ok()? {
                return Some((base.found.key, base.archived.name));
            }
        }
        None
    }

    async fn extents(
        &self,
        cut: &Cut,
        base: Option<&str>,
        until: Until,
    ) -> Result<Vec<(u64, u64)>, SanError> {
        let (mut runs, mut from) = (Vec::new(), 0);
        loop {
            let asked = (cut.found.key.as_str(), base);
            let page = cut
                .place
                .1
                .list_extents(asked, from, EXTENTS, until)
                .await?;
            page.extents.iter().for_each(|it| add_run(&mut runs, *it));
            match page.next {
                Some(next) => from = next,
                None => return Ok(runs),
            }
        }
    }

    /// The volume at an archiver that can do it: the one that has it, as long as that is not lost, else the least busy.
    pub(super) async fn seat(
        &self,
        helper: &SanVolume,
        (partition, san): &Place,
        (archive, access): (&str, Access),
        until: Until,
    ) -> Result<Seated, ControllerError> {
        let of_san = || ControllerError::helper(partition);
        let (able, lost) = self.archivers.able(Some(partition), archive, until).await;
        let holder = helper.exported_to.first();
        let has_it = |told: &crate::archiver::Introduced| {
            holder.is_none_or(|holder| {
                holder.node_name == told.node.name && holder.initiator == told.node.initiator
            })
        };
        if let Some((link, told)) = able.iter().find(|(_, told)| has_it(told)) {
            self.found_again(&helper.wwid);
            let export = san.ensure_export(helper, &told.node, access, until).await;
            return Ok(Seated::At(Seat {
                link: Arc::clone(link),
                export: export.map_err(of_san())?,
            }));
        }
        let (Some(holder), false) = (holder, able.is_empty()) else {
            return Err(no_archiver(Some(partition), archive, &lost));
        };
        if !self.is_lost(&helper.wwid) {
            return Err(ControllerError::Silent(holder.node_name.clone()));
        }
        let taken = san.remove_export(&helper.key, &helper.wwid, None, until);
        taken.await.map_err(of_san())?;
        tracing::warn!(
            volume = helper.name,
            archiver = holder.node_name,
            "taken back from an archiver that does not answer"
        );
        self.found_again(&helper.wwid);
        Ok(Seated::TakenBack)
    }

    /// The volume that shows the cut goes, wherever it is.
    pub(super) async fn clear_carrier(
        &self,
        cut: &Cut,
        until: Until,
    ) -> Result<(), ControllerError> {
        let name = metadata::carrier_name(&cut.found.name);
        self.clear_helper(&name, &cut.place, until).await
    }

    /// A helper goes: given up by its archiver, taken back, removed. Absent is fine.
    ///
    /// It is given up twice: another controller may have had it taken up again before it was taken back. From then on there is nothing to read, and who exports it
    /// once more meanwhile stands against its removal.
    pub(super) async fn clear_helper(
        &self,
        name: &str,
        (partition, san): &Place,
        until: Until,
    ) -> Result<(), ControllerError> {
        let of_san = || ControllerError::helper(partition);
        let found = san.find_named(name, until).await.map_err(of_san())?;
        let Some(helper) = found.filter(|it| metadata::is_helper(&it.metadata)) else {
            return Ok(());
        };
        self.release(&helper, until).await?;
        let taken = san.remove_export(&helper.key, &helper.wwid, None, until);
        taken.await.map_err(of_san())?;
        self.release(&helper, until).await?;
        let removed = san.remove_volume(&helper.key, &helper.wwid, until).await;
        removed.map_err(of_san())
    }

    /// Whoever works on it gives it up. One that has it and does not answer is waited for until it is lost.
    pub(super) async fn release(
        &self,
        helper: &SanVolume,
        until: Until,
    ) -> Result<(), ControllerError> {
        let (wwid, mut silent) = (helper.wwid.as_str(), None);
        for link in self.archivers.all() {
            match link.forget_work(wwid, until).await {
                Ok(()) => {}
                Err(error) if error.is_lost() => silent = Some(error),
                Err(error) => return Err(ControllerError::Archiver(error)),
            }
        }
        match silent {
            Some(error) if !helper.exported_to.is_empty() && !self.is_lost(&helper.wwid) => {
                Err(ControllerError::Archiver(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether nobody could be asked about this volume for long.
    pub(super) fn is_lost(&self, wwid: &crate::fabric::Wwid) -> bool {
        let now = Until::now();
        let mut memory = self.memory();
        let first = *memory.silent_since.entry(wwid.to_string()).or_insert(now);
        now.duration_since(first) >= self.lost_after
    }

    pub(super) fn found_again(&self, wwid: &crate::fabric::Wwid) {
        self.memory().silent_since.remove(wwid.as_str());
    }
}

pub(super) fn exactly(size: u64) -> SizeRange {
    // A size that is there is one that can be.
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    SizeRange::new(size, size).unwrap_or_default()
}

pub(super) fn no_archiver(
    partition: Option<&SanName>,
    archive: &str,
    lost: &[crate::archiver::ArchiverError],
) -> ControllerError {
    let reasons: Vec<String> = lost.iter().map(|error| chain(error)).collect();
    ControllerError::NoArchiver {
        partition: partition.cloned(),
        archive: archive.to_owned(),
        reasons: match reasons.is_empty() {
            true => "none of the config file's archivers says that it can".to_owned(),
            false => reasons.join("; "),
        },
    }
}

/// Adds a run, widened to whole grains, to runs that rise.
fn add_run(runs: &mut Vec<(u64, u64)>, (offset, length): (u64, u64)) {
    let begin = offset / GRAIN * GRAIN;
    let end = offset
        .saturating_add(length)
        .div_ceil(GRAIN)
        .saturating_mul(GRAIN);
    match runs.last_mut() {
        Some((last, known)) if begin <= *last + *known => {
            *known = (*known).max(end.saturating_sub(*last));
        }
        _ if begin < end => runs.push((begin, end - begin)),
        _ => {}
    }
}

/// What is not known of an archiver's failure is not done for certain.
pub(super) fn class_of(trouble: Option<&(Fault, String)>) -> Fault {
    trouble.map_or(Fault::MaybeDone, |(fault, _)| *fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_in_whole_grains_and_each_once() {
        let mut runs = Vec::new();
        for run in [
            (0, 1),
            (4096, 4096),
            (GRAIN, 1),
            (3 * GRAIN + 1, GRAIN),
            (9 * GRAIN, 0),
        ] {
            add_run(&mut runs, run);
        }
        assert_eq!(runs, [(0, 2 * GRAIN), (3 * GRAIN, 2 * GRAIN)]);
        assert_eq!(class_of(None), Fault::MaybeDone);
    }
}
