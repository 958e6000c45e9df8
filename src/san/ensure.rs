//! The loops that make a SAN's native calls repeatable: look, compare, act, and look again when the outcome is not known. Nothing that may
//! have been done is sent a second time before that look.

use std::sync::Arc;

use super::Until;
use super::abandoned::Watch;
use super::error::SanError;
use super::family::Family;
use super::nouns::{Capacity, Checked, CheckedPage, NewVolume, Page, SanVolume};
use super::sanhost::SanhostState;
use super::sanhost::probe::Prober;
use crate::fabric::{Portal, Wwid};
use crate::fault::{Fault, Faulted};

/// How often something is looked at and tried: the first time, and after a lost reply or a race with another controller.
pub(super) const ROUNDS: usize = 3;

/// One SAN of any family.
pub struct San {
    kind: crate::volume::Family,
    pub(super) family: Arc<dyn Family>,
    /// What was seen of copies that nobody goes on with.
    pub(super) watch: Watch,
    _prober: Prober,
}

impl San {
    /// Its addresses are asked in the background from now on, until it is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(kind: crate::volume::Family, family: impl Family + 'static) -> Self {
        let family: Arc<dyn Family> = Arc::new(family);
        Self {
            kind,
            watch: Watch::default(),
            _prober: Prober::start(&family),
            family,
        }
    }

    /// How its management addresses stand.
    #[must_use]
    pub fn sanhost(&self) -> SanhostState {
        self.family.sanhost().state()
    }

    /// Takes over a changed list of management addresses; what is known of those that stay is kept.
    pub(super) fn relist(&self, addresses: &[String]) {
        self.family.sanhost().relist(addresses);
    }

    /// Which kind of SAN it is.
    #[must_use]
    pub fn kind(&self) -> crate::volume::Family {
        self.kind
    }

    /// Makes the volume unless it is there. A lost reply is never answered by a second creation before the SAN was asked by name.
    ///
    /// # Errors
    /// [`SanError::Taken`] when the name belongs to a different volume; else as the SAN or the way to it failed.
    pub async fn ensure_volume(
        &self,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let mut round = 1;
        loop {
            if let Some(found) = self.family.find_by_name(&wanted.name, until).await? {
                return adopt(wanted, found);
            }
            match self.family.create_volume(wanted, until).await {
                Err(error) if round < ROUNDS && is_worth_a_look(&error) => {
                    tracing::warn!(name = wanted.name, %error, "looking whether it was made");
                    round += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The volume with this name on the SAN.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn find_named(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanVolume>, SanError> {
        self.family.find_by_name(name, until).await
    }

    /// The volume with this key and WWID. Another WWID is another volume: the key was not ours.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn find_volume(
        &self,
        key: &str,
        wwid: &Wwid,
        until: Until,
    ) -> Result<Option<SanVolume>, SanError> {
        let found = self.family.find_by_key(key, until).await?;
        Ok(found.filter(|volume| volume.wwid == *wwid))
    }

    /// At most `most` volumes after the one with the key `after`, in the order of keys. Empty: from the first.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn list_volumes(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<Page, SanError> {
        self.family.list_volumes(after, most, until).await
    }

    /// The volume with this key and WWID, with what is wrong with it by the SAN's word.
    ///
    /// # Errors
    /// As the SAN or the way to it failed; a volume in a bad way is no error.
    pub async fn check_volume(
        &self,
        key: &str,
        wwid: &Wwid,
        until: Until,
    ) -> Result<Option<Checked>, SanError> {
        let found = self.family.check(key, until).await?;
        Ok(found.filter(|checked| checked.volume.wwid == *wwid))
    }

    /// As [`San::list_volumes`], with what is wrong with each.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn check_volumes(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        self.family.check_many(after, most, until).await
    }

    /// Makes the volume at least `size` bytes large. The SAN is asked also when it shows that size already: the last call may have ended before
    /// every disk had it. `volume` is as just found.
    ///
    /// # Errors
    /// [`SanError::NotGrown`] when it says yes and is smaller; else as the SAN or the way to it failed.
    pub async fn ensure_expanded(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let mut known = volume.clone();
        let mut round = 1;
        let grown = loop {
            match self.family.expand(&known, size, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => {
                    known = self.look_again(volume, lost, until).await?;
                    round += 1;
                }
                outcome => break outcome?,
            }
        };
        if grown.wwid != volume.wwid {
            return Err(SanError::WrongVolume {
                wanted: volume.wwid.clone(),
                got: grown.wwid,
            });
        }
        if grown.size < size {
            let found = grown.size;
            return Err(SanError::NotGrown { size, found });
        }
        Ok(grown)
    }

    /// Removes the volume with this key and WWID; absent is fine.
    ///
    /// # Errors
    /// [`SanError::InUse`] while a node can reach it; else as the SAN or the way to it failed.
    pub async fn remove_volume(
        &self,
        key: &str,
        wwid: &Wwid,
        until: Until,
    ) -> Result<(), SanError> {
        let mut round = 1;
        loop {
            let Some(volume) = self.find_volume(key, wwid, until).await? else {
                return Ok(());
            };
            if !volume.exported_to.is_empty() {
                let nodes = volume.exported_to.into_iter().map(|to| to.node_name);
                return Err(SanError::InUse {
                    nodes: nodes.collect(),
                });
            }
            match self.family.delete_volume(&volume, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => round += 1,
                outcome => return absent_is_fine(outcome),
            }
        }
    }

    /// The room that is left.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn capacity(&self, until: Until) -> Result<Capacity, SanError> {
        self.family.capacity(until).await
    }

    /// The volume as it is after a reply was lost; that `lost` when it is not there any more.
    pub(super) async fn look_again(
        &self,
        volume: &SanVolume,
        lost: SanError,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let found = self.find_volume(&volume.key, &volume.wwid, until).await?;
        found.ok_or(lost)
    }

    /// Every data portal of the SAN.
    ///
    /// # Errors
    /// As the SAN or the way to it failed.
    pub async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        self.family.portals(until).await
    }
}

impl std::fmt::Debug for San {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("San")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

fn adopt(wanted: &NewVolume, found: SanVolume) -> Result<SanVolume, SanError> {
    match wanted.difference(&found) {
        None => Ok(found),
        Some(difference) => Err(SanError::Taken {
            name: found.name,
            difference,
        }),
    }
}

/// The reply was lost, or somebody else was first.
pub(super) fn is_worth_a_look(error: &SanError) -> bool {
    is_lost(error) || error.fault() == Fault::Conflict
}

pub(super) fn is_lost(error: &SanError) -> bool {
    matches!(error, SanError::NoAnswer { .. })
}

pub(super) fn absent_is_fine(outcome: Result<(), SanError>) -> Result<(), SanError> {
    match outcome {
        Err(error) if error.fault() == Fault::NotFound => Ok(()),
        outcome => outcome,
    }
}
