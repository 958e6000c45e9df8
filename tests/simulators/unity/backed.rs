//! LUNs that really exist: what of the state is on the data path.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::super::backing::{Backing, Object};
use super::state::{Lun, Port, Snap, State};
use super::{BROKEN, Done, Unity};

impl Unity {
    /// With LUNs that are served at these ports.
    pub fn backed(serial: &str, backing: Arc<dyn Backing>, ports: Vec<Port>) -> Self {
        let mut state = State::new(serial);
        state.backing = backing;
        state.ports = ports;
        Self(Mutex::new(state))
    }

    /// The target of each port of an array with this serial number.
    pub fn target(serial: &str, port: &Port) -> String {
        let serial = serial.to_lowercase();
        format!("iqn.1992-04.com.emc:cx.{serial}.{}", port.short)
    }
}

impl State {
    pub(super) fn target(&self, port: &Port) -> String {
        Unity::target(&self.serial, port)
    }

    /// Lets the data path follow.
    pub(super) fn followed(&self) -> Done {
        let followed = self.backing.follow(&self.objects());
        followed.map(|()| Value::Null).map_err(|_| BROKEN)
    }

    /// What was written is known to whoever serves it.
    pub(super) fn note_used(&mut self) {
        for (id, lun) in &mut self.luns {
            lun.allocated = self.backing.used(id).unwrap_or(lun.allocated);
        }
    }

    fn objects(&self) -> Vec<Object> {
        let luns = self.luns.iter().map(|(id, lun)| self.lun(id, lun));
        let snaps = self.snaps.iter().map(|(id, snap)| cut(id, snap));
        // A thin clone comes after what it is made of.
        snaps.chain(luns).collect()
    }

    fn lun(&self, id: &str, lun: &Lun) -> Object {
        let seen = lun.access.iter().flat_map(|(host, (_, hlu))| {
            let initiators = self.initiators.values();
            let of_host = initiators.filter(move |it| it.host.as_ref() == Some(host));
            of_host.map(|it| (it.name.clone(), *hlu))
        });
        let hex = lun.wwn.replace(':', "").to_lowercase();
        Object {
            id: id.to_owned(),
            size: lun.size,
            copy_of: lun.made_of.clone(),
            wwid: format!("3{hex}"),
            shown_to: seen.collect(),
            ..Object::default()
        }
    }
}

fn cut(id: &str, snap: &Snap) -> Object {
    Object {
        id: id.to_owned(),
        size: snap.size,
        copy_of: Some(snap.lun.clone()),
        ..Object::default()
    }
}
