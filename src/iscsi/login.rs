//! From a portal and a target name to a session, and back.
//!
//! One flight at a time for each portal and target, across processes: two logins at once make two sessions. The lock is held until iscsiadm
//! has ended, or has outlived all limits of its own; callers give up by their own deadline.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::authentication::{holds_other, settings_of};
use super::database::{Database, DatabaseError};
use super::iscsiadm::{self, Exit, IscsiadmError, Scan};
use super::records::{self, OwnRecord, RecordError};
use super::session::{Session, SessionState, find_session};
use crate::deadline::Deadline;
use crate::fabric::{Chap, Iqn, Portal};
use crate::fault::{Fault, Faulted, chain};
use crate::host::{Host, LockGuard};

/// A portal that takes longer to accept a connection is dead for the purposes of a login.
const PROBE: Duration = Duration::from_secs(2);
/// iscsid brings a session back in this time unless its portal is dead, or refuses the credentials that it logged in with once.
const OUTDATED_AFTER: Duration = Duration::from_secs(10);
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
    /// The target does not accept who we are, or is not who it should be.
    #[error(
        "authentication failed: target {iqn} at {portal} and this node did not accept each other {with}"
    )]
    Denied {
        /// Where.
        portal: Portal,
        /// Which target.
        iqn: Iqn,
        /// With what.
        with: String,
        #[source]
        source: Box<IscsiadmError>,
    },
    /// The login ended for good, and it is not known which side ended it.
    #[error(
        "target {iqn} at {portal} is not to be had; with mutual CHAP that is also what becomes of a target that does not prove itself: see node.session.auth.username_in and password_in"
    )]
    Unproven {
        /// Where.
        portal: Portal,
        /// Which target.
        iqn: Iqn,
        #[source]
        source: Box<IscsiadmError>,
    },
    /// open-iscsi's record of it could not be written.
    #[error("the node record for {iqn} at {portal}")]
    Database {
        /// Where.
        portal: Portal,
        /// Which target.
        iqn: Iqn,
        #[source]
        source: DatabaseError,
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
            Self::Denied { source, .. } | Self::Unproven { source, .. } => source.fault(),
            _ => Fault::MaybeDone,
        }
    }
}

