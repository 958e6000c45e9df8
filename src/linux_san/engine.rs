//! What the operations share, and how a SAN is opened: the first time, and every time after.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::brim::Brim;
use super::certificates::Certificates;
use super::chap::Complaints;
use super::drain::Drains;
use super::format::FormatError;
use super::lio::{Lio, LioError};
use super::names::{Plugin, SanUuid};
use super::options::{Management, OptionsError, PoolPlace, SanOptions};
use super::pool::{LvmThin, Pool, PoolError, Reflink};
use super::room::Room;
use super::state::State;
use super::state_file::StateFile;
use crate::fabric::Portal;
use crate::host::{Host, LockGuard};
use crate::tls::{PapersError, san_named_in};

/// A killed predecessor may still be held by the kernel for a moment.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(10);

/// Why a SAN does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What the operator said.
    #[error("the options of the SAN")]
    Options(#[from] OptionsError),
    /// The state directory.
    #[error("the state directory {path}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Two at once would undo each other's work.
    #[error("another process serves this SAN: it holds {0}")]
    Running(PathBuf),
    /// The lock of the pool.
    #[error("locking the pool with {path}")]
    PoolLock {
        /// The lock file.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The pool.
    #[error("the pool of the SAN")]
    Pool(#[from] PoolError),
    /// Before the first start it must be there: it says who the SAN is.
    #[error("the SAN has no certificate; make one with sanpath san init")]
    Certificate(#[from] PapersError),
    /// The kernel.
    #[error("the kernel's target")]
    Lio(#[from] LioError),
}

/// A SAN that is open. All calls block; call them from plain threads.
pub struct Engine {
    pub(super) options: SanOptions,
    pub(super) host: Host,
    pub(super) state: StateFile,
    pub(super) pool: Box<dyn Pool>,
    pub(super) lio: Lio,
    pub(super) drains: Drains,
    pub(super) complaints: Complaints,
    /// What the log was told of the pool's room.
    pub(super) room: Mutex<Room>,
    /// What is known of a full pool.
    brim: Mutex<Brim>,
    /// Held while objects that several volumes or nodes share are made or removed. Never while waiting for I/O to land.
    kernel: Mutex<()>,
    _alone: Mutex<(LockGuard, Option<LockGuard>)>,
}

impl Engine {
    /// Opens the SAN, making state and pool at the very first start. The kernel is not touched yet: see [`Engine::restore`].
    ///
    /// # Errors
    /// See [`OpenError`]. A state file without its pool, or a pool without its state file, is refused.
    pub fn open(host: &Host, options: SanOptions) -> Result<Arc<Self>, OpenError> {
        options.check()?;
        let alone = stay_alone(host, &options)?;
        let (state, pool, sole) = open_pair(host, &options)?;
        let plugin = match options.place()? {
            PoolPlace::Directory(_) => Plugin::FileIo,
            PoolPlace::LvmThin { .. } => Plugin::Iblock,
        };
        let adapter = state.read(|state| state.san_uuid.adapter(plugin));
        Ok(Arc::new(Self {
            lio: Lio::new(host, &options.configfs, adapter, options.group_count()),
            host: host.clone(),
            options,
            state,
            pool,
            drains: Drains::default(),
            complaints: Complaints::default(),
            room: Mutex::default(),
            brim: Mutex::default(),
            kernel: Mutex::new(()),
            _alone: Mutex::new((alone, sole)),
        }))
    }

    /// Who this SAN is; never changes.
    #[must_use]
    pub fn san_uuid(&self) -> Uuid {
        self.state.read(|state| state.san_uuid.uuid())
    }

    /// Who may manage it.
    #[must_use]
    pub fn management(&self) -> Management {
        self.options.management
    }

    /// How long a caller of its management may answer nothing.
    pub fn caller_silence(&self) -> Duration {
        self.options.caller_silence
    }

    /// Where the certificates of its management are.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        Certificates::folder_in(&self.options.state_dir)
    }

    /// Where the targets listen.
    #[must_use]
    pub fn portals(&self) -> Vec<Portal> {
        self.options.groups().concat()
    }

    /// Held for moments, inside the kernel's lock or without it.
    pub(super) fn lock_brim(&self) -> MutexGuard<'_, Brim> {
        self.brim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_kernel(&self) -> MutexGuard<'_, ()> {
        // Guards no value: configfs itself says what is there.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one state, one process.
fn stay_alone(host: &Host, options: &SanOptions) -> Result<LockGuard, OpenError> {
    let failed = |source| OpenError::StateDir {
        path: options.state_dir.clone(),
        source,
    };
    host.ensure_directory(&options.state_dir).map_err(failed)?;
    hold(host, options.state_dir.join("lock"), |_, source| {
        failed(source)
    })
}

/// Of one pool, one process, whatever state it was given. Nothing is made in a directory that does not say that it is a pool.
fn own_pool(host: &Host, root: &Path) -> Result<Option<LockGuard>, OpenError> {
    if !Reflink::is_marked(host, root)? {
        return Ok(None);
    }
    let failed = |path, source| OpenError::PoolLock { path, source };
    hold(host, Reflink::lock_in(root), failed).map(Some)
}

fn hold(
    host: &Host,
    path: PathBuf,
    failed: impl FnOnce(PathBuf, std::io::Error) -> OpenError,
) -> Result<LockGuard, OpenError> {
    let deadline = host.deadline_in(PREDECESSOR_PATIENCE);
    match host.lock(&path, deadline) {
        Ok(held) => held.ok_or(OpenError::Running(path)),
        Err(source) => Err(failed(path, source)),
    }
}

/// And what holds the pool.
type Opened = (StateFile, Box<dyn Pool>, Option<LockGuard>);

/// State and pool belong together; only where neither is, both are made. The pool first: a pool without volumes and without a state
/// is what a crash in between leaves, and is taken up again.
fn open_pair(host: &Host, options: &SanOptions) -> Result<Opened, OpenError> {
    let place = options.place()?;
    let sole = match &place {
        PoolPlace::Directory(root) => own_pool(host, root)?,
        PoolPlace::LvmThin { .. } => None,
    };
    if let Some(state) = StateFile::find(host, &options.state_dir)? {
        let id = state.read(|state| state.pool_id.clone());
        let pool: Box<dyn Pool> = match &place {
            PoolPlace::Directory(root) => Box::new(Reflink::open(host, root, &id)?),
            PoolPlace::LvmThin { group, pool } => {
                Box::new(LvmThin::open(host, (group, pool), &id)?)
            }
        };
        return Ok((state, pool, sole));
    }
    let san_uuid = new_uuid(host, options)?;
    let (pool, sole) = match &place {
        PoolPlace::Directory(root) => first_pool(host, root, sole)?,
        PoolPlace::LvmThin { group, pool } => {
            let pool = LvmThin::ensure_empty(host, (group, pool))?;
            (Box::new(pool) as Box<dyn Pool>, None)
        }
    };
    let state = State::new(san_uuid, pool.id());
    tracing::info!(san = %state.san_uuid, pool = %options.pool.display(), "a new SAN");
    let state = StateFile::create(host, &options.state_dir, state)?;
    Ok((state, pool, sole))
}

/// An empty pool in a directory, and what holds it.
fn first_pool(
    host: &Host,
    root: &Path,
    sole: Option<LockGuard>,
) -> Result<(Box<dyn Pool>, Option<LockGuard>), OpenError> {
    let pool = Reflink::ensure_empty(host, root)?;
    let sole = match sole {
        None => own_pool(host, root)?,
        sole => sole,
    };
    // Who held it in between may have made volumes there.
    Reflink::ensure_empty(host, root)?;
    Ok((Box::new(pool), sole))
}

/// Who a SAN is that starts for the first time: its certificate has settled it.
fn new_uuid(host: &Host, options: &SanOptions) -> Result<SanUuid, OpenError> {
    match options.management {
        Management::Plaintext => Ok(SanUuid::random()),
        Management::Certificates => {
            let folder = Certificates::folder_in(&options.state_dir);
            Ok(san_named_in(host, &folder)?.into())
        }
    }
}
