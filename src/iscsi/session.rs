//! The iSCSI sessions of this machine, read from sysfs.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::interfaces::{UNBOUND, is_of_another, record_name};
use crate::fabric::{Iqn, Nexus, Portal};
use crate::host::Host;

pub(super) const SESSIONS: &str = "/sys/class/iscsi_session";
const CONNECTIONS: &str = "/sys/class/iscsi_connection";
const HOSTS: &str = "/sys/class/iscsi_host";

/// What the kernel says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// In use.
    LoggedIn,
    /// Its connection is lost; iscsid tries to bring it back.
    Failed,
    /// Being made or taken away; or its connection is lost and its recovery time over.
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
    /// The interface record of open-iscsi that it was logged in with.
    pub interface: String,
    /// The interface of this machine that it is bound to, as far as the kernel was told.
    pub netdev: Option<String>,
    /// The initiator's name that it was logged in under, as far as the kernel tells.
    pub initiator: Option<String>,
    /// Where the login was asked for. It stays when the target redirects.
    pub persistent: Option<Portal>,
    /// Where it is connected.
    pub current: Option<Portal>,
}

impl Session {
    /// Whether it does for `nexus`, whoever made it. Where an interface is asked for it is bound to that one; where none is, to none. Under a name of its own
    /// only what was made with the record for it; without one, what any such record made is another initiator's.
    #[must_use]
    pub fn serves(&self, nexus: &Nexus) -> bool {
        self.is_of(nexus) && self.is_bound_for(nexus) && self.leads_to(nexus)
    }

    fn is_of(&self, nexus: &Nexus) -> bool {
        match &nexus.initiator {
            None => !is_of_another(&self.interface),
            Some(name) => {
                self.has_record_of(nexus) && self.initiator.as_deref() == Some(name.as_str())
            }
        }
    }

    fn is_bound_for(&self, nexus: &Nexus) -> bool {
        match (&nexus.iface, &self.netdev) {
            (Some(wanted), Some(netdev)) => wanted.as_str() == netdev,
            (Some(_), None) => self.has_record_of(nexus),
            (None, netdev) => self.has_record_of(nexus) && netdev.is_none(),
        }
    }

    /// Whether it was logged in with the record that we would log in with.
    pub(super) fn has_record_of(&self, nexus: &Nexus) -> bool {
        self.interface == record_name(nexus)
    }

    fn leads_to(&self, nexus: &Nexus) -> bool {
        let at = |known: Option<Portal>| known == Some(nexus.portal);
        self.iqn == nexus.iqn && (at(self.persistent) || at(self.current))
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

/// The best session for `nexus`: one that is logged in, else any.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_session(host: &Host, nexus: &Nexus) -> io::Result<Option<Session>> {
    find_best(host, |session| session.serves(nexus))
}

/// The same of the sessions that were logged in with the record that ours are logged in with: an administrator's own, bound to the same interface by
/// another record, is none of them.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_recorded_session(host: &Host, nexus: &Nexus) -> io::Result<Option<Session>> {
    find_best(host, |session| {
        session.has_record_of(nexus) && session.leads_to(nexus)
    })
}

/// The same as [`find_session`] among `sessions` that were read before.
#[must_use]
pub fn choose_session<'s>(sessions: &'s [Session], nexus: &Nexus) -> Option<&'s Session> {
    best(sessions, |session| session.serves(nexus))
}

fn find_best(host: &Host, fits: impl Fn(&Session) -> bool) -> io::Result<Option<Session>> {
    Ok(best(&list_sessions(host)?, fits).cloned())
}

