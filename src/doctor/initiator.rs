//! open-iscsi's part: the initiator's name, iscsid, its version, sessions that have lost their connection.

use std::path::Path;

use super::Finding;
use crate::config::Read;
use crate::fabric::{Iqn, PathAddress};
use crate::fault::chain;
use crate::host::Host;
use crate::iscsi::{self, InitiatorError, Session, SessionState};

/// Where iscsid listens (`usr/mgmt_ipc.c` of open-iscsi), as the kernel lists it.
const IPC: &str = "@ISCSIADM_ABSTRACT_NAMESPACE";

/// How the names of `sanpath san`'s targets begin.
const TARGETS: &str = "iqn.2026-11.dev.sanpath";

pub(super) fn check_name(host: &Host, root: &Path) -> Finding {
    const CHECK: &str = "initiator-name";
    let error = match iscsi::find_initiator_name(host, root) {
        Ok(name) => return check_use(host, CHECK, &name),
        Err(error) => error,
    };
    let fix = match error {
        InitiatorError::Read { .. } => {
            "install open-iscsi (RHEL: iscsi-initiator-utils); then make a name"
        }
        _ => "make a name",
    };
    Finding::problem(
        CHECK,
        chain(&error),
        "the SAN knows a node by this name and shows volumes to no other; no two nodes may have the same",
        fix,
    )
    .with_command(
        "echo \"InitiatorName=$(iscsi-iname)\" > /etc/iscsi/initiatorname.iscsi && systemctl restart iscsid",
    )
}

/// A name that was changed while sessions live under another one. That two machines have one name is seen on the SAN alone.
fn check_use(host: &Host, check: &'static str, name: &Iqn) -> Finding {
    let used = iscsi::names_in_use(host);
    let Some(other) = used.iter().find(|used| used.as_str() != name.as_str()) else {
        return Finding::good(check, name.to_string());
    };
    Finding::problem(
        check,
        format!("it is {name}, and sessions live under {other}"),
        "the SAN shows this node's volumes to the name that they were attached under; a session that is made anew goes by the file",
        "put the name back; where it has to change, first drain the node and restart iscsid and the node plugin after the change",
    )
    .with_command(format!(
        "echo \"InitiatorName={other}\" > /etc/iscsi/initiatorname.iscsi && systemctl restart iscsid"
    ))
}

/// What open-iscsi logs in to at boot, whether or not a volume is there.
pub(super) fn check_records(host: &Host, root: &Path, read: Option<&Read>) -> Vec<Finding> {
    const CHECK: &str = "automatic-record";
    let ours = |record: &iscsi::AutomaticRecord| {
        record.iqn.starts_with(TARGETS) || is_listed(read, &record.address)
    };
    let records = iscsi::automatic_records(host, root);
    let findings: Vec<Finding> = records.iter().filter(|it| ours(it)).map(|record| {
        let (iqn, address, port) = (&record.iqn, &record.address, &record.port);
        let place = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        Finding::warning(
            CHECK,
            format!("{iqn} at {place} is logged in to at each boot (node.startup = automatic)"),
            "after a reboot its disks come up before anybody asked for them, of volumes that may be another node's by then",
            "have it logged in to by hand, as the driver's own records are",
        )
        .with_command(format!("iscsiadm -m node -T {iqn} -p {place} -I {} --op update -n node.startup -v manual", record.iface))
    }).collect();
    if findings.is_empty() {
        return vec![Finding::good(
            CHECK,
            "no target of a SAN of ours is logged in to at boot",
        )];
    }
    findings
}

fn is_listed(read: Option<&Read>, address: &str) -> bool {
    let partitions = read
        .into_iter()
        .flat_map(|read| read.config.partitions.values());
    let mut listed = partitions.flat_map(|partition| partition.ncpaths.listed());
    listed.any(|path| match &path.address {
        PathAddress::Portal(portal) => portal.address().to_string() == address,
        PathAddress::Name(..) => false,
    })
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
        "install open-iscsi (RHEL: iscsi-initiator-utils) and start it; in a container use the host's network",
    )
    .with_command("systemctl enable --now iscsid")
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
