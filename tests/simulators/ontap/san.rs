//! Igroups and LUN maps.

use serde_json::{Value, json};

use super::super::http::Reply;
use super::engine::{Call, Refusal, merge};
use super::{NODES, State, node_uuid, svm_of};

impl State {
    pub fn igroups(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) => Ok(self.list("igroups", call)),
            ("GET", [uuid]) => self.one("igroups", call, uuid),
            ("POST", []) => self.make_igroup(call),
            ("PATCH", [uuid]) => {
                let mut found = self.igroup(uuid)?;
                merge(&mut found, call.body.clone());
                self.put("igroups", uuid, found);
                Ok(self.changed(call, None, 200))
            }
            ("DELETE", [uuid]) => {
                self.igroup(uuid)?;
                let uuid = json!(uuid);
                let is_mapped = !self
                    .maps_where(|map| map["igroup"]["uuid"] == uuid)
                    .is_empty();
                let is_forced = call.request.asked("allow_delete_while_mapped") == Some("true");
                if is_mapped && !is_forced {
                    return Err(Refusal::new(
                        409,
                        1_254_213,
                        "The initiator group is mapped to LUNs.",
                    ));
                }
                if let Some(maps) = self.records.get_mut("maps") {
                    maps.retain(|_, map| map["igroup"]["uuid"] != uuid);
                }
                self.remove("igroups", uuid.as_str().unwrap_or_default());
                Ok(self.changed(call, None, 200))
            }
            (_, [uuid, "initiators", rest @ ..]) => self.initiators(call, uuid, rest),
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn initiators(&mut self, call: &Call<'_>, uuid: &str, rest: &[&str]) -> Result<Reply, Refusal> {
        let mut found = self.igroup(uuid)?;
        let mut all = found["initiators"].as_array().cloned().unwrap_or_default();
        match (call.request.method.as_str(), rest) {
            ("POST", []) => {
                let name = call.body["name"].clone();
                if all.iter().any(|it| it["name"] == name) {
                    return Err(Refusal::new(
                        409,
                        5_374_035,
                        "The initiator is already a member.",
                    ));
                }
                all.push(json!({"name": name}));
                found["initiators"] = json!(all);
                self.put("igroups", uuid, found);
                let href = format!("protocols/san/igroups/{uuid}/initiators");
                let key = name.as_str().unwrap_or_default().to_owned();
                Ok(self.changed(call, Some((&href, key, call.body.clone())), 201))
            }
            ("GET", []) => Ok(Reply::json(
                200,
                json!({"num_records": all.len(), "records": all}),
            )),
            ("DELETE", [name]) => {
                let before = all.len();
                all.retain(|it| it["name"] != json!(name));
                if all.len() == before {
                    return Err(Refusal::new(
                        404,
                        5_374_034,
                        "The initiator is not a member.",
                    ));
                }
                found["initiators"] = json!(all);
                self.put("igroups", uuid, found);
                Ok(self.changed(call, None, 200))
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn igroup(&self, uuid: &str) -> Result<Value, Refusal> {
        let found = self.get("igroups", uuid).cloned();
        found.ok_or_else(|| Refusal::new(404, 5_374_852, "The initiator group does not exist."))
    }

    fn make_igroup(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let body = call.body;
        let svm = body["svm"]["name"]
            .as_str()
            .or(call.caller.svm.as_deref())
            .unwrap_or_default()
            .to_owned();
        let name = body["name"].as_str().unwrap_or_default();
        if !(1..=96).contains(&name.len()) {
            return Err(Refusal::new(
                400,
                5_374_737,
                "The name of the initiator group is invalid.",
            ));
        }
        let all = self
            .records
            .get("igroups")
            .into_iter()
            .flat_map(|all| all.values());
        let mut same =
            all.filter(|it| it["name"] == json!(name) && it["svm"]["name"] == json!(svm));
        if same.next().is_some() {
            return Err(Refusal::new(
                409,
                5_374_023,
                "An initiator group with this name exists.",
            ));
        }
        let uuid = self.uuid();
        let initiators = body["initiators"].as_array().cloned().unwrap_or_default();
        let mut made = json!({
            "uuid": uuid, "name": name, "svm": svm_of(&svm), "protocol": body["protocol"].as_str().unwrap_or("mixed"),
            "os_type": body["os_type"], "initiators": initiators,
        });
        if let Some(comment) = body["comment"].as_str() {
            made["comment"] = json!(comment);
        }
        self.put("igroups", &uuid, made.clone());
        Ok(self.changed(call, Some(("protocols/san/igroups", uuid, made)), 201))
    }

    pub fn maps(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) => Ok(self.list("maps", call)),
            ("GET", [lun, igroup]) => self.one("maps", call, &format!("{lun}/{igroup}")),
            ("POST", []) => self.map(call),
            ("DELETE", [lun, igroup]) => {
                let removed = self.remove("maps", &format!("{lun}/{igroup}"));
                removed.ok_or_else(|| {
                    Refusal::new(404, 5_374_922, "The specified LUN map was not found.")
                })?;
                Ok(self.changed(call, None, 200))
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    /// The record that is meant by uuid or name.
    fn named(&self, collection: &str, by: &Value, svm: Option<&str>) -> Option<Value> {
        let mut all = self.records.get(collection)?.values();
        let is_of = |it: &&Value| svm.is_none_or(|svm| it["svm"]["name"] == json!(svm));
        let found = match (&by["uuid"], &by["name"]) {
            (Value::String(uuid), _) => all.find(|it| it["uuid"] == json!(uuid)),
            (_, name) => all.find(|it| it["name"] == *name && is_of(it)),
        };
        found.filter(is_of).cloned()
    }

    fn map(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let body = call.body;
        let svm = body["svm"]["name"].as_str().or(call.caller.svm.as_deref());
        let lun = self.named("luns", &body["lun"], svm);
        let lun = lun.ok_or_else(|| Refusal::new(404, 1_254_201, "The LUN does not exist."))?;
        let igroup = self.named("igroups", &body["igroup"], svm);
        let igroup = igroup
            .ok_or_else(|| Refusal::new(404, 5_374_852, "The initiator group does not exist."))?;
        for map in self.maps_where(|map| map["lun"]["uuid"] == lun["uuid"]) {
            if map["igroup"]["uuid"] == igroup["uuid"] {
                return Err(Refusal::new(
                    409,
                    1_254_207,
                    "The LUN is already mapped to this initiator group.",
                ));
            }
            let other = self.get(
                "igroups",
                map["igroup"]["uuid"].as_str().unwrap_or_default(),
            );
            if other.is_some_and(|other| shares(&other["initiators"], &igroup["initiators"])) {
                return Err(Refusal::new(
                    409,
                    1_254_324,
                    "The LUN is already mapped to an initiator of this group.",
                ));
            }
        }
        let taken = self.maps_where(|map| {
            let other = self.get(
                "igroups",
                map["igroup"]["uuid"].as_str().unwrap_or_default(),
            );
            other.is_some_and(|other| shares(&other["initiators"], &igroup["initiators"]))
                || map["igroup"]["uuid"] == igroup["uuid"]
        });
        let is_free = |number: &u64| {
            !taken
                .iter()
                .any(|map| map["logical_unit_number"] == json!(number))
        };
        let asked = body["logical_unit_number"].as_u64();
        let number = asked.or_else(|| (0..4096).find(is_free));
        let number = number
            .filter(is_free)
            .ok_or_else(|| Refusal::new(409, 1_254_210, "No LUN number is free."))?;
        let nodes = reporting(&lun);
        let map = json!({
            "svm": lun["svm"], "lun": {"uuid": lun["uuid"], "name": lun["name"]}, "logical_unit_number": number,
            "igroup": {"uuid": igroup["uuid"], "name": igroup["name"], "os_type": igroup["os_type"], "protocol": igroup["protocol"]},
            "reporting_nodes": nodes,
        });
        let key = format!(
            "{}/{}",
            lun["uuid"].as_str().unwrap_or_default(),
            igroup["uuid"].as_str().unwrap_or_default()
        );
        self.put("maps", &key, map.clone());
        Ok(self.changed(call, Some(("protocols/san/lun-maps", key, map)), 201))
    }
}

/// The node that has the LUN, and its partner.
fn reporting(lun: &Value) -> Value {
    let owner = NODES.iter().position(|node| lun["_node"] == json!(node));
    let first = owner.unwrap_or(0) / 2 * 2;
    let pair = [first, first + 1];
    pair.iter()
        .map(|node| json!({"name": NODES[*node], "uuid": node_uuid(*node)}))
        .collect()
}

/// Whether two lists of initiators have one in common.
fn shares(one: &Value, other: &Value) -> bool {
    let other = other.as_array();
    one.as_array().into_iter().flatten().any(|initiator| {
        let name = &initiator["name"];
        other.is_some_and(|other| other.iter().any(|it| it["name"] == *name))
    })
}