/// A login: where, and proven with what.
#[derive(Clone, Copy, Debug)]
pub struct Login<'l> {
    /// Where.
    pub portal: Portal,
    /// The target there.
    pub iqn: &'l Iqn,
    /// What both sides prove; nothing without.
    pub chap: Option<&'l Chap>,
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
    /// Makes sure that the session of `login` is logged in. One that is there already costs no process and stays as it
    /// is; its record is what the next login will use.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn ensure_session(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<Session, SessionError> {
        let Login { portal, iqn, chap } = login;
        let outdated = match self.wait_until_usable(host, login, deadline)? {
            Looked::Up(session) => {
                self.keep_record_current(host, login, deadline);
                return Ok(session);
            }
            Looked::Outdated(sid) => Some(sid),
            Looked::Nothing => None,
        };
        // Before the lock: callers who wait for a dead portal wait at the same time, and iscsid never hears of it.
        host.probe_tcp(portal.socket_address(), PROBE)
            .map_err(|source| SessionError::Dead { portal, source })?;
        let _flight = self.lock(host, portal, iqn, deadline)?;
        if let Some(sid) = outdated {
            self.end_outdated(host, portal, iqn, sid)?;
        }
        if let Some(session) = wait_until_up(host, portal, iqn, deadline)? {
            return Ok(session);
        }
        self.log_in(host, login, deadline)
            .map_err(|error| error.at(portal, iqn, chap))?;
        wait_until_up(host, portal, iqn, deadline)?.ok_or_else(|| SessionError::NoSession {
            portal,
            iqn: iqn.clone(),
        })
    }

    /// Whether the session of ours has lost its connection and cannot come back by itself, for it was logged in with something else than `chap`,
    /// and iscsid tries that for ever.
    #[must_use]
    pub fn is_outdated(&self, host: &Host, session: &Session, chap: Option<&Chap>) -> bool {
        let own = |portal: Option<Portal>| {
            let found = portal.map(|at| records::find_own(host, &self.own, at, &session.iqn));
            matches!(found, Some(Ok(Some(_))))
        };
        session.state != SessionState::LoggedIn
            && (own(session.persistent) || own(session.current))
            && holds_other(host, session.sid, chap)
    }

    /// Waits until the session is logged in. One that cannot come back is not waited for longer than iscsid takes for those that can, provided that
    /// its portal answers.
    fn wait_until_usable(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<Looked, SessionError> {
        let Login { portal, iqn, chap } = login;
        let looked = |found: Option<Session>| found.map_or(Looked::Nothing, Looked::Up);
        let soon = deadline.at_most(host.now(), OUTDATED_AFTER);
        match wait_until_up(host, portal, iqn, soon) {
            Err(SessionError::Down { .. }) => {}
            settled => return settled.map(looked),
        }
        let session = find_session(host, portal, iqn).map_err(SessionError::Read)?;
        let outdated = session.filter(|session| self.is_outdated(host, session, chap));
        if let Some(session) = outdated
            && host.probe_tcp(portal.socket_address(), PROBE).is_ok()
        {
            return Ok(Looked::Outdated(session.sid));
        }
        wait_until_up(host, portal, iqn, deadline).map(looked)
    }

    /// Ends a session that cannot come back, unless it has come back or is another one by now. It serves nobody: what was under way over it fails over
    /// to the other paths, or waits for the new session as it waited for this one.
    fn end_outdated(
        &self,
        host: &Host,
        portal: Portal,
        iqn: &Iqn,
        sid: u32,
    ) -> Result<(), SessionError> {
        let session = find_session(host, portal, iqn).map_err(SessionError::Read)?;
        let still =
            |session: &Session| session.sid == sid && session.state != SessionState::LoggedIn;
        if !session.as_ref().is_some_and(still) {
            return Ok(());
        }
        tracing::warn!(%portal, %iqn, sid, "the session cannot come back with the CHAP settings that it has; logging in with the new ones");
        patiently(host, || iscsiadm::logout(host, sid))
            .map_err(|source| LoginError::Iscsiadm(source).at(portal, iqn, None))
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
        let database = self.database(host);
        let freed = database.remove_stale_lock(deadline);
        freed.map_err(|error| LoginError::Database(error).at(portal, iqn, None))?;
        let failed = |source| LoginError::Iscsiadm(source).at(portal, iqn, None);
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
    fn log_in(&self, host: &Host, login: Login<'_>, deadline: Deadline) -> Result<(), LoginError> {
        let Login { portal, iqn, .. } = login;
        self.database(host).remove_stale_lock(deadline)?;
        // Not knowing counts as missing: the record is then set up from scratch.
        if !self.database(host).has_record(portal, iqn).unwrap_or(false) {
            self.make_record(host, login)?;
        }
        match update_record(host, portal, iqn) {
            // Seen in a database that this iscsiadm does not use.
            Err(error) if error.exit() == Some(Exit::NotFound) => {
                self.make_record(host, login)?;
                update_record(host, portal, iqn)?;
            }
            updated => updated?,
        }
        self.ensure_authentication(host, login, deadline)?;
        Ok(patiently(host, || iscsiadm::login(host, portal, iqn))?)
    }

    fn make_record(&self, host: &Host, login: Login<'_>) -> Result<(), LoginError> {
        let Login { portal, iqn, chap } = login;
        records::remember(host, &self.own, portal, iqn, chap.is_some())?;
        Ok(patiently(host, || {
            iscsiadm::create_record(host, portal, iqn)
        })?)
    }

    /// Puts the CHAP settings of the record right. Without any to be put, only those that we put there are taken away: others came from iscsid.conf or
    /// an administrator and may well be needed.
    fn ensure_authentication(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<(), LoginError> {
        let Login { portal, iqn, chap } = login;
        let own = records::find_own(host, &self.own, portal, iqn)?;
        let ours = own.as_ref().is_some_and(|own| own.chap);
        if chap.is_none() && !ours {
            return Ok(());
        }
        if own.is_some() && !ours {
            records::remember(host, &self.own, portal, iqn, true)?;
        }
        self.database(host)
            .ensure_settings(portal, iqn, &settings_of(chap), deadline)?;
        if ours && chap.is_none() {
            records::remember(host, &self.own, portal, iqn, false)?;
        }
        Ok(())
    }

    /// Writes new CHAP settings into the record of a session of ours that goes on with the old ones, so that the next login has them. A failure is
    /// told in the log, for it is no reason to fail what the session serves.
    pub fn keep_record_current(&self, host: &Host, login: Login<'_>, deadline: Deadline) {
        let Login { portal, iqn, chap } = login;
        let kept = || -> Result<(), SessionError> {
            let own = records::find_own(host, &self.own, portal, iqn);
            let own = own.map_err(|source| SessionError::Record { portal, source })?;
            let database = self.database(host);
            let is_current = |own: &OwnRecord| {
                (chap.is_none() && !own.chap)
                    || database
                        .has_settings(portal, iqn, &settings_of(chap))
                        .unwrap_or(false)
            };
            if own.as_ref().is_none_or(is_current) {
                return Ok(());
            }
            let _flight = self.lock(host, portal, iqn, deadline)?;
            self.ensure_authentication(host, login, deadline)
                .map_err(|error| error.at(portal, iqn, chap))?;
            tracing::info!(%portal, %iqn, "new CHAP settings are in the node record; the session goes on");
            Ok(())
        };
        if let Err(error) = kept() {
            let error = chain(&error);
            tracing::warn!(%portal, %iqn, error, "new CHAP settings could not be put into the node record");
        }
    }

    /// Takes away open-iscsi's lock, should a process of ours have died with it.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn remove_stale_lock(&self, host: &Host, deadline: Deadline) -> Result<(), DatabaseError> {
        self.database(host).remove_stale_lock(deadline)
    }

    fn database<'d>(&'d self, host: &'d Host) -> Database<'d> {
        Database {
            host,
            root: &self.root,
            locks: &self.locks,
        }
    }
}

/// What was found of a session.
enum Looked {
    /// It is logged in.
    Up(Session),
    /// It cannot come back by itself.
    Outdated(u32),
    /// There is none.
    Nothing,
}

/// Why a login got stuck.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Iscsiadm(#[from] IscsiadmError),
}