fn best(sessions: &[Session], fits: impl Fn(&Session) -> bool) -> Option<&Session> {
    let fitting = sessions.iter().filter(|session| fits(session));
    fitting.min_by_key(|session| (session.state != SessionState::LoggedIn, session.sid))
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
    let netdev = Path::new(HOSTS).join(format!("host{scsi_host}/netdev"));
    Ok(Some(Session {
        sid,
        scsi_host,
        iqn,
        state: parse_state(&state),
        interface: read("ifacename")?
            .and_then(told)
            .unwrap_or_else(|| UNBOUND.to_owned()),
        netdev: find_attribute(host, &netdev)?.and_then(told),
        initiator: read("initiatorname")?.and_then(told),
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
fn told(text: String) -> Option<String> {
    (!text.is_empty() && !text.starts_with(['(', '<'])).then_some(text)
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

    fn session(interface: &str, netdev: Option<&str>) -> Session {
        Session {
            sid: 1,
            scsi_host: 2,
            iqn: "iqn.2026-11.dev.sanpath:a".parse().unwrap(),
            state: SessionState::LoggedIn,
            interface: interface.to_owned(),
            netdev: netdev.map(str::to_owned),
            initiator: Some("iqn.1993-08.org.debian:01:ab".to_owned()),
            persistent: "[fd00::1]:3260".parse().ok(),
            current: "[fd00::2]:3260".parse().ok(),
        }
    }

    fn nexus(portal: &str, iface: Option<&str>) -> Nexus {
        Nexus {
            portal: portal.parse().unwrap(),
            iqn: "iqn.2026-11.dev.sanpath:a".parse().unwrap(),
            iface: iface.map(|name| name.parse().unwrap()),
            initiator: None,
        }
    }

    #[test]
    fn a_session_serves_the_portal_it_was_asked_for_or_is_at() {
        let session = session("default", None);
        for portal in ["[FD00:0::1]:3260", "fd00::2"] {
            assert!(session.serves(&nexus(portal, None)), "{portal}");
        }
        assert!(!session.serves(&nexus("fd00::3", None)));
    }

    #[test]
    fn a_session_serves_its_own_interface_and_no_other() {
        let unbound = nexus("fd00::1", None);
        let bound = nexus("fd00::1", Some("br0"));
        for (interface, netdev, serves_unbound, serves_bound) in [
            ("default", None, true, false),
            ("sanpath-br0", Some("br0"), false, true),
            ("sanpath-br0", None, false, true),
            // Somebody changed our record.
            ("sanpath-br0", Some("eth1"), false, false),
            ("sanpath-eth1", Some("eth1"), false, false),
            // An administrator's own: bound to the same interface, or by its hardware address.
            ("admin", Some("br0"), false, true),
            ("admin", None, false, false),
            ("default", Some("br0"), false, true),
        ] {
            let session = session(interface, netdev);
            assert_eq!(session.serves(&unbound), serves_unbound, "{session:?}");
            assert_eq!(session.serves(&bound), serves_bound, "{session:?}");
        }
    }

    #[test]
    fn a_session_serves_its_own_initiator_and_no_other() {
        const ARCHIVER: &str = "iqn.1993-08.org.debian:01:ab:archive";
        let named = |interface: &str, netdev, name: &str| Session {
            initiator: Some(name.to_owned()),
            ..session(interface, netdev)
        };
        let archiver = |iface| Nexus {
            initiator: ARCHIVER.parse().ok(),
            ..nexus("fd00::1", iface)
        };
        let unbound = named("sanpath.archive", None, ARCHIVER);
        let bound = named("sanpath.archive-br0", Some("br0"), ARCHIVER);
        for iface in [None, Some("br0")] {
            let of_archiver = archiver(iface);
            assert_eq!(unbound.serves(&of_archiver), iface.is_none());
            assert_eq!(bound.serves(&of_archiver), iface.is_some());
            for session in [&unbound, &bound] {
                assert!(!session.serves(&nexus("fd00::1", iface)), "{session:?}");
            }
            for (interface, netdev) in [
                ("default", None),
                ("sanpath-br0", Some("br0")),
                ("admin", Some("br0")),
            ] {
                assert!(!session(interface, netdev).serves(&of_archiver));
            }
            // The machine had another name then.
            let before = named("sanpath.archive", None, "iqn.b:archive");
            assert!(!before.serves(&of_archiver));
        }
    }

    #[test]
    fn what_the_kernel_was_never_told_is_nothing() {
        for text in ["", "(null)", "<NULL>"] {
            assert_eq!(told(text.to_owned()), None);
        }
        assert_eq!(told("bond0".to_owned()).as_deref(), Some("bond0"));
    }
}
