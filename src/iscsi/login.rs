//! From a portal and a target name to a session, and back.
//!
//! One flight at a time for each portal and target, across processes: two logins at once make two sessions. The lock is held until iscsiadm
//! has ended, or has outlived all limits of its own; callers give up by their own deadline.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::iscsiadm::{self, Exit, IscsiadmError};
use super::records::{self, OwnRecord, RecordError};
use super::session::{Session, SessionState, find_session};
use crate::deadline::Deadline;
use crate::fabric::{Iqn, Portal};
use crate::fault::{Fault, Faulted};
use crate::host::{Host, LockGuard};

/// A portal that takes longer to accept a connection is dead for the purposes of a login.
const PROBE: Duration = Duration::from_secs(2);
/// Calls that fail in passing are repeated this often.
const TRIES: u32 = 4;
/// The pause before the first repetition; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no session, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Reading the state failed.
    #[error("the sessions could not be read")]
    Read(#[source] io::Error),
    /// Nothing listens at the portal.
    #[error("portal {portal} does not answer")]
    Dead {
        /// Which.
        portal: Portal,
        #[source]
        source: io::Error,
    },
    /// The session exists and has lost its connection; iscsid is at it.
    #[error("session {sid} to {portal} has lost its connection")]
    Down {
        /// Its number.
        sid: u32,
        /// Its portal.
        portal: Portal,
    },
    /// Another login or logout holds the portal.
    #[error("another login or logout at {0} did not end in time")]
    Locked(Portal),
    /// The lock file cannot be used.
    #[error("the lock {} cannot be used", path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Our note about the record failed.
    #[error("the note about our record for {portal}")]
    Record {
        /// Whose.
        portal: Portal,
        #[source]
        source: RecordError,
    },
    /// iscsiadm failed.
    #[error("target {iqn} at {portal}")]
    Iscsiadm {
        /// Where.
        portal: Portal,
        /// Which target.
        iqn: Iqn,
        #[source]
        source: IscsiadmError,
    },
    /// iscsiadm was content and yet there is no session.
    #[error("login to {iqn} at {portal} left no session")]
    NoSession {
        /// Where.
        portal: Portal,
        /// Which target.
        iqn: Iqn,
    },
}

impl Faulted for SessionError {
    fn fault(&self) -> Fault {
        match self {
            Self::Iscsiadm { source, .. } => source.fault(),
            _ => Fault::MaybeDone,
        }
    }
}

/// This machine's initiator: where its things are.
#[derive(Clone, Debug)]
pub struct Initiator {
    /// The host's root directory as we see it; open-iscsi's database is looked for below it.
    pub root: PathBuf,
    /// Lock files, shared by every process of ours on the host.
    pub locks: PathBuf,
    /// Our notes about records that we made.
    pub own: PathBuf,
}

