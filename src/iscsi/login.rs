//! From a portal and a target name to a session, and back.
//!
//! One flight at a time for each portal and target, across processes: two logins at once make two sessions. The lock is held until iscsiadm
//! has ended, or has outlived all limits of its own; callers give up by their own deadline.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::authentication::{holds_other, settings_of};
use super::database::{Database, DatabaseError};
use super::error::{LoginError, SessionError};
use super::interfaces::{binding, needs_interface, record_name};
use super::iscsiadm::{self, Exit, IscsiadmError, Scan};
use super::records::{self, OwnRecord, RecordError};
use super::session::{Session, SessionState, find_recorded_session, find_session, list_sessions};
use crate::deadline::Deadline;
use crate::fabric::{Chap, Iqn, Nexus, Portal};
use crate::fault::chain;
use crate::host::{Host, LockGuard};

/// A portal that takes longer to accept a connection is dead for the purposes of a login.
const PROBE: Duration = Duration::from_secs(2);
/// iscsid brings a session back in this time unless its portal is dead, or refuses the credentials that it logged in with once.
const OUTDATED_AFTER: Duration = Duration::from_secs(10);
/// Calls that fail in passing are repeated this often.
const TRIES: u32 = 4;
/// The pause before the first repetition; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A login: where, and proven with what.
#[derive(Clone, Copy, Debug)]
pub struct Login<'l> {
    /// Where.
    pub nexus: &'l Nexus,
    /// What both sides prove; nothing without.
    pub chap: Option<&'l Chap>,
}

