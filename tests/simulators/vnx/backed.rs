//! LUNs that really exist: what of the state is on the data path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::backing::{Backing, Object};
use super::state::{Lun, Port, Snap, State};
use super::{Navi, No};

const BLOCK: u64 = 512;

impl Navi {
    /// With LUNs that are served at these ports.
    pub fn backed(serial: &str, backing: Arc<dyn Backing>, ports: Vec<Port>) -> Self {
        let mut state = State::new(serial);
        state.backing = backing;
        state.ports = ports;
        Self::of(state)
    }

    /// Whatever is left goes, as an administrator would have it who gives the array up.
    pub fn clear(&self) -> Result<(), String> {
        let mut state = self.state();
        state.luns.clear();
        state.snaps.clear();
        state.followed().map_err(|No(why)| why)
    }

    /// The target of a port of an array with this serial number.
    pub fn target(serial: &str, port: &Port) -> String {
        let (serial, letter) = (serial.to_ascii_lowercase(), port.sp.to_ascii_lowercase());
        format!("iqn.1992-04.com.emc:cx.{serial}.{letter}{}", port.port)
    }
}

impl State {
    /// Lets the data path follow.
    pub(super) fn followed(&self) -> Result<(), No> {
        self.backing.follow(&self.objects()).map_err(No)
    }

    /// What was written is known to whoever serves it.
    pub(super) fn note_used(&mut self) {
        for lun in self.luns.values_mut() {
            let used = self.backing.used(&id(lun));
            lun.written = used.map_or(lun.written, |bytes| bytes.div_ceil(BLOCK));
        }
    }

    fn objects(&self) -> Vec<Object> {
        let snaps = self.snaps.values().filter_map(|snap| self.cut(snap));
        // A mount point has nothing to show before a snapshot is attached to it.
        let shows = |lun: &&Lun| lun.primary.is_none() || lun.attached.is_some();
        let is_shown = |(_, lun): &(&u32, &Lun)| shows(lun);
        let luns = self.luns.iter().filter(is_shown);
        let luns = luns.map(|(number, lun)| self.disk(*number, lun));
        snaps.chain(luns).collect()
    }

    fn cut(&self, snap: &Snap) -> Option<Object> {
        let lun = self.luns.get(&snap.lun)?;
        Some(Object {
            id: id_of_cut(snap.cut_at),
            size: lun.size,
            copy_of: Some(snap.copied_from.map_or_else(|| id(lun), id_of_cut)),
            ..Object::default()
        })
    }

    fn disk(&self, number: u32, lun: &Lun) -> Object {
        let attached = lun.attached.as_ref();
        let snap = attached.and_then(|name| self.snaps.get(name));
        Object {
            id: id(lun),
            size: lun.size,
            copy_of: snap.map(|it| id_of_cut(it.cut_at)),
            wwid: format!("3{}", id(lun)),
            shown_to: self.shown_to(number),
            ..Object::default()
        }
    }

    fn shown_to(&self, number: u32) -> BTreeMap<String, u64> {
        let mut shown = BTreeMap::new();
        for (host, name) in &self.connected {
            let group = self.groups.get(name);
            let luns = group.into_iter().flat_map(|group| &group.luns);
            let hlu = luns.filter(|(_, lun)| **lun == number).map(|(hlu, _)| *hlu);
            let records = self.records.iter().filter(|it| it.host == *host);
            for hlu in hlu {
                let each = records.clone();
                shown.extend(each.map(|it| (it.initiator.clone(), u64::from(hlu))));
            }
        }
        shown
    }
}

/// Never another's on this array.
fn id(lun: &Lun) -> String {
    lun.uid.replace(':', "").to_lowercase()
}

fn id_of_cut(cut_at: u64) -> String {
    format!("cut-{cut_at}")
}
