//! One path: session → scan → disk → identity → size → member of the map. The same code for a stage and for a healer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::PathError;
use super::{Engine, Want};
use crate::deadline::{Deadline, Moment};
use crate::fabric::{Export, WantedPath};
use crate::host::Host;
use crate::iscsi::Login;
use crate::scsi::{Disk, DiskLife, Identity, IdentityError};
use crate::{multipath, scsi};

/// How long an INQUIRY may take.
pub(super) const INQUIRY: Duration = Duration::from_secs(5);
/// A LUN that is mapped a little late is found by scanning again after these pauses.
const FIRST_RESCAN: Duration = Duration::from_secs(1);
const LONGEST_RESCAN: Duration = Duration::from_secs(8);
/// multipathd acts on udev's event by itself. Only when it has not, so long after udev was done, is it told.
const NUDGE_AFTER: Duration = Duration::from_secs(2);
/// Where udev's database cannot be seen, this long after the disk was verified.
const BLIND_NUDGE_AFTER: Duration = Duration::from_secs(6);
/// Where it can be seen and udev is not done though it has no event before it, it has lost this one. While it works it is only slow: multipathd cannot use a disk that
/// udev has not named, and when it is told of one it has udev look at it once more, so that both get ever more to do.
const LOST_NUDGE_AFTER: Duration = Duration::from_secs(30);
/// The pause between two words to multipathd doubles up to this.
const LONGEST_NUDGE_PAUSE: Duration = Duration::from_secs(16);

/// A multipathd that is started anew answers sooner. One that does not run for so long is not waited for: the caller hears of it and comes again.
const ABSENT: Duration = Duration::from_secs(20);

/// How often a waiting path asks whether the volume is wanted still.
const WANTED_AGAIN: Duration = Duration::from_millis(500);

/// How long before the call's deadline its paths give up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What became of a path: its disk, verified and in the map, or why not.
pub(super) type PathOutcome = Result<Disk, PathError>;

/// The work on one path of one volume.
pub(super) struct PathWork {
    pub(super) host: Host,
    pub(super) engine: Engine,
    pub(super) key: String,
    pub(super) export: Export,
    pub(super) path: WantedPath,
    pub(super) deadline: Deadline,
    /// Whether the WWID is registered: once for all paths of the volume.
    pub(super) claimed: Arc<Mutex<bool>>,
}

/// What the disk under a LUN turned out to be.
enum Found {
    Right,
    Other(String),
}

impl PathWork {
    pub(super) fn of(engine: &Engine, want: &Want, path: &WantedPath) -> Self {
        Self {
            host: engine.host.clone(),
            engine: engine.clone(),
            key: want.key.clone(),
            export: want.export.clone(),
            path: path.clone(),
            deadline: before(want.deadline, engine.host.now()),
            claimed: Arc::default(),
        }
    }

    /// Makes sure that the path is a verified member of the map. Only reads when it is already.
    pub(super) fn ensure_path(&self) -> PathOutcome {
        let disk = self.timed("disk", || self.ensure_right_disk())?;
        let has_grown = self.ensure_size(&disk)?;
        self.timed("map", || self.ensure_member(&disk, has_grown))?;
        Ok(disk)
    }

    /// A step of the path's way, told with its portal.
    fn timed<T, E>(&self, step: &'static str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let portal = tracing::field::display(self.path.portal);
        let path = tracing::debug_span!("path", portal, volume = self.key);
        path.in_scope(|| self.host.timed(step, &self.key, work))
    }

    fn ensure_right_disk(&self) -> Result<Disk, PathError> {
        let disk = self.ensure_disk()?;
        let life = disk.life(&self.host).map_err(PathError::Read)?;
        let Found::Other(found) = self.timed("identity", || self.identify(&disk))? else {
            return Ok(disk);
        };
        self.remove_stale(&life, found)?;
        let disk = self.ensure_disk()?;
        match self.timed("identity", || self.identify(&disk))? {
            Found::Right => Ok(disk),
            Found::Other(found) => Err(self.wrong(&disk, found, Vec::new())),
        }
    }