/// An initiator of this machine: its own, or another one beside it. What each made is its own to end.
#[derive(Clone, Debug)]
pub struct Initiator {
    /// The name that its sessions are logged in under; without one it is the machine's own.
    pub name: Option<Iqn>,
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
        let Login { nexus, chap } = login;
        let outdated = match self.wait_until_usable(host, login, deadline)? {
            Looked::Up(session) => {
                self.keep_record_current(host, login, deadline);
                return Ok(session);
            }
            Looked::Outdated(sid) => Some(sid),
            Looked::Nothing => None,
        };
        // Before the lock: callers who wait for a dead portal wait at the same time, and iscsid never hears of it.
        probe(host, nexus, PROBE).map_err(|source| SessionError::Dead {
            nexus: nexus.clone(),
            source,
        })?;
        let _flight = self.lock(host, nexus, deadline)?;
        if let Some(sid) = outdated {
            self.end_outdated(host, nexus, sid, deadline)?;
        }
        if let Some(session) = wait_until_up(host, nexus, deadline)? {
            return Ok(session);
        }
        refuse_elsewhere(host, nexus)?;
        self.log_in(host, login, deadline)
            .map_err(|error| error.at(nexus, chap))?;
        wait_until_up(host, nexus, deadline)?.ok_or_else(|| SessionError::NoSession(nexus.clone()))
    }

    /// Whether the session of ours has lost its connection and cannot come back by itself, for it was logged in with something else than
    /// `login` says, and iscsid tries that for ever.
    #[must_use]
    pub fn is_outdated(&self, host: &Host, session: &Session, login: Login<'_>) -> bool {
        let own = |portal: Option<Portal>| {
            let nexus = portal.map(|portal| Nexus {
                portal,
                ..login.nexus.clone()
            });
            let found = nexus.map(|nexus| records::find_own(host, &self.own, &nexus));
            matches!(found, Some(Ok(Some(_))))
        };
        session.state != SessionState::LoggedIn
            && session.has_record_of(login.nexus)
            && (own(session.persistent) || own(session.current))
            && holds_other(host, session.sid, login.chap)
    }

    /// Waits until the session is logged in. One that cannot come back is not waited for longer than iscsid takes for those that can, provided that
    /// its portal answers.
    fn wait_until_usable(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<Looked, SessionError> {
        let nexus = login.nexus;
        let looked = |found: Option<Session>| found.map_or(Looked::Nothing, Looked::Up);
        let soon = deadline.at_most(host.now(), OUTDATED_AFTER);
        match wait_until_up(host, nexus, soon) {
            Err(SessionError::Down { .. }) => {}
            settled => return settled.map(looked),
        }
        let session = find_session(host, nexus).map_err(SessionError::Read)?;
        let outdated = session.filter(|session| self.is_outdated(host, session, login));
        if let Some(session) = outdated
            && probe(host, nexus, PROBE).is_ok()
        {
            return Ok(Looked::Outdated(session.sid));
        }
        wait_until_up(host, nexus, deadline).map(looked)
    }

    /// Ends a session that cannot come back, unless it has come back or is another one by now. It serves nobody: what was under way over it fails over
    /// to the other paths, or waits for the new session as it waited for this one.
    fn end_outdated(
        &self,
        host: &Host,
        nexus: &Nexus,
        sid: u32,
        deadline: Deadline,
    ) -> Result<(), SessionError> {
        let session = find_session(host, nexus).map_err(SessionError::Read)?;
        let still =
            |session: &Session| session.sid == sid && session.state != SessionState::LoggedIn;
        if !session.as_ref().is_some_and(still) {
            return Ok(());
        }
        tracing::warn!(%nexus, sid, "the session cannot come back with the CHAP settings that it has; logging in with the new ones");
        self.log_out(host, nexus, sid, deadline)
            .map_err(|error| error.at(nexus, None))
    }

    /// Ends the session of `record` and removes it, both made by us, provided that `is_idle` still holds under the lock. False when it does not.
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
        let nexus = &record.nexus();
        let _flight = self.lock(host, nexus, deadline)?;
        let session = find_recorded_session(host, nexus).map_err(SessionError::Read)?;
        if !is_idle(session.as_ref()) {
            return Ok(false);
        }
        let removed = || -> Result<(), LoginError> {
            self.database(host).remove_stale_lock(deadline)?;
            if let Some(session) = session {
                self.log_out(host, nexus, session.sid, deadline)?;
            }
            self.ensure_interface(host, nexus, deadline)?;
            patiently(host, || iscsiadm::delete_record(host, nexus))?;
            Ok(records::forget(host, &self.own, nexus)?)
        };
        removed().map_err(|error| error.at(nexus, None))?;
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
        nexus: &Nexus,
        deadline: Deadline,
    ) -> Result<LockGuard, SessionError> {
        let path = self
            .locks
            .join(format!("portal-{}.lock", records::file_stem(nexus)));
        let taken = host
            .ensure_directory(&self.locks)
            .and_then(|()| host.lock(&path, deadline));
        taken
            .map_err(|source| SessionError::Lock { path, source })?
            .ok_or_else(|| SessionError::Locked(nexus.clone()))
    }

    /// Record, settings, login: three processes, two when the record is there.
    fn log_in(&self, host: &Host, login: Login<'_>, deadline: Deadline) -> Result<(), LoginError> {
        let nexus = login.nexus;
        self.database(host).remove_stale_lock(deadline)?;
        // Not knowing counts as missing: the record is then set up from scratch.
        if self.database(host).has_record(nexus).unwrap_or(false) {
            self.ensure_interface(host, nexus, deadline)?;
        } else {
            self.make_record(host, login, deadline)?;
        }
        match update_record(host, nexus) {
            // Seen in a database that this iscsiadm does not use.
            Err(error) if error.exit() == Some(Exit::NotFound) => {
                self.make_record(host, login, deadline)?;
                update_record(host, nexus)?;
            }
            updated => updated?,
        }
        self.ensure_bound(host, nexus, deadline)?;
        self.ensure_authentication(host, login, deadline)?;
        Ok(patiently(host, || iscsiadm::login(host, nexus))?)
    }

    /// The note comes before all else: it keeps the interface record as well.
    fn make_record(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<(), LoginError> {
        let Login { nexus, chap } = login;
        records::remember(host, &self.own, nexus, chap.is_some())?;
        self.ensure_interface(host, nexus, deadline)?;
        Ok(patiently(host, || iscsiadm::create_record(host, nexus))?)
    }

    /// iscsiadm works with no record whose interface record is not there.
    fn ensure_interface(
        &self,
        host: &Host,
        nexus: &Nexus,
        deadline: Deadline,
    ) -> Result<(), DatabaseError> {
        if !needs_interface(nexus) {
            return Ok(());
        }
        self.database(host).ensure_interface(nexus, deadline)
    }

    /// The node record has a copy of its interface record from when it was made, and that is what the session is bound and named by.
    fn ensure_bound(
        &self,
        host: &Host,
        nexus: &Nexus,
        deadline: Deadline,
    ) -> Result<(), DatabaseError> {
        if !needs_interface(nexus) {
            return Ok(());
        }
        let name = record_name(nexus);
        let settings = binding(&name, nexus);
        self.database(host)
            .ensure_settings(nexus, &settings, deadline)
    }

    fn log_out(
        &self,
        host: &Host,
        nexus: &Nexus,
        sid: u32,
        deadline: Deadline,
    ) -> Result<(), LoginError> {
        self.ensure_interface(host, nexus, deadline)?;
        Ok(patiently(host, || iscsiadm::logout(host, sid))?)
    }

    /// Removes the interface records of this initiator's that nothing needs any more, and returns their names.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn remove_unused_interfaces(
        &self,
        host: &Host,
        deadline: Deadline,
    ) -> Result<Vec<String>, DatabaseError> {
        let referred = || {
            let own = records::list_own(host, &self.own).ok()?.into_iter();
            let noted = own.map(|record| record_name(&record.nexus()));
            let sessions = list_sessions(host).ok()?.into_iter();
            Some(noted.chain(sessions.map(|it| it.interface)).collect())
        };
        self.database(host)
            .remove_unused_interfaces(self.name.as_ref(), &referred, deadline)
    }

    /// Puts the CHAP settings of the record right. Without any to be put, only those that we put there are taken away: others came from iscsid.conf or
    /// an administrator and may well be needed.
    fn ensure_authentication(
        &self,
        host: &Host,
        login: Login<'_>,
        deadline: Deadline,
    ) -> Result<(), LoginError> {
        let Login { nexus, chap } = login;
        let own = records::find_own(host, &self.own, nexus)?;
        let ours = own.as_ref().is_some_and(|own| own.chap);
        if chap.is_none() && !ours {
            return Ok(());
        }
        if own.is_some() && !ours {
            records::remember(host, &self.own, nexus, true)?;
        }
        self.database(host)
            .ensure_settings(nexus, &settings_of(chap), deadline)?;
        if ours && chap.is_none() {
            records::remember(host, &self.own, nexus, false)?;
        }
        Ok(())
    }

    /// Writes new CHAP settings into the record of a session of ours that goes on with the old ones, so that the next login has them. A failure is
    /// told in the log, for it is no reason to fail what the session serves.
    pub fn keep_record_current(&self, host: &Host, login: Login<'_>, deadline: Deadline) {
        let Login { nexus, chap } = login;
        let kept = || -> Result<(), SessionError> {
            let own = records::find_own(host, &self.own, nexus);
            let own = own.map_err(|source| LoginError::Record(source).at(nexus, chap))?;
            let database = self.database(host);
            let is_current = |own: &OwnRecord| {
                (chap.is_none() && !own.chap)
                    || database
                        .has_settings(nexus, &settings_of(chap))
                        .unwrap_or(false)
            };
            if own.as_ref().is_none_or(is_current) {
                return Ok(());
            }
            let _flight = self.lock(host, nexus, deadline)?;
            self.ensure_authentication(host, login, deadline)
                .map_err(|error| error.at(nexus, chap))?;
            tracing::info!(%nexus, "new CHAP settings are in the node record; the session goes on");
            Ok(())
        };
        if let Err(error) = kept() {
            let error = chain(&error);
            tracing::warn!(%nexus, error, "new CHAP settings could not be put into the node record");
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

/// Whether something listens where the session would lead, asked the way it would go.
///
/// # Errors
/// Why not.
pub fn probe(host: &Host, nexus: &Nexus, at_most: Duration) -> io::Result<()> {
    let address = nexus.portal.socket_address();
    host.probe_tcp(address, nexus.iface.as_ref(), at_most)
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

/// Writes our settings into the record, all that this iscsiadm knows.
fn update_record(host: &Host, nexus: &Nexus) -> Result<(), IscsiadmError> {
    let update = |scan| patiently(host, || iscsiadm::update_record(host, nexus, scan));
    match update(Scan::ByUs) {
        Err(error) if error.exit() == Some(Exit::Argument) => {
            tracing::warn!(%nexus, %error, "this open-iscsi does not know node.session.scan: \
                each login will show this node every LUN that the target has for it; upgrade it (2.0.874 or later)");
            update(Scan::ByIscsid)
        }
        updated => updated,
    }
}

/// A session of our record that does not lead where it says: logging in once more would do nothing.
fn refuse_elsewhere(host: &Host, nexus: &Nexus) -> Result<(), SessionError> {
    match find_recorded_session(host, nexus).map_err(SessionError::Read)? {
        Some(session) if !session.serves(nexus) => Err(SessionError::Elsewhere {
            sid: session.sid,
            nexus: Box::new(nexus.clone()),
            netdev: session.netdev,
        }),
        _ => Ok(()),
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
    nexus: &Nexus,
    deadline: Deadline,
) -> Result<Option<Session>, SessionError> {
    let mut last = None;
    let settled = host.wait_for(deadline, || {
        last = find_session(host, nexus)?;
        Ok(match &last {
            Some(session) if session.state != SessionState::LoggedIn => None,
            settled => Some(settled.clone()),
        })
    });
    match (settled.map_err(SessionError::Read)?, last) {
        (Some(settled), _) => Ok(settled),
        (None, Some(session)) => Err(SessionError::Down {
            sid: session.sid,
            nexus: nexus.clone(),
        }),
        (None, None) => Ok(None),
    }
}

fn back_off(host: &Host, pause: Duration) {
    let nothing = || Ok::<Option<()>, std::convert::Infallible>(None);
    let Ok(_) = host.wait_for(host.deadline_in(pause), nothing);
}
