//! ListSnapshots: every snapshot of every partition, page by page, in the order and with the tokens of ListVolumes. A SAN that does not answer fails the
//! listing.

use super::list::{ASKED, Place, bounded, refused};
use super::{Controller, ControllerError, Snapshot};
use crate::san::{San, Until};
use crate::volume::{SanName, SnapshotId, VolumeId};

/// Which snapshots are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// This one.
    pub id: Option<SnapshotId>,
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

impl SnapshotFilter {
    fn takes(&self, snapshot: &Snapshot) -> bool {
        let is_source = |source: &VolumeId| *source == snapshot.source;
        let is_id = |id: &SnapshotId| *id == snapshot.id;
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
        let mut places = self.places_from(token)?;
        if let Some(id) = &filter.id {
            let san = self.san_of_snapshot(id)?;
            let found = self.find_snapshot(&san, id, until).await?;
            return Ok(SnapshotListing {
                snapshots: found.into_iter().filter(|it| filter.takes(it)).collect(),
                next: None,
            });
        }
        if let Some(source) = &filter.source {
            if source.is_by_hand() {
                return Ok(SnapshotListing::default());
            }
            self.san_of(source)?;
            places.retain(|place| place.san == source.san);
        }
        self.walk_snapshots(places, filter, bounded(most), until)
            .await
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
