//! iSCSI sessions as the kernel shows them, and what becomes of them when portals go and come.

use std::path::PathBuf;
use std::time::Duration;

use super::FakeWorld;
use super::san::PortalState;
use super::state::State;
use super::tree::Node;
use crate::fabric::{Chap, Iqn, Lun, Portal};

/// The machine's own initiator.
const MACHINE: &str = "iqn.1993-08.org.debian:01:fake";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    LoggedIn,
    Failed,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: u32,
    pub(super) iqn: Iqn,
    pub(super) portal: Portal,
    pub(super) tpgt: u16,
    pub(super) iface: String,
    /// What it is bound to.
    pub(super) netdev: Option<String>,
    /// The initiator's name, where it is not the machine's.
    pub(super) initiator: Option<String>,
    pub(super) state: SessionState,
    pub(super) recovery: Duration,
    /// What iscsid logs in with for as long as the session lives, whatever becomes of the record.
    chap: Option<Chap>,
    /// Somebody else's: sanpath must not touch it.
    pub(super) foreign: bool,
    /// Counts the failures, so that a timer of an earlier one is known for late.
    failures: u32,
}

impl Session {
    /// One SCSI host per session.
    pub(super) fn host(&self) -> u32 {
        self.id + 1
    }

    pub(super) fn device(&self) -> PathBuf {
        format!(
            "/sys/devices/platform/host{}/session{}",
            self.host(),
            self.id
        )
        .into()
    }

    pub(super) fn name(&self) -> String {
        format!("session {} to {} of {}", self.id, self.portal, self.iqn)
    }

    fn initiator(&self) -> String {
        let own = self.initiator.clone();
        own.unwrap_or_else(|| MACHINE.to_owned())
    }

    fn attributes(&self) -> PathBuf {
        let id = self.id;
        self.device().join(format!("iscsi_session/session{id}"))
    }
}

/// What a login is asked for.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) iqn: Iqn,
    pub(super) portal: Portal,
    pub(super) tpgt: u16,
    pub(super) iface: String,
    pub(super) netdev: Option<String>,
    pub(super) initiator: Option<String>,
    pub(super) recovery: Duration,
    pub(super) scan_all: bool,
    pub(super) chap: Option<Chap>,
}

impl FakeWorld {
    /// iscsid gives a session up, and its disks go with it.
    pub fn end_session(&self, sid: u32) {
        let mut state = self.state();
        state.session_fails(sid);
        state.close_session(sid);
    }
}

impl State {
    pub(super) fn find_session(&self, login: &Login) -> Option<u32> {
        let same = |session: &&Session| {
            session.portal == login.portal
                && session.iqn == login.iqn
                && session.iface == login.iface
        };
        self.sessions.values().find(same).map(|session| session.id)
    }

    pub(super) fn open_session(&mut self, login: &Login) -> u32 {
        let id = u32::try_from(self.serial()).expect("few sessions");
        let session = Session {
            id,
            iqn: login.iqn.clone(),
            portal: login.portal,
            tpgt: login.tpgt,
            iface: login.iface.clone(),
            netdev: login.netdev.clone(),
            initiator: login.initiator.clone(),
            state: SessionState::LoggedIn,
            recovery: login.recovery,
            chap: login.chap.clone(),
            foreign: false,
            failures: 0,
        };
        self.show_session(&session);
        self.show_netdev(&session);
        self.sessions.insert(id, session);
        self.event();
        if login.scan_all {
            let text = format!("{} of {}", login.iqn, login.portal);
            self.violation(format!("login with node.session.scan = auto: {text}"));
            self.scan_all(id);
        }
        id
    }

