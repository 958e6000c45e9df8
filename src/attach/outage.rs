//! A volume that may have lost every path: how its map stands, what is unwritten, who uses it, and giving it up on an operator's word.
//!
//! Giving up is the one place where data may be lost on purpose. Nothing here decides it: `node` asks the operator.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::error::DetachError;
use super::release::Care;
use super::verify::{MemberIdentity, PATIENCE, answer_of};
use super::{Engine, Outcome, Record};
use crate::deadline::Deadline;
use crate::fabric::Wwid;
use crate::fault::chain;
use crate::multipath::{self, Map, Opener, Reach, Reaches, Unwritten};
use crate::scsi::{self, Disk, DiskState};

/// How long multipathd may take at least to see that a path serves again, and at most, whatever multipath.conf says. It looks at a failed one each
/// `polling_interval`, usually 5 s, and takes its time where it looks at many at once.
const NEXT_LOOK: RangeInclusive<Duration> = Duration::from_secs(20)..=Duration::from_secs(90);

/// A map as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its dm name.
    pub map: String,
    /// `dm-3`.
    pub dm: String,
    /// Its paths.
    pub reach: Reach,
}

impl Engine {
    /// How the map of `wwid` stands; `None` without one.
    ///
    /// # Errors
    /// When sysfs cannot be read or multipathd does not answer.
    pub fn find_standing(&self, wwid: &Wwid) -> Result<Option<Standing>, DetachError> {
        let Some(map) = self.find_map(wwid)? else {
            return Ok(None);
        };
        let reach = multipath::reach(&self.host, &map).map_err(|source| DetachError::Paths {
            wwid: wwid.clone(),
            source,
        })?;
        Ok(Some(Standing {
            map: map.name,
            dm: map.dm,
            reach,
        }))
    }

    /// How the map of `wwid` stands for whoever acts upon its being dead; `None` without one. multipathd's word is that of its last look. So when no path
    /// serves by it and a member says itself that it is the volume, an outage may be over, and its next look is waited for: what it says
    /// then counts, for it has read from the disk.
    ///
    /// # Errors
    /// As [`Self::find_standing`].
    pub fn wait_for_standing(&self, wwid: &Wwid) -> Result<Option<Standing>, DetachError> {
        let is_dead = |it: &Option<Standing>| it.as_ref().is_some_and(|it| it.reach.is_dead());
        let mut standing = self.find_standing(wwid)?;
        if is_dead(&standing) && self.is_answered(wwid)? {
            tracing::info!(%wwid, "no path serves by multipathd's word, and a disk of the volume answers; its next look is waited for");
            self.host
                .wait_for(self.host.deadline_in(self.next_look()), || {
                    standing = self.find_standing(wwid)?;
                    Ok::<_, DetachError>((!is_dead(&standing)).then_some(()))
                })?;
        }
        Ok(standing)
    }

    /// Twice as long as multipathd lets pass between two looks, by its own word.
    fn next_look(&self) -> Duration {
        let settings = multipath::read_settings(&self.host).ok();
        let interval = settings.and_then(|it| it.polling_interval());
        let twice = interval.unwrap_or_default().saturating_mul(2);
        twice.clamp(*NEXT_LOOK.start(), *NEXT_LOOK.end())
    }

