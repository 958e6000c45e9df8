//! All work of an archiver: begun once for each export, found by its WWID, forgotten when nothing of it is attached, and taken up again by the next process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{NotOpen, WorkError};
use super::job::{End, Job, Records};
use super::shelves::Shelves;
use crate::archive::{Objects, Progress};
use crate::attach::Engine;
use crate::deadline::Deadline;
use crate::fabric::{LocalView, PathList, Wwid};
use crate::fault::{Fault, chain};
use crate::host::Host;
use crate::volume::SanName;

/// How long a flush and the removal of disks may take.
pub(super) const DETACH: Duration = Duration::from_secs(60);

/// How the volumes of a partition are reached from here.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Its `scpaths`.
    pub list: PathList,
    /// What this machine makes of them now.
    pub local: LocalView,
    /// How long an attach may take; else as long as we wait by ourselves.
    pub deadline: Option<Duration>,
}

/// `None` for a partition that the config does not have.
pub type WaysOf = Arc<dyn Fn(&SanName) -> Option<Ways> + Send + Sync>;

/// An object store that is open, and how it is used.
pub struct OpenStore {
    /// Where its objects are.
    pub objects: Box<dyn Objects>,
    /// For people.
    pub place: String,
    /// How many chunks are under way at a time.
    pub transfers: usize,
    /// The most bytes in a second.
    pub bytes_per_second: Option<u64>,
}

/// Opens the archive of this name, anew at each use: credentials change. `None` for one that the config does not have.
pub type StoreOf = Arc<dyn Fn(&str) -> Option<Result<OpenStore, (Fault, NotOpen)>> + Send + Sync>;

/// What an archiver works with.
#[derive(Clone)]
pub struct Means {
    /// The machine.
    pub host: Host,
    /// With a ledger of its own.
    pub engine: Engine,
    /// Where its records are kept; outlives the machine.
    pub dir: PathBuf,
    /// How partitions are reached.
    pub ways_of: WaysOf,
    /// How archives are opened.
    pub store_of: StoreOf,
    /// How many works are under way at a time, at least 1.
    pub slots: usize,
}

/// How a work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not at its end.
    Running,
    /// Done, and not attached.
    Done,
    /// It cannot be done, and is not attached.
    Failed,
}

impl State {
    /// For people and numbers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A work as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The work.
    pub job: Job,
    /// How it stands.
    pub state: State,
    /// How far it is.
    pub progress: Progress,
    /// Why it does not go on or has failed, with the class of that.
    pub trouble: Option<(Fault, String)>,
}

/// All works. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Works {
    pub(super) means: Means,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    live: Mutex<BTreeMap<Wwid, Arc<Live>>>,
    /// How many have a slot.
    at_work: Mutex<usize>,
    /// Bytes of objects that were moved by this process.
    moved: Mutex<u64>,
    shelves: Shelves,
}

/// A work that has a thread, or had one in this process.
#[derive(Default)]
pub(super) struct Live {
    pub(super) stop: AtomicBool,
    ended: AtomicBool,
    pub(super) told: Mutex<Told>,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) progress: Progress,
    pub(super) trouble: Option<(Fault, String)>,
}

impl Live {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Counts as ended also when the thread panics.
struct Ending(Arc<Live>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

impl Works {
    /// Nothing is begun yet; see [`Self::resume`].
    #[must_use]
    pub fn new(means: Means) -> Self {
        Self {
            means,
            shared: Arc::default(),
        }
    }

    pub(super) fn shelves(&self) -> &Shelves {
        &self.shared.shelves
    }

    pub(super) fn records(&self) -> Records {
        Records {
            host: self.means.host.clone(),
            dir: self.means.dir.clone(),
        }
    }

    /// Goes on with what an earlier process left.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn resume(&self) -> Result<(), WorkError> {
        for job in self.records().list()? {
            if job.leaving || self.state_of(&job)? == State::Running {
                tracing::info!(wwid = %job.wwid(), what = job.told(), "taken up again");
                self.ensure_thread(&job)?;
            }
        }
        Ok(())
    }

    /// Begins the work, or joins the one that is there. When this answers it is durable.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub fn start(&self, job: &Job) -> Result<Standing, WorkError> {
        let known = match self.records().find(job.wwid())? {
            Some(known) if known.leaving => {
                return Err(WorkError::Leaving(job.wwid().to_string()));
            }
            Some(known) if !known.is_same(job) => {
                return Err(WorkError::Other {
                    wwid: job.wwid().to_string(),
                    found: known.told(),
                });
            }
            Some(known) => known,
            None => {
                self.refuse_early(job)?;
                self.records().write(job)?;
                tracing::info!(wwid = %job.wwid(), what = job.told(), "begun");
                job.clone()
            }
        };
        if self.state_of(&known)? == State::Running {
            self.ensure_thread(&known)?;
        }
        self.standing(known)
    }

    /// What the config stands against is refused before anything is kept.
    fn refuse_early(&self, job: &Job) -> Result<(), WorkError> {
        if (self.means.ways_of)(&job.partition).is_none() {
            return Err(WorkError::NoPartition(job.partition.clone()));
        }
        let name: Result<crate::archive::SnapshotName, _> = job.snapshot.parse();
        name.map(drop)
            .map_err(|_| WorkError::NoArchive(job.snapshot.clone()))
    }

