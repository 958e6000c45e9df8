//! open-iscsi, one tool: sessions as the kernel shows them, and logins, logouts and node records through `iscsiadm`.
//!
//! `attach` calls it. State is read from sysfs, never asked of a process; a login is proven by the session, never by an exit code. It knows
//! nothing of disks: whether a session is still needed is its caller's word.

mod authentication;
mod automatic;
mod database;
mod error;
mod initiator;
mod interfaces;
mod iscsiadm;
mod login;
mod records;
#[cfg(test)]
mod rig;
mod session;

pub use automatic::{AutomaticRecord, automatic_records, names_in_use};
pub use database::DatabaseError;
pub use error::SessionError;
pub use initiator::{InitiatorError, find_initiator_name, name_in as initiator_name_in};
pub use iscsiadm::{Exit, IscsiadmError, known_defect, record_settings, version};
pub use login::{Initiator, Login, probe};
pub use records::{OwnRecord, RecordError};
pub use session::{
    Session, SessionState, choose_session, find_recorded_session, find_session, list_sessions,
};
