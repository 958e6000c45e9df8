//! From a wish to a verified map: all paths at once, each on a thread of its own, under one deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::error::{AttachError, Cause, PathError, Reason};
use super::ledger::{Learned, Member, Record};
use super::path::{PathOutcome, PathWork};
use super::release::Care;
use super::resize::Growing;
use super::verify::{MemberIdentity, answer_of, device_of, judge};
use super::{Attached, Engine, MapDevice, Want};
use crate::deadline::Moment;
use crate::fabric::WantedPath;
use crate::fault::{Fault, Faulted, chain};
use crate::flights::{Listener, Look};
use crate::host::Host;
use crate::multipath::{self, Map};
use crate::scsi::{self, Disk};

/// More threads than this are not started for one volume.
const MOST_PATHS: usize = 16;

/// Whether anything of the volume was there before this call. Only what this call began is undone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Fresh,
    Known,
}

impl Engine {
    /// Makes sure that the volume is attached: a verified map with all wanted paths, or with enough of them once the grace has passed. Only reads
    /// when everything is in place.
    ///
    /// When it fails, what this call began is undone; sessions stay, for the reaper. Disks that wait for a busy udev stay as well: taken away and found anew by the next
    /// call they would never get through, where many volumes come at once. Threads on dead paths are left behind; they take away what
    /// they find when nobody wants it any more.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn ensure(&self, want: &Want) -> Result<Attached, AttachError> {
        check(want)?;
        // Before anything is touched; each path asks again when it needs them.
        (self.chap_of)(&want.key).map_err(|source| AttachError::Credentials {
            key: want.key.clone(),
            source,
        })?;
        let engine = self.acting_on(self.host.tallied());
        let locked = engine
            .lock_volume(&want.key, want.deadline)
            .map_err(|source| AttachError::Lock {
                key: want.key.clone(),
                source,
            })?;
        let Some(_volume) = locked else {
            let key = want.key.clone();
            return Err(AttachError::Locked { key });
        };
        let (begun, want) = engine.begin(want)?;
        let attached = engine
            .ensure_retry(&want)
            .and_then(|()| engine.attach(&want))
            .and_then(|attached| engine.verify_retry(&want).map(|()| attached));
        match attached {
            Ok((map, gathered)) => engine.conclude(&want, map, gathered),
            Err(
                error @ AttachError::TooFew {
                    awaits_udev: true, ..
                },
            ) => Err(error),
            Err(error) if begun == Begun::Fresh => Err(engine.undo(&want, error)),
            Err(error) => Err(error),
        }
    }

    /// Makes the wish durable. A record that is leaving or of an earlier boot is revived by it. Of the sizes that the wish and the record have the
    /// larger one is wanted, for an export may be older than the volume's last growth. The record of a volume that is attached gets its new size
    /// when the map has it.
    fn begin(&self, want: &Want) -> Result<(Begun, Want), AttachError> {
        let ledger = self.ledger();
        let boot_id = ledger.boot_id()?;
        let Some(known) = ledger.find(&want.key)? else {
            let begun = self.found_before(want).map_err(AttachError::Read)?;
            ledger.write(&Record::begin(want, boot_id))?;
            return Ok((begun, want.clone()));
        };
        if known.export.wwid != want.export.wwid {
            return Err(AttachError::Taken {
                key: want.key.clone(),
                recorded: known.export.wwid,
                wanted: want.export.wwid.clone(),
            });
        }
        let mut want = want.clone();
        want.export.size = want.export.size.max(known.export.size);
        let mut revived = Record {
            learned: known.learned.clone(),
            payload: known.payload.clone(),
            ..Record::begin(&want, boot_id)
        };
        if known.boot_id == revived.boot_id {
            // What is there and not wanted any more stays known until it is gone.
            let more = known.wanted.iter();
            let more = more.filter(|path| !revived.wanted.contains(path)).cloned();
            let more: Vec<WantedPath> = more.collect();
            revived.wanted.extend(more);
        }
        if !known.leaving && known.boot_id == revived.boot_id {
            revived.export.size = known.export.size;
        }
        if revived != known {
            ledger.write(&revived)?;
        }
        Ok((Begun::Known, want))
    }

    /// Devices of the volume without a record: the ledger was lost, or somebody else attached it. Not ours to undo.
    fn found_before(&self, want: &Want) -> std::io::Result<Begun> {
        let wwid = &want.export.wwid;
        if multipath::find_map(&self.host, wwid)?.is_some() {
            return Ok(Begun::Known);
        }
        for disk in scsi::list_disks(&self.host)? {
            if disk.noted_wwid(&self.host)?.as_ref() == Some(wwid) {
                return Ok(Begun::Known);
            }
        }
        Ok(Begun::Fresh)
    }

    fn attach(&self, want: &Want) -> Result<(MapDevice, Vec<Path>), AttachError> {
        let claimed = Arc::default();
        let paths = want
            .wanted
            .iter()
            .map(|path| self.launch(want, path, &claimed))
            .collect::<Result<_, _>>()?;
        let mut gathering = Gathering {
            engine: self,
            want,
            paths,
            claimed,
            growing: Growing::new(self, &want.export, want.export.size),
            strangers: BTreeMap::new(),
            enough_since: None,
        };
        let map = self
            .host
            .wait_for(want.deadline, || gathering.look())?
            .ok_or_else(|| gathering.too_few())?;
        Ok((map, gathering.paths))
    }

    /// Starts the work on one path, or joins what an earlier call left behind.
    pub(super) fn launch(
        &self,
        want: &Want,
        path: &WantedPath,
        claimed: &Arc<Mutex<bool>>,
    ) -> Result<Path, AttachError> {
        let listener = self.launch_with(want, path, claimed, |_| {})?;
        Ok(Path {
            path: path.clone(),
            listener,
            ended: false,
            disk: None,
        })
    }

    /// The same; `learn` hears of the outcome first, unless the work is an earlier call's.
    pub(super) fn launch_with(
        &self,
        want: &Want,
        path: &WantedPath,
        claimed: &Arc<Mutex<bool>>,
        learn: impl FnOnce(&PathOutcome) + Send + 'static,
    ) -> Result<Listener<PathOutcome>, AttachError> {
        let mut work = PathWork::of(self, want, path);
        work.claimed = Arc::clone(claimed);
        let flight = format!("{} {} {}", want.key, path.nexus(), path.lun);
        let (engine, key) = (self.clone(), want.key.clone());
        let (wwid, path) = (want.export.wwid.clone(), path.clone());
        let work = move || {
            let outcome = work.ensure_path();
            learn(&outcome);
            outcome
        };
        self.shared
            .paths
            .join(&flight, work, move || {
                engine.settle_late(&key, &wwid, &path)
            })
            .map_err(AttachError::Thread)
    }

    /// Writes down what was learned and tells it.
    fn conclude(
        &self,
        want: &Want,
        map: MapDevice,
        paths: Vec<Path>,
    ) -> Result<Attached, AttachError> {
        let ledger = self.ledger();
        let learned = Learned {
            map: Some(map.name.clone()),
            members: paths.iter().filter_map(Path::member).collect(),
        };
        if let Some(known) = ledger.find(&want.key)? {
            let mut record = known.clone();
            record.learned = learned;
            record.export.size = map.size;
            if record != known {
                ledger.write(&record)?;
            }
        }
        Ok(Attached {
            missing: paths.iter().filter_map(|path| path.missing(&map)).collect(),
            map,
            changed: self.host.counts().steps > 0,
        })
    }

    /// Takes away what this call made, in the way of a detach: threads that still run see that nobody wants it.
    fn undo(&self, want: &Want, error: AttachError) -> AttachError {
        let deadline = self.host.deadline_in(super::release::UNDO);
        match self.leave(&want.key, deadline, Care::Flush) {
            Ok(_) => error,
            Err(undo) => AttachError::NotUndone {
                undo: chain(&undo),
                source: Box::new(error),
            },
        }
    }
}

