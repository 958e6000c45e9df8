//! The host side of a volume: from an export to one verified multipath map, and back to nothing.
//!
//! Node and archiver call it, on plain threads. It knows iSCSI sessions, SCSI disks and maps, and nothing of CSI. What it promises:
//!
//! - a map is handed out only when its dm uuid and the fresh identity of its members are those of the export and it is not smaller; never a bare sdX;
//! - a map grows only when all its paths show the new size, and never shrinks;
//! - the ledger says what is wanted before the first side effect and until after the last, so a detach needs nothing else;
//! - a thread that comes back late asks the ledger and takes away what nobody wants any more;
//! - sessions are the node's, not the volume's: only those that we made are ever logged out, and only when idle;
//! - two engines on a machine, of the node and of the archiver, have an initiator's name, records and notes of their own, and neither sees the other's sessions.

mod detach;
mod ensure;
mod error;
mod heal;
mod held;
mod ledger;
mod no_path_retry;
mod observe;
mod outage;
mod pace;
mod path;
mod plan;
#[cfg(test)]
mod races;
mod reap;
mod release;
mod resize;
mod show;
mod strays;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

pub use detach::Outcome;
pub use error::{AttachError, Cause, DetachError, PathError, Reason};
pub use heal::Healed;
pub use ledger::{Learned, LedgerError, Member, Record};
pub use outage::Standing;
pub use reap::Reaped;
pub use resize::Resized;
pub use show::{PathRow, PathTable};

use crate::deadline::{Deadline, Moment};
use crate::fabric::{Chap, Export, Iqn, Nexus, NoPathRetry, Selection, WantedPath, Wwid};
use crate::fault::chain;
use crate::flights::{Flights, Listener};
use crate::host::{Host, LockGuard};
use crate::iscsi::Initiator;
use crate::multipath::DropIn;
pub use crate::multipath::{Opener, Reach, Unwritten};

use ledger::{Ledger, Listing};

/// Where the engine keeps its things. All of them survive the process; the locks need not survive the machine.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// The host's root directory as we see it: `/`, or where a container has it mounted.
    pub root: PathBuf,
    /// One record for each attached volume.
    pub ledger: PathBuf,
    /// One note for each node record that we made.
    pub sessions: PathBuf,
    /// Lock files, the same for every process of ours on the host.
    pub locks: PathBuf,
}

impl Dirs {
    /// The layout that every process of ours on a host shares: records and notes in `state`, which outlives a reboot; locks in `runtime`.
    #[must_use]
    pub fn under(root: &Path, state: &Path, runtime: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ledger: state.join("ledger"),
            sessions: state.join("sessions"),
            locks: runtime.join("locks"),
        }
    }
}

/// What a caller wants attached.
#[derive(Clone, Debug)]
pub struct Want {
    /// The owner's name for it; opaque here.
    pub key: String,
    /// The volume.
    pub export: Export,
    /// The paths to have, chosen from the export.
    pub wanted: Vec<WantedPath>,
    /// How long its I/O waits while no path works; `None` leaves that to the host's multipath configuration.
    pub no_path_retry: Option<NoPathRetry>,
    /// With fewer verified paths the map is not handed out. At least 1.
    pub min_paths: usize,
    /// When to give up.
    pub deadline: Deadline,
    /// How long to wait for the remaining paths once there are enough.
    pub grace: Duration,
    /// The owner's own notes, kept in the record from its beginning. Notes of a record that is there already stay as they are;
    /// [`Engine::update_payload`] changes them.
    pub payload: Value,
}

/// A verified map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDevice {
    /// Its dm name.
    pub name: String,
    /// `dm-3`.
    pub dm: String,
    /// Its node, `/dev/dm-3`. devtmpfs makes it together with the device, while the link `/dev/mapper/NAME` comes later from udev or never. A minor
    /// is reused only after the map is removed, and whoever holds the volume's operation is the only one who removes it: so the path is good until
    /// then, and must not be kept beyond.
    pub path: PathBuf,
    /// The identity that it and its members carry.
    pub wwid: Wwid,
    /// Its size in bytes.
    pub size: u64,
    /// The sdX under it.
    pub members: Vec<String>,
}

/// What came of [`Engine::ensure`].
#[derive(Clone, Debug)]
pub struct Attached {
    /// The map to use.
    pub map: MapDevice,
    /// The paths that are not in it, and why.
    pub missing: Vec<(WantedPath, String)>,
    /// Whether anything had to be done.
    pub changed: bool,
}

/// What the owner of a key has its logins proven with; `None` is no CHAP. Asked anew at each use, also when no caller is there to ask.
pub type ChapOf = Arc<dyn Fn(&str) -> Result<Option<Chap>, ChapRefused> + Send + Sync>;

/// Why the owner of a key cannot tell.
pub type ChapRefused = Box<dyn std::error::Error + Send + Sync>;

/// Which paths the owner of a record wants it to have now, and what of its list cannot be had; `None` when it cannot say, and then the record tells.
pub type DesiredOf = Arc<dyn Fn(&Record) -> Option<Selection> + Send + Sync>;

/// The attach engine. Cheap to clone; clones share their flights.
#[derive(Clone)]
pub struct Engine {
    host: Host,
    chap_of: ChapOf,
    desired_of: DesiredOf,
    shared: Arc<Shared>,
}

struct Shared {
    dirs: Dirs,
    initiator: Initiator,
    drop_in: DropIn,
    paths: Flights<path::PathOutcome>,
    chores: Flights<release::ChoreOutcome>,
    identities: Flights<verify::MemberIdentity>,
    rescans: Flights<resize::RescanOutcome>,
    idle: Mutex<BTreeMap<Nexus, Moment>>,
    /// Unreadable records that the log has told of.
    told_unread: Mutex<BTreeSet<String>>,
    healing: Mutex<pace::Healing>,
}

