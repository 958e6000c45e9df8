//! ListSnapshots: every snapshot of every partition, page by page, in the order and with the tokens of ListVolumes; then what the archives hold of others. A SAN or an
//! archive that does not answer fails the listing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::list::{ASKED, Place, bounded, refused};
use super::{Controller, ControllerError, Snapshot};
use crate::san::{San, Until};
use crate::volume::{AnySnapshotId, ArchivedId, SanName, VolumeId};

/// Which snapshots are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// This one.
    pub id: Option<AnySnapshotId>,
    /// Those of this volume, which may be gone.
    pub source: Option<VolumeId>,
}

/// A part of the snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotListing {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Where to go on, unless these were the last.
    pub next: Option<String>,
}

/// The ids of the archived snapshots that SANs still have, by partition.
type CutsBySan = BTreeMap<SanName, BTreeSet<String>>;

/// After which snapshot of which archive to go on. They come after those of the SANs.
struct Shelf {
    archive: String,
    after: String,
}

impl fmt::Display for Shelf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "@{}:{}", self.archive, self.after)
    }
}

impl Shelf {
    /// `None` for a token that is of no archive; an error for one of an archive that there is not.
    fn find(token: &str, known: &BTreeSet<String>) -> Option<Result<Self, ControllerError>> {
        let (archive, after) = token.strip_prefix('@')?.split_once(':')?;
        if !known.contains(archive) {
            return Some(Err(ControllerError::token(token)));
        }
        Some(Ok(Self {
            archive: archive.to_owned(),
            after: after.to_owned(),
        }))
    }
}

impl SnapshotFilter {
    fn takes(&self, snapshot: &Snapshot) -> bool {
        let is_source = |source: &VolumeId| Some(source) == snapshot.source.as_ref();
        let is_id = |id: &AnySnapshotId| *id == snapshot.id;
        self.source.as_ref().is_none_or(is_source) && self.id.as_ref().is_none_or(is_id)
    }
}

