//! LUNs and their attributes.

use serde_json::{Value, json};

use super::super::http::Reply;
use super::engine::{Call, Refusal, merge, number};
use super::{State, svm_of};

const SECTOR: u64 = 4096;
const LARGEST: u64 = 128 << 40;
/// Name and value of an attribute together.
const ATTRIBUTE: usize = 4092;

impl State {
    pub fn luns(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) => Ok(self.list("luns", call)),
            ("GET", [uuid]) => self.one("luns", call, uuid),
            ("POST", []) => self.make_lun(call),
            ("PATCH", [uuid]) => {
                self.seen_lun(call, uuid)?;
                self.change_lun(uuid, call.body)?;
                Ok(self.changed(call, None, 200))
            }
            ("DELETE", [uuid]) => {
                self.seen_lun(call, uuid)?;
                self.delete_lun(call, uuid)?;
                Ok(self.changed(call, None, 200))
            }
            ("PATCH", []) => {
                for uuid in self.meant("luns", call) {
                    self.change_lun(&uuid, call.body)?;
                }
                Ok(self.changed(call, None, 200))
            }
            ("DELETE", []) => {
                for uuid in self.meant("luns", call) {
                    self.delete_lun(call, &uuid)?;
                }
                Ok(self.changed(call, None, 200))
            }
            (_, [uuid, "attributes", rest @ ..]) => {
                self.seen_lun(call, uuid)?;
                self.attributes(call, uuid, rest)
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn seen_lun(&mut self, call: &Call<'_>, uuid: &str) -> Result<(), Refusal> {
        let svm = self.get("luns", uuid).map(|lun| lun["svm"]["name"].clone());
        let is_seen =
            svm.is_some_and(|svm| call.caller.svm.as_ref().is_none_or(|own| svm == json!(own)));
        let gone = || Refusal::new(404, 5_374_875, "The specified LUN was not found.");
        is_seen.then_some(()).ok_or_else(gone)
    }

    fn lun_at(&self, path: &str, svm: &str) -> Option<&Value> {
        let mut luns = self.records.get("luns")?.values();
        luns.find(|lun| lun["name"] == json!(path) && lun["svm"]["name"] == json!(svm))
    }

    /// The FlexVol of a path, which must be in the SVM.
    fn place(&self, path: &str, svm: &str) -> Result<Value, Refusal> {
        let rest = path
            .strip_prefix("/vol/")
            .and_then(|rest| rest.split_once('/'));
        let bad = || Refusal::new(400, 5_374_127, "The specified LUN name is invalid.");
        let (flexvol, lun) = rest.ok_or_else(bad)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._{}".contains(&byte);
        if lun.is_empty() || !lun.bytes().all(is_name) || lun.len() > 255 {
            return Err(bad());
        }
        let volumes = self
            .records
            .get("volumes")
            .into_iter()
            .flat_map(|all| all.values());
        let mut volumes = volumes.filter(|volume| volume["svm"]["name"] == json!(svm));
        let found = volumes
            .find(|volume| volume["name"] == json!(flexvol))
            .cloned();
        found.ok_or_else(|| Refusal::new(400, 917_927, "The specified volume was not found."))
    }

    fn make_lun(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let body = call.body;
        let svm = body["svm"]["name"].as_str().or(call.caller.svm.as_deref());
        let svm = svm
            .ok_or_else(|| Refusal::new(400, 2_621_707, "No SVM was specified."))?
            .to_owned();
        if call.caller.svm.as_ref().is_some_and(|own| *own != svm) {
            return Err(Refusal::new(
                400,
                2_621_706,
                "The specified SVM does not match.",
            ));
        }
        let path = match (body["name"].as_str(), &body["location"]) {
            (Some(name), _) => name.to_owned(),
            (None, at) => format!(
                "/vol/{}/{}",
                at["volume"]["name"].as_str().unwrap_or_default(),
                at["logical_unit"].as_str().unwrap_or_default()
            ),
        };
        let volume = self.place(&path, &svm)?;
        let clone = &body["clone"]["source"];
        let is_clone = !clone.is_null();
        if self.lun_at(&path, &svm).is_some() {
            let code = if is_clone { 1_260_136 } else { 5_374_242 };
            return Err(Refusal::new(
                409,
                code,
                "A LUN already exists at this path.",
            ));
        }
        let mut lun = if is_clone {
            self.clone_of(body, clone, &volume, &svm)?
        } else {
            blank(body)?
        };
        let uuid = self.name_lun(&mut lun, &volume, &path);
        lun["svm"] = svm_of(&svm);
        if let Some(comment) = body["comment"].as_str() {
            if comment.len() > 254 {
                return Err(Refusal::new(400, 5_374_123, "The comment is too long."));
            }
            lun["comment"] = json!(comment);
        }
        let half = std::mem::take(&mut self.manner.half_done);
        if half {
            lun["attributes"] = json!([]);
        }
        self.hidden.insert(uuid.clone(), self.manner.late_lists);
        self.put("luns", &uuid, lun.clone());
        if half {
            return Err(Refusal::new(
                400,
                5_374_863,
                "The LUN was created, but an error occurred while setting its attributes.",
            ));
        }
        Ok(self.changed(call, Some(("storage/luns", uuid, lun)), 201))
    }

    /// What each LUN has for itself; its uuid.
    pub fn name_lun(&mut self, lun: &mut Value, volume: &Value, path: &str) -> String {
        let uuid = self.uuid();
        lun["uuid"] = json!(uuid);
        lun["serial_number"] = json!(self.serial());
        lun["create_time"] = json!(self.time());
        lun["_node"] = volume["_node"].clone();
        lun["location"] = json!({"volume": {"name": volume["name"], "uuid": volume["uuid"]}});
        lun["status"] = json!({"state": "online", "container_state": "online", "read_only": false, "mapped": false});
        lun["enabled"] = json!(true);
        lun["class"] = json!("regular");
        rename(lun, path);
        uuid
    }

    /// It begins as its source is, but for being thin, and takes nothing that its source decides.
    fn clone_of(
        &self,
        body: &Value,
        source: &Value,
        volume: &Value,
        svm: &str,
    ) -> Result<Value, Refusal> {
        let decided = [
            &body["os_type"],
            &body["space"]["size"],
            &body["attributes"],
        ];
        if decided.iter().any(|it| !it.is_null()) {
            return Err(Refusal::new(
                400,
                5_374_899,
                "This property is not supported when creating a LUN clone.",
            ));
        }
        let found = match (source["uuid"].as_str(), source["name"].as_str()) {
            (Some(uuid), _) => self.get("luns", uuid),
            (None, Some(name)) => self.lun_at(name, svm),
            _ => None,
        };
        let found = found.filter(|found| found["svm"]["name"] == json!(svm));
        let mut lun = found
            .cloned()
            .ok_or_else(|| Refusal::new(404, 5_374_876, "The source LUN was not found."))?;
        if lun["location"]["volume"]["uuid"] != volume["uuid"] {
            return Err(Refusal::new(
                400,
                5_374_895,
                "A LUN clone must be in the volume of its source.",
            ));
        }
        lun["space"]["scsi_thin_provisioning_support_enabled"] = json!(false);
        lun["_copy_of"] = lun["uuid"].clone();
        if let Some(object) = lun.as_object_mut() {
            object.remove("comment");
            object.remove("qos_policy");
        }
        Ok(lun)
    }

    fn change_lun(&mut self, uuid: &str, body: &Value) -> Result<(), Refusal> {
        let gone = || Refusal::new(404, 5_374_875, "The specified LUN was not found.");
        let mut lun = self.get("luns", uuid).cloned().ok_or_else(gone)?;
        if !body["attributes"].is_null() || !body["os_type"].is_null() {
            return Err(Refusal::new(
                400,
                262_196,
                "Field cannot be set in this operation.",
            ));
        }
        if let Some(path) = body["name"].as_str() {
            let svm = lun["svm"]["name"].as_str().unwrap_or_default().to_owned();
            self.place(path, &svm)?;
            let taken = self
                .lun_at(path, &svm)
                .is_some_and(|other| other["uuid"] != json!(uuid));
            if taken {
                return Err(Refusal::new(
                    409,
                    5_374_242,
                    "A LUN already exists at this path.",
                ));
            }
            rename(&mut lun, path);
        }
        if let Some(size) = number(&body["space"]["size"]) {
            resize(&mut lun, size)?;
        }
        let asked = &body["qos_policy"];
        if !asked.is_null() {
            lun["qos_policy"] = self.policy_of(&lun, asked)?;
        }
        let mut rest = body.clone();
        if let Some(space) = rest.get_mut("space").and_then(Value::as_object_mut) {
            space.remove("size");
        }
        if let Some(rest) = rest.as_object_mut() {
            rest.remove("name");
            rest.remove("qos_policy");
        }
        merge(&mut lun, rest);
        let name = lun["name"].clone();
        self.put("luns", uuid, lun);
        for map in self.records.entry("maps").or_default().values_mut() {
            if map["lun"]["uuid"] == json!(uuid) {
                map["lun"]["name"] = name.clone();
            }
        }
        Ok(())
    }

    fn delete_lun(&mut self, call: &Call<'_>, uuid: &str) -> Result<(), Refusal> {
        let maps = self.maps_where(|map| map["lun"]["uuid"] == json!(uuid));
        let is_forced = call.request.asked("allow_delete_while_mapped") == Some("true");
        if !maps.is_empty() && !is_forced {
            return Err(Refusal::new(409, 1_254_197, "The LUN is mapped."));
        }
        if let Some(maps) = self.records.get_mut("maps") {
            maps.retain(|_, map| map["lun"]["uuid"] != json!(uuid));
        }
        self.remove("luns", uuid);
        Ok(())
    }

    fn attributes(&mut self, call: &Call<'_>, uuid: &str, rest: &[&str]) -> Result<Reply, Refusal> {
        let mut lun = self.get("luns", uuid).cloned().unwrap_or_default();
        let mut all: Vec<Value> = lun["attributes"].as_array().cloned().unwrap_or_default();
        let at = |all: &[Value], name: &str| all.iter().position(|it| it["name"] == json!(name));
        let gone = || Refusal::new(404, 5_374_931, "The specified LUN attribute was not found.");
        match (call.request.method.as_str(), rest) {
            ("GET", []) => {
                let body = json!({"num_records": all.len(), "records": all});
                return Ok(Reply::json(200, body));
            }
            ("GET", [name]) => {
                let found = at(&all, name).map(|at| all[at].clone()).ok_or_else(gone)?;
                return Ok(Reply::json(200, found));
            }
            ("POST", []) => {
                let name = call.body["name"].as_str().unwrap_or_default();
                if at(&all, name).is_some() {
                    return Err(Refusal::new(
                        409,
                        5_374_930,
                        "The LUN attribute already exists.",
                    ));
                }
                all.push(attribute(call.body)?);
            }
            ("PATCH", [name]) => {
                let found = at(&all, name).ok_or_else(gone)?;
                all[found] = attribute(&json!({"name": name, "value": call.body["value"]}))?;
            }
            ("DELETE", [name]) => {
                let found = at(&all, name).ok_or_else(gone)?;
                all.remove(found);
            }
            _ => return Err(Refusal::no_endpoint()),
        }
        lun["attributes"] = json!(all);
        self.put("luns", uuid, lun);
        let made = call.request.method == "POST";
        let name = call.body["name"].as_str().unwrap_or_default().to_owned();
        let href = format!("storage/luns/{uuid}/attributes");
        let location = made.then(|| (href.as_str(), name, call.body.clone()));
        Ok(self.changed(call, location, if made { 201 } else { 200 }))
    }
}

fn attribute(body: &Value) -> Result<Value, Refusal> {
    let (name, value) = (body["name"].as_str(), body["value"].as_str());
    let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
    if name.is_empty() || value.is_empty() || name.len() + value.len() > ATTRIBUTE {
        return Err(Refusal::new(
            400,
            5_374_929,
            "The combined length of a LUN attribute's name and value is wrong.",
        ));
    }
    Ok(json!({"name": name, "value": value}))
}

fn blank(body: &Value) -> Result<Value, Refusal> {
    if body["os_type"].as_str().is_none() {
        return Err(Refusal::new(
            400,
            5_374_341,
            "The property os_type is required.",
        ));
    }
    let space = &body["space"];
    let size = number(&space["size"])
        .ok_or_else(|| Refusal::new(400, 5_374_341, "The property space.size is required."))?;
    let attributes = body["attributes"].as_array().into_iter().flatten();
    let attributes: Vec<Value> = attributes.map(attribute).collect::<Result<_, _>>()?;
    let thin = space["scsi_thin_provisioning_support_enabled"]
        .as_bool()
        .unwrap_or(false);
    let reserved = space["guarantee"]["requested"].as_bool().unwrap_or(true);
    Ok(json!({
        "os_type": body["os_type"],
        "space": {
            "size": rounded(size)?, "used": 0, "scsi_thin_provisioning_support_enabled": thin,
            "guarantee": {"requested": reserved, "reserved": reserved},
        },
        "attributes": attributes,
    }))
}

fn rounded(size: u64) -> Result<u64, Refusal> {
    if size > LARGEST {
        return Err(Refusal::new(
            400,
            5_374_125,
            "The specified size is too large.",
        ));
    }
    if size < SECTOR {
        return Err(Refusal::new(
            400,
            5_374_124,
            "The specified size is too small.",
        ));
    }
    Ok(size.next_multiple_of(SECTOR))
}

fn resize(lun: &mut Value, size: u64) -> Result<(), Refusal> {
    let size = rounded(size)?;
    let old = number(&lun["space"]["size"]).unwrap_or_default();
    if size == old {
        return Err(Refusal::new(
            400,
            1_254_226,
            "New size is the same as the old size.",
        ));
    }
    if size < old {
        return Err(Refusal::new(
            400,
            5_374_892,
            "Reducing the size of a LUN might cause permanent data loss.",
        ));
    }
    lun["space"]["size"] = json!(size);
    Ok(())
}

fn rename(lun: &mut Value, path: &str) {
    lun["name"] = json!(path);
    lun["location"]["logical_unit"] = json!(path.rsplit('/').next());
}