    /// A session, and under it a disk with our LUN. The target may need a while to show the LUN, and a scan over a session that has just
    /// lost its connection does nothing and says nothing: so it is repeated.
    fn ensure_disk(&self) -> Result<Disk, PathError> {
        let (host, lun) = (&self.host, self.path.lun);
        let initiator = &self.engine.shared.initiator;
        let nexus = self.engine.nexus_of(&self.path);
        let mut pause = Duration::ZERO;
        loop {
            let chap = (self.engine.chap_of)(&self.key).map_err(PathError::Credentials)?;
            let login = Login {
                nexus: &nexus,
                chap: chap.as_ref(),
            };
            let login = || initiator.ensure_session(host, login, self.deadline);
            let session = self.timed("session", login).map_err(PathError::Session)?;
            let find = || scsi::find_disk(host, session.scsi_host, lun);
            if let Some(disk) = find().map_err(PathError::Read)? {
                return Ok(disk);
            }
            self.check_wanted()?;
            self.ensure_claimed()?;
            let scanned = scsi::scan_lun(host, session.scsi_host, lun);
            // The disk comes a moment after the scan. Until then nobody could see it and take it away: so even an unwanted one is awaited.
            let soon = host.deadline_in(FIRST_RESCAN);
            if let Some(disk) = host.wait_for(soon, find).map_err(PathError::Read)? {
                return Ok(disk);
            }
            let until = self.deadline.at_most(host.now(), pause);
            if let Some(disk) = self.wait_for(until, find)? {
                return Ok(disk);
            }
            if host.is_past(self.deadline) {
                scanned.map_err(PathError::Scan)?;
                return Err(PathError::NoDisk { lun: lun.0 });
            }
            pause = (pause * 2).clamp(FIRST_RESCAN, LONGEST_RESCAN);
        }
    }

    /// Looks until there is something to find, and as long as anybody wants the volume. That is asked less often: it costs more than a look at sysfs, and whatever is made
    /// once nobody wants the volume any more is taken away at the end.
    fn wait_for<T>(
        &self,
        until: Deadline,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<Option<T>, PathError> {
        let mut asked: Option<Moment> = None;
        self.host.wait_for(until, || {
            let found = look().map_err(PathError::Read)?;
            let now = self.host.now();
            if found.is_none() && asked.is_none_or(|at| now.since(at) >= WANTED_AGAIN) {
                self.check_wanted()?;
                asked = Some(now);
            }
            Ok(found)
        })
    }

    /// A volume that is being taken away, or is gone, must not be brought back by a thread that began before.
    fn check_wanted(&self) -> Result<(), PathError> {
        let wanted = self.engine.ledger().is_wanted(&self.key);
        if wanted.map_err(PathError::Ledger)? {
            Ok(())
        } else {
            Err(PathError::Unwanted)
        }
    }

    /// The first path that gets this far registers the WWID, and marks it if the host is not to look into its map; the others wait for it. Before that, no disk of the
    /// volume must appear.
    fn ensure_claimed(&self) -> Result<(), PathError> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*claimed {
            let root = &self.engine.shared.dirs.root;
            if self.engine.is_unseen() {
                multipath::ensure_unseen(&self.host, root, &self.export.wwid)
                    .map_err(PathError::Unseen)?;
            }
            multipath::claim(&self.host, root, &self.export.wwid).map_err(PathError::Claim)?;
            *claimed = true;
        }
        Ok(())
    }

    /// Asks the disk itself until it answers. What the kernel noted when the disk appeared must agree: udev and multipathd go by that, so a disk
    /// that was another volume then must go even if it is the right one now.
    fn identify(&self, disk: &Disk) -> Result<Found, PathError> {
        let mut refusal = None;
        let answer = self.wait_for(self.deadline, || {
            if !disk.is_present(&self.host)? {
                return Ok(Some(Err("gone".to_owned())));
            }
            match scsi::read_identity(&self.host, disk, INQUIRY) {
                Ok(identity) => Ok(Some(Ok(identity))),
                Err(error @ IdentityError::NotConnected { .. }) => Ok(Some(Err(error.to_string()))),
                Err(error) => {
                    refusal = Some(error);
                    Ok(None)
                }
            }
        });
        let Some(answer) = answer? else {
            return Err(self.silent(disk, refusal));
        };
        let found = match answer {
            Err(not_connected) => return Ok(Found::Other(not_connected)),
            Ok(identity) => identity,
        };
        if found.wwid().as_ref() != Some(&self.export.wwid) {
            return Ok(Found::Other(name_of(&found)));
        }
        let noted = disk.noted_wwid(&self.host).map_err(PathError::Read)?;
        match noted.filter(|noted| *noted != self.export.wwid) {
            Some(before) => Ok(Found::Other(format!("noted as {before}"))),
            None => {
                self.ensure_noted(disk, &found)?;
                Ok(Found::Right)
            }
        }
    }

    /// A disk that appeared while its LUN was being made is noted with half of its names. The kernel is told to ask once more; what it makes of it shows in the map.
    fn ensure_noted(&self, disk: &Disk, identity: &Identity) -> Result<(), PathError> {
        if !identity
            .is_noted(&self.host, disk)
            .map_err(PathError::Read)?
        {
            let rescanned = disk.rescan(&self.host);
            tracing::debug!(
                disk = disk.name,
                ?rescanned,
                "what the kernel noted of it is old"
            );
        }
        Ok(())
    }

