//! Letting a map take the size that its volume has by now, under whoever uses it.
//!
//! The kernel learns of a new size only by asking, path by path. multipathd refuses a map whose paths differ, and older ones made it smaller. So:
//! every path that runs is asked again, all must show one size that is not below the map's, a path that does not run is waited for and then taken
//! out, and only then the map is told. What it is told proves nothing; its size does. The ledger follows last: a record that is behind is right,
//! one that is ahead would condemn a map that works.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::AttachError;
use super::ledger::Record;
use super::verify::device_of;
use super::{Engine, MapDevice};
use crate::deadline::{Deadline, Moment};
use crate::fabric::Export;
use crate::fault::chain;
use crate::flights::{Listener, Look};
use crate::multipath::{self, Map};
use crate::scsi::{self, Disk, DiskState};

/// The SAN may show a new size at one of its portals later than at another.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A session that has lost its connection may be back as soon. Longer, and the volume grows without that path.
const RETURN: Duration = Duration::from_secs(15);
/// How long an answer of multipathd's may take to show.
const TELL_AGAIN: Duration = Duration::from_secs(2);

/// Whether the kernel took the order to ask a disk again.
pub(super) type RescanOutcome = Result<(), String>;

/// A map with the size that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The map.
    pub map: MapDevice,
    /// Disks that did not run and were taken out of the map, so that it could grow.
    pub left_out: Vec<String>,
}

impl Engine {
    /// Lets the map of `key` have the size that its paths show, `at_least` bytes; with 0, whatever they show. Only looks when it is that large.
    /// The volume may be in use. May be repeated after a crash at any point.
    ///
    /// # Errors
    /// See [`AttachError`]. [`AttachError::NotGrown`] when it has not come that far by the deadline.
    pub fn resize(
        &self,
        key: &str,
        at_least: u64,
        deadline: Deadline,
    ) -> Result<Resized, AttachError> {
        let engine = self.acting_on(self.host.tallied());
        let lock = engine.lock_volume(key, deadline);
        let locked = lock.map_err(|source| AttachError::Lock {
            key: key.to_owned(),
            source,
        })?;
        let Some(_volume) = locked else {
            let key = key.to_owned();
            return Err(AttachError::Locked { key });
        };
        let record = engine.find_attached(key)?;
        let mut growing = Growing::new(&engine, &record.export, at_least);
        let map = engine
            .host
            .wait_for(deadline, || growing.look())?
            .ok_or_else(|| growing.overdue())?;
        let left_out = growing.left_out.into_keys().collect();
        engine.note_size(&record, map.size)?;
        Ok(Resized { map, left_out })
    }

    /// The record of a volume that is attached, in this boot.
    pub(super) fn find_attached(&self, key: &str) -> Result<Record, AttachError> {
        let ledger = self.ledger();
        let boot_id = ledger.boot_id()?;
        let record = ledger.find(key)?;
        record
            .filter(|record| !record.leaving && record.boot_id == boot_id)
            .ok_or_else(|| AttachError::NotAttached {
                key: key.to_owned(),
            })
    }

    /// From now on a smaller map is not taken for the volume.
    fn note_size(&self, record: &Record, size: u64) -> Result<(), AttachError> {
        if record.export.size >= size {
            return Ok(());
        }
        let mut grown = record.clone();
        grown.export.size = size;
        Ok(self.ledger().write(&grown)?)
    }
}

/// A map on its way to a larger size.
pub(super) struct Growing<'a> {
    engine: &'a Engine,
    export: &'a Export,
    at_least: u64,
    /// One for each running disk, from this call on.
    rescans: BTreeMap<String, Listener<RescanOutcome>>,
    rescanned_at: Option<Moment>,
    /// Since when a disk does not run.
    away_since: BTreeMap<String, Moment>,
    /// Disks that multipathd was told to take out, and when.
    left_out: BTreeMap<String, Moment>,
    told_at: Option<Moment>,
    /// multipathd's last word, or what is waited for.
    why: String,
}

/// A member of the map.
struct Member {
    disk: Disk,
    runs: bool,
}

impl<'a> Growing<'a> {
    pub(super) fn new(engine: &'a Engine, export: &'a Export, at_least: u64) -> Self {
        Self {
            engine,
            export,
            at_least,
            rescans: BTreeMap::new(),
            rescanned_at: None,
            away_since: BTreeMap::new(),
            left_out: BTreeMap::new(),
            told_at: None,
            why: "nothing was looked at".to_owned(),
        }
    }

    /// One look, and the one step that follows from it. The map once it is large enough.
    pub(super) fn look(&mut self) -> Result<Option<MapDevice>, AttachError> {
        let (host, wwid) = (&self.engine.host, &self.export.wwid);
        let found = multipath::find_map(host, wwid).map_err(AttachError::Read)?;
        let Some(map) = found.filter(Map::is_live) else {
            return self.not_yet("it is not in force");
        };
        if self.at_least > 0 && map.size >= self.at_least {
            return Ok(Some(device_of(map, wwid)));
        }
        let members = self.members(&map)?;
        let Some(size) = self.common_size(&map, &members)? else {
            return Ok(None);
        };
        if size == map.size {
            return Ok(Some(device_of(map, wwid)));
        }
        if members.iter().all(|member| member.runs) {
            self.tell(&map, size)?;
        } else {
            self.leave_out(&members);
        }
        Ok(None)
    }

    pub(super) fn overdue(&self) -> AttachError {
        AttachError::NotGrown {
            wwid: self.export.wwid.clone(),
            why: self.why.clone(),
        }
    }

