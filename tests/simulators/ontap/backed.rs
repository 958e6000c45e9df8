//! LUNs that really exist: what of the state is on the data path.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::backing::{Backing, Object};
use super::super::http::{Reply, Request};
use super::engine::{Refusal, number};
use super::{Caller, Ontap, State};

impl Ontap {
    /// With LUNs that are served, on one interface for data at each of these addresses: the first on node 1, and so on.
    pub fn backed(backing: Arc<dyn Backing>, addresses: &[String]) -> Self {
        let array = Self::default();
        let mut state = array.state();
        state.backing = backing;
        let is_data = |it: &Value| it["services"] == json!(["data_core", "data_iscsi"]);
        let interfaces = state.records.entry("interfaces").or_default();
        interfaces.retain(|_, it| !is_data(it));
        for (number, address) in addresses.iter().enumerate() {
            state.put_interface(&format!("iscsi_{number}"), number, address, true);
        }
        drop(state);
        array
    }
}

impl State {
    /// Answers as [`Self::route`] does, and lets the data path follow.
    pub(super) fn served(&mut self, caller: &Caller, request: &Request) -> Result<Reply, Refusal> {
        self.note_used();
        let reply = self.route(caller, request);
        if request.is_mutation() {
            let asked = self.backing.ask_for(&self.chap());
            let followed = asked.and_then(|()| self.backing.follow(&self.objects()));
            followed.map_err(|why| Refusal::new(500, 1, &why))?;
        }
        reply
    }

    fn note_used(&mut self) {
        for (uuid, lun) in self.records.entry("luns").or_default() {
            if let Some(used) = self.backing.used(uuid) {
                lun["space"]["used"] = json!(used);
            }
        }
    }

    fn objects(&self) -> Vec<Object> {
        let luns = self.records.get("luns").into_iter().flatten();
        let object = |(uuid, lun): (&String, &Value)| Object {
            id: uuid.clone(),
            size: number(&lun["space"]["size"]).unwrap_or_default(),
            copy_of: lun["_copy_of"].as_str().map(str::to_owned),
            wwid: wwid(lun["serial_number"].as_str().unwrap_or_default()),
            shown_to: self.shown_to(uuid),
            ..Object::default()
        };
        luns.map(object).collect()
    }

    /// Whoever is in an igroup that the LUN is mapped to.
    fn shown_to(&self, uuid: &str) -> BTreeMap<String, u64> {
        let mut shown = BTreeMap::new();
        for map in self.maps_where(|map| map["lun"]["uuid"] == json!(uuid)) {
            let igroup = map["igroup"]["uuid"].as_str().unwrap_or_default();
            let Some(igroup) = self.get("igroups", igroup) else {
                continue;
            };
            let initiators = igroup["initiators"].as_array().into_iter().flatten();
            let names = initiators.filter_map(|it| it["name"].as_str());
            let number = map["logical_unit_number"].as_u64().unwrap_or_default();
            shown.extend(names.map(|name| (name.to_owned(), number)));
        }
        shown
    }
}

/// The serial's characters behind NetApp's number at the IEEE.
fn wwid(serial: &str) -> String {
    let mut wwid = "3600a0980".to_owned();
    for byte in serial.bytes() {
        let _ = write!(wwid, "{byte:02x}");
    }
    wwid
}
