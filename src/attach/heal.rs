//! Keeping the paths of attached volumes as they should be, with nobody calling: round by round, by what is then, never by what once happened.
//!
//! A round looks at every volume of this boot, asks the plan, and does what it says with the same code as a stage. Calls come first: the volume's lock
//! is taken without waiting and held only while something is begun, never while a portal is waited for, and whatever comes back late asks the ledger
//! whether it is still wanted. What the list has anew is written into the record before it is made, and what it has no longer is forgotten only when it
//! is gone: so a detach knows of everything at any moment. Sessions are left to the idle reaper.
//!
//! So is a session that cannot come back made anew, for the credentials it was logged in with are refused since they were changed; and multipath's
//! entries for single volumes follow the ledger again, should they not.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::error::{AttachError, Reason};
use super::ledger::Record;
use super::observe::Machine;
use super::pace::Healing;
use super::path::PathOutcome;
use super::plan::{Action, plan};
use super::{Engine, Want};
use crate::fabric::{Selection, WantedPath};
use crate::fault::chain;
use crate::iscsi::Login;
use crate::multipath;

/// How long the lock of a portal, or of open-iscsi's database, may be waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the work on one path may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a path that goes may take of the volume's lock. What is not done then is done in a later round.
const PRUNING: Duration = Duration::from_secs(5);

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// The paths that are in their maps again, or for the first time, as far as the round waited for them.
    pub joined: Vec<WantedPath>,
    /// Something is not as it should be, and may be soon.
    pub amiss: bool,
}

impl Engine {
    /// Does one round. A volume that somebody works on is passed over. What it begins goes on by itself; `patience` is how long to wait for it.
    ///
    /// # Errors
    /// When the ledger or sysfs cannot be read. A path that does not come back is no error of the round.
    pub fn heal(&self, patience: Duration) -> Result<Healed, AttachError> {
        let boot_id = self.ledger().boot_id()?;
        self.remove_stale_lock();
        let listing = self.list_ledger()?;
        self.keep_retries(&listing);
        let records = listing.records;
        let here = |record: &&Record| !record.leaving && record.boot_id == boot_id;
        let here: Vec<&Record> = records.iter().filter(here).collect();
        let mut healed = Healed::default();
        if here.is_empty() {
            return Ok(healed);
        }
        let machine = self.look().map_err(AttachError::Read)?;
        let mut attempts = Vec::new();
        for &record in &here {
            self.keep_records_current(record);
            match self.heal_volume(record, &boot_id, &machine, &mut healed) {
                Ok(begun) => attempts.extend(begun),
                Err(error) => {
                    let error = chain(&error);
                    tracing::debug!(key = record.key, error, "its paths were not looked after");
                }
            }
        }
        self.forget_all_but(&here);
        self.await_attempts(&attempts, patience);
        let joined = attempts.into_iter().filter(Attempt::has_joined);
        healed.joined = joined.map(|attempt| attempt.path).collect();
        Ok(healed)
    }

    /// What `record` should have by its owner's word of now; without one, what it has.
    #[must_use]
    pub fn desired(&self, record: &Record) -> Selection {
        let as_recorded = || Selection {
            wanted: record.wanted.clone(),
            left_out: Vec::new(),
        };
        (self.desired_of)(record).unwrap_or_else(as_recorded)
    }

    /// With a lock that a dead process of ours left in open-iscsi's database, nobody on this host can log in.
    fn remove_stale_lock(&self) {
        let deadline = self.host.deadline_in(LOCK_PATIENCE);
        let removed = self
            .shared
            .initiator
            .remove_stale_lock(&self.host, deadline);
        if let Err(error) = removed {
            let error = chain(&error);
            tracing::warn!(error, "open-iscsi's lock could not be looked after");
        }
    }

    /// Changed credentials go into the records of sessions that are up, for their next login.
    fn keep_records_current(&self, record: &Record) {
        let chap = match (self.chap_of)(&record.key) {
            Ok(chap) => chap,
            Err(error) => {
                let error = chain(&*error);
                tracing::warn!(
                    key = record.key,
                    error,
                    "no credentials: what is logged in stays, and cannot log in again"
                );
                return;
            }
        };
        for path in &record.wanted {
            let deadline = self.host.deadline_in(LOCK_PATIENCE);
            let initiator = &self.shared.initiator;
            let login = Login {
                nexus: &self.nexus_of(path),
                chap: chap.as_ref(),
            };
            initiator.keep_record_current(&self.host, login, deadline);
        }
    }