impl Controller {
    /// At most `most` snapshots (0: as many as fit) that `filter` takes, from where `token` says (empty: from the first).
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        token: &str,
        most: usize,
    ) -> Result<SnapshotListing, ControllerError> {
        let until = self.until();
        if let Some(id) = &filter.id {
            let found = self.find_any(id, until).await?;
            return Ok(SnapshotListing {
                snapshots: found.into_iter().filter(|it| filter.takes(it)).collect(),
                next: None,
            });
        }
        let most = bounded(most);
        if let Some(shelf) = Shelf::find(token, &self.archivers.archives()) {
            return self.walk_archives(shelf?, filter, most, until).await;
        }
        let mut places = self.places_from(token)?;
        if let Some(source) = &filter.source {
            if source.is_by_hand() {
                return Ok(SnapshotListing::default());
            }
            // Of a volume of another cluster an archive may have some.
            places.retain(|place| place.san == source.san);
        }
        let mut listing = self.walk_snapshots(places, filter, most, until).await?;
        self.settle_ready(&mut listing.snapshots, until).await?;
        let Some(first) = self.archivers.archives().into_iter().next() else {
            return Ok(listing);
        };
        if listing.next.is_some() || self.archivers.all().is_empty() {
            return Ok(listing);
        }
        let first = Shelf {
            archive: first,
            after: String::new(),
        };
        if listing.snapshots.len() == most {
            listing.next = Some(first.to_string());
            return Ok(listing);
        }
        let left = most - listing.snapshots.len();
        let archived = self.walk_archives(first, filter, left, until).await?;
        listing.snapshots.extend(archived.snapshots);
        listing.next = archived.next;
        Ok(listing)
    }

    /// What is on its way to an archive is ready when that has it.
    async fn settle_ready(
        &self,
        snapshots: &mut [Snapshot],
        until: Until,
    ) -> Result<(), ControllerError> {
        for snapshot in snapshots.iter_mut().filter(|it| !it.is_ready) {
            let AnySnapshotId::Archived(id) = &snapshot.id else {
                continue;
            };
            let key = id.to_string();
            let is_known = self.memory().standing.contains(&key);
            snapshot.is_ready = is_known || self.find_archived(id, until).await?.is_some();
            if snapshot.is_ready {
                self.memory().standing.insert(key);
            }
        }
        Ok(())
    }

    /// What the archives hold beside what the SANs have told already.
    async fn walk_archives(
        &self,
        mut shelf: Shelf,
        filter: &SnapshotFilter,
        most: usize,
        until: Until,
    ) -> Result<SnapshotListing, ControllerError> {
        let mut snapshots = Vec::new();
        let mut told = CutsBySan::new();
        loop {
            let wanted = most - snapshots.len();
            if wanted == 0 {
                let next = Some(shelf.to_string());
                return Ok(SnapshotListing { snapshots, next });
            }
            let link = self.any_archiver(&shelf.archive, until).await?;
            let asked = u32::try_from(wanted.min(ASKED)).unwrap_or(u32::MAX);
            let page = link.list_archived((&shelf.archive, &shelf.after), asked, until);
            let (page, more) = page.await.map_err(ControllerError::Archiver)?;
            for archived in page {
                shelf.after.clone_from(&archived.snapshot);
                let snapshot = Snapshot::of_archive(&shelf.archive, &archived);
                let AnySnapshotId::Archived(id) = &snapshot.id else {
                    continue;
                };
                // CSI wants each to have a source.
                let is_listed = snapshot.source.is_some() && filter.takes(&snapshot);
                if is_listed && !self.has_told(id, &mut told, until).await? {
                    snapshots.push(snapshot);
                }
            }
            if more {
                continue;
            }
            let archives = self.archivers.archives().into_iter();
            let mut later = archives.filter(|name| *name > shelf.archive);
            let Some(archive) = later.next() else {
                return Ok(SnapshotListing {
                    snapshots,
                    next: None,
                });
            };
            shelf = Shelf {
                archive,
                after: String::new(),
            };
        }
    }

    /// Whether the SAN of the partition that it was cut in still has the cut, and so tells it; each SAN is asked for all of its cuts once.
    async fn has_told(
        &self,
        id: &ArchivedId,
        told: &mut CutsBySan,
        until: Until,
    ) -> Result<bool, ControllerError> {
        let Some(((partition, _), _)) = self.place_of_cut(id) else {
            return Ok(false);
        };
        let key = id.to_string();
        if let Some(cuts) = told.get(&partition) {
            return Ok(cuts.contains(&key));
        }
        let all = self.all_snapshots(&partition, until).await?.into_iter();
        let archived = all.filter(|it| matches!(it.id, AnySnapshotId::Archived(_)));
        let cuts: BTreeSet<_> = archived.map(|it| it.id.to_string()).collect();
        let has_told = cuts.contains(&key);
        told.insert(partition, cuts);
        Ok(has_told)
    }

    /// Every snapshot of one partition.
    pub(super) async fn all_snapshots(
        &self,
        partition: &SanName,
        until: Until,
    ) -> Result<Vec<Snapshot>, ControllerError> {
        let first = Place {
            san: partition.clone(),
            after: String::new(),
        };
        let all = SnapshotFilter::default();
        let listing = self.walk_snapshots(vec![first], &all, usize::MAX, until);
        Ok(listing.await?.snapshots)
    }

    async fn walk_snapshots(
        &self,
        places: Vec<Place>,
        filter: &SnapshotFilter,
        most: usize,
        until: Until,
    ) -> Result<SnapshotListing, ControllerError> {
        let mut snapshots = Vec::new();
        for mut place in places {
            // A partition that was taken out of the config file meanwhile has nothing to list.
            let Some(san) = self.fleet.find(&place.san) else {
                continue;
            };
            loop {
                let wanted = most - snapshots.len();
                if wanted == 0 {
                    let next = Some(place.to_string());
                    return Ok(SnapshotListing { snapshots, next });
                }
                let more = turn(&san, &mut place, filter, wanted, until).await?;
                snapshots.extend(more.snapshots);
                if more.next.is_none() {
                    break;
                }
            }
        }
        Ok(SnapshotListing {
            snapshots,
            next: None,
        })
    }
}

/// One page of one SAN, `wanted` at most; `place` is behind its last one afterwards.
async fn turn(
    san: &San,
    place: &mut Place,
    filter: &SnapshotFilter,
    wanted: usize,
    until: Until,
) -> Result<SnapshotListing, ControllerError> {
    // Never more than ASKED, so it fits.
    let asked = u32::try_from(wanted.min(ASKED)).unwrap_or(u32::MAX);
    let volume = filter.source.as_ref().map(|source| source.key.as_str());
    let page = san.list_snapshots(&place.after, asked, volume, until).await;
    let page = page.map_err(|error| refused(place, error))?;
    if let Some(last) = page.snapshots.last() {
        place.after.clone_from(&last.key);
    }
    let ours = page.snapshots.into_iter();
    let ours = ours.filter_map(|found| Snapshot::find(san, &place.san, found));
    Ok(SnapshotListing {
        snapshots: ours.filter(|it| filter.takes(it)).collect(),
        next: page.more.then(|| place.to_string()),
    })
}