impl Initiator {
    /// Makes sure that a session to `iqn` at `portal` is logged in. One that is there already costs no process.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn ensure_session(
        &self,
        host: &Host,
        portal: Portal,
        iqn: &Iqn,
        deadline: Deadline,
    ) -> Result<Session, SessionError> {
        if let Some(session) = wait_until_up(host, portal, iqn, deadline)? {
            return Ok(session);
        }
        // Before the lock: callers who wait for a dead portal wait at the same time, and iscsid never hears of it.
        host.probe_tcp(portal.socket_address(), PROBE)
            .map_err(|source| SessionError::Dead { portal, source })?;
        let _flight = self.lock(host, portal, iqn, deadline)?;
        if let Some(session) = wait_until_up(host, portal, iqn, deadline)? {
            return Ok(session);
        }
        self.log_in(host, portal, iqn)
            .map_err(|source| match source {
                LoginError::Record(source) => SessionError::Record { portal, source },
                LoginError::Iscsiadm(source) => SessionError::Iscsiadm {
                    portal,
                    iqn: iqn.clone(),
                    source,
                },
            })?;
        wait_until_up(host, portal, iqn, deadline)?.ok_or_else(|| SessionError::NoSession {
            portal,
            iqn: iqn.clone(),
        })
    }

    /// Ends the session to `iqn` at `portal` and removes its record, both made by us, provided that `is_idle` still holds under the lock.
    /// False when it does not.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn remove_session(
        &self,
        host: &Host,
        record: &OwnRecord,
        is_idle: &dyn Fn(Option<&Session>) -> bool,
        deadline: Deadline,
    ) -> Result<bool, SessionError> {
        let (portal, iqn) = (record.portal, &record.iqn);
        let _flight = self.lock(host, portal, iqn, deadline)?;
        let session = find_session(host, portal, iqn).map_err(SessionError::Read)?;
        if !is_idle(session.as_ref()) {
            return Ok(false);
        }
        let failed = |source| SessionError::Iscsiadm {
            portal,
            iqn: iqn.clone(),
            source,
        };
        if let Some(session) = session {
            patiently(host, || iscsiadm::logout(host, session.sid)).map_err(failed)?;
        }
        patiently(host, || iscsiadm::delete_record(host, portal, iqn)).map_err(failed)?;
        records::forget(host, &self.own, portal, iqn)
            .map_err(|source| SessionError::Record { portal, source })?;
        Ok(true)
    }

    /// The records that we made.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn own_records(&self, host: &Host) -> Result<Vec<OwnRecord>, RecordError> {
        records::list_own(host, &self.own)
    }

    fn lock(
        &self,
        host: &Host,
        portal: Portal,
        iqn: &Iqn,
        deadline: Deadline,
    ) -> Result<LockGuard, SessionError> {
        let path = self
            .locks
            .join(format!("portal-{}.lock", records::file_stem(portal, iqn)));
        let taken = host
            .ensure_directory(&self.locks)
            .and_then(|()| host.lock(&path, deadline));
        taken
            .map_err(|source| SessionError::Lock { path, source })?
            .ok_or(SessionError::Locked(portal))
    }

    /// Record, settings, login: three processes, two when the record is there.
    fn log_in(&self, host: &Host, portal: Portal, iqn: &Iqn) -> Result<(), LoginError> {
        // Not knowing counts as missing: the record is then set up from scratch.
        if !records::exists(host, &self.root, portal, iqn).unwrap_or(false) {
            self.make_record(host, portal, iqn)?;
        }
        match patiently(host, || iscsiadm::update_record(host, portal, iqn)) {
            // Seen in a database that this iscsiadm does not use.
            Err(error) if error.exit() == Some(Exit::NotFound) => {
                self.make_record(host, portal, iqn)?;
                patiently(host, || iscsiadm::update_record(host, portal, iqn))?;
            }
            updated => updated?,
        }
        Ok(patiently(host, || iscsiadm::login(host, portal, iqn))?)
    }

    fn make_record(&self, host: &Host, portal: Portal, iqn: &Iqn) -> Result<(), LoginError> {
        records::remember(host, &self.own, portal, iqn)?;
        Ok(patiently(host, || {
            iscsiadm::create_record(host, portal, iqn)
        })?)
    }
}

/// Why a login got stuck.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Iscsiadm(#[from] IscsiadmError),
}

/// Repeats a call that fails in passing, with growing pauses.
fn patiently(
    host: &Host,
    mut call: impl FnMut() -> Result<(), IscsiadmError>,
) -> Result<(), IscsiadmError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match call() {
            Err(error) if error.exit().is_some_and(Exit::is_passing) => {
                tracing::debug!(error = %error, "iscsiadm failed in passing; trying again");
            }
            ended => return ended,
        }
        back_off(host, pause);
        pause *= 2;
    }
    call()
}

/// The session, logged in. One that lost its connection is waited for, since iscsid brings it back; `None` when there is none at all.
fn wait_until_up(
    host: &Host,
    portal: Portal,
    iqn: &Iqn,
    deadline: Deadline,
) -> Result<Option<Session>, SessionError> {
    let mut last = None;
    let settled = host.wait_for(deadline, || {
        last = find_session(host, portal, iqn)?;
        Ok(match &last {
            Some(session) if session.state != SessionState::LoggedIn => None,
            settled => Some(settled.clone()),
        })
    });
    match (settled.map_err(SessionError::Read)?, last) {
        (Some(settled), _) => Ok(settled),
        (None, Some(session)) => Err(SessionError::Down {
            sid: session.sid,
            portal,
        }),
        (None, None) => Ok(None),
    }
}

fn back_off(host: &Host, pause: Duration) {
    let nothing = || Ok::<Option<()>, std::convert::Infallible>(None);
    let Ok(_) = host.wait_for(host.deadline_in(pause), nothing);
}
