//! All readers of this family over one body.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::notes::{self, Notes};
use super::read::{self, Hosts};
use super::{refusal, wire};

/// Whether anything is made of it.
pub(in super::super) fn reads(bytes: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    let found = things(&body);
    let Some(refused) = wire::refusal(&body) else {
        return found > 0;
    };
    let _ = (refused.text(), refusal::fault(&refused));
    assert_eq!(found, 0, "a refusal is read as something else");
    true
}

/// Those of a list, or the one.
fn all<T: DeserializeOwned>(body: &Value) -> Vec<T> {
    match wire::list(body) {
        Ok(listed) => listed.things,
        Err(_) => wire::thing(body).into_iter().collect(),
    }
}

/// How many things are read.
fn things(body: &Value) -> usize {
    let hosts: Vec<wire::Host> = all(body);
    let luns: Vec<wire::Lun> = all(body);
    let snaps: Vec<wire::Snap> = all(body);
    let portals: Vec<wire::IscsiPortal> = all(body);
    for host in &hosts {
        let _ = (read::initiators(host), read::node_name(host));
        let _ = notes::node(&host.description);
    }
    let found = hosts.len() + luns.len() + snaps.len() + portals.len();
    let hosts: Hosts = hosts.into_iter().map(|it| (it.id.clone(), it)).collect();
    let listening = read::portals(&portals).unwrap_or_default();
    for lun in &luns {
        let _ = (read::checked(lun, &hosts), read::reached_by(lun).count());
        let _ = read::export(lun, &listening, 0, false);
        let notes = Notes::read(&lun.description, &lun.name);
        let again = Notes::read(&notes.write(&lun.name), &lun.name);
        assert_eq!(again, notes, "what was written is read");
    }
    for snap in &snaps {
        let _ = read::snapshot(snap);
    }
    found + others(body)
}

fn others(body: &Value) -> usize {
    let mut found = all::<wire::HostInitiator>(body).len() + all::<wire::HostLun>(body).len();
    found += all::<wire::Pool>(body).len() + all::<wire::System>(body).len();
    found += all::<wire::SystemLimit>(body).len() + all::<wire::IoLimitPolicy>(body).len();
    found += all::<wire::Made>(body).len() + all::<wire::MadeResource>(body).len();
    found + usize::from(wire::job(body).is_ok())
}