fn check(want: &Want) -> Result<(), AttachError> {
    let problem = if want.wanted.is_empty() {
        "no path is wanted"
    } else if want.wanted.len() > MOST_PATHS {
        "more than 16 paths are wanted"
    } else if want.min_paths > want.wanted.len() {
        "more paths are needed than are wanted"
    } else if want.export.size == 0 {
        "the export has no size"
    } else {
        return Ok(());
    };
    Err(AttachError::Want(problem))
}

/// One wanted path and how it stands.
pub(super) struct Path {
    path: WantedPath,
    listener: Listener<PathOutcome>,
    /// Its flight had ended when we looked.
    ended: bool,
    /// Its disk, verified and a member of the map when its flight ended.
    disk: Option<Disk>,
}

impl Path {
    fn error(&self) -> Option<Arc<PathOutcome>> {
        match self.listener.look() {
            Look::Ended(outcome) if outcome.is_err() => Some(outcome),
            _ => None,
        }
    }

    fn is_in(&self, members: &[String]) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| members.contains(&disk.name))
    }

    fn member(&self) -> Option<Member> {
        Some(Member {
            path: self.path.clone(),
            disk: self.disk.clone()?,
        })
    }

    fn missing(&self, map: &MapDevice) -> Option<(WantedPath, String)> {
        let told = || format!("{}: {}", self.path.nexus().place(), self.reason().words);
        (!self.is_in(&map.members)).then(|| (self.path.clone(), told()))
    }

    fn reason(&self) -> Reason {
        let of = |cause, words: &str| Reason {
            words: words.to_owned(),
            cause,
        };
        match self.listener.look() {
            Look::Flying => of(Cause::UnderWay, "still under way"),
            Look::Lost => of(Cause::Other, "its thread was lost"),
            Look::Ended(outcome) => match &*outcome {
                // The map was not waited for any more, or has lost it again.
                Ok(disk) => of(
                    Cause::UnderWay,
                    &format!("{} left the map again", disk.name),
                ),
                Err(error) => Reason::from(error),
            },
        }
    }

    fn awaits_udev(&self) -> bool {
        matches!(
            self.error().as_deref(),
            Some(Err(PathError::UdevAtWork { .. }))
        )
    }

    fn fault(&self) -> Fault {
        match self.error().as_deref() {
            Some(Err(error)) => error.fault(),
            _ => Fault::MaybeDone,
        }
    }
}