    /// Looks, and when there is something to do takes the volume, looks again and does it. The paths that were begun.
    fn heal_volume(
        &self,
        seen: &Record,
        boot_id: &str,
        machine: &Machine,
        healed: &mut Healed,
    ) -> Result<Vec<Attempt>, AttachError> {
        let selection = self.desired(seen);
        let observed = self.observe(seen, &selection, machine)?;
        let actions = plan(seen, boot_id, &selection, &observed);
        self.tell(&seen.key, &actions);
        let wanted = observed
            .paths
            .iter()
            .filter(|(path, _)| selection.wanted.contains(path));
        healed.amiss |=
            wanted.clone().any(|(_, path)| !path.serves()) || actions.iter().any(Action::is_deed);
        if !actions.iter().any(Action::is_deed) {
            return Ok(Vec::new());
        }
        let key = &seen.key;
        let lock = self.lock_volume(key, self.host.deadline_in(Duration::ZERO));
        let Some(_volume) = lock.map_err(|source| AttachError::Lock {
            key: key.clone(),
            source,
        })?
        else {
            return Ok(Vec::new());
        };
        // Without the lock it may have been taken away, or have grown.
        let record = self.find_attached(key)?;
        let machine = self.look().map_err(AttachError::Read)?;
        let observed = self.observe(&record, &selection, &machine)?;
        let actions = plan(&record, boot_id, &selection, &observed);
        self.act(record, &actions, &machine)
    }

    /// Does what was planned, the record first.
    fn act(
        &self,
        record: Record,
        actions: &[Action],
        machine: &Machine,
    ) -> Result<Vec<Attempt>, AttachError> {
        let record = self.note_wanted(record, actions)?;
        let mut attempts = Vec::new();
        let mut ensured = Vec::new();
        for action in actions {
            match action {
                Action::Ensure(path) => ensured.push(path),
                Action::Reread(path) => self.reread(&record, path, machine)?,
                Action::Prune(path) => self.prune(&record, path, machine),
                Action::Adopt(_) | Action::Forget(_) | Action::Report(_) => {}
            }
        }
        let want = Want {
            key: record.key.clone(),
            export: record.export.clone(),
            wanted: ensured.iter().map(|&path| path.clone()).collect(),
            no_path_retry: record.no_path_retry,
            min_paths: 1,
            deadline: self.host.deadline_in(PATIENCE),
            grace: Duration::ZERO,
            payload: record.payload.clone(),
        };
        let claimed = Arc::default();
        for path in ensured {
            let attempt = Attempt::of(&want.key, path);
            let landing = attempt.begin(self);
            let learn = move |outcome: &PathOutcome| landing.learn(outcome);
            // Nobody listens: what comes when the volume is gone settles its own matters.
            self.launch_with(&want, path, &claimed, learn)?;
            attempts.push(attempt);
        }
        Ok(attempts)
    }

    /// Writes down what is wanted from now on and what is not any more.
    fn note_wanted(&self, record: Record, actions: &[Action]) -> Result<Record, AttachError> {
        let mut noted = record.clone();
        for action in actions {
            match action {
                Action::Adopt(path) => {
                    tracing::info!(key = record.key, portal = %path.portal, "a path is listed anew");
                    noted.wanted.push(path.clone());
                }
                Action::Forget(path) => {
                    tracing::info!(key = record.key, portal = %path.portal, "a path is not listed any more and gone");
                    noted.wanted.retain(|known| known != path);
                    noted.learned.members.retain(|member| member.path != *path);
                }
                _ => {}
            }
        }
        if noted != record {
            self.ledger().write(&noted)?;
        }
        Ok(noted)
    }

    /// Lets the kernel ask a disk for its size; what comes of it shows in a later round.
    fn reread(
        &self,
        record: &Record,
        path: &WantedPath,
        machine: &Machine,
    ) -> Result<(), AttachError> {
        let Some(disk) = machine.disk(path).cloned() else {
            return Ok(());
        };
        let now = self.host.now();
        self.healing().put_off(&record.key, path, now);
        tracing::info!(
            key = record.key,
            disk = disk.name,
            "a path shows less than its map has; it is asked for its size"
        );
        let flight = format!("{} {}", disk.name, disk.hctl);
        let host = self.host.clone();
        let ask = move || disk.rescan(&host).map_err(|error| error.to_string());
        let asked = self.shared.rescans.join(&flight, ask, || {});
        asked.map(|_| ()).map_err(AttachError::Thread)
    }