    fn show_session(&mut self, session: &Session) {
        let (id, host) = (session.id, session.host());
        let device = session.device();
        let attributes = session.attributes();
        let tree = &mut self.tree;
        for (name, value) in [
            ("targetname", session.iqn.to_string()),
            ("tpgt", session.tpgt.to_string()),
            ("ifacename", session.iface.clone()),
            ("initiatorname", session.initiator()),
            ("state", "LOGGED_IN".into()),
            ("recovery_tmo", session.recovery.as_secs().to_string()),
        ] {
            tree.put_text(attributes.join(name), format!("{value}\n"));
        }
        let target = session.chap.as_ref().and_then(|chap| chap.target.as_ref());
        let initiator = session.chap.as_ref().map(|chap| &chap.initiator);
        for (suffix, user) in [("", initiator), ("_in", target)] {
            let (name, secret) = user.map_or(("(null)", "(null)"), |user| {
                (user.name.as_str(), user.secret.expose())
            });
            for (attribute, value) in [("username", name), ("password", secret)] {
                let path = attributes.join(format!("{attribute}{suffix}"));
                tree.put_text(path, format!("{value}\n"));
            }
        }
        tree.put_link(attributes.join("device"), device.clone());
        tree.put_link(format!("/sys/class/iscsi_session/session{id}"), attributes);
        let connection = device.join(format!(
            "connection{id}:0/iscsi_connection/connection{id}:0"
        ));
        let (address, port) = (session.portal.address(), session.portal.port());
        let current = self.san.redirects.get(&session.portal);
        let current = *current.unwrap_or(&session.portal);
        for (name, value) in [
            ("address", current.address().to_string()),
            ("port", current.port().to_string()),
            ("persistent_address", address.to_string()),
            ("persistent_port", port.to_string()),
            ("state", "up".into()),
        ] {
            tree.put_text(connection.join(name), format!("{value}\n"));
        }
        tree.put_link(
            connection.join("device"),
            device.join(format!("connection{id}:0")),
        );
        tree.put_link(
            format!("/sys/class/iscsi_connection/connection{id}:0"),
            connection,
        );
        let platform = PathBuf::from(format!("/sys/devices/platform/host{host}"));
        for class in ["scsi_host", "iscsi_host"] {
            let at = platform.join(format!("{class}/host{host}"));
            tree.put_link(at.join("device"), platform.clone());
            tree.put_link(format!("/sys/class/{class}/host{host}"), at);
        }
        let scsi_host = platform.join(format!("scsi_host/host{host}"));
        tree.put_text(scsi_host.join("scan"), "");
        tree.put_text(scsi_host.join("state"), "running\n");
        tree.put_text(scsi_host.join("proc_name"), "iscsi_tcp\n");
    }

    fn show_netdev(&mut self, session: &Session) {
        let host = session.host();
        let netdev = session.netdev.as_deref().unwrap_or("(null)");
        let class = format!("/sys/devices/platform/host{host}/iscsi_host/host{host}");
        self.tree
            .put_text(format!("{class}/netdev"), format!("{netdev}\n"));
    }

    /// Ends a session: its disks go at once.
    pub(super) fn close_session(&mut self, id: u32) {
        let disks: Vec<u64> = self.disks_of(id);
        for &sd in &disks {
            self.remove_disk(sd);
        }
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        // One that lost its connection serves nobody.
        if !disks.is_empty() && session.state == SessionState::LoggedIn {
            self.violation(format!("{} logged out with disks on it", session.name()));
        }
        if session.foreign {
            self.violation(format!("foreign {} logged out", session.name()));
        }
        let host = session.host();
        for gone in [
            format!("/sys/class/iscsi_session/session{id}"),
            format!("/sys/class/iscsi_connection/connection{id}:0"),
            format!("/sys/class/scsi_host/host{host}"),
            format!("/sys/class/iscsi_host/host{host}"),
            format!("/sys/devices/platform/host{host}"),
        ] {
            self.tree.clear(gone);
        }
        self.event();
    }

    pub(super) fn disks_of(&self, session: u32) -> Vec<u64> {
        let on_it = self.sds.iter().filter(|(_, sd)| sd.session == session);
        on_it.map(|(&id, _)| id).collect()
    }

    // ---- portals go and come ---------------------------------------------------------------------------------------------

    pub(super) fn set_portal(&mut self, portal: Portal, answer: PortalState) {
        self.san.portals.insert(portal, answer);
        self.ways_changed(|session| session.portal == portal);
    }

    /// Interfaces come, go, or lead elsewhere: the sessions among `these` fail or return.
    pub(super) fn ways_changed(&mut self, these: impl Fn(&Session) -> bool) {
        let concerned = self.sessions.values().filter(|session| these(session));
        let answers: Vec<(u32, PortalState)> = concerned
            .map(|session| {
                let netdev = session.netdev.as_deref();
                (session.id, self.answer(session.portal, netdev))
            })
            .collect();
        for (id, answer) in answers {
            if answer == PortalState::Up {
                let pause = self.delays.reconnect;
                self.later(pause, move |state| state.session_returns(id));
            } else if answer != PortalState::Stalled {
                self.session_fails(id);
            }
        }
        self.event();
    }

    pub(super) fn has_netdev(&self, netdev: &str) -> bool {
        let path = PathBuf::from("/sys/class/net").join(netdev);
        self.tree.find(&path).is_some()
    }

    /// How a portal answers one who asks through an interface, or as the routes have it.
    pub(super) fn answer(&self, portal: Portal, netdev: Option<&str>) -> PortalState {
        let ways = self.san.ways.get(&portal);
        let leads = |netdev: &str| {
            let way = ways.is_none_or(|ways| ways.contains(netdev));
            way && self.has_netdev(netdev)
        };
        match self.san.portal(portal) {
            PortalState::Up if !netdev.is_none_or(leads) => PortalState::BlackHoled,
            answer => answer,
        }
    }

