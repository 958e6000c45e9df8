//! What those who only look want to know of open-iscsi: which records it logs in by at boot, and under which names sessions live.

use std::collections::BTreeSet;
use std::path::Path;

use super::database::{HOMES, NODES, has_settings};
use super::interfaces::{UNBOUND, is_own_name};
use super::session::{SESSIONS, list_sessions};
use crate::host::{FileKind, Host};

/// A record with `node.startup = automatic`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AutomaticRecord {
    /// The target's name.
    pub iqn: String,
    /// The portal's address.
    pub address: String,
    /// And its port.
    pub port: String,
    /// The interface record that it is for.
    pub iface: String,
}

/// All of them, in either database below `root`. What cannot be read is passed over.
#[must_use]
pub fn automatic_records(host: &Host, root: &Path) -> Vec<AutomaticRecord> {
    let mut found = BTreeSet::new();
    for home in HOMES {
        let nodes = root.join(home).join(NODES);
        for iqn in names_in(host, &nodes) {
            for place in names_in(host, &nodes.join(&iqn)) {
                let path = nodes.join(&iqn).join(&place);
                found.extend(automatic_at(host, &path, &iqn, &place));
            }
        }
    }
    found.into_iter().collect()
}

/// `ADDRESS,PORT` or `ADDRESS,PORT,TAG`: a folder of records by interface, or a record of the old form.
fn automatic_at(host: &Host, path: &Path, iqn: &str, place: &str) -> Vec<AutomaticRecord> {
    let mut parts = place.split(',');
    let (Some(address), Some(port)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let is_file =
        |path: &Path| matches!(host.find_stat(path), Ok(Some(stat)) if stat.kind == FileKind::File);
    let files = if is_file(path) {
        vec![(path.to_owned(), UNBOUND.to_owned())]
    } else {
        let ifaces = names_in(host, path).into_iter();
        ifaces.map(|iface| (path.join(&iface), iface)).collect()
    };
    let automatic = |file: &Path| {
        // It may hold secrets: it is looked at and dropped.
        let text = host.read(file).unwrap_or_default();
        let text = crate::fabric::Secret::from(String::from_utf8_lossy(&text).into_owned());
        has_settings(text.expose(), &[("node.startup", Some("automatic"))])
    };
    let files = files.into_iter().filter(|(file, _)| automatic(file));
    files
        .map(|(_, iface)| AutomaticRecord {
            iqn: iqn.to_owned(),
            address: address.to_owned(),
            port: port.to_owned(),
            iface,
        })
        .collect()
}

fn names_in(host: &Host, folder: &Path) -> Vec<String> {
    let names = host.list(folder).unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect()
}

/// The initiator's names that sessions of the default interface or of ours were logged in under.
#[must_use]
pub fn names_in_use(host: &Host) -> BTreeSet<String> {
    let sessions = list_sessions(host).unwrap_or_default();
    let usual = sessions
        .into_iter()
        .filter(|it| it.interface == UNBOUND || is_own_name(&it.interface));
    let name = |sid: u32| {
        let path = Path::new(SESSIONS).join(format!("session{sid}/initiatorname"));
        host.find_attribute(&path).ok().flatten()
    };
    let names = usual.filter_map(|session| name(session.sid));
    names
        .filter(|name| !name.is_empty() && name != "(null)")
        .collect()
}
