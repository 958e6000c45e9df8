//! The iSCSI sessions of this machine, read from sysfs.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::fabric::{Iqn, Portal};
use crate::host::Host;

pub(super) const SESSIONS: &str = "/sys/class/iscsi_session";
const CONNECTIONS: &str = "/sys/class/iscsi_connection";
/// The interface of a session that nobody bound to one: routing decides.
const DEFAULT_INTERFACE: &str = "default";

/// What the kernel says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// In use.
    LoggedIn,
    /// Its connection is lost; iscsid tries to bring it back.
    Failed,
    /// Being made or taken away.
    Free,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number, as in `session3`.
    pub sid: u32,
    /// The SCSI host that carries its disks; software iSCSI has one for each session.
    pub scsi_host: u32,
    /// The target's name.
    pub iqn: Iqn,
    /// Its state.
    pub state: SessionState,
    /// The open-iscsi interface it is bound to.
    pub interface: String,
    /// Where the login was asked for. It stays when the target redirects.
    pub persistent: Option<Portal>,
    /// Where it is connected.
    pub current: Option<Portal>,
}

impl Session {
    /// Whether it is the session to `iqn` that a login at `portal` gives, over the default interface.
    #[must_use]
    pub fn serves(&self, portal: Portal, iqn: &Iqn) -> bool {
        let at = |known: Option<Portal>| known == Some(portal);
        self.iqn == *iqn
            && self.interface == DEFAULT_INTERFACE
            && (at(self.persistent) || at(self.current))
    }
}

/// All sessions, in the order of their numbers. One that vanishes while it is read is left out.
///
/// # Errors
/// When sysfs cannot be read.
pub fn list_sessions(host: &Host) -> io::Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for name in host.list(Path::new(SESSIONS))? {
        let sid = name.to_str().and_then(|name| number_after(name, "session"));
        let Some(sid) = sid else { continue };
        if let Some(session) = read_session(host, sid)? {
            sessions.push(session);
        }
    }
    sessions.sort_by_key(|session| session.sid);
    Ok(sessions)
}

/// The best session to `iqn` at `portal`: one that is logged in, else any.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_session(host: &Host, portal: Portal, iqn: &Iqn) -> io::Result<Option<Session>> {
    let mut fitting: Vec<Session> = list_sessions(host)?
        .into_iter()
        .filter(|session| session.serves(portal, iqn))
        .collect();
    fitting.sort_by_key(|session| (session.state != SessionState::LoggedIn, session.sid));
    Ok(fitting.into_iter().next())
}

fn read_session(host: &Host, sid: u32) -> io::Result<Option<Session>> {
    let session = Path::new(SESSIONS).join(format!("session{sid}"));
    let connection = Path::new(CONNECTIONS).join(format!("connection{sid}:0"));
    let read = |attribute: &str| find_attribute(host, &session.join(attribute));
    let (Some(name), Some(state)) = (read("targetname")?, read("state")?) else {
        return Ok(None);
    };
    let (Ok(iqn), Some(scsi_host)) = (name.parse(), scsi_host_of(host, &session)) else {
        return Ok(None);
    };
    Ok(Some(Session {
        sid,
        scsi_host,
        iqn,
        state: parse_state(&state),
        interface: read("ifacename")?.map_or_else(|| DEFAULT_INTERFACE.to_owned(), interface_name),
        persistent: read_portal(host, &connection, "persistent_address", "persistent_port")?,
        current: read_portal(host, &connection, "address", "port")?,
    }))
}

/// The class entry is a link through the devices that carry the session: `…/host3/session1/iscsi_session/session1`.
fn scsi_host_of(host: &Host, session: &Path) -> Option<u32> {
    let link = [session.to_owned(), session.join("device")];
    link.iter()
        .filter_map(|path| host.read_link(path).ok())
        .find_map(|target| host_in(&target))
}

fn host_in(path: &Path) -> Option<u32> {
    path.components()
        .rev()
        .filter_map(|part| part.as_os_str().to_str())
        .find_map(|part| number_after(part, "host"))
}

fn number_after(name: &str, word: &str) -> Option<u32> {
    name.strip_prefix(word)?.parse().ok()
}

fn parse_state(text: &str) -> SessionState {
    match text {
        "LOGGED_IN" => SessionState::LoggedIn,
        "FAILED" => SessionState::Failed,
        _ => SessionState::Free,
    }
}

/// The kernel prints what it was never told as `(null)` or `<NULL>`.
fn interface_name(text: String) -> String {
    if text.is_empty() || text.starts_with(['(', '<']) {
        DEFAULT_INTERFACE.to_owned()
    } else {
        text
    }
}

fn read_portal(
    host: &Host,
    connection: &Path,
    address: &str,
    port: &str,
) -> io::Result<Option<Portal>> {
    let address = find_attribute(host, &connection.join(address))?;
    let port = find_attribute(host, &connection.join(port))?;
    let parsed = address
        .and_then(|text| text.parse::<IpAddr>().ok())
        .zip(port.and_then(|text| text.parse::<u16>().ok()));
    Ok(parsed.map(|(address, port)| Portal::new(address, port)))
}

/// Attributes of a connection that is down answer ENOTCONN and the like, and those of a dying one EIO: no value, no failure.
fn find_attribute(host: &Host, path: &Path) -> io::Result<Option<String>> {
    match host.find_attribute(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scsi_host_is_read_off_the_link() {
        let link = "../../devices/platform/host12/session3/iscsi_session/session3";
        assert_eq!(host_in(Path::new(link)), Some(12));
        assert_eq!(host_in(Path::new("../../../session3")), None);
        assert_eq!(host_in(Path::new("/sys/hosted/hostx")), None);
    }

    #[test]
    fn a_session_serves_the_portal_it_was_asked_for_or_is_at() {
        let session = Session {
            sid: 1,
            scsi_host: 2,
            iqn: "iqn.2026-11.dev.sanpath:a".parse().unwrap(),
            state: SessionState::LoggedIn,
            interface: DEFAULT_INTERFACE.to_owned(),
            persistent: "[fd00::1]:3260".parse().ok(),
            current: "[fd00::2]:3260".parse().ok(),
        };
        for portal in ["[FD00:0::1]:3260", "fd00::2"] {
            assert!(
                session.serves(portal.parse().unwrap(), &session.iqn),
                "{portal}"
            );
        }
        assert!(!session.serves("fd00::3".parse().unwrap(), &session.iqn));
        let bound = Session {
            interface: "iface0".to_owned(),
            ..session.clone()
        };
        assert!(
            !bound.serves("fd00::1".parse().unwrap(), &session.iqn),
            "an administrator's session over an interface of its own"
        );
    }

    #[test]
    fn an_interface_that_was_never_told_is_the_default() {
        for text in ["", "(null)", "<NULL>", "default"] {
            assert_eq!(interface_name(text.to_owned()), "default");
        }
        assert_eq!(interface_name("bond0".to_owned()), "bond0");
    }
}