/// The paths of one volume coming in.
struct Gathering<'a> {
    engine: &'a Engine,
    want: &'a Want,
    paths: Vec<Path>,
    claimed: Arc<Mutex<bool>>,
    /// A map that is there and smaller than the volume.
    growing: Growing<'a>,
    /// Members of the map that none of our paths has vouched for.
    strangers: BTreeMap<String, Listener<MemberIdentity>>,
    enough_since: Option<Moment>,
}

impl Gathering<'_> {
    /// One look at everything: the map when it may be handed out.
    fn look(&mut self) -> Result<Option<MapDevice>, AttachError> {
        self.take_in()?;
        let (host, want) = (&self.engine.host, self.want);
        let map = multipath::find_map(host, &want.export.wwid).map_err(AttachError::Read)?;
        let Some(map) = map.filter(Map::is_live) else {
            return self.unless_hopeless();
        };
        // Before its size: with another volume in it there is nothing to wait for.
        let strangers_known = self.question_strangers(&map)?;
        if map.size < want.export.size {
            self.growing.look()?;
            return self.unless_hopeless();
        }
        let verified = self.verified(&map.members);
        if verified < want.min_paths.max(1) {
            self.enough_since = None;
            return self.unless_hopeless();
        }
        let since = *self.enough_since.get_or_insert(host.now());
        let settled = self.paths.iter().all(|path| path.ended) && strangers_known;
        let grace_over = host.now().since(since) >= want.grace;
        Ok((settled || grace_over).then(|| device_of(map, &want.export.wwid)))
    }

    /// Notes the disks of ended flights. One that failed by an earlier call's deadline is flown again by ours.
    fn take_in(&mut self) -> Result<(), AttachError> {
        for path in &mut self.paths {
            let look = path.listener.look();
            path.ended = !matches!(look, Look::Flying);
            let Look::Ended(outcome) = look else { continue };
            match &*outcome {
                Ok(disk) => path.disk = Some(disk.clone()),
                Err(_) if path.listener.joined => {
                    *path = self.engine.launch(self.want, &path.path, &self.claimed)?;
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Asks members that no path vouched for who they are. True when none is left open.
    fn question_strangers(&mut self, map: &Map) -> Result<bool, AttachError> {
        let mut all_known = true;
        for member in &map.members {
            let vouched = |path: &Path| path.is_in(std::slice::from_ref(member));
            if self.paths.iter().any(vouched) {
                continue;
            }
            if !self.strangers.contains_key(member) {
                let listener = self.engine.ask_member(member)?;
                self.strangers.insert(member.clone(), listener);
            }
            let listener = &self.strangers[member];
            judge(map, &self.want.export, member, answer_of(listener))?;
            all_known &= !listener.is_flying();
        }
        Ok(all_known)
    }

    fn verified(&self, members: &[String]) -> usize {
        self.paths.iter().filter(|path| path.is_in(members)).count()
    }

    /// Gives up early when the paths that may still come cannot be enough.
    fn unless_hopeless(&self) -> Result<Option<MapDevice>, AttachError> {
        let failed =
            |path: &&Path| path.error().is_some() || matches!(path.listener.look(), Look::Lost);
        let hopeful = self.paths.len() - self.paths.iter().filter(failed).count();
        if hopeful < self.want.min_paths.max(1) {
            return Err(self.too_few());
        }
        Ok(None)
    }

    fn too_few(&self) -> AttachError {
        let members = members_now(&self.engine.host, self.want);
        let missing = || self.paths.iter().filter(|path| !path.is_in(&members));
        let faults: Vec<Fault> = missing().map(Path::fault).collect();
        AttachError::TooFew {
            wwid: self.want.export.wwid.clone(),
            verified: self.verified(&members),
            needed: self.want.min_paths.max(1),
            missing: missing()
                .map(|path| (path.path.clone(), path.reason()))
                .collect(),
            fault: gravest(&faults),
            awaits_udev: missing().any(Path::awaits_udev),
        }
    }
}

fn members_now(host: &Host, want: &Want) -> Vec<String> {
    let map = multipath::find_map(host, &want.export.wwid).ok().flatten();
    map.map(|map| map.members).unwrap_or_default()
}

/// What is left to hope for decides: a path that may come back makes the call worth repeating. A refusal for good counts only when all are.
fn gravest(faults: &[Fault]) -> Fault {
    for fault in [Fault::Precondition, Fault::Denied] {
        if !faults.is_empty() && faults.iter().all(|one| *one == fault) {
            return fault;
        }
    }
    Fault::MaybeDone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_that_may_come_back_makes_a_call_worth_repeating() {
        use Fault::{Denied, MaybeDone, Precondition};
        assert_eq!(gravest(&[Denied, Denied]), Denied);
        assert_eq!(gravest(&[Denied, Precondition]), MaybeDone);
        assert_eq!(gravest(&[MaybeDone, Denied]), MaybeDone);
        assert_eq!(gravest(&[]), MaybeDone);
    }
}