    /// Takes a path out of its map, and its disk off the machine. When it does not come to its end, a later round goes on.
    fn prune(&self, record: &Record, path: &WantedPath, machine: &Machine) {
        let Some(disk) = machine.disk(path) else {
            return;
        };
        let (host, wwid) = (&self.host, &record.export.wwid);
        let deadline = host.deadline_in(PRUNING);
        tracing::info!(key = record.key, portal = %path.portal, disk = disk.name,
            "a path is not listed any more; it is taken out");
        let taken_out = || -> Result<(), String> {
            let life = disk.life(host).map_err(|error| error.to_string())?;
            // Its name must not have come to mean another disk.
            if life.goes_on(host).map_err(|error| error.to_string())? {
                let told = multipath::del_path(host, &disk.name);
                let reply = told.map_err(|error| chain(&error))?;
                let left = host.wait_for(deadline, || {
                    let stays = multipath::is_member(host, wwid, &disk.name)?;
                    Ok::<_, std::io::Error>((!stays).then_some(()))
                });
                left.map_err(|error| error.to_string())?.ok_or_else(|| {
                    format!(
                        "{} is still in the map; multipathd said: {reply}",
                        disk.name
                    )
                })?;
            }
            let removed = self.remove_disks(wwid, &[life], deadline);
            removed.map_err(|error| chain(&error))
        };
        if let Err(error) = taken_out() {
            tracing::warn!(key = record.key, portal = %path.portal, error, "the path is not out yet");
            let now = host.now();
            self.healing().put_off(&record.key, path, now);
        }
    }

    /// Tells the log of what is amiss and cannot be mended from here: when it begins and when it is over.
    fn tell(&self, key: &str, actions: &[Action]) {
        let text = |action: &Action| match action {
            Action::Report(finding) => Some(finding.to_string()),
            _ => None,
        };
        let holds: BTreeSet<String> = actions.iter().filter_map(text).collect();
        let mut healing = self.healing();
        let told = healing.told.entry(key.to_owned()).or_default();
        for finding in holds.difference(told) {
            tracing::warn!(key, finding, "a path needs somebody");
        }
        for finding in told.difference(&holds) {
            tracing::info!(key, finding, "not so any more");
        }
        *told = holds;
    }

    fn forget_all_but(&self, records: &[&Record]) {
        let keys = records.iter().map(|record| record.key.as_str()).collect();
        let paths = records.iter().flat_map(|record| &record.wanted);
        let sessions = paths.map(WantedPath::nexus).collect();
        self.healing().keep_only(&keys, &sessions);
    }

    fn await_attempts(&self, attempts: &[Attempt], patience: Duration) {
        let over = || {
            let healing = self.healing();
            let flies = |attempt: &Attempt| healing.is_flying(&attempt.key, &attempt.path);
            let all = !attempts.iter().any(flies);
            Ok::<_, std::convert::Infallible>(all.then_some(()))
        };
        if !attempts.is_empty() {
            let Ok(_) = self.host.wait_for(self.host.deadline_in(patience), over);
        }
    }

    pub(super) fn healing(&self) -> MutexGuard<'_, Healing> {
        let healing = self.shared.healing.lock();
        healing.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work on one path of one volume that a round began.
struct Attempt {
    key: String,
    path: WantedPath,
    joined: Arc<OnceLock<bool>>,
}

impl Attempt {
    fn of(key: &str, path: &WantedPath) -> Self {
        Self {
            key: key.to_owned(),
            path: path.clone(),
            joined: Arc::default(),
        }
    }

    fn begin(&self, engine: &Engine) -> Landing {
        engine.healing().begin(&self.key, &self.path);
        Landing {
            engine: engine.clone(),
            key: self.key.clone(),
            path: self.path.clone(),
            joined: Arc::clone(&self.joined),
        }
    }

    fn has_joined(&self) -> bool {
        self.joined.get() == Some(&true)
    }
}

/// Ends an attempt, also when its work panics or was never begun since somebody else's is under way.
struct Landing {
    engine: Engine,
    key: String,
    path: WantedPath,
    joined: Arc<OnceLock<bool>>,
}

impl Landing {
    fn learn(self, outcome: &PathOutcome) {
        let now = self.engine.host.now();
        let mut healing = self.engine.healing();
        let is_first = healing.learn(&self.key, &self.path, outcome, now);
        if let Err(error) = outcome {
            healing.note_why(&self.key, &self.path, Reason::from(error));
        }
        drop(healing);
        let (key, portal) = (&self.key, self.path.portal);
        match outcome {
            Ok(disk) => {
                tracing::info!(key, %portal, disk = disk.name, "a path is in its map again");
            }
            Err(error) if is_first => {
                tracing::warn!(key, %portal, error = chain(error), "a path does not come back");
            }
            Err(error) => {
                tracing::debug!(key, %portal, error = chain(error), "a path still does not come back");
            }
        }
        // Whoever set it before was the same attempt.
        let _ = self.joined.set(outcome.is_ok());
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.engine.healing().end(&self.key, &self.path);
    }
}