    fn silent(&self, disk: &Disk, refusal: Option<IdentityError>) -> PathError {
        match refusal {
            Some(source) => PathError::Identity {
                disk: disk.name.clone(),
                source,
            },
            None => PathError::NoDisk {
                lun: self.path.lun.0,
            },
        }
    }

    /// Takes away a disk that another volume left under our LUN; never one that somebody uses.
    fn remove_stale(&self, life: &DiskLife, found: String) -> Result<(), PathError> {
        let disk = &life.disk;
        let in_use = users_of(&self.host, disk).map_err(PathError::Read)?;
        if !in_use.is_empty() {
            return Err(self.wrong(disk, found, in_use));
        }
        tracing::warn!(disk = disk.name, hctl = %disk.hctl, found, expected = %self.export.wwid, "removing a stale disk");
        // Once it is gone its name may mean another disk. multipathd may not know it; the removal tells it in any case.
        if life.goes_on(&self.host).map_err(PathError::Read)?
            && let Err(error) = multipath::del_path(&self.host, &disk.name)
        {
            tracing::debug!(%error, "multipathd was not told of a stale disk");
        }
        scsi::remove_disk(&self.host, life, self.deadline).map_err(PathError::Stale)
    }

    fn wrong(&self, disk: &Disk, found: String, in_use: Vec<String>) -> PathError {
        PathError::WrongDevice {
            disk: disk.name.clone(),
            found,
            expected: self.export.wwid.clone(),
            in_use,
        }
    }

    /// A LUN that is not ready has no size yet and is waited for. One that shows less than the volume has, or than the map of its other paths, may have been there
    /// before the volume grew: the kernel is told to ask once more. Larger is fine, for a volume grows without its export being told. True when it
    /// had to be asked.
    fn ensure_size(&self, disk: &Disk) -> Result<bool, PathError> {
        let size_now = || disk.size(&self.host).map_err(PathError::Read);
        let before = size_now()?.unwrap_or(0);
        let mut size = match before {
            0 => self.wait_for_size(disk)?,
            known => known,
        };
        let map = multipath::find_map(&self.host, &self.export.wwid).map_err(PathError::Read)?;
        let needed = map.map_or(0, |map| map.size).max(self.export.size);
        if size < needed {
            // What the kernel makes of it shows in the size.
            let rescanned = disk.rescan(&self.host);
            tracing::debug!(
                disk = disk.name,
                size,
                needed,
                ?rescanned,
                "asked for its size again"
            );
            size = size_now()?.unwrap_or(0);
        }
        if size >= needed {
            return Ok(size > before);
        }
        Err(PathError::WrongSize {
            disk: disk.name.clone(),
            found: size,
            expected: needed,
        })
    }

    /// The size of a disk that had none, 0 when it still has none in the end. The kernel asks a LUN that was not ready again only when it is told to.
    fn wait_for_size(&self, disk: &Disk) -> Result<u64, PathError> {
        let mut asked_at = None;
        let due = |at: Moment, now: Moment| now.since(at) >= FIRST_RESCAN;
        let size = self.wait_for(self.deadline, || {
            let now = self.host.now();
            if asked_at.is_none_or(|at| due(at, now)) {
                let rescanned = disk.rescan(&self.host);
                tracing::debug!(disk = disk.name, ?rescanned, "it has no size yet");
                asked_at = Some(now);
            }
            let size = disk.size(&self.host)?;
            Ok(size.filter(|size| *size != 0))
        });
        Ok(size?.unwrap_or(0))
    }

    /// Waits until the map has the disk. multipathd does that on udev's word; it is told only when it seems to have missed it. A disk that `has_grown`
    /// was refused for its size or taken out, and no word of udev's is to come.
    fn ensure_member(&self, disk: &Disk, has_grown: bool) -> Result<(), PathError> {
        let map = multipath::find_map(&self.host, &self.export.wwid).map_err(PathError::Read)?;
        if !map.is_some_and(|map| map.members.contains(&disk.name)) {
            // Nobody scanned for a disk that was shown to us unasked, and multipathd makes no map of it for as long as it does not know the WWID.
            self.ensure_claimed()?;
        }
        let mut nudge = Nudge::new(&self.host);
        nudge.is_overdue = has_grown;
        let joined = self.wait_for(self.deadline, || {
            if multipath::is_member(&self.host, &self.export.wwid, &disk.name)? {
                return Ok(Some(Membership::Member));
            }
            if !disk.is_present(&self.host)? {
                return Ok(Some(Membership::Gone));
            }
            if nudge.is_due(&self.host, disk)? {
                return Ok(nudge.give(&self.host, disk));
            }
            Ok(None)
        });
        match joined? {
            Some(Membership::Member) => return Ok(()),
            Some(Membership::Refused) => {
                let disk = disk.name.clone();
                return Err(PathError::Blacklisted { disk });
            }
            Some(Membership::Gone) => {
                return Err(PathError::NoDisk {
                    lun: self.path.lun.0,
                });
            }
            Some(Membership::NoDaemon) | None => {}
        }
        let users = users_of(&self.host, disk).map_err(PathError::Read)?;
        if users.is_empty() && scsi::is_udev_at_work(&self.host).map_err(PathError::Read)? {
            let disk = disk.name.clone();
            return Err(PathError::UdevAtWork { disk });
        }
        let why = if users.is_empty() {
            nudge.last_word
        } else {
            users.join(", ")
        };
        Err(PathError::NotMember {
            disk: disk.name.clone(),
            why,
        })
    }
}