    /// How the work on this volume stands.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub fn find(&self, wwid: &Wwid) -> Result<Option<Standing>, WorkError> {
        let job = self.records().find(wwid)?;
        job.map(|job| self.standing(job)).transpose()
    }

    /// How all stand.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub fn list(&self) -> Result<Vec<Standing>, WorkError> {
        let jobs = self.records().list()?.into_iter();
        jobs.map(|job| self.standing(job)).collect()
    }

    /// Bytes of objects that this process has moved.
    #[must_use]
    pub fn moved(&self) -> u64 {
        *lock(&self.shared.moved)
    }

    pub(super) fn add_moved(&self, bytes: u64) {
        *lock(&self.shared.moved) += bytes;
    }

    /// Gives the work up and forgets it; nothing of it is attached when this answers. Absent is fine.
    ///
    /// # Errors
    /// [`WorkError::Running`] while its thread has not ended by `deadline`; see [`WorkError`].
    pub fn forget(&self, wwid: &Wwid, deadline: Deadline) -> Result<(), WorkError> {
        let Some(job) = self.records().find(wwid)? else {
            return Ok(());
        };
        let job = Job {
            leaving: true,
            ..job
        };
        self.records().write(&job)?;
        let live = lock(&self.shared.live).get(wwid).cloned();
        if let Some(live) = live {
            live.stop.store(true, Ordering::SeqCst);
            let ended = || {
                let ended = live.ended.load(Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(ended.then_some(()))
            };
            let Ok(ended) = self.means.host.wait_for(deadline, ended);
            if ended.is_none() {
                return Err(WorkError::Running(wwid.to_string()));
            }
        }
        self.take_away(&job, deadline)
    }

    /// Detaches and forgets.
    pub(super) fn take_away(&self, job: &Job, deadline: Deadline) -> Result<(), WorkError> {
        self.means.engine.detach(&job.key(), deadline)?;
        self.records().remove(job.wwid())?;
        lock(&self.shared.live).remove(job.wwid());
        tracing::info!(wwid = %job.wwid(), what = job.told(), "forgotten");
        Ok(())
    }

    /// What is at its end is told so only when it is attached no more.
    fn state_of(&self, job: &Job) -> Result<State, WorkError> {
        let Some(end) = &job.end else {
            return Ok(State::Running);
        };
        if self.means.engine.find_record(&job.key())?.is_some() {
            return Ok(State::Running);
        }
        Ok(match end {
            End::Done {} => State::Done,
            End::Failed { .. } => State::Failed,
        })
    }

    fn standing(&self, job: Job) -> Result<Standing, WorkError> {
        let state = self.state_of(&job)?;
        let live = lock(&self.shared.live).get(job.wwid()).cloned();
        let (progress, trouble) = match &live {
            Some(live) => {
                let told = lock(&live.told);
                (told.progress, told.trouble.clone())
            }
            None => Default::default(),
        };
        let trouble = match &job.end {
            Some(End::Failed { code, reason }) => {
                Some((Fault::from_code((*code).into()), reason.clone()))
            }
            _ => trouble,
        };
        Ok(Standing {
            job,
            state,
            progress,
            trouble,
        })
    }

    /// One thread for each work.
    fn ensure_thread(&self, job: &Job) -> Result<(), WorkError> {
        let mut all = lock(&self.shared.live);
        let runs = |live: &Arc<Live>| !live.ended.load(Ordering::SeqCst);
        if all.get(job.wwid()).is_some_and(runs) {
            return Ok(());
        }
        let live = Arc::new(Live::default());
        all.insert(job.wwid().clone(), Arc::clone(&live));
        drop(all);
        let (works, wwid) = (self.clone(), job.wwid().clone());
        let ending = Ending(Arc::clone(&live));
        let labour = move || {
            let _ending = ending;
            if let Err(error) = works.labour(&wwid, &live) {
                let error = chain(&error);
                tracing::error!(%wwid, error, "the work stands still until it is asked for again");
            }
        };
        let named = std::thread::Builder::new().name("archive work".to_owned());
        named.spawn(labour).map(drop).map_err(WorkError::Thread)
    }

    /// Waits for a slot; `None` when the work is stopped first.
    pub(super) fn take_slot(&self, live: &Live) -> Option<Slot> {
        let taken = || {
            let mut at_work = lock(&self.shared.at_work);
            if live.is_stopped() {
                return Ok(Some(None));
            }
            if *at_work >= self.means.slots.max(1) {
                return Ok::<_, std::convert::Infallible>(None);
            }
            *at_work += 1;
            Ok(Some(Some(Slot(self.clone()))))
        };
        let host = &self.means.host;
        loop {
            // As long as it takes: nothing is held meanwhile.
            let Ok(taken) = host.wait_for(host.deadline_in(DETACH), taken);
            if let Some(taken) = taken {
                return taken;
            }
        }
    }
}

/// Leave to transfer.
pub(super) struct Slot(Works);

impl Drop for Slot {
    fn drop(&mut self) {
        *lock(&self.0.shared.at_work) -= 1;
    }
}

/// The partition in a key of the ledger.
#[must_use]
pub fn partition_of(key: &str) -> Option<SanName> {
    let (partition, _) = key.strip_prefix("archiver:")?.split_once(':')?;
    partition.parse().ok()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
