//! ListVolumes: every volume of every partition, page by page.
//!
//! Partitions come in the order of their names, volumes in the order of their keys, so a token is a place in that order. A SAN that does
//! not answer fails the listing: a short list would look like lost volumes.

use std::fmt;

use super::{Controller, ControllerError, Volume, metadata};
use crate::fault::{Fault, Faulted};
use crate::san::{San, SanError, SanVolume, Until};
use crate::volume::SanName;

/// The most entries of one answer: callers written in Go take 4 MiB, and an entry with its nodes has about 1 KiB.
const MOST: usize = 2000;
/// The most that a SAN is asked for at once.
pub(super) const ASKED: usize = 500;

/// The bound on an answer, `most` being the caller's (0: none).
pub(super) fn bounded(most: usize) -> usize {
    if most == 0 { MOST } else { most.min(MOST) }
}

/// A part of all volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Where to go on, unless these were the last.
    pub next: Option<String>,
}

/// After which volume to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) san: SanName,
    pub(super) after: String,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.san, self.after)
    }
}

impl Place {
    fn find(token: &str, known: &[SanName]) -> Option<Self> {
        let (san, after) = token.split_once(':')?;
        Some(Self {
            san: known.iter().find(|name| name.as_str() == san)?.clone(),
            after: after.to_owned(),
        })
    }
}

impl Controller {
    /// At most `most` volumes (0: as many as fit) from where `token` says (empty: from the first).
    ///
    /// # Errors
    /// See [`ControllerError`].
    pub async fn list(&self, token: &str, most: usize) -> Result<Listing, ControllerError> {
        self.walk(self.places_from(token)?, bounded(most)).await
    }

    /// Where to look, the first being where an earlier answer ended.
    pub(super) fn places_from(&self, token: &str) -> Result<Vec<Place>, ControllerError> {
        let names = self.fleet.names();
        let start = match token {
            "" => None,
            token => Some(Place::find(token, &names).ok_or_else(|| ControllerError::token(token))?),
        };
        let mut places = names
            .into_iter()
            .skip_while(|name| start.as_ref().is_some_and(|start| *name != start.san))
            .map(|san| Place {
                san,
                after: String::new(),
            })
            .collect::<Vec<_>>();
        if let (Some(first), Some(start)) = (places.first_mut(), start) {
            *first = start;
        }
        Ok(places)
    }

    async fn walk(&self, places: Vec<Place>, most: usize) -> Result<Listing, ControllerError> {
        let until = self.until();
        let mut volumes = Vec::new();
        for mut place in places {
            // A partition that was taken out of the config file meanwhile has nothing to list.
            let Some(san) = self.fleet.find(&place.san) else {
                continue;
            };
            loop {
                let wanted = most - volumes.len();
                if wanted == 0 {
                    let next = Some(place.to_string());
                    return Ok(Listing { volumes, next });
                }
                // Never more than ASKED, so it fits.
                let asked = u32::try_from(wanted.min(ASKED)).unwrap_or(u32::MAX);
                let page = san
                    .list_volumes(&place.after, asked, until)
                    .await
                    .map_err(|error| refused(&place, error))?;
                if let Some(last) = page.volumes.last() {
                    place.after.clone_from(&last.key);
                }
                volumes.extend(own(&san, &place.san, page.volumes));
                if !page.more {
                    break;
                }
            }
        }
        Ok(Listing {
            volumes,
            next: None,
        })
    }
}

/// Shows every volume of a SAN, page by page, until `see` has what it looks for. Each page has the deadline that `until` tells.
pub(super) async fn walk_volumes<T>(
    san: &San,
    until: impl Fn() -> Until,
    mut see: impl FnMut(SanVolume) -> Option<T>,
) -> Result<Option<T>, SanError> {
    // Fits by far.
    let asked = u32::try_from(ASKED).unwrap_or(u32::MAX);
    let mut after = String::new();
    loop {
        let page = san.list_volumes(&after, asked, until()).await?;
        let last = page.volumes.last().map(|volume| volume.key.clone());
        if let Some(found) = page.volumes.into_iter().find_map(&mut see) {
            return Ok(Some(found));
        }
        match last {
            Some(last) if page.more => after = last,
            _ => return Ok(None),
        }
    }
}

/// The only thing of a caller's that the SAN is sent here is the key in the token.
pub(super) fn refused(place: &Place, error: SanError) -> ControllerError {
    match error.fault() {
        Fault::Invalid => ControllerError::token(&place.to_string()),
        _ => ControllerError::san(&place.san)(error),
    }
}

fn own(san: &San, name: &SanName, volumes: Vec<SanVolume>) -> impl Iterator<Item = Volume> {
    volumes
        .into_iter()
        .filter(|volume| metadata::is_of(volume, name))
        .map(|volume| Volume::new(san, name, volume))
}