/// How waiting for the map ended.
enum Membership {
    Member,
    Refused,
    Gone,
    NoDaemon,
}

/// When to tell multipathd of a disk that it should know from udev.
struct Nudge {
    begun: Moment,
    udev_done: Option<Moment>,
    /// Nothing but a word of ours will come.
    is_overdue: bool,
    given: Option<Moment>,
    /// How long it is not told again.
    pause: Duration,
    /// Since when nobody listens where multipathd should.
    absent_since: Option<Moment>,
    last_word: String,
}

impl Nudge {
    fn new(host: &Host) -> Self {
        Self {
            begun: host.now(),
            udev_done: None,
            is_overdue: false,
            given: None,
            pause: NUDGE_AFTER,
            absent_since: None,
            last_word: "udev has not reported it to multipathd".to_owned(),
        }
    }

    fn is_due(&mut self, host: &Host, disk: &Disk) -> io::Result<bool> {
        let now = host.now();
        if self.udev_done.is_none() && disk.is_known_to_udev(host)? {
            self.udev_done = Some(now);
        }
        let elapsed = |since: Moment, span: Duration| now.since(since) >= span;
        let seen = self.udev_done.is_some_and(|at| elapsed(at, NUDGE_AFTER));
        let blind_after = if scsi::sees_udev(host)? {
            LOST_NUDGE_AFTER
        } else {
            BLIND_NUDGE_AFTER
        };
        let due = self.is_overdue || seen || elapsed(self.begun, blind_after);
        if !due || self.given.is_some_and(|at| !elapsed(at, self.pause)) {
            return Ok(false);
        }
        Ok(self.is_overdue || seen || !scsi::is_udev_at_work(host)?)
    }

    /// Tells multipathd. Only a refusal, or that it does not run, ends the waiting: an `ok` is looked for, and anything else may pass.
    fn give(&mut self, host: &Host, disk: &Disk) -> Option<Membership> {
        let told = multipath::add_path(host, &disk.name);
        let now = host.now();
        let again = self.given.replace(now).is_some();
        let absent = told.as_ref().is_err_and(multipath::DaemonError::is_absent);
        let since = *self.absent_since.get_or_insert(now);
        if !absent {
            self.absent_since = None;
            // One that listens is not to be kept from its work; to one that does not, a word costs nothing.
            if again {
                self.pause = (self.pause * 2).min(LONGEST_NUDGE_PAUSE);
            }
        } else if now.since(since) >= ABSENT {
            self.last_word = "multipathd does not run".to_owned();
            return Some(Membership::NoDaemon);
        }
        match told {
            Ok(multipath::Reply::Blacklisted) => return Some(Membership::Refused),
            Ok(reply) => self.last_word = format!("multipathd said: {reply}"),
            Err(error) => self.last_word = crate::fault::chain(&error),
        }
        None
    }
}

/// A little before `deadline`: so that a path can still tell why it is missing.
fn before(deadline: Deadline, now: Moment) -> Deadline {
    match deadline.remaining(now) {
        None => deadline,
        Some(left) => deadline.at_most(now, left - LAST_WORDS.min(left / 10)),
    }
}

/// Devices that are built on the disk, and mounts of it.
pub(super) fn users_of(host: &Host, disk: &Disk) -> io::Result<Vec<String>> {
    let mut users = disk.holders(host)?;
    let mounts = multipath::find_mounts(host, &disk.name)?;
    users.extend(mounts.iter().map(ToString::to_string));
    Ok(users)
}

/// How an error calls what a disk said.
pub(super) fn name_of(identity: &Identity) -> String {
    match identity.wwid() {
        Some(wwid) => wwid.to_string(),
        None => format!("without a NAA name ({:02x?})", identity.designators),
    }
}