impl LoginError {
    fn at(self, portal: Portal, iqn: &Iqn, chap: Option<&Chap>) -> SessionError {
        let iqn = iqn.clone();
        match self {
            Self::Record(source) => SessionError::Record { portal, source },
            Self::Database(source) => SessionError::Database {
                portal,
                iqn,
                source,
            },
            Self::Iscsiadm(source) if source.exit() == Some(Exit::Unauthorized) => {
                SessionError::Denied {
                    portal,
                    iqn,
                    with: credentials_text(chap),
                    source: Box::new(source),
                }
            }
            // open-iscsi 2.1 says "fatal", not "authorization", when it is the target that fails to prove itself.
            Self::Iscsiadm(source)
                if source.exit() == Some(Exit::Fatal)
                    && chap.is_some_and(|chap| chap.target.is_some()) =>
            {
                SessionError::Unproven {
                    portal,
                    iqn,
                    source: Box::new(source),
                }
            }
            Self::Iscsiadm(source) => SessionError::Iscsiadm {
                portal,
                iqn,
                source,
            },
        }
    }
}

/// How an error calls what a login was tried with.
fn credentials_text(chap: Option<&Chap>) -> String {
    match chap {
        None => {
            "without CHAP: if the target asks for it, set credentials of the partition".to_owned()
        }
        Some(chap) => {
            let mutual = if chap.target.is_some() { "mutual " } else { "" };
            let name = &chap.initiator.name;
            format!(
                "with {mutual}CHAP as {name:?}: name and secrets must be those that the SAN has for this node"
            )
        }
    }
}

/// Writes our settings into the record, all that this iscsiadm knows.
fn update_record(host: &Host, portal: Portal, iqn: &Iqn) -> Result<(), IscsiadmError> {
    let update = |scan| patiently(host, || iscsiadm::update_record(host, portal, iqn, scan));
    match update(Scan::ByUs) {
        Err(error) if error.exit() == Some(Exit::Argument) => {
            tracing::warn!(%portal, %iqn, %error, "this open-iscsi does not know node.session.scan: \
                each login will show this node every LUN that the target has for it; upgrade it (2.0.874 or later)");
            update(Scan::ByIscsid)
        }
        updated => updated,
    }
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