    /// Whether a write to this `scan` attribute would wait for a portal that does not answer.
    pub(super) fn is_stalled_scan(&self, path: &std::path::Path) -> bool {
        let is_on = |session: &&Session| {
            path == PathBuf::from(format!("/sys/class/scsi_host/host{}/scan", session.host()))
        };
        let session = self.sessions.values().find(is_on);
        session.is_some_and(|session| {
            session.state == SessionState::LoggedIn
                && self.san.portal(session.portal) == PortalState::Stalled
        })
    }

    fn session_fails(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.state == SessionState::Failed {
            return;
        }
        session.state = SessionState::Failed;
        session.failures += 1;
        let (failure, patience) = (session.failures, session.recovery);
        self.show_states(id, "FAILED", "failed", "blocked");
        self.later(patience, move |state| state.recovery_ends(id, failure));
    }

    /// `recovery_tmo` has passed: the kernel stops holding I/O back.
    fn recovery_ends(&mut self, id: u32, failure: u32) {
        let still = self.sessions.get(&id).is_some_and(|session| {
            session.state == SessionState::Failed && session.failures == failure
        });
        if still {
            self.show_states(id, "FAILED", "failed", "transport-offline");
        }
    }

    fn session_returns(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let netdev = session.netdev.as_deref();
        if self.answer(session.portal, netdev) != PortalState::Up {
            return;
        }
        let Some(target) = self.san.targets.get_mut(&session.iqn) else {
            return;
        };
        if !target.portals.contains(&session.portal) {
            return;
        }
        if target.admits(session.portal, session.chap.as_ref()) != (true, true) {
            *target.refused.entry(session.portal).or_default() += 1;
            return;
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = SessionState::LoggedIn;
        }
        self.await_checker(id);
        self.show_states(id, "LOGGED_IN", "up", "running");
    }

    fn show_states(&mut self, id: u32, session: &str, connection: &str, disk: &str) {
        let class = format!("/sys/class/iscsi_session/session{id}");
        self.set_attribute(&format!("{class}/state"), session);
        let class = format!("/sys/class/iscsi_connection/connection{id}:0");
        self.set_attribute(&format!("{class}/state"), connection);
        for sd in self.disks_of(id) {
            self.set_disk_state(sd, disk);
        }
        self.maps_changed();
        self.event();
    }

    /// Shows `value` in an attribute that stands, wherever links lead.
    pub(super) fn set_attribute(&mut self, path: &str, value: &str) {
        if let Ok(at) = self.tree.resolve(path.as_ref(), true) {
            self.tree.put_text(at, format!("{value}\n"));
        }
    }

    // ---- what the kernel does on a write to one of its attributes ------------------------------------------------------------

    /// A write to `…/scsi_host/hostH/scan`: `CHANNEL TARGET LUN`, each a number or `-`.
    pub(super) fn scan(&mut self, host: u32, request: &str) -> std::io::Result<()> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let [channel, target, lun] = words.as_slice() else {
            return Err(nix::errno::Errno::EINVAL.into());
        };
        let Some(session) = self.sessions.values().find(|s| s.host() == host).cloned() else {
            return Err(nix::errno::Errno::ENOENT.into());
        };
        if *lun == "-" {
            self.violation(format!("wildcard scan {request:?} on {}", session.name()));
            self.scan_all(session.id);
            return Ok(());
        }
        let Ok(lun) = lun.parse() else {
            return Err(nix::errno::Errno::EINVAL.into());
        };
        // Software iSCSI has channel 0 and target 0 only; scanning another finds nothing.
        if matches!(*channel, "0" | "-") && matches!(*target, "0" | "-") {
            self.scan_lun(session.id, Lun(lun));
        }
        Ok(())
    }

    pub(super) fn scan_all(&mut self, session: u32) {
        let Some(found) = self.sessions.get(&session) else {
            return;
        };
        let target = self.san.targets.get(&found.iqn);
        let luns: Vec<Lun> = target
            .map(|target| target.luns.keys().copied().collect())
            .unwrap_or_default();
        for lun in luns {
            self.scan_lun(session, lun);
        }
    }

    fn scan_lun(&mut self, session: u32, lun: Lun) {
        let Some(found) = self.sessions.get(&session) else {
            return;
        };
        // The kernel does nothing, and says nothing, for a session that is not logged in (R-0-2's table).
        if found.state != SessionState::LoggedIn {
            return;
        }
        let present = self
            .sds
            .values()
            .any(|sd| sd.session == session && sd.lun == lun);
        if present {
            return;
        }
        if let Some(disk) = self.san.lun(&found.iqn.clone(), lun) {
            self.add_disk(session, lun, disk);
        }
    }

    /// A node of the tree that stands for nothing but its presence.
    pub(super) fn put_file(&mut self, path: impl AsRef<std::path::Path>) {
        self.tree.put(path, Node::File(Vec::new()));
    }
}