impl Engine {
    /// An engine that works on `host`; its logins are without CHAP.
    #[must_use]
    pub fn new(host: Host, dirs: Dirs) -> Self {
        Self::of(host, dirs, None)
    }

    /// One that is another initiator than the machine's own, and bears this name. The host is not to look into its maps.
    #[must_use]
    pub fn named(host: Host, dirs: Dirs, name: Iqn) -> Self {
        Self::of(host, dirs, Some(name))
    }

    fn of(host: Host, dirs: Dirs, name: Option<Iqn>) -> Self {
        let drop_in = DropIn::of(&dirs.root, name.as_ref().map(Iqn::last_part));
        let initiator = Initiator {
            name,
            root: dirs.root.clone(),
            locks: dirs.locks.clone(),
            own: dirs.sessions.clone(),
        };
        Self {
            host,
            chap_of: Arc::new(|_| Ok(None)),
            desired_of: Arc::new(|_| None),
            shared: Arc::new(Shared {
                dirs,
                initiator,
                drop_in,
                paths: Flights::default(),
                chores: Flights::default(),
                identities: Flights::default(),
                rescans: Flights::default(),
                idle: Mutex::default(),
                told_unread: Mutex::default(),
                healing: Mutex::default(),
            }),
        }
    }

    /// The same engine, whose logins are proven with what `chap_of` tells.
    #[must_use]
    pub fn with_chap(self, chap_of: ChapOf) -> Self {
        Self { chap_of, ..self }
    }

    /// The same engine, which keeps each volume at the paths that `desired_of` tells.
    #[must_use]
    pub fn with_desired(self, desired_of: DesiredOf) -> Self {
        Self { desired_of, ..self }
    }

    /// The same engine acting through `host`: a tallied clone, so that one call's processes can be counted.
    #[must_use]
    pub fn acting_on(&self, host: Host) -> Self {
        Self {
            host,
            chap_of: Arc::clone(&self.chap_of),
            desired_of: Arc::clone(&self.desired_of),
            shared: Arc::clone(&self.shared),
        }
    }

    /// The record of `key`, of this boot or an earlier one.
    ///
    /// # Errors
    /// See [`LedgerError`]. An unreadable record is an error, never an absent one.
    pub fn find_record(&self, key: &str) -> Result<Option<Record>, LedgerError> {
        self.ledger().find(key)
    }

    /// All records that can be read. Of the others it is told once in the log: they are errors of their own volumes alone.
    ///
    /// # Errors
    /// When the ledger cannot be read as a whole.
    pub fn list_records(&self) -> Result<Vec<Record>, LedgerError> {
        Ok(self.list_ledger()?.records)
    }

    /// Replaces the owner's notes in the record of `key`, durably. The owner holds the volume's operation.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] without a record; others as the disk has it.
    pub fn update_payload(&self, key: &str, payload: Value) -> Result<(), LedgerError> {
        let ledger = self.ledger();
        let record = ledger.find(key)?.ok_or_else(|| LedgerError::Missing {
            key: key.to_owned(),
        })?;
        if record.payload == payload {
            return Ok(());
        }
        ledger.write(&Record { payload, ..record })
    }

    fn list_ledger(&self) -> Result<Listing, LedgerError> {
        let listing = self.ledger().list()?;
        let told = &self.shared.told_unread;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        for unread in &listing.unread {
            let error = chain(&unread.error);
            if !told.contains(&error) {
                tracing::error!(error, "a record cannot be read; its volume is left alone");
                told.insert(error);
            }
        }
        Ok(listing)
    }

    /// The threads of this engine's own that are under way.
    #[cfg(test)]
    fn threads(&self) -> usize {
        let shared = &self.shared;
        let asking = shared.identities.count() + shared.rescans.count();
        shared.paths.count() + shared.chores.count() + asking
    }

    /// Waits until none of these is under way any more, or `deadline` passes; how each ended, its listener tells.
    fn wait_until_landed<'l, T: 'l>(
        &self,
        listeners: impl Iterator<Item = &'l Listener<T>> + Clone,
        deadline: Deadline,
    ) {
        let all = || {
            let all = !listeners.clone().any(Listener::is_flying);
            Ok::<_, std::convert::Infallible>(all.then_some(()))
        };
        let Ok(_) = self.host.wait_for(deadline, all);
    }

    /// The session that carries `path`, of this engine's own initiator.
    fn nexus_of(&self, path: &WantedPath) -> Nexus {
        Nexus {
            initiator: self.shared.initiator.name.clone(),
            ..path.nexus()
        }
    }

    /// Whether its volumes are nobody's on this host.
    fn is_unseen(&self) -> bool {
        self.shared.initiator.name.is_some()
    }

    fn ledger(&self) -> Ledger<'_> {
        Ledger {
            host: &self.host,
            dir: &self.shared.dirs.ledger,
        }
    }

    /// Takes the volume for one operation, across processes. `None` when somebody kept it past `deadline`.
    fn lock_volume(&self, key: &str, deadline: Deadline) -> std::io::Result<Option<LockGuard>> {
        let locks = &self.shared.dirs.locks;
        self.host.ensure_directory(locks)?;
        let path = locks.join(format!("volume-{}.lock", ledger::file_stem(key)));
        self.host.lock(&path, deadline)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Engine")
            .field("dirs", &self.shared.dirs)
            .finish_non_exhaustive()
    }
}
