//! Why there is no session, by step.

use std::io;
use std::path::PathBuf;

use super::database::DatabaseError;
use super::interfaces::record_name;
use super::iscsiadm::{Exit, IscsiadmError};
use super::records::RecordError;
use crate::fabric::{Chap, Nexus};
use crate::fault::{Fault, Faulted};

/// Why there is no session, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Reading the state failed.
    #[error("the sessions could not be read")]
    Read(#[source] io::Error),
    /// Nothing listens at the portal.
    #[error("portal {} does not answer", nexus.place())]
    Dead {
        /// Which.
        nexus: Nexus,
        #[source]
        source: io::Error,
    },
    /// The session exists and has lost its connection; iscsid is at it.
    #[error("session {sid} to {} has lost its connection", nexus.place())]
    Down {
        /// Its number.
        sid: u32,
        /// Where it leads.
        nexus: Nexus,
    },
    /// Another login or logout holds the portal.
    #[error("another login or logout at {} did not end in time", .0.place())]
    Locked(Nexus),
    /// The lock file cannot be used.
    #[error("the lock {} cannot be used", path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Our note about the record failed.
    #[error("the note about our record for {}", nexus.place())]
    Record {
        /// Whose.
        nexus: Nexus,
        #[source]
        source: Box<RecordError>,
    },
    /// iscsiadm failed.
    #[error("target {nexus}")]
    Iscsiadm {
        /// Where.
        nexus: Nexus,
        #[source]
        source: Box<IscsiadmError>,
    },
    /// The target does not accept who we are, or is not who it should be.
    #[error("authentication failed: target {nexus} and this node did not accept each other {with}")]
    Denied {
        /// Where.
        nexus: Box<Nexus>,
        /// With what.
        with: String,
        #[source]
        source: Box<IscsiadmError>,
    },
    /// The login ended for good, and it is not known which side ended it.
    #[error(
        "target {nexus} is not to be had; with mutual CHAP that is also what becomes of a target that does not prove itself: see node.session.auth.username_in and password_in"
    )]
    Unproven {
        /// Where.
        nexus: Nexus,
        #[source]
        source: Box<IscsiadmError>,
    },
    /// open-iscsi's record of it could not be written.
    #[error("open-iscsi's records for {nexus}")]
    Database {
        /// Where.
        nexus: Nexus,
        #[source]
        source: Box<DatabaseError>,
    },
    /// iscsiadm was content and yet there is no session.
    #[error("login to {0} left no session")]
    NoSession(Nexus),
    /// A session of our record is in the way, which somebody had bound to another interface, or which is of another initiator.
    #[error(
        "session {sid} to {} is not bound to it but to {}: the record {} was changed; once nothing uses that session, end it: iscsiadm -m session -r {sid} --logout",
        nexus.place(),
        netdev.as_deref().unwrap_or("none"),
        record_name(nexus)
    )]
    Elsewhere {
        /// Its number.
        sid: u32,
        /// Where it should lead.
        nexus: Box<Nexus>,
        /// What it is bound to.
        netdev: Option<String>,
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

/// Why a login got stuck.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Iscsiadm(#[from] IscsiadmError),
}

impl LoginError {
    /// The same, with where it was.
    pub(super) fn at(self, nexus: &Nexus, chap: Option<&Chap>) -> SessionError {
        let nexus = nexus.clone();
        match self {
            Self::Record(source) => SessionError::Record {
                nexus,
                source: Box::new(source),
            },
            Self::Database(source) => SessionError::Database {
                nexus,
                source: Box::new(source),
            },
            Self::Iscsiadm(source) if source.exit() == Some(Exit::Unauthorized) => {
                SessionError::Denied {
                    nexus: Box::new(nexus),
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
                    nexus,
                    source: Box::new(source),
                }
            }
            Self::Iscsiadm(source) => SessionError::Iscsiadm {
                nexus,
                source: Box::new(source),
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
