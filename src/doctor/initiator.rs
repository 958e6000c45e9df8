//! open-iscsi's part: the initiator's name, iscsid, its version, sessions that have lost their connection.

use std::path::Path;

use super::Finding;
use crate::fault::chain;
use crate::host::Host;
use crate::iscsi::{self, InitiatorError, Session, SessionState};

/// Where iscsid listens (`usr/mgmt_ipc.c` of open-iscsi), as the kernel lists it.
const IPC: &str = "@ISCSIADM_ABSTRACT_NAMESPACE";

pub(super) fn check_name(host: &Host, root: &Path) -> Finding {
    const CHECK: &str = "initiator-name";
    let error = match iscsi::find_initiator_name(host, root) {
        Ok(name) => return Finding::good(CHECK, name.to_string()),
        Err(error) => error,
    };
    let fix = match error {
        InitiatorError::Read { .. } => "install open-iscsi (RHEL: iscsi-initiator-utils); then ",
        _ => "",
    };
    Finding::problem(
        CHECK,
        chain(&error),
        "the SAN knows a node by this name and shows volumes to no other; no two nodes may have the same",
        format!(
            "{fix}echo \"InitiatorName=$(iscsi-iname)\" > /etc/iscsi/initiatorname.iscsi && systemctl restart iscsid"
        ),
    )
}

pub(super) fn check_iscsid(host: &Host) -> Finding {
    const CHECK: &str = "iscsid";
    let sockets = host.read(Path::new("/proc/net/unix")).unwrap_or_default();
    if String::from_utf8_lossy(&sockets).contains(IPC) {
        return Finding::good(CHECK, "it listens");
    }
    Finding::problem(
        CHECK,
        "it does not listen in this network namespace",
        "without it nobody logs in, and sessions that lose their connection never come back",
        "systemctl enable --now iscsid (Debian, Ubuntu: open-iscsi); in a container use the host's network",
    )
}

pub(super) fn check_version(host: &Host) -> Finding {
    const CHECK: &str = "open-iscsi";
    let version = match iscsi::version(host) {
        Ok(version) => version,
        Err(error) => {
            return Finding::problem(
                CHECK,
                chain(&error),
                "logins go through iscsiadm of the host",
                "install open-iscsi (RHEL: iscsi-initiator-utils) on the host",
            );
        }
    };
    match iscsi::known_defect(&version) {
        None => Finding::good(CHECK, version),
        Some(defect) => Finding::problem(
            CHECK,
            defect,
            "no volume of a new session can be staged",
            "install 2.1.11 or later, or 2.1.9",
        ),
    }
}

pub(super) fn check_sessions(host: &Host) -> Vec<Finding> {
    const CHECK: &str = "session";
    let sessions = iscsi::list_sessions(host).unwrap_or_default();
    // One whose recovery time is over shows as free, although iscsid goes on trying.
    let lost = |session: &&Session| session.state != SessionState::LoggedIn;
    let findings: Vec<Finding> = sessions
        .iter()
        .filter(lost)
        .map(|session| lost_session(CHECK, session))
        .collect();
    if findings.is_empty() {
        return vec![Finding::good(
            CHECK,
            format!("{} sessions, none without its connection", sessions.len()),
        )];
    }
    findings
}

fn lost_session(check: &'static str, session: &Session) -> Finding {
    let portal = session.current.or(session.persistent);
    let place = portal.map_or_else(|| "an unknown portal".to_owned(), |it| it.to_string());
    let through = session.netdev.as_ref();
    let through = through.map_or_else(String::new, |netdev| format!(" through {netdev}"));
    Finding::warning(
        check,
        format!(
            "session{} to {place}{through} ({}) has lost its connection",
            session.sid, session.iqn
        ),
        "its paths carry nothing until it is back; iscsid goes on trying",
        format!("see whether {place} can be reached{through}, and `sanpath paths` for the volumes"),
    )
}