    /// How all maps of a kind that we use stand, by WWID; multipathd is asked once. Without its word a map is left out.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn standings(&self) -> Result<BTreeMap<Wwid, Standing>, DetachError> {
        let maps = multipath::list_maps(&self.host).map_err(DetachError::Read)?;
        if maps.is_empty() {
            return Ok(BTreeMap::new());
        }
        let reaches = match Reaches::read(&self.host) {
            Ok(reaches) => reaches,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the paths are not known");
                return Ok(BTreeMap::new());
            }
        };
        let standing = |map: Map| {
            let (wwid, reach) = (map.wwid()?, reaches.of(&map));
            let (map, dm) = (map.name, map.dm);
            Some((wwid, Standing { map, dm, reach }))
        };
        Ok(maps.into_iter().filter_map(standing).collect())
    }

    /// What the kernel still has to write to the map of `wwid`; nothing when there is none.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn unwritten(&self, wwid: &Wwid) -> Result<Unwritten, DetachError> {
        let map = self.find_map(wwid)?;
        Ok(map.map_or(Unwritten::Nothing, |map| {
            multipath::unwritten(&self.host, &map)
        }))
    }

    /// Lets I/O to the map of `wwid` fail that waits for a path.
    ///
    /// # Errors
    /// When multipathd does not do it.
    pub fn stop_queueing(&self, wwid: &Wwid, deadline: Deadline) -> Result<(), DetachError> {
        let Some(map) = self.find_map(wwid)? else {
            return Ok(());
        };
        multipath::disable_queueing(&self.host, &map, deadline).map_err(DetachError::Queueing)
    }

    /// The processes that have the map of `wwid` open, or files below `places`, or see it in a container; see [`multipath::processes_on`].
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn processes_on(
        &self,
        wwid: &Wwid,
        places: &[PathBuf],
    ) -> Result<Vec<Opener>, DetachError> {
        let map = self.find_map(wwid)?;
        Ok(map.map_or_else(Vec::new, |map| {
            multipath::processes_on(&self.host, &map, places)
        }))
    }

    /// Makes durable that `key` is to go: whoever comes late removes what he finds, and nothing is brought back.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub fn begin_leaving(&self, key: &str, deadline: Deadline) -> Result<(), DetachError> {
        let _volume = self.take_volume(key, deadline)?;
        let ledger = self.ledger();
        match ledger.find(key)? {
            Some(record) if !record.leaving => Ok(ledger.write(&Record {
                leaving: true,
                ..record
            })?),
            _ => Ok(()),
        }
    }

    /// As [`Self::detach`], but what cannot be written is given up. The caller has the operator's word for it, and has unmounted.
    ///
    /// # Errors
    /// See [`DetachError`].
    pub fn abandon(&self, key: &str, deadline: Deadline) -> Result<Outcome, DetachError> {
        let _volume = self.take_volume(key, deadline)?;
        self.leave(key, deadline, Care::GiveUp)
    }

    fn find_map(&self, wwid: &Wwid) -> Result<Option<Map>, DetachError> {
        multipath::find_map(&self.host, wwid).map_err(DetachError::Read)
    }

    /// Whether no path of `map` can serve and the kernel has nothing to write to it: then there is nothing to flush, and waiting for a path is in
    /// vain. sysfs is asked first; multipathd only when it looks bad there.
    pub(super) fn is_dead_and_clean(&self, map: &Map) -> bool {
        self.running_members(map)
            .is_ok_and(|disks| disks.is_empty())
            && multipath::reach(&self.host, map).is_ok_and(Reach::is_dead)
            && multipath::unwritten(&self.host, map) == Unwritten::Nothing
    }

    /// Whether a member of the map of `wwid` says, now, that it is the volume. Only those are asked that the kernel has in use.
    fn is_answered(&self, wwid: &Wwid) -> Result<bool, DetachError> {
        let Some(map) = self.find_map(wwid)? else {
            return Ok(false);
        };
        let disks = self.running_members(&map).map_err(DetachError::Read)?;
        let asked: Vec<_> = disks
            .iter()
            .filter_map(|disk| self.ask_member(&disk.name).ok())
            .collect();
        self.wait_until_landed(asked.iter(), self.host.deadline_in(PATIENCE));
        let is_it = |identity| matches!(identity, MemberIdentity::Is(found, _) if found == *wwid);
        Ok(asked.iter().map(answer_of).any(is_it))
    }

    fn running_members(&self, map: &Map) -> io::Result<Vec<Disk>> {
        let runs = |disk: &Disk| {
            let state = disk.state(&self.host).ok().flatten();
            map.members.contains(&disk.name) && state == Some(DiskState::Running)
        };
        let disks = scsi::list_disks(&self.host)?;
        Ok(disks.into_iter().filter(runs).collect())
    }
}