    fn not_yet<T>(&mut self, why: impl Into<String>) -> Result<Option<T>, AttachError> {
        self.why = why.into();
        Ok(None)
    }

    fn members(&mut self, map: &Map) -> Result<Vec<Member>, AttachError> {
        let host = &self.engine.host;
        let now = host.now();
        let mut members = Vec::new();
        for disk in scsi::list_disks(host).map_err(AttachError::Read)? {
            if !map.members.contains(&disk.name) {
                continue;
            }
            let state = disk.state(host).map_err(AttachError::Read)?;
            let runs = state == Some(DiskState::Running);
            if runs {
                self.away_since.remove(&disk.name);
            } else {
                self.away_since.entry(disk.name.clone()).or_insert(now);
                // What it was asked before it went does not count.
                self.rescans.remove(&disk.name);
            }
            members.push(Member { disk, runs });
        }
        Ok(members)
    }

    /// The size that all running members show, each asked since this call began, if it is one and large enough.
    fn common_size(&mut self, map: &Map, members: &[Member]) -> Result<Option<u64>, AttachError> {
        let running: Vec<&Disk> = members
            .iter()
            .filter(|member| member.runs)
            .map(|member| &member.disk)
            .collect();
        if running.is_empty() {
            return self.not_yet("none of its paths runs");
        }
        if let Some(waiting) = self.rescan(&running)? {
            return self.not_yet(waiting);
        }
        let mut sizes = BTreeMap::new();
        for disk in running {
            let size = disk.size(&self.engine.host).map_err(AttachError::Read)?;
            sizes.insert(disk.name.as_str(), size.unwrap_or(0));
        }
        if let Some((disk, &found)) = sizes.iter().find(|(_, size)| **size < map.size) {
            return Err(AttachError::Shrunk {
                wwid: self.export.wwid.clone(),
                disk: (*disk).to_owned(),
                found,
                map: map.size,
            });
        }
        let (least, most) = (sizes.values().min(), sizes.values().max());
        match (least, most) {
            (Some(least), Some(most)) if least == most && *least >= self.at_least => {
                Ok(Some(*least))
            }
            _ => {
                self.ask_again_soon();
                let wanted = self.at_least.max(map.size);
                self.not_yet(format!(
                    "its paths show {sizes:?} bytes, and all should show {wanted} or more"
                ))
            }
        }
    }

    /// Lets each disk be asked once, on threads of their own. The reason to wait, if there is one.
    fn rescan(&mut self, disks: &[&Disk]) -> Result<Option<String>, AttachError> {
        let mut waiting = None;
        for &disk in disks {
            if !self.rescans.contains_key(&disk.name) {
                let (host, asked) = (self.engine.host.clone(), disk.clone());
                let ask = move || asked.rescan(&host).map_err(|error| error.to_string());
                let flight = format!("{} {}", disk.name, disk.hctl);
                let listener = self.engine.shared.rescans.join(&flight, ask, || {});
                let listener = listener.map_err(AttachError::Thread)?;
                self.rescanned_at = Some(self.engine.host.now());
                self.rescans.insert(disk.name.clone(), listener);
            }
            let listener = &self.rescans[&disk.name];
            let why = match listener.look() {
                Look::Ended(outcome) => match &*outcome {
                    // A question from before this call may have been answered before the volume grew.
                    Ok(()) if listener.joined => "it was asked earlier".to_owned(),
                    Ok(()) => continue,
                    Err(why) => why.clone(),
                },
                Look::Flying => "it does not answer".to_owned(),
                Look::Lost => "its thread was lost".to_owned(),
            };
            waiting = Some(format!(
                "{} could not be asked for its size: {why}",
                disk.name
            ));
        }
        if waiting.is_some() {
            self.ask_again_soon();
        }
        Ok(waiting)
    }

    /// Forgets what has been asked, after a pause; a question that is still open stays.
    fn ask_again_soon(&mut self) {
        let now = self.engine.host.now();
        let due = |at: Moment| now.since(at) >= ASK_AGAIN;
        if self.rescanned_at.is_some_and(due) {
            self.rescans.retain(|_, listener| listener.is_flying());
        }
    }

    /// Takes out of the map what has been away for too long. Those that run carry the volume.
    fn leave_out(&mut self, members: &[Member]) {
        let host = &self.engine.host;
        let now = host.now();
        for disk in members.iter().filter(|member| !member.runs) {
            let name = &disk.disk.name;
            self.why = format!("its path {name} does not run");
            let ripe = |since: &Moment| now.since(*since) >= RETURN;
            let told = |at: &Moment| now.since(*at) < TELL_AGAIN;
            if !self.away_since.get(name).is_some_and(ripe)
                || self.left_out.get(name).is_some_and(told)
            {
                continue;
            }
            let reply = multipath::del_path(host, name);
            tracing::warn!(wwid = %self.export.wwid, disk = name, ?reply,
                "a path that does not run is taken out of the map, so that the map can grow");
            self.left_out.insert(name.clone(), now);
        }
    }

    /// Tells multipathd, once every member has proven who it is: the size of another volume is not to be taken over.
    fn tell(&mut self, map: &Map, size: u64) -> Result<(), AttachError> {
        let host = &self.engine.host;
        let fresh = |at: Moment| host.now().since(at) < TELL_AGAIN;
        if self.told_at.is_some_and(fresh) {
            return Ok(());
        }
        self.engine.prove_members(map, self.export)?;
        let told = multipath::resize_map(host, &map.name);
        self.told_at = Some(host.now());
        self.why = match told {
            Ok(reply) => format!("its paths have {size} bytes; multipathd said: {reply}"),
            Err(error) => chain(&error),
        };
        Ok(())
    }
}
