//! What can go wrong, by step, and what it means for the caller.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{ChapRefused, LedgerError};
use crate::fabric::{WantedPath, Wwid};
use crate::fault::{Fault, Faulted, chain};
use crate::iscsi::{RecordError, SessionError};
use crate::multipath::{
    ClaimError, DaemonError, QueueingError, RemoveMapError, RetryError, UnseenError,
};
use crate::scsi::{IdentityError, RemoveDiskError, ScanError};

/// Why one path is not there.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The ledger could not be asked.
    #[error("the ledger")]
    Ledger(#[source] LedgerError),
    /// The volume was taken away meanwhile.
    #[error("nobody wants the volume any more")]
    Unwanted,
    /// No session.
    #[error("no session")]
    Session(#[source] SessionError),
    /// Nobody can tell what the login is proven with.
    #[error("no credentials")]
    Credentials(#[source] ChapRefused),
    /// The WWID is not registered with multipath.
    #[error("multipath was not prepared")]
    Claim(#[source] ClaimError),
    /// udev is not told to leave the map alone.
    #[error("the host would look into the volume")]
    Unseen(#[source] UnseenError),
    /// The kernel could not be asked.
    #[error("no scan")]
    Scan(#[source] ScanError),
    /// sysfs could not be read.
    #[error("the disks could not be read")]
    Read(#[source] io::Error),
    /// The target shows no disk there.
    #[error("the target shows no disk under LUN {lun}")]
    NoDisk {
        /// Which.
        lun: u16,
    },
    /// The disk does not say who it is.
    #[error("identity of {disk}")]
    Identity {
        /// Which.
        disk: String,
        #[source]
        source: IdentityError,
    },
    /// It is another volume.
    #[error("{disk} is {found}, not {expected}{}", in_use_text(in_use))]
    WrongDevice {
        /// Which disk.
        disk: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: Wwid,
        /// Who uses it; such a disk is not touched.
        in_use: Vec<String>,
    },
    /// A disk of another volume stands in the way and does not go.
    #[error("a disk of another volume stands there")]
    Stale(#[source] RemoveDiskError),
    /// It is smaller than the SAN told, or than the other paths.
    #[error("{disk} has {found} bytes, less than {expected}")]
    WrongSize {
        /// Which disk.
        disk: String,
        /// What it has.
        found: u64,
        /// What it should have.
        expected: u64,
    },
    /// multipathd will not take it.
    #[error("multipathd blacklists {disk}: see its configuration")]
    Blacklisted {
        /// Which disk.
        disk: String,
    },
    /// Nothing is amiss with it; the host has more to do than there was time for.
    #[error("{disk} is in no map yet: udev is still at work; repeat the call")]
    UdevAtWork {
        /// Which disk.
        disk: String,
    },
    /// multipathd did not take it.
    #[error("{disk} is in no map: {why}")]
    NotMember {
        /// Which disk.
        disk: String,
        /// multipathd's last word, or who else has the disk.
        why: String,
    },
}

fn in_use_text(in_use: &[String]) -> String {
    if in_use.is_empty() {
        String::new()
    } else {
        format!(" (in use: {})", in_use.join(", "))
    }
}

impl Faulted for PathError {
    fn fault(&self) -> Fault {
        match self {
            Self::Session(source) => source.fault(),
            Self::Claim(source) => source.fault(),
            Self::Credentials(_)
            | Self::WrongDevice { .. }
            | Self::WrongSize { .. }
            | Self::Blacklisted { .. } => Fault::Precondition,
            _ => Fault::MaybeDone,
        }
    }
}

/// What kept a path away, as far as it takes different hands to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody answers at the portal.
    NoAnswer,
    /// The target and this node do not accept each other: CHAP.
    Refused,
    /// Nothing yet: it was still on its way.
    UnderWay,
    /// What the words say.
    Other,
}

/// Why a path is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For people.
    pub words: String,
    /// Its kind.
    pub cause: Cause,
}

impl From<&PathError> for Reason {
    fn from(error: &PathError) -> Self {
        let cause = match error {
            PathError::Session(SessionError::Dead { .. } | SessionError::Down { .. }) => {
                Cause::NoAnswer
            }
            PathError::Session(SessionError::Denied { .. } | SessionError::Unproven { .. }) => {
                Cause::Refused
            }
            PathError::UdevAtWork { .. } => Cause::UnderWay,
            _ => Cause::Other,
        };
        Self {
            words: chain(error),
            cause,
        }
    }
}

fn missing_text(missing: &[(WantedPath, Reason)]) -> String {
    let told = |(path, reason): &(WantedPath, Reason)| {
        format!("{}: {}", path.nexus().place(), reason.words)
    };
    missing.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Why there is no verified map.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The request makes no sense.
    #[error("{0}")]
    Want(&'static str),
    /// Nobody can tell what its logins are proven with.
    #[error("no credentials for the logins of {key}")]
    Credentials {
        /// Whose.
        key: String,
        #[source]
        source: ChapRefused,
    },
    /// The ledger.
    #[error("the ledger")]
    Ledger(#[from] LedgerError),
    /// The lock file.
    #[error("the lock of {key} cannot be used")]
    Lock {
        /// Whose.
        key: String,
        #[source]
        source: io::Error,
    },
    /// Another operation has the volume.
    #[error("another operation on {key} did not end in time")]
    Locked {
        /// Which.
        key: String,
    },
    /// The key is taken.
    #[error("{key} is recorded as {recorded}, not {wanted}")]
    Taken {
        /// Which.
        key: String,
        /// What the ledger has.
        recorded: Wwid,
        /// What was asked for.
        wanted: Wwid,
    },
    /// No thread could be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// sysfs could not be read.
    #[error("the maps could not be read")]
    Read(#[source] io::Error),
    /// Its I/O would wait otherwise than it should.
    #[error(transparent)]
    Retry(#[from] RetryError),
    /// Too few paths.
    #[error(
        "{verified} of {needed} needed paths to {wwid}; {}",
        missing_text(missing)
    )]
    TooFew {
        /// Whose.
        wwid: Wwid,
        /// How many there are.
        verified: usize,
        /// How many there must be.
        needed: usize,
        /// The others, and why each is missing.
        missing: Vec<(WantedPath, Reason)>,
        /// The gravest of the reasons, as a class.
        fault: Fault,
        /// A verified disk waits for udev alone. Taking it away would only give udev more to do.
        awaits_udev: bool,
    },
    /// The map is not there or not right.
    #[error("the map of {wwid}: {why}")]
    Map {
        /// Whose.
        wwid: Wwid,
        /// What is amiss.
        why: String,
    },
    /// A disk of another volume is in the map.
    #[error("map {map} of {wwid} holds {member}, which is {found}")]
    WrongMember {
        /// The map.
        map: String,
        /// Whose it is.
        wwid: Wwid,
        /// The disk.
        member: String,
        /// What the disk says.
        found: String,
    },
    /// Nobody has it attached.
    #[error("{key} is not attached")]
    NotAttached {
        /// Which.
        key: String,
    },
    /// A path shows less than the map has. Whatever the reason, the map is not made smaller.
    #[error(
        "{disk} has {found} bytes and the map of {wwid} has {map}; a volume must not shrink, and the map stays as it is"
    )]
    Shrunk {
        /// Whose.
        wwid: Wwid,
        /// Which disk.
        disk: String,
        /// What it has.
        found: u64,
        /// What the map has.
        map: u64,
    },
    /// The map has not grown in time.
    #[error("the map of {wwid} has not grown: {why}")]
    NotGrown {
        /// Whose.
        wwid: Wwid,
        /// How far it has come.
        why: String,
    },
    /// It failed, and what it had made could not be taken away.
    #[error("what was begun could not be undone ({undo})")]
    NotUndone {
        /// Why not.
        undo: String,
        /// Why it failed in the first place.
        #[source]
        source: Box<AttachError>,
    },
}

impl AttachError {
    /// The paths that it failed for, and why each is missing.
    #[must_use]
    pub fn missing(&self) -> &[(WantedPath, Reason)] {
        match self {
            Self::TooFew { missing, .. } => missing,
            Self::NotUndone { source, .. } => source.missing(),
            _ => &[],
        }
    }
}

impl Faulted for AttachError {
    fn fault(&self) -> Fault {
        match self {
            Self::Want(_) => Fault::Invalid,
            Self::Ledger(source) => source.fault(),
            Self::Locked { .. } => Fault::Busy,
            Self::Taken { .. } => Fault::Conflict,
            Self::Thread(_) => Fault::Exhausted,
            Self::Retry(source) => source.fault(),
            Self::TooFew { fault, .. } => *fault,
            Self::Credentials { .. }
            | Self::WrongMember { .. }
            | Self::NotAttached { .. }
            | Self::Shrunk { .. } => Fault::Precondition,
            Self::Lock { .. }
            | Self::Read(_)
            | Self::Map { .. }
            | Self::NotGrown { .. }
            | Self::NotUndone { .. } => Fault::MaybeDone,
        }
    }
}

/// Why a volume is not gone, or a session not ended.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The ledger.
    #[error("the ledger")]
    Ledger(#[from] LedgerError),
    /// The lock file.
    #[error("the lock of {key} cannot be used")]
    Lock {
        /// Whose.
        key: String,
        #[source]
        source: io::Error,
    },
    /// Another operation has the volume.
    #[error("another operation on {key} did not end in time")]
    Locked {
        /// Which.
        key: String,
    },
    /// No thread could be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// sysfs could not be read.
    #[error("the devices could not be read")]
    Read(#[source] io::Error),
    /// The page cache of the map could not be written out. Data would be lost.
    #[error("{} could not be flushed; its unwritten data would be lost", device.display())]
    Flush {
        /// The map's node.
        device: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A step did not end in time; it goes on by itself.
    #[error("{what} did not end in time")]
    Overdue {
        /// Which step.
        what: String,
    },
    /// The map.
    #[error("the map of {wwid}")]
    Map {
        /// Whose.
        wwid: Wwid,
        #[source]
        source: RemoveMapError,
    },
    /// A disk.
    #[error("a disk of {wwid}")]
    Disk {
        /// Whose.
        wwid: Wwid,
        #[source]
        source: Arc<RemoveDiskError>,
    },
    /// multipathd could not be asked whether it has forgotten the paths.
    #[error("the paths of {wwid}")]
    Paths {
        /// Whose.
        wwid: Wwid,
        #[source]
        source: DaemonError,
    },
    /// I/O to the map waits for paths still.
    #[error("the map cannot be made to fail what waits for a path")]
    Queueing(#[source] QueueingError),
    /// The WWID is still registered with multipath.
    #[error("multipath still claims the WWID")]
    Claim(#[source] ClaimError),
    /// Its mark for udev is still there.
    #[error("the mark for udev stays")]
    Unseen(#[source] UnseenError),
    /// Things of the volume keep appearing.
    #[error("devices of {wwid} keep appearing: {}", what.join(", "))]
    Reappears {
        /// Whose.
        wwid: Wwid,
        /// What was seen last.
        what: Vec<String>,
    },
    /// Notes about our sessions.
    #[error("the notes about our sessions")]
    Records(#[source] RecordError),
}

impl Faulted for DetachError {
    fn fault(&self) -> Fault {
        match self {
            Self::Ledger(source) => source.fault(),
            Self::Locked { .. } => Fault::Busy,
            Self::Thread(_) => Fault::Exhausted,
            Self::Map { source, .. } => source.fault(),
            Self::Disk { source, .. } => source.fault(),
            Self::Overdue { .. } => Fault::Timeout,
            _ => Fault::MaybeDone,
        }
    }
}
