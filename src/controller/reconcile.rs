//! What a sidecar stopped asking for is brought to its end, and what nobody needs any more is taken away: driven by what the SANs' notes say, round by round.

use std::collections::BTreeSet;

use super::list::{ASKED, walk_volumes};
use super::place::Place;
use super::snapshot::Cut;
use super::{Controller, ControllerError, metadata};
use crate::archiver::{State, Told};
use crate::fault::{Faulted, chain};
use crate::san::{SanSnapshot, SanVolume, Until};
use crate::volume::SanName;

impl Controller {
    /// One round. What fails is told and tried again in the next.
    pub async fn reconcile(&self) {
        if self.archivers.all().is_empty() {
            return;
        }
        // Before the SANs are looked at: a work is begun on a volume that is there, so one whose volume is not there afterwards has outlived it.
        let works = self.works().await;
        for partition in self.fleet.names() {
            let Some(san) = self.fleet.find(&partition) else {
                continue;
            };
            let place = (partition, san);
            if let Err(error) = self.reconcile_at(&place, &works).await {
                let error = chain(&error);
                tracing::warn!(partition = %place.0, error, "archives were not looked after");
            }
        }
    }

    async fn works(&self) -> Vec<(std::sync::Arc<crate::archiver::Link>, Told)> {
        let mut works = Vec::new();
        for link in self.archivers.all() {
            match link.list_work(self.until()).await {
                Ok(all) => works.extend(all.into_iter().map(|told| (link.clone(), told))),
                Err(error) => tracing::debug!(error = chain(&error), "not asked for its work"),
            }
        }
        works
    }

    async fn reconcile_at(
        &self,
        place: &Place,
        works: &[(std::sync::Arc<crate::archiver::Link>, Told)],
    ) -> Result<(), ControllerError> {
        let (volumes, snapshots) = self.helpers_and_cuts(place).await?;
        let mut carried = BTreeSet::new();
        let find = |found: SanSnapshot| Cut::find(place.clone(), found);
        for cut in snapshots.into_iter().filter_map(find) {
            let carrier = metadata::carrier_name(&cut.found.name);
            let is_shown = volumes.iter().any(|it| it.name == carrier);
            carried.insert(carrier);
            self.settle(&cut, is_shown).await;
        }
        for volume in &volumes {
            let is_filler = metadata::filled_with(&volume.metadata).is_some();
            let outcome = if is_filler {
                self.fill_alone(volume, place).await
            } else if carried.contains(&volume.name) {
                Ok(())
            } else {
                self.clear_helper(&volume.name, place, self.until()).await
            };
            tell(&volume.name, outcome);
        }
        self.forget_strays(&place.0, &volumes, works).await;
        Ok(())
    }

    /// Unless a call is at it. One that was seen in its archive is looked at again only if a volume shows it still, or again: another controller may have found it
    /// missing just before.
    async fn settle(&self, cut: &Cut, is_shown: bool) {
        let key = cut.archived.to_string();
        if self.memory().standing.contains(&key) && cut.is_retained && !is_shown {
            return;
        }
        let Ok(_alone) = self.carrying.try_begin(&key) else {
            return;
        };
        let outcome = self.carry(cut, self.until()).await;
        if let Ok(true) = &outcome {
            self.memory().standing.insert(key);
        }
        tell(&cut.found.name, outcome.map(drop));
    }

    async fn helpers_and_cuts(
        &self,
        (partition, san): &Place,
    ) -> Result<(Vec<SanVolume>, Vec<SanSnapshot>), ControllerError> {
        let of_san = || ControllerError::san(partition);
        let asked = u32::try_from(ASKED).unwrap_or(u32::MAX);
        let (mut snapshots, mut after) = (Vec::new(), String::new());
        loop {
            let page = san.list_snapshots(&after, asked, None, self.until()).await;
            let page = page.map_err(of_san())?;
            if let Some(last) = page.snapshots.last() {
                after.clone_from(&last.key);
            }
            snapshots.extend(page.snapshots);
            if !page.more {
                break;
            }
        }
        let mut volumes = Vec::new();
        let keep = |volume: SanVolume| -> Option<()> {
            if metadata::is_helper_in(&volume.metadata, partition) {
                volumes.push(volume);
            }
            None
        };
        let walked = walk_volumes(san, || self.until(), keep).await;
        walked.map_err(of_san())?;
        Ok((volumes, snapshots))
    }

    /// Works whose volume is gone, or is at another archiver by now.
    async fn forget_strays(
        &self,
        partition: &SanName,
        volumes: &[SanVolume],
        works: &[(std::sync::Arc<crate::archiver::Link>, Told)],
    ) {
        let until: Until = self.until();
        for (link, told) in works {
            if told.partition != partition.as_str() {
                continue;
            }
            let volume = volumes.iter().find(|it| it.wwid.as_str() == told.wwid);
            let is_needed = match volume {
                Some(volume) if told.state == State::Running => !volume.exported_to.is_empty(),
                Some(_) => true,
                None => false,
            };
            if is_needed {
                continue;
            }
            match link.forget_work(&told.wwid, until).await {
                Ok(()) => {
                    tracing::info!(
                        wwid = told.wwid,
                        archiver = link.name(),
                        "a work that nobody needs is forgotten"
                    );
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::info!(
                        wwid = told.wwid,
                        error,
                        "a work that nobody needs is not forgotten yet"
                    );
                }
            }
        }
    }
}

/// What is under way is no news.
fn tell(what: &str, outcome: Result<(), ControllerError>) {
    let Err(error) = outcome else {
        return;
    };
    let (fault, error) = (error.fault(), chain(&error));
    match fault {
        crate::fault::Fault::Busy => tracing::debug!(what, error, "not done yet"),
        _ => tracing::warn!(what, error, "not done yet"),
    }
}
